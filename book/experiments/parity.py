"""Hold every family to its official implementation, and write down how far apart they are.

    python book/experiments/parity.py

writes parity.json beside this file, which the model cards show. Each family's reference is a tiny,
odd-sized model of `transformers` with all parameters drawn afresh; our class loads the checkpoint
that it writes, and both read the same padded batches. An error is the largest difference of any
logit, relative to the largest logit. About a minute on one thread.

Some references compute one operation in float32, whatever the precision of the rest. There the
comparison in float64 is made twice: with the reference as it is, and with that operation, named
below, in float64 too.

The models, batches and the harness are those of the tests of each family in tests/models.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from transformers.models.t5 import modeling_t5  # noqa: E402

from lib.teaching.recorded import record  # noqa: E402
from tests.models import (  # noqa: E402
    parity,
    test_bert,
    test_distilbert,
    test_electra,
    test_gpt2,
    test_longformer,
    test_t5,
    test_transformer,
    test_vit,
)

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/parity.py"
SEEDS = [0, 1, 2, 3, 4]  # of the batches
LOGITS = ("logits",)


def _t5_norm_as_its_input(self, x):
    variance = x.pow(2).mean(-1, keepdim=True)
    return self.weight * (x * torch.rsqrt(variance + self.variance_epsilon))


def _t5_mended() -> AbstractContextManager:
    return patch.object(modeling_t5.T5LayerNorm, "forward", _t5_norm_as_its_input)


def _longformer_mended() -> AbstractContextManager:
    softmax = F.softmax
    return patch.object(F, "softmax", lambda x, dim, dtype=None: softmax(x, dim))


@dataclass(frozen=True)
class Case:
    """One official class, and how it is made, fed and, where needed, mended."""

    family: str
    load: Callable  # (folder, dtype) to ours and the reference
    batch: Callable  # (seed, dtype) to what both are fed
    outputs: tuple[str, ...] = LOGITS
    operation: str | None = None  # that the reference computes in float32 always
    mended: Callable[[], AbstractContextManager] = nullcontext
    load_mended: Callable | None = None  # where another reference has to be made


def _pixels(seed, dtype):
    return {"pixel_values": test_vit.pixels(dtype, seed)}


def _padded(module, **options):
    return lambda seed, dtype: parity.batch(module.V, seed=seed, **options)


CASES = [
    Case(
        "transformer",
        lambda folder, dtype: test_transformer.load(folder, dtype, exact=False),
        lambda seed, dtype: test_transformer.batch(seed),
        operation="the table of sines and cosines, which is stored in float32",
        load_mended=lambda folder, dtype: test_transformer.load(folder, dtype, exact=True),
    ),
    Case("gpt2", test_gpt2.load, lambda seed, dtype: test_gpt2.batch(seed=seed)),
    Case("bert", test_bert.load, _padded(test_bert), test_bert.OUTPUTS),
    Case(
        "electra",
        lambda folder, dtype: test_electra.load(test_electra.Discriminator, folder, dtype),
        _padded(test_electra),
    ),
    Case(
        "electra",
        lambda folder, dtype: test_electra.load(test_electra.Generator, folder, dtype),
        _padded(test_electra),
    ),
    Case("distilbert", test_distilbert.load, _padded(test_distilbert, segments=False)),
    *(
        Case(
            "t5",
            lambda folder, dtype, version=version: test_t5.load(folder, dtype, **version),
            lambda seed, dtype: test_t5.batch(seed),
            operation="the mean square in T5LayerNorm",
            mended=_t5_mended,
        )
        for version in (test_t5.V10, test_t5.V11)
    ),
    Case(
        "longformer",
        test_longformer.load,
        lambda seed, dtype: test_longformer.batch(seed=seed),
        operation="the softmax over a window, and over all tokens for a global one",
        mended=_longformer_mended,
    ),
    Case("vit", test_vit.load, _pixels),
]


def error(case: Case, dtype: torch.dtype, *, mended: bool = False) -> tuple[str, float]:
    """The reference's class, and the largest relative error over all batches."""
    load = case.load_mended if mended and case.load_mended else case.load
    with tempfile.TemporaryDirectory() as folder, case.mended() if mended else nullcontext():
        ours, reference = load(Path(folder), dtype)
        worst = 0.0
        for seed in SEEDS:
            found = parity.measure(ours, reference, case.batch(seed, dtype), case.outputs)
            worst = max(worst, found.worst)
    return type(reference).__name__, worst


def main(path: Path = RESULTS) -> None:
    torch.set_num_threads(1)
    began = time.perf_counter()
    families: dict[str, list[dict]] = {}
    for case in CASES:
        name, single = error(case, torch.float32)
        row = {"reference": name, "float32": single}
        row["float64"] = error(case, torch.float64)[1]
        if case.operation:
            row["operation"] = case.operation
            row["float64, mended"] = error(case, torch.float64, mended=True)[1]
        families.setdefault(case.family, []).append(row)
        print(case.family, row)
    families["t5"][0]["reference"] += ", v1.0"
    families["t5"][1]["reference"] += ", v1.1"
    record(
        path,
        command=COMMAND,
        hardware="2 CPU cores, one thread used",
        seconds=time.perf_counter() - began,
        settings={"seeds": SEEDS, "transformers": parity.transformers().__version__},
        results={"families": families},
    )


if __name__ == "__main__":
    main()
