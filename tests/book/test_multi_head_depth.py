"""The recorded run that chapter 03_multi_head shows: it is whole, and its command can be run."""

import itertools
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "multi_head_depth.py"
TINY = {"d_model": 8, "d_ff": 8, "length": 8, "batch_size": 2, "steps": 2}


def test_the_recorded_file_holds_every_run_once(run):
    record = recorded("multi_head_depth")
    assert run.SETTING.items() <= record["settings"].items()
    assert record["command"] == run.COMMAND
    assert SCRIPT.name in run.COMMAND
    runs = record["results"]["runs"]
    found = [((r["layers"], r["learning_rate"]), r["heads"], r["seed"]) for r in runs]
    assert sorted(found) == sorted(itertools.product(run.ARMS, run.HEADS, run.SEEDS))


def test_the_number_of_heads_changes_no_parameter_count(run):
    runs = recorded("multi_head_depth")["results"]["runs"]
    counts = {(r["layers"], r["parameters"]) for r in runs}
    assert len(counts) == len({layers for layers, _ in counts}) == 2


def test_the_future_is_hidden(run):
    torch.manual_seed(0)
    model = run.Blocks(5, 2, 2, TINY).eval()
    ids = torch.randint(5, (1, 6))
    moved = ids.clone()
    moved[0, -1] = (moved[0, -1] + 1) % 5
    change = (model(moved) - model(ids)).abs().amax(-1)[0]
    assert change[:-1].max() == 0 and change[-1] > 1e-4


def test_an_interrupted_run_goes_on(run, tmp_path):
    path = tmp_path / "results.json"
    arms = ((1, 1e-2),)
    run.main(path, TINY, arms, heads=(1,), seeds=(0,))
    first = recorded("results", folder=tmp_path)
    assert [r["heads"] for r in first["results"]["runs"]] == [1]
    run.main(path, TINY, arms, heads=(1, 2), seeds=(0,))
    second = recorded("results", folder=tmp_path)
    one, two = second["results"]["runs"]
    assert one == first["results"]["runs"][0]
    assert two == run.run(1, 2, 0, 1e-2, TINY)
    assert one["parameters"] == two["parameters"] and one["loss"] != two["loss"]
    assert second["seconds"] >= first["seconds"]


def test_results_of_another_setting_are_not_mixed_in(run, tmp_path):
    path = tmp_path / "results.json"
    run.main(path, TINY, ((1, 1e-2),), heads=(1,), seeds=(0,))
    with pytest.raises(ValueError, match="expected results of"):
        run.main(path, TINY | {"steps": 3}, ((1, 1e-2),), heads=(1,), seeds=(0,))
