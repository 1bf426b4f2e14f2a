# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A network is too large to read. So ask it about many small changes of one sentence, and fit
#       a straight line to its answers. How far can the line be trusted, what does its width decide,
#       and will it say the same tomorrow?
#     goals:
#       - derive weighted least squares, and say when its answer exists and when it is the only one
#       - prove that a linear model is found exactly, and show what happens to every other one
#       - say what a narrow kernel measures, what a wide one, and what Shapley's
#       - predict the spread of an explanation over seeds, and measure it
#       - test three explanations of one network against that network
#     prerequisites:
#       - integrated gradients (chapter 16) and Shapley values (chapter 17)
#       - the transposed matrix and the inverse; mean, variance, covariance
#     data: The docstrings of Python's own standard library (lib.data.docstrings); no download.
#     hardware: One CPU core.
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
# # LIME

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "teaching").is_dir()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import Ridge

from lib.interpret import (
    coalitions,
    deletion_curve,
    integrated_gradients,
    lime,
    shapley_kernel,
    shapley_values,
    weighted_least_squares,
)
from lib.teaching import (
    CurveExplorer,
    Progress,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS
from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import MASK, SENTENCE, train, words

start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# We cannot read a network. But we can ask it. Take the sentence that it has judged, hide a few
# words, and ask again; do that some hundred times. Each question is a row $z$ of zeros and ones,
# one a word, and $f(z)$ is what the network says with only the words that have a one. Now fit a
# linear function to the answers,
#
# $$
# g(z) = b + \beta_1 z_1 + \dots + \beta_n z_n ,
# $$ (def-lime-surrogate)
#
# the *surrogate*, and read its coefficients as an explanation: $\beta_j$ is what the presence of
# word $j$ adds. Near the sentence the fit should be good, far from it we do not mind. So each
# question has a weight, $\pi_i$, and we minimise
#
# $$
# L(b, \beta) = \sum_{i=1}^{m} \pi_i \,\big(f(z_i) - b - \beta^\top z_i\big)^2
# + \lambda\, \lVert \beta \rVert^2 ,
# \qquad
# \pi_i = e^{-D(z_i)^2 / \sigma^2} .
# $$ (def-lime-loss)
#
# $D(z)$ is the distance from the sentence itself, and $\sigma$, the *kernel width*, says how far
# “near” reaches. Two distances are in use for text. One is the share of words that are hidden; the
# other is the cosine distance between $z$ and the row of all ones. With $k = \sum_j z_j$ words
# present, their dot product is $k$ and their lengths are $\sqrt k$ and $\sqrt n$:
#
# $$
# D_{\text{share}}(z) = 1 - \frac{k}{n} ,
# \qquad
# D_{\cos}(z) = 1 - \frac{k}{\sqrt{k}\,\sqrt{n}} = 1 - \sqrt{k/n} .
# $$ (eq-lime-distances)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $f$ | rows to numbers | the model that is asked, such as one class's logit |
# | $z_i$ | $n$ | question $i$: 1 where a word is present; $z_1$ is the whole sentence |
# | $y_i$ | a number | the answer, $y_i = f(z_i)$ |
# | $\pi_i$ | a number | the weight of the question, from 0 to 1 |
# | $b,\ \beta$ | a number, $n$ | intercept and coefficients of the surrogate |
# | $\sigma$ | a number | the kernel width |
# | $\lambda$ | a number | ridge: how much large coefficients are punished; 0 unless we say so |
# | $m$ | a number | how many questions are asked |
#
# The name says it all: *local*, because of $\pi$; *interpretable*, because a line can be read;
# *model-agnostic*, because nothing but answers is asked of $f$; *explanations*, which is what has
# to be shown.

# %%
n = 11
Z = coalitions(n).double()  # every row of zeros and ones, (2ⁿ, n)
k = Z.sum(1)
ones = torch.ones(n, dtype=double)
some = k > 0  # the cosine with a row of zeros is not defined; D is 1 there
cosine = (Z @ ones)[some] / (Z[some].norm(dim=1) * ones.norm())
check(
    "eq-lime-distances",
    [1 - (k / n).sqrt()[some], 1 - k / n],
    [1 - cosine, (1 - Z).mean(1)],
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# {cite:t}`ribeiro2016` (§3.2) look for the explanation $g$ that minimises $\mathcal{L}(f, g, \pi_x)
# + \Omega(g)$: how badly $g$ imitates $f$ near $x$, plus how hard $g$ is to read. For text
# they take the kernel above with the cosine distance (§3.4), and for $\Omega$ a limit on the number
# of words. Rows are drawn by choosing first how many words are kept, uniformly, and then which
# (§3.3).
# :::
#
# :::{admonition} Our remark
# :class: remark
# We keep all words and have no $\Omega$: choosing $K$ words is a second question, and it can hide
# what the first one got wrong. The authors' package hides from 1 to $n$ words, divides by $2\sigma^2$
# where the paper divides by $\sigma^2$, and has $\lambda = 1$. Step 5 shows that a
# factor in the width is not a detail.
# :::

# %% [markdown]
# ## Derivation
#
# Eight steps. Three find the line and say when there is only one. Two say when it tells the truth.
# The last three say what depends on us: the width, the kernel's shape, and the seed.
#
# ### Step 1. The normal equations
#
# Put a one before each row, $a_i = (1, z_i)$, stack these rows into $A$, of shape $m \times (n+1)$,
# and intercept and coefficients into one column $\theta = (b, \beta)$. With $W$ for the diagonal
# matrix of the weights, and without ridge, the loss is
#
# $$
# L(\theta) = (y - A\theta)^\top W\, (y - A\theta)
# = y^\top W y - 2\,\theta^\top A^\top W y + \theta^\top A^\top W A\, \theta .
# $$ (eq-lime-expanded)
#
# Its gradient is $-2 A^\top W y + 2 A^\top W A\,\theta$. It is zero exactly where
#
# $$
# A^\top W A\; \theta = A^\top W y .
# $$ (eq-lime-normal)
#
# These $n + 1$ equations are the *normal equations*. Read them as $A^\top W (y - A\theta) = 0$: what
# is left over, weighted, has a zero product with every column of $A$. So it has mean zero, and is
# uncorrelated with every word: nothing is left in it that a line could still say.
#
# A zero gradient might be a saddle. It is not. Let $\hat\theta$ solve {eq}`eq-lime-normal`, and move
# away from it by $\delta$. In $L(\hat\theta + \delta)$ the mixed term is
# $-2\,\delta^\top A^\top W (y - A\hat\theta)$, which is zero, so
#
# $$
# L(\hat\theta + \delta) = L(\hat\theta) + \delta^\top A^\top W A\, \delta
# = L(\hat\theta) + \sum_i \pi_i \,(a_i \cdot \delta)^2 .
# $$ (eq-lime-square)
#
# The last sum is not negative. Every solution of the normal equations is a minimum.

# %%
generator = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


m, n = 40, 5
z, y = randn(m, n), randn(m)
pi = torch.rand(m, generator=generator, dtype=double)
A, W = torch.cat([torch.ones(m, 1, dtype=double), z], 1), torch.diag(pi)


def loss(theta):
    return (pi * (y - A @ theta) ** 2).sum()


theta = randn(n + 1)
check(
    "eq-lime-expanded",
    y @ W @ y - 2 * theta @ A.T @ W @ y + theta @ A.T @ W @ A @ theta,
    loss(theta),
)
leaf = torch.zeros(n + 1, dtype=double, requires_grad=True)
(slope,) = torch.autograd.grad(loss(leaf), leaf)
check("its gradient", slope, -2 * A.T @ W @ y)
best = torch.linalg.solve(A.T @ W @ A, A.T @ W @ y)
check("eq-lime-normal", A.T @ W @ (y - A @ best), torch.zeros(n + 1, dtype=double))
delta = randn(n + 1)
check(
    "eq-lime-square",
    loss(best + delta),
    loss(best) + (pi * (A @ delta) ** 2).sum(),
)

# %% [markdown]
# ### Step 2. One solution, or many, but never none
#
# **There always is one.** The normal equations ask whether $A^\top W y$ can be written as $A^\top W
# A\,\theta$. Suppose some $\delta$ is orthogonal to everything of the form $A^\top W A\,\theta$.
# Then $A^\top W A\,\delta = 0$, as this matrix is symmetric; multiply by $\delta^\top$ to get
# $\sum_i \pi_i (a_i \cdot \delta)^2 = 0$; so $a_i \cdot \delta = 0$ wherever $\pi_i > 0$, and then
# $\delta \cdot A^\top W y = \sum_i \pi_i\, y_i\, (a_i \cdot \delta) = 0$ as well. What is orthogonal
# to the range is orthogonal to the right side. In finitely many dimensions this puts the right side
# into the range.
#
# **When is it the only one?** If $\hat\theta$ and $\hat\theta + \delta$ are both minima,
# {eq}`eq-lime-square` says $\sum_i \pi_i (a_i \cdot \delta)^2 = 0$. The solution is unique exactly
# if only $\delta = 0$ has $a_i \cdot \delta = 0$ for all questions that count:
#
# $$
# \hat\theta \text{ is unique} \iff
# \operatorname{rank}\{\, (1, z_i) : \pi_i > 0 \,\} = n + 1 .
# $$ (eq-lime-unique)
#
# This takes at least $n + 1$ questions. It also takes that no word is in every one of them, and
# that no two words are always present or absent together.
#
# **Without the hypothesis.** Below, two words are never separated. The model gives everything to
# the first. The lines $(3, 0)$, $(1.5, 1.5)$ and $(0, 3)$ fit equally well, without any error, and
# explain it in three ways. A solver that does not look returns one of them. `lib` refuses. Ridge
# gives an answer, and it is the one in the middle: it splits between twins because two small
# coefficients have a smaller sum of squares than a large one. That is a convention, and not a
# finding.

# %%
twins = coalitions(2).double()[:, [0, 0, 1]]  # words 0 and 1 always together
answers = 3 * twins[:, 0]
even = torch.ones(4, dtype=double)


def rank(rows):
    with_one = torch.cat([torch.ones(len(rows), 1, dtype=double), rows], 1)
    return int(torch.linalg.matrix_rank(with_one))


for split in ([3.0, 0.0], [1.5, 1.5], [0.0, 3.0]):
    fitted = twins @ torch.tensor([*split, 0.0], dtype=double)
    check(f"coefficients {split} leave nothing over", fitted, answers)
check("eq-lime-unique", [rank(twins), rank(z)], [3, n + 1])
try:
    weighted_least_squares(twins, answers, even)
except ValueError as refused:
    print(refused)
middle = weighted_least_squares(twins, answers, even, ridge=1e-6)
print("with a little ridge:", [f"{b:.3f}" for b in middle.coefficients])
check("ridge splits evenly", middle.coefficients[0], middle.coefficients[1])

# %% [markdown]
# ### Step 3. What a coefficient is
#
# The first of the normal equations belongs to the column of ones. It says $\sum_i \pi_i (y_i - b -
# \beta^\top z_i) = 0$, so with weighted means $\bar y = \sum \pi_i y_i / \sum \pi_i$, and $\bar z$
# likewise,
#
# $$
# b = \bar y - \beta^\top \bar z .
# $$ (eq-lime-intercept)
#
# Put that into the others. What remains are the weighted covariances of the words with each other,
# $C = \sum_i \pi_i (z_i - \bar z)(z_i - \bar z)^\top / \sum_i \pi_i$, and with the answers, $c =
# \sum_i \pi_i (z_i - \bar z)(y_i - \bar y) / \sum_i \pi_i$:
#
# $$
# C \beta = c .
# $$ (eq-lime-covariance)
#
# If the words are uncorrelated under the weights, $C$ is diagonal, and $\beta_j = c_j / C_{jj}$.
# For a variable of zeros and ones with mean $p$, the variance is $p(1-p)$. The covariance is
# $\overline{z_j y} - p\,\bar y$. Write $y^+$ and $y^-$ for the mean answers with and without the
# word. Then $\overline{z_j y} = p\,y^+$ and $\bar y = p\,y^+ + (1-p)\,y^-$, the covariance is
# $p(1-p)(y^+ - y^-)$, and
#
# $$
# \beta_j = y^+ - y^- :
# \quad\text{the mean answer with the word, less the mean answer without.}
# $$ (eq-lime-difference)
#
# So this is all that a coefficient is: an average over the questions that were asked, of what the
# word does in the company of others. Which questions, and how heavy, was our choice.
#
# **Without the hypothesis.** The kernel $e^{-D^2/\sigma^2}$ depends on *how many* words are present.
# That ties them together: they are correlated under $\pi$, the difference of means mixes in what the
# others do, and only {eq}`eq-lime-covariance`, with the inverse of $C$, takes it out again.

# %%
share = pi / pi.sum()
z_bar, y_bar = share @ z, share @ y
C = (share[:, None] * (z - z_bar)).T @ (z - z_bar)
c = (share * (y - y_bar)) @ (z - z_bar)
check("eq-lime-intercept", best[0], y_bar - best[1:] @ z_bar)
check("eq-lime-covariance", C @ best[1:], c)

sets = coalitions(4)
model = (sets[:, 0] & sets[:, 1]).double() + 0.5 * sets[:, 2]
coin = torch.tensor([0.5, 0.7, 0.2, 0.9], dtype=double)
coins = torch.where(sets, coin, 1 - coin).prod(1)  # independent words


def difference_of_means(answers, weights):
    found = []
    for j in range(sets.shape[1]):
        there, gone = weights * sets[:, j], weights * ~sets[:, j]
        with_it = answers @ there / there.sum()
        found.append(with_it - answers @ gone / gone.sum())
    return torch.stack(found)


line = weighted_least_squares(sets, model, coins)
check(
    "eq-lime-difference", line.coefficients, difference_of_means(model, coins)
)
by_count = torch.exp(-(((1 - sets.double().mean(1)) / 0.5) ** 2))
sums = sets.double() @ torch.tensor([1.0, 1.0, 0.5, 0.0], dtype=double)
line = weighted_least_squares(sets, sums, by_count)
means = difference_of_means(sums, by_count)
print("word  coefficient  difference of means")
for j, (b, d) in enumerate(zip(line.coefficients, means, strict=True)):
    print(f"{j:4}{b + 0.0:13.3f}{d:21.3f}")
glue("lime-idle", means[3])
check("the idle word has no coefficient", line.coefficients[3], 0.0)
check("but a difference of means it has", means[3] < -0.05)

# %% [markdown]
# Word 3 does nothing. Its coefficient is zero, and yet its difference of means is
# {glue:text}`lime-idle:.2f`. Under these weights a second hidden word costs more than the first: where
# word 3 is hidden, the others tend to be there.
#
# ### Step 4. A linear model is found exactly
#
# Let $f(z) = b^* + \beta^{*\top} z$. Then $y = A\theta^*$, and
#
# $$
# \hat\theta = (A^\top W A)^{-1} A^\top W A\, \theta^* = \theta^*
# $$ (eq-lime-linear)
#
# for *all* weights, widths, distances and draws, as long as the solution is unique. This is LIME's
# one guarantee. {cite:t}`garreau2020` prove that even then what the package gives for tables, whose
# features are cut into bins first, is only proportional to the gradient, with factors that depend on
# the width.
#
# How far $f$ is from linear, *as far as our questions can tell*, is measured by
#
# $$
# R^2 = 1 - \frac{\sum_i \pi_i (y_i - g(z_i))^2}{\sum_i \pi_i (y_i - \bar y)^2} .
# $$ (def-lime-r2)
#
# What is left over is uncorrelated with $g$, so the variances add up, $\overline{(y - \bar y)^2} =
# \overline{(g - \bar y)^2} + \overline{(y - g)^2}$, and
#
# $$
# R^2 = \frac{\sum_i \pi_i (g(z_i) - \bar y)^2}{\sum_i \pi_i (y_i - \bar y)^2} \in [0, 1] .
# $$ (eq-lime-r2)
#
# It is the share of what happens near the sentence that the line accounts for. **Without the
# hypothesis**, take the model that says 1 if exactly one of two words is present, and 0 otherwise.
# Both words decide everything. With equal weights the line says that neither matters, and $R^2 = 0$
# is the only sign that it is the line that fails, and not the words.

# %%
beta = randn(n)
worst = 0.0
for sigma in (0.3, 1.0, 3.0):
    line = lime(
        lambda z: 2 + z.double() @ beta,
        n,
        kernel_width=sigma,
        samples=200,
        seed=1,
    )
    worst = max(worst, (line.coefficients - beta).abs().max().item())
    check("eq-lime-linear", line.coefficients, beta)
    check("and explained whole", line.r2, 1.0)
print(f"largest error of a coefficient: {worst:.0e}")

g = A @ best
rest = 1 - (pi * (y - g) ** 2).sum() / (pi * (y - y_bar) ** 2).sum()
explained = (pi * (g - y_bar) ** 2).sum() / (pi * (y - y_bar) ** 2).sum()
check("eq-lime-r2", explained, rest)
check("and it is lib's", weighted_least_squares(z, y, pi).r2, rest)

pair = coalitions(2)
one_of_two = (pair[:, 0] ^ pair[:, 1]).double()
blind = weighted_least_squares(pair, one_of_two, even)
check("one of two: no coefficient", blind.coefficients, 0.0)
check("and no R²", blind.r2, 0.0)
