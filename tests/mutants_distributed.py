"""Mutants of several processes: lib.distributed, and what lib.training does for them.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_distributed.py     run every one of these, one line each
"""

import sys
from pathlib import Path

DISTRIBUTED = "lib/distributed.py"
TRAINING = "lib/training.py"
TESTS = "tests/test_distributed.py::"
ONE = TESTS + "TestTwoEqualOne::"
SUMS = TESTS + "TestSums::"
REFUSED = TESTS + "TestErrors::test_what_is_refused_in_processes"

DISTRIBUTED_MUTANTS = [
    (
        DISTRIBUTED,
        "    parallel.register_comm_hook(None, _sum)\n",
        "    pass\n",
        "DDP takes the mean",
        ONE + "test_bit_for_bit[ddp-0.3]",
    ),
    (
        DISTRIBUTED,
        "        dist.broadcast(tensor.detach(), src=0)\n",
        "        pass\n",
        "each process shards weights of its own",
        ONE + "test_bit_for_bit[fsdp-0.3]",
    ),
    (
        DISTRIBUTED,
        "            module.set_gradient_divide_factor(1.0)\n",
        "            pass\n",
        "FSDP divides by the number of processes",
        ONE + "test_bit_for_bit[fsdp-0.3]",
    ),
    (
        DISTRIBUTED,
        "        if all(g.dtype == torch.float64 for g in gradients):\n",
        "        if not gradients:\n",
        "the norm is added up shard by shard",
        ONE + "test_the_norm_has_the_bits_of_one_process",
    ),
    (
        DISTRIBUTED,
        "return nullcontext() if last else self.model.no_sync()",
        "return nullcontext()",
        "DDP adds up after every part",
        SUMS + "test_gradients_cross_in_the_last_part_only",
    ),
    (
        DISTRIBUTED,
        "        self.model.set_requires_gradient_sync(last)\n",
        "        self.model.set_requires_gradient_sync(False)\n",
        "FSDP never adds up",
        ONE + "test_bit_for_bit[fsdp-None]",
    ),
    (
        DISTRIBUTED,
        "        dist.all_reduce(total)\n",
        "",
        "each process divides by its own count",
        ONE + "test_bit_for_bit[ddp-0.3]",
    ),
    (
        DISTRIBUTED,
        "    return slice(world.rank * each, (world.rank + 1) * each)",
        "    return slice(0, each)",
        "all have the first share",
        TESTS + "TestShare::test_the_shares_are_the_batch",
    ),
    (
        DISTRIBUTED,
        "if rows < 1 or rows % world.size:",
        "if rows < 1:",
        "rows are left over",
        TESTS + "TestShare::test_refuses_what_cannot_be_parted",
    ),
    (
        DISTRIBUTED,
        "    if model in _PARALLEL:\n",
        "    if False:\n",
        "wrapped twice",
        REFUSED,
    ),
    (
        DISTRIBUTED,
        "            if p.dtype != torch.float32:\n",
        "            if p.dtype == torch.float16:\n",
        "mixed precision of float64",
        REFUSED,
    ),
    (
        DISTRIBUTED,
        "x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x",
        "x",
        "results are bfloat16",
        TESTS + "TestMixedPrecisionAndCompile::test_results_are_float32",
    ),
    (
        DISTRIBUTED,
        "        atexit.register(id, dist.group.WORLD)\n",
        "",
        "a model that outlives the block may wait for ever",
        TESTS + "test_a_model_may_outlive_the_block",
    ),
    (
        DISTRIBUTED,
        "            block.forward = torch.compile(block.forward)\n",
        "            pass\n",
        "not compiled",
        TESTS + "TestMixedPrecisionAndCompile::test_compiled_blocks_within_rounding",
    ),
    (
        DISTRIBUTED,
        "        if compile:\n",
        "        if True:\n",
        "compiled all the same",
        TESTS + "TestMixedPrecisionAndCompile::test_not_compiled_unless_asked_for",
    ),
    (
        TRAINING,
        "    if team.size > 1 and accumulate is None:\n",
        "    if False:\n",
        "a mean of means",
        REFUSED,
    ),
    (
        TRAINING,
        "        if self.team.rank == 0:\n",
        "        if True:\n",
        "every process writes the file",
        TESTS + "TestCheckpoints::test_goes_on_bit_for_bit_and_the_first_writes_alone[ddp]",
    ),
    (
        TRAINING,
        'draws = state["draws"][self.team.rank]',
        'draws = state["draws"][0]',
        "all go on drawing what the first drew",
        TESTS + "TestCheckpoints::test_goes_on_bit_for_bit_and_the_first_writes_alone[ddp]",
    ),
    (
        TRAINING,
        "    low = all(p.dtype != torch.float64 for p in parameters)\n",
        "    low = True\n",
        "the fused kernel rounds the ends of shards otherwise",
        ONE + "test_bit_for_bit[fsdp-None]",
    ),
]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    sys.exit(mutants.main([mutants.Mutant(*m) for m in DISTRIBUTED_MUTANTS], as_json=False) > 0)
