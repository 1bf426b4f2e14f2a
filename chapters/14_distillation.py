# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A label says “this is a 3”. A trained network says “a 3, but it looks a little like an 8 and
#       not at all like a 1”. Can a small network learn from the second sentence what it cannot learn
#       from the first? And why is there a squared temperature in the loss?
#     goals:
#       - derive the gradient of the soft-target loss, its limit at high temperature, and the factor T²
#       - say what happens at both ends of the temperature, and if logits are not centred
#       - train teachers and students for real, and say exactly where a gain comes from
#       - take DistilBERT's recipe apart, into its three losses and its first weights
#       - recognise four mistakes that popular code makes, and write the test that catches each
#     prerequisites:
#       - 02_attention
#       - logarithms, partial derivatives, a Taylor series
#     data: Handwritten digits that ship with scikit-learn, and Python's own language reference; no download.
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
# # Distillation

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "teaching").is_dir()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.data import digits
from lib.losses import (
    cosine_loss,
    distilbert_loss,
    distillation_loss,
)
from lib.models.bert import BERT, BERTConfig
from lib.models.distilbert import DistilBERT, DistilBERTConfig
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
from lib.training import fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# Take a network that is already trained, the *teacher*, and a smaller one that is not, the
# *student*. Both read the same input, and both give one number for each of $N$ classes: their
# *logits*. A label would tell the student which class is right. The teacher can tell it more: how
# probable it finds every class, the wrong ones too. To learn from that is called *distillation*.
#
# There is a difficulty. A good teacher is sure. It gives nearly all probability to one class, and
# what it knows of the others hides in numbers such as one in a million. So divide the logits by a
# *temperature* $T$ before the softmax. At $T = 1$ nothing changes; the higher $T$, the more even
# the probabilities become:
#
# $$
# p_i = \frac{e^{v_i/T}}{\sum_{j=1}^{N} e^{v_j/T}}, \qquad
# q_i = \frac{e^{z_i/T}}{\sum_{j=1}^{N} e^{z_j/T}} .
# $$ (def-distillation-soft)
#
# The student is trained until its soft answer $q$ matches the teacher's soft answer $p$. How far
# they are apart is measured by the Kullback–Leibler divergence, and multiplied by $T^2$:
#
# $$
# L(z) = T^2 \operatorname{KL}(p \,\|\, q) = T^2 \sum_{i=1}^{N} p_i \log \frac{p_i}{q_i} .
# $$ (def-distillation-loss)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $v$ | $N$ | the teacher's logits; they are given, and no gradient reaches the teacher |
# | $z$ | $N$ | the student's logits |
# | $p$, $q$ | $N$ | their probabilities at temperature $T$: positive, sum one |
# | $T$ | number | the temperature, above zero, the same for both; after training it is one again |
# | $L$ | number | the loss of one row; a batch of $n$ rows, (n, N), takes the mean of its rows |
#
# The rest of this chapter asks three things of {eq}`def-distillation-loss`. Why the square? What
# does $T$ do? And does it help?
#
# :::{admonition} The paper says
# :class: paper
# “Since the magnitudes of the gradients produced by the soft targets scale as $1/T^2$ it is
# important to multiply them by $T^2$ when using both hard and soft targets.” {cite:t}`hinton2015`
# (§2). The idea to train a small model on the outputs of a large one is older:
# {cite:t}`bucila2006` compressed an ensemble in this way, and {cite:t}`ba2014` matched logits.
# :::
#
# :::{admonition} Our remark
# :class: remark
# The paper writes the cross-entropy $-\sum_i p_i \log q_i$, without $T^2$ in its formula; the
# factor is in the text. Step 2 shows that cross-entropy and divergence teach the same.
# :::

# %% [markdown]
# ## Derivation
#
# Seven steps. Each numbered equation is followed by a cell that runs it.
#
# ### Step 1. The gradient
#
# Begin with the cross-entropy of one row, $C = -\sum_k p_k \log q_k$. Here $p$ is a constant, and
# $\log q_k = z_k/T - \log \sum_j e^{z_j/T}$. Put that in, and use that the $p_k$ sum to one:
#
# $$
# C = -\frac{1}{T}\sum_{k} p_k z_k + \log \sum_{j} e^{z_j/T} .
# $$ (eq-distillation-expanded)
#
# Differentiate by $z_i$. The first sum gives $-p_i/T$. In the logarithm, the inner derivative is
# $e^{z_i/T}/T$, and over the sum it stands as $q_i/T$:
#
# $$
# \frac{\partial C}{\partial z_i} = \frac{1}{T}\,(q_i - p_i) .
# $$ (eq-distillation-gradient)
#
# Every class pulls for itself. Where the student gives too little, the logit is pushed up; where
# it gives too much, down. Both sides sum to one, so the pushes sum to zero: a gradient step never
# moves the mean of the logits.

# %%
generator = torch.Generator().manual_seed(1)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


def cross_entropy(z, v, T):
    """Soft targets against soft answers, the sum over the classes."""
    return -((v / T).softmax(-1) * (z / T).log_softmax(-1)).sum(-1)


N = 7
v, z = 2 * randn(N), 2 * randn(N)
for T in (0.5, 1.0, 4.0):
    p, q = (v / T).softmax(0), (z / T).softmax(0)
    expanded = -(p * z).sum() / T + torch.logsumexp(z / T, 0)
    check("eq-distillation-expanded", expanded, cross_entropy(z, v, T))
    leaf = z.clone().requires_grad_()
    cross_entropy(leaf, v, T).backward()
    check("eq-distillation-gradient", (q - p) / T, leaf.grad)
    check("the pushes sum to zero", leaf.grad.sum(), 0.0)

# %% [markdown]
# ### Step 2. Cross-entropy or divergence?
#
# Split the logarithm in $\operatorname{KL}(p\,\|\,q) = \sum_k p_k \log p_k - \sum_k p_k \log q_k$.
# The second part is $C$. The first is $-H(p)$, with $H(p) = -\sum_k p_k \log p_k$ the entropy of the
# teacher's answer:
#
# $$
# C = \operatorname{KL}(p \,\|\, q) + H(p) .
# $$ (eq-distillation-entropy)
#
# No student can change $H(p)$. So both losses have the same gradient {eq}`eq-distillation-gradient`
# and the same best student. They differ in their floor: the divergence can reach zero, the
# cross-entropy cannot fall below $H(p)$. A loss that stops falling at the teacher's entropy has
# arrived; who reads it as “stuck” goes looking for a bug that is not there.

# %%
T = 4.0
p, q = (v / T).softmax(0), (z / T).softmax(0)
kl = (p * (p / q).log()).sum()
entropy = -(p * p.log()).sum()
check("eq-distillation-entropy", kl + entropy, cross_entropy(z, v, T))
check("a perfect student still pays H(p)", cross_entropy(v, v, T), entropy)

# %% [markdown]
# ### Step 3. High temperature
#
# Now let $T$ grow. Write $\bar z = \frac1N \sum_j z_j$ for the mean of the logits,
# $\tilde z_i = z_i - \bar z$ for the *centred* logits, and $a_i = \tilde z_i / T$. A softmax does not change when the
# same number is taken from all its inputs, so $q_i = e^{a_i} / \sum_j e^{a_j}$. For large $T$ the
# $a_i$ are small, and $e^{a_i} = 1 + a_i + \tfrac12 a_i^2 + O(T^{-3})$.
#
# Sum over the classes. The $a_j$ sum to zero, because they are centred. With $m = \frac1N \sum_j
# a_j^2$ the denominator is $N(1 + \tfrac12 m) + O(T^{-3})$, and one over it is $\frac1N (1 -
# \tfrac12 m) + O(T^{-3})$. Multiply, and keep what is at most quadratic:
#
# $$
# q_i = \frac1N \Big( 1 + a_i + \tfrac12 \big(a_i^2 - m\big) \Big) + O(T^{-3}) .
# $$ (eq-distillation-softmax-series)
#
# At infinite temperature all classes are equally probable; the first correction is the centred
# logit itself. The teacher has the same series with $\tilde v$. In the difference $q_i - p_i$ the
# constant $1/N$ drops out. Divide by $T$, as {eq}`eq-distillation-gradient` asks:
#
# $$
# \begin{aligned}
# \frac{\partial C}{\partial z_i} = {} & \frac{\tilde z_i - \tilde v_i}{N T^2} \\
# & + \frac{\big(\tilde z_i^2 - \overline{\tilde z^2}\big)
# - \big(\tilde v_i^2 - \overline{\tilde v^2}\big)}{2 N T^3} + O(T^{-4}) .
# \end{aligned}
# $$ (eq-distillation-high-temperature)
#
# A bar is a mean over the classes. Read the first term: the gradient is the *difference of the
# logits*, and it falls like $1/T^2$. One factor $1/T$ comes from the chain rule, the other from the
# probabilities, which themselves move apart only by $1/T$. The second term is the error of that
# reading; relative to the first it falls like $1/T$.
#
# To check a limit, it is not enough that two numbers are close at one $T$. The error must shrink at
# the rate that the formula gives. Divide {eq}`eq-distillation-softmax-series` by its left-out order
# $T^{-3}$, and {eq}`eq-distillation-high-temperature` by $T^{-4}$: what remains must not grow.


# %%
def centred(x):
    return x - x.mean(-1, keepdim=True)


def gradient(z, v, T):
    return ((z / T).softmax(-1) - (v / T).softmax(-1)) / T


def spread(x):
    """Centred squares of centred numbers."""
    return centred(centred(x) ** 2)


for T in (1e2, 1e3):
    a = centred(z) / T
    series = (1 + a + centred(a**2) / 2) / N
    check(
        "eq-distillation-softmax-series",
        (z / T).softmax(0),
        series,
        atol=20 / T**3,
    )
    first = (centred(z) - centred(v)) / (N * T**2)
    second = (spread(z) - spread(v)) / (2 * N * T**3)
    check(
        "eq-distillation-high-temperature",
        T**2 * gradient(z, v, T),
        T**2 * (first + second),
        atol=20 / T**2,
    )

# %% [markdown]
# ### Step 4. Hence the factor T²
#
# A student is often trained on two losses at once, soft targets and true labels. The labels' loss
# knows no temperature. If the soft one shrinks like $1/T^2$, raising $T$ from one to ten silently
# turns the teacher's voice down a hundredfold. Multiply by $T^2$, and
# {eq}`eq-distillation-high-temperature` becomes
#
# $$
# \frac{\partial}{\partial z_i}\, T^2 \operatorname{KL}(p\,\|\,q)
# \;\longrightarrow\; \frac{\tilde z_i - \tilde v_i}{N} \qquad (T \to \infty) .
# $$ (eq-distillation-limit)
#
# The size no longer depends on $T$ to first order, and $T$ is free to do what it is for: to choose
# *what* is compared. The loss follows from its gradient. Walk from the teacher's logits to the
# student's on a straight line, $v + s(z - v)$ with $s$ from zero to one. At the start the loss is
# zero. On the way its slope is $\sum_i (z_i - v_i)\, \partial L/\partial z_i$, which tends to $s \sum_i
# (z_i - v_i)(\tilde z_i - \tilde v_i)/N$. In that product the mean of $z - v$ meets a sum of zero and
# drops out, which leaves $s\, \lVert \tilde z - \tilde v \rVert^2 / N$. Integrate over $s$:
#
# $$
# T^2 \operatorname{KL}(p \,\|\, q) \;\longrightarrow\;
# \frac{1}{2N}\, \lVert \tilde z - \tilde v \rVert^2 \qquad (T \to \infty) .
# $$ (eq-distillation-square)
#
# At high temperature, distillation is *least squares on centred logits*. We measure how fast. By
# step 3 the relative error of the gradient should fall like $1/T$, which is a straight line of slope
# minus one when both axes are logarithmic.

# %%
temperatures = torch.tensor([1, 2, 4, 8, 20, 50, 200, 1000], dtype=double)
limit = (centred(z) - centred(v)) / N
relative = torch.stack(
    [
        (T**2 * gradient(z, v, T) - limit).norm() / limit.norm()
        for T in temperatures
    ]
)
predicted = (spread(z) - spread(v)).norm() / (2 * N * limit.norm())
scaled_loss = torch.stack(
    [
        T**2 * (cross_entropy(z, v, T) - cross_entropy(v, v, T))
        for T in temperatures
    ]
)
square = limit.norm() ** 2 * N / 2
print(f"{'T':>6}{'relative error':>17}{'T²·KL':>10}")
for T, error, value in zip(temperatures, relative, scaled_loss, strict=True):
    print(f"{T:6.0f}{error:17.5f}{value:10.5f}")
print(f"{'limit':>6}{0:17.5f}{square:10.5f}")
slope = np.polyfit(temperatures[-4:].log(), relative[-4:].log(), 1)[0]
glue("distillation-slope", slope)
glue("distillation-error-1", relative[0])
glue("distillation-error-8", relative[3])
T = 1e5
check("eq-distillation-limit", T**2 * gradient(z, v, T), limit, atol=10 / T)
check(
    "eq-distillation-square",
    T**2 * (cross_entropy(z, v, T) - cross_entropy(v, v, T)),
    square,
    atol=1e-3,
)
check("the error falls like 1/T", slope, -1.0, atol=0.02)
check("with the factor of step 3", 1000 * relative[-1], predicted, atol=0.01)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 3.2))
fine = torch.logspace(0, 3, 61, dtype=double)
errors = [
    (T**2 * gradient(z, v, T) - limit).norm() / limit.norm() for T in fine
]
ax.plot(fine, errors, color=COLORS["query"], label="measured")
ax.plot(
    fine,
    predicted / fine,
    "--",
    color=COLORS["key"],
    label="step 3: constant / T",
)
ax.set(
    xscale="log",
    yscale="log",
    xlabel="temperature T",
    ylabel="relative error of the limit",
)
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-distillation-limit",
    caption="How far the scaled gradient is from its limit, the difference of "
    "the centred logits. The dashed line is the second-order term of step 3; "
    "the measured error follows it as $T$ grows.",
    alt="A log-log chart of relative error over temperature from 1 to 1000. The "
    "measured curve runs into a dashed straight line that falls with slope "
    "minus one.",
)

# %% [markdown]
# {numref}`fig-distillation-limit` shows it: the fitted slope over the four highest temperatures is
# {glue:text}`distillation-slope:.3f`, and its height is the one of step 3. At $T = 1$ the limit is
# wrong by {glue:text}`distillation-error-1:.2f` of its size, at $T = 8$ by
# {glue:text}`distillation-error-8:.3f`. So “distillation is the squared error of the logits” is a
# statement about high temperatures. At those in common use, from one to eight, it is a sketch.
#
# Move $T$ yourself. A teacher answers with the three logits of the example worked out below, and
# the student agrees with it except in the first. Read the push on that logit as you move it away.
# Without $T^2$ the push dies as $T$ rises. With $T^2$ it stays, and straightens into the line of
# {eq}`eq-distillation-limit`. At low $T$ it is a step: it knows only “enough” or “not enough”.

# %%
hand_teacher = torch.tensor([2.0, 0.0, -2.0], dtype=double)
offsets = torch.linspace(-6, 6, 49, dtype=double)
moved = hand_teacher + offsets[:, None] * torch.tensor([1.0, 0.0, 0.0])
steps_T = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0]
bare = torch.stack([gradient(moved, hand_teacher, T)[:, 0] for T in steps_T])
factor = torch.tensor(steps_T, dtype=double)[:, None] ** 2
soft = [(hand_teacher / T).softmax(0).tolist() for T in steps_T]
CurveExplorer(
    offsets,
    steps_T,
    {"with T²": factor * bare, "without T²": bare},
    references={"limit": (1 - 1 / 3) * offsets / 3},
    readouts={
        "teacher's probabilities": [
            " · ".join(f"{x:.3f}" for x in row) for row in soft
        ]
    },
    parameter="temperature T",
    x_name="student's first logit minus the teacher's",
    y_name="push on that logit",
    label="What the temperature does to the gradient",
    limits=(-2.0, 2.0),
    value=2.0,
    at=3.0,
    name="distillation-temperature",
)

# %% [markdown]
# ### Step 5. What if the logits are not centred?
#
# Some texts shorten {eq}`eq-distillation-square` to $\lVert z - v \rVert^2/2N$, and some code trains
# on that. Is it the same? Write $z - v = (\tilde z - \tilde v) + (\bar z - \bar v)\mathbf 1$. The two
# parts are perpendicular, since a centred vector sums to zero. By Pythagoras
#
# $$
# \lVert z - v \rVert^2 = \lVert \tilde z - \tilde v \rVert^2 + N (\bar z - \bar v)^2 .
# $$ (eq-distillation-centring)
#
# The second part punishes a difference of means, which no softmax can see. The soft loss gives it
# no gradient at all, at any temperature; the raw squared error spends effort on it.
#
# :::{admonition} The paper says
# :class: paper
# “So in the high temperature limit, distillation is equivalent to minimizing $1/2(z_i - v_i)^2$,
# provided the logits are zero-meaned separately for each transfer case.” {cite:t}`hinton2015`
# (§2.1; its equations 2 to 4 are our steps 1 and 3). The second half of the sentence is the half
# that gets lost.
# :::

# %%
shifted = z + 5.0
check(
    "eq-distillation-centring",
    (shifted - v).norm() ** 2,
    limit.norm() ** 2 * N**2 + N * (shifted.mean() - v.mean()) ** 2,
)
T = 1000.0
soft_loss = T**2 * (cross_entropy(shifted, v, T) - cross_entropy(v, v, T))
raw = (shifted - v).norm() ** 2 / (2 * N)
glue("distillation-shifted-soft", soft_loss)
glue("distillation-shifted-raw", raw)
check("the soft loss does not see the shift", soft_loss, square, atol=1e-3)
check("the raw squared error does", raw > square + 1)

# %% [markdown]
# **Without the hypothesis.** Add five to every logit of the student. Its answers don't change, and
# the soft loss stays at {glue:text}`distillation-shifted-soft:.3f`; the raw squared error is
# {glue:text}`distillation-shifted-raw:.2f`.
#
# ### Step 6. Low temperature
#
# At the other end let $T \to 0$. Say that the teacher's largest logit is at $k^\ast$, and that it
# is the only largest. Dividing by a small $T$ pulls the logits apart, so $p$ tends to one at
# $k^\ast$ and to zero elsewhere. Multiply {eq}`eq-distillation-expanded` by $T$: the first part
# tends to $-z_{k^\ast}$. In the second part, $T \log \sum_j e^{z_j/T}$, the largest term alone gives
# $\max_j z_j$, and the sum has at most $N$ terms of that size, so the whole lies between $\max_j
# z_j$ and $\max_j z_j + T \log N$. Therefore
#
# $$
# T\,C \;\longrightarrow\; \max_j z_j - z_{k^\ast} \qquad (T \to 0) .
# $$ (eq-distillation-cold)
#
# What is left of the teacher is its first choice. The limit is zero exactly if the student's first
# choice is the same: *argmax matching*, the loss of a perceptron. Every degree of doubt is gone. And
# the factor $T^2$ would make the loss vanish here; it is made for the other end.

# %%
T = 1e-3
check(
    "eq-distillation-cold",
    T * cross_entropy(z, v, T),
    z.max() - z[v.argmax()],
    atol=T * math.log(N) + 1e-9,
)
agreeing = z.clone()
agreeing[v.argmax()] = z.max() + 1
check("same first choice, no loss", T * cross_entropy(agreeing, v, T), 0.0)

# %% [markdown]
# ### Step 7. Two more losses, and three together
#
# DistilBERT {cite}`sanh2019` adds a third voice to teacher and text. The student has hidden vectors
# of the teacher's width, so each of its hidden vectors $s$ can be compared with the teacher's
# $\tau$ at the same token. Only the directions are:
#
# $$
# L_{\cos} = 1 - \frac{s \cdot \tau}{\lVert s \rVert\, \lVert \tau \rVert} = 1 - \cos(s, \tau) .
# $$ (def-distillation-cosine)
#
# Differentiate the quotient by $s$. The numerator gives $\tau / (\lVert s \rVert \lVert \tau \rVert)$.
# For the denominator, $\nabla \lVert s \rVert^{-1} = -s/\lVert s \rVert^3$. With the unit vectors
# $\hat s$ and $\hat \tau$ the two parts are
#
# $$
# \nabla_s L_{\cos} = -\frac{1}{\lVert s \rVert} \big( \hat\tau - \cos(s, \tau)\, \hat s \big) .
# $$ (eq-distillation-cosine-gradient)
#
# In the brackets stands the teacher's direction less its shadow on the student's. What is left is
# perpendicular to the student's vector:
#
# $$
# s \cdot \nabla_s L_{\cos} = -\big( \hat s \cdot \hat \tau - \cos(s, \tau) \big) = 0 .
# $$ (eq-distillation-orthogonal)
#
# The loss turns the vector and never asks for another length. But a step has length too. By
# Pythagoras a plain gradient step of rate $\eta$ makes the vector a little longer, always:
#
# $$
# \lVert s - \eta \nabla_s L_{\cos} \rVert^2 = \lVert s \rVert^2 + \eta^2 \lVert \nabla_s L_{\cos} \rVert^2 .
# $$ (eq-distillation-longer)
#
# The last part is the ordinary one: a masked word has a label, and $L_{\text{mlm}}$ is the
# cross-entropy of the true word. DistilBERT trains on
#
# $$
# L = \alpha_{\text{ce}}\, T^2 \operatorname{KL}(p\,\|\,q) + \alpha_{\text{mlm}}\, L_{\text{mlm}} + \alpha_{\cos}\, L_{\cos} .
# $$ (def-distillation-triple)
#
# The first and the third part are means over all real tokens, the second over the masked ones only.
#
# :::{admonition} Our remark
# :class: remark
# The paper (§2) calls this a linear combination and gives neither the weights nor $T$. Its first
# part is printed as $\sum_i t_i \log s_i$, without the minus sign. The command in the authors'
# repository has the weights five, two and one, and $T = 2$; its code uses $T^2$ times the divergence.
# :::

# %%
s, tau = randn(5).requires_grad_(), randn(5)
cosine_loss(s, tau).backward()
unit_s, unit_tau = F.normalize(s.detach(), dim=0), F.normalize(tau, dim=0)
cosine = unit_s @ unit_tau
by_hand = -(unit_tau - cosine * unit_s) / s.detach().norm()
check("eq-distillation-cosine-gradient", by_hand, s.grad)
check("eq-distillation-orthogonal", s.detach() @ s.grad, 0.0)
stepped = s.detach() - 0.5 * s.grad
check(
    "eq-distillation-longer",
    stepped.norm() ** 2,
    s.detach().norm() ** 2 + 0.25 * s.grad.norm() ** 2,
)

# %% [markdown]
# ### What “mean” divides by
#
# One trap is left, and it is not in the mathematics. A batch of rows needs a mean, and torch offers
# two. `reduction="batchmean"` divides the sum by the first dimension. `reduction="mean"` divides by
# *every* entry, the classes included, although the divergence is a sum over classes:
#
# $$
# \begin{gathered}
# \operatorname{mean} = \frac{1}{N}\, \operatorname{batchmean} \\
# \text{for logits of shape } (n, N) .
# \end{gathered}
# $$ (eq-distillation-mean)
#
# With the vocabulary of BERT for classes, the teacher's voice would be divided by tens of
# thousands. Text has a second trap: logits of shape $(B, n, V)$, with $B$ sentences of $n$ tokens.
# `batchmean` divides by $B$, not by the number of tokens,
#
# $$
# \begin{gathered}
# \operatorname{batchmean} = n \cdot \operatorname{mean\ over\ tokens} \\
# \text{for } (B, n, V) ,
# \end{gathered}
# $$ (eq-distillation-tokens)
#
# and padding counts as if it were text. The library's loss is a mean over rows, whatever their
# number of dimensions, and takes a mask.

# %%
student, teacher = randn(5, 11), randn(5, 11)


def torch_kl(student, teacher, T, reduction):
    log_q = F.log_softmax(student / T, -1)
    p = F.softmax(teacher / T, -1)
    return T**2 * F.kl_div(log_q, p, reduction=reduction)


batchmean = torch_kl(student, teacher, 2.0, "batchmean")
# torch warns that "mean" is not the mathematical divergence; that is the point
per_entry = torch_kl(student, teacher, 2.0, "none").mean()
check("eq-distillation-mean", 11 * per_entry, batchmean)

student, teacher = randn(3, 5, 11), randn(3, 5, 11)
check(
    "eq-distillation-tokens",
    torch_kl(student, teacher, 2.0, "batchmean"),
    5 * distillation_loss(student, teacher, 2.0),
)
real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
rows = real.bool()
check(
    "with a mask, padding is as if it were not there",
    distillation_loss(student, teacher, 2.0, mask=real),
    distillation_loss(student[rows], teacher[rows], 2.0),
)

# %% [markdown]
# ## From scratch
#
# Three classes, one row, no library. The teacher's logits are two, zero and minus two; the student
# thinks that the first two classes are alike. We compute at $T = 2$, so that the exponents are whole
# numbers for the teacher.


# %%
def soften(logits, T):
    exponentials = [math.exp(x / T) for x in logits]
    total = sum(exponentials)
    return [e / total for e in exponentials]


teacher_logits, student_logits, T = [2, 0, -2], [1, 1, -2], 2
p, q = soften(teacher_logits, T), soften(student_logits, T)
terms = [a * math.log(a / b) for a, b in zip(p, q, strict=True)]
pushes = [T * (b - a) for a, b in zip(p, q, strict=True)]
print(
    f"{'class':>5}{'v/T':>6}{'z/T':>6}{'p':>9}{'q':>9}"
    f"{'p·log(p/q)':>12}{'T(q−p)':>9}"
)
for i in range(3):
    print(
        f"{i:5d}{teacher_logits[i] / T:6.1f}{student_logits[i] / T:6.1f}"
        f"{p[i]:9.4f}{q[i]:9.4f}{terms[i]:12.4f}{pushes[i]:9.4f}"
    )
hand_loss = T**2 * sum(terms)
print(f"T² · KL = {T**2} · {sum(terms):.4f} = {hand_loss:.4f}")

# %% [markdown]
# Check a line with a pocket calculator. For the first class, $e^{2/2} = e$, and the three
# exponentials $e$, $1$ and $1/e$ sum to the denominator; their quotient is the $p$ printed. Then
# read the last column. The first class is pushed up, because a minus before a gradient is a step
# up. The second is pushed down. The third is pushed, too, although both logits are equal there:
# probabilities sum to one, so whoever is wrong about two classes is wrong about the third.
#
# Now the same numbers through the library, and through torch.

# %%
row = torch.tensor([student_logits], dtype=double, requires_grad=True)  # (1, 3)
target = torch.tensor([teacher_logits], dtype=double)
library_loss = distillation_loss(row, target, 2.0)
library_loss.backward()
check("by hand = the library", library_loss, hand_loss)
check(
    "by hand = the library: gradient",
    row.grad[0],
    torch.tensor(pushes, dtype=double),
)
check("by hand = torch", torch_kl(row, target, 2.0, "batchmean"), hand_loss)

# %% [markdown]
# ## The library function
#
# This is its source, read from the file when this page was built.
#
# ```{lib-source} lib.losses.distillation_loss
# ```
#
# Three decisions deserve a word. The teacher is detached, so that no optimiser can make the
# *teacher* agree with the student. The mean runs over rows. And half precision is computed in
# single precision, since at $T = 8$ the divergence is already a small difference of large sums.
# The function agrees with torch on every shape of rows and any temperature.

# %%
for T in (0.5, 1.0, 2.0, 8.0):
    student, teacher = 3 * randn(13, 11), 3 * randn(13, 11)
    ours = distillation_loss(student, teacher, T)
    check(
        f"the library = torch, T = {T}",
        ours,
        torch_kl(student, teacher, T, "batchmean"),
    )
    blocks = distillation_loss(
        student.view(1, 13, 11), teacher.view(1, 13, 11), T
    )
    check(f"and so for (1, 13, 11), T = {T}", blocks, ours)

# %% [markdown]
# The triple of {eq}`def-distillation-triple` is three calls and a sum:
#
# ```{lib-source} lib.losses.distilbert_loss
# ```
#
# And a student can start from its teacher. DistilBERT copies the embeddings, the head and every
# other layer:
#
# ```{lib-source} lib.models.distilbert.DistilBERT.from_teacher
# ```
#
# Here are both, on a BERT of toy size and random words: the student's second layer is the teacher's
# third, and the loss falls when student and teacher meet.

# %%
small = {
    "vocab_size": 31,
    "d_model": 12,
    "num_heads": 3,
    "d_ff": 20,
    "max_length": 8,
}
torch.manual_seed(0)
big = BERT(BERTConfig(num_layers=4, init_std=0.3, **small)).to(device).eval()
half = DistilBERT.from_teacher(big).eval()
copied = half.encoder.layers[1].feed_forward.expand.weight
original = big.encoder.layers[2].feed_forward.expand.weight
check("layer 1 of the student is layer 2 of the teacher", copied, original)
check("half of the layers", len(half.encoder.layers), 2)

words = torch.randint(5, 31, (6, 8), device=device)
labels = words.masked_fill(torch.arange(8, device=device) % 3 > 0, -100)
seen = words.masked_fill(labels != -100, 4)
with torch.no_grad():
    taught = big.encode(seen)
    wanted = big.mlm_logits(taught)


def triple():
    hidden = half.encode(seen)
    return distilbert_loss(
        half.mlm_logits(hidden),
        wanted,
        hidden,
        taught,
        labels,
        return_parts=True,
    )


before, parts = triple()
check(
    "the triple is 5 · ce + 2 · mlm + 1 · cos",
    before,
    5 * parts["ce"] + 2 * parts["mlm"] + parts["cos"],
    atol=1e-4,
)
fit(half, lambda step: triple()[0], steps=60, learning_rate=3e-3)
after = triple()[0]
check("and it can be trained on", bool(after < before))

# %% [markdown]
# ## On real data
#
# Two experiments. First small networks on images, where the source of every gain can be traced, with
# ten seeds. Then a Transformer on text, where DistilBERT's recipe is taken apart.
#
# ### Digits: where does the knowledge come from?
#
# The data are handwritten digits of eight by eight pixels. A student is a network with one hidden
# layer of sixteen units. Its teacher is four networks of sixty-four units whose logits are averaged.
# We ask three questions, each with a student that has no teacher beside it:
#
# - **All labels.** Student and teacher may use every label. Does the teacher's answer add anything?
# - **Few labels.** Only a few images have a label. The student sees those images only.
# - **Few labels, and the other images without.** The student sees all images. Where there is no
#   label, only a teacher can say something.
#
# With few labels one has to ask: *what labels did the teacher see?* A teacher that was trained on
# all of them carries them inside, and hands them on. Then the student is not a student with few
# labels. It gets every label, second hand. That is a fair setting if a large model exists already
# and its data do not; it is unfair as evidence that distillation replaces labels. So there are two
# teachers: **A** was trained on all labels, and **F** on the same few labels as the student.
#
# A seed draws the first weights, the batches, and which images keep their label. Everything is
# trained ten times at once: the networks of all seeds lie side by side in one tensor, and don't
# touch.

# %%
data = digits(seed=0)
images = data.train.flatten(1).to(device)  # (n, 64)
labels = data.train_labels.to(device)
test_images = data.validation.flatten(1).to(device)
test_labels = data.validation_labels.to(device)
seeds, members, few, T = 10, 4, 200, 4.0
print(f"{len(images):,} training images, {len(test_images)} held out,")
print(f"{few} with a label; sha256 {data.sha256[:16]}")
glue("distillation-images", len(images))
glue("distillation-few", few)


class ManyNets(nn.Module):
    """`count` small networks side by side: (count, n, 64) to logits."""

    def __init__(self, count, hidden):
        super().__init__()
        g = torch.Generator().manual_seed(count + hidden)

        def uniform(*shape):
            bound = 1 / math.sqrt(shape[-2])
            values = torch.rand(*shape, generator=g) * 2 - 1
            return nn.Parameter((bound * values).to(device))

        self.w1, self.w2 = (
            uniform(count, 64, hidden),
            uniform(count, hidden, 10),
        )
        self.b1 = nn.Parameter(torch.zeros(count, 1, hidden, device=device))
        self.b2 = nn.Parameter(torch.zeros(count, 1, 10, device=device))

    def forward(self, x):
        return torch.relu(x @ self.w1 + self.b1) @ self.w2 + self.b2


def hard(logits, targets):
    """Cross-entropy of every network, summed over networks."""
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    return losses.view(targets.shape).mean(-1).sum()


def soft(logits, wanted, T=T):
    """The library's loss of every network, summed over networks."""
    return len(logits) * distillation_loss(logits, wanted, T)


def train_nets(hidden, pool, loss, count=seeds, rate=1e-2, steps=600):
    """pool (count, m): what each network may see; loss(logits, which)."""
    model = ManyNets(count, hidden)
    g = torch.Generator().manual_seed(5)
    pool = pool.to(device)

    def batch_loss(step):
        draw = torch.randint(pool.shape[1], (count, 128), generator=g).to(
            device
        )
        which = pool.gather(1, draw)  # (count, 128)
        return loss(model(images[which]), which)

    fit(model, batch_loss, steps=steps, learning_rate=rate, clip=None)
    return model


@torch.no_grad()
def accuracy(logits):
    """(seeds, n, 10) logits of the held-out images to one accuracy a seed."""
    return (logits.argmax(-1) == test_labels).double().mean(-1).cpu()


everything = torch.arange(len(images)).expand(seeds, -1)
kept = torch.stack(
    [
        torch.randperm(len(images), generator=torch.Generator().manual_seed(s))[
            :few
        ]
        for s in range(seeds)
    ]
)

# %% [markdown]
# The teachers first: one ensemble for each seed and each set of labels.


# %% tags=["nbval-ignore-output"]
def train_teacher(pool):
    """Logits of one ensemble a seed: on all training and held-out images."""
    each = pool.repeat_interleave(members, 0)
    model = train_nets(
        64,
        each,
        lambda logits, i: hard(logits, labels[i]),
        len(each),
        rate=3e-3,
    )
    with torch.no_grad():
        answers = [
            model(x).view(seeds, members, -1, 10).mean(1)
            for x in (images, test_images)
        ]
    return answers


teachers, results = {}, {}
for name, pool in Progress(
    {"A": everything, "F": kept}.items(), "two teachers", total=2
):
    teachers[name], answers = train_teacher(pool)
    results[f"teacher {name}"] = accuracy(answers)

# %%
row_of = torch.arange(seeds, device=device)[:, None]


def by_labels(logits, i):
    return hard(logits, labels[i])


def by_teacher(name, T=T):
    return lambda logits, i: soft(logits, teachers[name][row_of, i], T)


def by_choice(name):
    """The teacher's first choice only, as if it were a label."""
    return lambda logits, i: hard(logits, teachers[name][row_of, i].argmax(-1))


# name: hidden units, the images that are seen, what is taught
arms = {
    "all labels": (16, everything, by_labels),
    "all, soft, A": (16, everything, by_teacher("A")),
    "few labels": (16, kept, by_labels),
    "few, soft, A": (16, kept, by_teacher("A")),
    "few, soft, F": (16, kept, by_teacher("F")),
    "unlabelled, soft, A": (16, everything, by_teacher("A")),
    "unlabelled, choice, A": (16, everything, by_choice("A")),
    "unlabelled, soft, F": (16, everything, by_teacher("F")),
    "unlabelled, choice, F": (16, everything, by_choice("F")),
    "tiny, all labels": (8, everything, by_labels),
    "tiny, soft, A": (8, everything, by_teacher("A")),
    "tiny, soft, A, T = 1": (8, everything, by_teacher("A", 1.0)),
}

# %% tags=["nbval-ignore-output"]
bar = Progress(
    arms.items(), f"{len(arms)} arms, {seeds} students each", total=len(arms)
)
for name, arm in bar:
    if name == "unlabelled, soft, A":
        # it uses no label, so it is the same training as this one, to the bit
        results[name] = results["all, soft, A"]
        continue
    results[name] = accuracy(train_nets(*arm)(test_images))

# %%
student_t = 2.262  # 97.5 % quantile of Student's t with nine degrees of freedom


def gain(name, than):
    """Mean difference, paired by seed, and half of its 95 % interval."""
    difference = results[name] - results[than]
    return (
        difference.mean().item(),
        student_t * difference.std().item() / math.sqrt(seeds),
    )


for name, values in results.items():
    print(f"{name:24}{values.mean():.3f} ± {values.std():.3f}")
    if name in ("teacher A", "teacher F", "all labels", "few labels"):
        glue(f"distillation-acc-{name.replace(' ', '-')}", values.mean())
print()
pairs = {
    "all": ("all, soft, A", "all labels"),
    "same-a": ("few, soft, A", "few labels"),
    "same-f": ("few, soft, F", "few labels"),
    "rest-a": ("unlabelled, soft, A", "few labels"),
    "rest-f": ("unlabelled, soft, F", "few labels"),
    "choice-a": ("unlabelled, soft, A", "unlabelled, choice, A"),
    "choice-f": ("unlabelled, soft, F", "unlabelled, choice, F"),
    "tiny": ("tiny, soft, A", "tiny, all labels"),
    "tiny-1": ("tiny, soft, A, T = 1", "tiny, all labels"),
}
gains = {}
for short, (name, than) in pairs.items():
    gains[short] = gain(name, than)
    glue(f"distillation-gain-{short}", gains[short][0])
    glue(f"distillation-half-{short}", gains[short][1])
    print(
        f"{name:22} − {than:22}{gains[short][0]:+.3f} ± {gains[short][1]:.3f}"
    )

# %% [markdown]
# ### What the digits say
#
# The teachers first. A is right on {glue:text}`distillation-acc-teacher-A:.3f` of the held-out
# digits, F on {glue:text}`distillation-acc-teacher-F:.3f`. Every gain below is the mean difference
# of two students with the same seed, with its interval at the usual level of confidence over ten
# seeds. It covers the seeds, not another draw of the held-out images.
#
# **All labels: no gain.** The student alone reaches {glue:text}`distillation-acc-all-labels:.3f`.
# Teacher A changes that by {glue:text}`distillation-gain-all:+.4f` ±
# {glue:text}`distillation-half-all:.4f`. Where the labels suffice, there was nothing left to teach.
# “Distillation always helps” is not true.
#
# **Few labels, teacher A: a large gain.** With {glue:text}`distillation-few` labels the student
# alone reaches {glue:text}`distillation-acc-few-labels:.3f`. On the same images, taught by A, it
# gains {glue:text}`distillation-gain-same-a:+.3f` ± {glue:text}`distillation-half-same-a:.3f`; with the
# other images, without their labels, {glue:text}`distillation-gain-rest-a:+.3f` ±
# {glue:text}`distillation-half-rest-a:.3f`. This is the number that is usually shown. But A has seen
# all {glue:text}`distillation-images` labels. The student has not learned from few labels. It has
# learned from all of them, by way of A.
#
# **Few labels, teacher F: no gain that we can see.** A teacher with the same few labels moves the
# student by {glue:text}`distillation-gain-same-f:+.3f` ± {glue:text}`distillation-half-same-f:.3f` on the
# same images, and by {glue:text}`distillation-gain-rest-f:+.3f` ±
# {glue:text}`distillation-half-rest-f:.3f` with the others. F is hardly better than the student, so
# it has hardly anything to hand on. A student cannot be distilled into knowing what nobody knew.
#
# **Soft answers or first choices?** On the images without labels, A's soft answers beat A's first
# choices by {glue:text}`distillation-gain-choice-a:.3f` ± {glue:text}`distillation-half-choice-a:.3f`.
# For F the difference is {glue:text}`distillation-gain-choice-f:+.3f` ±
# {glue:text}`distillation-half-choice-f:.3f`. A student of eight units, half the size, gains nothing
# either with all labels: {glue:text}`distillation-gain-tiny:+.3f` ±
# {glue:text}`distillation-half-tiny:.3f`, and at $T = 1$ {glue:text}`distillation-gain-tiny-1:+.3f` ±
# {glue:text}`distillation-half-tiny-1:.3f`.
#
# {numref}`fig-distillation-digits` shows all seeds.

# %%
check(
    "all labels: the teacher is worth less than a point",
    abs(gains["all"][0]) < 0.01,
)
check("few labels: teacher A is worth points", gains["rest-a"][0] > 0.03)
check("on the same images too", gains["same-a"][0] > 0.025)
check("teacher F is not", abs(gains["rest-f"][0]) < 0.02)
check("teacher F is not, on the same images", abs(gains["same-f"][0]) < 0.02)
check(
    "F itself is little better",
    bool(results["teacher F"].mean() < results["few labels"].mean() + 0.03),
)
check("soft answers of A beat its choices", gains["choice-a"][0] > 0.003)

# %% tags=["hide-input"]
shown = [name for name in results if not name.startswith(("teacher", "tiny"))]
fig, ax = plt.subplots(figsize=(4.6, 3.9))
for row, name in enumerate(shown):
    color = COLORS[
        "output" if "labels" in name else "query" if "A" in name else "key"
    ]
    ax.plot(results[name], [row] * seeds, "o", color=color, alpha=0.85)
    ax.plot(
        [results[name].mean()] * 2,
        [row - 0.35, row + 0.35],
        color=color,
        linewidth=2.5,
    )
ax.set_yticks(range(len(shown)), shown)
ax.invert_yaxis()
ax.set_xlabel("accuracy on held-out digits")
show_figure(
    fig,
    name="fig-distillation-digits",
    caption="Accuracy of a small student; a dot is a seed, the bar their mean. "
    "“Few” sees only the images with a label, “unlabelled” all images. Teacher A "
    "saw all labels, teacher F only the few. What is gained comes from A.",
    alt="A dot plot of nine arms. Students with all labels or taught by "
    "teacher A lie high and close together; students with few labels lie low, "
    "and those taught by teacher F lie with them.",
)

# %% [markdown]
# ### A digit that the student never saw
#
# What is in a soft answer, beyond a label? {cite:t}`hinton2015` (§3) gave a striking demonstration.
# They took every image of a 3 out of the student's data. The student then recognised most 3s all
# the same, because the teacher's answers to other digits say how much like a 3 they look. We repeat
# it on our digits, with teacher A, and with two controls. One student is taught by the teacher's
# first choice: it gets a label, and no doubts. For the other, the doubts are *shuffled*: for each
# image, the probabilities of the nine other digits are dealt out among them at random. That answer
# is exactly as soft, and its doubts mean nothing.

# %% tags=["nbval-ignore-output"]
no_threes = (labels != 3).nonzero().flatten().cpu().expand(seeds, -1)


def shuffled(logits, g):
    """Each row's largest entry stays; the other nine change places at random."""
    order = logits.argsort(-1, descending=True)
    others = (
        torch.rand(*logits.shape[:-1], 9, generator=g).argsort(-1).to(device)
        + 1
    )
    source = torch.cat([order[..., :1], order.gather(-1, others)], -1)
    return torch.empty_like(logits).scatter(
        -1, order, logits.gather(-1, source)
    )


teachers["shuffled"] = shuffled(teachers["A"], torch.Generator().manual_seed(0))
never_seen = {
    "soft": by_teacher("A"),
    "first choice": by_choice("A"),
    "soft, shuffled": by_teacher("shuffled"),
}
three = test_labels == 3
found = {}
for name, lesson in Progress(
    never_seen.items(), "no 3 among the images", total=3
):
    answers = train_nets(16, no_threes, lesson)(test_images)
    found[name] = (answers[:, three].argmax(-1) == 3).double().mean(-1).cpu()

# %%
print(f"{int(three.sum())} held-out images of a 3; share recognised")
for name, share in found.items():
    print(f"{name:16}{share.mean():.2f} ± {share.std():.2f}")
    glue(
        f"distillation-three-{name.replace(', ', '-').replace(' ', '-')}",
        share.mean(),
    )
glue("distillation-three-low", found["soft"].min())
check("soft answers teach the unseen digit", bool(found["soft"].min() > 0.5))
check("first choices cannot", bool(found["first choice"].max() < 0.05))
check(
    "and softness alone cannot either",
    bool(found["soft, shuffled"].mean() < found["soft"].mean() - 0.4),
)

# %% [markdown]
# The student taught by soft answers recognises {glue:text}`distillation-three-soft:.0%` of the unseen digits, in
# the worst of ten seeds {glue:text}`distillation-three-low:.0%`, and has never seen one of them. Taught by
# first choices it recognises {glue:text}`distillation-three-first-choice:.0%`, and by shuffled doubts
# {glue:text}`distillation-three-soft-shuffled:.0%`. So what carries the unseen digit is not softness.
# It is *which* wrong digits the teacher finds likely. That is what the name “dark knowledge” means,
# and here it is large. It was the teacher's, of course: A has seen that digit, with its labels.
#
# ### A Transformer on text
#
# Now a language model of characters, on the language reference that ships with Python. The teacher
# has {glue:text}`distillation-text-depth` layers and is trained for
# {glue:text}`distillation-text-teacher-steps` steps; the student has every other layer and
# {glue:text}`distillation-text-steps` steps. A student can get two things from its teacher: its
# *answers*, as the loss {eq}`def-distillation-triple`, and its *weights*, as a start. That makes four
# arms. Two more questions come with them. A student with a teacher also pays for the teacher's
# answers, so one student alone is given twice the steps. And the parts of the triple are left out,
# one at a time.
#
# This takes longer than a page should run, so the chapter reads a recorded result. The model is
# causal, so every character has a label, where a masked model has one for a small share of its
# tokens.

# %%
record = recorded("distillation")
settings, record = record["settings"], record["results"]
print(f"text {record['text_sha256'][:16]}")
print(f"teacher {record['teacher_parameters']:,} parameters, ", end="")
print(f"students {record['student_parameters']:,}")
print(
    f"teacher {record['teacher']:.3f} nats a character; every other layer of it,"
)
print(f"without any training, {record['untrained_layers']:.3f}")
text_mean = {}
for name, losses in record["arms"].items():
    text_mean[name] = np.mean(losses)
    print(f"{name:20}{np.mean(losses):.3f} ± {np.std(losses, ddof=1):.3f}")
    glue(
        f"distillation-text-{name.replace(', ', '-').replace(' ', '-')}",
        text_mean[name],
    )
glue("distillation-text-teacher", record["teacher"])
glue("distillation-text-untrained", record["untrained_layers"])
glue("distillation-text-depth", settings["teacher_layers"])
glue("distillation-text-teacher-steps", settings["teacher_steps"])
glue("distillation-text-steps", settings["student_steps"])
answers = text_mean["alone"] - text_mean["distilled"]
weights = text_mean["alone"] - text_mean["layers"]
on_top = text_mean["layers"] - text_mean["both"]
for name, value in [
    ("answers", answers),
    ("weights", weights),
    ("on-top", on_top),
]:
    glue(f"distillation-text-gain-{name}", value)
worst = {name: max(losses) for name, losses in record["arms"].items()}
best = {name: min(losses) for name, losses in record["arms"].items()}
check("three seeds an arm", all(len(x) == 3 for x in record["arms"].values()))
check("answers help a student from scratch", worst["distilled"] < best["alone"])
check(
    "twice the steps help it more", worst["alone, longer"] < best["distilled"]
)
check(
    "the teacher's weights help most", worst["layers"] < best["alone, longer"]
)
check("answers add a little to them", worst["both"] < best["layers"])
check("and much less than the weights gave", on_top < weights / 10)
for part in ("ce", "mlm", "cos"):
    check(
        f"without {part} the loss is within .05 of all three",
        abs(text_mean[f"both without {part}"] - text_mean["both"]) < 0.05,
    )

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.4))
for row, (name, losses) in enumerate(record["arms"].items()):
    own = name.startswith("alone") or name == "distilled"
    color = COLORS["key" if own else "query"]
    ax.plot(
        losses, [row] * len(losses), "o" if own else "s", color=color, alpha=0.8
    )
ax.axvline(record["teacher"], color=COLORS["reference"], linestyle="--")
ax.set_yticks(range(len(record["arms"])), list(record["arms"]))
ax.invert_yaxis()
ax.set_xlabel("validation loss, nats a character")
show_figure(
    fig,
    name="fig-distillation-text",
    caption="Students of half the layers on real text; a mark is a seed. Circles "
    "start from random weights, squares from every other layer of the teacher, "
    "whose own loss is the dashed line. "
    "The start decides; the three losses add little to it.",
    alt="A dot plot of eight arms. Students from random weights lie far to the "
    "right, best if trained twice as long; all those that start from the "
    "teacher's layers lie close together near the teacher.",
)

# %% [markdown]
# Alone, the student reaches {glue:text}`distillation-text-alone:.3f` nats a character. The teacher's
# answers bring it to {glue:text}`distillation-text-distilled:.3f`, a gain of
# {glue:text}`distillation-text-gain-answers:.2f`. Twice the steps without any teacher bring it to
# {glue:text}`distillation-text-alone-longer:.3f`, which is more. The teacher's *weights* bring it to
# {glue:text}`distillation-text-layers:.3f`, a gain of {glue:text}`distillation-text-gain-weights:.2f`;
# and on top of those the answers add {glue:text}`distillation-text-gain-on-top:.3f`. The teacher
# stands at {glue:text}`distillation-text-teacher:.3f` ({numref}`fig-distillation-text`).
#
# Even before its first step the cut teacher stands at
# {glue:text}`distillation-text-untrained:.2f`, better than the student alone after its last. Leaving out one part of the triple
# costs little: without the soft targets {glue:text}`distillation-text-both-without-ce:.3f`, without
# the labels {glue:text}`distillation-text-both-without-mlm:.3f`, without the cosine
# {glue:text}`distillation-text-both-without-cos:.3f`, against
# {glue:text}`distillation-text-both:.3f` with all.
#
# So at this size most of DistilBERT's recipe is its first line: *take every other layer*. Whoever
# compares a distilled student that started from its teacher with a student from scratch, and calls
# the difference “distillation”, has measured the start. One size, one text and a short training are
# little evidence; we claim no more than that.
#
# :::{admonition} The paper says
# :class: paper
# “… we initialize the student from the teacher by taking one layer out of two” {cite}`sanh2019` (§3).
# In its ablation (Table 4) too, random first weights cost the most, and leaving out
# $L_{\text{mlm}}$ the least.
# :::
#
# ### What DistilBERT is, and what it is not
#
# It is said that DistilBERT “changes connections”. It has BERT's layers, and half as many. It has no
# segment vectors and no pooler. All else is a training procedure. The library's models count the
# parameters, on a device that stores none.

# %%
with torch.device("meta"):
    base, distilled = BERT(BERTConfig()), DistilBERT(DistilBERTConfig())


def millions(*modules):
    return sum(p.numel() for m in modules for p in m.parameters()) / 1e6


bert_size = millions(base.encoder, base.pooler)
distilbert_size = millions(distilled.encoder)
glue("distillation-bert-millions", bert_size)
glue("distillation-distilbert-millions", distilbert_size)
glue("distillation-size-share", distilbert_size / bert_size)
check(
    "one layer is the same in both",
    millions(base.encoder.layers[0]),
    millions(distilled.encoder.layers[0]),
)

# %% [markdown]
# BERT-base has {glue:text}`distillation-bert-millions:.1f` million parameters without its training
# heads, DistilBERT {glue:text}`distillation-distilbert-millions:.1f` million. Half of the layers are
# {glue:text}`distillation-size-share:.0%` of the parameters, because the word vectors stay. The paper
# claims “reduce the size of a BERT model by 40%, while retaining 97% of its language understanding
# capabilities and being 60% faster” {cite}`sanh2019` (abstract). Its size we have counted; the other
# two numbers are the paper's, and were not measured here.

# %% [markdown]
# ## Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “DistilBERT changes BERT's connections.” | It is a training procedure. The layers are BERT's, six of twelve; segment vectors and pooler are gone. {glue:text}`distillation-distilbert-millions:.1f` million parameters are left of {glue:text}`distillation-bert-millions:.1f`. | {cite:t}`sanh2019` (§2, §3) |

# %% [markdown]
# ## Broken on purpose
#
# Four mistakes from code in circulation. Each box makes the mistake, shows its symptom as a number,
# and runs a test on both versions.
#
# :::{admonition} Broken on purpose D25: distillation without a teacher
# :class: broken
# A temperature, a softmax, a loss called `distillation`, and labels where the teacher's answer should
# be. It trains, and it is ordinary training with a blurred student. The test swaps the teacher: if
# the gradient does not notice, there is no teacher.
# :::


# %%
def without_teacher(student, teacher, labels, T=2.0):
    return T**2 * F.cross_entropy(student / T, labels)


def with_teacher(student, teacher, labels, T=2.0):
    return distillation_loss(student, teacher, T)


def the_teacher_matters(loss):
    g = torch.Generator().manual_seed(0)
    student = torch.randn(8, 10, generator=g)
    one, other = (torch.randn(8, 10, generator=g) for _ in range(2))
    answers = torch.randint(10, (8,), generator=g)

    def grad(teacher):
        leaf = student.clone().requires_grad_()
        loss(leaf, teacher, answers).backward()
        return leaf.grad

    change = (grad(one) - grad(other)).abs().max().item()
    assert change > 1e-4, (
        f"another teacher changes the gradient by {change:.3f}, want more"
    )
    return change


glue("distillation-d25", the_teacher_matters(with_teacher))
catches("D25", the_teacher_matters, broken=without_teacher, fixed=with_teacher)

# %% [markdown]
# With the library's loss another teacher moves the gradient by {glue:text}`distillation-d25:.3f`.
# **Fix:** the teacher's logits belong in the loss.
#
# :::{admonition} Broken on purpose D25b: no T²
# :class: broken
# The divergence of the softened answers, and nothing before it. By step 3 its gradient falls like
# $1/T^2$, while that of the labels' loss beside it stays. Who raises $T$ turns the teacher off.
# :::


# %%
def no_square(student, teacher, T):
    return distillation_loss(student, teacher, T) / T**2


def the_teacher_keeps_its_voice(loss):
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(32, 10, generator=g) for _ in range(2))
    sizes = []
    for T in (1.0, 2.0, 4.0, 8.0):
        leaf = student.clone().requires_grad_()
        loss(leaf, teacher, T).backward()
        sizes.append(32 * leaf.grad.abs().mean().item())
    line = ", ".join(f"{size:.4f}" for size in sizes)
    assert sizes[-1] > 0.3 * sizes[0], (
        f"gradients {line} at T = 1, 2, 4, 8: the teacher fades"
    )
    return line


print("with T²:", the_teacher_keeps_its_voice(distillation_loss))
catches(
    "D25b",
    the_teacher_keeps_its_voice,
    broken=no_square,
    fixed=distillation_loss,
)

# %% [markdown]
# **Fix:** multiply by $T^2$, {eq}`eq-distillation-limit`.
#
# :::{admonition} Broken on purpose D25c: the mean over classes
# :class: broken
# `F.kl_div` has `reduction="mean"` by default, and it divides by every entry. By
# {eq}`eq-distillation-mean` the loss is then too small by the number of classes. We write the
# division out, because torch warns at the option itself.
# :::


# %%
def mean_of_entries(student, teacher):
    return torch_kl(student, teacher, 2.0, "none").mean()


def mean_of_rows(student, teacher):
    return torch_kl(student, teacher, 2.0, "batchmean")


def repeats_do_not_count(loss):
    """One row or a hundred copies of it: the mean is that row's divergence."""
    g = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(1, 100, generator=g).double() for _ in range(2)
    )
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    want = (4 * p * (p / q).log()).sum().item()
    got = loss(student.repeat(100, 1), teacher.repeat(100, 1)).item()
    assert abs(got - want) < 1e-9, f"loss {got:.4f}, want {want:.4f}"


catches(
    "D25c", repeats_do_not_count, broken=mean_of_entries, fixed=mean_of_rows
)

# %% [markdown]
# **Fix:** `batchmean` for rows (n, N), or the library's loss for any shape.
#
# :::{admonition} Broken on purpose D29: softmax, and then CrossEntropyLoss
# :class: broken
# `CrossEntropyLoss` takes *logits*. A student that ends in a softmax hands it probabilities, and
# gets a second softmax over numbers between zero and one. A perfect prediction then still costs
# $\log(e + 9) - 1$ with ten classes, and the loss can go no lower.
# :::


# %%
def twice(logits, labels):
    return F.cross_entropy(logits.softmax(-1), labels)


def certainty_costs_nothing(loss):
    labels = torch.arange(10)
    logits = 100.0 * torch.eye(10)  # certain, and right
    value = loss(logits, labels).item()
    assert value < 1e-3, f"a perfect prediction costs {value:.3f}, want 0"


check(
    "the floor is log(e + 9) − 1",
    twice(100 * torch.eye(10), torch.arange(10)),
    math.log(math.e + 9) - 1,
    atol=1e-6,
)
catches("D29", certainty_costs_nothing, broken=twice, fixed=F.cross_entropy)

# %% [markdown]
# **Fix:** hand over logits. And know the floor of a loss before you call a training stuck; step 2 had
# the honest one.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict.
#
# ```{exercise-start} The loss in four lines
# :label: ex-distillation-loss
# ```
# *Difficulty ●○○ · 8 minutes*
#
# Write `soft_loss(student, teacher, T)` for logits of shape (n, N): the mean over rows of $T^2
# \operatorname{KL}(p\,\|\,q)$, without `F.kl_div`.
#
# ```{dropdown} Hint
# Take `log_softmax` of both, divided by $T$. The divergence is a sum over classes; the mean is over
# rows.
# ```


# %% tags=["exercise-stub"]
def soft_loss(student, teacher, T):
    raise NotImplementedError


grade("ex-distillation-loss", soft_loss)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-distillation-loss
# :class: dropdown
# ```


# %% tags=["solution"]
def soft_loss(student, teacher, T):
    log_p = torch.log_softmax(teacher / T, -1)
    log_q = torch.log_softmax(student / T, -1)
    return T**2 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()


grade("ex-distillation-loss", soft_loss)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The gradient, without autograd
# :label: ex-distillation-gradient
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `soft_gradient(student, teacher, T)`: the gradient of that same loss, $T^2$ and the mean over
# $n$ rows included, by the student's logits, (n, N).
#
# ```{dropdown} Hint
# {eq}`eq-distillation-gradient` has $1/T$. What do $T^2$ and the mean make of it?
# ```


# %% tags=["exercise-stub"]
def soft_gradient(student, teacher, T):
    raise NotImplementedError


grade("ex-distillation-gradient", soft_gradient)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-distillation-gradient
# :class: dropdown
# ```


# %% tags=["solution"]
def soft_gradient(student, teacher, T):
    q, p = torch.softmax(student / T, -1), torch.softmax(teacher / T, -1)
    return T * (q - p) / len(student)


grade("ex-distillation-gradient", soft_gradient)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The lowest cross-entropy
# :label: ex-distillation-floor
# ```
# *Difficulty ●○○ · 8 minutes*
#
# A colleague trains on the cross-entropy $-\sum_i p_i \log q_i$ at temperature $T$, mean over rows, with
# no factor before it. Write `floor(teacher, T)`: the lowest value that it can reach.
#
# ```{dropdown} Hint
# {eq}`eq-distillation-entropy`. What is left when the divergence is zero?
# ```


# %% tags=["exercise-stub"]
def floor(teacher, T):
    raise NotImplementedError


grade("ex-distillation-floor", floor)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-distillation-floor
# :class: dropdown
# ```


# %% tags=["solution"]
def floor(teacher, T):
    log_p = torch.log_softmax(teacher / T, -1)
    return -(log_p.exp() * log_p).sum(-1).mean()


grade("ex-distillation-floor", floor)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Infinitely hot
# :label: ex-distillation-limit
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `hot_loss(student, teacher)`: the limit of $T^2 \operatorname{KL}(p\,\|\,q)$ for $T \to \infty$, for
# logits (n, N), mean over rows.
#
# ```{dropdown} Hint
# {eq}`eq-distillation-square`. Which hypothesis must you see to yourself?
# ```


# %% tags=["exercise-stub"]
def hot_loss(student, teacher):
    raise NotImplementedError


grade("ex-distillation-limit", hot_loss)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-distillation-limit
# :class: dropdown
# ```


# %% tags=["solution"]
def hot_loss(student, teacher):
    d = student - teacher
    d = d - d.mean(-1, keepdim=True)
    return (d**2).mean(-1).mean() / 2


grade("ex-distillation-limit", hot_loss)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Text with padding
# :label: ex-distillation-tokens
# ```
# *Difficulty ●●○ · 12 minutes*
#
# Write `token_loss(student, teacher, mask, T)` for logits (B, n, V) and an integer mask (B, n), 1 = real,
# 0 = padding: $T^2 \operatorname{KL}$, mean over the *real tokens* of the whole batch.
#
# ```{dropdown} Hint
# Sum over the classes first; then there is one number a token. Divide by how many count.
# ```


# %% tags=["exercise-stub"]
def token_loss(student, teacher, mask, T):
    raise NotImplementedError


grade("ex-distillation-tokens", token_loss)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-distillation-tokens
# :class: dropdown
# ```


# %% tags=["solution"]
def token_loss(student, teacher, mask, T):
    log_p = torch.log_softmax(teacher / T, -1)
    log_q = torch.log_softmax(student / T, -1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)  # (B, n)
    return T**2 * (kl * mask).sum() / mask.sum()


grade("ex-distillation-tokens", token_loss)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - A teacher's logits, divided by a temperature, become soft targets {eq}`def-distillation-soft`. The
#   gradient is the difference of two probabilities, over $T$ {eq}`eq-distillation-gradient`.
# - Cross-entropy and divergence teach the same; the cross-entropy's floor is the teacher's entropy
#   {eq}`eq-distillation-entropy`.
# - At high temperature the gradient is the difference of the centred logits over $NT^2$
#   {eq}`eq-distillation-high-temperature`. Hence $T^2$; the error falls like $1/T$, and is not small at
#   common temperatures. At low temperature only the first choice is left {eq}`eq-distillation-cold`.
# - `batchmean` for rows; neither `mean`, nor `batchmean` for text.
# - On digits the gain came from a teacher that had seen more labels. With the same labels there was
#   none that ten seeds could show. Ask of every distilled student: what did its teacher see?
# - Soft answers taught a digit that the student never saw. Shuffled ones, just as soft, did not.
# - In a small Transformer on text the teacher's weights were worth far more than its answers.
#
# ## Sources
#
# - {cite:t}`hinton2015`, §2: soft targets, temperature, the factor $T^2$; §2.1: the limit; §3: the
#   digit that was left out.
# - {cite:t}`sanh2019`, §2: the triple loss; §3: the student and its first weights; Table 4: ablation.
# - {cite:t}`bucila2006`: an ensemble compressed into one network, on data without labels.
#   {cite:t}`ba2014`: students trained on logits.
