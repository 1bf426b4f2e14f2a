"""Attention in tiles, slowly and in the open: every element that moves is counted.

``SlowMemory`` holds tensors and counts what is read and written. ``standard`` computes
attention from it with a table, ``in_tiles`` without one, a tile at a time, and tells of every tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


class SlowMemory:
    """Named matrices, and how many elements were read from them and written to them.

    >>> memory = SlowMemory(x=torch.ones(3, 2))
    >>> memory.load("x", slice(0, 2)).shape, memory.read
    (torch.Size([2, 2]), 4)
    """

    def __init__(self, **tensors: Tensor) -> None:
        self.tensors = tensors
        self.read = self.written = 0

    def load(self, name: str, rows: slice = slice(None)) -> Tensor:
        """Return a copy of these rows, and count its elements as read."""
        part = self.tensors[name][rows].clone()
        self.read += part.numel()
        return part

    def store(self, name: str, part: Tensor, rows: slice = slice(None)) -> None:
        """Write these rows, and count their elements as written."""
        self.tensors[name][rows] = part
        self.written += part.numel()

    @property
    def moved(self) -> int:
        """Elements read and written."""
        return self.read + self.written


@dataclass(frozen=True)
class Tile:
    """What is held after one tile: rows ``queries`` have now met the keys ``keys``."""

    queries: slice
    keys: slice
    masked: bool  # some query of the tile may not look at some key of it
    maximum: Tensor  # m, one a query: the largest score so far
    total: Tensor  # ℓ, one a query
    accumulator: Tensor  # a, (queries, d)
    moved: int  # elements read and written so far


def memory_of(query: Tensor, key: Tensor, value: Tensor) -> SlowMemory:
    """Put Q, K, V into a slow memory, with room for O (output) and L (log of each row's sum)."""
    for name, x in {"query": query, "key": key, "value": value}.items():
        if x.ndim != 2:
            raise ValueError(f"{name}: expected shape (n, d), got {tuple(x.shape)}")
    output = query.new_zeros(len(query), value.shape[1])
    return SlowMemory(Q=query, K=key, V=value, O=output, L=query.new_zeros(len(query)))


def standard(memory: SlowMemory, *, causal: bool = False) -> Tensor:
    """Compute the formula in three passes that each go through memory: S, then P, then O."""
    query, key = memory.load("Q"), memory.load("K")
    scores = query @ key.T / math.sqrt(query.shape[1])
    memory.tensors |= {"S": torch.empty_like(scores), "P": torch.empty_like(scores)}
    memory.store("S", scores)
    scores = memory.load("S")
    if causal:
        n_q, n_k = scores.shape
        scores = scores.masked_fill(~visible(range(n_q), range(n_k), n_k - n_q), -math.inf)
    memory.store("P", scores.softmax(-1).nan_to_num(0.0))
    memory.store("O", memory.load("P") @ memory.load("V"))
    return memory.tensors["O"]


def in_tiles(
    memory: SlowMemory, block_q: int, block_k: int, *, causal: bool = False
) -> Iterator[Tile]:
    """Compute O and L tile by tile, and yield after each: a query tile meets its keys in turn.

    Under a causal mask a tile in which nobody may look is not loaded. A query that sees nothing
    gets zeros, and L = -inf.
    """
    for name, size in {"block_q": block_q, "block_k": block_k}.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")
    (n_q, d), n_k = memory.tensors["Q"].shape, len(memory.tensors["K"])
    shift = n_k - n_q if causal else n_k
    for i in range(0, n_q, block_q):
        queries = slice(i, min(i + block_q, n_q))
        query = memory.load("Q", queries)
        maximum = query.new_full((len(query),), -math.inf)
        total = query.new_zeros(len(query))
        accumulator = query.new_zeros(len(query), memory.tensors["V"].shape[1])
        for j in range(0, min(queries.stop + shift, n_k), block_k):
            keys = slice(j, min(j + block_k, n_k))
            key, value = memory.load("K", keys), memory.load("V", keys)
            scores = query @ key.T / math.sqrt(d)
            seen = visible(range(i, queries.stop), range(j, keys.stop), shift)
            scores = scores.masked_fill(~seen, -math.inf)
            maximum, total, accumulator = absorb(maximum, total, accumulator, scores, value)
            masked = not bool(seen.all())
            yield Tile(queries, keys, masked, maximum, total, accumulator, memory.moved)
        share = torch.where(total == 0, 1.0, total)
        memory.store("O", accumulator / share[:, None], queries)
        memory.store("L", maximum + share.log(), queries)


def absorb(
    maximum: Tensor, total: Tensor, accumulator: Tensor, scores: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take a tile of scores (B, C) and its values (C, d) into m (B,), ℓ (B,) and a (B, d)."""
    new = torch.maximum(maximum, scores.amax(-1))
    shift = torch.where(new == -math.inf, 0.0, new)  # nothing seen yet: e^(−∞ − 0) = 0
    weights, old = torch.exp(scores - shift[:, None]), torch.exp(maximum - shift)
    return new, old * total + weights.sum(-1), old[:, None] * accumulator + weights @ value


def visible(queries: range, keys: range, shift: int) -> Tensor:
    """Which of these queries may look at which of these keys: j ≤ i + shift."""
    return torch.tensor(list(keys))[None, :] <= torch.tensor(list(queries))[:, None] + shift


def count_tiles(n_q: int, n_k: int, block_q: int, block_k: int, causal: bool) -> dict[str, int]:
    """How many tiles are whole (no mask needed), masked, and skipped: by arithmetic alone."""
    shift = n_k - n_q if causal else n_k
    counts = {"whole": 0, "masked": 0, "skipped": 0}
    for i in range(0, n_q, block_q):
        last = min(i + block_q, n_q) - 1
        for j in range(0, n_k, block_k):
            end = min(j + block_k, n_k) - 1
            kind = "whole" if end <= i + shift else "masked" if j <= last + shift else "skipped"
            counts[kind] += 1
    return counts
