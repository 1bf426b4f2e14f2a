"""Every hand-made mistake in the kernels and in their counting is noticed by its test."""

import torch

from tests.mutant_suite import suite
from tests.mutants_flash_attention import FLASH_MUTANTS, TILE_MUTANTS

# On CUDA a kernel is compiled for every mutant; there the tests themselves are what counts.
(
    outcomes,
    test_every_mutant_dies,
    test_without_a_mistake_the_same_tests_pass,
    test_mutants_are_told_apart,
) = suite(TILE_MUTANTS if torch.cuda.is_available() else [*FLASH_MUTANTS, *TILE_MUTANTS])
