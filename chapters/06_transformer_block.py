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
import copy
import itertools
import math

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
from lib.layers import (
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    LayerNorm,
    RMSNorm,
)
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
# x \leftarrow \operatorname{LN}\big(x + \operatorname{Attention}(x)\big), \qquad
# x \leftarrow \operatorname{LN}\big(x + \operatorname{FFN}(x)\big) .
# $$ (def-transformer-block-post)
#
# Most later models normalise what goes *into* a sublayer, *pre-norm*, and leave the sum alone:
#
# $$
# x \leftarrow x + \operatorname{Attention}\big(\operatorname{LN}(x)\big), \qquad
# x \leftarrow x + \operatorname{FFN}\big(\operatorname{LN}(x)\big) .
# $$ (def-transformer-block-pre)
#
# A stack of pre-norm blocks needs one more norm at its end. Layer normalisation works on one token
# at a time:
#
# $$
# \operatorname{LN}(x) = \gamma \circ \hat{x} + \beta, \qquad
# \hat{x} = \frac{x - \mu \mathbf{1}}{s}, \qquad
# \mu = \frac{1}{d} \sum_{i=1}^{d} x_i, \qquad
# s = \sqrt{\frac{1}{d} \sum_{i=1}^{d} (x_i - \mu)^2 + \varepsilon} .
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
# translation models of up to 30 layers, and {cite:t}`xiong2020` gave a reason. The sum itself is
# older than both; {cite:t}`he2016` introduced it for images.
# :::

# %% [markdown]
# ## Derivation
#
# Nine steps: the norm (1 to 3), the feed-forward layer (4), the sum (5), what depth does to the
# forward pass (6 and 7) and to the gradient (8), and what makes training start and generalise (9).
#
# ### Step 1. LayerNorm is a projection and a length
#
# Take $\gamma = 1$, $\beta = 0$, and $\varepsilon = 0$ for now. Subtracting the mean is a matrix.
# The mean of $x$ is $\mathbf{1}^\top x / d$, so
#
# $$
# x - \mu\mathbf{1} = P x, \qquad P = I - \frac{\mathbf{1}\mathbf{1}^\top}{d}, \qquad
# P^2 = P = P^\top .
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
# numbers, $d - 2$ are left: one is lost to the mean, one to the length. Both can be added and
# nothing changes. For every $a > 0$ and every $b$,
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
cloud = randn(60, 3) * torch.tensor([1.0, 1.6, 0.7]) + 0.8
flat = cloud - cloud.mean(-1, keepdim=True)
onto = LayerNorm(3, eps=0.0).double()(cloud).detach()
side = torch.tensor([1.0, -1.0, 0.0]).double() / math.sqrt(2)
other = torch.tensor([1.0, 1.0, -2.0]).double() / math.sqrt(6)
up = torch.ones(3, dtype=double) / math.sqrt(3)
fig, axes = new_figure(1, 2, size=(5.1, 3.1))
axes[0].plot(cloud @ side, cloud @ up, "o", color=COLORS["query"])
for a, b in zip(cloud, flat, strict=True):
    axes[0].plot(
        [a @ side, b @ side],
        [a @ up, b @ up],
        color=COLORS["reference"],
        linewidth=0.6,
    )
axes[0].plot(flat @ side, flat @ up, ".", color=COLORS["key"])
axes[0].set(title="from the side", xlabel="in the plane", ylabel=r"along $\mathbf{1}$")
axes[1].plot(flat @ side, flat @ other, ".", color=COLORS["key"])
for a, b in zip(flat, onto, strict=True):
    axes[1].plot(
        [a @ side, b @ side],
        [a @ other, b @ other],
        color=COLORS["reference"],
        linewidth=0.6,
    )
axes[1].plot(onto @ side, onto @ other, "^", color=COLORS["value"])
axes[1].set(title="from above", xlabel="in the plane", ylabel="in the plane")
axes[1].set_aspect("equal")
show_figure(
    fig,
    name="fig-transformer-block-sphere",
    caption="LayerNorm of 60 tokens with three features. Left: each token (blue "
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
check("equal features become zero", soft(alike), 0.0, atol=0)
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
# \frac{\partial \hat{x}_i}{\partial x_j}
# = \frac{1}{s} \frac{\partial (x_i - \mu)}{\partial x_j} - \frac{x_i - \mu}{s^2}
# \frac{\partial s}{\partial x_j}
# = \frac{1}{s} \Big( \delta_{ij} - \frac1d - \frac{\hat{x}_i \hat{x}_j}{d} \Big) ,
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
# J\mathbf{1} = 0, \qquad J\hat{x} = 0, \qquad
# J v = \frac{v}{s} \;\text{ if } v \perp \mathbf{1}, \hat{x}, \qquad
# \operatorname{rank} J = d - 2 .
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
check("ten times as long, a tenth of the gradient", jacobian(norm, 10 * token) * 10, J)
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
# J_{\text{RMS}} = \frac{1}{r} \Big( I - \frac{\bar{x}\bar{x}^\top}{d} \Big), \qquad
# \operatorname{rank} J_{\text{RMS}} = d - 1 \quad (\varepsilon = 0) .
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
print(f"sample 0 moves by {by_batch:.3f} under BatchNorm, {by_layer} under LayerNorm")
glue("tblock-batch-norm", by_batch)
check("LayerNorm: not at all", by_layer, 0.0, atol=0)
check("BatchNorm: visibly", by_batch > 0.05)
