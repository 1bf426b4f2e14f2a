"""Checkers for the exercises of chapter 17_shap."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.interpret.shapley import shapley_values
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape

_GLOVES = torch.tensor([0.0, 0, 0, 12, 0, 12, 0, 12], dtype=torch.float64)


def _worth(n: int, seed: int) -> Tensor:
    """A game of random worths, not 0 for nobody."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2**n, generator=rng, dtype=torch.float64)


def _value(worth: Tensor) -> Tensor:
    n = len(worth).bit_length() - 1
    bits = 2 ** torch.arange(n)
    return shapley_values(lambda present: worth[(present * bits).sum(1)], n)


def _tensor(answer: object) -> Tensor:
    return torch.as_tensor(answer, dtype=torch.float64)


@checker("ex-shap-order")
def contributions(answer):
    yield "has shape (n,)"
    got = _tensor(answer(_GLOVES.clone(), [0, 1, 2]))
    expect_shape(got, (3,), "contributions(gloves, [0, 1, 2])")

    yield "who comes second completes the pair"
    expect_close(got, torch.tensor([0.0, 12, 0]), "the gloves, in the order 0, 1, 2")

    yield "entry i is player i's, in whatever order they come"
    got = _tensor(answer(_GLOVES.clone(), [2, 0, 1]))
    expect_close(got, torch.tensor([12.0, 0, 0]), "the gloves, in the order 2, 0, 1")

    yield "sums to what all earn, beyond what nobody does"
    worth = _worth(4, seed=0)
    got = _tensor(answer(worth.clone(), [3, 1, 0, 2]))
    expect_close(got.sum(), worth[-1] - worth[0], "the sum", atol=1e-9)

    yield "each gain is over those who are there already"
    want = [worth[11] - worth[10], worth[10] - worth[8], worth[15] - worth[11], worth[8] - worth[0]]
    expect_close(got, torch.stack(want), "a random game, in the order 3, 1, 0, 2", atol=1e-9)


@checker("ex-shap-value")
def value(answer):
    yield "has shape (n,)"
    expect_shape(_tensor(answer(_GLOVES.clone())), (3,), "value(gloves)")

    yield "sums to what all earn, beyond what nobody does"
    for n in (1, 3, 4):
        worth = _worth(n, seed=n)
        expect_close(
            _tensor(answer(worth.clone())).sum(),
            worth[-1] - worth[0],
            f"the sum over {n} players",
            atol=1e-9,
        )

    yield "a dummy gets nothing"
    k = torch.arange(16)
    got = _tensor(answer(_worth(4, seed=5)[k & ~4]))
    expect_close(got[2], 0.0, "player 2, who adds 0 to every coalition", atol=1e-9)

    yield "is the mean over all orders"
    expect_close(_tensor(answer(_GLOVES.clone())), torch.tensor([8.0, 2, 2]), "the gloves")
    for n in (2, 5):
        worth = _worth(n, seed=n)
        expect_close(_tensor(answer(worth.clone())), _value(worth), f"{n} players", atol=1e-9)


@checker("ex-shap-dividends")
def dividends(answer):
    yield "has shape (2^n,)"
    worth = _worth(3, seed=1)
    kept = worth.clone()
    got = answer(worth)
    expect_shape(got, (8,), "dividends of three players")

    yield "leaves the worths as they are"
    expect_close(worth, kept, "the worths after the call", atol=0)

    yield "entry 0 is the worth of nobody"
    expect_close(got[0], kept[0], "d of the empty coalition")

    yield "one player's is what they earn alone, beyond nobody"
    expect_close(got[2], kept[2] - kept[0], "d of player 1", atol=1e-9)

    yield "a pair's is what it earns beyond its members"
    expect_close(got[5], kept[5] - kept[1] - kept[4] + kept[0], "d of players 0 and 2", atol=1e-9)

    yield "a unanimity game has one dividend"
    k = torch.arange(16)
    got = answer(((k & 11) == 11).double())
    expect_close(got, (k == 11).double(), "dividends of the unanimity game of 0, 1, 3", atol=1e-9)

    yield "sums of them over subsets are the worths"
    worth = _worth(4, seed=2)
    got = answer(worth.clone())
    inside = (k[:, None] & k[None]) == k[:, None]  # [T, S]: is T inside S?
    expect_close(inside.double().T @ got, worth, "sums over subsets", atol=1e-9)


@checker("ex-shap-kernel")
def share_of_size(answer):
    yield "sums to one over the sizes"
    for n in (2, 5, 11):
        total = math.fsum(float(answer(n, s)) for s in range(1, n))
        expect_close(total, 1.0, f"the sum for n = {n}", atol=1e-9)

    yield "is the same for a size and for what it leaves"
    expect_close(float(answer(7, 2)), float(answer(7, 5)), "n = 7, sizes 2 and 5", atol=1e-9)

    yield "the ends are likelier than the middle"
    if not float(answer(8, 1)) > float(answer(8, 4)):
        raise Wrong(
            f"n = 8: got {float(answer(8, 1)):.3f} for size 1 and {float(answer(8, 4)):.3f} for "
            "size 4, expected more for size 1"
        )

    yield "is proportional to 1/(s(n − s))"
    for n in (3, 6, 10):
        each = [1 / (s * (n - s)) for s in range(1, n)]
        for s in range(1, n):
            want = each[s - 1] / math.fsum(each)
            expect_close(float(answer(n, s)), want, f"share_of_size({n}, {s})", atol=1e-9)


@checker("ex-shap-conditional")
def conditional(answer):
    def shares(a, x, rho):
        got = answer(a, x, rho)
        if len(got) != 2:
            raise Wrong(f"got {len(got)} numbers, expected a pair")
        return torch.tensor([float(share) for share in got], dtype=torch.float64)

    yield "sums to f(x), as the mean of f is 0"
    got = shares((2.0, -1.0), (1.5, 0.5), 0.6)
    expect_close(got.sum(), 2.5, "a = (2, −1), x = (1.5, 0.5), ρ = .6", atol=1e-9)

    yield "without correlation each has its own term"
    got = shares((2.0, -1.0), (1.5, 0.5), 0.0)
    expect_close(got, torch.tensor([3.0, -0.5]), "ρ = 0", atol=1e-9)

    yield "a feature that the model does not read has a share"
    got = shares((1.0, 0.0), (1.0, 1.0), 0.9)
    expect_close(
        got,
        torch.tensor([0.55, 0.45], dtype=torch.float64),
        "f(x) = x₁, x = (1, 1), ρ = .9",
        atol=1e-9,
    )
    got = shares((0.0, 3.0), (2.0, -1.0), 0.5)
    expect_close(got, torch.tensor([1.5, -4.5]), "f(x) = 3x₂, x = (2, −1), ρ = .5", atol=1e-9)

    yield "is the Shapley value of the conditional game"
    for a, x, rho in (((2.0, -1.0), (1.5, 0.5), 0.6), ((0.3, 0.7), (-2.0, 1.0), -0.8)):
        first, second = a[0] * x[0] + a[1] * rho * x[0], a[1] * x[1] + a[0] * rho * x[1]
        worth = torch.tensor([0.0, first, second, a[0] * x[0] + a[1] * x[1]], dtype=torch.float64)
        expect_close(shares(a, x, rho), _value(worth), f"a = {a}, x = {x}, ρ = {rho}", atol=1e-9)
