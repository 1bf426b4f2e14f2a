"""Pre-train a small GPT on real text from two beginnings, fine-tune it, and write down what came.

    python book/experiments/gpt.py

writes gpt.json beside this file, which chapter 10_gpt reads. It takes about five minutes on one
thread. Two arms differ in the standard deviation of the first weights alone, and see the same
batches for one seed. The model that began with 1/√d is then fine-tuned to say which module a
docstring is from, against one that was not pre-trained, with and without the auxiliary loss.

The file is written anew after every unit (a seed of an arm), at once or not at all. A run that was
stopped goes on behind the last unit in the file, if that was made with the same settings.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.data import (  # noqa: E402
    CharacterVocabulary,
    consecutive_windows,
    docstrings,
    random_windows,
    topics_text,
)
from lib.generation import sample  # noqa: E402
from lib.losses import masked_lm_loss  # noqa: E402
from lib.models.gpt2 import GPT2, GPT2Config  # noqa: E402
from lib.teaching.finetuning import Examples, accuracy, fine_tune, pack  # noqa: E402
from lib.teaching.recorded import earlier, record  # noqa: E402
from lib.training import evaluate, fit  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/gpt.py"
SIZES = {"length": 64, "batch": 16, "d_model": 96, "num_layers": 3, "num_heads": 4}
TRAINING = {"steps": 600, "learning_rate": 3e-3, "moments": [0, 100, 400], "block": 40}
TUNING = {
    "labels": 6,
    "examples": 300,
    "steps": 100,
    "batch": 16,
    "learning_rate": 2e-3,
    "weight": 0.5,
}
SEEDS = [0, 1, 2]
ARMS = ("0.02", "1/√d")  # the standard deviation of the first weights
PROMPT = "The "
WRITTEN = 160  # characters of a sample


def new_model(arm: str, vocabulary: int, seed: int) -> GPT2:
    """A decoder without dropout, with room for the two tokens of fine-tuning."""
    torch.manual_seed(seed)
    return GPT2(
        GPT2Config(
            vocabulary + 2,
            d_model=SIZES["d_model"],
            num_layers=SIZES["num_layers"],
            num_heads=SIZES["num_heads"],
            max_length=SIZES["length"],
            embedding_dropout=0.0,
            dropout=0.0,
            attention_dropout=0.0,
            init_std=0.02 if arm == "0.02" else 1 / math.sqrt(SIZES["d_model"]),
            eos_token_id=None,
        )
    )


def write(model: GPT2, vocabulary: CharacterVocabulary) -> str:
    """What the model says behind the prompt; it reads the last characters that it has room for."""
    rng = torch.Generator().manual_seed(0)
    ids, most = vocabulary.encode(PROMPT)[None], SIZES["length"]
    half = max(1, most // 2)
    while ids.shape[1] < len(PROMPT) + WRITTEN:
        seen = ids[:, -half:]
        new = sample(model, seen, max_new_tokens=half, generator=rng, top_p=0.95)
        ids = torch.cat([ids, new[:, seen.shape[1] :].clamp(max=len(vocabulary) - 1)], dim=1)
    return vocabulary.decode(ids[0, : len(PROMPT) + WRITTEN])


def pretrain(arm: str, seed: int, text: Any, vocabulary: CharacterVocabulary) -> tuple[GPT2, dict]:
    """Train one decoder; report its losses, and its bits and its writing at several moments."""
    train = vocabulary.encode(text.train)
    held_out = consecutive_windows(vocabulary.encode(text.validation), SIZES["length"])
    model = new_model(arm, len(vocabulary), seed)
    rng = torch.Generator().manual_seed(seed)
    report: dict[str, Any] = {"bits": {}, "samples": {}}

    def look(step: int) -> None:
        report["bits"][str(step)] = evaluate(model, *held_out) / math.log(2)
        report["samples"][str(step)] = write(model, vocabulary)

    def batch_loss(step: int) -> Tensor:
        if step in TRAINING["moments"]:
            look(step)
            model.train()
        inputs, targets = random_windows(train, SIZES["batch"], SIZES["length"], rng)
        return masked_lm_loss(model(inputs), targets)

    losses = fit(
        model, batch_loss, steps=TRAINING["steps"], learning_rate=TRAINING["learning_rate"]
    )
    look(TRAINING["steps"])
    report["curve"] = [
        round(part.mean().item() / math.log(2), 4)
        for part in torch.tensor(losses).split(TRAINING["block"])
    ]  # bits a character, means of blocks of steps
    return model.eval(), report


def labelled(vocabulary: CharacterVocabulary) -> tuple[Examples, Examples, dict]:
    """Docstrings by module, as rows between the two new tokens; unknown characters become ?."""
    data = docstrings(num_labels=TUNING["labels"])
    V, length = len(vocabulary), SIZES["length"]

    def rows(texts: list[str], labels: list[int]) -> Examples:
        known = ["".join(c if c in vocabulary.characters else "?" for c in t) for t in texts]
        ids = [vocabulary.encode(text[:length]) for text in known]
        return pack(ids, labels, length=length, start=V, extract=V + 1)

    held_out = rows(data.validation, data.validation_labels)
    about = {
        "names": list(data.names),
        "sha256": data.sha256,
        "held_out": len(held_out),
        "most_frequent": held_out.labels.bincount().max().item() / len(held_out),
    }
    return rows(data.train, data.train_labels), held_out, about


def tune(trained: GPT2, seed: int, vocabulary: CharacterVocabulary) -> dict[str, float]:
    """Accuracy on held-out docstrings of four arms, on the same labelled examples."""
    train, held_out, _ = labelled(vocabulary)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    chosen, V = train[order[: TUNING["examples"]]], len(vocabulary)
    found = {}
    for start in ("scratch", "pre-trained"):
        for weight in (0.0, TUNING["weight"]):
            scratch = new_model("1/√d", V, seed + 100)
            decoder = scratch if start == "scratch" else copy.deepcopy(trained)
            classifier = fine_tune(
                decoder,
                chosen,
                TUNING["labels"],
                weight=weight,
                steps=TUNING["steps"],
                batch=TUNING["batch"],
                learning_rate=TUNING["learning_rate"],
                seed=seed,
                new_tokens=(V, V + 1),
            )
            found[f"{start}, λ = {weight:g}"] = accuracy(classifier, held_out)
    return found


def main(path: Path = RESULTS) -> None:
    """Do every unit that the file at `path` lacks; it is whole after each."""
    torch.set_num_threads(1)
    text = topics_text(seed=0)
    vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
    settings = {**SIZES, **TRAINING, "tuning": TUNING, "seeds": SEEDS, "prompt": PROMPT}
    if found := earlier(path, settings, text_sha256=text.sha256):
        results, spent = found["results"], found["seconds"]
    else:
        spent = 0.0
        results = {
            "text_sha256": text.sha256,
            "vocabulary": len(vocabulary),
            "parameters": sum(
                p.numel() for p in new_model(ARMS[0], len(vocabulary), 0).parameters()
            ),
            "labelled": labelled(vocabulary)[2],
            "pretraining": {},
            "tuning": {},
        }
    began = time.process_time()
    for seed in SEEDS:
        for arm in ARMS:
            runs = results["pretraining"].setdefault(arm, {})
            if str(seed) in runs:
                continue
            model, report = pretrain(arm, seed, text, vocabulary)
            runs[str(seed)] = report
            if arm == "1/√d":
                results["tuning"][str(seed)] = tune(model, seed, vocabulary)
            seconds = spent + time.process_time() - began
            bits = report["bits"][str(TRAINING["steps"])]
            print(f"{seconds:5.0f} s  {arm:6}{seed} {bits:.3f} {results['tuning']}", flush=True)
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
