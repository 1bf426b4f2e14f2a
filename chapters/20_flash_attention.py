# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       Attention weighs every token against every other, and so has an n × n table in the middle. The
#       kernels that everybody uses never store it, not even for the backward pass. How does the same
#       formula run without ever storing its n × n table?
#     goals:
#       - say why attention waits for memory and not for arithmetic, by counting both
#       - carry the online softmax from one key at a time to tiles of queries and keys
#       - derive the backward pass that computes the weights again from one number a row
#       - count every element that moves, and prove the count Θ(n²d²/M)
#       - read a short Triton kernel, forward and backward, and test it without a GPU
#     prerequisites:
#       - the online softmax and the backward pass of attention (chapter 2, steps 5 and 7)
#       - the causal mask (chapter 2)
#     data: The language reference that ships inside Python itself (pydoc_data.topics); no download.
#     hardware: One CPU core, on which the kernel is interpreted. Runs it where there is a GPU.
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
# # Flash attention

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "attention.py").exists()
)
sys.path.insert(0, str(root))

# %% [markdown]
# The kernel of this chapter is written in Triton, a language for GPUs inside Python. Triton has an
# *interpreter* that runs a kernel on a CPU, one tile at a time, with NumPy. It is asked for by a
# variable of the environment, which is read when a kernel is *defined*. So the variable has to be
# set before the first import of `lib.flash_attention`.

# %%
import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# %% tags=["hide-input"]
import math
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np

import lib.attention
from lib.attention import (
    causal_mask,
    fast_attention,
    scaled_dot_product_attention,
)
from lib.data import (
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.flash_attention import flash_attention
from lib.losses import masked_lm_loss
from lib.models.gpt2 import GPT2, GPT2Config
from lib.teaching import (
    Progress,
    TileStepper,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS
from lib.teaching.measure import peak_bytes
from lib.teaching.tiles import (
    absorb,
    count_tiles,
    in_tiles,
    memory_of,
    standard,
    visible,
)
from lib.training import evaluate, fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# It is that of chapter 2, word for word. Nothing is approximated, and nothing is left out:
#
# $$
# S = \frac{Q K^\top}{\sqrt{d}}, \qquad P = \operatorname{softmax}(S), \qquad O = P V .
# $$ (def-flash-attention-formula)
#
# Under a causal mask query $i$ sees key $j$ if $j \le i + n_k - n_q$: the last query is aligned with
# the last key. What changes is the *order* of the work. Cut the queries into tiles of $B$ rows and
# the keys into tiles of $C$ rows. A tile of queries meets one tile of keys after the other, and
# carries three things on its way, one row for each of its queries:
#
# $$
# \begin{aligned}
# m' &= \max(m, \max_{j} S_{ij}), \\
# \ell' &= e^{m - m'} \ell + \sum_{j} e^{S_{ij} - m'}, \\
# a' &= e^{m - m'} a + \sum_{j} e^{S_{ij} - m'} v_j ,
# \end{aligned}
# $$ (def-flash-attention-tile)
#
# where $j$ runs over the keys of the tile. At the end $O_i = a / \ell$, and one more number is kept:
#
# $$
# L_i = m + \ln \ell .
# $$ (def-flash-attention-lse)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $B$ | a number | queries in a tile |
# | $C$ | a number | keys in a tile |
# | $m$ | $B$ | the largest score that each query has met |
# | $\ell$ | $B$ | the sum of its exponentials, relative to $m$ |
# | $a$ | $B \times d$ | the sum of its values under the same exponentials |
# | $L$ | $n_q$ | the logarithm of the sum below each softmax; all that is kept of $P$ |
# | $D$ | $n_q$ | $\operatorname{rowsum}(\mathrm{d}O \circ O)$, for the backward pass |
# | $M$ | a number | elements that fit into the fast memory |
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`dao2022` call this IO-aware: the aim is fewer reads and writes between the levels of a
# GPU's memory, not fewer operations (§3.1, algorithm 1; theorem 2 in §3.2 counts them). Their
# algorithm 1 walks over tiles of keys outside and tiles of queries inside. {cite:t}`dao2023` turns the
# two loops round, as we do here: then a tile of output is finished when its loop ends, and is
# written once. The paper gives the credit for this to Tillet's kernel in Triton (§3.2).
# :::
#
# :::{admonition} Our remark
# :class: remark
# Three ideas meet here, and they are not of one year. The running sum under a softmax is due to
# {cite:t}`milakov2018`. {cite:t}`rabe2021` saw that attention with it needs no $n \times n$ memory,
# with gradients too. {cite:t}`dao2022` cut it to the size of a GPU's fast memory, counted what
# moves, and wrote the kernel. {cite:t}`dao2023` and {cite:t}`shah2024` fit it to newer GPUs.
# Triton, in which ours is written, is by {cite:t}`tillet2019`.
# :::

# %% [markdown]
# ## Derivation
#
# Seven steps: why it pays, how the tiles fit together, how to go back, and what it costs.
#
# ### Step 1. Attention waits for memory
#
# A processor has a small fast memory beside its arithmetic (registers, and what a GPU calls *shared
# memory*) and a large slow one (a GPU's *HBM*). What is not in the fast one has to be fetched.
# Whether a computation waits for arithmetic or for memory is told by one ratio, the *arithmetic
# intensity*: operations for each byte that moves. A processor has a ratio of its own, its operations
# a second over its bytes a second, which on current accelerators is in the hundreds. Work of lower
# intensity leaves the arithmetic idle.
#
# Run the formula as it is written, in three passes. The first reads $Q$ and $K$ and writes $S$. The
# second reads $S$ and writes $P$. The third reads $P$ and $V$ and writes $O$. In elements,
#
# $$
# \text{moved}_{\text{table}} = 4\, n_q n_k + 2\, n_q d + 2\, n_k d .
# $$ (eq-flash-attention-table)
#
# The two products take $4\, n_q n_k d$ operations, a multiplication and an addition counted as two.
# With $n_q = n_k = n$ and $b$ bytes an element the intensity is
#
# $$
# \frac{4 n^2 d}{b\,(4 n^2 + 4 n d)} = \frac{d}{b\,(1 + d/n)} < \frac{d}{b} .
# $$ (eq-flash-attention-intensity)
#
# For $d = 64$ in half precision that is less than 32, **however long the text**. Longer vectors would
# help, longer texts do not: each of the $n^2$ weights is written and read again for the sake of a
# few operations.
#
# `lib.teaching.tiles` has a memory that counts. Whatever is read from it or written to it is added
# up, element by element; so the formula above need not be believed.

# %%
generator = torch.Generator().manual_seed(1)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


def inputs(n_q, n_k, d):
    return randn(n_q, d), randn(n_k, d), randn(n_k, d)


for n_q, n_k, d in [(23, 37, 8), (64, 64, 16), (101, 13, 4)]:
    Q, K, V = inputs(n_q, n_k, d)
    memory = memory_of(Q, K, V)
    check(
        "three passes", standard(memory), scaled_dot_product_attention(Q, K, V)
    )
    want = 4 * n_q * n_k + 2 * n_q * d + 2 * n_k * d
    check("eq-flash-attention-table", memory.moved, want)

n, d, b = 512, 64, 2
memory = memory_of(*inputs(n, n, d))
_ = standard(memory)
intensity = 4 * n * n * d / (b * memory.moved)
check("eq-flash-attention-intensity", intensity, d / (b * (1 + d / n)))
print(f"{intensity:.1f} operations a byte at n = {n}, d = {d}, 2 bytes each")

# %% [markdown]
# ### Step 2. A tile at a time
#
# Chapter 2 proved the online softmax for one more key ({eq}`eq-attention-online-sum`). The tile
# needs the same proof with a set in place of a key, so here it is. Let $T$ be the keys that a query
# has met and $T'$ those of the next tile, with scores $s_j$, and let $m_T = \max_{j \in T} s_j$,
#
# $$
# \ell_T = \sum_{j \in T} e^{s_j - m_T}, \qquad a_T = \sum_{j \in T} e^{s_j - m_T} v_j .
# $$ (def-flash-attention-invariant)
#
# **Claim.** With the updates of {eq}`def-flash-attention-tile`, $m' = m_{T \cup T'}$, $\ell' =
# \ell_{T \cup T'}$ and $a' = a_{T \cup T'}$. **Proof.** The maximum over a union is the larger of two
# maxima. For the sum, $e^{m_T - m'} e^{s_j - m_T} = e^{s_j - m'}$ for each $j$ in $T$, so
#
# $$
# \begin{aligned}
# & e^{m_T - m'} \ell_T + \sum_{j \in T'} e^{s_j - m'} \\
# & \quad = \sum_{j \in T} e^{s_j - m'} + \sum_{j \in T'} e^{s_j - m'} = \ell_{T \cup T'} .
# \end{aligned}
# $$ (eq-flash-attention-induction)
#
# With $v_j$ under the sums it is the claim for $a$. $\square$ It starts at $m = -\infty$, $\ell = 0$,
# $a = 0$, the empty set. Nothing was asked of the size or of the order of the tiles. When all keys
# are in $T$, the factor $e^{-m}$ cancels:
#
# $$
# \frac{a}{\ell} = \frac{\sum_j e^{s_j - m} v_j}{\sum_j e^{s_j - m}} = \sum_j P_{ij} v_j = O_i .
# $$ (eq-flash-attention-output)
#
# The cell follows the induction: after *every* tile the three are compared with their definition.

# %%
Q, K, V = inputs(11, 29, 8)
scores = 30 * (Q @ K.T) / math.sqrt(8)  # large, so that the maximum matters
m = torch.full((11,), -math.inf, dtype=double)
total, acc = torch.zeros(11, dtype=double), torch.zeros(11, 8, dtype=double)
found, defined = [], []
for j in range(0, 29, 5):  # tiles of 5, and a last one of 4
    m, total, acc = absorb(m, total, acc, scores[:, j : j + 5], V[j : j + 5])
    met = scores[:, : j + 5]
    relative = torch.exp(met - met.amax(-1, keepdim=True))
    found.append(torch.cat([m[:, None], total[:, None], acc], -1))
    top, bottom = met.amax(-1, keepdim=True), relative.sum(-1, keepdim=True)
    defined.append(torch.cat([top, bottom, relative @ V[: j + 5]], -1))
check("eq-flash-attention-induction", torch.stack(found), torch.stack(defined))
O = acc / total[:, None]
check("eq-flash-attention-output", O, scores.softmax(-1) @ V)

# %% [markdown]
# **Without the factor** $e^{m - m'}$ the old sums stay relative to a maximum that is no longer theirs:
# box D60 below.
#
# ### Step 3. One number a row is enough
#
# Training goes back through the softmax and needs $P$. Keeping it would bring back the table. But
# $P$ is a function of the scores and of two numbers a row, and the two are one:
#
# $$
# P_{ij} = \frac{e^{S_{ij} - m_i}}{\ell_i} = e^{S_{ij} - m_i - \ln \ell_i} = e^{S_{ij} - L_i} .
# $$ (eq-flash-attention-weights)
#
# $L_i = \ln \sum_j e^{S_{ij}}$ is the *logsumexp* of the row. Any tile of $P$ can be had again from a
# tile of $Q$, a tile of $K$ and a piece of $L$: without a sum over the row, and in any order.

# %%
L = m + total.log()
check(
    "eq-flash-attention-weights",
    torch.exp(scores - L[:, None]),
    scores.softmax(-1),
)
check("L is the logsumexp", L, torch.logsumexp(scores, -1))

# %% [markdown]
# ### Step 4. Back through the tiles
#
# Chapter 2 derived the backward pass on whole matrices. Given $\mathrm{d}O$,
#
# $$
# \begin{gathered}
# \mathrm{d}V = P^\top \mathrm{d}O, \qquad
# \mathrm{d}P = \mathrm{d}O\, V^\top, \\
# \mathrm{d}S_{ij} = P_{ij} \Big( \mathrm{d}P_{ij} - \sum_{l} P_{il}\, \mathrm{d}P_{il} \Big) .
# \end{gathered}
# $$ (eq-flash-attention-backward)
#
# All but one of these can be cut into tiles at once: entry $(i, j)$ needs row $i$ of one matrix and
# row $j$ of another. The exception is the sum over $l$: it runs along the whole row, and it would take
# a pass of its own. Here is the way out. Write the sum out, and change the order:
#
# $$
# \begin{aligned}
# D_i = \sum_{l} P_{il}\, \mathrm{d}P_{il}
# &= \sum_{l} P_{il} \sum_{c} \mathrm{d}O_{ic} V_{lc} \\
# &= \sum_{c} \mathrm{d}O_{ic} \sum_{l} P_{il} V_{lc} \\
# &= \sum_{c} \mathrm{d}O_{ic}\, O_{ic} .
# \end{aligned}
# $$ (eq-flash-attention-d)
#
# So $D = \operatorname{rowsum}(\mathrm{d}O \circ O)$: $d$ products a row, from matrices that are there
# anyway. Now every gradient is a sum over tiles. With $I$ for a tile of queries and $J$ for a tile of
# keys,
#
# $$
# \begin{aligned}
# \mathrm{d}S_{IJ} &= P_{IJ} \circ (\mathrm{d}O_I V_J^\top - D_I), \\
# \mathrm{d}Q_I &= \frac{1}{\sqrt{d}} \sum_J \mathrm{d}S_{IJ} K_J ,
# \end{aligned}
# $$ (eq-flash-attention-dq)
# $$
# \mathrm{d}K_J = \frac{1}{\sqrt{d}} \sum_I \mathrm{d}S_{IJ}^\top Q_I , \qquad
# \mathrm{d}V_J = \sum_I P_{IJ}^\top \mathrm{d}O_I .
# $$ (eq-flash-attention-dk)
#
# The first sum runs over tiles of keys and the other two over tiles of queries. A program that owns
# queries can finish $\mathrm{d}Q_I$; one that owns keys can finish $\mathrm{d}K_J$ and
# $\mathrm{d}V_J$. Each computes its tiles of $P$ again. The two programs are mirror images: exchange
# $(Q, \mathrm{d}O)$ with $(K, V)$, and $S$ becomes $S^\top$. Our kernel uses that, and is one function
# for both.


# %%
def backward_in_tiles(Q, K, V, dO, O, L, B, C):
    """All three gradients, tile by tile, from L and D: no row of P is summed."""
    scale = 1 / math.sqrt(Q.shape[1])
    D = (dO * O).sum(-1, keepdim=True)
    dQ, dK, dV = (torch.zeros_like(x) for x in (Q, K, V))
    for i in range(0, len(Q), B):
        I = slice(i, i + B)
        for j in range(0, len(K), C):
            J = slice(j, j + C)
            P = torch.exp(scale * Q[I] @ K[J].T - L[I, None])
            dS = P * (dO[I] @ V[J].T - D[I])
            dQ[I] += scale * dS @ K[J]
            dK[J] += scale * dS.T @ Q[I]
            dV[J] += P.T @ dO[I]
    return dQ, dK, dV


Q, K, V = (x.requires_grad_() for x in inputs(23, 37, 8))
S = Q @ K.T / math.sqrt(8)
S.retain_grad()
P = S.softmax(-1)
P.retain_grad()
O = P @ V
dO = randn(23, 8)
O.backward(dO)
with torch.no_grad():
    dP, D = dO @ V.T, (dO * O).sum(-1)
    whole = torch.cat([(P * (dP - (P * dP).sum(-1, keepdim=True))), dP], -1)
    check("eq-flash-attention-backward", whole, torch.cat([S.grad, P.grad], -1))
    check("eq-flash-attention-backward", P.T @ dO, V.grad)
    check("eq-flash-attention-d", D, (P * dP).sum(-1))
    L = torch.logsumexp(S, -1)
    for B, C in [(5, 7), (16, 4), (23, 37), (1, 1)]:
        dQ, dK, dV = backward_in_tiles(Q, K, V, dO, O, L, B, C)
        check("eq-flash-attention-dq", dQ, Q.grad)
        check(
            "eq-flash-attention-dk",
            torch.cat([dK, dV]),
            torch.cat([K.grad, V.grad]),
        )

# %% [markdown]
# The price is arithmetic. Forward takes two products for each tile; a backward pass that has $P$
# takes four more ($\mathrm{d}P$, $\mathrm{d}V$, $\mathrm{d}Q$, $\mathrm{d}K$), and one that recomputes
# it takes five. With two programs, as here, it takes seven, since both need $S$ and $\mathrm{d}P$.
# Flash attention does **more** operations than the formula, and is faster where memory is what one
# waits for.
#
# ### Step 5. What moves
#
# Count the elements of the forward pass. A tile of queries is read once, and its output and its $L$
# are written once: $2\, n_q d + n_q$ in all. Each of the $\lceil n_q / B \rceil$ tiles of queries reads
# all keys and all values:
#
# $$
# \text{moved}_{\text{tiles}} = 2\, n_q d + n_q + 2\, n_k d\, \Big\lceil \frac{n_q}{B} \Big\rceil .
# $$ (eq-flash-attention-tiles)
#
# The size $C$ does not occur. Larger tiles of *queries* move less; tiles of keys only have to fit. For
# long texts the last term is all that counts, about $2 n^2 d / B$ elements for $4 n^2 d$ operations, so
# the intensity is
#
# $$
# \frac{4 n^2 d}{b \cdot 2 n^2 d / B} = \frac{2 B}{b} \qquad (n \to \infty) .
# $$ (eq-flash-attention-tile-intensity)
#
# It no longer depends on $d$, but on a size that *we* choose. In half precision, $b = 2$, it is $B$
# operations a byte.
#
# How large may $B$ be? While a tile of queries is worked on, the fast memory holds that tile and $a$,
# two matrices of $B \times d$; a tile of $K$ and one of $V$, of $C \times d$ each; one tile of scores,
# $B \times C$; and $m$ and $\ell$. Take the smaller of $B$ and $d$ for $C$. With $d \ge 2$ it is
#
# $$
# \begin{aligned}
# 2Bd + 2Cd + BC + 2B &\le 2Bd + 2Bd + Bd + Bd \\
# &= 6Bd
# \end{aligned}
# $$ (eq-flash-attention-held)
#
# elements at most. So $B = \lfloor M / 6d \rfloor$ fits into a fast memory of $M$ elements. If
# $M \ge 6d$, rounding down halves at most: $B \ge M / 12d$. Put into {eq}`eq-flash-attention-tiles`
# for $n_q = n_k = n$, with $\lceil n/B \rceil \le n/B + 1$ and $n \le nd$,
#
# $$
# \begin{aligned}
# \text{moved} &\le 2nd + n + 2nd \Big( \frac{12\, n d}{M} + 1 \Big) \\
# &\le \frac{24\, n^2 d^2}{M} + 5\, nd .
# \end{aligned}
# $$ (eq-flash-attention-bound)
#
# Nor can another $B$ do much better: the tile of queries and $a$ alone need $2Bd \le M$, so at least
# $2 n^2 d / B \ge 4\, n^2 d^2 / M$ elements move. As long as $M \le nd$, the term $5nd$ is at most
# $5\, n^2 d^2 / M$, and both bounds together are the
# $\Theta(n^2 d^2 / M)$ of {cite:t}`dao2022` (§3.2, theorem 2), against $\Theta(nd + n^2)$ for the
# table. Where $d^2$ is far below $M$, it is much less; and it is still quadratic in $n$. Their
# proposition 3 adds that no exact algorithm does better for *all* sizes $M$.

# %%
print("  n_q  n_k   d    B    C      moved   table moves")
for n_q, n_k, d, B, C in [
    (64, 64, 8, 16, 16),
    (64, 64, 8, 16, 5),
    (101, 53, 8, 16, 16),
    (101, 53, 8, 7, 32),
    (30, 200, 4, 64, 64),
    (64, 64, 64, 8, 8),
]:
    Q, K, V = inputs(n_q, n_k, d)
    memory = memory_of(Q, K, V)
    for _ in in_tiles(memory, B, C):
        pass
    want = scaled_dot_product_attention(Q, K, V)
    check("attention in tiles is attention", memory.tensors["O"], want)
    formula = 2 * n_q * d + n_q + 2 * n_k * d * math.ceil(n_q / B)
    check("eq-flash-attention-tiles", memory.moved, formula)
    table = 4 * n_q * n_k + 2 * (n_q + n_k) * d
    print(f"{n_q:5}{n_k:5}{d:4}{B:5}{C:5}{memory.moved:11,}{table:14,}")


def moved_in_tiles(n, d, B):
    return 2 * n * d + n + 2 * n * d * math.ceil(n / B)


n, d, b = 2**20, 64, 2
for B in (64, 128):
    got = 4 * n * n * d / (b * moved_in_tiles(n, d, B))
    check(
        "eq-flash-attention-tile-intensity", got / (2 * B / b), 1.0, atol=1e-3
    )

d, held, bounded = 16, [], []
for M in (100, 200, 400, 800, 1536, 3100):  # B from 1 to 2 d
    B = M // (6 * d)
    C = min(B, d)
    held.append(2 * B * d + 2 * C * d + B * C + 2 * B <= 6 * B * d <= M)
    for n in (64, 160):
        memory = memory_of(*inputs(n, n, d))
        for _ in in_tiles(memory, B, C):
            pass
        unit = n * n * d * d / M
        bounded.append(4 * unit <= memory.moved <= 24 * unit + 5 * n * d)
check("eq-flash-attention-held", all(held))
check("eq-flash-attention-bound", all(bounded))

# %% [markdown]
# The last row shows a thing that is easily missed: with tiles that are *small* against $d$ the tiled
# version moves more than the table. Compare $2 n^2 d / B$ with the table's $4 n^2$: what makes it
# worthwhile is $B \gg d/2$, and a fast memory that holds it. {numref}`fig-flash-attention-traffic` has
# the count for a longer text.

# %% tags=["hide-input"]
n, d = 1024, 64
blocks = [8, 16, 32, 64, 128, 256]
counted = []
for B in blocks:
    memory = memory_of(*inputs(n, n, d))
    for _ in in_tiles(memory, B, 128):
        pass
    counted.append(memory.moved)
table = 4 * n * n + 4 * n * d
fig, ax = plt.subplots(figsize=(4.3, 3.0))
fine = np.arange(8, 257)
ax.plot(
    fine, [moved_in_tiles(n, d, B) / 1e6 for B in fine], color=COLORS["query"]
)
ax.plot(
    blocks,
    np.array(counted) / 1e6,
    "o",
    color=COLORS["query"],
    label="in tiles, counted",
)
ax.axhline(table / 1e6, ls="--", color=COLORS["key"], label="with the table")
ax.axhline(
    4 * n * d / 1e6,
    ls=":",
    color=COLORS["reference"],
    label="$Q$, $K$, $V$, $O$ once",
)
ax.set(
    xscale="log",
    yscale="log",
    xlabel="queries in a tile, $B$",
    ylabel="million elements moved",
)
ax.set_xticks(blocks, [str(B) for B in blocks])
ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-flash-attention-traffic",
    caption="Elements read and written in one forward pass of a head with "
    "$n = 1024$ and $d = 64$. Points are counted by a memory that counts, the "
    "line is the closed form.",
    alt="A falling line with six points on it, over the size of query tiles "
    "from 8 to "
    "256. It crosses the level of the table near B = 32 and nears the level "
    "of "
    "reading every input once.",
)
assert counted == [moved_in_tiles(n, d, B) for B in blocks]
glue("flash-block", 128)
glue("flash-moved-ratio", table / counted[blocks.index(128)])
crossing = next(B for B in fine.tolist() if moved_in_tiles(n, d, B) < table)
glue("flash-crossing", crossing)

# %% [markdown]
# With {glue:text}`flash-block:.0f` queries in a tile the table moves
# {glue:text}`flash-moved-ratio:.1f` times as much; below
# $B =$ {glue:text}`flash-crossing:.0f` the tiles move more than the table would.
#
# ### Step 6. Half of the tiles, if the future is hidden
#
# Under a causal mask tiles come in three kinds. If the *last* key of a tile is visible to its *first*
# query, all is visible, and no mask is needed. If the *first* key is hidden from the *last* query, all
# is hidden, and the tile is not even loaded. Only those on the diagonal need the mask
# ({numref}`fig-flash-attention-causal`). For
# $n_q = n_k = n$ and square tiles that divide $n$, with $N = n / B$ of them on a side, row $I$ of tiles
# has $I + 1$ that count, so
#
# $$
# \frac{\text{tiles loaded}}{\text{all tiles}} = \frac{1}{N^2} \sum_{I=0}^{N-1} (I + 1)
# = \frac{N + 1}{2N} \;\to\; \frac12 .
# $$ (eq-flash-attention-causal)
#
# In general, with $\sigma = n_k - n_q$, the tile of queries from $i$ on has
#
# $$
# \begin{aligned}
# & \text{keys to load} = \min(i + B + \sigma,\; n_k), \\
# & \text{of them without a mask} \\
# & \quad = C \left\lfloor \frac{\min(i + 1 + \sigma,\; n_k)}{C} \right\rfloor ,
# \end{aligned}
# $$ (eq-flash-attention-limits)
#
# both taken as zero where they are negative. The first says what the last query sees, the second
# rounds down what the first one sees.

# %%
for N in (1, 4, 16, 64):
    counts = count_tiles(8 * N, 8 * N, 8, 8, causal=True)
    loaded = counts["whole"] + counts["masked"]
    check("eq-flash-attention-causal", loaded / N**2, (N + 1) / (2 * N))

for n_q, n_k, B, C in [(40, 40, 8, 8), (37, 53, 8, 5), (53, 37, 16, 6)]:
    mask, sigma = causal_mask(n_q, n_k), n_k - n_q
    limits, want = [], []
    for i in range(0, n_q, B):
        rows = mask[i : i + B]
        any_sees, all_see = int(rows.any(0).sum()), int(rows.all(0).sum())
        want.append((any_sees, all_see // C * C))
        last = max(min(min(i + B, n_q) + sigma, n_k), 0)
        limits.append((last, max(min(i + 1 + sigma, n_k), 0) // C * C))
    check("eq-flash-attention-limits", torch.tensor(limits), torch.tensor(want))
    memory = memory_of(*inputs(n_q, n_k, 8))
    seen = [t.masked for t in in_tiles(memory, B, C, causal=True)]
    counts = count_tiles(n_q, n_k, B, C, causal=True)
    assert (seen.count(False), seen.count(True)) == (
        counts["whole"],
        counts["masked"],
    )
    print(f"n_q = {n_q}, n_k = {n_k}, tiles of {B} × {C}: {counts}")

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(5.1, 3.1))
shades = {"whole": ("weights", 0.95), "masked": ("weights", 0.45)}
for ax, (n_q, n_k) in zip(axes, [(32, 32), (16, 32)], strict=True):
    mask = causal_mask(n_q, n_k)
    for i in range(0, n_q, 4):
        for j in range(0, n_k, 4):
            tile = mask[i : i + 4, j : j + 4]
            if tile.any():
                color, alpha = shades["whole" if tile.all() else "masked"]
                box = plt.Rectangle(
                    (j, i), 3.6, 3.6, color=COLORS[color], alpha=alpha, lw=0
                )
            else:
                box = plt.Rectangle(
                    (j, i), 3.6, 3.6, fill=False, ec=COLORS["reference"]
                )
            ax.add_patch(box)
    ax.set(xlim=(-1, n_k + 1), ylim=(n_q + 1, -1), aspect="equal", xlabel="key")
    ax.set_title(f"$n_q = {n_q}$, $n_k = {n_k}$")
axes[0].set_ylabel("query")
show_figure(
    fig,
    name="fig-flash-attention-causal",
    caption="Tiles of 4 × 4 under a causal mask: strong ones are whole, pale "
    "ones need the mask, "
    "empty ones are never loaded. Right: with fewer queries than keys the "
    "diagonal ends in the "
    "same corner.",
    alt="Two grids of tiles. Left, a square one: filled below the diagonal, "
    "pale on it, empty "
    "above. Right, half as high: the pale diagonal runs from the middle of "
    "the top to the lower "
    "right corner.",
)

# %% [markdown]
# ### Step 7. Exact, up to rounding
#
# Steps 2 to 4 hold as equations between real numbers, so there is nothing approximate in flash
# attention: the error is that of the arithmetic. Is it larger, since sums are rescaled again and
# again? A rescaling multiplies by a rounded number, and there are at most as many as there are tiles.
# On the other side, the sums stay in single precision, whereas the table in half precision rounds each
# score and each weight on its way through memory. In the section on the library function both are
# measured against double precision.

# %% [markdown]
# ## From scratch
#
# One query tile of two, keys in tiles of two, $d = 1$, in plain Python. The queries are 1 and 2; the
# keys $0, 1, 3, 2$; the values $10, 20, 30, 40$. Since $d = 1$, there is no root to divide by.

# %%
queries, keys, values = (
    [1.0, 2.0],
    [0.0, 1.0, 3.0, 2.0],
    [10.0, 20.0, 30.0, 40.0],
)
m, total, acc = [-math.inf] * 2, [0.0] * 2, [0.0] * 2
for j in range(0, 4, 2):  # the tile of keys j and j + 1
    for i in range(2):
        tile = [queries[i] * keys[j + c] for c in range(2)]
        new = max(m[i], *tile)
        old = math.exp(m[i] - new)  # e^(−∞) = 0 at the first tile
        p = [math.exp(s - new) for s in tile]
        total[i] = old * total[i] + sum(p)
        acc[i] = old * acc[i] + sum(p[c] * values[j + c] for c in range(2))
        m[i] = new
        print(
            f"keys {j}-{j + 1}, query {i}: scores {tile}  factor {old:.4f}  "
            f"m {m[i]:.0f}  ℓ {total[i]:.4f}  a {acc[i]:7.4f}"
        )
output = [a / t for a, t in zip(acc, total, strict=True)]
print("output:", [round(o, 4) for o in output])

Q, K, V = (
    torch.tensor(x, dtype=double)[:, None] for x in (queries, keys, values)
)
want = scaled_dot_product_attention(Q, K, V)
check("by hand", torch.tensor(output, dtype=double)[:, None], want)

# %% [markdown]
# In the second tile query 1 meets a score of 6, and its old sums shrink by $e^{2-6}$: what looked
# large was small. Query 0 sees less of a change.
# {numref}`fig-flash-attention-row` below follows one query for longer.
#
# Step through a larger example yourself. Choose the size of the tiles and whether the future is
# hidden. The picture shows which tiles are loaded, the table what each query of the tile carries, and
# the line below how much has moved.

# %%
TileStepper(n=12, d=4, sizes=(2, 3, 4, 6), name="tile-stepper")

# %% tags=["hide-input"]
draw = torch.Generator().manual_seed(0)
Q, K, V = (torch.randn(n, 16, generator=draw, dtype=double) for n in (4, 96, 96))
Q = 2 * Q
memory = memory_of(Q, K, V)
steps = list(in_tiles(memory, 4, 8))
lse = torch.stack([t.maximum + t.total.log() for t in steps])
fig, axes = plt.subplots(2, 1, figsize=(4.3, 4.2), sharex=True)
place = range(1, len(steps) + 1)
axes[0].step(
    place,
    [t.maximum[0] for t in steps],
    where="mid",
    color=COLORS["query"],
    label="$m$",
)
axes[0].plot(
    place, lse[:, 0], "--", color=COLORS["scores"], label="$m + \\ln \\ell$"
)
axes[0].set_ylabel("of query 0")
axes[0].legend()
want = scaled_dot_product_attention(Q, K, V)
far = [(t.accumulator / t.total[:, None] - want).norm(dim=-1)[0] for t in steps]
axes[1].plot(place, far, "o-", color=COLORS["output"])
axes[1].set(xlabel="tiles of keys met", ylabel="distance of $a/\\ell$ to $O$")
show_figure(
    fig,
    name="fig-flash-attention-row",
    caption="One query on its way through twelve tiles. The maximum climbs in "
    "steps, the logarithm of the sum with every tile. The quotient $a/\\ell$ is "
    "attention over the keys met so far. Not every tile brings it nearer to the "
    "output; after the last one it is there.",
    alt="Above, a staircase and a dashed curve, both rising. Below, a line "
    "that rises once and then falls to zero at the twelfth tile.",
)
check("the last logarithm is L", lse[-1], memory.tensors["L"])
assert far[-1] < 1e-12 and min(far[:-1]) > 1e-6
largest = torch.stack([t.maximum[0] for t in steps])
assert (largest.diff() > 0).sum() > 2  # a staircase

# %% [markdown]
# ## The library function
#
# `lib.flash_attention` is one short module: two kernels, the function of autograd that launches
# them, and a contract. A *program* is one run of a kernel; Triton starts as many as the grid says, side
# by side on a GPU, one after the other in the interpreter. In a program, variables are whole tiles.
#
# **A tile of scores.** `tl.dot` is a product of tiles, added up in single precision. Where the tile is
# not whole, what must not be seen gets $-\infty$: keys behind the end, and the future. Without a causal
# mask `shift` is so large that $j \le i + \text{shift}$ is always true, so there is one rule for both.
#
# ```{lib-source} lib.flash_attention._scores
# ```
#
# **Forward.** The two limits are those of {eq}`eq-flash-attention-limits`. The loop over `MASKED` is
# unrolled when the kernel is compiled: first the tiles that all queries see, without any mask, then the
# rest with it. Exponentials are powers of two, because that is what the hardware has: $e^x =
# 2^{x \log_2 e}$, and the factor is folded into the scale $1/\sqrt{d}$. So `L` is in base two as well.
#
# ```{lib-source} lib.flash_attention._forward
# ```
#
# **Backward.** One kernel for both kinds of program, by the mirror image of step 4. It owns `B` rows of
# `X` and `Y` and walks over tiles of `Z` and `W`. For queries these are $Q$, $\mathrm{d}O$, $K$, $V$;
# with `KEYS` they are $K$, $V$, $Q$, $\mathrm{d}O$, scores are transposed, and `E`, our $D$, lies along
# the other side.
#
# ```{lib-source} lib.flash_attention._backward
# ```
#
# **Around them.** $D$ is one line of PyTorch. The context keeps the inputs, the output and `lse`:
# nothing of size $n_q n_k$.
#
# ```{lib-source} lib.flash_attention._FlashAttention
# ```
#
# ```{lib-source} lib.flash_attention.flash_attention
# ```
#
# Now the test that it is the same function. In the interpreter tiles are small (32 × 16), so that
# short texts have many. We try both alignments, with more keys than queries and the other way round,
# and head widths that are no powers of two.


# %%
def with_gradients(function, inputs, dO):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    output = function(*inputs)
    return output.detach(), *torch.autograd.grad(output, inputs, dO.to(output))


def formula(causal):
    def attention(Q, K, V):
        mask = (
            causal_mask(Q.shape[-2], K.shape[-2], device=Q.device)
            if causal
            else None
        )
        return scaled_dot_product_attention(Q, K, V, mask)

    return attention


def flash(causal):
    return lambda Q, K, V: flash_attention(Q, K, V, causal=causal)


def relative_errors(got, want):
    return [
        (
            (a.double().cpu() - b.double().cpu()).norm()
            / b.double().cpu().norm()
        ).item()
        for a, b in zip(got, want, strict=True)
    ]


print("n_q  n_k    d  causal     output        dQ        dK        dV")
for n_q, n_k, d, causal in [
    (37, 53, 32, False),
    (37, 53, 64, True),
    (53, 37, 40, True),
    (65, 65, 128, True),
]:
    x = inputs(n_q, n_k, d)
    dO = randn(n_q, d)
    want = with_gradients(formula(causal), x, dO)
    single = [y.float().to(device) for y in x]
    errors = relative_errors(with_gradients(flash(causal), single, dO), want)
    print(
        f"{n_q:3}{n_k:5}{d:5}{causal!s:>8}  "
        + " ".join(f"{e:9.1e}" for e in errors)
    )
    check("flash attention is attention", max(errors), 0.0, atol=3e-6)

# %% [markdown]
# **What was run, and what was not.** No GPU was lent to us when this chapter was written. On a CPU the
# interpreter checks the arithmetic, tile for tile, here and in the tests of `lib`. Once, when the kernel
# was written, Triton's compiler also translated it, with every size of tile, for a Hopper GPU, and its
# output used that GPU's matrix instructions; this page does not repeat it. But the kernel **was not run
# on a GPU**, and no speed was measured. The time that the interpreter takes means
# nothing, so we don't print it. Where there is a GPU, this chapter runs the same checks on it, and
#
# ```
# make bench DEVICE=cuda
# ```
#
# compares its speed with PyTorch's kernels. Our target was four fifths of the best of them. It is
# **not known** whether it is met: PyTorch's use instructions for copying (*TMA*) and for overlapping
# softmax with products, which {cite:t}`shah2024` describe and which our plain pointers leave unused.
#
# ### Half precision
#
# How wrong is it in half precision? Three ways to compute from the same rounded inputs, each against
# double precision: our kernel, which adds up in single precision; the formula of `lib`, which does all
# in single precision and rounds at the end; and the formula as one would write it down, with a table in
# half precision.


# %%
def table_in_half(Q, K, V):
    scores = Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1])  # rounded
    return scores.softmax(-1) @ V  # and the weights too


ways = {
    "flash": flash(False),
    "formula": formula(False),
    "table": table_in_half,
}
sizes = [32, 64, 128, 256]
errors = {name: [] for name in ways}
for n in sizes:
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        Q, K, V = (
            torch.randn(1, n, 64, generator=draw).half() for _ in range(3)
        )
        Q = 2 * Q
        want = scaled_dot_product_attention(Q.double(), K.double(), V.double())
        for name, way in ways.items():
            got = way(*(x.to(device) for x in (Q, K, V))).double().cpu()
            errors[name].append(((got - want).norm() / want.norm()).item())
mean_error = {name: np.reshape(e, (4, 3)).mean(1) for name, e in errors.items()}
for name in ways:
    print(f"{name:8}", "  ".join(f"{e:.1e}" for e in mean_error[name]))
    glue(f"flash-half-{name}", 1e4 * mean_error[name][-1])
check(
    "the table in half precision is worst",
    mean_error["table"][-1] > mean_error["flash"][-1],
)
check("flash is as good as its format", mean_error["flash"].max() < 2**-10)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 2.9))
looks = {
    "flash": ("o-", "query"),
    "formula": ("s--", "value"),
    "table": ("^:", "key"),
}
for name, (line, color) in looks.items():
    ax.plot(sizes, mean_error[name], line, color=COLORS[color], label=name)
    for k, n in enumerate(sizes):
        three = errors[name][3 * k : 3 * k + 3]
        ax.plot([n] * 3, three, "_", color=COLORS[color], markersize=10)
ax.axhline(
    2**-11, color=COLORS["reference"], ls="-.", label="half a unit, $2^{-11}$"
)
ax.set(
    xscale="log",
    yscale="log",
    xlabel="sequence length $n$",
    ylabel="relative error",
)
ax.set_xticks(sizes, [str(n) for n in sizes])
ax.set_yticks([2e-4, 5e-4, 1e-3], ["2e−4", "5e−4", "1e−3"])
ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-flash-attention-half",
    caption="Relative error in half precision against double precision, mean "
    "of three seeds; dashes "
    "are the seeds. The kernel stays below what rounding a number once may "
    "cost.",
    alt="Three nearly level lines over n from 32 to 256. The table in half "
    "precision is highest; "
    "flash and the formula lie below the level of half a unit in the last "
    "place.",
)

# %% [markdown]
# At $n = 256$ the relative error is {glue:text}`flash-half-flash:.1f` · 10⁻⁴ for the kernel,
# {glue:text}`flash-half-formula:.1f` · 10⁻⁴ for the formula in single precision, and
# {glue:text}`flash-half-table:.1f` · 10⁻⁴ with the table in half precision
# ({numref}`fig-flash-attention-half`). Between the first two lies one rounding: the kernel rounds each
# weight to half precision before it meets the values, because that is what the matrix unit takes.

# %% [markdown]
# ## On real data
#
# ### A language model does not notice
#
# Three small models of GPT's kind are trained for a moment on the language reference, with PyTorch's
# kernels. Then we swap ours in. `lib`'s multi-head attention calls `fast_attention`; for the length of
# a `with` statement, that name means our kernel. Everything else stays: weights, text, mask.


# %%
@contextmanager
def attention_by(function):
    """Let every attention layer of lib call this function instead."""

    def swapped(Q, K, V, mask=None, *, causal=False, dropout=0.0):
        assert mask is None and dropout == 0
        calls.append(Q.shape)
        return function(Q, K, V, causal=causal)

    kept = lib.attention.fast_attention
    lib.attention.fast_attention = swapped
    try:
        yield
    finally:
        lib.attention.fast_attention = kept


text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
train_ids = vocabulary.encode(text.train).to(device)
length = 48
held_out = consecutive_windows(
    vocabulary.encode(text.validation).to(device)[: 32 * length + 1], length
)
calls = []


def small_gpt(seed):
    torch.manual_seed(seed)
    config = GPT2Config(
        len(vocabulary.characters),
        d_model=64,
        num_layers=2,
        num_heads=2,
        max_length=length,
        embedding_dropout=0.0,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=64**-0.5,
        eos_token_id=None,
    )
    return GPT2(config).to(device)


def gradients(model, inputs, targets):
    model.zero_grad()
    masked_lm_loss(model(inputs), targets).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


# %% tags=["nbval-ignore-output"]
models = []
for seed in range(3):
    model, draws = small_gpt(seed), torch.Generator().manual_seed(seed)

    def batch_loss(step, model=model, draws=draws):
        inputs, targets = random_windows(train_ids, 8, length, draws)
        return masked_lm_loss(model(inputs), targets)

    fit(
        model,
        batch_loss,
        steps=60,
        learning_rate=6e-3,
        progress=lambda loop: Progress(loop, label="pre-training"),
    )
    models.append(model.eval())

# %%
two = [x[:2] for x in held_out]
bits, logit_gaps, gradient_gaps, letters = [], [], [], []
for model in models:
    bits.append(evaluate(model, *held_out) / math.log(2))
    with torch.no_grad():
        want = model(two[0])
    want_gradient = gradients(model, *two)
    with attention_by(flash_attention):
        with torch.no_grad():
            got = model(two[0])
        got_gradient = gradients(model, *two)
    logit_gaps.append((got - want).abs().max().item())
    letters.append((got.argmax(-1) == want.argmax(-1)).float().mean().item())
    gap = (got_gradient - want_gradient).norm() / want_gradient.norm()
    gradient_gaps.append(gap.item())
check(
    "the kernel was called for every layer, twice a model",
    len(calls),
    3 * 2 * 2,
)
check("the models have learned something", max(bits) < 4.6)
check("logits are the same", max(logit_gaps), 0.0, atol=1e-4)
check("gradients are the same", max(gradient_gaps), 0.0, atol=1e-4)
print("heads:", tuple(calls[0]))
print("most likely letter the same:", letters)
glue("flash-bits-low", min(bits))
glue("flash-bits-high", max(bits))
glue("flash-logit-gap", 1e6 * max(logit_gaps))
glue("flash-gradient-gap", 1e7 * max(gradient_gaps))

# %% [markdown]
# The three models reach {glue:text}`flash-bits-low:.2f` to {glue:text}`flash-bits-high:.2f` bits a
# character on text that they have not seen. With our kernel inside, no logit moves by more than
# {glue:text}`flash-logit-gap:.1f` · 10⁻⁶, and the gradient of all weights together by
# {glue:text}`flash-gradient-gap:.1f` · 10⁻⁷ of its length, for the worst of the three. That is
# rounding in single precision. The queries here are strided views of one projection; the function
# copies what is not contiguous.
#
# ### What is kept for the backward pass
#
# The claim of this chapter is about memory, and it can be tested without a GPU: what a function keeps
# for its backward pass is known to autograd, whoever computes it. With a hook we add up the bytes of all
# that is saved, each tensor once. For one head and single precision, flash attention keeps $Q$, $K$,
# $V$, $O$ and $L$:
#
# $$
# \text{kept} = 4\,(2\, n_q d + 2\, n_k d + n_q) \ \text{bytes} ,
# $$ (eq-flash-attention-kept)
#
# and the formula at least its table of weights, $4\, n_q n_k$ bytes.


# %%
def kept_bytes(function, *inputs):
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = function(*inputs)
    total = sum(storage.nbytes() for storage in kept.values())
    return total + 0 * output.shape[0]


def head(n, d=64):
    return [randn(1, n, d).float().to(device) for _ in range(3)]


kept = {"formula": [], "flash": []}
small = [32, 64, 128, 256]
for n in small:
    Q, K, V = head(n)
    kept["formula"].append(kept_bytes(scaled_dot_product_attention, Q, K, V))
    kept["flash"].append(kept_bytes(flash_attention, Q, K, V))
    check("eq-flash-attention-kept", kept["flash"][-1], 4 * (4 * n * 64 + n))
    assert kept["formula"][-1] >= 4 * n * n

# %% [markdown]
# At the peak of a whole step, forward and backward, PyTorch's own flash kernel shows what the method is
# worth on longer texts. (In the interpreter our kernel's tiles are NumPy arrays that no allocator of
# PyTorch sees, so its peak would be too flattering. On a GPU the chapter measures it as well.)


# %%
def step_of(function):
    def step(Q, K, V):
        function(Q, K, V).sum().backward()

    return step


peaks = {
    "formula": scaled_dot_product_attention,
    "PyTorch's kernel": fast_attention,
}
if device.type == "cuda":
    peaks["our kernel"] = flash_attention
long = [256, 512, 1024, 2048]
memory_used = {name: [] for name in peaks}
for n in long:
    x = [y.requires_grad_() for y in head(n)]
    for name, function in peaks.items():
        memory_used[name].append(peak_bytes(step_of(function), *x) / 2**20)
        for y in x:
            y.grad = None


def exponent(sizes, y):
    """Slope of log y over log n: y grows like n to this power."""
    return np.polyfit(np.log(sizes), np.log(y), 1)[0]


check(
    "the formula's peak is quadratic",
    1.7 < exponent(long, memory_used["formula"]) < 2.1,
)
for name in list(peaks)[1:]:
    check(
        "a flash kernel's peak is linear",
        0.8 < exponent(long, memory_used[name]) < 1.2,
    )
check(
    "what flash keeps is linear", exponent(small, kept["flash"]), 1.0, atol=1e-9
)
glue("flash-peak-formula", exponent(long, memory_used["formula"]))
glue("flash-peak-fused", exponent(long, memory_used["PyTorch's kernel"]))
glue("flash-kept-formula", exponent(small, kept["formula"]))
glue(
    "flash-peak-ratio",
    memory_used["formula"][-1] / memory_used["PyTorch's kernel"][-1],
)
glue("flash-n-max", long[-1])

# %% tags=["hide-input", "nbval-ignore-output"]
fig, axes = plt.subplots(1, 2, figsize=(5.1, 3.0))
for name, marker, color in [
    ("formula", "o-", "key"),
    ("flash", "s--", "query"),
]:
    axes[0].plot(
        small,
        np.array(kept[name]) / 2**10,
        marker,
        color=COLORS[color],
        label=name,
    )
axes[0].set(title="kept for backward", ylabel="KiB")
looks = {
    "formula": ("o-", "key"),
    "PyTorch's kernel": ("^:", "value"),
    "our kernel": ("s--", "query"),
}
for name, y in memory_used.items():
    axes[1].plot(
        long, y, looks[name][0], color=COLORS[looks[name][1]], label=name
    )
axes[1].set(title="peak of a step", ylabel="MiB")
for ax, ns in zip(axes, [small, long], strict=True):
    ax.set(xscale="log", yscale="log", xlabel="length $n$")
    ax.set_xticks(ns, [str(n) for n in ns])
    ax.margins(y=0.25)  # room for the legend
    ax.legend(fontsize=9, loc="upper left")
axes[0].set_yticks([50, 100, 200, 400], ["50", "100", "200", "400"])
for ax in axes:
    ax.minorticks_off()
show_figure(
    fig,
    name="fig-flash-attention-memory",
    caption="Memory of one head of width 64 in single precision. Left: what "
    "autograd keeps for the "
    "backward pass, with our kernel and with the formula. Right: the peak of "
    "forward and backward.",
    alt="Two log-log charts over the length. Left, the two lines cross near "
    "n = 64, and the formula's ends well above that of flash. Right, the "
    "formula's line is about twice as steep as that of the fused kernel.",
)

# %% [markdown]
# The formula's peak grows like $n$ to the power {glue:text}`flash-peak-formula:.2f`, that of PyTorch's
# kernel like {glue:text}`flash-peak-fused:.2f`; at $n =$ {glue:text}`flash-n-max:.0f` the ratio is
# {glue:text}`flash-peak-ratio:.0f` ({numref}`fig-flash-attention-memory`). What our kernel keeps is
# linear in $n$ to the last byte. Over the short lengths on the left the formula's own exponent is only
# {glue:text}`flash-kept-formula:.2f`: with $d = 64$ the table has not yet outgrown its inputs.

# %% [markdown]
# ## Broken on purpose
#
# Four mistakes that are easily made in a tile. Three live in the function below, which is right as long
# as nothing is asked of it, and the fourth in the backward pass of step 4. Each of them gives numbers
# of a plausible size, and each passes *some* test.


# %%
def tiled(
    Q,
    K,
    V,
    *,
    B=4,
    C=4,
    causal=False,
    rescale=True,
    align="last",
    pad_mask=True,
):
    """Attention in tiles of one size, padded at the end as a kernel's are."""
    (n_q, d), n_k = Q.shape, len(K)
    K, V = (torch.cat([x, x.new_zeros(-n_k % C, d)]) for x in (K, V))
    shift = (n_k - n_q if align == "last" else 0) if causal else n_k + C
    outputs = []
    for i in range(0, n_q, B):
        rows = range(i, min(i + B, n_q))
        m = Q.new_full((len(rows),), -math.inf)
        total, acc = Q.new_zeros(len(rows)), Q.new_zeros(len(rows), d)
        for j in range(0, len(K), C):
            scores = Q[i : i + B] @ K[j : j + C].T / math.sqrt(d)
            seen = visible(rows, range(j, j + C), shift)
            if pad_mask:
                seen = seen & (torch.arange(j, j + C) < n_k)
            scores = scores.masked_fill(~seen, -math.inf)
            before = acc, total
            m, total, acc = absorb(m, total, acc, scores, V[j : j + C])
            if not rescale:
                p = torch.exp(scores - m[:, None]).nan_to_num(0.0)
                acc = before[0] + p @ V[j : j + C]
                total = before[1] + p.sum(-1)
        outputs.append(acc / torch.where(total == 0, 1.0, total)[:, None])
    return torch.cat(outputs)


def off_by(attention, n_q, n_k, causal=False):
    """The largest error, on inputs drawn afresh from one seed."""
    draw = torch.Generator().manual_seed(3)
    Q, K, V = (
        torch.randn(n, 8, generator=draw, dtype=double) for n in (n_q, n_k, n_k)
    )
    want = formula(causal)(3 * Q, K, V)
    return (attention(3 * Q, K, V, causal=causal) - want).abs().max().item()


check("the function is right", off_by(tiled, 10, 13, causal=True), 0.0)

# %% [markdown]
# :::{admonition} Broken on purpose D60: the maximum moves, the sums do not
# :class: broken
# A new maximum is taken for the new tile, and the old sums are not scaled to it. With one tile of keys
# nothing is wrong. With several, what came before a rise of the maximum counts too much, by up to
# $e^{m' - m}$.
# :::


# %%
def not_rescaled(Q, K, V, **options):
    return tiled(Q, K, V, rescale=False, **options)


def several_tiles_are_one(attention):
    error = off_by(attention, 8, 16)
    assert error < 1e-12, f"four tiles of keys: an output is off by {error:.2f}"


check("with one tile of keys it is right", off_by(not_rescaled, 8, 4), 0.0)
catches("D60", several_tiles_are_one, broken=not_rescaled, fixed=tiled)

# %% [markdown]
# **Fix:** multiply $\ell$ and $a$ by $e^{m - m'}$, {eq}`eq-flash-attention-induction`. The test needs
# more than one tile of keys, and scores large enough that the maximum moves.
#
# :::{admonition} Broken on purpose D61: the diagonal in the wrong corner
# :class: broken
# “Causal” as $j \le i$, aligned at the upper left. In training, where $n_q = n_k$, nobody notices. In
# generation one new query comes with a thousand earlier keys, and sees exactly one of them.
# :::


# %%
def upper_left(Q, K, V, **options):
    return tiled(Q, K, V, align="first", **options)


def the_last_query_sees_all(attention):
    error = off_by(attention, 3, 13, causal=True)
    assert error < 1e-12, f"3 queries, 13 keys: an output is off by {error:.2f}"


check(
    "with as many queries as keys it is right",
    off_by(upper_left, 9, 9, True),
    0.0,
)
catches("D61", the_last_query_sees_all, broken=upper_left, fixed=tiled)

# %% [markdown]
# **Fix:** $j \le i + n_k - n_q$. `is_causal=True` of PyTorch's function aligns at the upper left, and
# early versions of FlashAttention's own code did too: a reason to test both $n_q < n_k$ and
# $n_q > n_k$ whenever a kernel is exchanged.
#
# :::{admonition} Broken on purpose D62: padding that counts
# :class: broken
# The last tile of keys is filled up with zeros. A zero vector has score 0, and $e^0 = 1$: padding takes
# weight, and its value is zero, so every output shrinks. At lengths that the tile divides, all is well.
# :::


# %%
def padding_counts(Q, K, V, **options):
    return tiled(Q, K, V, pad_mask=False, **options)


def any_length_will_do(attention):
    error = off_by(attention, 8, 13)
    assert error < 1e-12, (
        f"13 keys in tiles of 4: an output is off by {error:.2f}"
    )


check("with 12 keys it is right", off_by(padding_counts, 8, 12), 0.0)
catches("D62", any_length_will_do, broken=padding_counts, fixed=tiled)

# %% [markdown]
# **Fix:** mask by $j < n_k$ as well. Test lengths that are prime.
#
# :::{admonition} Broken on purpose D63: a backward pass without D
# :class: broken
# $\mathrm{d}S = P \circ \mathrm{d}P$, as if the softmax had no denominator. The forward pass is right,
# $\mathrm{d}V$ is right, and the loss may even fall for a while.
# :::


# %%
def without_d(Q, K, V, dO, O, L):
    return backward_in_tiles(Q, K, V, dO, 0 * O, L, 4, 4)  # D = rowsum(dO ∘ 0)


def with_d(Q, K, V, dO, O, L):
    return backward_in_tiles(Q, K, V, dO, O, L, 4, 4)


def gradients_are_autograds(backward):
    draw = torch.Generator().manual_seed(4)
    Q, K, V, dO = (
        torch.randn(9, 8, generator=draw, dtype=double) for _ in range(4)
    )
    O, *want = with_gradients(formula(False), (Q, K, V), dO)
    L = torch.logsumexp(Q @ K.T / math.sqrt(8), -1)
    errors = relative_errors(backward(Q, K, V, dO, O, L), want)
    names = ("dQ", "dK", "dV")
    said = ", ".join(
        f"{n} by {e:.0%}" for n, e in zip(names, errors, strict=True)
    )
    assert max(errors) < 1e-12, f"relative to its size, off are {said}"


catches("D63", gradients_are_autograds, broken=without_d, fixed=with_d)

# %% [markdown]
# **Fix:** subtract $D_i$, {eq}`eq-flash-attention-d`. It costs $d$ products a row. Check *each*
# gradient: a test of $\mathrm{d}V$ alone would pass.
#
# ## Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “Flash attention approximates attention.” | It is exact; only the rounding differs. | steps 2 to 4; {cite:t}`dao2022`, title |
# | “It makes attention linear.” | Its *memory* is linear. Operations, and what moves, stay quadratic. | {eq}`eq-flash-attention-tiles`; {cite:t}`dao2022`, §3.2 |
# | “It is faster because it computes less.” | It computes more: the weights twice, or three times. It moves less. | step 4 |
# | “Flash attention invented the running softmax.” | That is four years older, and attention without the table half a year. | {cite:t}`milakov2018`, §3; {cite:t}`rabe2021` |
# | “Smaller tiles save more memory traffic.” | The larger the tile of queries, the less moves; tiles that are too small move more than the table. | {numref}`fig-flash-attention-traffic` |

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} How many elements move?
# :label: ex-flash_attention-traffic
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `traffic(n_q, n_k, d, B)`: the elements that the forward pass in tiles reads and writes, without
# a mask, for tiles of `B` queries.
#
# ```{dropdown} Hint
# {eq}`eq-flash-attention-tiles`. The last tile of queries may be smaller, and still reads all keys.
# ```


# %% tags=["exercise-stub"]
def traffic(n_q, n_k, d, B):
    raise NotImplementedError


grade("ex-flash_attention-traffic", traffic)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-flash_attention-traffic
# :class: dropdown
# ```


# %% tags=["solution"]
def traffic(n_q, n_k, d, B):
    return 2 * n_q * d + n_q + 2 * n_k * d * math.ceil(n_q / B)


grade("ex-flash_attention-traffic", traffic)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} One more tile
# :label: ex-flash_attention-absorb
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `absorb(m, total, acc, scores, values)`: take a tile of scores (B, C) with its values (C, d) into
# `m` (B,), `total` (B,) and `acc` (B, d), and return the three. It begins with $-\infty$, 0 and 0.
# Scores may be $-\infty$, and a query may have seen nothing so far *and* see nothing in this tile.
#
# ```{dropdown} Hint
# {eq}`def-flash-attention-tile`. And $-\infty - (-\infty)$ is not a number: by what may you shift where
# nothing was seen?
# ```


# %% tags=["exercise-stub"]
def absorb(m, total, acc, scores, values):
    raise NotImplementedError


grade("ex-flash_attention-absorb", absorb)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-flash_attention-absorb
# :class: dropdown
# ```


# %% tags=["solution"]
def absorb(m, total, acc, scores, values):
    new = torch.maximum(m, scores.amax(-1))
    safe = torch.where(new == -math.inf, 0.0, new)
    p, old = torch.exp(scores - safe[:, None]), torch.exp(m - safe)
    return new, old * total + p.sum(-1), old[:, None] * acc + p @ values


grade("ex-flash_attention-absorb", absorb)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Which keys does a tile need?
# :label: ex-flash_attention-limits
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `limits(i, B, C, n_q, n_k)` under a causal mask: for the tile of `B` queries from `i` on return
# `(full, last)`. All keys before `full` are visible to every query of the tile, and `full` is the
# largest such multiple of `C`. Keys from `last` on are visible to none, and `last` is the smallest such
# number. `i + B` is at most `n_q`.
#
# ```{dropdown} Hint
# {eq}`eq-flash-attention-limits`. With $n_q > n_k$ both can become negative: what then?
# ```


# %% tags=["exercise-stub"]
def limits(i, B, C, n_q, n_k):
    raise NotImplementedError


grade("ex-flash_attention-limits", limits)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-flash_attention-limits
# :class: dropdown
# ```


# %% tags=["solution"]
def limits(i, B, C, n_q, n_k):
    shift = n_k - n_q
    full = min(max(i + 1 + shift, 0), n_k) // C * C
    return full, min(max(i + B + shift, 0), n_k)


grade("ex-flash_attention-limits", limits)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The weights again
# :label: ex-flash_attention-weights
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `weights(q, k, L)`: the tile of $P$ for queries `q` (B, d) and keys `k` (C, d), given the
# logsumexp `L` (B,) of those queries over *all* keys. The keys of other tiles are not there to be summed.
#
# ```{dropdown} Hint
# {eq}`eq-flash-attention-weights`, and don't forget the root.
# ```


# %% tags=["exercise-stub"]
def weights(q, k, L):
    raise NotImplementedError


grade("ex-flash_attention-weights", weights)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-flash_attention-weights
# :class: dropdown
# ```


# %% tags=["solution"]
def weights(q, k, L):
    return torch.exp(q @ k.T / math.sqrt(q.shape[-1]) - L[:, None])


grade("ex-flash_attention-weights", weights)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} One tile's share of the gradients
# :label: ex-flash_attention-backward
# ```
# *Difficulty ●●● · 20 minutes*
#
# Write `tile_backward(q, k, v, g, L, D)`: what one tile of queries `q` (B, d) and keys `k`, values `v`
# (C, d) adds to the three gradients, as `(dq, dk, dv)`. `g` (B, d) is $\mathrm{d}O$; `L` and `D` (B,) are
# of the tile's queries. Summed over all tiles the results must be autograd's.
#
# ```{dropdown} Hint
# {eq}`eq-flash-attention-dq` and {eq}`eq-flash-attention-dk`, without the sums.
# ```


# %% tags=["exercise-stub"]
def tile_backward(q, k, v, g, L, D):
    raise NotImplementedError


grade("ex-flash_attention-backward", tile_backward)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-flash_attention-backward
# :class: dropdown
# ```


# %% tags=["solution"]
def tile_backward(q, k, v, g, L, D):
    scale = 1 / math.sqrt(q.shape[-1])
    P = torch.exp(scale * q @ k.T - L[:, None])
    dS = P * (g @ v.T - D[:, None])
    return scale * dS @ k, scale * dS.T @ q, P.T @ g


grade("ex-flash_attention-backward", tile_backward)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - The formula as written moves its table four times {eq}`eq-flash-attention-table`, and does fewer than
#   $d/b$ operations for each byte {eq}`eq-flash-attention-intensity`: it waits for memory.
# - The online softmax works for tiles of any size and order {eq}`eq-flash-attention-induction`. One number
#   a row, $L$, is enough to have any weight again {eq}`eq-flash-attention-weights`.
# - Backward, the sum along the row becomes $D = \operatorname{rowsum}(\mathrm{d}O \circ O)$
#   {eq}`eq-flash-attention-d`, and all gradients are sums over tiles {eq}`eq-flash-attention-dq`
#   {eq}`eq-flash-attention-dk`.
# - What moves is $2 n_k d$ for each tile of queries {eq}`eq-flash-attention-tiles`, in all
#   $O(n^2 d^2 / M)$ {eq}`eq-flash-attention-bound`. Larger tiles move less, until they no longer fit.
# - A causal mask saves half of the tiles {eq}`eq-flash-attention-causal`, and needs care on the diagonal
#   only {eq}`eq-flash-attention-limits`.
# - It is exact, does more arithmetic than the formula, keeps memory linear in $n$, and stays quadratic in
#   time.
# - Our kernel agrees with the formula in Triton's interpreter, up to rounding. It was not run on a GPU
#   here, and its speed on one was not measured.
#
# ## Sources
#
# - {cite:t}`milakov2018`, §3: the online normaliser. {cite:t}`rabe2021`: attention without the table, and
#   its gradient.
# - {cite:t}`dao2022`, §3.1, algorithm 1: tiles; §3.2, theorem 2 and proposition 3: what moves; Appendix B:
#   the backward pass.
# - {cite:t}`dao2023`, §3.2: the loop over queries outside; less work beside the products. {cite:t}`shah2024`:
#   Hopper, asynchronous copies, FP8.
# - {cite:t}`tillet2019`: Triton, a language of tiles.
