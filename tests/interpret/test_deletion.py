"""lib.interpret.deletion held to its contract."""

import doctest

import pytest
import torch

from lib.interpret import deletion
from lib.interpret.deletion import deletion_curve

WORTH = torch.tensor([1.0, 5.0, 2.0, 11.0, 3.0])


def additive(present):
    assert present.dtype == torch.bool
    return (present * WORTH).sum(-1)


def test_doctests():
    assert doctest.testmod(deletion) == (0, 2)


def test_the_highest_leaves_first():
    got = deletion_curve(additive, WORTH)
    assert got.tolist() == [22.0, 11.0, 6.0, 3.0, 1.0, 0.0]
    assert deletion_curve(additive, -WORTH).tolist() == [22.0, 21.0, 19.0, 16.0, 11.0, 0.0]


def test_of_equal_scores_the_earlier_leaves_first():
    got = deletion_curve(additive, torch.zeros(5))
    assert got.tolist() == [22.0, 21.0, 16.0, 14.0, 3.0, 0.0]


def test_one_call():
    calls = []

    def f(present):
        calls.append(present)
        return additive(present)

    deletion_curve(f, WORTH)
    (present,) = calls
    assert present.sum(1).tolist() == [5, 4, 3, 2, 1, 0]
    assert present[2].tolist() == [True, False, True, False, True]


@pytest.mark.parametrize("scores", [torch.ones(()), torch.ones(0), torch.ones(2, 3)])
def test_refuses_scores_of_another_shape(scores):
    with pytest.raises(ValueError, match=r"scores: expected shape \(n ≥ 1,\), got"):
        deletion_curve(additive, scores)


def test_refuses_results_of_another_shape():
    with pytest.raises(ValueError, match=r"f: expected one number a row, shape \(6,\), got"):
        deletion_curve(lambda present: present.double(), WORTH)
