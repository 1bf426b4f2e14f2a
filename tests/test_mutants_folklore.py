"""Every mistake of the errata, put into lib, is noticed by the test that is there for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutant_suite import suite
from tests.mutants_folklore import FOLKLORE, by_number, lists

# The counterexamples of shared/errata.md, C. There never was a D19.
ERRATA = [
    *["D01", "D02", "D03", "D04", "D05", "D06", "D07", "D08", "D09", "D09b", "D10", "D10b"],
    *["D11", "D11b", "D12", "D13", "D14", "D15", "D16", "D17", "D18", "D20", "D21", "D22", "D23"],
    *["D24", "D25", "D25b", "D25c", "D26", "D27", "D28", "D29", "D30", "D31", "D32", "D33", "D34"],
    *["D35", "D36", "D37", "D38", "D39", "D40", "D41"],
]

(
    outcomes,
    test_every_mutant_dies,
    test_without_a_mistake_the_same_tests_pass,
    test_mutants_are_told_apart,
) = suite(FOLKLORE)


@pytest.mark.parametrize("number", ERRATA)
def test_every_mistake_of_the_errata_is_made_in_lib(number):
    made = number in by_number()
    assert made, f"no list of mutants has one whose reason ends in ({number})"


def test_no_mistake_is_made_twice():
    changes = [row[:3] for row in lists()]
    assert len(set(changes)) == len(changes)


def test_every_list_has_its_suite():
    """What `by_number` finds is proven to die: by the test file of its list."""
    here = Path(__file__).parent
    files = sorted(here.glob("mutants*.py"))
    assert len(files) >= 6
    for file in files:
        text = (here / f"test_{file.name}").read_text("utf8")
        assert f"from tests.{file.stem} import" in text, file.name


def test_numbers_are_read_from_reasons():
    found = by_number()
    assert [row[3] for row in found["D09"]] == ["no scale (D09)"]
    assert "D99" not in found
    assert {row[0] for row in found["D22"]} == {"lib/attention.py"}
