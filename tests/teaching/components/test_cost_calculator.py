"""CostCalculator: its counts are lib.cost's, and a browser shows the same."""

from __future__ import annotations

import json
import random

import pytest

from lib import cost
from lib.models.gpt2 import GPT2Config
from lib.teaching.components import CostCalculator
from lib.teaching.components.cost_calculator import FIELDS, PARTS, PRESETS, scaled
from tests.browser import sticking_out
from tests.teaching.test_components import SURFACES, Parts

EXTREMES = [[least for _, least, _ in FIELDS], [128, 128, 128, 8192, 64, 100003, 4]]


def calculator(**options):
    return CostCalculator(**{"name": "costs"} | options)


def test_presets_are_official_sizes():
    counts = {name: calculator(sizes=of).readout()["parameters"] for name, of in PRESETS.items()}
    assert counts["GPT-2"] == cost.parameters(GPT2Config()) == 124_439_808
    assert counts["GPT-2 medium"] == 354_823_168
    assert counts["GPT-2 large"] == 774_030_080
    assert counts["GPT-2 XL"] == 1_557_611_200


def test_the_peak_is_the_sum_of_its_parts():
    read = calculator().readout()
    assert read["peak"] == sum(read[part] for part in PARTS)
    assert read["weights"] == 4 * read["parameters"]


def test_numbers_are_scaled():
    assert [scaled(x, 1000, "FLOP") for x in (0, 999, 1000, 1_234_567)] == [
        "0.00 FLOP",
        "999.00 FLOP",
        "1.00 kFLOP",
        "1.23 MFLOP",
    ]
    assert [scaled(x, 1024, "B") for x in (1023, 1024, 3 * 2**30)] == [
        "1023.00 B",
        "1.00 KiB",
        "3.00 GiB",
    ]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([1] * 6, r"expected 7 integers"),
        ("1234567", r"expected 7 integers"),
        ([1.0, 1, 1, 2, 1, 2, 4], r"expected 7 integers"),
        ([True, 1, 1, 2, 1, 2, 4], r"expected 7 integers"),
        ([0, 1, 1, 2, 1, 2, 4], r"expected layers from 1 to 128, got 0"),
        ([1, 1, 1, 1, 1, 2, 4], r"expected tokens from 2 to 131072, got 1"),
        ([1, 1, 1, 2, 1, 2, 3], r"expected bytes of a number 2 or 4, got 3"),
    ],
)
def test_refuses_sizes_that_do_not_fit(sizes, message):
    shown = calculator()
    with pytest.raises(ValueError, match=f"^sizes: {message}"):
        shown.sizes = sizes
    assert shown.sizes == PRESETS["GPT-2"]
    with pytest.raises(ValueError, match=f"^presets\\['x'\\]: {message}"):
        calculator(presets={"x": sizes})


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"^label: expected a text, got ' '$"):
        calculator(label=" ")
    with pytest.raises(ValueError, match=r"^presets: expected one or more, got none$"):
        calculator(presets={})


def test_fallback_is_a_table_of_all_numbers():
    shown = calculator(label="<u>")
    parts = Parts(shown.html())
    assert "u" not in parts.tags and parts.tags.count("tr") == 10
    assert all(text in parts.text for text in shown.shown().values())
    assert shown._sentence() in parts.text and "tokens 1,024" in parts.text
    data = json.loads(parts.scripts[0][1])["data"]
    assert data["presets"] == [[what, of] for what, of in PRESETS.items()]


# --- in a browser ---------------------------------------------------------------------------


def state_of(page):
    return page.evaluate("document.getElementById('costs').model.get('sizes')")


@pytest.mark.browser
def test_every_number_shown_is_libs(show):
    rng = random.Random(0)
    drawn = [
        [
            *(rng.randint(least, min(most, 40)) for _, least, most in FIELDS[:3]),
            rng.randint(2, 3000),
            rng.randint(1, 40),
            rng.randint(2, 60000),
            rng.choice([2, 4]),
        ]
        for _ in range(150)
    ]
    sizes = [*PRESETS.values(), *EXTREMES, [3, 5, 7, 11, 1, 13, 4], *drawn]
    shown = calculator()
    page = show(shown)
    read = page.evaluate(
        """(sizes) => {
          const host = document.getElementById("costs");
          const inputs = host.querySelectorAll("input, select");
          return sizes.map((given) => {
            given.forEach((size, k) => {
              inputs[k].value = size;
              inputs[k].dispatchEvent(new Event("change"));
            });
            return {
              state: host.model.get("sizes"),
              rows: [...host.querySelectorAll("[data-row]")].map((n) =>
                [n.dataset.row, n.querySelector("span").textContent]),
              widths: [...host.querySelectorAll(".cc-bar")].map((n) => n.style.width),
              sentence: host.querySelector(".cc-say").textContent,
            };
          });
        }""",
        sizes,
    )
    for given, got in zip(sizes, read, strict=True):
        shown.sizes = given
        assert got["state"] == given
        assert dict(got["rows"]) == shown.shown()
        assert got["sentence"] == shown._sentence()
        counts = shown.readout()
        for width, part in zip(got["widths"], PARTS, strict=True):
            want = 100 * counts[part] / counts["peak"]
            assert float(width.removesuffix("%")) == pytest.approx(want, rel=1e-3, abs=1e-3)


@pytest.mark.browser
def test_by_keyboard_and_buttons(show):
    page = show(calculator(), width=360)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    assert state_of(page)[0] == 13
    layers = page.get_by_role("spinbutton", name="layers")
    layers.fill("1000")
    layers.press("Enter")
    assert state_of(page)[0] == 128 and layers.input_value() == "128"
    layers.fill("")
    layers.press("Tab")
    assert state_of(page)[0] == 128
    page.get_by_role("combobox", name="bytes of a number").select_option("2")
    assert state_of(page)[-1] == 2
    for name, sizes in PRESETS.items():
        page.get_by_role("button", name=name, exact=True).click()
        assert state_of(page) == sizes
    page.get_by_role("button", name="reset").click()
    assert state_of(page) == PRESETS["GPT-2"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows_and_fingers_fit(show, width, script):
    page = show(
        calculator(sizes=EXTREMES[1], label="L" * 60), width=width, java_script_enabled=script
    )
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if script:
        sizes = page.evaluate(
            "() => [...document.querySelectorAll('button, input, select')]"
            ".map(n => n.getBoundingClientRect()).map(r => [r.width, r.height])"
        )
        assert len(sizes) == 13 and min(map(min, sizes)) >= 24


@pytest.mark.browser
@pytest.mark.parametrize("mode", list(SURFACES))
def test_accessible(show, mode):
    from axe_playwright_python.sync_playwright import Axe

    page = show(calculator(), mode=mode)
    page.wait_for_function(f"document.querySelector('.cc').dataset.mode === '{mode}'")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.browser
def test_state_from_behind_and_cleaned_up(show):
    shown = calculator()
    page = show(shown)
    shown.sizes = [1, 2, 3, 4, 5, 6, 2]
    page.evaluate("document.getElementById('costs').model.set('sizes', [1, 2, 3, 4, 5, 6, 2])")
    assert page.locator("#costs .cc-say").text_content() == shown._sentence()
    left = page.evaluate(
        "() => { const host = document.getElementById('costs'); host.dispose();"
        "host.model.set('sizes', [1, 1, 1, 2, 1, 2, 4]);"
        "return host.querySelectorAll('.cc').length }"
    )
    assert left == 0


@pytest.mark.browser
def test_readable_without_javascript(show):
    page = show(calculator(), java_script_enabled=False)
    text = page.locator("#costs").inner_text()
    assert "With JavaScript" in text and calculator()._sentence() in text
