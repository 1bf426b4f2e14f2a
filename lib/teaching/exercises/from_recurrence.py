"""Checkers for the exercises of chapter 01_from_recurrence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.teaching.exercises import Wrong, checker, expect, expect_close, expect_shape


def _randn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _states(x: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensor:
    h, states = torch.zeros(len(W), dtype=x.dtype), []
    for x_t in x:
        h = torch.tanh(W @ h + U @ x_t + b)
        states.append(h)
    return torch.stack(states)


@checker("ex-from_recurrence-rnn")
def recurrence(answer):
    W, U, b, x = (_randn(*s, seed=i) for i, s in enumerate([(5, 5), (5, 3), (5,), (7, 3)]))

    yield "has one state a word"
    got = answer(x, W, U, b)
    expect_shape(got, (7, 5), "recurrence of 7 words, d = 5")

    yield "the first state is tanh(U x + b)"
    expect_close(got[0], torch.tanh(U @ x[0] + b), "h_1")

    yield "each state comes from the one before"
    if torch.allclose(got, torch.tanh(x @ U.T + b)):
        raise Wrong("h_2 knows nothing of h_1, expected W h_1 inside the tanh")
    expect_close(got[1], torch.tanh(W @ got[0] + U @ x[1] + b), "h_2")

    yield "agrees with torch.nn.RNN"
    reference = torch.nn.RNN(3, 5, batch_first=True).double()
    with torch.no_grad():
        for name, value in (("hh", W), ("ih", U)):
            getattr(reference, f"weight_{name}_l0").copy_(value)
        reference.bias_hh_l0.copy_(b)
        reference.bias_ih_l0.zero_()
    expect_close(answer(x, W, U, b), reference(x[None])[0][0], "the states", atol=1e-12)


@checker("ex-from_recurrence-field")
def receptive_field(answer):
    yield "is one without layers"
    expect_close(answer(3, []), 1, "receptive_field(3, [])")

    yield "is the kernel with one layer"
    expect_close(answer(5, [1]), 5, "receptive_field(5, [1])")

    yield "grows by kernel − 1 a layer"
    expect_close(answer(3, [1, 1, 1, 1]), 9, "receptive_field(3, [1, 1, 1, 1])")

    yield "counts the dilation of every layer"
    for kernel, dilations in ((3, [1, 2, 4]), (2, [1, 2, 4, 8]), (4, [3, 1, 5]), (1, [7, 7])):
        reached = 0
        for dilation in dilations:
            reached += (kernel - 1) * dilation
        what = f"receptive_field({kernel}, {dilations})"
        expect_close(answer(kernel, dilations), 1 + reached, what)


@checker("ex-from_recurrence-product")
def gradient(answer):
    W, U, b, x = (_randn(*s, seed=i) for i, s in enumerate([(4, 4), (4, 3), (4,), (6, 3)], 5))
    W = W / 2
    states = _states(x, W, U, b)
    slopes = 1 - states**2

    yield "has shape (d, d)"
    got = answer(states[:2], W)
    expect_shape(got, (4, 4), "the gradient over one step")

    yield "one step is diag(1 − h²) W"
    want = slopes[1][:, None] * W
    for wrong, name in (
        (want.T, "its transpose"),
        (W * slopes[1], "W diag(1 − h²)"),
        (slopes[0][:, None] * W, "diag(1 − h_1²) W: the step into h_2 has h_2's slope"),
        (want @ (slopes[0][:, None] * W), "a step into h_1 too"),
        (W, "W alone"),
    ):
        if torch.allclose(got, wrong):
            raise Wrong(f"over one step: got {name}, expected diag(1 − h_2²) W")
    expect_close(got, want, "∂h_2/∂h_1")

    yield "the latest step stands leftmost"
    two = (slopes[2][:, None] * W) @ want
    expect_close(answer(states[:3], W), two, "∂h_3/∂h_1")

    yield "agrees with autograd"

    def last(h: Tensor) -> Tensor:
        for x_t in x[1:]:
            h = torch.tanh(W @ h + U @ x_t + b)
        return h

    J = torch.autograd.functional.jacobian(last, states[0])
    expect_close(answer(states, W), J, "∂h_6/∂h_1")

    yield "over no step it is the identity"
    expect_close(answer(states[:1], W), torch.eye(4).double(), "∂h_1/∂h_1")


@checker("ex-from_recurrence-lstm")
def lstm(answer):
    d = 4
    U, W, b, x, h, c = (
        _randn(*s, seed=i)
        for i, s in enumerate([(4 * d, 3), (4 * d, d), (4 * d,), (3,), (d,), (d,)], 20)
    )

    yield "returns a pair (h, c)"
    got = answer(x, h, c, U, W, b)
    expect(
        isinstance(got, tuple | list) and len(got) == 2,
        f"got {type(got).__name__}, expected the pair (h, c)",
    )
    expect_shape(got[0], (d,), "h")
    expect_shape(got[1], (d,), "c")

    def gates(i: float, f: float, g: float, o: float) -> tuple[Tensor, Tensor]:
        """One step in which the gates depend on nothing."""
        bias = torch.tensor([i, f, g, o], dtype=torch.float64).repeat_interleave(d)
        return answer(x, h, c, 0 * U, 0 * W, bias)

    yield "an open forget gate and a shut input gate keep the cell"
    expect_close(gates(-99, 99, 1, 0)[1], c, "c", atol=1e-9)

    yield "the cell is added to"
    want = c + math.tanh(0.5)
    expect_close(gates(99, 99, 0.5, 0)[1], want, "c with both gates open, g = tanh ½", atol=1e-9)

    yield "a shut output gate shows nothing"
    expect_close(gates(0, 0, 1, -99)[0], 0.0, "h", atol=1e-9)

    yield "what is shown is tanh of the new cell"
    shown, cell = gates(0.3, 0.2, 1, 99)
    if torch.allclose(shown, cell) and not torch.allclose(cell, cell.tanh()):
        raise Wrong("h is the cell itself, expected its tanh")
    expect_close(shown, cell.tanh(), "h with an open output gate", atol=1e-9)

    yield "agrees with torch.nn.LSTMCell"
    reference = torch.nn.LSTMCell(3, d).double()
    with torch.no_grad():
        reference.weight_ih.copy_(U)
        reference.weight_hh.copy_(W)
        reference.bias_ih.copy_(b)
        reference.bias_hh.zero_()
        want_h, want_c = reference(x[None], (h[None], c[None]))
    expect_close(got[1], want_c[0], "c", atol=1e-12)
    expect_close(got[0], want_h[0], "h", atol=1e-12)


@checker("ex-from_recurrence-half-life")
def forget_bias(answer):
    yield "one step: the gate is one half"
    expect_close(float(answer(1)), 0.0, "forget_bias(1)", atol=1e-9)

    yield "to remember longer takes a larger bias"
    if not float(answer(20)) > float(answer(5)):
        raise Wrong(f"forget_bias(20) = {float(answer(20)):.3g}, expected more than of 5 steps")

    yield "half is left after k steps"
    for k in (2, 5, 38.2, 1000):
        keep = 1 / (1 + math.exp(-float(answer(k))))
        expect_close(keep**k, 0.5, f"σ(forget_bias({k}))^{k}", atol=1e-6)


@checker("ex-from_recurrence-clip")
def clip(answer):
    g = [3 * _randn(2, 3, seed=40), 3 * _randn(5, seed=41)]
    whole = torch.cat([part.flatten() for part in g])

    yield "keeps number and shapes of the tensors"
    given = [part.clone() for part in g]
    got = answer(given, 1.0)
    expect(isinstance(got, list | tuple) and len(got) == 2, "expected a list of two tensors")
    for part, like in zip(got, g, strict=True):
        expect_shape(part, tuple(like.shape), "a clipped tensor")

    yield "leaves what it is given alone"
    for part, like in zip(given, g, strict=True):
        expect_close(part, like, "a tensor that was given", atol=0)

    yield "short gradients stay as they are"
    short = [part / whole.norm() / 2 for part in g]
    for part, like in zip(answer(list(short), 1.0), short, strict=True):
        expect_close(part, like, "a tensor within the limit", atol=1e-12)

    yield "the norm of all together is the limit"
    flat = torch.cat([part.flatten() for part in got])
    expect_close(float(flat.norm()), 1.0, "the norm after clipping to 1", atol=1e-6)

    yield "the direction is kept"
    expect_close(flat / flat.norm(), whole / whole.norm(), "the direction", atol=1e-6)

    yield "any limit"
    flat = torch.cat([part.flatten() for part in answer([p.clone() for p in g], 0.25)])
    expect_close(float(flat.norm()), 0.25, "the norm after clipping to ¼", atol=1e-6)

    yield "zeros stay zeros"
    expect_close(answer([torch.zeros(3)], 1.0)[0], 0.0, "a gradient of zeros")
