"""The recorded run that chapter 10_gpt shows: it is whole, and its command can be run."""

import json
import math
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "gpt.py"
SIZES = {"length": 8, "batch": 2, "d_model": 8, "num_layers": 1, "num_heads": 2}
TRAINING = {"steps": 4, "learning_rate": 3e-3, "moments": [0, 2], "block": 2}
TUNING = {
    "labels": 6,
    "examples": 10,
    "steps": 2,
    "batch": 3,
    "learning_rate": 1e-3,
    "weight": 0.5,
}


@pytest.fixture
def tiny(run, monkeypatch):
    for name, value in {"SIZES": SIZES, "TRAINING": TRAINING, "TUNING": TUNING}.items():
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    monkeypatch.setattr(run, "WRITTEN", 20)
    return run


def assert_whole(results, run):
    moments = [str(step) for step in (*run.TRAINING["moments"], run.TRAINING["steps"])]
    assert list(results["pretraining"]) == list(run.ARMS)
    for runs in results["pretraining"].values():
        assert list(runs) == [str(seed) for seed in run.SEEDS]
        for report in runs.values():
            assert list(report["bits"]) == list(report["samples"]) == moments
            assert len(report["curve"]) == math.ceil(run.TRAINING["steps"] / run.TRAINING["block"])
            written = [len(text) for text in report["samples"].values()]
            assert written == [len(run.PROMPT) + run.WRITTEN] * len(moments)
            assert all(text.startswith(run.PROMPT) for text in report["samples"].values())
    assert list(results["tuning"]) == [str(seed) for seed in run.SEEDS]
    arms = ["scratch, λ = 0", "scratch, λ = 0.5", "pre-trained, λ = 0", "pre-trained, λ = 0.5"]
    assert all(list(found) == arms for found in results["tuning"].values())


def test_the_recorded_file_holds_every_run(run):
    found = recorded("gpt")
    want = {**run.SIZES, **run.TRAINING, "tuning": run.TUNING}
    assert found["settings"] == {**want, "seeds": run.SEEDS, "prompt": run.PROMPT}
    assert found["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    assert_whole(found["results"], run)


def test_the_script_writes_what_is_recorded_and_goes_on_where_it_was_stopped(
    tiny, tmp_path, monkeypatch
):
    path = tmp_path / "tiny.json"
    tiny.main(path)
    found, want = recorded("tiny", folder=tmp_path), recorded("gpt")
    assert found["results"].keys() == want["results"].keys()
    assert found["results"]["text_sha256"] == want["results"]["text_sha256"]
    assert_whole(found["results"], tiny)
    model = tiny.new_model("0.02", found["results"]["vocabulary"], 0)
    assert sum(p.numel() for p in model.parameters()) == found["results"]["parameters"]
    reports = found["results"]["pretraining"]
    start = math.log2(found["results"]["vocabulary"] + 2)
    assert abs(reports["0.02"]["0"]["bits"]["0"] - start) < 0.01
    assert reports["0.02"]["0"]["curve"] != reports["0.02"]["1"]["curve"]
    assert reports["0.02"]["0"]["curve"] != reports["1/√d"]["0"]["curve"]

    # without its last unit, the file is made whole again, and the other units are not run
    content = path.read_text(encoding="utf-8")
    del found["results"]["pretraining"]["1/√d"]["1"], found["results"]["tuning"]["1"]
    tiny.record(
        path,
        **{k: found[k] for k in ("command", "hardware", "seconds", "settings", "results")},
    )
    ran, pretrain = [], tiny.pretrain
    monkeypatch.setattr(tiny, "pretrain", lambda *args: (ran.append(args[:2]), pretrain(*args))[1])
    tiny.main(path)
    assert ran == [("1/√d", 1)]
    again = recorded("tiny", folder=tmp_path)
    assert again["results"] == json.loads(content)["results"]

    # results of other settings are neither mixed in nor overwritten
    kept = path.read_bytes()
    monkeypatch.setattr(tiny, "PROMPT", "A ")
    ran.clear()
    with pytest.raises(ValueError, match="expected results of prompt = 'A '"):
        tiny.main(path)
    assert ran == [] and path.read_bytes() == kept


def test_the_arms_differ_in_their_first_weights_alone(tiny):
    small, large = (tiny.new_model(arm, 11, 0).state_dict() for arm in tiny.ARMS)
    ratio = 0.02 * math.sqrt(SIZES["d_model"])
    for name, weight in small.items():
        factor = ratio if weight.ndim == 2 else 1.0
        torch.testing.assert_close(weight, factor * large[name], rtol=1e-5, atol=1e-8)
