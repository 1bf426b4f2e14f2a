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
#       - kill a real run and see it go on as if nothing had been
#     prerequisites:
#       - GPT (chapter 10)
#       - the training loop of lib.training, with accumulation and checkpoints
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
import math
import random
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lib import distributed
from lib.distributed import World, launch, share
from lib.teaching import (
    COLORS,
    CurveExplorer,
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
# killed on the way. What it does is explained where its results are read.

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
# L = \frac{\sum_{r=0}^{p-1} S_r}{\sum_{r=0}^{p-1} N_r}, \qquad
# S_r = \sum_{i \in B_r} \ell_i(\theta), \quad N_r = \lvert B_r \rvert .
# $$ (def-scaling-out-loss)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $p$ | a number | processes that train together; each has a rank $r = 0, \dots, p - 1$ |
# | $S_r$ | a number | sum of the losses of process $r$'s part of the batch |
# | $N_r$ | a number | how many losses that sum has |
# | $g_r$ | as $\theta$ | gradient of $S_r$, in process $r$ |
# | $\Psi$ | a number | parameters of the model |
#
# Each process computes its own $S_r$, $N_r$ and $g_r$. Everything else in this chapter is about
# adding them up: how to divide, over which wires, in which order, and where to keep the results.

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
# So it is enough to add up the $g_r$ and two numbers, and to divide once, at the end. Whoever takes
# a mean in each process and then the mean of the means computes something else. Write
# $\bar g_r = g_r / N_r$ and $w_r = N_r / \sum_s N_s$. The right gradient is the weighted mean $\sum_r
# w_r \bar g_r$; the usual one has $1/p$ for each $w_r$. They differ by
#
# $$
# \frac1p \sum_r \bar g_r - \nabla L = \sum_r \Big(\frac1p - w_r\Big)\, \bar g_r ,
# $$ (eq-scaling-out-means)
#
# which is zero where all counts are equal, and not otherwise.

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
# An *all-reduce* leaves in every process the sum of what all had. On a ring each process talks to
# its right neighbour only. Cut the vector into $p$ pieces. In $p - 1$ steps, each process sends one
# piece on, and adds what comes to its own: then each holds *one* piece of the sum, whole. That is a
# *reduce-scatter*. In $p - 1$ more steps the pieces go round once: an *all-gather*. Each step moves
# a piece of $1/p$ of the $b$ bytes over each link:
#
# $$
# \text{bytes a link} = 2\,(p - 1)\,\frac{b}{p} .
# $$ (eq-scaling-out-ring)
#
# It is less than $2b$, however many processes there are.


# %%
def ring(vectors):
    """All-reduce p lists of p numbers; return them and the messages of a link."""
    p = len(vectors)
    state = [list(v) for v in vectors]
    messages = 0
    for step in range(p - 1):  # reduce-scatter
        sent = [(r, (r - step) % p) for r in range(p)]
        values = [state[r][piece] for r, piece in sent]
        for (r, piece), value in zip(sent, values, strict=True):
            state[(r + 1) % p][piece] += value
        messages += 1
    for step in range(p - 1):  # all-gather
        sent = [(r, (r + 1 - step) % p) for r in range(p)]
        values = [state[r][piece] for r, piece in sent]
        for (r, piece), value in zip(sent, values, strict=True):
            state[(r + 1) % p][piece] = value
        messages += 1
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
# messages in a row; a binary tree, up with sums and down with results, takes $2\log_2 p$ messages,
# each of all $b$ bytes:
#
# $$
# t_{\text{ring}} = 2(p-1)\Big(\alpha + \frac{b}{p}\beta\Big), \qquad
# t_{\text{tree}} = 2 \log_2 p\,(\alpha + b\,\beta) .
# $$ (def-scaling-out-time)
#
# They are equal at
#
# $$
# b^* = \frac{\alpha}{\beta}\;\frac{(p - 1) - \log_2 p}{\log_2 p - (p-1)/p} ,
# $$ (eq-scaling-out-crossing)
#
# the tree is faster below, the ring above ({numref}`fig-scaling-out-ring`).


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
# Gradients are long vectors. DDP packs them into *buckets* of some megabytes, long enough for the
# ring, and sends a bucket as soon as its gradients are there: while the backward pass computes the
# next ones, the last travel.
#
# ### Step 3. In which order? When bits agree
#
# Addition of floating-point numbers is commutative: $a + b$ and $b + a$ are the same bits. It is
# not associative. For $p = 2$ there is only one sum, $g_0 + g_1$, and both orders of it agree:
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
# *Data parallelism* need not mean that all keep all. With Adam in mixed precision a parameter has 2
# bytes of weight, 2 of gradient, and 12 of optimizer: the float32 master weight and two moments. Under
# DDP each process keeps all 16. ZeRO keeps in each process one *shard*, a $p$-th: of the optimizer
# (stage 1), of the gradients too (stage 2), of the weights too (stage 3, which FSDP is):
#
# $$
# \begin{aligned}
# M_0 &= 16\Psi, & M_1 &= \Big(4 + \frac{12}{p}\Big)\Psi, \\
# M_2 &= \Big(2 + \frac{14}{p}\Big)\Psi, & M_3 &= \frac{16}{p}\,\Psi .
# \end{aligned}
# $$ (eq-scaling-out-memory)
#
# Stages 1 and 2 send what DDP sends: a reduce-scatter of gradients, an all-gather of weights. Stage
# 3 gathers the weights twice, for the forward and for the backward pass, and scatters gradients:
# three passes of $(p-1)/p$ and not two,
#
# $$
# \frac{C_3}{C_0} = \frac{3 (p-1)/p}{2 (p-1)/p} = \frac32 .
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
_, both = ring([[0] * 8] * 8)
check("eq-scaling-out-traffic", (both + both / 2) / both, 1.5)

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
# $L/k$ inputs and $k$ layers:
#
# $$
# A(k) = \frac{L}{k} + k, \qquad \min_k A = 2\sqrt{L} \;\text{ at }\; k = \sqrt{L} .
# $$ (eq-scaling-out-root)
#
# The price is one more forward pass.

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
# bfloat16 has 8 significant bits. Near 1 its numbers below are $2^{-8}$ apart, and an update of less
# than half of that is lost:
#
# $$
# \operatorname{bf16}(1 - u) = 1 \quad\text{for } 0 \le u < 2^{-9} .
# $$ (eq-scaling-out-lost)
#
# So the weights are kept in float32, and only computed with in bfloat16.

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
# ### Step 7. Other ways to cut: the pipeline's bubble
#
# Where layers lie in $p$ processes one after the other, a batch in $m$ parts goes through like cars
# through a factory. Of $m + p - 1$ ticks each stage works $m$:
#
# $$
# \text{idle share} = \frac{p - 1}{m + p - 1} .
# $$ (eq-scaling-out-bubble)
#
# *Tensor* parallelism cuts each matrix instead, and adds up activations twice a layer: so much
# traffic that it stays within one machine.

# %%
for p, m in ((2, 3), (4, 8), (8, 1)):
    ticks = m + p - 1
    working = [[s <= t < s + m for t in range(ticks)] for s in range(p)]
    idle = 1 - sum(map(sum, working)) / (p * ticks)
    check("eq-scaling-out-bubble", idle, (p - 1) / (m + p - 1))

# %% [markdown]
# ### Step 8. How often to save
#
# A save takes $\delta$ seconds, a failure comes every $M$ seconds. Saving every $\tau$ seconds costs
# the share $\delta/\tau$; a failure costs half an interval, $\tau/2$, every $M$ seconds. The sum is
# least where the derivative $-\delta/\tau^2 + 1/(2M)$ is zero:
#
# $$
# \tau^* = \sqrt{2\,\delta M} .
# $$ (eq-scaling-out-young)


# %%
def lost_share(tau, delta, M):
    return delta / tau + tau / (2 * M)


delta, M = 30.0, 6 * 3600.0  # assumed
best = math.sqrt(2 * delta * M)
leaf = torch.tensor(best, dtype=double, requires_grad=True)
lost_share(leaf, delta, M).backward()
check("eq-scaling-out-young", leaf.grad, 0.0)
dice = random.Random(0)


def simulated(tau, failures=4000):
    """Lost seconds of each second, with failures that come by chance."""
    lost, total = 0.0, 0.0
    for _ in range(failures):
        alive = dice.expovariate(1 / M)
        saves = alive // (tau + delta)
        total += alive
        lost += alive - saves * tau
    return lost / total


rates = {f: simulated(f * best) for f in (0.2, 1.0, 5.0)}
check("a fifth as often or five times as often is worse",
      rates[1.0] < min(rates[0.2], rates[5.0]))  # fmt: skip
glue("scaling-interval", best / 60)

# %% [markdown]
# For a save of half a minute and a failure every six hours that is every
# {glue:text}`scaling-interval:.0f` minutes.

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
# `parallelize`: DDP or FSDP2, both torch's own engines, told to add and not to average.
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
# killed by SIGKILL at step 8 ({numref}`fig-scaling-out-killed`). All ran on a CPU with gloo. On GPUs
# with nccl the same code runs, but nothing here was measured there; and bits are promised only for
# one machine, one number of threads, and two processes.
#
# :::{admonition} Our remark
# :class: remark
# torchrun keeps one store for all its starts. A process that was killed leaves its address there, and
# its successor may be looked for at the old one: many of our restarts failed so, with “connection
# refused”, until `processes` gave each start a room of its own, by a prefix. A restart that was tried
# once has not been tested.
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
# **On paper, thousands.** One gradient all-reduce of $\Psi$ parameters in bfloat16, against the time
# to compute it. The constants are assumptions, written as code, so that you can put in your own.

# %%
PSI, TOKENS, P = 7e9, 4e6, 1024  # parameters, tokens a batch, GPUs
FLOPS, USED, LINK = 1e15, 0.4, 50e9  # a second; share of it; bytes a second
compute = 6 * PSI * TOKENS / P / (FLOPS * USED)
traffic = t_ring(2 * PSI, P, ALPHA, 1 / LINK)
print(f"compute {compute:.2f} s, all-reduce {traffic:.2f} s a step")
glue("scaling-plan-compute", compute)
glue("scaling-plan-traffic", traffic)

# %% [markdown]
# With these, a step computes for {glue:text}`scaling-plan-compute:.2f` s and sends for
# {glue:text}`scaling-plan-traffic:.2f` s. Compute falls with $p$, traffic does not: where they meet,
# more GPUs for the same batch help no more, unless one hides behind the other.

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

# | Said | True | Source |
# |---|---|---|
# | more processes train the same model, only faster | a larger batch is another run: fewer steps, other noise; only the same batch in parts is the same model | {eq}`eq-scaling-out-gradient` |
# | FSDP costs nothing | it sends half as much again as DDP | {eq}`eq-scaling-out-traffic` |
# | a seed makes runs equal on any number of processes | only of two, and of one in two parts, are the bits equal; others round otherwise | {eq}`eq-scaling-out-commutes` |
#
# **Told by whom, and when.** The ring is older than deep learning: it comes from clusters of
# workstations {cite:p}`patarasuk2009`, and message-passing libraries chose among such algorithms by
# length before {cite:p}`thakur2005`. So is the interval of checkpoints, of 1974 {cite:p}`young1974`.
# New were the parting of Adam's state {cite:p}`rajbhandari2020` and its engines.

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
# - A pipeline idles at its ends {eq}`eq-scaling-out-bubble`. Save every $\sqrt{2\delta M}$ seconds
#   {eq}`eq-scaling-out-young`.
#
# ## Sources
#
# - {cite:t}`patarasuk2009`: the ring, and that it is optimal in bandwidth. {cite:t}`thakur2005`: which
#   algorithm for which length.
# - {cite:t}`li2020`: DDP, its buckets and its overlap. {cite:t}`rajbhandari2020`, §5: ZeRO's three
#   stages; §7: what they send. {cite:t}`zhao2023`, §3: FSDP.
# - {cite:t}`chen2016`, §4.3: memory of the order √n. {cite:t}`micikevicius2018`, §3.1: master weights.
# - {cite:t}`huang2019`, §2.3: pipelines and their bubble. {cite:t}`young1974`: the interval of
#   checkpoints; {cite:t}`daly2006`: a higher order of it.
