"""Checkers for the exercises of chapter 14_distillation."""

from __future__ import annotations

import torch

from lib.losses import distillation_loss
from lib.teaching.exercises import checker, expect_close, expect_shape


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)


@checker("ex-distillation-loss")
def soft_loss(answer):
    student, teacher = _normal(5, 7), _normal(5, 7, seed=1)

    yield "is one number"
    expect_shape(answer(student, teacher, 1.0), (), "the loss")

    yield "is zero for a perfect student"
    expect_close(answer(teacher, teacher, 2.0), 0.0, "the loss of a teacher against itself")

    yield "sums over classes and takes the mean over rows"
    want = distillation_loss(student, teacher, 1.0)
    expect_close(answer(student, teacher, 1.0), want, "the loss at T = 1")

    yield "carries the factor T²"
    want = distillation_loss(student, teacher, 3.0)
    expect_close(answer(student, teacher, 3.0), want, "the loss at T = 3")

    yield "survives logits in the thousands"
    large = 1000 * torch.eye(7, dtype=torch.float64)[:5]
    want = distillation_loss(student, large, 1.0)
    expect_close(answer(student, large, 1.0), want, "the loss of a certain teacher")


@checker("ex-distillation-gradient")
def soft_gradient(answer):
    student, teacher = _normal(5, 7), _normal(5, 7, seed=1)

    yield "keeps the shape"
    expect_shape(answer(student, teacher, 1.0), (5, 7), "the gradient")

    yield "is zero for a perfect student"
    expect_close(answer(teacher, teacher, 2.0), torch.zeros_like(teacher), "the gradient")

    yield "pushes up what the student gives too little"
    q, p = student.softmax(-1), teacher.softmax(-1)
    got = answer(student, teacher, 1.0)
    expect_close((got * (q - p) > 0).double().mean(), 1.0, "the share of right signs at T = 1")

    for T, what in ((1.0, "divides by the number of rows"), (4.0, "carries T² · 1/T = T")):
        yield what
        leaf = student.clone().requires_grad_()
        distillation_loss(leaf, teacher, T).backward()
        expect_close(answer(student, teacher, T), leaf.grad, f"the gradient at T = {T:g}")


@checker("ex-distillation-floor")
def floor(answer):
    teacher = _normal(5, 7)

    yield "is one number"
    expect_shape(answer(teacher, 1.0), (), "the floor")

    yield "is log N for a teacher that knows nothing"
    nothing = torch.zeros(3, 7, dtype=torch.float64)
    expect_close(answer(nothing, 2.0), torch.tensor(7.0).double().log(), "the floor")

    yield "is the mean over rows of the entropy"
    want = torch.special.entr(teacher.softmax(-1)).sum(-1).mean()
    expect_close(answer(teacher, 1.0), want, "the floor at T = 1")

    yield "follows the temperature, without T²"
    want = torch.special.entr((teacher / 3).softmax(-1)).sum(-1).mean()
    expect_close(answer(teacher, 3.0), want, "the floor at T = 3")


@checker("ex-distillation-limit")
def hot_loss(answer):
    student, teacher = _normal(5, 7), _normal(5, 7, seed=1)

    yield "is one number"
    expect_shape(answer(student, teacher), (), "the limit")

    yield "does not see a shift of a row's logits"
    shifts = _normal(5, 1, seed=2)
    got = answer(student + shifts, teacher)
    expect_close(got, answer(student, teacher), "the limit after adding a constant to each row")

    yield "is the squared norm over 2N, mean over rows"
    d = student - teacher
    d = d - d.mean(-1, keepdim=True)
    expect_close(answer(student, teacher), (d**2).sum(-1).mean() / 14, "the limit")

    yield "is where T² · KL goes"
    want = distillation_loss(student, teacher, 1e5)
    expect_close(answer(student, teacher), want, "the limit against T = 100,000", atol=1e-3)


@checker("ex-distillation-tokens")
def token_loss(answer):
    student, teacher = _normal(3, 5, 7), _normal(3, 5, 7, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    everything = torch.ones_like(mask)

    yield "is one number"
    expect_shape(answer(student, teacher, mask, 2.0), (), "the loss")

    yield "without padding it is the mean over all tokens"
    want = distillation_loss(student, teacher, 2.0)
    expect_close(answer(student, teacher, everything, 2.0), want, "the loss")

    yield "padding changes nothing"
    other = torch.where(mask[..., None] == 1, student, student + _normal(3, 5, 7, seed=2))
    got = answer(other, teacher, mask, 2.0)
    expect_close(got, answer(student, teacher, mask, 2.0), "the loss after changing the padding")

    yield "divides by the real tokens of the whole batch"
    want = distillation_loss(student, teacher, 2.0, mask=mask)
    expect_close(answer(student, teacher, mask, 2.0), want, "the loss")
