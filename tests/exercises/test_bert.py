"""Exercises of 11_bert: stub, solution, and mistakes told apart."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "11_bert"


def _closes(ids, sep):
    return (ids == sep).long()


def _segments_early(ids, sep, pad):
    return (_closes(ids, sep).cumsum(-1) == 1).long().masked_fill(ids == pad, 0)


def _segments_padding(ids, sep, pad):
    return (_closes(ids, sep).cumsum(-1) - _closes(ids, sep) >= 1).long()


def _segments_short(ids, sep, pad):
    closes = _closes(ids, sep)
    inside = (closes.cumsum(-1) - closes == 1) & (closes == 0)
    return inside.long().masked_fill(ids == pad, 0)


def _segments_fixed(ids, sep, pad):
    closes = _closes(ids, 2)
    return (closes.cumsum(-1) - closes == 1).long().masked_fill(ids == 0, 0)


def _corrupt(low, high, everywhere=False):
    def corrupt(ids, chosen, u, words, mask_id):
        chosen = torch.ones_like(chosen) if everywhere else chosen
        out = torch.where(chosen & (u < low), mask_id, ids)
        return torch.where(chosen & (u >= low) & (u < high), words, out)

    return corrupt


def _corrupt_in_place(ids, chosen, u, words, mask_id):
    ids[chosen & (u < 0.8)] = mask_id
    return ids


def _divergence_backwards(joint):
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    return (product * (product / joint).log()).sum()


def _divergence_naive(joint):
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    return (joint * (joint / product).log()).sum()


def _visible(p, v, kept, random):
    both = random * p / len(p)
    both[v] += kept * p[v]
    return both


def _visible_equal(p, v, kept, random):
    return _visible(p, v, 0.1, 0.1) / _visible(p, v, 0.1, 0.1).sum()


def _visible_uniform(p, v, kept, random):
    both = torch.full_like(p, random / len(p))
    both[v] += kept * p[v]
    return both / both.sum()


def _visible_in_place(p, v, kept, random):
    p *= random / len(p)
    p[v] *= 1 + kept / random * len(p)
    return p / p.sum()


def _span(order=0, most=None):
    def best_span(start, end, limit):
        n = len(start)
        sums = start[:, None] + end[None, :]
        allowed = torch.ones(n, n, dtype=torch.bool).triu(order)
        if most is None:
            allowed = allowed.tril(limit - 1)
        best = sums.masked_fill(~allowed, -math.inf).argmax().item()
        return best // n, best % n

    return best_span


WRONG = {
    "ex-bert-segments": {
        "the separator counted early": (_segments_early, "expected 0: it closes the first"),
        "padding in segment 1": (_segments_padding, "padding is 0"),
        "the last separator left out": (_segments_short, "the second text is 1"),
        "ids fixed": (_segments_fixed, "takes the ids that it is given"),
        "booleans": (lambda ids, sep, pad: ids == sep, "expected integers"),
    },
    "ex-bert-corrupt": {
        "all tokens": (_corrupt(0.8, 0.9, everywhere=True), "touches chosen tokens only"),
        "no random words": (_corrupt(0.8, 0.8), "from .8 to .9: a random word"),
        "none kept": (_corrupt(0.8, 1.0), "from .9 on: as it was"),
        "all masked": (_corrupt(1.0, 1.0), "from .9 on: as it was: the token with u = .95: got 3"),
        "in place": (_corrupt_in_place, "does not write into its input"),
        "half masked": (_corrupt(0.5, 0.9), "below .8: the mask"),
    },
    "ex-bert-accumulate": {
        "mean of means": (lambda m, c: m.mean(), "the loss is the mean of means"),
        "a sum": (lambda m, c: (m * c).sum(), "equal counts: the mean of means"),
        "division by zero": (lambda m, c: (m * c).sum() / c.sum(), "no token at all: 0"),
        "empty ones counted": (
            lambda m, c: (m * c).sum() / c.clamp(min=1).sum(),
            "a microbatch without a token changes nothing",
        ),
        "not reduced": (lambda m, c: m * c, "is one number"),
    },
    "ex-bert-independent": {
        "backwards": (_divergence_backwards, "this is KL(product ‖ truth)"),
        "0 log 0": (_divergence_naive, "impossible pairs do no harm"),
        "sign turned": (lambda joint: -_divergence_naive(joint), "the sign is turned"),
        "a table": (lambda joint: joint, "is one number"),
        "the joint entropy": (
            lambda joint: torch.special.entr(joint).sum(),
            "agrees with the divergence: what is lost",
        ),
    },
    "ex-bert-visible": {
        "not normalised": (_visible, "the sum of the answer"),
        "shares taken as equal": (_visible_equal, "weighs the two shares"),
        "random words for answers": (_visible_uniform, "agrees with the formula at equal shares"),
        "in place": (_visible_in_place, "does not write into p"),
    },
    "ex-bert-span": {
        "each by itself": (
            lambda start, end, most: (start.argmax().item(), end.argmax().item()),
            "does not end before it begins",
        ),
        "never one token": (_span(order=1), "finds the best sum"),
        "any length": (_span(most=0), "is not too long"),
        "one number": (lambda start, end, most: start.argmax().item(), "returns two numbers"),
    },
}


def test_every_exercise_is_tried():
    assert list(WRONG) == labels(CHAPTER)


@pytest.mark.parametrize("label", WRONG)
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])
