# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A run of a Transformer takes memory and time, and both are often found out by trying. Can
#       parameters, operations and bytes be predicted before a run, from the config alone?
#     goals:
#       - count the parameters of any model in this book, to the last one
#       - derive 2N and 6N operations a token, and say what they leave out
#       - list what autograd keeps of one layer, and predict the peak of a training step
#       - place a product on the roofline, and say why writing token by token waits for memory
#       - say what utilisation means, and how more than a whole peak comes about
#     prerequisites:
#       - attention (chapter 2), the block (chapter 6), GPT-2 (chapter 10)
#       - sums, and products of matrices
#     data: The language reference that ships inside Python itself (pydoc_data.topics); no download.
#     hardware: One CPU core. Memory is measured on the CPU always, as step 6 says.
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Counting cost

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "attention.py").exists()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from lib import cost
from lib.cache import KVCache
from lib.data import CharacterVocabulary, random_windows, topics_text
from lib.layers import EncoderLayer
from lib.losses import causal_lm_loss
from lib.models.bert import BERT, BERTConfig
from lib.models.distilbert import DistilBERT, DistilBERTConfig
from lib.models.gpt2 import GPT2, GPT2Config
from lib.models.longformer import Longformer, LongformerConfig
from lib.models.t5 import T5, T5Config
from lib.models.transformer import Transformer, TransformerConfig
from lib.models.vit import ViT, ViTConfig
from lib.teaching import (
    CostCalculator,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS
from lib.teaching.measure import (
    flops,
    median_seconds,
    peak_bytes,
    saved_tensors,
)
from lib.training import fit

device = start(seed=0)
MiB = 2**20

# %% [markdown]
# ## The formula
#
# Nearly all that a Transformer computes are products of matrices. One entry of the product of an
# $m \times k$ and a $k \times n$ matrix takes $k$ multiplications and as many additions, and there
# are $mn$ entries:
#
# $$
# C(m, k, n) = 2\,m\,k\,n .
# $$ (def-counting-cost-product)
#
# From this one line, and from the list of a model's matrices, follow three rules that people use
# every day. With $N$ parameters and $B$ sequences of $n$ tokens, the operations of a forward pass, the
# operations of a step of training, and the bytes of such a step are
#
# $$
# \begin{gathered}
# C_{\text{forward}} \approx 2N \cdot B n, \qquad C_{\text{training}} \approx 6N \cdot B n, \\
# M_{\text{training}} = 16\,N + \text{activations} .
# \end{gathered}
# $$ (def-counting-cost-rules)
#
# Two of them are approximate, and one hides what is often its larger part in a word. The derivation
# makes them exact.
#
# | symbol | shape | meaning |
# |---|---|---|
# | $N$ | a number | parameters: all numbers of a model that are trained |
# | $C$ | a number | operations of matrix products; a multiplication and an addition are two |
# | $L$ | a number | layers |
# | $f$ | a number | features inside the feed-forward layer, mostly $4d$ |
# | $B$ | a number | sequences in a batch |
# | $s$ | a number | bytes of one number: 4 in single precision, 2 in half |
# | $I$ | a number | arithmetic intensity: operations for each byte that is moved |
# | $P$ | a number | the most operations that a device can do in a second |
# | $\beta$ | a number | the most bytes that its memory can deliver in a second |
#
# As before, $d$ are the features of a token, $h$ the heads, $d_h = d/h$ the features of one, $V$ the
# words of the vocabulary, $n$ the tokens of a sequence. {numref}`fig-counting-cost-parts` shows where official models have their
# parameters.

# %% tags=["hide-input"]
MODELS = {
    "GPT-2": GPT2Config(),
    "BERT-base": BERTConfig(),
    "DistilBERT": DistilBERTConfig(),
    "T5-small": T5Config(),
    "Transformer base": TransformerConfig(),
    "Longformer": LongformerConfig(),
    "ViT-B/16": ViTConfig(),
}


def sizes_of(config, n=1):
    """Sizes of one sequence, as lib.cost wants them."""
    if isinstance(config, ViTConfig):
        return ()
    pair = isinstance(config, T5Config | TransformerConfig)
    return (n, n) if pair else (n,)


shares = {
    name: cost.parts(config, 1, *sizes_of(config))
    for name, config in MODELS.items()
}
fig, ax = plt.subplots(figsize=(5.1, 3.4))
left = np.zeros(len(shares))
looks = {
    "embedding": ("query", ""),
    "attention": ("key", "///"),
    "feed_forward": ("value", ""),
    "norm": ("reference", ""),
    "head": ("weights", "..."),
}
for part, (color, hatch) in looks.items():
    width = np.array([c[part].parameters / 1e6 for c in shares.values()])
    ax.barh(
        list(shares),
        width,
        left=left,
        color=COLORS[color],
        hatch=hatch,
        edgecolor="white",
        label=part.replace("_", "-"),
    )
    left += width
ax.invert_yaxis()
ax.set(xlabel="million parameters")
ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0))
show_figure(
    fig,
    name="fig-counting-cost-parts",
    caption="Where the parameters are. Feed-forward layers hold twice as many "
    "as self-attention where $f = 4d$; cross-attention, and Longformer's maps "
    "of its own for global tokens, add to attention. Norms are too few to be "
    "seen.",
    alt="Seven stacked bars, one a model, from 60 to about 150 million "
    "parameters. Feed-forward parts are the longest in GPT-2 and BERT; the "
    "embedding part is a fifth to a third; norms cannot be seen.",
)

# %% [markdown]
# Try sizes of your own. The calculator has the formulas of this chapter, and nothing else.

# %%
CostCalculator(name="calculator")

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# {cite:t}`kaplan2020` (§2.1): a forward pass takes about $2N + 2\,n_{\text{layer}}\,
# n_{\text{ctx}}\, d_{\text{model}}$ operations a token, the backward pass twice as many, so that
# training takes about $6N$; embeddings are left out of $N$.
# {cite:t}`chowdhery2022` (appendix B) count $6N + 12\,L\,h\,d_h\,n$ operations a token for training.
# :::
#
# :::{admonition} Our remark
# :class: remark
# The two do not count attention alike. A third of PaLM's $12\,L\,n\,d$ is the forward pass, $4\,L\,
# n\,d$, and Kaplan's $2\,L\,n\,d$ is half of it. The whole table of logits has twice the pairs that a
# causal mask leaves, so the smaller number fits a kernel that skips what is hidden, the larger one a
# kernel that does not. We count the whole table, as torch does.
# :::

# %% [markdown]
# ## Derivation
#
# Nine steps: parameters, operations forward and backward, where attention takes over, the bytes that
# stand, the bytes that are kept, what checkpointing trades, the cache, and the roofline.
#
# ### Step 1. Parameters of a block
#
# Attention has four maps from $d$ to $d$ features, each with a bias. The feed-forward layer has one
# from $d$ to $f$ and one back. A norm has a scale and a shift. With $f = 4d$:
#
# $$
# \begin{aligned}
# N_{\text{attention}} &= 4\,(d^2 + d) = 4d^2 + 4d \\
# N_{\text{feed-forward}} &= (df + f) + (fd + d) = 8d^2 + 5d \\
# N_{\text{norms}} &= 2 \cdot 2d = 4d
# \end{aligned}
# $$ (eq-counting-cost-sublayers)
#
# The number of heads is in none of them: heads only cut the features. The sum is
#
# $$
# N_{\text{block}} = 12\,d^2 + 13\,d .
# $$ (eq-counting-cost-block)
#
# GPT-2 has $L$ of them, a table of $V$ words, one of $n_{\max}$ places, and a last norm. Its output
# words are its input words, so they count once:
#
# $$
# N_{\text{GPT-2}} = (V + n_{\max})\,d + L\,(12d^2 + 13d) + 2d .
# $$ (eq-counting-cost-gpt2)

# %%
d, h = 12, 3
layer = EncoderLayer(d, h, 4 * d, norm="pre")


def count(module):
    return sum(p.numel() for p in module.parameters())


norms = count(layer.attention_norm) + count(layer.feed_forward_norm)
check(
    "eq-counting-cost-sublayers",
    [count(layer.attention), count(layer.feed_forward), norms],
    [4 * d**2 + 4 * d, 8 * d**2 + 5 * d, 4 * d],
)
check("eq-counting-cost-block", count(layer), 12 * d**2 + 13 * d)

d, L, V, n_max = 768, 12, 50257, 1024
N = (V + n_max) * d + L * (12 * d**2 + 13 * d) + 2 * d
with torch.device("meta"):  # shapes without numbers: nothing is allocated
    whole = count(GPT2(GPT2Config()))
check("eq-counting-cost-gpt2", N, whole)
check("GPT-2, the smallest release", N, 124_439_808)
print(f"{N:,} parameters, {(V * d) / N:.0%} of them words")
glue("cost-gpt2", f"{N:,}")

# %% [markdown]
# {glue:text}`cost-gpt2`: the “124M” in the checkpoint's name. (The paper's own table says 117M for
# it {cite}`radford2019`; the README of the released code corrects that.)
#
# ### Step 2. Operations, forward
#
# A map of one token is a product $(1 \times k)(k \times n)$, $2kn$ operations: two for each entry of
# its matrix. So all maps together take two operations a token for each parameter *that stands in a
# matrix which is multiplied*. Biases and norms are not, tables of words and places are looked up;
# but the table of words is multiplied once more, as the output. Call the parameters that are
# multiplied $N_\times$. For GPT-2 they are
#
# $$
# N_\times = 12\,L\,d^2 + V d .
# $$ (eq-counting-cost-multiplied)
#
# In attention every query meets every key: $n^2$ products of $d_h$ features in $h$ heads, $2n^2 d$
# operations, and as many to average the values. That is $4nd$ a token and layer, and no parameter
# is in it:
#
# $$
# C_{\text{forward}} = B\,n\,\big(2 N_\times + 4\,L\,n\,d\big) .
# $$ (eq-counting-cost-forward)

# %%
m, k, n = 3, 5, 7
steps = sum(2 for _ in range(m) for _ in range(n) for _ in range(k))
check(
    "a product: a loop, and torch's counter",
    [steps, flops(torch.matmul, torch.ones(m, k), torch.ones(k, n))],
    [2 * m * k * n] * 2,
)

plain = {"embedding_dropout": 0.0, "dropout": 0.0, "attention_dropout": 0.0}
config = GPT2Config(67, 44, 3, 4, max_length=61, **plain)
model = GPT2(config)
B, n, d, L, V = 5, 61, 44, 3, 67
ids = torch.randint(V, (B, n))
multiplied = sum(
    p.numel() for name, p in model.named_parameters() if p.ndim == 2
) - count(model.position)
check("eq-counting-cost-multiplied", multiplied, 12 * L * d**2 + V * d)
forward = B * n * (2 * multiplied + 4 * L * n * d)
check("eq-counting-cost-forward", flops(model, ids), forward)
print(f"{forward:,} operations; 2N a token: {2 * count(model) * B * n:,}")
glue("cost-two-n", 2 * count(model) * B * n / forward)

# %% [markdown]
# Here $2N$ a token gives {glue:text}`cost-two-n:.2f` of what is really computed.
#
# ### Step 3. Operations, backward
#
# Let $Y = XW$, and let $G$ be the gradient of the loss by $Y$. The chain rule gives two products of
# the same size as $XW$:
#
# $$
# \frac{\partial \ell}{\partial W} = X^\top G, \qquad
# \frac{\partial \ell}{\partial X} = G\, W^\top .
# $$ (eq-counting-cost-backward)
#
# So the backward pass takes twice the forward pass, and both together three times it. That holds for
# the two products of attention as well, in which both factors need a gradient. From $2N_\times$
# follows the famous six:
#
# $$
# C_{\text{training}} = B\,n\,\big(6 N_\times + 12\,L\,n\,d\big) .
# $$ (eq-counting-cost-training)
#
# *Where the hypothesis fails.* The first map of a network needs no gradient of its input: then it is
# one product and not two. In a language model that is a table, which takes none; in ViT it is a
# map of pixels. And a fused kernel of attention has not kept its weights. It computes the logits
# again, so in the backward pass it takes five products, where two went forward, and not four:
#
# $$
# C_{\text{fused}} = C_{\text{training}} + 2\,L\,B\,n^2 d .
# $$ (eq-counting-cost-fused)

# %%
X = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
W = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
G = torch.randn(3, 7, dtype=torch.float64)
(X @ W).backward(G)
check("eq-counting-cost-backward", [X.grad, W.grad], [G @ W.T, X.T @ G])


def train_once(model, ids):
    model(ids).sum().backward()


training = B * n * (6 * multiplied + 12 * L * n * d)
kept_weights = GPT2(config).double()  # float64 has no fused kernel on a CPU
check(
    "eq-counting-cost-training", flops(train_once, kept_weights, ids), training
)
check(
    "eq-counting-cost-fused",
    flops(train_once, model, ids),
    training + 2 * L * B * n**2 * d,
)
pixels = ViTConfig(21, 7, 3, 5, 12, 1, 2, 23)
images = torch.randn(2, 3, 21, 21)
first_map = 2 * 2 * 9 * (3 * 49) * 12  # B, patches, pixels of a patch, d
got = flops(train_once, ViT(pixels), images)
check("ViT: formula", got, cost.flops(pixels, 2, backward=True))
naive = cost.parts(pixels, 2)["embedding"]
check("its first map takes one product backward", naive.backward, first_map)

# %% [markdown]
# ### Step 4. When attention takes over
#
# In one layer the maps take $24d^2$ operations a token, of which the feed-forward layer has $16
# d^2$, and attention proper $4nd$. Set them equal:
#
# $$
# \begin{gathered}
# 4nd = 16d^2 \iff n = 4d, \\
# 4nd = 24d^2 \iff n = 6d .
# \end{gathered}
# $$ (eq-counting-cost-crossover)
#
# Up to $n = 6d$ a Transformer is mostly linear maps. For GPT-2 that is a text of
# {glue:text}`cost-six-d` tokens, and it reads at most {glue:text}`cost-context`. {numref}`fig-counting-cost-crossover` shows it for three widths.

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 3.2))
n = np.geomspace(64, 65536, 100)
styles = {"query": "-", "key": "--", "value": "-."}
for width, (color, style) in zip((128, 768, 4096), styles.items(), strict=True):
    share = 4 * n * width / (4 * n * width + 24 * width**2)
    ax.semilogx(n, share, style, color=COLORS[color], label=f"d = {width}")
    ax.plot(6 * width, 0.5, "o", color=COLORS[color])
ax.axhline(0.5, color=COLORS["reference"], lw=0.8)
ax.set(xlabel="tokens n", ylabel="share of attention proper", ylim=(0, 1))
ax.legend()
show_figure(
    fig,
    name="fig-counting-cost-crossover",
    caption="The share of a layer's operations that goes into logits and "
    "weighted sums, $n / (n + 6d)$. Dots: $n = 6d$, one half.",
    alt="Three rising S-shaped curves over the number of tokens, for widths "
    "128, 768 and 4096. Each passes one half at six times its width: 768, "
    "4608 and 24576 tokens.",
)

# %%
glue("cost-six-d", f"{6 * GPT2Config().d_model:,}")
glue("cost-context", f"{GPT2Config().max_length:,}")
for width in (16, 64):
    for times in (4, 6):
        n = times * width
        counts = cost.parts(GPT2Config(11, width, 1, 2, max_length=n), 1, n)
        maps = 8 * n * width**2 + counts["feed_forward"].forward
        proper = counts["attention"].forward - 8 * n * width**2
        other = counts["feed_forward"].forward if times == 4 else maps
        check("eq-counting-cost-crossover", proper, other)

# %% [markdown]
# ### Step 5. The bytes that stand
#
# Training keeps for every parameter its weight, its gradient, and AdamW's two moments. In single
# precision, as in `lib.training`, these are four numbers of four bytes. Mixed precision with a copy
# keeps weight and gradient in half precision, and for the optimizer a copy of the weight and both
# moments in single:
#
# $$
# \begin{gathered}
# 4 + 4 + (4 + 4) = 16, \\
# 2 + 2 + (4 + 4 + 4) = 16 .
# \end{gathered}
# $$ (eq-counting-cost-sixteen)
#
# The same sum, for two different reasons {cite}`rajbhandari2020`. Mixed precision saves no byte
# here; it saves time, and half of the activations.

# %%
small = GPT2(config)
optimizer = torch.optim.AdamW(small.parameters())
train_once(small, ids)
optimizer.step()
moments = [
    value
    for state in optimizer.state.values()
    for name, value in state.items()
    if name != "step"
]
standing = [
    *small.parameters(),
    *(p.grad for p in small.parameters()),
    *moments,
]
each = sum(x.nbytes for x in standing) / count(small)
mixed = sum(cost.training_bytes(config, "mixed").values()) / count(small)
check("eq-counting-cost-sixteen", [each, mixed], [16, 16])

# %% [markdown]
# ### Step 6. The bytes that are kept
#
# Step 3 needs $X$ for the gradient of $W$. So autograd keeps the input of every linear map, and what
# else a derivative asks for. All of it lies in memory at the end of the forward pass. Which tensors
# are they? We need not guess: autograd lets us look at each as it is kept.
#
# What is kept is a matter of the kernels, so here, and in every measurement of memory below, the CPU
# is used, also where there is a GPU. On a GPU a fused kernel takes dropout too, and dropout keeps
# one byte a number in place of four. That was not measured here.

# %%
B, n, d, h = 3, 7, 10, 2
f = 4 * d
layer = EncoderLayer(d, h, f, norm="pre")
x = torch.randn(B, n, d, requires_grad=True)
kept = saved_tensors(layer, x, without=layer.parameters())
names = [
    *("centred", "its mean: 0", "1 / its size", "normed", "input of Q, K, V"),
    *("queries", "keys", "values", "log-sums", "heads, side by side"),
    *("centred", "its mean: 0", "1 / its size", "normed", "input of W1"),
    *("before GELU", "after GELU: input of W2"),
]
for name, (shape, _, size) in zip(names, kept, strict=True):
    print(f"{size // 4:5} numbers  {shape!s:16} {name}")
total = sum(size for *_, size in kept) // 4

# %% [markdown]
# Read it from the top. The norm hands the centred input to torch's kernel, which keeps it and, for
# each token, its mean, here 0, and one over its size. The quotient is kept for the gradient of the
# scale: $2nd + 2n$ a sequence. Its output is kept by the three maps that read it, once for all: $nd$. Attention
# keeps queries, keys, values and its outputs, $4nd$, and one log-sum a row, $hn$, from which the
# weights can be made again. The second norm is like the first. The feed-forward layer keeps its
# input, $nd$, and $f$ features a token before and after the activation. Together, with $f = 4d$:
#
# $$
# \begin{aligned}
# A &= B\,n\,\big( \underbrace{2(2d + 2)}_{\text{norms}} + \underbrace{5d + h}_{\text{attention}}
# + \underbrace{d + 2f}_{\text{feed-forward}} \big) \\
# &= B\,n\,(18\,d + h + 4) .
# \end{aligned}
# $$ (eq-counting-cost-activations)
#
# Nothing here grows like $n^2$. A *composed* attention keeps its weights, $h n^2$ numbers a
# sequence in place of the $hn$ log-sums; with dropout three times that, the softmax, the factors
# drawn, and their product. Dropout behind each of the two sublayers keeps factors too, $d$ a token:
#
# $$
# \begin{aligned}
# A_{\text{composed}} &= A + B\,h\,n\,(n - 1), \\
# A_{\text{dropout}} &= A + B\,h\,n\,(3n - 1) + 2\,B\,n\,d .
# \end{aligned}
# $$ (eq-counting-cost-composed)

# %%
check("eq-counting-cost-activations", total, B * n * (18 * d + h + 4))


def numbers_kept(layer, x):
    tensors = saved_tensors(layer, x, without=layer.parameters())
    return sum(size for *_, size in tensors) // x.element_size()


dropped = EncoderLayer(d, h, f, norm="pre", dropout=0.1)
check(
    "eq-counting-cost-composed",
    [
        numbers_kept(
            EncoderLayer(d, h, f, norm="pre").double(),
            x.detach().double().requires_grad_(),
        ),
        numbers_kept(dropped, x),
    ],
    [
        total + B * h * n * (n - 1),
        total + B * h * n * (3 * n - 1) + 2 * B * n * d,
    ],
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# {cite:t}`korthikanti2022` derive $s\,b\,h\,(34 + 5\,a s / h)$ bytes for a layer in half precision
# with dropout: their $s$ is our $n$, $b$ our $B$, $h$ our $d$, and $a$ our number of heads.
# :::
#
# :::{admonition} Our remark
# :class: remark
# Set our letters in: $B n d\,(34 + 5\,h n / d)$. The second term is $5 B h n^2$ bytes: a softmax and a
# product in half precision, and a mask of one byte. On our CPU path it is $3 \cdot 4$ bytes where
# dropout is on, and nothing where it is off and the kernel is fused. The first term, $34$ bytes, is
# $17$ numbers of two bytes; it has two masks of one byte for dropout, and for each of two norms only
# its input. Our norms scale behind torch's kernel, in a line of their own, so they keep its input and
# its output, two tensors where one would do: that is the price of a line that can be read. Same
# layer, same algebra, other kernels: *the number belongs to an implementation*.
# :::

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 3.3))
lengths = np.array([64, 128, 256, 512, 1024, 2048])
one = {"d_model": 768, "num_layers": 1, "num_heads": 12, "max_length": 2048}


def per_layer(n, **options):
    counts = cost.parts(GPT2Config(11, **one), 1, int(n), **options)
    whole = sum(
        c.saved for p, c in counts.items() if p in ("attention", "feed_forward")
    )
    return (whole + 2 * counts["norm"].saved // 3) / MiB


half = {"dtype": torch.bfloat16}
lines = {
    "ours, dropout": ("key", "s--", [per_layer(n) for n in lengths]),
    "ours, fused": (
        "query",
        "o-",
        [per_layer(n, training=False) for n in lengths],
    ),
    "ours, fused, half": (
        "value",
        "^-.",
        [per_layer(n, training=False, **half) for n in lengths],
    ),
    "Korthikanti et al., half": (
        "reference",
        "x:",
        [n * 768 * (34 + 5 * 12 * n / 768) / MiB for n in lengths],
    ),
}
for label, (color, style, y) in lines.items():
    ax.loglog(lengths, y, style, color=COLORS[color], label=label)
ax.set(xlabel="tokens n", ylabel="MiB kept by one layer", xticks=lengths)
ax.set_xticks([], minor=True)
ax.set_xticklabels([str(n) for n in lengths])
ax.legend()
show_figure(
    fig,
    name="fig-counting-cost-memory",
    caption="What one layer of GPT-2's width keeps of one sequence. Where "
    "attention is fused the line is straight with slope one; where weights "
    "are kept it bends upwards.",
    alt="Four rising lines over 64 to 2048 tokens on logarithmic axes. Two, "
    "for fused attention, are straight and parallel; two, with dropout and by "
    "the paper's formula, bend upwards and end several times higher.",
)

# %% [markdown]
# {numref}`fig-counting-cost-memory` draws it for one layer of GPT-2.
#
# ### Step 7. Checkpointing
#
# Memory can be had for time. *Activation checkpointing* keeps of each layer its input only, and in the
# backward pass computes the layer again, just before it is needed {cite}`chen2016`. What is kept falls from $L A$ to $L$
# inputs, beside one layer at a time in full:
#
# $$
# \begin{aligned}
# A_{\text{checkpointed}} &= L\,B\,n\,d \;+\; A, \\
# \frac{C_{\text{checkpointed}}}{C_{\text{training}}} &= \frac{1 + 1 + 2}{1 + 2} = \frac{4}{3} .
# \end{aligned}
# $$ (eq-counting-cost-checkpoint)
#
# The ratio is that of linear maps. In practice it is less, for two reasons. Fused attention already
# computes its logits twice. And torch stops computing again as soon as all that is needed is there:
# a layer's last map, whose input is the last thing kept, is not done twice.

# %%
L, B, n, d, h = 4, 3, 61, 44, 4
layers = torch.nn.ModuleList(
    EncoderLayer(d, h, 4 * d, norm="pre") for _ in range(L)
)
x = torch.randn(B, n, d, requires_grad=True)


def straight(x):
    for layer in layers:
        x = layer(x)
    return x


def checkpointed(x):
    for layer in layers:
        x = checkpoint(layer, x, use_reentrant=False)
    return x


def backward(stack, x):
    stack(x).sum().backward()


own = list(layers.parameters())
A = B * n * (18 * d + h + 4)
sums = [
    sum(size for *_, size in saved_tensors(stack, x, without=own)) // 4
    for stack in (straight, checkpointed)
]
check("without: L times A", sums[0], L * A)
check("with: the inputs of L layers", sums[1], L * B * n * d)
peaks = [
    peak_bytes(partial(backward, stack), x, device="cpu")
    for stack in (straight, checkpointed)
]
both = [
    flops(partial(backward, stack), x) for stack in (straight, checkpointed)
]
once = flops(straight, x)
not_again = L * 2 * B * n * 4 * d * d  # the last map of each layer
check("eq-counting-cost-checkpoint", both[1] - both[0], once - not_again)
linear_maps = cost.linear(5, 3, 2)
twice = 2 * linear_maps.forward + linear_maps.backward
check(
    "checkpointing: the ratio of a linear map",
    twice / (linear_maps.forward + linear_maps.backward),
    4 / 3,
)
print(f"operations: × {both[1] / both[0]:.3f}")
print(f"peak: {peaks[0] / MiB:.1f} MiB, then {peaks[1] / MiB:.1f} MiB")
check("the peak falls", peaks[1] < 0.75 * peaks[0])
glue("cost-checkpoint-flops", both[1] / both[0])
glue("cost-checkpoint-peak", peaks[1] / peaks[0])

# %% [markdown]
# With {glue:text}`cost-checkpoint-flops:.3f` times the operations the peak is
# {glue:text}`cost-checkpoint-peak:.2f` of what it was, in a stack of four; gradients, which stay,
# are in both. The more layers, the better the trade.
#
# ### Step 8. The cache
#
# A model that writes keeps keys and values of all that it has read (chapter 10), $d$ numbers each, in
# every layer:
#
# $$
# M_{\text{cache}} = 2\,L\,B\,n\,d\,s .
# $$ (eq-counting-cost-cache)
#
# And for one new token it multiplies one row with every matrix. An $m \times k$ by $k \times n$
# product reads both factors and writes the product, so for each byte it does
#
# $$
# \begin{aligned}
# I = \frac{2\,mkn}{s\,(mk + kn + mn)} &\;\xrightarrow{\;m = 1\;}\;
# \frac{2kn}{s\,(k + kn + n)} \\
# &\;\approx\; \frac{2}{s}
# \end{aligned}
# $$ (eq-counting-cost-intensity)
#
# operations. In half precision, $s = 2$, that is *one operation a byte*, whatever the model.

# %%
cache = KVCache(capacity=50)
with torch.no_grad():
    model(ids[:, :11], cache=cache)
B, L, d = len(ids), config.num_layers, config.d_model
held = sum(x.nbytes for pair in cache._kept.values() for x in pair)
check("eq-counting-cost-cache", held, 2 * L * B * 50 * d * 4)
check("the library agrees", cost.kv_cache_bytes(config, B, 50), held)

one_row = cost.arithmetic_intensity(1, 4096, 4096, dtype=torch.bfloat16)
moved = 2 * (4096 + 4096 * 4096 + 4096)
check("eq-counting-cost-intensity", one_row, 2 * 4096 * 4096 / moved)
check("one operation a byte", abs(one_row - 1) < 0.001)

# %% [markdown]
# ### Step 9. The roofline
#
# A device does at most $P$ operations a second, and its memory delivers at most $\beta$ bytes. A
# computation of intensity $I$ that moves $x$ bytes does $Ix$ operations. It takes at least $Ix/P$
# seconds for them and at least $x/\beta$ for the bytes, and at best both go on at the same time:
#
# $$
# \begin{aligned}
# \text{operations a second} &\le \frac{Ix}{\max(Ix/P,\; x/\beta)} \\
# &= \min(P,\; I\beta) .
# \end{aligned}
# $$ (eq-counting-cost-roofline)
#
# Below the ridge $I = P/\beta$ memory is waited for, above it arithmetic {cite}`williams2009`. A
# product with one row lies far below on every machine. That is why a batch of texts is written in
# hardly more time than one: the matrices are read once for all of them.

# %%
P, beta, moved = 100.0, 10.0, 7.0
for I in (0.5, 10.0, 40.0):
    fastest = I * moved / max(I * moved / P, moved / beta)
    check(
        "eq-counting-cost-roofline",
        fastest,
        cost.roofline(I, P, beta),
        atol=1e-9,
    )

# %% [markdown]
# **What can not be derived.** From $C = 6ND$ for $D$ tokens follows which pairs of $N$ and $D$ a
# given budget of operations pays for: all on one hyperbola. Which of them gives the lowest loss is a
# fact about data and training. {cite:t}`hoffmann2022` measured it, and found that parameters and
# tokens should grow alike. No formula of this chapter could have said so.

# %% [markdown]
# ## From scratch
#
# A model small enough to count on fingers: $d = 2$, one head, $f = 3$, $V = 5$, one layer, three
# places. We list its matrices in plain Python, and multiply out.

# %%
d, f, V, places, n = 2, 3, 5, 3, 3
tables = {"words": V * d, "places": places * d}
maps = {"Q": (d, d), "K": (d, d), "V": (d, d), "O": (d, d)}
maps |= {"W1": (d, f), "W2": (f, d)}
N = sum(tables.values()) + sum(a * b + b for a, b in maps.values()) + 3 * 2 * d
C = sum(2 * n * a * b for a, b in maps.values())  # each token through each map
C += 2 * n * n * d + 2 * n * n * d  # logits, weighted sums
C += 2 * n * d * V  # output words
tiny = GPT2Config(V, d, 1, 1, d_ff=f, max_length=places, **plain)
print(f"{N} parameters, {C} operations for {n} tokens")
check("by hand = the library: parameters", N, cost.parameters(tiny))
check("by hand = the library: operations", C, cost.flops(tiny, 1, n))
check(
    "by hand = torch's counter",
    C,
    flops(GPT2(tiny), torch.tensor([[0, 1, 2]])),
)

# %% [markdown]
# ## The library function
#
# `lib.cost` does the same with five parts, each with four counts, `Cost`. A linear map:
#
# ```{lib-source} lib.cost.linear
# ```
#
# Attention is four of them and its own two products:
#
# ```{lib-source} lib.cost.attention
# ```
#
# And a model is a sum. This is GPT-2, in full:
#
# ```{lib-source} lib.cost._gpt2
# ```
#
# Every formula is held to a count, in the library's tests on all models, dtypes and options, and
# here on one of each family: parameters, operations forward and with the backward pass, and bytes
# kept.

# %%
V = 29
common = {"vocab_size": V, "d_model": 14, "num_layers": 3, "num_heads": 2}
common |= {"d_ff": 23, "dropout": 0.0, "attention_dropout": 0.0}
t5 = {k: v for k, v in common.items() if k != "attention_dropout"}
t5 |= {"d_head": 5, "num_layers": 2}
vit = {k: v for k, v in common.items() if k != "vocab_size"}
FAMILIES = {
    "GPT-2": (GPT2, GPT2Config(**common, embedding_dropout=0.0), (11,)),
    "BERT": (BERT, BERTConfig(**common), (11,)),
    "DistilBERT": (DistilBERT, DistilBERTConfig(**common), (11,)),
    "Transformer": (Transformer, TransformerConfig(**common), (11, 7)),
    "T5": (T5, T5Config(**t5), (11, 7)),
    "T5 v1.1": (
        T5,
        T5Config(**t5, feed_forward="gated-gelu", tied=False),
        (11, 7),
    ),
    "Longformer": (Longformer, LongformerConfig(**common, window=6), (53,)),
    "ViT": (ViT, ViTConfig(35, 5, 3, 7, **vit), ()),
}


def step(model, *inputs):
    outputs = model(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(output.sum() for output in outputs).backward()


print(
    f"{'':12}{'parameters':>11}{'forward':>12}{'with backward':>15}{'kept':>10}"
)
for name, (kind, config, lengths) in FAMILIES.items():
    model = kind(config)
    inputs = [torch.randint(2, V, (3, n)) for n in lengths]
    inputs = inputs or [torch.randn(3, 3, 35, 35)]
    own = [*model.parameters(), *model.buffers()]
    measured = [
        count(model),
        flops(model, *inputs),
        flops(step, model, *inputs),
        sum(size for *_, size in saved_tensors(model, *inputs, without=own)),
    ]
    predicted = [
        cost.parameters(config),
        cost.flops(config, 3, *lengths),
        cost.flops(config, 3, *lengths, backward=True),
        cost.activation_bytes(config, 3, *lengths),
    ]
    print(f"{name:12}{predicted[0]:11,}{predicted[1]:12,}", end="")
    print(f"{predicted[2]:15,}{predicted[3]:10,}")
    check(f"{name}: predicted = counted", predicted, measured)

# %% [markdown]
# Not nearly: to the last parameter, operation and byte. Official sizes come out as well. The models
# are made on torch's *meta* device, which has shapes and no numbers:

# %%
official_sizes = {}
for name, kind in {
    "GPT-2": GPT2,
    "BERT-base": BERT,
    "DistilBERT": DistilBERT,
    "T5-small": T5,
    "ViT-B/16": ViT,
}.items():
    with torch.device("meta"):
        made = count(kind(MODELS[name]))
    official_sizes[name] = cost.parameters(MODELS[name])
    check(f"{name} on paper = in memory", official_sizes[name], made)
    print(f"{name:12}{made:13,}")
published = {"DistilBERT": 66, "T5-small": 60, "ViT-B/16": 86}
for name, millions in published.items():
    check(
        f"{name}: about the paper's number",
        abs(official_sizes[name] / 1e6 - millions) < 1.1,
    )
bert = cost.parts(BERTConfig(), 1, 1)["head"].parameters
bare = official_sizes["BERT-base"] - bert + 768 * 769  # with its pooler
check("BERT-base without heads: 109.5 million", bare, 109_482_240)
glue("cost-bert-bare", f"{bare:,}")

# %% [markdown]
# BERT's paper says 110M {cite}`devlin2019`, DistilBERT's 66M {cite}`sanh2019`, T5-small's 60M
# {cite}`raffel2020`, ViT-B's 86M {cite}`dosovitskiy2021`. With BERT one has to ask: with which heads?
# The bare encoder with its pooler has {glue:text}`cost-bert-bare` parameters.

# %% [markdown]
# ## On real data
#
# ### A run, predicted before it is made
#
# The book's small GPT reads the language reference, character by character. For three shapes we
# write down, *before* the run, how many operations a step takes, how many bytes at most are
# allocated at a time, and how long it should last. The time needs one measurement of the machine:
# how many operations a second a large product reaches here. Nothing else is measured first.

# %% tags=["nbval-ignore-output"]
rng = torch.Generator().manual_seed(0)
text = topics_text()
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
corpus = vocabulary.encode(text.train)
V = len(vocabulary.characters)

side = 1024
square = torch.randn(side, side)
(seconds,) = median_seconds(partial(torch.matmul, square, square), repeats=5)
fastest = 2 * side**3 / seconds
print(f"a product of {side} × {side}: {fastest / 1e9:.0f} · 10⁹ operations/s")

# %%
SHAPES = {  # layers, width, heads, tokens, batch
    "small": (2, 64, 2, 64, 8),
    "long": (2, 64, 2, 256, 4),
    "wide": (4, 128, 4, 64, 8),
}
plan = {}
for name, (L, d, h, n, B) in SHAPES.items():
    config = GPT2Config(V, d, L, h, max_length=n, **plain)
    plan[name] = {
        "config": config,
        "flops": cost.flops(config, B, n, backward=True),
        "bytes": cost.step_bytes(config, B, n),
    }
    total = sum(plan[name]["bytes"].values()) / MiB
    print(
        f"{name:6}{cost.parameters(config):9,} parameters,"
        f"{plan[name]['flops'] / 1e9:6.2f} · 10⁹ operations,{total:7.2f} MiB"
    )

# %% [markdown]
# Now the runs: five steps of `lib.training.fit` each, by three seeds. Operations and memory are
# counted in a run of two steps more.

# %% tags=["nbval-ignore-output"]
STEPS = 5
outcome = {}
for name, (*_, n, B) in SHAPES.items():
    taken, losses = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        rng = torch.Generator().manual_seed(seed)
        model = GPT2(plan[name]["config"])

        def batch_loss(step, model=model, rng=rng, B=B, n=n):
            ids = random_windows(corpus, B, n - 1, rng)
            ids = torch.cat([ids[0], ids[1][:, -1:]], dim=1)  # (B, n)
            return causal_lm_loss(model(ids), ids)

        fit(model, batch_loss, steps=1, learning_rate=1e-3)  # warm up
        began = time.perf_counter()
        losses += [fit(model, batch_loss, steps=STEPS, learning_rate=1e-3)]
        taken.append((time.perf_counter() - began) / STEPS)
    run = partial(fit, model, batch_loss, steps=2, learning_rate=1e-3)
    model.zero_grad(set_to_none=True)
    counted = flops(run) // 2
    model.zero_grad(set_to_none=True)
    allocated = peak_bytes(run, device="cpu") + plan[name]["bytes"]["weights"]
    predicted = sum(plan[name]["bytes"].values())
    outcome[name] = {
        "flops": counted / plan[name]["flops"],
        "bytes": allocated / predicted,
        "seconds": taken,
        "ratio": np.array(taken) / (plan[name]["flops"] / fastest),
    }
    off = {key: abs(outcome[name][key] - 1) for key in ("flops", "bytes")}
    check(f"{name}: operations within 1 %", off["flops"] < 0.01)
    check(f"{name}: peak memory within 1 %", off["bytes"] < 0.01)
    check(f"{name}: it learns", losses[-1][-1] < losses[-1][0])
    ratio = outcome[name]["ratio"]
    print(
        f"{name:6} operations × {outcome[name]['flops']:.4f}, bytes × "
        f"{outcome[name]['bytes']:.4f}, time × {ratio.mean():.2f} "
        f"± {ratio.std(ddof=1):.2f}"
    )
    glue(f"cost-run-{name}-flops", 100 * off["flops"])
    glue(f"cost-run-{name}-bytes", 100 * off["bytes"])
    glue(f"cost-run-{name}-time", ratio.mean())
    glue(f"cost-run-{name}-spread", ratio.std(ddof=1))

# %% [markdown]
# Against the prediction, operations are off by {glue:text}`cost-run-small-flops:.3f` %,
# {glue:text}`cost-run-long-flops:.3f` % and {glue:text}`cost-run-wide-flops:.3f` %, peak memory by
# {glue:text}`cost-run-small-bytes:.3f` %, {glue:text}`cost-run-long-bytes:.3f` % and
# {glue:text}`cost-run-wide-bytes:.3f` %. Time is another matter: the runs take
# {glue:text}`cost-run-small-time:.1f` ± {glue:text}`cost-run-small-spread:.1f`,
# {glue:text}`cost-run-long-time:.1f` ± {glue:text}`cost-run-long-spread:.1f` and
# {glue:text}`cost-run-wide-time:.1f` ± {glue:text}`cost-run-wide-spread:.1f` times as long as the
# products alone would at the speed of a large product (mean and standard deviation of three seeds,
# on the machine that built this page; another has other numbers). What is missing is all that we
# did not count: norms, GELU, softmax, AdamW, which do little arithmetic and move many bytes, and
# products too small to reach the large one's speed. *Counts are predictions; a time is a bound.*
# {numref}`fig-counting-cost-run` shows where the bytes go.

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.1, 2.9))
left = np.zeros(len(plan))
looks = {
    "weights": ("query", ""),
    "gradients": ("key", "///"),
    "moments": ("scores", "..."),
    "activations": ("value", ""),
    "logits": ("output", "xx"),
}
for part, (color, hatch) in looks.items():
    width = np.array([p["bytes"][part] / MiB for p in plan.values()])
    ax.barh(
        list(plan),
        width,
        left=left,
        color=COLORS[color],
        hatch=hatch,
        edgecolor="white",
        label=part,
    )
    left += width
ax.invert_yaxis()
ax.set(xlabel="MiB at the peak of a step, predicted")
ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0))
show_figure(
    fig,
    name="fig-counting-cost-run",
    caption="Predicted peaks of the three runs, by purpose. In models of this "
    "size activations outweigh the rest; the sixteen bytes a parameter are "
    "the three parts on the left.",
    alt="Three stacked bars. In the small and the long run activations and "
    "logits fill most of the bar; in the wide run weights, gradients and "
    "moments take more than a third.",
)

# %% [markdown]
# ### The roofline of this machine
#
# Two measurements draw it: the speed of a large product, and that of a copy, which reads and writes
# every byte. Then products of $m$ rows with one matrix: $m = 1$ is a step of *decoding*, one new
# token; large $m$ is *prefill*, a prompt read at once.

# %% tags=["nbval-ignore-output"]
source = torch.randn(2**23, device=device)  # 32 MiB
target = torch.empty_like(source)
side = 4096  # 64 MiB, more than a cache of usual size
matrix = torch.randn(side, side, device=device)
rows = [1, 4, 16, 64, 256]
products = [
    partial(torch.matmul, torch.randn(m, side, device=device), matrix)
    for m in rows
]
copied, *times = median_seconds(
    partial(target.copy_, source), *products, repeats=5
)
bandwidth = 2 * source.nbytes / copied
speeds = [2 * m * side**2 / t for m, t in zip(rows, times, strict=True)]
intensities = [cost.arithmetic_intensity(m, side, side) for m in rows]
peak = max(speeds)
print(
    f"copy: {bandwidth / 1e9:.1f} · 10⁹ bytes/s, ridge {peak / bandwidth:.1f}"
)
for m, I, speed in zip(rows, intensities, speeds, strict=True):
    roof = cost.roofline(I, peak, bandwidth)
    print(f"{m:5} rows: intensity {I:6.1f}, {speed / roof:.2f} of the roof")
glue("cost-roof-bandwidth", bandwidth / 1e9)
glue("cost-roof-peak", peak / 1e9)
glue("cost-roof-ridge", peak / bandwidth)
glue("cost-roof-decode", speeds[0] / peak)

# %% tags=["hide-input", "nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(4.8, 3.3))
line = np.geomspace(0.2, 600, 200)
roof = [cost.roofline(I, peak, bandwidth) / 1e9 for I in line]
ax.loglog(line, roof, color=COLORS["reference"], label="roofline")
ax.loglog(
    intensities,
    [speed / 1e9 for speed in speeds],
    "o",
    color=COLORS["query"],
    label="measured",
)
for m, I, speed in zip(rows, intensities, speeds, strict=True):
    ax.annotate(
        f"{m}",
        (I, speed / 1e9),
        xytext=(4, -11),
        textcoords="offset points",
    )
ax.set(
    xlabel="operations for each byte",
    ylabel="10⁹ operations/s",
)
low, high = ax.get_ylim()
ticks = [m * 10**k for k in range(-2, 7) for m in (1, 2, 5)]
ticks = [t for t in ticks if low <= t <= high]
ax.set_yticks(ticks, [f"{t:,g}" for t in ticks])
ax.minorticks_off()
ax.legend()
show_figure(
    fig,
    name="fig-counting-cost-roofline",
    caption="The roofline of the machine that built this page, and products "
    f"of {rows[0]} to {rows[-1]:,} rows with a {side:,} × {side:,} matrix "
    "in single precision. Few rows, a step of decoding, lie low on the left, "
    "where memory is waited for; many, a prompt, reach the level part.",
    alt="A line that rises with slope one and then is level, on logarithmic "
    "axes. Dots for few rows lie low at the left, those for more rows further "
    "to the right, up to the level part.",
)

# %% [markdown]
# Here memory delivers {glue:text}`cost-roof-bandwidth:.1f` · 10⁹ bytes a second and the fastest
# product does {glue:text}`cost-roof-peak:.0f` · 10⁹ operations: the ridge of
# {numref}`fig-counting-cost-roofline` is at {glue:text}`cost-roof-ridge:.0f` operations a byte. A
# product of one row reaches {glue:text}`cost-roof-decode:.2f` of that speed. All three numbers are
# the machine's, and vary from run to run; the slope is drawn for memory, and a matrix that fits into
# a cache may lie above it. These figures were not measured on a GPU.
#
# ### Utilisation
#
# For a GPU, the peak stands in a data sheet. The *model FLOPs utilisation* {cite}`chowdhery2022` is
#
# $$
# \text{MFU} = \frac{\text{operations the model needs, a second}}{P} .
# $$ (def-counting-cost-mfu)
#
# The numerator counts what the *model* needs: what is computed again, by checkpointing or in a fused
# kernel, is left out. The denominator is of this device, this dtype, and dense matrices.
# `lib.cost.mfu` looks the device up by its full name, and refuses every other:

# %%
for name in ("NVIDIA H100", "cpu"):
    try:
        cost.mfu(1e14, name, torch.bfloat16)
    except ValueError as error:
        print(f"{str(error)[:58]} …, {str(error).rsplit(', ', 1)[1]}")
share = cost.mfu(156e12, "NVIDIA A100-SXM4-40GB", torch.bfloat16)
check("half of an A100's peak is a utilisation of one half", share, 0.5)

# %% [markdown]
# ### Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | training takes $6N$ operations a token | of matrix products without attention, with $N_\times$ for $N$; at $n = 6d$ it is twice as much | {eq}`eq-counting-cost-training`, {eq}`eq-counting-cost-crossover` |
# | activations take $34$ bytes a feature | in one implementation, in half precision | {eq}`eq-counting-cost-activations` |
# | mixed precision halves the memory of training | 16 bytes a parameter either way | {eq}`eq-counting-cost-sixteen` |
# | attention is what makes Transformers expensive | below $n = 4d$ the feed-forward layer takes more | {eq}`eq-counting-cost-crossover` |

# %% [markdown]
# ## Broken on purpose
#
# Three mistakes that print a plausible number.
#
# :::{admonition} Broken on purpose D64: a multiply-add as one operation
# :class: broken
# Some tools print MACs and call them FLOPs. The peak in a data sheet counts a multiply-add as two. So
# a utilisation from the two together is half of what it should be, and nothing looks wrong.
# :::


# %%
def as_multiply_adds(m, k, n):
    return m * k * n


def as_operations(m, k, n):
    return 2 * m * k * n


def counts_what_a_loop_does(count_product):
    m, k, n = 3, 5, 7
    done = 0
    for _ in range(m * n):
        for _ in range(k):
            done += 1  # a multiplication
            done += 1  # an addition
    told = count_product(m, k, n)
    assert told == done, f"{told} operations told, {done} done"


catches(
    "D64", counts_what_a_loop_does, broken=as_multiply_adds, fixed=as_operations
)

# %% [markdown]
# **Fix:** two for a multiply-add, on both sides of the division; and say which of them a number is.
#
# :::{admonition} Broken on purpose D65: the peak of another GPU
# :class: broken
# A script has the peak of an A100 in it, as a constant. Run on a faster device it reports a share of
# a peak that isn't there. At a third of an H100's peak it says more than all, which somebody notices;
# at a sixth it says about a half, which nobody does. The figure *with sparsity* errs the other way,
# by a factor of two.
# :::


# %%
def hard_coded(speed, device_name, dtype):
    return speed / 312e12


def utilisation_is_of_this_device(utilisation):
    for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"):
        third = cost.peak_flops(name, torch.bfloat16) / 3
        share = utilisation(third, name, torch.bfloat16)
        assert abs(share - 1 / 3) < 1e-9, (
            f"a third of the peak of {name} is reported as {share:.0%}"
        )


catches(
    "D65",
    utilisation_is_of_this_device,
    broken=hard_coded,
    fixed=cost.mfu,
)

# %% [markdown]
# **Fix:** look the device up by name, refuse what is not in the table, and refuse more than the whole peak.
#
# :::{admonition} Broken on purpose D66: a counter that counts nothing
# :class: broken
# torch's counter knows operations by a list. The CPU's fused attention is not in it, so it is
# counted as 0, without a word. The longer the text, the more is missing.
# :::


# %%
def bare_counter(function, *args):
    with FlopCounterMode(display=False) as counter:
        function(*args)
    return counter.get_total_flops()


def attention_is_counted(counter):
    q = torch.randn(1, 2, 64, 16)  # on the CPU, where this happens
    told = counter(F.scaled_dot_product_attention, q, q, q)
    want = 4 * 2 * 64 * 64 * 16
    assert told == want, f"{told:,} operations told, {want:,} done"


catches("D66", attention_is_counted, broken=bare_counter, fixed=flops)

# %% [markdown]
# **Fix:** hold every counter to a formula before it is believed. `lib.teaching.measure.flops` tells
# torch what the kernel costs.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} Parameters of GPT-2
# :label: ex-counting_cost-parameters
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `gpt2_parameters(d, L, V, places)`: how many numbers of a GPT-2 are trained, with $f = 4d$
# and tied words.
#
# ```{dropdown} Hint
# {eq}`eq-counting-cost-gpt2`. Don't forget the norm behind the last layer.
# ```


# %% tags=["exercise-stub"]
def gpt2_parameters(d, L, V, places):
    raise NotImplementedError


grade("ex-counting_cost-parameters", gpt2_parameters)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-counting_cost-parameters
# :class: dropdown
# ```


# %% tags=["solution"]
def gpt2_parameters(d, L, V, places):
    return (V + places) * d + L * (12 * d**2 + 13 * d) + 2 * d


grade("ex-counting_cost-parameters", gpt2_parameters)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Operations of a training step
# :label: ex-counting_cost-training
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `step_flops(d, L, V, B, n)`: the operations of the matrix products of one training step of a
# GPT-2 with $f = 4d$, forward and backward, with attention that keeps its weights.
#
# ```{dropdown} Hint
# {eq}`eq-counting-cost-training`; the table of words is multiplied once.
# ```


# %% tags=["exercise-stub"]
def step_flops(d, L, V, B, n):
    raise NotImplementedError


grade("ex-counting_cost-training", step_flops)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-counting_cost-training
# :class: dropdown
# ```


# %% tags=["solution"]
def step_flops(d, L, V, B, n):
    multiplied = 12 * L * d**2 + V * d
    return B * n * (6 * multiplied + 12 * L * n * d)


grade("ex-counting_cost-training", step_flops)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The largest batch
# :label: ex-counting_cost-batch
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `largest_batch(memory, N, L, d, h, n)`: how many sequences fit into so many bytes, in single
# precision, if 16 bytes a parameter stand and each layer keeps what step 6 says; logits, tables and
# the last norm may be ignored. 0 if not even one fits.
#
# ```{dropdown} Hint
# Take off what stands, and divide by what one sequence keeps; whole sequences only.
# ```


# %% tags=["exercise-stub"]
def largest_batch(memory, N, L, d, h, n):
    raise NotImplementedError


grade("ex-counting_cost-batch", largest_batch)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-counting_cost-batch
# :class: dropdown
# ```


# %% tags=["solution"]
def largest_batch(memory, N, L, d, h, n):
    each = 4 * L * n * (18 * d + h + 4)
    return max(0, (memory - 16 * N) // each)


grade("ex-counting_cost-batch", largest_batch)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Where memory is waited for
# :label: ex-counting_cost-ridge
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `least_rows(d, peak, bandwidth, size)`: the least number of rows $m$ for which a product with
# a $d \times d$ matrix is bound by arithmetic, $I \ge P/\beta$, with numbers of `size` bytes. `None`
# if there is no such $m$.
#
# ```{dropdown} Hint
# $I(m) = 2md^2 / (s(2md + d^2))$ grows with $m$, towards $d/s$. Solve for $m$, or search.
# ```


# %% tags=["exercise-stub"]
def least_rows(d, peak, bandwidth, size):
    raise NotImplementedError


grade("ex-counting_cost-ridge", least_rows)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-counting_cost-ridge
# :class: dropdown
# ```


# %% tags=["solution"]
def least_rows(d, peak, bandwidth, size):
    ridge = peak / bandwidth
    if ridge >= d / size:  # what the intensity never reaches
        return None
    m = 1
    while 2 * m * d < ridge * size * (2 * m + d):
        m += 1
    return m


grade("ex-counting_cost-ridge", least_rows)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - A block has $12d^2 + 13d$ parameters {eq}`eq-counting-cost-block`; heads are free. GPT-2 follows to
#   the last number {eq}`eq-counting-cost-gpt2`.
# - A map takes two operations a token for each entry of its matrix, attention proper $4nd$ more a layer
#   {eq}`eq-counting-cost-forward`; training three times that {eq}`eq-counting-cost-training`, and
#   fused attention one product in four more {eq}`eq-counting-cost-fused`.
# - Attention proper passes the feed-forward layer at $n = 4d$, all maps at $n = 6d$
#   {eq}`eq-counting-cost-crossover`.
# - Sixteen bytes a parameter stand {eq}`eq-counting-cost-sixteen`. Activations depend on kernels: ours
#   keep $18d + h + 4$ numbers a token and layer {eq}`eq-counting-cost-activations`, weights that are
#   kept add $hn$ {eq}`eq-counting-cost-composed`, and checkpointing keeps $d$ for a third more
#   operations at most {eq}`eq-counting-cost-checkpoint`.
# - Decoding does about one operation a byte in half precision {eq}`eq-counting-cost-intensity`, far
#   below every ridge {eq}`eq-counting-cost-roofline`.
# - Operations and bytes of a real run were predicted within a hundredth. Its time was not: it is bounded from
#   below, and what is not a product decides how far above it lies.
#
# ## Sources
#
# - {cite:t}`kaplan2020`, §2.1: $2N$ and $6N$, without embeddings.
# - {cite:t}`chowdhery2022`, §4.1 and appendix B: utilisation, and the term for attention.
# - {cite:t}`hoffmann2022`: parameters and tokens that a budget is best spent on, measured.
# - {cite:t}`rajbhandari2020`, §3.1: 16 bytes a parameter in mixed precision.
# - {cite:t}`korthikanti2022`, §4.1: activations of a layer; and what to compute again.
# - {cite:t}`chen2016`, §4: checkpointing, there for any deep network.
# - {cite:t}`williams2009`: the roofline.
