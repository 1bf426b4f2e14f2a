"""Exercises of 05_activations: stub open, solution passes, each mistake has its own diagnosis."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "05_activations"


def _phi(z):
    return (1 + torch.erf(z / math.sqrt(2))) / 2


def _tanh(x):
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _swish(own_beta=True, beta_out=True, total=True, squared=True, order=1):
    def swish_backward(x, beta, dy):
        gate = torch.sigmoid(beta * x)
        scale = beta if own_beta else 1.0
        f = x * gate
        dx = dy * (scale * f + gate * (1 - (scale if beta_out else 1.0) * f))
        dbeta = dy * (x * x if squared else x) * gate * (1 - gate)
        return (dx, dbeta.sum() if total else dbeta)[::order]

    return swish_backward


WRONG = {
    "ex-activations-gelu": {
        "no √2": (
            lambda x: x * (1 + torch.erf(x)) / 2,
            "the gate is that of a standard normal number",
        ),
        "no half": (lambda x: x * (1 + torch.erf(x / math.sqrt(2))), "half open at zero"),
        "the gate alone": (_phi, "half open at zero"),
        "sign of the gate": (lambda x: x * _phi(-x), "a far positive input passes"),
        "tanh form": (_tanh, "it is the exact function"),
        "Swish": (lambda x: x * torch.sigmoid(x), "a standard normal number"),
        "summed": (lambda x: (x * _phi(x)).sum(), "keeps the shape"),
    },
    "ex-activations-swish": {
        "β forgotten in dx": (_swish(own_beta=False), "dx is right for any β"),
        "β forgotten once": (_swish(beta_out=False), "dx is right for any β"),
        "dbeta not summed": (_swish(total=False), "dbeta: got shape"),
        "x for x²": (_swish(squared=False), "dbeta is right"),
        "the other order": (_swish(order=-1), "dx: got shape"),
        "only dx": (lambda x, beta, dy: _swish()(x, beta, dy)[0], "expected a pair"),
        "only the gate": (
            lambda x, beta, dy: (dy * torch.sigmoid(beta * x), (dy * x).sum()),
            "dx is right for β = 1",
        ),
    },
    "ex-activations-dead": {
        "any for all": (lambda x, W, b: (x @ W + b <= 0).any(0), "opens for all examples but one"),
        "the mean is negative": (
            lambda x, W, b: (x @ W + b).mean(0) <= 0,
            "positive for one example",
        ),
        "alive, not dead": (lambda x, W, b: (x @ W + b > 0).any(0), "True means dead"),
        "no bias": (lambda x, W, b: (x @ W <= 0).all(0), "the bias counts"),
        "strictly below": (lambda x, W, b: (x @ W + b < 0).all(0), "at exactly zero"),
        "numbers": (lambda x, W, b: (x @ W + b <= 0).double().prod(0), "expected torch.bool"),
        "examples, not units": (lambda x, W, b: (x @ W + b <= 0).all(1), "got shape (7,)"),
    },
    "ex-activations-gate": {
        "noise ignored": (lambda x, m, s: x * _phi(x), "the mean moves the gate"),
        "value moved too": (
            lambda x, m, s: (x - m) * _phi((x - m) / s),
            "the mean moves the gate",
        ),
        "mean added": (lambda x, m, s: x * _phi((x + m) / s), "the mean moves the gate"),
        "variance for deviation": (lambda x, m, s: x * _phi((x - m) / s**2), "standard deviation"),
        "multiplied": (lambda x, m, s: x * _phi((x - m) * s), "makes the gate softer"),
        "divided before shifting": (lambda x, m, s: x * _phi(x / s - m), "both at once"),
    },
    "ex-activations-tail": {
        "1 + erf": (lambda x: x * _phi(x), "keeps its digits"),
        "erfc of the wrong side": (
            lambda x: x * torch.erfc(x / math.sqrt(2)) / 2,
            "where nothing cancels",
        ),
        "no half": (
            lambda x: x * torch.erfc(-x / math.sqrt(2)),
            "where nothing cancels: GELU on ±3: got 5.99",
        ),
        "the first term of the tail": (
            lambda x: torch.where(
                x < -3,
                -torch.exp(-x * x / 2) / math.sqrt(2 * math.pi),
                x * _phi(x),
            ),
            "keeps its digits",
        ),
        "positive side lost": (
            lambda x: torch.where(x < 5, x * torch.erfc(-x / math.sqrt(2)) / 2, 0.0 * x),
            "large positive inputs pass",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
