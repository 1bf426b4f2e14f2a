"""Checkers for the exercises of chapter 09_sliding_window."""

from __future__ import annotations

import torch

from lib.attention import scaled_dot_product_attention
from lib.sliding_window import count_pairs, window_mask
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape
from lib.teaching.measure import peak_bytes


@checker("ex-sliding_window-pairs")
def pairs(answer):
    yield "counts by hand"
    got = answer(5, 2)
    if got == 10:
        raise Wrong("pairs(5, 2) is 10 = n·w: a token meets itself too")
    if got == 15:
        raise Wrong("pairs(5, 2) is 15 = n(w + 1): the ends have fewer keys")
    expect_close(float(got), 13.0, "pairs(5, 2)")

    yield "takes away what is missing at both ends"
    for n, w in ((64, 8), (100, 64), (33, 2)):
        expect_close(float(answer(n, w)), float(count_pairs(n, w)), f"pairs({n}, {w})")

    yield "is n² where the window is wider than the text"
    for n, w in ((3, 8), (1, 2), (10, 40), (4, 6)):
        expect_close(float(answer(n, w)), float(n * n), f"pairs({n}, {w})")

    yield "agrees with the library"
    for n in range(1, 12):
        for w in range(2, 26, 2):
            expect_close(float(answer(n, w)), float(count_pairs(n, w)), f"pairs({n}, {w})")


@checker("ex-sliding_window-layers")
def layers_to_join(answer):
    yield "one layer reaches half a window"
    got = answer(4, 8)
    if got == 2:
        raise Wrong("layers_to_join(4, 8) is 2, expected 1: the fourth token is still inside")
    expect_close(float(got), 1.0, "layers_to_join(4, 8)")

    yield "two layers reach a whole one"
    got = answer(8, 8)
    if got == 1:
        raise Wrong("layers_to_join(8, 8) is 1, expected 2: only half of w is on each side")
    expect_close(float(got), 2.0, "layers_to_join(8, 8)")

    yield "one token further takes a layer more"
    got = answer(5, 8)
    if got == 1:
        raise Wrong("layers_to_join(5, 8) is 1, expected 2: round up")
    expect_close(float(got), 2.0, "layers_to_join(5, 8)")

    yield "a token joins itself without any layer"
    expect_close(float(answer(0, 8)), 0.0, "layers_to_join(0, 8)")

    yield "left is as far as right"
    expect_close(float(answer(-9, 8)), 3.0, "layers_to_join(-9, 8)")

    yield "the ends of 64 tokens, and others"
    cases = {(63, 8): 16, (64, 8): 16, (65, 8): 17, (1, 512): 1, (4095, 512): 16, (7, 2): 7}
    for (distance, w), want in cases.items():
        got = float(answer(distance, w))
        expect_close(got, float(want), f"layers_to_join({distance}, {w})")


@checker("ex-sliding_window-mask")
def paint(answer):
    yield "is boolean, of shape (n, n)"
    got = answer(7, 4, 1, [])
    expect_shape(got, (7, 7), "paint(7, 4, 1, [])")
    if got.dtype != torch.bool:
        raise Wrong(f"the dtype is {got.dtype}, expected torch.bool")

    yield "half of the window on each side, and the token itself"
    first, middle = got[0].nonzero().squeeze(1).tolist(), got[3].nonzero().squeeze(1).tolist()
    if middle != [1, 2, 3, 4, 5]:
        raise Wrong(f"query 3 meets keys {middle}, expected [1, 2, 3, 4, 5]")

    yield "does not go round"
    if first != [0, 1, 2]:
        raise Wrong(f"query 0 meets keys {first}, expected [0, 1, 2]")

    yield "dilation spreads the same number of keys"
    row = answer(15, 4, 3, [])[7].nonzero().squeeze(1).tolist()
    if row != [1, 4, 7, 10, 13]:
        raise Wrong(f"with dilation 3, query 7 of 15 meets {row}, expected [1, 4, 7, 10, 13]")

    yield "a global token meets all"
    got = answer(9, 2, 1, [6])
    if not bool(got[6].all()):
        raise Wrong("row 6 is not full")

    yield "all meet a global token"
    if not bool(got[:, 6].all()):
        raise Wrong("column 6 is not full")

    yield "agrees with the library"
    for n, w, dilation, tokens in (
        (9, 2, 1, [6]),
        (12, 6, 2, [0, 11]),
        (5, 20, 1, []),
        (8, 2, 9, [3]),
    ):
        chosen = torch.zeros(n, dtype=torch.bool)
        chosen[tokens] = True
        want = window_mask(n, w, dilation=dilation, global_mask=chosen)
        wrong = (answer(n, w, dilation, tokens) != want).nonzero()
        if wrong.numel():
            i, j = wrong[0].tolist()
            where = f"paint({n}, {w}, {dilation}, {tokens})"
            raise Wrong(f"{where} at query {i}, key {j}: expected {bool(want[i, j])}")


@checker("ex-sliding_window-reach")
def offsets(answer):
    yield "without a layer a token sees itself"
    got = set(answer([]))
    if got != {0}:
        raise Wrong(f"offsets([]) is {_short(got)}, expected {{0}}")

    yield "one layer is its window"
    got = set(answer([(4, 1)]))
    if got != {-2, -1, 0, 1, 2}:
        raise Wrong(f"offsets([(4, 1)]) is {_short(got)}, expected {{-2, …, 2}}")

    yield "a dilation leaves holes"
    got = set(answer([(4, 3)]))
    if got != {-6, -3, 0, 3, 6}:
        raise Wrong(f"offsets([(4, 3)]) is {_short(got)}, expected {{-6, -3, 0, 3, 6}}")

    yield "layers add up"
    got = set(answer([(4, 1), (4, 1), (2, 1)]))
    if got != set(range(-5, 6)):
        raise Wrong(f"offsets([(4, 1), (4, 1), (2, 1)]) is {_short(got)}, expected {{-5, …, 5}}")

    yield "holes stay, or are filled"
    for layers in ([(4, 3), (4, 3)], [(2, 1), (2, 3)], [(2, 1), (2, 4)], [(2, 2), (2, 3)]):
        want = {0}
        for w, dilation in layers:
            want = {a + dilation * b for a in want for b in range(-(w // 2), w // 2 + 1)}
        got = set(answer(layers))
        if got != want:
            raise Wrong(f"offsets({layers}) is {_short(got)}, expected {_short(want)}")


@checker("ex-sliding_window-attend")
def attend(answer):
    generator = torch.Generator().manual_seed(0)

    def draw(n: int, d: int, d_v: int) -> list[torch.Tensor]:
        sizes = (d, d, d_v)
        return [torch.randn(n, s, generator=generator, dtype=torch.float64) for s in sizes]

    yield "has the shape of the values"
    q, k, v = draw(13, 5, 3)
    expect_shape(answer(q, k, v, 4), (13, 3), "the result")

    yield "weights sum to one, at the ends too"
    ones = torch.ones(13, 3, dtype=torch.float64)
    expect_close(answer(q, k, ones, 4), ones, "the output for values of one", atol=1e-9)

    yield "the ends do not meet"
    moved = v.clone()
    moved[-1] += 100.0
    change = (answer(q, k, moved, 4) - answer(q, k, v, 4)).abs().amax(-1) > 1e-9
    if bool(change.all()):
        raise Wrong("another last token changes every output: there is no window")
    if bool(change[0]):
        raise Wrong("another last token changes the first output: the window goes round")

    yield "equals dense attention with the band"
    want = scaled_dot_product_attention(q, k, v, window_mask(13, 4))
    expect_close(answer(q, k, v, 4), want, "attend(q, k, v, 4)", atol=1e-9)

    yield "for every n and w"
    for n, w in ((1, 2), (3, 10), (16, 8), (29, 6)):
        q, k, v = draw(n, 4, 4)
        want = scaled_dot_product_attention(q, k, v, window_mask(n, w))
        expect_close(answer(q, k, v, w), want, f"n = {n}, w = {w}", atol=1e-9)

    yield "makes no tensor of n × n"
    q, k, v = draw(1024, 4, 4)
    peak, table = peak_bytes(answer, q, k, v, 8), 1024 * 1024
    if peak >= table:  # even of one byte each; gathered keys and values take .6 of that
        raise Wrong(f"its peak is {peak:,} bytes for n = 1024, expected less than n² = {table:,}")


def _short(numbers: set) -> str:
    listed = sorted(numbers)
    if len(listed) <= 7:
        return "{" + ", ".join(map(str, listed)) + "}"
    return f"{len(listed)} offsets from {listed[0]} to {listed[-1]}"
