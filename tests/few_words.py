"""A corpus so small that a word classifier is trained on it within a test."""

from __future__ import annotations

from dataclasses import replace

from lib.teaching.word_classifier import Words, words


def few_words() -> Words:
    """Sixty texts of two modules, read to their tenth word."""
    texts = words(2, length=10, rarest=20)
    data = texts.data
    few = replace(
        data,
        train=data.train[:40],
        train_labels=data.train_labels[:40],
        validation=data.validation[:20],
        validation_labels=data.validation_labels[:20],
    )
    return Words(few, texts.vocabulary, texts.length)
