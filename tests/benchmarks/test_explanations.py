"""Explanations: integrated gradients against captum, LIME on a text against the package."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.interpret.gradients import integrated_gradients
from lib.interpret.surrogate import lime
from lib.teaching.word_classifier import WordClassifier, Words

PACKAGE_WIDTH = 0.25 * math.sqrt(2)  # the lime package's kernel, in our terms


def classifier(device: str) -> tuple[WordClassifier, Words]:
    """A word classifier of chapters 16 to 18, untrained but not shy, and its vocabulary."""
    names = [f"w{i}" for i in range(2000)]
    data = SimpleNamespace(names=[f"class {i}" for i in range(8)])
    read = Words(data, ("[PAD]", "[CLS]", "[MASK]", *names), 32)
    model = WordClassifier(read)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                spread = 1.0 / math.sqrt(parameter.shape[1])
                parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return model.to(device).eval(), read


def sentences(count: int, length: int) -> list[str]:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(2000, (count, length), generator=generator).tolist()
    return [" ".join(f"w{i}" for i in row) for row in rows]


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(1, marks=pytest.mark.rows("ig-one"), id="one"),
        pytest.param(8, marks=pytest.mark.rows("ig-batch"), id="batch"),
    ],
)
def test_integrated_gradients(contest, count):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    size = contest.sizes(length=(24, 5), steps=(64, 7))
    model, read = classifier(contest.device)
    ids = read.encode(sentences(count, size["length"])).to(contest.device)
    with torch.no_grad():
        x = model.word_vectors(ids)
        start = model.word_vectors(torch.full_like(ids, 2))

    def f(vectors: Tensor) -> Tensor:
        rows = ids.repeat(len(vectors) // len(ids), 1)  # the texts again at every node
        return model.from_word_vectors(vectors, rows)[:, 3]

    method = captum.IntegratedGradients(f)
    difference = contest.speed(
        "ig-one" if count == 1 else "ig-batch",
        lambda: integrated_gradients(f, x, start, steps=size["steps"]),
        lambda: method.attribute(x, start, n_steps=size["steps"], method="gausslegendre"),
        tolerance=1e-4,
    )
    assert 0 <= difference <= 1e-4


def by_bert(text: str, label: int, device: str):
    """A BERT as a function of strings, and of rows that say which words are present."""
    model, read = classifier(device)
    ids = read.encode([text]).to(device)

    def probabilities(texts: list[str]) -> np.ndarray:
        with torch.no_grad():
            return model(read.encode(texts).to(device)).softmax(-1).cpu().numpy()

    def f(present: Tensor) -> Tensor:
        with torch.no_grad():
            return model(model.hide(ids, present.to(device))).softmax(-1)[:, label]

    return probabilities, f


def by_words(text: str, label: int, device: str):
    """A bag of words likewise: the logistic function of a sum of weights."""
    words = text.split()
    weights = torch.randn(len(words), generator=torch.Generator().manual_seed(4))
    by_name = dict(zip(words, weights.tolist(), strict=True))

    def probabilities(texts: list[str]) -> np.ndarray:
        sums = [sum(by_name.get(word, 0.0) for word in text.split()) for text in texts]
        p = torch.tensor(sums).sigmoid()
        return torch.stack([1 - p, p], dim=1).numpy()

    def f(present: Tensor) -> Tensor:
        return (present.float() @ weights).sigmoid()

    return probabilities, f


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.rows(f"lime-{kind}")) for kind in ("text", "words")],
)
def test_lime(contest, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a package warns of at its import is its own affair
        text_module = pytest.importorskip("lime.lime_text", reason="lime is not installed")
    size = contest.sizes(length=(24, 5), samples=(1000, 200))
    (text,) = sentences(1, size["length"])
    n, m, label = size["length"], size["samples"], 3 if kind == "text" else 1
    probabilities, f = {"text": by_bert, "words": by_words}[kind](text, label, contest.device)

    def ours(seed: int = 0, samples: int = m) -> Tensor:
        found = lime(f, n, kernel_width=PACKAGE_WIDTH, samples=samples, seed=seed, ridge=1.0)
        return found.coefficients

    def theirs(seed: int = 0) -> Tensor:
        explainer = text_module.LimeTextExplainer(
            bow=False, mask_string="unknown", split_expression=str.split, random_state=seed
        )
        found = explainer.explain_instance(
            text, probabilities, labels=[label], num_features=n, num_samples=m
        )
        row = torch.zeros(n, dtype=torch.float64)
        for j, coefficient in found.local_exp[label]:
            row[j] = float(coefficient)
        return row

    # Equal error: over seeds, each is as far as the other from what many more samples say.
    seeds = range(8 if contest.measures else 2)
    exact = ours(seed=99, samples=20 * m)
    errors = [
        torch.stack([run(seed) - exact for seed in seeds]).square().mean().sqrt().item()
        for run in (ours, theirs)
    ]
    correlation = torch.corrcoef(torch.stack([ours(), theirs()]))[0, 1].item()
    assert correlation > 0.9, f"expected the same explanation, got a correlation of {correlation}"
    assert 0.5 < errors[0] / errors[1] < 1.5, errors
    contest.speed(
        f"lime-{kind}",
        ours,
        theirs,
        difference=1 - correlation,
        tolerance=0.1,
        note=f"correlation {correlation:.3f}; our error is {errors[0] / errors[1]:.2f} of theirs",
    )
