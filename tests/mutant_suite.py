"""The tests of a list of mutants, for the files that each hold one list."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.mutants import Mutant
from tests.test_mutants import run


def suite(lists: Sequence[tuple[str, ...]]) -> tuple[Callable, ...]:
    """Return the fixture `outcomes` and three tests: all die, controls pass, none is twice."""
    mutants = [Mutant(*fields) for fields in lists]

    @pytest.fixture(scope="module")
    def outcomes():
        return {(outcome.path, outcome.why): outcome for outcome in run(mutants)}

    @pytest.mark.mutants
    @pytest.mark.parametrize("mutant", mutants, ids=lambda mutant: f"{mutant.path}: {mutant.why}")
    def every_mutant_dies(outcomes, mutant):
        outcome = outcomes[mutant.path, mutant.why]
        assert outcome.exit_code == 1, f"{mutant.test_id()} does not notice: {outcome.failed}"
        assert outcome.failed.startswith(mutant.test_id())

    @pytest.mark.mutants
    @pytest.mark.parametrize("path", sorted({mutant.path for mutant in mutants}))
    def without_a_mistake_the_same_tests_pass(outcomes, path):
        outcome = outcomes[path, f"control: {path} as it is"]
        assert outcome.control
        assert outcome.exit_code == 0, outcome.failed

    def mutants_are_told_apart():
        whys = [(m.path, m.why) for m in mutants]
        changes = [(m.path, m.old, m.new) for m in mutants]
        for names in (whys, changes):
            assert len(set(names)) == len(names)

    return (
        outcomes,
        every_mutant_dies,
        without_a_mistake_the_same_tests_pass,
        mutants_are_told_apart,
    )
