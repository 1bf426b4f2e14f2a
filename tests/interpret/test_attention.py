"""lib.interpret.attention held to its contract.

Loops in Python floats and scipy say what is right. Sizes are distinct primes.
"""

import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

import lib.interpret.attention as module
from lib.attention import MultiHeadAttention, padding_mask
from lib.cache import KVCache
from lib.interpret import (
    ablate_heads,
    attention_norms,
    attention_rollout,
    equal_output_weights,
    kendall_tau,
    permuted_weights,
    replace_weights,
    uniform_weights,
)

LAYERS, B, H, N, D = 3, 2, 5, 7, 35
DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=DOUBLE)


def stochastic(*shape, seed=0):
    return randn(*shape, seed=seed).softmax(-1)


@pytest.fixture
def attend():
    torch.manual_seed(1)
    made = MultiHeadAttention(D, H).double().eval()
    for projection in made.children():  # a bias of zero hides mistakes
        torch.nn.init.normal_(projection.bias)
    return made


def test_doctests():
    assert doctest.testmod(module).attempted >= 8
    assert doctest.testmod(module).failed == 0


class TestRollout:
    @pytest.mark.parametrize("residual", [0.5, 0.0, 0.3, 1])
    def test_is_the_product_in_plain_python(self, residual):
        weights = stochastic(LAYERS, B, H, N, N)
        got = attention_rollout(weights, residual=residual)
        assert got.shape == (B, N, N)
        for b in range(B):
            want = [[float(i == j) for j in range(N)] for i in range(N)]
            for layer in weights.tolist():
                mixed = [
                    [
                        residual * (i == j)
                        + (1 - residual) * sum(head[i][j] for head in layer[b]) / H
                        for j in range(N)
                    ]
                    for i in range(N)
                ]
                want = [
                    [sum(mixed[i][k] * want[k][j] for k in range(N)) for j in range(N)]
                    for i in range(N)
                ]
            assert torch.allclose(got[b], torch.tensor(want, dtype=DOUBLE), atol=1e-14)

    def test_half_is_the_default(self):
        weights = stochastic(LAYERS, B, H, N, N)
        assert torch.equal(attention_rollout(weights), attention_rollout(weights, residual=0.5))

    @settings(max_examples=20, deadline=None)
    @given(st.floats(0, 1), st.integers(0, 99))
    def test_rows_stay_stochastic(self, residual, seed):
        got = attention_rollout(stochastic(LAYERS, 1, 2, N, N, seed=seed), residual=residual)
        assert (got >= 0).all() and torch.allclose(got.sum(-1), torch.ones(1, N, dtype=DOUBLE))

    def test_keeps_the_dtype(self):
        assert attention_rollout(stochastic(1, 1, 1, 3, 3).float()).dtype == torch.float32

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (torch.zeros(2, 3, 5, 5), r"expected \(layers, B, h, n, n\), got \(2, 3, 5, 5\)"),
            (torch.zeros(2, 1, 3, 5, 7), r"expected \(layers, B, h, n, n\), got \(2, 1, 3, 5, 7\)"),
            (torch.zeros(0, 1, 3, 5, 5), r"got \(0, 1, 3, 5, 5\)"),
            (torch.zeros(1, 1, 3, 0, 0), r"got \(1, 1, 3, 0, 0\)"),
            (torch.zeros(2, 1, 3, 5, 5).long(), "expected a floating dtype, got torch.int64"),
        ],
    )
    def test_wrong_weights(self, weights, message):
        with pytest.raises(ValueError, match=message):
            attention_rollout(weights)

    @pytest.mark.parametrize("residual", [-0.1, 1.1, "half", None])
    def test_wrong_residual(self, residual):
        with pytest.raises(ValueError, match=r"residual: expected a number in \[0, 1\], got "):
            attention_rollout(stochastic(1, 1, 1, 3, 3), residual=residual)

    def test_no_tensor(self):
        with pytest.raises(TypeError, match=r"weights: expected a torch.Tensor, got list"):
            attention_rollout([[1.0]])


class TestNorms:
    def test_are_those_of_the_summands(self, attend):
        x, memory = randn(B, 3, D), randn(B, N, D, seed=2)
        mask = padding_mask([4, N], N)[:, None]
        with torch.no_grad():
            output, weights = attend(x, memory, mask=mask, return_weights=True)
            each = attention_norms(attend, x, memory, mask, per_head=True)
            total = attention_norms(attend, x, memory, mask)
        W = attend.output_projection.weight
        value = attend.value_projection(memory)
        size = D // H
        summed = torch.zeros(B, 3, N, D, dtype=DOUBLE)
        for h in range(H):
            columns = slice(h * size, (h + 1) * size)
            moved = value[..., columns] @ W[:, columns].T
            summand = weights[:, h, :, :, None] * moved[:, None]
            assert torch.allclose(each[:, h], summand.norm(dim=-1), atol=1e-13)
            summed = summed + summand
        assert torch.allclose(total, summed.norm(dim=-1), atol=1e-13)
        bias = attend.output_projection.bias
        assert torch.allclose(summed.sum(2) + bias, output, atol=1e-13)
        assert (total[0, :, 4:] == 0).all() and (total[1] > 0).all()

    def test_one_input_is_self_attention(self, attend):
        x = randn(B, N, D)
        assert torch.equal(attention_norms(attend, x), attention_norms(attend, x, x))

    def test_no_module(self):
        with pytest.raises(TypeError, match=r"expected a lib.attention.MultiHeadAttention, got Li"):
            attention_norms(torch.nn.Linear(2, 2), randn(1, 2, 2))


class TestAblation:
    def test_removes_one_summand(self, attend):
        x = randn(B, N, D)
        size = D // H
        columns = slice(2 * size, 3 * size)
        with torch.no_grad():
            whole, weights = attend(x, return_weights=True)
            value = attend.value_projection(x)[..., columns]
            summand = weights[:, 2] @ value @ attend.output_projection.weight[:, columns].T
            with ablate_heads(attend, [2]):
                without = attend(x)
            assert torch.allclose(whole - without, summand, atol=1e-13)
            assert torch.equal(attend(x, return_weights=True)[0], whole)

    def test_all_heads_leave_the_bias(self, attend):
        with ablate_heads(attend, range(H)), torch.no_grad():
            assert torch.equal(attend(randn(1, 3, D))[0, 0], attend.output_projection.bias)

    def test_no_heads_is_no_change(self, attend):
        before = attend.output_projection.weight.clone()
        with ablate_heads(attend, []):
            assert torch.equal(attend.output_projection.weight, before)

    def test_an_error_restores_too(self, attend):
        before = attend.output_projection.weight.clone()
        with pytest.raises(KeyError), ablate_heads(attend, [0, 4]):
            assert not torch.equal(attend.output_projection.weight, before)
            raise KeyError
        assert torch.equal(attend.output_projection.weight, before)

    def test_what_is_trained_inside_is_thrown_away(self, attend):
        before = attend.output_projection.weight.clone()
        with ablate_heads(attend, [1]), torch.no_grad():
            attend.output_projection.weight += 1.0
        assert torch.equal(attend.output_projection.weight, before)

    def test_nested(self, attend):
        before = attend.output_projection.weight.clone()
        size = D // H
        with ablate_heads(attend, [0]):
            with ablate_heads(attend, [3]):
                assert (attend.output_projection.weight[:, :size] == 0).all()
                assert (attend.output_projection.weight[:, 3 * size : 4 * size] == 0).all()
            inside = attend.output_projection.weight
            assert torch.equal(inside[:, 3 * size :], before[:, 3 * size :])
        assert torch.equal(attend.output_projection.weight, before)

    def test_gradients_survive(self, attend):
        with ablate_heads(attend, [1]):
            attend(randn(1, 3, D)).sum().backward()
        assert attend.value_projection.weight.grad[D // H : 2 * D // H].abs().max() == 0
        assert attend.value_projection.weight.grad[: D // H].abs().max() > 0

    @pytest.mark.parametrize(
        ("heads", "message"),
        [
            ([5], "heads: expected 0 to 4, got 5"),
            ([-1], "heads: expected 0 to 4, got -1"),
            ([1.0], "heads: expected integers, got 1.0"),
            ([True], "heads: expected integers, got True"),
        ],
    )
    def test_wrong_heads(self, attend, heads, message):
        before = attend.output_projection.weight.clone()
        with pytest.raises(ValueError, match=message), ablate_heads(attend, heads):
            raise AssertionError("entered")
        assert torch.equal(attend.output_projection.weight, before)

    def test_no_module(self):
        with pytest.raises(TypeError, match="got Linear"), ablate_heads(torch.nn.Linear(2, 2), []):
            raise AssertionError("entered")


class TestReplacement:
    def test_its_own_weights_change_nothing(self, attend):
        x, mask = randn(B, N, D), padding_mask([4, N], N)[:, None]
        with torch.no_grad():
            want, weights = attend(x, mask=mask, return_weights=True)
            with replace_weights(attend, lambda own: own):
                got, same = attend(x, mask=mask, return_weights=True)
                plain = attend(x, mask=mask)
        assert torch.allclose(got, want, atol=1e-13) and torch.equal(plain, got)
        assert torch.equal(same, weights)

    @pytest.mark.parametrize("by_name", [False, True])
    def test_mixes_the_values_of_the_memory(self, attend, by_name):
        x, key, value = randn(B, 3, D), randn(B, N, D, seed=2), randn(B, N, D, seed=3)
        new = stochastic(B, H, 3, N, seed=4)
        with torch.no_grad(), replace_weights(attend, lambda own: new):
            got = attend(x, key=key, value=value) if by_name else attend(x, key, value)
            keyed = attend(x, key=key) if by_name else attend(x, key)
        size = D // H
        for memory, found in ((value, got), (key, keyed)):
            v = attend.value_projection(memory)
            heads = [new[:, h] @ v[..., h * size : (h + 1) * size] for h in range(H)]
            want = attend.output_projection(torch.cat(heads, -1))
            assert torch.allclose(found, want, atol=1e-13)

    def test_ends_with_the_block_by_an_error_too(self, attend):
        x = randn(B, N, D)
        want = attend(x)
        with pytest.raises(KeyError), replace_weights(attend, uniform_weights):
            assert (attend(x) - want).abs().max() > 1e-3
            raise KeyError
        assert torch.equal(attend(x), want)
        assert "forward" not in vars(attend)  # which a copy would share

    def test_nested_blocks_change_one_after_the_other(self, attend):
        x, seen = randn(B, N, D), []
        with replace_weights(attend, uniform_weights):
            outer = attend(x)
            with replace_weights(attend, lambda own: (seen.append(own), own / 2)[1]):
                attend(x)
            assert torch.equal(attend(x), outer)
        assert (seen[0] == 1 / N).all()

    def test_is_called_once_with_the_modules_own_weights(self, attend):
        x, seen = randn(B, N, D), []
        _, want = attend(x, return_weights=True)
        with replace_weights(attend, lambda own: (seen.append(own), own)[1]):
            attend(x)
        assert len(seen) == 1 and torch.equal(seen[0], want)

    def test_gradients_go_through_the_weights(self, attend):
        x = randn(B, N, D).requires_grad_()
        (want,) = torch.autograd.grad(attend(x).square().sum(), x)
        with replace_weights(attend, lambda own: own):
            (got,) = torch.autograd.grad(attend(x).square().sum(), x)
        assert torch.allclose(got, want, atol=1e-11)

    def test_wrong_shape(self, attend):
        message = r"change: expected weights of shape \(2, 5, 7, 7\), got \(2, 7, 7\)"
        with (
            replace_weights(attend, lambda own: own.mean(1)),
            pytest.raises(ValueError, match=message),
        ):
            attend(randn(B, N, D))

    def test_a_cache_is_refused(self, attend):
        with (
            replace_weights(attend, uniform_weights),
            pytest.raises(ValueError, match="cache: expected None while weights are replaced"),
        ):
            attend(randn(B, N, D), cache=KVCache(N))

    def test_no_module(self):
        with (
            pytest.raises(TypeError, match="got Linear"),
            replace_weights(torch.nn.Linear(2, 2), 0),
        ):
            raise AssertionError("entered")


class TestUniform:
    def test_leaves_forbidden_keys_out(self):
        weights = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0, 0, 0], [0, 0, 0, 0]])
        third = torch.full((3,), 1 / 3)
        got = uniform_weights(weights)
        assert torch.allclose(got[0, :3], third) and got[0, 3] == 0
        assert torch.equal(got[1:], weights[1:]) and got.dtype == weights.dtype

    def test_wrong(self):
        with pytest.raises(ValueError, match=r"expected \(\.\.\., n_k\), got \(\)"):
            uniform_weights(torch.tensor(1.0))


class TestPermuted:
    def test_is_a_permutation_of_the_allowed(self):
        weights = stochastic(B, H, 3, N)
        weights[0, :, :, 4:] = 0.0
        weights[1, :, :, 0] = 0.0
        got = permuted_weights(weights, generator())
        assert torch.equal(got.sort(-1).values, weights.sort(-1).values)
        assert torch.equal(got == 0, weights == 0)
        assert (got != weights).any(-1).double().mean() > 0.9

    def test_rows_and_heads_move_by_themselves(self):
        row = stochastic(N).expand(B, H, 3, N)
        assert permuted_weights(row, generator()).flatten(0, 2).unique(dim=0).shape[0] > 25

    def test_every_order_is_equally_likely(self):
        many = torch.tensor([0.1, 0.0, 0.3, 0.6]).expand(6000, 4)
        found, counts = permuted_weights(many, generator(3)).unique(dim=0, return_counts=True)
        assert len(found) == 6
        assert ((counts - 1000).abs() < 5 * math.sqrt(1000 * 5 / 6)).all()

    def test_the_seed_decides(self):
        weights = stochastic(B, H, 3, N)
        first, again, other = (permuted_weights(weights, generator(s)) for s in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)

    def test_a_row_of_zeros_stays(self):
        assert torch.equal(permuted_weights(torch.zeros(2, 3)), torch.zeros(2, 3))


class TestEqualOutput:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 13), st.integers(1, 5), st.integers(0, 999))
    def test_the_output_stays_and_the_wish_gains(self, n, d, seed):
        weights, values = stochastic(n, seed=seed), randn(n, d, seed=seed + 1)
        wish = randn(n, seed=seed + 2)
        got = equal_output_weights(weights, values, wish)
        assert (got >= 0).all()
        assert torch.allclose(got.sum(), torch.tensor(1.0, dtype=DOUBLE), atol=1e-10)
        assert torch.allclose(got @ values, weights @ values, atol=1e-10)
        assert wish @ got >= wish @ weights - 1e-10
        if n <= d + 1:
            assert torch.allclose(got, weights, atol=1e-8)
        else:  # a vertex: no more weights than conditions
            assert (got > 1e-9).sum() <= d + 1
            assert (got - weights).abs().max() > 1e-6

    def test_equal_values_let_all_weight_go_where_it_is_wished(self):
        weights, wish = stochastic(N), torch.arange(N, dtype=DOUBLE)
        got = equal_output_weights(weights, torch.ones(N, 2, dtype=DOUBLE), wish)
        assert torch.allclose(got, torch.eye(N, dtype=DOUBLE)[-1], atol=1e-12)

    def test_a_weight_at_zero_is_not_pushed_below(self):
        weights = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0], dtype=DOUBLE)
        got = equal_output_weights(weights, randn(5, 1), torch.tensor([-9.0, 1, 0, 2, 3]).double())
        assert (got >= 0).all() and got[0] == 0

    def test_size_of_the_values_does_not_matter(self):
        weights, values, wish = stochastic(13), randn(13, 3), randn(13, seed=1)
        want = equal_output_weights(weights, values, wish)
        for size in (1e-12, 1e12):
            got = equal_output_weights(weights, size * values, wish)
            assert torch.allclose(got, want, atol=1e-9)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("weights", torch.ones(2, 5, dtype=DOUBLE), r"expected shape \(n,\), got \(2, 5\)"),
            ("weights", torch.ones(5), "weights: expected torch.float64, got torch.float32"),
            ("values", torch.ones(4, 2, dtype=DOUBLE), r"expected shape \(5, d_v\), got \(4, 2\)"),
            ("values", torch.ones(5, dtype=DOUBLE), r"expected shape \(5, d_v\), got \(5,\)"),
            ("wish", torch.ones(4, dtype=DOUBLE), r"wish: expected shape \(5,\), got \(4,\)"),
        ],
    )
    def test_wrong(self, name, value, message):
        good = {"weights": stochastic(5), "values": randn(5, 2), "wish": randn(5)}
        with pytest.raises(ValueError, match=message):
            equal_output_weights(**{**good, name: value})

    def test_no_tensor(self):
        with pytest.raises(TypeError, match=r"wish: expected a torch.Tensor, got list"):
            equal_output_weights(stochastic(5), randn(5, 2), [1.0])


class TestKendall:
    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=13).filter(
            lambda pairs: all(len({p[k] for p in pairs}) > 1 for k in (0, 1))
        )
    )
    def test_is_scipys(self, pairs):
        a, b = (torch.tensor(x, dtype=DOUBLE) for x in zip(*pairs, strict=True))
        assert kendall_tau(a, b).item() == pytest.approx(kendalltau(a, b).statistic, abs=1e-12)

    def test_only_the_order_counts(self):
        a = randn(3, N)
        assert torch.equal(kendall_tau(a, a.exp()), torch.ones(3, dtype=DOUBLE))
        assert torch.equal(kendall_tau(a, -a), -torch.ones(3, dtype=DOUBLE))

    def test_no_order_is_nan(self):
        assert kendall_tau(torch.ones(3), torch.arange(3.0)).isnan()

    def test_wrong(self):
        with pytest.raises(ValueError, match=r"second: expected shape \(3,\), got \(2,\)"):
            kendall_tau(randn(3), randn(2))
        with pytest.raises(
            ValueError, match=r"first: expected shape \(\.\.\., n ≥ 2\), got \(1,\)"
        ):
            kendall_tau(randn(1), randn(1))
        with pytest.raises(TypeError, match=r"second: expected a torch.Tensor, got list"):
            kendall_tau(randn(2), [1.0, 2.0])
