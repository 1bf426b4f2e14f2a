"""lib.stepper: the fast step computes what the model does, and stands back where it might not."""

import doctest

import pytest
import torch
from torch import nn

from lib import stepper
from lib.cache import KVCache
from lib.generation import beam_search, greedy, sample
from lib.layers import RMSNorm
from lib.models.gpt2 import GPT2, GPT2Config
from lib.stepper import Stepper
from tests.models import parity

V, N, D, H = 47, 13, 21, 3
SIZES = [[N], [1] * N, [7, 1, 1, 1, 2, 1]]  # how many tokens are read at a time
# bfloat16 keeps 8 bits: a few roundings of logits, in another order of sums
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.06}


def gpt2(dtype=torch.float64, **options):
    config = {"d_ff": 29, "max_length": 19, "eos_token_id": None} | options
    model = GPT2(GPT2Config(V, d_model=D, num_layers=3, num_heads=H, **config))
    return parity.randomise(model).to(dtype).eval()


def tokens(batch=5, n=N):
    return torch.randint(V, (batch, n), generator=torch.Generator().manual_seed(1))


def padding(first, batch=5):
    """(B, first): rows with 0, 1, 2 … tokens of padding on the left."""
    return torch.arange(first) >= torch.arange(batch)[:, None] % first


def by_steps(step, ids, sizes):
    """The logits behind each part, and how many tokens were read until there."""
    found, end = [], 0
    for part in ids.split(sizes, dim=1):
        found.append(step.read(part))
        end += part.shape[1]
        assert step.length == end
    return torch.stack(found, dim=1)


def by_model(model, ids, sizes, mask=None):
    """The same of the model itself: one pass over everything that is known at the end."""
    ends = torch.tensor(sizes).cumsum(0) - 1
    with torch.no_grad():
        return model(ids, attention_mask=mask)[:, ends]


def assert_near(got, want, tolerance):
    assert got.shape == want.shape and got.dtype == want.dtype
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert error <= tolerance, error


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu", "relu"])
def test_equals_the_model(dtype, sizes, activation):
    model, ids = gpt2(dtype, activation=activation), tokens()
    got = by_steps(model.stepper(N), ids, sizes)
    assert_near(got, by_model(model, ids, sizes), TOLERANCE[dtype])
    assert not got.requires_grad


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", [[7, 1, 1, 1, 1, 1, 1], [7, 3, 1, 2], [5, 8]], ids=str)
@pytest.mark.parametrize("kind", [torch.bool, torch.int64])
def test_padding_is_hidden_and_not_counted(dtype, sizes, kind):
    model, ids, real = gpt2(dtype), tokens(), padding(sizes[0])
    mask = torch.cat([real, torch.ones(5, N - sizes[0], dtype=torch.bool)], dim=1)
    got = by_steps(model.stepper(N, real.to(kind)), ids, sizes)
    assert_near(got, by_model(model, ids, sizes, mask), TOLERANCE[dtype])
    other = ids.masked_fill(~mask, 3)
    assert torch.equal(by_steps(model.stepper(N, real), other, sizes), got)
    bare = by_model(model, ids, sizes)
    assert (bare - got)[1:].abs().max() > 0.1 * bare.abs().max()  # control: it does matter


def test_a_mask_of_real_tokens_alone_is_none():
    model, ids = gpt2(), tokens()
    real = torch.ones_like(ids[:, :7])
    sizes = [7, 1, 1, 1, 1, 1, 1]
    got, want = (by_steps(model.stepper(N, mask), ids, sizes) for mask in (real, None))
    assert torch.equal(got, want)


@pytest.mark.parametrize("padded", [False, True])
def test_rows_are_selected(padded):
    model, ids, rows = gpt2(), tokens(), torch.tensor([4, 1, 1, 0])
    real = padding(7) if padded else torch.ones(5, 7, dtype=torch.bool)
    mask = torch.cat([real, torch.ones(5, 6, dtype=torch.bool)], dim=1)
    step = model.stepper(N, real)
    step.read(ids[:, :7])
    step.select(rows)
    want = by_model(model, ids[rows], [7, 6], mask[rows])[:, 1]
    assert_near(step.read(ids[rows, 7:]), want, 1e-10)
    early = model.stepper(N, real)  # before a token is read only the mask has rows
    early.select(rows)
    assert_near(
        early.read(ids[rows, :7]), by_model(model, ids[rows], [7, 6], mask[rows])[:, 0], 1e-10
    )


def test_biases_may_be_missing():
    model, ids = gpt2(), tokens()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            module.bias = None
    assert_near(by_steps(model.stepper(N), ids, SIZES[2]), by_model(model, ids, SIZES[2]), 1e-10)


def test_the_next_one_has_the_new_weights():
    """What is packed is packed when a stepper is made: training between two texts is seen."""
    model, ids = gpt2(), tokens()
    before = by_steps(model.stepper(N), ids, [N])
    parity.randomise(model, seed=5)
    after = by_steps(model.stepper(N), ids, [N])
    assert_near(after, by_model(model, ids, [N]), 1e-10)
    assert (after - before).abs().max() > 0.1 * before.abs().max()


# What writes


@pytest.mark.parametrize("write", [greedy, sample, beam_search])
@pytest.mark.parametrize("padded", [False, True])
def test_what_is_written_is_what_the_model_writes(monkeypatch, write, padded):
    """In training mode too, as dropout is off while it writes; and it is the stepper that does."""
    model, ids = gpt2().train(), tokens(n=7)
    inputs = (
        {"input_ids": ids, "attention_mask": padding(7).long()} if padded else {"input_ids": ids}
    )
    read = []
    original = Stepper.read
    monkeypatch.setattr(Stepper, "read", lambda *x: read.append(x[1].shape) or original(*x))

    def run(**options):
        if write is sample:
            options["generator"] = torch.Generator().manual_seed(0)
        return write(model, **inputs, max_new_tokens=9, eos_token_id=[1, 2, 3], **options)

    got = run()
    rows = 20 if write is beam_search else 5
    assert read[:2] == [(rows, 7), (rows, 1)]
    del read[:]
    assert torch.equal(got, run(use_cache=False)) and not read
    handle = model.layers[0].register_forward_hook(lambda *x: None)
    assert torch.equal(got, run()) and not read  # the model itself, with its cache
    handle.remove()
    assert model.training


def listen(model, name, register):
    getattr(model.get_submodule(name), register)(lambda *x: None)


class Adapted(nn.Linear):
    """As an adapter of low rank would be: a linear map, and more."""

    def forward(self, x):
        return 2 * super().forward(x)


class Child(GPT2):
    def encode(self, *inputs, **options):
        return 2 * super().encode(*inputs, **options)


def replace(model, name, module):
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def halve(model):
    model.layers[0].to(torch.float32)


ODD = {
    "a hook": lambda m: listen(m, "layers.1.attention.query_projection", "register_forward_hook"),
    "a hook before": lambda m: listen(m, "layers.1", "register_forward_pre_hook"),
    "a hook on all of it": lambda m: listen(m, "", "register_forward_hook"),
    "adapted": lambda m: replace(m, "layers.2.feed_forward.expand", Adapted(D, 29)),
    "another norm": lambda m: replace(m, "norm", RMSNorm(D).double()),
    "a map for a norm": lambda m: replace(m, "norm", nn.Linear(D, D).double()),
    "another norm inside": lambda m: replace(m, "layers.0.attention_norm", RMSNorm(D).double()),
    "a forward of its own": lambda m: setattr(m.layers[0], "forward", lambda x, *y, **z: x),
    "another method": lambda m: setattr(m.layers[0], "_add", lambda *x: x[2]),
    "post-norm": lambda m: setattr(m.layers[1], "norm", "post"),
    "no scale": lambda m: setattr(m.layers[1].attention, "scaled", False),
    "a gate": lambda m: setattr(m.layers[1].feed_forward, "gate", nn.Linear(D, 29).double()),
    "two dtypes": halve,
    "words of bounded length": lambda m: setattr(m.word, "max_norm", 1.0),
    "one bias missing": lambda m: setattr(m.layers[1].attention.key_projection, "bias", None),
    "parametrised": lambda m: torch.nn.utils.parametrizations.weight_norm(
        m.layers[0].attention.output_projection
    ),
    "another device": lambda m: m.to("meta"),
}


@pytest.mark.parametrize("what", ODD)
def test_it_stands_back(what):
    model = gpt2()
    assert isinstance(model.stepper(N), Stepper)
    ODD[what](model)
    assert model.stepper(N) is None


def test_it_stands_back_from_a_child_a_listener_to_all_and_autocast():
    child = Child(gpt2().config).eval()
    assert child.stepper(N) is None
    ids = tokens(n=7)
    got, want = (greedy(child, ids, max_new_tokens=3, use_cache=c) for c in (True, False))
    assert torch.equal(got, want)
    handle = nn.modules.module.register_module_forward_hook(lambda *x: None)
    try:
        assert gpt2().stepper(N) is None
    finally:
        handle.remove()
    with torch.autocast("cpu"):
        assert gpt2().stepper(N) is None
    assert gpt2().stepper(N) is not None


def test_what_it_refuses():
    model, ids = gpt2(), tokens(2, 7)
    with pytest.raises(ValueError, match=r"^capacity: expected 1 to max_length = 19, got 20$"):
        model.stepper(20)
    with pytest.raises(ValueError, match=r"^capacity: expected 1 to max_length = 19, got 0$"):
        model.stepper(0)
    step = model.stepper(8)
    step.read(ids)
    with pytest.raises(ValueError, match=r"^ids: expected at most 8 tokens in all, got 9$"):
        step.read(ids[:, :2])
    assert step.length == 7
    with pytest.raises(ValueError, match=r"^ids: expected at most 3 tokens in all, got 7$"):
        model.stepper(3).read(ids)
    with pytest.raises(ValueError, match=r"^input_ids: expected torch.int64 or torch.int32"):
        model.stepper(8).read(ids.double())
    with pytest.raises(TypeError, match=r"^input_ids: expected a torch.Tensor, got list$"):
        model.stepper(8).read(ids.tolist())
    with pytest.raises(ValueError, match=r"^attention_mask: expected shape \(2, 7\), got \(2, 6\)"):
        model.stepper(8, torch.ones(2, 6).long()).read(ids)
    with pytest.raises(ValueError, match=r"^input_ids: expected device cpu, got meta$"):
        model.stepper(8).read(ids.to("meta"))


def test_the_cache_of_the_model_gives_the_same():
    """The two that stand side by side, step for step."""
    model, ids, cache = gpt2(), tokens(), KVCache(N)
    step = model.stepper(N)
    for part in ids.split([4, 1, 1, 3, 2, 1, 1], dim=1):
        with torch.no_grad():
            want = model(part, cache=cache)[:, -1]
        assert_near(step.read(part), want, 1e-12)


def test_docstrings():
    assert doctest.testmod(stepper).failed == 0
