"""Exercises of 17_shap: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "17_shap"


def _contributions(by_place=False, alone=False, leave_out=False):
    def contributions(worth, order):
        gain, present = torch.zeros(len(order), dtype=worth.dtype), 0
        for place, i in enumerate(order):
            base = len(worth) - 1 - (1 << i) if leave_out else 0 if alone else present
            gain[place if by_place else i] = worth[base | 1 << i] - worth[base]
            present |= 1 << i
        return gain

    return contributions


def _from_nothing(worth, order):
    """What nobody earns is given to who comes first."""
    gain = _contributions()(worth, order)
    gain[order[0]] += worth[0]
    return gain


def _value(weight, ends=False):
    def value(worth):
        n = len(worth).bit_length() - 1
        share = torch.zeros(n, dtype=worth.dtype)
        for i in range(n):
            for k in range(2**n):
                if not k >> i & 1 and (not ends or k == 2**n - 1 - (1 << i)):
                    share[i] += weight(n, k.bit_count()) * (worth[k | 1 << i] - worth[k])
        return share

    return value


def _one_order(worth):
    return _contributions()(worth, list(range(len(worth).bit_length() - 1)))


def _equal(worth):
    n = len(worth).bit_length() - 1
    return (worth[-1] - worth[0]).expand(n) / n


def _dividends(sign=True, in_place=False, proper=False, zero=False):
    def dividends(worth):
        d = worth if in_place else worth.clone()
        if zero:
            d = d - worth[0]
        k = torch.arange(len(d))
        for i in range(len(d).bit_length() - 1):
            having = k[(k >> i) & 1 == 1]
            d[having] += (-1 if sign else 1) * d[having - (1 << i)]
        return d

    return dividends


def _beyond_singles(worth):
    """What a coalition earns beyond its members one by one: right for pairs."""
    n = len(worth).bit_length() - 1
    d = worth.clone()
    for k in range(1, len(worth)):
        members = [i for i in range(n) if k >> i & 1]
        if len(members) == 1:
            d[k] = worth[k] - worth[0]
        else:
            d[k] = worth[k] - sum(worth[1 << i] - worth[0] for i in members) - worth[0]
    return d


def _share(weight):
    def share_of_size(n, s):
        return weight(n, s) / math.fsum(weight(n, k) for k in range(1, n))

    return share_of_size


def _conditional(half=0.5, own=True, swap=False, both=True):
    def conditional(a, x, rho):
        first = a[0] * (x[0] - half * rho * x[1]) + both * a[1] * half * rho * x[0]
        second = a[1] * (x[1] - half * rho * x[0] * both) + a[0] * half * rho * x[1]
        if not own:
            first, second = a[0] * x[0], a[1] * x[1]
        return (second, first) if swap else (first, second)

    return conditional


WRONG = {
    "ex-shap-order": {
        "by place": (_contributions(by_place=True), "in whatever order they come"),
        "alone": (_contributions(alone=True), "who comes second completes the pair: the gloves"),
        "left out": (_contributions(leave_out=True), "got 12 at index (0,), want 0"),
        "what is lost": (lambda w, o: -_contributions()(w, o), "got -12 at index (1,), want 12"),
        "from nothing": (_from_nothing, "sums to what all earn, beyond what nobody does"),
        "one number": (lambda worth, order: worth[-1], "got shape ()"),
    },
    "ex-shap-value": {
        "all coalitions alike": (_value(lambda n, s: 2.0 ** (1 - n)), "the sum over 3 players"),
        "leave one out": (_value(lambda n, s: 1.0, ends=True), "sums to what all earn"),
        "a binomial of n": (
            _value(lambda n, s: 1 / (n * math.comb(n, s))),
            "the sum over 3 players",
        ),
        "one order": (_one_order, "is the mean over all orders: the gloves"),
        "equal shares": (_equal, "a dummy gets nothing"),
        "without the mean": (_value(lambda n, s: 1 / math.comb(n - 1, s)), "the sum over 3"),
        "all worths": (lambda worth: worth, "got shape (8,)"),
    },
    "ex-shap-dividends": {
        "sums": (_dividends(sign=False), "one player's is what they earn alone"),
        "in place": (_dividends(in_place=True), "leaves the worths as they are"),
        "nobody earns 0": (_dividends(zero=True), "entry 0 is the worth of nobody"),
        "beyond its members": (_beyond_singles, "a unanimity game has one dividend"),
        "one a player": (lambda worth: worth[:3], "got shape (3,)"),
        "the worths": (lambda worth: worth, "d of player 1"),
    },
    "ex-shap-kernel": {
        "the weight of one": (
            lambda n, s: (n - 1) / (math.comb(n, s) * s * (n - s)),
            "the sum for n = 2",
        ),
        "with the binomial": (
            _share(lambda n, s: 1 / (math.comb(n, s) * s * (n - s))),
            "is proportional to 1/(s(n − s))",
        ),
        "uniform coalitions": (_share(math.comb), "expected more for size 1"),
        "small ones": (_share(lambda n, s: 1 / s), "is the same for a size and for what it leaves"),
        "all sizes alike": (_share(lambda n, s: 1.0), "got 0.143 for size 1 and 0.143"),
    },
    "ex-shap-conditional": {
        "interventional": (_conditional(own=False), "a feature that the model does not read"),
        "the whole of it": (_conditional(half=1.0), "got 0.1 at index (0,), want 0.55"),
        "exchanged": (_conditional(swap=True), "without correlation each has its own term"),
        "one model only": (_conditional(both=False), "f(x) = 3x₂, x = (2, −1), ρ = .5"),
        "f for the first": (lambda a, x, rho: (a[0] * x[0], a[0] * x[0]), "sums to f(x)"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
