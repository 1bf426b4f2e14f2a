"""Checkers for the exercises of chapter 13_replaced_token_detection."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lib.losses import replaced_token_loss
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape

ORIGINAL = torch.tensor([[7, 8, 9, 7, 5], [6, 6, 8, 0, 0]])
CORRUPTED = torch.tensor([[7, 5, 9, 7, 8], [6, 7, 8, 0, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@checker("ex-replaced_token_detection-labels")
def labels(answer):
    yield "keeps the shape, in integers"
    got = answer(ORIGINAL, CORRUPTED, MASK)
    expect_shape(got, (2, 5), "the labels")
    if got.dtype.is_floating_point or got.dtype == torch.bool:
        raise Wrong(f"the labels have dtype {got.dtype}, expected integers")

    yield "padding is −100"
    expect_close(got[1, 3:], torch.tensor([-100, -100]), "the labels where the mask is 0")

    yield "1 means replaced"
    if got[0, 1] == 0 and got[0, 0] == 1:
        raise Wrong("an original token has label 1, expected 0: the polarity is turned")
    expect_close(got[0, [1, 4]], torch.tensor([1, 1]), "the labels of replaced tokens")

    yield "a token is labelled, not a sentence"
    expect_close(got[0, [0, 2, 3]], torch.zeros(3).long(), "the labels of original tokens")

    yield "an untouched sentence has no 1"
    same = answer(ORIGINAL[:1], ORIGINAL[:1], MASK[:1])
    expect_close(same, torch.zeros(1, 5), "the labels of an untouched sentence")


@checker("ex-replaced_token_detection-loss")
def rtd_loss(answer):
    z, y = _draw(3, 5), torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) < 0.3
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])

    yield "is one number"
    expect_shape(answer(z, y, mask), (), "the loss")

    yield "a positive logit means replaced"
    sure = torch.tensor([[4.0, -4.0]], dtype=torch.float64)
    got = answer(sure, sure > 0, torch.ones(1, 2).long())
    if got > 1:
        raise Wrong(f"a right and sure answer costs {float(got):.2f}, expected 0.018")

    yield "agrees with the definition, without padding"
    want = F.binary_cross_entropy_with_logits(z, y.double())
    expect_close(answer(z, y, torch.ones_like(mask)), want, "the loss of real tokens")

    yield "padding does not count"
    want = replaced_token_loss(z, y, mask)
    expect_close(answer(z, y, mask), want, "the loss with padding")

    yield "survives logits of a thousand"
    large = torch.tensor([[1000.0, -1000.0]], dtype=torch.float64)
    got = answer(large, torch.tensor([[False, True]]), torch.ones(1, 2).long())
    if not torch.isfinite(got):
        raise Wrong(f"two wrong and sure answers cost {float(got)}, expected 1000: log of 0")
    expect_close(got, 1000.0, "the loss of two wrong and sure answers")


@checker("ex-replaced_token_detection-best")
def best_logit(answer):
    p, q, m = _draw(7).softmax(0), _draw(7, seed=1).softmax(0), 0.2
    original, replaced = p * ((1 - m) + m * q), m * q * (1 - p)
    got = answer(p, q, m)

    yield "keeps the shape"
    expect_shape(got, (7,), "the logits")

    yield "positive means replaced"
    bad = answer(torch.tensor([1e-6]).double(), torch.tensor([0.5]).double(), 0.5)
    if bad < 0:
        raise Wrong(f"a token that does not fit has logit {float(bad):.1f}, expected above 0")

    yield "the label is by token: a draw that hits is original"
    by_source = torch.log(m * q) - torch.log((1 - m) * p)
    if torch.allclose(got, by_source):
        raise Wrong("the logit is that of NCE: a drawn token that hits counts as replaced")

    yield "agrees with the formula"
    expect_close(got, replaced.log() - original.log(), "the logit")

    yield "with m = 1 it is the log-odds of p alone"
    expect_close(answer(p, q, 1.0), -torch.logit(p), "the logit at m = 1")


@checker("ex-replaced_token_detection-floor")
def floor(answer):
    p, q, m = _draw(7).softmax(0), _draw(7, seed=1).softmax(0), 0.2
    a, b = p * ((1 - m) + m * q), m * q * (1 - p)
    best = a / (a + b)
    want = -(a * best.log() + b * (1 - best).log()).sum()

    yield "is one number"
    expect_shape(torch.as_tensor(answer(p, q, m)), (), "the floor")

    yield "agrees with the best answer's loss"
    got = torch.as_tensor(answer(p, q, m))
    r = (m * (1 - (p * q).sum())).double()
    constant = torch.special.entr(r) + torch.special.entr(1 - r)
    if torch.allclose(got, constant):
        raise Wrong("this is the loss of a constant answer, expected that of the best one")
    expect_close(got, want, "the floor")

    yield "is zero if nothing is masked"
    expect_close(torch.as_tensor(answer(p, q, 0.0)), 0.0, "the floor at m = 0")

    yield "is zero if the generator is sure and right"
    sure = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    expect_close(torch.as_tensor(answer(sure, sure, 0.3)), 0.0, "the floor for p = q = one word")
