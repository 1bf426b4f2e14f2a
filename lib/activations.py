"""What bends a feed-forward layer: ReLU, GELU and Swish.

Derived in chapter 05_activations.

Each is a function of one number, applied to every element of a tensor:

* `relu`, `gelu`, `swish`: the formulas as the papers have them;
* `ReLU`, `GELU`, `Swish`: modules, the ones to use in a model. Where torch has a fused kernel they
  call it, as `fast_attention` does: an element-wise formula is bound by memory, and each of its
  operations reads and writes the whole tensor.

They share one contract:

* Input. A tensor of any shape in float64, float32, bfloat16 or float16.
* Output. The same shape and dtype. float16 and bfloat16 are computed in float32 and rounded once;
  under autocast an element-wise function keeps its input's dtype, and so do these.
* Every finite number has a finite value, and from a function a finite gradient, in every one of
  these dtypes. From a module too, up to 1e12: beyond, torch's tanh form has the gradient NaN.
* NaN gives NaN. At +inf the value is +inf; at −inf `relu` gives 0, while `gelu` and `swish` give
  NaN, as ∞ · 0 does and as torch's functions do. Gradients at ±inf are NaN where the value came by
  ∞ · 0, and not promised otherwise.
* Errors. ValueError, in one line with what was expected and what came, for a wrong dtype or option;
  TypeError for something that is no tensor. Only metadata is looked at: no device synchronisation,
  and `torch.compile(fullgraph=True)` and `torch.vmap` work.
* Derivatives of any order, by autograd.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GELU", "ReLU", "Swish", "gelu", "relu", "swish"]


def relu(x: Tensor) -> Tensor:
    """Keep what is positive.

        relu(x) = max(x, 0) = x · 1[x > 0]

    The slope at 0, where there is none, is taken as 0, as in torch.

    Source: Nair & Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines";
    Vaswani et al. 2017, arXiv:1706.03762, section 3.3, equation 2, use it. Derived in chapter
    05_activations.

    >>> relu(torch.tensor([-2.0, 0.0, 3.0]))
    tensor([0., 0., 3.])
    """
    _validate(x)
    return torch.where(x <= 0, 0.0, x)  # not x > 0: that would turn NaN into 0


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Let x pass with the probability that a standard normal number lies below it.

        gelu(x) = x · Φ(x),        Φ(x) = (1 + erf(x/√2)) / 2

    and with approximate="tanh"

        gelu(x) ≈ x · (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2

    Parameters
    ----------
    x : any shape
    approximate : "none" or "tanh"
        BERT, ELECTRA and DistilBERT have the first, GPT-2 the second. They differ by at most
        4.73e-4, at x = ±2.699: little, but enough to spoil a comparison of checkpoints.

    Precision: for x < 0 the sum 1 + erf(x/√2) loses its digits by cancellation, and beyond x = −8.3
    all of them. There Φ is computed as erfc(−x/√2) / 2, which keeps them down to x = −37. torch's
    function does not, so the two agree to 1e-15 in absolute error (or to a unit in the last place,
    where that is more), but not in relative error. The tanh form is computed as it is written,
    cancellation included: its tail is wrong by more than rounding anyway.

    Raises ValueError for a wrong dtype or `approximate`.

    Source: Hendrycks & Gimpel 2016, "Gaussian Error Linear Units (GELUs)", arXiv:1606.08415,
    section 2. That section also offers x σ(1.702x), which is `swish(x, beta=1.702)`.
    Deviation: beyond |x| = 100, where tanh is ±1 to the last bit, x³ is not formed, as it would
    overflow and its gradient would be 0 · ∞.
    Derived in chapter 05_activations.

    >>> gelu(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1587,  0.0000,  0.8413])
    >>> gelu(torch.tensor([-1.0, 0.0, 1.0]), approximate="tanh")
    tensor([-0.1588,  0.0000,  0.8412])
    """
    dtype = _validate(x)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")
    x = _upcast(x)

    if approximate == "none":
        z = x * math.sqrt(0.5)
        gate = torch.where(x < 0, torch.erfc(-z), 1 + torch.erf(z)) / 2  # Φ(x)
    else:
        near = x.clamp(-100, 100)
        gate = (1 + torch.tanh(math.sqrt(2 / math.pi) * (near + 0.044715 * near**3))) / 2
    return (x * gate).to(dtype)


def swish(x: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """Let x pass through a logistic gate of itself.

        swish(x) = x · σ(βx),        σ(z) = 1 / (1 + e^(−z))

    Parameters
    ----------
    x : any shape
    beta : finite float, or a floating-point tensor that broadcasts to x's shape
        How sharp the gate is. β = 0 gives x/2; β = 1 is also called SiLU; β = 1.702 is the GELU
        paper's second approximation; as β → ∞ it becomes relu, with a gap of .2785/β at most. That
        limit itself is not a value of β: infinity is refused (0 · ∞ would be NaN at x = 0), so use
        `relu`. A tensor may be trained; its values are not checked. A negative β gates the other
        side.

    Raises ValueError for a wrong dtype, or a `beta` that is not finite or does not broadcast.

    Source: Ramachandran, Zoph & Le 2017, "Searching for Activation Functions", arXiv:1710.05941,
    section 4; with β = 1 Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2, who name it SiLU.
    Derived in chapter 05_activations.

    >>> swish(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.2689,  0.0000,  0.7311])
    >>> swish(torch.tensor([-1.0, 0.0, 1.0]), beta=0.0)
    tensor([-0.5000,  0.0000,  0.5000])
    """
    dtype = _validate(x)
    _validate_beta(x, beta)
    x = _upcast(x)
    if isinstance(beta, Tensor):
        beta = _upcast(beta)
    return (x * torch.sigmoid(beta * x)).to(dtype)


class ReLU(nn.Module):
    """`relu`, through torch's kernel."""

    def forward(self, x: Tensor) -> Tensor:
        _validate(x)
        return F.relu(x)


class GELU(nn.Module):
    """`gelu` with the same `approximate`, through torch's kernel.

    Equal to `gelu` to 1e-15 in float64, or to a unit in the last place where that is more; in the
    tail below −5 torch's kernel is right to that absolute error and no more.

    Raises ValueError for a wrong `approximate`, and in `forward` for a wrong dtype.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        gelu(torch.zeros(()), approximate)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        _validate(x)
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Swish(nn.Module):
    """`swish`, for a fixed β = 1 through torch's kernel (it is called `silu` there).

    Parameters
    ----------
    beta : finite float
        The gate's sharpness, or where training begins.
    trainable : bool
        Make `beta` a parameter of shape (), as the paper's section 4 offers; else it is a Python
        number, and the module has no state.

    Raises ValueError for a `beta` that is not a finite number, and in `forward` for a wrong dtype.

    >>> list(Swish().parameters())
    []
    >>> Swish(2.0, trainable=True).beta
    Parameter containing:
    tensor(2., requires_grad=True)
    """

    def __init__(self, beta: float = 1.0, *, trainable: bool = False) -> None:
        super().__init__()
        _validate_beta(torch.zeros(()), beta)
        self.beta = nn.Parameter(torch.tensor(float(beta))) if trainable else float(beta)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.beta, Tensor) or self.beta != 1.0:
            return swish(x, self.beta)
        _validate(x)
        return F.silu(x)

    def extra_repr(self) -> str:
        return "beta trained" if isinstance(self.beta, Tensor) else f"beta={self.beta}"


_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _upcast(x: Tensor) -> Tensor:
    """float16 and bfloat16 to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _validate(x: Tensor) -> torch.dtype:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in _FLOATS:
        raise ValueError(f"x: expected float64, float32, bfloat16 or float16, got {x.dtype}")
    return x.dtype


def _validate_beta(x: Tensor, beta: float | Tensor) -> None:
    if isinstance(beta, Tensor):
        if beta.dtype not in _FLOATS:
            raise ValueError(
                f"beta: expected float64, float32, bfloat16 or float16, got {beta.dtype}"
            )
        trailing = x.shape[x.ndim - beta.ndim :] if beta.ndim <= x.ndim else None
        if trailing is None or any(
            size not in (1, full) for size, full in zip(beta.shape, trailing, strict=True)
        ):
            raise ValueError(
                f"beta: expected a shape that broadcasts to {tuple(x.shape)}, "
                f"got {tuple(beta.shape)}"
            )
    elif not isinstance(beta, int | float) or not math.isfinite(beta):
        raise ValueError(f"beta: expected a finite number (the limit is relu), got {beta!r}")
