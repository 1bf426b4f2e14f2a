"""The recorded run that chapter 17_shap shows: it is whole, and its command can be run."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from lib.interpret.shapley import coalitions, shapley_values
from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import MASK, words

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "shap.py"


@pytest.fixture
def tiny(run, monkeypatch):
    settings = {"sentences": 2, "shortest": 8, "longest": 8, "draws": 2, "steps": 2}
    monkeypatch.setattr(run, "SETTINGS", settings)
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    monkeypatch.setattr(run, "PERMUTATIONS", [8])
    monkeypatch.setattr(run, "DRAWS", 2)
    return run


def shape_of(nested):
    """Lengths of nested lists, or of lists in a dict."""
    if isinstance(nested, dict):
        return {key: shape_of(value) for key, value in nested.items()}
    if not isinstance(nested, list):
        return ()
    inner = {str(shape_of(one)): shape_of(one) for one in nested}
    assert len(inner) == 1, "lists of several lengths"
    return (len(nested), *next(iter(inner.values())))


def test_the_recorded_file_holds_every_run(run):
    record = recorded("shap")
    assert record["settings"] == {
        **run.SETTINGS,
        "seeds": run.SEEDS,
        "permutations": run.PERMUTATIONS,
        "repeats": run.DRAWS,
    }
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    found = record["results"]
    models, sentences = len(run.SEEDS), len(found["texts"])
    pairs = models * (models - 1) // 2
    ways = [f"{a} | {b}" for a, b in itertools.combinations(run.WAYS, 2)]
    assert models >= 3 and sentences >= 20
    del found["text_sha256"]
    assert shape_of(found) == {
        "texts": (sentences,),
        "lengths": (sentences,),
        "accuracy": (models,),
        "right": (models,),
        "correlation": dict.fromkeys(ways, (models, sentences)),
        "same_top": dict.fromkeys(ways, (models,)),
        "total": dict.fromkeys(run.WAYS, (models,)),
        "left_out": {
            "correlation": (models, sentences),
            "same_top": (models,),
            "sum": (models,),
        },
        "models": {"correlation": (pairs, sentences), "same_top": (pairs,)},
        "errors": dict.fromkeys(
            ["orders", "antithetic", "kernel"], (models, len(run.PERMUTATIONS))
        ),
    }
    assert set(found["lengths"]) <= set(range(8, 11))


def test_the_script_writes_what_is_recorded(tiny, tmp_path):
    tiny.main(tmp_path / "tiny.json")
    found, want = recorded("tiny", folder=tmp_path), recorded("shap")
    assert found["results"].keys() == want["results"].keys()
    assert found["results"]["text_sha256"] == want["results"]["text_sha256"]
    results = found["results"]
    assert results["lengths"] == [8, 8]
    assert (
        results["texts"]
        == [
            text
            for text, length in zip(
                want["results"]["texts"], want["results"]["lengths"], strict=True
            )
            if length == 8
        ][:2]
    )
    every = itertools.chain(*itertools.chain(*results["correlation"].values()))
    assert all(-1 <= x <= 1 for x in every)
    # a seed draws first weights and batches
    assert results["total"]["mask"][0] != results["total"]["mask"][1]
    # to delete all words and to hide their places is the same, for all of them
    assert results["total"]["delete"] == results["total"]["pad"] != results["total"]["mask"]
    assert results["total"]["random"] != results["total"]["random again"]


def test_the_chosen_sentences_are_known_word_by_word(run):
    read = words()
    texts = run.chosen(read)
    assert [text for text, _ in texts] == recorded("shap")["results"]["texts"]
    for text, label in texts:
        ids = read.encode([text])[0, 1:]
        assert 8 <= len(ids) <= 10 and not (ids == MASK).any()
        assert read.data.validation_labels[read.data.validation.index(text)] == label


def test_measures(run, monkeypatch):
    a = torch.tensor([1.0, 2.0, 4.0])
    assert run.correlation(a, -3 * a + 1) == pytest.approx(-1)
    value = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(run.lookup(value)(coalitions(4)), value)
    exact = shapley_values(run.lookup(value), 4)
    monkeypatch.setattr(run, "PERMUTATIONS", [8, 128])
    errors = run.sampling_errors(value, exact)
    assert list(errors) == ["orders", "antithetic", "kernel"]
    for found in errors.values():
        assert len(found) == 2 and found[1] < found[0] / 4
    off = run.sampling_errors(value, exact + 1)
    assert all(math.isclose(x, 1, abs_tol=0.4) for x in off["orders"])
