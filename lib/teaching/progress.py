"""A progress bar for the book's training loops: one native ``<progress>``, labelled, quiet."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from lib.teaching.outputs import live_shell

T = TypeVar("T")
INTERVAL = 0.2  # seconds between two updates: five a second are smooth, and cost nothing


class Progress(Generic[T]):
    """Show how far a loop has come: ``for step in (bar := Progress(range(800), "training")):``.

    ``bar.note("loss 1.93")`` adds a remark. In a notebook the bar is a labelled ``<progress>``,
    updated at most five times a second; the final state stays. In plain Python a terminal sees
    one line that is rewritten, a log sees the last line alone; both on stderr. The length comes
    from ``len`` or from ``total``; without either the bar only counts.
    """

    def __init__(
        self, iterable: Iterable[T], label: str = "progress", *, total: int | None = None
    ) -> None:
        if not label.strip():
            raise ValueError("Progress: expected a label, got an empty one")
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)
        self.iterable, self.label, self.total = iterable, label, total
        self.done = 0
        self._note = ""
        self._handle: Any = None
        self._shown_at = -INTERVAL
        self._width = 0

    def note(self, text: str) -> None:
        """Show ``text`` behind the count, at the next update."""
        self._note = text
        self._show(self._counted())

    def __iter__(self) -> Iterator[T]:
        began = time.perf_counter()
        self.done, finished = 0, False
        self._handle = None  # a second loop gets a bar of its own
        self._show(self._counted(), force=True)
        try:
            for item in self.iterable:
                yield item
                self.done += 1
                self._show(self._counted())
            finished = True
        finally:  # a break or an error in the loop leaves an honest bar
            took = f"{time.perf_counter() - began:.1f} s"
            if finished:
                self.total = self.done
            state = f"done in {took}" if finished else f"stopped after {took}"
            self._show(f"{self._counted()}, {state}", force=True, last=True)

    def _counted(self) -> str:
        return f"{self.done}" if self.total is None else f"{self.done} of {self.total}"

    def _show(self, state: str, *, force: bool = False, last: bool = False) -> None:
        now = time.perf_counter()
        if not force and now - self._shown_at < INTERVAL:
            return
        self._shown_at = now
        line = f"{self.label}: {state}" + (f", {self._note}" if self._note else "")
        if live_shell() is None:
            self._print(line, last=last)
            return
        from IPython.display import display

        bundle = {"text/plain": line, "text/html": self._html(line)}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def _html(self, line: str) -> str:
        # a bar without a value is indeterminate: the honest picture of an unknown length
        value = "" if self.total is None else f' max="{max(self.total, 1)}" value="{self.done}"'
        return (
            f'<div class="progress-line"><progress{value} aria-label="{html.escape(self.label)}">'
            f'</progress> <span class="progress-text">{html.escape(line)}</span></div>'
        )

    def _print(self, line: str, *, last: bool) -> None:
        if sys.stderr.isatty():
            padded, self._width = line.ljust(self._width), len(line)
            print(f"\r{padded}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last:
            print(line, file=sys.stderr, flush=True)
