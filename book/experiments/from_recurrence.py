"""Recurrence, convolution and attention at equal parameters: real text, and recall at a distance.

    python book/experiments/from_recurrence.py

writes from_recurrence.json beside this file, which chapter 01_from_recurrence reads. It takes
about ten minutes of one core. Each architecture gets the learning rate that was best for it in a
sweep: for the text, on a part of the training text that is never trained on; for recall, on one
seed that is not among those reported.

The file is written anew after every run, at once or not at all; stopped and started again, it goes
on where it was. `seconds` counts the processor's time, not the waiting.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.data import (  # noqa: E402
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.teaching.recorded import earlier, record  # noqa: E402
from lib.teaching.sequences import (  # noqa: E402
    KINDS,
    SequenceModel,
    count,
    recall_batch,
    width_for,
)
from lib.training import fit  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/from_recurrence.py"
TEXT = {"length": 64, "batch": 16, "width": 48, "sweep_steps": 400, "steps": 1500}
TEXT_RATES = [3e-3, 1e-2, 3e-2, 1e-1]
RECALL = {"batch": 32, "width": 32, "letters": 8, "steps": 250, "test": 1000}
RECALL_RATES = [3e-3, 1e-2]
DISTANCES = [10, 25, 75]
SEEDS = [0, 1, 2]
SWEEP_SEED = 100
# the LSTM once more, with forget gates that begin open
ARMS: dict[str, tuple[str, float | None]] = {
    **{kind: (kind, None) for kind in KINDS},
    "lstm, open": ("lstm", 4.0),
}


def settings() -> dict:
    return {
        "text": TEXT,
        "text_rates": TEXT_RATES,
        "recall": RECALL,
        "recall_rates": RECALL_RATES,
        "distances": DISTANCES,
        "seeds": SEEDS,
        "sweep_seed": SWEEP_SEED,
    }


def by_position(model: nn.Module, inputs: Tensor, targets: Tensor) -> list[float]:
    """Mean loss at each of the n positions of windows (N, n)."""
    with torch.no_grad():
        parts = [
            F.cross_entropy(model(x).mT, y, reduction="none").double()
            for x, y in zip(inputs.split(64), targets.split(64), strict=True)
        ]
    return torch.cat(parts).mean(0).tolist()


class Run:
    """The results so far, and where they are written."""

    def __init__(self, path: Path) -> None:
        self.path, self.results, self.before = path, {}, 0.0
        if old := earlier(path, settings()):
            self.results, self.before = old["results"], old["seconds"]
        self.began = time.process_time()

    def once(self, keys: tuple[str, ...], compute) -> dict:
        """Return what stands under these keys, computed and written down if it is not there."""
        place = self.results
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if keys[-1] not in place:
            place[keys[-1]] = compute()
            seconds = self.before + time.process_time() - self.began
            print(f"{seconds:5.0f} s  {' / '.join(keys)}", flush=True)
            record(
                self.path,
                command=COMMAND,
                hardware="2 CPU cores, one thread used",
                seconds=seconds,
                settings=settings(),
                results=self.results,
            )
        return place[keys[-1]]


def on_text(run: Run) -> None:
    text = topics_text(seed=0)
    vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
    ids, V = vocabulary.encode(text.train), len(vocabulary)
    cut = 9 * len(ids) // 10
    train, tuning = ids[:cut], consecutive_windows(ids[cut:], TEXT["length"])
    held_out = consecutive_windows(vocabulary.encode(text.validation), TEXT["length"])
    wanted = count(SequenceModel("attention", V, TEXT["width"]))

    def train_one(kind: str, seed: int, rate: float, steps: int, windows) -> dict:
        torch.manual_seed(seed)
        model = SequenceModel(kind, V, width_for(kind, V, wanted))
        batches = torch.Generator().manual_seed(seed)

        def batch_loss(step: int) -> Tensor:
            x, y = random_windows(train, TEXT["batch"], TEXT["length"], batches)
            return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

        began = time.process_time()
        fit(model, batch_loss, steps=steps, learning_rate=rate)
        used = time.process_time() - began
        model.eval()
        losses = by_position(model, *windows)
        return {
            "loss": sum(losses) / len(losses),
            "by_position": losses,
            "milliseconds": 1000 * used / steps,
        }

    run.results.update(text_sha256=text.sha256, vocabulary=V, training_characters=len(train))
    for kind in KINDS:
        width = width_for(kind, V, wanted)
        run.once(
            ("text", kind, "model"),
            lambda k=kind, w=width: {"width": w, "parameters": count(SequenceModel(k, V, w))},
        )
        sweep = {
            rate: run.once(
                ("text", kind, "sweep", f"{rate:g}"),
                lambda k=kind, r=rate: train_one(k, SWEEP_SEED, r, TEXT["sweep_steps"], tuning)[
                    "loss"
                ],
            )
            for rate in TEXT_RATES
        }
        best = min(sweep, key=sweep.get)
        run.once(("text", kind, "rate"), lambda r=best: r)
        for seed in SEEDS:
            run.once(
                ("text", kind, "seeds", str(seed)),
                lambda k=kind, s=seed, r=best: train_one(k, s, r, TEXT["steps"], held_out),
            )


def on_recall(run: Run) -> None:
    V = 2 * RECALL["letters"] + 1
    wanted = count(SequenceModel("attention", V, RECALL["width"]))

    def train_one(arm: str, distance: int, seed: int, rate: float) -> dict:
        kind, bias = ARMS[arm]
        torch.manual_seed(seed)
        model = SequenceModel(kind, V, width_for(kind, V, wanted), forget_bias=bias)
        draws = torch.Generator().manual_seed(seed)

        def batch_loss(step: int) -> Tensor:
            x, y = recall_batch(RECALL["batch"], distance, draws, letters=RECALL["letters"])
            return F.cross_entropy(model(x)[:, -1], y)

        fit(model, batch_loss, steps=RECALL["steps"], learning_rate=rate)
        model.eval()
        fresh = torch.Generator().manual_seed(10_000 + seed)
        x, y = recall_batch(RECALL["test"], distance, fresh, letters=RECALL["letters"])
        with torch.no_grad():
            logits = model(x)[:, -1]
        return {
            "loss": F.cross_entropy(logits, y).item(),
            "accuracy": (logits.argmax(-1) == y).double().mean().item(),
        }

    for distance in DISTANCES:
        for arm, (kind, _) in ARMS.items():
            run.once(
                ("recall", arm, "parameters"),
                lambda k=kind: count(SequenceModel(k, V, width_for(k, V, wanted))),
            )
            sweep = {
                rate: run.once(
                    ("recall", arm, str(distance), "sweep", f"{rate:g}"),
                    lambda a=arm, d=distance, r=rate: train_one(a, d, SWEEP_SEED, r)["loss"],
                )
                for rate in RECALL_RATES
            }
            best = min(sweep, key=sweep.get)
            run.once(("recall", arm, str(distance), "rate"), lambda r=best: r)
            for seed in SEEDS:
                run.once(
                    ("recall", arm, str(distance), "seeds", str(seed)),
                    lambda a=arm, d=distance, s=seed, r=best: train_one(a, d, s, r),
                )


def main(path: Path = RESULTS) -> None:
    """Do all runs that `path` does not hold yet; the file is whole after each of them."""
    torch.set_num_threads(1)
    run = Run(path)
    on_text(run)
    on_recall(run)


if __name__ == "__main__":
    main()
