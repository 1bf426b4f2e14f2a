"""The harness of the benchmarks: its arithmetic, and that it refuses to compare two things."""

from __future__ import annotations

import json
import math
import time
from types import SimpleNamespace

import pytest
import torch

from tests.benchmarks import conftest, harness
from tests.benchmarks.harness import (
    Contest,
    compare,
    growth,
    merged,
    records,
    relative_difference,
    round_off,
    save,
)

ROWS = {
    "fast": records.Row("fast", "`f`", "the peer", "equal", "speed", at_least=2.0),
    "small": records.Row("small", "`g`", "the peer", "equal", "memory", at_most=0.5),
    "gpu": records.Row("gpu", "`h`", "a kernel", "equal", "speed", at_least=1, devices=("cuda",)),
}


class Benchmark:
    """pytest-benchmark's fixture, as far as a contest uses it."""

    def __init__(self, enabled: bool) -> None:
        self.enabled, self.extra_info = enabled, {}
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[]))

    def pedantic(self, target, setup=None, rounds=1):
        for _ in range(rounds):
            if setup is not None:
                setup()
            began = time.perf_counter()
            target()
            self.stats.stats.data.append(time.perf_counter() - began)


@pytest.fixture(params=[True, False], ids=["measures", "runs once"])
def contest(request):
    return Contest(Benchmark(request.param), "cpu", ROWS)


class TestRatios:
    def test_of_medians_with_the_quartiles_of_the_rounds(self):
        ours, theirs = [1.0, 2.0, 4.0, 8.0, 100.0], [6.0, 6.0, 6.0, 6.0, 600.0]
        ratio, quartiles = compare(ours, theirs, faster=True)
        assert ratio == 6 / 4
        assert quartiles == [1.5, 6.0]  # of 6, 3, 1.5, .75, 6
        ratio, quartiles = compare(ours, theirs, faster=False)
        assert ratio == 4 / 6
        assert quartiles == pytest.approx([1 / 6, 2 / 3])

    @pytest.mark.parametrize("theirs", [[1.0], [1.0, 2.0, 3.0]])
    def test_rounds_come_in_pairs(self, theirs):
        with pytest.raises(
            ValueError, match=f"expected as many rounds of both, got 2 and {len(theirs)}"
        ):
            compare([1.0, 2.0], theirs, faster=True)

    @pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
    def test_the_exponent_of_growth(self, power):
        sizes = [3, 7, 20, 101]
        assert growth(sizes, [0.3 * n**power for n in sizes]) == pytest.approx(power)

    @pytest.mark.parametrize(
        ("value", "rounded"), [(1.23456, 1.235), (1234567, 1235000.0), (None, None), (0.0, 0.0)]
    )
    def test_four_digits(self, value, rounded):
        assert round_off(value) == rounded


class TestTheSameThing:
    def test_relative_to_the_largest_number_of_each_tensor(self):
        want = torch.tensor([10.0, -20.0]), torch.tensor([0.1])
        got = torch.tensor([10.0, -21.0]), torch.tensor([0.1])
        assert relative_difference(got, want) == pytest.approx(1 / 20)
        got = torch.tensor([10.0, -20.0]), torch.tensor([0.3])
        assert relative_difference({"a": got[0], "b": got[1]}, want) == pytest.approx(2.0)
        assert relative_difference(want, want) == 0

    def test_nan_is_no_agreement(self, contest):
        nan = torch.full((3,), math.nan)
        with pytest.raises(AssertionError, match="got a difference of nan"):
            contest.check_and_time("fast", lambda: nan, lambda: torch.ones(3), tolerance=1.0)

    @pytest.mark.parametrize("got", [torch.ones(2), [torch.ones(3), torch.ones(3)], None])
    def test_other_shapes_fail(self, got):
        with pytest.raises(AssertionError, match="expected the shapes"):
            relative_difference(got, torch.ones(3))

    def test_a_peer_that_computes_something_else_fails(self, contest):
        x = torch.tensor([1.0, 2.0, 5.0])
        with pytest.raises(
            AssertionError,
            match=r"^fast: expected ours and the peer to compute the same, within 0.001, got a "
            r"difference of 0.02$",
        ):
            contest.check_and_time("fast", lambda: x + 0.1, lambda: x, tolerance=1e-3)
        assert contest.found == {}
        with pytest.raises(AssertionError, match=r"got a difference of 0\.5"):
            contest.check_and_time("fast", lambda: x, lambda: x, difference=0.5, tolerance=0.1)

    @pytest.mark.parametrize("key", ["unknown", "gpu"])
    def test_a_row_is_one_of_the_file_and_of_the_device(self, contest, key):
        with pytest.raises(AssertionError, match=key):
            contest.check_and_time(key, torch.zeros, torch.zeros, difference=0.0, tolerance=0.0)


class TestTurns:
    def test_they_take_turns_and_both_medians_are_kept(self):
        contest, calls = Contest(Benchmark(True), "cpu", ROWS), []

        def run(name, seconds):
            def call():
                calls.append(name)
                time.sleep(seconds)
                return torch.ones(2)

            return call

        contest.check_and_time(
            "fast", run("ours", 0.002), run("theirs", 0.02), tolerance=0.0, seconds=0.11
        )
        row = contest.found["fast"]
        turns = calls[-2 * row["rounds"] :]
        assert turns == ["theirs", "ours"] * row["rounds"]
        assert 0.002 < row["ours"] < row["theirs"] and row["theirs"] > 0.02
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"], rel=1e-2)
        assert row["quartiles"][0] <= row["quartiles"][1]
        assert (row["met"], row["target"], row["sense"]) == (row["ratio"] >= 2, 2.0, "at least")
        assert row["rounds"] >= 5 and row["difference"] == 0 and row["unit"] == "s"
        assert contest.benchmark.extra_info == contest.found

    def test_what_comes_before_a_turn_is_not_timed(self):
        contest, calls = Contest(Benchmark(True), "cpu", ROWS), []

        def one():
            calls.append("turn")
            return torch.ones(1)

        def before():
            calls.append("before")
            time.sleep(0.02)

        contest.check_and_time("fast", one, one, tolerance=0.0, seconds=1e-6, before=before)
        assert calls[-4 * 5 :] == ["before", "turn"] * 10
        assert max(contest.found["fast"]["ours"], contest.found["fast"]["theirs"]) < 0.02

    def test_without_measuring_nothing_is_found(self):
        contest, calls = Contest(Benchmark(False), "cpu", ROWS), []

        def ours():
            calls.append(1)
            return torch.ones(2)

        contest.check_and_time("fast", ours, lambda: torch.ones(2), tolerance=0.0)
        contest.value("small", 0.4)
        assert contest.found == {} and len(calls) == 2
        assert contest.sizes(n=(1024, 7)) == {"n": 7}

    @pytest.mark.parametrize(("ratio", "met"), [(0.4, True), (0.5, True), (0.6, False)])
    def test_at_most(self, ratio, met):
        contest = Contest(Benchmark(True), "cpu", ROWS)
        contest.value("small", ratio)
        assert contest.found["small"]["met"] is met

    def test_a_target_of_each_device(self):
        row = records.Row("x", "a", "b", "c", "speed", at_least={"cpu": 2.2, "cuda": 3})
        assert (row.target("cpu"), row.target("cuda")) == (2.2, 3.0)
        assert row.met(2.5, "cpu") and not row.met(2.5, "cuda")


HERE = {"name": "a CPU", "processor": "a CPU", "cores": 2, "threads": 1}


def found(ratio: float, key: str = "fast") -> dict:
    contest = Contest(Benchmark(True), "cpu", ROWS)
    contest.value(key, ratio)
    return contest.found[key]


def run(**changes):
    default = {"device": "cpu", "rows": ROWS, "found": {}, "absent": {}, "here": HERE}
    return default | {"with_versions": {"torch": "2"}} | changes


class TestTheFile:
    def test_parts_of_a_run_are_put_together(self, tmp_path):
        path = tmp_path / "results" / "cpu.json"
        first = save(path, **run(found={"fast": found(3.0)}))
        assert first["rows"].keys() == {"fast"}
        assert first["absent"] == {
            "small": "not measured yet: make bench",
            "gpu": "only on cuda",
        }
        second = save(path, **run(found={"small": found(0.4, "small")}))
        assert list(second["rows"]) == ["fast", "small"]  # in the order of rows.yml
        assert second["rows"]["fast"] == first["rows"]["fast"]
        third = save(path, **run(found={"fast": found(1.0)}, absent={"small": "it failed"}))
        assert third["rows"]["fast"]["ratio"] == 1.0 and not third["rows"]["fast"]["met"]
        assert third["absent"]["small"] == "it failed"
        assert records.read_benchmarks(path, ROWS) == json.loads(json.dumps(third))
        assert [p.name for p in path.parent.iterdir()] == ["cpu.json"]

    @pytest.mark.parametrize(
        "change", [{"here": HERE | {"name": "another"}}, {"with_versions": {"torch": "3"}}]
    )
    def test_what_another_machine_found_is_not_mixed_in(self, change):
        before = merged(None, **run(found={"fast": found(3.0)}))
        after = merged(before, **run(found={"small": found(0.4, "small")}, **change))
        assert after["rows"].keys() == {"small"}

    def test_nor_what_was_held_to_another_target(self):
        before = merged(None, **run(found={"fast": found(3.0)}))
        before["rows"]["fast"]["target"] = 1.5
        assert merged(before, **run())["rows"] == {}

    def test_a_file_that_is_broken_is_replaced(self, tmp_path):
        path = tmp_path / "cpu.json"
        path.write_text("{")
        save(path, **run(found={"fast": found(3.0)}))
        assert records.read_benchmarks(path, ROWS)["rows"]["fast"]["ratio"] == 3.0

    def test_what_would_not_be_read_is_not_written(self, tmp_path):
        path = tmp_path / "cpu.json"
        save(path, **run(found={"fast": found(3.0)}))
        before = path.read_bytes()
        wrong = found(3.0) | {"met": False}
        with pytest.raises(records.RecordError, match=r"expected met = True at a ratio of 3\.0"):
            save(path, **run(found={"fast": wrong}))
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["cpu.json"]

    def test_where_it_is_from(self, monkeypatch):
        assert set(harness.origin()) == {"commit", "dirty", "date"}
        monkeypatch.setattr(harness, "ROOT", harness.ROOT / "no such folder")
        found = harness.origin()
        assert (found["commit"], found["dirty"]) == ("unknown", True)
        assert harness.machine("cpu")["cores"] >= 1
        assert harness.versions()["torch"] == torch.__version__


class TestTheSession:
    """What tests/benchmarks/conftest.py does around the benchmarks."""

    def item(self, *keys, stash):
        mark = SimpleNamespace(args=keys) if keys else None
        config = SimpleNamespace(stash=stash)
        return SimpleNamespace(get_closest_marker=lambda name: mark, config=config)

    def report(self, item, **report):
        made = SimpleNamespace(**({"failed": False, "skipped": False, "longrepr": None} | report))
        failure = SimpleNamespace(exconly=lambda: "AssertionError: expected 1\nmore")
        hook = conftest.pytest_runtest_makereport(item, SimpleNamespace(excinfo=failure))
        next(hook)
        with pytest.raises(StopIteration) as end:
            hook.send(made)
        assert end.value.value is made

    def test_what_failed_or_has_no_peer_is_absent_and_the_rest_is_written(
        self, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(conftest, "ROWS", ROWS)
        monkeypatch.setattr(conftest, "ROOT", tmp_path)
        monkeypatch.delenv("BENCH_NAME", raising=False)
        stash = pytest.Stash()
        self.report(self.item("fast", "gpu", stash=stash), failed=True)
        skipped = ("file", 3, "Skipped: lime is not installed")
        self.report(self.item("small", stash=stash), skipped=True, longrepr=skipped)
        self.report(self.item(stash=stash), failed=True)
        want = {
            "fast": "the benchmark failed: AssertionError: expected 1",
            "small": "Skipped: lime is not installed",
        }
        assert stash[conftest.ABSENT] == want
        session = SimpleNamespace(config=SimpleNamespace(stash=stash))
        conftest.pytest_sessionfinish(session)
        assert not (tmp_path / records.FOLDER).exists()  # as nothing was measured

        stash[conftest.ABSENT].pop("fast")
        stash[conftest.FOUND] = {"fast": found(3.0), "small": found(0.4, "small")}
        conftest.pytest_sessionfinish(session)
        content = records.read_benchmarks(tmp_path / records.FOLDER / "cpu.json", ROWS)
        assert content["rows"].keys() == {"fast"}
        assert content["absent"] == {"small": want["small"], "gpu": "only on cuda"}
        assert "written to book/benchmarks/cpu.json" in capsys.readouterr().out

    @pytest.mark.parametrize(("device", "kept"), [("cpu", [0, 2]), ("cuda", [0, 1, 2])])
    def test_what_is_for_the_other_device_is_not_there(self, monkeypatch, device, kept):
        monkeypatch.setattr(conftest, "ROWS", ROWS)
        monkeypatch.setattr(conftest, "DEVICE", device)
        items = [self.item(*keys, stash=None) for keys in (("fast", "gpu"), ("gpu",), ())]
        for item in items:
            item.marks = []
            item.add_marker = item.marks.append
        left = list(items)
        conftest.pytest_collection_modifyitems(left)
        assert left == [items[i] for i in kept]
        assert [len(item.marks) for item in left] == [1] * (len(kept) - 1) + [0]
