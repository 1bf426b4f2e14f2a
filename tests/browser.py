"""A real Chromium for the tests, Debian's, with the network shut.

    with chromium() as browser, offline_page(browser) as (page, seen):
        page.goto(path.as_uri())
    assert seen.clean()

Without Chromium a test is skipped with the reason, or fails where REQUIRE_BROWSER=1 is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOCAL = ("file:", "data:", "blob:", "about:")


@dataclass
class Seen:
    """What a page did that it should not: asked another, or complained."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def clean(self) -> bool:
        """Assert that there was neither; return True, to be asserted in the test itself."""
        assert not self.requests, f"the page asked for {self.requests}"
        assert not self.errors, f"the page complained: {self.errors}"
        return True


def chromium_path() -> str:
    """Return where Chromium is; without one skip the test, or fail it under REQUIRE_BROWSER=1."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "no Chromium: install the Debian package `chromium`"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium and yield Playwright's browser."""
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def offline_page(browser: Any, **options: Any) -> Iterator[tuple[Any, Seen]]:
    """Open an empty page without a network; yield it and what it did.

    Options are those of Playwright's ``new_context``: viewport, color_scheme, has_touch,
    reduced_motion, java_script_enabled, …
    """
    seen = Seen()
    context = browser.new_context(offline=True, **options)
    try:
        page = context.new_page()
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(LOCAL) else seen.requests.append(request.url)
            ),
        )
        page.on(
            "console",
            lambda message: (
                seen.errors.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        yield page, seen
    finally:
        context.close()


def component_page(body: str, mode: str = "light") -> str:
    """A page around components, in the colours of the book; they follow `data-theme` as there."""
    return f"""<!doctype html><html lang="en" data-theme="{mode}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>components</title>
<style>
body {{ margin: 0 1rem; font: 16px/1.6 sans-serif; }}
html[data-theme=light] body {{ background: #ffffff; color: #222832; }}
html[data-theme=dark] body {{ background: #121212; color: #ced6dd; }}
</style></head><body><main><h1>Components</h1>{body}</main></body></html>"""


def sticking_out(page: Any) -> list[str]:
    """The parts of components that reach further to the right than their page's margin."""
    return page.evaluate(
        "() => [...document.querySelectorAll('.component *')]"
        ".filter(n => n.getBoundingClientRect().right > innerWidth - 15).map(n => n.outerHTML)"
    )
