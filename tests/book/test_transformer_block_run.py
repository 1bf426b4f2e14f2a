"""The recorded run that chapter 06_transformer_block shows: it is whole, and can be run."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "transformer_block.py"
SMALL = {"d_model": 8, "num_heads": 2, "d_ff": 8, "length": 8, "batch_size": 2}
TINY = SMALL | {"steps": 4, "learning_rate": 1e-2}


def test_the_recorded_file_holds_every_run_once(run):
    record = recorded("transformer_block")
    assert run.SETTING.items() <= record["settings"].items()
    assert record["command"] == run.COMMAND
    assert SCRIPT.name in run.COMMAND
    runs = record["results"]["runs"]
    found = [((r["layers"], r["branch"]), r["norm"], r["warmup"], r["seed"]) for r in runs]
    wanted = itertools.product(run.ARMS, run.NORMS, run.WARMUPS, run.SEEDS)
    assert sorted(found) == sorted(wanted)
    assert len(run.SEEDS) >= 3


def test_every_recorded_run_has_a_whole_curve():
    for found in recorded("transformer_block")["results"]["runs"]:
        assert len(found["curve"]) == 30 and all(0 < loss < 10 for loss in found["curve"])
        assert abs(found["curve"][-1] - found["loss"]) < 0.5


def test_the_number_of_parameters_is_that_of_the_blocks(run):
    """12 d² + 13 d a block, and for pre-norm one norm more."""
    count = {(r["layers"], r["norm"]): r["parameters"] for r in recorded_runs()}
    d = run.SETTING["d_model"]
    assert count[6, "post"] - count[2, "post"] == 4 * (12 * d * d + 13 * d)
    for layers in (2, 6, 12):
        assert count[layers, "pre"] - count[layers, "post"] == 2 * d


def recorded_runs():
    return recorded("transformer_block")["results"]["runs"]


def test_the_branch_factor_scales_the_last_maps_and_nothing_else(run):
    models = []
    for branch in (1.0, 0.25):
        torch.manual_seed(0)
        models.append(run.Blocks(5, 2, "post", branch, TINY))
    ends = ("output_projection.weight", "contract.weight")
    parameters = [dict(model.named_parameters()) for model in models]
    for name, full in parameters[0].items():
        factor = 0.25 if name.endswith(ends) else 1.0
        assert torch.equal(parameters[1][name], factor * full), name
        if factor < 1:
            assert full.abs().max() > 0


def test_linear_maps_begin_as_xavier_has_it(run):
    wide = TINY | {"d_model": 64, "d_ff": 256}
    torch.manual_seed(0)
    model = run.Blocks(50, 1, "pre", 1.0, wide)
    block = model.blocks[0]
    for linear, ends in (
        (block.attention.value_projection, 128),
        (block.feed_forward.expand, 320),
        (block.feed_forward.contract, 320),
    ):
        variance = linear.weight.var().item()
        error = 5 * math.sqrt(2 / linear.weight.numel())
        assert abs(variance * ends / 2 - 1) < error
        assert linear.bias.abs().max() == 0


def test_only_pre_norm_has_a_norm_at_the_end(run):
    for norm, parts in (("post", 0), ("pre", 2)):
        model = run.Blocks(5, 1, norm, 1.0, TINY)
        assert len(list(model.norm.parameters())) == parts
        assert model.blocks[0].norm == norm


def test_the_future_is_hidden(run):
    torch.manual_seed(0)
    model = run.Blocks(5, 2, "post", 1.0, TINY).eval()
    ids = torch.randint(5, (1, 6))
    moved = ids.clone()
    moved[0, -1] = (moved[0, -1] + 1) % 5
    change = (model(moved) - model(ids)).abs().amax(-1)[0]
    assert change[:-1].max() == 0 and change[-1] > 1e-4


def test_the_unigram_loss_is_an_entropy(run):
    ids = torch.tensor([0] * 3000 + [1] * 1000)
    want = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert abs(run.unigram_loss(ids, ids, 2) - want) < 1e-3


def test_an_interrupted_run_goes_on(run, tmp_path):
    path = tmp_path / "results.json"
    arms = ((1, 1.0),)
    run.main(path, TINY, arms, seeds=(0,))
    first = recorded("results", folder=tmp_path)["results"]["runs"]
    assert {(r["norm"], r["warmup"]) for r in first} == set(
        itertools.product(run.NORMS, run.WARMUPS)
    )
    assert len({r["loss"] for r in first}) == 4  # every arm is another run
    run.main(path, TINY, (*arms, (1, 0.5)), seeds=(0,))
    second = recorded("results", folder=tmp_path)["results"]["runs"]
    assert second[:4] == first and len(second) == 8
    assert second[4] == run.run(1, 0.5, "post", 0.0, 0, TINY)


def test_results_of_another_setting_are_not_mixed_in(run, tmp_path):
    path = tmp_path / "results.json"
    run.main(path, TINY, ((1, 1.0),), seeds=(0,))
    with pytest.raises(ValueError, match="expected results of"):
        run.main(path, TINY | {"steps": 3}, ((1, 1.0),), seeds=(0,))
