"""Checkers for the exercises of chapter 21_counting_cost."""

from __future__ import annotations

import dataclasses

from lib import cost
from lib.models.gpt2 import GPT2Config
from lib.teaching.exercises import Wrong, checker, expect


def _config(d: int, layers: int, vocab: int, places: int) -> GPT2Config:
    return GPT2Config(vocab, d, layers, 1, max_length=places)


def _same(got: object, want: object, what: str) -> None:
    expect(got == want, f"{what}: got {got}, want {want}")


@checker("ex-counting_cost-parameters")
def gpt2_parameters(answer):
    yield "without layers there are two tables and a norm"
    got = answer(2, 0, 3, 5)
    if got == 2 * (2 * 3 + 5) + 4:
        raise Wrong("words count twice: the output words are the input words")
    _same(got, 2 * (3 + 5) + 2 * 2, "gpt2_parameters(2, 0, 3, 5)")

    yield "a layer adds 12 d² + 13 d"
    for d in (2, 7):
        more = answer(d, 3, 5, 11) - answer(d, 2, 5, 11)
        if more == 12 * d**2:
            raise Wrong("a layer adds 12 d²: biases and norms are parameters too")
        _same(more, 12 * d**2 + 13 * d, f"a layer more, d = {d}")

    yield "agrees with the library"
    for sizes in ((768, 12, 50257, 1024), (13, 3, 29, 17)):
        want = cost.parameters(_config(*sizes))
        _same(answer(*sizes), want, f"gpt2_parameters{sizes}")


@checker("ex-counting_cost-training")
def step_flops(answer):
    yield "words are multiplied, once forward and twice backward"
    _same(answer(3, 0, 5, 1, 1), 6 * 3 * 5, "step_flops(3, 0, 5, 1, 1)")

    yield "batches add up"
    _same(answer(3, 2, 5, 7, 4), 7 * answer(3, 2, 5, 1, 4), "a batch of 7 ÷ 7 batches of 1")

    yield "attention grows with the square of n"
    d, layers, n = 5, 2, 11
    bent = answer(d, layers, 3, 1, 2 * n) - 2 * answer(d, layers, 3, 1, n)
    if bent == 0:
        raise Wrong("twice the tokens take twice the operations: attention proper is missing")
    _same(bent, 24 * layers * d * n * n, "step(2n) − 2 step(n)")

    yield "agrees with the library"
    for d, layers, vocab, batch, n in ((8, 3, 29, 5, 7), (64, 2, 101, 3, 31)):
        total = cost.parts(
            dataclasses.replace(_config(d, layers, vocab, n), attention_dropout=0.1), batch, n
        )
        want = sum(part.forward + part.backward for part in total.values())
        _same(answer(d, layers, vocab, batch, n), want, f"d = {d}, n = {n}")


@checker("ex-counting_cost-batch")
def largest_batch(answer):
    layers, d, heads, n = 3, 8, 2, 11
    each = 4 * layers * n * (18 * d + heads + 4)

    yield "what stands comes first"
    _same(answer(16 * 10**5 + 5 * each, 10**5, layers, d, heads, n), 5, "room for exactly 5")

    yield "a part of a sequence does not fit"
    _same(answer(16 * 10**5 + 5 * each - 1, 10**5, layers, d, heads, n), 4, "a byte less")

    yield "never below nothing"
    _same(answer(100, 1000, layers, d, heads, n), 0, "no room for the weights")

    yield "a whole number"
    got = answer(10**9, 10**6, 12, 768, 12, 1024)
    expect(isinstance(got, int), f"largest_batch: got a {type(got).__name__}, want an int")

    yield "agrees with the formula"
    for layers, d, heads, n in ((2, 64, 4, 128), (12, 96, 3, 31)):
        each = 4 * layers * n * (18 * d + heads + 4)
        _same(answer(10**9, 10**6, layers, d, heads, n), (10**9 - 16 * 10**6) // each, f"d = {d}")


@checker("ex-counting_cost-ridge", may_return_none=True)
def least_rows(answer):
    def intensity(m: int, d: int, size: int) -> float:
        return 2 * m * d * d / (size * (2 * m * d + d * d))

    yield "bound by arithmetic there, and by memory one row before"
    for d, ridge, size in ((64, 5.0, 2), (1024, 100.0, 2), (1024, 37.0, 4), (96, 3.3, 4)):
        m = answer(d, 7.0 * ridge, 7.0, size)
        expect(isinstance(m, int), f"least_rows({d}, …): got {m!r}, want an int")
        if intensity(m, d, size) < ridge:
            raise Wrong(f"d = {d}, {m} rows: intensity is below the ridge of {ridge}")
        if m > 1 and intensity(m - 1, d, size) >= ridge:
            raise Wrong(f"d = {d}: got {m}, and {m - 1} rows are enough already")

    yield "None where no number of rows is enough"
    got = answer(64, 33.0, 1.0, 2)
    expect(got is None, f"d / size is below the ridge: got {got!r}, want None")
