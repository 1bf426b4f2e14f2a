"""Exercises of 19_attention_is_not_explanation: stub open, solution passes, mistakes told apart."""

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "19_attention_is_not_explanation"


def _rollout(half=0.5, reverse=False, last=False, heads=torch.mean, identity=True):
    def rollout(weights):
        n = weights.shape[-1]
        eye = torch.eye(n, dtype=weights.dtype)
        rolled = eye
        layers = weights[-1:] if last else weights.flip(0) if reverse else weights
        for layer in layers:
            mixed = heads(layer, 0)
            mixed = mixed if isinstance(mixed, torch.Tensor) else mixed.values
            rolled = (half * (mixed + eye) if identity else mixed) @ rolled
        return rolled

    return rollout


def _rank(values):
    return int(torch.linalg.matrix_rank(values))


def _augmented(values):
    return torch.cat([values, torch.ones(len(values), 1, dtype=values.dtype)], 1)


def _wall(which=torch.min, sign=1, clamp=False):
    def to_the_wall(weights, direction):
        direction = sign * direction
        falling = direction < 0
        reach = which(weights[falling] / -direction[falling])
        return (weights + reach * direction).clamp(min=0)

    return to_the_wall


def _one_step(weights, direction):
    return weights + direction


def _small_step(weights, direction):
    return weights + 0.01 * direction


def _renormalised(weights, direction):
    moved = (weights + direction).clamp(min=0)
    return moved / moved.sum()


def _spearman(a, b):
    ranks = [x.argsort().argsort().double() for x in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1]


def _signs(a, b):
    return (a[:, None] - a).sign() * (b[:, None] - b).sign()


WRONG = {
    "ex-attention_is_not_explanation-rollout": {
        "not halved": (_rollout(half=1.0), "rows stay probabilities"),
        "no residual": (_rollout(identity=False), "a token keeps something of itself"),
        "in reverse": (_rollout(reverse=True), "in the reverse order"),
        "the last layer alone": (_rollout(last=True), "the first layer acts first: two layers"),
        "heads are added": (_rollout(heads=torch.sum), "rows stay probabilities"),
        "the first head alone": (
            lambda w: _rollout()(w[:, :1]),
            "agrees with the library: weights (1, 3, 4, 4)",
        ),
        "one row": (lambda w: _rollout()(w)[0], "got shape (5,)"),
    },
    "ex-attention_is_not_explanation-freedom": {
        "without the sum": (lambda v: len(v) - _rank(v), "got 14, want 13"),
        "by the formula": (lambda v: len(v) - v.shape[1] - 1, "is never negative"),
        "clamped formula": (
            lambda v: max(0, len(v) - v.shape[1] - 1),
            "values that depend on each other count once",
        ),
        "rank and one": (
            lambda v: max(0, len(v) - _rank(v) - 1),
            "a column that is constant is no condition of its own",
        ),
        "the rank itself": (lambda v: _rank(_augmented(v)), "got 7, want 13"),
    },
    "ex-attention_is_not_explanation-wall": {
        "the whole step": (_one_step, "no weight is below zero"),
        "the last wall": (_wall(which=torch.max), "keeps the sum"),
        "backwards": (_wall(sign=-1), "stops at the first wall"),
        "a small step": (_small_step, "goes as far as it can"),
        "renormalised": (_renormalised, "stops at the first wall"),
    },
    "ex-attention_is_not_explanation-felt": {
        "the gain alone": (lambda w, v, s: v @ s, "sums to zero"),
        "weight times gain": (lambda w, v, s: w * (v @ s), "sums to zero"),
        "plain mean": (
            lambda w, v, s: w * (v @ s - (v @ s).mean()),
            "sums to zero",
        ),
        "no weight": (
            lambda w, v, s: v @ s - (v @ s).mean(),
            "agrees with autograd",
        ),
        "sizes": (
            lambda w, v, s: (w * (v @ s - (w * (v @ s)).sum())).abs(),
            "sums to zero",
        ),
        "downhill": (
            lambda w, v, s: -w * (v @ s - (w * (v @ s)).sum()),
            "agrees with autograd",
        ),
    },
    "ex-attention_is_not_explanation-tau": {
        "each pair twice": (lambda a, b: _signs(a, b).sum() / (len(a) * (len(a) - 1) / 2), "got 2"),
        "share that agrees": (
            lambda a, b: (_signs(a, b) > 0).double().sum() / (len(a) * (len(a) - 1)),
            "τ(a, −a): got 0",
        ),
        "Spearman's": (_spearman, "one swap of neighbours costs one pair: τ(1 2 3 4, 1 3 2 4)"),
        "the diagonal counts": (
            lambda a, b: _signs(a, b).sum() / len(a) ** 2,
            "is 1 for the same order",
        ),
        "Pearson's": (
            lambda a, b: torch.corrcoef(torch.stack([a, b]))[0, 1],
            "is 1 for the same order",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
