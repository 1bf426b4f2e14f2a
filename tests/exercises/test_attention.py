"""Exercises of 02_attention: stub open, solution passes, each mistake has its own diagnosis."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "02_attention"


def _backward(scale_gradient=True, average=True, transpose=True, factor=None):
    def attention_backward(Q, K, V, dO):
        scale = 1 / math.sqrt(Q.shape[-1])
        P = (scale * Q @ K.T).softmax(-1)
        dP = dO @ V.T
        D = (dO * (P @ V)).sum(-1, keepdim=True) if average else 0.0
        dS = P * (dP - D)
        c = scale if scale_gradient else 1.0
        return c * dS @ K, c * dS.T @ Q, P.T @ dO if transpose else P.mT.flip(0) @ dO

    return attention_backward


def _merge(rescale_sum=True, rescale_values=True, guard=True, common_max=True, stable=True):
    def merge(left, right):
        (m1, l1, a1), (m2, l2, a2) = left, right
        m = torch.maximum(m1, m2) if common_max else m2
        if not stable:
            c1, c2 = torch.exp(m1) / torch.exp(m), torch.exp(m2) / torch.exp(m)
        else:
            safe = torch.where(m == -math.inf, torch.zeros_like(m), m) if guard else m
            c1, c2 = torch.exp(m1 - safe), torch.exp(m2 - safe)
        total = c1 * l1 + c2 * l2 if rescale_sum else l1 + l2
        values = c1 * a1 + c2 * a2 if rescale_values else a1 + a2
        return m, total, values

    return merge


def _window(offset, n_q, n_k):
    return torch.arange(n_k)[None] <= torch.arange(n_q)[:, None] + offset


WRONG = {
    "ex-attention-softmax": {
        "no maximum subtracted": (
            lambda s: torch.exp(s) / torch.exp(s).sum(-1, keepdim=True),
            "survives scores in the thousands",
        ),
        "one maximum for the whole tensor": (
            lambda s: torch.exp(s - s.max()) / torch.exp(s - s.max()).sum(-1, keepdim=True),
            "each row has its own maximum",
        ),
        "along the first dimension": (lambda s: s.softmax(0), "each row sums to one"),
        "over all entries": (lambda s: s.flatten().softmax(0).view_as(s), "each row sums to one"),
        "not divided": (lambda s: torch.exp(s - s.amax(-1, keepdim=True)), "each row sums to one"),
        "sign turned": (lambda s: (-s).softmax(-1), "weights grow with their scores"),
        "sum without keepdim": (
            lambda s: torch.exp(s - s.amax(-1, keepdim=True)) / torch.exp(s).sum(-1),
            "raises RuntimeError",
        ),
    },
    "ex-attention-jacobian": {
        "diagonal only": (lambda p, dp: p * (1 - p) * dp, "equal gradients cancel"),
        "average missing": (lambda p, dp: p * dp, "equal gradients cancel"),
        "plain mean for the average": (
            lambda p, dp: p * (dp - dp.mean(-1, keepdim=True)),
            "agrees with autograd",
        ),
        "average over the batch too": (
            lambda p, dp: p * (dp - (p * dp).sum() / len(p)),
            "rows do not mix",
        ),
        "sign turned": (
            lambda p, dp: -p * (dp - (p * dp).sum(-1, keepdim=True)),
            "agrees with autograd: the gradient at the scores",
        ),
        "summed": (lambda p, dp: (p * dp).sum(-1), "keeps the shape"),
    },
    "ex-attention-causal": {
        "top-left alignment": (lambda q, k: _window(0, q, k), "align the mask at the bottom right"),
        "off by one": (lambda q, k: _window(k - q - 1, q, k), "the diagonal holds False"),
        "one too far": (lambda q, k: _window(k - q + 1, q, k), "no query sees the future"),
        "polarity turned": (lambda q, k: ~_window(k - q, q, k), "key 0 is forbidden"),
        "floats": (lambda q, k: _window(k - q, q, k).float(), "expected torch.bool"),
        "square": (lambda q, k: _window(0, k, k), "the mask: got shape (5, 5)"),
    },
    "ex-attention-divisor": {
        "variance for standard deviation": (
            lambda d, q, k, m: d * q**2 * (k**2 + m**2),
            "is √d when the three hypotheses hold",
        ),
        "only √d": (lambda d, q, k, m: math.sqrt(d), "follows both standard deviations"),
        "mean ignored": (lambda d, q, k, m: q * k * math.sqrt(d), "counts the mean of the key"),
        "mean not squared": (
            lambda d, q, k, m: q * math.sqrt(d * max(k**2 + m, 0)),
            "counts the mean of the key",
        ),
        "key variance added, not multiplied": (
            lambda d, q, k, m: math.sqrt(d * (q**2 * k**2 + m**2)),
            "both at once",
        ),
    },
    "ex-attention-backward": {
        "factor forgotten": (_backward(scale_gradient=False), "√d_k times too large"),
        "row average forgotten": (_backward(average=False), "its row's average D"),
        "V's gradient with P's columns turned": (_backward(transpose=False), "dV = Pᵀ dO"),
        "order (dV, dQ, dK)": (
            lambda *a: (lambda g: (g[2], g[0], g[1]))(_backward()(*a)),
            "dQ: got shape",
        ),
        "only two": (lambda *a: _backward()(*a)[:2], "expected three tensors"),
    },
    "ex-attention-merge": {
        "sum not rescaled": (_merge(rescale_sum=False), "the sums are rescaled"),
        "values not rescaled": (_merge(rescale_values=False), "so are the values"),
        "right maximum only": (_merge(common_max=False), "the larger of the two"),
        "no guard for −∞": (_merge(guard=False), "two empty sides stay empty"),
        "exponentials of the maxima": (_merge(stable=False), "nothing overflows"),
        "only two": (lambda a, b: _merge()(a, b)[:2], "expected three tensors"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
