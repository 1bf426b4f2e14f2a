"""Checkers for the exercises of chapter 08_relative_positions."""

from __future__ import annotations

import math

import torch

from lib.positions import relative_position_bucket
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape


def _first(m: int, far: int) -> list[int]:
    """The smallest distance in each of the buckets e … m − 1, by counting."""
    exact, top = m // 2, 2 * far
    buckets = relative_position_bucket(-torch.arange(top), False, m, far)
    return [int((buckets >= b).int().argmax()) for b in range(exact, m)]


@checker("ex-relative_positions-fold")
def query_std(answer):
    yield "is T5's where keys are drawn with d^(−1/2)"
    got = float(answer(512, 64, 512**-0.5))
    want = (512 * 64) ** -0.5
    if math.isclose(got, want**2, rel_tol=1e-6):
        raise Wrong(f"got {got:.4g}, a variance, expected the standard deviation {want:.4g}")
    expect_close(got / want, 1.0, "query_std(512, 64, 512^(−1/2)) ÷ the right one", atol=1e-6)

    yield "larger keys need smaller queries"
    ratio = float(answer(32, 8, 0.5)) / float(answer(32, 8, 0.25))
    expect_close(ratio, 0.5, "the ratio, when the keys' deviation doubles", atol=1e-6)

    yield "makes the score's variance one"
    for d, width, std in ((24, 3, 0.7), (7, 5, 1.0), (100, 64, 0.02)):
        sigma = float(answer(d, width, std))
        variance = width * sigma**2 * std**2 * d**2
        expect_close(variance, 1.0, f"the variance for d = {d}, d_k = {width}", atol=1e-6)


@checker("ex-relative_positions-alibi")
def alibi(answer):
    yield "has shape (h, n, n)"
    got = answer(8, 5)
    expect_shape(got, (8, 5, 5), "alibi(8, 5)")
    got = got.double()

    yield "is 0 on the diagonal"
    expect_close(got.diagonal(dim1=1, dim2=2), 0.0, "the bias of a token for itself", atol=1e-6)

    yield "falls with the distance"
    if bool((got[:, 3, 0] > 0).any()):
        raise Wrong(f"three back counts {float(got[0, 3, 0]):g}, expected less than nothing")

    if bool((got[:, 3, 0] == 0).any()):
        raise Wrong("three back counts 0: expected i − j, query minus key")

    yield "begins with the slope 2^(−8/h)"
    expect_close(float(got[0, 1, 0]), -0.5, "head 0 of 8, one back", atol=1e-6)

    yield "has the slopes of the paper"
    want = -(0.5 ** torch.arange(1, 9).double())
    expect_close(got[:, 1, 0], want, "eight heads, one back", atol=1e-6)
    expect_close(answer(2, 3).double()[:, 2, 0], [-0.125, -0.0078125], "two heads, two back")

    yield "is 0 after the query"
    ahead = got[:, *torch.triu_indices(5, 5, 1)]
    expect_close(ahead, 0.0, "keys after the query", atol=1e-6)

    yield "works for one head and for many"
    for heads, n in ((1, 4), (16, 3)):
        distance = (torch.arange(n)[:, None] - torch.arange(n)).clamp(min=0).double()
        slope = 2.0 ** (-8.0 * torch.arange(1, heads + 1).double() / heads)
        expect_close(
            answer(heads, n), -slope[:, None, None] * distance, f"alibi({heads}, {n})", atol=1e-6
        )


@checker("ex-relative_positions-bucket")
def bucket(answer):
    def of(r, *sizes):
        got = answer(r, *sizes)
        if isinstance(got, float) and not got.is_integer():
            raise Wrong(f"offset {r}: got {got:.4g}, expected a whole number: round down")
        return int(got)

    yield "offset 0 is in bucket 0"
    expect_close(of(0), 0, "bucket(0)")

    yield "near keys before the query have buckets of their own"
    expect_close([of(-r) for r in range(1, 8)], list(range(1, 8)), "bucket(−1) … bucket(−7)")

    yield "keys after the query are in the second half"
    got = [of(r) for r in range(1, 8)]
    if got == list(range(1, 8)):
        raise Wrong("bucket(1) … bucket(7) are those of −1 … −7, expected 16 more")
    expect_close(got, list(range(17, 24)), "bucket(1) … bucket(7)")

    yield "far keys share"
    far = [-8, -11, -12, -15, -22, -23, -45, -46]
    expect_close([of(r) for r in far], [8, 8, 9, 9, 10, 11, 12, 13], "bucket of −8, −11, −12, …")

    yield "the last bucket begins at 91 and has no end"
    got = [of(r) for r in (-90, -91, -127, -128, -129, -10_000)]
    if max(got) > 15:
        raise Wrong(f"an offset far before the query is in bucket {max(got)}, expected at most 15")
    expect_close(got, [14, 15, 15, 15, 15, 15], "bucket of −90, −91, −127, −128, −129, −10000")

    yield "edges that are whole numbers are met"
    expect_close([of(-r) for r in (16, 32, 64)], [10, 12, 14], "bucket of −16, −32, −64")
    expect_close([of(-15, 18, 128), of(-16, 18, 128)], [5, 6], "18 buckets: −15, −16", atol=1e-9)

    yield "agrees with the library at other sizes"
    for sizes in ((32, 128), (8, 8), (12, 50), (18, 128)):
        offsets = torch.arange(-300, 301, 7)
        want = relative_position_bucket(offsets, True, *sizes)
        expect_close([of(int(r), *sizes) for r in offsets], want, f"sizes {sizes}")


@checker("ex-relative_positions-edges")
def edges(answer):
    yield "gives one edge for each of the m − e wide buckets"
    got = list(answer(16, 128))
    if len(got) != 8:
        raise Wrong(f"edges(16, 128) has {len(got)} numbers, expected 8")

    yield "begins at e"
    expect_close(got[0], 8, "the first of edges(16, 128)")

    yield "ends at D/ρ, rounded up, and not at D"
    if got[-1] >= 128:
        raise Wrong(f"the last bucket begins at {got[-1]}, expected 91: before D")
    expect_close(got[-1], 91, "the last of edges(16, 128)")

    yield "are whole numbers, rounded up"
    expect_close(got, [8, 12, 16, 23, 32, 46, 64, 91], "edges(16, 128)")

    yield "are those of a decoder"
    expect_close(list(answer(32, 128)), _first(32, 128), "edges(32, 128)")

    yield "edges that are whole numbers are met"
    expect_close(list(answer(9, 128)), [4, 8, 16, 32, 64], "edges(9, 128)")
    for m, far in ((6, 3000), (14, 7 * 3**7), (10, 5 * 7**5)):
        expect_close(list(answer(m, far)), _first(m, far), f"edges({m}, {far})")


@checker("ex-relative_positions-reach")
def untrained(answer):
    yield "counts what a window of 32 leaves of T5's decoder"
    got = int(answer(32, 32, 128))
    if got == 22:
        raise Wrong("got 22, which is how many are trained, expected how many are not")
    expect_close(got, 10, "untrained(32, 32, 128)")

    yield "the longest distance in a window of n is n − 1"
    expect_close(int(answer(113, 32, 128)), 1, "untrained(113, 32, 128)")
    expect_close(int(answer(114, 32, 128)), 0, "untrained(114, 32, 128)")

    yield "one token reaches one bucket"
    expect_close(int(answer(1, 32, 128)), 31, "untrained(1, 32, 128)")

    yield "a long window reaches all"
    expect_close(int(answer(500, 16, 32)), 0, "untrained(500, 16, 32)")

    yield "counts buckets that no distance falls into"
    expect_close(int(answer(500, 32, 17)), _empty(500, 32, 17), "untrained(500, 32, 17)")


def _empty(n: int, m: int, far: int) -> int:
    return m - len(relative_position_bucket(-torch.arange(n), False, m, far).unique())


@checker("ex-relative_positions-bias")
def bias_matrix(answer):
    table = torch.arange(21.0).view(7, 3)

    def clipped(offsets):
        return offsets.clamp(-3, 3) + 3

    yield "has shape (h, n_q, n_k)"
    got = answer(table, clipped, 2, 5)
    expect_shape(got, (3, 2, 5), "bias_matrix of three heads, two queries, five keys")

    yield "the last query stands where the last key does"
    if float(got[0, -1, -1]) != 9.0:
        raise Wrong(
            f"the last query's bias for the last key is that of bucket "
            f"{float(got[0, -1, -1]) / 3:g}, expected bucket 3: offset 0"
        )

    yield "the offset is key minus query"
    if torch.equal(answer(table, clipped, 4, 4), answer(table, clipped, 4, 4).mT):
        raise Wrong("keys before and after the query have one bias, expected their own")
    expect_close(got[0, -1], [0.0, 0, 3, 6, 9], "head 0, the last query")

    yield "each head has its own column"
    expect_close(got[:, 0, 0], [0.0, 1, 2], "the biases of three heads for one pair")

    yield "one query is the last row of all"
    full = answer(table, clipped, 6, 6)
    for n in (1, 3):
        expect_close(answer(table, clipped, n, 6), full[:, -n:], f"{n} queries of 6")
