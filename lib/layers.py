"""The parts of a Transformer block around attention: normalisation, feed-forward, residual stream.

Derived in chapter 06_transformer_block.

Shapes are written with d_model features of a token, d_ff features inside the feed-forward layer,
B sequences of n tokens, and "..." for any leading dimensions.

* `LayerNorm`: give every token mean 0 and variance 1, then a learned scale and shift;
* `RMSNorm`: divide every token by its root mean square, then a learned scale;
* `FeedForward`: the same two linear maps for every token, with a bend between them, or a gate;
* `EncoderLayer`: self-attention and feed-forward, each added to what went in, and normalised either
  after the sum (post-norm) or before the sublayer (pre-norm). With a causal mask it is the block of
  GPT, which has a decoder without anything to decode;
* `DecoderLayer`: an `EncoderLayer` that between the two looks at what an encoder has read.

They share one contract:

* Input. float64, float32, bfloat16 or float16, with d_model as last dimension; the output has the
  input's shape. Tokens do not mix but in attention.
* Precision. float64 stays float64. The norms compute float16 and bfloat16 in float32 and round
  once; linear maps round as `nn.Linear` does.
* NaN and infinity propagate, within their token in the norms and `FeedForward`.
* Errors. ValueError, in one line with what was expected and what came, for a wrong size, shape,
  dtype or option; TypeError for something that is no tensor. Only metadata is looked at: no device
  synchronisation, and `torch.compile(fullgraph=True)` works.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import MultiHeadAttention
from lib.cache import KVCache

__all__ = [
    "ACTIVATIONS",
    "DecoderLayer",
    "EncoderLayer",
    "FeedForward",
    "LayerNorm",
    "RMSNorm",
    "initialise",
    "layer_norm",
]

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
    `layer_norm` is the same as a formula to be read; here torch's kernel computes it.
    Derived in chapter 06_transformer_block.

    >>> x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    >>> LayerNorm(3)(x)
    tensor([[-1.2247,  0.0000,  1.2247],
            [-1.2247,  0.0000,  1.2247]], grad_fn=<AddBackward0>)
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        _validate_size("d_model", d_model)
        _validate_eps(eps)
        self.d_model, self.eps = d_model, float(eps)
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) to the same shape and dtype."""
        _validate(x, self.d_model)
        dtype = x.dtype
        if dtype in _HALVES:
            x = x.float()
        # The same for every shift of x, so the mean has no part in any gradient. Without this line
        # torch's kernel loses digits where the mean is large: 1e-4 for a token of equal features.
        centred = x - x.detach().mean(dim=-1, keepdim=True)  # (..., d_model)
        normal = F.layer_norm(centred, (self.d_model,), eps=self.eps)
        x = self.weight * normal
        if self.bias is not None:
            x = x + self.bias
        return x.to(dtype)

    def extra_repr(self) -> str:
        return f"{self.d_model}, eps={self.eps}, bias={self.bias is not None}"


def layer_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Return (x − μ) / √(σ² + ε) of every token: `LayerNorm` before γ and β, as the formula has it.

    x : (..., d) of float32 or float64; the result has its shape and dtype. ValueError otherwise.
    Derived in chapter 06_transformer_block.

    >>> layer_norm(torch.tensor([1.0, 2.0, 3.0]))
    tensor([-1.2247,  0.0000,  1.2247])
    """
    if x.ndim == 0 or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"x: expected (..., d) of float32 or float64, got {tuple(x.shape)} of {x.dtype}"
        )
    centred = x - x.mean(dim=-1, keepdim=True)  # (..., d)
    variance = centred.square().mean(dim=-1, keepdim=True)  # (..., 1)
    return centred * torch.rsqrt(variance + eps)


class RMSNorm(nn.Module):
    """Divide every token by its root mean square over its features, then scale.

        RMSNorm(x) = γ ∘ x / √(Σ_i x_i² / d + ε)

    `LayerNorm` without the mean and without the shift: a token's direction stays as it is.

    Parameters
    ----------
    d_model : int ≥ 1
    eps : float ≥ 0
        ε, under the root; T5 has 1e-6.

    Attributes: `weight` (d_model,), γ, begins at 1.

    Raises ValueError for a wrong size or `eps`, or for x that is not (..., d_model) of floats.

    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467,
    section 4. Deviation: the paper's equation has no ε.
    Derived in chapter 06_transformer_block; T5 (08_relative_positions) is made with it.

    >>> RMSNorm(4, eps=0.0)(torch.tensor([3.0, -3.0, 3.0, -3.0]))
    tensor([ 1., -1.,  1., -1.], grad_fn=<MulBackward0>)
    """

    def __init__(self, d_model: int, eps: float = 1e-6) -> None:
        super().__init__()
        _validate_size("d_model", d_model)
        _validate_eps(eps)
        self.d_model, self.eps = d_model, float(eps)
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) to the same shape and dtype."""
        _validate(x, self.d_model)
        dtype = x.dtype
        x = x.to(torch.promote_types(dtype, torch.float32))
        mean_square = x.square().mean(dim=-1, keepdim=True)  # (..., 1)
        return (self.weight * (x * torch.rsqrt(mean_square + self.eps))).to(dtype)

    def extra_repr(self) -> str:
        return f"{self.d_model}, eps={self.eps}"


class FeedForward(nn.Module):
    """Send every token, by itself, through two linear maps with a bend between them.

        FeedForward(x) = φ(x W_1 + b_1) W_2 + b_2,      W_1: d_model × d_ff,   W_2: d_ff × d_model

    or, gated, through a third whose bent output opens and closes what the first has found:

        FeedForward(x) = (φ(x W_g + b_g) ∘ (x W_1 + b_1)) W_2 + b_2,       W_g: d_model × d_ff

    Parameters
    ----------
    d_model, d_ff : int ≥ 1
        The paper has d_ff = 4 d_model; then this layer holds two thirds of a block's parameters.
    activation : "gelu", "gelu_tanh", "relu" or "swish"
        φ, as in `lib.activations`. The paper has ReLU.
    dropout : float in [0, 1)
        Before W_2, in training mode. Off by default: neither the paper nor BERT has it here,
        torch's layer has.
    bias : bool
        Whether there are b_1 and b_2, and b_g.
    gated : bool
        At equal d_ff half as many parameters again; equal parameters need d_ff · 2/3.

    Attributes: `expand`, `contract` and `gate` (or None), each an `nn.Linear` with torch's initial
    values.

    Raises ValueError for a wrong size or option, or for x that is not (..., d_model) of floats.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3, equation 2; gated: Shazeer 2020,
    "GLU Variants Improve Transformer", arXiv:2002.05202, section 2, there without biases.
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
        gated: bool = False,
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
        self.gate = nn.Linear(d_model, d_ff, bias=bias) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) to the same shape."""
        _validate(x, self.d_model)
        bend = ACTIVATIONS[self.activation]
        hidden = self.expand(x)  # (..., d_ff)
        hidden = bend(hidden) if self.gate is None else bend(self.gate(x)) * hidden
        return self.contract(F.dropout(hidden, self.dropout) if self.training else hidden)

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
    eps : float ≥ 0, of all norms
    norm_class : `LayerNorm` or `RMSNorm`, or what else is made by norm_class(d_model, eps)
    d_head, scaled : as in `MultiHeadAttention`
    bias : bool
        Whether attention and feed-forward layer have biases.
    gated : as in `FeedForward`

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
        norm_class: Callable[[int, float], nn.Module] = LayerNorm,
        d_head: int | None = None,
        scaled: bool = True,
        bias: bool = True,
        gated: bool = False,
    ) -> None:
        super().__init__()
        _validate_dropout("dropout", dropout)
        if norm not in ("post", "pre"):
            raise ValueError(f"norm: expected 'post' or 'pre', got {norm!r}")
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.dropout, self.norm = dropout, norm
        self.attention = MultiHeadAttention(
            d_model, num_heads, dropout=attention_dropout, bias=bias, d_head=d_head, scaled=scaled
        )
        self.attention_norm = norm_class(d_model, eps)
        self.feed_forward = FeedForward(
            d_model, d_ff, activation=activation, dropout=activation_dropout, bias=bias, gated=gated
        )
        self.feed_forward_norm = norm_class(d_model, eps)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        cache: KVCache | None = None,
    ) -> Tensor:
        """(B, n, d_model) to the same shape; `mask`, `causal`, `cache` as in `MultiHeadAttention`.

        A cache makes sense under a causal mask only: what is kept of a token cannot change later.
        """
        attend = partial(self.attention, mask=mask, causal=causal, cache=cache)
        x = self._add(attend, self.attention_norm, x)
        return self._add(self.feed_forward, self.feed_forward_norm, x)

    def _add(self, sublayer: Callable[[Tensor], Tensor], norm: nn.Module, x: Tensor) -> Tensor:
        """Add to x what the sublayer makes of it, with the norm in its place."""
        if self.norm == "post":
            return norm(x + self._drop(sublayer(x)))
        return x + self._drop(sublayer(norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training else x

    def extra_repr(self) -> str:
        return f"norm={self.norm}, dropout={self.dropout}"


class DecoderLayer(EncoderLayer):
    """One block of a decoder: look at each other, look at what was read, then think.

        post-norm:  x ← LN(x + SelfAttention(x)),   x ← LN(x + Attention(x, memory)),
                    x ← LN(x + FeedForward(x))
        pre-norm:   x ← x + SelfAttention(LN(x)),   x ← x + Attention(LN(x), memory),
                    x ← x + FeedForward(LN(x))

    The queries are the decoder's, keys and values are the memory: an encoder's output, all of it
    and the same for every layer. It is not normalised here.

    Parameters and errors are those of `EncoderLayer`. Attributes: those, and `cross_attention`,
    `cross_attention_norm`.

    Equals `nn.TransformerDecoderLayer` (batch first) with the same weights, in both norms.

    Source: Vaswani et al. 2017, arXiv:1706.03762, sections 3.1 and 3.2.3.
    Derived in chapter 07_encoder_decoder.

    >>> layer = DecoderLayer(12, 3, 48)
    >>> layer(torch.randn(2, 5, 12), torch.randn(2, 7, 12)).shape
    torch.Size([2, 5, 12])
    """

    def __init__(self, d_model: int, num_heads: int, d_ff: int, **options) -> None:
        super().__init__(d_model, num_heads, d_ff, **options)
        self.cross_attention = MultiHeadAttention(
            d_model,
            num_heads,
            dropout=self.attention.dropout,
            bias=options.get("bias", True),
            d_head=options.get("d_head"),
            scaled=options.get("scaled", True),
        )
        norm_class = options.get("norm_class", LayerNorm)
        self.cross_attention_norm = norm_class(d_model, options.get("eps", 1e-5))

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        causal: bool = True,
        cache: KVCache | None = None,
    ) -> Tensor:
        """x (B, n, d_model) and memory (B, m, d_model) to (B, n, d_model).

        mask, causal : of the self-attention, as in `MultiHeadAttention`; the future is hidden,
            unless causal=False, for a mask that hides it already
        memory_mask : of the cross-attention; (B, 1, m) hides the padding of what was read
        cache : of both; later calls need the new tokens only, and use the first one's memory
        """
        attend = partial(self.attention, mask=mask, causal=causal, cache=cache)
        read = partial(self.cross_attention, key=memory, mask=memory_mask, cache=cache)
        x = self._add(attend, self.attention_norm, x)
        x = self._add(read, self.cross_attention_norm, x)
        return self._add(self.feed_forward, self.feed_forward_norm, x)


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
_HALVES = (torch.bfloat16, torch.float16)


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


def _validate_eps(eps: float) -> None:
    if not isinstance(eps, int | float) or not 0.0 <= eps < math.inf:
        raise ValueError(f"eps: expected a finite number of at least 0, got {eps!r}")


def _validate_dropout(name: str, p: float) -> None:
    if not isinstance(p, int | float) or not 0.0 <= p < 1.0:
        raise ValueError(f"{name}: expected a number in [0, 1), got {p!r}")
