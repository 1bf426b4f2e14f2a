"""Exercises of 15_pruning_and_quantization: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "15_pruning_and_quantization"


def _nearest(W, k):
    V = torch.zeros_like(W)
    places = W.abs().flatten().topk(k).indices
    V.view(-1)[places] = W.flatten()[places]
    return V


def _largest(W, k):
    places = W.flatten().topk(k).indices
    V = torch.zeros_like(W)
    V.view(-1)[places] = W.flatten()[places]
    return V


def _threshold(W, k):
    if k == 0:
        return torch.zeros_like(W)
    return W * (W.abs() >= W.abs().flatten().topk(k).values.min())


def _in_place(W, k):
    gone = W.abs().flatten().topk(W.numel() - k, largest=False).indices
    W.view(-1)[gone] = 0.0
    return W


def _only_matrices(W, k):
    rows, columns = W.shape
    return _nearest(W.reshape(rows, columns), k)


def _refitted(w, Sigma):
    return int((w.square() / torch.linalg.inv(Sigma).diagonal()).argmin())


def _grid(lowest, highest, bits, *, steps=-1, signed=True, widen=True, whole=True, sign=1):
    if widen:
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    step = (highest - lowest) / (2**bits + steps)
    zero = (-(2 ** (bits - 1)) if signed else 0) - sign * lowest / step
    return step, round(zero) if whole else zero


def _bits(decibels, reach, *, rounded=math.ceil, least=1):
    filled = 10 * math.log10(3 / reach**2)
    return max(least, rounded((decibels - filled) / (20 * math.log10(2))))


def _product(P, Q, z_x, z_w, *, signs=(-1, -1, 1), small=False, first=False):
    kind = torch.int8 if small else torch.int32
    z_x, z_w = z_x.int(), z_w.int().T
    rows = P.sum(-1, keepdim=True, dtype=kind).int()
    columns = Q.sum(-1, dtype=kind).int()
    if first:
        z_w = z_w[:, :1]
    a, b, c = signs
    rest = a * z_w * rows + b * z_x * columns + c * P.shape[1] * z_x * z_w
    return torch._int_mm(P, Q.T) + rest


WRONG = {
    "ex-pruning_and_quantization-nearest": {
        "signed": (_largest, "keeps the largest magnitudes: an entry of magnitude"),
        "a threshold": (_threshold, "of twelve equal entries 12 stay"),
        "in place": (_in_place, "leaves W as it is"),
        "k go": (lambda W, k: _nearest(W, W.numel() - k), "24 entries are not 0, expected 11"),
        "ones": (lambda W, k: (_nearest(W, k) != 0).double(), "what stays is unchanged"),
        "matrices only": (_only_matrices, "works in any number of dimensions"),
        "flat": (lambda W, k: _nearest(W, k).flatten(), "got shape (35,)"),
    },
    "ex-pruning_and_quantization-output": {
        "signed": (lambda w, S: int(w.argmin()), "weights 2, −3, .5, 4: got index 1"),
        "the largest": (lambda w, S: int(w.abs().argmax()), "weights 2, −3, .5, 4: got index 3"),
        "magnitude": (lambda w, S: int(w.abs().argmin()), "second moments .01, 4, 1"),
        "without refitting": (
            lambda w, S: int((w.square() * S.diagonal()).argmin()),
            "two inputs almost alike: got index 2",
        ),
        "not squared": (
            lambda w, S: int((w.abs() / torch.linalg.inv(S).diagonal()).argmin()),
            "agrees with trying each",
        ),
    },
    "ex-pruning_and_quantization-affine": {
        "2^b steps": (lambda a, b, n: _grid(a, b, n, steps=0), "got 0.4375"),
        "unsigned": (lambda a, b, n: _grid(a, b, n, signed=False), "got 2, expected -2"),
        "not rounded": (lambda a, b, n: _grid(a, b, n, whole=False), "zero is a float"),
        "the other sign": (lambda a, b, n: _grid(a, b, n, sign=-1), "got -6, expected -2"),
        "not widened": (
            lambda a, b, n: _grid(a, b, n, widen=False),
            "widened to hold it: the step for 2 … 6 and 2 bits: got 1.33",
        ),
        "symmetric": (
            lambda a, b, n: (max(-a, b) / (2 ** (n - 1) - 1), 0),
            "the step for −1 … 2.5 and 3 bits: got 0.833",
        ),
        "step alone": (lambda a, b, n: _grid(a, b, n)[0], "got float, expected (step, zero)"),
    },
    "ex-pruning_and_quantization-bits": {
        "rounded down": (lambda d, r: _bits(d, r, rounded=math.floor), "got 7, expected 8"),
        "rounded": (lambda d, r: _bits(d, r, rounded=round), "rounds up: 48.2 decibels"),
        "reach ignored": (lambda d, r: _bits(d, math.sqrt(3)), "40 decibels, reach 4: got 7"),
        "none will do": (lambda d, r: _bits(d, r, least=0), "half a decibel: got 0"),
        "ten for twenty": (
            lambda d, r: max(1, math.ceil((d - 10 * math.log10(3 / r**2)) / 3.0103)),
            "48 decibels, uniform: got 16",
        ),
    },
    "ex-pruning_and_quantization-product": {
        "zero points ignored": (
            lambda P, Q, x, w: torch._int_mm(P, Q.T),
            "the weights' zero point, one a row",
        ),
        "the last term forgotten": (
            lambda *given: _product(*given, signs=(-1, -1, 0)),
            "both at once",
        ),
        "its sign": (lambda *given: _product(*given, signs=(-1, -1, -1)), "both at once"),
        "rows added": (lambda *given: _product(*given, signs=(1, -1, 1)), "with z_x = 0"),
        "columns added": (lambda *given: _product(*given, signs=(-1, 1, 1)), "with z_w = 0"),
        "sums in a byte": (lambda *given: _product(*given, small=True), "with z_x = 0"),
        "one zero point for all rows": (
            lambda *given: _product(*given, first=True),
            "one a row",
        ),
        "floats": (lambda *given: _product(*given).double(), "got torch.float64"),
        "transposed": (lambda *given: _product(*given).T, "got shape (3, 5)"),
        "a product in sixteen bits": (
            lambda P, Q, x, w: (P.short() - x.short()) @ (Q.short() - w.short()).T,
            "P Qᵀ",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
