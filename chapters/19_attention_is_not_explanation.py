# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A model reads a sentence, gives an answer, and a map shows in purple what it “looked at”. Is
#       the purple the reason for the answer? And if not: what do attention weights say, and what
#       would have to be measured to know?
#     goals:
#       - derive attention rollout, and name the four things that it leaves out, each by a number
#       - construct other attention weights, far from the model's own, with exactly the same output
#       - say what the answer feels of a weight, and why a large weight may matter to nothing
#       - remove a head, swap a model's weights, and measure what that does to its answers
#       - tell fairly what two famous papers showed, and test a claimed trade-off
#     prerequisites:
#       - attention and the softmax's Jacobian (chapter 2), heads as summands (chapter 3)
#       - the residual stream and norms (chapter 6)
#       - null space and rank of a matrix
#     data: Docstrings of Python's own standard library (lib.data.docstrings); no download.
#     hardware: One CPU core. Uses no GPU.
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
# # Attention is not (automatically) explanation

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(
    p for p in (here, *here.parents) if (p / "lib" / "attention.py").exists()
)
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import itertools
import math

import matplotlib.pyplot as plt
import torch

from lib.attention import MultiHeadAttention
from lib.interpret import (
    ablate_heads,
    attention_norms,
    attention_rollout,
    equal_output_weights,
    kendall_tau,
    permuted_weights,
    replace_weights,
    uniform_weights,
)
from lib.layers import EncoderLayer
from lib.teaching import (
    AttentionRows,
    Progress,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS, heatmap
from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import SENTENCE, train, words
from lib.teaching.word_scores import (
    MEASURES,
    agreement,
    long_texts,
    other_attention,
    word_scores,
)

start(seed=0)
double = torch.float64
generator = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, generator=generator, dtype=double)


# %% [markdown]
# ## The formula
#
# In one layer, head $h$ gives query $i$ a row of weights $\alpha_{hij} \ge 0$ over all $n$ tokens,
# $\sum_j \alpha_{hij} = 1$. It is tempting to read $\alpha_{hij}$ as “how much token $i$ rests on
# token $j$”, to average over heads, and to multiply up the layers. That is *attention rollout*:
#
# $$
# \begin{gathered}
# \tilde A_l = r\, I + (1 - r)\, \frac1H \sum_{h=1}^{H} A_{lh}, \\
# R = \tilde A_L \cdots \tilde A_2\, \tilde A_1, \qquad r = \tfrac12 .
# \end{gathered}
# $$ (def-attention-is-not-explanation-rollout)
#
# But a weight is one factor of two. What head $h$ adds to token $i$ on behalf of token $j$ is a
# *vector*, and the output is the sum of all of them and a bias:
#
# $$
# o_i = \sum_{j=1}^{n} \sum_{h=1}^{H} m_{hij} + b^O, \qquad
# m_{hij} = \alpha_{hij}\; v_{hj}\, W_h^O .
# $$ (def-attention-is-not-explanation-summand)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $A_{lh}$ | $n \times n$ | weights of head $h$ in layer $l$; row $i$ is query $i$; each row sums to one |
# | $L$, $H$ | numbers | layers, and heads of each |
# | $r$ | a number | the share of a token that goes past attention, in the residual stream |
# | $R$ | $n \times n$ | rollout: $R_{ij}$, the share of input token $j$ in output token $i$ |
# | $v_{hj}$ | $d_v$ | value of token $j$ in head $h$ |
# | $W_h^O$ | $d_v \times d$ | the rows of $W^O$ that belong to head $h$ |
# | $m_{hij}$ | $d$ | what head $h$ adds to token $i$ on behalf of token $j$ |
# | $f$ | a number | the answer: the logit of the class that the model names |
#
# Three questions follow. What would have to be true for $R$ to be the right answer? How far do the
# weights *determine* the output, and the output the weights? And does a word with a large weight
# matter to $f$? The first two have exact answers, in the derivation. The third is measured.
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`abnar2020` (§3) propose rollout, with the identity added for the residual stream and the
# sum halved, as an *approximation* of how much of each input token is in each position; and a
# second one, attention flow, which takes the weights for the capacities of a network of pipes and
# asks for its maximal flow. They report that both agree better than raw weights do with ablation
# and with gradients.
# :::
#
# :::{admonition} Our remark
# :class: remark
# “Explanation” has no one definition, and half of the debate is about that. Here it means one thing
# that can be measured: a score for each word is *faithful* as far as it tells how much the answer
# moves when the word is taken away.
# :::

# %% [markdown]
# ## Derivation
#
# Six steps. Two say what rollout is and what it leaves out, one what a head is, two what weights do
# and do not determine, and the last how agreement is counted.
#
# ### Step 1. Rollout is a walk
#
# Suppose that a layer did nothing but mix tokens. Each token keeps the share $r$ of itself, and
# takes the rest from all tokens by their mean weight. Then the new tokens are $X_1 = \tilde A_1
# X_0$, the next ones $X_2 = \tilde A_2 X_1$, and after $L$ layers
#
# $$
# X_L = \tilde A_L\, X_{L-1} = \tilde A_L\, \tilde A_{L-1}\, X_{L-2} = \dots = R\, X_0 .
# $$ (eq-attention-is-not-explanation-exact)
#
# So in a model that only mixes, rollout is no approximation: $R_{ij}$ is the factor with which
# input $j$ stands in output $i$. Write the product of matrices out in entries,
#
# $$
# R_{ij} = \sum_{k_1} \dots \sum_{k_{L-1}} (\tilde A_L)_{i k_{L-1}} \cdots
# (\tilde A_2)_{k_2 k_1} (\tilde A_1)_{k_1 j} .
# $$ (eq-attention-is-not-explanation-paths)
#
# This is a sum over all *paths* from output $i$ down to input $j$, one token in each layer, and a
# path counts as the product of its steps. A walker who starts at $i$ and in each layer stays where
# it is with probability $r$, or else jumps by the weights, ends at $j$ with probability $R_{ij}$.
# For that the rows have to be probabilities, and they are. No entry of $\tilde A_l$ is negative.
# With $\mathbf 1$ for the column of ones, $A_{lh} \mathbf 1 = \mathbf 1$, so
#
# $$
# \tilde A_l\, \mathbf 1 = r\, \mathbf 1 + (1 - r)\, \frac1H \sum_h \mathbf 1 = \mathbf 1 .
# $$ (eq-attention-is-not-explanation-one-layer)
#
# And if the rows of $R_{l-1}$ sum to one, so do those of $R_l = \tilde A_l R_{l-1}$. The induction
# starts with $R_0 = I$:
#
# $$
# R_l\, \mathbf 1 = \tilde A_l\, (R_{l-1}\, \mathbf 1) = \tilde A_l\, \mathbf 1 = \mathbf 1 .
# $$ (eq-attention-is-not-explanation-stochastic)
#
# The walker may also stay put all the way down, so a token never loses all of itself:
#
# $$
# R_{ii} \ge r^L .
# $$ (eq-attention-is-not-explanation-memory)

# %%
L, H, n, d = 3, 2, 5, 4
A = randn(L, 1, H, n, n).softmax(-1)  # (layers, B, h, n, n)
X = randn(n, d)
R = attention_rollout(A)[0]  # (n, n)

mixed = X
for layer in A[:, 0]:
    mixed = (mixed + layer.mean(0) @ mixed) / 2
check("eq-attention-is-not-explanation-exact", R @ X, mixed)

step = (torch.eye(n, dtype=double) + A[:, 0].mean(1)) / 2  # each Ã_l
by_paths = torch.zeros(n, n, dtype=double)
for i, k2, k1, j in itertools.product(range(n), repeat=4):
    by_paths[i, j] += step[2, i, k2] * step[1, k2, k1] * step[0, k1, j]
check("eq-attention-is-not-explanation-paths", R, by_paths)

ones = torch.ones(n, dtype=double)
for r in (0.0, 0.3, 0.5):
    check(
        "eq-attention-is-not-explanation-one-layer",
        attention_rollout(A[:1], residual=r)[0] @ ones,
        ones,
    )
    check(
        "eq-attention-is-not-explanation-stochastic",
        attention_rollout(A, residual=r)[0] @ ones,
        ones,
    )
check(
    "eq-attention-is-not-explanation-memory",
    bool((R.diagonal() >= 0.5**L).all()),
)

unhalved = torch.linalg.multi_dot([2 * s for s in step.flip(0)])
print("row sums:", [round(x, 6) for x in R.sum(-1).tolist()])
print("without halving, A + I:", unhalved.sum(-1).tolist())
check("A + I without the half grows like 2^L", unhalved @ ones, 2**L * ones)

# %% [markdown]
# **Without the hypothesis.** Forget the half, and every layer doubles all sums. Read the weights
# under dropout, in training mode, and they do not sum to one in the first place.
#
# ### Step 2. What rollout leaves out
#
# The supposition of step 1 was strong. Here is what a real layer does (post-norm, as in BERT), with
# what is missing from rollout in boxes:
#
# $$
# \begin{gathered}
# X \;\leftarrow\; \boxed{\mathrm{LN}}\Big( X + \sum_h A_h\big(\boxed{X}\big)\, X\,
# \boxed{W_h^V W_h^O} \Big), \\
# X \;\leftarrow\; \boxed{\mathrm{LN}}\big( X + \boxed{\mathrm{FFN}(X)} \big) .
# \end{gathered}
# $$
#
# Values and $W^O$ turn, stretch and cancel what is mixed. The feed-forward network and the norms
# change each token by itself. And the weights are no constants: change a word, and they move.
#
# To measure each omission we need the truth of which rollout is to be a model. In a network of any
# kind, input token $j$ moves output token $i$ by the Jacobian $\partial x_i^{L} / \partial x_j^{0}$,
# a $d \times d$ matrix. Take its size, and each token's share of the row:
#
# $$
# T_{ij} = \Big\lVert \frac{\partial x_i^{L}}{\partial x_j^{0}} \Big\rVert_F \Big/
# \sum_k \Big\lVert \frac{\partial x_i^{L}}{\partial x_k^{0}} \Big\rVert_F .
# $$ (def-attention-is-not-explanation-truth)
#
# Where layers only mix, the Jacobian is $R_{ij} I$, all sizes are $R_{ij} \sqrt d$, and so
#
# $$
# T = R .
# $$ (eq-attention-is-not-explanation-ideal)
#
# From there we put the parts back one at a time, and see how far $T$ moves away from $R$. The
# distance of two rows is half the sum of their absolute differences (total variation): 0 for equal
# rows, 1 for rows that share no token. The network is a random one of two layers, in double
# precision; the trained one comes later.

# %%
LADDER = ("mixing only", "values, W^O", "feed-forward", "norms", "live weights")


def run_with(parts, layers, x, frozen):
    """x (n, d) through layers with the first `parts` of the ladder's parts."""
    for layer, weights in zip(layers, frozen, strict=True):  # weights (h, n, n)
        if parts == 0:
            x = (x + weights.mean(0) @ x) / 2
            continue
        held = (
            (lambda own, weights=weights: weights[None])
            if parts < 4
            else (lambda own: own)
        )
        with replace_weights(layer.attention, held):
            x = x + layer.attention(x[None])[0]
        x = layer.attention_norm(x) if parts >= 3 else x / 2
        if parts >= 2:
            x = x + layer.feed_forward(x)
            x = layer.feed_forward_norm(x) if parts >= 3 else x
    return x


def shares(function, x):
    """T of the definition: each input token's share in each output token."""
    jacobian = torch.autograd.functional.jacobian(function, x)  # (n, d, n, d)
    size = jacobian.square().sum((1, 3)).sqrt()  # (n, n)
    return size / size.sum(-1, keepdim=True)


def apart(first, second):
    """Total variation of two rows of shares, from 0 to 1."""
    return (first - second).abs().sum(-1) / 2


def weights_of(layers, x):
    """The layers' own weights (layers, 1, h, n, n)."""
    found = []
    for layer in layers:
        found.append(layer.attention(x[None], return_weights=True)[1])
        x = layer(x[None])[0]
    return torch.stack(found).detach()


def ladder(layers, x, rows=slice(None)):
    """Of some rows: how far rollout is from T, and how far each part moves T.

    Both are (parts, rows).
    """
    own = weights_of(layers, x)
    truth = []
    for parts in range(len(LADDER)):

        def output(y, parts=parts):
            return run_with(parts, layers, y, own[:, 0])[rows]

        truth.append(shares(output, x))
    truth = torch.stack(truth)  # (parts, rows, n)
    off = apart(truth, attention_rollout(own)[0, rows])
    moved = apart(truth[1:], truth[:-1])
    return off, torch.cat([torch.zeros_like(moved[:1]), moved])


torch.manual_seed(2)
random_layers = [EncoderLayer(12, 3, 48).double().eval() for _ in range(2)]
with torch.no_grad():
    for (
        layer
    ) in random_layers:  # as after training: weights that are not all alike
        for parameter in layer.attention.parameters():
            parameter *= 2
x = randn(7, 12)
own = weights_of(random_layers, x)
ideal = shares(lambda y: run_with(0, random_layers, y, own[:, 0]), x)
check("eq-attention-is-not-explanation-ideal", ideal, attention_rollout(own)[0])
whole = x
for layer in random_layers:
    whole = layer(whole[None])[0]
check(
    "the last rung is the layers themselves",
    run_with(4, random_layers, x, own[:, 0]),
    whole,
)

rungs, steps = ladder(random_layers, x)
print("                 rollout is off by   this part moves T by")
for k, name in enumerate(LADDER):
    print(
        f"{'+ ' * (k > 0) + name:17}{rungs[k].mean():17.3f}"
        f"{steps[k].mean():23.3f}"
    )
    glue(f"attexp-rung-{k}", rungs[k].mean())
    glue(f"attexp-part-{k}", steps[k].mean())
check("each part moves the truth", bool((steps[1:].mean(-1) > 0.01).all()))
check("and rollout is off", rungs[-1].mean() > 0.05)

# %% [markdown]
# With values and $W^O$ rollout is off by {glue:text}`attexp-rung-1:.2f`, with all parts by
# {glue:text}`attexp-rung-4:.2f`. Each part by itself moves the true shares: values and $W^O$ by
# {glue:text}`attexp-part-1:.2f`, the feed-forward network by {glue:text}`attexp-part-2:.2f`, the
# norms by {glue:text}`attexp-part-3:.2f`, and letting weights depend on words by
# {glue:text}`attexp-part-4:.2f`. These need not add up, and do not: a part may undo what another
# did. One omission has no rung: the *sign*. $R$ has no negative entry, and a word may well speak
# *against* an answer. No map of weights can say so.
#
# ### Step 3. A head is a summand, and can be taken out
#
# Sum {eq}`def-attention-is-not-explanation-summand` over $j$ first. Head $h$ contributes
# $A_h V_h W_h^O$ and nothing else, as chapter 3 derived {eq}`eq-multi-head-sum`. Setting the rows of
# $W^O$ that belong to a set $S$ of heads to zero takes exactly these summands out:
#
# $$
# O - O_{\setminus S} = \sum_{h \in S} A_h\, V_h\, W_h^O .
# $$ (eq-attention-is-not-explanation-ablation)
#
# At that place the effects of heads add up. Behind the norm, and behind later layers, they do not.

# %%
torch.manual_seed(3)
attend = MultiHeadAttention(12, 3).double().eval()
with torch.no_grad():
    output, weights = attend(x[None], return_weights=True)
    value = attend.value_projection(x)
    summand = [
        weights[0, h]
        @ value[:, 4 * h : 4 * h + 4]
        @ attend.output_projection.weight[:, 4 * h : 4 * h + 4].T
        for h in range(3)
    ]
    for S in ([], [1], [0, 2], [0, 1, 2]):
        with ablate_heads(attend, S):
            without = attend(x[None])
        gone = sum((summand[h] for h in S), torch.zeros(7, 12, dtype=double))
        check(
            "eq-attention-is-not-explanation-ablation",
            (output - without)[0],
            gone,
        )
    check("afterwards all heads are there again", attend(x[None]), output)


def effect(S):
    """What the output loses when heads S of the first layer are gone."""
    with torch.no_grad(), ablate_heads(random_layers[0].attention, S):
        y = random_layers[1](random_layers[0](x[None]))[0]
    return whole.detach() - y


gap = (effect([0, 1]) - effect([0]) - effect([1])).norm() / effect(
    [0, 1]
).norm()
print(f"two heads against the sum of one and one, at the output: {gap:.1%} off")
glue("attexp-interaction", gap)
check("behind norms effects do not add", gap > 0.01)

# %% [markdown]
# Two heads of the first layer taken out together change the network's output by something else than
# the two effects' sum; the difference is {glue:text}`attexp-interaction:.0%` of it. So “the
# importance of a head” depends on which others are there. (Chapter 17 says how to share such an
# effect fairly.)
#
# ### Step 4. Many weights, one output
#
# Now the other direction. A query's row $\alpha \in \mathbb{R}^n$ and the values $V \in
# \mathbb{R}^{n \times d_v}$ give the head's output $\alpha^\top V$. Is another row
# $\alpha' = \alpha + \delta$ possible, with the same output? It has to sum to one as well, so
# $\delta$ has to fulfil $d_v + 1$ linear equations:
#
# $$
# \begin{gathered}
# \delta^\top V = 0, \qquad \delta^\top \mathbf 1 = 0 \\
# \Longleftrightarrow\quad \delta^\top\, [\,V \;\; \mathbf 1\,] = 0 .
# \end{gathered}
# $$ (eq-attention-is-not-explanation-conditions)
#
# The solutions are the left null space of an $n \times (d_v + 1)$ matrix. Rank and null space share
# $n$ dimensions, and the rank is at most $d_v + 1$:
#
# $$
# \dim \{\delta\} = n - \operatorname{rank}[\,V \;\; \mathbf 1\,] \;\ge\; n - d_v - 1 .
# $$ (eq-attention-is-not-explanation-freedom)
#
# From $n = d_v + 2$ on there is always a direction. Its entries sum to zero, so some are negative;
# going along it lowers those weights. A softmax leaves no weight at zero, hence there is room: the
# step $t$ may grow until the first weight arrives at zero,
#
# $$
# \begin{gathered}
# \alpha + t\,\delta \ge 0 \qquad\text{for}\qquad
# 0 \le t \le \min_{j:\ \delta_j < 0} \frac{\alpha_j}{-\delta_j} , \\
# \text{a number above } 0.
# \end{gathered}
# $$ (eq-attention-is-not-explanation-reach)
#
# So **for a text longer than $d_v + 1$ tokens, a head's output never determines its weights**. How
# far can one get? Having arrived at a wall, keep that weight at zero (one more equation) and go on.
# Every wall costs one of the dimensions of {eq}`eq-attention-is-not-explanation-freedom`. There are no
# more walls than these, and the walk ends where no direction is left. There, at a corner of the set
# of all possible weights, at most $d_v + 1$ of them are above zero: the same output, from a handful
# of tokens.
#
# $$
# \#\{j : \alpha'_j > 0\} \;\le\; \operatorname{rank}[\,V \;\; \mathbf 1\,] \;\le\; d_v + 1 .
# $$ (eq-attention-is-not-explanation-corner)
#
# Which corner depends on where one wishes to go. `equal_output_weights` goes against a wish list,
# as far as walls allow; wishing for $-\alpha$ takes weight off the words that have most.

# %%
n, d_v = 20, 6
V = randn(n, d_v)
alpha = (2 * randn(n)).softmax(-1)
conditions = torch.cat([V, torch.ones(n, 1, dtype=double)], 1)  # (n, d_v + 1)
basis, sizes, _ = torch.linalg.svd(conditions)
null = basis[:, int((sizes > 1e-10).sum()) :]  # (n, n − rank), orthonormal
check("eq-attention-is-not-explanation-freedom", null.shape[1], n - d_v - 1)
check("eq-attention-is-not-explanation-conditions", null.T @ conditions, 0.0)

delta = null[:, 0]
falling = delta < 0
t = (alpha[falling] / -delta[falling]).min()
edge = alpha + t * delta
check("eq-attention-is-not-explanation-reach", edge.min(), 0.0)
check("there is always room", t > 0)
check("other weights, the same output", edge @ V, alpha @ V)

other = equal_output_weights(alpha, V, wish=-alpha)
check("the walk keeps the output", other @ V, alpha @ V)
check(
    "eq-attention-is-not-explanation-corner", int((other > 0).sum()) <= d_v + 1
)
print(f"{n} weights, d_v = {d_v}: {int((other > 0).sum())} are left above zero")
print(f"distance of the two rows {apart(other, alpha):.3f} (at most 1)")
print(
    f"largest weight {alpha.max():.3f}, there now {other[alpha.argmax()]:.3f}"
)
glue("attexp-corner-distance", apart(other, alpha))
glue("attexp-corner-top", alpha.max())
glue("attexp-corner-top-after", other[alpha.argmax()])

for short in (d_v + 1, d_v + 2):
    moved = equal_output_weights(alpha[:short], V[:short], -alpha[:short])
    print(f"n = {short}: distance {apart(moved, alpha[:short]):.3f}")
    if short == d_v + 1:
        check(
            "without the hypothesis there is no other row", moved, alpha[:short]
        )
    else:
        check(
            "one token more, and there is", apart(moved, alpha[:short]) > 1e-3
        )

# %% [markdown]
# The two rows are {glue:text}`attexp-corner-distance:.2f` apart, and the word that had
# {glue:text}`attexp-corner-top:.2f` of the weight has {glue:text}`attexp-corner-top-after:.2f`. The
# output is the same to the last digits. **Without the hypothesis**, at $n = d_v + 1$ and with values
# in general position, there is nowhere to go: there the output does pin the weights down.
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`brunner2020` find this null space, call attention weights *not identifiable* where
# a text is longer than a head is wide, and propose to look at “effective attention”, which is the
# weights with their part in the null space taken off.
# :::
#
# :::{admonition} Our remark
# :class: remark
# Heads do not help. With $W^O$ square and invertible the sum over heads is fixed only if each
# head's output is, so every head keeps its own freedom. And note what was *not* shown: that the
# model could have *produced* these weights. They are imposed on it from outside. The objection is
# {cite:t}`wiegreffe2019`'s, and we come back to it.
# :::
#
# ### Step 5. What the answer feels of a weight
#
# Let the answer $f$ depend on the head's output $o_i = \sum_j \alpha_{ij} v_j$, and call
# $g_{ij} = \frac{\partial f}{\partial o_i} \cdot v_j$ what $f$ would gain if $o_i$ moved along
# $v_j$. By the chain rule $\partial f / \partial \alpha_{ij} = g_{ij}$. But no weight moves alone: a
# row sums to one. What can move is a score $s_{ij}$, of which chapter 2 knows the softmax's
# Jacobian, $\partial \alpha_{ik} / \partial s_{ij} = \alpha_{ik} ([k = j] - \alpha_{ij})$. So
#
# $$
# \begin{gathered}
# \frac{\partial f}{\partial s_{ij}} = \sum_k g_{ik}\, \alpha_{ik} \big([k = j] - \alpha_{ij}\big)
# = \alpha_{ij}\, \big( g_{ij} - \bar g_i \big), \\
# \bar g_i = \sum_k \alpha_{ik}\, g_{ik} .
# \end{gathered}
# $$ (eq-attention-is-not-explanation-felt)
#
# The weight is one factor. The other says whether token $j$ offers anything that differs from the
# mixture as a whole. A token with nine tenths of the weight whose value is like all others' has $g_{ij} = \bar
# g_i$, and nothing rests on it. The same holds for sizes. By the triangle inequality
#
# $$
# \begin{aligned}
# \Big\lVert \sum_j \sum_h m_{hij} \Big\rVert &\le \sum_j \Big\lVert \sum_h m_{hij} \Big\rVert \\
# &\le \sum_j \sum_h \alpha_{hij}\, \big\lVert v_{hj} W_h^O \big\rVert ,
# \end{aligned}
# $$ (eq-attention-is-not-explanation-norms)
#
# and in the last expression a small value makes a large weight harmless. The norms in the middle are
# {cite:t}`kobayashi2020`'s proposal: look at $\lVert m \rVert$, not at $\alpha$. The first
# inequality is also their limit: long vectors may cancel each other.

# %%
q, k, v = randn(1, 4), randn(6, 4), randn(6, 5)
slope = randn(5)  # ∂f/∂o, for f(o) = slope · o
scores = (q @ k.T / 2).detach().requires_grad_()
(felt,) = torch.autograd.grad((scores.softmax(-1) @ v @ slope).sum(), scores)
a = (q @ k.T / 2).softmax(-1)
g = v @ slope
check("eq-attention-is-not-explanation-felt", felt, a * (g - (a * g).sum()))

with torch.no_grad():
    each = attention_norms(attend, x[None])[0]  # (n, n)
    heads = attention_norms(attend, x[None], per_head=True)[0].sum(0)
    whole_norm = (attend(x[None])[0] - attend.output_projection.bias).norm(
        dim=-1
    )
check(
    "eq-attention-is-not-explanation-norms",
    bool((whole_norm <= each.sum(-1)).all() and (each <= heads + 1e-12).all()),
)
print(
    "‖sum‖ as a share of the sum of norms: "
    f"{(whole_norm / each.sum(-1)).mean():.3f}"
)
glue("attexp-cancel", (whole_norm / each.sum(-1)).mean())

# %% [markdown]
# In this random layer {glue:text}`attexp-cancel:.0%` of the length is left after cancelling.
#
# ### Step 6. How agreement is counted
#
# Two measures give $n$ words their scores, in units of their own. What can be compared is the
# order. Take all pairs of words; a pair *agrees* if both measures put the same word first. Kendall's
# $\tau$ is the share of pairs that agree less the share that does not,
#
# $$
# \tau = \frac{2}{n(n-1)} \sum_{i<j} \operatorname{sign}(a_i - a_j)\, \operatorname{sign}(b_i - b_j)
# $$ (def-attention-is-not-explanation-tau)
#
# (with ties, both sums of squares under a root take the place of the number of pairs). It is $1$
# for the same order and $-1$ for the reverse. For two orders that know nothing of each other its
# mean is zero by symmetry, and its variance is a classical result {cite}`kendall1938`,
#
# $$
# \operatorname{E}[\tau] = 0, \qquad
# \operatorname{Var}[\tau] = \frac{2\,(2n + 5)}{9\, n\, (n - 1)} .
# $$ (eq-attention-is-not-explanation-chance)
#
# Why? Write $X_p$ for the product of signs of pair $p$, and $N = n(n-1)/2$ for the number of pairs.
# $\operatorname{E} X_p = 0$ and $X_p^2 = 1$. Pairs with no word in common are independent. Of two
# pairs that share a word, in one order of three words both comparisons with the shared one come out
# alike unless it is the middle one: with probability $\frac23$, so the mean product of signs in one
# measure is $\frac23 - \frac13 = \frac13$, and in both measures $\frac19$. There are $N$ pairs, and
# $n(n-1)(n-2)$ ordered couples of pairs with one word in common. Therefore $\operatorname{Var} \sum
# X_p = N + \frac19\, n (n-1)(n-2) = \frac{n(n-1)}{18} (9 + 2n - 4)$, and division by $N^2$ gives the
# formula. For a text of twelve words that is a standard deviation of a fifth: **one sentence proves
# nothing**. We take a hundred, and several models.

# %%
n, draws = 12, 20_000
first = torch.rand(draws, n, generator=generator)
second = torch.rand(draws, n, generator=generator)
taus = kendall_tau(first, second)
variance = 2 * (2 * n + 5) / (9 * n * (n - 1))
check(
    "eq-attention-is-not-explanation-chance",
    taus.mean() / math.sqrt(variance),
    0.0,
    atol=5 / math.sqrt(draws),
)
check(
    "eq-attention-is-not-explanation-chance",
    taus.var() / variance,
    1.0,
    atol=5 * math.sqrt(2 / draws),
)
print(f"n = {n}: standard deviation of τ by chance {math.sqrt(variance):.3f}")

# %% [markdown]
# ## From scratch
#
# Three tokens, two layers of one head, in plain Python. In layer 1 everyone looks at token *a*. In
# layer 2 token *c* looks at *b* alone, the others at themselves.

# %%
layer_1 = [[1, 0, 0], [1, 0, 0], [1, 0, 0]]
layer_2 = [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def with_residual(weights):
    return [
        [(w + (i == j)) / 2 for j, w in enumerate(row)]
        for i, row in enumerate(weights)
    ]


def product(second, first):
    return [
        [sum(row[k] * first[k][j] for k in range(3)) for j in range(3)]
        for row in second
    ]


by_hand = product(with_residual(layer_2), with_residual(layer_1))
print("rollout      a      b      c")
for name, row in zip("abc", by_hand, strict=True):
    print(f"{name:8}" + "".join(f"{x:7.3f}" for x in row))
print("raw weights of c in layer 2:", layer_2[2])

# %% [markdown]
# Follow *c* by hand. Half of it stays, half comes from *b*. Each of the two is, after layer 1, half
# itself and half *a*. So *c* is one quarter *c*, one quarter *b*, and one half *a*, though its own
# row of the last layer gives *a* nothing. That is what rollout is for, and it is right about that.
#
# Now the other weights with the same output, with three keys on a line: values $0$, $1$ and $2$,
# $d_v = 1$, and all weight on the middle one. The output is $1$. Of $n = 3 = d_v + 2$ weights there
# is one direction that keeps both sums, $(1, -2, 1)$:

# %%
values, row = [0.0, 1.0, 2.0], [0.0, 1.0, 0.0]
direction = [1.0, -2.0, 1.0]
t = row[1] / 2  # where the middle weight arrives at zero
moved = [w + t * s for w, s in zip(row, direction, strict=True)]
for weights in (row, moved):
    mean = sum(w * v for w, v in zip(weights, values, strict=True))
    print(f"weights {weights}, output {mean}")

# %% [markdown]
# *All* weight on the middle key, or *none*, and the output cannot tell. Which of the two was it that
# the model “looked at”?

# %%
two_layers = torch.tensor([layer_1, layer_2], dtype=double)[:, None, None]
check(
    "rollout by hand = the library", by_hand, attention_rollout(two_layers)[0]
)
check(
    "the other weights by hand = the library",
    moved,
    equal_output_weights(
        torch.tensor(row, dtype=double),
        torch.tensor(values, dtype=double)[:, None],
        wish=torch.tensor([0.0, -1.0, 0.0], dtype=double),
    ),
)

# %% [markdown]
# ## The library function
#
# Rollout is a loop of products. What takes thought in `lib.interpret.attention` is changing a model
# and changing it back.
#
# ```{lib-source} lib.interpret.attention.attention_rollout
# ```
#
# ```{lib-source} lib.interpret.attention.ablate_heads
# ```
#
# ```{lib-source} lib.interpret.attention.replace_weights
# ```
#
# ```{lib-source} lib.interpret.attention.equal_output_weights
# ```
#
# **A context manager, since a model must come back whole.** `ablate_heads` keeps a copy of $W^O$ and
# puts it back when the block ends, by an error too. Multiplying by a mask of zeros and dividing it
# out again would not do.
#
# **Weights are replaced where they are used.** `replace_weights` hands the module's own weights to a
# function and mixes the values by what comes back. Padding has weight exactly zero there, and both
# `uniform_weights` and `permuted_weights` leave it at zero.
#
# Is the replaced module the same as attention computed by hand?

# %%
torch.manual_seed(5)
attend = MultiHeadAttention(12, 3).double().eval()
x = randn(2, 7, 12)
with torch.no_grad():
    want, weights = attend(x, return_weights=True)
    with replace_weights(attend, lambda own: own):
        check("its own weights change nothing", attend(x), want)
    with replace_weights(attend, uniform_weights):
        flat = attend(x)
    average = attend.output_projection(attend.value_projection(x).mean(1))
    check(
        "uniform weights give the mean of values",
        flat,
        average[:, None].expand_as(flat),
    )
    check("and afterwards it is itself again", attend(x), want)
    with ablate_heads(attend, [1]):
        without = attend(x)

    # the reference: torch's module with the same columns of its W^O set to zero
    reference = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    three = (
        attend.query_projection,
        attend.key_projection,
        attend.value_projection,
    )
    reference.in_proj_weight.copy_(torch.cat([one.weight for one in three]))
    reference.in_proj_bias.copy_(torch.cat([one.bias for one in three]))
    reference.out_proj.load_state_dict(attend.output_projection.state_dict())
    got, found = reference(x, x, x, average_attn_weights=False)
    check("weights and output = torch's module", [got, found], [want, weights])
    reference.out_proj.weight[:, 4:8] = 0.0
    check("ablation = torch's module without", without, reference(x, x, x)[0])

# %% [markdown]
# ## On real data
#
# The model of chapters 15 to 19: a small BERT of two layers with three heads each that reads a
# docstring of Python's standard library word by word, and names the module it is from, one of
# eight. Its answer is read off the first token, [CLS].

# %% tags=["nbval-ignore-output"]
data = words()
bar = Progress(range(600), label="training the classifier")
model, accuracy = train(data, seed=0, progress=lambda steps: bar)

# %%
held_out = data.encode(data.data.validation)
right_answers = torch.tensor(data.data.validation_labels)
layers = model.bert.encoder.layers
ids = data.encode([SENTENCE])
tokens = ["[CLS]", *data.split(SENTENCE)]
with torch.no_grad():
    logits = model(ids)[0]
named = int(logits.argmax())
print(f"held-out accuracy {accuracy:.3f} on {len(held_out)} texts")
print(f"“{SENTENCE}”")
print(f"is from: {data.names[named]}")
glue("attexp-accuracy", accuracy)
glue("attexp-texts", len(held_out))
check("the model has learned something", accuracy > 0.7)

# %% [markdown]
# It is right about {glue:text}`attexp-accuracy:.0%` of {glue:text}`attexp-texts:.0f` held-out texts.
# Below is all that it attends to in one of them. Choose a layer and a head, and a query; [CLS] is
# the first. Then switch to rollout, and to the norms of the last layer (each row scaled to a sum of
# one, so that they can be shown in the same way).

# %%
own = model.attention(ids)  # (layers, 1, h, n, n)
seen = []
handle = layers[-1].attention.register_forward_pre_hook(
    lambda module, args: seen.append(args[0])
)
with torch.no_grad():
    model(ids)
    norms = attention_norms(layers[-1].attention, seen[0], per_head=True)[0]
handle.remove()
heads = own.shape[2]
maps = {
    "layer 1": own[0, 0],
    "layer 2": own[1, 0],
    "rollout": attention_rollout(own)[0].expand(heads, -1, -1),
    "norms of layer 2": norms / norms.sum(-1, keepdim=True),
}
AttentionRows(
    tokens,
    maps,
    choice="Shown",
    label="What [CLS] and the others attend to, by four readings",
    row=0,
    mask_name="layer 2",
)

# %% [markdown]
# Heads differ, layers differ, and rollout (which has no heads left) is flatter than either. Which is
# “the” explanation? To have something to compare with, take each word away: hide it behind [MASK],
# on which this model was trained, and see how far the logit $f$ of the named class moves,
#
# $$
# \operatorname{loo}_j = \big\lvert f(x) - f(x \text{ without word } j) \big\rvert .
# $$ (def-attention-is-not-explanation-loo)
#
# This *leave-one-out* is no higher truth either: two words that say the same cover for each other.
# But it is an effect on the answer, and that is what we agreed to call an explanation. Beside it
# stands the gradient times the input, $\lvert x_j \cdot \partial f / \partial x_j \rvert$
# (chapter 16 says what is wrong with that one). All are sizes, without a sign, as weights have none.

# %%
scores = word_scores(model, ids)
order = [*MEASURES[:-1], "leave-one-out"]
heads_of_columns = [*order[:-1], "loo"]
print(f"{'word':12}" + "".join(f"{name:>11}" for name in heads_of_columns))
for j, word in enumerate(tokens[1:]):
    shares_of = [(scores[name] / scores[name].sum())[j] for name in order]
    print(f"{word:12}" + "".join(f"{x:11.3f}" for x in shares_of))
print(
    f"{'τ with loo':12}"
    + "".join(
        f"{kendall_tau(scores[name], scores['leave-one-out']):11.2f}"
        for name in order
    )
)
one_text = len(tokens) - 1
glue("attexp-one-words", one_text)
by_chance = math.sqrt(2 * (2 * one_text + 5) / (9 * one_text * (one_text - 1)))
glue("attexp-one-chance", by_chance)
cls_share = own[-1, 0, :, 0, 0].mean()
print(f"[CLS] gives itself {cls_share:.3f} in the last layer")

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.0, 2.9))
table = torch.stack([scores[name] / scores[name].max() for name in order])
heatmap(ax, table, xlabels=tokens[1:], ylabels=order)
show_figure(
    fig,
    name="fig-attention-is-not-explanation-measures",
    caption="One sentence, five measures of how much a word matters, each "
    "as a share of its own "
    "largest. The last row is what taking the word away does to the answer.",
    alt="A heat map of five measures by eleven words. The rows of attention "
    "and of norms are nearly alike, the row of rollout is flatter, and each of "
    "gradient and leave-one-out has bright words of its own.",
)

# %% [markdown]
# In {numref}`fig-attention-is-not-explanation-measures` some words are bright in all rows and some
# only in one. For {glue:text}`attexp-one-words:.0f` words chance alone gives $\tau$ a standard
# deviation of {glue:text}`attexp-one-chance:.2f` {eq}`eq-attention-is-not-explanation-chance`, so the
# last line of the table says little. We take a hundred texts.
#
# ### Does attention agree with anything?

# %%
texts = long_texts(data, 100)
found = [word_scores(model, text, seed=i) for i, text in enumerate(texts)]
with_loo = agreement(found)
print("Kendall's τ with leave-one-out, mean of 100 held-out texts, seed 0")
for name, tau in with_loo.items():
    print(f"{name:12}{tau:7.3f}")
n_words = torch.tensor([text.shape[1] - 1.0 for text in texts])
by_chance = (
    2 * (2 * n_words + 5) / (9 * n_words * (n_words - 1))
).sum().sqrt() / 100
print(f"standard deviation of such a mean by chance: {by_chance:.3f}")
check(
    "random scores agree with nothing", abs(with_loo["chance"]) < 5 * by_chance
)
check(
    "attention agrees better than chance",
    with_loo["attention"] > with_loo["chance"] + 3 * by_chance,
)
check("and is far from the same order", with_loo["attention"] < 0.75)

record = recorded("attention_explanation")
arms, base = record["results"]["arms"], record["results"]["base"]
BASE = next(iter(arms))
seeds = record["settings"]["seeds"]
taus = {
    name: torch.tensor([run["with_leave_one_out"][name] for run in arms[BASE]])
    for name in MEASURES
}
with_gradient = torch.tensor(
    [run["with_gradient"]["attention"] for run in arms[BASE]]
)
print(f"{len(seeds)} seeds, mean ± standard deviation")
for name, values in taus.items():
    print(f"{name:12}{values.mean():7.3f} ± {values.std():.3f}")
    glue(f"attexp-tau-{name}", values.mean())
    glue(f"attexp-tau-{name}-sd", values.std())
glue("attexp-tau-between", with_gradient.mean())
glue("attexp-tau-between-sd", with_gradient.std())
glue("attexp-seeds", len(seeds))

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.0))
colors = ["weights", "query", "value", "key", "reference"]
for place, values in enumerate(taus.values()):
    ax.plot(values, [place] * len(values), "o", color=COLORS[colors[place]])
    ax.plot(
        values.mean(), place, "|", color=COLORS[colors[place]], markersize=22
    )
ax.set_yticks(range(len(taus)), list(taus))
ax.axvline(0, color=COLORS["reference"], linewidth=1)
ax.set(xlabel="Kendall's τ with leave-one-out", xlim=(-0.2, 0.75))
ax.invert_yaxis()
show_figure(
    fig,
    name="fig-attention-is-not-explanation-agreement",
    caption=f"Agreement with leave-one-out: each dot is one of {len(seeds)} "
    "trained models, and the "
    "mean of a hundred held-out texts; bars are means over models. Zero is "
    "chance, one is the same "
    "order.",
    alt="Dots for five measures on a scale of tau. The random measure lies "
    "at zero. Attention, "
    "rollout, norms and gradient all lie clearly to its right, and clearly "
    "to the left of one.",
)

# %% [markdown]
# Over {glue:text}`attexp-seeds:.0f` models the mean $\tau$ with leave-one-out is
# {glue:text}`attexp-tau-attention:.3f` for raw attention (standard deviation over models
# {glue:text}`attexp-tau-attention-sd:.3f`), {glue:text}`attexp-tau-rollout:.3f` for rollout
# ({glue:text}`attexp-tau-rollout-sd:.3f`), {glue:text}`attexp-tau-norms:.3f` for norms
# ({glue:text}`attexp-tau-norms-sd:.3f`), and {glue:text}`attexp-tau-gradient:.3f` for gradient times
# input ({glue:text}`attexp-tau-gradient-sd:.3f`). Chance gives
# {glue:text}`attexp-tau-chance:.2f` ({numref}`fig-attention-is-not-explanation-agreement`).
#
# So here attention is *not* unrelated to what matters, and it would be wrong to report that it is.
# Rollout comes out ahead of gradient times input. Norms are no better a look than weights: in this
# model the values' lengths differ too little to change the order much. But no measure comes near one, and
# attention and the gradient agree with each other no better
# ({glue:text}`attexp-tau-between:.3f` ± {glue:text}`attexp-tau-between-sd:.3f`). A $\tau$ of a third
# means that of three pairs of words two are in the right order: useful for a glance, and nothing to
# argue a single case with.
#
# ### How much of rollout's error is which omission?
#
# The ladder of step 2 once more, now with the trained layers, on five texts, for the row of [CLS].

# %%
import copy

doubled = copy.deepcopy(model).double()
stack = doubled.bert.encoder.layers
climbed = []
for text in texts[:5]:
    with torch.no_grad():
        start_vectors = doubled.bert.encoder.embeddings(text)[0]
    climbed.append(
        torch.cat(ladder(stack, start_vectors, rows=slice(0, 1)), -1)
    )
climbed, moves = torch.stack(climbed).unbind(-1)  # each (texts, parts)
print("                 rollout is off by   this part moves T by")
for k, name in enumerate(LADDER):
    off, move = climbed[:, k], moves[:, k]
    print(
        f"{'+ ' * (k > 0) + name:17}{off.mean():10.3f} ± {off.std():.3f}"
        f"{move.mean():15.3f} ± {move.std():.3f}"
    )
glue("attexp-trained-values", climbed[:, 1].mean())
glue("attexp-trained-all", climbed[:, -1].mean())
check("mixing only: rollout is exact", climbed[:, 0], 0.0, atol=1e-10)
check("the rest matters here too", climbed[:, -1].mean() > 0.05)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.1))
places = range(len(LADDER))
for label, rows, style, color in [
    ("random layers, all tokens", rungs.T, "--", "query"),
    ("trained layers, [CLS], five texts", climbed, "-", "weights"),
]:
    ax.plot(places, rows.mean(0), style, color=COLORS[color], label=label)
    low, high = rows.amin(0), rows.amax(0)
    ax.fill_between(
        places, low, high, color=COLORS[color], alpha=0.2, linewidth=0
    )
names = [
    "mixing\nonly",
    "+ values,\n$W^O$",
    "+ feed-\nforward",
    "+ norms",
    "+ live\nweights",
]
ax.set_xticks(places, names)
ax.set(ylabel="distance of rollout from the truth", ylim=(0, None))
fig.legend(loc="outside upper center", ncols=1)
show_figure(
    fig,
    name="fig-attention-is-not-explanation-ladder",
    caption="How far rollout is from each token's true share (total "
    "variation), as the parts that "
    "it leaves out are put in one after the other. Bands span tokens or texts.",
    alt="Two lines over five steps from mixing only to the whole layer. "
    "Both start at exactly zero; "
    "they rise with values and output matrix, and change again with each "
    "further part.",
)

# %% [markdown]
# Where layers only mix, rollout is exact, as {eq}`eq-attention-is-not-explanation-ideal` says. With
# the trained values and $W^O$ its row of [CLS] is off by {glue:text}`attexp-trained-values:.2f`, in
# the whole model by {glue:text}`attexp-trained-all:.2f`
# ({numref}`fig-attention-is-not-explanation-ladder`).
#
# ### Swapped attention
#
# If attention is the reason for an answer, then other attention should give another answer. After
# training, we let the last layer, or both, use other weights: the same numbers in a random order
# within each row, or the same number for all keys.


# %%
def probabilities(net=model):
    with torch.no_grad():
        return torch.cat([net(x).softmax(-1) for x in held_out.split(256)])


def hits(said):
    return (said.argmax(-1) == right_answers).double().mean().item()


before = probabilities()
shuffles = torch.Generator().manual_seed(1)


def shuffled(weights):
    return permuted_weights(weights, shuffles)


print("                       accuracy   moved   same answer")
print(f"{'its own':22}{hits(before):9.3f}")
swaps = {}
for what, change in (("permuted", shuffled), ("uniform", uniform_weights)):
    for where, which in (("last layer", [1]), ("both layers", [0, 1])):
        with other_attention(model, change, which):
            after = probabilities()
        moved = ((after - before).abs().sum(-1) / 2).mean().item()
        same = (after.argmax(-1) == before.argmax(-1)).double().mean().item()
        swaps[what, where] = hits(after)
        key = f"attexp-{what}-{where.split()[0]}"
        glue(f"{key}", hits(after))
        glue(f"{key}-same", same)
        print(
            f"{what + ', ' + where:22}{hits(after):9.3f}{moved:8.3f}{same:10.3f}"
        )
check("the model is as before", probabilities(), before, atol=0)
check(
    "attention is used: other weights cost accuracy",
    min(swaps.values()) < accuracy - 0.03,
)
kept = torch.tensor(
    [run["swapped"]["permuted"]["accuracy"] for run in arms[BASE]]
)
flat = torch.tensor(
    [run["swapped"]["uniform"]["accuracy"] for run in arms[BASE]]
)
trained_flat = torch.tensor(base["uniform_from_the_start"])
reached = torch.tensor([run["accuracy"] for run in arms[BASE]])
print("recorded, both layers, mean ± standard deviation over seeds")
for name, values in [
    ("its own", reached),
    ("permuted", kept),
    ("uniform", flat),
    ("uniform from the start", trained_flat),
]:
    print(f"{name:24}{values.mean():.3f} ± {values.std():.3f}")
    glue(f"attexp-swap-{name.replace(' ', '-')}", values.mean())
    glue(f"attexp-swap-{name.replace(' ', '-')}-sd", values.std())
glue("attexp-majority", (right_answers.bincount().max() / len(right_answers)))

# %% [markdown]
# With the last layer's weights in random order the model still gives the same answer to
# {glue:text}`attexp-permuted-last-same:.0%` of the texts; with both layers', to
# {glue:text}`attexp-permuted-both-same:.0%`. Over all recorded models accuracy falls from
# {glue:text}`attexp-swap-its-own:.3f` to {glue:text}`attexp-swap-permuted:.3f` (permuted) and
# {glue:text}`attexp-swap-uniform:.3f` (uniform, both layers). Naming the most frequent module would
# be right in {glue:text}`attexp-majority:.2f`.
#
# Two readings, and both are fair. Attention is *used*: take it away and answers suffer. And a single
# map is *not necessary*: for most texts a very different one would have done.
#
# ### The same answer from far away, exactly
#
# Permuting is blind. Step 4 can do better: weights as far away as walls allow, with the head's
# output *exactly* as before. Here heads have $d_v = 16$ features, so a text needs at least
# $d_v + 2 = 18$ tokens. For each of the hundred texts and each head of the last layer we take the
# row of [CLS] and wish for its reverse.

# %%
last = stack[-1].attention
d_v = last.d_head


def elsewhere(text):
    """Weights (h, n) of [CLS] in the last layer: its own, and others."""
    seen = []
    handle = last.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    with torch.no_grad():
        doubled(text)
        handle.remove()
        _, weights = last(seen[0], return_weights=True)
        value = last.value_projection(seen[0])[0].unflatten(-1, (-1, d_v))
    old = weights[0, :, 0]
    new = [equal_output_weights(a, value[:, h], -a) for h, a in enumerate(old)]
    return old, torch.stack(new)


lengths, distance, gaps, top_lost = [], [], [], []
for text in texts:
    old, new = elsewhere(text)

    def put(weights, new=new):
        weights = weights.clone()
        weights[0, :, 0] = new
        return weights

    with torch.no_grad():
        want = doubled(text)
        with replace_weights(last, put):
            gaps.append((doubled(text) - want).abs().max().item())
    lengths.append(text.shape[1])
    distance.append(apart(new, old).mean().item())
    top_lost.append(
        int(new[:, 1:].mean(0).argmax() != old[:, 1:].mean(0).argmax())
    )
lengths, distance = torch.tensor(lengths), torch.tensor(distance)
long = lengths >= d_v + 2
print(
    f"{int(long.sum())} texts of {d_v + 2} tokens or more, "
    f"{int((~long).sum())} shorter"
)
print(f"largest change of any logit: {max(gaps):.1e}")
longest = lengths == lengths.max()
print(f"distance, shorter texts: {distance[~long].max():.1e}")
print(
    f"distance, texts of {int(lengths.max())}: {distance[longest].mean():.3f}"
)
lost = torch.tensor(top_lost, dtype=double)[longest].mean()
print(f"of these, another word is on top of the map: {lost:.0%}")
check("the logits do not move", max(gaps) < 1e-9)
check(
    "short texts: the weights are determined",
    bool((distance[~long] < 1e-9).all()),
)
check("long texts: they are not", distance[longest].mean() > 0.02)
glue("attexp-reach-longest", distance[longest].mean())
glue("attexp-reach-lost", lost)
glue("attexp-reach-gap", max(gaps))
glue("attexp-reach-length", lengths.max())

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(4.8, 4.9))
text = texts[int(distance.argmax())]
old, new = elsewhere(text)
h = int(apart(new, old).argmax())
axes[0].plot(old[h], "o-", color=COLORS["weights"], label="its own weights")
axes[0].plot(new[h], "s--", color=COLORS["key"], label="others, same output")
axes[0].set(xlabel="token of one text", ylabel="weight")
axes[1].plot(lengths, distance, "o", color=COLORS["weights"], alpha=0.85)
axes[1].axvline(
    d_v + 1.5, color=COLORS["reference"], linewidth=1, linestyle=":"
)
axes[1].set(xlabel="tokens in the text", ylabel="distance reached")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-attention-is-not-explanation-same-output",
    caption="Top: the row of [CLS] in one head, and another row with the "
    "same output. Bottom: how "
    "far such rows get, mean of three heads, one dot a text. The dotted "
    f"line is {d_v + 1}½ tokens: "
    "left of it weights are determined.",
    alt="Top, two rows of weights over the tokens of a text that differ in "
    "most places. Bottom, a "
    "scatter of distance over length: exactly zero up to seventeen tokens, "
    "and above zero beyond.",
)

# %% [markdown]
# No logit moves by more than {glue:text}`attexp-reach-gap:.0e`. Up to seventeen tokens there is no
# other row. Among the texts of {glue:text}`attexp-reach-length:.0f` tokens the distance is
# {glue:text}`attexp-reach-longest:.2f` on average, and for {glue:text}`attexp-reach-lost:.0%` of them
# the map's brightest word is another one
# ({numref}`fig-attention-is-not-explanation-same-output`). That is little, and should be said as
# plainly as the theorem. Trained rows are peaked, so most weights are near zero, walls are near,
# and a head of 16 features leaves a text of at most 32 tokens few dimensions. Where texts are long
# and heads narrow beside them there is more room.
#
# Two things to keep straight. Our own sentence has twelve tokens, so *its* weights are determined by
# the output, and still do not say what matters. And a measure that is a function of weights, such as
# rollout or the norms, inherits the freedom: with the new weights it changes, while the answer does
# not.
#
# ### Which heads does it need?

# %%
drop = torch.zeros(len(layers), heads)
print("how far accuracy falls")
for number, layer in enumerate(layers):
    for h in range(heads):
        with ablate_heads(layer.attention, [h]):
            drop[number, h] = accuracy - hits(probabilities())
    with ablate_heads(layer.attention, range(heads)):
        alone = hits(probabilities())
    print(
        f"layer {number + 1}: one head gone:",
        [round(x, 3) for x in drop[number].tolist()],
        f"all gone: {accuracy - alone:.3f}",
    )
    glue(f"attexp-layer-{number + 1}", accuracy - alone)
    glue(f"attexp-heads-{number + 1}", drop[number].sum())
check("the model is as it was", probabilities(), before, atol=0)

# %% [markdown]
# All heads of layer 1 together are worth {glue:text}`attexp-layer-1:.3f` of accuracy, one by one they
# add up to {glue:text}`attexp-heads-1:.3f`. In layer 2 it is {glue:text}`attexp-layer-2:.3f` and
# {glue:text}`attexp-heads-2:.3f`. The sums differ, as step 3 said they may: heads cover for each
# other, and looking at one head's map says little of what would be lost without it.
# {cite:t}`michel2019` found in large models that most heads can be spared, each by itself.
#
# ### Attention to signs
#
# A full stop says little about a module. How much of [CLS]'s attention goes to such signs?

# %%
share = {name: [] for name in ("tokens", *order)}
for text, one in zip(texts, found, strict=True):
    spelled = [data.vocabulary[i] for i in text[0, 1:].tolist()]
    sign = torch.tensor(
        [not any(c.isalnum() for c in word) for word in spelled]
    )
    share["tokens"].append(sign.double().mean().item())
    for name in order:
        share[name].append((one[name][sign].sum() / one[name].sum()).item())
print("share of signs (full stops, brackets, …), mean of 100 texts")
for name, values in share.items():
    mean = sum(values) / len(values)
    print(f"{name:14}{mean:.3f}")
    glue(f"attexp-signs-{name}", mean)
signs = {name: sum(values) / len(values) for name, values in share.items()}
check(
    "signs draw no attention beyond their number",
    signs["attention"] < signs["tokens"] + 0.05,
)

# %% [markdown]
# Signs are {glue:text}`attexp-signs-tokens:.0%` of the tokens. They get
# {glue:text}`attexp-signs-attention:.0%` of the attention, {glue:text}`attexp-signs-norms:.0%` of the
# norms, {glue:text}`attexp-signs-rollout:.0%` of rollout, {glue:text}`attexp-signs-gradient:.0%` of
# the gradients, and carry {glue:text}`attexp-signs-leave-one-out:.0%` of leave-one-out. So *this*
# model does not rest its attention on signs. Of BERT, {cite:t}`clark2019` (§3.2) report that a great
# deal of attention goes to separators and punctuation, and {cite:t}`kobayashi2020` that the
# norms there are small. D59 below builds such a resting place.
#
# ### Two papers, told fairly
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`jain2019` train recurrent classifiers with one attention layer on top. Attention and
# gradients or leave-one-out correlate weakly there (§4.1). Permuting the weights of a text often
# changes the answer little, and weights can be found by optimisation, text by text, that are nearly
# as far from the model's as can be and give nearly the same answer (§4.2). Hence the title:
# attention is not explanation.
# :::
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`wiegreffe2019` object. On some of those tasks frozen *uniform* weights do as well, so
# attention is not needed there and such a task tests nothing (§3.2). How far apart are two honest
# seeds? Only beyond that is “far” far (§3.3). Are the weights good for anything outside their model?
# Give them to a simple model without context, and see whether they guide it better than uniform
# ones (§3.4). And weights imposed text by text are no model's: train one adversary for all texts
# (§4). Such adversaries exist, are less far than the optimised weights, and guide badly. That another
# explanation exists does not make this one false.
# :::
#
# What of it holds in *our* model, a Transformer and not a recurrent net? We ran their four tests.
# Divergence between maps is Jensen–Shannon's: zero for equal maps, $\ln 2$ for disjoint ones; only
# what [CLS] gives to words is compared.

# %%
adversary = {
    name: torch.tensor([run[name] for run in base["adversary"]])
    for name in ("accuracy", "moved", "apart")
}
adversary["tau"] = torch.tensor(
    [run["with_leave_one_out"]["attention"] for run in base["adversary"]]
)
rows = {
    "two seeds": (base["seeds_apart"], base["seeds_moved"]),
    "a model and its adversary": (adversary["apart"], adversary["moved"]),
    "a model and itself, permuted": (
        base["permuted_apart"],
        [run["swapped"]["permuted"]["moved"] for run in arms[BASE]],
    ),
}
print("                               maps apart       answers moved")
for name, (far, moved) in rows.items():
    far, moved = torch.as_tensor(far), torch.as_tensor(moved)
    print(
        f"{name:29}{far.mean():.3f} ± {far.std():.3f}   {moved.mean():.3f} "
        f"± {moved.std():.3f}"
    )
    key = name.split()[-1]
    glue(f"attexp-apart-{key}", far.mean())
    glue(f"attexp-moved-{key}", moved.mean())
print(
    "accuracy of the adversary "
    f"{adversary['accuracy'].mean():.3f} ± {adversary['accuracy'].std():.3f}"
)
print(
    "τ of its attention with leave-one-out "
    f"{adversary['tau'].mean():.3f} ± {adversary['tau'].std():.3f}"
)
glue("attexp-adversary-accuracy", adversary["accuracy"].mean())
glue("attexp-adversary-tau", adversary["tau"].mean())
check(
    "the adversary is farther than any two seeds",
    adversary["apart"].min() > max(base["seeds_apart"]),
)

guided = {name: torch.tensor(values) for name, values in base["guided"].items()}
print("a model without context, guided by the words' weights of …")
for name, values in guided.items():
    print(f"  {name:12}{values.mean():.3f} ± {values.std():.3f}")
    glue(f"attexp-guided-{name}", values.mean())
    glue(f"attexp-guided-{name}-sd", values.std())

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(4.8, 4.6))
for (name, (far, moved)), marker, color in zip(
    rows.items(), "os^", ("query", "key", "reference"), strict=True
):
    axes[0].plot(far, moved, marker, color=COLORS[color], label=name)
axes[0].set(
    xlabel="divergence of the maps, nats", ylabel="answers moved", xlim=(0, 0.7)
)
axes[0].set_ylim(0, None)
axes[0].legend(loc="upper left", bbox_to_anchor=(0, 1.5), ncols=1)
for place, values in enumerate(guided.values()):
    axes[1].plot(values, [place] * len(values), "o", color=COLORS["value"])
axes[1].set_yticks(range(len(guided)), list(guided))
axes[1].invert_yaxis()
axes[1].set(xlabel="accuracy of the guided model")
show_figure(
    fig,
    name="fig-attention-is-not-explanation-adversary",
    caption="Top: how far apart two maps are, and how far apart the answers "
    "that go with them; a dot "
    "a pair of models. Bottom: a model that sees words one by one, weighted "
    "by the maps of others.",
    alt="Top, a scatter of moved answers over divergence of maps in three "
    "groups: pairs of seeds, "
    "adversaries, permuted maps. Bottom, accuracies of guided models in "
    "four rows of dots.",
)

# %% [markdown]
# **Is attention needed at all?** Trained with uniform weights from the start, the model reaches
# {glue:text}`attexp-swap-uniform-from-the-start:.3f` ±
# {glue:text}`attexp-swap-uniform-from-the-start-sd:.3f`, with attention
# {glue:text}`attexp-swap-its-own:.3f` ± {glue:text}`attexp-swap-its-own-sd:.3f`: no difference
# beyond noise. That is a finding about *this task*: the words in a docstring, mixed evenly, suffice
# to name its module. A model that has learned to use attention needs it (the swaps above); the
# task does not. By {cite:t}`wiegreffe2019`'s first test it is thin ground for any claim that
# attention *must* explain, or that it cannot.
#
# **How far is far?** Two seeds' maps are {glue:text}`attexp-apart-seeds:.2f` nats apart, and their
# answers (as total variation of probabilities) {glue:text}`attexp-moved-seeds:.2f`. Anything within
# that is noise of training.
#
# **An adversary.** Trained for all texts at once to answer like a model and to look elsewhere, it
# gets {glue:text}`attexp-apart-adversary:.2f` nats away, far beyond two seeds, and its answers differ
# by {glue:text}`attexp-moved-adversary:.2f`, as two seeds' do. Its accuracy is
# {glue:text}`attexp-adversary-accuracy:.3f`, and the $\tau$ of its attention with its own
# leave-one-out {glue:text}`attexp-adversary-tau:.2f`: nothing is left of the agreement
# ({numref}`fig-attention-is-not-explanation-adversary`). So a *trained* Transformer can answer as
# well by weights that say nothing about its reasons. There are other ways for the
# information to go: the residual stream, layer 1, [CLS] itself. Which of them it takes we did not
# measure.
#
# **Do the weights guide another model?** A model without context reaches
# {glue:text}`attexp-guided-uniform:.3f` ± {glue:text}`attexp-guided-uniform-sd:.3f` with uniform
# weights, {glue:text}`attexp-guided-base:.3f` ± {glue:text}`attexp-guided-base-sd:.3f` with those of
# our model, {glue:text}`attexp-guided-permuted:.3f` ± {glue:text}`attexp-guided-permuted-sd:.3f` with
# the same in a random order, and {glue:text}`attexp-guided-adversary:.3f` ±
# {glue:text}`attexp-guided-adversary-sd:.3f` with the adversary's. Both sides have their point. The
# honest weights guide far better than their own numbers in a random order, and than the adversary's,
# as {cite:t}`wiegreffe2019` (§4) found. But they guide no better than even weights do.
#
# ### What structure changes
#
# One often reads of a trade-off, in either direction: that newer structures, with more heads and
# layers, are less interpretable; or that attention has made them more so. That can be tested. Five
# structures, each trained anew for {glue:text}`attexp-seeds:.0f` seeds, on the same data for the same
# number of steps.

# %%
print(f"{'':18}{'accuracy':>13}   τ with leave-one-out of")
print(f"{'':33}{'attention':>13}  {'rollout':>13}")
points = {}
for name, runs in arms.items():
    accuracy_of = torch.tensor([run["accuracy"] for run in runs])
    tau_of = {
        which: torch.tensor([run["with_leave_one_out"][which] for run in runs])
        for which in ("attention", "rollout", "gradient")
    }
    points[name] = (accuracy_of, tau_of)
    cells = [
        f"{x.mean():.3f} ± {x.std():.3f}"
        for x in (accuracy_of, tau_of["attention"], tau_of["rollout"])
    ]
    print(f"{name:18}" + "  ".join(f"{cell:>13}" for cell in cells))
    key = "attexp-arm-" + name.replace(",", "").replace(" ", "-")
    glue(f"{key}-accuracy", accuracy_of.mean())
    glue(f"{key}-tau", tau_of["attention"].mean())
    glue(f"{key}-sd", tau_of["attention"].std())
    glue(f"{key}-rollout", tau_of["rollout"].mean())
all_accuracy = torch.cat([one for one, _ in points.values()])
across = {
    which: kendall_tau(
        all_accuracy, torch.cat([taus[which] for _, taus in points.values()])
    )
    for which in ("attention", "rollout")
}
m = len(all_accuracy)
sd = math.sqrt(2 * (2 * m + 5) / (9 * m * (m - 1)))
print(
    f"over all {m} models, τ between accuracy and agreement:\n"
    f"attention {across['attention']:.2f}, rollout {across['rollout']:.2f}; "
    f"chance ± {sd:.2f}"
)
glue("attexp-models", m)
glue("attexp-across-attention", across["attention"])
glue("attexp-across-rollout", across["rollout"])
glue("attexp-across-chance", sd)
deep = [
    points[f"{which}, 3 heads"][1]["attention"]
    for which in ("1 layer", "2 layers", "3 layers")
]
check(
    "one layer, two, three: all seeds apart",
    deep[0].min() > deep[1].max() and deep[1].min() > deep[2].max(),
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 4.0))
for (name, (accuracy_of, tau_of)), marker, color in zip(
    points.items(),
    "osD^v",
    ("weights", "query", "key", "value", "output"),
    strict=True,
):
    ax.plot(
        accuracy_of,
        tau_of["attention"],
        marker,
        color=COLORS[color],
        label=name,
    )
ax.set(xlabel="held-out accuracy", ylabel="τ of attention with leave-one-out")
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-attention-is-not-explanation-structure",
    caption=f"{m} trained models of five structures: accuracy, and how far "
    "raw attention of the last "
    "layer agrees with leave-one-out.",
    alt="A scatter of agreement over accuracy for fifteen models in five "
    "groups, one marker a "
    "structure. One layer lies highest, then two layers, then three; "
    "accuracies overlap.",
)

# %% [markdown]
# **Heads.** With one, three or six heads in two layers, accuracy is
# {glue:text}`attexp-arm-2-layers-1-head-accuracy:.3f`,
# {glue:text}`attexp-arm-2-layers-3-heads-accuracy:.3f` and
# {glue:text}`attexp-arm-2-layers-6-heads-accuracy:.3f`, and raw attention agrees with leave-one-out
# by $\tau$ = {glue:text}`attexp-arm-2-layers-1-head-tau:.2f`,
# {glue:text}`attexp-arm-2-layers-3-heads-tau:.2f` and
# {glue:text}`attexp-arm-2-layers-6-heads-tau:.2f`. The number of heads makes no difference that
# three seeds could show.
#
# **Layers.** They do. One layer: {glue:text}`attexp-arm-1-layer-3-heads-tau:.2f` ±
# {glue:text}`attexp-arm-1-layer-3-heads-sd:.2f`; two:
# {glue:text}`attexp-arm-2-layers-3-heads-tau:.2f` ±
# {glue:text}`attexp-arm-2-layers-3-heads-sd:.2f`; three:
# {glue:text}`attexp-arm-3-layers-3-heads-tau:.2f` ±
# {glue:text}`attexp-arm-3-layers-3-heads-sd:.2f`. All seeds of the three groups lie apart
# ({numref}`fig-attention-is-not-explanation-structure`). Step 1 suggests why: with every layer the
# tokens that the last one attends to are more of a mixture, and “token $j$” means less and less
# “word $j$”. Rollout unmixes part of it: there the three are
# {glue:text}`attexp-arm-1-layer-3-heads-rollout:.2f` (with one layer rollout only adds to [CLS]'s own
# entry, and ranks words as raw attention does),
# {glue:text}`attexp-arm-2-layers-3-heads-rollout:.2f` and
# {glue:text}`attexp-arm-3-layers-3-heads-rollout:.2f`.
#
# **A trade-off?** For one, a more accurate model would have to be a less explicable one, or the other
# way round. But accuracy hardly varies: {glue:text}`attexp-arm-1-layer-3-heads-accuracy:.3f`,
# {glue:text}`attexp-arm-2-layers-3-heads-accuracy:.3f` and
# {glue:text}`attexp-arm-3-layers-3-heads-accuracy:.3f` for one, two and three layers. Over all
# {glue:text}`attexp-models:.0f` models the $\tau$ between accuracy and agreement is
# {glue:text}`attexp-across-attention:.2f` for attention and {glue:text}`attexp-across-rollout:.2f` for
# rollout, where chance has a standard deviation of {glue:text}`attexp-across-chance:.2f` (and models
# of one structure are not independent draws). Here nothing was traded: depth bought no accuracy on
# this task, and cost the map much of its agreement. Where depth does pay, the question is open; this
# measurement cannot answer it.
#
# What all this is *not*: one task, one size, English docstrings of eight modules, texts of at most 32
# tokens, and leave-one-out as the only judge.

# %% [markdown]
# ## Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “Attention shows why the model answered so.” | It is one factor of two {eq}`eq-attention-is-not-explanation-felt`. Here it agrees with leave-one-out better than chance, and far from fully. | {cite}`jain2019` (§4.1); {numref}`fig-attention-is-not-explanation-agreement` |
# | “Attention is no explanation, that is proven.” | Other weights with the same output exist for long texts {eq}`eq-attention-is-not-explanation-freedom`; that a model would produce them is another claim. | {cite}`wiegreffe2019` (§4) |
# | “New structures are (or are not) interpretable.” | No such law. Of five structures measured, depth mattered, heads did not, and accuracy was the same: {numref}`fig-attention-is-not-explanation-structure`. | “What structure changes” |
# | “Rollout takes the whole network into account.” | It takes weights and the residual stream; values, $W^O$, feed-forward and norms are left out. | {cite}`abnar2020` (§3), step 2 |

# %% [markdown]
# ## Broken on purpose
#
# :::{admonition} Broken on purpose D58: rollout without the residual
# :class: broken
# Multiply the raw weights of all layers. Each product of rows that are all positive brings rows
# closer together: after a few layers every token seems to consist of the same mixture, and of
# itself no token keeps a trace. The picture looks plausible, evenly purple.
# :::


# %%
def without_residual(weights):
    return attention_rollout(weights, residual=0.0)


def tokens_keep_apart(rollout):
    weights = torch.randn(
        6,
        1,
        4,
        12,
        12,
        generator=torch.Generator().manual_seed(0),
        dtype=double,
    ).softmax(-1)
    rolled = rollout(weights)[0]
    spread = torch.cdist(rolled, rolled, p=1).max().item() / 2
    assert spread > 1e-2, (
        f"after 6 layers all {len(rolled)} rows are equal to within "
        f"{spread:.1e}"
    )
    return spread


glue("attexp-d58", tokens_keep_apart(attention_rollout))
catches(
    "D58", tokens_keep_apart, broken=without_residual, fixed=attention_rollout
)

# %% [markdown]
# With it, two rows are up to {glue:text}`attexp-d58:.3f` apart, by
# {eq}`eq-attention-is-not-explanation-memory`. **Fix:** $(A + I)/2$ wherever the layer has a residual
# connection. (How large the residual's share really is depends on norms of vectors; one half is a
# convention.)
#
# :::{admonition} Broken on purpose D59: the brightest word is the reason
# :class: broken
# A key draws nine tenths of the attention, and its value is the zero vector: it says “nothing to
# see here” and the head uses it as a place to rest. Read the map as importance, and the word with no
# influence whatever comes first. A separator or a full stop often is such a key.
# :::


# %%
def resting_place():
    """A head, one query and six keys; key 0 has most weight and no value."""
    torch.manual_seed(0)
    attend = MultiHeadAttention(8, 1).double().eval()
    keys = torch.randn(1, 6, 8, dtype=double)
    u = keys[0, 0] / keys[0, 0].norm()
    with torch.no_grad():
        for projection in (attend.query_projection, attend.key_projection):
            projection.weight.copy_(torch.eye(8))
        W = attend.value_projection.weight
        W -= (W @ u)[:, None] * u  # values forget the direction of key 0
    keys[0, 0] = 3 * u
    return attend, 5 * u[None, None], keys


def weights_as_importance(attend, query, keys):
    return attend(query, keys, return_weights=True)[1][0, 0, 0]


def norms_as_importance(attend, query, keys):
    return attention_norms(attend, query, keys)[0, 0]


def the_first_word_has_an_effect(importance):
    attend, query, keys = resting_place()
    with torch.no_grad():
        score = importance(attend, query, keys)
        first, share = int(score.argmax()), (score.max() / score.sum()).item()
        value = attend.value_projection(keys[0, first])
        added = attend.output_projection(value).norm().item()
    assert added > 1e-9, (
        f"key {first} has {share:.2f} of the importance, and its value adds a "
        f"vector of length {added:.0e}"
    )


catches(
    "D59",
    the_first_word_has_an_effect,
    broken=weights_as_importance,
    fixed=norms_as_importance,
)

# %% [markdown]
# **Fix:** look at what is added, $\lVert \alpha v W^O \rVert$, before a weight is called important;
# and take the word away, before it is called a reason.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} Roll it out
# :label: ex-attention_is_not_explanation-rollout
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `rollout(weights)`: weights (layers, h, n, n) of one text, the first layer first; return the
# (n, n) matrix $R$ of {eq}`def-attention-is-not-explanation-rollout` with $r = \frac12$.
#
# ```{dropdown} Hint
# Average over heads, add the identity, halve. The first layer acts first, so it stands on the right.
# ```


# %% tags=["exercise-stub"]
def rollout(weights):
    raise NotImplementedError


grade("ex-attention_is_not_explanation-rollout", rollout)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention_is_not_explanation-rollout
# :class: dropdown
# ```


# %% tags=["solution"]
def rollout(weights):
    n = weights.shape[-1]
    rolled = torch.eye(n, dtype=weights.dtype)
    for layer in weights:
        rolled = (
            (layer.mean(0) + torch.eye(n, dtype=weights.dtype)) / 2 @ rolled
        )
    return rolled


grade("ex-attention_is_not_explanation-rollout", rollout)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} How free are the weights?
# :label: ex-attention_is_not_explanation-freedom
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `freedom(values)`: for one head's values (n, d_v), the number of dimensions in which a row of
# weights can move without changing its sum or the output.
#
# ```{dropdown} Hint
# {eq}`eq-attention-is-not-explanation-freedom`. The bound is attained only if the rank is full; two
# equal values give a dimension more.
# ```


# %% tags=["exercise-stub"]
def freedom(values):
    raise NotImplementedError


grade("ex-attention_is_not_explanation-freedom", freedom)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention_is_not_explanation-freedom
# :class: dropdown
# ```


# %% tags=["solution"]
def freedom(values):
    n = len(values)
    conditions = torch.cat(
        [values, torch.ones(n, 1, dtype=values.dtype)], dim=1
    )
    return n - int(torch.linalg.matrix_rank(conditions))


grade("ex-attention_is_not_explanation-freedom", freedom)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} To the first wall
# :label: ex-attention_is_not_explanation-wall
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `to_the_wall(weights, direction)`: go from `weights` (n,) along `direction` (n,), whose
# entries sum to zero, as far as no weight falls below zero; return the weights there.
#
# ```{dropdown} Hint
# Only falling weights meet a wall, weight $j$ after $\alpha_j / (-\delta_j)$
# {eq}`eq-attention-is-not-explanation-reach`. The first wall counts.
# ```


# %% tags=["exercise-stub"]
def to_the_wall(weights, direction):
    raise NotImplementedError


grade("ex-attention_is_not_explanation-wall", to_the_wall)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention_is_not_explanation-wall
# :class: dropdown
# ```


# %% tags=["solution"]
def to_the_wall(weights, direction):
    falling = direction < 0
    reach = (weights[falling] / -direction[falling]).min()
    return (weights + reach * direction).clamp(min=0)


grade("ex-attention_is_not_explanation-wall", to_the_wall)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} What the answer feels
# :label: ex-attention_is_not_explanation-felt
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `felt(weights, values, slope)`: weights (n,) that a softmax has made, values (n, d_v), and
# $\partial f / \partial o$ as `slope` (d_v,). Return $\partial f / \partial s_j$ of each score, (n,),
# without autograd.
#
# ```{dropdown} Hint
# {eq}`eq-attention-is-not-explanation-felt`. The mean is weighted.
# ```


# %% tags=["exercise-stub"]
def felt(weights, values, slope):
    raise NotImplementedError


grade("ex-attention_is_not_explanation-felt", felt)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention_is_not_explanation-felt
# :class: dropdown
# ```


# %% tags=["solution"]
def felt(weights, values, slope):
    gain = values @ slope
    return weights * (gain - (weights * gain).sum())


grade("ex-attention_is_not_explanation-felt", felt)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Agreement of two orders
# :label: ex-attention_is_not_explanation-tau
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `tau(a, b)`: Kendall's $\tau$ of two lists of scores (n,) without ties, a number.
#
# ```{dropdown} Hint
# `a[:, None] - a[None, :]` has each pair twice, with opposite signs, and so has the other; products
# of signs are equal then. {eq}`def-attention-is-not-explanation-tau` counts each pair once.
# ```


# %% tags=["exercise-stub"]
def tau(a, b):
    raise NotImplementedError


grade("ex-attention_is_not_explanation-tau", tau)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-attention_is_not_explanation-tau
# :class: dropdown
# ```


# %% tags=["solution"]
def tau(a, b):
    n = len(a)
    signs = (a[:, None] - a).sign() * (b[:, None] - b).sign()
    return float(signs.sum()) / (n * (n - 1))


grade("ex-attention_is_not_explanation-tau", tau)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - Rollout multiplies weights and residual stream up {eq}`def-attention-is-not-explanation-rollout`.
#   In a model that only mixes it is exact {eq}`eq-attention-is-not-explanation-exact`: a sum over
#   paths {eq}`eq-attention-is-not-explanation-paths`, whose rows stay probabilities
#   {eq}`eq-attention-is-not-explanation-stochastic`.
# - A real layer also has values, $W^O$, a feed-forward network, norms, and weights that move. Each was
#   put back and measured.
# - A head is a summand {eq}`eq-attention-is-not-explanation-ablation`. What is lost without it depends
#   on which others are there.
# - From $d_v + 2$ tokens on a head's output does not determine its weights
#   {eq}`eq-attention-is-not-explanation-freedom`, and a walk along walls finds others with the same
#   output {eq}`eq-attention-is-not-explanation-corner`. Below that it may determine them.
# - The answer feels $\alpha_{ij}(g_{ij} - \bar g_i)$ {eq}`eq-attention-is-not-explanation-felt`: the
#   weight is one factor of two.
# - Agreement of orders has a chance level, and for one sentence it is wide
#   {eq}`eq-attention-is-not-explanation-chance`. Over a hundred texts and several models attention
#   agreed with leave-one-out better than chance, and no measure agreed fully.
# - Attention is used by a model that was trained with it, and not needed by this task. A trained
#   adversary answers as well and looks elsewhere.
# - Depth, not the number of heads, costs raw attention its agreement, at equal accuracy; rollout mends
#   part of it. A law of “structure against interpretability” was not found.
#
# ## Sources
#
# - {cite:t}`abnar2020`, §3: attention rollout and attention flow.
# - {cite:t}`jain2019`, §4.1: correlation with gradients and leave-one-out; §4.2: permuted and
#   adversarial weights.
# - {cite:t}`wiegreffe2019`, §3.2: uniform weights; §3.3: variance over seeds; §3.4: guiding a simpler
#   model; §4: a trained adversary.
# - {cite:t}`brunner2020`: weights are not identifiable where texts are longer than heads are wide.
# - {cite:t}`kobayashi2020`: norms of the weighted vectors, and BERT's attention to special tokens.
# - {cite:t}`michel2019`: heads that can go. {cite:t}`clark2019`: what BERT's heads attend to.
# - {cite:t}`kendall1938`: the rank correlation, and its variance by chance.
