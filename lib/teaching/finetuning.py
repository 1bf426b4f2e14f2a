"""Fine-tune a decoder to classify texts, with GPT's auxiliary loss: chapter 10_gpt.

A text is read between two new tokens, start and extract; a linear map of the vector at the extract
token, which has read all of it, gives the label's logits. The same pass gives the next-token logits
at every position, so the second loss costs only its head.

Source: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", sections
3.2 (equations 3 to 5) and 3.3. Deviations: losses are means and not sums, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses import causal_lm_loss
from lib.models.gpt2 import GPT2
from lib.training import fit

__all__ = ["Classifier", "Examples", "accuracy", "fine_tune", "fine_tuning_loss", "pack"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts as rows: ids (N, n), which of them are real (N, n), and labels (N,).

    Padding stands on the right, where under a causal mask no real token can see it.
    """

    ids: Tensor
    real: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor | slice) -> Examples:
        return Examples(self.ids[rows], self.real[rows], self.labels[rows])


def pack(
    texts: Sequence[Tensor], labels: Sequence[int], *, length: int, start: int, extract: int
) -> Examples:
    """Make rows of `length`: start, the first length − 2 ids of a text, extract, and padding.

    ValueError if `length` leaves no room for a token, or texts and labels differ in number.

    >>> pack([torch.tensor([4, 5, 6, 7])], [1], length=5, start=8, extract=9).ids
    tensor([[8, 4, 5, 6, 9]])
    """
    if length < 3:
        raise ValueError(f"length: expected at least 3, got {length}")
    if len(texts) != len(labels):
        raise ValueError(f"labels: expected {len(texts)}, one a text, got {len(labels)}")
    ids = torch.full((len(texts), length), extract)
    real = torch.zeros(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        body = text[: length - 2]
        ids[row, 0] = start
        ids[row, 1 : 1 + len(body)] = body
        real[row, : len(body) + 2] = True
    return Examples(ids, real, torch.tensor(labels, dtype=torch.long))


class Classifier(nn.Module):
    """A decoder, and one linear map, W_y, of its vector at the last real token."""

    def __init__(self, decoder: GPT2, num_labels: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = nn.Linear(decoder.config.d_model, num_labels)
        nn.init.normal_(self.head.weight, std=decoder.config.init_std)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """ids, real (B, n) to the logits of labels (B, C) and of next tokens (B, n, V)."""
        hidden = self.decoder.encode(ids)  # (B, n, d_model)
        last = real.sum(dim=1) - 1
        label_logits = self.head(hidden[torch.arange(len(ids), device=ids.device), last])
        return label_logits, F.linear(hidden, self.decoder.word.weight)


def fine_tuning_loss(model: Classifier, batch: Examples, weight: float) -> Tensor:
    """L_3 = L_2 + λ L_1, to be minimised: −log p(label | text), plus λ times the text's own loss.

    L_2 is a mean over examples and L_1 a mean over all their real tokens; λ = `weight`.
    """
    label_logits, token_logits = model(batch.ids, batch.real)
    loss = F.cross_entropy(label_logits, batch.labels)
    if weight:
        tokens = batch.ids.masked_fill(~batch.real, -100)
        loss = loss + weight * causal_lm_loss(token_logits, tokens)
    return loss


def fine_tune(
    decoder: GPT2,
    train: Examples,
    num_labels: int,
    *,
    weight: float,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    new_tokens: Sequence[int] = (),
    progress: Callable[[range], Iterable[int]] | None = None,
) -> Classifier:
    """Train a classifier on top of a decoder, all weights of both; the decoder is changed.

    `new_tokens` get fresh rows of the table: they were never read before. `seed` draws these, the
    head and the batches, so two arms of one seed see the same examples in the same order.
    """
    torch.manual_seed(seed)
    model = Classifier(decoder, num_labels).to(decoder.word.weight.device)
    with torch.no_grad():
        for token in new_tokens:
            decoder.word.weight[token].normal_(std=decoder.config.init_std)
    rng = torch.Generator().manual_seed(seed)

    def batch_loss(step: int) -> Tensor:
        rows = torch.randint(len(train), (batch,), generator=rng)
        return fine_tuning_loss(model, train[rows.to(train.ids.device)], weight)

    fit(model, batch_loss, steps=steps, learning_rate=learning_rate, progress=progress)
    return model.eval()


@torch.no_grad()
def accuracy(model: Classifier, examples: Examples, batch: int = 256) -> float:
    """The share of examples whose label has the largest logit."""
    right = 0
    for start in range(0, len(examples), batch):
        part = examples[slice(start, start + batch)]
        right += int((model(part.ids, part.real)[0].argmax(-1) == part.labels).sum())
    return right / len(examples)
