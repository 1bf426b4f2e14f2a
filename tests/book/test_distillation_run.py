"""The recorded run that chapter 14_distillation shows: it is whole, and its command can be run."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "distillation.py"
SIZES = {"length": 8, "batch": 2, "d_model": 8, "num_heads": 2, "teacher_layers": 4}
TRAINING = {"teacher_steps": 3, "student_steps": 2, "learning_rate": 3e-3, "temperature": 2.0}


@pytest.fixture
def tiny(run, monkeypatch):
    monkeypatch.setattr(run, "SIZES", SIZES)
    monkeypatch.setattr(run, "TRAINING", TRAINING)
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    return run


def test_the_recorded_file_holds_every_run(run):
    record = recorded("distillation")
    want = {**run.SIZES, **run.TRAINING, "weights": list(run.TRIPLE), "seeds": run.SEEDS}
    assert record["settings"] == want
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    arms = record["results"]["arms"]
    assert list(arms) == list(run.ARMS)
    assert {len(losses) for losses in arms.values()} == {len(run.SEEDS)}


def test_the_script_writes_what_is_recorded(tiny, tmp_path):
    tiny.main(tmp_path / "tiny.json")
    found, want = recorded("tiny", folder=tmp_path), recorded("distillation")
    assert found["results"].keys() == want["results"].keys()
    assert found["results"]["text_sha256"] == want["results"]["text_sha256"]
    arms = found["results"]["arms"]
    assert list(arms) == list(tiny.ARMS) and {len(x) for x in arms.values()} == {2}
    untrained = math.log(found["results"]["vocabulary"])
    assert all(abs(x - untrained) < 1 for x in itertools.chain(*arms.values()))
    # a seed draws first weights and batches; two arms of one seed differ in what they are taught
    assert arms["alone"][0] != arms["alone"][1]
    assert arms["both"][0] not in (arms["layers"][0], arms["both without ce"][0])


def test_a_student_starts_from_every_other_layer(tiny):
    teacher = tiny.CausalLM(11, 4)
    student = tiny.from_teacher(teacher, 11)
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert len(student.layers) == 2
    for name, value in ours.items():
        source = name.replace("layers.1.", "layers.2.")
        assert torch.equal(value, theirs[source]), name
    with torch.no_grad():
        student.read.weight.add_(1.0)
    assert not torch.equal(student.read.weight, teacher.read.weight)


def test_the_future_is_hidden(tiny):
    torch.manual_seed(0)
    model = tiny.CausalLM(5, 2).eval()
    ids = torch.randint(5, (1, 6))
    moved = ids.clone()
    moved[0, -1] = (moved[0, -1] + 1) % 5
    change = (model(moved) - model(ids)).abs().amax(-1)[0]
    assert change[:-1].max() == 0 and change[-1] > 0
