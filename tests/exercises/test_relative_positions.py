"""Exercises of 08_relative_positions: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch

from lib.positions import relative_position_bucket
from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "08_relative_positions"


def _alibi(first=1, sign=-1, base=2.0, eight=8.0, both=False, squeeze=False, swap=False):
    def alibi(h, n):
        slope = base ** (-eight * torch.arange(first, h + first) / h)
        place = torch.arange(n)
        distance = place[:, None] - place
        distance = distance.abs() if both else distance.clamp(min=0)
        if swap:
            distance = distance.T
        bias = sign * slope[:, None, None] * distance
        return bias.sum(0) if squeeze else bias

    return alibi


def _bucket(halves=True, exact=None, cap=True, floor=True, shift=True, rounded=False):
    def bucket(r, num_buckets=32, max_distance=128):
        m = num_buckets // 2 if halves else num_buckets
        e = m // 2 if exact is None else exact
        distance = found = abs(r)
        if distance >= e:
            steps = math.log(distance / e) / math.log(max_distance / e) * (m - e)
            steps += 0 if rounded else 1e-9
            found = e + (math.floor(steps) if floor else steps)
            found = min(found, m - 1) if cap else found
        return found + (m if r > 0 and shift else 0)

    return bucket


def _behind(r, num_buckets=32, max_distance=128):
    return _bucket()(-r, num_buckets, max_distance)


def _edges(up=math.ceil, first=0, last=0, slack=1e-9, both=False):
    def edges(m, far):
        m = m // 2 if both else m
        e = m // 2
        return [up(e * (far / e) ** (k / (m - e)) - slack) for k in range(first, m - e + last)]

    return edges


def _to_the_end(m, far):
    """The last edge at D: one step too few."""
    e = m // 2
    return [math.ceil(e * (far / e) ** (k / (m - e - 1)) - 1e-9) for k in range(m - e)]


def _reach(longest=1, last=False, trained=False, both=False):
    def untrained(n, m, far):
        offsets = -torch.arange(n + 1 - longest)
        buckets = relative_position_bucket(offsets, both, m, far)
        reached = int(buckets.max()) + 1 if last else len(buckets.unique())
        return reached if trained else m - reached

    return untrained


def _bias(start=True, sign=1, both=False, heads_first=True, head=None):
    def bias_matrix(table, bucket, n_q, n_k):
        query = torch.arange(n_q)[:, None] + (n_k - n_q if start else 0)
        offset = sign * (torch.arange(n_k) - query)
        found = table[bucket(-offset.abs() if both else offset)]
        if head is not None:
            found = found[..., head, None].expand(found.shape)
        return found.permute(2, 0, 1) if heads_first else found

    return bias_matrix


WRONG = {
    "ex-relative_positions-fold": {
        "a variance": (lambda d, d_k, s: 1 / (d_k * s**2 * d**2), "a variance"),
        "no d_k": (lambda d, d_k, s: 1 / (s * d), "÷ the right one: got 8"),
        "divided by d_k": (lambda d, d_k, s: 1 / (d_k * s * d), "÷ the right one: got 0.125"),
        "keys forgotten": (
            lambda d, d_k, s: (d * d_k) ** -0.5,
            "larger keys need smaller queries",
        ),
        "one d only": (
            lambda d, d_k, s: 512**-0.5 / (math.sqrt(d_k) * s * math.sqrt(d)),
            "the variance for d = 24",
        ),
    },
    "ex-relative_positions-alibi": {
        "one matrix": (_alibi(squeeze=True), "got shape (5, 5)"),
        "rising": (_alibi(sign=1), "three back counts 1.5"),
        "counted from zero": (_alibi(first=0), "head 0 of 8, one back: got -1"),
        "base e": (_alibi(base=math.e), "head 0 of 8, one back: got -0.367"),
        "four for eight": (_alibi(eight=4.0), "got -0.707"),
        "both ways": (_alibi(both=True), "is 0 after the query"),
        "queries and keys swapped": (_alibi(swap=True), "expected i − j, query minus key"),
        "for eight heads": (
            lambda h, n: _alibi()(8, n)[:h],
            "two heads, two back",
        ),
    },
    "ex-relative_positions-bucket": {
        "one direction's": (_bucket(halves=False), "bucket(1) … bucket(7)"),
        "the second half forgotten": (_bucket(shift=False), "expected 16 more"),
        "directions swapped": (_behind, "near keys before the query"),
        "not capped": (_bucket(cap=False), "is in bucket 28, expected at most 15"),
        "not rounded": (_bucket(floor=False), "expected a whole number"),
        "four exact": (_bucket(exact=4), "near keys before the query have buckets of their own: b"),
        "rounded edges": (_bucket(rounded=True), "18 buckets: −15, −16"),
    },
    "ex-relative_positions-edges": {
        "rounded down": (_edges(up=math.floor, slack=-1e-9), "the last of edges(16, 128): got 90"),
        "not rounded": (_edges(up=float, slack=0.0), "the last of edges(16, 128): got 90.5"),
        "one too many": (_edges(last=1), "has 9 numbers"),
        "shifted by one": (_edges(first=1, last=1), "the first of edges(16, 128): got 12"),
        "the last at D": (_to_the_end, "the last bucket begins at 128"),
        "an encoder's": (_edges(both=True), "has 4 numbers"),
        "a hair above": (_edges(slack=0.0), "edges that are whole numbers are met"),
    },
    "ex-relative_positions-reach": {
        "the trained": (_reach(trained=True), "which is how many are trained"),
        "a distance of n": (_reach(longest=0), "untrained(113, 32, 128): got 0"),
        "both ways": (_reach(both=True), "got 20"),
        "filled from below": (_reach(last=True), "untrained(500, 32, 17)"),
    },
    "ex-relative_positions-bias": {
        "heads last": (_bias(heads_first=False), "got shape (2, 5, 3)"),
        "queries first": (_bias(start=False), "expected bucket 3: offset 0"),
        "query minus key": (_bias(sign=-1), "head 0, the last query"),
        "distances": (_bias(both=True), "expected their own"),
        "one head for all": (_bias(head=0), "each head has its own column"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
