"""Mutants of lib.scaling: each formula with one factor, one term or one condition wrong.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_scaling.py     run every one of these, one line each
"""

import sys
from pathlib import Path

SCALING = "lib/scaling.py"
TESTS = "tests/test_scaling.py::"
COUNTS = TESTS + "TestCounts::"
TRAFFIC = TESTS + "TestTraffic::"
SECONDS = TESTS + "TestSeconds::"

SCALING_MUTANTS = [
    (
        SCALING,
        "        if self.sequences % (self.data * self.parts):",
        "        if self.sequences % self.data:",
        "a micro-batch may have half a sequence",
        TESTS + "TestPlan::test_refuses_what_does_not_divide[sequences]",
    ),
    (
        SCALING,
        "        if size % cluster.per_node and cluster.per_node % size:",
        "        if False:",
        "groups straddle nodes",
        TESTS + "TestPlan::test_groups_fill_nodes",
    ),
    (
        SCALING,
        "(6 * (12 * L * d * d + V * d) + 12 * L * n * d)",
        "(6 * (12 * L * d * d + V * d))",
        "attention proper is free",
        COUNTS + "test_operations",
    ),
    (
        SCALING,
        "layer = 12 * d * d // t + 7 * d // t + 6 * d",
        "layer = (12 * d * d + 13 * d) // t",
        "norms and late biases are cut too",
        COUNTS + "test_parameters_of_a_cut_model[1-2]",
    ),
    (
        SCALING,
        "ends = -(-plan.vocabulary // t) * d",
        "ends = plan.vocabulary // t * d",
        "the last words are in no part",
        COUNTS + "test_parameters_of_a_cut_model[1-2]",
    ),
    (
        SCALING,
        "(2 * d if plan.pipeline == 1 else 0)",
        "2 * d",
        "the first stage has the last norm",
        COUNTS + "test_parameters_of_a_cut_model[2-1]",
    ),
    (
        SCALING,
        "OPTIMIZER = 12 ",
        "OPTIMIZER = 8 ",
        "no master weights",
        COUNTS + "test_bytes_that_stand",
    ),
    (
        SCALING,
        '"gradients": NUMBER * psi / (copies if stage >= 2 else 1)',
        '"gradients": NUMBER * psi / (copies if stage >= 3 else 1)',
        "stage 2 shards no gradients",
        COUNTS + "test_bytes_that_stand",
    ),
    (
        SCALING,
        "full = 20 * d + 16 + (24 * d + 4 * plan.heads) / t",
        "full = (44 * d + 16 + 4 * plan.heads) / t",
        "norms and inputs are cut",
        COUNTS + "test_activations_of_a_cut_layer[2]",
    ),
    (
        SCALING,
        "alive = min(plan.parts, plan.pipeline) * ",
        "alive = plan.parts * ",
        "all micro-batches are in flight",
        COUNTS + "test_activations_in_flight",
    ),
    (
        SCALING,
        "NUMBER * d * alive + full if plan.recompute",
        "NUMBER * d * alive if plan.recompute",
        "the layer that is computed again needs no room",
        COUNTS + "test_activations_in_flight",
    ),
    (
        SCALING,
        "return 6 if plan.recompute else 4",
        "return 4",
        "computing again sends nothing",
        TRAFFIC + "test_all_reduces_of_a_cut_layer[True]",
    ),
    (
        SCALING,
        "2: (plan.parts, 1),",
        "2: (1, 1),",
        "stage 2 scatters whole gradients once",
        TRAFFIC + "test_passes_over_the_copies[2-4]",
    ),
    (
        SCALING,
        "(2 * (t - 1) / t)",
        "((t - 1) / t)",
        "an all-reduce is one pass",
        TRAFFIC + "test_all_reduces_of_a_cut_layer[False]",
    ),
    (
        SCALING,
        '"pipeline": min(p - 1, 2) * plan.parts * message',
        '"pipeline": min(p - 1, 1) * plan.parts * message',
        "no gradients come back",
        TRAFFIC + "test_stages_hand_on[3-2]",
    ),
    (
        SCALING,
        "size / (inside * nodes) / cluster.between",
        "size / nodes / cluster.between",
        "the whole vector goes between nodes",
        SECONDS + "test_two_levels_of_rings[4-7]",
    ),
    (
        SCALING,
        "near = (inside - 1) * (cluster.latency + size",
        "near = cluster.latency + (inside - 1) * (size",
        "one start for all steps of a ring",
        SECONDS + "test_two_levels_of_rings[3-1]",
    ),
    (
        SCALING,
        "return (pipeline - 1) / parts\n",
        "return (pipeline - 1) / (parts + pipeline - 1)\n",
        "the bubble is a share of the whole",
        SECONDS + "test_idle_of_a_pipeline[2-5]",
    ),
    (
        SCALING,
        "return each + (buckets - 1) * ",
        "return buckets * ",
        "the last bucket is hidden",
        SECONDS + "test_what_shows_of_traffic[1-0.3]",
    ),
    (
        SCALING,
        "compute = needed * (3 + again) / 3",
        "compute = needed",
        "computing again takes no time",
        SECONDS + "test_one_gpu_computes",
    ),
    (
        SCALING,
        "    near = min(plan.tensor, node)\n",
        "    near = plan.tensor\n",
        "matrices are never cut over nodes",
        SECONDS + "test_matrices_over_two_nodes",
    ),
    (
        SCALING,
        "wire = cluster.inside if plan.gpus <= node else cluster.between",
        "wire = cluster.inside",
        "stages are always neighbours in a node",
        SECONDS + "test_stages",
    ),
    (
        SCALING,
        "min(copies, max(1, node // plan.tensor))",
        "1",
        "copies never share a node",
        SECONDS + "test_copies_in_two_levels",
    ),
    (
        SCALING,
        "parts_backward = m if plan.stage >= 2 else 1",
        "parts_backward = m",
        "gradients travel before they are whole",
        SECONDS + "test_windows[0-beside_backward0-beside_forward0]",
    ),
    (
        SCALING,
        '"efficiency": needed / overlapped,',
        '"efficiency": compute / overlapped,',
        "what is done again counts as progress",
        SECONDS + "test_the_sum",
    ),
    (
        SCALING,
        "if sum(memory_each(plan).values()) > cluster.memory:",
        "if memory_each(plan)['weights'] > cluster.memory:",
        "only weights need room",
        TESTS + "TestLimit::test_memory_is_enough_to_the_byte",
    ),
]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in SCALING_MUTANTS if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
