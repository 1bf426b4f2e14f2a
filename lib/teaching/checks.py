"""``check``: every numbered equation of the book is executed, and its error is shown.

``compare`` is the comparison itself; the exercises use it too. Both work in fp64 on the CPU,
whatever the dtype or the device of what they are given.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lib.teaching.outputs import publish

_MISSING = object()


@dataclass(frozen=True)
class Comparison:
    """The largest error between two equal shapes, and where it is (``index`` is () for numbers)."""

    error: float
    index: tuple[int, ...]
    got: float
    want: float


def check(label: str, got: Any, want: Any = _MISSING, *, atol: float = 1e-12) -> None:
    """Assert that an equation or a claim holds, and show one quiet line that says so.

    ``check("eq-attention-scale", got, want)`` compares numbers, arrays, tensors, or lists and
    tuples of them: equal shapes (no broadcasting, but ``want`` may be one Python number), and
    every \\|got − want\\| at most ``atol``. NaN fails, on either side; inf equals inf.
    ``check("every row is causal", condition)`` takes one truth value.
    A label that begins with ``eq-`` names a numbered equation; any other is a claim in words.

    Raises AssertionError in one line if it does not hold, and TypeError or ValueError if it could
    not be tested at all: nothing to compare, a condition that is not a truth value.
    """
    if not isinstance(label, str) or not label.strip() or "\n" in label:
        raise ValueError(f"check: expected a label in one line, got {label!r}")
    if not (isinstance(atol, int | float) and math.isfinite(atol) and atol >= 0):
        raise ValueError(f"check {label}: expected a finite atol >= 0, got {atol!r}")
    if want is _MISSING:
        if not truth(got, f"check {label}"):
            raise AssertionError(f"{label} fails")
        _show(label)
        return
    try:
        worst = compare(got, want)
    except ShapeMismatch as mismatch:
        raise AssertionError(f"{label} fails: {mismatch}") from None
    if not worst.error <= atol:  # written so that NaN fails
        got_text, want_text = distinct(worst.got, worst.want)
        place = f" at index {worst.index}" if worst.index else ""
        raise AssertionError(
            f"{label} fails: max error {short(worst.error)}{place}, allowed {bound(atol)}; "
            f"got {got_text}, want {want_text}"
        )
    _show(label, worst.error, atol)


class ShapeMismatch(ValueError):
    """Two things cannot be compared entry by entry: their shapes or their lengths differ."""


def compare(got: Any, want: Any) -> Comparison:
    """Return the largest error between ``got`` and ``want``; a NaN counts as the largest.

    Raises ShapeMismatch where the shapes differ (``want`` may be one Python number), TypeError
    for what holds no real numbers, ValueError where there is nothing to compare.
    """
    number = type(want) in (bool, int, float)  # a numpy scalar has a shape, (), that must match
    return _compare(_numbers(got), _numbers(want), spread=number)


def _compare(got: np.ndarray | list, want: np.ndarray | list, *, spread: bool) -> Comparison:
    if isinstance(got, list):
        if not spread and not (isinstance(want, list) and len(want) == len(got)):
            raise ShapeMismatch(f"got {_describe(got)}, want {_describe(want)}")
        parts = []
        for position, part in enumerate(got):
            inner = _compare(part, want if spread else want[position], spread=spread)
            index = (position, *inner.index)
            parts.append(Comparison(inner.error, index, inner.got, inner.want))
        # NaN is larger than every number here, and max() alone would lose it
        return max(parts, key=lambda part: (math.isnan(part.error), part.error))
    if isinstance(want, list) or (got.shape != want.shape and not spread):
        raise ShapeMismatch(f"got {_describe(got)}, want {_describe(want)}")
    if got.size == 0:
        raise ValueError(f"nothing to compare: shape {got.shape} holds no number")
    want = np.broadcast_to(want, got.shape)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is settled by the equality
        error = np.where(got == want, 0.0, np.abs(got - want))
    flat = int(np.argmax(error))  # numpy's argmax stops at the first NaN, as it must here
    index = tuple(int(i) for i in np.unravel_index(flat, error.shape))
    return Comparison(float(error[index]), index, float(got[index]), float(want[index]))


def _numbers(value: Any) -> np.ndarray | list:
    """Return fp64 numbers: an array, or a list of such where the shapes of the parts differ."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("nothing to compare: an empty list")
        parts = [_numbers(part) for part in value]
        if any(isinstance(part, list) for part in parts) or len({p.shape for p in parts}) > 1:
            return parts
        return np.stack(parts)
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            raise TypeError(f"expected real numbers, got {value.dtype}")
        return value.detach().cpu().double().resolve_neg().numpy()
    if isinstance(value, np.ndarray | np.generic | bool | int | float):
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return array.astype(np.float64)
        raise TypeError(f"expected real numbers, got an array of {array.dtype}")
    raise TypeError(f"expected real numbers, got {type(value).__name__}")


def truth(condition: Any, what: str) -> bool:
    """Return a condition as a bool; TypeError for anything that is not one truth value."""
    if isinstance(condition, bool | np.bool_):
        return bool(condition)
    if isinstance(condition, torch.Tensor | np.ndarray):
        if condition.dtype in (torch.bool, np.bool_) and condition.ndim == 0:
            return bool(condition)
        kind = f"{type(condition).__name__} of {condition.dtype}, shape {tuple(condition.shape)}"
    else:
        kind = type(condition).__name__
    raise TypeError(f"{what}: expected one truth value, or a value to compare with; got {kind}")


def short(number: float) -> str:
    """Return two significant digits as the book prints them: 2.2e-16, 3.1e-02, 0, 1.5, inf."""
    if number == 0 or number >= 1 or not math.isfinite(number):
        return f"{number:.2g}"
    return f"{number:.1e}"


def bound(number: float) -> str:
    """Return a tolerance, which is chosen and not measured, without needless digits: 1e-12."""
    return short(number).replace(".0e", "e")


def distinct(first: float, second: float) -> tuple[str, str]:
    """Return two numbers with as many digits, six or more, as it takes to tell them apart."""
    for digits in range(6, 18):
        texts = f"{first:.{digits}g}", f"{second:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def _describe(value: np.ndarray | list) -> str:
    if isinstance(value, list):
        return f"{len(value)} parts of unlike shapes"
    return f"shape {value.shape}"


def _show(label: str, error: float | None = None, allowed: float | None = None) -> None:
    name = html.escape(label)
    equation = label.startswith("eq-")
    data, result = "", ""
    if error is not None and allowed is not None:
        measured = "exact" if error == 0 else f"max error {short(error)}"
        result = f"{measured} (allowed {bound(allowed)})"
        data = f' data-error="{short(error)}" data-allowed="{bound(allowed)}"'
    verdict = " holds" if equation else ""
    if result:
        verdict += f": {result}"
    publish(
        {
            "text/plain": f"✓ {label}{verdict}",
            "text/html": f'<p class="check" data-label="{name}"{data}>'
            f'✓ <span class="check-label">{name}</span>{verdict}</p>',
        }
    )
