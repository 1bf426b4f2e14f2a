"""Mutants of the Shapley values: exact, by least squares, by random orders.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_shapley.py     run every one of these, one line each
"""

import sys
from pathlib import Path

PATH = "lib/interpret/shapley.py"
TEST = "tests/interpret/test_shapley.py::"
EXACT, KERNEL = TEST + "TestExact::", TEST + "TestKernel::"
ORDERS, CONTRACT = TEST + "TestPermutations::", TEST + "TestContract::"

SHAPLEY_MUTANTS = [
    (
        PATH,
        "[1 / (n * math.comb(n - 1, s)) for s in range(n)]",
        "[1 / 2 ** (n - 1) for s in range(n)]",
        "all coalitions weigh alike, as in a Banzhaf value",
        EXACT + "test_is_the_mean_over_all_orders",
    ),
    (
        PATH,
        "1 / (n * math.comb(n - 1, s))",
        "1 / (n * math.comb(n, s))",
        "coalitions of all n players are counted, not of the others",
        EXACT + "test_is_the_mean_over_all_orders",
    ),
    (
        PATH,
        "without = index[(index >> i) & 1 == 0]",
        "without = index[(index >> i) & 1 == 0][:1]",
        "the gain of coming first, and nothing else",
        EXACT + "test_a_game_of_one_coalition",
    ),
    (
        PATH,
        "gain = value[without + (1 << i)] - value[without]",
        "gain = value[-1] - value[-1 - (1 << i)] + 0 * value[without]",
        "leave one out, called a Shapley value",
        EXACT + "test_the_four_axioms",
    ),
    (
        PATH,
        "(weight[sizes[without]] * gain).sum()",
        "(weight[sizes[without] - 1] * gain).sum()",
        "the weight of a coalition one smaller",
        EXACT + "test_is_the_mean_over_all_orders",
    ),
    (
        PATH,
        'n = _players(n_players, _MOST, "fewer")',
        'n = _players(n_players, 1000, "fewer")',
        "2^21 coalitions are written down",
        EXACT + "test_too_many_are_refused_with_what_to_do",
    ),
    (
        PATH,
        "weight = shapley_kernel(n)[asked.sum(1)]",
        "weight = torch.ones(len(asked), dtype=torch.float64)",
        "a least-squares problem without weights",
        KERNEL + "test_is_the_shapley_value",
    ),
    (
        PATH,
        "(n - 1) / (math.comb(n, s) * s * (n - s))",
        "(n - 1) / (s * (n - s))",
        "the weight of a size, given to each of its coalitions",
        KERNEL + "test_is_the_shapley_value",
    ),
    (
        PATH,
        "(n - 1) / (math.comb(n, s) * s * (n - s))",
        "n / (math.comb(n, s) * s * (n - s))",
        "another constant factor, with the same solution",
        KERNEL + "test_weights",
    ),
    (
        PATH,
        "return torch.tensor([math.inf, *inside, math.inf]",
        "return torch.tensor([0.0, *inside, 0.0]",
        "none and all weigh nothing",
        KERNEL + "test_weights",
    ),
    (
        PATH,
        "weight = torch.nn.functional.pad(counts.double(), (1, 1))",
        "weight = torch.ones(len(asked), dtype=torch.float64)",
        "a coalition drawn twice counts once",
        KERNEL + "test_a_sample_solves_the_problem_of_its_rows",
    ),
    (
        PATH,
        "nothing, total = value[0], value[-1] - value[0]",
        "nothing, total = value[0], value[-1]",
        "what nobody earns is shared out too",
        CONTRACT + "test_sums_to_what_all_earn",
    ),
    (
        PATH,
        "[:, : n - 1] - 1 / n).Q",
        "[:, : n - 1] - 0 / n).Q",
        "directions that change the sum",
        CONTRACT + "test_sums_to_what_all_earn",
    ),
    (
        PATH,
        "if rank < n - 1:",
        "if rank < 0:",
        "a sample that leaves players alike is solved all the same",
        KERNEL + "test_too_small_a_sample_is_refused",
    ),
    (
        PATH,
        "rest = y[:, None] - mean * z.sum(1, keepdim=True)",
        "rest = y[:, None] - mean",
        "equal shares are taken off once, not once a player",
        KERNEL + "test_a_sample_solves_the_problem_of_its_rows",
    ),
    (
        PATH,
        "1 / (size * (n - size)), count,",
        "1 + 0 * size, count,",
        "all sizes are drawn alike",
        KERNEL + "test_a_sample_is_made_of_pairs_with_the_kernels_sizes",
    ),
    (
        PATH,
        "chosen = rank < drawn[:, None]",
        "chosen = torch.arange(n) < drawn[:, None]",
        "the first players of each size, always",
        KERNEL + "test_a_sample_is_made_of_pairs_with_the_kernels_sizes",
    ),
    (
        PATH,
        "return torch.cat([chosen, ~chosen])",
        "return torch.cat([chosen, chosen.flip(1)])",
        "pairs that are no complements",
        KERNEL + "test_a_sample_is_made_of_pairs_with_the_kernels_sizes",
    ),
    (
        PATH,
        "    if n == 1:\n        return torch.zeros(0, 1).bool()\n",
        "",
        "of one player no coalition can be drawn",
        KERNEL + "test_one_player_and_a_sample",
    ),
    (
        PATH,
        "gain = value.diff(dim=1).gather(1, place)",
        "gain = value.diff(dim=1)",
        "the gain of the i-th to come is given to player i",
        ORDERS + "test_additive_games_need_one_order",
    ),
    (
        PATH,
        "place = order.argsort(dim=1)",
        "place = order",
        "an order read as places: as random, and not the order drawn",
        ORDERS + "test_is_the_mean_over_its_orders",
    ),
    (
        PATH,
        "order = torch.stack([order, order.flip(1)], dim=1).flatten(0, 1)",
        "order = torch.stack([order, order], dim=1).flatten(0, 1)",
        "each order twice, none backwards",
        ORDERS + "test_antithetic_orders_come_with_their_reverse",
    ),
    (
        PATH,
        "order = torch.stack([order, order.flip(1)], dim=1).flatten(0, 1)",
        "order = torch.cat([order, order.flip(1)])",
        "the pairs of the standard error are none",
        ORDERS + "test_errors_of_a_few_orders_by_hand",
    ),
    (
        PATH,
        "draws = gain.view(-1, 1 + antithetic, n).mean(1)",
        "draws = gain",
        "pairs are taken for independent orders",
        ORDERS + "test_errors_of_a_few_orders_by_hand",
    ),
    (
        PATH,
        "draws.std(0) / math.sqrt(len(draws))",
        "draws.std(0)",
        "the spread of one order, not of their mean",
        ORDERS + "test_standard_errors_are_honest",
    ),
    (
        PATH,
        "draws.std(0) / math.sqrt(len(draws))",
        "draws.std(0, correction=0) / math.sqrt(len(draws))",
        "divided by m, not by m − 1",
        ORDERS + "test_errors_of_a_few_orders_by_hand",
    ),
    (
        PATH,
        "if len(draws) < 2:",
        "if len(draws) < 1:",
        "a standard error of one order is NaN",
        ORDERS + "test_too_few_for_an_error",
    ),
    (
        PATH,
        "distinct, where = before.flatten(0, 1).unique(dim=0, return_inverse=True)",
        "distinct, where = before.flatten(0, 1), torch.arange(permutations * (n + 1))",
        "asked again for what is known",
        CONTRACT + "test_neither_batches_nor_repetitions",
    ),
    (
        PATH,
        "parts = asked.split(batch_size) if batched else asked",
        "parts = [asked] if batched else asked",
        "batch_size is ignored",
        CONTRACT + "test_neither_batches_nor_repetitions",
    ),
    (
        PATH,
        "f(part.clone())",
        "f(part)",
        "a game that writes into its argument changes ours",
        CONTRACT + "test_neither_batches_nor_repetitions",
    ),
    (
        PATH,
        "torch.as_tensor(f(part.clone()), dtype=torch.float64",
        "torch.as_tensor(f(part.clone()), dtype=torch.float32",
        "half of the digits are lost",
        CONTRACT + "test_whatever_holds_numbers",
    ),
    (
        PATH,
        "if value.shape != want:",
        "if value.numel() != want.numel():",
        "columns are taken for numbers",
        CONTRACT + "test_refuses_what_does_not_fit",
    ),
    (
        PATH,
        "(~values.isfinite()).nonzero()",
        "values.isnan().nonzero()",
        "infinite worths",
        CONTRACT + "test_refuses_what_does_not_fit",
    ),
    (
        PATH,
        "present = asked[k].nonzero()[:, 0].tolist()",
        "present = k",
        "which coalition it was is not said",
        CONTRACT + "test_refuses_what_does_not_fit",
    ),
    (
        PATH,
        "if type(n) is not int or n < 1:",
        "if n < 1:",
        "True is one player",
        CONTRACT + "test_refuses_what_does_not_fit",
    ),
    (
        PATH,
        "or number < least or (even and number % 2)",
        "or number < least",
        "an odd number of pairs' members",
        KERNEL + "test_refuses_a_wrong_number",
    ),
    (
        PATH,
        "torch.Generator().manual_seed(seed)",
        "torch.Generator().manual_seed(0)",
        "the seed is ignored",
        ORDERS + "test_the_seed_decides",
    ),
    (
        PATH,
        "(torch.arange(2**n)[:, None] >> torch.arange(n)) & 1 == 1",
        "(torch.arange(2**n)[:, None] >> torch.arange(n).flip(0)) & 1 == 1",
        "the bits are read from the other end",
        CONTRACT + "test_coalitions",
    ),
]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in SHAPLEY_MUTANTS if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
