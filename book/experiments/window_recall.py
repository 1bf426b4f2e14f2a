"""Train small Longformers to recall a value over a distance, and write down how far they get.

    OMP_NUM_THREADS=1 python book/experiments/window_recall.py

writes window_recall.json beside this file, which chapter 09_sliding_window reads: for each arm and
seed the share of right answers at each distance, on held-out text. An arm is a number of layers,
and whether the start token is global. All arms of one seed see the same samples in the same order.
About five minutes on one thread.

The file is written anew after every seed, at once or not at all, so the run may be stopped; started
again, it goes on with the next seed. Remove the file to begin afresh.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.data import CharacterVocabulary, topics_text  # noqa: E402
from lib.teaching.recall import RecallTask, accuracy_by_distance, train_recall  # noqa: E402
from lib.teaching.recorded import earlier, record  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "OMP_NUM_THREADS=1 python book/experiments/window_recall.py"
SIZES = {"length": 32, "longest": 16, "values": 8}
TRAINING = {"window": 8, "steps": 500, "batch_size": 32, "d_model": 32, "learning_rate": 3e-3}
COUNT = 200  # samples at each distance
SEEDS = [0, 1, 2, 3, 4]
ARMS = {  # layers, and whether the start token is global
    "1 layer": (1, False),
    "2 layers": (2, False),
    "3 layers": (3, False),
    "2 layers, global": (2, True),
}


def main(path: Path = RESULTS) -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    text = topics_text(seed=0)
    vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
    train, held_out = (
        RecallTask(vocabulary.encode(part), len(vocabulary), **SIZES)
        for part in (text.train, text.validation)
    )
    settings = {**SIZES, **TRAINING, "count": COUNT}
    arms, before = {name: [] for name in ARMS}, 0.0
    if old := earlier(path, settings, but=["seeds"], text_sha256=text.sha256):
        arms, before = old["results"]["arms"], old["seconds"]
        if list(arms) != list(ARMS):
            raise ValueError(f"{path.name}: expected arms {list(ARMS)}, got {list(arms)}")
    for seed in SEEDS[len(arms["1 layer"]) :]:
        for name, (layers, start_is_global) in ARMS.items():
            kind = {"start_is_global": start_is_global}
            model = train_recall(train, layers=layers, seed=seed, **TRAINING, **kind)
            shares = accuracy_by_distance(model, held_out, count=COUNT, **kind)
            arms[name].append(shares)
            told = " ".join(f"{share:.2f}" for share in shares)
            print(f"{time.perf_counter() - began:5.0f} s  {name:18}{told}", flush=True)
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores shared with other work, one thread used",
            seconds=before + time.perf_counter() - began,
            settings=settings | {"seeds": SEEDS[: len(arms["1 layer"])]},
            results={"text_sha256": text.sha256, "arms": arms},
        )


if __name__ == "__main__":
    main()
