"""Train the book's GPT in two processes on real text: for chapter 22_scaling_out.

    python book/experiments/scaling_out.py

writes scaling_out.json beside this file. It starts itself under torchrun, as the chapter does:

    torchrun --nproc-per-node 2 book/experiments/scaling_out.py FOLDER

trains in float64, is killed once, goes on, and leaves what it found in FOLDER.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.data import CharacterVocabulary, topics_text  # noqa: E402
from lib.distributed import World, launch, parallelize, processes, share, together  # noqa: E402
from lib.models.gpt2 import GPT2, GPT2Config  # noqa: E402
from lib.training import fit  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/scaling_out.py"
SEEDS = [0, 1, 2]
SIZES = {"d_model": 48, "num_layers": 2, "num_heads": 4, "length": 48, "rows": 8}
TRAINING = {"steps": 10, "learning_rate": 3e-3, "every": 3, "killed": 8}
LONG = {"steps": 300, "learning_rate": 3e-3}
ARMS: dict[str, tuple[str | None, dict[str, bool]]] = {
    "one process": (None, {}),
    "ddp": ("ddp", {}),
    "fsdp": ("fsdp", {}),
    "ddp, bfloat16": ("ddp", {"mixed_precision": True}),
    "fsdp, bfloat16": ("fsdp", {"mixed_precision": True}),
    "ddp, checkpointed": ("ddp", {"activation_checkpointing": True}),
    "ddp, compiled": ("ddp", {"compile": True}),
}


class Paragraphs:
    """The first characters of paragraphs, of uneven lengths, behind each other in a table."""

    def __init__(self) -> None:
        text = topics_text(seed=0)
        self.vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
        n = SIZES["length"] + 1
        lines = [self.vocabulary.encode(line[:n]) for line in text.train.split("\n")]
        self.ids = torch.zeros(len(lines), n, dtype=torch.int64)  # (N, n)
        for row, line in zip(self.ids, lines, strict=True):
            row[: len(line)] = line
        self.lengths = torch.tensor([len(line) for line in lines])  # (N,)

    def batch(self, seed: int, step: int) -> Tensor:
        """Which paragraphs are in a step's batch: decided by seed and step, in every process."""
        generator = torch.Generator().manual_seed(100_000 * seed + step)
        return torch.randint(len(self.ids), (SIZES["rows"],), generator=generator)

    def loss(self, model: nn.Module, rows: Tensor) -> tuple[Tensor, int]:
        """The sum of the losses of the next characters in some paragraphs, and their number."""
        ids, lengths = self.ids[rows], self.lengths[rows]
        real = torch.arange(ids.shape[1] - 1) < lengths[:, None] - 1  # (rows, n − 1)
        logits = model(ids[:, :-1])
        return F.cross_entropy(logits[real], ids[:, 1:][real], reduction="sum"), int(real.sum())


def new_model(data: Paragraphs, seed: int, dtype: torch.dtype = torch.float64) -> GPT2:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(data.vocabulary),
        d_model=SIZES["d_model"],
        num_layers=SIZES["num_layers"],
        num_heads=SIZES["num_heads"],
        max_length=SIZES["length"],
        dropout=0.0,
        embedding_dropout=0.0,
        attention_dropout=0.0,
        eos_token_id=None,
    )
    return GPT2(config).to(dtype)


def train_alone(data: Paragraphs, seed: int, parts: int = 2) -> tuple[list[float], dict]:
    """One process, each batch in parts."""
    model, each = new_model(data, seed), SIZES["rows"] // parts

    def batch_loss(step: int, part: int) -> tuple[Tensor, int]:
        rows = data.batch(seed, step)[part * each : (part + 1) * each]
        return data.loss(model, rows)

    losses = fit(
        model,
        batch_loss,
        steps=TRAINING["steps"],
        learning_rate=TRAINING["learning_rate"],
        accumulate=parts,
    )
    return losses, model.state_dict()


def train_together(
    data: Paragraphs,
    seed: int,
    world: World,
    strategy: str,
    checkpoint: Path | None = None,
    kill: int | None = None,
) -> dict:
    """All processes, each with its share of the batch; process 1 is killed at step `kill`."""
    model = parallelize(new_model(data, seed), strategy)
    done: list[int] = []

    def batch_loss(step: int, part: int) -> tuple[Tensor, int]:
        if step == kill and world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(step)
        rows = data.batch(seed, step)[share(SIZES["rows"], world)]
        return data.loss(model, rows)

    losses = fit(
        model,
        batch_loss,
        steps=TRAINING["steps"],
        learning_rate=TRAINING["learning_rate"],
        accumulate=1,
        checkpoint=checkpoint,
        every=TRAINING["every"],
    )
    tensors = together(model).tensors()
    weights = {n: getattr(t, "full_tensor", lambda t=t: t)() for n, t in tensors.items()}
    own = [getattr(p, "to_local", lambda p=p: p)() for p in model.parameters()]
    return {
        "losses": losses,
        "weights": weights,
        "steps": done,
        "numbers": sum(p.numel() for p in own),
        "bytes": sum(p.untyped_storage().nbytes() for p in own),
    }


def work(folder: Path) -> None:
    """What each of torchrun's processes does for the chapter."""
    data = Paragraphs()
    with processes(backend="gloo", seconds=10) as world:
        path = folder / "checkpoint"
        kill = None if path.exists() else TRAINING["killed"]
        found = {("killed", 0): train_together(data, 0, world, "fsdp", path, kill)}
        for seed in SEEDS:
            for strategy in ("ddp", "fsdp") if seed == 1 else ("ddp",):
                found[strategy, seed] = train_together(data, seed, world, strategy)
        torch.save(found, folder / f"found-{world.rank}.pt")


def measure(folder: Path) -> None:
    """What each of torchrun's processes does for the recorded file: every arm, float32."""
    data, found = Paragraphs(), {}
    with processes(backend="gloo", seconds=120) as world:
        for name, (strategy, how) in ARMS.items():
            for seed in SEEDS:
                model = new_model(data, seed, torch.float32)
                parts = 2
                if strategy is not None:
                    model, parts = parallelize(model, strategy, **how), 1
                elif world.rank:
                    continue  # the second process rests, and waits at the next sum
                losses, began = [], time.perf_counter()

                def batch_loss(step: int, part: int) -> tuple[Tensor, int]:
                    own = World(part, 2, world.device) if parts == 2 else world  # noqa: B023
                    rows = data.batch(seed, step)[share(SIZES["rows"], own)]  # noqa: B023
                    return data.loss(model, rows)  # noqa: B023

                losses = fit(model, batch_loss, accumulate=parts, **LONG)
                seconds = time.perf_counter() - began
                last = losses[-len(losses) // 6 :]
                found.setdefault(name, []).append([sum(last) / len(last), seconds])
        if world.rank == 0:
            torch.save(found, folder / "measured.pt")


def main(path: Path = RESULTS) -> None:
    """Measure under torchrun and write the file, at once or not at all."""
    from lib.teaching.recorded import record

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        torchrun = launch(__file__, "--measure", name, size=2, restarts=2)
        said, _ = torchrun.communicate(timeout=850)
        if torchrun.returncode:
            raise SystemExit(said)
        found = torch.load(Path(name) / "measured.pt", weights_only=True)
    arms = {
        arm: {"loss": [a for a, _ in f], "seconds": [b for _, b in f]} for arm, f in found.items()
    }
    record(
        path,
        command=COMMAND,
        hardware="2 shared CPU cores, one thread a process",
        seconds=time.perf_counter() - began,
        settings={**SIZES, **LONG, "seeds": SEEDS},
        results={"text_sha256": topics_text(seed=0).sha256, "arms": arms},
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        torch.set_num_threads(1)
        measure(Path(sys.argv[2]))
    elif sys.argv[1:]:
        torch.set_num_threads(1)
        work(Path(sys.argv[1]))
    else:
        main()
