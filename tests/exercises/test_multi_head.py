"""Exercises of 03_multi_head: stub open, solution passes, each mistake has its own diagnosis."""

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "03_multi_head"


def _term(heads, W_O, i, axis="rows"):
    d_h = heads.shape[-1]
    own = slice(i * d_h, (i + 1) * d_h)
    return heads[i] @ {"rows": W_O[own], "columns": W_O[:, own].T, "first": W_O[:d_h]}[axis]


def _centred_rank(P, log=True, axis=-1):
    scores = P.log() if log else P
    if axis is not None:
        scores = scores - scores.mean(axis, keepdim=True)
    return torch.linalg.matrix_rank(scores, atol=1e-9).item()


def _prune(offset=0, swap=False, only_output=False, zero=False):
    def prune(W_Q, W_K, W_V, W_O, num_heads, removed):
        d = W_Q.shape[1]
        head = (removed + offset) % num_heads
        if zero:
            own = slice(head * d // num_heads, (head + 1) * d // num_heads)
            W_O[own] = 0.0
        kept = torch.arange(d) // (d // num_heads) != head
        if swap:
            kept = torch.arange(d) % num_heads != head
        if only_output:
            return W_Q, W_K, W_V, W_O[kept]
        return W_Q[:, kept], W_K[:, kept], W_V[:, kept], W_O[kept]

    return prune


WRONG = {
    "ex-multi_head-split": {
        "view for a transpose": (
            lambda x, h: x.reshape(x.shape[0], h, x.shape[1], -1),
            "cut the features first",
        ),
        "features dealt out in turn": (
            lambda x, h: x.unflatten(-1, (-1, h)).movedim(-1, 1),
            "head 0 holds features 0, 3, 6",
        ),
        "heads last": (lambda x, h: x.unflatten(-1, (h, -1)), "makes (B, h, n, d_head)"),
        "a copy": (
            lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2).contiguous(),
            "copies nothing",
        ),
        "heads in reverse": (
            lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2).flip(1),
            "a head holds one token's features in each row: the result",
        ),
    },
    "ex-multi_head-merge": {
        "reshape alone": (
            lambda y: y.reshape(y.shape[0], y.shape[2], -1),
            "swap them back before",
        ),
        "features before heads": (
            lambda y: y.permute(0, 2, 3, 1).flatten(-2),
            "head 0 comes first",
        ),
        "view without a copy": (
            lambda y: y.transpose(1, 2).view(y.shape[0], y.shape[2], -1),
            "raises RuntimeError",
        ),
        "heads summed": (lambda y: y.sum(1), "makes (B, n, d_model)"),
        "sizes of the first example": (
            lambda y: y.transpose(1, 2).reshape(-1, 5, 21),
            "works on other sizes too",
        ),
    },
    "ex-multi_head-term": {
        "columns for rows": (lambda y, w, i: _term(y, w, i, "columns"), "took columns of W_O"),
        "the first rows always": (lambda y, w, i: _term(y, w, i, "first"), "the rows of head 0"),
        "not projected": (lambda y, w, i: y[i], "one row a token, as wide as the model"),
        "the whole sum": (
            lambda y, w, i: y.transpose(0, 1).flatten(1) @ w,
            "takes the head's own rows of W_O",
        ),
    },
    "ex-multi_head-gauge": {
        "G for both": (lambda q, k, g: (q @ g, k @ g), "no score changes"),
        "inverse without transpose": (
            lambda q, k, g: (q @ g, k @ torch.linalg.inv(g)),
            "no score changes: W_Q W_Kᵀ",
        ),
        "queries left alone": (lambda q, k, g: (q, k), "the queries are turned by G"),
        "only the queries": (lambda q, k, g: q @ g, "expected two matrices"),
        "shapes turned": (
            lambda q, k, g: ((q @ g).T, (k @ torch.linalg.inv(g).T).T),
            "returns two matrices of the old shapes",
        ),
    },
    "ex-multi_head-width": {
        "no logarithm": (lambda P: _centred_rank(P, log=False), "a random head of width 2"),
        "not centred": (lambda P: _centred_rank(P, axis=None), "got 1, want 0"),
        "columns centred": (lambda P: _centred_rank(P, axis=0), "got 3, want 2"),
        "a matrix": (lambda P: P.log(), "expected one number"),
    },
    "ex-multi_head-prune": {
        "the next head": (_prune(offset=1), "the output without head 1"),
        "features dealt out in turn": (_prune(swap=True), "nothing but the removed term"),
        "only W_O": (_prune(only_output=True), "the parameters of one head are gone"),
        "three matrices": (lambda *a: _prune()(*a)[:3], "expected four matrices"),
        "zeroes the old matrix": (_prune(zero=True), "the old matrices are left alone"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
