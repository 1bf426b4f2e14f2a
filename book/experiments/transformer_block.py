"""Norm before or after the sum, with and without warm-up, by depth: more than chapter 06 can train.

    python book/experiments/transformer_block.py

trains character models of 2, 6 and 12 blocks in post-norm and in pre-norm, with and without a
warm-up of the learning rate, three seeds each: once with Xavier's initial weights, and at 12 blocks
once more with the last map of every branch made smaller. It writes transformer_block.json beside
itself, which chapter 06_transformer_block reads: a quarter of an hour on one core. A run that is in
the file already is not run again, so an interrupted one goes on.
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
from lib.layers import EncoderLayer, LayerNorm  # noqa: E402
from lib.teaching.recorded import earlier, record  # noqa: E402
from lib.training import evaluate, fit  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/transformer_block.py"
SETTING = {
    "d_model": 64,
    "num_heads": 4,
    "d_ff": 256,
    "length": 32,
    "batch_size": 16,
    "steps": 300,
    "learning_rate": 3e-3,
}
ARMS = ((2, 1.0), (6, 1.0), (12, 1.0), (12, 0.3))  # blocks, factor on the branches' last maps
NORMS, WARMUPS, SEEDS = ("post", "pre"), (0.0, 0.3), (0, 1, 2)


class Blocks(nn.Module):
    """Characters and learned positions, causal blocks, a norm if they are pre-norm, the logits."""

    def __init__(
        self, vocab_size: int, layers: int, norm: str, branch: float, setting: dict
    ) -> None:
        super().__init__()
        d_model = setting["d_model"]
        self.embed = nn.Embedding(vocab_size, d_model)
        self.position = nn.Embedding(setting["length"], d_model)
        self.blocks = nn.ModuleList(
            EncoderLayer(
                d_model, setting["num_heads"], setting["d_ff"], norm=norm, activation="relu"
            )
            for _ in range(layers)
        )
        self.norm = LayerNorm(d_model) if norm == "pre" else nn.Identity()
        self.unembed = nn.Linear(d_model, vocab_size, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for block in self.blocks:
                block.attention.output_projection.weight.mul_(branch)
                block.feed_forward.contract.weight.mul_(branch)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, n) ids to logits (B, n, V); those at t are for t + 1."""
        x = self.embed(input_ids) + self.position.weight[: input_ids.shape[1]]  # (B, n, d_model)
        for block in self.blocks:
            x = block(x, causal=True)
        return self.unembed(self.norm(x))


def unigram_loss(train: Tensor, validation: Tensor, vocab_size: int) -> float:
    """What a model that knows only how frequent every character is would reach, in nats."""
    share = (torch.bincount(train, minlength=vocab_size) + 1).double()
    return -(share / share.sum()).log()[validation].mean().item()


def run(
    layers: int, branch: float, norm: str, warmup: float, seed: int, setting: dict = SETTING
) -> dict:
    """Train one model; return what was run, its losses by tenths, and on validation, in nats."""
    text = topics_text(seed=0)
    vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
    train, validation = vocabulary.encode(text.train), vocabulary.encode(text.validation)
    torch.manual_seed(seed)
    model = Blocks(len(vocabulary), layers, norm, branch, setting)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step: int) -> Tensor:
        x, y = random_windows(train, setting["batch_size"], setting["length"], batches)
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    losses = fit(
        model,
        batch_loss,
        steps=setting["steps"],
        learning_rate=setting["learning_rate"],
        warmup=warmup,
        clip=None,  # a clipped gradient would hide some of what warm-up is for
    )
    parts = torch.tensor(losses, dtype=torch.float64).tensor_split(min(30, len(losses)))
    return {
        "layers": layers,
        "branch": branch,
        "norm": norm,
        "warmup": warmup,
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": [round(part.mean().item(), 3) for part in parts],
        "loss": round(evaluate(model, *consecutive_windows(validation, setting["length"])), 4),
    }


def main(path: Path = RESULTS, setting: dict = SETTING, arms=ARMS, seeds=SEEDS) -> None:
    """Make every run that the file at `path` does not hold yet; it is whole after each of them."""
    torch.set_num_threads(1)
    text = topics_text(seed=0)
    vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
    train, validation = vocabulary.encode(text.train), vocabulary.encode(text.validation)
    unigram = round(unigram_loss(train, validation, len(vocabulary)), 4)
    settings = {**setting, "text_sha256": text.sha256}
    found = earlier(path, settings)
    runs, seconds = (found["results"]["runs"], found["seconds"]) if found else ([], 0.0)
    done = {(r["layers"], r["branch"], r["norm"], r["warmup"], r["seed"]) for r in runs}
    for seed, arm, norm, warmup in itertools.product(seeds, arms, NORMS, WARMUPS):
        if (*arm, norm, warmup, seed) in done:
            continue
        began = time.process_time()
        runs.append(run(*arm, norm, warmup, seed, setting))
        print({k: v for k, v in runs[-1].items() if k != "curve"}, flush=True)
        seconds += time.process_time() - began
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores, one thread used",
            seconds=seconds,
            settings=settings,
            results={"unigram": unigram, "runs": runs},
        )


if __name__ == "__main__":
    main()
