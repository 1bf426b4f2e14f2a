"""Each exercise is proven three ways: the stub is open, the solution passes, wrong answers are told
apart. A chapter's test file states its wrong answers and calls ``assert_three_ways``.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lib.teaching import diagnose
from tests.repository import chapter_notebook

CHAPTERS = Path(__file__).parents[2] / "chapters"
Wrong = Mapping[str, tuple[Callable[..., Any], str]]


def cells(chapter: str, tag: str) -> dict[str, str]:
    """Return {exercise label: source} of the cells with this tag, in the chapter's order."""
    found = {}
    for cell in chapter_notebook(CHAPTERS / f"{chapter}.py").cells:
        if cell.cell_type == "code" and tag in cell.metadata.get("tags", ()):
            call = ast.parse(cell.source).body[-1].value
            assert call.func.id == "grade", f"{chapter}: a {tag} cell does not end with grade(…)"
            found[call.args[0].value] = cell.source
    return found


def answer(source: str) -> Any:
    """Run a stub or solution cell without its last line, and return what it passes to grade."""
    tree = ast.parse(source)
    graded = tree.body.pop().value.args[1].id
    # What a chapter has imported by then; a cell that needs more would fail in the chapter too.
    scope = {"math": math, "torch": torch}
    exec(compile(tree, "exercise", "exec"), scope)
    return scope[graded]


def assert_three_ways(chapter: str, label: str, wrong: Wrong) -> None:
    stubs, solutions = cells(chapter, "exercise-stub"), cells(chapter, "solution")
    assert label in stubs and label in solutions, f"{label}: no stub or no solution in {chapter}"

    open_ = diagnose(label, answer(stubs[label]))
    assert open_ is not None and open_.startswith("not attempted"), f"{label}: stub gives {open_}"

    solved = diagnose(label, answer(solutions[label]))
    assert solved is None, f"{label}: the book's own solution fails: {solved}"

    diagnoses = {}
    for name, (function, expected) in wrong.items():
        got = diagnose(label, function)
        assert got is not None, f"{label}: the wrong answer “{name}” passes"
        assert expected in got, f"{label}, {name}: want {expected!r} in the diagnosis, got {got!r}"
        diagnoses[name] = got
    assert len(wrong) >= 3, f"{label}: {len(wrong)} known-wrong answers, want at least 3"
    assert len(set(diagnoses.values())) == len(wrong), f"{label}: same diagnosis twice: {diagnoses}"


def labels(chapter: str) -> list[str]:
    return list(cells(chapter, "exercise-stub"))
