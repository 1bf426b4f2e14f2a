"""Exercises of 04_sinusoidal_encoding: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "04_sinusoidal_encoding"


def _encode(first=0, sign=-1, base=10000.0, double_exponent=False, concatenated=False):
    def encode(n, d):
        i = torch.arange(d // 2, dtype=torch.float64)
        power = (4 if double_exponent else 2) * i / d
        angle = (first + torch.arange(n, dtype=torch.float64))[:, None] * base ** (sign * power)
        parts = [angle.sin(), angle.cos()]
        return torch.cat(parts, -1) if concatenated else torch.stack(parts, -1).reshape(n, d)

    return encode


def _by_column(n, d):
    column = torch.arange(d, dtype=torch.float64)
    angle = torch.arange(n, dtype=torch.float64)[:, None] * 10000.0 ** (-column / d)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


def _sines(n, d):
    table = _encode()(n, d)
    table[:, 1::2] = table[:, 0::2]
    return table


def _shift(sign=1, frequency=None, size=1.0, flip=False, once=False):
    def shift_matrix(k, d):
        blocks = []
        for i in range(d // 2):
            angle = k * (10000.0 ** (-2 * i / d) if frequency is None else frequency)
            c, s = math.cos(angle), sign * math.sin(angle)
            if once:
                c, s = math.cos(abs(angle)), math.sin(abs(angle))
            block = [[c, s], [s, -c]] if flip else [[c, s], [-s, c]]
            blocks.append(size * torch.tensor(block, dtype=torch.float64))
        return torch.block_diag(*blocks)

    return shift_matrix


def _gram(reduce=torch.sum, wave=torch.cos, columns=False, squeeze=False):
    def gram(offsets, d):
        step = torch.arange(0, d, 1 if columns else 2, dtype=torch.float64)
        waves = wave(offsets.double()[..., None] * 10000.0 ** (-step / d))
        return reduce(waves.flatten(), 0)[None] if squeeze else reduce(waves, -1)

    return gram


def _one_way(offsets, d):
    return _gram()(offsets.clamp_min(0), d)


def _interleave(first=0, by_rows=False):
    def interleave(table):
        halves = list(table.chunk(2, -1))
        if by_rows:
            return torch.stack(halves, -2).reshape(table.shape)
        if first:
            halves.reverse()
        return torch.stack(halves, -1).flatten(-2)

    return interleave


def _other_way(table):
    return torch.cat([table[..., 0::2], table[..., 1::2]], -1)


def _fitted(d):
    """A map learned from 40 places, rounded as a network would: right there, and not a rotation."""
    from lib.positions import sinusoidal_encoding

    table = sinusoidal_encoding(40, d, dtype=torch.float64)
    ridge = 0.03 * torch.eye(d, dtype=torch.float64)
    return torch.linalg.solve(table.T @ table + ridge, table[:-1].T @ table[1:])


WRONG = {
    "ex-sinusoidal_encoding-table": {
        "concatenated": (_encode(concatenated=True), "all sines, then all cosines"),
        "counted from one": (_encode(first=1), "row 0: got 0.841"),
        "sines only": (_sines, "got 0 at index (1,), want 1"),
        "a frequency for each column": (_by_column, "sin 3 and cos 3 in row 3"),
        "growing": (_encode(sign=1), "later pairs turn more slowly: angles in row 1: got 2.69"),
        "twice the exponent": (_encode(double_exponent=True), "got 0.00215"),
        "transposed": (lambda n, d: _encode()(n, d).T, "got shape (6, 5)"),
    },
    "ex-sinusoidal_encoding-rotation": {
        "turned backwards": (_shift(sign=-1), "it turns the other way"),
        "one frequency": (_shift(frequency=1.0), "pair 1, seven positions later"),
        "degrees for radians": (_shift(frequency=math.pi / 180), "pair 0, seven positions later"),
        "a reflection": (_shift(flip=True), "got 0.999961 at index (15, 1), want -0.999961"),
        "not of length one": (_shift(size=2.0), "changes no length"),
        "no way back": (_shift(once=True), "PE(p + -3)"),
        "half of it": (lambda k, d: torch.eye(d // 2), "got shape (3, 3)"),
    },
    "ex-sinusoidal_encoding-gram": {
        "mean for sum": (_gram(reduce=torch.mean), "g(0) for d = 8: got 1, want 4"),
        "a frequency for each column": (_gram(columns=True), "g(0) for d = 8: got 8"),
        "sines": (_gram(wave=torch.sin), "g(0) for d = 8: got 0"),
        "one sided": (_one_way, "is even"),
        "summed over offsets too": (_gram(squeeze=True), "keeps the shape of the offsets"),
        "another base": (
            lambda o, d: (
                (o.double()[..., None] * 1000.0 ** (-torch.arange(0, d, 2) / d)).cos().sum(-1)
            ),
            "is the dot product of two rows",
        ),
    },
    "ex-sinusoidal_encoding-wavelength": {
        "without 2π": (lambda i, d, base=1e4: base ** (2 * i / d), "begins at 2π: wavelength"),
        "the frequency": (
            lambda i, d, base=1e4: math.tau * base ** (-2 * i / d),
            "from pair to pair: wavelength(1, 8) ÷ wavelength(0, 8): got 0.1",
        ),
        "counted by columns": (
            lambda i, d, base=1e4: math.tau * base ** (i / d),
            "got 3.16",
        ),
        "as in tensor2tensor": (
            lambda i, d, base=1e4: math.tau * base ** (i / (d / 2 - 1)),
            "got 21.5",
        ),
        "up to the very end": (
            lambda i, d, base=1e4: math.tau * base ** (1.0 if i == d / 2 - 1 else 2 * i / d),
            "ends below 10000 · 2π",
        ),
        "base ignored": (lambda i, d, base=1e4: math.tau * 1e4 ** (2 * i / d), "after which"),
    },
    "ex-sinusoidal_encoding-layout": {
        "unchanged": (lambda table: table, "got 1 at index (1,), want 3"),
        "the other way": (_other_way, "got 4 at index (2,), want 1"),
        "cosine first": (_interleave(first=1), "got 3 at index (0,), want 0"),
        "rows reversed": (lambda t: _interleave()(t).flip(-2), "got 6 at index (0,)"),
        "a copy of row 0": (
            lambda t: _interleave()(t)[..., :1, :].expand(t.shape),
            "rows stay where they are",
        ),
        "two dimensions only": (
            lambda t: torch.stack([t[:, : t.shape[1] // 2], t[:, t.shape[1] // 2 :]], 2).reshape(
                t.shape
            ),
            "works on leading dimensions",
        ),
    },
    "ex-sinusoidal_encoding-look-back": {
        "no rotation": (lambda d: torch.eye(d).double(), "looks at itself"),
        "turned forwards": (lambda d: _shift()(-1, d).T, "looks at the next"),
        "two steps": (lambda d: _shift()(2, d).T, "looks at two back"),
        "one frequency for all": (
            lambda d: _shift(frequency=1.0)(1, d).T,
            "query 7 looks at key 0, expected 6",
        ),
        "fitted to a few places": (_fitted, "the score depends on the offset alone"),
        "for one width": (
            lambda d: _shift()(1, d).T if d == 16 else torch.eye(d).double(),
            "for d = 4",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
