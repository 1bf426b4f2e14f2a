"""What a model costs, before it is made: parameters, operations, bytes, from the config alone.

Derived in chapter 21_counting_cost.

Every count is made of the same few parts: `linear`, `norm`, `embedding`, `attention` and
`feed_forward` each return a `Cost`, costs add up, and a model of lib is a sum of them, `parts`.

    parameters   numbers that are trained; what is used twice (tied words) is counted once
    forward      floating-point operations of the matrix products, a multiply-add as two
    backward     those of the backward pass, for the gradient of every parameter
    saved        bytes that autograd keeps from the forward pass for the backward pass

Sizes are written B for batch, n for tokens of a sequence, d for d_model, h for heads, f for d_ff, V
for vocab_size, L for layers. An encoder reads n tokens; a decoder beside it writes `n_decoder`. The
counts are those of `model(ids)` without masks, all tokens real: no padding, no global token.

They are held to counts, in tests/test_cost.py: parameters and operations to the number that torch
counts, `saved` to the byte that autograd holds, on a CPU. A GPU runs the same matrix products, but
other kernels elsewhere, and keeps other bytes: dropout keeps one byte an element there, a fused
kernel of attention takes dropout too, its log-sums may be padded. Those bytes are not counted here.

Errors. ValueError, in one line with what was expected and what came, for a size, dtype or device
that is not known; nothing is guessed. TypeError for a config of no model of lib.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

from lib.models.bert import BERTConfig
from lib.models.distilbert import DistilBERTConfig
from lib.models.gpt2 import GPT2Config
from lib.models.longformer import LongformerConfig
from lib.models.t5 import FEED_FORWARD, T5Config
from lib.models.transformer import TransformerConfig
from lib.models.vit import ViTConfig

__all__ = [
    "DEVICES",
    "Cost",
    "Device",
    "activation_bytes",
    "arithmetic_intensity",
    "attention",
    "embedding",
    "feed_forward",
    "flops",
    "inference_bytes",
    "kv_cache_bytes",
    "linear",
    "mfu",
    "norm",
    "parameters",
    "parts",
    "peak_flops",
    "roofline",
    "step_bytes",
    "training_bytes",
]

_BYTES = {torch.float64: 8, torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}


@dataclass(frozen=True)
class Cost:
    """Four counts of one part of a model; costs add, and a whole number of them multiplies.

    >>> linear(tokens=5, inputs=3, outputs=2) + 2 * norm(tokens=5, width=3)
    Cost(parameters=20, forward=60, backward=120, saved=380)
    """

    parameters: int = 0
    forward: int = 0
    backward: int = 0
    saved: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    def __rmul__(self, times: int) -> Cost:
        return Cost(*(times * getattr(self, f.name) for f in fields(Cost)))


# The parts


def linear(
    tokens: int,
    inputs: int,
    outputs: int,
    *,
    bias: bool = True,
    keeps_input: bool = True,
    input_gradient: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Cost:
    """Count a linear map of so many tokens.

        parameters = inputs · outputs (+ outputs),     forward = 2 · tokens · inputs · outputs

    Backward takes two products of the same size, one for the weight's gradient and one for the
    input's; without the latter (`input_gradient=False`, the first map of a network) only one. Kept
    is the input, for the weight's gradient; `keeps_input=False` where another part counts it.

    Derived in chapter 21_counting_cost.

    >>> linear(tokens=5, inputs=3, outputs=2)
    Cost(parameters=8, forward=60, backward=120, saved=60)
    """
    product = 2 * tokens * inputs * outputs
    return Cost(
        inputs * outputs + bias * outputs,
        product,
        (1 + input_gradient) * product,
        keeps_input * tokens * inputs * _size(dtype),
    )


def norm(tokens: int, width: int, *, rms: bool = False, dtype: torch.dtype = torch.float32) -> Cost:
    """Count a `LayerNorm`, or with `rms` an `RMSNorm`, of so many tokens.

    Kept, in at least 4 bytes a number: the centred input (of RMSNorm the input), that divided by
    its size, and one over the size for each token; torch's kernel, which LayerNorm calls, also
    keeps the mean that it found, 0 but for rounding. The output is kept by whatever linear map
    reads it. No matrix product. In half precision RMSNorm keeps its input in float32, a copy.

    Derived in chapter 21_counting_cost.

    >>> norm(tokens=5, width=3)
    Cost(parameters=6, forward=0, backward=0, saved=160)
    """
    wide = max(4, _size(dtype))
    return Cost(
        parameters=(1 if rms else 2) * width,
        saved=wide * tokens * (2 * width + 1 + (not rms)),
    )


def embedding(rows: int, width: int, *, tokens: int = 0) -> Cost:
    """Count a table of vectors, which so many ids of 8 bytes look up: no matrix product.

    Derived in chapter 21_counting_cost.

    >>> embedding(rows=11, width=3, tokens=5)
    Cost(parameters=33, forward=0, backward=0, saved=40)
    """
    return Cost(parameters=rows * width, saved=8 * tokens)


def attention(
    batch: int,
    n_q: int,
    d_model: int,
    num_heads: int,
    *,
    n_k: int | None = None,
    d_head: int | None = None,
    bias: bool = True,
    dropout: bool = False,
    fused: bool = True,
    keeps_input: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Cost:
    """Count multi-head attention: four projections, logits, weighted sums.

        parameters = 4 · d · w (+ 3 w + d),       w = h · d_head, the width of all heads
        forward    = 4 · B · n_q · d · w + 4 · B · n_k · d · w + 4 · B · n_q · n_k · w

    n_k : keys and values of another sequence, which is kept elsewhere; left out, self-attention
    fused : bool
        A fused kernel keeps queries, keys, values, outputs, and one float32 for each row of
        weights; it computes the logits again in the backward pass, which so takes 5 products where
        the forward pass took 2. A composed one keeps the weights, and takes 4; with `dropout`, also
        what they were multiplied by and the product. A causal mask saves neither, in this count.

    Derived in chapter 21_counting_cost; the attention itself in 02_attention and 03_multi_head.

    >>> attention(batch=2, n_q=5, d_model=6, num_heads=3)
    Cost(parameters=168, forward=4080, backward=8760, saved=1320)
    """
    size = _size(dtype)
    n_k = n_q if n_k is None else n_k
    width = num_heads * (d_model // num_heads if d_head is None else d_head)
    maps = (
        linear(batch * n_q, d_model, width, bias=bias, dtype=dtype, keeps_input=keeps_input)
        + 2 * linear(batch * n_k, d_model, width, bias=bias, dtype=dtype, keeps_input=False)
        + linear(batch * n_q, width, d_model, bias=bias, dtype=dtype, keeps_input=False)
    )
    product = 2 * batch * n_q * n_k * width
    weights = batch * num_heads * n_q * n_k
    inputs = batch * width * (n_q + 2 * n_k)  # queries, keys and values
    outputs = size * batch * width * n_q
    if fused:
        rows = 4 * batch * num_heads * n_q
        core = Cost(0, 2 * product, 5 * product, size * inputs + rows + outputs)
    else:
        wide = max(4, size)  # a composed kernel computes half precision in float32
        kept = wide * (inputs + weights * (3 if dropout else 1))
        core = Cost(0, 2 * product, 4 * product, kept + outputs)
    return maps + core


def feed_forward(
    tokens: int,
    d_model: int,
    d_ff: int,
    *,
    activation: str = "gelu",
    bias: bool = True,
    gated: bool = False,
    dropout: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Cost:
    """Count a feed-forward layer: two linear maps, three if gated.

        parameters = 2 · d · f (+ f + d),     forward = 4 · tokens · d · f

    Kept: the input, what enters the activation and what leaves it (of ReLU the latter is enough);
    with a gate, both factors and their product; with dropout, the factors that it drew.

    Derived in chapter 21_counting_cost.

    >>> feed_forward(tokens=5, d_model=3, d_ff=7)
    Cost(parameters=52, forward=420, backward=840, saved=340)
    """
    maps = (1 + gated) * linear(tokens, d_model, d_ff, bias=bias, keeps_input=False)
    maps += linear(tokens, d_ff, d_model, bias=bias, keeps_input=False)
    hidden = 1 if activation == "relu" else 2
    if gated:
        hidden = hidden + 2  # the other factor, and the product
    if dropout:
        # What was drawn, and the product with it. A GELU's output is then needed by nothing.
        hidden += 2 if activation == "relu" and not gated else 1
    return maps + Cost(saved=_size(dtype) * tokens * (d_model + hidden * d_ff))


# The models


def parts(
    config: object,
    batch: int = 1,
    n: int | None = None,
    n_decoder: int | None = None,
    *,
    model: str | None = None,
    dtype: torch.dtype = torch.float32,
    training: bool = True,
    gradients: bool = True,
) -> dict[str, Cost]:
    """Count a model part by part: "embedding", "attention", "feed_forward", "norm", "head".

    Parameters
    ----------
    config : of a model of lib, as the model takes it
    batch, n : B sequences of n tokens, that an encoder reads or GPT-2 writes
        ViT's n follows from its config and is left out.
    n_decoder : tokens that the decoder of a Transformer or a T5 reads
    model : "bert", "electra_generator" or "electra_discriminator", which share one config
        Left out, it is the model that the config is named after.
    dtype : of parameters and activations: float64, float32, bfloat16 or float16
    training : whether dropout is drawn, where the config has it
    gradients : whether a backward pass may follow
        Without, as under `torch.no_grad()`, nothing is kept, and Longformer's blocks are all small.

    Embeddings count the residual stream's own dropout too, and the head what stands behind the last
    layer. A CPU's fused kernel has neither dropout nor float64 nor a bias that is trained; there
    attention is composed, and kept accordingly.

    Derived in chapter 21_counting_cost.

    >>> counts = parts(GPT2Config(), 1, 1024)
    >>> {name: cost.parameters for name, cost in counts.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'embedding': 39383808, 'attention': 28348416, 'feed_forward': 56669184, 'norm': 38400,
     'head': 0}
    """
    name = _model_name(config, model)
    batch, n, n_decoder = _shape(name, config, batch, n, n_decoder)
    shape = _Shape(batch, dtype, training, gradients)
    if name == "gpt2":
        counts = _gpt2(config, shape, n)
    elif name == "vit":
        counts = _vit(config, shape, n)
    elif name == "transformer":
        counts = _transformer(config, shape, n, n_decoder)
    elif name == "t5":
        counts = _t5(config, shape, n, n_decoder)
    else:
        counts = _bert(name, config, shape, n)
    if gradients:
        return counts
    return {part: Cost(cost.parameters, cost.forward) for part, cost in counts.items()}


@dataclass(frozen=True)
class _Shape:
    """What is the same for every part of a model: B, dtype, whether dropout and gradients are."""

    batch: int
    dtype: torch.dtype
    training: bool
    gradients: bool

    def keep(self, tokens: int, width: int) -> Cost:
        """A tensor (B, tokens, width) that is kept."""
        return Cost(saved=self.batch * tokens * width * _size(self.dtype))

    def drop(self, rate: float, tokens: int, width: int) -> Cost:
        """The factors that dropout has drawn for such a tensor, in its dtype on a CPU."""
        return self.keep(tokens, width) if self.draws(rate) else Cost()

    def draws(self, rate: float) -> bool:
        return self.training and rate > 0

    def fused(self, rate: float) -> bool:
        return self.dtype != torch.float64 and not self.draws(rate)

    def norm(self, tokens: int, width: int, **options) -> Cost:
        return norm(self.batch * tokens, width, dtype=self.dtype, **options)

    def attention(self, n_q: int, d_model: int, heads: int, rate: float, **options) -> Cost:
        options = {"fused": self.fused(rate), "dropout": self.draws(rate)} | options
        return attention(self.batch, n_q, d_model, heads, dtype=self.dtype, **options)

    def feed_forward(self, n: int, d_model: int, d_ff: int, rate: float = 0.0, **options) -> Cost:
        options |= {"dropout": self.draws(rate), "dtype": self.dtype}
        return feed_forward(self.batch * n, d_model, d_ff, **options)

    def linear(self, tokens: int, inputs: int, outputs: int, **options) -> Cost:
        return linear(self.batch * tokens, inputs, outputs, dtype=self.dtype, **options)


def _gpt2(config: GPT2Config, shape: _Shape, n: int) -> dict[str, Cost]:
    d, d_ff, layers = config.d_model, config.d_ff or 4 * config.d_model, config.num_layers
    sublayer = shape.drop(config.dropout, n, d)
    return {
        "embedding": embedding(config.vocab_size, d, tokens=shape.batch * n)
        + embedding(config.max_length, d)
        + shape.drop(config.embedding_dropout, n, d),
        "attention": layers
        * (shape.attention(n, d, config.num_heads, config.attention_dropout) + sublayer),
        "feed_forward": layers
        * (shape.feed_forward(n, d, d_ff, activation=config.activation) + sublayer),
        "norm": (2 * layers + 1) * shape.norm(n, d),
        "head": _tied(shape.linear(n, d, config.vocab_size, bias=False)),
    }


def _bert(name: str, config: BERTConfig, shape: _Shape, n: int) -> dict[str, Cost]:
    """BERT, both parts of ELECTRA, DistilBERT, Longformer: post-norm layers, and another head."""
    d, width, layers = config.d_model, config.width, config.num_layers
    sublayer = shape.drop(config.dropout, n, d)
    embeddings = (
        embedding(config.vocab_size, width, tokens=shape.batch * n)
        + embedding(config.max_length, width, tokens=shape.batch * n * (name == "longformer"))
        + embedding(config.num_segments, width)
        + shape.norm(n, width)
        + shape.drop(config.dropout, n, width)
    )
    if width != d and name != "longformer":
        embeddings += shape.linear(n, width, d)
    if name == "longformer":
        core = sum((_window_attention(config, shape, n, w) for w in config.windows), Cost())
    else:
        core = layers * shape.attention(n, d, config.num_heads, config.attention_dropout)
    if name == "electra_discriminator":
        head = shape.linear(n, d, d) + shape.linear(n, d, 1) + _bend(shape, config, n, d)
    else:
        head = shape.linear(n, d, width) + shape.norm(n, width) + shape.keep(n, width)
        head += _tied(shape.linear(n, width, config.vocab_size, bias=False))
        head += Cost(parameters=config.vocab_size)
    if name == "bert":
        # The pooler reads the first token of what the head above has kept already.
        head += shape.linear(1, d, d, keeps_input=False) + shape.linear(1, d, 2)
    return {
        "embedding": embeddings,
        "attention": core + layers * sublayer,
        "feed_forward": layers
        * (shape.feed_forward(n, d, config.d_ff, activation=config.activation) + sublayer),
        "norm": 2 * layers * shape.norm(n, d),
        "head": head,
    }


def _bend(shape: _Shape, config: BERTConfig, n: int, width: int) -> Cost:
    """What an activation keeps beside its output, which a linear map reads."""
    return Cost() if config.activation == "relu" else shape.keep(n, width)


def _window_attention(config: LongformerConfig, shape: _Shape, n: int, window: int) -> Cost:
    """Attention in blocks of queries, each with the keys of its block and of both its sides."""
    d = config.d_model
    maps = 4 * shape.linear(n, d, d, keeps_input=False) + shape.keep(n, d)
    own = 3 * linear(0, d, d)  # of global tokens; there are none, so they are not computed
    half = min(window // 2, n - 1)
    block = min(max(half, 16), n)
    if half > 0 and n >= 2 * half + block:
        core = _unpadded_blocks(config, shape, n, half, block)
        return maps + own + core + shape.keep(n, d)
    core = _padded_blocks(config, shape, n, half, block)
    # The output's map reads it where it is, pads included, if no two sequences have to be parted.
    rows = -(-n // block) * block if shape.batch == 1 else n
    return maps + own + core + shape.keep(rows, d)


def _padded_blocks(config, shape: _Shape, n: int, half: int, block: int) -> Cost:
    """A sequence that is short for its window: keys are padded on both sides, the mask has rows."""
    d, heads, size = config.d_model, config.num_heads, _size(shape.dtype)
    met, count = half + block + half, -(-n // block)
    rate = config.attention_dropout
    rows, product = count * block, 2 * shape.batch * count * block * met * d
    empty = rows  # one byte for each row of blocks: may it attend to anything?
    if shape.fused(rate):
        # Queries and outputs, keys and values with a side more at both ends, the mask as numbers.
        kept = size * (shape.batch * d * (2 * rows + 2 * (rows + 2 * half)) + rows * met)
        logarithms = 4 * shape.batch * heads * rows
        return Cost(0, 2 * product, 5 * product, kept + logarithms + empty)
    # Queries, and the blocks of keys and values, which overlap, copied; then the weights. Of one
    # head of one sequence the values are a view of the padded ones, if they need no other dtype.
    wide = max(4, size)
    copies = size < 4 or shape.batch * heads > 1
    values = count * met if copies else rows + 2 * half
    kept = shape.batch * d * (rows + count * met + values)
    kept += shape.batch * heads * rows * met * (3 if shape.draws(rate) else 1)
    return Cost(0, 2 * product, 4 * product, wide * kept + empty)


def _unpadded_blocks(config, shape: _Shape, n: int, half: int, block: int) -> Cost:
    """A longer one: the first w/2 queries, equal blocks, and the last, w/2 and what is left."""
    d, heads, size = config.d_model, config.num_heads, _size(shape.dtype)
    rate, small = config.attention_dropout, max(block // 4, min(block, 16))

    def pairs_in(block: int) -> int:
        count, last = (n - 2 * half) // block, half + (n - 2 * half) % block
        return half * 2 * half + last * (last + half) + count * block * (half + block + half)

    if shape.fused(rate):
        # Forward in smaller blocks, of which nothing is kept but what went in; so the backward pass
        # computes each block again, by one more forward pass, beside the five of the kernel.
        forward, backward = (2 * shape.batch * pairs_in(b) * d for b in (small, block))
        return Cost(0, 2 * forward, 7 * backward, size * 3 * shape.batch * n * d)
    block = block if shape.gradients else small
    met, (count, left) = half + block + half, divmod(n - 2 * half, block)
    last, pairs = half + left, pairs_in(block)
    product = 2 * shape.batch * pairs * d
    empty = half + block + last  # one byte for each row of the three masks
    # Queries, and keys that overlap, copied. So are the values, but where a view will do: at both
    # ends, and of one block or one head of one sequence, if they need no other dtype.
    wide = max(4, size)
    ends = 2 * half + last + half
    copies = count > 1 and shape.batch * heads > 1
    values = count * met + ends if size < 4 else n + copies * count * met
    kept = shape.batch * d * (n + count * met + ends + values)
    kept += shape.batch * heads * pairs * (3 if shape.draws(rate) else 1)
    return Cost(0, 2 * product, 4 * product, wide * kept + empty)


def _vit(config: ViTConfig, shape: _Shape, n: int) -> dict[str, Cost]:
    d, layers = config.d_model, config.num_layers
    pixels = config.num_channels * config.patch_size**2
    sublayer = shape.drop(config.dropout, n, d)
    return {
        # The first map of the network: nobody asks for the gradient of an image.
        "embedding": shape.linear(n - 1, pixels, d, input_gradient=False)
        + Cost(parameters=(1 + n) * d)
        + shape.drop(config.dropout, n, d),
        "attention": layers
        * (shape.attention(n, d, config.num_heads, config.attention_dropout) + sublayer),
        "feed_forward": layers
        * (shape.feed_forward(n, d, config.d_ff, activation=config.activation) + sublayer),
        "norm": (2 * layers + 1) * shape.norm(n, d),
        # One token is classified, but it is a view of all.
        "head": shape.linear(1, d, config.num_classes, keeps_input=False) + shape.keep(n, d),
    }


def _transformer(config: TransformerConfig, shape: _Shape, m: int, n: int) -> dict[str, Cost]:
    d, rate, options = config.d_model, config.attention_dropout, {"activation": config.activation}
    layers, decoders = config.num_layers, config.num_decoder_layers
    read, written = (shape.drop(config.dropout, length, d) for length in (m, n))
    heads = config.num_decoder_heads
    inner = config.activation_dropout
    return {
        "embedding": embedding(config.vocab_size, d, tokens=shape.batch * (m + n)) + read + written,
        "attention": layers * (shape.attention(m, d, config.num_heads, rate) + read)
        + decoders * (shape.attention(n, d, heads, rate) + written)
        + decoders * (shape.attention(n, d, heads, rate, n_k=m) + written)
        + shape.keep(m, d),  # what was read, once for all layers
        "feed_forward": layers * (shape.feed_forward(m, d, config.d_ff, inner, **options) + read)
        + decoders * (shape.feed_forward(n, d, config.d_decoder_ff, inner, **options) + written),
        "norm": 2 * layers * shape.norm(m, d) + 3 * decoders * shape.norm(n, d),
        "head": _tied(shape.linear(n, d, config.vocab_size, bias=False)),
    }


def _t5(config: T5Config, shape: _Shape, m: int, n: int) -> dict[str, Cost]:
    d, heads, rate = config.d_model, config.num_heads, config.dropout
    layers, decoders = config.num_layers, config.num_decoder_layers or config.num_layers
    activation, gated = FEED_FORWARD[config.feed_forward]
    read, written = (shape.drop(rate, length, d) for length in (m, n))
    plain = {"d_head": config.d_head, "bias": False}
    own = plain | {"fused": False}  # the bias of distances is trained
    options = {"activation": activation, "gated": gated, "bias": False}
    table = Cost(parameters=config.num_buckets * heads)
    encoder = shape.attention(m, d, heads, rate, **own) + Cost(saved=heads * m) + read
    decoder = shape.attention(n, d, heads, rate, **own) + Cost(saved=heads * n) + written
    cross = shape.attention(n, d, heads, rate, n_k=m, **plain) + written
    head = shape.linear(n, d, config.vocab_size, bias=False)
    return {
        "embedding": embedding(config.vocab_size, d, tokens=shape.batch * (m + n)) + read + written,
        # A stack keeps its buckets, 8 bytes each, and a decoder the mask that hides the future.
        "attention": layers * encoder
        + decoders * (decoder + cross)
        + 2 * table
        + Cost(saved=8 * m * m + 9 * n * n)
        + shape.keep(m, d),
        "feed_forward": layers * (shape.feed_forward(m, d, config.d_ff, rate, **options) + read)
        + decoders * (shape.feed_forward(n, d, config.d_ff, rate, **options) + written),
        "norm": (2 * layers + 1) * shape.norm(m, d, rms=True)
        + (3 * decoders + 1) * shape.norm(n, d, rms=True)
        + read
        + written,
        "head": _tied(head) if config.tied else head,
    }


def _tied(head: Cost) -> Cost:
    """A map whose matrix is the table of input words: its products count, its numbers do not."""
    return Cost(0, head.forward, head.backward, head.saved)


def _total(*args, **options) -> Cost:
    return sum(parts(*args, **options).values(), Cost())


# What is asked of them


def parameters(config: object, *, model: str | None = None) -> int:
    """Return how many numbers of a model are trained; tied words count once, buffers not at all.

    `config` and `model` as in `parts`. The linear maps of a block of GPT-2 or BERT hold 12 d² + 9 d
    where f = 4 d, its two norms 4 d: 12 d² + 13 d.

    Derived in chapter 21_counting_cost.

    >>> parameters(GPT2Config()), parameters(BERTConfig(), model="electra_discriminator")
    (124439808, 109483009)
    """
    name = _model_name(config, model)
    ones = {"n": None if name == "vit" else 1} | ({"n_decoder": 1} if name in _PAIRS else {})
    return _total(config, 1, model=model, **ones).parameters


def flops(
    config: object,
    batch: int = 1,
    n: int | None = None,
    n_decoder: int | None = None,
    *,
    backward: bool = False,
    **options,
) -> int:
    """Return the floating-point operations of the matrix products of one pass of a model.

    Arguments as in `parts`. With `backward`, forward and backward pass together: what is executed,
    so with what a fused kernel of attention computes again. A multiply-add is two operations;
    whatever is done element by element is not counted, nor is a causal mask taken off. With
    `gradients=False`, the forward pass is one under `torch.no_grad()`: fewer in a Longformer whose
    attention is composed.

    Deviation: fused kernels of a GPU take dropout, so that there the counts with dropout are those
    without: pass training=False.

    Derived in chapter 21_counting_cost.

    >>> flops(GPT2Config(), 1, 1024), flops(GPT2Config(), 1, 1024, backward=True, training=False)
    (291648307200, 894272274432)
    """
    if backward and not options.get("gradients", True):
        raise ValueError("gradients: expected True for a backward pass, got False")
    total = _total(config, batch, n, n_decoder, **options)
    return total.forward + backward * total.backward


def activation_bytes(
    config: object, batch: int = 1, n: int | None = None, n_decoder: int | None = None, **options
) -> int:
    """Return the bytes that autograd keeps from a forward pass, parameters left out.

    Arguments as in `parts`: distinct storages, on a CPU, from ids to logits, which are not kept
    themselves (a loss keeps as many numbers again). Ids count 8 bytes a token.

    Derived in chapter 21_counting_cost.

    >>> config = GPT2Config(50, 12, 2, 3, embedding_dropout=0.0, dropout=0.0, attention_dropout=0.0)
    >>> activation_bytes(config, 2, 7)
    27216
    """
    return _total(config, batch, n, n_decoder, **options).saved


def inference_bytes(
    config: object,
    batch: int = 1,
    n: int | None = None,
    n_decoder: int | None = None,
    *,
    model: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Return the most bytes that are allocated at a time in a forward pass without gradients.

    Parameters and ids are there before and left out. The peak is at the widest moment of a layer or
    at the logits, so the number of layers does not matter, once there are two. Every moment is a
    sum of tensors that a layer of lib still has names for:

        attention      input, normed input, queries, keys, values, heads, output
        feed-forward   input, sum, normed sum, hidden before and after its activation
        logits         hidden vectors and logits

    Without the normed input where norms come after. The scratch memory inside a kernel is left out,
    some kilobytes a thread, however large the model: in half precision CPUs take tens of kilobytes
    for products. ValueError for float64 and for Longformer, whose attention is composed of copies
    that are not counted here.

    Derived in chapter 21_counting_cost.

    >>> inference_bytes(GPT2Config(), 1, 1024) == 4 * 1024 * (768 + 50257)
    True
    """
    name = _model_name(config, model)
    batch, n, n_decoder = _shape(name, config, batch, n, n_decoder)
    size = _size(dtype)
    if name == "longformer" or dtype == torch.float64:
        got = name if name == "longformer" else dtype
        raise ValueError(f"inference_bytes: expected fused attention, got {got}")
    d = config.d_model
    if name == "t5":
        return batch * size * _t5_moments(config, batch, n, n_decoder)
    if name == "transformer":
        vocab = config.vocab_size
        reads = _moments(n, d, config.d_ff, dtype)
        writes = n * d + _moments(n_decoder, d, config.d_decoder_ff, dtype, n_memory=n)
        return batch * size * max(reads, writes, n * d + n_decoder * (d + vocab))
    pre = name in ("gpt2", "vit")
    d_ff = config.d_ff or 4 * d
    moments = [_moments(n, d, d_ff, dtype, pre=pre)]
    if name == "gpt2":
        moments.append(n * (d + config.vocab_size))
    elif name == "bert":
        moments.append(n * (d + config.vocab_size) + max(n * config.width, 2 * d))
    elif name in ("distilbert", "electra_generator"):
        moments.append(n * (d + config.width + config.vocab_size))
    return batch * size * max(moments)


def _moments(
    n: int, d: int, d_ff: int, dtype: torch.dtype, *, pre: bool = False, n_memory: int = 0
) -> int:
    """Numbers of one sequence at the widest moment of a layer without gates and biases."""
    wide = max(4, _size(dtype)) // _size(dtype)  # a norm of half precision is computed in float32
    attend = n * (6 + pre) * d
    read = n * (4 + pre) * d + 2 * n_memory * d if n_memory else 0
    think = n * ((2 + pre) * d + max(2 * d_ff, d_ff + d))
    normalise = n * (3 - pre + 4 * wide) * d
    return max(attend, read, think, normalise)


def _t5_moments(config: T5Config, batch: int, m: int, n: int) -> int:
    """As `_moments`, for both stacks: the words stay, and one table of distances a stack."""
    d, f, heads = config.d_model, config.d_ff, config.num_heads
    width = heads * config.d_head
    wide = (3 if FEED_FORWARD[config.feed_forward][1] else 2) * f

    def stack(length: int, layers: int, memory: int) -> float:
        words = length * d * (layers > 1)  # of one layer, its input
        bias = heads * length * length / batch
        attend = bias + length * (2 * d + 5 * width) + max(bias, length * d)
        read = bias + length * (3 * d + 2 * width) + 2 * memory * width if memory else 0
        think = bias + length * (3 * d + max(wide, f + d))
        return words + memory * d + max(attend, read, think)

    last = config.num_decoder_layers or config.num_layers
    logits = m * d + n * ((1 + config.tied) * d + config.vocab_size)
    return int(max(stack(m, config.num_layers, 0), stack(n, last, m), logits))


def training_bytes(config: object, precision: str = "float32", **options) -> dict[str, int]:
    """Return the bytes that training needs for every parameter, whatever the batch, by purpose.

    precision : how many bytes a parameter's weight, gradient, two moments of AdamW, and copy take

        "float32"    4 + 4 + 8        = 16, of `lib.training.fit`, with or without autocast
        "mixed"      2 + 2 + 8 + 4    = 16, half-precision weights with a float32 copy
        "bfloat16"   2 + 2 + 4        = 8, all of it in half precision
        "float64"    8 + 8 + 16       = 32

    options : `model`, as in `parts`

    Source: Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
    Models", arXiv:1910.02054, section 3.1 (mixed: K = 12 bytes of the optimizer beside 2 + 2).
    Derived in chapter 21_counting_cost.

    >>> training_bytes(GPT2Config(), "mixed")  # doctest: +NORMALIZE_WHITESPACE
    {'weights': 248879616, 'gradients': 248879616, 'moments': 995518464, 'copy': 497759232}
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(_PRECISIONS)}, got {precision!r}")
    count = parameters(config, **options)
    names = ("weights", "gradients", "moments", "copy")
    return {name: k * count for name, k in zip(names, _PRECISIONS[precision], strict=True)}


def step_bytes(
    config: GPT2Config, batch: int, n: int, *, dtype: torch.dtype = torch.float32
) -> dict[str, int]:
    """Return what is allocated at the peak of a training step of GPT-2, by purpose.

    A step of `lib.training.fit` whose batch_loss draws ids (B, n) and returns
    `causal_lm_loss(model(ids), ids)`, from the second step on; in bfloat16 all is kept in it but
    what norms and loss compute in float32. The peak is at the end of the
    forward pass: the last step's gradients are still there, everything that autograd keeps is, and
    "logits" are three: what the model returned, a copy without the last position, and its
    log-softmax, beside labels and their mask. Assumed is that logits outweigh a layer's temporaries
    and activations the gradient of the words: V > d, and B n of some hundreds.

    Derived in chapter 21_counting_cost.

    >>> {name: round(size / 2**30, 2) for name, size in step_bytes(GPT2Config(), 8, 1024).items()}
    {'weights': 0.46, 'gradients': 0.46, 'moments': 0.93, 'activations': 19.22, 'logits': 4.6}
    """
    if not isinstance(config, GPT2Config):
        raise TypeError(f"config: expected a GPT2Config, got {type(config).__name__}")
    if dtype not in (torch.float32, torch.float64, torch.bfloat16):
        raise ValueError(f"dtype: expected float32, float64 or bfloat16, got {dtype}")
    standing = training_bytes(config, str(dtype).removeprefix("torch."))
    labels = 9 * batch * (n - 1)
    # Of one sequence, all but the last position is a view, unless the loss widens it to float32.
    copies = 2 if batch > 1 or dtype == torch.bfloat16 else 1
    logits = batch * config.vocab_size * n * _size(dtype)
    logits += batch * config.vocab_size * (n - 1) * copies * max(4, _size(dtype))
    return {
        **{name: size for name, size in standing.items() if size},
        "activations": activation_bytes(config, batch, n, dtype=dtype),
        "logits": logits + labels,
    }


def kv_cache_bytes(
    config: object,
    batch: int,
    length: int,
    n: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Return the bytes of a `lib.cache.KVCache` that has room for `length` tokens.

        2 · L · B · length · w numbers, w = h · d_head the width of all heads (d in GPT-2),
        and in a decoder with cross-attention 2 · L · B · n · w more, of the n tokens that were read

    ValueError for an encoder, which keeps none.

    Derived in chapter 21_counting_cost; the cache itself in 10_gpt.

    >>> kv_cache_bytes(GPT2Config(), 1, 1024, dtype=torch.bfloat16) / 2**20
    36.0
    """
    name = _model_name(config, None)
    if name not in ("gpt2", *_PAIRS):
        raise ValueError(f"config: expected a model with a decoder, got {name}")
    if (n is None) != (name == "gpt2"):
        wanted = "None, as GPT-2 reads nothing else" if name == "gpt2" else "the tokens read"
        raise ValueError(f"n: expected {wanted}, got {n!r}")
    for label, count in {"batch": batch, "length": length, "n": 1 if n is None else n}.items():
        _require_count(label, count)
    layers, width = config.num_layers, config.d_model
    if name == "transformer":
        layers = config.num_decoder_layers
    elif name == "t5":
        layers = config.num_decoder_layers or config.num_layers
        width = config.num_heads * config.d_head
    return 2 * layers * batch * (length + (n or 0)) * width * _size(dtype)


# Speed


@dataclass(frozen=True)
class Device:
    """What a data sheet says: operations a second by dtype, dense, and bytes a second of memory.

    NVIDIA's data sheets since 2020 print figures *with sparsity*, too or only: twice these.
    """

    flops: dict[torch.dtype | str, float]
    bandwidth: float
    source: str


def _device(half, tf32, single, double, bandwidth, source, bfloat16=True) -> Device:
    flops = {torch.float16: half, torch.float32: single}
    flops |= {torch.bfloat16: half} if bfloat16 else {}
    flops |= {"tf32": tf32} if tf32 else {}
    flops |= {torch.float64: double} if double else {}
    return Device({key: 1e12 * value for key, value in flops.items()}, bandwidth, source)


_H100 = "NVIDIA H100 Tensor Core GPU data sheet; half precision and TF32 halved, for dense matrices"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet"
_V100 = "NVIDIA V100 Tensor Core GPU data sheet"

# By the name that torch.cuda.get_device_name returns.
DEVICES: dict[str, Device] = {
    "NVIDIA H100 80GB HBM3": _device(989.4, 494.7, 67, 67, 3.35e12, f"{_H100}; SXM"),
    "NVIDIA H100 PCIe": _device(756, 378, 51, 51, 2.0e12, f"{_H100}; PCIe"),
    "NVIDIA H200": _device(989.4, 494.7, 67, 67, 4.8e12, _H100.replace("H100", "H200")),
    "NVIDIA A100-SXM4-40GB": _device(312, 156, 19.5, 19.5, 1.555e12, _A100),
    "NVIDIA A100-SXM4-80GB": _device(312, 156, 19.5, 19.5, 2.039e12, _A100),
    "NVIDIA A100-PCIE-40GB": _device(312, 156, 19.5, 19.5, 1.555e12, _A100),
    "NVIDIA A100 80GB PCIe": _device(312, 156, 19.5, 19.5, 1.935e12, _A100),
    "NVIDIA L4": _device(
        121, 60, 30.3, None, 300e9, "NVIDIA L4 Tensor Core GPU data sheet; halved, for dense"
    ),
    "Tesla T4": _device(65, None, 8.1, None, 300e9, "NVIDIA T4 data sheet", bfloat16=False),
    "Tesla V100-SXM2-16GB": _device(125, None, 15.7, 7.8, 900e9, _V100, bfloat16=False),
    "Tesla V100-SXM2-32GB": _device(125, None, 15.7, 7.8, 900e9, _V100, bfloat16=False),
    "Tesla V100-PCIE-16GB": _device(112, None, 14.0, 7.0, 900e9, _V100, bfloat16=False),
    "Tesla V100-PCIE-32GB": _device(112, None, 14.0, 7.0, 900e9, _V100, bfloat16=False),
}


def peak_flops(device_name: str, dtype: torch.dtype | str) -> float:
    """Return the operations a second that a data sheet promises for dense matrix products.

    device_name : as `torch.cuda.get_device_name()` has it, to the letter: one of `DEVICES`
    dtype : of the factors; "tf32" for float32 that is rounded to it on the way, as
        `torch.backends.cuda.matmul.allow_tf32` allows

    ValueError for another name or dtype. A near name is another device: an H100 has 989 or 756.

    Derived in chapter 21_counting_cost.

    >>> peak_flops("NVIDIA A100-SXM4-40GB", torch.bfloat16)
    312000000000000.0
    """
    if device_name not in DEVICES:
        raise ValueError(f"device_name: expected one of {', '.join(DEVICES)}, got {device_name!r}")
    known = DEVICES[device_name].flops
    if dtype not in known:
        names = ", ".join(str(d).removeprefix("torch.") for d in known)
        raise ValueError(f"dtype: expected one of {names} for {device_name}, got {dtype}")
    return known[dtype]


def mfu(flops_per_second: float, device_name: str, dtype: torch.dtype | str) -> float:
    """Return the model FLOPs utilisation: which share of a device's peak a model makes use of.

        MFU = operations that the model needs, a second / peak_flops(device_name, dtype)

    Needed are those of `flops` with the attention of a composed kernel: what is computed again in
    the backward pass, by a fused kernel or by checkpointing, is no progress and does not count.

    ValueError as in `peak_flops`, and for more than the peak: then something is counted wrong.

    Source: Chowdhery et al. 2022, "PaLM", arXiv:2204.02311, section 4.1 and appendix B.
    Derived in chapter 21_counting_cost.

    >>> mfu(156e12, "NVIDIA A100-SXM4-40GB", torch.bfloat16)
    0.5
    """
    peak = peak_flops(device_name, dtype)
    if not 0 <= flops_per_second <= peak:
        raise ValueError(
            f"flops_per_second: expected 0 to {peak:.4g}, the peak of {device_name}, "
            f"got {flops_per_second:.4g}"
        )
    return flops_per_second / peak


def arithmetic_intensity(m: int, k: int, n: int, *, dtype: torch.dtype = torch.float32) -> float:
    """Return the operations for each byte that a product (m × k)(k × n) moves.

        intensity = 2 m k n / (bytes of a number · (m k + k n + m n))

    Each factor is read once, and the product written once: the least that any algorithm moves.

    Derived in chapter 21_counting_cost.

    >>> arithmetic_intensity(1024, 1024, 1024, dtype=torch.bfloat16)
    341.3333333333333
    """
    for name, count in {"m": m, "k": k, "n": n}.items():
        _require_count(name, count)
    return 2 * m * k * n / (_size(dtype) * (m * k + k * n + m * n))


def roofline(intensity: float, peak_flops: float, bandwidth: float) -> float:
    """Return the operations a second that a device can reach at this arithmetic intensity.

        min(peak_flops, intensity · bandwidth)

    Below the ridge, peak_flops / bandwidth, memory is what is waited for, above it arithmetic.

    Source: Williams, Waterman & Patterson 2009, "Roofline: An Insightful Visual Performance Model
    for Multicore Architectures", Communications of the ACM 52(4).
    Derived in chapter 21_counting_cost.

    >>> roofline(2.0, peak_flops=100.0, bandwidth=10.0), roofline(20.0, 100.0, 10.0)
    (20.0, 100.0)
    """
    for name, value in {
        "intensity": intensity,
        "peak_flops": peak_flops,
        "bandwidth": bandwidth,
    }.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return min(peak_flops, intensity * bandwidth)


# Validation

_CONFIGS = {
    LongformerConfig: "longformer",
    DistilBERTConfig: "distilbert",
    BERTConfig: "bert",
    GPT2Config: "gpt2",
    T5Config: "t5",
    TransformerConfig: "transformer",
    ViTConfig: "vit",
}
_PRECISIONS = {  # bytes of weight, gradient, moments, copy
    "float32": (4, 4, 8, 0),
    "mixed": (2, 2, 8, 4),
    "bfloat16": (2, 2, 4, 0),
    "float64": (8, 8, 16, 0),
}
_OF_BERT = ("bert", "electra_generator", "electra_discriminator")
_PAIRS = ("transformer", "t5")  # an encoder and a decoder


def _model_name(config: object, model: str | None) -> str:
    if type(config) not in _CONFIGS:
        raise TypeError(f"config: expected that of a model of lib, got {type(config).__name__}")
    name = _CONFIGS[type(config)]
    known = _OF_BERT if name == "bert" else (name,)
    if model is not None and model not in known:
        raise ValueError(f"model: expected {' or '.join(known)}, got {model!r}")
    return name if model is None else model


def _shape(
    name: str, config: object, batch: int, n: int | None, n_decoder: int | None
) -> tuple[int, int, int | None]:
    if name == "vit":
        if n is not None:
            raise ValueError(f"n: expected None, as ViT counts its patches, got {n!r}")
        n = 1 + config.num_patches
    sizes = {"batch": batch, "n": n} | ({"n_decoder": n_decoder} if name in _PAIRS else {})
    if name not in _PAIRS and n_decoder is not None:
        raise ValueError(f"n_decoder: expected None, as there is no decoder, got {n_decoder!r}")
    for label, size in sizes.items():
        _require_count(label, size)
    longest = getattr(config, "longest", getattr(config, "max_length", None))
    if name not in (*_PAIRS, "vit") and n > longest:
        raise ValueError(f"n: expected at most {longest} tokens, got {n}")
    return batch, n, n_decoder


def _require_count(name: str, size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")


def _size(dtype: torch.dtype) -> int:
    if dtype not in _BYTES:
        known = ", ".join(str(d).removeprefix("torch.") for d in _BYTES)
        raise ValueError(f"dtype: expected one of {known}, got {dtype}")
    return _BYTES[dtype]
