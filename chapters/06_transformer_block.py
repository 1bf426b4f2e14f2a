# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       Attention and the feed-forward layer do the work. Around them stand a sum, a normalisation
#       and some dropout, and without these a deep Transformer does not train. Why are there
#       residuals and layer norms, and in which order?
#     goals:
#       - derive LayerNorm's Jacobian, its null space, and why a long vector gets a small gradient
#       - say what RMSNorm leaves out, and why the norm is not taken over the batch
#       - count a block's parameters, and read the feed-forward layer as a memory
#       - expand a residual stack into paths, and predict how its variance grows with depth
#       - explain, with numbers, why deep post-norm stacks are hard to start, and what warm-up does
#     prerequisites:
#       - multi-head attention (chapter 3) and activations (chapter 5)
#       - the chain rule for vectors, projections
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
# # The Transformer block

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "attention.py").exists()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import itertools
import math
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.data import (
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.layers import DecoderLayer, EncoderLayer, FeedForward, LayerNorm, RMSNorm
from lib.teaching import (
    CurveExplorer,
    Progress,
    catches,
    check,
    glue,
    grade,
    new_figure,
    show_figure,
    start,
)
from lib.teaching.diagrams import residual_block
from lib.teaching.figures import COLORS
from lib.teaching.recorded import recorded
from lib.training import evaluate, fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# A block has two sublayers. Attention lets tokens look at each other; the feed-forward layer lets
# each token think by itself. Call either of them $F$. A block never replaces a token $x$ by
# $F(x)$. It *adds* $F(x)$ to $x$, and somewhere it normalises. There are two places for that. The
# original Transformer normalises after the sum, *post-norm*:
#
# $$
# \begin{aligned}
# x &\leftarrow \operatorname{LN}\big(x + \operatorname{Attention}(x)\big), \\
# x &\leftarrow \operatorname{LN}\big(x + \operatorname{FFN}(x)\big) .
# \end{aligned}
# $$ (def-transformer-block-post)
#
# Most later models normalise what goes *into* a sublayer, *pre-norm*, and leave the sum alone:
#
# $$
# \begin{aligned}
# x &\leftarrow x + \operatorname{Attention}\big(\operatorname{LN}(x)\big), \\
# x &\leftarrow x + \operatorname{FFN}\big(\operatorname{LN}(x)\big) .
# \end{aligned}
# $$ (def-transformer-block-pre)
#
# A stack of pre-norm blocks needs one more norm at its end. Layer normalisation works on one token
# at a time:
#
# $$
# \begin{aligned}
# \operatorname{LN}(x) &= \gamma \circ \hat{x} + \beta, &
# \hat{x} &= \frac{x - \mu \mathbf{1}}{s}, \\
# \mu &= \frac{1}{d} \sum_{i=1}^{d} x_i, &
# s &= \sqrt{\frac{1}{d} \sum_{i=1}^{d} (x_i - \mu)^2 + \varepsilon} .
# \end{aligned}
# $$ (def-transformer-block-layer-norm)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $x$ | $d$ | one token; $d$ stands for $d_{\text{model}}$, a sequence is $n \times d$ |
# | $\mu$, $s$ | numbers | mean and standard deviation over the token's *features* |
# | $\hat{x}$ | $d$ | the normalised token: mean 0, variance 1 |
# | $\gamma$, $\beta$ | $d$ | trained scale and shift; they begin at 1 and 0 |
# | $\varepsilon$ | a number | keeps the division from failing; $10^{-5}$ or less |
# | $\mathbf{1}$ | $d$ | the vector of ones |
#
# {numref}`fig-transformer-block-two` shows both blocks. Follow the line from $x$ upwards. In
# pre-norm nothing but sums stands on it. In post-norm it goes through every LN.

# %% tags=["hide-input"]
fig, axes = new_figure(1, 2, size=(5.1, 3.9))
for ax, norm in zip(axes, ("post", "pre"), strict=True):
    residual_block(ax, ["Attention", "FFN"], norm=norm)
    ax.set_title(f"{norm}-norm")
show_figure(
    fig,
    name="fig-transformer-block-two",
    caption="The two blocks, read from bottom to top. Left: the norm stands on "
    "the residual stream, after each sum. Right: it stands in the branch, "
    "before the sublayer, and the stream runs free.",
    alt="Two diagrams of a stream with two branches. On the left, post-norm, a "
    "box LN interrupts the stream after each plus. On the right, pre-norm, LN "
    "is the first box of each branch.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# “That is, the output of each sub-layer is $\mathrm{LayerNorm}(x + \mathrm{Sublayer}(x))$, where
# $\mathrm{Sublayer}(x)$ is the function implemented by the sub-layer itself.”
# {cite:t}`vaswani2017` (§3.1)
# :::
#
# :::{admonition} Our remark
# :class: remark
# So the paper is post-norm. Pre-norm came from several sides: {cite:t}`wang2019` used it to train
# translation models with encoders of up to 30 layers, and {cite:t}`xiong2020` gave a reason. The
# sum itself is older than both; {cite:t}`he2016` introduced it for images.
# :::

# %% [markdown]
# ## Derivation
#
# Ten steps: the norm (1 to 3), the feed-forward layer (4), the sum (5), what depth does to the
# forward pass (6 and 7) and to the gradient (8), warm-up (9), and dropout (10).
#
# ### Step 1. LayerNorm is a projection and a length
#
# Take $\gamma = 1$, $\beta = 0$, and $\varepsilon = 0$ for now. Subtracting the mean is a matrix.
# The mean of $x$ is $\mathbf{1}^\top x / d$, so
#
# $$
# \begin{gathered}
# x - \mu\mathbf{1} = P x, \qquad P = I - \frac{\mathbf{1}\mathbf{1}^\top}{d}, \\
# P^2 = P = P^\top .
# \end{gathered}
# $$ (eq-transformer-block-projection)
#
# $P^2 = P$ because $\mathbf{1}^\top\mathbf{1} = d$: subtract the mean twice, and the second time it
# is zero. $P$ projects onto the plane of all vectors of mean zero. The standard deviation is a
# length, $s^2 = \lVert Px \rVert^2/d$. Divide, and
#
# $$
# \hat{x} = \sqrt{d}\, \frac{P x}{\lVert P x \rVert}, \qquad
# \mathbf{1}^\top \hat{x} = 0, \qquad \lVert \hat{x} \rVert^2 = d .
# $$ (eq-transformer-block-sphere)
#
# LayerNorm throws a token onto a plane, and then onto a sphere of radius $\sqrt{d}$ in it. Of $d$
# numbers, $d - 2$ are left: one is lost to the mean, one to the length. So neither matters to the
# result. For every $a > 0$ and every $b$,
#
# $$
# \widehat{a x + b \mathbf{1}} = \hat{x} ,
# $$ (eq-transformer-block-invariance)
#
# since $P\mathbf{1} = 0$ and $aPx/\lVert aPx \rVert = Px/\lVert Px \rVert$. For $a < 0$ the sign
# turns. {numref}`fig-transformer-block-sphere` shows it for $d = 3$, where the plane is a sheet and
# the sphere a circle.

# %%
generator = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


def band(ax, x, runs, style, color, **options):
    """The mean over runs, a row each, and their range."""
    color = COLORS[color]
    ax.plot(x, runs.mean(0), style, color=color, **options)
    low, high = runs.min(0), runs.max(0)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


d = 7
x = 3 * randn(5, d) + 2  # five tokens
norm = LayerNorm(d, eps=0.0).double()
P = torch.eye(d, dtype=double) - torch.ones(d, d, dtype=double) / d
check("eq-transformer-block-projection", x @ P, x - x.mean(-1, keepdim=True))
check("eq-transformer-block-projection", P @ P, P)
centred = x @ P
length = centred.norm(dim=-1, keepdim=True)
check("eq-transformer-block-sphere", norm(x), d**0.5 * centred / length)
check("eq-transformer-block-sphere", norm(x).sum(-1), 0.0)
check("eq-transformer-block-sphere", norm(x).square().sum(-1), float(d))
check("eq-transformer-block-invariance", norm(5 * x - 3), norm(x))
check("a negative factor turns the sign", norm(-x), -norm(x))

# %% tags=["hide-input"]
cloud = randn(50, 3) * torch.tensor([0.8, 1.3, 0.6]) + 0.8
flat = cloud - cloud.mean(-1, keepdim=True)
onto = LayerNorm(3, eps=0.0).double()(cloud).detach()
side = torch.tensor([1.0, -1.0, 0.0]).double() / math.sqrt(2)
other = torch.tensor([1.0, 1.0, -2.0]).double() / math.sqrt(6)
up = torch.ones(3, dtype=double) / math.sqrt(3)
fig, axes = new_figure(1, 2, size=(5.1, 3.1), width_ratios=[1, 1.5])
thin = {"linestyle": "-", "linewidth": 0.6, "color": COLORS["reference"]}
axes[0].plot(cloud @ side, cloud @ up, "o", color=COLORS["query"])
for a, b in zip(cloud, flat, strict=True):
    axes[0].plot([a @ side, b @ side], [a @ up, b @ up], **thin)
axes[0].plot(flat @ side, flat @ up, ".", color=COLORS["key"])
axes[0].set(
    title="from the side", xlabel="in the plane", ylabel=r"along $\mathbf{1}$"
)
axes[1].plot(flat @ side, flat @ other, ".", color=COLORS["key"])
for a, b in zip(flat, onto, strict=True):
    axes[1].plot([a @ side, b @ side], [a @ other, b @ other], **thin)
axes[1].plot(onto @ side, onto @ other, "^", color=COLORS["value"])
axes[1].set(title="from above", xlabel="in the plane", aspect="equal")
show_figure(
    fig,
    name="fig-transformer-block-sphere",
    caption="LayerNorm of 50 tokens with three features. Left: each token (blue "
    "dot) drops onto the plane of mean zero. Right: within the plane each is "
    r"moved to a circle of radius $\sqrt{3}$ (triangles).",
    alt="Left, scattered dots are joined by vertical lines to points on a "
    "horizontal line, the plane seen from its edge. Right, points of the plane "
    "are joined by radial lines to triangles on one circle.",
)

# %% [markdown]
# **What ε does.** With $\varepsilon > 0$ the division is by $\sqrt{\sigma^2 + \varepsilon}$, where
# $\sigma^2 = \lVert Px \rVert^2/d$ is the true variance. So the result is a little shorter,
#
# $$
# \hat{x}_\varepsilon = \sqrt{\frac{\sigma^2}{\sigma^2 + \varepsilon}}\; \hat{x}_0 , \qquad
# \lVert \hat{x}_\varepsilon \rVert^2 = d\, \frac{\sigma^2}{\sigma^2 + \varepsilon} ,
# $$ (eq-transformer-block-eps)
#
# and $x \mapsto ax$ acts like $\varepsilon \mapsto \varepsilon/a^2$: the scale invariance holds for
# tokens that are large compared with $\sqrt{\varepsilon}$, and for small ones it fails. A token
# whose features are all equal has $\sigma = 0$; it becomes zero, where without $\varepsilon$ it
# would be $0/0$. So $\varepsilon$ is part of a model, and a checkpoint needs its own: BERT's is
# $10^{-12}$, GPT-2's and PyTorch's is $10^{-5}$.

# %%
eps = 1e-5
soft = LayerNorm(d, eps).double()
variance = x.var(-1, unbiased=False, keepdim=True)
factor = (variance / (variance + eps)).sqrt()
check("eq-transformer-block-eps", soft(x), factor * norm(x))
scale = 1e-2
shifted = LayerNorm(d, eps / scale**2).double()
check("a smaller token is a larger ε", soft(scale * x), shifted(x))
print("standard deviation of a token, and what ε = 1e-5 takes from its length")
for sigma in (1.0, 0.1, 0.02, 0.003):
    kept = math.sqrt(sigma**2 / (sigma**2 + eps))
    print(f"{sigma:8.3f}{1 - kept:12.2%}")
    if sigma == 0.02:
        glue("tblock-eps-small", 100 * (1 - kept))
        glue("tblock-eps-sigma", sigma)
alike = torch.full((1, d), 7.0, dtype=double)
check("features all alike become zero", soft(alike), 0.0, atol=0)
check("and NaN without ε", bool(norm(alike).isnan().all()))

# %% [markdown]
# Embeddings that begin with a standard deviation of {glue:text}`tblock-eps-sigma:.2f`, as BERT's
# do, would lose {glue:text}`tblock-eps-small:.1f` % of their length to the larger of the two.
#
# ### Step 2. The Jacobian
#
# How does $\hat{x}_i$ answer to $x_j$? Numerator first. In $x_i - \mu$ the number $x_j$ occurs in
# $x_i$ if $i = j$, and in the mean with weight $1/d$:
#
# $$
# \frac{\partial (x_i - \mu)}{\partial x_j} = \delta_{ij} - \frac{1}{d} .
# $$ (eq-transformer-block-numerator)
#
# Then the denominator. $s^2 = \tfrac1d \sum_k (x_k - \mu)^2 + \varepsilon$; differentiate both sides,
#
# $$
# 2 s \frac{\partial s}{\partial x_j}
# = \frac{2}{d} \sum_k (x_k - \mu)\Big(\delta_{kj} - \frac1d\Big) = \frac{2}{d} (x_j - \mu) ,
# $$
#
# because $\sum_k (x_k - \mu) = 0$. Divide by $2s$, and recognise $\hat{x}_j$:
#
# $$
# \frac{\partial s}{\partial x_j} = \frac{\hat{x}_j}{d} .
# $$ (eq-transformer-block-denominator)
#
# The quotient rule puts the two together,
#
# $$
# \begin{aligned}
# \frac{\partial \hat{x}_i}{\partial x_j}
# &= \frac{1}{s} \frac{\partial (x_i - \mu)}{\partial x_j} - \frac{x_i - \mu}{s^2}
# \frac{\partial s}{\partial x_j} \\
# &= \frac{1}{s} \Big( \delta_{ij} - \frac1d - \frac{\hat{x}_i \hat{x}_j}{d} \Big) ,
# \end{aligned}
# $$
#
# and as a matrix
#
# $$
# J = \frac{1}{s} \Big( I - \frac{\mathbf{1}\mathbf{1}^\top}{d}
# - \frac{\hat{x}\hat{x}^\top}{d} \Big) .
# $$ (eq-transformer-block-jacobian)
#
# With $\gamma$ and $\beta$ the Jacobian is $\operatorname{diag}(\gamma)\, J$. No step used
# $\varepsilon = 0$, so $J$ holds for every $\varepsilon$, with $s$ and $\hat{x}$ as in
# {eq}`def-transformer-block-layer-norm`.
#
# Now read it. For $\varepsilon = 0$ the vectors $\mathbf{1}/\sqrt{d}$ and $\hat{x}/\sqrt{d}$ have
# length one and are orthogonal {eq}`eq-transformer-block-sphere`. So the bracket takes away two
# directions and keeps the rest as it is:
#
# $$
# \begin{gathered}
# J\mathbf{1} = 0, \qquad J\hat{x} = 0, \\
# J v = \frac{v}{s} \;\text{ if } v \perp \mathbf{1}, \hat{x}, \qquad
# \operatorname{rank} J = d - 2 .
# \end{gathered}
# $$ (eq-transformer-block-null-space)
#
# These are the two directions of {eq}`eq-transformer-block-invariance`: nothing comes out if they
# change, so no gradient comes back along them. If $g$ is the gradient that arrives at $\hat{x}$,
# the one that leaves is $J^\top g = Jg$, and
#
# $$
# \mathbf{1}^\top J g = 0, \qquad x^\top J g = 0, \qquad
# \lVert J g \rVert \le \frac{\lVert g \rVert}{s} .
# $$ (eq-transformer-block-backward)
#
# The last one will carry the whole second half of this chapter. Make a token ten times as long:
# what comes out of LayerNorm is the same, and the gradient that goes back is ten times *smaller*.
# **A norm divides the gradient by the size of what it normalises.**


# %%
def jacobian(function, x):
    return torch.autograd.functional.jacobian(function, x)


token = 3 * randn(d) + 2
for eps in (0.0, 1e-5, 0.5):
    layer = LayerNorm(d, eps).double()
    middle, s = token - token.mean(), (token.var(unbiased=False) + eps).sqrt()
    hat = middle / s
    ones = torch.ones(d, dtype=double)
    J = (
        torch.eye(d) - torch.outer(ones, ones) / d - torch.outer(hat, hat) / d
    ) / s
    check("eq-transformer-block-jacobian", J, jacobian(layer, token), atol=1e-14)

check(
    "eq-transformer-block-numerator",
    jacobian(lambda x: x - x.mean(), token),
    P,
    atol=1e-15,
)


def deviation(x):
    return (x.var(unbiased=False) + eps).sqrt()


check(
    "eq-transformer-block-denominator",
    jacobian(deviation, token),
    hat / d,
    atol=1e-15,
)
s = token.std(unbiased=False)
hat = (token - token.mean()) / s
J = jacobian(norm, token)
print("singular values of J, times s:")
print((torch.linalg.svdvals(J) * s).round(decimals=12).abs().tolist())
check("eq-transformer-block-null-space", J @ ones, 0.0)
check("eq-transformer-block-null-space", J @ hat, 0.0)
v = randn(d)
v = v - (v @ ones) * ones / d - (v @ hat) * hat / d
check("eq-transformer-block-null-space", J @ v, v / s)
check("the rank is d − 2", int(torch.linalg.matrix_rank(J)) == d - 2)
g = randn(d)
check("eq-transformer-block-backward", [ones @ J @ g, token @ J @ g], 0.0)
check("eq-transformer-block-backward", bool((J @ g).norm() <= g.norm() / s))
check(
    "ten times as long, a tenth of the gradient",
    jacobian(norm, 10 * token) * 10,
    J,
)
blurred = jacobian(LayerNorm(d, 0.5).double(), token)
glue("tblock-rank-eps", int(torch.linalg.matrix_rank(blurred)))
glue("tblock-rank-d", d)

# %% [markdown]
# **Without the hypothesis.** With $\varepsilon > 0$ the token $\hat{x}$ is shorter than $\sqrt{d}$,
# so $\hat{x}\hat{x}^\top/d$ no longer takes away all of its direction. For $d =$
# {glue:text}`tblock-rank-d:.0f` and a large $\varepsilon$ the rank is
# {glue:text}`tblock-rank-eps:.0f`, one more. Only the ones remain in the null space.
#
# ### Step 3. RMSNorm, and why not over the batch
#
# RMSNorm leaves the mean where it is, and divides by the root mean square:
#
# $$
# \operatorname{RMSNorm}(x) = \gamma \circ \frac{x}{r}, \qquad
# r = \sqrt{\frac{1}{d} \sum_{i=1}^d x_i^2 + \varepsilon} .
# $$ (def-transformer-block-rms-norm)
#
# Drop the mean from step 2, and with it every $\mathbf{1}$. From $2 r\, \partial r/\partial x_j =
# 2x_j/d$ comes $\partial r/\partial x_j = \bar{x}_j/d$ with $\bar{x} = x/r$, so
#
# $$
# \begin{gathered}
# J_{\text{RMS}} = \frac{1}{r} \Big( I - \frac{\bar{x}\bar{x}^\top}{d} \Big), \\
# \operatorname{rank} J_{\text{RMS}} = d - 1 \quad (\varepsilon = 0) .
# \end{gathered}
# $$ (eq-transformer-block-rms-jacobian)
#
# One projection in place of two. The scale invariance is kept, and with it the factor $1/r$ on the
# gradient; the shift invariance is gone. On tokens of mean zero the two norms are one and the same:
#
# $$
# \operatorname{RMSNorm}(Px) = \operatorname{LN}(x) \qquad (\gamma = 1,\ \beta = 0) .
# $$ (eq-transformer-block-rms-centred)
#
# Since the mean is one number out of $d$, little is lost: {cite:t}`zhang2019` argue that it is the
# scale invariance that matters, and find results on par at less cost. T5 has this norm.

# %%
rms = RMSNorm(d, eps=0.0).double()
r = token.square().mean().sqrt()
bar = token / r
wanted = (torch.eye(d) - torch.outer(bar, bar) / d) / r
J_rms = jacobian(rms, token)
check("eq-transformer-block-rms-jacobian", J_rms, wanted, atol=1e-14)
check(
    "eq-transformer-block-rms-jacobian",
    float(torch.linalg.matrix_rank(J_rms)),
    float(d - 1),
)
check("eq-transformer-block-rms-centred", rms(x @ P), norm(x))
check("scale is still forgotten", rms(5 * x), rms(x))
check("a shift is not", (rms(x + 3) - rms(x)).abs().max() > 0.1)

# %% [markdown]
# **Why not over the batch?** Batch normalisation takes mean and variance of each *feature* over all
# tokens of the batch. Then what a sentence becomes depends on the sentences beside it, padding
# counts, and a causal model sees the future through the mean. LayerNorm looks at one token and
# nothing else.

# %%
batch = randn(4, 6, d)  # four sequences of six tokens
moved = batch.clone()
moved[3] += 2 * randn(6, d)  # another sample changes
over_batch = nn.BatchNorm1d(d).double().train()
layer = LayerNorm(d).double()


def change(function):
    """How much sample 0 moves when sample 3 does."""
    return (function(moved) - function(batch))[0].abs().max().item()


by_batch = change(lambda x: over_batch(x.flatten(0, 1)).view_as(x))
by_layer = change(layer)
print(
    f"sample 0 moves by {by_batch:.3f} under BatchNorm, "
    f"by {by_layer} under LayerNorm"
)
check("LayerNorm: not at all", by_layer, 0.0, atol=0)
check("BatchNorm: visibly", by_batch > 0.05)

# %% [markdown]
# ### Step 4. The feed-forward layer: one token at a time, and most of the weights
#
# Chapter 5 is about the bend $\varphi$ in $\operatorname{FFN}(x) = \varphi(xW_1 + b_1)W_2 + b_2$.
# Here we look at what stands around it. The same $W_1$ and $W_2$ serve every position, and no token
# sees another. The paper {cite}`vaswani2017` (§3.3) puts it as two convolutions with kernel size
# one, and that is literally so:
#
# $$
# \operatorname{FFN}(X) = \operatorname{Conv}_{1}\big(\varphi(\operatorname{Conv}_{1}(X))\big) .
# $$ (eq-transformer-block-convolution)
#
# Now write column $m$ of $W_1$ as $k_m$ and row $m$ of $W_2$ as $v_m$. Multiply out:
#
# $$
# \operatorname{FFN}(x) = \sum_{m=1}^{d_\text{ff}} \varphi(x \cdot k_m + b_{1,m})\; v_m + b_2 .
# $$ (eq-transformer-block-memory)
#
# This has the form of attention to $d_\text{ff}$ keys and values that are not tokens but trained
# weights, with $\varphi$ in the place of the softmax. {cite:t}`geva2021` read trained models this
# way, as a memory: a key answers to a pattern in the text, its value raises the words that often
# come next.
#
# How large is that memory? Attention has four $d \times d$ matrices, the feed-forward layer two of
# $d \times d_\text{ff}$. With $d_\text{ff} = 4d$:
#
# $$
# \begin{aligned}
# \text{matrices:}\quad & \underbrace{4d^2}_{\text{attention}}
# {}+ \underbrace{8d^2}_{\text{feed-forward}} = 12 d^2 \\
# \text{vectors:}\quad & \underbrace{4d}_{\text{attention}} {}+ \underbrace{5d}_{\text{feed-forward}}
# {}+ \underbrace{4d}_{\text{two norms}} = 13 d .
# \end{aligned}
# $$ (eq-transformer-block-parameters)
#
# **Two thirds of a block's weights are in the feed-forward layer.**

# %%
ffn = FeedForward(d, 4 * d).double()
X = randn(2, 6, d)
w_1, b_1 = ffn.expand.weight, ffn.expand.bias  # (4d, d): nn.Linear's order
w_2, b_2 = ffn.contract.weight, ffn.contract.bias
hidden = F.gelu(F.conv1d(X.mT, w_1[..., None], b_1))
as_convolution = F.conv1d(hidden, w_2[..., None], b_2).mT
check("eq-transformer-block-convolution", as_convolution, ffn(X))

x = X[0, 0]
recalled = sum(F.gelu(x @ w_1[m] + b_1[m]) * w_2[:, m] for m in range(4 * d))
check("eq-transformer-block-memory", recalled + b_2, ffn(x))

for width in (64, 512, 768):
    with torch.device("meta"):  # shapes without memory
        block = EncoderLayer(width, 8, 4 * width)
    count = sum(p.numel() for p in block.parameters())
    matrices = sum(p.numel() for p in block.parameters() if p.ndim == 2)
    inside = sum(p.numel() for p in block.feed_forward.parameters())
    check(
        "eq-transformer-block-parameters",
        float(count),
        12.0 * width**2 + 13 * width,
    )
    check("eq-transformer-block-parameters", float(matrices), 12.0 * width**2)
    print(
        f"d = {width:3}: {count:9,} parameters, {inside / count:.1%} feed-forward"
    )

# %% [markdown]
# ### Step 5. The sum: a stack is a sum over paths
#
# Let $F$ be a sublayer with its norm inside (pre-norm), and $J_F$ its Jacobian. The sum adds the
# identity:
#
# $$
# y = x + F(x) \quad\Longrightarrow\quad \frac{\partial y}{\partial x} = I + J_F .
# $$ (eq-transformer-block-residual)
#
# The derivative of $L$ sublayers is the product of $L$ such brackets. Multiply out: from each
# bracket choose either $I$ or $J_l$. That makes one term for every subset $S$ of sublayers,
#
# $$
# (I + J_L) \cdots (I + J_2)(I + J_1) = \sum_{S \subseteq \{1, \dots, L\}} \; \prod_{l \in S} J_l ,
# $$ (eq-transformer-block-paths)
#
# with the factors of a product in falling order. There are $2^L$ paths, $\binom{L}{k}$ of them
# through exactly $k$ sublayers. The shortest one, $S = \emptyset$, is $I$: the gradient of the loss
# at the top arrives at the bottom *unchanged*, plus whatever the others add. Without the sum only
# the longest path is left, $J_L \cdots J_1$, and if every factor shrinks a little, their product
# shrinks exponentially. {cite:t}`veit2016` introduced this reading for image networks, and found
# that the gradient of theirs flows mostly through short paths.

# %%
torch.manual_seed(0)
tiny, tokens = 6, 3
x = randn(1, tokens, tiny)
sublayers = []
for _ in range(2):
    block = EncoderLayer(tiny, 2, 4 * tiny, norm="pre").double()
    sublayers += [
        lambda x, b=block: b.attention(b.attention_norm(x)),
        lambda x, b=block: b.feed_forward(b.feed_forward_norm(x)),
    ]


def matrix(function, x):
    """The Jacobian of a map of sequences, as one square matrix."""
    return jacobian(function, x).reshape(x.numel(), x.numel())


branches, here_ = [], x
for F_l in sublayers:
    J_l = matrix(F_l, here_)
    whole = matrix(lambda z, F_l=F_l: z + F_l(z), here_)
    check("eq-transformer-block-residual", whole, torch.eye(len(J_l)) + J_l)
    branches.append(J_l)
    here_ = (here_ + F_l(here_)).detach()


def stack(x):
    for F_l in sublayers:
        x = x + F_l(x)
    return x


total = torch.zeros(len(J_l), len(J_l), dtype=double)
by_length = {k: 0.0 for k in range(len(sublayers) + 1)}
for k in by_length:
    for chosen in itertools.combinations(range(len(sublayers)), k):
        path = torch.eye(len(J_l), dtype=double)
        for l in chosen:
            path = branches[l] @ path
        total = total + path
        by_length[k] += path.norm().item()
check("eq-transformer-block-paths", total, matrix(stack, x))
print("sublayers passed   paths   mean size of a path's matrix")
for k, size in by_length.items():
    paths = math.comb(len(sublayers), k)
    print(f"{k:16}{paths:8}{size / paths:12.3f}")

# %% [markdown]
# The sum also keeps tokens apart. {cite:t}`dong2021` prove that attention alone, stacked without
# sums and feed-forward layers, drives all tokens towards one and the same vector, doubly
# exponentially with depth. Step 7 shows how far the sum prevents that, and how the norm's place
# decides it.
#
# ### Step 6. Variance along the residual stream
#
# How large is a token after $l$ blocks, before any training? Let its features have variance $v$,
# and look at what a branch adds. The model is that of {cite:t}`xiong2020` (§3.3): Xavier's weights,
# $\operatorname{Var}(W) = 2/(n_\text{in} + n_\text{out})$, biases zero, ReLU, and query and key
# matrices zero, so that attention is a plain mean over tokens.
#
# *The feed-forward branch.* Its input has $d$ features of mean square one. Let $d_\text{ff} = rd$,
# so that every weight has variance $2/(d(1 + r))$. A hidden number is a sum of $d$ products, with
# variance $2/(1+r)$; ReLU cuts half of its mean square away; and the output sums $rd$ of these:
#
# $$
# c = r d \cdot \frac{2}{d(1+r)} \cdot \frac12 \cdot \frac{2}{1+r} = \frac{2r}{(1+r)^2} .
# $$ (eq-transformer-block-ffn-gain)
#
# That is $\tfrac12$ for $r = 1$, and $\tfrac{8}{25}$ for the usual $r = 4$.
#
# *The attention branch.* Value and output matrix are $d \times d$ and keep the mean square. But
# what they get is the mean token $m = \frac1n \sum_i \hat{x}_i$, and a mean is shorter than what it
# is a mean of. Write
#
# $$
# \bar\rho = \frac{\lVert m \rVert^2}{d} = \frac{1}{n^2} \sum_{i,j} \frac{\hat{x}_i \cdot \hat{x}_j}{d}
# \;\in [0, 1]
# $$ (def-transformer-block-similarity)
#
# for the mean cosine of all pairs of tokens, a token with itself included. It is near $1/n$ for
# tokens without anything in common, and 1 if all are equal. The branch adds variance $\bar\rho$.
#
# A branch's weights are independent of the stream, so variances add. In *pre-norm*, from $v_0 = 1$:
#
# $$
# \begin{gathered}
# v_{l} = v_{l-1} + \bar\rho_l + c \\
# \Longrightarrow\quad 1 + c\, l \;\le\; v_l \;\le\; 1 + (1 + c)\, l .
# \end{gathered}
# $$ (eq-transformer-block-pre-variance)
#
# **The pre-norm stream grows linearly with depth**, because every branch, whatever the stream has
# become, gets a normalised token and adds an equal share. For $r = 1$ this is the paper's lemma,
# between $1 + l/2$ and $1 + 3l/2$. In *post-norm* the stream is normalised after every sum:
#
# $$
# \begin{gathered}
# v_l = 1, \\
# \text{and before the last norm of a block}\quad 1 + c .
# \end{gathered}
# $$ (eq-transformer-block-post-variance)


# %%
def xavier_(model, branch=1.0, even=False):
    """Xavier's weights; branches times `branch`; `even`: queries are 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, EncoderLayer):
                module.attention.output_projection.weight.mul_(branch)
                module.feed_forward.contract.weight.mul_(branch)
                if even:
                    module.attention.query_projection.weight.zero_()
    return model


def blocks(norm, depth, d=64, r=4, seed=0, **options):
    torch.manual_seed(seed)
    layers = [
        EncoderLayer(d, 4, r * d, norm=norm, activation="relu")
        for _ in range(depth)
    ]
    return xavier_(nn.ModuleList(layers), **options)


def draw_tokens(seed, batch=4, n=16, d=64):
    """Tokens of mean square one, without anything in common."""
    g = torch.Generator().manual_seed(seed)
    return LayerNorm(d)(torch.randn(batch, n, d, generator=g)).detach()


def branch_gain(branch, x):
    """The mean square of what a branch gives, per feature."""
    return branch(x).square().mean().item()


wide, gains = 256, {}
for r in (1, 4):
    gains[r] = [
        branch_gain(
            blocks("pre", 1, wide, r, seed)[0].feed_forward,
            draw_tokens(seed, d=wide),
        )
        for seed in range(8)
    ]
    mean, error = np.mean(gains[r]), np.std(gains[r], ddof=1) / math.sqrt(8)
    wanted = 2 * r / (1 + r) ** 2
    print(f"r = {r}: gain {mean:.4f} ± {error:.4f}, formula {wanted:.4f}")
    check("eq-transformer-block-ffn-gain", mean, wanted, atol=5 * error + 2e-3)

depth, shown = 24, {}
with torch.no_grad():
    for norm in ("pre", "post"):
        runs = []
        for seed in range(5):
            x = draw_tokens(seed)
            trace = [x.square().mean().item()]
            for block in blocks(norm, depth, seed=seed, even=True):
                x = block(x)
                trace.append(x.square().mean().item())
            runs.append(trace)
        shown[norm] = np.array(runs)  # (seeds, depth + 1)
c, level = 8 / 25, np.arange(depth + 1)
mean = shown["pre"].mean(0)
low, high = 1 + c * level, 1 + (1 + c) * level
within = (mean > 0.95 * low) & (mean < 1.05 * high)
check("eq-transformer-block-pre-variance", bool(within.all()))
check("eq-transformer-block-post-variance", shown["post"], 1.0, atol=1e-4)
fit_line = np.polyfit(level[4:], shown["pre"].mean(0)[4:], 1)[0]
glue("tblock-variance-end", shown["pre"][:, -1].mean())
glue("tblock-variance-depth", depth)
glue("tblock-variance-slope", fit_line)

# %% tags=["hide-input"]
fig, ax = new_figure()
ax.fill_between(level, low, high, color=COLORS["query"], alpha=0.15, linewidth=0)
for norm, style, color in (("pre", "-", "query"), ("post", "--", "key")):
    band(ax, level, shown[norm], style, color, label=f"{norm}-norm")
ax.set(xlabel="block", ylabel="mean square of a feature")
ax.legend()
show_figure(
    fig,
    name="fig-transformer-block-variance",
    caption="The size of the residual stream before training, five seeds. The "
    "pale wedge is what the derivation allows pre-norm on average. Post-norm "
    "stays at one.",
    alt="Two curves over 24 blocks. The pre-norm curve rises almost along a "
    "straight line inside a pale wedge, with a band of seeds that widens; the "
    "post-norm curve is flat at one.",
)

# %% [markdown]
# After {glue:text}`tblock-variance-depth:.0f` blocks the mean square is
# {glue:text}`tblock-variance-end:.1f`, and it grows by {glue:text}`tblock-variance-slope:.2f` a
# block ({numref}`fig-transformer-block-variance`): near the upper edge of the wedge, which is where
# it must be if $\bar\rho$ is close to one. Are the tokens that much alike? That is the next step.
#
# ### Step 7. Tokens become alike
#
# Look at attention only. In our model the branch adds the *same* vector $b$ to every token, so the
# difference of two tokens passes unchanged:
#
# $$
# (x_i + b) - (x_j + b) = x_i - x_j .
# $$ (eq-transformer-block-difference)
#
# Meanwhile the tokens have become longer, by {eq}`eq-transformer-block-pre-variance`: their mean
# square has grown from 1 to $1 + \bar\rho$, or to $1 + \alpha^2 \bar\rho$ if the branch's last map is
# made smaller by a factor $\alpha$. What counts is the difference *relative to the length*.
# Since $\lVert x_i - x_j \rVert^2/2d = 1 - \cos$ for normalised tokens, write $D = 1 - \bar\rho$.
# Post-norm divides by the new length at once:
#
# $$
# \begin{gathered}
# D' = \frac{D}{1 + \alpha^2 \bar\rho}, \\
# \text{so for nearly equal tokens} \\
# D_L \approx \frac{D_0}{(1 + \alpha^2)^{L}} .
# \end{gathered}
# $$ (eq-transformer-block-post-alike)
#
# With $\alpha = 1$ and tokens that have become similar, every block *halves* what tells tokens
# apart. Pre-norm never divides the stream. Its differences stay what they were, and only the length
# grows, at most linearly:
#
# $$
# D_L = \frac{D_0}{v_L} \;\ge\; \frac{D_0}{1 + \alpha^2 L} .
# $$ (eq-transformer-block-pre-alike)
#
# **Exponential against one over $L$.** This is the gentle form of Dong's result: the sum slows the
# collapse, and does not stop it. And it says how to slow it more: make the branches softer. For
# $\alpha = \tfrac{3}{10}$ the factor $1 + \alpha^2$ is close to one.
# The feed-forward layers join in, for ReLU brings vectors nearer to each other; the cell below
# measures attention alone, and {numref}`fig-transformer-block-alike` whole blocks too.


# %%
def apart(x):
    """D = 1 − mean cosine of all pairs of tokens, (batch, n, d) to a number."""
    unit_ = F.normalize(x - x.mean(-1, keepdim=True), dim=-1)
    return 1 - unit_.mean(-2).square().sum(-1).mean().item()


def attend_only(block, x):
    """The first half of a block."""
    return block._add(block.attention, block.attention_norm, x)


def distances(norm, depth, *, seed, d=64, alone=False, **options):
    """D after every block."""
    x, trace = draw_tokens(seed, d=d), []
    layers = blocks(norm, depth, d, seed=seed, **options)
    with torch.no_grad():
        for block in layers:
            trace.append(apart(x))
            x = attend_only(block, x) if alone else block(x)
    return np.array([*trace, apart(x)])


x = draw_tokens(0, d=wide)
block = blocks("post", 1, wide, even=True)[0]
with torch.no_grad():
    sum_ = x + block.attention(x)
check(
    "eq-transformer-block-difference",
    sum_[:, 1:] - sum_[:, :1],
    x[:, 1:] - x[:, :1],
    atol=1e-5,
)
print(f"{'D, attention only':18}" + "".join(f"{L:9}" for L in (0, 4, 8, 12)))
for alpha in (1.0, 0.3):
    for norm in ("post", "pre"):
        traces = np.array(
            [
                distances(
                    norm,
                    12,
                    seed=seed,
                    d=wide,
                    alone=True,
                    branch=alpha,
                    even=True,
                )
                for seed in range(5)
            ]
        )  # (seeds, 13)
        if norm == "post":
            rho = 1 - traces[:, :-1]
            predicted = traces[:, :-1] / (1 + alpha**2 * rho)
            check(
                "eq-transformer-block-post-alike",
                np.log(predicted / traces[:, 1:]).mean(0),
                0.0,
                atol=0.08,
            )
        else:
            rho, v = 1 - traces, 1 + 0 * traces
            for l in range(12):
                v[:, l + 1] = v[:, l] + alpha**2 * rho[:, l]
            check(
                "eq-transformer-block-pre-alike",
                np.log(traces * v / traces[:, :1]).mean(0),
                0.0,
                atol=0.15,
            )
            low = traces[:, :1] / (1 + alpha**2 * np.arange(13))
            check("at least one over L", bool((traces > 0.8 * low).all()))
        row = "".join(f"{D:9.4f}" for D in traces.mean(0)[::4])
        print(f"α = {alpha}, {norm + '-norm':9}{row}")

# %%
alike = {
    (norm, alpha): np.array(
        [distances(norm, 12, seed=s, branch=alpha) for s in range(5)]
    )
    for norm in ("post", "pre")
    for alpha in (1.0, 0.3)
}
for (norm, alpha), traces in alike.items():
    end = traces[:, -1]
    print(
        f"whole blocks, {norm + '-norm':9}, α = {alpha}: D = "
        f"{end.mean():.1e} (from {end.min():.1e} to {end.max():.1e})"
    )
glue("tblock-alike-post", alike["post", 1.0][:, -1].mean())
glue("tblock-alike-pre", alike["pre", 1.0][:, -1].mean())
glue("tblock-alike-soft", alike["post", 0.3][:, -1].mean())
check(
    "post-norm: tokens far more alike than in pre-norm",
    alike["post", 1.0][:, -1].max() < 0.1 * alike["pre", 1.0][:, -1].min(),
)
check(
    "and softer branches keep them apart",
    alike["post", 0.3][:, -1].min() > 10 * alike["post", 1.0][:, -1].max(),
)

# %% tags=["hide-input"]
fig, ax = new_figure()
for (norm, alpha), traces in alike.items():
    style = {"post": "s", "pre": "o"}[norm] + {1.0: "-", 0.3: ":"}[alpha]
    color = {"post": "key", "pre": "query"}[norm]
    label = rf"{norm}-norm, $\alpha$ = {alpha:g}"
    band(ax, range(13), traces, style, color, label=label)
ax.set(yscale="log", xlabel="block", ylabel=r"$D = 1 - \overline{\rho}$")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-transformer-block-alike",
    caption="What tells tokens apart, after each of 12 whole blocks with "
    "Xavier's weights, before training; five seeds. In post-norm at full "
    r"branches ($\alpha$ = 1) it falls exponentially.",
    alt="Four curves on a log scale over 12 blocks. Post-norm at full branches "
    "falls along a straight line by orders of magnitude. Pre-norm and both "
    "softened stacks fall slowly.",
)

# %% [markdown]
# With Xavier's weights, twelve post-norm blocks leave $D =$ {glue:text}`tblock-alike-post:.1e`;
# pre-norm leaves {glue:text}`tblock-alike-pre:.2f`, and post-norm with softer branches
# {glue:text}`tblock-alike-soft:.2f`. To whatever reads the first of these, all tokens of a text are
# one token. All that such a model can say at the start is how frequent each word is.

# %% [markdown]
# ### Step 8. The gradient, at the top and further down
#
# *At the top.* A pre-norm stack ends with a norm. Its input has mean square $v_L$, so by
# {eq}`eq-transformer-block-backward` the gradient $g$ that the loss sends is divided by
# $\sqrt{v_L}$ before it reaches the stream. The last matrix of the last block, $W_2$, sees that
# gradient $\delta$ and its own hidden numbers $h$: $\partial \mathcal{L}/\partial W_2 = h^\top
# \delta$, summed over tokens. And $h$ comes from a normalised token, so its size does not depend on
# depth. Hence
#
# $$
# \Big\lVert \frac{\partial \mathcal{L}}{\partial W_2} \Big\rVert \;\propto\;
# \begin{cases}
# 1/\sqrt{v_L} \;\sim\; 1/\sqrt{L} & \text{in pre-norm,} \\
# 1/\sqrt{1 + c} & \text{in post-norm.}
# \end{cases}
# $$ (eq-transformer-block-last)
#
# In pre-norm the deeper the stack, the smaller the gradient at its top; in post-norm the depth
# does not matter.
#
# *Further down, post-norm.* Going back through one sublayer, the gradient is divided by $s$, and
# then goes through $I + J_F$. Forwards, the sum made the token longer, $s^2 = 1 + {}$gain. Backwards,
# it makes the gradient longer in the same way: branch and stream are independent, and squares add.
# For the feed-forward layer the two are equal. Count as in step 6: $W_2$ backwards gives $r/(1+r)$
# after ReLU's half, $W_1$ another $2/(1+r)$, so
#
# $$
# \frac{\lVert J_\text{FFN}^\top g \rVert^2}{\lVert g \rVert^2} = \frac{2r}{(1+r)^2} = c ,
# $$ (eq-transformer-block-ffn-backward)
#
# and a post-norm feed-forward sublayer leaves the gradient as long as it was, $\sqrt{1+c}/\sqrt{1+c}
# = 1$. Attention is different. Forwards it adds $\bar\rho$, the likeness of the *tokens*.
# Backwards a mean over tokens is a mean over their *gradients*, and it adds their likeness
# $\bar\rho_g$, defined as in {eq}`def-transformer-block-similarity`. So per block
#
# $$
# \frac{\lVert g_{l-1} \rVert}{\lVert g_l \rVert} \approx
# \sqrt{\frac{1 + \bar\rho_g}{1 + \bar\rho}} .
# $$ (eq-transformer-block-post-gradient)
#
# For tokens that are alike, $\bar\rho = 1$, with gradients that are not, $\bar\rho_g = 0$, that is
# $1/\sqrt{2}$.
# **Where tokens have become alike, a post-norm stack loses half of the gradient's square in every
# block.** In pre-norm the branch's Jacobian is small, $\lVert J_F \rVert \sim 1/\sqrt{v_l}$,
# because its norm divides by the length of a long token. So the bracket $I + J_F$ is close to $I$,
# and the gradient on the stream grows only slowly on its way down.

# %%
classes = 50


def loss_of(x, seed):
    """Cross-entropy of random targets, through a random linear readout."""
    g = torch.Generator().manual_seed(1000 + seed)
    read = torch.randn(x.shape[-1], classes, generator=g) / x.shape[-1] ** 0.5
    targets = torch.randint(classes, x.shape[:-1], generator=g)
    return F.cross_entropy((x @ read).flatten(0, -2), targets.flatten())


def run_block(block, x, arm):
    """A block as it is; without its sums; without sums and norms."""
    if arm == "whole":
        return block(x)
    normed = arm == "no sum"
    x = block.attention(x)
    x = block.feed_forward(block.attention_norm(x) if normed else x)
    return block.feed_forward_norm(x) if normed else x


def weight_gradients(norm, depth, seed, branch=1.0, arm="whole", even=False):
    """‖∂L/∂W‖ over the weights of each block, of the last W2, and v_L."""
    layers = blocks(norm, depth, seed=seed, branch=branch, even=even)
    x = draw_tokens(seed)
    for block in layers:
        x = run_block(block, x, arm)
    v_L = x.square().mean().item()
    loss_of(LayerNorm(64)(x) if norm == "pre" else x, seed).backward()
    sizes = [
        math.sqrt(
            sum(
                p.grad.square().sum().item()
                for p in block.parameters()
                if p.ndim == 2 and p.grad is not None
            )
        )
        for block in layers
    ]
    return (
        sizes,
        layers[-1].feed_forward.contract.weight.grad.norm().item(),
        v_L,
    )


depths = [1, 2, 4, 8, 16]
last = {
    norm: np.array(
        [
            [weight_gradients(norm, L, s, even=True)[1:] for L in depths]
            for s in range(5)
        ]
    )  # (seeds, depths, 2): the gradient, v_L
    for norm in ("pre", "post")
}
pre = last["pre"].mean(0)
product = pre[:, 0] * np.sqrt(pre[:, 1])
check("eq-transformer-block-last", product / product.mean(), 1.0, atol=0.3)
post = last["post"].mean(0)[:, 0]
check("eq-transformer-block-last", post / post.mean(), 1.0, atol=0.3)
slopes = {
    norm: np.polyfit(np.log(depths), np.log(last[norm].mean(0)[:, 0]), 1)[0]
    for norm in last
}
print(f"{'gradient of the last W2, L =':28}" + "".join(f"{L:7}" for L in depths))
for norm, values in last.items():
    row = "".join(f"{size:7.3f}" for size in values[..., 0].mean(0))
    print(f"{norm + '-norm':28}{row}")
glue("tblock-slope-pre", f"{slopes['pre']:.2f}".replace("-", "−"))
glue("tblock-slope-post", f"{slopes['post']:.2f}".replace("-", "−"))

x = draw_tokens(0, batch=16, d=wide).requires_grad_()
ratios = []
for seed in range(5):
    ffn = blocks("post", 1, wide, seed=seed)[0].feed_forward
    arriving = draw_tokens(50 + seed, batch=16, d=wide)
    (leaving,) = torch.autograd.grad(ffn(x), x, arriving)
    ratios.append((leaving.square().sum() / arriving.square().sum()).item())
check("eq-transformer-block-ffn-backward", np.mean(ratios), c, atol=0.02)


def likeness(x):
    """Mean cosine of all pairs of rows, by the squares: ‖mean‖² / mean ‖·‖²."""
    return (x.mean(-2).square().sum() / x.square().sum(-1).mean(-1).sum()).item()


found, predicted = [], []
for seed in range(5):
    x = draw_tokens(seed, d=wide).requires_grad_()
    stream, sums = [x], []
    for block in blocks("post", 8, wide, seed=seed, even=True):
        total = stream[-1] + block.attention(stream[-1])
        middle = block.attention_norm(total)
        sums.append(total)
        stream.append(
            block.feed_forward_norm(middle + block.feed_forward(middle))
        )
    back = torch.autograd.grad(loss_of(stream[-1], seed), [*stream, *sums])
    on_stream, at_sum = back[:9], back[9:]
    sizes = np.array([g.norm().item() for g in on_stream])
    found.append(np.log(sizes[:-1] / sizes[1:]))
    predicted.append(
        [
            0.5 * math.log((1 + likeness(g)) / (1 + likeness(t)))
            for g, t in zip(at_sum, stream[:-1], strict=True)
        ]
    )
found, predicted = np.mean(found, 0), np.mean(predicted, 0)
print("factor on the gradient, blocks 1 … 8, measured and predicted:")
print(np.array2string(np.exp(found), precision=2))
print(np.array2string(np.exp(predicted), precision=2))
check("eq-transformer-block-post-gradient", found, predicted, atol=0.15)

# %%
arms = {
    "pre-norm": ("pre", "whole"),
    "post-norm": ("post", "whole"),
    "no sum": ("post", "no sum"),
    "no sum, no norm": ("post", "neither"),
}
by_block = {
    name: np.array([weight_gradients(norm, 12, s, arm=arm)[0] for s in range(5)])
    for name, (norm, arm) in arms.items()
}  # each (seeds, 12)
print("gradient of a block's weights, 12 blocks, mean over seeds")
print(f"{'':16}{'first':>9}{'sixth':>9}{'last':>9}{'first/last, by seed':>22}")
for name, sizes in by_block.items():
    mean, ratio = sizes.mean(0), sizes[:, 0] / sizes[:, -1]
    spread = f"{ratio.min():.2f} … {ratio.max():.2f}"
    print(f"{name:16}{mean[0]:9.1e}{mean[5]:9.1e}{mean[-1]:9.1e}{spread:>22}")
share = {k: v[:, 0] / v[:, -1] for k, v in by_block.items()}
glue("tblock-share-pre", share["pre-norm"].mean())
glue("tblock-share-post", share["post-norm"].mean())
glue("tblock-bare", by_block["no sum, no norm"].max())
bare = []
with torch.no_grad():
    for seed in range(5):
        x = draw_tokens(seed)
        for block in blocks("post", 12, seed=seed):
            x = run_block(block, x, "no sum")
        bare.append(apart(x))
print(f"no sum: D after 12 blocks is at most {max(bare):.1e}")
glue("tblock-no-sum-alike", max(bare))
check(
    "down to the first block, post-norm loses more, for every seed",
    share["post-norm"].max() < share["pre-norm"].min(),
)
check(
    "without sum and norm next to nothing is left",
    by_block["no sum, no norm"].max() < 0.02 * by_block["pre-norm"].min(),
)
check("a norm instead of a sum: tokens are one", max(bare) < 1e-4)

# %% tags=["hide-input"]
fig, axes = new_figure(2, 1, size=(5.1, 5.4))
looks = {
    "pre-norm": ("o-", "query"),
    "post-norm": ("s--", "key"),
    "no sum": ("^:", "value"),
    "no sum, no norm": ("d-.", "weights"),
}
for name, sizes in by_block.items():
    band(axes[0], range(1, 13), sizes, *looks[name], label=name)
axes[0].set(yscale="log", xlabel="block", ylabel="gradient of its weights")
fig.legend(loc="outside upper center", ncols=2)
for name in ("pre-norm", "post-norm"):
    sizes = last[name.removesuffix("-norm")][..., 0]
    band(axes[1], depths, sizes, *looks[name])
reference = product.mean() / np.sqrt(pre[:, 1])
axes[1].plot(depths, reference, "-", color=COLORS["reference"], linewidth=1)
axes[1].set(
    xscale="log",
    yscale="log",
    xlabel="number of blocks $L$",
    ylabel="gradient of the last $W_2$",
)
axes[1].set_xticks(depths, [str(L) for L in depths])
axes[1].set_yticks([0.25, 0.5, 1.0], ["0.25", "0.5", "1"])
axes[1].minorticks_off()
show_figure(
    fig,
    name="fig-transformer-block-gradient",
    caption="Gradients before training, five seeds. Above: by block, in stacks "
    "of 12. Below: at the top, by depth; the grey line is what the growth of "
    "the stream predicts for pre-norm.",
    alt="Above, over 12 blocks: pre-norm falls a little from first to last, "
    "post-norm rises, no sum is on top, and no sum, no norm lies far below all. "
    "Below: in depth post-norm rises slightly, pre-norm falls.",
)

# %% [markdown]
# {numref}`fig-transformer-block-gradient` holds both findings. At the top, the gradient of the last
# $W_2$ goes like $L$ to the power {glue:text}`tblock-slope-pre` in pre-norm and
# {glue:text}`tblock-slope-post` in post-norm. (In pre-norm the power is not yet one half, for at these
# depths $v_L$ is not yet proportional to $L$; the grey line, $1/\sqrt{v_L}$, is what was predicted. In
# post-norm there is a slight rise: hidden numbers of tokens that are alike add up.) By block, the first one's gradient is {glue:text}`tblock-share-pre:.1f` times
# that of the last in pre-norm, and {glue:text}`tblock-share-post:.1f` times in post-norm.
#
# **Without the hypothesis.** Leave out sum and norm, and the largest gradient of any block is
# {glue:text}`tblock-bare:.1e`. Leave out the sum only, and gradients are *large*, for the norms
# divide by small numbers. But then $D$ is {glue:text}`tblock-no-sum-alike:.1e` at most after twelve
# blocks: there is a lively gradient of a function that no longer depends on its tokens. So the norm
# looks after the size, and the sum after the content.
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`xiong2020` (§3.3, theorem 1): at initialisation, and if the lengths of the tokens are
# concentrated around their means, the gradient of the last feed-forward matrix is, with high
# probability, at most of the order $d\sqrt{\ln d}$ in post-norm, and $d\sqrt{\ln d / L}$ in
# pre-norm. From this the paper concludes that post-norm needs warm-up, for its gradients near the
# output are large, and that pre-norm does not.
# :::
#
# :::{admonition} Our remark
# :class: remark
# The theorem gives upper bounds, for one matrix, before the first step. That the two norms part
# with depth we found too. That the gradient gets *smaller* on its way down through post-norm blocks
# whose tokens are alike is another matter, and it has the reason of step 7. Which of the two
# hinders training more? The experiment below lets us judge.
# :::
#
# How far does softening go? Move $\alpha$, the factor on the last map of every branch, and watch
# both stacks. At small $\alpha$ both gradients are flat, for every block is nearly the identity, and
# the tokens stay apart.

# %%
alphas = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def log_gradients(norm, alpha):
    """log10 of the gradient by block, relative to the last; mean of 3 seeds."""
    sizes = [weight_gradients(norm, 12, s, branch=alpha)[0] for s in range(3)]
    logs = np.log10(np.array(sizes))
    return (logs - logs[:, -1:]).mean(0)


def still_apart(norm, alpha):
    end = [distances(norm, 12, seed=s, branch=alpha)[-1] for s in range(3)]
    return f"{np.mean(end):.4f}"


by_alpha = {
    f"{norm}-norm": np.stack([log_gradients(norm, a) for a in alphas])
    for norm in ("pre", "post")
}
for name, logs in by_alpha.items():
    tilt = np.abs(logs[:, 0])
    check(f"{name}: soft branches, a flat gradient", tilt[1] < 0.2 * tilt[-1])
CurveExplorer(
    np.arange(1, 13),
    alphas,
    by_alpha,
    readouts={
        f"D after 12 blocks, {norm}-norm": [still_apart(norm, a) for a in alphas]
        for norm in ("pre", "post")
    },
    parameter="α",
    x_name="block",
    y_name="log10 of the gradient, relative to block 12",
    label="The gradient by block, as branches get softer",
    colors={"pre-norm": "query", "post-norm": "key"},
    value=1.0,
    at=1,
    name="transformer-block-gradients",
)

# %% [markdown]
# ### Step 9. Warm-up
#
# The Transformer is trained with Adam, which divides the running mean of the gradient by the root
# of the running mean of its square. In the first step each mean holds one number, and, apart from a
# tiny constant, the quotient is a sign:
#
# $$
# \Delta W = -\eta\, \frac{g}{\sqrt{g^2}} = -\eta\, \operatorname{sign}(g) .
# $$ (eq-transformer-block-adam)
#
# **Every weight moves by $\eta$, however small its gradient.** How much is that? For one token $x$
# and the gradient $\delta$ at the output of a linear map $y = xW$, we have $g = x^\top \delta$, so
# $\operatorname{sign}(g) = \operatorname{sign}(x)^\top \operatorname{sign}(\delta)$, and the output
# for that same token moves by
#
# $$
# x\, \Delta W = -\eta\, \lVert x \rVert_1\, \operatorname{sign}(\delta)
# \;\approx\; -0.8\, \eta\, d\, \operatorname{sign}(\delta) ,
# $$ (eq-transformer-block-first-step)
#
# where $\lVert x \rVert_1 = \sum_i \lvert x_i \rvert$, and $0.8 \approx \sqrt{2/\pi}$ is the mean of
# $\lvert x_i \rvert$ for a normalised token. All $d$ changes pull in one direction, so the output
# moves by $d\eta$ and not by $\sqrt{d}\,\eta$. And it does so in every map of every block, on the
# word of a single batch. Let $\eta$ rise from almost nothing, and the first steps are small while
# the means collect what more batches say. The paper's schedule {cite}`vaswani2017` (§5.3) is
#
# $$
# \eta(t) = d^{-1/2} \cdot \min\big(t^{-1/2},\; t \cdot w^{-3/2}\big) , \qquad w = 4000 ,
# $$ (def-transformer-block-schedule)
#
# and since the two arguments meet where $t^{3/2} = w^{3/2}$, it rises up to the step $w$ and falls
# from there, from a peak of
#
# $$
# \eta(w) = \frac{1}{\sqrt{d\, w}} .
# $$ (eq-transformer-block-peak)
#
# {cite:t}`popel2018` tried many values, and found that training may diverge if the warm-up is too
# short for the peak. Our experiments have a simpler schedule: linear up, cosine down.

# %%
weight = nn.Parameter(torch.zeros(6, dtype=double))
weight.grad = torch.tensor([1e-3, -1e-3, 1.0, -1.0, 1e3, -1e3], dtype=double)
torch.optim.AdamW([weight], lr=0.01, weight_decay=0).step()
check("eq-transformer-block-adam", weight, -0.01 * weight.grad.sign(), atol=1e-6)

eta, width = 3e-3, 64
token = draw_tokens(0, 1, 1, width).double()[0]  # (1, d)
linear = nn.Linear(width, width, bias=False).double()
before = linear(token)
arriving = randn(1, width)
(before * arriving).sum().backward()
torch.optim.AdamW(linear.parameters(), lr=eta, weight_decay=0, eps=0).step()
moved = linear(token) - before
wanted = -eta * token.abs().sum() * arriving.sign()
check("eq-transformer-block-first-step", moved, wanted, atol=1e-9)
check(
    "0.8 η d, to within a fifth",
    moved.abs().mean() / (0.8 * eta * width),
    1.0,
    atol=0.2,
)
glue("tblock-first-eta", eta)
glue("tblock-first-move", moved.abs().mean())


def schedule(t, d, w):
    return d**-0.5 * min(t**-0.5, t * w**-1.5)


rates = [schedule(t, 512, 4000) for t in range(1, 20_001)]
check("eq-transformer-block-peak", max(rates), 1 / math.sqrt(512 * 4000))
check("it is reached at step w", float(np.argmax(rates) + 1), 4000.0)

# %% [markdown]
# At our size, with $\eta =$ {glue:text}`tblock-first-eta:.3f`, the first step moves every output of
# a linear map by {glue:text}`tblock-first-move:.2f` where the outputs have size one; at $d = 512$
# it would be eight times that. (So an explanation of warm-up by large *gradients* alone cannot be
# the whole of it: Adam does not see how large a gradient is, only how steady.)
#
# ### Step 10. Dropout
#
# In training, let every number pass with probability $1 - p$ and make up for it by a factor; in
# evaluation, do nothing. With independent $m \sim \operatorname{Bernoulli}(1 - p)$,
#
# $$
# \begin{aligned}
# y &= \frac{m}{1 - p}\, x, \qquad \mathbb{E}[y] = \frac{1-p}{1-p}\, x = x, \\
# \operatorname{Var}(y) &= \frac{p\,(1-p)}{(1-p)^2}\, x^2 = \frac{p}{1-p}\, x^2 .
# \end{aligned}
# $$ (eq-transformer-block-dropout)
#
# The mean is kept, so that the next layer sees in evaluation what it saw on average in training;
# noise of relative size $\sqrt{p/(1-p)}$ is added. ({cite:t}`srivastava2014` scale the weights
# down in evaluation instead; to scale up in training, as here, is called *inverted* dropout.)
#
# The paper {cite}`vaswani2017` (§5.4) has it in two places, with $p = 0.1$: on the output of each
# sublayer, *before* it is added and normalised; and on the sum of embeddings and positions, where
# the stream begins. Inside the blocks the stream itself is never dropped, so the identity path of
# step 5 stays whole:
#
# $$
# x \leftarrow \operatorname{LN}\big(x + \operatorname{dropout}(F(x))\big) .
# $$ (def-transformer-block-dropout)
#
# A third place, in the authors' code and in BERT, is on the attention weights, after the softmax. A
# row $a$ then no longer sums to one, but to a random number with
#
# $$
# \begin{gathered}
# \mathbb{E}\Big[\sum_j \frac{m_j a_j}{1-p}\Big] = 1, \\
# \operatorname{Var}\Big(\sum_j \frac{m_j a_j}{1-p}\Big) = \frac{p}{1-p} \sum_j a_j^2 ,
# \end{gathered}
# $$ (eq-transformer-block-attention-dropout)
#
# which is the noisier the fewer keys a query looks at. PyTorch's layer has a fourth, inside the
# feed-forward layer; the library has it as an option.

# %%
p, draws = 0.1, 200_000
torch.manual_seed(0)
values = torch.tensor([-2.0, 0.5, 3.0], dtype=double)
y = F.dropout(values.expand(draws, 3), p, training=True)
error = 5 * math.sqrt(p / (1 - p) / draws)  # five standard errors, relative
check("eq-transformer-block-dropout", y.mean(0) / values, 1.0, atol=error)
check(
    "eq-transformer-block-dropout",
    y.var(0) / values.square(),
    p / (1 - p),
    atol=6 * error,
)
rows = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.25] * 4], dtype=double)
totals = F.dropout(rows.expand(draws, 2, 4), p, training=True).sum(-1)
check("eq-transformer-block-attention-dropout", totals.mean(0), 1.0, atol=error)
check(
    "eq-transformer-block-attention-dropout",
    totals.var(0),
    p / (1 - p) * rows.square().sum(-1),
    atol=6 * error,
)
layer = EncoderLayer(12, 3, 48, dropout=0.3).double()
sample = randn(2, 5, 12)
layer.train()
check("training is random", (layer(sample) - layer(sample)).abs().max() > 0.1)
layer.eval()
check("evaluation is not", layer(sample), layer(sample), atol=0)

# %% [markdown]
# ## From scratch
#
# A whole post-norm block for two tokens with four features, one head, and a feed-forward layer of
# width four, in plain Python. The weights are small whole numbers, so that it can be followed.

# %%
tokens = [[1.0, 0.0, 2.0, 1.0], [0.0, 1.0, -1.0, 4.0]]
identity = [[float(i == j) for j in range(4)] for i in range(4)]
W_up = [[1.0, 0, -1, 0], [0, 1, 0, -1], [1, 0, 1, 0], [0, -1, 0, 1]]
W_down = [[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]


def times(row, matrix):
    return [
        sum(r * m[j] for r, m in zip(row, matrix, strict=True))
        for j in range(len(matrix[0]))
    ]


def plus(a, b):
    return [x + y for x, y in zip(a, b, strict=True)]


def layer_norm(row, eps=1e-5):
    mean = sum(row) / len(row)
    variance = sum((x - mean) ** 2 for x in row) / len(row)
    return [(x - mean) / math.sqrt(variance + eps) for x in row]


def attention(rows):
    """One head; queries, keys, values and output maps are the identity."""
    output = []
    for query in rows:
        scores = [
            sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(4)
            for key in rows
        ]
        exps = [math.exp(s - max(scores)) for s in scores]
        weights = [e / sum(exps) for e in exps]
        output.append(times(weights, rows))
    return output


def feed_forward(row):
    return times([max(h, 0.0) for h in times(row, W_up)], W_down)


def show(title, rows):
    print(
        f"{title:22}"
        + "  ".join(
            " ".join(f"{round(x, 2) + 0.0:5.2f}" for x in row) for row in rows
        )
    )


attended = attention(tokens)
summed = [plus(x, a) for x, a in zip(tokens, attended, strict=True)]
middle = [layer_norm(row) for row in summed]
thought = [feed_forward(row) for row in middle]
output = [layer_norm(plus(x, f)) for x, f in zip(middle, thought, strict=True)]
show("tokens", tokens)
show("attention", attended)
show("+ tokens", summed)
show("LN", middle)
show("feed-forward", thought)
show("+, LN", output)


def fill(linear, matrix):
    linear.weight.copy_(torch.tensor(matrix).T)
    linear.bias.zero_()


block = EncoderLayer(4, 1, 4, activation="relu").double()
with torch.no_grad():
    for name in ("query", "key", "value", "output"):
        fill(getattr(block.attention, f"{name}_projection"), identity)
    fill(block.feed_forward.expand, W_up)
    fill(block.feed_forward.contract, W_down)
    by_library = block(torch.tensor([tokens], dtype=double))[0]
check("by hand = the library", output, by_library)

# %% [markdown]
# Check one line with a pocket calculator. Token one plus its attention is normalised: subtract the
# mean of the four numbers, divide by the root of the mean of the squares.
#
# ## The library function
#
# LayerNorm stands there twice: as a formula to be read, and as a module that leaves it to PyTorch's
# kernel. The tests of both are the same.
#
# ```{lib-source} lib.layers.layer_norm
# ```
#
# ```{lib-source} lib.layers.LayerNorm.forward
# ```
#
# ```{lib-source} lib.layers.FeedForward.forward
# ```
#
# ```{lib-source} lib.layers.EncoderLayer._add
# ```
#
# ```{lib-source} lib.layers.EncoderLayer.forward
# ```
#
# Both orders are two lines in one method. `DecoderLayer` is the same with one more `_add` between
# the two, for attention to what an encoder has read (chapter 7). Three decisions deserve a word. The
# norms compute half precision in single precision, for squares overflow early. Before the kernel `LayerNorm`
# takes the mean away: the kernel by itself loses digits where the mean is large, and a shift changes
# neither the result nor its gradient. And the dropout stands inside `_add`, so there is no way to put
# it on the stream by mistake.
#
# PyTorch has the same layers under other names:
#
# | ours | PyTorch's |
# |---|---|
# | `attention`, three projections | `self_attn.in_proj_weight`, `in_proj_bias`: the three stacked |
# | `attention.output_projection` | `self_attn.out_proj` |
# | `feed_forward.expand`, `.contract` | `linear1`, `linear2` |
# | `attention_norm`, `feed_forward_norm` | `norm1`, `norm2` (in the decoder `norm1`, `norm3`) |
# | `cross_attention`, `cross_attention_norm` | `multihead_attn`, `norm2` |
# | `norm="pre"` | `norm_first=True` |
# | `activation="gelu"` by default | `activation=F.relu` by default |


# %%
def packed(ours, name):
    """An attention's weights under PyTorch's names."""
    three = [ours.query_projection, ours.key_projection, ours.value_projection]
    return {
        f"{name}.in_proj_weight": torch.cat([m.weight for m in three]),
        f"{name}.in_proj_bias": torch.cat([m.bias for m in three]),
        f"{name}.out_proj.weight": ours.output_projection.weight,
        f"{name}.out_proj.bias": ours.output_projection.bias,
    }


def as_torch(ours, d, heads, d_ff):
    """PyTorch's layer with the weights of ours."""
    decoder = isinstance(ours, DecoderLayer)
    make = nn.TransformerDecoderLayer if decoder else nn.TransformerEncoderLayer
    theirs = make(
        d,
        heads,
        d_ff,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=ours.norm == "pre",
    ).double()
    state = packed(ours.attention, "self_attn")
    parts = {
        "linear1": ours.feed_forward.expand,
        "linear2": ours.feed_forward.contract,
        "norm1": ours.attention_norm,
        "norm2": ours.feed_forward_norm,
    }
    if decoder:
        state |= packed(ours.cross_attention, "multihead_attn")
        parts |= {
            "norm2": ours.cross_attention_norm,
            "norm3": ours.feed_forward_norm,
        }
    for name, module in parts.items():
        state |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    theirs.load_state_dict(state)  # strict: every name is there, and no other
    return theirs


def randomise_(module, seed=0):
    """No parameter at a value that would hide a mistake: γ is not 1, β not 0."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=g) + 0.1)
    return module


sample, memory = randn(3, 5, 12), randn(3, 7, 12)
future = nn.Transformer.generate_square_subsequent_mask(5, dtype=double)
for norm in ("post", "pre"):
    ours = randomise_(EncoderLayer(12, 3, 20, norm=norm)).double()
    theirs = as_torch(ours, 12, 3, 20)
    check(
        f"EncoderLayer = torch, {norm}-norm",
        ours(sample),
        theirs(sample),
        atol=1e-13,
    )
    ours = randomise_(DecoderLayer(12, 3, 20, norm=norm)).double()
    theirs = as_torch(ours, 12, 3, 20)
    check(
        f"DecoderLayer = torch, {norm}-norm",
        ours(sample, memory),
        theirs(sample, memory, tgt_mask=future),
        atol=1e-13,
    )
ours = randomise_(EncoderLayer(12, 3, 20, norm="pre")).double()
other = as_torch(ours, 12, 3, 20)
other.norm_first = False
check(
    "the other order is another function",
    (ours(sample) - other(sample)).abs().max() > 0.1,
)

# %% [markdown]
# ## On real data
#
# Does any of this show in training? A causal character model on real English, with blocks of both
# kinds and a linear map to the next character at the end. Everything else is equal: the batches,
# the seeds, Adam, the peak of the learning rate. With warm-up, the rate rises over the first three
# tenths of the steps; without, it begins at its peak. Gradients are not clipped. First a small
# version that runs here, with six thin blocks.


# %%
text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
train_ids = vocabulary.encode(text.train).to(device)
validation_ids = vocabulary.encode(text.validation).to(device)
length = 32
held_out = tuple(
    part[:200] for part in consecutive_windows(validation_ids, length)
)
frequency = torch.bincount(train_ids, minlength=len(vocabulary)) + 1.0
unigram = F.cross_entropy(
    frequency.log().expand(*held_out[1].shape, -1).flatten(0, 1),
    held_out[1].flatten(),
).item()
print(f"{len(text.train):,} training characters; sha256 {text.sha256[:16]}")
print(f"who knows only how frequent characters are: {unigram:.2f} nats each")


class Characters(nn.Module):
    """Characters and learned positions, causal blocks, the next character."""

    def __init__(self, norm, depth=6, d=32):
        super().__init__()
        self.embed = nn.Embedding(len(vocabulary), d)
        self.position = nn.Embedding(length, d)
        self.blocks = nn.ModuleList(
            EncoderLayer(d, 4, 4 * d, norm=norm, activation="relu")
            for _ in range(depth)
        )
        self.norm = LayerNorm(d) if norm == "pre" else nn.Identity()
        self.read = nn.Linear(d, len(vocabulary), bias=False)
        xavier_(self)

    def forward(self, ids):
        x = self.embed(ids) + self.position.weight
        for block in self.blocks:
            x = block(x, causal=True)
        return self.read(self.norm(x))


def train(norm, warmup, seed, steps=100):
    torch.manual_seed(seed)
    model = Characters(norm).to(device)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step):
        inputs, targets = random_windows(train_ids, 12, length, batches)
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    fit(
        model,
        batch_loss,
        steps=steps,
        learning_rate=5e-3,
        warmup=warmup,
        clip=None,
    )
    return evaluate(model, *held_out)


# %% tags=["nbval-ignore-output"]
runs = list(itertools.product(("post", "pre"), (0.0, 0.3), (0, 1, 2)))
live = {(norm, warmup): [] for norm, warmup, _ in runs}
bar = Progress(runs, label=f"training {len(runs)} small models")
for norm, warmup, seed in bar:
    live[norm, warmup].append(train(norm, warmup, seed))
    bar.note(f"{norm}-norm: {live[norm, warmup][-1]:.2f} nats a character")

# %%
print("six blocks, nats a character, mean ± standard deviation over seeds")
for (norm, warmup), losses in live.items():
    print(
        f"{norm + '-norm':9}, {'with' if warmup else 'without'} warm-up:"
        f"  {np.mean(losses):.3f} ± {np.std(losses, ddof=1):.3f}"
    )
glue("tblock-live-post-none", np.mean(live["post", 0.0]))
glue("tblock-live-post-warm", np.mean(live["post", 0.3]))
glue("tblock-live-pre-none", np.mean(live["pre", 0.0]))
glue("tblock-live-pre-warm", np.mean(live["pre", 0.3]))
glue("tblock-live-unigram", unigram)
check(
    "without warm-up, pre-norm is ahead for every seed",
    max(live["pre", 0.0]) < min(live["post", 0.0]) - 0.1,
)

# %% [markdown]
# Knowing only how frequent characters are costs {glue:text}`tblock-live-unigram:.2f` nats. The
# post-norm models end at {glue:text}`tblock-live-post-none:.2f` without and
# {glue:text}`tblock-live-post-warm:.2f` with warm-up: hardly anything beyond that. Pre-norm reaches
# {glue:text}`tblock-live-pre-none:.2f` and {glue:text}`tblock-live-pre-warm:.2f`. This was short,
# and the blocks thin. Here is more of the same: width 64, three depths, three seeds, three times
# as many steps, and twelve blocks also with softer branches ($\alpha = \tfrac{3}{10}$), as
# step 7 suggests.

# %%
record = recorded("transformer_block")
recorded_runs = record["results"]["runs"]
recorded_unigram = record["results"]["unigram"]


def recorded_losses(layers, branch, norm, warmup):
    return np.array(
        [
            run["loss"]
            for run in recorded_runs
            if (run["layers"], run["branch"]) == (layers, branch)
            and (run["norm"], run["warmup"]) == (norm, warmup)
        ]
    )


stacks = [(2, 1.0), (6, 1.0), (12, 1.0), (12, 0.3)]
print("nats a character, mean ± standard deviation over seeds")
print(f"{'':18}{'post-norm':>24}{'pre-norm':>24}")
print(f"{'blocks, α':18}" + f"{'none':>12}{'warm-up':>12}" * 2)
for layers, branch in stacks:
    row = ""
    for norm, warmup in itertools.product(("post", "pre"), (0.0, 0.3)):
        losses = recorded_losses(layers, branch, norm, warmup)
        row += f"{losses.mean():7.2f} ±{losses.std(ddof=1):.2f}"
        key = f"{layers}-{branch}-{norm}-{warmup}".replace(".", "")
        glue(f"tblock-run-{key}", losses.mean())
    print(f"{layers:2}, {branch:<14}{row}")
print(f"frequencies of characters alone: {recorded_unigram:.2f}")
glue("tblock-run-unigram", recorded_unigram)
bert, std = 768, 0.02  # its width and its initial standard deviation
glue("tblock-bert-alpha", std**2 * bert)  # Xavier's variance is 1 / d
glue("tblock-bert-ffn", std**2 * 5 * bert / 2)  # and here 2 / 5d
glue("tblock-run-seeds", len({run["seed"] for run in recorded_runs}))
glue("tblock-run-steps", record["settings"]["steps"])
stuck = recorded_unigram - 0.1
check(
    "two blocks: all arms learn, and alike",
    max(recorded_losses(2, 1.0, *arm).max() for arm in live) < 2.6,
)
check(
    "twelve post-norm blocks with full branches learn nothing",
    min(recorded_losses(12, 1.0, "post", w).min() for w in (0.0, 0.3)) > stuck,
)
check(
    "with softer branches warm-up decides",
    recorded_losses(12, 0.3, "post", 0.3).max()
    < recorded_losses(12, 0.3, "post", 0.0).min() - 0.2,
)
check(
    "pre-norm learns everywhere",
    max(r["loss"] for r in recorded_runs if r["norm"] == "pre") < 2.6,
)

# %% tags=["hide-input"]
fig, ax = new_figure(size=(5.1, 3.5))
arms = {
    ("post", 0.0): ("s", "key", "post-norm, no warm-up"),
    ("post", 0.3): ("^", "output", "post-norm, warm-up"),
    ("pre", 0.0): ("o", "query", "pre-norm, no warm-up"),
    ("pre", 0.3): ("d", "value", "pre-norm, warm-up"),
}
for number, (layers, branch) in enumerate(stacks):
    for shift, (arm, (marker, color, label)) in enumerate(arms.items()):
        losses = recorded_losses(layers, branch, *arm)
        ax.plot(
            number + 0.15 * (shift - 1.5) + 0 * losses,
            losses,
            marker,
            color=COLORS[color],
            label=label if number == 0 else None,
        )
ax.axhline(recorded_unigram, color=COLORS["reference"], linewidth=1)
ax.set_xticks(range(4), ["2", "6", "12", "12, softer"])
ax.set(xlabel="blocks", ylabel="validation loss, nats")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-transformer-block-losses",
    caption="The recorded runs; a mark is a seed. The grey line is what the "
    "frequencies of characters give. “Softer”: the last map of every branch "
    rf"begins at $\alpha$ = {stacks[-1][1]:g} of its size.",
    alt="Losses for four stacks. At two blocks all marks lie together. At six "
    "and twelve, pre-norm stays low; post-norm without warm-up lies at the grey "
    "line. With warm-up it comes down, except at twelve full blocks.",
)

# %% tags=["hide-input"]
fig, axes = new_figure(2, 1, size=(5.1, 5.0), sharex=True)
middle_of = (np.arange(30) + 0.5) * record["settings"]["steps"] / 30
for ax, branch in zip(axes, (1.0, 0.3), strict=True):
    for arm, (marker, color, label) in arms.items():
        lines = np.array(
            [
                run["curve"]
                for run in recorded_runs
                if (run["layers"], run["branch"]) == (12, branch)
                and (run["norm"], run["warmup"]) == arm
            ]
        )
        style = marker + {"s": "-", "^": "--", "o": "-.", "d": ":"}[marker]
        label = label if branch == 1.0 else None
        band(ax, middle_of, lines, style, color, label=label, markevery=5)
    ax.axhline(recorded_unigram, color=COLORS["reference"], linewidth=1)
    ax.set(
        title=rf"$\alpha$ = {branch:g}", ylabel="training loss", ylim=(2.2, 5.2)
    )
axes[1].set_xlabel("step")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-transformer-block-curves",
    caption="Training loss of the recorded stacks of 12 blocks, means of ten "
    "steps; bands span the seeds. Above with full branches, below softer ones.",
    alt="Above, both post-norm curves settle on the grey line of character "
    "frequencies; pre-norm curves pass below it. Below, the post-norm curve with "
    "warm-up joins pre-norm; the one without stays on the line.",
)

# %% [markdown]
# Read {numref}`fig-transformer-block-losses` from left to right, and
# {numref}`fig-transformer-block-curves` for the two stacks on the right.
#
# - **Two blocks.** Order and warm-up make no difference that matters: all four arms lie near
#   {glue:text}`tblock-run-2-10-post-00:.2f` nats.
# - **Six blocks.** Post-norm without warm-up stays at {glue:text}`tblock-run-6-10-post-00:.2f`, where
#   frequencies alone give {glue:text}`tblock-run-unigram:.2f`. With warm-up it gets away, to
#   {glue:text}`tblock-run-6-10-post-03:.2f`. Pre-norm has {glue:text}`tblock-run-6-10-pre-00:.2f`
#   without and {glue:text}`tblock-run-6-10-pre-03:.2f` with.
# - **Twelve blocks, Xavier's weights.** Post-norm does not learn, warm-up or not
#   ({glue:text}`tblock-run-12-10-post-03:.2f` with it). By step 7 its tokens were alike before the
#   first step, and a slow start does not tell them apart.
# - **Twelve blocks, softer branches.** Now they are apart, and *now* warm-up decides:
#   {glue:text}`tblock-run-12-03-post-03:.2f` with, {glue:text}`tblock-run-12-03-post-00:.2f` without.
#   That fits step 9. Pre-norm gains a little from warm-up too
#   ({glue:text}`tblock-run-12-03-pre-00:.2f` against {glue:text}`tblock-run-12-03-pre-03:.2f`), and
#   does not need it.
#
# So “post-norm needs warm-up” is half of what was found. At depth it needs tokens that are still
# apart as well, and that is decided by the initial weights. How far does this go?
# {glue:text}`tblock-run-seeds:.0f` seeds, {glue:text}`tblock-run-steps:.0f` steps, one learning
# rate, one small text, no clipping. Stacks of twelve post-norm layers can be trained: BERT is one. Its
# matrices begin with a standard deviation of $0.02$ ({cite:t}`devlin2019`, in its code), and Xavier's
# would be larger. On the way through value and output matrix that makes a factor of
# {glue:text}`tblock-bert-alpha:.2f`, on the way through the feed-forward layer one of
# {glue:text}`tblock-bert-ffn:.2f`. So its attention is about as soft as ours on the right; and it warms
# up. And that pre-norm *starts* more easily does not mean that it *ends* better; after so few steps
# we can't say ({cite:t}`xiong2020` report comparable results).

# %% [markdown]
# ## Folklore, set right
#
# | What one reads | What is so |
# |---|---|
# | “Transformer(X) = Softmax(X + MHA(X))” | It is $\operatorname{LN}$ where this has softmax, and a second such line for the feed-forward layer {cite}`vaswani2017` (§3.1). Softmax stands inside attention and over the vocabulary only. What it does here: D06. |
# | “The Transformer was published in pre-norm.” | Post-norm {cite}`vaswani2017` (§3.1). Pre-norm came later {cite}`wang2019,xiong2020`. |
# | “Attention is where the parameters are.” | Two thirds of a block's weights are in the feed-forward layer {eq}`eq-transformer-block-parameters`. |
# | “Each block drops parts of the residual stream.” | Of what is added to it; and once, at the bottom, of the sum of embedding and position {cite}`vaswani2017` (§5.4). |

# %% [markdown]
# ## Broken on purpose
#
# Three mistakes, each in a few lines of our own.
#
# :::{admonition} Broken on purpose D06: softmax in the place of the norm
# :class: broken
# $X \leftarrow \operatorname{softmax}(X + F(X))$. A softmax over features makes them positive with
# sum one: of size $1/d$. What a branch adds to such a token is nearly the same for every token. The
# next softmax turns small differences into smaller ones.
# :::


# %%
torch.manual_seed(0)
six = nn.ModuleList(EncoderLayer(32, 4, 128) for _ in range(6)).double()


def softmax_around(block, x):
    x = (x + block.attention(x)).softmax(-1)
    return (x + block.feed_forward(x)).softmax(-1)


def norm_around(block, x):
    return block(x)


def tokens_stay_apart(layer):
    x = torch.randn(
        1, 9, 32, dtype=double, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        for block in six:
            x = layer(block, x)
    spread = torch.pdist(x[0]).mean().item()
    assert spread > 0.1, f"after six layers tokens are {spread:.1e} apart"
    return spread


glue("tblock-d06", tokens_stay_apart(norm_around))
catches("D06", tokens_stay_apart, broken=softmax_around, fixed=norm_around)

# %% [markdown]
# With LayerNorm the mean distance of two tokens is {glue:text}`tblock-d06:.1f`. **Fix:**
# `norm(x + F(x))`, or `x + F(norm(x))`.
#
# :::{admonition} Broken on purpose D16: what the positions of arguments mean
# :class: broken
# `nn.Transformer(16, 2, 3)` looks like width 16, two heads, three layers. The third number is the
# number of *encoder* layers; the decoder keeps its default of six. And without `batch_first=True`
# the first dimension is the sequence, so that samples are taken for positions and attend to each
# other. Nothing raises an error, for the shapes all fit.
# :::


# %%
def by_position():
    with warnings.catch_warnings():  # of another matter
        warnings.simplefilter("ignore")
        return nn.Transformer(16, 2, 3)


def by_name():
    return nn.Transformer(
        16, 2, num_encoder_layers=3, num_decoder_layers=3, batch_first=True
    )


def three_layers_each(make):
    model = make()
    found = len(model.encoder.layers), len(model.decoder.layers)
    assert found == (3, 3), (
        f"{found[0]} encoder layers and {found[1]} decoder layers"
    )


def samples_are_separate(make):
    torch.manual_seed(0)
    model = make().eval()
    x = torch.randn(2, 5, 16)  # two samples of five tokens
    moved = x.clone()
    moved[1] += 3 * torch.randn(5, 16)
    with torch.no_grad():
        change = (model(moved, moved) - model(x, x))[0].abs().max().item()
    assert change < 1e-5, f"a change in sample 1 moves sample 0 by {change:.2f}"


catches("D16, layers", three_layers_each, broken=by_position, fixed=by_name)
catches("D16, samples", samples_are_separate, broken=by_position, fixed=by_name)

# %% [markdown]
# **Fix:** name the arguments, and test that no sample depends on another one.
#
# :::{admonition} Broken on purpose D44: almost LayerNorm
# :class: broken
# `torch.var` divides by $d - 1$ unless told otherwise. And an $\varepsilon$ *outside* the root,
# $\sqrt{\sigma^2} + \varepsilon$, is harmless for large tokens and wrong for small ones. Both train
# well from the start. Both spoil a checkpoint a little in every layer.
# :::


# %%
def unbiased(x, eps=1e-5):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt()


def eps_outside(x, eps=1e-5):
    deviation = x.std(-1, unbiased=False, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (deviation + eps)


def as_it_should_be(x, eps=1e-5):
    return LayerNorm(x.shape[-1], eps).double()(x)


def is_layer_norm(function):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 64, dtype=double, generator=g)
    errors = {}
    for size in (1.0, 0.01):
        want = F.layer_norm(size * x, (64,), eps=1e-5)
        errors[size] = (function(size * x) - want).abs().max().item()
    assert max(errors.values()) < 1e-12, (
        f"off by {errors[1.0]:.1e} on tokens of size 1, "
        f"by {errors[0.01]:.1e} on tokens of size .01"
    )


catches(
    "D44, unbiased variance",
    is_layer_norm,
    broken=unbiased,
    fixed=as_it_should_be,
)
catches(
    "D44, ε outside", is_layer_norm, broken=eps_outside, fixed=as_it_should_be
)

# %% [markdown]
# **Fix:** `unbiased=False`, $\varepsilon$ under the root, and a test in double precision on small
# tokens as well as large ones. A test at $10^{-3}$ would let one of the two pass at size one.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails.
#
# ```{exercise-start} LayerNorm
# :label: ex-transformer_block-layer-norm
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `normalise(x, weight, bias, eps)`: layer normalisation of a tensor (…, d) with $\gamma$ and
# $\beta$ of shape (d,).
#
# ```{dropdown} Hint
# Mean and variance are over the last dimension, kept as a dimension of size one. Which variance:
# divided by $d$, or by $d - 1$?
# ```


# %% tags=["exercise-stub"]
def normalise(x, weight, bias, eps):
    raise NotImplementedError


grade("ex-transformer_block-layer-norm", normalise)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-transformer_block-layer-norm
# :class: dropdown
# ```


# %% tags=["solution"]
def normalise(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return weight * centred / (variance + eps).sqrt() + bias


grade("ex-transformer_block-layer-norm", normalise)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Its Jacobian
# :label: ex-transformer_block-jacobian
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `layer_norm_jacobian(x, eps)`: for one token (d,) the $d \times d$ matrix of
# $\partial \hat{x}_i/\partial x_j$, without autograd.
#
# ```{dropdown} Hint
# {eq}`eq-transformer-block-jacobian`. `torch.outer` makes $\hat{x}\hat{x}^\top$. Where does
# $\varepsilon$ come in?
# ```


# %% tags=["exercise-stub"]
def layer_norm_jacobian(x, eps):
    raise NotImplementedError


grade("ex-transformer_block-jacobian", layer_norm_jacobian)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-transformer_block-jacobian
# :class: dropdown
# ```


# %% tags=["solution"]
def layer_norm_jacobian(x, eps):
    d = x.shape[0]
    s = (x.var(unbiased=False) + eps).sqrt()
    hat = (x - x.mean()) / s
    return (torch.eye(d).to(x) - 1 / d - torch.outer(hat, hat) / d) / s


grade("ex-transformer_block-jacobian", layer_norm_jacobian)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The backward pass, without a matrix
# :label: ex-transformer_block-backward
# ```
# *Difficulty ●●○ · 20 minutes*
#
# A kernel never makes $J$. Write `backward(g, x, eps)`: given the gradient at $\hat{x}$, a tensor (…,
# d), return the gradient at $x$, in time and memory proportional to the size of $x$.
#
# ```{dropdown} Hint
# $J$ is symmetric. $\mathbf{1}\mathbf{1}^\top g/d$ is the mean of $g$, in every place; and
# $\hat{x}\hat{x}^\top g/d$ is $\hat{x}$ times a mean.
# ```


# %% tags=["exercise-stub"]
def backward(g, x, eps):
    raise NotImplementedError


grade("ex-transformer_block-backward", backward)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-transformer_block-backward
# :class: dropdown
# ```


# %% tags=["solution"]
def backward(g, x, eps):
    s = (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
    hat = (x - x.mean(-1, keepdim=True)) / s
    along = (g * hat).mean(-1, keepdim=True)
    return (g - g.mean(-1, keepdim=True) - hat * along) / s


grade("ex-transformer_block-backward", backward)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} How many parameters?
# :label: ex-transformer_block-count
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `parameters(d, d_ff, layers)`: how many numbers are trained in a pre-norm encoder of so many
# blocks, with all biases, and with the norm at its end. No embeddings.
#
# ```{dropdown} Hint
# {eq}`eq-transformer-block-parameters` is the case $d_\text{ff} = 4d$. A norm has a scale and a
# shift.
# ```


# %% tags=["exercise-stub"]
def parameters(d, d_ff, layers):
    raise NotImplementedError


grade("ex-transformer_block-count", parameters)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-transformer_block-count
# :class: dropdown
# ```


# %% tags=["solution"]
def parameters(d, d_ff, layers):
    attention = 4 * (d * d + d)
    feed_forward = 2 * d * d_ff + d_ff + d
    return layers * (attention + feed_forward + 2 * 2 * d) + 2 * d


grade("ex-transformer_block-count", parameters)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Either order
# :label: ex-transformer_block-order
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `apply_block(x, sublayers, norms, order)`: `sublayers` and `norms` are lists of functions of
# equal length, `order` is `"post"` or `"pre"`. Return what the block makes of x.
#
# ```{dropdown} Hint
# Each sublayer works on what the one before it has left. Only one of the two orders normalises
# the sum.
# ```


# %% tags=["exercise-stub"]
def apply_block(x, sublayers, norms, order):
    raise NotImplementedError


grade("ex-transformer_block-order", apply_block)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-transformer_block-order
# :class: dropdown
# ```


# %% tags=["solution"]
def apply_block(x, sublayers, norms, order):
    for sublayer, norm in zip(sublayers, norms, strict=True):
        x = x + sublayer(norm(x) if order == "pre" else x)
        x = norm(x) if order == "post" else x
    return x


grade("ex-transformer_block-order", apply_block)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Inverted dropout
# :label: ex-transformer_block-dropout
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `drop(x, p, training)`: inverted dropout. Draw with `torch.rand_like`.
#
# ```{dropdown} Hint
# {eq}`eq-transformer-block-dropout`. A number passes with probability $1 - p$, and what passes is made
# larger.
# ```


# %% tags=["exercise-stub"]
def drop(x, p, training):
    raise NotImplementedError


grade("ex-transformer_block-dropout", drop)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-transformer_block-dropout
# :class: dropdown
# ```


# %% tags=["solution"]
def drop(x, p, training):
    if not training:
        return x
    passes = torch.rand_like(x) >= p
    return x * passes / (1 - p)


grade("ex-transformer_block-dropout", drop)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - A block adds what attention and feed-forward layer find, and normalises after the sum
#   {eq}`def-transformer-block-post` or before the sublayer {eq}`def-transformer-block-pre`.
# - LayerNorm projects onto mean zero, then onto a sphere {eq}`eq-transformer-block-sphere`. Its
#   Jacobian is a projection divided by $s$ {eq}`eq-transformer-block-jacobian`: no gradient along
#   $\mathbf{1}$ and $\hat{x}$, and a long token gets a small one {eq}`eq-transformer-block-backward`.
# - RMSNorm keeps the scale invariance and drops the other {eq}`eq-transformer-block-rms-jacobian`.
# - The feed-forward layer serves each token alone {eq}`eq-transformer-block-convolution`, and holds
#   two thirds of the weights {eq}`eq-transformer-block-parameters`.
# - A residual stack is a sum over $2^L$ paths, the identity among them {eq}`eq-transformer-block-paths`.
# - Untrained, the pre-norm stream grows linearly {eq}`eq-transformer-block-pre-variance`. Tokens become
#   alike, in post-norm exponentially {eq}`eq-transformer-block-post-alike`, in pre-norm like one over
#   depth {eq}`eq-transformer-block-pre-alike`. Where they are alike, post-norm loses gradient from block
#   to block {eq}`eq-transformer-block-post-gradient`.
# - Adam's first step moves every weight by $\eta$ {eq}`eq-transformer-block-adam`; warm-up keeps that
#   small. In our runs deep post-norm needed it, and softer branches besides.
# - Dropout works on what is added, keeps the mean, and is off in evaluation
#   {eq}`eq-transformer-block-dropout`.
#
# ## Sources
#
# - {cite:t}`vaswani2017`, §3.1: the block, post-norm; §3.3: the feed-forward layer; §5.3: the schedule;
#   §5.4: dropout.
# - {cite:t}`ba2016`, §3: layer normalisation; §5.1: its invariances.
# - {cite:t}`zhang2019`: RMSNorm.
# - {cite:t}`he2016`: residual learning. {cite:t}`veit2016`: a residual network as a collection of paths.
# - {cite:t}`wang2019`: deep translation models with pre-norm. {cite:t}`xiong2020`, §3.3: the two orders at
#   initialisation, theorem 1.
# - {cite:t}`dong2021`: without sums and feed-forward layers, attention makes all tokens equal.
# - {cite:t}`geva2021`: feed-forward layers as key–value memories.
# - {cite:t}`popel2018`: learning rate and warm-up of the Transformer, tried out.
# - {cite:t}`srivastava2014`: dropout.
