"""lib.models.bert: against the official implementation, and held to its own contract."""

import dataclasses
import doctest
import math

import pytest
import torch
from torch.nn import functional as F

from lib.checkpoints import CheckpointError
from lib.layers import ACTIVATIONS
from lib.models import bert
from lib.models.bert import BERT, BERTConfig
from tests.models import parity

transformers = parity.transformers()

V, N = 47, 13  # sizes are odd, so that no transposition hides
OFFICIAL = {
    "vocab_size": V,
    "hidden_size": 21,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "max_position_embeddings": 19,
}
OUTPUTS = ("prediction_logits", "seq_relationship_logits")
SMALL = BERTConfig(V, d_model=21, num_layers=3, num_heads=3, d_ff=29, max_length=19)


def load(folder, dtype=torch.float64, **options):
    config = transformers.BertConfig(**OFFICIAL | options)
    reference = parity.checkpoint(transformers.BertForPreTraining(config), folder, dtype)
    return BERT.from_pretrained(folder), reference


# The official implementation


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("hidden_act", ["gelu", "relu", "silu", "gelu_new"])
def test_equals_the_official_model(tmp_path, dtype, hidden_act):
    ours, reference = load(tmp_path, dtype, hidden_act=hidden_act)
    parity.assert_parity(ours, reference, parity.batch(V), OUTPUTS)


@pytest.mark.parametrize("left_out", ["attention_mask", "token_type_ids"])
def test_equals_the_official_model_without(tmp_path, left_out):
    ours, reference = load(tmp_path)
    inputs = parity.batch(V)
    del inputs[left_out]
    parity.assert_parity(ours, reference, inputs, OUTPUTS)


def test_the_official_model_reads_what_we_write(tmp_path):
    ours = parity.randomise(BERT(SMALL).double()).eval()
    ours.save_pretrained(tmp_path / "ours")
    reference, report = transformers.BertForPreTraining.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    assert not any(report.values()), report
    parity.assert_parity(ours, reference.eval(), parity.batch(V), OUTPUTS)


def test_the_order_of_segments_and_padding_matter_to_the_batch_used_here(tmp_path):
    """Positive control: the parity batch would notice either being ignored."""
    ours, _ = load(tmp_path)
    inputs = parity.batch(V)
    ids = inputs.pop("input_ids")
    want = ours(ids, **inputs)[0]
    for left_out in inputs:
        got = ours(ids, **{k: v for k, v in inputs.items() if k != left_out})[0]
        assert (got - want).abs().max() > 0.1 * want.abs().max(), left_out


# Planted mistakes: what the harness is for. Each must be caught, in both precisions unless it says
# otherwise, and the tracer must name the first layer behind it.


def forget_the_scale(model):
    root = math.sqrt(model.config.d_model // model.config.num_heads)
    for layer in model.encoder.layers:
        layer.attention.query_projection.register_forward_hook(
            lambda module, args, output: output * root
        )


def approximate_the_gelu(model):
    for layer in model.encoder.layers:
        layer.feed_forward.activation = "gelu_tanh"


def approximate_the_head(model):
    model.head.activation = "gelu_tanh"


def take_torchs_eps(model):
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-5


def unbias_the_variance(model):
    for module in model.modules():
        if hasattr(module, "eps"):
            d = module.d_model
            module.weight.data *= math.sqrt((d - 1) / d)


def ignore_segments(model):
    embed = model.encoder.embeddings.forward
    model.encoder.embeddings.forward = lambda ids, segments: embed(ids, None)


def ignore_padding(model):
    encode = model.encoder.forward
    model.encoder.forward = lambda ids, mask, segments: encode(ids, None, segments)


def shift_positions(model):
    model.encoder.embeddings.position.weight.data.copy_(
        model.encoder.embeddings.position.weight.data.roll(1, dims=0)
    )


def norm_first(model):
    for layer in model.encoder.layers:
        layer.norm = "pre"


def untie_the_head(model):
    words = parity.randomise(torch.nn.Linear(21, V, bias=False, dtype=torch.float64)).weight
    head = model.head.forward
    model.head.forward = lambda hidden, tied: head(hidden, words.to(tied.dtype))


def forget_the_bias(model):
    model.head.bias.data.zero_()


def forget_the_tanh(model):
    model.pool = lambda hidden: model.pooler(hidden[:, 0])


def pool_the_last_token(model):
    pool = model.pool
    model.pool = lambda hidden: pool(hidden.flip(1))


MISTAKES = {
    forget_the_scale: "encoder.layers.0.attention.query_projection",
    approximate_the_gelu: "encoder.layers.0.feed_forward.contract",
    approximate_the_head: "head.norm",
    take_torchs_eps: "encoder.embeddings.norm",
    unbias_the_variance: "encoder.embeddings.norm",
    ignore_segments: "encoder.embeddings.norm",
    ignore_padding: "encoder.layers.0.attention.output_projection",
    shift_positions: "encoder.embeddings.norm",
    norm_first: "encoder.layers.0.attention_norm",
    untie_the_head: "the output alone",
    forget_the_bias: "the output alone",
    forget_the_tanh: "next_sentence",
    pool_the_last_token: "pooler",
}


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_the_harness_catches(tmp_path, dtype, mistake):
    ours, reference = load(tmp_path, dtype)
    parity.assert_parity(ours, reference, parity.batch(V), OUTPUTS)
    with torch.no_grad():
        mistake(ours)
    with pytest.raises(AssertionError, match="differs by") as caught:
        parity.assert_parity(ours, reference, parity.batch(V), OUTPUTS)
    assert str(caught.value).endswith(f"first in {MISTAKES[mistake]}")


# Our own contract


@pytest.fixture
def model():
    return parity.randomise(BERT(SMALL).double()).eval()


def test_docstrings():
    assert doctest.testmod(bert).failed == 0


def test_padding_and_other_sequences_change_nothing(model):
    inputs = parity.batch(V)
    ids, mask = inputs.pop("input_ids"), inputs["attention_mask"]
    mlm, nsp = model(ids, **inputs)
    other = torch.where(mask == 1, ids, (ids + 1) % V)
    for got, want in zip(model(other, **inputs), (mlm, nsp), strict=True):
        keep = mask == 1 if got.ndim == 3 else slice(None)
        torch.testing.assert_close(got[keep], want[keep], rtol=0, atol=1e-12)
    for i, length in enumerate(mask.sum(-1).tolist()):
        alone = model(
            ids[i : i + 1, :length], token_type_ids=inputs["token_type_ids"][i : i + 1, :length]
        )
        torch.testing.assert_close(alone[0][0], mlm[i, :length], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone[1][0], nsp[i], rtol=0, atol=1e-12)
    unmasked = model(other, token_type_ids=inputs["token_type_ids"])[0]
    assert (unmasked - mlm).abs().max() > 0.1  # control: the padding does differ


def test_masks_of_every_dtype_mean_the_same(model):
    inputs = parity.batch(V)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    want = model(ids, attention_mask=mask)[0]
    for same in (mask.bool(), mask.int(), mask * 7):
        assert torch.equal(model(ids, attention_mask=same)[0], want)
    assert torch.equal(model(ids.int(), attention_mask=mask)[0], want)


def test_both_directions_are_read(model):
    """Position t depends on words before and behind it."""
    ids = parity.batch(V)["input_ids"][:1]
    want = model(ids)[0]
    for changed in (0, N - 1):
        other = ids.clone()
        other[0, changed] = (other[0, changed] + 1) % V
        assert ((model(other)[0] - want).abs().amax(-1) > 1e-3).all()


def test_the_two_sides_interact(model):
    """D27: in two one-way models no word on the left changes what one on the right adds."""
    ids = parity.batch(V)["input_ids"][:1]

    def hidden(left, right):
        other = ids.clone()
        other[0, 0], other[0, N - 1] = (ids[0, 0] + left) % V, (ids[0, N - 1] + right) % V
        return model.encode(other)[0, N // 2]

    mixed = hidden(1, 1) - hidden(1, 0) - hidden(0, 1) + hidden(0, 0)
    assert mixed.abs().max() > 1e-3


def test_logits_of_some_positions_are_those_of_all(model):
    ids = parity.batch(V)["input_ids"]
    hidden = model.encode(ids)
    chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    want = model(ids)[0][chosen]
    torch.testing.assert_close(model.mlm_logits(hidden[chosen]), want, rtol=0, atol=1e-12)


def test_output_words_are_the_input_words(model):
    """The head is tied: words that are nowhere in the input get a gradient."""
    ids = torch.zeros(1, 5, dtype=torch.long)
    model(ids)[0].sum().backward()
    assert (model.encoder.embeddings.word.weight.grad.abs().sum(-1) > 0).all()
    assert "decoder" not in " ".join(dict(model.named_parameters()))


def test_it_starts_knowing_nothing():
    torch.manual_seed(0)
    config = BERTConfig(1009, d_model=96, num_layers=2, num_heads=3, d_ff=200, max_length=64)
    model = BERT(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            assert parameter.mean().abs() < 5 * 0.02 / parameter.numel() ** 0.5, name
            assert abs(parameter.std() / 0.02 - 1) < 5 / (2 * parameter.numel()) ** 0.5, name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, "norm.weight" in name)), name
    ids = torch.randint(1009, (4, 31))
    mlm, nsp = model(ids)
    assert abs(F.cross_entropy(mlm.flatten(0, 1), ids.flatten()) - math.log(1009)) < 0.05
    assert abs(F.cross_entropy(nsp, torch.tensor([0, 1, 0, 1])) - math.log(2)) < 0.05


def test_dropout_only_in_training(model):
    ids = parity.batch(V)["input_ids"]
    assert torch.equal(model(ids)[0], model(ids)[0])
    model.train()
    assert not torch.equal(model(ids)[0], model(ids)[0])
    still = BERT(dataclasses.replace(SMALL, dropout=0.0, attention_dropout=0.0))
    assert torch.equal(still(ids)[0], still(ids)[0])


def test_base_has_the_published_size():
    with torch.device("meta"):
        model = BERT(BERTConfig())
    count = sum(p.numel() for p in model.encoder.parameters())
    count += sum(p.numel() for p in model.pooler.parameters())
    assert count == 109_482_240  # "110M" in the paper's section 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close(model, dtype):
    inputs = parity.batch(V)
    ids = inputs.pop("input_ids")
    want = model(ids, **inputs)[0]
    got = model.to(dtype)(ids, **inputs)[0]
    assert got.dtype == dtype
    assert (got.double() - want).abs().max() < 20 * torch.finfo(dtype).eps * want.abs().max()


def test_autocast(model):
    inputs = parity.batch(V)
    ids = inputs.pop("input_ids")
    model = model.float()
    want = model(ids, **inputs)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = model(ids, **inputs)[0]
    assert (got.float() - want).abs().max() < 0.1 * want.abs().max()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"vocab_size": 0}, "vocab_size: expected an integer of at least 1, got 0"),
        ({"d_ff": 2.0}, "d_ff: expected an integer of at least 1, got 2.0"),
        ({"num_layers": True}, "num_layers: expected an integer of at least 1, got True"),
        ({"num_segments": -1}, "num_segments: expected an integer of at least 0, got -1"),
        ({"d_embedding": 0}, "d_embedding: expected an integer of at least 1, got 0"),
        ({"num_heads": 5}, "num_heads: expected a divisor of d_model = 21, got 5"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"attention_dropout": -0.1}, r"attention_dropout: expected a number in \[0, 1\)"),
        ({"eps": math.nan}, r"eps: expected a number in \[0, inf\), got nan"),
        ({"init_std": "0.02"}, r"init_std: expected a number in \[0, inf\), got '0.02'"),
        ({"activation": "tanh"}, f"activation: expected one of {', '.join(ACTIVATIONS)}, got"),
    ],
)
def test_config_refuses(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        dataclasses.replace(SMALL, **wrong)


IDS = torch.zeros(2, 5, dtype=torch.long)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"input_ids": IDS[0]}, r"input_ids: expected shape \(B, n ≥ 1\), got \(5,\)"),
        ({"input_ids": IDS[:, :0]}, r"input_ids: expected shape \(B, n ≥ 1\), got \(2, 0\)"),
        ({"input_ids": IDS.float()}, "input_ids: expected torch.int64 or torch.int32, got"),
        ({"attention_mask": IDS.float()}, "attention_mask: expected torch.int64 or torch.int32 or"),
        ({"attention_mask": IDS[:1]}, r"attention_mask: expected shape \(2, 5\), got \(1, 5\)"),
        (
            {"token_type_ids": IDS.bool()},
            "token_type_ids: expected torch.int64 or torch.int32, got",
        ),
        ({"token_type_ids": IDS[:, 1:]}, r"token_type_ids: expected shape \(2, 5\), got \(2, 4\)"),
        ({"input_ids": IDS.new_zeros(2, 20)}, "x: expected positions below max_length = 19"),
    ],
)
def test_forward_refuses(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model(**{"input_ids": IDS} | inputs)


def test_forward_refuses_what_is_no_tensor(model):
    with pytest.raises(TypeError, match=r"input_ids: expected a torch.Tensor, got list"):
        model([[1, 2]])


def test_factorised_embeddings_have_no_place_in_a_bert_checkpoint(tmp_path):
    model = BERT(dataclasses.replace(SMALL, d_embedding=5))
    assert model(IDS)[0].shape == (2, 5, V)
    with pytest.raises(CheckpointError, match=r"^d_embedding: expected None, as a bert checkpoint"):
        model.save_pretrained(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
