"""Pre-train a small encoder in several ways at equal counted compute, and see what it is good for.

Chapter 13_replaced_token_detection runs it small; book/experiments/rtd_large.py runs it larger.
Text is read character by character: with some sixty different ones a model of this size leaves the
frequencies of single tokens behind within minutes, which with pieces of words it does not.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.corruption import draw_positions, draw_words
from lib.data import docstrings
from lib.losses import masked_lm_loss, replaced_token_loss
from lib.models.bert import BERTConfig, MaskedLM
from lib.models.electra import ELECTRA, Discriminator, smaller
from lib.positions import sinusoidal_encoding
from lib.training import fit, seed_everything

__all__ = [
    "ARMS",
    "Corpus",
    "auc",
    "character_corpus",
    "classify",
    "config_for",
    "pretrain",
    "step_flops",
    "words_baseline",
]

PAD, UNKNOWN, BREAK, MASK = 0, 1, 2, 3  # BREAK ends a docstring
SPECIAL = (PAD, UNKNOWN, BREAK, MASK)
ARMS = ("none", "mlm", "rtd", "unigram", "two-stage")


# Text


@dataclass(frozen=True, eq=False)
class Corpus:
    """Windows to pre-train on, and documents of `windows` windows with a label.

    train, validation : (N, n) ids
    documents, held_out : (D, windows, n) ids, padded; labels, held_out_labels : (D,)
    """

    train: Tensor
    validation: Tensor
    documents: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    characters: tuple[str, ...]  # what each id stands for
    names: tuple[str, ...]
    sha256: str

    @property
    def frequencies(self) -> Tensor:
        """How often each id stands in the training text, as shares without special ids: (V,)."""
        counts = torch.bincount(self.train.flatten(), minlength=len(self.characters)).double()
        counts[list(SPECIAL)] = 0
        return counts / counts.sum()


def character_corpus(
    length: int = 32, windows: int = 4, *, num_labels: int = 24, rarest: int = 100
) -> Corpus:
    """Docstrings of the standard library, in lower case; their module is their label.

    Characters that occur fewer than `rarest` times are one id. The pre-training text is that of
    the training documents, whole and without labels; a document is read up to its first
    `windows` · `length` characters.
    """
    data = docstrings(num_labels=num_labels)
    kept = frequent_characters(data.train, rarest)
    ids = {character: i for i, character in enumerate(kept, start=len(SPECIAL))}

    def encode(text: str) -> list[int]:
        return [ids.get(character, UNKNOWN) for character in text.lower()]

    def packed(texts: Sequence[str]) -> Tensor:
        flat = [i for text in texts for i in (*encode(text), BREAK)]
        rows = len(flat) // length
        return torch.tensor(flat[: rows * length]).view(rows, length)

    def documents(texts: Sequence[str]) -> Tensor:
        most = windows * length
        rows = [(encode(text)[:most] + [PAD] * most)[:most] for text in texts]
        return torch.tensor(rows).view(len(texts), windows, length)

    return Corpus(
        train=packed(data.train),
        validation=packed(data.validation),
        documents=documents(data.train),
        labels=torch.tensor(data.train_labels),
        held_out=documents(data.validation),
        held_out_labels=torch.tensor(data.validation_labels),
        characters=("·", "?", "¶", "▢", *kept),
        names=data.names,
        sha256=data.sha256,
    )


def frequent_characters(texts: Sequence[str], rarest: int) -> list[str]:
    """Characters that occur in lower case at least `rarest` times, the most frequent first."""
    counts = Counter("".join(texts).lower())
    return [c for c, count in sorted(counts.items(), key=lambda x: (-x[1], x)) if count >= rarest]


# Models


def config_for(corpus: Corpus, d_model: int = 64, num_layers: int = 2) -> BERTConfig:
    """A `small_config` for windows of this corpus, without segments."""
    return small_config(len(corpus.characters), corpus.train.shape[1], d_model, num_layers, 0)


def small_config(
    vocab_size: int, max_length: int, d_model: int, num_layers: int, num_segments: int
) -> BERTConfig:
    """A small encoder: heads of 16, no dropout, first weights for its width."""
    return BERTConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=d_model // 16,
        d_ff=4 * d_model,
        max_length=max_length,
        num_segments=num_segments,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=1 / math.sqrt(d_model),
    )


def start_local(encoder: nn.Module) -> None:
    """Let an encoder begin by looking at its neighbours, in place.

    Places begin as sinusoids, and each layer's key map as a copy of its query map, so that a
    query is most like the keys beside it. All arms begin so; without it most of a small budget
    goes by before any attention is local. The copy is in the spirit of Trockman & Kolter 2023,
    "Mimetic Initialization of Self-Attention Layers", arXiv:2305.09828.
    """
    places = encoder.embeddings.position.weight
    with torch.no_grad():
        places.copy_(math.sqrt(2 / places.shape[1]) * sinusoidal_encoding(*places.shape))
        for name, module in encoder.named_modules():
            if name.endswith("attention"):
                module.key_projection.weight.copy_(module.query_projection.weight)


def step_flops(
    arm: str, config: BERTConfig, batch: int, share: float = 0.15, *, recompute: bool = False
) -> int:
    """Operations in the matrix products of one training step.

    The backward pass costs twice the forward pass: each product has two gradients. A fused
    attention kernel computes its scores once more on the way back; with `recompute` that is
    counted too, and the result is what `lib.teaching.measure.flops` sees. "two-stage" is its
    second stage; the first is "mlm".
    """
    n = config.max_length
    tokens, masked = batch * n, batch * math.ceil(share * n - 1e-9)

    def encoder(c: BERTConfig, trained: bool = True) -> int:
        d = c.d_model
        project = 2 * c.width * d if c.width != d else 0
        forward = project + c.num_layers * (2 * (4 * d * d + 2 * d * c.d_ff) + 4 * n * d)
        again = 2 * n * d * c.num_layers if recompute and trained else 0
        return tokens * ((3 if trained else 1) * forward + again)

    def words(c: BERTConfig) -> int:
        return masked * 2 * (c.d_model * c.width + c.width * c.vocab_size)

    judge = encoder(config) + 3 * tokens * 2 * (config.d_model**2 + config.d_model)
    small = smaller(config, 1 / 4)
    return {
        "none": 0,
        "mlm": encoder(config) + 3 * words(config),
        "rtd": encoder(small) + 3 * words(small) + judge,
        "unigram": judge,
        "two-stage": encoder(config, trained=False) + words(config) + judge,
    }[arm]


@torch.no_grad()
def guesses(model: Any, ids: Tensor, is_masked: Tensor, rng: torch.Generator) -> Tensor:
    """Put a masked language model's draws in the place of masked ids."""
    hidden = model.encode(ids.masked_fill(is_masked, MASK))[is_masked]
    drawn = draw_words(model.mlm_logits(hidden), "gumbel", rng)
    return ids.masked_scatter(is_masked, drawn)


def pretrain(
    arm: str,
    corpus: Corpus,
    config: BERTConfig,
    *,
    budget: int,
    seed: int,
    batch: int = 64,
    learning_rate: float = 3e-3,
    share: float = 0.15,
    weight: float = 50.0,
    device: torch.device | str = "cpu",
    progress: Callable[[range], Iterable[int]] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train by one of `ARMS` for `budget` counted operations; return the encoder and what it did.

    "none" does not train; "mlm" guesses masked tokens; "rtd" is ELECTRA with a generator of a
    quarter of the width; "unigram" draws replacements by their frequency alone; "two-stage" spends
    half on "mlm", then begins a discriminator with those weights and keeps the generator frozen.

    The report has steps, flops, seconds and the losses' means over ten parts of the run. Where
    there is a discriminator, it was judged on held-out text: `auc`, `auc_frequency` (of −log of
    the token's frequency), `recall` at the threshold one half, the share `replaced`, and `hit`,
    the share of masked tokens whose draw was the original.

    The draws come from a generator on the CPU, so they are the same on every device.
    """
    if arm not in ARMS:
        raise ValueError(f"arm: expected one of {', '.join(ARMS)}, got {arm!r}")
    seed_everything(seed)
    began = time.perf_counter()
    rng = torch.Generator().manual_seed(seed)
    train, frequencies = corpus.train.to(device), corpus.frequencies
    report: dict[str, Any] = {"steps": 0, "flops": 0}

    def draw() -> tuple[Tensor, Tensor]:
        ids = train[torch.randint(len(train), (batch,), generator=rng).to(device)]
        return ids, draw_positions(ids, None, share, SPECIAL, rng)

    def train_on(model: nn.Module, batch_loss: Callable, cost: int, budget: int) -> list[float]:
        steps = max(1, budget // cost)
        losses = fit(model, batch_loss, steps=steps, learning_rate=learning_rate, progress=progress)
        report["steps"] += steps
        report["flops"] += steps * cost
        return losses

    cost = step_flops(arm, config, batch, share)
    corrupt: Callable[[Tensor, Tensor, torch.Generator], Tensor] | None = None
    discriminator: nn.Module | None = None
    if arm in ("none", "mlm", "two-stage"):
        model = MaskedLM(config).to(device)
        start_local(model.encoder)

        def mlm(step: int) -> Tensor:
            ids, is_masked = draw()
            hidden = model.encode(ids.masked_fill(is_masked, MASK))[is_masked]
            return masked_lm_loss(model.mlm_logits(hidden), ids[is_masked])

        if arm != "none":
            first = budget if arm == "mlm" else budget // 2
            losses = train_on(model, mlm, step_flops("mlm", config, batch, share), first)
            report["mlm_loss"] = tenths(losses)
        encoder = model.encoder
        if arm == "two-stage":
            discriminator = Discriminator(config).to(device)
            discriminator.encoder.load_state_dict(encoder.state_dict())
            model.eval().requires_grad_(False)

            def corrupt(ids, is_masked, rng):
                return guesses(model, ids, is_masked, rng)

    if arm == "unigram":
        discriminator = Discriminator(config).to(device)
        start_local(discriminator.encoder)

        def corrupt(ids, is_masked, rng):
            count = int(is_masked.sum())
            drawn = torch.multinomial(frequencies, count, replacement=True, generator=rng)
            return ids.masked_scatter(is_masked, drawn.to(ids.device))

    if arm in ("unigram", "two-stage"):

        def rtd(step: int) -> Tensor:
            ids, is_masked = draw()
            corrupted = corrupt(ids, is_masked, rng)
            return replaced_token_loss(discriminator(corrupted), corrupted != ids)

        losses = train_on(discriminator, rtd, cost, budget - report["flops"])
        report["rtd_loss"] = tenths(losses)
    if arm == "rtd":
        electra = ELECTRA(
            config,
            mask_token_id=MASK,
            special_token_ids=SPECIAL,
            mask_share=share,
            weight=weight,
        ).to(device)
        discriminator = electra.discriminator
        for part in (electra.generator, discriminator):
            start_local(part.encoder)
        parts: list[tuple[float, float]] = []

        def joint(step: int) -> Tensor:
            ids, is_masked = draw()
            output = electra(ids, is_masked=is_masked, rng=rng)
            parts.append((output.mlm_loss.item(), output.rtd_loss.item()))
            return output.loss

        def corrupt(ids, is_masked, rng):
            return guesses(electra.generator, ids, is_masked, rng)

        train_on(electra, joint, cost, budget)
        for column, name in enumerate(("mlm_loss", "rtd_loss")):
            report[name] = tenths([pair[column] for pair in parts])
        electra.eval()
    if discriminator is not None:
        encoder = discriminator.encoder
        report |= _judged(discriminator.eval(), corrupt, corpus, share, device)
    report["seconds"] = round(time.perf_counter() - began, 1)
    return encoder.eval().requires_grad_(True), report


def tenths(losses: Sequence[float]) -> list[float]:
    """Return the means of ten parts of a run, or of each step where there are fewer."""
    parts = torch.tensor(losses).tensor_split(min(10, len(losses)))
    return [round(part.mean().item(), 4) for part in parts]


@torch.no_grad()
def _judged(discriminator, corrupt, corpus: Corpus, share: float, device) -> dict[str, float]:
    rng = torch.Generator().manual_seed(0)
    ids = corpus.validation[:1024].to(device)
    is_masked = draw_positions(ids, None, share, SPECIAL, rng)
    corrupted = corrupt(ids, is_masked, rng)
    is_replaced = (corrupted != ids).cpu()
    logits = discriminator(corrupted).cpu()
    rarity = -corpus.frequencies.clamp_min(1e-9).log()[corrupted.cpu()]
    return {
        "auc": auc(logits, is_replaced),
        "auc_frequency": auc(rarity, is_replaced),
        "recall": (logits[is_replaced] > 0).double().mean().item(),
        "replaced": is_replaced.double().mean().item(),
        "hit": 1 - (is_replaced.sum() / is_masked.sum()).item(),
    }


# What it is good for


def auc(scores: Tensor, is_positive: Tensor) -> float:
    """The probability that a positive scores above a negative; a tie counts one half.

    It asks how well scores *rank*, whatever the threshold: 1 for all positives above all
    negatives, ½ for scores that know nothing. ValueError if either kind is missing.

    >>> auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True]))
    0.75
    """
    scores, is_positive = scores.flatten(), is_positive.flatten().bool()
    positives = int(is_positive.sum())
    negatives = len(is_positive) - positives
    if not positives or not negatives:
        raise ValueError(f"is_positive: expected both kinds, got {positives} and {negatives}")
    _, group, count = scores.unique(return_inverse=True, return_counts=True)
    rank = (count.cumsum(0) - (count - 1) / 2)[group].double()  # equal scores share their mean rank
    above = rank[is_positive].sum().item() - positives * (positives + 1) / 2
    return above / (positives * negatives)


def pooled(encoder: nn.Module, documents: Tensor) -> Tensor:
    """The mean hidden vector over all real characters of each document: (D, d_model)."""
    count, windows, n = documents.shape
    ids = documents.view(-1, n)
    real = ids != PAD
    hidden = encoder(ids, real.long(), None)
    total = (hidden * real.unsqueeze(-1)).view(count, windows * n, -1).sum(1)
    return total / real.view(count, -1).sum(1, keepdim=True)


def classify(
    encoder: nn.Module,
    corpus: Corpus,
    counts: Sequence[int],
    *,
    seed: int,
    steps: int = 300,
    device: torch.device | str = "cpu",
) -> dict[int, float]:
    """Accuracy on held-out documents of linear classifiers on frozen, standardised features.

    One classifier for each of `counts`, on that many labelled documents, drawn by `seed`. The
    encoder is not changed.
    """
    with torch.no_grad():
        train, held_out = (
            torch.cat([pooled(encoder, part.to(device)) for part in documents.split(256)]).cpu()
            for documents in (corpus.documents, corpus.held_out)
        )
    mean, spread = train.mean(0), train.std(0) + 1e-6
    train, held_out = (train - mean) / spread, (held_out - mean) / spread
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    accuracy = {}
    for count in counts:
        x, y = train[order[:count]], corpus.labels[order[:count]]
        linear = nn.Linear(x.shape[1], len(corpus.names))
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)

        def loss(step: int, linear=linear, x=x, y=y) -> Tensor:
            return F.cross_entropy(linear(x), y)

        fit(linear, loss, steps=steps, learning_rate=3e-2, weight_decay=0.1)
        right = linear(held_out).argmax(-1) == corpus.held_out_labels
        accuracy[count] = right.double().mean().item()
    return accuracy


def words_baseline(count: int, *, seed: int, num_labels: int = 24) -> float:
    """Accuracy of naive Bayes on the words of the same docstrings: no pre-training, no order."""
    data = docstrings(num_labels=num_labels)
    chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:count]
    texts = [data.train[i].lower().split() for i in chosen.tolist()]
    labels = [data.train_labels[i] for i in chosen.tolist()]
    known = {w: i for i, w in enumerate(sorted({w for text in texts for w in text}))}
    counts = torch.full((num_labels, len(known)), 0.1, dtype=torch.float64)
    for text, label in zip(texts, labels, strict=True):
        for word in text:
            counts[label, known[word]] += 1
    log_p = (counts / counts.sum(1, keepdim=True)).log()
    prior = torch.bincount(torch.tensor(labels), minlength=num_labels).double().add(0.1).log()
    right = 0
    for text, label in zip(data.validation, data.validation_labels, strict=True):
        seen = [known[word] for word in text.lower().split() if word in known]
        right += int((prior + log_p[:, seen].sum(1)).argmax()) == label
    return right / len(data.validation)
