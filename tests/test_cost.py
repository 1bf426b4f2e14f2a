"""lib.cost held to counts: of parameters, operations, and bytes kept and allocated.

Sizes are primes, or as near as a head's width allows, and distinct. Memory is that of a CPU.
"""

import dataclasses
import math
from functools import cache

import pytest
import torch
from torch.utils._pytree import tree_leaves

from lib import cost
from lib.cache import KVCache
from lib.cost import (
    DEVICES,
    Cost,
    activation_bytes,
    arithmetic_intensity,
    flops,
    inference_bytes,
    kv_cache_bytes,
    linear,
    mfu,
    parameters,
    parts,
    peak_flops,
    roofline,
    step_bytes,
    training_bytes,
)
from lib.losses import causal_lm_loss
from lib.models.bert import BERT, BERTConfig
from lib.models.distilbert import DistilBERT, DistilBERTConfig
from lib.models.electra import Discriminator, Generator
from lib.models.gpt2 import GPT2, GPT2Config
from lib.models.longformer import Longformer, LongformerConfig
from lib.models.t5 import T5, T5Config
from lib.models.transformer import Transformer, TransformerConfig
from lib.models.vit import ViT, ViTConfig
from lib.teaching import measure
from lib.training import fit

V = 29
BASE = {"vocab_size": V, "d_model": 14, "num_layers": 3, "num_heads": 2, "d_ff": 23}
LONG = BASE | {"max_length": 71}
PAIR = BASE | {"num_decoder_layers": 2, "d_decoder_ff": 31, "num_decoder_heads": 7}
T5S = BASE | {"num_heads": 3, "d_head": 5, "num_decoder_layers": 2}

# name: model, config, its options, lib.cost's name where the config does not say it, sizes
FAMILIES = {
    "gpt2": (GPT2, GPT2Config, LONG, None, (3, 11)),
    "gpt2, one sequence": (GPT2, GPT2Config, LONG | {"d_ff": None}, None, (1, 13)),
    "bert": (BERT, BERTConfig, LONG, None, (3, 11)),
    "bert, relu": (BERT, BERTConfig, LONG | {"activation": "relu"}, "bert", (3, 11)),
    "generator": (Generator, BERTConfig, LONG | {"d_embedding": 5}, "electra_generator", (3, 11)),
    "discriminator": (
        Discriminator,
        BERTConfig,
        LONG | {"d_embedding": 5},
        "electra_discriminator",
        (3, 11),
    ),
    "discriminator, relu": (
        Discriminator,
        BERTConfig,
        LONG | {"activation": "relu", "num_segments": 0},
        "electra_discriminator",
        (3, 11),
    ),
    "distilbert": (DistilBERT, DistilBERTConfig, LONG, None, (3, 11)),
    "transformer": (Transformer, TransformerConfig, PAIR, None, (3, 11, 7)),
    "marian": (Transformer, TransformerConfig, PAIR | {"activation": "swish"}, None, (3, 5, 13)),
    "t5": (T5, T5Config, T5S, None, (3, 11, 7)),
    "t5 v1.1": (
        T5,
        T5Config,
        T5S | {"feed_forward": "gated-gelu", "tied": False},
        None,
        (3, 7, 13),
    ),
    "longformer": (Longformer, LongformerConfig, LONG | {"window": (4, 38, 46)}, None, (3, 53)),
    "longformer, whole blocks": (Longformer, LongformerConfig, LONG | {"window": 6}, None, (1, 64)),
    "longformer, short": (Longformer, LongformerConfig, LONG | {"window": 38}, None, (3, 13)),
    "longformer, one head": (
        Longformer,
        LongformerConfig,
        LONG | {"num_heads": 1, "window": (6, 38, 46)},
        None,
        (1, 53),
    ),
    "longformer, one sequence": (
        Longformer,
        LongformerConfig,
        LONG | {"window": (6, 38, 46)},
        None,
        (1, 53),
    ),
    "longformer, large blocks": (
        Longformer,
        LongformerConfig,
        LONG | {"max_length": 251, "window": (136, 38, 6)},
        None,
        (2, 211),
    ),
    "vit": (
        ViT,
        ViTConfig,
        {k: v for k, v in BASE.items() if k != "vocab_size"}
        | {"image_size": 35, "patch_size": 5, "num_classes": 11},
        None,
        (3,),
    ),
}
RATES = ("dropout", "attention_dropout", "activation_dropout", "embedding_dropout")
every_family = pytest.mark.parametrize("family", list(FAMILIES))


@cache
def made(family, rate=0.0, dtype=torch.float32, **changes):
    """A model in training mode, its config, the name for lib.cost, sizes and inputs."""
    model_class, config_class, options, name, sizes = FAMILIES[family]
    known = {field.name for field in dataclasses.fields(config_class)}
    options = options | {key: rate for key in RATES if key in known} | changes
    config = config_class(**options)
    torch.manual_seed(0)
    model = model_class(config).to(dtype)
    if model_class is ViT:
        inputs = (torch.randn(sizes[0], 3, 35, 35, dtype=dtype),)
    else:
        inputs = tuple(torch.randint(2, V, (sizes[0], n)) for n in sizes[1:])
    return model, config, name, sizes, inputs


def backward(model, inputs):
    sum(output.double().sum() for output in tree_leaves(model(*inputs))).backward()


def saved(model, inputs):
    own = [*model.parameters(), *model.buffers()]
    return sum(size for *_, size in measure.saved_tensors(model, *inputs, without=own))


def no_gradient(model, *inputs):
    with torch.no_grad():
        return model(*inputs)


@every_family
class TestFamily:
    def test_parameters(self, family):
        model, config, name, *_ = made(family)
        assert parameters(config, model=name) == sum(p.numel() for p in model.parameters())

    def test_forward(self, family):
        model, config, name, sizes, inputs = made(family)
        assert flops(config, *sizes, model=name) == measure.flops(model, *inputs)

    @pytest.mark.parametrize("rate", [0.0, 0.1])
    def test_forward_without_gradients(self, family, rate):
        model, config, name, sizes, inputs = made(family, rate)
        want = measure.flops(no_gradient, model, *inputs)
        assert flops(config, *sizes, model=name, gradients=False) == want
        assert activation_bytes(config, *sizes, model=name, gradients=False) == 0

    def test_backward(self, family):
        model, config, name, sizes, inputs = made(family)
        want = measure.flops(backward, model, inputs)
        assert flops(config, *sizes, model=name, backward=True) == want

    def test_backward_with_dropout(self, family):
        model, config, name, sizes, inputs = made(family, 0.1)
        want = measure.flops(backward, model, inputs)
        assert flops(config, *sizes, model=name, backward=True) == want

    @pytest.mark.parametrize("rate", [0.0, 0.1])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    def test_saved(self, family, rate, dtype):
        model, config, name, sizes, inputs = made(family, rate, dtype)
        assert activation_bytes(config, *sizes, model=name, dtype=dtype) == saved(model, inputs)

    def test_saved_in_evaluation(self, family):
        model, config, name, sizes, inputs = made(family, 0.1)
        model.eval()
        want = saved(model, inputs)
        model.train()
        assert activation_bytes(config, *sizes, model=name, training=False) == want

    def test_parts_are_the_whole(self, family):
        _, config, name, sizes, _ = made(family)
        counted = parts(config, *sizes, model=name)
        assert list(counted) == ["embedding", "attention", "feed_forward", "norm", "head"]
        total = sum(counted.values(), Cost())
        assert total.parameters == parameters(config, model=name)
        assert total.saved == activation_bytes(config, *sizes, model=name)


OFFICIAL = {  # parameters of the official checkpoints, with their heads
    "gpt2": (GPT2Config(), None, 124_439_808),
    "gpt2-xl": (GPT2Config(d_model=1600, num_layers=48, num_heads=25), None, 1_557_611_200),
    "bert-base with pooler and both heads": (BERTConfig(), None, 110_106_428),
    "distilbert": (DistilBERTConfig(), None, 66_985_530),
    "t5-small": (T5Config(), None, 60_506_624),
    "vit-b/16": (ViTConfig(), None, 86_567_656),
}


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_official_sizes(name):
    config, model, count = OFFICIAL[name]
    assert parameters(config, model=model) == count


def test_a_block_has_12_d_squared_and_13_d():
    for d in (16, 768):
        one, two = (parameters(GPT2Config(d_model=d, num_heads=4, num_layers=k)) for k in (1, 2))
        assert two - one == 12 * d * d + 13 * d


B, N = 5, 67
WIDE = {"d_model": 96, "num_layers": 2, "num_heads": 2}
PEAKS = {
    "gpt2, feed-forward": (GPT2, GPT2Config(31, **WIDE, max_length=N), (N,)),
    "gpt2, logits": (GPT2, GPT2Config(1511, **WIDE, max_length=N), (N,)),
    "gpt2, attention": (GPT2, GPT2Config(31, **WIDE, d_ff=101, max_length=N), (N,)),
    "bert": (BERT, BERTConfig(31, **WIDE, d_ff=384), (N,)),
    "bert, logits": (BERT, BERTConfig(1511, **WIDE, d_ff=384, d_embedding=53), (N,)),
    "distilbert, logits": (DistilBERT, DistilBERTConfig(1511, **WIDE, d_ff=384), (N,)),
    "bert, norm": (BERT, BERTConfig(31, **WIDE, d_ff=101), (N,)),
    "vit": (ViT, ViTConfig(77, 7, 3, 5, **WIDE, d_ff=384), ()),
    "transformer, reading": (Transformer, TransformerConfig(31, **WIDE, d_ff=384), (N, 31)),
    "transformer, writing": (Transformer, TransformerConfig(31, **WIDE, d_ff=384), (31, N)),
    "transformer, logits": (Transformer, TransformerConfig(1031, **WIDE, d_ff=384), (31, N)),
    "transformer, memory": (
        Transformer,
        TransformerConfig(31, **WIDE, d_ff=384, d_decoder_ff=61),
        (131, 127),
    ),
    "t5, reading": (T5, T5Config(31, 96, 48, 2, 2, 2, 384), (N, 31)),
    "t5, writing": (T5, T5Config(31, 96, 48, 2, 2, 2, 83), (31, N)),
    "t5, distances": (T5, T5Config(31, 96, 43, 2, 2, 6, 83), (131, N)),
    "t5, gate": (
        T5,
        T5Config(31, 96, 43, 1, 2, 6, 383, feed_forward="gated-gelu", tied=False),
        (N, 31),
    ),
    "t5, logits": (T5, T5Config(1131, 96, 43, 2, 2, 6, 83), (31, N)),
}


@pytest.fixture
def one_thread():
    """A fused kernel's scratch memory grows with the threads; what is modelled does not."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
class TestPeaks:
    @pytest.mark.parametrize("name", list(PEAKS))
    def test_inference(self, name):
        model_class, config, sizes = PEAKS[name]
        model = model_class(config).eval()
        if model_class is ViT:
            inputs = (torch.randn(B, 3, 77, 77),)
        else:
            inputs = tuple(torch.randint(31, (B, n)) for n in sizes)
        want = measure.peak_bytes(no_gradient, model, *inputs)
        assert inference_bytes(config, B, *sizes) == pytest.approx(want, rel=0.002)

    def test_inference_in_half_precision(self):
        config = GPT2Config(31, **WIDE, d_ff=101, max_length=N)
        model = GPT2(config).eval().bfloat16()
        want = measure.peak_bytes(no_gradient, model, torch.randint(31, (B, N)))
        assert inference_bytes(config, B, N, dtype=torch.bfloat16) == pytest.approx(want, rel=0.002)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    @pytest.mark.parametrize(("batch", "n", "vocab"), [(5, 61, 67), (1, 127, 131), (3, 31, 1511)])
    def test_training_step(self, dtype, batch, n, vocab):
        config = GPT2Config(vocab, 48, 2, 2, max_length=n, embedding_dropout=0.0, dropout=0.1)
        config = dataclasses.replace(config, attention_dropout=0.0)
        model = GPT2(config).to(dtype)

        def batch_loss(step):
            ids = torch.randint(vocab, (batch, n))
            return causal_lm_loss(model(ids), ids)

        want = measure.peak_bytes(lambda: fit(model, batch_loss, steps=2, learning_rate=1e-3))
        got = step_bytes(config, batch, n, dtype=dtype)
        assert list(got) == ["weights", "gradients", "moments", "activations", "logits"]
        assert got["weights"] == sum(p.nbytes for p in model.parameters())
        assert sum(got.values()) - got["weights"] == pytest.approx(want, rel=0.01)


class TestTraining:
    def test_bytes_of_a_parameter(self):
        config = GPT2Config(V, 14, 3, 2)
        count = parameters(config)
        each = {
            name: sum(training_bytes(config, name).values()) / count
            for name in ("float32", "mixed", "bfloat16", "float64")
        }
        assert each == {"float32": 16, "mixed": 16, "bfloat16": 8, "float64": 32}
        assert training_bytes(config, "mixed")["copy"] == 4 * count

    def test_what_adamw_holds(self):
        model, config, *_ = made("gpt2")
        backward(model, (torch.tensor([[1, 2, 3]]),))
        optimizer = torch.optim.AdamW(model.parameters())
        optimizer.step()
        moments = sum(
            value.nbytes
            for state in optimizer.state.values()
            for name, value in state.items()
            if name != "step"
        )
        want = training_bytes(config)
        assert moments == want["moments"] and want["copy"] == 0
        assert sum(p.grad.nbytes for p in model.parameters()) == want["gradients"]


class TestCache:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("family", ["gpt2", "transformer", "t5"])
    def test_bytes(self, family, dtype):
        model, config, _, sizes, inputs = made(family, 0.0, dtype)
        cached = KVCache(17)
        with torch.no_grad():
            if family == "gpt2":
                model(*inputs, cache=cached)
            else:
                memory = model.encode(inputs[0])
                model.decode(inputs[1], memory, cache=cached)
        want = sum(x.nbytes for kept in cached._kept.values() for x in kept)
        n = None if family == "gpt2" else sizes[1]
        assert kv_cache_bytes(config, sizes[0], 17, n, dtype=dtype) == want


class TestSpeed:
    def test_mfu(self):
        assert mfu(989.4e12 / 4, "NVIDIA H200", torch.bfloat16) == 0.25
        assert mfu(0.0, "Tesla T4", torch.float16) == 0.0

    def test_dense_and_not_sparse(self):
        for device in DEVICES.values():
            half = device.flops[torch.float16]
            if "tf32" in device.flops:
                assert half / device.flops["tf32"] == pytest.approx(2, rel=0.01)
            assert "NVIDIA" in device.source and device.bandwidth < 5e12
        assert peak_flops("NVIDIA H100 80GB HBM3", torch.bfloat16) == 989.4e12
        assert peak_flops("NVIDIA L4", torch.float16) == 121e12

    @pytest.mark.parametrize("name", ["NVIDIA H100", "nvidia h200", "H200", "cpu", "", None])
    def test_an_unknown_device_is_refused(self, name):
        with pytest.raises(
            ValueError, match=r"^device_name: expected one of NVIDIA H100"
        ) as caught:
            mfu(1e12, name, torch.bfloat16)
        assert "\n" not in str(caught.value) and "Tesla T4" in str(caught.value)

    def test_an_unknown_dtype_is_refused(self):
        with pytest.raises(ValueError, match=r"^dtype: expected one of float16, float32 for Tesla"):
            mfu(1e12, "Tesla T4", torch.bfloat16)

    @pytest.mark.parametrize("speed", [1.04 * 312e12, -1.0, math.nan])
    def test_more_than_the_peak_is_refused(self, speed):
        with pytest.raises(ValueError, match=r"^flops_per_second: expected 0 to 3.12e\+14"):
            mfu(speed, "NVIDIA A100-SXM4-80GB", torch.bfloat16)

    def test_intensity(self):
        moved = 2 * (3 * 5 + 5 * 7 + 3 * 7)
        assert arithmetic_intensity(3, 5, 7, dtype=torch.float16) == 2 * 3 * 5 * 7 / moved
        one = arithmetic_intensity(1, 4096, 4096, dtype=torch.bfloat16)
        assert one == pytest.approx(1, rel=0.001)  # decoding: one operation a byte

    def test_roofline(self):
        peak, bandwidth = 100.0, 10.0
        assert [roofline(i, peak, bandwidth) for i in (1, 10, 11)] == [10.0, 100.0, 100.0]


class TestParts:
    def test_costs_add(self):
        a, b = Cost(1, 2, 3, 4), Cost(10, 20, 30, 40)
        assert a + 2 * b == Cost(21, 42, 63, 84)

    def test_linear(self):
        want = Cost(5 * 7, 2 * 3 * 5 * 7, 2 * 3 * 5 * 7, 0)
        got = linear(3, 5, 7, bias=False, keeps_input=False, input_gradient=False)
        assert got == want


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: flops(GPT2Config(), 0, 5), "batch: expected an integer of at least 1, got 0"),
            (lambda: flops(GPT2Config(), 1), "n: expected an integer of at least 1, got None"),
            (lambda: flops(GPT2Config(), 1, True), "n: expected an integer of at least 1, got Tr"),
            (lambda: flops(GPT2Config(), 1, 1025), "n: expected at most 1024 tokens, got 1025"),
            (lambda: flops(LongformerConfig(), 1, 4097), "n: expected at most 4096 tokens, got 4"),
            (lambda: flops(ViTConfig(), 1, 197), "n: expected None, as ViT counts its patches"),
            (
                lambda: flops(T5Config(), 1, 7),
                "n_decoder: expected an integer of at least 1, got N",
            ),
            (lambda: flops(BERTConfig(), 1, 7, 7), "n_decoder: expected None, as there is no dec"),
            (
                lambda: parameters(BERTConfig(), model="gpt2"),
                "model: expected bert or electra_generator or electra_discriminator, got 'gpt2'",
            ),
            (lambda: parameters(GPT2Config(), model="bert"), "model: expected gpt2, got 'bert'"),
            (
                lambda: activation_bytes(GPT2Config(), 1, 7, dtype=torch.int8),
                "dtype: expected one of float64, float32, bfloat16, float16, got torch.int8",
            ),
            (
                lambda: inference_bytes(LongformerConfig(), 1, 7),
                "inference_bytes: expected fused attention, got longformer",
            ),
            (
                lambda: inference_bytes(GPT2Config(), 1, 7, dtype=torch.float64),
                "inference_bytes: expected fused attention, got torch.float64",
            ),
            (lambda: training_bytes(GPT2Config(), "fp8"), "precision: expected one of float32, mi"),
            (
                lambda: step_bytes(GPT2Config(), 1, 7, dtype=torch.float16),
                "dtype: expected float32",
            ),
            (lambda: kv_cache_bytes(BERTConfig(), 1, 7), "config: expected a model with a decoder"),
            (
                lambda: kv_cache_bytes(GPT2Config(), 1, 7, 5),
                "n: expected None, as GPT-2 reads",
            ),
            (lambda: kv_cache_bytes(T5Config(), 1, 7), "n: expected the tokens read, got None"),
            (lambda: kv_cache_bytes(GPT2Config(), 1, 0), "length: expected an integer of at least"),
            (lambda: arithmetic_intensity(1, 0, 1), "k: expected an integer of at least 1, got 0"),
            (lambda: roofline(0.0, 1.0, 1.0), "intensity: expected a positive number, got 0.0"),
            (lambda: roofline(1.0, math.inf, 1.0), "peak_flops: expected a positive number, got "),
        ],
    )
    def test_one_line_says_what_was_expected(self, call, message):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)

    @pytest.mark.parametrize("call", [parameters, lambda config: step_bytes(config, 1, 7)])
    def test_a_config_of_no_model_is_refused(self, call):
        with pytest.raises(TypeError, match=r"^config: expected .*, got dict$"):
            call({"d_model": 12})


def test_docstrings():
    import doctest

    results = doctest.testmod(cost)
    assert results.attempted > 15 and results.failed == 0
