"""Exercises of 22_scaling_out: stub open, solution passes, each mistake told apart."""

import pytest

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "22_scaling_out"


def _memory(weights=2, gradients=2, optimizer=12, stages=(1, 2, 3)):
    def memory(psi, p, stage):
        kinds = zip((optimizer, gradients, weights), stages, strict=True)
        return sum(b * psi / (p if stage >= first else 1) for b, first in kinds)

    return memory


WRONG = {
    "ex-scaling_out-combine": {
        "a mean of means": (lambda s, n: (s / n[:, None]).mean(0), "the mean of the means"),
        "the mean of the sums": (lambda s, n: s.mean(0), "counts 2 and 2"),
        "not summed": (lambda s, n: s / n[:, None], "got shape (2, 3)"),
        "weights of the means": (
            lambda s, n: ((s / n[:, None]) * (n / n.sum())[:, None]).sum(0),
            "counts 0 and 3",
        ),
    },
    "ex-scaling_out-ring": {
        "half the way": (lambda p, b: (p - 1) * b / p, "the all-gather too"),
        "whole vectors": (lambda p, b: 2 * (p - 1) * b, "got 200"),
        "two copies": (lambda p, b: 2.0 * b, "one process sends nothing"),
        "one copy": (lambda p, b: b * (p > 1), "got 100, want 175"),
    },
    "ex-scaling_out-memory": {
        "no master weights": (_memory(optimizer=8), "got 84"),
        "all at once": (_memory(stages=(1, 1, 1)), "stage 1 parts the optimizer"),
        "weights before gradients": (_memory(2, 2, 12, (1, 3, 3)), "stage 2 parts"),
        "weights never": (_memory(stages=(1, 2, 9)), "stage 3 parts"),
        "parted at once": (_memory(stages=(0, 2, 3)), "stage 0 parts nothing"),
    },
    "ex-scaling_out-bubble": {
        "rounded down": (lambda p, q: max(1, int((p - 1) * (1 - q) / q)), "rounds up"),
        "p for p − 1": (lambda p, q: max(1, round(p * (1 - q) / q)), "parts_needed(1, 0.1)"),
        "of the working time": (lambda p, q: max(1, round((p - 1) / q)), "got 12"),
        "one part": (lambda p, q: 1, "1 parts idle more"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
