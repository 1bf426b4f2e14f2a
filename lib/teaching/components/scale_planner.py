"""ScalePlanner: a training step on many GPUs, its bytes and seconds, and what limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets

from lib import scaling
from lib.teaching.components.base import Component, escape, fixed
from lib.teaching.components.cost_calculator import scaled

# What can be set, by group: title, least, most.
GROUPS = {
    "the model": (
        ("layers", 1, 256),
        ("heads", 1, 256),
        ("features of a head", 1, 256),
        ("vocabulary", 2, 300000),
        ("tokens of a sequence", 2, 131072),
        ("sequences in a batch", 1, 65536),
    ),
    "how it is cut": (
        ("GPUs", 1, 65536),
        ("tensor parts", 1, 256),
        ("pipeline stages", 1, 256),
        ("micro-batches", 1, 4096),
        ("ZeRO stage", 0, 3),
        ("layers computed again", 0, 1),
    ),
    "the machines": (
        ("GPUs in a node", 1, 128),
        ("peak, TFLOP/s", 1, 10000),
        ("reached, %", 1, 100),
        ("memory, GB", 1, 1000),
        ("inside a node, GB/s", 1, 10000),
        ("between nodes, GB/s", 1, 10000),
        ("start of a message, µs", 0, 10000),
    ),
}
FIELDS = tuple(field for group in GROUPS.values() for field in group)
H100 = [8, 989, 40, 80, 450, 50, 10]
A100 = [8, 312, 60, 80, 300, 25, 10]
PRESETS = {
    "GPT-2 on 8": [12, 12, 64, 50257, 1024, 512, 8, 1, 1, 4, 0, 0, *H100],
    "7B on 64": [32, 32, 128, 50257, 4096, 1024, 64, 1, 1, 16, 1, 1, *H100],
    "7B on 1,024": [32, 32, 128, 50257, 4096, 1024, 1024, 1, 1, 1, 3, 1, *H100],
    "1T on 3,072 A100": [128, 160, 160, 51200, 2048, 3072, 3072, 8, 64, 512, 0, 1, *A100],
}
MEMORY = ("weights", "gradients", "optimizer", "activations")
SENT = ("tensor", "pipeline", "data")
SECONDS = ("compute", "tensor", "pipeline", "bubble", "exposed")
SAID = {
    "memory": "Memory limits: it does not fit.",
    "compute": "Computation takes longest: more GPUs would help.",
    "tensor": "The all-reduces of cut matrices take longest.",
    "pipeline": "Messages between stages take longest.",
    "bubble": "The idle ends of the pipeline take longest: more micro-batches would help.",
    "exposed": "Gradients and weights on the wires take longest: a larger batch would hide them.",
}

STATIC_STYLE = """<style>
.component .sp-static{border-collapse:collapse;font-size:.9rem;margin:0 0 .75rem}
.component .sp-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem;
overflow-wrap:anywhere}
.component .sp-static :is(th,td){padding:.15rem min(.6rem,1.4vw);text-align:right;font-weight:400;
overflow-wrap:anywhere}
.component .sp-static :is(th,td):first-child{text-align:left}
.component .sp-static tr{border-bottom:1px solid rgb(127 127 127 / .4)}
</style>"""


class ScalePlanner(Component):
    """Lay a GPT-2 of any size onto many GPUs; read bytes, seconds, and what limits the plan.

    The numbers are those of `lib.scaling`, computed in the page by the same closed forms. The
    machines' numbers are the reader's; where they begin is as `lib.scaling.Cluster` says.

    Args:
        presets: for each name nineteen integers, as in ``FIELDS``, as buttons.
        sizes: where to begin; by default the second preset, or the only one.
        label: what the reader sees as the title.
        name: the id in the page; by default made from the content.

    Attributes:
        sizes: what is shown, a list of nineteen integers. Set it, observe it. What is in range and
            still does not divide is shown as such, by one line of `lib.scaling`'s.

    Raises:
        ValueError: one line, with expected and got, if a number is out of its range.
    """

    MODULE = "scale_planner.js"
    STATE = ("sizes",)

    sizes = traitlets.Any()

    def __init__(
        self,
        presets: Mapping[str, Sequence[int]] | None = None,
        *,
        sizes: Sequence[int] | None = None,
        label: str = "A step on many GPUs",
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

    def problem(self, sizes: Sequence[int] | None = None) -> str | None:
        """Return what does not divide, in lib.scaling's line, or None."""
        try:
            scaling.fits(*self._parsed(sizes))
        except ValueError as error:
            return str(error)
        return None

    def readout(self, sizes: Sequence[int] | None = None) -> dict[str, Any]:
        """Return the numbers of `lib.scaling`; ValueError where something does not divide."""
        plan, cluster = self._parsed(sizes)
        return {
            "copies": plan.data,
            "parameters": scaling.parameters_each(plan),
            "memory": scaling.memory_each(plan),
            "sent": scaling.traffic_each(plan),
            "seconds": scaling.step_seconds(plan, cluster),
            "limit": scaling.limit(plan, cluster),
        }

    def shown(self, sizes: Sequence[int] | None = None) -> dict[str, str]:
        """Return the texts that the component shows, by title; "–" if it cannot be cut so."""
        if self.problem(sizes) is not None:
            return dict.fromkeys(TITLES, "–")
        read = self.readout(sizes)
        seconds = read["seconds"]
        return {
            "copies of the model": f"{read['copies']:,}",
            "parameters of a GPU": f"{read['parameters']:,}",
            **{name: scaled(read["memory"][name], 1000, "B") for name in MEMORY},
            "memory of a GPU": scaled(sum(read["memory"].values()), 1000, "B"),
            **{f"sent: {name}": scaled(read["sent"][name], 1000, "B") for name in SENT},
            **{f"time: {name}": timed(seconds[name]) for name in SECONDS},
            "step, traffic beside computation": timed(seconds["overlapped"]),
            "step, traffic after it": timed(seconds["step"]),
            "efficiency": f"{fixed(100 * seconds['efficiency'], 1)} %",
            "share of the peak (MFU)": f"{fixed(100 * seconds['mfu'], 1)} %",
        }

    def summary(self) -> str:
        return f"{self.label}: {self._sentence()}"

    def _sentence(self) -> str:
        problem = self.problem()
        if problem is not None:
            return f"It cannot be cut so. {problem}."
        shown = self.shown()
        return (
            f"A step takes {shown['step, traffic beside computation']}, at "
            f"{shown['efficiency']} efficiency, with {shown['memory of a GPU']} in a GPU. "
            f"{SAID[self.readout()['limit']]}"
        )

    def _parsed(self, sizes: Sequence[int] | None) -> tuple[scaling.Plan, scaling.Cluster]:
        given = self.sizes if sizes is None else _sizes("sizes", sizes)
        *model, stage, again = given[:12]
        node, peak, reached, memory, inside, between, start = given[12:]
        cluster = scaling.Cluster(
            peak * 1e12, reached / 100, memory * 1e9, inside * 1e9, between * 1e9, start / 1e6, node
        )
        return scaling.Plan(*model, stage, bool(again)), cluster

    def _page_data(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "groups": [[title, [list(f) for f in of]] for title, of in GROUPS.items()],
            "titles": list(TITLES),
            "said": SAID,
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
            f'{STATIC_STYLE}<table class="sp-static"><caption>'
            f"<strong>{escape(self.label)}</strong>: {given}.</caption>"
            f"<tbody>{rows}</tbody></table>"
            f"<p>{escape(self._sentence())}</p>"
            "<noscript><p>With JavaScript every number can be changed.</p></noscript>"
        )


TITLES = (
    "copies of the model",
    "parameters of a GPU",
    *MEMORY,
    "memory of a GPU",
    *(f"sent: {name}" for name in SENT),
    *(f"time: {name}" for name in SECONDS),
    "step, traffic beside computation",
    "step, traffic after it",
    "efficiency",
    "share of the peak (MFU)",
)


def timed(seconds: float) -> str:
    """Format a time with three decimals, in seconds, or in milliseconds below one.

    >>> timed(12.5), timed(0.0421)
    ('12.500 s', '42.100 ms')
    """
    return f"{fixed(seconds, 3)} s" if seconds >= 1 else f"{fixed(1000 * seconds, 3)} ms"


def _sizes(what: str, given: Any) -> list[int]:
    fits = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == len(FIELDS)
    if not fits or any(type(x) is not int for x in given):
        raise ValueError(f"{what}: expected {len(FIELDS)} integers, got {given!r}")
    for (title, least, most), number in zip(FIELDS, given, strict=True):
        if not least <= number <= most:
            raise ValueError(f"{what}: expected {title} from {least} to {most}, got {number}")
    return list(given)
