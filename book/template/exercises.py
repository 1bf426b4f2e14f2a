"""Checkers for the exercises of chapter NN_slug_here."""

import torch

from lib.slug_here import variance
from lib.teaching.exercises import checker, expect_close, expect_shape


@checker("ex-slug_here-scores")
def scores(answer):
    values = torch.tensor([[1.0, 2.0, 6.0], [9.0, 0.0, 3.0]], dtype=torch.float64)

    yield "keeps the shape"
    got = answer(values.clone())
    expect_shape(got, (2, 3), "the result")

    yield "the mean of each row is zero"
    expect_close(got.mean(-1), 0.0, "the mean of each row")

    yield "the variance of each row is one"
    expect_close(variance(got), 1.0, "the variance of each row")

    yield "larger values have larger scores"
    want = (values - values.mean(-1, keepdim=True)) / variance(values).sqrt()[:, None]
    expect_close(got, want, "the scores")
