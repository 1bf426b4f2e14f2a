"""Exercises of 10_gpt: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "10_gpt"


def _loss(shift=1, reduce=torch.mean, safe=True, keep_last=False):
    def next_token_loss(logits, ids):
        log_p = logits.log_softmax(-1) if safe else logits.exp() / logits.exp().sum(-1)[:, None]
        log_p = log_p if safe else log_p.log()
        if keep_last:
            return -log_p[torch.arange(len(ids)), ids.roll(-1)].mean()
        rows = log_p[: len(ids) - shift] if shift else log_p
        return reduce(-rows[torch.arange(len(ids) - shift), ids[shift:]])

    return next_token_loss


def _nucleus(inclusive=False, unsorted=False, back=True, exclusive=False):
    def nucleus(p, share):
        ordered, order = (p, torch.arange(len(p))) if unsorted else p.sort(descending=True)
        reached = ordered.cumsum(0)
        kept = reached < share if exclusive else reached - ordered < share
        if inclusive:
            kept = reached - 2 * ordered < share
        if not back:
            return kept
        out = torch.zeros(len(p), dtype=torch.bool)
        out[order] = kept
        return out

    return nucleus


def _write(all_again=False, one_more=False, in_place=False, last=False):
    def continue_greedily(step, prompt, new):
        ids = prompt if in_place else list(prompt)
        unread = list(prompt)
        for _ in range(new):
            logits = step(unread)
            token = int(logits.argmin() if last else logits.argmax())
            ids.append(token)
            unread = list(ids) if all_again else [token]
        if one_more:
            step(unread)
        return ids

    return continue_greedily


WRONG = {
    "ex-gpt-loss": {
        "not shifted": (_loss(shift=0), "shift the labels by one place"),
        "shifted twice": (_loss(shift=2), "knowing the next token costs nothing"),
        "a sum": (_loss(reduce=torch.sum), "is ln V where all logits are equal"),
        "no reduction": (_loss(reduce=lambda x: x), "got shape (4,)"),
        "the first token as the last label": (_loss(keep_last=True), "with another last row"),
        "overflows": (_loss(safe=False), "survives large logits"),
        "bits": (lambda z, x: F.cross_entropy(z[:-1], x[1:]) / math.log(2), "want 1.38629"),
    },
    "ex-gpt-bits": {
        "nats": (lambda loss, t, c: loss * t / c, "got 0.693147, want 1"),
        "times ln 2": (lambda loss, t, c: loss * t / c * math.log(2), "got 0.480453, want 1"),
        "per token": (lambda loss, t, c: loss / math.log(2), "got 1, want 0.25"),
        "upside down": (lambda loss, t, c: loss * c / t / math.log(2), "got 4, want 0.25"),
    },
    "ex-gpt-temperature": {
        "the power T": (
            lambda p, T: p**T / (p**T).sum(-1, keepdim=True),
            "the likeliest token falls from 0.5 to 0.4",
        ),
        "not normalised": (lambda p, T: p ** (1 / T), "sums to one: the sum at T = 0.5"),
        "softmax of probabilities": (lambda p, T: (p / T).softmax(-1), "T = 1 changes nothing"),
        "one sum for all rows": (
            lambda p, T: p ** (1 / T) / (p ** (1 / T)).sum(),
            "works on leading dimensions",
        ),
        "zeros made possible": (
            lambda p, T: ((p + 1e-15).log() / T).softmax(-1),
            "what is impossible stays impossible",
        ),
    },
    "ex-gpt-nucleus": {
        "without the last": (_nucleus(exclusive=True), "keeps the token that reaches the share"),
        "one too many": (_nucleus(inclusive=True), "keeps no token more"),
        "not sorted": (_nucleus(unsorted=True), "got [True, True, True, False]"),
        "not put back": (_nucleus(back=False), "got [True, True, False, False]"),
        "a threshold": (lambda p, s: p >= 1 - s - 1e-9, "keeps no token more"),
        "numbers": (lambda p, s: p * 1.0, "got torch.float64, expected torch.bool"),
        "indices": (lambda p, s: torch.tensor([1, 3]), "got shape (2,)"),
    },
    "ex-gpt-reads": {
        "the last is read": (lambda p, n, c: p + n, "got 8, want 7"),
        "always cached": (lambda p, n, c: p + n - 1, "got 9, want 24"),
        "the prompt once a token": (
            lambda p, n, c: p + n - 1 if c else p * n,
            "got 21, want 24",
        ),
        "the other way round": (
            lambda p, n, c: sum(range(p, p + n)) if c else p + n - 1,
            "got 45, want 11",
        ),
    },
    "ex-gpt-write": {
        "all again": (_write(all_again=True), "calls read [3, 4, 5, 6] tokens"),
        "one call more": (_write(one_more=True), "calls read [3, 1, 1, 1, 1] tokens"),
        "the least probable": (_write(last=True), "each token is the most probable one"),
        "into the caller's list": (_write(in_place=True), "the caller's list has become"),
        "the continuation alone": (
            lambda step, prompt, new: _write()(step, prompt, new)[len(prompt) :],
            "gives prompt and continuation",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
