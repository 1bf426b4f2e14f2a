"""Exercises of 20_flash_attention: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "20_flash_attention"


def _traffic(rounding=math.ceil, lse=1, of_keys=2, swapped=False):
    def traffic(n_q, n_k, d, B):
        if swapped:
            return 2 * n_k * d + n_q + 2 * n_q * d * math.ceil(n_k / B)
        return 2 * n_q * d + lse * n_q + of_keys * n_k * d * rounding(n_q / B)

    return traffic


def _absorb(rescale_total=True, rescale_acc=True, keep_max=False, safe=True, shift=True):
    def absorb(m, total, acc, scores, values):
        new = scores.amax(-1) if keep_max else torch.maximum(m, scores.amax(-1))
        by = torch.where(new == -math.inf, 0.0, new) if safe else new
        by = by if shift else torch.zeros_like(by)
        p, old = torch.exp(scores - by[:, None]), torch.exp((m if shift else by) - by)
        total = (old if rescale_total else 1) * total + p.sum(-1)
        return new, total, (old[:, None] if rescale_acc else 1) * acc + p @ values

    return absorb


def _limits(aligned=True, rounded=True, first=1, clipped=True):
    def limits(i, B, C, n_q, n_k):
        shift = n_k - n_q if aligned else 0
        full, last = i + first + shift, i + B + shift
        if clipped:
            full, last = (min(max(x, 0), n_k) for x in (full, last))
        return (full // C * C if rounded else full), last

    return limits


def _weights(root=True, own=False, late=False):
    def weights(q, k, L):
        S = q @ k.T / (math.sqrt(q.shape[-1]) if root else 1)
        if own:
            return S.softmax(-1)
        return torch.exp(S) / torch.exp(L)[:, None] if late else torch.exp(S - L[:, None])

    return weights


def _backward(with_d=True, root=True, order=(0, 1, 2), transposed=False):
    def tile_backward(q, k, v, g, L, D):
        scale = 1 / math.sqrt(q.shape[-1])
        P = torch.exp(scale * q @ k.T - L[:, None])
        dS = P * (g @ v.T - (D[:, None] if with_d else 0)) * (scale if root else 1)
        if transposed:
            return dS.T @ k[: len(q)], dS @ q[:, :], P @ v
        parts = dS @ k, dS.T @ q, P.T @ g
        return tuple(parts[i] for i in order)

    return tile_backward


WRONG = {
    "ex-flash_attention-traffic": {
        "without L": (_traffic(lse=0), "O and L are written"),
        "keys without values": (_traffic(of_keys=1), "all is read once"),
        "keys outside": (_traffic(swapped=True), "more keys than queries"),
        "rounded down": (_traffic(rounding=math.floor), "a last tile that is not full"),
        "keys read once": (
            lambda n_q, n_k, d, B: 2 * n_q * d + n_q + 2 * n_k * d,
            "each tile of queries reads all keys",
        ),
    },
    "ex-flash_attention-absorb": {
        "total not rescaled": (_absorb(rescale_total=False), "total after two tiles"),
        "acc not rescaled": (_absorb(rescale_acc=False), "acc after two tiles"),
        "the maximum of the tile": (_absorb(keep_max=True), "m after two tiles"),
        "minus infinity less itself": (_absorb(safe=False), "before any key"),
        "no shift": (_absorb(shift=False), "the first tile: total"),
        "a list": (lambda *x: list(_absorb()(*x)), "expected a tuple (m, total, acc)"),
    },
    "ex-flash_attention-limits": {
        "upper left": (_limits(aligned=False), "more keys than queries"),
        "not rounded": (_limits(rounded=False), "full of limits(0, 4, 4, 12, 12): got 1, want 0"),
        "one too few": (_limits(first=0), "full is a multiple of C: full"),
        "negative": (_limits(clipped=False), "the first see nothing"),
    },
    "ex-flash_attention-weights": {
        "without the root": (_weights(root=False), "over all keys it is the softmax"),
        "a softmax of its own": (_weights(own=True), "not one of its own"),
        "exponentials first": (_weights(late=True), "scores in the thousands"),
        "transposed": (lambda q, k, L: _weights()(q, k, L).T, "a row for each query"),
    },
    "ex-flash_attention-backward": {
        "without D": (_backward(with_d=False), "autograd's gradients: dk"),
        "without the root": (_backward(root=False), "autograd's gradients: dk"),
        "in another order": (_backward(order=(0, 2, 1)), "autograd's gradients: dv"),
        "one alone": (lambda *x: _backward()(*x)[0], "expected a tuple (dq, dk, dv)"),
        "tile's own D": (
            lambda q, k, v, g, L, D: _backward()(
                q, k, v, g, L, (_weights()(q, k, L) * (g @ v.T)).sum(-1)
            ),
            "summed over tiles they are autograd's",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
