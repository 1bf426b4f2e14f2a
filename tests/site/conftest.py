"""The book, built, and a browser to open it in."""

from __future__ import annotations

import pytest

from tests.browser import chromium
from tests.site import built


@pytest.fixture(scope="session")
def site():
    """The folder of the built pages, brought up to date first."""
    built.build()
    return built.HTML


@pytest.fixture(scope="module")  # Playwright's loop, left running, would shut others out
def browser(site):
    with chromium() as browser:
        yield browser
