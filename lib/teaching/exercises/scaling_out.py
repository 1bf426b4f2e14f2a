"""Checkers for the exercises of chapter 22_scaling_out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lib.scaling import exposed_seconds
from lib.teaching.exercises import Wrong, checker, expect, expect_close, expect_shape


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


@checker("ex-scaling_out-parts")
def feed_forward_parts(answer):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    X, A, a, B, b = draw(5, 3), draw(3, 8), draw(8), draw(8, 7), draw(7)
    whole = F.gelu(X @ A + a) @ B + b

    yield "t results, each of the whole's shape"
    for t in (1, 2, 4):
        parts = answer(X, A, a, B, b, t)
        expect(len(parts) == t, f"t = {t}: got {len(parts)} results")
        for part in parts:
            expect_shape(part, (5, 7), f"a part, t = {t}")

    yield "without biases their sum is the layer"
    bare = F.gelu(X @ A) @ B
    none, nothing = torch.zeros_like(a), torch.zeros_like(b)
    for t in (1, 2, 4):
        expect_close(sum(answer(X, A, none, B, nothing, t)), bare, f"the sum of {t} parts")

    yield "the first bias is cut with the columns"
    for t in (1, 2):
        want = F.gelu(X @ A + a) @ B
        expect_close(sum(answer(X, A, a, B, nothing, t)), want, f"the sum of {t} parts")

    yield "the second bias is added once"
    for t in (1, 2, 4):
        got = sum(answer(X, A, a, B, b, t))
        if t > 1 and torch.allclose(got, whole + (t - 1) * b):
            raise Wrong(f"{t} parts add the bias {t} times: one of them should")
        if torch.allclose(got, whole - b):
            raise Wrong(f"{t} parts: the bias b is in none of them")
        expect_close(got, whole, f"the sum of {t} parts")

    yield "a part uses its own t-th alone"
    changed = A.clone()
    changed[:, 4:] += 1  # the second half's columns
    before, after = answer(X, A, a, B, b, 2), answer(X, changed, a, B, b, 2)
    same = [bool(torch.equal(x, y)) for x, y in zip(before, after, strict=True)]
    expect(sum(same) == 1, f"half of A's columns changed: {2 - sum(same)} of 2 parts did, want 1")


@checker("ex-scaling_out-wire")
def last_arrival(answer):
    yield "one bucket is computed, then sent"
    expect_close(float(answer([2.0], [3.0])), 5.0, "last_arrival([2], [3])")

    yield "a fast wire shows the last bucket only"
    got = float(answer([1.0] * 5, [0.25] * 5))
    if got == 6.25:
        raise Wrong("all five are sent after all five are computed: they may leave before")
    expect_close(got, 5.25, "five buckets of 1 s, sent in 0.25 s")

    yield "a slow wire is what is waited for"
    got = float(answer([1.0] * 5, [2.0] * 5))
    if got == 7.0:
        raise Wrong("five buckets of 2 s arrive at 7 s: several were on the one wire at once")
    expect_close(got, 11.0, "five buckets of 1 s, sent in 2 s")

    yield "equal buckets follow the formula"
    for send in (0.5, 1.0, 3.0):
        want = 7 + exposed_seconds(7.0, 7 * send, 7)
        expect_close(float(answer([1.0] * 7, [send] * 7)), want, f"seven, sent in {send:g} s")

    yield "buckets may differ"
    expect_close(float(answer([1.0, 5.0, 1.0], [4.0, 1.0, 3.0])), 10.0, "a pause on the wire")
    expect_close(float(answer([3.0, 1.0, 1.0], [4.0, 1.0, 3.0])), 11.0, "a queue on the wire")


@checker("ex-scaling_out-copies")
def most_copies(answer):
    yield "a tenth of a token leaves one copy"
    got = answer(0.1, 1000.0, 0.01)
    if got == 0:
        raise Wrong("got no copy at all: one sends nothing, so it hides always")
    expect_close(float(got), 1.0, "most_copies(0.1, 1000, 0.01)")

    yield "so many hide, and one more does not"
    for tokens, flops, beta in (
        (1.003e6, 4e14, 2e-11),
        (4.0003e6, 4e14, 2e-12),
        (55.0, 100.0, 0.25),
    ):
        got = answer(tokens, flops, beta)
        expect(isinstance(got, int), f"got a {type(got).__name__}, want an int")
        what = f"most_copies({tokens:g}, {flops:g}, {beta:g})"
        for copies, hides in ((got, True), (got + 1, False)):
            enough = tokens / copies >= flops * beta * (copies - 1) / copies
            expect(enough == hides, f"{what}: {copies} copies {'do not ' * hides}hide, got {got}")

    yield "exactly enough is enough"
    expect_close(float(answer(50.0, 100.0, 0.25)), 3.0, "most_copies(50, 100, 0.25)")
