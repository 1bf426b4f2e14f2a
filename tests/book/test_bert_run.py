"""The recorded run that chapter 11_bert shows: it is whole, and its command can be run."""

import functools
import json
from pathlib import Path

import pytest
import torch

from lib.teaching import bert_tasks
from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "bert.py"
TINY = {
    "length": 96,
    "num_labels": 24,
    "d_model": 16,
    "layers": 1,
    "begin_steps": 2,
    "begin_length": 16,
    "pair_steps": 2,
    "fine_tune_steps": {"modules": 1, "names": 1, "dates": 1},
    "nsp_pairs": 20,
}


@pytest.fixture
def tiny(run, monkeypatch):
    """Two steps of everything, and two dozen texts a task."""

    def few(make):
        def task(corpus, **options):
            whole = make(corpus, **options)
            parts = {k: v[:24] for k, v in vars(whole).items() if isinstance(v, torch.Tensor)}
            return bert_tasks.Task(**{**vars(whole), **parts})

        return task

    monkeypatch.setattr(run, "SETTINGS", TINY)
    monkeypatch.setattr(run, "SEEDS", [0])
    for name in ("modules", "dates"):
        monkeypatch.setattr(bert_tasks, name, few(getattr(bert_tasks, name)))
    # Its texts take seconds to parse; test_bert_tasks.py tests it on a few.
    monkeypatch.setattr(bert_tasks, "names", lambda corpus, num_labels: bert_tasks.dates(corpus))
    judge = functools.partial(bert_tasks.at_masks_and_elsewhere, count=20)
    monkeypatch.setattr(bert_tasks, "at_masks_and_elsewhere", judge)
    return run


def test_the_recorded_file_holds_every_run(run):
    record = recorded("bert")
    assert record["settings"] == {**run.SETTINGS, "seeds": run.SEEDS}
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    runs = record["results"]["runs"]
    assert [one["seed"] for one in runs] == run.SEEDS
    for one in runs:
        assert list(one["arms"]) == list(bert_tasks.ARMS)
        assert list(one["parts"]) == list(run.PARTS)
        for arm, report in one["arms"].items():
            assert list(report["scores"]) == list(run.SETTINGS["fine_tune_steps"])
            assert ("nsp" in report) == ("nsp_loss" in report) == arm.startswith("nsp")
            assert ("mlm_loss" in report) == (arm != "scratch")


def test_the_script_writes_what_is_recorded_and_goes_on(tiny, tmp_path):
    path = tmp_path / "tiny.json"
    tiny.main(path)
    found, want = recorded("tiny", folder=tmp_path), recorded("bert")
    assert found["results"].keys() == want["results"].keys()
    (one,) = found["results"]["runs"]
    assert one.keys() == want["results"]["runs"][0].keys()
    assert list(one["arms"]) == list(bert_tasks.ARMS)
    assert one["arms"]["nsp-random"]["nsp_loss"] != one["arms"]["nsp-same"]["nsp_loss"]

    lost = json.loads(path.read_text())
    again = lost["results"]["runs"][0]["arms"].pop("nsp-same")
    lost["results"]["runs"][0]["arms"]["mlm"]["mark"] = "is not run again"
    path.write_text(json.dumps(lost))
    tiny.main(path)
    (one,) = recorded("tiny", folder=tmp_path)["results"]["runs"]
    assert one["arms"]["nsp-same"] == again
    assert one["arms"]["mlm"]["mark"] == "is not run again"
