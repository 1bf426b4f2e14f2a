"""Checkers for the exercises of chapter 19_attention_is_not_explanation."""

from __future__ import annotations

import torch

from lib.interpret.attention import attention_rollout, kendall_tau
from lib.teaching.exercises import Wrong, checker, expect, expect_close, expect_shape


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@checker("ex-attention_is_not_explanation-rollout")
def rollout(answer):
    weights = _randn(3, 2, 5, 5).softmax(-1)

    yield "has shape (n, n)"
    got = answer(weights.clone())
    expect_shape(got, (5, 5), "the result")

    yield "rows stay probabilities"
    expect_close(got.sum(-1), 1.0, "the sum of each row", atol=1e-6)

    yield "a token keeps something of itself"
    away = torch.tensor([[[[0.0, 1], [1, 0]]]], dtype=torch.float64)
    expect_close(
        answer(away), torch.full((2, 2), 0.5), "one layer in which two tokens look at each other"
    )

    yield "the first layer acts first"
    first = torch.tensor([[1.0, 0], [1, 0]], dtype=torch.float64)
    second = torch.tensor([[0.0, 1], [0, 1]], dtype=torch.float64)
    two = torch.stack([first, second])[:, None]
    want = attention_rollout(two[:, None])[0]
    got = answer(two)
    other = attention_rollout(two.flip(0)[:, None])[0]
    if torch.allclose(got.double(), other):
        raise Wrong("the layers are multiplied in the reverse order, expected the first rightmost")
    expect_close(got, want, "two layers", atol=1e-6)

    yield "agrees with the library"
    for shape in ((1, 3, 4, 4), (4, 2, 6, 6)):
        some = _randn(*shape, seed=1).softmax(-1)
        want = attention_rollout(some[:, None])[0]
        expect_close(answer(some), want, f"weights {shape}", atol=1e-6)


@checker("ex-attention_is_not_explanation-freedom")
def freedom(answer):
    yield "counts the weights beyond d_v + 1"
    expect_close(float(answer(_randn(20, 6))), 13.0, "freedom of values (20, 6)")

    yield "is never negative"
    expect_close(float(answer(_randn(4, 6))), 0.0, "freedom of values (4, 6)")

    yield "one token beyond makes one dimension"
    found = [float(answer(_randn(n, 6))) for n in (7, 8)]
    expect_close(found, [0.0, 1.0], "freedom of values (7, 6) and (8, 6)")

    yield "values that depend on each other count once"
    values = _randn(12, 3)
    doubled = torch.cat([values, values @ _randn(3, 2, seed=1)], 1)
    expect_close(float(answer(doubled)), 8.0, "freedom of values (12, 5) of rank 3")

    yield "a column that is constant is no condition of its own"
    constant = torch.cat([_randn(9, 2), torch.ones(9, 1, dtype=torch.float64)], 1)
    expect_close(float(answer(constant)), 6.0, "freedom of values (9, 3), one column constant")


@checker("ex-attention_is_not_explanation-wall")
def to_the_wall(answer):
    weights = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    direction = torch.tensor([-1.0, 3.0, -2.0], dtype=torch.float64)

    yield "keeps the sum"
    got = answer(weights.clone(), direction.clone())
    expect_shape(got, (3,), "the result")
    expect_close(got.sum(), 1.0, "the sum", atol=1e-9)

    yield "no weight is below zero"
    expect(
        bool((got >= -1e-12).all()), f"got a weight of {got.min().item():.3g}, expected none < 0"
    )

    yield "goes as far as it can"
    expect_close(got.min(), 0.0, "the least weight", atol=1e-9)

    yield "stops at the first wall"
    want = torch.tensor([0.0, 0.9, 0.1], dtype=torch.float64)
    expect_close(got, want, "from .1 .6 .3 along −1 3 −2", atol=1e-9)

    yield "goes forwards, whatever the length of the direction"
    expect_close(answer(weights, 5 * direction), want, "along five times the direction", atol=1e-9)
    back = torch.tensor([0.3, 0.0, 0.7], dtype=torch.float64)
    expect_close(answer(weights, -direction), back, "along 1 −3 2", atol=1e-9)


@checker("ex-attention_is_not_explanation-felt")
def felt(answer):
    scores, values, slope = _randn(7), _randn(7, 3, seed=1), _randn(3, seed=2)
    weights = scores.softmax(-1)

    yield "has one number a score"
    got = answer(weights.clone(), values.clone(), slope.clone())
    expect_shape(got, (7,), "the result")

    yield "sums to zero, as scores may all be shifted"
    expect_close(got.sum(), 0.0, "the sum", atol=1e-9)

    yield "equal values leave nothing to feel"
    same = torch.ones(7, 3, dtype=torch.float64)
    expect_close(answer(weights, same, slope), 0.0, "with equal values", atol=1e-9)

    yield "agrees with autograd"
    scores.requires_grad_()
    f = scores.softmax(-1) @ values @ slope
    (want,) = torch.autograd.grad(f, scores)
    expect_close(got, want, "∂f/∂s", atol=1e-9)


@checker("ex-attention_is_not_explanation-tau")
def tau(answer):
    a = _randn(9)

    yield "is 1 for the same order and −1 for the reverse"
    expect_close(float(answer(a, a.exp())), 1.0, "τ(a, exp a)")
    expect_close(float(answer(a, -a)), -1.0, "τ(a, −a)")

    yield "one swap of neighbours costs one pair"
    b = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    swapped = torch.tensor([1.0, 3, 2, 4], dtype=torch.float64)
    expect_close(float(answer(b, swapped)), 2 / 3, "τ(1 2 3 4, 1 3 2 4)", atol=1e-9)

    yield "only the order counts"
    far = torch.tensor([1.0, 300, 2, 4e6], dtype=torch.float64)
    expect_close(float(answer(b, far)), 2 / 3, "τ(1 2 3 4, 1 300 2 4000000)", atol=1e-9)

    yield "agrees with the library"
    for seed in range(1, 4):
        other = _randn(9, seed=seed)
        expect_close(float(answer(a, other)), float(kendall_tau(a, other)), "τ of random lists")
