"""Checkers for the exercises of chapter 07_encoder_decoder."""

from __future__ import annotations

import itertools
import math

import torch

from lib.attention import scaled_dot_product_attention
from lib.losses import label_smoothing_loss
from lib.teaching.exercises import Wrong, checker, expect, expect_close, expect_shape


@checker("ex-encoder_decoder-shift")
def decoder_inputs(answer):
    labels = torch.tensor([[5, 2, 7, 1], [3, 1, -100, -100]])

    yield "keeps the shape"
    got = answer(labels.clone(), 9, 8)
    expect_shape(got, (2, 4), "decoder_inputs(labels, 9, 8)")

    yield "the start token comes first"
    expect_close(got[:, 0], torch.tensor([9, 9]), "the first column")

    yield "what is read at t is the label of t − 1"
    if torch.equal(got[0], labels[0]):
        raise Wrong("the first row is the labels themselves: they were not moved")
    expect_close(got[0], torch.tensor([9, 5, 2, 7]), "the first row")

    yield "no −100 is left"
    expect(not bool((got == -100).any()), "a −100 is left, which no embedding has")
    expect_close(got[1], torch.tensor([9, 3, 1, 8]), "the second row")

    yield "leaves the labels alone"
    given = labels.clone()
    answer(given, 9, 8)
    expect(torch.equal(given, labels), "the labels were changed in place")


@checker("ex-encoder_decoder-cross")
def cross_attend(answer):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    B, n, m, d, d_k = 2, 3, 5, 8, 4
    H, M, W = randn(B, n, d), randn(B, m, d), randn(3, d, d_k)
    full, short = torch.tensor([m, m]), torch.tensor([m, 2])

    yield "is as long as its queries"
    got = answer(H, M, *W, full)
    expect_shape(got, (B, n, d_k), "the result")

    yield "looks at the memory, each query for itself"
    want = scaled_dot_product_attention(H @ W[0], M @ W[1], M @ W[2])
    unscaled = (H @ W[0] @ (M @ W[1]).mT).softmax(-1) @ (M @ W[2])
    if torch.allclose(got.double(), unscaled):
        raise Wrong("scores are not divided by √d_k")
    expect_close(got, want, "all rows real", atol=1e-6)

    yield "does not look at padding"
    mask = torch.arange(m) < short[:, None]
    want = scaled_dot_product_attention(H @ W[0], M @ W[1], M @ W[2], mask[:, None])
    got = answer(H, M, *W, short)
    expect_close(got[0], want[0], "the memory without padding", atol=1e-6)
    moved = M.clone()
    moved[1, 2:] += 1
    change = float((answer(H, moved, *W, short)[1] - got[1]).abs().max())
    expect(change < 1e-9, f"padding that changes moves the output by {change:.2g}")
    expect_close(got[1], want[1], "the memory with padding", atol=1e-6)


@checker("ex-encoder_decoder-gradient")
def smoothed_gradient(answer):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    labels = torch.tensor([2, 0, 6, 2])

    yield "keeps the shape"
    got = answer(logits.clone(), labels, 0.1)
    expect_shape(got, (4, 7), "the gradient")

    yield "sums to zero in every row"
    expect_close(got.sum(-1), 0.0, "the sum of a row")

    yield "is p − onehot without smoothing"
    plain = answer(logits.clone(), labels, 0.0)
    onehot = torch.nn.functional.one_hot(labels, 7)
    expect_close(plain, logits.softmax(-1) - onehot, "the gradient at eps = 0")

    yield "is what autograd says of the library's loss"
    z = logits.clone().requires_grad_()
    label_smoothing_loss(z, labels, 0.1, reduction="sum").backward()
    expect_close(got, z.grad, "the gradient at eps = .1")


@checker("ex-encoder_decoder-penalty")
def best(answer):
    yield "without a penalty the most probable wins"
    expect_close(int(answer([-3.0, -2.0, -4.0], [4, 9, 2], 0.0)), 1, "the index at α = 0")

    yield "of equal lengths the most probable wins"
    expect_close(int(answer([-3.0, -2.0, -4.0], [5, 5, 5], 0.7)), 1, "the index")

    yield "a longer text may overtake"
    # −2 / ((5 + 2)/6) = −1.714; −3 / ((5 + 8)/6) = −1.385
    expect_close(int(answer([-2.0, -3.0], [2, 8], 1.0)), 1, "the index at α = 1")

    yield "the penalty is that of Wu et al., not the length itself"
    # by the mean the second would win: −2.0 / 2 = −1 against −3.5 / 4 = −.875
    expect_close(int(answer([-2.0, -3.5], [2, 4], 1.0)), 0, "the index at α = 1")

    yield "α is an exponent"
    # α* = ln(1.5) / ln(13/7) = .655
    found = [int(answer([-2.0, -3.0], [2, 8], alpha)) for alpha in (0.6, 0.7)]
    expect_close(torch.tensor(found), torch.tensor([0, 1]), "the index at α = .6 and .7")


@checker("ex-encoder_decoder-beams")
def beam(answer):
    garden = {
        (): [0.6, 0.4],
        (0,): [0.55, 0.45],
        (1,): [0.95, 0.05],
    }

    def rows(text):
        return garden.get(text, [0.5, 0.5])

    yield "returns a text of n tokens"
    got = answer(rows, 1, 3)
    expect(isinstance(got, tuple) and len(got) == 3, f"beam(rows, 1, 3): got {got!r}")

    yield "one beam is greedy"
    expect(answer(rows, 1, 2) == (0, 0), f"beam(rows, 1, 2): got {answer(rows, 1, 2)}, want (0, 0)")

    yield "two beams find the better text"
    got = answer(rows, 2, 2)
    if got == (1, 0):
        pass
    elif got == (0, 0):
        raise Wrong("beam(rows, 2, 2): got (0, 0), the greedy text, want (1, 0)")
    else:
        raise Wrong(f"beam(rows, 2, 2): got {got}, want (1, 0)")

    yield "multiplies the probabilities of a text"
    uneven = {(): [0.3, 0.6, 0.1], (0,): [0.95, 0.03, 0.02], (1,): [0.6, 0.2, 0.2]}
    got = answer(lambda text: uneven.get(text, [0.4, 0.3, 0.3]), 2, 2)
    expect(got == (1, 0), f"got {got}, want (1, 0): .6 · .6 is more than .3 · .95")

    yield "the k best are chosen among all extensions"
    crowded = {
        (): [0.5, 0.3, 0.2],
        (0,): [0.5, 0.45, 0.05],
        (1,): [0.4, 0.3, 0.3],
        (0, 1): [0.9, 0.05, 0.05],
    }

    def rows_of_crowded(text):
        return crowded.get(text, [0.4, 0.3, 0.3])

    # (0, 0) .25 and (0, 1) .225 are both better than (1, 0) .12
    got = answer(rows_of_crowded, 2, 3)
    expect(got == (0, 1, 0), f"got {got}, want (0, 1, 0): both beams share a first token")

    yield "with enough beams it is the best of all"
    generator = torch.Generator().manual_seed(0)
    table = {
        text: torch.rand(3, generator=generator).softmax(0).tolist()
        for k in range(4)
        for text in itertools.product(range(3), repeat=k)
    }

    def log_p(text):
        return sum(math.log(table[text[:t]][v]) for t, v in enumerate(text))

    want = max(itertools.product(range(3), repeat=4), key=log_p)
    got = answer(table.__getitem__, 81, 4)
    expect(got == want, f"beam(rows, 81, 4): got {got}, want {want}")
