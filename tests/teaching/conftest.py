"""Components in a browser, as the tests of each and of all see them."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.browser import chromium, component_page, offline_page


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def show(browser, tmp_path):
    """Open components, or HTML, as one page from a file; at the end it must have been quiet."""
    with ExitStack() as stack:

        def opened(*pieces, mode="light", width=1280, **options):
            path = tmp_path / f"page-{len(list(tmp_path.iterdir()))}.html"
            body = "".join(p if isinstance(p, str) else p.html() for p in pieces)
            path.write_text(component_page(body, mode), encoding="utf-8")
            size = {"width": width, "height": 900}
            page, seen = stack.enter_context(offline_page(browser, viewport=size, **options))
            stack.callback(seen.clean)
            page.goto(path.as_uri())
            return page

        yield opened
