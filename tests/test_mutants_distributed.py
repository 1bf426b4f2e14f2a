"""Every hand-made mistake in training by several processes is noticed by the test for it."""

from tests.mutant_suite import suite
from tests.mutants_distributed import DISTRIBUTED_MUTANTS

(
    outcomes,
    test_every_mutant_dies,
    test_without_a_mistake_the_same_tests_pass,
    test_mutants_are_told_apart,
) = suite(DISTRIBUTED_MUTANTS)
