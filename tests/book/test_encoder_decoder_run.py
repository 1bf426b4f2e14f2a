"""The recorded run that chapter 07_encoder_decoder shows: it is whole, and its command runs."""

import itertools
import math
from functools import partial
from pathlib import Path

import pytest

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "encoder_decoder.py"
SIZES = {"d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 8, "max_length": 64}
TRAINING = {"steps": 1, "batch_size": 4, "learning_rate": 4e-3, "smoothing": 0.1}


@pytest.fixture
def tiny(run, monkeypatch):
    monkeypatch.setattr(run, "SIZES", SIZES)
    monkeypatch.setattr(run, "TRAINING", TRAINING)
    monkeypatch.setattr(run, "DAYS", 20)
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    monkeypatch.setattr(run, "date_pairs", partial(run.date_pairs, first=1999, last=2000))
    for _, training, _ in run.ARMS.values():
        if "steps" in training:
            training["steps"] = 2
    return run


def test_the_recorded_file_holds_every_run(run):
    record = recorded("encoder_decoder")
    want = {**run.SIZES, **run.TRAINING, "days": run.DAYS, "seeds": run.SEEDS}
    assert record["settings"] == want
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    arms = record["results"]["arms"]
    assert list(arms) == list(run.ARMS)
    for found in arms.values():
        assert {len(values) for values in found.values()} == {len(run.SEEDS)}
        for by_form in zip(*(found[f"exact, {k}"] for k in ("de", "es", "fr")), strict=True):
            assert any(abs(sum(by_form) / 3 - exact) < 1e-12 for exact in found["exact"])


def test_the_texts_are_still_those(run):
    record = recorded("encoder_decoder")["results"]
    data = run.date_pairs(seed=0, num_days=run.DAYS)
    assert data.sha256 == record["text_sha256"]
    assert (len(data.train), len(data.validation)) == (
        record["training_pairs"],
        record["validation_pairs"],
    )


def test_the_script_writes_what_is_recorded(tiny, tmp_path):
    tiny.main(tmp_path / "tiny.json")
    found, want = recorded("tiny", folder=tmp_path), recorded("encoder_decoder")
    assert found["results"].keys() == want["results"].keys()
    arms = found["results"]["arms"]
    assert list(arms) == list(tiny.ARMS)
    for name, values in arms.items():
        assert values.keys() == want["results"]["arms"][name].keys()
        assert {len(x) for x in values.values()} == {2}
    untrained = math.log(found["results"]["vocabulary"])
    every = list(itertools.chain(*(values["nats"] for values in arms.values())))
    assert all(abs(x - untrained) < 1.5 for x in every)
    # seeds differ, and so does each arm from the first, for one seed
    assert arms["all states"]["nats"][0] != arms["all states"]["nats"][1]
    firsts = [values["nats"][0] for values in arms.values()]
    assert len(set(firsts)) == len(firsts)
