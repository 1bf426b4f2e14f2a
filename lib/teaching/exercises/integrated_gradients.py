"""Checkers for the exercises of chapter 16_integrated_gradients."""

from __future__ import annotations

import math

import torch

from lib.interpret.gradients import completeness_gap, integrated_gradients, quadrature
from lib.teaching.exercises import Wrong, checker, expect, expect_close, expect_shape


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _model(x: torch.Tensor) -> torch.Tensor:
    """Smooth, and no entry is like another: (N, ...) → (N,)."""
    flat = x.flatten(1)
    weights = 1 + torch.arange(flat.shape[1], dtype=flat.dtype)
    return torch.tanh(flat * weights / 3).sum(1) + flat[:, 0] * flat[:, -1] ** 2


@checker("ex-integrated_gradients-midpoints")
def midpoints(answer):
    yield "gives nodes and weights, one a step"
    nodes, weights = answer(4)
    expect_shape(nodes, (4,), "the nodes")
    expect_shape(weights, (4,), "the weights")

    yield "the weights sum to one"
    expect_close(float(weights.double().sum()), 1.0, "their sum")

    yield "each node is the centre of its cell"
    if abs(float(nodes[0])) < 1e-9:
        raise Wrong("the first node is 0, a left end; expected 1/8, the centre of the first cell")
    expect_close(nodes, torch.tensor([1, 3, 5, 7]) / 8, "the nodes of 4 steps")

    yield "float64, for any number of steps"
    for steps in (1, 7, 30):
        nodes, weights = answer(steps)
        expect(
            nodes.dtype == weights.dtype == torch.float64, f"got {nodes.dtype}, expected float64"
        )
        for got, want in zip((nodes, weights), quadrature("midpoint", steps), strict=True):
            expect_close(got, want, f"{steps} steps")


@checker("ex-integrated_gradients-attribute")
def attribute(answer):
    x, base = _randn(5), _randn(5, seed=1)

    yield "has the shape of the input"
    got = answer(_model, x.clone(), base.clone(), 50)
    expect_shape(got, (5,), "the shares")

    yield "has no graph"
    expect(not got.requires_grad, "the shares still hang on a graph, expected plain numbers")

    yield "a linear model's shares are weight times way"
    weights = torch.tensor([1.0, -2, 3, 5, -7], dtype=torch.float64)
    linear = answer(lambda v: v @ weights, x.clone(), base.clone(), 3)
    if torch.allclose(linear, weights):
        raise Wrong("these are the gradients; the factor in front of the integral is missing")
    if torch.allclose(linear, weights * x):
        raise Wrong("the factor is x, expected x − base")
    expect_close(linear, weights * (x - base), "the shares")

    yield "they add up to the difference"
    change = (_model(x[None]) - _model(base[None])).item()
    expect_close(float(answer(_model, x, base, 400).sum()), change, "their sum", atol=1e-3)

    yield "the nodes are midpoints"
    for steps in (1, 5):
        want = integrated_gradients(_model, x[None], base, steps=steps, rule="midpoint")[0]
        expect_close(answer(_model, x, base, steps), want, f"the shares, {steps} steps")

    yield "works for word vectors, (n, d)"
    x, base = _randn(3, 4), _randn(3, 4, seed=1)
    want = integrated_gradients(_model, x[None], base, steps=9, rule="midpoint")[0]
    expect_close(answer(_model, x, base, 9), want, "the shares")

    yield "the input is left as it was"
    expect(not x.requires_grad and torch.equal(x, _randn(3, 4)), "x has changed")


@checker("ex-integrated_gradients-gap")
def gap(answer):
    x, base, shares = _randn(3, 5), _randn(3, 5, seed=1), _randn(3, 5, seed=2)

    yield "is one number a row"
    expect_shape(answer(shares, _model, x, base), (3,), "the gap")

    yield "is zero where the shares are complete"
    weights = torch.arange(5.0, dtype=torch.float64)
    exact = weights * (x - base)
    expect_close(answer(exact, lambda v: v @ weights, x, base), 0.0, "the gap", atol=1e-9)

    yield "is positive where the shares are too large"
    more = answer(exact + 1, lambda v: v @ weights, x, base)
    expect_close(more, 5.0, "the gap, with each of 5 shares too large by 1", atol=1e-9)

    yield "sums over all dimensions but the first"
    x, base, shares = _randn(3, 5, 2), _randn(3, 5, 2, seed=1), _randn(3, 5, 2, seed=2)
    want = completeness_gap(shares, _model, x, base)
    expect_close(answer(shares, _model, x, base), want, "the gap for (3, 5, 2)", atol=1e-9)


@checker("ex-integrated_gradients-steps")
def left_nodes(answer):
    yield "is an integer"
    got = answer(6.0, 0.0, 0.01)
    expect(type(got) is int, f"got {got!r}, expected an int")

    yield "half a step of the difference of slopes"
    expect(got != 600, "got 600: the factor one half is missing")
    expect(got == 300, f"for slopes 6 and 0, within 0.01: got {got}, expected 300")

    yield "the sign does not matter"
    got = answer(0.0, 6.0, 0.01)
    expect(got == 300, f"for slopes 0 and 6, within 0.01: got {got}, expected 300")

    yield "part of a node is a whole node"
    got = answer(1.0, 0.0, 0.3)
    expect(got == 2, f"for slopes 1 and 0, within 0.3: got {got}, expected 2")

    yield "at least one"
    got = answer(2.5, 2.5, 0.1)
    expect(got == 1, f"for equal slopes: got {got}, expected 1")

    yield "enough, and no more than needed"
    for first, last, tolerance in ((7.3, -1.9, 0.05), (-2.0, 5.5, 0.013)):
        want = math.ceil(abs(last - first) / (2 * tolerance))
        got = answer(first, last, tolerance)
        expect(got == want, f"for {first}, {last}, {tolerance}: got {got}, expected {want}")


@checker("ex-integrated_gradients-staircase")
def staircase(answer):
    x = torch.tensor([2.0, 3.0], dtype=torch.float64)

    def product(v):
        return v[:, 0] ** 2 * v[:, 1]

    yield "has one share for each entry"
    got = answer(product, x, torch.zeros_like(x))
    expect_shape(got, (2,), "the shares")

    yield "the shares add up"
    expect_close(float(got.sum()), 12.0, "their sum", atol=1e-4)

    yield "entry 0 moves first"
    if torch.allclose(got, torch.tensor([12.0, 0.0]).to(got)):
        raise Wrong("x₁²x₂ at (2, 3): got (12, 0); the last entry moved first")
    if torch.allclose(got, torch.tensor([8.0, 4.0]).to(got), atol=1e-3):
        raise Wrong("x₁²x₂ at (2, 3): got (8, 4), the shares of the straight line")
    expect_close(got, torch.tensor([0.0, 12.0]), "x₁²x₂ at (2, 3)")

    yield "starts at the baseline"
    x, base = _randn(5), _randn(5, seed=1)
    point, want = base.clone(), []
    for i in range(5):
        before = _model(point[None]).item()
        point[i] = x[i]
        want.append(_model(point[None]).item() - before)
    expect_close(answer(_model, x, base), torch.tensor(want), "the shares", atol=1e-6)

    yield "input and baseline are left as they were"
    expect(torch.equal(x, _randn(5)) and torch.equal(base, _randn(5, seed=1)), "one has changed")
