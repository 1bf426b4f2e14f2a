"""Checkers for the exercises of chapter 02_attention."""

from __future__ import annotations

import math

import torch

from lib.attention import causal_mask, scaled_dot_product_attention
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@checker("ex-attention-softmax")
def softmax(answer):
    scores = _normal(2, 3, 5)

    yield "keeps the shape"
    expect_shape(answer(scores), (2, 3, 5), "the result")

    yield "each row sums to one"
    expect_close(answer(scores).sum(-1), 1.0, "the sum along the last dimension")

    yield "weights grow with their scores"
    expect_close(answer(scores), scores.softmax(-1), "the softmax of a row")

    yield "survives scores in the thousands"
    large = torch.tensor([[3000.0, 2999.0, 0.0, -3000.0]], dtype=torch.float64)
    if not torch.isfinite(answer(large)).all():
        raise Wrong("the result holds nan or inf, expected finite weights: exp overflowed")
    expect_close(answer(large), large.softmax(-1), "the softmax of large scores")

    yield "each row has its own maximum"
    apart = torch.tensor([[-5000.0, -5001.0], [5000.0, 5001.0]], dtype=torch.float64)
    if not torch.isfinite(answer(apart)).all():
        raise Wrong("two rows far apart give nan, expected finite weights in both")
    expect_close(answer(apart), apart.softmax(-1), "the softmax of two rows far apart")


@checker("ex-attention-jacobian")
def softmax_backward(answer):
    scores, upstream = _normal(3, 7), _normal(3, 7, seed=1)
    weights = scores.softmax(-1)

    yield "keeps the shape"
    expect_shape(answer(weights, upstream), (3, 7), "the result")

    yield "equal gradients cancel: J·1 = 0"
    same = torch.full_like(weights, 2.5)
    expect_close(answer(weights, same), torch.zeros_like(weights), "the result for dp = 2.5")

    yield "rows do not mix"
    expect_close(
        answer(weights[:1], upstream[:1]), answer(weights, upstream)[:1], "a row computed alone"
    )

    yield "agrees with autograd"
    leaf = scores.clone().requires_grad_()
    leaf.softmax(-1).backward(upstream)
    expect_close(answer(weights, upstream), leaf.grad, "the gradient at the scores")


@checker("ex-attention-causal")
def may_attend(answer):
    yield "is a boolean mask of shape (n_q, n_k)"
    mask = answer(2, 5)
    expect_shape(mask, (2, 5), "the mask")
    if mask.dtype != torch.bool:
        raise Wrong(f"the mask has dtype {mask.dtype}, expected torch.bool")

    yield "True means “may attend”"
    if not answer(4, 4)[-1, 0]:
        raise Wrong("key 0 is forbidden to the last query, expected True: the past is allowed")

    yield "a position may attend to itself"
    if not answer(4, 4).diagonal().all():
        raise Wrong("the diagonal holds False, expected True")

    yield "no query sees the future"
    if answer(4, 4).triu(1).any():
        raise Wrong("query 0 may attend to a later key, expected False above the diagonal")

    yield "the last query sees every key"
    if not answer(2, 5)[-1].all():
        allowed = int(answer(2, 5)[-1].sum())
        raise Wrong(
            f"the last of 2 queries over 5 keys sees {allowed} of them, expected 5: "
            "align the mask at the bottom right"
        )

    yield "agrees with the library"
    for n_q, n_k in ((1, 1), (1, 7), (3, 7), (7, 7)):
        if not torch.equal(answer(n_q, n_k), causal_mask(n_q, n_k)):
            raise Wrong(f"may_attend({n_q}, {n_k}) differs from lib.attention.causal_mask")


@checker("ex-attention-divisor")
def divisor(answer):
    yield "is √d when the three hypotheses hold"
    expect_close(float(answer(64, 1.0, 1.0, 0.0)), 8.0, "divisor(64, 1, 1, 0)")

    yield "follows both standard deviations"
    expect_close(float(answer(64, 2.0, 3.0, 0.0)), 48.0, "divisor(64, 2, 3, 0)")

    yield "counts the mean of the key"
    want = math.sqrt(16 * (1.0 + 4.0))
    expect_close(float(answer(16, 1.0, 1.0, 2.0)), want, "divisor(16, 1, 1, 2)")

    yield "both at once"
    want = 0.5 * math.sqrt(9 * (0.25 + 1.0))
    expect_close(float(answer(9, 0.5, 0.5, -1.0)), want, "divisor(9, 0.5, 0.5, -1)")


@checker("ex-attention-backward")
def attention_backward(answer):
    sizes = {"Q": (5, 3), "K": (7, 3), "V": (7, 11)}
    leaves = [_normal(*shape, seed=i).requires_grad_() for i, shape in enumerate(sizes.values())]
    upstream = _normal(5, 11, seed=9)
    scaled_dot_product_attention(*leaves).backward(upstream)
    got = answer(*[x.detach() for x in leaves], upstream)

    yield "returns three gradients, each of its input's shape"
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Wrong("expected three tensors (dQ, dK, dV)")
    for (name, shape), gradient in zip(sizes.items(), got, strict=True):
        expect_shape(gradient, shape, f"d{name}")

    yield "dV = Pᵀ dO"
    expect_close(got[2], leaves[2].grad, "dV")

    yield "dQ and dK carry the factor 1/√d_k"
    for name, gradient, leaf in zip(("dQ", "dK"), got[:2], leaves[:2], strict=True):
        ratio = float((gradient * leaf.grad).sum() / (leaf.grad**2).sum())
        if abs(ratio - math.sqrt(3)) < 1e-6:
            raise Wrong(f"{name} is √d_k times too large, expected dS divided by √d_k")

    yield "each score is compared with its row's average D"
    for name, gradient, leaf in zip(("dQ", "dK"), got[:2], leaves[:2], strict=True):
        expect_close(gradient, leaf.grad, name)


@checker("ex-attention-merge")
def merge(answer):
    scores, values = 3 * _normal(8), _normal(8, 2, seed=1)

    def triple(start: int, stop: int, shift: float = 0.0):
        part = scores[start:stop] + shift
        if part.numel() == 0:
            nothing = torch.tensor(-math.inf, dtype=torch.float64)
            return nothing, torch.zeros((), dtype=torch.float64), torch.zeros(2).double()
        weights = torch.exp(part - part.max())
        return part.max(), weights.sum(), weights @ values[start:stop]

    whole = triple(0, 8)

    yield "returns a maximum, a sum and a weighted sum"
    got = answer(triple(0, 3), triple(3, 8))
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Wrong("expected three tensors (m, l, a)")

    yield "the maximum is the larger of the two"
    expect_close(got[0], whole[0], "m")

    yield "the sums are rescaled to the common maximum"
    for split in (1, 3, 6):
        got = answer(triple(0, split), triple(split, 8))
        expect_close(got[1], whole[1], f"l, split after {split} keys")

    yield "so are the values"
    for split in (1, 3, 6):
        got = answer(triple(0, split), triple(split, 8))
        expect_close(got[2], whole[2], f"a, split after {split} keys")

    yield "nothing overflows"
    for left, right in ((900.0, 0.0), (0.0, 900.0)):
        got = answer(triple(0, 4, left), triple(4, 8, right))
        if not all(torch.isfinite(x).all() for x in got):
            raise Wrong("scores 900 apart give nan or inf, expected finite sums")

    yield "a side that has read nothing changes nothing"
    for got in (answer(triple(0, 0), whole), answer(whole, triple(0, 0))):
        for name, x, want in zip("mla", got, whole, strict=True):
            expect_close(x, want, f"{name} after merging with an empty side")

    yield "two empty sides stay empty"
    for name, x, want in zip("mla", answer(triple(0, 0), triple(0, 0)), triple(0, 0), strict=True):
        expect_close(x, want, f"{name} of two empty sides")
