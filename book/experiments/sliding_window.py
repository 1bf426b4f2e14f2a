"""Weigh sliding-window attention against the official Longformer's and against dense attention.

    OMP_NUM_THREADS=1 python book/experiments/sliding_window.py

writes sliding_window.json beside this file: seconds and peak bytes for each length, forward alone
and with the backward pass, one sample of 4 heads of 64 features. Only ratios within one row mean
anything: the machine may be busy, and the functions of a row take turns. About five minutes.

The reference is the arithmetic of `LongformerSelfAttention` in transformers without its linear
maps: `_sliding_chunks_query_key_matmul`, softmax, `_sliding_chunks_matmul_attn_probs_value`.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from pathlib import Path

import torch
import transformers
from torch.nn import functional as F
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.attention import fast_attention  # noqa: E402
from lib.sliding_window import (  # noqa: E402
    count_pairs,
    gathered_window_attention,
    sliding_window_attention,
)
from lib.teaching.measure import median_seconds, peak_bytes  # noqa: E402

WINDOW, HEADS, FEATURES, REPEATS = 256, 4, 64, 3
LENGTHS = [1024, 2048, 4096, 8192, 16384, 32768]
DENSE_TO, GATHERED_TO = 8192, 1024  # beyond, they take too long or too much


def official(window: int):
    config = transformers.LongformerConfig(
        hidden_size=HEADS * FEATURES,
        num_attention_heads=HEADS,
        num_hidden_layers=1,
        attention_window=[window],
    )
    module = LongformerSelfAttention(config, 0)

    def attend(query, key, value):
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        query = query / math.sqrt(FEATURES)
        logits = module._sliding_chunks_query_key_matmul(query, key, window // 2)
        weights = F.softmax(logits, dim=-1, dtype=torch.float32)
        output = module._sliding_chunks_matmul_attn_probs_value(weights, value, window // 2)
        return output.transpose(1, 2)

    return attend


def measure(functions, inputs) -> dict[str, dict[str, float]]:
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
        seconds = median_seconds(*calls, repeats=REPEATS)
        for name, call, time in zip(functions, calls, seconds, strict=True):
            rows[name] |= {f"{kind}_seconds": time, f"{kind}_bytes": peak_bytes(call)}
    return rows


def main() -> None:
    torch.set_num_threads(1)
    results = []
    for n in LENGTHS:
        # as a model has them: (B, n, h, d) in memory, seen as (B, h, n, d)
        inputs = [
            torch.randn(1, n, HEADS, FEATURES, generator=torch.Generator().manual_seed(i))
            .transpose(1, 2)
            .requires_grad_()
            for i in range(3)
        ]
        functions = {
            "lib": lambda *x: sliding_window_attention(*x, WINDOW),
            "official": official(WINDOW),
        }
        if n <= DENSE_TO:
            functions["dense"] = fast_attention
        if n <= GATHERED_TO:
            functions["gathered"] = lambda *x: gathered_window_attention(*x, WINDOW)
        with torch.no_grad():
            difference = functions["lib"](*inputs) - functions["official"](*inputs)
        results.append(
            {"n": n, "pairs": count_pairs(n, WINDOW), "difference": difference.abs().max().item()}
            | measure(functions, inputs)
        )
        print(json.dumps(results[-1]), flush=True)
    record = {
        "command": "OMP_NUM_THREADS=1 python book/experiments/sliding_window.py",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "window": WINDOW,
        "heads": HEADS,
        "features": FEATURES,
        "rows": results,
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
