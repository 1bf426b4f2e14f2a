"""lib.compression held to its contract.

Brute force over all supports, plain Python and torch's own quantized grids say what is right.
Sizes are distinct primes.
"""

import copy
import doctest
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import compression
from lib.attention import MultiHeadAttention
from lib.compression import (
    Int8Embedding,
    Int8Linear,
    Quantized,
    apply_masks,
    dequantize,
    fake_quantize,
    magnitude_prune,
    pack_bits,
    quantize,
    quantize_int8,
    structured_prune_heads,
    structured_prune_neurons,
    unpack_bits,
)
from lib.layers import FeedForward

SCHEMES = ["symmetric", "affine"]
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def attention(d_model=15, num_heads=3, *, d_head=7, **options):
    """Attention whose biases are not zero."""
    torch.manual_seed(0)
    module = MultiHeadAttention(d_model, num_heads, d_head=d_head, **options).double()
    for i, parameter in enumerate(module.parameters()):
        parameter.data = randn(*parameter.shape, seed=i) / 3
    return module


class Net(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.table = nn.Embedding(11, 5)
        self.hidden = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)
        self.deep = nn.Sequential(nn.Linear(7, 5, bias=False), nn.ReLU())
        self.read = nn.Linear(5, 11, bias=False)
        if tied:
            self.read.weight = self.table.weight
        self.double()

    def forward(self, ids):
        return self.read(self.deep(self.norm(self.hidden(self.table(ids)))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


IDS = torch.tensor([[0, 3, 10], [7, 7, 1]])


def test_doctests():
    assert doctest.testmod(compression).attempted > 10
    assert doctest.testmod(compression).failed == 0


class TestMagnitude:
    @pytest.mark.parametrize("k", range(7))
    def test_no_matrix_with_as_many_zeros_is_nearer(self, k):
        linear = nn.Linear(3, 2, bias=False).double()
        linear.weight.data = randn(2, 3, seed=4)
        original = linear.weight.detach().clone()
        magnitude_prune(linear, k / 6)
        found = (linear.weight.detach() - original).square().sum()
        best = min(
            sum(original.flatten()[i].item() ** 2 for i in gone)
            for gone in itertools.combinations(range(6), k)
        )
        assert found.item() == pytest.approx(best, rel=1e-12, abs=1e-15)
        assert int((linear.weight == 0).sum()) == k

    def test_what_stays_is_unchanged_and_the_mask_says_what(self, net):
        before = copy.deepcopy(net.state_dict())
        masks = magnitude_prune(net, 0.65)
        assert list(masks) == ["table.weight", "hidden.weight", "deep.0.weight", "read.weight"]
        for name, value in net.state_dict().items():
            if name in masks:
                assert masks[name].dtype == torch.bool
                assert torch.equal(value, before[name] * masks[name])
                assert int((~masks[name]).sum()) == round(0.65 * value.numel())
            else:
                assert torch.equal(value, before[name]), name

    def test_all_together_share_one_threshold(self, net):
        net.hidden.weight.data *= 100
        masks = magnitude_prune(net, 0.3, scope="all")
        assert masks["hidden.weight"].all()
        total = sum(mask.numel() for mask in masks.values())
        assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.3 * total)
        kept = torch.cat([net.get_parameter(n)[m] for n, m in masks.items()]).abs().min()
        torch.manual_seed(0)
        original = Net()
        original.hidden.weight.data *= 100
        gone = torch.cat([original.get_parameter(n)[~m] for n, m in masks.items()]).abs().max()
        assert gone <= kept

    def test_of_equals_the_first_go(self):
        linear = nn.Linear(5, 1, bias=False)
        linear.weight.data = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]])
        assert magnitude_prune(linear, 0.4)["weight"].tolist() == [[False, False, True, True, True]]

    def test_the_number_of_zeros_is_exact_among_equals(self):
        linear = nn.Linear(7, 3, bias=False)
        nn.init.ones_(linear.weight)
        magnitude_prune(linear, 1 / 3)
        assert int((linear.weight == 0).sum()) == 7

    def test_a_shared_weight_is_pruned_once(self):
        torch.manual_seed(0)
        net = Net(tied=True)
        masks = magnitude_prune(net, 0.5)
        assert list(masks) == ["table.weight", "hidden.weight", "deep.0.weight"]
        assert net.read.weight is net.table.weight
        assert int((net.read.weight == 0).sum()) == round(0.5 * 55)

    def test_masks_keep_zeros_in_training(self, net):
        masks = magnitude_prune(net, 0.7)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        net(IDS).square().sum().backward()
        optimizer.step()
        assert any((net.get_parameter(n)[~m] != 0).any() for n, m in masks.items())
        apply_masks(net, masks)
        for name, mask in masks.items():
            assert (net.get_parameter(name)[~mask] == 0).all()
            assert (net.get_parameter(name)[mask] != 0).all()

    @pytest.mark.parametrize("amount", [-0.1, 1.1, "half", math.nan])
    def test_bad_amount(self, net, amount):
        with pytest.raises(ValueError, match=r"amount: expected a number in \[0, 1\]"):
            magnitude_prune(net, amount)

    def test_bad_scope_module_and_masks(self, net):
        with pytest.raises(ValueError, match="scope: expected 'each' or 'all', got 'layer'"):
            magnitude_prune(net, 0.5, scope="layer")
        with pytest.raises(ValueError, match=r"expected one with linear maps .*, got ReLU"):
            magnitude_prune(nn.ReLU(), 0.5)
        with pytest.raises(ValueError, match="no such parameter"):
            apply_masks(net, {"nothing": torch.ones(3, dtype=torch.bool)})
        with pytest.raises(ValueError, match=r"expected shape \(7, 5\), got \(3,\)"):
            apply_masks(net, {"hidden.weight": torch.ones(3, dtype=torch.bool)})


class TestHeads:
    @pytest.mark.parametrize("heads", [[0], [1], [2], [0, 2], [2, 1], []])
    @pytest.mark.parametrize("options", [{}, {"bias": False}, {"scaled": False}], ids=str)
    def test_the_output_is_that_of_zeroed_columns(self, heads, options):
        module = attention(**options)
        smaller = structured_prune_heads(module, heads)
        zeroed = copy.deepcopy(module)
        for head in heads:
            zeroed.output_projection.weight.data[:, 7 * head : 7 * head + 7] = 0
        x, memory = randn(2, 5, 15, seed=50), randn(2, 11, 15, seed=51)
        torch.testing.assert_close(smaller(x, memory), zeroed(x, memory), rtol=0, atol=1e-13)
        got, weights = smaller(x, return_weights=True)
        want, all_weights = zeroed(x, return_weights=True)
        kept = [i for i in range(3) if i not in heads]
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)
        torch.testing.assert_close(weights, all_weights[:, kept], rtol=0, atol=1e-13)

    def test_rows_and_columns_are_really_gone(self):
        module = attention()
        smaller = structured_prune_heads(module, [1])
        assert smaller.num_heads == 2 and smaller.d_head == 7 and smaller.d_model == 15
        shapes = [tuple(p.shape) for p in smaller.parameters()]
        assert shapes == [(14, 15), (14,)] * 3 + [(15, 14), (15,)]
        linear = smaller.query_projection
        assert (linear.in_features, linear.out_features) == (15, 14)
        linear = smaller.output_projection
        assert (linear.in_features, linear.out_features) == (14, 15)

    def test_the_given_module_is_left_alone(self):
        module = attention()
        before = copy.deepcopy(module.state_dict())
        smaller = structured_prune_heads(module, [0])
        for parameter in smaller.parameters():
            parameter.data.zero_()
        assert module.num_heads == 3
        assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())

    def test_it_trains_on_as_the_given_one_would(self):
        module = attention(dropout=0.5).eval()
        module.key_projection.requires_grad_(False)
        smaller = structured_prune_heads(module, [0])
        assert not smaller.training and smaller.dropout == 0.5
        assert not smaller.key_projection.weight.requires_grad
        assert not smaller.key_projection.bias.requires_grad
        smaller(randn(1, 3, 15)).sum().backward()
        assert smaller.query_projection.weight.grad.shape == (14, 15)

    def test_no_random_number_is_drawn(self):
        module = attention()
        state = torch.get_rng_state()
        structured_prune_heads(module, [0])
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize(
        ("heads", "message"),
        [
            ([3], "heads: expected integers in 0 to 2, got 3"),
            ([-1], "heads: expected integers in 0 to 2, got -1"),
            ([True], "heads: expected integers in 0 to 2, got True"),
            ([1, 1], r"heads: expected each once, got \[1, 1\]"),
            ([0, 1, 2], "heads: expected at least one of 3 to stay"),
        ],
    )
    def test_bad_heads(self, heads, message):
        with pytest.raises(ValueError, match=message):
            structured_prune_heads(attention(), heads)

    def test_bad_module(self):
        with pytest.raises(TypeError, match="expected MultiHeadAttention, got Linear"):
            structured_prune_heads(nn.Linear(3, 3), [0])


class TestNeurons:
    @pytest.mark.parametrize("gated", [False, True])
    @pytest.mark.parametrize("bias", [False, True])
    def test_the_output_is_that_of_zeroed_columns(self, gated, bias):
        torch.manual_seed(0)
        module = FeedForward(5, 11, gated=gated, bias=bias).double()
        before = copy.deepcopy(module.state_dict())
        gone = [0, 4, 10]
        smaller = structured_prune_neurons(module, gone)
        zeroed = copy.deepcopy(module)
        zeroed.contract.weight.data[:, gone] = 0
        x = randn(3, 7, 5)
        torch.testing.assert_close(smaller(x), zeroed(x), rtol=0, atol=1e-14)
        assert smaller.expand.weight.shape == (8, 5) and smaller.contract.weight.shape == (5, 8)
        assert not gated or smaller.gate.weight.shape == (8, 5)
        assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())

    def test_bad_inputs(self):
        module = FeedForward(5, 11)
        with pytest.raises(ValueError, match="neurons: expected integers in 0 to 10, got 11"):
            structured_prune_neurons(module, [11])
        with pytest.raises(ValueError, match="neurons: expected at least one of 11 to stay"):
            structured_prune_neurons(module, range(11))
        with pytest.raises(TypeError, match="expected FeedForward, got Linear"):
            structured_prune_neurons(module.expand, [0])


class TestQuantize:
    def test_symmetric_by_hand(self):
        q = quantize(torch.tensor([-3.5, -0.6, 0.0, 0.4, 2.6]), bits=4)
        assert q.scale.item() == 0.5 and q.zero_point.item() == 0 and q.bits == 4
        assert q.integers.tolist() == [-7, -1, 0, 1, 5] and q.integers.dtype == torch.int8
        assert dequantize(q).tolist() == [-3.5, -0.5, 0.0, 0.5, 2.5]

    def test_affine_by_hand(self):
        q = quantize(torch.tensor([-1.0, -0.3, 0.0, 0.4, 6.5]), bits=4, scheme="affine")
        assert q.scale.item() == 0.5 and q.zero_point.item() == -6
        assert q.integers.tolist() == [-8, -7, -6, -5, 7]
        assert dequantize(q).tolist() == [-1.0, -0.5, 0.0, 0.5, 6.5]

    def test_halves_go_to_even(self):
        x = torch.tensor([-7.0, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
        assert quantize(x, bits=4).integers.tolist() == [-7, -2, -2, 0, 0, 2, 2]

    @given(
        values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=13),
        bits=st.integers(2, 8),
        scheme=st.sampled_from(SCHEMES),
    )
    @settings(max_examples=60, deadline=None)
    def test_no_number_is_off_by_more_than_half_a_step(self, values, bits, scheme):
        x = torch.tensor(values, dtype=torch.float64)
        q = quantize(x, bits, scheme=scheme)
        error = (dequantize(q) - x).abs().max()
        assert error <= q.scale.item() * (0.5 + 1e-9)
        low = -(2 ** (bits - 1)) + (scheme == "symmetric")
        assert low <= q.integers.min() and q.integers.max() <= 2 ** (bits - 1) - 1

    @every_scheme
    @pytest.mark.parametrize("shift", [-5.0, -0.31, 0.0, 0.17, 5.0])
    def test_zero_is_kept_exactly(self, scheme, shift):
        x = torch.cat([randn(11) + shift, torch.zeros(1, dtype=torch.float64)])
        assert dequantize(quantize(x, 3, scheme=scheme))[-1] == 0

    def test_symmetric_stays_symmetric_in_bfloat16(self):
        """There max / (max / 127) may be 127.5, which rounds to 128."""
        for x in (-1 - torch.arange(128) / 128).to(torch.bfloat16):
            assert quantize(x[None]).integers.item() >= -127

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_a_range_far_from_zero_is_widened_to_hold_it(self, sign):
        x = sign * torch.tensor([7.0, 10.0])
        q = quantize(x, bits=2, scheme="affine")
        assert q.scale.item() == pytest.approx(10 / 3)
        assert q.zero_point.item() == (-2 if sign > 0 else 1)

    def test_both_ends_of_the_grid_are_used(self):
        x = torch.linspace(-1, 3, 101, dtype=torch.float64)
        for bits in range(2, 9):
            affine = quantize(x, bits, scheme="affine").integers
            assert affine.min() == -(2 ** (bits - 1)) and affine.max() == 2 ** (bits - 1) - 1
            assert quantize(x, bits).integers.max() == 2 ** (bits - 1) - 1

    @every_scheme
    @pytest.mark.parametrize("axis", [0, 1, 2, -1])
    def test_each_channel_has_the_grid_it_has_alone(self, scheme, axis):
        x = randn(3, 5, 7)
        q = quantize(x, scheme=scheme, axis=axis)
        assert q.scale.shape == tuple(s if d == axis % 3 else 1 for d, s in enumerate(x.shape))
        for i in range(x.shape[axis]):
            alone = dequantize(quantize(x.select(axis, i), scheme=scheme))
            assert torch.equal(dequantize(q).select(axis, i), alone)

    def test_a_vector_along_its_only_axis(self):
        q = quantize(torch.tensor([3.0, -5.0]), axis=0)
        assert q.integers.tolist() == [127, -127]

    @every_scheme
    def test_zeros_have_scale_one(self, scheme):
        x = torch.zeros(3, 5)
        x[1] = 2.0
        q = quantize(x, scheme=scheme, axis=0)
        assert q.scale[[0, 2]].tolist() == [[1.0], [1.0]]
        assert dequantize(q)[[0, 2]].abs().max() == 0

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_the_dtype_comes_back(self, dtype):
        assert dequantize(quantize(randn(7, dtype=dtype))).dtype == dtype

    @pytest.mark.parametrize(
        ("x", "options", "message"),
        [
            (torch.ones(3).int(), {}, "x: expected floats and at least one, got torch.int32"),
            (torch.ones(0), {}, "x: expected floats and at least one"),
            (torch.tensor([1.0, math.nan]), {}, "x: expected finite numbers"),
            (torch.tensor([1.0, -math.inf]), {}, "x: expected finite numbers"),
            (torch.ones(3), {"bits": 1}, "bits: expected an integer in 2 to 8, got 1"),
            (torch.ones(3), {"bits": 9}, "bits: expected an integer in 2 to 8, got 9"),
            (torch.ones(3), {"bits": True}, "bits: expected an integer in 2 to 8, got True"),
            (torch.ones(3), {"scheme": "both"}, "scheme: expected 'symmetric' or 'affine'"),
            (torch.ones(3), {"axis": 1}, "axis: expected one of 1 dimensions, got 1"),
            (torch.ones(3), {"axis": -2}, "axis: expected one of 1 dimensions, got -2"),
        ],
    )
    def test_bad_inputs(self, x, options, message):
        with pytest.raises(ValueError, match=message):
            quantize(x, **options)

    def test_bad_types(self):
        with pytest.raises(TypeError, match=r"x: expected a torch\.Tensor, got list"):
            quantize([1.0])
        with pytest.raises(TypeError, match="expected Quantized or a module, got Tensor"):
            dequantize(torch.ones(3))


class TestStraightThrough:
    @every_scheme
    def test_value_rounded_gradient_untouched(self, scheme):
        x = randn(5, 7).requires_grad_()
        y = fake_quantize(x, 3, scheme=scheme, axis=0)
        assert torch.equal(y, dequantize(quantize(x, 3, scheme=scheme, axis=0)))
        upstream = randn(5, 7, seed=1)
        y.backward(upstream)
        assert torch.equal(x.grad, upstream)

    def test_eight_bits_by_default(self):
        x = randn(11)
        assert torch.equal(fake_quantize(x), dequantize(quantize(x, 8)))


class TestInt8:
    @every_scheme
    def test_linear_computes_with_its_rounded_weight(self, scheme):
        torch.manual_seed(0)
        linear = nn.Linear(7, 5).double()
        linear.weight.data += 0.2
        q = Int8Linear(linear, scheme=scheme)
        want = dequantize(quantize(linear.weight, scheme=scheme, axis=0))
        x = randn(2, 3, 7)
        assert torch.equal(q.weight, want)
        assert torch.equal(q(x), F.linear(x, want, linear.bias))
        assert (q.zero_point is None) == (scheme == "symmetric")

    @every_scheme
    @pytest.mark.parametrize("bias", [False, True])
    def test_the_integer_product_is_that_of_rounded_rows_and_weights(self, scheme, bias):
        torch.manual_seed(0)
        linear = nn.Linear(7, 5, bias=bias).double()
        linear.weight.data += 0.2
        q = Int8Linear(linear, scheme=scheme, activations="int8")
        x = randn(2, 3, 7) * torch.tensor([1.0, 50.0, 1e-3]).double()[:, None]
        rounded = dequantize(quantize(x.reshape(6, 7), axis=0)).view_as(x)
        torch.testing.assert_close(q(x), F.linear(rounded, q.weight, q.bias), rtol=1e-13, atol=0)
        assert not torch.equal(q(x), F.linear(x, q.weight, q.bias))

    def test_sums_do_not_saturate(self):
        linear = nn.Linear(1031, 3, bias=False)
        nn.init.ones_(linear.weight)
        q = Int8Linear(linear, activations="int8")
        torch.testing.assert_close(q(torch.ones(2, 1031)), torch.full((2, 3), 1031.0))

    def test_no_rows(self):
        q = Int8Linear(nn.Linear(7, 5), activations="int8")
        assert q(torch.ones(2, 0, 7)).shape == (2, 0, 5)

    @every_scheme
    def test_embedding_reads_its_rounded_rows(self, scheme):
        torch.manual_seed(0)
        table = nn.Embedding(11, 5).double()
        table.weight.data += 0.5
        q = Int8Embedding(table, scheme=scheme)
        want = dequantize(quantize(table.weight, scheme=scheme, axis=0))
        assert torch.equal(q.weight, want)
        assert torch.equal(q(IDS), want[IDS])

    @every_scheme
    def test_a_module_becomes_bytes(self, net, scheme):
        before = copy.deepcopy(net.state_dict())
        q = quantize_int8(net, scheme=scheme)
        kinds = [type(m).__name__ for m in (q.table, q.hidden, q.norm, q.deep[0], q.read)]
        assert kinds == ["Int8Embedding", "Int8Linear", "LayerNorm", "Int8Linear", "Int8Linear"]
        assert q.hidden.integers.dtype == torch.int8 and q.hidden.scale.shape == (7, 1)
        assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
        assert isinstance(net.hidden, nn.Linear)
        assert 0 < (q(IDS) - net(IDS)).abs().max() < 0.1
        with torch.no_grad():
            q.norm.weight.zero_()
        assert net.norm.weight.abs().min() == 1

    @every_scheme
    def test_there_and_back_is_the_rounded_module(self, net, scheme):
        net.eval()
        back = dequantize(quantize_int8(net, scheme=scheme))
        assert isinstance(back.table, nn.Embedding) and type(back.hidden) is nn.Linear
        assert back.state_dict().keys() == net.state_dict().keys()
        for name, value in back.state_dict().items():
            want = net.state_dict()[name]
            if want.ndim == 2:
                want = dequantize(quantize(want, scheme=scheme, axis=0))
            assert torch.equal(value, want), name
        assert not back.hidden.training
        back(IDS).sum().backward()
        assert back.table.weight.grad is not None and back.hidden.weight.grad is not None

    @pytest.mark.parametrize("whole", [False, True])
    def test_nothing_is_shared(self, net, whole):
        given = net if whole else net.hidden
        q = quantize_int8(given)
        back = dequantize(q)
        for module, rest in ((back, (q, given)), (q, (given,))):
            (module.hidden if whole else module).bias.data.zero_()
            for other in rest:
                assert (other.hidden if whole else other).bias.abs().max() > 0

    def test_the_module_itself_may_be_the_linear_map(self):
        q = quantize_int8(nn.Linear(3, 2).eval(), activations="int8")
        assert isinstance(q, Int8Linear) and q.activations == "int8" and not q.training
        assert type(dequantize(q)) is nn.Linear

    @pytest.mark.parametrize("activations", ["float", "int8"])
    def test_attention_works_with_int8_projections(self, activations):
        module = attention()
        q = quantize_int8(module, activations=activations)
        x = randn(2, 5, 15, seed=50)
        gap = (q(x) - module(x)).abs().max() / module(x).abs().max()
        assert 0 < gap < 0.05
        assert q.query_projection.activations == activations

    def test_a_state_dict_holds_it_whole(self, net):
        q = quantize_int8(net, scheme="affine")
        torch.manual_seed(1)
        other = quantize_int8(Net(), scheme="affine")
        other.load_state_dict(q.state_dict())
        assert torch.equal(other(IDS), q(IDS))
        assert q.state_dict()["hidden.bias"].shape == (7,)

    def test_bad_inputs(self, net):
        with pytest.raises(ValueError, match="activations: expected 'float' or 'int8', got 'int4'"):
            quantize_int8(net, activations="int4")
        with pytest.raises(ValueError, match="activations: expected 'float' or 'int8', got 'int4'"):
            Int8Linear(nn.Linear(3, 2), activations="int4")
        with pytest.raises(ValueError, match="scheme: expected 'symmetric' or 'affine'"):
            quantize_int8(nn.ReLU(), scheme="none")
        with pytest.raises(ValueError, match="activations: expected"):
            quantize_int8(nn.ReLU(), activations="none")
        for activations in ("float", "int8"):
            q = Int8Linear(nn.Linear(3, 2), activations=activations)
            with pytest.raises(ValueError, match=r"x: expected \(..., 3\) of torch.float32, got"):
                q(torch.ones(2, 5))
            with pytest.raises(ValueError, match=r"x: expected \(..., 3\) of torch.float32, got"):
                q(torch.ones(2, 3).double())

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
    @pytest.mark.parametrize("rows", [1, 17, 24, 31])
    def test_cuda_pads_what_its_kernel_wants(self, rows):
        linear = nn.Linear(7, 5)
        q = Int8Linear(linear, scheme="affine", activations="int8")
        x = randn(rows, 7, dtype=torch.float32)
        torch.testing.assert_close(q.cuda()(x.cuda()).cpu(), q.cpu()(x))


class TestPacking:
    def test_by_hand(self):
        integers = torch.tensor([3, -4, 1], dtype=torch.int8)  # 011, 100, 001
        assert pack_bits(integers, 3).tolist() == [0b01_100_011, 0b0]

    @pytest.mark.parametrize("bits", range(2, 9))
    def test_there_and_back(self, bits):
        generator = torch.Generator().manual_seed(bits)
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
        integers = torch.randint(low, high, (3, 5, 7), generator=generator, dtype=torch.int8)
        integers[0, 0, :2] = torch.tensor([low, high - 1])
        packed = pack_bits(integers, bits)
        assert packed.dtype == torch.uint8 and packed.shape == (math.ceil(105 * bits / 8),)
        back = unpack_bits(packed, bits, (3, 5, 7))
        assert torch.equal(back, integers) and back.dtype == torch.int8

    def test_a_mask_takes_a_bit_an_entry(self):
        mask = randn(5, 11) > 0
        packed = pack_bits(mask, 1)
        assert packed.shape == (7,)
        back = unpack_bits(packed, 1, (5, 11))
        assert torch.equal(back, mask) and back.dtype == torch.bool

    def test_nothing(self):
        assert pack_bits(torch.zeros(0, dtype=torch.int8), 3).shape == (0,)

    def test_bad_inputs(self):
        ones = torch.ones(3, dtype=torch.int8)
        for bits in (0, 9, True):
            with pytest.raises(ValueError, match="bits: expected an integer in 1 to 8"):
                pack_bits(ones, bits)
            with pytest.raises(ValueError, match="bits: expected an integer in 1 to 8"):
                unpack_bits(ones, bits, (3,))
        for integers, bits in ((ones, 1), (ones.bool(), 2), (ones.int(), 4)):
            with pytest.raises(ValueError, match="integers: expected int8, or bool for 1 bit"):
                pack_bits(integers, bits)
        for value in (-3, 2):
            with pytest.raises(ValueError, match="integers: expected 2 bits, got values in"):
                pack_bits(torch.tensor([0, value], dtype=torch.int8), 2)
        for packed in (torch.zeros(3, dtype=torch.uint8), ones[:2]):
            with pytest.raises(ValueError, match="packed: expected 2 bytes of uint8 for 3 bits"):
                unpack_bits(packed, 3, (5,))


def test_quantized_is_what_it_says():
    q = Quantized(torch.tensor([4], dtype=torch.int8), torch.tensor(0.5), torch.tensor(1), 8)
    assert dequantize(q).tolist() == [1.5]
