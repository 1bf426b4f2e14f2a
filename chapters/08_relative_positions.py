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
from tokenizers import decoders, models, pre_tokenizers, processors
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
# \begin{gathered}
# \beta(\delta) = \delta \quad\text{if } \delta < e, \quad\text{else} \\
# \beta(\delta) = \min\!\left( e + \left\lfloor (m - e)\,\frac{\ln(\delta/e)}{\ln(D/e)}
# \right\rfloor,\; m - 1 \right) .
# \end{gathered}
# $$ (def-relative-positions-bucket)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $q_i$, $k_j$ | $d_k$ | query and key of one head; **not** divided by $\sqrt{d_k}$, see step 6 |
# | $b$ | $N \times h$ | one number for each bucket and head; trained, shared by all layers |
# | $j - i$ | a whole number | the offset: negative for a key before the query |
# | $\delta$ | a whole number | the distance: $\lvert j - i \rvert$, or in a decoder $\max(i - j, 0)$ |
# | $N$ | a number | buckets in all: 32 in T5 {cite}`raffel2020` |
# | $m$ | a number | buckets a direction: $N/2$ in an encoder, $N$ in a decoder |
# | $e$ | a number | distances with a bucket of their own: 8 in an encoder, 16 in a decoder |
# | $D$ | a number | `max_distance`, 128 in T5 |
#
# In an encoder, where a query looks both ways, keys after the query (larger $j$) get a second set
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
fig.colorbar(mesh, ax=axes, shrink=0.6, label="bucket", ticks=[0, 5, 10, 15])
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
# terms with $a_i$ and $a_j$ in them ({eq}`eq-sinusoidal-encoding-four-terms`). They change with $t$ unless the projections
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
# often matters (“not very good”), whether 93 or 94 hardly ever.
#
# So let far offsets share. Clipping, as Shaw et al. do, puts all beyond $k$ into one. T5's ranges
# grow in proportion to the distance: a bucket's width stays about the same *share* of how far away
# it is. That is how we hear pitch and judge weight, too: by ratios.

# %%
pairs = (torch.arange(n) - torch.arange(n)[:, None]).flatten()
found = torch.stack([(pairs == r).sum() for r in range(1 - n, n)])
check("eq-relative-positions-count", found, n - torch.arange(1 - n, n).abs())

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
# second property says $A = e - C \ln e$ (among continuous functions there is no other, if *every* ratio
# is to have its own number of steps), so
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
    check(
        "eq-relative-positions-ratio", f(rho * delta, m, D), f(delta, m, D) + 1
    )
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
# For an encoder that is $1/\ln 16$, for a decoder $1/\ln 8$: both well below one. So the first wide
# bucket of an encoder suddenly holds four distances, 8 to 11, where the one before holds one. Nothing is
# wrong with that, but “half exact, half logarithmic” is a choice and not a consequence.

# %%
for m, D in sizes.values():
    e = m // 2
    x = torch.tensor(float(e), dtype=double, requires_grad=True)
    f(x, m, D).backward()
    slope = (m - e) / (e * math.log(D / e))
    check("eq-relative-positions-slope", x.grad, slope)
    inside = relative_position_bucket(-torch.arange(3 * e), m == 16) == e
    print(
        f"m = {m}: slope {slope:.3f}; bucket {e} holds {inside.sum()} distances"
    )

# %% [markdown]
# ### Step 4. Every edge, by hand
#
# Where does bucket $e + k$ begin? At the smallest $\delta$ with $f(\delta) \ge e + k$. Solve for
# $\delta$: multiply by $\ln(D/e)$, divide by $m - e$, take exponentials. As $D > e$ and $m > e$, each of
# these keeps the direction of the inequality, so
#
# $$
# \begin{gathered}
# \beta(\delta) \ge e + k \iff \delta \ge e \left(\frac{D}{e}\right)^{k/(m-e)} = e\,\rho^k , \\
# k = 0, \dots, m - e - 1 .
# \end{gathered}
# $$ (eq-relative-positions-edges)
#
# Distances are whole numbers, so bucket $e + k$ begins at $\lceil e\,\rho^k \rceil$. For an encoder
# that is $\lceil 8 \cdot 2^{k/2} \rceil$. Even $k$ give the powers of two $8, 16, 32, 64$. Odd $k$ give
# $\sqrt 2$ times as much, $8\sqrt2$, $16\sqrt2$, $32\sqrt2$ and $64\sqrt2$. To round $64\sqrt 2$ up, square
# it: $90^2 = 8100 < 2 \cdot 64^2 = 8192 < 8281 = 91^2$, so it is $91$. In the same way $12$, $23$ and $46$
# are found. Together:
#
# $$
# 8,\; 12,\; 16,\; 23,\; 32,\; 46,\; 64,\; 91 .
# $$
#
# **The last bucket begins at 91, and not at $D$.** There are $m - e$ logarithmic buckets, so the last
# has $k = m - e - 1$ and begins at
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
    ax.plot(
        smooth, f(smooth, m, D), ":", color=COLORS["reference"], linewidth=1
    )
    last = by_hand[-1] if both_ways else begins[-1]
    ax.plot([last], [m - 1], "o", color=COLORS[color])
    ax.annotate(
        f"{last}",
        (last, m - 1),
        (0, 6),
        textcoords="offset points",
        ha="center",
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
        "last bucket, both ways, from": [
            str(last_begins(16, D)) for D in reach
        ],
        "last bucket, backwards, from": [
            str(last_begins(32, D)) for D in reach
        ],
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
        "the official function says the same on ±2000",
        relative_position_bucket(everywhere, both_ways),
        reference_bucket(everywhere, both_ways),
        atol=0,
    )

# %% [markdown]
# T5's own sizes are safe; the official function, which takes its logarithm in float32, agrees with
# the integers at every offset up to ±2000. But that is luck of the numbers. The library finds the
# edges by {eq}`eq-relative-positions-integers`, so it needs none.
#
# **The dead bucket.** In an encoder, a key after the query goes to $m + \beta(\lvert r \rvert)$ with
# $r = j - i > 0$. Then $\lvert r \rvert \ge 1$, so $\beta \ge 1$, and the smallest bucket on this side
# is $m + 1$. Offset zero is on the other side, in bucket $0$. Bucket $m$ itself would hold “zero
# places after”. Nobody is there:
#
# $$
# \{\beta(r) : r \in \mathbb{Z}\} = \{0, \dots, 2m - 1\} \setminus \{m\} .
# $$ (eq-relative-positions-dead)
#
# Of 32 numbers a head has, {glue:text}`relpos-live:.0f` are ever added to anything. The other gets no
# gradient; without weight decay it stays in a checkpoint what it was at the start. A decoder has no such bucket: all 32 are for keys that are not after
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
# \begin{gathered}
# \text{parameters of a stack} = N\, h , \\
# \text{of learned absolute positions: } n_{\max}\, d .
# \end{gathered}
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
check(
    "one table a stack",
    len(tables),
    sum(
        isinstance(module, RelativePositionBias)
        for module in t5_small.modules()
    ),
)
in_all = sum(p.numel() for p in t5_small.parameters())
print(f"T5-small: {count} of {in_all:,} parameters know of places")
print(
    f"learned absolute positions up to 512: {512 * t5_small.config.d_model:,}"
)
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
    # a product of two normals has fourth moment 9: less is known of its variance
    error = 5 * math.sqrt((2 + 6 / d_k) / len(product))
    check(
        "eq-relative-positions-variance",
        product.var() / theory,
        1.0,
        atol=error,
    )
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
for name, style, color in [
    ("folded", "o-", "query"),
    ("forgotten", "s--", "key"),
]:
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
    alt="Entropy share over head widths 4 to 128. Solid, folded, is flat "
    "near 0.9. The dashed line, forgotten, falls steadily from about 0.7 to "
    "below 0.2.",
)

# %% [markdown]
# At $d_k = 64$, T5's width, {glue:text}`relpos-entropy-folded:.2f` of the largest entropy remains with
# the fold and {glue:text}`relpos-entropy-forgotten:.2f` without. A checkpoint brings its own queries,
# and needs neither; but divide by $\sqrt{d_k}$ when you load one, and every score is eight times too
# small.

# %% [markdown]
# ## From scratch
#
# Eight buckets in all and $D = 8$ fit on a napkin. Each direction has $m = 4$, so $e = 2$: distances 0
# and 1 have their own, two buckets are left for the rest. The ratio is $\rho = (8/2)^{1/2} = 2$, so
# they begin at 2 and at 4, and the second takes everything from there on.


# %%
def bucket_by_hand(r, N=8, D=8):
    """The bucket of an offset r, both ways, in plain Python."""
    m = N // 2
    e = m // 2
    distance = abs(r)
    if distance < e:
        bucket = distance
    else:
        steps = (m - e) * math.log(distance / e) / math.log(D / e)
        bucket = min(e + math.floor(steps), m - 1)
    return bucket + (m if r > 0 else 0)


print("offset ", "".join(f"{r:4}" for r in range(-5, 6)))
print("bucket ", "".join(f"{bucket_by_hand(r):4}" for r in range(-5, 6)))
print()
print("the buckets of six queries (rows) and six keys (columns):")
for i in range(6):
    print("   ", *(bucket_by_hand(j - i) for j in range(6)))
check(
    "by hand = the library",
    [bucket_by_hand(r) for r in range(-9, 10)],
    relative_position_bucket(
        torch.arange(-9, 10), num_buckets=8, max_distance=8
    ),
)

# %% [markdown]
# Bucket 4 does not occur: it is the dead one. Now give one head a table. We write $e^{b}$ rather than
# $b$, so that everything stays a whole number: one back counts 4, two or three back count 2, anything
# else 1. Take query 3, which sees six keys. First let the words say nothing, $q \cdot k = 0$ for all;
# then let the last word be interesting, with $e^{q \cdot k} = 3$.

# %%
prior = {0: 1, 1: 4, 2: 2, 3: 1, 5: 1, 6: 1, 7: 1}  # e^b of each live bucket
counts = [prior[bucket_by_hand(j - 3)] for j in range(6)]
print("no words:    ", counts, "of", sum(counts))
said = [1, 1, 1, 1, 1, 3]
product = [c * s for c, s in zip(counts, said, strict=True)]
print("with words:  ", product, "of", sum(product))

table = torch.tensor(
    [[math.log(prior.get(x, 1))] for x in range(8)], dtype=double
)
tiny = RelativePositionBias(1, num_buckets=8, max_distance=8).double()
with torch.no_grad():
    tiny.weight.copy_(table)
    logits = torch.tensor(said, dtype=double).log() + tiny(6)[0, 0, 3]
check(
    "the same by the library and a softmax",
    logits.softmax(-1),
    [x / sum(product) for x in product],
)

# %% [markdown]
# Without words the head spends 4 of 11 parts of its weight on the word before; with them 4 of 13, and
# the last word has three times what its distance alone would give it.
#
# ## The library function
#
# The function and the edges that it asks for:
#
# ```{lib-source} lib.positions.relative_position_bucket
# ```
#
# ```{lib-source} lib.positions._bucket_edges
# ```
#
# And the module, which looks numbers up:
#
# ```{lib-source} lib.positions.RelativePositionBias.forward
# ```
#
# **Queries stand at the end.** With a cache a decoder asks for one query at a time, and that query is
# the *last* position, not the first. `bias(1, n)` is the last row of `bias(n)`. A module that counted
# such a query as position 0 would be right without a cache and wrong with one.

# %%
bias = RelativePositionBias(3, bidirectional=False, std=1.0).double()
full = bias(40).detach()
check("one query at a time", bias(1, 40).detach(), full[:, :, -1:], atol=0)
offsets = torch.arange(40) - torch.arange(40)[:, None]
looked_up = F.embedding(
    reference_bucket(offsets, bidirectional=False), bias.weight.detach()
)  # (40, 40, h)
check(
    "the official buckets, looked up",
    full[0],
    looked_up.permute(2, 0, 1),
    atol=0,
)

# %% [markdown]
# ## On real data
#
# Chapter 4 trained a small causal language model on windows of 32 characters, read held-out text in
# windows of $128$, and found that sinusoids and learned positions both fail past the 32nd. Does a model
# that knows distances alone do better? By {eq}`eq-relative-positions-shift` it cannot tell where it
# stands. But it can still meet *distances* that it has never seen: in a window of 32 no key is more
# than 31 places back.
#
# So count which buckets training reaches. With T5's 32 buckets to $D = 128$, distances 0 to 31 fall
# into the first {glue:text}`relpos-trained-t5:.0f` of them. A window of $128$ meets
# {glue:text}`relpos-fresh-t5:.0f` more, which still hold their random first values. With 16 buckets to
# $D = 32$, all {glue:text}`relpos-trained-t5-near:.0f` are trained, and the longer window meets
# {glue:text}`relpos-fresh-t5-near:.0f` new ones: the last bucket begins before 32 and takes all that lies
# beyond. *Every* distance has a trained number.


# %%
length, reading = 32, 4 * 32
arms = {"t5": (32, 128), "t5-near": (16, 32)}
for name, (N, D) in arms.items():
    seen = relative_position_bucket(-torch.arange(length), False, N, D)
    met = relative_position_bucket(-torch.arange(reading), False, N, D)
    fresh = len(set(met.tolist()) - set(seen.tolist()))
    print(
        f"{N} buckets to {D:3}: {seen.max() + 1} are trained in a window of "
        f"{length}; a window of {reading} meets {fresh} more"
    )
    glue(f"relpos-trained-{name}", int(seen.max()) + 1)
    glue(f"relpos-fresh-{name}", fresh)
check("to 32, nothing new is met", fresh == 0)

# %% [markdown]
# First a small run on this page: one seed, the same model as in chapter 4 with one pre-norm layer and
# four heads, and three ways to know positions.

# %%
text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
train_ids = vocabulary.encode(text.train).to(device)
validation_ids = vocabulary.encode(text.validation).to(device)
print(f"{len(text.train):,} training characters; sha256 {text.sha256[:16]}")


class Characters(nn.Module):
    """A causal language model of one layer; only its positions vary."""

    def __init__(self, add=None, bias=None, d=64, heads=4):
        super().__init__()
        self.embed = nn.Embedding(len(vocabulary), d)
        self.add, self.bias = add, bias
        self.layer = EncoderLayer(d, heads, 2 * d, norm="pre")
        self.norm, self.read = LayerNorm(d), nn.Linear(d, len(vocabulary))

    def forward(self, ids):
        x, n = self.embed(ids), ids.shape[1]  # (B, n, d)
        if self.add is not None:
            x = self.add(x)
        logits = torch.zeros(1, 1, n, n, device=ids.device)
        if self.bias is not None:
            logits = self.bias(n)  # (1, h, n, n)
        hidden = ~causal_mask(n, device=ids.device)
        x = self.layer(x, mask=logits.masked_fill(hidden, -math.inf))
        return self.read(self.norm(x))


def train(seed, **positions):
    torch.manual_seed(seed)
    model = Characters(**positions).to(device)
    batches = torch.Generator().manual_seed(seed)

    def batch_loss(step):
        x, y = random_windows(train_ids, 16, length, batches)
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    fit(model, batch_loss, steps=500, learning_rate=1e-2)
    return model.eval()


def loss_by_position(model, n=reading):
    inputs, targets = consecutive_windows(validation_ids, n)
    with torch.no_grad():
        parts = [
            F.cross_entropy(model(x).mT, y, reduction="none").double()
            for x, y in zip(inputs.split(64), targets.split(64), strict=True)
        ]
    return torch.cat(parts).mean(0).cpu()


def train_relative(name, seed):
    N, D = arms[name]
    torch.manual_seed(seed)
    table = RelativePositionBias(
        4, bidirectional=False, num_buckets=N, max_distance=D
    )
    return train(seed, bias=table)


live = {"sinusoidal": train(0, add=SinusoidalEncoding(64))}
for name in arms:
    live[name] = train_relative(name, 0)
parts = {
    "within": slice(0, length),
    "beyond": slice(length, 2 * length),
    "far": slice(3 * length, 4 * length),
}
curves = {name: loss_by_position(model) for name, model in live.items()}
print("nats a character, one seed    0…31   32…63  96…127")
for name, curve in curves.items():
    row = [curve[where].mean().item() for where in parts.values()]
    print(f"{name:26}" + "".join(f"{x:8.3f}" for x in row))
live_far = {name: curve[parts["far"]].mean() for name, curve in curves.items()}
glue("relpos-live-near-far", live_far["t5-near"])
check(
    "the one with every bucket trained reads on",
    live_far["t5-near"] < live_far["sinusoidal"] - 0.5,
)

# %% [markdown]
# What has the first of the relative models learned? {numref}`fig-relative-positions-learned` draws its
# table, one line a head, over the distances that a window of $128$ meets.

# %% tags=["hide-input"]
learned = live["t5"].bias.weight.detach().cpu()  # (32, 4)
distances = torch.arange(reading)
of = relative_position_bucket(-distances, False, 32, 128)
fig, ax = plt.subplots(figsize=(4.8, 3.2))
for head, (color, style) in enumerate(
    zip(
        ("query", "key", "value", "weights"),
        ("-", "--", "-.", ":"),
        strict=True,
    )
):
    ax.step(
        distances,
        learned[of, head] - learned[: int(of[length - 1]) + 1, head].mean(),
        style,
        where="mid",
        color=COLORS[color],
        label=f"head {head}",
    )
ax.axvline(length - 0.5, color=COLORS["reference"], linewidth=1)
ax.set(xlabel="distance", ylabel="bias", xscale="symlog", xlim=(-0.3, 140))
ax.set_xticks([0, 1, 2, 4, 8, 16, 32, 64, 128])
ax.set_xticklabels([0, 1, 2, 4, 8, 16, 32, 64, 128])
ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-relative-positions-learned",
    caption=f"The bias that four heads learned, over the distance, each head's "
    f"mean over trained buckets taken off. The vertical line is the longest "
    f"distance in a training window, {length - 1}. Right of it lie random "
    "first values.",
    alt="Four step curves over distance 0 to 127. They peak at distances one and "
    "two, fall to their lowest just left of the line at 31, jump up by more than "
    "one unit right of it, and stay level there.",
)
trained_part = learned[: int(of[length - 1]) + 1]
spread = trained_part.std(0).mean()
rest = learned[int(of[length - 1]) + 1 :]
glue("relpos-spread-trained", spread)
glue("relpos-spread-rest", rest.std(0).mean())
last_trained = learned[of[length // 2] : int(of[length - 1]) + 1]  # 16 … 31
jump = rest.mean(0) - last_trained.mean(0)  # one a head
glue("relpos-jump", jump.mean())
check("every head's bias jumps up where training ended", jump.min() > 0.3)
check("untrained buckets are as they were", rest.std() < 0.05)

# %% [markdown]
# Buckets that training reached spread by {glue:text}`relpos-spread-trained:.2f` within a head (standard
# deviation, in units of a logit); the others by {glue:text}`relpos-spread-rest:.3f`, as they began. All
# four heads have learned that the last few characters count, and have pushed distances from 16 on
# *down*. The untrained buckets beyond stand {glue:text}`relpos-jump:.2f` above those, on average. So past
# the training length everything looks as near as four or five characters back; and there are many more
# such characters than four or five.
#
# One seed shows little. `relative_positions.py`, in `book/experiments`, trains seven such models
# with three seeds each, twice as long, and writes what the next cell reads. Besides those above there
# are *none* and *learned* of chapter 4; *ALiBi* {cite}`press2022`, a relative bias without any
# parameter, derived below; and T5's bias trained on windows of the full 128 characters, with as many
# characters a step.

# %%
record = recorded("relative_positions")
settings = record["settings"]
names = {
    "none": "none",
    "learned": "learned",
    "sinusoidal": "sinusoidal",
    "t5": "T5, 32 to 128",
    "t5-near": "T5, 16 to 32",
    "alibi": "ALiBi",
    "t5-long": "T5, trained on 128",
}
found = {
    name: torch.tensor(
        [
            run["loss"]
            for run in record["results"]["runs"]
            if run["arm"] == name
        ],
        dtype=double,
    )
    for name in names
}  # each (seeds, blocks of positions)
blocks = {
    part: slice(
        where.start // settings["block"], where.stop // settings["block"]
    )
    for part, where in parts.items()
}
result = {
    (name, part): curve[:, where].mean(-1)
    for name, curve in found.items()
    for part, where in blocks.items()
}
print("nats a character, mean ± standard deviation over seeds, by position")
print(f"{'':20}{'0 … 31':>16}{'32 … 63':>16}{'96 … 127':>16}")
for name, title in names.items():
    row = [result[name, part] for part in blocks]
    print(
        f"{title:20}" + "".join(f"{x.mean():9.3f} ± {x.std():.3f}" for x in row)
    )
    for part, x in zip(blocks, row, strict=True):
        if name in ("none", "sinusoidal", "alibi", "t5", "t5-near"):
            glue(f"relpos-{name}-{part}", x.mean())
glue("relpos-learned-far", result["learned", "far"].mean())
glue("relpos-t5-long-far", result["t5-long", "far"].mean())

far = {name: result[name, "far"] for name in names}
within = {name: result[name, "within"] for name in names}
check(
    "within the length T5's bias is best",
    within["t5"].max() < min(within[x].min() for x in ("sinusoidal", "alibi")),
)
check(
    "with untrained buckets it does not extrapolate",
    far["t5"].min() > within["t5"].max() + 0.2,
)
check(
    "with every bucket trained it does",
    far["t5-near"].max() < far["t5"].min() and far["t5-near"].max() < 2.0,
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.0, 4.0))
styles = {
    "none": ("-", "reference"),
    "sinusoidal": ("--", "query"),
    "t5": ("-", "key"),
    "t5-near": ("-.", "value"),
    "alibi": (":", "weights"),
}
middle = settings["block"] * (torch.arange(found["t5"].shape[1]) + 0.5) - 0.5
for name, (style, color) in styles.items():
    ax.plot(
        middle,
        found[name].mean(0),
        style,
        color=COLORS[color],
        label=names[name],
    )
    ax.fill_between(
        middle,
        found[name].amin(0),
        found[name].amax(0),
        color=COLORS[color],
        alpha=0.25,
        linewidth=0,
    )
ax.axvline(settings["length"] - 0.5, color=COLORS["reference"], linewidth=1)
ax.set(xlabel="position in the window", ylabel="loss, nats a character")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-relative-positions-extrapolation",
    caption=f"Loss by position, recorded; bands span three seeds. The vertical "
    f"line marks the training length, {settings['length']}. Sinusoids jump at "
    "once. T5's bias with 32 buckets to $128$ holds for a while and then rises; "
    "with 16 to 32 it rises little, and ALiBi not at all.",
    alt="Loss over positions 0 to 127. Past the line at 32 the dashed sinusoidal "
    "curve jumps above all. The solid T5 curve climbs later, up to the level "
    "without positions. The dash-dotted curve stays low and rises slightly; the "
    "dotted one is flat above it.",
)

# %% [markdown]
# **Within the training length** T5's bias has {glue:text}`relpos-t5-within:.2f` nats a character,
# sinusoids {glue:text}`relpos-sinusoidal-within:.2f`, ALiBi {glue:text}`relpos-alibi-within:.2f`, no
# positions {glue:text}`relpos-none-within:.2f`. The relative bias is the best of them, here.
#
# **Beyond it** the answer has two halves ({numref}`fig-relative-positions-extrapolation`). With 32
# buckets to $128$ the loss is {glue:text}`relpos-t5-beyond:.2f` just past the length and
# {glue:text}`relpos-t5-far:.2f` far out: much better than sinusoids, with
# {glue:text}`relpos-sinusoidal-far:.2f`, and learned positions, with
# {glue:text}`relpos-learned-far:.2f`, and about as bad as no positions at all,
# {glue:text}`relpos-none-far:.2f`. With 16 buckets to 32 it is {glue:text}`relpos-t5-near-beyond:.2f` and
# {glue:text}`relpos-t5-near-far:.2f`. Same bias, same training; but here every distance falls into a
# bucket that was trained. (It creeps up even so. Perhaps because there are more far keys now than in any
# window of training, and they share one bucket.)
#
# Training on windows of $128$ gives {glue:text}`relpos-t5-long-far:.2f` far out.
#
# ### Is it the length, or the buckets?
#
# Take the first model of this page, and change nothing but numbers that training left alone. Bucket 20
# holds the distances 27 to 30 and was trained on all of them. Bucket 21 holds 31 to 34, and training saw
# only the first, in one pair a window; those after it were never met. *Filled*, they all get the number
# of bucket 20. *Cut off*, they get $-30$, so that keys so far back are not seen. Nothing is trained
# again; only the table is written on.

# %%
whole = 21  # buckets 0 … 20 hold no distance beyond 31
check(
    "bucket 21 is the first that training did not see whole",
    relative_position_bucket(torch.tensor([-30, -31, -34]), False),
    [20, 21, 21],
)
written = {"as trained": [], "filled": [], "cut off": []}
for seed in (0, 1, 2):
    model = live["t5"] if seed == 0 else train_relative("t5", seed)
    weight = model.bias.weight
    values = {
        "as trained": weight[whole:].detach().clone(),
        "filled": weight[whole - 1].detach().clone(),
        "cut off": torch.tensor(-30.0),
    }
    for name, value in values.items():
        with torch.no_grad():
            weight[whole:] = value
        curve = loss_by_position(model)
        written[name].append([curve[where].mean() for where in parts.values()])
    with torch.no_grad():
        weight[whole:] = values["as trained"]
print("nats a character, three seeds  0…31          32…63         96…127")
for name, rows in written.items():
    rows = torch.tensor(rows)  # (seeds, parts)
    cells = [f"{x.mean():.3f} ± {x.std():.3f}" for x in rows.T]
    print(f"{name:26}", "  ".join(cells))
    glue(f"relpos-written-{name.replace(' ', '-')}", rows[:, 2].mean())
as_trained, filled, cut = (
    torch.tensor(rows)[:, 2] for rows in written.values()
)
check("filled: better far out, each seed", (filled < as_trained - 0.1).all())
check("cut off: better still", (cut < filled).all())

# %% [markdown]
# Far out the model had {glue:text}`relpos-written-as-trained:.2f` nats (it was trained half as long as
# the recorded ones). Filled it has {glue:text}`relpos-written-filled:.2f`, where the model with 16
# buckets to 32, trained as long, has {glue:text}`relpos-live-near-far:.2f`. Cut off it has
# {glue:text}`relpos-written-cut-off:.2f`. So the model had no trouble with length: it was disturbed by
# what untrained numbers made of far keys. And a model of one layer that was trained on 32 characters
# knows of nothing to do with the others: it is best off not to see them.
#
# So the honest sentence is: **a relative bias extrapolates as far as its buckets were trained.** That
# a table “never ends” is no more than what chapter 4 found of sinusoids: *defined* is not *learned*.
# But a bucket that holds infinity is a cheap way to have all of it learned.
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`press2022` (§2.2) trained large models on windows of 512 and 1024 words with several kinds of
# positions. The T5 bias improved perplexity for up to 600 and 800 further tokens, sinusoids for a few
# dozen. They remark that sharing one bias among many distances “might be beneficial for extrapolation”.
# :::
#
# :::{admonition} Our remark
# :class: remark
# It fits. Windows of $512$ train every one of T5's buckets, the last of which begins at
# {glue:text}`relpos-last-one-way:.0f`, so there the bias extrapolates; ours, with windows of 32, does not
# until we let it. One layer, one text, characters and three seeds are little evidence. What they show
# is a mechanism; the last experiment tests it.
# :::
#
# ## What came after: ALiBi and rotary encoding
#
# **ALiBi** {cite}`press2022` (§3) keeps T5's bias and drops the table. The bias falls with a straight
# line, and each of $h$ heads has a slope of its own, which is not trained:
#
# $$
# \begin{gathered}
# s_{ij} = \frac{q_i \cdot k_j}{\sqrt{d_k}} - \mu_a\,(i - j) , \qquad \mu_a = 2^{-8a/h} , \\
# a = 1, \dots, h .
# \end{gathered}
# $$ (def-relative-positions-alibi)
#
# By {eq}`eq-relative-positions-prior` the prior is a geometric one: each step back costs a head the
# same factor,
#
# $$
# \frac{e^{-\mu_a (r + 1)}}{e^{-\mu_a r}} = e^{-\mu_a} .
# $$ (eq-relative-positions-geometric)
#
# With eight heads the steepest loses a factor $e^{-1/2}$ a step, the flattest $e^{-1/256}$. A far key
# is never louder than a near one, at any length. That cannot be untrained, and it cannot be learned
# otherwise: no ALiBi head can prefer the word three back.
#
# **Rotary encoding** {cite}`su2021` (§3.2) turns query and key by angles that grow with their
# positions ({eq}`eq-sinusoidal-encoding-rotary`). Write a pair of query entries as a complex number $z^q_p$, and likewise
# for the key, with arguments $\varphi^q_p$ and $\varphi^k_p$. Turning by $i\,\omega_p$ multiplies by
# $e^{\mathrm{i}\, i\, \omega_p}$. The real dot product of two pairs is the real part of one times the
# conjugate of the other, so the score is
#
# $$
# \begin{aligned}
# \langle R_i q, R_j k \rangle
# &= \sum_p \operatorname{Re}\big( z^q_p\, \overline{z^k_p}\; e^{\mathrm{i}(i - j)\omega_p} \big) \\
# &= \sum_p \lvert z^q_p \rvert \lvert z^k_p \rvert
# \cos\!\big( (i - j)\,\omega_p + \varphi^q_p - \varphi^k_p \big) .
# \end{aligned}
# $$ (eq-relative-positions-rotary)
#
# Offsets alone once more. But here no number is *added*: distance and content are multiplied, as in
# Shaw's form, and the query decides how the distance counts. And nothing is clipped or shared: an
# offset that was not trained meets angles that were not trained.


# %%
def alibi_slopes(h):
    return 2.0 ** (-8.0 * torch.arange(1, h + 1, dtype=double) / h)


prior = (-alibi_slopes(8)[:, None] * torch.arange(50)).exp()  # (h, 50)
check(
    "eq-relative-positions-geometric",
    prior[:, 1:] / prior[:, :-1],
    (-alibi_slopes(8)).exp()[:, None].expand(8, 49),
)
check(
    "as in the paper, for eight heads",
    alibi_slopes(8),
    [0.5**a for a in range(1, 9)],
)

d = 16
omega = 10000.0 ** (-torch.arange(0, d, 2, dtype=double) / d)  # (d/2,)


def rotate(x, position):
    """Pairs (2p, 2p + 1) of x turned by position · ω_p."""
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    turn = torch.polar(torch.ones_like(omega), position * omega)
    return torch.view_as_real(z * turn).flatten(-2)


q, k = randn(d, seed=12), randn(d, seed=13)
z_q, z_k = (
    torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) for x in (q, k)
)
for i, j in [(5, 2), (105, 102), (3, 40)]:
    angle = (i - j) * omega + z_q.angle() - z_k.angle()
    check(
        "eq-relative-positions-rotary",
        rotate(q, i) @ rotate(k, j),
        (z_q.abs() * z_k.abs() * angle.cos()).sum(),
    )

# %% tags=["hide-input"]
fig, axes = plt.subplots(3, 1, figsize=(4.8, 5.8), sharex=True)
ahead = torch.arange(0, 65)
of = relative_position_bucket(-ahead, False, 16, 32)
near = live["t5-near"].bias.weight.detach().cpu()
for head, (color, style) in enumerate(
    zip(
        ("query", "key", "value", "weights"),
        ("-", "--", "-.", ":"),
        strict=True,
    )
):
    axes[0].step(
        ahead,
        near[of, head] - near[0, head],
        style,
        where="mid",
        color=COLORS[color],
    )
    axes[1].plot(
        ahead, -alibi_slopes(4)[head] * ahead, style, color=COLORS[color]
    )
ones = torch.ones(64, dtype=double)
slow = 10000.0 ** (-torch.arange(0, 64, 2, dtype=double) / 64)
same = (ahead[:, None] * slow).cos().sum(-1) / math.sqrt(64)
other = (ahead[:, None] * slow + math.pi / 2).cos().sum(-1) / math.sqrt(64)
axes[2].plot(ahead, same, "-", color=COLORS["query"], label="$k = q$")
axes[2].plot(
    ahead, other, "--", color=COLORS["key"], label="$k$ a quarter turn away"
)
axes[2].legend(loc="upper right")
for ax, title in zip(
    axes,
    (
        "T5: a trained table, added",
        "ALiBi: a fixed line, added",
        "rotary: a turn",
    ),
    strict=True,
):
    ax.set(title=title, ylabel="score")
axes[2].set_xlabel("distance")
show_figure(
    fig,
    name="fig-relative-positions-after",
    caption="What distance does to a score, for four heads each of T5's bias "
    "(the model trained above, 16 buckets to 32) and of ALiBi, and for rotary "
    "encoding with two pairs of query and key, $d_k$ = 64. The first two are the "
    "same for all words; the third depends on them.",
    alt="Three charts over distance 0 to 64. Top: four step curves, level from "
    "the last bucket on. Middle: four straight lines falling from zero with "
    "different slopes. Bottom: two wavy curves, one falling from four to two, "
    "one staying a little below zero.",
)

# %% [markdown]
# {numref}`fig-relative-positions-after` puts the three side by side. T5's is the most free over short
# distances and the stiffest over long ones; ALiBi's is one number a head; rotary encoding has no
# parameter, and leaves it to each query and key.
#
# ## T5, taken apart
#
# T5 is an encoder and a decoder as in chapter 7, with these differences. All of them are in the
# configuration of `lib.layers`; no block is written twice.
#
# | part | Transformer of 2017 | T5 v1.0 | T5 v1.1 |
# |---|---|---|---|
# | positions | sinusoids, added once | bias on self-attention of each stack | as v1.0 |
# | scores | divided by $\sqrt{d_k}$ | undivided, smaller queries | as v1.0 |
# | norm | LayerNorm, after | RMSNorm, before, no bias | as v1.0 |
# | biases in linear maps | yes | none | none |
# | feed-forward | ReLU | ReLU | GELU with a gate |
# | output | shares the words' matrix | shares it, times $d^{-1/2}$ | a matrix of its own |
#
# **Where the bias is, and where it isn't.** The encoder has one table, both ways; the decoder has one
# table, backwards. Cross-attention has none: $j - i$ between a place in the German text and a place in
# the English one is no distance.
#
# ```{lib-source} lib.models.t5.Stack.forward
# ```
#
# **RMSNorm** {cite}`zhang2019` divides a token by its root mean square, and does not subtract the mean:
#
# $$
# \operatorname{RMSNorm}(x) = \gamma \circ \frac{x}{\sqrt{\lVert x \rVert^2 / d + \varepsilon}} .
# $$ (def-relative-positions-rms)
#
# With $\gamma = 1$ and $\varepsilon = 0$ the square of the length is $\lVert x \rVert^2$ divided by
# $\lVert x \rVert^2 / d$:
#
# $$
# \lVert \operatorname{RMSNorm}(x) \rVert^2 = d .
# $$ (eq-relative-positions-rms)
#
# That is the hypothesis that step 6 used. Where $x$ has mean zero, RMSNorm *is* LayerNorm.
#
# **The gate** of v1.1 {cite}`shazeer2020` (§2) multiplies two maps of the token, one of them bent:
#
# $$
# \operatorname{FFN}(x) = \big( \operatorname{GELU}(x W_g) \circ x W_1 \big)\, W_2 .
# $$ (eq-relative-positions-gate)
#
# Three matrices in place of two: at equal $d_\text{ff}$ half as many parameters again, so v1.1 has a
# smaller $d_\text{ff}$.
#
# **The factor $d^{-1/2}$.** In v1.0 the matrix $E$ of words is both input and output. T5 draws its
# entries with standard deviation one, which suits the input. For the output, let $u$ be a normed token,
# $\lVert u \rVert^2 = d$. A logit $u \cdot E[t]$ then has variance $d$, and with the factor
#
# $$
# \operatorname{Var}\!\big( d^{-1/2}\, u \cdot E[t] \big) = \frac{1}{d} \lVert u \rVert^2 \cdot 1 = 1 .
# $$ (eq-relative-positions-output)
#
# Once more a scale that could be anywhere, and has to be somewhere. v1.1 has a matrix for the output
# that begins small, and needs no factor.

# %%
x = randn(6, 32, seed=14) + 1.0  # with a mean
norm = RMSNorm(32, eps=0.0).double()
check("eq-relative-positions-rms", norm(x).square().sum(-1), 32.0)
check(
    "the same as torch's own",
    RMSNorm(32, eps=1e-6).double()(x),
    nn.RMSNorm(32, eps=1e-6, dtype=double)(x),
)
centred = x - x.mean(-1, keepdim=True)
check(
    "of centred tokens it is LayerNorm",
    RMSNorm(32, eps=1e-6).double()(centred),
    F.layer_norm(centred, (32,), eps=1e-6),
)
check(
    "of others it is not", (norm(x) - F.layer_norm(x, (32,))).abs().max() > 0.3
)

torch.manual_seed(0)
sizes = {
    "d_model": 256,
    "d_head": 16,
    "num_layers": 1,
    "num_heads": 4,
    "d_ff": 32,
}
v11 = T5(
    T5Config(4000, **sizes, feed_forward="gated-gelu", tied=False, dropout=0.0)
)
layer = v11.encoder.layers[0].feed_forward
x = torch.randn(3, 256)
with torch.no_grad():
    gate = F.gelu(layer.gate(x), approximate="tanh")
    check(
        "eq-relative-positions-gate",
        layer(x),
        layer.contract(gate * layer.expand(x)),
        atol=1e-5,
    )
v10 = T5(T5Config(4000, **sizes, dropout=0.0))
with torch.no_grad():
    ids = torch.randint(
        4000, (4, 30), generator=torch.Generator().manual_seed(0)
    )
    logits = v10(ids, ids)  # 120 hidden tokens, 4000 words
check("eq-relative-positions-output", logits.var(), 1.0, atol=0.2)

# %% [markdown]
# ### Equal to the official T5
#
# No weights can be fetched while this book is built. But equality needs none: a *tiny random* model of
# `transformers`, saved in the official format and loaded by ours, has every part of the real one. All
# its parameters are drawn anew first, because initial values hide mistakes: a norm whose scale is one
# looks right without its scale.


# %%
def official_pair(folder, dtype, vocab_size=47, **options):
    """A random T5 of `transformers`, saved, and ours loaded from there."""
    config = transformers.T5Config(
        vocab_size=vocab_size,
        d_model=24,
        d_kv=5,
        d_ff=29,
        num_layers=2,
        num_heads=3,
        relative_attention_num_buckets=10,  # few and near: the text is longer
        relative_attention_max_distance=9,
        decoder_start_token_id=0,
        **options,
    )
    theirs = transformers.T5ForConditionalGeneration(config).to(dtype).eval()
    if options.get("tie_word_embeddings") is False:
        own = torch.empty(vocab_size, 24, dtype=dtype)
        theirs.lm_head.weight = nn.Parameter(own)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            noise = torch.randn(
                parameter.shape, generator=generator, dtype=double
            )
            if parameter.ndim == 1:  # of a norm
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(0.8 * noise / 24**0.5)
    theirs.save_pretrained(folder)
    return T5.from_pretrained(folder), theirs


versions = {
    "v1.0": {},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
generator = torch.Generator().manual_seed(1)
read = torch.randint(3, 47, (3, 13), generator=generator)
real = (torch.arange(13) < torch.tensor([13, 8, 3])[:, None]).long()
written = torch.randint(3, 47, (3, 7), generator=generator)
batch = {
    "input_ids": read,
    "attention_mask": real,
    "decoder_input_ids": written,
}
for name, options in versions.items():
    for dtype, allowed in ((torch.float32, 1e-5), (double, 1e-6)):
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = official_pair(folder, dtype, **options)
        with torch.no_grad():
            got, want = ours(**batch), theirs(**batch).logits
        largest = want.abs().max()
        check(
            f"T5 {name}, {str(dtype)[6:]}: the official logits",
            got / largest,
            want / largest,
            atol=allowed,
        )
    prompt = {name: x for name, x in batch.items() if "decoder" not in name}
    with torch.no_grad():
        want = theirs.generate(**prompt, max_new_tokens=12, do_sample=False)
    got = greedy(ours, **prompt, max_new_tokens=12)
    check(f"T5 {name}: the official tokens", got, want, atol=0)
    slow = greedy(ours, **prompt, max_new_tokens=12, use_cache=False)
    check(f"T5 {name}: with a cache as without", got, slow, atol=0)

# %% [markdown]
# (In float64 the two agree to a millionth only, because one operation of the reference, the mean square
# in its norm, is computed in float32 always. `tests/models/test_t5.py` replaces that one operation, and
# finds agreement to ten digits; there, too, are planted mistakes that this comparison must catch,
# a bias in cross-attention among them.)
#
# ### Text to text
#
# T5 has no classifier and no span head. Whatever the task, text goes in, with a few words in front that
# name the task, and text comes out {cite}`raffel2020` (§2.4):
#
# | task | what is read | what is written |
# |---|---|---|
# | summarization | `summarize: ` and an article | the summary |
# | question answering | `question: … context: …` | the answer |
# | translation | `translate English to German: ` and a sentence | the sentence |
#
# So one function does all of them.


# %%
def write(model, tokenizer, texts, max_new_tokens=60):
    """What a T5 writes, having read each of some texts."""
    place = model.word.weight.device
    inputs = tokenizer(texts)
    ids = greedy(
        model,
        inputs["input_ids"].to(place),
        attention_mask=inputs["attention_mask"].to(place),
        max_new_tokens=max_new_tokens,
    )
    return [tokenizer.decode(row) for row in ids]


# %% [markdown]
# On Colab the next two cells load T5-small, sixty million parameters, and let it read. Elsewhere they
# say that they did not.

# %%
t5 = official(
    lambda repo: (
        T5.from_pretrained(repo).eval(),
        Tokenizer.from_pretrained(repo),
    ),
    "google-t5/t5-small",
)
article = (
    "summarize: The relative position bias of T5 is a table with one number for "
    "each attention head and each range of distances between two words. It is "
    "added to the attention scores before the softmax. All layers of a stack "
    "share one table. Because only distances enter, the model reads a phrase in "
    "the same way wherever it stands in the text."
)
if t5 is not None:
    print(write(*t5, [article])[0])

# %%
questions = [
    f"question: {question} context: {article.removeprefix('summarize: ')}"
    for question in (
        "What is added to the attention scores?",
        "Who share one table?",
    )
]
if t5 is not None:
    for answer in write(*t5, questions):
        print(answer)

# %% [markdown]
# Is that code right, where it cannot run? Prove it on a model that writes nonsense. We need a tokenizer
# like T5's: one that ends each text with `</s>`, pads with id 0, and cuts text into the pieces that
# are most probable together (a *unigram* model; spaces are written `▁`). Ours has every character of
# the text on which it is built and the words most used there.

# %%
paragraphs = topics_paragraphs()
counts = {}
for word in " ".join(paragraphs).split():
    counts["▁" + word] = counts.get("▁" + word, 0) + 1
characters = sorted(set("".join(counts)) | set(" ".join(questions)) - {" "})
common = sorted(counts, key=lambda word: (-counts[word], word))[:500]
in_all = sum(counts.values())
pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
pieces += [(character, -15.0) for character in characters]
pieces += [
    (word, math.log(counts[word] / in_all)) for word in common if len(word) > 1
]
backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2))
backend.pre_tokenizer = pre_tokenizers.Metaspace()
backend.decoder = decoders.Metaspace()
backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
backend.post_processor = processors.TemplateProcessing(
    single="$A </s>", special_tokens=[("</s>", 1)]
)
tokenizer = Tokenizer(backend)
print(
    " ".join(tokenizer.tokens(tokenizer.encode("summarize: the value of this")))
)
texts = [article, *questions]
check(
    "decoding gives the text back",
    [tokenizer.decode(tokenizer.encode(text)) == text for text in texts]
    == [True] * 3,
)
for name, options in versions.items():
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = official_pair(
            folder, torch.float32, vocab_size=len(tokenizer), **options
        )
        tokenizer.save_pretrained(folder)
        loaded = Tokenizer.from_pretrained(folder)
    inputs = loaded(texts)
    del inputs["token_type_ids"]
    with torch.no_grad():
        want = theirs.generate(**inputs, max_new_tokens=20, do_sample=False)
    got = write(ours, loaded, texts, max_new_tokens=20)
    check(
        f"T5 {name}: text to text, as the official model writes it",
        got == [tokenizer.decode(row) for row in want],
    )
    print(f"{name} writes:", got[1][:50])

# %% [markdown]
# ## Folklore, set right
#
# | What one reads | What is so |
# |---|---|
# | “T5 adds a relative position *layer*, for long sequences.” | It adds no layer. It adds one trained number for each head and bucket to the scores {eq}`def-relative-positions-score`; all layers of a stack share the table {cite}`raffel2020` (§2.1). T5-small knows of places through {glue:text}`relpos-parameters:.0f` numbers. |
# | “32 buckets, up to distance 128.” | 31 are live in an encoder {eq}`eq-relative-positions-dead`, and the last begins at {glue:text}`relpos-last-two-way:.0f`, in a decoder at {glue:text}`relpos-last-one-way:.0f` {eq}`eq-relative-positions-last`. |
# | “T5 does not scale its attention.” | It does not divide. Its queries are drawn smaller by the same factor {eq}`eq-relative-positions-folded`. |
# | “Relative positions extrapolate to any length.” | Ours extrapolate as far as their buckets were trained. |
# | “T5 sees no further than 128 tokens.” | One layer cannot tell 128 from 500 back, but sees both; later layers can combine what nearer ones found {cite}`raffel2020` (§2.1). |

# %% [markdown]
# ## Broken on purpose
#
# Four mistakes. Each box makes one, shows its symptom as a number, and runs a test that must fail on
# the broken version and pass on the right one.
#
# :::{admonition} Broken on purpose D18: the offset as an index
# :class: broken
# A table of eight numbers for “four places each way”, and $j - i$ itself as the index. Negative indices
# count from the end of a Python list, so it seems to work, up to four words. With the fifth, four back
# and four ahead share a number. With the ninth, there is no such index.
# :::


# %%
eight = randn(8, seed=15)
trained = RelativePositionBias(1, std=1.0).double()


def by_raw_offset(n):
    return eight[torch.arange(n) - torch.arange(n)[:, None]]  # (n, n)


def by_bucket(n):
    return trained(n)[0, 0].detach()


def directions_apart_at_any_length(bias_of):
    problems = []
    for n in range(2, 50):
        try:
            B = bias_of(n)
        except IndexError as error:
            problems.append(f"crash at {n} words ({str(error)[:20]}…)")
            break
        shared = (B[0, 1:] == B[1:, 0]).nonzero().flatten() + 1
        if len(shared) and not problems:
            r = int(shared[0])
            problems.append(f"{n} words: {r} back and {r} ahead share a number")
    assert not problems, "; ".join(problems)


catches(
    "D18", directions_apart_at_any_length, broken=by_raw_offset, fixed=by_bucket
)

# %% [markdown]
# **Fix:** a bucket for every offset there is, from a function that is tested against a second source at
# far more offsets than the training text has.
#
# :::{admonition} Broken on purpose D18b: an edge, rounded down
# :class: broken
# The formula as it is written, in floating point. At an edge that is a whole number the quotient of the
# logarithms may come out a hair below 2, and the floor makes 1 of it. Default sizes are spared, so nobody
# notices; a checkpoint with other sizes, trained with an exact function, reads some distances wrongly.
# :::


# %%
def by_logarithm(m, D):
    return [rounded_bucket(delta, m, D) for delta in range(300)]


def by_library(m, D):
    return relative_position_bucket(-torch.arange(300), False, m, D).tolist()


def edges_are_exact(buckets_of):
    wrong = []
    for m in range(4, 40):
        for D in (32, 64, 81, 128, 216, 256):
            got = buckets_of(m, D)
            want = [exact_bucket(delta, m, D) for delta in range(300)]
            wrong += [
                (m, D, delta)
                for delta in range(300)
                if got[delta] != want[delta]
            ]
    assert not wrong, (
        f"{len(wrong)} distances are in the wrong bucket, the first of them "
        f"{wrong[0][2]} for m = {wrong[0][0]}, D = {wrong[0][1]}"
    )


catches("D18b", edges_are_exact, broken=by_logarithm, fixed=by_library)

# %% [markdown]
# **Fix:** compare integers {eq}`eq-relative-positions-integers`. (Where a checkpoint was trained with
# rounded edges, it wants these. At T5's sizes the two are the same.)
#
# :::{admonition} Broken on purpose D20: a mask on the wrong axis
# :class: broken
# Padding is marked for each sample: a matrix of batch × keys. Scores are batch × queries × keys.
# Broadcasting lines dimensions up from the right, so the samples of the mask fall on the *queries* of
# the scores. With most shapes that is an error. Where the batch is as large as the text is long, it is
# none.
# :::


# %%
n = 5  # words, and samples
lengths = torch.tensor([5, 3, 5, 4, 5])
real = torch.arange(n) < lengths[:, None]  # (B, n_k)
q, k, v = (randn(n, n, 8, seed=seed) for seed in (16, 17, 18))  # (B, n, d_k)


def mask_by_row(q, k, v):
    return scaled_dot_product_attention(q, k, v, real, return_weights=True)[1]


def mask_by_sample(q, k, v):
    mask = real[:, None, :]  # (B, 1, n_k)
    return scaled_dot_product_attention(q, k, v, mask, return_weights=True)[1]


def pads_are_hidden_and_nothing_else(attend):
    weights = attend(q, k, v)  # (B, n_q, n_k)
    on_pads = weights[1, :, 3:].sum(-1)
    blind = [
        (i, j) for i in range(n) for j in range(n) if weights[0, i, j] == 0
    ]
    assert on_pads.max() == 0 and not blind, (
        f"sample 1 spends up to {on_pads.max():.2f} of its weight on its pads; "
        f"sample 0, which has none, is blind at (query, key) {blind}"
    )


catches(
    "D20",
    pads_are_hidden_and_nothing_else,
    broken=mask_by_row,
    fixed=mask_by_sample,
)

# %% [markdown]
# Sample 1's pads, keys 3 and 4, hide those keys from query 1 of *every* sample; and sample 3's hide key
# 4 from query 3. **Fix:** give the mask its axis, `real[:, None, :]`, or with heads `[:, None, None, :]`;
# and test with a batch that is as large as the text is long. `MultiHeadAttention` reads three
# dimensions as samples for the same reason, and refuses a bias of shape (h, n, n).
#
# :::{admonition} Broken on purpose D09c: the fold, forgotten
# :class: broken
# T5's attention with `scaled=False`, and the matrices as any other layer draws them. Nothing fails. The
# scores begin with variance $d_k$, and most heads stare at one key before they have learned anything.
# :::


# %%
def usual(attend):
    pass  # Glorot's values, as the layer was made


def folded(attend):
    nn.init.normal_(attend.query_projection.weight, std=(128 * 64) ** -0.5)
    nn.init.normal_(attend.key_projection.weight, std=128**-0.5)


def scores_begin_with_variance_one(initialise):
    torch.manual_seed(0)
    attend = MultiHeadAttention(
        128, 2, d_head=64, scaled=False, bias=False
    ).double()
    with torch.no_grad():
        initialise(attend)
        q = attend.query_projection(tokens).unflatten(-1, (2, 64))
        k = attend.key_projection(tokens).unflatten(-1, (2, 64))
        scores = torch.einsum("bihd,bjhd->bhij", q, k)
        largest = scores.softmax(-1).amax(-1).mean()
    assert 0.5 < scores.var() < 2, (
        f"the scores' variance is {scores.var():.1f}, the largest of {keys} "
        f"weights {largest:.2f} on average"
    )


catches("D09c", scores_begin_with_variance_one, broken=usual, fixed=folded)

# %% [markdown]
# **Fix:** divide, or draw queries with $(d\,d_k)^{-1/2}$. One of them, never both and never neither; and
# test the variance of the scores of the layer as it is made.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} Smaller queries
# :label: ex-relative_positions-fold
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Tokens are normed, $\lVert x \rVert^2 = d$, and keys are drawn with standard deviation `key_std`.
# Write `query_std(d, d_k, key_std)`: with which standard deviation must $W_Q$ be drawn, so that an
# undivided score has variance one?
#
# ```{dropdown} Hint
# Solve {eq}`eq-relative-positions-variance` for $\sigma_Q$.
# ```


# %% tags=["exercise-stub"]
def query_std(d, d_k, key_std):
    raise NotImplementedError


grade("ex-relative_positions-fold", query_std)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-relative_positions-fold
# :class: dropdown
# ```


# %% tags=["solution"]
def query_std(d, d_k, key_std):
    return 1 / (math.sqrt(d_k) * key_std * d)


grade("ex-relative_positions-fold", query_std)

# %% [markdown]
# With `key_std` $= d^{-1/2}$ that is $(d\,d_k)^{-1/2}$, T5's.
#
# ```{solution-end}
# ```
#
# ```{exercise-start} Straight lines
# :label: ex-relative_positions-alibi
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `alibi(h, n)`: the biases of {eq}`def-relative-positions-alibi` for $h$ heads, a power of two,
# and $n$ positions, a tensor (h, n, n). Keys after the query, which the causal mask hides, get 0.
#
# ```{dropdown} Hint
# `clamp(min=0)` on the matrix of $i - j$. The slopes are $2^{-8a/h}$, counted from $a = 1$.
# ```


# %% tags=["exercise-stub"]
def alibi(h, n):
    raise NotImplementedError


grade("ex-relative_positions-alibi", alibi)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-relative_positions-alibi
# :class: dropdown
# ```


# %% tags=["solution"]
def alibi(h, n):
    slope = 2.0 ** (-8.0 * torch.arange(1, h + 1) / h)
    place = torch.arange(n)
    distance = (place[:, None] - place).clamp(min=0)  # (n, n), i − j
    return -slope[:, None, None] * distance


grade("ex-relative_positions-alibi", alibi)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} One bucket, both ways
# :label: ex-relative_positions-bucket
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `bucket(r, num_buckets=32, max_distance=128)`: the bucket of one whole offset $r = j - i$ in an
# encoder, in plain Python. Keys after the query ($r > 0$) are in the second half.
#
# ```{dropdown} Hint
# First the number of buckets of one direction; half of *that* are exact. Then
# {eq}`def-relative-positions-bucket` for $\lvert r \rvert$. `math.floor` rounds down; beware of edges
# that are whole numbers, or go by {eq}`eq-relative-positions-integers`.
# ```


# %% tags=["exercise-stub"]
def bucket(r, num_buckets=32, max_distance=128):
    raise NotImplementedError


grade("ex-relative_positions-bucket", bucket)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-relative_positions-bucket
# :class: dropdown
# ```


# %% tags=["solution"]
def bucket(r, num_buckets=32, max_distance=128):
    m = num_buckets // 2
    e = m // 2
    distance, found = abs(r), abs(r)
    if distance >= e:
        wide = m - e
        found = e
        for k in range(1, wide):
            found += distance**wide >= max_distance**k * e ** (wide - k)
    return found + (m if r > 0 else 0)


grade("ex-relative_positions-bucket", bucket)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Every edge
# :label: ex-relative_positions-edges
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `edges(m, D)`: of one direction with $m$ buckets, the smallest distance in each of the buckets
# $e, e + 1, \dots, m - 1$, a list of $m - e$ whole numbers. It must be right for edges of any size.
#
# ```{dropdown} Hint
# Round $e\,\rho^k$ up. Floating point may land a hair above a whole number: test the candidate and its
# neighbours by {eq}`eq-relative-positions-integers`, which needs no rounding.
# ```


# %% tags=["exercise-stub"]
def edges(m, D):
    raise NotImplementedError


grade("ex-relative_positions-edges", edges)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-relative_positions-edges
# :class: dropdown
# ```


# %% tags=["solution"]
def edges(m, D):
    e = m // 2
    wide = m - e
    found = []
    for k in range(wide):
        target = D**k * e ** (wide - k)
        distance = max(int(e * (D / e) ** (k / wide)) - 2, 0)
        while distance**wide < target:
            distance += 1
        found.append(distance)
    return found


grade("ex-relative_positions-edges", edges)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} What does training reach?
# :label: ex-relative_positions-reach
# ```
# *Difficulty ●●○ · 10 minutes*
#
# A causal model is trained on windows of $n$ tokens, with $m$ buckets to $D$. Write
# `untrained(n, m, D)`: how many of its buckets get no gradient from any pair.
#
# ```{dropdown} Hint
# The longest distance in a window is $n - 1$. Buckets are filled from below, without gaps as long as
# each has a distance of its own; edges that coincide leave a bucket empty. Counting is safest:
# `relative_position_bucket` of all distances, `bidirectional=False`.
# ```


# %% tags=["exercise-stub"]
def untrained(n, m, D):
    raise NotImplementedError


grade("ex-relative_positions-reach", untrained)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-relative_positions-reach
# :class: dropdown
# ```


# %% tags=["solution"]
def untrained(n, m, D):
    from lib.positions import relative_position_bucket

    offsets = -torch.arange(n)  # keys before the query, and itself
    reached = relative_position_bucket(offsets, False, m, D).unique()
    return m - len(reached)


grade("ex-relative_positions-reach", untrained)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The bias, with a cache
# :label: ex-relative_positions-bias
# ```
# *Difficulty ●●● · 15 minutes*
#
# `table` is (N, h), and `bucket` maps a tensor of offsets to a tensor of bucket numbers of the same
# shape. Write `bias_matrix(table, bucket, n_q, n_k)`: the biases (h, n_q, n_k), where the $n_q$
# queries are the *last* ones of the $n_k$ positions.
#
# ```{dropdown} Hint
# Query row 0 stands at position $n_k - n_q$. The offset is key minus query. `table[...]` puts heads
# last; they are wanted first.
# ```


# %% tags=["exercise-stub"]
def bias_matrix(table, bucket, n_q, n_k):
    raise NotImplementedError


grade("ex-relative_positions-bias", bias_matrix)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-relative_positions-bias
# :class: dropdown
# ```


# %% tags=["solution"]
def bias_matrix(table, bucket, n_q, n_k):
    key = torch.arange(n_k)
    query = torch.arange(n_k - n_q, n_k)[:, None]
    return table[bucket(key - query)].permute(2, 0, 1)


grade("ex-relative_positions-bias", bias_matrix)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - T5 adds one trained number for each head and bucket of offsets to the scores
#   {eq}`def-relative-positions-score`. The matrix of biases is constant along diagonals
#   {eq}`eq-relative-positions-toeplitz`, so a phrase is read in the same way wherever it stands
#   {eq}`eq-relative-positions-shift`.
# - The bias is a prior over distances, which the words multiply {eq}`eq-relative-positions-prior`.
# - Half of the buckets are exact. The others follow from equal steps for equal ratios
#   {eq}`eq-relative-positions-logarithm`; they begin at $\lceil e\,\rho^k \rceil$
#   {eq}`eq-relative-positions-edges`, the last at $D/\rho$ {eq}`eq-relative-positions-last`. Integers
#   decide edges without rounding {eq}`eq-relative-positions-integers`.
# - In an encoder one bucket is dead {eq}`eq-relative-positions-dead`.
# - The division by $\sqrt{d_k}$ is folded into the first values of $W_Q$
#   {eq}`eq-relative-positions-folded`: the same functions, another training
#   {eq}`eq-relative-positions-gradient`.
# - A relative bias extrapolates as far as its buckets were trained. Sinusoids and learned positions do
#   not extrapolate at all, here.
# - ALiBi is the same bias without a table {eq}`def-relative-positions-alibi`; rotary encoding multiplies
#   where these add {eq}`eq-relative-positions-rotary`.
# - T5 is an encoder–decoder with RMSNorm, without biases, with text in and text out. `lib.models.t5`
#   gives the official logits and tokens, v1.0 and v1.1.
#
# ## Sources
#
# - {cite:t}`raffel2020`, §2.1: the model and its bias; §2.4: text to text; §3.1.2: Adafactor. The bucket
#   function and the smaller queries are in the code released with it (mesh_tensorflow,
#   `transformer_layers.py` and `attention.py`).
# - {cite:t}`shaw2018`, §3: offsets as vectors, clipped; the beginning of all this.
# - {cite:t}`huang2018`: relative attention for music, and how to compute it in less memory.
# - {cite:t}`press2022`, §2.2: which positions extrapolate; §3: ALiBi and its slopes.
# - {cite:t}`su2021`, §3.2: rotary position embedding.
# - {cite:t}`shazeer2020`, §2: gated feed-forward layers.
# - {cite:t}`zhang2019`: RMSNorm.
# - {cite:t}`shazeer2018`: Adafactor.
