# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A model reads “the cat drank because it”. To continue, the word “it” has to find “cat”, three
#       words back. No rule says where to look, and no loop walks back. How can one differentiable
#       formula look up the right word, and why is there a square root in it?
#     goals:
#       - compute scaled dot-product attention by hand, and say what each of its shapes means
#       - derive the factor 1/√d from named hypotheses, and say what happens when each of them fails
#       - derive the whole backward pass on paper, and prove it against autograd
#       - compute attention one key at a time, without ever holding all the weights
#       - recognise nine mistakes that popular code makes, and write the test that catches each
#     prerequisites:
#       - matrix products, partial derivatives, mean and variance
#       - tensors in PyTorch, and what autograd does
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
# # Scaled dot-product attention

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
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.attention import (
    causal_mask,
    fast_attention,
    online_softmax_attention,
    padding_mask,
    scaled_dot_product_attention,
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
    TemperatureSoftmax,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.diagrams import Matrix, matrix_products
from lib.teaching.figures import COLORS, heatmap
from lib.teaching.measure import flops, median_seconds, peak_bytes
from lib.training import evaluate, fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# Think of a dictionary in Python. You hold a *query*, the dictionary holds *keys*, and each key
# has a *value*. The lookup compares the query with every key, finds the one that is equal, and
# returns its value.
#
# Attention is that lookup made soft. The query and the keys are vectors. The comparison is a dot
# product, so it gives a degree instead of yes or no. And the answer is not one value but an
# average of all values, weighted by how well their keys match. Each step is smooth, so the whole
# lookup has a gradient, and gradient descent can learn what to look for.
#
# Stack the queries as the rows of a matrix $Q$, the keys as the rows of $K$, the values as the rows
# of $V$. Then all lookups at once are
#
# $$
# \operatorname{Attention}(Q, K, V) = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{d_k}}\right) V .
# $$ (def-attention-formula)
#
# Read it from the inside out.
#
# | symbol | shape | meaning |
# |---|---|---|
# | $Q$ | $n_q \times d_k$ | one query a row: what this position looks for |
# | $K$ | $n_k \times d_k$ | one key a row: what that position offers to be found by |
# | $V$ | $n_k \times d_v$ | one value a row: what that position hands over when found |
# | $S = QK^\top / \sqrt{d_k}$ | $n_q \times n_k$ | the *scores*: row $i$ rates all keys for query $i$ |
# | $P = \operatorname{softmax}(S)$ | $n_q \times n_k$ | the *weights*: each row is positive and sums to one |
# | $O = PV$ | $n_q \times d_v$ | the *output*: row $i$ is a weighted average of the rows of $V$ |
#
# The softmax runs along each row, over the keys. Two freedoms are easy to miss: there may be more
# keys than queries, and values may be longer or shorter than keys. One tie cannot be loosened: a
# query and a key must have the same length, because their dot product is taken.
# {numref}`fig-attention-shapes` draws the shapes to scale, in the colours that this book keeps
# for these matrices.

# %% tags=["hide-input"]
q_box = Matrix("$Q$", "$n_q$", "$d_k$", 1.5, 0.9, COLORS["query"])
k_box = Matrix("$K^\\top$", "$d_k$", "$n_k$", 0.9, 2.1, COLORS["key"])
s_box = Matrix("$S$", "$n_q$", "$n_k$", 1.5, 2.1, COLORS["scores"])
p_box = Matrix("$P$", "$n_q$", "$n_k$", 1.5, 2.1, COLORS["weights"])
v_box = Matrix("$V$", "$n_k$", "$d_v$", 2.1, 1.2, COLORS["value"])
o_box = Matrix("$O$", "$n_q$", "$d_v$", 1.5, 1.2, COLORS["output"])
fig, ax = plt.subplots(figsize=(4.4, 3.9))
products = [
    [q_box, (r"$\times$", 0.6), k_box, (r"$\div\sqrt{d_k}\;=$", 1.5), s_box],
    [("softmax of\neach row of", 2.1), s_box, ("$=$", 0.6), p_box],
    [p_box, (r"$\times$", 0.6), v_box, ("$=$", 0.6), o_box],
]
matrix_products(ax, products)
show_figure(
    fig,
    name="fig-attention-shapes",
    caption="Attention in three steps, drawn to scale. The keys' number $n_k$ "
    "is summed away in the last product; the output has one row a query and "
    "the width of the values.",
    alt="Three rows of boxes. Q times K transposed gives the scores S, n_q by "
    "n_k. The softmax of each row of S gives the weights P. P times V gives "
    "the output O, n_q by d_v.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# “An attention function can be described as mapping a query and a set of key-value pairs to an
# output, where the query, keys, values, and output are all vectors.” {cite:t}`vaswani2017` (§3.2)
# calls {eq}`def-attention-formula` *scaled dot-product attention*; it is the paper's equation
# (1).
# :::
#
# :::{admonition} Our remark
# :class: remark
# The dot product was not new. {cite:t}`luong2015` (§3.1) had scored with it, and
# {cite:t}`bahdanau2015` (§3.1) had introduced attention with a small network as the score. New in
# 2017 were the factor $1/\sqrt{d_k}$ and a model made of little else.
# :::

# %% [markdown]
# ## Derivation
#
# Eight steps. Each numbered equation is followed by a cell that runs it; the line with the ✓ says
# how far the two sides were apart in this very run, and how far we allow. Statistical checks
# allow five standard errors.
#
# ### Step 1. Where the square root comes from
#
# A score is a sum of $d$ products, $q \cdot k = \sum_{i=1}^{d} q_i k_i$. (Inside this step, $d$
# means $d_k$.) A longer sum is a larger number. How much larger? To answer, we need to say what
# is random. These are the usual hypotheses; how well a real network meets them is measured later:
#
# - **H1**: every component of $q$ and $k$ has mean zero;
# - **H2**: every component has variance one;
# - **H3**: all $2d$ components are independent.
#
# First the mean. The mean of a sum is the sum of the means; by H3 the mean of a product is the
# product of the means; by H1 these are zero:
#
# $$
# \mathbb{E}[q \cdot k] = \sum_{i=1}^{d} \mathbb{E}[q_i k_i]
# = \sum_{i=1}^{d} \mathbb{E}[q_i]\,\mathbb{E}[k_i] = 0 .
# $$ (eq-attention-mean)
#
# So a score is as often positive as negative. Now its spread. By H3 the $d$ products are
# independent of each other, so their variances add. Each product has mean zero, so its variance
# is the mean of its square; by H3 again that factorises; by H1 and H2 both factors are one:
#
# $$
# \operatorname{Var}(q \cdot k) = \sum_{i=1}^{d} \operatorname{Var}(q_i k_i)
# = \sum_{i=1}^{d} \mathbb{E}[q_i^2]\,\mathbb{E}[k_i^2] = d .
# $$ (eq-attention-variance)
#
# A typical score therefore has size $\sqrt{d}$. Dividing by a constant $c$ divides the variance
# by $c^2$, so there is exactly one positive constant that brings the variance back to one,
# whatever $d$:
#
# $$
# \operatorname{Var}\!\left(\frac{q \cdot k}{\sqrt{d}}\right) = \frac{d}{(\sqrt{d})^2} = 1 .
# $$ (eq-attention-scaled-variance)
#
# That is the whole reason for the square root: the scores keep the same spread when the vectors get
# longer. We draw many pairs and look.

# %%
dot_generator = torch.Generator().manual_seed(1)


def sample_scores(d, pairs, make=None):
    """Dot products of random pairs; `make` turns two matrices into (q, k)."""
    a = torch.randn(pairs, d, generator=dot_generator, dtype=double)
    b = torch.randn(pairs, d, generator=dot_generator, dtype=double)
    query, key = make(a, b) if make else (a, b)
    return (query * key).sum(-1)


for d, pairs in [(4, 200_000), (64, 100_000), (1024, 10_000)]:
    scores = sample_scores(d, pairs)
    standard_error = math.sqrt(d / pairs)
    check("eq-attention-mean", scores.mean(), 0.0, atol=5 * standard_error)
    relative_error = math.sqrt((2 + 6 / d) / pairs)
    check(
        "eq-attention-variance", scores.var() / d, 1.0, atol=5 * relative_error
    )
    scaled = scores / math.sqrt(d)
    check(
        "eq-attention-scaled-variance",
        scaled.var(),
        1.0,
        atol=5 * relative_error,
    )

# %% [markdown]
# The standard error used there needs the fourth moment, which is worth having for its own sake:
# it says how close a score is to a normal variable. Write $x_i = q_i k_i$, for normal components.
# Then $\mathbb{E}[x_i^2] = 1$ and
# $\mathbb{E}[x_i^4] = \mathbb{E}[q_i^4]\,\mathbb{E}[k_i^4] = 3 \cdot 3 = 9$. Expand the fourth
# power of the sum. A term with a lone $x_i$ in it has mean zero. What is left is $d$ terms
# $x_i^4$ and $3d(d-1)$ terms $x_i^2 x_j^2$, so the fourth moment is $9d + 3d(d-1) = 3d^2 + 6d$,
# and
#
# $$
# \frac{\mathbb{E}[(q \cdot k)^4]}{d^2} - 3 = \frac{6}{d} .
# $$ (eq-attention-kurtosis)
#
# The left side is the *excess kurtosis*; it is zero for a normal variable. Short vectors have
# scores with heavier tails, and long vectors have nearly normal ones.

# %%
blocks = torch.stack(
    [sample_scores(4, 20_000) for _ in range(100)]
)  # (block, pair)
excess = (blocks**4).mean(-1) / 4**2 - 3  # (block,): one estimate a block
standard_error = excess.std().item() / math.sqrt(len(excess))
check("eq-attention-kurtosis", excess.mean(), 6 / 4, atol=5 * standard_error)

# %% [markdown]
# **Without the hypotheses.** Take H3 first, and let each $k_i$ be correlated with its own $q_i$:
# $k_i = \rho q_i + \sqrt{1-\rho^2}\, z_i$ with independent standard normal $z_i$. Training does
# this on purpose, since it pulls a query towards the key that it should find. Then $q_i k_i =
# \rho q_i^2 + \sqrt{1-\rho^2}\, q_i z_i$ has mean $\rho$, and its square has mean $3\rho^2 +
# (1-\rho^2) = 1 + 2\rho^2$, the cross term being zero. Subtract $\rho^2$ for the variance, and
# add up $d$ independent terms:
#
# $$
# \mathbb{E}[q \cdot k] = d\rho, \qquad \operatorname{Var}(q \cdot k) = d\,(1 + \rho^2) .
# $$ (eq-attention-correlated)
#
# The mean grows like $d$, not like $\sqrt{d}$. Dividing by $\sqrt{d}$ leaves a mean of
# $\rho\sqrt{d}$: the factor tames the noise and lets the signal through. The other hypotheses
# fail in ways of their own. The table has the prediction beside the measurement for each.

# %%
rho, shift, sigma, d, pairs = 0.3, 0.5, 2.0, 64, 100_000
cases = {
    "all three hold": (None, 0, d),
    "H1 fails: mean μ": (
        lambda a, b: (a + shift, b + shift),
        d * shift**2,
        d * (1 + 2 * shift**2),
    ),
    "H2 fails: standard deviation σ": (
        lambda a, b: (sigma * a, sigma * b),
        0,
        d * sigma**4,
    ),
    "H3 fails: q, k correlated by ρ": (
        lambda a, b: (a, rho * a + math.sqrt(1 - rho**2) * b),
        d * rho,
        d * (1 + rho**2),
    ),
    "H3 fails: all components equal": (
        lambda a, b: (a[:, :1].expand_as(a), b[:, :1].expand_as(b)),
        0,
        d**2,
    ),
}
print(f"{'':33}{'mean: theory, found':>22}{'variance: theory, found':>26}")
for name, (make, mean, variance) in cases.items():
    scores = sample_scores(d, pairs, make)
    mean_error = scores.std().item() / math.sqrt(pairs)
    squares = (scores - scores.mean()) ** 2
    variance_error = squares.std().item() / math.sqrt(pairs)
    print(
        f"{name:33}{mean:12.1f}{scores.mean():10.2f}"
        f"{variance:16.1f}{scores.var():10.1f}"
    )
    assert abs(scores.mean() - mean) < 5 * mean_error
    assert abs(scores.var() - variance) < 5 * variance_error
    if "ρ" in name:
        check(
            "eq-attention-correlated", scores.mean(), mean, atol=5 * mean_error
        )
        check(
            "eq-attention-correlated",
            scores.var(),
            variance,
            atol=5 * variance_error,
        )

# %% [markdown]
# The last row is the worst case: equal components make the score's size grow like $d$, and then
# $1/\sqrt{d}$ is not enough. So $1/\sqrt{d}$ is a statement about noise, such as a network's
# first scores if its initialisation meets the hypotheses. Later we ask the trained model how far
# it has moved from them.
#
# :::{admonition} The paper says
# :class: paper
# “We suspect that for large values of $d_k$, the dot products grow large in magnitude, pushing
# the softmax function into regions where it has extremely small gradients.” {cite:t}`vaswani2017`
# (§3.2.1; its footnote 4 is {eq}`eq-attention-variance`). Note the word *suspect*. What exactly
# becomes small is measured below, in *Does a missing square root kill the gradient?*
# :::

# %% [markdown]
# ### Step 2. The softmax and its derivative
#
# The scores of one query are a vector $s$ of $n$ numbers. The softmax turns it into weights:
#
# $$
# p_i = \operatorname{softmax}(s)_i = \frac{e^{s_i}}{\sum_{j=1}^{n} e^{s_j}} .
# $$ (def-attention-softmax)
#
# Add the same number $c$ to every score. Numerator and denominator both gain the factor $e^c$,
# which cancels:
#
# $$
# \operatorname{softmax}(s + c\mathbf{1})_i = \frac{e^{c}\, e^{s_i}}{e^{c} \sum_j e^{s_j}}
# = \operatorname{softmax}(s)_i .
# $$ (eq-attention-shift)
#
# Only differences of scores matter. This also gives the way to compute a softmax safely: choose
# $c = -\max_j s_j$, and no exponential can overflow, because none is larger than $e^0$.

# %%
s = torch.randn(7, generator=torch.Generator().manual_seed(2), dtype=double) * 3


def plain_softmax(s):
    return torch.exp(s) / torch.exp(s).sum()


def safe_softmax(s):
    return plain_softmax(s - s.max())


check("eq-attention-shift", plain_softmax(s + 11.0), plain_softmax(s))
large = (100 * s).float()  # fp32 overflows beyond e^88
print("plain:", plain_softmax(large).tolist())
print("safe: ", [round(p, 6) for p in safe_softmax(large).tolist()])
assert (
    plain_softmax(large).isnan().any()
    and torch.isfinite(safe_softmax(large)).all()
)

# %% [markdown]
# For the derivative, take the logarithm first: $\log p_i = s_i - \log \sum_l e^{s_l}$.
# Differentiate by $s_j$. The first term gives $\delta_{ij}$, which is one if $i = j$ and zero
# otherwise. The second gives $e^{s_j} / \sum_l e^{s_l} = p_j$. So $\partial \log p_i / \partial
# s_j = \delta_{ij} - p_j$. And since $\partial p_i = p_i\, \partial \log p_i$,
#
# $$
# J_{ij} = \frac{\partial p_i}{\partial s_j} = p_i(\delta_{ij} - p_j),
# \qquad J = \operatorname{diag}(p) - p\,p^\top .
# $$ (eq-attention-jacobian)
#
# Raise score $j$: weight $j$ grows by $p_j(1 - p_j)$, and every other weight pays for it, in
# proportion to what it has. $J$ is symmetric. Multiply it by any direction $u$ and by $u$ again:
#
# $$
# u^\top J u = \sum_i p_i u_i^2 - \Big(\sum_i p_i u_i\Big)^2 = \operatorname{Var}_{i \sim p}(u_i) \ge 0 .
# $$ (eq-attention-jacobian-variance)
#
# It is the variance of $u$ under the weights. Two facts follow at once. $J$ has no negative
# eigenvalue. And it is zero exactly along directions that are constant where $p$ lives, above all
# along $\mathbf{1}$:
#
# $$
# J\,\mathbf{1} = p - p\,(p^\top \mathbf{1}) = p - p = 0 ,
# $$ (eq-attention-jacobian-null)
#
# which is {eq}`eq-attention-shift` again, in its differential form. Last, the size of $J$. The
# square of its Frobenius norm is the sum of its squared entries; with
# $J = \operatorname{diag}(p) - pp^\top$ that is $\sum_i p_i^2$ from the first part,
# $-2\sum_i p_i \cdot p_i^2$ from the cross term and $\sum_{ij} p_i^2 p_j^2$ from the second part:
#
# $$
# \lVert J \rVert_F^2 = \sum_i p_i^2 - 2\sum_i p_i^3 + \Big(\sum_i p_i^2\Big)^2 .
# $$ (eq-attention-jacobian-norm)
#
# If one weight is one and the rest are zero, this is $1 - 2 + 1 = 0$: a softmax that is sure does
# not listen to its scores any more. That is what *saturation* means.

# %%
p = safe_softmax(s)
jacobian = torch.autograd.functional.jacobian(safe_softmax, s)
check("eq-attention-jacobian", torch.diag(p) - torch.outer(p, p), jacobian)
u = torch.randn(7, generator=torch.Generator().manual_seed(3), dtype=double)
variance = (p * (u - (p * u).sum()) ** 2).sum()
check("eq-attention-jacobian-variance", u @ jacobian @ u, variance)
check(
    "eq-attention-jacobian-null",
    jacobian @ torch.ones(7, dtype=double),
    torch.zeros(7, dtype=double),
)


def jacobian_norm(p):
    """‖diag(p) − p pᵀ‖_F of each row of weights."""
    square = (p**2).sum(-1)
    return (square - 2 * (p**3).sum(-1) + square**2).clamp_min(0).sqrt()


check(
    "eq-attention-jacobian-norm",
    jacobian_norm(p),
    torch.linalg.matrix_norm(jacobian),
)

# %% [markdown]
# Now move the numbers yourself. The component below shows one softmax over real dot products of
# random vectors. Switch the square root off and raise the dimension: the bars collapse onto one
# key, and the entropy with them. Then look at the norm of $J$: it falls much less than the
# entropy does.

# %%
TemperatureSoftmax(name="temperature-softmax")

# %% [markdown]
# ### Step 3. The backward pass, by hand
#
# Autograd will compute gradients for us. We derive them anyway: the fast kernels of today write
# this pass by hand, and one line of it is what makes them possible.
#
# Let $L$ be a number that depends on the output $O$. Write $\mathrm{d}X$ for the matrix of
# derivatives $\partial L / \partial X$; it has the shape of $X$. We start from $\mathrm{d}O$,
# which the layers above hand down, and go backwards through $O = PV$, $P =
# \operatorname{softmax}(S)$ and $S = QK^\top/\sqrt{d_k}$.
#
# Two of these are matrix products, so one rule serves both. Let $C = AB$, that is $C_{ij} =
# \sum_l A_{il} B_{lj}$. Entry $A_{kl}$ enters row $k$ of $C$ only, and there with the factor
# $B_{lj}$. By the chain rule $\mathrm{d}A_{kl} = \sum_j \mathrm{d}C_{kj} B_{lj}$, and likewise
# for $B$:
#
# $$
# C = AB \quad\Longrightarrow\quad \mathrm{d}A = \mathrm{d}C\, B^\top, \qquad \mathrm{d}B = A^\top \mathrm{d}C .
# $$ (eq-attention-product-rule)
#
# If you forget the order, the shapes leave only one. Apply the rule to $O = PV$:
#
# $$
# \mathrm{d}V = P^\top \mathrm{d}O ,
# $$ (eq-attention-dv)
# $$
# \mathrm{d}P = \mathrm{d}O\, V^\top .
# $$ (eq-attention-dp)
#
# A value gets the gradients of all outputs that used it, each with the weight it was used with.
# Next the softmax. Row $i$ of $S$ only makes row $i$ of $P$, through the Jacobian
# {eq}`eq-attention-jacobian`, which is symmetric. So $\mathrm{d}S_{ij} = \sum_l
# \mathrm{d}P_{il}\, P_{il}(\delta_{lj} - P_{ij}) = P_{ij}\,\mathrm{d}P_{ij} - P_{ij} \sum_l
# P_{il}\,\mathrm{d}P_{il}$. Call the last sum $D_i$:
#
# $$
# \mathrm{d}S_{ij} = P_{ij}\,(\mathrm{d}P_{ij} - D_i) .
# $$ (eq-attention-ds)
#
# A score is pushed up if its value would have helped more than the row's average, $D_i$. That
# average seems to need a whole row of $P$ and of $\mathrm{d}P$. It doesn't. Put in
# {eq}`eq-attention-dp`, swap the two sums, and recognise $O = PV$:
#
# $$
# \begin{aligned}
# D_i &= \sum_l P_{il}\,\mathrm{d}P_{il} = \sum_l P_{il} \sum_c \mathrm{d}O_{ic} V_{lc} \\
# &= \sum_c \mathrm{d}O_{ic} \sum_l P_{il} V_{lc} = \sum_c \mathrm{d}O_{ic}\, O_{ic} .
# \end{aligned}
# $$ (eq-attention-d)
#
# So $D$ is the row sum of $\mathrm{d}O \circ O$: two matrices of width $d_v$ that lie at hand,
# and no matrix of size $n_q \times n_k$. This is the line that fused kernels live on. Last, the
# product rule for $S = \tfrac{1}{\sqrt{d_k}} Q K^\top$:
#
# $$
# \mathrm{d}Q = \frac{1}{\sqrt{d_k}}\, \mathrm{d}S\, K ,
# $$ (eq-attention-dq)
# $$
# \mathrm{d}K = \frac{1}{\sqrt{d_k}}\, \mathrm{d}S^\top Q .
# $$ (eq-attention-dk)
#
# Six lines of mathematics, six lines of code. We compare each with autograd, on sizes that are all
# different and prime, so that no transposed matrix can slip through.

# %%
n_q, n_k, d_k, d_v = 5, 7, 3, 11
generator = torch.Generator().manual_seed(4)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


Q, K, V, dO = randn(n_q, d_k), randn(n_k, d_k), randn(n_k, d_v), randn(n_q, d_v)
A, B, dC = randn(n_q, n_k), randn(n_k, d_v), randn(n_q, d_v)

# autograd's answer
leaves = [x.clone().requires_grad_() for x in (Q, K, V, A, B)]
q_, k_, v_, a_, b_ = leaves
S_ = q_ @ k_.T / math.sqrt(d_k)
P_ = S_.softmax(-1)
O_ = P_ @ v_
for x in (S_, P_):
    x.retain_grad()
(O_ * dO).sum().backward()
(a_ @ b_ * dC).sum().backward()

# ours
O, P = O_.detach(), P_.detach()
dV = P.T @ dO
dP = dO @ V.T
D = (dO * O).sum(-1, keepdim=True)
dS = P * (dP - D)
dQ = dS @ K / math.sqrt(d_k)
dK = dS.T @ Q / math.sqrt(d_k)

check("eq-attention-product-rule", dC @ B.T, a_.grad)
check("eq-attention-product-rule", A.T @ dC, b_.grad)
check("eq-attention-dv", dV, v_.grad)
check("eq-attention-dp", dP, P_.grad)
check("eq-attention-d", D, (P * dP).sum(-1, keepdim=True))
check("eq-attention-ds", dS, S_.grad)
check("eq-attention-dq", dQ, q_.grad)
check("eq-attention-dk", dK, k_.grad)

# %% [markdown]
# Autograd is one witness. Finite differences are another, and they know nothing of our algebra.
# PyTorch's `gradcheck` compares a function's gradient with differences of its values;
# `gradgradcheck` does the same one derivative higher. We run both on the library's function, with
# a mask.

# %%
inputs = [x.clone().requires_grad_() for x in (Q, K, V)]
mask = torch.ones(n_q, n_k, dtype=torch.bool)
mask[0, 2:] = False
mask[3] = False  # a row that may attend to nothing


def masked_attention(query, key, value):
    return scaled_dot_product_attention(query, key, value, mask)


check(
    "gradcheck agrees with the library",
    torch.autograd.gradcheck(masked_attention, inputs),
)
check(
    "gradgradcheck agrees too",
    torch.autograd.gradgradcheck(masked_attention, inputs),
)

# %% [markdown]
# ### Step 4. What attention cannot see: order
#
# Let $\Pi$ be a permutation matrix: $\Pi X$ has the rows of $X$ in another order. Shuffle the
# queries. Row $i$ of the output is made from query $i$ and all keys and values, so the outputs
# are shuffled in the same way:
#
# $$
# \operatorname{Attention}(\Pi Q, K, V) = \Pi \operatorname{Attention}(Q, K, V) .
# $$ (eq-attention-permute-queries)
#
# Shuffle keys and values together. The scores become $QK^\top\Pi^\top/\sqrt{d_k}$, their columns
# shuffled; the softmax acts on a row as a set, so $P$ becomes $P\Pi^\top$; and
# $P\Pi^\top\Pi V = PV$, because $\Pi^\top\Pi = I$:
#
# $$
# \operatorname{Attention}(Q, \Pi K, \Pi V) = \operatorname{Attention}(Q, K, V) .
# $$ (eq-attention-permute-keys)
#
# In *self-attention* all three come from one sequence $X$, through matrices: $Q = XW_Q$, $K =
# XW_K$, $V = XW_V$. Shuffling $X$ shuffles all three. The first equation, then the second, give
#
# $$
# \begin{gathered}
# A(\Pi X) = \Pi\, A(X), \\
# A(X) = \operatorname{Attention}(XW_Q, XW_K, XW_V) .
# \end{gathered}
# $$ (eq-attention-equivariance)
#
# This is called *permutation equivariance*. “Dog bites man” and “man bites dog” give each word
# the very same output. A model that should know word order must be told it, by position encodings
# or by a mask.

# %%
shuffle_q, shuffle_k = (
    torch.randperm(n_q, generator=generator),
    torch.randperm(n_k, generator=generator),
)
output = scaled_dot_product_attention(Q, K, V)
check(
    "eq-attention-permute-queries",
    scaled_dot_product_attention(Q[shuffle_q], K, V),
    output[shuffle_q],
)
check(
    "eq-attention-permute-keys",
    scaled_dot_product_attention(Q, K[shuffle_k], V[shuffle_k]),
    output,
)

X, W_Q, W_K, W_V = randn(n_k, 5), randn(5, 3), randn(5, 3), randn(5, 2)


def self_attention(x, mask=None):
    return scaled_dot_product_attention(x @ W_Q, x @ W_K, x @ W_V, mask)


check(
    "eq-attention-equivariance",
    self_attention(X[shuffle_k]),
    self_attention(X)[shuffle_k],
)
mask = causal_mask(n_k)
gap = (
    (self_attention(X[shuffle_k], mask) - self_attention(X, mask)[shuffle_k])
    .abs()
    .max()
)
glue("attention-causal-equivariance-gap", gap)
check("a causal mask breaks the equivariance", gap > 0.1)

# %% [markdown]
# **Without the hypothesis.** The derivation used that every query may see every key. With a
# causal mask (step 6) a token's place decides what it may see, and the equation fails: the
# largest difference between the two sides is then
# {glue:text}`attention-causal-equivariance-gap:.2f`, not zero.
#
# ### Step 5. Attention as a kernel smoother
#
# Write one row of {eq}`def-attention-formula` out, with $\kappa(q, k) = e^{q \cdot k/\sqrt{d}}$:
#
# $$
# o = \frac{\sum_j \kappa(q, k_j)\, v_j}{\sum_j \kappa(q, k_j)} .
# $$ (eq-attention-smoother)
#
# Statistics has known this since 1964 as the Nadaraya–Watson estimator
# {cite}`nadaraya1964,watson1964`: to guess the value at a new point $q$, average the known values
# $v_j$, each weighted by how close its point $k_j$ is. Is $\kappa$ a measure of closeness? Expand
# the squared distance, $\lVert q - k_j \rVert^2 = \lVert q \rVert^2 + \lVert k_j \rVert^2 - 2\, q
# \cdot k_j$, and solve for the dot product. The term $\lVert q \rVert^2$ is the same for all
# keys. If all keys have one norm, so is $\lVert k_j \rVert^2$. By {eq}`eq-attention-shift` what
# is the same for all keys drops out, and
#
# $$
# \lVert k_j \rVert = r \text{ for all } j \quad\Longrightarrow\quad
# P_j = \frac{e^{-\lVert q - k_j \rVert^2 / 2\sqrt{d}}}{\sum_l e^{-\lVert q - k_l \rVert^2 / 2\sqrt{d}}} .
# $$ (eq-attention-gaussian)
#
# For keys of equal norm, attention is a Gaussian smoother of bandwidth $d^{1/4}$. Either way the
# weights are positive and sum to one, so every coordinate of the output lies between the smallest
# and the largest value:
#
# $$
# \min_j V_{jc} \;\le\; O_{ic} \;\le\; \max_j V_{jc} .
# $$ (eq-attention-hull)
#
# Attention interpolates. It never hands over more than some value had to give.

# %%
kernel = torch.exp(Q @ K.T / math.sqrt(d_k))
check(
    "eq-attention-smoother", (kernel @ V) / kernel.sum(-1, keepdim=True), output
)


def gaussian_smoother(query, key, value):
    distance = torch.cdist(
        query, key, compute_mode="donot_use_mm_for_euclid_dist"
    )
    kernel = torch.exp(-(distance**2) / (2 * math.sqrt(query.shape[-1])))
    return (kernel @ value) / kernel.sum(-1, keepdim=True)


K_sphere = 2 * K / K.norm(dim=-1, keepdim=True)  # every key has norm 2
check(
    "eq-attention-gaussian",
    gaussian_smoother(Q, K_sphere, V),
    scaled_dot_product_attention(Q, K_sphere, V),
)
check(
    "eq-attention-hull",
    bool(((V.amin(0) <= output) & (output <= V.amax(0))).all()),
)
gap = (gaussian_smoother(Q, K, V) - output).abs().max()
glue("attention-gaussian-gap", gap)
check("keys of unequal norm break the Gaussian form", gap > 0.1)

# %% [markdown]
# **Without the hypothesis.** With keys of unequal norm the two differ by up to
# {glue:text}`attention-gaussian-gap:.2f`. A long key is then attended to more (or less) than its
# distance says. {numref}`fig-attention-smoother` shows the case of equal norms at work: noisy
# points on a circle, and the library's attention as the curve through them. Nothing was trained.

# %% tags=["hide-input"]
points = torch.linspace(0, 2 * math.pi, 61, dtype=double)[:-1]
noisy = torch.sin(points) + 0.5 * torch.sin(3 * points) + 0.25 * randn(60)
grid = torch.linspace(0, 2 * math.pi, 241, dtype=double)


def on_circle(angle, radius):
    return radius * torch.stack([angle.cos(), angle.sin()], -1)  # (n, 2)


fig, ax = plt.subplots(figsize=(4.3, 3.1))
ax.plot(
    points,
    noisy,
    "o",
    color=COLORS["value"],
    markersize=4,
    label="values at their keys",
)
for radius, style in [(1.0, ":"), (4.0, "-"), (16.0, "--")]:
    curve = scaled_dot_product_attention(
        on_circle(grid, radius), on_circle(points, radius), noisy[:, None]
    )
    ax.plot(
        grid,
        curve[:, 0],
        style,
        color=COLORS["output"],
        label=f"output, norm {radius:g}",
    )
ax.set(xlabel="angle of the key or query", ylabel="value")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-attention-smoother",
    caption="Attention as a smoother. Keys and queries lie on a circle. "
    "Longer vectors make a narrower kernel: norm 1 averages too much, norm 4 "
    "follows the trend, norm 16 follows the noise.",
    alt="Sixty noisy points over an angle and three curves. The dotted curve "
    "of norm 1 is nearly flat, the solid one of norm 4 follows the wave, the "
    "dashed one of norm 16 follows every point.",
)

# %% [markdown]
# ### Step 6. Masks
#
# Some pairs must not meet: a word must not see the future that it has to predict, and nobody
# should see padding. Add a matrix $M$ to the scores, zero where attention is allowed and
# $-\infty$ where it is not, *before* the softmax. Since $e^{-\infty} = 0$, forbidden keys drop
# out of the numerator and of the sum:
#
# $$
# \begin{aligned}
# P_{ij} &= \frac{e^{S_{ij} + M_{ij}}}{\sum_l e^{S_{il} + M_{il}}} \\
# &= \begin{cases} e^{S_{ij}} \Big/ \sum_{l \text{ allowed}} e^{S_{il}} & j \text{ allowed
# for } i\\
# 0 & \text{otherwise.}\end{cases}
# \end{aligned}
# $$ (eq-attention-mask)
#
# So a masked key is not a key with a small weight. It is as if it were not there, and the remaining
# weights still sum to one. Multiplying by zero *after* the softmax would not do that.
#
# One row is special: if no key is allowed, the sum is zero and the formula reads $0/0$. The
# formula has no answer, so a library has to choose one. Ours returns zeros, in the output and in
# every gradient: a query that may look nowhere brings nothing home and teaches nothing.

# %%
mask = torch.rand(n_q, n_k, generator=generator) < 0.6
mask[:, 0] = True
mask[2] = False
output, weights = scaled_dot_product_attention(
    Q, K, V, mask, return_weights=True
)
alone_output, alone_weights = (
    torch.zeros_like(output),
    torch.zeros_like(weights),
)
for i in range(n_q):
    keep = mask[i]
    if (
        keep.any()
    ):  # the same row from a problem in which the masked keys do not exist
        row, row_weights = scaled_dot_product_attention(
            Q[i : i + 1], K[keep], V[keep], return_weights=True
        )
        alone_output[i], alone_weights[i, keep] = row[0], row_weights[0]
check("eq-attention-mask", weights, alone_weights)
check("the outputs agree as well", output, alone_output)
check("a masked weight is exactly zero", bool((weights[~mask] == 0).all()))
check(
    "a row with nothing to attend to gives zeros", bool((output[2] == 0).all())
)

# %% [markdown]
# The *causal* mask allows key $j$ for query $i$ if $j \le i$. It makes the arrow of time exact: in
# causal self-attention, the output at position $i$ does not depend on any later input,
#
# $$
# \frac{\partial A(X)_i}{\partial X_j} = 0 \qquad \text{for all } j > i .
# $$ (eq-attention-causal)
#
# The reason is short. $X_j$ enters row $i$ of the output only through the key and the value of
# $j$, and by {eq}`eq-attention-mask` a forbidden key and its value are not there. The derivative
# is zero, and not merely small.
#
# The same argument read forwards is what makes generation fast. Row $i$ needs one query, and the
# keys and values up to $i$:
#
# $$
# \begin{aligned}
# & \operatorname{CausalAttention}(Q, K, V)_i \\
# & \quad = \operatorname{Attention}(Q_{i:i}, K_{1:i}, V_{1:i}) .
# \end{aligned}
# $$ (eq-attention-cache)
#
# When a new token arrives, no old row changes. So keep the old keys and values in a *cache*, and
# compute one new row. With one query and $n_k$ keys the mask must be aligned at the bottom right:
# the query is the *last* position and may see all. {numref}`fig-attention-masks` shows both
# shapes.

# %%
X = randn(6, 5)
jacobian = torch.autograd.functional.jacobian(
    lambda x: self_attention(x, causal_mask(6)), X
)
influence = jacobian.abs().amax((1, 3))  # (output position, input position)
allowed = causal_mask(6)
check("eq-attention-causal", influence[~allowed].max(), 0.0, atol=0)
check(
    "and every allowed pair does have influence",
    bool((influence[allowed] > 0).all()),
)

full = self_attention(X, causal_mask(6))
rows = [
    scaled_dot_product_attention(
        X[i : i + 1] @ W_Q, X[: i + 1] @ W_K, X[: i + 1] @ W_V
    )
    for i in range(6)
]
check("eq-attention-cache", torch.cat(rows), full)
last_two = scaled_dot_product_attention(
    X[4:] @ W_Q, X @ W_K, X @ W_V, causal_mask(2, 6)
)
check("two cached queries need the bottom-right alignment", last_two, full[4:])

# %% tags=["hide-input"]
lengths = torch.tensor([6, 4])
fig, axes = plt.subplots(2, 2, figsize=(4.3, 4.2))
panels = {
    "causal, n = 6": causal_mask(6),
    "causal, 2 new queries": causal_mask(2, 6),
    "padding: 4 real keys": padding_mask(lengths, 6)[1].expand(6, 6),
    "causal and padding": causal_mask(6) & padding_mask(lengths, 6)[1],
}
for ax, (title, allowed) in zip(axes.flat, panels.items(), strict=True):
    heatmap(ax, allowed.double())
    ax.set(title=title, xlabel="key", ylabel="query")
show_figure(
    fig,
    name="fig-attention-masks",
    caption="Four masks; bright means “may attend”. For two new queries over "
    "six cached keys the causal staircase ends in the bottom right corner. "
    "Masks combine by logical “and”.",
    alt="Four grids of queries by keys. The causal one is a full lower "
    "triangle; that for two new queries ends bottom right; the padding mask "
    "blocks the last two columns; the last does both.",
)

# %% [markdown]
# ### Step 7. One key at a time: the online softmax
#
# The softmax seems to need a whole row of scores before it can give the first weight: the
# maximum, then the sum, then the division. For long sequences that row, times all queries, is the
# largest thing in memory. It turns out that the keys can be read one by one, or block by block,
# and forgotten.
#
# Take one query. After reading $t$ keys, remember three things: the largest score so far, the sum
# of exponentials so far, and the weighted sum of values so far, both relative to that maximum.
#
# $$
# \begin{gathered}
# m_t = \max_{j \le t} s_j, \qquad
# \ell_t = \sum_{j \le t} e^{s_j - m_t}, \\
# a_t = \sum_{j \le t} e^{s_j - m_t}\, v_j .
# \end{gathered}
# $$ (def-attention-online)
#
# **Claim.** These can be kept up to date from the new score and value alone:
#
# $$
# m_{t+1} = \max(m_t,\, s_{t+1}) ,
# $$ (eq-attention-online-max)
# $$
# \ell_{t+1} = e^{m_t - m_{t+1}}\, \ell_t + e^{s_{t+1} - m_{t+1}} ,
# $$ (eq-attention-online-sum)
# $$
# a_{t+1} = e^{m_t - m_{t+1}}\, a_t + e^{s_{t+1} - m_{t+1}}\, v_{t+1} .
# $$ (eq-attention-online-values)
#
# **Proof by induction.** *Start.* Before any key, $m_0 = -\infty$, $\ell_0 = 0$, $a_0 = 0$: empty
# maximum and empty sums. *Step.* Suppose that {eq}`def-attention-online` holds at $t$. For the
# maximum there is nothing to show. For the sum, multiply by the correction factor and use
# $e^{m_t - m_{t+1}}\, e^{s_j - m_t} = e^{s_j - m_{t+1}}$:
#
# $$
# e^{m_t - m_{t+1}}\, \ell_t = \sum_{j \le t} e^{m_t - m_{t+1}}\, e^{s_j - m_t}
# = \sum_{j \le t} e^{s_j - m_{t+1}} .
# $$ (eq-attention-online-step)
#
# Add the new term $e^{s_{t+1} - m_{t+1}}$, and this is $\ell_{t+1}$ as defined. The same line
# with $v_j$ under the sum proves the claim for $a$. $\square$
#
# After the last key, divide. The factor $e^{-m_n}$ stands above and below and cancels:
#
# $$
# \frac{a_n}{\ell_n} = \frac{\sum_j e^{s_j - m_n}\, v_j}{\sum_j e^{s_j - m_n}} = \sum_j p_j v_j = o .
# $$ (eq-attention-online-output)
#
# No exponent is ever positive, so nothing can overflow; and nothing of size $n$ was kept. We run
# the loop and compare with the definition after *every* key, on scores with a standard deviation
# of $300$. A plain `exp` in single precision gives up beyond $e^{88}$.

# %%
n = 12
generator.manual_seed(46)
scores, values = 300 * randn(n), randn(n, 3)
m = torch.tensor(-math.inf, dtype=double)
total, acc = torch.zeros((), dtype=double), torch.zeros(3, dtype=double)
labels = ["max", "step", "sum", "values"]
found, defined = {x: [] for x in labels}, {x: [] for x in labels}
history = []
for t in range(n):
    new_m = torch.maximum(m, scores[t])
    correction = torch.exp(m - new_m)
    corrected_total = correction * total
    total = corrected_total + torch.exp(scores[t] - new_m)
    acc = correction * acc + torch.exp(scores[t] - new_m) * values[t]
    m = new_m
    history.append((m.item(), correction.item()))

    seen = scores[: t + 1]
    relative = torch.exp(seen - seen.max())  # the definition, from scratch
    ours = [m, corrected_total, total, acc]
    theirs = [
        seen.max(),
        relative[:-1].sum(),
        relative.sum(),
        relative @ values[: t + 1],
    ]
    for label, got, want in zip(labels, ours, theirs, strict=True):
        found[label].append(got)
        defined[label].append(want)

for label in labels:  # all twelve keys at once
    check(
        f"eq-attention-online-{label}",
        torch.stack(found[label]),
        torch.stack(defined[label]),
    )
check("eq-attention-online-output", acc / total, scores.softmax(0) @ values)
naive = plain_softmax(scores.float())
check("the naive softmax is lost here", bool(naive.isnan().any()))

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 2.9))
steps = range(1, n + 1)
ax.bar(steps, scores, color=COLORS["scores"], alpha=0.55, label="score $s_t$")
ax.step(
    steps,
    [h[0] for h in history],
    where="mid",
    color=COLORS["query"],
    linewidth=2,
    label="running maximum $m_t$",
)
corrected = [t for t in range(1, n) if history[t][0] > history[t - 1][0]]
ax.plot(
    [t + 1 for t in corrected],
    [history[t][0] for t in corrected],
    "v",
    color=COLORS["key"],
    markersize=8,
    label="old sums scaled down",
)
ax.set(xlabel="keys read, $t$", ylabel="score")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-attention-online",
    caption="The running maximum climbs a staircase. Only where it steps up "
    "are the sums so far corrected; everywhere else the factor $e^{m_t - "
    "m_{t+1}}$ is one.",
    alt="Bars of twelve scores and above them a staircase, the running "
    "maximum. Triangles mark the few steps at which the maximum rises and the "
    "old sums are scaled down.",
)

# %% [markdown]
# {numref}`fig-attention-online` shows the loop at work. Nothing in the proof needs the new piece
# to be a single key. Replace $s_{t+1}$ by the maximum of a block and $e^{s_{t+1}-m_{t+1}}$ by a
# sum over it, and the same lines go through. That is the library's `online_softmax_attention`,
# and the heart of FlashAttention {cite}`dao2022`. The running sum is due to
# {cite:t}`milakov2018`; {cite:t}`rabe2021` made attention of it.
#
# ### Step 8. What it costs
#
# Count a multiplication and an addition as two operations. Each of the $n_q n_k$ scores takes
# $d_k$ of such pairs, and each of the $n_q d_v$ outputs takes $n_k$. The two products together
# cost
#
# $$
# \text{FLOPs} = 2\, n_q n_k\, (d_k + d_v) ,
# $$ (eq-attention-flops)
#
# and the softmax adds a few operations for each of the $n_q n_k$ weights, which we leave out, as
# the field does. The weights themselves, at $b$ bytes a number, take
#
# $$
# \text{bytes}(P) = n_q\, n_k\, b .
# $$ (eq-attention-bytes)
#
# In self-attention both grow with $n^2$. Doubling the text quadruples the work. That the *memory*
# need not follow is what step 7 proved. PyTorch can count operations, and the allocator can be
# watched, so we need not take either formula on trust.

# %%
Q, K, V = torch.randn(37, 16), torch.randn(53, 16), torch.randn(53, 24)
check(
    "eq-attention-flops",
    flops(scaled_dot_product_attention, Q, K, V),
    2 * 37 * 53 * (16 + 24),
)
_, weights = scaled_dot_product_attention(Q, K, V, return_weights=True)
check("eq-attention-bytes", weights.nbytes, 37 * 53 * 4)

sizes = [256, 512, 1024, 2048]
functions = {
    "formula": scaled_dot_product_attention,
    "online": online_softmax_attention,
    "fused": fast_attention,
}
memory, seconds = (
    {name: [] for name in functions},
    {name: [] for name in functions},
)
for n in sizes:
    Q, K, V = (torch.randn(1, n, 64, device=device) for _ in range(3))
    for name, function in functions.items():
        memory[name].append(peak_bytes(function, Q, K, V) / 2**20)
    calls = [partial(function, Q, K, V) for function in functions.values()]
    times = median_seconds(*calls)
    for name, t in zip(functions, times, strict=True):
        seconds[name].append(1000 * t)


def exponent(y):
    """Slope of log y over log n: y grows like n to this power."""
    return np.polyfit(np.log(sizes), np.log(y), 1)[0]


for name in functions:
    glue(f"attention-memory-exponent-{name}", exponent(memory[name]))
glue("attention-memory-ratio", memory["formula"][-1] / memory["online"][-1])
glue("attention-n-max", sizes[-1])
check(
    "the formula's memory is quadratic", 1.8 < exponent(memory["formula"]) < 2.1
)
check(
    "the online version's memory is linear",
    0.8 < exponent(memory["online"]) < 1.2,
)

# %% tags=["hide-input", "nbval-ignore-output"]
fig, axes = plt.subplots(2, 1, figsize=(4.3, 5.6), sharex=True)
styles = {
    "formula": ("o-", "key"),
    "online": ("s--", "query"),
    "fused": ("^:", "value"),
}
for name, (marker, color) in styles.items():
    axes[0].plot(sizes, memory[name], marker, color=COLORS[color], label=name)
    axes[1].plot(sizes, seconds[name], marker, color=COLORS[color], label=name)
for ax, label in zip(axes, ["peak memory, MiB", "time, ms"], strict=True):
    ax.set(xscale="log", yscale="log", ylabel=label)
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
axes[0].legend()
axes[1].set_xlabel("sequence length n")
show_figure(
    fig,
    name="fig-attention-cost",
    caption="Peak memory and time of one head of width 64, measured in this "
    "run. All three do the same quadratic number of products; memory is "
    "quadratic only for the version that writes the weights down.",
    alt="Two log-log charts over sequence length. Memory: the formula's line "
    "is the steepest, the online and the fused one rise about half as "
    "steeply. Time: three steep lines close together.",
)

# %% [markdown]
# Memory grows like $n$ to the power {glue:text}`attention-memory-exponent-formula:.2f` for the
# formula as written, and {glue:text}`attention-memory-exponent-online:.2f` for the online
# version; at $n =$ {glue:text}`attention-n-max:.0f` that is a factor of
# {glue:text}`attention-memory-ratio:.0f` ({numref}`fig-attention-cost`). The number of products
# is the same for all three, and remains quadratic. “Linear memory” is not “linear attention”.

# %% [markdown]
# ## From scratch
#
# Now by hand, without any library. The sentence is “the cat drank because it thirsted”: six
# tokens. We choose two-dimensional queries and keys so that the arithmetic stays readable. Let
# the first axis mean *noun* and the second *verb*. A key says what the token is; a query says
# what it looks for. The word “it” looks for a noun, so its query points along the first axis.

# %%
tokens = ["the", "cat", "drank", "because", "it", "thirsted"]
# What each token looks for and what it is, both as (noun, verb),
# and what it hands over, as (animal, action).
queries = [[2, 0], [0, 1], [2, 0], [0, 2], [3, 0], [2, 0]]
keys = [[0, 0], [2, 0], [0, 2], [0, 0], [1, 0], [0, 2]]
values = [[0, 0], [4, 0], [0, 4], [0, 0], [0, 0], [0, 2]]


def attend(query, keys, values):
    """One query's output and weights, in plain Python."""
    root = math.sqrt(len(query))
    scores = [
        sum(q * k for q, k in zip(query, key, strict=True)) / root
        for key in keys
    ]
    top = max(scores)
    exponentials = [math.exp(score - top) for score in scores]
    total = sum(exponentials)
    weights = [e / total for e in exponentials]
    output = [
        sum(w * value[c] for w, value in zip(weights, values, strict=True))
        for c in range(len(values[0]))
    ]
    return output, weights, scores


output, weights, scores = attend(queries[4], keys, values)
print("“it” asks with q =", queries[4])
print(f"{'key':10} {'q·k':>5} {'score':>7} {'weight':>8}")
for token, key, score, weight in zip(
    tokens, keys, scores, weights, strict=True
):
    dot = sum(q * k for q, k in zip(queries[4], key, strict=True))
    print(f"{token:10} {dot:5d} {score:7.3f} {weight:8.4f}")
print("output (animal, action) =", [round(x, 3) for x in output])

# %% [markdown]
# Check a line with a pocket calculator. For “cat”, $q \cdot k = 3 \cdot 2 + 0 \cdot 0 = 6$, and
# $6/\sqrt{2}$ is the score printed. Most of the weight goes to “cat”, so the output is nearly the
# value of “cat”: *animal*. A little goes to “it” itself, which is a noun of sorts. Nothing in the
# code says “look three words back”. {numref}`fig-attention-six-tokens` shows all six queries at
# once.

# %%
by_hand = [attend(query, keys, values) for query in queries]
Q, K, V = (torch.tensor(x, dtype=double) for x in (queries, keys, values))
hand_output = torch.tensor([row[0] for row in by_hand], dtype=double)
hand_weights = torch.tensor([row[1] for row in by_hand], dtype=double)
library_output, library_weights = scaled_dot_product_attention(
    Q, K, V, return_weights=True
)
check("by hand = the library: output", hand_output, library_output)
check("by hand = the library: weights", hand_weights, library_weights)
check("by hand = torch", hand_output, F.scaled_dot_product_attention(Q, K, V))

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 3.9))
heatmap(
    ax,
    hand_weights,
    xlabels=tokens,
    ylabels=tokens,
    annotate=True,
    vmin=0,
    vmax=1,
)
ax.set(xlabel="key: what is looked at", ylabel="query: who is looking")
show_figure(
    fig,
    name="fig-attention-six-tokens",
    caption="The weights of all six queries. Each row sums to one. The row of "
    "“it” finds “cat”; the row of “because” finds the two verbs and shares "
    "its weight evenly between them.",
    alt="A six by six heat map of attention weights with numbers. The rows "
    "the, drank, it and thirsted are brightest at cat; the rows cat and "
    "because are brightest at the two verbs.",
)

# %% [markdown]
# ## The library function
#
# The library's version does the same for any number of leading batch dimensions, with masks and
# dropout. This is its source, read from the file when this page was built. The lines that check
# the arguments live in helpers of their own; what is left is the formula.
#
# ```{lib-source} lib.attention.scaled_dot_product_attention
# ```
#
# Two decisions deserve a word. The mask is `True` where a query *may* attend, as in PyTorch's
# function (and unlike `nn.MultiheadAttention`, whose masks mean the opposite). And dropout acts
# on the weights, after the softmax. Below, in *Broken on purpose*, we show what happens
# otherwise.
#
# The same contract has a tiled version, which is step 7 with blocks in place of single keys:
#
# ```{lib-source} lib.attention.online_softmax_attention
# ```
#
# and a fast one, `fast_attention`, which hands the work to PyTorch's fused kernels. All three and
# PyTorch's own must agree, on every kind of mask, in every precision.

# %%
B, h, n_q, n_k, d_k, d_v = 2, 3, 5, 7, 11, 13
tolerance = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 3e-2,
    torch.float16: 4e-3,
}
masks = {
    "no mask": None,
    "causal": causal_mask(n_q, n_k, device=device),
    "padding": padding_mask(torch.tensor([7, 4], device=device), n_k)[
        :, None, None, :
    ],
    "bias": torch.randn(h, n_q, n_k, device=device, dtype=double),
}
torch.manual_seed(0)
for dtype, atol in tolerance.items():
    Q = torch.randn(B, h, n_q, d_k, device=device).to(dtype)
    K = torch.randn(B, h, n_k, d_k, device=device).to(dtype)
    V = torch.randn(B, h, n_k, d_v, device=device).to(dtype)
    worst = 0.0
    for mask in masks.values():
        mask = (
            mask.to(dtype)
            if mask is not None and mask.is_floating_point()
            else mask
        )
        exact_mask = (
            mask.double()
            if mask is not None and mask.is_floating_point()
            else mask
        )
        exact = F.scaled_dot_product_attention(
            Q.double(), K.double(), V.double(), exact_mask
        )
        for function in functions.values():
            worst = max(
                worst,
                (function(Q, K, V, mask).double() - exact).abs().max().item(),
            )
    check(
        f"all three agree with torch in fp64, computed in {dtype}",
        worst,
        0.0,
        atol=atol,
    )

# %% [markdown]
# ## On real data
#
# Formulas can be right and useless. Does attention help to predict real English? We take the
# language reference that ships inside Python: prose about names, loops and exceptions, a few
# hundred thousand characters of it. The model reads characters and predicts the next one.
#
# The model is as small as it can be and still be honest: *one* attention layer and nothing else,
# no feed-forward layer, no normalisation {cite}`elhage2021`. A character's embedding goes to the
# output in two ways. The direct way sees this character only; it can learn which character tends
# to follow which. The other way goes through attention, and may look back. With several *heads*,
# that way exists several times side by side, each with queries, keys and values of its own; the
# next chapter is about that.
#
# ```{lib-source} lib.models.attention_only.AttentionOnly
# ```
#
# To see what helps, we also train the same model with parts of the idea missing:
#
# - **no attention**: the direct way only, so a learned table of pairs of characters;
# - **average**: each position receives the plain average of the past, so context without choice;
# - **one head, unscaled**: without $1/\sqrt{d_k}$;
# - **one head** and **four heads** of the same total width.
#
# The two models with one head are trained a second time with a third of the learning rate. The
# reason will show.

# %%
text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
train_ids = vocabulary.encode(text.train).to(device)
validation_ids = vocabulary.encode(text.validation).to(device)
length = 32
validation_input, validation_target = consecutive_windows(
    validation_ids, length
)
print(
    f"{len(text.train):,} training characters, {len(text.validation):,} for "
    "validation,"
)
print(f"{len(vocabulary)} different ones; sha256 {text.sha256[:16]}")


def train(seed, mixing, num_heads, learning_rate):
    torch.manual_seed(seed)
    model = AttentionOnly(
        len(vocabulary),
        d_model=64,
        num_heads=num_heads,
        max_length=length,
        mixing=mixing,
    ).to(device)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step):
        inputs, targets = random_windows(train_ids, 12, length, batches)
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    fit(model, batch_loss, steps=500, learning_rate=learning_rate)
    return model


# %% tags=["nbval-ignore-output"]
fast, slow = 1.5e-2, 5e-3  # learning rates
arms = {
    "no attention": ("none", 1, fast),
    "average": ("average", 1, fast),
    "one head, unscaled": ("unscaled", 1, fast),
    "one head": ("attention", 1, fast),
    "four heads": ("attention", 4, fast),
    "one head, unscaled, slow": ("unscaled", 1, slow),
    "one head, slow": ("attention", 1, slow),
}
seeds = [0, 1, 2]
runs = [(name, seed) for name in arms for seed in seeds]
results, models = {name: [] for name in arms}, {}
bar = Progress(runs, label=f"training {len(runs)} small models")
for name, seed in bar:
    model = train(seed, *arms[name])
    loss = evaluate(model, validation_input, validation_target)
    results[name].append(loss)
    models[name] = model  # the last seed's is looked at below
    bar.note(f"{name}: {loss:.2f} nats a character")

# %%
for name, losses in results.items():
    mean, spread = np.mean(losses), np.std(losses, ddof=1)
    glue(f"attention-loss-{name.replace(', ', '-').replace(' ', '-')}", mean)
    print(f"{name:25}{mean:.3f} ± {spread:.3f} nats   {np.round(losses, 3)}")
glue(
    "attention-loss-spread",
    max(np.std(losses, ddof=1) for losses in results.values()),
)
V = len(vocabulary)
pairs = torch.bincount(train_ids[:-1] * V + train_ids[1:], minlength=V**2)
bigram = pairs.view(V, V).double() + 1  # add one: no pair is impossible
bigram /= bigram.sum(1, keepdim=True)  # p(c | b)
triples = (train_ids[:-2] * V + train_ids[1:-1]) * V + train_ids[2:]
triples = torch.bincount(triples, minlength=V**3).view(V, V, V).double()
seen, kinds = triples.sum(-1, keepdim=True), (triples > 0).sum(-1, keepdim=True)
# Witten-Bell: trust a context as far as its counts outweigh its kinds
trigram = (triples + kinds * bigram) / (seen + kinds).clamp_min(1)
trigram = torch.where(seen > 0, trigram, bigram)  # p(c | a, b)
a, b, c = validation_ids[:-2], validation_ids[1:-1], validation_ids[2:]
counted = {
    "bigrams": -bigram[b, c].log().mean().item(),
    "trigrams": -trigram[a, b, c].log().mean().item(),
}
for name, loss in counted.items():
    print(f"counted {name:17}{loss:.3f}")
    glue(f"attention-counted-{name}", loss)
check(
    "no attention = a table of pairs",
    np.mean(results["no attention"]),
    counted["bigrams"],
    atol=0.02,
)
check(
    "a table of triples beats them all",
    counted["trigrams"] < min(results["four heads"]),
)

worst = {name: max(losses) for name, losses in results.items()}
best = {name: min(losses) for name, losses in results.items()}
check("context helps, even unchosen", worst["average"] < best["no attention"])
check("choosing helps much more", worst["one head"] < best["average"] - 0.1)
check("four heads beat one", worst["four heads"] < best["one head"])
scaling_gain = {
    speed: np.mean(results[f"one head, unscaled{speed}"])
    - np.mean(results[f"one head{speed}"])
    for speed in ("", ", slow")
}
glue("attention-gain-fast", scaling_gain[""])
glue("attention-gain-slow", scaling_gain[", slow"])
check("scaling matters at the high rate", scaling_gain[""] > 0.15)
check("and less at the low one", scaling_gain[", slow"] < scaling_gain[""] / 2)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 3.0))
for row, losses in enumerate(results.values()):
    ax.plot(
        losses,
        [row] * len(losses),
        "o",
        color=COLORS["output"],
        alpha=0.8,
        markersize=6,
    )
    ax.plot(
        [np.mean(losses)] * 2,
        [row - 0.3, row + 0.3],
        "-",
        color=COLORS["query"],
        linewidth=2.5,
    )
ax.set_yticks(range(len(results)), list(results))
ax.invert_yaxis()
ax.set_xlabel("validation loss, nats a character")
show_figure(
    fig,
    name="fig-attention-arms",
    caption="Validation loss of one layer on real text; a dot is a seed, the "
    "bar their mean. Choosing where to look is worth far more than the spread "
    "between seeds; the factor $1/\\sqrt{d_k}$ matters most at the high "
    "learning rate.",
    alt="A dot plot of seven models. No attention, the average and the unscaled "
    "head are worst and close together; one head is clearly better, four "
    "heads best. Of the two slow ones, only the scaled head is well ahead.",
)

# %% [markdown]
# Without attention the model reaches {glue:text}`attention-loss-no-attention:.2f` nats a
# character. A plain average of the past gives {glue:text}`attention-loss-average:.2f`, one head
# {glue:text}`attention-loss-one-head:.2f`, and four heads
# {glue:text}`attention-loss-four-heads:.2f` ({numref}`fig-attention-arms`). No standard deviation
# over the three seeds exceeds {glue:text}`attention-loss-spread:.3f`. So it is the *choice* of
# where to look that pays.
#
# Two tables put these numbers in their place. Without attention the model can learn just which
# character follows which, and that is what it learned: a table of counted pairs gives
# {glue:text}`attention-counted-bigrams:.2f`. And a table of counted triples gives
# {glue:text}`attention-counted-trigrams:.2f`, better than any model here. One layer of attention
# does not beat counting. What more layers add is for later
# chapters to measure.
#
# Leaving out $1/\sqrt{d_k}$ costs {glue:text}`attention-gain-fast:.2f` nats at the learning rate
# that is good for the others: the unscaled head ends hardly better than no attention at all. At a
# third of that rate it learns a little, the scaled head learns less than before, and the
# difference shrinks to {glue:text}`attention-gain-slow:.2f` nats. So in this model the factor
# decides above all how fast attention may be taught.
#
# Three seeds, one size and two learning rates are little evidence; we claim no more than that.
# While writing we tried nine other seeds. The order of the fast models was the same in all of
# them, except between the unscaled head and no attention, which lie too close together. At the
# low rate seeds differ several times as much as above: on average the difference was smaller
# still, and some unscaled heads ended slightly *behind* no attention.
#
# ### What it looks at
#
# Here are the weights of the trained model with four heads, on a sentence that it has never seen.
# Point at a character, or tap it, or move with the arrow keys: its row of weights lights up over
# the text. Change the head. Then lift the causal mask: the same trained model may suddenly look
# ahead, which it never learned to do.

# %%
model = models["four heads"]
sentence = text.validation.split("\n")
sentence = next(p for p in sentence if len(p) >= length and p[0].isupper())[
    :length
]
ids = vocabulary.encode(sentence)[None].to(device)  # (1, n)
with torch.no_grad():
    weights = {
        "causal": model.attention_weights(ids)[0].double().cpu(),  # (h, n, n)
        "no mask": model.attention_weights(ids, mask="none")[0].double().cpu(),
    }
AttentionRows(list(sentence), weights, name="attention-rows")

# %% [markdown]
# One sentence is an anecdote. {numref}`fig-attention-offsets` averages over all held-out text:
# how much weight does each head give to the character itself, to the one before, to the one
# before that?

# %% tags=["hide-input"]
with torch.no_grad():
    parts = [
        model.attention_weights(x).sum(0) for x in validation_input.split(64)
    ]
mean_weights = torch.stack(parts).sum(0).cpu() / len(
    validation_input
)  # (h, n, n)
query_at = torch.arange(
    11, length
)  # queries that have eleven characters before them
average = torch.stack(
    [mean_weights[:, query_at, query_at - back].mean(-1) for back in range(12)],
    -1,
)  # (h, 12)
fig, ax = plt.subplots(figsize=(4.3, 2.6))
heatmap(
    ax,
    average,
    xlabels=list(range(12)),
    ylabels=[f"head {i}" for i in range(4)],
    vmin=0,
)
ax.set(xlabel="how many characters back")
show_figure(
    fig,
    name="fig-attention-offsets",
    caption="Mean weight by distance, over all held-out text. All four heads "
    "look mostly one character back; they do not divide the past among "
    f"themselves. The brightest cell is {average.max():.2f}.",
    alt="A heat map of four heads by distance from zero to eleven characters "
    "back. All four rows are alike: brightest one character back, then the "
    "character itself, then two back, and nearly dark beyond four.",
)
check("every head is brightest one back", bool((average.argmax(-1) == 1).all()))


def last_row(model):
    """Weights of each window's last query, which sees every key: (B, h, n)."""
    with torch.no_grad():
        return model.attention_weights(validation_input)[:, :, -1].double()


def spread_of_scores(model):
    """Standard deviation of one query's scores, averaged over queries."""
    logs = last_row(
        model
    ).log()  # log p is the score, up to a constant of the row
    return logs.std(-1).mean().item()


def entropy_share(model):
    """Median entropy of one query's weights, as a share of log n."""
    return torch.special.entr(last_row(model)).sum(
        -1
    ).median().item() / math.log(length)


torch.manual_seed(0)
untrained = AttentionOnly(len(vocabulary), 64, 1, length).to(device)
single = {
    "untrained": untrained,
    "trained": models["one head"],
    "unscaled": models["one head, unscaled"],
}
for name, one_head in single.items():
    glue(f"attention-{name}-entropy-share", entropy_share(one_head))
spread_before, spread_after = map(
    spread_of_scores, (untrained, models["one head"])
)
glue("attention-untrained-std", spread_before)
glue("attention-trained-std", spread_after)
check("training spreads the scores", spread_after > 2 * spread_before)
check(
    "the unscaled head saturated",
    entropy_share(models["one head, unscaled"]) < 0.05,
)
glue("attention-recent-share", average[:, :4].sum(1).mean())

# %% [markdown]
# On average a head spends {glue:text}`attention-recent-share:.0%` of its weight on the character
# itself and the three before it. With one layer and characters for tokens, that is where the
# information is. Remember the hypotheses of step 1. They describe noise of variance one, not this
# model: at its start, the scores that one query of the single head gives to its keys have a
# standard deviation of only {glue:text}`attention-untrained-std:.2f`, because PyTorch's default
# initialisation makes small projections. After training it is
# {glue:text}`attention-trained-std:.1f`. Training spread them, to look more sharply. The median
# query's entropy, as a share of the largest possible, went from
# {glue:text}`attention-untrained-entropy-share:.2f` to
# {glue:text}`attention-trained-entropy-share:.2f`; in the head without $1/\sqrt{d_k}$ it ended at
# {glue:text}`attention-unscaled-entropy-share:.3f`.
#
# ### Does a missing square root kill the gradient?
#
# The usual sentence goes: without $1/\sqrt{d}$ the softmax saturates and the gradients vanish. We
# measure three things on random queries and {glue:text}`attention-saturation-keys:.0f` random
# keys that meet the hypotheses: the entropy of the weights, as a share of the largest possible,
# $\log n$; the norm of the softmax Jacobian {eq}`eq-attention-jacobian-norm`, its mean and its
# median; and the gradient that actually reaches the query, $\partial p/\partial q$, which
# contains the scale once more.

# %%
dimensions, n_keys, n_queries = [4, 16, 64, 256, 1024], 32, 2000
glue("attention-saturation-keys", n_keys)
measures = ["entropy", "norm", "median", "query gradient"]
measured = {(scaled, m): [] for scaled in (True, False) for m in measures}
for d in dimensions:
    K = torch.randn(n_keys, d, generator=dot_generator, dtype=double)
    Q = torch.randn(n_queries, d, generator=dot_generator, dtype=double)
    for scaled in (True, False):
        c = 1 / math.sqrt(d) if scaled else 1.0
        p = (c * Q @ K.T).softmax(-1)  # (queries, keys)
        entropy = torch.special.entr(p).sum(-1).mean() / math.log(n_keys)
        norms = jacobian_norm(p)
        # ∂p/∂q = c J K, and J K = p ∘ (K − p K): (keys, d) for each query
        reach = [c * (row[:, None] * (K - row @ K)).norm() for row in p[:300]]
        for name, value in zip(
            measures,
            [entropy, norms.mean(), norms.median(), torch.stack(reach).mean()],
            strict=True,
        ):
            measured[scaled, name].append(value.item())
at64 = dimensions.index(64)
for scaled, word in [(True, "scaled"), (False, "unscaled")]:
    for name in measures:
        glue(
            f"attention-{word}-{name.replace(' ', '-')}",
            measured[scaled, name][at64],
        )
glue("attention-unscaled-norm-1024", measured[False, "norm"][-1])
glue("attention-unscaled-median-1024", measured[False, "median"][-1])
scaled_norm, bare_norm = (
    measured[True, "norm"][at64],
    measured[False, "norm"][at64],
)
check(
    "at d = 64 the mean Jacobian norm barely falls",
    bare_norm > 0.7 * scaled_norm,
)
check("while the entropy collapses", measured[False, "entropy"][at64] < 0.25)
check(
    "at d = 1024 the median row is deaf", measured[False, "median"][-1] < 0.01
)
check(
    "and the gradient at the query even grows",
    measured[False, "query gradient"][at64]
    > measured[True, "query gradient"][at64],
)

# %% tags=["hide-input"]
fig, axes = plt.subplots(3, 1, figsize=(4.3, 7.2), sharex=True)
panels = {
    "entropy / log n": [("entropy", "o", "mean")],
    "‖softmax Jacobian‖": [("norm", "o", "mean"), ("median", "s", "median")],
    "‖∂p/∂q‖": [("query gradient", "o", "mean")],
}
for ax, (label, lines) in zip(axes, panels.items(), strict=True):
    for scaled, color, word in [
        (True, "query", "with 1/√d"),
        (False, "key", "without"),
    ]:
        for name, marker, kind in lines:
            ax.plot(
                dimensions,
                measured[scaled, name],
                marker + ("-" if kind == "mean" else ":"),
                color=COLORS[color],
                label=f"{word}, {kind}",
            )
    ax.set(xscale="log", ylabel=label, ylim=(0, None))
    ax.set_xticks(dimensions, [str(d) for d in dimensions])
    ax.minorticks_off()
axes[1].legend(fontsize=9)
axes[-1].set_xlabel("dimension d")
show_figure(
    fig,
    name="fig-attention-saturation",
    caption="What a missing $1/\\sqrt{d}$ does. The entropy collapses. The "
    "mean Jacobian norm falls slowly, its median fast: a few undecided rows "
    "carry the mean. The gradient at the query does not vanish.",
    alt="Three charts over dimension 4 to 1024. Without scaling the entropy "
    "falls to almost zero, the mean Jacobian norm falls slowly and its median "
    "quickly, and the query gradient stays above the scaled one.",
)

# %% [markdown]
# At $d = 64$ the mean Jacobian norm falls from {glue:text}`attention-scaled-norm:.3f` to
# {glue:text}`attention-unscaled-norm:.3f` only, and its median from
# {glue:text}`attention-scaled-median:.3f` to {glue:text}`attention-unscaled-median:.3f`. What
# collapses is the entropy: from {glue:text}`attention-scaled-entropy:.2f` of its maximum to
# {glue:text}`attention-unscaled-entropy:.2f`. Saturation proper comes later, and unevenly. At $d
# = 1024$ the mean norm is {glue:text}`attention-unscaled-norm-1024:.3f` and the median
# {glue:text}`attention-unscaled-median-1024:.4f`: by then half of all rows are all but deaf, and
# a few undecided ones carry the mean.
#
# The gradient at the query holds a surprise. Leaving out $1/\sqrt{d}$ also leaves it out of the
# derivative $\partial s/\partial q$. So at $d = 64$ the gradient at the query is *larger* without
# scaling, {glue:text}`attention-unscaled-query-gradient:.2f` against
# {glue:text}`attention-scaled-query-gradient:.2f` ({numref}`fig-attention-saturation`). “The
# gradients vanish” is therefore not what happens at that size. The accurate sentence is: without
# the square root, and if the hypotheses hold, attention starts out as an almost hard and
# arbitrary choice of one key. As $d$ grows, ever more rows stop reacting to their scores, while
# the gradients that do arrive are large.
#
# And where does training lead? The models above began with small scores, scaled or not, so none
# of them was saturated at the start. But a step of the optimiser moves unscaled scores
# $\sqrt{d_k}$ times as far. At the high learning rate the unscaled head overshot into saturation,
# as its final entropy of {glue:text}`attention-unscaled-entropy-share:.3f` shows, and there it
# stayed. So the paper's suspicion describes well where an unscaled head can *end*. As a
# description of its first gradients it is wrong.

# %% [markdown]
# ## Broken on purpose
#
# Nine mistakes from code and tutorials in circulation. Each box makes the mistake, shows its
# symptom as a number, and then runs a test on both versions: it must pass on the correct one and
# fail on the broken one. A test that cannot fail proves nothing.
#
# :::{admonition} Broken on purpose D08: attention made of linear layers only
# :class: broken
# Three `Linear` layers called query, key and value, and their sum for an output. The names are
# right and the shapes are right. But no token ever meets another.
# :::


# %%
class LinearsOnly(nn.Module):
    """Called attention, and is none."""

    def __init__(self, d):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))

    def forward(self, x):
        return self.query(x) + self.key(x) + self.value(x)


class SelfAttention(LinearsOnly):
    def forward(self, x):
        return scaled_dot_product_attention(
            self.query(x), self.key(x), self.value(x)
        )


def tokens_meet(layer):
    torch.manual_seed(0)
    x = torch.randn(1, 5, 8)
    moved = x.clone()
    moved[:, 0] += 1
    effect = (layer(moved) - layer(x))[:, 1:].abs().max().item()
    assert effect > 1e-4, (
        f"changing token 0 changes the other outputs by {effect:.3f}, want more"
    )
    return effect


torch.manual_seed(0)
glue("attention-d08", tokens_meet(SelfAttention(8)))
catches("D08", tokens_meet, broken=LinearsOnly(8), fixed=SelfAttention(8))

# %% [markdown]
# Moving one token changes the others by exactly nothing; with attention, by up to
# {glue:text}`attention-d08:.3f`. **Fix:** form the weights from products of queries and keys.
#
# :::{admonition} Broken on purpose D09: no scaling
# :class: broken
# `softmax(Q @ K.T) @ V`. Step 1 says what to expect: the scores' variance is $d$ rather than one.
# The test reads the scores back from the weights: up to a constant, they are the logarithms of
# the weights.
# :::


# %%
def unscaled(query, key, value):
    weights = (query @ key.transpose(-1, -2)).softmax(-1)
    return weights @ value, weights


def library(query, key, value):
    return scaled_dot_product_attention(query, key, value, return_weights=True)


def scores_have_unit_variance(attention):
    found = []
    for d in (16, 64, 256, 1024):
        g = torch.Generator().manual_seed(d)
        query, key = (
            torch.randn(512, n, d, generator=g, dtype=double) for n in (1, 16)
        )
        _, weights = attention(query, key, key)
        logs = weights.clamp_min(1e-300).log()
        found.append(
            (logs.var(-1).mean().item(), weights.amax(-1).mean().item())
        )
    line = ", ".join(f"{v:.1f}" for v, _ in found)
    assert all(0.8 < v < 1.2 for v, _ in found), (
        f"score variances {line}, want about 1"
    )
    return found


print("d                 16    64    256   1024")
for name, attention in [("unscaled", unscaled), ("library", library)]:
    try:
        found = scores_have_unit_variance(attention)
    except AssertionError as error:
        print(f"{name:10} {error}")
    else:
        print(f"{name:10} largest weight {[round(w, 2) for _, w in found]}")
catches("D09", scores_have_unit_variance, broken=unscaled, fixed=library)

# %% [markdown]
# **Fix:** divide by $\sqrt{d_k}$, where $d_k$ is the width of one *head*, not of the model.
#
# :::{admonition} Broken on purpose D10: dropout before the softmax
# :class: broken
# Dropout sets some *scores* to zero. But zero is an ordinary score, not “no weight”: $e^0 = 1$.
# It also multiplies masked scores, and $-\infty \cdot 0$ is not a number. Those who “repair” that
# with a mask of $-10^9$ let the future in wherever its score was dropped.
# :::


# %%
def dropout_on_scores(fill):
    def attention(query, key, value, mask, dropout):
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        scores = F.dropout(scores.masked_fill(~mask, fill), dropout)
        weights = scores.softmax(-1)
        return weights @ value, weights

    return attention


def dropout_on_weights(query, key, value, mask, dropout):
    return scaled_dot_product_attention(
        query, key, value, mask, dropout=dropout, return_weights=True
    )


def dropout_respects_the_mask(attention):
    torch.manual_seed(0)
    x, mask = torch.randn(200, 16, 8), causal_mask(16)
    _, weights = attention(x, x, x, mask, 0.1)
    lost = weights.isnan().any(-1).float().mean().item()
    future = weights.nan_to_num(0)[:, ~mask].sum().item() / (200 * 16)
    assert lost == 0, f"{lost:.0%} of the rows are NaN"
    assert future == 0, (
        f"a row gives {future:.3f} of its weight to the future, want 0"
    )


def dropout_is_unbiased(attention):
    torch.manual_seed(0)
    query, key = (
        torch.tensor([[1.0]]),
        torch.tensor([[0.0], [-9.0]]),
    )  # the second key is unlikely
    plain = scaled_dot_product_attention(query, key, key, return_weights=True)[
        1
    ][0, 1].item()
    draws = 50_000
    mask = torch.ones(1, 2, dtype=torch.bool)
    many = (x.expand(draws, *x.shape) for x in (query, key, key))
    mean = attention(*many, mask, 0.1)[1][:, 0, 1].mean().item()
    ratio = mean / plain
    assert 0.95 < ratio < 1.05, (
        f"dropout multiplies an unlikely key's mean weight by {ratio:.0f}"
    )


for label, test, fill in [
    ("D10, mask −∞", dropout_respects_the_mask, -math.inf),
    ("D10, mask −1e9", dropout_respects_the_mask, -1e9),
    ("D10b", dropout_is_unbiased, -math.inf),
]:
    catches(
        label, test, broken=dropout_on_scores(fill), fixed=dropout_on_weights
    )

# %% [markdown]
# **Fix:** drop *weights*, after the softmax, and divide the survivors by $1 - \text{dropout}$, so
# that each weight keeps its mean.
#
# :::{admonition} Broken on purpose D14: no causal mask
# :class: broken
# A language model without the causal mask trains beautifully: it reads the answer from the next
# position. The surest test is data on which nothing can be learned. On independent uniform
# symbols no honest model can beat $\ln 8$ for eight symbols.
# :::


# %% tags=["nbval-ignore-output"]
class NextSymbol(nn.Module):
    """One attention layer over symbols and places; only the mask varies."""

    def __init__(self, mask, d=32):
        super().__init__()
        self.mask = mask
        self.embed, self.place = (
            nn.Embedding(8, d),
            nn.Parameter(torch.randn(12, d)),
        )
        self.maps, self.read = nn.Linear(d, 3 * d), nn.Linear(d, 8)

    def forward(self, ids):
        query, key, value = self.maps(self.embed(ids) + self.place).chunk(3, -1)
        return self.read(
            scaled_dot_product_attention(query, key, value, self.mask)
        )


def noise_loss(mask):
    torch.manual_seed(0)
    model = NextSymbol(mask)

    def batch_loss(step):
        noise = torch.randint(8, (64, 13))
        return F.cross_entropy(
            model(noise[:, :-1]).flatten(0, 1), noise[:, 1:].flatten()
        )

    losses = fit(model, batch_loss, steps=300, learning_rate=2e-2)
    return float(np.mean(losses[-20:]))


def cannot_predict_noise(mask):
    loss, floor = noise_loss(mask), math.log(8)
    assert loss > floor - 0.02, (
        f"loss {loss:.3f} on pure noise, below ln 8 = {floor:.3f}: a leak"
    )


catches("D14", cannot_predict_noise, broken=None, fixed=causal_mask(12))

# %% [markdown]
# **Fix:** the causal mask. And keep the noise test: it catches every leak, whatever its cause.
#
# :::{admonition} Broken on purpose D15: −∞ written on the embeddings
# :class: broken
# “Mask the padding by setting it to minus infinity” is right for scores. Done to the embeddings,
# the infinities meet zeros and each other in the next product, and everything is lost.
# :::

# %%
real = padding_mask(torch.tensor([5, 3]), 5).reshape(
    2, 5
)  # (B, n), True = a real token


def mask_on_embeddings(layer, x):
    return layer(x.masked_fill(~real[..., None], -math.inf))


def mask_on_scores(layer, x):
    query, key, value = layer.query(x), layer.key(x), layer.value(x)
    return scaled_dot_product_attention(query, key, value, real[:, None, :])


def output_is_finite(masked):
    torch.manual_seed(0)
    lost = (
        masked(SelfAttention(8), torch.randn(2, 5, 8))[1]
        .isnan()
        .float()
        .mean()
        .item()
    )
    assert lost == 0, f"{lost:.0%} of the padded sample's output is NaN"


catches(
    "D15", output_is_finite, broken=mask_on_embeddings, fixed=mask_on_scores
)

# %% [markdown]
# **Fix:** $-\infty$ belongs on the scores, between the product and the softmax.
#
# :::{admonition} Broken on purpose D22: the row that may attend to nothing
# :class: broken
# Padding plus a causal mask can forbid a whole row. Filled with $-10^9$, its scores are all
# *equal*, so the softmax spreads the weight evenly over exactly the keys that were forbidden.
# Filled with $-\infty$, the row is $0/0$. And in half precision $-10^9$ does not exist.
# :::


# %%
def filled_with(fill):
    def attention(query, key, value, mask):
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return scores.masked_fill(~mask, fill).softmax(-1) @ value

    return attention


def an_empty_row_is_zero(attention, dtype=torch.float32):
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(3, 2, 8).to(dtype),
        torch.randn(3, 4, 8).to(dtype),
        torch.ones(3, 4, 1),
    )
    query.requires_grad_()
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[1] = False
    output = attention(query, key, value.to(dtype), mask)
    output.float().nan_to_num(0).sum().backward()
    row = output[:, 1].abs().max().item()
    assert row == 0, (
        f"a row with no permitted key returns {row:.2f} of forbidden values, "
        "want 0"
    )
    assert not query.grad.isnan().any(), "its gradient is NaN"


def half_precision_works(attention):
    try:
        an_empty_row_is_zero(attention, torch.float16)
    except RuntimeError as error:
        raise AssertionError(f"in fp16: {error}") from error


catches(
    "D22, −1e9",
    an_empty_row_is_zero,
    broken=filled_with(-1e9),
    fixed=scaled_dot_product_attention,
)
catches(
    "D22, −∞",
    an_empty_row_is_zero,
    broken=filled_with(-math.inf),
    fixed=scaled_dot_product_attention,
)
catches(
    "D22, fp16",
    half_precision_works,
    broken=filled_with(-1e9),
    fixed=scaled_dot_product_attention,
)

# %% [markdown]
# **Fix:** decide what the row means. In this library it is zero on purpose, in value and gradient.
#
# :::{admonition} Broken on purpose D38: the mask upside down
# :class: broken
# `key_padding_mask` of `nn.MultiheadAttention` is `True` where a key must be *ignored*. The mask
# of `F.scaled_dot_product_attention`, and ours, is `True` where it may be *used*. Pass one for
# the other and the model attends to padding, and to padding only. No error is raised, and the
# loss even falls.
# :::


# %%
def upside_down(query, key, value, ignore):
    return scaled_dot_product_attention(
        query, key, value, ignore, return_weights=True
    )


def right_way_up(query, key, value, ignore):
    return scaled_dot_product_attention(
        query, key, value, ~ignore, return_weights=True
    )


def padding_gets_nothing(attention):
    torch.manual_seed(0)
    x, ignore = (
        torch.randn(1, 6, 8),
        torch.tensor([0, 0, 0, 0, 1, 1], dtype=torch.bool),
    )
    _, weights = attention(x, x, x, ignore[None, None, :])
    mass = weights[..., ignore].sum(-1).max().item()
    assert mass == 0, f"padding receives {mass:.2f} of the weight, want 0"


catches("D38", padding_gets_nothing, broken=upside_down, fixed=right_way_up)

# %% [markdown]
# **Fix:** one polarity in one code base, and a test that names it.
#
# :::{admonition} Broken on purpose D40: a leak test that passes for the wrong reason
# :class: broken
# Here the *test* is broken. `nn.MultiheadAttention` reads its input as (time, batch, feature)
# unless told otherwise. Give it (batch, time, feature) and it attends *across the samples of the
# batch*. The usual leak test changes the last token and sees no earlier output move. It passes,
# since time steps no longer meet at all.
# :::


# %%
def layer_with(batch_first):
    torch.manual_seed(0)
    return nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()


def run_causal(layer, x):
    n = x.shape[1] if layer.batch_first else x.shape[0]
    with torch.no_grad():
        return layer(x, x, x, attn_mask=~causal_mask(n), need_weights=False)[0]


def leaks(layer):
    """What a change in sample 0 moves: its past, other samples, its future."""
    x = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1))
    moved = x.clone()
    moved[0, -1] += 1
    change = (
        (run_causal(layer, moved) - run_causal(layer, x)).abs().amax(-1)
    )  # (B, n)
    earlier = x.clone()
    earlier[0, 0] += 1
    forward = (run_causal(layer, earlier) - run_causal(layer, x)).abs().amax(-1)
    return (
        change[0, :-1].max().item(),
        change[1:].max().item(),
        forward[0, 1:].max().item(),
    )


def usual_leak_test(layer):
    past, _, _ = leaks(layer)
    assert past < 1e-6, f"the past moves by {past:.3f}"


def whole_leak_test(layer):
    past, other_samples, later = leaks(layer)
    assert past < 1e-6, f"the past moves by {past:.3f}"
    assert other_samples < 1e-6, (
        f"another sample moves by {other_samples:.3f}: the batch leaks"
    )
    assert later > 1e-4, (
        f"a later output moves by {later:.1e}, want more: nothing is connected"
    )


usual_leak_test(layer_with(batch_first=False))  # passes, and should not
print(
    "past, other samples, later:",
    [round(x, 3) for x in leaks(layer_with(False))],
)
catches(
    "D40", whole_leak_test, broken=layer_with(False), fixed=layer_with(True)
)

# %% [markdown]
# **Fix:** a causality test needs two partners: *batch isolation*, and a *positive control* which
# shows that what should move does move.
#
# :::{admonition} Broken on purpose D41: rows that should sum to one, and don't
# :class: broken
# “The weights of each row sum to one” is true of the softmax. After dropout it holds in the mean
# only. A test that asserts it in training mode fails for no fault of the code; one that was
# loosened until it passed can no longer fail at all.
# :::


# %%
def weights_with(dropout):
    torch.manual_seed(0)
    x = torch.randn(64, 16, 8, dtype=double)
    return scaled_dot_product_attention(
        x, x, x, dropout=dropout, return_weights=True
    )[1]


def rows_sum_to_one(dropout):
    sums = weights_with(dropout).sum(-1)
    low, high = sums.min().item(), sums.max().item()
    assert high - low < 1e-12, f"row sums lie between {low:.2f} and {high:.2f}"


catches("D41", rows_sum_to_one, broken=0.1, fixed=0.0)
sums = weights_with(0.1).sum(-1)
standard_error = (sums.std() / math.sqrt(sums.numel())).item()
check(
    "with dropout, they do in the mean",
    sums.mean(),
    1.0,
    atol=5 * standard_error,
)

# %% [markdown]
# **Fix:** assert exact sums in evaluation mode; in training mode, assert the mean within five
# standard errors.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails, not just that something does. The checkers try your function on inputs
# that you don't see.
#
# ```{exercise-start} A softmax that cannot overflow
# :label: ex-attention-softmax
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `softmax(scores)` along the last dimension, for tensors of any number of dimensions, in
# terms of `exp`, `sum` and `amax` only. It must work for scores in the thousands.
#
# ```{dropdown} Hint
# {eq}`eq-attention-shift` lets you subtract any number from a row. Which one makes the largest
# exponent zero?
# ```


# %% tags=["exercise-stub"]
def softmax(scores):
    raise NotImplementedError


grade("ex-attention-softmax", softmax)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention-softmax
# :class: dropdown
# ```


# %% tags=["solution"]
def softmax(scores):
    exponentials = torch.exp(scores - scores.amax(-1, keepdim=True))
    return exponentials / exponentials.sum(-1, keepdim=True)


grade("ex-attention-softmax", softmax)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Through the softmax without its Jacobian
# :label: ex-attention-jacobian
# ```
# *Difficulty ●●○ · 10 minutes*
#
# For a row of $n$ scores the Jacobian has $n^2$ entries. A backward pass never builds it. Write
# `softmax_backward(p, dp)`: from the weights `p` and the gradients `dp` that arrive at them, both
# (…, n), the gradients at the scores, in a handful of operations on tensors of that same shape.
#
# ```{dropdown} Hint
# Multiply {eq}`eq-attention-jacobian` by a vector, and don't carry out the outer product: what is
# $p\,(p^\top u)$?
# ```


# %% tags=["exercise-stub"]
def softmax_backward(p, dp):
    raise NotImplementedError


grade("ex-attention-jacobian", softmax_backward)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention-jacobian
# :class: dropdown
# ```


# %% tags=["solution"]
def softmax_backward(p, dp):
    return p * (dp - (p * dp).sum(-1, keepdim=True))


grade("ex-attention-jacobian", softmax_backward)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The mask of the last few
# :label: ex-attention-causal
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `may_attend(n_q, n_k)`: the boolean causal mask, (n_q, n_k), for the *last* `n_q` of `n_k`
# positions, as cached decoding needs it. `True` means “may attend”.
#
# ```{dropdown} Hint
# Query $i$ stands at position $i + n_k - n_q$ of the sequence. Which keys are not later than that?
# ```


# %% tags=["exercise-stub"]
def may_attend(n_q, n_k):
    raise NotImplementedError


grade("ex-attention-causal", may_attend)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention-causal
# :class: dropdown
# ```


# %% tags=["solution"]
def may_attend(n_q, n_k):
    position = torch.arange(n_q)[:, None] + (n_k - n_q)
    return torch.arange(n_k)[None, :] <= position


grade("ex-attention-causal", may_attend)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The right divisor
# :label: ex-attention-divisor
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Suppose that the components of the query have mean zero and standard deviation `sigma_q`, those
# of the key mean `mu_k` and standard deviation `sigma_k`, all independent. Write `divisor(d,
# sigma_q, sigma_k, mu_k)`: the number by which to divide $q \cdot k$ so that its variance is one.
#
# ```{dropdown} Hint
# Follow the derivation of {eq}`eq-attention-variance`. Which of its factors change? What is
# $\mathbb{E}[k_i^2]$ when the mean is not zero?
# ```


# %% tags=["exercise-stub"]
def divisor(d, sigma_q, sigma_k, mu_k):
    raise NotImplementedError


grade("ex-attention-divisor", divisor)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention-divisor
# :class: dropdown
# ```
#
# The mean of $q_i k_i$ is still zero, since that of $q_i$ is. Its square has the mean
# $\sigma_q^2\, \mathbb{E}[k_i^2] = \sigma_q^2 (\sigma_k^2 + \mu_k^2)$, and there are $d$ of them.


# %% tags=["solution"]
def divisor(d, sigma_q, sigma_k, mu_k):
    return sigma_q * math.sqrt(d * (sigma_k**2 + mu_k**2))


grade("ex-attention-divisor", divisor)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The whole backward pass
# :label: ex-attention-backward
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `attention_backward(Q, K, V, dO)` for one head without a mask. Return `(dQ, dK, dV)`.
# Don't use autograd; the checker compares you with it.
#
# ```{dropdown} Hint
# Go back through {eq}`eq-attention-dv` to {eq}`eq-attention-dk`, in that order. You need $P$, so
# compute the forward pass first. Then look at the shapes.
# ```


# %% tags=["exercise-stub"]
def attention_backward(Q, K, V, dO):
    raise NotImplementedError


grade("ex-attention-backward", attention_backward)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention-backward
# :class: dropdown
# ```


# %% tags=["solution"]
def attention_backward(Q, K, V, dO):
    scale = 1 / math.sqrt(Q.shape[-1])
    P = (scale * Q @ K.T).softmax(-1)
    dV = P.T @ dO
    dP = dO @ V.T
    D = (dO * (P @ V)).sum(-1, keepdim=True)
    dS = P * (dP - D)
    return scale * dS @ K, scale * dS.T @ Q, dV


grade("ex-attention-backward", attention_backward)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Two halves of a row
# :label: ex-attention-merge
# ```
# *Difficulty ●●● · 20 minutes*
#
# Two machines share one query. Each has read its own half of the keys and holds $(m, \ell, a)$ as
# in {eq}`def-attention-online`. Write `merge(left, right)`: the triple for all keys together. It
# must also work if one side has read nothing yet ($m = -\infty$), and if both have not.
#
# ```{dropdown} Hint
# {eq}`eq-attention-online-step` rescales a sum from one maximum to another. Now both sides need
# it. And $-\infty - (-\infty)$ is not a number: what should the factor be if a side has read
# nothing?
# ```


# %% tags=["exercise-stub"]
def merge(left, right):
    raise NotImplementedError


grade("ex-attention-merge", merge)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention-merge
# :class: dropdown
# ```


# %% tags=["solution"]
def merge(left, right):
    (m1, total1, acc1), (m2, total2, acc2) = left, right
    m = torch.maximum(m1, m2)
    safe = torch.where(
        m == -math.inf, torch.zeros_like(m), m
    )  # nothing read: e^(−∞ − 0) = 0
    c1, c2 = torch.exp(m1 - safe), torch.exp(m2 - safe)
    return m, c1 * total1 + c2 * total2, c1 * acc1 + c2 * acc2


grade("ex-attention-merge", merge)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - Attention is a soft dictionary lookup: compare a query with all keys, turn the scores into
#   weights, average the values {eq}`def-attention-formula`.
# - A dot product of $d$ independent standard products has variance $d$
#   {eq}`eq-attention-variance`; the factor $1/\sqrt{d_k}$ brings it back to one. That describes
#   noise, under three hypotheses, each of which can fail.
# - Without the factor it is the entropy that collapses. The mean gradient through the softmax
#   falls only slowly with $d$, and the gradient at the query does not vanish at first. In training,
#   an unscaled head can be driven into saturation by steps that a scaled head takes well.
# - The backward pass is six lines. The one to remember is $D = \operatorname{rowsum}(\mathrm{d}O
#   \circ O)$ {eq}`eq-attention-d`: it needs no matrix of weights.
# - Attention is blind to order {eq}`eq-attention-equivariance`, and never leaves the range of its
#   values {eq}`eq-attention-hull`.
# - A mask acts before the softmax, as $-\infty$ on the scores {eq}`eq-attention-mask`. A row that
#   may attend to nothing is a decision; ours is zero.
# - The keys can be read one at a time {eq}`eq-attention-online-sum`. That makes the memory linear
#   in $n$, and leaves the work quadratic.
# - On real text one layer gains from context, and gains most from choosing where to look. It does
#   not beat a table of counted triples.
#
# ## Sources
#
# - {cite:t}`vaswani2017`, §3.2 and §3.2.1 with footnote 4: the formula, the factor, and the
#   suspicion about gradients.
# - {cite:t}`bahdanau2015`, §3.1: attention as a learned alignment, with an additive score.
#   {cite:t}`luong2015`, §3.1: the dot product as a score, without a factor.
# - {cite:t}`nadaraya1964,watson1964`: the kernel smoother. {cite:t}`tsai2019`: attention read as
#   one.
# - {cite:t}`milakov2018`, §3: the online normaliser. {cite:t}`rabe2021`, §2: attention with it,
#   in constant memory a query. {cite:t}`dao2022`, §3.1 and Appendix B: tiles, and the backward
#   pass with $D = \operatorname{rowsum}(\mathrm{d}O \circ O)$.
# - {cite:t}`elhage2021`: attention-only models of one layer.
