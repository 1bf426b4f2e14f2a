"""NumberForm: what CostCalculator and ScalePlanner have in common, in Python and in a browser."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest

from lib.teaching.components import CostCalculator, ScalePlanner
from lib.teaching.components.number_form import Choice, Number, NumberForm, scaled
from tests.browser import sticking_out
from tests.teaching.test_components import FOLDER, SURFACES, Parts

FORMS = pytest.mark.parametrize("kind", [CostCalculator, ScalePlanner], ids=lambda k: k.__name__)


def form(kind, **options):
    return kind(**{"name": "form"} | options)


def least_and_most(kind):
    """The smallest and the largest number of every field."""
    ranges = [
        (min(dict(field.options)), max(dict(field.options)))
        if isinstance(field, Choice)
        else (field.least, field.most)
        for field in kind.fields()
    ]
    return [list(ends) for ends in zip(*ranges, strict=True)]


def presets(kind):
    return [list(of) for of in kind.PRESETS.values()]


class Small(NumberForm):
    """Two fields, without a module: what Python alone decides."""

    MODULE = "none.js"
    LABEL = "A small form"
    GROUPS: ClassVar = {
        "first": (Number("a", -3, 5),),
        "then": (Choice("b", ((7, "7: x"), (2, "2: y"))),),
    }
    PRESETS: ClassVar = {"one": (1, 2), "two": (2, 7), "three": (3, 2)}

    def shown(self, sizes=None):
        a, b = self._now(sizes)
        return {"sum": f"{a + b}"}

    def _sentence(self):
        return f"It is {self.shown()['sum']}."


def test_begins_with_the_second_preset():
    assert Small().sizes == [2, 7] and Small().presets == {"one": [1, 2], **Small().presets}
    assert list(Small().presets) == ["one", "two", "three"]
    assert Small({"x": (5, 7)}).sizes == [5, 7] and Small({"x": (5, 7)}).presets == {"x": [5, 7]}
    assert Small({"x": (5, 7), "y": (4, 2)}).sizes == [4, 2]
    assert Small(sizes=(-3, 2)).sizes == [-3, 2]


def test_says_what_it_is():
    assert Small().summary() == "A small form: It is 9."
    assert Small(label="L").summary() == "L: It is 9."
    assert Small().shown([5, 2]) == {"sum": "7"} and Small().sizes == [2, 7]
    assert Small().name.startswith("none-") and Small().name != Small(sizes=(1, 2)).name


def test_the_page_gets_fields_presets_and_titles():
    assert Small()._page_state() == {
        "data": {
            "label": "A small form",
            "groups": [
                ["first", [["a", -3, 5]]],
                ["then", [["b", ((7, "7: x"), (2, "2: y"))]]],
            ],
            "presets": [["one", [1, 2]], ["two", [2, 7]], ["three", [3, 2]]],
            "titles": ["sum"],
        },
        "sizes": [2, 7],
    }


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([1], r"expected 2 integers, got \[1\]"),
        ([1, 2, 2], r"expected 2 integers, got \[1, 2, 2\]"),
        ("12", r"expected 2 integers, got '12'"),
        ({1, 2}, r"expected 2 integers, got \{1, 2\}"),
        ([1.0, 2], r"expected 2 integers, got \[1.0, 2\]"),
        ([True, 2], r"expected 2 integers, got \[True, 2\]"),
        ([-4, 2], r"expected a from -3 to 5, got -4"),
        ([6, 2], r"expected a from -3 to 5, got 6"),
        ([1, 3], r"expected b 2 or 7, got 3"),
    ],
)
def test_refuses_sizes_that_do_not_fit(sizes, message):
    shown = Small()
    with pytest.raises(ValueError, match=f"^sizes: {message}$"):
        shown.sizes = sizes
    assert shown.sizes == [2, 7]
    with pytest.raises(ValueError, match=f"^presets\\['x'\\]: {message}$"):
        Small({"x": sizes})
    with pytest.raises(ValueError, match=f"^sizes: {message}$"):
        shown.shown(sizes)


@pytest.mark.parametrize("label", ["", " ", 7])
def test_refuses_an_empty_label_and_no_presets(label):
    with pytest.raises(ValueError, match=f"^label: expected a text, got {label!r}$"):
        Small(label=label)
    with pytest.raises(ValueError, match=r"^presets: expected one or more, got none$"):
        Small({})


def test_a_form_has_to_say_what_it_shows():
    class Silent(Small):
        shown = NumberForm.shown
        _sentence = NumberForm._sentence

    with pytest.raises(NotImplementedError, match=r"^Silent shows nothing$"):
        Silent()
    with pytest.raises(NotImplementedError, match=r"^Silent writes no sentence$"):
        Silent._sentence(Small.__new__(Silent))


@FORMS
def test_fields_take_their_ends_and_nothing_beyond(kind):
    least, most = least_and_most(kind)
    assert form(kind, sizes=least).sizes == least and form(kind, sizes=most).sizes == most
    shown = form(kind)
    for k, field in enumerate(kind.fields()):
        for ends, step in [(least, -1), (most, 1)]:
            beyond = [*shown.sizes[:k], ends[k] + step, *shown.sizes[k + 1 :]]
            with pytest.raises(
                ValueError, match=f"^sizes: expected {field.title} .*got {beyond[k]}"
            ):
                shown.sizes = beyond
    assert shown.sizes == presets(kind)[1]


def test_numbers_are_scaled():
    assert [scaled(x, 1000, "FLOP") for x in (0, 999, 1000, 1_234_567, 10**27)] == [
        "0.00 FLOP",
        "999.00 FLOP",
        "1.00 kFLOP",
        "1.23 MFLOP",
        "1000000.00 ZFLOP",
    ]
    assert [scaled(x, 1024, "B") for x in (1023, 1024, 3 * 2**30)] == [
        "1023.00 B",
        "1.00 KiB",
        "3.00 GiB",
    ]


@FORMS
def test_fallback_is_a_table_of_all_numbers(kind):
    shown = form(kind, label="<u>")
    parts = Parts(shown.html())
    assert "u" not in parts.tags and parts.tags.count("tr") == len(shown.shown())
    assert "<u>: layers " in parts.text
    for field, number in zip(kind.fields(), shown.sizes, strict=True):
        assert f"{field.title} {number:,}" in parts.text
    for title, text in shown.shown().items():
        assert f"{title}{text}" in parts.text
    assert shown._sentence() in parts.text
    assert json.loads(parts.scripts[0][1])["data"]["titles"] == list(shown.shown())


@FORMS
def test_widget_and_sizes_follow_each_other(kind):
    shown = form(kind)
    shown.sizes = presets(kind)[0]
    assert shown.widget().sizes == presets(kind)[0]
    shown.widget().set_state({"sizes": presets(kind)[2]})  # as a message from the page does
    assert shown.sizes == presets(kind)[2]


# --- in a browser ---------------------------------------------------------------------------


def state_of(page):
    return page.evaluate("document.querySelector('.component').model.get('sizes')")


def typed(page, cases):
    """Type all sizes of each case; yield each with what then is shown."""
    read = page.evaluate(
        """(cases) => {
          const host = document.querySelector(".component");
          const inputs = host.querySelectorAll("input, select");
          return cases.map((given) => {
            given.forEach((size, k) => {
              inputs[k].value = size;
              inputs[k].dispatchEvent(new Event("change"));
            });
            return {
              state: host.model.get("sizes"),
              texts: Object.fromEntries([...host.querySelectorAll("[data-row]")]
                .map((n) => [n.dataset.row, n.querySelector("span").textContent])),
              bars: Object.fromEntries([...host.querySelectorAll(".nf-bar")]
                .filter((n) => n.offsetParent)
                .map((n) => [n.parentNode.dataset.row, parseFloat(n.style.width)])),
              sentence: host.querySelector(".nf-say").textContent,
            };
          });
        }""",
        cases,
    )
    yield from zip(cases, read, strict=True)


@pytest.mark.browser
def test_a_page_scales_as_python_does(show):
    cases = [
        (number, step, unit)
        for step, unit in [(1000, "FLOP"), (1024, "B")]
        for number in [0, 0.125, 999.99, 1000, 1023, 1024, 1_234_567, step**2, step**7, 10**27]
    ]
    source = "\n".join((FOLDER / name).read_text("utf-8") for name in NumberForm.SHARED)
    texts = show().evaluate(
        "([source, cases]) => Function('cases', `${source}; return cases.map((c) => scaled(...c))`)"
        "(cases)",
        [source, cases],
    )
    assert texts == [scaled(*case) for case in cases]


@pytest.mark.browser
@FORMS
def test_by_keyboard(show, kind):
    page = show(form(kind), width=360)
    start = presets(kind)[1]
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.keyboard.press("ArrowUp")
    assert state_of(page) == [start[0] + 1, *start[1:]]
    layers = page.get_by_role("spinbutton", name="layers", exact=True)
    most = kind.fields()[0].most
    for text, key, value in [
        ("1000", "Enter", most),
        ("", "Tab", most),
        ("-2", "Enter", 1),
        ("6.6", "Tab", 7),
    ]:
        layers.fill(text)
        layers.press(key)
        assert state_of(page) == [value, *start[1:]] and layers.input_value() == str(value)
    for _ in range(len(start) - 1):  # the other fields; layers was left
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert state_of(page) == presets(kind)[0]


@pytest.mark.browser
@FORMS
def test_an_input_is_mended_where_the_model_finds_nothing_changed(show, kind):
    page = show(form(kind))
    page.evaluate("() => { document.querySelector('.component').model.set = () => {} }")
    layers = page.get_by_role("spinbutton", name="layers", exact=True)
    layers.fill("")
    layers.press("Tab")
    assert layers.input_value() == str(presets(kind)[1][0])


@pytest.mark.browser
@FORMS
def test_buttons_and_reset(show, kind):
    start = presets(kind)[2]
    page = show(form(kind, sizes=start))
    for name, sizes in kind.PRESETS.items():
        page.get_by_role("button", name=name, exact=True).click()
        assert state_of(page) == sizes
        inputs = page.locator("input, select").evaluate_all("all => all.map(n => Number(n.value))")
        assert inputs == sizes
    page.get_by_role("button", name="reset").click()
    assert state_of(page) == start
    types = page.locator("button").evaluate_all("all => all.map(n => n.type)")
    assert set(types) == {"button"}  # none sends a form that a host may have around it


@pytest.mark.browser
@FORMS
def test_fields_stand_in_their_groups(show, kind):
    page = show(form(kind, label="L"))
    whole = page.get_by_role("group", name="L", exact=True)
    assert whole.locator("label").all_text_contents() == [
        f.title + "".join(text for _, text in getattr(f, "options", ())) for f in kind.fields()
    ]
    assert whole.locator(".nf-label").text_content() == "L"
    named = {title: fields for title, fields in kind.GROUPS.items() if title}
    assert whole.get_by_role("group").count() == len(named)
    for title, fields in named.items():
        assert page.get_by_role("group", name=title).locator("input").count() == len(fields)
    inputs = page.locator("input").evaluate_all(
        "all => all.map(n => [Number(n.min), Number(n.max), n.inputMode])"
    )
    assert inputs == [
        [field.least, field.most, "numeric"] for field in kind.fields() if isinstance(field, Number)
    ]


@pytest.mark.browser
@FORMS
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows_and_fingers_fit(show, kind, width, script):
    shown = form(kind, sizes=least_and_most(kind)[1], label="L" * 60)
    page = show(shown, width=width, java_script_enabled=script)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if script:
        sizes = page.evaluate(
            "() => [...document.querySelectorAll('button, input, select')]"
            ".map(n => n.getBoundingClientRect()).map(r => [r.width, r.height])"
        )
        assert len(sizes) == len(kind.fields()) + len(kind.PRESETS) + 1
        assert min(width for width, _ in sizes) >= 24 and min(height for _, height in sizes) >= 40


@pytest.mark.browser
@FORMS
@pytest.mark.parametrize("width", [360, 1280])
def test_what_stands_in_a_row_is_aligned(show, kind, width):
    page = show(form(kind), width=width)
    rows = page.evaluate(
        """() => {
          const rows = {};
          for (const label of document.querySelectorAll("label")) {
            const input = label.querySelector("input, select");
            const [above, top] = [label, input].map((n) => n.getBoundingClientRect().top);
            (rows[above] ??= []).push(top);
          }
          return Object.values(rows);
        }"""
    )
    assert max(map(len, rows)) >= 2 and all(len(set(tops)) == 1 for tops in rows)
    words = page.locator(".nf tbody tr").evaluate_all(
        "all => all.map(n => [...n.querySelectorAll('th, td > :first-child')].map((part) => {"
        "const range = document.createRange(); range.selectNodeContents(part);"
        "return range.getClientRects()[0].top }))"
    )
    assert all(title == pytest.approx(text, abs=0.5) for title, text in words)
    whole, numbers = (
        page.locator(selector).first.bounding_box()["width"] for selector in (".nf table", ".nf td")
    )
    assert whole == min(46 * 16, width - 2 * 16)
    assert numbers / whole == pytest.approx(0.52, abs=0.005)  # the bars have the larger half
    bars = page.locator(".nf-bar:not([hidden])").evaluate_all("all => all.map(n => n.offsetWidth)")
    assert min(bars) >= 1  # a share of nothing is seen too


@pytest.mark.browser
@FORMS
@pytest.mark.parametrize("mode", list(SURFACES))
def test_accessible(show, kind, mode):
    from axe_playwright_python.sync_playwright import Axe

    page = show(form(kind), mode=mode)
    page.wait_for_function(f"document.querySelector('.nf').dataset.mode === '{mode}'")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.browser
@pytest.mark.parametrize("forced", ["none", "active"])
@pytest.mark.parametrize("mode", list(SURFACES))
def test_bars_and_options_are_seen_in_every_mode(show, mode, forced):
    page = show(form(CostCalculator), mode=mode, color_scheme=mode, forced_colors=forced)
    page.wait_for_function(f"document.querySelector('.nf').dataset.mode === '{mode}'")
    bar, option, surface, text = page.evaluate(
        "() => [['.nf-bar:not([hidden])', 'backgroundColor'], ['option', 'backgroundColor'],"
        "['body', 'backgroundColor'], ['body', 'color']]"
        ".map(([selector, name]) => getComputedStyle(document.querySelector(selector))[name])"
    )
    if forced == "active":
        assert bar == text != surface
    else:
        light = mode == "light"
        assert bar == ("rgb(0, 114, 178)" if light else "rgb(86, 180, 233)")
        assert option == ("rgb(255, 255, 255)" if light else "rgb(34, 34, 34)")


@pytest.mark.browser
@FORMS
def test_state_from_behind_and_cleaned_up(show, kind):
    shown = form(kind)
    page = show(shown)
    shown.sizes = presets(kind)[0]
    page.evaluate("s => document.getElementById('form').model.set('sizes', s)", shown.sizes)
    say = page.locator("#form [aria-live=polite]")
    assert say.count() == 1 and say.text_content() == shown._sentence()
    left = page.evaluate(
        "s => { const host = document.getElementById('form'); host.dispose();"
        "host.model.set('sizes', s); return host.querySelectorAll('.nf').length }",
        presets(kind)[2],
    )
    assert left == 0


@pytest.mark.browser
@FORMS
def test_readable_without_javascript(show, kind):
    page = show(form(kind), java_script_enabled=False)
    text = page.locator("#form").inner_text()
    assert "With JavaScript every number can be changed." in text
    assert form(kind)._sentence() in text
