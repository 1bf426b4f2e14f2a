"""Every hand-made mistake in windows, models and draws is noticed by its test."""

from tests.mutant_suite import suite
from tests.mutants_architectures import ARCHITECTURES

(
    outcomes,
    test_every_mutant_dies,
    test_without_a_mistake_the_same_tests_pass,
    test_mutants_are_told_apart,
) = suite(ARCHITECTURES)
