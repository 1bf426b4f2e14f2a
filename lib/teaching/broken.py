"""``catches``: a mistake made on purpose, and the test that tells it from the correct version."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from lib.teaching.outputs import publish


def catches(label: str, test: Callable[[Any], Any], *, broken: Any, fixed: Any) -> None:
    """Show that a test passes on the correct version and fails on the broken one.

    label: the mistake's name in the book's list, such as "D09", with a word more where one
        mistake has several symptoms.
    test: takes a version and, if it is wrong, raises AssertionError with the symptom in its
        message.

    Raises AssertionError if the test fails on ``fixed``, and if it passes on ``broken``: a test
    that catches nothing is a defect of its own. Any other exception goes through: a crash is not
    a diagnosis.
    """
    name = getattr(test, "__name__", repr(test))
    try:
        test(fixed)
    except AssertionError as error:
        raise AssertionError(f"{label}: {name} fails on the correct version: {error}") from error
    try:
        test(broken)
    except AssertionError as error:
        symptom = " ".join(str(error).split())
    else:
        raise AssertionError(f"{label}: {name} passes on the broken version, so it catches nothing")
    if not symptom:
        raise AssertionError(f"{label}: {name} fails without naming the symptom")
    publish(
        {
            "text/plain": f"✗ {label}, broken: {symptom}\n"
            f"✓ {name} catches it, and passes once fixed",
            "text/html": f'<div class="caught" data-label="{html.escape(label)}">'
            f'<p class="caught-symptom">✗ {html.escape(label)}, broken: {html.escape(symptom)}</p>'
            f'<p class="caught-test">✓ <code>{html.escape(name)}</code> catches it, '
            "and passes once fixed</p></div>",
        }
    )
