"""Every hand-made mistake in lib.interpret.attention is noticed by the test that is for it."""

from tests.mutant_suite import suite
from tests.mutants_interpret_attention import INTERPRET_ATTENTION

(
    outcomes,
    test_every_mutant_dies,
    test_without_a_mistake_the_same_tests_pass,
    test_mutants_are_told_apart,
) = suite(INTERPRET_ATTENTION)
