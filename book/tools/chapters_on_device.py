"""Run chapters on a GPU, every assertion included, and record what each takes there.

    python book/tools/chapters_on_device.py
    python book/tools/chapters_on_device.py --chapters 02_attention 10_gpt

writes book/benchmarks/chapters_cuda.json: seconds, and the most memory that was allocated on the
GPU at one time, of each chapter that ran to its end in a process of its own. The chapters' headers
show it. The file is written anew after every chapter, at once or not at all; chapters that are not
named keep what an earlier run on the same machine found. The end of a chapter that fails is
printed, it is not recorded, and the exit status is 1.

`--device cpu` does the same on a CPU, where the memory is the process's own, at its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = "chapters_on_device: "  # before the line that a chapter's process reports


def run_here(chapter: Path, device: str) -> None:
    """Run one chapter in this process; print its seconds and peak memory."""
    import torch

    if device == "cuda":
        torch.cuda.init()
        peaks, reset = [], torch.cuda.reset_peak_memory_stats

        def note_and_reset(*args, **kwargs):  # a chapter that measures memory forgets the peak
            peaks.append(torch.cuda.max_memory_allocated())
            reset(*args, **kwargs)

        torch.cuda.reset_peak_memory_stats = note_and_reset
    began = time.perf_counter()
    runpy.run_path(str(chapter), run_name="__main__")
    if device == "cuda":
        torch.cuda.synchronize()
        peak = max(*peaks, torch.cuda.max_memory_allocated(), 1)
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - began
    print(MARK + json.dumps({"seconds": round(seconds, 3), "peak_bytes": peak}), flush=True)


def measure(chapter: Path, device: str) -> dict | str:
    """What one chapter took, in a process of its own; or the last line of what went wrong."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
        "EXECUTABLE_TRANSFORMER_STATIC": "1",
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    run = subprocess.run(
        [sys.executable, __file__, "--run", chapter, "--device", device],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    reports = [line for line in run.stdout.splitlines() if line.startswith(MARK)]
    if run.returncode or not reports:
        return (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
    return json.loads(reports[-1].removeprefix(MARK))


def chapters(names: list[str], folder: Path) -> list[Path]:
    """The files of these chapters, or of all; ValueError for one that is not there."""
    found = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.py"))}
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"expected chapters of {folder}, got {', '.join(unknown)}")
    return [found[name] for name in names or found]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--chapters", nargs="*", default=[], help="their names; all if left out")
    parser.add_argument("--folder", type=Path, default=ROOT / "chapters", help="where they lie")
    parser.add_argument("--output", type=Path, help="instead of book/benchmarks/chapters_….json")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        run_here(options.run, options.device)
        return 0

    import torch

    sys.path.insert(0, str(ROOT))
    from tests.benchmarks.harness import machine, origin, records, versions

    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here: nothing was run")
        return 1
    path = options.output or ROOT / records.FOLDER / f"chapters_{device}.json"
    try:
        files = chapters(options.chapters, options.folder)
    except ValueError as error:
        print(error)
        return 1
    found = origin()
    content = {
        "device": device,
        "machine": machine(device),
        "versions": versions(),
        "date": found["date"],
        "commit": found["commit"] + (" and changes" if found["dirty"] else ""),
        "chapters": {},
    }
    if path.exists():
        earlier = records.read_chapters(path)
        if (earlier["machine"], earlier["versions"]) == (content["machine"], content["versions"]):
            content["chapters"] = earlier["chapters"]
    failed = 0
    for file in files:
        result = measure(file, device)
        if isinstance(result, str):
            failed += 1
            content["chapters"].pop(file.stem, None)
            print(f"{file.stem}: failed: {result}", flush=True)
            continue
        content["chapters"][file.stem] = result
        content["chapters"] = dict(sorted(content["chapters"].items()))
        records.write(path, content, records.check_chapters)
        print(
            f"{file.stem}: {result['seconds']:.0f} s, {result['peak_bytes'] / 2**20:.0f} MiB",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
