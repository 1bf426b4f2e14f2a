"""The memory that counts, and attention from it: with a table, and in tiles."""

import pytest
import torch

from lib.attention import causal_mask, scaled_dot_product_attention
from lib.teaching.tiles import SlowMemory, count_tiles, in_tiles, memory_of, standard


def draw(n_q, n_k, d=3, d_v=5):
    generator = torch.Generator().manual_seed(n_q)
    shapes = (n_q, d), (n_k, d), (n_k, d_v)
    return [3 * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def exact(x, causal):
    mask = causal_mask(len(x[0]), len(x[1])) if causal else None
    return scaled_dot_product_attention(*x, mask)


SIZES = [(7, 11, 3, 2), (11, 7, 2, 5), (6, 6, 3, 3), (5, 13, 8, 16), (1, 1, 1, 1)]


def test_memory():
    memory = SlowMemory(x=torch.zeros(5, 3))
    part = memory.load("x", slice(1, 3))
    part += 1
    assert memory.tensors["x"].sum() == 0
    memory.store("x", part, slice(0, 2))
    assert memory.tensors["x"][:2].sum() == 6 and memory.tensors["x"][2:].sum() == 0
    assert (memory.read, memory.written, memory.moved) == (6, 6, 12)


@pytest.mark.parametrize("causal", [False, True])
def test_standard(causal):
    for n_q, n_k, *_ in SIZES:
        x = draw(n_q, n_k)
        memory = memory_of(*x)
        torch.testing.assert_close(standard(memory, causal=causal), exact(x, causal))
        assert memory.written == 2 * n_q * n_k + 5 * n_q
        assert memory.read == 2 * n_q * n_k + 3 * n_q + 8 * n_k


@pytest.mark.parametrize("causal", [False, True])
def test_exact(causal):
    for n_q, n_k, block_q, block_k in SIZES:
        x = draw(n_q, n_k)
        memory = memory_of(*x)
        for _ in in_tiles(memory, block_q, block_k, causal=causal):
            pass
        torch.testing.assert_close(memory.tensors["O"], exact(x, causal))
        scores = x[0] @ x[1].T / 3**0.5
        if causal:
            scores = scores.masked_fill(~causal_mask(n_q, n_k), -torch.inf)
        torch.testing.assert_close(memory.tensors["L"], scores.logsumexp(-1))


def test_moved_without_a_mask():
    for n_q, n_k, block_q, block_k in SIZES:
        memory = memory_of(*draw(n_q, n_k))
        last = list(in_tiles(memory, block_q, block_k))[-1]
        tiles = -(-n_q // block_q)
        assert memory.read == 3 * n_q + 8 * n_k * tiles
        assert memory.written == 6 * n_q
        rows = last.queries.stop - last.queries.start
        assert last.moved == memory.moved - 6 * rows  # the last output comes after the last tile


def test_skips():
    for n_q, n_k, block_q, block_k in SIZES:
        tiles = list(in_tiles(memory_of(*draw(n_q, n_k)), block_q, block_k, causal=True))
        mask, want = causal_mask(n_q, n_k), {"whole": 0, "masked": 0, "skipped": 0}
        for i in range(0, n_q, block_q):
            for j in range(0, n_k, block_k):
                part = mask[i : i + block_q, j : j + block_k]
                want["whole" if part.all() else "masked" if part.any() else "skipped"] += 1
        assert count_tiles(n_q, n_k, block_q, block_k, True) == want
        masked = [tile.masked for tile in tiles]
        assert (masked.count(False), masked.count(True)) == (want["whole"], want["masked"])
        whole = count_tiles(n_q, n_k, block_q, block_k, False)
        assert whole == {"whole": sum(want.values()), "masked": 0, "skipped": 0}


def test_what_a_tile_tells():
    x = draw(7, 11)
    scores = x[0] @ x[1].T / 3**0.5
    for tile in in_tiles(memory_of(*x), 3, 4):
        met = scores[tile.queries, : tile.keys.stop]
        torch.testing.assert_close(tile.maximum, met.amax(-1))
        p = torch.exp(met - met.amax(-1, keepdim=True))
        torch.testing.assert_close(tile.total, p.sum(-1))
        torch.testing.assert_close(tile.accumulator, p @ x[2][: tile.keys.stop])


def test_refusals():
    with pytest.raises(ValueError, match=r"^block_k: expected an integer of at least 1, got 0$"):
        next(in_tiles(memory_of(*draw(2, 3)), 1, 0))
    with pytest.raises(ValueError, match=r"^key: expected shape \(n, d\), got \(3,\)$"):
        memory_of(torch.ones(2, 3), torch.ones(3), torch.ones(3, 3))
