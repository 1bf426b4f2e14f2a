"""Exercises of 16_integrated_gradients: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "16_integrated_gradients"


def _nodes(shift=0.5, total=1.0, dtype=torch.float64, cells=0):
    def midpoints(steps):
        k = torch.arange(steps, dtype=dtype)
        return (k + shift) / (steps + cells), torch.full((steps,), total / steps, dtype=dtype)

    return midpoints


def _attribute(factor="way", nodes=0.5, reduce="mean", back=False, graph=False, leaf=False):
    def attribute(f, x, base, steps):
        if leaf:
            x.requires_grad_()
            total = 0
            for k in range(steps):
                at = base + (k + 0.5) / steps * (x - base)
                total = total + torch.autograd.grad(f(at[None]).sum(), x)[0] * steps / (k + 0.5)
            return ((x - base) * total / steps).detach()
        alpha = (torch.arange(steps, dtype=x.dtype) + nodes) / steps
        points = base + alpha.view(-1, *(1,) * x.ndim) * (x - base)
        points.requires_grad_()
        (slopes,) = torch.autograd.grad(f(points).sum(), points, create_graph=graph)
        slopes = slopes.mean(0) if reduce == "mean" else slopes.sum(0)
        way = {"way": x - base, "input": x, "none": torch.ones_like(x)}[factor]
        return -way * slopes if back else way * slopes

    return attribute


def _one_row(f, x, base, steps):
    return _attribute()(f, x, base, steps) if x.ndim == 1 else x[0] * 0


def _gap(sign=1, baseline=True, dims=None):
    def gap(shares, f, x, base):
        total = shares.flatten(1).sum(1) if dims is None else shares.sum(dims)
        change = f(x) - f(base) if baseline else f(x)
        return sign * (total - change)

    return gap


def _steps(half=2, rounding=math.ceil, size=abs, least=1):
    return lambda first, last, tolerance: max(
        least, rounding(size(first - last) / (half * tolerance))
    )


def _stairs(backwards=False, start=True, straight=False, absolute=False, in_place=False):
    def staircase(f, x, base):
        n = len(x)
        if straight:
            return _attribute()(f, x, base, 2000)
        begin = base if start else torch.zeros_like(base)
        moved = torch.ones(n + 1, n).tril(-1).bool()
        corners = torch.where(moved.flip(1) if backwards else moved, x, begin)
        shares = f(corners).diff()
        if in_place:
            base.copy_(x)
        if absolute:
            return f(corners)[1:]
        return shares.flip(0) if backwards else shares

    return staircase


WRONG = {
    "ex-integrated_gradients-midpoints": {
        "left ends": (_nodes(shift=0.0), "the first node is 0, a left end"),
        "right ends": (_nodes(shift=1.0), "each node is the centre of its cell"),
        "weights of one": (lambda m: (_nodes()(m)[0], torch.ones(m)), "their sum: got 4"),
        "one cell too many": (_nodes(cells=1), "the nodes of 4 steps: got 0.7"),
        "single precision": (_nodes(dtype=torch.float32), "got torch.float32"),
        "fixed at 4": (lambda m: _nodes()(4), "1 steps: got shape (4,)"),
    },
    "ex-integrated_gradients-attribute": {
        "gradients alone": (_attribute(factor="none"), "the factor in front of the integral"),
        "times the input": (_attribute(factor="input"), "the factor is x, expected x − base"),
        "left ends": (_attribute(nodes=0.0), "they add up to the difference"),
        "a little off the middle": (_attribute(nodes=0.499), "the nodes are midpoints"),
        "a sum for the mean": (_attribute(reduce="sum"), "weight times way"),
        "backwards": (_attribute(back=True), "weight times way"),
        "one node at the end": (
            lambda f, x, base, m: _attribute(nodes=1.0)(f, x, base, 1),
            "they add up to the difference",
        ),
        "vectors only": (_one_row, "works for word vectors"),
        "a graph is left": (_attribute(graph=True), "has no graph"),
        "the input asks for gradients": (_attribute(leaf=True), "the input is left as it was"),
    },
    "ex-integrated_gradients-gap": {
        "the other sign": (_gap(sign=-1), "is positive where the shares are too large"),
        "the answer alone": (_gap(baseline=False), "is zero where the shares are complete"),
        "one dimension": (_gap(dims=1), "sums over all dimensions but the first"),
        "all rows at once": (lambda s, f, x, b: s.sum() - (f(x) - f(b)).sum(), "got shape ()"),
    },
    "ex-integrated_gradients-steps": {
        "no half": (_steps(half=1), "the factor one half is missing"),
        "rounded down": (_steps(rounding=math.floor), "got 1, expected 2"),
        "signed": (_steps(size=lambda d: d), "the sign does not matter"),
        "zero nodes": (_steps(least=0), "for equal slopes: got 0"),
        "a float": (_steps(rounding=float), "expected an int"),
        "one too many": (
            lambda a, b, t: 1 + int(abs(a - b) / (2 * t)) if a != b else 1,
            "got 301, expected 300",
        ),
    },
    "ex-integrated_gradients-staircase": {
        "backwards": (_stairs(backwards=True), "the last entry moved first"),
        "straight": (_stairs(straight=True), "the shares of the straight line"),
        "from zero": (_stairs(start=False), "starts at the baseline"),
        "heights": (_stairs(absolute=True), "the shares: got"),
        "writes into the baseline": (_stairs(in_place=True), "one has changed"),
        "all corners": (
            lambda f, x, base: f(torch.where(torch.ones(3, 2).tril(-1).bool(), x, base)),
            "got shape (3,)",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
