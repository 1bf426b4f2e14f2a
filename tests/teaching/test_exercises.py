"""lib.teaching.exercises: the registry, and diagnoses that name the broken property."""

import random
import sys
import textwrap

import numpy as np
import pytest
import torch

from lib.teaching import exercises
from lib.teaching.exercises import (
    Wrong,
    checker,
    diagnose,
    expect,
    expect_close,
    expect_shape,
    grade,
    labels,
)

SCORES = torch.tensor([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(exercises, "_registry", dict(exercises._registry))


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(exercises, "publish", bundles.append)
    return bundles


@pytest.fixture
def softmax():
    """The example of the module's docstring."""

    @checker("ex-toy-softmax")
    def softmax(answer):
        yield "keeps the shape"
        weights = answer(SCORES.clone())
        expect_shape(weights, (2, 3), "the result")
        yield "rows sum to one"
        expect_close(weights.sum(-1), 1.0, "the sum of each row")
        yield "agrees with torch.softmax"
        expect_close(weights, torch.softmax(SCORES, -1), "softmax of a row")

    return "ex-toy-softmax"


def right(scores):
    return torch.softmax(scores, -1)


def stub(scores):
    raise NotImplementedError


def transposed(scores):
    return right(scores).T


def over_columns(scores):
    return torch.softmax(scores, 0)


def without_maximum(scores):
    return scores.exp() / scores.exp().sum(-1, keepdim=True)


def uniform(scores):
    return torch.full_like(scores, 1 / 3)


def forgets_to_return(scores):
    torch.softmax(scores, -1)


def test_the_right_answer_has_no_diagnosis(softmax):
    assert diagnose(softmax, right) is None


def test_the_stub_is_not_wrong_but_open(softmax):
    assert diagnose(softmax, stub) == ("not attempted yet: write stub, then run this cell again")


@pytest.mark.parametrize(
    "answer, diagnosis",
    [
        (transposed, "keeps the shape: the result: got shape (3, 2), want (2, 3)"),
        (over_columns, "rows sum to one: the sum of each row: got 1.8808 at index (0,), want 1"),
        (without_maximum, "rows sum to one: the sum of each row: got nan at index (1,), want 1"),
        (
            uniform,
            "agrees with torch.softmax: softmax of a row: got 0.333333 at index (1, 0), want 1",
        ),
        (
            forgets_to_return,
            "keeps the shape: returns None, expected a result: is there a `return`?",
        ),
        (lambda scores: 3, "keeps the shape: the result: got 3, want a tensor of shape (2, 3)"),
    ],
)
def test_each_mistake_has_a_diagnosis_of_its_own(answer, diagnosis, softmax):
    assert diagnose(softmax, answer) == diagnosis


def raising(error):
    def answer(scores):
        raise error

    return answer


@pytest.mark.parametrize(
    "error",
    [
        TypeError("bad type"),
        ValueError("two\n  lines"),
        RuntimeError("shapes"),
        IndexError("out"),
        KeyError("key"),
        ZeroDivisionError("by zero"),
        OverflowError("large"),
        AssertionError("mine"),
        AttributeError("none"),
        NameError("name"),
        ImportError("module"),
        torch.linalg.LinAlgError("singular"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_an_answer_raises_is_a_diagnosis_in_one_line(error, softmax):
    words = " ".join(str(error).split())
    expected = f"keeps the shape: raises {type(error).__name__}: {words}"
    assert diagnose(softmax, raising(error)) == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_stops_a_session_is_not_held_up(error, softmax):
    with pytest.raises(error):
        diagnose(softmax, raising(error()))


def test_an_answer_with_other_parameters_is_wrong_and_not_a_crash(softmax):
    found = diagnose(softmax, lambda: 1)
    assert found.startswith("keeps the shape: raises TypeError: ")
    assert "takes 0 positional arguments but 1 was given" in found


def test_an_answer_need_not_be_a_function():
    @checker("ex-toy-number")
    def number(answer):
        yield "is six"
        expect_close(answer, 6, "your count")

    assert diagnose("ex-toy-number", 6) is None
    assert diagnose("ex-toy-number", 6.5) == "is six: your count: got 6.5, want 6"
    assert diagnose("ex-toy-number", None) == "is six: your count: got None, want 6"
    assert diagnose("ex-toy-number", torch.tensor(6j)) == (
        "is six: your count: got a tensor of complex64, want 6"
    )
    assert diagnose("ex-toy-number", len) == (
        "is six: your count: got builtin_function_or_method, want 6"
    )


def test_an_answer_that_works_in_place_may_return_none():
    @checker("ex-toy-clear", may_return_none=True)
    def clear(answer):
        yield "empties the list"
        items = [1, 2]
        answer(items)
        expect(items == [], f"the list: got {items}, want []")

    assert diagnose("ex-toy-clear", lambda items: items.clear()) is None
    assert diagnose("ex-toy-clear", lambda items: None) == (
        "empties the list: the list: got [1, 2], want []"
    )


def test_what_fails_before_the_first_property_is_named_too():
    @checker("ex-toy-early")
    def early(answer):
        expect_close(answer(), 1.0, "the result")
        yield "never reached"

    assert diagnose("ex-toy-early", lambda: 2.0) == "the result: got 2, want 1"


def test_grading_leaves_random_numbers_alone_and_is_repeatable():
    drawn = []

    @checker("ex-toy-random")
    def use_random(answer):
        yield "draws"
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))

    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    with torch.random.fork_rng():
        states = []
        for graded in (True, False):
            random.seed(5)
            np.random.seed(5)
            torch.manual_seed(5)
            if graded:
                diagnose("ex-toy-random", None)
            states.append(draw())
    diagnose("ex-toy-random", None)
    assert states[0] == states[1]
    assert drawn[0] == drawn[1]


def test_grade_shows_that_all_properties_hold(softmax, shown):
    assert grade(softmax, right) is None
    held = "all 3 properties hold: keeps the shape, rows sum to one, agrees with torch.softmax"
    assert shown == [
        {
            "text/plain": f"✓ ex-toy-softmax: {held}",
            "text/html": '<p class="grade grade-pass" data-label="ex-toy-softmax">✓ '
            f'<span class="grade-label">ex-toy-softmax</span>: {held}</p>',
        }
    ]


def test_grade_shows_the_diagnosis_escaped(softmax, shown):
    assert grade(softmax, raising(ValueError("a < b"))) is None
    assert shown[0]["text/plain"] == ("✗ ex-toy-softmax: keeps the shape: raises ValueError: a < b")
    assert '<p class="grade grade-fail" data-label="ex-toy-softmax">✗ ' in shown[0]["text/html"]
    assert "a &lt; b</p>" in shown[0]["text/html"]


def test_grade_shows_an_open_exercise(softmax, shown):
    assert grade(softmax, stub) is None
    assert shown[0]["text/plain"] == (
        "… ex-toy-softmax: not attempted yet: write stub, then run this cell again"
    )
    assert '<p class="grade grade-open" data-label="ex-toy-softmax">… ' in shown[0]["text/html"]


def test_grade_prints_in_plain_python(softmax, capsys):
    grade(softmax, right)
    assert capsys.readouterr().out.startswith("✓ ex-toy-softmax: all 3 properties hold: ")


@pytest.fixture
def chapters(tmp_path, monkeypatch):
    """Two chapters' checkers in a folder of their own, in the place of the book's."""
    for name in ("toy_chapter", "other"):
        (tmp_path / f"{name}.py").write_text(
            textwrap.dedent(f"""
                from lib.teaching.exercises import checker, expect

                @checker("ex-{name}-one")
                def one(answer):
                    yield "is one"
                    expect(answer == 1, "got something else, want 1")
            """)
        )
    monkeypatch.setattr(exercises, "__path__", [str(tmp_path)])
    monkeypatch.setattr(exercises, "_registry", {})
    yield
    for name in ("toy_chapter", "other"):
        sys.modules.pop(f"lib.teaching.exercises.{name}", None)


def test_a_label_names_the_module_that_holds_its_checker(chapters):
    assert diagnose("ex-toy_chapter-one", 1) is None
    assert "lib.teaching.exercises.toy_chapter" in sys.modules
    assert "lib.teaching.exercises.other" not in sys.modules  # imported on demand
    assert labels() == ["ex-other-one", "ex-toy_chapter-one"]


@pytest.mark.parametrize("label", ["ex-toy_chapter-two", "ex-third-one", "nonsense", "ex-other"])
def test_an_unknown_label_names_the_known_ones(label, chapters):
    with pytest.raises(ValueError) as error:
        diagnose(label, 1)
    assert str(error.value) == (
        f"no checker for the exercise {label!r}; known: ex-other-one, ex-toy_chapter-one"
    )


def test_an_import_that_fails_inside_a_chapter_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "faulty.py").write_text("import no_such_module_here\n")
    monkeypatch.setattr(exercises, "__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        diagnose("ex-faulty-one", 1)


def test_a_label_is_registered_once_but_may_be_reloaded(softmax):
    def again(answer):
        yield "another"

    with pytest.raises(ValueError, match="checker ex-toy-softmax: registered twice"):
        checker("ex-toy-softmax")(again)
    checker("ex-toy-again")(again)
    assert checker("ex-toy-again")(again) is again


@pytest.mark.parametrize("label", ["attention-softmax", "ex-attention", "ex-Attention-a", "ex--a"])
def test_a_label_that_is_no_label_is_an_error(label):
    with pytest.raises(ValueError, match="expected a label like ex-attention-scale"):
        checker(label)


def test_a_checker_that_announces_nothing_is_an_error():
    with pytest.raises(TypeError, match="ex-toy-silent: expected `yield`"):

        @checker("ex-toy-silent")
        def silent(answer):
            expect(True, "fine")

    @checker("ex-toy-empty")
    def empty(answer):
        yield from ()

    with pytest.raises(ValueError, match="the checker of ex-toy-empty announces no property"):
        diagnose("ex-toy-empty", 1)


def test_expect_close_allows_its_tolerance_and_no_more():
    expect_close(1.0 + 5e-10, 1.0, "x")
    with pytest.raises(Wrong, match=r"^x: got 1.000000002, want 1$"):
        expect_close(1.0 + 2e-9, 1.0, "x")
    expect_close(1.4, 1.0, "x", atol=0.5)
    with pytest.raises(Wrong, match=r"^x: got shape \(2,\), want shape \(3,\)$"):
        expect_close(torch.ones(2), torch.ones(3), "x")


def test_expect_takes_one_truth_value():
    expect(torch.tensor(True), "fine")
    with pytest.raises(Wrong, match=r"^got 3, want 4$"):
        expect(np.False_, "got 3, want 4")
    with pytest.raises(TypeError, match="expected one truth value"):
        expect(torch.tensor([True, True]), "both")
