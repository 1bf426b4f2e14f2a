"""Read further than trained, six ways to know positions: what 08_relative_positions can't run.

    python book/experiments/relative_positions.py

trains a small causal model of characters on windows of 32, three seeds for each way, reads held-out
text in windows of 128, and writes relative_positions.json beside itself, which the chapter reads:
some minutes on one core. A run that is in the file already is not run again.
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

from lib.attention import causal_mask  # noqa: E402
from lib.data import (  # noqa: E402
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.layers import EncoderLayer, LayerNorm  # noqa: E402
from lib.positions import (  # noqa: E402
    LearnedEncoding,
    RelativePositionBias,
    SinusoidalEncoding,
)
from lib.teaching.recorded import earlier, record  # noqa: E402
from lib.training import fit  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/relative_positions.py"
SETTING = {
    "d_model": 64,
    "d_ff": 128,
    "heads": 4,
    "length": 32,
    "read": 128,
    "characters_a_step": 512,
    "steps": 1000,
    "learning_rate": 1e-2,
}
SEEDS = (0, 1, 2)
BLOCK = 4  # positions whose mean loss is one number in the file


class Alibi(nn.Module):
    """A bias that is no parameter: −slope · distance, slopes 2^(−8/h), 2^(−16/h), …"""

    def __init__(self, heads: int) -> None:
        super().__init__()
        slopes = 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1))
        self.register_buffer("slopes", slopes, persistent=False)

    def forward(self, n: int) -> Tensor:
        place = torch.arange(n, device=self.slopes.device)
        distance = (place[:, None] - place).clamp(min=0)  # (n, n), i − j
        return -(self.slopes[:, None, None] * distance).unsqueeze(0)  # (1, h, n, n)


def relative(num_buckets: int, max_distance: int):
    return lambda heads: RelativePositionBias(
        heads, bidirectional=False, num_buckets=num_buckets, max_distance=max_distance
    )


# What is added to the tokens, what to the logits, and the length that is trained on, if not 32.
ARMS = {
    "none": (None, None, None),
    "sinusoidal": (lambda s: SinusoidalEncoding(s["d_model"]), None, None),
    "learned": (lambda s: LearnedEncoding(s["read"], s["d_model"]), None, None),
    "alibi": (None, Alibi, None),
    "t5": (None, relative(32, 128), None),
    "t5-near": (None, relative(16, 32), None),
    "t5-long": (None, relative(32, 128), 128),
}


class Characters(nn.Module):
    """A causal language model of one pre-norm layer; only its positions vary."""

    def __init__(self, vocab_size: int, arm: str, setting: dict = SETTING) -> None:
        super().__init__()
        d, heads = setting["d_model"], setting["heads"]
        add, bias, _ = ARMS[arm]
        self.embed = nn.Embedding(vocab_size, d)  # begins with std 1, as √d times std 1/√d
        self.positions = None if add is None else add(setting)
        self.bias = None if bias is None else bias(heads)
        self.layer = EncoderLayer(d, heads, setting["d_ff"], norm="pre")
        self.norm, self.read = LayerNorm(d), nn.Linear(d, vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, n) ids to logits (B, n, V)."""
        x, n = self.embed(ids), ids.shape[1]  # (B, n, d)
        if self.positions is not None:
            x = self.positions(x)
        if self.bias is None:
            x = self.layer(x, causal=True)
        else:
            hidden = ~causal_mask(n, device=ids.device)
            x = self.layer(x, mask=self.bias(n).masked_fill(hidden, -torch.inf))
        return self.read(self.norm(x))


def losses(model: nn.Module, ids: Tensor, n: int) -> Tensor:
    """Mean loss at each of the n positions of held-out windows, (n,)."""
    inputs, targets = consecutive_windows(ids, n)
    with torch.no_grad():
        parts = [
            F.cross_entropy(model(x).mT, y, reduction="none").double()
            for x, y in zip(inputs.split(64), targets.split(64), strict=True)
        ]
    return torch.cat(parts).mean(0).cpu()


def train(arm: str, seed: int, setting: dict = SETTING, device="cpu"):
    """A trained model of one arm, and the held-out ids."""
    text = topics_text(seed=0)
    vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
    ids = vocabulary.encode(text.train).to(device)
    length = ARMS[arm][2] or setting["length"]
    torch.manual_seed(seed)
    model = Characters(len(vocabulary), arm, setting).to(device)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step: int) -> Tensor:
        x, y = random_windows(ids, setting["characters_a_step"] // length, length, batches)
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    fit(model, batch_loss, steps=setting["steps"], learning_rate=setting["learning_rate"])
    return model.eval(), vocabulary.encode(text.validation).to(device)


def run(arm: str, seed: int, setting: dict = SETTING) -> dict:
    """Train one model; return what was run, and the loss of every block of positions in nats."""
    model, ids = train(arm, seed, setting)
    found = losses(model, ids, setting["read"]).view(-1, BLOCK).mean(-1)
    return {"arm": arm, "seed": seed, "loss": [round(x, 4) for x in found.tolist()]}


def main(path: Path = RESULTS, setting: dict = SETTING, arms=tuple(ARMS), seeds=SEEDS) -> None:
    """Make every run that the file at `path` does not hold yet; it is whole after each of them."""
    torch.set_num_threads(1)
    settings = {**setting, "block": BLOCK, "text_sha256": topics_text(seed=0).sha256}
    found = earlier(path, settings)
    runs, seconds = (found["results"]["runs"], found["seconds"]) if found else ([], 0.0)
    done = {(r["arm"], r["seed"]) for r in runs}
    for arm, seed in itertools.product(arms, seeds):
        if (arm, seed) in done:
            continue
        began = time.process_time()
        runs.append(run(arm, seed, setting))
        print(arm, seed, [round(x, 3) for x in runs[-1]["loss"][::4]], flush=True)
        seconds += time.process_time() - began
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
