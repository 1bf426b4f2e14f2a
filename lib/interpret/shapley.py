"""Shapley values: the one fair way to share what players earn together, exactly and by sampling.

Derived in chapter 17_shap.

A *game* is a function `f` of a coalition. Coalitions are boolean, True = the player is present, and
f(coalition) is what those who are present earn together; for an explanation the players are words,
features or pixels, f is a model's output with the absent ones taken away, and *how* they are taken
away is part of the question.

* `shapley_values`: exact, from all 2^n coalitions;
* `kernel_shap`: the same numbers as the solution of a weighted least-squares problem, or an
  estimate of them from some of the coalitions;
* `permutation_shap`: an estimate from random orders of arrival, with its standard error;
* `coalitions`: all 2^n of them; `shapley_kernel`: the weights of the least squares.

They share one contract:

* What f takes. By default f is called with a boolean tensor (N, n_players), one coalition a row,
  and returns N numbers. Nothing is guessed: a function of *one* coalition (n_players,) that returns
  one number is passed with `batched=False`. N is at most `batch_size`.
* f is a function: equal coalitions have equal values. None is asked for twice in one call.
* Precision. Whatever f returns (tensor, array or list, on any device) is computed with in float64
  on the CPU, without gradients; results are float64.
* Errors. ValueError, in one line with what was expected and what came, for a wrong argument, for a
  result of f of another shape, and for NaN or infinity in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "coalitions",
    "kernel_shap",
    "permutation_shap",
    "shapley_kernel",
    "shapley_values",
]

Game = Callable[[Tensor], Any]
_MOST = 20  # players that are taken exactly: 2^20 coalitions
_KERNEL = "kernel_shap with samples, or permutation_shap"


def shapley_values(
    f: Game, n_players: int, *, batched: bool = True, batch_size: int = 4096
) -> Tensor:
    """Each player's Shapley value, exactly, from all 2^n coalitions.

        φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! · (f(S ∪ {i}) − f(S))

    That is player i's marginal contribution, averaged over all n! orders of arrival. The values sum
    to f(all) − f(none); players who contribute alike get alike; one who adds 0 to every coalition
    gets 0 exactly; and the values of a sum of games are the sums of their values. No other rule has
    these four properties.

    Parameters
    ----------
    f : the game
        (N, n_players) booleans, True = present, to N numbers; or with `batched=False` (n_players,)
        to one number.
    n_players : n in 1 … 20
        More are refused, as each further player doubles the work.
    batched : bool
    batch_size : int
        The most coalitions in one call of f. Ignored with `batched=False`.

    Returns (n_players,) float64.

    Raises ValueError for an argument, or a result of f, that does not fit.

    Source: Shapley 1953, "A Value for n-Person Games".
    Derived in chapter 17_shap.

    >>> def gloves(present):  # a left glove and two right ones: a pair is worth 1
    ...     left, right1, right2 = present.T
    ...     return (left & (right1 | right2)).double()
    >>> 6 * shapley_values(gloves, 3)
    tensor([4., 1., 1.], dtype=torch.float64)
    """
    n = _players(n_players, _MOST, _KERNEL)
    value = _ask(f, coalitions(n), batched, batch_size)
    sizes = coalitions(n).sum(1)
    index = torch.arange(2**n)
    weight = _weights(n)
    shares = []
    for i in range(n):
        without = index[(index >> i) & 1 == 0]
        gain = value[without + (1 << i)] - value[without]
        shares.append((weight[sizes[without]] * gain).sum())
    return torch.stack(shares)


def kernel_shap(
    f: Game,
    n_players: int,
    *,
    samples: int | None = None,
    seed: int = 0,
    batched: bool = True,
    batch_size: int = 4096,
) -> Tensor:
    """Shapley values as the coefficients of a weighted least-squares problem.

        minimise  Σ_S π(|S|) (f(S) − f(∅) − Σ_{i ∈ S} φ_i)²
        with      Σ_i φ_i = f(all) − f(∅),        π(s) = (n − 1) / (C(n, s) s (n − s)),

    over all S but none and all, of which π is infinite: that is what the constraint says. With all
    coalitions the solution *is* the Shapley value, to rounding. With a sample it is an estimate
    that still meets the constraint exactly; its bias vanishes as the sample grows.

    Parameters
    ----------
    f, n_players, batched, batch_size : as in `shapley_values`
        n in 1 … 20 with all coalitions, 1 … 1000 with a sample.
    samples : None for all coalitions, or an even number from 2 on
        So many coalitions are drawn: a size with probability ∝ 1/(s(n − s)), then a coalition of
        that size, and then its complement, with which it makes a pair. f is also asked for none and
        all, and only once for a coalition that was drawn twice.
    seed : int, of the draw; without a sample it changes nothing

    Returns (n_players,) float64.

    Raises ValueError for an argument, or a result of f, that does not fit; also for a sample that
    does not tell all players apart, which may happen when it is hardly larger than n.

    Source: Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions",
    arXiv:1705.07874, section 4.1; the constrained form, and pairs: Covert & Lee 2021, "Improving
    KernelSHAP", arXiv:2012.01536. Deviations: the constraint is solved exactly, no regularisation
    chooses among players.
    Derived in chapter 17_shap.

    >>> def product(present):
    ...     return present.all(dim=1).double()
    >>> kernel_shap(product, 4)
    tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    if samples is None:
        n = _players(n_players, _MOST, _KERNEL)
        asked = coalitions(n)
        weight = shapley_kernel(n)[asked.sum(1)]
    else:
        n = _players(n_players, 1000, "fewer, as groups")
        _count("samples", samples, even=True)
        asked, counts = _pairs(n, samples // 2, _generator(seed)).unique(dim=0, return_counts=True)
        asked = torch.cat([torch.zeros(1, n).bool(), asked, torch.ones(1, n).bool()])
        weight = torch.nn.functional.pad(counts.double(), (1, 1))
    value = _ask(f, asked, batched, batch_size)
    nothing, total = value[0], value[-1] - value[0]
    z, y, w = asked[1:-1].double(), value[1:-1] - nothing, weight[1:-1, None]
    # φ = mean + u with Σ u = 0: u lives in n − 1 dimensions, spanned by the columns of `free`.
    mean = total / n
    free = torch.linalg.qr(torch.eye(n, dtype=z.dtype)[:, : n - 1] - 1 / n).Q
    inner = (free.T @ z.T) @ (w * z @ free)
    rank = int(torch.linalg.matrix_rank(inner, hermitian=True))
    if rank < n - 1:
        raise ValueError(
            f"samples: expected coalitions that tell {n} players apart, got {samples} with "
            f"{rank} of {n - 1} directions; draw more"
        )
    rest = y[:, None] - mean * z.sum(1, keepdim=True)
    return mean + (free @ torch.linalg.solve(inner, free.T @ z.T @ (w * rest)))[:, 0]


def permutation_shap(
    f: Game,
    n_players: int,
    *,
    permutations: int,
    seed: int,
    antithetic: bool = False,
    return_errors: bool = False,
    batched: bool = True,
    batch_size: int = 4096,
) -> Tensor | tuple[Tensor, Tensor]:
    """Estimate Shapley values by the mean marginal contribution over random orders of arrival.

        φ̂_i = (1/m) Σ_σ (f(those up to i in σ) − f(those before i in σ))

    The estimate is unbiased, sums to f(all) − f(none) exactly, and gives 0 to a player who adds
    nothing. Its standard error falls as 1/√m.

    Parameters
    ----------
    f, n_players, batched, batch_size : as in `shapley_values`, n in 1 … 1000
    permutations : m from 1 on
        Each costs n − 1 coalitions at most, beside none and all.
    seed : int, of the orders
    antithetic : bool
        Every other order is the one before it, backwards: who comes early in the one comes late in
        the other. m is even then.
    return_errors : bool
        Return (values, standard errors): the standard deviation over the orders, or over the pairs
        of orders if they are antithetic, divided by the root of their number, which is 2 at least.

    Returns (n_players,) float64, or two of them.

    Raises ValueError for an argument, or a result of f, that does not fit.

    Source: Castro, Gómez & Tejada 2009, "Polynomial calculation of the Shapley value based on
    sampling"; Štrumbelj & Kononenko 2014, "Explaining prediction models and individual predictions
    with feature contributions". Antithetic orders: Mitchell et al. 2022, "Sampling Permutations
    for Shapley Value Estimation", arXiv:2104.12199.
    Derived in chapter 17_shap.

    >>> def additive(present):
    ...     return present.double() @ torch.tensor([3.0, 0.0, -1.0], dtype=torch.float64)
    >>> permutation_shap(additive, 3, permutations=1, seed=0)
    tensor([ 3.,  0., -1.], dtype=torch.float64)
    """
    n = _players(n_players, 1000, "fewer, as groups")
    _count("permutations", permutations, even=antithetic)
    rng = _generator(seed)
    order = torch.rand(permutations // (1 + antithetic), n, generator=rng).argsort(dim=1)
    if antithetic:
        order = torch.stack([order, order.flip(1)], dim=1).flatten(0, 1)
    place = order.argsort(dim=1)  # (m, n): when does player i arrive?
    steps = torch.arange(n + 1)[:, None]
    before = place[:, None, :] < steps  # (m, n + 1, n): the first none, the last all
    distinct, where = before.flatten(0, 1).unique(dim=0, return_inverse=True)
    value = _ask(f, distinct, batched, batch_size)[where].view(permutations, n + 1)
    gain = value.diff(dim=1).gather(1, place)  # (m, n): of player i, not of the i-th to come
    if not return_errors:
        return gain.mean(0)
    draws = gain.view(-1, 1 + antithetic, n).mean(1)
    if len(draws) < 2:
        raise ValueError(
            f"permutations: expected {2 * (1 + antithetic)} or more for a standard error, "
            f"got {permutations}"
        )
    return gain.mean(0), draws.std(0) / math.sqrt(len(draws))


def coalitions(n_players: int) -> Tensor:
    """All 2^n coalitions as booleans (2^n, n_players): row k holds player i where bit i of k is 1.

    The first row is none, the last is all. ValueError for an n outside 1 … 20.
    Derived in chapter 17_shap.

    >>> coalitions(2).int().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    n = _players(n_players, _MOST, "fewer")
    return (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1 == 1


def shapley_kernel(n_players: int) -> Tensor:
    """The weight π(s) of one coalition of each size s = 0 … n in `kernel_shap`, (n + 1,) float64.

        π(s) = (n − 1) / (C(n, s) s (n − s)),   infinite at s = 0 and s = n

    Source: Lundberg & Lee 2017, arXiv:1705.07874, Theorem 2. Derived in chapter 17_shap.

    >>> 4 * shapley_kernel(4)
    tensor([   inf, 1.0000, 0.5000, 1.0000,    inf], dtype=torch.float64)
    """
    n = _players(n_players, 1000, "fewer")
    inside = [(n - 1) / (math.comb(n, s) * s * (n - s)) for s in range(1, n)]
    return torch.tensor([math.inf, *inside, math.inf], dtype=torch.float64)


def _weights(n: int) -> Tensor:
    """s! (n − s − 1)! / n! = 1 / (n C(n − 1, s)) for s = 0 … n − 1."""
    return torch.tensor([1 / (n * math.comb(n - 1, s)) for s in range(n)], dtype=torch.float64)


def _pairs(n: int, count: int, rng: torch.Generator) -> Tensor:
    """Draw `count` coalitions and their complements, (2 count, n), none and all never."""
    if n == 1:
        return torch.zeros(0, 1).bool()
    size = torch.arange(1, n, dtype=torch.float64)
    drawn = 1 + torch.multinomial(1 / (size * (n - size)), count, replacement=True, generator=rng)
    rank = torch.rand(count, n, generator=rng, dtype=torch.float64).argsort(dim=1).argsort(dim=1)
    chosen = rank < drawn[:, None]
    return torch.cat([chosen, ~chosen])


def _ask(f: Game, asked: Tensor, batched: bool, batch_size: int) -> Tensor:
    """The value of each row of `asked`, float64 on the CPU, with f called as the contract says."""
    if not callable(f):
        raise ValueError(f"f: expected a function of coalitions, got {type(f).__name__}")
    _count("batch_size", batch_size)
    parts = asked.split(batch_size) if batched else asked
    shape = "(N, n_players)" if batched else "(n_players,)"
    found = []
    with torch.no_grad():
        for part in parts:
            value = torch.as_tensor(f(part.clone()), dtype=torch.float64, device="cpu")
            want = part.shape[:-1]
            if value.shape != want:
                raise ValueError(
                    f"f: expected {tuple(want)} numbers for coalitions {tuple(part.shape)}, got "
                    f"{tuple(value.shape)}; batched={batched} calls it with {shape}"
                )
            found.append(value.reshape(-1))
    values = torch.cat(found)
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        k = int(wrong[0])
        present = asked[k].nonzero()[:, 0].tolist()
        raise ValueError(
            f"f: expected finite numbers, got {values[k].item()} for the coalition {present}"
        )
    return values


def _players(n: int, most: int, instead: str) -> int:
    if type(n) is not int or n < 1:
        raise ValueError(f"n_players: expected an integer from 1 on, got {n!r}")
    if n > most:
        raise ValueError(f"n_players: expected at most {most}, got {n}; use {instead}")
    return n


def _count(what: str, number: int, *, even: bool = False) -> None:
    least, kind = (2, "an even integer") if even else (1, "an integer")
    if type(number) is not int or number < least or (even and number % 2):
        raise ValueError(f"{what}: expected {kind} from {least} on, got {number!r}")


def _generator(seed: int) -> torch.Generator:
    if type(seed) is not int:
        raise ValueError(f"seed: expected an integer, got {seed!r}")
    return torch.Generator().manual_seed(seed)
