"""Checkers for the exercises of chapter 06_transformer_block."""

from __future__ import annotations

import math

import torch

from lib.layers import EncoderLayer, LayerNorm
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape


def _tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64) + 2


def _torchs(x: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)


@checker("ex-transformer_block-layer-norm")
def normalise(answer):
    x = _tokens(2, 5, 7)
    ones, zeros = torch.ones(7).double(), torch.zeros(7).double()

    yield "keeps the shape"
    got = answer(x.clone(), ones, zeros, 0.0)
    expect_shape(got, (2, 5, 7), "the result")

    yield "every token has mean zero over its features"
    expect_close(got.mean(-1), 0.0, "the mean of a token", atol=1e-6)

    yield "every token has variance one, divided by d"
    expect_close(got.square().mean(-1), 1.0, "the mean square of a token", atol=1e-6)

    yield "ε is added under the root"
    small = 0.01 * x
    expect_close(answer(small, ones, zeros, 1e-2), _torchs(small, 1e-2), "small tokens", atol=1e-6)

    yield "scales, then shifts"
    weight, bias = _tokens(7, seed=1), _tokens(7, seed=2)
    want = weight * _torchs(x, 1e-5) + bias
    expect_close(answer(x.clone(), weight, bias, 1e-5), want, "with γ and β", atol=1e-6)

    yield "works on a single token, and leaves its input alone"
    token = x[0, 0].clone()
    want = LayerNorm(7).double()(token)
    expect_close(answer(token, ones, zeros, 1e-5), want, "one token", atol=1e-6)
    expect_close(token, x[0, 0], "the input afterwards")


@checker("ex-transformer_block-jacobian")
def layer_norm_jacobian(answer):
    x = _tokens(7)

    yield "has shape (d, d)"
    got = answer(x.clone(), 0.0)
    expect_shape(got, (7, 7), "the result")

    yield "a shift of the token changes nothing"
    expect_close(got.sum(-1), 0.0, "J times the ones", atol=1e-6)

    yield "a longer token changes nothing"
    hat = _torchs(x, 0.0)
    expect_close(got.double() @ hat, 0.0, "J times the normalised token", atol=1e-6)

    yield "shrinks as the token grows"
    expect_close(answer(10 * x, 0.0) * 10, got, "10 J(10 x) against J(x)", atol=1e-6)

    yield "equals autograd's"
    for eps in (0.0, 1e-5, 2.0):
        want = torch.autograd.functional.jacobian(lambda z, eps=eps: _torchs(z, eps), x)
        expect_close(answer(x.clone(), eps), want, f"J for ε = {eps:g}", atol=1e-6)


@checker("ex-transformer_block-backward")
def backward(answer):
    x, g = _tokens(2, 3, 5), _tokens(2, 3, 5, seed=1)

    yield "keeps the shape"
    got = answer(g.clone(), x.clone(), 0.0)
    expect_shape(got, (2, 3, 5), "the result")

    yield "is orthogonal to the ones"
    expect_close(got.sum(-1), 0.0, "the sum over a token's features", atol=1e-6)

    yield "is orthogonal to the token"
    expect_close((got * x).sum(-1), 0.0, "the dot product with the token", atol=1e-5)

    yield "equals autograd's"
    for eps in (0.0, 1e-5, 2.0):
        leaf = x.clone().requires_grad_()
        (want,) = torch.autograd.grad(_torchs(leaf, eps), leaf, g)
        expect_close(
            answer(g.clone(), x.clone(), eps), want, f"gradient for ε = {eps:g}", atol=1e-6
        )


@checker("ex-transformer_block-count")
def parameters(answer):
    yield "with no block, the norm at the end is left"
    expect_close(float(answer(7, 20, 0)), 14.0, "parameters(7, 20, 0)")

    yield "every block has as many"
    for d, d_ff in ((8, 20), (12, 48)):
        block = EncoderLayer(d, 2, d_ff)
        want = sum(p.numel() for p in block.parameters())
        got = float(answer(d, d_ff, 3)) - float(answer(d, d_ff, 2))
        if got != want:
            biases = 4 * d + d_ff + d
            where = {
                want - biases: "; those are the matrices and norms, without biases",
                want - 4 * d: "; the norms are missing",
                want - 2 * d: "; one of two norms is missing",
            }.get(got, "")
            raise Wrong(f"a block with d = {d}, d_ff = {d_ff}: got {got:g}, want {want}{where}")

    yield "a stack is the sum of its blocks and the last norm"
    expect_close(float(answer(8, 32, 5)), 5 * (12 * 64 + 13 * 8) + 16.0, "parameters(8, 32, 5)")


@checker("ex-transformer_block-order")
def apply_block(answer):
    def first(x):
        return 2 * x.roll(1, -1)

    def second(x):
        return x.square()

    norms = [lambda x: _torchs(x, 1e-5), lambda x: 3 * _torchs(x, 1e-5)]
    x = _tokens(2, 5)

    yield "keeps the shape"
    expect_shape(answer(x.clone(), [first, second], norms, "post"), (2, 5), "the result")

    yield "with no sublayer x stays"
    for order in ("post", "pre"):
        expect_close(answer(x.clone(), [], [], order), x, f"order {order!r}")

    yield "post: the norm of the sum"
    one = norms[0](x + first(x))
    expect_close(answer(x.clone(), [first], norms[:1], "post"), one, "one sublayer", atol=1e-6)

    yield "pre: the sum is not normalised"
    free = x + first(norms[0](x))
    expect_close(answer(x.clone(), [first], norms[:1], "pre"), free, "one sublayer", atol=1e-6)

    yield "each sublayer works on what the one before has left, with a norm of its own"
    want = norms[1](one + second(one))
    expect_close(answer(x.clone(), [first, second], norms, "post"), want, "post", atol=1e-6)
    want = free + second(norms[1](free))
    expect_close(answer(x.clone(), [first, second], norms, "pre"), want, "pre", atol=1e-6)


@checker("ex-transformer_block-dropout")
def drop(answer):
    x, p = torch.full((200, 500), 2.0, dtype=torch.float64), 0.3
    error = 5 * math.sqrt(p * (1 - p) / x.numel())

    yield "keeps the shape"
    expect_shape(answer(x.clone(), p, True), (200, 500), "the result")

    yield "does nothing in evaluation"
    expect_close(answer(x.clone(), p, False), x, "drop(x, p, False)")

    yield "drops a share p in training"
    got = answer(x.clone(), p, True)
    share = float((got == 0).double().mean())
    expect_close(share, p, "the share of zeros for p = .3", atol=error)

    yield "keeps the mean"
    expect_close(float(got.mean()), 2.0, "the mean of what was 2", atol=2 * error / (1 - p))

    yield "draws for every number by itself"
    rows = (got == 0).double().mean(-1)
    columns = (got == 0).double().mean(0)
    expect_close(rows, p, "the share of zeros in each row", atol=0.15)
    expect_close(columns, p, "the share of zeros in each column", atol=0.25)

    yield "draws anew in every call"
    if torch.equal(answer(x.clone(), p, True), got):
        raise Wrong("two calls drop the same numbers, expected others")

    yield "with p = 0 nothing is lost"
    expect_close(answer(x.clone(), 0.0, True), x, "drop(x, 0, True)")
