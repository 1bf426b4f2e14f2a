"""lib.attention.MultiHeadAttention held to its contract.

`by_hand` says what is right, head by head in Python loops; `nn.MultiheadAttention` is the second
opinion. Sizes are distinct primes or products of two. What a single head must hold is tested in
test_attention.py and not again here.
"""

import inspect
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import attention
from lib.attention import (
    MultiHeadAttention,
    causal_mask,
    merge_heads,
    padding_mask,
    scaled_dot_product_attention,
    split_heads,
)

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
)
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])
both_ways = pytest.mark.parametrize("with_weights", [False, True], ids=["fast", "weights"])

B, H, D_HEAD, N_Q, N_K = 2, 3, 11, 5, 7
D = H * D_HEAD
PROJECTIONS = ("query_projection", "key_projection", "value_projection", "output_projection")


def make_module(d_model=D, num_heads=H, *, seed=0, dtype=torch.float64, device="cpu", **options):
    """Every parameter random: a bias of 0, its first value, would hide a missing one."""
    module = MultiHeadAttention(d_model, num_heads, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = d_model**-0.5 if parameter.ndim == 2 else 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator).double())
    return module.to(dtype=dtype, device=device).eval()


def make_tokens(n=N_Q, *, batch=B, d_model=D, seed=1, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, d_model, generator=generator).double().to(device, dtype)


def make_inputs(n_q=N_Q, n_k=N_K, **options):
    """Query, key and value, of which no two are alike."""
    return tuple(make_tokens(n, seed=seed, **options) for n, seed in ((n_q, 1), (n_k, 2), (n_k, 3)))


def make_mask(shape, *, seed=0, device="cpu"):
    """A boolean mask with both values in every row of more than one entry."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    if shape[-1] > 1:
        mask[..., 0], mask[..., -1] = True, False
    return mask.to(device)


def as_bias(mask, dtype=torch.float64):
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -math.inf)


def call(module, *inputs, with_weights, **options):
    """The output alone, through either path of the module."""
    result = module(*inputs, return_weights=with_weights, **options)
    return result[0] if with_weights else result


def by_hand(module, query, key, value, mask=None):
    """Σ_i head_i W_i^O in the paper's matrices and Python floats. mask: (B, h, n_q, n_k)."""
    w_q, w_k, w_v, w_o = (getattr(module, name).weight.T for name in PROJECTIONS)
    zero = torch.zeros(module.d_model, dtype=torch.float64)
    biases = [getattr(module, name).bias for name in PROJECTIONS]
    b_q, b_k, b_v, b_o = (zero if bias is None else bias for bias in biases)
    d_head = module.d_model // module.num_heads
    output = b_o.expand(query.shape).clone()
    weights = torch.zeros(len(query), module.num_heads, query.shape[1], key.shape[1]).double()
    for b, i in itertools.product(range(len(query)), range(module.num_heads)):
        own = slice(i * d_head, (i + 1) * d_head)
        q = (query[b] @ w_q[:, own] + b_q[own]).tolist()
        k = (key[b] @ w_k[:, own] + b_k[own]).tolist()
        v = value[b] @ w_v[:, own] + b_v[own]
        allowed = None if mask is None else mask[b, i].tolist()
        for row, column in itertools.product(range(len(q)), range(len(k))):
            if allowed is None or allowed[row][column]:
                product = sum(x * y for x, y in zip(q[row], k[column], strict=True))
                weights[b, i, row, column] = math.exp(product / d_head**0.5)
        weights[b, i] /= weights[b, i].sum(-1, keepdim=True).clamp(min=1e-300)
        output[b] += (weights[b, i] @ v) @ w_o[own]
    return output.detach(), weights.detach()


def as_torch(module):
    """nn.MultiheadAttention with the same weights."""
    bias = module.query_projection.bias is not None
    other = nn.MultiheadAttention(module.d_model, module.num_heads, bias=bias, batch_first=True)
    weight = module.query_projection.weight
    other.to(weight.device, weight.dtype).eval()
    with torch.no_grad():
        first = [getattr(module, name) for name in PROJECTIONS[:3]]
        other.in_proj_weight.copy_(torch.cat([p.weight for p in first]))
        other.out_proj.weight.copy_(module.output_projection.weight)
        if bias:
            other.in_proj_bias.copy_(torch.cat([p.bias for p in first]))
            other.out_proj.bias.copy_(module.output_projection.bias)
    return other


def assert_close(got, want, *, atol=1e-12, rtol=0.0):
    torch.testing.assert_close(got, want, atol=atol, rtol=rtol)


# ---------------------------------------------------------------- the formula


@both_ways
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_loops(with_weights, bias, masked):
    module, inputs = make_module(bias=bias), make_inputs()
    mask = make_mask((B, H, N_Q, N_K)) if masked else None
    want, want_weights = by_hand(module, *inputs, mask)
    assert_close(call(module, *inputs, mask, with_weights=with_weights), want)
    assert_close(module(*inputs, mask, return_weights=True)[1], want_weights)


def test_one_head_is_attention_between_projections():
    module, (query, key, value) = make_module(num_heads=1), make_inputs()
    projected = (
        module.query_projection(query),
        module.key_projection(key),
        module.value_projection(value),
    )
    want = module.output_projection(scaled_dot_product_attention(*projected))
    assert_close(module(query, key, value), want)


@pytest.mark.parametrize("num_heads", [1, 3, 11, 33])
def test_heads_change_no_parameter_count(num_heads):
    def count(**options):
        return sum(p.numel() for p in MultiHeadAttention(D, num_heads, **options).parameters())

    assert count() == 4 * D * D + 4 * D
    assert count(bias=False) == 4 * D * D


def test_a_sum_of_low_rank_maps():
    """MultiHead(X) = Σ_i A_i X (W_i^V W_i^O), every W_i^V W_i^O and every logit of low rank."""
    module, x = make_module(bias=False), make_tokens(13)
    _, weights = module(x, return_weights=True)
    w_q, w_k, w_v, w_o = (getattr(module, name).weight.T for name in PROJECTIONS)
    total = torch.zeros_like(x)
    for i in range(H):
        own = slice(i * D_HEAD, (i + 1) * D_HEAD)
        value_map = w_v[:, own] @ w_o[own]  # (d_model, d_model)
        assert torch.linalg.matrix_rank(value_map) == D_HEAD
        total = total + weights[:, i] @ x @ value_map
        logits = x[0] @ w_q[:, own] @ (x[0] @ w_k[:, own]).T  # (13, 13)
        assert torch.linalg.matrix_rank(logits) == D_HEAD < 13
    assert_close(module(x), total)


def test_without_its_columns_of_the_output_a_head_is_gone():
    module, x = make_module(), make_tokens()
    before = module(x)
    _, weights = module(x, return_weights=True)
    own = slice(D_HEAD, 2 * D_HEAD)
    value = module.value_projection(x)[..., own]
    summand = weights[:, 1] @ value @ module.output_projection.weight[:, own].T
    with torch.no_grad():
        module.output_projection.weight[:, own] = 0.0
    assert_close(module(x), before - summand)


def test_gauge_freedom():
    """Turning a head's queries by G and its keys by G^−T is not seen from outside."""
    module, inputs = make_module(), make_inputs()
    want = module(*inputs)
    own = slice(2 * D_HEAD, 3 * D_HEAD)
    turn = torch.eye(D_HEAD).double() + 0.1 * make_tokens(D_HEAD, d_model=D_HEAD)[0]
    with torch.no_grad():
        for name, by in (("query_projection", turn), ("key_projection", torch.linalg.inv(turn).T)):
            projection = getattr(module, name)
            projection.weight[own] = by.T @ projection.weight[own]
            projection.bias[own] = projection.bias[own] @ by
    assert_close(module(*inputs), want)


# ---------------------------------------------------------------- parity with torch

MASKS = {
    "none": lambda device: None,
    "shared": lambda device: make_mask((N_Q, N_K), device=device),
    "causal": lambda device: causal_mask(N_Q, N_K, device=device),
    "padding": lambda device: padding_mask(torch.tensor([4, 7], device=device), N_K)[:, None],
    "of samples": lambda device: make_mask((B, N_Q, N_K), device=device),
    "of heads": lambda device: make_mask((1, H, N_Q, N_K), device=device),
    "of both": lambda device: make_mask((B, H, N_Q, N_K), device=device),
}


def for_torch(mask, dtype):
    """Our mask as nn.MultiheadAttention wants it: a bias (B · h, n_q, n_k)."""
    if mask is None:
        return None
    if mask.ndim == 3:
        mask = mask[:, None]
    return as_bias(mask.expand(B, H, N_Q, N_K).flatten(0, 1), dtype)


@both_ways
@on_every_device
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["bool", "bias"])
@pytest.mark.parametrize("name", MASKS)
def test_equals_torch(with_weights, device, bias, kind, name):
    module, inputs = make_module(bias=bias, device=device), make_inputs(device=device)
    mask = MASKS[name](device)
    want, want_weights = as_torch(module)(
        *inputs, attn_mask=for_torch(mask, torch.float64), average_attn_weights=False
    )
    if mask is not None and kind == "bias":
        mask = as_bias(mask)
    assert_close(call(module, *inputs, mask, with_weights=with_weights), want)
    _, weights = module(*inputs, mask, return_weights=True)
    assert weights.shape == (B, H, N_Q, N_K)
    assert_close(weights, want_weights)


@both_ways
@pytest.mark.parametrize("num_heads", [1, 3, 11, 33])
def test_equals_torch_for_every_number_of_heads(with_weights, num_heads):
    module, x = make_module(num_heads=num_heads), make_tokens()
    want, want_weights = as_torch(module)(x, x, x, average_attn_weights=False)
    assert_close(call(module, x, with_weights=with_weights), want)
    assert_close(module(x, return_weights=True)[1], want_weights)


@both_ways
def test_gradients_equal_torch(with_weights):
    module, inputs = make_module(), make_inputs()
    other = as_torch(module)
    cotangent = make_tokens(seed=4)
    mask = make_mask((B, N_Q, N_K))
    leaves = [x.requires_grad_() for x in inputs]
    output = call(module, *leaves, mask, with_weights=with_weights)
    got = torch.autograd.grad(output, [*leaves, *module.parameters()], cotangent)
    output, _ = other(*leaves, attn_mask=for_torch(mask, torch.float64))
    want = torch.autograd.grad(output, [*leaves, *other.parameters()], cotangent)
    assert_close(got[:3], want[:3])
    weights, biases = got[3::2], got[4::2]  # in the order of PROJECTIONS
    assert_close(torch.cat(weights[:3]), want[3])
    assert_close(torch.cat(biases[:3]), want[4])
    assert_close(weights[3], want[5])
    assert_close(biases[3], want[6])


def test_the_shared_parameters_of_torch_have_our_order():
    """What the test above relies on."""
    names = [name for name, _ in nn.MultiheadAttention(D, H).named_parameters()]
    assert names == ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]


# ---------------------------------------------------------------- inputs


@both_ways
def test_what_is_left_out(with_weights):
    module, (query, key, value) = make_module(), make_inputs()

    def run(*inputs, **options):
        return call(module, *inputs, with_weights=with_weights, **options)

    assert torch.equal(run(query), run(query, query, query))
    assert torch.equal(run(query, key), run(query, key, key))
    assert torch.equal(run(query, key=key, value=value), run(query, key, value))
    assert torch.equal(run(query, value=query + 1), run(query, query, query + 1))
    assert not torch.allclose(run(query, key), run(query, key, value))


@both_ways
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_non_contiguous_inputs(with_weights, dtype):
    module, inputs = make_module(dtype=dtype), make_inputs(dtype=dtype)
    scattered = [x.mT.contiguous().mT for x in inputs]
    assert not any(x.is_contiguous() for x in scattered)
    got = call(module, *scattered, with_weights=with_weights)
    atol = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    assert_close(got, call(module, *inputs, with_weights=with_weights), atol=atol)


@both_ways
def test_the_smallest_and_no_batch(with_weights):
    module = make_module(1, 1)
    x = make_tokens(1, batch=1, d_model=1)
    want = module.output_projection(module.value_projection(x))  # one key: its value
    assert_close(call(module, x, with_weights=with_weights), want)
    empty = call(make_module(), make_tokens(batch=0), with_weights=with_weights)
    assert empty.shape == (0, N_Q, D)


def test_split_and_merge_by_definition():
    x = make_tokens()
    heads = split_heads(x, H)
    assert heads.shape == (B, H, N_Q, D_HEAD)
    for c in range(D):
        assert torch.equal(heads[:, c // D_HEAD, :, c % D_HEAD], x[..., c])
    assert torch.equal(merge_heads(heads), x)
    assert heads.data_ptr() == x.data_ptr()


def test_broken_a_view_for_a_transpose():
    """D11: the same shape, another tensor. D11b: what it mixes, no causal mask holds apart."""
    x = make_tokens()
    wrong = x.reshape(B, H, N_Q, D_HEAD)
    assert (wrong != split_heads(x, H)).double().mean() > 0.7
    heads = split_heads(x, H)
    assert (heads.reshape(B, N_Q, D) != merge_heads(heads)).double().mean() > 0.7

    def run(merge, x):
        q = split_heads(x, H)
        return merge(scaled_dot_product_attention(q, q, q, causal_mask(N_Q)))

    changed = x.clone()
    changed[:, -1] += 1
    for merge, leaks in ((merge_heads, False), (lambda h: h.reshape(B, N_Q, D), True)):
        moved = (run(merge, changed) - run(merge, x))[:, :-1].abs().max()
        assert (moved > 0.1) if leaks else (moved == 0)


# ---------------------------------------------------------------- masks


@both_ways
@pytest.mark.parametrize("kind", ["bool", "bias"])
@pytest.mark.parametrize(
    "shape, full",
    [
        ((), (1, 1, 1, 1)),
        ((N_K,), (1, 1, 1, N_K)),
        ((N_Q, N_K), (1, 1, N_Q, N_K)),
        ((1, N_K), (1, 1, 1, N_K)),
        ((B, N_Q, N_K), (B, 1, N_Q, N_K)),
        ((B, 1, N_K), (B, 1, 1, N_K)),
        ((B, N_Q, 1), (B, 1, N_Q, 1)),
        ((1, N_Q, N_K), (1, 1, N_Q, N_K)),
        ((B, 1, N_Q, N_K), (B, 1, N_Q, N_K)),
        ((1, H, N_Q, N_K), (1, H, N_Q, N_K)),
        ((B, H, 1, N_K), (B, H, 1, N_K)),
        ((B, H, N_Q, N_K), (B, H, N_Q, N_K)),
    ],
    ids=str,
)
def test_a_mask_of_each_shape(with_weights, kind, shape, full):
    module, inputs = make_module(), make_inputs()
    mask = make_mask(shape) if shape else torch.tensor(True)
    want, _ = by_hand(module, *inputs, mask.reshape(full).expand(B, H, N_Q, N_K))
    if shape == (B, N_Q, 1):  # the rows that it empties are bias alone
        assert (~mask).any()
    mask = mask if kind == "bool" else as_bias(mask)
    assert_close(call(module, *inputs, mask, with_weights=with_weights), want)


@both_ways
def test_three_dimensions_are_samples_even_where_heads_are_as_many(with_weights):
    """The trap B = h: by plain broadcasting (3, n_q, n_k) would be a mask of each head."""
    module, inputs = make_module(), make_inputs(batch=H)
    mask = make_mask((H, N_Q, N_K))
    got = call(module, *inputs, mask, with_weights=with_weights)
    assert_close(got, by_hand(module, *inputs, mask[:, None].expand(H, H, N_Q, N_K))[0])
    of_heads = call(module, *inputs, mask[None], with_weights=with_weights)
    assert_close(of_heads, by_hand(module, *inputs, mask[None].expand(H, H, N_Q, N_K))[0])
    assert (got - of_heads).abs().max() > 0.1


def test_a_mask_of_heads_needs_four_dimensions():
    with pytest.raises(ValueError) as caught:
        make_module()(*make_inputs(), make_mask((H, N_Q, N_K)))
    assert str(caught.value) == (
        "mask: expected (B, n_q, n_k) with B = 2, or (1, h, n_q, n_k) for a mask of each head, "
        "got (3, 5, 7)"
    )


@both_ways
@pytest.mark.parametrize("n_q, n_k", [(5, 5), (5, 7), (7, 5), (1, 7)])
@pytest.mark.parametrize("kind", ["none", "padding", "bias"])
def test_causal_is_the_causal_mask(with_weights, n_q, n_k, kind):
    module, inputs = make_module(), make_inputs(n_q, n_k)
    real = padding_mask(torch.tensor([2, n_k]), n_k)[:, None]
    past = causal_mask(n_q, n_k)
    want = call(module, *inputs, past if kind == "none" else real & past, with_weights=True)
    mask = {"none": None, "padding": real, "bias": as_bias(real)}[kind]
    assert_close(call(module, *inputs, mask, causal=True, with_weights=with_weights), want)


@both_ways
def test_a_query_with_nothing_to_attend_to_gets_the_bias(with_weights):
    module, inputs = make_module(), make_inputs()
    mask = make_mask((N_Q, N_K))
    mask[2] = False
    output = call(module, *inputs, mask, with_weights=with_weights)
    assert torch.equal(output[:, 2], module.output_projection.bias.expand(B, D))
    output.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


# ---------------------------------------------------------------- properties

property_test = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 2**16)


@both_ways
@property_test
@given(st.integers(2, 7), seeds, st.data())
def test_no_output_depends_on_the_future(with_weights, n, seed, data):
    """With its two partners (D40): the other sample stays, and the present does move."""
    t = data.draw(st.integers(0, n - 2))
    module, x = make_module(seed=seed), make_tokens(n, seed=seed + 1)
    changed = x.clone()
    changed[0, t + 1 :] += 1
    before, after = (
        call(module, y, mask=causal_mask(n), with_weights=with_weights) for y in (x, changed)
    )
    assert_close(after[0, : t + 1], before[0, : t + 1])
    assert_close(after[1], before[1])
    assert ((after - before)[0, t + 1 :].abs().amax(-1) > 1e-3).all()


@both_ways
@property_test
@given(seeds, st.randoms(use_true_random=False))
def test_permutations(with_weights, seed, random):
    module, (query, key, value) = make_module(seed=seed), make_inputs()
    rows, columns = random.sample(range(N_Q), N_Q), random.sample(range(N_K), N_K)
    want = call(module, query, key, value, with_weights=with_weights)
    got = call(
        module, query[:, rows], key[:, columns], value[:, columns], with_weights=with_weights
    )
    assert_close(got, want[:, rows])


@both_ways
@property_test
@given(st.lists(st.integers(1, N_K), min_size=1, max_size=3), st.sampled_from([1.0, 1e6]))
def test_padding_has_no_influence(with_weights, lengths, size):
    module = make_module()
    real = padding_mask(torch.tensor(lengths), N_K)
    x = make_tokens(N_K, batch=len(lengths))
    dirty = torch.where(real[..., None], x, size * x.flip(-1))
    output = call(module, dirty, mask=real[:, None], with_weights=with_weights)
    for b, length in enumerate(lengths):
        alone = call(module, x[b : b + 1, :length], with_weights=with_weights)
        assert_close(output[b, :length], alone[0])


def test_every_head_reaches_every_feature():
    """D12: without W^O a head's values reach its own d_head features only."""
    module, x = make_module(), make_tokens()
    jacobian = torch.autograd.functional.jacobian(
        lambda bias: torch.func.functional_call(module, {"value_projection.bias": bias}, x),
        module.value_projection.bias,
    )
    assert (jacobian.abs().amax((0, 1)) > 1e-6).all()  # (feature out, feature of a head)


# ---------------------------------------------------------------- which function computes it


class NotThisOneError(Exception):
    pass


def test_the_fused_function_unless_weights_are_wanted(monkeypatch):
    def refuse(*args, **options):
        raise NotThisOneError

    module, x = make_module(), make_tokens()
    with monkeypatch.context() as patch:
        patch.setattr(attention, "scaled_dot_product_attention", refuse)
        assert module(x).shape == x.shape
        with pytest.raises(NotThisOneError):
            module(x, return_weights=True)
    monkeypatch.setattr(attention, "fast_attention", refuse)
    assert module(x, return_weights=True)[0].shape == x.shape
    with pytest.raises(NotThisOneError):
        module(x)


@pytest.mark.parametrize("causal", [False, True])
def test_causal_makes_no_mask(monkeypatch, causal):
    seen = []
    real = attention.fast_attention
    monkeypatch.setattr(
        attention,
        "fast_attention",
        lambda q, k, v, mask, **options: (
            seen.append((mask, options)) or real(q, k, v, mask, **options)
        ),
    )
    make_module()(make_tokens(), causal=causal)
    assert seen == [(None, {"causal": causal, "dropout": 0.0})]


# ---------------------------------------------------------------- dropout


def test_dropout_in_training_only():
    module, x = make_module(dropout=0.5), make_tokens()
    plain = make_module()
    assert torch.equal(module(x), plain(x))
    module.train()
    torch.manual_seed(0)
    first, second = module(x), module(x)
    assert not torch.allclose(first, second)
    output, weights = module(x, return_weights=True)
    kept = weights != 0
    assert 0 < kept.double().mean() < 1
    _, clean = plain(x, return_weights=True)
    assert_close(weights[kept], 2 * clean[kept])
    value = split_heads(module.value_projection(x), H)
    assert_close(output, module.output_projection(merge_heads(weights @ value)))
    plain.train()
    assert torch.equal(plain(x), plain.eval()(x))


@both_ways
def test_dropout_is_unbiased(with_weights):
    module = make_module(dropout=0.3, dtype=torch.float32)
    x = make_tokens(batch=1, dtype=torch.float32)
    want = module(x)
    torch.manual_seed(0)
    draws = call(module.train(), x.expand(4000, -1, -1), with_weights=with_weights)
    error = draws.std(0) / math.sqrt(4000)
    assert ((draws.mean(0) - want[0]).abs() <= 5 * error).all()
    assert draws.std(0).min() > 0.01


# ---------------------------------------------------------------- derivatives, dtypes, devices


@both_ways
@pytest.mark.parametrize("kind", ["none", "bool", "bias"])
def test_first_and_second_derivatives(with_weights, kind):
    module = make_module(6, 2)
    inputs = [x.requires_grad_() for x in make_inputs(3, 2, batch=1, d_model=6)]
    mask = {
        "none": None,
        "bool": torch.tensor([[True, False], [False, False], [True, True]]),
        "bias": make_tokens(2, batch=3, d_model=3)[:1].mT,
    }[kind]
    names, parameters = zip(*module.named_parameters(), strict=True)

    def function(query, key, value, *parameters):
        state = dict(zip(names, parameters, strict=True))
        options = {"mask": mask, "return_weights": with_weights}
        return torch.func.functional_call(module, state, (query, key, value), options)

    assert torch.autograd.gradcheck(function, (*inputs, *parameters), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (*inputs, *parameters), fast_mode=True)


HALF = {torch.bfloat16: 4e-2, torch.float16: 5e-3}


@both_ways
@on_every_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_other_dtypes(with_weights, device, dtype, name):
    module, inputs = (
        make_module(dtype=dtype, device=device),
        make_inputs(dtype=dtype, device=device),
    )
    mask = MASKS[name](device)
    got = call(module, *inputs, mask, with_weights=with_weights)
    assert got.dtype == dtype and got.device == inputs[0].device
    exact = make_module().to(device)
    exact.load_state_dict({k: v.double() for k, v in module.state_dict().items()})
    want = exact(*(x.double() for x in inputs), mask)
    assert_close(got.double(), want, atol=HALF.get(dtype, 1e-5))
    grads = torch.autograd.grad(got.float().square().mean(), list(module.parameters()))
    assert all(g.dtype == dtype and g.isfinite().all() for g in grads)


@both_ways
@on_every_device
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("kind", ["none", "bool", "bias"])
def test_autocast(with_weights, device, dtype, kind):
    module = make_module(dtype=torch.float32, device=device)
    inputs = make_inputs(dtype=torch.float32, device=device)
    mask = make_mask((B, N_Q, N_K), device=device)
    mask = {"none": None, "bool": mask, "bias": as_bias(mask, torch.float32)}[kind]
    want = module(*inputs, mask)
    with torch.autocast(device, dtype=dtype):
        got = call(module, *inputs, mask, with_weights=with_weights)
        mixed = call(module, inputs[0].to(dtype), *inputs[1:], mask, with_weights=with_weights)
    assert got.dtype == mixed.dtype == dtype
    assert_close(got.float(), want, atol=HALF[dtype])
    assert_close(mixed.float(), want, atol=HALF[dtype])


def test_shapes_without_numbers():
    """The meta device has shapes only: nothing may look at a value."""
    module, inputs = make_module().to("meta"), [x.to("meta") for x in make_inputs()]
    output, weights = module(*inputs, make_mask((B, N_Q, N_K)).to("meta"), return_weights=True)
    assert output.shape == (B, N_Q, D) and weights.shape == (B, H, N_Q, N_K)
    assert module(*inputs, make_mask((B, N_Q, N_K)).to("meta")).device.type == "meta"


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@both_ways
@pytest.mark.parametrize("kind", ["self", "cross", "samples", "causal", "dropout"])
def test_compile_in_one_graph(fresh_compiler, with_weights, kind):
    module, inputs = make_module(dropout=0.5), make_inputs()
    if kind in ("self", "causal"):
        inputs = inputs[:1]
    mask = make_mask((B, N_Q, N_K)) if kind == "samples" else None
    module.train(kind == "dropout")
    options = {"mask": mask, "causal": kind == "causal", "with_weights": with_weights}
    results = []
    for function in (module, torch.compile(module, fullgraph=True, backend="eager")):
        torch.manual_seed(0)
        output = call(function, *inputs, **options)
        results.append((output, *torch.autograd.grad(output.sum(), list(module.parameters()))))
    for got, want in zip(*results, strict=True):
        assert_close(got, want)


def test_compile_for_any_length(fresh_compiler):
    module = make_module()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
    for batch, n in [(2, 5), (4, 6)]:
        x = make_tokens(n, batch=batch)
        assert_close(
            compiled(x, mask=make_mask((batch, n, n))), module(x, mask=make_mask((batch, n, n)))
        )


# ---------------------------------------------------------------- the module


def test_names_and_shapes_of_parameters():
    shapes = {name: tuple(p.shape) for name, p in MultiHeadAttention(D, H).named_parameters()}
    want = {f"{name}.{what}": shape for name in PROJECTIONS for what, shape in SHAPES}
    assert shapes == want
    names = list(MultiHeadAttention(D, H, bias=False).state_dict())
    assert names == [f"{name}.weight" for name in PROJECTIONS]


SHAPES = [("weight", (D, D)), ("bias", (D,))]


def test_first_values():
    """Tokens of unit variance give logits of unit variance; Glorot's bound; biases 0."""
    d_model, n = 256, 512
    torch.manual_seed(0)
    module = MultiHeadAttention(d_model, 8)
    for projection in module.children():
        assert torch.equal(projection.bias, torch.zeros(d_model))
        bound = math.sqrt(6 / (2 * d_model))
        assert 0.99 * bound < projection.weight.abs().max() <= bound
    x = torch.randn(1, n, d_model)
    q, k = split_heads(module.query_projection(x), 8), split_heads(module.key_projection(x), 8)
    logits = (q @ k.mT / math.sqrt(32)).flatten()
    off_diagonal = logits[torch.randperm(len(logits))[:20000]]
    assert abs(off_diagonal.var() - 1) < 0.15
    torch.manual_seed(0)
    again = MultiHeadAttention(d_model, 8)
    assert torch.equal(again.key_projection.weight, module.key_projection.weight)
    assert not torch.equal(module.query_projection.weight, module.key_projection.weight)
    again.reset_parameters()
    assert not torch.equal(again.key_projection.weight, module.key_projection.weight)


def test_a_scale_by_the_head_not_by_the_model():
    """D09b: √d_model in place of √d_head makes logits √h times too small."""
    module, x = make_module(264, 8), make_tokens(31, d_model=264)
    _, weights = module(x, return_weights=True)
    q, k = (split_heads(p(x), 8) for p in (module.query_projection, module.key_projection))
    assert_close(weights, (q @ k.mT / math.sqrt(33)).softmax(-1))
    too_small = (q @ k.mT / math.sqrt(264)).softmax(-1)
    assert (weights.amax(-1).mean() - too_small.amax(-1).mean()) > 0.05


def test_heads_of_a_width_of_their_own_and_no_scale():
    """As in T5: softmax(Q_i K_iᵀ) V_i, from d_model to h · d_head and back."""
    module, x = make_module(D, 2, d_head=5, scaled=False, bias=False), make_tokens()
    q, k, v = (
        (x @ getattr(module, name).weight.T).unflatten(-1, (2, 5)).movedim(2, 1)
        for name in PROJECTIONS[:3]
    )
    weights = (q @ k.mT).softmax(-1)
    want = (weights @ v).movedim(1, 2).flatten(2) @ module.output_projection.weight.T
    for with_weights in (False, True):
        assert_close(call(module, x, with_weights=with_weights), want)
    assert_close(module(x, return_weights=True)[1], weights)
    scaled = make_module(D, 2, d_head=5, bias=False)
    assert_close(scaled(x, return_weights=True)[1], (q @ k.mT / math.sqrt(5)).softmax(-1))


def test_projecting_twice_is_projecting_once():
    """D07: a second linear map before the projection adds parameters and no function."""
    module, x = make_module(), make_tokens()
    first = make_tokens(D, batch=1)[0]
    with torch.no_grad():
        merged = make_module()
        merged.query_projection.weight.copy_(module.query_projection.weight @ first)
    assert_close(module(F.linear(x, first), x), merged(x, x), atol=1e-11)


def test_signature_and_repr():
    parameters = inspect.signature(MultiHeadAttention.forward).parameters
    names = ["self", "query", "key", "value", "mask", "causal", "return_weights", "cache"]
    assert list(parameters) == names
    assert all(parameters[n].kind == inspect.Parameter.KEYWORD_ONLY for n in names[5:])
    text = repr(MultiHeadAttention(D, H, dropout=0.1))
    assert text.startswith("MultiHeadAttention(\n  33, num_heads=3, dropout=0.1\n")


def test_deterministic_and_without_side_effects():
    module, inputs = make_module(), make_inputs()
    before = [x.clone() for x in (*inputs, *module.parameters())]
    first, second = module(*inputs), module(*inputs)
    assert torch.equal(first, second)
    for x, y in zip((*inputs, *module.parameters()), before, strict=True):
        assert torch.equal(x, y)


# ---------------------------------------------------------------- bad inputs


def t(*shape, dtype=torch.float64, device="cpu"):
    return torch.zeros(shape, dtype=dtype, device=device)


BAD = {
    "list": (TypeError, ([[1.0]],), "query: expected a torch.Tensor, got list"),
    "key list": (TypeError, (t(2, 5, 33), []), "key: expected a torch.Tensor, got list"),
    "mask list": (
        TypeError,
        (t(2, 5, 33), None, None, [[True]]),
        "mask: expected a torch.Tensor, got list",
    ),
    "features": (
        ValueError,
        (t(2, 5, 32),),
        "query: expected shape (B, n ≥ 1, 33), got (2, 5, 32)",
    ),
    "key features": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 11)),
        "key: expected shape (B, n ≥ 1, 33), got (2, 7, 11)",
    ),
    "value features": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 33), t(2, 7, 34)),
        "value: expected shape (B, n ≥ 1, 33), got (2, 7, 34)",
    ),
    "two dimensions": (
        ValueError,
        (t(5, 33),),
        "query: expected shape (B, n ≥ 1, 33), got (5, 33)",
    ),
    "split already": (
        ValueError,
        (t(2, 3, 5, 33),),
        "query: expected shape (B, n ≥ 1, 33), got (2, 3, 5, 33)",
    ),
    "length 0": (
        ValueError,
        (t(2, 0, 33),),
        "query: expected shape (B, n ≥ 1, 33), got (2, 0, 33)",
    ),
    "no keys": (
        ValueError,
        (t(2, 5, 33), t(2, 0, 33)),
        "key: expected shape (B, n ≥ 1, 33), got (2, 0, 33)",
    ),
    "batch": (ValueError, (t(2, 5, 33), t(3, 7, 33)), "key: expected query's batch size 2, got 3"),
    "value batch": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 33), t(1, 7, 33)),
        "value: expected query's batch size 2, got 1",
    ),
    "value length": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 33), t(2, 5, 33)),
        "value: expected key's n_k = 7, got 5",
    ),
    "dtype": (
        ValueError,
        (t(2, 5, 33, dtype=torch.float32),),
        "query: expected the module's dtype torch.float64, got torch.float32",
    ),
    "integers": (
        ValueError,
        (t(2, 5, 33, dtype=torch.int64),),
        "query: expected the module's dtype torch.float64, got torch.int64",
    ),
    "key dtype": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 33, dtype=torch.float16)),
        "key: expected the module's dtype torch.float64, got torch.float16",
    ),
    "device": (
        ValueError,
        (t(2, 5, 33, device="meta"),),
        "query: expected the module's device cpu, got meta",
    ),
    "mask dtype": (
        ValueError,
        (t(2, 5, 33), None, None, t(5, 5, dtype=torch.int64)),
        "mask: expected torch.bool or torch.float64, got torch.int64",
    ),
    "mask shape": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 33), None, t(7, 5)),
        "mask: expected a shape that broadcasts to (..., n_q, n_k) = (2, 3, 5, 7), got (7, 5)",
    ),
    "mask of samples": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 33), None, t(2, 7, 5)),
        "mask: expected a shape that broadcasts to (..., n_q, n_k) = (2, 3, 5, 7), "
        "got (2, 1, 7, 5)",
    ),
    "padding as it is": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 33), None, t(2, 7)),
        "mask: expected a shape that broadcasts to (..., n_q, n_k) = (2, 3, 5, 7), got (2, 7)",
    ),
    "mask too deep": (
        ValueError,
        (t(2, 5, 33), t(2, 7, 33), None, t(1, 2, 3, 5, 7)),
        "mask: expected a shape that broadcasts to (..., n_q, n_k) = (2, 3, 5, 7), "
        "got (1, 2, 3, 5, 7)",
    ),
}


@both_ways
@pytest.mark.parametrize("case", BAD)
def test_bad_inputs(with_weights, case):
    error, inputs, message = BAD[case]
    with pytest.raises(error) as caught:
        call(make_module(), *inputs, with_weights=with_weights)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((33, 2), "num_heads: expected a divisor of d_model = 33, got 2"),
        ((3, 33), "num_heads: expected a divisor of d_model = 3, got 33"),
        ((0, 1), "d_model: expected an integer of at least 1, got 0"),
        ((33.0, 3), "d_model: expected an integer of at least 1, got 33.0"),
        ((33, 0), "num_heads: expected an integer of at least 1, got 0"),
        ((33, -3), "num_heads: expected an integer of at least 1, got -3"),
        ((33, "3"), "num_heads: expected an integer of at least 1, got '3'"),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(ValueError) as caught:
        MultiHeadAttention(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("dropout", [1.0, 1, -0.1, 1.5, math.nan, math.inf, "0.1", None])
def test_bad_dropout(dropout):
    with pytest.raises(ValueError) as caught:
        MultiHeadAttention(D, H, dropout=dropout)
    assert str(caught.value) == f"dropout: expected a number in [0, 1), got {dropout!r}"
