"""lib.layers held to its contract; torch's own modules are the second opinion.

Sizes are distinct primes, so that no transposition hides.
"""

import doctest
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib import activations, layers
from lib.attention import padding_mask
from lib.layers import (
    ACTIVATIONS,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    LayerNorm,
    RMSNorm,
    initialise,
    layer_norm,
)

B, N, D, D_FF, H = 2, 7, 15, 29, 5
THEIRS = {"gelu": F.gelu, "relu": F.relu, "swish": F.silu}  # what torch's own layer can have


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def randomise(module, seed=0):
    """Draw every parameter, so that no bias is 0 and no norm the identity."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(module.named_parameters()):
            noise = randn(*parameter.shape, seed=seed + i)
            one = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(1 + 0.3 * noise if one else 0.4 * noise)
    return module


def test_docstrings():
    assert doctest.testmod(layers).failed == 0


# LayerNorm


def by_hand(x, weight, bias, eps):
    """The definition in Python floats, for one token."""
    mean = sum(x) / len(x)
    variance = sum((a - mean) ** 2 for a in x) / len(x)
    return [
        w * (a - mean) / math.sqrt(variance + eps) + b
        for a, w, b in zip(x, weight, bias, strict=True)
    ]


@pytest.mark.parametrize("eps", [1e-5, 1e-12, 0.1])
def test_layer_norm_is_its_formula(eps):
    norm = randomise(LayerNorm(D, eps).double())
    x = 3 * randn(N, D) + 2
    parameters = (norm.weight.tolist(), norm.bias.tolist(), eps)
    want = torch.tensor([by_hand(row, *parameters) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(norm(x), want, rtol=0, atol=1e-12)
    read = norm.weight * layer_norm(x, eps) + norm.bias
    torch.testing.assert_close(read, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "x", [torch.tensor(1.0), torch.ones(N, D, dtype=torch.bfloat16), torch.ones(N, D).long()]
)
def test_the_formula_of_layer_norm_takes_tokens_of_single_or_double_precision(x):
    with pytest.raises(ValueError, match=r"x: expected \(\.\.\., d\) of float32 or float64, got"):
        layer_norm(x)


@pytest.mark.parametrize("shape", [(D,), (N, D), (B, N, D), (0, D), (B, 3, N, D)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_equals_torchs(shape, bias):
    ours = randomise(LayerNorm(D, 1e-5, bias=bias).double())
    theirs = nn.LayerNorm(D, 1e-5, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())  # the same names
    x = (3 * randn(*shape) + 2).requires_grad_()
    y = x.detach().clone().requires_grad_()
    torch.testing.assert_close(ours(x), theirs(y), rtol=0, atol=1e-12)

    weight = randn(*shape, seed=1)
    (ours(x) * weight).sum().backward()
    (theirs(y) * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)
    for name, parameter in ours.named_parameters():
        want = theirs.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, want, rtol=0, atol=1e-11)


def test_layer_norm_has_derivatives_of_derivatives():
    norm = randomise(LayerNorm(5).double())
    x = randn(2, 5).requires_grad_()
    parameters = (norm.weight, norm.bias)

    def function(x, *_):
        return norm(x)

    assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))


def test_a_token_of_equal_features_becomes_the_bias():
    norm = randomise(LayerNorm(D))
    for feature in (7.0, 3.1, 1e4):  # torch's kernel by itself is 7e-5 off at 3.1
        assert torch.equal(norm(torch.full((N, D), feature)), norm.bias.expand(N, D))
    assert torch.equal(LayerNorm(1)(torch.tensor([[5.0]])), torch.tensor([[0.0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layer_norm_computes_low_precision_in_float32(dtype):
    """Squares of 300 overflow in float16, and a mean of 300 takes bfloat16's digits."""
    norm = randomise(LayerNorm(D))
    x = (300 + 20 * randn(N, D)).to(dtype)
    want = norm(x.float())
    got = norm.to(dtype)(x)
    assert got.dtype == dtype
    norm = norm.float()  # γ and β are now rounded ones: their error is not the computation's
    want = norm(x.float())
    assert torch.equal(got, want.to(dtype))  # rounded once


def test_layer_norm_keeps_its_digits_where_the_mean_is_large():
    x = (1000 + randn(N, D)).float().requires_grad_()
    norm = randomise(LayerNorm(D))
    exact = LayerNorm(D).double()
    exact.load_state_dict(norm.state_dict())
    got, want = norm(x), exact(x.double())
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-6)
    got, want = (torch.autograd.grad(y[:, ::2].sum(), x)[0] for y in (got, want))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_nan_stays_within_its_token():
    x = randn(N, D)
    x[3, 2] = math.nan
    got = LayerNorm(D).double()(x)
    assert got[3].isnan().all()
    assert not got[[i for i in range(N) if i != 3]].isnan().any()


# RMSNorm


@pytest.mark.parametrize("eps", [1e-6, 0.1])
@pytest.mark.parametrize("shape", [(D,), (N, D), (B, 3, N, D)], ids=str)
def test_rms_norm_is_its_formula_and_torchs(shape, eps):
    norm = randomise(RMSNorm(D, eps).double())
    theirs = nn.RMSNorm(D, eps).double()
    theirs.load_state_dict(norm.state_dict())  # the same name
    x = (0.3 * randn(*shape) + 0.2).requires_grad_()
    rows = [
        [
            w * a / math.sqrt(sum(b * b for b in row) / D + eps)
            for a, w in zip(row, weight, strict=True)
        ]
        for row in x.reshape(-1, D).tolist()
        for weight in [norm.weight.tolist()]
    ]
    want = torch.tensor(rows, dtype=torch.float64).reshape(shape)
    torch.testing.assert_close(norm(x).detach(), want, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm(x), theirs(x), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(norm, x) and torch.autograd.gradgradcheck(norm, x)


def test_rms_norm_keeps_the_direction_and_the_mean():
    """What LayerNorm takes away: tokens of equal features are told apart by sign."""
    x = randn(N, D)
    got = RMSNorm(D, eps=0.0).double()(x)
    cosine = F.cosine_similarity(got, x, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-12)
    flat = torch.full((1, D), -7.0).double()
    assert torch.allclose(RMSNorm(D, 0.0).double()(flat), torch.full((1, D), -1.0).double())
    assert LayerNorm(D).double()(flat).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rms_norm_computes_low_precision_in_float32(dtype):
    norm, x = randomise(RMSNorm(D)).to(dtype), (300 + 20 * randn(N, D)).to(dtype)
    got, eps = norm(x), torch.finfo(dtype).eps
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), norm.float()(x.float()), rtol=eps, atol=eps)


# FeedForward


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_gated_feed_forward_is_its_formula(activation, bias):
    module = FeedForward(D, D_FF, activation=activation, bias=bias, gated=True)
    module = randomise(module.double())
    x = randn(B, N, D)
    bent = ACTIVATIONS[activation](F.linear(x, module.gate.weight, module.gate.bias))
    hidden = bent * F.linear(x, module.expand.weight, module.expand.bias)
    want = F.linear(hidden, module.contract.weight, module.contract.bias)
    torch.testing.assert_close(module(x), want, rtol=0, atol=1e-12)
    assert len(list(module.parameters())) == (6 if bias else 3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_feed_forward_is_its_formula(activation, bias):
    module = randomise(FeedForward(D, D_FF, activation=activation, bias=bias).double())
    bend = {
        "gelu": activations.gelu,
        "gelu_tanh": lambda x: activations.gelu(x, "tanh"),
        "relu": activations.relu,
        "swish": activations.swish,
    }[activation]
    x = randn(B, N, D)
    w_1, w_2 = module.expand.weight.T, module.contract.weight.T  # as the paper writes them
    b_1, b_2 = (module.expand.bias, module.contract.bias) if bias else (0.0, 0.0)
    want = bend(x @ w_1 + b_1) @ w_2 + b_2
    torch.testing.assert_close(module(x), want, rtol=0, atol=1e-12)
    assert (len(list(module.parameters())) == 4) == bias


def test_tokens_do_not_mix():
    module = randomise(FeedForward(D, D_FF).double())
    x = randn(B, N, D)
    want = module(x)
    x[1, 4] += 1
    changed = (module(x) != want).any(-1)
    assert changed.nonzero().tolist() == [[1, 4]]


def test_feed_forward_drops_behind_the_bend():
    """With contract the identity, the output shows what was dropped: bent values, scaled up."""
    module = FeedForward(D, D, activation="relu", dropout=0.25, bias=False).double()
    with torch.no_grad():
        module.expand.weight.copy_(torch.eye(D))
        module.contract.weight.copy_(torch.eye(D))
    x = randn(200, D).abs() + 0.1
    got = module(x)
    kept = got != 0
    torch.testing.assert_close(got[kept], x[kept] / 0.75, rtol=0, atol=1e-12)
    share, n = 1 - kept.double().mean().item(), x.numel()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / n)
    assert torch.equal(module.eval()(x), x)


# EncoderLayer


def torchs_layer(ours, norm, activation, dropout=0.0, eps=1e-5):
    """nn.TransformerEncoderLayer with the weights of ours."""
    theirs = nn.TransformerEncoderLayer(
        D, H, D_FF, dropout, THEIRS[activation], eps, batch_first=True, norm_first=norm == "pre"
    ).double()
    attention = ours.attention
    projections = [attention.query_projection, attention.key_projection, attention.value_projection]
    state = {
        "self_attn.in_proj_weight": torch.cat([p.weight for p in projections]),
        "self_attn.in_proj_bias": torch.cat([p.bias for p in projections]),
    }
    for their_name, module in {
        "self_attn.out_proj": attention.output_projection,
        "linear1": ours.feed_forward.expand,
        "linear2": ours.feed_forward.contract,
        "norm1": ours.attention_norm,
        "norm2": ours.feed_forward_norm,
    }.items():
        state |= {f"{their_name}.{name}": p for name, p in module.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("activation", THEIRS)
@pytest.mark.parametrize("eps", [1e-5, 1e-12])
def test_encoder_layer_equals_torchs(norm, activation, eps):
    ours = randomise(EncoderLayer(D, H, D_FF, norm=norm, activation=activation, eps=eps).double())
    theirs = torchs_layer(ours, norm, activation, eps=eps)
    x = randn(B, N, D).requires_grad_()
    y = x.detach().clone().requires_grad_()
    real = padding_mask([N, 3], N)
    causal = nn.Transformer.generate_square_subsequent_mask(N, dtype=torch.float64)

    torch.testing.assert_close(ours(x), theirs(y), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours(x, causal=True), theirs(y, causal), rtol=0, atol=1e-12)
    got, want = ours(x, real[:, None]), theirs(y, src_key_padding_mask=~real)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)

    weight = randn(B, N, D, seed=1)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_norms_place_matters(norm):
    """Positive control: the other place, or one norm for the other, is seen at once."""
    ours = randomise(EncoderLayer(D, H, D_FF, norm=norm).double())
    x = randn(B, N, D)
    want = ours(x)
    ours.norm = {"post": "pre", "pre": "post"}[norm]
    assert (ours(x) - want).abs().max() > 0.1
    ours.norm = norm
    ours.attention_norm, ours.feed_forward_norm = ours.feed_forward_norm, ours.attention_norm
    assert (ours(x) - want).abs().max() > 0.1


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_dropout_has_torchs_places(norm):
    """Both call F.dropout in the same order, so one seed gives one result. For one sequence, as a
    mask is drawn in the order of memory, which differs for more; and outside the attention, whose
    kernels draw in ways of their own."""
    ours = EncoderLayer(
        D, H, D_FF, dropout=0.3, attention_dropout=0.0, activation_dropout=0.3, norm=norm
    )
    ours = randomise(ours.double())
    theirs = torchs_layer(ours, norm, "gelu", dropout=0.3)
    theirs.self_attn.dropout = 0.0
    x = randn(1, N, D)
    torch.manual_seed(1)
    got = ours.train()(x)
    torch.manual_seed(1)
    want = theirs.train()(x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    assert (got - ours.eval()(x)).abs().max() > 0.1


def test_dropout_by_default():
    layer = EncoderLayer(D, H, D_FF, dropout=0.3)
    assert (layer.dropout, layer.attention.dropout, layer.feed_forward.dropout) == (0.3, 0.3, 0.0)
    layer = EncoderLayer(D, H, D_FF, dropout=0.3, attention_dropout=0.0)
    assert (layer.dropout, layer.attention.dropout) == (0.3, 0.0)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_compiles_as_one_graph(norm):
    layer = randomise(EncoderLayer(D, H, D_FF, norm=norm).double())
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x, mask = randn(B, N, D), padding_mask(torch.tensor([N, 3]), N)[:, None]
    torch.testing.assert_close(compiled(x, mask), layer(x, mask), rtol=0, atol=1e-12)


# DecoderLayer


def torchs_decoder_layer(ours, norm, activation, dropout=0.0, eps=1e-5):
    """nn.TransformerDecoderLayer with the weights of ours."""
    theirs = nn.TransformerDecoderLayer(
        D, H, D_FF, dropout, THEIRS[activation], eps, batch_first=True, norm_first=norm == "pre"
    ).double()
    state = {}
    for name, attention in {
        "self_attn": ours.attention,
        "multihead_attn": ours.cross_attention,
    }.items():
        parts = [attention.query_projection, attention.key_projection, attention.value_projection]
        state[f"{name}.in_proj_weight"] = torch.cat([p.weight for p in parts])
        state[f"{name}.in_proj_bias"] = torch.cat([p.bias for p in parts])
        state[f"{name}.out_proj.weight"] = attention.output_projection.weight
        state[f"{name}.out_proj.bias"] = attention.output_projection.bias
    for their_name, module in {
        "linear1": ours.feed_forward.expand,
        "linear2": ours.feed_forward.contract,
        "norm1": ours.attention_norm,
        "norm2": ours.cross_attention_norm,
        "norm3": ours.feed_forward_norm,
    }.items():
        state |= {f"{their_name}.{name}": p for name, p in module.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("activation", THEIRS)
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_decoder_layer_equals_torchs(norm, activation, eps):
    ours = randomise(DecoderLayer(D, H, D_FF, norm=norm, activation=activation, eps=eps).double())
    theirs = torchs_decoder_layer(ours, norm, activation, eps=eps)
    x, memory = randn(B, N, D).requires_grad_(), randn(B, 11, D, seed=3).requires_grad_()
    y, other = (t.detach().clone().requires_grad_() for t in (x, memory))
    real = padding_mask([11, 4], 11)
    causal = nn.Transformer.generate_square_subsequent_mask(N, dtype=torch.float64)

    open_ = ours(x, memory, causal=False)
    torch.testing.assert_close(open_, theirs(y, other), rtol=0, atol=1e-12)
    got = ours(x, memory, memory_mask=real[:, None])
    want = theirs(y, other, causal, memory_key_padding_mask=~real)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    assert (got - open_).abs().max() > 0.1  # control

    weight = randn(B, N, D, seed=1)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-11)
    torch.testing.assert_close(memory.grad, other.grad, rtol=0, atol=1e-11)
    assert (memory.grad[1, 4:] == 0).all() and (memory.grad[1, :4] != 0).any()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_decoder_dropout_has_torchs_places(norm):
    ours = DecoderLayer(
        D, H, D_FF, dropout=0.3, attention_dropout=0.0, activation_dropout=0.3, norm=norm
    )
    ours = randomise(ours.double())
    theirs = torchs_decoder_layer(ours, norm, "gelu", dropout=0.3)
    theirs.self_attn.dropout = theirs.multihead_attn.dropout = 0.0
    x, memory = randn(1, N, D), randn(1, 11, D, seed=3)
    torch.manual_seed(1)
    got = ours.train()(x, memory, causal=False)
    torch.manual_seed(1)
    torch.testing.assert_close(got, theirs.train()(x, memory), rtol=0, atol=1e-12)
    assert DecoderLayer(D, H, D_FF, dropout=0.3).cross_attention.dropout == 0.3


@pytest.mark.parametrize("layer_class", [EncoderLayer, DecoderLayer])
def test_options_reach_every_part(layer_class):
    """As T5 has them: no biases, an RMSNorm, gates, heads of a width of their own, no scale."""
    layer = layer_class(
        D, 2, D_FF, norm="pre", eps=0.1, norm_class=RMSNorm, d_head=4, scaled=False, bias=False,
        gated=True,
    )  # fmt: skip
    norms = [m for m in layer.modules() if isinstance(m, RMSNorm)]
    attentions = [m for name, m in layer.named_children() if name.endswith("attention")]
    assert len(norms) == 1 + len(attentions) and all(m.eps == 0.1 for m in norms)
    assert all((m.d_head, m.scaled, m.num_heads) == (4, False, 2) for m in attentions)
    assert layer.feed_forward.gate is not None
    assert not any(name.endswith("bias") for name, _ in layer.named_parameters())
    assert not any(isinstance(m, LayerNorm) for m in layer.modules())


# initialise


def test_initialise():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(500, 31), LayerNorm(31), FeedForward(31, 97, bias=False))
    model.append(nn.Linear(31, 97))
    norm = {name: p.clone() for name, p in model[1].named_parameters()}
    initialise(model, 0.05)
    for parameter in (p for p in model.parameters() if p.ndim == 2):
        assert abs(parameter.std() / 0.05 - 1) < 5 / math.sqrt(2 * parameter.numel())
        assert abs(parameter.mean()) < 5 * 0.05 / math.sqrt(parameter.numel())
    assert torch.equal(model[3].bias, torch.zeros(97))
    assert all(torch.equal(p, norm[name]) for name, p in model[1].named_parameters())


# Errors


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LayerNorm(0), "d_model: expected an integer of at least 1, got 0"),
        (lambda: LayerNorm(True), "d_model: expected an integer of at least 1, got True"),
        (lambda: LayerNorm(D, -1.0), "eps: expected a finite number of at least 0, got -1.0"),
        (lambda: LayerNorm(D, math.nan), "eps: expected a finite number of at least 0, got nan"),
        (lambda: RMSNorm(0), "d_model: expected an integer of at least 1, got 0"),
        (lambda: RMSNorm(D, math.inf), "eps: expected a finite number of at least 0, got inf"),
        (lambda: RMSNorm(D)(randn(N, D + 1)), r"x: expected shape \(..., 15\), got \(7, 16\)"),
        (lambda: DecoderLayer(D, 4, 1), "num_heads: expected a divisor of d_model = 15, got 4"),
        (lambda: EncoderLayer(D, 4, 1, d_head=0), "d_head: expected an integer of at least 1"),
        (lambda: FeedForward(D, 0), "d_ff: expected an integer of at least 1, got 0"),
        (lambda: FeedForward(D, 1, dropout=1.0), r"dropout: expected a number in \[0, 1\), got"),
        (lambda: FeedForward(D, 1, activation="tanh"), "activation: expected one of gelu, gelu_"),
        (lambda: EncoderLayer(D, H, 1, norm="none"), "norm: expected 'post' or 'pre', got 'none'"),
        (lambda: EncoderLayer(D, H, 1, dropout=-0.1), r"dropout: expected a number in \[0, 1\)"),
        (lambda: EncoderLayer(D, 4, 1), "num_heads: expected a divisor of d_model = 15, got 4"),
        (lambda: LayerNorm(D)(randn(N, D + 1)), r"x: expected shape \(..., 15\), got \(7, 16\)"),
        (lambda: LayerNorm(1)(torch.tensor(1.0)), r"x: expected shape \(..., 1\), got \(\)"),
        (lambda: FeedForward(D, 1)(torch.ones(D).int()), "x: expected float64, float32, bfloat16"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_refuses_what_is_no_tensor():
    with pytest.raises(TypeError, match=r"^x: expected a torch.Tensor, got list"):
        LayerNorm(1)([1.0])
