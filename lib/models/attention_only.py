"""A language model of one attention layer and nothing else; see chapter 02_attention.

Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
https://transformer-circuits.pub/2021/framework, zero-layer and one-layer attention-only models.
Deviation from its formulas: learned positions, added to what queries and keys read, as in
Press et al. 2021, "Shortformer", arXiv:2012.15832, section 5 (there sinusoidal). They reach neither
the values nor the logits directly, so the path around the attention is a bigram table, W_E W_U.
"""

import math

from torch import Tensor, nn

from lib.attention import causal_mask, fast_attention, scaled_dot_product_attention

# Each way of mixing multiplies the queries, and so the logits, which have been scaled by 1/√d_k:
# by 0 for equal weights on all keys, by √d_k to undo the scaling. "none" leaves attention out.
EQUAL, AS_IT_IS = (lambda d_k: 0.0), (lambda d_k: 1.0)
MIXINGS = {"attention": AS_IT_IS, "unscaled": math.sqrt, "average": EQUAL, "none": None}


class AttentionOnly(nn.Module):
    """logits = (x + concat_h(softmax(Q_h K_hᵀ/√d_k) V_h) W_O) W_U, with x the tokens' embeddings.

    V is linear in x, Q and K in x + position; no biases, norms or feed-forward layers.
    `mixing` is one of MIXINGS; every choice has the same parameters and the same initial values.
    ValueError, in one line, for a wrong size or input. Derived in chapter 02_attention.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 64,
        num_heads: int = 4,
        max_length: int = 64,
        *,
        mixing: str = "attention",
    ) -> None:
        super().__init__()
        sizes = (vocab_size, d_model, num_heads, max_length)
        if any(not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(f"sizes: expected integers of at least 1, got {sizes}")
        if d_model % num_heads:
            raise ValueError(f"num_heads: expected a divisor of d_model {d_model}, got {num_heads}")
        if mixing not in MIXINGS:
            raise ValueError(f"mixing: expected one of {', '.join(MIXINGS)}, got {mixing!r}")
        self.num_heads, self.max_length, self.mixing = num_heads, max_length, mixing
        self.embed = nn.Embedding(vocab_size, d_model)
        self.position = nn.Embedding(max_length, d_model)
        self.query, self.key, self.value, self.output = (
            nn.Linear(d_model, d_model, bias=False) for _ in range(4)
        )
        self.unembed = nn.Linear(d_model, vocab_size, bias=False)
        nn.init.normal_(self.embed.weight, std=0.5)
        nn.init.normal_(self.position.weight, std=0.1)

    def forward(self, input_ids: Tensor, *, mask: str = "causal") -> Tensor:
        """(B, n) ids to logits (B, n, V); those at t are for t + 1. `mask`: "causal" or "none"."""
        x = self._embedded(input_ids, mask)  # (B, n, d_model)
        if self.mixing != "none":
            mixed = fast_attention(*self._heads(x), causal=mask == "causal")  # (B, h, n, d_k)
            x = x + self.output(mixed.transpose(1, 2).flatten(2))  # (B, n, d_model)
        return self.unembed(x)

    def attention_weights(self, input_ids: Tensor, mask: str = "causal") -> Tensor:
        """(B, n) ids to the weights (B, h, n, n) with which a query (row) mixes the values."""
        if self.mixing == "none":
            raise ValueError('mixing: expected one with weights, got "none"')
        heads = self._heads(self._embedded(input_ids, mask))
        past = causal_mask(input_ids.shape[1], device=input_ids.device)  # (n, n)
        allowed = past if mask == "causal" else None
        return scaled_dot_product_attention(*heads, allowed, return_weights=True)[1]

    def _embedded(self, input_ids: Tensor, mask: str) -> Tensor:
        if input_ids.ndim != 2 or not 1 <= input_ids.shape[1] <= self.max_length:
            wanted, got = f"(B, n), 1 ≤ n ≤ {self.max_length}", tuple(input_ids.shape)
            raise ValueError(f"input_ids: expected shape {wanted}, got {got}")
        if mask not in ("causal", "none"):
            raise ValueError(f'mask: expected "causal" or "none", got {mask!r}')
        return self.embed(input_ids)  # (B, n, d_model)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        placed = x + self.position.weight[: x.shape[1]]  # (n, d_model) is added to each sequence
        query, key, value = (
            linear(y).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, h, n, d_k)
            for linear, y in ((self.query, placed), (self.key, placed), (self.value, x))
        )
        return query * MIXINGS[self.mixing](query.shape[-1]), key, value
