# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       Between the two linear maps of a feed-forward layer stands one small function of one number.
#       BERT has GELU there, and code for GELU contains a constant with five digits that nobody
#       explains. Where do the function and its constants come from, and would the model be
#       worse with a plain ReLU?
#     goals:
#       - say why two linear maps need a bend between them, and what a dead unit is
#       - derive GELU from a random gate, with its slope, its curvature and its minimum
#       - derive the constants of its two approximations, and locate the error of each
#       - derive the limits of Swish, and its largest distance from ReLU in closed form
#       - judge whether the choice matters, by a paired experiment with a confidence interval
#     prerequisites:
#       - derivatives, Taylor series, the normal distribution
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
# # ReLU, GELU and Swish

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
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.activations import gelu, relu, swish
from lib.data import (
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.layers import EncoderLayer, FeedForward, LayerNorm, initialise
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
from lib.teaching.figures import COLORS
from lib.training import evaluate, fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# A Transformer block has two halves. Attention lets the tokens look at each other. Then a
# *feed-forward layer* lets each token think by itself:
#
# $$
# \operatorname{FFN}(x) = \varphi(x W_1 + b_1)\, W_2 + b_2 .
# $$ (def-activations-ffn)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $x$ | $1 \times d$ | one token, a row |
# | $W_1$, $b_1$ | $d \times d_\text{ff}$, $1 \times d_\text{ff}$ | the way up; usually $d_\text{ff} = 4d$ |
# | $\varphi$ | number to number | the *activation*, applied to every entry by itself |
# | $W_2$, $b_2$ | $d_\text{ff} \times d$, $1 \times d$ | the way back down |
#
# This chapter is about $\varphi$. Three functions are in use, and each is a number times a *gate*
# that depends on that same number:
#
# $$
# \operatorname{ReLU}(x) = x \cdot \mathbf{1}[x > 0] = \max(x, 0) ,
# $$ (def-activations-relu)
#
# $$
# \begin{gathered}
# \operatorname{GELU}(x) = x \cdot \Phi(x), \\
# \Phi(x) = \int_{-\infty}^{x} \phi(t)\,\mathrm{d}t, \qquad
# \phi(t) = \frac{e^{-t^2/2}}{\sqrt{2\pi}} ,
# \end{gathered}
# $$ (def-activations-gelu)
#
# $$
# \operatorname{Swish}_\beta(x) = x \cdot \sigma(\beta x), \qquad
# \sigma(z) = \frac{1}{1 + e^{-z}} .
# $$ (def-activations-swish)
#
# ReLU's gate is a switch: shut below zero, open above. GELU's gate is $\Phi$, the probability that
# a standard normal number lies below $x$. Swish's gate is the logistic function, with a sharpness
# $\beta$. {numref}`fig-activations-three` shows them with their slopes.

# %% tags=["hide-input"]
line = torch.linspace(-4, 3, 701, dtype=double)
three = {
    "ReLU": (relu, "key", "--"),
    "GELU": (gelu, "query", "-"),
    "Swish, β = 1": (swish, "value", "-."),
}


def slope(function, x, order=1):
    """The derivative of a function at every x, by autograd."""
    x = x.detach().clone().requires_grad_()
    y = function(x)
    for _ in range(order):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.detach()


fig, axes = new_figure(2, 1, sharex=True)
for name, (function, color, style) in three.items():
    axes[0].plot(line, function(line), style, color=COLORS[color], label=name)
    axes[1].plot(line, slope(function, line), style, color=COLORS[color])
axes[0].legend()
axes[0].set_ylabel(r"$\varphi(x)$")
axes[1].set(xlabel="$x$", ylabel=r"slope $\varphi\,'(x)$")
show_figure(
    fig,
    name="fig-activations-three",
    caption="Three activations and their slopes. GELU and Swish dip below "
    "zero on the left, and their slopes pass one on the right. ReLU's slope "
    "is zero or one.",
    alt="Two charts over x. Above, ReLU has a corner at zero; GELU and Swish are "
    "smooth and dip below zero. Below, ReLU's slope jumps from 0 to 1; those of "
    "GELU and Swish rise smoothly.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# “The GELU nonlinearity weights inputs by their value, rather than gates inputs by their sign as
# in ReLUs” ({cite:t}`hendrycks2016`, abstract). The Transformer itself has ReLU
# ({cite:t}`vaswani2017`, §3.3, equation 2).
# :::
#
# :::{admonition} Our remark
# :class: remark
# Swish with $\beta = 1$ has been found three times. {cite:t}`hendrycks2016` (§2) name it SiLU in
# passing; {cite:t}`elfwing2018` propose it under the same name for reinforcement learning;
# {cite:t}`ramachandran2017` find it by automatic search, and add the $\beta$. PyTorch calls it
# `silu`.
# :::

# %% [markdown]
# ## Derivation
#
# Seven steps. Each numbered equation is followed by a cell that runs it; statistical checks allow
# five standard errors.
#
# ### Step 1. Why a bend at all
#
# Leave $\varphi$ out. Multiply out what is left of {eq}`def-activations-ffn`:
#
# $$
# (x W_1 + b_1)\, W_2 + b_2 = x\,(W_1 W_2) + (b_1 W_2 + b_2) .
# $$ (eq-activations-linear)
#
# That is *one* linear map, with the matrix $W_1 W_2$. The wide layer in the middle has bought
# nothing. With a bend the equation fails. A linear map also obeys a simple law, by which one can
# recognise it: going round a parallelogram, the values at opposite corners have equal sums,
#
# $$
# \begin{gathered}
# f \text{ linear with bias} \\
# \Longrightarrow\quad f(0) + f(u + v) = f(u) + f(v) .
# \end{gathered}
# $$ (eq-activations-parallelogram)
#
# We check both, and then measure how far each activation breaks the law. Without that, no depth
# would help.

# %%
generator = torch.Generator().manual_seed(1)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


x, W1, b1, W2, b2 = randn(7, 5), randn(5, 11), randn(11), randn(11, 3), randn(3)
two_maps = (x @ W1 + b1) @ W2 + b2
check("eq-activations-linear", two_maps, x @ (W1 @ W2) + (b1 @ W2 + b2))


def corners(bend):
    """f(0) + f(u + v) − f(u) − f(v), for a feed-forward layer with this bend."""

    def f(x):
        return bend(x @ W1 + b1) @ W2 + b2

    u, v = x[0], x[1]
    return f(torch.zeros_like(u)) + f(u + v) - f(u) - f(v)


check("eq-activations-parallelogram", corners(lambda h: h), 0.0)
broken_by = {
    name: corners(function).abs().max().item()
    for name, (function, _, _) in three.items()
}
for name, gap in broken_by.items():
    print(f"{name:13} breaks the parallelogram by {gap:.2f}")
check("every bend breaks it", min(broken_by.values()) > 0.1)

# %% [markdown]
# ### Step 2. ReLU, its slope, and units that die
#
# ReLU is two straight pieces. Where $x \ne 0$ its slope is the gate itself,
#
# $$
# \operatorname{ReLU}'(x) = \mathbf{1}[x > 0] \qquad (x \ne 0) .
# $$ (eq-activations-relu-slope)
#
# At $x = 0$ there is no slope; code has to choose one, and PyTorch and our library choose zero.
#
# Now look at one unit of the hidden layer, $h = w \cdot x + b$, over a whole data set $x_1, \dots,
# x_N$. Let $g_i$ be the gradient that arrives at the unit's output for example $i$. By the chain
# rule, the gradient at its weights is
#
# $$
# \frac{\partial L}{\partial w} = \sum_{i=1}^{N} g_i\, \varphi'(h_i)\, x_i .
# $$ (eq-activations-unit)
#
# With ReLU a term survives only where $h_i > 0$. If $h_i < 0$ for *every* example, the whole sum
# is zero, exactly:
#
# $$
# h_i < 0 \text{ for all } i \quad\Longrightarrow\quad
# \frac{\partial L}{\partial w} = 0 \quad\text{and}\quad \frac{\partial L}{\partial b} = 0 .
# $$ (eq-activations-dead)
#
# Such a unit is called *dead*. No gradient step moves it, whatever the loss. The other layers may
# still change what it receives, and so may wake it; by its own weights it can't. GELU and Swish
# have a slope below zero, so their units are never dead in this strict sense, only quiet.

# %%
grid = torch.linspace(-6, 6, 1201, dtype=double)
grid = grid[grid.abs() > 1e-9]
check("eq-activations-relu-slope", slope(relu, grid), (grid > 0).double())

data, arriving = randn(200, 5), randn(200)
w, b = randn(5), -20.0  # a bias that shuts the unit for every example


def unit_gradient(function, b):
    """The gradients at a unit's weights and bias, by autograd."""
    leaf, bias = w.clone().requires_grad_(), torch.tensor(b, dtype=double)
    bias.requires_grad_()
    (arriving * function(data @ leaf + bias)).sum().backward()
    return leaf.grad, bias.grad


hidden = data @ w + b
assert (hidden < 0).all()
for function in (relu, gelu, swish):
    by_hand = (arriving * slope(function, data @ w - 1)) @ data
    check("eq-activations-unit", unit_gradient(function, -1.0)[0], by_hand)
check("eq-activations-dead", unit_gradient(relu, b), 0.0, atol=0)
check(
    "a shut Swish unit still learns",
    bool((unit_gradient(swish, b)[0] != 0).all()),
)
moved = {
    name: unit_gradient(function, -7.0)[0].norm().item()
    for name, (function, _, _) in three.items()
}
for name, norm in moved.items():
    print(f"bias −7, {name:13} gradient at the weights: {norm:.1e}")
check("at −7 the ReLU unit is dead too", moved["ReLU"], 0.0, atol=0)
check("and the smooth ones are not", min(list(moved.values())[1:]) > 1e-3)
one_open = data.clone()
one_open[0] = 8 * w / w.norm() ** 2  # one example among 200, with h = 8 − 7 > 0
revived = (relu(one_open @ w - 7.0) > 0).double()
check("one example is enough to wake it", revived.sum(), 1.0, atol=0)

# %% [markdown]
# **Without the hypothesis.** The words “exactly zero” need *every* example. One example that opens
# the unit is enough to give its weights a gradient again. How many units of a trained model are in
# fact dead is measured below.
#
# ### Step 3. GELU, the mean of a random gate
#
# Dropout multiplies a unit by a random 0 or 1, whatever the unit says. ReLU multiplies it by 0 or
# 1 as its sign says. {cite:t}`hendrycks2016` (§2) join the two: a random gate that is the more
# likely open the larger the input is. Draw a standard normal number $n$, and open the gate if it
# lies below $x$:
#
# $$
# \begin{gathered}
# m = \mathbf{1}[n \le x], \quad n \sim \mathcal{N}(0, 1) \\
# \text{so that}\quad m \sim \operatorname{Bernoulli}(\Phi(x)) .
# \end{gathered}
# $$ (def-activations-gate)
#
# A network wants a number, not a lottery. Take the mean over the gate, with $x$ held fixed:
#
# $$
# \mathbb{E}[m x] = 1 \cdot x \cdot \Phi(x) + 0 \cdot x \cdot (1 - \Phi(x)) = x\,\Phi(x) .
# $$ (eq-activations-gate-mean)
#
# That is GELU: what the random gate lets through on average. What the mean leaves out is the
# gate's noise. Since $m^2 = m$, $\mathbb{E}[(mx)^2] = x^2\,\Phi(x)$, and
#
# $$
# \operatorname{Var}(m x) = x^2\,\Phi(x)\,(1 - \Phi(x)) .
# $$ (eq-activations-gate-variance)
#
# To compute $\Phi$, substitute $t = s\sqrt{2}$ in the error function
# $\operatorname{erf}(z) = \tfrac{2}{\sqrt{\pi}} \int_0^z e^{-s^2} \mathrm{d}s$. Then
# $\operatorname{erf}(x/\sqrt{2}) = 2\int_0^x \phi(t)\,\mathrm{d}t$. Half of all probability lies
# below zero, hence
#
# $$
# \Phi(x) = \tfrac{1}{2}\left(1 + \operatorname{erf}\frac{x}{\sqrt{2}}\right) .
# $$ (eq-activations-cdf)
#
# The $\sqrt{2}$ is easily lost; *Broken on purpose* shows what that costs.


# %%
def density(x):
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def cdf(x):
    return (1 + torch.erf(x / math.sqrt(2))) / 2


steps = torch.linspace(-12, 1.3, 200_001, dtype=double)
check(
    "eq-activations-cdf",
    torch.trapezoid(density(steps), steps),
    cdf(torch.tensor(1.3, dtype=double)),
    atol=1e-9,
)
draws = 1_000_000
gate_generator = torch.Generator().manual_seed(2)
for value in (-1.5, -0.4, 0.8, 2.0):
    n = torch.randn(draws, generator=gate_generator, dtype=double)
    passed = value * (n <= value).double()
    p = cdf(torch.tensor(value, dtype=double)).item()
    variance = value**2 * p * (1 - p)
    check(
        "eq-activations-gate-mean",
        passed.mean(),
        value * p,
        atol=5 * math.sqrt(variance / draws),
    )
    squares = (passed - passed.mean()) ** 2
    check(
        "eq-activations-gate-variance",
        passed.var(),
        variance,
        atol=5 * (squares.std() / math.sqrt(draws)).item(),
    )

# %% [markdown]
# **Without the hypothesis.** There is only one hypothesis: that the number to compare with is
# standard normal. It is a choice of *scale*. It says that inputs of size one are the usual ones.
# If the inputs are themselves standard normal, $\Phi(x)$ is the share of all inputs that lie
# below $x$, and the gate opens by rank. If they are not, the same formula does something else.
#
# Let $X \sim \mathcal{N}(\mu, \sigma^2)$, independent of $n$. Given $X$, the gate is open with
# probability $\Phi(X) = P(n \le X \mid X)$, so its mean is $P(n - X \le 0)$. The difference $n -
# X$ is normal with mean $-\mu$ and variance $1 + \sigma^2$, and so
#
# $$
# \mathbb{E}[\Phi(X)] = \Phi\!\left(\frac{\mu}{\sqrt{1 + \sigma^2}}\right) .
# $$ (eq-activations-gate-inputs)
#
# And the shape of the bend depends on the scale. ReLU has no scale of its own, since
# $\operatorname{ReLU}(sx) = s\operatorname{ReLU}(x)$ for $s > 0$. GELU has one. Write the input as
# $sx$, with $x$ of size one, and take the scale out again:
#
# $$
# \frac{\operatorname{GELU}(s x)}{s} = x\,\Phi(s x) \;\longrightarrow\;
# \begin{cases} x/2 & s \to 0 \\ \operatorname{ReLU}(x) & s \to \infty . \end{cases}
# $$ (eq-activations-scale)
#
# Small inputs meet a straight line of slope one half, and step 1 has shown what straight lines are
# worth. Large inputs meet a ReLU. The smooth bend is there only for inputs near size one.

# %%
print(f"{'inputs':>18}{'gate open, theory':>20}{'found':>9}{'bent share':>13}")
for mu, sigma in [(0, 0.1), (0, 1), (0, 10), (1, 1), (-3, 1)]:
    X = mu + sigma * torch.randn(draws, generator=gate_generator, dtype=double)
    opened = cdf(X)
    theory = cdf(torch.tensor(mu / math.sqrt(1 + sigma**2), dtype=double))
    error = (opened.std() / math.sqrt(draws)).item()
    check("eq-activations-gate-inputs", opened.mean(), theory, atol=5 * error)
    y = gelu(X)
    straight = torch.stack([torch.ones_like(X), X], 1)  # the best line, and
    line_fit = torch.linalg.lstsq(straight, y[:, None]).solution
    rest = (y - (straight @ line_fit)[:, 0]).var() / y.var()  # what it leaves
    print(
        f"   N({mu:>2}, {sigma:>4}²)   {theory:18.4f}{opened.mean():10.4f}"
        f"{rest:13.4f}"
    )
small, large = 1e-6, 1e6
check(
    "eq-activations-scale", gelu(small * grid) / small, grid / 2, atol=2e-5
)
check("eq-activations-scale", gelu(large * grid) / large, relu(grid))
check("ReLU has no scale", relu(3 * grid) / 3, relu(grid))

# %% [markdown]
# The last column is the share of the output's variance that no straight line explains. For inputs
# ten times too small hardly anything is bent.
#
# ### Step 4. Slope, curvature, minimum
#
# The product rule, with $\Phi' = \phi$, gives the slope:
#
# $$
# \operatorname{GELU}'(x) = \Phi(x) + x\,\phi(x) .
# $$ (eq-activations-gelu-slope)
#
# Once more, with $\phi'(x) = -x\,\phi(x)$: the terms are $\phi + \phi - x^2\phi$, so
#
# $$
# \operatorname{GELU}''(x) = (2 - x^2)\,\phi(x) .
# $$ (eq-activations-gelu-curvature)
#
# The curvature changes sign at $\pm\sqrt{2}$. Between them the slope rises; outside it falls. On
# the far left the slope comes from $0$, and falls; so at $-\sqrt{2}$ it is negative. At $0$ it is
# $\tfrac12$. It must cross zero exactly once in between, and that is GELU's only minimum:
#
# $$
# x_0 = -\frac{\Phi(x_0)}{\phi(x_0)}, \qquad
# \operatorname{GELU}(x_0) = -\,x_0^2\,\phi(x_0) .
# $$ (eq-activations-gelu-minimum)
#
# The second equation is the first, put into $x\Phi(x)$. There is no closed form; Newton's method
# needs just the two derivatives that we have.

# %%
check(
    "eq-activations-gelu-slope",
    slope(gelu, grid),
    cdf(grid) + grid * density(grid),
)
check(
    "eq-activations-gelu-curvature",
    slope(gelu, grid, 2),
    (2 - grid**2) * density(grid),
)
lowest = torch.tensor(-0.5, dtype=double)
for _ in range(6):
    first = cdf(lowest) + lowest * density(lowest)
    second = (2 - lowest**2) * density(lowest)
    lowest = lowest - first / second
    print(f"x = {lowest:.15f}   GELU = {gelu(lowest):.15f}")
check(
    "eq-activations-gelu-minimum",
    [lowest, gelu(lowest)],
    [-cdf(lowest) / density(lowest), -(lowest**2) * density(lowest)],
)
check("it is the lowest", bool((gelu(grid) >= gelu(lowest)).all()))
check("minimum at −.75179", lowest, -0.75179, atol=5e-6)
check("of depth −.16997", gelu(lowest), -0.16997, atol=5e-6)
steepest = slope(gelu, torch.tensor(math.sqrt(2), dtype=double))


def signed(number, digits):
    """A number as text, with a true minus sign."""
    return f"{number:.{digits}f}".replace("-", "−")


glue("activations-gelu-x-min", signed(lowest, 5))
glue("activations-gelu-min", signed(gelu(lowest), 5))
glue("activations-gelu-steepest", steepest)

# %% [markdown]
# The minimum is {glue:text}`activations-gelu-min`, at $x =$
# {glue:text}`activations-gelu-x-min`; the steepest slope, at $\sqrt{2}$, is
# {glue:text}`activations-gelu-steepest:.3f`. GELU isn't monotone: on the left,
# pairs of different inputs give the same output.
#
# ### Step 5. The tanh form, and where its constant comes from
#
# An error function used to be slow, or missing. So a good deal of code has
#
# $$
# \begin{gathered}
# \operatorname{GELU}(x) \approx \frac{x}{2}
# \left(1 + \tanh\!\left[\sqrt{2/\pi}\,\left(x + a\,x^3\right)\right]\right), \\
# a = 0.044715 .
# \end{gathered}
# $$ (def-activations-tanh)
#
# It is the second formula of {cite:t}`hendrycks2016` (§2), who don't say where $a = 0.044715$
# comes from. The natural guess is a Taylor series. Compare
# $\operatorname{erf}(x/\sqrt{2})$ with the tanh at small $x$. From $e^{-s^2} = 1 - s^2 + \dots$
# and $\tanh u = u - u^3/3 + \dots$, with $u = \sqrt{2/\pi}\,(x + ax^3)$,
#
# $$
# \begin{aligned}
# \operatorname{erf}\frac{x}{\sqrt 2} &= \sqrt{\tfrac{2}{\pi}}\left(x - \tfrac{1}{6} x^3\right) + O(x^5), \\
# \tanh u &= \sqrt{\tfrac{2}{\pi}}\left(x + \left[a - \tfrac{2}{3\pi}\right] x^3\right) + O(x^5) .
# \end{aligned}
# $$ (eq-activations-series)
#
# The factor $\sqrt{2/\pi}$ makes the linear terms equal. The cubic terms are equal for exactly one
# $a$:
#
# $$
# \begin{gathered}
# a - \frac{2}{3\pi} = -\frac{1}{6} \\
# \Longrightarrow\quad a_\text{Taylor} = \frac{2}{3\pi} - \frac{1}{6} = \frac{4 - \pi}{6\pi} .
# \end{gathered}
# $$ (eq-activations-taylor)

# %%
root_two_over_pi = math.sqrt(2 / math.pi)
taylor, published = (4 - math.pi) / (6 * math.pi), 0.044715
origin = torch.zeros((), dtype=double)


def third(function):
    """The coefficient of x³ at zero."""
    return slope(function, origin, 3) / 6


def tanh_gate(x, a):
    return torch.tanh(root_two_over_pi * (x + a * x**3))


for a in (taylor, published, 0.1):
    check(
        "eq-activations-series",
        [third(lambda x: torch.erf(x / math.sqrt(2))),
         third(lambda x, a=a: tanh_gate(x, a))],
        [-root_two_over_pi / 6, root_two_over_pi * (a - 2 / (3 * math.pi))],
    )
check(
    "eq-activations-taylor",
    third(lambda x: tanh_gate(x, taylor)),
    third(lambda x: torch.erf(x / math.sqrt(2))),
)
glue("activations-taylor", taylor)
check("it is .04554", taylor, 0.04554, atol=5e-6)
check("and not the published .044715", abs(taylor - published) > 8e-4)

# %% [markdown]
# So Taylor's coefficient is {glue:text}`activations-taylor:.5f`, and the published one is another
# number. It was *fitted*. To what? We can ask by fitting it again. Three sensible aims are: the
# smallest worst error of the gate $\Phi$; the smallest worst error of the value $x\Phi(x)$; and
# the smallest mean squared error of the value for standard normal inputs.


# %%
fine = torch.linspace(0, 8, 80_001, dtype=double)  # both errors are even in x
exact_gate = torch.erfc(-fine / math.sqrt(2)) / 2


def gate_error(a):
    return (1 + tanh_gate(fine, a)) / 2 - exact_gate


def smallest(cost, low, high):
    """Golden-section search for the minimum of a function with one valley."""
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-9:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if cost(left) < cost(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def worst_value(a):
    return (fine * gate_error(a)).abs().max().item()


def worst_gate(a):
    return gate_error(a).abs().max().item()


def mean_square(a):
    return ((fine * gate_error(a)) ** 2 * density(fine)).sum().item()


fits = {
    "Taylor": taylor,
    "published": published,
    "best worst gate": smallest(worst_gate, 0.04, 0.05),
    "best worst value": smallest(worst_value, 0.04, 0.05),
    "best mean square": smallest(mean_square, 0.04, 0.05),
}
print(f"{'':18}{'a':>10}{'worst gate':>13}{'worst value':>13}{'at x':>8}"
      f"{'rms, N(0, 1)':>14}")
for name, a in fits.items():
    where = fine[(fine * gate_error(a)).abs().argmax()].item()
    rms = math.sqrt(mean_square(a) / density(fine).sum())
    print(f"{name:18}{a:10.6f}{worst_gate(a):13.2e}{worst_value(a):13.2e}"
          f"{where:8.3f}{rms:14.2e}")
check(
    "the published constant is the fit of the gate",
    fits["best worst gate"],
    published,
    atol=5e-7,
)
near = (fine > 0.01) & (fine < 1.5)
closer = (gate_error(taylor).abs() < gate_error(published).abs())[near]
check("below x = 1.5 Taylor's is closer", bool(closer.all()))
ordered = [worst_value(fits[k]) for k in ("best worst value", "published")]
check(
    "worst value: refit < published < Taylor",
    ordered[0] < ordered[1] < worst_value(taylor),
)
turn = fine[(fine > 0.01) & (gate_error(taylor).abs()
                             >= gate_error(published).abs())][0]
glue("activations-turn", turn)
glue("activations-refit-gate", fits["best worst gate"])
glue("activations-refit-value", fits["best worst value"])
glue("activations-worst-taylor", 1e4 * worst_value(taylor))
glue("activations-worst-published", 1e4 * worst_value(published))
glue("activations-worst-refit", 1e4 * worst_value(fits["best worst value"]))
tanh_where = fine[(fine * gate_error(published)).abs().argmax()]
glue("activations-tanh-where", tanh_where)
check("4.73e-4 …", worst_value(published), 4.73e-4, atol=5e-7)
check("… at ±2.699", tanh_where, 2.699, atol=1e-3)

# %% tags=["hide-input"]
fig, ax = new_figure()
looks = {
    "Taylor": ("key", "--"),
    "published": ("query", "-"),
    "best worst value": ("value", "-."),
}
for name, (color, style) in looks.items():
    ax.plot(
        fine[:50_001:50],
        1e4 * (fine * gate_error(fits[name]))[:50_001:50],
        style,
        color=COLORS[color],
        label=name,
    )
ax.axhline(0, color=COLORS["reference"], linewidth=0.8)
ax.set(xlabel="$x$", ylabel=r"error of the value, $\times 10^{-4}$")
ax.legend()
show_figure(
    fig,
    name="fig-activations-tanh",
    caption="Error of the tanh form for three constants. Taylor's hugs zero "
    "longest and then strays farthest. The published one shares its error "
    "between a bump and a dip.",
    alt="Three error curves over x from 0 to 5. Taylor's stays nearest to zero "
    "up to about 1.5 and then has the largest error. The published "
    "and the refitted curve swing to both sides of zero.",
)

# %% [markdown]
# This answers the question. The published number is, to all its digits, the constant whose *worst
# error of the gate* is smallest: the fit gives {glue:text}`activations-refit-gate:.7f`. Each
# constant is best for something ({numref}`fig-activations-tanh`). Taylor's is closer below $x =$
# {glue:text}`activations-turn:.2f`, and worst beyond: its value errs by up to
# {glue:text}`activations-worst-taylor:.2f` ten-thousandths, the published one by
# {glue:text}`activations-worst-published:.2f`, at $\lvert x \rvert =$
# {glue:text}`activations-tanh-where:.3f`. If it is the worst *value* that one minds, a third
# constant, {glue:text}`activations-refit-value:.5f`, brings that down to
# {glue:text}`activations-worst-refit:.2f`. Training hardly notices such differences, as we shall
# measure. A checkpoint does: see *Broken on purpose*.
#
# :::{admonition} Our remark
# :class: remark
# We infer how the constant was found from what it minimises, to six decimals. The paper does not
# say ({cite:t}`hendrycks2016`, §2).
# :::
#
# ### Step 6. The logistic form
#
# The third formula of {cite:t}`hendrycks2016` (§2) puts a logistic function for $\Phi$:
# $\operatorname{GELU}(x) \approx x\,\sigma(1.702\,x)$. Three ways to choose the factor $c$ in
# $\sigma(cx)$ suggest themselves. Equal slopes at zero, where $\sigma' = \tfrac14$:
#
# $$
# \frac{c}{4} = \phi(0) = \frac{1}{\sqrt{2\pi}}
# \quad\Longrightarrow\quad c_\text{slope} = \frac{4}{\sqrt{2\pi}} .
# $$ (eq-activations-sigmoid-slope)
#
# Equal variances: $\sigma$ is the distribution function of the logistic distribution, whose
# variance is $\pi^2/3$, and $\sigma(cx)$ has that divided by $c^2$:
#
# $$
# \frac{\pi^2}{3\,c^2} = 1
# \quad\Longrightarrow\quad c_\text{variance} = \frac{\pi}{\sqrt{3}} .
# $$ (eq-activations-sigmoid-variance)
#
# Or the smallest worst error of the gate,
#
# $$
# c_\text{gate} = \arg\min_c\, \max_x\, \lvert \sigma(cx) - \Phi(x) \rvert .
# $$ (eq-activations-sigmoid-minimax)


# %%
def logistic_error(c):
    return torch.sigmoid(c * fine) - exact_gate


c_slope, c_variance = 4 / math.sqrt(2 * math.pi), math.pi / math.sqrt(3)
check(
    "eq-activations-sigmoid-slope",
    slope(lambda x: torch.sigmoid(c_slope * x), origin),
    density(origin),
)
wide = torch.linspace(-40, 40, 400_001, dtype=double)
logistic_density = slope(lambda x: torch.sigmoid(c_variance * x), wide)
check(
    "eq-activations-sigmoid-variance",
    torch.trapezoid(wide**2 * logistic_density, wide),
    1.0,
    atol=1e-9,
)
c_gate = smallest(lambda c: logistic_error(c).abs().max().item(), 1.4, 2.0)
c_value = smallest(
    lambda c: (fine * logistic_error(c)).abs().max().item(), 1.4, 2.0
)
check("eq-activations-sigmoid-minimax", c_gate, 1.702, atol=5e-4)
print(f"{'':18}{'c':>8}{'worst gate':>13}{'worst value':>13}{'at x':>8}")
for name, c in {
    "slope": c_slope,
    "variance": c_variance,
    "best worst gate": c_gate,
    "published": 1.702,
    "best worst value": c_value,
}.items():
    errors = (fine * logistic_error(c)).abs()
    print(f"{name:18}{c:8.4f}{logistic_error(c).abs().max():13.2e}"
          f"{errors.max():13.2e}{fine[errors.argmax()]:8.3f}")
errors = (fine * logistic_error(1.702)).abs()
check("2.03e-2 …", errors.max(), 2.03e-2, atol=5e-5)
check("… at ±2.270", fine[errors.argmax()], 2.270, atol=1e-3)
glue("activations-sigmoid-worst", errors.max())
glue("activations-sigmoid-where", fine[errors.argmax()])
glue("activations-sigmoid-refit", c_gate)
glue("activations-sigmoid-ratio", errors.max() / worst_value(published))

# %% [markdown]
# The same answer as before: the published factor is the fit of the gate, which we find at
# {glue:text}`activations-sigmoid-refit:.4f`. Its value errs by up to
# {glue:text}`activations-sigmoid-worst:.4f`, at $\lvert x \rvert =$
# {glue:text}`activations-sigmoid-where:.3f`: {glue:text}`activations-sigmoid-ratio:.0f` times the
# error of the tanh form.
#
# ### Step 7. Swish between a line and ReLU
#
# Swish is the same thing at every $\beta$, on another scale:
#
# $$
# \operatorname{Swish}_\beta(x) = \frac{\operatorname{Swish}_1(\beta x)}{\beta} .
# $$ (eq-activations-swish-scale)
#
# For its slope, write $f$ for the function. By $\sigma' = \sigma(1 - \sigma)$ and the product rule,
# $f' = \sigma + \beta x\,\sigma(1 - \sigma)$; and $x\sigma = f$, so
#
# $$
# f'(x) = \beta f(x) + \sigma(\beta x)\,\bigl(1 - \beta f(x)\bigr) .
# $$ (eq-activations-swish-slope)
#
# *As $\beta \to 0$* the gate stays half open. The logistic function is nowhere steeper than at
# zero, $\lvert \sigma(z) - \tfrac12 \rvert \le \lvert z \rvert / 4$, so
#
# $$
# \left\lvert \operatorname{Swish}_\beta(x) - \frac{x}{2} \right\rvert \le \frac{\beta x^2}{4} .
# $$ (eq-activations-swish-flat)
#
# *As $\beta \to \infty$* it becomes ReLU. How fast? For $x > 0$ the gap is $x - x\sigma(\beta x) =
# x\,\sigma(-\beta x)$, and for $x < 0$ it is $-x\,\sigma(\beta x)$. Both are one function of $z =
# \beta\lvert x \rvert$:
#
# $$
# \begin{gathered}
# \operatorname{ReLU}(x) - \operatorname{Swish}_\beta(x)
# = \frac{g(\beta \lvert x \rvert)}{\beta}, \\
# g(z) = z\,\sigma(-z) .
# \end{gathered}
# $$ (eq-activations-swish-gap)
#
# So the gap shrinks like $1/\beta$, and its size is the maximum of $g$. Its slope is
# $g'(z) = \sigma(-z)\,(1 - z\,\sigma(z))$, which is zero where $z\,\sigma(z) = 1$, that is,
# $z = 1 + e^{-z}$. Put $w = z - 1$: then $w = e^{-w-1}$, or $w e^w = 1/e$. The solution of $we^w = y$ is
# called Lambert's $W(y)$. At that point $g = z - z\sigma(z) = z - 1 = w$. Hence
#
# $$
# \begin{gathered}
# \max_x \bigl(\operatorname{ReLU}(x) - \operatorname{Swish}_\beta(x)\bigr)
# = \frac{W(1/e)}{\beta} \\
# \text{at}\quad \lvert x \rvert = \frac{1 + W(1/e)}{\beta} .
# \end{gathered}
# $$ (eq-activations-swish-lambert)
#
# On the negative side ReLU is zero, so the gap is the depth of Swish itself. Its minimum needs no
# more work:
#
# $$
# \begin{gathered}
# \min_x \operatorname{Swish}_1(x) = -W(1/e) \\
# \text{at}\quad x = -1 - W(1/e) .
# \end{gathered}
# $$ (eq-activations-swish-minimum)

# %%
W = 0.3
for _ in range(5):  # Newton's method for w·e^w = 1/e
    W -= (W * math.exp(W) - math.exp(-1)) / ((1 + W) * math.exp(W))
print(f"W(1/e) = {W:.15f}")
glue("activations-lambert", W)
glue("activations-swish-x-min", signed(-1 - W, 5))
for beta in (0.3, 1.0, 1.702, 8.0, 50.0):
    f, gate = swish(grid, beta), torch.sigmoid(beta * grid)
    check("eq-activations-swish-scale", f, swish(beta * grid) / beta)
    check(
        "eq-activations-swish-slope",
        slope(lambda x, beta=beta: swish(x, beta), grid),
        beta * f + gate * (1 - beta * f),
    )
    z = beta * grid.abs()
    check(
        "eq-activations-swish-gap",
        relu(grid) - f,
        z * torch.sigmoid(-z) / beta,
    )
    around = (1 + W) / beta * torch.linspace(0.5, 1.5, 2001, dtype=double)
    gaps = relu(around) - swish(around, beta)
    check(
        "eq-activations-swish-lambert",
        [gaps.max(), gaps[1000]],
        [W / beta, W / beta],
    )
for beta in (1e-1, 1e-3, 1e-6):
    distance = (swish(grid, beta) - grid / 2).abs()
    within = distance <= beta * grid**2 / 4 + 1e-15
    check("eq-activations-swish-flat", bool(within.all()))
bottom = torch.tensor(-1 - W, dtype=double)
check(
    "eq-activations-swish-minimum",
    [swish(bottom), slope(swish, bottom)],
    [-W, 0.0],
)
check("minimum −.27846 at −1.27846", [-W, -1 - W], [-0.27846, -1.27846],
      atol=5e-6)

# %% [markdown]
# So $W(1/e) =$ {glue:text}`activations-lambert:.5f`, the largest gap to ReLU is that divided by
# $\beta$, and Swish's minimum lies at $x =$ {glue:text}`activations-swish-x-min`. Move
# $\beta$ and watch the three statements: the line, the ReLU, and in between, where the gap to
# GELU is smallest.

# %%
places = torch.arange(-40, 41, dtype=double) / 10
betas = [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.25, 1.5, 1.702, 1.75, 2, 2.5, 3]
betas += [4, 5, 7, 10, 15, 25, 50]
curves = torch.stack([swish(places, beta) for beta in betas])
dense = torch.linspace(-8, 8, 16_001, dtype=double)
from_gelu = [
    (swish(dense, beta) - gelu(dense)).abs().max().item() for beta in betas
]
CurveExplorer(
    places,
    betas,
    {"Swish": curves},
    references={"GELU": gelu(places), "ReLU": relu(places)},
    readouts={
        "largest gap to ReLU": [W / beta for beta in betas],
        "largest gap to GELU on ±8": from_gelu,
    },
    parameter="β",
    y_name="value",
    label="Swish between a line and ReLU",
    colors={"Swish": "value", "GELU": "query", "ReLU": "key"},
    limits=(-1.0, 3.0),
    value=1.0,
    at=-1.3,
    name="activations-swish",
)

# %% [markdown]
# ## From scratch
#
# Python's `math` module has an error function, so GELU is one line. Everything printed here can be
# redone with a pocket calculator and a table of $\Phi$.


# %%
def gelu_by_hand(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def swish_by_hand(x, beta=1.0):
    return x / (1 + math.exp(-beta * x))


numbers = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
print(f"{'x':>6}{'Φ(x)':>9}{'GELU':>9}{'σ(x)':>9}{'Swish':>9}{'ReLU':>7}")
for number in numbers:
    phi = (1 + math.erf(number / math.sqrt(2))) / 2
    gate = 1 / (1 + math.exp(-number))
    print(
        f"{number:6.1f}{phi:9.4f}{gelu_by_hand(number):9.4f}{gate:9.4f}"
        f"{swish_by_hand(number):9.4f}{max(number, 0.0):7.1f}"
    )
few = torch.tensor(numbers, dtype=double)
check("GELU by hand = the library", [gelu_by_hand(v) for v in numbers], gelu(few))
check("Swish by hand = the library", [swish_by_hand(v) for v in numbers],
      swish(few))
check("GELU by hand = torch", [gelu_by_hand(v) for v in numbers], F.gelu(few))
check("Swish by hand = torch", [swish_by_hand(v) for v in numbers], F.silu(few))

# %% [markdown]
# Look at the rows of $x$ and $-x$: their outputs differ by exactly $x$. That holds for any gate
# with $g(x) + g(-x) = 1$, and all three are of this kind.
#
# Now a network of two hidden units, by hand. Its task is “exclusive or”: 1 if exactly one of two
# inputs is 1. No linear map can do it, by {eq}`eq-activations-parallelogram` with the inputs as
# the corners: the sum over $(0,0)$ and $(1,1)$ should be 0, that over $(0,1)$ and $(1,0)$ should
# be 2. With one bend it is easy. Let the first unit count the inputs, let the second one count
# those beyond the first, and subtract twice the second from the first.


# %%
def exclusive_or(bend, a, b):
    h1, h2 = a + b, a + b - 1
    return bend(h1) - 2 * bend(h2), h1, h2


cases = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
wanted = [0.0, 1.0, 1.0, 0.0]
bends = {
    "none": lambda h: h,
    "ReLU": lambda h: max(h, 0.0),
    "GELU": gelu_by_hand,
}
print(f"{'a, b':>8}{'h1':>6}{'h2':>6}" + "".join(f"{k:>9}" for k in bends))
for a, b in cases:
    outputs = [exclusive_or(bend, a, b)[0] for bend in bends.values()]
    _, h1, h2 = exclusive_or(bends["none"], a, b)
    print(f"{a:4.0f},{b:3.0f}{h1:6.0f}{h2:6.0f}"
          + "".join(f"{y:9.4f}" for y in outputs))
by_relu = [exclusive_or(bends["ReLU"], a, b)[0] for a, b in cases]
check("two ReLU units solve it", by_relu, wanted, atol=0)
layer = FeedForward(2, 2, activation="relu").double()
with torch.no_grad():
    layer.expand.weight.fill_(1.0)
    layer.expand.bias.copy_(torch.tensor([0.0, -1.0]))
    layer.contract.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    layer.contract.bias.zero_()
    table = layer(torch.tensor(cases, dtype=double))[:, 0]
check("the library's layer, with these weights", table, wanted, atol=0)

# %% [markdown]
# With GELU the same weights are a little off, for they were made for a sharp corner. Training
# would find others.
#
# ## The library function
#
# GELU and Swish, read from the file when this page was built:
#
# ```{lib-source} lib.activations.gelu
# ```
#
# ```{lib-source} lib.activations.swish
# ```
#
# Three decisions deserve a word. For negative $x$ the sum $1 + \operatorname{erf}$ cancels, so the
# complementary error function `erfc` is used there. In the tanh form $x^3$ is not formed for huge
# $x$. And half precision is computed in single precision and rounded once. The modules `ReLU`,
# `GELU` and `Swish` call PyTorch's fused kernels, which are faster. The two agree to $10^{-15}$, or
# to a unit or two in the last place where that is more.

# %%
everywhere = torch.linspace(-50, 50, 100_001, dtype=double)
unit = torch.clamp(everywhere.abs() * 2.0**-52, min=1e-15)
pairs = {
    "GELU": (gelu(everywhere), F.gelu(everywhere)),
    "GELU, tanh form": (
        gelu(everywhere, "tanh"),
        F.gelu(everywhere, approximate="tanh"),
    ),
    "Swish": (swish(everywhere), F.silu(everywhere)),
    "ReLU": (relu(everywhere), F.relu(everywhere)),
}
for name, (ours, theirs) in pairs.items():
    check(
        f"{name} = torch, in units of 1e-15 or of the last place",
        ((ours - theirs).abs() / unit).max(),
        0.0,
        atol=2.0,
    )
core = everywhere.abs() < 4
for name, (ours, theirs) in pairs.items():
    check(f"{name} = torch on ±4", ours[core], theirs[core], atol=1e-15)

extreme = torch.tensor([-1e4, -300.0, 0.0, 300.0, 1e4]).half().to(device)
for name, function in {
    "ReLU": relu,
    "GELU": gelu,
    "GELU, tanh form": lambda x: gelu(x, "tanh"),
    "Swish": swish,
    "Swish, β = 50": lambda x: swish(x, 50.0),
}.items():
    slopes = slope(function, extreme)
    fine_everywhere = function(extreme).isfinite() & slopes.isfinite()
    check(f"{name} is finite at ±1e4 in fp16", bool(fine_everywhere.all()))

# %% [markdown]
# Far out on the left GELU is tiny, and one may ask for its digits. PyTorch's kernel adds $1$ and
# $\operatorname{erf} \approx -1$, and loses them.

# %%
print(f"{'x':>6}{'exact':>16}{'lib':>16}{'1 + erf':>16}")
for v in (-2.0, -5.0, -8.0, -9.0, -20.0):
    at = torch.tensor(v, dtype=double)
    exact = v * math.erfc(-v / math.sqrt(2)) / 2
    cancelled = (at * (1 + torch.erf(at / math.sqrt(2))) / 2).item()
    print(f"{v:6.0f}{exact:16.7e}{gelu(at):16.7e}{cancelled + 0.0:16.7e}")
    check(f"the library keeps its digits at {v:.0f}", gelu(at) / exact, 1.0,
          atol=1e-13)
at = torch.tensor(-9.0, dtype=double)
check("1 + erf has none left at −9", cdf(at), 0.0, atol=0)

# %% [markdown]
# For a network this is of no account: next to a sum of numbers of size one, $10^{-15}$ is nothing.
# For a library it decides what may be promised, so it is in the contract.

# %% [markdown]
# ## On real data
#
# Does the choice matter? We train a small causal language model on real English, with five seeds
# each: with ReLU, with GELU, with Swish, and with no activation at all. GELU's tanh form gets two
# seeds; they will do. The model is one pre-norm layer on characters, with learned positions. The
# text is the language reference that ships inside Python.
#
# The experiment is *paired*. For one seed all arms begin with the same weights, and see the same
# batches in the same order. What differs within a seed is $\varphi$ and nothing else, so we
# compare within seeds.


# %%
class Straight(FeedForward):
    """A feed-forward layer without its bend."""

    def forward(self, x):
        return self.contract(self.expand(x))


class SmallModel(nn.Module):
    """Characters and positions, one pre-norm causal layer, a linear readout."""

    def __init__(self, vocabulary_size, length, activation, d=48, heads=4):
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, d)
        self.place = nn.Embedding(length, d)
        bend = "relu" if activation == "none" else activation
        self.layer = EncoderLayer(d, heads, 4 * d, norm="pre", activation=bend)
        if activation == "none":
            self.layer.feed_forward = Straight(d, 4 * d)
        self.norm, self.read = LayerNorm(d), nn.Linear(d, vocabulary_size)

    def forward(self, ids):
        place = self.place(torch.arange(ids.shape[1], device=ids.device))
        x = self.layer(self.embed(ids) + place, causal=True)
        return self.read(self.norm(x))


text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
train_ids = vocabulary.encode(text.train).to(device)
validation_ids = vocabulary.encode(text.validation).to(device)
length = 32
held_out = consecutive_windows(validation_ids, length)
print(
    f"{len(text.train):,} training characters, {len(text.validation):,} for "
    "validation,"
)
print(f"{len(vocabulary)} different ones; sha256 {text.sha256[:16]}")


def train(activation, seed, learning_rate=1e-2, steps=400):
    model = SmallModel(len(vocabulary), length, activation)
    torch.manual_seed(seed)  # the same weights for every activation
    initialise(model, std=0.08)
    model.to(device)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step):
        inputs, targets = random_windows(train_ids, 16, length, batches)
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    fit(model, batch_loss, steps=steps, learning_rate=learning_rate)
    return model


first = [
    SmallModel(len(vocabulary), length, activation)
    for activation in ("relu", "none")
]
for model in first:
    torch.manual_seed(0)
    initialise(model, std=0.08)
same = [torch.nn.utils.parameters_to_vector(m.parameters()) for m in first]
check("arms of one seed begin with the same weights", *same, atol=0)

# %% tags=["nbval-ignore-output"]
arms = {
    "ReLU": "relu",
    "GELU": "gelu",
    "GELU, tanh": "gelu_tanh",
    "Swish": "swish",
    "none": "none",
}
seeds = [0, 1, 2, 3, 4]
runs = [
    (name, seed)
    for seed in seeds
    for name in arms
    if name != "GELU, tanh" or seed < 2
]
losses, models = {name: [] for name in arms}, {}
bar = Progress(runs, label=f"training {len(runs)} small models")
for name, seed in bar:
    model = train(arms[name], seed)
    losses[name].append(evaluate(model, *held_out))
    models[name] = model  # those of the last seed are looked at below
    bar.note(f"{name}: {losses[name][-1]:.2f} nats a character")

# %% [markdown]
# Write $\Delta_s$ for the difference in validation loss between two arms at seed $s$. With
# the mean $\bar\Delta$ and the standard deviation $s_\Delta$ of $n$ such differences, Student's
# interval is $\bar\Delta \pm t\, s_\Delta / \sqrt{n}$, where $t$ is the 97.5th percentile of the
# $t$ distribution with $n - 1$ degrees of freedom. If the interval holds zero, this experiment
# has not told the two apart.

# %%
students_t = 2.776  # 97.5th percentile for 5 − 1 degrees of freedom


def interval(name, other):
    """Mean paired difference, and half of its 95 % confidence interval."""
    delta = np.subtract(losses[name], losses[other])
    half = students_t * delta.std(ddof=1) / math.sqrt(len(delta))
    return delta.mean(), half, delta


compared = [
    ("GELU", "ReLU"),
    ("Swish", "ReLU"),
    ("none", "ReLU"),
    ("Swish", "GELU"),
]
for name, values in losses.items():
    print(f"{name:12}{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} nats"
          f"   {np.round(values, 4)}")
print("\npaired differences, with 95 % intervals")
for name, other in compared:
    mean, half, delta = interval(name, other)
    apart = abs(mean) > half
    verdict = "is better than" if mean < 0 else "is worse than"
    verdict = f"{verdict if apart else 'cannot be told apart from'} {other}"
    print(f"{name:>6} − {other:5}{mean:+.4f} ± {half:.4f}   {name} {verdict}")
    key = f"{name.lower()}-{other.lower()}"
    glue(f"activations-delta-{key}", f"{signed(mean, 3)} ± {half:.3f}")
    glue(f"activations-verdict-{key}", verdict)
for name in ("ReLU", "GELU", "Swish", "none"):
    glue(f"activations-loss-{name.lower()}", np.mean(losses[name]))
glue("activations-seed-spread", np.std(losses["ReLU"], ddof=1))
by_form = np.subtract(losses["GELU, tanh"], losses["GELU"][:2])
glue("activations-tanh-delta", np.abs(by_form).max())
print(f"the tanh form − GELU, two seeds: {by_form[0]:+.6f}, {by_form[1]:+.6f}")
check(
    "on average GELU is ahead of ReLU here",
    np.mean(losses["GELU"]) < np.mean(losses["ReLU"]),
)
check("the two forms of GELU train alike", np.abs(by_form).max() < 0.005)
bent = ["ReLU", "GELU", "Swish"]
in_order = sorted(bent, key=lambda name: np.mean(losses[name]))
glue("activations-order", ", ".join(in_order))
between = max(np.mean(losses[k]) for k in bent) - min(
    np.mean(losses[k]) for k in bent
)
glue("activations-between", between)
needed = np.mean(losses["none"]) - max(np.mean(losses[k]) for k in bent)
glue("activations-needed", needed)
check(
    "having a bend matters: every seed, every bend",
    bool(
        all((np.array(losses["none"]) > np.array(losses[k])).all() for k in bent)
    ),
)
check("and more than which bend", needed > between)
none_cost = interval("none", "ReLU")[0]
check(
    "the others lie closer to ReLU than none does",
    bool(
        all(abs(interval(k, "ReLU")[0]) < none_cost for k in ("GELU", "Swish"))
    ),
)

# %% tags=["hide-input"]
fig, ax = new_figure()
shown = ["GELU", "Swish", "none"]
for row, name in enumerate(shown):
    mean, half, delta = interval(name, "ReLU")
    ax.plot(delta, [row] * len(delta), "o", color=COLORS["output"], alpha=0.8)
    ax.plot(
        [mean - half, mean + half],
        [row - 0.25] * 2,
        "-|",
        color=COLORS["query"],
        linewidth=2.5,
        markersize=9,
    )
ax.axvline(0, color=COLORS["reference"], linestyle="--", linewidth=1)
ax.set_yticks(range(len(shown)), shown)
ax.set_ylim(len(shown) - 0.5, -0.6)
ax.set_xlabel("validation loss minus that of ReLU, nats a character")
show_figure(
    fig,
    name="fig-activations-arms",
    caption="Paired differences to ReLU; left is better. A dot is a seed, the "
    "bar the confidence interval of the mean. Leaving the bend out costs more "
    "than any choice of it gains.",
    alt="A dot plot of paired loss differences to ReLU, five seeds each. The "
    "means of GELU and Swish lie closer to zero than that of the row without "
    "any activation, which lies to the right: worse.",
)

# %% [markdown]
# Here is the answer of this run ({numref}`fig-activations-arms`), in nats a character, with the
# interval of each difference.
#
# - GELU minus ReLU: {glue:text}`activations-delta-gelu-relu`. Here GELU
#   {glue:text}`activations-verdict-gelu-relu`.
# - Swish minus ReLU: {glue:text}`activations-delta-swish-relu`. Swish
#   {glue:text}`activations-verdict-swish-relu`.
# - Swish minus GELU: {glue:text}`activations-delta-swish-gelu`. Swish
#   {glue:text}`activations-verdict-swish-gelu`.
# - No activation minus ReLU: {glue:text}`activations-delta-none-relu`. No activation
#   {glue:text}`activations-verdict-none-relu`.
# - GELU's tanh form and GELU, from the same start, differ by
#   {glue:text}`activations-tanh-delta:.5f` at most.
#
# The mean losses are {glue:text}`activations-loss-relu:.3f` for ReLU,
# {glue:text}`activations-loss-gelu:.3f` for GELU, {glue:text}`activations-loss-swish:.3f` for
# Swish and {glue:text}`activations-loss-none:.3f` for none. The three bends lie within
# {glue:text}`activations-between:.3f` of each other; the worst of them is
# {glue:text}`activations-needed:.3f` ahead of none. So *having* a bend matters more than which.
# One seed against another differs by {glue:text}`activations-seed-spread:.3f` (one standard
# deviation of ReLU's losses): two runs with different seeds would prove nothing.
#
# The words *better* and *worse* mean that the interval excludes zero. How far does this go? Five seeds, one layer, one learning rate, one short training, one text; and
# four comparisons on the same runs, without a correction for that. Another size, another learning
# rate or a longer training may change the order.
#
# ### What larger experiments found
#
# {cite:t}`shazeer2020` (Table 1) pre-trained T5 with each of these in its feed-forward layers, at
# equal size and cost. The held-out loss at the end was 1.677 with ReLU, 1.679 with GELU and 1.683
# with Swish. The steps are tiny. (The means of our small run, from best to worst, are in the order
# {glue:text}`activations-order`.) What did help was a *gated* layer, in which a second linear map
# of the input multiplies the activation: 1.633 for GELU with such a gate (“GEGLU”).
#
# :::{admonition} The paper says
# :class: paper
# Of the gated variants “some of them yield quality improvements over the typically-used ReLU or
# GELU activations” ({cite:t}`shazeer2020`, abstract).
# :::
#
# ### Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “BERT uses ReLU, and Swish is proven better in BERT.” | BERT uses GELU, as GPT did before. The paper that named Swish is a year older than BERT and could not have tested it. | {cite:t}`devlin2019` (appendix A.2); {cite:t}`ramachandran2017` |
# | “GELU is proven better in the Transformer.” | In the pre-training of T5 it was not: 1.679, against 1.677 with ReLU. The paper that introduced it first appeared a year before there was a Transformer. | {cite:t}`shazeer2020` (Table 1); {cite:t}`hendrycks2016` |
#
# ### Inside the trained model
#
# Step 3 says that GELU bends only for inputs near size one, and step 2 that ReLU units can die.
# Where do the inputs of $\varphi$ lie after training? We collect them on held-out text.


# %% tags=["nbval-ignore-output"]
def before_the_bend(model, windows=64):
    """What reaches φ, (tokens, d_ff), on held-out text."""
    seen = []
    hook = model.layer.feed_forward.expand.register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    with torch.no_grad():
        model(held_out[0][:windows])
    hook.remove()
    return seen[0].flatten(0, 1).double().cpu()


inside = {name: before_the_bend(models[name]) for name in bent}
for name, h in inside.items():
    never = (h < 0).all(0).double().mean().item()
    print(
        f"{name:12} mean {h.mean():+.2f}, standard deviation {h.std():.2f}, "
        f"below zero {(h < 0).double().mean():.0%}, never above: {never:.1%}"
    )
h = inside["GELU"]
glue("activations-inside-mean", signed(h.mean(), 2))
glue("activations-inside-std", h.std())
glue("activations-inside-negative", 100 * (h < 0).double().mean())
dead = (inside["ReLU"] < 0).all(0).double().mean()
glue("activations-dead", 100 * dead)
check("the inputs are not standard normal", abs(h.mean().item()) > 0.05)
check("but of a size at which GELU bends", 0.3 < h.std().item() < 4)
check("few ReLU units are dead", dead.item() < 0.2)

# %% [markdown]
# In the GELU model the inputs have mean {glue:text}`activations-inside-mean` and standard
# deviation {glue:text}`activations-inside-std:.2f`;
# {glue:text}`activations-inside-negative:.0f`% are negative. So they are not standard normal, and
# the story of the gate by rank does not hold literally. They are of the right *size*, and
# that is what the bend needs. In the ReLU model {glue:text}`activations-dead:.1f`% of the units
# are never above zero on these tokens.

# %% [markdown]
# ## Broken on purpose
#
# Three mistakes, each in a few lines of our own.
#
# :::{admonition} Broken on purpose D26: one GELU for another
# :class: broken
# “GELU” in a configuration file may mean the exact function, the tanh form, or the logistic one.
# They look alike in a plot. A test must be strict enough to tell them apart, and a checkpoint must
# be loaded with the one it was trained with.
# :::


# %%
def is_exact_gelu(function):
    x = torch.linspace(-8, 8, 160_001, dtype=double)
    exact = x * torch.erfc(-x / math.sqrt(2)) / 2
    error, where = (function(x) - exact).abs().max(0)
    assert error < 1e-14, (
        f"off by {error:.2e} at x = ±{x[where].abs():.3f}, want the exact GELU"
    )


for label, approximation in {
    "D26, tanh": lambda x: gelu(x, "tanh"),
    "D26, sigmoid": lambda x: swish(x, 1.702),
    "D26, Swish": swish,
}.items():
    catches(label, is_exact_gelu, broken=approximation, fixed=gelu)

# %% [markdown]
# And with a checkpoint: the trained GELU model, loaded with another activation. What the tanh form
# does is too small to see in the loss, and large enough to fail a test of equality.


# %% tags=["nbval-ignore-output"]
class Bent(Straight):
    """The same layer, with any function in its middle."""

    bend = staticmethod(gelu)

    def forward(self, x):
        return self.contract(self.bend(self.expand(x)))


def loaded_with(bend):
    model = copy.deepcopy(models["GELU"]).double()
    layer = Bent(48, 192).double().to(device)
    layer.load_state_dict(model.layer.feed_forward.state_dict())
    layer.bend = bend
    model.layer.feed_forward = layer
    return model


probe = held_out[0][:16]
with torch.no_grad():
    reference = copy.deepcopy(models["GELU"]).double()(probe)


def same_logits(model):
    with torch.no_grad():
        gap = (model(probe) - reference).abs().max() / reference.abs().max()
    loss = evaluate(model, *held_out)
    assert gap < 1e-10, (
        f"logits are off by {gap:.1e} of the largest, loss {loss:.4f}"
    )


for label, bend in {
    "D26, checkpoint with tanh": lambda x: gelu(x, "tanh"),
    "D26, checkpoint with sigmoid": lambda x: swish(x, 1.702),
    "D26, checkpoint with Swish": swish,
    "D26, checkpoint with ReLU": relu,
}.items():
    catches(
        label, same_logits, broken=loaded_with(bend), fixed=loaded_with(gelu)
    )
shift = [
    evaluate(loaded_with(bend), *held_out)
    for bend in (gelu, lambda x: gelu(x, "tanh"), swish)
]
check("the tanh form hides in the loss", abs(shift[1] - shift[0]) < 1e-3)
check("Swish does not", shift[2] - shift[0] > 5e-3)

# %% [markdown]
# **Fix:** take the name from the checkpoint's configuration, and test in double precision against a
# reference. BERT, ELECTRA and DistilBERT have the exact function, GPT-2 the tanh form.
#
# :::{admonition} Broken on purpose D42: the error function without its √2
# :class: broken
# $\Phi(x)$ is not $\tfrac12(1 + \operatorname{erf}(x))$. That is the distribution function of a
# normal variable with variance one half: right at zero, right at infinity, smooth, monotone.
# :::


# %%
def without_the_root(x):
    return x * (1 + torch.erf(x)) / 2


def mean_of_the_gate(function):
    """What a random gate lets through, within five standard errors."""
    x, draws = 1.0, 200_000
    n = torch.randn(draws, generator=torch.Generator().manual_seed(3))
    passed = x * (n <= x).double()
    error = (passed.std() / math.sqrt(draws)).item()
    got = function(torch.tensor(x, dtype=double)).item()
    gap = abs(got - passed.mean().item())
    assert gap < 5 * error, (
        f"at x = 1: {got:.4f}, the gate lets {passed.mean():.4f} through, "
        f"{gap / error:.0f} standard errors away"
    )


catches("D42", mean_of_the_gate, broken=without_the_root, fixed=gelu)

# %% [markdown]
# **Fix:** divide by $\sqrt{2}$, as in {eq}`eq-activations-cdf`, and test one value away from zero.
#
# :::{admonition} Broken on purpose D43: x³ in half precision
# :class: broken
# Written as it stands, the tanh form cubes its input. In half precision that overflows beyond
# $\lvert x \rvert \approx 40$. The value survives, since $\tanh(\infty) = 1$. The gradient is
# $0 \cdot \infty$.
# :::


# %%
def tanh_form_as_written(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(inner))


def gradient_is_finite(function):
    x = torch.tensor([-1e4, -300.0, 1.0, 300.0, 1e4]).half()
    values, slopes = function(x), slope(function, x)
    assert values.isfinite().all(), "the values are not finite"
    lost = (~slopes.isfinite()).sum().item()
    assert lost == 0, f"{lost} of {len(x)} gradients are NaN, the values fine"


catches(
    "D43",
    gradient_is_finite,
    broken=tanh_form_as_written,
    fixed=lambda x: gelu(x, "tanh"),
)

# %% [markdown]
# **Fix:** compute in single precision and clamp before cubing, or call the fused kernel.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails.
#
# ```{exercise-start} GELU from the error function
# :label: ex-activations-gelu
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `my_gelu(x)` for a tensor, from {eq}`def-activations-gelu`, with `torch.erf`.
#
# ```{dropdown} Hint
# {eq}`eq-activations-cdf` says how $\Phi$ and the error function are related.
# ```


# %% tags=["exercise-stub"]
def my_gelu(x):
    raise NotImplementedError


grade("ex-activations-gelu", my_gelu)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-activations-gelu
# :class: dropdown
# ```


# %% tags=["solution"]
def my_gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


grade("ex-activations-gelu", my_gelu)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Back through Swish
# :label: ex-activations-swish
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `swish_backward(x, beta, dy)`: from the inputs and the gradients `dy` that arrive at the
# outputs, the gradients at `x` *and* at the one number `beta`, as a pair. Don't use autograd.
#
# ```{dropdown} Hint
# {eq}`eq-activations-swish-slope` gives the first. For the second, $x$ is held fixed: what is
# $\partial\, x\sigma(\beta x) / \partial \beta$? And `beta` is shared by all entries.
# ```


# %% tags=["exercise-stub"]
def swish_backward(x, beta, dy):
    raise NotImplementedError


grade("ex-activations-swish", swish_backward)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-activations-swish
# :class: dropdown
# ```


# %% tags=["solution"]
def swish_backward(x, beta, dy):
    gate = torch.sigmoid(beta * x)
    f = x * gate
    dx = dy * (beta * f + gate * (1 - beta * f))
    dbeta = (dy * x * x * gate * (1 - gate)).sum()
    return dx, dbeta


grade("ex-activations-swish", swish_backward)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Find the dead
# :label: ex-activations-dead
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `dead_units(x, W, b)` for `x` (N, d), `W` (d, h), `b` (h,): a boolean tensor (h,), `True`
# for the ReLU units whose own weights get no gradient from any of the N examples, whatever the
# loss.
#
# ```{dropdown} Hint
# {eq}`eq-activations-dead`. What does the library take as the slope at exactly zero?
# ```


# %% tags=["exercise-stub"]
def dead_units(x, W, b):
    raise NotImplementedError


grade("ex-activations-dead", dead_units)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-activations-dead
# :class: dropdown
# ```


# %% tags=["solution"]
def dead_units(x, W, b):
    return (x @ W + b <= 0).all(0)


grade("ex-activations-dead", dead_units)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A gate with another noise
# :label: ex-activations-gate
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Suppose that the gate compares with $n \sim \mathcal{N}(\mu, \sigma^2)$ in place of a standard
# normal number. Write `gated(x, mu, sigma)`: the mean of $m x$, for a tensor `x`.
#
# ```{dropdown} Hint
# When is $n \le x$? Subtract $\mu$ on both sides, divide by $\sigma$, and you have a standard
# normal number again.
# ```


# %% tags=["exercise-stub"]
def gated(x, mu, sigma):
    raise NotImplementedError


grade("ex-activations-gate", gated)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-activations-gate
# :class: dropdown
# ```


# %% tags=["solution"]
def gated(x, mu, sigma):
    z = (x - mu) / sigma
    return x * (1 + torch.erf(z / math.sqrt(2))) / 2


grade("ex-activations-gate", gated)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A tail that keeps its digits
# :label: ex-activations-tail
# ```
# *Difficulty ●●● · 15 minutes*
#
# Write `tail_gelu(x)`: GELU for any double-precision tensor, with a *relative* error of at most
# one in $10^{12}$ for every $x$ down to −30, and right for large positive $x$ too.
#
# ```{dropdown} Hint
# For negative $x$ the sum $1 + \operatorname{erf}(x/\sqrt{2})$ cancels. Its other name is
# $\operatorname{erfc}(-x/\sqrt{2})$, and `torch.erfc` computes that without the subtraction.
# ```


# %% tags=["exercise-stub"]
def tail_gelu(x):
    raise NotImplementedError


grade("ex-activations-tail", tail_gelu)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-activations-tail
# :class: dropdown
# ```


# %% tags=["solution"]
def tail_gelu(x):
    return x * torch.erfc(-x / math.sqrt(2)) / 2


grade("ex-activations-tail", tail_gelu)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - Two linear maps without a bend are one {eq}`eq-activations-linear`. On real text, leaving the
#   bend out cost more than any choice of it gained.
# - A ReLU unit that is shut for every example gets no gradient at all {eq}`eq-activations-dead`.
# - GELU is what a random gate lets through on average {eq}`eq-activations-gate-mean`. The gate has
#   a scale: small inputs meet a line, large ones a ReLU {eq}`eq-activations-scale`.
# - The constant of the tanh form is not Taylor's {eq}`eq-activations-taylor`. It is the one for
#   which the worst error of the gate is smallest, and so is the factor of the logistic form
#   {eq}`eq-activations-sigmoid-minimax`.
# - Swish runs from half a line to ReLU; the gap to ReLU is Lambert's $W(1/e)$ over $\beta$
#   {eq}`eq-activations-swish-lambert`, and that is its depth as well.
# - Which bend is best is a small question beside that one. It takes paired seeds and an interval
#   to answer it at all. In the comparison on T5 the three differed in the third decimal; gates
#   helped more.
# - A checkpoint is a promise about $\varphi$ too: load it with the function that it was trained
#   with.
#
# ## Sources
#
# - {cite:t}`vaswani2017`, §3.3: the feed-forward layer with ReLU. {cite:t}`nair2010`: rectified
#   linear units.
# - {cite:t}`hendrycks2016`, §2: the random gate, GELU, its two approximations, and SiLU.
# - {cite:t}`elfwing2018`: SiLU once more. {cite:t}`ramachandran2017`: Swish, found by search.
# - {cite:t}`devlin2019`, appendix A.2: BERT's activation.
# - {cite:t}`shazeer2020`, §2 and Table 1: gated feed-forward layers, and the comparison on T5.
