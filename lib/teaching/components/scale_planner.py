"""ScalePlanner: a training step on many GPUs, its bytes and seconds, and what limits it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from lib import scaling
from lib.teaching.components.base import fixed
from lib.teaching.components.number_form import Number, NumberForm, scaled

H100 = [8, 989, 40, 80, 450, 50, 10]
A100 = [8, 312, 60, 80, 300, 25, 10]
MEMORY = ("weights", "gradients", "optimizer", "activations")
SENT = ("tensor", "pipeline", "data")
SECONDS = ("compute", "tensor", "pipeline", "bubble", "exposed")
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
SAID = {
    "memory": "Memory limits: it does not fit.",
    "compute": "Computation takes longest: more GPUs would help.",
    "tensor": "The all-reduces of cut matrices take longest.",
    "pipeline": "Messages between stages take longest.",
    "bubble": "The idle ends of the pipeline take longest: more micro-batches would help.",
    "exposed": "Gradients and weights on the wires take longest: a larger batch would hide them.",
}


class ScalePlanner(NumberForm):
    """Lay a GPT-2 of any size onto many GPUs; read bytes, seconds, and what limits the plan.

    The numbers are those of `lib.scaling`, computed in the page by the same closed forms. The
    machines' numbers are the reader's; where they begin is as `lib.scaling.Cluster` says. What is
    in range and still does not divide is shown as such, by one line of `lib.scaling`'s. Arguments,
    attributes and errors are those of `NumberForm`.
    """

    MODULE = "scale_planner.js"
    LABEL = "A step on many GPUs"
    GROUPS: ClassVar = {
        "the model": (
            Number("layers", 1, 256),
            Number("heads", 1, 256),
            Number("features of a head", 1, 256),
            Number("vocabulary", 2, 300000),
            Number("tokens of a sequence", 2, 131072),
            Number("sequences in a batch", 1, 65536),
        ),
        "how it is cut": (
            Number("GPUs", 1, 65536),
            Number("tensor parts", 1, 256),
            Number("pipeline stages", 1, 256),
            Number("micro-batches", 1, 4096),
            Number("ZeRO stage", 0, 3),
            Number("layers computed again", 0, 1),
        ),
        "the machines": (
            Number("GPUs in a node", 1, 128),
            Number("peak, TFLOP/s", 1, 10000),
            Number("reached, %", 1, 100),
            Number("memory, GB", 1, 1000),
            Number("inside a node, GB/s", 1, 10000),
            Number("between nodes, GB/s", 1, 10000),
            Number("start of a message, µs", 0, 10000),
        ),
    }
    PRESETS: ClassVar = {
        "GPT-2 on 8": [12, 12, 64, 50257, 1024, 512, 8, 1, 1, 4, 0, 0, *H100],
        "7B on 64": [32, 32, 128, 50257, 4096, 1024, 64, 1, 1, 16, 1, 1, *H100],
        "7B on 1,024": [32, 32, 128, 50257, 4096, 1024, 1024, 1, 1, 1, 3, 1, *H100],
        "1T on 3,072 A100": [128, 160, 160, 51200, 2048, 3072, 3072, 8, 64, 512, 0, 1, *A100],
    }

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
        given = self._now(sizes)
        *model, stage, again = given[:12]
        node, peak, reached, memory, inside, between, start = given[12:]
        cluster = scaling.Cluster(
            peak * 1e12, reached / 100, memory * 1e9, inside * 1e9, between * 1e9, start / 1e6, node
        )
        return scaling.Plan(*model, stage, bool(again)), cluster

    def _page_data(self) -> dict[str, Any]:
        return {**super()._page_data(), "said": SAID}


def timed(seconds: float) -> str:
    """Format a time with three decimals, in seconds, or in milliseconds below one.

    >>> timed(12.5), timed(0.0421)
    ('12.500 s', '42.100 ms')
    """
    return f"{fixed(seconds, 3)} s" if seconds >= 1 else f"{fixed(1000 * seconds, 3)} ms"
