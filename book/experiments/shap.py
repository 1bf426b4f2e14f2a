"""Exact Shapley values of many sentences under several models and ways to leave a word out.

What is recorded is how far they agree.

    python book/experiments/shap.py

writes shap.json beside this file, which chapter 17_shap reads. It takes a few minutes on one
thread. The model is the small BERT of `lib.teaching.word_classifier`, trained once for every seed;
the sentences are held-out docstrings of 8 to 10 words and signs, all known to it, and the game is
the logit of the sentence's own module. All values are exact, from all coalitions.

The file is written anew after every model, at once or not at all.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.interpret.shapley import (  # noqa: E402
    coalitions,
    kernel_shap,
    permutation_shap,
    shapley_values,
)
from lib.teaching.missing_words import background, sentence_game  # noqa: E402
from lib.teaching.recorded import record  # noqa: E402
from lib.teaching.word_classifier import MASK, Words, train, words  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/shap.py"
SEEDS = [0, 1, 2, 3, 4]
SETTINGS = {"sentences": 40, "shortest": 8, "longest": 10, "draws": 8, "steps": 600}
WAYS = ["mask", "delete", "pad", "random", "random again"]
PERMUTATIONS = [8, 32, 128]
DRAWS = 10  # of each sampling method, with seeds 0, 1, …


def chosen(read: Words) -> list[tuple[str, int]]:
    """Held-out texts and labels, all words known; the first, if there are more."""
    found = []
    for text, label in zip(read.data.validation, read.data.validation_labels, strict=True):
        ids = read.encode([text])[0, 1:]
        if SETTINGS["shortest"] <= len(ids) <= SETTINGS["longest"] and not (ids == MASK).any():
            found.append((text, label))
    return found[: SETTINGS["sentences"]]


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of two vectors."""
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def lookup(value: Tensor):
    """The game of a table of all 2^n values, in the order of `coalitions`."""
    n = len(value).bit_length() - 1
    bits = 2 ** torch.arange(n)
    return lambda present: value[(present * bits).sum(1)]


def sampling_errors(value: Tensor, exact: Tensor) -> dict[str, list[float]]:
    """Squared errors of three estimates, a mean over draws and players, for each size."""
    n, f = len(exact), lookup(value)

    def error(estimate) -> float:
        return float(torch.stack([(estimate(s) - exact) ** 2 for s in range(DRAWS)]).mean())

    found: dict[str, list[float]] = {"orders": [], "antithetic": [], "kernel": []}
    for m in PERMUTATIONS:
        for name, antithetic in (("orders", False), ("antithetic", True)):
            options = {"permutations": m, "antithetic": antithetic}
            found[name].append(error(lambda s, o=options: permutation_shap(f, n, seed=s, **o)))
        samples = m * (n - 1) // 2 * 2  # as many coalitions as the orders ask for
        found["kernel"].append(error(lambda s, k=samples: kernel_shap(f, n, samples=k, seed=s)))
    return found


def main(path: Path = RESULTS) -> None:
    """Train, take every sentence apart, and compare; the file is whole after each model."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    read = words()
    texts = chosen(read)
    results: dict = {
        "text_sha256": read.data.sha256,
        "texts": [text for text, _ in texts],
        "lengths": [len(read.split(text)) for text, _ in texts],
        "accuracy": [],  # of each model on all held-out texts
        "right": [],  # of each model, how many of these sentences
        "correlation": {},  # pair of ways: of each model, of each sentence
        "same_top": {},  # pair of ways: of each model, share of sentences with the same top word
        "total": {way: [] for way in WAYS},  # f(all) − f(none), of each model, mean
        "left_out": {"correlation": [], "same_top": [], "sum": []},
        "models": {"correlation": [], "same_top": []},  # pairs of models, [MASK]
        "errors": {},  # method: of each model, root of mean squared error ÷ root of mean φ²
    }
    by_model = []
    for seed in SEEDS:
        model, accuracy = train(read, seed=seed, steps=SETTINGS["steps"])
        values: list[dict[str, Tensor]] = []
        totals: dict[str, list[float]] = {way: [] for way in WAYS}
        out, errors, power, right = [], {}, 0.0, 0
        for text, label in texts:
            ids = read.encode([text])
            n = ids.shape[1] - 1
            with torch.no_grad():
                right += int(model(ids).argmax()) == label
            one = {}
            for way in WAYS:
                others = None
                if way.startswith("random"):
                    others = background(read, n, SETTINGS["draws"], seed=int("again" in way))
                f = sentence_game(model, ids, label, way.split()[0], others=others)
                table = f(coalitions(n))
                one[way] = shapley_values(lookup(table), n)
                totals[way].append(float(table[-1] - table[0]))
                if way == "mask":
                    masked = table
            values.append(one)
            left = masked[-1] - masked[len(masked) - 1 - 2 ** torch.arange(n)]
            out.append((left, one["mask"], totals["mask"][-1]))
            for name, found in sampling_errors(masked, one["mask"]).items():
                total = errors.setdefault(name, [0.0] * len(PERMUTATIONS))
                errors[name] = [a + b for a, b in zip(total, found, strict=True)]
            power += float(one["mask"].square().mean())
        by_model.append(values)

        results["accuracy"].append(round(accuracy, 4))
        results["right"].append(right)
        for a, b in itertools.combinations(WAYS, 2):
            pair = f"{a} | {b}"
            alike = [round(correlation(v[a], v[b]), 3) for v in values]
            top = [int(v[a].argmax() == v[b].argmax()) for v in values]
            results["correlation"].setdefault(pair, []).append(alike)
            results["same_top"].setdefault(pair, []).append(sum(top) / len(top))
        for way in WAYS:
            results["total"][way].append(round(sum(totals[way]) / len(texts), 3))
        alike = [round(correlation(left, phi), 3) for left, phi, _ in out]
        results["left_out"]["correlation"].append(alike)
        top = [int(left.argmax() == phi.argmax()) for left, phi, _ in out]
        results["left_out"]["same_top"].append(sum(top) / len(top))
        share = sum(float(left.sum()) for left, _, _ in out) / sum(total for _, _, total in out)
        results["left_out"]["sum"].append(round(share, 3))
        for name, found in errors.items():
            relative = [round((error / power) ** 0.5, 4) for error in found]
            results["errors"].setdefault(name, []).append(relative)
        for earlier in by_model[:-1]:
            pairs = [(a["mask"], b["mask"]) for a, b in zip(earlier, values, strict=True)]
            alike = [round(correlation(a, b), 3) for a, b in pairs]
            results["models"]["correlation"].append(alike)
            top = [int(a.argmax() == b.argmax()) for a, b in pairs]
            results["models"]["same_top"].append(sum(top) / len(top))
        seconds = time.perf_counter() - began
        print(f"{seconds:5.0f} s  model {seed}: accuracy {accuracy:.3f}", flush=True)
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores, one thread used",
            seconds=seconds,
            settings={**SETTINGS, "seeds": SEEDS, "permutations": PERMUTATIONS, "repeats": DRAWS},
            results=results,
        )


if __name__ == "__main__":
    main()
