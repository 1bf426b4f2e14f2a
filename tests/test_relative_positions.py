"""lib.positions: T5's buckets of distance, and the bias made of them.

The official function is the second opinion; logarithms in 50 decimal digits are the first. Beside
them: the learned table at positions of its caller's choice.
"""

import math
from decimal import ROUND_FLOOR, Decimal, getcontext

import pytest
import torch
from torch.nn import functional as F

from lib.attention import MultiHeadAttention, causal_mask
from lib.positions import LearnedEncoding, RelativePositionBias, relative_position_bucket
from tests.models import parity

transformers = parity.transformers()
official = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket

FAR = torch.arange(-2000, 2001)
SIZES = [(32, 128), (32, 64), (16, 20), (20, 128), (10, 9), (64, 1000), (4, 8), (128, 2048), (8, 5)]
each_size = pytest.mark.parametrize("sizes", SIZES, ids=str)
both_directions = pytest.mark.parametrize("bidirectional", [True, False])


@each_size
@both_directions
def test_equals_the_official_buckets(sizes, bidirectional):
    got = relative_position_bucket(FAR, bidirectional, *sizes)
    assert torch.equal(got, official(FAR, bidirectional, *sizes))
    assert got.dtype == torch.int64 and got.min() >= 0 and got.max() < sizes[0]


def test_equals_the_official_buckets_by_default():
    assert torch.equal(relative_position_bucket(FAR), official(FAR))
    assert torch.equal(
        relative_position_bucket(FAR, bidirectional=False), official(FAR, bidirectional=False)
    )


def by_definition(d, m, far):
    """The bucket of a distance, by logarithms that keep 50 digits."""
    getcontext().prec = 50
    exact = m // 2
    if d < exact:
        return d
    ratio = (Decimal(d) / exact).ln() / (Decimal(far) / exact).ln() * (m - exact)
    whole = int((ratio + Decimal("1e-40")).to_integral_value(ROUND_FLOOR))  # 2 may be 1.99…
    return min(exact + whole, m - 1)


@pytest.mark.parametrize("sizes", SIZES[:7], ids=str)
def test_by_definition(sizes):
    n, far = sizes
    for bidirectional, m in ((True, n // 2), (False, n)):
        got = relative_position_bucket(-torch.arange(700), bidirectional, n, far)
        assert got.tolist() == [by_definition(d, m, far) for d in range(700)]


def test_edges_of_the_defaults():
    """31 of 32 live; the last begins at 91 and not at 128; powers of √2 · 8, rounded up."""
    both = relative_position_bucket(FAR)
    assert set(both.tolist()) == set(range(32)) - {16}
    behind = relative_position_bucket(torch.arange(1, 2001)) - 16
    first = [int((behind >= b).int().argmax()) + 1 for b in range(1, 16)]
    assert first == [1, 2, 3, 4, 5, 6, 7, 8, *(math.ceil(8 * 2 ** (k / 2)) for k in range(1, 8))]
    assert first[-1] == 91
    one_way = relative_position_bucket(FAR, bidirectional=False)
    assert (one_way[FAR >= 0] == 0).all() and set(one_way.tolist()) == set(range(32))


def test_a_logarithm_in_floating_point_can_miss_an_edge():
    """Why integers are asked: of 9 buckets to 128 one begins at 16, as 5 · log₂ 4 / log₂ 32 = 2.

    Of the same in natural logarithms double precision makes 1.9999…
    """
    naive = 4 + math.floor(math.log(16 / 4) / math.log(128 / 4) * 5)
    got = relative_position_bucket(torch.tensor([-15, -16]), False, 9, 128).tolist()
    assert got == [by_definition(15, 9, 128), by_definition(16, 9, 128)] == [5, 6]
    assert naive == 5
    # Of 8,773 sizes tried these two are where the official function, in float32, misses an edge.
    for n, far, edge in ((34, 27, 18), (38, 196, 42)):
        got = relative_position_bucket(torch.tensor([1 - edge, -edge]), True, n, far).tolist()
        want = [by_definition(d, n // 2, far) for d in (edge - 1, edge)]
        assert got == want and want[0] + 1 == want[1]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16], ids=str)
def test_any_shape_and_dtype(dtype):
    got = relative_position_bucket(FAR[:4000].reshape(2, 50, 40).to(dtype))
    assert got.dtype == torch.int64
    assert torch.equal(got.flatten(), relative_position_bucket(FAR[:4000]))
    compiled = torch.compile(relative_position_bucket, fullgraph=True, backend="eager")
    assert torch.equal(compiled(FAR), relative_position_bucket(FAR))


# The bias


@both_directions
@pytest.mark.parametrize("n_q, n_k", [(5, 5), (1, 5), (3, 150), (150, 150)])
def test_bias_by_definition(n_q, n_k, bidirectional):
    bias = RelativePositionBias(3, bidirectional=bidirectional, std=1.0)
    got = bias(n_q, n_k)
    assert got.shape == (1, 3, n_q, n_k)
    for i in range(0, n_q, 7):
        for j in range(0, n_k, 5):
            offset = torch.tensor(j - (i + n_k - n_q))
            bucket = relative_position_bucket(offset, bidirectional)
            assert torch.equal(got[0, :, i, j], bias.weight[bucket])
    assert torch.equal(bias(n_k)[:, :, -n_q:], got)


def test_bias_knows_distances_alone():
    got = RelativePositionBias(3, std=1.0)(200)
    assert torch.equal(got[..., :-1, :-1], got[..., 1:, 1:])  # Toeplitz
    assert (got != got.mT).any()  # and told by direction
    far = got[0, :, 0, 91:]
    assert torch.equal(far, far[:, :1].expand_as(far))


def test_a_gradient_is_a_sum_over_pairs():
    """Each number of the table gets as many gradients as there are pairs in its bucket."""
    bias = RelativePositionBias(2, num_buckets=8, max_distance=5)
    bias(11).sum().backward()
    offsets = torch.arange(11) - torch.arange(11)[:, None]
    buckets = relative_position_bucket(offsets, True, 8, 5)
    want = torch.bincount(buckets.flatten(), minlength=8).float()
    assert torch.equal(bias.weight.grad, want[:, None].expand(8, 2))
    assert want[4] == 0 and (want.scatter(0, torch.tensor([4]), 1.0) > 0).all()  # the dead bucket


def test_bias_in_attention_is_added_to_the_logits():
    attend = MultiHeadAttention(12, 3, scaled=False).double()
    bias = RelativePositionBias(3, bidirectional=False, std=1.0).double()
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0)).double()
    mask = bias(7).masked_fill(~causal_mask(7), -math.inf)
    _, weights = attend(x, mask=mask, return_weights=True)
    q, k = (
        F.linear(x, p.weight, p.bias).unflatten(-1, (3, 4)).movedim(2, 1)
        for p in (attend.query_projection, attend.key_projection)
    )
    torch.testing.assert_close(weights, (q @ k.mT + mask).softmax(-1), rtol=0, atol=1e-12)


def test_table_at_the_start():
    torch.manual_seed(0)
    bias = RelativePositionBias(64, num_buckets=64, std=0.3)
    assert list(dict(bias.named_parameters())) == ["weight"] and bias.weight.shape == (64, 64)
    assert abs(bias.weight.std() / 0.3 - 1) < 5 / math.sqrt(2 * 64 * 64)
    assert torch.equal(RelativePositionBias(2, std=0.0).weight, torch.zeros(32, 2))
    assert "64, 64 buckets to 128" in repr(bias)


# The learned table, at positions that differ between sequences


def test_learned_positions_of_the_callers_choice():
    encode = LearnedEncoding(9, 5, std=1.0).double()
    x = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    places = torch.tensor([[0, 0, 1, 2], [8, 3, 3, 0]])
    assert torch.equal(encode(x, positions=places), x + encode.weight[places])
    line = torch.arange(2, 6).expand(2, 4)
    assert torch.equal(encode(x, positions=line.int()), encode(x, start=2))
    with pytest.raises(IndexError):
        encode(x, positions=places + 1)
    with pytest.raises(ValueError, match=r"^positions: expected integers \(..., n\) = \(2, 4\), g"):
        encode(x, positions=places[0])
    with pytest.raises(ValueError, match=r"^positions: expected integers \(..., n\) = \(2, 4\), g"):
        encode(x, positions=places.double())


# Errors


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: relative_position_bucket(FAR.float()), "relative_position: expected a signed int"),
        (lambda: relative_position_bucket(FAR, True, 2), "num_buckets: expected an integer of at"),
        (lambda: relative_position_bucket(FAR, True, 7), "num_buckets: expected an even number, g"),
        (lambda: relative_position_bucket(FAR, False, 1), "num_buckets: expected an integer of at"),
        (
            lambda: relative_position_bucket(FAR, True, 32, 8),
            "max_distance: expected an integer of at least 9, got 8",
        ),
        (
            lambda: relative_position_bucket(FAR, False, 32, 16),
            "max_distance: expected an integer of at least 17, got 16",
        ),
        (lambda: RelativePositionBias(0), "num_heads: expected an integer of at least 1, got 0"),
        (lambda: RelativePositionBias(2, num_buckets=5), "num_buckets: expected an even number"),
        (lambda: RelativePositionBias(2, std=-1.0), "std: expected a finite number of at least 0"),
        (lambda: RelativePositionBias(2)(0), "n_q: expected an integer of at least 1, got 0"),
        (lambda: RelativePositionBias(2)(1, 0), "n_k: expected an integer of at least 1, got 0"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_refuses_what_is_no_tensor():
    with pytest.raises(TypeError, match=r"^relative_position: expected a torch.Tensor, got list"):
        relative_position_bucket([1, 2])
