"""Exercises of NN_slug_here, each proven three ways."""

import pytest

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "NN_slug_here"


def _centred(values):
    return values - values.mean(-1, keepdim=True)


WRONG = {
    "ex-slug_here-scores": {
        "not centred": (lambda x: x / x.std(-1, keepdim=True), "mean of each row is zero"),
        "not scaled": (_centred, "variance of each row is one"),
        "n − 1": (
            lambda x: _centred(x) / x.std(-1, keepdim=True),
            "the variance of each row: got 0.66",
        ),
        "sign turned": (
            lambda x: -_centred(x) / x.std(-1, unbiased=False, keepdim=True),
            "larger values have larger scores",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
