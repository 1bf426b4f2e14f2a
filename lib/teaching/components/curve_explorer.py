"""CurveExplorer: a family of curves, one parameter on a slider, one cursor along x."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.ticker import MaxNLocator

from lib.teaching.components.base import Component, escape, fixed
from lib.teaching.figures import COLORS

# A line's dashes in pixels, as the figures have them: colour never tells two curves apart alone.
DASHES = ("none", "7 4", "9 3 2 3", "4 2", "12 3 2 3 2 3", "2 3")
CYCLE = ("query", "key", "value", "output", "scores", "weights")
STATIC_ROWS = 7

STATIC_STYLE = """<style>
.component .ce-static{border-collapse:collapse;font-size:.85rem;margin:0 0 .75rem}
.component .ce-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem}
.component .ce-static :is(th,td){padding:.15rem min(.5rem,1.4vw);text-align:right;font-weight:400}
.component .ce-static thead th{border-bottom:1px solid;vertical-align:bottom;overflow-wrap:anywhere}
.component .ce-picture{display:block;width:100%;max-width:30rem;height:14rem;border:solid 1px;
border-width:0 0 1px 1px;margin:0 0 .4rem}
.component .ce-picture *{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.component .ce-key{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.85rem;margin:0 0 .75rem}
.component .ce-key svg{width:2.4rem;height:.7rem;vertical-align:middle;stroke-width:2}
</style>"""


class CurveExplorer(Component):
    """Show curves that depend on a parameter, beside fixed ones, and read them at a cursor.

    All numbers are computed before, in Python; the component shows them rounded. The reader moves
    the parameter and the cursor with a slider each, or points into the picture.

    Args:
        x: where the curves are known, n ascending numbers, 2 or more.
        values: m ascending values of the parameter, 2 or more.
        curves: for each name an (m, n) tensor: row i is the curve for the i-th value.
        references: for each name n numbers: a curve that the parameter does not move.
        readouts: for each title m numbers, or m texts: what is to be said of each value as a whole,
            as the largest gap between two curves.
        parameter, x_name, y_name: how the sliders and the axes are called.
        label: what the reader sees as the title.
        colors: a key of ``COLORS`` for some of the curves and references; by default the curves
            take those of the figures in their order, and references are grey.
        digits: how many decimals are shown, 0 to 8.
        limits: the lowest and the highest y in the picture; by default all that is there.
        value, at: where to begin, a member of values and one of x; by default the middle ones.
        name: the id in the page; by default made from the content.

    Attributes:
        value, at: what is shown. Set them, observe them.

    Raises:
        ValueError: one line, with expected and got, if an argument does not fit the others.
    """

    MODULE = "curve_explorer.js"
    STATE = ("value", "at")

    value = traitlets.Any()
    at = traitlets.Any()

    def __init__(
        self,
        x: Any,
        values: Any,
        curves: Mapping[str, Any],
        *,
        references: Mapping[str, Any] | None = None,
        readouts: Mapping[str, Any] | None = None,
        parameter: str = "parameter",
        x_name: str = "x",
        y_name: str = "y",
        label: str = "Curves, one parameter at a time",
        colors: Mapping[str, str] | None = None,
        digits: int = 3,
        limits: tuple[float, float] | None = None,
        value: float | None = None,
        at: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if type(digits) is not int or not 0 <= digits <= 8:
            raise ValueError(f"digits: expected an integer in 0 to 8, got {digits!r}")
        texts = {"parameter": parameter, "x_name": x_name, "y_name": y_name, "label": label}
        for what, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{what}: expected a text, got {text!r}")
        self.parameter, self.x_name, self.y_name, self.label = texts.values()
        self.digits = digits
        self.x = _ascending("x", x)
        self.values = _ascending("values", values)
        m, n = len(self.values), len(self.x)
        self.curves = _checked_curves("curves", curves, (m, n))
        if not self.curves:
            raise ValueError("curves: expected one curve or more, got none")
        self.references = _checked_curves("references", references or {}, (n,))
        both = [name for name in self.references if name in self.curves]
        if both:
            raise ValueError(f"references: expected other names than the curves', got {both[0]!r}")
        lines = [*self.curves, *self.references]
        if len(lines) > len(DASHES):
            raise ValueError(f"curves: expected at most {len(DASHES)} lines, got {len(lines)}")
        self.readouts = _checked_readouts(readouts or {}, m, digits)
        self.colors = _checked_colors(colors or {}, list(self.curves), list(self.references))
        self.limits = self._checked_limits(limits)

        self.value = self.values[m // 2] if value is None else value
        self.at = self.x[n // 2] if at is None else at
        self._ready(self._page_data(), name)

    @traitlets.validate("value")
    def _valid_value(self, proposal: Any) -> float:
        return _member("value", proposal["value"], self.values)

    @traitlets.validate("at")
    def _valid_at(self, proposal: Any) -> float:
        return _member("at", proposal["value"], self.x)

    def readout(self, value: float, at: float) -> dict[str, Any]:
        """Return what the component shows of one value of the parameter at one x.

        ``lines`` holds for every curve and reference its y as given; ``shown`` the same as texts;
        ``readouts`` the texts of this value; ``sentence`` all in words.
        """
        i = self.values.index(_member("value", value, self.values))
        j = self.x.index(_member("at", at, self.x))
        lines = {name: curve[i, j].item() for name, curve in self.curves.items()}
        lines |= {name: curve[j].item() for name, curve in self.references.items()}
        shown = {
            name: fixed(self._rounded(y) / 10**self.digits, self.digits)
            for name, y in lines.items()
        }
        said = {title: texts[i] for title, texts in self.readouts.items()}
        listed = "; ".join(f"{name} {text}" for name, text in (shown | said).items())
        return {
            "lines": lines,
            "shown": shown,
            "readouts": said,
            "sentence": f"{self.parameter} = {short(self.values[i])}, "
            f"{self.x_name} = {short(self.x[j])}: {listed}.",
        }

    def summary(self) -> str:
        return f"{self.label}. {self.readout(self.value, self.at)['sentence']}"

    def _rounded(self, y: float) -> int:
        return math.floor(10**self.digits * y + 0.5)

    def _checked_limits(self, limits: tuple[float, float] | None) -> tuple[float, float]:
        if limits is None:
            every = [*self.curves.values(), *self.references.values()]
            low = min(curve.min().item() for curve in every)
            high = max(curve.max().item() for curve in every)
            margin = 0.04 * (high - low) or 1.0
            limits = (low - margin, high + margin)
        low, high = limits
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"limits: expected two ascending numbers, got {limits!r}")
        steps = (high - low) * 10**self.digits
        if steps < 200:  # the picture is drawn from what is shown, and would be a staircase
            raise ValueError(
                f"digits: expected enough for 200 steps from {low:.4g} to {high:.4g}, "
                f"got {self.digits}"
            )
        return float(low), float(high)

    def _page_data(self) -> dict[str, Any]:
        """Return integers, already rounded to what is shown, and the texts around them."""

        def whole(row: torch.Tensor) -> list[int]:
            return [self._rounded(y) for y in row.tolist()]

        lines = [
            {
                "name": name,
                "color": COLORS[self.colors[name]],
                "dash": dash,
                # one row for each value, or one for all
                "y": [whole(row) for row in (curve if curve.ndim == 2 else curve[None])],
            }
            for (name, curve), dash in zip(
                [*self.curves.items(), *self.references.items()], DASHES, strict=False
            )
        ]
        return {
            "label": self.label,
            "parameter": self.parameter,
            "names": [self.x_name, self.y_name],
            "x": self.x,
            "values": self.values,
            "shown": [[short(v) for v in numbers] for numbers in (self.x, self.values)],
            "digits": self.digits,
            "limits": list(self.limits),
            "ticks": [_ticks(self.x[0], self.x[-1]), _ticks(*self.limits)],
            "lines": lines,
            "readouts": self.readouts,
        }

    def _fallback(self) -> str:
        """Return the picture for this value, and a table of some values at this x."""
        count = len(self.values)
        steps = {round(k * (count - 1) / (STATIC_ROWS - 1)) for k in range(STATIC_ROWS)}
        rows = []
        for i in sorted(steps | {self.values.index(self.value)}):
            read = self.readout(self.values[i], self.at)
            listed = "".join(
                f"<td>{escape(text)}</td>" for text in (read["shown"] | read["readouts"]).values()
            )
            rows.append(f'<tr><th scope="row">{short(self.values[i])}</th>{listed}</tr>')
        titles = [self.parameter, *self.curves, *self.references, *self.readouts]
        head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
        sentence = self.readout(self.value, self.at)["sentence"]
        (x_low, x_high), (low, high) = (self.x[0], self.x[-1]), self.limits
        return (
            f"{STATIC_STYLE}<p><strong>{escape(self.label)}</strong> "
            f"({escape(self.parameter)} = {short(self.value)})</p>"
            f"{self._picture()}"
            f"<p>{escape(self.x_name)} from {short(x_low)} to {short(x_high)}, "
            f"{escape(self.y_name)} from {short(low)} to {short(high)}. {escape(sentence)}</p>"
            f'<table class="ce-static"><caption>At {escape(self.x_name)} = {short(self.at)}, '
            f"and over all:</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
            f"<noscript><p>With JavaScript {escape(self.parameter)} and {escape(self.x_name)} "
            "can be moved.</p></noscript>"
        )

    def _picture(self) -> str:
        i = self.values.index(self.value)
        (low, high), first, width = self.limits, self.x[0], self.x[-1] - self.x[0]
        drawn, key = [], []
        for line in self._page_data()["lines"]:
            row = line["y"][i if len(line["y"]) > 1 else 0]
            points = " ".join(
                f"{1000 * (x - first) / width:.1f},"
                f"{1000 * (high - y / 10**self.digits) / (high - low):.1f}"
                for x, y in zip(self.x, row, strict=True)
            )
            look = f'stroke="{line["color"]}" stroke-dasharray="{line["dash"]}"'
            drawn.append(f'<polyline {look} points="{points}"/>')
            key.append(
                f'<span><svg aria-hidden="true"><path d="M0 6H40" {look}/></svg> '
                f"{escape(line['name'])}</span>"
            )
        return (
            f'<svg class="ce-picture" viewBox="0 0 1000 1000" preserveAspectRatio="none" '
            f'role="img" aria-label="{escape(self.label)}: {escape(", ".join(self.colors))}">'
            f'{"".join(drawn)}</svg><p class="ce-key">{"".join(key)}</p>'
        )


def short(number: float) -> str:
    """Format a place on an axis: four digits at most, and a true minus sign."""
    return f"{number + 0.0:.4g}".replace("-", "−")


def _ticks(low: float, high: float) -> list[list[Any]]:
    places = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    inside = [round(p, 12) + 0.0 for p in places.tolist() if low - slack <= p <= high + slack]
    return [[p, short(p)] for p in inside]


def _numbers(what: str, given: Any, shape: tuple[int, ...] | None) -> torch.Tensor:
    if not isinstance(given, torch.Tensor):
        given = torch.as_tensor(np.asarray(given))  # which keeps a list's numbers in float64
    tensor = given.detach()
    got = tuple(tensor.shape)
    if got != shape if shape else tensor.ndim != 1 or len(tensor) < 2:
        expected = f"shape {shape}" if shape else "a row of 2 numbers or more"
        raise ValueError(f"{what}: expected {expected}, got shape {got}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{what}: expected real numbers, got {tensor.dtype}")
    tensor = tensor.to("cpu", torch.float64)
    if not bool(tensor.isfinite().all()):
        wrong = tensor[~tensor.isfinite()][0].item()
        raise ValueError(f"{what}: expected finite numbers, got {wrong}")
    return tensor


def _ascending(what: str, given: Any) -> list[float]:
    numbers = _numbers(what, given, None).tolist()
    for one, other in pairwise(numbers):
        if one >= other:
            raise ValueError(f"{what}: expected ascending numbers, got {one:g} before {other:g}")
    # A grid that passes 0 at −2e-16 passes it at 0.
    places = 12 - math.ceil(math.log10(numbers[-1] - numbers[0]))
    return [round(number, places) + 0.0 for number in numbers]


def _checked_curves(
    what: str, curves: Mapping[str, Any], shape: tuple[int, ...]
) -> dict[str, torch.Tensor]:
    if not isinstance(curves, Mapping):
        raise ValueError(f"{what}: expected a dict {{name: tensor}}, got {type(curves).__name__}")
    for name in curves:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{what}: expected a curve's name as key, got {name!r}")
    return {name: _numbers(f"{what}[{name!r}]", y, shape) for name, y in curves.items()}


def _checked_readouts(
    readouts: Mapping[str, Sequence[Any]], m: int, digits: int
) -> dict[str, list[str]]:
    if not isinstance(readouts, Mapping):
        got = type(readouts).__name__
        raise ValueError(f"readouts: expected a dict {{title: one a value}}, got {got}")
    checked = {}
    for title, given in readouts.items():
        where = f"readouts[{title!r}]"
        if not isinstance(title, str) or not title.strip():
            raise ValueError(f"readouts: expected a title as key, got {title!r}")
        if isinstance(given, list | tuple) and all(isinstance(text, str) for text in given):
            if len(given) != m:
                raise ValueError(f"{where}: expected {m} texts, got {len(given)}")
            checked[title] = list(given)
        else:
            numbers = _numbers(where, given, (m,)).tolist()
            checked[title] = [fixed(number + 0.0, digits) for number in numbers]
    return checked


def _checked_colors(
    colors: Mapping[str, str], curves: list[str], references: list[str]
) -> dict[str, str]:
    chosen = dict(zip(curves, CYCLE, strict=False)) | dict.fromkeys(references, "reference")
    for name, color in colors.items():
        if name not in chosen:
            raise ValueError(f"colors: expected names from {list(chosen)}, got {name!r}")
        if color not in COLORS:
            raise ValueError(f"colors[{name!r}]: expected one of {list(COLORS)}, got {color!r}")
        chosen[name] = color
    return chosen


def _member(what: str, number: Any, allowed: list[float]) -> float:
    """Return the member of ``allowed`` that is this number, but for rounding."""
    if type(number) in (int, float) and math.isfinite(number):
        nearest = min(allowed, key=lambda member: abs(member - number))
        if abs(nearest - number) <= 1e-9 * (allowed[-1] - allowed[0]):
            return nearest
        raise ValueError(f"{what}: expected one of the given ones, as {nearest:g}, got {number!r}")
    raise ValueError(f"{what}: expected a finite number, got {number!r}")
