"""lib.models.longformer: against the official implementation, and held to its own contract."""

import dataclasses
import doctest

import pytest
import torch
from torch.nn import functional as F

from lib.checkpoints import CheckpointError
from lib.models import longformer
from lib.models.longformer import Longformer, LongformerConfig
from tests.models import parity

transformers = parity.transformers()

V, N, PAD = 47, 61, 1  # longer than every window, and no multiple of one
OFFICIAL = {
    "vocab_size": V,
    "hidden_size": 21,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "max_position_embeddings": 83,
    "attention_window": [8, 4, 8],
    "type_vocab_size": 1,
    "pad_token_id": PAD,
    "layer_norm_eps": 1e-5,
}
SMALL = LongformerConfig(
    V, d_model=21, num_layers=3, num_heads=3, d_ff=29, max_length=83, window=(8, 4, 8)
)
# In float64 the reference still computes its softmax in float32, `softmax(…, dtype=torch.float32)`
# in LongformerSelfAttention.forward and _compute_global_attn_output_from_hidden: it is off by about
# 1e-7 itself. `in_float64` takes that cast away, and nothing else.
CAST = {torch.float32: 1e-5, torch.float64: 1e-6}


def load(folder, dtype=torch.float64, **options):
    config = transformers.LongformerConfig(**OFFICIAL | options)
    reference = parity.checkpoint(transformers.LongformerForMaskedLM(config), folder, dtype)
    return Longformer.from_pretrained(folder), reference


def batch(n=N, seed=0):
    """Padded at the end and with a padding token inside; global tokens in two of three."""
    inputs = parity.batch(V, n, segments=False, seed=seed)
    inputs["input_ids"][:, 1] = PAD
    inputs["input_ids"][inputs["attention_mask"] == 0] = PAD
    inputs["input_ids"][1, -1] = 5  # masked, though no padding token
    where = torch.zeros_like(inputs["input_ids"])
    where[0, [0, n // 2]] = 1
    where[1, [2, n - 1]] = 1  # the second of them is padding
    return inputs | {"global_attention_mask": where}


@pytest.fixture
def in_float64(monkeypatch):
    softmax = F.softmax
    monkeypatch.setattr(F, "softmax", lambda x, dim, dtype=None: softmax(x, dim))


# The official implementation


@pytest.mark.parametrize("dtype", CAST, ids=str)
@pytest.mark.parametrize("hidden_act", ["gelu", "relu"])
def test_equals_the_official_model(tmp_path, dtype, hidden_act):
    ours, reference = load(tmp_path, dtype, hidden_act=hidden_act)
    parity.assert_parity(ours, reference, batch(), tolerance=CAST[dtype])


@pytest.mark.parametrize("n", [3, 8, 16, 61, 64, 81])
def test_equals_the_official_model_at_every_length(tmp_path, in_float64, n):
    """Shorter than a window, a multiple, not one, and the longest that positions allow."""
    ours, reference = load(tmp_path, max_position_embeddings=83)
    inputs = {name: x[:, :n] for name, x in batch(max(n, 8)).items()}
    parity.assert_parity(ours, reference, inputs)


@pytest.mark.parametrize(
    "left_out",
    # tuples: a set has another order, and so another name, in every worker
    [("attention_mask",), ("global_attention_mask",), ("attention_mask", "global_attention_mask")],
    ids=" ".join,
)
def test_equals_the_official_model_without(tmp_path, in_float64, left_out):
    ours, reference = load(tmp_path)
    inputs = {name: x for name, x in batch().items() if name not in left_out}
    parity.assert_parity(ours, reference, inputs)


def test_equals_the_official_model_with_one_window_for_all(tmp_path, in_float64):
    ours, reference = load(tmp_path, attention_window=6, pad_token_id=0)
    assert ours.config.windows == (6, 6, 6) and ours.config.pad_token_id == 0
    parity.assert_parity(ours, reference, batch())


def test_the_reference_s_own_softmax_is_what_float64_differs_by(tmp_path):
    """Positive control of `in_float64`: without it the models differ, by float32's precision."""
    ours, reference = load(tmp_path)
    assert 1e-9 < parity.measure(ours, reference, batch(), ("logits",)).worst < 1e-6


def test_the_official_model_reads_what_we_write(tmp_path, in_float64):
    ours = parity.randomise(Longformer(SMALL).double()).eval()
    ours.save_pretrained(tmp_path / "ours")
    reference, report = transformers.LongformerForMaskedLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    assert not any(report.values()), report
    parity.assert_parity(ours, reference.eval(), batch())
    again = Longformer.from_pretrained(tmp_path / "ours")
    assert again.config == SMALL


def test_a_pooler_in_the_file_is_passed_over(tmp_path):
    ours, reference = load(tmp_path)
    state = {k: v.contiguous() for k, v in reference.state_dict().items()}
    state = {k: v.clone() for k, v in state.items()}
    state["longformer.pooler.dense.weight"] = torch.zeros(21, 21, dtype=torch.float64)
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    again = Longformer.from_pretrained(tmp_path)
    assert torch.equal(again(batch()["input_ids"]), ours(batch()["input_ids"]))


# Planted mistakes


def ignore_global_tokens(model):
    encode = model.encode
    model.encode = lambda ids, attention_mask, global_attention_mask: encode(
        ids, attention_mask=attention_mask
    )


def one_set_of_projections(model):
    for layer in model.layers:
        layer.attention.copy_to_global()


def swap_global_keys_and_values(model):
    for layer in model.layers:
        a, b = layer.attention.global_key_projection, layer.attention.global_value_projection
        layer.attention.global_key_projection, layer.attention.global_value_projection = b, a


def a_window_on_each_side(model):
    for layer in model.layers:
        layer.attention.window *= 2


def windows_in_another_order(model):
    for layer, window in zip(model.layers, (4, 8, 8), strict=True):
        layer.attention.window = window


def positions_from_zero(model):
    weight = model.embeddings.position.weight
    weight.data = weight.data.roll(2, dims=0)


def count_every_token(model):
    forward = model.embeddings.forward

    def places(ids):  # 9 in place of the padding token, in the count alone
        model.embeddings.word.weight.data[[PAD, 9]] = model.embeddings.word.weight.data[[9, PAD]]
        x = forward(torch.where(ids == PAD, 9, torch.where(ids == 9, PAD, ids)))
        model.embeddings.word.weight.data[[PAD, 9]] = model.embeddings.word.weight.data[[9, PAD]]
        return x

    model.embeddings.forward = places


def forget_the_segment(model):
    model.embeddings.segment.weight.data.zero_()


def ignore_padding(model):
    encode = model.encode
    model.encode = lambda ids, attention_mask, global_attention_mask: encode(
        ids, global_attention_mask=global_attention_mask
    )


def approximate_the_head(model):
    model.head.activation = "gelu_tanh"


MISTAKES = {
    ignore_global_tokens: "layers.0.attention.output_projection",
    one_set_of_projections: "layers.0.attention.output_projection",
    swap_global_keys_and_values: "layers.0.attention.output_projection",
    a_window_on_each_side: "layers.0.attention.output_projection",
    windows_in_another_order: "layers.0.attention.output_projection",
    positions_from_zero: "embeddings.norm",
    count_every_token: "embeddings.norm",
    forget_the_segment: "embeddings.norm",
    ignore_padding: "layers.0.attention.output_projection",
    approximate_the_head: "head.norm",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_the_harness_catches(tmp_path, in_float64, mistake):
    ours, reference = load(tmp_path)
    inputs = batch(64)  # a multiple of the window, so that the official layers are not longer
    parity.assert_parity(ours, reference, inputs)
    with torch.no_grad():
        mistake(ours)
    with pytest.raises(AssertionError, match="differs by") as caught:
        parity.assert_parity(ours, reference, inputs)
    assert str(caught.value).endswith(f"first in {MISTAKES[mistake]}")


# Our own contract


@pytest.fixture
def model():
    return parity.randomise(Longformer(SMALL).double()).eval()


def test_docstrings():
    assert doctest.testmod(longformer).failed == 0


def test_padding_and_other_sequences_change_nothing(model):
    inputs = batch()
    ids = inputs.pop("input_ids")
    mask = inputs["attention_mask"]
    want = model(ids, **inputs)
    other = torch.where(mask == 1, ids, 9)
    torch.testing.assert_close(model(other, **inputs)[mask == 1], want[mask == 1], rtol=0, atol=0)
    for i, length in enumerate(mask.sum(-1).tolist()):
        where = inputs["global_attention_mask"][i : i + 1, :length]
        alone = model(ids[i : i + 1, :length], global_attention_mask=where)
        torch.testing.assert_close(alone[0], want[i, :length], rtol=0, atol=1e-12)


def test_masks_of_every_dtype_mean_the_same(model):
    inputs = batch()
    ids = inputs.pop("input_ids")
    want = model(ids, **inputs)
    for change in (lambda x: x.bool(), lambda x: x.int(), lambda x: 7 * x):
        same = {name: change(x) for name, x in inputs.items()}
        assert torch.equal(model(ids, **same), want)
    assert torch.equal(model(ids.int(), **inputs), want)


def test_the_receptive_field_grows_by_half_a_window_a_layer(model):
    """Three layers with 4 + 2 + 4 tokens on each side; a global token makes it everything."""
    ids = torch.randint(2, V, (1, N), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 30] = 2 + (other[0, 30] - 1) % (V - 2)
    moved = ((model(other) - model(ids)).abs().amax(-1) > 1e-9)[0]
    assert moved.nonzero().flatten().tolist() == list(range(20, 41))
    where = torch.zeros_like(ids)
    where[0, 3] = 1
    options = {"global_attention_mask": where}
    assert ((model(other, **options) - model(ids, **options)).abs().amax(-1) > 1e-9).all()


def test_output_words_are_the_input_words(model):
    model(torch.zeros(1, 5, dtype=torch.long)).sum().backward()
    assert (model.embeddings.word.weight.grad.abs().sum(-1) > 0).all()


def test_it_starts_with_equal_projections_and_small_weights():
    torch.manual_seed(0)
    model = Longformer(SMALL)
    for layer in model.layers:
        attention = layer.attention
        theirs = attention.global_key_projection.weight
        assert torch.equal(theirs, attention.key_projection.weight)
        assert abs(theirs.std() / 0.02 - 1) < 5 / (2 * 441) ** 0.5
    ids = torch.randint(V, (3, N))
    model.eval()
    everything = {"global_attention_mask": torch.ones_like(ids)}
    assert not torch.allclose(model(ids), model(ids, **everything), atol=1e-7)


def test_dropout_only_in_training(model):
    ids = batch()["input_ids"]
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_base_has_the_official_size():
    with torch.device("meta"):
        model = Longformer(LongformerConfig())
    assert sum(p.numel() for p in model.parameters()) == 148_711_257


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close(model, dtype):
    inputs = batch()
    ids = inputs.pop("input_ids")
    want = model(ids, **inputs)
    got = model.to(dtype)(ids, **inputs)
    assert got.dtype == dtype
    assert (got.double() - want).abs().max() < 20 * torch.finfo(dtype).eps * want.abs().max()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"window": 7}, "window: expected even integers of at least 2, got 7"),
        ({"window": (8, 4)}, r"window: expected one, or 3 of them, got \(8, 4\)"),
        ({"window": (8, 4, 0)}, "window: expected even integers of at least 2, got 0"),
        ({"pad_token_id": -1}, "pad_token_id: expected an integer of at least 0, got -1"),
        ({"num_segments": 0}, "num_segments: expected an integer of at least 1, got 0"),
        ({"max_length": 2}, r"max_length: expected more than pad_token_id \+ 1 = 2, got 2"),
        ({"num_heads": 5}, "num_heads: expected a divisor of d_model = 21, got 5"),
    ],
)
def test_config_refuses(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        dataclasses.replace(SMALL, **wrong)


IDS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"input_ids": IDS[0]}, r"input_ids: expected shape \(B, n ≥ 1\), got \(5,\)"),
        ({"attention_mask": IDS.float()}, "attention_mask: expected torch.int64 or torch.int32 or"),
        (
            {"global_attention_mask": IDS[:, 1:]},
            r"global_attention_mask: expected shape \(2, 5\), got \(2, 4\)",
        ),
        (
            {"input_ids": IDS.new_zeros(2, 82)},
            "input_ids: expected at most max_length - pad_token_id - 1 = 81 tokens, got 82",
        ),
    ],
)
def test_forward_refuses(model, inputs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        model(**{"input_ids": IDS} | inputs)


def test_a_checkpoint_without_windows_is_refused(tmp_path):
    load(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("attention_window", "attention_windows"))
    with pytest.raises(CheckpointError, match=r"^config.json: expected a value for attention_w"):
        Longformer.from_pretrained(tmp_path)


def test_attention_dropout_reaches_the_windows():
    config = dataclasses.replace(SMALL, dropout=0.0, attention_dropout=0.3)
    model, ids = Longformer(config), batch()["input_ids"]
    assert not torch.equal(model(ids), model(ids))
    model = Longformer(dataclasses.replace(config, attention_dropout=0.0))
    assert torch.equal(model(ids), model(ids))
