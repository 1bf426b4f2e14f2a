"""PositionRotation: its numbers are lib's, in Python and, one by one, in a browser."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from lib.positions import sinusoidal_encoding
from lib.teaching.components import PositionRotation, base
from lib.teaching.figures import COLORS
from tests.browser import sticking_out
from tests.teaching.test_components import SURFACES, Parts, contrast, rgb

FREQUENCIES = [10000 ** (-i / 8) for i in range(8)]  # of d_model 16


def state(shown):
    return json.loads(Parts(shown.html()).scripts[0][1])


# --- the numbers ----------------------------------------------------------------------------


def test_readout_is_the_formula():
    shown = PositionRotation()
    for position in (32, 50, 64):
        for offset in (-32, -7, 0, 1, 32):
            read = shown.readout(position, offset)
            turns = [offset * w for w in FREQUENCIES]
            assert read["turns"] == pytest.approx([math.degrees(t) for t in turns], abs=1e-9)
            assert read["cosines"] == pytest.approx([math.cos(t) for t in turns], abs=1e-12)
            assert read["product"] == pytest.approx(sum(map(math.cos, turns)), abs=1e-12)


def test_the_product_is_that_of_libs_rows():
    shown = PositionRotation(d_model=6, base=50.0, reach=5, positions=4, position=7, offset=-3)
    table = sinusoidal_encoding(20, 6, base=50.0, dtype=torch.float64)
    assert torch.equal(shown.encoding, table[:14])
    assert shown.product == pytest.approx((table[7] @ table[4]).item(), abs=1e-14)


def test_setting_the_state_updates_the_product():
    shown = PositionRotation()
    heard = []
    shown.observe(lambda change: heard.append(change["new"]), "product")
    assert shown.product == shown.readout(32, 7)["product"]
    shown.offset = -9
    assert shown.product == shown.readout(32, -9)["product"]
    assert heard == [shown.product]
    before = shown.product
    shown.position = 60
    assert shown.product == pytest.approx(before, abs=1e-12)
    with pytest.raises(Exception, match="read-only"):
        shown.product = 1.0


def test_sentence():
    shown = PositionRotation(position=40, offset=-7, label="L")
    assert repr(shown) == (
        "L: k = −7: PE(40) · PE(33) = 5.892, the sum of the 8 cosines. "
        "It is the same at every position p, and the same for −k."
    )


def test_what_the_page_holds():
    shown = PositionRotation(d_model=4, reach=2, positions=3, offset=2)
    page = state(shown)
    assert (page["position"], page["offset"]) == (2, 2)
    data = page["data"]
    assert data["reach"] == 2 and data["label"] == shown.label
    assert data["encoding"] == [[round(x, 10) for x in row] for row in shown.encoding.tolist()]
    assert data["turn"] == [round(math.degrees(w), 10) for w in (1, 0.01)]
    assert data["wavelength"] == ["6.3", "628"]
    assert len(PositionRotation().html().encode()) < 45_000


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("position", 31, "position: expected an integer in 32 to 64, got 31"),
        ("position", 65, "position: expected an integer in 32 to 64, got 65"),
        ("position", "x", "position: expected an integer in 32 to 64, got 'x'"),
        ("offset", 33, "offset: expected an integer in -32 to 32, got 33"),
        ("offset", -33, "offset: expected an integer in -32 to 32, got -33"),
        ("offset", 0.5, "offset: expected an integer in -32 to 32, got 0.5"),
        ("offset", True, "offset: expected an integer in -32 to 32, got True"),
    ],
)
def test_refuses_a_state_that_is_not_there(name, value, message):
    shown = PositionRotation()
    with pytest.raises(ValueError, match=f"^{message}$"):
        setattr(shown, name, value)
    assert (shown.position, shown.offset) == (32, 7)
    with pytest.raises(ValueError, match=f"^{message}$"):
        PositionRotation(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 7}, "d_model: expected an even integer in 4 to 32, got 7"),
        ({"d_model": 2}, "d_model: expected an even integer in 4 to 32, got 2"),
        ({"d_model": 34}, "d_model: expected an even integer in 4 to 32, got 34"),
        ({"d_model": 8.0}, "d_model: expected an even integer in 4 to 32, got 8.0"),
        ({"reach": 1}, "reach: expected an integer in 2 to 64, got 1"),
        ({"reach": 65}, "reach: expected an integer in 2 to 64, got 65"),
        ({"positions": 1}, "positions: expected an integer in 2 to 64, got 1"),
        ({"positions": True}, "positions: expected an integer in 2 to 64, got True"),
        ({"base": 1.0}, "base: expected a finite number above 1, got 1.0"),
        ({"label": " "}, "label: expected a text, got ' '"),
    ],
)
def test_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        PositionRotation(**options)


@pytest.mark.parametrize(
    ("reach", "offsets"), [(64, "1 4 16"), (16, "1 4 16"), (15, "1 4"), (4, "1 4"), (3, "1")]
)
def test_the_table_without_javascript_keeps_to_the_reach(reach, offsets):
    text = PositionRotation(reach=reach, offset=1).html()
    assert re.findall(r"cosine, k\u00a0=\u00a0(\d+)", text) == offsets.split()


def test_short_reaches_begin_inside():
    with pytest.raises(ValueError, match="offset: expected an integer in -3 to 3, got 7"):
        PositionRotation(reach=3, offset=7)
    assert PositionRotation(reach=3, offset=-3).positions == range(3, 36)


# --- in a browser ---------------------------------------------------------------------------


def now(page):
    return page.evaluate(
        "() => { const m = document.querySelector('.component').model;"
        "return [m.get('position'), m.get('offset')] }"
    )


@pytest.mark.browser
@pytest.mark.parametrize("d_model", [4, 16])
def test_every_number_is_libs(show, d_model):
    shown = PositionRotation(d_model=d_model, positions=9, name="rotation")
    page = show(shown, reduced_motion="reduce")
    grid = [(p, k) for p in shown.positions for k in range(-32, 33)]
    read = page.evaluate(
        """grid => {
          const host = document.getElementById("rotation");
          const slide = (name, value) => {
            const input = host.querySelector(`input[name=${name}]`);
            input.value = value;
            input.dispatchEvent(new Event("input", { bubbles: true }));
          };
          const texts = (selector) => [...host.querySelectorAll(selector)].map(n => n.textContent);
          const numbers = (selector, ...names) => [...host.querySelectorAll(selector)]
            .map(n => names.map(name => Number(n.getAttribute(name))));
          return grid.map(([p, k]) => {
            slide("position", p); slide("offset", k);
            return {
              turns: texts(".pr-turn"), cosines: texts(".pr-cosine"), say: texts(".pr-say")[0],
              outputs: texts("output"),
              here: numbers(".pr-clocks line.pr-here", "x2", "y2"),
              there: numbers(".pr-clocks line.pr-there", "x2", "y2"),
              tips: numbers(".pr-clocks circle.pr-there", "cx", "cy"),
              arcs: [...host.querySelectorAll(".pr-clocks path")].map(n => n.getAttribute("d")),
              curve: host.querySelector(".pr-curve").getAttribute("points"),
              now: numbers(".pr-now", "cx", "cy")[0],
              chart: host.querySelector(".pr-chart svg").ariaLabel,
            };
          });
        }""",
        grid,
    )
    assert len(read) == 9 * 65
    table = shown.encoding.tolist()
    for (p, k), got in zip(grid, read, strict=True):
        want = shown.readout(p, k)
        assert got["turns"] == [f"turn {base.fixed(t, 2)}°" for t in want["turns"]]
        assert got["cosines"] == [f"cosine {base.fixed(c, 3)}" for c in want["cosines"]]
        shown.position, shown.offset = p, k
        assert got["say"] == shown._sentence()
        assert got["outputs"] == [str(k).replace("-", "−"), str(p)]
        for i in range(d_model // 2):
            for hands, at in (("here", p), ("there", p + k), ("tips", p + k)):
                assert got[hands][i] == pytest.approx(
                    [table[at][2 * i], -table[at][2 * i + 1]], abs=1e-9
                )
            large, sweep = re.match(r".*A.5 .5 0 (\d) (\d) ", got["arcs"][i]).groups()
            assert large == str(int(abs(want["turns"][i]) % 360 > 180))
            assert sweep == str(int(k >= 0))
        points = [tuple(map(float, pair.split(","))) for pair in got["curve"].split()]
        assert [y for _, y in points] == pytest.approx(
            [55 - 100 * shown.readout(p, j)["product"] / d_model for j in range(-32, 33)], abs=1e-6
        )
        assert got["now"] == pytest.approx(points[k + 32], abs=1e-9)
        assert base.fixed(want["product"], 3) in got["chart"]


@pytest.mark.browser
def test_by_keyboard(show):
    page = show(PositionRotation())
    page.keyboard.press("Tab")
    for key, offset in [("ArrowRight", 8), ("ArrowLeft", 7), ("Home", -32), ("End", 32)]:
        page.keyboard.press(key)
        assert now(page) == [32, offset]
    page.keyboard.press("Home")
    slider = page.get_by_role("slider", name="offset k")
    assert slider.get_attribute("aria-valuetext") == "−32"
    page.keyboard.press("Tab")
    for key, position in [("ArrowRight", 33), ("End", 64), ("Home", 32), ("ArrowRight", 33)]:
        page.keyboard.press(key)
        assert now(page) == [position, -32]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert now(page) == [32, 7]
    assert slider.input_value() == "7"


@pytest.mark.browser
def test_state_can_be_set_from_behind(show):
    shown = PositionRotation()
    page = show(shown)
    page.evaluate("document.querySelector('.component').model.set('offset', -4)")
    page.evaluate("document.querySelector('.component').model.set('position', 50)")
    shown.offset, shown.position = -4, 50
    assert page.locator(".pr-say").text_content() == shown._sentence()
    assert page.get_by_role("slider", name="position p").input_value() == "50"


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows_and_targets_are_large(show, width, script):
    page = show(
        PositionRotation(label="L" * 60),
        PositionRotation(d_model=32, reach=64, positions=64, offset=-64, name="wide"),
        width=width,
        java_script_enabled=script,
    )
    assert page.locator(".component[data-live]").count() == (2 if script else 0)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    heights = page.evaluate(
        "() => [...document.querySelectorAll('.component :is(button, input)')]"
        ".map(n => n.getBoundingClientRect().height)"
    )
    assert len(heights) == (6 if script else 0) and all(height >= 40 for height in heights)


@pytest.mark.browser
def test_readable_without_javascript(show):
    shown = PositionRotation()
    page = show(shown, java_script_enabled=False)
    rows = page.locator("tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == [str(i) for i in range(8)]
    read = [shown.readout(32, k) for k in (1, 4, 16)]
    assert rows[2].split() == ["2", "62.8", *(base.fixed(r["cosines"][2], 3) for r in read)]
    sums = page.locator("tfoot td").all_inner_texts()
    assert sums == [base.fixed(r["product"], 3) for r in read]
    text = page.locator(".component").inner_text()
    assert shown._sentence() in text and "With JavaScript" in text
    assert page.locator("thead th").last.inner_text() == "cosine, k\u00a0=\u00a016"


@pytest.mark.browser
def test_roles_and_names(show):
    page = show(PositionRotation())
    group = page.get_by_role("group", name="Clocks that all turn")
    assert group.get_by_role("slider").count() == 2
    assert group.get_by_role("listitem").count() == 8
    assert group.get_by_role("img", name="A curve over the offset; at 7 it is 5.892.").count() == 1
    assert page.locator(".component [aria-live=polite]").count() == 1


@pytest.mark.parametrize("mode", SURFACES)
def test_hands_are_seen_on_both_surfaces(mode):
    source = (base.Path(base.__file__).with_name(PositionRotation.MODULE)).read_text("utf-8")
    here = "#0072b2" if mode == "light" else "#56b4e9"
    assert f"--here: {here}" in source
    assert f"--there: {COLORS['key'].lower()}" in source
    surface, _ = map(rgb, SURFACES[mode])
    for colour in (here, COLORS["key"], COLORS["scores"]):
        assert contrast(rgb(colour), surface) >= 3
