"""Exercises of 13_replaced_token_detection: stub, solution, and mistakes told apart."""

import pytest
import torch
import torch.nn.functional as F

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "13_replaced_token_detection"


def _loss(terms, real=None):
    def rtd_loss(z, y, mask):
        each = terms(z, y.double())
        return each.mean() if real is None else real(each, mask)

    return rtd_loss


def _bce(z, y):
    return F.binary_cross_entropy_with_logits(z, y, reduction="none")


def _over_real(each, mask):
    return each[mask != 0].mean()


def _naive(z, y):
    s = torch.sigmoid(z)
    return -(y * s.log() + (1 - y) * (1 - s).log())


def _parts(p, q, m):
    return p * ((1 - m) + m * q), m * q * (1 - p)


def _floor_naive(p, q, m):
    a, b = _parts(p, q, m)
    return -(a * (a / (a + b)).log() + b * (b / (a + b)).log()).sum()


def _constant(p, q, m):
    r = (m * (1 - (p * q).sum())).double()
    return torch.special.entr(r) + torch.special.entr(1 - r)


WRONG = {
    "ex-replaced_token_detection-labels": {
        "polarity turned": (
            lambda x, c, m: (x == c).long().masked_fill(m == 0, -100),
            "1 means replaced",
        ),
        "by copy": (
            lambda x, c, m: torch.ones_like(x).masked_fill(m == 0, -100),
            "a token is labelled, not a sentence",
        ),
        "padding forgotten": (lambda x, c, m: (x != c).long(), "padding is −100"),
        "booleans": (lambda x, c, m: x != c, "expected integers"),
    },
    "ex-replaced_token_detection-loss": {
        "sign turned": (_loss(lambda z, y: _bce(-z, y), _over_real), "a positive logit means"),
        "padding counted": (_loss(_bce), "padding does not count"),
        "logarithm of a sigmoid": (
            _loss(_naive, _over_real),
            "survives logits of a thousand",
        ),
        "summed": (
            _loss(_bce, lambda each, mask: each[mask != 0].sum()),
            "agrees with the definition",
        ),
        "not reduced": (_loss(_bce, lambda each, mask: each), "is one number"),
    },
    "ex-replaced_token_detection-best": {
        "sign turned": (
            lambda p, q, m: torch.log(_parts(p, q, m)[0] / _parts(p, q, m)[1]),
            "positive means replaced",
        ),
        "NCE": (
            lambda p, q, m: torch.log(m * q) - torch.log((1 - m) * p),
            "a draw that hits is original",
        ),
        "a probability": (
            lambda p, q, m: _parts(p, q, m)[1] / sum(_parts(p, q, m)),
            "agrees with the formula",
        ),
        "the factor 1 − p forgotten": (
            lambda p, q, m: torch.log(m * q) - torch.log(_parts(p, q, m)[0]),
            "agrees with the formula: the logit: got",
        ),
    },
    "ex-replaced_token_detection-floor": {
        "a constant answer": (_constant, "this is the loss of a constant answer"),
        "0 log 0": (_floor_naive, "is zero if nothing is masked"),
        "one half of it": (
            lambda p, q, m: torch.special.entr(_parts(p, q, m)[0]).sum(),
            "agrees with the best answer's loss",
        ),
        "not summed": (lambda p, q, m: p * q, "is one number"),
    },
}


def test_every_exercise_is_tried():
    assert list(WRONG) == labels(CHAPTER)


@pytest.mark.parametrize("label", WRONG)
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])
