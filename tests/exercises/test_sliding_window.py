"""Exercises of 09_sliding_window: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch
import torch.nn.functional as F

from lib.attention import scaled_dot_product_attention
from lib.sliding_window import window_mask
from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "09_sliding_window"


def _pairs(missing=1, extra=1, least=False):
    def pairs(n, w):
        half = min(w // 2, n - 1) if least else w // 2
        return n * (2 * half + extra) - missing * half * (half + 1)

    return pairs


def _paint(low=0, high=0, row=True, column=True, gaps=True, reach=True, wrap=False):
    def paint(n, w, dilation, tokens):
        offset = torch.arange(n) - torch.arange(n)[:, None]
        if wrap:
            offset = (offset + n // 2) % n - n // 2
        far = (dilation if reach else 1) * (w // 2)
        mask = (offset >= -far + low) & (offset <= far + high)
        if gaps:
            mask &= offset % dilation == 0
        if row:
            mask[tokens] = True
        if column:
            mask[:, tokens] = True
        return mask

    return paint


def _offsets(combine, start=(0,)):
    def offsets(layers):
        reached = set(start)
        for w, dilation in layers:
            steps = {dilation * b for b in range(-(w // 2), w // 2 + 1)}
            reached = combine(reached, steps)
        return reached

    return offsets


def _sums(reached, steps):
    return {a + b for a in reached for b in steps}


def _from_end_to_end(layers):
    reach = sum(w // 2 * dilation for w, dilation in layers)
    return set(range(-reach, reach + 1))


def _dense(q, k, v, w):
    return scaled_dot_product_attention(q, k, v, window_mask(len(q), w))


def _gathered(low=0, high=1, clamp=True, mask=True, scale=True):
    def attend(q, k, v, w):
        n, h = len(q), w // 2
        places = torch.arange(n)[:, None] + torch.arange(-h + low, h + high)
        exists = (places >= 0) & (places < n)
        places = places.clamp(0, n - 1) if clamp else places % n
        scores = (k[places] @ q[:, :, None]).squeeze(-1)
        if scale:
            scores = scores / math.sqrt(q.shape[-1])
        if mask:
            scores = scores.masked_fill(~exists, -math.inf)
        return (scores.softmax(-1)[:, None] @ v[places]).squeeze(1)

    return attend


def _zeros_count(q, k, v, w):
    h = w // 2
    keys, values = (F.pad(x, (0, 0, h, h)).unfold(0, w + 1, 1).mT for x in (k, v))
    return scaled_dot_product_attention(q[:, None], keys, values).squeeze(1)


WRONG = {
    "ex-sliding_window-pairs": {
        "w keys": (lambda n, w: n * w, "a token meets itself too"),
        "no ends": (lambda n, w: n * (w + 1), "the ends have fewer keys"),
        "one end": (_pairs(missing=0.5), "counts by hand: pairs(5, 2): got 14"),
        "one end's triangle wrong": (
            lambda n, w: n * (w + 1) - (w // 2) ** 2 - 1,
            "takes away what is missing at both ends: pairs(64, 8): got 559",
        ),
        "not for short texts": (_pairs(), "is n² where the window is wider than the text"),
        "n² too early": (
            lambda n, w: n * n if 4 < n <= w + 1 else _pairs(least=True)(n, w),
            "agrees with the library: pairs(5, 4)",
        ),
    },
    "ex-sliding_window-layers": {
        "rounded down": (lambda d, w: abs(d) // (w // 2), "expected 2: round up"),
        "one too many": (lambda d, w: abs(d) // (w // 2) + 1, "the fourth token is still inside"),
        "the whole window": (lambda d, w: -(-abs(d) // w), "only half of w is on each side"),
        "at least one": (lambda d, w: max(1, -(-abs(d) // (w // 2))), "without any layer"),
        "signed": (lambda d, w: -(-d // (w // 2)), "left is as far as right"),
        "w + 1 wide": (
            lambda d, w: 0 if d == 0 else -(-2 * abs(d) // (w + (abs(d) > 20))),
            "the ends of 64 tokens",
        ),
    },
    "ex-sliding_window-mask": {
        "end left out": (_paint(high=-1), "query 3 meets keys [1, 2, 3, 4]"),
        "one side": (
            lambda n, w, dilation, tokens: _paint()(n, w, dilation, tokens).tril(),
            "query 3 meets keys [1, 2, 3], expected",
        ),
        "w on each side": (
            lambda n, w, dilation, tokens: _paint()(n, 2 * w, dilation, tokens),
            "query 3 meets keys [0, 1, 2, 3, 4, 5, 6]",
        ),
        "goes round": (_paint(wrap=True), "query 0 meets keys [0, 1, 2, 5, 6]"),
        "no gaps": (_paint(gaps=False), "query 7 of 15 meets [1, 2, 3"),
        "gaps inside the window": (_paint(reach=False), "query 7 of 15 meets [7]"),
        "no row": (_paint(row=False), "row 6 is not full"),
        "no column": (_paint(column=False), "column 6 is not full"),
        "numbers": (lambda *a: _paint()(*a).int(), "expected torch.bool"),
        "one global token": (
            lambda n, w, dilation, tokens: _paint()(n, w, dilation, tokens[:1]),
            "paint(12, 6, 2, [0, 11]) at query 1, key 11",
        ),
    },
    "ex-sliding_window-reach": {
        "union": (_offsets(lambda a, b: a | b), "layers add up"),
        "the last layer": (_offsets(lambda a, b: b), "layers add up"),
        "nothing to begin with": (_offsets(_sums, start=()), "offsets([]) is {}"),
        "no holes": (_from_end_to_end, "a dilation leaves holes"),
        "w on each side": (
            lambda layers: _offsets(_sums)([(2 * w, d) for w, d in layers]),
            "offsets([(4, 1)]) is 9 offsets from -4 to 4",
        ),
        "filled in depth": (
            lambda layers: _from_end_to_end(layers) if len(layers) > 1 else _offsets(_sums)(layers),
            "holes stay, or are filled: offsets([(4, 3), (4, 3)])",
        ),
    },
    "ex-sliding_window-attend": {
        "dense": (_dense, "makes no tensor of n × n: its peak is"),
        "end left out": (_gathered(high=0), "equals dense attention with the band"),
        "goes round": (_gathered(clamp=False, mask=False), "the window goes round"),
        "the last one again": (_gathered(mask=False), "equals dense attention with the band"),
        "zeros count": (_zeros_count, "weights sum to one, at the ends too"),
        "no scaling": (_gathered(scale=False), "equals dense attention with the band"),
        "full attention": (
            lambda q, k, v, w: scaled_dot_product_attention(q, k, v),
            "another last token changes every output: there is no window",
        ),
        "transposed": (lambda q, k, v, w: _dense(q, k, v, w).T, "got shape (3, 13)"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
