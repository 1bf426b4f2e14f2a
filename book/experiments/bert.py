"""Does next-sentence prediction help? Small BERTs pre-trained and fine-tuned, several seeds.

    python book/experiments/bert.py

writes book/experiments/bert.json, which chapter 11_bert shows. An arm that is in the file already
is not run again, so an interrupted run goes on. Each seed begins once on short texts; from there
three arms go on with pairs: masked characters alone, or with next-sentence prediction, whose
negatives are texts of other documents or of the same one. The fourth arm, `scratch`, is not
pre-trained. Each of the four is then fine-tuned for three tasks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.models.bert import BERT  # noqa: E402
from lib.teaching import bert_tasks as tasks_of  # noqa: E402
from lib.teaching.pretraining import start_local, tenths  # noqa: E402
from lib.teaching.recorded import earlier, record  # noqa: E402
from lib.training import seed_everything  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/bert.py"
SEEDS = [0, 1, 2]
PARTS = {"80/10/10": (0.8, 0.1, 0.1), "100/0/0": (1.0, 0.0, 0.0)}
SETTINGS = {
    "length": 96,
    "num_labels": 24,
    "d_model": 48,
    "layers": 2,
    "begin_steps": 800,
    "begin_length": 32,
    "pair_steps": 400,
    "fine_tune_steps": {"modules": 150, "names": 300, "dates": 100},
    "nsp_pairs": 2000,
}


def run_seed(found: dict, corpus, tasks: dict, save: Callable[[], None]) -> None:
    """Add to `found` what it lacks, and save after each arm."""
    began, before = time.process_time(), found["seconds"]
    seed = found["seed"]
    config = tasks_of.config_for(corpus, SETTINGS["d_model"], SETTINGS["layers"])
    options = {"steps": SETTINGS["begin_steps"], "length": SETTINGS["begin_length"], "seed": seed}

    def done(what: str) -> None:
        found["seconds"] = round(before + time.process_time() - began, 1)
        print(f"{found['seconds']:6.0f} s  seed {seed}  {what}", flush=True)
        save()

    def begin(name: str) -> BERT:
        model, losses = tasks_of.begin(corpus, config, parts=PARTS[name], **options)
        seen = tasks_of.at_masks_and_elsewhere(model, corpus, length=SETTINGS["begin_length"])
        found["parts"][name] = {"loss": tenths(losses), **seen}
        return model

    first = begin("80/10/10")  # also where a run goes on: it is not in the file
    if "100/0/0" not in found["parts"]:
        begin("100/0/0")
        done(f"{found['parts']}")
    for arm in tasks_of.ARMS:
        if arm in found["arms"]:
            continue
        if arm == "scratch":
            seed_everything(seed)
            model, report = BERT(config), {}
            start_local(model.encoder)
        else:
            model, report = tasks_of.pretrain(
                first, arm, corpus, steps=SETTINGS["pair_steps"], seed=seed
            )
        if arm.startswith("nsp"):
            report["nsp"] = {
                negatives: tasks_of.nsp_accuracy(
                    model, corpus, negatives, count=SETTINGS["nsp_pairs"]
                )
                for negatives in tasks_of.NEGATIVES
            }
        report["scores"] = {
            name: tasks_of.fine_tune(
                model, task, steps=SETTINGS["fine_tune_steps"][name], seed=seed
            )[1]
            for name, task in tasks.items()
        }
        found["arms"][arm] = report
        done(f"{arm} {report}")


def examples(corpus, tasks: dict) -> dict:
    """The first held-out input of each task, as the model reads it."""
    shown = {}
    for name, task in tasks.items():
        ids = [i for i in task.held_out_ids[0].tolist() if i != tasks_of.PAD]
        shown[name] = {"input": corpus.decode(ids), "labels": task.held_out_labels[0].tolist()}
    return shown


def main(path: Path = RESULTS) -> None:
    torch.set_num_threads(1)
    corpus = tasks_of.corpus(SETTINGS["length"], num_labels=SETTINGS["num_labels"])
    tasks = {
        "modules": tasks_of.modules(corpus, num_labels=SETTINGS["num_labels"]),
        "names": tasks_of.names(corpus, num_labels=SETTINGS["num_labels"]),
        "dates": tasks_of.dates(corpus),
    }
    config = tasks_of.config_for(corpus, SETTINGS["d_model"], SETTINGS["layers"])
    settings = {**SETTINGS, "seeds": SEEDS}
    results: dict = {
        "sha256": corpus.sha256,
        "parameters": sum(p.numel() for p in BERT(config).parameters()),
        "characters": len(corpus.characters),
        "documents": [len(corpus.train), len(corpus.held_out)],
        "overlap": {
            negatives: tasks_of.overlap_accuracy(corpus, negatives, count=SETTINGS["nsp_pairs"])
            for negatives in tasks_of.NEGATIVES
        },
        "tasks": {
            name: {
                "train": len(task.ids),
                "held_out": len(task.held_out_ids),
                "baseline": task.baseline,
                "says": task.says,
            }
            for name, task in tasks.items()
        },
        "examples": examples(corpus, tasks),
        "runs": [],
    }
    if old := earlier(path, settings, sha256=corpus.sha256):
        results["runs"] = old["results"]["runs"]

    def save() -> None:
        record(
            path,
            command=COMMAND,
            hardware="2 CPU cores, one thread used",
            seconds=sum(run["seconds"] for run in results["runs"]),
            settings=settings,
            results=results,
        )

    for seed in SEEDS:
        if seed not in [run["seed"] for run in results["runs"]]:
            results["runs"].append({"seed": seed, "parts": {}, "arms": {}, "seconds": 0.0})
        run = next(run for run in results["runs"] if run["seed"] == seed)
        if len(run["arms"]) < len(tasks_of.ARMS):
            run_seed(run, corpus, tasks, save)


if __name__ == "__main__":
    main()
