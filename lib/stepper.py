"""The fast step of a decoder: what `lib.generation` calls, token after token, beside the modules.

One token through a small model is a few microseconds of arithmetic for each operation, and about as
many to start it from Python; what a module checks of its input comes on top. A `Stepper` computes
the same logits as `model(ids, cache=…)[:, -1]` with fewer operations: one product for queries, keys
and values, one write of keys and values, and logits of the last token only. Derived in chapter
10_gpt, as the model itself; nothing here is another formula.

The protocol. A model may offer `stepper(capacity, attention_mask)`. It returns an object with

* `read(ids)`: (B, n) tokens behind all that were read before, to the logits (B, V) of the next;
* `select(rows)`: row i becomes what row `rows[i]` was;
* `length`: how many tokens were read;

or None, and then the model itself is called with a cache. A model that offers nothing is always
called itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from lib.attention import MultiHeadAttention, fast_attention
from lib.layers import ACTIVATIONS, EncoderLayer, FeedForward, LayerNorm
from lib.positions import LearnedEncoding
from lib.validation import require_tokens

__all__ = ["Stepper"]


class Stepper:
    """The fast step of a stack of pre-norm `EncoderLayer`s under a causal mask, as in GPT-2.

    Parameters
    ----------
    model : with `word`, `position`, `layers`, `norm`, and `word.weight` as output words
        Of which `Stepper.of` has said that it is plain.
    capacity : int ≥ 1
        The most tokens that will come, at most the table of positions has.
    attention_mask : (B, n) of the first tokens, 0 = padding, optional
        Later tokens are all real. Positions are counted from a row's first real token.

    Equals the model in evaluation mode, with a cache, but for rounding: 1e-12 in float64. Norms are
    torch's kernel as it is, without the centring of `LayerNorm`, which would be a tenth of the
    time: of a token whose mean is a thousand times its spread, it keeps about three digits fewer.

    The weights of queries, keys and values are copied, as one matrix each layer, when it is made:
    a quarter of a layer's parameters. Make a new one where weights may have changed. For inference,
    as `KVCache`: what is kept has no gradient.

    Raises ValueError and TypeError as the model does for the first tokens, and ValueError for a
    token too many or a capacity beyond the table. Later tokens are not looked at.

    >>> from lib.models.gpt2 import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(50, d_model=12, num_layers=2, num_heads=3, max_length=16)).eval()
    >>> ids = torch.randint(50, (2, 7))
    >>> step = Stepper.of(model, capacity=7)
    >>> first, last = step.read(ids[:, :6]), step.read(ids[:, 6:])
    >>> torch.allclose(last, model(ids)[:, -1], atol=1e-6)
    True
    """

    @classmethod
    def of(
        cls, model: nn.Module, capacity: int, attention_mask: Tensor | None = None
    ) -> Stepper | None:
        """A stepper where it computes what the model does, and None where that is not sure.

        None for: a part of another class than this library's plain one (quantised, adapted,
        wrapped, compiled), a hook on any part, a method replaced on an object, post-norm, a gate,
        logits without a scale, weights of several dtypes or devices, autocast, and any device but
        the CPU, as nothing else has been measured.
        """
        return cls(model, capacity, attention_mask) if _is_plain(model) else None

    def __init__(
        self, model: nn.Module, capacity: int, attention_mask: Tensor | None = None
    ) -> None:
        most = len(model.position.weight)
        if not 1 <= capacity <= most:
            raise ValueError(f"capacity: expected 1 to max_length = {most}, got {capacity!r}")
        self.capacity, self.length = capacity, 0
        self._mask = attention_mask  # of the first tokens
        self._real = self._first = None  # where there is padding: (B, 1, 1, capacity) and (B, 1)
        self._words, self._places = model.word.weight, model.position.weight
        self._norm = _norm(model.norm)
        with torch.no_grad():
            self._layers = [_weights(layer) for layer in model.layers]
        self._rooms: list[Tensor] = []  # of each layer, keys and values (B, 2h, capacity, d_head)

    @torch.no_grad()
    def read(self, ids: Tensor) -> Tensor:
        """(B, n) tokens that follow those read before, to logits (B, V) of the one that is next."""
        begins = not self._rooms
        if begins:
            self._begin(ids)
        batch, n = ids.shape
        start, end = self.length, self.length + n
        if end > self.capacity:
            raise ValueError(f"ids: expected at most {self.capacity} tokens in all, got {end}")
        places, seen = self._places[start:end], None
        if self._real is not None:
            seen = self._real[..., :end]
            far = torch.arange(start, end, device=ids.device) - self._first  # (B, n)
            places = self._places[far.clamp(min=0)]

        x = F.embedding(ids, self._words) + places  # (B, n, d_model)
        for layer, room in zip(self._layers, self._rooms, strict=True):
            h, attention_norm, packed, output, feed_forward_norm, expand, bend, contract = layer
            heads = F.linear(torch.layer_norm(x, *attention_norm), *packed)
            heads = heads.view(batch, n, 3 * h, -1).transpose(1, 2)  # (B, 3h, n, d_head)
            query, new = heads.split((h, 2 * h), dim=1)
            room.narrow(2, start, n).copy_(new)
            key, value = room.narrow(2, 0, end).split(h, dim=1)
            if begins or n > 1:
                found = fast_attention(query, key, value, seen, causal=True)
            else:  # one token, which is real, may see itself: no row is empty
                found = F.scaled_dot_product_attention(query, key, value, seen)
            x = x + F.linear(found.transpose(1, 2).reshape(batch, n, -1), *output)
            hidden = bend(F.linear(torch.layer_norm(x, *feed_forward_norm), *expand))
            x = x + F.linear(hidden, *contract)
        self.length = end
        return F.linear(torch.layer_norm(x[:, -1], *self._norm), self._words)

    def select(self, rows: Tensor) -> None:
        """Let row i become what row `rows[i]` was: rows may be left out, or taken twice."""
        self._rooms = [room.index_select(0, rows) for room in self._rooms]
        for name in ("_mask", "_real", "_first"):
            kept = getattr(self, name)
            setattr(self, name, None if kept is None else kept.index_select(0, rows))

    def _begin(self, ids: Tensor) -> None:
        """Look at the first tokens, and take the room for all."""
        require_tokens(ids, attention_mask=self._mask)
        if ids.device != self._words.device:
            raise ValueError(f"input_ids: expected device {self._words.device}, got {ids.device}")
        if self._mask is not None and not bool((self._mask != 0).all()):
            real = self._mask != 0
            self._first = real.int().argmax(dim=1, keepdim=True)
            later = real.new_ones(len(ids), max(0, self.capacity - ids.shape[1]))
            self._real = torch.cat([real, later], dim=1)[:, None, None]
        self._rooms = [
            self._words.new_empty(len(ids), 2 * h, self.capacity, len(packed[0]) // (3 * h))
            for h, _, packed, *_ in self._layers
        ]


def _weights(layer: EncoderLayer) -> tuple:
    """A layer's weights in the order in which `read` needs them."""
    attention, feed_forward = layer.attention, layer.feed_forward
    three = (attention.query_projection, attention.key_projection, attention.value_projection)
    bias = None if three[0].bias is None else torch.cat([p.bias for p in three])
    return (
        attention.num_heads,
        _norm(layer.attention_norm),
        (torch.cat([p.weight for p in three]), bias),
        _linear(attention.output_projection),
        _norm(layer.feed_forward_norm),
        _linear(feed_forward.expand),
        ACTIVATIONS[feed_forward.activation],
        _linear(feed_forward.contract),
    )


def _linear(linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return linear.weight, linear.bias


def _norm(norm: LayerNorm) -> tuple:
    return (norm.d_model,), norm.weight, norm.bias, norm.eps


# What is plain

_PLAIN = (nn.Embedding, nn.Linear, nn.ModuleList, LearnedEncoding)
_PLAIN += (EncoderLayer, FeedForward, LayerNorm, MultiHeadAttention)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _is_plain(model: nn.Module) -> bool:
    """Whether every part is of the class that `read` computes, and nobody listens or interferes."""
    weights = list(model.parameters())
    return (
        weights[0].device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and all(type(w) is nn.Parameter for w in weights)
        and len({(w.dtype, w.device) for w in weights}) == 1
        and not any(getattr(hooks, f"_global{name}") for name in _HOOKS)
        and not any(getattr(m, name) for m in model.modules() for name in _HOOKS)
        # what stands in an object as well as in its class was replaced there: forward, for one
        and not any(hasattr(type(m), name) for m in model.modules() for name in vars(m))
        and all(type(m) in _PLAIN for m in model.modules() if m is not model)
        and type(model.norm) is LayerNorm
        and model.word.max_norm is None
        and all(map(_is_plain_layer, model.layers))
    )


def _is_plain_layer(layer: EncoderLayer) -> bool:
    attention = layer.attention
    three = (attention.query_projection, attention.key_projection, attention.value_projection)
    return (
        layer.norm == "pre"
        and attention.scaled
        and layer.feed_forward.gate is None
        and len({(p.weight.shape, p.bias is None) for p in three}) == 1
    )
