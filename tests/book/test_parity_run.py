"""The recorded parity run that the model cards show: it is whole, and its command can be run."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "parity.py"


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("parity_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "parity_run", module)  # where dataclasses look for annotations
        spec.loader.exec_module(module)
    return module


def test_the_recorded_file_holds_every_case(run):
    record = recorded("parity")
    assert record["command"] == run.COMMAND
    assert record["settings"]["seeds"] == run.SEEDS
    families = record["results"]["families"]
    assert [family for family, rows in families.items() for _ in rows] == [
        case.family for case in run.CASES
    ]
    for case, row in zip(run.CASES, (r for rows in families.values() for r in rows), strict=True):
        assert row.get("operation") == case.operation
        assert ("float64, mended" in row) == (case.operation is not None)


def test_the_script_writes_what_is_recorded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SEEDS", [0])
    threads = torch.get_num_threads()
    run.main(tmp_path / "again.json")
    torch.set_num_threads(threads)
    found = recorded("again", folder=tmp_path)["results"]["families"]
    want = recorded("parity")["results"]["families"]
    assert list(found) == list(want)
    for family, rows in found.items():
        for row, old in zip(rows, want[family], strict=True):
            assert row.keys() == old.keys()
            assert row["reference"] == old["reference"]
            assert 0 < row["float32"] <= 1e-5
            assert 0 < row.get("float64, mended", row["float64"]) <= 1e-10


def test_a_mended_reference_is_whole_again_afterwards(run):
    (case,) = [case for case in run.CASES if case.family == "longformer"]
    before = torch.nn.functional.softmax
    assert run.error(case, torch.float64, mended=True)[1] < 1e-12
    assert torch.nn.functional.softmax is before
    assert 1e-9 < run.error(case, torch.float64)[1] < 1e-6  # and limits the comparison again
