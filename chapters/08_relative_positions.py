# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       What matters to a word is rarely the page number of another one, and often how far away it
#       stands. T5 tells its attention nothing but that: one trained number for each head and each
#       range of distances. Where do the ranges begin, what became of the division by √d, and does a
#       model that knows distances alone read further than it was trained?
#     goals:
#       - prove that a bias on offsets makes attention blind to where the text begins
#       - derive T5's bucket function and find every edge of it by hand
#       - say what replaces the division by √d_k, and what happens if it is forgotten
#       - take T5 apart, v1.0 and v1.1, and let it write
#       - measure which relative biases extrapolate, and which do not
#     prerequisites:
#       - scaled dot-product attention (chapter 2), several heads (chapter 3)
#       - sinusoidal positions (chapter 4)
#       - encoder and decoder (chapter 7) for the part on T5
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
# # Relative positions

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "attention.py").exists()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import logging
import math
import tempfile
import warnings

import matplotlib.pyplot as plt
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
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
    topics_paragraphs,
    topics_text,
)
from lib.generation import greedy
from lib.layers import EncoderLayer, LayerNorm, RMSNorm
from lib.models.t5 import T5, T5Config
from lib.positions import (
    RelativePositionBias,
    SinusoidalEncoding,
    relative_position_bucket,
    sinusoidal_encoding,
)
from lib.teaching import (
    CurveExplorer,
    catches,
    check,
    glue,
    grade,
    official,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS, heatmap
from lib.teaching.recorded import recorded
from lib.tokenization import Tokenizer
from lib.training import fit

with warnings.catch_warnings():
    warnings.simplefilter("default")
    import transformers
    from transformers.models.t5.modeling_t5 import T5Attention
transformers.logging.set_verbosity(logging.ERROR)
transformers.utils.logging.disable_progress_bar()

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# Chapter 4 gave every position a vector and added it to the word. Then it measured that a model
# learns those few dozen vectors by heart, and is lost beyond them. T5 leaves the words alone. It
# changes the *scores*: the score of query $i$ and key $j$ gets a number that depends on the offset
# $j - i$, and on nothing else.
#
# $$
# s_{ij} = q_i \cdot k_j + b_{\beta(j - i)} , \qquad
# w_{ij} = \frac{e^{s_{ij}}}{\sum_l e^{s_{il}}} .
# $$ (def-relative-positions-score)
#
# The table $b$ is trained, one for each head. The function $\beta$ is fixed. It sorts offsets into
# $N$ *buckets*: near ones each by itself, far ones in ever wider company. With $m$ buckets for one
# direction, and $e = \lfloor m/2 \rfloor$, a distance $\delta = 0, 1, 2, \dots$ goes to
#
# $$
# \beta(\delta) = \begin{cases}
# \delta & \text{if } \delta < e \\[2pt]
# \min\!\left( e + \left\lfloor (m - e)\,\dfrac{\ln(\delta/e)}{\ln(D/e)} \right\rfloor,\; m - 1 \right)
# & \text{else.}
# \end{cases}
# $$ (def-relative-positions-bucket)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $q_i$, $k_j$ | $d_k$ | query and key of one head; **not** divided by $\sqrt{d_k}$, see step 6 |
# | $b$ | $N \times h$ | one number for each bucket and head; trained, shared by all layers |
# | $j - i$ | a whole number | the offset: negative for a key before the query |
# | $\delta$ | a whole number | the distance: $\lvert j - i \rvert$, or in a decoder $\max(i - j, 0)$ |
# | $N$ | a number | buckets in all: 32 in T5 |
# | $m$ | a number | buckets a direction: $N/2$ in an encoder, $N$ in a decoder |
# | $e$ | a number | distances with a bucket of their own: 8 in an encoder, 16 in a decoder |
# | $D$ | a number | `max_distance`, 128 in T5 |
#
# In an encoder, where a query looks both ways, keys behind the query (larger $j$) get a second set
# of $m$ buckets: $m$ is added to $\beta(\lvert j - i \rvert)$ where $j > i$.
# {numref}`fig-relative-positions-matrix` shows both forms at a size that fits on the page.

# %% tags=["hide-input"]
n = 20
places = torch.arange(n)
offsets = places - places[:, None]  # (n, n): key minus query
small = {"num_buckets": 16, "max_distance": 20}
fig, axes = plt.subplots(1, 2, figsize=(5.1, 2.9), sharey=True)
for ax, both_ways, title in [
    (axes[0], True, "both ways"),
    (axes[1], False, "backwards only"),
]:
    buckets = relative_position_bucket(offsets, both_ways, **small).double()
    if not both_ways:
        buckets[~causal_mask(n)] = math.nan
    mesh = heatmap(ax, buckets, vmin=0, vmax=15)
    ax.set(title=title, xlabel="key position $j$")
axes[0].set_ylabel("query position $i$")
fig.colorbar(mesh, ax=axes, shrink=0.6, label="bucket")
show_figure(
    fig,
    name="fig-relative-positions-matrix",
    caption=f"The bucket of every pair of {n} positions, for 16 buckets and "
    f"$D$ = {small['max_distance']}. Left, an encoder's: two sets of eight. "
    "Right, a decoder's: all sixteen for keys before the query; the future "
    "is masked.",
    alt="Two heat maps of 20 queries by 20 keys, constant along diagonals. "
    "Near the main diagonal each diagonal has its own shade; far from it broad "
    "bands share one. On the right the upper triangle is empty.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# “We use a simplified form of position embeddings where each ‘embedding’ is simply a scalar that is
# added to the corresponding logit used for computing the attention weights. For efficiency, we also
# share the position embedding parameters across all layers in our model, though within a given layer
# each attention head uses a different learned position embedding. […] In this work, we use 32
# embeddings for all of our models with ranges that increase in size logarithmically up to an offset
# of 128 beyond which we assign all relative positions to the same embedding.” {cite:t}`raffel2020`
# (§2.1)
# :::
#
# :::{admonition} Our remark
# :class: remark
# That is all that the paper says about the ranges: no formula, and nothing of $\sqrt{d_k}$. Both are
# in the code that was released with it. Step 4 shows that “up to an offset of 128” is not where the
# last range begins. Before T5, {cite:t}`shaw2018` (§3) gave each offset, clipped at a largest one, a
# trained *vector* that is added to the key (and another to the value), so that the query can answer
# it: $q_i \cdot (k_j + a_{j-i})$. T5 keeps a number in place of the vector. What it gives up: the
# same distance counts the same for every word.
# :::
#
# ## Derivation
#
# Six steps. The first says what such a bias can and cannot do, the next four where the buckets come
# from, the last what happened to $\sqrt{d_k}$.
#
# ### Step 1. Offsets alone: nothing knows where the text begins
#
# Collect the biases of one head in a matrix $B_{ij} = b_{\beta(j-i)}$. One step down and to the
# right changes $i$ and $j$ alike, so it changes nothing:
#
# $$
# B_{i+1,\,j+1} = B_{ij} .
# $$ (eq-relative-positions-toeplitz)
#
# $B$ is a Toeplitz matrix. Its $n^2$ entries hold at most $2n - 1$ different numbers.
#
# Now move a text of $n$ words $t$ places to the right, behind $t$ others that are masked. Words have
# no positions in them, so neither have queries and keys: $q'_{i+t} = q_i$ and $k'_{j+t} = k_j$. By
# {eq}`eq-relative-positions-toeplitz` the bias moves along, $B_{i+t,\,j+t} = B_{ij}$. So every score
# is what it was, the masked keys get weight zero, and the softmax runs over the same numbers:
#
# $$
# o'_{i+t} = \sum_j w_{ij}\, v_j = o_i .
# $$ (eq-relative-positions-shift)
#
# The output of the layer is the old one, moved; and since a feed-forward layer and a norm see one
# token at a time, so is that of a whole stack. This is *translation invariance*: a phrase is read in
# the same way at the top of the page and at the bottom.
#
# **Without the hypothesis.** Add an absolute position to the words, $x_i + a_i$, and the scores have
# terms with $a_i$ and $a_j$ in them (chapter 4, step 6). They change with $t$ unless the projections
# happen to cancel that, and so does the output.


# %%
def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=double)


n, t, d = 7, 5, 16
words = randn(1, n, d)
moved = torch.cat([randn(1, t, d, seed=1), words], dim=1)  # (1, t + n, d)
hidden = torch.arange(t + n) < t  # the t words in front, masked
torch.manual_seed(0)
attend = MultiHeadAttention(d, 2).double()
bias = RelativePositionBias(2, std=1.0).double()


def relative(x, mask):
    with torch.no_grad():
        logits = bias(x.shape[1]).masked_fill(mask, -math.inf)
        return attend(x, mask=logits)


def absolute(x, mask):
    x = x + sinusoidal_encoding(x.shape[1], d, dtype=double)
    with torch.no_grad():
        return attend(x, mask=~mask[None])


B = bias(t + n)[0].detach()  # (h, t + n, t + n)
check("eq-relative-positions-toeplitz", B[:, 1:, 1:], B[:, :-1, :-1], atol=0)
at_front = torch.zeros(n, dtype=torch.bool)
check(
    "eq-relative-positions-shift",
    relative(moved, hidden)[:, t:],
    relative(words, at_front),
)
gap = absolute(moved, hidden)[:, t:] - absolute(words, at_front)
glue("relpos-absolute-gap", gap.abs().max())
check("absolute positions: the output has changed", gap.abs().max() > 0.1)

# %% [markdown]
# With sinusoids the same move changes outputs by up to {glue:text}`relpos-absolute-gap:.2f`.
#
# What does the bias do to the weights? The exponential of a sum is a product, so up to the factor
# $Z_i$ that makes a row sum to one,
#
# $$
# w_{ij} = \frac{1}{Z_i}\; \operatorname{softmax}_j(q_i \cdot k_j)\;\, e^{b_{\beta(j-i)}} .
# $$ (eq-relative-positions-prior)
#
# Read it as a *prior* over distances: before the head looks at any word, it holds that the word one
# back is $e^{b_1 - b_2}$ times as interesting as the word two back. What the words say multiplies
# that. And as a constant factor goes into $Z_i$, raising a head's whole table by $c$ does nothing:
#
# $$
# w(b + c) = w(b) .
# $$ (eq-relative-positions-constant)
#
# Only differences of biases mean something. A table of $N$ numbers has $N - 1$ that count.

# %%
q, k = randn(1, 2, n, 8, seed=2), randn(1, 2, n, 8, seed=3)
b = bias(n).detach()  # (1, h, n, n)
scores = q @ k.mT
weights = (scores + b).softmax(-1)
prior = scores.softmax(-1) * b.exp()
check(
    "eq-relative-positions-prior",
    weights,
    prior / prior.sum(-1, keepdim=True),
)
check("eq-relative-positions-constant", (scores + b + 3.7).softmax(-1), weights)

# %% [markdown]
# ### Step 2. Why ranges, and not one number for each offset
#
# A number for each offset would need a table that is as long as the text, in both directions. Worse,
# most of it would be hardly trained. In a window of $n$ tokens the offset $r$ occurs
#
# $$
# c(r) = n - \lvert r \rvert
# $$ (eq-relative-positions-count)
#
# times: all $n$ tokens are at offset $0$ of something, and only one pair is $n - 1$ apart. Beyond
# $n$ nothing is seen at all. And it would be too fine: whether a word stands 3 or 4 places back
# often matters (“not very good”), whether 103 or 104 hardly ever.
#
# So let far offsets share. Clipping, as Shaw et al. do, puts all beyond $k$ into one. T5's ranges
# grow in proportion to the distance: a bucket's width stays about the same *share* of how far away
# it is. That is how we hear pitch and judge weight, too: by ratios.

# %%
pairs = (torch.arange(n) - torch.arange(n)[:, None]).flatten()
found = torch.stack([(pairs == r).sum() for r in range(1 - n, n)])
check(
    "eq-relative-positions-count", found, n - torch.arange(1 - n, n).abs()
)

# %% [markdown]
# ### Step 3. The bucket function: equal ratios, equal steps
#
# Take one direction with $m$ buckets. The first half, $0, \dots, e - 1$, is spent on the distances
# $0, \dots, e - 1$, one each. For the rest we look for a function $f$ of the distance, and put
# $\beta(\delta) = \lfloor f(\delta) \rfloor$. It shall have three properties.
#
# 1. *Equal ratios, equal steps*: there is one number $\rho > 1$ with $f(\rho\,\delta) = f(\delta) + 1$
#    for all $\delta$. A bucket's end is $\rho$ times its beginning.
# 2. It takes over where the exact buckets end: $f(e) = e$.
# 3. It leaves the table at the largest distance: $f(D) = m$, one more than the last bucket.
#
# A function that turns factors into summands is a logarithm. Try $f(\delta) = A + C \ln \delta$. The
# second property says $A = e - C \ln e$, so
#
# $$
# f(\delta) = e + C\,(\ln \delta - \ln e) = e + C \ln\frac{\delta}{e} .
# $$
#
# The third says $e + C \ln(D/e) = m$, so $C = (m - e)/\ln(D/e)$, and
#
# $$
# f(\delta) = e + (m - e)\, \frac{\ln(\delta/e)}{\ln(D/e)} .
# $$ (eq-relative-positions-logarithm)
#
# That is what stands between the floor signs of {eq}`def-relative-positions-bucket`. The first
# property now gives the ratio: $f(\rho\delta) - f(\delta) = C \ln \rho$ is one if $\ln\rho = 1/C$,
#
# $$
# \rho = \left( \frac{D}{e} \right)^{1/(m - e)} .
# $$ (eq-relative-positions-ratio)
#
# With T5's numbers an encoder has $m = 16$, $e = 8$, $D = 128$, so $\rho = 16^{1/8} = \sqrt{2}$: two
# buckets for each doubling. A decoder has $m = 32$, $e = 16$, so $\rho = 8^{1/16} = 2^{3/16}$: more
# than five buckets for each doubling.

# %%
sizes = {"both ways": (16, 128), "backwards": (32, 128)}  # m and D


def f(delta, m, D):
    e = m // 2
    return e + (m - e) * torch.log(delta / e) / math.log(D / e)


delta = torch.linspace(1.0, 3000.0, 997, dtype=double)
for m, D in sizes.values():
    e = m // 2
    rho = (D / e) ** (1 / (m - e))
    check("eq-relative-positions-ratio", f(rho * delta, m, D), f(delta, m, D) + 1)
    ends = f(torch.tensor([e, D], dtype=double), m, D)
    check("eq-relative-positions-logarithm", ends, [e, m])
    print(f"m = {m}, e = {e}, D = {D}: ratio {rho:.4f}")
check("an encoder's ratio is √2", (128 / 8) ** (1 / 8), math.sqrt(2))

# %% [markdown]
# **Does it join smoothly?** The values join: $f(e) = e$. The slopes do not. The exact part climbs by
# one a place; at $\delta = e$ the logarithm climbs by
#
# $$
# f'(e) = \frac{m - e}{e\,\ln(D/e)} .
# $$ (eq-relative-positions-slope)
#
# For an encoder that is $1/\ln 16$, for a decoder $1/\ln 8$: both well below one. So the ninth bucket
# of an encoder is suddenly about three places wide. Nothing is wrong with that, but “half exact, half
# logarithmic” is a choice and not a consequence.

# %%
for m, D in sizes.values():
    e = m // 2
    x = torch.tensor(float(e), dtype=double, requires_grad=True)
    f(x, m, D).backward()
    slope = (m - e) / (e * math.log(D / e))
    check("eq-relative-positions-slope", x.grad, slope)
    print(f"m = {m}: slope {slope:.3f}, so the first wide bucket is {1 / slope:.1f}")

# %% [markdown]
# ### Step 4. Every edge, by hand
#
# Where does bucket $e + k$ begin? At the smallest $\delta$ with $f(\delta) \ge e + k$. Solve for
# $\delta$: multiply by $\ln(D/e)$, divide by $m - e$, take exponentials. Each of these keeps the
# direction of the inequality, so
#
# $$
# \beta(\delta) \ge e + k \iff \delta \ge e \left(\frac{D}{e}\right)^{k/(m-e)} = e\,\rho^k ,
# \qquad k = 0, \dots, m - e - 1 .
# $$ (eq-relative-positions-edges)
#
# Distances are whole numbers, so bucket $e + k$ begins at $\lceil e\,\rho^k \rceil$. For an encoder
# that is $\lceil 8 \cdot 2^{k/2} \rceil$. Even $k$ are powers of two; odd $k$ lie $\sqrt 2$ above the
# one before: $8$, $11.3$, $16$, $22.6$, $32$, $45.3$, $64$, $90.5$. Rounded up:
#
# $$
# 8,\; 12,\; 16,\; 23,\; 32,\; 46,\; 64,\; 91 .
# $$
#
# **The last bucket begins at 91, not at 128.** There are $m - e$ logarithmic buckets, so the last has
# $k = m - e - 1$ and begins at
#
# $$
# e\,\rho^{\,m-e-1} = \frac{D}{\rho} .
# $$ (eq-relative-positions-last)
#
# At $D$ itself the formula without the minimum would give $m$, a bucket that does not exist. The
# minimum in {eq}`def-relative-positions-bucket` catches it: bucket $m - 1$ takes what it has from
# $D/\rho$ to $D$, and everything beyond. In a decoder it begins at $\lceil 128 / 2^{3/16} \rceil = 113$.

# %%
by_hand = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
near_and_far = torch.arange(2001)
for (m, D), both_ways in zip(sizes.values(), (True, False), strict=True):
    e = m // 2
    rho = (D / e) ** (1 / (m - e))
    buckets = relative_position_bucket(-near_and_far, both_ways)
    begins = [int((buckets >= bucket).int().argmax()) for bucket in range(1, m)]
    # powers of two are exact in binary, so a hair below is room for rounding only
    formula = [math.ceil(e * rho**k - 1e-9) for k in range(m - e)]
    check("eq-relative-positions-edges", begins[e - 1 :], formula)
    check("eq-relative-positions-last", begins[-1], math.ceil(D / rho))
    if both_ways:
        check("the fifteen edges found by hand", begins, by_hand)
    print("both ways:" if both_ways else "backwards:", *begins[e - 1 :])
glue("relpos-last-two-way", by_hand[-1])
glue("relpos-last-one-way", begins[-1])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 3.4))
for (m, D), both_ways, color, style in [
    ((16, 128), True, "query", "-"),
    ((32, 128), False, "key", "--"),
]:
    e = m // 2
    buckets = relative_position_bucket(-near_and_far[1:301], both_ways)
    ax.step(
        near_and_far[1:301],
        buckets,
        style,
        where="post",
        color=COLORS[color],
        label="both ways, 16 a direction" if both_ways else "backwards, 32",
    )
    smooth = torch.linspace(e, D, 200, dtype=double)
    ax.plot(smooth, f(smooth, m, D), ":", color=COLORS["reference"], linewidth=1)
    last = by_hand[-1] if both_ways else begins[-1]
    ax.plot([last], [m - 1], "o", color=COLORS[color])
    ax.annotate(
        f"{last}", (last, m - 1), (0, 6), textcoords="offset points", ha="center"
    )
ax.axvline(128, color=COLORS["reference"], linewidth=1)
ax.set(xscale="log", xlabel="distance", ylabel="bucket", ylim=(0, 36))
ax.set_xticks([1, 8, 16, 32, 64, 128, 256], [1, 8, 16, 32, 64, 128, 256])
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-relative-positions-buckets",
    caption="T5's buckets over the distance, on a logarithmic axis. Where each "
    "distance has its own, the line bends upwards; from $e$ on it is a "
    "staircase under a straight dotted line, $f$. The dot marks the first "
    "distance in the last bucket; the vertical line is $D$.",
    alt="Two staircases over distance 1 to 300 on a log axis. One ends at bucket "
    "15 from distance 91 on, the other at bucket 31 from 113 on; both last "
    "steps begin left of the vertical line at 128.",
)

# %% [markdown]
# {numref}`fig-relative-positions-buckets` shows both. Move $D$ yourself: the exact half stays, the
# other half stretches.

# %%
reach = [20, 32, 48, 64, 96, 128, 192, 256, 512]
along = torch.arange(0, 161)
two_way = torch.stack(
    [relative_position_bucket(-along, True, 32, D).double() for D in reach]
)
one_way = torch.stack(
    [relative_position_bucket(-along, False, 32, D).double() for D in reach]
)


def last_begins(m, D):
    e = m // 2
    return math.ceil(D / (D / e) ** (1 / (m - e)) - 1e-9)


CurveExplorer(
    along,
    reach,
    {"both ways": two_way, "backwards": one_way},
    readouts={
        "last bucket, both ways, from": [str(last_begins(16, D)) for D in reach],
        "last bucket, backwards, from": [str(last_begins(32, D)) for D in reach],
    },
    parameter="max_distance",
    x_name="distance",
    y_name="bucket",
    label="Into which bucket does a distance fall?",
    colors={"both ways": "query", "backwards": "key"},
    digits=1,
    limits=(0.0, 33.0),
    value=128,
    at=91,
    name="relative-positions-buckets",
)

# %% [markdown]
# ### Step 5. Edges without logarithms, and the bucket that nobody enters
#
# Some edges are whole numbers: $8 \cdot 2^{k/2}$ is 16, 32, 64 for even $k$. There the quotient of two
# logarithms should be a whole number, and in floating point it may come out a hair below. The floor
# then turns a hair into a whole bucket. No rounding is needed to say where an edge lies. Raise
# {eq}`eq-relative-positions-edges` to the power $m - e$; all is positive, so
#
# $$
# \beta(\delta) \ge e + k \iff \delta^{\,m-e} \ge D^k\, e^{\,m-e-k} .
# $$ (eq-relative-positions-integers)
#
# Both sides are integers, and Python's have as many digits as they need.


# %%
def exact_bucket(delta, m, D):
    """By integers alone; one direction."""
    e = m // 2
    if delta < e:
        return delta
    wide = m - e
    k = 0
    while k + 1 < wide and delta**wide >= D ** (k + 1) * e ** (wide - k - 1):
        k += 1
    return e + k


def rounded_bucket(delta, m, D):
    """By logarithms in double precision, as the formula is written."""
    e = m // 2
    if delta < e:
        return delta
    return min(e + int(math.log(delta / e) / math.log(D / e) * (m - e)), m - 1)


for both_ways, m in ((True, 16), (False, 32)):
    want = [exact_bucket(x, m, 128) for x in range(2001)]
    got = relative_position_bucket(-near_and_far, both_ways)
    check("eq-relative-positions-integers", got, want, atol=0)
    wrong = [x for x in range(2001) if rounded_bucket(x, m, 128) != want[x]]
    print(f"m = {m}, D = 128: logarithms in float64 miss", wrong or "nothing")

# 9 buckets to 128: e = 4, five wide ones, and 5 · log₂4 / log₂32 = 2 exactly
print("m = 9: the distance 16 belongs in", exact_bucket(16, 9, 128), end="; ")
print("by logarithms it is in", rounded_bucket(16, 9, 128))
check("an edge is missed by rounding", rounded_bucket(16, 9, 128) == 5)
check("and not by integers", exact_bucket(16, 9, 128), 6)

reference_bucket = T5Attention._relative_position_bucket  # float32 inside
everywhere = torch.arange(-2000, 2001)
for both_ways in (True, False):
    check(
        "equal to the official function on ±2000",
        relative_position_bucket(everywhere, both_ways),
        reference_bucket(everywhere, both_ways),
        atol=0,
    )

# %% [markdown]
# T5's own sizes are safe; the official function, which takes its logarithm in float32, agrees with
# the integers at every offset up to ±2000. But that is luck of the numbers. The library finds the
# edges by {eq}`eq-relative-positions-integers`, so it needs none.
#
# **The dead bucket.** In an encoder, a key behind the query goes to $m + \beta(\lvert r \rvert)$ with
# $r = j - i > 0$. Then $\lvert r \rvert \ge 1$, so $\beta \ge 1$, and the smallest bucket on this side
# is $m + 1$. Offset zero is on the other side, in bucket $0$. Bucket $m$ itself would hold “zero
# places behind”. Nobody is there:
#
# $$
# \{\beta(r) : r \in \mathbb{Z}\} = \{0, \dots, 2m - 1\} \setminus \{m\} .
# $$ (eq-relative-positions-dead)
#
# Of 32 numbers a head has, 31 are ever added to anything. The other gets no gradient; in a checkpoint
# it is what it was at the start. A decoder has no such bucket: all 32 are for keys that are not behind
# the query, and those that are, which the mask hides, are filed under $0$.

# %%
live = relative_position_bucket(everywhere).unique().tolist()
check("eq-relative-positions-dead", live, [x for x in range(32) if x != 16])
glue("relpos-live", len(live))
one_sided = relative_position_bucket(everywhere, bidirectional=False)
check("a decoder uses all of them", len(one_sided.unique()), 32)
check("its future is filed under 0", one_sided[everywhere > 0].max(), 0)
table = RelativePositionBias(8)
# weighted, as a sum of softmax weights is constant
(table(300).softmax(-1) * torch.rand(300)).sum().backward()
silent = (table.weight.grad == 0).all(-1).nonzero().flatten()
check("the dead bucket alone gets no gradient", silent, [16], atol=0)

# %% [markdown]
# **What it costs.** A table is $N \cdot h$ numbers, and a stack has one table for all its layers:
#
# $$
# \text{parameters} = N\, h \quad\text{a stack; learned absolute positions: } n_{\max}\, d .
# $$ (eq-relative-positions-parameters)
#
# The time is another matter. Every head adds an $n \times n$ matrix of its own. That is $h\,n^2$
# additions beside the $n^2 d$ multiplications of the scores: little. But a kernel that never writes
# the $n \times n$ scores to memory (a later chapter) has to be handed that matrix, or to be taught to
# make it. {cite:t}`press2022` (§2.2) found training with T5's bias at least twice as slow as with
# sinusoids, in their code and on their hardware.

# %%
with torch.device("meta"):
    t5_small = T5(T5Config())
tables = [t5_small.encoder.bias.weight, t5_small.decoder.bias.weight]
count = sum(table.numel() for table in tables)
check("eq-relative-positions-parameters", count, 2 * 32 * 8)
check("one table a stack", len(tables), sum(
    isinstance(module, RelativePositionBias) for module in t5_small.modules()
))
in_all = sum(p.numel() for p in t5_small.parameters())
print(f"T5-small: {count} of {in_all:,} parameters know of places")
print(f"learned absolute positions up to 512: {512 * t5_small.config.d_model:,}")
glue("relpos-parameters", count)

# %% [markdown]
# ### Step 6. Where did the division by √d_k go?
#
# {eq}`def-relative-positions-score` has $q_i \cdot k_j$, undivided. Chapter 2 showed why that is
# dangerous: for entries of variance one, the score has variance $d_k$, and the softmax saturates. T5
# gets the same variance in another way. Its queries are *drawn smaller*.
#
# Let a token $x$ have $d$ features, and let the entries of $W_Q$ and $W_K$ be independent, with mean
# zero and standard deviations $\sigma_Q$ and $\sigma_K$. For fixed tokens $x_i$ and $x_j$, an entry of
# the query is $q_a = \sum_c x_{ic} W^Q_{ca}$, a sum of $d$ independent terms, so
#
# $$
# \operatorname{Var}(q_a) = \sigma_Q^2\, \lVert x_i \rVert^2 , \qquad
# \operatorname{Var}(k_a) = \sigma_K^2\, \lVert x_j \rVert^2 .
# $$ (eq-relative-positions-entry)
#
# $q_a$ and $k_a$ are independent of each other, since they have different matrices, so the variance
# of a product of mean zero is the product of the variances. The score is a sum of $d_k$ such products:
#
# $$
# \operatorname{Var}(q_i \cdot k_j) = d_k\, \sigma_Q^2\, \sigma_K^2\, \lVert x_i \rVert^2\, \lVert x_j \rVert^2 .
# $$ (eq-relative-positions-variance)
#
# A norm in front of the layer makes $\lVert x \rVert^2 = d$ (T5's does so exactly, see below). T5
# draws $\sigma_K = d^{-1/2}$, which keeps sizes, and $\sigma_Q = (d\, d_k)^{-1/2}$. Put it in:
#
# $$
# \operatorname{Var}(q_i \cdot k_j) = d_k \cdot \frac{1}{d\,d_k} \cdot \frac{1}{d} \cdot d \cdot d = 1 .
# $$ (eq-relative-positions-folded)
#
# The factor $1/\sqrt{d_k}$ is *folded into the initialisation*. Nothing is lost in what the layer can
# express: a layer that divides, with matrix $W_Q$, is the same function as one that does not, with
# matrix $W_Q / \sqrt{d_k}$:
#
# $$
# \frac{(x_i W_Q) \cdot k_j}{\sqrt{d_k}} = \Big(x_i\, \frac{W_Q}{\sqrt{d_k}}\Big) \cdot k_j .
# $$ (eq-relative-positions-same)
#
# But training is not the same. Let $\widetilde W = W_Q/\sqrt{d_k}$ be the matrix that acts. By the
# chain rule the divided layer's gradient is the smaller one,
#
# $$
# \frac{\partial L}{\partial W_Q} = \frac{1}{\sqrt{d_k}}\, \frac{\partial L}{\partial \widetilde W} ,
# $$ (eq-relative-positions-gradient)
#
# and a step on $W_Q$ is divided by $\sqrt{d_k}$ once more on its way into $\widetilde W$. Plain
# gradient descent at the same rate thus moves the $\widetilde W$ of an undivided layer $d_k$ times as
# far; Adam, whose steps do not depend on the gradient's size, $\sqrt{d_k}$ times as far. T5 was trained
# with Adafactor {cite}`raffel2020` (§3.1.2), which measures its steps against the size of the weights
# {cite}`shazeer2018`: small matrices take small steps, and the fold does no harm.

# %%
d, draws = 24, 20_000
x_i, x_j = randn(d, seed=4), randn(d, seed=5)
x_i, x_j = (x * math.sqrt(d) / x.norm() for x in (x_i, x_j))  # ‖x‖² = d
relative_error = math.sqrt(2 / draws)  # of a variance of normal numbers
std = {}
for d_k in (4, 16, 64):
    sigma_q, sigma_k = (d * d_k) ** -0.5, d**-0.5
    # a query's entries are normal with the variance derived: drawn through W
    W_q = sigma_q * randn(draws // 16, d, d_k, seed=6)
    W_k = sigma_k * randn(draws // 16, d, d_k, seed=7)
    q, k = x_i @ W_q, x_j @ W_k  # (draws, d_k)
    few = math.sqrt(2 / q.numel())
    check(
        "eq-relative-positions-entry",
        torch.stack([q.var() * d_k, k.var()]),
        [1.0, 1.0],
        atol=5 * few,
    )
    product = (q * k).sum(-1)
    theory = d_k * (sigma_q * sigma_k) ** 2 * (x_i @ x_i) * (x_j @ x_j)
    # a product of two normals has fourth moment 9: its variance is known less well
    error = 5 * math.sqrt((2 + 6 / d_k) / len(product))
    check("eq-relative-positions-variance", product.var() / theory, 1.0, atol=error)
    check("eq-relative-positions-folded", product.var(), 1.0, atol=error)
    check(
        "eq-relative-positions-same",
        (x_i @ (W_q[0] * math.sqrt(d_k))) @ k[0] / math.sqrt(d_k),
        (x_i @ W_q[0]) @ k[0],
    )
    std[d_k] = product.std().item(), (product * math.sqrt(d_k)).std().item()

d_k = 16
W = randn(d, d_k, seed=8).requires_grad_()
W_acting = (W.detach() / math.sqrt(d_k)).requires_grad_()
key = randn(5, d_k, seed=9)
loss_divided = (x_i @ W @ key.T / math.sqrt(d_k)).softmax(-1)[0]
loss_acting = (x_i @ W_acting @ key.T).softmax(-1)[0]
loss_divided.backward()
loss_acting.backward()
check(
    "eq-relative-positions-gradient",
    W.grad,
    W_acting.grad / math.sqrt(d_k),
)

# %% [markdown]
# **Without the fold.** Take over T5's undivided attention, and initialise it as one usually does:
# $\sigma_Q = \sigma_K = d^{-1/2}$. By {eq}`eq-relative-positions-variance` the scores' variance is then
# $d_k$. {numref}`fig-relative-positions-forgotten` shows what is left of the weights, as entropy: 1
# for a head that spreads its weight evenly over {glue:text}`relpos-keys:.0f` keys, 0 for one that
# stares at a single key.

# %%
keys, d = 64, 128
glue("relpos-keys", keys)
tokens = RMSNorm(d).double()(randn(1, keys, d, seed=10)).detach()
widths = [4, 8, 16, 32, 64, 128]
entropy = {"folded": [], "forgotten": []}
with torch.no_grad():
    for d_k in widths:
        attend = MultiHeadAttention(
            d, 4, d_head=d_k, scaled=False, bias=False
        ).double()
        for name, factor in [("folded", d_k**-0.5), ("forgotten", 1.0)]:
            for seed, projection in enumerate(
                (attend.query_projection, attend.key_projection)
            ):
                projection.weight.copy_(
                    d**-0.5 * randn(4 * d_k, d, seed=11 + seed)
                )
            attend.query_projection.weight.mul_(factor)
            _, weights = attend(tokens, return_weights=True)
            share = torch.special.entr(weights).sum(-1).mean() / math.log(keys)
            entropy[name].append(share.item())
check("folded: the same at every width", min(entropy["folded"]) > 0.85)
check("forgotten: collapsed at 64", entropy["forgotten"][4] < 0.25)
glue("relpos-entropy-folded", entropy["folded"][4])
glue("relpos-entropy-forgotten", entropy["forgotten"][4])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.3, 3.0))
for name, style, color in [("folded", "o-", "query"), ("forgotten", "s--", "key")]:
    ax.plot(widths, entropy[name], style, color=COLORS[color], label=name)
ax.set(
    xscale="log",
    xlabel="width of a head, $d_k$",
    ylabel="entropy, share of the largest",
    ylim=(0, 1),
)
ax.set_xticks(widths, widths)
ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-relative-positions-forgotten",
    caption="Mean entropy of the weights of four untrained heads, without a "
    "division by √d_k. With T5's smaller queries the width of a head does not "
    "matter. With queries of the usual size wide heads begin saturated.",
    alt="Entropy share over head widths 4 to 128. The solid line, folded, is flat "
    "near 0.9. The dashed line, forgotten, falls steadily from about 0.7 to "
    "below 0.2.",
)

# %% [markdown]
# At $d_k = 64$, T5's width, {glue:text}`relpos-entropy-folded:.2f` of the largest entropy remains with
# the fold and {glue:text}`relpos-entropy-forgotten:.2f` without. A checkpoint brings its own queries,
# and needs neither; but divide by $\sqrt{d_k}$ when you load one, and every score is eight times too
# small.
