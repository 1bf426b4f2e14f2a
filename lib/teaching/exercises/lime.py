"""Checkers for the exercises of chapter 18_lime."""

from __future__ import annotations

import torch

from lib.interpret.surrogate import weighted_least_squares
from lib.teaching.exercises import checker, expect, expect_close, expect_shape


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _coins(m: int, n: int, seed: int = 0) -> torch.Tensor:
    return _randn(m, n, seed=seed) > 0


@checker("ex-lime-kernel")
def kernel(answer):
    present = _coins(31, 7)
    present[0], present[1] = True, False

    yield "is one number a row"
    expect_shape(answer(present, 0.5), (31,), "the weights")

    yield "is 1 for the whole sentence"
    expect_close(answer(present, 0.5)[0], 1.0, "the weight of the whole sentence")

    yield "counts shares, and not words"
    twice = torch.cat([present, present], dim=1)
    expect_close(answer(twice, 0.5), answer(present, 0.5), "the weights of a text said twice")

    yield "squares both distance and width"
    for width in (0.3, 2.0):
        want = torch.exp(-((1 - present.double().mean(1)) ** 2) / width**2)
        expect_close(answer(present, width), want, f"the weights at σ = {width}", atol=1e-7)


@checker("ex-lime-fit")
def fit(answer):
    z, y, w = _randn(31, 5), _randn(31, seed=1), _randn(31, seed=2).square()

    yield "is the intercept and then the coefficients"
    expect_shape(answer(z, y, w), (6,), "the solution")

    yield "finds a linear function, intercept first"
    theta = _randn(6, seed=3)
    got = answer(z, theta[0] + z @ theta[1:], w)
    expect_close(got, theta, "the solution for a linear function")

    yield "a row of weight 2 is the same row twice"
    counts = 1.0 + torch.arange(31) % 2
    rows = torch.repeat_interleave(torch.arange(31), counts.long())
    twice = answer(z[rows], y[rows], torch.ones(len(rows), dtype=torch.float64))
    expect_close(answer(z, y, counts.double()), twice, "the solution with weights 1 and 2")

    yield "solves the normal equations"
    line = weighted_least_squares(z, y, w)
    want = torch.cat([torch.tensor([line.intercept], dtype=torch.float64), line.coefficients])
    expect_close(answer(z, y, w), want, "the solution")


@checker("ex-lime-r2")
def r_squared(answer):
    z, y, w = _randn(31, 5), 3 + _randn(31, seed=1), _randn(31, seed=2).square()
    line = weighted_least_squares(z, y, w)

    yield "is one number"
    expect_shape(torch.as_tensor(answer(y, line.predict(z), w)), (), "R²")

    yield "is 1 for a perfect fit"
    expect_close(answer(y, y, w), 1.0, "R² of a perfect fit")

    yield "is 0 for the weighted mean"
    mean = (w @ y / w.sum()).expand(31)
    expect_close(answer(y, mean, w), 0.0, "R² of the weighted mean")

    yield "does not see a shift of both"
    got = answer(y + 100, line.predict(z) + 100, w)
    expect_close(got, answer(y, line.predict(z), w), "R² after adding 100")

    yield "is lib's"
    expect_close(answer(y, line.predict(z), w), line.r2, "R² of a fitted line")


@checker("ex-lime-narrow")
def narrow(answer):
    def f(present):
        x = present.double()
        return 2 + x @ torch.arange(1.0, 6.0).double() - 3 * x[:, 0] * x[:, 1] * x[:, 4]

    yield "is one number a word"
    expect_shape(answer(f, 5), (5,), "the coefficients")

    yield "leaves one out of the whole, and does not add one to nothing"
    x = torch.tensor([-2.0, -1.0, 3.0, 4.0, 2.0], dtype=torch.float64)
    expect_close(answer(f, 5), x, "the coefficients")

    yield "asks f about booleans, True = present"
    asked = []
    answer(lambda present: asked.append(present) or f(present), 5)
    expect(
        all(isinstance(p, torch.Tensor) and p.dtype == torch.bool and p.ndim == 2 for p in asked),
        "what f is asked: expected boolean tensors (B, n)",
    )

    yield "needs n + 1 questions at most"
    count = sum(len(p) for p in asked)
    expect(count <= 6, f"f is asked {count} questions for 5 words, want 6 at most")


@checker("ex-lime-neighbours")
def neighbours(answer):
    yield "is a boolean for each question and word"
    found = answer(5, 4001, 0)
    expect_shape(found, (4001, 5), "the questions")
    expect(found.dtype == torch.bool, f"the questions: got {found.dtype}, want torch.bool")

    yield "begins with the whole sentence"
    expect(bool(found[0].all()), "question 0: some words are hidden, want none")

    yield "hides from 1 to n words, each number alike"
    hidden = (~found[1:]).sum(1)
    share = torch.bincount(hidden, minlength=6).double() / 4000
    want = torch.tensor([0.0, 0.2, 0.2, 0.2, 0.2, 0.2], dtype=torch.float64)
    expect_close(share, want, "the share of questions with 0, 1, … hidden words", atol=0.04)

    yield "hides each word alike"
    places = (~found[1:]).double().mean(0)
    expect_close(places, torch.full((5,), 0.6).double(), "how often each is hidden", atol=0.04)

    yield "the same seed gives the same questions, whatever was drawn before"
    torch.rand(7)
    expect(bool((answer(5, 4001, 0) == found).all()), "seed 0 again: got other questions")

    yield "another seed gives others"
    expect(bool((answer(5, 4001, 1) != found).any()), "seed 1: got the questions of seed 0")

    yield "leaves everybody else's random numbers alone"
    before = torch.get_rng_state()
    answer(5, 11, 0)
    expect(
        bool((torch.get_rng_state() == before).all()),
        "torch's global generator was moved or set; make one of your own",
    )
