"""lib.interpret.surrogate held to its contract.

Second opinions: scikit-learn's weighted ridge, Shapley values by their definition, and the `lime`
package itself, on the same neighbours.
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
from sklearn.linear_model import LinearRegression, Ridge

from lib.interpret import surrogate
from lib.interpret.surrogate import lime, weighted_least_squares

M, N = 31, 5
KERNEL = {"kernel_width": 0.7, "samples": 101, "seed": 3}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def problem(seed=0):
    weights = torch.rand(M, generator=generator(seed + 2), dtype=torch.float64)
    return randn(M, N, seed=seed), randn(M, seed=seed + 1), weights


def every_set(n):
    """All 2ⁿ sets of n players, boolean."""
    return torch.tensor(list(itertools.product([False, True], repeat=n)))


def game(present):
    """Products of neighbours, and something for each."""
    x = present.double()
    return x @ torch.arange(1.0, x.shape[1] + 1).double() + 2 * (x[:, 1:] * x[:, :-1]).sum(1) + 7


def assert_close(got, want, *, atol=1e-12):
    got, want = (torch.as_tensor(x, dtype=torch.float64) for x in (got, want))
    torch.testing.assert_close(got, want, atol=atol, rtol=0.0)


class TestWeightedLeastSquares:
    @pytest.mark.parametrize("ridge", [0.0, 0.3, 11.0])
    @pytest.mark.parametrize("seed", [0, 10, 20])
    def test_it_is_what_scikit_learn_finds(self, ridge, seed):
        z, y, w = problem(seed)
        got = weighted_least_squares(z, y, w, ridge=ridge)
        want = Ridge(alpha=ridge, solver="svd") if ridge else LinearRegression()
        want.fit(z.numpy(), y.numpy(), sample_weight=w.numpy())
        assert_close(got.coefficients, want.coef_)
        assert_close(got.intercept, want.intercept_)
        assert_close(got.r2, want.score(z.numpy(), y.numpy(), sample_weight=w.numpy()))
        assert_close(got.predict(z), want.predict(z.numpy()))

    def test_the_gradient_is_zero_there(self):
        z, y, w = problem()
        line = weighted_least_squares(z, y, w, ridge=0.4)
        beta = line.coefficients.clone().requires_grad_()
        b = torch.tensor(line.intercept, dtype=torch.float64, requires_grad=True)
        loss = (w * (y - b - z @ beta) ** 2).sum() + 0.4 * (beta**2).sum()
        for slope in torch.autograd.grad(loss, [beta, b]):
            assert_close(slope, torch.zeros_like(slope))

    def test_a_linear_function_is_found_whatever_the_weights(self):
        z, _, w = problem()
        beta, b = randn(N, seed=5), 1.3
        for power in (1, 5, 20):
            line = weighted_least_squares(z, b + z @ beta, w**power)
            assert_close(line.coefficients, beta)
            assert_close(line.intercept, b)
            assert_close(line.r2, 1.0)

    def test_a_sample_of_weight_two_is_two_samples(self):
        z, y, _ = problem()
        counts = torch.arange(M) % 3
        line = weighted_least_squares(z, y, counts.double())
        rows = torch.repeat_interleave(torch.arange(M), counts)
        again = weighted_least_squares(z[rows], y[rows], torch.ones(len(rows)))
        assert_close(line.coefficients, again.coefficients)
        assert_close(line.r2, again.r2)

    def test_only_the_ratio_of_weights_counts_unless_ridge_is_there(self):
        z, y, w = problem()
        one, ten = (weighted_least_squares(z, y, c * w) for c in (1, 10))
        assert_close(one.coefficients, ten.coefficients)
        assert_close(one.effective_samples, ten.effective_samples, atol=1e-10)
        one, ten = (weighted_least_squares(z, y, c * w, ridge=1.0) for c in (1, 10))
        assert (one.coefficients - ten.coefficients).abs().max() > 1e-3

    def test_effective_samples(self):
        z, y, _ = problem()
        assert_close(weighted_least_squares(z, y, torch.full((M,), 0.1)).effective_samples, M)
        w = torch.where(torch.arange(M) < 7, 1.0, 0.0)
        assert_close(weighted_least_squares(z, y, w).effective_samples, 7)
        w = torch.tensor([3.0] + [1.0] * (M - 1))
        want = (M + 2) ** 2 / (M + 8)
        assert_close(weighted_least_squares(z, y, w).effective_samples, want)

    def test_a_constant_is_explained_whole(self):
        z, _, w = problem()
        for c in (0.0, 0.1, 1e9):
            line = weighted_least_squares(z, torch.full((M,), c, dtype=torch.float64), w)
            assert_close(line.coefficients, torch.zeros(N), atol=1e-12 * max(c, 1))
            assert line.r2 == 1.0

    def test_noise_is_not_explained(self):
        z, y = randn(997, N), randn(997, seed=1)
        assert 0 <= weighted_least_squares(z, y, torch.ones(997)).r2 < 0.03

    def test_without_a_unique_minimum_it_says_so(self):
        z, y, w = problem()
        twins = z.clone()
        twins[:, 1] = 2 * twins[:, 0] + 3  # with the intercept: dependent
        with pytest.raises(ValueError, match=r"span 5 directions .* got 4"):
            weighted_least_squares(twins, y, w)
        with pytest.raises(ValueError, match=r"span 5 directions .* got 4"):
            weighted_least_squares(z[:N], y[:N], w[:N])
        w = torch.where(torch.arange(M) < 4, 1.0, 0.0)
        with pytest.raises(ValueError, match="got 3"):
            weighted_least_squares(z, y, w)
        assert weighted_least_squares(twins, y, w, ridge=1e-3).coefficients.isfinite().all()

    def test_narrow_weights_do_not_lose_digits(self):
        # the normal equations would square a condition number of 1e8
        z = torch.cat([torch.zeros(1, N), torch.eye(N)]).double()
        w = torch.tensor([1.0] + [1e-16] * N, dtype=torch.float64)
        beta = randn(N)
        line = weighted_least_squares(z, 1 + z @ beta, w)
        assert_close(line.coefficients, beta, atol=1e-6)

    def test_dtypes(self):
        z, y, w = problem()
        line = weighted_least_squares(z.float(), y.float(), w.float())
        assert line.coefficients.dtype == torch.float64
        want = weighted_least_squares(z.float().double(), y.float().double(), w.float().double())
        assert_close(line.coefficients, want.coefficients)
        z = every_set(3)
        line = weighted_least_squares(z, game(z).requires_grad_(), torch.ones(8))
        assert not line.coefficients.requires_grad
        assert_close(line.predict(z), line.predict(z.double()))

    def test_errors(self):
        z, y, w = problem()
        wrong = [
            ((z[0], y, w), r"z: expected shape \(m ≥ 1, n ≥ 1\), got \(5,\)"),
            ((z[:, :0], y, w), r"z: expected shape"),
            ((z, y[:-1], w), r"values: expected shape \(31,\), got \(30,\)"),
            ((z, y[:, None], w), r"values: expected shape \(31,\), got \(31, 1\)"),
            ((z, y, w[:-1]), r"weights: expected shape \(31,\), got \(30,\)"),
            ((z, y, w - 0.1), r"weights: expected none below 0"),
            ((z, y, 0 * w), r"weights: expected none below 0 and one above, got 0 to 0"),
            ((z, y.log(), w), r"values: expected finite numbers, got nan"),
            ((z / 0, y, w), r"z: expected finite numbers"),
            ((z, y + 1j, w), r"values: expected real numbers, got torch.complex128"),
        ]
        for arguments, message in wrong:
            with pytest.raises(ValueError, match=message):
                weighted_least_squares(*arguments)
        for ridge in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="ridge: expected a number of at least 0"):
                weighted_least_squares(z, y, w, ridge=ridge)
        with pytest.raises(TypeError, match=r"values: expected a torch.Tensor, got list"):
            weighted_least_squares(z, y.tolist(), w)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 6), st.integers(0, 10_000), st.floats(0.05, 5.0))
    def test_residuals_are_orthogonal_to_all_that_the_line_can_say(self, n, seed, power):
        z, y = randn(3 * n + 2, n, seed=seed), randn(3 * n + 2, seed=seed + 1)
        w = torch.rand(len(y), generator=generator(seed), dtype=torch.float64) ** power + 1e-3
        line = weighted_least_squares(z, y, w)
        rest = w * (y - line.predict(z))
        assert_close(rest.sum(), 0.0, atol=1e-8)
        assert_close(rest @ z, torch.zeros(n), atol=1e-8)
        assert -1e-12 <= line.r2 <= 1 + 1e-12


class TestWords:
    def test_the_width_changes_the_answer(self):
        # chapter 18: x₀x₁ beside two words that do nothing, all 16 sets, D = share of absent words
        z = every_set(4)
        absent = 1 - z.double().mean(1)
        y = (z[:, 0] & z[:, 1]).double()
        for width, want in [(0.1, 1.0), (0.25, 0.946), (1.0, 0.560), (10.0, 0.501)]:
            line = weighted_least_squares(z, y, torch.exp(-((absent / width) ** 2)))
            assert_close(line.coefficients[:2], [want, want], atol=6e-4)
            got = lime(
                lambda z: (z[:, 0] & z[:, 1]).double(),
                4,
                kernel_width=width,
                samples=40_000,
                seed=0,
                distance="share",
                draw="coin",
            )
            assert_close(got.coefficients[:2], [want, want], atol=0.02)
            assert_close(got.coefficients[2:], [0, 0], atol=0.02)

    def test_a_linear_function_is_found(self):
        beta = randn(7)
        for draw, distance in itertools.product(surrogate.DRAWS, surrogate.DISTANCES):
            line = lime(lambda z: 3 + z.double() @ beta, 7, draw=draw, distance=distance, **KERNEL)
            assert_close(line.coefficients, beta)
            assert_close(line.intercept, 3.0)

    def test_with_shapleys_kernel_it_is_the_shapley_values(self):
        n = 5
        z = every_set(n)
        size = z.sum(1)
        inner = (n - 1) / (
            torch.tensor([float(math.comb(n, k)) for k in size.tolist()]) * size * (n - size)
        )
        weights = torch.where((size == 0) | (size == n), 1e9, inner.double())
        line = weighted_least_squares(z, game(z), weights)
        value = {tuple(row.tolist()): v for row, v in zip(z, game(z).tolist(), strict=True)}
        shapley = torch.zeros(n, dtype=torch.float64)
        for order in itertools.permutations(range(n)):
            here = [False] * n
            for player in order:
                before = value[tuple(here)]
                here[player] = True
                shapley[player] += (value[tuple(here)] - before) / math.factorial(n)
        assert_close(line.coefficients, shapley, atol=1e-6)

    def test_what_f_is_asked(self):
        asked = []

        def f(z):
            asked.append(z)
            return z.double().sum(1)

        lime(f, 7, **KERNEL)
        (z,) = asked
        assert z.dtype == torch.bool and z.shape == (101, 7)
        assert z[0].all()

    @pytest.mark.parametrize("draw", ["count", "coin"])
    def test_how_neighbours_are_drawn(self, draw):
        n, m = 5, 20_001
        asked = []
        lime(
            lambda z: asked.append(z[1:]) or z.double().sum(1),
            n,
            kernel_width=1,
            samples=m,
            seed=1,
            draw=draw,
        )
        absent = (~asked[0]).sum(1)
        share = torch.bincount(absent, minlength=n + 1) / (m - 1)
        if draw == "count":  # uniform from 1 to n
            want = torch.tensor([0.0] + [1 / n] * n)
        else:
            want = torch.tensor([math.comb(n, k) / 2**n for k in range(n + 1)])
        assert_close(share, want, atol=0.015)
        places = (~asked[0]).double().mean(0)
        assert_close(places, torch.full((n,), places.mean()), atol=0.02)

    @pytest.mark.parametrize("distance", ["cosine", "share"])
    def test_the_kernel(self, distance):
        seen = {}

        def f(z):
            seen["z"] = z
            return game(z)

        line = lime(f, 5, distance=distance, **KERNEL)
        z = seen["z"].double()
        if distance == "cosine":
            ones = torch.ones_like(z)
            cosine = (z * ones).sum(1) / (z.norm(dim=1) * ones.norm(dim=1)).clamp(min=1e-300)
            far = 1 - cosine
        else:
            far = (1 - z).sum(1) / 5
        want = weighted_least_squares(seen["z"], game(z), (-(far**2) / 0.7**2).exp())
        assert_close(line.coefficients, want.coefficients)
        assert_close(line.intercept, want.intercept)
        assert_close(line.r2, want.r2)

    def test_one_word(self):
        line = lime(lambda z: 2.0 + 3.0 * z[:, 0].double(), 1, **KERNEL)
        assert_close(line.coefficients, [3.0])
        assert_close(line.intercept, 2.0)

    def test_ridge_shrinks(self):
        sizes = [lime(game, 5, ridge=r, **KERNEL).coefficients.norm() for r in (0.0, 1.0, 100.0)]
        assert sizes[0] > sizes[1] + 0.01 > sizes[2] + 0.02

    def test_too_few_samples_are_refused(self):
        with pytest.raises(ValueError, match=r"span 7 directions .* draw more samples"):
            lime(game, 7, kernel_width=1.0, samples=7, seed=0)
        with pytest.raises(ValueError, match="widen the kernel"):
            lime(game, 7, kernel_width=1e-3, samples=500, seed=0)


class TestRealFeatures:
    x = torch.tensor([0.5, -1.0, 2.0])

    def test_a_linear_function_is_found(self):
        beta = torch.tensor([2.0, 0.0, -1.0])
        line = lime(lambda z: 4 + z @ beta, self.x.double().float(), **KERNEL)
        assert_close(line.coefficients, beta, atol=1e-5)
        assert_close(line.intercept, 4.0, atol=1e-5)

    def test_near_x_it_is_the_gradient(self):
        x = self.x.double()
        for scale, within in ((0.1, 0.02), (0.01, 2e-3)):
            line = lime(
                lambda z: z.sin().prod(1), x, kernel_width=1, samples=4000, seed=0, scale=scale
            )
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(leaf.sin().prod(), leaf)
            assert_close(line.coefficients, slope, atol=within)
            assert_close(line.predict(x), x.sin().prod(), atol=within)

    def test_what_f_is_asked(self):
        asked = []

        def f(z):
            asked.append(z)
            return z.sum(1)

        lime(f, self.x, kernel_width=1.0, samples=5003, seed=0, scale=0.3)
        (z,) = asked
        assert z.dtype == torch.float32 and z.shape == (5003, 3)
        assert torch.equal(z[0], self.x)
        assert_close(z[1:].mean(0), self.x, atol=0.02)
        assert_close(z[1:].std(0), [0.3] * 3, atol=0.02)

    def test_the_kernel_counts_in_standard_deviations(self):
        seen = {}

        def f(z):
            seen["z"] = z
            return z.square().sum(1)

        x = self.x.double()
        line = lime(f, x, scale=0.3, **KERNEL)
        far = ((seen["z"] - x) / 0.3).norm(dim=1)
        want = weighted_least_squares(seen["z"], f(seen["z"]), (-((far / 0.7) ** 2)).exp())
        assert_close(line.coefficients, want.coefficients, atol=1e-10)
        assert line.effective_samples < 0.8 * KERNEL["samples"]

    def test_no_graph_is_built(self):
        x = self.x.clone().requires_grad_()
        line = lime(lambda z: z.sum(1), x, **KERNEL)
        assert not line.coefficients.requires_grad and x.grad is None


class TestSeeds:
    @pytest.mark.parametrize("x", [7, torch.randn(7)], ids=["words", "real"])
    def test_the_same_seed_gives_the_same_answer(self, x):
        def f(z):
            return z.double().sum(1) ** 2

        first = lime(f, x, **KERNEL)
        torch.manual_seed(99)
        torch.rand(13)
        state = torch.get_rng_state()
        again = lime(f, x, **KERNEL)
        assert torch.equal(first.coefficients, again.coefficients)
        assert (first.intercept, first.r2) == (again.intercept, again.r2)
        assert torch.equal(state, torch.get_rng_state())  # and draws from nobody else
        other = lime(f, x, **{**KERNEL, "seed": 4})
        assert (first.coefficients - other.coefficients).abs().max() > 1e-3

    def test_more_samples_less_spread(self):
        spread = []
        for m in (64, 1024):
            found = [
                lime(game, 5, kernel_width=1.0, samples=m, seed=seed).coefficients
                for seed in range(20)
            ]
            spread.append(torch.stack(found).std(0).mean().item())
        assert 2.5 < spread[0] / spread[1] < 6.4  # √16 = 4


def wavy(present):
    """Of degree 2 mostly, and a little of every degree."""
    return torch.sin(game(present) / 25) + present[:, 0].double() * present.double().mean(1)


class TestSampling:
    """Three ways of sampling with one limit; the last two take fewer samples for the same error."""

    @staticmethod
    def population(f, n, draw, distance, width, ridge=0.0):
        """The line of infinitely many samples: all sets, each by how likely and how heavy it is."""
        sets = every_set(n)
        absent = n - sets.sum(1)
        if draw == "coin":
            chance = torch.full((2**n,), 2.0**-n, dtype=torch.float64)
        else:
            size = torch.tensor([math.comb(n, a) for a in absent.tolist()])
            chance = torch.where(absent > 0, 1 / (n * size.double()), 0.0)
        far = absent / n if distance == "share" else 1 - (1 - absent / n).double().sqrt()
        weights = chance * torch.exp(-((far.double() / width) ** 2))
        return weighted_least_squares(sets, f(sets), weights, ridge=ridge)

    @pytest.mark.parametrize("draw", ["count", "coin"])
    @pytest.mark.parametrize("distance", ["cosine", "share"])
    @pytest.mark.parametrize("sampling", ["paper", "kernel", "pairs"])
    @pytest.mark.parametrize("ridge", [0.0, 0.2])
    def test_the_limit_is_the_same(self, draw, distance, sampling, ridge):
        n, width = 5, 0.6
        m = {"paper": 200_000, "kernel": 100_000, "pairs": 300}[sampling]
        options = {"draw": draw, "distance": distance}
        want = self.population(wavy, n, width=width, ridge=ridge, **options)
        seeds = range(40 if sampling == "pairs" else 1)
        found = [
            lime(
                wavy,
                n,
                kernel_width=width,
                samples=m,
                seed=seed,
                ridge=ridge * m,  # as much for each sample
                sampling=sampling,
                **options,
            )
            for seed in seeds
        ]
        mean = torch.stack([line.coefficients for line in found]).mean(0)
        assert_close(mean, want.coefficients, atol=4e-3)
        assert_close(sum(line.intercept for line in found) / len(found), want.intercept, atol=6e-3)
        assert_close(sum(line.r2 for line in found) / len(found), want.r2, atol=0.015)
        plain = self.population(wavy, n, width=width, **options).coefficients
        assert ridge == 0 or (plain - want.coefficients).abs().max() > 0.02

    def test_the_spread_is_smaller(self):
        n, width = 8, 0.25 * math.sqrt(2)
        want = self.population(wavy, n, "count", "cosine", width).coefficients

        def error(sampling, m):
            runs = [
                lime(wavy, n, kernel_width=width, samples=m, seed=s, sampling=sampling).coefficients
                for s in range(40)
            ]
            off = torch.stack(runs) - want
            bias = off.mean(0).square().mean().sqrt()
            assert bias < 0.4 * off.square().mean().sqrt()  # of 40 seeds 1/√40 = 0.16 is chance
            return off.square().mean().sqrt()

        assert error("kernel", 120) < 0.95 * error("paper", 120)
        assert error("pairs", 120) < 0.7 * error("kernel", 120)

    @pytest.mark.parametrize("draw", ["count", "coin"])
    def test_sets_are_drawn_in_proportion_to_draw_and_kernel(self, draw):
        n, m, width = 5, 4001, 0.5
        asked = []

        def f(z):
            asked.append(z)
            return game(z)

        options = {"kernel_width": width, "draw": draw, "distance": "share"}
        line = lime(f, n, samples=m, seed=0, sampling="kernel", **options)
        (z,) = asked
        assert z.dtype == torch.bool and z.shape == (m, n)
        share = torch.bincount((~z).sum(1), minlength=n + 1) / m
        size = torch.arange(n + 1)
        chance = torch.tensor([math.comb(n, a) / 2**n for a in range(n + 1)])
        chance = chance if draw == "coin" else (size > 0) / n
        mass = chance.double() * torch.exp(-((size / n / width) ** 2))
        assert_close(share, mass / mass.sum(), atol=1.001 / m)  # rounded up or down, and no more
        for a in (1, 2, 3):  # and of one size, all alike
            places = (~z[(~z).sum(1) == a]).double().mean(0)
            assert_close(places, torch.full((n,), a / n), atol=0.04)
        assert_close(line.effective_samples, m, atol=1e-6)
        assert_close(line.coefficients, self.weighted(z, mass.sum()).coefficients)

    @staticmethod
    def weighted(z, weight):
        return weighted_least_squares(z, game(z), torch.full((len(z),), float(weight)))

    def test_sizes_begin_at_a_place_that_is_drawn(self):
        """Else a size with less than one sample would be there always, or never."""
        seen = []

        def f(z):
            seen.append(int((~z).sum(1).max()))
            return z.double().sum(1)

        for seed in range(60):
            lime(f, 6, kernel_width=0.35, samples=40, seed=seed, sampling="kernel")
        assert len(set(seen)) > 1

    def test_pairs_are_found_exactly_where_there_is_nothing_else(self):
        n, options = 6, {"draw": "coin", "distance": "share"}
        want = self.population(game, n, width=0.5, **options)
        runs = {
            sampling: lime(
                game, n, kernel_width=0.5, samples=400, seed=0, sampling=sampling, **options
            )
            for sampling in ("kernel", "pairs")
        }
        off = {k: (v.coefficients - want.coefficients).abs().max() for k, v in runs.items()}
        assert off["pairs"] < 2e-3 and off["kernel"] > 5e-2
        assert_close(runs["pairs"].intercept, want.intercept, atol=2e-2)

    @pytest.mark.parametrize("sampling", ["kernel", "pairs"])
    @pytest.mark.parametrize("n", [1, 2, 3, 7])
    def test_a_linear_function_is_found_by_each(self, sampling, n):
        beta = randn(n)
        line = lime(lambda z: 3 + z.double() @ beta, n, draw="coin", sampling=sampling, **KERNEL)
        assert_close(line.coefficients, beta, atol=1e-9)
        assert_close(line.intercept, 3.0, atol=1e-9)
        assert_close(line.r2, 1.0, atol=1e-9)

    def test_pairs_of_two_words(self):
        def both(z):
            return (z[:, 0] & z[:, 1]).double()

        line = lime(both, 2, draw="coin", sampling="pairs", **KERNEL)
        want = self.population(both, 2, "coin", "cosine", 0.7)
        assert_close(line.coefficients, want.coefficients, atol=0.02)

    @pytest.mark.parametrize("sampling", ["kernel", "pairs"])
    def test_fewer_samples_than_words_need_ridge(self, sampling):
        options = {"kernel_width": 0.7, "samples": 6, "seed": 0, "sampling": sampling}
        with pytest.raises(ValueError, match="span 9 directions"):
            lime(game, 9, **options)
        assert lime(game, 9, ridge=0.1, **options).coefficients.isfinite().all()
        options |= {"kernel_width": 1e-2, "samples": 90}  # so narrow that all sets are of one size
        with pytest.raises(ValueError, match="span 9 directions"):
            lime(wavy, 9, **options)
        assert lime(wavy, 9, ridge=0.1, **options).coefficients.isfinite().all()

    @pytest.mark.parametrize("sampling", ["kernel", "pairs"])
    def test_the_same_seed(self, sampling):
        first, again, other = (
            lime(wavy, 7, kernel_width=0.7, samples=101, seed=seed, sampling=sampling)
            for seed in (3, 3, 4)
        )
        assert torch.equal(first.coefficients, again.coefficients)
        assert (first.intercept, first.r2) == (again.intercept, again.r2)
        assert (first.coefficients - other.coefficients).abs().max() > 1e-4


class TestThePackage:
    TEXT = "one two three four five six seven"

    def explain(self, seed):
        """The package's answer, and the sets that it drew."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
            from lime.lime_text import LimeTextExplainer
        names = self.TEXT.split()
        asked = []

        def classifier(texts):
            present = torch.tensor([[w in t.split() for w in names] for t in texts])
            asked.append(present)
            p = torch.sigmoid(game(present) / 20 - 1).numpy()
            return np.stack([1 - p, p], axis=1)

        explainer = LimeTextExplainer(bow=False, random_state=seed)
        found = explainer.explain_instance(
            self.TEXT, classifier, num_features=len(names), num_samples=2000
        )
        return found, asked[0]

    def test_it_says_the_same_of_the_same_neighbours(self):
        found, z = self.explain(seed=0)
        n = z.shape[1]
        absent = 1 - z.double().mean(1)
        weights = torch.exp(-(((1 - (1 - absent).sqrt()) / (0.25 * math.sqrt(2))) ** 2))
        values = torch.sigmoid(game(z) / 20 - 1)
        ours = weighted_least_squares(z, values, weights, ridge=1.0)
        theirs = dict(found.local_exp[1])
        assert_close(ours.coefficients, [theirs[j] for j in range(n)], atol=1e-10)
        assert_close(ours.intercept, found.intercept[1], atol=1e-10)
        assert_close(ours.r2, found.score, atol=1e-10)

    def test_and_nearly_the_same_of_neighbours_of_our_own(self):
        found, z = self.explain(seed=1)
        ours = lime(
            lambda z: torch.sigmoid(game(z) / 20 - 1),
            z.shape[1],
            kernel_width=0.25 * math.sqrt(2),
            samples=2000,
            seed=0,
            ridge=1.0,
        )
        theirs = dict(found.local_exp[1])
        want = torch.tensor([theirs[j] for j in range(z.shape[1])])
        assert_close(ours.coefficients, want, atol=0.01)
        assert torch.corrcoef(torch.stack([ours.coefficients, want]))[0, 1] > 0.99


def test_errors():
    def f(z):
        return z.double().sum(1)

    wrong = [
        ({"kernel_width": 0}, "kernel_width: expected a number above 0, got 0"),
        ({"kernel_width": math.nan}, "kernel_width: expected a number above 0, got nan"),
        ({"kernel_width": math.inf}, "kernel_width: expected a number above 0, got inf"),
        ({"kernel_width": "0.25"}, "kernel_width: expected a number above 0"),
        ({"samples": 1}, "samples: expected an integer of at least 2, got 1"),
        ({"samples": 100.0}, "samples: expected an integer"),
        ({"samples": True}, "samples: expected an integer"),
        ({"seed": None}, "seed: expected an integer, got None"),
        ({"distance": "euclid"}, "distance: expected one of cosine, share, got 'euclid'"),
        ({"draw": "all"}, "draw: expected one of count, coin, got 'all'"),
        ({"sampling": "all"}, "sampling: expected one of paper, kernel, pairs, got 'all'"),
        (
            {"x": torch.zeros(3), "sampling": "kernel"},
            "sampling: expected 'paper' for a real x, got 'kernel'",
        ),
        (
            {"sampling": "pairs", "f": lambda z: z},
            r"f: expected one value a row, \(101,\), got \(101, 3\)",
        ),
        ({"scale": 0.0}, "scale: expected a number above 0, got 0.0"),
        ({"scale": math.inf}, "scale: expected a number above 0, got inf"),
        ({"ridge": -1.0}, "ridge: expected a number of at least 0"),
        ({"x": 0}, "x: expected at least 1 word, got 0"),
        ({"x": torch.zeros(2, 3)}, r"x: expected shape \(n ≥ 1,\), got \(2, 3\)"),
        ({"x": torch.zeros(0)}, r"x: expected shape \(n ≥ 1,\), got \(0,\)"),
        ({"f": lambda z: z}, r"f: expected one value a row, \(101,\), got \(101, 3\)"),
        ({"f": lambda z: f(z).log() - math.inf}, "f: expected finite numbers, got -inf"),
    ]
    for change, message in wrong:
        arguments = {"f": f, "x": 3, **KERNEL, **change}
        with pytest.raises(ValueError, match=message):
            lime(arguments.pop("f"), arguments.pop("x"), **arguments)
    for x, name in (
        (torch.tensor([3, 5]), "a tensor of torch.int64"),
        (True, "bool"),
        ("a", "str"),
    ):
        with pytest.raises(TypeError, match=f"number of words or a floating tensor .* got {name}"):
            lime(f, x, **KERNEL)
    with pytest.raises(TypeError, match=r"f: expected a torch.Tensor, got list"):
        lime(lambda z: [0.0], 3, **KERNEL)


def test_examples():
    outcome = doctest.testmod(surrogate)
    assert outcome.attempted > 0 and outcome.failed == 0
