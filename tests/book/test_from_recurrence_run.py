"""The recorded run that chapter 01_from_recurrence shows: whole, and its command can be run."""

import json
import math
from pathlib import Path

import pytest

from lib.teaching.recorded import recorded
from lib.teaching.sequences import KINDS

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "from_recurrence.py"
TEXT = {"length": 7, "batch": 2, "width": 16, "sweep_steps": 1, "steps": 2}
RECALL = {"batch": 3, "width": 16, "letters": 3, "steps": 2, "test": 5}


@pytest.fixture
def tiny(run, monkeypatch):
    text = run.topics_text(seed=0)
    short = type(text)(text.train[:3000], text.validation[:500], "0" * 64)
    monkeypatch.setattr(run, "topics_text", lambda seed: short)
    # attention's widths go in fours, so a tiny model has no equal: any width will do here
    monkeypatch.setattr(run, "width_for", lambda kind, V, wanted: 8)
    monkeypatch.setattr(run, "TEXT", TEXT)
    monkeypatch.setattr(run, "RECALL", RECALL)
    monkeypatch.setattr(run, "TEXT_RATES", [1e-3, 1e-2])
    monkeypatch.setattr(run, "RECALL_RATES", [1e-3])
    monkeypatch.setattr(run, "DISTANCES", [2, 5])
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    return run


def is_whole(results, settings):
    seeds = [str(seed) for seed in settings["seeds"]]
    assert list(results["text"]) == list(KINDS)
    for found in results["text"].values():
        assert list(found["seeds"]) == seeds
        assert list(found["sweep"]) == [f"{rate:g}" for rate in settings["text_rates"]]
        assert found["rate"] == float(min(found["sweep"], key=found["sweep"].get))
        for one in found["seeds"].values():
            assert len(one["by_position"]) == settings["text"]["length"]
            assert one["loss"] == pytest.approx(sum(one["by_position"]) / len(one["by_position"]))
    assert list(results["recall"]) == [*KINDS, "lstm, open"]
    for found in results["recall"].values():
        for distance in settings["distances"]:
            arm = found[str(distance)]
            assert list(arm["seeds"]) == seeds
            assert list(arm["sweep"]) == [f"{rate:g}" for rate in settings["recall_rates"]]
            assert arm["rate"] == float(min(arm["sweep"], key=arm["sweep"].get))
            assert all(0 <= one["accuracy"] <= 1 for one in arm["seeds"].values())


def test_the_recorded_file_holds_every_run(run):
    found = recorded("from_recurrence")
    assert found["settings"] == json.loads(json.dumps(run.settings()))
    assert found["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    is_whole(found["results"], found["settings"])


def test_the_recorded_models_are_equally_large():
    results = recorded("from_recurrence")["results"]
    for sizes in (
        [found["model"]["parameters"] for found in results["text"].values()],
        [found["parameters"] for found in results["recall"].values()],
    ):
        assert max(sizes) / min(sizes) < 1.03


def test_the_script_writes_what_is_recorded_and_goes_on_where_it_stopped(tiny, tmp_path, capsys):
    path = tmp_path / "tiny.json"
    tiny.main(path)
    found = json.loads(path.read_text("utf8"))
    is_whole(found["results"], found["settings"])
    for kind in KINDS:
        one, other = found["results"]["text"][kind]["seeds"].values()
        untrained = math.log(found["results"]["vocabulary"])
        assert one["loss"] != other["loss"]
        assert abs(one["loss"] - untrained) < 0.5

    del found["results"]["text"]["lstm"]["seeds"]["1"]
    path.write_text(json.dumps(found), "utf8")
    capsys.readouterr()
    tiny.main(path)
    assert [line.split("s  ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "text / lstm / seeds / 1"
    ]
    is_whole(json.loads(path.read_text("utf8"))["results"], found["settings"])


def test_results_of_other_settings_are_not_mixed_in(tiny, tmp_path, monkeypatch):
    path = tmp_path / "tiny.json"
    tiny.main(path)
    kept = path.read_bytes()
    monkeypatch.setattr(tiny, "SEEDS", [0])
    with pytest.raises(ValueError, match=r"results of seeds = \[0\], got those of \[0, 1\]"):
        tiny.main(path)
    assert path.read_bytes() == kept


def test_the_open_arm_is_an_lstm_with_open_gates(tiny, tmp_path, monkeypatch):
    made = []
    real = tiny.SequenceModel

    def noted(kind, V, width, **options):
        made.append((kind, options.get("forget_bias")))
        return real(kind, V, width, **options)

    monkeypatch.setattr(tiny, "SequenceModel", noted)
    tiny.main(tmp_path / "tiny.json")
    assert ("lstm", 4.0) in made and ("lstm", None) in made
