"""Distil a small Transformer on real text, and write down what each arm reached.

    python book/experiments/distillation.py

writes distillation.json beside this file, which chapter 14_distillation reads. It takes about
half an hour on one thread. The teacher is a causal language model of characters; a student
has every other one of its layers. All students see the same batches in the same order for one seed.

The file is written anew after every run, at once or not at all, so it may be stopped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.data import (  # noqa: E402
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.layers import EncoderLayer, LayerNorm, initialise  # noqa: E402
from lib.losses import distilbert_loss, masked_lm_loss  # noqa: E402
from lib.teaching.recorded import record  # noqa: E402
from lib.teaching.sequences import count  # noqa: E402
from lib.training import evaluate, fit  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/distillation.py"
SIZES = {"length": 64, "batch": 16, "d_model": 96, "num_heads": 4, "teacher_layers": 6}
TRAINING = {"teacher_steps": 2500, "student_steps": 500, "learning_rate": 3e-3, "temperature": 2.0}
SEEDS = [0, 1, 2]
TRIPLE = (5.0, 2.0, 1.0)  # α_ce, α_mlm, α_cos of DistilBERT's published command

# name: starts from the teacher's layers?, weights of the triple (None: the text alone), steps × …
ARMS: dict[str, tuple[bool, tuple[float, float, float] | None, float]] = {
    "alone": (False, None, 1.0),
    "distilled": (False, TRIPLE, 1.0),
    "layers": (True, None, 1.0),
    "both": (True, TRIPLE, 1.0),
    "alone, longer": (False, None, 2.0),
    "both without ce": (True, (0.0, 2.0, 1.0), 1.0),
    "both without mlm": (True, (5.0, 0.0, 1.0), 1.0),
    "both without cos": (True, (5.0, 2.0, 0.0), 1.0),
}


class CausalLM(nn.Module):
    """A pre-norm Transformer that predicts the next character."""

    def __init__(self, vocab_size: int, num_layers: int) -> None:
        super().__init__()
        d = SIZES["d_model"]
        self.word = nn.Embedding(vocab_size, d)
        self.place = nn.Embedding(SIZES["length"], d)
        self.layers = nn.ModuleList(
            EncoderLayer(d, SIZES["num_heads"], 4 * d, norm="pre") for _ in range(num_layers)
        )
        self.norm = LayerNorm(d)
        self.read = nn.Linear(d, vocab_size, bias=False)
        initialise(self, 0.02)

    def hidden(self, ids: Tensor) -> Tensor:
        """(B, n) ids to the last hidden vectors (B, n, d_model)."""
        x = self.word(ids) + self.place.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, causal=True)
        return self.norm(x)

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self.hidden(ids))


def from_teacher(teacher: CausalLM, vocab_size: int) -> CausalLM:
    """A student with the teacher's embeddings, last norm and head, and its layers 0, 2, 4, …"""
    chosen = teacher.layers[::2]
    student = CausalLM(vocab_size, len(chosen))
    for name in ("word", "place", "norm", "read"):
        getattr(student, name).load_state_dict(getattr(teacher, name).state_dict())
    for ours, theirs in zip(student.layers, chosen, strict=True):
        ours.load_state_dict(theirs.state_dict())
    return student


def main(path: Path = RESULTS) -> None:
    """Train the teacher, then every student; the file at `path` is whole after each of them."""
    torch.set_num_threads(1)
    text = topics_text(seed=0)
    vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
    train, held_out = vocabulary.encode(text.train), vocabulary.encode(text.validation)
    validation = consecutive_windows(held_out, SIZES["length"])
    V = len(vocabulary)

    def batches(seed: int):
        generator = torch.Generator().manual_seed(seed)
        return lambda: random_windows(train, SIZES["batch"], SIZES["length"], generator)

    began = time.perf_counter()
    torch.manual_seed(0)
    teacher, draw = CausalLM(V, SIZES["teacher_layers"]), batches(1000)

    def teacher_loss(step: int) -> Tensor:
        inputs, targets = draw()
        return masked_lm_loss(teacher(inputs), targets)

    rate = TRAINING["learning_rate"]
    fit(teacher, teacher_loss, steps=TRAINING["teacher_steps"], learning_rate=rate)
    teacher.eval()
    settings = {**SIZES, **TRAINING, "weights": list(TRIPLE), "seeds": SEEDS}
    results = {
        "text_sha256": text.sha256,
        "vocabulary": V,
        "training_characters": len(train),
        "teacher_parameters": count(teacher),
        "student_parameters": count(from_teacher(teacher, V)),
        "teacher": evaluate(teacher, *validation),
        "untrained_layers": evaluate(from_teacher(teacher, V), *validation),
        "arms": {},
    }

    def student_run(name: str, seed: int) -> float:
        started, weights, factor = ARMS[name]
        torch.manual_seed(seed)
        student = from_teacher(teacher, V) if started else CausalLM(V, len(teacher.layers[::2]))
        draw = batches(seed)

        def student_loss(step: int) -> Tensor:
            inputs, targets = draw()
            hidden = student.hidden(inputs)
            logits = student.read(hidden)
            if weights is None:
                return masked_lm_loss(logits, targets)
            with torch.no_grad():
                taught = teacher.hidden(inputs)
                wanted = teacher.read(taught)
            return distilbert_loss(
                logits,
                wanted,
                hidden,
                taught,
                targets,  # of a causal model every token has a label
                temperature=TRAINING["temperature"],
                weights=weights,
            )

        steps = round(factor * TRAINING["student_steps"])
        fit(student, student_loss, steps=steps, learning_rate=rate)
        return evaluate(student, *validation)

    for name in ARMS:
        for seed in SEEDS:
            results["arms"].setdefault(name, []).append(student_run(name, seed))
            seconds = time.perf_counter() - began
            print(f"{seconds:5.0f} s  {name:18}{results['arms'][name][-1]:.4f}", flush=True)
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
