"""How many heads, with more layers and a longer training than chapter 03_multi_head can run itself.

    python book/experiments/multi_head_depth.py

trains a character model of one and of two pre-norm blocks with 1, 2, 4, 8 and 16 heads, three seeds
each, and writes multi_head_depth.json beside itself, which the chapter reads: a quarter of an hour
on one core. A run that is in the file already is not run again, so an interrupted one goes on.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from lib.data import (  # noqa: E402
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.layers import EncoderLayer, LayerNorm, initialise  # noqa: E402
from lib.teaching.recorded import earlier, record  # noqa: E402
from lib.training import evaluate, fit  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/multi_head_depth.py"
SETTING = {"d_model": 64, "d_ff": 128, "length": 32, "batch_size": 16, "steps": 1500}
HEADS, SEEDS = (1, 2, 4, 8, 16), (0, 1, 2)
ARMS = ((1, 5e-3), (2, 5e-3), (2, 2.5e-3))  # layers, learning rate


class Blocks(nn.Module):
    """Characters and learned positions, causal pre-norm blocks, a norm, and the logits."""

    def __init__(self, vocab_size: int, layers: int, num_heads: int, setting: dict) -> None:
        super().__init__()
        d_model = setting["d_model"]
        self.embed = nn.Embedding(vocab_size, d_model)
        self.position = nn.Embedding(setting["length"], d_model)
        self.blocks = nn.ModuleList(
            EncoderLayer(d_model, num_heads, setting["d_ff"], norm="pre") for _ in range(layers)
        )
        self.norm = LayerNorm(d_model)
        self.unembed = nn.Linear(d_model, vocab_size, bias=False)
        initialise(self, std=0.06)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, n) ids to logits (B, n, V); those at t are for t + 1."""
        x = self.embed(input_ids) + self.position.weight[: input_ids.shape[1]]  # (B, n, d_model)
        for block in self.blocks:
            x = block(x, causal=True)
        return self.unembed(self.norm(x))


def run(
    layers: int, num_heads: int, seed: int, learning_rate: float, setting: dict = SETTING
) -> dict:
    """Train one model; return what was run, its parameters, and its validation loss in nats."""
    text = topics_text(seed=0)
    vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
    train, validation = vocabulary.encode(text.train), vocabulary.encode(text.validation)
    torch.manual_seed(seed)
    model = Blocks(len(vocabulary), layers, num_heads, setting)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step: int) -> Tensor:
        x, y = random_windows(train, setting["batch_size"], setting["length"], batches)
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    fit(model, batch_loss, steps=setting["steps"], learning_rate=learning_rate)
    return {
        "layers": layers,
        "heads": num_heads,
        "seed": seed,
        "learning_rate": learning_rate,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": round(evaluate(model, *consecutive_windows(validation, setting["length"])), 4),
    }


def main(
    path: Path = RESULTS, setting: dict = SETTING, arms=ARMS, heads=HEADS, seeds=SEEDS
) -> None:
    """Make every run that the file at `path` does not hold yet; it is whole after each of them."""
    torch.set_num_threads(1)
    settings = {**setting, "text_sha256": topics_text(seed=0).sha256}
    found = earlier(path, settings)
    runs, seconds = (found["results"]["runs"], found["seconds"]) if found else ([], 0.0)
    done = {(r["layers"], r["learning_rate"], r["heads"], r["seed"]) for r in runs}
    for (layers, learning_rate), num_heads, seed in itertools.product(arms, heads, seeds):
        if (layers, learning_rate, num_heads, seed) in done:
            continue
        began = time.perf_counter()
        runs.append(run(layers, num_heads, seed, learning_rate, setting))
        print(runs[-1], flush=True)
        seconds += time.perf_counter() - began
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores, one thread used",
            seconds=seconds,
            settings=settings,
            results={"runs": runs},
        )


if __name__ == "__main__":
    main()
