"""Every hand-made mistake in windows, models and draws is noticed by its test."""

import pytest

from tests.mutants import Mutant
from tests.mutants_architectures import ARCHITECTURES
from tests.test_mutants import run

MUTANTS = [Mutant(*fields) for fields in ARCHITECTURES]


@pytest.fixture(scope="module")
def outcomes():
    return {(outcome.path, outcome.why): outcome for outcome in run(MUTANTS)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.path}: {mutant.why}")
def test_every_mutant_dies(outcomes, mutant):
    outcome = outcomes[mutant.path, mutant.why]
    assert outcome.exit_code == 1, f"{mutant.test_id()} does not notice: {outcome.failed}"
    assert outcome.failed.startswith(mutant.test_id())


@pytest.mark.parametrize("path", sorted({mutant.path for mutant in MUTANTS}))
def test_without_a_mistake_the_same_tests_pass(outcomes, path):
    outcome = outcomes[path, f"control: {path} as it is"]
    assert outcome.control
    assert outcome.exit_code == 0, outcome.failed


def test_mutants_are_told_apart():
    for names in ([(m.path, m.why) for m in MUTANTS], [(m.path, m.old, m.new) for m in MUTANTS]):
        assert len(set(names)) == len(names)
