"""lib.models.transformer: against official Marian, and held to its own contract.

In "fp64" the reference has one tensor of float32 numbers: its table of sines. With it both agree to
1e-6; with that table in float64, to 1e-10.
"""

import dataclasses
import doctest
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from lib.cache import KVCache
from lib.checkpoints import CheckpointError
from lib.generation import beam_search, greedy, sample
from lib.models import transformer
from lib.models.transformer import Transformer, TransformerConfig
from lib.positions import sinusoidal_encoding
from tests.models import parity

transformers = parity.transformers()

V, N, M, D = 47, 13, 7, 30  # words, tokens read, tokens written, features (even, for sines)
OFFICIAL = {
    "vocab_size": V,
    "d_model": D,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 5,
    "encoder_ffn_dim": 29,
    "decoder_ffn_dim": 37,
    "max_position_embeddings": 41,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 46,
    "decoder_start_token_id": 46,
    "eos_token_id": 0,
    "forced_eos_token_id": None,
}
SMALL = TransformerConfig(
    V, d_model=D, num_layers=3, num_decoder_layers=2, num_heads=3, num_decoder_heads=5, d_ff=29,
    d_decoder_ff=37, max_length=41, activation="swish", pad_token_id=46,
)  # fmt: skip


def load(folder, dtype=torch.float64, *, exact=True, seed=0, **options):
    """Ours and the reference; `exact`: with a table of sines in the precision of the rest."""
    reference = transformers.MarianMTModel(transformers.MarianConfig(**OFFICIAL | options))
    generator = torch.Generator().manual_seed(5)
    reference.final_logits_bias.copy_(torch.randn(1, V, generator=generator))  # a buffer
    reference = parity.checkpoint(reference, folder, dtype, seed)
    for stack in (reference.model.encoder, reference.model.decoder):
        table = stack.embed_positions
        assert not table.weight.requires_grad
        want = table.create_weight() if not exact else sinusoidal_encoding(
            41, D, layout="concatenated", dtype=dtype
        )  # fmt: skip
        table.weight.data.copy_(want)  # which randomising has spoilt
    reference.save_pretrained(folder)
    return Transformer.from_pretrained(folder), reference


def batch(seed=0, n=N, m=M):
    inputs = parity.batch(V, n, segments=False, seed=seed)
    written = torch.randint(V, (3, m), generator=torch.Generator().manual_seed(seed + 1))
    return inputs | {"decoder_input_ids": written}


# The official implementation


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"scale_embedding": False}, {"activation_function": "relu"}]
)
def test_equals_the_official_model(tmp_path, dtype, options):
    ours, reference = load(tmp_path, dtype, **options)
    parity.assert_parity(ours, reference, batch())
    longer = batch(n=41, m=33)
    del longer["attention_mask"]
    parity.assert_parity(ours, reference, longer)


def test_the_table_of_sines_is_what_limits_the_reference(tmp_path):
    ours, reference = load(tmp_path, exact=False)
    assert 1e-10 < parity.measure(ours, reference, batch(), ("logits",)).worst < 1e-6


def test_the_official_model_reads_what_we_write(tmp_path):
    ours = parity.randomise(Transformer(SMALL).double()).eval()
    ours.output_bias.copy_(torch.randn(1, V, generator=torch.Generator().manual_seed(5)))
    ours.save_pretrained(tmp_path / "ours")
    reference, report = transformers.MarianMTModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    report["missing_keys"] -= {
        f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")
    }
    assert not any(report.values()), report
    parity.assert_parity(ours, reference.eval(), batch(), tolerance=1e-6)


def test_official_files_hold_more(tmp_path):
    ours, _ = load(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        tensors[f"{name}.weight"] = tensors["model.shared.weight"].clone()
    for stack in ("encoder", "decoder"):
        tensors[f"model.{stack}.embed_positions.weight"] = torch.ones(41, D).double()
    save_file(tensors, path)
    assert torch.equal(Transformer.from_pretrained(tmp_path)(**batch()), ours(**batch()))


@pytest.mark.parametrize("option, value", [("share_encoder_decoder_embeddings", False)])
def test_another_model_is_refused(tmp_path, option, value):
    config = transformers.MarianConfig(**OFFICIAL, **{option: value}, tie_word_embeddings=False)
    transformers.MarianMTModel(config).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=rf"^config.json: {option} = {value} is not supported"
    ):
        Transformer.from_pretrained(tmp_path)


# Planted mistakes


def interleave_the_sines(model):
    model.position.layout = "interleaved"
    model.position.double()  # computes the table again


def forget_root_d(model):
    model.config = dataclasses.replace(model.config, scale_embedding=False)


def norm_first(model):
    for layer in (*model.encoder, *model.decoder):
        layer.norm = "pre"


def forget_the_output_bias(model):
    model.output_bias.zero_()


def exact_gelu(model):
    for layer in (*model.encoder, *model.decoder):
        layer.feed_forward.activation = "gelu"


def see_the_future(model):
    for layer in model.decoder:
        step = layer.forward
        layer.forward = lambda *x, step=step, **options: step(*x, **options, causal=False)


def forget_the_padding(model):
    decode = model.decode
    model.decode = lambda ids, memory, attention_mask: decode(ids, memory)


def read_oneself_again(model):
    """Cross-attention to the decoder's own states, not to the memory."""
    for layer in model.decoder:
        read = layer.cross_attention
        step = read.forward
        read.forward = lambda query, key, mask, cache, step=step: step(query, query)


MISTAKES = {
    interleave_the_sines: "encoder.0.attention.query_projection",
    forget_root_d: "encoder.0.attention.query_projection",
    norm_first: "encoder.0.attention_norm",
    forget_the_output_bias: "the output alone",
    exact_gelu: "encoder.0.feed_forward.contract",
    see_the_future: "decoder.0.attention.output_projection",
    forget_the_padding: "decoder.0.cross_attention.output_projection",
    read_oneself_again: "decoder.0.cross_attention.key_projection",
}


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_the_harness_catches(tmp_path, dtype, mistake):
    ours, reference = load(tmp_path, dtype)
    inputs = batch(m=N)  # of one length, so that nothing fails for its shape
    parity.assert_parity(ours, reference, inputs)
    with torch.no_grad():
        mistake(ours)
        if mistake is interleave_the_sines:
            ours.to(dtype)
    with pytest.raises(AssertionError, match="differs by") as caught:
        parity.assert_parity(ours, reference, inputs)
    assert str(caught.value).endswith(f"first in {MISTAKES[mistake]}")


# Generation


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    return load(tmp_path_factory.mktemp("marian"), seed=2, eos_token_id=END)


END = 0


def sources():
    inputs = {name: x for name, x in batch(seed=3).items() if name != "decoder_input_ids"}
    return {name: torch.cat([x, x.roll(1, 1), x.roll(2, 1)]) for name, x in inputs.items()}


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_equals_the_official_one(writers, use_cache):
    ours, reference = writers
    got = greedy(ours, **sources(), max_new_tokens=15, use_cache=use_cache)
    with torch.no_grad():
        want = reference.generate(**sources(), max_new_tokens=15, do_sample=False, num_beams=1)
    assert torch.equal(got, want)
    ended = (got == END).any(1)
    assert (got[:, 0] == 46).all() and len(got.unique()) > 3 and ended.any() and not ended.all()


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


@pytest.mark.parametrize("num_beams", [1, 4])
def test_banned_tokens_are_never_written(writers, tmp_path, num_beams):
    """Official configurations ban padding, which is the start token and was never learned."""
    _, reference = writers
    free = greedy(writers[0], **sources(), max_new_tokens=9, eos_token_id=())
    banned = [token for token in free[:, 1].unique().tolist() if token != END]
    config = dataclasses.replace(writers[0].config, banned_token_ids=tuple(banned))
    model = Transformer(config).double()
    model.load_state_dict(writers[0].state_dict())
    model.save_pretrained(tmp_path / "banned")
    ours = Transformer.from_pretrained(tmp_path / "banned")
    assert ours.config == config
    write = greedy if num_beams == 1 else beam_search
    got = write(ours, **sources(), max_new_tokens=9, **{"num_beams": 4} if num_beams > 1 else {})
    with torch.no_grad():
        want = reference.generate(
            **sources(), max_new_tokens=9, do_sample=False, num_beams=num_beams,
            early_stopping=False if num_beams > 1 else None,
            bad_words_ids=[[token] for token in banned],
        )  # fmt: skip
    assert torch.equal(got, want)
    assert not torch.isin(got[:, 1:], torch.tensor(banned)).any()


def test_bans_of_several_tokens_are_refused(tmp_path):
    Transformer(SMALL).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("{", '{"bad_words_ids": [[1, 2]],', 1))
    with pytest.raises(CheckpointError, match=r"^config.json: bad_words_ids = \[\[1, 2\]\] is not"):
        Transformer.from_pretrained(tmp_path)


def test_draws_are_the_same_with_and_without_a_cache(writers):
    ours, _ = writers

    def run(**options):
        generator = torch.Generator().manual_seed(0)
        return sample(ours, **sources(), max_new_tokens=15, generator=generator, **options)

    assert torch.equal(run(), run(use_cache=False))


@pytest.mark.parametrize("sizes", [[33], [1] * 33, [7, 1, 1, 24]], ids=str)
def test_a_cache_changes_nothing(model, sizes):
    inputs = batch(m=33)
    ids, mask = inputs["decoder_input_ids"], inputs["attention_mask"]
    with torch.no_grad():
        want = model(**inputs)
        memory, cache = model.encode(inputs["input_ids"], attention_mask=mask), KVCache(33)
        got = [
            model.decode(part, memory, attention_mask=mask, cache=cache)
            for part in ids.split(sizes, dim=1)
        ]
    torch.testing.assert_close(torch.cat(got, 1), want, rtol=0, atol=1e-12)


# Our own contract


@pytest.fixture
def model():
    return parity.randomise(Transformer(SMALL).double()).eval()


def test_docstrings():
    assert doctest.testmod(transformer).failed == 0


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
        read, written = inputs["input_ids"][i, :length], inputs["decoder_input_ids"][i]
        torch.testing.assert_close(model(read[None], written[None])[0], want[i], rtol=0, atol=1e-12)
    assert (model(other, inputs["decoder_input_ids"]) - want).abs().max() > 1e-3  # control


def test_equals_torchs_transformer():
    """The paper's model, against nn.Transformer, which leaves words, positions and output to us."""
    torch.manual_seed(0)
    config = TransformerConfig(V, d_model=D, num_layers=2, num_heads=2, d_ff=29)
    ours = Transformer(config).double().eval()
    theirs = nn.Transformer(D, 2, 2, 2, 29, 0.0, batch_first=True).double()
    theirs.encoder.norm = theirs.decoder.norm = nn.Identity()  # a norm that no paper has: D16
    state = {}
    for stack, layers in (("encoder", ours.encoder), ("decoder", ours.decoder)):
        for i, layer in enumerate(layers):
            names = {"attention": "self_attn", "cross_attention": "multihead_attn"}
            for name, their_name in names.items():
                attention = getattr(layer, name, None)
                if attention is None:
                    continue
                parts = [getattr(attention, f"{x}_projection") for x in ("query", "key", "value")]
                at = f"{stack}.layers.{i}.{their_name}"
                state[f"{at}.in_proj_weight"] = torch.cat([p.weight for p in parts])
                state[f"{at}.in_proj_bias"] = torch.cat([p.bias for p in parts])
                state[f"{at}.out_proj.weight"] = attention.output_projection.weight
                state[f"{at}.out_proj.bias"] = attention.output_projection.bias
            norms = [layer.attention_norm, layer.feed_forward_norm]
            if stack == "decoder":
                norms.insert(1, layer.cross_attention_norm)
            parts = {f"norm{j + 1}": norm for j, norm in enumerate(norms)}
            parts |= {"linear1": layer.feed_forward.expand, "linear2": layer.feed_forward.contract}
            for their_name, part in parts.items():
                for leaf, tensor in part.state_dict().items():
                    state[f"{stack}.layers.{i}.{their_name}.{leaf}"] = tensor
    theirs.load_state_dict(state)
    inputs = batch()
    pads = inputs["attention_mask"] == 0
    sines = sinusoidal_encoding(N, D, layout="concatenated", dtype=torch.float64)
    read, written = (
        ours.word(inputs[name]) * math.sqrt(D) + sines[:n]
        for name, n in (("input_ids", N), ("decoder_input_ids", M))
    )
    future = nn.Transformer.generate_square_subsequent_mask(M, dtype=torch.float64)
    hidden = theirs(
        read, written, tgt_mask=future, src_key_padding_mask=pads, memory_key_padding_mask=pads
    )
    want = F.linear(hidden, ours.word.weight)
    torch.testing.assert_close(ours(**inputs), want, rtol=0, atol=1e-12)


def test_words_are_of_size_one_beside_the_sines():
    """D30, by the first values: times √d_model, words have the size that positions have."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(1009, num_layers=1, num_heads=8, d_ff=64)).eval()
    words = model.word.weight * math.sqrt(512)
    assert abs(words.std() - 1) < 5 / math.sqrt(2 * words.numel())
    logits = model(*torch.randint(1009, (2, 4, 31)))
    assert abs(logits.std() - 1) < 0.1
    assert torch.equal(model.output_bias, torch.zeros(1, 1009))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.full_like(parameter, "norm.weight" in name)), name
    model = Transformer(dataclasses.replace(model.config, init_std=0.02))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            assert abs(parameter.std() / 0.02 - 1) < 5 / (2 * parameter.numel()) ** 0.5, name


def test_dropout_only_in_training(model):
    inputs = batch()
    assert torch.equal(model(**inputs), model(**inputs))
    names = ("dropout", "attention_dropout", "activation_dropout")
    for name in names:
        still = Transformer(dataclasses.replace(SMALL, **dict.fromkeys(names, 0.0)))
        assert torch.equal(still(**inputs), still(**inputs))
        one = Transformer(dataclasses.replace(SMALL, **dict.fromkeys(names, 0.0) | {name: 0.5}))
        assert not torch.equal(one(**inputs), one(**inputs)), name
    alone = Transformer(dataclasses.replace(SMALL, dropout=0.5))
    for layer in (*alone.encoder, *alone.decoder):
        layer.dropout = 0.0
    assert not torch.equal(alone(**inputs), alone(**inputs))  # the sum of word and position


def test_what_is_none_of_the_decoder_is_as_in_the_encoder():
    config = TransformerConfig(V, d_model=30, num_layers=3, num_heads=5, d_ff=31, pad_token_id=7)
    assert (config.num_decoder_layers, config.num_decoder_heads) == (3, 5)
    assert (config.d_decoder_ff, config.start_token_id) == (31, 7)


def test_one_graph_and_low_precision():
    torch.manual_seed(0)
    model, inputs = Transformer(SMALL).double().eval(), batch()
    want = model(**inputs)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**inputs), want, rtol=0, atol=1e-12)
    got = model.bfloat16()(**inputs)
    assert got.dtype == torch.bfloat16
    assert (got.double() - want).abs().max() < 0.2 * want.abs().max()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"vocab_size": 0}, "vocab_size: expected an integer of at least 1, got 0"),
        ({"num_decoder_layers": 0}, "num_decoder_layers: expected an integer of at least 1"),
        ({"num_heads": 4}, "num_heads: expected a divisor of d_model = 30, got 4"),
        ({"num_decoder_heads": 4}, "num_decoder_heads: expected a divisor of d_model = 30, got 4"),
        ({"activation": "tanh"}, "activation: expected one of gelu, gelu_tanh, relu, swish, got"),
        ({"activation_dropout": 1.0}, r"activation_dropout: expected a number in \[0, 1\), got"),
        ({"init_std": -1.0}, r"init_std: expected a number in \[0, inf\), got -1.0"),
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
        ({"decoder_input_ids": IDS.float()}, "decoder_input_ids: expected torch.int64 or torch"),
        ({"decoder_input_ids": IDS[:1]}, "key: expected query's batch size 1, got 2"),
        ({"attention_mask": IDS[:, 1:]}, r"attention_mask: expected shape \(2, 5\), got \(2, 4\)"),
    ],
)
def test_forward_refuses(model, inputs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        model(**{"input_ids": IDS, "decoder_input_ids": IDS} | inputs)
