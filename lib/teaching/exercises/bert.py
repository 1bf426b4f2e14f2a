"""Checkers for the exercises of chapter 11_bert."""

from __future__ import annotations

import math

import torch

from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape


def _distribution(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return draw.flatten().softmax(0).view(*shape)


@checker("ex-bert-segments")
def segments(answer):
    # 1 = [CLS], 2 = [SEP], 0 = padding
    ids = torch.tensor([[1, 7, 8, 2, 9, 2, 0, 0], [1, 7, 2, 8, 9, 7, 9, 2]])
    got = answer(ids, 2, 0)

    yield "keeps the shape, in integers"
    expect_shape(got, (2, 8), "the segments")
    if got.dtype.is_floating_point or got.dtype == torch.bool:
        raise Wrong(f"the segments have dtype {got.dtype}, expected integers")

    yield "the first separator belongs to the first text"
    if got[0, 3] != 0 or got[1, 2] != 0:
        raise Wrong("the first separator is in segment 1, expected 0: it closes the first text")

    yield "the second text is 1, with its separator"
    expect_close(got[1], torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), "the segments of a full row")

    yield "padding is 0"
    expect_close(got[0], torch.tensor([0, 0, 0, 0, 1, 1, 0, 0]), "the segments of a padded row")

    yield "one text alone is all 0"
    alone = torch.tensor([[1, 7, 8, 2, 0]])
    expect_close(answer(alone, 2, 0), torch.zeros(1, 5), "the segments of one text")

    yield "takes the ids that it is given"
    other = torch.tensor([[5, 9, 4, 9, 4, 3]])
    want = torch.tensor([[0, 0, 0, 1, 1, 0]])
    expect_close(answer(other, 4, 3), want, "the segments with other ids")


@checker("ex-bert-corrupt")
def corrupt(answer):
    ids = torch.tensor([[7, 8, 9, 7, 8, 9]])
    chosen = torch.tensor([[True, True, True, True, True, False]])
    u = torch.tensor([[0.1, 0.79, 0.8, 0.89, 0.95, 0.1]])
    words = torch.tensor([[20, 21, 22, 23, 24, 25]])
    kept = ids.clone()
    got = answer(ids, chosen, u, words, 3)

    yield "keeps the shape"
    expect_shape(got, (1, 6), "the corrupted ids")

    yield "does not write into its input"
    if not torch.equal(ids, kept):
        raise Wrong("the input has changed, expected a new tensor")

    yield "touches chosen tokens only"
    if got[0, 5] != 9:
        raise Wrong(f"a token that was not chosen became {int(got[0, 5])}, expected 9")

    yield "below .8: the mask"
    expect_close(got[0, :2], torch.tensor([3, 3]), "the tokens with u = .1 and .79")

    yield "from .9 on: as it was"
    expect_close(got[0, 4], torch.tensor(8), "the token with u = .95")

    yield "from .8 to .9: a random word"
    expect_close(got[0, 2:4], torch.tensor([22, 23]), "the tokens with u = .8 and .89")


@checker("ex-bert-accumulate")
def whole_loss(answer):
    means = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)

    yield "is one number"
    expect_shape(answer(means, torch.tensor([2, 2, 2])), (), "the loss")

    yield "equal counts: the mean of means"
    expect_close(answer(means, torch.tensor([2, 2, 2])), 7 / 3, "the loss for equal counts")

    yield "each token weighs the same"
    got = answer(means, torch.tensor([8, 1, 1]))
    if torch.isclose(torch.as_tensor(got).double(), means.mean()):
        raise Wrong("the loss is the mean of means: a microbatch with few tokens weighs too much")
    expect_close(got, 1.4, "the loss for counts 8, 1, 1")

    yield "a microbatch without a token changes nothing"
    more = torch.tensor([1.0, 4.0, 2.0, 0.0], dtype=torch.float64)
    expect_close(answer(more, torch.tensor([8, 1, 1, 0])), 1.4, "the loss with an empty one")

    yield "no token at all: 0"
    none = answer(torch.zeros(2, dtype=torch.float64), torch.tensor([0, 0]))
    if not torch.isfinite(torch.as_tensor(none)):
        raise Wrong(f"without any token the loss is {float(none)}, expected 0")
    expect_close(none, 0.0, "the loss without any token")


@checker("ex-bert-independent")
def lost(answer):
    joint = _distribution(5, 5)
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    want = (joint * (joint / product).log()).sum()
    got = torch.as_tensor(answer(joint))

    yield "is one number"
    expect_shape(got, (), "what is lost")

    yield "is never negative"
    if got < 0:
        raise Wrong(f"{float(got):.3f} nats are lost, expected 0 or more: the sign is turned")

    yield "agrees with the divergence"
    backwards = (product * (product / joint).log()).sum()
    if torch.isclose(got.double(), backwards):
        raise Wrong("this is KL(product ‖ truth), expected KL(truth ‖ product)")
    expect_close(got, want, "what is lost")

    yield "independent tokens lose nothing"
    expect_close(torch.as_tensor(answer(product)), 0.0, "what independent tokens lose")

    yield "impossible pairs do no harm"
    cities = torch.eye(2, dtype=torch.float64) / 2
    got = torch.as_tensor(answer(cities))
    if not torch.isfinite(got):
        raise Wrong(f"for two cities {float(got)} is lost, expected ln 2: 0 log 0 is 0")
    expect_close(got, math.log(2), "what is lost for two cities")


@checker("ex-bert-visible")
def best_answer(answer):
    p = _distribution(6)
    before = p.clone()

    def want(v, kept, random):
        both = random * p / 6 + kept * p * torch.nn.functional.one_hot(torch.tensor(v), 6)
        return both / both.sum()

    got = answer(p, 2, 0.1, 0.1)

    yield "is a distribution over the vocabulary"
    expect_shape(got, (6,), "the answer")
    expect_close(got.sum(), 1.0, "the sum of the answer")

    yield "does not write into p"
    if not torch.equal(p, before):
        raise Wrong("p has changed, expected it as it was")

    yield "agrees with the formula at equal shares"
    expect_close(got, want(2, 0.1, 0.1), "the answer at 10 % and 10 %")

    yield "weighs the two shares"
    expect_close(answer(p, 1, 0.05, 0.3), want(1, 0.05, 0.3), "the answer at 5 % and 30 %")

    yield "without kept tokens the context decides"
    expect_close(answer(p, 1, 0.0, 0.2), p, "the answer without kept tokens")


@checker("ex-bert-span")
def best_span(answer):
    start = torch.tensor([0.0, 1.0, 5.0, 0.0, 0.0])
    end = torch.tensor([9.0, 0.0, 0.0, 1.0, 3.0])

    yield "returns two numbers"
    got = answer(start, end, 5)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong(f"got {got!r}, expected a pair (i, j)")
    got = tuple(int(x) for x in got)

    yield "does not end before it begins"
    if got[0] > got[1]:
        raise Wrong(f"the span is {got}: it ends before it begins")

    yield "finds the best sum"
    # (0, 0) has 9, (2, 4) has 8: the largest start and the largest end do not fit together.
    if got != (0, 0):
        raise Wrong(f"the span is {got}, expected (0, 0), whose sum 9 is the largest in order")

    yield "may be one token long"
    got = tuple(
        int(x) for x in answer(torch.tensor([0.0, 4.0, 0.0]), torch.tensor([0.0, 4.0, 0.0]), 3)
    )
    if got != (1, 1):
        raise Wrong(f"the span is {got}, expected (1, 1): an answer of one token")

    yield "is not too long"
    far = torch.tensor([6.0, 0.0, 2.0, 0.0])
    close = torch.tensor([0.0, 0.0, 0.0, 6.0])
    got = tuple(int(x) for x in answer(far, close, 2))
    if got != (2, 3):
        raise Wrong(f"with at most 2 tokens the span is {got}, expected (2, 3)")
