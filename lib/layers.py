"""The parts of a Transformer block around attention: normalisation, feed-forward, residual stream.

Derived in chapter 06_transformer_block.

Shapes are written with d_model features of a token, d_ff features inside the feed-forward layer,
B sequences of n tokens, and "..." for any leading dimensions.

* `LayerNorm`: give every token mean 0 and variance 1, then a learned scale and shift;
* `FeedForward`: the same two linear maps for every token, with a bend between them;
* `EncoderLayer`: self-attention and feed-forward, each added to what went in, and normalised either
  after the sum (post-norm) or before the sublayer (pre-norm).

They share one contract:

* Input. float64, float32, bfloat16 or float16, with d_model as last dimension; the output has the
  input's shape. Tokens do not mix but in attention.
* Precision. float64 stays float64. `LayerNorm` computes float16 and bfloat16 in float32 and rounds
  once; linear maps round as `nn.Linear` does.
* NaN and infinity propagate, within their token in `LayerNorm` and `FeedForward`.
* Errors. ValueError, in one line with what was expected and what came, for a wrong size, shape,
  dtype or option; TypeError for something that is no tensor. Only metadata is looked at: no device
  synchronisation, and `torch.compile(fullgraph=True)` works.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import MultiHeadAttention

__all__ = ["ACTIVATIONS", "EncoderLayer", "FeedForward", "LayerNorm", "initialise"]

# The functions of lib.activations through torch's fused kernels, which equal them to the last digit
# and train a feed-forward layer twice as fast.
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "swish": F.silu,
}


class LayerNorm(nn.Module):
    """Give every token mean 0 and variance 1 over its features, then scale and shift them.

        LayerNorm(x) = γ ∘ (x − μ) / √(σ² + ε) + β,      μ = Σ_i x_i / d,   σ² = Σ_i (x_i − μ)² / d

    Parameters
    ----------
    d_model : int ≥ 1
        d, the features of a token; with one feature the result is β.
    eps : float ≥ 0
        ε, under the root. It bounds what a token of equal features is divided by, and is a part of
        the model: BERT has 1e-12, GPT-2 and torch 1e-5, and a checkpoint needs its own.
    bias : bool
        Whether there is a β.

    Attributes: `weight` (d_model,), γ, begins at 1; `bias` (d_model,), β, begins at 0, or None.

    The variance is the biased one, divided by d. `torch.var` divides by d − 1 unless told
    otherwise, which makes every feature smaller by √((d − 1)/d): nothing that training would show,
    and enough to spoil a checkpoint.

    Raises ValueError for a wrong size or `eps`, or for x that is not (..., d_model) of floats.

    Source: Ba, Kiros & Hinton 2016, "Layer Normalization", arXiv:1607.06450, section 3,
    equation 3 (μ and σ), and section 3.1, equation 4 (γ and β, there g and b).
    Deviations: the paper's equations have no ε; its position under the root is torch's.
    Derived in chapter 06_transformer_block.

    >>> x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    >>> LayerNorm(3)(x)
    tensor([[-1.2247,  0.0000,  1.2247],
            [-1.2247,  0.0000,  1.2247]], grad_fn=<AddBackward0>)
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        _validate_size("d_model", d_model)
        if not isinstance(eps, int | float) or not 0.0 <= eps < math.inf:
            raise ValueError(f"eps: expected a finite number of at least 0, got {eps!r}")
        self.d_model, self.eps = d_model, float(eps)
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) to the same shape and dtype."""
        _validate(x, self.d_model)
        dtype = x.dtype
        x = x.to(torch.promote_types(dtype, torch.float32))

        centred = x - x.mean(dim=-1, keepdim=True)  # (..., d_model)
        variance = centred.square().mean(dim=-1, keepdim=True)  # (..., 1)
        x = self.weight * (centred * torch.rsqrt(variance + self.eps))
        if self.bias is not None:
            x = x + self.bias
        return x.to(dtype)

    def extra_repr(self) -> str:
        return f"{self.d_model}, eps={self.eps}, bias={self.bias is not None}"


class FeedForward(nn.Module):
    """Send every token, by itself, through two linear maps with a bend between them.

        FeedForward(x) = φ(x W_1 + b_1) W_2 + b_2,      W_1: d_model × d_ff,   W_2: d_ff × d_model

    Parameters
    ----------
    d_model, d_ff : int ≥ 1
        The paper has d_ff = 4 d_model; then this layer holds two thirds of a block's parameters.
    activation : "gelu", "gelu_tanh", "relu" or "swish"
        φ, as in `lib.activations`. The paper has ReLU.
    dropout : float in [0, 1)
        After φ, in training mode. Off by default: neither the paper nor BERT has it here,
        torch's layer has.
    bias : bool
        Whether there are b_1 and b_2.

    Attributes: `expand` and `contract`, each an `nn.Linear`, with torch's initial values.

    Raises ValueError for a wrong size or option, or for x that is not (..., d_model) of floats.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3, equation 2.
    Derived in chapter 06_transformer_block; φ in chapter 05_activations.

    >>> FeedForward(8, 32)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _validate_size("d_model", d_model)
        _validate_size("d_ff", d_ff)
        _validate_dropout("dropout", dropout)
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        self.d_model, self.activation, self.dropout = d_model, activation, dropout
        self.expand = nn.Linear(d_model, d_ff, bias=bias)
        self.contract = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) to the same shape."""
        _validate(x, self.d_model)
        hidden = ACTIVATIONS[self.activation](self.expand(x))  # (..., d_ff)
        return self.contract(F.dropout(hidden, self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"activation={self.activation}, dropout={self.dropout}"


class EncoderLayer(nn.Module):
    """One block of an encoder: tokens look at each other, then each thinks by itself.

        post-norm:  x ← LN(x + Attention(x)),    x ← LN(x + FeedForward(x))
        pre-norm:   x ← x + Attention(LN(x)),    x ← x + FeedForward(LN(x))

    Parameters
    ----------
    d_model, num_heads, d_ff : int
    dropout : float in [0, 1)
        On the output of each sublayer, before it is added; in training mode.
    attention_dropout : float in [0, 1), optional
        On the attention weights; `dropout` if left out.
    activation_dropout : float in [0, 1)
        Inside the feed-forward layer. With `activation_dropout=dropout` every place that torch's
        layer has is there.
    activation : as in `FeedForward`
    norm : "post" or "pre"
        With pre-norm nothing stands between the layers' sum and the output, so a stack of them
        needs one more `LayerNorm` at its end.
    eps : float ≥ 0, of both norms

    Attributes: `attention`, `attention_norm`, `feed_forward`, `feed_forward_norm`.

    Equals `nn.TransformerEncoderLayer` (batch first) with the same weights, in both norms.

    Raises ValueError for a wrong size or option; what `forward` refuses is named there.

    Source: Vaswani et al. 2017, arXiv:1706.03762, sections 3.1 (post-norm) and 5.4 (dropout);
    pre-norm: Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture",
    arXiv:2002.04745, section 3.1.
    Deviations: section 5.4 has no dropout on the attention weights; its authors' code and BERT do.
    Derived in chapter 06_transformer_block.

    >>> layer = EncoderLayer(12, 3, 48, norm="pre")
    >>> layer(torch.randn(2, 5, 12)).shape
    torch.Size([2, 5, 12])
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        dropout: float = 0.0,
        attention_dropout: float | None = None,
        activation_dropout: float = 0.0,
        activation: str = "gelu",
        norm: str = "post",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        _validate_dropout("dropout", dropout)
        if norm not in ("post", "pre"):
            raise ValueError(f"norm: expected 'post' or 'pre', got {norm!r}")
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.dropout, self.norm = dropout, norm
        self.attention = MultiHeadAttention(d_model, num_heads, dropout=attention_dropout)
        self.attention_norm = LayerNorm(d_model, eps)
        self.feed_forward = FeedForward(
            d_model, d_ff, activation=activation, dropout=activation_dropout
        )
        self.feed_forward_norm = LayerNorm(d_model, eps)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """(B, n, d_model) to the same shape; `mask` and `causal` as in `MultiHeadAttention`."""
        if self.norm == "post":
            x = self.attention_norm(x + self._drop(self.attention(x, mask=mask, causal=causal)))
            return self.feed_forward_norm(x + self._drop(self.feed_forward(x)))
        normed = self.attention_norm(x)
        x = x + self._drop(self.attention(normed, mask=mask, causal=causal))
        return x + self._drop(self.feed_forward(self.feed_forward_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def extra_repr(self) -> str:
        return f"norm={self.norm}, dropout={self.dropout}"


def initialise(model: nn.Module, std: float) -> None:
    """Draw the weights of every `nn.Linear` and `nn.Embedding` in a model from N(0, std²).

    Biases of linear maps become 0; all else stays, so that norms are the identity.

    Source: the code of Devlin et al. 2019 (BERT), std = .02, there cut off at two standard
    deviations; the paper does not say.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# Validation

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _validate(x: Tensor, d_model: int) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in _FLOATS:
        raise ValueError(f"x: expected float64, float32, bfloat16 or float16, got {x.dtype}")
    if x.ndim < 1 or x.shape[-1] != d_model:
        raise ValueError(f"x: expected shape (..., {d_model}), got {tuple(x.shape)}")


def _validate_size(name: str, size: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")


def _validate_dropout(name: str, p: float) -> None:
    if not isinstance(p, int | float) or not 0.0 <= p < 1.0:
        raise ValueError(f"{name}: expected a number in [0, 1), got {p!r}")
