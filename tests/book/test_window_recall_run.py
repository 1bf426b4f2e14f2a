"""The recorded recall of chapter 09_sliding_window: it is whole, and its command can be run."""

import json
from pathlib import Path

import pytest

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "window_recall.py"


@pytest.fixture
def tiny(run, monkeypatch):
    monkeypatch.setattr(run, "SIZES", {"length": 9, "longest": 5, "values": 3})
    training = {"window": 4, "steps": 2, "batch_size": 2, "d_model": 8, "learning_rate": 1e-3}
    monkeypatch.setattr(run, "TRAINING", training)
    monkeypatch.setattr(run, "COUNT", 20)
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    return run


def test_the_recorded_file_holds_every_run(run):
    record = recorded("window_recall")
    want = {**run.SIZES, **run.TRAINING, "count": run.COUNT, "seeds": run.SEEDS}
    assert record["settings"] == want and len(run.SEEDS) >= 3
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    arms = record["results"]["arms"]
    assert list(arms) == list(run.ARMS)
    for runs in arms.values():
        assert len(runs) == len(run.SEEDS)
        assert all(len(shares) == run.SIZES["longest"] for shares in runs)
        assert all(0 <= share <= 1 for shares in runs for share in shares)


def test_nobody_answers_beyond_the_reach(run):
    """Where no path leads from the value to the question an answer is a guess, in every run."""
    arms = recorded("window_recall")["results"]["arms"]
    for name, (layers, start_is_global) in run.ARMS.items():
        reach = layers * run.TRAINING["window"] // 2
        for shares in arms[name]:
            beyond = shares[reach:]
            if not start_is_global:
                assert beyond and max(beyond) < 1 / run.SIZES["values"] + 0.12


def test_the_script_writes_what_is_recorded(tiny, tmp_path):
    path = tmp_path / "tiny.json"
    tiny.main(path)
    found, want = recorded("tiny", folder=tmp_path), recorded("window_recall")
    assert found["results"].keys() == want["results"].keys()
    assert found["results"]["text_sha256"] == want["results"]["text_sha256"]
    arms = found["results"]["arms"]
    assert list(arms) == list(tiny.ARMS)
    assert all(len(runs) == 2 and len(runs[0]) == 5 for runs in arms.values())
    assert all(abs(sum(shares) / 5 - 1 / 3) < 0.3 for runs in arms.values() for shares in runs)


def test_an_interrupted_run_goes_on(tiny, tmp_path, monkeypatch):
    path, whole = tmp_path / "tiny.json", tmp_path / "whole.json"
    tiny.main(whole)
    monkeypatch.setattr(tiny, "SEEDS", [0])
    tiny.main(path)
    first = json.loads(path.read_text())
    assert first["settings"]["seeds"] == [0]
    monkeypatch.setattr(tiny, "SEEDS", [0, 1])
    tiny.main(path)
    found, want = (json.loads(p.read_text()) for p in (path, whole))
    assert found["results"] == want["results"] and found["settings"] == want["settings"]
    assert found["seconds"] >= first["seconds"]


def test_a_file_of_other_settings_is_refused(tiny, tmp_path, monkeypatch):
    path = tmp_path / "tiny.json"
    monkeypatch.setattr(tiny, "SEEDS", [0])
    tiny.main(path)
    monkeypatch.setattr(tiny, "COUNT", 21)
    with pytest.raises(ValueError, match=r"tiny\.json: expected results of count = 21"):
        tiny.main(path)
