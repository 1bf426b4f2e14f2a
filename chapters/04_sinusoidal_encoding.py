# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       To attention, “dog bites man” and “man bites dog” are one and the same set of words. The
#       Transformer mends this by adding a vector of sines and cosines to each word. Why does adding
#       not spoil the word, why both sine and cosine, and what can a model read from the sum?
#     goals:
#       - derive what a shift of position does to the encoding, and why it is a rotation
#       - say what a dot product of two encodings knows (distance) and what it cannot (direction)
#       - show how learned projections recover direction, and how rotary encoding follows
#       - expand a score into content and position, and say what √d_model does to their balance
#       - measure what a trained model does beyond the length it was trained on
#     prerequisites:
#       - scaled dot-product attention (chapter 2)
#       - sine, cosine, and 2×2 matrices
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
# # Sinusoidal position encoding

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

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.attention import scaled_dot_product_attention
from lib.data import (
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.layers import EncoderLayer, LayerNorm
from lib.positions import (
    LearnedEncoding,
    SinusoidalEncoding,
    sinusoidal_encoding,
)
from lib.teaching import (
    PositionRotation,
    Progress,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS, heatmap
from lib.training import fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# Attention is blind to order: shuffle the words, and the outputs are shuffled with them. So the
# place of a word has to be part of its vector. The Transformer gives every position $p = 0, 1, 2,
# \dots$ a vector of its own, as long as the word's, and adds the two.
#
# The vector is made of $d/2$ pairs, where $d$ stands for $d_{\text{model}}$, an even number. Pair
# $i$ has a *frequency* $\omega_i$, and holds the sine and the cosine of the angle $p\,\omega_i$:
#
# $$
# \begin{gathered}
# \begin{aligned}
# \operatorname{PE}(p, 2i) &= \sin(p\,\omega_i) \\
# \operatorname{PE}(p, 2i+1) &= \cos(p\,\omega_i)
# \end{aligned} \\
# \omega_i = 10000^{-2i/d}, \quad i = 0, \dots, \tfrac{d}{2} - 1 .
# \end{gathered}
# $$ (def-sinusoidal-encoding-formula)
#
# What enters the first layer for token $t$ at position $p$ is
#
# $$
# x = \sqrt{d}\; E[t] + \operatorname{PE}(p) .
# $$ (def-sinusoidal-encoding-input)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $\operatorname{PE}$ | $n \times d$ | one row a position; fixed, nothing in it is trained |
# | $\omega_i$ | a number | how far pair $i$ turns from one position to the next, in radians |
# | $E$ | $V \times d$ | one row a token; trained |
# | $x$ | $d$ | word and place in one vector; a sequence of them is $n \times d$ |
#
# The frequencies fall from $1$ to almost $1/10000$. The first pair turns by one radian a step, so
# it goes round in about six positions. The last one hardly moves over a whole page.
# {numref}`fig-sinusoidal-encoding-table` shows all of them.

# %% tags=["hide-input"]
table = sinusoidal_encoding(64, 32, dtype=double)
fig, ax = plt.subplots(figsize=(4.3, 5.6))
mesh = heatmap(ax, table, vmin=-1, vmax=1)
ax.set(xlabel="feature", ylabel="position p")
fig.colorbar(mesh, ax=ax, shrink=0.5)
show_figure(
    fig,
    name="fig-sinusoidal-encoding-table",
    caption="The encoding of 64 positions for $d = 32$, one row a position. "
    "Columns come in pairs, sine then cosine. Pairs on the left turn fast; "
    "those on the right stay near (0, 1).",
    alt="A heat map of 64 positions by 32 features. The left columns "
    "alternate quickly down the page, the next ones more and more slowly; in "
    "the right half sines stay near zero and cosines near one.",
)

# %% [markdown]
# **Two layouts.** The paper interleaves: sine, cosine, sine, cosine. Much code writes all sines
# first and all cosines after them. The second table has the columns of the first in another order,
# $\operatorname{PE}_{\text{cat}} = \operatorname{PE}\,\Pi$ with a permutation matrix $\Pi$.
# Whatever linear map $W$ stands on top can have its rows permuted in the same way. Since
# $\Pi\Pi^\top = I$,
#
# $$
# \operatorname{PE}_{\text{cat}}\,(\Pi^\top W) = \operatorname{PE}\,\Pi\,\Pi^\top W = \operatorname{PE}\, W .
# $$ (eq-sinusoidal-encoding-layout)
#
# So a model that *learns* on top of either layout loses nothing. A *checkpoint* does care: its
# trained matrices expect the columns in the order in which they were trained. The library has
# both, as `layout="interleaved"` (as in the paper, and the default) and `layout="concatenated"`.

# %%
n, d = 40, 16
PE = sinusoidal_encoding(n, d, dtype=double)  # (n, d)
PE_cat = sinusoidal_encoding(n, d, dtype=double, layout="concatenated")
order = [*range(0, d, 2), *range(1, d, 2)]  # all sines, then all cosines
Pi = torch.eye(d, dtype=double)[:, order]  # (d, d)
W = torch.randn(d, 5, generator=torch.Generator().manual_seed(1), dtype=double)
check("the other layout is a permutation of columns", PE_cat, PE @ Pi)
check("eq-sinusoidal-encoding-layout", PE_cat @ (Pi.T @ W), PE @ W)
gap = (PE_cat @ W - PE @ W).abs().max()
check("the same W on the other layout is another model", gap > 1)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# “That is, each dimension of the positional encoding corresponds to a sinusoid. The wavelengths
# form a geometric progression from $2\pi$ to $10000 \cdot 2\pi$. We chose this function because we
# hypothesized it would allow the model to easily learn to attend by relative positions, since for
# any fixed offset $k$, $PE_{pos+k}$ can be represented as a linear function of $PE_{pos}$.”
# {cite:t}`vaswani2017` (§3.5). Our $p$ is its $pos$.
# :::
#
# :::{admonition} Our remark
# :class: remark
# The quotation holds one fact and one hypothesis. That a shift is linear is proven in step 1. That
# this lets a model *learn* to attend by relative position is a hope: step 3 shows that suitable
# weights exist, and the measurement on real text shows what training makes of it.
# :::

# %% [markdown]
# ## Derivation
#
# Seven steps. The first four say what is in the encoding, the fifth why it takes two functions, the
# last two what happens when it meets words.
#
# ### Step 1. A shift is a rotation
#
# Take one pair and call its frequency $\omega$. Write the pair at position $p$ as a column
#
# $$
# u(p) = \begin{pmatrix} \sin p\omega \\ \cos p\omega \end{pmatrix} .
# $$ (def-sinusoidal-encoding-pair)
#
# Draw it with the sine to the right and the cosine upwards. It is the hand of a clock: it has
# length one, points to twelve at $p = 0$, and moves clockwise by the angle $\omega$ at each step.
#
# What does it look like $k$ positions later? We need the sine and the cosine of a sum of angles.
# Both come out of one line, $e^{\mathrm{i}(a+b)} = e^{\mathrm{i}a}\, e^{\mathrm{i}b}$ with
# $e^{\mathrm{i}a} = \cos a + \mathrm{i} \sin a$. Multiply out:
#
# $$
# \begin{aligned}
# & (\cos a + \mathrm{i}\sin a)(\cos b + \mathrm{i}\sin b) \\
# & \quad = (\cos a\cos b - \sin a\sin b) \\
# & \qquad {} + \mathrm{i}\,(\sin a\cos b + \cos a\sin b) ,
# \end{aligned}
# $$
#
# and compare imaginary and real parts with those of $e^{\mathrm{i}(a+b)}$. With $a = p\omega$ and
# $b = k\omega$:
#
# $$
# \begin{aligned}
# \sin\big((p+k)\omega\big) &= \cos k\omega \,\sin p\omega + \sin k\omega \,\cos p\omega \\
# \cos\big((p+k)\omega\big) &= -\sin k\omega \,\sin p\omega + \cos k\omega \,\cos p\omega .
# \end{aligned}
# $$ (eq-sinusoidal-encoding-addition)
#
# On the right stand the two entries of $u(p)$, each with a factor in which $p$ does not occur.
# So this is a matrix times a vector:
#
# $$
# \begin{gathered}
# u(p + k) = R(k\omega)\, u(p), \\
# R(\theta) = \begin{pmatrix} \cos\theta & \sin\theta \\ -\sin\theta & \cos\theta \end{pmatrix} .
# \end{gathered}
# $$ (eq-sinusoidal-encoding-rotation)
#
# $R(\theta)$ turns the hand clockwise by $\theta$. All pairs together: write
# $\operatorname{PE}(p)$ for row $p$ as a column, and put the $d/2$ rotations on the diagonal of
# one matrix. Each pair minds its own block:
#
# $$
# \begin{gathered}
# \operatorname{PE}(p + k) = T_k \operatorname{PE}(p), \\
# T_k = \begin{pmatrix} R(k\omega_0) & & \\ & \ddots & \\ & & R(k\omega_{d/2-1}) \end{pmatrix} .
# \end{gathered}
# $$ (eq-sinusoidal-encoding-shift)
#
# $T_k$ is the same for every $p$. This is the paper's “linear function”, and we see more than
# linearity. Since $\cos^2\theta + \sin^2\theta = 1$, and the mixed terms cancel, $R(\theta)^\top
# R(\theta) = I$. The same then holds block by block:
#
# $$
# T_k^\top T_k = I .
# $$ (eq-sinusoidal-encoding-orthogonal)
#
# A shift changes no length and no angle. And a turn by $k\omega$ followed by a turn by $l\omega$ is
# a turn by $(k + l)\omega$, so
#
# $$
# T_k\, T_l = T_{k+l}, \qquad T_k^{-1} = T_k^\top = T_{-k} .
# $$ (eq-sinusoidal-encoding-group)
#
# Shifts add up as offsets do, and a shift back undoes a shift. No table was needed to say so:
# $T_k$ can be written down for any $k$, also for one that nobody has seen.


# %%
def frequencies(d, base=10000.0):
    return base ** (-torch.arange(0, d, 2, dtype=double) / d)  # (d/2,)


def shift_matrix(k, d):
    """T_k of the interleaved layout, (d, d)."""
    blocks = []
    for w in frequencies(d).tolist():
        c, s = math.cos(k * w), math.sin(k * w)
        blocks.append(torch.tensor([[c, s], [-s, c]], dtype=double))
    return torch.block_diag(*blocks)


w, p, k = frequencies(d)[1], torch.arange(n, dtype=double), 17
later = torch.stack([((p + k) * w).sin(), ((p + k) * w).cos()])  # (2, n)
right_side = torch.stack(
    [
        (k * w).cos() * (p * w).sin() + (k * w).sin() * (p * w).cos(),
        -(k * w).sin() * (p * w).sin() + (k * w).cos() * (p * w).cos(),
    ]
)
check("eq-sinusoidal-encoding-addition", right_side, later)
block = shift_matrix(k, d)[2:4, 2:4]  # R(k ω_1)
check(
    "eq-sinusoidal-encoding-rotation", block @ PE[: n - k, 2:4].T, PE[k:, 2:4].T
)

long = sinusoidal_encoding(2000, 512, dtype=double)
T = shift_matrix(17, 512)
check("eq-sinusoidal-encoding-shift", long[:-17] @ T.T, long[17:])
check(
    "eq-sinusoidal-encoding-orthogonal", T.T @ T, torch.eye(512, dtype=double)
)
check(
    "eq-sinusoidal-encoding-group",
    T @ shift_matrix(5, 512),
    shift_matrix(22, 512),
)
check("a shift back is the transpose", shift_matrix(-17, 512), T.T)

# %% [markdown]
# **Without the pair.** The proof used that sine and cosine of one angle stand side by side. Step 5
# drops the cosines, and the box D03 gives each column a frequency of its own. Both times the
# linear map is gone.
#
# Now move it yourself. Each clock below is a pair, with a hand for position $p$ and one for $p +
# k$. Move $p$: all hands move, and no turn changes. Move $k$: fast clocks spin, slow ones creep.
# The curve below the clocks is the subject of the next step.

# %%
PositionRotation(name="position-rotation")

# %% [markdown]
# ### Step 2. What a dot product knows: distance
#
# Every hand has length one, so
#
# $$
# \lVert \operatorname{PE}(p) \rVert^2 = \sum_{i=0}^{d/2-1} (\sin^2 p\omega_i + \cos^2 p\omega_i)
# = \frac{d}{2} .
# $$ (eq-sinusoidal-encoding-norm)
#
# No position is louder than another. For two positions $i$ and $j$, a pair contributes $\sin
# i\omega \sin j\omega + \cos i\omega \cos j\omega$, and that is the cosine of the difference of
# the angles, by the second line of {eq}`eq-sinusoidal-encoding-addition` with $k\omega =
# -j\omega$:
#
# $$
# \operatorname{PE}(i) \cdot \operatorname{PE}(j) = \sum_{m=0}^{d/2-1} \cos\big((i - j)\,\omega_m\big)
# =: g(i - j) .
# $$ (eq-sinusoidal-encoding-gram)
#
# Three things are to be read off. The matrix of all these dot products depends on $i - j$ only: it
# is constant along each diagonal, a *Toeplitz* matrix. The largest entry is $g(0) = d/2$. And the
# cosine is even, so
#
# $$
# g(-k) = g(k) .
# $$ (eq-sinusoidal-encoding-even)
#
# **A plain dot product of two encodings cannot tell “three before” from “three after”.** The same
# goes for the distance, which is a function of $g$:
#
# $$
# \begin{aligned}
# \lVert \operatorname{PE}(i) - \operatorname{PE}(j) \rVert^2
# &= \tfrac{d}{2} + \tfrac{d}{2} - 2\,g(i-j) \\
# &= d - 2\,g(i - j) .
# \end{aligned}
# $$ (eq-sinusoidal-encoding-distance)

# %%
gram = long @ long.T  # (2000, 2000)
offset = torch.arange(2000, dtype=double)
g = (offset[:, None] * frequencies(512)).cos().sum(-1)  # g(0), g(1), …
check("eq-sinusoidal-encoding-norm", long.square().sum(-1), 256.0)
index = (torch.arange(2000)[:, None] - torch.arange(2000)).abs()
check("eq-sinusoidal-encoding-gram", gram, g[index], atol=1e-10)
ahead, back = gram[1000, 1000:], gram[1000, 1:1001].flip(0)
check("eq-sinusoidal-encoding-even", ahead, back, atol=1e-10)
distance = (long[:100, None] - long[None, :100]).square().sum(-1)
check(
    "eq-sinusoidal-encoding-distance",
    distance,
    512 - 2 * g[index[:100, :100]],
    atol=1e-10,
)

# %% [markdown]
# How does $g$ fall? For large $d$ the frequencies lie close together, and the mean over pairs
# becomes an integral over $t = 2i/d$ from zero to one. Substitute $v = k\,10000^{-t}$, so that
# $\mathrm{d}v = -v \ln 10000\,\mathrm{d}t$:
#
# $$
# \begin{aligned}
# \frac{2}{d}\, g(k) &\approx \int_0^1 \cos\!\big(k\, 10000^{-t}\big)\, \mathrm{d}t \\
# &= \frac{1}{\ln 10000} \int_{k/10000}^{k} \frac{\cos v}{v}\, \mathrm{d}v .
# \end{aligned}
# $$
#
# Up to $v \approx 1$ the integrand is nearly $1/v$, and its integral a logarithm. Beyond, the
# cosine changes sign again and again, and little is added. In terms of the cosine integral
# $\operatorname{Ci}(x) = -\int_x^\infty \cos v/v\,\mathrm{d}v$, which is $\gamma + \ln x$ for
# small $x$ and at most about $1/x$ for large $x$, with Euler's constant $\gamma$,
#
# $$
# \frac{2}{d}\, g(k) \;\approx\; 1 - \frac{\gamma + \ln k}{\ln 10000}
# \qquad (1 \ll k \ll 10000).
# $$ (eq-sinusoidal-encoding-logarithm)
#
# The dot product falls with the *logarithm* of the distance: each doubling of $k$ costs the same.
# What was left out is a ripple of size $1/(k \ln 10000)$ with the period of the fastest pair; and
# with finitely many pairs, far out, their turns no longer fill the circle evenly and the ripple
# grows again. So $g$ does not fall steadily. We check the logarithm at $d = 4096$, and look for
# rises at usual sizes.

# %%
ks = torch.arange(10, 1001, dtype=double)
mean_cosine = (ks[:, None] * frequencies(4096)).cos().mean(-1)  # 2 g(k) / d


def logarithm(k):
    return 1 - (np.euler_gamma + k.log()) / math.log(10000)


ripple = 1 / (ks * math.log(10000)) + 1 / 2048  # and something for finite d
excess = (mean_cosine - logarithm(ks)).abs() / ripple
check("eq-sinusoidal-encoding-logarithm", bool((excess <= 1).all()))

for d in (16, 512):
    g_d = (offset[:, None] * frequencies(d)).cos().mean(-1)  # 2 g(k) / d
    first = next(k for k in range(1, 2000) if g_d[k + 1] > g_d[k])
    print(f"d = {d:3}: the first rise is from k = {first} to {first + 1}")
    glue(f"sinusoidal-rise-{d}", first)
    if d == 16:
        print("         ", [round(x, 3) for x in g_d[:10].tolist()])
        glue("sinusoidal-g-2", g_d[2])
        glue("sinusoidal-g-6", g_d[6])
        check("six positions away looks nearer than two", g_d[6] > g_d[2])
    else:
        glue("sinusoidal-g-1000", g_d[1000])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 3.2))
ks = torch.arange(-64, 65)
ax.plot(ks, g[ks.abs()] / 256, color=COLORS["scores"], label="$d = 512$")
small = (ks.double()[:, None] * frequencies(16)).cos().mean(-1)
ax.plot(ks, small, ":", color=COLORS["key"], label="$d = 16$")
ax.plot(
    ks[ks != 0],
    logarithm(ks[ks != 0].abs().double()),
    "--",
    color=COLORS["reference"],
    label="logarithm",
)
ax.set(xlabel="offset $k$", ylabel="$g(k)$ as a share of $d/2$")
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-sinusoidal-encoding-gram",
    caption="The dot product of two encodings, $k$ positions apart. It is "
    "even: left and right are mirror images. It falls like a logarithm, with "
    "ripples; with few pairs the ripples are large.",
    alt="Three curves over offsets from minus 64 to 64, all symmetric with "
    "their peak at zero. The one for d = 512 falls along a smooth logarithm "
    "with small ripples, the one for d = 16 swings widely.",
)

# %% [markdown]
# For $d = 16$ the curve already turns up after $k =$ {glue:text}`sinusoidal-rise-16:.0f`, and six
# positions away ({glue:text}`sinusoidal-g-6:.3f` of the maximum) looks nearer than two
# ({glue:text}`sinusoidal-g-2:.3f`). For $d = 512$ it first rises after $k =$
# {glue:text}`sinusoidal-rise-512:.0f` ({numref}`fig-sinusoidal-encoding-gram`). “The dot product
# shrinks with the distance” is therefore true of the trend and false of neighbours. And it shrinks
# slowly: at $d = 512$ and a thousand positions apart there is still
# {glue:text}`sinusoidal-g-1000:.2f` of it left.
#
# ### Step 3. How learned projections find the direction
#
# Attention does not compare encodings as they are. It projects them first: a query is
# $W_Q^\top \operatorname{PE}(i)$, a key is $W_K^\top \operatorname{PE}(j)$. The part of the score
# that comes from positions alone is therefore
#
# $$
# s(i, j) = \operatorname{PE}(i)^\top A \operatorname{PE}(j), \qquad A = W_Q W_K^\top .
# $$ (def-sinusoidal-encoding-score)
#
# Step 2 was the case $A = I$. Put a rotation inside instead. With $W_Q = I$ and $W_K = T_1^\top$,
# every key is turned one step further, $T_1 \operatorname{PE}(j) = \operatorname{PE}(j + 1)$, and
#
# $$
# s(i, j) = \operatorname{PE}(i) \cdot \operatorname{PE}(j + 1) = g(i - j - 1) .
# $$ (eq-sinusoidal-encoding-look-back)
#
# The peak has moved to $j = i - 1$: this head looks one word back, from every position, and it can
# tell back from forth ({numref}`fig-sinusoidal-encoding-look-back`). More generally, let each $2
# \times 2$ block of $A$ be a rotation $r_m R(\theta_m)$ with a size and an angle of its own.
# $R(\theta)$ turns the hand at $j$ clockwise by $\theta$, and the dot product of two unit vectors
# is the cosine of the angle between them:
#
# $$
# s(i, j) = \sum_{m=0}^{d/2-1} r_m \cos\big((i - j)\,\omega_m - \theta_m\big) .
# $$ (eq-sinusoidal-encoding-phase)
#
# Any sum of $d/2$ waves in the offset, each with its amplitude and its phase: so rich is the family
# of relative scores. (A head of width $d_k < d$ has an $A$ of rank $d_k$ at most, and so $d_k/2$
# waves.) Why these are relative can be said without cosines. If $A$ commutes with the shift,
# $A\,T_1 = T_1 A$, then for every $k$
#
# $$
# \begin{aligned}
# s(i + k, j + k) &= \operatorname{PE}(i)^\top T_k^\top A\, T_k \operatorname{PE}(j) \\
# &= \operatorname{PE}(i)^\top A\, T_k^\top T_k \operatorname{PE}(j) = s(i, j) .
# \end{aligned}
# $$ (eq-sinusoidal-encoding-relative)
#
# In the middle, $T_k^\top A = A\,T_k^\top$, because $T_k^\top$ is the inverse of $T_k$, a power of
# $T_1$.

# %%
generator = torch.Generator().manual_seed(2)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


n, d = 48, 16
PE = sinusoidal_encoding(n, d, dtype=double)
W_K = shift_matrix(1, d).T
scores = PE @ (PE @ W_K).T  # (n, n), row i is the query
i, j = torch.arange(n)[:, None], torch.arange(n)
want = ((i - j - 1).double()[..., None] * frequencies(d)).cos().sum(-1)
check("eq-sinusoidal-encoding-look-back", scores, want)
best = scores.argmax(-1)
check(
    "every query after the first looks one back",
    bool((best[1:] == i[1:, 0] - 1).all()),
)

size, angle = randn(d // 2), randn(d // 2)
blocks = []
for r, a in zip(size, angle, strict=True):
    rotation = torch.stack(
        [torch.stack([a.cos(), a.sin()]), torch.stack([-a.sin(), a.cos()])]
    )
    blocks.append(r * rotation)
A = torch.block_diag(*blocks)
scores_A = PE @ A @ PE.T
phase = (i - j).double()[..., None] * frequencies(d) - angle
check("eq-sinusoidal-encoding-phase", scores_A, (size * phase.cos()).sum(-1))
check(
    "such an A commutes with the shift",
    A @ shift_matrix(1, d),
    shift_matrix(1, d) @ A,
)
check("eq-sinusoidal-encoding-relative", scores_A[5:, 5:], scores_A[:-5, :-5])


def along_diagonals(scores):
    """Largest spread of scores that have the same offset."""
    return max(
        (scores.diagonal(k).max() - scores.diagonal(k).min()).item()
        for k in range(-n + 2, n - 1)
    )


loose = PE @ (randn(d, d) / math.sqrt(d)) @ PE.T
glue("sinusoidal-loose-spread", along_diagonals(loose) / loose.std())
check(
    "a relative score is constant along diagonals",
    along_diagonals(scores_A),
    0.0,
)
check("an arbitrary one is not", along_diagonals(loose) > loose.std())

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(5.1, 2.9), sharey=True)
for ax, matrix, title in [
    (axes[0], PE @ PE.T, "no projection"),
    (axes[1], scores, "$W_K = T_1^\\top$"),
]:
    heatmap(ax, matrix[:12, :12])
    ax.plot(matrix[:12, :12].argmax(-1), range(12), "o", color=COLORS["key"])
    ax.set(title=title, xlabel="key position $j$")
axes[0].set_ylabel("query position $i$")
show_figure(
    fig,
    name="fig-sinusoidal-encoding-look-back",
    caption="Scores of twelve positions with each other, from encodings "
    "alone; a dot marks each query's best key. Left: symmetric, everyone "
    "looks at itself. Right: a rotation by one step inside $W_K$ makes every "
    "query but the first look one back.",
    alt="Two heat maps of twelve queries by twelve keys, constant along "
    "diagonals. Left, the dots lie on the main diagonal. Right, they lie one "
    "to the left of it, except in the first row.",
)

# %% [markdown]
# **Without the hypothesis.** An $A$ that mixes pairs does not commute with the shift. For a random
# one, scores of the same offset differ by up to {glue:text}`sinusoidal-loose-spread:.1f` standard
# deviations from place to place: such a head attends by *absolute* position. Nothing in the formula
# keeps training from using that, and the measurement below shows that it does.
#
# ### Step 4. The wavelengths
#
# Pair $i$ is back where it was after $\lambda_i = 2\pi/\omega_i$ positions. Divide two neighbours:
#
# $$
# \lambda_i = 2\pi \cdot 10000^{2i/d}, \qquad \frac{\lambda_{i+1}}{\lambda_i} = 10000^{2/d} .
# $$ (eq-sinusoidal-encoding-wavelengths)
#
# Each is a fixed multiple of the one before: a geometric progression, as the paper says. It begins
# at $2\pi$. Where does it end? The last pair is $i = d/2 - 1$, so
#
# $$
# \lambda_{d/2-1} = 2\pi \cdot 10000^{\,1 - 2/d} < 2\pi \cdot 10000 .
# $$ (eq-sinusoidal-encoding-last)
#
# “From $2\pi$ to $10000 \cdot 2\pi$” is exact only in the limit of large $d$.

# %%
for d in (8, 64, 512):
    # the wavelengths, from the table itself: how far did each hand turn?
    one_step = sinusoidal_encoding(1, d, start=1, dtype=double)[0]
    turned = torch.atan2(one_step[0::2], one_step[1::2])  # (d/2,)
    wavelength = 2 * math.pi / turned
    formula = 2 * math.pi * 10000 ** (torch.arange(0, d, 2, dtype=double) / d)
    check("eq-sinusoidal-encoding-wavelengths", wavelength / formula, 1.0)
    check(
        "eq-sinusoidal-encoding-last",
        wavelength[-1] / (2 * math.pi),
        10000 ** (1 - 2 / d),
        atol=1e-8,
    )
    last = wavelength[-1] / math.tau
    print(f"d = {d:3}: the last wavelength is {last:6.1f} · 2π")
    glue(f"sinusoidal-last-{d}", last)
some = 512  # positions
glue("sinusoidal-slow", (wavelength > some).double().mean())
glue("sinusoidal-slow-n", some)

# %% [markdown]
# For $d = 512$ it ends at {glue:text}`sinusoidal-last-512:.0f` times $2\pi$, for $d = 8$ at
# {glue:text}`sinusoidal-last-8:.0f` times $2\pi$. (The authors' own code, tensor2tensor, spaces the
# frequencies a little differently, so that its last wavelength is $10000 \cdot 2\pi$ exactly.)
#
# Why so many scales? The first pair alone tells all positions apart: it would repeat after $k$
# steps only if $k$ were a multiple of $2\pi$, and no whole number is. But it may come close:

# %%
first = long[:, :2]
apart = (first[1:1001] - first[0]).norm(dim=-1)  # from position 0 to 1 … 1000
closest = int(apart.argmin()) + 1
all_pairs = (long[1:1001] - long[0]).norm(dim=-1)
nearest = int(all_pairs.argmin()) + 1
print("distances from position 0")
print(f"first pair alone: {apart.min():.1e} to position {closest}, the nearest")
print(f"all 256 pairs:    {all_pairs[closest - 1]:.2f} to position {closest}")
print(
    f"                  {all_pairs.min():.2f} to position {nearest}, the nearest"
)
check("the fast pair nearly repeats", apart.min() < 1e-3)
check("all pairs together do not", all_pairs.min() > 1)

# %% [markdown]
# Fast pairs tell neighbours apart and forget the page; slow pairs know the page and blur the
# neighbours. It is how a clock works: the minute hand for the fine, the hour hand for the coarse.
# How slow is slow depends on the text. At $d = 512$, {glue:text}`sinusoidal-slow:.0%` of the pairs
# do not complete a single turn within {glue:text}`sinusoidal-slow-n:.0f` positions.
#
# ### Step 5. Why it takes both sine and cosine
#
# Keep the sines and drop the cosines. The first line of {eq}`eq-sinusoidal-encoding-addition` then
# wants a term that is not there, $\sin k\omega \cos p\omega$. How much is lost? Take one frequency
# and $N$ positions that cover whole turns. Over whole turns the mean of $\sin^2$ is one half and
# that of $\sin\cos$ is zero. So the best coefficient for predicting $\sin((p+k)\omega)$ from $\sin
# p\omega$ is $\cos k\omega$, and the share of the variance that it explains is
#
# $$
# R^2 = \frac{\cos^2 k\omega \cdot \frac12}{\frac12} = \cos^2 k\omega .
# $$ (eq-sinusoidal-encoding-sine-only)
#
# A shift by a quarter turn is lost altogether. The sine alone says how far to the right the hand
# points, and not whether it points up or down; and that decides which way it goes next. With many
# frequencies, can the sines help each other out? We predict the sines seven positions later by a
# linear map, once from all sines and once from all pairs.


# %%
def r_squared(source, target):
    """Share of the target's variance that a linear map of the source explains."""
    solution = torch.linalg.lstsq(source, target, driver="gelsd").solution
    rest = target - source @ solution
    centred = target - target.mean(0)
    return 1 - (rest.square().sum() / centred.square().sum()).item()


N, turns = 64, 5
w = 2 * math.pi * turns / N
p = torch.arange(N, dtype=double)
for k in (1, 3, 7):
    found = r_squared((p * w).sin()[:, None], ((p + k) * w).sin()[:, None])
    check("eq-sinusoidal-encoding-sine-only", found, math.cos(k * w) ** 2)

d, k = 16, 7
both = sinusoidal_encoding(2000, d, dtype=double)
sines = both[:, 0::2]
print(f"to predict the sines {k} positions later, d = {d}:")
print("pair   cos² kω   R² from all sines   R² from all pairs")
found = {"sines": [], "pairs": []}
for pair, w in enumerate(frequencies(d).tolist()):
    target = sines[k:, pair : pair + 1]
    found["sines"].append(r_squared(sines[:-k], target))
    found["pairs"].append(r_squared(both[:-k], target))
    print(
        f"{pair:4}{math.cos(k * w) ** 2:10.3f}{found['sines'][-1]:20.3f}"
        f"{found['pairs'][-1]:20.3f}"
    )
glue("sinusoidal-r2-sines", r_squared(sines[:-k], sines[k:]))
glue("sinusoidal-r2-worst", min(found["sines"]))
check(
    "the pairs explain everything",
    r_squared(both[:-k], both[k:]),
    1.0,
    atol=1e-10,
)
check("the sines do not explain the fast pairs", max(found["sines"][:2]) < 0.7)
check("the slow ones they do", min(found["sines"][4:]) > 0.95)

# %% [markdown]
# All sines together explain {glue:text}`sinusoidal-r2-sines:.2f` of the variance, the pairs all of
# it. The single number hides where the loss is. Slow pairs hardly move in seven positions, so
# $\cos^2 k\omega$ is nearly one and the sine predicts itself. Fast pairs are those that tell
# neighbours apart, and there $R^2$ falls to {glue:text}`sinusoidal-r2-worst:.2f`. (How much in all
# depends on $k$, on $d$, and on how many positions are looked at: many sines on few positions can
# fit anything.)
#
# ### Step 6. What adding does to a score
#
# The model never sees $\operatorname{PE}$ alone. It sees $x = c + \operatorname{PE}(p)$, with $c =
# \sqrt{d}\,E[t]$ for the word. Does adding not mix up what should be kept apart? Multiply a score
# out, with $a_i = \operatorname{PE}(i)$ for short:
#
# $$
# \begin{aligned}
# & (c_i + a_i)^\top A\, (c_j + a_j) \\
# & \quad = \underbrace{c_i^\top A\, c_j}_{\text{word–word}}
# + \underbrace{c_i^\top A\, a_j}_{\text{word–place}} \\
# & \qquad {} + \underbrace{a_i^\top A\, c_j}_{\text{place–word}}
# + \underbrace{a_i^\top A\, a_j}_{\text{place–place}} .
# \end{aligned}
# $$ (eq-sinusoidal-encoding-four-terms)
#
# Adding before the projection gives a head four questions to ask at once. Which of them it hears
# depends on how loud words and places are. Let the entries of $A$ be random: independent, mean
# zero, variance $\sigma^2$. Each term $u^\top A\,v = \sum_{ab} u_a A_{ab} v_b$ is then a sum of
# independent terms of variance $u_a^2 v_b^2 \sigma^2$, so
#
# $$
# \operatorname{Var}(u^\top A\, v) = \sigma^2\, \lVert u \rVert^2\, \lVert v \rVert^2 .
# $$ (eq-sinusoidal-encoding-term)
#
# All places have $\lVert a \rVert^2 = d/2$, by {eq}`eq-sinusoidal-encoding-norm`. Let all words
# have $\lVert c \rVert^2 = s^2$. The four variances are $\sigma^2$ times $s^4$, $s^2 d/2$, $s^2
# d/2$ and $d^2/4$. Their sum is $\sigma^2 (s^2 + d/2)^2$, and the share of the first is
#
# $$
# \text{share of word–word} = \left( \frac{s^2}{s^2 + d/2} \right)^{\!2} .
# $$ (eq-sinusoidal-encoding-share)
#
# The rest depends on how the embedding $E$ begins. If its entries have standard deviation
# $1/\sqrt{d}$, as suits a matrix that is also used for the output, then $\lVert E[t] \rVert$ is
# about one. *Without* the factor $\sqrt{d}$, $s^2 = 1$ and the share is $1/(1 + d/2)^2$: at the
# start, scores are all about places. *With* it, $s^2 = d$ and the share is $(2/3)^2 = 4/9$,
# whatever $d$.

# %%
d, draws = 16, 40_000
e_i, e_j = randn(d), randn(d)
p_i, p_j = sinusoidal_encoding(12, d, dtype=double)[[3, 11]]
A = randn(draws, d, d)  # σ = 1


def unit(v):
    return v / v.norm()


def term(u, v):
    return torch.einsum("a,nab,b->n", u, A, v)


relative_error = math.sqrt(2 / draws)  # of the variance of normal numbers
for s in (1.0, math.sqrt(d)):
    c_i, c_j = s * unit(e_i), s * unit(e_j)
    four = [term(u, v) for u in (c_i, p_i) for v in (c_j, p_j)]
    check(
        "eq-sinusoidal-encoding-four-terms",
        sum(four),
        term(c_i + p_i, c_j + p_j),
        atol=1e-10,
    )
    variances = torch.stack(four).var(-1)
    theory = [s**4, s**2 * d / 2, s**2 * d / 2, d**2 / 4]
    check(
        "eq-sinusoidal-encoding-term",
        variances / torch.tensor(theory),
        1.0,
        atol=5 * relative_error,
    )
    share = (s**2 / (s**2 + d / 2)) ** 2
    check(
        "eq-sinusoidal-encoding-share",
        variances[0] / variances.sum() / share,
        1.0,
        atol=10 * relative_error,
    )

print("d = 512                              ‖word‖  word–word  place–place")
for name, std, factor in [
    ("std 1/√d, no factor", 512**-0.5, 1.0),
    ("std 1/√d, times √d (the paper)", 512**-0.5, 512**0.5),
    ("std 1 (nn.Embedding), no factor", 1.0, 1.0),
    ("std 1 (nn.Embedding), times √d", 1.0, 512**0.5),
]:
    s2 = 512 * (std * factor) ** 2
    words, places = (s2 / (s2 + 256)) ** 2, (256 / (s2 + 256)) ** 2
    print(f"{name:36}{math.sqrt(s2):7.1f}{words:11.2%}{places:13.2%}")

# %% [markdown]
# The table has a trap in its last line. The factor belongs to *small* embeddings. PyTorch's
# `nn.Embedding` begins with standard deviation one, which is already the paper's size *after* the
# factor. Multiply these as well, and places all but vanish beside words. So “multiply by
# $\sqrt{d}$” is half a rule. The whole one is: let words begin about as long as places.
#
# :::{admonition} The paper says
# :class: paper
# “In the embedding layers, we multiply those weights by $\sqrt{d_{\text{model}}}$.”
# {cite:t}`vaswani2017` (§3.4), without a reason, and without saying how the weights begin. The same
# matrix serves as the last linear map there, which wants small entries.
# :::
#
# :::{admonition} Our remark
# :class: remark
# The argument is about the first step. Training may move the lengths, and $A$, as it likes.
# {cite:t}`dai2019` (§3.3) start from the four terms and change three of them: there places enter as
# offsets $i - j$.
# :::
#
# ### Step 7. From adding to turning: rotary encoding
#
# Equations {eq}`eq-sinusoidal-encoding-orthogonal` and {eq}`eq-sinusoidal-encoding-group` suggest
# another use of $T$. Don't add a place to a word: *turn* the query at position $i$ by $T_i$ and the
# key at position $j$ by $T_j$. Their dot product is
#
# $$
# \langle T_i\, q,\; T_j\, k \rangle = q^\top T_i^\top T_j\, k = q^\top T_{j-i}\, k .
# $$ (eq-sinusoidal-encoding-rotary)
#
# Transpose, inverse, sum of offsets: three facts of step 1. The score of *any* two contents
# depends on positions through $j - i$ alone; no clever $A$ is needed, and no absolute position is
# left to be learned by heart. Nor does turning change a length, so no place is louder than a word.
# This is *rotary position embedding*; {cite:t}`su2021` (§3.2) proposed it, four years after the
# Transformer. In the sinusoidal encoding places and words are added; here they are multiplied.

# %%
q, key = randn(d), randn(d)


def turned(i, j):
    return (shift_matrix(i, d) @ q) @ (shift_matrix(j, d) @ key)


for i, j in [(0, 5), (3, 8), (400, 405), (9, 2)]:
    check(
        "eq-sinusoidal-encoding-rotary",
        turned(i, j),
        q @ shift_matrix(j - i, d) @ key,
    )
check("it is relative", turned(3, 8), turned(400, 405))
check("and not blind to direction", abs(turned(0, 5) - turned(5, 0)) > 0.1)

# %% [markdown]
# ## From scratch
#
# Now with numbers that fit on a napkin: $d = 4$, so two clocks. The frequencies are $\omega_0 =
# 10000^0 = 1$ and $\omega_1 = 10000^{-2/4} = 1/100$.


# %%
def encode(n, d):
    """Sinusoidal encoding in plain Python, one list a position."""
    rows = []
    for p in range(n):
        row = []
        for i in range(d // 2):
            angle = p / 10000 ** (2 * i / d)
            row += [math.sin(angle), math.cos(angle)]
        rows.append(row)
    return rows


by_hand = encode(4, 4)
print("p   sin p    cos p   sin p/100  cos p/100")
for p, row in enumerate(by_hand):
    print(p, "".join(f"{x:9.4f}" for x in row))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


c, s = math.cos(1), math.sin(1)  # the turn of the first pair, one step
sin1, cos1 = by_hand[1][:2]
print(
    "first pair at 1, turned one step:",
    round(c * sin1 + s * cos1, 4),
    round(-s * sin1 + c * cos1, 4),
)
print("PE(1)·PE(1) =", round(dot(by_hand[1], by_hand[1]), 4))
print("PE(1)·PE(2) =", round(dot(by_hand[1], by_hand[2]), 4))
print("PE(2)·PE(3) =", round(dot(by_hand[2], by_hand[3]), 4))
print("cos 1 + cos 1/100 =", round(math.cos(1) + math.cos(1 / 100), 4))

# %% [markdown]
# Set a pocket calculator to radians and redo a line. The first pair at position two is $(\sin 2,
# \cos 2)$. Turning the pair at position one by one step gives the same two numbers,
# $2 \sin 1 \cos 1$ and $\cos^2 1 - \sin^2 1$. The dot product of a row with itself is $d/2$, so
# two. Neighbours give the same number wherever they stand: $\cos 1 + \cos \frac{1}{100}$.

# %%
library = sinusoidal_encoding(4, 4, dtype=double)
check("by hand = the library", by_hand, library)
check(
    "neighbours are alike everywhere",
    dot(by_hand[1], by_hand[2]),
    dot(by_hand[2], by_hand[3]),
)

# %% [markdown]
# ## The library function
#
# The library's version makes the table in one go, for any first position.
#
# ```{lib-source} lib.positions.sinusoidal_encoding
# ```
#
# Three decisions deserve a word.
#
# **An odd width is refused.** Its last sine would have no cosine to turn with, and everything
# above would fail for it.

# %%
try:
    sinusoidal_encoding(4, 7)
except ValueError as error:
    message = str(error)
print(message)
check("an odd width is refused by name", "even" in message and "7" in message)

# %% [markdown]
# **Angles are computed in float64, and rounded once at the end.** Single precision keeps 24 binary
# digits. A number near $10^5$ takes 17 of them before the point, so a product $p\,\omega_i$ of
# that size is known to within $2^{-8}$ at best; and the sine hands the error of its angle on, in
# full where it is steepest. {numref}`fig-sinusoidal-encoding-precision` measures it, for the two
# ways in which popular code writes the frequencies.


# %%
def division(position, d):
    """Angles in float32: p / 10000^(2i/d)."""
    return position / 10000.0 ** (torch.arange(0, d, 2) / d)


def exponential(position, d):
    """Angles in float32: p · exp(−2i ln(10000)/d), as in much code."""
    step = -math.log(10000.0) / d
    return position * torch.exp(torch.arange(0, d, 2).float() * step)


exponents = [0, 1, 2, 3, 4, 5, 6]
errors = {name: [] for name in ("exponential", "division", "library")}
for exponent in exponents:
    worst = dict.fromkeys(errors, 0.0)
    for position in range(10**exponent, 10**exponent + 50):
        exact = sinusoidal_encoding(1, 512, start=position, dtype=double)[
            0, 0::2
        ]
        single = torch.tensor(float(position))
        rounded = sinusoidal_encoding(1, 512, start=position)[0, 0::2]
        for name, sines in [
            ("exponential", exponential(single, 512).sin()),
            ("division", division(single, 512).sin()),
            ("library", rounded),
        ]:
            error = (sines.double() - exact).abs().max().item()
            worst[name] = max(worst[name], error)
    for name, error in worst.items():
        errors[name].append(error)
for name in errors:
    glue(f"sinusoidal-precision-{name}", errors[name][5])
check(
    "the library's float32 is the nearest one, at 10^5 too",
    errors["library"][5],
    0.0,
    atol=2.0**-24,
)
check("angles in float32 are far off there", errors["division"][5] > 1e-3)
check("and so are exponentials", errors["exponential"][5] > 1e-3)
for name in ("division", "exponential"):
    ratio = errors[name][5] / errors[name][2]
    check(f"{name}: the error grows like the position", 300 < ratio < 3000)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 3.2))
for name, marker, color in [
    ("exponential", "o-", "key"),
    ("division", "s--", "query"),
    ("library", "^:", "value"),
]:
    ax.plot(
        [10**e for e in exponents],
        errors[name],
        marker,
        color=COLORS[color],
        label=name,
    )
ax.set(
    xscale="log",
    yscale="log",
    xlabel="position",
    ylabel="largest error of a sine",
    xlim=(0.5, 3e6),
)
ax.set_xticks([1, 100, 10**4, 10**6])
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-sinusoidal-encoding-precision",
    caption="The largest error of a float32 table, over fifty positions from "
    "each power of ten. With angles in float32 it grows with the position; "
    "with angles in float64, rounded once, it stays at the last digit.",
    alt="A log-log chart of error over position from 1 to a million. Two "
    "lines for angles in float32 lie together and rise, from a hundred on in "
    "proportion to the position; the library's line is flat at the bottom.",
)

# %% [markdown]
# At position $10^5$ an entry from float32 angles is off by up to
# {glue:text}`sinusoidal-precision-division:.4f` (division) or
# {glue:text}`sinusoidal-precision-exponential:.4f` (exponential), the library's by
# {glue:text}`sinusoidal-precision-library:.1e`. For a text of a thousand words none of this
# matters. It does in half precision: bfloat16 has eight binary digits, and counts in ones no
# further than $2^8$.

# %%
counted = torch.arange(1000, dtype=torch.bfloat16).unique().numel()
rows = (
    sinusoidal_encoding(1000, 64, dtype=torch.bfloat16).unique(dim=0).shape[0]
)
print(f"of positions 0 … 999, bfloat16 tells {counted} apart;")
print(f"a table computed in float64 and rounded last has {rows} different rows")
check("bfloat16 positions collide", counted < 600)
check("bfloat16 rows do not", rows, 1000)

# %% [markdown]
# **The module adds, and does nothing else.** `SinusoidalEncoding` has no parameters and nothing in
# its state dict. Moved to another precision it computes its table again. `start` gives the position
# of the first token, as needed when earlier ones lie in a cache. `LearnedEncoding` has the same
# contract with a trained table.

# %%
add = SinusoidalEncoding(64, max_length=10).to(device)
x = torch.randn(2, 40, 64, generator=torch.Generator().manual_seed(3)).to(
    device
)
table = sinusoidal_encoding(40, 64, device=device)
check(
    "the module adds the table, past its buffer too", add(x), x + table, atol=0
)
check(
    "one token at a time is the same",
    torch.cat([add(x[:, t : t + 1], start=t) for t in range(40)], 1),
    add(x),
    atol=0,
)
check(
    "nothing to train, nothing to save",
    not list(add.parameters()) and not add.state_dict(),
)

# %% [markdown]
# ## On real data
#
# Three questions. Does a model need to be told positions at all? Is it better to compute them or to
# learn them? And what happens beyond the length that the model was trained on?
#
# We train a small causal language model on characters of real English: an embedding, one
# encoder layer with four heads and a causal mask, and a linear map to the next character. Only the
# positions differ:
#
# - **none**: nothing is added. The causal mask still gives something away: the first character
#   sees one key, the tenth sees ten {cite}`haviv2022`;
# - **sinusoidal**: the fixed table, added once, to embeddings that have about its length;
# - **learned**: a trained table of as many rows as we shall test, which begins small, as in BERT.
#   Training only ever reaches its first rows.
#
# All three are trained on windows of {glue:text}`sinusoidal-train-length:.0f` characters, with the
# same batches for the same seed. Then we read held-out text in windows four times as long, and keep
# the loss *position by position*. A mean over the window would hide what we are looking for.

# %%
text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
train_ids = vocabulary.encode(text.train).to(device)
validation_ids = vocabulary.encode(text.validation).to(device)
length, times = 32, 4
glue("sinusoidal-train-length", length)
print(
    f"{len(text.train):,} training characters, {len(text.validation):,} for "
    f"validation; sha256 {text.sha256[:16]}"
)


class Characters(nn.Module):
    """A causal language model of one layer; only its positions vary."""

    def __init__(self, positions, d=64):
        super().__init__()
        self.embed = nn.Embedding(len(vocabulary), d)
        nn.init.normal_(self.embed.weight, std=d**-0.5)  # about length 1 …
        self.scale = math.sqrt(d)  # … and √d with the factor
        self.positions = positions
        self.layer = EncoderLayer(d, 4, 2 * d, norm="pre")
        self.norm, self.read = LayerNorm(d), nn.Linear(d, len(vocabulary))

    def forward(self, ids, start=0):
        x = self.scale * self.embed(ids)  # (B, n, d)
        if self.positions is not None:
            x = self.positions(x, start)
        return self.read(self.norm(self.layer(x, causal=True)))


arms = {
    "none": lambda: None,
    "sinusoidal": lambda: SinusoidalEncoding(64),
    "learned": lambda: LearnedEncoding(times * length, 64),
}


def train(name, seed):
    torch.manual_seed(seed)
    model = Characters(arms[name]()).to(device)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step):
        inputs, targets = random_windows(train_ids, 16, length, batches)
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    fit(model, batch_loss, steps=600, learning_rate=1e-2)
    return model.eval()


def loss_by_position(model, n, start=0):
    """Mean loss at each of the n positions of held-out windows, (n,)."""
    inputs, targets = consecutive_windows(validation_ids, n)
    with torch.no_grad():
        parts = [
            F.cross_entropy(model(x, start).mT, y, reduction="none").double()
            for x, y in zip(inputs.split(64), targets.split(64), strict=True)
        ]
    return torch.cat(parts).mean(0).cpu()


# %% tags=["nbval-ignore-output"]
seeds = [0, 1, 2]
runs = [(name, seed) for name in arms for seed in seeds]
models = {}
bar = Progress(runs, label=f"training {len(runs)} small models")
for name, seed in bar:
    models[name, seed] = train(name, seed)
    bar.note(f"{name}, seed {seed}")

# %%
curves = {
    name: torch.stack(
        [loss_by_position(models[name, seed], times * length) for seed in seeds]
    )
    for name in arms
}  # each (seeds, positions)
parts = {
    "within": slice(0, length),
    "just beyond": slice(length, 2 * length),
    "far beyond": slice(3 * length, 4 * length),
}
result = {
    (name, part): curve[:, where].mean(-1)
    for name, curve in curves.items()
    for part, where in parts.items()
}
print("nats a character, mean ± standard deviation over seeds, by position")
print(f"{'':12}{'0 … 31':>16}{'32 … 63':>16}{'96 … 127':>16}")
for name in arms:
    row = [result[name, part] for part in parts]
    print(
        f"{name:12}" + "".join(f"{x.mean():9.3f} ± {x.std():.3f}" for x in row)
    )
    for part, x in zip(["within", "beyond", "far"], row, strict=True):
        glue(f"sinusoidal-loss-{name}-{part}", x.mean())
glue(
    "sinusoidal-loss-spread", max(result[name, "within"].std() for name in arms)
)

none, fixed, trained = (result[name, "within"] for name in arms)
check("positions help", max(fixed.max(), trained.max()) < none.min() - 0.2)
check("fixed and learned are close", abs(fixed.mean() - trained.mean()) < 0.12)
for name in ("sinusoidal", "learned"):
    beyond = torch.stack(
        [result[name, "just beyond"], result[name, "far beyond"]]
    )
    check(
        f"{name}: worse than none beyond the length",
        beyond.min() > result["none", "just beyond"].max() + 0.1,
    )
check(
    "without positions the loss changes little",
    result["none", "far beyond"].mean() < none.mean() + 0.25,
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.5))
styles = {
    "none": ("-", "reference"),
    "sinusoidal": ("--", "query"),
    "learned": (":", "key"),
}
blocks = torch.arange(times * length).view(-1, 4).double().mean(-1)
for name, curve in curves.items():
    style, color = styles[name]
    four = curve.view(len(seeds), -1, 4).mean(-1)  # means of four positions
    ax.plot(blocks, four.mean(0), style, color=COLORS[color], label=name)
    ax.fill_between(
        blocks,
        four.amin(0),
        four.amax(0),
        color=COLORS[color],
        alpha=0.25,
        linewidth=0,
    )
ax.axvline(length - 0.5, color=COLORS["reference"], linewidth=1)
ax.set(xlabel="position in the window", ylabel="loss, nats a character")
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-sinusoidal-encoding-extrapolation",
    caption=f"Loss by position; the vertical line marks the training length, "
    f"{length}. Bands span {len(seeds)} seeds. Left of the line both kinds of "
    "position are far ahead of none. Right of it both are worse than none.",
    alt="Loss over positions 0 to 127. Up to the training length the dashed "
    "sinusoidal and the dotted learned curve lie together, well below the "
    "solid one without positions. At the line both jump above it and stay.",
)

# %% [markdown]
# **Within the training length.** Without positions the loss is
# {glue:text}`sinusoidal-loss-none-within:.2f` nats a character, with sinusoids
# {glue:text}`sinusoidal-loss-sinusoidal-within:.2f`, with a learned table
# {glue:text}`sinusoidal-loss-learned-within:.2f`; no standard deviation over the three seeds
# exceeds {glue:text}`sinusoidal-loss-spread:.3f`. Being told the positions is worth a great deal
# here, and computed or learned makes little difference.
#
# **Beyond it.** The sinusoids are *defined* at every position, and that does not help
# ({numref}`fig-sinusoidal-encoding-extrapolation`). Just past the last trained position the loss
# jumps to {glue:text}`sinusoidal-loss-sinusoidal-beyond:.2f`, and it is
# {glue:text}`sinusoidal-loss-sinusoidal-far:.2f` further out. The learned table's untrained rows
# give {glue:text}`sinusoidal-loss-learned-beyond:.2f`. Both are worse than the model that was told
# nothing, with {glue:text}`sinusoidal-loss-none-beyond:.2f`.
#
# :::{admonition} The paper says
# :class: paper
# “We also experimented with using learned positional embeddings […] instead, and found that the two
# versions produced nearly identical results”. In Table 3, row E, that is 25.7 BLEU against 25.8 of
# the base model. “We chose the sinusoidal version because it may allow the model to extrapolate to
# sequence lengths longer than the ones encountered during training.” {cite:t}`vaswani2017` (§3.5)
# :::
#
# :::{admonition} Our remark
# :class: remark
# The first finding we found again, in a small way. The second sentence says *may*, and the paper
# does not measure it. {cite:t}`press2022` (Figure 1) did, with large models on real text: the
# perplexity of sinusoidal models rises beyond the training length. One layer, one text and three
# seeds are little evidence of our own; they point the same way.
# :::
#
# ### Is it the length, or the places?
#
# Beyond position 31 two things are new at once: places never seen, and more keys than ever. To
# part them, keep the windows as short as in training and let only the count begin later:
# `start=32` means that the first character stands at position 32.

# %%
print("windows of 32 characters, counted from:")
print(f"{'':12}" + "".join(f"{s:>16}" for s in (0, length, 3 * length)))
shifted = {}
for name in arms:
    for first in (0, length, 3 * length):
        shifted[name, first] = torch.stack(
            [
                loss_by_position(models[name, seed], length, first).mean()
                for seed in seeds
            ]
        )
    row = [shifted[name, first] for first in (0, length, 3 * length)]
    print(
        f"{name:12}" + "".join(f"{x.mean():9.3f} ± {x.std():.3f}" for x in row)
    )
glue("sinusoidal-restart", shifted["sinusoidal", 0].mean())
glue("sinusoidal-shifted", shifted["sinusoidal", length].mean())
check(
    "new places alone are enough",
    shifted["sinusoidal", length].min() > shifted["sinusoidal", 0].max() + 0.4,
)

glue("sinusoidal-shifted-learned", shifted["learned", length].mean())
check(
    "untrained rows alone do less than mixed with trained ones",
    shifted["learned", length].max() < result["learned", "just beyond"].min(),
)

try:
    LearnedEncoding(length, 64)(torch.zeros(1, length + 1, 64))
except ValueError as error:
    print("a table of 32 rows, asked for 33 positions:")
    print(error)

# %% [markdown]
# The same short windows that give {glue:text}`sinusoidal-restart:.2f` when they are counted from
# zero give {glue:text}`sinusoidal-shifted:.2f` when they are counted from
# {glue:text}`sinusoidal-train-length:.0f`. So new places alone are enough to do the damage. (The
# learned table's untrained rows do less when they are among themselves,
# {glue:text}`sinusoidal-shifted-learned:.2f`, than next to trained ones in a long window.) By step 3 the
# score *could* be a function of offsets only, and then counting from elsewhere would change
# nothing. Training did not find such a solution: it was never asked to. It saw the same few dozen
# vectors again and again, and learned what to do with those.
#
# The plain remedy is in the first column. If you must read a long text with such a model, cut it
# into windows of the trained length and count each from zero. Other remedies change the encoding,
# so that no absolute position is left to be learned by heart: rotary encoding (step 7), or a bias
# that depends on the offset, which a later chapter derives.

# %% [markdown]
# ## Folklore, set right
#
# | What one reads | What is so |
# |---|---|
# | “The encoding is a sum of two sines, one number per position.” | It is a vector of $d$ numbers {eq}`def-sinusoidal-encoding-formula`. One number a position cannot even keep positions apart: D01, D02. |
# | “Each layer adds a positional encoding.” | It is added once, “at the bottoms of the encoder and decoder stacks” {cite}`vaswani2017` (§3.5). Later layers get it through the residual stream. |
# | “The positional code is learned automatically.” | The sinusoids hold no parameter. A learned table is the other option, with nearly the same result {cite}`vaswani2017` (Table 3, row E). |
# | “$x = E[t] + P$.” | The embedding is multiplied by $\sqrt{d}$ first {cite}`vaswani2017` (§3.4). What that is for: step 6, and D30. |
# | “Sinusoids work at any length.” | They are defined at any length. A trained model need not work there, and ours does not. |

# %% [markdown]
# ## Broken on purpose
#
# Eight mistakes. Each box makes one, shows its symptom as a number, and runs a test that must fail
# on the broken version and pass on the right one.
#
# :::{admonition} Broken on purpose D01: one number per position
# :class: broken
# A sum of two sines, added to every feature alike. On a line there is little room for many
# positions: some of them must lie close together.
# :::


# %%
def one_number(n, d):
    p = torch.arange(n, dtype=double)
    return (p.sin() + (p / 100).sin())[:, None].expand(n, d)


def vectors(n, d):
    return sinusoidal_encoding(n, d, dtype=double)


def positions_are_apart(encode):
    n = d = 512
    rms = torch.cdist(
        encode(n, d), encode(n, d), compute_mode="donot_use_mm_for_euclid_dist"
    ) / math.sqrt(d)
    pairs = rms[torch.triu(torch.ones(n, n, dtype=torch.bool), 1)]
    close = int((pairs < 0.01).sum())
    assert close == 0, (
        f"{close} pairs of {n} positions are closer than .01, want none "
        f"(nearest: {pairs.min():.1e})"
    )
    return pairs.min().item()


glue("sinusoidal-d01", positions_are_apart(vectors))
catches("D01", positions_are_apart, broken=one_number, fixed=vectors)

# %% [markdown]
# **Fix:** a vector. Its nearest two positions are {glue:text}`sinusoidal-d01:.3f` apart, as a
# root mean square over features.
#
# :::{admonition} Broken on purpose D02: a number that the next layer erases
# :class: broken
# The same scalar encoding meets a pre-norm layer. LayerNorm subtracts the mean over features, and a
# number that was added to all features *is* a shift of that mean. Nothing is left of it, and
# attention is as blind to order as before.
# :::


# %%
def order_is_seen(encode):
    torch.manual_seed(0)
    x = torch.randn(1, 9, 32, dtype=double)
    norm = LayerNorm(32).double()
    W = torch.randn(3, 32, 32, dtype=double) / math.sqrt(32)

    def attend(x):
        y = norm(x + encode(9, 32))
        return scaled_dot_product_attention(*(y @ w for w in W))

    shuffle = torch.randperm(9)
    gap = (attend(x[:, shuffle]) - attend(x)[:, shuffle]).abs().max().item()
    assert gap > 1e-3, f"shuffled words give shuffled outputs, to {gap:.1e}"
    return gap


glue("sinusoidal-d02", order_is_seen(vectors))
catches("D02", order_is_seen, broken=one_number, fixed=vectors)

# %% [markdown]
# With vectors, the shuffle changes outputs by up to {glue:text}`sinusoidal-d02:.2f`. **Fix:** a
# vector that is not constant over features; and test the encoding together with the layer that
# reads it.
#
# :::{admonition} Broken on purpose D03: a frequency for each column
# :class: broken
# In the exponent $2i/d$ the letter $i$ counts *pairs*. Let it count columns, and the sine and the
# cosine of a pair turn at different speeds. The plot looks as pretty as before. But no matrix moves
# it on by seven positions any more.
# :::


# %%
def frequency_by_column(n, d):
    p, column = torch.arange(n, dtype=double)[:, None], torch.arange(d)
    angle = p / 10000 ** (2 * column / d)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


def a_shift_is_linear(encode):
    table = encode(1000, 32)
    solution = torch.linalg.lstsq(
        table[:-7], table[7:], driver="gelsd"
    ).solution
    rest = (table[7:] - table[:-7] @ solution).abs().max().item()
    assert rest < 1e-9, (
        f"the best linear map from PE(p) to PE(p + 7) is off by up to {rest:.3f}"
    )


catches("D03", a_shift_is_linear, broken=frequency_by_column, fixed=vectors)

# %% [markdown]
# **Fix:** one frequency for both columns of a pair. The test asks for the property that the paper
# names, and not for values: it accepts every correct layout and base.
#
# :::{admonition} Broken on purpose D04: frequencies that grow
# :class: broken
# A lost minus sign: $\omega_i = 10000^{+2i/d}$. A pair that turns by more than half a circle a step
# looks like one that turns the other way, as wagon wheels do in films; above that rate, the
# *Nyquist* rate of $\pi$ radians a step, a frequency is not what it seems. And its angles are so
# large that single precision loses them.
# :::


# %%
def growing(d):
    return 10000.0 ** (torch.arange(0, d, 2, dtype=double) / d)


def frequencies_fit_the_steps(frequency):
    w = frequency(512)
    above = (w > math.pi).double().mean().item()
    p = torch.arange(512, dtype=double)[:, None]
    single = (p.float() * w.float()).sin().double()
    error = (single - (p * w).sin()).abs().max().item()
    assert above == 0 and error < 1e-4, (
        f"{above:.1%} of the frequencies are above π, up to {w.max():.0f}; "
        f"in float32 a sine is off by up to {error:.2f}"
    )


catches("D04", frequencies_fit_the_steps, broken=growing, fixed=frequencies)

# %% [markdown]
# **Fix:** the minus sign. The largest frequency is then one radian a step, well below $\pi$.
#
# :::{admonition} Broken on purpose D05: adding in place
# :class: broken
# `x += table` saves a line of memory traffic and writes into the caller's tensor. Call twice with
# the same embeddings, and the second time they have moved.
# :::


# %%
class AddInPlace(nn.Module):
    def forward(self, x):
        x += sinusoidal_encoding(x.shape[-2], x.shape[-1], dtype=x.dtype)
        return x


def same_input_same_output(module):
    x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    first = module(x).clone()
    change = (module(x) - first).abs().max().item()
    assert change == 0, f"the same input gives an output {change:.1f} away"


catches(
    "D05",
    same_input_same_output,
    broken=AddInPlace(),
    fixed=SinusoidalEncoding(16),
)

# %% [markdown]
# **Fix:** `x + table`, a new tensor.
#
# :::{admonition} Broken on purpose D28: no positions
# :class: broken
# An encoder without positions and without a mask. Swap two words: every word keeps its output, so
# “dog bites man” and “man bites dog” cannot be told apart, by anything that comes after either.
# :::


# %%
torch.manual_seed(0)
encoder = EncoderLayer(16, 2, 32, norm="pre").eval()
words = torch.randn(3, 16)  # dog, bites, man


def with_positions(x):
    return encoder(SinusoidalEncoding(16)(x))


def word_order_matters(read):
    with torch.no_grad():
        straight = read(words[None])[0]
        swapped = read(words[[2, 1, 0]][None])[0]
    change = (swapped[[2, 1, 0]] - straight).abs().max().item()
    assert change > 1e-3, f"swapping two words moves outputs by {change:.1e}"
    return change


glue("sinusoidal-d28", word_order_matters(with_positions))
catches("D28", word_order_matters, broken=encoder, fixed=with_positions)

# %% [markdown]
# With positions, a word's output changes by up to {glue:text}`sinusoidal-d28:.2f`. **Fix:** add
# them at the bottom, once.
#
# :::{admonition} Broken on purpose D30: no √d
# :class: broken
# Embeddings of length one beside encodings of length $\sqrt{d/2} = 16$. At the start the sum is
# nearly all place. Step 6 says which share of the scores is about words.
# :::


# %%
def embedded(factor, d=512):
    torch.manual_seed(0)
    return factor * torch.randn(64, d, dtype=double) / math.sqrt(d)


def words_are_heard(factor):
    words, places = embedded(factor), vectors(64, 512)
    torch.manual_seed(1)
    A = torch.randn(512, 512, dtype=double)
    four = [
        (u @ A @ v.T).var() for u in (words, places) for v in (words, places)
    ]
    share = (four[0] / sum(four)).item()
    assert share > 0.1, (
        f"words are {words.norm(dim=-1).mean():.1f} long, places 16.0; "
        f"words make {share:.1e} of the scores' variance"
    )
    return share


share = words_are_heard(math.sqrt(512))
glue("sinusoidal-d30", share)
catches("D30", words_are_heard, broken=1.0, fixed=math.sqrt(512))

# %% [markdown]
# With the factor the share is {glue:text}`sinusoidal-d30:.2f`. **Fix:** multiply by $\sqrt{d}$
# where embeddings begin with standard deviation $1/\sqrt{d}$; or let them begin with one. Not
# both.
#
# :::{admonition} Broken on purpose D33: past the table
# :class: broken
# A learned table in a plain `nn.Embedding` ends where it ends. The error names an index and not
# the reason, and on a GPU it surfaces somewhere else. Taking positions modulo the table's length
# is worse: there is no error, and far places are read as near ones.
# :::


# %%
rows = nn.Embedding(512, 64)


def bare_table(position):
    return rows(position)


def wrapped_table(position):
    return rows(position % 512)


def sinusoids(position):
    return sinusoidal_encoding(len(position), 64, start=int(position[0]))


def ten_thousand_positions(encode):
    n = 10_000
    try:
        with torch.no_grad():
            table = encode(torch.arange(n))
    except IndexError as error:
        raise AssertionError(f"IndexError: {error}") from error
    distinct = table.unique(dim=0).shape[0]
    assert distinct == n, f"{n:,} positions share {distinct} vectors"


catches("D33", ten_thousand_positions, broken=bare_table, fixed=sinusoids)
catches(
    "D33, modulo", ten_thousand_positions, broken=wrapped_table, fixed=sinusoids
)

# %% [markdown]
# **Fix:** refuse by name, as `LearnedEncoding` does, or compute. And remember the measurement:
# that a vector exists does not mean that the model knows what to do with it.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} Write the table
# :label: ex-sinusoidal_encoding-table
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `encode(n, d)`: the encoding of positions $0 \dots n-1$, a tensor (n, d), interleaved as in
# the paper. `d` is even.
#
# ```{dropdown} Hint
# Make the angles first, as an outer product of positions and frequencies, (n, d/2). Two slices,
# `[:, 0::2]` and `[:, 1::2]`, put sines and cosines where they belong.
# ```


# %% tags=["exercise-stub"]
def encode(n, d):
    raise NotImplementedError


grade("ex-sinusoidal_encoding-table", encode)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sinusoidal_encoding-table
# :class: dropdown
# ```


# %% tags=["solution"]
def encode(n, d):
    position = torch.arange(n, dtype=torch.float64)[:, None]
    frequency = 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    table = torch.empty(n, d, dtype=torch.float64)
    table[:, 0::2] = (position * frequency).sin()
    table[:, 1::2] = (position * frequency).cos()
    return table


grade("ex-sinusoidal_encoding-table", encode)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} How long is a wave?
# :label: ex-sinusoidal_encoding-wavelength
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `wavelength(i, d, base=10000.0)`: after how many positions is pair $i$ back where it was?
#
# ```{dropdown} Hint
# A full turn is $2\pi$ radians, and pair $i$ turns by $\omega_i$ a step.
# ```


# %% tags=["exercise-stub"]
def wavelength(i, d, base=10000.0):
    raise NotImplementedError


grade("ex-sinusoidal_encoding-wavelength", wavelength)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sinusoidal_encoding-wavelength
# :class: dropdown
# ```


# %% tags=["solution"]
def wavelength(i, d, base=10000.0):
    return 2 * math.pi * base ** (2 * i / d)


grade("ex-sinusoidal_encoding-wavelength", wavelength)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Dot products without a table
# :label: ex-sinusoidal_encoding-gram
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `gram(offsets, d)`: for a tensor of whole offsets, of any shape and of either sign, the dot
# product of two encodings that far apart.
#
# ```{dropdown} Hint
# {eq}`eq-sinusoidal-encoding-gram` needs no table. Put the pairs into a new last dimension, and sum
# over it.
# ```


# %% tags=["exercise-stub"]
def gram(offsets, d):
    raise NotImplementedError


grade("ex-sinusoidal_encoding-gram", gram)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sinusoidal_encoding-gram
# :class: dropdown
# ```


# %% tags=["solution"]
def gram(offsets, d):
    frequency = 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    return (offsets.double()[..., None] * frequency).cos().sum(-1)


grade("ex-sinusoidal_encoding-gram", gram)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} From one layout to the other
# :label: ex-sinusoidal_encoding-layout
# ```
# *Difficulty ●●○ · 10 minutes*
#
# A checkpoint holds a table (…, n, d) with all sines before all cosines. Write
# `interleave(table)`: the same numbers in the paper's order.
#
# ```{dropdown} Hint
# Split the last dimension into (2, d/2). In which order must the two be read instead?
# ```


# %% tags=["exercise-stub"]
def interleave(table):
    raise NotImplementedError


grade("ex-sinusoidal_encoding-layout", interleave)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sinusoidal_encoding-layout
# :class: dropdown
# ```


# %% tags=["solution"]
def interleave(table):
    sines, cosines = table.chunk(2, dim=-1)
    return torch.stack([sines, cosines], dim=-1).flatten(-2)


grade("ex-sinusoidal_encoding-layout", interleave)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The matrix of a shift
# :label: ex-sinusoidal_encoding-rotation
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `shift_matrix(k, d)`: the $d \times d$ matrix $T_k$ with $T_k \operatorname{PE}(p) =
# \operatorname{PE}(p + k)$ for every $p$, for the interleaved layout. $k$ may be negative.
#
# ```{dropdown} Hint
# {eq}`eq-sinusoidal-encoding-rotation` has one block; `torch.block_diag` puts blocks on a diagonal.
# Watch the signs: this hand turns clockwise.
# ```


# %% tags=["exercise-stub"]
def shift_matrix(k, d):
    raise NotImplementedError


grade("ex-sinusoidal_encoding-rotation", shift_matrix)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sinusoidal_encoding-rotation
# :class: dropdown
# ```


# %% tags=["solution"]
def shift_matrix(k, d):
    blocks = []
    for i in range(d // 2):
        angle = k * 10000 ** (-2 * i / d)
        c, s = math.cos(angle), math.sin(angle)
        blocks.append(torch.tensor([[c, s], [-s, c]], dtype=torch.float64))
    return torch.block_diag(*blocks)


grade("ex-sinusoidal_encoding-rotation", shift_matrix)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A head that looks one back
# :label: ex-sinusoidal_encoding-look-back
# ```
# *Difficulty ●●● · 20 minutes*
#
# Let $W_Q = I$. Write `key_map(d)`: a matrix $W_K$, (d, d), such that with keys `PE @ W_K` every
# query but the first has its largest score at the position before it, wherever in the text it
# stands.
#
# ```{dropdown} Hint
# In {eq}`eq-sinusoidal-encoding-look-back` each key pretends to stand one position later. A row
# times a matrix is the transposed matrix times a column.
# ```


# %% tags=["exercise-stub"]
def key_map(d):
    raise NotImplementedError


grade("ex-sinusoidal_encoding-look-back", key_map)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sinusoidal_encoding-look-back
# :class: dropdown
# ```
#
# The block of $T_1$, transposed. The score is then $g(i - j - 1)$, and its peak lies at $j = i -
# 1$.


# %% tags=["solution"]
def key_map(d):
    blocks = []
    for i in range(d // 2):
        angle = 10000 ** (-2 * i / d)
        c, s = math.cos(angle), math.sin(angle)
        blocks.append(torch.tensor([[c, -s], [s, c]], dtype=torch.float64))
    return torch.block_diag(*blocks)


grade("ex-sinusoidal_encoding-look-back", key_map)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - A position is a vector of $d/2$ clock hands {eq}`def-sinusoidal-encoding-formula`, added once to the
#   scaled embedding {eq}`def-sinusoidal-encoding-input`.
# - A shift by $k$ turns every hand by its own angle: one orthogonal matrix $T_k$, the same at every
#   position {eq}`eq-sinusoidal-encoding-shift`. It takes sine *and* cosine.
# - All encodings are equally long, and a dot product knows the distance: $g(i-j) = \sum \cos((i-j)
#   \omega_m)$ {eq}`eq-sinusoidal-encoding-gram`. It is even, hence blind to direction; it falls like a
#   logarithm, and not steadily.
# - Learned projections can mend that: a rotation by one step inside $W_K$ makes a head look one back
#   {eq}`eq-sinusoidal-encoding-look-back`.
# - The wavelengths are a geometric progression from $2\pi$ to $2\pi \cdot 10000^{1-2/d}$
#   {eq}`eq-sinusoidal-encoding-last`.
# - Adding gives a score four terms {eq}`eq-sinusoidal-encoding-four-terms`. The factor $\sqrt{d}$ keeps
#   the word–word term audible where embeddings begin small {eq}`eq-sinusoidal-encoding-share`.
# - Turning queries and keys, in place of adding, makes every score relative
#   {eq}`eq-sinusoidal-encoding-rotary`. That is rotary encoding, of 2021.
# - On real text positions are worth much, and it matters little whether they are computed or learned.
#   Beyond the trained length both are worse than none: *defined* is not *learned*.
#
# ## Sources
#
# - {cite:t}`vaswani2017`, §3.4: the factor $\sqrt{d}$; §3.5: the formula, the linear shift, the hope of
#   extrapolating; Table 3, row E: learned against sinusoidal.
# - {cite:t}`gehring2017`, §3.1: learned positions, to which the paper compares.
# - {cite:t}`dai2019`, §3.3: the four terms of a score, and a relative form of them.
# - {cite:t}`su2021`, §3.2: rotary position embedding, in two dimensions and in $d$.
# - {cite:t}`press2022`, Figure 1: sinusoidal, rotary and T5's positions beyond the trained length.
# - {cite:t}`haviv2022`, §1: causal language models without positions learn something of them.
