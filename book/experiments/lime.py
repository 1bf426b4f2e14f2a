"""Three explanations of many sentences, and how far each is true of its model.

    python book/experiments/lime.py

writes lime.json beside this file, which chapter 18_lime reads. It takes a few minutes on one
thread. The model is the small BERT of `lib.teaching.word_classifier`, trained once for every seed;
the sentences are held-out docstrings of 6 to 16 words and signs; what is explained is the logit of
the class that the model says. A word that is taken away is hidden behind [MASK].

* the deletion test, for every model, sentence and method: how far does the logit fall, on average
  over k, when the k words of largest attribution are gone?
* the spread of LIME's coefficients over seeds, against the number of samples;
* the `lime` package beside ours, with one kernel and one number of samples: the correlation of
  their coefficients, and how many times longer it takes.

The file is written anew after every model, at once or not at all.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
# This file has the name of the package that it compares with, and so must not be found first.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(ROOT))

from lib.interpret.deletion import deletion_curve  # noqa: E402
from lib.interpret.gradients import integrated_gradients  # noqa: E402
from lib.interpret.shapley import kernel_shap  # noqa: E402
from lib.interpret.surrogate import lime  # noqa: E402
from lib.teaching.recorded import record  # noqa: E402
from lib.teaching.word_classifier import (  # noqa: E402
    MASK,
    WordClassifier,
    Words,
    train,
    words,
)

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/lime.py"
SEEDS = [0, 1, 2]
SETTINGS = {
    "steps": 600,  # of training
    "sentences": 40,
    "shortest": 6,
    "longest": 16,
    "samples": 500,  # of LIME and of KernelSHAP
    "nodes": 32,  # of integrated gradients
    "orders": 10,  # random ones
    "repeats": 10,  # seeds of LIME, for the spread
    "spread_sentences": 4,
    "package_sentences": 5,
    "package_samples": 2000,
}
PACKAGE_WIDTH = 0.25 * math.sqrt(2)  # what the package's default of 25 is in our kernel
WIDTHS = {"LIME, σ = 0.1": 0.1, "LIME": PACKAGE_WIDTH, "LIME, σ = 2": 2.0}
METHODS = ["integrated gradients", "Shapley", *WIDTHS, "leave one out"]
CONTROLS = ["random", "greedy"]
SAMPLES = [32, 128, 512, 2048]

Game = Callable[[Tensor], Tensor]


def chosen(read: Words) -> list[str]:
    """The first held-out texts of the right length."""
    low, high = SETTINGS["shortest"], SETTINGS["longest"]
    fit = [t for t in read.data.validation if low <= len(read.split(t)) <= high]
    return fit[: SETTINGS["sentences"]]


def game(model: WordClassifier, ids: Tensor, label: int) -> Game:
    """The logit of `label` with only the present words of one text (1, n + 1) to be read."""

    def f(present: Tensor) -> Tensor:
        with torch.no_grad():
            return model(model.hide(ids, present))[:, label].double()

    return f


def gradients(model: WordClassifier, ids: Tensor, label: int) -> Tensor:
    """Integrated gradients of each word, from [MASK]'s vector to its own."""
    with torch.no_grad():
        inputs = model.word_vectors(ids)
        hidden = model.word_vectors(torch.where(torch.arange(ids.shape[1]) > 0, MASK, ids))

    def f(vectors: Tensor) -> Tensor:
        return model.from_word_vectors(vectors, ids.expand(len(vectors), -1))[:, label]

    return integrated_gradients(f, inputs, hidden, steps=SETTINGS["nodes"])[0, 1:].sum(-1).double()


def remembered(f: Game) -> Game:
    """f, which is not asked again for the rows that it was asked for just before."""
    last: dict[str, Tensor] = {}

    def g(present: Tensor) -> Tensor:
        if not ("rows" in last and torch.equal(last["rows"], present)):
            last["values"], last["rows"] = f(present), present.clone()
        return last["values"]

    return g


def attributions(model: WordClassifier, ids: Tensor, label: int) -> dict[str, Tensor]:
    """What each method says of each word of one text, (n,)."""
    n, f = ids.shape[1] - 1, game(model, ids, label)
    found = {
        "integrated gradients": gradients(model, ids, label),
        "Shapley": kernel_shap(f, n, samples=SETTINGS["samples"], seed=0),
    }
    once = remembered(f)
    for name, width in WIDTHS.items():
        line = lime(once, n, kernel_width=width, samples=SETTINGS["samples"], seed=0)
        found[name] = line.coefficients
    everything = torch.ones(1, n, dtype=torch.bool)
    found["leave one out"] = f(everything) - f(~torch.eye(n, dtype=torch.bool))
    return found


def fall(f: Game, scores: Tensor) -> float:
    """How far the answer falls, on average over k = 1 … n words that are gone."""
    curve = deletion_curve(f, scores)
    return float(curve[0] - curve[1:].mean())


def greedy(f: Game, n: int) -> Tensor:
    """Scores of an order that takes away, at each step, the word whose loss costs most now."""
    present, scores = torch.ones(n, dtype=torch.bool), torch.zeros(n)
    for step in range(n):
        left = present.nonzero()[:, 0]
        rows = present.repeat(len(left), 1)
        rows[torch.arange(len(left)), left] = False
        worst = left[f(rows).argmin()]
        present[worst], scores[worst] = False, n - step
    return scores


def spread_of(f: Game, n: int) -> list[float]:
    """For each number of samples: LIME's standard deviation over seeds ÷ its largest coefficient.

    The root of the mean variance over words; the coefficient is that of the most samples.
    """
    found = []
    for m in SAMPLES:
        lines = [
            lime(f, n, kernel_width=PACKAGE_WIDTH, samples=m, seed=seed)
            for seed in range(SETTINGS["repeats"])
        ]
        runs = torch.stack([line.coefficients for line in lines])
        found.append(float(runs.var(0).mean().sqrt()))
    largest = float(runs.mean(0).abs().max())
    return [x / largest for x in found]


def package(model: WordClassifier, read: Words, text: str, label: int) -> tuple[float, float]:
    """Correlation of the `lime` package's coefficients with ours, and its time ÷ ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a package warns of at its import is its own affair
        from lime.lime_text import LimeTextExplainer

    def classifier(texts: list[str]):
        with torch.no_grad():
            return model(read.encode(texts)).numpy()

    text = text.lower()
    m = SETTINGS["package_samples"]
    explainer = LimeTextExplainer(
        bow=False, mask_string=" unkwordz ", split_expression=read.split, random_state=0
    )
    began = time.perf_counter()
    found = explainer.explain_instance(
        text, classifier, labels=[label], num_features=100, num_samples=m
    )
    theirs_took = time.perf_counter() - began
    ids = read.encode([text])
    n = ids.shape[1] - 1
    began = time.perf_counter()
    f = game(model, ids, label)
    ours = lime(f, n, kernel_width=PACKAGE_WIDTH, samples=m, seed=0, ridge=1.0)
    ours_took = time.perf_counter() - began
    theirs = torch.zeros(n, dtype=torch.float64)
    for j, coefficient in found.local_exp[label]:
        theirs[j] = float(coefficient)
    both = torch.stack([ours.coefficients, theirs])
    return float(torch.corrcoef(both)[0, 1]), theirs_took / ours_took


def main(path: Path = RESULTS) -> None:
    """Train, explain, take words away; the file at `path` is whole after each model."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    read = words()
    texts = chosen(read)
    arms = [*METHODS, *(f"{name}, reversed" for name in METHODS), *CONTROLS]
    results: dict = {
        "text_sha256": read.data.sha256,
        "lengths": [len(read.split(text)) for text in texts],
        "accuracy": [],  # of each model on all held-out texts
        "total": [],  # of each model: mean of f(all) − f(none)
        "fall": {name: [] for name in arms},  # of each model, of each sentence
        "best": {name: [] for name in METHODS},  # of each model: share of sentences it wins
        "agreement": {},  # pair of methods: of each model, the mean correlation over sentences
        "spread": [],  # of each model, mean over sentences for each number of samples
        "package": {"correlation": [], "time_ratio": []},  # of each model, of each sentence
    }
    for seed in SEEDS:
        model, accuracy = train(read, seed=seed, steps=SETTINGS["steps"])
        falls: dict[str, list[float]] = {name: [] for name in arms}
        totals, spreads, agree = [], [], {}
        rng = torch.Generator().manual_seed(seed)
        for k, text in enumerate(texts):
            ids = read.encode([text])
            n = ids.shape[1] - 1
            with torch.no_grad():
                label = int(model(ids).argmax())
            f = game(model, ids, label)
            ends = f(torch.tensor([[True] * n, [False] * n]))
            totals.append(float(ends[0] - ends[1]))
            found = attributions(model, ids, label)
            for name, scores in found.items():
                falls[name].append(fall(f, scores))
                falls[f"{name}, reversed"].append(fall(f, -scores))
            random = [fall(f, torch.rand(n, generator=rng)) for _ in range(SETTINGS["orders"])]
            falls["random"].append(sum(random) / len(random))
            falls["greedy"].append(fall(f, greedy(f, n)))
            table = torch.corrcoef(torch.stack(list(found.values())))
            for i, one in enumerate(METHODS):
                for j in range(i):
                    agree.setdefault(f"{METHODS[j]} | {one}", []).append(float(table[i, j]))
            if k < SETTINGS["spread_sentences"]:
                spreads.append(spread_of(f, n))
            if k < SETTINGS["package_sentences"]:
                correlation, ratio = package(model, read, text, label)
                results["package"]["correlation"].append(round(correlation, 5))
                results["package"]["time_ratio"].append(round(ratio, 2))
        results["accuracy"].append(round(accuracy, 4))
        results["total"].append(round(sum(totals) / len(totals), 4))
        for name in arms:
            results["fall"][name].append([round(x, 4) for x in falls[name]])
        table = torch.tensor([falls[name] for name in METHODS])
        wins = (table >= table.max(0).values - 1e-9).double()
        share = (wins / wins.sum(0)).mean(1)  # a tie is shared
        for name, x in zip(METHODS, share.tolist(), strict=True):
            results["best"][name].append(round(x, 4))
        for pair, values in agree.items():
            mean = sum(values) / len(values)
            results["agreement"].setdefault(pair, []).append(round(mean, 4))
        results["spread"].append([round(x, 4) for x in torch.tensor(spreads).mean(0).tolist()])
        seconds = time.perf_counter() - began
        print(f"{seconds:5.0f} s  model {seed}: accuracy {accuracy:.3f}", flush=True)
        for name in arms:
            print(f"    {name:32}{torch.tensor(falls[name]).mean():7.3f}", flush=True)
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores, one thread used",
            seconds=seconds,
            settings={**SETTINGS, "seeds": SEEDS, "widths": WIDTHS, "spread_samples": SAMPLES},
            results=results,
        )


if __name__ == "__main__":
    main()
