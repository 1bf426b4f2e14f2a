"""The recorded run that chapter 19 shows: it is whole, and its command can be run."""

import math
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import words
from lib.teaching.word_scores import MEASURES

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "attention_explanation.py"
SETTINGS = {"steps": 3, "texts": 2, "d_model": 24, "adversary_weight": 1.0, "length": 14}


@pytest.fixture
def tiny(run, monkeypatch):
    monkeypatch.setattr(run, "SETTINGS", SETTINGS)
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    monkeypatch.setattr(run, "ARMS", {run.BASE: (2, 3), "1 layer, 1 head": (1, 1)})
    return run


def shape(value):
    """The names and lengths of a result, without its numbers."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    return [shape(part) for part in value] if isinstance(value, list) else type(value)


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [x for part in value for x in numbers(part)]
    return [value] if isinstance(value, float) else []


def test_the_recorded_file_holds_every_run(run):
    record = recorded("attention_explanation")
    arms = {name: list(sizes) for name, sizes in run.ARMS.items()}
    assert record["settings"] == {**run.SETTINGS, "seeds": run.SEEDS, "arms": arms}
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    results = record["results"]
    assert list(results["arms"]) == list(run.ARMS)
    for runs in results["arms"].values():
        assert len(runs) == len(run.SEEDS) and len({shape_of(x) for x in runs}) == 1
        for one in runs:
            assert set(one["with_leave_one_out"]) == set(MEASURES)
            assert abs(one["with_leave_one_out"]["chance"]) < 0.2  # a random order
    base = results["base"]
    assert set(base["guided"]) == set(run.GUIDES)
    assert all(len(x) == len(run.SEEDS) for x in base["guided"].values())
    assert len(base["seeds_apart"]) == math.comb(len(run.SEEDS), 2)


def shape_of(value):
    return str(shape(value))


def test_the_script_writes_what_is_recorded(tiny, tmp_path, capsys):
    tiny.main(tmp_path / "tiny.json")
    found, want = recorded("tiny", folder=tmp_path), recorded("attention_explanation")
    assert found["results"].keys() == want["results"].keys()
    assert found["results"]["text_sha256"] == want["results"]["text_sha256"]
    ours, theirs = (x["results"]["arms"] for x in (found, want))
    assert shape(ours[tiny.BASE][0]) == shape(theirs[tiny.BASE][0])
    assert shape(ours["1 layer, 1 head"][0]) == shape(ours[tiny.BASE][1])
    assert found["results"]["base"].keys() == want["results"]["base"].keys()
    assert all(math.isfinite(x) and abs(x) <= 1 for x in numbers(found["results"]))
    # what was found is not found again
    capsys.readouterr()
    tiny.main(tmp_path / "tiny.json")
    assert "seed" not in capsys.readouterr().out
    assert recorded("tiny", folder=tmp_path)["results"] == found["results"]


def test_divergence_is_zero_for_equal_and_ln_2_for_disjoint_weights(run):
    one, other = torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.3, 0.7]])
    assert run.divergence(one, one).abs().max() < 1e-7
    assert run.divergence(one, other).item() == pytest.approx(math.log(2), abs=1e-6)
    assert run.divergence(one, other) == run.divergence(other, one)


def test_the_guided_model_knows_of_no_other_word_and_obeys_its_weights(run):
    data = words(length=14)
    model = run.Guided(data)
    ids = torch.tensor([[1, 5, 6], [1, 7, 6]])
    alone = torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3)
    first, second = model(ids, alone)
    assert torch.equal(first, second)  # all weight on the word that both have
    first, second = model(ids, alone.roll(1, 1).roll(1, 1))
    assert (first - second).abs().max() > 1e-4


def test_weights_of_words_leave_out_cls_and_padding(run):
    got = run.of_words(torch.tensor([[0.5, 0.2, 0.3, 0.1]]), torch.tensor([[1, 9, 9, 0]]))
    assert torch.allclose(got, torch.tensor([[0.0, 0.4, 0.6, 0.0]]))
