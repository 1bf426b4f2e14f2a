"""Checkers for the exercises of chapter 15_pruning_and_quantization."""

from __future__ import annotations

import math

import torch

from lib.teaching.exercises import Wrong, checker, expect, expect_close, expect_shape


def _randn(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@checker("ex-pruning_and_quantization-nearest")
def nearest_sparse(answer):
    W = _randn(5, 7, seed=0)
    given = W.clone()

    yield "keeps the shape"
    got = answer(W, 11)
    expect_shape(got, (5, 7), "nearest_sparse(W, 11)")

    yield "leaves W as it is"
    expect_close(W, given, "W after the call")

    yield "keeps k entries"
    kept = got != 0
    expect(int(kept.sum()) == 11, f"{int(kept.sum())} entries are not 0, expected 11")

    yield "what stays is unchanged"
    expect_close(got[kept], given[kept], "the entries that are not 0")

    yield "keeps the largest magnitudes"
    smallest, largest = given[kept].abs().min(), given[~kept].abs().max()
    if smallest < largest:
        raise Wrong(
            f"an entry of magnitude {smallest:.3g} stays and one of {largest:.3g} goes, "
            "expected the other way"
        )

    yield "keeps no more than k among equals"
    count = int((answer(torch.ones(4, 3), 5) != 0).sum())
    expect(count == 5, f"of twelve equal entries {count} stay, expected 5")

    yield "works from none to all"
    expect_close(answer(given.clone(), 0), torch.zeros(5, 7).double(), "nearest_sparse(W, 0)")
    expect_close(answer(given.clone(), 35), given, "nearest_sparse(W, 35)")

    yield "works in any number of dimensions"
    expect_shape(answer(_randn(2, 3, 5, seed=1), 4), (2, 3, 5), "the result for (2, 3, 5)")


@checker("ex-pruning_and_quantization-output")
def first_to_go(answer):
    def expect_index(w, Sigma, want: int, what: str) -> None:
        got = int(answer(torch.tensor(w).double(), torch.as_tensor(Sigma).double()))
        expect(got == want, f"{what}: got index {got}, expected {want}")

    yield "with inputs alike and apart, the smallest magnitude goes"
    expect_index([2.0, -3.0, 0.5, 4.0], torch.eye(4), 2, "weights 2, −3, .5, 4")
    expect_index([2.0, -3.0, 0.5, -0.1], torch.eye(4), 3, "weights 2, −3, .5, −.1")

    yield "with inputs apart, weight times size of the input decides"
    sizes = torch.tensor([0.01, 4.0, 1.0])
    expect_index([3.0, 1.0, 1.5], torch.diag(sizes), 0, "second moments .01, 4, 1")

    yield "an input that another can stand in for is cheap"
    twins = torch.tensor([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 1.0]])
    expect_index([2.0, 3.0, 1.0], twins, 0, "two inputs almost alike")

    yield "agrees with trying each"
    for seed in range(8):
        mix, w = _randn(6, 6, seed=seed), _randn(6, seed=100 + seed)
        Sigma = mix @ mix.T + 0.05 * torch.eye(6).double()
        costs = []
        for j in range(6):
            S = [i for i in range(6) if i != j]
            rest = Sigma[j, j] - Sigma[j, S] @ torch.linalg.solve(Sigma[S][:, S], Sigma[S, j])
            costs.append(w[j] ** 2 * rest)
        want = int(torch.stack(costs).argmin())
        got = int(answer(w, Sigma))
        expect(got == want, f"six inputs: got index {got}, expected {want}")


@checker("ex-pruning_and_quantization-affine")
def grid(answer):
    yield "returns a step and an integer"
    got = answer(-1.0, 2.5, 3)
    expect(
        isinstance(got, tuple) and len(got) == 2,
        f"got {type(got).__name__}, expected (step, zero)",
    )
    expect(isinstance(got[1], int), f"zero is a {type(got[1]).__name__}, expected an int")

    yield "the step covers the interval in 2^bits − 1 steps"
    expect_close(float(got[0]), 0.5, "the step for −1 … 2.5 and 3 bits")

    yield "integers are signed"
    expect(got[1] == -2, f"zero for −1 … 2.5 and 3 bits: got {got[1]}, expected -2")

    yield "both ends fit the grid"
    for lowest, highest, bits in ((-0.7, 2.1, 4), (-3.0, 0.2, 8), (-1.0, 1.3, 2)):
        step, zero = answer(lowest, highest, bits)
        expect_close(float(step), (highest - lowest) / (2**bits - 1), f"the step for {bits} bits")
        want = -(2 ** (bits - 1)) - round(lowest / step)
        expect(zero == want, f"zero for {lowest} … {highest}: got {zero}, expected {want}")

    yield "an interval on one side of 0 is widened to hold it"
    step, zero = answer(2.0, 6.0, 2)
    expect_close(float(step), 2.0, "the step for 2 … 6 and 2 bits")
    expect(zero == -2, f"zero for 2 … 6: got {zero}, expected -2")
    step, zero = answer(-6.0, -2.0, 2)
    expect_close(float(step), 2.0, "the step for −6 … −2 and 2 bits")
    expect(zero == 1, f"zero for −6 … −2: got {zero}, expected 1")


@checker("ex-pruning_and_quantization-bits")
def bits_needed(answer):
    def by_hand(decibels: float, reach: float) -> int:
        bits = 1
        while 10 * math.log10(3 * 4**bits / reach**2) < decibels:
            bits += 1
        return bits

    yield "uniform numbers: six decibels a bit"
    got = answer(48.0, math.sqrt(3))
    expect(got == 8, f"48 decibels, uniform: got {got}, expected 8")

    yield "rounds up"
    got = answer(48.2, math.sqrt(3))
    expect(got == 9, f"48.2 decibels, uniform: got {got}, expected 9")

    yield "a longer reach needs more"
    for reach in (4.0, 10.0):
        got, want = answer(40.0, reach), by_hand(40.0, reach)
        expect(got == want, f"40 decibels, reach {reach:g}: got {got}, expected {want}")

    yield "at least one"
    got = answer(0.5, 1.0)
    expect(got == 1, f"half a decibel: got {got}, expected 1")

    yield "agrees with counting up"
    for decibels in (11.0, 23.5, 60.0, 97.0):
        for reach in (1.8, 3.0, 7.5):
            got, want = answer(decibels, reach), by_hand(decibels, reach)
            expect(got == want, f"{decibels:g} decibels, reach {reach:g}: got {got}, want {want}")


@checker("ex-pruning_and_quantization-product")
def product(answer):
    def draw(N: int, n: int, m: int, seed: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)

        def integers(*shape: int) -> torch.Tensor:
            return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)

        return integers(N, n), integers(m, n), integers(), integers(m, 1)

    def exact(P, Q, z_x, z_w) -> torch.Tensor:
        return (P.double() - z_x.double()) @ (Q.double() - z_w.double()).T

    none = torch.zeros((), dtype=torch.int8)

    yield "has shape (N, m)"
    P, Q, z_x, z_w = draw(5, 7, 3, 0)
    expect_shape(answer(P, Q, z_x, z_w), (5, 3), "the result")

    yield "is an integer"
    got = answer(P, Q, z_x, z_w)
    expect(not got.is_floating_point(), f"got {got.dtype}, expected integers")

    yield "without zero points it is the plain product"
    got = answer(P, Q, none, torch.zeros_like(z_w))
    expect_close(got, exact(P, Q, none, torch.zeros_like(z_w)), "P Qᵀ")

    yield "the weights' zero point, one a row"
    expect_close(answer(P, Q, none, z_w), exact(P, Q, none, z_w), "with z_x = 0")

    yield "the inputs' zero point"
    zero = torch.zeros_like(z_w)
    expect_close(answer(P, Q, z_x, zero), exact(P, Q, z_x, zero), "with z_w = 0")

    yield "both at once"
    expect_close(answer(P, Q, z_x, z_w), exact(P, Q, z_x, z_w), "with both")

    yield "sums do not overflow"
    P, Q, z_x, z_w = draw(3, 600, 2, 1)
    P, Q = P.abs().clamp(100, 127), Q.abs().clamp(100, 127)
    expect_close(answer(P, Q, z_x, z_w), exact(P, Q, z_x, z_w), "600 features")
