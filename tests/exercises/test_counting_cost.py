"""Exercises of 21_counting_cost: stub open, solution passes, each mistake told apart."""

import math

import pytest

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "21_counting_cost"


def _parameters(words=1, norm=1, block=13):
    def gpt2_parameters(d, L, V, places):
        return (words * V + places) * d + L * (12 * d**2 + block * d) + norm * 2 * d

    return gpt2_parameters


def _step(factor=6, proper=12, power=2, words=1):
    def step_flops(d, L, V, B, n):
        maps = 12 * L * d**2 + words * V * d
        return B * (factor * n * maps + proper * L * n**power * d)

    return step_flops


def _batch(standing=16, each=4, floor=True, divide=lambda a, b: a // b):
    def largest_batch(memory, N, L, d, h, n):
        one = each * L * n * (18 * d + h + 4)
        got = divide(memory - standing * N, one)
        return max(0, got) if floor else got

    return largest_batch


def _rows(shift=0, never=None, factor=1):
    def least_rows(d, peak, bandwidth, size):
        ridge = factor * peak / bandwidth
        if ridge >= d / size:
            return never
        m = math.ceil(ridge * size * d / (2 * d - 2 * ridge * size))
        return max(1, m + shift)

    return least_rows


WRONG = {
    "ex-counting_cost-parameters": {
        "words twice": (_parameters(words=2), "words count twice"),
        "no last norm": (_parameters(norm=0), "got 16, want 20"),
        "no biases": (_parameters(block=0), "biases and norms"),
        "no norms in the block": (_parameters(block=9), "a layer more"),
    },
    "ex-counting_cost-training": {
        "forward only": (_step(factor=2, proper=4), "got 30, want 90"),
        "no attention": (_step(proper=0), "attention proper is missing"),
        "no words": (_step(words=0), "got 0, want 90"),
        "half a table": (_step(proper=6), "step(2n) − 2 step(n)"),
    },
    "ex-counting_cost-batch": {
        "nothing stands": (_batch(standing=0), "what stands comes first"),
        "rounded up": (_batch(divide=lambda a, b: -(-a // b)), "a byte less"),
        "below zero": (_batch(floor=False), "never below nothing"),
        "a float": (_batch(divide=lambda a, b: float(a // b)), "got a float"),
        "half precision": (_batch(each=2), "room for exactly 5"),
    },
    "ex-counting_cost-ridge": {
        "one less": (_rows(shift=-1), "below the ridge"),
        "one more": (_rows(shift=1), "are enough already"),
        "never": (_rows(never=0), "want None"),
        "half": (_rows(factor=0.5), "below the ridge"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
