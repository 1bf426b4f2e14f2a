"""The KV cache: keys and values of the tokens read so far, kept for the tokens to come.

Used by the decoders from chapter 07_encoder_decoder on, through `MultiHeadAttention.forward` and
`lib.generation`.

Under a causal mask the keys and values of a token depend on it and on what came before it, never on
what follows. So they need to be computed once, and a new token costs one query against all of them:
n new tokens cost O(n²) products of queries and keys where a model without a cache has O(n³).

Memory: 2 · layers · B · capacity · d numbers, with d features of all heads of a layer together,
allocated when the first token comes; a decoder with cross-attention keeps those of the memory too.
"""

import torch
from torch import Tensor, nn

__all__ = ["KVCache"]


class KVCache:
    """What every attention layer of one model has seen of one batch of sequences.

    One object serves a whole model. A layer is its own key in it, so nothing has to be numbered:

        cache = KVCache(capacity=50)
        logits = model(prompt, cache=cache)        # (B, n, V): reads the prompt, and keeps it
        logits = model(next_token, cache=cache)    # (B, 1, V): those of position n

    The result is that of one pass over everything, but for rounding (1e-12 in float64).

    Parameters
    ----------
    capacity : int ≥ 1
        The most tokens that will come. The room for them is taken once, and a step writes its token
        into it; concatenation would copy everything at every step. A token too many is a
        ValueError.

    Attributes: `capacity`, and `length`, the number of tokens read, at which the next one stands.

    * For inference: what is kept has no gradient, so `torch.no_grad()` is asked for, not assumed.
    * Self-attention appends. Cross-attention projects the memory (an encoder's output) at the first
      call and reuses it, whatever is passed later: one cache, one memory.
    * Rows are sequences. Padding is not known here: `attention_mask` of a model says what is real,
      of the tokens kept and of those that come. Prompts of different lengths are therefore padded
      on the *left*, so that each row's new tokens stand right behind its old ones.

    Raises ValueError for a wrong capacity, for a token too many, for another batch size or dtype
    than those of the first token, and where gradients are wanted.

    Source: Shazeer 2019, "Fast Transformer Decoding: One Write-Head is All You Need",
    arXiv:1911.02150, section 2 (attention one step at a time; its memory traffic is what the paper
    is about). Derived in chapter 10_gpt.
    """

    def __init__(self, capacity: int) -> None:
        if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
            raise ValueError(f"capacity: expected an integer of at least 1, got {capacity!r}")
        self.capacity = capacity
        self._lengths: dict[nn.Module, int] = {}  # of the layers that append
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # keys and values of a layer

    @property
    def length(self) -> int:
        """How many tokens have been read, by the first layer: between two passes, by each."""
        return next(iter(self._lengths.values()), 0)

    def extend(self, layer: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, h, n, d) of a layer; return all, (B, h, length + n, d)."""
        _require_no_gradient(key, value)
        if layer not in self._kept:
            self._kept[layer] = tuple(
                x.new_empty(*x.shape[:2], self.capacity, x.shape[3]) for x in (key, value)
            )
        kept = self._kept[layer]
        if key.shape[0] != kept[0].shape[0] or key.dtype != kept[0].dtype:
            raise ValueError(
                f"cache: expected {kept[0].shape[0]} sequences of {kept[0].dtype} as before, "
                f"got {key.shape[0]} of {key.dtype}"
            )
        start = self._lengths.get(layer, 0)
        end = start + key.shape[2]
        if end > self.capacity:
            raise ValueError(f"cache: expected at most {self.capacity} tokens, got {end}")
        for room, x in zip(kept, (key, value), strict=True):
            room.narrow(2, start, end - start).copy_(x)
        self._lengths[layer] = end
        return kept[0].narrow(2, 0, end), kept[1].narrow(2, 0, end)

    def memory(self, layer: nn.Module) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the memory, if this layer of cross-attention has projected it."""
        return self._kept.get(layer)

    def remember(self, layer: nn.Module, key: Tensor, value: Tensor) -> None:
        """Keep the keys and values (B, h, n_k, d) of the memory for this layer."""
        _require_no_gradient(key, value)
        self._kept[layer] = key, value

    def select(self, rows: Tensor) -> None:
        """Let row i become what row `rows[i]` was: rows may be left out, or taken twice.

        rows : (B′,) integers. Beam search needs it, where one hypothesis may have two heirs.
        """
        self._kept = {
            layer: tuple(x.index_select(0, rows) for x in kept)
            for layer, kept in self._kept.items()
        }


def _require_no_gradient(*tensors: Tensor) -> None:
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        raise ValueError("cache: expected torch.no_grad(), got keys that want a gradient")
