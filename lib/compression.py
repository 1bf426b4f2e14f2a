"""Making a trained network smaller: zeros, smaller matrices, and fewer bits a number.

Derived in chapter 15_pruning_and_quantization.

Pruning:

* `magnitude_prune`: set the smallest weights to zero; `apply_masks` keeps them there in training.
  The matrices keep their shapes, so by itself it makes no file and no product smaller: mistake D35;
* `structured_prune_heads`, `structured_prune_neurons`: cut whole heads or neurons out. The matrices
  get smaller, and everything with them.

Quantization, to integers q with a scale s and a zero point z, so that x ≈ s (q − z):

* `quantize`, `dequantize`: a tensor to integers and back; `fake_quantize`: there and back in one
  step, with a straight-through gradient, to train with;
* `quantize_int8`: a module whose linear maps and embeddings hold int8; `Int8Linear` computes in
  float or, through torch's own integer kernel, in int8;
* `pack_bits`, `unpack_bits`: integers of fewer than eight bits, stored without gaps.

They share one contract:

* `structured_…` and `quantize_int8` return new modules and leave the given one as it is.
  `magnitude_prune` and `apply_masks` write into the weights.
* Results are deterministic: of weights of equal magnitude, those that come first go first; halves
  are rounded to even, as torch does.
* Errors. ValueError, in one line with what was expected and what came; TypeError for something of
  the wrong type. Weights that are NaN or infinite are refused where a scale is computed of them.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import MultiHeadAttention
from lib.layers import FeedForward

__all__ = [
    "Int8Embedding",
    "Int8Linear",
    "Quantized",
    "apply_masks",
    "dequantize",
    "fake_quantize",
    "magnitude_prune",
    "pack_bits",
    "quantize",
    "quantize_int8",
    "structured_prune_heads",
    "structured_prune_neurons",
    "unpack_bits",
]


def magnitude_prune(module: nn.Module, amount: float, *, scope: str = "each") -> dict[str, Tensor]:
    """Set the weights of smallest magnitude to zero, in place.

        W' = argmin { ‖W − V‖_F : V has at most n − k entries other than 0 },   k = round(amount n)

    Parameters
    ----------
    module : nn.Module
        The weights of every `nn.Linear` and `nn.Embedding` in it, or its own, are pruned; biases
        and norms are not. A weight that two modules share is pruned once.
    amount : float in [0, 1]
        The share of the weights that go.
    scope : "each" or "all"
        Whether each matrix loses this share, or all together, so that one loses more than another.

    Returns the masks {name of the parameter: boolean, its shape, True = kept}, for `apply_masks`.

    ValueError for an amount or a scope that is none of these, or for a module without such weights.

    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks",
    arXiv:1506.02626, section 3, there by a threshold for each layer and with retraining.
    Derived in chapter 15_pruning_and_quantization.

    >>> linear = torch.nn.Linear(3, 1, bias=False)
    >>> _ = linear.weight.data.copy_(torch.tensor([[0.5, -3.0, 1.0]]))
    >>> masks = magnitude_prune(linear, 1 / 3)
    >>> linear.weight.tolist(), masks["weight"].tolist()
    ([[0.0, -3.0, 1.0]], [[False, True, True]])
    """
    if not isinstance(amount, int | float) or not 0 <= amount <= 1:
        raise ValueError(f"amount: expected a number in [0, 1], got {amount!r}")
    if scope not in ("each", "all"):
        raise ValueError(f"scope: expected 'each' or 'all', got {scope!r}")
    weights = _weights(module)
    if not weights:
        raise ValueError(
            f"module: expected one with linear maps or embeddings, got {type(module).__name__}"
        )
    groups = [list(weights)] if scope == "all" else [[name] for name in weights]
    masks = {}
    for names in groups:
        sizes = [weights[name].numel() for name in names]
        magnitudes = torch.cat([weights[name].detach().abs().flatten() for name in names])
        kept = torch.ones_like(magnitudes, dtype=torch.bool)
        kept[magnitudes.argsort(stable=True)[: round(amount * len(kept))]] = False
        for name, part in zip(names, kept.split(sizes), strict=True):
            masks[name] = part.view_as(weights[name])
    apply_masks(module, masks)
    return masks


def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights to zero, in place, where their mask is False: after every step of training.

    ValueError if a name or a shape does not fit.
    """
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                found = tuple(parameters[name].shape) if name in parameters else "no such parameter"
                raise ValueError(
                    f"masks[{name!r}]: expected shape {found}, got {tuple(mask.shape)}"
                )
            parameters[name].masked_fill_(~mask, 0.0)


def structured_prune_heads(module: MultiHeadAttention, heads: Iterable[int]) -> MultiHeadAttention:
    """Return attention without these heads: fewer rows in W^Q, W^K, W^V, fewer columns in W^O.

    Head i owns the rows i · d_head … (i + 1) · d_head − 1 of the first three weights and biases,
    and the same columns of the last. The output is what `module` gives with those columns at zero:
    Σ over the heads that stay, and the output's bias. d_model and d_head do not change; the module
    given does not either.

    TypeError if it is no `MultiHeadAttention`; ValueError for a head that is not there, or twice,
    and if none would be left.

    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv:1905.10650,
    section 2.3, there by a mask ξ_h in front of each head.
    Derived in chapter 15_pruning_and_quantization.

    >>> smaller = structured_prune_heads(MultiHeadAttention(12, 3), [1])
    >>> smaller.num_heads, tuple(smaller.query_projection.weight.shape)
    (2, (8, 12))
    """
    if not isinstance(module, MultiHeadAttention):
        raise TypeError(f"module: expected MultiHeadAttention, got {type(module).__name__}")
    kept = _rest("heads", heads, module.num_heads)
    rows = (kept[:, None] * module.d_head + torch.arange(module.d_head)).flatten()
    pruned = copy.deepcopy(module)
    pruned.num_heads = len(kept)
    for name in ("query_projection", "key_projection", "value_projection"):
        setattr(pruned, name, _cut(getattr(module, name), rows, dim=0))
    pruned.output_projection = _cut(module.output_projection, rows, dim=1)
    return pruned


def structured_prune_neurons(module: FeedForward, neurons: Iterable[int]) -> FeedForward:
    """Return a feed-forward layer without these neurons: d_ff is smaller, the output as with
    zeroed columns of W_2.

    Neuron j owns row j of the weights of `expand` (and of `gate`), its bias, and column j of
    `contract`. The module given does not change.

    TypeError if it is no `FeedForward`; ValueError for a neuron that is not there, or twice, and if
    none would be left.

    Source: ours; the same idea for filters is Li et al. 2017, "Pruning Filters for Efficient
    ConvNets", arXiv:1608.08710, section 3.1.
    Derived in chapter 15_pruning_and_quantization.

    >>> structured_prune_neurons(FeedForward(8, 32), range(24)).expand
    Linear(in_features=8, out_features=8, bias=True)
    """
    if not isinstance(module, FeedForward):
        raise TypeError(f"module: expected FeedForward, got {type(module).__name__}")
    kept = _rest("neurons", neurons, module.expand.out_features)
    pruned = copy.deepcopy(module)
    pruned.expand = _cut(module.expand, kept, dim=0)
    pruned.contract = _cut(module.contract, kept, dim=1)
    if module.gate is not None:
        pruned.gate = _cut(module.gate, kept, dim=0)
    return pruned


@dataclass(frozen=True, eq=False)
class Quantized:
    """Integers that stand for numbers: x ≈ scale (integers − zero_point).

    Attributes: `integers`, int8, of x's shape; `scale`, of x's dtype, and `zero_point`, int8, whose
    shapes broadcast to it; `bits`, of which all integers fit −2^(bits−1) … 2^(bits−1) − 1.
    """

    integers: Tensor
    scale: Tensor
    zero_point: Tensor
    bits: int


def quantize(
    x: Tensor, bits: int = 8, *, scheme: str = "symmetric", axis: int | None = None
) -> Quantized:
    """Round numbers to a grid of at most 2^bits evenly spaced ones.

        q = clamp(round(x / s) + z),       x ≈ s (q − z),       |x − s (q − z)| ≤ s / 2

        symmetric:  s = max |x| / (2^(b−1) − 1),      z = 0,      |q| ≤ 2^(b−1) − 1
        affine:     s = (max x − min x) / (2^b − 1),  z = −2^(b−1) − round(min x / s)

    where for the affine grid 0 counts among the x, so that it lies within its range. Zero is kept
    exactly by both, as z is an integer.

    Parameters
    ----------
    x : floating tensor, finite, with at least one entry
    bits : 2 to 8
    scheme : "symmetric" or "affine"
    axis : int, optional
        A grid of its own for each index along this axis: 0 gives each output channel of a weight
        (out, in) its scale. None: one for all of x.

    ValueError for a wrong dtype, value, option or axis, TypeError for no tensor. To clip, clamp x
    before. What is all zeros has scale 1.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", arXiv:1712.05877, sections 2.1 and 3.
    Deviations: integers are signed in both schemes; the scales are floats.
    Derived in chapter 15_pruning_and_quantization.

    >>> q = quantize(torch.tensor([-1.0, 0.0, 3.0]), bits=3, scheme="affine")
    >>> q.integers.tolist(), round(q.scale.item(), 4), q.zero_point.item()
    ([-4, -2, 3], 0.5714, -2)
    """
    _validate_floats("x", x)
    if not isinstance(bits, int) or isinstance(bits, bool) or not 2 <= bits <= 8:
        raise ValueError(f"bits: expected an integer in 2 to 8, got {bits!r}")
    if scheme not in ("symmetric", "affine"):
        raise ValueError(f"scheme: expected 'symmetric' or 'affine', got {scheme!r}")
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis: expected one of {x.ndim} dimensions, got {axis!r}")
    others = [d for d in range(x.ndim) if axis is None or d != axis % x.ndim]
    highest = x.detach().amax(others, keepdim=True) if others else x.detach()
    lowest = x.detach().amin(others, keepdim=True) if others else x.detach()
    if not bool((highest.isfinite() & lowest.isfinite()).all()):
        raise ValueError("x: expected finite numbers, got NaN or infinity")
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if scheme == "symmetric":
        low = -high
        scale = torch.maximum(highest, -lowest) / high
    else:
        highest, lowest = highest.clamp_min(0.0), lowest.clamp_max(0.0)
        scale = (highest - lowest) / (high - low)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero_point = torch.zeros_like(scale)
    if scheme == "affine":
        zero_point = low - (lowest / scale).round()
    integers = ((x.detach() / scale).round() + zero_point).clamp(low, high)
    return Quantized(integers.to(torch.int8), scale, zero_point.to(torch.int8), bits)


@overload
def dequantize(quantized: Quantized) -> Tensor: ...
@overload
def dequantize(quantized: nn.Module) -> nn.Module: ...
def dequantize(quantized):
    """Return the numbers s (q − z) that `quantize` rounded to, in the scale's dtype.

    Of a module made by `quantize_int8`, the module with `nn.Linear` and `nn.Embedding` again, whose
    weights are those numbers.

    TypeError for anything else. Derived in chapter 15_pruning_and_quantization.

    >>> dequantize(quantize(torch.tensor([0.0, 0.3, 1.0]), bits=2))
    tensor([0., 0., 1.])
    """
    if isinstance(quantized, Quantized):
        steps = quantized.integers.to(quantized.scale.dtype) - quantized.zero_point
        return quantized.scale * steps
    if isinstance(quantized, nn.Module):
        return _replaced(quantized, {Int8Linear: _to_linear, Int8Embedding: _to_embedding})
    raise TypeError(f"quantized: expected Quantized or a module, got {type(quantized).__name__}")


def fake_quantize(
    x: Tensor, bits: int = 8, *, scheme: str = "symmetric", axis: int | None = None
) -> Tensor:
    """`dequantize(quantize(x))`, with a gradient that passes straight through, as if it were x.

        value: s (q − z)           gradient: that of the identity

    Rounding is a staircase: its own gradient is 0 wherever there is one. Parameters and errors as
    in `quantize`. The scale counts as a constant, and since it fits all of x, nothing is clipped.

    Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation", arXiv:1308.3432; for weights, Jacob et al. 2018,
    arXiv:1712.05877, section 3.
    Derived in chapter 15_pruning_and_quantization.

    >>> x = torch.tensor([0.3, 1.0], requires_grad=True)
    >>> y = fake_quantize(x, bits=2)
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 1.0], [1.0, 1.0])
    """
    rounded = dequantize(quantize(x, bits, scheme=scheme, axis=axis))
    return rounded + (x - x.detach())  # x − x is exactly 0, and its gradient is 1


class Int8Linear(nn.Module):
    """A linear map that holds its weight as int8, with a scale for each output channel.

        y = x Wᵀ + b,    W_oi = s_o (q_oi − z_o)

    activations "float":  W is written out as floats for the product, and forgotten.
    activations "int8":   each row of x is rounded too, x_ni ≈ t_n p_ni, and the product is one of
                          integers, summed in int32:

        y_no = t_n s_o (Σ_i p_ni q_oi − z_o Σ_i p_ni) + b_o

    Parameters
    ----------
    linear : nn.Linear
    scheme : "symmetric" or "affine", of the weight
    activations : "float" or "int8"

    Attributes: buffers `integers` (out, in) int8, `scale` (out, 1), `zero_point` (out, 1) int8, or
    None if symmetric, `bias` (out), or None; and `weight`, the floats, computed when asked for. It
    is not meant to be trained: what was a parameter is a buffer.

    Input (..., in), output (..., out), dtype that of the weight. "int8" works on CPU and CUDA, and
    has no gradient.

    Raises ValueError for an option, or an input whose last dimension or dtype does not fit.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 2.2, equation 4; a scale for each row of
    the input is ours. The integer product is `torch._int_mm`.
    Derived in chapter 15_pruning_and_quantization.
    """

    def __init__(
        self, linear: nn.Linear, *, scheme: str = "symmetric", activations: str = "float"
    ) -> None:
        super().__init__()
        if activations not in ("float", "int8"):
            raise ValueError(f"activations: expected 'float' or 'int8', got {activations!r}")
        self.activations = activations
        _hold(self, quantize(linear.weight, scheme=scheme, axis=0), scheme)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        return _floats(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.integers.shape[1] or x.dtype != self.scale.dtype:
            raise ValueError(
                f"x: expected (..., {self.integers.shape[1]}) of {self.scale.dtype}, "
                f"got {tuple(x.shape)} of {x.dtype}"
            )
        if self.activations == "float":
            return F.linear(x, self.weight, self.bias)
        rows = x.detach().reshape(-1, x.shape[-1])
        if not len(rows):
            return x.new_zeros(*x.shape[:-1], len(self.scale))
        p = quantize(rows, axis=0)
        products = _int_matmul(p.integers, self.integers.T)  # (N, out), int32
        if self.zero_point is not None:
            sums = p.integers.sum(-1, keepdim=True, dtype=torch.int32)
            products = products - sums * self.zero_point.T.to(torch.int32)
        y = products.to(x.dtype) * p.scale * self.scale.T
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)

    def extra_repr(self) -> str:
        out, features = self.integers.shape
        return f"{features}, {out}, activations={self.activations}"


class Int8Embedding(nn.Module):
    """A table of vectors held as int8, with a scale for each row; rows are written out as read.

    Buffers `integers` (V, d) int8, `scale` (V, 1), `zero_point` (V, 1) int8 or None; `weight`, the
    floats. Derived in chapter 15_pruning_and_quantization.
    """

    def __init__(self, embedding: nn.Embedding, *, scheme: str = "symmetric") -> None:
        super().__init__()
        _hold(self, quantize(embedding.weight, scheme=scheme, axis=0), scheme)

    @property
    def weight(self) -> Tensor:
        return _floats(self)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) to (..., d)."""
        steps = F.embedding(ids, self.integers).to(self.scale.dtype)
        if self.zero_point is not None:
            steps = steps - F.embedding(ids, self.zero_point)
        return F.embedding(ids, self.scale) * steps


def quantize_int8(
    module: nn.Module, *, scheme: str = "symmetric", activations: str = "float"
) -> nn.Module:
    """Return the module with every `nn.Linear` as `Int8Linear`, every `nn.Embedding` as
    `Int8Embedding`: a byte a weight, and a scale a row.

    The module given does not change. Biases, norms and whatever holds its own parameters stay as
    they are. A weight that two modules share is stored by each. `scheme` and `activations` as in
    `Int8Linear`. `dequantize` goes back, to rounded weights.

    ValueError for an option that is none, or weights that are not finite.
    Derived in chapter 15_pruning_and_quantization.

    >>> quantize_int8(torch.nn.Linear(3, 2)).integers.dtype
    torch.int8
    """

    def to_int8(linear: nn.Linear) -> Int8Linear:
        return Int8Linear(linear, scheme=scheme, activations=activations)

    def to_int8_table(embedding: nn.Embedding) -> Int8Embedding:
        return Int8Embedding(embedding, scheme=scheme)

    if scheme not in ("symmetric", "affine"):
        raise ValueError(f"scheme: expected 'symmetric' or 'affine', got {scheme!r}")
    if activations not in ("float", "int8"):
        raise ValueError(f"activations: expected 'float' or 'int8', got {activations!r}")
    return _replaced(module, {nn.Linear: to_int8, nn.Embedding: to_int8_table})


def pack_bits(integers: Tensor, bits: int) -> Tensor:
    """Store integers of `bits` bits each without gaps: ⌈n · bits / 8⌉ bytes, uint8, one dimension.

    integers : int8 or bool, of −2^(bits−1) … 2^(bits−1) − 1; a bool, with bits 1, is a mask
    bits : 1 to 8

    The lowest bit of the first integer is the lowest bit of the first byte; the last byte is filled
    with zeros. ValueError for a dtype, for bits, or for an integer that does not fit.
    Derived in chapter 15_pruning_and_quantization.

    >>> packed = pack_bits(torch.tensor([1, -1, 0, 1, 1], dtype=torch.int8), 2)
    >>> packed.tolist(), unpack_bits(packed, 2, (5,)).tolist()
    ([77, 1], [1, -1, 0, 1, 1])
    """
    _validate_bits(bits)
    if integers.dtype not in (torch.int8, torch.bool) or (integers.dtype == torch.bool) != (
        bits == 1
    ):
        raise ValueError(f"integers: expected int8, or bool for 1 bit, got {integers.dtype}")
    values = integers.flatten().to(torch.int16)
    if bits > 1 and values.numel():
        low, high = values.min().item(), values.max().item()
        if low < -(2 ** (bits - 1)) or high >= 2 ** (bits - 1):
            raise ValueError(f"integers: expected {bits} bits, got values in {low} to {high}")
    places = torch.arange(bits, device=values.device)
    stream = (values[:, None] >> places & 1).flatten()  # two's complement, lowest bit first
    stream = F.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    return (stream << torch.arange(8, device=values.device)).sum(-1).to(torch.uint8)


def unpack_bits(packed: Tensor, bits: int, shape: Iterable[int]) -> Tensor:
    """The integers of `pack_bits`, int8 (bool for 1 bit), in this shape.

    ValueError for bits that are none, or where the number of bytes does not fit the shape.
    """
    _validate_bits(bits)
    shape = torch.Size(shape)
    n = shape.numel()
    if packed.dtype != torch.uint8 or packed.shape != (-(-n * bits // 8),):
        raise ValueError(
            f"packed: expected {-(-n * bits // 8)} bytes of uint8 for {bits} bits and shape "
            f"{tuple(shape)}, got {tuple(packed.shape)} of {packed.dtype}"
        )
    stream = packed.to(torch.int16)[:, None] >> torch.arange(8, device=packed.device) & 1
    digits = stream.flatten()[: n * bits].view(n, bits)
    if bits == 1:
        return digits.bool().view(shape)
    value = (digits << torch.arange(bits, device=packed.device)).sum(-1)
    return (value - (digits[:, -1].to(value.dtype) << bits)).to(torch.int8).view(shape)


# What the functions above share

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of all linear maps and embeddings, by the names of `named_parameters`."""
    owners = (m for m in module.modules() if isinstance(m, nn.Linear | nn.Embedding))
    wanted = {id(owner.weight) for owner in owners}
    return {name: p for name, p in module.named_parameters() if id(p) in wanted}


def _rest(what: str, removed: Iterable[int], count: int) -> Tensor:
    """The indices 0 … count − 1 that are not removed."""
    removed = list(removed)
    for index in removed:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise ValueError(f"{what}: expected integers in 0 to {count - 1}, got {index!r}")
    if len(set(removed)) < len(removed):
        raise ValueError(f"{what}: expected each once, got {removed}")
    if len(removed) == count:
        raise ValueError(f"{what}: expected at least one of {count} to stay, got all to remove")
    return torch.tensor([i for i in range(count) if i not in set(removed)])


def _cut(linear: nn.Linear, kept: Tensor, *, dim: int) -> nn.Linear:
    """A copy with these rows (dim 0, outputs) or columns (dim 1, inputs) of the weight."""
    cut = copy.deepcopy(linear)
    kept = kept.to(linear.weight.device)

    def part(parameter: nn.Parameter, dim: int) -> nn.Parameter:
        chosen = parameter.detach().index_select(dim, kept)
        return nn.Parameter(chosen, requires_grad=parameter.requires_grad)

    cut.weight = part(linear.weight, dim)
    cut.out_features, cut.in_features = cut.weight.shape
    if dim == 0 and linear.bias is not None:
        cut.bias = part(linear.bias, 0)
    return cut


def _hold(module: nn.Module, quantized: Quantized, scheme: str) -> None:
    module.register_buffer("integers", quantized.integers)
    module.register_buffer("scale", quantized.scale)
    module.register_buffer("zero_point", quantized.zero_point if scheme == "affine" else None)


def _floats(module: nn.Module) -> Tensor:
    """The weight that a module's integers stand for."""
    zero = torch.zeros_like(module.scale) if module.zero_point is None else module.zero_point
    return dequantize(Quantized(module.integers, module.scale, zero, 8))


def _int_matmul(a: Tensor, b: Tensor) -> Tensor:
    """int8 (N, K) times int8 (K, M), summed in int32, by torch's kernel.

    CUDA's wants more than 16 rows and multiples of 8: what is missing is filled with zeros.
    """
    if a.device.type != "cuda":
        return torch._int_mm(a, b)
    (n, k), m = a.shape, b.shape[1]
    a = F.pad(a, (0, -k % 8, 0, max(24 - n, -n % 8)))
    b = F.pad(b, (0, -m % 8, 0, -k % 8))
    return torch._int_mm(a, b)[:n, :m]


def _to_linear(module: Int8Linear) -> nn.Linear:
    weight = module.weight
    out, features = weight.shape
    linear = nn.utils.skip_init(
        nn.Linear, features, out, bias=module.bias is not None, device=weight.device
    )
    linear.weight = nn.Parameter(weight)
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias.clone())
    return linear


def _to_embedding(module: Int8Embedding) -> nn.Embedding:
    return nn.Embedding.from_pretrained(module.weight, freeze=False)


def _replaced(module: nn.Module, makers: Mapping) -> nn.Module:
    """A copy of the module in which every part of these types is made anew."""
    if type(module) in makers:
        return makers[type(module)](module).train(module.training)
    replaced = copy.deepcopy(module)
    for parent in list(replaced.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in makers:
                setattr(parent, name, makers[type(child)](child).train(child.training))
    return replaced


def _validate_floats(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in _FLOATS or not x.numel():
        raise ValueError(
            f"{name}: expected floats and at least one, got {x.dtype} {tuple(x.shape)}"
        )


def _validate_bits(bits: int) -> None:
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 8:
        raise ValueError(f"bits: expected an integer in 1 to 8, got {bits!r}")
