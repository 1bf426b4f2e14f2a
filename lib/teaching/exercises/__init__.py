"""Checkers for the exercises: they name the property that is broken, not just "wrong".

The checkers of a chapter live in ``lib/teaching/exercises/<chapter>.py`` and read like a list:
each ``yield`` announces a property, and the lines below it test that property.

    @checker("ex-attention-softmax")
    def softmax(answer):
        scores = torch.tensor([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]], dtype=torch.float64)

        yield "keeps the shape"
        weights = answer(scores.clone())
        expect_shape(weights, (2, 3), "the result")

        yield "rows sum to one"
        expect_close(weights.sum(-1), 1.0, "the sum of each row")

        yield "agrees with torch.softmax"
        expect_close(weights, torch.softmax(scores, -1), "softmax of a row")

``diagnose(label, answer)`` runs it: None if every property holds; else one line that begins with
the property announced last, as in ``rows sum to one: the sum of each row: got 1.3 at index (1,),
want 1``. Whatever the answer raises is a diagnosis too. ``grade`` shows the verdict in a cell.
"""

from __future__ import annotations

import functools
import html
import importlib
import inspect
import pkgutil
import random
import re
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lib.teaching.checks import ShapeMismatch, compare, distinct, truth
from lib.teaching.outputs import publish

Checker = Callable[[Any], Iterator[str]]
_LABEL = re.compile(r"ex-([a-z0-9_]+)-[a-z0-9-]+")
_NONE = "returns None, expected a result: is there a `return`?"

# What an answer may raise, short of what stops the session. ArithmeticError holds
# ZeroDivisionError and OverflowError, LookupError IndexError and KeyError, RuntimeError torch's.
ANSWER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Wrong(Exception):
    """What an answer gets wrong, in one line that names what was got and what was expected."""


@dataclass(frozen=True)
class _Entry:
    check: Checker
    may_return_none: bool


_registry: dict[str, _Entry] = {}


def checker(label: str, *, may_return_none: bool = False) -> Callable[[Checker], Checker]:
    """Register the checker of an exercise, a generator that announces each property by ``yield``.

    An answer that is a function and returns None gets a diagnosis of its own, unless
    ``may_return_none`` says that it changes something in place.
    """
    if not _LABEL.fullmatch(label):
        raise ValueError(f"checker: expected a label like ex-attention-scale, got {label!r}")

    def register(check: Checker) -> Checker:
        if not inspect.isgeneratorfunction(check):
            raise TypeError(f"checker {label}: expected `yield` before each property, found none")
        held = _registry.get(label)
        # the same function again is a reload of its module, not a second exercise
        if held and _origin(held.check) != _origin(check):
            raise ValueError(f"checker {label}: registered twice")
        _registry[label] = _Entry(check, may_return_none)
        return check

    return register


def _origin(check: Checker) -> tuple[str, str]:
    return check.__module__, check.__qualname__


def labels() -> list[str]:
    """Return the labels of every exercise that has a checker, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(_registry)


def _find(label: str) -> _Entry:
    match = _LABEL.fullmatch(label)
    if match:
        module = f"{__name__}.{match.group(1)}"
        if match.group(1) in {found.name for found in pkgutil.iter_modules(__path__)}:
            importlib.import_module(module)
        if label in _registry:
            return _registry[label]
    known = ", ".join(labels()) or "none"
    raise ValueError(f"no checker for the exercise {label!r}; known: {known}")


def diagnose(label: str, answer: Any) -> str | None:
    """Return None if the answer has every property its exercise asks for, else what is broken."""
    return _examine(label, answer)[0]


def _examine(label: str, answer: Any) -> tuple[str | None, list[str]]:
    """Return the diagnosis and the properties announced, the broken one last."""
    entry = _find(label)
    if inspect.isfunction(answer) and not entry.may_return_none:
        answer = _returning(answer)
    properties: list[str] = []
    random_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):  # grading leaves the chapter's random numbers alone
        random.seed(0)
        np.random.seed(0)
        torch.random.default_generator.manual_seed(0)
        try:
            for announced in entry.check(answer):
                properties.append(announced)
        except NotImplementedError:
            name = getattr(answer, "__name__", "the answer")
            return f"not attempted yet: write {name}, then run this cell again", properties
        except Wrong as wrong:
            return _at(properties, str(wrong)), properties
        except ANSWER_ERRORS as error:
            return _at(properties, f"raises {type(error).__name__}: {error}"), properties
        finally:
            random.setstate(random_state)
            np.random.set_state(numpy_state)
    if not properties:
        raise ValueError(f"the checker of {label} announces no property")
    return None, properties


def _returning(answer: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(answer)
    def returning(*arguments: Any, **keywords: Any) -> Any:
        result = answer(*arguments, **keywords)
        if result is None:
            raise Wrong(_NONE)
        return result

    return returning


def _at(properties: list[str], message: str) -> str:
    """Return a diagnosis in one line, behind the property that it breaks."""
    line = " ".join(message.split())
    return f"{properties[-1]}: {line}" if properties else line


def grade(label: str, answer: Any) -> None:
    """Show whether an answer solves its exercise, and if not, which property it breaks."""
    diagnosis, properties = _examine(label, answer)
    if diagnosis is None:
        count = len(properties)
        hold = "the property holds" if count == 1 else f"all {count} properties hold"
        mark, state, verdict = "✓", "pass", f"{hold}: {', '.join(properties)}"
    elif diagnosis.startswith("not attempted"):
        mark, state, verdict = "…", "open", diagnosis
    else:
        mark, state, verdict = "✗", "fail", diagnosis
    publish(
        {
            "text/plain": f"{mark} {label}: {verdict}",
            "text/html": f'<p class="grade grade-{state}" data-label="{html.escape(label)}">{mark} '
            f'<span class="grade-label">{html.escape(label)}</span>: {html.escape(verdict)}</p>',
        }
    )


def expect(condition: Any, message: str) -> None:
    """Raise Wrong with ``message``, which names got and expected, unless the condition holds."""
    if not truth(condition, message):
        raise Wrong(message)


def expect_shape(got: Any, shape: tuple[int, ...], what: str) -> None:
    """Raise Wrong unless ``got`` is a tensor (or an array) of this shape."""
    if not hasattr(got, "shape"):
        raise Wrong(f"{what}: got {_kind(got)}, want a tensor of shape {tuple(shape)}")
    if tuple(got.shape) != tuple(shape):
        raise Wrong(f"{what}: got shape {tuple(got.shape)}, want {tuple(shape)}")


def expect_close(got: Any, want: Any, what: str, *, atol: float = 1e-9) -> None:
    """Raise Wrong unless ``got`` equals ``want`` entry by entry, as in ``lib.teaching.check``."""
    try:
        worst = compare(got, want)
    except ShapeMismatch as mismatch:
        raise Wrong(f"{what}: {mismatch}") from None
    except TypeError:
        raise Wrong(f"{what}: got {_kind(got)}, want {_kind(want)}") from None
    if not worst.error <= atol:  # written so that NaN is wrong
        got_text, want_text = distinct(worst.got, worst.want)
        place = f" at index {worst.index}" if worst.index else ""
        raise Wrong(f"{what}: got {got_text}{place}, want {want_text}")


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')}"
    if value is None or isinstance(value, bool | int | float | complex | str):
        return reprlib.repr(value)
    return type(value).__name__
