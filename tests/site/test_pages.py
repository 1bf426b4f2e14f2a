"""Every page in a real Chromium, with the network shut."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from tests.site.built import (
    CHAPTERS,
    HEIGHT,
    PAGES,
    WIDTHS,
    contrasts,
    gzipped,
    opened,
    overflow,
    served,
    settle,
    violations,
)

pytestmark = [pytest.mark.book, pytest.mark.browser]

CHAPTER = f"{CHAPTERS[0]}.html"
FIRST_LOAD = 1_000_000  # bytes, gzipped
BACK_MATTER_TABLES = ("notation", "benchmarks", "cards")

# Text outside code in which TeX stayed as it was written, as when a line of a formula begins
# with a sign that Markdown takes for a list.
RAW_FORMULAS = r"""
(() => {
  const skipped = 'pre, code, script, style, mjx-container, .component, svg';
  const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const { data, parentElement } = walker.currentNode;
    if (parentElement.closest(skipped)) continue;
    if (/\$|\\[a-zA-Z(\[]|\w[_^]\{/.test(data)) found.push(data.trim());
  }
  return found;
})()
"""


def address(site, page: str) -> str:
    return (site / page).as_uri()


# To typeset a chapter's formulas takes a browser seconds, so a page is opened twice and not once a
# test: by day from a file, by night from a server. pytest runs what shares a page together.
@pytest.fixture(scope="module", params=PAGES)
def day(request, browser, site):
    """A page in light colours, opened as a file: its name, its tab, and what it did."""
    with opened(browser, address(site, request.param), color_scheme="light") as (tab, visit):
        yield request.param, tab, visit


@pytest.fixture(scope="module", params=PAGES)
def night(request, browser, site):
    """A page in dark colours, opened over http: its tab, what it did, and what it weighed."""
    bodies: dict[str, int] = {}
    with served(site) as base, opened(browser, "about:blank", color_scheme="dark") as (tab, visit):
        tab.on("response", lambda answer: bodies.update({answer.url: gzipped(answer.body())}))
        tab.goto(f"{base}/{request.param}")
        settle(tab)
        yield tab, visit, bodies


@pytest.fixture
def resized(day):
    """Set the width of the day's tab; afterwards it is as wide as before."""
    tab = day[1]

    def resize(width: int) -> None:
        tab.set_viewport_size({"width": width, "height": HEIGHT})
        settle(tab)

    yield resize
    resize(1280)


def test_a_page_is_accessible_at_every_width(day, resized):
    _, tab, _ = day
    assert tab.evaluate("document.documentElement.dataset.theme") == "light"
    found = {}
    for width in (1280, 360):
        resized(width)
        found[width] = violations(tab, contrast=width == 1280)
    assert found == {1280: [], 360: []}


def test_a_page_is_never_wider_than_its_window(day, resized):
    _, tab, _ = day
    found = {}
    for width in WIDTHS:
        resized(width)
        found[width] = overflow(tab)
    assert found == dict.fromkeys(WIDTHS, 0)


def test_what_scrolls_on_a_phone_is_reached_by_key(day, resized):
    page, tab, _ = day
    resized(360)
    boxes = tab.evaluate(
        """[...document.querySelectorAll('article *')]
          .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
          .filter(e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
          .map(e => [
            e.tabIndex === 0 || !!e.querySelector('a, button, input, [tabindex]'),
            e.outerHTML.slice(0, 90),
          ])"""
    )
    if page.startswith("chapters/"):
        assert len(boxes) > 3
    assert [html for reached, html in boxes if not reached] == []


def test_on_a_wide_screen_only_what_scrolls_is_a_stop_of_the_tab_key(day):
    _, tab, _ = day
    stops = tab.evaluate(
        """[...document.querySelectorAll('article [tabindex="0"]')]
          .filter(e => e.matches('mjx-container, pre, .pst-scrollable-table-container'))
          .filter(e => e.scrollWidth <= e.clientWidth + 1)
          .map(e => e.outerHTML.slice(0, 90))"""
    )
    assert stops == []


def test_the_code_of_lib_needs_no_scrolling_on_a_laptop(day):
    page, tab, _ = day
    over = tab.evaluate(
        "[...document.querySelectorAll('.lib-source pre')].map(e => e.scrollWidth - e.clientWidth)"
    )
    assert bool(over) == page.startswith("chapters/")
    assert max(over, default=0) <= 1


def test_the_tables_of_the_back_matter_need_no_scrolling_on_a_phone(day, resized):
    page, tab, _ = day
    resized(360)
    tables = "table:is(.notation, .benchmarks, .model-cards, .model-card)"
    over = tab.evaluate(
        f"""[...document.querySelectorAll('{tables}')]
          .map(e => e.scrollWidth - e.parentElement.clientWidth)"""
    )
    back_matter = page in {f"book/{name}.html" for name in BACK_MATTER_TABLES}
    assert bool(over) == (back_matter or page.startswith("book/cards/"))
    assert max(over, default=0) <= 1


def test_formulas_need_no_scrolling_on_a_phone(day, resized):
    page, tab, _ = day
    resized(360)
    over = tab.evaluate(
        """[...document.querySelectorAll("div.math > mjx-container[display='true']")]
          .map(e => [e.scrollWidth - e.clientWidth, e.parentElement.id, e.textContent])"""
    )
    assert bool(over) == page.startswith("chapters/")
    assert [formula for formula in over if formula[0] > 1] == []


def test_no_line_begins_with_the_full_stop_of_a_formula(day, resized):
    page, tab, _ = day
    resized(360)
    lines = tab.evaluate(
        "[...document.querySelectorAll('p .nobreak')].map(e => e.getClientRects().length)"
    )
    assert bool(lines) or not page.startswith("chapters/")
    assert max(lines, default=0) <= 1


def test_every_formula_is_typeset(day):
    page, tab, _ = day
    written = tab.evaluate("document.querySelectorAll('.math').length")
    typeset = tab.evaluate("document.querySelectorAll('.math mjx-container').length")
    errors = tab.evaluate(
        "[...document.querySelectorAll('[data-mjx-error], mjx-merror')].map(e => e.title)"
    )
    raw = tab.evaluate(RAW_FORMULAS)
    assert typeset == written
    assert errors == []
    assert raw == []
    if page in ("book/ledger.html", CHAPTER):
        assert written > 5


def test_headings_do_not_skip_a_level(day):
    _, tab, _ = day
    levels = tab.evaluate(
        """[...document.querySelectorAll('main :is(h1,h2,h3,h4,h5,h6)')]
          .filter(e => e.checkVisibility()).map(e => +e.tagName[1])"""
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_a_page_is_quiet_and_asks_nobody(day):
    _, _, visit = day
    assert visit.requests == []
    assert visit.failed == []
    assert visit.errors == []


def test_a_page_can_be_read_in_the_dark(night):
    tab, _, _ = night
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert contrasts(tab) == []


def test_the_first_load_of_a_page_is_light(night, record_property):
    _, visit, bodies = night
    total = sum(bodies.values())
    record_property("first_load_gzipped", total)
    assert len(bodies) > 10
    assert total <= FIRST_LOAD, Counter(bodies).most_common(8)
    assert visit.requests == []
    assert visit.errors == []


def test_axe_would_find_a_violation(browser, site):
    with opened(browser, address(site, "book/map.html")) as (tab, _):
        tab.evaluate("document.querySelector('article').insertAdjacentHTML('beforeend', '<img>')")
        assert [line.partition(":")[0] for line in violations(tab)] == ["image-alt"]
        tab.evaluate(
            "document.querySelector('article').insertAdjacentHTML('beforeend', "
            "'<p style=\"color:#777;background:#888\">pale</p>')"
        )
        assert [line.partition(":")[0] for line in contrasts(tab)] == ["color-contrast"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_read_without_javascript(browser, site, page):
    with opened(browser, address(site, page), java_script_enabled=False) as (tab, visit):
        assert tab.locator("main h1:visible").count() == 1
        colours = "(e => [e.color, e.backgroundColor])(getComputedStyle(document.body))"
        ink, paper = tab.evaluate(colours)
    assert ink != paper
    assert visit.requests == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_says_all_it_has_to_say_without_javascript(browser, site, chapter):
    with opened(browser, address(site, f"{chapter}.html"), java_script_enabled=False) as (tab, _):
        for selector in ("p.check", "figure.book-figure svg", "div.solution", "div.component"):
            assert tab.locator(selector).count() > 0, selector
            assert tab.locator(selector).first.is_visible(), selector


def test_the_first_tab_stop_skips_to_the_text(browser, site):
    with opened(browser, address(site, CHAPTER)) as (tab, _):
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "Skip to main content"
        tab.keyboard.press("Enter")
        assert tab.url.endswith("#main-content")


def test_the_colours_can_be_chosen_and_are_remembered(browser, site):
    with opened(browser, address(site, CHAPTER), color_scheme="light") as (tab, visit):
        seen = []
        for _ in range(3):
            tab.locator(".theme-switch-button:visible").first.click()
            seen.append(tab.evaluate("document.documentElement.dataset.mode"))
        assert sorted(seen) == ["auto", "dark", "light"]
        while tab.evaluate("document.documentElement.dataset.mode") != "dark":
            tab.locator(".theme-switch-button:visible").first.click()
        tab.goto(address(site, "book/map.html"))
        settle(tab)
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
        assert violations(tab) == []
    assert visit.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_menus_of_a_phone_are_accessible(browser, site, scheme):
    viewport = {"width": 360, "height": HEIGHT}
    options = {"viewport": viewport, "color_scheme": scheme}
    with opened(browser, address(site, "book/index.html"), **options) as (tab, visit):
        for button, dialog in (
            (".primary-toggle", "#pst-primary-sidebar-modal"),
            (".secondary-toggle", "#pst-secondary-sidebar-modal"),
            (".search-button:visible", "#pst-search-dialog"),
        ):
            tab.locator(button).first.click()
            tab.wait_for_selector(f"{dialog}[open]")
            tab.wait_for_timeout(400)  # the sidebar slides in
            assert violations(tab) == []
            tab.keyboard.press("Escape")
            tab.wait_for_selector(f"{dialog}:not([open])", state="attached")
    assert visit.errors == []


@pytest.mark.parametrize(("over", "scheme"), [("file", "dark"), ("http", "light")])
def test_search_finds_a_word_and_the_page_shows_it(browser, site, over, scheme):
    with served(site) as base:
        root = base if over == "http" else site.as_uri()
        with opened(browser, f"{root}/search.html?q=softmax", color_scheme=scheme) as (tab, visit):
            results = tab.locator("#search-results li a")
            results.first.wait_for()
            assert any("attention" in (link or "") for link in hrefs(results))
            assert violations(tab) == []
            # the glossary may come first; a chapter says the word often
            tab.locator("#search-results li a[href*='chapters/']").first.click()
            settle(tab)
            assert tab.locator("span.highlighted").count() > 10
            assert violations(tab, "span.highlighted") == []
            assert violations(tab, "#searchbox") == []
        assert visit.requests == []
        assert visit.errors == []


def hrefs(links) -> list[str | None]:
    return [links.nth(index).get_attribute("href") for index in range(links.count())]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_landing_page_says_what_the_book_is_in_one_screen(browser, site, scheme):
    options = {"viewport": {"width": 1280, "height": 900}, "color_scheme": scheme}
    with opened(browser, address(site, "book/index.html"), **options) as (tab, visit):
        component = tab.locator("div.component")
        box = component.bounding_box()
        assert box["y"] > 200  # below what the book says of itself
        assert box["y"] + box["height"] <= 900
        assert "not scaled" in component.inner_text()
        tab.get_by_label("scale by 1/√d").check()
        assert "not scaled" not in component.inner_text()
        assert "d = 64, scaled by 1/√d" in component.inner_text()
    assert visit.requests == []
    assert visit.errors == []


def test_the_landing_page_shows_its_numbers_without_javascript(browser, site):
    page = address(site, "book/index.html")
    with opened(browser, page, java_script_enabled=False) as (tab, _):
        assert tab.locator("div.component table:visible").count() == 1


def test_the_root_leads_to_the_landing_page(browser, site):
    with opened(browser, "about:blank") as (tab, visit):
        tab.goto(address(site, "index.html"))
        tab.wait_for_url(re.compile(r"/book/index\.html$"))
        assert tab.locator("main h1:visible").inner_text().startswith("The Executable Transformer")
    assert visit.errors == []
