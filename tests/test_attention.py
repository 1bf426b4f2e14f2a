"""lib.attention held to its contract.

An oracle of Python loops (`by_hand`) says what is right; torch's own function is a second opinion.
Sizes are distinct primes, so that no transposition hides, save that tests of the fused kernel take
d_v = d_k: on a CPU torch has one for that alone. tests/mutants.py names tests of this file.
"""

import doctest
import itertools
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lib import attention
from lib.attention import (
    causal_mask,
    fast_attention,
    online_softmax_attention,
    padding_mask,
    scaled_dot_product_attention,
)

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
)
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])


def in_small_blocks(query, key, value, mask=None):
    """online_softmax_attention with blocks so small that these tests meet several of them."""
    return online_softmax_attention(query, key, value, mask, block_size=3)


FUNCTIONS = [scaled_dot_product_attention, fast_attention, in_small_blocks]
every_function = pytest.mark.parametrize("attend", FUNCTIONS, ids=lambda f: f.__name__)

ROOT = Path(__file__).parent.parent
N_Q, N_K, D_K, D_V = 5, 7, 11, 13
LEADING = [(), (2,), (2, 3), (2, 1, 3)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def make(leading=(2, 3), n_q=N_Q, n_k=N_K, d_k=D_K, d_v=D_V, *, seed=0, **options):
    """Standard normal query, key, value; drawn on the CPU, so the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    options = {"dtype": torch.float64} | options
    return tuple(
        torch.randn(*leading, n, d, generator=generator, dtype=torch.float64).to(**options)
        for n, d in ((n_q, d_k), (n_k, d_k), (n_k, d_v))
    )


def make_mask(shape, *, seed=0, device="cpu"):
    """A boolean mask with both values in every row of more than one entry."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) < 0.5
    if shape[-1] > 1:
        mask[..., 0], mask[..., -1] = True, False
    return mask.to(device)


def as_bias(mask, dtype=torch.float64):
    """The bias that means what the boolean mask means."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -math.inf)


def with_grad(*tensors):
    return tuple(x.detach().clone().requires_grad_() for x in tensors)


def by_hand(query, key, value, mask=None):
    """The definition in Python floats: loops, no tensor arithmetic. Returns (output, weights)."""
    *leading, n_q, d_k = query.shape
    n_k, d_v = value.shape[-2:]
    output = torch.zeros(*leading, n_q, d_v, dtype=torch.float64)
    weights = torch.zeros(*leading, n_q, n_k, dtype=torch.float64)
    if mask is not None:
        mask = mask.expand(*leading, n_q, n_k)
    for where in itertools.product(*map(range, leading)):
        q, k, v = (x[where].tolist() for x in (query, key, value))
        for i in range(n_q):
            logits = [sum(a * b for a, b in zip(q[i], k[j], strict=True)) for j in range(n_k)]
            logits = [s / d_k**0.5 for s in logits]
            if mask is not None and mask.dtype == torch.bool:
                allowed = mask[where][i].tolist()
                logits = [s if ok else -math.inf for s, ok in zip(logits, allowed, strict=True)]
            elif mask is not None:
                logits = [s + b for s, b in zip(logits, mask[where][i].tolist(), strict=True)]
            largest = max(logits)
            if largest == -math.inf:
                continue
            terms = [math.exp(s - largest) for s in logits]
            for j in range(n_k):
                weights[(*where, i, j)] = terms[j] / sum(terms)
            for c in range(d_v):
                mixed = sum(terms[j] * v[j][c] for j in range(n_k)) / sum(terms)
                output[(*where, i, c)] = mixed
    return output, weights


def assert_close(got, want, *, atol=1e-13, rtol=0.0):
    torch.testing.assert_close(got, want, atol=atol, rtol=rtol)


# ---------------------------------------------------------------- closed forms


@every_function
def test_two_keys_give_the_logistic_function(attend):
    query = torch.tensor([[2.0, -1.0, 0.5, 3.0]], dtype=torch.float64)
    key = torch.tensor([[1.0, 0, 2, 1], [-1, 2, 0, 0.5]], dtype=torch.float64)
    value = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    # q·k is 6 and −2.5, the difference 8.5, over √4: the weight of key 0 is σ(4.25).
    assert_close(attend(query, key, value).item(), 1 / (1 + math.exp(-4.25)))


@every_function
def test_equal_keys_give_the_mean(attend):
    query, key, value = make()
    want = value.mean(-2, keepdim=True).expand(2, 3, N_Q, D_V)
    assert_close(attend(query, key[..., :1, :].expand_as(key), value), want)


@every_function
def test_one_key_gives_its_value_exactly(attend):
    query, key, value = make(n_k=1)
    assert torch.equal(attend(query, key, value), value.expand(2, 3, N_Q, D_V))


@every_function
def test_one_of_everything(attend):
    one = torch.tensor([[3.0]])
    assert torch.equal(attend(one, one, one), one)
    assert torch.equal(attend(one, one, one, torch.tensor([[True]])), one)
    assert torch.equal(attend(one, one, one, torch.tensor([[False]])), torch.zeros(1, 1))


@every_function
def test_a_matching_key_is_looked_up(attend):
    """Orthogonal keys of great length: attention becomes a dictionary."""
    key, value = 1e3 * torch.eye(N_K, dtype=torch.float64), make((), d_v=D_V)[2]
    chosen = torch.tensor([4, 0, 6])
    assert torch.equal(attend(key[chosen], key, value), value[chosen])


MASK_SHAPES = [(), (N_K,), (N_Q, N_K), (1, N_K), (N_Q, 1), (3, 1, N_K), (2, 1, 1, N_K)]


def mask_fits(shape, leading):
    full = (*leading, N_Q, N_K)
    pairs = zip(shape[::-1], full[::-1], strict=False)
    return len(shape) <= len(full) and all(size in (1, most) for size, most in pairs)


@every_function
@pytest.mark.parametrize(
    "leading, shape",
    [(a, b) for a in LEADING for b in [None, *MASK_SHAPES] if b is None or mask_fits(b, a)],
    ids=str,
)
@pytest.mark.parametrize("kind", ["bool", "bias"])
def test_equals_the_loops(attend, leading, shape, kind):
    query, key, value = make(leading)
    mask = None
    if shape is not None:
        mask = make_mask(shape) if shape else torch.tensor(True)
        if kind == "bias":
            generator = torch.Generator().manual_seed(1)
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
            mask = as_bias(mask) + noise
    want, want_weights = by_hand(query, key, value, mask)
    assert_close(attend(query, key, value, mask), want)
    if attend is scaled_dot_product_attention:
        output, weights = attend(query, key, value, mask, return_weights=True)
        assert_close(output, want)
        assert_close(weights, want_weights)


def test_the_weights_are_those_that_mixed_the_values():
    query, key, value = make()
    output, weights = scaled_dot_product_attention(query, key, value, return_weights=True)
    assert weights.shape == (2, 3, N_Q, N_K)
    assert torch.equal(output, weights @ value)


# ---------------------------------------------------------------- parity with torch

MASKS = {
    "none": lambda device: None,
    "full": lambda device: make_mask((2, 3, N_Q, N_K), device=device),
    "shared": lambda device: make_mask((N_Q, N_K), device=device),
    "padding": lambda device: padding_mask(torch.tensor([4, 7], device=device), N_K)[:, None, None],
    "causal": lambda device: causal_mask(N_Q, N_K, device=device),
    "rows": lambda device: (torch.arange(N_Q, device=device) != 2)[:, None],
    "both": lambda device: (
        padding_mask(torch.tensor([4, 7], device=device), N_K)[:, None, None]
        & causal_mask(N_Q, N_K, device=device)
    ),
}
# Rounding once, at the end, costs half a unit in the last place, eps / 2 relatively. A fused kernel
# that also rounds the weights costs a few times that, relative to the largest value.
ONE_ROUNDING = {
    torch.float64: {"atol": 1e-13, "rtol": 0.0},
    torch.float32: {"atol": 2e-6, "rtol": 0.0},
    torch.bfloat16: {"atol": 1e-5, "rtol": 2.0**-8},
    torch.float16: {"atol": 1e-5, "rtol": 2.0**-11},
}
FUSED = ONE_ROUNDING | {
    torch.bfloat16: {"atol": 2.0**-7, "rtol": 2.0**-7},
    torch.float16: {"atol": 2.0**-10, "rtol": 2.0**-10},
}


@every_function
@on_every_device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("equal_features", [False, True], ids=["d_v≠d_k", "d_v=d_k"])
def test_equals_torch(attend, device, dtype, equal_features):
    """On a CPU only d_v = d_k goes through the fused kernel."""
    inputs = make(d_v=D_K if equal_features else D_V, dtype=dtype, device=device)
    tolerance = (FUSED if attend is fast_attention else ONE_ROUNDING)[dtype]
    for name, make_one in MASKS.items():
        mask = make_one(device)
        want = F.scaled_dot_product_attention(*(x.double() for x in inputs), attn_mask=mask)
        want = want.nan_to_num(0.0)  # torch's answer for a row without keys differs by version
        for m in [mask] if mask is None else [mask, as_bias(mask, dtype)]:
            got = attend(*inputs, m)
            assert got.dtype == dtype and got.device == inputs[0].device
            torch.testing.assert_close(
                got.double(), want, **tolerance, msg=lambda text, name=name: f"mask {name}: {text}"
            )


@every_function
@on_every_device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d_v", [D_V, D_K])
def test_gradients_in_every_dtype(attend, device, dtype, d_v):
    inputs = with_grad(*make(d_v=d_v, dtype=dtype, device=device))
    exact = with_grad(*(x.double() for x in inputs))
    mask = make_mask((2, 3, N_Q, N_K), device=device)
    cotangent = make(n_k=N_Q, d_v=d_v, seed=1, dtype=dtype, device=device)[2]
    got = torch.autograd.grad(attend(*inputs, mask), inputs, cotangent)
    want = torch.autograd.grad(
        F.scaled_dot_product_attention(*exact, attn_mask=mask), exact, cotangent.double()
    )
    # Through a fused kernel or not, a gradient of a half precision input is rounded to it.
    atol = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}
    for x, y in zip(got, want, strict=True):
        assert x.dtype == dtype
        assert_close(x.double(), y, atol=atol[dtype])


@pytest.mark.parametrize("n_q, n_k", [(5, 5), (1, 7), (5, 7), (7, 5), (1, 1)])
@on_every_device
def test_fast_causal_is_the_causal_mask(device, n_q, n_k):
    for leading, dtype in itertools.product(LEADING, (torch.float64, torch.float32)):
        inputs = make(leading, n_q, n_k, 3, 3, device=device, dtype=dtype)
        want = scaled_dot_product_attention(*inputs, causal_mask(n_q, n_k, device=device))
        assert_close(fast_attention(*inputs, causal=True), want, **ONE_ROUNDING[dtype])


@pytest.mark.parametrize("n_q, n_k", [(5, 5), (1, 7), (5, 7), (7, 5)])
@pytest.mark.parametrize("kind", ["bool", "bias"])
@pytest.mark.parametrize("shape", [lambda q, k: (1, k), lambda q, k: (q, k), lambda q, k: (q, 1)])
def test_fast_causal_and_a_mask(n_q, n_k, kind, shape):
    inputs, mask = make((2, 3), n_q, n_k), make_mask(shape(n_q, n_k), seed=3)
    want = scaled_dot_product_attention(*inputs, mask & causal_mask(n_q, n_k))
    if kind == "bias":
        mask = as_bias(mask)
    assert_close(fast_attention(*inputs, mask, causal=True), want)


def test_fast_causal_keeps_a_finite_bias():
    inputs, bias = make((2, 3), 5, 5), torch.randn(3, 1, 5, dtype=torch.float64)
    want = scaled_dot_product_attention(*inputs, bias + as_bias(causal_mask(5)))
    assert_close(fast_attention(*inputs, bias, causal=True), want)


@every_function
@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("d_v", [D_V, D_K])
def test_in_float32_as_in_float64(attend, leading, d_v):
    """float64 takes torch's composed kernel and float32 the fused one, if d_v = d_k."""
    full = (*leading, N_Q, N_K)
    for shape in (full, (1,) * len(leading) + (N_Q, N_K), (*leading, 1, N_K), (N_Q, N_K)):
        mask = make_mask(shape, seed=len(shape))
        mask[..., 0, :] = False
        want = attend(*make(leading, d_v=d_v), mask)
        got = attend(*make(leading, d_v=d_v, dtype=torch.float32), mask)
        assert_close(got.double(), want, atol=2e-6)


@every_function
def test_no_batch_is_no_output(attend):
    assert attend(*make((0, 3))).shape == (0, 3, N_Q, D_V)
    assert attend(*make((3, 0), dtype=torch.float32), make_mask((N_Q, N_K))).shape == (3, 0, 5, 13)


LAYOUTS = {
    "heads": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "transposed": lambda x: x.mT.contiguous().mT,
    "strided": lambda x: torch.stack([x, x], dim=-1)[..., 0],
}


@every_function
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_non_contiguous_inputs(attend, dtype, layout):
    inputs, mask = make(d_v=D_K, dtype=dtype), make_mask((2, 3, N_Q, N_K))
    scattered = [LAYOUTS[layout](x) for x in (*inputs, mask)]
    assert not any(x.is_contiguous() for x in scattered)
    assert_close(attend(*scattered), attend(*inputs, mask), **ONE_ROUNDING[dtype])


# ---------------------------------------------------------------- a query with nothing to attend to


@every_function
@on_every_device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["bool", "bias"])
@pytest.mark.parametrize("equal_features", [False, True], ids=["d_v≠d_k", "d_v=d_k"])
def test_an_empty_row_is_zero_in_value_and_gradient(attend, device, dtype, kind, equal_features):
    d_v = D_K if equal_features else D_V
    inputs = make(d_v=d_v, dtype=dtype, device=device)
    mask = make_mask((2, 3, N_Q, N_K), device=device)
    mask[..., 2, :] = False
    mask = mask if kind == "bool" else as_bias(mask, dtype)
    cotangent = make(n_k=N_Q, d_v=d_v, seed=1, dtype=dtype, device=device)[2]

    def run(mask):
        leaves = with_grad(*inputs, *([mask] if kind == "bias" else []))
        with torch.autograd.set_detect_anomaly(True):
            output = attend(*leaves[:3], leaves[3] if kind == "bias" else mask)
            return output, torch.autograd.grad(output, leaves, cotangent)

    output, grads = run(mask)
    assert torch.equal(output[..., 2, :], torch.zeros_like(output[..., 2, :]))
    assert torch.equal(grads[0][..., 2, :], torch.zeros_like(grads[0][..., 2, :]))
    assert all(x.isfinite().all() for x in (output, *grads))
    assert grads[0].abs().max() > 0.01  # the other rows are alive
    if kind == "bias":
        assert torch.equal(grads[3][..., 2, :], torch.zeros_like(grads[3][..., 2, :]))

    # The empty row sends nothing to keys and values: without that query they get the same.
    others = [0, 1, 3, 4]
    leaves = with_grad(inputs[0][..., others, :], *inputs[1:])
    fewer = attend(*leaves, mask[..., others, :])
    want = torch.autograd.grad(fewer, leaves, cotangent[..., others, :])
    atol = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}
    for x, y in zip(grads[1:3], want[1:], strict=True):
        assert_close(x, y, atol=atol[dtype])


@every_function
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_rows_empty(attend, dtype):
    """D22: neither −1e9, which gives the mean, nor −inf, which gives NaN."""
    leaves = with_grad(*make(dtype=dtype))
    for mask in (torch.tensor(False), torch.zeros(N_Q, N_K).bool(), torch.zeros(N_Q, 1).bool()):
        for m in (mask, as_bias(mask, dtype)):
            output = attend(*leaves, m)
            assert torch.equal(output, torch.zeros_like(output))
            for grad in torch.autograd.grad(output.sum(), leaves):
                assert torch.equal(grad, torch.zeros_like(grad))


def test_the_weights_of_an_empty_row_are_zero():
    mask = torch.tensor([[True, False], [False, False]])
    _, weights = scaled_dot_product_attention(*make((), 2, 2), mask, return_weights=True)
    assert weights.tolist() == [[1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("kind", ["bool", "bias"])
def test_no_kernel_gets_to_see_an_empty_row(monkeypatch, kind):
    """torch's kernels differ on it; here is one that divides 0 by 0, forward and backward."""

    def naive(query, key, value, attn_mask, dropout_p, is_causal):
        logits = query @ key.mT / math.sqrt(query.shape[-1])
        if attn_mask.dtype == torch.bool:
            attn_mask = as_bias(attn_mask)
        terms = (logits + attn_mask).exp()
        return terms / terms.sum(-1, keepdim=True) @ value

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", naive)
    leaves, mask = with_grad(*make()), make_mask((2, 1, N_Q, N_K))
    mask[:, :, 2] = False
    output = fast_attention(*leaves, mask if kind == "bool" else as_bias(mask))
    assert_close(output.detach(), by_hand(*leaves, mask)[0])
    for grad in torch.autograd.grad(output.sum(), leaves):
        assert grad.isfinite().all()


@every_function
def test_an_empty_row_is_zero_whatever_its_query(attend):
    inputs = make()
    inputs[0][..., 2, :] = math.nan
    mask = torch.ones(N_Q, N_K, dtype=torch.bool)
    mask[2] = False
    for m in (mask, as_bias(mask)):
        output = attend(*inputs, m)
        assert torch.equal(output[..., 2, :], torch.zeros(2, 3, D_V, dtype=torch.float64))
        assert output.isfinite().all()


# ---------------------------------------------------------------- derivatives


@every_function
@pytest.mark.parametrize("kind", ["none", "bool", "bias", "causal"])
def test_first_and_second_derivatives(attend, kind):
    inputs = with_grad(*make((2,), 3, 5, 2, 3))
    mask = make_mask((2, 3, 5))
    mask[0, 1] = False
    mask = {"none": None, "bool": mask, "bias": as_bias(mask), "causal": causal_mask(3, 5)}[kind]
    if kind == "bias":
        finite = torch.randn_like(mask).requires_grad_()
        inputs = (*inputs, finite)
        bias = mask

        def function(q, k, v, b):
            return attend(q, k, v, b + bias)

    else:

        def function(q, k, v):
            return attend(q, k, v, mask)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("n_k", [3, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_derivatives_where_there_is_a_fused_kernel(n_k, causal):
    inputs = with_grad(*make((1, 2), 3, n_k, 2, 2))
    assert torch.autograd.gradcheck(lambda *x: fast_attention(*x, causal=causal), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: fast_attention(*x, causal=causal), inputs)


def test_fused_kernels_have_no_second_derivative():
    """As the docstring says: float32 takes a fused kernel, which can be differentiated once."""
    query, key, value = with_grad(*make(d_v=D_K, dtype=torch.float32))
    output = fast_attention(query, key, value)
    (grad,) = torch.autograd.grad(output.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative .* not implemented"):
        torch.autograd.grad(grad.sum(), query)


@every_function
def test_backward_pass_by_hand(attend):
    """dV = PᵀdO, dP = dO Vᵀ, dS = P∘(dP − rowsum(dO∘O)), dQ = dS K/√d, dK = dSᵀQ/√d."""
    query, key, value = leaves = with_grad(*make())
    mask = make_mask((N_Q, N_K))
    output, p = scaled_dot_product_attention(query, key, value, mask, return_weights=True)
    d_output = make(n_k=N_Q, seed=1)[2]
    d_p = d_output @ value.mT
    d_s = p * (d_p - (d_output * output).sum(-1, keepdim=True)) / D_K**0.5
    want = (d_s @ key, d_s.mT @ query, p.mT @ d_output)
    got = torch.autograd.grad(attend(query, key, value, mask), leaves, d_output)
    for x, y in zip(got, want, strict=True):
        assert_close(x, y.detach())


@every_function
def test_the_causal_jacobian_is_lower_triangular(attend):
    n = 5
    inputs = with_grad(*make((), n, n, 3, 2))
    for x in range(3):
        jacobian = (
            torch.autograd.functional.jacobian(
                lambda *a: attend(*a, causal_mask(n)).sum(-1), inputs
            )[x]
            .abs()
            .amax(-1)
        )  # (output position, input position)
        assert torch.equal(jacobian.triu(1), torch.zeros(n, n, dtype=torch.float64))
        assert (jacobian.diagonal()[1:] > 0).all()  # the present is not hidden


# ---------------------------------------------------------------- properties

SIZES = st.integers(1, 6)
property_test = settings(deadline=None, max_examples=20)


@st.composite
def problems(draw, *, square=False):
    """Inputs and a mask of any kind, of any small shape."""
    leading = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    n_q = draw(SIZES)
    n_k = n_q if square else draw(SIZES)
    seed = draw(st.integers(0, 2**16))
    inputs = make(leading, n_q, n_k, draw(SIZES), draw(SIZES), seed=seed)
    mask = torch.rand(*leading, n_q, n_k, generator=torch.Generator().manual_seed(seed)) < 0.7
    kind = draw(st.sampled_from(["none", "bool", "bias"]))
    return inputs, {"none": None, "bool": mask, "bias": as_bias(mask)}[kind]


@every_function
@property_test
@given(problems(), st.randoms(use_true_random=False))
def test_permuting_queries_permutes_outputs(attend, problem, random):
    (query, key, value), mask = problem
    order = random.sample(range(query.shape[-2]), query.shape[-2])
    permuted = mask if mask is None else mask[..., order, :]
    got = attend(query[..., order, :], key, value, permuted)
    assert_close(got, attend(query, key, value, mask)[..., order, :])


@every_function
@property_test
@given(problems(), st.randoms(use_true_random=False))
def test_permuting_keys_with_their_values_changes_nothing(attend, problem, random):
    (query, key, value), mask = problem
    order = random.sample(range(key.shape[-2]), key.shape[-2])
    permuted = mask if mask is None else mask[..., order]
    got = attend(query, key[..., order, :], value[..., order, :], permuted)
    assert_close(got, attend(query, key, value, mask))


@property_test
@given(problems())
def test_rows_of_weights_sum_to_one(problem):
    """Without dropout. With it they do not (D41): see the tests of dropout."""
    (query, key, value), mask = problem
    _, weights = scaled_dot_product_attention(query, key, value, mask, return_weights=True)
    assert (weights >= 0).all()
    want = torch.ones(query.shape[:-1], dtype=torch.float64)
    if mask is not None:
        allowed = mask if mask.dtype == torch.bool else mask > -math.inf
        assert (weights[~allowed] == 0).all()
        want = allowed.any(-1).double()
    assert_close(weights.sum(-1), want)


@every_function
@property_test
@given(problems(), st.floats(-50, 50))
def test_shifting_all_logits_of_a_query_changes_nothing(attend, problem, shift):
    (query, key, value), mask = problem
    want = attend(query, key, value, mask)
    # One vector added to every key adds one number to every logit of a query.
    got = attend(query, key + shift / 10, value, mask)
    assert_close(got, want, atol=1e-11)
    if mask is None or mask.dtype != torch.bool:
        bias = torch.full((1, 1), shift, dtype=torch.float64)
        assert_close(attend(query, key, value, bias if mask is None else mask + shift), want)


@every_function
@property_test
@given(problems())
def test_linear_in_the_values(attend, problem):
    (query, key, value), mask = problem
    other = value.flip(-1).cos()
    got = attend(query, key, 2 * value - 3 * other, mask)
    parts = (attend(query, key, v, mask) for v in (value, other))
    assert_close(got, 2 * next(parts) - 3 * next(parts))


@every_function
@property_test
@given(st.integers(2, 7), st.integers(0, 2**16), st.data())
def test_no_output_depends_on_the_future(attend, n, seed, data):
    """With its two partners (D40): the other sample stays, and the present does move."""
    t = data.draw(st.integers(0, n - 2))
    inputs = make((2,), n, n, 3, 5, seed=seed)
    changed = [x.clone() for x in inputs]
    for x in changed:
        x[0, t + 1 :] += 1 + x[0, t + 1 :].abs()
    before, after = (attend(*x, causal_mask(n)) for x in (inputs, changed))
    assert_close(after[0, : t + 1], before[0, : t + 1])
    assert_close(after[1], before[1])
    assert ((after - before)[0, t + 1 :].abs().amax(-1) > 1e-3).all()


@every_function
@property_test
@given(st.lists(st.integers(0, N_K), min_size=1, max_size=4), st.sampled_from([1.0, 1e3, 1e30]))
def test_padding_has_no_influence(attend, lengths, size):
    """Whatever finite numbers padding holds; and no gradient reaches it."""
    batch = len(lengths)
    real = padding_mask(torch.tensor(lengths), N_K)
    query, key, value = make((batch, 2))
    junk = size * torch.randn(batch, 2, N_K, 1, dtype=torch.float64)
    dirty = [torch.where(real[:, None, :, None], x, junk) for x in (key, value)]
    mask = real[:, None, None, :]
    want = attend(query, key, value, mask)
    leaves = with_grad(*dirty)
    got = attend(query, *leaves, mask)
    assert torch.equal(got.detach(), want) or (got - want).abs().max() <= 1e-13
    for b, length in enumerate(lengths):  # and equals the sequence without its padding
        if length:
            cut = (query[b], key[b, :, :length], value[b, :, :length])
            assert_close(want[b], attend(*cut))
    for grad in torch.autograd.grad(got.sum(), leaves):
        assert (grad.masked_fill(real[:, None, :, None], 0.0) == 0).all()


@every_function
def test_padding_must_be_finite(attend):
    """The limit that the docstring names: 0 × NaN is NaN, and is not hidden."""
    query, key, value = make()
    value[..., -1, :] = math.nan
    mask = torch.arange(N_K) < N_K - 1
    assert attend(query, key, value, mask).isnan().all()


@property_test
@given(problems(), st.integers(1, 8))
def test_the_block_size_changes_nothing(problem, block_size):
    inputs, mask = problem
    got = online_softmax_attention(*inputs, mask, block_size=block_size)
    assert_close(got, scaled_dot_product_attention(*inputs, mask))


@every_function
@pytest.mark.parametrize("n_q", [1, 3])
def test_decoding_with_a_cache(attend, n_q):
    """The last queries against all keys so far give the last rows of the whole."""
    n = 7
    query, key, value = make((2, 3), n, n)
    whole = attend(query, key, value, causal_mask(n))
    for t in range(n_q, n + 1):
        inputs = query[..., t - n_q : t, :], key[..., :t, :], value[..., :t, :]
        assert_close(attend(*inputs, causal_mask(n_q, t)), whole[..., t - n_q : t, :])
        if attend is fast_attention:
            assert_close(attend(*inputs, causal=True), whole[..., t - n_q : t, :])


# ---------------------------------------------------------------- numbers of every size


@every_function
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_logits_at_300_sigma(attend, dtype):
    """Where exp of a logit overflows float32 (beyond 88) the shifted exponent does not."""
    query, key, value = make(dtype=dtype)
    query = 300 * query
    logits = (query @ key.mT / D_K**0.5).float()
    assert torch.exp(logits).isinf().any()
    got = attend(query, key, value)
    assert got.isfinite().all()
    want, _ = by_hand(query.double(), key.double(), value.double())
    # A float32 logit near 1000 is off by 1e-4 at most, and a weight by as much, relatively.
    atol = {torch.float64: 1e-12, torch.float32: 1e-3, torch.bfloat16: 2e-2}[dtype]
    assert_close(got.double(), want, atol=atol)


@every_function
def test_the_maximum_may_come_first_last_or_between(attend):
    """Online softmax rescales what came before, or what comes after."""
    key = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]], dtype=torch.float64)
    value = make(())[2]
    for order in (range(7), range(6, -1, -1), (3, 0, 6, 1, 5, 2, 4)):
        query = torch.tensor([[200.0], [1.0], [-200.0]], dtype=torch.float64)
        inputs = query, key[list(order)], value
        assert_close(attend(*inputs), by_hand(*inputs)[0])


@every_function
def test_float16_products_do_not_overflow(attend):
    """q·k is 4e6 here and float16 ends at 65504: the product needs a wider type."""
    query = key = torch.full((1, 2, 3, 16), 500.0, dtype=torch.float16)
    value = make((1, 2), 3, 3, dtype=torch.float16)[2]
    got = attend(query, key, value).double()
    assert_close(got, value.double().mean(-2, keepdim=True).expand_as(got), atol=2e-3)


@every_function
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_is_masked_stays_masked_below_any_constant(attend, dtype):
    """Where every allowed logit is below −1e9, a mask of −1e9 would prefer the forbidden key."""
    query = torch.tensor([[[-1e12]]], dtype=dtype)
    key = torch.tensor([[[1.0], [1.0], [1.0]]], dtype=dtype)
    value = torch.tensor([[[1.0], [3.0], [100.0]]], dtype=dtype)
    assert attend(query, key, value, torch.tensor([True, True, False])).item() == 2.0


@every_function
def test_a_forbidden_key_weighs_exactly_nothing(attend):
    query, key, _ = make((2,))
    mask = make_mask((N_Q, N_K))
    weights = attend(query, key, torch.eye(N_K, dtype=torch.float64).expand(2, -1, -1), mask)
    assert (weights[:, ~mask] == 0).all() and (weights[:, mask] > 0).all()


@every_function
def test_nan_is_not_hidden(attend):
    query, key, value = make()
    query[0, 0, 1, 0] = math.nan
    got = attend(query, key, value)
    assert got[0, 0, 1].isnan().all()
    assert got.isnan().sum() == D_V  # and stays in its row


# ---------------------------------------------------------------- dropout

WITH_DROPOUT = [scaled_dot_product_attention, fast_attention]
each_with_dropout = pytest.mark.parametrize("attend", WITH_DROPOUT, ids=lambda f: f.__name__)


def dropped_weights(attend, repeats, dropout, mask=None, device="cpu"):
    """Values that are the identity make the output the weights, for the fused kernel too."""
    query, key, _ = make((), device=device, dtype=torch.float32)
    value = torch.eye(N_K, device=device)
    inputs = (x.expand(1, repeats, -1, -1) for x in (query, key, value))
    torch.manual_seed(0)
    clean, _ = by_hand(query.double().cpu(), key.double().cpu(), value.double().cpu(), mask)
    mask = None if mask is None else mask.to(device)
    return attend(*inputs, mask, dropout=dropout)[0].double().cpu(), clean


@each_with_dropout
@on_every_device
@pytest.mark.parametrize("masked", [False, True])
def test_dropout_comes_after_the_softmax_and_is_unbiased(attend, device, masked):
    p, repeats = 0.3, 4000
    mask = make_mask((N_Q, N_K)) if masked else None
    weights, clean = dropped_weights(attend, repeats, p, mask, device)
    kept = weights != 0
    # D10: after the softmax a weight is either gone or scaled, whatever became of the others.
    scaled = (clean / (1 - p)).expand_as(weights)
    assert_close(weights[kept], scaled[kept], atol=1e-5)
    # Unbiased: weight by weight, within five standard errors of the mean.
    error = clean * math.sqrt(p / (1 - p) / repeats)
    assert ((weights.mean(0) - clean).abs() <= 5 * error + 1e-6).all()
    count = int((clean > 0).sum()) * repeats
    share = kept.sum().item() / count
    assert abs(share - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / count)
    # D41: rows sum to one in the mean only, so no test may ask it of one draw.
    assert (weights.sum(-1) - 1).abs().max() > 0.3


@each_with_dropout
def test_dropout_drops_weights_independently(attend):
    weights, _ = dropped_weights(attend, 4000, 0.5)
    kept = (weights != 0).double().reshape(4000, -1)
    correlation = torch.corrcoef(kept.T).fill_diagonal_(0.0)
    assert correlation.abs().max() <= 5 / math.sqrt(4000)


@each_with_dropout
def test_dropout_follows_the_seed(attend):
    inputs = make((2, 3), dtype=torch.float32)

    def run(seed, dropout):
        torch.manual_seed(seed)
        return attend(*inputs, dropout=dropout)

    assert torch.equal(run(0, 0.5), run(0, 0.5))
    assert not torch.equal(run(0, 0.5), run(1, 0.5))
    assert torch.equal(run(0, 0.0), run(1, 0.0))
    assert torch.equal(run(0, 0), attend(*inputs))


def test_gradient_through_dropout():
    """dV = WᵀdO with the weights that were used; what was dropped gets no gradient."""
    leaves = with_grad(*make())
    torch.manual_seed(0)
    output, weights = scaled_dot_product_attention(*leaves, dropout=0.5, return_weights=True)
    assert torch.equal(output, weights @ leaves[2])
    d_output = make(n_k=N_Q, seed=1)[2]
    grads = torch.autograd.grad(output, leaves, d_output)
    assert_close(grads[2], (weights.mT @ d_output).detach())
    assert all(x.isfinite().all() and x.abs().max() > 0 for x in grads)

    def again(*inputs):
        torch.manual_seed(0)
        return scaled_dot_product_attention(*inputs, dropout=0.5)

    assert torch.autograd.gradcheck(again, with_grad(*make((1,), 3, 5, 2, 3)))


@each_with_dropout
def test_dropout_with_an_empty_row(attend):
    leaves = with_grad(*make(dtype=torch.float32))
    mask = torch.ones(N_Q, N_K, dtype=torch.bool)
    mask[2] = False
    output = attend(*leaves, mask, dropout=0.9)
    grads = torch.autograd.grad(output.sum(), leaves)
    assert torch.equal(output[..., 2, :], torch.zeros(2, 3, D_V))
    assert torch.equal(grads[0][..., 2, :], torch.zeros(2, 3, D_K))
    assert all(x.isfinite().all() for x in (output, *grads))


# ---------------------------------------------------------------- masks


def test_causal_mask_by_definition():
    for n_q, n_k in itertools.product(range(1, 6), repeat=2):
        mask = causal_mask(n_q, n_k)
        want = [[j <= i + n_k - n_q for j in range(n_k)] for i in range(n_q)]
        assert mask.dtype == torch.bool
        assert mask.tolist() == want
        assert mask[-1].all()  # the last query sees every key
    assert torch.equal(causal_mask(5), causal_mask(5, 5))


@on_every_device
def test_masks_are_made_on_the_device(device):
    assert causal_mask(3, device=device).device.type == device
    assert padding_mask(torch.tensor([1, 2], device=device), 3).device.type == device
    assert causal_mask(3, device="meta").device.type == "meta"


def test_more_queries_than_keys_leaves_the_first_with_nothing():
    inputs = make((), 5, 3)
    for attend in FUNCTIONS:
        output = attend(*inputs, causal_mask(5, 3))
        assert torch.equal(output[:2], torch.zeros(2, D_V, dtype=torch.float64))
        assert_close(output[2:], attend(inputs[0][2:], *inputs[1:], causal_mask(3)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_padding_mask_by_definition(dtype):
    lengths = [0, 1, 4, 5, 9]
    want = [[j < length for j in range(5)] for length in lengths]
    mask = padding_mask(torch.tensor(lengths, dtype=dtype), 5)
    assert mask.dtype == torch.bool
    assert mask.tolist() == want
    assert padding_mask(lengths, 5).tolist() == want
    assert padding_mask(torch.tensor([-1]), 2).tolist() == [[False, False]]


@every_function
def test_a_padding_mask_as_it_is_does_not_fit(attend):
    """D20: (B, n) is not (n_q, n_k), and says so unless the batch is as long as the queries."""
    real = padding_mask(torch.tensor([3, 7]), N_K)
    with pytest.raises(ValueError, match=r"mask: expected .* \(2, 5, 7\), got \(2, 7\)"):
        attend(*make((2,)), real)
    with pytest.raises(ValueError, match=r"mask: expected .* \(2, 3, 5, 7\), got \(2, 1, 7\)"):
        attend(*make((2, 3)), real[:, None])


# ---------------------------------------------------------------- transforms and autocast


def mask_cases():
    return {"none": None, "bool": make_mask((N_Q, N_K)), "bias": as_bias(make_mask((N_Q, N_K)))}


@every_function
@pytest.mark.parametrize("kind", ["none", "bool", "bias"])
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_vmap(attend, kind, leading, dtype):
    inputs, mask = make((4, *leading), d_v=D_K, dtype=dtype), mask_cases()[kind]
    mask = mask.to(dtype) if kind == "bias" else mask
    want = attend(*inputs, mask)
    tolerance = ONE_ROUNDING[dtype]
    assert_close(torch.vmap(lambda *x: attend(*x, mask))(*inputs), want, **tolerance)
    # over another dimension of each, and with only the query mapped
    moved = [inputs[0].movedim(0, -1), inputs[1].movedim(0, -2), inputs[2]]
    got = torch.vmap(lambda *x: attend(*x, mask), in_dims=(-1, -2, 0))(*moved)
    assert_close(got, want, **tolerance)
    got = torch.vmap(lambda q: attend(q, inputs[1][0], inputs[2][0], mask))(inputs[0])
    same_key = (x[:1].expand_as(x) for x in inputs[1:])
    assert_close(got, attend(inputs[0], *same_key, mask), **tolerance)


@every_function
def test_vmap_over_masks(attend):
    inputs = make((2, 3), d_v=D_K, dtype=torch.float32)
    masks = make_mask((4, N_Q, N_K))
    masks[2, 1] = False
    got = torch.vmap(lambda m: attend(*inputs, m))(masks)
    assert_close(
        got, torch.stack([attend(*inputs, m) for m in masks]), **ONE_ROUNDING[torch.float32]
    )


@every_function
def test_gradients_for_each_sample(attend):
    inputs = make((4, 2), d_v=D_K, dtype=torch.float32)
    mask = make_mask((N_Q, N_K))

    def loss(query, key, value):
        return attend(query, key, value, mask).square().sum()

    got = torch.vmap(torch.func.grad(loss))(*inputs)
    want = [torch.func.grad(loss)(*(x[i] for x in inputs)) for i in range(4)]
    assert_close(got, torch.stack(want), atol=1e-5)


@each_with_dropout
def test_vmap_with_dropout(attend):
    inputs = make((4, 2), dtype=torch.float32)
    run = torch.vmap(lambda *x: attend(*x, dropout=0.5), randomness="different")
    same = [x[:1].expand_as(x) for x in inputs]
    output = run(*same)
    assert output.shape == (4, 2, N_Q, D_V)
    assert not torch.equal(output[0], output[1])


@every_function
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["none", "bool", "bias"])
@on_every_device
def test_autocast(attend, dtype, kind, device):
    query, key, value = make(d_v=D_K, dtype=torch.float32, device=device)
    mask = mask_cases()[kind]
    mask = None if mask is None else mask.to(device)
    mask = mask.float() if kind == "bias" else mask
    want = scaled_dot_product_attention(query, key, value, mask)
    with torch.autocast(device, dtype=dtype):
        plain = attend(query, key, value, mask)
        mixed = attend(query, key.to(dtype), value, mask)
        untouched = attend(query.double(), key.double(), value.double())
        assert torch.is_autocast_enabled(device)
    assert plain.dtype == mixed.dtype == dtype
    assert untouched.dtype == torch.float64
    atol = {torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    assert_close(plain.float(), want, atol=atol)
    assert_close(mixed.float(), want, atol=atol)
    if attend is not fast_attention:  # computed in float32 and rounded once
        assert torch.equal(plain, attend(query, key, value, mask).to(dtype))


def test_weights_under_autocast_and_in_half_precision():
    query, key, value = make(dtype=torch.float32)
    _, want = scaled_dot_product_attention(query, key, value, return_weights=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, weights = scaled_dot_product_attention(query, key, value, return_weights=True)
    assert torch.equal(weights, want.bfloat16())
    inputs = (x.bfloat16() for x in (query, key, value))
    _, weights = scaled_dot_product_attention(*inputs, return_weights=True)
    assert weights.dtype == torch.bfloat16


@every_function
def test_autocast_in_float16_does_not_overflow(attend):
    query = torch.full((1, 2, 3, 16), 500.0)
    value = make((1, 2), 3, 3, dtype=torch.float32)[2]
    with torch.autocast("cpu", dtype=torch.float16):
        got = attend(query, query, value)
    assert_close(got.float(), value.mean(-2, keepdim=True).expand_as(value), atol=2e-3)


@every_function
def test_autocast_does_not_mix_float64(attend):
    query, key, value = make()
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(ValueError, match=r"key: expected query's dtype torch.float64, got"),
    ):
        attend(query, key.float(), value)


@every_function
def test_shapes_without_numbers(attend):
    """The meta device has shapes only: nothing may look at a value."""
    inputs = make(device="meta")
    for mask in (None, make_mask((N_Q, N_K)).to("meta")):
        output = attend(*inputs, mask)
        assert output.shape == (2, 3, N_Q, D_V) and output.device.type == "meta"


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compile_cases():
    for kind in ("none", "bool", "bias"):
        for attend in FUNCTIONS:
            yield pytest.param(attend, kind, {}, id=f"{attend.__name__}-{kind}")
    yield pytest.param(fast_attention, "none", {"causal": True}, id="fast_attention-causal")
    yield pytest.param(fast_attention, "bias", {"causal": True}, id="fast_attention-bias-causal")
    yield pytest.param(
        scaled_dot_product_attention, "bool", {"return_weights": True}, id="with-weights"
    )


@pytest.mark.parametrize("attend, kind, options", list(compile_cases()))
def test_compile_in_one_graph(fresh_compiler, attend, kind, options):
    """fullgraph=True raises where a graph would break."""
    compiled = torch.compile(attend, fullgraph=True, backend="eager")
    inputs, mask = with_grad(*make()), mask_cases()[kind]
    got, want = (tree_leaves(f(*inputs, mask, **options)) for f in (compiled, attend))
    for x, y in zip(got, want, strict=True):
        assert_close(x, y)
    grads = [torch.autograd.grad(x[0].square().sum(), inputs) for x in (got, want)]
    for x, y in zip(*grads, strict=True):
        assert_close(x, y, atol=1e-12)


@every_function
def test_compile_for_any_length(fresh_compiler, attend):
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="eager")
    for leading, n_q, n_k in [((2, 3), 5, 7), ((4, 5), 6, 8)]:
        inputs, mask = make(leading, n_q, n_k), make_mask((n_q, n_k))
        assert_close(compiled(*inputs, mask), attend(*inputs, mask))


@every_function
def test_compile_with_autocast_and_vmap(fresh_compiler, attend):
    inputs = make((4, 2), d_v=D_K, dtype=torch.float32)
    compiled = torch.compile(torch.vmap(attend), fullgraph=True, backend="eager")
    assert_close(compiled(*inputs), attend(*inputs), **ONE_ROUNDING[torch.float32])
    compiled = torch.compile(attend, fullgraph=True, backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compiled(*inputs), attend(*inputs))


def test_compile_keeps_the_fused_kernel(fresh_compiler):
    """No context that forbids it in the graph, but for float64 and vmap, which need one."""
    graphs = []

    def record(module, inputs):
        names = [str(node.target) for node in module.graph.nodes]
        graphs.append(any("sdpa_kernel" in name for name in names))
        return module

    inputs = make((4, 2), d_v=D_K, dtype=torch.float32)
    torch.compile(fast_attention, fullgraph=True, backend=record)(*inputs)
    torch.compile(fast_attention, fullgraph=True, backend=record)(*make())
    torch.compile(torch.vmap(fast_attention), fullgraph=True, backend=record)(*inputs)
    gradient = torch.vmap(torch.func.grad(lambda *x: fast_attention(*x).sum()))
    torch.compile(gradient, fullgraph=True, backend=record)(*inputs)
    assert graphs == [False, True, True, True]


def test_importing_the_module_does_not_import_the_compiler():
    """That takes a second, which every chapter's first cell would wait for."""
    code = "import sys, lib.attention; sys.exit('torch._dynamo' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120)
    assert process.returncode == 0


def test_compile_dropout_and_masks(fresh_compiler):
    def run(lengths, *inputs):
        mask = padding_mask(lengths, N_K)[:, None, None] & causal_mask(N_Q, N_K)
        first = scaled_dot_product_attention(*inputs, mask, dropout=0.5)
        return first + fast_attention(*inputs, mask, dropout=0.5)

    compiled = torch.compile(run, fullgraph=True, backend="eager")
    results = []
    for function in (run, compiled):
        torch.manual_seed(0)
        results.append(function(torch.tensor([3, 7]), *make()))
    assert_close(*results)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compile_with_inductor(fresh_compiler):
    """The default backend, down to machine code: forward, backward and a row without keys."""
    inputs, mask = with_grad(*make(dtype=torch.float32)), make_mask((N_Q, N_K))
    mask[1] = False
    results = []
    # Two small kernels: what pays off for many is left out, and they take half of the time.
    options = {
        "compile_threads": 1,
        "cpp_cache_precompile_headers": False,
        "cpp.vec_isa_ok": True,
    }
    compiled = torch.compile(scaled_dot_product_attention, fullgraph=True, options=options)
    for function in (scaled_dot_product_attention, compiled):
        output = function(*inputs, mask)
        results.append((output, *torch.autograd.grad(output.square().sum(), inputs)))
    for got, want in zip(*results, strict=True):
        assert_close(got, want, atol=1e-5)


# ---------------------------------------------------------------- memory


class LargestTensor(TorchDispatchMode):
    """Records the operators that run and the size of the largest tensor that one returns."""

    def __init__(self):
        super().__init__()
        self.largest, self.operators = 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operators.add(str(function))
        sizes = (x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))
        self.largest = max(self.largest, *sizes, 0)
        return result


N = 401


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("mask", [None, torch.ones(1, N).bool(), torch.zeros(N)], ids=str)
def test_online_softmax_never_makes_the_weights(leading, mask):
    inputs, block_size = make(leading, N, N, 3, 5, dtype=torch.float32), 7
    with LargestTensor() as seen:
        online_softmax_attention(*inputs, mask, block_size=block_size)
    rows = math.prod(leading) * N
    assert seen.largest == rows * block_size
    with LargestTensor() as seen:  # the positive control
        scaled_dot_product_attention(*inputs, mask)
    assert seen.largest == rows * N


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (1, 2, 3)], ids=str)
@pytest.mark.parametrize(
    "n_q, causal, mask", [(N, False, None), (N, True, None), (1, True, None), (N, False, (1, N))]
)
def test_fast_attention_never_makes_weights_or_mask(leading, n_q, causal, mask):
    inputs = make(leading, n_q, N, 3, 3, dtype=torch.float32)
    mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with LargestTensor() as seen:
        fast_attention(*inputs, mask, causal=causal)
    assert any("flash_attention" in name for name in seen.operators)
    assert seen.largest <= math.prod(leading) * N * 5
    assert not any(name.startswith(("aten.ones", "aten.tril")) for name in seen.operators)


# ---------------------------------------------------------------- bad inputs


def good(**changes):
    query, key, value = make()
    return {"query": query, "key": key, "value": value, "mask": None} | changes


def t(*shape, dtype=torch.float64, device="cpu"):
    return torch.zeros(shape, dtype=dtype, device=device)


LOGITS = r"\(\.\.\., n_q, n_k\) = \(2, 3, 5, 7\)"
BAD = {
    "query list": (TypeError, {"query": [[1.0]]}, "query: expected a torch.Tensor, got list"),
    "key None": (TypeError, {"key": None}, "key: expected a torch.Tensor, got NoneType"),
    "mask list": (TypeError, {"mask": [[True]]}, "mask: expected a torch.Tensor, got list"),
    "query 1-d": (ValueError, {"query": t(11)}, r"query: expected shape .*n, d\), got \(11,\)"),
    "key 0-d": (ValueError, {"key": t()}, r"key: expected shape .*, got \(\)"),
    "value 1-d": (ValueError, {"value": t(13)}, r"value: expected shape .*, got \(13,\)"),
    "leading": (
        ValueError,
        {"key": t(2, 5, 7, 11)},
        r"key: expected query's leading dimensions \(2, 3\), got \(2, 5\)",
    ),
    "leading of 1": (ValueError, {"value": t(2, 1, 7, 13)}, r"value: .* \(2, 3\), got \(2, 1\)"),
    "fewer leading": (ValueError, {"key": t(3, 7, 11)}, r"key: .* \(2, 3\), got \(3,\)"),
    "d_k": (ValueError, {"key": t(2, 3, 7, 13)}, "key: expected query's d_k = 11, got 13"),
    "n_k": (ValueError, {"value": t(2, 3, 5, 13)}, "value: expected key's n_k = 7, got 5"),
    "n_q = 0": (ValueError, {"query": t(2, 3, 0, 11)}, r"query: .* at least 1, .* \(2, 3, 0, 11\)"),
    "n_k = 0": (ValueError, {"key": t(2, 3, 0, 11)}, r"key: .* at least 1, .* \(2, 3, 0, 11\)"),
    "d_k = 0": (ValueError, {"query": t(2, 3, 5, 0)}, r"query: .* at least 1, .* \(2, 3, 5, 0\)"),
    "d_v = 0": (ValueError, {"value": t(2, 3, 7, 0)}, r"value: .* at least 1, .* \(2, 3, 7, 0\)"),
    "integers": (
        ValueError,
        {"query": t(2, 3, 5, 11, dtype=torch.int64)},
        "query: expected float64, float32, bfloat16 or float16, got torch.int64",
    ),
    "boolean value": (
        ValueError,
        {"value": t(2, 3, 7, 13, dtype=torch.bool)},
        "value: expected float64, .*, got torch.bool",
    ),
    "complex": (
        ValueError,
        {"key": t(2, 3, 7, 11, dtype=torch.complex128)},
        "key: expected float64, .*, got torch.complex128",
    ),
    "mixed dtypes": (
        ValueError,
        {"key": t(2, 3, 7, 11, dtype=torch.float32)},
        "key: expected query's dtype torch.float64, got torch.float32",
    ),
    "mixed halves": (
        ValueError,
        {"value": t(2, 3, 7, 13, dtype=torch.float16)},
        "value: expected query's dtype torch.float64, got torch.float16",
    ),
    "device": (
        ValueError,
        {"value": t(2, 3, 7, 13, device="meta")},
        "value: expected query's device cpu, got meta",
    ),
    "mask device": (
        ValueError,
        {"mask": t(5, 7, dtype=torch.bool, device="meta")},
        "mask: expected query's device cpu, got meta",
    ),
    "integer mask": (
        ValueError,
        {"mask": t(5, 7, dtype=torch.int64)},
        "mask: expected torch.bool or torch.float64, got torch.int64",
    ),
    "mask dtype": (
        ValueError,
        {"mask": t(5, 7, dtype=torch.float32)},
        "mask: expected torch.bool or torch.float64, got torch.float32",
    ),
    "mask transposed": (ValueError, {"mask": t(7, 5)}, rf"mask: .* {LOGITS}, got \(7, 5\)"),
    "mask n_k": (ValueError, {"mask": t(5, 5)}, rf"mask: .* {LOGITS}, got \(5, 5\)"),
    "mask n_q": (ValueError, {"mask": t(7, 7)}, rf"mask: .* {LOGITS}, got \(7, 7\)"),
    "mask batch": (
        ValueError,
        {"mask": t(5, 1, 5, 7)},
        rf"mask: expected a shape that broadcasts to {LOGITS}, got \(5, 1, 5, 7\)",
    ),
    "mask too deep": (
        ValueError,
        {"mask": t(1, 2, 3, 5, 7)},
        rf"mask: expected a shape that broadcasts to {LOGITS}, got \(1, 2, 3, 5, 7\)",
    ),
    "mask empty": (ValueError, {"mask": t(5, 0)}, rf"mask: .* {LOGITS}, got \(5, 0\)"),
}


@every_function
@pytest.mark.parametrize("case", BAD)
def test_bad_inputs(attend, case):
    error, changes, message = BAD[case]
    with pytest.raises(error, match=f"^{message}$") as caught:
        attend(**good(**changes))
    assert "\n" not in str(caught.value)


@each_with_dropout
@pytest.mark.parametrize("dropout", [1.0, 1, -0.1, 1.5, math.nan, math.inf, "0.1", None])
def test_bad_dropout(attend, dropout):
    with pytest.raises(
        ValueError, match=r"^dropout: expected a number in \[0, 1\), got "
    ) as caught:
        attend(**good(), dropout=dropout)
    assert str(caught.value).endswith(repr(dropout))


@pytest.mark.parametrize("size", [0, -3, 2.0, "3", None])
def test_bad_sizes(size):
    message = rf": expected an integer of at least 1, got {size!r}$"
    with pytest.raises(ValueError, match="^block_size" + message):
        online_softmax_attention(*make(), block_size=size)
    with pytest.raises(ValueError, match="^n_q" + message):
        causal_mask(size)
    with pytest.raises(ValueError, match="^n" + message):
        padding_mask(torch.tensor([1]), size)
    if size is not None:  # where None means n_q
        with pytest.raises(ValueError, match="^n_k" + message):
            causal_mask(3, size)


@pytest.mark.parametrize(
    "lengths, message",
    [
        (torch.tensor([1.0]), "lengths: expected an integer dtype, got torch.float32"),
        (torch.tensor([True]), "lengths: expected an integer dtype, got torch.bool"),
        (torch.tensor(3), r"lengths: expected shape \(B,\), got \(\)"),
        (torch.tensor([[3]]), r"lengths: expected shape \(B,\), got \(1, 1\)"),
    ],
)
def test_bad_lengths(lengths, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        padding_mask(lengths, 3)


# ---------------------------------------------------------------- the contract as a text


def test_examples_in_docstrings():
    results = doctest.testmod(attention)
    assert results.failed == 0
    assert results.attempted >= 10


@pytest.mark.parametrize(
    "name",
    [
        "scaled_dot_product_attention",
        "causal_mask",
        "padding_mask",
        "fast_attention",
        "online_softmax_attention",
    ],
)
def test_docstrings_name_source_and_chapter(name):
    assert name in attention.__all__
    text = " ".join(getattr(attention, name).__doc__.split())
    assert "chapter 02_attention" in text
    assert "ValueError" in text or "the same errors" in text or "errors are those of" in text
    assert "arXiv:" in text or name == "padding_mask"
