"""Translate dates with a small Transformer, and with parts of it changed, over several seeds.

    python book/experiments/encoder_decoder.py

writes encoder_decoder.json beside this file, which chapter 07_encoder_decoder reads. It takes about
five minutes on one thread. All arms see the same batches in the same order for one seed.

The file is written anew after every run, at once or not at all, so it may be stopped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.data import DATE_FORMS, date_pairs  # noqa: E402
from lib.generation import beam_search  # noqa: E402
from lib.models.transformer import Transformer, TransformerConfig  # noqa: E402
from lib.teaching.recorded import record  # noqa: E402
from lib.teaching.translation import (  # noqa: E402
    OneVector,
    Translation,
    exact_match,
    nats,
    train_translator,
)

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/encoder_decoder.py"
SIZES = {"d_model": 64, "num_layers": 1, "num_heads": 4, "d_ff": 128, "max_length": 64}
TRAINING = {"steps": 700, "batch_size": 32, "learning_rate": 4e-3, "smoothing": 0.1}
DAYS = 5000
SEEDS = [0, 1, 2]

# name: what is changed of the sizes, what of the training, the class
ARMS: dict[str, tuple[dict, dict, type[Transformer]]] = {
    "all states": ({}, {}, Transformer),
    "one vector": ({}, {}, OneVector),
    "no smoothing": ({}, {"smoothing": 0.0}, Transformer),
    "no root": ({"scale_embedding": False}, {}, Transformer),
    "one vector, longer": ({}, {"steps": 2 * TRAINING["steps"]}, OneVector),
}


def main(path: Path = RESULTS) -> None:
    """Train every arm for every seed; the file at `path` is whole after each of them."""
    torch.set_num_threads(1)
    data = date_pairs(seed=0, num_days=DAYS)
    translation = Translation(data)
    began = time.perf_counter()
    settings = {**SIZES, **TRAINING, "days": DAYS, "seeds": SEEDS}
    results = {
        "text_sha256": data.sha256,
        "vocabulary": len(translation),
        "training_pairs": len(data.train),
        "validation_pairs": len(data.validation),
        "parameters": 0,
        "arms": {},
    }

    def run(name: str, seed: int) -> dict[str, float]:
        sizes, training, model_class = ARMS[name]
        torch.manual_seed(seed)
        config = TransformerConfig(**translation.tokens, dropout=0.0, **{**SIZES, **sizes})
        model = model_class(config)
        results["parameters"] = sum(p.numel() for p in model.parameters())
        train_translator(model, translation, data.train, seed=seed, **{**TRAINING, **training})
        by_form = {}
        for k, (locale, _) in enumerate(DATE_FORMS):  # a day's texts stand in this order
            pairs = data.validation[k :: len(DATE_FORMS)]
            by_form[f"exact, {locale}"] = exact_match(model, translation, pairs)
        found = {
            "exact": sum(by_form.values()) / len(by_form),  # of as many pairs each
            "nats": nats(model, translation, data.validation),
            **by_form,
        }
        if name == "all states":
            found["beam"] = exact_match(
                model,
                translation,
                data.validation,
                write=beam_search,
                num_beams=4,
                length_penalty=0.6,
                penalty="wu",
            )
        return found

    for name in ARMS:
        for seed in SEEDS:
            found = run(name, seed)
            for what, value in found.items():
                results["arms"].setdefault(name, {}).setdefault(what, []).append(value)
            seconds = time.perf_counter() - began
            print(f"{seconds:5.0f} s  {name:20}", found, flush=True)
            record(
                path,
                command=COMMAND,
                hardware="2 CPU cores, one thread used",
                seconds=seconds,
                settings=settings,
                results=results,
            )


if __name__ == "__main__":
    main()
