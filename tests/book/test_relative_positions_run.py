"""The recorded run that chapter 08_relative_positions shows: it is whole, and its command runs."""

import itertools
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "relative_positions.py"
TINY = {
    "d_model": 8,
    "d_ff": 8,
    "heads": 2,
    "length": 8,
    "read": 16,
    "characters_a_step": 16,
    "steps": 2,
    "learning_rate": 1e-2,
}


def test_the_recorded_file_holds_every_run_once(run):
    record = recorded("relative_positions")
    assert run.SETTING.items() <= record["settings"].items()
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    runs = record["results"]["runs"]
    found = sorted((r["arm"], r["seed"]) for r in runs)
    assert found == sorted(itertools.product(run.ARMS, run.SEEDS))
    blocks = record["settings"]["read"] // record["settings"]["block"]
    assert all(len(r["loss"]) == blocks and min(r["loss"]) > 0.5 for r in runs)
    assert record["seconds"] < 600


@pytest.mark.parametrize("arm", ["none", "learned", "alibi", "t5", "t5-near"])
def test_the_future_is_hidden(run, arm):
    torch.manual_seed(0)
    model = run.Characters(5, arm, TINY).eval()
    ids = torch.randint(5, (1, 6))
    moved = ids.clone()
    moved[0, -1] = (moved[0, -1] + 1) % 5
    change = (model(moved) - model(ids)).abs().amax(-1)[0]
    assert change[:-1].max() == 0 and change[-1] > 1e-4


def test_slopes_and_signs_of_alibi(run):
    bias = run.Alibi(4)(5)[0]
    for head, slope in enumerate((1 / 4, 1 / 16, 1 / 64, 1 / 256)):
        assert bias[head, 4].tolist() == pytest.approx([-slope * r for r in (4, 3, 2, 1, 0)])


def test_an_interrupted_run_goes_on(run, tmp_path):
    path = tmp_path / "results.json"
    run.main(path, TINY, arms=("none",), seeds=(0,))
    first = recorded("results", folder=tmp_path)["results"]["runs"]
    run.main(path, TINY, arms=("none", "t5"), seeds=(0,))
    second = recorded("results", folder=tmp_path)["results"]["runs"]
    assert second == [*first, run.run("t5", 0, TINY)]
    assert [r["arm"] for r in second] == ["none", "t5"]
    assert second[0]["loss"] != second[1]["loss"]


def test_results_of_another_setting_are_not_mixed_in(run, tmp_path):
    path = tmp_path / "results.json"
    run.main(path, TINY, arms=("none",), seeds=(0,))
    with pytest.raises(ValueError, match="expected results of"):
        run.main(path, TINY | {"steps": 3}, arms=("none",), seeds=(0,))
