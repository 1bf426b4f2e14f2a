"""Checkers for the exercises of chapter 22_scaling_out."""

from __future__ import annotations

import torch

from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape


@checker("ex-scaling_out-combine")
def combine(answer):
    sums = torch.tensor([[2.0, 4.0, -6.0], [9.0, 0.0, 3.0]], dtype=torch.float64)

    yield "has the shape of a gradient"
    counts = torch.tensor([2.0, 2.0], dtype=torch.float64)
    expect_shape(answer(sums, counts), (3,), "the result")

    yield "equal counts: the mean"
    expect_close(answer(sums, counts), sums.sum(0) / 4, "counts 2 and 2")

    yield "unequal counts: one division for all"
    counts = torch.tensor([1.0, 3.0], dtype=torch.float64)
    got = answer(sums, counts)
    if torch.allclose(got, (sums / counts[:, None]).mean(0)):
        raise Wrong("with counts 1 and 3 this is the mean of the means, expected sum over sum")
    expect_close(got, sums.sum(0) / 4, "counts 1 and 3")

    yield "a process may count nothing"
    sums, counts = sums * torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 3.0])
    expect_close(answer(sums, counts), sums[1] / 3, "counts 0 and 3")


@checker("ex-scaling_out-ring")
def link_bytes(answer):
    yield "one process sends nothing"
    expect_close(float(answer(1, 100)), 0.0, "link_bytes(1, 100)")

    yield "two processes send one copy"
    got = float(answer(2, 100))
    if got == 50.0:
        raise Wrong("half of it crosses: that is the reduce-scatter, expected the all-gather too")
    expect_close(got, 100.0, "link_bytes(2, 100)")

    yield "never as much as two copies"
    expect_close(float(answer(8, 100)), 175.0, "link_bytes(8, 100)")
    expect_close(float(answer(1000, 1.0)), 1.998, "link_bytes(1000, 1)")


@checker("ex-scaling_out-memory")
def memory(answer):
    yield "one process keeps 16 bytes a parameter at every stage"
    for stage in range(4):
        expect_close(float(answer(7, 1, stage)), 112.0, f"memory(7, 1, {stage})")

    yield "stage 0 parts nothing"
    expect_close(float(answer(7, 4, 0)), 112.0, "memory(7, 4, 0)")

    for stage, what, want in (
        (1, "the optimizer", 49.0),
        (2, "the gradients too", 38.5),
        (3, "the weights too", 28.0),
    ):
        yield f"stage {stage} parts {what}"
        expect_close(float(answer(7, 4, stage)), want, f"memory(7, 4, {stage})")


@checker("ex-scaling_out-bubble")
def parts_needed(answer):
    yield "one stage is never idle"
    expect_close(float(answer(1, 0.1)), 1.0, "parts_needed(1, 0.1)")

    yield "the share is kept"
    for p, idle, want in ((4, 0.25, 9), (2, 0.5, 1), (8, 0.125, 49)):
        got = answer(p, idle)
        if (p - 1) / (got + p - 1) > idle:
            raise Wrong(f"parts_needed({p}, {idle}): {got} parts idle more, expected {want}")
        expect_close(float(got), float(want), f"parts_needed({p}, {idle})")

    yield "rounds up"
    expect_close(float(answer(4, 0.3)), 7.0, "parts_needed(4, 0.3)")
    expect_close(float(answer(2, 0.9)), 1.0, "parts_needed(2, 0.9)")
