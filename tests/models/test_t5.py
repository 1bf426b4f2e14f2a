"""lib.models.t5: against the official implementation, and held to its own contract.

In "fp64" the reference computes one operation in float32: the mean square in `T5LayerNorm`. With it
both agree to 1e-6; with that one operation patched to float64, to 1e-10.
"""

import dataclasses
import doctest
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers.models.t5 import modeling_t5

from lib.cache import KVCache
from lib.checkpoints import CheckpointError
from lib.generation import beam_search, greedy, sample
from lib.layers import LayerNorm
from lib.models import t5
from lib.models.t5 import T5, T5Config
from tests.models import parity

transformers = parity.transformers()

V, N, M, D = 47, 13, 7, 21  # words, tokens read, tokens written, features: odd
OFFICIAL = {
    "vocab_size": V,
    "d_model": D,
    "d_kv": 5,
    "d_ff": 29,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 10,  # so few, and near, that the text is longer
    "relative_attention_max_distance": 9,
    "decoder_start_token_id": 0,
}
V10, V11 = {}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
VERSIONS = pytest.mark.parametrize("version", [V10, V11], ids=["v1.0", "v1.1"])
SMALL = T5Config(
    V, d_model=D, d_head=5, num_layers=3, num_decoder_layers=2, num_heads=3, d_ff=29,
    num_buckets=10, max_distance=9,
)  # fmt: skip
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-6}  # of the reference as it is


def load(folder, dtype=torch.float64, **options):
    config = transformers.T5Config(**OFFICIAL | options)
    reference = transformers.T5ForConditionalGeneration(config)
    if options.get("tie_word_embeddings") is False:  # as the releases are: a head of its own
        reference.lm_head.weight = torch.nn.Parameter(torch.empty(V, D))
    reference = parity.checkpoint(reference, folder, dtype)
    return T5.from_pretrained(folder), reference


def batch(seed=0, n=N, m=M):
    inputs = parity.batch(V, n, segments=False, seed=seed)
    written = torch.randint(V, (3, m), generator=torch.Generator().manual_seed(seed + 1))
    return inputs | {"decoder_input_ids": written}


@pytest.fixture
def in_float64(monkeypatch):
    """The one operation of the reference that is float32 always, in its input's precision."""

    def forward(self, x):
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.variance_epsilon))

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", forward)


# The official implementation


@VERSIONS
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_the_official_model(tmp_path, dtype, version):
    ours, reference = load(tmp_path, dtype, **version)
    parity.assert_parity(ours, reference, batch(), tolerance=TOLERANCE[dtype])
    longer = batch(n=41, m=37)  # longer than every bucket
    parity.assert_parity(ours, reference, longer, tolerance=TOLERANCE[dtype])


@VERSIONS
def test_equals_the_official_model_but_for_one_operation(tmp_path, in_float64, version):
    ours, reference = load(tmp_path, **version)
    parity.assert_parity(ours, reference, batch())
    inputs = batch(n=41, m=37)
    del inputs["attention_mask"]
    parity.assert_parity(ours, reference, inputs)


def test_that_operation_is_what_limits_the_reference(tmp_path):
    """Control: unpatched, the two differ by more than float64 would."""
    ours, reference = load(tmp_path)
    assert 1e-10 < parity.measure(ours, reference, batch(), ("logits",)).worst < 1e-6


@pytest.mark.parametrize("swap", [True, False])
def test_gate_and_head_are_options_of_their_own(tmp_path, in_float64, swap):
    version = {"feed_forward_proj": "gated-gelu"} if swap else {"tie_word_embeddings": False}
    ours, reference = load(tmp_path, **version)
    assert (ours.head is None) == swap
    parity.assert_parity(ours, reference, batch())


def test_padding_on_the_left(tmp_path, in_float64):
    ours, reference = load(tmp_path)
    inputs = batch()
    inputs |= {name: inputs[name].flip(1) for name in ("input_ids", "attention_mask")}
    parity.assert_parity(ours, reference, inputs)


@VERSIONS
def test_the_official_model_reads_what_we_write(tmp_path, in_float64, version):
    config = SMALL if not version else dataclasses.replace(
        SMALL, feed_forward="gated-gelu", tied=False, num_decoder_layers=None
    )  # fmt: skip
    ours = parity.randomise(T5(config).double()).eval()
    ours.save_pretrained(tmp_path / "ours")
    reference, report = transformers.T5ForConditionalGeneration.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    assert not any(report.values()), report
    parity.assert_parity(ours, reference.eval(), batch())


def test_a_file_of_version_1_1_without_a_head(tmp_path, in_float64):
    """As transformers 5 writes it of a new model: not scaled, but the head is the words."""
    config = transformers.T5Config(**OFFICIAL | V11)
    reference = parity.checkpoint(
        transformers.T5ForConditionalGeneration(config), tmp_path, torch.float64
    )
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    ours = T5.from_pretrained(tmp_path)
    assert ours.config.tied is False and torch.equal(ours.head.weight, ours.word.weight)
    parity.assert_parity(ours, reference, batch())


def test_official_files_hold_more(tmp_path):
    """The words three times more, and a table of distances that nothing reads."""
    ours, _ = load(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
        tensors[f"{name}.weight"] = tensors["shared.weight"].clone()
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[name] = torch.ones(10, 3, dtype=torch.float64)
    save_file(tensors, path)
    again, inputs = T5.from_pretrained(tmp_path), batch()
    assert torch.equal(again(**inputs), ours(**inputs))
    tensors["lm_head.weight"] += 1
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"expected lm_head.weight equal to shared.weight"):
        T5.from_pretrained(tmp_path)


def test_another_activation_is_refused(tmp_path):
    config = transformers.T5Config(**OFFICIAL, feed_forward_proj="gated-silu")
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"^config.json: feed_forward_proj, here feed_forw"):
        T5.from_pretrained(tmp_path)


# Planted mistakes


def attentions(model):
    return [m for name, m in model.named_modules() if name.endswith("attention")]


def divide_by_root_d(model):
    for attention in attentions(model):
        attention.scaled = True


def take_layer_norms(model):
    for stack in (model.encoder, model.decoder):
        for layer in stack.layers:
            norm = LayerNorm(D, 1e-6, bias=False)
            norm.weight = layer.attention_norm.weight
            layer.attention_norm = norm


def take_bigger_eps(model):
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-5


def forget_the_scale_of_the_output(model):
    model.config = dataclasses.replace(model.config, d_model=1)


def turn_the_distances(model):
    bias = model.encoder.bias.forward
    model.encoder.bias.forward = lambda n_q, n_k: bias(n_q, n_k).mT


def look_both_ways_in_the_decoder(model):
    model.decoder.bias.bidirectional = True


def see_the_future(model):
    for layer in model.decoder.layers:
        step = layer.forward
        layer.forward = lambda x, mask, step=step, **options: step(
            x, mask=mask.masked_fill(mask == -math.inf, 0.0), **options
        )


def bias_the_cross_attention(model):
    for layer in model.decoder.layers:
        read = layer.cross_attention
        step = read.forward
        read.forward = lambda query, key, mask, cache, step=step: step(
            query,
            key,
            mask=model.encoder.bias(key.shape[1])[:, :, : query.shape[1]].masked_fill(
                ~mask.unsqueeze(1), -math.inf
            ),
        )


def forget_the_padding(model):
    decode = model.decode
    model.decode = lambda ids, memory, attention_mask: decode(ids, memory)


MISTAKES = {
    divide_by_root_d: "encoder.layers.0.attention.output_projection",
    take_layer_norms: "encoder.layers.0.attention_norm",
    take_bigger_eps: "encoder.layers.0.attention_norm",
    forget_the_scale_of_the_output: "the output alone",
    turn_the_distances: "encoder.layers.0.attention.output_projection",
    look_both_ways_in_the_decoder: "decoder.layers.0.attention.output_projection",
    see_the_future: "decoder.layers.0.attention.output_projection",
    bias_the_cross_attention: "decoder.layers.0.cross_attention.output_projection",
    forget_the_padding: "decoder.layers.0.cross_attention.output_projection",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_harness_catches(tmp_path, in_float64, dtype, mistake):
    ours, reference = load(tmp_path, dtype)
    parity.assert_parity(ours, reference, batch())
    with torch.no_grad():
        mistake(ours)
    with pytest.raises(AssertionError, match="differs by") as caught:
        parity.assert_parity(ours, reference, batch())
    assert str(caught.value).endswith(f"first in {MISTAKES[mistake]}")


# Generation


@pytest.fixture(scope="module", params=[V10, V11], ids=["v1.0", "v1.1"])
def writers(request, tmp_path_factory):
    """A pair with words of size 1, as T5 has them, that ends now and then."""
    folder = tmp_path_factory.mktemp("t5")
    end = {
        "eos_token_id": 25 if request.param else 24,
        "pad_token_id": 2,
        "decoder_start_token_id": 2,
    }
    _, reference = load(folder, **end | request.param)
    parity.randomise(reference, seed=3)
    with torch.no_grad():
        reference.shared.weight.mul_(5)
        for name, parameter in reference.named_parameters():
            if name.endswith("o.weight"):  # the last map of each sublayer
                parameter.mul_(0.4)
    reference.save_pretrained(folder)
    return T5.from_pretrained(folder), reference


def sources(left=False):
    inputs = {name: x for name, x in batch(seed=3).items() if name != "decoder_input_ids"}
    inputs = {name: torch.cat([x, x.roll(1, 1), x.roll(2, 0)]) for name, x in inputs.items()}
    return {name: x.flip(1) for name, x in inputs.items()} if left else inputs


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("left", [True, False])
def test_greedy_equals_the_official_one(writers, use_cache, left):
    ours, reference = writers
    got = greedy(ours, **sources(left), max_new_tokens=15, use_cache=use_cache)
    with torch.no_grad():
        want = reference.generate(**sources(left), max_new_tokens=15, do_sample=False)
    assert torch.equal(got, want)
    assert (got[:, 0] == 2).all() and len(got.unique()) > 5


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("num_beams, length_penalty", [(2, 1.0), (4, 0.0), (4, 2.0)])
def test_beams_equal_the_official_ones(writers, use_cache, num_beams, length_penalty):
    ours, reference = writers
    options = {"num_beams": num_beams, "length_penalty": length_penalty}
    got = beam_search(ours, **sources(), max_new_tokens=9, **options, use_cache=use_cache)
    with torch.no_grad():
        want = reference.generate(
            **sources(), max_new_tokens=9, do_sample=False, early_stopping=False, **options
        )
    assert torch.equal(got, want)


def test_draws_are_the_same_with_and_without_a_cache(writers):
    ours, _ = writers

    def run(**options):
        generator = torch.Generator().manual_seed(0)
        return sample(ours, **sources(), max_new_tokens=15, generator=generator, **options)

    assert torch.equal(run(), run(use_cache=False))


@pytest.mark.parametrize("sizes", [[37], [1] * 37, [7, 1, 1, 28]], ids=str)
def test_a_cache_changes_nothing(model, sizes):
    inputs = batch(m=37)
    ids, mask = inputs["decoder_input_ids"], inputs["attention_mask"]
    with torch.no_grad():
        want = model(**inputs)
        memory, cache = model.encode(inputs["input_ids"], attention_mask=mask), KVCache(37)
        got = [
            model.decode(part, memory, attention_mask=mask, cache=cache)
            for part in ids.split(sizes, dim=1)
        ]
    torch.testing.assert_close(torch.cat(got, 1), want, rtol=0, atol=1e-12)


def test_a_model_without_a_start_token_cannot_write(model):
    model.config = dataclasses.replace(model.config, start_token_id=None)
    with pytest.raises(ValueError, match=r"^model: expected config.start_token_id, found none"):
        greedy(model, batch()["input_ids"], max_new_tokens=2)


# Our own contract


@pytest.fixture
def model():
    return parity.randomise(T5(SMALL).double()).eval()


def test_docstrings():
    assert doctest.testmod(t5).failed == 0


def test_no_output_depends_on_the_future(model):
    """With both controls of D40, and of D17: what is read reaches every output."""
    inputs = batch()
    want = model(**inputs)
    for t in (0, 3, M - 1):
        other = inputs["decoder_input_ids"].clone()
        other[1, t] = (other[1, t] + 1) % V
        moved = (model(**inputs | {"decoder_input_ids": other}) - want).abs().amax(-1)
        assert (moved[[0, 2]] == 0).all() and (moved[1, :t] == 0).all()
        assert (moved[1, t:] > 1e-6).all()
    read = inputs["input_ids"].clone()
    read[1, 4] = (read[1, 4] + 1) % V
    moved = (model(**inputs | {"input_ids": read}) - want).abs().amax(-1)
    assert (moved[[0, 2]] == 0).all() and (moved[1] > 1e-6).all()


def test_padding_changes_nothing(model):
    inputs = batch()
    mask = inputs["attention_mask"]
    want = model(**inputs)
    other = torch.where(mask == 1, inputs["input_ids"], (inputs["input_ids"] + 1) % V)
    got = model(other, inputs["decoder_input_ids"], attention_mask=mask.bool())
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    for i, length in enumerate(mask.sum(1).tolist()):
        alone = model(
            inputs["input_ids"][i : i + 1, :length], inputs["decoder_input_ids"][i : i + 1]
        )
        torch.testing.assert_close(alone[0], want[i], rtol=0, atol=1e-12)
    assert (model(other, inputs["decoder_input_ids"]) - want).abs().max() > 1e-3  # control


def test_only_distances_count(model):
    """Moved to the right behind padding, everything that is read stays as it was."""
    ids = batch()["input_ids"][:1, :5]
    moved, mask = torch.cat([ids, ids], dim=1), torch.ones(1, 10)
    mask[:, :5] = 0
    got = model.encode(moved, attention_mask=mask.long())[:, 5:]
    torch.testing.assert_close(got, model.encode(ids), rtol=0, atol=1e-12)


def test_first_values_keep_sizes():
    torch.manual_seed(0)
    config = T5Config(1009, d_model=96, d_head=32, num_layers=2, num_heads=3, d_ff=192)
    for tied in (True, False):
        model = T5(dataclasses.replace(config, tied=tied)).eval()
        stds = {"word": 1.0, "query": (96 * 32) ** -0.5, "contract": 192**-0.5}
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                std = next((v for k, v in stds.items() if k in name), 96**-0.5)
                spread = 5 / (2 * parameter.numel()) ** 0.5
                assert abs(parameter.std() / std - 1) < spread, name
            else:
                assert torch.equal(parameter, torch.ones_like(parameter)), name
        ids = torch.randint(1009, (4, 31))
        logits = model(ids, ids)
        assert abs(logits.std() - 1) < 0.1
        loss = F.cross_entropy(logits.flatten(0, 1), torch.randint(1009, (124,)))
        assert abs(loss - math.log(1009)) < 1


def test_dropout_only_in_training(model):
    inputs = batch()
    assert torch.equal(model(**inputs), model(**inputs))
    model.train()
    assert not torch.equal(model(**inputs), model(**inputs))
    still = T5(dataclasses.replace(SMALL, dropout=0.0))
    assert torch.equal(still(**inputs), still(**inputs))
    places = [getattr(m, "dropout", None) for m in model.modules() if hasattr(m, "dropout")]
    assert set(places) == {0.1}


def test_each_dropout_is_there():
    """With dropout in one place alone: behind the words, or behind the last norm."""
    inputs = batch()
    model = T5(SMALL).double()
    for module in model.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.0
    for stack in (model.encoder, model.decoder):
        stack.dropout = 0.5
        seen = []
        hooks = [
            stack.layers[0].register_forward_pre_hook(lambda m, x, seen=seen: seen.append(x[0])),
            stack.register_forward_hook(lambda m, x, y, seen=seen: seen.append(y)),
        ]
        model(**inputs)
        for hook in hooks:
            hook.remove()
        for x in seen:
            assert abs((x == 0).double().mean() - 0.5) < 5 * 0.5 / x.numel() ** 0.5
        stack.dropout = 0.0


@pytest.mark.parametrize("config, size", [(T5Config(), 60_506_624), (
    T5Config(d_ff=1024, num_layers=8, num_heads=6, feed_forward="gated-gelu", tied=False),
    76_961_152,
)], ids=["v1.0", "v1.1"])  # fmt: skip
def test_small_has_the_published_size(config, size):
    """ "60M parameters", section 3.3; and google/t5-v1_1-small, 77M."""
    with torch.device("meta"):
        model = T5(config)
    assert sum(p.numel() for p in model.parameters()) == size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close(dtype):
    """Of a new model: the randomised one has logits that rounding turns."""
    torch.manual_seed(0)
    model, inputs = T5(SMALL).double().eval(), batch()
    want = model(**inputs)
    got = model.to(dtype)(**inputs)
    assert got.dtype == dtype
    assert (got.double() - want).abs().max() < 30 * torch.finfo(dtype).eps * want.abs().max()


def test_autocast_and_one_graph():
    torch.manual_seed(0)
    model, inputs = T5(SMALL).double().eval(), batch()
    want = model(**inputs)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**inputs), want, rtol=0, atol=1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        got = model.float()(**inputs)
    assert (got.double() - want).abs().max() < 0.2 * want.abs().max()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"d_head": 0}, "d_head: expected an integer of at least 1, got 0"),
        ({"num_decoder_layers": 0}, "num_decoder_layers: expected an integer of at least 1"),
        ({"feed_forward": "gelu"}, "feed_forward: expected one of relu, gated-gelu, got 'gelu'"),
        ({"tied": 1}, "tied: expected True or False, got 1"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"eps": math.nan}, r"eps: expected a number in \[0, inf\), got nan"),
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
        ({"decoder_input_ids": IDS[0]}, r"decoder_input_ids: expected shape \(B, n ≥ 1\), got"),
        ({"decoder_input_ids": IDS.float()}, "decoder_input_ids: expected torch.int64 or torch"),
        ({"decoder_input_ids": IDS[:1]}, "key: expected query's batch size 1, got 2"),
        ({"attention_mask": IDS[:, 1:]}, r"attention_mask: expected shape \(2, 5\), got \(2, 4\)"),
    ],
)
def test_forward_refuses(model, inputs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        model(**{"input_ids": IDS, "decoder_input_ids": IDS} | inputs)
