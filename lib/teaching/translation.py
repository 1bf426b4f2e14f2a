"""Translating short texts character by character: batches, training, what is right to the letter.

Used by chapter 07_encoder_decoder, with `lib.data.date_pairs` and `lib.models.transformer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data import CharacterVocabulary, TextPairs
from lib.generation import greedy
from lib.losses import label_smoothing_loss, masked_lm_loss
from lib.models.transformer import Transformer
from lib.training import fit

__all__ = [
    "Batch",
    "OneVector",
    "Translation",
    "attention_weights",
    "exact_match",
    "nats",
    "train_translator",
    "translate",
]


@dataclass(frozen=True)
class Batch:
    """B pairs as an encoder–decoder takes them; `inputs` are its arguments.

    input_ids, attention_mask : (B, m), what is read, its end token behind it, then padding
    decoder_input_ids : (B, n), the start token, then what is written; behind its end nothing counts
    labels : (B, n), what is written, then its end token; −100 behind that
    """

    input_ids: Tensor
    attention_mask: Tensor
    decoder_input_ids: Tensor
    labels: Tensor

    @property
    def inputs(self) -> dict[str, Tensor]:
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "decoder_input_ids": self.decoder_input_ids,
        }


class Translation:
    """Characters of both languages in one vocabulary, two more tokens, and batches of them.

    Attributes: `vocabulary`, `pad` (it starts a text too, as in Marian) and `eos`, the two ids
    behind those of the characters; `len(translation)` is V. As keywords for a config:
    `TransformerConfig(**translation.tokens, …)`.

    >>> data = TextPairs([("ab", "c"), ("b", "cc")], [("a", "c")], "")
    >>> translation = Translation(data)
    >>> batch = translation.batch(data.train)
    >>> batch.input_ids
    tensor([[0, 1, 4],
            [1, 4, 3]])
    >>> batch.decoder_input_ids
    tensor([[3, 2, 4],
            [3, 2, 2]])
    >>> batch.labels
    tensor([[   2,    4, -100],
            [   2,    2,    4]])
    """

    def __init__(self, data: TextPairs) -> None:
        pairs = data.train + data.validation
        self.vocabulary = CharacterVocabulary.from_text("".join(a + b for a, b in pairs))
        self.pad, self.eos = len(self.vocabulary), len(self.vocabulary) + 1

    def __len__(self) -> int:
        return len(self.vocabulary) + 2

    @property
    def tokens(self) -> dict[str, int]:
        return {"vocab_size": len(self), "pad_token_id": self.pad, "eos_token_id": self.eos}

    def read(self, texts: Iterable[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Texts to `input_ids` and `attention_mask`, (B, m). ValueError for an unknown character"""
        end = torch.tensor([self.eos])
        rows = [torch.cat([self.vocabulary.encode(text), end]) for text in texts]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)
        return {"input_ids": ids.to(device), "attention_mask": (ids != self.pad).to(device)}

    def batch(self, pairs: Sequence[tuple[str, str]], device: torch.device | str = "cpu") -> Batch:
        """Pairs of texts to a `Batch`, each side padded to its longest."""
        sources, targets = zip(*pairs, strict=True)
        written = self.read(targets, device)["input_ids"]  # (B, n)
        start = torch.full_like(written[:, :1], self.pad)
        return Batch(
            **self.read(sources, device),
            decoder_input_ids=torch.cat([start, written[:, :-1]], dim=1),
            labels=written.masked_fill(written == self.pad, -100),
        )

    def decode(self, ids: Tensor) -> str:
        """(n,) ids to the text before the first end token, without start tokens and padding."""
        text = []
        for token in ids.tolist():
            if token == self.eos:
                break
            if token != self.pad:
                text.append(token)
        return self.vocabulary.decode(text)


def translate(
    model: nn.Module,
    translation: Translation,
    texts: Sequence[str],
    *,
    write: Callable[..., Tensor] = greedy,
    max_new_tokens: int = 40,
    batch_size: int = 256,
    **options,
) -> list[str]:
    """What the model writes for each text, by `lib.generation`: greedily, or as `write` does.

    Texts that are not finished within `max_new_tokens` come as far as they are.
    """
    device = next(model.parameters()).device
    written: list[str] = []
    for start in range(0, len(texts), batch_size):
        read = translation.read(texts[start : start + batch_size], device)
        ids = write(model, **read, max_new_tokens=max_new_tokens, **options)
        written += [translation.decode(row) for row in ids]
    return written


def exact_match(
    model: nn.Module, translation: Translation, pairs: Sequence[tuple[str, str]], **options
) -> float:
    """The share of pairs whose text is translated right to the last character; see `translate`."""
    sources, targets = zip(*pairs, strict=True)
    written = translate(model, translation, sources, **options)
    return sum(a == b for a, b in zip(written, targets, strict=True)) / len(pairs)


@torch.no_grad()
def nats(model: nn.Module, translation: Translation, pairs: Sequence[tuple[str, str]]) -> float:
    """Mean cross-entropy under teacher forcing, a character or end token, without smoothing."""
    total, count = 0.0, 0
    device = next(model.parameters()).device
    for start in range(0, len(pairs), 256):
        batch = translation.batch(pairs[start : start + 256], device)
        logits = model(**batch.inputs)
        total += masked_lm_loss(logits, batch.labels, reduction="sum").item()
        count += int((batch.labels != -100).sum())
    return total / count


@torch.no_grad()
def attention_weights(model: Transformer, **inputs: Tensor) -> dict[str, list[Tensor]]:
    """The weights of every attention in one pass, by kind and layer.

    inputs : as in `Transformer.forward`: a `Batch`'s `inputs`

    Returns "encoder" (B, h, m, m), "decoder" (B, h, n, n) and "cross" (B, h, n, m), a list of
    layers each. The model is left as it was.
    """
    found: dict[str, list[Tensor]] = {"encoder": [], "decoder": [], "cross": []}

    def listen(kind: str) -> Callable[[nn.Module, tuple, dict], None]:
        def hook(module: nn.Module, args: tuple, options: dict) -> None:
            if not options.get("return_weights"):  # that is our own call
                found[kind].append(module(*args, **options, return_weights=True)[1])

        return hook

    modules = [(layer.attention, "encoder") for layer in model.encoder]
    for layer in model.decoder:
        modules += [(layer.attention, "decoder"), (layer.cross_attention, "cross")]
    handles = [m.register_forward_pre_hook(listen(k), with_kwargs=True) for m, k in modules]
    try:
        model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


class OneVector(Transformer):
    """A `Transformer` whose decoder sees the mean of the encoder's states, and nothing else.

    The memory is (B, 1, d_model). It is what an encoder–decoder without attention hands over.
    """

    def encode(self, input_ids: Tensor, *, attention_mask: Tensor | None = None) -> Tensor:
        states = super().encode(input_ids, attention_mask=attention_mask)
        if attention_mask is None:
            return states.mean(dim=1, keepdim=True)
        real = (attention_mask != 0).unsqueeze(-1).to(states.dtype)  # (B, m, 1)
        return (states * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True)

    def decode(self, decoder_input_ids: Tensor, memory: Tensor, **options) -> Tensor:
        options["attention_mask"] = None  # nothing of one vector is padding
        return super().decode(decoder_input_ids, memory, **options)


def train_translator(
    model: nn.Module,
    translation: Translation,
    pairs: Sequence[tuple[str, str]],
    *,
    steps: int,
    seed: int,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    smoothing: float = 0.0,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> list[float]:
    """Teacher forcing, by `lib.training.fit`: return the loss of every step.

    seed : of the batches, which are drawn from `pairs` with replacement; the first weights, and
        dropout if there is any, are the caller's to seed
    smoothing : ε of `lib.losses.label_smoothing_loss`

    The model is called with the `inputs` of a `Batch` and left in evaluation mode.
    """
    device = next(model.parameters()).device
    everything = translation.batch(pairs, device)  # once; batches are rows of it
    read = everything.attention_mask.sum(dim=1)
    written = (everything.labels != -100).sum(dim=1)
    generator = torch.Generator().manual_seed(seed)

    def batch_loss(step: int) -> Tensor:
        rows = torch.randint(len(pairs), (batch_size,), generator=generator).to(device)
        m, n = int(read[rows].max()), int(written[rows].max())
        logits = model(
            input_ids=everything.input_ids[rows, :m],
            attention_mask=everything.attention_mask[rows, :m],
            decoder_input_ids=everything.decoder_input_ids[rows, :n],
        )
        return label_smoothing_loss(logits, everything.labels[rows, :n], smoothing)

    losses = fit(model, batch_loss, steps=steps, learning_rate=learning_rate, progress=progress)
    model.eval()
    return losses
