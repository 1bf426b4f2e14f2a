# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       To read the last word of a sentence you must remember the first. For thirty years networks
#       read one word after the other, and forgot. What exactly is lost on the way, why, and what
#       does it cost to look straight back instead?
#     goals:
#       - write the recurrent cell, the LSTM and the convolution as formulas, equal to torch's own
#       - say how many steps lie between two words in each of them, and measure it
#       - derive why a gradient vanishes or explodes, and which hypothesis each bound needs
#       - explain what the LSTM's additive path mends, and what it does not
#       - count n²d against nd², and say where recurrence or convolution is the better choice
#     prerequisites:
#       - matrices, the chain rule, and a little PyTorch
#       - no other chapter
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
# # From recurrence to attention

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
import torch
import torch.nn.functional as F
from torch import nn

from lib.attention import (
    MultiHeadAttention,
    causal_mask,
    scaled_dot_product_attention,
)
from lib.data import (
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.teaching import (
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
from lib.teaching.diagrams import network
from lib.teaching.figures import COLORS
from lib.teaching.measure import flops, median_seconds
from lib.teaching.recorded import recorded
from lib.teaching.sequences import (
    CausalConvolutions,
    SequenceModel,
    count,
    recall_batch,
    width_for,
)
from lib.training import evaluate, fit

device = start(seed=0)
double = torch.float64


def randn(*shape, seed):
    """Normal random numbers that are the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=double)


# %% [markdown]
# ## The formula
#
# “The keys that I left on the table yesterday **are** gone.” Why *are*, and not *is*? Because of
# *keys*, seven words earlier. Whoever reads or writes a language needs at each place something that
# stood before, sometimes just before, sometimes far away.
#
# For a network, a sentence is a list of vectors $x_1, x_2, \dots, x_n$, one a word, each with $d$
# numbers. What we want is a second list, $h_1, \dots, h_n$: at each place a vector that knows the
# word *and what came before it*. There are three classical ways to make one.
#
# **Recurrence** reads like a person with a notebook. The notebook $h$ has $d$ numbers. At each word
# it is rewritten, from what it held and from the word:
#
# $$
# h_t = \tanh(W h_{t-1} + U x_t + b), \qquad h_0 = 0 .
# $$ (def-from-recurrence-rnn)
#
# **Convolution** looks through a window. Each place takes the $k$ nearest words up to its own, each
# with a matrix of its own, and adds:
#
# $$
# h_t = \sum_{s=0}^{k-1} A_s\, x_{t-s} + b, \qquad x_t = 0 \text{ for } t < 1 .
# $$ (def-from-recurrence-convolution)
#
# **Attention** looks at every word at once, and decides by the words themselves how much of each it
# takes:
#
# $$
# h_t = \sum_{j=1}^{t} a_{tj}\, V x_j , \qquad a_{tj} \ge 0, \quad \sum_{j=1}^{t} a_{tj} = 1 .
# $$ (def-from-recurrence-attention)
#
# Where the weights $a_{tj}$ come from is the subject of [chapter 2](02_attention): the softmax of
# dot products of a *query* made from $x_t$ with a *key* made from each $x_j$. For this chapter it is
# enough that they are positive, sum to one, and are computed from the words.
#
# | symbol | shape | meaning |
# |---|---|---|
# | $x_t$ | $d$ | the word at place $t$, a column; a sentence is $n$ of them |
# | $h_t$ | $d$ | what the network knows at place $t$; the *state* of a recurrence |
# | $W$ | $d \times d$ | from the last state to the next |
# | $U$, $V$, $A_s$ | $d \times d$ | from a word to a state |
# | $b$ | $d$ | the bias |
# | $k$ | a number | the kernel: how many words a convolution sees |
# | $a_{tj}$ | a number | how much place $t$ takes from place $j$ |
#
# {numref}`fig-from-recurrence-network` has the three side by side. Each arrow is one matrix product.
# Follow the thick ones from the first word to the last output: the whole chapter is about how many
# there are, what happens to a gradient on the way back along them, and what they cost.

# %% tags=["hide-input"]
words = ["the", "keys", "…", "are"]
fig, axes = plt.subplots(3, 1, figsize=(4.3, 6.6))
side = [(((1, t), (1, t + 1))) for t in range(3)]
up = [((0, t), (1, t)) for t in range(4)]
states = ["$h_1$", "$h_2$", "$h_3$", "$h_4$"]
network(
    axes[0],
    [words, states],
    up + side,
    path=[(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)],
)
axes[0].set_title("recurrence: one step a word")
window = [
    ((r, j), (r + 1, t))
    for r in range(3)
    for t in range(4)
    for j in range(max(0, t - 1), t + 1)
]
network(
    axes[1],
    [words, ["", "", "", ""], ["", "", "", ""], states],
    window,
    path=[(0, 0), (1, 1), (2, 2), (3, 3)],
    color=COLORS["value"],
)
axes[1].set_title("convolution, $k = 2$: one layer for each word more")
every = [((0, j), (1, t)) for t in range(4) for j in range(t + 1)]
network(
    axes[2],
    [words, states],
    every,
    path=[(0, 0), (1, 3)],
    color=COLORS["key"],
)
axes[2].set_title("attention: one step")
show_figure(
    fig,
    name="fig-from-recurrence-network",
    caption="Three ways from the words to states that know what came before. "
    "Thick: the shortest way from the first word to the last state.",
    alt="Three networks of four words. Recurrence: the way from the first word "
    "runs through all four states. Convolution: it climbs three layers. "
    "Attention: a single arrow leads to the last state.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# “Learning long-range dependencies is a key challenge in many sequence transduction tasks. One key
# factor affecting the ability to learn such dependencies is the length of the paths forward and
# backward signals have to traverse in the network. The shorter these paths between any combination
# of positions in the input and output sequences, the easier it is to learn long-range dependencies”.
# {cite:t}`vaswani2017` (§4)
# :::
#
# :::{admonition} Our remark
# :class: remark
# That is a claim in two parts. The lengths can be counted, and we count them (step 3). That short
# paths make learning *easier* is about training; steps 4 to 7 derive one reason, and the section on
# real data asks whether it shows. It shows where something far away is needed. It hardly shows where
# most of what is needed is near.
# :::

# %% [markdown]
# ## Derivation
#
# Nine steps. The first two write down recurrence and convolution exactly. The third counts paths.
# Four to seven follow a gradient back along them. The eighth counts operations, and the ninth meets
# the problem that attention was invented for.
#
# ### Step 1. The recurrent cell, and torch's
#
# {eq}`def-from-recurrence-rnn` is two lines of Python. Torch calls $U$ `weight_ih` (from *input* to
# *hidden*), $W$ `weight_hh`, and keeps two biases, which are only ever added to each other:
#
# $$
# h_t = \tanh(W_{hh}\, h_{t-1} + W_{ih}\, x_t + b_{ih} + b_{hh}) .
# $$ (eq-from-recurrence-torch)


# %%
def rnn(x, W, U, b):
    """All states of the recurrence over x (n, d_in): (n, d)."""
    h, states = torch.zeros(len(W), dtype=x.dtype), []
    for x_t in x:
        h = torch.tanh(W @ h + U @ x_t + b)
        states.append(h)
    return torch.stack(states)


torch.manual_seed(1)
theirs = nn.RNN(5, 7, batch_first=True).double()
x = randn(11, 5, seed=2)
ours = rnn(
    x,
    theirs.weight_hh_l0,
    theirs.weight_ih_l0,
    theirs.bias_ih_l0 + theirs.bias_hh_l0,
)
check("eq-from-recurrence-torch", ours, theirs(x[None])[0][0], atol=1e-15)

# %% [markdown]
# There is no way to compute $h_9$ without $h_8$, nor $h_8$ without $h_7$. The loop is not an
# awkward way to write it: it is the formula.
#
# ### Step 2. A convolution is a banded matrix
#
# {eq}`def-from-recurrence-convolution` has no loop over time: every $h_t$ can be had by itself. It
# is a linear map of the whole sentence. Stack the words into one tall vector $X = (x_1; \dots; x_n)$
# and the outputs into $H$. Then $H = M X + \mathbf{b}$, with $\mathbf{b}$ the bias at every place,
# where $M$ is made of $n \times n$ blocks:
#
# $$
# M = \begin{pmatrix}
# A_0 & & & \\
# A_1 & A_0 & & \\
# A_2 & A_1 & A_0 & \\
#  & A_2 & A_1 & A_0
# \end{pmatrix} \quad (k = 3,\ n = 4), \qquad
# M_{tj} = \begin{cases} A_{t-j} & 0 \le t - j < k \\ 0 & \text{else.} \end{cases}
# $$ (eq-from-recurrence-banded)
#
# The same blocks come again along each diagonal: what is learned about a pair of neighbours at one
# place holds at all others. And outside a band of width $k$ there is nothing. Row $t$ has
# $\min(t, k)$ blocks, so for $n \ge k$ there are
#
# $$
# \underbrace{1 + 2 + \dots + (k-1)}_{\text{the first rows}} + (n - k + 1)\,k
# = nk - \frac{k(k-1)}{2}
# $$ (eq-from-recurrence-blocks)
#
# of them. In torch a kernel is counted from the left, so `weight[:, :, 0]` is the matrix of the
# *oldest* word; and `nn.Conv1d` wants the words along the last axis.

# %%
n, d, k = 9, 4, 3
torch.manual_seed(2)
convolve = nn.Conv1d(d, d, k).double()
A = convolve.weight.flip(-1)  # A[:, :, s] is A_s
M = torch.zeros(n, d, n, d, dtype=double)
for t in range(n):
    for s in range(min(k, t + 1)):
        M[t, :, t - s] = A[:, :, s]
M = M.view(n * d, n * d)
x = randn(n, d, seed=3)
banded = (M @ x.flatten()).view(n, d) + convolve.bias
with_torch = convolve(F.pad(x.T, (k - 1, 0))).T  # zeros on the left only
check("eq-from-recurrence-banded", banded, with_torch, atol=1e-14)
blocks = M.view(n, d, n, d).abs().amax((1, 3)) > 0  # (n, n)
check("eq-from-recurrence-blocks", int(blocks.sum()), n * k - k * (k - 1) / 2)

both_sides = nn.Conv1d(d, d, k, padding=(k - 1) // 2).double()
change = x.clone()
change[5] += 1.0
moved = (both_sides(change.T) - both_sides(x.T)).abs().amax(0) > 0
print("word 5 changes; outputs that move with zeros on both sides:")
print(moved.nonzero().flatten().tolist())
check("padding on both sides lets output 4 see word 5", bool(moved[4]))

# %% [markdown]
# **Without the left padding.** The usual `padding=` of `nn.Conv1d` puts zeros on both sides. Then
# output four sees word five, as the last lines show. For a picture that is what one wants. For a
# model that is to *predict* word five it is a leak: it reads the answer.
#
# ### Step 3. How far is it from one word to another?
#
# Call the *path length* from word $j$ to output $i$ the number of layers or steps that a signal goes
# through.
#
# **Recurrence.** $h_i$ depends on $h_{i-1}$, that on $h_{i-2}$, and so on down to $h_j$, in which
# $x_j$ first appears. There is no other way. So a signal passes through every state in between:
#
# $$
# \text{path}_{\text{recurrence}}(j \to i) = i - j \quad \text{steps after the first.}
# $$ (eq-from-recurrence-path)
#
# We do not assert this but measure it. Run the recurrence, and cut it at one state $h_m$: keep its
# value, and stop the gradient (`detach`). If output $i$ then no longer depends on word $j$, every
# path went through $h_m$. Count the states for which that is so.


# %%
def states_on_the_way(i, j, n=10, d=4):
    """How many states lie on every path from word j to output i."""
    W, U = randn(d, d, seed=4) / 2, randn(d, d, seed=5) / 2
    found = 0
    for cut in range(n):
        x = randn(n, d, seed=6).requires_grad_()
        h, outputs = torch.zeros(d, dtype=double), []
        for t in range(n):
            h = torch.tanh(W @ h + U @ x[t])
            outputs.append(h)
            if t == cut:
                h = h.detach()  # the value goes on, the gradient does not
        (grad,) = torch.autograd.grad(outputs[i].sum(), x)
        found += bool((grad[j] == 0).all())
    return found


pairs = [(9, 0), (9, 5), (6, 2), (4, 3), (7, 7)]
measured = [states_on_the_way(i, j) for i, j in pairs]
check("eq-from-recurrence-path", measured, [i - j for i, j in pairs])

# %% [markdown]
# **Convolution.** One layer reaches $k - 1$ words back. Let $L$ layers see $r_L$ words, the output's
# own included, so $r_0 = 1$. A further layer looks at $k$ outputs of the one below, the oldest of
# them $k - 1$ back, and that one sees $r_{L}$ words from there. So $r_{L+1} = r_L + (k - 1)$, and by
# induction the *receptive field* is
#
# $$
# r_L = 1 + L\,(k - 1) .
# $$ (eq-from-recurrence-field)
#
# To reach from $j$ to $i$ one needs $1 + L(k-1) \ge i - j + 1$, so
#
# $$
# L \ge \left\lceil \frac{i - j}{k - 1} \right\rceil .
# $$ (eq-from-recurrence-layers)
#
# That grows with the distance, as in a recurrence, only $k-1$ times more slowly. *Dilation* does
# better. Layer $l$ looks at every $\delta_l$-th output of the one below, so it reaches $(k-1)\,
# \delta_l$ back, and the same induction gives the first half of
#
# $$
# r_L = 1 + (k - 1) \sum_{l=1}^{L} \delta_l , \qquad
# r_L = k^L \ \text{ for } \delta_l = k^{l-1} .
# $$ (eq-from-recurrence-dilated)
#
# The second half is a geometric series, $(k-1)(1 + k + \dots + k^{L-1}) = k^L - 1$. So
# $\lceil \log_k n \rceil$ layers connect $n$ words, and no word within reach is skipped. The paper's
# $O(\log_k n)$ is this case {cite}`vaswani2017` (§4).
#
# **Attention.** In {eq}`def-from-recurrence-attention` every $x_j$ with $j \le t$ stands in the sum
# for $h_t$ itself. One layer, whatever the distance.
#
# To measure, ask autograd which output depends on which input: one Jacobian a layer stack, and
# where it is not zero.


# %%
def depends(layer, n, d=6):
    """Whether output i depends on input j of a map (n, d) → (n, d): (n, n)."""
    x = randn(n, d, seed=7)
    J = torch.autograd.functional.jacobian(layer, x)  # (n, d, n, d)
    return J.abs().amax((1, 3)) > 0


def convolutions(dilations, kernel=3, d=6):
    """A stack of causal convolutions with tanh between them."""
    layers = []
    for seed, dilation in enumerate(dilations):
        torch.manual_seed(seed)
        layer = nn.Conv1d(d, d, kernel, dilation=dilation).double()
        layers.append((layer, (kernel - 1) * dilation))

    def stack(x):
        x = x.T
        for layer, past in layers:
            x = torch.tanh(layer(F.pad(x, (past, 0))))
        return x.T

    return stack


def attention(x, window=None):
    """Causal self-attention with random maps; `window`: how far back, if not all."""
    d = x.shape[-1]
    q, key, v = (x @ randn(d, d, seed=s) / math.sqrt(d) for s in (8, 9, 10))
    mask = causal_mask(len(x), len(x))
    if window is not None:
        mask = mask & ~torch.tril(torch.ones_like(mask), -window)
    return scaled_dot_product_attention(q, key, v, mask)


def recurrent(x):
    d = x.shape[-1]
    return rnn(x, randn(d, d, seed=4) / 2, randn(d, d, seed=5) / 2, 0.0)


def farthest(matrix):
    """How many inputs the last output sees."""
    return int(matrix[-1].sum())


n = 28
for kernel, layers in [(2, 4), (3, 1), (3, 5), (5, 3)]:
    field = farthest(depends(convolutions([1] * layers, kernel), n))
    check("eq-from-recurrence-field", field, 1 + layers * (kernel - 1))
for distance in (1, 4, 7, 12):
    needed = next(
        layers
        for layers in range(1, n)
        if depends(convolutions([1] * layers), n)[20, 20 - distance]
    )
    check("eq-from-recurrence-layers", needed, math.ceil(distance / 2))
for kernel, dilations in [(3, [1, 3, 9]), (2, [1, 2, 4, 8]), (3, [1, 2, 4])]:
    field = farthest(depends(convolutions(dilations, kernel), n))
    want = 1 + (kernel - 1) * sum(dilations)
    check("eq-from-recurrence-dilated", field, want)
    if kernel == dilations[1]:
        check("a dilation of k to the l", field, kernel ** len(dilations))
check("one layer of attention sees all", farthest(depends(attention, n)), n)
check("so does one recurrence, by n steps", farthest(depends(recurrent, n)), n)

# %% tags=["hide-input"]
shown = [
    ("one convolution, k = 3", depends(convolutions([1]), n)),
    ("three convolutions", depends(convolutions([1, 1, 1]), n)),
    ("three, dilated 1, 3, 9", depends(convolutions([1, 3, 9]), n)),
    ("attention, one layer", depends(attention, n)),
]
fig, axes = plt.subplots(2, 2, figsize=(5.1, 5.6), sharex=True, sharey=True)
for ax, (title, matrix) in zip(axes.flat, shown, strict=True):
    heatmap(ax, matrix.double(), vmin=0, vmax=1)
    ax.set_title(title)
for ax in axes[:, 0]:
    ax.set_ylabel("output $i$")
for ax in axes[1]:
    ax.set_xlabel("input $j$")
show_figure(
    fig,
    name="fig-from-recurrence-fields",
    caption="Which output depends on which input, as autograd finds it. "
    "Bright: the derivative is not zero. Stacking widens the band by $k - 1$ "
    "a layer; dilation multiplies it; attention has the whole past at once.",
    alt="Four maps of outputs by inputs. One convolution: a band of three. "
    "Three convolutions: a band of seven. Three dilated ones: a band of 27. "
    "Attention: the whole lower triangle is bright.",
)

# %% [markdown]
# {numref}`fig-from-recurrence-fields` is a picture of {eq}`eq-from-recurrence-field` and
# {eq}`eq-from-recurrence-dilated`. A recurrence would look like attention there: it does see
# everything. What differs is the number of steps in between, and that is what a gradient feels.
