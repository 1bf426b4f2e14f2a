# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       Cover what follows in a text, guess the next token, uncover it, go on. That is all that a
#       GPT is trained to do. Why is this game the exact probability of whole texts, how does one
#       pass train a thousand guesses at once, and how does a guesser come to write?
#     goals:
#       - derive the loss from the chain rule, its gradient, and where it begins
#       - prove that a causal mask makes one pass equal to n separate ones, and a cache to none
#       - say why a residual stream grows with depth, and what GPT-2 divides by
#       - derive temperature, top-k and the nucleus, and say what each of them throws away
#       - pre-train on real text, fine-tune with the paper's two losses, and judge by baselines
#     prerequisites:
#       - scaled dot-product attention and the causal mask (chapter 2)
#       - heads (chapter 3) and learned positions (chapter 4)
#       - logarithms, and the entropy of a distribution
#     data: >-
#       The language reference that ships inside Python itself (pydoc_data.topics), and the
#       docstrings of its standard library; no download.
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
import textwrap
import zlib

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
import transformers

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
from lib.losses import causal_lm_loss, masked_lm_loss
from lib.models.gpt2 import GPT2, GPT2Config
from lib.teaching import (
    Progress,
    Sampling,
    catches,
    check,
    glue,
    grade,
    official,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS, heatmap
from lib.teaching.finetuning import (
    Classifier,
    accuracy,
    fine_tune,
    fine_tuning_loss,
    pack,
)
from lib.teaching.recorded import recorded
from lib.tokenization import Tokenizer, train_wordpiece
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
check("the loss, written out", loss, -p.log().mean())

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
# \begin{gathered}
# \frac{\partial L}{\partial z_{t-1, v}}
# = \frac{1}{n-1}\, \big( p_{t-1, v} - [\, v = x_t \,] \big) , \\
# \frac{\partial L}{\partial z_{n-1, v}} = 0 .
# \end{gathered}
# $$ (eq-gpt-gradient)
#
# The gradient is what the model believes, minus what came. Every logit is pushed down by its
# probability, and that of the right token up by one. The sum over $v$ is zero. The label is the
# token of the *next* place, and the last row has no label: its guess is what we read off when
# writing.

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
# sum of independent terms is near $V$ times their mean:
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
# Now two fresh GPT-2 of the size that we shall train. They differ in the standard deviation of
# their first weights alone.

# %%
first_loss, spread, own_logit = {}, {}, {}
for name, std in [("0.02", 0.02), ("1/√d", 64**-0.5)]:
    fresh = tiny(V=103, d=64, n=64, std=std)
    noise = torch.randint(103, (16, 64), generator=rng)
    with torch.no_grad():
        z = fresh(noise)
    first_loss[name] = causal_lm_loss(z, noise).item()
    spread[name] = z.std().item()
    own_logit[name] = z.gather(-1, noise[..., None]).mean().item()
    print(
        f"std {name:5} first loss {first_loss[name]:.3f}, expected "
        f"{math.log(103) + spread[name] ** 2 / 2:.3f}; logit of the\n"
        f"          word just read {own_logit[name]:.2f}, "
        f"of all words 0 ± {spread[name]:.2f}"
    )
    check(
        f"std {name}: the loss begins where it should",
        first_loss[name],
        math.log(103) + spread[name] ** 2 / 2,
        atol=0.15,
    )
glue("gpt-gain-released", 0.02 * GPT2Config().d_model ** 0.5)
glue("gpt-gain-small", 0.02 * 64**0.5)
glue("gpt-first-small", first_loss["0.02"])
glue("gpt-first-large", first_loss["1/√d"])
glue("gpt-own-small", own_logit["0.02"] / spread["0.02"])
check("a tied head knows the word it read", own_logit["0.02"] > 0.5)

# %% [markdown]
# With GPT-2's standard deviation of `0.02` the first loss is {glue:text}`gpt-first-small:.3f` nats,
# at $\ln V$. With $1/\sqrt{d}$ it is {glue:text}`gpt-first-large:.2f`, above it by the half
# variance of its logits. It looks like the worse beginning. On real text we shall measure which of
# the two trains better.
#
# The table shows one hypothesis broken: logits do depend on the text. GPT's output words *are* its
# input words (step 6), and at the start of the first model the stream is little else than the word
# that was read. Its own logit stands {glue:text}`gpt-own-small:.1f` standard deviations above the
# others'. On noise this costs next to nothing, as long as logits are small.
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
# \begin{gathered}
# z_t(x_0, \dots, x_{n-1}) = z_t(x_0, \dots, x_t) \\
# \text{for every } t < n .
# \end{gathered}
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
    "it are bright and dim, unevenly; all cells above the diagonal have the "
    "colour of zero.",
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
#   in GPT and 1024 in GPT-2 {cite}`radford2019` (§2.3).
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
# layers, and context grows from 512 to 1024 tokens. GPT itself {cite}`radford2018` (§4.1) has
# twelve layers of 768 features and 12 heads, GELU, learned positions, and first weights from
# $\mathcal{N}(0, 0.02)$.
# :::
#
# :::{admonition} Our remark
# :class: remark
# Its $N$ is our $2N$, if a residual layer is one addition to the stream; so `transformers` reads it
# too. And `0.02` belongs to a width. What matters is the gain $\sigma\sqrt{d}$ of a square matrix
# with independent entries of standard deviation $\sigma$: {glue:text}`gpt-gain-released:.2f` at the
# width of the smallest GPT-2, but {glue:text}`gpt-gain-small:.2f` at that of our small models.
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
# \begin{gathered}
# o_t = \sum_{j \le t} \operatorname{softmax}_j\!\Big( \frac{q_t \cdot k_j}{\sqrt{d_k}} \Big)
# v_j , \\
# k_j, v_j \ (j < t) \text{ from the cache} .
# \end{gathered}
# $$ (eq-gpt-cache)
#
# Let us count for a text of $n$ tokens that begins with one. Without a cache the passes read
# $1, 2, \dots, n$ tokens; with one, each reads a single token. In one layer the pass over $t$
# tokens has $t^2$ products of a query and a key, of which a causal mask uses $t(t+1)/2$; the cached
# one has $t$:
#
# $$
# \begin{aligned}
# \text{tokens read:} \quad & \sum_{t=1}^{n} t = \frac{n(n+1)}{2} \quad \text{against} \quad n \\
# \text{pairs:} \quad & \sum_{t=1}^{n} t^2 = \frac{n(n+1)(2n+1)}{6} \\
# & \text{against} \quad \sum_{t=1}^{n} t = \frac{n(n+1)}{2} .
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
glue("gpt-cache-n", 128)
glue("gpt-cache-reads", work[128, False][0])
glue("gpt-cache-pairs", work[128, False][1])
glue("gpt-cache-pairs-cached", work[128, True][1])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.3))
for what, color, name in [(1, "key", "pairs"), (0, "query", "tokens")]:
    for use_cache, style, words in [
        (True, "o-", "cache"),
        (False, "s--", "no cache"),
    ]:
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
# For {glue:text}`gpt-cache-n:.0f` tokens the model reads {glue:text}`gpt-cache-reads:.0f` without a
# cache and {glue:text}`gpt-cache-n:.0f` with one; pairs fall from {glue:text}`gpt-cache-pairs:.0f`
# to {glue:text}`gpt-cache-pairs-cached:.0f` ({numref}`fig-gpt-cache`). The logits agree to
# rounding, so greedy texts are equal. These are counts and no seconds: a pass over one token cannot
# fill a processor as one over many does, and reading the cache from memory costs time of its own.
#
# In a model as small as ours most of a token's time goes into starting operations, not into them.
# So `lib.generation` reads through `lib.stepper`, where it can: the same formula in fewer operations,
# with the three projections as one product. Whoever listens to a layer, as we did to count, makes it
# stand back, and the modules themselves are called.

# %% [markdown]
# ### Step 9. Temperature is an exponent
#
# A trained model gives a distribution; to write, draw from it. Before that one may divide the
# logits by a *temperature* $T > 0$. With $p = \operatorname{softmax}(z)$ we have
# $z_v = \log p_v + c$, with a $c$ that is the same for all tokens. Then
# $e^{z_v/T} = p_v^{1/T}\, e^{c/T}$, and the last factor stands above and below the line of the
# softmax. So
#
# $$
# \operatorname{softmax}(z / T)_v = \frac{p_v^{1/T}}{\sum_u p_u^{1/T}} .
# $$ (eq-gpt-temperature)
#
# Every ratio of probabilities is raised to the power $1/T$. Below one, the likely gain; above one,
# the unlikely do. The order never changes. For $T \to 0$ the most probable token takes all, and
# drawing becomes greedy choice; for $T \to \infty$ all tokens become equal.
#
# Is a higher temperature always *more* random? Write $\beta = 1/T$ and
# $A(\beta) = \log \sum_v e^{\beta z_v}$, and let mean and variance be those of $z_v$ when $v$ is
# drawn at that temperature,
# $\operatorname{E} z = \sum_v z_v\, e^{\beta z_v} / \sum_v e^{\beta z_v}$. The first derivative of
# $A$ is that very quotient. The second, by the quotient rule, is the mean of $z^2$ minus the square
# of the mean of $z$:
#
# $$
# A'(\beta) = \operatorname{E} z, \qquad
# A''(\beta) = \operatorname{E} z^2 - (\operatorname{E} z)^2 = \operatorname{Var} z .
# $$ (eq-gpt-log-partition)
#
# At this temperature $\log p_v = \beta z_v - A$, so the entropy is
# $H = -\operatorname{E} \log p = A - \beta A'$. By the product rule
# $\mathrm{d}H/\mathrm{d}\beta = A' - A' - \beta A'' = -\beta \operatorname{Var} z$, and as
# $\mathrm{d}\beta/\mathrm{d}T = -1/T^2$,
#
# $$
# \frac{\mathrm{d}H}{\mathrm{d}T} = \frac{\operatorname{Var} z}{T^3} \;\ge\; 0 .
# $$ (eq-gpt-entropy)
#
# So it is: entropy rises with temperature, strictly, unless all logits are equal.

# %%
z = 2 * torch.randn(9, generator=rng, dtype=double)
p = z.softmax(-1)
for T in (0.3, 1.0, 2.5):
    powers = p ** (1 / T)
    check("eq-gpt-temperature", (z / T).softmax(-1), powers / powers.sum())


def entropy_at(T, z):
    return torch.distributions.Categorical(logits=z / T).entropy()


beta = torch.tensor(0.7, dtype=double, requires_grad=True)
A = torch.logsumexp(beta * z, 0)
(slope,) = torch.autograd.grad(A, beta, create_graph=True)
(curve,) = torch.autograd.grad(slope, beta)
w = (0.7 * z).softmax(-1)
mean = (w * z).sum()
variance = (w * (z - mean) ** 2).sum()
check("eq-gpt-log-partition", [slope, curve], [mean, variance])

T = torch.tensor(1 / 0.7, dtype=double, requires_grad=True)
(slope,) = torch.autograd.grad(entropy_at(T, z), T)
check("eq-gpt-entropy", slope, variance / T.detach() ** 3)
check("cold is greedy", (z / 1e-3).softmax(-1).max(), 1.0)
check("hot is uniform", (z / 1e9).softmax(-1), 1 / 9, atol=1e-8)

# %% [markdown]
# ### Step 10. Cutting the tail
#
# A vocabulary has tens of thousands of tokens, and nearly all of them are wrong at nearly every
# place. Each has next to no probability. Together they have some, and a text of a few hundred
# tokens is sure to fall in. Once a wrong token stands there, the model must go on from it.
#
# **Top-k** keeps the $k$ most probable tokens {cite}`fan2018` (§5.4). **Top-p** keeps the *nucleus*
# {cite}`holtzman2020` (§3.1): the smallest set $S$ whose probability reaches a share $\tau$,
#
# $$
# S_\tau = \operatorname*{arg\,min}_{S} \Big\{ |S| \;:\; \sum_{v \in S} p_v \ge \tau \Big\} .
# $$ (def-gpt-nucleus)
#
# There are $2^V$ sets, and no search is needed. Among all sets of $m$ tokens, the $m$ most probable
# ones have the largest sum: exchange any other member for a missing one of these, and the sum does
# not fall. So if any set of size $m$ reaches $\tau$, the top $m$ do. Sort, add up, and stop at the
# first sum that is enough. Going down from the top, a token is kept if those *before* it have less
# than $\tau$:
#
# $$
# v \in S_\tau \iff \sum_{u \text{ before } v} p_u < \tau .
# $$ (eq-gpt-nucleus)
#
# What is kept must sum to one again, $q_v = p_v / m$ with the kept mass $m = \sum_{v \in S} p_v$.
# How far is that from the model?
#
# $$
# \mathrm{KL}(q \,\|\, p) = \sum_{v \in S} q_v \log \frac{p_v / m}{p_v} = -\log m .
# $$ (eq-gpt-cut)
#
# Only the mass counts. Top-p therefore bounds the change: by $-\log \tau$, at every place. Top-k
# does not: where the model is unsure, $k$ tokens may hold little, and where it is sure, most of the
# $k$ are tail.

# %%
p = (1.5 * torch.randn(8, generator=rng, dtype=double)).softmax(-1)
for tau in (0.3, 0.6, 0.9, 0.99):
    kept = keep_top_p(p.log(), tau).isfinite()
    sets = [
        s
        for m in range(1, 9)
        for s in itertools.combinations(range(8), m)
        if p[list(s)].sum() >= tau
    ]
    smallest = min(len(s) for s in sets)
    check("eq-gpt-nucleus", kept.sum().item(), smallest)
    check("and it reaches the share", p[kept].sum() >= tau)
    q = keep_top_p(p.log(), tau).softmax(-1)[kept]
    check("eq-gpt-cut", (q * (q / p[kept]).log()).sum(), -p[kept].sum().log())
    check("it moves by −ln τ at most", p[kept].sum().log() >= math.log(tau))

# %% [markdown]
# Two contexts show the difference. In the first one token is nearly certain; in the second a
# hundred are almost equally good. We cut both by $k = 10$ and by $\tau = 9/10$.

# %%
slope = torch.linspace(1.01, 0.99, 1000, dtype=double)
sure = 0.02 / 999 * slope
sure[0] = 0.98
unsure = 0.1 / 900 * slope
unsure[:100] = 0.9 / 100 * torch.linspace(1.02, 0.99, 100, dtype=double)
for name, p, size in [("sure", sure, 1), ("unsure", unsure, 100)]:
    p = p / p.sum()
    k_kept = keep_top_k(p.log(), 10).isfinite()
    p_kept = keep_top_p(p.log(), 0.9).isfinite()
    print(
        f"{name:7} top-k keeps {int(k_kept.sum()):3} with {p[k_kept].sum():.3f}, "
        f"top-p keeps {int(p_kept.sum()):3} with {p[p_kept].sum():.3f}"
    )
    check(f"{name}: top-k keeps ten", k_kept.sum().item(), 10)
    check(f"{name}: the nucleus", p_kept.sum().item(), size, atol=1)

# %% [markdown]
# Where one token is nearly certain, top-k leaves nine of the tail. Where a hundred are good, it
# throws nine tenths of the probability away. The nucleus fits itself to both.
#
# **The order matters.** `sample` divides by the temperature first, then takes $k$, then the nucleus
# of what is left. Cut first and heat afterwards, and other tokens survive.

# %%
p = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=double)
heated_first = keep_top_p(p.log() / 2, 0.8).isfinite().sum().item()
cut_first = keep_top_p(p.log(), 0.8).isfinite().sum().item()
print(f"T = 2, then top-p .8: {heated_first} tokens; top-p .8 first: {cut_first}")
check("heating first keeps more", heated_first > cut_first)

# %% [markdown]
# ## From scratch
#
# A language model that can be followed by hand: the next character depends on the last one alone.
# The text has eighteen characters. Count which follows which, divide each row by its sum, and that
# is the most likely model of this kind, for its loss is a sum of cross-entropies, one a row, and
# each is least where $p = q$ {eq}`eq-gpt-cross-entropy`.

# %%
sentence = "to be or not to be"
letters = sorted(set(sentence))
counts = {a: dict.fromkeys(letters, 0) for a in letters}
for a, b in itertools.pairwise(sentence):
    counts[a][b] += 1
print("     " + "    ".join(c.replace(" ", "␣") for c in letters))
table = {}
for a in letters:
    total = sum(counts[a].values())
    table[a] = {b: counts[a][b] / total for b in letters}
    cells = (f"{q:5.2f}" if q else "    ·" for q in table[a].values())
    print(a.replace(" ", "␣"), "".join(cells))

bits = [-math.log2(table[a][b]) + 0.0 for a, b in itertools.pairwise(sentence)]
for part in (bits[:9], bits[9:]):
    print("bits:", " ".join(f"{b:.2f}" for b in part))
by_hand = math.log(2) * sum(bits) / len(bits)
print(f"{sum(bits):.2f} bits in all, {by_hand:.4f} nats a character")

# %% [markdown]
# After a `b` comes an `e`, always: the guess costs nothing. After a space there are four
# possibilities, one of them twice. Now the same through the library, with logits $\log p$. A
# probability of zero becomes a logit of $-\infty$, which the softmax turns back into zero.

# %%
ids = torch.tensor([letters.index(c) for c in sentence])
log_table = torch.tensor(
    [[table[a][b] for b in letters] for a in letters], dtype=double
).log()
check("by hand = the library", causal_lm_loss(log_table[ids], ids), by_hand)
nudged = log_table.exp() + 0.02 * torch.rand(7, 7, generator=rng, dtype=double)
nudged = (nudged / nudged.sum(-1, keepdim=True)).log()
check("other tables do worse", causal_lm_loss(nudged[ids], ids) > by_hand)

# %% [markdown]
# ### GPT-2 in thirty lines
#
# Now the model {eq}`def-gpt-architecture`, from its equations, with plain matrix products. The
# weights are taken out of a library model, so that the two can be compared.


# %%
def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return weight * centred / (variance + eps).sqrt() + bias


def attention(x, w, prefix, heads):
    n, d = x.shape
    q, k, v = (
        (x @ w[f"{prefix}.{name}_projection.weight"].T)
        + w[f"{prefix}.{name}_projection.bias"]
        for name in ("query", "key", "value")
    )
    out = torch.zeros_like(x)
    size = d // heads
    for i in range(heads):
        part = slice(i * size, (i + 1) * size)
        scores = q[:, part] @ k[:, part].T / math.sqrt(size)  # (n, n)
        future = torch.ones(n, n).triu(1) == 1
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        out[:, part] = weights @ v[:, part]
    prefix = f"{prefix}.output_projection"
    return out @ w[f"{prefix}.weight"].T + w[f"{prefix}.bias"]


def tanh_gelu(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(inner))


def gpt2(ids, w, layers, heads):
    """Tokens (n,) to logits (n, V)."""
    x = w["word.weight"][ids] + w["position.weight"][: len(ids)]  # (n, d)
    for i in range(layers):
        at = f"layers.{i}"

        def norm(x, name, at=at):
            return layer_norm(x, w[f"{at}.{name}.weight"], w[f"{at}.{name}.bias"])

        x = x + attention(norm(x, "attention_norm"), w, f"{at}.attention", heads)
        ff = f"{at}.feed_forward"
        wide = norm(x, "feed_forward_norm") @ w[f"{ff}.expand.weight"].T
        wide = tanh_gelu(wide + w[f"{ff}.expand.bias"])
        x = x + wide @ w[f"{ff}.contract.weight"].T + w[f"{ff}.contract.bias"]
    return layer_norm(x, w["norm.weight"], w["norm.bias"]) @ w["word.weight"].T


ours = tiny(V=29, d=20, L=3, n=16)
with torch.no_grad():
    for parameter in ours.parameters():  # biases and norms too
        parameter += 0.2 * torch.randn(
            parameter.shape, generator=rng, dtype=double
        )
ids = torch.randint(29, (16,), generator=rng)
with torch.no_grad():
    got = gpt2(ids, ours.state_dict(), layers=3, heads=2)
    want = ours(ids[None])[0]
check("thirty lines = the library", got, want)
x = torch.linspace(-4, 4, 101, dtype=double)
check("this GELU is the tanh form", tanh_gelu(x), gelu(x, approximate="tanh"))
apart = (tanh_gelu(x) - gelu(x)).abs().max().item()
glue("gpt-gelu-gap", apart)
check("which is not the exact one", 1e-4 < apart < 1e-3)

# %% [markdown]
# The two forms of GELU differ by at most {glue:text}`gpt-gelu-gap:.5f`. A checkpoint was trained
# with one of them, and with the other its logits are a little off at every place: no error, only a
# slightly worse model. That is why parity is tested with weights large enough to show it.
#
# ## The library function
#
# The shift by one place is inside the loss. The labels are the input itself:
#
# ```{lib-source} lib.losses.causal_lm_loss
# ```
#
# The model is one file. Its layers are the `EncoderLayer` of chapter 6 with the norm in front and a
# causal mask; that GPT is called a *decoder* is about the mask.
#
# ```{lib-source} lib.models.gpt2.GPT2
# ```
#
# And this is the nucleus. The sort is stable, so equal tokens are kept in the order of their ids.
#
# ```{lib-source} lib.generation.keep_top_p
# ```

# %%
z = torch.randn(3, 40, generator=rng, dtype=double)
x = torch.randint(40, (3,), generator=rng)
check(
    "the loss = torch's, shifted",
    causal_lm_loss(z, x),
    F.cross_entropy(z[:-1], x[1:]),
)
padded = torch.tensor([[5, 3, 8, 8, 8]])
real = torch.tensor([[1, 1, 1, 0, 0]])
z = torch.randn(1, 5, 11, generator=rng, dtype=double)
check(
    "padding is not guessed",
    causal_lm_loss(z, padded.masked_fill(real == 0, -100)),
    causal_lm_loss(z[:, :3], padded[:, :3]),
)
with torch.device("meta"):
    released = GPT2(GPT2Config())
size = sum(p.numel() for p in released.parameters())
print(f"the smallest release: {size:,} parameters")
check("which is 124 million", size, 124_439_808)

# %% [markdown]
# ### The official GPT-2
#
# Is this GPT-2, or something like it? The library `transformers` holds the reference. We make a
# tiny model there, draw *every* weight afresh (fresh models have biases of zero and norms of one,
# which hide mistakes), save it as a checkpoint, and load it with ours. Then we compare three times:
# logits, greedy tokens, and text, with a tokenizer trained here on the language reference.

# %%
paragraphs = topics_paragraphs()
tokenizer = train_wordpiece(paragraphs[:200], vocab_size=400)
prompt = "the value of the expression"
encoded = tokenizer.encode(prompt)[1:-1]  # without BERT's [CLS] and [SEP]


def random_official(folder, V):
    """A tiny official GPT-2 with random weights, saved."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = transformers.GPT2Config(
        vocab_size=V,
        n_embd=24,
        n_layer=3,
        n_head=3,
        n_positions=40,
        bos_token_id=None,
        eos_token_id=None,
    )
    reference = transformers.GPT2LMHeadModel(config).double().eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in reference.named_parameters():
            noise = torch.randn(weight.shape, generator=draw, dtype=double)
            large = 0.4 if weight.ndim == 2 else 0.3
            ones = weight.ndim == 1 and name.endswith("weight")
            weight.copy_(large * noise + float(ones))
    reference.save_pretrained(folder)
    return reference


with tempfile.TemporaryDirectory() as folder:
    reference = random_official(folder, len(tokenizer))
    loaded = GPT2.from_pretrained(folder).double().eval()

# %%
ids = torch.tensor([encoded])
with torch.no_grad():
    want = reference(ids).logits
    got = loaded(ids)
    tokens = reference.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
    )
error = (got - want).abs().max() / want.abs().max()
check("logits = the official ones", error, 0.0, atol=1e-10)
written = greedy(loaded, ids, max_new_tokens=20)
check("greedy tokens = the official ones", written, tokens, atol=0)
texts = [tokenizer.decode(row) for row in (written[0], tokens[0])]
check("text = the official text", texts[0] == texts[1])
print(textwrap.fill(texts[0], 80))
with torch.no_grad():
    for layer in loaded.layers:
        layer.feed_forward.activation = "gelu"  # the exact form
    gap = (loaded(ids) - want).abs().max() / want.abs().max()
check("another GELU would show", gap > 1e-6)

# %% [markdown]
# The text is nonsense, word for word the same on both sides. Trained weights are a download, so the
# next cell runs on Colab alone. It loads the smallest release with the same call, and lets it
# write.

# %%
def model_and_tokenizer(repo_id):
    return GPT2.from_pretrained(repo_id), Tokenizer.from_pretrained(repo_id)


released = official(model_and_tokenizer, "openai-community/gpt2")
if released is not None:
    large, words = released[0].to(device).eval(), released[1]
    begin = torch.tensor([words.encode("The meaning of a formula is")])
    text = sample(
        large,
        begin.to(device),
        max_new_tokens=60,
        top_p=0.95,
        generator=torch.Generator(device).manual_seed(0),
    )
    print(words.decode(text[0]))

# %% [markdown]
# ## On real data
#
# We train a GPT-2 of two layers on Python's language reference, character by character, and ask
# three things. How well does it compress, against programs made for compressing? What does it
# write, and when? And is what it learned good for another task?
#
# ### The task and two baselines
#
# Bits a character are the measure (step 2). Two baselines read the same text: `zlib`, which looks
# back `2**15` bytes, and `xz`, which looks back over all of it. Both are given the training text
# first; what they need *more* for the held-out text is their score. The model is given the training
# text too, by training on it, but for each guess it sees at most the last
# {glue:text}`gpt-length:.0f` characters.

# %%
text = topics_text(seed=0)
vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
V, length = len(vocabulary), 64
train_ids = vocabulary.encode(text.train).to(device)
held_out = consecutive_windows(
    vocabulary.encode(text.validation).to(device), length
)
print(
    f"{len(text.train):,} training characters, {len(text.validation):,} held "
    f"out,\n{V} different; sha256 {text.sha256[:16]}"
)

read, whole = (s.encode() for s in (text.train, text.train + text.validation))
programs = {
    "zlib": lambda data: zlib.compress(data, 9),
    "xz": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
}
baseline = {
    name: 8 * (len(f(whole)) - len(f(read))) / len(text.validation)
    for name, f in programs.items()
}
share = torch.bincount(train_ids, minlength=V).double() + 1
share = share / share.sum()
baseline["frequencies"] = (
    -share.log2().cpu()[vocabulary.encode(text.validation)].mean().item()
)
for name, bits in baseline.items():
    print(f"{name:12} {bits:.2f} bits a character")
    glue(f"gpt-bits-{name}", bits)
glue("gpt-length", length)
glue("gpt-bits-uniform", math.log2(V))

# %% [markdown]
# Characters drawn by their frequency alone need {glue:text}`gpt-bits-frequencies:.2f` bits, equal
# ones {glue:text}`gpt-bits-uniform:.2f`. `zlib` needs {glue:text}`gpt-bits-zlib:.2f`, `xz`
# {glue:text}`gpt-bits-xz:.2f`: reference prose repeats its phrases, and `xz` finds the earlier ones
# anywhere in the text (`lib.data.topics_text` says how much repeats).
#
# ### Pre-training
#
# First weights have a standard deviation of $1/\sqrt{d}$; the recorded run below shows why. At
# three moments the model writes a few words, with `top_p=0.95` and the same chances each time.

# %%
config = GPT2Config(
    V + 2,  # two more tokens, which only fine-tuning will read
    d_model=64,
    num_layers=2,
    num_heads=4,
    max_length=length,
    embedding_dropout=0.0,
    dropout=0.0,
    attention_dropout=0.0,
    init_std=64**-0.5,
    eos_token_id=None,
)
torch.manual_seed(0)
gpt = GPT2(config).to(device)
batches = torch.Generator().manual_seed(0)
steps, moments = 450, {}


def write(model, prompts, n, greedily=False, **options):
    """n more characters behind each of several prompts of one length.

    The model reads the last 32 characters at most, so that its 64 places
    have room for as many new ones. A special token, if one came, is ▢.
    """
    ids = torch.stack([vocabulary.encode(p) for p in prompts]).to(device)
    draws = torch.Generator(device).manual_seed(0)
    most = ids.shape[1] + n
    while ids.shape[1] < most:
        seen = ids[:, -32:]
        if greedily:
            new = greedy(model, seen, max_new_tokens=32)
        else:
            new = sample(
                model, seen, max_new_tokens=32, generator=draws, **options
            )
        ids = torch.cat([ids, new[:, seen.shape[1] :]], dim=1)
    known = vocabulary.characters + "▢▢"
    return ["".join(known[i] for i in row) for row in ids[:, :most].tolist()]


def look(step):
    bits = evaluate(gpt, *held_out) / math.log(2)
    moments[step] = bits, write(gpt, ["The "], 60, top_p=0.95)[0]
    gpt.train()


def batch_loss(step):
    if step in (0, 50):
        look(step)
    inputs, targets = random_windows(train_ids, 16, length, batches)
    return masked_lm_loss(gpt(inputs), targets)  # the windows are shifted


# %% tags=["nbval-ignore-output"]
losses = fit(
    gpt,
    batch_loss,
    steps=steps,
    learning_rate=6e-3,
    progress=lambda loop: Progress(loop, label="pre-training"),
)
look(steps)
_ = gpt.eval()

# %%
for step, (bits, written) in moments.items():
    print(f"step {step:3}: {bits:.2f} bits a character")
    print("   ", written.replace("\n", "↵"))
glue("gpt-live", moments[steps][0])
check("the loss began near ln V", abs(moments[0][0] - math.log2(V)) < 1.5)
check("it learned", moments[steps][0] < 2.9)
check(
    "far below the frequencies",
    moments[steps][0] < baseline["frequencies"] - 1,
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.3))
smooth = torch.tensor(losses).view(-1, 10).mean(-1) / math.log(2)
ax.plot(range(5, steps, 10), smooth, color=COLORS["query"], label="training")
ax.plot(
    list(moments),
    [bits for bits, _ in moments.values()],
    "o",
    color=COLORS["key"],
    label="held out",
)
for name, style in [("frequencies", ":"), ("zlib", "--"), ("xz", "-.")]:
    ax.axhline(
        baseline[name], linestyle=style, color=COLORS["reference"], label=name
    )
ax.set(xlabel="step", ylabel="bits a character", ylim=(1.4, None))
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-gpt-loss",
    caption="The loss of the small model, means of ten steps, with the "
    "held-out loss at three moments. Grey lines: characters by frequency, "
    "zlib, and xz.",
    alt="Bits a character over training steps. The curve falls steeply, "
    "crosses the line of the character frequencies early, and then falls ever "
    "more slowly, ending near the line of zlib and above that of xz.",
)

# %% [markdown]
# {numref}`fig-gpt-loss` shows it. Held-out text costs {glue:text}`gpt-live:.2f` bits a character in
# the end, beside {glue:text}`gpt-bits-zlib:.2f` of `zlib` and {glue:text}`gpt-bits-xz:.2f` of `xz`.
# The written lines go from noise to letters in proportion, and to groups of letters that look like
# words. Half a minute of training does not make prose.
#
# Where are the bits spent? The next cell takes a held-out passage apart.

# %%
paragraphs_out = [p for p in text.validation.split("\n") if len(p) > 200]
passage = paragraphs_out[3][:56]
ids = vocabulary.encode(passage)[None].to(device)
with torch.no_grad():
    cost = causal_lm_loss(gpt(ids), ids, reduction="none")[0].cpu()
cost = cost / math.log(2)
letters_in = [c.isalpha() for c in passage]
first = [
    c
    for c, letter, before in zip(
        cost.tolist(), letters_in[1:], letters_in, strict=False
    )
    if letter and not before
]
inner = [
    c
    for c, letter, before in zip(
        cost.tolist(), letters_in[1:], letters_in, strict=False
    )
    if letter and before
]
glue("gpt-bits-first", sum(first) / len(first))
glue("gpt-bits-inner", sum(inner) / len(inner))
print(f"first letters {sum(first) / len(first):.2f} bits, ", end="")
print(f"later letters of a word {sum(inner) / len(inner):.2f}")

# one passage is an anecdote: the same over many held-out windows
seen, came = (part[:64] for part in held_out)
with torch.no_grad():
    cost_of = masked_lm_loss(gpt(seen), came, reduction="none") / math.log(2)
is_letter = torch.tensor(
    [c.isalpha() for c in vocabulary.characters], device=device
)
first_of_all = cost_of[is_letter[came] & ~is_letter[seen]].mean().item()
inner_of_all = cost_of[is_letter[came] & is_letter[seen]].mean().item()
print(f"in {came.numel():,} characters {first_of_all:.2f} and {inner_of_all:.2f}")
glue("gpt-bits-first-all", first_of_all)
glue("gpt-bits-inner-all", inner_of_all)
check("first letters cost more", first_of_all > inner_of_all + 1)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.1, 2.6))
ax.bar(range(1, len(passage)), cost, color=COLORS["scores"])
ax.set_xticks(
    range(len(passage)), list(passage.replace(" ", "␣")), fontsize=9
)
ax.set(ylabel="bits", xlim=(0, len(passage)))
show_figure(
    fig,
    name="fig-gpt-surprise",
    caption="What each character of a held-out passage costs the trained "
    "model, in bits. Each bar is one guess, from the characters to its left.",
    alt="A bar chart over the characters of a short passage. Tall bars stand "
    "mostly at the first letters of words, low ones at the ends of words and "
    "at spaces.",
)

# %% [markdown]
# The first letter of a word costs {glue:text}`gpt-bits-first:.1f` bits in this passage, a later one
# {glue:text}`gpt-bits-inner:.1f` ({numref}`fig-gpt-surprise`). The passage begins with a heading, and
# capitals are rare; over sixty-four held-out windows it is {glue:text}`gpt-bits-first-all:.1f` bits
# against {glue:text}`gpt-bits-inner-all:.1f`. What word comes is hard to know, how it ends is easier.
#
# ### Larger, several seeds, and the first weights
#
# The following was run beforehand by `book/experiments/gpt.py`: three layers of 96 features, more
# steps, three seeds, and two beginnings. The arms differ only in the standard deviation of the
# first weights, `0.02` as in GPT-2 or $1/\sqrt{d}$, and see the same batches.

# %%
record = recorded("gpt")
settings, record = record["settings"], record["results"]
runs = {
    arm: list(found.values()) for arm, found in record["pretraining"].items()
}
last = str(settings["steps"])
print(f"{record['parameters']:,} parameters, text {record['text_sha256'][:16]}")
print("bits a character on held-out text, mean ± standard deviation")
times = list(runs["0.02"][0]["bits"])
print(f"{'std':8}" + "".join(f"{'step ' + t:>15}" for t in times))
final = {}
for arm, found in runs.items():
    bits = torch.tensor([[one["bits"][t] for t in times] for one in found])
    final[arm] = bits[:, -1]
    print(
        f"{arm:8}"
        + "".join(
            f"{m:8.3f} ± {s:.3f}"
            for m, s in zip(bits.mean(0), bits.std(0), strict=True)
        )
    )
    key = "small" if arm == "0.02" else "large"
    glue(f"gpt-recorded-{key}", final[arm].mean().item())
    glue(f"gpt-recorded-{key}-std", final[arm].std().item())
glue("gpt-gain-recorded", 0.02 * settings["d_model"] ** 0.5)
glue("gpt-recorded-steps", settings["steps"])
gain = final["0.02"] - final["1/√d"]
glue("gpt-recorded-gain", gain.mean().item())
check("1/√d is ahead for every seed", gain.min() > 0.1)
check(
    "by more than the seeds differ",
    gain.min() > 3 * max(x.std() for x in final.values()),
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.3))
for (arm, found), style, color in zip(
    runs.items(), ("--", "-"), ("key", "query"), strict=True
):
    curves = torch.tensor([one["curve"] for one in found])
    at = [settings["block"] * (i + 0.5) for i in range(curves.shape[1])]
    ax.plot(at, curves.mean(0), style, color=COLORS[color], label=f"std {arm}")
    ax.fill_between(
        at,
        curves.amin(0),
        curves.amax(0),
        color=COLORS[color],
        alpha=0.25,
        linewidth=0,
    )
for name, style in [("zlib", ":"), ("xz", "-.")]:
    ax.axhline(
        baseline[name], linestyle=style, color=COLORS["reference"], label=name
    )
ax.set(xlabel="step", ylabel="training loss, bits a character", ylim=(1.4, 5))
fig.legend(loc="outside upper center", ncols=4)
show_figure(
    fig,
    name="fig-gpt-recorded",
    caption="Training loss of the recorded runs, means of forty steps. "
    "Bands span the three seeds. Grey lines are zlib and xz on held-out text.",
    alt="Bits a character over steps for two beginnings. After a like start "
    "the solid curve of one over root d falls away below the dashed curve of "
    ".02, by a gap much wider than the bands of the seeds.",
)

# %% [markdown]
# After {glue:text}`gpt-recorded-steps:.0f` steps, weights that began with $1/\sqrt{d}$ reach
# {glue:text}`gpt-recorded-large:.2f` ± {glue:text}`gpt-recorded-large-std:.2f` bits, those that
# began with `0.02` {glue:text}`gpt-recorded-small:.2f` ± {glue:text}`gpt-recorded-small-std:.2f`
# ({numref}`fig-gpt-recorded`). The beginning with the worse first loss ends
# {glue:text}`gpt-recorded-gain:.2f` bits ahead.
#
# What is different at the start? Each linear map multiplies by a gain of $\sigma\sqrt{d}$, which is
# {glue:text}`gpt-gain-recorded:.2f` for the first arm and one for the second. Queries and keys are
# made from normed vectors, so a feature of each has variance $d\sigma^2$, and the scaled score of
# two of them has a standard deviation of $d\sigma^2$ (chapter 2). The next cell measures it.

# %%
score_std = {}
for name, std in [("0.02", 0.02), ("1/√d", 96**-0.5)]:
    fresh = tiny(V=103, d=96, n=64, std=std)
    layer = fresh.layers[0]
    with torch.no_grad():
        x = fresh.position(fresh.word(torch.randint(103, (1, 64), generator=rng)))
        x = layer.attention_norm(x)
        q, k = (
            project(x)[0].view(64, 2, 48).transpose(0, 1)
            for project in (
                layer.attention.query_projection,
                layer.attention.key_projection,
            )
        )
        scores = q @ k.mT / math.sqrt(48)
    score_std[name] = scores.std().item()
    print(f"std {name:5} scores 0 ± {score_std[name]:.3f}")
    check(
        f"std {name}: scores begin with a spread of dσ²",
        score_std[name] / (96 * std**2),
        1.0,
        atol=0.3,
    )
glue("gpt-scores-small", score_std["0.02"])
glue("gpt-scores-large", score_std["1/√d"])

# %% [markdown]
# With scores of 0 ± {glue:text}`gpt-scores-small:.2f` every token attends to all alike, and what it
# then adds to the stream is small besides. Attention has to be found first. With
# {glue:text}`gpt-scores-large:.2f` there is something to choose from. This is a likely reason, not
# a proven one. We do not say that `0.02` is wrong for GPT-2: at its width the gain is near one
# half, and it trained for far longer. And both arms have one learning rate; another might narrow
# the gap.
#
# What the model of seed 0 writes behind “The ”, at each moment:

# %%
for step, written in runs["1/√d"][0]["samples"].items():
    line = written.replace("\n", "↵")
    print(f"step {step}:")
    for i in range(0, min(len(line), 132), 66):
        print("   ", line[i : i + 66])

# %% [markdown]
# ### Greedy writing goes round in circles
#
# The most probable token, each time, seems the natural choice. We let the live model write two
# hundred characters greedily, behind several beginnings, and the same by drawing. Then we count how
# many of its groups of eight characters occurred before in the same piece.


# %%
def repeated(line, size=8):
    """The share of groups of characters that stood in the line before."""
    groups = [line[i : i + size] for i in range(len(line) - size + 1)]
    return 1 - len(set(groups)) / len(groups)


prompts = ["The ", "If a", "This", "An o", "A cl", "In t", "When", "is a"]
ways = {
    "greedy": {"greedily": True},
    "T = 0.5": {"temperature": 0.5},
    "top-p = 0.95": {"top_p": 0.95},
    "T = 1": {},
    "T = 1.5": {"temperature": 1.5},
}
rates = {}
for name, options in ways.items():
    lines = write(gpt, prompts, 200, **options)
    rates[name] = sum(map(repeated, lines)) / len(lines)
    piece = lines[0][:60].replace("\n", "↵")
    print(f"{name}: repeats {rates[name]:.2f}\n    {piece}")
natural = [
    text.validation[i : i + 204]
    for i in range(0, len(text.validation) - 204, 204)
]
rates["people"] = sum(map(repeated, natural)) / len(natural)
print(f"held-out text: repeats {rates['people']:.2f}")
glue("gpt-repeats-greedy", rates["greedy"])
glue("gpt-repeats-drawn", rates["T = 1"])
glue("gpt-repeats-people", rates["people"])
check("greedy writing repeats itself", rates["greedy"] > 0.25)
check("drawn text does not", rates["T = 1"] < 0.05)

# %% [markdown]
# Greedy lines repeat {glue:text}`gpt-repeats-greedy:.2f` of their groups, drawn ones
# {glue:text}`gpt-repeats-drawn:.2f`, and the authors of the reference
# {glue:text}`gpt-repeats-people:.2f`. A phrase that was just written makes itself more probable,
# and the greedy choice has no way out of the circle. {cite:t}`holtzman2020` show the same for GPT-2
# itself, and that the texts people write are *not* the most probable ones. Ours is a model of half
# a minute, so its circles say nothing about how often large models fall into them.
#
# Try it. These are the sixteen most probable characters of the live model behind “The ”, with
# their logits; the rest is left out. Lower the temperature, cut by $k$ or by $p$, and draw. The
# chances stay the same when a slider moves, so one can see which draws change.

# %%
ids = vocabulary.encode("The ")[None].to(device)
with torch.no_grad():
    next_logits = gpt(ids)[0, -1, :V].double().cpu()
top = next_logits.topk(16)
outside = 1 - next_logits.softmax(-1)[top.indices].sum().item()
glue("gpt-outside", outside)
Sampling(
    [vocabulary.characters[i] for i in top.indices],
    top.values,
    temperature=1.0,
    top_p=0.9,
    draws=5,
    label="The character behind “The ”",
    name="gpt-sampling",
)

# %% [markdown]
# The characters that are left out have {glue:text}`gpt-outside:.3f` of the probability. Entropy
# rises with the temperature at every place, as step 9 says. {numref}`fig-gpt-entropy` measures it
# on held-out text, with the share that the model's most probable character has.

# %%
with torch.no_grad():
    z = gpt(held_out[0][:16])[..., :V].double().cpu().flatten(0, 1)
heats = [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0]
entropies = torch.stack([entropy_at(T, z) for T in heats]) / math.log(2)
check("entropy rises at every place", (entropies.diff(dim=0) >= -1e-9).all())

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.0))
low, middle, high = entropies.quantile(
    torch.tensor([0.1, 0.5, 0.9], dtype=double), dim=1
)
ax.plot(heats, middle, color=COLORS["weights"], label="median")
ax.fill_between(
    heats,
    low,
    high,
    color=COLORS["weights"],
    alpha=0.25,
    linewidth=0,
    label="the middle 80 %",
)
ax.axhline(math.log2(V), linestyle=":", color=COLORS["reference"], label="log₂ V")
ax.set(xlabel="temperature", ylabel="entropy of the guess, bits")
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-gpt-entropy",
    caption="Entropy of the live model's guesses by temperature, over a "
    "thousand places of held-out text. It rises at every single place.",
    alt="Entropy over temperature from 0.1 to 3. The median rises from zero "
    "towards the dotted line of log V, with a wide band around it at "
    "temperature one.",
)

# %% [markdown]
# ### Fine-tuning
#
# Is the guesser good for anything but guessing? GPT's answer was the point of its paper: train on
# text without labels first, then on a task with few. A labelled text is put between two new tokens,
# *start* and *extract*, and read once. The vector $h$ at the extract token has seen all of it, and
# one new matrix $W_y$ makes label logits of it:
#
# $$
# p(y \mid x_0, \dots, x_m) = \operatorname{softmax}(h_m W_y)_y .
# $$ (def-gpt-classifier)
#
# The same pass guesses every next token as before, at no cost but the head's. So the paper adds the
# old loss to the new one. With $L_1$ as in {eq}`def-gpt-loss`, on the labelled texts, and $L_2 =
# -\log p(y \mid x)$,
#
# $$
# L_3 = L_2 + \lambda L_1 , \qquad \lambda = 0.5 .
# $$ (eq-gpt-fine-tuning)
#
# :::{admonition} The paper says
# :class: paper
# {cite:t}`radford2018` (§3.2, equations 3 to 5; §3.3 for the tokens) writes sums that are
# maximised; the auxiliary objective is to improve generalisation and speed up convergence, with
# $\lambda = .5$ (§4.1). Its ablation (§5) finds that larger data sets benefit from it and smaller
# ones do not.
# :::
#
# :::{admonition} Our remark
# :class: remark
# With sums, $\lambda$ would weigh a text by its length. The authors' code takes means, and so do
# we.
# :::
#
# Our task: which of six modules of Python's standard library is a docstring from, with the names
# of the modules blotted out, from its first 62 characters? There are three hundred labelled
# examples. It is other text than that of the pre-training.

# %%
data = docstrings(num_labels=6)
START, EXTRACT = V, V + 1


def rows(texts, labels):
    known = [
        "".join(c if c in vocabulary.characters else "?" for c in t[:length])
        for t in texts
    ]
    return pack(
        [vocabulary.encode(t) for t in known],
        labels,
        length=length,
        start=START,
        extract=EXTRACT,
    )


labelled = rows(data.train, data.train_labels)
judged = rows(data.validation, data.validation_labels)
most = judged.labels.bincount().max().item() / len(judged)
glue("gpt-tune-most", most)
print(f"{len(labelled):,} examples, {len(judged)} held out, of")
print(", ".join(data.names))
print(f"the most frequent module alone: {most:.3f}")

torch.manual_seed(0)
classifier = Classifier(copy.deepcopy(gpt), 6)
few = labelled[torch.arange(5)]
label_logits, token_logits = classifier(few.ids, few.real)
L_2 = F.cross_entropy(label_logits, few.labels)
L_1 = causal_lm_loss(token_logits, few.ids.masked_fill(~few.real, -100))
check(
    "eq-gpt-fine-tuning",
    fine_tuning_loss(classifier, few, 0.5),
    L_2 + 0.5 * L_1,
    atol=1e-6,
)

# %% [markdown]
# Padding stands on the right here, and no mask is needed: under the causal mask nothing real can
# see it. Live, one seed, few steps, from the pre-trained weights and from fresh ones:

# %% tags=["nbval-ignore-output"]
order = torch.randperm(
    len(labelled), generator=torch.Generator().manual_seed(0)
)
chosen, live = labelled[order[:300]], {}
for name in ("from scratch", "pre-trained"):
    torch.manual_seed(1)
    decoder = copy.deepcopy(gpt) if name == "pre-trained" else GPT2(config)
    tuned = fine_tune(
        decoder.cpu(),
        chosen,
        6,
        weight=0.5,
        steps=80,
        batch=16,
        learning_rate=5e-3,
        seed=0,
        new_tokens=(START, EXTRACT),
    )
    live[name] = accuracy(tuned, judged)

# %%
for name, share in live.items():
    print(f"{name:13} {share:.3f}")
glue("gpt-tune-live", live["pre-trained"])
glue("gpt-tune-live-scratch", live["from scratch"])

# %% [markdown]
# The pre-trained model gets {glue:text}`gpt-tune-live:.2f` right, the fresh one
# {glue:text}`gpt-tune-live-scratch:.2f`; always naming the most frequent module gets
# {glue:text}`gpt-tune-most:.2f`. One seed of a small model is no evidence. While writing we tried
# seven others, for the pre-training and for the examples, four of them after the learning rate was
# chosen. The pre-trained model was ahead each time, but by a few texts in a hundred. At a lower rate
# of `2e-3`, after so few steps, the order changed with the seed. Here are the recorded runs, of a
# larger model, at that lower rate and for longer, with and without the auxiliary loss:

# %%
tuning = {
    arm: torch.tensor([found[arm] for found in record["tuning"].values()])
    for arm in record["tuning"]["0"]
}
print("accuracy on held-out docstrings, mean ± standard deviation of seeds")
for arm, found in tuning.items():
    print(f"{arm:22} {found.mean():.3f} ± {found.std():.3f}")
pre, pre_aux = tuning["pre-trained, λ = 0"], tuning["pre-trained, λ = 0.5"]
raw, raw_aux = tuning["scratch, λ = 0"], tuning["scratch, λ = 0.5"]
glue("gpt-tune-pre", torch.stack([pre, pre_aux]).mean().item())
glue("gpt-tune-raw", torch.stack([raw, raw_aux]).mean().item())
lift = (pre + pre_aux) / 2 - (raw + raw_aux) / 2  # seed by seed
glue("gpt-tune-lift", lift.mean().item())
glue("gpt-tune-lift-std", lift.std().item())
glue("gpt-tune-gain", (pre_aux - pre).mean().item())
glue("gpt-tune-gain-std", (pre_aux - pre).std().item())
glue("gpt-tune-gain-raw", (raw_aux - raw).mean().item())
glue("gpt-tune-gain-raw-std", (raw_aux - raw).std().item())
check(
    "pre-training helps in every seed",
    (torch.minimum(pre, pre_aux) > torch.maximum(raw, raw_aux)).all(),
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 2.9))
for i, (arm, found) in enumerate(tuning.items()):
    color = COLORS["query" if arm.startswith("pre") else "key"]
    ax.plot(found, [i] * len(found), "o", color=color)
    ax.plot([found.mean()], [i], "|", color=color, markersize=18)
ax.axvline(
    record["labelled"]["most_frequent"],
    linestyle=":",
    color=COLORS["reference"],
)
ax.set_yticks(range(len(tuning)), list(tuning))
ax.set(xlabel="accuracy on held-out docstrings", ylim=(-0.5, 3.5))
show_figure(
    fig,
    name="fig-gpt-tuning",
    caption=f"Accuracy after fine-tuning on {settings['tuning']['examples']} "
    "labelled docstrings, a dot a seed and a bar at the mean. The dotted "
    "line always names the most frequent module.",
    alt="Four rows of three dots. The means of the two pre-trained rows lie to "
    "the right of those from scratch, though single dots overlap; within each "
    "pair, with and without the auxiliary loss, the means lie close together.",
)

# %% [markdown]
# Pre-training on other text lifts the accuracy from {glue:text}`gpt-tune-raw:.2f` to
# {glue:text}`gpt-tune-pre:.2f` ({numref}`fig-gpt-tuning`). A seed also draws the labelled examples,
# and single dots overlap, so compare within a seed: there the pre-trained model is ahead each time,
# by {glue:text}`gpt-tune-lift:.3f` ± {glue:text}`gpt-tune-lift-std:.3f`. From scratch, three
# hundred examples teach little more than which module is the most frequent one.
#
# The auxiliary loss changes the accuracy by {glue:text}`gpt-tune-gain:.3f` ±
# {glue:text}`gpt-tune-gain-std:.3f` on top of pre-training, and by
# {glue:text}`gpt-tune-gain-raw:.3f` ± {glue:text}`gpt-tune-gain-raw-std:.3f` without it. Neither is
# clearly larger than its spread over three seeds. We see no effect, which agrees with what the
# paper says of small data sets, and proves little.

# %% [markdown]
# ## Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “GPT came with ‘Language Models are Unsupervised Multitask Learners’, in 2018.” | That is GPT-2, of 2019. GPT is “Improving Language Understanding by Generative Pre-Training”, of 2018. | {cite:t}`radford2018`; {cite:t}`radford2019` |
# | “GPT is an encoder–decoder.” | It is a decoder alone: masked self-attention, and no cross-attention. | {cite:t}`radford2018` (§3.1) |
# | “The labels of a language model have to be shifted by the user.” | It depends on the code. `causal_lm_loss`, like `transformers`, shifts inside; windows that come as input and target are shifted already. Both at once is D39. | this chapter |
# | “Temperature makes a model creative.” | It raises every ratio of probabilities to the power $1/T$ {eq}`eq-gpt-temperature`, no more. | step 9 |
# | “A lower loss is always better.” | Not below the entropy of the source: that is a leak, D14. | step 2 |

# %% [markdown]
# ## Broken on purpose
#
# Three mistakes. None of them raises an error, and two of them *lower* the training loss.
#
# :::{admonition} Broken on purpose D14: the future is visible
# :class: broken
# The causal mask is forgotten. The label of place $t$ is the token at $t + 1$, and that token
# stands in the input. Attention needs only to look one place ahead and copy. On noise, where nobody
# can do better than $\ln V$, the loss falls far below it.
# :::


# %%
def noise_model():
    torch.manual_seed(0)
    config = GPT2Config(
        8,
        d_model=32,
        num_layers=1,
        num_heads=2,
        max_length=12,
        embedding_dropout=0.0,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=32**-0.5,
        eos_token_id=None,
    )
    return GPT2(config)


def nobody_can_guess_noise(build):
    model, noise = build(), torch.Generator().manual_seed(0)

    def batch_loss(step):
        ids = torch.randint(8, (32, 12), generator=noise)
        return causal_lm_loss(model(ids), ids)

    fit(model, batch_loss, steps=150, learning_rate=1e-2)
    ids = torch.randint(8, (256, 12), generator=noise)
    with torch.no_grad():
        loss = causal_lm_loss(model.eval()(ids), ids).item()
    assert loss > math.log(8) - 0.05, (
        f"on noise the loss is {loss:.3f}, below ln 8 = {math.log(8):.3f}"
    )
    return loss


glue("gpt-ln-8", math.log(8))
glue("gpt-d14", nobody_can_guess_noise(noise_model))
catches(
    "D14",
    nobody_can_guess_noise,
    broken=lambda: without_mask(noise_model()),
    fixed=noise_model,
)

# %% [markdown]
# With the mask the loss on fresh noise is {glue:text}`gpt-d14:.3f`, and $\ln 8$ is
# {glue:text}`gpt-ln-8:.3f`. **Fix:** a causal
# mask in every layer; and test it, on noise, or by changing one token and looking at what moved to
# its left.
#
# :::{admonition} Broken on purpose D39: labels that are not shifted
# :class: broken
# Logits and labels are compared place by place. Each label then stands in the input of its own
# place, and a model that merely repeats what it reads has no loss. The curve falls beautifully, and
# the model writes one character for ever. The opposite mistake is to shift twice: the labels before
# the call, and once more inside. Then the token after the next is learned.
# :::


# %%
def not_shifted(logits, labels):
    return masked_lm_loss(logits, labels)


def shifted_twice(logits, labels):
    return causal_lm_loss(logits[..., :-1, :], labels[..., 1:])


noise_ids = torch.randint(
    64, (4, 100), generator=torch.Generator().manual_seed(0)
)


def repeating_is_no_guess(loss):
    copies = 20.0 * F.one_hot(noise_ids, 64)
    cost = loss(copies, noise_ids).item()
    assert cost > math.log(64), f"a model that repeats its input costs {cost:.1f}"
    return cost


def knowing_costs_nothing(loss):
    knows = 20.0 * F.one_hot(noise_ids.roll(-1, dims=1), 64)
    cost = loss(knows, noise_ids).item()
    assert cost < 0.01, f"a model that knows the next token costs {cost:.1f}"


glue("gpt-d39", repeating_is_no_guess(causal_lm_loss))
catches(
    "D39", repeating_is_no_guess, broken=not_shifted, fixed=causal_lm_loss
)
catches(
    "D39, twice",
    knowing_costs_nothing,
    broken=shifted_twice,
    fixed=causal_lm_loss,
)

torch.manual_seed(0)
parrot, parrot_batches = GPT2(config), torch.Generator().manual_seed(0)


def parrot_loss(step):
    inputs, _ = random_windows(train_ids.cpu(), 16, length, parrot_batches)
    return not_shifted(parrot(inputs), inputs)


shown = fit(parrot, parrot_loss, steps=60, learning_rate=6e-3)[-1]
with torch.no_grad():
    inputs = held_out[0][:64].cpu()
    true_bits = causal_lm_loss(parrot.eval()(inputs), inputs) / math.log(2)
glue("gpt-parrot-shown", shown / math.log(2))
glue("gpt-parrot-true", true_bits.item())
print(repr(write(parrot.to(device), ["The "], 40, greedily=True)[0]))
check("the curve looks wonderful", shown < 0.2)
check("the model is worse than no model", true_bits > math.log2(V))

# %% [markdown]
# Repeating costs {glue:text}`gpt-d39:.1f` nats with the shift, as it should. The small model that
# was trained without it shows {glue:text}`gpt-parrot-shown:.2f` bits after sixty steps, where no
# honest model of any size could be, and its true next-character loss is
# {glue:text}`gpt-parrot-true:.1f` bits, more than equal guessing costs. **Fix:** shift once. With
# `causal_lm_loss` pass `labels=input_ids`; with windows of inputs and targets use the plain
# cross-entropy. And write a line: a parrot shows itself at once.
#
# :::{admonition} Broken on purpose D39b: with a cache, places begin again
# :class: broken
# With a cache the model is called with one new token. If it counts positions within the call, every
# new token stands at place 0. The prompt, read in one call, is fine; behind it the text decays.
# :::


# %%
class CountsWithinTheCall(torch.nn.Module):
    def __init__(self, encoding):
        super().__init__()
        self.encoding, self.weight = encoding, encoding.weight

    def forward(self, x, start=0, *, positions=None):
        return self.encoding(x, 0)  # start is lost


restarting = copy.deepcopy(gpt).cpu()
restarting.position = CountsWithinTheCall(restarting.position)
sound = copy.deepcopy(gpt).cpu()


def a_cache_changes_nothing(model):
    ids = held_out[0][:32].cpu()  # (32, 64)
    with torch.no_grad():
        cache = KVCache(length)
        parts = [model(ids[:, :8], cache=cache)]
        parts += [
            model(ids[:, t : t + 1], cache=cache) for t in range(8, length)
        ]
        cached = causal_lm_loss(torch.cat(parts, 1), ids) / math.log(2)
        whole = causal_lm_loss(model(ids), ids) / math.log(2)
    assert abs(cached - whole) < 1e-4, (
        f"{whole:.2f} bits a character in one pass, {cached:.2f} with a cache"
    )


catches(
    "D39b", a_cache_changes_nothing, broken=restarting, fixed=sound
)

# %% [markdown]
# **Fix:** the cache knows how many tokens it holds, and the first new one stands at that place:
# `start = cache.length`. With padding on the left, count each row from its first real token.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} The loss
# :label: ex-gpt-loss
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `next_token_loss(logits, ids)`: for logits (n, V) and tokens (n,), the mean of
# $-\log p$ over the tokens that have a guess. Do without `F.cross_entropy`.
#
# ```{dropdown} Hint
# Row $t - 1$ is for token $t$. How many guesses have a label? `log_softmax` is safer than the
# logarithm of a softmax.
# ```


# %% tags=["exercise-stub"]
def next_token_loss(logits, ids):
    raise NotImplementedError


grade("ex-gpt-loss", next_token_loss)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gpt-loss
# :class: dropdown
# ```


# %% tags=["solution"]
def next_token_loss(logits, ids):
    log_p = logits[:-1].log_softmax(-1)
    return -log_p[torch.arange(len(ids) - 1), ids[1:]].mean()


grade("ex-gpt-loss", next_token_loss)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} From nats a token to bits a character
# :label: ex-gpt-bits
# ```
# *Difficulty ●○○ · 5 minutes*
#
# A model with pieces of words as tokens has a loss of `loss` nats a token, on a text of `tokens`
# tokens that is `characters` characters long. Write `bits_per_character(loss, tokens, characters)`.
#
# ```{dropdown} Hint
# How many nats does the whole text cost? A bit is $\ln 2$ nats.
# ```


# %% tags=["exercise-stub"]
def bits_per_character(loss, tokens, characters):
    raise NotImplementedError


grade("ex-gpt-bits", bits_per_character)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gpt-bits
# :class: dropdown
# ```


# %% tags=["solution"]
def bits_per_character(loss, tokens, characters):
    return loss * tokens / characters / math.log(2)


grade("ex-gpt-bits", bits_per_character)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Temperature without logits
# :label: ex-gpt-temperature
# ```
# *Difficulty ●○○ · 10 minutes*
#
# You are given probabilities (…, V), some of them zero, and no logits. Write `temper(p, T)`: the
# distributions at temperature $T$.
#
# ```{dropdown} Hint
# {eq}`eq-gpt-temperature`. What is $0^{1/T}$?
# ```


# %% tags=["exercise-stub"]
def temper(p, T):
    raise NotImplementedError


grade("ex-gpt-temperature", temper)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gpt-temperature
# :class: dropdown
# ```


# %% tags=["solution"]
def temper(p, T):
    powers = p ** (1 / T)
    return powers / powers.sum(-1, keepdim=True)


grade("ex-gpt-temperature", temper)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The nucleus
# :label: ex-gpt-nucleus
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `nucleus(p, share)`: for probabilities (V,) in any order, a boolean tensor (V,) that is true
# for the fewest tokens whose probabilities sum to `share` or more.
#
# ```{dropdown} Hint
# Sort downwards and use {eq}`eq-gpt-nucleus`: what do the tokens *before* this one hold? Then put
# the answers back into the order that was given.
# ```


# %% tags=["exercise-stub"]
def nucleus(p, share):
    raise NotImplementedError


grade("ex-gpt-nucleus", nucleus)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gpt-nucleus
# :class: dropdown
# ```


# %% tags=["solution"]
def nucleus(p, share):
    ordered, order = p.sort(descending=True)
    before = ordered.cumsum(0) - ordered
    kept = torch.zeros(len(p), dtype=torch.bool)
    kept[order] = before < share
    return kept


grade("ex-gpt-nucleus", nucleus)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} What the model reads
# :label: ex-gpt-reads
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `tokens_read(prompt, new, cache)`: how many tokens the model reads, over all passes, to
# write `new` tokens behind a prompt of `prompt` tokens. `cache` is true or false. The last token
# that is written is never read.
#
# ```{dropdown} Hint
# The first pass reads the prompt and gives the first new token, with a cache and without. How long
# is the second?
# ```


# %% tags=["exercise-stub"]
def tokens_read(prompt, new, cache):
    raise NotImplementedError


grade("ex-gpt-reads", tokens_read)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gpt-reads
# :class: dropdown
# ```


# %% tags=["solution"]
def tokens_read(prompt, new, cache):
    if cache:
        return prompt + new - 1
    return new * prompt + new * (new - 1) // 2


grade("ex-gpt-reads", tokens_read)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Write with a cache
# :label: ex-gpt-write
# ```
# *Difficulty ●●● · 20 minutes*
#
# `step(ids)` is a model with a cache inside: it takes a list of tokens that it has *not* read yet,
# and returns the logits (V,) of the token behind the last of them. Write
# `continue_greedily(step, prompt, new)`: the list of the prompt and `new` more tokens, each the
# most probable one. Let no token be read twice, and none that need not be read.
#
# ```{dropdown} Hint
# The first call gets the whole prompt, each later one the last token alone. How many calls are
# there for three new tokens?
# ```


# %% tags=["exercise-stub"]
def continue_greedily(step, prompt, new):
    raise NotImplementedError


grade("ex-gpt-write", continue_greedily)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gpt-write
# :class: dropdown
# ```


# %% tags=["solution"]
def continue_greedily(step, prompt, new):
    ids, unread = list(prompt), list(prompt)
    for _ in range(new):
        token = int(step(unread).argmax())
        ids.append(token)
        unread = [token]
    return ids


grade("ex-gpt-write", continue_greedily)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - Any distribution over texts is a product of next-token distributions {eq}`eq-gpt-chain`. A
#   causal model gives those, and its likelihood is exact {eq}`eq-gpt-normalised`.
# - The loss is the mean of $-\log p$ {eq}`def-gpt-loss`. It is least for the true conditionals,
#   where it equals their entropy {eq}`eq-gpt-cross-entropy`. Bits a character compare models with
#   other tokens, and with compressors.
# - Its gradient is $p$ minus the token that came, one place on {eq}`eq-gpt-gradient`. It begins at
#   $\ln V$ plus half the variance of the logits {eq}`eq-gpt-start`.
# - Under a causal mask one pass over $n$ tokens is $n$ guesses {eq}`eq-gpt-parallel`, and what was
#   read never changes, so it can be kept {eq}`eq-gpt-cache`: $n$ tokens are read in place of
#   $n(n+1)/2$ {eq}`eq-gpt-cache-work`.
# - A pre-norm stream grows with its number of additions {eq}`eq-gpt-depth`. GPT-2's factor
#   $1/\sqrt{2N}$ makes it start at one size for every depth {eq}`eq-gpt-residual-scale`.
# - Temperature is an exponent {eq}`eq-gpt-temperature`, and entropy rises with it
#   {eq}`eq-gpt-entropy`. Cutting changes the distribution by $-\log$ of the mass that is kept
#   {eq}`eq-gpt-cut`; the nucleus bounds that, top-k does not.
# - Measured here: first weights of $1/\sqrt{d}$ train much faster than `0.02` at our small width,
#   and pre-training helps a small labelled task in all three seeds. Of the auxiliary loss
#   {eq}`eq-gpt-fine-tuning` we saw no clear effect.
#
# ## Sources
#
# - {cite:t}`radford2018`, §3.1: the objective and the decoder; §3.2: the classifier and the
#   auxiliary loss; §3.3: start and extract tokens; §4.1: sizes, first weights, $\lambda$; §5: the
#   ablation.
# - {cite:t}`radford2019`, §2.3: norms, residual scaling, context.
# - {cite:t}`holtzman2020`, §3.1: nucleus sampling; repetition, and what people write.
# - {cite:t}`fan2018`, §5.4: top-k sampling.
# - {cite:t}`vaswani2017`, §3.1 to 3.4: the decoder's masked attention, and the shared words.
