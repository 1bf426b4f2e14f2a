"""Ask of word classifiers of several structures how far their attention explains their answers.

    python book/experiments/attention_explanation.py

writes attention_explanation.json beside this file, which chapter 19_attention_is_not_explanation
reads. It takes about ten minutes on one thread. Every arm is trained anew for every seed:

* base: two layers of three heads. Its attention is permuted and made uniform after training; it is
  trained with uniform weights from the start; and an adversary learns to answer as it does by other
  weights. A model without context is then guided by the weights of each.
* arms: other numbers of heads and of layers.

The file is written anew after every model of the arms, at once or not at all; one beside it,
with the ending .partial, holds what was found of base until all its seeds are there. Where the run
was stopped it goes on.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.interpret.attention import permuted_weights, uniform_weights  # noqa: E402
from lib.teaching.recorded import earlier, record  # noqa: E402
from lib.teaching.word_classifier import PAD, WordClassifier, Words, train, words  # noqa: E402
from lib.teaching.word_scores import (  # noqa: E402
    agreement,
    long_texts,
    other_attention,
    word_scores,
)
from lib.training import fit, seed_everything  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/attention_explanation.py"
SETTINGS = {"steps": 600, "texts": 100, "d_model": 48, "adversary_weight": 1.0, "length": 32}
SEEDS = [0, 1, 2]
BASE = "2 layers, 3 heads"
ARMS = {  # (layers, heads)
    BASE: (2, 3),
    "2 layers, 1 head": (2, 1),
    "2 layers, 6 heads": (2, 6),
    "1 layer, 3 heads": (1, 3),
    "3 layers, 3 heads": (3, 3),
}
GUIDES = ("uniform", "base", "adversary", "permuted")


def trained(data: Words, arm: str, seed: int, **options) -> tuple[WordClassifier, float]:
    layers, heads = ARMS[arm]
    return train(
        data,
        seed=seed,
        steps=SETTINGS["steps"],
        d_model=SETTINGS["d_model"],
        num_layers=layers,
        num_heads=heads,
        **options,
    )


def weights_of(model: WordClassifier, ids: Tensor) -> Tensor:
    """The last layer's weights (B, n) from [CLS], the mean over heads."""
    parts = [model.attention(x)[-1, :, :, 0].mean(1) for x in ids.split(256)]
    return torch.cat(parts)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen–Shannon divergence (...) of weights (..., n), in nats: 0 equal, ln 2 disjoint."""
    middle = (first + second) / 2
    parts = (x * ((x.clamp(min=1e-9)) / middle.clamp(min=1e-9)).log() for x in (first, second))
    return sum(parts).sum(-1) / 2


def accuracy(said: Tensor, data: Words) -> float:
    right = said == torch.tensor(data.data.validation_labels)
    return right.double().mean().item()


def answers(model: WordClassifier, ids: Tensor) -> Tensor:
    """Probabilities (B, classes)."""
    with torch.no_grad():
        return torch.cat([model(x).softmax(-1) for x in ids.split(256)])


def measures(model: WordClassifier, data: Words, reached: float) -> dict:
    """What is asked of every model."""
    texts = long_texts(data, SETTINGS["texts"])
    scores = [word_scores(model, ids, seed=i) for i, ids in enumerate(texts)]
    held_out = data.encode(data.data.validation)
    own = answers(model, held_out)
    swapped = {}
    generator = torch.Generator().manual_seed(0)
    for name, change in {
        "permuted": partial(permuted_weights, generator=generator),
        "uniform": uniform_weights,
    }.items():
        with other_attention(model, change):
            other = answers(model, held_out)
        swapped[name] = {
            "accuracy": accuracy(other.argmax(-1), data),
            "moved": ((other - own).abs().sum(-1) / 2).mean().item(),
            "same_answer": (other.argmax(-1) == own.argmax(-1)).double().mean().item(),
        }
    return {
        "accuracy": reached,
        "with_leave_one_out": agreement(scores),
        "with_gradient": agreement(scores, "gradient"),
        "swapped": swapped,
    }


def adversary(data: Words, base: WordClassifier, seed: int) -> tuple[WordClassifier, float]:
    """Learns to answer as `base` does, and to look elsewhere while it does so."""

    def loss(model: WordClassifier, ids: Tensor, labels: Tensor) -> Tensor:
        seen: list[Tensor] = []
        last = len(model.bert.encoder.layers) - 1
        with other_attention(model, lambda own: (seen.append(own), own)[1], [last]):
            said = model(ids).log_softmax(-1)
        with torch.no_grad():
            wanted = base(ids).softmax(-1)
        apart = divergence(seen[0][:, :, 0].mean(1), weights_of(base, ids)).mean()
        agree = F.kl_div(said, wanted, reduction="batchmean")
        return agree - SETTINGS["adversary_weight"] * apart

    return trained(data, BASE, 1000 + seed, loss=loss)


class Guided(nn.Module):
    """Word vectors, each by itself through one layer, averaged by weights from elsewhere."""

    def __init__(self, data: Words, d: int = 48) -> None:
        super().__init__()
        self.words = nn.Embedding(len(data.vocabulary), d)
        self.layer, self.head = nn.Linear(d, d), nn.Linear(d, len(data.names))

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """ids and weights (B, n) to logits (B, classes)."""
        each = self.layer(self.words(ids)).tanh()  # (B, n, d): no word knows of another
        return self.head((weights.unsqueeze(1) @ each)[:, 0])


def guided(data: Words, weights: dict[str, Tensor], seed: int) -> float:
    """Train a `Guided` with these weights of both splits; return its held-out accuracy."""
    seed_everything(seed)
    rng = torch.Generator().manual_seed(seed)
    model = Guided(data)
    ids = data.encode(data.data.train)
    labels = torch.tensor(data.data.train_labels)

    def batch_loss(step: int) -> Tensor:
        rows = torch.randint(len(ids), (32,), generator=rng)
        return F.cross_entropy(model(ids[rows], weights["train"][rows]), labels[rows])

    fit(model, batch_loss, steps=SETTINGS["steps"], learning_rate=3e-3)
    with torch.no_grad():
        said = model(data.encode(data.data.validation), weights["validation"]).argmax(-1)
    return accuracy(said, data)


def of_words(weights: Tensor, ids: Tensor) -> Tensor:
    """Weights (B, n) without what [CLS] and padding have, scaled to a sum of one."""
    weights = weights.clone()
    weights[:, 0] = 0.0
    weights = weights.masked_fill(ids == PAD, 0.0)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)


def base_seed(data: Words, seed: int) -> dict:
    """All that is asked of the base arm's model of one seed, and its maps and answers."""
    splits = {name: data.encode(getattr(data.data, name)) for name in ("train", "validation")}
    held_out = splits["validation"]
    model, reached = trained(data, BASE, seed)
    found = {"runs": measures(model, data, reached)}
    found["rows"] = of_words(weights_of(model, held_out), held_out)
    found["answers"] = answers(model, held_out)
    flat = partial(other_attention, change=uniform_weights)
    found["uniform_from_the_start"] = trained(data, BASE, seed, within=flat)[1]

    other, reached = adversary(data, model, seed)
    texts = long_texts(data, SETTINGS["texts"])
    scores = [word_scores(other, ids, seed=i) for i, ids in enumerate(texts)]
    elsewhere = of_words(weights_of(other, held_out), held_out)
    moved = (found["answers"] - answers(other, held_out)).abs().sum(-1) / 2
    found["adversary"] = {
        "accuracy": reached,
        "moved": moved.mean().item(),
        "apart": divergence(elsewhere, found["rows"]).mean().item(),
        "with_leave_one_out": agreement(scores),
    }
    generator = torch.Generator().manual_seed(seed)
    guides: dict[str, dict[str, Tensor]] = {guide: {} for guide in GUIDES}
    for split, ids in splits.items():
        guides["uniform"][split] = of_words((ids != PAD).float(), ids)
        guides["base"][split] = of_words(weights_of(model, ids), ids)
        guides["adversary"][split] = of_words(weights_of(other, ids), ids)
        guides["permuted"][split] = permuted_weights(guides["base"][split], generator)
    found["guided"] = {name: guided(data, weights, seed) for name, weights in guides.items()}
    print(f"base, seed {seed}: {found['runs']['accuracy']:.3f}", flush=True)
    return found


def base_run(data: Words, scratch: Path) -> dict:
    """All that is asked of the base arm, lists over seeds; `scratch` holds what is there."""
    each: dict[int, dict] = torch.load(scratch) if scratch.exists() else {}
    for seed in SEEDS:
        if seed not in each:
            each[seed] = base_seed(data, seed)
            torch.save(each, scratch)
    names = ("runs", "uniform_from_the_start", "adversary")
    found: dict = {name: [each[seed][name] for seed in SEEDS] for name in names}
    found["guided"] = {guide: [each[seed]["guided"][guide] for seed in SEEDS] for guide in GUIDES}
    rows = [each[seed]["rows"] for seed in SEEDS]
    probabilities = [each[seed]["answers"] for seed in SEEDS]
    pairs = list(combinations(range(len(SEEDS)), 2))
    generator = torch.Generator().manual_seed(0)
    found["seeds_apart"] = [divergence(rows[a], rows[b]).mean().item() for a, b in pairs]
    found["seeds_moved"] = [
        ((probabilities[a] - probabilities[b]).abs().sum(-1) / 2).mean().item() for a, b in pairs
    ]
    found["permuted_apart"] = [
        divergence(permuted_weights(row, generator), row).mean().item() for row in rows
    ]
    return found


def main(path: Path = RESULTS) -> None:
    """Run every arm that `path` does not hold yet; the file is whole after each of them."""
    torch.set_num_threads(1)
    data = words(length=SETTINGS["length"])
    settings = {**SETTINGS, "seeds": SEEDS, "arms": {k: list(v) for k, v in ARMS.items()}}
    text = data.data.sha256
    before = earlier(path, settings, text_sha256=text)
    results = before["results"] if before else {"text_sha256": text, "arms": {}}
    spent = before["seconds"] if before else 0.0
    began = time.perf_counter()

    def save() -> None:
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores, one thread used",
            seconds=spent + time.perf_counter() - began,
            settings=settings,
            results=results,
        )

    if "base" not in results:
        scratch = path.with_suffix(".partial")
        found = base_run(data, scratch)
        results["arms"][BASE] = found.pop("runs")
        results["base"] = found
        save()
        scratch.unlink()
    for arm in ARMS:
        runs = results["arms"].setdefault(arm, [])
        for seed in SEEDS[len(runs) :]:
            model, reached = trained(data, arm, seed)
            runs.append(measures(model, data, reached))
            save()
            print(f"{arm}, seed {seed}: {reached:.3f}", flush=True)


if __name__ == "__main__":
    main()
