"""lib.interpret.shapley held to its contract.

Brute force over all orders of arrival says what is right; the `shap` package is the second opinion.
"""

import doctest
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lib.interpret
from lib.interpret import shapley
from lib.interpret.shapley import (
    coalitions,
    kernel_shap,
    permutation_shap,
    shapley_kernel,
    shapley_values,
)

METHODS = {
    "exact": shapley_values,
    "kernel": kernel_shap,
    "sampled kernel": lambda f, n, **o: kernel_shap(f, n, samples=400, seed=3, **o),
    "permutation": lambda f, n, **o: permutation_shap(f, n, permutations=8, seed=3, **o),
    "antithetic": lambda f, n, **o: permutation_shap(
        f, n, permutations=8, seed=3, antithetic=True, **o
    ),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))


def game(n, seed=0):
    """A game of n players with random worths, not 0 for nobody."""
    worth = torch.randn(2**n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    bits = 2 ** torch.arange(n)

    def f(present):
        assert present.dtype == torch.bool and present.shape[1:] == (n,)
        return worth[(present * bits).sum(1)]

    return f


def one_by_one(f):
    """The same game, of one coalition and in Python numbers."""

    def single(present):
        assert present.dtype == torch.bool and present.ndim == 1
        return float(f(present[None])[0])

    return single


def by_orders(f, n, orders=None):
    """Mean marginal contributions over all orders (or these), in Python."""
    single, total, count = one_by_one(f), [0.0] * n, 0
    for order in orders if orders is not None else itertools.permutations(range(n)):
        present, before = torch.zeros(n, dtype=torch.bool), single(torch.zeros(n).bool())
        for i in order:
            present[i] = True
            now = single(present)
            total[i] += now - before
            before = now
        count += 1
    return torch.tensor(total, dtype=torch.float64) / count


def assert_close(got, want, *, atol=1e-12):
    torch.testing.assert_close(got, want, atol=atol, rtol=0.0)


class TestExact:
    @pytest.mark.parametrize("n", [1, 2, 3, 5])
    def test_is_the_mean_over_all_orders(self, n):
        got = shapley_values(game(n, seed=n), n)
        assert got.dtype == torch.float64 and got.shape == (n,)
        assert_close(got, by_orders(game(n, seed=n), n))

    @given(st.lists(st.floats(-10, 10), min_size=16, max_size=16), st.integers(0, 3))
    @settings(max_examples=20, deadline=None)
    def test_the_four_axioms(self, worths, who):
        worth = torch.tensor(worths, dtype=torch.float64)
        bits = 2 ** torch.arange(4)

        def f(present):
            return worth[(present * bits).sum(1)]

        other = (who + 1) % 4

        def swapped(present):
            order = list(range(4))
            order[who], order[other] = other, who
            return f(present[:, order])

        def blind(present):
            seen = present.clone()
            seen[:, who] = False
            return f(seen)

        phi = shapley_values(f, 4)
        assert_close(phi.sum(), worth[-1] - worth[0], atol=1e-10)
        both = shapley_values(lambda s: f(s) + swapped(s), 4)
        assert_close(both[who], both[other], atol=1e-10)
        assert shapley_values(blind, 4)[who] == 0
        two = shapley_values(lambda s: 3 * f(s) - swapped(s), 4)
        assert_close(two, 3 * phi - shapley_values(swapped, 4), atol=1e-10)

    def test_a_game_of_one_coalition(self):
        """Unanimity: the members share alike, the others get nothing."""
        got = shapley_values(lambda s: s[:, [1, 4]].all(1).double(), 5)
        assert_close(got, torch.tensor([0, 0.5, 0, 0, 0.5]).double(), atol=1e-15)

    def test_many_players(self):
        n = 12
        slope = torch.arange(1.0, n + 1, dtype=torch.float64)
        got = shapley_values(lambda s: (s.double() @ slope) ** 2, n)
        # (Σ a_i)²: a_i² alone, and half of each of the products 2 a_i a_j
        assert_close(got, slope * slope.sum(), atol=1e-10)

    @pytest.mark.parametrize("n", [21, 64])
    def test_too_many_are_refused_with_what_to_do(self, n):
        for method in (shapley_values, kernel_shap, coalitions):
            with pytest.raises(ValueError, match=f"^n_players: expected at most 20, got {n}; use"):
                method(None, n) if method is not coalitions else method(n)
        with pytest.raises(ValueError, match=r"permutation_shap$"):
            shapley_values(None, n)


class TestKernel:
    @pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
    def test_is_the_shapley_value(self, n):
        assert_close(kernel_shap(game(n, seed=n), n), shapley_values(game(n, seed=n), n))

    def test_the_seed_changes_nothing_with_all_coalitions(self):
        assert torch.equal(kernel_shap(game(5), 5, seed=1), kernel_shap(game(5), 5, seed=2))

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_weights(self, n):
        got = shapley_kernel(n)
        assert got[0] == got[-1] == math.inf and got.shape == (n + 1,)
        for s in range(1, n):
            assert got[s] == pytest.approx((n - 1) / (math.comb(n, s) * s * (n - s)), rel=1e-15)

    def test_solves_the_weighted_least_squares_problem(self):
        """By a general solver: the constraint as a very heavy row."""
        n, f = 5, game(5, seed=4)
        z = coalitions(n)
        weight = shapley_kernel(n)[z.sum(1)]
        weight[-1] = 1e9
        y = f(z) - f(z)[0]
        root = weight[1:, None].sqrt()
        want = torch.linalg.lstsq(root * z[1:].double(), root * y[1:, None]).solution[:, 0]
        assert_close(kernel_shap(f, n), want, atol=1e-6)

    def test_a_sample_solves_the_problem_of_its_rows(self):
        """The rows that f is asked for, and how often each was drawn, from the sampler itself."""
        n, f, asked = 5, game(5, seed=4), []

        def heard(present):
            asked.append(present)
            return f(present)

        got = kernel_shap(heard, n, samples=24, seed=5)
        (rows,) = asked
        assert len(rows.unique(dim=0)) == len(rows)
        assert not rows[0].any() and rows[-1].all()
        drawn = shapley._pairs(n, 12, torch.Generator().manual_seed(5))
        y = f(drawn) - f(rows[:1])
        z, total = drawn.double(), (f(rows[-1:]) - f(rows[:1]))
        # Lagrange: [zᵀz 1; 1ᵀ 0] [φ; λ] = [zᵀy; total]
        system = torch.zeros(n + 1, n + 1, dtype=torch.float64)
        system[:n, :n], system[n, :n], system[:n, n] = z.T @ z, 1, 1
        want = torch.linalg.solve(system, torch.cat([z.T @ y, total]))[:n]
        assert_close(got, want, atol=1e-10)
        assert_close(got.sum(), total[0], atol=1e-12)

    def test_a_sample_is_made_of_pairs_with_the_kernels_sizes(self):
        n, count = 6, 40_000
        drawn = shapley._pairs(n, count, torch.Generator().manual_seed(0))
        assert torch.equal(drawn[:count], ~drawn[count:])
        share = torch.bincount(drawn.sum(1), minlength=n + 1) / len(drawn)
        weight = torch.tensor([0, *(1 / (s * (n - s)) for s in range(1, n)), 0])
        assert share[0] == share[-1] == 0
        assert (share - weight / weight.sum()).abs().max() < 0.01
        each = drawn.double().mean(0)
        assert (each - 0.5).abs().max() < 0.01
        two = drawn[drawn.sum(1) == 2].double().mean(0)  # every coalition of a size alike
        assert (two - 2 / n).abs().max() < 0.02

    def test_the_estimate_approaches(self):
        f, want = game(7, seed=2), shapley_values(game(7, seed=2), 7)
        error = [
            np.mean([(kernel_shap(f, 7, samples=m, seed=s) - want).abs().mean() for s in range(12)])
            for m in (64, 1024)
        ]
        assert error[1] < 0.4 * error[0]
        assert error[1] < 0.08

    def test_the_seed_decides(self):
        a, b, c = (kernel_shap(game(7), 7, samples=60, seed=s) for s in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c)

    def test_many_players(self):
        n = 40
        slope = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        got = kernel_shap(lambda s: s.double() @ slope, n, samples=200)
        assert_close(got, slope, atol=1e-10)

    def test_too_small_a_sample_is_refused(self):
        with pytest.raises(ValueError, match=r"tell 9 players apart, got 4 with . of 8 directions"):
            kernel_shap(game(9), 9, samples=4)

    def test_one_player_and_a_sample(self):
        assert_close(kernel_shap(game(1), 1, samples=2), shapley_values(game(1), 1))

    @pytest.mark.parametrize("samples", [0, 1, 3, 2.0, True])
    def test_refuses_a_wrong_number(self, samples):
        with pytest.raises(ValueError, match=r"^samples: expected an even integer from 2 on, got"):
            kernel_shap(game(3), 3, samples=samples)


class TestPermutations:
    def test_is_the_mean_over_its_orders(self):
        n, m = 5, 7
        orders = torch.rand(m, n, generator=torch.Generator().manual_seed(9)).argsort(1).tolist()
        got = permutation_shap(game(n), n, permutations=m, seed=9)
        assert_close(got, by_orders(game(n), n, orders))

    def test_antithetic_orders_come_with_their_reverse(self):
        n, m = 5, 6
        orders = torch.rand(m // 2, n, generator=torch.Generator().manual_seed(9)).argsort(1)
        orders = [*orders.tolist(), *orders.flip(1).tolist()]
        got = permutation_shap(game(n), n, permutations=m, seed=9, antithetic=True)
        assert_close(got, by_orders(game(n), n, orders))

    @pytest.mark.parametrize("antithetic", [False, True])
    def test_standard_errors_are_honest(self, antithetic):
        f, n = game(5, seed=6), 5
        want = shapley_values(f, n)
        options = {"permutations": 100, "antithetic": antithetic, "return_errors": True}
        runs = [permutation_shap(f, n, seed=s, **options) for s in range(60)]
        values = torch.stack([value for value, _ in runs])
        said = torch.stack([error for _, error in runs]).mean(0)
        ratio = said / values.std(0)
        assert ((ratio > 0.75) & (ratio < 1.33)).all(), ratio
        assert ((values.mean(0) - want).abs() < 4 * said / math.sqrt(60)).all()

    def test_errors_of_a_few_orders_by_hand(self):
        def f(s):  # a pair: a player earns 1 if he comes second, and 0 if he comes first
            return s.all(1).double()

        value, error = permutation_shap(f, 2, permutations=5, seed=1, return_errors=True)
        k = float(5 * value[0])  # so many times player 0 came second
        spread = math.sqrt((k * (1 - k / 5) ** 2 + (5 - k) * (k / 5) ** 2) / 4)
        assert 0 < k < 5
        assert_close(error, torch.full((2,), spread / math.sqrt(5), dtype=torch.float64))
        value, error = permutation_shap(
            f, 2, permutations=16, seed=1, antithetic=True, return_errors=True
        )
        assert value.tolist() == [0.5, 0.5] and error.tolist() == [0, 0]

    def test_additive_games_need_one_order(self):
        slope = torch.tensor([2.0, -3.0, 5.0, 7.0], dtype=torch.float64)
        got = permutation_shap(lambda s: s.double() @ slope + 11, 4, permutations=1, seed=0)
        assert_close(got, slope)

    def test_the_seed_decides(self):
        a, b, c = (permutation_shap(game(7), 7, permutations=3, seed=s) for s in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c)

    @pytest.mark.parametrize("antithetic", [False, True])
    def test_too_few_for_an_error(self, antithetic):
        m = 1 + antithetic
        with pytest.raises(ValueError, match=f"expected {2 * m} or more for a standard error"):
            permutation_shap(
                game(3), 3, permutations=m, seed=0, antithetic=antithetic, return_errors=True
            )

    def test_refuses_a_wrong_number(self):
        with pytest.raises(
            ValueError, match=r"^permutations: expected an integer from 1 on, got 0"
        ):
            permutation_shap(game(3), 3, permutations=0, seed=0)
        with pytest.raises(ValueError, match=r"^permutations: expected an even integer from 2 on"):
            permutation_shap(game(3), 3, permutations=3, seed=0, antithetic=True)


class TestContract:
    @every_method
    def test_sums_to_what_all_earn(self, method):
        f = game(5, seed=8)
        ends = f(torch.tensor([[False] * 5, [True] * 5]))
        assert_close(method(f, 5).sum(), ends[1] - ends[0])

    @every_method
    def test_a_game_of_one_coalition_at_a_time(self, method):
        f = game(5, seed=8)
        assert torch.equal(method(one_by_one(f), 5, batched=False), method(f, 5))

    @every_method
    def test_neither_batches_nor_repetitions(self, method):
        f, asked = game(4, seed=8), []

        def heard(present):
            asked.append(present.clone())
            value = f(present)
            present[:] = False  # a game may write into what it was given
            return value

        assert torch.equal(method(heard, 4, batch_size=3), method(f, 4))
        assert max(map(len, asked)) == 3
        rows = torch.cat(asked)
        assert len(rows.unique(dim=0)) == len(rows) <= 16

    @every_method
    def test_whatever_holds_numbers(self, method):
        f = game(3, seed=8)
        want = method(f, 3)
        assert torch.equal(method(lambda s: f(s).numpy(), 3), want)
        assert (
            torch.equal(method(lambda s: f(s).tolist(), 3).double(), want)
            or (method(lambda s: f(s).tolist(), 3) - want).abs().max() < 1e-6
        )
        slope = torch.ones(3, requires_grad=True)
        got = method(lambda s: s.float() @ slope, 3)
        assert got.dtype == torch.float64 and not got.requires_grad
        integers = method(lambda s: s.sum(1), 3)
        assert_close(integers, torch.ones(3).double())

    @every_method
    def test_refuses_what_does_not_fit(self, method):
        f = game(3)
        with pytest.raises(ValueError, match=r"^f: expected \(\d+,\) numbers for coalitions \(\d+"):
            method(lambda s: f(s)[:, None], 3)
        with pytest.raises(ValueError, match=r"got \(\); batched=True calls it with \(N, n_p"):
            method(lambda s: 1.0, 3)
        with pytest.raises(ValueError, match=r"^f: expected \(\) numbers .* \(3,\), got \(1,\)"):
            method(lambda s: f(s[None]), 3, batched=False)
        with pytest.raises(ValueError, match=r"finite numbers, got nan for .* \[0, 1, 2\]"):
            method(lambda s: torch.where(s.all(1), math.nan, 1.0), 3)
        with pytest.raises(ValueError, match=r"finite numbers, got inf for the coalition \[\]"):
            method(lambda s: torch.where(s.any(1), 1.0, math.inf), 3)
        with pytest.raises(ValueError, match=r"^f: expected a function of coalitions, got Tensor"):
            method(torch.zeros(8), 3)
        for n in (0, -1, 2.0, True, "3"):
            with pytest.raises(ValueError, match=r"^n_players: expected an integer from 1 on, got"):
                method(f, n)
        with pytest.raises(ValueError, match=r"^batch_size: expected an integer from 1 on, got 0"):
            method(f, 3, batch_size=0)

    def test_refuses_what_is_no_seed_and_too_many_to_sample(self):
        for method in (
            lambda n, seed: kernel_shap(game(3), n, samples=8, seed=seed),
            lambda n, seed: permutation_shap(game(3), n, permutations=2, seed=seed),
        ):
            with pytest.raises(ValueError, match=r"^seed: expected an integer, got None"):
                method(3, None)
            with pytest.raises(ValueError, match="expected at most 1000, got 1001; use fewer, as"):
                method(1001, 0)

    def test_coalitions(self):
        got = coalitions(3)
        assert got.dtype == torch.bool and got.shape == (8, 3)
        assert (got * torch.tensor([1, 2, 4])).sum(1).tolist() == list(range(8))

    def test_examples_of_the_docstrings(self):
        result = doctest.testmod(shapley)
        assert result.attempted == 8 and result.failed == 0

    def test_what_the_package_exports(self):
        for name in shapley.__all__:
            assert getattr(lib.interpret, name) is getattr(shapley, name)
            assert name in lib.interpret.__all__


@pytest.fixture(scope="module")
def shap():
    package = "the shap package is a second opinion"
    numba = pytest.importorskip("numba", reason=package)
    compiled, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True  # slower than Python here
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "The set_bad function will be deprecated", PendingDeprecationWarning
            )
            return pytest.importorskip("shap", reason=package)
    finally:
        numba.config.DISABLE_JIT = compiled


class TestTheShapPackage:
    """On games of a 0/1 vector: one background row of zeros makes absent players 0."""

    N = 6

    def _model(self, seed):
        f = game(self.N, seed=seed)
        return f, lambda x: f(torch.from_numpy(np.asarray(x) > 0.5)).numpy()

    @pytest.mark.parametrize("seed", [0, 1])
    def test_exact(self, shap, seed):
        f, model = self._model(seed)
        explain = shap.explainers.Exact(model, np.zeros((1, self.N)))
        want = explain(np.ones((1, self.N))).values[0]
        assert_close(shapley_values(f, self.N), torch.from_numpy(want), atol=1e-10)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_kernel(self, shap, seed):
        f, model = self._model(seed)
        explain = shap.KernelExplainer(model, np.zeros((1, self.N)))
        want = explain.shap_values(np.ones((1, self.N)), nsamples=2**self.N, silent=True)[0]
        assert_close(kernel_shap(f, self.N), torch.from_numpy(want), atol=1e-8)

    def test_permutation(self, shap):
        """Its orders are its own; with many of them both are near the same numbers."""
        f, model = self._model(2)
        explain = shap.explainers.Permutation(model, np.zeros((1, self.N)), seed=0)
        want = explain(np.ones((1, self.N)), max_evals=400 * (2 * self.N + 1), silent=True)
        want = torch.from_numpy(want.values[0])
        got, error = permutation_shap(
            f, self.N, permutations=800, seed=0, antithetic=True, return_errors=True
        )
        assert ((got - want).abs() < 6 * error).all()
        assert_close(got.sum(), want.sum(), atol=1e-8)
