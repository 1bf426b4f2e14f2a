"""Make a small BERT smaller in every way of chapter 15, and write down accuracy against size.

    python book/experiments/compression.py

writes compression.json beside this file, which chapter 15_pruning_and_quantization reads. It takes
about six minutes on one thread. For each seed a classifier is trained, and every other arm starts
from it or is taught by it. Sizes are those of a file with what the classifier needs.

The file is written anew after every seed, at once or not at all, so it may be stopped.
"""

from __future__ import annotations

import copy
import sys
import time
import zlib
from pathlib import Path

import torch
from safetensors.torch import save

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.compression import magnitude_prune  # noqa: E402
from lib.teaching.compressing import (  # noqa: E402
    accuracy,
    cut,
    file_bytes,
    packed,
    rounded,
    sparse,
    tune,
    whole,
)
from lib.teaching.recorded import record  # noqa: E402
from lib.teaching.word_classifier import WordClassifier, train, words  # noqa: E402
from lib.training import seed_everything  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/compression.py"
SEEDS = [0, 1, 2, 3]
SETTINGS = {
    "steps": 600,  # of the large model, and of a small one
    "tune_steps": 150,
    "tune_rate": 1e-3,
    "rate": 3e-3,
    "narrow": 16,  # d_model of the small one
    "amounts": [0.5, 0.8, 0.9, 0.95],
    "bits": [8, 6, 4, 3, 2],
    "tuned_bits": [4, 3, 2],
    "heads": 2,  # that are left, of 3
    "neurons": 48,  # of 192
}


def one_seed(texts, seed: int) -> dict[str, tuple[int, float]]:
    """Every arm of one seed: (bytes of the file, accuracy on held-out texts)."""
    s = SETTINGS
    arms: dict[str, tuple[int, float]] = {}
    model, score = train(texts, seed=seed, steps=s["steps"], learning_rate=s["rate"])
    size = file_bytes(whole(model))
    arms["dense"] = (size, score)

    def tuned(start, steps=s["tune_steps"], rate=s["tune_rate"], **options):
        return tune(start, texts, seed=1000 + seed, steps=steps, learning_rate=rate, **options)

    arms["dense, tuned"] = (size, accuracy(tuned(model), texts))
    half = WordClassifier(texts)
    half.load_state_dict({n: t.half().float() for n, t in model.state_dict().items()})
    arms["16 bits"] = (file_bytes(whole(model, torch.float16)), accuracy(half.eval(), texts))
    for amount in s["amounts"]:
        pruned = copy.deepcopy(model)
        masks = magnitude_prune(pruned, amount)
        name = f"{amount:.0%} zeros"
        arms[name] = (file_bytes(sparse(pruned)), accuracy(pruned, texts))
        arms[f"{name}, same file"] = (file_bytes(whole(pruned)), arms[name][1])
        archive = len(zlib.compress(save(whole(pruned)), 9))
        arms[f"{name}, zlib"] = (archive, arms[name][1])
        again = tuned(pruned, masks=masks)
        arms[f"{name}, tuned"] = (file_bytes(sparse(again)), accuracy(again, texts))
    for bits in s["bits"]:
        arms[f"{bits} bits"] = (
            file_bytes(packed(model, bits)),
            accuracy(rounded(model, bits), texts),
        )
    for bits in s["tuned_bits"]:
        again = rounded(tuned(model, bits=bits), bits)
        arms[f"{bits} bits, tuned"] = (file_bytes(packed(again, bits)), accuracy(again, texts))

    ids = texts.encode(texts.data.train[:512])
    labels = torch.tensor(texts.data.train_labels[:512])
    smaller = cut(model, ids, labels, heads=s["heads"], neurons=s["neurons"])
    arms["cut"] = (file_bytes(whole(smaller)), accuracy(smaller, texts))
    smaller = tuned(smaller)
    arms["cut, tuned"] = (file_bytes(whole(smaller)), accuracy(smaller, texts))
    arms["cut, tuned, 8 bits"] = (
        file_bytes(packed(smaller, 8)),
        accuracy(rounded(smaller, 8), texts),
    )
    for name, teacher in (("narrow", None), ("narrow, distilled", model)):
        seed_everything(seed)
        narrow = WordClassifier(texts, s["narrow"])
        narrow = tuned(narrow, steps=s["steps"], rate=s["rate"], teacher=teacher)
        arms[name] = (file_bytes(whole(narrow)), accuracy(narrow, texts))
        arms[f"{name}, 8 bits"] = (
            file_bytes(packed(narrow, 8)),
            accuracy(rounded(narrow, 8), texts),
        )
    return arms


def main(path: Path = RESULTS) -> None:
    """Run every seed; the file at `path` is whole after each of them."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    texts = words()
    results = {
        "sha256": texts.data.sha256,
        "held_out": len(texts.data.validation),
        "bytes": {},
        "accuracy": {},
    }
    for seed in SEEDS:
        for name, (size, score) in one_seed(texts, seed).items():
            results["bytes"].setdefault(name, []).append(size)
            results["accuracy"].setdefault(name, []).append(score)
            print(f"seed {seed}  {name:24}{size:9,} bytes  {score:.3f}", flush=True)
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores, one thread used",
            seconds=time.perf_counter() - began,
            settings={**SETTINGS, "seeds": SEEDS},
            results=results,
        )


if __name__ == "__main__":
    main()
