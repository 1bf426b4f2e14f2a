"""The recorded run that chapter 15 shows: it is whole, and its command can be run."""

from pathlib import Path

import pytest

from lib.teaching.recorded import recorded
from tests.few_words import few_words

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "compression.py"
SETTINGS = {
    "steps": 2,
    "tune_steps": 1,
    "amounts": [0.5],
    "bits": [8, 2],
    "tuned_bits": [2],
}


def test_the_recorded_file_holds_every_run(run):
    record = recorded("compression")
    assert record["settings"] == {**run.SETTINGS, "seeds": run.SEEDS}
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    results = record["results"]
    assert results["bytes"].keys() == results["accuracy"].keys()
    for part in ("bytes", "accuracy"):
        assert {len(values) for values in results[part].values()} == {len(run.SEEDS)}


@pytest.fixture(scope="module")
def few():
    return few_words()


def test_the_script_writes_what_is_recorded(run, few, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "SETTINGS", {**run.SETTINGS, **SETTINGS})
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    monkeypatch.setattr(run, "words", lambda: few)
    run.main(tmp_path / "tiny.json")
    found, want = recorded("tiny", folder=tmp_path)["results"], recorded("compression")["results"]
    assert found.keys() == want.keys()
    assert found["bytes"].keys() <= want["bytes"].keys()
    size = {name: values[0] for name, values in found["bytes"].items()}
    assert size["50% zeros, same file"] == size["dense"]
    assert size["2 bits"] < size["8 bits"] < 0.4 * size["dense"]
    assert size["50% zeros"] < 0.65 * size["dense"]
    assert size["cut, tuned, 8 bits"] < size["cut"] < size["dense"]
    assert found["accuracy"]["dense"] != found["accuracy"]["narrow"]


def test_a_run_that_was_stopped_goes_on(run, few, monkeypatch, tmp_path):
    asked = []

    def one_seed(texts, seed):
        asked.append(seed)
        return {"dense": (1000 + seed, 0.5)}

    monkeypatch.setattr(run, "words", lambda: few)
    monkeypatch.setattr(run, "one_seed", one_seed)
    monkeypatch.setattr(run, "SEEDS", [0, 1, 2])
    path, record = tmp_path / "stopped.json", run.record

    def stopped(*args, **kwargs):
        record(*args, **kwargs)
        if len(asked) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "record", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.main(path)
    run.main(path)
    assert asked == [0, 1, 2]
    assert recorded("stopped", folder=tmp_path)["results"]["bytes"] == {"dense": [1000, 1001, 1002]}
