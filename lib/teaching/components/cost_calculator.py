"""CostCalculator: what a GPT of given sizes costs, in parameters, operations and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from lib import cost
from lib.models.gpt2 import GPT2Config
from lib.teaching.components.number_form import Choice, Number, NumberForm, scaled

DTYPES = {4: torch.float32, 2: torch.bfloat16}
PLACES = 1024  # rows of the table of positions, or as many as there are tokens
PARTS = ("weights", "gradients", "moments", "activations", "logits")


class CostCalculator(NumberForm):
    """Count a GPT-2 of any size: its parameters, the operations and the bytes of a training step.

    Without dropout, with torch's fused attention; the numbers are those of `lib.cost`, computed in
    the page by the same closed forms. The width of the model is heads · features of a head.
    Arguments, attributes and errors are those of `NumberForm`.
    """

    MODULE = "cost_calculator.js"
    LABEL = "What a GPT costs"
    GROUPS: ClassVar = {
        "": (
            Number("layers", 1, 128),
            Number("heads", 1, 128),
            Number("features of a head", 1, 256),
            Number("tokens", 2, 131072),
            Number("batch", 1, 1024),
            Number("vocabulary", 2, 300000),
            Choice("bytes of a number", ((4, "4: float32"), (2, "2: bfloat16"))),
        )
    }
    PRESETS: ClassVar = {
        "the book's GPT": [4, 4, 32, 128, 16, 67, 4],
        "GPT-2": [12, 12, 64, 1024, 8, 50257, 4],
        "GPT-2 medium": [24, 16, 64, 1024, 8, 50257, 4],
        "GPT-2 large": [36, 20, 64, 1024, 8, 50257, 4],
        "GPT-2 XL": [48, 25, 64, 1024, 8, 50257, 4],
    }

    def readout(self, sizes: Sequence[int] | None = None) -> dict[str, int]:
        """Return the exact counts, by `lib.cost`: of the model, of a step, and of its peak."""
        layers, heads, d_head, n, batch, vocab, size = self._now(sizes)
        config = GPT2Config(
            vocab,
            heads * d_head,
            layers,
            heads,
            max_length=max(PLACES, n),
            embedding_dropout=0.0,
            dropout=0.0,
            attention_dropout=0.0,
        )
        dtype = DTYPES[size]
        memory = cost.step_bytes(config, batch, n, dtype=dtype)
        return {
            "parameters": cost.parameters(config),
            "forward": cost.flops(config, batch, n, dtype=dtype),
            "step": cost.flops(config, batch, n, dtype=dtype, backward=True),
            "cache": cost.kv_cache_bytes(config, batch, n, dtype=dtype),
            **memory,
            "peak": sum(memory.values()),
        }

    def shown(self, sizes: Sequence[int] | None = None) -> dict[str, str]:
        read = self.readout(sizes)
        return {
            "parameters": f"{read['parameters']:,}",
            "operations, forward": scaled(read["forward"], 1000, "FLOP"),
            "operations, training step": scaled(read["step"], 1000, "FLOP"),
            "cache of keys and values": scaled(read["cache"], 1024, "B"),
            **{part: scaled(read[part], 1024, "B") for part in PARTS},
            "peak of a training step": scaled(read["peak"], 1024, "B"),
        }

    def _sentence(self) -> str:
        shown = self.shown()
        return (
            f"{shown['parameters']} parameters; a training step takes "
            f"{shown['operations, training step']} and "
            f"{shown['peak of a training step']} of memory."
        )

    def _page_data(self) -> dict[str, Any]:
        return {**super()._page_data(), "places": PLACES}
