"""How much each word matters to a word classifier's answer, by several measures, and how far they
agree.

Chapter 19_attention_is_not_explanation and its recorded run ask the same questions by these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from lib.interpret.attention import (
    attention_norms,
    attention_rollout,
    kendall_tau,
    replace_weights,
)
from lib.teaching.word_classifier import PAD, WordClassifier, Words

__all__ = ["MEASURES", "agreement", "long_texts", "other_attention", "word_scores"]

# What is held against leave-one-out; chance is a random order, what no measure knows.
MEASURES = ("attention", "rollout", "norms", "gradient", "chance")


def word_scores(model: WordClassifier, input_ids: Tensor, *, seed: int = 0) -> dict[str, Tensor]:
    """For one text (1, n) without padding a score (n − 1,) for each word, by each of MEASURES and
    by "leave-one-out"; all are at least 0, and say nothing of for or against.

    f is the logit of the class that the model names.
    * attention: the last layer's weights from [CLS] to the word, the mean over heads;
    * rollout: row [CLS] of `attention_rollout`;
    * norms: row [CLS] of the last layer's `attention_norms`;
    * gradient: |x_j · ∂f/∂x_j| of the word vector x_j;
    * chance: random numbers of this seed;
    * leave-one-out: |f − f without word j|, the word hidden behind [MASK].
    ValueError for another shape, and for padding.
    """
    if input_ids.ndim != 2 or input_ids.shape[0] != 1 or bool((input_ids == PAD).any()):
        raise ValueError(
            f"input_ids: expected one text without padding, (1, n), got {tuple(input_ids.shape)}"
        )
    n = input_ids.shape[1]
    weights = model.attention(input_ids)  # (layers, 1, h, n, n)
    seen: list[Tensor] = []
    last = model.bert.encoder.layers[-1].attention
    handle = last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    vectors = model.word_vectors(input_ids).detach().requires_grad_()
    try:
        logits = model.from_word_vectors(vectors, input_ids)[0]
    finally:
        handle.remove()
    named = int(logits.argmax())
    (slope,) = torch.autograd.grad(logits[named], vectors)
    with torch.no_grad():
        norms = attention_norms(last, seen[0])[0, 0]
        without = model(model.hide(input_ids, ~torch.eye(n - 1, dtype=torch.bool)))[:, named]
    return {
        "attention": weights[-1, 0, :, 0, 1:].mean(0),
        "rollout": attention_rollout(weights)[0, 0, 1:],
        "norms": norms[1:],
        "gradient": (slope * vectors.detach()).sum(-1)[0, 1:].abs(),
        "chance": torch.rand(n - 1, generator=torch.Generator().manual_seed(seed)),
        "leave-one-out": (logits[named].detach() - without).abs(),
    }


def agreement(
    scores: Sequence[dict[str, Tensor]], with_: str = "leave-one-out"
) -> dict[str, float]:
    """Kendall's τ of every measure with one of them, the mean over texts."""
    return {
        name: sum(float(kendall_tau(one[name], one[with_])) for one in scores) / len(scores)
        for name in scores[0]
        if name != with_
    }


def long_texts(words: Words, how_many: int, least: int = 10) -> list[Tensor]:
    """The first held-out texts with at least so many words, each as ids (1, n)."""
    texts = (text for text in words.data.validation if len(words.split(text)) >= least)
    return [words.encode([text]) for text, _ in zip(texts, range(how_many), strict=False)]


@contextmanager
def other_attention(
    model: WordClassifier, change: Callable[[Tensor], Tensor], layers: Sequence[int] | None = None
) -> Iterator[None]:
    """`replace_weights` in all layers of a model, or in some, inside a `with` block."""
    every = model.bert.encoder.layers
    with ExitStack() as stack:
        for number in range(len(every)) if layers is None else layers:
            stack.enter_context(replace_weights(every[number].attention, change))
        yield
