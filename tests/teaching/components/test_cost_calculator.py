"""CostCalculator: its counts are lib.cost's, and a browser shows the same."""

from __future__ import annotations

import random

import pytest

from lib import cost
from lib.models.gpt2 import GPT2Config
from lib.teaching.components import CostCalculator
from lib.teaching.components.cost_calculator import DTYPES, PARTS
from tests.teaching.components.test_number_form import least_and_most, state_of, typed

PRESETS = CostCalculator.PRESETS
EXTREMES = [least_and_most(CostCalculator)[0], [128, 128, 128, 8192, 64, 100003, 4]]


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


def test_the_bytes_are_those_of_the_dtypes():
    assert dict(CostCalculator.fields()[-1].options) == {
        dtype.itemsize: f"{dtype.itemsize}: {str(dtype).removeprefix('torch.')}"
        for dtype in DTYPES.values()
    }
    assert {size: dtype.itemsize for size, dtype in DTYPES.items()} == {2: 2, 4: 4}


# --- in a browser ---------------------------------------------------------------------------


@pytest.mark.browser
def test_every_number_shown_is_libs(show):
    rng = random.Random(0)
    drawn = [
        [
            *(rng.randint(1, 40) for _ in range(3)),
            rng.randint(2, 3000),
            rng.randint(1, 40),
            rng.randint(2, 60000),
            rng.choice([2, 4]),
        ]
        for _ in range(150)
    ]
    shown = calculator()
    cases = [*PRESETS.values(), *EXTREMES, [3, 5, 7, 11, 1, 13, 4], *drawn]
    for given, got in typed(show(shown), cases):
        shown.sizes = given
        assert got["state"] == given
        assert got["texts"] == shown.shown()
        assert got["sentence"] == shown._sentence()
        counts = shown.readout()
        bars = {part: 100 * counts[part] / counts["peak"] for part in PARTS}
        assert got["bars"] == pytest.approx(bars, rel=1e-3, abs=1e-3)


@pytest.mark.browser
def test_bytes_are_chosen(show):
    page = show(calculator())
    bytes_of_a_number = page.get_by_role("combobox", name="bytes of a number")
    assert bytes_of_a_number.locator("option").all_text_contents() == ["4: float32", "2: bfloat16"]
    bytes_of_a_number.select_option("2: bfloat16")
    assert state_of(page) == [*PRESETS["GPT-2"][:-1], 2]
    bytes_of_a_number.press("ArrowUp")
    assert state_of(page) == PRESETS["GPT-2"]
