"""Weigh sliding-window attention against the official Longformer's and against dense attention.

    OMP_NUM_THREADS=1 python book/experiments/sliding_window.py

writes sliding_window.json beside this file, which chapter 09_sliding_window reads: for each length
the CPU seconds of every repetition and the peak bytes, forward alone and with the backward pass,
one sample of 4 heads of 64 features. Only ratios within one row mean anything: a busy machine is
slower even in CPU seconds, and the functions of a row take turns. About five minutes.

The reference is the arithmetic of `LongformerSelfAttention` in transformers without its linear
maps: `_sliding_chunks_query_key_matmul`, softmax, `_sliding_chunks_matmul_attn_probs_value`.

The file is written anew after every length, at once or not at all, so it may be stopped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.attention import fast_attention  # noqa: E402
from lib.sliding_window import (  # noqa: E402
    count_pairs,
    gathered_window_attention,
    sliding_window_attention,
)
from lib.teaching.measure import peak_bytes  # noqa: E402
from lib.teaching.recorded import record  # noqa: E402
from tests.models.parity import windows_of_longformer  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "OMP_NUM_THREADS=1 python book/experiments/sliding_window.py"
SIZES = {"window": 256, "heads": 4, "features": 64, "repeats": 3}
LENGTHS = [1024, 2048, 4096, 8192, 16384, 32768]
LONGEST = {"dense": 16384, "gathered": 1024}  # beyond, they take too long or too much


def official(window: int):
    """The windows of the official code, in this run's sizes."""
    return windows_of_longformer(window, SIZES["heads"], SIZES["features"])


def seconds_of(calls) -> list[list[float]]:
    """CPU seconds of each call, `repeats` of them, after one to warm up; the calls take turns."""
    for call in calls:
        call()
    seconds = [[] for _ in calls]
    for _ in range(SIZES["repeats"]):
        for call, its_seconds in zip(calls, seconds, strict=True):
            began = time.process_time()
            call()
            its_seconds.append(time.process_time() - began)
    return seconds


def measure(functions, inputs) -> dict[str, dict]:
    def forward(attend):
        with torch.no_grad():
            attend(*inputs)

    def both(attend):
        attend(*inputs).sum().backward()
        for x in inputs:
            x.grad = None

    rows = {name: {} for name in functions}
    for kind, run in {"forward": forward, "both": both}.items():
        calls = [lambda run=run, attend=attend: run(attend) for attend in functions.values()]
        for name, call, seconds in zip(functions, calls, seconds_of(calls), strict=True):
            rows[name] |= {f"{kind}_seconds": seconds, f"{kind}_bytes": peak_bytes(call)}
    return rows


def main(path: Path = RESULTS) -> None:
    torch.set_num_threads(1)
    began, window = time.perf_counter(), SIZES["window"]
    rows = []
    for n in LENGTHS:
        # as a model has them: (B, n, h, d) in memory, seen as (B, h, n, d)
        shape = (1, n, SIZES["heads"], SIZES["features"])
        inputs = [
            torch.randn(shape, generator=torch.Generator().manual_seed(i))
            .transpose(1, 2)
            .requires_grad_()
            for i in range(3)
        ]
        functions = {
            "lib": lambda *x: sliding_window_attention(*x, window),
            "official": official(window),
            "dense": fast_attention,
            "gathered": lambda *x: gathered_window_attention(*x, window),
        }
        functions = {f: run for f, run in functions.items() if n <= LONGEST.get(f, n)}
        with torch.no_grad():
            difference = functions["lib"](*inputs) - functions["official"](*inputs)
        rows.append(
            {"n": n, "pairs": count_pairs(n, window), "difference": difference.abs().max().item()}
            | measure(functions, inputs)
        )
        seconds = time.perf_counter() - began
        print(f"{seconds:5.0f} s  n = {n}", flush=True)
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores shared with other work, one thread used",
            seconds=seconds,
            settings={**SIZES, "lengths": LENGTHS, "longest": LONGEST},
            results={"transformers": transformers.__version__, "rows": rows},
        )


if __name__ == "__main__":
    main()
