"""Exercises of 06_transformer_block: stub open, solution passes, each mistake told apart."""

import pytest
import torch
import torch.nn.functional as F

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "06_transformer_block"


def _norm(unbiased=False, outside=False, dim=-1, centre=True, shift_first=False):
    def normalise(x, weight, bias, eps):
        x = x - x.mean(dim, keepdim=True) if centre else x
        if centre:
            variance = x.var(dim, unbiased=unbiased, keepdim=True)
        else:
            variance = x.square().mean(dim, keepdim=True)
        hat = x / (variance.sqrt() + eps if outside else (variance + eps).sqrt())
        return weight * (hat + bias) if shift_first else weight * hat + bias

    return normalise


def _in_place(x, weight, bias, eps):
    x -= x.mean(-1, keepdim=True)
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt() + bias


def _jacobian(ones=True, hat=True, scale=True, with_eps=True, divide=True):
    def layer_norm_jacobian(x, eps):
        d = len(x)
        s = (x.var(unbiased=False) + (eps if with_eps else 0)).sqrt()
        normed = (x - x.mean()) / s
        J = torch.eye(d).to(x)
        if ones:
            J = J - 1 / d
        if hat:
            J = J - torch.outer(normed, normed) / (d if divide else 1)
        return J / s if scale else J

    return layer_norm_jacobian


def _backward(mean=True, along=True, scale=True, with_eps=True, whole=False):
    def backward(g, x, eps):
        dims = (-2, -1) if whole else -1
        s = (x.var(-1, unbiased=False, keepdim=True) + (eps if with_eps else 0)).sqrt()
        hat = (x - x.mean(-1, keepdim=True)) / s
        result = g - g.mean(dims, keepdim=True) if mean else g
        if along:
            result = result - hat * (g * hat).mean(-1, keepdim=True)
        return result / s if scale else result

    return backward


def _count(biases=True, norms=2, last=2, heads=1):
    def parameters(d, d_ff, layers):
        matrices = 4 * d * d * heads + 2 * d * d_ff
        extra = 5 * d + d_ff if biases else 0
        return layers * (matrices + extra + 2 * norms * d) + last * d

    return parameters


def _order(swap=False, skip=True, same_norm=False, double=False, stale=False):
    def apply_block(x, sublayers, norms, order):
        start = x
        if swap:
            order = {"post": "pre", "pre": "post"}[order]
        for i, sublayer in enumerate(sublayers):
            norm = norms[0 if same_norm else i]
            base = start if stale else x
            if order == "post":
                x = norm(base + sublayer(x)) if skip else norm(sublayer(x))
            else:
                x = base + sublayer(norm(x))
                x = norm(x) if double else x
        return x

    return apply_block


def _drop(scale=True, keep=False, always=False, by="entry", seed=None):
    def drop(x, p, training):
        if not training and not always:
            return x
        if seed is not None:
            torch.manual_seed(seed)
        shape = {"entry": x.shape, "row": (len(x), 1), "column": (1, x.shape[1])}[by]
        passes = torch.rand(shape) >= (1 - p if keep else p)
        return x * passes / (1 - p if scale else 1)

    return drop


WRONG = {
    "ex-transformer_block-layer-norm": {
        "unbiased variance": (_norm(unbiased=True), "variance one, divided by d"),
        "ε outside the root": (_norm(outside=True), "ε is added under the root"),
        "RMSNorm": (_norm(centre=False), "mean zero"),
        "over another dimension": (_norm(dim=-2), "mean zero"),
        "shifted before it is scaled": (_norm(shift_first=True), "scales, then shifts"),
        "without γ and β": (
            lambda x, weight, bias, eps: _norm()(x, 1, 0, eps),
            "scales, then shifts",
        ),
        "in place": (_in_place, "leaves its input alone"),
    },
    "ex-transformer_block-jacobian": {
        "mean forgotten": (_jacobian(ones=False), "a shift of the token"),
        "deviation forgotten": (_jacobian(hat=False), "a longer token"),
        "not divided by s": (_jacobian(scale=False), "shrinks as the token grows"),
        "not divided by d": (_jacobian(divide=False), "a longer token"),
        "without ε": (_jacobian(with_eps=False), "J for ε = 2"),
        "a vector": (lambda x, eps: x, "got shape (7,)"),
    },
    "ex-transformer_block-backward": {
        "mean forgotten": (_backward(mean=False), "is orthogonal to the ones"),
        "deviation forgotten": (_backward(along=False), "is orthogonal to the token"),
        "not divided by s": (_backward(scale=False), "equals autograd's"),
        "without ε": (_backward(with_eps=False), "for ε = 1e-05"),
        "mean over all tokens": (_backward(whole=True), "is orthogonal to the ones"),
    },
    "ex-transformer_block-count": {
        "no biases": (_count(biases=False), "without biases"),
        "no norms": (_count(norms=0), "the norms are missing"),
        "one norm a block": (_count(norms=1), "one of two norms is missing"),
        "no norm at the end": (_count(last=0), "the norm at the end is left"),
        "per head": (_count(heads=8), "a block with d = 8"),
    },
    "ex-transformer_block-order": {
        "the other order": (_order(swap=True), "post: the norm of the sum"),
        "no sum": (_order(skip=False), "post: the norm of the sum"),
        "normalised twice": (_order(double=True), "pre: the sum is not normalised"),
        "one norm for all": (_order(same_norm=True), "a norm of its own"),
        "added to the block's input": (_order(stale=True), "what the one before has left"),
    },
    "ex-transformer_block-dropout": {
        "not scaled": (_drop(scale=False), "keeps the mean"),
        "keeps a share p": (_drop(keep=True), "drops a share p"),
        "in evaluation too": (_drop(always=True), "nothing in evaluation"),
        "whole rows": (
            lambda x, p, training: (
                x if not training else x * (torch.arange(len(x)) % 10 >= 3)[:, None] / (1 - p)
            ),
            "draws for every number by itself",
        ),
        "the same every time": (_drop(seed=0), "draws anew"),
        "scaled up in evaluation": (
            lambda x, p, training: F.dropout(x, p, True) if training else x * (1 - p),
            "nothing in evaluation",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
