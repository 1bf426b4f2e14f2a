# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A Transformer reads a sequence of vectors. Cut an image into patches and call them words:
#       does attention then need to be told that pixels form a grid? And what does it pay for not
#       being told?
#     goals:
#       - show that cutting, flattening and mapping patches is one strided convolution
#       - say what a patch size costs, and why half the patch is sixteen times the attention
#       - prove that a ViT cannot tell an image from its shuffled patches, in training as in use
#       - say which two assumptions a convolution makes, and build a convolution out of attention
#       - measure ViT against CNN from few labels to many, and find the grid in what was learned
#     prerequisites:
#       - multi-head attention (chapter 3) and learned positions (chapter 4)
#       - the pre-norm block and its residual stream (chapter 6)
#       - what a convolution computes
#     data: 1,797 handwritten digits that come with scikit-learn; no download.
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
# # The Vision Transformer

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
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib.attention import scaled_dot_product_attention
from lib.data import digits
from lib.layers import EncoderLayer
from lib.models.vit import PatchEmbeddings, ViT, ViTConfig
from lib.teaching import (
    AttentionRows,
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
from lib.teaching.recorded import recorded
from lib.training import fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# An image is a tensor $x$ of $C$ channels, $H$ rows and $W$ columns. Choose a *patch size* $P$ that
# divides $H$ and $W$, and cut the image like a sheet of stamps into squares of $P \times P$ pixels.
# The patch in row $i$ and column $j$ of the sheet, read channel by channel, each of its rows from
# left to right, is one vector:
#
# $$
# x_{\text{patch}}^{(t)} = \operatorname{vec}\, x\big[:,\; iP : (i+1)P,\; jP : (j+1)P\big]
# \in \mathbb{R}^{CP^2},
# \qquad t = i\,\tfrac{W}{P} + j .
# $$ (def-vision-transformer-patches)
#
# There are $N = HW/P^2$ of them, counted along the rows as one reads. From here on nothing is about
# images. A linear map takes each patch to $d$ features, a trained *class token* is put in front,
# and every place gets a trained vector of its own:
#
# $$
# z_0 = \big[\,x_{\text{class}};\; x_{\text{patch}}^{(0)} E + b;\; \dots;\;
# x_{\text{patch}}^{(N-1)} E + b\,\big] + E_{\text{pos}} .
# $$ (def-vision-transformer-input)
#
# Then come $L$ pre-norm encoder layers, and a last norm. The class token's vector is read off, and
# a linear map makes of it one logit a class:
#
# $$
# \begin{aligned}
# z'_\ell &= z_{\ell-1} + \operatorname{MultiHead}(\operatorname{LN}(z_{\ell-1})) \\
# z_\ell &= z'_\ell + \operatorname{FeedForward}(\operatorname{LN}(z'_\ell)) \\
# y &= \operatorname{LN}(z_L)_{0}\, W_{\text{head}} + b_{\text{head}} .
# \end{aligned}
# $$ (def-vision-transformer-model)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $x$ | $C \times H \times W$ | the image; $C$ is 3 for colour and 1 for our digits |
# | $P$, $N$ | numbers | pixels along a patch's side; how many patches, $HW/P^2$ |
# | $x_{\text{patch}}^{(t)}$ | $CP^2$ | the pixels of patch $t$ as one vector |
# | $E$, $b$ | $CP^2 \times d$, $d$ | one linear map for all patches |
# | $x_{\text{class}}$ | $d$ | the class token: trained, the same for every image |
# | $E_{\text{pos}}$ | $(1 + N) \times d$ | one trained row a place; row 0 is the class token's |
# | $z_\ell$ | $(1 + N) \times d$ | all tokens after layer $\ell$ |
#
# {numref}`fig-vision-transformer-patches` shows what such a model is given: on the left what we
# see, on the right all that it sees.

# %%
data = digits(0, 500 / 1797)  # 500 held out, 1,297 to train on
images, labels = data.train.to(device), data.train_labels.to(device)
test, test_labels = data.validation.to(device), data.validation_labels.to(device)
glue("vit-training-images", len(images))
glue("vit-test-images", len(test))
print(f"{len(images):,} training and {len(test)} test images of {images[0].shape}")

# %% tags=["hide-input"]
digit = images[int((labels == 2).nonzero()[0])].cpu()  # (1, 8, 8)
fig, axes = plt.subplots(
    1, 2, figsize=(5.1, 2.9), gridspec_kw={"width_ratios": [1.6, 1]}
)
heatmap(axes[0], digit[0], vmin=0, vmax=1)
for edge in (1.5, 3.5, 5.5):
    axes[0].axhline(edge, color=COLORS["key"], linewidth=1.2)
    axes[0].axvline(edge, color=COLORS["key"], linewidth=1.2)
axes[0].set(title="8 × 8 pixels, $P = 2$", xlabel="column", ylabel="row")
tokens = F.unfold(digit[None], 2, stride=2)[0].T  # (16, 4)
heatmap(axes[1], tokens, vmin=0, vmax=1)
axes[1].set(title="16 tokens", xlabel="feature", ylabel="token $t$")
show_figure(
    fig,
    name="fig-vision-transformer-patches",
    caption="A digit of the data set, cut into sixteen patches (left), and the "
    "same numbers as the model gets them, one patch a row (right). That row 0 "
    "and row 4 of the right are neighbours on the left is not written anywhere.",
    alt="Left, a handwritten two of 8 by 8 pixels with a grid of lines that cuts "
    "it into 16 squares. Right, a table of 16 rows and 4 columns with the same "
    "pixel values, in which no digit can be seen.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# “Vision Transformer has much less image-specific inductive bias than CNNs. In CNNs, locality,
# two-dimensional neighborhood structure, and translation equivariance are baked into each layer
# throughout the whole model. In ViT, only MLP layers are local and translationally equivariant,
# while the self-attention layers are global.” {cite:t}`dosovitskiy2021` (§3.1). Its $D$ is our $d$,
# and its equations 1 to 4 are the formulas above, without the bias $b$, which its code has.
# :::
#
# :::{admonition} Our remark
# :class: remark
# “Less” can be made exact. Steps 4 and 5 prove what the model does not know, step 6 what a
# convolution does, and the measurements say what the difference is worth, on small images.
# :::

# %% [markdown]
# ## Derivation
#
# Eight steps. The first three are about patches, the next two about the grid that is lost, two more
# about the convolution that has kept it, and the last about images of another size.
#
# ### Step 1. Patches are a reordering
#
# A pixel of the image has a channel $c$, a row and a column. Divide row and column by $P$: the
# quotients say which patch, and the remainders $u, v$ say where in it. By
# {eq}`def-vision-transformer-patches` the pixel lands in token $t$ at feature $f$:
#
# $$
# x_{\text{patch}}^{(t)}[f] = x[c,\; iP + u,\; jP + v],
# \qquad t = i\,\tfrac{W}{P} + j, \quad f = cP^2 + uP + v .
# $$ (eq-vision-transformer-index)
#
# Division with remainder can be undone, so $(c, iP + u, jP + v) \mapsto (t, f)$ is one to one. No
# pixel is lost, and none stands in two patches. In code it takes three operations. Write each side
# as (quotient, remainder), bring the two quotients to the front, and merge what belongs together:
#
# $$
# (C,\, HW) \;\to\; \big(C,\, \tfrac{H}{P},\, P,\, \tfrac{W}{P},\, P\big)
# \;\to\; \big(\tfrac{H}{P},\, \tfrac{W}{P},\, C,\, P,\, P\big) \;\to\; (N,\, CP^2) .
# $$
#
# The step in the middle moves memory. A reshape alone never does; the box D46 leaves it out.
# PyTorch calls the whole thing `unfold` (with the last two axes swapped), and its inverse `fold`.


# %%
def patchify(x, P):
    """(B, C, H, W) to (B, N, C P P), by the three operations."""
    B, C, H, W = x.shape
    x = x.reshape(B, C, H // P, P, W // P, P)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * P * P)


draw = torch.Generator().manual_seed(5)


def randn(*shape):
    return torch.randn(*shape, generator=draw, dtype=double)


B, C, H, W, P, d = 2, 3, 6, 10, 2, 7
x = randn(B, C, H, W)
patches = patchify(x, P)  # (2, 15, 12)
by_index = torch.empty_like(patches)
for c in range(C):
    for row in range(H):
        for column in range(W):
            (i, u), (j, v) = divmod(row, P), divmod(column, P)
            t, f = i * (W // P) + j, c * P * P + u * P + v
            by_index[:, t, f] = x[:, c, row, column]
check("eq-vision-transformer-index", patches, by_index, atol=0)
check("it is torch's unfold", patches, F.unfold(x, P, stride=P).mT, atol=0)
check("nothing is lost", F.fold(patches.mT, (H, W), P, stride=P), x, atol=0)

# %% [markdown]
# ### Step 2. The linear map of patches is a convolution
#
# A convolution with kernel $K$, of shape $d \times C \times P \times P$, that moves on by $P$ pixels
# at a time has at place $(i, j)$ and output channel $k$
#
# $$
# \operatorname{conv}(x)[k, i, j] = b_k + \sum_{c=0}^{C-1} \sum_{u=0}^{P-1} \sum_{v=0}^{P-1}
# K[k, c, u, v]\; x[c,\, iP + u,\, jP + v] .
# $$ (def-vision-transformer-conv)
#
# The pixel on the right is $x_{\text{patch}}^{(t)}[f]$, by {eq}`eq-vision-transformer-index`. As
# $c, u, v$ run over their ranges, $f = cP^2 + uP + v$ runs once over $0 \dots CP^2 - 1$. So the
# three sums are one, and with
#
# $$
# E[cP^2 + uP + v,\; k] = K[k, c, u, v]
# $$ (def-vision-transformer-weights)
#
# it reads
#
# $$
# \operatorname{conv}(x)[k, i, j] = b_k + \sum_{f=0}^{CP^2-1} x_{\text{patch}}^{(t)}[f]\; E[f, k]
# = \big(x_{\text{patch}}^{(t)} E + b\big)_k .
# $$ (eq-vision-transformer-conv)
#
# In code, $E$ is `K.flatten(1).T`: no number changes, only the shape. That is why implementations
# have a `Conv2d` there, and why it is still right to say that a ViT begins with a linear map.

# %%
conv = nn.Conv2d(C, d, P, stride=P).double()
E = conv.weight.detach().flatten(1).T  # (C P P, d)
as_matrix = patches @ E + conv.bias.detach()  # (B, N, d)
as_conv = conv(x).detach()  # (B, d, H/P, W/P)
check("eq-vision-transformer-conv", as_conv.flatten(2).mT, as_matrix)

# without the hypothesis: a stride below P
shared = F.unfold(torch.ones(1, 1, H, W), P, stride=1)
times = F.fold(shared, (H, W), P, stride=1)[0, 0]
check("stride 1: an inner pixel is in P² patches", times[2, 3], P**2)
apart = torch.ones(1, P * P, H * W // P**2)
check("stride P: each in one", F.fold(apart, (H, W), P, stride=P), 1.0)

# %% [markdown]
# **Without the hypothesis** that the stride is $P$, the map is still a convolution, but tokens
# overlap: at stride one, a pixel well inside stands in $P^2$ of them, and $N$ grows to nearly $HW$.
#
# ### Step 3. What a patch size costs
#
# The number of patches goes with the square of the side:
#
# $$
# N(P) = \frac{HW}{P^2}, \qquad N(P/2) = 4\,N(P) .
# $$ (eq-vision-transformer-count)
#
# One encoder layer on $n = N + 1$ tokens multiplies and adds, with $d_{\text{ff}} = 4d$: four
# projections of $n d^2$; scores and mixture, $n^2 d$ each, whatever the number of heads; and two
# maps of the feed-forward layer, $4nd^2$ each. In sum
#
# $$
# M_{\text{layer}}(n) = 4nd^2 + 2n^2 d + 8nd^2 = 12\,n d^2 + 2\,n^2 d .
# $$ (eq-vision-transformer-cost)
#
# The two terms are equal at $n = 6d$. Below that the layer costs by the token, above it by the pair.
# Half the patch size is four times the tokens and **sixteen times the attention**. The embedding
# itself does not care, it reads each pixel once, whatever the patch:
#
# $$
# M_{\text{embed}} = N \cdot CP^2 \cdot d = HW \cdot C \cdot d .
# $$ (eq-vision-transformer-embed)

# %%
def layer_cost(n, d):
    return 12 * n * d**2 + 2 * n**2 * d


for n in (5, 17, 65):
    layer = EncoderLayer(32, 4, 128, norm="pre").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.attention(torch.zeros(1, n, 32), return_weights=True)
        layer.feed_forward(torch.zeros(1, n, 32))
    multiply_adds = counter.get_total_flops() / 2  # a multiply-add counts as two
    check("eq-vision-transformer-cost", multiply_adds, layer_cost(n, 32))

print("224 × 224 pixels, d = 768: a layer's multiply-adds, in millions")
print(f"{'P':>4}{'N':>8}{'12 n d²':>12}{'2 n² d':>14}{'embedding':>12}")
counts, embeds = [], []
for P in (32, 16, 8, 4, 2, 1):
    N = F.unfold(torch.zeros(1, 1, 224, 224), P, stride=P).shape[-1]
    embed = N * 3 * P**2 * 768
    counts.append(N)
    embeds.append(embed)
    print(
        f"{P:4}{N:8,}{12 * (N + 1) * 768**2 / 1e6:12,.0f}"
        f"{2 * (N + 1) ** 2 * 768 / 1e6:14,.0f}{embed / 1e6:12,.0f}"
    )
check("eq-vision-transformer-count", counts[1:], [4 * N for N in counts[:-1]])
check("eq-vision-transformer-embed", embeds, [224 * 224 * 3 * 768] * 6)
half = layer_cost(224**2 // 8**2 + 1, 768) / layer_cost(224**2 // 16**2 + 1, 768)
glue("vit-cost-half", half)

# %% [markdown]
# At the sizes of ViT-B, patches of eight pixels in place of sixteen cost
# {glue:text}`vit-cost-half:.1f` times as much a layer: most of it goes to the tokens, as $n = 785$
# is still far below $6d = 4608$. At single pixels the pairs would be nearly everything.
#
# ### Step 4. Without positions, a bag of patches
#
# Let $\Pi$ be a permutation matrix that reorders the rows of $z$, that is, the tokens. Everything
# in a layer but attention works on each row by itself, so it commutes with $\Pi$. Attention does
# too: with $Q = zW_Q$, and likewise for keys and values, the scores of $\Pi z$ are $\Pi QK^\top
# \Pi^\top$. The softmax works on rows, and reordering their entries reorders the result, so
#
# $$
# \operatorname{softmax}\!\big(\Pi S\, \Pi^\top\big)\, \Pi V
# = \Pi \operatorname{softmax}(S)\, \Pi^\top \Pi V = \Pi \operatorname{softmax}(S)\, V ,
# $$
#
# since $\Pi^\top\Pi = I$. A sum of such maps is such a map, and so is one after the other. For the
# whole stack of layers, call it $\operatorname{Enc}$,
#
# $$
# \operatorname{Enc}(\Pi z) = \Pi \operatorname{Enc}(z) .
# $$ (eq-vision-transformer-equivariant)
#
# Now let $E_{\text{pos}} = 0$, and let $\pi$ shuffle the patches of the image. This reorders the
# rows $1 \dots N$ of $z_0$ and leaves row 0, the class token, where it is. So row 0 of the output
# is the same as before, and it is all that is read:
#
# $$
# f(\pi x) = f(x) \qquad \text{if } E_{\text{pos}} = 0 .
# $$ (eq-vision-transformer-bag)
#
# Such a model sees which patches there are and how many of each, and not where. It is a *bag of
# patches*, as a bag of words is a text without its order.

# %%
small = ViTConfig(
    8, 2, 1, num_classes=10, d_model=32, num_layers=2, num_heads=4, d_ff=64,
    init_std=0.2,
)  # fmt: skip


def shuffle_patches(x, order, P=2):
    """Patch t of the result is patch order[t] of x."""
    columns = F.unfold(x, P, stride=P)[:, :, order]
    return F.fold(columns, x.shape[-2:], P, stride=P)


torch.manual_seed(0)
model = ViT(small).double().eval()
order = torch.randperm(16, generator=draw)
x = images[:6].cpu().double()
with torch.no_grad():
    z = randn(2, 17, 32)
    rows = torch.randperm(17, generator=draw)
    straight, turned = z, z[:, rows]
    for layer in model.layers:
        straight, turned = layer(straight), layer(turned)
    check("eq-vision-transformer-equivariant", turned, straight[:, rows])

    bag = copy.deepcopy(model)
    bag.embeddings.position.zero_()
    shuffled = shuffle_patches(x, order)
    check("eq-vision-transformer-bag", bag(shuffled), bag(x))
    gap = (model(shuffled) - model(x)).abs().max()
    check("with positions the order matters", gap > 0.1)
    pixels = x.flatten(1)[:, torch.randperm(64, generator=draw)].view_as(x)
    gap = (bag(pixels) - bag(x)).abs().max()
    check("and pixels inside a patch are not a bag", gap > 0.1)

# %% [markdown]
# ### Step 5. With positions: any order will do, from the first step to the last
#
# Positions mend this, and in a peculiar way. Write $f(x;\, E_{\text{pos}})$. In
# {eq}`def-vision-transformer-input` patch and place are added row by row. Reorder patches *and*
# places alike, and $z_0$ as a whole is reordered, so by {eq}`eq-vision-transformer-equivariant`
#
# $$
# f(\pi x;\; \pi E_{\text{pos}}) = f(x;\; E_{\text{pos}}) .
# $$ (eq-vision-transformer-together)
#
# Here $\pi$ leaves row 0 alone. What the model knows of the grid is a list of $N$ vectors, and
# nothing but habit says which is the upper left.
#
# Training keeps to that. Both sides of {eq}`eq-vision-transformer-together` are one function, so
# the loss has the same value, and the same gradient for every other parameter $\theta$. For the
# places the chain rule gives the gradient reordered by $\pi$. AdamW and gradient descent treat
# every entry of a table by the same rule, and clipping looks at the norm of all gradients, which an
# order does not change. So if one run sees images $x$ and begins at $(\theta, E_{\text{pos}})$, and
# its twin sees $\pi x$ and begins at $(\theta, \pi E_{\text{pos}})$, then after any number $s$ of
# steps
#
# $$
# \theta_s^{\text{twin}} = \theta_s, \qquad
# E_{\text{pos},\,s}^{\text{twin}} = \pi\, E_{\text{pos},\,s} .
# $$ (eq-vision-transformer-training)
#
# The rows of $E_{\text{pos}}$ begin as independent draws from one distribution, so the twin's start
# is as likely as any. Therefore: **over the random start, a ViT that is trained and tested on
# images whose patches are shuffled, always in the same way, has exactly the same distribution of
# accuracies as one that sees them whole.** This is not an observation, it is a theorem. All that it
# knows of the plane is what stands inside a patch.


# %%
def train_a_little(model, x, y, steps=25):
    batches = torch.Generator().manual_seed(7)

    def batch_loss(step):
        chosen = torch.randint(len(x), (16,), generator=batches)
        return F.cross_entropy(model(x[chosen]), y[chosen])

    return fit(model, batch_loss, steps=steps, learning_rate=3e-3)


def moved(position, order):
    """Row 0 stays, row 1 + t becomes row 1 + order[t]."""
    return torch.cat([position[:, :1], position[:, 1:][:, order]], 1)


run, twin = copy.deepcopy(model), copy.deepcopy(model)
with torch.no_grad():
    twin.embeddings.position.copy_(moved(model.embeddings.position, order))
    check("eq-vision-transformer-together", twin(shuffled), run(x))

some, some_labels = images[:200].cpu().double(), labels[:200].cpu()
losses = train_a_little(run, some, some_labels)
twin_losses = train_a_little(twin, shuffle_patches(some, order), some_labels)
check("the same losses, step by step", twin_losses, losses, atol=1e-9)
check("and training has begun", losses[-1] < losses[0] - 0.3)
check(
    "eq-vision-transformer-training",
    twin.embeddings.position.detach(),
    moved(run.embeddings.position.detach(), order),
    atol=1e-7,
)
check(
    "eq-vision-transformer-training",
    twin.classifier.weight.detach(),
    run.classifier.weight.detach(),
    atol=1e-7,
)

# without the hypothesis: positions that are the same fixed table in both runs
fixed, fixed_twin = copy.deepcopy(model), copy.deepcopy(model)
for one in (fixed, fixed_twin):
    one.embeddings.position.requires_grad_(False)
losses = train_a_little(fixed, some, some_labels)
twin_losses = train_a_little(
    fixed_twin, shuffle_patches(some, order), some_labels
)
gap = max(abs(a - b) for a, b in zip(losses, twin_losses, strict=True))
glue("vit-fixed-gap", gap)
check("a table that says where things are: another run", gap > 0.01)

# %% [markdown]
# **Without the hypothesis.** The theorem wants the start of the table to be as likely in every
# order. A fixed table is not: the two runs then see places that say different things, and their
# losses part, here by up to {glue:text}`vit-fixed-gap:.2f`. A table of sines of row and column
# would even *mean* the grid. A learned table means nothing until it has been trained.

# %% [markdown]
# ### Step 6. What a convolution knows: two assumptions, and nothing else
#
# Take one channel, to keep the letters few, and an image on a *torus*: what leaves on the right
# comes in on the left. Let $S_a$ move an image by $a$, $(S_a x)[p] = x[p - a]$ for a pixel $p$ of
# two coordinates. A convolution with offsets $\delta$ is $\operatorname{conv}(x)[p] = \sum_\delta
# K[\delta]\, x[p + \delta]$. Move the image first:
#
# $$
# \operatorname{conv}(S_a x)[p] = \sum_\delta K[\delta]\; x[p - a + \delta]
# = \operatorname{conv}(x)[p - a]
# \quad\Longrightarrow\quad \operatorname{conv} S_a = S_a \operatorname{conv} .
# $$ (eq-vision-transformer-translation)
#
# A cat two pixels on is the same features two pixels on: *translation equivariance*. The converse
# is worth as much. Let $M$ be *any* linear map of images, $(Mx)[p] = \sum_q M[p, q]\, x[q]$, with
# $MS_a = S_aM$ for every $a$. Try it on an image with a single one at $q$. The left side is column
# $q + a$ of $M$, the right side column $q$ moved by $a$:
#
# $$
# M[p + a,\; q + a] = M[p,\; q] \quad \text{for all } a .
# $$ (eq-vision-transformer-circulant)
#
# So $M[p, q]$ depends on $q - p$ alone, and with $K[\delta] = M[0, \delta]$ the map *is* a
# convolution, with a kernel as large as the image. The second assumption cuts it down: $K[\delta] =
# 0$ for $\delta$ outside a small square. **A convolution is the linear map that is equivariant and
# local. These two are all that it assumes.** Of the $(HW)^2$ weights a channel, equivariance leaves
# $HW$, and locality $K^2$: for our digits 4096, 64 and 9.
#
# Stacked, local maps see further: each layer of $K \times K$ adds $(K-1)/2$ pixels on each side, so
# after $L$ layers pixel $q$ can matter at $p$ only if
#
# $$
# \lVert q - p \rVert_\infty \le L\, \frac{K-1}{2} .
# $$ (eq-vision-transformer-receptive)

# %%
side = 8
kernel = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
kernel = kernel.double().requires_grad_(False)
x1 = randn(1, 1, side, side)
for a in [(0, 1), (2, 0), (3, 5)]:
    check(
        "eq-vision-transformer-translation",
        kernel(x1.roll(a, (2, 3))),
        kernel(x1).roll(a, (2, 3)),
    )

# any linear map, made equivariant: the mean of S_a⁻¹ M S_a over all moves a
M = randn(side, side, side, side)  # M[p, q], each of two coordinates
moves = [(a, b) for a in range(side) for b in range(side)]
M = sum(M.roll((a, b, a, b), (0, 1, 2, 3)) for a, b in moves) / side**2
check("eq-vision-transformer-circulant", M.roll((3, 5, 3, 5), (0, 1, 2, 3)), M)
by_matrix = torch.einsum("pqrs,rs->pq", M, x1[0, 0])
wide = F.pad(x1, (0, side - 1, 0, side - 1), mode="circular")
by_kernel = F.conv2d(wide, M[0, 0][None, None])[0, 0]  # K[δ] = M[0, δ]
check("an equivariant map is a convolution", by_kernel, by_matrix)

for L in (1, 2, 3):
    stack = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(L)])
    probe = torch.randn(1, 1, 15, 15, generator=torch.Generator().manual_seed(L))
    probe.requires_grad_()
    stack(probe)[0, 0, 7, 7].backward()
    reached = probe.grad[0, 0].nonzero()
    check(
        "eq-vision-transformer-receptive",
        (reached - 7).abs().max().item(),
        L * (3 - 1) / 2,
    )

# %% [markdown]
# **Without the torus.** A real image ends. With zeros around it, the equation holds for outputs
# whose window lies inside, and fails at the border. With a stride it holds for moves by multiples of
# the stride only. That goes for a ViT's first layer, too: moved by $P$ pixels, its tokens are the
# same in another order; moved by one pixel, they are other tokens. We look at all three.

# %%
zeros = nn.Conv2d(1, 1, 3, padding=1, bias=False).double().requires_grad_(False)
difference = zeros(x1.roll(1, 3)) - zeros(x1).roll(1, 3)
check("zeros: equivariant inside", difference[..., 2:-1], 0.0)
check("zeros: not at the border", difference.abs().max() > 1e-2)


def bag_of(tokens):
    """The tokens of an image in an order of their own, (N, d)."""
    return tokens[0, tokens[0, :, 0].argsort()]


embed = nn.Conv2d(1, 5, 2, stride=2).double().requires_grad_(False)
here_ = embed(x1).flatten(2).mT
two_on = embed(x1.roll(2, 3)).flatten(2).mT
one_on = embed(x1.roll(1, 3)).flatten(2).mT
check("moved by P: the same tokens", bag_of(two_on), bag_of(here_))
check("moved by 1: others", (bag_of(one_on) - bag_of(here_)).abs().max() > 0.1)

# %% [markdown]
# So there are three degrees of symmetry. Attention without positions commutes with *every*
# reordering of its tokens, {eq}`eq-vision-transformer-equivariant`: too many, for it cannot tell an
# image from its shreds. Attention with positions of its own for every place commutes with none. A
# convolution commutes with the moves, and with nothing else.
#
# ### Step 7. Attention can be a convolution
#
# Does a ViT lose something, then, that no training brings back? No. {cite:t}`cordonnier2019` show
# that attention with $K^2$ heads *can* compute any $K \times K$ convolution. One head for each
# offset: it looks at the pixel that stands $\delta$ further, and at no other.
#
# Take a token a pixel, and let a head's score of query $p$ and key $q$ be
#
# $$
# s_\delta(p, q) = -\alpha\, \lVert q - p - \delta \rVert^2 .
# $$ (def-vision-transformer-scores)
#
# It is largest, zero, at $q = p + \delta$, if that lies in the image. Every other pixel is at least
# one away, so its weight is at most $e^{-\alpha}$ times that of the best, and with $n$ pixels
#
# $$
# 1 - a_\delta(p,\, p + \delta) \;\le\; (n - 1)\, e^{-\alpha} .
# $$ (eq-vision-transformer-sharp)
#
# Can a dot product give such scores? Multiply out. The part without $q$ is the same for all keys of
# a query, and the softmax does not see it:
#
# $$
# -\alpha\, \lVert q - (p + \delta) \rVert^2
# = \alpha \begin{pmatrix} 2(p + \delta) \\ -1 \end{pmatrix} \!\cdot\!
# \begin{pmatrix} q \\ \lVert q \rVert^2 \end{pmatrix} - \alpha\, \lVert p + \delta \rVert^2 .
# $$ (eq-vision-transformer-quadratic)
#
# The query is linear in $(p, 1)$, the key in $(q, \lVert q \rVert^2)$. So four features a token,
# its row, its column, the sum of their squares and a one, are all that the heads need; these are
# *absolute* positions, of the kind that a table can hold. The value is the pixel's content $X_q$,
# and head $\delta$ has as its part of the output matrix $K_\delta$, the $C \times C'$ slice of the
# kernel. As $\alpha$ grows, the sum over heads becomes
#
# $$
# \sum_\delta \Big(\sum_q a_\delta(p, q)\, X_q\Big) K_\delta
# \;\longrightarrow\; \sum_\delta X_{p+\delta}\, K_\delta = \operatorname{conv}(X)_p .
# $$ (eq-vision-transformer-attention)
#
# At the border, where $p + \delta$ is outside, the nearest pixel wins. So this is the convolution
# that repeats the image's edge, `padding_mode="replicate"`. We build it from the library's own
# layer, and set every weight by hand.

# %%
from lib.attention import MultiHeadAttention  # noqa: E402

C, side, alpha = 3, 6, 50.0
target = nn.Conv2d(C, C, 3, padding=1, padding_mode="replicate", bias=False)
target = target.double().requires_grad_(False)
offsets = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]

# a token: C features of content, then row, column, row² + column², 1
heads = MultiHeadAttention(C + 4, 9, d_head=3, bias=False).double()
heads.requires_grad_(False)
for projection in heads.children():
    projection.weight.zero_()
Q = heads.query_projection.weight.view(9, 3, C + 4)
Key = heads.key_projection.weight.view(9, 3, C + 4)
V = heads.value_projection.weight.view(9, 3, C + 4)
out = heads.output_projection.weight.view(C + 4, 9, 3)
for h, (a, b) in enumerate(offsets):
    scale = alpha * math.sqrt(3)  # the layer divides by √d_head
    Q[h, 0, C], Q[h, 0, C + 3] = 2 * scale, 2 * scale * a
    Q[h, 1, C + 1], Q[h, 1, C + 3] = 2 * scale, 2 * scale * b
    Q[h, 2, C + 3] = -scale
    Key[h, 0, C] = Key[h, 1, C + 1] = Key[h, 2, C + 2] = 1
    V[h, :, :C] = torch.eye(C)
    out[:C, h] = target.weight[:, :, a + 1, b + 1]

content = randn(1, C, side, side)
place = torch.cartesian_prod(*[torch.arange(side, dtype=double)] * 2)  # (n, 2)
n = len(place)
squares = place.square().sum(-1, keepdim=True)
where = torch.cat([place, squares, torch.ones(n, 1)], -1)  # (n, 4)
tokens = torch.cat([content.flatten(2).mT[0], where], -1)[None]  # (1, n, C + 4)
result, weights = heads(tokens, return_weights=True)
as_image = result[..., :C].mT.view(1, C, side, side)
check("eq-vision-transformer-attention", as_image, target(content))

centre = 2 * side + 3  # the token in row 2, column 3
best = weights[0, :, centre].max(-1).values
check("eq-vision-transformer-sharp", (1 - best <= n * math.exp(-alpha)).all())
far = (place[None, None] - place[None, :, None] -
       torch.tensor(offsets)[:, None, None]).square().sum(-1)  # fmt: skip
by_distance = torch.softmax(-0.5 * far, -1)  # a softer α, to see more than ones
soft_query = torch.stack(
    [
        torch.cat([place + torch.tensor(o), -0.5 * torch.ones(n, 1)], -1)
        for o in offsets
    ]
)  # α = 1/2
soft_key = torch.cat([place, squares], -1).expand(9, -1, -1)
_, by_product = scaled_dot_product_attention(
    math.sqrt(3) * soft_query, soft_key, soft_key, return_weights=True
)
check("eq-vision-transformer-quadratic", by_product, by_distance)

# without a sharp α it is a blur, and no convolution of this size
heads.query_projection.weight.div_(alpha / 0.5)
blurred = heads(tokens)[..., :C].mT.view(1, C, side, side)
gap = (blurred - target(content)).abs().max() / target(content).abs().max()
glue("vit-blur", gap)
check("α = 1/2 is another map", gap > 0.1)

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 9, figsize=(5.1, 1.75))
for row, maps in enumerate((by_distance, weights[0])):
    for h, ax in enumerate(axes[row]):
        heatmap(ax, maps[h, centre].view(side, side), vmin=0, vmax=1)
        ax.plot(3, 2, "o", color=COLORS["query"], markersize=3)
        ax.set(xticks=[], yticks=[])
        if row == 0:
            a, b = offsets[h]
            ax.set_title(f"{a},{b}".replace("-", "−"), fontsize=9)
axes[0, 0].set_ylabel("α = ½", fontsize=9)
axes[1, 0].set_ylabel("α = 50", fontsize=9)
show_figure(
    fig,
    name="fig-vision-transformer-heads",
    caption="What nine heads look at from one pixel (the dot), each with its "
    "offset above. With a small $\\alpha$ each sees a blurred spot beside the "
    "pixel, with a large one a single pixel. Together they cover the 3 × 3 "
    "window of a convolution.",
    alt="Two rows of nine small heat maps of 6 by 6 pixels. In the upper row a "
    "soft spot moves around the marked pixel from upper left to lower right; in "
    "the lower row the spot is one bright pixel.",
)

# %% [markdown]
# With $\alpha = \frac12$ the result is off by up to {glue:text}`vit-blur:.0%` of the largest output
# ({numref}`fig-vision-transformer-heads`, upper row).
#
# :::{admonition} Our remark
# :class: remark
# *Can* is not *does*. The construction takes $K^2$ heads and weights of a size that training has to
# find, where a convolution has them from the start. {cite:t}`cordonnier2019` also look at what
# trained layers do, and find heads of this kind. The sections below measure what a small ViT makes
# of few images.
# :::
#
# ### Step 8. Images of another size
#
# A larger image has more patches, and all of the model but $E_{\text{pos}}$ takes them as they
# come. The table has $G \times G$ places and is to have $G' \times G'$. The paper (§3.2)
# interpolates it, as if the table were an image. Put the centre of old place $i$ at $(i +
# \frac12)/G$ of the side, and of new place $y$ at $(y + \frac12)/G'$. In old places, the new one is
# then at
#
# $$
# s_y = \Big(y + \tfrac12\Big)\frac{G}{G'} - \tfrac12 ,
# \qquad \text{kept within } [0,\, G - 1] .
# $$ (def-vision-transformer-centres)
#
# Linear interpolation takes the two old places next to it, each by how near it is: with $i =
# \lfloor s_y \rfloor$, $A[y, i] = 1 - (s_y - i)$ and $A[y, i + 1] = s_y - i$. Once along the rows and
# once along the columns:
#
# $$
# E'_{\text{pos}}[y, x] = \sum_{i=0}^{G-1} \sum_{j=0}^{G-1} A[y, i]\, A[x, j]\; E_{\text{pos}}[i, j] .
# $$ (eq-vision-transformer-interpolation)
#
# Rows of $A$ sum to one, so a table that is the same everywhere stays so, and one that grows evenly
# along a side does so too, but for the margin. The class token's row is left alone: it has no place.
# All this needs the grid: it is the second time, after the cutting, that a ViT is told of it, and by
# us.


# %%
def interpolation_matrix(G, G_new):
    """A, (G_new, G)."""
    A = torch.zeros(G_new, G, dtype=double)
    for y in range(G_new):
        s = min(max((y + 0.5) * G / G_new - 0.5, 0.0), G - 1.0)
        i = min(int(s), G - 2)
        A[y, i], A[y, i + 1] = 1 - (s - i), s - i
    return A


G, G_new = 4, 7
table = randn(G, G, 5)
A = interpolation_matrix(G, G_new)
by_sum = torch.einsum("yi,xj,ijd->yxd", A, A, table)
by_torch = F.interpolate(
    table.permute(2, 0, 1)[None], (G_new, G_new), mode="bilinear"
)[0].permute(1, 2, 0)
check("eq-vision-transformer-interpolation", by_sum, by_torch)
check("rows sum to one", A.sum(-1), 1.0)
steps = (A @ torch.arange(G, dtype=double)).diff()
check("even inside", steps[1:-1], G / G_new)
check("the same size changes nothing", interpolation_matrix(5, 5), torch.eye(5))

large = ViT(ViTConfig(14, 2, 1, num_classes=10, d_model=32, num_layers=2,
                      num_heads=4, d_ff=64)).double().eval()  # fmt: skip
weights_of = model.state_dict()
old = weights_of["embeddings.position"]  # (1, 17, 32)
grid = old[0, 1:].view(4, 4, 32)
new = torch.einsum("yi,xj,ijd->yxd", A, A, grid).flatten(0, 1)  # (49, 32)
weights_of["embeddings.position"] = torch.cat([old[0, :1], new])[None]
large.load_state_dict(weights_of)
with torch.no_grad():
    logits = large(randn(2, 1, 14, 14))
print("images of 14 × 14:", large.config.num_patches, "patches,", end=" ")
print("logits", tuple(logits.shape))

# %% [markdown]
# ## From scratch
#
# A hand-sized image: four by four pixels, numbered as one reads, and patches of two by two. The map
# has two features a patch: the mean of its four pixels, and how much brighter its right half is
# than its left, $\frac12(-1, 1, -1, 1)$. Positions are multiples of a hundred, so that one sees them.


# %%
image = [[4 * row + column for column in range(4)] for row in range(4)]
E_by_hand = [(0.25, -0.5), (0.25, 0.5), (0.25, -0.5), (0.25, 0.5)]  # (4, 2)
class_token = [7.0, 7.0]
position = [[100.0 * t, 0.0] for t in range(5)]


def cut(image, P):
    """A list of patches, each a list of P² pixels, in plain Python."""
    found = []
    for top in range(0, len(image), P):
        for left in range(0, len(image[0]), P):
            found.append(
                [image[top + u][left + v] for u in range(P) for v in range(P)]
            )
    return found


by_hand = [[a + b for a, b in zip(class_token, position[0], strict=True)]]
for t, patch in enumerate(cut(image, 2)):
    features = [
        sum(x * row[k] for x, row in zip(patch, E_by_hand, strict=True))
        for k in range(2)
    ]
    token = [a + b for a, b in zip(features, position[t + 1], strict=True)]
    by_hand.append(token)
    print(f"patch {t}: {patch!s:16} features {features!s:14} token {token}")

# %% [markdown]
# Redo a line: the first patch holds pixels 0, 1, 4 and 5. Their mean is 2.5, and the right half is
# brighter by $\frac12(1 - 0 + 5 - 4) = 1$. Note what the second row of the image is: its first two
# pixels, 4 and 5, stand in patch 0 and its other two in patch 1. A patch is not a piece of a row.
# The same through the library's module, with the numbers put where they belong:

# %%
tiny = PatchEmbeddings(
    ViTConfig(4, 2, 1, num_classes=2, d_model=2, num_layers=1, num_heads=1, d_ff=2)
).double()  # fmt: skip
with torch.no_grad():
    K = torch.tensor(E_by_hand, dtype=double).T.reshape(2, 1, 2, 2)
    tiny.projection.weight.copy_(K)
    tiny.class_token.copy_(torch.tensor(class_token))
    tiny.position.copy_(torch.tensor(position)[None])
    through = tiny(torch.tensor(image, dtype=double)[None, None])[0]
check("by hand = the library", by_hand, through)

# %% [markdown]
# ## The library function
#
# The module of this step is short, because the convolution does the work.
#
# ```{lib-source} lib.models.vit.PatchEmbeddings.forward
# ```
#
# The model around it is a list of the layers of chapter 6.
#
# ```{lib-source} lib.models.vit.ViT.encode
# ```
#
# Two decisions deserve a word. **Sizes are refused by name.** A patch size that does not divide the
# image would leave pixels out, and a convolution would do so in silence.

# %%
silent = nn.Conv2d(1, 5, 3, stride=3)(torch.zeros(1, 1, 8, 8)).shape
print("patches of 3 in an image of 8, by a bare convolution:", tuple(silent))
try:
    ViTConfig(8, 3, 1)
except ValueError as error:
    message = str(error)
print(message)
check("refused by name", "patch_size" in message and "got 3" in message)
check("a bare convolution drops a quarter and more", 1 - 36 / 64 > 0.4)

# %% [markdown]
# **Checkpoints are mapped from the file.** A file from the Hub names its tensors as its makers did,
# and the names inside a library's module may differ from those in the file. The library's table of
# names is made for the file. A model that loads without error can still be another model, so we ask
# for the same logits: an official ViT with random weights is written to a folder, ours is read from
# it, and both see the same images, in float64.

# %%
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
official_config = transformers.ViTConfig(
    image_size=15, patch_size=5, num_channels=2, num_labels=7, hidden_size=21,
    num_hidden_layers=3, num_attention_heads=3, intermediate_size=29,
)  # fmt: skip
reference = transformers.ViTForImageClassification(official_config).double()
noise = torch.Generator().manual_seed(0)
with torch.no_grad():
    for parameter in reference.parameters():  # or a bias of 0 would hide
        parameter.copy_(
            0.3 * torch.randn(parameter.shape, generator=noise, dtype=double)
        )
reference = reference.eval()
with tempfile.TemporaryDirectory() as folder:
    reference.save_pretrained(folder)
    ours = ViT.from_pretrained(folder).double().eval()
x = randn(4, 2, 15, 15)
with torch.no_grad():
    want, got = reference(pixel_values=x).logits, ours(x)
check("our logits are the official ones", got, want, atol=1e-10)
check("and they are not all alike", want.std() > 0.1)

# %% [markdown]
# The same class reads the published weights. On Colab the next cell fetches ViT-B/16 (about 350
# megabytes) and asks it about two photographs that come with scikit-learn. Pixels must be
# normalised as in its training: from 0 to 1, less .5, divided by .5. The box D52 says what happens
# otherwise.


# %% tags=["nbval-ignore-output"]
def load_base(repo_id):
    model = ViT.from_pretrained(repo_id)
    import json

    from huggingface_hub import hf_hub_download

    names = json.loads(Path(hf_hub_download(repo_id, "config.json")).read_text())
    return model.eval(), names["id2label"]


def photograph(name):
    """The middle of a photograph of scikit-learn, (1, 3, 224, 224), normalised."""
    from sklearn.datasets import load_sample_image

    pixels = torch.from_numpy(load_sample_image(name).copy())  # (427, 640, 3)
    pixels = pixels.permute(2, 0, 1).float()[None] / 255
    side = min(pixels.shape[-2:])
    left = (pixels.shape[-1] - side) // 2
    square = pixels[..., :side, left : left + side]
    square = F.interpolate(square, (224, 224), mode="bilinear", antialias=True)
    return (square - 0.5) / 0.5


loaded = official(load_base, "google/vit-base-patch16-224")
if loaded is not None:
    base, names = loaded
    for name in ("china.jpg", "flower.jpg"):
        with torch.no_grad():
            chances = base(photograph(name))[0].softmax(-1)
        best = chances.topk(3)
        print(name)
        for chance, index in zip(*map(torch.Tensor.tolist, best), strict=True):
            print(f"  {chance:.2f}  {names[str(index)]}")
