"""TileStepper: what it says is what was computed, in Python and on the page."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lib.teaching.components import TileStepper
from lib.teaching.components.tile_stepper import shown
from lib.teaching.tiles import in_tiles, memory_of
from tests.browser import sticking_out
from tests.teaching.test_components import Parts, page_state


def stepper(**options):
    return TileStepper(7, 3, (2, 3, 7), **{"name": "tiles", "seed": 1} | options)


def every_state(component):
    for q, k, causal in itertools.product(component.sizes, component.sizes, (False, True)):
        for step in range(len(component.runs[q, k, causal])):
            yield q, k, causal, step


def test_every_step_is_that_of_the_tiles():
    component = stepper()
    generator = torch.Generator().manual_seed(1)
    x = [2 * torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    for q, k, causal in itertools.product((2, 3, 7), (2, 3, 7), (False, True)):
        for step, tile in enumerate(in_tiles(memory_of(*x), q, k, causal=causal)):
            read = component.readout(q, k, causal, step)
            assert read["moved"] == tile.moved
            for (i, m, total), row in zip(read["rows"], range(len(tile.total)), strict=True):
                assert i == tile.queries.start + row
                assert m == shown(tile.maximum[row].item())
                assert total == shown(tile.total[row].item())


def test_sentence():
    component = stepper()
    assert component.readout(2, 3, True, 4)["sentence"] == (
        "Tile 5 of 8: queries 4 to 5 meet keys 3 to 5, with the mask; "
        "124 elements moved so far, 280 with the table."
    )
    assert component.readout(2, 3, True, 3)["sentence"].startswith(
        "Tile 4 of 8: queries 4 to 5 meet keys 0 to 2, no mask needed; "
    )
    assert component.table == 4 * 49 + 4 * 21


def test_numbers_are_shown_with_two_decimals():
    assert [shown(x) for x in (-math.inf, -1.005, 0.0, 2.5)] == ["−∞", "−1.00", "0.00", "2.50"]


def test_state_stays_inside():
    component = stepper(block_q=2, block_k=2, causal=False, step=15)
    component.block_q = 7
    assert (component.block_q, component.step) == (7, 3)
    component.causal = True
    assert component.step == 3
    assert component.readout(7, 2, True, 3)["sentence"] in component.summary()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, r"n: expected an integer in 2 to 24, got 1"),
        ({"n": 25}, r"n: expected an integer in 2 to 24, got 25"),
        ({"d": 0}, r"d: expected an integer in 1 to 256, got 0"),
        ({"sizes": ()}, r"sizes: expected ascending integers in 1 to 5, got \(\)"),
        ({"sizes": (3, 2)}, r"sizes: expected ascending integers in 1 to 5, got \(3, 2\)"),
        ({"sizes": (2, 6)}, r"sizes: expected ascending integers in 1 to 5, got \(2, 6\)"),
        ({"block_q": 4}, r"block_q: expected one of 2, 3, got 4"),
        ({"block_k": 1}, r"block_k: expected one of 2, 3, got 1"),
        ({"causal": 1}, r"causal: expected True or False, got 1"),
        ({"step": 3}, r"step: expected one of 0 to 2, got 3"),
        ({"label": ""}, r"label: expected a text, got ''"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TileStepper(**{"n": 5, "d": 2, "sizes": (2, 3)} | changes)


def test_fallback_reads_without_script():
    component = stepper(block_q=3, block_k=2)
    parts = Parts(component.html())
    assert component.readout(3, 2, True, 0)["sentence"] in parts.text
    assert parts.tags.count("tr") == (1 + 3) + (1 + 9)
    assert len(page_state(component)["data"]["runs"]) == 18


@pytest.mark.browser
def test_every_state_on_the_page(show):
    component = stepper()
    page = show(component)
    states = list(every_state(component))
    read = page.evaluate(
        """(states) => {
          const host = document.getElementById("tiles");
          const texts = (what) => [...host.querySelectorAll(what)].map((n) => n.textContent);
          return states.map(([q, k, causal, step]) => {
            host.model.set("step", 0);
            host.model.set("block_q", q); host.model.set("block_k", k);
            host.model.set("causal", causal); host.model.set("step", step);
            const now = host.querySelector(".tl-now");
            return {
              sentence: texts(".tl-say")[0], m: texts("[data-m]"), l: texts("[data-l]"),
              at: ["y", "x"].map((name) => Number(now.getAttribute(name))),
              done: host.querySelectorAll(".tl-done").length,
              never: host.querySelectorAll(".tl-never").length,
            };
          });
        }""",
        states,
    )
    for (q, k, causal, step), got in zip(states, read, strict=True):
        want = component.readout(q, k, causal, step)
        assert got["sentence"] == want["sentence"]
        assert got["m"] == [m for _, m, _ in want["rows"]]
        assert got["l"] == [total for _, _, total in want["rows"]]
        assert got["at"] == [want["tile"].queries.start, want["tile"].keys.start]
        assert got["done"] == step
        tiles = math.ceil(7 / q) * math.ceil(7 / k)
        assert got["never"] == tiles - len(component.runs[q, k, causal])


@pytest.mark.browser
def test_by_keyboard(show):
    page = show(stepper(block_q=2, block_k=2, causal=True))
    state = (
        "() => { const m = document.getElementById('tiles').model;"
        "return ['block_q', 'block_k', 'causal', 'step'].map((n) => m.get(n)) }"
    )
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(state) == [3, 2, True, 0]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.evaluate(state) == [3, 2, False, 0]
    page.get_by_role("button", name="← previous").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(state) == [3, 2, False, 11]
    page.get_by_role("checkbox", name="hide the future").focus()
    page.keyboard.press("Space")
    assert page.evaluate(state) == [3, 2, True, 8]
    page.get_by_role("button", name="next →").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(state) == [3, 2, True, 0]
    page.get_by_role("button", name="reset").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(state) == [2, 2, True, 0]


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_overflows_and_targets_are_large(show, width):
    page = show(TileStepper(24, 2, (2, 12), name="tiles"), width=width)
    assert sticking_out(page) == []
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('button, select, input')]"
        ".map((n) => Math.min(n.getBoundingClientRect().width, n.getBoundingClientRect().height))"
    )
    assert len(sizes) == 6 and min(sizes) >= 24
