# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       Twice as long a text costs attention four times as much. Let every word look only at its
#       neighbours, and it costs twice as much. What is lost, what brings it back, and how is it
#       computed so that no table of all pairs ever exists?
#     goals:
#       - count the pairs of a window exactly, and say what time and memory follow
#       - compute it in blocks of queries against three blocks of keys, with a backward pass
#       - say how far layers of windows can see, and where a dilation leaves holes
#       - show that one global token joins all pairs in two steps, and why it has its own weights
#       - measure where a window ends, on a task that needs to see further
#     prerequisites:
#       - scaled dot-product attention and masks (chapter 2), several heads (chapter 3)
#       - sums, and matrices of zeros and ones
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
# # Sliding-window attention

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
import tempfile

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle

from lib.attention import fast_attention, scaled_dot_product_attention
from lib.data import CharacterVocabulary, topics_text
from lib.models.longformer import Longformer, LongformerConfig
from lib.sliding_window import (
    SlidingWindowAttention,
    count_pairs,
    gathered_window_attention,
    sliding_window_attention,
    window_mask,
)
from lib.teaching import (
    MaskPainter,
    Progress,
    catches,
    check,
    glue,
    grade,
    official,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS, heatmap
from lib.teaching.measure import flops, peak_bytes
from lib.teaching.recall import RecallTask, accuracy_by_distance, train_recall
from lib.teaching.recorded import recorded

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# In full attention each of $n$ queries meets each of $n$ keys: $n^2$ pairs. A paragraph can afford
# that. A book, a thousand paragraphs long, would need a million times as many. But much of what a
# word needs stands near it. So let a token look only at its neighbours: at $w/2$ tokens on each
# side, and at itself. $w$, an even number, is the *window*.
#
# Query $i$ meets the keys in its window $W(i)$ and no others. The rest is attention as in chapter
# 2:
#
# $$
# \begin{gathered}
# o_i = \sum_{j \in W(i)} p_{ij}\, v_j, \qquad
# p_{ij} = \frac{\exp s_{ij}}{\sum_{l \in W(i)} \exp s_{il}}, \\
# s_{ij} = \frac{q_i \cdot k_j}{\sqrt{d_k}} .
# \end{gathered}
# $$ (def-sliding-window-attention)
#
# The window may have gaps, a *dilation* $\delta$: of the tokens on each side it takes every
# $\delta$-th, again $w/2$ of them. With $\delta = 1$ there is no gap.
#
# $$
# \begin{aligned}
# W(i) = \Big\{\, 0 \le j < n \;:\; & \lvert i - j \rvert \le \delta\,\tfrac{w}{2} \\
# & \text{and }\ \delta \text{ divides } i - j \,\Big\} .
# \end{aligned}
# $$ (def-sliding-window-window)
#
# Last, a few tokens are *global*. Call their set $G$. A global token meets all, and all meet it:
#
# $$
# W_G(i) = \begin{cases} \{0, \dots, n-1\} & i \in G \\ W(i) \cup G & \text{otherwise.} \end{cases}
# $$ (def-sliding-window-global)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $q_i, k_j$ | $d_k$ | query and key; all of them are $n \times d_k$ |
# | $v_j, o_i$ | $d_v$ | value and output; all of them are $n \times d_v$ |
# | $w$, and $h = w/2$ | numbers | the window, and half of it: the reach to one side |
# | $\delta$ | a number | the dilation, at least 1 |
# | $G$, and $g$ | a set, its size | global tokens |
# | $M$ | $n \times n$ | the mask: $M_{ij}$ is true where query $i$ meets key $j$ |
#
# The mask $M$ says the same in one table, and everything below is held to it: attention with a
# window is attention with this mask. {numref}`fig-sliding-window-masks` draws four of them.

# %% tags=["hide-input"]
n = 16
first = torch.zeros(n, dtype=torch.bool)
first[0] = True
family = {
    "all pairs": torch.ones(n, n, dtype=torch.bool),
    "window, $w = 4$": window_mask(n, 4),
    "the same, $\\delta = 3$": window_mask(n, 4, dilation=3),
    "window and a global token": window_mask(n, 4, global_mask=first),
}
fig, axes = plt.subplots(2, 2, figsize=(5.1, 5.4), sharex=True, sharey=True)
for ax, (title, mask) in zip(axes.flat, family.items(), strict=True):
    heatmap(ax, mask.double(), vmin=0, vmax=1)
    ax.set_title(f"{title}\n{int(mask.sum())} pairs")
for ax in axes[:, 0]:
    ax.set_ylabel("query $i$")
for ax in axes[1]:
    ax.set_xlabel("key $j$")
show_figure(
    fig,
    name="fig-sliding-window-masks",
    caption="Which of 16 queries (rows) meet which of 16 keys (columns), in "
    "yellow. A window is a band along the diagonal. A dilation spreads the "
    "same number of keys. A global token, here the first, adds a row and a "
    "column.",
    alt="Four grids of 16 by 16. All cells filled; a band five cells wide "
    "along the diagonal; five thin parallel diagonals three apart; the band "
    "again with the first row and the first column filled.",
)

# %% [markdown]
# Paint masks of your own. Widen the window and watch the count of pairs against its formula (step 1
# derives it). Add layers, and small grey squares show which pairs are joined by a path, though they
# never meet (step 5). Then make one token global (step 6).

# %%
MaskPainter(
    24, window=8, layers=2, name="painter", label="Which pairs meet in a window"
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# {cite:t}`beltagy2020` (§3.1): given a fixed window size $w$, each token attends to $\frac{1}{2}w$
# tokens on each side, and the complexity of this pattern is $O(n \times w)$. With $\ell$ layers the
# receptive field at the top is $\ell \times w$, and $\ell \times d \times w$ with dilation $d$, our
# $\delta$. Global attention is symmetric, and has linear projections of its own.
# :::
#
# :::{admonition} Our remark
# :class: remark
# “Window of size $w$” invites an error by one. With $w/2$ on each side *and the token itself* a
# query meets $w + 1$ keys. Code in the wild means by the same word $w$ keys, or $w$ on each side,
# or $w$ to the left. The sum over all queries tells them apart, which is one use of step 1.
# :::

# %% [markdown]
# ## Derivation
#
# Seven steps: how many pairs, what they cost, how to compute them in blocks, what comes back in the
# backward pass, how far layers see, what a global token changes, and why it has weights of its own.
#
# ### Step 1. Count the pairs
#
# Take $\delta = 1$ and no global token. Query $i$ meets itself, $\min(i, h)$ keys on its left, and
# $\min(n - 1 - i, h)$ on its right, with $h = w/2$. If no query stood near an end, the left sides
# would hold $nh$ pairs together. The first query lacks $h$ of them, the next $h - 1$, and so on
# down to the one that lacks $1$; these are all there if $n \ge h$:
#
# $$
# \begin{aligned}
# \sum_{i=0}^{n-1} \min(i, h) &= nh - (h + (h-1) + \dots + 1) \\
# &= nh - \frac{h(h+1)}{2} .
# \end{aligned}
# $$ (eq-sliding-window-left)
#
# The right sides are the mirror image. Add both to the $n$ pairs of a token with itself, and write
# $w$ for $2h$:
#
# $$
# \begin{aligned}
# \lvert M \rvert &= n + 2\Big(nh - \frac{h(h+1)}{2}\Big) \\
# &= n\,(w + 1) - \frac{w}{2}\Big(\frac{w}{2} + 1\Big), \qquad n \ge \frac{w}{2} .
# \end{aligned}
# $$ (eq-sliding-window-pairs)
#
# The second term does not grow with $n$: to leave it out is to count $w + 1$ keys for each query,
# also at the ends where they aren't there. A dilation $\delta$ lets token $i$ meet only tokens with
# the same remainder modulo $\delta$. So it deals the sequence out into $\delta$ shorter ones, like
# cards, each with a window of its own; number $r$ has $n_r = \lceil (n - r)/\delta \rceil$ tokens:
#
# $$
# \lvert M_\delta(n) \rvert = \sum_{r=0}^{\delta - 1} \lvert M_1(n_r) \rvert .
# $$ (eq-sliding-window-dealt)
#
# And $g$ global tokens add at most a row and a column each, $2n$ pairs:
#
# $$
# \lvert M_G \rvert \;\le\; n\,(w + 1 + 2g) .
# $$ (eq-sliding-window-linear)
#
# For fixed $w$ and $g$ this is proportional to $n$. That is the whole idea.


# %%
def formula(n, w):
    return n * (w + 1) - (w // 2) * (w // 2 + 1)


for n, w in [(8, 4), (64, 8), (100, 64), (5, 10)]:
    h = w // 2
    left = sum(min(i, h) for i in range(n))
    check("eq-sliding-window-left", left, n * h - h * (h + 1) // 2)
    check(
        "eq-sliding-window-pairs", int(window_mask(n, w).sum()), formula(n, w)
    )

for n, w, dilation in [(64, 8, 3), (17, 4, 5), (30, 2, 7)]:
    dealt = [len(range(r, n, dilation)) for r in range(dilation)]
    mask = window_mask(n, w, dilation=dilation)
    parts = [int(window_mask(n_r, w).sum()) for n_r in dealt]
    check("eq-sliding-window-dealt", int(mask.sum()), sum(parts))

n, w = 64, 8
generator = torch.Generator().manual_seed(0)
for g in (1, 3, 10):
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.randperm(n, generator=generator)[:g]] = True
    pairs = int(window_mask(n, w, global_mask=chosen).sum())
    check("eq-sliding-window-linear", pairs <= n * (w + 1 + 2 * g))

ours = formula(n, w)
half_open = [range(max(0, i - w // 2), min(n, i + w // 2)) for i in range(n)]
folklore = sum(len(keys) for keys in half_open)
print(f"n = {n}, w = {w}: {ours} pairs of {n * n}")
print(f"with w keys in place of w + 1 there would be {folklore}")
glue("window-pairs", ours)
glue("window-pairs-folklore", folklore)
glue("window-share", ours / n**2)

# %% [markdown]
# With $n = 64$ and $w = 8$ there are {glue:text}`window-pairs:.0f` pairs,
# {glue:text}`window-share:.0%` of all. A loop over `range(i - w//2, i + w//2)`, which forgets that
# Python's ranges leave out their end, finds {glue:text}`window-pairs-folklore:.0f`: one key a query
# is gone, always the last one on the right.
#
# **Without the hypothesis.** If $n < w/2$ then no query lacks as many keys as the sum assumes.
# Every token meets every other, and the count is $n^2$; the formula goes wrong without a warning,
# and may be negative:

# %%
for n, w in [(3, 8), (10, 40)]:
    true, claimed = int(window_mask(n, w).sum()), formula(n, w)
    print(
        f"n = {n:2}, w = {w:2}: {true:3} pairs, and the formula says {claimed}"
    )
    check("n below w/2: all pairs meet", true, n * n)
    check("there the formula is wrong", claimed != true)
    check("the library's count knows", count_pairs(n, w), true)

# %% [markdown]
# ### Step 2. What the pairs cost
#
# A score is a product of two vectors of length $d_k$, that is $2 d_k$ operations if a
# multiplication and an addition count as two. Its weight then multiplies a vector of length $d_v$,
# $2 d_v$ more. So if nothing is computed in vain,
#
# $$
# \begin{gathered}
# \text{operations} = 2\,(d_k + d_v)\,\lvert M \rvert, \\
# \frac{\text{full}}{\text{window}} = \frac{n^2}{\lvert M \rvert} \approx \frac{n}{w + 1} .
# \end{gathered}
# $$ (eq-sliding-window-operations)
#
# At $n = 32{,}768$ and $w = 512$, as in the official model, that is a factor of about 64. The
# weights $p_{ij}$, if they are kept, take $\lvert M \rvert$ numbers where full attention keeps
# $n^2$.
#
# Here one has to be careful, and most summaries are not. Full attention *need not keep* its
# weights. A fused kernel goes through the keys in pieces, with a running sum, and its memory is
# $O(n)$ without any window {cite}`rabe2021,dao2022`. What is left as quadratic then is the *time*.
# The memory argument for windows was made in 2020 against the code of its day. Let us measure both:

# %% tags=["nbval-ignore-output"]
w, shape = 32, (1, 2, 16)  # B, heads, features
print(f"{'n':>6}{'weights kept':>16}{'fused':>16}{'window':>16}")
peaks = {}
for n in (512, 1024, 2048):
    x = torch.randn(*shape[:2], n, shape[2])
    with torch.no_grad():
        peaks[n] = [
            peak_bytes(scaled_dot_product_attention, x, x, x),
            peak_bytes(fast_attention, x, x, x),
            peak_bytes(sliding_window_attention, x, x, x, w),
        ]
    shown = (f"{peak / 2**20:12.2f} MiB" for peak in peaks[n])
    print(f"{n:6}" + "".join(shown))
growth = [b / a for a, b in zip(peaks[1024], peaks[2048], strict=True)]
check("kept weights: twice the length, four times the memory", growth[0] > 3.5)
check("fused: memory grows no faster than the length", growth[1] < 2.2)
check("window: neither does it", growth[2] < 2.2)

# %%
w, d_k, d_v = 32, 16, 5


def one_by_one(q, k, v):
    """Each query with the keys of its window, and nothing else."""
    for i, meets in enumerate(window_mask(len(q), w)):
        scaled_dot_product_attention(q[i : i + 1], k[meets], v[meets])


for n in (64, 256):
    q, k, v = (torch.zeros(n, size) for size in (d_k, d_k, d_v))
    least = flops(one_by_one, q, k, v)
    wanted = 2 * (d_k + d_v) * count_pairs(n, w)
    check("eq-sliding-window-operations", least, wanted)
    full = flops(scaled_dot_product_attention, q, k, v)
    check("over all pairs it is n²", full, 2 * (d_k + d_v) * n * n)
    ratio, roughly = full / least, n / (w + 1)
    print(f"n = {n:3}: n²/|M| = {ratio:4.2f}, n/(w + 1) = {roughly:4.2f}")

# %% [markdown]
# ### Step 3. Blocks: three neighbours for each
#
# How does one compute $\lvert M \rvert$ scores and no more, on machines that like large matrix
# products? Three ways:
#
# 1. **Mask.** Compute all $n^2$ scores and throw most away. Right, and nothing is saved.
# 2. **Gather.** Give every query a copy of its $w + 1$ keys. Nothing is computed in vain, but each
#    key is copied $w + 1$ times: $n (w + 1)\, d_k$ numbers are moved to do as many multiplications.
# 3. **Blocks.** Let $b$ neighbouring queries share the keys that they need together.
#
# Block $c$ holds the queries $cb, \dots, cb + b - 1$. The first of them reaches $h$ to the left,
# the last one $h$ to the right, so together they need the keys
#
# $$
# \begin{aligned}
# K_c &= \bigcup_{i = cb}^{cb + b - 1} W(i) \\
# &= \{\, cb - h, \;\dots,\; cb + b - 1 + h \,\} \\
# &\quad {} \cap \{0, \dots, n - 1\} .
# \end{aligned}
# $$ (eq-sliding-window-block)
#
# These are $b + 2h$ keys. Choose $b = h$, and they are exactly **three blocks** of $h$ keys: the
# block's own, its left and its right neighbour. Two would not do, as the window has two sides. Of
# the $b\,(b + 2h)$ scores of a block, $b\,(w + 1)$ lie in the band. The share that is used is
#
# $$
# \frac{w + 1}{b + w} \;=\; \frac{w + 1}{\tfrac32 w} > \frac23 \quad \text{for } b = \frac{w}{2} .
# $$ (eq-sliding-window-used)
#
# Smaller blocks waste less and are more in number; larger ones waste more. (The official code cuts
# queries and keys alike into pieces of $w$ that overlap by half, and uses about one half: each
# piece is $w \times w$, there is one for every $w/2$ tokens, so it computes $2nw$ scores.)
#
# The three blocks need not be copied either. Neighbours in memory, they are a *view*: three blocks
# from the start, then three from one block later, and so on ({numref}`fig-sliding-window-blocks`).

# %% tags=["hide-input"]
n, w = 24, 8
b = w // 2
fig, ax = plt.subplots(figsize=(4.4, 4.4))
heatmap(ax, window_mask(n, w).double(), vmin=0, vmax=1)
for c in range(n // b):
    left, right = max(0, c * b - b), min(n, c * b + 2 * b)
    ax.add_patch(
        Rectangle(
            (left - 0.5, c * b - 0.5),
            right - left,
            b,
            fill=False,
            edgecolor=COLORS["key"],
            linewidth=2,
        )
    )
ax.set(xlabel="key $j$", ylabel="query $i$")
show_figure(
    fig,
    name="fig-sliding-window-blocks",
    caption="The band of $w = 8$ on 24 tokens, and what is computed: each "
    "frame is a block of $w/2$ queries against three blocks of keys. Inside a "
    "frame the band is a parallelogram, and the dark corners are waste.",
    alt="A band along the diagonal of a 24 by 24 grid, covered by six frames "
    "four rows high and up to twelve columns wide, each shifted by four "
    "columns; the two corners of each frame lie outside the band.",
)

# %%
for n, w in [(24, 8), (35, 10)]:
    h = b = w // 2
    mask = window_mask(n, w)
    computed, claimed = torch.zeros(2, n, n, dtype=torch.bool)
    for c in range(n // b):
        rows = slice(c * b, (c + 1) * b)
        computed[rows] = mask[rows].any(0)  # the union of the windows
        claimed[rows, max(0, c * b - h) : c * b + b + h] = True
    check("eq-sliding-window-block", computed, claimed)
    check("no pair is left out", bool((mask <= computed).all()))

w, b = 64, 32
middle = window_mask(10 * b, w)[4 * b : 5 * b]  # a block far from both ends
share = int(middle.sum()) / (b * 3 * b)
check("eq-sliding-window-used", share, (w + 1) / (b + w))
check("more than two thirds are used", share > 2 / 3)

x = torch.arange(24.0)
three = x.unfold(0, 12, 4)  # from 0, from 4, … twelve numbers each
print(three.int())
check("the blocks overlap in memory: a view", three.data_ptr(), x.data_ptr())

# %% [markdown]
# ### Step 4. Nothing of size $n \times n$, backward either
#
# A forward pass in $O(nw)$ is worth little if its gradient needs $n^2$. It does not. Let $\bar o_i$
# be the gradient of the loss with respect to $o_i$. Value $j$ is used by those queries whose window
# holds $j$, so
#
# $$
# \bar v_j = \sum_{i \,:\, j \in W(i)} p_{ij}\, \bar o_i .
# $$ (eq-sliding-window-value-gradient)
#
# Through the softmax of row $i$ (chapter 2 derives its Jacobian) a score gets
#
# $$
# \bar s_{ij} = \begin{cases}
# p_{ij} \Big( \bar o_i \cdot v_j - \sum_{l \in W(i)} p_{il}\; \bar o_i \cdot v_l \Big)
# & j \in W(i) \\
# 0 & \text{otherwise,}
# \end{cases}
# $$ (eq-sliding-window-score-gradient)
#
# and from there queries and keys get theirs:
#
# $$
# \bar q_i = \frac{1}{\sqrt{d_k}} \sum_{j \in W(i)} \bar s_{ij}\, k_j, \qquad
# \bar k_j = \frac{1}{\sqrt{d_k}} \sum_{i \,:\, j \in W(i)} \bar s_{ij}\, q_i .
# $$ (eq-sliding-window-key-gradient)
#
# Every sum runs over pairs that meet, and over no other. Moreover $j \in W(i)$ if and only if $i
# \in W(j)$: the band is symmetric, its transpose is the same band, and the sums over $i$ have the
# same $w + 1$ terms as those over $j$. So the backward pass can use the same blocks.

# %%
n, w, d = 23, 6, 5
generator = torch.Generator().manual_seed(1)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


q, k, v, upstream = (randn(n, d).requires_grad_() for _ in range(4))
sliding_window_attention(q, k, v, w).backward(upstream.detach())

mask = window_mask(n, w)
scores = (q @ k.T / math.sqrt(d)).detach().requires_grad_()
P = scores.masked_fill(~mask, -math.inf).softmax(-1)
(P @ v.detach()).backward(upstream.detach())
with torch.no_grad():
    toward = upstream @ v.T  # (n, n): upstream of i · value of j
    S_bar = P * (toward - (P * toward).sum(-1, keepdim=True))
    check("eq-sliding-window-value-gradient", v.grad, P.T @ upstream)
    check("eq-sliding-window-score-gradient", scores.grad, S_bar)
    check("eq-sliding-window-key-gradient", k.grad, S_bar.T @ q / math.sqrt(d))
    check("the query's gradient likewise", q.grad, S_bar @ k / math.sqrt(d))
check("the band is its own transpose", mask, mask.T)

# %% [markdown]
# Is there really no buffer of $n \times n$? The allocator knows. We compare one table of $n \times
# n$ floats with the peak of forward and backward together, for one head of 16 features:

# %% tags=["nbval-ignore-output"]
n, w, d = 4096, 32, 16
inputs = [torch.randn(n, d, requires_grad=True) for _ in range(3)]


def both():
    sliding_window_attention(*inputs, w).sum().backward()
    for x in inputs:
        x.grad = None


table, peak = 4 * n * n, peak_bytes(both)
print(f"one n × n table: {table / 2**20:.0f} MiB; peak: {peak / 2**20:.2f} MiB")
check("the peak is a small part of one table", peak < table / 8)

# %% [markdown]
# ### Step 5. How far layers see
#
# One layer sees $h$ to each side. But what it sees are vectors that have themselves looked around.
# Let $R_L(i)$ be the set of inputs on which output $i$ of $L$ layers can depend. One layer up,
# token $i$ depends on whatever the tokens of its window depend on:
#
# $$
# R_{L+1}(i) = \bigcup_{j \in W(i)} R_L(j), \qquad R_0(i) = \{i\} .
# $$ (eq-sliding-window-union)
#
# Each layer adds $h$ on both sides. If $R_L(j)$ are all inputs within $Lh$ of $j$, then the union
# over all $j$ within $h$ of $i$ are all inputs within $(L+1)h$ of $i$: from step to step,
#
# $$
# R_L(i) = \{\, j : \lvert i - j \rvert \le L\,\tfrac{w}{2} \,\} .
# $$ (eq-sliding-window-receptive)
#
# That is $Lw + 1$ inputs, away from the ends; the paper's $\ell \times w$ is this width. Token $0$
# sees token $n - 1$ when $L h \ge n - 1$, and $L$ is whole, so to span the sequence takes
#
# $$
# L \;\ge\; \Big\lceil \frac{n - 1}{w/2} \Big\rceil \ \text{ layers.}
# $$ (eq-sliding-window-layers)
#
# In terms of masks: $M^L$, as a product of matrices, counts the paths of $L$ steps, so $R_L(i)$ is
# where row $i$ of $M^L$ is not zero. We check against what a real stack of layers does: the
# gradient of one output with respect to all inputs is exactly zero outside $R_L$.


# %%
def joined(*masks, n):
    """Boolean (n, n): is there a path, one step in each layer's mask?"""
    reach = torch.eye(n, dtype=torch.bool)
    for mask in masks:
        reach = (mask.double() @ reach.double()) > 0
    return reach


def depends(attend, layers, i, n=64, d=8):
    """The inputs on which output i depends, through layers with residuals."""
    x0 = x = randn(n, d).requires_grad_()
    for _ in range(layers):
        x = x + attend(x)
    (grad,) = torch.autograd.grad(x[i].square().sum(), x0)
    return (grad.abs().sum(-1) > 0).nonzero().squeeze(1).tolist()


n, w, i = 64, 8, 30


def windowed(x):
    return sliding_window_attention(x, x, x, w)


for L in range(1, 5):
    M = window_mask(n, w)
    within = [j for j in range(n) if abs(i - j) <= L * w // 2]
    union = joined(*[M] * (L - 1), n=n)[M[i]].any(0)  # over its window
    check("eq-sliding-window-union", joined(*[M] * L, n=n)[i], union)
    check("eq-sliding-window-receptive", depends(windowed, L, i), within)

for n, w in [(64, 8), (50, 6), (9, 2), (2, 100)]:
    M = window_mask(n, w)
    least = next(L for L in range(1, n) if joined(*[M] * L, n=n).all())
    check("eq-sliding-window-layers", least, math.ceil((n - 1) / (w / 2)))
least = math.ceil(63 / 4)
glue("window-layers", least)
print(f"n = 64, w = 8: {least} layers until the ends see each other")

# %% [markdown]
# Sixty-four tokens and a window of eight: {glue:text}`window-layers:.0f` layers. A network of
# twelve layers with $w = 512$, as the official base model has, sees $12 \cdot 256 = 3072$ tokens to
# each side at the top. That information *can* travel so far says nothing about whether it does;
# each layer has to hand it on, and the recall task below shows that a trained model can.
#
# **Dilation reaches further, and leaves holes.** With $\delta > 1$ the reach is $\delta h$ a layer,
# at the same cost. But a step never leaves its class of remainders, and nor do any number of steps:
#
# $$
# \begin{gathered}
# j \in R_L(i) \;\Longrightarrow\; j \equiv i \pmod{\delta} \\
# \text{if all layers have dilation } \delta .
# \end{gathered}
# $$ (eq-sliding-window-residue)
#
# Such a network is $\delta$ networks side by side that never exchange a word. So dilations are
# mixed: a layer (or some heads) without gaps beside one with. Undilated steps reach the offsets
# $-h, \dots, h$, dilated ones $-\delta h, \dots, -\delta, 0, \delta, \dots, \delta h$. In two
# layers the offsets add. Around each multiple of $\delta$ lies an interval of $2h + 1 = w + 1$
# offsets, and there is no gap between them exactly if
#
# $$
# \begin{gathered}
# \delta \le w + 1, \\
# \text{and then } R_2(i) = \big\{\, j : \lvert i - j \rvert
# \le (1 + \delta)\tfrac{w}{2} \,\big\} .
# \end{gathered}
# $$ (eq-sliding-window-cover)

# %%
n, w, i = 160, 4, 80
for dilation in (2, 3):
    M, remainders = window_mask(n, w, dilation=dilation), set()
    for L in (1, 2, 5, 40):
        where = joined(*[M] * L, n=n)[i].nonzero().squeeze(1)
        remainders |= {(j - i) % dilation for j in where.tolist()}
    check("eq-sliding-window-residue", list(remainders), [0])
    count = f"{len(where)} of {n}"
    print(f"δ = {dilation}: after 40 layers token {i} is joined to {count}")

complete = []
for dilation in range(1, 9):
    gaps = window_mask(n, w, dilation=dilation)
    both_layers = joined(window_mask(n, w), gaps, n=n)
    reach = (1 + dilation) * w // 2
    wanted = (torch.arange(n) - i).abs() <= reach
    if torch.equal(both_layers[i], wanted):
        complete.append(dilation)
    holes = int((wanted & ~both_layers[i]).sum())
    print(f"δ = 1, then δ = {dilation}: reach {reach:2}, {holes} holes")
check("eq-sliding-window-cover", complete, [*range(1, w + 2)])

# %% tags=["hide-input"]
n, w, i = 49, 4, 24
plain, gaps = window_mask(n, w), window_mask(n, w, dilation=3)
stacks = {
    "$\\delta = 1, 1, 1$": [plain] * 3,
    "$\\delta = 3, 3, 3$": [gaps] * 3,
    "$\\delta = 1, 3, 3$": [plain, gaps, gaps],
}
fig, axes = plt.subplots(3, 1, figsize=(5.0, 4.1), sharex=True)
for ax, (title, masks) in zip(axes, stacks.items(), strict=True):
    levels = [joined(*masks[3 - L :], n=n)[i] for L in range(4)]
    for L, seen in enumerate(levels):
        j = seen.nonzero().squeeze(1)
        ax.plot(j - i, [3 - L] * len(j), "s", color=COLORS["key"], markersize=5)
        j = (~seen).nonzero().squeeze(1)
        ax.plot(j - i, [3 - L] * len(j), ".", color=COLORS["reference"], ms=2)
    ax.set_title(f"{title}: {int(levels[3].sum())} inputs seen")
    ax.set(yticks=[0, 3], yticklabels=["input", "output"], ylim=(-0.6, 3.6))
axes[-1].set_xlabel("offset from the token")
show_figure(
    fig,
    name="fig-sliding-window-receptive",
    caption="What one output depends on, layer by layer downwards, for "
    "$w = 4$. Plain windows widen by two a side and layer. With gaps in every "
    "layer two of three inputs are never seen. With gaps in all but the "
    "lowest layer nothing is left out.",
    alt="Three cones of squares widening from one output at the top to the "
    "inputs below. The first is narrow and full, the second wide with two of "
    "three places empty, the third is wide and full at the bottom.",
)

# %% [markdown]
# {numref}`fig-sliding-window-receptive` shows the three cases. The paper used dilation where it
# trained language models from scratch, on some heads and in higher layers only; its pre-trained
# encoder has none {cite}`beltagy2020` (§4.1, §5).
#
# ### Step 6. A global token joins all in two steps
#
# Let $\gamma$ be one global token. Every query meets $\gamma$, and $\gamma$ meets every key. So
# from any token $i$ there is a path to any token $j$:
#
# $$
# \begin{gathered}
# i \to \gamma \to j, \\
# \text{hence } M_G^2 \text{ has no zero, as soon as } G \ne \varnothing .
# \end{gathered}
# $$ (eq-sliding-window-two-steps)
#
# In layer one, $\gamma$ reads $j$ (its row); in layer two, $i$ reads $\gamma$ (its column). Two
# layers in place of $\lceil (n-1)/h \rceil$, for $2n$ pairs more. Both halves are needed:
#
# - **without the column** nobody reads what $\gamma$ has gathered: $\gamma$ sees all, and all
#   others see their windows;
# - **without the row** all read $\gamma$, but it knows its own window only.
#
# That is what the paper calls symmetric. What flows through $\gamma$ has to fit into one vector of
# $d_{\text{model}}$ numbers, for all tokens together: a path of length two exists, but it is one
# narrow door.

# %%
n, w, token = 64, 8, 20
is_global = torch.zeros(n, dtype=torch.bool)
is_global[token] = True
band = window_mask(n, w)
row, column = is_global[:, None], is_global[None, :]
symmetric = window_mask(n, w, global_mask=is_global)
check("a row and a column", symmetric, band | row | column)
twice = joined(symmetric, symmetric, n=n)
check("eq-sliding-window-two-steps", bool(twice.all()))
for name, mask in {
    "symmetric": symmetric,
    "row only": band | row,
    "column only": band | column,
    "window only": band,
}.items():
    pairs = int(joined(mask, mask, n=n).sum())
    print(f"{name:12} joined in two layers: {pairs:4} of {n * n}")
    if name != "symmetric":
        check(f"{name}: two layers do not join all", pairs < n * n / 2)

# %% [markdown]
# ### Step 7. Why global tokens have weights of their own
#
# A token is $x_i$, its query $q_i = W_Q^\top x_i$, and so on. Let one token be global and compare
# two keys $j$ and $l$ that lie in its window. In the ratio of their weights the denominator, over
# however many keys, cancels:
#
# $$
# \begin{gathered}
# \frac{p_{ij}}{p_{il}} = \exp(s_{ij} - s_{il}) \\
# \text{for } j, l \in W(i),
# \text{ whether } i \text{ is global or not.}
# \end{gathered}
# $$ (eq-sliding-window-ratio)
#
# With the same projections, then, to be global means to look at *more*, and at the near ones just
# as before. One and the same $W_Q^\top W_K$ has to say what matters among a handful of neighbours,
# for every token, and what matters in the whole document, for the one token that must answer a
# question about it. The paper therefore gives global tokens three matrices of their own:
#
# $$
# \begin{aligned}
# i \in G &: & o_i &= \operatorname{attend}\big(W_Q^{g\top} x_i,\; W_K^{g\top} x_j,\;
# W_V^{g\top} x_j\big), \\
# && & \hphantom{{}={}} \text{over all } j \\
# i \notin G &: & o_i &= \operatorname{attend}\big(W_Q^\top x_i,\; W_K^\top x_j,\;
# W_V^\top x_j\big), \\
# && & \hphantom{{}={}} \text{over } j \in W(i) \cup G
# \end{aligned}
# $$ (eq-sliding-window-projections)
#
# Whose matrices are used is decided by who *asks*. When a common token asks a global one, the key
# is $W_K^\top x_j$, not $W_K^{g\top} x_j$. So the cost is a second set of keys and values, for all
# $n$ tokens, and $3 d^2$ parameters a layer. The new matrices begin as copies of the old ones, so
# that a checkpoint without them starts from what it could already do.

# %%
n, w, d, token = 19, 4, 12, 9
torch.manual_seed(0)
attention = SlidingWindowAttention(d, 1, w).double().eval()
x = randn(1, n, d)
kinds = torch.ones(1, n, dtype=torch.long)  # 1: a token with a window
kinds[0, token] = 2  # 2: a global one
with torch.no_grad():
    q, k = (
        p(x)[0] for p in (attention.query_projection, attention.key_projection)
    )
    s = q @ k.T / math.sqrt(d)
    for mask in (
        window_mask(n, w),
        window_mask(n, w, global_mask=kinds[0] == 2),
    ):
        p = s.masked_fill(~mask, -math.inf).softmax(-1)[token]
        near = slice(token - w // 2, token + w // 2 + 1)
        ratio = p[near] / p[token]
        want = (s[token, near] - s[token, token]).exp()
        check("eq-sliding-window-ratio", ratio, want)


def by_definition(attention, x, is_global):
    """The two cases of the equation, one query at a time; one head."""
    rows = []
    for i in range(x.shape[0]):
        kind = "global_" if is_global[i] else ""
        Q, K, V = (
            getattr(attention, f"{kind}{name}_projection")
            for name in ("query", "key", "value")
        )
        meets = window_mask(len(x), w, global_mask=is_global)[i]
        p = (K(x[meets]) @ Q(x[i]) / math.sqrt(d)).softmax(0)
        rows.append(p @ V(x[meets]))
    return attention.output_projection(torch.stack(rows))


with torch.no_grad():
    as_copies = attention(x, kinds)
    shared = by_definition(attention, x[0], kinds[0] == 2)
    check("at first the global matrices are copies", as_copies[0], shared)
    for p in attention.parameters():
        p.copy_(0.5 * randn(*p.shape))  # now all matrices differ
    own = by_definition(attention, x[0], kinds[0] == 2)
    check("eq-sliding-window-projections", attention(x, kinds)[0], own)
    moved = (attention(x, kinds) - attention(x, (kinds > 0).long()))[0]
    changed = (moved.abs().amax(-1) > 1e-6).nonzero().squeeze(1).tolist()
# its neighbours met it before, and by the same key: nothing changes for them
far = [j for j in range(n) if j == token or abs(j - token) > w // 2]
check("a global token changes all outputs but its neighbours'", changed, far)

# %% [markdown]
# ## From scratch
#
# Six tokens, one feature each, and a window of two: one neighbour on each side. All numbers fit on
# a napkin, and no tensor is needed.


# %%
def by_hand(q, k, v, w):
    """Sliding-window attention in plain Python; one feature, so √d = 1."""
    n, h, outputs = len(q), w // 2, []
    for i in range(n):
        window = range(max(0, i - h), min(n, i + h + 1))  # ends included
        e = [math.exp(q[i] * k[j]) for j in window]
        p = [x / sum(e) for x in e]
        outputs.append(sum(x * v[j] for x, j in zip(p, window, strict=True)))
        shown = ["   .  "] * n
        for x, j in zip(p, window, strict=True):
            shown[j] = f" {x:.3f}"
        print(f"query {i}: " + "".join(shown) + f"   output {outputs[-1]:6.2f}")
    return outputs


q6 = [1.0, 0.0, 1.0, 1.0, -1.0, 2.0]
k6 = [0.0, 1.0, 0.0, 2.0, 1.0, 0.0]
v6 = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
outputs = by_hand(q6, k6, v6, w=2)

# %% [markdown]
# The first and the last query have two keys, the others three: $6 \cdot 3 - 1 \cdot 2 = 16$ pairs.
# Query 1 is zero, so its three scores are equal and its output is the mean of 10, 20 and 30. Query
# 3 has the scores 0, 2 and 1, so its weights stand as $1 : e^2 : e$.
#
# Now the blocks of step 3, with tensors. Pad the keys by $h$ at the front, and at the end up to
# whole blocks and $h$ more; take the overlapping view; and let the mask say which keys are in the
# window *and exist*.


# %%
def in_blocks(q, k, v, w):
    """Blocks of w/2 queries against three blocks of keys; (n, d) each."""
    n, h = len(q), w // 2
    count = math.ceil(n / h)
    rest = count * h - n  # the last block is filled up
    keys, values = (
        F.pad(x, (0, 0, h, rest + h)).unfold(0, 3 * h, h).mT for x in (k, v)
    )  # (count, 3h, d), views of the padded tensors
    queries = F.pad(q, (0, 0, 0, rest)).unflatten(0, (count, h))
    first = h * torch.arange(count)[:, None]
    key_place = first - h + torch.arange(3 * h)  # (count, 3h)
    query_place = first + torch.arange(h)  # (count, h)
    exists = (key_place >= 0) & (key_place < n)
    near = (key_place[:, None] - query_place[:, :, None]).abs() <= h
    scores = queries @ keys.mT / math.sqrt(q.shape[-1])  # (count, h, 3h)
    scores = scores.masked_fill(~(near & exists[:, None]), -math.inf)
    return (scores.softmax(-1) @ values).flatten(0, 1)[:n]


six = [torch.tensor(x, dtype=double)[:, None] for x in (q6, k6, v6)]
check("by hand = blocks", in_blocks(*six, 2)[:, 0], outputs)
check("by hand = the library", sliding_window_attention(*six, 2)[:, 0], outputs)
worst = 0.0
for n, w in [(1, 2), (7, 2), (24, 8), (29, 8), (5, 40), (64, 8)]:
    q, k, v = (randn(n, 3) for _ in range(3))
    want = scaled_dot_product_attention(q, k, v, window_mask(n, w))
    worst = max(worst, (in_blocks(q, k, v, w) - want).abs().max().item())
check("blocks = dense attention with the band as mask", worst, 0.0)

# %% [markdown]
# ## The library function
#
# The library's core is the same dozen lines, with leading dimensions, padding and global tokens.
#
# ```{lib-source} lib.sliding_window._undilated
# ```
#
# `near` says which keys exist and are not padding; `far_key` holds the keys of global tokens, which
# stand in front of the three blocks in every block. `fast_attention` is a fused kernel, so not even
# the scores of one block need be kept. Where every key is real, all blocks have the same mask, and
# `_undilated_and_unmasked` beside it pads and copies nothing. It goes piece by piece, and computes
# each piece again in the backward pass. Around it, `sliding_window_attention`
# deals a dilated sequence out {eq}`eq-sliding-window-dealt`, and computes the rows of global tokens
# apart, since these meet all keys. `gathered_window_attention` is the second way of step 3, there to be read.
#
# Two decisions deserve a word. **An odd window is refused**: it has no half, and codes disagree on
# which side gets more. And **a global token that lies in a window is taken out of it** before it is
# put in front: it must not be counted twice.

# %%
try:
    window_mask(8, 5)
except ValueError as error:
    message = str(error)
print(message)
check("an odd window is refused", "even" in message and "5" in message)

# %% [markdown]
# Equality is cheap to test and easy to lose at the edges. So: lengths below the window, no multiple
# of a block, and one token; windows wider than the text; dilations; global tokens at random;
# padding; and global tokens that are padding.

# %%
generator = torch.Generator().manual_seed(2)
functions = {
    "blocks": sliding_window_attention,
    "gathered": gathered_window_attention,
}
worst, cases = dict.fromkeys(functions, 0.0), 0
for n in (1, 5, 16, 33, 67):
    q, k, v = (randn(2, 3, n, 4) for _ in range(3))  # B, heads, n, d
    for w in (2, 8, 40):
        for dilation in (1, 3):
            for share, kept in [(0, 1), (0.2, 1), (0, 0.7), (0.2, 0.7)]:
                coin = torch.rand(2, 2, n, generator=generator)
                is_global, real = coin[0] < share, coin[1] < kept
                options = {"dilation": dilation}
                mask = window_mask(n, w, **options, global_mask=is_global)
                mask = (mask & real[:, None])[:, None]  # one for all heads
                want = scaled_dot_product_attention(q, k, v, mask)
                options |= {"global_mask": is_global, "key_mask": real}
                for name, attend in functions.items():
                    got = attend(q, k, v, w, **options)
                    error = (got - want).abs().max().item()
                    worst[name] = max(worst[name], error)
                cases += 1
glue("window-cases", cases)
glue("window-worst", max(worst.values()))
for name, error in worst.items():
    check(f"{name} = dense with the mask, {cases} cases", error, 0.0)

# %% [markdown]
# In {glue:text}`window-cases:.0f` cases the largest difference is {glue:text}`window-worst:.0e`:
# the last digit of double precision.
#
# ### The model: Longformer
#
# A layer of Longformer is an encoder layer (chapter 6) with another attention. What else is
# particular lies in the embeddings: it grew out of RoBERTa, and like that counts positions from the
# padding id on. The padding token has id 1, so the first token stands at place 2, and padding has a
# place of its own. Padding in front therefore moves nobody:

# %%
torch.manual_seed(0)
config = LongformerConfig(
    50, d_model=12, num_layers=2, num_heads=3, d_ff=24, max_length=40, window=4
)
model = Longformer(config).double().eval()
ids = torch.randint(2, 50, (1, 11), generator=torch.Generator().manual_seed(3))
padded = F.pad(ids, (3, 0), value=config.pad_token_id)
with torch.no_grad():
    alone = model(ids)
    behind = model(padded, attention_mask=padded != config.pad_token_id)
    table = model.embeddings
    bare = (
        table.word(ids[:, 0]) + table.position.weight[2] + table.segment.weight
    )
    check("the first place is 2", table(ids)[:, 0], table.norm(bare))
check("padding in front moves nobody", behind[:, 3:], alone)
check("the longest text is shorter than the table", config.longest, 40 - 2)

# %% [markdown]
# Is it Longformer? The official implementation is in `transformers`. We make a tiny model there,
# with random weights in every matrix, bias and norm (default weights hide mistakes: a bias of zero
# can be forgotten), save it the official way, load it into ours, and compare logits, with padding
# and with global tokens. A length of 21 is no multiple of the windows: the official code pads it to
# one and cuts the result, ours does not.

# %%
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.manual_seed(0)
reference = transformers.LongformerForMaskedLM(
    transformers.LongformerConfig(
        vocab_size=50,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=24,
        max_position_embeddings=40,
        attention_window=[4, 8],
        type_vocab_size=1,
        pad_token_id=1,
        layer_norm_eps=1e-5,
    )
).eval()
with torch.no_grad():
    for p in reference.parameters():
        p.copy_(torch.randn_like(p) * (0.3 if p.ndim == 2 else 0.2) + (p == 1))
ids = torch.randint(2, 50, (2, 21), generator=torch.Generator().manual_seed(4))
attention_mask = torch.ones_like(ids)
attention_mask[1, 15:], ids[1, 15:] = 0, 1
where = torch.zeros_like(ids)
where[:, 0], where[0, 9] = 1, 1
masks = {"attention_mask": attention_mask, "global_attention_mask": where}
errors = {}
for dtype in (torch.float32, torch.float64):
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        reference.to(dtype).save_pretrained(folder)
        ours = Longformer.from_pretrained(folder)
        logits = reference(ids, **masks).logits
        error = (ours(ids, **masks) - logits).abs().max() / logits.abs().max()
        errors[dtype] = error.item()
glue("window-parity-32", errors[torch.float32])
glue("window-parity-64", errors[torch.float64])
check("logits of the official model", errors[torch.float32], 0.0, atol=1e-5)
check("in float64, but for its softmax", errors[torch.float64], 0.0, atol=1e-6)

# %% [markdown]
# Relative to the largest logit, the difference is {glue:text}`window-parity-32:.0e` in single
# precision and {glue:text}`window-parity-64:.0e` in double. The last would be smaller by seven
# digits, had the reference not a `softmax(…, dtype=torch.float32)` inside, whatever the model's
# precision; the library's tests take that cast away, and then the two agree to the last digits.
#
# On Colab the next cell loads the official weights, and asks for a word that stands a thousand
# words away. Its `<mask>` is made global.

# %% tags=["nbval-ignore-output"]
name = "allenai/longformer-base-4096"
longformer = official(Longformer.from_pretrained, name)
if longformer is not None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    text = "The ship is called Aurora. " + "It rained all day. " * 250
    ids = tokenizer(
        text + "The name of the ship is <mask>.", return_tensors="pt"
    )
    ids = ids["input_ids"]
    asked = ids == tokenizer.mask_token_id
    with torch.no_grad():
        logits = longformer.eval()(ids, global_attention_mask=asked)[asked][0]
    best = tokenizer.batch_decode(logits.topk(5).indices[:, None])
    print(ids.shape[1], "tokens:", best)

# %% [markdown]
# ## On real data: where a window ends
#
# ### A task that needs to see further
#
# Step 5 says how far information *can* travel. Does a trained model make use of it? And is the end
# of the reach really an end? We take windows of {glue:text}`window-recall-length:.0f` tokens of
# real text, character by character, and put two things into each: somewhere a *value*, one of
# {glue:text}`window-recall-values:.0f` special tokens, and at some distance, before or after, a
# *question*. The model has to name the value where the question stands. All else is text that it
# must carry the value across. A guess is right once in {glue:text}`window-recall-values:.0f` times.
#
# The model is the library's `Longformer`, with $w = 8$, so $w/2 = 4$ tokens to each side a layer.
# The first token of each sample is a start token; in one arm it is global. Distances are drawn
# evenly from 1 to {glue:text}`window-recall-longest:.0f`, for all arms alike.

# %%
text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
task = RecallTask(vocabulary.encode(text.train), len(vocabulary))
held_out = RecallTask(vocabulary.encode(text.validation), len(vocabulary))
glue("window-recall-length", task.length)
glue("window-recall-values", task.values)
glue("window-recall-longest", task.longest)
ids, labels = task.batch(2, torch.Generator().manual_seed(0))
special = ["▷", "", "?", *(f"«{value}»" for value in range(task.values))]
for row, label in zip(ids.tolist(), labels, strict=True):
    shown = [
        special[i]
        if i < len(special)
        else vocabulary.decode([i - len(special)])
        for i in row
    ]
    answer = int(label[label >= 0]) - 3
    print("".join(shown).replace("\n", "↵"), "   answer:", f"«{answer}»")

# %% tags=["nbval-ignore-output"]
arms = {  # layers, and whether the start token is global
    "1 layer": (1, False),
    "2 layers": (2, False),
    "2 layers, global": (2, True),
}
live = {}
bar = Progress(list(arms.items()), label="training three small models")
for name, (layers, start_is_global) in bar:
    kind = {"start_is_global": start_is_global}
    model = train_recall(
        task, layers=layers, window=8, seed=0, steps=500, device=device, **kind
    )
    live[name] = accuracy_by_distance(model, held_out, count=100, **kind)
    bar.note(name)

# %%
print("share of right answers by distance, one seed, on held-out text")
print(f"{'':18}{'1 … 4':>8}{'5 … 8':>8}{'9 … 16':>8}")
parts = {"near": slice(0, 4), "middle": slice(4, 8), "far": slice(8, 16)}
mean = {}
for name, shares in live.items():
    row = [sum(shares[s]) / len(shares[s]) for s in parts.values()]
    mean[name] = dict(zip(parts, row, strict=True))
    print(f"{name:18}" + "".join(f"{x:8.2f}" for x in row))
chance = 1 / task.values
check("one layer: four tokens", mean["1 layer"]["near"] > 0.9)
check("and no more", mean["1 layer"]["middle"] < chance + 0.1)
check("two layers: eight tokens", mean["2 layers"]["middle"] > 0.8)
check("and no more", mean["2 layers"]["far"] < chance + 0.1)
check("a global token: any distance", mean["2 layers, global"]["far"] > 0.8)

# %% [markdown]
# One seed is one seed. The same with more of them, and with three layers as well, was recorded:

# %%
recall = recorded("window_recall")
accuracy = {
    name: torch.tensor(runs, dtype=double)  # (seeds, distances)
    for name, runs in recall["results"]["arms"].items()
}
longest = recall["settings"]["longest"]
reach = {
    "1 layer": 4,
    "2 layers": 8,
    "3 layers": 12,
    "2 layers, global": longest,
}
print(f"{'':18}{'reach':>6}{'within':>16}{'beyond':>16}")
for name, shares in accuracy.items():
    inside, outside = shares[:, : reach[name]].mean(1), shares[:, reach[name] :]
    line = f"{name:18}{reach[name]:6}{inside.mean():9.3f} ± {inside.std():.3f}"
    key = name.replace(" ", "-").replace(",", "")
    glue(f"window-recall-{key}", inside.mean())
    if outside.numel():
        outside = outside.mean(1)
        line += f"{outside.mean():9.3f} ± {outside.std():.3f}"
    print(line)
beyond = [a[:, reach[name] :].flatten() for name, a in accuracy.items()]
beyond = torch.cat(beyond)
glue("window-recall-seeds", len(recall["settings"]["seeds"]))
glue("window-recall-beyond", beyond.mean())
check("beyond the reach all guess", beyond.max() < chance + 0.12)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 3.4))
looks = {
    "1 layer": ("query", "-"),
    "2 layers": ("key", "--"),
    "3 layers": ("value", "-."),
    "2 layers, global": ("weights", ":"),
}
distances = torch.arange(1, longest + 1)
for name, shares in accuracy.items():
    color, style = looks[name]
    ax.plot(distances, shares.mean(0), style, color=COLORS[color], label=name)
    ax.fill_between(
        distances,
        shares.amin(0),
        shares.amax(0),
        color=COLORS[color],
        alpha=0.25,
        linewidth=0,
    )
ax.axhline(chance, color=COLORS["reference"], linewidth=1)
ax.set(
    xlabel="distance from the question to the value",
    ylabel="share of right answers",
    ylim=(0, 1.04),
)
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-sliding-window-recall",
    caption="Recall by distance, window 8; bands span the seeds, the grey "
    "line is a guess. One layer answers up to distance 4, two up to 8, three "
    "up to 12, and fall to a guess one step further. With a global token two "
    "layers answer at every distance.",
    alt="Accuracy over distances 1 to 16. Three curves stay near one and drop "
    "to the level of a guess after 4, 8 and 12; the fourth, with a global "
    "token, stays near one to the end.",
)

# %% [markdown]
# The steps in {numref}`fig-sliding-window-recall` stand where {eq}`eq-sliding-window-receptive`
# puts them: at $4L$. Beyond, over {glue:text}`window-recall-seeds:.0f` seeds, the share is
# {glue:text}`window-recall-beyond:.3f`, a guess: no training can help where no path leads. Within
# the reach the mean is {glue:text}`window-recall-1-layer:.3f`,
# {glue:text}`window-recall-2-layers:.3f` and {glue:text}`window-recall-3-layers:.3f` for one, two
# and three layers. The inner layers have learned to hand a value on that they have no use for
# themselves. With the start token global, two layers reach
# {glue:text}`window-recall-2-layers-global:.3f`, at any distance.
#
# Two things this does not show. That windows are enough for *language*: the task has one fact to
# carry, and one vector has room for it; a document has many. And that it is learned at once: how
# many steps each of these models needs was not measured.
#
# ### Growth with the length
#
# How long does it take, and how much memory? Recorded once: one sample, four heads of 64 features,
# $w = 256$, one thread, forward and backward. Beside the library stand the official arithmetic in
# `transformers`, without its linear maps, and the fused kernel over *all* pairs.

# %%
growth = recorded("sliding_window")
rows = growth["results"]["rows"]


def series(name, what):
    """n and the median (or the bytes) of one function, where it was run."""
    lengths = [row["n"] for row in rows if name in row]
    values = [row[name][what] for row in rows if name in row]
    if what.endswith("seconds"):
        values = [sorted(v)[len(v) // 2] for v in values]
    return torch.tensor(lengths, dtype=double), torch.tensor(
        values, dtype=double
    )


def exponent(name, what):
    """The slope in a log-log plot, from n = 2048 on."""
    n, y = series(name, what)
    x, y = n[n >= 2048].log2(), y[n >= 2048].log2()
    x, y = x - x.mean(), y - y.mean()
    return ((x * y).sum() / (x * x).sum()).item()


print("forward and backward: grows as n to the power of")
for name in ("lib", "official", "dense"):
    time, memory = exponent(name, "both_seconds"), exponent(name, "both_bytes")
    print(f"{name:10} time {time:.2f}   peak memory {memory:.2f}")
    glue(f"window-time-{name}", time)
    glue(f"window-memory-{name}", memory)
last, at_16k = rows[-1], next(row for row in rows if row["n"] == 16384)


def median(row, name, what="both_seconds"):
    return sorted(row[name][what])[len(row[name][what]) // 2]


glue("window-official-time", median(last, "official") / median(last, "lib"))
glue(
    "window-official-memory",
    last["official"]["both_bytes"] / last["lib"]["both_bytes"],
)
glue("window-dense-time", median(at_16k, "dense") / median(at_16k, "lib"))
glue("window-dense-pairs", 16384**2 / at_16k["pairs"])
bytes_of = {
    name: [row[name]["both_bytes"] for row in rows if name in row]
    for name in ("lib", "official", "dense")
}
ours, all_pairs = bytes_of["lib"], bytes_of["dense"]
glue("window-dense-memory", all_pairs[-1] / ours[len(all_pairs) - 1])
glue("window-dense-memory-first", ours[0] / all_pairs[0])
# from half the length to the last one the peak grows by what the new tokens need
by_token = (ours[-1] - ours[-2]) / (last["n"] - rows[-2]["n"])
glue("window-bytes-by-token", f"{by_token:,.0f}")
glue("window-bytes-fixed", (ours[-1] - by_token * last["n"]) / 2**20)
glue("window-dense-first", median(rows[0], "dense") / median(rows[0], "lib"))
for key, row in {"first": rows[0], "middle": at_16k, "last": last}.items():
    glue(f"window-{key}-n", f"{row['n']:,}")
spread = max(
    max(row[name]["both_seconds"]) / min(row[name]["both_seconds"])
    for row in rows
    for name in ("lib", "official", "dense")
    if name in row
)
glue("window-spread", spread)
glue("window-last-bytes", last["lib"]["both_bytes"] / 2**20)
glue("window-last-table", 4 * 4 * last["n"] ** 2 / 2**30)
check("time is about linear", exponent("lib", "both_seconds") < 1.3)
check("memory: no faster than n", exponent("lib", "both_bytes") < 1.05)
three_gradients = 3 * 4 * 64 * 4  # of 4 heads, 64 features, 4 bytes
check("a token more takes three gradients", by_token, three_gradients, atol=30)
official = exponent("official", "both_bytes")
check("official: memory is linear", official, 1.0, atol=0.05)
check("all pairs: time is quadratic", exponent("dense", "both_seconds") > 1.7)
check("all pairs: memory is linear too", exponent("dense", "both_bytes") < 1.1)

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(4.6, 5.6), sharex=True)
looks = {
    "lib": ("query", "o-", "this library"),
    "official": ("key", "s--", "official"),
    "dense": ("reference", "^:", "all pairs, fused"),
}
for name, (color, style, label) in looks.items():
    for ax, what, unit in [
        (axes[0], "both_seconds", 1),
        (axes[1], "both_bytes", 2**20),
    ]:
        n, y = series(name, what)
        ax.plot(n, y / unit, style, color=COLORS[color], label=label)
axes[0].set(xscale="log", yscale="log", ylabel="CPU seconds")
axes[1].set(yscale="log", xlabel="tokens $n$", ylabel="peak memory, MiB")
lengths = [row["n"] for row in rows]
axes[1].set_xticks(lengths, [f"{n // 1024}k" for n in lengths])
axes[1].minorticks_off()
handles, labels = axes[0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-sliding-window-cost",
    caption="Forward and backward for $w = 256$, over the length, both axes "
    "logarithmic. Time: the library's window grows as the length, the "
    "official code a little faster, all pairs twice as steeply. Memory: "
    "the official code and the fused kernel over "
    "all pairs are lines of slope one; the library's begins with the fixed "
    "tables of one piece, is flatter, and ends below both.",
    alt="Two log-log charts over 1k to 32k tokens. Above, two lines for "
    "windows rise with slope about one, one for all pairs with two. Below, "
    "two parallel lines, and the library's, flatter, which ends lowest.",
)

# %% [markdown]
# **Time** ({numref}`fig-sliding-window-cost`). Over all pairs it grows as $n^2$, measured
# {glue:text}`window-time-dense:.2f`; with a window as $n^1$, measured
# {glue:text}`window-time-lib:.2f`. At {glue:text}`window-middle-n` tokens the window is faster by a
# factor of {glue:text}`window-dense-time:.0f`. The count of pairs alone would promise
# {glue:text}`window-dense-pairs:.0f`: a third of what is computed is waste, the backward pass
# computes each piece once more, and small products run slower than large ones. At
# {glue:text}`window-first-n` tokens, four windows, a factor of {glue:text}`window-dense-first:.1f`
# is left of it. Short texts gain little from windows.
#
# **Memory.** Here windows gain less than one would think. Full attention in a fused kernel keeps no
# table either: its peak grows as $n^1$, measured {glue:text}`window-memory-dense:.2f`. That of the
# library's window has two parts. One is fixed, about {glue:text}`window-bytes-fixed:.0f` MiB: what
# one piece of the queries needs, as the backward pass goes piece by piece. The other grows, in the
# end by {glue:text}`window-bytes-by-token` bytes a token: three gradients, each of $4 \cdot 64$
# floats. So at {glue:text}`window-first-n` tokens the fused kernel over all pairs takes *less* than
# the window, by a factor of {glue:text}`window-dense-memory-first:.1f`; at
# {glue:text}`window-middle-n` it takes more, by one of {glue:text}`window-dense-memory:.1f`. At
# {glue:text}`window-last-n` tokens the library's peak is {glue:text}`window-last-bytes:.0f` MiB,
# where the tables of weights of four heads alone would take {glue:text}`window-last-table:.0f` GiB.
# Compared with code that keeps these, the window saves nearly all. Compared with a fused kernel it
# saves above all time.
#
# **Against the official arithmetic**, at {glue:text}`window-last-n` tokens, the blocks are faster
# by a factor of {glue:text}`window-official-time:.1f` (official code grows as
# {glue:text}`window-time-official:.2f`) and take less memory by one of
# {glue:text}`window-official-memory:.1f`.
#
# How sure is that? Three repetitions, in CPU seconds, on a shared machine. Within one length and
# function they differ by a factor of up to {glue:text}`window-spread:.1f`, so the second decimal of
# an exponent means nothing. Memory is counted, not timed, and is the same in every run.

# %% [markdown]
# ## Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “Longformer is a sliding window.” | A window, $w/2$ on each side, *and* global tokens with projections of their own, and, where the authors used it, dilation. Without global tokens our two layers end at distance eight. | {cite:t}`beltagy2020`, §3.1 |
# | “A window of $w$ is $w$ keys.” | $w + 1$: a half on each side, and the token itself. | step 1 |
# | “$\ell$ layers see $\ell w$ tokens back.” | $\ell w$ is the width; to one side it is $\ell w / 2$. | {eq}`eq-sliding-window-receptive` |
# | “Full attention needs $O(n^2)$ memory.” | If the weights are kept. Fused, it is $O(n)$; the time remains quadratic. | {cite:t}`rabe2021`; step 2 |
# | “Windows were Longformer's idea.” | Sparse patterns for Transformers, local ones among them, came a year before. BigBird, of the same year, adds random pairs and a theory. | {cite:t}`child2019`, §4; {cite:t}`zaheer2020`, §2, §3 |

# %% [markdown]
# ## Broken on purpose
#
# Six mistakes. Each box makes one, shows its symptom as a number, and runs a test that must fail on
# the broken version and pass on the right one.
#
# :::{admonition} Broken on purpose D21: one side only, on a table of all pairs
# :class: broken
# A “sliding window” as it is often written: a loop that lets token $i$ see the $w$ tokens up to
# itself, on an $n \times n$ table. No token sees anything that comes after it, which is right for a
# language model and wrong for a reader. And the table is as large as that of full attention.
# :::


# %%
def one_sided(n, keys):
    """Scores to be filled in, −∞ where no key is; the last `keys` of each."""
    table = torch.full((n, n), -math.inf)
    for i in range(n):
        table[i, max(0, i - keys + 1) : i + 1] = 0.0
    return table, torch.arange(n).expand(n, n)


def banded(n, keys):
    """A row of w + 1 scores a query, and the places of its keys."""
    h = keys // 2
    places = torch.arange(n)[:, None] + torch.arange(-h, h + 1)
    exists = (places >= 0) & (places < n)
    table = torch.zeros(n, keys).masked_fill(~exists, -math.inf)
    return table, places


def both_sides_in_linear_memory(build, n=4096, keys=33):
    table, places = build(n, keys)
    later = (places > torch.arange(n)[:, None]) & table.isfinite()
    future, size = (
        int(later.sum()),
        table.numel() * table.element_size() / 2**20,
    )
    assert future > 0 and size < 4 * n * n / 2**20 / 10, (
        f"{future} pairs with a later key, and a table of {size:.0f} MiB"
    )
    return future, size


future, size = both_sides_in_linear_memory(banded)
glue("window-d21-future", f"{future:,}")
glue("window-d21-size", size)
catches("D21", both_sides_in_linear_memory, broken=one_sided, fixed=banded)

# %% [markdown]
# **Fix:** half of the window on each side, and a row of $w + 1$ scores a query. With $w + 1 = 33$
# keys, {glue:text}`window-d21-future` pairs look ahead, and the table takes
# {glue:text}`window-d21-size:.2f` MiB.
#
# :::{admonition} Broken on purpose D21b: off by one
# :class: broken
# `range(i - w//2, i + w//2)` leaves out its end. Every query has lost its last key on the right.
# The output looks as before; the loss hardly moves; only a checkpoint that was trained with the
# whole window gives slightly other numbers. A test of shapes sees nothing. A count does.
# :::


# %%
def half_open(n, w):
    offset = torch.arange(n) - torch.arange(n)[:, None]
    return (offset >= -(w // 2)) & (offset < w // 2)


def window_is_whole(build, n=64, w=8):
    mask = build(n, w)
    pairs, lost = int(mask.sum()), int((mask != mask.T).sum())
    want = n * (w + 1) - w // 2 * (w // 2 + 1)
    assert pairs == want, (
        f"{pairs} pairs, want {want}; {lost} of them go one way only"
    )


catches("D21b", window_is_whole, broken=half_open, fixed=window_mask)

# %% [markdown]
# **Fix:** `i + w//2 + 1`. The test knows the number from {eq}`eq-sliding-window-pairs`, and not
# from a second copy of the same loop.
#
# :::{admonition} Broken on purpose D21c: the window goes round
# :class: broken
# `torch.roll` shifts keys past each other without any padding, in one line. But it rolls: the first
# token's left neighbours are the *last* tokens of the text.
# :::


# %%
def rolled(q, k, v, w):
    offsets = range(-(w // 2), w // 2 + 1)
    keys = torch.stack(
        [k.roll(-o, -2) for o in offsets], -2
    )  # (…, n, w + 1, d)
    values = torch.stack([v.roll(-o, -2) for o in offsets], -2)
    return scaled_dot_product_attention(q[..., None, :], keys, values).squeeze(
        -2
    )


def ends_do_not_meet(attend, n=40, w=8):
    q, k, v = torch.randn(
        3, 1, n, 6, generator=torch.Generator().manual_seed(0)
    )
    before = attend(q, k, v, w)
    k[:, -1], v[:, -1] = 9.0, 9.0  # the last token becomes another
    moved = (attend(q, k, v, w) - before).abs().amax(-1)[0]
    assert moved[: w // 2].max() == 0, (
        f"another last token moves the output of the first by {moved[0]:.2f}"
    )


catches("D21c", ends_do_not_meet, broken=rolled, fixed=sliding_window_attention)

# %% [markdown]
# **Fix:** mask what went round, or pad. In the middle of the text both versions agree, so a test
# must look at the ends.
#
# :::{admonition} Broken on purpose D21d: padding that is counted
# :class: broken
# Pad keys and values with zeros at both ends, take the blocks, and forget to say that these keys do
# not exist. Their scores are zero, not $-\infty$: each takes a share of $e^0$ and gives a zero
# value for it.
# :::


# %%
def zeros_count(q, k, v, w):
    h = w // 2
    k, v = (F.pad(x, (0, 0, h, h)) for x in (k, v))
    keys, values = (x.unfold(-2, w + 1, 1).mT for x in (k, v))
    return scaled_dot_product_attention(q[..., None, :], keys, values).squeeze(
        -2
    )


def means_of_ones_are_one(attend, n=40, w=8):
    q, k = torch.randn(2, 1, n, 6, generator=torch.Generator().manual_seed(0))
    output = attend(q, k, torch.ones(1, n, 1), w)[0, :, 0]
    low = int((output < 0.999).sum())
    assert low == 0, (
        f"weights of {low} queries do not sum to one; the first gives away "
        f"{1 - output[0]:.0%} to keys that do not exist"
    )


catches(
    "D21d",
    means_of_ones_are_one,
    broken=zeros_count,
    fixed=sliding_window_attention,
)

# %% [markdown]
# **Fix:** mask by place, as `in_blocks` does. Values of one are a good probe: a weighted mean of
# ones is one.
#
# :::{admonition} Broken on purpose D21e: a row without its column
# :class: broken
# The start token is made global by letting it look everywhere. That nobody outside its window looks
# back is easily missed: the classifier that sits on the start token trains well. All *other* tokens
# know no more than before.
# :::


# %%
def row_only(x, is_global, w=4):
    mask = window_mask(x.shape[0], w) | is_global[:, None]
    return scaled_dot_product_attention(x, x, x, mask)


def both_ways(x, is_global, w=4):
    return sliding_window_attention(x, x, x, w, global_mask=is_global)


def two_layers_join_all(attend, n=40):
    is_global = torch.zeros(n, dtype=torch.bool)
    is_global[0] = True
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    y = attend(attend(x, is_global), is_global)
    (grad,) = torch.autograd.grad(y[-1].sum(), x)  # of the last token's output
    unseen = int((grad.abs().sum(-1) == 0).sum())
    assert unseen == 0, (
        f"after two layers the last token depends on {n - unseen} of {n}"
    )


catches("D21e", two_layers_join_all, broken=row_only, fixed=both_ways)

# %% [markdown]
# **Fix:** symmetric, the row and the column {eq}`def-sliding-window-global`.
#
# :::{admonition} Broken on purpose D21f: one set of projections for all
# :class: broken
# The mask is right, and global tokens go through `query_projection` like all others; the three
# global matrices lie in the checkpoint, unused. Where they are still copies nothing is to be seen.
# After training they are not.
# :::


# %%
class SharedProjections(SlidingWindowAttention):
    def forward(self, x, mask=None, **options):
        q, k, v = (
            self._heads(p, x)
            for p in (
                self.query_projection,
                self.key_projection,
                self.value_projection,
            )
        )
        o = sliding_window_attention(
            q, k, v, self.window, global_mask=mask == 2
        )
        return self.output_projection(o.transpose(1, 2).flatten(2))


def global_matrices_matter(module, n=21):
    torch.manual_seed(0)
    attend, x = module(12, 3, 4).double(), torch.randn(1, n, 12, dtype=double)
    kinds = torch.ones(1, n, dtype=torch.long)
    kinds[0, 0] = 2
    with torch.no_grad():
        before = attend(x, kinds)
        for name in ("query", "key", "value"):
            matrix = getattr(attend, f"global_{name}_projection").weight
            matrix.add_(torch.randn_like(matrix))
        moved = (attend(x, kinds) - before).abs().amax(-1)[0]
    assert moved[0] > 1e-3, (
        f"other global matrices move the global token by {moved[0]:.0e}"
    )
    assert moved[1:].max() < 1e-12, "they move tokens that are not global"


catches(
    "D21f",
    global_matrices_matter,
    broken=SharedProjections,
    fixed=SlidingWindowAttention,
)

# %% [markdown]
# **Fix:** {eq}`eq-sliding-window-projections`: who asks decides. The second half of the test is
# there because the opposite mistake is as easy: to let common tokens see a global one by its global
# key.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} Count the pairs
# :label: ex-sliding_window-pairs
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `pairs(n, w)`: how many pairs meet in a window of even $w$ without dilation, for every
# $n \ge 1$; also for $n < w/2$, where {eq}`eq-sliding-window-pairs` does not hold. Use no loop.
#
# ```{dropdown} Hint
# With $n$ tokens nobody looks further than $n - 1$ to one side. What is the largest half of a
# window that still makes a difference?
# ```


# %% tags=["exercise-stub"]
def pairs(n, w):
    raise NotImplementedError


grade("ex-sliding_window-pairs", pairs)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sliding_window-pairs
# :class: dropdown
# ```


# %% tags=["solution"]
def pairs(n, w):
    half = min(w // 2, n - 1)
    return n * (2 * half + 1) - half * (half + 1)


grade("ex-sliding_window-pairs", pairs)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} How many layers?
# :label: ex-sliding_window-layers
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `layers_to_join(distance, w)`: the least number of layers with window $w$ after which a
# token can depend on another one `distance` tokens away. `distance` may be zero or negative.
#
# ```{dropdown} Hint
# {eq}`eq-sliding-window-receptive`, solved for $L$. Whole numbers can be divided with rounding up:
# `-(-a // b)`.
# ```


# %% tags=["exercise-stub"]
def layers_to_join(distance, w):
    raise NotImplementedError


grade("ex-sliding_window-layers", layers_to_join)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sliding_window-layers
# :class: dropdown
# ```


# %% tags=["solution"]
def layers_to_join(distance, w):
    return -(-abs(distance) // (w // 2))


grade("ex-sliding_window-layers", layers_to_join)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Paint the mask
# :label: ex-sliding_window-mask
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `paint(n, w, dilation, tokens)`: a boolean tensor (n, n), true where query $i$ (row) meets
# key $j$ (column): a window with dilation, and a list of global tokens, which may be empty.
#
# ```{dropdown} Hint
# Make the table of offsets $j - i$ by broadcasting. Two conditions make the window
# {eq}`def-sliding-window-window`; then fill rows and columns.
# ```


# %% tags=["exercise-stub"]
def paint(n, w, dilation, tokens):
    raise NotImplementedError


grade("ex-sliding_window-mask", paint)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sliding_window-mask
# :class: dropdown
# ```


# %% tags=["solution"]
def paint(n, w, dilation, tokens):
    offset = torch.arange(n) - torch.arange(n)[:, None]
    mask = (offset.abs() <= dilation * w // 2) & (offset % dilation == 0)
    mask[tokens] = True
    mask[:, tokens] = True
    return mask


grade("ex-sliding_window-mask", paint)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} What a stack can see
# :label: ex-sliding_window-reach
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `offsets(layers)`: the set of all offsets $j - i$ at which an output can depend on an input,
# far from both ends. `layers` is a list of pairs $(w, \delta)$, one a layer.
#
# ```{dropdown} Hint
# No layer: the set holds 0 alone. Each layer adds one of its own offsets to one that was reached
# before. Every sum of the two is reached.
# ```


# %% tags=["exercise-stub"]
def offsets(layers):
    raise NotImplementedError


grade("ex-sliding_window-reach", offsets)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sliding_window-reach
# :class: dropdown
# ```


# %% tags=["solution"]
def offsets(layers):
    reached = {0}
    for w, dilation in layers:
        steps = range(-dilation * w // 2, dilation * w // 2 + 1, dilation)
        reached = {a + b for a in reached for b in steps}
    return reached


grade("ex-sliding_window-reach", offsets)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A window without the table
# :label: ex-sliding_window-attend
# ```
# *Difficulty ●●● · 30 minutes*
#
# Write `attend(q, k, v, w)`: sliding-window attention for queries, keys and values (n, d), without
# any tensor of $n \times n$ numbers. Blocks or gathered keys, as you like. The checker measures
# your peak memory.
#
# ```{dropdown} Hint
# The shortest way is the gathered one: a table (n, w + 1) of places, clamped to those that exist,
# and a mask that says which of them did before. Then `k[places]` is (n, w + 1, d).
# ```


# %% tags=["exercise-stub"]
def attend(q, k, v, w):
    raise NotImplementedError


grade("ex-sliding_window-attend", attend)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-sliding_window-attend
# :class: dropdown
# ```


# %% tags=["solution"]
def attend(q, k, v, w):
    n, h = len(q), w // 2
    places = torch.arange(n)[:, None] + torch.arange(-h, h + 1)
    exists = (places >= 0) & (places < n)
    places = places.clamp(0, n - 1)
    scores = (k[places] @ q[:, :, None]).squeeze(-1) / math.sqrt(q.shape[-1])
    p = scores.masked_fill(~exists, -math.inf).softmax(-1)  # (n, w + 1)
    return (p[:, None] @ v[places]).squeeze(1)


grade("ex-sliding_window-attend", attend)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - A query meets the $w/2$ keys on each side, itself, and the global tokens
#   {eq}`def-sliding-window-window`, {eq}`def-sliding-window-global`. These are $n(w+1) - \frac
#   w2(\frac w2 + 1)$ pairs in place of $n^2$ {eq}`eq-sliding-window-pairs`, and at most $2n$ more
#   for each global token {eq}`eq-sliding-window-linear`.
# - Blocks of $w/2$ queries against three blocks of keys {eq}`eq-sliding-window-block` compute them
#   with dense products and views; two thirds of the work is used {eq}`eq-sliding-window-used`. The
#   backward pass has the same band {eq}`eq-sliding-window-key-gradient`. Nothing of size $n \times
#   n$ exists.
# - $L$ layers see $L w/2$ to each side {eq}`eq-sliding-window-receptive`. On the recall task the
#   end of the reach was the end, to the token.
# - A dilation reaches $\delta$ times as far and never leaves its remainder
#   {eq}`eq-sliding-window-residue`; mixed with a layer without gaps it covers all if $\delta \le
#   w + 1$ {eq}`eq-sliding-window-cover`.
# - One global token joins all pairs in two steps {eq}`eq-sliding-window-two-steps`, if it has both
#   its row and its column. It has projections of its own, because with common ones it weighs its
#   near tokens as any other does {eq}`eq-sliding-window-ratio`,
#   {eq}`eq-sliding-window-projections`.
# - The time of full attention is quadratic. Its memory need not be: a fused kernel over all pairs
#   takes less than windows do.
#
# ## Sources
#
# - {cite:t}`beltagy2020`, §3.1: window, dilation, global attention and its projections; §3.2: three
#   implementations; §4.1: dilation in language models; §5: pre-training from RoBERTa.
# - {cite:t}`child2019`, §4: factorised patterns, in $O(n\sqrt n)$, a year earlier.
# - {cite:t}`zaheer2020`, §2: window, global and random pairs; §3: what such patterns can compute.
# - {cite:t}`rabe2021`: attention over all pairs does not need $O(n^2)$ memory.
# - {cite:t}`dao2022`: the fused kernel that made this fast.
