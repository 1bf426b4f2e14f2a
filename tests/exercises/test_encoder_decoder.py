"""Exercises of 07_encoder_decoder: stub open, solution passes, each mistake told apart."""

import itertools
import math

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "07_encoder_decoder"


def _inputs(move=True, fill=True, left=False, in_place=False, start_last=False):
    def decoder_inputs(y, start, pad):
        out = y if in_place else y.clone()
        if in_place:
            out[:, 1:] = y[:, :-1].clone()
            out[:, 0] = start
        elif left:
            out = torch.cat([y[:, 1:], torch.full_like(y[:, :1], start)], 1)
        elif start_last:
            out = torch.cat([torch.full_like(y[:, :1], start), y], 1)
        elif move:
            out = torch.cat([torch.full_like(y[:, :1], start), y[:, :-1]], 1)
        else:
            out[:, 0] = start
        return out.masked_fill(out == -100, pad) if fill else out

    return decoder_inputs


def _copy(y, start, pad):
    return torch.cat([torch.full_like(y[:, :1], start), y[:, 1:]], 1).masked_fill(y == -100, pad)


def _cross(scale=True, swap=False, mask="key", keys="M", values="M"):
    def cross_attend(H, M, W_Q, W_K, W_V, lengths):
        if swap:
            H, M = M, H
        Q, K, V = H @ W_Q, M @ W_K, M @ W_V
        scores = Q @ K.mT / (math.sqrt(K.shape[-1]) if scale else 1)
        real = torch.arange(K.shape[1]) < lengths[:, None]
        if mask == "key":
            scores = scores.masked_fill(~real[:, None], -math.inf)
        if mask == "inverted" and not bool(real.all()):
            scores = scores.masked_fill(real[:, None], -1e9)
        if mask == "after":
            return scores.softmax(-1).masked_fill(~real[:, None], 0) @ V
        return scores.softmax(-1) @ V

    return cross_attend


def _one_vector(H, M, W_Q, W_K, W_V, lengths):
    return (M @ W_V).mean(1, keepdim=True).expand(-1, H.shape[1], -1)


def _gradient(share=None, sign=1, mean=False, others=False, plain=False):
    def smoothed_gradient(logits, y, eps):
        V = logits.shape[-1]
        q = torch.full_like(logits, eps / (V - 1 if others else V))
        q[torch.arange(len(y)), y] = 1 - eps if others else 1 - eps + eps / V
        if share:
            q[torch.arange(len(y)), y] = 1.0
        if plain:
            q = torch.nn.functional.one_hot(y, V).double()
        out = sign * (logits.softmax(-1) - q)
        return out / len(y) if mean else out

    return smoothed_gradient


def _best(penalty, choose=max):
    def best(log_p, lengths, alpha):
        scores = [v / penalty(n, alpha) for v, n in zip(log_p, lengths, strict=True)]
        return scores.index(choose(scores))

    return best


def _beam(k_of=None, log=math.log, exhaustive=False, as_list=False, per_beam=False):
    def beam(rows, k, n):
        k = k if k_of is None else k_of(k)
        kept = [(0.0, ())]
        for _ in range(n):
            longer = [
                [(s + log(p), (*text, v)) for v, p in enumerate(rows(text))] for s, text in kept
            ]
            if per_beam and len(kept) > 1:
                kept = [max(extensions) for extensions in longer]
            else:
                kept = sorted(itertools.chain(*longer), reverse=True)[: None if exhaustive else k]
        text = max(kept)[1]
        return list(text) if as_list else text

    return beam


def _every_text(rows, k, n):
    """The best of all texts, whatever k."""
    return _beam(exhaustive=True)(rows, k, n)


WRONG = {
    "ex-encoder_decoder-shift": {
        "not moved": (_copy, "the first row"),
        "moved to the left": (_inputs(left=True), "the start token comes first"),
        "one longer": (_inputs(start_last=True), "got shape (2, 5)"),
        "−100 left": (_inputs(fill=False), "a −100 is left"),
        "in place": (_inputs(in_place=True), "changed in place"),
    },
    "ex-encoder_decoder-cross": {
        "queries from the memory": (_cross(swap=True, mask=None), "got shape (2, 5, 4)"),
        "not scaled": (_cross(scale=False), "not divided by √d_k"),
        "one vector": (_one_vector, "all rows real"),
        "no mask": (_cross(mask=None), "padding that changes moves the output"),
        "mask inverted": (_cross(mask="inverted"), "the memory without padding"),
        "mask after the softmax": (_cross(mask="after"), "moves the output by 2.5"),
    },
    "ex-encoder_decoder-gradient": {
        "ε for the others only": (_gradient(others=True), "is what autograd says"),
        "a target that sums to more than one": (_gradient(share=True), "sums to zero"),
        "the other sign": (_gradient(sign=-1), "is p − onehot without smoothing"),
        "a mean": (_gradient(mean=True), "got"),
        "no smoothing": (_gradient(plain=True), "at eps = .1"),
        "transposed": (lambda z, y, e: _gradient()(z, y, e).T, "got shape (7, 4)"),
    },
    "ex-encoder_decoder-penalty": {
        "the least": (_best(lambda n, a: ((5 + n) / 6) ** a, min), "without a penalty"),
        "never a penalty": (_best(lambda n, a: 1.0), "a longer text may overtake"),
        "the length itself": (_best(lambda n, a: n**a), "not the length itself"),
        "α as a factor": (_best(lambda n, a: 1 + a * (n - 1) / 6), "α is an exponent"),
    },
    "ex-encoder_decoder-beams": {
        "greedy": (_beam(k_of=lambda k: 1), "the greedy text"),
        "adds probabilities": (_beam(log=float), "multiplies"),
        "exhaustive": (_every_text, "one beam is greedy"),
        "a list": (_beam(as_list=True), "returns a text of n tokens"),
        "one heir each": (_beam(per_beam=True), "both beams share a first token"),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
