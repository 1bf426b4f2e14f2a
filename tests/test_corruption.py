"""lib.corruption held to its contract; statistical checks allow five standard errors."""

import doctest
import itertools
import math
from collections import Counter

import pytest
import torch

from lib import corruption
from lib.corruption import draw_positions, draw_words, mask_tokens

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


# Masking as in BERT

V, MASK = 50, 999  # outside the vocabulary, so that no random word looks masked


def text(b=40, n=60, seed=0):
    """Real words from 4 on; [CLS] first, [SEP] last, lengths from 20 to n."""
    ids = torch.randint(4, V, (b, n), generator=rng(seed))
    lengths = torch.randint(20, n + 1, (b,), generator=rng(seed + 1))
    lengths[0] = n
    mask = torch.arange(n) < lengths[:, None]
    ids[:, 0] = CLS
    ids[torch.arange(b), lengths - 1] = SEP
    return ids.masked_fill(~mask, PAD), mask


def mask_text(ids, mask=None, seed=0, **options):
    options = {
        "vocab_size": V,
        "mask_token_id": MASK,
        "special_token_ids": (PAD, CLS, SEP),
    } | options
    return mask_tokens(ids, mask, rng=rng(seed), **options)


def kinds(ids, corrupted, labels):
    """Which tokens were masked, replaced by another word, and chosen but left as they are."""
    chosen = labels != -100
    masked = chosen & (corrupted == MASK)
    return masked, chosen & ~masked & (corrupted != ids), chosen & (corrupted == ids)


def test_labels_are_the_original_words_of_what_was_chosen():
    ids, mask = text()
    before = ids.clone()
    corrupted, labels = mask_text(ids, mask)
    chosen = labels != -100
    assert torch.equal(ids, before) and corrupted.dtype == labels.dtype == ids.dtype
    assert torch.equal(labels[chosen], ids[chosen]) and torch.equal(
        corrupted[~chosen], ids[~chosen]
    )
    assert not (chosen & (~mask | torch.isin(ids, torch.tensor([PAD, CLS, SEP])))).any()
    assert chosen.any(dim=1).all()
    assert torch.equal(mask_text(ids, mask.long() * 2)[1], labels)
    ints = mask_text(ids.int(), mask)
    assert ints[0].dtype == ints[1].dtype == torch.int32 and torch.equal(ints[1].long(), labels)


@pytest.mark.parametrize("seed", range(20))
def test_each_call_is_80_10_10_to_within_one_token(seed):
    """A random word may be the word itself, so the vocabulary here has none of the text's."""
    ids, mask = text(seed=seed)
    corrupted, labels = mask_text(ids + 1000 * (ids > 3), mask, seed=seed)
    chosen = labels != -100
    total = int(chosen.sum())
    counts = [int(kind.sum()) for kind in kinds(ids + 1000 * (ids > 3), corrupted, labels)]
    assert sum(counts) == total > 100
    for count, part in zip(counts, (0.8, 0.1, 0.1), strict=True):
        assert abs(count - part * total) < 1
    per_sequence = chosen.sum(1) - 0.15 * mask.sum(1)
    assert (per_sequence.abs() < 1).all()


def test_the_shares_of_all_tokens_in_expectation():
    """.120, .015 and .015 of all n tokens, also where .15 n is far from a whole number."""
    draws, n = 6000, 11
    ids = torch.full((1, n), 1000)
    ids[0, 0], ids[0, -1] = CLS, SEP
    totals = torch.zeros(3, dtype=torch.float64)
    for seed in range(draws // 100):
        batch = ids.expand(100, n)
        corrupted, labels = mask_text(batch, seed=seed)
        totals += torch.tensor([float(kind.sum()) for kind in kinds(batch, corrupted, labels)])
    shares = totals / (draws * n)
    for share, want in zip(shares.tolist(), (0.12, 0.015, 0.015), strict=True):
        assert abs(share - want) < 5 * math.sqrt(want / (draws * n)), (share, want)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_batch_of_one_chosen_token_has_the_same_expectation(part):
    draws, ids = 3000, torch.full((1, 3), 1000)
    counts = [0, 0, 0]
    generator = rng()
    for _ in range(draws):
        corrupted, labels = mask_tokens(
            ids, vocab_size=V, mask_token_id=MASK, special_token_ids=(), share=1 / 3, rng=generator
        )
        found = [bool(kind.any()) for kind in kinds(ids, corrupted, labels)]
        counts[found.index(True)] += 1
        assert sum(found) == 1
    want = (0.8, 0.1, 0.1)[part]
    assert abs(counts[part] / draws - want) < 5 * math.sqrt(want * (1 - want) / draws)


def test_every_place_is_chosen_and_masked_alike():
    draws, n = 6000, 10
    corrupted, labels = mask_text(torch.full((draws, n), 1000), share=0.3)
    chosen = (labels != -100).double().mean(0)
    masked = (corrupted == MASK).double().mean(0)
    assert ((chosen - 0.3).abs() < 5 * math.sqrt(0.3 * 0.7 / draws)).all()
    assert ((masked - 0.24).abs() < 5 * math.sqrt(0.24 * 0.76 / draws)).all()
    total = int((corrupted == MASK).sum())  # of which the first half of the batch has a half
    share = int((corrupted[: draws // 2] == MASK).sum()) / total
    assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(total)


def test_random_words_are_drawn_from_the_whole_vocabulary():
    ids = torch.full((100, 100), 1000)
    corrupted, labels = mask_text(ids, share=1.0, parts=(0.0, 1.0, 0.0))
    counts = torch.bincount(corrupted.flatten(), minlength=V)
    assert len(counts) == V and counts.sum() == 10_000
    assert ((counts - 200).abs() < 5 * math.sqrt(200)).all()
    assert (labels == 1000).all()


@pytest.mark.parametrize("parts, want", [((1.0, 0.0, 0.0), MASK), ((0.0, 0.0, 1.0), 1000)])
def test_one_part_can_be_all(parts, want):
    corrupted, labels = mask_text(torch.full((2, 9), 1000), share=1.0, parts=parts)
    assert (corrupted == want).all() and (labels == 1000).all()


def test_nothing_to_choose():
    ids = torch.tensor([[CLS, SEP]])
    corrupted, labels = mask_text(ids, share=1.0)
    assert torch.equal(corrupted, ids) and (labels == -100).all()
    corrupted, labels = mask_text(torch.zeros(0, 5, dtype=torch.long))
    assert corrupted.shape == labels.shape == (0, 5)


def test_masking_repeats_with_its_generator():
    ids, mask = text()
    for first, second in zip(mask_text(ids, mask), mask_text(ids, mask), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(mask_text(ids, mask, seed=1)[1], mask_text(ids, mask)[1])


def test_unbiased_rounding_of_positions():
    draws = 4000
    got = draw_positions(torch.full((draws, 7), 9), share=0.3, rng=rng(), rounding="unbiased")
    counts = got.sum(1)
    assert set(counts.tolist()) == {2, 3}
    assert abs(counts.double().mean() - 2.1) < 5 * math.sqrt(0.1 * 0.9 / draws)
    whole = draw_positions(torch.full((50, 20), 9), share=0.15, rng=rng(), rounding="unbiased")
    assert (whole.sum(1) == 3).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"parts": (0.8, 0.1)}, r"parts: expected three shares that add up to 1, got \(0.8, 0.1\)"),
        ({"parts": (0.8, 0.1, 0.2)}, "parts: expected three shares that add up to 1, got"),
        ({"parts": (1.2, -0.1, -0.1)}, "parts: expected three shares that add up to 1, got"),
        ({"vocab_size": 0}, "vocab_size: expected an integer of at least 1, got 0"),
        ({"share": 1.5}, "share: expected a number from 0 to 1, got 1.5"),
    ],
)
def test_masking_refuses(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        mask_text(torch.full((2, 5), 9), **options)
    with pytest.raises(ValueError, match=r"^attention_mask: expected shape \(2, 5\), got \(5,\)"):
        mask_text(torch.full((2, 5), 9), torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^rounding: expected 'up' or 'unbiased', got 'down'$"):
        draw_positions(torch.full((2, 5), 9), rounding="down")
