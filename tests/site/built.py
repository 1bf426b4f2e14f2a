"""The built book as the browser tests see it: its pages, and what each does when it is opened."""

from __future__ import annotations

import fcntl
import gzip
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import axe_playwright_python
import yaml

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text("utf8"))

DOCUMENTS = [TOC["root"], *(item["file"] for part in TOC["parts"] for item in part["chapters"])]
CHAPTERS = [name for name in DOCUMENTS if name.startswith("chapters/")]
PAGES = [*(f"{name}.html" for name in DOCUMENTS), "search.html"]

WIDTHS = (360, 414, 600, 768, 992, 1280)
HEIGHT = 800

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
# All default rules, and those that axe keeps off by default but that this book wants to meet.
AXE_OPTIONS = {
    "preload": False,  # axe would fetch the style sheets, which file:// forbids
    "resultTypes": ["violations"],  # to describe 17,000 nodes without one takes half the time
    "rules": {
        name: {"enabled": True}
        for name in (
            "label-content-name-mismatch",
            "target-size",
            "p-as-heading",
            "table-fake-caption",
            "td-has-header",
            "css-orientation-lock",
        )
    },
}


def build() -> None:
    """Bring the built book up to date, as `make book` does; nothing to do costs seconds."""
    lock = ROOT / "_build" / ".test-lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # two workers of pytest-xdist would build at once
        run = subprocess.run(
            ["bash", "book/tools/build.sh"],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    if run.returncode:
        raise RuntimeError(f"the book does not build:\n{run.stdout[-4000:]}")


@dataclass
class Visit:
    """What happened when a page was opened."""

    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Any, url: str, **options: Any) -> Iterator[tuple[Any, Visit]]:
    """Open a page with every way out of this machine shut, and note what it tries and says."""
    visit = Visit()
    options.setdefault("viewport", {"width": 1280, "height": HEIGHT})
    context = browser.new_context(**options)

    def inside(address: str) -> bool:
        return address.startswith(("file:", "data:", "blob:", "about:", "http://127.0.0.1:"))

    def route(route: Any) -> None:
        if inside(route.request.url):
            route.continue_()
        else:
            visit.requests.append(route.request.url)
            route.abort()

    def message(message: Any) -> None:
        if message.type in ("error", "warning"):
            visit.errors.append(message.text)

    try:
        context.route("**/*", route)
        page = context.new_page()
        page.on("console", message)
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.on("requestfailed", lambda request: visit.failed.append(request.url))
        page.goto(url)
        if options.get("java_script_enabled", True):  # without it, no promise is ever kept
            settle(page)
        yield page, visit
    finally:
        context.close()


def settle(page: Any) -> None:
    """Wait until MathJax, where a page has it, has typeset every formula."""
    page.wait_for_load_state("load")
    page.evaluate(
        """async () => {
          await window.MathJax?.startup?.promise;
          await document.fonts.ready;
          await new Promise(done => requestAnimationFrame(() => setTimeout(done, 120)));
        }"""
    )


def violations(page: Any, part: str | None = None, *, contrast: bool = True) -> list[str]:
    """What axe-core finds wrong, in the page or in what a selector names, a line each.

    Contrast takes as long as all other rules together, and does not depend on the width.
    """
    rules = {**AXE_OPTIONS["rules"], "color-contrast": {"enabled": contrast}}
    return _axe(page, part, {**AXE_OPTIONS, "rules": rules})


def contrasts(page: Any) -> list[str]:
    """Where text is too pale for axe-core: all that depends on the colours of the page."""
    only = {"type": "rule", "values": ["color-contrast"]}
    return _axe(page, None, {**AXE_OPTIONS, "rules": {}, "runOnly": only})


def _axe(page: Any, part: str | None, options: dict[str, Any]) -> list[str]:
    page.evaluate(AXE.read_text("utf8"))
    where = json.dumps({"include": [[part]]}) if part else "document"
    found = page.evaluate(f"axe.run({where}, {json.dumps(options)})")
    return [
        f"{rule['id']}: {rule['help']}: {' '.join(map(str, node['target']))}: {node['html'][:160]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def overflow(page: Any) -> int:
    """How many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine and yield its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    handler = partial(Quiet, directory=os.fspath(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def gzipped(body: bytes) -> int:
    """What a body costs on the wire: fonts and pictures are packed already."""
    return min(len(body), len(gzip.compress(body, 6)))


class Parsed(HTMLParser):
    """The ids, links, sources and pictures of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.pictures: list[dict[str, str]] = []
        self.language: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        if tag == "html":
            self.language = attributes.get("lang")
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "link" and attributes.get("rel") != "canonical":
            self.sources.append(attributes["href"])
        if tag in ("script", "img", "iframe", "source", "video") and "src" in attributes:
            self.sources.append(attributes["src"])
        if tag == "img" or attributes.get("role") == "img":
            self.pictures.append({"tag": tag, **attributes})


@cache
def parsed(page: str) -> Parsed:
    return Parsed((HTML / page).read_text("utf8"))
