"""How a benchmark is run: the same work twice, by us and by a peer, in turns, in one process.

`Contest.speed` first holds the two results to each other, so that a benchmark of two different
things fails. Then pytest-benchmark times ours, round by round, and before each of its rounds the
peer has its own. The ratio is that of the medians; the spread is the quartiles of the rounds'
ratios. Under a plain `pytest` everything runs once, on sizes that take no time, and nothing is
timed: then it is a test of what is compared.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[2]


def _load_records():
    """bookext/records.py alone: the package around it needs Sphinx, which a GPU machine lacks."""
    path = ROOT / "book" / "_ext" / "bookext" / "records.py"
    spec = importlib.util.spec_from_file_location("benchmark_records", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


records = _load_records()
PEERS = ("transformers", "x-transformers", "captum", "lime", "triton", "safetensors")
MEASURED_CODE = ("lib", "tests/benchmarks", "constraints.txt")  # what a figure depends on


@dataclass
class Contest:
    """One test's part of the run: what it measured goes into `found`.

    measures : whether to measure, on sizes that count, or only to run once
    """

    benchmark: Any
    device: str
    rows: Mapping[str, Any]
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def measures(self) -> bool:
        return self.benchmark.enabled

    def sizes(self, **both: tuple[Any, Any]) -> dict[str, Any]:
        """Of each pair the first to measure on, the second where nothing is measured."""
        return {name: pair[0 if self.measures else 1] for name, pair in both.items()}

    def speed(
        self,
        key: str,
        ours: Callable[[], Any],
        theirs: Callable[[], Any],
        *,
        tolerance: float,
        difference: float | None = None,
        seconds: float = 12.0,
        note: str = "",
        before: Callable[[], Any] | None = None,
    ) -> float:
        """Assert that both compute the same, and measure how many times as fast ours is.

        Returns the difference between the results.

        tolerance : for the largest difference between the results, relative to the largest number
        difference : given where results cannot be compared as tensors
        seconds : about how long to take turns; there are 5 to 41 rounds
        before : called before each turn of either, and not timed
        """
        row = self._row(key)
        if difference is None:
            difference = relative_difference(ours(), theirs())
        assert difference <= tolerance, (
            f"{key}: expected ours and {row.peer} to compute the same, within {tolerance:g}, got a "
            f"difference of {difference:g}"
        )
        if not self.measures:
            self.benchmark.pedantic(ours)
            return difference
        seconds_of(ours), seconds_of(theirs)  # the first call sets up what later ones find
        one_round = seconds_of(ours) + seconds_of(theirs)
        rounds = min(41, max(5, int(seconds / one_round)))
        their_seconds: list[float] = []

        def their_turn() -> None:
            if before is not None:
                before()
            their_seconds.append(seconds_of(theirs))
            if before is not None:
                before()

        self.benchmark.pedantic(lambda: synchronised(ours), setup=their_turn, rounds=rounds)
        our_seconds = list(self.benchmark.stats.stats.data)
        self.value(
            key,
            *compare(our_seconds, their_seconds, faster=row.quantity == "speed"),
            ours=statistics.median(our_seconds),
            theirs=statistics.median(their_seconds),
            unit="s",
            rounds=rounds,
            difference=difference,
            tolerance=tolerance,
            note=note,
        )
        return difference

    def value(
        self,
        key: str,
        ratio: float,
        quartiles: Sequence[float] = (),
        *,
        ours: float | None = None,
        theirs: float | None = None,
        unit: str = "",
        rounds: int = 1,
        difference: float | None = None,
        tolerance: float | None = None,
        note: str = "",
    ) -> None:
        """Record a ratio, where this run measures."""
        row = self._row(key)
        assert ratio > 0, f"{key}: expected a ratio above 0, got {ratio}"
        if not self.measures:
            return
        self.found[key] = {
            "ratio": round_off(ratio),
            "quartiles": [round_off(x) for x in quartiles],
            "ours": round_off(ours),
            "theirs": round_off(theirs),
            "unit": unit,
            "rounds": rounds,
            "target": row.target(self.device),
            "sense": row.sense,
            "met": row.met(round_off(ratio), self.device),
            "difference": round_off(difference),
            "tolerance": tolerance,
            "note": note,
            **origin(),
        }
        self.benchmark.extra_info[key] = self.found[key]

    def _row(self, key: str) -> Any:
        assert key in self.rows, f"rows.yml: expected a row {key!r}, found none"
        row = self.rows[key]
        assert self.device in row.devices, f"{key}: not a row for {self.device}"
        return row


def compare(
    ours: Sequence[float], theirs: Sequence[float], *, faster: bool
) -> tuple[float, list[float]]:
    """The ratio of the medians, and the quartiles of the rounds' ratios.

    faster : theirs ÷ ours, how many times as fast; otherwise ours ÷ theirs
    """
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(f"expected as many rounds of both, got {len(ours)} and {len(theirs)}")
    above, below = (theirs, ours) if faster else (ours, theirs)
    single = [a / b for a, b in zip(above, below, strict=True)]
    low, _, high = statistics.quantiles(single, n=4, method="inclusive")
    return statistics.median(above) / statistics.median(below), [low, high]


def relative_difference(got: Any, want: Any) -> float:
    """The largest |got − want| of all their tensors, relative to the largest |want| of each."""
    ours = [x for x in tree_leaves(got) if isinstance(x, Tensor)]
    theirs = [x for x in tree_leaves(want) if isinstance(x, Tensor)]
    shapes = [[tuple(x.shape) for x in both] for both in (ours, theirs)]
    assert ours and shapes[0] == shapes[1], f"expected the shapes {shapes[1]}, got {shapes[0]}"
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        a, b = a.detach().double(), b.detach().double()
        found = ((a - b).abs().max() / b.abs().max().clamp(min=1e-300)).item()
        if math.isnan(found):  # which `max` may drop
            return found
        worst = max(worst, found)
    return worst


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent p of seconds ∝ size^p: the slope of the line through the logarithms."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, seconds))
    x, y = x - x.mean(), y - y.mean()
    return ((x @ y) / (x @ x)).item()


def synchronised(function: Callable[[], Any]) -> None:
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # the GPU works on after a call returns


def seconds_of(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    synchronised(function)
    return time.perf_counter() - began


def round_off(value: float | None) -> float | None:
    """Four digits: more would be noise."""
    return None if value is None else float(f"{value:.4g}")


# Where a figure is from


def origin() -> dict[str, Any]:
    """The commit, whether the code that was measured differs from it, and the date."""
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit[:12] or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--", *MEASURED_CODE)) or not commit,
        "date": datetime.date.today().isoformat(),
    }


def _git(*arguments: str) -> str:
    """What git says, or nothing where there is no repository or no git."""
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()


def machine(device: str) -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "name": torch.cuda.get_device_name() if device == "cuda" else processor,
        "processor": processor,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Of Python, torch, and each peer that is installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def merged(
    earlier: Mapping[str, Any] | None,
    *,
    device: str,
    rows: Mapping[str, Any],
    found: Mapping[str, Mapping],
    absent: Mapping[str, str],
    here: Mapping[str, Any] | None = None,
    with_versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The file after a run: its rows, and of an earlier run on the same machine, with the same
    versions, those that this one left alone. What is nowhere has a reason in `absent`."""
    here = machine(device) if here is None else dict(here)
    with_versions = versions() if with_versions is None else dict(with_versions)
    same = earlier is not None and (earlier["machine"], earlier["versions"]) == (
        here,
        with_versions,
    )
    kept = earlier["rows"] if same else {}
    all_rows, all_absent = {}, {}
    for key, row in rows.items():
        if key in found:
            all_rows[key] = found[key]
        elif key in absent:
            all_absent[key] = absent[key]
        elif device not in row.devices:
            all_absent[key] = f"only on {' and '.join(row.devices)}"
        elif key in kept and (kept[key]["target"], kept[key]["sense"]) == (
            row.target(device),
            row.sense,
        ):
            all_rows[key] = kept[key]
        else:
            all_absent[key] = f"not measured yet: {row.command}"
    return {
        "device": device,
        "machine": here,
        "versions": with_versions,
        "rows": all_rows,
        "absent": all_absent,
    }


def save(path: Path, **run: Any) -> dict[str, Any]:
    """Write what a run found, with what an earlier one did."""
    rows = run["rows"]
    earlier = None
    if path.exists():
        try:
            earlier = records._read(path)
            records._require(path.name, earlier, records.WHOLE)
        except records.RecordError:
            earlier = None  # what is not whole is replaced
    content = merged(earlier, **run)
    records.write(path, content, lambda name, found: records.check_benchmarks(name, found, rows))
    return content
