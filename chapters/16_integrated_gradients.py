# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A gradient says what a small step would change. Once an answer is certain, a small step
#       changes nothing, and the gradient says that no word mattered. Which words moved the
#       prediction, when the gradient itself says none did?
#     goals:
#       - derive integrated gradients from one demand, that the parts add up to the whole
#       - prove five axioms, and see for each what happens where its hypothesis fails
#       - say how many steps the integral takes, and why a kink costs more than a curve
#       - attribute word vectors, never ids, and read what a baseline does to the answer
#       - measure on held-out texts what the attributions are worth, and what they are not
#     prerequisites:
#       - the chain rule, and the fundamental theorem of calculus
#       - BERT and its embeddings (chapter 11)
#     data: Docstrings of the modules of Python's own standard library; no download.
#     hardware: One CPU core. A small BERT is trained in some ten seconds.
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
# # Integrated gradients

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
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch

from lib.interpret import (
    completeness_gap,
    deletion_curve,
    gradient_times_input,
    integrated_gradients,
    quadrature,
)
from lib.teaching import (
    COLORS,
    CurveExplorer,
    Progress,
    catches,
    check,
    glue,
    grade,
    heatmap,
    show_figure,
    start,
)
from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import (
    MASK,
    PAD,
    SENTENCE,
    WordClassifier,
    train,
    words,
)
from lib.training import seed_everything

start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# A model $f$ maps an input $x$ to one number, such as the logit of one class. To *attribute* is to
# write this number, or rather its difference from the number for a *baseline* $x'$, as a sum with
# one term for each entry of $x$. Walk from the baseline to the input on a straight line. Every
# entry grows at its own constant speed $x_i - x'_i$, and the gradient says what that is worth at
# each moment. Integrated gradients adds it up:
#
# $$
# \operatorname{IG}_i(x) = (x_i - x'_i) \int_0^1
# \frac{\partial f}{\partial x_i}\big(x' + \alpha\,(x - x')\big)\, \mathrm{d}\alpha .
# $$ (def-integrated-gradients-formula)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $f$ | a function | takes an input, gives one number; differentiable almost everywhere |
# | $x$ | any shape | the input to explain; for a text $n \times d$, one vector a word |
# | $x'$ | as $x$ | the baseline: what the input is compared with |
# | $\alpha$ | a number | how far the walk has come, from $0$ (baseline) to $1$ (input) |
# | $\operatorname{IG}(x)$ | as $x$ | what each entry contributes to $f(x) - f(x')$ |
#
# Why walk at all? Take the smallest network that is ever sure of itself,
#
# $$
# f(x) = 1 - \operatorname{relu}(1 - x) ,
# $$ (def-integrated-gradients-saturated)
#
# which rises with $x$ up to $1$ and then stays there. At $x = 2$ with baseline $0$ the answer has
# moved from $0$ to $1$, and there is only one input that can have moved it. But the gradient
# at $x = 2$ is zero. {numref}`fig-integrated-gradients-saturation` shows where it went: all that $x$ has
# contributed, it contributed on the first half of the way.

# %%
x = torch.tensor([[2.0]], dtype=double)  # a batch of one input with one entry


def saturated(x):
    return 1 - torch.relu(1 - x).sum(-1)


at_the_end = gradient_times_input(saturated, x).item()
on_the_way = integrated_gradients(saturated, x, 0.0).item()
print(f"f(2) − f(0)          {saturated(x).item() - 0:.3f}")
print(f"gradient × input     {at_the_end + 0.0:.3f}")
print(f"integrated gradients {on_the_way:.3f}")
check("the gradient says that nothing mattered", at_the_end, 0.0)
check("all of it was on the way", on_the_way, 1.0)

# %% tags=["hide-input"]
way = torch.linspace(0, 1, 201, dtype=double)
height = saturated(2 * way[:, None])
slope = torch.where(way < 0.5, 2.0, 0.0)
fig, ax = plt.subplots(figsize=(4.6, 3.0))
ax.fill_between(way, slope, step="mid", alpha=0.25, color=COLORS["query"], lw=0)
ax.plot(way, slope, color=COLORS["query"], label="slope on the way")
ax.plot(way, height, "--", color=COLORS["value"], label="$f$ on the way")
ax.plot([1], [0], "o", color=COLORS["key"], clip_on=False, zorder=5)
ax.annotate(
    "all that the gradient\nat the input sees",
    (1, 0),
    xytext=(0.6, 0.36),
    arrowprops={"arrowstyle": "->", "color": COLORS["key"]},
)
ax.set(
    xlabel="way $α$ from the baseline 0 to the input 2",
    ylabel="",
    ylim=(-0.1, 2.2),
)
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-integrated-gradients-saturation",
    caption="A unit that saturates. On the first half of the way the slope, "
    "in units of the way, is 2, then 0; the shaded area, 1, is the integrated "
    "gradient. The gradient at the input is the height of the last point.",
    alt="A slope that is 2 up to the middle of the way and 0 after it, with "
    "the area below it shaded; a dashed curve that rises from 0 to 1 and then "
    "stays flat; a dot at the right end at height 0.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# {cite:t}`sundararajan2017` ask of an attribution that it satisfy two axioms, *sensitivity* and
# *implementation invariance* (§2), show that most methods of their time break one of the two, and
# propose the formula above (§3). The saturating unit is their example (§2.1).
# :::
#
# :::{admonition} Our remark
# :class: remark
# An axiom says what an explanation must not do. It does not say that the explanation is true: the
# axioms below hold whatever the baseline is, and the attributions will change with it. What can be
# proven and what has to be measured are two different lists. This chapter keeps both.
# :::

# %% [markdown]
# ## Derivation
#
# Eight steps: two on where the formula comes from, four on what it satisfies, one on how to compute
# it, and one on words.
#
# ### Step 1. The parts add up: completeness
#
# Let $\gamma(\alpha) = x' + \alpha\,(x - x')$ be the walk, and $F(\alpha) = f(\gamma(\alpha))$ what
# the model says on the way. Each entry of $\gamma$ has the derivative $x_i - x'_i$, so by the chain
# rule
#
# $$
# F'(\alpha) = \sum_i (x_i - x'_i)\, \frac{\partial f}{\partial x_i}\big(\gamma(\alpha)\big) .
# $$ (eq-integrated-gradients-chain)
#
# Integrate from $0$ to $1$. On the right the sum and the integral may be exchanged, and the terms
# are those of {eq}`def-integrated-gradients-formula`. On the left the fundamental theorem of
# calculus gives $F(1) - F(0)$. Since $\gamma(1) = x$ and $\gamma(0) = x'$,
#
# $$
# \sum_i \operatorname{IG}_i(x) = f(x) - f(x') .
# $$ (eq-integrated-gradients-completeness)
#
# This is *completeness*: nothing of the difference is lost, and nothing is invented. It also turns
# into a test that every implementation can run on every input, because the right side costs two
# calls of the model.


# %%
def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=double)


W_1, W_2 = randn(5, 16, seed=1), randn(16, seed=2)


def smooth(x):
    """A small network of tanh, (N, 5) → (N,)."""
    return torch.tanh(x @ W_1) @ W_2


def sharp(x):
    """The same weights with ReLU and a bias."""
    return torch.relu(x @ W_1 + 0.5) @ W_2


def slopes(f, points):
    points = points.clone().requires_grad_()
    return torch.autograd.grad(f(points).sum(), points)[0]


x, base = randn(1, 5, seed=3), randn(1, 5, seed=4)
alpha, tiny = 0.3, 1e-6


def on_the_line(a, f=smooth):
    return f(base + a * (x - base))


numeric = (on_the_line(alpha + tiny) - on_the_line(alpha - tiny)) / (2 * tiny)
chained = ((x - base) * slopes(smooth, base + alpha * (x - base))).sum(-1)
check("eq-integrated-gradients-chain", chained, numeric, atol=1e-8)
shares = integrated_gradients(smooth, x, base)
print("shares    ", [round(v, 3) for v in shares[0].tolist()])
print(f"their sum  {shares.sum().item():.6f}")
print(f"f(x) − f(x′) {(smooth(x) - smooth(base)).item():.6f}")
check(
    "eq-integrated-gradients-completeness",
    shares.sum(-1),
    smooth(x) - smooth(base),
)

# %% [markdown]
# **Without the hypothesis.** The fundamental theorem wants an $F$ that is the integral of its own
# derivative; *absolutely continuous* is the name for it. Networks of smooth functions and of ReLU
# are: they have kinks, but no jumps. A *jump* is another matter. Rounding is differentiable
# everywhere except at the jumps themselves, with derivative zero, so its attributions are zero,
# and completeness fails by the height of all jumps on the way.


# %%
def rounded(x):
    return (
        (2 * x).round().sum(-1)
    )  # autograd calls its gradient 0, and is right


jumpy = integrated_gradients(rounded, x, base)
missing = completeness_gap(jumpy, rounded, x, base)
print(
    f"attributions {jumpy.abs().max().item()}, difference {-missing.item():.0f}"
)
check("a jump has no gradient", jumpy, 0.0)
check("and completeness misses it whole", missing, rounded(base) - rounded(x))
check("which is not nothing", bool(missing.abs() >= 1))

# %% [markdown]
# :::{admonition} Our remark
# :class: remark
# The paper asks that $f$ be differentiable almost everywhere (§3, Proposition 1). By itself that
# would admit rounding; a footnote adds that $f$ be continuous, with partial derivatives that are
# continuous almost everywhere. Even so one has to keep out Cantor's staircase: it is continuous, has
# the derivative zero almost everywhere, and climbs from zero to one all the same.
# {cite:t}`lerma2021` prove completeness under hypotheses that suffice. For every network of this
# book they hold.
# :::
#
# ### Step 2. When one gradient is enough
#
# If $F$ is a straight line, its slope at the end is its slope everywhere, and one gradient does.
# Then
#
# $$
# \begin{gathered}
# \operatorname{IG}_i(x) = (x_i - x'_i)\, \frac{\partial f}{\partial x_i}(x) \\
# \text{if } \nabla f \text{ is constant on the way} .
# \end{gathered}
# $$ (eq-integrated-gradients-linear-f)
#
# This is *gradient times input* (for $x' = 0$), and it is what integrated gradients becomes with a
# single node at $\alpha = 1$. Linear models are such a case. Another one is more surprising: a ReLU
# network *without biases*, seen from zero. There $f(\alpha x) = \alpha f(x)$ for $\alpha > 0$.
# Differentiate both sides with respect to $x$ and divide by $\alpha$:
#
# $$
# \nabla f(\alpha x) = \nabla f(x) .
# $$ (eq-integrated-gradients-homogeneous)
#
# So for such a network the two methods are one, and gradient times input is complete. A bias is all
# it takes to part them: it is what lets a unit saturate.


# %%
def no_bias(x):
    return torch.relu(torch.relu(x @ W_1) @ randn(16, 7, seed=5)) @ randn(
        7, seed=6
    )


zero = torch.zeros_like(x)
check(
    "eq-integrated-gradients-homogeneous",
    slopes(no_bias, 0.1 * x),
    slopes(no_bias, x),
)
check(
    "eq-integrated-gradients-linear-f",
    integrated_gradients(no_bias, x, 0.0),
    gradient_times_input(no_bias, x),
)
apart = completeness_gap(gradient_times_input(sharp, x), sharp, x, 0.0)
print(
    f"with a bias, gradient × input misses the difference by {apart.item():+.2f}"
)
check("a bias parts the two", bool(apart.abs() > 0.1))

# %% [markdown]
# ### Step 3. Sensitivity, both ways
#
# **(a)** *If input and baseline differ in one entry only, and the answers differ, then this entry
# gets a share that is not zero.* In {eq}`eq-integrated-gradients-completeness` all other entries
# have $x_j - x'_j = 0$, and their shares vanish. One term is left, and it has to be everything:
#
# $$
# \begin{gathered}
# x_j = x'_j \text{ for all } j \neq i \\
# \Longrightarrow\quad \operatorname{IG}_i(x) = f(x) - f(x') .
# \end{gathered}
# $$ (eq-integrated-gradients-sensitivity)
#
# Gradient times input breaks this, as the saturating unit has shown: there the answers differ by
# one, and the share is zero.
#
# **(b)** *If $f$ does not depend on an entry, its share is zero.* Then $\partial f / \partial x_i$
# is zero on the whole way:
#
# $$
# \frac{\partial f}{\partial x_i} \equiv 0
# \quad\Longrightarrow\quad \operatorname{IG}_i(x) = 0 .
# $$ (eq-integrated-gradients-dummy)
#
# The converse is false. A share of zero may be the sum of a rise and of an equal fall.

# %%
only_third = base.clone()
only_third[0, 2] = x[0, 2]
check(
    "eq-integrated-gradients-sensitivity",
    integrated_gradients(sharp, only_third, base, steps=2000, rule="midpoint")[
        0
    ],
    [0, 0, (sharp(only_third) - sharp(base)).item(), 0, 0],
    atol=1e-3,
)
keep = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=double)
blind = integrated_gradients(lambda x: smooth(x * keep), x, base)
check("eq-integrated-gradients-dummy", blind[0, 2], 0.0, atol=0)
check("the others do get a share", bool((blind[0, [0, 1, 3, 4]] != 0).all()))
there_and_back = integrated_gradients(
    lambda x: (math.pi * x).sin().sum(-1),
    torch.ones(1, 1, dtype=double),
    0.0,
)
check("a rise and a fall cancel", there_and_back, 0.0)

# %% [markdown]
# ### Step 4. The function counts, and not how it is written
#
# *Two networks that give the same answer to every input get the same attributions.* This is
# *implementation invariance*, and here it needs no proof beyond a look at the formula: it contains
# $f$ through its partial derivatives, and these belong to the function,
#
# $$
# f = g \quad\Longrightarrow\quad \operatorname{IG}^f(x) = \operatorname{IG}^g(x) .
# $$ (eq-integrated-gradients-invariance)
#
# The chain rule is what makes it so: however a function is cut into layers, multiplying the layers'
# derivatives gives the derivative of the whole. Methods that put something else in the place of a
# layer's derivative lose this. One that did, *guided backpropagation*, lets only positive gradients
# pass through a ReLU {cite}`springenberg2015`. Below are two ways to write $\operatorname{relu}(x)$.


# %%
class GuidedReLU(torch.autograd.Function):
    """ReLU whose backward pass drops negative gradients."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient.clamp_min(0) * (x > 0)


def plain(x, relu=torch.relu):
    return relu(x).sum(-1)


def roundabout(x, relu=torch.relu):
    return (2 * relu(x) - relu(x)).sum(-1)


one = torch.ones(1, 1, dtype=double)
check("the two functions are equal", plain(x), roundabout(x))
check(
    "eq-integrated-gradients-invariance",
    integrated_gradients(plain, x, base),
    integrated_gradients(roundabout, x, base),
)
print("gradient of relu(x) and of 2 relu(x) − relu(x), at 1")
for name, relu in [("true", torch.relu), ("guided", GuidedReLU.apply)]:
    pair = [
        slopes(lambda x, f=f, r=relu: f(x, r), one) for f in (plain, roundabout)
    ]
    print(f"{name:8}{pair[0].item():4.0f}{pair[1].item():4.0f}")
check("guided gradients are two, for one function", pair[1] - pair[0], 1.0)

# %% [markdown]
# **Without the hypothesis.** “The derivative belongs to the function” holds where there *is* a
# derivative. At a kink there is none, and autograd returns a convention: zero, for ReLU. If the walk
# only crosses kinks, these are single points of $[0, 1]$, and an integral doesn't see them. But a
# walk may run *along* a kink. The function below is $f(x, y) = x$, written in a contorted way. On
# the diagonal, both ReLUs stand at their kinks all the time, and all of the credit goes to the wrong
# entry. The sum is right, by the way.


# %%
def contorted(z):
    x, y = z[:, 0], z[:, 1]
    return y + torch.relu(x - y) - torch.relu(y - x)  # = x


diagonal = torch.ones(1, 2, dtype=double)
written = integrated_gradients(contorted, diagonal, 0.0)
meant = integrated_gradients(lambda z: z[:, 0], diagonal, 0.0)
check("one function", contorted(x[:, :2]), x[:, 0])
print("f(x, y) = x at (1, 1):", meant.tolist()[0])
print("the same, written with kinks on the way:", written.tolist()[0])
check("along a kink autograd decides", written[0] - meant[0], [-1.0, 1.0])
slightly = torch.tensor([[1.0, 0.999]], dtype=double)
check(
    "a hair's breadth beside it all is well",
    integrated_gradients(contorted, slightly, 0.0)[0],
    [1.0, 0.0],
)

# %% [markdown]
# ### Step 5. Linearity, and other paths
#
# A derivative of a sum is the sum of the derivatives, and so is an integral. For numbers $a$ and
# $b$,
#
# $$
# \operatorname{IG}^{af + bg}(x) = a \operatorname{IG}^f(x) + b \operatorname{IG}^g(x) .
# $$ (eq-integrated-gradients-linearity)
#
# So the attributions of a difference of two logits are the difference of theirs, and an ensemble's
# are the mean.
#
# Nothing so far has used that the walk is straight. Let $\gamma$ be *any* smooth path from $x'$ to
# $x$, and give entry $i$ what it earns on it:
#
# $$
# \begin{aligned}
# \operatorname{IG}^\gamma_i(x) &= \int_0^1
# \frac{\partial f}{\partial x_i}\big(\gamma(\alpha)\big)\; \gamma_i'(\alpha)\,
# \mathrm{d}\alpha , \\
# \sum_i \operatorname{IG}^\gamma_i(x) &= f(x) - f(x') ,
# \end{aligned}
# $$ (eq-integrated-gradients-path)
#
# with the proof of step 1 word for word. These are the *path methods*. All of them satisfy
# completeness, both kinds of sensitivity (the first one if the path leaves alone what does not
# differ), invariance and linearity. And they disagree. Take $f = x_1^2 x_2$ and walk from $(0, 0)$
# to $(2, 3)$. On the straight line $\partial_1 f = 2\alpha^2 \cdot 6$ and $\partial_2 f =
# 4\alpha^2$, so the shares are $2 \cdot \frac{12}{3} = 8$ and $3 \cdot \frac43 = 4$. On a
# *staircase*, one entry after the other, whoever moves last takes all twelve.

# %%
corner = torch.tensor([[2.0, 3.0]], dtype=double)


def product(x):
    return x[:, 0] ** 2 * x[:, 1]


def along(f, path, steps=2000):
    """A path method by midpoints; the path is a function of α in [0, 1]."""
    ends = path(torch.linspace(0, 1, steps + 1, dtype=double)[:, None])
    middle = (ends[1:] + ends[:-1]) / 2
    return (slopes(f, middle) * ends.diff(dim=0)).sum(0)


paths = {
    "straight": lambda a: a * corner,
    "curved": lambda a: torch.cat([2 * a, 3 * a**3], 1),
    "first 1, then 2": lambda a: torch.cat(
        [2 * (2 * a).clamp_max(1), 3 * (2 * a - 1).clamp_min(0)], 1
    ),
    "first 2, then 1": lambda a: torch.cat(
        [2 * (2 * a - 1).clamp_min(0), 3 * (2 * a).clamp_max(1)], 1
    ),
}
found = {name: along(product, path) for name, path in paths.items()}
for name, share in found.items():
    print(f"{name:18}{share[0].item():7.3f}{share[1].item():7.3f}")
check(
    "eq-integrated-gradients-path",
    torch.stack(list(found.values())).sum(-1),
    12.0,
    atol=1e-4,
)
check("by hand", found["straight"], [8.0, 4.0], atol=1e-4)
check("the last takes all", found["first 1, then 2"], [0.0, 12.0], atol=1e-4)
check(
    "eq-integrated-gradients-linearity",
    integrated_gradients(lambda z: 2 * smooth(z) - 3 * sharp(z), x, base),
    2 * integrated_gradients(smooth, x, base)
    - 3 * integrated_gradients(sharp, x, base),
)

# %% [markdown]
# The mean of the two staircases is $(6, 6)$: what chapter 17 calls Shapley values, of a game in
# which an entry is either at its baseline or at its input. It is complete too, and it is not
# $(8, 4)$.
#
# ### Step 6. What is special about the straight line: symmetry
#
# Let $f$ not mind if entries $i$ and $j$ are swapped, $f(\sigma p) = f(p)$ for every point $p$,
# where $\sigma$ swaps them. *If they have the same value in $x$, and the same in $x'$, then they
# get the same share.* Differentiate $f(p) = f(\sigma p)$ with respect to entry $i$ of $p$; on the
# right that entry stands at place $j$:
#
# $$
# \frac{\partial f}{\partial x_i}(p) = \frac{\partial f}{\partial x_j}(\sigma p) .
# $$ (eq-integrated-gradients-swap)
#
# On the straight line both entries move together, so that $\sigma\gamma(\alpha) = \gamma(\alpha)$
# at every $\alpha$. The two integrands are equal, and so are the factors in front:
#
# $$
# \begin{gathered}
# f \circ \sigma = f, \quad x_i = x_j, \quad x'_i = x'_j \\
# \Longrightarrow\quad \operatorname{IG}_i(x) = \operatorname{IG}_j(x) .
# \end{gathered}
# $$ (eq-integrated-gradients-symmetry)
#
# A staircase has to move one of the two first, and treats equals unequally: at $(1, 1)$ it gives
# all of $f = x_1 x_2$ to the second.


# %%
def even_handed(x):
    """Does not mind if entries 0 and 1 are swapped."""
    return torch.tanh(x[:, 0] * x[:, 1]) * x[:, 2] + (x[:, 0] + x[:, 1]).exp()


swap = [1, 0, 2]
p = randn(7, 3, seed=7)
check(
    "eq-integrated-gradients-swap",
    slopes(even_handed, p)[:, 0],
    slopes(even_handed, p[:, swap])[:, 1],
)
equal, equal_base = torch.tensor(
    [[[0.7, 0.7, -1]], [[0.2, 0.2, 3]]], dtype=double
)
twins = integrated_gradients(even_handed, equal, equal_base)[0]
check("eq-integrated-gradients-symmetry", twins[0], twins[1])
unequal = along(
    lambda x: x[:, 0] * x[:, 1],
    lambda a: torch.cat([(2 * a).clamp_max(1), (2 * a - 1).clamp_min(0)], 1),
)
print(
    "x₁x₂ at (1, 1) by a staircase:",
    [round(v, 6) + 0.0 for v in unequal.tolist()],
)
check("a staircase treats equals unequally", unequal, [0.0, 1.0], atol=1e-6)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# Among path methods, integrated gradients is the only one that preserves symmetry (§4.2, Theorem
# 1); and path methods are the only ones that satisfy completeness, linearity, sensitivity (b) and
# implementation invariance (§4.1, Proposition 2, from the economics of cost sharing).
# {cite:t}`sundararajan2017`
# :::
#
# :::{admonition} Our remark
# :class: remark
# Uniqueness takes more care than existence. {cite:t}`lerma2021` study under which hypotheses the
# first statement holds; {cite:t}`lundstrom2022` find that the theorem behind the second is about
# another class of functions than neural networks, and mend it with one more axiom. We prove neither
# here, and nothing below rests on them. Note also what “the only path method” does not exclude, as
# the paper itself remarks (§4.2, Remark 5): the mean of the two staircases preserves symmetry too. It
# is a mean over paths, and not a path.
# :::
#
# ### Step 7. How many steps
#
# A computer replaces the integral by a sum over $m$ nodes: $\int_0^1 g \approx \sum_k w_k\,
# g(\alpha_k)$, with $g$ one partial derivative on the way. What is the error? Cut the way into
# cells of width $h = 1/m$.
#
# **Left ends.** In the cell from $a$ to $a + h$, Taylor's theorem gives $g(a + t) = g(a) + t\,
# g'(\xi_t)$, so $\int_a^{a+h} g = h\,g(a) + \frac{h^2}{2} g'(\xi)$. Sum over the cells. Then $\sum
# h\, g'(\xi)$ is itself a sum for $\int_0^1 g' = g(1) - g(0)$, and the error is
#
# $$
# L_m - \int_0^1 g = -\frac{1}{2m}\big(g(1) - g(0)\big) + O(m^{-2}) .
# $$ (eq-integrated-gradients-left)
#
# **Midpoints.** Expand about the centre $c$ instead, $g(c + t) = g(c) + t\,g'(c) + \frac{t^2}{2}
# g''(\xi_t)$, with $t$ from $-\frac h2$ to $\frac h2$. The linear term cancels, and $\int
# \frac{t^2}{2}\,\mathrm{d}t = \frac{h^3}{24}$. Again sum up, now with $\sum h\,g'' \approx g'(1) -
# g'(0)$:
#
# $$
# M_m - \int_0^1 g = -\frac{1}{24 m^2}\big(g'(1) - g'(0)\big) + O(m^{-3}) .
# $$ (eq-integrated-gradients-midpoint)
#
# **Trapezoids.** The mean of the two ends of a cell is $g(c) + \frac{h^2}{8} g''$ to this order, so
# the error in a cell is $\frac{h^3}{8} g'' - \frac{h^3}{24} g'' = \frac{h^3}{12} g''$. With $m$ nodes
# there are $m - 1$ cells:
#
# $$
# \begin{aligned}
# T_m - \int_0^1 g = {} & \frac{1}{12 (m-1)^2}\big(g'(1) - g'(0)\big) \\
# & + O(m^{-3}) .
# \end{aligned}
# $$ (eq-integrated-gradients-trapezoid)
#
# Twice the midpoint's error, with the other sign.
#
# Sum {eq}`eq-integrated-gradients-left` over the entries, each with its factor $x_i - x'_i$. On the
# right the two sums are $F'(1)$ and $F'(0)$, by {eq}`eq-integrated-gradients-chain`. So the left
# rule misses completeness by $-\frac{1}{2m}(F'(1) - F'(0))$, and for a model that saturates, where
# $F'(0)$ is large and $F'(1)$ almost zero, it always finds too much.
#
# **Gauss.** Why have the nodes stand in equal distances? Choose $m$ nodes *and* $m$ weights, and
# there are $2m$ numbers to choose. Let $P_m$ be the polynomial of degree $m$ that is orthogonal on
# $[0, 1]$ to all polynomials of lower degree (Legendre's), and let the nodes be its zeros. (There are
# $m$ of them inside: if it changed its sign at fewer places, its product with the polynomial of lower
# degree that changes sign just there would have one sign, and an integral other than zero.) The
# weights are chosen such that the sum is exact up to degree $m - 1$: $m$ linear equations for $m$
# weights. Now take any polynomial $p$ of degree up to $2m - 1$, and divide it by $P_m$:
# $p = q\,P_m + r$, with $q$ and $r$ of degree $m - 1$ at most. The integral of $q\,P_m$ is zero, as $P_m$ is
# orthogonal to $q$. At the nodes $q\,P_m$ is zero, as $P_m$ is. Hence
#
# $$
# \begin{gathered}
# \sum_k w_k\, p(\alpha_k) = \sum_k w_k\, r(\alpha_k) = \int_0^1 r = \int_0^1 p \\
# \text{for } \deg p \le 2m - 1 .
# \end{gathered}
# $$ (eq-integrated-gradients-gauss)
#
# For another $g$, compare with the polynomial $p$ that suits it best. The weights are positive:
# of the polynomial of degree $m - 1$ that is 1 at one node and 0 at the others, the square has
# degree $2m - 2$, so its integral is that node's weight. And they sum to one. So the sum errs by no more than $\max \lvert g - p \rvert$, and so does the integral:
#
# $$
# \Big\lvert \sum_k w_k\, g(\alpha_k) - \int_0^1 g \Big\rvert
# \le 2 \min_{\deg p \,\le\, 2m-1}\; \max_{[0, 1]} \lvert g - p \rvert .
# $$ (eq-integrated-gradients-best-polynomial)
#
# Polynomials approach an analytic function geometrically fast. So each further node of Gauss's
# multiplies the error by some factor below one, where each doubling of midpoints divides it by four.


# %%
def total_slope(a):
    """F′(α) for the smooth network, a sum of five partial derivatives."""
    return ((x - base) * slopes(smooth, base + a[:, None] * (x - base))).sum(-1)


truth = (smooth(x) - smooth(base)).item()
ends = torch.tensor([0.0, 1.0, -1e-5, 1e-5, 1 - 1e-5, 1 + 1e-5], dtype=double)
at = total_slope(ends)
rise = (at[1] - at[0]).item()  # F′(1) − F′(0)
bend = ((at[5] - at[4]) / 2e-5 - (at[3] - at[2]) / 2e-5).item()  # F″(1) − F″(0)


def error(rule, steps):
    nodes, weights = quadrature(rule, steps)
    return (weights @ total_slope(nodes)).item() - truth


m = 200
for rule, want in {
    "left": -rise / (2 * m),
    "midpoint": -bend / (24 * m**2),
    "trapezoid": bend / (12 * (m - 1) ** 2),
}.items():
    found = error(rule, m)
    check(f"eq-integrated-gradients-{rule}", found / want, 1.0, atol=0.05)
nodes, weights = quadrature("gauss", 4)
powers = range(9)
exact = [1 / (k + 1) for k in powers]
by_gauss = [(weights @ nodes**k).item() for k in powers]
check("eq-integrated-gradients-gauss", by_gauss[:8], exact[:8])
check("degree 2m is one too many", abs(by_gauss[8] - exact[8]) > 1e-5)
grid = torch.linspace(0, 1, 1001, dtype=double)
for steps in (3, 6, 9):
    fit = np.polynomial.Chebyshev.interpolate(
        lambda a: total_slope(torch.from_numpy(a)).numpy(),
        2 * steps - 1,
        [0, 1],
    )
    worst = (
        (total_slope(grid) - torch.from_numpy(fit(grid.numpy()))).abs().max()
    )
    check(
        "eq-integrated-gradients-best-polynomial",
        abs(error("gauss", steps)) <= 2 * worst.item(),
    )
for rule, steps in [
    ("left", 64),
    ("midpoint", 64),
    ("gauss", 16),
    ("gauss", 32),
]:
    print(f"{rule:10}{steps:3} nodes: error {abs(error(rule, steps)):.1e}")
    glue(f"ig-error-{rule}-{steps}", abs(error(rule, steps)))

# %% [markdown]
# **Without the hypothesis.** All this wants a smooth $g$. The slope of a ReLU network is not even
# continuous: each time a unit switches, $g$ jumps. Let it jump by $J$ at $c$. A rule can only count
# the weights of the nodes beyond $c$, where $1 - c$ would be right. Nodes at equal distances get
# this wrong by at most one weight; and so do Gauss's, by a theorem of Chebyshev, Markov and
# Stieltjes, which we check and don't prove. Hence
#
# $$
# \begin{gathered}
# \Big\lvert \sum_k w_k\, g(\alpha_k) - \int_0^1 g \Big\rvert \le \lvert J \rvert \max_k w_k
# = O(1/m) \\
# \text{for one step } J .
# \end{gathered}
# $$ (eq-integrated-gradients-kink)
#
# One kink on the way, and every rule is of first order, Gauss's too
# ({numref}`fig-integrated-gradients-order`). It is no worse than the others then; it has lost its
# lead.

# %%
for rule in ("gauss", "midpoint", "trapezoid", "left", "right"):
    nodes, weights = quadrature(rule, 23)
    for c in torch.linspace(0.003, 0.997, 500, dtype=double):
        step_error = weights[nodes > c].sum() - (1 - c)
        assert step_error.abs() <= weights.max() + 1e-12, rule
    check("eq-integrated-gradients-kink", True)

counts = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
rules = {"gauss": "o-", "midpoint": "s--", "trapezoid": "v-.", "left": "^:"}
curves = {}
for name, f in [("tanh", smooth), ("ReLU", sharp)]:
    for rule in rules:
        gaps = []
        for seed in range(20):  # other inputs, other baselines
            far, near = (
                randn(1, 5, seed=100 + seed),
                randn(1, 5, seed=200 + seed),
            )
            gaps.append(
                [
                    completeness_gap(
                        integrated_gradients(f, far, near, steps=m, rule=rule),
                        f,
                        far,
                        near,
                    )
                    .abs()
                    .item()
                    for m in counts
                ]
            )
        curves[name, rule] = np.median(gaps, axis=0)


def order(name, rule):
    """The slope of a line through the curve's points from 24 nodes on."""
    first = counts.index(24)
    log_gap = np.log(curves[name, rule][first:])
    return -np.polyfit(np.log(counts[first:]), log_gap, 1)[0]


print("order, from 24 to 256 nodes:  tanh   ReLU")
for rule in ("left", "trapezoid", "midpoint"):
    both = [order(name, rule) for name in ("tanh", "ReLU")]
    print(f"{rule:26}{both[0]:8.2f}{both[1]:7.2f}")
print(f"{'gauss':34}{order('ReLU', 'gauss'):7.2f}")
check("left: first order", abs(order("tanh", "left") - 1) < 0.1)
check("midpoint: second order", abs(order("tanh", "midpoint") - 2) < 0.1)
check("gauss: at the last digit", curves["tanh", "gauss"][-1] < 1e-13)
for rule in ("gauss", "midpoint", "trapezoid"):
    check(
        f"{rule}: kinks leave about first order",
        0.4 < order("ReLU", rule) < 1.6,
    )
for rule in ("gauss", "midpoint"):
    glue(f"ig-order-relu-{rule}", order("ReLU", rule))

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(5.1, 3.3), sharey=True)
for ax, name in zip(axes, ("tanh", "ReLU"), strict=True):
    for (rule, style), color in zip(
        rules.items(), ("query", "value", "output", "key"), strict=True
    ):
        ax.plot(
            counts,
            np.maximum(curves[name, rule], 1e-16),
            style,
            color=COLORS[color],
            label=rule if name == "tanh" else None,
            markersize=4,
        )
    ax.set(xscale="log", yscale="log", title=name, xlabel="nodes $m$")
    ax.set_xticks([2, 16, 128], ["2", "16", "128"])
axes[0].set_ylabel("completeness gap, median")
fig.legend(loc="outside upper center", ncols=4)
show_figure(
    fig,
    name="fig-integrated-gradients-order",
    caption="The gap over the number of nodes; medians of 20 random pairs of "
    "input and baseline. Left, a network of tanh: first order, second order, "
    "and Gauss. Right, the same weights with ReLU: all near first order.",
    alt="Two log-log charts. For tanh, the left rule falls slowly, midpoint "
    "and trapezoid twice as steeply, and Gauss plunges to 1e-16 by 32 nodes. "
    "For ReLU the four lines fall slowly and lie close together.",
)

# %% [markdown]
# At the pair of step 1 the left rule with 64 nodes errs by {glue:text}`ig-error-left-64:.1e`,
# midpoints by {glue:text}`ig-error-midpoint-64:.1e`, and Gauss with only 16 by
# {glue:text}`ig-error-gauss-16:.1e`. With ReLU the orders are
# {glue:text}`ig-order-relu-midpoint:.1f` for midpoints and {glue:text}`ig-order-relu-gauss:.1f` for
# Gauss. BERT has GELU, softmax and LayerNorm, and none of them has a kink.
#
# Move the number of nodes yourself. The grey curve is the model on the way; the staircases are what
# each rule has collected so far. They must meet it at the right end, and not before.

# %%
fine = torch.linspace(0, 1, 101, dtype=double)
steep = 3.0  # one unit of tanh that saturates early


def unit(z):
    return torch.tanh(steep * z).sum(-1)


node_counts = [2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32]
collected = {rule: [] for rule in ("left", "midpoint", "gauss")}
for rule, rows in collected.items():
    for m in node_counts:
        nodes, weights = quadrature(rule, m)
        earned = weights * slopes(unit, nodes[:, None])[:, 0]
        rows.append((earned * (nodes <= fine[:, None])).sum(-1))
sums = {rule: torch.stack(rows) for rule, rows in collected.items()}
whole = unit(fine[:, None])
check("32 nodes of Gauss arrive", sums["gauss"][-1, -1], whole[-1], atol=1e-9)
check(
    "the left rule finds too much",
    bool((sums["left"][:, -1] > whole[-1]).all()),
)
CurveExplorer(
    fine,
    node_counts,
    sums,
    references={"model": whole},
    readouts={
        f"gap, {rule}": [
            f"{v:+.1e}" for v in (rows[:, -1] - whole[-1]).tolist()
        ]
        for rule, rows in sums.items()
    },
    parameter="nodes",
    x_name="way α",
    y_name="collected so far",
    label="What three rules collect on the way through tanh(3x)",
    colors={"left": "key", "midpoint": "value", "gauss": "query"},
    digits=3,
    limits=(-0.05, 1.8),
    value=6,
    at=1.0,
    name="integrated-gradients-steps",
)

# %% [markdown]
# ### Step 8. From numbers to words
#
# A text enters a Transformer as a row of ids, and an id is a name and not a quantity: halfway
# between two ids stands some third word, or none (box D53). The first thing in the model that can be
# changed a little is the *word vector*. So let
# $x$ be the $n \times d$ matrix of word vectors, $f$ all that comes after the word table, and give a
# word the sum over its features:
#
# $$
# A_t = \sum_{i=1}^{d} \operatorname{IG}_{ti}(x) = (x_t - x'_t)^\top \int_0^1
# \nabla_{x_t} f\big(\gamma(\alpha)\big)\, \mathrm{d}\alpha .
# $$ (eq-integrated-gradients-word)
#
# By {eq}`eq-integrated-gradients-completeness` the $A_t$ of all words still add up to $f(x) -
# f(x')$. And they are dot products, which matters more than it seems. The axes of an embedding space
# mean nothing; describe the same vectors in another basis, $y_t = Q x_t$ with an invertible $Q$,
# and the model accordingly as $f_Q(y) = f(Q^{-1} y)$. Gradients are then $Q^{-\top} \nabla f$, the
# way is $Q (x_t - x'_t)$, and in the dot product the two cancel:
#
# $$
# A_t^{Q} = \big(Q (x_t - x'_t)\big)^{\!\top} Q^{-\top} \int_0^1 \nabla_{x_t} f = A_t .
# $$ (eq-integrated-gradients-basis)
#
# The shares of single features do change. A *norm* over features, which many use in place of the
# sum, changes too, and it loses the sign: for or against.

# %%
n, d = 3, 5
vectors, nothing = randn(1, n, d, seed=8), torch.zeros(1, n, d, dtype=double)
weight = randn(n, d, seed=9)


def text_model(v):
    return torch.tanh((v * weight).sum(-1)).prod(-1) + smooth(v.mean(1))


Q = randn(d, d, seed=10)
back = torch.linalg.inv(Q)
ours = integrated_gradients(text_model, vectors, nothing)
theirs = integrated_gradients(
    lambda v: text_model(v @ back.T), vectors @ Q.T, nothing
)
check(
    "eq-integrated-gradients-word",
    ours.sum(-1).sum(-1),
    text_model(vectors) - text_model(nothing),
)
check("eq-integrated-gradients-basis", theirs.sum(-1), ours.sum(-1), atol=1e-10)
for name, values in [
    ("sum over features", (ours.sum(-1), theirs.sum(-1))),
    ("norm over features", (ours.norm(dim=-1), theirs.norm(dim=-1))),
]:
    for basis, row in zip(("one basis", "another"), values, strict=True):
        shown = "".join(f"{v:8.3f}" for v in row[0].tolist())
        print(f"{name:19} {basis:10}{shown}")
changed = (theirs.norm(dim=-1) / ours.norm(dim=-1) - 1).abs().max()
check("a norm depends on the basis", changed > 0.1)

# %% [markdown]
# **Which number to explain.** $f$ should be a *logit*, or a difference of two. A probability is a
# logit after a softmax, which saturates: that is the very thing that we walk around. Integrated
# gradients stays complete for a probability, and gradient times input all but vanishes.

# %% [markdown]
# ## From scratch
#
# Once by hand, with $f = x_1^2 x_2$, from $(0, 0)$ to $(2, 3)$, and three midpoints. At $\alpha =
# \frac16, \frac12, \frac56$ the walk stands at $\alpha \cdot (2, 3)$, and the two partial
# derivatives are $2 x_1 x_2 = 12\alpha^2$ and $x_1^2 = 4\alpha^2$.


# %%
def by_hand(goal, steps):
    """Midpoint rule in plain Python, from (0, 0) to goal."""
    total = [0.0, 0.0]
    print("   α     x₁     x₂    ∂₁f    ∂₂f")
    for k in range(steps):
        alpha = (k + 0.5) / steps
        x_1, x_2 = alpha * goal[0], alpha * goal[1]
        slope = 2 * x_1 * x_2, x_1**2
        print("".join(f"{v:7.3f}" for v in (alpha, x_1, x_2, *slope)))
        total = [t + s / steps for t, s in zip(total, slope, strict=True)]
    return [g * t for g, t in zip(goal, total, strict=True)]


three = by_hand([2.0, 3.0], 3)
print(
    f"shares {three[0]:.4f} and {three[1]:.4f}, together {sum(three):.4f} of 12"
)

# %% [markdown]
# The mean of $\alpha^2$ over the three nodes is $\frac13 \cdot \frac{1 + 9 + 25}{36} =
# \frac{35}{108}$, where the integral is $\frac13 = \frac{36}{108}$. So both shares are too small by
# one part in 36, and completeness says so without knowing the integral. Midpoints are exact for
# straight lines only. Gauss is exact up to degree $2m - 1$: two nodes are enough.

# %%
check("35 of 36 parts", three, [8 * 35 / 36, 4 * 35 / 36])
check(
    "by hand = the library",
    integrated_gradients(product, corner, 0.0, steps=3, rule="midpoint")[0],
    three,
)
check(
    "two nodes of Gauss are exact",
    integrated_gradients(product, corner, 0.0, steps=2)[0],
    [8.0, 4.0],
)

# %% [markdown]
# ## The library function
#
# ```{lib-source} lib.interpret.gradients.integrated_gradients
# ```
#
# The points of many steps form one batch. Rows of a batch don't mix, so the gradient of the *sum*
# of all answers holds every row's own gradient, and one backward pass serves them all. `max_rows`
# bounds the batch, and with it the memory. It is compared here with a loop that takes one node after
# the other.


# %%
def one_at_a_time(f, x, base, steps):
    nodes, weights = quadrature("gauss", steps)
    total = torch.zeros_like(x)
    for alpha, weight in zip(nodes, weights, strict=True):
        total += weight * slopes(f, base + alpha * (x - base))
    return (x - base) * total


batch, bases = randn(3, 5, seed=11), randn(3, 5, seed=12)
want = one_at_a_time(smooth, batch, bases, 24)
for rows in (1, 7, 256):
    check(
        f"at most {rows} rows at a time = the loop",
        integrated_gradients(smooth, batch, bases, steps=24, max_rows=rows),
        want,
    )
check(
    "gradient × input is one node at the end",
    gradient_times_input(smooth, batch, bases),
    integrated_gradients(smooth, batch, bases, steps=1, rule="right"),
)

# %% [markdown]
# It refuses two things by name. Integers, because there is no small step from one id to the next.
# And an $f$ whose answer is cut off from its input, for instance by a look-up or by `detach`: a
# silent zero would read as “no influence”.

# %%
for what, attempt in {
    "ids": lambda: integrated_gradients(
        lambda v: v.sum(-1), torch.tensor([[5, 3, 8]]), 0.0
    ),
    "cut off": lambda: integrated_gradients(
        lambda v: smooth(v.detach()), x, base
    ),
}.items():
    try:
        attempt()
    except ValueError as problem:
        print(textwrap.fill(f"{what}: {problem}", 72))
        check(f"{what}: refused in one line", "expected" in str(problem))

# %% [markdown]
# :::{admonition} Our remark
# :class: remark
# The library's tests compare it with Captum, PyTorch's package for attributions: at equal nodes the
# two agree to the last digit that Captum's weights have, which are rounded to single precision. On
# {glue:text}`ig-captum-texts:.0f` texts of the model below, in single precision, no share differed
# in a single bit, and Captum took {glue:text}`ig-captum-time:.1f` times as long (the recorded run
# below). One rule differs on purpose. With $m$ nodes there are $m - 1$ trapezoids, and the weights
# that we found in Captum are multiples of $\frac1m$: they sum to $1 - \frac1m$, and by this rule
# its attributions are too small by that factor. Completeness finds it at
# once. Captum's own default is Gauss.
# :::
#
# ## On real data
#
# The model is a small BERT, as in chapter 11: two layers, $d = 48$, reading a docstring of the
# standard library word by word, and naming the module that it comes from, one of eight. In training
# some words were hidden behind [MASK], so that a hidden word is nothing foreign to it.

# %% tags=["nbval-ignore-output"]
data = words()
model, accuracy = train(
    data, seed=0, progress=lambda steps: Progress(steps, label="a small BERT")
)

# %%
glue("ig-accuracy", accuracy)
check("it has learned something", accuracy > 0.7)
ids = data.encode([SENTENCE])  # (1, n), [CLS] first
tokens = data.split(SENTENCE)
with torch.no_grad():
    chances = model(ids).softmax(-1)[0]
label = int(chances.argmax())
print(SENTENCE)
print(
    f"named: {data.names[label]}, with probability {chances[label].item():.2f}"
)


def explain(ids, label):
    """One class's logit as a function of word vectors, and this text's own."""

    def f(vectors):
        return model.from_word_vectors(vectors, ids.expand(len(vectors), -1))[
            :, label
        ]

    return f, model.word_vectors(ids).detach()


f, vectors = explain(ids, label)
with torch.no_grad():
    check("it is the same model", f(vectors), model(ids)[:, label], atol=1e-5)

# %% [markdown]
# On held-out docstrings it is right {glue:text}`ig-accuracy:.0%` of the time. The sentence above is
# one of them. What is to be explained is the logit of the class that the model names.
#
# Four baselines come to mind, and each replaces all words by one vector; [CLS] stays, as it is no
# word, and so do the places. *Zero*: the vector $0$. *[PAD]*: the row of the word table for
# padding. *[MASK]*: the row for a hidden word. *Mean*: the mean word vector, over the words of the
# training texts.

# %%
word_table = model.bert.encoder.embeddings.word.weight.detach()
counted = torch.bincount(data.encode(data.data.train).flatten())
counted[: MASK + 1] = 0  # words only
mean_word = counted.to(word_table) @ word_table / counted.sum()
rows = {
    "zero": torch.zeros_like(mean_word),
    "[PAD]": word_table[PAD],
    "[MASK]": word_table[MASK],
    "mean": mean_word,
}


def in_place_of_words(vectors, row):
    return torch.cat(
        [vectors[:, :1], row.expand(1, vectors.shape[1] - 1, -1)], dim=1
    )


strips, drops = {}, {}
for name, row in rows.items():
    begin = in_place_of_words(vectors, row)
    shares = integrated_gradients(f, vectors, begin, steps=32)
    strips[f"IG from {name}"] = shares.sum(-1)[0, 1:]
    with torch.no_grad():
        drops[name] = (f(vectors) - f(begin)).item()
    gap = completeness_gap(shares, f, vectors, begin).item()
    check(f"{name}: complete", gap, 0.0, atol=1e-2)
strips["gradient × input"] = gradient_times_input(f, vectors).sum(-1)[0, 1:]
alone = ~torch.eye(len(tokens), dtype=torch.bool)  # row t hides word t
with torch.no_grad():
    strips["leave one out"] = (
        f(vectors) - model(model.hide(ids, alone))[:, label]
    )
print(f"{'':18}{'f(x) − f(x′)':>14}   the three largest shares")
for name, strip in strips.items():
    best = strip.topk(3)
    named = ", ".join(
        f"{tokens[t]} {v:+.2f}"
        for t, v in zip(best.indices, best.values, strict=True)
    )
    drop = drops.get(name.removeprefix("IG from "))
    print(f"{name:18}{'' if drop is None else f'{drop:.2f}':>14}   {named}")
for name, drop in drops.items():
    glue(f"ig-drop-{name.strip('[]').lower()}", drop)
with torch.no_grad():
    glue("ig-logit", f(vectors).item())

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.1, 3.7))
matrix = torch.stack(list(strips.values()))
limit = matrix.abs().max().item()
heatmap(
    ax,
    matrix,
    tokens,
    list(strips),
    annotate=".1f",
    cmap="PuOr",
    vmin=-limit,
    vmax=limit,
)
ax.tick_params(axis="x", labelrotation=60)
show_figure(
    fig,
    name="fig-integrated-gradients-strip",
    caption="The sentence as token strips, one a method: what each word adds to "
    "the logit of the class named. Purple speaks for the class, orange against "
    "it. The four upper rows differ in the baseline alone.",
    alt="Six rows of eleven coloured cells with numbers, one column a word of "
    "the sentence. The rows of integrated gradients disagree on which words "
    "are darkest; the row of gradient times input is nearly blank.",
)

# %% [markdown]
# **The baseline is half of the question.** The logit is {glue:text}`ig-logit:.2f`. From zero there
# is {glue:text}`ig-drop-zero:.2f` to share out, from [MASK] {glue:text}`ig-drop-mask:.2f`: eleven
# zero vectors are no neutral text here, and already speak for this class. The parts differ as much
# as the wholes, and so do the words at the top ({numref}`fig-integrated-gradients-strip`). None of the
# four is *the* attribution. Each answers another question: “compared with a text of which?”
#
# Two of them can be judged by what they are. The vector for [PAD] is one that the model *never
# reads*, as attention skips padding. So no gradient has ever reached it, and it still is what the
# first draw made it: as a baseline, a random vector with an official name. [MASK] is what this
# model has learned to read as “some word”.

# %%
seed_everything(0)
first_table = WordClassifier(data).bert.encoder.embeddings.word.weight.detach()
moved = (word_table - first_table).norm(dim=-1) / first_table.norm(dim=-1)
print(
    f"moved in training, as a share of the length: [PAD] {moved[PAD].item():.2f},"
)
print(f"[MASK] {moved[MASK].item():.2f}, ", end="")
print(f"a word {moved[MASK + 1 :].median().item():.2f} (median)")
check("[PAD] has not moved at all", moved[PAD], 0.0, atol=0)
check("[MASK] has", moved[MASK] > 0.02)

# %% [markdown]
# ### On the way
#
# Where on the way is the logit earned? {numref}`fig-integrated-gradients-way` shows $F(\alpha)$ and
# the running shares of the strongest words, from [MASK] to the sentence.

# %%
begin = in_place_of_words(vectors, rows["[MASK]"])
walk = torch.linspace(0, 1, 201)
points = begin + walk[:, None, None] * (vectors - begin)
with torch.no_grad():
    said = f(points)
pace = (slopes(f, points) * (vectors - begin)).sum(-1)[:, 1:]  # (201, words)
earned = torch.cumulative_trapezoid(pace, walk, dim=0)
strongest = strips["IG from [MASK]"].abs().topk(3).indices.tolist()
check(
    "the running shares end at the shares",
    earned[-1],
    strips["IG from [MASK]"],
    atol=2e-2,
)
check("and add up to F", earned.sum(-1), said[1:] - said[0], atol=2e-2)
at_end = pace[-1].sum().item()
print(f"mean slope of F {drops['[MASK]']:.2f}, at its end {at_end:.2f}")
glue("ig-slope-end", at_end)
check("the end is flatter than the way", abs(at_end) < drops["[MASK]"] / 2)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 3.2))
ax.plot(walk, said - said[0], color=COLORS["reference"], label="logit")
for t, style, color in zip(
    strongest, ("--", "-.", ":"), ("query", "key", "value"), strict=True
):
    ax.plot(walk[1:], earned[:, t], style, color=COLORS[color], label=tokens[t])
ax.set(xlabel="way $α$ from [MASK] to the sentence", ylabel="earned so far")
fig.legend(loc="outside upper center", ncols=4)
show_figure(
    fig,
    name="fig-integrated-gradients-way",
    caption="From a text of [MASK] to the sentence: how far the logit has risen, "
    "and what the three words with the largest shares have earned. At the end "
    "of the way the curve is flatter than before.",
    alt="A grey curve of the logit's rise over the way from 0 to 1, steepest in "
    "the first half and almost flat at the right end, above three "
    "dashed curves of single words that rise with it.",
)

# %% [markdown]
# The mean slope is {glue:text}`ig-drop-mask:.2f`; at the end it is {glue:text}`ig-slope-end:.2f`.
# The logit hardly moves there any more, and gradient times input looks at nothing but that end. So it
# has little to say in the strip above: the saturation of the first figure, in a real model.
#
# ### Many texts, several models
#
# One sentence proves nothing. A script trained {glue:text}`ig-models:.0f` models, from as many
# seeds, and let each explain its own answers on the same {glue:text}`ig-texts:.0f` held-out texts.
# Its results are recorded, as it takes some minutes.

# %%
record = recorded("integrated_gradients")
settings, measured = record["settings"], record["results"]
models = measured["models"]
glue("ig-models", len(models))
glue("ig-texts", settings["texts"])
captum = measured["captum"]
check(
    "bit for bit what Captum gives", captum["largest_difference"], 0.0, atol=0
)
glue("ig-captum-texts", settings["texts_for_steps"])
glue("ig-captum-time", captum["time_ratio"])


def over_models(*keys):
    """Mean and standard deviation over the models of one number in the record."""
    values = []
    for one in models:
        for key in keys:
            one = one[key]
        values.append(one)
    return np.mean(values, axis=0), np.std(values, axis=0, ddof=1)


mean, spread = over_models("accuracy")
print(f"accuracy {mean:.3f} ± {spread:.3f}")
print("median |gap| of completeness, from [MASK], in units of the logit")
print(f"{'nodes':12}" + "".join(f"{m:>12}" for m in settings["gap_steps"]))
for rule in settings["rules"]:
    mean, spread = over_models("gap", rule)
    print(f"{rule:12}" + "".join(f"{v:12.1e}" for v in mean))
    check(
        f"{rule}: more nodes, a smaller gap",
        bool(
            (np.diff(np.array([one["gap"][rule] for one in models])) < 0).all()
        ),
    )
for m in (16, 32, 64):
    where = settings["gap_steps"].index(m)
    for rule in ("gauss", "left"):
        glue(f"ig-gap-{rule}-{m}", over_models("gap", rule)[0][where])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.2))
for (rule, style), color in zip(
    rules.items(), ("query", "value", "output", "key"), strict=True
):
    every = np.array([one["gap"][rule] for one in models])
    ax.plot(
        settings["gap_steps"],
        every.mean(0),
        style,
        color=COLORS[color],
        label=rule,
        markersize=4,
    )
    ax.fill_between(
        settings["gap_steps"],
        every.min(0),
        every.max(0),
        color=COLORS[color],
        alpha=0.2,
        lw=0,
    )
ax.set(
    xscale="log", yscale="log", xlabel="nodes $m$", ylabel="median gap, logits"
)
ax.set_xticks(settings["gap_steps"], [str(m) for m in settings["gap_steps"]])
ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=4)
show_figure(
    fig,
    name="fig-integrated-gradients-gap",
    caption="The completeness gap of a real model over the number of nodes, from "
    "[MASK], in double precision: medians over texts; bands span the models. "
    "BERT is smooth: from 32 nodes on Gauss leads.",
    alt="A log-log chart of four falling curves over 4 to 64 nodes. Left falls "
    "slowly, midpoint and trapezoid faster and in parallel, and Gauss plunges "
    "far below the others after 16 nodes.",
)

# %% [markdown]
# **How many nodes.** With 16 nodes of Gauss's the median gap is
# {glue:text}`ig-gap-gauss-16:.1e` logits, with 32 it is {glue:text}`ig-gap-gauss-32:.1e`; the left
# rule is at {glue:text}`ig-gap-left-64:.1e` with 64 ({numref}`fig-integrated-gradients-gap`). For a
# model of this size and this smoothness 32 are plenty. For another model, measure: that is what
# completeness is for.
#
# :::{admonition} The paper says
# :class: paper
# In practice between 20 and 300 steps are enough to come within five per cent of the integral; and
# one should check completeness, and take more steps if it does not hold
# {cite:p}`sundararajan2017` (§5). For texts it takes the all-zero word vectors as baseline (§5).
# :::

# %%
methods = list(models[0]["deletion"]["hide"])
ig = [name for name in methods if name.startswith("IG")]
print("two methods on one text: do they agree on the word at the top, and the")
print("rank correlation of all words; mean ± standard deviation over models")
pairs = [
    *itertools.combinations(ig, 2),
    ("IG, zero", "gradient × input"),
    ("IG, [MASK]", "leave one out"),
]
for a, b in pairs:
    top, spread = over_models("same_top", f"{a} | {b}")
    rank, rank_spread = over_models("agreement", f"{a} | {b}")
    print(
        f"{a + ' and ' + b:32}{top:6.0%} ± {spread:3.0%}"
        f"{rank:8.2f} ± {rank_spread:.2f}"
    )
same = [over_models("same_top", f"{a} | {b}")[0] for a, b in pairs[:6]]
glue("ig-same-top-least", min(same))
glue("ig-same-top-most", max(same))
glue("ig-other-top", 1 - max(same))
heights = {name: over_models("baseline_logit_share", name) for name in rows}
for name, (height, spread) in heights.items():
    print(
        f"f(x′) as a share of f(x), median: {name:7}{height:5.2f} ± {spread:.2f}"
    )
print("between two models, rank correlation of one method, mean over texts")
for name, values in measured["between_seeds"].items():
    print(f"{name:28}{np.mean(values):6.2f} ± {np.std(values, ddof=1):.2f}")

least_rank, most_rank = (
    pick(over_models("agreement", f"{a} | {b}")[0] for a, b in pairs[:6])
    for pick in (min, max)
)
between = measured["between_seeds"]
glue("ig-rank-least", least_rank)
glue("ig-rank-most", most_rank)
glue("ig-height-zero", heights["zero"][0])
glue("ig-seeds-mask", np.mean(between["IG, [MASK]"]))
glue("ig-seeds-gradient", np.mean(between["gradient × input"]))
check("baselines change the word at the top", max(same) < 0.8)
for name in ig:
    check(
        f"{name}: two models agree more than by gradient × input",
        min(between[name]) > max(between["gradient × input"]),
    )

# %% [markdown]
# **How much the baseline changes.** Two baselines name the same word as the most important one in
# {glue:text}`ig-same-top-least:.0%` to {glue:text}`ig-same-top-most:.0%` of the texts, whichever two
# of the four they are; the rankings correlate with {glue:text}`ig-rank-least:.2f` to
# {glue:text}`ig-rank-most:.2f`. So for many texts “the most important word” is decided
# by a choice that most reports don't mention. The sentence above was an extreme case in one respect:
# over all texts the median logit of zero vectors is only {glue:text}`ig-height-zero:.2f` of the
# text's. The text has to be looked at, each time.
#
# **How much the model changes.** Other seeds give models that are as accurate, and that rest on
# other words. For the same class of the same text, the shares from [MASK] of two models correlate
# with {glue:text}`ig-seeds-mask:.2f`; gradient times input with
# {glue:text}`ig-seeds-gradient:.2f`. An attribution explains one model, and not the task. How much
# of the disagreement is the models' and how much the method's, this doesn't tell.
#
# ### Does it find the words that matter? A deletion test
#
# An attribution that is worth something should rank first the words without which the answer falls.
# So take words away, the highest share first, and keep the probability of the class named. The mean
# of this curve is one number a text, and lower is better:
#
# ```{lib-source} lib.interpret.deletion.deletion_curve
# ```
#
# Against it we hold random orders; gradient times input; and *leave one out*, which hides each word
# in turn and sees how far the logit falls. It costs $n$ calls where Gauss costs 32, and it asks
# nearly the same question as the test itself, so it is hard to beat. A word can be taken away in two
# ways: *hidden* behind [MASK], or *cut* out, so that the text gets shorter.

# %%
order = torch.randperm(
    len(data.data.validation), generator=torch.Generator().manual_seed(1)
).tolist()
few = [data.encode([data.data.validation[i]]) for i in order[:60]]
few = [one for one in few if one.shape[1] > 6][:15]
draw = torch.Generator().manual_seed(2)
live = {"IG, [MASK]": [], "gradient × input": [], "random": []}
for one in few:
    with torch.no_grad():
        named = int(model(one).argmax())
    g, v = explain(one, named)
    begin = in_place_of_words(v, rows["[MASK]"])
    ranked = {
        "IG, [MASK]": integrated_gradients(g, v, begin, steps=32).sum(-1)[
            0, 1:
        ],
        "gradient × input": gradient_times_input(g, v).sum(-1)[0, 1:],
        "random": torch.rand(one.shape[1] - 1, generator=draw),
    }

    def left(present, one=one, named=named):
        with torch.no_grad():
            return model(model.hide(one, present)).softmax(-1)[:, named]

    for name, score in ranked.items():
        live[name].append(deletion_curve(left, score).mean().item())
print(f"this model, {len(few)} texts: mean probability as words are hidden")
for name, found in live.items():
    print(f"{name:20}{np.mean(found):.3f}")
check(
    "better than random, on these texts",
    np.mean(live["IG, [MASK]"]) < np.mean(live["random"]),
)

print(f"\nrecorded: {len(models)} models, {settings['texts']} texts; ", end="")
print("mean ± sd over models")
print(f"{'':30}{'hidden':>14}{'cut':>14}")
for name in methods:
    parts = [over_models("deletion", way, name) for way in ("hide", "cut")]
    print(f"{name:30}" + "".join(f"{m:8.3f} ± {s:.3f}" for m, s in parts))
    key = "-".join(
        name.lower().translate(str.maketrans("", "", ",[]()−×")).split()
    )
    if name in ("IG, zero", "IG, [MASK]", "gradient × input", "random"):
        glue(f"ig-deletion-hide-{key}", parts[0][0])
        glue(f"ig-deletion-cut-{key}", parts[1][0])
for way, one in itertools.product(("hide", "cut"), models):
    area = one["deletion"][way]
    assert area["gradient × input"] < area["random"], (way, one["seed"])
    assert max(area[name] for name in ig) < area["gradient × input"], way
    assert max(area[name] for name in ig) < area["leave one out"], way
check("every model: IG before gradient × input before random", True)
check("every model: IG before leave one out", True)
glue("ig-loo-hide", over_models("deletion", "hide", "leave one out")[0])

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(5.1, 3.2), sharey=True)
for ax, way, title in zip(
    axes, ("hide", "cut"), ("hidden", "cut out"), strict=True
):
    for place, name in enumerate(methods):
        values = [one["deletion"][way][name] for one in models]
        color = (
            "query"
            if name in ig
            else "reference"
            if name == "random"
            else "key"
        )
        ax.plot(
            values, [place] * len(values), "o", color=COLORS[color], alpha=0.85
        )
        ax.plot(
            [np.mean(values)], [place], "|", color=COLORS[color], markersize=16
        )
    ax.set(title=title, xlabel="mean probability")
    ax.grid(axis="x", alpha=0.3)
axes[0].set_yticks(range(len(methods)), methods)
axes[0].invert_yaxis()
show_figure(
    fig,
    name="fig-integrated-gradients-deletion",
    caption="The deletion test: the mean probability of the class named as words "
    "leave, the highest share first. A dot is a model, a bar the mean; further "
    "left is better. Left, words are hidden; right, they are cut out.",
    alt="Two charts of dots, one line for each of seven methods and random "
    "order. In both, the four of integrated gradients lie furthest left, then "
    "leave one out, then gradient times input, and random far right.",
)

# %% [markdown]
# In every model and both ways, the order is the same
# ({numref}`fig-integrated-gradients-deletion`): random orders keep the answer longest, gradient
# times input comes next, and integrated gradients is ahead of it from *every* baseline. Hidden in
# random order, words leave a mean probability of {glue:text}`ig-deletion-hide-random:.2f`; by
# gradient times input {glue:text}`ig-deletion-hide-gradient-input:.2f`; by integrated gradients from
# [MASK] {glue:text}`ig-deletion-hide-ig-mask:.2f`. When words are cut out it is
# {glue:text}`ig-deletion-cut-random:.2f`, {glue:text}`ig-deletion-cut-gradient-input:.2f` and
# {glue:text}`ig-deletion-cut-ig-mask:.2f`.
#
# **What this shows, and what it does not.** [MASK] does best where words are replaced by [MASK]:
# the baseline and the test then ask the same question, and it would be strange if it lost. Its lead
# shrinks where words are cut out. Leave one out comes behind ({glue:text}`ig-loo-hide:.2f`), though
# it hides words just as the test does. It looks at one word at a time; where two words say the same,
# it would find both dispensable. Whether that is the reason here, we have not measured. And a low curve shows that *these* words carry the answer of *this*
# model; it does not show why, nor that other words would not do as well.
#
# ## What is said, and what holds
#
# | Said | True | Source |
# |---|---|---|
# | “The gradient shows which inputs matter.” | It shows what a *small* change would do. Where a model is sure, that is nothing. | step 1, box D36; {cite:t}`sundararajan2017`, §2.1 |
# | “Attribute the token ids.” | An id is a name. Attribute the vectors, and sum over features. | step 8, box D53 |
# | “The zero vector is a neutral baseline.” | Look it up: $f(x')$ says it. In the chapter's sentence it was not. | {numref}`fig-integrated-gradients-strip` |
# | “[PAD] means nothing, so it is the right baseline.” | Where attention skips padding, its vector is never trained: it means nothing in another sense. | “On real data” |
# | “The shares add up, so they are right.” | Completeness is one equation. Scale any numbers, and they satisfy it. | {eq}`eq-integrated-gradients-completeness`, and a check below the chapter's table |

# %%
noise = torch.rand(
    1, 5, generator=torch.Generator().manual_seed(4), dtype=double
)
scaled = noise * (smooth(x) - smooth(base)) / noise.sum()
check(
    "random numbers can be complete",
    completeness_gap(scaled, smooth, x, base),
    0.0,
)

# %% [markdown]
# ## Broken on purpose
#
# Two mistakes. The first is the oldest of them, and it is what this chapter began with.
#
# :::{admonition} Broken on purpose D36: gradient × input on a saturated unit
# :class: broken
# One backward pass at the input, times the input. It is quick, and for linear models exact. On the
# unit of {eq}`def-integrated-gradients-saturated` it gives nothing to the only entry there is.
# :::


# %%
def gradient_only(f, x, base):
    return gradient_times_input(f, x, base)


def with_a_walk(f, x, base):
    return integrated_gradients(f, x, base, steps=64, rule="midpoint")


def a_cause_gets_its_share(attribute):
    x = torch.tensor([[2.0]], dtype=double)
    base = torch.zeros_like(x)
    share = attribute(saturated, x, base).item() + 0.0
    change = (saturated(x) - saturated(base)).item()
    assert abs(share - change) < 0.05, (
        f"the answer moved by {change:.0f}, and its only cause gets {share:.0f}"
    )


catches("D36", a_cause_gets_its_share, broken=gradient_only, fixed=with_a_walk)

# %% [markdown]
# **Fix:** integrate. The test is sensitivity (a), {eq}`eq-integrated-gradients-sensitivity`, on the
# smallest case.
#
# :::{admonition} Broken on purpose D53: attributing token ids
# :class: broken
# Ids are what goes in, so ids are interpolated: from [PAD], which is 0, to the text, and rounded on
# the way, because a look-up wants whole numbers. The gradients come from the word vectors found
# there; their lengths are multiplied by the ids. The code runs, and its result has the right shape.
# :::


# %%
def attribute_ids(ids, steps=32):
    """Interpolates ids, as if word 300 lay halfway between 0 and 600."""
    total = torch.zeros(ids.shape)
    for k in range(steps):
        between = ((k + 0.5) / steps * ids).round().long()
        point = model.word_vectors(between).detach()
        total += slopes(f, point).norm(dim=-1) / steps
    return ids * total, model.word_vectors(ids * 0)


def attribute_vectors(ids):
    begin = in_place_of_words(model.word_vectors(ids).detach(), rows["[MASK]"])
    shares = integrated_gradients(f, model.word_vectors(ids), begin, steps=32)
    return shares.sum(-1), begin


def parts_add_up(attribute):
    shares, begin = attribute(ids)
    with torch.no_grad():
        change = (f(model.word_vectors(ids)) - f(begin)).item()
    total = shares.sum().item()
    assert abs(total - change) < 0.02 * abs(change), (
        f"the shares add up to {total:.1f}, the logit changes by {change:.1f}"
    )


catches("D53", parts_add_up, broken=attribute_ids, fixed=attribute_vectors)
one = int(ids[0, 3])
read = [data.vocabulary[round(k / 5 * one)] for k in range(6)]
print("read on the way:", ", ".join(read))
check("the way ends at the word", read[-1] == tokens[2])

# %% [markdown]
# The last line shows what the model was given in place of “a little of the word”: other words, in
# the order of the alphabet, because that is how the ids were dealt out. Deal them out anew, and the
# attributions are others, of the same model on the same sentence. **Fix:** attribute the word
# vectors and sum over features {eq}`eq-integrated-gradients-word`; the library refuses ids.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} Nodes and weights
# :label: ex-integrated_gradients-midpoints
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `midpoints(steps)`: the nodes and the weights of the midpoint rule on $[0, 1]$, two tensors
# (steps,) of float64.
#
# ```{dropdown} Hint
# Cell number $k$ reaches from $k/m$ to $(k+1)/m$. What is its centre, and how wide is it?
# ```


# %% tags=["exercise-stub"]
def midpoints(steps):
    raise NotImplementedError


grade("ex-integrated_gradients-midpoints", midpoints)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-integrated_gradients-midpoints
# :class: dropdown
# ```


# %% tags=["solution"]
def midpoints(steps):
    k = torch.arange(steps, dtype=torch.float64)
    weights = torch.full((steps,), 1 / steps, dtype=torch.float64)
    return (k + 0.5) / steps, weights


grade("ex-integrated_gradients-midpoints", midpoints)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The whole method
# :label: ex-integrated_gradients-attribute
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `attribute(f, x, base, steps)` with midpoints: the integrated gradients of one input `x`, a
# tensor of any shape without a batch dimension, against `base` of the same shape. `f` takes a batch
# and returns one number a row.
#
# ```{dropdown} Hint
# Stack the points of the way into a batch, ask for the gradient of the sum of the answers, take the
# mean over the batch, and don't forget the factor in front of the integral.
# ```


# %% tags=["exercise-stub"]
def attribute(f, x, base, steps):
    raise NotImplementedError


grade("ex-integrated_gradients-attribute", attribute)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-integrated_gradients-attribute
# :class: dropdown
# ```


# %% tags=["solution"]
def attribute(f, x, base, steps):
    alpha = (torch.arange(steps, dtype=x.dtype) + 0.5) / steps
    points = base + alpha.view(-1, *(1,) * x.ndim) * (x - base)
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(f(points).sum(), points)
    return (x - base) * gradient.mean(0)


grade("ex-integrated_gradients-attribute", attribute)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} What is missing
# :label: ex-integrated_gradients-gap
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `gap(shares, f, x, base)` for a batch, (B, …) each: by how much the shares of each row
# exceed what they should add up to, (B,).
#
# ```{dropdown} Hint
# {eq}`eq-integrated-gradients-completeness`, left side minus right side. All dimensions but the
# first are to be summed.
# ```


# %% tags=["exercise-stub"]
def gap(shares, f, x, base):
    raise NotImplementedError


grade("ex-integrated_gradients-gap", gap)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-integrated_gradients-gap
# :class: dropdown
# ```


# %% tags=["solution"]
def gap(shares, f, x, base):
    return shares.flatten(1).sum(1) - (f(x) - f(base))


grade("ex-integrated_gradients-gap", gap)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} How many left ends?
# :label: ex-integrated_gradients-steps
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `left_nodes(first, last, tolerance)`: the smallest number of nodes with which the left rule
# misses completeness by at most `tolerance`, going by the leading term of its error. `first` and
# `last` are $F'(0)$ and $F'(1)$, and may be equal. The answer is an integer of at least 1.
#
# ```{dropdown} Hint
# {eq}`eq-integrated-gradients-left`, summed over the entries, with $F'$ for $g$. Only the size of
# the error counts, and part of a node is a whole node.
# ```


# %% tags=["exercise-stub"]
def left_nodes(first, last, tolerance):
    raise NotImplementedError


grade("ex-integrated_gradients-steps", left_nodes)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-integrated_gradients-steps
# :class: dropdown
# ```


# %% tags=["solution"]
def left_nodes(first, last, tolerance):
    return max(1, math.ceil(abs(last - first) / (2 * tolerance)))


grade("ex-integrated_gradients-steps", left_nodes)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Up the staircase
# :label: ex-integrated_gradients-staircase
# ```
# *Difficulty ●●● · 15 minutes*
#
# Write `staircase(f, x, base)` for one input `x` (n,): the shares of the path that moves entry 0
# from `base` to `x`, then entry 1, and so on to the last. `f` takes a batch (N, n). No gradient and
# no integral is needed.
#
# ```{dropdown} Hint
# On each stretch one entry moves and all others stand still. What does
# {eq}`eq-integrated-gradients-sensitivity` say of its share? Ask `f` at the $n + 1$ corners.
# ```


# %% tags=["exercise-stub"]
def staircase(f, x, base):
    raise NotImplementedError


grade("ex-integrated_gradients-staircase", staircase)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-integrated_gradients-staircase
# :class: dropdown
# ```
#
# Row $k$ of the corners has its first $k$ entries from $x$: a triangular matrix of ones says which.


# %% tags=["solution"]
def staircase(f, x, base):
    n = len(x)
    moved = torch.ones(n + 1, n).tril(-1).bool()
    return f(torch.where(moved, x, base)).diff()


grade("ex-integrated_gradients-staircase", staircase)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - Integrated gradients {eq}`def-integrated-gradients-formula` adds up, along the straight line from
#   a baseline to the input, what each entry earns. A gradient at the end alone sees nothing where
#   the model is sure.
# - The shares add up to the difference of the answers {eq}`eq-integrated-gradients-completeness`, as
#   the fundamental theorem of calculus says. A jump on the way breaks it, a kink does not.
# - From there: sensitivity both ways {eq}`eq-integrated-gradients-sensitivity`
#   {eq}`eq-integrated-gradients-dummy`, implementation invariance
#   {eq}`eq-integrated-gradients-invariance` (unless the walk runs along a kink), linearity
#   {eq}`eq-integrated-gradients-linearity`. All path methods share them
#   {eq}`eq-integrated-gradients-path`; the straight line treats equals equally
#   {eq}`eq-integrated-gradients-symmetry`.
# - Left ends are of first order {eq}`eq-integrated-gradients-left`, midpoints of second
#   {eq}`eq-integrated-gradients-midpoint`, Gauss is exact up to degree $2m - 1$
#   {eq}`eq-integrated-gradients-gauss`. A kink brings all of them down to first order
#   {eq}`eq-integrated-gradients-kink`.
# - Of a text, attribute word vectors and sum over features {eq}`eq-integrated-gradients-word`: the
#   sum does not depend on the basis {eq}`eq-integrated-gradients-basis`. Never ids.
# - The baseline is half of the question: on average over our models, in
#   {glue:text}`ig-other-top:.0%` of the texts or more, any other of the four puts another word at the
#   top. Padding's vector is untrained: as a baseline it is a random vector.
# - On held-out texts, for every model that we trained, the loss of the words that integrated
#   gradients ranks first costs more than that of gradient times input's, and far more than chance's.
#
# ## Sources
#
# - {cite:t}`sundararajan2017`, §2: the two axioms, and the saturating unit; §3: the formula, and
#   completeness (Proposition 1); §4: path methods and symmetry (Theorem 1); §5: baselines, and
#   how many steps.
# - {cite:t}`lerma2021`: completeness and symmetry under hypotheses that suffice.
# - {cite:t}`lundstrom2022`: what the claims of uniqueness assume.
# - {cite:t}`springenberg2015`: guided backpropagation.
