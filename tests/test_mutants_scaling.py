"""Every hand-made mistake in lib.scaling is noticed by the test that is there for it."""

from tests.mutant_suite import suite
from tests.mutants_scaling import SCALING_MUTANTS

(
    outcomes,
    test_every_mutant_dies,
    test_without_a_mistake_the_same_tests_pass,
    test_mutants_are_told_apart,
) = suite(SCALING_MUTANTS)
