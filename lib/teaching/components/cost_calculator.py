"""CostCalculator: what a GPT of given sizes costs, in parameters, operations and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import traitlets

from lib import cost
from lib.models.gpt2 import GPT2Config
from lib.teaching.components.base import Component, escape, fixed

# What can be set: title, least, most. The width of the model is heads · features of a head.
FIELDS = (
    ("layers", 1, 128),
    ("heads", 1, 128),
    ("features of a head", 1, 256),
    ("tokens", 2, 131072),
    ("batch", 1, 1024),
    ("vocabulary", 2, 300000),
    ("bytes of a number", 2, 4),
)
DTYPES = {4: torch.float32, 2: torch.bfloat16}
PLACES = 1024  # rows of the table of positions, or as many as there are tokens
PRESETS = {
    "the book's GPT": [4, 4, 32, 128, 16, 67, 4],
    "GPT-2": [12, 12, 64, 1024, 8, 50257, 4],
    "GPT-2 medium": [24, 16, 64, 1024, 8, 50257, 4],
    "GPT-2 large": [36, 20, 64, 1024, 8, 50257, 4],
    "GPT-2 XL": [48, 25, 64, 1024, 8, 50257, 4],
}
PARTS = ("weights", "gradients", "moments", "activations", "logits")

STATIC_STYLE = """<style>
.component .cc-static{border-collapse:collapse;font-size:.9rem;margin:0 0 .75rem}
.component .cc-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem;
overflow-wrap:anywhere}
.component .cc-static :is(th,td){padding:.15rem min(.6rem,1.4vw);text-align:right;font-weight:400;
overflow-wrap:anywhere}
.component .cc-static :is(th,td):first-child{text-align:left}
.component .cc-static tr{border-bottom:1px solid rgb(127 127 127 / .4)}
</style>"""


class CostCalculator(Component):
    """Count a GPT-2 of any size: its parameters, the operations and the bytes of a training step.

    Without dropout, with torch's fused attention; the numbers are those of `lib.cost`, computed in
    the page by the same closed forms.

    Args:
        presets: for each name seven integers, as in ``FIELDS``, as buttons.
        sizes: where to begin; by default the second preset, or the only one.
        label: what the reader sees as the title.
        name: the id in the page; by default made from the content.

    Attributes:
        sizes: what is shown, a list of seven integers. Set it, observe it.

    Raises:
        ValueError: one line, with expected and got, if a number is out of its range.
    """

    MODULE = "cost_calculator.js"
    STATE = ("sizes",)

    sizes = traitlets.Any()

    def __init__(
        self,
        presets: Mapping[str, Sequence[int]] | None = None,
        *,
        sizes: Sequence[int] | None = None,
        label: str = "What a GPT costs",
        name: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        given = PRESETS if presets is None else presets
        if not given:
            raise ValueError("presets: expected one or more, got none")
        self.label = label
        self.presets = {what: _sizes(f"presets[{what!r}]", of) for what, of in given.items()}
        self.sizes = list(self.presets.values())[:2][-1] if sizes is None else sizes
        self._ready(self._page_data(), name)

    @traitlets.validate("sizes")
    def _valid_sizes(self, proposal: Any) -> list[int]:
        return _sizes("sizes", proposal["value"])

    def readout(self, sizes: Sequence[int] | None = None) -> dict[str, int]:
        """Return the exact counts, by `lib.cost`: of the model, of a step, and of its peak."""
        layers, heads, d_head, n, batch, vocab, size = (
            self.sizes if sizes is None else _sizes("sizes", sizes)
        )
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
        """Return the texts that the component shows, by title."""
        read = self.readout(sizes)
        return {
            "parameters": f"{read['parameters']:,}",
            "operations, forward": scaled(read["forward"], 1000, "FLOP"),
            "operations, training step": scaled(read["step"], 1000, "FLOP"),
            "cache of keys and values": scaled(read["cache"], 1024, "B"),
            **{part: scaled(read[part], 1024, "B") for part in PARTS},
            "peak of a training step": scaled(read["peak"], 1024, "B"),
        }

    def summary(self) -> str:
        return f"{self.label}: {self._sentence()}"

    def _sentence(self) -> str:
        shown = self.shown()
        return (
            f"{shown['parameters']} parameters; a training step takes "
            f"{shown['operations, training step']} and "
            f"{shown['peak of a training step']} of memory."
        )

    def _page_data(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "fields": [list(field) for field in FIELDS],
            "places": PLACES,
            "parts": list(PARTS),
            "presets": [[what, of] for what, of in self.presets.items()],
        }

    def _fallback(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{title}</th><td>{text}</td></tr>'
            for title, text in self.shown().items()
        )
        given = ", ".join(
            f"{title} {number:,}" for (title, *_), number in zip(FIELDS, self.sizes, strict=True)
        )
        return (
            f'{STATIC_STYLE}<table class="cc-static"><caption>'
            f"<strong>{escape(self.label)}</strong>: {given}.</caption>"
            f"<tbody>{rows}</tbody></table>"
            f"<p>{escape(self._sentence())}</p>"
            "<noscript><p>With JavaScript every size can be changed.</p></noscript>"
        )


def scaled(number: int, step: int, unit: str) -> str:
    """Format a count with two decimals and the prefix that leaves it below 1,000 or 1,024.

    >>> scaled(123_456, 1000, "FLOP"), scaled(2**31, 1024, "B")
    ('123.46 kFLOP', '2.00 GiB')
    """
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    power = 0
    value = float(number)
    while value >= step and power < len(prefixes) - 1:
        value, power = value / step, power + 1
    prefix = prefixes[power]
    if step == 1024 and prefix:
        prefix = f"{prefix.upper()}i"
    return f"{fixed(value, 2)} {prefix}{unit}"


def _sizes(what: str, given: Any) -> list[int]:
    fits = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == len(FIELDS)
    if not fits or any(type(x) is not int for x in given):
        raise ValueError(f"{what}: expected {len(FIELDS)} integers, got {given!r}")
    for (title, least, most), number in zip(FIELDS, given, strict=True):
        if not least <= number <= most:
            raise ValueError(f"{what}: expected {title} from {least} to {most}, got {number}")
    if given[-1] not in DTYPES:
        raise ValueError(f"{what}: expected bytes of a number 2 or 4, got {given[-1]}")
    return list(given)
