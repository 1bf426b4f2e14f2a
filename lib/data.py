"""Real text that needs no network, characters as ids, and windows of them to train on.

Used from chapter 02_attention on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "CharacterVocabulary",
    "Text",
    "consecutive_windows",
    "random_windows",
    "topics_paragraphs",
    "topics_text",
]


# Text


def topics_paragraphs() -> list[str]:
    """Return the paragraphs of Python's own language reference, `pydoc_data.topics`, in order.

    White space is folded, so that a paragraph is one line; those under 40 characters are left out.
    A fifth of this text stands there twice or more, under several topics: only the first copy of a
    paragraph is kept, or the same sentence would stand on both sides of a split.
    The text comes with CPython and differs by its version.
    """
    from pydoc_data.topics import topics

    blocks = (block for topic in topics.values() for block in re.split(r"\n\s*\n", topic))
    paragraphs = (" ".join(block.split()) for block in blocks)
    return list(dict.fromkeys(p for p in paragraphs if len(p) >= 40))  # a dict keeps its order


@dataclass(frozen=True)
class Text:
    """A text in two parts, and the SHA-256 of the whole, to be printed beside any result."""

    train: str
    validation: str
    sha256: str


def topics_text(seed: int = 0, validation: float = 0.1) -> Text:
    """Split `topics_paragraphs` into a training and a validation part, one line a paragraph.

    A paragraph's side is drawn from the hash of the seed and the paragraph itself, so it is the
    same in every version of Python that has the paragraph. `validation` is the probability of that
    side, hence its share of the paragraphs only roughly: 162 of 1,625 in CPython 3.11.

    No paragraph stands on both sides. Phrases do, for it is reference prose: in CPython 3.11, 12 %
    of the validation text lies in runs of 40 or more characters that the training text has too.
    Compare numbers within this text only, and only for one `sha256`.
    ValueError if a side would be empty.
    """
    paragraphs = topics_paragraphs()
    sides: tuple[list[str], list[str]] = ([], [])
    for paragraph in paragraphs:
        digest = hashlib.sha256(f"{seed}\n{paragraph}".encode()).digest()
        sides[int.from_bytes(digest[:8], "big") / 2**64 < validation].append(paragraph)
    if not all(sides):
        raise ValueError(
            "validation: expected a share between 0 and 1 that leaves paragraphs on both sides, "
            f"got {validation!r}"
        )
    whole = hashlib.sha256("\n".join(paragraphs).encode()).hexdigest()
    return Text(train="\n".join(sides[0]), validation="\n".join(sides[1]), sha256=whole)


# Characters as ids


class CharacterVocabulary:
    """Characters and their ids 0, 1, 2, …, in the order of `characters`.

    There is no id for an unknown character: make the vocabulary from all the text there is
    (`from_text(text.train + text.validation)`). That tells the model which characters exist and
    nothing about how often; an untrained "unknown" would only spoil the validation loss.

    >>> vocabulary = CharacterVocabulary.from_text("abba, b")
    >>> vocabulary.characters
    ' ,ab'
    >>> vocabulary.encode("bab")
    tensor([3, 2, 3])
    >>> vocabulary.decode([3, 2, 3])
    'bab'
    """

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters)}
        if not characters or len(self._ids) != len(characters):
            raise ValueError(
                f"characters: expected at least one, each once, got {len(characters)} "
                f"of which {len(self._ids)} differ"
            )

    @classmethod
    def from_text(cls, text: str) -> CharacterVocabulary:
        """The characters of a text, sorted by code point."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Tensor:
        """Return the ids (n,), int64. ValueError names the first unknown character."""
        try:
            return torch.tensor([self._ids[character] for character in text], dtype=torch.long)
        except KeyError as error:
            unknown = error.args[0]
            raise ValueError(
                f"text: expected characters of the vocabulary ({len(self)} of them), "
                f"got {unknown!r} (U+{ord(unknown):04X}) at position {text.index(unknown)}"
            ) from None

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids (n,). ValueError names the first unknown id."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        for number in numbers:
            if not isinstance(number, int) or not 0 <= number < len(self):  # -1 would be the last
                raise ValueError(f"ids: expected integers from 0 to {len(self) - 1}, got {number}")
        return "".join(self.characters[number] for number in numbers)


# Windows


def random_windows(
    ids: Tensor, batch_size: int, length: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw windows of a text for a language model: (input, target), both (batch_size, length).

    target[b, t] is the id that follows input[b, t] in the text. Every start is equally likely.
    The starts are drawn on the generator's device: one on the CPU, the default, draws the same
    windows wherever `ids` lies. ValueError if `ids` (N,) has no N > length.
    """
    _validate_windows(ids, length)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
    device = "cpu" if generator is None else generator.device
    starts = torch.randint(len(ids) - length, (batch_size,), generator=generator, device=device)
    windows = ids.unfold(0, length + 1, 1)[starts.to(ids.device)]  # (batch_size, length + 1)
    return windows[:, :-1], windows[:, 1:]


def consecutive_windows(ids: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cut a text into windows side by side, for evaluation: (input, target), both (k, length).

    Read in order, the targets are ids[1 : k · length + 1], each once; k = ⌊(N − 1) / length⌋, and
    the fewer than `length` ids behind them are dropped. The first target of a window is predicted
    from one character, the last from `length`. ValueError if `ids` (N,) has no N > length.

    >>> for part in consecutive_windows(torch.arange(8), 3): print(part)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    tensor([[1, 2, 3],
            [4, 5, 6]])
    """
    _validate_windows(ids, length)
    used = (len(ids) - 1) // length * length
    return ids[:used].view(-1, length), ids[1 : used + 1].view(-1, length)


def _validate_windows(ids: Tensor, length: int) -> None:
    if ids.ndim != 1:
        raise ValueError(f"ids: expected shape (N,), got {tuple(ids.shape)}")
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"length: expected an integer of at least 1, got {length!r}")
    if len(ids) <= length:
        raise ValueError(f"ids: expected more than length = {length} of them, got {len(ids)}")
