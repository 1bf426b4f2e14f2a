"""The recorded parity run that the model cards show: it is whole, and its command can be run."""

from pathlib import Path

import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "parity.py"


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
    run.main(tmp_path / "again.json")
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
