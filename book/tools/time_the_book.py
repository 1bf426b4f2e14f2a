"""Time the whole book: every chapter run and every page written, from clean, on two cores.

    python book/tools/time_the_book.py

builds a fresh copy of the repository with the environment that is there, and writes the minutes
into book/benchmarks/cpu.json, beside what `make bench` found. Nothing is written if it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = (".venv", "_build", ".git", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis")
CORES = 2


def minutes_of_build(root: Path, scratch: Path) -> float:
    """How long build.sh takes in a copy of `root`; CalledProcessError if it fails."""
    copy = scratch / "book"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*BUILT), symlinks=True)
    (copy / ".venv").symlink_to((root / ".venv").resolve())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    environment = {name: x for name, x in os.environ.items() if not name.startswith("MAKE")}
    began = time.perf_counter()
    subprocess.run(["bash", "book/tools/build.sh"], cwd=copy, env=environment, check=True)
    return (time.perf_counter() - began) / 60


def main() -> int:
    sys.path.insert(0, str(ROOT))
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from tests.benchmarks.harness import origin, records, round_off, save

    torch.set_num_threads(1)  # as the run that wrote the other rows says of itself
    rows = records.read_rows(ROOT / records.ROWS)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            took = round_off(minutes_of_build(ROOT, Path(scratch)))
        except subprocess.CalledProcessError as error:
            print(f"the book does not build, exit status {error.returncode}: nothing was written")
            return 1
    row = rows["whole-book"]
    found = {
        "ratio": took,
        "quartiles": [],
        "ours": took,
        "theirs": None,
        "unit": "minutes",
        "rounds": 1,
        "target": row.target("cpu"),
        "sense": row.sense,
        "met": row.met(took, "cpu"),
        "difference": None,
        "tolerance": None,
        "note": "",
        **origin(),
    }
    path = ROOT / records.FOLDER / "cpu.json"
    save(path, device="cpu", rows=rows, found={"whole-book": found}, absent={})
    print(f"{took} minutes, written to {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
