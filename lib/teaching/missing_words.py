"""A sentence as a game: its words are the players, and what a missing word looks like is chosen.

A model has no input for "this word is not there". Four ways to say it, all of them in use:

* "mask": [MASK] stands in its place;
* "delete": the text closes up behind it, so that later words move to earlier places;
* "pad": its place is kept and nobody may attend to it;
* "random": another word stands there, and the answer is averaged over several draws.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lib.teaching.word_classifier import MASK, PAD, WordClassifier, Words

__all__ = ["WAYS", "background", "sentence_game"]

WAYS = ("mask", "delete", "pad", "random")


def sentence_game(
    model: WordClassifier,
    input_ids: Tensor,
    label: int,
    way: str = "mask",
    *,
    others: Tensor | None = None,
) -> Callable[[Tensor], Tensor]:
    """Return f: coalitions (N, n) of a text's n words, True = there, to the label's logits (N,).

    input_ids : (1, n + 1), [CLS] and the words, as `Words.encode` gives them; [CLS] is no player
    way : one of `WAYS`
    others : (draws, n) ids, for "random" alone: what stands where a word is missing, one row a
        draw, of `background`. The same rows for every coalition, so that f is a function.

    ValueError for an unknown way, a text with padding or of several rows, or others that don't fit.
    """
    if way not in WAYS:
        raise ValueError(f"way: expected one of {', '.join(WAYS)}, got {way!r}")
    if input_ids.ndim != 2 or len(input_ids) != 1 or bool((input_ids == PAD).any()):
        raise ValueError(
            f"input_ids: expected one row without padding, got {tuple(input_ids.shape)}"
        )
    n = input_ids.shape[1] - 1
    fits = others is not None and others.ndim == 2 and others.shape[1] == n and len(others) > 0
    if (way == "random") != fits or (way != "random" and others is not None):
        got = None if others is None else tuple(others.shape)
        want = f"(draws, {n}) ids" if way == "random" else "none"
        raise ValueError(f"others: expected {want} for {way!r}, got {got}")
    first, words = input_ids[:, :1], input_ids[:, 1:]

    def logits(rows: Tensor) -> Tensor:
        with torch.no_grad():
            ids = torch.cat([first.expand(len(rows), 1), rows], dim=1)
            return model(ids)[:, label].double()

    def f(present: Tensor) -> Tensor:
        if way == "mask":
            return logits(torch.where(present, words, MASK))
        if way == "pad":
            return logits(torch.where(present, words, PAD))
        if way == "delete":
            front = (~present).int().argsort(dim=1, stable=True)  # those present, in their order
            kept = torch.where(present, words, PAD)
            return logits(kept.gather(1, front))
        return torch.stack([logits(torch.where(present, words, row)) for row in others]).mean(0)

    return f


def background(words: Words, n: int, draws: int, *, seed: int = 0) -> Tensor:
    """Draw ids (draws, n) of known words, as often as they occur in the training texts."""
    ids = words.encode(words.data.train)
    known = ids[ids > MASK]
    rng = torch.Generator().manual_seed(seed)
    return known[torch.randint(len(known), (draws, n), generator=rng)]
