"""The recorded run of chapter 16_integrated_gradients: it is whole, and its command runs."""

import itertools
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import MASK, PAD, WordClassifier, words

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "integrated_gradients.py"
TEXTS = {"texts": 3, "texts_for_steps": 1, "fewest_words": 5, "random_draws": 2, "ig_steps": 4}


@pytest.fixture
def tiny(run, monkeypatch):
    monkeypatch.setattr(run, "TEXTS", TEXTS)
    monkeypatch.setattr(run, "TRAINING", {"steps": 3})
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    monkeypatch.setattr(run, "STEPS", [2, 4])
    return run


@pytest.fixture(scope="module")
def data():
    return words()


def shape(found):
    """The keys of nested results, and how long lists of numbers are."""
    if isinstance(found, dict):
        return {key: shape(value) for key, value in found.items()}
    return type(found).__name__


def test_the_recorded_file_holds_every_model(run):
    record = recorded("integrated_gradients")
    want = {**run.TRAINING, **run.TEXTS, "seeds": run.SEEDS, "gap_steps": run.STEPS}
    assert record["settings"] == {**want, "rules": run.RULES}
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    results = record["results"]
    assert [one["seed"] for one in results["models"]] == run.SEEDS
    assert len(results["explained"]) == run.TEXTS["texts"]
    pairs = len(run.SEEDS) * (len(run.SEEDS) - 1) // 2
    assert {name: len(x) for name, x in results["between_seeds"].items()} == dict.fromkeys(
        run.METHODS, pairs
    )


def test_the_script_writes_what_is_recorded(tiny, tmp_path):
    tiny.main(tmp_path / "tiny.json")
    found, want = recorded("tiny", folder=tmp_path), recorded("integrated_gradients")
    assert shape(found["results"] | {"models": 0}) == shape(want["results"] | {"models": 0})
    first, second = found["results"]["models"]
    assert shape(first) == shape(want["results"]["models"][0]) == shape(second)
    assert first["deletion"] != second["deletion"]
    assert found["results"]["captum"]["largest_difference"] < 1e-5
    for way, name in itertools.product(tiny.WAYS, tiny.METHODS):
        assert 0 < first["deletion"][way][name] < 1


def test_the_same_texts_for_every_model(tiny, data):
    texts = tiny.chosen_texts(data)
    assert [x.tolist() for x in texts] == [x.tolist() for x in tiny.chosen_texts(data)]
    assert len(texts) == 3 and all(x.shape[1] > 5 and PAD not in x for x in texts)


def test_each_baseline_is_what_its_name_says(tiny, data):
    torch.manual_seed(0)
    model = WordClassifier(data, d_model=16, num_layers=1)
    table = model.bert.encoder.embeddings.word.weight.detach()
    rows = tiny.baseline_rows(model, data)
    assert list(rows) == tiny.BASELINES and not rows["zero"].any()
    assert torch.equal(rows["[PAD]"], table[PAD]) and torch.equal(rows["[MASK]"], table[MASK])
    ids = data.encode(data.data.train)
    torch.testing.assert_close(rows["mean"], table[ids[ids > MASK]].mean(0))
    x = model.word_vectors(ids[:1, :7]).detach()
    begin = tiny.in_place_of_words(x, rows["mean"])
    assert torch.equal(begin[:, 0], x[:, 0]) and (begin[:, 1:] == rows["mean"]).all()


def test_what_is_cut_is_gone(tiny):
    ids = torch.tensor([[1, 7, 8, 9]])
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    assert tiny.cut(ids, present).tolist() == [[1, 7, 8, 9], [1, 7, 9, 0], [1, 0, 0, 0]]


def test_spearman_by_hand(tiny):
    a = torch.tensor([3.0, 1.0, 2.0])
    assert tiny.spearman(a, 10 * a) == pytest.approx(1)
    assert tiny.spearman(a, -a) == pytest.approx(-1)
    assert tiny.spearman(a, torch.tensor([3.0, 2.0, 1.0])) == pytest.approx(0.5)
