"""lib.interpret.gradients held to its contract, with captum as the second opinion.

Sizes are distinct primes. What is right is said by loops, and by integrals done by hand.
"""

import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib.interpret import gradients
from lib.interpret.gradients import (
    RULES,
    completeness_gap,
    gradient_times_input,
    integrated_gradients,
    quadrature,
)

B, N, D = 3, 5, 7
every_rule = pytest.mark.parametrize("rule", RULES)
double = torch.float64


def randn(*shape, seed=0, dtype=double):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=double).to(dtype)


def smooth(seed=0, dtype=double):
    """A small network of tanh: (N, 5, 7) → (N,)."""
    first, last = randn(N * D, 11, seed=seed + 10, dtype=dtype), randn(11, seed=seed + 11)
    return lambda x: (x.flatten(1) @ first / 6).tanh() @ last.to(dtype)


def by_loop(f, x, start, rule, steps):
    """One row, one node at a time."""
    total = torch.zeros_like(x)
    for alpha, w in zip(*quadrature(rule, steps), strict=True):
        point = (start + alpha * (x - start)).requires_grad_()
        f(point[None]).backward()
        total += w * point.grad
    return total * (x - start)


def test_doctests():
    result = doctest.testmod(gradients)
    assert result.attempted >= 3 and result.failed == 0


class TestQuadrature:
    @every_rule
    @pytest.mark.parametrize("steps", [2, 3, 11, 64])
    def test_is_a_mean_over_the_way(self, rule, steps):
        nodes, weights = quadrature(rule, steps)
        assert nodes.shape == weights.shape == (steps,)
        assert nodes.dtype == weights.dtype == double
        assert (weights > 0).all() and weights.sum().item() == pytest.approx(1, abs=1e-13)
        assert (nodes.diff() > 0).all() and nodes[0] >= 0 and nodes[-1] <= 1

    def test_nodes_by_hand(self):
        third = 1 / 3
        want = {
            "left": ([0, third, 2 * third], [third] * 3),
            "right": ([third, 2 * third, 1], [third] * 3),
            "midpoint": ([third / 2, 0.5, 1 - third / 2], [third] * 3),
            "trapezoid": ([0, 0.5, 1], [0.25, 0.5, 0.25]),
            "gauss": (
                [0.5 - math.sqrt(0.15), 0.5, 0.5 + math.sqrt(0.15)],
                [5 / 18, 8 / 18, 5 / 18],
            ),
        }
        for rule, (nodes, weights) in want.items():
            got = torch.stack(quadrature(rule, 3))
            torch.testing.assert_close(
                got, torch.tensor([nodes, weights], dtype=double), rtol=0, atol=1e-14
            )

    @pytest.mark.parametrize(
        "rule,degree", [("gauss", 9), ("midpoint", 1), ("trapezoid", 1), ("left", 0), ("right", 0)]
    )
    def test_exact_up_to_its_degree_and_no_further(self, rule, degree):
        nodes, weights = quadrature(rule, 5)
        errors = [abs((weights @ nodes**k).item() - 1 / (k + 1)) for k in range(degree + 2)]
        assert max(errors[:-1]) < 1e-14 < 1e-7 < errors[-1]

    @pytest.mark.parametrize(
        "rule,order", [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 2)]
    )
    def test_order(self, rule, order):
        def error(steps):
            nodes, weights = quadrature(rule, steps)
            return abs((weights @ nodes.exp()).item() - (math.e - 1))

        intervals = 1 if rule == "trapezoid" else 0
        ratio = error(40 + intervals) / error(80 + intervals)
        assert math.log2(ratio) == pytest.approx(order, abs=0.02)

    @pytest.mark.parametrize("steps", [1, 2, 7])
    def test_one_node_is_enough_but_for_the_trapezoid(self, steps):
        for rule in RULES:
            if rule == "trapezoid" and steps == 1:
                with pytest.raises(ValueError, match="steps: expected an integer of at least 2"):
                    quadrature(rule, steps)
            else:
                assert quadrature(rule, steps)[1].shape == (steps,)

    @pytest.mark.parametrize("steps", [0, -1, 2.0, True, None])
    def test_bad_steps(self, steps):
        with pytest.raises(ValueError, match="steps: expected an integer of at least 1, got"):
            quadrature("gauss", steps)

    def test_bad_rule(self):
        with pytest.raises(ValueError, match=r"rule: expected one of gauss, .*, got 'simpson'"):
            quadrature("simpson", 4)


class TestIntegratedGradients:
    def test_by_hand(self):
        # f = x₁² x₂ from 0 to (2, 3): ∂₁f = 2α²·6, ∂₂f = 4α², so IG = 2·4, 3·4/3
        def f(x):
            return x[:, 0] ** 2 * x[:, 1]

        got = integrated_gradients(f, torch.tensor([[2.0, 3.0]], dtype=double), 0.0, steps=2)
        torch.testing.assert_close(got, torch.tensor([[8.0, 4.0]], dtype=double))

    @every_rule
    def test_equals_the_loop(self, rule):
        f, x, start = smooth(), randn(B, N, D), randn(B, N, D, seed=1)
        got = integrated_gradients(f, x, start, steps=13, rule=rule)
        want = torch.stack([by_loop(f, a, b, rule, 13) for a, b in zip(x, start, strict=True)])
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)

    @pytest.mark.parametrize(
        "ours,theirs,steps,sum_,atol",
        [
            # captum rounds its weights to float32; 1/16 and k/16 stand that
            ("left", "riemann_left", 16, 1.0, 1e-14),
            ("right", "riemann_right", 16, 1.0, 1e-14),
            ("midpoint", "riemann_middle", 16, 1.0, 1e-14),
            ("gauss", "gausslegendre", 13, 1.0, 1e-7),
            ("trapezoid", "riemann_trapezoid", 17, 16 / 17, 1e-6),  # whose sum is (n − 1)/n
        ],
    )
    def test_equals_captum_at_equal_nodes(self, ours, theirs, steps, sum_, atol):
        from captum.attr import IntegratedGradients

        f, x, start = smooth(), randn(B, N, D), randn(B, N, D, seed=1)
        want = IntegratedGradients(f).attribute(x, start, n_steps=steps, method=theirs)
        got = integrated_gradients(f, x, start, steps=steps, rule=ours)
        torch.testing.assert_close(sum_ * got, want, rtol=0, atol=atol)
        assert (got - want).abs().max() < 1e-7 or ours == "trapezoid"

    def test_equals_captum_in_float32_to_the_last_bit(self):
        from captum.attr import IntegratedGradients

        x, start = randn(B, N, D, dtype=torch.float32), torch.zeros(B, N, D)
        f = smooth(dtype=torch.float32)
        want = IntegratedGradients(f).attribute(x, start, n_steps=64, method="gausslegendre")
        assert torch.equal(integrated_gradients(f, x, start), want)

    @given(seed=st.integers(0, 10**6), steps=st.integers(24, 40))
    @settings(max_examples=20, deadline=None)
    def test_complete_linear_and_blind_to_what_does_not_matter(self, seed, steps):
        x, start = randn(B, N, D, seed=seed), randn(1, N, D, seed=seed + 1)
        f, g = smooth(seed), smooth(seed + 2)

        def ig(h):
            return integrated_gradients(h, x, start, steps=steps)

        gap = completeness_gap(ig(f), f, x, start)
        assert gap.shape == (B,) and gap.abs().max() < 1e-6
        mixed = ig(lambda z: 2 * f(z) - 3 * g(z))
        torch.testing.assert_close(mixed, 2 * ig(f) - 3 * ig(g), rtol=0, atol=1e-12)
        no_third = torch.ones(N, D, dtype=double)
        no_third[2] = 0
        shares = ig(lambda z: f(z * no_third))
        assert (shares[:, 2] == 0).all() and (shares[:, [0, 1, 3, 4]] != 0).all()

    def test_saturation(self):
        def f(x):
            return 1 - torch.relu(1 - x).sum(-1)

        x = torch.tensor([[2.0]], dtype=double)
        assert integrated_gradients(f, x, 0.0, rule="midpoint").item() == 1
        assert gradient_times_input(f, x).item() == 0

    @pytest.mark.parametrize("max_rows", [1, 2, 3, 10, 1000])
    def test_never_more_rows_than_allowed(self, max_rows):
        x, start = randn(B, N, D), randn(N, D, seed=1)
        f, seen = smooth(), []

        def counted(z):
            seen.append(len(z))
            return f(z)

        got = integrated_gradients(counted, x, start, steps=11, max_rows=max_rows)
        want = integrated_gradients(f, x, start, steps=11)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)
        assert max(seen) <= max_rows and sum(seen) == 11 * B
        assert len(seen) == {1: 33, 2: 17, 3: 11, 10: 4, 1000: 1}[max_rows]

    @pytest.mark.parametrize("shape", [(), (1,), (D,), (N, 1), (1, N, D), (B, 1, 1)])
    def test_baseline_broadcasts(self, shape):
        x, start = randn(B, N, D), randn(*shape, seed=1)
        got = integrated_gradients(smooth(), x, start, steps=5)
        want = integrated_gradients(smooth(), x, start.expand(B, N, D).contiguous(), steps=5)
        assert torch.equal(got, want)

    def test_a_number_is_a_baseline(self):
        x = randn(B, N, D)
        got = integrated_gradients(smooth(), x, 2)
        assert torch.equal(got, integrated_gradients(smooth(), x, torch.full_like(x, 2)))

    @pytest.mark.parametrize("dtype,atol", [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
    def test_keeps_the_dtype(self, dtype, atol):
        x = randn(B, N, D)
        want = integrated_gradients(smooth(), x, 0.0, steps=7)
        got = integrated_gradients(smooth(dtype=dtype), x.to(dtype), 0.0, steps=7)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), want, rtol=0, atol=atol)

    def test_changes_nothing(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(N * D, 1), nn.Flatten(0)).double()
        x = randn(B, N, D).requires_grad_()
        start = randn(B, N, D, seed=1).requires_grad_()
        before = x.detach().clone()
        got = integrated_gradients(model, x, start, steps=3)
        with torch.no_grad():
            other = gradient_times_input(model, x, start)
            assert torch.equal(integrated_gradients(model, x, start, steps=3), got)
        assert not got.requires_grad and not other.requires_grad
        assert x.grad is None and start.grad is None and torch.equal(x, before)
        assert all(p.grad is None for p in model.parameters())
        assert not completeness_gap(got, model, x, start).requires_grad
        torch.testing.assert_close(got, other)  # a linear model: one node is as good as any

    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
    def test_refuses_ids(self, dtype):
        ids = torch.ones(2, 5, dtype=dtype)
        for method in (integrated_gradients, gradient_times_input):
            with pytest.raises(ValueError, match=f"got {dtype}: attribute embeddings, never ids"):
                method(lambda x: x.sum(-1), ids, 0.0)

    @pytest.mark.parametrize(
        "f",
        [
            lambda x: (x > 0).double().sum((1, 2)),
            lambda x: torch.zeros(len(x), dtype=double),
            lambda x: nn.Embedding(7, 1)(x[:, 0, 0].long() % 7)[:, 0],
        ],
        ids=["a step", "constant", "a look-up"],
    )
    def test_refuses_what_has_no_gradient(self, f):
        with pytest.raises(ValueError, match="f: expected a result that hangs on its input"):
            integrated_gradients(f, randn(B, N, D), 0.0)

    @pytest.mark.parametrize(
        "f,error,message",
        [
            (lambda x: x.sum(), ValueError, r"shape \(192,\), got \(\)"),
            (lambda x: x.sum(1), ValueError, r"shape \(192,\), got \(192, 7\)"),
            (lambda x: x.sum((1, 2)).tolist(), TypeError, "return a torch.Tensor, got list"),
        ],
    )
    def test_refuses_what_is_no_number_a_row(self, f, error, message):
        with pytest.raises(error, match=f"f: expected .*{message}"):
            integrated_gradients(f, randn(B, N, D), 0.0)

    @pytest.mark.parametrize(
        "inputs,baseline,error,message",
        [
            ([[1.0]], 0.0, TypeError, "inputs: expected a torch.Tensor, got list"),
            (torch.tensor(1.0), 0.0, ValueError, r"shape \(B ≥ 1, ...\), got \(\)"),
            (torch.ones(3), 0.0, ValueError, r"shape \(B ≥ 1, ...\), got \(3,\)"),
            (torch.ones(0, 3), 0.0, ValueError, r"shape \(B ≥ 1, ...\), got \(0, 3\)"),
            (torch.ones(2, 3), torch.ones(2), ValueError, r"broadcasts to \(2, 3\), got \(2,\)"),
            (torch.ones(2, 3), torch.ones(5, 2, 3), ValueError, r"got \(5, 2, 3\)"),
            (torch.ones(2, 3), torch.ones(3, dtype=double), ValueError, "got torch.float64 on cpu"),
            (torch.ones(2, 3), torch.ones(3).long(), ValueError, "got torch.int64 on cpu"),
            (torch.ones(2, 3), torch.ones(3, device="meta"), ValueError, "float32 on meta"),
        ],
    )
    def test_bad_inputs(self, inputs, baseline, error, message):
        for method in (integrated_gradients, gradient_times_input):
            with pytest.raises(error, match=message):
                method(lambda x: x.sum(1), inputs, baseline)

    @pytest.mark.parametrize("max_rows", [0, -5, 1.0, True])
    def test_bad_max_rows(self, max_rows):
        with pytest.raises(ValueError, match="max_rows: expected an integer of at least 1, got"):
            integrated_gradients(smooth(), randn(B, N, D), 0.0, max_rows=max_rows)


class TestGradientTimesInput:
    def test_is_one_node_at_the_end(self):
        f, x, start = smooth(), randn(B, N, D), randn(N, D, seed=1)
        got = gradient_times_input(f, x, start)
        torch.testing.assert_close(got, integrated_gradients(f, x, start, steps=1, rule="right"))

    def test_against_finite_differences(self):
        f, x = smooth(), randn(B, N, D)
        step = torch.zeros(N, D, dtype=double)
        step[3, 2] = 1e-6
        slope = (f(x + step) - f(x - step)) / 2e-6
        got = gradient_times_input(f, x)[:, 3, 2]
        torch.testing.assert_close(got, slope * x[:, 3, 2], rtol=0, atol=1e-8)

    def test_has_no_graph(self):
        x = randn(B, N, D)
        assert not gradient_times_input(smooth(), x.clone().requires_grad_()).requires_grad
        gradient_times_input(smooth(), x)
        assert not x.requires_grad


class TestCompletenessGap:
    def test_by_hand(self):
        def f(x):
            return x.square().sum((1, 2))

        x, a = randn(B, N, D), randn(B, N, D, seed=1)
        want = a.sum((1, 2)) - (f(x) - 4.0 * N * D)
        torch.testing.assert_close(completeness_gap(a, f, x, 2.0), want)

    def test_left_end_misses_by_half_a_step_of_the_slope(self):
        f, x, start = smooth(), randn(B, N, D), torch.zeros(N, D, dtype=double)
        a = integrated_gradients(f, x, start, steps=400, rule="left")
        at_end = gradient_times_input(f, x, start).sum((1, 2))
        at_start = integrated_gradients(f, x, start, steps=1, rule="left").sum((1, 2))
        want = -(at_end - at_start) / 800
        got = completeness_gap(a, f, x, start)
        torch.testing.assert_close(got, want, rtol=1e-2, atol=0)

    def test_a_jump_is_missed(self):
        def f(x):
            return x.round().sum((1, 2))  # whose gradient is 0 everywhere

        x = torch.ones(B, N, D, dtype=double)
        a = integrated_gradients(f, x, 0.0)
        assert (a == 0).all()
        assert (completeness_gap(a, f, x, 0.0) == -N * D).all()

    def test_refuses_another_shape(self):
        with pytest.raises(ValueError, match=r"expected shape \(3, 5, 7\), got \(3, 5\)"):
            completeness_gap(randn(B, N), smooth(), randn(B, N, D), 0.0)

    def test_f_is_checked(self):
        x = randn(B, N, D)
        with pytest.raises(ValueError, match="f: expected one number a row"):
            completeness_gap(x, lambda z: z.sum(1), x, 0.0)
