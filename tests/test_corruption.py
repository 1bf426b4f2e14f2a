"""lib.corruption held to its contract; statistical checks allow five standard errors."""

import doctest
import itertools
import math
from collections import Counter

import pytest
import torch

from lib import corruption
from lib.corruption import draw_positions, draw_words

PAD, CLS, SEP = 0, 1, 2


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_docstrings():
    assert doctest.testmod(corruption).failed == 0


# Positions


@pytest.mark.parametrize("share", [0.0, 0.1, 0.15, 0.55, 1.0])
@pytest.mark.parametrize("n", [1, 7, 20, 40, 100])
def test_how_many(share, n):
    """⌈share · n⌉, exactly, although .55 · 100 is a little more than 55 in floating point."""
    ids = torch.full((3, n), 9)
    want = -(-round(share * 100) * n // 100)
    assert draw_positions(ids, share=share).sum(-1).tolist() == [want] * 3


def test_only_real_tokens_that_are_not_special():
    ids = torch.randint(3, 9, (50, 23), generator=rng())
    ids[:, 0] = CLS
    lengths = torch.arange(50) % 21 + 2
    ids[torch.arange(50), lengths - 1] = SEP
    mask = torch.arange(23) < lengths[:, None]
    free = mask & (ids > 2)
    for attention_mask in (mask, mask.long()):
        got = draw_positions(ids, attention_mask, 0.4, (PAD, CLS, SEP), rng())
        assert got.dtype == torch.bool and not (got & ~free).any()
        want = [min(math.ceil(0.4 * n - 1e-9), n - 2) for n in lengths.tolist()]
        assert got.sum(-1).tolist() == want


def test_every_set_is_equally_likely():
    draws = 6000
    got = draw_positions(torch.full((draws, 5), 9), share=0.4, rng=rng())
    counts = Counter(tuple(row.nonzero().flatten().tolist()) for row in got)
    assert set(counts) == set(itertools.combinations(range(5), 2))
    error = math.sqrt(0.1 * 0.9 / draws)
    assert all(abs(count / draws - 0.1) < 5 * error for count in counts.values())


def test_draws_repeat_with_their_generator():
    ids = torch.full((4, 30), 9)
    assert torch.equal(draw_positions(ids, rng=rng(1)), draw_positions(ids, rng=rng(1)))
    assert not torch.equal(draw_positions(ids, rng=rng(1)), draw_positions(ids, rng=rng(2)))


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, "all"])
def test_shares_that_are_none(share):
    with pytest.raises(ValueError, match=r"^share: expected a number from 0 to 1, got "):
        draw_positions(torch.ones(1, 2, dtype=torch.long), share=share)


# Words


@pytest.mark.parametrize("sampling", ["gumbel", "multinomial"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_words_come_with_their_probability(sampling, dtype):
    draws = 20_000
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -math.inf]).to(dtype)
    got = draw_words(logits.expand(draws, 5), sampling, rng())
    assert got.shape == (draws,) and got.dtype == torch.int64
    for word, p in enumerate(logits.double().softmax(-1).tolist()):
        share = (got == word).double().mean().item()
        assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / draws), word


@pytest.mark.parametrize("sampling", ["gumbel", "multinomial"])
def test_rows_are_drawn_apart(sampling):
    logits = torch.full((6, 7), -100.0)
    want = torch.tensor([3, 0, 6, 2, 2, 5])
    logits[torch.arange(6), want] = 100.0
    assert torch.equal(draw_words(logits, sampling), want)
    got = draw_words(torch.zeros(4000, 2), sampling, rng())
    together = (got[::2] == got[1::2]).double().mean()
    assert abs(together - 0.5) < 5 * 0.5 / math.sqrt(2000)  # neighbours are independent


@pytest.mark.parametrize("sampling", ["gumbel", "multinomial"])
def test_no_rows_and_no_gradient(sampling):
    assert draw_words(torch.zeros(0, 5), sampling).shape == (0,)
    assert not draw_words(torch.zeros(3, 5, requires_grad=True), sampling).requires_grad


def test_refuses():
    with pytest.raises(ValueError, match=r"^logits: expected shape \(M, V ≥ 1\), got \(2, 3, 4\)"):
        draw_words(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"^sampling: expected 'gumbel' or 'multinomial', got 'be"):
        draw_words(torch.zeros(2, 3), "beam")
