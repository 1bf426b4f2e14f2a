"""lib.models.gpt2: against the official implementation, and held to its own contract."""

import dataclasses
import doctest
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from lib.cache import KVCache
from lib.checkpoints import CheckpointError
from lib.layers import ACTIVATIONS
from lib.losses import causal_lm_loss
from lib.models import gpt2
from lib.models.gpt2 import GPT2, GPT2Config
from tests.models import parity

transformers = parity.transformers()

V, N, D = 47, 13, 21  # sizes are odd, so that no transposition hides
OFFICIAL = {
    "vocab_size": V,
    "n_embd": D,
    "n_layer": 3,
    "n_head": 3,
    "n_inner": 29,
    "n_positions": 19,
}
SMALL = GPT2Config(V, d_model=D, num_layers=3, num_heads=3, d_ff=29, max_length=19)


def load(folder, dtype=torch.float64, **options):
    config = transformers.GPT2Config(**OFFICIAL | options)
    reference = parity.checkpoint(transformers.GPT2LMHeadModel(config), folder, dtype)
    return GPT2.from_pretrained(folder), reference


def batch(**options):
    return parity.batch(V, N, segments=False, **options)


# The official implementation


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
def test_equals_the_official_model(tmp_path, dtype, activation):
    ours, reference = load(tmp_path, dtype, activation_function=activation)
    parity.assert_parity(ours, reference, batch())


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("n", [1, 2, 19])
def test_equals_the_official_model_without_a_mask(tmp_path, dtype, n):
    ours, reference = load(tmp_path, dtype, n_inner=None)
    ids = parity.batch(V, 19, segments=False)["input_ids"][:, :n]
    parity.assert_parity(ours, reference, {"input_ids": ids})


def test_equals_the_official_model_padded_on_the_left(tmp_path):
    """Which must be told the positions that ours takes from the mask."""
    ours, reference = load(tmp_path)
    inputs = {name: x.flip(1) for name, x in batch().items()}
    real = inputs["attention_mask"]
    with torch.no_grad():
        want = reference(**inputs, position_ids=(real.cumsum(1) - 1).clamp(min=0)).logits
        got = ours(**inputs)
    error = (got - want)[real == 1].abs().max() / want[real == 1].abs().max()
    assert error < 1e-10
    unplaced = reference(**inputs).logits.detach()
    assert (unplaced - want)[real == 1].abs().max() > 0.01 * want.abs().max()  # control


def test_the_official_model_reads_what_we_write(tmp_path):
    ours = parity.randomise(GPT2(SMALL).double()).eval()
    ours.save_pretrained(tmp_path / "ours")
    reference, report = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    assert not any(report.values()), report
    parity.assert_parity(ours, reference.eval(), batch())


def test_official_files_leave_out_a_prefix_and_store_the_mask(tmp_path):
    """As in the repository of the smallest release: h.0.attn.bias is no bias, but a triangle."""
    ours, _ = load(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
    assert "lm_head.weight" not in tensors and tensors["h.0.attn.c_attn.weight"].shape == (D, 3 * D)
    for i in range(3):
        tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 19, 19, dtype=torch.float64).tril()
        tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4, dtype=torch.float64)
    save_file(tensors, path)
    again = GPT2.from_pretrained(tmp_path)
    ids = batch()["input_ids"]
    assert torch.equal(again(ids), ours(ids))


# Planted mistakes: each must be caught, and the tracer must name the first layer behind it


def forget_the_scale(model):
    for layer in model.layers:
        layer.attention.scaled = False


def take_the_exact_gelu(model):
    for layer in model.layers:
        layer.feed_forward.activation = "gelu"


def norm_last(model):
    for layer in model.layers:
        layer.norm = "post"


def see_the_future(model):
    for layer in model.layers:
        step = layer.forward
        layer.forward = lambda x, mask, causal, cache, step=step: step(x, mask, causal=False)


def shift_positions(model):
    model.position.weight.data.copy_(model.position.weight.data.roll(1, dims=0))


def forget_the_last_norm(model):
    model.norm = torch.nn.Identity()


def swap_queries_and_keys(model):
    for layer in model.layers:
        attention = layer.attention
        q, k = attention.query_projection, attention.key_projection
        attention.query_projection, attention.key_projection = k, q


def turn_a_square_matrix(model):
    """Conv1D taken for a linear map: only the square one loads without an error."""
    for layer in model.layers:
        weight = layer.attention.output_projection.weight
        weight.data.copy_(weight.data.mT.clone())


def untie_the_head(model):
    words = model.word.weight.roll(1, dims=0)
    model.forward = lambda input_ids, **masks: F.linear(model.encode(input_ids, **masks), words)


def take_berts_eps(model):
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-12


MISTAKES = {
    forget_the_scale: "layers.0.attention.output_projection",
    take_the_exact_gelu: "layers.0.feed_forward.contract",
    norm_last: "layers.0.attention.query_projection",
    see_the_future: "layers.0.attention.output_projection",
    shift_positions: "layers.0.attention_norm",
    forget_the_last_norm: "the output alone",
    swap_queries_and_keys: "layers.0.attention.query_projection",
    turn_a_square_matrix: "layers.0.attention.output_projection",
    untie_the_head: "the output alone",
    take_berts_eps: "layers.0.attention_norm",
}


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_the_harness_catches(tmp_path, dtype, mistake):
    ours, reference = load(tmp_path, dtype)
    parity.assert_parity(ours, reference, batch())
    with torch.no_grad():
        mistake(ours)
    with pytest.raises(AssertionError, match="differs by") as caught:
        parity.assert_parity(ours, reference, batch())
    assert str(caught.value).endswith(f"first in {MISTAKES[mistake]}")


# Our own contract


@pytest.fixture
def model():
    return parity.randomise(GPT2(SMALL).double()).eval()


def test_docstrings():
    assert doctest.testmod(gpt2).failed == 0


def test_no_output_depends_on_the_future(model):
    """With both controls of D40: the next output does move, and the other sequence does not."""
    ids = batch()["input_ids"]
    want = model(ids)
    for t in (0, 5, N - 1):
        other = ids.clone()
        other[1, t] = (other[1, t] + 1) % V
        moved = (model(other) - want).abs().amax(-1)
        assert (moved[[0, 2]] == 0).all() and (moved[1, :t] == 0).all()
        assert (moved[1, t:] > 1e-6).all()


@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing(model, left):
    inputs = batch()
    lengths = inputs["attention_mask"].sum(1).tolist()
    if left:
        inputs = {name: x.flip(1) for name, x in inputs.items()}
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    want = model(ids, attention_mask=mask)
    other = torch.where(mask == 1, ids, (ids + 1) % V)
    got = model(other, attention_mask=mask.bool())
    torch.testing.assert_close(got[mask == 1], want[mask == 1], rtol=0, atol=1e-12)
    for i, length in enumerate(lengths):
        real = slice(N - length, None) if left else slice(length)
        alone = model(ids[i : i + 1, real])[0]
        torch.testing.assert_close(alone, want[i, real], rtol=0, atol=1e-12)
    if left:
        assert (model(other) - want)[mask == 1].abs().max() > 0.1  # control


@pytest.mark.parametrize("sizes", [[N], [1] * N, [7, 1, 1, 4]], ids=str)
@pytest.mark.parametrize("padded", [True, False])
def test_a_cache_changes_nothing(model, sizes, padded):
    ids, mask = (x.flip(1) for x in batch().values())
    with torch.no_grad():
        want = model(ids, attention_mask=mask if padded else None)
        cache, got = KVCache(N), []
        for part in ids.split(sizes, dim=1):
            seen = mask[:, : cache.length + part.shape[1]] if padded else None
            got.append(model(part, attention_mask=seen, cache=cache))
    got = torch.cat(got, dim=1)
    assert cache.length == N
    real = mask == 1 if padded else torch.ones_like(mask) == 1
    torch.testing.assert_close(got[real], want[real], rtol=0, atol=1e-12)


def test_output_words_are_the_input_words(model):
    ids = torch.zeros(1, 5, dtype=torch.long)
    model(ids).sum().backward()
    assert (model.word.weight.grad.abs().sum(-1) > 0).all()
    assert not any("head" in name for name, _ in model.named_parameters())


def test_it_starts_knowing_nothing():
    """GPT-2's first weights: N(0, .02), and 1/√(2L) of that where the residual stream is fed."""
    torch.manual_seed(0)
    config = GPT2Config(1009, d_model=96, num_layers=3, num_heads=3, max_length=64)
    model = GPT2(config).eval()
    residual = ("attention.output_projection.weight", "feed_forward.contract.weight")
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            std = 0.02 / math.sqrt(6) if name.endswith(residual) else 0.02
            assert parameter.mean().abs() < 5 * std / parameter.numel() ** 0.5, name
            assert abs(parameter.std() / std - 1) < 5 / (2 * parameter.numel()) ** 0.5, name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, "norm.weight" in name)), name
    ids = torch.randint(1009, (4, 31))
    assert abs(causal_lm_loss(model(ids), ids) - math.log(1009)) < 0.05


def test_dropout_only_in_training(model):
    ids = batch()["input_ids"]
    assert torch.equal(model(ids), model(ids))
    for name in ("embedding_dropout", "dropout", "attention_dropout"):
        still = dict.fromkeys(("embedding_dropout", "dropout", "attention_dropout"), 0.0)
        assert torch.equal(*(GPT2(dataclasses.replace(SMALL, **still))(ids),) * 2)
        torch.manual_seed(0)
        one = GPT2(dataclasses.replace(SMALL, **still | {name: 0.5}))
        assert not torch.equal(one(ids), one(ids)), name


def test_the_smallest_release_has_its_size():
    with torch.device("meta"):
        model = GPT2(GPT2Config())
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close(model, dtype):
    inputs = batch()
    want = model(**inputs)
    got = model.to(dtype)(**inputs)
    assert got.dtype == dtype
    assert (got.double() - want).abs().max() < 20 * torch.finfo(dtype).eps * want.abs().max()


def test_compiles_as_one_graph(model):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    inputs = batch()
    torch.testing.assert_close(compiled(**inputs), model(**inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"vocab_size": 0}, "vocab_size: expected an integer of at least 1, got 0"),
        ({"d_ff": 0}, "d_ff: expected an integer of at least 1, got 0"),
        ({"max_length": 1.5}, "max_length: expected an integer of at least 1, got 1.5"),
        ({"num_heads": 5}, "num_heads: expected a divisor of d_model = 21, got 5"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"embedding_dropout": -0.1}, r"embedding_dropout: expected a number in \[0, 1\)"),
        ({"eps": math.nan}, r"eps: expected a number in \[0, inf\), got nan"),
        ({"activation": "tanh"}, f"activation: expected one of {', '.join(ACTIVATIONS)}, got"),
    ],
)
def test_config_refuses(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        dataclasses.replace(SMALL, **wrong)


@pytest.mark.parametrize(
    "option",
    ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"],
)
def test_options_that_are_another_model_are_refused(tmp_path, option):
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config(**OFFICIAL, **{option: True}))
    reference.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"^config.json: {option} = True is not supported"):
        GPT2.from_pretrained(tmp_path)


IDS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"input_ids": IDS[0]}, r"input_ids: expected shape \(B, n ≥ 1\), got \(5,\)"),
        ({"input_ids": IDS.float()}, "input_ids: expected torch.int64 or torch.int32, got"),
        ({"attention_mask": IDS[:, 1:]}, r"attention_mask: expected shape \(2, 5\), got \(2, 4\)"),
        ({"attention_mask": IDS.float()}, "attention_mask: expected torch.int64 or torch.int32 or"),
        (
            {"input_ids": IDS.new_zeros(2, 20)},
            "input_ids: expected at most max_length = 19 tokens, got 20",
        ),
    ],
)
def test_forward_refuses(model, inputs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        model(**{"input_ids": IDS} | inputs)


def test_with_a_cache_the_mask_is_of_all_and_the_length_too(model):
    cache = KVCache(30)
    with torch.no_grad():
        model(IDS, cache=cache)
        with pytest.raises(ValueError, match=r"^attention_mask: expected shape \(2, 6\), got"):
            model(IDS[:, :1], attention_mask=IDS[:, :1], cache=cache)
        with pytest.raises(ValueError, match=r"^input_ids: expected at most max_length = 19 tok"):
            model(IDS.repeat(1, 3), cache=cache)
