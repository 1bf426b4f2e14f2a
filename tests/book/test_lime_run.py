"""The recorded run that chapter 18_lime shows: it is whole, and its command can be run."""

from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import WordClassifier, words

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "lime.py"
SMALL = {
    "steps": 2,
    "sentences": 2,
    "samples": 60,
    "nodes": 3,
    "orders": 2,
    "repeats": 2,
    "spread_sentences": 1,
    "package_sentences": 1,
    "package_samples": 200,
}


@pytest.fixture
def tiny(run, monkeypatch):
    monkeypatch.setattr(run, "SETTINGS", {**run.SETTINGS, **SMALL})
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    monkeypatch.setattr(run, "SAMPLES", [32, 64])
    return run


def test_the_recorded_file_holds_every_run(run):
    record = recorded("lime")
    want = {**run.SETTINGS, "seeds": run.SEEDS, "widths": run.WIDTHS, "spread_samples": run.SAMPLES}
    assert record["settings"] == want
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    found, models = record["results"], len(run.SEEDS)
    assert len(found["accuracy"]) == len(found["total"]) == models
    arms = [*run.METHODS, *(f"{name}, reversed" for name in run.METHODS), *run.CONTROLS]
    assert list(found["fall"]) == arms
    for by_model in found["fall"].values():
        assert [len(x) for x in by_model] == [run.SETTINGS["sentences"]] * models
    assert list(found["best"]) == run.METHODS
    assert [sum(x) for x in zip(*found["best"].values(), strict=True)] == pytest.approx(
        [1] * models, abs=1e-3
    )
    assert len(found["agreement"]) == len(run.METHODS) * (len(run.METHODS) - 1) // 2
    assert [len(x) for x in found["spread"]] == [len(run.SAMPLES)] * models
    compared = models * run.SETTINGS["package_sentences"]
    assert [len(x) for x in found["package"].values()] == [compared] * 2


def test_the_script_writes_what_is_recorded(tiny, tmp_path):
    tiny.main(tmp_path / "tiny.json")
    found, want = recorded("tiny", folder=tmp_path)["results"], recorded("lime")["results"]
    assert found.keys() == want.keys()
    assert found["text_sha256"] == want["text_sha256"]
    assert found["lengths"] == want["lengths"][:2]
    assert found["fall"].keys() == want["fall"].keys()
    falls = found["fall"]
    assert falls["LIME"][0] != falls["LIME"][1]  # two models
    assert falls["LIME"] != falls["LIME, reversed"]


def test_the_game_and_the_gradients_have_the_same_ends(tiny):
    tiny.SETTINGS["nodes"] = 32
    read = words()
    torch.manual_seed(0)
    model = WordClassifier(read).double().eval()
    ids = read.encode([tiny.chosen(read)[0]])
    n = ids.shape[1] - 1
    ends = tiny.game(model, ids, 3)(torch.tensor([[True] * n, [False] * n]))
    shares = tiny.gradients(model, ids, 3)
    assert shares.shape == (n,)
    assert float(shares.sum()) == pytest.approx(float(ends[0] - ends[1]), abs=1e-3)


def test_falls_of_a_sum(tiny):
    worth = torch.tensor([1.0, 8.0, 2.0, 4.0], dtype=torch.float64)

    def f(present):
        return present.double() @ worth

    # what is left: 7, 3, 1, 0 and, turned round, 14, 12, 8, 0
    assert tiny.fall(f, worth) == pytest.approx(15 - 11 / 4)
    assert tiny.fall(f, -worth) == pytest.approx(15 - 34 / 4)
    assert tiny.greedy(f, 4).argsort(descending=True).tolist() == [1, 3, 2, 0]
    assert tiny.spread_of(f, 4) == pytest.approx([0, 0], abs=1e-9)


def test_a_game_is_not_asked_twice_for_the_same_rows(tiny):
    asked = []
    g = tiny.remembered(lambda present: asked.append(1) or present.double().sum(1))
    one, other = torch.ones(3, 2, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)
    assert g(one).tolist() == g(one).tolist() == [2, 2, 2] and len(asked) == 1
    assert g(other).tolist() == [0, 0, 0] and len(asked) == 2
