"""Checkers for the exercises of chapter 05_activations."""

from __future__ import annotations

import math

import torch

from lib.activations import gelu, relu, swish
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@checker("ex-activations-gelu")
def my_gelu(answer):
    x = 2 * _normal(3, 5)

    yield "keeps the shape"
    expect_shape(answer(x), (3, 5), "the result")

    yield "the gate is half open at zero"
    near = torch.tensor([1e-9], dtype=torch.float64)
    expect_close(answer(near) / near, 0.5, "GELU(x)/x near zero", atol=1e-6)

    yield "a far positive input passes, a far negative one doesn't"
    far = torch.tensor([-30.0, 30.0], dtype=torch.float64)
    expect_close(answer(far), [0.0, 30.0], "GELU(±30)")

    yield "the gate is that of a standard normal number"
    one = torch.ones(1, dtype=torch.float64)
    expect_close(answer(one), [0.5 * math.erfc(-math.sqrt(0.5))], "GELU(1) = Φ(1)", atol=1e-3)

    yield "it is the exact function, not an approximation"
    expect_close(answer(x), gelu(x), "GELU", atol=1e-12)


@checker("ex-activations-swish")
def swish_backward(answer):
    x, upstream, beta = _normal(3, 5), _normal(3, 5, seed=1), 1.7

    yield "returns two tensors, of the shapes of x and of beta"
    result = answer(x, beta, upstream)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise Wrong(f"expected a pair (dx, dbeta), got {type(result).__name__}")
    expect_shape(result[0], (3, 5), "dx")
    expect_shape(torch.as_tensor(result[1]), (), "dbeta")

    leaf = x.clone().requires_grad_()
    sharp = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    swish(leaf, sharp).backward(upstream)

    yield "dx is right for β = 1"
    plain = x.clone().requires_grad_()
    swish(plain).backward(upstream)
    expect_close(answer(x, 1.0, upstream)[0], plain.grad, "dx for β = 1")

    yield "dx is right for any β"
    expect_close(result[0], leaf.grad, "dx for β = 1.7")

    yield "dbeta is right"
    expect_close(torch.as_tensor(result[1]), sharp.grad, "dbeta")


@checker("ex-activations-dead")
def dead_units(answer):
    x, W = _normal(7, 3), _normal(3, 5, seed=1)
    b = torch.zeros(5, dtype=torch.float64)

    yield "is a boolean tensor, one entry a unit"
    result = answer(x, W, b)
    expect_shape(result, (5,), "the result")
    if result.dtype != torch.bool:
        raise Wrong(f"the result has dtype {result.dtype}, expected torch.bool")

    yield "the bias counts"
    low, high = torch.full((5,), -99.0).double(), torch.full((5,), 99.0).double()
    if torch.equal(answer(x, W, low), answer(x, W, high)):
        raise Wrong("biases of −99 and +99 make no difference, expected all dead and none")

    yield "True means dead"
    expect_close(answer(x, W, low), [True] * 5, "the dead units at a bias of −99")
    expect_close(answer(x, W, high), [False] * 5, "the dead units at a bias of +99")

    hidden = x @ W
    yield "a unit that opens for all examples but one is alive"
    b = -hidden.amin(0) - 1e-6
    expect_close(answer(x, W, b), [False] * 5, "the dead units")

    yield "a unit that opens for one example only is alive"
    b = -hidden.amax(0) - 1e-6  # all shut, but only just
    b[2] += 2e-6  # this one opens, once
    if answer(x, W, b)[2]:
        raise Wrong("unit 2 is positive for one example of 7, expected False: it learns from it")

    yield "a unit that is shut for all examples is dead"
    expect_close(answer(x, W, b), [True, True, False, True, True], "the dead units")

    yield "at exactly zero the slope is taken as zero"
    if not answer(torch.zeros(2, 3).double(), W, torch.zeros(5).double()).all():
        raise Wrong("a unit that is exactly 0 for all examples: got alive, expected dead")

    yield "agrees with autograd"
    b = _normal(5, seed=2) - 2.0
    weights = W.clone().requires_grad_()
    (relu(x @ weights + b) * _normal(7, 5, seed=3)).sum().backward()
    expect_close(answer(x, W, b), (weights.grad == 0).all(0), "the units without a gradient")


@checker("ex-activations-gate")
def gated(answer):
    x = 2 * _normal(11)

    def exact(mu, sigma):
        return x * torch.erfc(-(x - mu) / (sigma * math.sqrt(2))) / 2

    yield "is GELU for a standard normal number"
    expect_close(answer(x, 0.0, 1.0), gelu(x), "gated(x, 0, 1)", atol=1e-12)

    yield "the mean moves the gate, not the value"
    expect_close(answer(x, 1.5, 1.0), exact(1.5, 1.0), "gated(x, 1.5, 1)", atol=1e-12)

    yield "σ is a standard deviation, and makes the gate softer"
    expect_close(answer(x, 0.0, 3.0), exact(0.0, 3.0), "gated(x, 0, 3)", atol=1e-12)

    yield "both at once"
    expect_close(answer(x, -0.7, 0.4), exact(-0.7, 0.4), "gated(x, −0.7, 0.4)", atol=1e-12)


@checker("ex-activations-tail")
def tail_gelu(answer):
    yield "is GELU where nothing cancels"
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    expect_close(answer(x), gelu(x), "GELU on ±3", atol=1e-12)

    yield "large positive inputs pass"
    large = torch.tensor([9.0, 40.0, 1e4], dtype=torch.float64)
    expect_close(answer(large), large, "GELU of large inputs", atol=1e-9)

    yield "keeps its digits down to −30"
    tail = torch.linspace(-30, -3, 109, dtype=torch.float64)
    exact = torch.tensor(
        [v * math.erfc(-v / math.sqrt(2)) / 2 for v in tail.tolist()], dtype=torch.float64
    )
    expect_close(answer(tail) / exact, 1.0, "GELU ÷ its exact value", atol=1e-12)
