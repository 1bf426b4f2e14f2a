"""Pre-training by masked tokens and by replaced tokens at equal counted compute, several seeds.

    python book/experiments/rtd_large.py

writes book/experiments/rtd_large.json, which chapter 13_replaced_token_detection shows. The
defaults are the run that is recorded. The same script takes a GPU and a larger model:

    python book/experiments/rtd_large.py --device cuda --d-model 256 --layers 6 --steps 20000 \\
        --length 128 --windows 1 --hardware "one NVIDIA H200" --out rtd_h200.json

Seed by seed, arm by arm; the file is written anew, at once, after each.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.teaching.pretraining import (  # noqa: E402
    ARMS,
    character_corpus,
    classify,
    config_for,
    pretrain,
    step_flops,
    words_baseline,
)
from lib.teaching.recorded import record  # noqa: E402


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000, help="of masked LM; others by FLOPs")
    parser.add_argument("--d-model", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--share", type=float, default=0.15)
    parser.add_argument("--weight", type=float, default=50.0)
    parser.add_argument("--labels", type=int, nargs="+", default=[300, 2700])
    parser.add_argument("--num-labels", type=int, default=24)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hardware", default="2 CPU cores, one thread used")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args(given)


def main(given: list[str]) -> None:
    options = arguments(given)
    if options.device == "cpu":
        torch.set_num_threads(1)
    began = time.perf_counter()
    corpus = character_corpus(options.length, options.windows, num_labels=options.num_labels)
    config = config_for(corpus, options.d_model, options.layers)
    budget = options.steps * step_flops("mlm", config, options.batch, options.share)
    held_out = torch.bincount(corpus.held_out_labels)
    entropy = torch.special.entr(corpus.frequencies).sum().item()
    results: dict = {
        "budget_flops": budget,
        "parameters": 0,
        "characters": len(corpus.characters),
        "tokens": corpus.train.numel(),
        "documents": len(corpus.labels),
        "sha256": corpus.sha256,
        "unigram_entropy": entropy,
        "most_frequent_label": (held_out.max() / held_out.sum()).item(),
        "words": {
            str(count): [
                words_baseline(count, seed=seed, num_labels=options.num_labels)
                for seed in options.seeds
            ]
            for count in options.labels
        },
        "arms": {arm: [] for arm in options.arms},
    }
    settings = {k: v for k, v in vars(options).items() if k not in ("out", "hardware")}
    command = shlex.join(["python", "book/experiments/rtd_large.py", *given])
    for seed in options.seeds:
        for arm in options.arms:
            encoder, report = pretrain(
                arm,
                corpus,
                config,
                budget=budget,
                seed=seed,
                batch=options.batch,
                learning_rate=options.learning_rate,
                share=options.share,
                weight=options.weight,
                device=options.device,
            )
            report["seed"] = seed
            found = classify(encoder, corpus, options.labels, seed=seed, device=options.device)
            report["accuracy"] = {str(count): value for count, value in found.items()}
            results["parameters"] = sum(p.numel() for p in encoder.parameters())
            results["arms"][arm].append(report)
            spent = time.perf_counter() - began
            print(f"{spent:6.0f} s  seed {seed}  {arm:10} {report}", flush=True)
            record(
                options.out,
                command=command,
                hardware=options.hardware,
                seconds=spent,
                settings=settings,
                results=results,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
