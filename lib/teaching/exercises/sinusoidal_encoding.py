"""Checkers for the exercises of chapter 04_sinusoidal_encoding."""

from __future__ import annotations

import math

import torch

from lib.positions import sinusoidal_encoding
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape


def _table(n: int, d: int, **options) -> torch.Tensor:
    return sinusoidal_encoding(n, d, dtype=torch.float64, **options)


@checker("ex-sinusoidal_encoding-table")
def encode(answer):
    yield "has shape (n, d)"
    got = answer(5, 6)
    expect_shape(got, (5, 6), "encode(5, 6)")
    got = got.double()

    yield "position 0 is sin 0, cos 0, sin 0, cos 0, …"
    if got[0].tolist() == [0, 0, 0, 1, 1, 1]:
        raise Wrong("row 0 has all sines, then all cosines, expected them in turn: interleave")
    expect_close(got[0], torch.tensor([0.0, 1, 0, 1, 0, 1]), "row 0", atol=1e-6)

    yield "the first pair turns by one radian a step"
    want = torch.tensor([math.sin(3), math.cos(3)])
    expect_close(got[3, :2], want, "sin 3 and cos 3 in row 3", atol=1e-5)

    yield "sine and cosine of a pair have one frequency"
    lengths = got.unflatten(-1, (-1, 2)).square().sum(-1)
    expect_close(lengths, 1.0, "sin² + cos² of a pair", atol=1e-5)

    yield "later pairs turn more slowly"
    turn = torch.atan2(got[1, 0::2], got[1, 1::2])
    expect_close(turn, 10000.0 ** (-torch.arange(0, 6, 2) / 6), "angles in row 1", atol=1e-5)

    yield "agrees with the library"
    for n, d in ((1, 2), (7, 4), (40, 10)):
        expect_close(answer(n, d), _table(n, d), f"encode({n}, {d})", atol=1e-4)


@checker("ex-sinusoidal_encoding-rotation")
def shift_matrix(answer):
    d = 6
    table = _table(40, d)

    yield "has shape (d, d)"
    got = answer(7, d)
    expect_shape(got, (d, d), "shift_matrix(7, 6)")
    got = got.double()

    yield "changes no length"
    expect_close(got.T @ got, torch.eye(d).double(), "T transposed times T", atol=1e-6)

    yield "turns forwards"
    back = (table[7:] @ got.T - table[:-7]).abs().max()
    if back < 1e-5:
        raise Wrong("T maps PE(p) to PE(p − 7), expected PE(p + 7): it turns the other way")

    yield "turns each pair by its own frequency"
    for pair in range(d // 2):
        here, there = table[:-7, 2 * pair : 2 * pair + 2], table[7:, 2 * pair : 2 * pair + 2]
        block = got[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2]
        expect_close(here @ block.T, there, f"pair {pair}, seven positions later", atol=1e-5)

    yield "moves every encoding on by k"
    for k in (0, 1, -3, 17):
        moved = _table(20, d, start=5) @ answer(k, d).double().T
        expect_close(moved, _table(20, d, start=5 + k), f"PE(p + {k})", atol=1e-5)


@checker("ex-sinusoidal_encoding-gram")
def gram(answer):
    yield "keeps the shape of the offsets"
    offsets = torch.arange(6).view(2, 3)
    expect_shape(answer(offsets, 8), (2, 3), "the result")

    yield "is d/2 at offset 0"
    expect_close(float(answer(torch.tensor([0]), 8)[0]), 4.0, "g(0) for d = 8", atol=1e-5)

    yield "is even"
    ahead, back = answer(torch.arange(1, 9), 8), answer(-torch.arange(1, 9), 8)
    expect_close(back, ahead, "g(−k) against g(k)", atol=1e-5)

    yield "is the dot product of two rows"
    for d in (2, 8, 14):
        table = _table(30, d)
        expect_close(answer(torch.arange(30), d), table @ table[0], f"g for d = {d}", atol=1e-4)


@checker("ex-sinusoidal_encoding-wavelength")
def wavelength(answer):
    yield "begins at 2π"
    expect_close(float(answer(0, 512)), 2 * math.pi, "wavelength(0, 512)", atol=1e-6)

    yield "grows by the factor 10000^(2/d) from pair to pair"
    ratio = float(answer(1, 8)) / float(answer(0, 8))
    expect_close(ratio, 10.0, "wavelength(1, 8) ÷ wavelength(0, 8)", atol=1e-6)

    yield "ends below 10000 · 2π"
    last = float(answer(255, 512)) / (2 * math.pi)
    expect_close(last, 10000 ** (1 - 2 / 512), "wavelength(255, 512) ÷ 2π", atol=1e-3)

    yield "is the number of positions after which the pair is back"
    for i, d, base in ((2, 6, 10000.0), (3, 10, 100.0)):
        want = 2 * math.pi * base ** (2 * i / d)
        expect_close(
            float(answer(i, d, base)) / want, 1.0, f"wavelength({i}, {d}, {base:g}) ÷ the right one"
        )


@checker("ex-sinusoidal_encoding-layout")
def interleave(answer):
    yield "keeps the shape"
    table = torch.arange(12.0).view(2, 6)
    expect_shape(answer(table), (2, 6), "the result")

    yield "pairs sine i with cosine i"
    want = torch.tensor([0.0, 3, 1, 4, 2, 5])
    expect_close(answer(table)[0], want, "columns 0 1 2 | 3 4 5 (sines | cosines), interleaved")

    yield "rows stay where they are"
    expect_close(answer(table)[1], want + 6, "row 1")

    yield "works on leading dimensions"
    batch = torch.randn(2, 3, 5, 8)
    expect_close(answer(batch)[1, 2], answer(batch[1, 2]), "a table inside a batch")

    yield "turns the library's one layout into the other"
    expect_close(answer(_table(9, 10, layout="concatenated")), _table(9, 10), "the table")


@checker("ex-sinusoidal_encoding-look-back")
def key_map(answer):
    d = 16

    yield "has shape (d, d)"
    W = answer(d)
    expect_shape(W, (d, d), "key_map(16)")
    W = W.double()

    def best(start: int) -> torch.Tensor:
        table = _table(40, d, start=start)
        return (table @ (table @ W).T).argmax(-1) - torch.arange(40)

    yield "every query but the first looks one back"
    found = best(0)[2:-2]
    for offset, where in ((0, "itself"), (1, "the next"), (-2, "two back")):
        if bool((found == offset).all()):
            raise Wrong(f"every query looks at {where}, expected one back")
    wrong = (found != -1).nonzero()
    if wrong.numel():
        i = int(wrong[0])
        raise Wrong(f"query {i + 2} looks at key {int(found[i]) + i + 2}, expected {i + 1}")

    yield "the score depends on the offset alone"
    table = _table(40, d)
    scores = table @ (table @ W).T
    expect_close(scores[1:, 1:], scores[:-1, :-1], "scores one position on", atol=1e-5)

    yield "it works at places far away"
    if not bool((best(5000)[1:] == -1).all()):
        raise Wrong("from position 5000 on some query looks elsewhere, expected one back")

    yield "it works for every even d"
    for other in (4, 10, 64):
        table = _table(30, other)
        found = (table @ (table @ answer(other).double()).T).argmax(-1)[1:]
        if not torch.equal(found, torch.arange(29)):
            raise Wrong(f"for d = {other} some query looks elsewhere, expected one back")
