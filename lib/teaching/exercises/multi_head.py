"""Checkers for the exercises of chapter 03_multi_head."""

from __future__ import annotations

import math

import torch

from lib.attention import merge_heads, split_heads
from lib.teaching.exercises import Wrong, checker, expect, expect_close, expect_shape


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@checker("ex-multi_head-split")
def split(answer):
    x = _normal(2, 5, 21)

    yield "makes (B, h, n, d_head)"
    expect_shape(answer(x, 3), (2, 3, 5, 7), "the result")

    yield "a head holds one token's features in each row"
    got, want = answer(x, 3), split_heads(x, 3)
    if torch.equal(got, x.reshape(2, 3, 5, 7)):
        raise Wrong(
            "the numbers were only read in another shape: cut the features first, then swap "
            "tokens and heads"
        )
    if torch.equal(got, x.unflatten(-1, (7, 3)).movedim(-1, 1)):
        raise Wrong("head 0 holds features 0, 3, 6, …, expected features 0, 1, 2, …")
    expect_close(got, want, "the result")

    yield "copies nothing"
    expect(answer(x, 3).data_ptr() == x.data_ptr(), "the result is a copy, expected a view of x")


@checker("ex-multi_head-merge")
def merge(answer):
    heads = _normal(2, 3, 5, 7)

    yield "makes (B, n, d_model)"
    expect_shape(answer(heads), (2, 5, 21), "the result")

    yield "a token stays with its own features"
    got = answer(heads)
    if torch.equal(got, heads.reshape(2, 5, 21)):
        raise Wrong("tokens and heads are mixed: swap them back before the heads are joined")

    yield "head 0 comes first, then head 1"
    expect_close(got[..., :7], heads[:, 0], "the first features of each token")
    expect_close(got, merge_heads(heads), "the result")

    yield "works on other sizes too"
    other = _normal(1, 5, 2, 3, seed=1)
    expect_close(answer(other), merge_heads(other), "the result for 5 heads of width 3")


@checker("ex-multi_head-term")
def term(answer):
    heads, W_O = _normal(3, 5, 7), _normal(21, 21, seed=1)
    want = torch.stack([heads[i] @ W_O[7 * i : 7 * i + 7] for i in range(3)])

    yield "one row a token, as wide as the model"
    expect_shape(answer(heads, W_O, 1), (5, 21), "the result")

    yield "takes the head's own rows of W_O"
    for i in (1, 0, 2):
        got = answer(heads, W_O, i)
        if torch.allclose(got, heads[i] @ W_O[:, 7 * i : 7 * i + 7].T):
            raise Wrong("took columns of W_O, expected rows: the head multiplies from the left")
        if i and torch.allclose(got, heads[i] @ W_O[:7]):
            raise Wrong(f"head {i} meets the rows of head 0")
        expect_close(got, want[i], f"the term of head {i}")

    yield "the terms add up to the whole"
    total = sum(answer(heads, W_O, i) for i in range(3))
    expect_close(total, merge_heads(heads[None])[0] @ W_O, "the sum of all terms")


@checker("ex-multi_head-gauge")
def gauge(answer):
    W_Q, W_K, G = _normal(11, 3), _normal(11, 3, seed=1), _normal(3, 3, seed=2)

    yield "returns two matrices of the old shapes"
    got = answer(W_Q, W_K, G)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong("expected two matrices (W_Q, W_K)")
    for name, matrix in zip(("W_Q", "W_K"), got, strict=True):
        expect_shape(matrix, (11, 3), name)

    yield "the queries are turned by G"
    expect_close(got[0], W_Q @ G, "W_Q")

    yield "no score changes"
    expect_close(got[0] @ got[1].T, W_Q @ W_K.T, "W_Q W_Kᵀ", atol=1e-8)

    yield "a second turn undoes the first"
    back = answer(*got, torch.linalg.inv(G))
    expect_close(back[0], W_Q, "W_Q after G and its inverse", atol=1e-8)
    expect_close(back[1], W_K, "W_K after G and its inverse", atol=1e-8)


@checker("ex-multi_head-width")
def width(answer):
    def pattern(d_head: int, n: int = 9, seed: int = 0) -> torch.Tensor:
        q, k = _normal(n, d_head, seed=seed), _normal(n, d_head, seed=seed + 1)
        return (q @ k.T / math.sqrt(d_head)).softmax(-1)

    def expect_width(P: torch.Tensor, want: int, what: str) -> None:
        got = answer(P)
        expect(not isinstance(got, torch.Tensor) or got.numel() == 1, "expected one number")
        expect(int(got) == want, f"{what}: got {int(got)}, want {want}")

    yield "even weights need no width at all"
    expect_width(torch.full((5, 5), 0.2, dtype=torch.float64), 0, "the width of the even pattern")

    yield "a random head of width 2 has width 2"
    for seed in range(3):
        expect_width(pattern(2, seed=seed), 2, "the width of a pattern of width 2")

    yield "as wide as n − 1 at most"
    expect_width(pattern(9, n=5), 4, "the width of a pattern of 5 tokens from 9 features")

    yield "the pattern of a sharp identity"
    identity = (3.0 * torch.eye(6, dtype=torch.float64)).softmax(-1)
    expect_width(identity, 5, "the width of softmax(3 I) for 6 tokens")


@checker("ex-multi_head-prune")
def prune(answer):
    d, h, d_h, n = 12, 3, 4, 5
    X = _normal(n, d, seed=9)
    W_Q, W_K, W_V, W_O = given = [_normal(d, d, seed=i) for i in range(4)]
    before = [matrix.clone() for matrix in given]

    def multi_head(W_Q, W_K, W_V, W_O, heads):
        q, k, v = (split_heads((X @ W)[None], heads)[0] for W in (W_Q, W_K, W_V))
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        return merge_heads((weights @ v)[None])[0] @ W_O

    yield "returns four matrices"
    got = answer(W_Q, W_K, W_V, W_O, h, 1)
    if not isinstance(got, tuple | list) or len(got) != 4:
        raise Wrong("expected four matrices (W_Q, W_K, W_V, W_O)")

    yield "the parameters of one head are gone"
    for name, matrix in zip(("W_Q", "W_K", "W_V"), got, strict=False):
        expect_shape(matrix, (d, d - d_h), name)
    expect_shape(got[3], (d - d_h, d), "W_O")

    yield "nothing but the removed term is missing"
    for removed in (1, 0, 2):
        own = slice(removed * d_h, (removed + 1) * d_h)
        zeroed = before[3].clone()
        zeroed[own] = 0.0
        want = multi_head(W_Q, W_K, W_V, zeroed, h)
        fresh = [matrix.clone() for matrix in before]
        small = multi_head(*answer(*fresh, h, removed), h - 1)
        expect_close(small, want, f"the output without head {removed}")

    yield "the old matrices are left alone"
    for name, matrix, old in zip(("W_Q", "W_K", "W_V", "W_O"), given, before, strict=True):
        expect_close(matrix, old, f"{name} after the calls")
