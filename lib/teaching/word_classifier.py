"""A small BERT that reads a docstring word by word and names its module: what is to be explained.

Chapters 15 to 19 look into it, prune it, and ask which words its answer rests on, so it reads words
and not characters. Texts and labels are those of `lib.data.docstrings`. In training a random share
of the words, up to half, is hidden behind [MASK], so that texts with words taken away, which
Shapley values, LIME and deletion tests ask about, are not foreign to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.data import LabelledTexts, docstrings
from lib.models.bert import BERT
from lib.teaching.pretraining import small_config
from lib.training import fit, seed_everything

__all__ = ["CLS", "MASK", "PAD", "SENTENCE", "WordClassifier", "Words", "train", "words"]

PAD, CLS, MASK = range(3)
# What all chapters explain: held out, no word unknown, and short enough for all 2¹¹ coalitions.
SENTENCE = "Run the callback unless it has already been called or cancelled"
_WORDS = re.compile(r"\w+|…|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Words:
    """Labelled docstrings, and the words that have an id; rarer ones read as [MASK]."""

    data: LabelledTexts
    vocabulary: tuple[str, ...]  # what each id stands for
    length: int  # of a row, [CLS] included; longer texts are cut

    @property
    def names(self) -> Sequence[str]:
        """The label names, module names."""
        return self.data.names

    def split(self, text: str) -> list[str]:
        """The words and signs of a text, in lower case, as many as are read.

        >>> words().split("Return a sorted list.")
        ['return', 'a', 'sorted', 'list', '.']
        """
        return _WORDS.findall(text.lower())[: self.length - 1]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts to ids (B, n): [CLS], the words, and padding up to the longest of these texts."""
        if not texts:
            raise ValueError("texts: expected at least one, got none")
        ids = {word: i for i, word in enumerate(self.vocabulary) if i > MASK}
        rows = [[CLS, *(ids.get(word, MASK) for word in self.split(text))] for text in texts]
        packed = torch.full((len(rows), max(map(len, rows))), PAD)
        for row, packed_row in zip(rows, packed, strict=True):
            packed_row[: len(row)] = torch.tensor(row)
        return packed


def words(num_labels: int = 8, *, length: int = 32, rarest: int = 5) -> Words:
    """Docstrings of the `num_labels` largest modules; words seen `rarest` times have an id."""
    data = docstrings(num_labels=num_labels)
    counts = Counter(word for text in data.train for word in _WORDS.findall(text.lower()))
    frequent = sorted(word for word, count in counts.items() if count >= rarest)
    return Words(data, ("[PAD]", "[CLS]", "[MASK]", *frequent), length)


class WordClassifier(nn.Module):
    """BERT, and one linear map of its pooled [CLS] to the logits (B, classes) of the modules.

    Attributes: `bert`, a `lib.models.bert.BERT`; `head`, an `nn.Linear`.
    """

    def __init__(self, words: Words, d_model: int = 48, num_layers: int = 2) -> None:
        super().__init__()
        vocab_size = len(words.vocabulary)
        self.bert = BERT(small_config(vocab_size, words.length, d_model, num_layers, 0))
        self.head = nn.Linear(d_model, len(words.names))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Ids (B, n) to logits (B, classes); nobody attends to padding."""
        hidden = self.bert.encode(input_ids, attention_mask=input_ids != PAD)
        return self.head(self.bert.pool(hidden))

    def word_vectors(self, input_ids: Tensor) -> Tensor:
        """The rows (B, n, d_model) of the word table, before places are added."""
        return self.bert.encoder.embeddings.word(input_ids)

    def from_word_vectors(self, vectors: Tensor, input_ids: Tensor) -> Tensor:
        """Logits (B, classes) with these word vectors (B, n, d_model) in place of the ids' own.

        Of the ids only their padding counts. ValueError if the shapes do not belong together.
        """
        expected = (*input_ids.shape, self.head.in_features)
        if vectors.shape != expected:
            raise ValueError(f"vectors: expected {expected}, got {tuple(vectors.shape)}")
        table = self.bert.encoder.embeddings.word
        handle = table.register_forward_hook(lambda module, args, output: vectors)
        try:
            return self(input_ids)
        finally:
            handle.remove()

    def hide(self, input_ids: Tensor, present: Tensor) -> Tensor:
        """One text's ids (1, n) with absent words behind [MASK], a row for each row of `present`.

        present : boolean (N, n − 1), True = the word stays; [CLS] is no word and always stays
        """
        n = input_ids.shape[-1]
        if input_ids.shape != (1, n) or present.dtype != torch.bool or present.ndim != 2:
            raise ValueError(
                "input_ids, present: expected one row and a boolean matrix, got "
                f"{tuple(input_ids.shape)} and {present.dtype} {tuple(present.shape)}"
            )
        if present.shape[1] != n - 1:
            raise ValueError(f"present: expected {n - 1} columns, got {present.shape[1]}")
        kept = torch.where(present, input_ids[:, 1:], MASK)
        return torch.cat([input_ids[:, :1].expand(len(present), 1), kept], dim=1)

    def attention(self, input_ids: Tensor) -> Tensor:
        """The weights (layers, B, h, n, n) of every layer, in one pass and without gradients.

        They are computed from each layer's input by its own attention, so they are those that the
        pass itself used.
        """
        inputs: list[tuple] = []
        layers = self.bert.encoder.layers
        handles = [
            layer.register_forward_pre_hook(lambda module, args: inputs.append(args))
            for layer in layers
        ]
        try:
            with torch.no_grad():
                self(input_ids)
        finally:
            for handle in handles:
                handle.remove()
        with torch.no_grad():
            weights = [
                layer.attention(x, mask=mask, return_weights=True)[1]
                for layer, (x, mask) in zip(layers, inputs, strict=True)
            ]
        return torch.stack(weights)


def train(
    words: Words,
    *,
    seed: int = 0,
    steps: int = 600,
    d_model: int = 48,
    num_layers: int = 2,
    batch: int = 32,
    learning_rate: float = 3e-3,
    hidden: float = 0.5,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> tuple[WordClassifier, float]:
    """Train one from its first weights; return it, in eval mode, and its held-out accuracy.

    A batch hides each word with one probability, drawn between 0 and `hidden`.
    """
    seed_everything(seed)
    rng = torch.Generator().manual_seed(seed)
    model = WordClassifier(words, d_model, num_layers)
    ids = words.encode(words.data.train)
    labels = torch.tensor(words.data.train_labels)

    def batch_loss(step: int) -> Tensor:
        rows = torch.randint(len(ids), (batch,), generator=rng)
        x = ids[rows][:, : int((ids[rows] != PAD).sum(1).max())]
        share = hidden * torch.rand((), generator=rng)
        away = (torch.rand(x.shape, generator=rng) < share) & (x > MASK)
        return F.cross_entropy(model(torch.where(away, MASK, x)), labels[rows])

    fit(model, batch_loss, steps=steps, learning_rate=learning_rate, progress=progress)
    model.eval()
    held_out = words.encode(words.data.validation).split(256)
    with torch.no_grad():
        said = torch.cat([model(x).argmax(-1) for x in held_out])
    correct = said == torch.tensor(words.data.validation_labels)
    return model, correct.double().mean().item()
