"""lib.teaching.progress in plain Python, and its markup; in a kernel: test_outputs.py."""

import io

import pytest

from lib.teaching import progress
from lib.teaching.progress import Progress


class Clock:
    """A clock that moves by one step at each look."""

    def __init__(self, step):
        self.now, self.step = 100.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def terminal(monkeypatch):
    """Put a terminal in the place of stderr; in the test itself, as pytest captures each phase."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    return stream


def test_it_yields_what_it_wraps(capsys):
    assert list(Progress("abc", label="letters")) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""


def test_a_log_holds_the_last_line_alone(capsys):
    for step in (bar := Progress(range(800), label="training")):
        bar.note(f"loss {3 - step / 800:.2f}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("training: 800 of 800, done in 0.")
    assert lines[0].endswith(" s, loss 2.00")


def test_a_terminal_sees_one_line_rewritten(monkeypatch):
    stderr = terminal(monkeypatch)
    monkeypatch.setattr(progress.time, "perf_counter", Clock(0.25))
    for _ in (bar := Progress(range(2), label="training")):
        bar.note("a long remark")
        bar.note("short")
    *rewritten, last = stderr.getvalue().split("\r")[1:]
    assert [line.strip() for line in rewritten[:2]] == [
        "training: 0 of 2",
        "training: 0 of 2, a long remark",
    ]
    assert "\n" not in "".join(rewritten)
    assert last.endswith("s, short\n")
    # what was longer is blanked out
    assert rewritten[2] == "training: 0 of 2, short".ljust(len(rewritten[1]))


@pytest.mark.parametrize("step, shown", [(0.01, 20), (0.001, 3)])
def test_it_updates_at_most_five_times_a_second(monkeypatch, step, shown):
    stderr = terminal(monkeypatch)
    clock = Clock(step)
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    began = clock.now
    for _ in Progress(range(400), label="training"):
        pass
    updates = stderr.getvalue().count("\r")
    assert updates <= (clock.now - began) / 0.2 + 2  # the first and the last are always shown
    assert updates >= shown


def test_a_loop_that_stops_early_says_so(capsys):
    for step in Progress(range(10), label="search"):
        if step == 3:
            break
    assert capsys.readouterr().err.startswith("search: 3 of 10, stopped after ")


def test_a_loop_that_fails_says_so_and_the_error_passes(capsys):
    def search():
        for step in Progress(range(10), label="search"):
            if step == 3:
                raise ArithmeticError("found")

    with pytest.raises(ArithmeticError, match="found"):
        search()
    assert capsys.readouterr().err.startswith("search: 3 of 10, stopped after ")


def test_without_a_length_it_counts(capsys):
    assert list(Progress(iter("ab"), label="lines")) == ["a", "b"]
    assert capsys.readouterr().err.startswith("lines: 2 of 2, done in ")
    bar = Progress(iter("ab"), label="lines")
    next(iter(bar))
    assert "<progress aria-label" in bar._html("x")


def test_total_stands_in_for_a_length(capsys):
    for _ in Progress(iter(range(9)), label="lines", total=9):
        break
    assert capsys.readouterr().err.startswith("lines: 0 of 9, stopped")


def test_a_label_is_needed():
    with pytest.raises(ValueError, match="expected a label"):
        Progress(range(3), label=" ")


def test_the_markup_is_native_labelled_and_escaped():
    bar = Progress(range(8), label='loss < 2 "soon"')
    bar.done = 3
    assert bar._html("a < b") == (
        '<div class="progress-line"><progress max="8" value="3" '
        'aria-label="loss &lt; 2 &quot;soon&quot;"></progress> '
        '<span class="progress-text">a &lt; b</span></div>'
    )
