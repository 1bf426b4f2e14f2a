"""Exercises of 01_from_recurrence: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "01_from_recurrence"


def _rnn(squash=torch.tanh, carry=True, swapped=False, bias=True, first=None, last=False):
    def recurrence(x, W, U, b):
        h = torch.zeros(len(W)).double() if first is None else first + torch.zeros(len(W)).double()
        states = []
        for x_t in x:
            inside = (W.T if swapped else W) @ h + U @ x_t + (b if bias else 0)
            states.append(squash(inside))
            h = states[-1] if carry else h
        return states[-1] if last else torch.stack(states)

    return recurrence


def _gradient(order="left", first=1, transpose=False, slope=True, columns=False, skip_last=False):
    def gradient(states, W):
        product = torch.eye(len(W)).double()
        for h in states[first : len(states) - skip_last]:
            factor = (1 - h**2) if slope else torch.ones_like(h)
            step = W * factor if columns else factor[:, None] * W
            product = step @ product if order == "left" else product @ step
        return product.T if transpose else product

    return gradient


def _earlier_slopes(states, W):
    return _gradient(first=0, skip_last=True)(states, W)


def _lstm(order="ifgo", add=True, shown=torch.tanh, swap=False, gate=torch.sigmoid, coupled=False):
    def lstm(x, h, c, U, W, b):
        parts = dict(zip(order, (U @ x + W @ h + b).chunk(4), strict=True))
        i, f, o = (gate(parts[name]) for name in "ifo")
        g = parts["g"].tanh()
        f = 1 - i if coupled else f
        c = f * c + i * g if add else f * c * i * g
        h = o * shown(c)
        return (c, h) if swap else (h, c)

    return lstm


def _clip(each=False, always=False, in_place=False, by_value=False, guarded=True):
    def clip(gradients, limit):
        if by_value:
            return [g.clamp(-limit, limit) for g in gradients]
        norms = [g.norm() for g in gradients]
        whole = torch.stack(norms).norm()
        found = []
        for g, norm in zip(gradients, norms, strict=True):
            size = norm if each else whole
            factor = limit / size if (always or size > limit) else 1.0
            found.append(g.mul_(factor) if in_place else g * factor)
        return found

    return clip


def _unguarded(gradients, limit):
    whole = torch.stack([g.norm() for g in gradients]).norm()
    return [g / whole * torch.clamp(whole, max=limit) for g in gradients]


WRONG = {
    "ex-from_recurrence-rnn": {
        "no tanh": (_rnn(squash=lambda z: z), "the first state is tanh(U x + b): h_1"),
        "no memory": (_rnn(carry=False), "h_2 knows nothing of h_1"),
        "W transposed": (_rnn(swapped=True), "each state comes from the one before: h_2: got"),
        "no bias": (_rnn(bias=False), "h_1: got -0.0472"),
        "begins with ones": (_rnn(first=1.0), "h_1: got -0.9"),
        "the last state only": (_rnn(last=True), "got shape (5,), want (7, 5)"),
        "forgets after two": (
            lambda x, W, U, b: torch.stack(
                [_rnn()(x[max(0, t - 1) : t + 1], W, U, b)[-1] for t in range(len(x))]
            ),
            "agrees with torch.nn.RNN",
        ),
    },
    "ex-from_recurrence-field": {
        "without its own": (lambda k, d: (k - 1) * sum(d), "got 0, want 1"),
        "kernel for kernel − 1": (lambda k, d: 1 + k * sum(d), "got 6, want 5"),
        "layers only": (lambda k, d: 1 + (k - 1) * len(d), "every layer: receptive_field(3"),
        "a power of the kernel": (lambda k, d: k ** len(d), "got 81, want 9"),
        "the largest only": (lambda k, d: 1 + (k - 1) * max(d, default=0), "got 3, want 9"),
        "doubling taken for granted": (
            lambda k, d: (
                1 + (k - 1) * (sum(d) if d == sorted(d) and len(set(d)) < 2 else 2 ** len(d) - 1)
            ),
            "receptive_field(4, [3, 1, 5])",
        ),
    },
    "ex-from_recurrence-product": {
        "the slope of h_1 too": (_gradient(first=0), "got a step into h_1 too"),
        "slopes of the state before": (_earlier_slopes, "the step into h_2 has h_2's slope"),
        "slopes on the wrong side": (_gradient(columns=True), "got W diag(1 − h²)"),
        "no slopes": (_gradient(slope=False), "got W alone"),
        "transposed": (_gradient(transpose=True), "got its transpose"),
        "order reversed": (_gradient(order="right"), "the latest step stands leftmost"),
        "two steps at most": (
            lambda states, W: _gradient()(states[:3], W),
            "agrees with autograd",
        ),
    },
    "ex-from_recurrence-lstm": {
        "gates in another order": (_lstm(order="figo"), "keep the cell: c"),
        "g and o exchanged": (_lstm(order="ifog"), "with both gates open, g = tanh ½"),
        "multiplied": (_lstm(add=False), "keep the cell: c: got 1.17935e-43"),
        "the cell shown as it is": (_lstm(shown=lambda c: c), "h is the cell itself"),
        "the pair exchanged": (_lstm(swap=True), "keep the cell: c: got 0.455"),
        "gates by tanh": (_lstm(gate=torch.tanh), "keep the cell"),
        "forget gate is 1 − i": (_lstm(coupled=True), "g = tanh ½"),
        "h alone": (lambda *a: _lstm()(*a)[0], "expected the pair"),
        "W left out": (
            lambda x, h, c, U, W, b: _lstm()(x, h, c, U, 0 * W, b),
            "agrees with torch.nn.LSTMCell",
        ),
    },
    "ex-from_recurrence-half-life": {
        "the gate, not the bias": (lambda k: 2 ** (-1 / k), "one step: the gate is one half"),
        "sign": (lambda k: math.log(2 ** (1 / k) - 1), "forget_bias(20) = -3.3"),
        "the logarithm of k": (lambda k: math.log(k), "σ(forget_bias(2))^2: got 0.444"),
        "linear": (lambda k: k - 1.0, "σ(forget_bias(2))^2: got 0.534"),
    },
    "ex-from_recurrence-clip": {
        "each tensor by itself": (_clip(each=True), "the norm of all together"),
        "always": (_clip(always=True), "short gradients stay as they are"),
        "in place": (_clip(in_place=True), "leaves what it is given alone"),
        "entry by entry": (_clip(by_value=True), "after clipping to 1: got 3.07"),
        "zero over zero": (_unguarded, "zeros stay zeros"),
        "limit ignored": (lambda g, limit: _clip()(g, 1.0), "any limit"),
        "one tensor lost": (lambda g, limit: _clip()(g, limit)[:1], "a list of two tensors"),
        "signs only": (
            lambda g, limit: (
                g
                if torch.stack([p.norm() for p in g]).norm() <= limit
                else [p.sign() * limit / math.sqrt(sum(q.numel() for q in g)) for p in g]
            ),
            "the direction is kept",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
