"""ShapleyGame: its means are lib.interpret's values, and a browser shows the same."""

from __future__ import annotations

import itertools
import json
import random

import pytest
import torch

from lib.interpret.shapley import shapley_values
from lib.teaching.components import ShapleyGame, base
from lib.teaching.components.shapley_game import COALITIONS, EXAMPLES, ORDERS
from tests.browser import sticking_out
from tests.teaching.test_components import SURFACES, Parts

GAMES = [*EXAMPLES.values(), [1, 2, 3, 4, 5, 6, 7], [12, 0, 1, 0, 5, 11, 0]]


def game(**options):
    return ShapleyGame(**{"name": "shares"} | options)


@pytest.mark.parametrize("worths", GAMES)
def test_the_means_are_libs_values(worths):
    worth = torch.tensor([0, *worths])
    want = shapley_values(lambda s: worth[(s * torch.tensor([1, 2, 4])).sum(1)], 3)
    shown = game(worths=worths)
    read = shown.readout()
    assert read["values"] == pytest.approx(want.tolist(), abs=1e-12)
    assert shown.readout(worths) == read == game().readout(worths)
    for order, row in zip(ORDERS, read["gains"], strict=True):
        assert row[order[0]] == worth[1 << order[0]]
        assert sum(row) == worths[-1]


def test_orders_and_coalitions():
    assert sorted(ORDERS) == sorted(itertools.permutations(range(3)))
    assert COALITIONS == ((0,), (1,), (0, 1), (2,), (0, 2), (1, 2), (0, 1, 2))


def test_examples_are_what_they_are_called():
    values = {what: game(worths=of).readout()["values"] for what, of in EXAMPLES.items()}
    assert values == {
        "gloves": [8, 2, 2],
        "majority": [4, 4, 4],
        "additive": [2, 4, 6],
        "a dummy": [6, 6, 0],
    }


def test_sentence():
    shown = game(worths=[1, 2, 3, 4, 5, 6, 0], label="L", players=["x", "y", "z"])
    assert repr(shown) == (
        "L: Shapley values: x −1.33, y −0.33, z 1.67. They sum to 0, the worth of all three."
    )
    shown.worths = [0, 0, 0, 0, 0, 0, 12]
    assert shown.summary().startswith("L: Shapley values: x 4.00, y 4.00, z 4.00. They sum to 12")


@pytest.mark.parametrize(
    "worths",
    [[1] * 6, [1] * 8, [0, 0, 0, 0, 0, 0, 13], [-1] * 7, [True] * 7, [1.0] * 7, "1234567", 3],
)
def test_refuses_worths_that_do_not_fit(worths):
    shown = game()
    with pytest.raises(ValueError, match=r"^worths: expected seven integers from 0 to 12, got"):
        shown.worths = worths
    assert shown.worths == EXAMPLES["gloves"]
    with pytest.raises(ValueError, match=r"^examples\['x'\]: expected seven integers"):
        game(examples={"x": worths})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"players": ["a", "b"]}, r"players: expected three names, got \['a', 'b'\]"),
        ({"players": ["a", "b", " "]}, r"players: expected three names"),
        ({"players": ["a", "b", 3]}, r"players: expected three names"),
        ({"players": ["a", "b", "a"]}, r"players: expected three different names"),
        ({"label": " "}, r"label: expected a text, got ' '"),
        ({"examples": {}}, r"examples: expected one game or more, got none"),
    ],
)
def test_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        game(**options)


def test_fallback_shows_every_order():
    parts = Parts(game(players=["<b>", "B", "C"], label="<u>").html())
    assert not {"b", "u"} & set(parts.tags)
    assert game(players=["<b>", "B", "C"])._sentence() in parts.text
    assert parts.tags.count("tr") == 8 and "B, <b>, C" in parts.text
    assert "<b> and C 12" in parts.text and "8.00" in parts.text
    data = json.loads(parts.scripts[0][1])["data"]
    assert data["examples"] == [[what, of] for what, of in EXAMPLES.items()]
    assert data["orders"] == [list(order) for order in ORDERS]


# --- in a browser ---------------------------------------------------------------------------


def state_of(page):
    return page.evaluate("document.getElementById('shares').model.get('worths')")


@pytest.mark.browser
def test_every_number_shown_is_pythons(show):
    rng = random.Random(0)
    games = [*GAMES, *([rng.randint(0, 12) for _ in range(7)] for _ in range(200))]
    shown = game()
    page = show(shown)
    read = page.evaluate(
        """(games) => {
          const host = document.getElementById("shares");
          const inputs = host.querySelectorAll("input");
          const texts = (what) => [...host.querySelectorAll(what)].map((n) => n.textContent);
          return games.map((worths) => {
            worths.forEach((worth, k) => {
              inputs[k].value = worth;
              inputs[k].dispatchEvent(new Event("input"));
            });
            return {
              state: host.model.get("worths"), outputs: texts("output"), gains: texts("tbody td"),
              means: texts("tfoot td"), sentence: texts(".sg-say")[0],
              below: [...host.querySelectorAll(".sg-bar")].map((n) => "below" in n.dataset),
              widths: [...host.querySelectorAll(".sg-bar")].map((n) => n.style.width),
            };
          });
        }""",
        games,
    )
    for worths, got in zip(games, read, strict=True):
        shown.worths = worths
        want = shown.readout()
        assert got["state"] == worths and got["outputs"] == [str(x) for x in worths]
        assert got["gains"] == [base.fixed(x, 0) for row in want["gains"] for x in row]
        assert got["means"] == [base.fixed(x, 2) for x in want["values"]]
        assert got["below"] == [x < 0 for x in want["values"]]
        assert got["sentence"] == shown._sentence()
        for width, x in zip(got["widths"], want["values"], strict=True):
            assert float(width.removesuffix("%")) == pytest.approx(
                min(100, abs(x) / 0.12), abs=1e-3
            )


@pytest.mark.browser
def test_by_keyboard_and_buttons(show):
    page = show(game(), width=360)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert state_of(page) == [1, 0, 12, 0, 12, 0, 12]
    slider = page.get_by_role("slider", name="A", exact=True)
    assert slider.get_attribute("aria-valuetext") == "A: worth 1"
    assert page.get_by_role("slider", name="A and C").get_attribute("aria-valuetext") == (
        "A and C: worth 12"
    )
    for name, worths in EXAMPLES.items():
        page.get_by_role("button", name=name).click()
        assert state_of(page) == worths
    page.get_by_role("slider", name="A and B and C").focus()
    page.keyboard.press("Home")
    assert state_of(page)[-1] == 0
    assert EXAMPLES["a dummy"][-1] == 12  # the example itself has not moved
    page.get_by_role("button", name="a dummy").click()
    assert state_of(page) == EXAMPLES["a dummy"]
    page.get_by_role("button", name="reset").click()
    assert state_of(page) == EXAMPLES["gloves"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows_and_fingers_fit(show, width, script):
    names = ["antidisestablishmentarianism", "B" * 20, "C"]
    page = show(game(players=names, label="L" * 60), width=width, java_script_enabled=script)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if script:
        sizes = page.evaluate(
            "() => [...document.querySelectorAll('button, input')]"
            ".map(n => n.getBoundingClientRect()).map(r => [r.width, r.height])"
        )
        assert len(sizes) == 12 and min(map(min, sizes)) >= 24


@pytest.mark.browser
@pytest.mark.parametrize("mode", list(SURFACES))
def test_accessible(show, mode):
    from axe_playwright_python.sync_playwright import Axe

    page = show(game(), mode=mode)
    page.wait_for_function(f"document.querySelector('.sg').dataset.mode === '{mode}'")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.browser
def test_state_from_behind_and_cleaned_up(show):
    shown = game()
    page = show(shown)
    page.evaluate("document.getElementById('shares').model.set('worths', [1, 2, 3, 4, 5, 6, 7])")
    shown.worths = [1, 2, 3, 4, 5, 6, 7]
    assert page.locator("#shares .sg-say").text_content() == shown._sentence()
    left = page.evaluate(
        "() => { const host = document.getElementById('shares'); host.dispose();"
        "host.model.set('worths', [0, 0, 0, 0, 0, 0, 0]);"
        "return host.querySelectorAll('.sg').length }"
    )
    assert left == 0


@pytest.mark.browser
def test_readable_without_javascript(show):
    page = show(game(), java_script_enabled=False)
    text = page.locator("#shares").inner_text()
    assert "With JavaScript" in text and game()._sentence() in text
