"""CurveExplorer: what it says is what it was given, in Python and on the page."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from lib.activations import gelu, relu, swish
from lib.teaching.components import CurveExplorer, base
from lib.teaching.components.curve_explorer import CYCLE, DASHES, short
from lib.teaching.figures import COLORS
from tests.browser import sticking_out
from tests.teaching.test_components import Parts, page_state

X = torch.arange(-20, 21, dtype=torch.float64) / 5
BETAS = [0.5, 1.0, 1.702, 3.0, 8.0]


def swishes(**options):
    """The curves of chapter 05: Swish for some β, beside GELU and ReLU."""
    curves = torch.stack([swish(X, beta) for beta in BETAS])
    options = {
        "references": {"ReLU": relu(X), "GELU": gelu(X)},
        "readouts": {
            "largest gap to ReLU": (curves - relu(X)).abs().amax(1),
            "remark": ["", "SiLU", "near GELU", "", "near ReLU"],
        },
        "parameter": "β",
        "label": "Swish between a line and ReLU",
        "value": 1.0,
        "name": "curves",
    } | options
    return CurveExplorer(X, BETAS, {"Swish": curves}, **options)


# --- in Python ------------------------------------------------------------------------------


def test_readout_is_what_was_given():
    shown = swishes()
    for beta in BETAS:
        for x in X.tolist():
            read = shown.readout(beta, x)
            here = torch.tensor(x, dtype=torch.float64)
            want = {"Swish": swish(here, beta), "ReLU": relu(here), "GELU": gelu(here)}
            assert read["lines"] == {
                name: pytest.approx(y.item(), abs=1e-15) for name, y in want.items()
            }
            for name, text in read["shown"].items():
                assert float(text.replace("−", "-")) == pytest.approx(
                    want[name].item(), abs=0.000501
                )
            gap = (swish(X, beta) - relu(X)).abs().max().item()
            assert read["readouts"]["largest gap to ReLU"] == base.fixed(gap, 3)


def test_sentence():
    shown = CurveExplorer(
        [-1, 0, 2],
        [0.5, 10],
        {"a": [[-1, 0, 1.25], [-0.0004, 3, 4]], "b": [[0, 0, 0], [1, 1, 1.9996]]},
        references={"c": [5, 6, 7]},
        readouts={"gap": [1, 2.5], "said": ["low", "high"]},
        parameter="T",
        x_name="logit",
        label="L",
        value=10,
        at=2,
    )
    assert shown.readout(10, 2)["sentence"] == (
        "T = 10, logit = 2: a 4.000; b 2.000; c 7.000; gap 2.500; said high."
    )
    assert shown.readout(0.5, -1)["sentence"] == (
        "T = 0.5, logit = −1: a −1.000; b 0.000; c 5.000; gap 1.000; said low."
    )
    assert shown.readout(10, -1)["shown"]["a"] == "0.000"  # a rounded zero has no sign
    assert repr(shown) == f"L. {shown.readout(10, 2)['sentence']}"


def test_state_starts_in_the_middle_and_forgives_rounding():
    shown = CurveExplorer(X, BETAS, {"c": torch.zeros(5, 41)}, limits=(-1, 1))
    assert (shown.value, shown.at) == (1.702, X[20].item())
    shown.at = -1.2 + 1e-12
    assert shown.at == X[14].item()
    shown.value = 3
    assert shown.value == 3.0
    heard = []
    shown.observe(lambda change: heard.append(change["new"]), "value")
    shown.value = 8.0
    assert heard == [8.0] and "parameter = 8," in shown.summary()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("value", 1.5, r"value: expected one of the given ones, as 1.702, got 1.5"),
        ("at", 4.1, r"at: expected one of the given ones, as 4, got 4.1"),
        ("value", 1.7019, r"value: expected one of the given ones, as 1.702, got 1.7019"),
        ("at", math.nan, r"at: expected a finite number, got nan"),
        ("value", "1", r"value: expected a finite number, got '1'"),
        ("value", True, r"value: expected a finite number, got True"),
    ],
)
def test_refuses_a_state_that_is_not_there(name, value, message):
    shown = swishes(at=1.0)
    with pytest.raises(ValueError, match=f"^{message}$"):
        setattr(shown, name, value)
    assert (shown.value, shown.at) == (1.0, 1.0)
    with pytest.raises(ValueError, match=f"^{message}$"):
        swishes(**{name: value})


GOOD = {"c": [[0, 1], [2, 3]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": [1]}, r"x: expected a row of 2 numbers or more, got shape \(1,\)"),
        ({"x": [[1, 2]]}, r"x: expected a row of 2 numbers or more, got shape \(1, 2\)"),
        ({"x": [1, 1]}, r"x: expected ascending numbers, got 1 before 1"),
        ({"values": [2, 1]}, r"values: expected ascending numbers, got 2 before 1"),
        ({"x": [1, math.inf]}, r"x: expected finite numbers, got inf"),
        ({"x": [True, False]}, r"x: expected real numbers, got torch.bool"),
        ({"curves": {}}, r"curves: expected one curve or more, got none"),
        ({"curves": [1]}, r"curves: expected a dict \{name: tensor\}, got list"),
        ({"curves": {1: [[0, 1], [2, 3]]}}, r"curves: expected a curve's name as key, got 1"),
        (
            {"curves": {"c": [0, 1]}},
            r"curves\['c'\]: expected shape \(2, 2\), got shape \(2,\)",
        ),
        (
            {"curves": {"c": [[0, 1, 2], [0, 1, 2]]}},
            r"curves\['c'\]: expected shape \(2, 2\), got shape \(2, 3\)",
        ),
        (
            {"curves": {"c": [[0, math.nan], [0, 1]]}},
            r"curves\['c'\]: expected finite numbers, got nan",
        ),
        (
            {"references": {"r": [[0, 1], [0, 1]]}},
            r"references\['r'\]: expected shape \(2,\), got shape \(2, 2\)",
        ),
        ({"references": {"c": [0, 1]}}, r"references: expected other names .*, got 'c'"),
        (
            {"references": {name: [0, 1] for name in "abdefg"}},
            r"curves: expected at most 6 lines, got 7",
        ),
        ({"readouts": [1, 2]}, r"readouts: expected a dict \{title: one a value\}, got list"),
        ({"readouts": {"": [1, 2]}}, r"readouts: expected a title as key, got ''"),
        ({"readouts": {"r": [1]}}, r"readouts\['r'\]: expected shape \(2,\), got shape \(1,\)"),
        ({"readouts": {"r": ["a"]}}, r"readouts\['r'\]: expected 2 texts, got 1"),
        ({"colors": {"d": "key"}}, r"colors: expected names from \['c'\], got 'd'"),
        ({"colors": {"c": "red"}}, r"colors\['c'\]: expected one of \['query', .*, got 'red'"),
        ({"digits": 9}, r"digits: expected an integer in 0 to 8, got 9"),
        ({"digits": 1}, r"digits: expected enough for 200 steps from -0.12 to 3.12, got 1"),
        ({"limits": (1, 0)}, r"limits: expected two ascending numbers, got \(1, 0\)"),
        ({"label": " "}, r"label: expected a text, got ' '"),
        ({"parameter": ""}, r"parameter: expected a text, got ''"),
        ({"x_name": None}, r"x_name: expected a text, got None"),
        ({"y_name": 2}, r"y_name: expected a text, got 2"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    given = {"x": [0, 1], "values": [1, 2], "curves": GOOD} | changes
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        CurveExplorer(**given)
    assert "\n" not in str(caught.value)


def test_takes_what_chapters_have():
    curve = torch.rand(5, 41, requires_grad=True)
    for given in (curve, curve.half(), curve.detach().numpy(), curve.tolist()):
        shown = CurveExplorer(X.numpy(), tuple(BETAS), {"c": given})
        assert shown.curves["c"].dtype == torch.float64 and not shown.curves["c"].requires_grad
    whole = CurveExplorer(range(3), range(2), {"c": np.arange(6).reshape(2, 3)})
    assert whole.readout(1, 2)["shown"] == {"c": "5.000"}


def test_data_are_small_whole_numbers():
    data = page_state(swishes())["data"]
    curve = data["lines"][0]
    assert [len(line["y"]) for line in data["lines"]] == [5, 1, 1]
    want = [[math.floor(1000 * y + 0.5) for y in swish(X, beta).tolist()] for beta in BETAS]
    assert curve["y"] == want
    assert [line["name"] for line in data["lines"]] == ["Swish", "ReLU", "GELU"]
    assert [line["dash"] for line in data["lines"]] == list(DASHES[:3])
    grey = COLORS["reference"]
    assert [line["color"] for line in data["lines"]] == [COLORS["query"], grey, grey]
    x = torch.linspace(-4, 4, 161)
    many = {"a": torch.rand(33, 161), "b": torch.rand(33, 161)}
    assert len(CurveExplorer(x, range(33), many).html().encode()) < 110_000


def test_colours_and_limits_can_be_chosen():
    shown = swishes(colors={"Swish": "weights", "GELU": "output"}, limits=(-1, 2), digits=4)
    data = page_state(shown)["data"]
    assert [line["color"] for line in data["lines"]] == [
        COLORS["weights"],
        COLORS["reference"],
        COLORS["output"],
    ]
    assert data["limits"] == [-1.0, 2.0] and data["digits"] == 4
    assert data["ticks"][1] == [[-1.0, "−1"], [0.0, "0"], [1.0, "1"], [2.0, "2"]]
    assert shown.readout(1.0, 1.0)["shown"]["Swish"] == "0.7311"


def test_limits_hold_all_and_a_margin():
    low, high = swishes().limits
    lowest = min(swish(X, beta).min().item() for beta in BETAS)
    span = 4 - lowest
    assert low == pytest.approx(lowest - 0.04 * span)
    assert high == pytest.approx(4 + 0.04 * span)
    ticks = page_state(swishes())["data"]["ticks"]
    assert [place for place, _ in ticks[0]] == [-4, -2, 0, 2, 4]
    assert [place for place, _ in ticks[1]] == [0, 1, 2, 3, 4]  # none outside the picture
    flat = CurveExplorer([0, 1], [1, 2], {"c": [[3, 3], [3, 3]]})
    assert flat.limits == (2.0, 4.0)


def test_two_hundred_steps_are_enough_and_one_less_is_not():
    flat = {"c": [[1.0, 1.0], [1.0, 1.0]]}
    assert CurveExplorer([0, 1], [1, 2], flat, digits=2, limits=(0, 2)).digits == 2
    with pytest.raises(ValueError, match="expected enough for 200 steps"):
        CurveExplorer([0, 1], [1, 2], flat, digits=2, limits=(0, 1.99))


def test_ticks_are_round_and_the_ends_among_them():
    shown = CurveExplorer([0, 0.1, 0.3], [1, 2], {"c": torch.zeros(2, 3)}, limits=(0, 0.3))
    ticks = page_state(shown)["data"]["ticks"]
    assert ticks[0] == ticks[1] == [[0.0, "0"], [0.1, "0.1"], [0.2, "0.2"], [0.3, "0.3"]]


def test_the_picture_is_that_of_the_chosen_value():
    two = {"c": [[0.0, 0.0], [1.0, 1.0]]}
    heights = [
        re.search(r'points="0\.0,([\d.]+) ', CurveExplorer([0, 1], [1, 2], two, value=v).html())[1]
        for v in (1, 2)
    ]
    assert heights == ["963.0", "37.0"]


def test_a_readout_has_a_true_zero():
    shown = CurveExplorer([0, 1], [1, 2], GOOD, readouts={"r": [-0.0, -1.0]})
    assert [shown.readout(v, 0)["readouts"]["r"] for v in (1, 2)] == ["0.000", "−1.000"]


def test_rounding_is_forgiven_to_a_billionth_of_the_width():
    shown = CurveExplorer([0, 1000], [1, 2], GOOD)
    assert shown.readout(1, 1000 + 9e-7) == shown.readout(1, 1000)
    with pytest.raises(ValueError, match=r"as 1000, got 1000\.0000"):
        shown.readout(1, 1000 + 2e-6)


def test_every_line_looks_different():
    assert len(set(DASHES)) == len(DASHES) == len(CYCLE) == len(set(CYCLE))


def test_places_are_short():
    assert [short(v) for v in (1.0, -0.25, -0.0, 1.702, 1e-5, 123456.0)] == [
        "1",
        "−0.25",
        "0",
        "1.702",
        "1e−05",
        "1.235e+05",
    ]


def test_fallback_holds_a_picture_and_a_table():
    shown = swishes()
    text = shown.html()
    parts = Parts(text)
    assert parts.tags.count("polyline") == 3 and parts.tags.count("tr") == 1 + 5
    assert shown.readout(1.0, 0.0)["sentence"] in parts.text
    assert "x from −4 to 4, y from −0.7391 to 4.182." in parts.text
    # the curve of β = 1 begins at (0, its height), 1000 units high
    low, high = shown.limits
    y = round(1000 * swish(torch.tensor(-4.0), 1.0).item()) / 1000
    assert f'points="0.0,{1000 * (high - y) / (high - low):.1f} ' in text
    many = CurveExplorer([0, 1], range(33), {"c": torch.rand(33, 2)}, value=3)
    rows = [int(t.split("</th>")[0]) for t in many.html().split('scope="row">')[1:8]]
    assert rows == [0, 3, 5, 11, 16, 21, 27]


def test_names_are_text():
    shown = CurveExplorer(
        [0, 1],
        [1, 2],
        {"</script><b>": [[0, 1], [2, 3]]},
        readouts={"<i>": ["&", '"']},
        parameter="<u>",
        x_name="<s>",
        label="</script> & <q>",
        name="nasty",
    )
    parts = Parts(shown.html())
    assert len(parts.scripts) == 2 and not {"b", "i", "u", "s", "q"} & set(parts.tags)
    assert json.loads(parts.scripts[0][1])["data"]["lines"][0]["name"] == "</script><b>"


# --- in a browser ---------------------------------------------------------------------------


def state_of(page):
    return page.evaluate(
        "() => { const m = document.getElementById('curves').model;"
        "return [m.get('value'), m.get('at')] }"
    )


@pytest.mark.browser
def test_every_number_shown_is_libs(show):
    shown = swishes()
    page = show(shown)
    read = page.evaluate(
        """() => {
          const host = document.getElementById("curves");
          const [value, at] = host.querySelectorAll("input");
          const put = (node, to) => { node.value = to; node.dispatchEvent(new Event("input")); };
          const texts = (what) => [...host.querySelectorAll(what)].map((n) => n.textContent);
          const area = host.querySelector(".ce-area").getBoundingClientRect();
          const read = [];
          for (let i = 0; i < 5; i++) for (let j = 0; j < 41; j++) {
            put(value, i); put(at, j);
            read.push({
              lines: texts("[data-line]"), readouts: texts("[data-readout]"),
              outputs: texts("output"), sentence: texts(".ce-say")[0],
              points: [...host.querySelectorAll("polyline")].map((n) => n.getAttribute("points")),
              dots: [...host.querySelectorAll(".ce-dot")].map((n) => {
                const box = n.getBoundingClientRect();
                return [((box.left + box.right) / 2 - area.left) / area.width,
                        ((box.top + box.bottom) / 2 - area.top) / area.height];
              }),
            });
          }
          return read;
        }"""
    )
    assert len(read) == 5 * 41
    low, high = shown.limits
    for k, got in enumerate(read):
        value, at = BETAS[k // 41], X[k % 41].item()
        want = shown.readout(value, at)
        assert got["lines"] == list(want["shown"].values())
        assert got["readouts"] == list(want["readouts"].values())
        assert got["outputs"] == [short(value), short(at)]
        assert got["sentence"] == want["sentence"]
        for (left, top), y in zip(got["dots"], want["lines"].values(), strict=True):
            assert left == pytest.approx((at + 4) / 8, abs=0.005)
            assert top == pytest.approx((high - y) / (high - low), abs=0.008)
        swished, straight = got["points"][0].split(" "), got["points"][1].split(" ")
        assert len(swished) == len(straight) == 41
        for pair, x, y in zip(swished, X.tolist(), swish(X, value).tolist(), strict=True):
            left, top = map(float, pair.split(","))
            assert left == pytest.approx(100 * (x + 4) / 8)
            assert top == pytest.approx(100 * (high - y) / (high - low), abs=0.02)


@pytest.mark.browser
def test_by_keyboard(show):
    page = show(swishes(at=0.0), width=360)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert state_of(page) == [1.702, 0]
    slider = page.get_by_role("slider", name="β")
    assert slider.get_attribute("aria-valuetext") == "β 1.702"
    page.keyboard.press("End")
    assert state_of(page) == [8, 0]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert state_of(page) == [8, X[19].item()]
    assert page.get_by_role("slider", name="x").get_attribute("aria-valuetext") == "x −0.2"
    page.keyboard.press("Home")
    assert state_of(page) == [8, -4]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert state_of(page) == [1, 0]
    assert (
        page.locator("#curves .ce-say").text_content() == (swishes().readout(1.0, 0.0)["sentence"])
    )


@pytest.mark.browser
def test_by_mouse(show):
    page = show(swishes())
    box = page.locator("#curves .ce-area").bounding_box()
    inner = box["width"] - 1, box["x"] + 1
    page.mouse.click(inner[1] + inner[0] * 0.25, box["y"] + 30)
    assert state_of(page) == [1, X[10].item()]
    page.mouse.move(inner[1] + inner[0] * 0.25, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(inner[1] + inner[0] * 0.755, box["y"] + 30)
    assert state_of(page) == [1, X[30].item()]
    page.mouse.move(box["x"] + 2 * box["width"], box["y"] + 90)  # the drag goes on outside
    assert state_of(page) == [1, 4]
    page.mouse.up()
    page.mouse.move(box["x"] + 20, box["y"] + 90)
    assert state_of(page) == [1, 4]


@pytest.mark.browser
def test_touch_and_targets(show):
    page = show(swishes(), width=320, has_touch=True)
    box = page.locator("#curves .ce-area").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 40)
    assert state_of(page)[1] == pytest.approx(0, abs=0.11)
    before = state_of(page)
    press = {"pointerType": "touch", "bubbles": True, "buttons": 1, "clientX": 60}
    page.locator("#curves .ce-area").dispatch_event("pointerdown", press)
    assert state_of(page) == before
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('.ce button, .ce input')]"
        ".map(n => n.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len(sizes) == 3 and all(min(size) >= 40 for size in sizes)


@pytest.mark.browser
def test_state_can_be_set_from_behind(show):
    shown = swishes()
    page = show(shown)
    page.evaluate("document.getElementById('curves').model.set('value', 8)")
    page.evaluate("document.getElementById('curves').model.set('at', 4)")
    say = page.locator("#curves .ce-say")
    assert say.text_content() == shown.readout(8.0, 4.0)["sentence"]
    assert page.get_by_role("slider", name="β").input_value() == "4"


@pytest.mark.browser
def test_a_point_outside_the_picture_is_not_drawn(show):
    page = show(swishes(limits=(-0.5, 1.0), at=4.0))
    dots = page.locator("#curves .ce-dot")
    assert [dots.nth(k).is_visible() for k in range(3)] == [False] * 3
    assert page.locator("#curves [data-line=ReLU]").text_content() == "4.000"
    page.evaluate("document.getElementById('curves').model.set('at', 0)")
    assert [dots.nth(k).is_visible() for k in range(3)] == [True] * 3


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows(show, width, script):
    page = show(swishes(label="L" * 60), width=width, java_script_enabled=script)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if script:
        ticks = page.evaluate(
            "() => [...document.querySelectorAll('.ce-across')].map(n => n.getBoundingClientRect())"
            ".map(r => [r.left, r.right])"
        )
        assert all(a[1] < b[0] for a, b in pairwise(ticks))
    else:
        assert page.locator(".ce-picture polyline").count() == 3
        assert "With JavaScript β and x can be moved." in page.locator("#curves").inner_text()


@pytest.mark.browser
def test_roles_theme_and_neighbours(show):
    shown = swishes()
    page = show(shown, shown, mode="dark", color_scheme="light")
    page.wait_for_function("document.querySelectorAll('.ce[data-mode=dark]').length === 2")
    group = page.locator("#curves").get_by_role("group", name="Swish between a line and ReLU")
    assert group.get_by_role("slider").count() == 2
    assert group.get_by_role("img", name="Swish between a line and ReLU: Swish, ReLU").count() == 1
    assert group.get_by_role("row").count() == 5
    assert page.locator("#curves .ce-static, #curves .ce-picture").count() == 0
    assert page.locator("#curves [aria-live=polite]").count() == 1
    page.locator("#curves-2 input").first.fill("4")
    assert page.locator("#curves-2 output").first.text_content() == "8"
    assert state_of(page) == [1, 0]
