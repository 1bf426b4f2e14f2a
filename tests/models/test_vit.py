"""lib.models.vit: against the official implementation, and held to its own contract."""

import dataclasses
import doctest
import json
import math

import pytest
import torch
from torch.nn import functional as F

from lib.checkpoints import CheckpointError
from lib.layers import ACTIVATIONS
from lib.models import vit
from lib.models.vit import ViT, ViTConfig
from tests.models import parity

transformers = parity.transformers()

SIZE, PATCH, CHANNELS, CLASSES = 15, 5, 2, 7
OFFICIAL = {
    "image_size": SIZE,
    "patch_size": PATCH,
    "num_channels": CHANNELS,
    "num_labels": CLASSES,
    "hidden_size": 21,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 29,
}
SMALL = ViTConfig(SIZE, PATCH, CHANNELS, CLASSES, d_model=21, num_layers=3, num_heads=3, d_ff=29)


def load(folder, dtype=torch.float64, **options):
    config = transformers.ViTConfig(**OFFICIAL | options)
    reference = parity.checkpoint(transformers.ViTForImageClassification(config), folder, dtype)
    return ViT.from_pretrained(folder), reference


def pixels(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, CHANNELS, SIZE, SIZE, generator=generator, dtype=torch.float64).to(dtype)


# The official implementation


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("hidden_act", ["gelu", "relu", "silu", "gelu_new"])
def test_equals_the_official_model(tmp_path, dtype, hidden_act):
    ours, reference = load(tmp_path, dtype, hidden_act=hidden_act)
    parity.assert_parity(ours, reference, {"pixel_values": pixels(dtype)})


@pytest.mark.parametrize("options", [{"patch_size": 3}, {"patch_size": 15}, {"num_labels": 2}])
def test_equals_the_official_model_with_other_sizes(tmp_path, options):
    ours, reference = load(tmp_path, **options)
    parity.assert_parity(ours, reference, {"pixel_values": pixels()})


def test_every_vector_is_the_official_one(tmp_path):
    ours, reference = load(tmp_path)
    want = reference.vit(pixels()).last_hidden_state
    torch.testing.assert_close(ours.encode(pixels()), want, rtol=0, atol=1e-12)


def test_the_official_model_reads_what_we_write(tmp_path):
    ours = parity.randomise(ViT(SMALL).double()).eval()
    ours.save_pretrained(tmp_path / "ours")
    reference, report = transformers.ViTForImageClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    assert not any(report.values()), report
    parity.assert_parity(ours, reference.eval(), {"pixel_values": pixels()})
    assert ViT.from_pretrained(tmp_path / "ours").config == SMALL


def test_classes_are_counted_by_their_names(tmp_path):
    load(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert "num_labels" not in config and len(config["id2label"]) == CLASSES
    assert ViT.from_pretrained(tmp_path).config.num_classes == CLASSES
    del config["id2label"]  # as in a file of two classes without names
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"misshapen tensor classifier.*expected shape \(2"):
        ViT.from_pretrained(tmp_path)


def test_queries_without_a_bias_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"^config.json: qkv_bias = False is not supported"):
        load(tmp_path, qkv_bias=False)


# Planted mistakes


def norm_last(model):
    for layer in model.layers:
        layer.norm = "post"


def forget_the_last_norm(model):
    model.norm.forward = lambda x: x


def forget_the_positions(model):
    model.embeddings.position.zero_()


def shift_the_positions(model):
    model.embeddings.position.copy_(model.embeddings.position.roll(1, dims=1))


def column_by_column(model):
    conv = model.embeddings.projection.forward
    model.embeddings.projection.forward = lambda x: conv(x).mT


def transpose_the_pixels_of_a_patch(model):
    weight = model.embeddings.projection.weight
    weight.copy_(weight.mT.clone())


def classify_the_last_patch(model):
    encode = model.encode
    model.encode = lambda x: encode(x).flip(1)


def classify_the_mean(model):
    encode = model.encode
    model.encode = lambda x: encode(x).mean(1, keepdim=True)


def class_token_last(model):
    forward = model.embeddings.forward
    model.embeddings.forward = lambda x: forward(x).roll(-1, dims=1)


def take_torchs_eps(model):
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-5


def approximate_the_gelu(model):
    for layer in model.layers:
        layer.feed_forward.activation = "gelu_tanh"


MISTAKES = {
    norm_last: "layers.0.attention.query_projection",
    forget_the_last_norm: "norm",
    forget_the_positions: "layers.0.attention_norm",
    shift_the_positions: "layers.0.attention_norm",
    column_by_column: "embeddings.projection",
    transpose_the_pixels_of_a_patch: "embeddings.projection",
    classify_the_last_patch: "classifier",
    classify_the_mean: "classifier",
    class_token_last: "layers.0.attention_norm",
    take_torchs_eps: "layers.0.attention_norm",
    approximate_the_gelu: "layers.0.feed_forward.contract",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_the_harness_catches(tmp_path, mistake):
    ours, reference = load(tmp_path)
    inputs = {"pixel_values": pixels()}
    parity.assert_parity(ours, reference, inputs)
    with torch.no_grad():
        mistake(ours)
    with pytest.raises(AssertionError, match="differs by") as caught:
        parity.assert_parity(ours, reference, inputs)
    assert str(caught.value).endswith(f"first in {MISTAKES[mistake]}")


# Our own contract


@pytest.fixture
def model():
    return parity.randomise(ViT(SMALL).double()).eval()


def test_docstrings():
    assert doctest.testmod(vit).failed == 0


def test_the_convolution_is_one_matrix_for_every_patch(model):
    """Equation 1: patches in reading order, flattened, times E, plus positions."""
    x, embeddings = pixels(), model.embeddings
    matrix = embeddings.projection.weight.flatten(1).mT  # (C P P, d_model)
    rows = [embeddings.class_token.expand(4, -1, -1)]
    for top in range(0, SIZE, PATCH):
        for left in range(0, SIZE, PATCH):
            patch = x[:, :, top : top + PATCH, left : left + PATCH].flatten(1)
            rows.append((patch @ matrix + embeddings.projection.bias)[:, None])
    want = torch.cat(rows, dim=1) + embeddings.position
    torch.testing.assert_close(embeddings(x), want, rtol=0, atol=1e-12)


def test_without_positions_patches_are_a_set(model):
    x = pixels()
    swapped = x.clone()
    swapped[:, :, :PATCH, :PATCH] = x[:, :, PATCH : 2 * PATCH, PATCH : 2 * PATCH]
    swapped[:, :, PATCH : 2 * PATCH, PATCH : 2 * PATCH] = x[:, :, :PATCH, :PATCH]
    assert (model(swapped) - model(x)).abs().max() > 1e-3
    with torch.no_grad():
        model.embeddings.position.zero_()
    torch.testing.assert_close(model(swapped), model(x), rtol=0, atol=1e-12)


def test_every_pixel_is_seen_and_images_are_apart(model):
    x = pixels().requires_grad_()
    model(x)[2].sum().backward()
    assert (x.grad[2] != 0).all() and (x.grad[[0, 1, 3]] == 0).all()


def test_it_starts_knowing_nothing():
    torch.manual_seed(0)
    model = ViT(dataclasses.replace(SMALL, d_model=96, num_classes=10)).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            assert abs(parameter.std() / 0.02 - 1) < 5 / (2 * parameter.numel()) ** 0.5, name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, "norm.weight" in name)), name
    logits = model(pixels(torch.float32))
    assert abs(F.cross_entropy(logits, torch.tensor([0, 3, 5, 9])) - math.log(10)) < 0.2


def test_dropout_only_in_training(model):
    model = ViT(dataclasses.replace(SMALL, dropout=0.1)).double().eval()
    assert torch.equal(model(pixels()), model(pixels()))
    model.train()
    assert not torch.equal(model(pixels()), model(pixels()))
    assert not torch.equal(model.embeddings(pixels()), model.embeddings(pixels()))


def test_base_has_the_published_size():
    with torch.device("meta"):
        model = ViT(ViTConfig())
    count = sum(p.numel() for p in model.parameters())
    assert count == 86_567_656  # "86M" in the paper's Table 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close(model, dtype):
    want = model(pixels())
    got = model.to(dtype)(pixels(dtype))
    assert got.dtype == dtype
    assert (got.double() - want).abs().max() < 20 * torch.finfo(dtype).eps * want.abs().max()


def test_autocast(model):
    model = model.float()
    want = model(pixels(torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        got = model(pixels(torch.float32))
    assert (got.float() - want).abs().max() < 0.1 * want.abs().max()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_classes": 0}, "num_classes: expected an integer of at least 1, got 0"),
        ({"patch_size": 4}, "patch_size: expected a divisor of image_size = 15, got 4"),
        ({"num_heads": 5}, "num_heads: expected a divisor of d_model = 21, got 5"),
        ({"image_size": (15, 15)}, r"image_size: expected an integer of at least 1, got \(15, 15"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"eps": math.nan}, r"eps: expected a number in \[0, inf\), got nan"),
        ({"activation": "tanh"}, f"activation: expected one of {', '.join(ACTIVATIONS)}, got"),
    ],
)
def test_config_refuses(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        dataclasses.replace(SMALL, **wrong)


def test_forward_refuses(model):
    shape = r"^pixel_values: expected shape \(B, 2, 15, 15\), got "
    with pytest.raises(ValueError, match=shape + r"\(4, 2, 15, 10\)$"):
        model(pixels()[..., :10])
    with pytest.raises(ValueError, match=shape + r"\(2, 15, 15\)$"):
        model(pixels()[0])
    with pytest.raises(ValueError, match=r"^pixel_values: expected torch.float64, got torch.fl"):
        model(pixels(torch.float32))
    with pytest.raises(ValueError, match=r"^pixel_values: expected device cpu, got meta$"):
        model(pixels().to("meta"))
    with pytest.raises(TypeError, match=r"^pixel_values: expected a torch.Tensor, got list$"):
        model([[0.0]])
