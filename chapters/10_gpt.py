# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       Take a text, cover what follows, guess the next token, uncover it, go on. That is all that a
#       GPT is trained to do. Why is this guessing game the exact probability of whole texts, how does
#       one pass train a thousand guesses at once, and how does a guesser come to write?
#     goals:
#       - derive the loss from the chain rule, its gradient, and where it begins
#       - prove that a causal mask makes one pass equal to n separate ones, and a cache equal to none
#       - say why a residual stream grows with depth, and what GPT-2 divides by
#       - derive temperature, top-k and the nucleus, and say what each of them throws away
#       - pre-train on real text, fine-tune with the paper's two losses, and judge both against baselines
#     prerequisites:
#       - scaled dot-product attention and the causal mask (chapter 2)
#       - heads (chapter 3) and learned positions (chapter 4)
#       - logarithms, and the entropy of a distribution
#     data: >-
#       The language reference that ships inside Python itself (pydoc_data.topics), and the docstrings
#       of its standard library; no download.
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
# # GPT: predicting the next token

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
import itertools
import lzma
import math
import tempfile
import zlib

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from lib.activations import gelu
from lib.cache import KVCache
from lib.data import (
    CharacterVocabulary,
    consecutive_windows,
    docstrings,
    random_windows,
    topics_paragraphs,
    topics_text,
)
from lib.generation import greedy, keep_top_k, keep_top_p, sample
from lib.layers import EncoderLayer
from lib.losses import causal_lm_loss, masked_lm_loss
from lib.models.gpt2 import GPT2, GPT2Config
from lib.teaching import (
    Progress,
    Sampling,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS, heatmap
from lib.teaching.finetuning import accuracy, fine_tune, pack
from lib.teaching.recorded import recorded
from lib.tokenization import train_wordpiece
from lib.training import evaluate, fit

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# A text is a row of tokens $x_0, x_1, \dots, x_{n-1}$. A *language model* gives every text a
# probability. A *causal* one does so from left to right: it reads the tokens before place $t$ and
# spreads a probability of one over all $V$ tokens that might stand there. Nothing is lost by going
# in this order, for every joint distribution is such a product:
#
# $$
# p(x_1, \dots, x_{n-1} \mid x_0) = \prod_{t=1}^{n-1} p(x_t \mid x_0, \dots, x_{t-1}) .
# $$ (eq-gpt-chain)
#
# GPT's factors come from one Transformer. It turns the tokens up to $t - 1$ into a row of logits
# $z_{t-1}$, one number for each token, and a softmax makes them a distribution:
#
# $$
# p(x_t = v \mid x_{<t}) = \operatorname{softmax}(z_{t-1})_v .
# $$ (def-gpt-model)
#
# Training makes the texts that there are probable. The logarithm of a product is a sum, and a mean
# does not depend on how long a text is, so the loss is
#
# $$
# L = -\frac{1}{n-1} \sum_{t=1}^{n-1} \log \operatorname{softmax}(z_{t-1})_{x_t} .
# $$ (def-gpt-loss)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $x$ | $n$ | the tokens of a text, numbers from $0$ to $V - 1$ |
# | $z$ | $n \times V$ | logits; row $t - 1$ is the guess at token $t$ |
# | $p$ | $n \times V$ | their softmax, row by row |
# | $d$ | a number | features of a token inside the model, `d_model` |
# | $N$ | a number | layers; each feeds the residual stream twice |
# | $T, k, \tau$ | numbers | temperature, top-k, and the share that top-p keeps |
#
# The labels of this loss are the text itself, one place on. Nobody has to write them. That is why a
# GPT can be trained on any text there is.
#
# We check the first formula where everything can be listed. Let $V = 3$ and $n = 4$, and draw any
# joint distribution of the four tokens. Its conditionals, multiplied, give it back.

# %%
rng = torch.Generator().manual_seed(0)
joint = torch.rand(3, 3, 3, 3, generator=rng, dtype=double)
joint = joint / joint.sum()  # p(x_0, x_1, x_2, x_3), any whatever
product, begins = torch.ones_like(joint), joint  # p(x_0, …, x_t), t = 3
for t in (3, 2, 1):
    before = begins.sum(dim=t, keepdim=True)  # p(x_0, …, x_{t−1})
    product = product * (begins / before)
    begins = before
given_first = joint / joint.sum(dim=(1, 2, 3), keepdim=True)
check("eq-gpt-chain", product, given_first)

# %% [markdown]
# ## Derivation
#
# Ten steps. The first four are about the loss, the next four about the model and how it is read,
# the last two about writing.
#
# ### Step 1. The likelihood is exact
#
# Let a model of whatever weights give the factors. Each row of {eq}`def-gpt-model` sums to one
# over its own token. Sum the product {eq}`eq-gpt-chain` over all texts, the last token first: its
# factor is the only one that holds it, and sums to one; then the one before, and so on. So
#
# $$
# \sum_{x_1, \dots, x_{n-1}} \prod_{t=1}^{n-1} \operatorname{softmax}(z_{t-1})_{x_t} = 1 .
# $$ (eq-gpt-normalised)
#
# The model is a probability distribution over texts, and no constant has to be estimated. This
# needs one thing: $z_{t-1}$ must not depend on $x_t$ or on anything later. If it did, the inner sum
# would not run over one fixed distribution. We list all texts of five tokens over a vocabulary of
# four, for a small GPT-2 with random weights, with the causal mask and without.


# %%
def tiny(V=4, d=16, L=2, n=8, std=0.5, seed=0, **options):
    torch.manual_seed(seed)
    config = GPT2Config(
        V,
        d_model=d,
        num_layers=L,
        num_heads=2,
        max_length=n,
        init_std=std,
        eos_token_id=None,
        **options,
    )
    return GPT2(config).double().eval()


def without_mask(model):
    """The same weights, but every token sees all of them."""
    open_model = copy.deepcopy(model)
    for layer in open_model.layers:
        step = layer.forward
        layer.forward = lambda x, mask=None, causal=True, cache=None, f=step: (
            f(x, mask, causal=False)
        )
    return open_model


def total_probability(model):
    rest = torch.tensor(list(itertools.product(range(4), repeat=4)))
    texts = torch.cat([torch.zeros(len(rest), 1, dtype=torch.long), rest], 1)
    with torch.no_grad():
        log_p = -causal_lm_loss(model(texts), texts, reduction="none")
    return log_p.sum(-1).exp().sum()


small = tiny()
check("eq-gpt-normalised", total_probability(small), 1.0)
spoiled = total_probability(without_mask(small)).item()
glue("gpt-total-open", spoiled)
check("without the mask it sums to something else", abs(spoiled - 1) > 0.01)

# %% [markdown]
# With the mask the {glue:text}`gpt-texts-listed:.0f` texts have a probability of one together.
# Without it the same weights give {glue:text}`gpt-total-open:.2f`: the numbers are no probabilities
# of anything.
#
# ### Step 2. Nats, bits, perplexity
#
# The loss {eq}`def-gpt-loss` is in *nats*, for its logarithm is the natural one. Divided by $\ln 2$
# it is in *bits*. An arithmetic coder that is given the model's distributions writes a text in
# $-\log_2 p$ bits, and at most two more for all of it, so bits a character say how well a model
# would compress. That is how we shall compare it with zlib and xz. *Perplexity* is
#
# $$
# e^{L} = \Big( \prod_{t=1}^{n-1} \frac{1}{p(x_t \mid x_{<t})} \Big)^{1/(n-1)} ,
# $$ (eq-gpt-perplexity)
#
# the geometric mean of $1/p$: a model of perplexity 8 is on average as unsure as one that chooses
# among 8 equal tokens. It depends on what a token is. Bits a *character* do not, which makes them
# the fairer number.
#
# What is the best that can be done? Let the true distribution of the next token be $q$, and the
# model's $p$. The expected loss is the cross-entropy. Add and subtract $\sum q \log q$:
#
# $$
# -\sum_v q_v \log p_v = \underbrace{-\sum_v q_v \log q_v}_{H(q)}
# + \underbrace{\sum_v q_v \log\frac{q_v}{p_v}}_{\mathrm{KL}(q \,\|\, p) \,\ge\, 0} .
# $$ (eq-gpt-cross-entropy)
#
# The divergence is zero only for $p = q$. So the loss is least for the true conditionals, and what
# is left then, the entropy, is what nobody could know. A loss below the entropy of a source is no
# triumph; it is a leak (D14).

# %%
glue("gpt-texts-listed", 4**4)
ids = torch.tensor([[0, 3, 1, 2, 2]])
with torch.no_grad():
    p = small(ids).softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    loss = causal_lm_loss(small(ids), ids)
check("eq-gpt-perplexity", loss.exp(), (1 / p).prod() ** (1 / 4))
check("def-gpt-loss, written out", loss, -p.log().mean())

q, p = torch.rand(2, 11, generator=rng, dtype=double).softmax(-1)
entropy, kl = -(q * q.log()).sum(), (q * (q / p).log()).sum()
check("eq-gpt-cross-entropy", -(q * p.log()).sum(), entropy + kl)
check("the divergence is positive", kl > 0)

# %% [markdown]
# ### Step 3. The gradient is a surplus of probability
#
# One term of the loss is $-z_y + \log \sum_v e^{z_v}$, where $y$ is the token that came. Derive it
# by one logit $z_v$: the first part gives $-1$ if $v = y$, the second $e^{z_v} / \sum_u e^{z_u} =
# p_v$. With the mean in front,
#
# $$
# \frac{\partial L}{\partial z_{t-1, v}} = \frac{1}{n-1}\, \big( p_{t-1, v} - [\, v = x_t \,] \big) ,
# \qquad
# \frac{\partial L}{\partial z_{n-1, v}} = 0 .
# $$ (eq-gpt-gradient)
#
# The gradient is what the model believes, minus what came. Every logit is pushed down by its
# probability, and that of the right token up by one. The sum over $v$ is zero. The label is the token of
# the *next* place, and the last row has no label: its guess is what we read off when writing.

# %%
z = torch.randn(5, 7, generator=rng, dtype=double).requires_grad_()
x = torch.tensor([4, 0, 6, 6, 2])
causal_lm_loss(z, x).backward()
onehot = F.one_hot(x[1:], 7).double()  # the tokens one place on
want = torch.zeros(5, 7, dtype=double)
want[:-1] = (z.detach().softmax(-1)[:-1] - onehot) / 4
check("eq-gpt-gradient", z.grad, want)
check("each row of the gradient sums to zero", z.grad.sum(-1), 0.0)

# %% [markdown]
# ### Step 4. Where it begins
#
# A model that knows nothing gives each of the $V$ tokens the probability $1/V$, and its loss is
# $\ln V$, or $\log_2 V$ bits. How near is a fresh one? Let its logits be independent of the label,
# normal with mean 0 and a small variance $s^2$. The loss is $-z_y + \log \sum_v e^{z_v}$. The first
# part has mean zero. In the second, the mean of $e^{z_v}$ is $e^{s^2/2}$, and for a large $V$ the
# sum is near $V$ times that:
#
# $$
# \operatorname{E} L \approx \ln V + \frac{s^2}{2} .
# $$ (eq-gpt-start)
#
# So a first loss well above $\ln V$ says that the first logits are too large. It is the cheapest
# test there is: one batch, before any training.

# %%
draws, V = 400, 1000
for s in (0.1, 0.5, 1.0):
    z = s * torch.randn(draws, V, generator=rng, dtype=double)
    y = torch.randint(V, (draws,), generator=rng)
    found = F.cross_entropy(z, y).item()
    expected = math.log(V) + s * s / 2
    print(f"s = {s:3}: mean loss {found:.3f}, expected {expected:.3f}")
    check("eq-gpt-start", found, expected, atol=4 * s / math.sqrt(draws))

# %% [markdown]
# The normal logits are a hypothesis, and GPT's head breaks it. Its output words *are* its input
# words (step 6). At the start the residual stream still holds much of the word that was read, and
# so the logit of that same word stands out. The larger the first weights, the more so.

# %%
first_loss, own_logit = {}, {}
for name, std in [("0.02", 0.02), ("1/√d", 64**-0.5)]:
    fresh = tiny(V=103, d=64, n=64, std=std)
    noise = torch.randint(103, (8, 64), generator=rng)
    with torch.no_grad():
        z = fresh(noise)
    first_loss[name] = causal_lm_loss(z, noise).item()
    own_logit[name] = z.gather(-1, noise[..., None]).mean().item()
    print(
        f"std {name:5} first loss {first_loss[name]:.3f} "
        f"(ln V = {math.log(103):.3f}), logit of the word read "
        f"{own_logit[name]:5.2f}, of all {z.mean():5.2f} ± {z.std():.2f}"
    )
glue("gpt-first-small", first_loss["0.02"])
glue("gpt-first-large", first_loss["1/√d"])
glue("gpt-own-large", own_logit["1/√d"])
check("std .02 begins at ln V", first_loss["0.02"], math.log(103), atol=0.05)
check("std 1/√d begins above", first_loss["1/√d"] > math.log(103) + 0.3)
check("and repeats what it reads", own_logit["1/√d"] > 3)

# %% [markdown]
# With GPT-2's standard deviation of .02 the first loss is {glue:text}`gpt-first-small:.3f` nats, at
# $\ln V$. With $1/\sqrt{d}$ it is {glue:text}`gpt-first-large:.2f`, as the model believes that the
# same character comes again, by a logit of {glue:text}`gpt-own-large:.1f`. It looks like the worse
# beginning. On real text we shall measure which of the two trains better, and find the reverse: a
# few dozen steps unlearn the copying.
#
# ### Step 5. One pass, n guesses
#
# To train on a text of $n$ tokens, must we run the model on each of its beginnings? Under a causal
# mask we need not. In one layer the output at place $t$ is made from the query at $t$ and from keys
# and values at places up to $t$ (chapter 2); all else, norms, linear maps and the feed-forward
# network, works on each place alone. So if the inputs at places up to $t$ do not depend on later
# tokens, neither do the outputs up to $t$. The first inputs, word plus place, do not. By induction
# over the layers,
#
# $$
# z_t(x_0, \dots, x_{n-1}) = z_t(x_0, \dots, x_t) \qquad \text{for every } t < n .
# $$ (eq-gpt-parallel)
#
# One pass over $n$ tokens gives the $n$ rows that $n$ passes over $1, 2, \dots, n$ tokens would
# give, and each of them is one guess to learn from. Counting tokens read, that is $n$ in place of
# $n(n+1)/2$. We run both.

# %%
model = tiny(V=13, n=12)
ids = torch.randint(13, (1, 12), generator=rng)
with torch.no_grad():
    at_once = model(ids)[0]
    one_by_one = torch.stack(
        [model(ids[:, : t + 1])[0, -1] for t in range(12)]
    )
    open_gap = (
        (without_mask(model)(ids)[0] - one_by_one).abs().max().item()
    )
check("eq-gpt-parallel", at_once, one_by_one)
check("without a mask they differ", open_gap > 0.1)


def touched(model, ids):
    """How far each logit row moves by each input vector, (n, n)."""
    x = model.word(ids).detach().requires_grad_()
    hidden = model.position(x)
    for layer in model.layers:
        hidden = layer(hidden, None, causal=True)
    z = F.linear(model.norm(hidden), model.word.weight)[0]
    rows = []
    for t in range(len(z)):
        (g,) = torch.autograd.grad(z[t].sum(), x, retain_graph=True)
        rows.append(g[0].norm(dim=-1))
    return torch.stack(rows)


reach = touched(model, ids)
check("no logit feels the future", reach.triu(1), 0.0, atol=0)
check("each feels its past", reach.tril().gt(0).sum().item(), 12 * 13 // 2)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.2, 3.6))
mesh = heatmap(ax, reach / reach.amax(1, keepdim=True))
ax.set(xlabel="token that is read", ylabel="logits at place")
fig.colorbar(mesh, ax=ax, shrink=0.8)
show_figure(
    fig,
    name="fig-gpt-reach",
    caption="The size of the derivative of the logits at each place by the "
    "vector of each token, relative to the largest of the row, in a GPT-2 "
    "with random weights. Above the diagonal it is exactly zero.",
    alt="A heat map of twelve by twelve. The cells on the diagonal and below "
    "it are coloured, unevenly; all cells above the diagonal are blank.",
)

# %% [markdown]
# {numref}`fig-gpt-reach` shows the triangle. Behind every place stands one guess with its own
# label, and they all share the pass. A masked language model, which learns from the few tokens that
# it hides, has no such bargain (chapter 11).
#
# ### Step 6. The model
#
# GPT is the decoder of the Transformer without its cross-attention: there is no encoder to attend
# to. GPT-2 moves the norm in front of each sublayer and adds one at the end:
#
# $$
# \begin{aligned}
# h^{(0)}_t &= E[x_t] + P[t] \\
# a &= h^{(l)} + \operatorname{MHA}\!\big(\operatorname{LN}(h^{(l)})\big) \\
# h^{(l+1)} &= a + W_2\, \operatorname{gelu}\!\big(W_1 \operatorname{LN}(a) + b_1\big) + b_2 \\
# z &= \operatorname{LN}\!\big(h^{(N)}\big)\, E^\top .
# \end{aligned}
# $$ (def-gpt-architecture)
#
# - $P$ is a trained table, one row for each place (chapter 4). It ends where it ends, at 512 tokens
#   in GPT and 1024 in GPT-2.
# - MHA is attention of several heads under a causal mask (chapters 2 and 3).
# - The feed-forward network is four times as wide as the model, with GELU in its tanh form, which
#   `transformers` calls `gelu_new` (chapter 5).
# - The head is tied: the words that are read and those that are written are one matrix $E$.
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`radford2019` (§2.3) describes GPT-2 by its differences from GPT: layer normalisation is
# moved to the input of each sub-block, one more is added after the last block, the weights of
# residual layers are scaled at initialisation by $1/\sqrt{N}$, where $N$ is the number of residual
# layers, and context grows from 512 to 1024 tokens. GPT itself {cite}`radford2018` (§4.1) has twelve
# layers of 768 features and 12 heads, GELU, learned positions, and first weights from
# $\mathcal{N}(0, 0.02)$.
# :::
#
# :::{admonition} Our remark
# :class: remark
# Its $N$ is our $2N$, if a residual layer is one addition to the stream; so `transformers` reads it
# too. The number .02 belongs to a width of 768. What matters is the gain $\sigma\sqrt{d}$ of a
# square matrix with independent entries of standard deviation $\sigma$: .55 at that width, but .16
# at the 64 features of our small models.
# :::
#
# ### Step 7. Why a stream grows, and by how much
#
# In a pre-norm model the stream is a sum: the first vector, and what each of the $2N$ sublayers
# adds. A norm stands before each sublayer, so what it adds has a size that does not depend on how
# large the stream has become. Let each addition $f_i$ have mean zero and variance $s^2$ in a
# feature, and let them be uncorrelated with each other and with $h^{(0)}$. Variances then add:
#
# $$
# \operatorname{Var} h^{(N)} = \operatorname{Var} h^{(0)} + \sum_{i=1}^{2N} \operatorname{Var} f_i
# = v_0 + 2N s^2 .
# $$ (eq-gpt-depth)
#
# The stream grows with depth, and a late sublayer, whose addition is no larger than an early one's,
# has ever less of a say. Draw the last matrix of each sublayer $1/\sqrt{2N}$ as large. An addition
# is linear in it, so its variance falls by $1/(2N)$, and
#
# $$
# \operatorname{Var} h^{(N)} = v_0 + 2N \cdot \frac{s^2}{2N} = v_0 + s^2 ,
# $$ (eq-gpt-residual-scale)
#
# whatever the depth. Two hypotheses carry this: $s^2$ is one and the same, and nothing is
# correlated. Fresh independent weights with mean zero make the second exact on average. We test
# both, and break the second by giving all layers the same weights.


# %%
def stream(depth, scaled=True, shared=False, seed=0):
    """Mean squares of the stream behind each sum, and of what was added."""
    net = tiny(V=50, d=64, L=depth, n=32, std=64**-0.5, seed=seed)
    with torch.no_grad():
        for layer in net.layers:
            if shared:
                layer.load_state_dict(net.layers[0].state_dict())
            if not scaled:
                layer.attention.output_projection.weight *= (
                    2 * depth
                ) ** 0.5
                layer.feed_forward.contract.weight *= (2 * depth) ** 0.5
        ids = torch.randint(
            50, (4, 32), generator=torch.Generator().manual_seed(seed)
        )
        h = net.position(net.word(ids))
        total, added = [h.square().mean().item()], []
        for layer in net.layers:
            out = layer(h, None, causal=True)
            added.append((out - h).square().mean().item())
            h = out
            total.append(h.square().mean().item())
    return total, added


depths = [1, 2, 4, 8, 16, 32]
growth = {
    name: [stream(n, **options)[0][-1] for n in depths]
    for name, options in [
        ("1/√(2N)", {}),
        ("not scaled", {"scaled": False}),
        ("one layer's weights", {"scaled": False, "shared": True}),
    ]
}
total, added = stream(16, scaled=False)
check(
    "eq-gpt-depth",
    total[-1] / (total[0] + sum(added)),
    1.0,
    atol=0.15,
)
flat = growth["1/√(2N)"]
check("eq-gpt-residual-scale", flat[-1] / flat[2], 1.0, atol=0.25)
ratio = growth["not scaled"][-1] / growth["not scaled"][2]
check("without it the stream grows like depth", 5 < ratio < 11)
shared = growth["one layer's weights"][-1] / growth["one layer's weights"][2]
glue("gpt-growth", ratio)
glue("gpt-growth-flat", flat[-1] / flat[2])
glue("gpt-growth-shared", shared)
check("correlated additions grow faster", shared > 1.5 * ratio)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.3))
styles = [("o-", "query"), ("s--", "key"), ("^:", "value")]
for (name, values), (style, color) in zip(
    growth.items(), styles, strict=True
):
    ax.plot(depths, values, style, color=COLORS[color], label=name)
ax.set(
    xscale="log",
    yscale="log",
    xlabel="layers N",
    ylabel="mean square of the stream",
)
ax.set_xticks(depths, [str(n) for n in depths])
ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-gpt-depth",
    caption="The mean square of a feature behind the last layer of a fresh "
    "model, by depth. With GPT-2's factor it stays; without it, it grows in "
    "proportion to depth; with one layer's weights repeated, faster still.",
    alt="A log-log chart of three lines over 1 to 32 layers. One is almost "
    "flat, the second rises in proportion to the number of layers, the third "
    "rises more steeply than the second.",
)

# %% [markdown]
# From 4 layers to 32 the stream's mean square grows by a factor of {glue:text}`gpt-growth:.1f`
# without the scaling, where {eq}`eq-gpt-depth` says nearly 8, and of
# {glue:text}`gpt-growth-flat:.2f` with it ({numref}`fig-gpt-depth`). With the same weights in all
# layers the additions point the same way, and it is {glue:text}`gpt-growth-shared:.0f`. Training
# makes additions correlated too. The factor is about the *first* steps, and promises nothing later.
#
# ### Step 8. What need not be computed twice
#
# To write, the model is asked for one more token again and again. Put as in step 5 it would read
# all from the start each time. But by {eq}`eq-gpt-parallel` no vector of an earlier place changes
# when a token is appended, in any layer: neither do its keys and values. So keep them. The new
# token $t$ needs one query in each layer, against the kept keys and its own:
#
# $$
# o_t = \sum_{j \le t} \operatorname{softmax}_j\!\Big( \frac{q_t \cdot k_j}{\sqrt{d_k}} \Big) v_j ,
# \qquad k_j, v_j \ (j < t) \text{ from the cache} .
# $$ (eq-gpt-cache)
#
# Let us count for a text of $n$ tokens that begins with one. Without a cache the passes read
# $1, 2, \dots, n$ tokens; with one, each reads a single token. In one layer the pass over $t$ tokens
# has $t^2$ products of a query and a key, of which a causal mask uses $t(t+1)/2$; the cached one has
# $t$:
#
# $$
# \begin{aligned}
# \text{tokens read:} \quad & \sum_{t=1}^{n} t = \frac{n(n+1)}{2} && \text{against} && n \\
# \text{pairs:} \quad & \sum_{t=1}^{n} t^2 = \frac{n(n+1)(2n+1)}{6}
# && \text{against} && \sum_{t=1}^{n} t = \frac{n(n+1)}{2} .
# \end{aligned}
# $$ (eq-gpt-cache-work)
#
# The linear maps, where most of the work is, go from $n^2$ to $n$, and attention from $n^3$ to
# $n^2$. What is paid is memory: $2 N n d$ numbers. And the mask must be causal. Without one, an
# early key changes with every new token, and a cache would be wrong.


# %%
def counted(model, n, use_cache):
    """Greedy writing from one token; tokens read, pairs, and the text."""
    reads, pairs = [], []

    def note(module, inputs):
        x = inputs[0]
        cache = module.seen
        reads.append(x.shape[1])
        pairs.append(x.shape[1] * (cache + x.shape[1]))
        module.seen = cache + x.shape[1] if use_cache else 0

    layer = model.layers[0]
    layer.seen = 0
    handle = layer.register_forward_pre_hook(note)
    text = greedy(
        model,
        torch.zeros(1, 1, dtype=torch.long),
        max_new_tokens=n,
        use_cache=use_cache,
    )
    handle.remove()
    return sum(reads), sum(pairs), text


sizes = [8, 16, 32, 64, 128]
writer = tiny(V=13, n=128)
work = {}
for n in sizes:
    for use_cache in (True, False):
        work[n, use_cache] = counted(writer, n, use_cache)
    check(
        f"n = {n}: the same text",
        work[n, True][2],
        work[n, False][2],
        atol=0,
    )
    check(
        "eq-gpt-cache-work",
        [*work[n, False][:2], *work[n, True][:2]],
        [
            n * (n + 1) // 2,
            n * (n + 1) * (2 * n + 1) // 6,
            n,
            n * (n + 1) // 2,
        ],
        atol=0,
    )
with torch.no_grad():
    ids = torch.randint(13, (2, 20), generator=rng)
    cache = KVCache(20)
    parts = [writer(ids[:, t : t + 1], cache=cache) for t in range(20)]
    check("eq-gpt-cache", torch.cat(parts, 1), writer(ids))
glue("gpt-cache-reads", work[128, False][0])
glue("gpt-cache-pairs", work[128, False][1])
glue("gpt-cache-pairs-cached", work[128, True][1])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.3))
for use_cache, style, words in [(False, "s--", "no cache"), (True, "o-", "cache")]:
    for what, color, name in [(0, "query", "tokens"), (1, "key", "pairs")]:
        ax.plot(
            sizes,
            [work[n, use_cache][what] for n in sizes],
            style,
            color=COLORS[color],
            label=f"{name}, {words}",
        )
ax.set(xscale="log", yscale="log", xlabel="tokens written", ylabel="count")
ax.set_xticks(sizes, [str(n) for n in sizes])
ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=2)
show_figure(
    fig,
    name="fig-gpt-cache",
    caption="What one layer reads and multiplies while a text is written. The "
    "cached pairs lie on the uncached tokens: both are $n(n+1)/2$.",
    alt="A log-log chart of counts over tokens written. Pairs without a cache "
    "rise steepest; tokens without a cache and pairs with one coincide; "
    "tokens with a cache rise slowest.",
)

# %% [markdown]
# For 128 tokens the model reads {glue:text}`gpt-cache-reads:.0f` tokens without a cache and 128
# with one; pairs fall from {glue:text}`gpt-cache-pairs:.0f` to
# {glue:text}`gpt-cache-pairs-cached:.0f` ({numref}`fig-gpt-cache`). The logits agree to rounding, so
# greedy texts are equal. These are counts and no seconds: a pass over one token cannot fill a
# processor as one over many does, and reading the cache from memory costs time of its own.
