"""Attribute many held-out texts with several small BERTs, and write down what holds up.

    python book/experiments/integrated_gradients.py

writes integrated_gradients.json beside this file, which chapter 16_integrated_gradients reads. It
takes some minutes on one thread. For each seed a model is trained afresh, and explains its own
answer, the logit of the class that it names, on the same held-out texts: how large is the
completeness gap after so many steps, how much does the baseline change the ranking of words, and
how fast does the answer fall when the words that rank highest are taken away. The first model's
attributions are also compared with captum's.

The file is written anew after every model, at once or not at all, so it may be stopped.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.interpret import (  # noqa: E402
    completeness_gap,
    deletion_curve,
    gradient_times_input,
    integrated_gradients,
)
from lib.teaching.recorded import record  # noqa: E402
from lib.teaching.word_classifier import (  # noqa: E402
    MASK,
    PAD,
    WordClassifier,
    Words,
    train,
    words,
)

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/integrated_gradients.py"
SEEDS = [0, 1, 2, 3, 4]
TRAINING = {"steps": 600}
TEXTS = {"texts": 100, "texts_for_steps": 25, "fewest_words": 5, "random_draws": 10, "ig_steps": 32}
STEPS = [4, 8, 16, 32, 64]
RULES = ["gauss", "midpoint", "trapezoid", "left"]
BASELINES = ["zero", "[PAD]", "[MASK]", "mean"]
METHODS = [
    *(f"IG, {name}" for name in BASELINES),
    "gradient × input",
    "gradient × (input − [MASK])",
    "leave one out",
]
WAYS = ["hide", "cut"]  # a word that leaves is hidden behind [MASK], or cut out of the text


def chosen_texts(data: Words) -> list[Tensor]:
    """The ids (1, n) of the held-out texts to explain, the same for every model."""
    order = torch.randperm(
        len(data.data.validation), generator=torch.Generator().manual_seed(0)
    ).tolist()
    rows = [data.encode([data.data.validation[i]]) for i in order]
    return [ids for ids in rows if ids.shape[1] > TEXTS["fewest_words"]][: TEXTS["texts"]]


def baseline_rows(model: WordClassifier, data: Words) -> dict[str, Tensor]:
    """For each baseline the vector (d_model,) that stands for every word."""
    table = model.bert.encoder.embeddings.word.weight.detach()
    counts = torch.bincount(data.encode(data.data.train).flatten(), minlength=len(table))
    counts[: MASK + 1] = 0  # of words, and not of [PAD], [CLS] and [MASK]
    mean = counts.to(table) @ table / counts.sum()
    rows = [torch.zeros_like(mean), table[PAD], table[MASK], mean]
    return dict(zip(BASELINES, rows, strict=True))


def in_place_of_words(x: Tensor, row: Tensor) -> Tensor:
    """The word vectors (1, n, d) with this one in place of every word; [CLS] stays."""
    return torch.cat([x[:, :1], row.expand(1, x.shape[1] - 1, -1)], dim=1)


def logit_of(
    model: WordClassifier, ids: Tensor, label: int
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """One class's logit as a function of the word vectors, and the vectors of this text."""

    def f(vectors: Tensor) -> Tensor:
        return model.from_word_vectors(vectors, ids.expand(len(vectors), -1))[:, label]

    return f, model.word_vectors(ids).detach()


def cut(ids: Tensor, present: Tensor) -> Tensor:
    """One text's ids (1, n) without its absent words, a row for each row of `present`."""
    rows = [torch.cat([ids[0, :1], ids[0, 1:][row]]) for row in present]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def scores_of(
    model: WordClassifier, ids: Tensor, label: int, rows: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The score (n − 1,) of every word under every method."""
    f, x = logit_of(model, ids, label)
    steps, scores = TEXTS["ig_steps"], []
    for row in rows.values():
        scores.append(integrated_gradients(f, x, in_place_of_words(x, row), steps=steps))
    scores.append(gradient_times_input(f, x))
    scores.append(gradient_times_input(f, x, in_place_of_words(x, rows["[MASK]"])))
    found = [share.sum(-1)[0, 1:] for share in scores]
    without = ~torch.eye(ids.shape[1] - 1, dtype=torch.bool)
    with torch.no_grad():
        found.append(model(ids)[:, label] - model(model.hide(ids, without))[:, label])
    return dict(zip(METHODS, found, strict=True))


def spearman(a: Tensor, b: Tensor) -> float:
    """The correlation of two rankings."""
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return torch.corrcoef(ranks)[0, 1].item()


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def gaps(model: WordClassifier, texts: list[Tensor], row: Tensor) -> dict[str, list[float]]:
    """For each rule the median over texts of the absolute gap, one number for each of STEPS."""
    table: dict[str, list[float]] = {rule: [] for rule in RULES}
    for rule, steps in itertools.product(RULES, STEPS):
        found = []
        for ids in texts:
            with torch.no_grad():
                label = int(model(ids).argmax())
            f, x = logit_of(model.double(), ids, label)
            start = in_place_of_words(x, row.double())
            a = integrated_gradients(f, x, start, steps=steps, rule=rule)
            found.append(completeness_gap(a, f, x, start).abs())
        table[rule].append(torch.cat(found).median().item())
        model.float()
    return table


def explain(model: WordClassifier, data: Words, texts: list[Tensor], seed: int) -> dict:
    """All that is measured of one model on its own, which explains the class that it names."""
    rows = baseline_rows(model, data)
    draw = torch.Generator().manual_seed(seed)
    curves = {way: {name: [] for name in [*METHODS, "random"]} for way in WAYS}
    agreement = {f"{a} | {b}": [] for a, b in itertools.combinations(METHODS, 2)}
    same_top = {pair: [] for pair in agreement}
    heights = {name: [] for name in BASELINES}
    for ids in texts:
        with torch.no_grad():
            label = int(model(ids).argmax())
        scores = scores_of(model, ids, label, rows)
        for a, b in itertools.combinations(METHODS, 2):
            agreement[f"{a} | {b}"].append(spearman(scores[a], scores[b]))
            same_top[f"{a} | {b}"].append(float(scores[a].argmax() == scores[b].argmax()))
        f, x = logit_of(model, ids, label)
        with torch.no_grad():
            for name, row in rows.items():
                heights[name].append((f(in_place_of_words(x, row)) / f(x)).item())
        n = ids.shape[1] - 1
        for way in WAYS:

            def left(present: Tensor, way=way, ids=ids, label=label) -> Tensor:
                changed = model.hide(ids, present) if way == "hide" else cut(ids, present)
                with torch.no_grad():
                    return model(changed).softmax(-1)[:, label]

            for name, score in scores.items():
                curves[way][name].append(deletion_curve(left, score).mean().item())
            drawn = [
                deletion_curve(left, torch.rand(n, generator=draw)).mean().item()
                for _ in range(TEXTS["random_draws"])
            ]
            curves[way]["random"].append(mean(drawn))
    return {
        "deletion": {
            way: {name: mean(found) for name, found in each.items()} for way, each in curves.items()
        },
        "better_than_random": {
            way: {
                name: mean([float(a < b) for a, b in zip(each[name], each["random"], strict=True)])
                for name in METHODS
            }
            for way, each in curves.items()
        },
        "agreement": {pair: mean(found) for pair, found in agreement.items()},
        "same_top": {pair: mean(found) for pair, found in same_top.items()},
        "baseline_logit_share": {
            name: torch.tensor(found).median().item() for name, found in heights.items()
        },
    }


def against_captum(model: WordClassifier, data: Words, texts: list[Tensor]) -> dict[str, float]:
    """The largest difference from captum's attributions at equal nodes, and the ratio of times."""
    from captum.attr import IntegratedGradients

    row = baseline_rows(model, data)["[MASK]"]
    differences, ours, theirs = [], 0.0, 0.0
    for ids in texts:
        with torch.no_grad():
            label = int(model(ids).argmax())
        f, x = logit_of(model, ids, label)
        start = in_place_of_words(x, row)
        began = time.perf_counter()
        a = integrated_gradients(f, x, start, steps=TEXTS["ig_steps"])
        between = time.perf_counter()
        b = IntegratedGradients(f).attribute(
            x, start, n_steps=TEXTS["ig_steps"], method="gausslegendre"
        )
        theirs += time.perf_counter() - between
        ours += between - began
        differences.append((a - b).abs().max().item())
    return {"largest_difference": max(differences), "time_ratio": theirs / ours}


def main(path: Path = RESULTS) -> None:
    """Train and explain model after model; the file at `path` is whole after each of them."""
    torch.set_num_threads(1)
    data = words()
    texts = chosen_texts(data)
    began = time.perf_counter()
    settings = {**TRAINING, **TEXTS, "seeds": SEEDS, "gap_steps": STEPS, "rules": RULES}
    results: dict = {"words": len(data.vocabulary), "explained": [], "models": []}
    every: list[list[dict[str, Tensor]]] = []  # model, text: the scores of one class for all
    for seed in SEEDS:
        model, accuracy = train(data, seed=seed, steps=TRAINING["steps"])
        found = {"seed": seed, "accuracy": accuracy, **explain(model, data, texts, seed)}
        rows = baseline_rows(model, data)
        if not every:  # between models, all explain the class that the first one names
            with torch.no_grad():
                results["explained"] = [int(model(ids).argmax()) for ids in texts]
        explained = zip(texts, results["explained"], strict=True)
        every.append([scores_of(model, ids, label, rows) for ids, label in explained])
        if seed == SEEDS[0]:
            results["captum"] = against_captum(model, data, texts[: TEXTS["texts_for_steps"]])
        found["gap"] = gaps(model, texts[: TEXTS["texts_for_steps"]], rows["[MASK]"])
        results["models"].append(found)
        results["between_seeds"] = {
            name: [
                mean([spearman(a[name], b[name]) for a, b in zip(one, other, strict=True)])
                for one, other in itertools.combinations(every, 2)
            ]
            for name in METHODS
        }
        seconds = time.perf_counter() - began
        print(f"{seconds:5.0f} s  seed {seed}  accuracy {accuracy:.3f}", flush=True)
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores, one thread used",
            seconds=seconds,
            settings=settings,
            results=results,
        )


if __name__ == "__main__":
    main()
