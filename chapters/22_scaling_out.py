# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A model that takes a year on one processor has to be trained on a thousand. What do many
#       processes have to tell each other, how much is that, and when do they get the very numbers
#       that one process would have got?
#     goals:
#       - derive from the sum rule of gradients what processes have to add up, and how to divide
#       - build the ring all-reduce step by step, and count what crosses each link
#       - say when two runs agree bit for bit, and why four processes need not
#       - compute the memory of each process under DDP and the three stages of ZeRO
#       - cut the matrices of a layer, and prove that forward and gradient are the whole's
#       - say when communication hides behind computation, in tokens a GPU
#       - plan a run on thousands of GPUs, with every byte and second on paper
#       - kill a real run and see it go on as if nothing had been
#     prerequisites:
#       - GPT (chapter 10)
#       - the training loop of lib.training, with accumulation and checkpoints
#       - operations and bytes of a step (chapter 21), for the plan
#     data: The language reference that ships inside Python itself (pydoc_data.topics); no download.
#     hardware: Two processes on CPU cores, joined by gloo. No GPU is used, even where there is one.
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
# # Scaling out

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "attention.py").exists()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import dataclasses
import math
import random
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lib import cost, distributed, scaling
from lib.distributed import World, launch, share
from lib.layers import EncoderLayer
from lib.scaling import Cluster, Plan
from lib.teaching import (
    COLORS,
    CurveExplorer,
    ScalePlanner,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.measure import peak_bytes
from lib.teaching.recorded import recorded

root = Path(distributed.__file__).resolve().parents[1]
sys.path.insert(1, str(root / "book" / "experiments"))
import scaling_out

start(seed=0)
double = torch.float64

# %% [markdown]
# This chapter starts real processes. They need some seconds, so we start them now and read what
# they found further down. The script trains the book's GPT in two processes; one of the two is
# killed on the way. What it does is explained where its results are read. The processes are started
# by *torchrun*, which comes with PyTorch: it tells each its number, and where a process dies it
# starts all of them anew. They send each other messages through *gloo*, PyTorch's library for CPUs.

# %%
folder = Path(tempfile.mkdtemp())
script = root / "book" / "experiments" / "scaling_out.py"
torchrun = launch(script, folder, size=2, restarts=3)

# %% [markdown]
# ## The formula
#
# A batch $B$ has a sum of losses and a count. Let $p$ processes hold a part $B_r$ each. The loss of
# the step is one fraction, over all parts:
#
# $$
# \begin{gathered}
# L = \frac{\sum_{r=0}^{p-1} S_r}{\sum_{r=0}^{p-1} N_r}, \\
# S_r = \sum_{i \in B_r} \ell_i(\theta), \qquad N_r = \lvert B_r \rvert .
# \end{gathered}
# $$ (def-scaling-out-loss)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $p$ | a number | processes that train together; each has a rank $r = 0, \dots, p - 1$ |
# | $S_r$ | a number | sum of the losses of process $r$'s part of the batch |
# | $N_r$ | a number | how many losses that sum has |
# | $g_r$ | as $\theta$ | gradient of $S_r$, in process $r$ |
# | $\Psi$ | a number | parameters of the model |
# | $\psi$ | a number | parameters in one GPU, where the model is cut too |
# | $\alpha$ | a number | seconds until a message begins to arrive |
# | $\beta$ | a number | seconds for each byte of it |
# | $D$ | a number | copies of the model: *data* parallelism |
# | $t$ | a number | parts that each matrix is cut into: *tensor* parallelism |
# | $m$ | a number | micro-batches: parts that a copy's share of the batch goes through in |
#
# Each process computes its own $S_r$, $N_r$ and $g_r$. Everything else in this chapter is about
# adding them up: how to divide, over which wires, in which order, and where to keep the results;
# and about what else can be cut than the batch.

# %% [markdown]
# ## Derivation
#
# ### Step 1. The gradient of the sum is the sum of the gradients
#
# The count does not depend on the parameters, and a derivative goes into a finite sum. Hence
#
# $$
# \nabla L = \frac{\sum_r g_r}{\sum_r N_r}, \qquad g_r = \nabla S_r .
# $$ (eq-scaling-out-gradient)
#
# So it is enough to add up the $g_r$ and two numbers, and to divide once, at the end. Whoever
# takes a mean in each process and then the mean of the means computes something else. Write
# $\bar g_r = g_r / N_r$ and $w_r = N_r / \sum_s N_s$. The right gradient is the weighted mean
# $\sum_r w_r \bar g_r$; the usual one has $1/p$ for each $w_r$. They differ by
#
# $$
# \frac1p \sum_r \bar g_r - \nabla L = \sum_r \Big(\frac1p - w_r\Big)\, \bar g_r ,
# $$ (eq-scaling-out-means)
#
# which is zero where all counts are equal, and in general not otherwise.

# %%
generator = torch.Generator().manual_seed(1)
X = torch.randn(12, 5, generator=generator, dtype=double)
y = torch.randn(12, generator=generator, dtype=double)
theta = torch.randn(5, generator=generator, dtype=double)


def gradient(rows, theta=theta):
    """Gradient of the sum of (xθ − y)² over some rows, (5,)."""
    leaf = theta.clone().requires_grad_()
    ((X[rows] @ leaf - y[rows]) ** 2).sum().backward()
    return leaf.grad


parts = [slice(0, 2), slice(2, 5), slice(5, 12)]  # unequal counts
counts = torch.tensor([2.0, 3.0, 7.0], dtype=double)
g = torch.stack([gradient(rows) for rows in parts])  # (p, 5)
whole = gradient(slice(0, 12)) / 12
check("eq-scaling-out-gradient", g.sum(0) / counts.sum(), whole)
means = g / counts[:, None]
gap = means.mean(0) - whole
weight = counts / counts.sum()
check("eq-scaling-out-means", gap, ((1 / 3 - weight)[:, None] * means).sum(0))
check("with unequal counts the gap is large", gap.norm() > 0.1 * whole.norm())
glue("scaling-gap", gap.norm() / whole.norm())

# %% [markdown]
# With counts 2, 3 and 7 the mean of means is off by {glue:text}`scaling-gap:.2f` of the gradient's
# length. **Accumulation** is the same formula with parts in time and not in space: a process may
# add up several parts before it tells the others anything.
#
# ### Step 2. A ring adds up
#
# An *all-reduce* leaves in every process the sum of what all had. On a ring each process sends to
# its right neighbour only. Cut each process's vector, of $b$ bytes, into $p$ pieces. In $p - 1$ steps
# each process sends one piece on, the one that it has just added to, and adds what comes to its own:
# then each holds *one* piece of the sum, whole. That is a *reduce-scatter*. In $p - 1$ more steps the
# whole pieces go round once: an *all-gather*. Each step moves a piece of $b/p$ bytes over each link:
#
# $$
# \text{bytes a link} = 2\,(p - 1)\,\frac{b}{p} .
# $$ (eq-scaling-out-ring)
#
# It is less than $2b$, however many processes there are.


# %%
def reduce_scatter(state):
    """Add up in p - 1 steps; then process r has piece r + 1 of the sum."""
    p = len(state)
    for step in range(p - 1):
        sent = [(r, (r - step) % p) for r in range(p)]
        values = [state[r][piece] for r, piece in sent]
        for (r, piece), value in zip(sent, values, strict=True):
            to = state[(r + 1) % p]
            to[piece] = to[piece] + value
    return p - 1


def all_gather(state):
    """Pass the sums round in p - 1 more."""
    p = len(state)
    for step in range(p - 1):
        sent = [(r, (r + 1 - step) % p) for r in range(p)]
        values = [state[r][piece] for r, piece in sent]
        for (r, piece), value in zip(sent, values, strict=True):
            state[(r + 1) % p][piece] = value
    return p - 1


def ring(vectors):
    """All-reduce p vectors of p pieces; return them, and a link's messages."""
    state = [list(v) for v in vectors]
    messages = reduce_scatter(state)
    messages += all_gather(state)
    return state, messages


print("before:", [[1, 10, 100], [2, 20, 200], [3, 30, 300]])
after, messages = ring([[1, 10, 100], [2, 20, 200], [3, 30, 300]])
print("after: ", after, "in", messages, "steps")
for p in (2, 3, 5, 8):
    inputs = [[r * p + i for i in range(p)] for r in range(p)]
    after, messages = ring(inputs)
    total = [sum(column) for column in zip(*inputs, strict=True)]
    check("all have the sum", after, [total] * p)
    check("eq-scaling-out-ring", messages / p, 2 * (p - 1) / p)

# %% [markdown]
# A message costs a start-up time $\alpha$ and a time $\beta$ for each byte. The ring takes $2(p-1)$
# messages in a row. A binary tree over $p = 2^k$ processes, up with sums and down with results, takes
# $2\log_2 p$ messages in a row, each of all $b$ bytes:
#
# $$
# \begin{aligned}
# t_{\text{ring}} &= 2(p-1)\Big(\alpha + \frac{b}{p}\beta\Big), \\
# t_{\text{tree}} &= 2 \log_2 p\,(\alpha + b\,\beta) .
# \end{aligned}
# $$ (def-scaling-out-time)
#
# The ring has more messages, the tree more bytes. Bring the terms with $\alpha$ to one side and those
# with $b$ to the other: for $p > 2$ the two are equal at
#
# $$
# b^* = \frac{\alpha}{\beta}\;\frac{(p - 1) - \log_2 p}{\log_2 p - (p-1)/p} ,
# $$ (eq-scaling-out-crossing)
#
# the tree is faster below, the ring above. With the $\alpha$ and $\beta$ that the code assumes, and
# 64 processes, that is at {glue:text}`scaling-crossing:.1f` MB ({numref}`fig-scaling-out-ring`).


# %%
def t_ring(b, p, alpha, beta):
    return 2 * (p - 1) * (alpha + b / p * beta)


def t_tree(b, p, alpha, beta):
    return 2 * math.log2(p) * (alpha + b * beta)


# assumptions, not measured: a network's start-up time and its speed
ALPHA, BETA = 10e-6, 1 / 50e9  # seconds, seconds a byte
for p in (4, 64, 1024):
    log = math.log2(p)
    crossing = ALPHA / BETA * ((p - 1) - log) / (log - (p - 1) / p)
    ratio = t_ring(crossing, p, ALPHA, BETA) / t_tree(crossing, p, ALPHA, BETA)
    check("eq-scaling-out-crossing", ratio, 1.0)
    if p == 64:
        glue("scaling-crossing", crossing / 1e6)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.2))
sizes = torch.logspace(2, 10, 60).tolist()
ax.loglog(
    sizes,
    [t_ring(b, 64, ALPHA, BETA) for b in sizes],
    color=COLORS["query"],
    label="ring",
)
ax.loglog(
    sizes,
    [t_tree(b, 64, ALPHA, BETA) for b in sizes],
    "--",
    color=COLORS["key"],
    label="tree",
)
ax.set(xlabel="bytes", ylabel="seconds")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-scaling-out-ring",
    caption="Time of an all-reduce over 64 processes by the model α + βb, with "
    "assumed α and β. Short messages favour the tree, long ones the ring.",
    alt="Two rising curves on logarithmic axes. The dashed tree is lower for "
    "small messages, the ring is lower for large ones; they cross once.",
)

# %% [markdown]
# Real machines have two kinds of wires: fast ones inside a node, slow ones between nodes. Let each
# of $k$ nodes have $q$ of the $p = qk$ processes. First the $q$ reduce-scatter among themselves, so
# that each has a $q$-th of the node's sum. Then each all-reduces its piece with the processes that
# hold the same piece in the other nodes; at last the $q$ of a node gather. By
# {eq}`eq-scaling-out-ring`, once with $q$ processes and once with $k$, a process sends inside its
# node and to others
#
# $$
# \begin{gathered}
# b_{\text{inside}} = 2\,\frac{q-1}{q}\,b, \qquad
# b_{\text{between}} = 2\,\frac{k-1}{k}\,\frac{b}{q}, \\
# b_{\text{inside}} + b_{\text{between}} = 2\,\frac{p-1}{p}\,b .
# \end{gathered}
# $$ (eq-scaling-out-two-levels)
#
# Together that is what it sends in one ring. But what takes the slow road is a $q$-th of what a ring
# over the $k$ nodes alone would send.


# %%
def two_levels(vectors, q):
    """All-reduce in nodes of q; return the results, and what crosses."""
    k = len(vectors) // q
    piece = len(vectors[0]) // q
    pieces = [list(v.chunk(q)) for v in vectors]
    nodes = [pieces[i : i + q] for i in range(0, k * q, q)]
    inside = sum(reduce_scatter(node) for node in nodes) // k * piece
    for r in range(q):  # each with its likes
        own = (r + 1) % q
        likes, messages = ring([node[r][own].chunk(k) for node in nodes])
        for node, chunks in zip(nodes, likes, strict=True):
            node[r][own] = torch.cat(chunks)
    inside += sum(all_gather(node) for node in nodes) // k * piece
    results = [torch.cat(state) for node in nodes for state in node]
    return results, inside, messages * piece // k


for q, k in ((2, 3), (4, 2), (3, 1), (1, 4)):
    b = 12 * q * k
    vectors = torch.randint(100, (q * k, b), generator=generator)
    results, inside, between = two_levels(vectors, q)
    total = vectors.sum(0).expand(q * k, b)
    check("all have the sum", torch.stack(results), total)
    sent = [2 * (q - 1) / q * b, 2 * (k - 1) / k * b / q]
    check("eq-scaling-out-two-levels", [inside, between], sent)
    one_ring = 2 * (q * k - 1) / (q * k) * b
    check("together they are one ring's", inside + between, one_ring)

# %% [markdown]
# Gradients are long vectors. PyTorch's `DistributedDataParallel` (DDP), where every process holds the
# whole model, packs them into *buckets* of some megabytes, long enough for the ring, and sends a
# bucket as soon as its gradients are there: while the backward pass computes the next ones, the last
# travel. Step 9 says when that hides them.
#
# ### Step 3. In which order? When bits agree
#
# Addition of floating-point numbers is commutative: $a + b$ and $b + a$ are the same bits. It is
# not associative. Write $\operatorname{fl}(x)$ for the floating-point number nearest to $x$, which
# is what a processor returns. For $p = 2$ there is only one sum, $g_0 + g_1$, and both orders of it
# agree:
#
# $$
# \operatorname{fl}(g_0 + g_1) = \operatorname{fl}(g_1 + g_0) .
# $$ (eq-scaling-out-commutes)
#
# So two processes *can* give the bits of one process that accumulates the same two parts. Dividing
# has to come at the same place: once, after the sum. For $p = 4$ the ring begins the sum of piece
# $i$ at process $i$: piece 0 is $((g_0+g_1)+g_2)+g_3$, piece 1 is $((g_1+g_2)+g_3)+g_0$.

# %%
a = torch.randn(4, 10_000, generator=generator, dtype=double)
check("eq-scaling-out-commutes", bool((a[0] + a[1] == a[1] + a[0]).all()))
first = ((a[0] + a[1]) + a[2]) + a[3]
second = ((a[1] + a[2]) + a[3]) + a[0]
differ = (first != second).double().mean()
check("of four, another order gives other bits", differ > 0.1)
glue("scaling-differ", 100 * differ)
glue("scaling-differ-by", (first - second).abs().max() * 1e16)

# %% [markdown]
# **Without the hypothesis** $p = 2$, {glue:text}`scaling-differ:.0f` % of the sums differ, by up to
# {glue:text}`scaling-differ-by:.1f` · 10⁻¹⁶. That is rounding, not a mistake; but it is not bit for
# bit. The same holds for two processes that accumulate two parts each: $(a + b) + (c + d)$ is not
# $((a + b) + c) + d$.
#
# ### Step 4. Who keeps what: ZeRO
#
# *Data parallelism* need not mean that all keep all. With Adam in mixed precision a parameter has
# 2 bytes of weight, 2 of gradient, and 12 of optimizer: a copy of the weight in float32, the
# *master*, and two moments, of four bytes each. (Step 6 says what the master is for.) Under DDP each
# process keeps all 16. ZeRO, the *zero redundancy optimizer* {cite}`rajbhandari2020`, keeps in each
# process one *shard*, a $p$-th: of the optimizer (stage 1), of the gradients too (stage 2), of the
# weights too (stage 3; PyTorch's `FullyShardedDataParallel`, FSDP, is that stage). At stage $s$ a
# process keeps $M_s$ bytes:
#
# $$
# \begin{aligned}
# M_0 &= 16\Psi, & M_1 &= \Big(4 + \frac{12}{p}\Big)\Psi, \\
# M_2 &= \Big(2 + \frac{14}{p}\Big)\Psi, & M_3 &= \frac{16}{p}\,\Psi .
# \end{aligned}
# $$ (eq-scaling-out-memory)
#
# What does that cost on the wire? A process that updates one shard needs the sum of that shard's
# gradients only: a reduce-scatter. Then all need the new weights: an all-gather. Together they are
# the all-reduce of DDP, so stages 1 and 2 send what DDP sends. Stage 3 throws the others' weights
# away after use, so it gathers them twice, for the forward and for the backward pass, and scatters
# gradients: three passes of $(p-1)/p$ and not two. With $b_s$ for the bytes a process sends at stage
# $s$,
#
# $$
# \frac{b_3}{b_0} = \frac{3 (p-1)/p}{2 (p-1)/p} = \frac32 .
# $$ (eq-scaling-out-traffic)


# %%
def bytes_each(psi, p, stage):
    """Count, kind by kind, the bytes that one of p processes keeps."""
    weights, gradients, optimizer = 2 * psi, 2 * psi, 12 * psi
    optimizer = optimizer / p if stage >= 1 else optimizer
    gradients = gradients / p if stage >= 2 else gradients
    weights = weights / p if stage >= 3 else weights
    return weights + gradients + optimizer


for p in (1, 2, 64):
    formula = [16, 4 + 12 / p, 2 + 14 / p, 16 / p]
    check(
        "eq-scaling-out-memory", [bytes_each(1, p, s) for s in range(4)], formula
    )
vectors = [[0] * 8 for _ in range(8)]
_, messages = ring(vectors)  # stage 0
stage_3 = all_gather(vectors) + all_gather(vectors) + reduce_scatter(vectors)
check("eq-scaling-out-traffic", stage_3 / messages, 1.5)

# %% [markdown]
# Move the number of parameters, and read what a process keeps.

# %%
powers = list(range(13))  # p = 2^0 … 2^12
billions = [1.0, 7.0, 13.0, 70.0, 175.0]
CurveExplorer(
    powers,
    billions,
    {
        f"stage {s}": torch.tensor(
            [[bytes_each(b, 2**k, s) for k in powers] for b in billions],
            dtype=double,
        )
        for s in range(4)
    },
    references={"80 GB": [80.0] * len(powers)},
    readouts={"16 bytes a parameter": [f"{16 * b:,.0f} GB" for b in billions]},
    parameter="parameters, in billions",
    x_name="log₂ of the processes p",
    y_name="GB in each process",
    label="What each process keeps",
    limits=(0.0, 320.0),
    digits=1,
    value=7.0,
    at=3,
    name="scaling-memory",
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.2))
counts_p = [2**k for k in range(11)]
for stage, key in enumerate(("reference", "value", "key", "query")):
    ax.loglog(
        counts_p,
        [bytes_each(7, p, stage) for p in counts_p],
        ("-", "--", "-.", ":")[stage],
        color=COLORS[key],
        label=f"stage {stage}",
    )
ax.set(xlabel="processes p", ylabel="GB each, 7 billion parameters")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-scaling-out-memory",
    caption="Memory for weights, gradients and optimizer in each process. Only "
    "stage 3 falls without end; the others stop at 16, 4 and 2 bytes a "
    "parameter. Activations come on top.",
    alt="Four curves over the number of processes, on logarithmic axes. Stage 0 "
    "is flat, stages 1 and 2 fall and flatten, stage 3 falls in a straight "
    "line.",
)

# %% [markdown]
# {numref}`fig-scaling-out-memory` has all four for seven billion parameters.
#
# ### Step 5. Activation checkpointing
#
# The backward pass needs what the forward pass computed. Keep only each $k$-th of $L$ layers'
# inputs, and compute the $k$ layers in between again when they are needed. Alive at one time are
# $L/k$ inputs and $k$ layers. Say that a layer keeps as much as its input is, and count in that unit.
# The derivative $-L/k^2 + 1$ is zero at $k = \sqrt{L}$:
#
# $$
# \begin{gathered}
# A(k) = \frac{L}{k} + k, \\
# \min_k A = 2\sqrt{L} \;\text{ at }\; k = \sqrt{L} .
# \end{gathered}
# $$ (eq-scaling-out-root)
#
# A hundred layers need the memory of twenty. The price is one more forward pass.

# %%
for L in (16, 64, 144):
    costs = [L / k + k for k in range(1, L + 1)]
    check("eq-scaling-out-root", min(costs), 2 * math.sqrt(L))
layers = nn.ModuleList(
    nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(36)
)


def chain(k):
    """One pass forward and back, in segments of k layers; 0: keep all."""
    x = torch.ones(512, 64, requires_grad=True)

    def segment(start, x):
        for layer in layers[start : start + (k or 36)]:
            x = layer(x)
        return x

    for begin in range(0, 36, k or 36):
        again = {"use_reentrant": False}
        x = checkpoint(segment, begin, x, **again) if k else segment(begin, x)
    x.sum().backward()


chain(0)  # so that the gradients' own memory is there
segments = [0, 1, 2, 4, 6, 9, 18]
peaks = {k: peak_bytes(chain, k, device="cpu") for k in segments}
check("segments of √L keep less than half", peaks[6] < 0.5 * peaks[0])
ends = min(peaks[1], peaks[18])
check("and less than segments of 1 and of 18", peaks[6] < ends)
glue("scaling-peak", peaks[6] / peaks[0])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.4, 3.0))
ax.plot(
    segments[1:],
    [peaks[k] / 2**20 for k in segments[1:]],
    "o-",
    color=COLORS["query"],
    label="in segments",
)
ax.axhline(
    peaks[0] / 2**20, ls="--", color=COLORS["reference"], label="all kept"
)
ax.set(xlabel="layers in a segment", ylabel="peak MiB", ylim=(0, None))
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-scaling-out-root",
    caption="Measured peak memory of 36 layers, forward and back, by the length "
    "of the segments that are computed again. The least lies near √36 = 6.",
    alt="A curve of peak memory over the segment length from 1 to 18. It falls, "
    "has its minimum near six, and rises; a dashed line far above is the "
    "peak without checkpoints.",
)

# %% [markdown]
# Segments of six need {glue:text}`scaling-peak:.2f` of the memory ({numref}`fig-scaling-out-root`).
#
# ### Step 6. Mixed precision keeps a master
#
# *Mixed precision* computes in bfloat16, in half the bytes. But bfloat16 has 8 significant bits.
# Just below 1 its numbers are $2^{-8}$ apart, and rounding, $\operatorname{bf16}$, goes to the
# nearest. So an update $u$ of less than half of that is lost:
#
# $$
# \operatorname{bf16}(1 - u) = 1 \quad\text{for } 0 \le u < 2^{-9} .
# $$ (eq-scaling-out-lost)
#
# So the weights are kept in float32, where updates add up, and only computed with in bfloat16.

# %%
u = 2.0**-9
below = torch.tensor(1 - 0.99 * u, dtype=torch.float32).bfloat16()
check("eq-scaling-out-lost", below.item(), 1.0)
check("a larger one is not", torch.tensor(1 - 1.01 * u).bfloat16().item() < 1)
low, master = torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(1.0)
for _ in range(1000):
    low, master = low - 1e-3, master - 1e-3
print(f"a thousand steps of 0.001: bfloat16 {low:.3f}, float32 {master:.3f}")
check("all thousand are lost", low.item(), 1.0)

# %% [markdown]
# ### Step 7. Cut the matrices: tensor parallelism
#
# A layer may be too large for one GPU, or the batch too small for many copies. Then the matrices
# themselves are cut {cite}`shoeybi2019`. Take the feed-forward layer, $\varphi(XA)\,B$, with inputs
# $X$, two matrices $A$ and $B$, and an activation $\varphi$ in between. Cut $A$ into $t$ blocks of
# *columns*, $A = [A_1 \dots A_t]$, and $B$ into the same blocks of *rows*, $B_j$. The
# activation is taken number by number, so it does not mind the cut, and a product over a cut
# index is a sum over the parts:
#
# $$
# \varphi(XA)\,B = \sum_{j=1}^{t} \varphi(XA_j)\,B_j .
# $$ (eq-scaling-out-columns)
#
# Each process computes one term; *one* all-reduce adds them up. Attention is cut already: heads
# meet only in the output map. With the output map's rows $O_i$ of head $i$,
#
# $$
# \operatorname{MultiHead}(X) = \sum_{i=1}^{h} \operatorname{head}_i(X)\, O_i ,
# $$ (eq-scaling-out-heads)
#
# and a process takes $h/t$ of the terms. Backward the same happens at the other end. Every part
# has read the same $X$, so its gradient is a sum over parts too. With $G$ the gradient of the loss
# $\ell$ with respect to the output, and $\odot$ the product number by number,
#
# $$
# \frac{\partial \ell}{\partial X} = \sum_{j=1}^{t}
# \big( \varphi'(XA_j) \odot G B_j^\top \big)\, A_j^\top ,
# $$ (eq-scaling-out-tensor-gradient)
#
# which is another all-reduce, while the gradients of $A_j$ and $B_j$ stay where they are. A layer has
# attention and a feed-forward layer, so it takes two all-reduces forward and two backward. Each is
# of the activations of a batch. Let $B$ be a number again, that of the sequences in it, of $n$ tokens
# with $d$ features: $B\,n\,d$ numbers, of two bytes in half precision. Four all-reduces, each of
# $2\,(t-1)/t$ times its bytes by {eq}`eq-scaling-out-ring`: a process sends for each layer
#
# $$
# \begin{aligned}
# b_{\text{tensor}} &= 4 \cdot 2\,\frac{t-1}{t} \cdot 2\,B\,n\,d \\
# &= 16\,\frac{t-1}{t}\,B\,n\,d \ \text{ bytes}.
# \end{aligned}
# $$ (eq-scaling-out-tensor-bytes)
#
# Let us cut one of the book's layers, and put in the two edges: where parts begin to read, and
# where they are added up. Each notes what crosses. A part is an ordinary layer, with fewer heads
# and features; the biases *behind* a sum must be added once, so all but one part have zeros
# there.

# %%
crossed = []  # (when, how many numbers), one for each all-reduce


class Read(torch.autograd.Function):
    """Forward, each part gets x. Backward, their gradients are added up."""

    @staticmethod
    def forward(ctx, x, t):
        return tuple(x.clone() for _ in range(t))

    @staticmethod
    def backward(ctx, *gradients):
        crossed.append(("backward", gradients[0].numel()))
        return sum(gradients), None


class Add(torch.autograd.Function):
    """Forward, parts are added up. Backward, each gets the gradient."""

    @staticmethod
    def forward(ctx, *parts):
        ctx.t = len(parts)
        crossed.append(("forward", parts[0].numel()))
        return sum(parts)

    @staticmethod
    def backward(ctx, gradient):
        return (gradient,) * ctx.t


ROWS = ("attention.output_projection", "feed_forward.contract")  # cut by rows


def cut(name, tensor, j, t):
    """The j-th of t parts of a layer's parameter."""
    if "norm" in name:
        return tensor  # each has all of it
    if not name.startswith(ROWS):
        return tensor.chunk(t)[j]  # torch keeps a map's columns as rows
    if tensor.ndim == 1:
        return tensor if j == 0 else torch.zeros_like(tensor)
    return tensor.chunk(t, dim=1)[j]


def in_parts(layer, t, d, h, f):
    parts = []
    for j in range(t):
        part = EncoderLayer(d, h // t, f // t, d_head=d // h, norm="pre").double()
        part.load_state_dict(
            {name: cut(name, p, j, t) for name, p in layer.state_dict().items()}
        )
        parts.append(part)
    return parts


def forward_in_parts(parts, x):
    t = len(parts)
    normed = parts[0].attention_norm(x)  # all would compute the same
    read = Read.apply(normed, t)
    x = x + Add.apply(*[q.attention(r) for q, r in zip(parts, read, strict=True)])
    read = Read.apply(parts[0].feed_forward_norm(x), t)
    return x + Add.apply(
        *[q.feed_forward(r) for q, r in zip(parts, read, strict=True)]
    )


d, h, f, B, n = 24, 4, 44, 3, 7
layer = EncoderLayer(d, h, f, norm="pre").double()
x = torch.randn(B, n, d, dtype=double, generator=generator, requires_grad=True)
G = torch.randn(B, n, d, dtype=double, generator=generator)
out = layer(x)
out.backward(G)
for t in (2, 4):
    parts = in_parts(layer, t, d, h, f)
    again = x.detach().clone().requires_grad_()
    crossed.clear()
    out_parts = forward_in_parts(parts, again)
    out_parts.backward(G)
    check(f"{t} parts: the layer", out_parts, out)
    check(f"{t} parts: the gradient of its input", again.grad, x.grad)
    own, pieces = [], []
    for j, part in enumerate(parts):
        for name, p in layer.named_parameters():
            if "norm" in name or (name.startswith(ROWS) and p.ndim == 1):
                continue  # not cut
            own.append(part.get_parameter(name).grad.flatten())
            pieces.append(cut(name, p.grad, j, t).flatten())
    check(f"{t} parts: gradients of weights", torch.cat(own), torch.cat(pieces))
    bytes_sent = sum(2 * numbers * 2 * (t - 1) / t for _, numbers in crossed)
    check("eq-scaling-out-tensor-bytes", bytes_sent, 16 * (t - 1) / t * B * n * d)
print([when for when, _ in crossed])

# %% [markdown]
# Two forward, two backward, in fp64 the whole layer's numbers. The three equations by themselves:

# %%
Z = torch.randn(5, 6, dtype=double, generator=generator, requires_grad=True)
A = torch.randn(6, 8, dtype=double, generator=generator)
Bm = torch.randn(8, 3, dtype=double, generator=generator)
G = torch.randn(5, 3, dtype=double, generator=generator)
gelu = nn.functional.gelu
output = gelu(Z @ A) @ Bm
halves = list(zip(A.chunk(2, dim=1), Bm.chunk(2), strict=True))
check("eq-scaling-out-columns", sum(gelu(Z @ a) @ b for a, b in halves), output)
output.backward(G)


def slope(z):
    z = z.detach().requires_grad_()
    (derivative,) = torch.autograd.grad(gelu(z).sum(), z)
    return derivative


back = sum((slope(Z @ a) * (G @ b.T)) @ a.T for a, b in halves)
check("eq-scaling-out-tensor-gradient", back, Z.grad)

attention = layer.attention
parts = in_parts(layer, h, d, h, f)  # one head each
terms = [q.attention(x) for q in parts]
check("eq-scaling-out-heads", sum(terms), attention(x))

# %% [markdown]
# The other way round fails. With $A$ cut by rows, the parts of $XA$ must be added up *before* the
# activation, for $\varphi(u + v)$ is not $\varphi(u) + \varphi(v)$:

# %%
blocks = zip(Z.chunk(2, dim=1), A.chunk(2), strict=True)
wrong = sum(gelu(x_j @ a_j) for x_j, a_j in blocks) @ Bm
gap = (wrong - output).norm() / output.norm()
check("rows first: another layer", gap > 0.1)
blocks = zip(Z.chunk(2, dim=1), A.chunk(2), strict=True)
linear = sum(x_j @ a_j for x_j, a_j in blocks) @ Bm
check("without an activation both ways agree", linear, Z @ A @ Bm)
glue("scaling-rows-first", gap.detach())

# %% [markdown]
# It is off by {glue:text}`scaling-rows-first:.2f` of the result's length; put right, it would
# take a third all-reduce, of $f$ and not of $d$ features a token. Computation waits for each of
# these sums: nothing is left to hide them behind. That is why $t$ is kept within a node, where
# wires are fast.
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`shoeybi2019` (§3) cut the first matrix by columns since a cut by rows would need a
# synchronization before the GELU, and count two all-reduces in the forward and two in the
# backward pass of a layer. {cite:t}`narayanan2021` (§3.2) count $8\,b\,s\,h\,(t-1)/t$ for a layer
# and a micro-batch: our $16\, Bnd\, (t-1)/t$ bytes are as many numbers of two bytes.
# :::
#
# ### Step 8. Cut the layers: the pipeline's bubble
#
# Now let the layers lie in $p$ processes one after the other: $p$ *stages*. Passed on whole, a batch
# would keep one of them busy and the others waiting. So it is cut into $m$ parts, which go through
# like cars through a factory, one a tick and stage. The last part goes in at tick $m$ and has $p - 1$
# stages more before it. Of these $m + p - 1$ ticks each stage works $m$:
#
# $$
# \text{idle share} = \frac{p - 1}{m + p - 1} .
# $$ (eq-scaling-out-bubble)
#
# The backward pass goes the other way with the same share. Against the time in which a stage works
# the idle time is $(p-1)/m$ {cite}`narayanan2021`: more parts, less idle. A stage
# sends the next one its activations, $2\,B n d$ bytes for a whole batch, once and not four times
# a layer: little.

# %%
for p, m in ((2, 3), (4, 8), (8, 1)):
    ticks = m + p - 1
    working = [[s <= t < s + m for t in range(ticks)] for s in range(p)]
    idle = 1 - sum(map(sum, working)) / (p * ticks)
    check("eq-scaling-out-bubble", idle, (p - 1) / (m + p - 1))

# %% [markdown]
# ### Step 9. When communication hides
#
# A backward pass has $K$ buckets, computed in $c$ seconds each, and each takes $s$ seconds on the
# wire. There is one wire, and a bucket may leave as soon as its gradients are there and the wire
# is free. Bucket $k$ leaves at $kc$ or when the one before has arrived, whichever is later. If
# $s \le c$ the wire is always free in time, and only the last bucket shows. If $s > c$ the wire
# never rests after the first bucket. Both cases in one line:
#
# $$
# T = \underbrace{K c}_{\text{computation}}
# + \underbrace{s + (K - 1) \max(0,\, s - c)}_{\text{what shows}} .
# $$ (eq-scaling-out-overlap)
#
# We play it through, event by event.


# %%
def play(buckets, c, s):
    """When each bucket was computed, and when it left and arrived."""
    free, events = 0.0, []
    for k in range(buckets):
        ready = (k + 1) * c
        leaves = max(ready, free)
        free = leaves + s
        events.append((k * c, leaves, free))
    return events


for K, c, s in ((6, 1.0, 0.7), (6, 1.0, 1.0), (6, 1.0, 1.6), (1, 1.0, 3.0)):
    arrived = play(K, c, s)[-1][-1]
    formula = K * c + s + (K - 1) * max(0, s - c)
    check("eq-scaling-out-overlap", arrived, formula)
    shown = scaling.exposed_seconds(K * c, K * s, K)
    check("lib.scaling says the same", arrived - K * c, shown)

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(4.8, 3.0), sharex=True)
for ax, s in zip(axes, (0.7, 1.6), strict=True):
    for begins, leaves, arrives in play(6, 1.0, s):
        ax.broken_barh(
            [(begins, 1.0)], (1.1, 0.8), color=COLORS["query"], edgecolor="white"
        )
        ax.broken_barh(
            [(leaves, arrives - leaves)],
            (0.1, 0.8),
            color=COLORS["key"],
            edgecolor="white",
        )
    ax.axvline(6, ls="--", color=COLORS["reference"], lw=0.9)
    ax.set(yticks=[0.5, 1.5], yticklabels=["wire", "backward"])
    ax.set_title(f"s = {s} c")
axes[1].set(xlabel="time, in c")
show_figure(
    fig,
    name="fig-scaling-out-overlap",
    caption="Six buckets. Above, sending takes less time than computing: only "
    "the last bucket shows behind the dashed line. Below, it takes more: the "
    "wire is what is waited for.",
    alt="Two time lines. Above, the bars of the wire follow each computed "
    "bucket with gaps and end shortly after the dashed line; below they touch "
    "and end far behind it.",
)

# %% [markdown]
# {numref}`fig-scaling-out-overlap` shows both cases. When is $s \le c$? Say a bucket holds $\Psi_k$
# parameters. Backward a parameter takes four operations a token (chapter 21): a GPU that does $F$
# operations a second needs $4\,\Psi_k$ of them for each of its $\tau$ tokens. And over $D$ copies
# it sends $2 (D-1)/D$ times the $2\,\Psi_k$ bytes of the bucket's gradients, $\beta$ seconds each
# (with $\alpha$ left out). Parameters cancel, and so does the size of the bucket:
#
# $$
# \begin{gathered}
# c = \frac{4\,\Psi_k\,\tau}{F}, \qquad s = 4\,\Psi_k\,\beta\,\frac{D-1}{D}, \\
# s \le c \iff \tau \ge \tau^* = F\,\beta\,\frac{D-1}{D} .
# \end{gathered}
# $$ (eq-scaling-out-hidden)
#
# Communication hides if a GPU has enough *tokens* in the backward pass beside which it sends,
# however large the model is. With accumulation it is the tokens of the last part alone: before,
# gradients are not whole.

# %%
cluster = Cluster(latency=0.0)  # an H100's data sheet, 0.4 of it reached
F, beta, D = cluster.flops * cluster.used, 1 / cluster.between, 64
limit_tokens = F * beta * (D - 1) / D
for factor, hides in ((0.5, False), (0.99, False), (1.01, True), (2.0, True)):
    for psi_k in (1e6, 2e8):
        c = 4 * psi_k * factor * limit_tokens / F
        s = 4 * psi_k * beta * (D - 1) / D
        last = play(32, c, s)[-1]
        only_one_shows = abs(last[-1] - 32 * c - s) < 1e-9 * s
        check("eq-scaling-out-hidden", only_one_shows == hides)
glue("scaling-tokens-between", f"{F / cluster.between:,.0f}")
glue("scaling-tokens-used", cluster.used)
glue("scaling-tokens-inside", f"{F / cluster.inside:,.0f}")

# %% [markdown]
# How many are enough? With an H100's data sheet, if products reach
# {glue:text}`scaling-tokens-used:.1f` of its peak (an assumption) and $D$ is large:
# {glue:text}`scaling-tokens-between` tokens where all goes over a network link of its own, and
# {glue:text}`scaling-tokens-inside` inside a node.
#
# ### Step 10. How often to save
#
# Of many GPUs some often fail, and then all go back to the last checkpoint. A save takes $\delta$
# seconds, a failure comes every $M$ seconds. Saving every $\Delta$ seconds costs the share
# $\delta/\Delta$ of the time. A failure costs on average half an interval, that is $\Delta/2$ every
# $M$ seconds. The sum $\delta/\Delta + \Delta/(2M)$ is least where its derivative
# $-\delta/\Delta^2 + 1/(2M)$ is zero:
#
# $$
# \Delta^* = \sqrt{2\,\delta M} .
# $$ (eq-scaling-out-young)


# %%
def lost_share(interval, delta, M):
    return delta / interval + interval / (2 * M)


delta, M = 30.0, 6 * 3600.0  # assumed
best = math.sqrt(2 * delta * M)
leaf = torch.tensor(best, dtype=double, requires_grad=True)
lost_share(leaf, delta, M).backward()
check("eq-scaling-out-young", leaf.grad, 0.0)
dice = random.Random(0)


def simulated(interval, failures=4000):
    """Lost seconds of each second, with failures that come by chance."""
    lost, total = 0.0, 0.0
    for _ in range(failures):
        alive = dice.expovariate(1 / M)
        saves = alive // (interval + delta)
        total += alive
        lost += alive - saves * interval
    return lost / total


rates = {f: simulated(f * best) for f in (0.2, 1.0, 5.0)}
check("a fifth as often or five times as often is worse",
      rates[1.0] < min(rates[0.2], rates[5.0]))  # fmt: skip
glue("scaling-interval", best / 60)
glue("scaling-interval-lost", 100 * lost_share(best, delta, M))

# %% [markdown]
# For a save of half a minute and a failure every six hours, both assumed, that is every
# {glue:text}`scaling-interval:.0f` minutes, and {glue:text}`scaling-interval-lost:.0f` % of the
# time is lost. The formula is a first estimate: it holds while a save is short against the time
# between failures {cite}`daly2006`.

# %% [markdown]
# ## From scratch
#
# Two "processes" in a loop: each has its part, computes a sum and a gradient; the sums are added;
# both take the same step. Beside it one process with two parts. Every bit agrees.

# %%
together, single = [theta.clone(), theta.clone()], theta.clone()
halves = [slice(0, 5), slice(5, 12)]
for _ in range(20):
    g0, g1 = (
        gradient(rows, t) for rows, t in zip(halves, together, strict=True)
    )
    together = [t - 0.05 * (g0 + g1) / 12 for t in together]
    single = single - 0.05 * (gradient(halves[0], single)
                              + gradient(halves[1], single)) / 12  # fmt: skip
check(
    "both processes have the bits of one",
    all(torch.equal(t, single) for t in together),
)

# %% [markdown]
# ## The library function
#
# `lib.training.fit` is the same loop for one process and for many. What makes a model parallel is
# `parallelize`: DDP, or FSDP2, the newer of torch's two versions of FSDP. Both are torch's own
# engines, told to add and not to average.
#
# ```{lib-source} lib.distributed.parallelize
# ```
#
# `fit` keeps its contract: with parts it returns Σ sums / Σ counts, now over the processes too.
# `share` says which rows are whose, `processes` joins what torchrun started:
#
# ```{lib-source} lib.distributed.share
# ```
#
# ```{lib-source} lib.distributed.processes
# ```
#
# For plans there is `lib.scaling`: what a GPU keeps, what it sends, and how long a step takes.
#
# ```{lib-source} lib.scaling.traffic_each
# ```
#
# ```{lib-source} lib.scaling.step_seconds
# ```

# %%
cpu = torch.device("cpu")
rows = [share(12, World(r, 3, cpu)) for r in range(3)]
check(
    "the shares are the batch",
    [i for s in rows for i in range(12)[s]],
    list(range(12)),
)

# %% [markdown]
# ## On real data
#
# Now the processes that were started above. Each of the two trained the book's GPT in float64 on
# paragraphs of Python's reference, of uneven lengths, so that the two count different numbers of
# characters. Here, in the notebook's one process, we train the same model with the same batches in
# two parts, and compare.

# %%
said, _ = torchrun.communicate(timeout=240)
assert torchrun.returncode == 0, said[-2000:]
found = [torch.load(folder / f"found-{r}.pt") for r in range(2)]
data = scaling_out.Paragraphs()
threads = torch.get_num_threads()
torch.set_num_threads(1)  # as the processes have
alone = {seed: scaling_out.train_alone(data, seed) for seed in scaling_out.SEEDS}
torch.set_num_threads(threads)


def same_bits(run, losses, weights):
    return run["losses"] == losses and all(
        torch.equal(run["weights"][name], t) for name, t in weights.items()
    )


for (strategy, seed), run in found[0].items():
    equal = all(same_bits(f[strategy, seed], *alone[seed]) for f in found)
    print(
        f"{strategy:6} seed {seed}: loss {run['losses'][0]:.3f} to "
        f"{run['losses'][-1]:.3f}, every bit equal: {equal}"
    )
    check(f"{strategy}, seed {seed}: two processes equal one", equal)
killed = [f["killed", 0] for f in found]
check(
    "after the kill only the steps since the checkpoint were done again",
    killed[0]["steps"],
    list(range(6, 10)),
)
kept = [f["fsdp", 1]["numbers"] for f in found]
psi = found[0]["ddp", 1]["numbers"]
check("together the shards are the model", sum(kept), psi)
check("and about half each", max(kept) < 0.51 * psi)
memory = found[0]["fsdp", 1]["bytes"] / found[0]["ddp", 1]["bytes"]
check("in bytes too, but for some padding", 0.5 <= memory < 0.51)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.2))
ax.plot(
    alone[0][0], color=COLORS["reference"], lw=5, alpha=0.5, label="one process"
)
ax.plot(
    killed[0]["losses"], "o:", color=COLORS["key"], label="two, killed at 8"
)
ax.axvline(8, ls="--", color=COLORS["reference"])
ax.set(xlabel="step", ylabel="loss, nats a character")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-scaling-out-killed",
    caption="A process is killed at step 8 (dashed). torchrun starts both anew, "
    "they go on from the checkpoint after step 6, and end on the losses of one "
    "process that nobody killed.",
    alt="A falling loss over ten steps, drawn as a wide grey line, with dots of "
    "the killed run exactly on it before and after a dashed vertical line at "
    "step eight.",
)

# %% [markdown]
# Losses and weights are the same bits, for DDP and FSDP2, and for the run in which process 1 was
# killed by SIGKILL at step 8 ({numref}`fig-scaling-out-killed`). All ran on a CPU with gloo. On
# GPUs with nccl the same code runs, but nothing here was measured there; and bits are promised
# only for one machine, one number of threads, and two processes.
#
# :::{admonition} Our remark
# :class: remark
# torchrun keeps one store, where processes find each other, for all its starts. A process that was
# killed leaves its address there,
# and its successor may be looked for at the old one: many of our restarts failed so, with
# “connection refused”, until `processes` gave each start a room of its own, by a prefix. A
# restart that was tried once has not been tested.
# :::
#
# A longer run in float32 was recorded, with mixed precision, checkpointed activations and compiled
# blocks. The loss is the mean of the last sixth of the steps; the seconds are of a machine whose
# two cores were shared with others; they stand in the file, and nothing is concluded from them.

# %%
record = recorded("scaling_out")
arms = record["results"]["arms"]
base = torch.tensor(arms["one process"]["loss"], dtype=double)
for name, arm in arms.items():
    loss = torch.tensor(arm["loss"], dtype=double)
    print(
        f"{name:18} loss {loss.mean():.4f} ± {loss.std():.4f}, "
        f"largest gap {(loss - base).abs().max():.4f}"
    )
    check(f"{name} trains as one process does", loss, base, atol=0.05)

# %% [markdown]
# ## Thousands of GPUs, on paper
#
# Now all of it at once. Here $G$ is a number of GPUs, and $p$ one of stages. $G = D\,t\,p$ GPUs hold
# $D$ copies of a model; each copy has its $L$ layers in $p$ stages and its matrices in $t$ parts. A
# GPU keeps $\psi$ parameters, about $\Psi/(tp)$, and computes $L/p$ layers. A copy's share of the
# batch, $B/D$ sequences of $n$ tokens, goes through in $m$ micro-batches. One of them has
#
# $$
# \tau = \frac{B\,n}{D\,m} \ \text{ tokens}, \qquad G = D\,t\,p .
# $$ (def-scaling-out-plan)
#
# From steps 2, 4, 7 and 8 follow the bytes that a GPU sends in a step, here for a stage of ZeRO below
# two. A layer takes $a = 4$ all-reduces, or $6$ if it is computed again in the backward pass, as in
# step 5, for then its two forward sums come twice. Each sends $2\,(t-1)/t$ times its bytes, two a
# number. A stage in the middle ($p > 2$) sends activations on and gradients back. Gradients of
# parameters are summed once a step:
#
# $$
# \begin{aligned}
# b_{\text{tensor}} &= 4\,a\,\frac{t-1}{t}\;\frac{L}{p}\, m\,\tau\, d, \\
# b_{\text{pipeline}} &= 4\, m\,\tau\, d, \\
# b_{\text{data}} &= 4\,\frac{D-1}{D}\,\psi .
# \end{aligned}
# $$ (eq-scaling-out-sent)
#
# Divided by the speed of the wire that they take, and with $\alpha$ for each message, these are the
# seconds $T_{\text{tensor}}$ and $T_{\text{pipeline}}$. Computation waits for both, so they count as
# work, and the bubble stretches all three. Gradients travel beside the backward pass of the last
# micro-batch; what of them shows behind it is $T_{\text{shows}}$, as in step 9. With $C$ operations
# that the model needs for a batch, and $C_+$ that are done, $\tfrac43 C$ if all layers are computed
# again, a step takes $T$ seconds:
#
# $$
# \begin{aligned}
# T &= \Big(\frac{C_+}{G F} + T_{\text{tensor}} + T_{\text{pipeline}}\Big)
# \Big(1 + \frac{p-1}{m}\Big) \\
# &\quad {} + T_{\text{shows}}, \\
# E &= \frac{C}{G\,F\;T} .
# \end{aligned}
# $$ (eq-scaling-out-step)
#
# $E$ is the *efficiency*: which part of a step the products alone would take. If all is copies
# ($t = p = 1$, so $G = D$) and nothing is hidden, a step computes for $6\,\Psi B n/(G F)$ seconds
# (chapter 21) and sends for $4\,\Psi\,\beta\,(G-1)/G$. The first falls as $1/G$, the second does not.
# Multiply both by $G$: they are equal, and $E = \tfrac12$, at
#
# $$
# G_{1/2} = 1 + \frac{3}{2}\,\frac{B\,n}{F\,\beta} ,
# $$ (eq-scaling-out-half)
#
# The model cancels once more: what decides is the batch in tokens, against the $F\beta$ tokens that
# hide the gradients of one GPU.

# %%
plan = Plan(
    layers=128,
    heads=160,
    head_width=160,
    vocabulary=51200,
    tokens=2048,
    sequences=3072,
    gpus=3072,
    tensor=8,
    pipeline=64,
    parts=512,
    stage=0,
    recompute=True,
)
cluster = Cluster(
    flops=cost.peak_flops("NVIDIA A100-SXM4-80GB", torch.bfloat16),
    used=0.6,
    memory=80e9,
    inside=300e9,
    between=200e9 / 8,
    latency=10e-6,
    per_node=8,
)
SOURCES = {
    "flops": "data sheet of the A100, bfloat16, dense",
    "used": "assumed",
    "memory": "the same data sheet",
    "inside": "the same: NVLink, half of what both directions have",
    "between": "one link of 200 Gb/s a GPU, Narayanan et al., section 5",
    "latency": "assumed",
    "per_node": "Narayanan et al., section 5",
}
for name, source in SOURCES.items():
    print(f"{name:9}{getattr(cluster, name):10.4g}  {source}")
D, t, p, m, L = plan.data, plan.tensor, plan.pipeline, plan.parts, plan.layers
tau, psi = plan.part_tokens, scaling.parameters_each(plan)
check("tokens of a micro-batch", tau, 3072 * 2048 / D / m)
sent = scaling.traffic_each(plan)
check(
    "eq-scaling-out-sent",
    [sent["tensor"], sent["pipeline"], sent["data"]],
    [
        4 * 6 * (t - 1) / t * L / p * m * tau * plan.width,
        4 * m * tau * plan.width,
        4 * (D - 1) / D * psi,
    ],
)


def through(stages, parts, work):
    """When parts have gone through all stages in order, and back."""
    free = [0.0] * stages
    came = [0.0] * parts
    for way in (range(stages), reversed(range(stages))):
        for s in way:
            for k in range(parts):
                free[s] = max(free[s], came[k]) + work / 2  # half of it each way
                came[k] = free[s]
    return max(came)


seconds = scaling.step_seconds(plan, cluster)
work = seconds["compute"] + seconds["tensor"] + seconds["pipeline"]
F = cluster.flops * cluster.used
needed = scaling.step_flops(plan) / plan.gpus / F  # C / (G F)
check("a third more for what is done again", seconds["compute"], 4 / 3 * needed)
played = through(p, m, work / m) + seconds["exposed"]
check("eq-scaling-out-step", seconds["overlapped"] / played, 1.0)
check("and E", seconds["efficiency"] * played / needed, 1.0)

for kind, size in sent.items():
    print(f"{kind:9}{size / 1e9:8.1f} GB sent,{seconds[kind]:8.2f} s")
print(f"compute {seconds['compute']:20.2f} s, bubble {seconds['bubble']:.2f} s")
print(f"step {seconds['overlapped']:23.2f} s: {scaling.limit(plan, cluster)}")


def utilisation(used):
    """The share of the peak, counting what is done again, as the paper does."""
    guess = dataclasses.replace(cluster, used=used)
    return 4 / 3 * scaling.step_seconds(plan, guess)["mfu"]


low, high = 0.1, 1.0
for _ in range(50):  # which share must products reach, for the paper's 52 %?
    middle = (low + high) / 2
    low, high = (middle, high) if utilisation(middle) < 0.52 else (low, middle)
check("there is such a share", utilisation(low), 0.52)
size = plan.layers * (12 * plan.width**2 + 13 * plan.width)
size += (plan.vocabulary + plan.tokens) * plan.width + 2 * plan.width
glue("scaling-plan-size", f"{size / 1e9:,.0f}")
glue("scaling-plan-step", seconds["overlapped"])
glue("scaling-plan-used", cluster.used)
glue("scaling-plan-utilisation", 100 * utilisation(cluster.used))
glue("scaling-plan-tensor", 100 * seconds["tensor"] / seconds["overlapped"])
glue("scaling-plan-bubble", 100 * seconds["bubble"] / seconds["overlapped"])
glue("scaling-plan-must", low)

# %% [markdown]
# The plan is the one that {cite:t}`narayanan2021` ran: the sizes are of its Table 1, as the script
# of that table in the released code has them. It gives {glue:text}`scaling-plan-size` billion
# parameters. If products reach {glue:text}`scaling-plan-used:.1f` of the peak, a step takes
# {glue:text}`scaling-plan-step:.0f` s; {glue:text}`scaling-plan-tensor:.0f` % of it are all-reduces
# of cut matrices, {glue:text}`scaling-plan-bubble:.0f` % bubble, and
# {glue:text}`scaling-plan-utilisation:.0f` % of the peak are used, with what is done again counted,
# as the paper counts. The paper measured 52 %. Turned round: for that, by this arithmetic, products
# must reach {glue:text}`scaling-plan-must:.2f` of the peak while they run. That is a number that
# can be measured on one GPU, before thousands are rented.
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`narayanan2021` (abstract): a trillion parameters at 502 petaFLOP/s on 3072 GPUs, 52 % of
# the peak of each. A schedule with more than one piece of the model a stage, *interleaved*, makes
# the bubble smaller, for more messages (§2.2.2).
# :::
#
# And $G_{1/2}$, for the default cluster, that of an H100's data sheet:

# %%
cluster = Cluster()
F, link = cluster.flops * cluster.used, 1 / cluster.between
sequences, length = 1024, 4096
half = 1 + 1.5 * sequences * length / (F * link)
for psi_any in (1e9, 7e9):
    compute = 6 * psi_any * sequences * length / half / F
    traffic = 4 * psi_any * link * (half - 1) / half
    check("eq-scaling-out-half", compute, traffic)
glue("scaling-half", f"{half:,.0f}")
glue("scaling-batch", f"{sequences:,}")
glue("scaling-length", f"{length:,}")

# %% [markdown]
# For a batch of {glue:text}`scaling-batch` sequences of {glue:text}`scaling-length` tokens it is
# {glue:text}`scaling-half` GPUs.
#
# How many GPUs are worth it? For this batch, and a GPT of seven billion parameters, we take for each
# number of GPUs and each way to cut the best plan that fits into memory. What is left to choose are
# the number of micro-batches, and whether layers are kept or computed again.


# %%
def best(gpus, tensor, pipeline, stage, cluster):
    """The efficiency of the best plan for 7 billion that fits, or None."""
    found = []
    for k in range(11):
        for again in (False, True):
            model = (32, 32, 128, 50257, length, sequences)
            try:
                plan = Plan(*model, gpus, tensor, pipeline, 2**k, stage, again)
            except ValueError:  # it does not divide
                continue
            if scaling.limit(plan, cluster) != "memory":
                found.append(scaling.step_seconds(plan, cluster)["efficiency"])
    return max(found, default=None)


WAYS = {
    "copies, ZeRO 1": (1, 1, 1, "query", "o-"),
    "copies, ZeRO 3": (1, 1, 3, "key", "s--"),
    "t = 8": (8, 1, 1, "value", "^-."),
    "t = 8, p = 4": (8, 4, 1, "scores", "v:"),
}
curves = {}
for name, (t, p, stage, *_) in WAYS.items():
    curve = {2**k: best(2**k, t, p, stage, cluster) for k in range(3, 15)}
    curves[name] = {g: e for g, e in curve.items() if e is not None}
for name, curve in curves.items():
    few = [f"{g}: {curve[g]:.2f}" for g in (64, 1024, 8192) if g in curve]
    print(f"{name:16}{'  '.join(few)}")
first = max(curves, key=lambda name: curves[name].get(64, 0))
check("while GPUs are few, copies are best", first == "copies, ZeRO 1")
furthest = {name: max(curve) for name, curve in curves.items()}
check("there are no more copies than sequences", furthest["copies, ZeRO 1"], 1024)
check("cut models go on", furthest["t = 8"], 8192)
check("with stages at last", curves["t = 8, p = 4"][8192] > curves["t = 8"][8192])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 3.4))
for name, (*_, color, style) in WAYS.items():
    ax.semilogx(
        list(curves[name]),
        list(curves[name].values()),
        style,
        color=COLORS[color],
        label=name,
        ms=4,
    )
ax.set(xlabel="GPUs G", ylabel="efficiency E", ylim=(0, 1.05))
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-scaling-out-efficiency",
    caption="Efficiency of a 7-billion GPT at a fixed batch of four million "
    "tokens, as lib.scaling computes it; the best plan that fits. Copies lead "
    "until each GPU has one sequence; cut matrices go on to eight times as many, "
    "at a price for every token. Nothing here was measured.",
    alt="Four curves of efficiency over GPUs on a logarithmic axis. Copies stay "
    "highest up to 1024 GPUs and end there; the curves with cut matrices lie "
    "lower and reach further.",
)

# %% [markdown]
# {numref}`fig-scaling-out-efficiency` is the whole argument in one picture. Copies are cheap and come
# to an end: where each GPU has one sequence, there is nothing more to deal out. Cut matrices pay for
# every token, and go on; at last the gradients of too few tokens do not hide any more. There stages
# help, bubble and all, as a GPU with fewer parameters has fewer to add up. Move the numbers yourself:
# the planner has the formulas of `lib.scaling`, and says what limits.

# %%
ScalePlanner(name="planner")

# %% [markdown]
# :::{admonition} Our remark
# :class: remark
# What this arithmetic leaves out makes real steps longer: slow GPUs that all wait for, wires
# shared with others, the optimizer, data, logits. What it doesn't know makes them shorter:
# interleaved pipelines, all-reduces that travel beside the other half of a batch. It tells bounds
# and reasons. A plan is to be measured before it is believed.
# :::

# %% [markdown]
# ## Broken on purpose
#
# :::{admonition} Broken on purpose D67: every process sees the same data
# :class: broken
# Each process seeds its generator alike and draws its own batch: all draw the same one. The batch
# is $p$ times as small as it seems. Nothing crashes, and the loss falls.
# :::


# %%
def same_seed(rank):
    return torch.randint(1000, (4,), generator=torch.Generator().manual_seed(0))


def own_share(rank):
    batch = torch.randint(1000, (8,), generator=torch.Generator().manual_seed(0))
    return batch[share(8, World(rank, 2, cpu))]


def processes_see_different_rows(draw):
    drawn = torch.cat([draw(rank) for rank in range(2)])
    distinct = drawn.unique().numel()
    assert distinct == 8, f"two processes drew {distinct} different rows, not 8"


catches("D67", processes_see_different_rows, broken=same_seed, fixed=own_share)

# %% [markdown]
# **Fix:** all draw the same batch, and each takes its `share` of it.
#
# :::{admonition} Broken on purpose D68: a mean of means
# :class: broken
# Each process takes the mean of its losses, and DDP the mean of the gradients. With unequal counts
# that is {eq}`eq-scaling-out-means`: another gradient.
# :::


# %%
def mean_of_means(sums, counts):
    return (sums / counts[:, None]).mean(0)


def sum_over_count(sums, counts):
    return sums.sum(0) / counts.sum()


def is_the_gradient_of_the_batch(combine):
    error = (combine(g, counts) - whole).norm() / whole.norm()
    assert error < 1e-12, f"the gradient is off by {error:.2f} of its length"


catches(
    "D68",
    is_the_gradient_of_the_batch,
    broken=mean_of_means,
    fixed=sum_over_count,
)

# %% [markdown]
# **Fix:** add up sums and counts, divide once. `fit` refuses means where there are several
# processes.
#
# :::{admonition} Broken on purpose D69: a checkpoint without the optimizer
# :class: broken
# Only the weights are saved. After the restart Adam's moments begin at zero, and the run jumps.
# :::


# %%
def train(stop, keep):
    """Ten steps of Adam, broken off and taken up at `stop`."""
    weight = theta.clone().requires_grad_()
    adam = torch.optim.Adam([weight], lr=0.1)
    for step in range(10):
        if step == stop:
            state = adam.state_dict()
            adam = torch.optim.Adam([weight], lr=0.1)
            if keep:
                adam.load_state_dict(state)
        adam.zero_grad()
        ((X @ weight - y) ** 2).mean().backward()
        adam.step()
    return weight.detach()


def resumes_without_a_jump(keep):
    gap = (train(5, keep) - train(None, keep)).abs().max().item()
    assert gap == 0, f"the resumed run ends {gap:.3f} away"


catches("D69", resumes_without_a_jump, broken=False, fixed=True)

# %% [markdown]
# **Fix:** save all that decides how the run goes on: weights, moments, every process's generators.
#
# :::{admonition} Broken on purpose D69b: written in place
# :class: broken
# A process is killed while it writes over the only checkpoint. Half a file is left, and no run.
# :::


# %%
def in_place(path, content):
    path.write_bytes(content[: len(content) // 2])  # and here it is killed


def beside(path, content):
    path.with_suffix(".tmp").write_bytes(content[: len(content) // 2])  # here


def a_kill_leaves_a_whole_file(write):
    path = folder / "saved"
    path.write_bytes(b"old" * 100)
    write(path, b"new" * 100)
    size = len(path.read_bytes())
    assert size == 300, f"{size} of 300 bytes are left"


catches("D69b", a_kill_leaves_a_whole_file, broken=in_place, fixed=beside)

# %% [markdown]
# **Fix:** write beside it, down to the disk, and rename. The name has the old file or the new one.
#
# :::{admonition} Broken on purpose D70: a bias in every part
# :class: broken
# The second matrix of a feed-forward layer is cut by rows, and each part adds the bias behind it.
# The all-reduce adds it $t$ times. At the start biases are zero, so nothing is seen; later the
# loss is a little worse than it should be, and a checkpoint loaded with another $t$ is another
# model.
# :::


# %%
bias = torch.randn(3, dtype=double, generator=generator)


def with_bias_each(parts):
    return sum(gelu(Z @ a) @ b + bias for a, b in parts)


def with_bias_once(parts):
    return sum(gelu(Z @ a) @ b for a, b in parts) + bias


def the_number_of_parts_does_not_matter(forward):
    results = [
        forward(list(zip(A.chunk(t, dim=1), Bm.chunk(t), strict=True)))
        for t in (1, 2, 4)
    ]
    gap = (results[2] - results[0]).norm() / bias.expand(5, 3).norm()
    assert gap < 1e-12, f"one part and four differ by {gap:.1f} biases"


catches(
    "D70",
    the_number_of_parts_does_not_matter,
    broken=with_bias_each,
    fixed=with_bias_once,
)

# %% [markdown]
# **Fix:** add it once, behind the sum.
#
# | Said | True | Source |
# |---|---|---|
# | more processes train the same model, only faster | a larger batch is another run: fewer steps, other noise; only the same batch in parts is the same model | {eq}`eq-scaling-out-gradient` |
# | FSDP costs nothing | it sends half as much again as DDP | {eq}`eq-scaling-out-traffic` |
# | a larger model hides its communication better | the model cancels; tokens a GPU decide | {eq}`eq-scaling-out-hidden` |
# | twice the GPUs, half the time | at a fixed batch traffic stays, and at $G_{1/2}$ it is half of the step | {eq}`eq-scaling-out-half` |
# | a seed makes runs equal on any number of processes | only of two, and of one in two parts, are the bits equal; others round otherwise | {eq}`eq-scaling-out-commutes` |
#
# **Told by whom, and when.** The ring is older than deep learning: it comes from clusters of
# workstations {cite:p}`patarasuk2009`, and message-passing libraries chose among such algorithms
# by length before {cite:p}`thakur2005`. So is the interval of checkpoints, of 1974
# {cite:p}`young1974`. New were the parting of Adam's state {cite:p}`rajbhandari2020` and its
# engines.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict.
#
# ```{exercise-start} The right division
# :label: ex-scaling_out-combine
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `combine(sums, counts)`: from the processes' gradients of sums (p, d) and their counts (p,),
# the gradient of the batch's mean loss, (d,).
#
# ```{dropdown} Hint
# {eq}`eq-scaling-out-gradient`: divide once.
# ```


# %% tags=["exercise-stub"]
def combine(sums, counts):
    raise NotImplementedError


grade("ex-scaling_out-combine", combine)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-scaling_out-combine
# :class: dropdown
# ```


# %% tags=["solution"]
def combine(sums, counts):
    return sums.sum(0) / counts.sum()


grade("ex-scaling_out-combine", combine)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Bytes on a link
# :label: ex-scaling_out-ring
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `link_bytes(p, b)`: the bytes that cross each link of a ring when `p` processes all-reduce
# `b` bytes.
#
# ```{dropdown} Hint
# How many steps are there, and how large is a piece?
# ```


# %% tags=["exercise-stub"]
def link_bytes(p, b):
    raise NotImplementedError


grade("ex-scaling_out-ring", link_bytes)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-scaling_out-ring
# :class: dropdown
# ```


# %% tags=["solution"]
def link_bytes(p, b):
    return 2 * (p - 1) * b / p


grade("ex-scaling_out-ring", link_bytes)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} What a process keeps
# :label: ex-scaling_out-memory
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `memory(psi, p, stage)`: the bytes that each of `p` processes keeps for `psi` parameters at
# ZeRO's stage 0 to 3, in mixed precision with Adam.
#
# ```{dropdown} Hint
# Two bytes of weight, two of gradient, twelve of optimizer. Stage 1 parts the last, stage 3 all.
# ```


# %% tags=["exercise-stub"]
def memory(psi, p, stage):
    raise NotImplementedError


grade("ex-scaling_out-memory", memory)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-scaling_out-memory
# :class: dropdown
# ```


# %% tags=["solution"]
def memory(psi, p, stage):
    kinds = [(12, 1), (2, 2), (2, 3)]  # bytes, and the stage that parts them
    return sum(b * psi / (p if stage >= first else 1) for b, first in kinds)


grade("ex-scaling_out-memory", memory)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} How many parts for a pipeline
# :label: ex-scaling_out-bubble
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `parts_needed(p, idle)`: the smallest number of parts with which a pipeline of `p` stages is
# idle for at most the share `idle` (between 0 and 1) of its time.
#
# ```{dropdown} Hint
# Solve {eq}`eq-scaling-out-bubble` for $m$, and round up. At least one part there is.
# ```


# %% tags=["exercise-stub"]
def parts_needed(p, idle):
    raise NotImplementedError


grade("ex-scaling_out-bubble", parts_needed)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-scaling_out-bubble
# :class: dropdown
# ```


# %% tags=["solution"]
def parts_needed(p, idle):
    m = 1
    while (p - 1) > idle * (m + p - 1):
        m += 1
    return m


grade("ex-scaling_out-bubble", parts_needed)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A feed-forward layer in parts
# :label: ex-scaling_out-parts
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `feed_forward_parts(X, A, a, B, b, t)`: the list of the $t$ parts' results, whose sum is
# $\mathrm{GELU}(XA + a)\,B + b$. Part $j$ may use no more than its own $t$-th of $A$, $a$ and $B$.
#
# ```{dropdown} Hint
# {eq}`eq-scaling-out-columns`. The bias $a$ is cut like $A$'s columns; who adds $b$?
# ```


# %% tags=["exercise-stub"]
def feed_forward_parts(X, A, a, B, b, t):
    raise NotImplementedError


grade("ex-scaling_out-parts", feed_forward_parts)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-scaling_out-parts
# :class: dropdown
# ```


# %% tags=["solution"]
def feed_forward_parts(X, A, a, B, b, t):
    columns = zip(A.chunk(t, dim=1), a.chunk(t), B.chunk(t), strict=True)
    gelu = torch.nn.functional.gelu
    results = [gelu(X @ A_j + a_j) @ B_j for A_j, a_j, B_j in columns]
    results[0] = results[0] + b  # once
    return results


grade("ex-scaling_out-parts", feed_forward_parts)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} A backward pass and one wire
# :label: ex-scaling_out-wire
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `last_arrival(compute, send)`: two lists of $K$ numbers, the seconds in which each bucket is
# computed and sent, in this order. Return when the last bucket has arrived, if each leaves as soon
# as it is computed and the wire is free. Buckets may differ.
#
# ```{dropdown} Hint
# Keep two clocks, the processor's and the wire's.
# ```


# %% tags=["exercise-stub"]
def last_arrival(compute, send):
    raise NotImplementedError


grade("ex-scaling_out-wire", last_arrival)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-scaling_out-wire
# :class: dropdown
# ```


# %% tags=["solution"]
def last_arrival(compute, send):
    ready = free = 0.0
    for c, s in zip(compute, send, strict=True):
        ready += c
        free = max(ready, free) + s
    return free


grade("ex-scaling_out-wire", last_arrival)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The most copies that hide
# :label: ex-scaling_out-copies
# ```
# *Difficulty ●●● · 15 minutes*
#
# Write `most_copies(tokens, flops, beta)`: the largest number $D$ of copies for which a batch of
# `tokens` tokens, one part a copy, hides its gradients but for the last bucket, with `flops`
# operations and `beta` seconds a byte. At least 1, as one copy sends nothing.
#
# ```{dropdown} Hint
# {eq}`eq-scaling-out-hidden` with $\tau$ = tokens / $D$. Multiply by $D$; round down.
# ```


# %% tags=["exercise-stub"]
def most_copies(tokens, flops, beta):
    raise NotImplementedError


grade("ex-scaling_out-copies", most_copies)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-scaling_out-copies
# :class: dropdown
# ```


# %% tags=["solution"]
def most_copies(tokens, flops, beta):
    return math.floor(1 + tokens / (flops * beta))


grade("ex-scaling_out-copies", most_copies)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - Add up sums and counts, divide once {eq}`eq-scaling-out-gradient`. A mean of means is another
#   gradient {eq}`eq-scaling-out-means`.
# - A ring moves less than two copies over each link {eq}`eq-scaling-out-ring`; a tree has fewer steps
#   {eq}`eq-scaling-out-crossing`.
# - Two processes can give one process's bits, since a sum of two commutes
#   {eq}`eq-scaling-out-commutes`. More agree within rounding.
# - ZeRO's third stage keeps $16\Psi/p$ bytes {eq}`eq-scaling-out-memory`, for half as much traffic again
#   {eq}`eq-scaling-out-traffic`.
# - Computing again saves memory, $2\sqrt{L}$ for $L$ {eq}`eq-scaling-out-root`. Weights stay in float32
#   {eq}`eq-scaling-out-lost`.
# - A layer cut by columns, then by rows, is the same layer {eq}`eq-scaling-out-columns`, for two
#   all-reduces of activations forward and two backward {eq}`eq-scaling-out-tensor-bytes`.
# - A pipeline idles at its ends {eq}`eq-scaling-out-bubble`. Save every $\sqrt{2\delta M}$ seconds
#   {eq}`eq-scaling-out-young`.
# - Gradients hide behind the backward pass if a GPU has $F\beta$ tokens in it, whatever the model
#   {eq}`eq-scaling-out-hidden`. At a fixed batch more GPUs help less and less {eq}`eq-scaling-out-step`.
#
# ## Sources
#
# - {cite:t}`patarasuk2009`: the ring, and that it is optimal in bandwidth. {cite:t}`thakur2005`: which
#   algorithm for which length.
# - {cite:t}`li2020`: DDP, its buckets and its overlap. {cite:t}`rajbhandari2020`, §5: ZeRO's three
#   stages; §7: what they send. {cite:t}`zhao2023`, §3: FSDP.
# - {cite:t}`shoeybi2019`, §3: columns, then rows; heads; two all-reduces each way.
# - {cite:t}`narayanan2021`, §2.2 and §3: the bubble, what tensor parallelism sends, and how all
#   three ways go together.
# - {cite:t}`chen2016`, §4.3: memory of the order √n. {cite:t}`micikevicius2018`, §3.1: master weights.
# - {cite:t}`huang2019`, §2.3: pipelines and their bubble. {cite:t}`young1974`: the interval of
#   checkpoints; {cite:t}`daly2006`: a higher order of it.
