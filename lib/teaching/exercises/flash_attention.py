"""Checkers for the exercises of chapter 20_flash_attention."""

from __future__ import annotations

import math

import torch

from lib.attention import causal_mask
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape
from lib.teaching.tiles import in_tiles, memory_of


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


@checker("ex-flash_attention-traffic")
def traffic(answer):
    def counted(n_q: int, n_k: int, d: int, block: int) -> int:
        memory = memory_of(*_draw((n_q, d), (n_k, d), (n_k, d)))
        for _ in in_tiles(memory, block, 4):
            pass
        return memory.moved

    yield "one tile of queries: all is read once, and O and L are written"
    expect_close(answer(8, 8, 4, 8), counted(8, 8, 4, 8), "traffic(8, 8, 4, 8)")

    yield "each tile of queries reads all keys and values"
    expect_close(answer(8, 8, 4, 2), counted(8, 8, 4, 2), "traffic(8, 8, 4, 2)")

    yield "there may be more keys than queries, or fewer"
    expect_close(answer(6, 11, 4, 3), counted(6, 11, 4, 3), "traffic(6, 11, 4, 3)")

    yield "a last tile that is not full reads all keys too"
    expect_close(answer(7, 11, 5, 3), counted(7, 11, 5, 3), "traffic(7, 11, 5, 3)")


@checker("ex-flash_attention-absorb")
def absorb(answer):
    scores, values = _draw((3, 8), (8, 5))
    scores = 4 * scores

    def start(rows: int = 3) -> tuple[torch.Tensor, ...]:
        zeros = torch.zeros(rows, 6, dtype=torch.float64)
        return zeros[:, 0] - math.inf, zeros[:, 0].clone(), zeros[:, 1:].clone()

    def definition(part: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        m = part.amax(-1)
        p = torch.exp(part - m[:, None])
        return m, p.sum(-1), p @ v

    def expect(got, want, what):
        if not isinstance(got, tuple) or len(got) != 3:
            raise Wrong(f"got {type(got).__name__}, expected a tuple (m, total, acc)")
        for name, a, b in zip(("m", "total", "acc"), got, want, strict=True):
            expect_shape(a, b.shape, f"{name} {what}")
            expect_close(a, b, f"{name} {what}", atol=1e-9)

    yield "the first tile"
    first = answer(*start(), scores[:, :4], values[:4])
    expect(first, definition(scores[:, :4], values[:4]), "after one tile")

    yield "a second tile, of another size"
    for order in (1, -1):
        s, v = (scores, values) if order == 1 else (scores.flip(1), values.flip(0))
        state = answer(*definition(s[:, :5], v[:5]), s[:, 5:], v[5:])
        expect(state, definition(s, v), "after two tiles")

    yield "scores in the thousands"
    state = answer(*definition(900 * scores[:, :4], values[:4]), 900 * scores[:, 4:], values[4:])
    expect(state, definition(900 * scores, values), "after large scores")

    yield "a tile in which a query sees nothing"
    hidden = torch.full((3, 2), -math.inf, dtype=torch.float64)
    state = answer(*definition(scores, values), hidden, values[:2])
    expect(state, definition(scores, values), "after a hidden tile")

    yield "a query that has seen nothing yet"
    m, total, acc = answer(*start(), hidden, values[:2])
    expect_close(total, torch.zeros(3).double(), "total before any key")
    expect_close(acc, torch.zeros(3, 5).double(), "acc before any key")
    expect(answer(m, total, acc, scores, values), definition(scores, values), "after that")


@checker("ex-flash_attention-limits")
def limits(answer):
    def right(i: int, B: int, C: int, n_q: int, n_k: int) -> tuple[int, int]:
        rows = causal_mask(n_q, n_k)[i : i + B]
        return int(rows.all(0).sum()) // C * C, int(rows.any(0).sum())

    def expect(*case: int) -> None:
        got, want = answer(*case), right(*case)
        if not isinstance(got, tuple) or len(got) != 2:
            raise Wrong(f"got {type(got).__name__}, expected a tuple (full, last)")
        name = "limits(" + ", ".join(map(str, case)) + ")"
        for part, a, b in zip(("full", "last"), got, want, strict=True):
            if a != b:
                raise Wrong(f"{part} of {name}: got {a}, want {b}")

    yield "as many queries as keys"
    for i in (0, 4, 8):
        expect(i, 4, 4, 12, 12)

    yield "full is a multiple of C"
    for i in (0, 3, 6):
        expect(i, 3, 4, 9, 9)

    yield "more keys than queries"
    for i in (0, 2, 4):
        expect(i, 2, 3, 6, 17)

    yield "more queries than keys: the first see nothing"
    for i in (0, 3, 6, 9):
        expect(i, 3, 2, 12, 7)


@checker("ex-flash_attention-weights")
def weights(answer):
    q, k = _draw((3, 4), (7, 4))
    S = q @ k.T / 2
    P, L = S.softmax(-1), torch.logsumexp(S, -1)

    yield "has a row for each query and a column for each key"
    expect_shape(answer(q, k, L), (3, 7), "the tile")

    yield "over all keys it is the softmax"
    expect_close(answer(q, k, L), P, "P", atol=1e-9)

    yield "a tile of keys is a part of the softmax, not one of its own"
    expect_close(answer(q, k[2:5], L), P[:, 2:5], "columns 2 to 4 of P", atol=1e-9)

    yield "scores in the thousands"
    S = 4000 * q @ k.T / 2
    got = answer(4000 * q, k, torch.logsumexp(S, -1))
    expect_close(got, S.softmax(-1), "P", atol=1e-9)


@checker("ex-flash_attention-backward")
def tile_backward(answer):
    q, k, v, g = (x.requires_grad_() for x in _draw((5, 4), (7, 4), (7, 4), (5, 4)))
    S = q @ k.T / 2
    output = S.softmax(-1) @ v
    want = torch.autograd.grad(output, (q, k, v), g.detach())
    q, k, v, g, S, output = (x.detach() for x in (q, k, v, g, S, output))
    L, D = torch.logsumexp(S, -1), (g * output).sum(-1)
    names = ("dq", "dk", "dv")

    yield "returns three gradients, each of its input's shape"
    got = answer(q, k, v, g, L, D)
    if not isinstance(got, tuple) or len(got) != 3:
        raise Wrong(f"got {type(got).__name__}, expected a tuple (dq, dk, dv)")
    for name, a, b in zip(names, got, want, strict=True):
        expect_shape(a, b.shape, name)

    yield "one tile with all queries and all keys: autograd's gradients"
    for name, a, b in reversed(list(zip(names, got, want, strict=True))):
        expect_close(a, b, name, atol=1e-9)

    yield "summed over tiles they are autograd's"
    total = [torch.zeros_like(x) for x in (q, k, v)]
    for i in (slice(0, 2), slice(2, 5)):
        for j in (slice(0, 3), slice(3, 7)):
            parts = answer(q[i], k[j], v[j], g[i], L[i], D[i])
            for x, part, where in zip(total, parts, (i, j, j), strict=True):
                x[where] += part
    for name, a, b in zip(names, total, want, strict=True):
        expect_close(a, b, f"{name} summed over four tiles", atol=1e-9)
