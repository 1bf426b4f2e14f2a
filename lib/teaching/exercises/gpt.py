"""Checkers for the exercises of chapter 10_gpt."""

from __future__ import annotations

import math

import torch

from lib.generation import keep_top_p
from lib.losses import causal_lm_loss
from lib.teaching.exercises import Wrong, checker, expect_close, expect_shape


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@checker("ex-gpt-loss")
def next_token_loss(answer):
    ids = torch.tensor([2, 0, 1, 1, 3])
    knows = 30.0 * torch.nn.functional.one_hot(ids.roll(-1), 4).double()
    copies = 30.0 * torch.nn.functional.one_hot(ids, 4).double()

    yield "is one number"
    expect_shape(torch.as_tensor(answer(_random(5, 4), ids)), (), "the loss")

    yield "repeating the input is no guess"
    if float(answer(copies, ids)) < 1.0:
        raise Wrong("logits that repeat the input cost nothing: shift the labels by one place")

    yield "knowing the next token costs nothing"
    expect_close(float(answer(knows, ids)), 0.0, "the loss of a model that knows", atol=1e-6)

    yield "is ln V where all logits are equal"
    expect_close(float(answer(torch.zeros(5, 4).double(), ids)), math.log(4), "the loss", atol=1e-6)

    yield "the last row of logits has no label"
    logits = _random(5, 4)
    other = logits.clone()
    other[-1] += torch.tensor([5.0, -3.0, 2.0, 0.0], dtype=torch.float64)
    expect_close(
        float(answer(other, ids)), float(answer(logits, ids)), "the loss, with another last row"
    )

    yield "survives large logits"
    big = 1000.0 * _random(5, 4)
    expect_close(
        float(answer(big, ids)), float(causal_lm_loss(big, ids)), "the loss at logits of a thousand"
    )

    yield "agrees with the library"
    for n, V in ((2, 3), (7, 11)):
        logits, ids = _random(n, V), torch.arange(n) % V
        want = float(causal_lm_loss(logits, ids))
        expect_close(float(answer(logits, ids)), want, f"n = {n}, V = {V}", atol=1e-6)


@checker("ex-gpt-bits")
def bits_per_character(answer):
    yield "a nat is 1/ln 2 bits"
    expect_close(float(answer(math.log(2), 10, 10)), 1.0, "ln 2 nats for each of 10 characters")

    yield "a token of several characters shares its cost among them"
    expect_close(float(answer(math.log(2), 10, 40)), 0.25, "ln 2 nats a token, 10 tokens, 40 chars")

    yield "holds for any numbers"
    for loss, tokens, characters in ((3.1, 7, 31), (0.4, 100, 90)):
        want = loss * tokens / (characters * math.log(2))
        got = float(answer(loss, tokens, characters))
        expect_close(got, want, f"{loss} nats, {tokens} tokens, {characters} characters")


@checker("ex-gpt-temperature")
def temper(answer):
    p = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)

    yield "T = 1 changes nothing"
    expect_close(answer(p.clone(), 1.0), p, "temper(p, 1)")

    yield "sums to one"
    expect_close(float(answer(p.clone(), 0.5).sum()), 1.0, "the sum at T = 0.5")

    yield "below one the likely gain"
    got = answer(p.clone(), 0.5)
    if float(got[0]) < 0.5:
        raise Wrong(f"at T = 0.5 the likeliest token falls from 0.5 to {float(got[0]):.3f}")
    expect_close(got, torch.tensor([2 / 3, 1 / 6, 1 / 6, 0]).double(), "temper(p, 0.5)", atol=1e-6)

    yield "what is impossible stays impossible"
    expect_close(float(answer(p.clone(), 4.0)[3]), 0.0, "the probability of a zero at T = 4")

    yield "works on leading dimensions"
    rows = _random(3, 2, 5).softmax(-1)
    expect_close(answer(rows.clone(), 2.0)[1, 1], answer(rows[1, 1].clone(), 2.0), "a row alone")

    yield "is softmax of the logits over T"
    logits = _random(3, 6)
    for T in (0.3, 1.7):
        want = (logits / T).softmax(-1)
        expect_close(answer(logits.softmax(-1), T), want, f"T = {T}", atol=1e-6)


@checker("ex-gpt-nucleus")
def nucleus(answer):
    p = torch.tensor([0.1, 0.5, 0.1, 0.3], dtype=torch.float64)

    yield "is a boolean tensor of the same length"
    got = answer(p.clone(), 0.7)
    expect_shape(got, (4,), "nucleus(p, 0.7)")
    if got.dtype != torch.bool:
        raise Wrong(f"got {got.dtype}, expected torch.bool")

    def expect(p, share, want):
        got = answer(p.clone(), share).tolist()
        if got != want:
            raise Wrong(f"of {p.tolist()} at {share} got {got}, expected {want}")

    yield "keeps the token that reaches the share"
    expect(p, 0.7, [False, True, False, True])

    yield "keeps no token more"
    expect(p, 0.45, [False, True, False, False])

    yield "always keeps one"
    expect(p, 0.01, [False, True, False, False])

    yield "keeps all at a share of one"
    expect(torch.tensor([0.25, 0.5, 0.25]).double(), 1.0, [True, True, True])

    yield "answers in the order that was given"
    expect(torch.tensor([0.05, 0.15, 0.2, 0.6]).double(), 0.75, [False, False, True, True])

    yield "agrees with the library"
    for seed in range(5):
        p = (2 * _random(9, seed=seed)).softmax(-1)
        expect(p, 0.8, keep_top_p(p.log(), 0.8).isfinite().tolist())


@checker("ex-gpt-reads")
def tokens_read(answer):
    yield "one new token needs one pass over the prompt"
    for cache in (True, False):
        expect_close(float(answer(7, 1, cache)), 7.0, f"tokens_read(7, 1, {cache})")

    yield "with a cache each later pass reads one token"
    expect_close(float(answer(7, 5, True)), 11.0, "tokens_read(7, 5, True)")

    yield "without one each pass reads all so far"
    expect_close(float(answer(7, 3, False)), 24.0, "tokens_read(7, 3, False), 7 + 8 + 9")

    yield "holds for any numbers"
    for prompt, new in ((1, 20), (50, 13)):
        for cache in (True, False):
            want = float(prompt + new - 1 if cache else sum(range(prompt, prompt + new)))
            got = float(answer(prompt, new, cache))
            expect_close(got, want, f"tokens_read({prompt}, {new}, {cache})")


class _Model:
    """The next token is the sum of all read so far and their number, modulo 11."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.calls: list[int] = []

    def __call__(self, ids) -> torch.Tensor:
        ids = [int(i) for i in ids]
        self.calls.append(len(ids))
        self.read += ids
        logits = torch.zeros(11)
        logits[(sum(self.read) + len(self.read)) % 11] = 1.0
        return logits


def _written(prompt: list[int], new: int) -> list[int]:
    ids = list(prompt)
    for _ in range(new):
        ids.append((sum(ids) + len(ids)) % 11)
    return ids


@checker("ex-gpt-write")
def continue_greedily(answer):
    prompt = [3, 1, 4]

    yield "gives prompt and continuation, as a list"
    got = answer(_Model(), list(prompt), 4)
    if not isinstance(got, list) or len(got) != 7 or [int(i) for i in got[:3]] != prompt:
        raise Wrong(f"got {got!r}, expected a list of [3, 1, 4] and four more tokens")

    yield "no token is read twice"
    model = _Model()
    answer(model, list(prompt), 4)
    if len(model.read) > 6:
        raise Wrong(
            f"calls read {model.calls} tokens, expected [3, 1, 1, 1]: the prompt once, then one "
            "at a time"
        )

    yield "no call more than needed"
    if model.calls != [3, 1, 1, 1]:
        raise Wrong(f"calls read {model.calls} tokens, expected [3, 1, 1, 1]")

    yield "each token is the most probable one"
    for start, new in (([3, 1, 4], 4), ([0], 9), ([5, 5], 1)):
        got = [int(i) for i in answer(_Model(), list(start), new)]
        want = _written(start, new)
        if got != want:
            raise Wrong(f"behind {start} got {got}, expected {want}")

    yield "the prompt that was given stays as it was"
    given = [3, 1, 4]
    answer(_Model(), given, 2)
    if given != [3, 1, 4]:
        raise Wrong(f"the caller's list has become {given}")
