# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       Nine weights in ten are set to zero, and the file is as large as before. Every weight keeps
#       only four of its thirty-two bits, and the answers hardly change. What makes a network
#       smaller, what only looks as if it did, and how much does each of them cost?
#     goals:
#       - derive which weights to set to zero, for the matrix and for its output, and tell the two apart
#       - say when zeros save bytes, and cut out heads and neurons so that they always do
#       - derive the error of rounding, its Δ²/12 and its six decibels a bit, with every hypothesis named
#       - compute with integers, zero points included, and train through a staircase
#       - put a pruned, a quantized and a distilled model on one chart of accuracy against size
#     prerequisites:
#       - multi-head attention (chapter 3) and the Transformer block (chapter 6)
#       - distillation (chapter 14)
#       - variance, and a least-squares fit
#     data: The docstrings of Python's own standard library; no download.
#     hardware: One CPU core; a GPU is not needed, and not used.
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
# # Pruning and quantization

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "teaching").is_dir()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import copy
import itertools
import math
import tempfile
import zlib

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from lib.attention import MultiHeadAttention
from lib.compression import (
    Int8Linear,
    dequantize,
    fake_quantize,
    magnitude_prune,
    pack_bits,
    quantize,
    quantize_int8,
    structured_prune_heads,
    structured_prune_neurons,
)
from lib.layers import EncoderLayer
from lib.teaching import (
    CurveExplorer,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.compressing import (
    accuracy,
    file_bytes,
    packed,
    rounded,
    sparse,
    tune,
    whole,
)
from lib.teaching.figures import COLORS
from lib.teaching.measure import flops, median_seconds, peak_bytes
from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import WordClassifier, train, words

start(seed=0)
double = torch.float64
generator = torch.Generator().manual_seed(15)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


# %% [markdown]
# ## The formula
#
# A trained network is a list of matrices. There are two ways to make one smaller without training
# another: keep fewer of its numbers, or keep less of each number.
#
# *Pruning* keeps fewer. A mask $M$ of zeros and ones says which:
#
# $$
# \widehat W = M \circ W , \qquad M \in \{0, 1\}^{m \times n} .
# $$ (def-pruning-and-quantization-mask)
#
# *Quantization* keeps less. Each number is rounded to one of at most $2^b$ evenly spaced ones. What
# is stored is the number's place on that grid, an integer of $b$ bits:
#
# $$
# \begin{aligned}
# q &= \operatorname{clamp}\Big(\operatorname{round}\big(\tfrac{x}{\Delta}\big) + z,\;
# q_{\min},\; q_{\max}\Big) , \\
# \hat x &= \Delta\,(q - z) .
# \end{aligned}
# $$ (def-pruning-and-quantization-grid)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $W$, $\widehat W$ | $m \times n$ | a weight before and after, one row an output, as `nn.Linear` stores it |
# | $M$ | $m \times n$ | the mask; $M_{ij} = 0$ where a weight goes |
# | $x$, $\hat x$ | a number | what is rounded (a weight, or an activation), and what comes back |
# | $\Delta$ | number, or one a row | the step of the grid, in code `scale` |
# | $z$ | integer, or one a row | the *zero point*: the integer that stands for 0 |
# | $b$ | integer | the bits of an integer; $q_{\min} = -2^{b-1}$ and $q_{\max} = 2^{b-1} - 1$ |
# | $\alpha$ | number | the largest magnitude that the grid reaches |
#
# Two common choices of the grid. The *symmetric* one has $z = 0$, leaves the lowest integer unused,
# and reaches $\alpha = \max \lvert x \rvert$ on both sides. The *affine* one reaches from $\min x$
# to $\max x$.
#
# Both formulas are short. What they save, and what they cost, is not to be seen in them: a matrix
# full of zeros is still $m \times n$ numbers, and a rounded number is wrong. The derivation asks
# first for the cost, in two parts.

# %% [markdown]
# ## Derivation
#
# Steps 1 to 5 are about zeros, steps 6 to 13 about rounding. Each numbered equation is followed by
# a cell that runs it.
#
# ### Step 1. The nearest sparse matrix
#
# We may keep $k$ weights. Which? Let us ask for the matrix $V$ with at most $k$ entries that are
# not zero which is nearest to $W$. Call $S$ the set of places where $V$ may be other than zero. The
# squared distance is a sum over places, and it falls into two parts:
#
# $$
# \lVert W - V \rVert_F^2 = \sum_{(i,j) \in S} (W_{ij} - V_{ij})^2 + \sum_{(i,j) \notin S} W_{ij}^2 .
# $$
#
# The first part is least, and zero, for $V_{ij} = W_{ij}$: what stays, stays as it is. The second
# is a sum of $mn - k$ squares, and it is least if these are the smallest. So
#
# $$
# \begin{aligned}
# \min_{\lVert V \rVert_0 \le k} \lVert W - V \rVert_F^2 = {} & \text{the sum of the} \\
# & mn - k \text{ smallest } W_{ij}^2 ,
# \end{aligned}
# $$ (eq-pruning-and-quantization-nearest)
#
# where $\lVert V \rVert_0$ counts the entries that are not zero. *Pruning by magnitude* keeps the
# largest weights, and that is why. We try every set of places of a small matrix.

# %%
W = randn(2, 4)
for k in range(9):
    nearest = min(
        W.flatten()[list(gone)].square().sum()
        for gone in itertools.combinations(range(8), 8 - k)
    )
    smallest = W.square().flatten().sort().values[: 8 - k]
    check("eq-pruning-and-quantization-nearest", smallest.sum(), nearest)

# %% [markdown]
# The hypothesis is in the question: *nearest matrix*. Nobody uses a matrix for its own sake.
#
# ### Step 2. What the output loses
#
# The matrix meets inputs $x$, and what counts is how far the outputs $Wx$ and $Vx$ are apart. Write
# $D = W - V$, and $\Sigma = \mathbb{E}[x x^\top]$ for the second moments of the inputs. Then
#
# $$
# \mathbb{E}\,\lVert D x \rVert^2 = \mathbb{E}\operatorname{tr}(D x x^\top D^\top)
# = \operatorname{tr}(D\, \Sigma\, D^\top) ,
# $$ (eq-pruning-and-quantization-output)
#
# since a squared length is the trace of $vv^\top$, and trace and expectation can change places. Now
# suppose that inputs are uncorrelated and alike, $\Sigma = \sigma^2 I$. Only then
#
# $$
# \mathbb{E}\,\lVert D x \rVert^2 = \sigma^2\, \lVert D \rVert_F^2 ,
# $$ (eq-pruning-and-quantization-white)
#
# and the nearest matrix is the best one. Suppose less: uncorrelated, each input with a size
# $\sigma_j$ of its own, $\Sigma = \operatorname{diag}(\sigma_j^2)$. Then
#
# $$
# \mathbb{E}\,\lVert D x \rVert^2 = \sum_{ij} D_{ij}^2\, \sigma_j^2 ,
# $$ (eq-pruning-and-quantization-scored)
#
# and by the argument of step 1 the weights to go are those with the smallest
# $\lvert W_{ij} \rvert\, \sigma_j$: *weight times size of the input*. A weight that never sees anything
# may be as large as it likes.

# %%
draws = 200_000
mix = randn(5, 5)
inputs = randn(draws, 5) @ mix.T
Sigma = inputs.T @ inputs / draws  # of these very inputs, so no sampling error
D = randn(3, 5)


def output_error(D, inputs):
    return (inputs @ D.T).square().sum(-1).mean()


check(
    "eq-pruning-and-quantization-output",
    torch.trace(D @ Sigma @ D.T),
    output_error(D, inputs),
    atol=1e-9,
)
white = inputs @ torch.linalg.inv(torch.linalg.cholesky(Sigma)).T * 0.7
check(
    "eq-pruning-and-quantization-white",
    0.7**2 * D.square().sum(),
    output_error(D, white),
    atol=1e-9,
)
sizes = torch.tensor([0.1, 2.0, 1.0, 0.5, 3.0], dtype=double)
check(
    "eq-pruning-and-quantization-scored",
    (D.square() * (0.7 * sizes).square()).sum(),
    output_error(D, white * sizes),
    atol=1e-8,
)

# two weights, one may stay
w, sigma = torch.tensor([3.0, 1.0]).double(), torch.tensor([0.1, 2.0]).double()
loss_of = w.square() * sigma.square()  # what is lost if this one goes
print("weight  input's size  lost if it goes")
for row in zip(w.tolist(), sigma.tolist(), loss_of.tolist(), strict=True):
    print("{:6.1f}{:14.1f}{:17.2f}".format(*row))
by_magnitude, by_output = loss_of[w.abs().argmin()], loss_of.min()
glue("compress-counter-magnitude", by_magnitude)
glue("compress-counter-output", by_output)
check("magnitude drops the wrong weight", by_magnitude > 40 * by_output)

# %% [markdown]
# **Without the hypothesis.** Two weights, 3 and 1, whose inputs have the sizes $1/10$ and 2.
# Magnitude drops the second, and the mean squared error of the output is
# {glue:text}`compress-counter-magnitude:.2f`. Dropping the first costs
# {glue:text}`compress-counter-output:.2f`. The nearest matrix is not the one with the nearest
# output.
#
# ### Step 3. Inputs that go together
#
# Step 2 still left the surviving weights as they were. If inputs are correlated, they can do
# better. Say a row $w$ keeps the places $S$ and loses the places $R$. Choose new weights $v$ on
# $S$. With $\Sigma$ cut into blocks, the error is
#
# $$
# \begin{aligned}
# & \mathbb{E}\,\big(w_S^\top x_S + w_R^\top x_R - v^\top x_S\big)^2 \\
# & \quad = (w_S - v)^\top \Sigma_{SS} (w_S - v) \\
# & \qquad {} + 2\,(w_S - v)^\top \Sigma_{SR}\, w_R + w_R^\top \Sigma_{RR}\, w_R .
# \end{aligned}
# $$
#
# Its derivative by $v$ is $-2\,\Sigma_{SS}(w_S - v) - 2\,\Sigma_{SR} w_R$. Set it to zero, for an
# invertible $\Sigma_{SS}$:
#
# $$
# v = w_S + \Sigma_{SS}^{-1} \Sigma_{SR}\, w_R .
# $$ (eq-pruning-and-quantization-refit)
#
# The survivors take over as much of the lost inputs as can be predicted from theirs: it is a
# least-squares fit. Put it back, and what is left is the part that cannot be predicted:
#
# $$
# \min_v \text{error} = w_R^\top \big( \Sigma_{RR} - \Sigma_{RS} \Sigma_{SS}^{-1} \Sigma_{SR} \big) w_R .
# $$ (eq-pruning-and-quantization-schur)
#
# If $\Sigma_{SR} = 0$, the fit changes nothing, and step 2 comes back. If an input is a copy of
# another, its weight can go for nothing.

# %%
w, stay, go = D[0], [0, 1, 3], [2, 4]
S_ss, S_sr = Sigma[stay][:, stay], Sigma[stay][:, go]
v = w[stay] + torch.linalg.solve(S_ss, S_sr @ w[go])
# Five rows with the second moments of all inputs, and so the same squared errors.
rows = torch.linalg.cholesky(Sigma).T
fit = torch.linalg.lstsq(rows[:, stay], rows @ w).solution
check("eq-pruning-and-quantization-refit", v, fit, atol=1e-9)
rest = Sigma[go][:, go] - S_sr.T @ torch.linalg.solve(S_ss, S_sr)
refitted = (inputs @ w - inputs[:, stay] @ v).square().mean()
check(
    "eq-pruning-and-quantization-schur",
    w[go] @ rest @ w[go],
    refitted,
    atol=1e-9,
)
as_they_were = (inputs[:, go] @ w[go]).square().mean()
check("refitting helps, where inputs go together", refitted < as_they_were)

# %% [markdown]
# A layer of 24 outputs and 32 inputs shows all three. Its inputs have unlike sizes and go together.
# For a matrix as small as this, the refit runs once for each row, after the weights are chosen.


# %%
def keep_best(W, score, share):
    """A mask that keeps this share of each row, by score."""
    k = round(share * W.shape[1])
    best = score.argsort(dim=-1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(W, dtype=torch.bool).scatter_(1, best, True)


def refit(W, mask, Sigma):
    V = torch.zeros_like(W)
    for row, kept in enumerate(mask):
        S, R = kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]
        lost = Sigma[S][:, R] @ W[row, R]
        V[row, S] = W[row, S] + torch.linalg.solve(Sigma[S][:, S], lost)
    return V


W = randn(24, 32)
factors = randn(32, 16)
sizes = torch.logspace(-0.7, 0.7, 32, dtype=double)
Sigma = (
    (factors @ factors.T / 16 + 0.3 * torch.eye(32)) * sizes * sizes[:, None]
)
total = torch.trace(W @ Sigma @ W.T)
shares = torch.linspace(0.1, 1.0, 10, dtype=double)
ways = {"magnitude": [], "magnitude × size": [], "… and refitted": []}
for share in shares.tolist():
    plain = keep_best(W, W.abs(), share)
    scored = keep_best(W, W.abs() * Sigma.diagonal().sqrt(), share)
    for name, V in zip(
        ways, (W * plain, W * scored, refit(W, scored, Sigma)), strict=True
    ):
        D = W - V
        ways[name].append((torch.trace(D @ Sigma @ D.T) / total).item())
half = shares.tolist().index(0.5)
for name, errors in ways.items():
    print(
        f"half of each row goes, {name + ':':19}{errors[half]:8.4f} of the output"
    )
glue("compress-half-magnitude", ways["magnitude"][half])
glue("compress-half-scored", ways["magnitude × size"][half])
glue("compress-half-refit", ways["… and refitted"][half])
plain, scored, refitted = (errors[half] for errors in ways.values())
check("sizes help", scored < 0.7 * plain)
check("the refit helps", refitted < 0.8 * scored)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 3.2))
for (name, errors), marker, color in zip(
    ways.items(), ("o-", "s--", "^:"), ("key", "query", "value"), strict=True
):
    ax.plot(shares[:-1], errors[:-1], marker, color=COLORS[color], label=name)
ax.set(
    xlabel="share of the weights that stay",
    ylabel="squared error, share of output",
    yscale="log",
)
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-pruning-and-quantization-output",
    caption="What the output of a layer loses, on average over its inputs. To "
    "weigh each weight by the size of its input helps, and to let the "
    "survivors take over helps again.",
    alt="Three falling curves on a logarithmic scale over the share of weights "
    "that stay. Pruning by magnitude lies highest, magnitude times size of the "
    "input below it, and with the survivors refitted lowest.",
)

# %% [markdown]
# With half of each row gone, magnitude loses {glue:text}`compress-half-magnitude:.3f` of the
# output's mean square, magnitude times size {glue:text}`compress-half-scored:.3f`, and with the
# survivors refitted {glue:text}`compress-half-refit:.3f`
# ({numref}`fig-pruning-and-quantization-output`). Only the first needs no data.
#
# :::{admonition} Our remark
# :class: remark
# Three lines of work start here. {cite:t}`lecun1990` weigh a weight by the curvature of the *loss*,
# where we have $\Sigma$ for one layer's output, and take the curvature's matrix to be diagonal;
# {cite:t}`hassibi1993` keep the whole matrix, and let the survivors move. {cite:t}`sun2024` prune
# large language models by the score of {eq}`eq-pruning-and-quantization-scored`, without
# retraining. Magnitude followed by retraining is the recipe of {cite:t}`han2015`: there the refit
# is left to gradient descent.
# :::

# %% [markdown]
# ### Step 4. What a zero costs to store
#
# A zero in a dense matrix takes as many bytes as any other number. To save something, one has to
# store *where* the other numbers are. Let a share $\rho$ of $N$ weights be left, in four bytes
# each.
#
# - **dense:** $4N$ bytes, whatever $\rho$;
# - **bitmap:** one bit a place says whether there is a number, then the numbers: $N/8 + 4\rho N$;
# - **coordinates:** row and column of each number, in eight bytes each as torch stores them, and
#   the number: $(8 + 8 + 4)\,\rho N$.
#
# A format pays where it is smaller than dense:
#
# $$
# \begin{gathered}
# \frac{N}{8} + 4\rho N < 4N \iff \rho < \frac{31}{32} , \\
# 20\,\rho N < 4N \iff \rho < \frac15 .
# \end{gathered}
# $$ (eq-pruning-and-quantization-formats)
#
# So a bitmap nearly always pays on disk, and coordinates only when more than four weights in five
# are gone. Either has to be unpacked, or multiplied by a routine that can read it.

# %%
N, W = 256 * 256, randn(256, 256).float()
for k in (1, N // 5 - 1, N // 5 + 1, N * 31 // 32 - 1, N * 31 // 32 + 1):
    linear = nn.Linear(256, 256, bias=False)
    linear.weight.data = W.clone()
    magnitude_prune(linear, 1 - k / N)
    left = linear.weight.detach()
    bitmap = pack_bits(left != 0, 1).nbytes + left[left != 0].nbytes
    table = left.to_sparse()
    coordinates = table.indices().nbytes + table.values().nbytes
    check("bytes of a bitmap", bitmap, N / 8 + 4 * k)
    check("bytes of coordinates", coordinates, 20 * k)
    pays = [bitmap < W.nbytes, coordinates < W.nbytes]
    check(
        "eq-pruning-and-quantization-formats",
        pays,
        [k / N < 31 / 32, k / N < 1 / 5],
    )

# %% [markdown]
# ### Step 5. Zeros that leave
#
# Where zeros fill whole rows or columns, no format is needed: the matrix itself can be cut.
# Attention offers such rows. In chapter 3 the output was a sum over heads {eq}`eq-multi-head-sum`.
# Leave out the heads in a set $R$:
#
# $$
# \begin{aligned}
# & \sum_{i \notin R} \operatorname{head}_i W_i^O + b^O \\
# & \quad = \operatorname{Concat}(\operatorname{head}_1, \dots, \operatorname{head}_h) \\
# & \qquad {} \cdot W^O\big[\,W_i^O \leftarrow 0 \text{ for } i \in R\,\big] + b^O .
# \end{aligned}
# $$ (eq-pruning-and-quantization-heads)
#
# On the right, columns of `nn.Linear`'s weight are zero, and all is as large as before. On the left
# nobody needs $\operatorname{head}_i$ for $i \in R$. Its queries, keys and values need not be
# computed, so the rows that make them can go too. With $d = d_{\text{model}}$ and heads of $d_h$
# features, each head that leaves takes
#
# $$
# \underbrace{4\, d\, d_h}_{W_i^Q,\, W_i^K,\, W_i^V,\, W_i^O} + \underbrace{3\, d_h}_{\text{biases}}
# $$ (eq-pruning-and-quantization-removed)
#
# numbers with it. A neuron of a feed-forward layer is the same story in small: a row of $W_1$, its
# bias, and a column of $W_2$, so $2d + 1$ numbers.

# %%
attention = MultiHeadAttention(24, 4, d_head=5).double()
for p in attention.parameters():
    p.data = randn(*p.shape) / 3
x = randn(2, 7, 24)
for gone in ([0], [3, 1], [0, 1, 2]):
    zeroed = copy.deepcopy(attention)
    for head in gone:
        zeroed.output_projection.weight.data[:, 5 * head : 5 * head + 5] = 0
    smaller = structured_prune_heads(attention, gone)
    check("eq-pruning-and-quantization-heads", smaller(x), zeroed(x))
    count = [
        sum(p.numel() for p in module.parameters())
        for module in (zeroed, smaller)
    ]
    check(
        "eq-pruning-and-quantization-removed",
        (count[0] - count[1]) / len(gone),
        4 * 24 * 5 + 3 * 5,
    )

# %% [markdown]
# **Without the hypothesis.** The two sides agree because a head is used nowhere but in that sum. A
# feature of the residual stream is used by every layer, so it cannot be cut out of one of them:
# that would have to be agreed on by all.
#
# What does it cost? By step 2, a neuron $j$ whose activation has mean square $\sigma_j^2$ moves the
# output by $\sigma_j^2 \lVert W_{2,j} \rVert^2$ on average when it goes alone, with $W_{2,j}$ its
# column. We shall use its root as a score. For heads we just try: take one out, and see how much
# the loss rises, as {cite:t}`michel2019` do.

# %% [markdown]
# ### Step 6. The error of rounding
#
# Now the other way: keep all numbers, and round each. Let $e = x - \hat x$. Rounding goes to the
# nearest point of the grid, so as long as $x$ lies within the grid's reach,
#
# $$
# \lvert e \rvert \le \frac{\Delta}{2} .
# $$ (eq-pruning-and-quantization-half)
#
# How large is it on average? Suppose that *the error is uniform* on $[-\Delta/2, \Delta/2]$: every
# place between two points of the grid is as likely as any other. Then its mean is 0 and
#
# $$
# \mathbb{E}[e^2] = \frac{1}{\Delta} \int_{-\Delta/2}^{\Delta/2} u^2\, \mathrm{d}u
# = \frac{1}{\Delta} \cdot \frac{2}{3} \Big(\frac{\Delta}{2}\Big)^3 = \frac{\Delta^2}{12} .
# $$ (eq-pruning-and-quantization-uniform)
#
# A uniform $x$ over whole steps makes the error uniform. Let us see.

# %%
step = 0.25
x = torch.rand(400_000, generator=generator, dtype=double) * 32 * step
error = x - step * (x / step).round()
ratio = error.square().mean() / (step**2 / 12)
check("eq-pruning-and-quantization-half", bool((error.abs() <= step / 2).all()))
one_draw = math.sqrt((1 / 80 - 1 / 144) / (1 / 144))  # sd of e² over its mean
check(
    "eq-pruning-and-quantization-uniform",
    ratio,
    1.0,
    atol=5 * one_draw / math.sqrt(len(x)),
)
print(f"E[e²] / (Δ²/12) of {len(x):,} uniform numbers: {ratio:.4f}")

# %% [markdown]
# ### Step 7. When is the error uniform?
#
# Weights are not uniform. Let $x$ have any distribution, and
# $\varphi(t) = \mathbb{E}[e^{\mathrm{i}tx}]$ as its characteristic function. On
# $[-\Delta/2, \Delta/2]$ the square has the Fourier series
#
# $$
# u^2 = \frac{\Delta^2}{12} + \frac{\Delta^2}{\pi^2} \sum_{m=1}^{\infty} \frac{(-1)^m}{m^2} \cos\frac{2\pi m u}{\Delta} .
# $$
#
# Its constant is the mean of $u^2$ over a step, which step 6 has found; the other coefficients come
# out by integrating by parts twice; there are no sines, as $u^2$ is even. Put $u = e$, and take the mean. Now comes the point: $e$ and $x$ differ by a whole number of
# steps, and the cosine has the period of one step, or a whole fraction of it. So in the cosine $e$
# may be replaced by $x$, and
# $\mathbb{E}[\cos(2\pi m x/\Delta)]$ is the real part of $\varphi(2\pi m/\Delta)$:
#
# $$
# \mathbb{E}[e^2] = \frac{\Delta^2}{12} + \frac{\Delta^2}{\pi^2} \sum_{m=1}^{\infty} \frac{(-1)^m}{m^2}
# \operatorname{Re} \varphi\Big(\frac{2\pi m}{\Delta}\Big) .
# $$ (eq-pruning-and-quantization-exact)
#
# Nothing was approximated. $\Delta^2/12$ is right if $\varphi$ vanishes at all multiples, but for 0, of
# $2\pi/\Delta$, and nearly right if it is small there: if the density of $x$ does not change much from
# one step to the next. For normal numbers of standard deviation $\sigma$, $\varphi(t) =
# e^{-\sigma^2 t^2/2}$, and with the first term of the sum
#
# $$
# \frac{\mathbb{E}[e^2]}{\Delta^2/12} = 1 - \frac{12}{\pi^2}\, e^{-2\pi^2 \sigma^2/\Delta^2} + \dots
# $$ (eq-pruning-and-quantization-normal)
#
# The exponent is so steep that the rule holds even where it seems absurd. It is common to ask for
# “many fine steps”. A step as wide as one standard deviation will do
# ({numref}`fig-pruning-and-quantization-rule`).


# %%
def exact_ratio(step, sigma=1.0, terms=40):
    """E[e²] over Δ²/12 for normal numbers, by the sum."""
    m = torch.arange(1, terms + 1, dtype=double)
    phi = torch.exp(-((2 * math.pi * m * sigma / step) ** 2) / 2)
    return 1 + 12 / math.pi**2 * ((-1) ** m / m**2 * phi).sum().item()


def integrated_ratio(step):
    """The same by brute force: the integral of e² times the density."""
    x = torch.linspace(-12, 12, 480_001, dtype=double)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    error = x - step * (x / step).round()
    return (
        torch.trapezoid(error.square() * density, x) / (step**2 / 12)
    ).item()


print("step / σ   E[e²] ÷ Δ²/12   first term")
for step in (0.5, 1.0, 2.0, 3.0, 4.0):
    first = 1 - 12 / math.pi**2 * math.exp(-2 * math.pi**2 / step**2)
    print(f"{step:8.1f}{exact_ratio(step):16.7f}{first:13.7f}")
    check(
        "eq-pruning-and-quantization-exact",
        exact_ratio(step),
        integrated_ratio(step),
        atol=1e-7,
    )
    if step <= 2.0:
        check(
            "eq-pruning-and-quantization-normal",
            exact_ratio(step),
            first,
            atol=1e-6,
        )
glue("compress-ratio-1", abs(exact_ratio(1.0) - 1))
glue("compress-ratio-3", exact_ratio(3.0))
whole_steps = torch.randint(-9, 10, (1000,), generator=generator) * 1.0
for name, shift, want in (("on the grid", 0.0, 0.0), ("between", 0.5, 3.0)):
    x = whole_steps + shift
    error = x - x.round()
    ratio = error.square().mean() / (1 / 12)
    check(f"numbers that lie {name} break the rule", ratio, want, atol=1e-6)

# %% tags=["hide-input"]
steps = torch.linspace(0.2, 5, 97, dtype=double)
rule = [exact_ratio(step) for step in steps.tolist()]
dots = torch.linspace(0.5, 5, 10, dtype=double)
sample = randn(100_000)
measured = [
    (sample - s * (sample / s).round()).square().mean() / (s**2 / 12)
    for s in dots
]
fig, ax = plt.subplots(figsize=(4.3, 3.0))
ax.axhline(1, color=COLORS["reference"], linestyle=":")
ax.plot(steps, rule, color=COLORS["query"], label="exact")
ax.plot(dots, measured, "o", color=COLORS["key"], label="measured")
ax.set(xlabel="step, in standard deviations", ylabel="squared error ÷ (Δ²/12)")
ax.set_ylim(0, 1.1)
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-pruning-and-quantization-rule",
    caption="The mean squared error of rounding normal numbers, as a multiple "
    "of $\\Delta^2/12$: exact, and measured on random numbers. The rule holds "
    "up to steps well above one standard deviation, then fails.",
    alt="A curve that stays at one until the step is about one and a half "
    "standard deviations, then falls steadily; ten measured dots lie on it.",
)

# %% [markdown]
# At $\Delta = \sigma$ the rule is off by {glue:text}`compress-ratio-1:.1e` of itself; at three
# standard deviations the true error is {glue:text}`compress-ratio-3:.2f` of it.
#
# **Without the hypothesis.** Numbers that are whole multiples of the step have no error at all, and
# numbers half-way between have three times $\Delta^2/12$. Both have a $\varphi$ of magnitude one at
# every multiple of $2\pi/\Delta$. What was rounded before, to a grid that fits or does not, is like
# that.
#
# :::{admonition} Our remark
# :class: remark
# {cite:t}`bennett1948` has the $\Delta^2/12$, for fine steps and smooth densities. That the error
# is exactly uniform if and only if $\varphi$ vanishes at these multiples of $2\pi/\Delta$ is due to
# {cite:t}`sripad1977`. {cite:t}`gray1998` tell the history.
# :::
#
# ### Step 8. Six decibels a bit
#
# Errors are compared with what they spoil. The *signal-to-quantization-noise ratio* is the power of
# $x$ over that of $e$, and engineers take ten times its logarithm, in decibels. Cut the
# numbers from $-\alpha$ to $\alpha$ into $2^b$ cells, and let each point of the grid stand in the middle
# of a cell, so $\Delta = 2\alpha/2^b$; and let the rule of step 6 hold. With $\sigma^2 = \mathbb{E}[x^2]$,
#
# $$
# \begin{aligned}
# \mathrm{SQNR} &= 10 \log_{10} \frac{\sigma^2}{\Delta^2/12}
# = 10 \log_{10} \frac{12\,\sigma^2\, 4^b}{4\,\alpha^2} \\
# &= b \cdot 20 \log_{10} 2 + 10 \log_{10} \frac{3\,\sigma^2}{\alpha^2} .
# \end{aligned}
# $$ (eq-pruning-and-quantization-sqnr)
#
# Each bit halves the step, and that is worth $20 \log_{10} 2$ decibels, about six. The second term
# says how well the numbers fill the grid. For uniform numbers $\sigma^2 = \alpha^2/3$, and it is
# zero.
#
# The *symmetric* grid has no $2^b$ points but $2^b - 1$, with 0 among them, and the outermost at
# $\pm\alpha$. Its step is $\alpha/(2^{b-1} - 1)$, and from the same formula
#
# $$
# \begin{aligned}
# \mathrm{SQNR}_{\text{sym}} = {} & b \cdot 20 \log_{10} 2 + 10 \log_{10}
# \frac{3\,\sigma^2}{\alpha^2} \\
# & + 20 \log_{10} \big( 1 - 2^{1-b} \big) .
# \end{aligned}
# $$ (eq-pruning-and-quantization-symmetric)
#
# The last term is nothing much at eight bits, and a whole bit at two. So among few bits each one
# gains *more* than six decibels: the missing level hurts less and less.


# %%
def decibels(signal, error):
    return 10 * math.log10(signal.square().mean() / error.square().mean())


six = 20 * math.log10(2)
glue("compress-six", six)
x = torch.rand(1_000_000, generator=generator, dtype=double) * 2 - 1
print("bits     2^b points            symmetric")
for b in range(2, 9):
    step = 2 / 2**b
    found = decibels(x, x - step * ((x / step).floor() + 0.5))
    check("eq-pruning-and-quantization-sqnr", found, b * six, atol=0.05)
    again = decibels(x, x - dequantize(quantize(x, b)))
    want = b * six + 20 * math.log10(1 - 2.0 ** (1 - b))
    check("eq-pruning-and-quantization-symmetric", again, want, atol=0.05)
    print(
        f"{b:4}{found:10.2f} dB ({b * six:5.2f}){again:10.2f} dB ({want:5.2f})"
    )

# %% [markdown]
# (In brackets what the formula says.) Now see the steps. The component rounds numbers from $-1$ to
# 1 on the symmetric grid of $b$ bits. At two bits three levels are left. With each bit the stairs
# get half as high, and the error, the second curve, half as large.

# %%
line = torch.linspace(-1, 1, 257, dtype=double)
bits = list(range(2, 9))
stairs = torch.stack([dequantize(quantize(line, b)) for b in bits])
fine = torch.linspace(-1, 1, 200_001, dtype=double)
ratios = [decibels(fine, fine - dequantize(quantize(fine, b))) for b in bits]
CurveExplorer(
    line,
    bits,
    {"rounded": stairs, "error": line - stairs},
    references={"as it was": line},
    readouts={
        "levels": [f"{2**b - 1}" for b in bits],
        "step Δ": [f"{1 / (2 ** (b - 1) - 1):.4f}" for b in bits],
        "SQNR": [f"{r:.2f} dB" for r in ratios],
        "six decibels a bit": [f"{b * six:.2f} dB" for b in bits],
    },
    parameter="bits b",
    x_name="number x",
    y_name="rounded",
    label="What a bit is worth",
    colors={"rounded": "query", "error": "key"},
    value=3,
    at=0.25,
    name="compress-bits",
)

# %% [markdown]
# ### Step 9. Clipping
#
# Step 8 let the grid reach to $\alpha = \max \lvert x \rvert$. One outlier makes all steps coarse.
# So why not cut it off? Let $x$ be normal with $\sigma = 1$, and $\alpha$ ours to choose, on the
# symmetric grid. Within reach the rule gives $\Delta^2/12$ with $\Delta = \alpha/(2^{b-1} - 1)$.
# Beyond, the error is
# $\lvert x \rvert - \alpha$. With the normal density $\phi$ and its tail $Q(\alpha) = \int_\alpha^\infty \phi$, we need the integral
# of $(x - \alpha)^2 \phi$. From $\phi' = -x\phi$ it follows that
# $\int_\alpha^\infty x \phi = \phi(\alpha)$ and, by parts,
# $\int_\alpha^\infty x^2 \phi = \alpha\phi(\alpha) + Q(\alpha)$, so
#
# $$
# \int_\alpha^\infty (x - \alpha)^2 \phi\, \mathrm{d}x = (1 + \alpha^2)\, Q(\alpha) - \alpha\, \phi(\alpha) .
# $$ (eq-pruning-and-quantization-tail)
#
# Both sides of the grid together:
#
# $$
# \begin{aligned}
# \mathbb{E}[e^2] \approx {} & \frac{\alpha^2}{12\,(2^{b-1} - 1)^2} \\
# & + 2\,(1 + \alpha^2)\, Q(\alpha) - 2\,\alpha\, \phi(\alpha) .
# \end{aligned}
# $$ (eq-pruning-and-quantization-clip)
#
# The first term grows with $\alpha$ and the others fall: there is a best reach. It is an
# approximation, as the first term counts the numbers beyond the reach too. They are few, but at two
# bits, where it is rough. With fewer
# bits the best reach is smaller: a coarse grid cannot afford to go far.


# %%
def normal_density(a):
    return math.exp(-(a**2) / 2) / math.sqrt(2 * math.pi)


def tail(a):
    return math.erfc(a / math.sqrt(2)) / 2


def clipped_error(alpha, b):
    beyond = (1 + alpha**2) * tail(alpha) - alpha * normal_density(alpha)
    return (alpha / (2 ** (b - 1) - 1)) ** 2 / 12 + 2 * beyond


def measured_error(alpha, b, x):
    back = dequantize(quantize(x.clamp(-alpha, alpha), b))
    return (x - back).square().mean().item()


x = torch.linspace(-9, 9, 900_001, dtype=double)
density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
for a in (0.5, 1.0, 2.5, 4.0):
    beyond = torch.where(x > a, (x - a).square() * density, 0.0)
    check(
        "eq-pruning-and-quantization-tail",
        (1 + a**2) * tail(a) - a * normal_density(a),
        torch.trapezoid(beyond, x),
        atol=1e-8,
    )
sample = randn(200_000)
for a, b in ((2.0, 4), (3.0, 4), (3.0, 6), (4.0, 8)):
    check(
        "eq-pruning-and-quantization-clip",
        clipped_error(a, b) / measured_error(a, b, sample),
        1.0,
        atol=0.1,
    )
reach = torch.linspace(1.0, 6.0, 251, dtype=double)
curves = {
    b: [clipped_error(a, b) for a in reach.tolist()] for b in (2, 3, 4, 6, 8)
}
best = {b: reach[int(np.argmin(errors))].item() for b, errors in curves.items()}
gains = {b: -10 * math.log10(min(errors)) for b, errors in curves.items()}
print("bits   best reach / σ   SQNR there")
for b in curves:
    print(f"{b:4}{best[b]:13.2f}{gains[b]:15.2f} dB")
slope = (gains[8] - gains[6]) / 2
glue("compress-clip-4", best[4])
glue("compress-clip-8", best[8])
glue("compress-clip-slope", slope)
check(
    "fewer bits want less reach", list(best.values()) == sorted(best.values())
)
check("a bit is worth less than six decibels then", slope < six - 0.1)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 3.2))
for (b, errors), color, style in zip(
    curves.items(),
    ("query", "key", "value", "output", "scores"),
    ("-", "--", "-.", ":", (0, (6, 2))),
    strict=True,
):
    ax.plot(
        reach, errors, color=COLORS[color], linestyle=style, label=f"{b} bits"
    )
    ax.plot(best[b], min(errors), "o", color=COLORS[color])
ax.set(
    xlabel="reach, in standard deviations", ylabel="squared error", yscale="log"
)
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-pruning-and-quantization-clip",
    caption="Where to cut normal numbers off. Left of the dots what is cut "
    "off costs more, right of them the coarser step. With fewer bits the best "
    "reach is smaller.",
    alt="Five curves of squared error over the grid's reach, one for each "
    "number of bits. Each falls, has a marked minimum, and rises again; the "
    "minimum moves right and down as bits are added.",
)

# %% [markdown]
# At four bits it is best to cut at {glue:text}`compress-clip-4:.1f` standard deviations, at eight
# bits at {glue:text}`compress-clip-8:.1f` ({numref}`fig-pruning-and-quantization-clip`). And since
# the reach grows with the bits, a bit is worth less than the {glue:text}`compress-six:.2f` decibels
# of step 8: between six and eight bits {glue:text}`compress-clip-slope:.2f` each. “Six decibels a
# bit” is a statement about a *fixed* reach.
#
# ### Step 10. A step for each row
#
# An outlier spoils the numbers that share its step, and no others. So let each row of a weight, the
# weights of one output, have its own. If row $i$ reaches to $\alpha_i$, then by the rule its error
# is proportional to $\alpha_i^2$. One step for all rows has to reach to the largest:
#
# $$
# \frac{\mathbb{E}[e^2] \text{ with one step}}{\mathbb{E}[e^2] \text{ with a step a row}}
# = \frac{\max_i \alpha_i^2}{\frac1m \sum_i \alpha_i^2} \ge 1 .
# $$ (eq-pruning-and-quantization-rows)
#
# Equality holds if all rows reach equally far. The price is one number a row. Why rows, and not
# columns? Along a row one sums over inputs, and a factor that is the same for the whole sum can be
# taken out of it. Step 12 needs that.

# %%
W = randn(64, 500) * torch.logspace(-1, 1, 64, dtype=double)[:, None]
reach = W.abs().amax(1)
one = (W - dequantize(quantize(W, 8))).square().mean()
each = (W - dequantize(quantize(W, 8, axis=0))).square().mean()
predicted = reach.square().max() / reach.square().mean()
fine = reach.min() / reach.max() * 127  # levels of the smallest row, one step
print(f"one step for all costs {one / each:.2f} times the error", end=" ")
print(f"({predicted:.2f} predicted)")
print(f"the smallest row is left with {2 * fine + 1:.1f} levels of 255")
check("eq-pruning-and-quantization-rows", one / each / predicted, 1.0, atol=0.1)

# %% [markdown]
# The mean hides where it hurts: the largest rows are as well off as before, and the smallest have
# few levels left.
#
# ### Step 11. The zero point
#
# A symmetric grid wastes half of its points on numbers that are never negative. Let the grid reach
# from
# $\ell$ to $u$ instead, and ask that the ends of the interval meet the ends of the integers:
#
# $$
# \Delta\,(q_{\min} - z) = \ell , \qquad \Delta\,(q_{\max} - z) = u .
# $$
#
# Subtract the first from the second, and solve the first for $z$:
#
# $$
# \Delta = \frac{u - \ell}{q_{\max} - q_{\min}} = \frac{u - \ell}{2^b - 1} , \qquad z = q_{\min} - \frac{\ell}{\Delta} .
# $$ (eq-pruning-and-quantization-affine)
#
# This $z$ is no integer in general, and it is rounded. Then the grid is shifted by half a step at
# most, and
#
# $$
# \hat x(q = z) = \Delta\,(z - z) = 0 :
# $$ (eq-pruning-and-quantization-zero)
#
# *zero is kept exactly*. That matters, because zero is no number like others. Padding is zero, what
# ReLU shuts off is zero, what was pruned is zero. For $z$ to be one of the integers, the interval
# has to contain 0; it is widened if need be.
#
# For numbers that are never negative, $\ell = 0$: the affine step is $u/(2^b - 1)$, the symmetric
# one
# $u/(2^{b-1} - 1)$. Affine gains
#
# $$
# 20 \log_{10} \frac{2^b - 1}{2^{b-1} - 1} \;\ge\; 20 \log_{10} 2 ,
# $$ (eq-pruning-and-quantization-onesided)
#
# one bit and a little. For numbers that lie evenly about zero it gains nothing but the one level
# that symmetric leaves out.

# %%
for low, high, b in ((-0.7, 2.1, 4), (-3.0, 0.2, 8), (0.0, 5.0, 3)):
    ends = torch.tensor([low, high], dtype=double)
    q = quantize(ends, b, scheme="affine")
    check(
        "eq-pruning-and-quantization-affine",
        [q.scale.item(), q.zero_point.item()],
        [
            (high - low) / (2**b - 1),
            round(-(2 ** (b - 1)) - low / ((high - low) / (2**b - 1))),
        ],
    )
    x = torch.cat([ends, torch.zeros(1), low + (high - low) * torch.rand(99)])
    q = quantize(x.double(), b, scheme="affine")
    check("eq-pruning-and-quantization-zero", dequantize(q)[2], 0.0, atol=0)
    off = (x - dequantize(q)).abs().max() / q.scale
    check("no number is off by more than half a step", off.item() <= 0.5 + 1e-6)
x = torch.rand(400_000, generator=generator, dtype=double)
for b in (2, 4, 8):
    gain = decibels(x, x - dequantize(quantize(x, b, scheme="affine")))
    gain -= decibels(x, x - dequantize(quantize(x, b)))
    want = 20 * math.log10((2**b - 1) / (2 ** (b - 1) - 1))
    check("eq-pruning-and-quantization-onesided", gain, want, atol=0.1)
    print(f"{b} bits, numbers from 0 to 1: affine gains {gain:.2f} dB")

# %% [markdown]
# **Without the rounding of $z$.** A zero that comes back as something else is added up wherever
# there is padding or a hole.

# %%
x = torch.tensor([-0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], dtype=double)
step = 1.3 / 7
z = -4 - (-0.3) / step  # not rounded
q = (x / step + z).round().clamp(-4, 3)
leak = step * (q - z)
ours = dequantize(quantize(x, 3, scheme="affine"))
print(f"z = {z:.3f}: five zeros come back as {leak[1:6].sum():.3f} in all;")
print(f"with z rounded, as {ours[1:6].sum():.3f}")
check("a zero point that is no integer loses zero", leak[1:6].sum().abs() > 0.1)
check("with an integer zero stays", ours[1:6].abs().max(), 0.0, atol=0)

# %% [markdown]
# ### Step 12. A product of integers
#
# So far numbers are stored as integers and turned back before use. Better: multiply the integers.
# Let a row of inputs be $x_i \approx \Delta_x\,(p_i - z_x)$, and a row of weights
# $w_i \approx \Delta_w\,(q_i - z_w)$. Their dot product over $n$ places is
#
# $$
# \begin{aligned}
# \sum_i \hat x_i \hat w_i = \Delta_x \Delta_w \Big[ & \sum_i p_i q_i - z_w \sum_i p_i \\
# & - z_x \sum_i q_i + n\, z_x z_w \Big] .
# \end{aligned}
# $$ (eq-pruning-and-quantization-product)
#
# Only the first sum is work, and it is a product of small integers. The sums over
# weights in the third and the fourth can be had in advance, as weights do not change. With symmetric grids only the first is left. The
# two steps stand in front: that is what a step a row was for.
#
# Products of bytes are added up in 32 bits. Is there room? A symmetric byte is at most $2^7 - 1$ in
# magnitude, so
#
# $$
# \begin{gathered}
# \Big\lvert \sum_{i=1}^n p_i q_i \Big\rvert \le n\,(2^7 - 1)^2 < 2^{31} \\
# \text{for}\quad n \le \Big\lfloor \frac{2^{31} - 1}{(2^7 - 1)^2} \Big\rfloor .
# \end{gathered}
# $$ (eq-pruning-and-quantization-accumulator)

# %%
x, w = randn(50) + 0.5, randn(50) - 0.3
p, q = quantize(x, scheme="affine"), quantize(w, scheme="affine")
P, Q = p.integers.long(), q.integers.long()
z_x, z_w = p.zero_point.long(), q.zero_point.long()
inside = (P * Q).sum() - z_w * P.sum() - z_x * Q.sum() + 50 * z_x * z_w
check(
    "eq-pruning-and-quantization-product",
    (p.scale * q.scale * inside)[0],
    dequantize(p) @ dequantize(q),
)
most = (2**31 - 1) // 127**2
glue("compress-accumulator", most)
ones = torch.ones(1, most + 1, dtype=torch.int8) * 127
worst = [
    (ones[:, :n].int() * ones[:, :n].int()).sum(dtype=torch.int64).item()
    for n in (most, most + 1)
]
check(
    "eq-pruning-and-quantization-accumulator",
    [worst[0] < 2**31, worst[1] < 2**31],
    [True, False],
)

# %% [markdown]
# The bound is {glue:text}`compress-accumulator:,.0f` features: more than any layer here has. In
# sixteen bits three products can already be too many.
#
# ### Step 13. Training through a staircase
#
# A rounded model can be trained to live with its rounding, if we know which way to go. The gradient
# does not say: a staircase is flat wherever it has a slope at all. The *straight-through estimator*
# takes the slope to be one, as if nothing had been rounded. That looks like a trick. Here is what
# it is the true gradient of.
#
# Add a random number before rounding, $u$ uniform on $[-\frac12, \frac12)$, and take $\Delta = 1$.
# Write
# $x + \frac12 = k + f$ with a whole $k$ and $0 \le f < 1$. Then
# $\operatorname{round}(x + u) = \lfloor x + u + \tfrac12 \rfloor = \lfloor k + f + u \rfloor$. For $f <
# \frac12$ that is $k - 1$ if $u < -f$, with probability $\frac12 - f$, and else $k$. For $f \ge
# \frac12$ it is $k + 1$ if $u \ge 1 - f$, with probability $f - \frac12$, and else $k$. In both
# cases
#
# $$
# \begin{aligned}
# \mathbb{E}_u\big[\operatorname{round}(x + u)\big] &= k + f - \tfrac12 = x , \\
# \frac{\mathrm{d}}{\mathrm{d}x}\, \mathbb{E}_u\big[\operatorname{round}(x + u)\big] &= 1 .
# \end{aligned}
# $$ (eq-pruning-and-quantization-dither)
#
# *Rounding at random* is right on average, and its mean has slope one. So straight-through is the
# exact slope of the mean of randomised rounding. Applied to rounding that is not random, and to a
# loss that is not linear, it is an approximation, and the error does not vanish: training does not
# settle, it hops.
#
# $$
# \frac{\partial \hat x}{\partial x} := 1 , \qquad x \leftarrow x - \eta\, \frac{\partial L}{\partial \hat x}(\hat x) .
# $$ (def-pruning-and-quantization-straight)

# %%
u = (torch.arange(100_000, dtype=double) + 0.5) / 100_000 - 0.5
for x in (0.0, 0.3, 0.5, 1.2, -0.8):
    check(
        "eq-pruning-and-quantization-dither",
        (x + u).round().mean(),
        x,
        atol=2e-5,
    )

# one weight, L = (round(w) − .3)² / 2
w, visited = 0.0, []
for _ in range(1000):
    w -= 0.05 * (round(w) - 0.3)  # straight through
    visited.append(round(w))
glue("compress-hops", np.mean(visited[100:]))
check("it hops between 0 and 1", set(visited[100:]) == {0, 1})
check("and is right on average", np.mean(visited[100:]), 0.3, atol=0.02)
frozen = torch.tensor(0.0, requires_grad=True)
(frozen.round() - 0.3).square().backward()
check("the true gradient is zero", frozen.grad, 0.0, atol=0)

# %% [markdown]
# The weight never finds a place where the gradient is small, as there is none: it hops between 0
# and 1, and its mean is {glue:text}`compress-hops:.2f`. What is learned with many weights? A layer
# of three levels a weight, on 64 correlated inputs, is fitted to another layer without rounding:
# once by rounding the finished fit, and once with the straight-through estimator.

# %%
target = randn(8, 64)
mixing = randn(64, 64) / 8 + 0.5 * randn(64, 1)
inputs = randn(2000, 64) @ mixing.T
outputs = inputs @ target.T


def lost(W):
    gap = inputs @ (W - target).T
    return (gap.square().mean() / outputs.square().mean()).item()


weight = target.clone().requires_grad_()
optimizer = torch.optim.Adam([weight], lr=0.01)
trail = [lost(fake_quantize(weight, 2, axis=0).detach())]
for step in range(300):
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * (1 - step / 300)
    optimizer.zero_grad()
    fake = fake_quantize(weight, 2, axis=0)
    (inputs @ fake.T - outputs).square().mean().backward()
    optimizer.step()
    trail.append(lost(fake_quantize(weight, 2, axis=0).detach()))
print(f"rounded afterwards    {trail[0]:.3f} of the output is lost")
print(f"straight through      {trail[-1]:.3f}")
glue("compress-ste-before", trail[0])
glue("compress-ste-after", trail[-1])
check("training through the staircase helps", trail[-1] < 0.5 * trail[0])

# %% [markdown]
# Of the output's mean square, rounding afterwards loses {glue:text}`compress-ste-before:.2f`,
# training through the staircase {glue:text}`compress-ste-after:.3f`. The weights are as coarse in
# both. Where inputs go together, errors can cancel, as in step 3; training finds out how.
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`bengio2013` study several ways to get a gradient through hard thresholds. The
# straight-through estimator is among them; the idea is Hinton's, from a lecture.
# :::

# %% [markdown]
# ## From scratch
#
# Everything once by hand, in plain Python. A layer of two outputs and three inputs is to lose half
# of its weights:

# %%
W = [[0.4, -2.0, 0.1], [1.5, -0.3, -0.7]]


def prune_by_hand(W, gone):
    """Zeros in place of the `gone` smallest magnitudes, lists of lists."""
    places = [
        (abs(w), i, j) for i, row in enumerate(W) for j, w in enumerate(row)
    ]
    V = [list(row) for row in W]
    for _, i, j in sorted(places)[:gone]:
        V[i][j] = 0.0
    return V


V = prune_by_hand(W, 3)
for row in V:
    print(row)
lost = sum((W[i][j] - V[i][j]) ** 2 for i in range(2) for j in range(3))
print(f"squared distance {lost:.2f} = .1² + .3² + .4²")

linear = nn.Linear(3, 2, bias=False).double()
linear.weight.data = torch.tensor(W, dtype=double)
magnitude_prune(linear, 0.5)
check("by hand = the library", V, linear.weight)
check("the three smallest are lost", lost, 0.1**2 + 0.3**2 + 0.4**2)

# %% [markdown]
# And four numbers are to become three bits each, on the affine grid: integers from $-4$ to 3. The
# numbers reach from $-1$ to $2\tfrac12$, so seven steps cover $3\tfrac12$, and each is a half.


# %%
def quantize_by_hand(xs, bits):
    """Integers, step and zero point of the affine grid."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    lowest, highest = min(0.0, *xs), max(0.0, *xs)
    step = (highest - lowest) / (high - low)
    zero = low - round(lowest / step)
    places = [min(max(round(x / step) + zero, low), high) for x in xs]
    return places, step, zero


numbers = [-1.0, 0.0, 0.8, 2.5]
places, step, zero = quantize_by_hand(numbers, 3)
back = [step * (q - zero) for q in places]
print("step", step, "zero point", zero)
print("numbers ", numbers)
print("integers", places)
print("back    ", back)

q = quantize(torch.tensor(numbers, dtype=double), 3, scheme="affine")
check("the same integers", q.integers, [float(p) for p in places])
check("the same numbers", dequantize(q), back)

# %% [markdown]
# Only $4/5$ has moved, to 1: by less than half a step. Zero is where it was, at the integer $-2$.
#
# Stored as bits, the four integers take twelve of them, so two bytes in place of sixteen. In two's
# complement they are `100`, `110`, `000` and `011`; they are written one after the other, the
# lowest bit first.

# %%
stream = sum((place % 8) << (3 * i) for i, place in enumerate(places))
two_bytes = list(stream.to_bytes(2, "little"))
print(f"{stream:012b}, the first on the right; as bytes {two_bytes}")
check("the same bytes", pack_bits(q.integers, 3), [float(x) for x in two_bytes])

# %% [markdown]
# ## The library function
#
# ```{lib-source} lib.compression.magnitude_prune
# ```
#
# It sorts, and does not compare with a threshold. Among weights of equal magnitude a threshold
# takes all or none; sorting takes exactly as many as were asked for, and always the same ones.
# PyTorch's own
# `l1_unstructured` finds the same zeros:

# %%
torch.manual_seed(0)
ours, theirs = nn.Linear(31, 17), nn.Linear(31, 17)
theirs.load_state_dict(ours.state_dict())
masks = magnitude_prune(ours, 0.7)
prune.l1_unstructured(theirs, "weight", 0.7)
check("ours = torch's mask", masks["weight"], theirs.weight_mask, atol=0)
check("ours = torch's weight", ours.weight, theirs.weight, atol=0)

# %% [markdown]
# Cutting a head is bookkeeping: which rows, which columns.
#
# ```{lib-source} lib.compression.structured_prune_heads
# ```
#
# The next one is {eq}`def-pruning-and-quantization-grid` and
# {eq}`eq-pruning-and-quantization-affine`.
#
# ```{lib-source} lib.compression.quantize
# ```
#
# PyTorch has kernels that round and return in one step, for use in training. Given our scale and
# zero point, they agree:

# %%
x = randn(13, 29).float() + 0.4
for scheme in ("symmetric", "affine"):
    q = quantize(x, scheme=scheme, axis=0)
    low = -127 if scheme == "symmetric" else -128
    theirs = torch.fake_quantize_per_channel_affine(
        x, q.scale.flatten(), q.zero_point.flatten().int(), 0, low, 127
    )
    check(f"ours = torch's, {scheme}", dequantize(q), theirs, atol=1e-6)

# %% [markdown]
# ### int8 in PyTorch's own kernel
#
# `Int8Linear` holds its weight as bytes. With `activations="float"` they become floats again before the
# product: a smaller file, and no faster. With `activations="int8"` each row of the input is rounded
# too, and the product is one of integers {eq}`eq-pruning-and-quantization-product`, done by
# `torch._int_mm`. That function begins with an underscore: PyTorch calls the older interface
# deprecated (`quantize_dynamic` of `torch.ao` warns that it is on its way out), and its
# successor is a package of its own, `torchao`. The integer product underneath is what they share,
# and it can be called.

# %%
p = torch.randint(-127, 128, (32, 48), generator=generator, dtype=torch.int8)
q = torch.randint(-127, 128, (48, 24), generator=generator, dtype=torch.int8)
exact = p.double() @ q.double()
kernel = torch._int_mm(p, q)
check("the kernel's sums are exact", kernel, exact, atol=0)
print(f"int8 times int8 gives {kernel.dtype}, up to {kernel.abs().max():,}")

linear = nn.Linear(48, 24)
x = torch.randn(32, 48, generator=torch.Generator().manual_seed(1))
for scheme in ("symmetric", "affine"):
    small = Int8Linear(linear, scheme=scheme, activations="int8")
    rows = dequantize(quantize(x, axis=0))
    want = rows @ small.weight.T + small.bias
    check(f"Int8Linear, {scheme}", small(x), want, atol=1e-5)
    gap = (small(x) - linear(x)).abs().max() / linear(x).abs().max()
    check("and close to the linear map in floats", gap.item() < 0.03)

# %% [markdown]
# ## On real data
#
# The model is a small BERT that reads a docstring of Python's standard library and names its
# module, one of eight. Chapters 16 to 19 will ask *why* it answers as it does; here we ask how
# little of it is needed.

# %%
texts = words()
model, dense_accuracy = train(texts, seed=0)
labels = torch.tensor(texts.data.validation_labels)
commonest = labels.bincount().max().item() / len(labels)
weights = whole(model)
numbers = sum(t.numel() for t in weights.values())
table = weights["bert.encoder.embeddings.word.weight"]
share = table.numel() / numbers
print(f"{numbers:,} numbers, {share:.0%} of them the word table")
print(f"{len(labels)} held-out docstrings: {dense_accuracy:.3f} right;")
print(f"always the commonest module: {commonest:.3f}")
glue("compress-numbers", numbers)
glue("compress-table", share)
glue("compress-held-out", len(labels))
one_percent = math.sqrt(dense_accuracy * (1 - dense_accuracy) / len(labels))
glue("compress-se", one_percent)
check("it has learned something", dense_accuracy > commonest + 0.3)

# %% [markdown]
# It is a small model: {glue:text}`compress-numbers:,.0f` numbers, and
# {glue:text}`compress-table:.0%` of them are the vectors of its words. With
# {glue:text}`compress-held-out:.0f` held-out texts an accuracy has a standard error of about
# {glue:text}`compress-se:.3f`: differences below that mean nothing for one seed.
#
# ### How much may go, without any training?
#
# First in one go, and nothing repaired. Zeros by magnitude, each matrix its share or all together;
# bits, with a step a row or one step a matrix.

# %%
amounts = [0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
curves = {"each": [], "all": []}
for scope, accuracies in curves.items():
    for amount in amounts:
        pruned = copy.deepcopy(model)
        magnitude_prune(pruned, amount, scope=scope)
        accuracies.append(accuracy(pruned, texts))


def one_step(model, b):
    """A copy whose matrices have one step each."""
    coarse = copy.deepcopy(model)
    for p in coarse.parameters():
        if p.ndim == 2:
            p.data = dequantize(quantize(p.data, b))
    return coarse


by_bits = {
    "a step a row": [accuracy(rounded(model, b), texts) for b in range(2, 9)],
    "one step": [accuracy(one_step(model, b), texts) for b in range(2, 9)],
}
print("share of zeros " + "".join(f"{a:7.0%}" for a in amounts))
for scope, accuracies in curves.items():
    print(f"{scope:15}" + "".join(f"{a:7.2f}" for a in accuracies))
print("bits           " + "".join(f"{b:7}" for b in range(2, 9)))
for name, accuracies in by_bits.items():
    print(f"{name:15}" + "".join(f"{a:7.2f}" for a in accuracies))
glue("compress-dense", dense_accuracy)
glue("compress-half-zeros", curves["each"][2])
glue("compress-most-zeros", curves["each"][-1])
glue("compress-eight", by_bits["a step a row"][-1])
glue("compress-four", by_bits["a step a row"][2])
glue("compress-two", by_bits["a step a row"][0])
two, *_, eight = by_bits["a step a row"]
check("eight bits cost next to nothing", abs(eight - dense_accuracy) < 0.02)
check("two bits, unrepaired, cost much", two < dense_accuracy - 0.05)
check("so do the most zeros", curves["each"][-1] < dense_accuracy - 0.1)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(5.1, 3.2), sharey=True)
for (name, accuracies), marker, color in zip(
    curves.items(), ("o-", "s--"), ("query", "key"), strict=True
):
    axes[0].plot(amounts, accuracies, marker, color=COLORS[color], label=name)
for (name, accuracies), marker, color in zip(
    by_bits.items(), ("^-", "v--"), ("value", "output"), strict=True
):
    axes[1].plot(
        range(2, 9), accuracies, marker, color=COLORS[color], label=name
    )
axes[0].set(xlabel="share of zeros", ylabel="accuracy", ylim=(0, 1))
axes[1].set(xlabel="bits")
for ax in axes:
    ax.axhline(dense_accuracy, color=COLORS["reference"], linestyle=":")
    ax.legend(loc="lower left" if ax is axes[0] else "lower right")
show_figure(
    fig,
    name="fig-pruning-and-quantization-one-shot",
    caption="The classifier after one cut, and no training after it. Left: "
    "zeros by magnitude, in each matrix or over all. Right: fewer bits, with "
    "a step for each row or for each matrix. Dotted: as it was.",
    alt="Two panels of accuracy. Left, it stays near the dotted line up to "
    "half zeros and falls beyond. Right, it is flat from eight bits down to "
    "four, and far down at two.",
)

# %% [markdown]
# Half of the weights can go, and {glue:text}`compress-half-zeros:.3f` of the texts are still named
# right, against {glue:text}`compress-dense:.2f`; with all but a twentieth gone,
# {glue:text}`compress-most-zeros:.2f`. Eight bits leave {glue:text}`compress-eight:.2f`, four
# {glue:text}`compress-four:.2f`, two {glue:text}`compress-two:.2f`
# ({numref}`fig-pruning-and-quantization-one-shot`). All from one seed; several follow below.
#
# ### Training after the cut
#
# A little training repairs much. Pruned weights stay zero: `apply_masks` sets them back after each
# step. Few bits are trained through the staircase. And for comparison a *narrow* model, a third as
# wide, learns from the large one as in chapter 14. Each gets a short training here, from one seed;
# the recorded run below has longer ones, and several.

# %%
brief = {"seed": 1000, "steps": 80, "learning_rate": 1e-3}
pruned = copy.deepcopy(model)
masks = magnitude_prune(pruned, 0.8)
again = tune(pruned, texts, masks=masks, **brief)
zeros = sum((again.get_parameter(n) == 0).sum().item() for n in masks)
held = sum(mask.numel() for mask in masks.values())
coarse = rounded(tune(model, texts, bits=2, **brief), 2)
torch.manual_seed(0)
narrow = WordClassifier(texts, d_model=16)
narrow = tune(
    narrow, texts, seed=1000, steps=200, learning_rate=5e-3, teacher=model
)
rows = [
    ("as it was", whole(model), model),
    ("80 % zeros", sparse(pruned), pruned),
    ("80 % zeros, trained on", sparse(again), again),
    ("2 bits", packed(model, 2), rounded(model, 2)),
    ("2 bits, trained on", packed(coarse, 2), coarse),
    ("narrow, taught briefly", whole(narrow), narrow),
]
print(f"{'':26}{'bytes':>9}{'accuracy':>10}")
scores = {}
for name, tensors, small in rows:
    scores[name] = accuracy(small, texts)
    print(f"{name:26}{file_bytes(tensors):9,}{scores[name]:10.3f}")
check("zeros stay zero in training", zeros / held, 0.8, atol=1e-3)
check(
    "training repairs what zeros broke",
    scores["80 % zeros, trained on"] > scores["80 % zeros"] + 0.1,
)
check(
    "and what two bits broke",
    scores["2 bits, trained on"] > scores["2 bits"] + 0.1,
)

# %% [markdown]
# The bytes of the zeros are those of the bitmap format of step 4. As an ordinary file the pruned
# model would be as large as before. That is the box below.
#
# ### What shrinks, and what does not
#
# Sizes on disk first, all of one feed-forward layer and one attention of a respectable size.
# PyTorch's pruning keeps the weight *and* a mask until `prune.remove` is called.


# %%
def disk(state):
    """Bytes of a file that torch writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        torch.save(state, path)
        return path.stat().st_size


def zipped(state):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        torch.save(state, path)
        return len(zlib.compress(path.read_bytes(), 6))


torch.manual_seed(0)
block = EncoderLayer(256, 8, 1024).eval()
holes = copy.deepcopy(block)
magnitude_prune(holes, 0.9)
masked = copy.deepcopy(block)
for part in masked.modules():
    if isinstance(part, nn.Linear):
        prune.l1_unstructured(part, "weight", 0.9)
shorter = copy.deepcopy(block)
shorter.attention = structured_prune_heads(block.attention, range(4))
shorter.feed_forward = structured_prune_neurons(block.feed_forward, range(512))
int8 = quantize_int8(block, activations="int8")
print(f"{'one block, d_model = 256':34}{'file':>9}{'zipped':>9}   megabytes")
files = {}
for name, state in [
    ("dense", block.state_dict()),
    ("90 % zeros, torch's masks", masked.state_dict()),
    ("90 % zeros", holes.state_dict()),
    ("90 % zeros, as a bitmap", sparse(holes)),
    ("half the heads, half the neurons", shorter.state_dict()),
    ("int8", int8.state_dict()),
]:
    files[name] = disk(state), zipped(state)
    print(f"{name:34}" + "".join(f"{size / 1e6:9.2f}" for size in files[name]))
dense_file = files["dense"][0]
ratio = {name: pair[0] / dense_file for name, pair in files.items()}
glue("compress-file-zeros", ratio["90 % zeros"])
glue("compress-file-masks", ratio["90 % zeros, torch's masks"])
glue("compress-file-bitmap", ratio["90 % zeros, as a bitmap"])
glue("compress-file-zip", files["90 % zeros"][1] / dense_file)
glue("compress-file-zip-dense", files["dense"][1] / dense_file)
glue("compress-file-short", ratio["half the heads, half the neurons"])
glue("compress-file-int8", ratio["int8"])
check("zeros make no file smaller", ratio["90 % zeros"] > 0.99)
check("masks make it larger", ratio["90 % zeros, torch's masks"] > 1.9)
check("a bitmap makes it smaller", ratio["90 % zeros, as a bitmap"] < 0.2)
check(
    "half of the rows, half of it",
    ratio["half the heads, half the neurons"] < 0.52,
)
check("int8, a quarter", ratio["int8"] < 0.27)

# %% [markdown]
# With nine weights in ten zero the file is {glue:text}`compress-file-zeros:.2f` times the dense
# one; with PyTorch's masks beside them {glue:text}`compress-file-masks:.2f` times. Zipped it is
# {glue:text}`compress-file-zip:.2f` (the dense file zips to
# {glue:text}`compress-file-zip-dense:.2f`), as a bitmap {glue:text}`compress-file-bitmap:.2f`:
# general compression finds the zeros too. Half of the heads and neurons make it
# {glue:text}`compress-file-short:.2f`, and bytes for floats {glue:text}`compress-file-int8:.2f`.
#
# Now time and memory, for a pass over a batch of two long texts. These depend on the machine, and
# change from run to run.

# %% tags=["nbval-ignore-output"]
batch = torch.randn(2, 128, 256, generator=torch.Generator().manual_seed(2))
variants = {
    "dense": block,
    "90 % zeros": holes,
    "half the heads and neurons": shorter,
    "int8": int8,
}


def passes(module):
    def run():
        with torch.inference_mode():
            return module(batch)

    return run


seconds = median_seconds(*(passes(v) for v in variants.values()), repeats=9)
peaks = [peak_bytes(passes(v)) for v in variants.values()]
held = [
    sum(t.nbytes for t in v.state_dict().values()) for v in variants.values()
]
print(f"{'':28}{'time':>9}{'weights':>10}{'peak of the pass':>19}")
for name, s, h, p in zip(variants, seconds, held, peaks, strict=True):
    print(f"{name:28}{s * 1e3:6.1f} ms{h / 1e6:7.2f} MB{p / 1e6:16.2f} MB")
glue("compress-time-zeros", seconds[1] / seconds[0])
glue("compress-time-short", seconds[2] / seconds[0])
glue("compress-time-int8", seconds[3] / seconds[0])
glue("compress-peak-short", peaks[2] / peaks[0])
glue("compress-peak-int8", peaks[3] / peaks[0])

# %%
check("zeros leave the peak of a pass as it was", peaks[1], peaks[0], atol=0)
check("fewer heads and neurons do not", peaks[2] < 0.8 * peaks[0])

# %% [markdown]
# Where this page was built, the block full of zeros takes {glue:text}`compress-time-zeros:.2f`
# times as long as the dense one: a dense product multiplies by zero as by anything else. Half of
# the heads and neurons take {glue:text}`compress-time-short:.2f` times as long, and the activations
# of the pass peak at {glue:text}`compress-peak-short:.2f` of what they were, since there are fewer
# of them.
#
# With int8 the time is {glue:text}`compress-time-int8:.2f`. This one depends on the processor: on
# one with instructions for products of bytes the integer product itself can be several times as
# fast as the one in floats, and some of that is spent on rounding the inputs. PyTorch falls back to
# a plain loop where the processor has no such instructions, and then int8 may be slower than float.
# Its pass peaks at {glue:text}`compress-peak-int8:.2f` times what the dense one does: it holds integers *and* floats for a moment;
# only the weights became smaller.

# %% [markdown]
# ### Accuracy against size, on one chart
#
# Now all of it, several seeds each, from a recorded run. Every seed trains the classifier anew; all
# other arms of that seed start from it, or are taught by it. “Trained on” means
# {glue:text}`compress-tune-steps:.0f` steps more. One arm gives the *dense* model those steps too,
# so that nobody takes the gain of longer training for one of pruning. “Cut” leaves
# {glue:text}`compress-cut-heads:.0f` of three heads and {glue:text}`compress-cut-neurons:.0f` of
# {glue:text}`compress-cut-of:.0f` neurons in each layer, those that the scores of step 5 keep.
# “Narrow” is a model a third as wide, trained from random weights for as many steps as the large
# one, alone or with the large one as its teacher. All sizes are those of files: zeros as bitmaps,
# bits packed, with everything else that the classifier needs.

# %%
run = recorded("compression")
settings, run = run["settings"], run["results"]
size = {name: np.mean(values) for name, values in run["bytes"].items()}
score = {name: np.array(values) for name, values in run["accuracy"].items()}
mean = {name: values.mean() for name, values in score.items()}
sd = {name: values.std(ddof=1) for name, values in score.items()}
print(f"{len(score['dense'])} seeds; {'kB':>24}  accuracy")
for name in score:
    if not name.endswith(("same file", "zlib")):
        print(
            f"{name:28}{size[name] / 1e3:7.1f}{mean[name]:9.3f} ± {sd[name]:.3f}"
        )
glue("compress-seeds", len(score["dense"]))
glue("compress-tune-steps", settings["tune_steps"])
glue("compress-cut-heads", settings["heads"])
glue("compress-cut-neurons", settings["neurons"])
glue("compress-cut-of", 192)
glue("compress-r-dense", mean["dense"])
glue("compress-r-longer", mean["dense, tuned"])
glue("compress-r-8", mean["8 bits"])
glue("compress-r-4", mean["4 bits"])
glue("compress-r-3t", mean["3 bits, tuned"])
glue("compress-r-2", mean["2 bits"])
glue("compress-r-2t", mean["2 bits, tuned"])
glue("compress-r-50", mean["50% zeros"])
glue("compress-r-50t", mean["50% zeros, tuned"])
glue("compress-r-80t", mean["80% zeros, tuned"])
glue("compress-r-90t", mean["90% zeros, tuned"])
glue("compress-r-cut", mean["cut"])
glue("compress-r-cutt", mean["cut, tuned"])
glue("compress-r-cut8", mean["cut, tuned, 8 bits"])
glue("compress-r-narrow", mean["narrow"])
glue("compress-r-taught", mean["narrow, distilled"])
glue("compress-r-4-times", size["dense"] / size["4 bits"])
glue("compress-r-3-times", size["dense"] / size["3 bits"])
glue("compress-r-cut8-times", size["dense"] / size["cut, tuned, 8 bits"])
glue("compress-r-80-times", size["dense"] / size["80% zeros"])
taught = score["narrow, distilled"] - score["narrow"]
glue("compress-r-gain", taught.mean())
glue("compress-r-gain-sd", taught.std(ddof=1))
check(
    "three seeds at least", all(len(values) >= 3 for values in score.values())
)
gap = abs(mean["8 bits"] - mean["dense"])
check("eight bits change next to nothing", gap < 0.01)
check("four cost little", mean["4 bits"] > mean["dense"] - 0.03)
check("zeros alone shrink no file", size["90% zeros, same file"], size["dense"])
for smaller, larger in (
    ("3 bits, tuned", "80% zeros, tuned"),
    ("2 bits, tuned", "90% zeros, tuned"),
    ("2 bits, tuned", "narrow, distilled"),
):
    better = score[smaller].min() > score[larger].max()
    check(
        f"{smaller}: smaller than {larger}, and better",
        bool(size[smaller] < size[larger] and better),
    )
repaired = score["cut, tuned"] > score["cut"]
check("training repairs the cut", bool(repaired.all()))

# %% tags=["hide-input"]
groups = {
    "bits": ("query", "o", "-", [f"{b} bits" for b in settings["bits"]]),
    "bits, trained on": (
        "query",
        "s",
        "--",
        [f"{b} bits, tuned" for b in settings["tuned_bits"]],
    ),
    "zeros": ("key", "o", "-", [f"{a:.0%} zeros" for a in settings["amounts"]]),
    "zeros, trained on": (
        "key",
        "s",
        "--",
        [f"{a:.0%} zeros, tuned" for a in settings["amounts"]],
    ),
    "cut, trained on": (
        "value",
        "D",
        ":",
        ["cut, tuned", "cut, tuned, 8 bits"],
    ),
    "narrow, taught": (
        "scores",
        "^",
        ":",
        ["narrow, distilled", "narrow, distilled, 8 bits"],
    ),
    "dense": ("weights", "*", "", ["dense", "16 bits"]),
}
fig, ax = plt.subplots(figsize=(5.1, 4.8))
for label, (color, marker, line, names) in groups.items():
    ax.errorbar(
        [size[name] / 1e3 for name in names],
        [mean[name] for name in names],
        [sd[name] for name in names],
        color=COLORS[color],
        marker=marker,
        linestyle=line or "none",
        capsize=3,
        markersize=11 if marker == "*" else 6,
        label=label,
    )
ax.set(
    xscale="log", xlabel="kilobytes of the file", ylabel="accuracy, held out"
)
ax.set_xticks([50, 100, 200, 500], ["50", "100", "200", "500"])
ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-pruning-and-quantization-chart",
    caption="Accuracy against size on disk, means over seeds with their "
    "standard deviation. Up and to the left is better. Fewer bits keep the "
    "accuracy of the dense model to sizes where zeros have lost it.",
    alt="Accuracy over kilobytes, log scale. Bits, trained on, stay level with "
    "the dense model down to 70 kilobytes and dip at 50; zeros, trained on, "
    "fall from 140 on. Cut models lie at the top, narrow ones below.",
)

# %% [markdown]
# {numref}`fig-pruning-and-quantization-chart` has it all, over {glue:text}`compress-seeds:.0f`
# seeds. The dense model names {glue:text}`compress-r-dense:.3f` of the texts right, and
# {glue:text}`compress-r-longer:.3f` after the additional steps: those alone bring nothing.
#
# - **Bits.** Eight leave {glue:text}`compress-r-8:.3f`, four {glue:text}`compress-r-4:.3f` in a
#   file {glue:text}`compress-r-4-times:.1f` times smaller, both without any training. Three,
#   trained on, leave {glue:text}`compress-r-3t:.3f` in one {glue:text}`compress-r-3-times:.1f`
#   times smaller. Two fall to {glue:text}`compress-r-2:.3f`, and training through the staircase
#   brings them back to {glue:text}`compress-r-2t:.3f`.
# - **Zeros.** Half of them leave {glue:text}`compress-r-50:.3f` at once, and
#   {glue:text}`compress-r-50t:.3f` trained on. Four fifths, trained on, leave
#   {glue:text}`compress-r-80t:.3f` in a bitmap file {glue:text}`compress-r-80-times:.1f` times
#   smaller; nine tenths {glue:text}`compress-r-90t:.3f`, which is near to what always naming the
#   commonest module would give. At equal bytes, bits win here.
# - **Heads and neurons.** The cut model falls to {glue:text}`compress-r-cut:.3f` and is brought
#   back to {glue:text}`compress-r-cutt:.3f`. Its file shrinks little, since half of this model is
#   its word table, which has no heads; but of all that is made from the large model it alone
#   *computes* less. And cuts and bits add up: cut and in eight bits it keeps
#   {glue:text}`compress-r-cut8:.3f`, {glue:text}`compress-r-cut8-times:.1f` times smaller.
# - **A narrow model**, from random weights, reaches {glue:text}`compress-r-narrow:.3f` alone and
#   {glue:text}`compress-r-taught:.3f` with a teacher. The difference is
#   {glue:text}`compress-r-gain:.3f`, with a standard deviation of
#   {glue:text}`compress-r-gain-sd:.3f` over seeds: no gain. As in chapter 14, a teacher who saw the
#   same labels and no more has little to give. Neither arm was given more steps than the large
#   model; with more both might climb.
#
# :::{admonition} Our remark
# :class: remark
# One small model, one task, one short budget. That bits come cheaper than zeros here is no law:
# very large models have been pruned far, and trained longer. What does carry over is how to
# compare: file against file, in a named format, against a dense model that was trained as long,
# over several seeds.
# :::

# %% [markdown]
# ## Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “Pruning makes models smaller.” | Zeros alone shrink neither file nor work. A format that leaves them out does, and so do matrices with fewer rows. | D35; {eq}`eq-pruning-and-quantization-formats` |
# | “The smallest weights matter least.” | To the matrix. For the output it is weight times size of the input, if inputs do not go together. | {eq}`eq-pruning-and-quantization-scored`, {eq}`eq-pruning-and-quantization-refit` |
# | “Each bit is worth six decibels.” | At a fixed reach. With the best reach for each number of bits it is less. | {eq}`eq-pruning-and-quantization-clip` |
# | “The rounding error is uniform, as the steps are fine.” | For a smooth density fine steps are enough, and they are far from needed: for normal numbers a step as wide as a standard deviation will do. | {eq}`eq-pruning-and-quantization-normal` |
# | “The straight-through estimator has no justification.” | It is the exact slope of the mean of randomised rounding. Without the random part it is an approximation. | {eq}`eq-pruning-and-quantization-dither` |

# %% [markdown]
# ## Broken on purpose
#
# :::{admonition} Broken on purpose D35: zeros that shrink nothing
# :class: broken
# “The model was pruned by nine tenths.” The tool wrote zeros into the matrices, and to keep them
# there in training it keeps a mask of the same size beside each. The file has doubled. Then the
# masks are made permanent, and the file is as large as it was at the beginning. So is the work: a
# product with zeros has as many terms.
# :::


# %%
def masks_beside(block):
    """As torch.nn.utils.prune leaves a model that may still be trained."""
    pruned = copy.deepcopy(block)
    for part in pruned.modules():
        if isinstance(part, nn.Linear):
            prune.l1_unstructured(part, "weight", 0.9)
    return pruned


def masks_removed(block):
    pruned = masks_beside(block)
    for part in pruned.modules():
        if isinstance(part, nn.Linear):
            prune.remove(part, "weight")
    return pruned


def heads_and_neurons(block):
    """A tenth of the neurons and one head of eight are left."""
    pruned = copy.deepcopy(block)
    pruned.attention = structured_prune_heads(block.attention, range(1, 8))
    pruned.feed_forward = structured_prune_neurons(
        block.feed_forward, range(102, 1024)
    )
    return pruned


def the_file_shrinks(compress):
    file = disk(compress(block).state_dict())
    ratio = file / disk(block.state_dict())
    assert ratio < 0.5, (
        f"the file has {file / 1e6:.2f} MB, {ratio:.2f} times the dense one"
    )
    return ratio


def the_work_shrinks(compress):
    x = torch.randn(1, 64, 256)
    ratio = flops(compress(block), x) / flops(block, x)
    assert ratio < 0.5, f"the products take {ratio:.2f} times the operations"
    return ratio


glue("compress-d35-file", the_file_shrinks(heads_and_neurons))
glue("compress-d35-work", the_work_shrinks(heads_and_neurons))
catches(
    "D35, with masks",
    the_file_shrinks,
    broken=masks_beside,
    fixed=heads_and_neurons,
)
catches(
    "D35, without",
    the_file_shrinks,
    broken=masks_removed,
    fixed=heads_and_neurons,
)
catches(
    "D35, the work",
    the_work_shrinks,
    broken=masks_removed,
    fixed=heads_and_neurons,
)

# %% [markdown]
# **Fix:** cut out what can be cut out whole. With one head of eight and a tenth of the neurons the
# file is {glue:text}`compress-d35-file:.2f` of the dense one, and the products take
# {glue:text}`compress-d35-work:.2f` of the operations. Or keep the zeros, and store them in a
# format that leaves them out; then say which, and that the work is as before. Whether the *answers*
# survive either is another question, which {numref}`fig-pruning-and-quantization-chart` answers for
# one model.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} The nearest sparse matrix
# :label: ex-pruning_and_quantization-nearest
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `nearest_sparse(W, k)`: the matrix with at most `k` entries other than zero that is nearest
# to
# `W`, a tensor of any shape. `W` is not to be changed. Where magnitudes are equal, any choice will do, but
# no more than `k` may stay.
#
# ```{dropdown} Hint
# `topk` of the flattened magnitudes gives places. Begin with zeros, and copy those places.
# ```


# %% tags=["exercise-stub"]
def nearest_sparse(W, k):
    raise NotImplementedError


grade("ex-pruning_and_quantization-nearest", nearest_sparse)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-pruning_and_quantization-nearest
# :class: dropdown
# ```


# %% tags=["solution"]
def nearest_sparse(W, k):
    places = W.abs().flatten().topk(k).indices
    V = torch.zeros_like(W)
    V.view(-1)[places] = W.flatten()[places]
    return V


grade("ex-pruning_and_quantization-nearest", nearest_sparse)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Which weight goes first?
# :label: ex-pruning_and_quantization-output
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `first_to_go(w, Sigma)`: of the weights `w` (n,) of one output, the index of the one whose
# loss costs the output least, *if the others may be refitted*. `Sigma` (n, n) holds the second
# moments of the inputs and is invertible.
#
# ```{dropdown} Hint
# {eq}`eq-pruning-and-quantization-schur` with a single place in $R$. The block in brackets is then
# one number, and it is one over a diagonal entry of $\Sigma^{-1}$.
# ```


# %% tags=["exercise-stub"]
def first_to_go(w, Sigma):
    raise NotImplementedError


grade("ex-pruning_and_quantization-output", first_to_go)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-pruning_and_quantization-output
# :class: dropdown
# ```


# %% tags=["solution"]
def first_to_go(w, Sigma):
    cost = w.square() / torch.linalg.inv(Sigma).diagonal()
    return int(cost.argmin())


grade("ex-pruning_and_quantization-output", first_to_go)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Step and zero point
# :label: ex-pruning_and_quantization-affine
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `grid(lowest, highest, bits)`: step and zero point `(step, zero)` of the affine grid for
# numbers between these two, with signed integers. The zero point is an `int`. The numbers may all
# lie on one side of 0.
#
# ```{dropdown} Hint
# Widen the interval until it holds 0. Then {eq}`eq-pruning-and-quantization-affine`, and round.
# ```


# %% tags=["exercise-stub"]
def grid(lowest, highest, bits):
    raise NotImplementedError


grade("ex-pruning_and_quantization-affine", grid)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-pruning_and_quantization-affine
# :class: dropdown
# ```


# %% tags=["solution"]
def grid(lowest, highest, bits):
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    step = (highest - lowest) / (2**bits - 1)
    zero = -(2 ** (bits - 1)) - round(lowest / step)
    return step, zero


grade("ex-pruning_and_quantization-affine", grid)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} How many bits?
# :label: ex-pruning_and_quantization-bits
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `bits_needed(decibels, reach)`: the fewest bits, at least one, for an SQNR of so many
# decibels by {eq}`eq-pruning-and-quantization-sqnr`, for numbers of standard deviation one on a
# grid of $2^b$ points that reaches to `reach`.
#
# ```{dropdown} Hint
# Solve for $b$, and round up. A grid that reaches further than the numbers go needs more bits.
# ```


# %% tags=["exercise-stub"]
def bits_needed(decibels, reach):
    raise NotImplementedError


grade("ex-pruning_and_quantization-bits", bits_needed)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-pruning_and_quantization-bits
# :class: dropdown
# ```


# %% tags=["solution"]
def bits_needed(decibels, reach):
    filled = 10 * math.log10(3 / reach**2)
    return max(1, math.ceil((decibels - filled) / (20 * math.log10(2))))


grade("ex-pruning_and_quantization-bits", bits_needed)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A product with zero points
# :label: ex-pruning_and_quantization-product
# ```
# *Difficulty ●●● · 20 minutes*
#
# Write `product(P, Q, z_x, z_w)`: for integers `P` (N, n) with the zero point `z_x`, and `Q` (m, n)
# with a zero point a row, `z_w` (m, 1), the integers (N, m) that $\Delta_x \Delta_w$ has to be
# multiplied by. All come as int8. No integer may be widened before the large product
# `torch._int_mm(P, Q.T)`, which gives int32: that is where the time goes.
#
# ```{dropdown} Hint
# {eq}`eq-pruning-and-quantization-product`, one sum at a time. Sums of int8 take
# `dtype=torch.int32`, and so do the zero points.
# ```


# %% tags=["exercise-stub"]
def product(P, Q, z_x, z_w):
    raise NotImplementedError


grade("ex-pruning_and_quantization-product", product)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-pruning_and_quantization-product
# :class: dropdown
# ```


# %% tags=["solution"]
def product(P, Q, z_x, z_w):
    z_x, z_w = z_x.int(), z_w.int().T  # (), (1, m)
    rows = P.sum(-1, keepdim=True, dtype=torch.int32)  # (N, 1)
    columns = Q.sum(-1, dtype=torch.int32)  # (m,)
    n = P.shape[1]
    return torch._int_mm(P, Q.T) - z_w * rows - z_x * columns + n * z_x * z_w


grade("ex-pruning_and_quantization-product", product)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - Pruning by magnitude is the nearest sparse matrix {eq}`eq-pruning-and-quantization-nearest`. It
#   is the best for the output only if inputs are uncorrelated and alike
#   {eq}`eq-pruning-and-quantization-white`; else weigh by the input's size
#   {eq}`eq-pruning-and-quantization-scored`, and refit what stays
#   {eq}`eq-pruning-and-quantization-refit`.
# - A zero costs as much as any number unless the format leaves it out
#   {eq}`eq-pruning-and-quantization-formats`. Heads and neurons leave whole
#   {eq}`eq-pruning-and-quantization-heads`.
# - The error of rounding is $\Delta^2/12$ {eq}`eq-pruning-and-quantization-uniform`, up to terms
#   that are known exactly {eq}`eq-pruning-and-quantization-exact`. A bit is worth six decibels at a
#   fixed reach {eq}`eq-pruning-and-quantization-sqnr`; clipping trades reach for step
#   {eq}`eq-pruning-and-quantization-clip`.
# - A step a row, and a zero point where numbers lie to one side
#   {eq}`eq-pruning-and-quantization-rows`, {eq}`eq-pruning-and-quantization-affine`. Products of
#   integers need only sums besides {eq}`eq-pruning-and-quantization-product`.
# - Straight-through is the slope of randomised rounding {eq}`eq-pruning-and-quantization-dither`.
#   It trains models of few bits.
# - On our classifier bits were cheaper than zeros, and cheaper than a narrow model taught by the
#   large one. Zeros beat the narrow model as long as enough weights were left, and then lost to it.
#
# ## Sources
#
# - {cite:t}`lecun1990`: weights pruned by the curvature of the loss; {cite:t}`hassibi1993`: with
#   the survivors moved. {cite:t}`han2015`, §3: magnitude and retraining. {cite:t}`sun2024`:
#   magnitude times size of the input.
# - {cite:t}`michel2019`, §2.3: heads masked; §3.2: one at a time. {cite:t}`li2017`, §3.1: filters cut
#   out whole.
# - {cite:t}`bennett1948`: $\Delta^2/12$. {cite:t}`sripad1977`: when the error is exactly uniform.
#   {cite:t}`gray1998`: the history.
# - {cite:t}`jacob2018`, §2.1: step and zero point; §2.2 and §2.3: products of integers; §3:
#   training with rounding.
# - {cite:t}`bengio2013`: the straight-through estimator.
