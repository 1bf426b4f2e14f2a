"""lib.sliding_window held to its contract.

What is right is said by `scaled_dot_product_attention` with the dense mask, `dense` below, and that
mask by Python loops. Sizes are distinct, so that no transposition hides.
"""

import doctest
import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lib import sliding_window
from lib.attention import MultiHeadAttention, scaled_dot_product_attention
from lib.sliding_window import (
    SlidingWindowAttention,
    count_pairs,
    gathered_window_attention,
    sliding_window_attention,
    window_mask,
)
from lib.teaching.measure import flops, peak_bytes

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
)
every_function = pytest.mark.parametrize(
    "attend", [sliding_window_attention, gathered_window_attention], ids=lambda f: f.__name__
)
OWN = ("global_query", "global_key", "global_value")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make(leading=(2, 3), n=37, d_k=5, d_v=7, *, seed=0, **options):
    options = {"dtype": torch.float64} | options
    return tuple(
        torch.randn(*leading, n, d, generator=rng(seed + i), dtype=torch.float64).to(**options)
        for i, d in enumerate((d_k, d_k, d_v))
    )


def draw(shape, share, seed=0):
    return torch.rand(shape, generator=rng(seed)) < share


def dense(q, k, v, window, *, dilation=1, global_mask=None, key_mask=None, **own):
    """The definition, over (B, h, n, d), with an n × n mask; masks of tokens are (B, n)."""
    is_global = None if global_mask is None else global_mask[:, None]
    mask = window_mask(q.shape[-2], window, dilation=dilation, global_mask=is_global)
    real = None if key_mask is None else key_mask[:, None, None]
    mask = mask if real is None else mask & real
    output = scaled_dot_product_attention(q, k, v, mask)
    if own:
        rows = scaled_dot_product_attention(*(own[name] for name in OWN), real)
        output = torch.where(is_global[..., None], rows, output)
    return output


def assert_close(got, want, atol=1e-13):
    torch.testing.assert_close(got, want, atol=atol, rtol=0)


def test_docstrings():
    results = doctest.testmod(sliding_window)
    assert results.failed == 0 and results.attempted >= 9


# The pattern


def by_hand(n, window, dilation, everywhere=()):
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        for step in range(-(window // 2), window // 2 + 1):
            if 0 <= i + step * dilation < n:
                mask[i, i + step * dilation] = True
        for j in everywhere:
            mask[i, j] = mask[j, i] = True
    return mask


@pytest.mark.parametrize("n", [1, 2, 7, 16])
@pytest.mark.parametrize("window", [2, 6, 14, 40])
@pytest.mark.parametrize("dilation", [1, 2, 3, 20])
def test_the_mask_and_the_count_of_pairs(n, window, dilation):
    want = by_hand(n, window, dilation)
    assert torch.equal(window_mask(n, window, dilation=dilation), want)
    assert count_pairs(n, window, dilation=dilation) == want.sum()
    everywhere = [0, n - 1] if n > 1 else [0]
    is_global = torch.zeros(2, n, dtype=torch.bool)
    is_global[1, everywhere] = True
    for mask in (is_global, 5 * is_global.int()):
        got = window_mask(n, window, dilation=dilation, global_mask=mask)
        assert torch.equal(got[0], want)
        assert torch.equal(got[1], by_hand(n, window, dilation, everywhere))


@pytest.mark.parametrize("n, w", [(4, 2), (4, 6), (100, 2), (100, 64), (4096, 512)])
def test_the_closed_form_of_the_paper_s_pattern(n, w):
    assert count_pairs(n, w) == n * (w + 1) - (w // 2) * (w // 2 + 1)


# The value


@every_function
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 48, 67])
@pytest.mark.parametrize("window", [2, 10, 32, 40, 200])
def test_equals_dense_attention_with_the_band(attend, n, window):
    """Among them n < w, n a multiple of the block and not, and a single token."""
    inputs = make(n=n)
    for dilation in (1, 2, 3, 100):
        got = attend(*inputs, window, dilation=dilation)
        assert_close(got, dense(*inputs, window, dilation=dilation))


@every_function
@pytest.mark.parametrize("n", [1, 17, 48])
@pytest.mark.parametrize("window", [2, 12, 40])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_dense_attention_with_global_tokens(attend, n, window, dilation, share, padded):
    inputs = make(n=n)
    options = {"dilation": dilation, "global_mask": draw((2, n), share)}
    if padded:
        options["key_mask"] = draw((2, n), 0.6, seed=1)
    assert_close(attend(*inputs, window, **options), dense(*inputs, window, **options))
    own = dict(zip(OWN, make(n=n, seed=10), strict=True))
    got = attend(*inputs, window, **options, **own)
    assert_close(got, dense(*inputs, window, **options, **own))
    if share == 1.0 and not padded:
        assert_close(got, scaled_dot_product_attention(*own.values()))


@every_function
@pytest.mark.parametrize("lengths", [(30, 37), (1, 11), (0, 20)])
def test_padding_has_no_influence(attend, lengths):
    q, k, v = make()
    key_mask = torch.arange(37) < torch.tensor(lengths)[:, None]
    got = attend(q, k, v, 8, key_mask=key_mask)
    assert_close(got, dense(q, k, v, 8, key_mask=key_mask))
    other_k, other_v = (torch.where(key_mask[:, None, :, None], x, 1e30) for x in (k, v))
    assert torch.equal(attend(q, other_k, other_v, 8, key_mask=key_mask), got)
    assert torch.equal(attend(q, k, v, 8, key_mask=key_mask.long() * 3), got)
    assert not torch.equal(attend(q, k, v, 8), got)


@every_function
def test_masks_match_the_leading_dimensions_from_the_left(attend):
    """Also where B = h: a mask (B, n) is one for each sample, never one for each head (D20)."""
    inputs = make((3, 3))
    for name in ("global_mask", "key_mask"):
        mask = draw((3, 37), 0.5)
        got = attend(*inputs, 8, **{name: mask})
        for i in range(3):
            assert_close(got[i], attend(*(x[i] for x in inputs), 8, **{name: mask[i]}))
        assert torch.equal(attend(*inputs, 8, **{name: mask[:, None]}), got)
        heads = draw((1, 3, 37), 0.5, seed=1)
        got = attend(*inputs, 8, **{name: heads})
        for i in range(3):
            of_head = [x[:, i] for x in inputs]
            assert_close(got[:, i], attend(*of_head, 8, **{name: heads[0, i]}))
        one = attend(*inputs, 8, **{name: mask[0]})
        assert torch.equal(attend(*inputs, 8, **{name: mask[:1, None]}), one)


@every_function
@pytest.mark.parametrize("shape", [(37,), (3, 37)])
def test_masks_of_different_depth_combine(attend, shape):
    q, k, v = make((3, 3))
    key_mask, global_mask = draw(shape, 0.7), draw((3, 3, 37), 0.2, seed=1)
    got = attend(q, k, v, 8, key_mask=key_mask, global_mask=global_mask)
    for i, j in itertools.product(range(3), range(3)):
        real = key_mask if len(shape) == 1 else key_mask[i]
        row = attend(q[i, j], k[i, j], v[i, j], 8, key_mask=real, global_mask=global_mask[i, j])
        assert_close(got[i, j], row)


@every_function
@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 1, 3), (0,), (2, 0)], ids=str)
def test_any_leading_dimensions(attend, leading):
    inputs = make(leading)
    want = scaled_dot_product_attention(*inputs, window_mask(37, 8))
    assert_close(attend(*inputs, 8), want)
    shared = draw((37,), 0.8)
    want = scaled_dot_product_attention(*inputs, window_mask(37, 8) & shared)
    assert_close(attend(*inputs, 8, key_mask=shared), want)


@every_function
def test_equal_keys_give_the_mean_of_the_window(attend):
    q, _, v = make((), n=9, d_v=1)
    got = attend(q, torch.zeros_like(q), v, 4, dilation=2)
    for i in range(9):
        near = [v[j] for j in range(i - 4, i + 5, 2) if 0 <= j < 9]
        assert_close(got[i], sum(near) / len(near))


@every_function
def test_nothing_outside_the_window_is_seen(attend):
    q, k, v = make((), n=41)
    base = attend(q, k, v, 6, dilation=2)
    for changed in (0, 20, 40):
        other_k, other_v = k.clone(), v.clone()
        other_k[changed] += 1.0
        other_v[changed] -= 1.0
        moved = (attend(q, other_k, other_v, 6, dilation=2) - base).abs().amax(-1) > 1e-6
        assert torch.equal(moved, window_mask(41, 6, dilation=2)[:, changed])


# Rows without keys, derivatives


@every_function
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_query_without_keys_is_zero_in_value_and_gradient(attend, dtype):
    inputs = [x.requires_grad_() for x in make((2,), dtype=dtype, d_v=5)]
    key_mask = torch.ones(2, 37, dtype=torch.bool)
    key_mask[1, 10:] = False
    output = attend(*inputs, 8, key_mask=key_mask)
    assert (output[1, 14:] == 0).all() and (output[1, :14].abs().amax(-1) > 0).all()
    output.sum().backward()
    for x in inputs:
        assert x.grad.isfinite().all()
    assert (inputs[0].grad[1, 14:] == 0).all()
    for x in inputs[1:]:
        assert (x.grad[1, 10:] == 0).all()


@every_function
@pytest.mark.parametrize("kind", ["plain", "dilated", "global", "own"])
def test_first_and_second_derivatives(attend, kind):
    inputs = [x.requires_grad_() for x in make((2,), n=7, d_k=2, d_v=3)]
    options = {"key_mask": torch.tensor([1, 1, 1, 1, 0, 1, 0]), "dilation": 1 + (kind == "dilated")}
    if kind in ("global", "own"):
        options["global_mask"] = torch.tensor([0, 0, 1, 0, 0, 0, 0])
    if kind == "own":
        inputs += [x.requires_grad_() for x in make((2,), n=7, d_k=2, d_v=3, seed=10)]

    def run(q, k, v, *own):
        return attend(q, k, v, 2, **options, **dict(zip(OWN, own, strict=bool(own))))

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("masked", [False, True])
@every_function
def test_values_and_gradients_in_every_dtype(attend, device, dtype, masked):
    exact = make(n=67, d_v=5)
    options = {"key_mask": draw((2, 67), 0.8), "global_mask": draw((2, 67), 0.1, 1)}
    options = options if masked else {}
    here = {name: mask.to(device) for name, mask in options.items()}
    inputs = [x.to(device, dtype).requires_grad_() for x in exact]
    rounded = [x.detach().double().cpu().requires_grad_() for x in inputs]
    got, want = attend(*inputs, 12, **here), dense(*rounded, 12, **options)
    assert got.dtype == dtype
    weight = make(n=67, d_v=5, seed=20)[2]
    (got * weight.to(device, dtype)).sum().backward()
    (want * weight.to(dtype)).sum().backward()
    tolerance = {torch.float32: 3e-6, torch.bfloat16: 4e-2, torch.float16: 5e-3}[dtype]
    assert_close(got.double().cpu(), want, atol=tolerance)
    for x, y in zip(inputs, rounded, strict=True):
        assert_close(x.grad.double().cpu(), y.grad, atol=2 * tolerance)


@every_function
def test_autocast(attend):
    inputs, options = make(dtype=torch.float32, d_v=5), {"global_mask": draw((2, 37), 0.1)}
    want = attend(*inputs, 8, **options)
    with torch.autocast("cpu", torch.bfloat16):
        got = attend(*inputs, 8, **options)
        none = attend(*make((0,), dtype=torch.float32), 8)
    assert got.dtype == none.dtype == torch.bfloat16
    assert_close(got.float(), want, atol=3e-2)


@every_function
def test_dropout_is_on_the_weights_and_unbiased(attend):
    draws, n = 4000, 9
    q, k, _ = make((), n=n, dtype=torch.float32)
    v = torch.eye(n)  # so that the output is the weights
    weights = attend(q, k, v, 4)
    torch.manual_seed(0)
    got = attend(*(x.expand(draws, *x.shape) for x in (q, k, v)), 4, dropout=0.25)
    kept = got != 0
    assert torch.equal(kept.any(0), weights != 0)
    torch.testing.assert_close(got, torch.where(kept, weights / 0.75, 0.0), atol=1e-6, rtol=0)
    share = kept[:, weights != 0].double().mean()
    assert abs(share - 0.75) < 5 * math.sqrt(0.75 * 0.25 / (draws * count_pairs(n, 4)))
    torch.manual_seed(0)
    is_global = torch.arange(n) == 8
    got = attend(
        *(x.expand(draws, *x.shape) for x in (q, k, v)), 4, dropout=0.25, global_mask=is_global
    )
    share = (got[:, 8] != 0).double().mean()
    assert abs(share - 0.75) < 5 * math.sqrt(0.75 * 0.25 / (draws * n))


# Cost


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


def cost_options(n, kind):
    if kind == "plain":
        return {}
    is_global = torch.zeros(2, n, dtype=torch.bool)
    is_global[:, [0, n // 3, n // 2]] = True
    return {"global_mask": is_global, "key_mask": torch.arange(n) < n - 7}


@every_function
@pytest.mark.parametrize("kind", ["plain", "masked"])
@pytest.mark.parametrize("dilation", [1, 3])
def test_no_tensor_is_n_by_n(attend, kind, dilation):
    n, window = 2003, 16
    inputs = [x.requires_grad_() for x in make(n=n, d_k=3, d_v=3, dtype=torch.float32)]
    rows = 2 * 3 * n
    with LargestTensor() as seen:
        attend(*inputs, window, dilation=dilation, **cost_options(n, kind)).sum().backward()
    assert seen.largest <= rows * 30 * 3  # gathered keys: w + 1, and 3 global ones, of 3 features
    assert seen.largest < n * n / 4
    if attend is sliding_window_attention:
        assert any("flash_attention" in name and "backward" in name for name in seen.operators)
    with LargestTensor() as seen:  # the positive control
        scaled_dot_product_attention(*inputs, window_mask(n, window))
    assert seen.largest == rows * n


@every_function
@pytest.mark.parametrize("kind", ["plain", "masked"])
def test_memory_grows_with_n_and_not_with_its_square(attend, kind, monkeypatch):
    window = 32
    monkeypatch.setattr(sliding_window, "_PIECE", 16)  # what one piece takes does not grow at all

    def run(*inputs):
        n = inputs[0].shape[-2]
        attend(*inputs, window, **cost_options(n, kind)).sum().backward()

    def peak(n):
        inputs = make(n=n, d_k=8, d_v=8, dtype=torch.float32)
        return peak_bytes(run, *(x.requires_grad_() for x in inputs))

    small, large = peak(1024), peak(8192)
    exponent = math.log(large / small, 8)
    assert 0.9 < exponent < 1.1
    assert large < 4 * 8192**2  # not one n × n table of float32, though 6 heads and a backward pass

    def run_dense(*inputs):  # the positive control
        scaled_dot_product_attention(*inputs, window_mask(inputs[0].shape[-2], window))

    control = [peak_bytes(run_dense, *make((), n, 8, 8, dtype=torch.float32)) for n in (256, 2048)]
    assert math.log(control[1] / control[0], 8) > 1.8


def test_work_grows_with_n_and_with_the_window():
    def count(n, window):
        inputs = make(n=n, dtype=torch.float32, d_v=5)
        return flops(lambda: sliding_window_attention(*inputs, window))

    # 4 n d operations for a key that every query meets: two half windows and a block of 16
    middle = 6 * 4 * 5 * (4096 - 64) * (2 * 32 + 16)
    ends = 2 * 6 * 4 * 5 * 32 * (2 * 32)
    assert count(4096, 64) == middle + ends
    assert 3.9 < count(4096, 64) / count(1024, 64) < 4.1
    assert 1.9 < count(4096, 256) / count(4096, 128) < 2.1


def test_without_padding_no_mask_has_a_row_for_every_query():
    """Beside inputs and output little is made: no padded copies, and one mask for all blocks."""
    inputs = make((1, 4), n=2048, d_k=8, d_v=8, dtype=torch.float32)

    def peak(**options):
        return peak_bytes(lambda: sliding_window_attention(*inputs, 32, **options))

    output = inputs[2].numel() * 4
    assert peak() < 3 * output
    padded = peak(key_mask=torch.ones(2048, dtype=torch.bool))  # the positive control
    assert padded > 4 * output


@pytest.mark.parametrize("n", [49, 63, 64, 65, 80, 81, 95, 97, 127])
@pytest.mark.parametrize("wants_gradient", [False, True])
def test_blocks_and_ends_meet_at_every_length(n, wants_gradient):
    query, key, value = make((3,), n=n, d_k=5, d_v=7)
    query.requires_grad_(wants_gradient)
    want = scaled_dot_product_attention(query, key, value, window_mask(n, 32))
    got = sliding_window_attention(query, key, value, 32)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


# The backward pass, piece by piece


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(sliding_window, "_PIECE", 64)


@pytest.mark.parametrize("n", [81, 97, 333])
@pytest.mark.parametrize("wanted", [(0, 1, 2), (0,), (1, 2)], ids=str)
@pytest.mark.usefixtures("small_pieces")
def test_gradients_of_pieces_add_up(n, wanted):
    exact = make(n=n, d_k=5, d_v=7)
    inputs = [x.float().requires_grad_(i in wanted) for i, x in enumerate(exact)]
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    weight = make(n=n, d_v=7, seed=20)[2]
    output = sliding_window_attention(*inputs, 32)
    assert "_InTurnBackward" in tensor_graph(output)
    (output * weight.float()).sum().backward()
    (scaled_dot_product_attention(*doubles, window_mask(n, 32)) * weight).sum().backward()
    for i, (x, y) in enumerate(zip(inputs, doubles, strict=True)):
        assert (x.grad is not None) == (i in wanted)
        if i in wanted:
            torch.testing.assert_close(x.grad.double(), y.grad, rtol=0, atol=1e-5)


def tensor_graph(output):
    """The nodes that made a tensor, by the names of their classes."""
    nodes, waiting = {}, [output.grad_fn]
    while waiting:
        node = waiting.pop()
        nodes[type(node).__name__] = node
        waiting += [before for before, _ in node.next_functions if before is not None]
    return nodes


def test_the_backward_pass_in_turn_by_differences(monkeypatch):
    monkeypatch.setattr(sliding_window, "_PIECE", 10)  # two blocks and a half
    inputs = [x[0, :1].requires_grad_() for x in make(n=19, d_k=2, d_v=3)]
    assert all(x.shape[:2] == (1, 19) for x in inputs)

    def run(*inputs):
        return sliding_window._InTurn.apply(*inputs, 2, 4)

    assert_close(run(*inputs), scaled_dot_product_attention(*inputs, window_mask(19, 4)))
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.usefixtures("small_pieces")
def test_a_second_derivative_is_there_in_float64_and_refused_elsewhere():
    query, key, value = make((1,), n=97, d_k=2, d_v=3)
    query.requires_grad_()
    for attend, arguments in (
        (sliding_window_attention, (32,)),
        (scaled_dot_product_attention, (window_mask(97, 32),)),
    ):
        output = attend(query, key, value, *arguments)
        (slope,) = torch.autograd.grad(output.square().sum(), query, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), query)
        if attend is sliding_window_attention:
            got = second
    assert second.abs().max() > 1e-3
    assert_close(got, second)
    inputs = (query.detach().float().requires_grad_(), key.float(), value.float())
    output = sliding_window_attention(*inputs, 32)
    (slope,) = torch.autograd.grad(output.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


def test_dropout_where_there_are_gradients_and_many_blocks():
    q, k, _ = make((1,), n=97, dtype=torch.float32)
    v = torch.eye(97).expand(1, -1, -1)  # so that the output is the weights
    q.requires_grad_()
    torch.manual_seed(0)
    got = sliding_window_attention(q, k, v, 32, dropout=0.5).detach()
    weights = sliding_window_attention(q, k, v, 32).detach()
    share = (got != 0).float().sum() / (weights != 0).float().sum()
    assert 0.45 < share < 0.55
    torch.testing.assert_close(got, torch.where(got != 0, 2 * weights, 0.0), rtol=0, atol=1e-6)


def test_transforms_go_through_many_blocks():
    query, key, value = make((2,), n=97, d_k=2, d_v=3, dtype=torch.float32)

    def f(query, key, value):
        return sliding_window_attention(query, key, value, 32).square().sum()

    got = torch.func.vmap(torch.func.grad(f))(query, key, value)
    query.requires_grad_()
    (want,) = torch.autograd.grad(f(query, key, value), query)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_gradients_under_autocast():
    inputs = [x.requires_grad_() for x in make(n=97, dtype=torch.float32, d_v=5)]
    with torch.autocast("cpu", torch.bfloat16):
        output = sliding_window_attention(*inputs, 32)
    assert output.dtype == torch.bfloat16
    kept = tensor_graph(output)["_InTurnBackward"].saved_tensors
    assert {x.dtype for x in kept} == {torch.bfloat16}  # and the backward pass computes with these
    output.float().square().sum().backward()
    got = [x.grad.clone() for x in inputs]
    sliding_window_attention(*inputs, 32).square().sum().backward()
    for x, both in zip(got, (x.grad for x in inputs), strict=True):
        assert x.dtype == torch.float32 and x.abs().max() > 0.1
        assert_close(x, both - x, atol=0.1)


def test_the_backward_pass_needs_little_beside_the_gradients():
    inputs = [x.requires_grad_() for x in make((1, 4), n=16384, d_k=8, d_v=8, dtype=torch.float32)]
    size = inputs[0].nbytes

    def run(*inputs, **options):
        output = sliding_window_attention(*inputs, 32, **options)
        torch.autograd.grad(output, inputs, torch.ones(1).expand_as(output))

    assert peak_bytes(run, *inputs) < 6 * size  # the output, three gradients, one piece
    masked = peak_bytes(lambda *x: run(*x, key_mask=torch.ones(16384, dtype=torch.bool)), *inputs)
    assert masked > 8 * size  # the positive control: all pieces at once


@pytest.mark.parametrize("wants_gradient", [False, True])
def test_many_blocks_compile_in_one_graph(wants_gradient):
    torch._dynamo.reset()
    compiled = torch.compile(sliding_window_attention, fullgraph=True, backend="eager")
    inputs = [x.requires_grad_(wants_gradient) for x in make((1,), n=97, dtype=torch.float32)]
    want = sliding_window_attention(*inputs, 32)
    torch.testing.assert_close(compiled(*inputs, 32), want, rtol=0, atol=1e-5)
    torch._dynamo.reset()


@pytest.mark.parametrize("n", [192, 193, 207, 208, 300])
def test_blocks_smaller_than_what_the_first_queries_need(n):
    inputs = make((2,), n=n, d_k=3, d_v=4)
    want = scaled_dot_product_attention(*inputs, window_mask(n, 128))
    got = sliding_window_attention(*inputs, 128)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_compiles_in_one_graph_without_global_tokens():
    torch._dynamo.reset()
    compiled = torch.compile(sliding_window_attention, fullgraph=True, backend="eager")
    inputs, key_mask = make(), draw((2, 37), 0.7)
    got = compiled(*inputs, 8, key_mask=key_mask)
    assert_close(got, dense(*inputs, 8, key_mask=key_mask))
    torch._dynamo.reset()


# Bad inputs

MASK = torch.ones(2, 37, dtype=torch.bool)
BAD = {
    "odd": ({"window": 7}, "window: expected an even integer of at least 2, got 7"),
    "zero": ({"window": 0}, "window: expected an even integer of at least 2, got 0"),
    "float": ({"window": 8.0}, "window: expected an even integer of at least 2, got 8.0"),
    "dilation": ({"dilation": 0}, "dilation: expected an integer of at least 1, got 0"),
    "dilation true": ({"dilation": True}, "dilation: expected an integer of at least 1, got True"),
    "dropout": ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
    "lengths": (
        {"key": make(n=5)[1], "value": make(n=5)[2]},
        "key: expected query's n = 37, got 5",
    ),
    "features": ({"key": make(d_k=4)[1]}, "key: expected query's d_k = 5, got 4"),
    "floating mask": (
        {"key_mask": MASK.float()},
        "key_mask: expected a boolean or integer dtype, got torch.float32",
    ),
    "mask device": (
        {"global_mask": MASK.to("meta")},
        "global_mask: expected query's device cpu, got meta",
    ),
    "mask n": (
        {"global_mask": MASK[:, 1:]},
        r"global_mask: expected shape \(the first of \(2, 3\), each in full or 1, n = 37\), got "
        r"\(2, 36\)",
    ),
    "mask batch": ({"key_mask": MASK[:1].expand(3, -1)}, r"key_mask: .*, got \(3, 37\)"),
    "mask too deep": ({"key_mask": MASK[:, None, None]}, r"key_mask: .*, got \(2, 1, 1, 37\)"),
    "mask 0-d": ({"key_mask": MASK[0, 0]}, r"key_mask: .*, got \(\)"),
    "own": (
        {"global_mask": MASK, "global_query": make()[0]},
        "global_query, global_key, global_value: expected all three or none, got global_query",
    ),
    "own shape": (
        {"global_mask": MASK, **dict(zip(OWN, make(d_v=8), strict=True))},
        r"global_value: expected the shape \(2, 3, 37, 7\), got \(2, 3, 37, 8\)",
    ),
    "own dtype": (
        {"global_mask": MASK, **dict(zip(OWN, make(dtype=torch.float32), strict=True))},
        "global_query: expected the dtype torch.float64, got torch.float32",
    ),
}


@every_function
@pytest.mark.parametrize("case", BAD)
def test_bad_inputs(attend, case):
    changes, message = BAD[case]
    query, key, value = make()
    with pytest.raises(ValueError, match=f"^{message}$"):
        attend(**{"query": query, "key": key, "value": value, "window": 8} | changes)


@every_function
def test_what_is_no_tensor(attend):
    with pytest.raises(TypeError, match=r"^key_mask: expected a torch.Tensor, got list$"):
        attend(*make(), 8, key_mask=[True])
    own = dict(zip(OWN, ([], [], []), strict=True))
    with pytest.raises(TypeError, match=r"^global_query: expected a torch.Tensor, got list$"):
        attend(*make(), 8, global_mask=MASK, **own)


def test_bad_sizes_of_the_pattern():
    for function in (window_mask, count_pairs):
        with pytest.raises(ValueError, match=r"^n: expected an integer of at least 1, got 0$"):
            function(0, 2)
        with pytest.raises(ValueError, match=r"^window: expected an even integer .*, got 3$"):
            function(5, 3)
    with pytest.raises(ValueError, match=r"^global_mask: expected shape .*n = 5\), got \(4,\)$"):
        window_mask(5, 2, global_mask=torch.ones(4, dtype=torch.bool))


# The module


@pytest.fixture
def module():
    torch.manual_seed(0)
    attend = SlidingWindowAttention(12, 3, 6, dilation=2).double()
    with torch.no_grad():
        for parameter in attend.parameters():
            parameter.normal_()
    return attend


X = torch.randn(2, 23, 12, generator=rng(), dtype=torch.float64)


def test_without_global_tokens_it_is_multi_head_attention_with_the_band(module):
    plain = MultiHeadAttention(12, 3).double()
    plain.load_state_dict(module.state_dict(), strict=False)
    assert_close(module(X), plain(X, mask=window_mask(23, 6, dilation=2)))
    real = torch.arange(23) < torch.tensor([23, 14])[:, None]
    want = plain(X, mask=window_mask(23, 6, dilation=2) & real[:, None])
    want = torch.where(real[..., None], want, plain.output_projection.bias)
    for mask in (real, real.long()):
        assert_close(module(X, mask=mask), want)


def test_global_tokens_have_projections_of_their_own(module):
    mask = torch.ones(2, 23, dtype=torch.long)
    mask[0, [0, 9]] = mask[1, 4] = 2
    mask[1, 20:] = 0
    own = MultiHeadAttention(12, 3).double()
    state = {name.removeprefix("global_"): x for name, x in module.state_dict().items()}
    own.load_state_dict(state)  # global entries come last
    own.output_projection = module.output_projection
    everywhere = own(X, mask=(mask != 0)[:, None])
    plain = MultiHeadAttention(12, 3).double()
    plain.load_state_dict(module.state_dict(), strict=False)
    allowed = window_mask(23, 6, dilation=2, global_mask=mask == 2) & (mask != 0)[:, None]
    want = torch.where((mask == 2)[..., None], everywhere, plain(X, mask=allowed))
    want = torch.where((mask != 0)[..., None], want, module.output_projection.bias)
    got = module(X, mask=mask)
    assert_close(got, want, atol=1e-12)
    got.square().sum().backward()
    assert all(p.grad.abs().max() > 1e-3 for n, p in module.named_parameters() if "key_p" not in n)


def test_global_projections_begin_as_copies():
    module = SlidingWindowAttention(12, 3, 6, bias=True)
    for name in ("query", "key", "value"):
        ours = getattr(module, f"global_{name}_projection")
        theirs = getattr(module, f"{name}_projection")
        assert ours is not theirs and torch.equal(ours.weight, theirs.weight)
    assert SlidingWindowAttention(12, 3, 6, bias=False).global_key_projection.bias is None
    assert module.extra_repr() == "12, num_heads=3, dropout=0.0, window=6, dilation=1"


def test_dropout_only_in_training():
    torch.manual_seed(0)
    module = SlidingWindowAttention(12, 3, 6, dropout=0.5)
    x = X.float()
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_the_module_refuses(module):
    with pytest.raises(ValueError, match=r"^causal: expected False"):
        module(X, causal=True)
    with pytest.raises(ValueError, match=r"^cache: expected None"):
        module(X, cache=object())
    with pytest.raises(ValueError, match=r"^mask: expected shape \(2, 23\), got \(23,\)$"):
        module(X, mask=torch.ones(23, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^mask: expected a boolean or integer dtype"):
        module(X, mask=torch.ones(2, 23))
    with pytest.raises(ValueError, match=r"^x|query: expected shape"):
        module(X[0])
    with pytest.raises(ValueError, match=r"^window: expected an even integer"):
        SlidingWindowAttention(12, 3, 5)


# How the rows of a mask are run


@every_function
def test_rows_of_masks_that_are_alike_are_one_pass(attend, monkeypatch):
    """In value as row by row; and a single pass only where all rows of both masks are alike."""
    inputs = make((3, 2))
    alike = draw((37,), 0.2).expand(3, 37)
    other = alike.clone()
    other[2, 5] = ~other[2, 5]
    passes = []
    row = sliding_window._attend_row
    monkeypatch.setattr(sliding_window, "_attend_row", lambda *a: passes.append(1) or row(*a))
    for masks, want in [
        ({"global_mask": alike}, 1),
        ({"global_mask": alike, "key_mask": torch.ones(3, 37, dtype=torch.bool)}, 1),
        ({"global_mask": other}, 3),
        ({"global_mask": alike, "key_mask": other}, 3),
        ({"key_mask": alike}, 3),  # without a global mask nothing is read from the device
    ]:
        passes.clear()
        got = attend(*inputs, 8, **masks)
        assert len(passes) == want
        assert_close(got, dense(*inputs, 8, **masks))
