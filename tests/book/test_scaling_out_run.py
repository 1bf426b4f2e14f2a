"""The recorded run that chapter 22_scaling_out shows: it is whole, and its command can be run."""

from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "scaling_out.py"


def test_the_recorded_file_holds_every_run(run):
    record = recorded("scaling_out")
    assert record["settings"] == {**run.SIZES, **run.LONG, "seeds": run.SEEDS}
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    arms = record["results"]["arms"]
    assert list(arms) == list(run.ARMS)
    for arm in arms.values():
        assert len(arm["loss"]) == len(arm["seconds"]) == len(run.SEEDS)
        assert all(0 < loss < 4 for loss in arm["loss"])


def test_the_loss_is_that_of_the_real_characters(run):
    data = run.Paragraphs()
    model = run.new_model(data, 0)
    rows = data.batch(0, 0)
    total, count = data.loss(model, rows)
    parts = [data.loss(model, row[None]) for row in rows]
    assert count == sum(n for _, n in parts) == int((data.lengths[rows] - 1).sum())
    assert total.item() == pytest.approx(sum(part.item() for part, _ in parts), abs=1e-9)


def test_seed_and_step_decide_the_batch(run):
    data = run.Paragraphs()
    assert torch.equal(data.batch(0, 3), data.batch(0, 3))
    assert not torch.equal(data.batch(0, 3), data.batch(0, 4))
    assert not torch.equal(data.batch(0, 3), data.batch(1, 3))
