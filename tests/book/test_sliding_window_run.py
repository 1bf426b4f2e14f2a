"""The recorded run of chapter 09_sliding_window: it is whole, and its command can be run."""

from pathlib import Path

import pytest
import torch

from lib.attention import scaled_dot_product_attention
from lib.sliding_window import count_pairs, window_mask
from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "sliding_window.py"
FIGURES = {"forward_seconds", "forward_bytes", "both_seconds", "both_bytes"}


@pytest.fixture
def tiny(run, monkeypatch):
    monkeypatch.setattr(run, "SIZES", {"window": 4, "heads": 2, "features": 3, "repeats": 2})
    monkeypatch.setattr(run, "LENGTHS", [8, 16])
    monkeypatch.setattr(run, "LONGEST", {"dense": 16, "gathered": 8})
    return run


def functions_of(row):
    return {name for name, value in row.items() if isinstance(value, dict)}


def test_the_recorded_file_holds_every_length(run):
    record = recorded("sliding_window")
    assert record["settings"] == {**run.SIZES, "lengths": run.LENGTHS, "longest": run.LONGEST}
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND
    rows = record["results"]["rows"]
    assert [row["n"] for row in rows] == run.LENGTHS
    for row in rows:
        every = {"lib", "official", "dense", "gathered"}
        assert functions_of(row) == {f for f in every if row["n"] <= run.LONGEST.get(f, row["n"])}
        assert row["pairs"] == count_pairs(row["n"], run.SIZES["window"])
        assert row["difference"] < 1e-5
        for name in functions_of(row):
            assert set(row[name]) == FIGURES
            for kind in ("forward", "both"):
                seconds = row[name][f"{kind}_seconds"]
                assert len(seconds) == run.SIZES["repeats"] and min(seconds) > 0


def test_what_is_kept_grows_with_n_and_not_with_its_square(run):
    rows = {row["n"]: row for row in recorded("sliding_window")["results"]["rows"]}
    for n, twice in zip(run.LENGTHS[1:], run.LENGTHS[2:], strict=False):
        ratios = {
            name: rows[twice][name]["both_bytes"] / rows[n][name]["both_bytes"]
            for name in ("lib", "official")
        }
        assert 1.8 < ratios["official"] < 2.2, n
        assert ratios["lib"] < 2, n


def test_a_token_more_is_three_gradients_more(run):
    rows = {
        row["n"]: row["lib"]["both_bytes"] for row in recorded("sliding_window")["results"]["rows"]
    }
    each = 3 * run.SIZES["heads"] * run.SIZES["features"] * 4
    for n in (8192, 16384):  # beyond a few pieces
        assert rows[2 * n] - rows[n] == pytest.approx(n * each, rel=0.01)


def test_the_script_writes_what_is_recorded(tiny, tmp_path):
    tiny.main(tmp_path / "tiny.json")
    found, want = recorded("tiny", folder=tmp_path), recorded("sliding_window")
    assert found["settings"] == {**tiny.SIZES, "lengths": [8, 16], "longest": tiny.LONGEST}
    assert found["results"].keys() == want["results"].keys()
    short, long = found["results"]["rows"]
    assert functions_of(short) == {"lib", "official", "dense", "gathered"}
    assert functions_of(long) == {"lib", "official", "dense"}
    assert (short["n"], short["pairs"], long["pairs"]) == (8, 34, 74)
    assert all(row["difference"] < 1e-5 for row in (short, long))
    for row in (short, long):
        for name in functions_of(row):
            assert set(row[name]) == FIGURES and len(row[name]["both_seconds"]) == 2
            assert row[name]["both_bytes"] >= row[name]["forward_bytes"] > 0


def test_the_reference_is_the_official_arithmetic(tiny):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 16, 3, generator=generator) for _ in range(3))
    want = scaled_dot_product_attention(q, k, v, window_mask(16, 4))
    torch.testing.assert_close(tiny.official(4)(q, k, v), want)


def test_the_first_call_is_not_timed(tiny):
    calls = {"a": 0, "b": 0}

    def call(name):
        calls[name] += 1

    seconds = tiny.seconds_of([lambda: call("a"), lambda: call("b")])
    assert calls == {"a": 3, "b": 3} and [len(s) for s in seconds] == [2, 2]
