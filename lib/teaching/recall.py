"""A task that needs to see far: a value is told once in real text, and asked for some way off.

Chapter 09_sliding_window trains a few models on it, and `book/experiments/window_recall.py` more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.data import random_windows
from lib.losses import masked_lm_loss
from lib.models.longformer import Longformer, LongformerConfig
from lib.training import fit

__all__ = ["RecallTask", "accuracy_by_distance", "train_recall"]

START, PAD, ASK, FIRST_VALUE = range(4)  # 1 is the padding id of Longformer; no token has it


@dataclass(frozen=True)
class RecallTask:
    """Characters of a text, one of them replaced by a value and one by a question mark of ours.

    characters : (m,) ids of a text, below `alphabet`; each sample is a window of it
    length : tokens of a sample, the first of which is a start token, always the same
    longest : the largest distance between value and question, 1 to length − 2
    values : how many values there are; a guess is right once in so many
    """

    characters: Tensor
    alphabet: int
    length: int = 32
    longest: int = 16
    values: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.longest <= self.length - 2:
            raise ValueError(
                f"longest: expected 1 to length - 2 = {self.length - 2}, got {self.longest}"
            )

    @property
    def vocab_size(self) -> int:
        return FIRST_VALUE + self.values + self.alphabet

    def batch(
        self, count: int, generator: torch.Generator, distance: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Ids and labels (count, length): −100 but where the question stands, there the value's id.

        The distance is drawn from 1 to `longest`, or is the given one; the value stands before or
        after the question; both places are drawn among those that are far enough from the ends.
        """

        def draw(below: int) -> Tensor:
            return torch.randint(below, (count,), generator=generator)

        text, _ = random_windows(self.characters, count, self.length - 1, generator)
        ids = torch.empty(count, self.length, dtype=torch.long)
        ids[:, 0], ids[:, 1:] = START, text + FIRST_VALUE + self.values
        apart = draw(self.longest) + 1 if distance is None else torch.full((count,), distance)
        room = self.length - 1 - apart  # where the left one of both may stand, after the start
        left = 1 + (torch.rand(count, generator=generator) * room).long()
        backwards, value = draw(2).bool(), FIRST_VALUE + draw(self.values)
        told = torch.where(backwards, left + apart, left)
        asked = torch.where(backwards, left, left + apart)
        row = torch.arange(count)
        ids[row, told], ids[row, asked] = value, ASK
        labels = torch.full_like(ids, -100)
        labels[row, asked] = value
        return ids, labels


def train_recall(
    task: RecallTask,
    *,
    layers: int,
    window: int,
    start_is_global: bool,
    seed: int,
    steps: int,
    batch_size: int = 32,
    d_model: int = 32,
    learning_rate: float = 3e-3,
    device: torch.device | str = "cpu",
) -> Longformer:
    """A small Longformer, trained to answer; in evaluation mode."""
    torch.manual_seed(seed)
    config = LongformerConfig(
        task.vocab_size,
        d_model=d_model,
        num_layers=layers,
        num_heads=2,
        d_ff=2 * d_model,
        max_length=task.length + PAD + 1,
        window=window,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=0.1,
        pad_token_id=PAD,
    )
    model = Longformer(config).to(device)
    generator = torch.Generator().manual_seed(seed)

    def batch_loss(step: int) -> Tensor:
        ids, labels = (x.to(device) for x in task.batch(batch_size, generator))
        return masked_lm_loss(_answers(model, ids, start_is_global), labels)

    fit(model, batch_loss, steps=steps, learning_rate=learning_rate)
    return model.eval()


def accuracy_by_distance(
    model: Longformer, task: RecallTask, *, start_is_global: bool, count: int = 200, seed: int = 99
) -> list[float]:
    """Share of right answers at each distance from 1 to `longest`, among the values."""
    generator = torch.Generator().manual_seed(seed)
    device = model.embeddings.word.weight.device
    shares = []
    for distance in range(1, task.longest + 1):
        ids, labels = (x.to(device) for x in task.batch(count, generator, distance))
        with torch.no_grad():
            logits = _answers(model, ids, start_is_global)[labels >= 0]
        found = logits[:, FIRST_VALUE : FIRST_VALUE + task.values].argmax(-1) + FIRST_VALUE
        shares.append((found == labels[labels >= 0]).double().mean().item())
    return shares


def _answers(model: Longformer, ids: Tensor, start_is_global: bool) -> Tensor:
    if not start_is_global:
        return model(ids)
    is_global = torch.zeros_like(ids)
    is_global[:, 0] = 1
    return model(ids, global_attention_mask=is_global)
