"""lib.cache: with it a layer gives what it gives without it, and it refuses what it cannot do."""

import pytest
import torch

from lib.attention import MultiHeadAttention, padding_mask
from lib.cache import KVCache
from lib.layers import DecoderLayer, EncoderLayer
from tests.test_layers import randn, randomise

B, N, M, D, H = 3, 11, 7, 15, 5  # sequences, tokens, tokens of the memory, features, heads
STEPS = [[11], [1] * 11, [4, 1, 1, 3, 2], [10, 1]]  # how many tokens come at a time


def chunks(x, sizes):
    return x.split(sizes, dim=1)


def assert_equal(got, want):
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def step(layer, x, sizes, mask=None, **options):
    """Read x in parts, with a cache; `mask` (B, n_q or 1, N) is cut to what has been read."""
    cache, outputs = KVCache(N), []
    with torch.no_grad():
        for part in chunks(x, sizes):
            start, end = cache.length, cache.length + part.shape[1]
            seen = {}
            if mask is not None:
                rows = slice(start, end) if mask.shape[1] > 1 else slice(None)
                seen = {"mask": mask[:, rows, :end]}
            outputs.append(layer(part, cache=cache, causal=True, **seen, **options))
            assert cache.length == end
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("sizes", STEPS, ids=str)
@pytest.mark.parametrize("options", [{}, {"d_head": 4, "scaled": False, "bias": False}], ids=str)
def test_attention_in_steps_is_attention_at_once(sizes, options):
    attend = randomise(MultiHeadAttention(D, H, **options).double()).eval()
    x = randn(B, N, D)
    assert_equal(step(attend, x, sizes), attend(x, causal=True))


@pytest.mark.parametrize("sizes", STEPS, ids=str)
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_layers_in_steps(sizes, norm):
    x, memory = randn(B, N, D), randn(B, M, D, seed=1)
    real = padding_mask([M, 3, 5], M)[:, None]
    layer = randomise(EncoderLayer(D, H, 29, norm=norm).double()).eval()
    assert_equal(step(layer, x, sizes), layer(x, causal=True))
    layer = randomise(DecoderLayer(D, H, 29, norm=norm).double()).eval()
    got = step(layer, x, sizes, memory=memory, memory_mask=real)
    assert_equal(got, layer(x, memory, memory_mask=real))


@pytest.mark.parametrize("sizes", STEPS, ids=str)
def test_padding_on_the_left(sizes):
    """The mask goes on hiding it at every step; a row gives what it gives alone."""
    attend = randomise(MultiHeadAttention(D, H).double()).eval()
    x, pads = randn(B, N, D), [0, 3, 8]
    real = torch.stack([torch.arange(N) >= p for p in pads])[:, None]  # (B, 1, N)
    got = step(attend, x, sizes, mask=real)
    assert_equal(got, attend(x, mask=real, causal=True))
    for i, p in enumerate(pads):
        assert_equal(got[i, p:], attend(x[i : i + 1, p:], causal=True)[0])
    assert (got - step(attend, x, sizes)).abs().max() > 0.1  # control: the padding does differ


def test_weights_count_what_was_read():
    attend = randomise(MultiHeadAttention(D, H).double()).eval()
    x, cache = randn(B, N, D), KVCache(N)
    want, weights = attend(x, causal=True, return_weights=True)
    with torch.no_grad():
        attend(x[:, :8], causal=True, cache=cache)
        got, last = attend(x[:, 8:], causal=True, cache=cache, return_weights=True)
    assert last.shape == (B, H, 3, N)
    assert_equal(last, weights[:, :, 8:].detach())
    assert_equal(got, want[:, 8:].detach())


def test_a_bias_of_positions_counts_what_was_read():
    attend = randomise(MultiHeadAttention(D, H).double()).eval()
    x, bias, cache = randn(B, N, D), randn(1, H, N, N, seed=2), KVCache(N)
    want = attend(x, mask=bias, causal=True)
    with torch.no_grad():
        for i in range(N):
            row = bias[:, :, i : i + 1, : i + 1]
            got = attend(x[:, i : i + 1], mask=row, causal=True, cache=cache)
            assert_equal(got, want[:, i : i + 1].detach())


def test_the_memory_is_projected_once():
    """Later calls use what the first one was given; another memory needs another cache."""
    attend = randomise(MultiHeadAttention(D, H).double()).eval()
    x, memory, cache = randn(B, 2, D), randn(B, M, D, seed=1), KVCache(N)
    calls = []
    attend.key_projection.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        want = attend(x, memory)
        first = attend(x, memory, cache=cache)
        again = attend(x, torch.zeros_like(memory), cache=cache)
    assert_equal(first, want)
    assert_equal(again, want)
    assert len(calls) == 2  # without a cache, and the first time with one
    assert cache.length == 0  # nothing of the decoder's own was read


def test_selected_rows_go_on_where_they_were():
    layer = randomise(DecoderLayer(D, H, 29).double()).eval()
    x, memory, cache = randn(B, N, D), randn(B, M, D, seed=1), KVCache(N)
    rows = torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        want = layer(x[rows], memory[rows])
        layer(x[:, :6], memory, cache=cache)
        cache.select(rows)
        got = layer(x[rows, 6:], memory[rows], cache=cache)
    assert_equal(got, want[:, 6:])


def test_two_layers_keep_apart():
    layers = [randomise(EncoderLayer(D, H, 29).double(), seed=i).eval() for i in (0, 50)]
    x, cache = randn(B, N, D), KVCache(N)

    def run(x, **options):
        for layer in layers:
            x = layer(x, causal=True, **options)
        return x

    with torch.no_grad():
        got = torch.cat([run(part, cache=cache) for part in chunks(x, [5, 6])], dim=1)
    assert_equal(got, run(x).detach())


def test_room_is_taken_once():
    attend, cache = MultiHeadAttention(D, H), KVCache(4)
    places = set()
    with torch.no_grad():
        for i in range(4):
            attend(randn(B, 1, D, seed=i, dtype=torch.float32), cache=cache, causal=True)
            places.add(cache._kept[attend][0].data_ptr())
    assert len(places) == 1 and cache._kept[attend][0].shape == (B, H, 4, D // H)


def test_it_refuses():
    attend, cache = MultiHeadAttention(D, H), KVCache(3)
    x = randn(B, 2, D, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"^cache: expected torch.no_grad\(\), got keys that want"):
        attend(x, causal=True, cache=cache)
    with pytest.raises(ValueError, match=r"^cache: expected torch.no_grad\(\), got keys that want"):
        attend(x, x, cache=cache)
    with torch.no_grad():
        attend(x, causal=True, cache=cache)
        with pytest.raises(ValueError, match=r"^cache: expected at most 3 tokens, got 4$"):
            attend(x, causal=True, cache=cache)
        with pytest.raises(ValueError, match=r"^cache: expected 3 sequences of torch.float32 as"):
            attend(x[:1, :1], causal=True, cache=cache)
        assert cache.length == 2  # nothing was kept of what was refused
        with pytest.raises(ValueError, match=r"^cache: expected 3 sequences of torch.float32 as"):
            attend.double()(x[:, :1].double(), causal=True, cache=cache)
    for capacity in (0, -1, 2.0, True, None):
        with pytest.raises(ValueError, match=r"^capacity: expected an integer of at least 1, got"):
            KVCache(capacity)
