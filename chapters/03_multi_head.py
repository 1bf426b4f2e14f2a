# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       In “the black cat sleeps”, the word “sleeps” needs two things: who sleeps, and what it looks
#       like. One attention head hands over one average of all values, so the two arrive blended. What
#       do several small heads do that one wide head cannot, what do they lose by it, and how many
#       should there be?
#     goals:
#       - write multi-head attention as a sum of low-rank maps, and remove one of its terms exactly
#       - split, merge, fuse and prune heads by index algebra alone, and prove each against PyTorch
#       - say what is equal between one wide head and many narrow ones, and what is not
#       - measure how many heads help a language model, and how much each trained head matters
#       - recognise six mistakes that popular code makes, and write the test that catches each
#     prerequisites:
#       - 02_attention
#       - the rank of a matrix
#     data: The language reference that ships inside Python itself (pydoc_data.topics); no download.
#     hardware: One CPU core. Uses a GPU where there is one.
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
# # Multi-head attention

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "attention.py").exists()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import math
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.attention import (
    MultiHeadAttention,
    causal_mask,
    merge_heads,
    padding_mask,
    scaled_dot_product_attention,
    split_heads,
)
from lib.data import (
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.models.attention_only import AttentionOnly
from lib.teaching import (
    AttentionRows,
    Progress,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.diagrams import Matrix, matrix_products
from lib.teaching.figures import COLORS, heatmap
from lib.teaching.measure import flops
from lib.teaching.recorded import recorded
from lib.training import evaluate, fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# The last chapter's attention gives each query *one* row of weights, and so one average of the
# values. Multi-head attention runs $h$ attentions side by side. Each has its own small projections
# of the same inputs, so each may look elsewhere and carry home something else. What they find is
# laid side by side and mixed by one last matrix:
#
# $$
# \begin{aligned}
# & \operatorname{MultiHead}(Q, K, V) = \operatorname{Concat}(H_1, \dots, H_h)\, W^O , \\
# & H_i = \operatorname{Attention}(Q W_i^Q,\; K W_i^K,\; V W_i^V) .
# \end{aligned}
# $$ (def-multi-head-formula)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $Q$ | $n_q \times d$ | the tokens that ask, $d$ features each (the paper's $d_{\text{model}}$) |
# | $K$, $V$ | $n_k \times d$ | the tokens that are asked |
# | $W_i^Q, W_i^K, W_i^V$ | $d \times d_h$ | head $i$'s three projections; $d_h = d/h$ |
# | $H_i$ | $n_q \times d_h$ | what head $i$ found, one row a query |
# | $\operatorname{Concat}$ | $n_q \times d$ | the heads side by side, $h \cdot d_h = d$ columns |
# | $W^O$ | $d \times d$ | the mixing at the end |
#
# In *self-attention*, $Q = K = V = X$: a sequence asks itself. In *cross-attention* the queries
# come from one sequence and keys and values from another; a translation asks its source. That is
# why the formula keeps three inputs apart, and why $n_q$ and $n_k$ may differ.
# {numref}`fig-multi-head-shapes` draws one head and the mixing.

# %% tags=["hide-input"]
x_box = Matrix("$Q$", "$n_q$", "$d$", 1.3, 1.8, COLORS["query"])
wq_box = Matrix("$W_i^Q$", "$d$", "$d_h$", 1.8, 0.6, COLORS["query"])
qi_box = Matrix("$Q_i$", "$n_q$", "$d_h$", 1.3, 0.6, COLORS["query"])
p_box = Matrix("$A_i$", "$n_q$", "$n_k$", 1.3, 1.7, COLORS["weights"])
v_box = Matrix("$V_i$", "$n_k$", "$d_h$", 1.7, 0.6, COLORS["value"])
h_box = Matrix("$H_i$", "$n_q$", "$d_h$", 1.3, 0.6, COLORS["output"])
c_box = Matrix("$H_1 H_2 H_3$", "$n_q$", "$d$", 1.3, 1.8, COLORS["output"])
wo_box = Matrix("$W^O$", "$d$", "$d$", 1.8, 1.8, COLORS["output"])
o_box = Matrix("out", "$n_q$", "$d$", 1.3, 1.8, COLORS["output"])
fig, ax = plt.subplots(figsize=(4.8, 4.4))
products = [
    [x_box, (r"$\times$", 0.6), wq_box, ("$=$", 0.6), qi_box],
    [p_box, (r"$\times$", 0.6), v_box, ("$=$", 0.6), h_box],
    [c_box, (r"$\times$", 0.6), wo_box, ("$=$", 0.6), o_box],
]
matrix_products(ax, products)
show_figure(
    fig,
    name="fig-multi-head-shapes",
    caption="One of three heads, drawn to scale. Its queries are narrow (and so "
    "are its keys and values); its weights $A_i$ are as large as ever; the "
    "heads side by side are as wide as the input.",
    alt="Three rows of boxes. Q times the narrow W_i^Q gives the narrow Q_i. "
    "The weights A_i times the narrow V_i give H_i. Three heads side by side, "
    "as wide as Q, times the square W^O give the output.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# “Multi-head attention allows the model to jointly attend to information from different
# representation subspaces at different positions. With a single attention head, averaging inhibits
# this.” {cite:t}`vaswani2017` (§3.2.2). The base model has $h = 8$ heads of width $d_h = 64$.
# :::
#
# :::{admonition} Our remark
# :class: remark
# Read what is *not* there. The projections are matrices: no ReLU, no bias. Q, K and V are not
# sub-layers with heads of their own; each head has three matrices, and that is all. The heads'
# *outputs* are concatenated; their weights are never added or averaged. Each of these is told
# wrongly in popular articles, and each is broken on purpose below.
# :::

# %% [markdown]
# ## Derivation
#
# Seven steps. The first three take the formula apart, the next two say what is hidden in it and
# what it costs, and the last two ask what all of it is good for.
#
# ### Step 1. Heads are columns: the split as index algebra
#
# Nobody multiplies by $3h$ small matrices. Put the $W_i^Q$ side by side in one matrix $W^Q = [\,
# W_1^Q \mid \dots \mid W_h^Q \,]$ of shape $d \times d$. A column of a matrix product depends on
# one column of the right factor only, so the wide product holds all the narrow ones. Count heads
# and features from zero. Then
#
# $$
# (X W^Q)_{t,\; i d_h + r} = (X W_i^Q)_{t,\, r} .
# $$ (eq-multi-head-split)
#
# Feature $c$ of the wide product belongs to head $\lfloor c / d_h \rfloor$ and is its feature $c
# \bmod d_h$. Memory holds a matrix row by row, so the number stands at the address
#
# $$
# \operatorname{address}(t, i, r) = t\,d + i\,d_h + r ,
# $$ (eq-multi-head-address)
#
# and a tensor indexed by (head, token, feature) needs the *strides* $(d_h, d, 1)$: a step to the
# next head moves $d_h$ numbers on, a step to the next token $d$. First cut the last dimension in
# two, then swap token and head; nothing is copied. To ask for the shape $(h, n, d_h)$ directly
# keeps the number at address $(i n + t) d_h + r$ instead. That has the right shape and the wrong
# content; it is D11 below.
#
# By the same argument all three projections are one product, if they have one input:
#
# $$
# X\,[\,W^Q \mid W^K \mid W^V\,] = [\,XW^Q \mid XW^K \mid XW^V\,] .
# $$ (eq-multi-head-fused)
#
# That is PyTorch's `in_proj_weight`. `nn.Linear` keeps the transpose of the paper's matrix, so
# there the three stand on top of each other, $3d \times d$.

# %%
d, h, n = 6, 3, 5
d_h = d // h
generator = torch.Generator().manual_seed(1)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


X, W_Q, W_K, W_V, W_O = (
    randn(n, d), randn(d, d), randn(d, d), randn(d, d), randn(d, d)
)  # fmt: skip
columns = [slice(i * d_h, (i + 1) * d_h) for i in range(h)]  # head i's own
wide = X @ W_Q
narrow = torch.stack([X @ W_Q[:, own] for own in columns])  # (h, n, d_h)
check("eq-multi-head-split", split_heads(wide[None], h)[0], narrow)
flat, split = wide.flatten(), split_heads(wide[None], h)[0]
by_address = torch.tensor(
    [
        [[flat[t * d + i * d_h + r] for r in range(d_h)] for t in range(n)]
        for i in range(h)
    ]
)
check("eq-multi-head-address", split, by_address)
check("the strides are (d_h, d, 1)", split.stride() == (d_h, d, 1))
check("no number was copied", split.data_ptr() == wide.data_ptr())

fused = nn.Linear(d, 3 * d, bias=False, dtype=double)
with torch.no_grad():
    fused.weight.copy_(torch.cat([W_Q, W_K, W_V], dim=1).T)
three = torch.cat([X @ W_Q, X @ W_K, X @ W_V], dim=1)
check("eq-multi-head-fused", fused(X), three)
memory = randn(n, d)  # another sequence
asked = torch.cat([X @ W_Q, memory @ W_K, memory @ W_V], dim=1)
gap = (fused(X) - asked).abs().max()
glue("multi-head-fused-gap", gap)
check("with two sequences the fused product is wrong", gap > 0.1)

# %% [markdown]
# **Without the hypothesis.** In cross-attention keys and values come from another sequence. The one
# product then computes keys that nobody asked for, off by up to
# {glue:text}`multi-head-fused-gap:.1f` here. Only keys and values may be fused there.
#
# ### Step 2. A sum in disguise
#
# The concatenation hides the structure. Cut $W^O$ into $h$ blocks of $d_h$ *rows*, $W_i^O$ of shape
# $d_h \times d$. Column $c$ of the concatenation meets row $c$ of $W^O$, and the columns come in
# blocks:
#
# $$
# \begin{aligned}
# \operatorname{Concat}(H_1, \dots, H_h)\, W^O
# &= \sum_{c} \operatorname{Concat}(\dots)_{\cdot c}\, W^O_{c \cdot} \\
# &= \sum_{i=1}^{h} H_i\, W_i^O .
# \end{aligned}
# $$ (eq-multi-head-sum)
#
# Now put in $H_i = A_i\, (X W_i^V)$, where $A_i$ are the weights of head $i$. Matrix products
# may be bracketed as we like:
#
# $$
# \begin{gathered}
# \operatorname{MultiHead}(X, X, X) = \sum_{i=1}^{h} A_i\; X\; \underbrace{W_i^V W_i^O}_{d
# \times d}, \\
# A_i = \operatorname{softmax}\!\left(\frac{X\, W_i^Q (W_i^K)^\top X^\top}{\sqrt{d_h}}\right) .
# \end{gathered}
# $$ (eq-multi-head-low-rank)
#
# This is the form to think in. Each head is one term. $A_i$ acts on the left and says *from where*;
# $W_i^V W_i^O$ acts on the right and says *what*, and where to put it. {cite:t}`elhage2021` call
# them the QK and the OV circuit, and the heads independent and additive. From a sum one
# can take a term away:
#
# $$
# \begin{aligned}
# & \operatorname{MultiHead}(X) - \operatorname{MultiHead}_{\text{without } i}(X) \\
# & \quad = A_i\, X\, W_i^V W_i^O .
# \end{aligned}
# $$ (eq-multi-head-ablation)
#
# To *ablate* a head, then, is to set its $d_h$ rows of $W^O$ to zero. No other head notices.

# %%
def patterns(X, W_Q, W_K, h):
    """The weights of each head: (h, n, n)."""
    q, k = (split_heads((X @ W)[None], h)[0] for W in (W_Q, W_K))
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)


A = patterns(X, W_Q, W_K, h)
heads = A @ split_heads((X @ W_V)[None], h)[0]  # (h, n, d_h)
concatenated = torch.cat(list(heads), dim=-1) @ W_O
summands = torch.stack([heads[i] @ W_O[columns[i]] for i in range(h)])
check("eq-multi-head-sum", concatenated, summands.sum(0))
low_rank = sum(
    A[i] @ X @ (W_V[:, columns[i]] @ W_O[columns[i]]) for i in range(h)
)
check("eq-multi-head-low-rank", concatenated, low_rank)
ablated_W_O = W_O.clone()
ablated_W_O[columns[1]] = 0.0
without_one = torch.cat(list(heads), dim=-1) @ ablated_W_O
check("eq-multi-head-ablation", concatenated - without_one, summands[1])
bent = (concatenated.relu() - without_one.relu() - summands[1]).abs().max()
glue("multi-head-bent-gap", bent)
check("behind a ReLU it is no longer one summand", bent > 0.1)

# %% [markdown]
# **Without the hypothesis.** All of this needs that nothing nonlinear stands between the heads and
# the place where we look. Behind a ReLU the difference is no longer one summand; it is off by up to
# {glue:text}`multi-head-bent-gap:.1f`. So *output* is additive over heads, and a *loss* is not. We
# shall meet that again when heads of a trained model are removed.
#
# ### Step 3. What a narrow head cannot be: ranks
#
# The rank of a product is at most that of any factor. The scores pass through $d_h$ columns, and so
# does what a head moves:
#
# $$
# \operatorname{rank}(S_i) \le d_h , \qquad S_i = \tfrac{1}{\sqrt{d_h}}\, X W_i^Q (W_i^K)^\top X^\top ,
# $$ (eq-multi-head-score-rank)
# $$
# \operatorname{rank}(W_i^V W_i^O) \le d_h .
# $$ (eq-multi-head-value-rank)
#
# A head reads at most $d_h$ directions of a token and writes at most $d_h$. Do the *weights* have
# low rank too? No: the softmax is not linear, and $A_i$ can have rank $n$. What survives is this.
# Take logarithms. $\log A_i$ is $S_i$ minus one number for each row. Subtract from each row its
# mean, that is, multiply from the right by $C = I - \tfrac1n \mathbf{1}\mathbf{1}^\top$. What is
# constant along a row is gone, and
#
# $$
# \begin{gathered}
# (\log A_i)\, C = S_i\, C \\
# \Longrightarrow\quad \operatorname{rank}\big((\log A_i)\, C\big) \le d_h .
# \end{gathered}
# $$ (eq-multi-head-log-rank)
#
# So of all patterns of attention a head can make *exactly* only those whose centred logarithm has
# a rank of at most $d_h$.

# %%
n_long = 11
X_long = randn(n_long, d)
q, k = (split_heads((X_long @ W)[None], h)[0] for W in (W_Q, W_K))
S = q @ k.mT / math.sqrt(d_h)
rank = torch.linalg.matrix_rank
check("eq-multi-head-score-rank", rank(S).max(), float(d_h))
values = [W_V[:, own] @ W_O[own] for own in columns]
check("eq-multi-head-value-rank", rank(torch.stack(values)).max(), float(d_h))
C = torch.eye(n_long, dtype=double) - 1 / n_long
centred = S.softmax(-1).log() @ C
check("eq-multi-head-log-rank", centred, S @ C)
check("eq-multi-head-log-rank", rank(centred, atol=1e-9).max(), float(d_h))
print(f"{n_long} tokens, heads of width {d_h}")
print("rank of the scores:  ", rank(S).tolist())
print("rank of the weights: ", rank(S.softmax(-1)).tolist())
print("rank of all OV maps together:", rank(sum(values)).item(), "of", d)
check("the weights have a higher rank", bool((rank(S.softmax(-1)) > d_h).all()))

# %% [markdown]
# The bound bites only where $d_h < n$. A head at least as wide as the sequence is long is not
# limited by it. Heads of width 64 over thousands of tokens are. {cite:t}`bhojanapalli2020` call this
# the low-rank bottleneck of multi-head attention.
#
# ### Step 4. Hidden freedom: many weights, one function
#
# Take any invertible $G$ of shape $d_h \times d_h$ and replace $W_i^Q$ by $W_i^Q G$ and $W_i^K$ by
# $W_i^K G^{-\top}$. Only their product enters {eq}`eq-multi-head-low-rank`:
#
# $$
# \begin{aligned}
# (W_i^Q G)\,(W_i^K G^{-\top})^\top &= W_i^Q\, G\, G^{-1}\, (W_i^K)^\top \\
# &= W_i^Q (W_i^K)^\top .
# \end{aligned}
# $$ (eq-multi-head-gauge-qk)
#
# Likewise on the other side, with a $G$ of its own:
#
# $$
# (W_i^V G)\,(G^{-1} W_i^O) = W_i^V W_i^O .
# $$ (eq-multi-head-gauge-vo)
#
# Physicists call this a *gauge freedom*: a choice of coordinates that no measurement can see. It
# has consequences. “Feature 3 of the query” means nothing by itself, for a rotation of the head's
# space makes another feature 3 and the same model. And weights of two trained models cannot be
# compared entry by entry.
#
# Biases hide a freedom too. A bias $b$ on a head's keys adds $q_t \cdot b$ to every score of row
# $t$; that is constant along the row, and the softmax does not see it:
#
# $$
# \begin{aligned}
# \operatorname{softmax}\!\big(q\,(k + \mathbf{1} b^\top)^\top\big)
# &= \operatorname{softmax}\!\big(q k^\top + (q b)\mathbf{1}^\top\big) \\
# &= \operatorname{softmax}(q k^\top) .
# \end{aligned}
# $$ (eq-multi-head-key-bias)
#
# A bias on the values passes straight through, because each row of $A_i$ sums to one: it is a bias
# of the output. So of the four biases that most code has, only two do anything new.
#
# How much freedom is left? A $d \times d$ matrix of rank $d_h$ has $2 d d_h - d_h^2$ degrees of
# freedom: $2 d d_h$ numbers in its two factors, less the $d_h^2$ of $G$. A head has two such
# matrices, and $h$ heads with $d_h = d/h$ have
#
# $$
# h \cdot 2\,(2 d\, d_h - d_h^2) = 4 d^2 - \frac{2 d^2}{h} .
# $$ (eq-multi-head-freedom)
#
# All of them have $4d^2$ parameters, yet *one* wide head uses half of them to say the same thing
# twice: $2d^2$ degrees of freedom. Eight heads have $\tfrac{15}{4} d^2$. We count by
# machine: the rank of the Jacobian from all parameters to all products.

# %%
own = columns[0]
G = randn(d_h, d_h)
G_inv = torch.linalg.inv(G)
check(
    "eq-multi-head-gauge-qk",
    (W_Q[:, own] @ G) @ (W_K[:, own] @ G_inv.T).T,
    W_Q[:, own] @ W_K[:, own].T,
    atol=1e-11,
)
check(
    "eq-multi-head-gauge-vo",
    (W_V[:, own] @ G) @ (G_inv @ W_O[own]),
    W_V[:, own] @ W_O[own],
    atol=1e-11,
)
q, k, b = randn(n, d_h), randn(n, d_h), randn(d_h)
check(
    "eq-multi-head-key-bias", (q @ (k + b).T).softmax(-1), (q @ k.T).softmax(-1)
)
rectified = ((X @ W_Q[:, own] @ G).relu()) @ (
    (X @ W_K[:, own] @ G_inv.T).relu()
).T
plain = (X @ W_Q[:, own]).relu() @ (X @ W_K[:, own]).relu().T
check("a ReLU on q and k breaks it", (rectified - plain).abs().max() > 0.1)


def products(parameters, h):
    """Of every head the matrices W_Q W_K^T and W_V W_O: (2, h, d, d)."""
    W_Q, W_K, W_V, W_O = parameters
    q, k, v = (W.unflatten(-1, (h, -1)).movedim(1, 0) for W in (W_Q, W_K, W_V))
    return torch.stack([q @ k.mT, v @ W_O.unflatten(0, (h, -1))])


parameters = randn(4, d, d)
counted, formula = [], []
for heads_here in (1, 2, 3, 6):
    jacobian = torch.autograd.functional.jacobian(
        lambda w, k=heads_here: products(w, k), parameters
    ).reshape(-1, 4 * d * d)
    counted.append(float(rank(jacobian)))
    formula.append(4 * d**2 - 2 * d**2 / heads_here)
    print(
        f"{heads_here} heads of width {d // heads_here}: {4 * d * d} "
        f"parameters, {counted[-1]:.0f} degrees of freedom"
    )
check("eq-multi-head-freedom", counted, formula)

# %% [markdown]
# **Without the hypothesis.** The freedom needs that queries meet keys in a plain dot product. With a
# ReLU on both, the check above shows that the scores change. Encodings that turn queries and keys
# by their positions shrink the freedom too, to those $G$ that commute with the turning.
#
# :::{admonition} Our remark
# :class: remark
# “Equal parameters” is thus not “equal freedom”, even before any training.
# {eq}`eq-multi-head-freedom` counts how many ways the matrices of a layer can differ. It does not
# say that more ways are better.
# :::
#
# ### Step 5. What it costs, and the scale
#
# Each of the four projections has $d \times h d_h = d^2$ entries, whatever $h$ is:
#
# $$
# \#\text{parameters} = 3 \cdot h \cdot d\, d_h + h\, d_h\, d = 4 d^2 .
# $$ (eq-multi-head-parameters)
#
# The four products of an $n \times d$ matrix with them take $4 \cdot 2 n d^2$ operations, and by the
# last chapter's count $h$ heads of attention take $h \cdot 2 n^2 (d_h + d_h) = 4 n^2 d$:
#
# $$
# \text{FLOPs} = 8\, n\, d^2 + 4\, n^2 d .
# $$ (eq-multi-head-flops)
#
# There is no $h$ in it. One thing does grow: each head writes weights of its own, so there are $h$
# times as many numbers to store and exponentials to take, if they are stored at all:
#
# $$
# \text{bytes}(A_1, \dots, A_h) = h\, n^2\, b .
# $$ (eq-multi-head-bytes)
#
# The paper says that the cost is “similar” to that of one wide head {cite}`vaswani2017` (§3.2.2);
# similar is the right word. And the scale: a head's score is a sum of $d_h$ products, not of $d$.
# The derivation of the square root holds inside each head, with its own width:
#
# $$
# \operatorname{Var}\!\left(\frac{q_i \cdot k_i}{\sqrt{d_h}}\right) = 1 ,
# \qquad
# \operatorname{Var}\!\left(\frac{q_i \cdot k_i}{\sqrt{d}}\right) = \frac{1}{h} .
# $$ (eq-multi-head-scale)

# %%
x = torch.randn(1, 37, 24)
for num_heads in (1, 2, 4, 8):
    attend = MultiHeadAttention(24, num_heads, bias=False)
    count = sum(p.numel() for p in attend.parameters())
    check("eq-multi-head-parameters", count, 4 * 24**2)
    check(
        "eq-multi-head-flops", flops(attend, x), 8 * 37 * 24**2 + 4 * 37**2 * 24
    )
    _, weights = attend(x, return_weights=True)
    check("eq-multi-head-bytes", weights.nbytes, num_heads * 37**2 * 4)

pairs, wide, num_heads = 50_000, 64, 8
q, k = (split_heads(randn(1, pairs, wide), num_heads)[0] for _ in range(2))
products_of = (q * k).sum(-1)  # (h, pairs)
error = 5 * math.sqrt((2 + 6 / 8) / products_of.numel())
head_scale, model_scale = math.sqrt(wide / num_heads), math.sqrt(wide)
check(
    "eq-multi-head-scale", (products_of / head_scale).var(), 1.0, atol=error
)
check(
    "eq-multi-head-scale",
    (products_of / model_scale).var() * num_heads,
    1.0,
    atol=error,
)

# %% [markdown]
# **Without the hypothesis.** The parity needs $d_h = d/h$. A paper may also choose $d_k$ and $d_v$
# freely; rows (B) of Table 3 in {cite:t}`vaswani2017` keep eight heads, shrink only $d_k$, and the
# model gets smaller and worse.
#
# ### Step 6. What one wide head cannot do
#
# One head returns one average. Suppose that two places hold contents $a$ and $b$, vectors of $m$
# numbers, and that a query should bring home *both*, side by side: the pair $(a, b)$. The head
# gives the two places weights $p$ and $1 - p$, and a matrix $M$ of shape $m \times 2m$ stands for
# all it does to values:
#
# $$
# o = (p\, a + (1 - p)\, b)\, M .
# $$ (def-multi-head-one-average)
#
# Whatever $M$ is, moving $a$ one way and $b$ the other leaves no trace. For every vector $c$,
#
# $$
# \begin{aligned}
# & p\,\big(a + (1-p)\, c\big) + (1-p)\,\big(b - p\, c\big) \\
# & \quad = p\, a + (1-p)\, b .
# \end{aligned}
# $$ (eq-multi-head-blind)
#
# So for fixed weights infinitely many different pairs give one and the same output. Could
# the head choose $p$ cleverly, depending on $a$ and $b$? It does not help. **Claim:** no $M$ and no
# rule for $p$ give $o = (a, b)$ for all $a$ and $b$. **Proof:** choose $a = b = c$. Then $o = cM$ for
# any $p$, and it should be $(c, c)$ for all $c$; so $M = [\,I \mid I\,]$. But then the two halves of
# $o$ are always equal, and any pair with $a \ne b$ comes out wrong. $\square$ With that $M$ and $z
# = pa + (1-p)b$, the error is
#
# $$
# \begin{aligned}
# \lVert z - a \rVert^2 + \lVert z - b \rVert^2
# &= \big((1-p)^2 + p^2\big) \lVert a - b \rVert^2 \\
# &\ge \tfrac12 \lVert a - b \rVert^2 .
# \end{aligned}
# $$ (eq-multi-head-two-places)
#
# If an error is allowed, how good can a head with fixed weights be in the mean? Let $a$ and $b$ be
# independent, with mean zero and variance one in each component. Guess $a$ from $z$ linearly. The
# best factor is $\operatorname{Cov}(a, z)/\operatorname{Var}(z) = p/(p^2 + (1-p)^2)$, and it
# explains the share $p^2/(p^2 + (1-p)^2)$ of $a$'s variance. For $b$ it is $(1-p)^2/(p^2 +
# (1-p)^2)$. Add them and divide by the two vectors that were wanted:
#
# $$
# \begin{gathered}
# \text{explained share} = \frac12 \cdot \frac{p^2 + (1-p)^2}{p^2 + (1-p)^2} = \frac12 \\
# \text{for every } p .
# \end{gathered}
# $$ (eq-multi-head-half)
#
# Look at one place only, or at both evenly: half is all there is. Two heads of half the width do it
# without error: one looks at the first place and writes $(a, 0)$, the other looks at the second and
# writes $(0, b)$. That is what “averaging inhibits this” means.

# %%
m = 3
a, b, c = randn(m), randn(m), randn(m)
for p in (0.2, 0.5, 0.9):
    blend = p * a + (1 - p) * b
    moved = p * (a + (1 - p) * c) + (1 - p) * (b - p * c)
    check("eq-multi-head-blind", moved, blend)
    error = ((blend - a) ** 2).sum() + ((blend - b) ** 2).sum()
    apart = ((a - b) ** 2).sum()
    check(
        "eq-multi-head-two-places", error, ((1 - p) ** 2 + p**2) * apart.item()
    )
    check("at least half of the distance", error >= apart / 2 - 1e-12)

many = 100_000
a, b = randn(many, m), randn(many, m)
for p in (0.2, 0.5, 0.9):
    z = p * a + (1 - p) * b
    wanted = torch.cat([a, b], dim=-1)
    best = torch.linalg.lstsq(z, wanted).solution
    share = 1 - ((z @ best - wanted) ** 2).mean() / (wanted**2).mean()
    check("eq-multi-head-half", share, 0.5, atol=5 / math.sqrt(many * m))

# two heads: each one place, each its own half of the output
both = a @ torch.eye(m, 2 * m, dtype=double) + b @ torch.eye(
    2 * m, dtype=double
)[m:]
check("two heads bring home both", both, wanted)

# %% [markdown]
# **Without the hypothesis.** The proof used that both contents are read by the *same* $M$. If each
# place wrote its content into coordinates of its own, $(a, 0)$ and $(0, b)$, one head with even
# weights would return $\tfrac12 (a, b)$, and a factor of two would repair it. An average of things
# that live apart loses nothing. Words don't come so sorted.

# %%
apart = 0.5 * F.pad(a, (0, m)) + 0.5 * F.pad(b, (m, 0))
check("contents that live apart survive an average", 2 * apart, wanted)

# %% [markdown]
# ### Step 7. What many narrow heads cannot do
#
# Now the other way round. Let $n$ tokens be $n$ different unit vectors, $X = I$, and let each token
# find *itself*, with a weight that is $e^\beta$ times that of any other token: $A_{ij} \propto
# e^{\beta \delta_{ij}}$. One head of width $n$ does this with $W^Q = W^K = \sqrt{\beta \sqrt{n}}\,
# I$. For a narrow head, take the centred logarithm {eq}`eq-multi-head-log-rank`:
#
# $$
# (\log A)\, C = \beta\, C, \qquad \operatorname{rank}(\beta\, C) = n - 1 .
# $$ (eq-multi-head-identity-pattern)
#
# So no head narrower than $n - 1$ has this pattern, and that holds for each of the heads.
# **Without exactness** the matter looks different. To give merely the *largest* weight to the right
# token, width two is enough for any number of tokens: put them on a circle. Width one is not. There
# the scores of a query are multiples of one number per key, so the largest score is always at the
# largest or the smallest key, and all other keys can never win:

# %%
n, beta = 8, 4.0
eye = torch.eye(n, dtype=double)
W = math.sqrt(beta * math.sqrt(n)) * eye
exact = (eye * beta).softmax(-1)
_, weights = scaled_dot_product_attention(
    eye @ W, eye @ W, eye, return_weights=True
)
check("one head of width n has the pattern", weights, exact)
centring = eye - 1 / n
check("eq-multi-head-identity-pattern", exact.log() @ centring, beta * centring)
check("eq-multi-head-identity-pattern", float(rank(centring)), float(n - 1))

angle = 2 * math.pi * torch.arange(n, dtype=double) / n
circle = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (n, 2)
line = randn(n, 1)  # any numbers
winners = {
    "two, on a circle": (circle @ circle.T).argmax(-1),
    "one": (line @ line.T).argmax(-1),
}
for width, winner in winners.items():
    found = len(set(winner.tolist()))
    print(f"width {width}: {found} of {n} keys win some query")
check(
    "width two finds every token",
    bool((winners["two, on a circle"] == torch.arange(n)).all()),
)
check("width one finds two at most", len(set(winners["one"].tolist())) <= 2)

# %% [markdown]
# The circle has a price. Neighbours on it differ little, so vectors that the tokens bring along
# must be turned into well-spread angles by one matrix, and the scores must be large. For the task
# “find the nearest of these random vectors” {cite:t}`amsel2024` prove that one full-rank head can
# come as close as one likes, and that the number of low-rank heads has to grow exponentially with
# the dimension.
#
# Both steps are claims about what can be represented. Does training find it? We train one layer of
# `MultiHeadAttention` on each of two tasks, with equal parameters and 1, 2, 4, 8 or 16 heads:
#
# - **two places**: from place $t$, bring home the contents of the two places before it, side by side;
# - **lookup**: the query is one of eight random vectors; bring home the value of the equal key.

# %%
width, places = 16, 8


def two_places(generator, batch):
    """Query, key: positions; value: 8 numbers a place; wanted: two of them."""
    content = torch.randn(batch, places, width // 2, generator=generator)
    position = 2 * torch.eye(width)[:places].expand(batch, -1, -1)
    value = F.pad(content, (0, width // 2))
    wanted = torch.cat([content.roll(1, 1), content.roll(2, 1)], dim=-1)
    return position, position, value, wanted


def lookup(generator, batch):
    """Query: the keys in another order; wanted: the values in that order."""
    key = torch.randn(batch, places, width, generator=generator)
    key = 4 * F.normalize(key, dim=-1)
    value = torch.randn(batch, places, width, generator=generator)
    order = torch.randperm(places, generator=generator)
    return key[:, order], key, value, value[:, order]


def error_share(attend, task, generator, batch=32):
    """The squared error as a share of what guessing zero would give."""
    query, key, value, wanted = (
        x.to(device) for x in task(generator, batch)
    )
    return F.mse_loss(attend(query, key, value), wanted) / wanted.square().mean()


def learn(task, num_heads, seed):
    torch.manual_seed(seed)
    attend = MultiHeadAttention(width, num_heads, bias=False).to(device)
    g = torch.Generator().manual_seed(seed)
    fit(
        attend,
        lambda step: error_share(attend, task, g),
        steps=200,
        learning_rate=2e-2,
    )
    with torch.no_grad():
        return error_share(
            attend, task, torch.Generator().manual_seed(99), 512
        ).item()


# %% tags=["nbval-ignore-output"]
head_counts, seeds = [1, 2, 4, 8, 16], [0, 1, 2]
tasks = {"two places": two_places, "lookup": lookup}
runs = [(t, k, s) for t in tasks for k in head_counts for s in seeds]
errors = {(t, k): [] for t in tasks for k in head_counts}
for name, num_heads, seed in Progress(runs, label=f"training {len(runs)} layers"):
    errors[name, num_heads].append(learn(tasks[name], num_heads, seed))

# %%
for name in tasks:
    for num_heads in head_counts:
        found = errors[name, num_heads]
        mean, spread = np.mean(found), np.std(found, ddof=1)
        glue(f"multi-head-{name.replace(' ', '-')}-{num_heads}", mean)
        print(f"{name:12}{num_heads:3} heads: {mean:.3f} ± {spread:.3f}")
worst = {key: max(found) for key, found in errors.items()}
best = {key: min(found) for key, found in errors.items()}
check(
    "one head reads half of two places",
    np.mean(errors["two places", 1]),
    0.5,
    atol=0.03,
)
check("two heads read both", worst["two places", 2] < 0.05)
check("heads of width one cannot aim", best["two places", 16] > 0.3)
check(
    "lookup gets worse with every halving of the width",
    all(
        worst["lookup", k] < best["lookup", 2 * k] for k in head_counts[:-1]
    ),
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.5, 3.1))
ticks = range(len(head_counts))
for (name, color, marker) in [
    ("two places", "query", "o-"),
    ("lookup", "key", "s--"),
]:
    ax.plot(
        ticks,
        [np.mean(errors[name, k]) for k in head_counts],
        marker,
        color=COLORS[color],
        label=name,
    )
ax.axhline(0.5, color=COLORS["reference"], linestyle=":", linewidth=1.2)
ax.set_xticks(ticks, [f"{k}\n×{width // k}" for k in head_counts])
ax.set(xlabel="heads × width of each", ylabel="error share", ylim=(-0.03, 0.9))
ax.legend(loc="upper center")
show_figure(
    fig,
    name="fig-multi-head-two-tasks",
    caption="Equal parameters, opposite answers (means of three seeds). Reading "
    "two places needs two heads, and fails again when heads are too narrow to "
    "find a place. Looking up a vector wants one wide head. Dotted: one half.",
    alt="Two curves over 1 to 16 heads. The error on two places is one half at "
    "one head, near zero from two to eight, and above one half at sixteen. The "
    "error on lookup starts near zero and rises steadily.",
)

# %% [markdown]
# {numref}`fig-multi-head-two-tasks` is the chapter in one picture. On *two places* one head leaves
# an error of {glue:text}`multi-head-two-places-1:.3f`, the half that {eq}`eq-multi-head-half`
# predicts; two heads leave {glue:text}`multi-head-two-places-2:.4f`. Sixteen heads of width one
# leave {glue:text}`multi-head-two-places-16:.2f`: they could carry everything home, but cannot aim.
# On *lookup* the error grows from {glue:text}`multi-head-lookup-1:.3f` with one head to
# {glue:text}`multi-head-lookup-16:.2f` with sixteen. All ten layers have the same number of
# parameters and of operations. Parity of cost is not parity of functions, in either direction.

# %% [markdown]
# ## From scratch
#
# Two heads of width two on three tokens, in plain Python. The text is “black cat sleeps”, with four
# features a token: colour, noun, verb, strength. In the first head a verb looks for a noun, in the
# second a verb looks for a colour. Both carry home the strength of what they find, and a mark that
# they found it. $W^O$ puts the noun's strength into feature 0, the colour's into feature 2, and
# lets both heads write their marks into feature 1.

# %%
tokens = ["black", "cat", "sleeps"]
#     colour noun verb strength
x = [[1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 2, 0]]
# a row for each feature; columns 0, 1 belong to head 0, columns 2, 3 to head 1
W_Q = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
W_K = [[0, 0, 2, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
W_V = [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]]
W_O = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]


def times(a, b):
    """The product of two matrices, as lists of rows."""
    return [
        [
            sum(u * v for u, v in zip(row, column, strict=True))
            for column in zip(*b, strict=True)
        ]
        for row in a
    ]


def one_head(x, W_Q, W_K, W_V, own):
    """The weights and outputs of the head that owns these columns."""
    q, k, v = (
        times(x, [row[own] for row in W]) for W in (W_Q, W_K, W_V)
    )
    weights = []
    for query in q:
        scores = [
            sum(a * b for a, b in zip(query, key, strict=True))
            / math.sqrt(len(key))
            for key in k
        ]
        exponentials = [math.exp(score) for score in scores]
        weights.append([e / sum(exponentials) for e in exponentials])
    return weights, times(weights, v)


terms, hand_weights = [], []
for i in range(2):
    own = slice(2 * i, 2 * i + 2)
    weights, found = one_head(x, W_Q, W_K, W_V, own)
    term = times(found, W_O[own])  # H_i W_i^O: rows of W_O, not columns
    terms.append(term)
    hand_weights.append(weights)
    print(f"head {i}: “sleeps” looks at", end=" ")
    print(
        ", ".join(
            f"{token} {w:.3f}"
            for token, w in zip(tokens, weights[2], strict=True)
        )
    )
    print("        its term of the sum:", [round(y, 3) for y in term[2]])
total = [
    [a + b for a, b in zip(*rows, strict=True)]
    for rows in zip(*terms, strict=True)
]
print("output of “sleeps”:         ", [round(y, 3) for y in total[2]])

# %% [markdown]
# Redo the row of “sleeps” in head 0. Its query is $(2, 0)$. The key of “cat” is $(2, 0)$, the other
# two keys are zero. The scores are $0$, $4/\sqrt2$ and $0$; note the root of *two*, the head's
# width. With $e^{4/\sqrt2} \approx 17$, “cat” gets $17$ of $19$ parts. Head 1 finds “black” in the
# same way. The two strengths arrive in features of their own, and the marks add up. “black” and
# “cat” have the query zero in both heads; they look everywhere evenly.
#
# The library gets the same matrices, transposed, as `nn.Linear` keeps them. So does PyTorch.

# %%
matrices = [torch.tensor(W, dtype=double) for W in (W_Q, W_K, W_V, W_O)]
by_hand = torch.tensor(total, dtype=double)
ours = MultiHeadAttention(4, 2, bias=False).double()
theirs = nn.MultiheadAttention(
    4, 2, bias=False, batch_first=True, dtype=double
)
with torch.no_grad():
    for projection, W in zip(ours.children(), matrices, strict=True):
        projection.weight.copy_(W.T)
    theirs.in_proj_weight.copy_(torch.cat([W.T for W in matrices[:3]]))
    theirs.out_proj.weight.copy_(matrices[3].T)
x = torch.tensor(x, dtype=double)[None]  # (1, n, d)
output, weights = ours(x, return_weights=True)
check("by hand = the library: output", by_hand, output[0])
hand_weights = torch.tensor(hand_weights, dtype=double)
check("by hand = the library: weights", hand_weights, weights[0])
check("by hand = torch", by_hand, theirs(x, x, x)[0][0])

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(4.8, 3.3))
for i, ax in enumerate(axes):
    heatmap(
        ax,
        hand_weights[i],
        xlabels=tokens,
        ylabels=tokens if i == 0 else [""] * 3,
        annotate=True,
        vmin=0,
        vmax=1,
    )
    ax.set(title=f"head {i}", xlabel="key")
axes[0].set_ylabel("query")
show_figure(
    fig,
    name="fig-multi-head-by-hand",
    caption="The weights of both heads. In the row of “sleeps” head 0 is bright "
    "at “cat” and head 1 at “black”: one query, two places at once. The other "
    "rows have no query and spread evenly.",
    alt="Two three by three heat maps with numbers. In the last row, sleeps, "
    "head 0 has its large weight at cat and head 1 at black. All other rows "
    "show one third everywhere.",
)

# %% [markdown]
# {numref}`fig-multi-head-by-hand` shows what no single row of weights can be: bright at two places
# *and* able to tell which is which.

# %% [markdown]
# ## The library function
#
# The module projects, splits, attends, merges and projects. With `return_weights` it takes the
# formula, and without it the fused kernels of the last chapter. The lines on `cache` and `scaled`
# are for models of later chapters and do nothing here. The helpers that split and merge are one
# line each, and they are what step 1 proved.
#
# ```{lib-source} lib.attention.MultiHeadAttention.forward
# ```
#
# ```{lib-source} lib.attention.split_heads
# ```
#
# ```{lib-source} lib.attention.merge_heads
# ```
#
# The reference is `nn.MultiheadAttention`. We copy all weights and biases and compare in double
# precision, for self- and cross-attention, with padding and with a causal mask. Mind the polarity:
# in our masks `True` means *may attend*; in PyTorch's module `True` means *must not*.

# %%
B, n_q, n_k, d, h = 2, 5, 7, 33, 3
torch.manual_seed(0)
ours = MultiHeadAttention(d, h).double().to(device)
theirs = nn.MultiheadAttention(
    d, h, batch_first=True, dtype=double, device=device
)
with torch.no_grad():
    for parameter in ours.parameters():  # biases too, or none would be missed
        parameter.copy_(torch.randn_like(parameter) / math.sqrt(d))
    *first, last = ours.children()
    theirs.in_proj_weight.copy_(torch.cat([p.weight for p in first]))
    theirs.in_proj_bias.copy_(torch.cat([p.bias for p in first]))
    theirs.out_proj.load_state_dict(last.state_dict())
queries = torch.randn(B, n_q, d, dtype=double, device=device)
memory = torch.randn(B, n_k, d, dtype=double, device=device)
real = padding_mask(torch.tensor([7, 4], device=device), n_k)  # (B, n_k)
past = causal_mask(n_k, device=device)  # (n_k, n_k)
both = past & real[:, None]  # (B, n_k, n_k)
cases = {  # the inputs, our mask, PyTorch's masks
    "self": ([memory] * 3, None, {}),
    "cross": ([queries, memory, memory], None, {}),
    "three inputs": ([queries, memory, memory.flip(1)], None, {}),
    "self, causal": ([memory] * 3, past, {"attn_mask": ~past}),
    "cross, padding": (
        [queries, memory, memory],
        real[:, None],
        {"key_padding_mask": ~real},
    ),
    "self, causal and padding": (
        [memory] * 3,
        both,
        {"attn_mask": ~past, "key_padding_mask": ~real},
    ),
}
for name, (inputs, mask, their_masks) in cases.items():
    want, want_weights = theirs(
        *inputs, **their_masks, average_attn_weights=False
    )
    check(f"{name}: output = torch", ours(*inputs, mask), want)
    _, weights = ours(*inputs, mask, return_weights=True)
    check(f"{name}: weights = torch, head by head", weights, want_weights)

# %% [markdown]
# One trap lies in PyTorch's defaults: `nn.MultiheadAttention` returns weights *averaged over the
# heads* unless told otherwise. The average looks like an attention pattern and is used by no head.
#
# ## On real data
#
# ### How many heads?
#
# The model is the one-layer language model of the last chapter, on the same text: characters in,
# one attention layer, next character out. The width stays at 64. Only the number of heads changes,
# from one of width 64 to sixteen of width four.

# %%
text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
train_ids = vocabulary.encode(text.train).to(device)
validation_ids = vocabulary.encode(text.validation).to(device)
length, d_model = 32, 64
validation_input, validation_target = consecutive_windows(
    validation_ids, length
)
print(
    f"{len(text.train):,} training characters, {len(text.validation):,} for "
    "validation,"
)
print(f"{len(vocabulary)} different ones; sha256 {text.sha256[:16]}")


def train(seed, num_heads):
    torch.manual_seed(seed)
    model = AttentionOnly(
        len(vocabulary), d_model=d_model, num_heads=num_heads, max_length=length
    ).to(device)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step):
        inputs, targets = random_windows(train_ids, 16, length, batches)
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    fit(model, batch_loss, steps=400, learning_rate=1.5e-2)
    return model


# %% tags=["nbval-ignore-output"]
runs = [(k, seed) for k in head_counts for seed in seeds]
results, models = {k: [] for k in head_counts}, {}
bar = Progress(runs, label=f"training {len(runs)} language models")
for num_heads, seed in bar:
    model = train(seed, num_heads)
    loss = evaluate(model, validation_input, validation_target)
    results[num_heads].append(loss)
    models[num_heads, seed] = model
    bar.note(f"{num_heads} heads: {loss:.2f} nats a character")

# %%
print("heads  width  parameters  validation loss, nats a character")
for num_heads, losses in results.items():
    count = sum(p.numel() for p in models[num_heads, 0].parameters())
    mean, spread = np.mean(losses), np.std(losses, ddof=1)
    glue(f"multi-head-loss-{num_heads}", mean)
    print(
        f"{num_heads:5}{d_model // num_heads:7}{count:12,}  "
        f"{mean:.3f} ± {spread:.3f}   {np.round(losses, 3)}"
    )
spreads = [np.std(losses, ddof=1) for losses in results.values()]
glue("multi-head-loss-spread", max(spreads))
gain = {
    (few, many): np.mean(results[few]) - np.mean(results[many])
    for few, many in [(1, 8), (8, 16)]
}
glue("multi-head-change-8-16", abs(gain[8, 16]))
check("two heads beat one, seed by seed", max(results[2]) < min(results[1]))
check("four beat two", max(results[4]) < min(results[2]))
check("most of the gain is had by eight", gain[8, 16] < gain[1, 8] / 3)
check("eight and sixteen overlap", max(results[16]) > min(results[8]))

# %% [markdown]
# In this model heads pay: from {glue:text}`multi-head-loss-1:.3f` nats with one to
# {glue:text}`multi-head-loss-8:.3f` with eight, at equal parameters. No standard deviation over
# the seeds exceeds {glue:text}`multi-head-loss-spread:.3f`, so one, two and four heads are well
# apart. From eight to sixteen the mean moves by {glue:text}`multi-head-change-8-16:.3f`, which three
# seeds cannot tell from nothing.
#
# But this model is a special one. It has one layer and nothing else, so whatever should be read
# from several places must be read at once. A deeper model can read one place in one layer and
# another in the next. Does it still need heads? That takes longer training than a page should run,
# so this result is recorded: `book/experiments/multi_head_depth.py` trains models of one and of two
# pre-norm blocks (`lib.layers.EncoderLayer`) with the same width, on the same text, and writes the
# file that the next cell reads.

# %%
record = recorded("multi_head_depth")
*setting, (_, text_sha256) = record["settings"].items()
print(dict(setting), f"\ntext: sha256 {text_sha256[:16]}")
deep = {}
for run in record["results"]["runs"]:
    arm = (run["layers"], run["learning_rate"])
    deep.setdefault(arm, {}).setdefault(run["heads"], []).append(run["loss"])
print("layers, rate" + "".join(f"{f'{k} heads':>14}" for k in head_counts))
for arm, by_heads in deep.items():
    cells = [
        f"{np.mean(by_heads[k]):.3f}±{np.std(by_heads[k], ddof=1):.3f}"
        for k in head_counts
    ]
    print(f"{arm[0]}, {arm[1]:<9g}" + "".join(f"{c:>14}" for c in cells))
one_block, two_blocks = deep[1, 5e-3], deep[2, 5e-3]
for name, arm in [("one", one_block), ("two", two_blocks)]:
    means = {k: np.mean(arm[k]) for k in head_counts}
    for k in (1, 2, 4, 16):
        glue(f"multi-head-{name}-block-{k}", means[k])
    spread = max(means.values()) - min(means.values())
    glue(f"multi-head-{name}-block-range", spread)
check("one block: four heads beat one", max(one_block[4]) < min(one_block[1]))
check(
    "a block gains less from heads than bare attention does",
    np.mean(one_block[1]) - np.mean(one_block[8]) < gain[1, 8] / 2,
)
for rate in (5e-3, 2.5e-3):
    arm = deep[2, rate]
    check(
        f"two blocks, rate {rate}: sixteen heads are worse than two",
        max(arm[2]) < min(arm[16]),
    )
check(
    "two blocks: one head is worse than two, seed by seed",
    max(two_blocks[2]) < min(two_blocks[1]),
)
slow = {k: np.mean(found) for k, found in deep[2, 2.5e-3].items()}
check("the slow ones overlap", max(deep[2, 2.5e-3][2]) > min(deep[2, 2.5e-3][1]))
glue("multi-head-slow-1", slow[1])
glue("multi-head-slow-2", slow[2])
glue("multi-head-slow-16", slow[16])

# %% tags=["hide-input"]
paper = {1: 24.9, 4: 25.5, 8: 25.8, 16: 25.8, 32: 25.4}  # Table 3, rows (A)
fig, axes = plt.subplots(3, 1, figsize=(4.5, 7.0))
panels = [
    (axes[0], results, "query", "one attention layer, nats"),
    (axes[1], one_block, "value", "one block, nats"),
    (axes[1], two_blocks, "key", "two blocks, nats"),
]
for ax, losses, color, label in panels:
    for k, found in losses.items():
        ax.plot([math.log2(k)] * len(found), found, "o", color=COLORS[color])
    ax.plot(
        [math.log2(k) for k in losses],
        [np.mean(found) for found in losses.values()],
        "-" if color != "key" else "--",
        color=COLORS[color],
        label=label,
    )
axes[2].plot(
    [math.log2(k) for k in paper],
    list(paper.values()),
    "o-",
    color=COLORS["output"],
    label="the paper, BLEU (higher is better)",
)
axes[0].set_ylabel("validation loss")
axes[1].set_ylabel("validation loss")
axes[2].set(ylabel="BLEU", xlabel="heads", ylim=(24.7, 26.2))
for ax in axes:
    ax.set_xticks(range(6), [1, 2, 4, 8, 16, 32])
    ax.set_xlim(-0.2, 5.2)
    ax.legend(loc="upper right")
low, high = axes[1].get_ylim()
axes[1].set_ylim(low, high + 0.35 * (high - low))
show_figure(
    fig,
    name="fig-multi-head-how-many",
    caption="How many heads, at equal parameters. Dots are seeds, lines their "
    "means. Top: measured on this page. Middle: recorded. Bottom: rows (A) of "
    "the paper's Table 3, one number each, where higher is better.",
    alt="Three charts over the number of heads. The loss of one attention layer "
    "falls and flattens. One block falls less; two blocks fall from one head "
    "to two and rise again to sixteen. The paper's BLEU rises, then falls.",
)

# %% [markdown]
# A block adds a feed-forward layer, a residual path and norms. One such block still gains from
# heads: {glue:text}`multi-head-one-block-1:.3f` nats with one head,
# {glue:text}`multi-head-one-block-4:.3f` with four. With *two* blocks the whole range between best
# and worst is only {glue:text}`multi-head-two-block-range:.3f` nats. One head
# ({glue:text}`multi-head-two-block-1:.3f`) is a little worse than two
# ({glue:text}`multi-head-two-block-2:.3f`), and sixteen heads of width four are worse again
# ({glue:text}`multi-head-two-block-16:.3f`). At half the learning rate the three read
# {glue:text}`multi-head-slow-1:.3f`, {glue:text}`multi-head-slow-2:.3f` and
# {glue:text}`multi-head-slow-16:.3f`: the seeds of the first two overlap there, and sixteen heads
# are clearly behind.
#
# :::{admonition} The paper says
# :class: paper
# “While single-head attention is 0.9 BLEU worse than the best setting, quality also drops off with
# too many heads.” {cite:t}`vaswani2017` (§6.2). Rows (A) of Table 3, on English to German: BLEU
# 24.9, 25.5, 25.8, 25.8 and 25.4 for 1, 4, 8, 16 and 32 heads.
# :::
#
# {numref}`fig-multi-head-how-many` puts the three beside each other. What may be concluded? In one
# layer, several patterns at once are worth much. Around a block, and more so around two, most of
# that worth goes away. And heads can be too narrow: steps 6 and 7 pull in opposite directions, and
# the best number lies where they balance. What may *not* be concluded is a number. Our models are
# tiny, the seeds are three, and the paper's table gives one number a row, without a spread. “Choose
# two to eight heads” is not a rule that we found in a paper: the base model of {cite:t}`vaswani2017`
# has 8, the big one 16; BERT has 12 or 16 {cite}`devlin2019` (§3), and the largest GPT-3 has 96
# {cite}`brown2020` (Table 2.1). These are wider models, and their heads are 64 to 128 features
# wide. In our runs, and in the paper's rows (A), more heads are always narrower heads. Such runs
# cannot tell which of the two does the harm; step 7 points to the width.
#
# ### Which heads matter?
#
# Take the three trained models with eight heads, one for each seed. Remove one head by
# zeroing its columns of the output matrix (`nn.Linear` keeps the transpose), and measure the loss
# again; put it back, take the next. Then the reverse: keep one head and remove the other seven.

# %%
@contextmanager
def without(model, removed):
    """The model with these heads' columns of W_O set to zero, for a while."""
    weight = model.output.weight
    kept, width = weight.detach().clone(), weight.shape[1] // model.num_heads
    with torch.no_grad():
        for i in removed:
            weight[:, i * width : (i + 1) * width] = 0.0
        try:
            yield model
        finally:
            weight.copy_(kept)


def loss_without(model, removed):
    with without(model, removed):
        return evaluate(model, validation_input, validation_target)


num_heads = 8
every = range(num_heads)
lost, alone, bare = [], [], []
for seed in seeds:
    model = models[num_heads, seed]
    whole = loss_without(model, [])
    lost.append([loss_without(model, [i]) - whole for i in every])
    alone.append(
        [
            loss_without(model, [j for j in every if j != i]) - whole
            for i in every
        ]
    )
    bare.append(loss_without(model, every) - whole)
    print(
        f"seed {seed}: without one head "
        f"{' '.join(f'{x:.3f}' for x in sorted(lost[-1]))}"
    )
    print(
        "        with one only   "
        f"{' '.join(f'{x:.3f}' for x in sorted(alone[-1]))}"
        f"\n        with none       {bare[-1]:.3f}"
    )
lost, alone, bare = np.array(lost), np.array(alone), np.array(bare)
glue("multi-head-lost-min", lost.min())
glue("multi-head-lost-max", lost.max())
glue("multi-head-lost-sum", lost.sum(1).mean())
glue("multi-head-bare", bare.mean())
glue("multi-head-alone-min", alone.min())
glue("multi-head-alone-max", alone.max())
check("every head is missed", lost.min() > 0.01)
check("no head can do it alone", alone.min() > 3 * lost.max())
check(
    "the losses do not add up", bool((lost.sum(1) < 0.85 * bare).all())
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.5, 3.2))
for seed, marker in zip(seeds, "os^", strict=True):
    ax.plot(
        range(1, num_heads + 1),
        np.sort(lost[seed]),
        marker,
        color=COLORS["query"],
        label="without this head" if seed == 0 else None,
    )
    ax.plot(
        range(1, num_heads + 1),
        np.sort(alone[seed]),
        marker,
        color=COLORS["key"],
        label="with this head only" if seed == 0 else None,
    )
ax.axhline(
    bare.mean(),
    color=COLORS["reference"],
    linestyle="--",
    label="with none (mean)",
)
ax.set(
    xlabel="heads of each model, in order of the loss",
    ylabel="additional loss, nats",
    ylim=(0, 1.55 * bare.max()),
)
ax.legend(loc="upper left")
show_figure(
    fig,
    name="fig-multi-head-ablation",
    caption="Heads removed from three trained models of one layer (a marker "
    "for each seed). Each head is missed, none is missed much, and none can "
    "stand in for the other seven.",
    alt="Two groups of points over eight heads in order. Losses without one "
    "head are low and rise gently; losses with one head only are several times "
    "higher, near the dashed line for no head at all.",
)

# %% [markdown]
# Removing one head costs between {glue:text}`multi-head-lost-min:.3f` and
# {glue:text}`multi-head-lost-max:.3f` nats, removing all of them {glue:text}`multi-head-bare:.2f`
# ({numref}`fig-multi-head-ablation`). Keeping only one costs {glue:text}`multi-head-alone-min:.2f`
# to {glue:text}`multi-head-alone-max:.2f`. There is no idle head here. And although the *outputs*
# of heads add up {eq}`eq-multi-head-ablation`, their losses do not: the eight single losses sum to
# {glue:text}`multi-head-lost-sum:.2f` on average. The softmax over the characters bends.
#
# That differs from what is known of large models, and should. {cite:t}`michel2019` (§3.2) removed
# single heads from a large translation model: in the encoder's self-attention only 8 of 96 heads
# made a significant difference, and half of those improved it; “at test time, most heads are
# redundant given the rest of the model”. {cite:t}`voita2019` (abstract) pruned 38 of 48 encoder
# heads for 0.15 BLEU, and found that the heads with a recognisable role went last.
# {cite:t}`cordonnier2020` (abstract) observe that heads learn redundant projections of queries and
# keys. “The rest of the model” is the point: our single layer has no rest.
#
# ### Do heads look at different things?
#
# This is said more often than measured. The last chapter averaged each head's weights by distance,
# and saw four heads that all look mostly one character back. Averages can hide what happens in a
# single row, so we measure both. For two heads and one query, half the sum of the absolute
# differences of their weights says how much of the weight lies elsewhere: zero for equal rows, one
# for rows that share no key. The first comparison takes it row by row, the second after averaging
# by distance.

# %%
def weights_of(model):
    """The weights of the last 21 queries of 320 held-out windows."""
    with torch.no_grad():
        parts = [
            model.attention_weights(ids)[:, :, 11:]
            for ids in validation_input[:320].split(64)
        ]
    return torch.cat(parts).cpu()  # (B, h, 21, n)


def distance_profile(weights):
    """Mean weight by distance 0 … 11: (h, 12)."""
    at = torch.arange(weights.shape[2])
    return torch.stack(
        [weights[:, :, at, at + 11 - back].mean((0, 2)) for back in range(12)], -1
    )


def elsewhere(a, b):
    return 0.5 * (a - b).abs().sum(-1).mean().item()


def mean_over_pairs(rows):
    """Mean of `elsewhere` over all pairs of heads; heads come first."""
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    return np.mean([elsewhere(rows[i], rows[j]) for i, j in pairs])


row_by_row, averaged = [], []
for seed in seeds:
    weights = weights_of(models[num_heads, seed])
    row_by_row.append(mean_over_pairs(weights.transpose(0, 1)))
    averaged.append(mean_over_pairs(distance_profile(weights)))
torch.manual_seed(0)
untrained = AttentionOnly(len(vocabulary), d_model, num_heads, length).to(device)
at_first = mean_over_pairs(weights_of(untrained).transpose(0, 1))
print("row by row:", np.round(row_by_row, 3), "  untrained:", round(at_first, 3))
print("averaged by distance:", np.round(averaged, 3))
glue("multi-head-row-by-row", np.mean(row_by_row))
glue("multi-head-averaged", np.mean(averaged))
glue("multi-head-at-first", at_first)
check("rows differ much more than averages", min(row_by_row) > 2 * max(averaged))
check("training drew the heads apart", min(row_by_row) > 2 * at_first)

# %% [markdown]
# Row by row, two heads of one model put {glue:text}`multi-head-row-by-row:.0%` of their weight on
# different keys, against {glue:text}`multi-head-at-first:.0%` before training. Averaged by distance
# the same heads differ by {glue:text}`multi-head-averaged:.0%` only. So the heads *do* look at
# different places, and mostly it is not a division of labour by distance: it depends on the row, on
# its characters or its place in the window. Whether a head deserves a name, such as “the verb
# finder”, is a question that these numbers do not answer.
#
# See for yourself, on a sentence that the model has never seen. Choose a character and switch
# through the heads: the strongest weight often moves. Then look at head after head for one pattern
# that you could name, and test your name on the next character.

# %%
sentence = text.validation.split("\n")
sentence = next(p for p in sentence if len(p) >= length and p[0].isupper())[
    :length
]
ids = vocabulary.encode(sentence)[None].to(device)  # (1, n)
with torch.no_grad():
    shown = models[num_heads, 0].attention_weights(ids)[0].double().cpu()
strongest = shown[:, 8:].argmax(-1)  # (h, n - 8)
different = np.mean([len(set(column.tolist())) for column in strongest.T])
glue("multi-head-different-tops", different)
check("heads often differ in their strongest key", different > 2)
AttentionRows(list(sentence), {"causal": shown}, name="multi-head-rows")

# %% [markdown]
# In this sentence, from its ninth character on, the eight heads have
# {glue:text}`multi-head-different-tops:.1f` different favourite keys on average.

# %% [markdown]
# ## Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “Q, K and V are each a multi-head sub-layer.” | Each head has three matrices, and that is all. A second map before them adds parameters and no function, D07. | {cite:t}`vaswani2017` (§3.2.2) |
# | “The heads are projected through a ReLU, and their weights are summed.” | The projections are linear. The *outputs* of the heads are concatenated, and then comes $W^O$: D12 and D13. | {cite:t}`vaswani2017` (§3.2.2) |
# | “Choose two to eight heads.” | The base model has 8, the big one 16; BERT has 12 or 16, the largest GPT-3 has 96. With $d$ fixed, more heads are narrower heads, and the number of parameters stays. | {cite:t}`vaswani2017` (Table 3); {cite:t}`devlin2019` (§3); {cite:t}`brown2020` (Table 2.1) |

# %% [markdown]
# ## Broken on purpose
#
# Six mistakes from code and tutorials in circulation. Each box makes the mistake and shows its
# symptom as a number; then a test runs on both versions.
#
# :::{admonition} Broken on purpose D07: projecting twice
# :class: broken
# “First a linear layer for Q, then the head's own linear layer for Q.” Two matrices in a row with
# nothing between them are one matrix. The second one costs parameters, memory and time, and adds no
# function.
# :::


# %%
def two_layers(d):
    return nn.Sequential(nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False))


def one_layer(d):
    return nn.Sequential(nn.Linear(d, d, bias=False))


def no_parameter_is_idle(make):
    torch.manual_seed(0)
    d = 64
    projection = make(d)
    merged = projection(torch.eye(d))  # the one matrix that does the same
    x = torch.randn(100, d)
    same = (projection(x) - x @ merged).abs().max().item()
    count = sum(p.numel() for p in projection.parameters())
    assert count <= merged.numel(), (
        f"{count} parameters compute what one matrix of {merged.numel()} "
        f"computes, up to {same:.0e}"
    )


catches("D07", no_parameter_is_idle, broken=two_layers, fixed=one_layer)

# %% [markdown]
# **Fix:** one projection for each of query, key and value. Whoever loads a checkpoint with two can
# multiply them out once.
#
# :::{admonition} Broken on purpose D09b: the model's width under the root
# :class: broken
# The formula divides by $\sqrt{d_k}$, and code that has `d_model` at hand divides by that. By
# {eq}`eq-multi-head-scale` the scores are then $\sqrt h$ times too small, and the heads start out
# closer to a plain average.
# :::


# %%
def scores_divided_by(width_of):
    def scores(q, k, num_heads):
        q, k = split_heads(q, num_heads), split_heads(k, num_heads)
        return q @ k.mT / math.sqrt(width_of(q.shape[-1], num_heads))

    return scores


def scores_have_unit_spread(scores):
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 256, 512, generator=g) for _ in range(2))
    spread = scores(q, k, 8).std().item()
    assert 0.9 < spread < 1.1, (
        f"the scores of 8 heads have a standard deviation of {spread:.3f}, "
        "want about 1"
    )


catches(
    "D09b",
    scores_have_unit_spread,
    broken=scores_divided_by(lambda d_head, h: d_head * h),
    fixed=scores_divided_by(lambda d_head, h: d_head),
)

# %% [markdown]
# **Fix:** take the width from the tensor that is multiplied, `query.shape[-1]` after the split.
#
# :::{admonition} Broken on purpose D11: a view for a transpose
# :class: broken
# The heads lie in memory as (head, token, feature). Asking for the shape (token, all features) with
# `reshape` alone gives exactly that shape, and no error: but the numbers of one token now come from
# several tokens of one head. Step 1 has the addresses.
# :::


# %%
def reshaped(heads):
    B, h, n, d_h = heads.shape
    return heads.reshape(B, n, h * d_h)


def every_number_is_in_its_place(merge):
    torch.manual_seed(0)
    x = torch.randn(2, 16, 64)
    wrong = (merge(split_heads(x, 8)) != x).double().mean().item()
    assert wrong == 0, f"{wrong:.0%} of the numbers are in the wrong place"


catches("D11", every_number_is_in_its_place, broken=reshaped, fixed=merge_heads)

# %% [markdown]
# **Fix:** swap head and token back first: `x.transpose(1, 2).flatten(-2)`. A test on shapes passes
# both; compare values.
#
# :::{admonition} Broken on purpose D11b: and so the future leaks
# :class: broken
# The same line undoes a causal mask. Inside each head the mask is kept; then the merge puts later
# tokens of the first head into the rows of earlier tokens.
# :::


# %%
def the_future_stays_hidden(merge):
    torch.manual_seed(0)
    x = torch.randn(2, 16, 64)
    moved = x.clone()
    moved[0, -1] += 1

    def run(x):
        heads = split_heads(x, 8)
        return merge(
            scaled_dot_product_attention(heads, heads, heads, causal_mask(16))
        )

    change = (run(moved) - run(x)).abs().amax(-1)  # (B, n)
    leak, other = change[0, :-1].max().item(), change[1].max().item()
    assert leak == 0, (
        f"moving the last token moves an earlier output by {leak:.2f}"
    )
    assert other == 0, f"it moves the other sample by {other:.2f}"
    assert change[0, -1] > 0.01, (
        "the last output does not move: nothing is connected"
    )


catches("D11b", the_future_stays_hidden, broken=reshaped, fixed=merge_heads)

# %% [markdown]
# **Fix:** the same swap. And test causality on the layer as a whole: inside each head the mask was
# kept, so a test of heads sees nothing.
#
# :::{admonition} Broken on purpose D12: no output projection
# :class: broken
# “The outputs of the heads are concatenated”, and there the code ends. Without $W^O$ head $i$ can
# write into its own $d_h$ features and nowhere else, and no two heads can ever add to the same one.
# :::


# %%
class WithoutOutput(MultiHeadAttention):
    def reset_parameters(self):
        super().reset_parameters()
        self.output_projection = nn.Identity()


def a_head_reaches_every_feature(kind):
    torch.manual_seed(0)
    attend, x = kind(12, 3, bias=False), torch.randn(1, 5, 12)
    with torch.no_grad():
        before = attend(x)
        attend.value_projection.weight[:4] += 1  # head 0's values alone
        moved = ((attend(x) - before).abs().amax((0, 1)) > 1e-6).sum().item()
    assert moved == 12, f"head 0 reaches {moved} of 12 features"


catches(
    "D12",
    a_head_reaches_every_feature,
    broken=WithoutOutput,
    fixed=MultiHeadAttention,
)

# %% [markdown]
# **Fix:** the $d \times d$ matrix $W^O$. It is what makes the concatenation a sum
# {eq}`eq-multi-head-sum`.
#
# :::{admonition} Broken on purpose D13: a ReLU on queries and keys, and weights summed
# :class: broken
# Two inventions of one popular article. With $\operatorname{ReLU}$ on queries and keys no score can
# be negative, so no query can push a key away. And adding up the *weights* of the heads gives rows
# that sum to $h$, and one pattern for all: the point of several heads is lost.
# :::


# %%
def rectified_and_summed(q, k):
    scores = q.relu() @ k.relu().mT / math.sqrt(q.shape[-1])
    return scores, scores.softmax(-1).sum(-3, keepdim=True)  # over heads


def plain_heads(q, k):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores, scores.softmax(-1)


def scores_have_both_signs(heads):
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 8, 16, 8, generator=g) for _ in range(2))
    lowest = heads(q, k)[0].min().item()
    assert lowest < 0, f"the smallest of all scores is {lowest:.2f}, want below 0"


def weights_sum_to_one(heads):
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 8, 16, 8, generator=g) for _ in range(2))
    sums = heads(q, k)[1].sum(-1)
    high = sums.max().item()
    assert abs(high - 1) < 1e-5, f"a row of weights sums to {high:.2f}, want 1"


for label, test in [
    ("D13, ReLU", scores_have_both_signs),
    ("D13, summed", weights_sum_to_one),
]:
    catches(label, test, broken=rectified_and_summed, fixed=plain_heads)

# %% [markdown]
# **Fix:** linear projections, as in the paper (§3.2.2 of {cite:t}`vaswani2017`), and the *outputs*
# of the heads side by side.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} Split
# :label: ex-multi_head-split
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `split(x, num_heads)`: from (B, n, d_model) to (B, h, n, d_head), without copying a number.
#
# ```{dropdown} Hint
# Cut the last dimension in two first, then swap two dimensions. {eq}`eq-multi-head-address` says
# what the strides must be.
# ```


# %% tags=["exercise-stub"]
def split(x, num_heads):
    raise NotImplementedError


grade("ex-multi_head-split", split)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-multi_head-split
# :class: dropdown
# ```


# %% tags=["solution"]
def split(x, num_heads):
    B, n, d = x.shape
    return x.view(B, n, num_heads, d // num_heads).transpose(1, 2)


grade("ex-multi_head-split", split)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Merge
# :label: ex-multi_head-merge
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `merge(heads)`: from (B, h, n, d_head) back to (B, n, d_model).
#
# ```{dropdown} Hint
# Do the steps of the split in reverse order. Here a copy is unavoidable: why does `view` refuse?
# ```


# %% tags=["exercise-stub"]
def merge(heads):
    raise NotImplementedError


grade("ex-multi_head-merge", merge)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-multi_head-merge
# :class: dropdown
# ```


# %% tags=["solution"]
def merge(heads):
    B, h, n, d_h = heads.shape
    return heads.transpose(1, 2).reshape(B, n, h * d_h)


grade("ex-multi_head-merge", merge)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} One head's term
# :label: ex-multi_head-term
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `term(heads, W_O, i)`: from the heads' outputs (h, n, d_head) and the paper's matrix $W^O$,
# (d, d), what head `i` adds to the output, (n, d).
#
# ```{dropdown} Hint
# {eq}`eq-multi-head-sum`. Which rows of $W^O$ does column $c$ of the concatenation meet?
# ```


# %% tags=["exercise-stub"]
def term(heads, W_O, i):
    raise NotImplementedError


grade("ex-multi_head-term", term)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-multi_head-term
# :class: dropdown
# ```


# %% tags=["solution"]
def term(heads, W_O, i):
    d_h = heads.shape[-1]
    return heads[i] @ W_O[i * d_h : (i + 1) * d_h]


grade("ex-multi_head-term", term)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Turn a head without anyone noticing
# :label: ex-multi_head-gauge
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `gauge(W_Q, W_K, G)` for one head, with $W^Q$ and $W^K$ of shape (d, d_head) and an
# invertible $G$: return $W^Q G$, and the keys' matrix that goes with it so that no score changes.
#
# ```{dropdown} Hint
# {eq}`eq-multi-head-gauge-qk`. The inverse and the transpose may be taken in either order.
# ```


# %% tags=["exercise-stub"]
def gauge(W_Q, W_K, G):
    raise NotImplementedError


grade("ex-multi_head-gauge", gauge)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-multi_head-gauge
# :class: dropdown
# ```


# %% tags=["solution"]
def gauge(W_Q, W_K, G):
    return W_Q @ G, W_K @ torch.linalg.inv(G).T


grade("ex-multi_head-gauge", gauge)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} How wide was that head?
# :label: ex-multi_head-width
# ```
# *Difficulty ●●○ · 15 minutes*
#
# You are given the weights of one head, a matrix $P$ of shape (n, n) with positive entries, and
# nothing else. Write `width(P)`: the rank that its scores have at least, so the least width of a
# head that could have made it.
#
# ```{dropdown} Hint
# {eq}`eq-multi-head-log-rank`: the softmax hides one number for each row. Choose a tolerance for
# the rank, such as $10^{-9}$, for the logarithm is rounded.
# ```


# %% tags=["exercise-stub"]
def width(P):
    raise NotImplementedError


grade("ex-multi_head-width", width)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-multi_head-width
# :class: dropdown
# ```


# %% tags=["solution"]
def width(P):
    scores = P.log()
    centred = scores - scores.mean(-1, keepdim=True)
    return torch.linalg.matrix_rank(centred, atol=1e-9).item()


grade("ex-multi_head-width", width)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Prune a head, exactly
# :label: ex-multi_head-prune
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Zeroing a head saves nothing. Write `prune(W_Q, W_K, W_V, W_O, num_heads, removed)` for the paper's
# matrices, (d, d) each: return four *smaller* matrices with which the remaining heads compute exactly
# what they computed before. Don't change the old ones.
#
# ```{dropdown} Hint
# Which columns of the first three belong to the head, and which rows of the last? Slicing leaves
# $d_h$ as it is, and so the scale.
# ```


# %% tags=["exercise-stub"]
def prune(W_Q, W_K, W_V, W_O, num_heads, removed):
    raise NotImplementedError


grade("ex-multi_head-prune", prune)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-multi_head-prune
# :class: dropdown
# ```


# %% tags=["solution"]
def prune(W_Q, W_K, W_V, W_O, num_heads, removed):
    d_h = W_Q.shape[1] // num_heads
    kept = torch.arange(W_Q.shape[1]) // d_h != removed
    return W_Q[:, kept], W_K[:, kept], W_V[:, kept], W_O[kept]


grade("ex-multi_head-prune", prune)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - Multi-head attention is a *sum*: each head adds $A_i X W_i^V W_i^O$ {eq}`eq-multi-head-low-rank`.
#   To remove a head is to remove a term, exactly {eq}`eq-multi-head-ablation`; for the loss that
#   is no longer so.
# - Splitting is a cut and a swap, and moves nothing in memory {eq}`eq-multi-head-address`. A
#   `reshape` in its place has the right shape and wrong numbers, and leaks the future.
# - A head's scores and its value map have a rank of at most $d_h$; its weights may have any. What is
#   bounded is the rank of their centred logarithm {eq}`eq-multi-head-log-rank`.
# - Parameters and operations do not depend on the number of heads {eq}`eq-multi-head-parameters`.
#   Degrees of freedom do {eq}`eq-multi-head-freedom`, and so do the functions: one head cannot
#   bring home two places {eq}`eq-multi-head-half`, narrow heads cannot look up a wide key.
# - The scale is $\sqrt{d_h}$, the head's width {eq}`eq-multi-head-scale`.
# - On real text heads help one layer of attention much and a model of two blocks little, where heads
#   of width four do harm. In our one-layer model no head is idle; in the large
#   model of {cite:t}`michel2019` most were redundant.
# - Heads do look at different places, row by row, and averages hide it.
#
# ## Sources
#
# - {cite:t}`vaswani2017`, §3.2.2: the formula, and why one head is not enough; §3.2.3:
#   cross-attention; §6.2 and Table 3, rows (A) and (B): the numbers of heads and the size of keys.
# - {cite:t}`elhage2021`, section “Attention Heads are Independent and Additive”: the sum over heads,
#   QK and OV circuits.
# - {cite:t}`bhojanapalli2020`, abstract: the low-rank bottleneck. {cite:t}`amsel2024`, abstract and
#   §4: nearest neighbours need rank.
# - {cite:t}`michel2019`, §3.2: heads removed one at a time. {cite:t}`voita2019`, abstract: which
#   heads are pruned last. {cite:t}`cordonnier2020`, abstract: redundant projections. Of these and
#   the next two we read no more than is cited.
# - {cite:t}`devlin2019`, §3, and {cite:t}`brown2020`, Table 2.1: numbers of heads.
