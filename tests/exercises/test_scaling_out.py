"""Exercises of 22_scaling_out: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch.nn.functional as F

from lib.scaling import exposed_seconds
from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "22_scaling_out"


def _memory(weights=2, gradients=2, optimizer=12, stages=(1, 2, 3)):
    def memory(psi, p, stage):
        kinds = zip((optimizer, gradients, weights), stages, strict=True)
        return sum(b * psi / (p if stage >= first else 1) for b, first in kinds)

    return memory


def _parts(bias=lambda results, b, t: [results[0] + b, *results[1:]], *, first=None, whole=False):
    def feed_forward_parts(X, A, a, B, b, t):
        pieces = zip(A.chunk(t, dim=1), a.chunk(t), B.chunk(t), strict=True)
        if whole:
            results = [F.gelu(X @ A + a) @ B / t for _ in range(t)]
        elif first == "none":
            results = [F.gelu(X @ A_j) @ B_j for A_j, _, B_j in pieces]
        elif first == "late":
            results = [(F.gelu(X @ A_j) + a_j) @ B_j for A_j, a_j, B_j in pieces]
        else:
            results = [F.gelu(X @ A_j + a_j) @ B_j for A_j, a_j, B_j in pieces]
        return bias(results, b, t)

    return feed_forward_parts


def _rows_first(X, A, a, B, b, t):
    pairs = zip(X.tensor_split(t, dim=1), A.tensor_split(t), strict=True)
    results = [F.gelu(x @ A_j + a / t) @ B for x, A_j in pairs]
    return [results[0] + b, *results[1:]]


def _wire(rule):
    def last_arrival(compute, send):
        ready = free = 0.0
        for c, s in zip(compute, send, strict=True):
            ready += c
            free = rule(ready, free, s)
        return free

    return last_arrival


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
    "ex-scaling_out-parts": {
        "a bias in each": (
            _parts(lambda r, b, t: [x + b for x in r]),
            "2 parts add the bias 2 times",
        ),
        "no second bias": (_parts(lambda r, b, t: r), "the bias b is in none of them"),
        "no first bias": (_parts(first="none"), "the first bias is cut with the columns"),
        "the bias behind GELU": (_parts(first="late"), "the first bias is cut with the columns"),
        "rows first": (_rows_first, "without biases their sum is the layer"),
        "all of it, divided": (_parts(whole=True), "2 of 2 parts did, want 1"),
        "summed already": (lambda X, A, a, B, b, t: F.gelu(X @ A + a) @ B + b, "got 5 results"),
    },
    "ex-scaling_out-wire": {
        "one after the other": (lambda c, s: sum(c) + sum(s), "they may leave before"),
        "many wires": (
            _wire(lambda ready, free, s: max(free, ready + s)),
            "on the one wire at once",
        ),
        "the wire does not wait": (
            _wire(lambda ready, free, s: free + s),
            "got 3, want 5",
        ),
        "the mean bucket": (
            lambda c, s: sum(c) + exposed_seconds(sum(c), sum(s), len(c)),
            "buckets may differ",
        ),
        "no last bucket": (lambda c, s: max(sum(c), c[0] + sum(s[1:])), "got 2, want 5"),
    },
    "ex-scaling_out-copies": {
        "not of the ring": (lambda n, f, b: max(1, math.floor(n / (f * b))), "copies hide"),
        "no copy": (lambda n, f, b: math.floor(n / (f * b)), "got no copy at all"),
        "rounded up": (lambda n, f, b: math.ceil(1 + n / (f * b)), "a tenth of a token"),
        "not whole": (lambda n, f, b: max(1.0, n / (f * b)), "got a float"),
        "short by one if exact": (lambda n, f, b: math.ceil(n / (f * b)), "exactly enough"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
