"""The recorded run that chapter 03_multi_head shows: it is whole, and its command can be run."""

import importlib.util
import itertools
import json
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "multi_head_depth.py"
TINY = {"d_model": 8, "d_ff": 8, "length": 8, "batch_size": 2, "steps": 2}


@pytest.fixture(scope="module")
def depth():
    spec = importlib.util.spec_from_file_location("multi_head_depth", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_recorded_file_holds_every_run_once(depth):
    recorded = json.loads(depth.RESULTS.read_text("utf8"))
    assert recorded["setting"] == depth.SETTING
    assert recorded["command"] == depth.COMMAND
    assert SCRIPT.name in depth.COMMAND
    found = [((r["layers"], r["learning_rate"]), r["heads"], r["seed"]) for r in recorded["runs"]]
    assert sorted(found) == sorted(itertools.product(depth.ARMS, depth.HEADS, depth.SEEDS))


def test_the_number_of_heads_changes_no_parameter_count(depth):
    recorded = json.loads(depth.RESULTS.read_text("utf8"))
    counts = {(r["layers"], r["parameters"]) for r in recorded["runs"]}
    assert len(counts) == len({layers for layers, _ in counts}) == 2


def test_the_future_is_hidden(depth):
    torch.manual_seed(0)
    model = depth.Blocks(5, 2, 2, TINY).eval()
    ids = torch.randint(5, (1, 6))
    moved = ids.clone()
    moved[0, -1] = (moved[0, -1] + 1) % 5
    change = (model(moved) - model(ids)).abs().amax(-1)[0]
    assert change[:-1].max() == 0 and change[-1] > 1e-4


def test_an_interrupted_run_goes_on(depth, tmp_path, one_thread):
    path = tmp_path / "results.json"
    arms = ((1, 1e-2),)
    depth.main(path, TINY, arms, heads=(1,), seeds=(0,))
    first = json.loads(path.read_text("utf8"))
    assert len(first["runs"]) == 1 and first["runs"][0]["heads"] == 1
    depth.main(path, TINY, arms, heads=(1, 2), seeds=(0,))
    second = json.loads(path.read_text("utf8"))
    assert second["runs"][0] == first["runs"][0]
    assert [r["heads"] for r in second["runs"]] == [1, 2]
    assert second["runs"][0]["parameters"] == second["runs"][1]["parameters"]
    assert second["runs"][0]["loss"] != second["runs"][1]["loss"]
    assert second["runs"][1] == depth.run(1, 2, 0, 1e-2, TINY)


def test_results_of_another_setting_are_not_mixed_in(depth, tmp_path, one_thread):
    path = tmp_path / "results.json"
    depth.main(path, TINY, ((1, 1e-2),), heads=(1,), seeds=(0,))
    with pytest.raises(ValueError, match="got those of something else"):
        depth.main(path, TINY | {"steps": 3}, ((1, 1e-2),), heads=(1,), seeds=(0,))
