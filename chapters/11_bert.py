# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       A model that guesses the next word may never look ahead. BERT hides some words and looks at
#       both sides of them. What does that buy, what does it cost, and what is the second question
#       for, that asks whether one sentence follows another?
#     goals:
#       - say which distribution masked language modelling learns, and why it is no joint one
#       - derive the shares of masked, random and kept tokens, and what the best answer is at each
#       - accumulate gradients of unequal microbatches without changing the loss
#       - derive what next-sentence prediction asks for, and measure how much of it is topic
#       - pre-train a small BERT and fine-tune it for a label, for tags and for a span
#     prerequisites:
#       - cross-entropy, and softmax attention (chapter 2)
#       - why the loss is on hidden tokens alone (chapter 13, steps 1 and D37)
#     data: Docstrings of Python's own standard library, and dates written by Babel; no download.
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
# # BERT: filling in the blanks

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
import tempfile
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.corruption import mask_tokens
from lib.layers import EncoderLayer
from lib.losses import count_tokens, masked_lm_loss, next_sentence_loss
from lib.models.bert import BERT, BERTConfig
from lib.teaching import (
    COLORS,
    Progress,
    TokenStrip,
    catches,
    check,
    glue,
    grade,
    official,
    show_figure,
    start,
)
from lib.teaching import bert_tasks as tasks
from lib.teaching.pretraining import start_local
from lib.teaching.recorded import recorded
from lib.tokenization import Tokenizer

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# BERT is the encoder of a Transformer: every token may look at every other, before and behind it.
# It reads one text or two. In front stands [CLS], whose vector will speak for the whole input;
# [SEP] closes each text. What enters the first layer for token $t$ is the sum of three learned
# vectors, for the word, for its place, and for the text that it belongs to:
#
# $$
# h_t = \operatorname{LayerNorm}\big(E[x_t] + P[t] + G[s_t]\big) .
# $$ (def-bert-input)
#
# It is trained on two questions at once {cite}`devlin2019` (§3.1). The first hides some tokens. A
# set $S$ of positions is drawn, about 15 % of them. Of these, 80 % become [MASK], 10 % become a
# random word, and 10 % stay as they are; call the result $\tilde{x}$. The model has to say what
# stood there:
#
# $$
# L_{\text{MLM}} = -\frac{1}{|S|} \sum_{t \in S} \log p_\theta(x_t \mid \tilde{x}) .
# $$ (def-bert-mlm)
#
# The second shows two texts. In half of the pairs B followed A in the document; in the others it
# was drawn at random. From the vector $h_{\text{[CLS]}}$ of the last layer come two numbers, by
# way of the *pooler*:
#
# $$
# \begin{aligned}
# z &= W \tanh\!\big(W_p\, h_{\text{[CLS]}} + b_p\big) + b, \\
# L_{\text{NSP}} &= -\log \operatorname{softmax}(z)_y ,
# \end{aligned}
# $$ (def-bert-nsp)
#
# with the label $y = 0$ if **B follows A** and $1$ if not, as in the released checkpoints. The
# objective is the sum of a mean over tokens and a mean over pairs:
#
# $$
# L = L_{\text{MLM}} + L_{\text{NSP}} .
# $$ (def-bert-joint)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $x$, $\tilde{x}$ | $n$ | the tokens, and what the model reads instead |
# | $E$, $P$, $G$ | $V \times d$, $512 \times d$, $2 \times d$ | vectors of words, places and segments |
# | $s_t$ | 0 or 1 | first text, with [CLS] and the first [SEP]; or second, with its [SEP] |
# | $S$ | a set | the positions whose tokens are to be guessed |
# | $p_\theta(\cdot \mid \tilde{x})$ | $n \times V$ | a distribution over words at each position |
# | $z$ | 2 | logits of “B follows A” and “it does not” |
#
# {numref}`fig-bert-input` shows the input of one pair.

# %% tags=["hide-input"]
words = ["[CLS]", "it", "rains", "[SEP]", "take", "a", "coat", "[SEP]"]
shown = ["[CLS]", "it", "[MASK]", "[SEP]", "take", "a", "coat", "[SEP]"]
fig, ax = plt.subplots(figsize=(5.1, 2.6))
rows = [
    ("token", shown, "query"),
    ("place", [str(t) for t in range(8)], "value"),
    ("segment", ["0"] * 4 + ["1"] * 4, "key"),
    ("label", ["", "", "rains", "", "", "", "", ""], "output"),
]
for row, (_, cells, color) in enumerate(rows):
    for column, cell in enumerate(cells):
        if cell:
            ax.add_patch(
                plt.Rectangle(
                    (column - 0.46, row - 0.32),
                    0.92,
                    0.64,
                    fill=False,
                    edgecolor=COLORS[color],
                    linewidth=2 if cell in ("[MASK]", "rains") else 0.9,
                )
            )
        ax.text(column, row, cell, ha="center", va="center", fontsize=9)
ax.set(xlim=(-0.6, 7.6), ylim=(3.5, -0.5))
ax.set_yticks(range(4), [name for name, *_ in rows])
ax.set_xticks([])
ax.tick_params(length=0)
ax.spines[:].set_visible(False)
show_figure(
    fig,
    name="fig-bert-input",
    caption="A pair as BERT reads it. Each column is the sum of three vectors. "
    "One word is hidden, and only it has a label.",
    alt="Eight columns: CLS, it, MASK, SEP, take, a, coat, SEP. Below, places "
    "0 to 7; segment 0 for the first four columns and 1 for the last four; "
    "one label, rains, under the mask.",
)

# %% [markdown]
# :::{admonition} The paper says
# :class: paper
# {cite:t}`devlin2019` (§3.1) argue that a deep model which sees both sides is more powerful than
# one that reads from left to right, or than two such models joined at the end; but that with both
# sides in view a word could see itself. So some words are hidden, a *cloze* test
# {cite}`taylor1953`. The second task is meant for questions that need two sentences, and they
# find it useful (§5.1). Without it, in their Table 5, accuracy on QNLI falls from 88.4 to 84.9,
# and on SST-2 from 92.7 to 92.6.
# :::
#
# :::{admonition} Our remark
# :class: remark
# Two things are often run together: *seeing both sides* and *being trained by masks*. The first
# is a property of the architecture, shown in step 9. The second is a way of training it, and
# steps 1 to 4 say what it gives up: a probability for a whole sentence. As for the second task,
# later work leaves it out {cite}`liu2019` (§4.2). We measure it on a small scale below.
# :::
#
# Some sentences about BERT are repeated often, and are wrong.
#
# | Said | True | Source |
# |---|---|---|
# | “BERT trains two independent one-way language models.” | That is ELMo; BERT is one encoder whose every layer sees both sides | {cite:t}`devlin2019`, §1; {cite:t}`peters2018` |
# | “BERT uses ReLU, and Swish is proven better in it.” | BERT uses GELU; the paper on Swish is a year older than BERT | {cite:t}`devlin2019`, A.2; {cite:t}`ramachandran2017` |
# | “BERT is two-stream.” | Two-stream self-attention is XLNet's; two streams for text and image are ViLBERT's | {cite:t}`yang2019`; {cite:t}`lu2019` |

# %% [markdown]
# ## Derivation
#
# Nine steps. Each numbered equation is followed by a cell that runs it. The first four ask what
# masked language modelling learns, the next three how it is done, the last two what the second task
# and the second side are worth.
#
# ### Step 1. One hidden token: a pseudo-likelihood
#
# Chapter 13 shows in its first step that a cross-entropy is least where the model answers with the
# data's own conditional distribution, and that a model which knows nothing begins at $\ln V$. So
# let the model be perfect. Hide one token, drawn uniformly from $n$, always by [MASK]. The expected
# loss of the sentence $x$ is
#
# $$
# \begin{aligned}
# \mathbb{E}_t\big[-\log p(x_t \mid x_{\setminus t})\big]
# &= -\frac{1}{n} \sum_{t=1}^{n} \log p(x_t \mid x_{\setminus t}) \\
# &= -\frac{1}{n} \log \underbrace{\prod_{t=1}^{n} p(x_t \mid x_{\setminus t})}_{\mathrm{PL}(x)} ,
# \end{aligned}
# $$ (eq-bert-pseudo)
#
# where $x_{\setminus t}$ is the sentence without token $t$. The product of each token given *all*
# others is the *pseudo-likelihood* {cite}`besag1975`. We take a world that can be listed: three
# words, three positions, a random joint distribution, 27 sentences.

# %%
V, n = 3, 3
generator = torch.Generator().manual_seed(0)
joint = torch.randn(V, V, V, generator=generator, dtype=double)
joint = (1.5 * joint).flatten().softmax(0).view(V, V, V)  # P(x_1, x_2, x_3)


def given_rest(joint, hidden):
    """P(x_t | what is not hidden) for each hidden t, by enumeration.

    Returns {t: a table over (x_1, x_2, x_3)}.
    """
    tables = {}
    for t in hidden:
        others = [s for s in hidden if s != t]
        together = joint.sum(others, keepdim=True) if others else joint
        tables[t] = (together / together.sum(t, keepdim=True)).expand(V, V, V)
    return tables


one_by_one = {t: given_rest(joint, (t,))[t] for t in range(n)}
PL = one_by_one[0] * one_by_one[1] * one_by_one[2]
perfect = {t: table.log() for t, table in one_by_one.items()}
for sentence in [(0, 1, 2), (2, 2, 1)]:
    losses = []
    for t in range(n):
        at = [*sentence]
        at[t] = slice(None)
        logits = torch.zeros(1, n, V, dtype=double)
        logits[0, t] = perfect[t][tuple(at)]
        labels = torch.full((1, n), -100)
        labels[0, t] = sentence[t]
        losses.append(masked_lm_loss(logits, labels))
    check("eq-bert-pseudo", sum(losses) / n, -PL[sentence].log() / n)

# %% [markdown]
# ### Step 2. A pseudo-likelihood is not a likelihood
#
# A likelihood is a product too, by the chain rule, but each token sees only those before it:
#
# $$
# P(x) = \prod_{t=1}^{n} p(x_t \mid x_1, \dots, x_{t-1}) .
# $$ (eq-bert-chain)
#
# That is what chapter 10's model learns. The factors of $\mathrm{PL}$ see more. To know more
# never makes one less certain on average:
# $H(X_t \mid X_{\setminus t}) \le H(X_t \mid X_1, \dots, X_{t-1})$, since conditioning on more
# cannot raise an entropy. Sum over $t$; on the right the chain rule adds up to $H(X)$:
#
# $$
# \begin{aligned}
# \mathbb{E}\big[-\log \mathrm{PL}(X)\big] &= \sum_{t} H(X_t \mid X_{\setminus t}) \\
# &\le H(X) = \mathbb{E}\big[-\log P(X)\big] .
# \end{aligned}
# $$ (eq-bert-entropy)
#
# So **a masked model's loss is lower, and that does not make it the better model**: it answers
# easier questions. Take the extreme. The text has two words, and the second repeats the first,
# any of $V$ with the same probability. Each word alone tells the other, so $\mathrm{PL} = 1$ for
# every possible text, and
#
# $$
# \sum_x \mathrm{PL}(x) = V , \qquad P(x) = \frac{1}{V} .
# $$ (eq-bert-unnormalised)
#
# The probabilities of all texts “sum” to $V$. A perplexity made of them cannot be compared with a
# language model's.

# %%
entr = torch.special.entr  # −p log p
first = joint.sum((1, 2))  # (V,): P(x_1)
first_two = joint.sum(2)
chain = (
    first[:, None, None]
    * (first_two / first[:, None])[:, :, None]
    * (joint / first_two[:, :, None])
)
check("eq-bert-chain", chain, joint)
H = entr(joint).sum()
H_rest = [entr(joint).sum() - entr(joint.sum(t)).sum() for t in range(n)]
check("eq-bert-entropy", -(joint * PL.log()).sum(), sum(H_rest))
check("the pseudo-likelihood promises more", bool(sum(H_rest) < H))
glue("bert-entropy", H.item())
glue("bert-pseudo-entropy", sum(H_rest).item())

repeat = torch.eye(7, dtype=double) / 7  # P(x_1, x_2)
both_ways = (repeat / repeat.sum(0)) * (repeat / repeat.sum(1, keepdim=True))
check("eq-bert-unnormalised", both_ways.sum(), 7.0)
check("each text alone has probability 1/V", repeat.diagonal(), 1 / 7)

# %% [markdown]
# In our small world a sentence costs {glue:text}`bert-entropy:.2f` nats, and its pseudo-likelihood
# {glue:text}`bert-pseudo-entropy:.2f`.
#
# ### Step 3. Several hidden tokens are guessed independently
#
# Now hide a set $S$ of several. The model answers at each position by itself, without hearing what
# it says at the others. A perfect model gives each its conditional distribution, so
# the whole answer is a product, where the truth is a joint distribution. The distance is
#
# $$
# \begin{aligned}
# & \mathrm{KL}\Big(P(x_S \mid x_{\setminus S}) \,\Big\|\, \prod_{t \in S} P(x_t \mid
# x_{\setminus S})\Big) \\
# & \quad = \sum_{t \in S} H(X_t \mid X_{\setminus S}) - H(X_S \mid X_{\setminus S}) \;\ge\; 0 .
# \end{aligned}
# $$ (eq-bert-independent)
#
# Write out the logarithm of the quotient to see it: $\log P(x_S \mid \cdot)$ has the expectation
# $-H(X_S \mid \cdot)$, and each factor of the product one more entropy with a plus. It is zero
# just where the hidden tokens are independent given the visible ones. No training removes it: it
# is what the answer's *form* cannot say.
#
# Two hidden words, two cities, equally likely: *New York* and *San Francisco*. Each position is
# half one and half the other, so the product also gives a quarter each to *New Francisco* and *San
# York*, which nobody ever wrote.

# %%
hidden = (0, 2)
pair_given = joint / joint.sum(hidden, keepdim=True)  # P(x_1, x_3 | x_2)
tables = given_rest(joint, hidden)
product = tables[0] * tables[2]
kl = (joint * (pair_given / product).log()).sum()
visible = entr(joint.sum(hidden)).sum()  # H(X_2)
H_each = [entr(joint.sum(2 - t)).sum() - visible for t in hidden]
check("eq-bert-independent", kl, sum(H_each) - (H - visible))
check("the product is not the joint distribution", bool(kl > 0.01))

cities = torch.tensor([[0.5, 0.0], [0.0, 0.5]], dtype=double)
product = torch.outer(cities.sum(1), cities.sum(0))
print("              truth   product of the two answers")
for a, b in itertools.product(range(2), range(2)):
    name = f"{('New', 'San')[a]} {('York', 'Francisco')[b]}"
    print(f"{name:14}{cities[a, b]:5.2f}{product[a, b]:9.2f}")
check("half of what it says is impossible", product[cities == 0].sum(), 0.5)

a, b = joint.sum((1, 2)), joint.sum((0, 1))
apart = a[:, None, None] * joint.sum((0, 2))[None, :, None] * b
tables = given_rest(apart, hidden)
truth = apart / apart.sum(hidden, keepdim=True)
lost = (apart * (truth / (tables[0] * tables[2])).log()).sum()
check("independent tokens lose nothing", lost, 0.0)

# %% [markdown]
# The last line is the hypothesis under which nothing is lost. {cite:t}`yang2019` name this gap
# as a reason for XLNet, which guesses the hidden tokens one after another.
#
# ### Step 4. Answers that fit no joint distribution
#
# Can a sentence's probability be had from the conditionals in another way? If they come from one
# $P(a, b)$, then $p(a \mid b) = P(a, b)/P(b)$ and $p(b \mid a) = P(a, b)/P(a)$. In the *cross-ratio*
# of four texts the denominators cancel, so it comes out the same from either side:
#
# $$
# \begin{aligned}
# \frac{p(a \mid b)\, p(a' \mid b')}{p(a' \mid b)\, p(a \mid b')}
# &= \frac{P(a, b)\, P(a', b')}{P(a', b)\, P(a, b')} \\
# &= \frac{p(b \mid a)\, p(b' \mid a')}{p(b \mid a')\, p(b' \mid a)} .
# \end{aligned}
# $$ (eq-bert-compatible)
#
# A network has no reason to obey it: what it says of $a$ with $b$ in view and of $b$ with $a$ in
# view are two forward passes. If the two sides differ, **no** joint distribution has these
# conditionals. {cite:t}`wangcho2019` draw sentences from BERT by masking one token after another.
# That works as a procedure; with conditionals that fit no joint, the order of visits has a say in
# the result.


# %%
def cross_ratio(first_given, second_given):
    """Both sides of the condition, in logs, for words 0 and 1 in either place."""
    A, B = first_given.log(), second_given.log()  # (a, b): p(a | b), p(b | a)
    left = A[0, 0] + A[1, 1] - A[1, 0] - A[0, 1]
    right = B[0, 0] + B[1, 1] - B[1, 0] - B[0, 1]
    return left, right


two = joint[:, :, 0] / joint[:, :, 0].sum()
left, right = cross_ratio(two / two.sum(0), two / two.sum(1, keepdim=True))
check("eq-bert-compatible", left, right)

torch.manual_seed(0)
tiny = BERTConfig(
    11,
    d_model=16,
    num_layers=2,
    num_heads=2,
    d_ff=32,
    max_length=8,
    dropout=0.0,
    attention_dropout=0.0,
    init_std=0.3,
)
small = BERT(tiny).double().eval()
MASK_ID, words = 10, (4, 5)
says_first, says_second = torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
with torch.no_grad():
    for k, word in enumerate(words):
        for table, ids, at in [
            (says_first.T, [0, MASK_ID, word, 1], 1),
            (says_second, [0, word, MASK_ID, 1], 2),
        ]:
            logits = small(torch.tensor([ids]))[0][0, at]
            table[k] = logits.softmax(-1)[list(words)]
left, right = cross_ratio(says_first, says_second)
glue("bert-incompatible", abs(left - right).item())
check("a network's two answers fit no joint", bool(abs(left - right) > 1e-3))

# %% [markdown]
# In a small untrained BERT the two sides differ by {glue:text}`bert-incompatible:.2f` in their
# logarithms. It is an untrained one; how far a trained model comes to agree with itself, we have
# not measured.
#
# ### Step 5. 80, 10, 10
#
# Each token is chosen with the probability $.15$ of {cite:t}`devlin2019` (§3.1), and then masked,
# replaced or kept. So, of *all* tokens,
#
# $$
# \begin{aligned}
# P(\text{masked}) &= .15 \cdot .8 = .120 \\
# P(\text{random}) &= .15 \cdot .1 = .015 \\
# P(\text{kept}) &= .15 \cdot .1 = .015 .
# \end{aligned}
# $$ (eq-bert-shares)
#
# A random word may happen to be the right one, once in $V$ times. So the share of tokens that *look*
# different is
#
# $$
# .120 + .015\,\Big(1 - \frac{1}{V}\Big) .
# $$ (eq-bert-changed)
#
# We draw for each token by itself, and allow five standard errors. The library does better than
# that: it shares the chosen tokens out, so that in every batch the three parts are right to
# within one token. A common mistake takes a tenth for random words first, and then a tenth *of
# the rest* to keep: the last part is too small.

# %%
draws, size = 400_000, 50
chosen = torch.rand(draws, generator=generator) < 0.15
fate = torch.rand(draws, generator=generator)
counts = {
    "masked": chosen & (fate < 0.8),
    "random": chosen & (fate >= 0.8) & (fate < 0.9),
    "kept": chosen & (fate >= 0.9),
}
for (name, found), share in zip(
    counts.items(), (0.12, 0.015, 0.015), strict=True
):
    error = math.sqrt(share * (1 - share) / draws)
    check("eq-bert-shares", found.double().mean(), share, atol=5 * error)
    print(f"{name:8}{found.double().mean():.4f}   wanted {share:.3f}")

ids = torch.randint(5, size, (400, 1000), generator=generator)
corrupted, labels = mask_tokens(
    ids, vocab_size=size, mask_token_id=4, special_token_ids=(4,), rng=generator
)
changed, want = (corrupted != ids).double().mean(), 0.12 + 0.015 * (1 - 1 / size)
# What the library draws is .015 · N random words, each right once in V times.
error = math.sqrt(0.015 * (1 / size) / ids.numel())
check("eq-bert-changed", changed, want, atol=5 * error + 2 / ids.numel())
for name, found, share in [
    ("chosen", labels != -100, 0.15),
    ("masked", corrupted == 4, 0.12),
]:
    # Random words may be the mask itself: once in V of .015.
    slack = 2 + (8 * 0.015 * ids.numel() / size if name == "masked" else 0)
    gap = abs(found.sum().item() - share * ids.numel())
    check(f"the library's count: {name}", gap < slack)

# %% [markdown]
# ### Step 6. What the ten per cents are for
#
# [MASK] stands in no text that a task will show. If *every* chosen token became [MASK], the loss
# would never touch a position with an ordinary word, and what the model computes there would be
# nobody's business. Fine-tuning then begins with vectors that were never trained to mean anything
# at just the places that it will use.
#
# What is the best answer, then, at a position that shows an ordinary word $v$ and has a label? Let
# $p(u)$ be the word's distribution given the context. There are two ways to get there. The token
# was kept, and was $v$: probability proportional to $p(v)$. Or it was $u$, and $v$ was drawn at
# random, one word in $V$: proportional to $p(u)/V$, with the same factor, since as many are kept as
# are random. Divide by the sum over $u$:
#
# $$
# \begin{aligned}
# & P(x_t = u \mid \text{label, shows } v) \\
# & \quad = \frac{[u = v]\; p(v) + p(u)/V}{p(v) + 1/V} .
# \end{aligned}
# $$ (eq-bert-visible)
#
# Here is the whole mechanism in one formula. If $v$ fits, $p(v) \gg 1/V$, the best answer is $v$
# itself: *believe what you see*. If it does not, $p(v) \ll 1/V$, the answer is $p$: *distrust it,
# and read the context*. To tell the two apart the model must know $p$ at **every** position, for
# any token may have a label. Leave either part out and the balance is gone: without kept tokens
# the answer is $p(u)$, whatever is seen; without random ones it is $v$, and copying is perfect.

# %%
V6, m = 6, 400_000
p = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.029, 0.001], dtype=double)


def best_at_word(p, kept=0.1, random=0.1):
    """P(u | labelled, shows v), as a table (u, v)."""
    size = len(p)
    both = kept * torch.diag(p) + random * p[:, None].expand(-1, size) / size
    return both / both.sum(0)


x = torch.multinomial(p, m, replacement=True, generator=generator)
noise = torch.randint(V6, (m,), generator=generator)
seen = torch.where(torch.rand(m, generator=generator) < 0.5, x, noise)
formula = (torch.diag(p) + p[:, None] / V6) / (p + 1 / V6)
check("eq-bert-visible", best_at_word(p), formula)
for v in range(V6):
    shown_v = seen == v
    found = torch.bincount(x[shown_v], minlength=V6).double() / shown_v.sum()
    error = (formula[:, v] * (1 - formula[:, v]) / shown_v.sum()).sqrt()
    gap = ((found - formula[:, v]) / error).abs().max()
    check(f"counted, where word {v} is seen", gap, 0.0, atol=5)
check(
    "without kept tokens: the context alone",
    best_at_word(p, kept=0.0),
    p[:, None].expand(-1, V6),
)
check(
    "without random tokens: copying is perfect",
    best_at_word(p, random=0.0),
    torch.eye(V6, dtype=double),
)

# %% tags=["hide-input"]
fit_p = torch.logspace(-7, 0, 200, dtype=double)
fig, ax = plt.subplots(figsize=(4.6, 3.0))
for size, style, color in [(30522, "-", "query"), (62, "--", "key")]:
    trust = (fit_p + fit_p / size) / (fit_p + 1 / size)
    ax.semilogx(fit_p, trust, style, color=COLORS[color], label=f"V = {size:,}")
    ax.axvline(1 / size, color=COLORS["reference"], linewidth=1, linestyle=":")
ax.set(
    xlabel="p(v), how well the word seen fits",
    ylabel="best answer: “it is v”",
)
ax.legend(loc="lower right")
show_figure(
    fig,
    name="fig-bert-trust",
    caption="How far a visible word is to be believed, for two sizes of the "
    "vocabulary. Dotted: $p(v) = 1/V$, where a word fits no better than "
    "one drawn blindly; there the best answer is about one half.",
    alt="Two rising curves over p on a logarithmic axis. Each goes from zero "
    "to one and passes one half near its dotted line, at one over V; the "
    "curve of the larger vocabulary lies further left.",
)

# %% [markdown]
# {numref}`fig-bert-trust` draws the answer. The recorded run below measures what becomes of a model
# that is trained with masks alone.
#
# ### Step 7. A mean over chosen tokens, and how to cut a batch
#
# {eq}`def-bert-mlm` divides by $|S|$, the chosen tokens, and not by the number of positions. A
# loss that divides by all positions is several times smaller, and, worse, depends on the padding.
# Now let the batch be too large for the memory, and be cut into $k$ microbatches with
# $|S_1|, \dots, |S_k|$ chosen tokens. Each has its own mean $L_i$. The loss of the whole is
#
# $$
# L = \sum_{i=1}^{k} \frac{|S_i|}{|S|}\, L_i, \qquad
# \nabla L = \frac{1}{|S|} \sum_{i=1}^{k} \nabla \big(|S_i|\, L_i\big) ,
# $$ (eq-bert-accumulate)
#
# as one sees by writing $|S_i| L_i$ as a sum over tokens. The usual $\frac1k \sum_i L_i$ gives
# a token of microbatch $i$ the weight
#
# $$
# \frac{1}{k\,|S_i|} \quad\text{in place of}\quad \frac{1}{|S|} .
# $$ (eq-bert-weight)
#
# The two agree only if all $|S_i|$ are equal. With padding they are not: a microbatch of short
# texts shouts. The remedy is to add up *sums*, and to divide once.


# %%
def batch_of_unequal_rows():
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 10, (8, 8), generator=g)
    labels = torch.full((8, 8), -100)
    labels[:2], labels[2:, 3] = ids[:2], ids[2:, 3]  # 16 labels, then 1 a row
    return ids.masked_fill(labels != -100, MASK_ID), labels


def gradient(loss_of_parts, parts=4):
    """The gradient of a small BERT, over microbatches."""
    small.zero_grad()
    ids, labels = batch_of_unequal_rows()
    whole = count_tokens(labels != -100)
    for x, y in zip(ids.chunk(parts), labels.chunk(parts), strict=True):
        loss_of_parts(small(x)[0], y, whole, parts).backward()
    return torch.cat([w.grad.flatten() for w in small.encoder.parameters()])


def sum_over_count(logits, labels, whole, parts):
    return masked_lm_loss(logits, labels, reduction="sum") / whole


def mean_of_means(logits, labels, whole, parts):
    return masked_lm_loss(logits, labels) / parts


whole_batch = gradient(sum_over_count, parts=1)
check("eq-bert-accumulate", gradient(sum_over_count), whole_batch)
ids, labels = batch_of_unequal_rows()
terms = torch.zeros(8, 8, dtype=double, requires_grad=True)  # a loss a token
chosen = labels != -100
means = [
    part[mask].mean()
    for part, mask in zip(terms.chunk(4), chosen.chunk(4), strict=True)
]
(sum(means) / 4).backward()
count_of_part = torch.tensor([c.sum() for c in chosen.chunk(4)]).double()
weight = (1 / (4 * count_of_part)).repeat_interleave(2)[:, None] * chosen
check("eq-bert-weight", terms.grad, weight)
print("a token's weight in the first microbatch, and in the others:")
print(f"  mean of means {weight[0].max():.4f} and {weight[7].max():.4f}")
print(f"  one batch     {1 / chosen.sum():.4f} and {1 / chosen.sum():.4f}")

# %% [markdown]
# ### Step 8. What next-sentence prediction asks
#
# Two classes, and a model that knows nothing gives each one half:
#
# $$
# L_{\text{NSP}} = -\log \tfrac12 = \ln 2 \qquad \text{at the start.}
# $$ (eq-bert-nsp-start)
#
# And a model that knows everything? Let half of the pairs be true ones, with probability $P(A)\,P(B
# \mid A)$, and half be drawn independently, $P(A)\,P(B)$. By Bayes' rule the probability that B
# follows is the first over the sum of both, and its log-odds are
#
# $$
# z_0 - z_1 = \log \frac{P(B \mid A)}{P(B)} .
# $$ (eq-bert-nsp-optimum)
#
# It is the *pointwise mutual information* of the two texts: how much likelier is B, now that we
# have seen A? Say that each document has a topic $c$, and that A shows it. Then the one number is
# a sum of two:
#
# $$
# \log \frac{P(B \mid A)}{P(B)} = \underbrace{\log \frac{P(B \mid c)}{P(B)}}_{\text{same topic}}
# + \underbrace{\log \frac{P(B \mid A)}{P(B \mid c)}}_{\text{continues A}} .
# $$ (eq-bert-nsp-topic)
#
# A random negative mostly has another topic, so the first part alone goes far: it can be had from
# words that A and B share, without any order. Draw the negatives from the *same* document
# instead, and $P(B)$ becomes $P(B \mid c)$. The first part is gone, and only coherence is left.
# (ALBERT removes the topic in another way: it swaps A and B and asks for their order
# {cite}`lan2020` (§3.1).) We check it in a world of two topics, where each of four “texts” is
# either on topic or not.

# %%
logits = torch.zeros(5, 2, dtype=double)
follows = torch.tensor([0, 1, 1, 0, 1])
check("eq-bert-nsp-start", next_sentence_loss(logits, follows), math.log(2))
torch.manual_seed(0)
fresh = BERT(
    BERTConfig(
        1009, d_model=32, num_layers=2, num_heads=2, d_ff=64, max_length=32
    )
).eval()
ids = torch.randint(1009, (8, 32), generator=generator)
with torch.no_grad():
    mlm_logits, nsp_logits = fresh(ids)
start_mlm = masked_lm_loss(mlm_logits, ids)
start_nsp = next_sentence_loss(nsp_logits, ids[:, 0] % 2)
check("a fresh BERT begins near ln V", start_mlm, math.log(1009), atol=0.1)
check("and near ln 2", start_nsp, math.log(2), atol=0.05)

topic = torch.tensor([0, 0, 1, 1])  # of text A, which shows it
after = torch.tensor(  # P(B | A): rows A, columns B
    [
        [0.1, 0.7, 0.1, 0.1],
        [0.5, 0.3, 0.1, 0.1],
        [0.1, 0.1, 0.2, 0.6],
        [0.2, 0.1, 0.4, 0.3],
    ],
    dtype=double,
)
of_A = torch.tensor([0.3, 0.2, 0.3, 0.2], dtype=double)
true, drawn = of_A[:, None] * after, of_A[:, None] * (of_A @ after)[None]
z = torch.zeros(4, 4, dtype=double, requires_grad=True)  # a logit a pair
optimizer = torch.optim.LBFGS(
    [z], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16
)


def closure():
    optimizer.zero_grad()
    loss = 0.5 * (true * F.softplus(-z) + drawn * F.softplus(z)).sum()
    loss.backward()
    return loss


for _ in range(20):
    optimizer.step(closure)
information = (after / (of_A @ after)).log()
check("eq-bert-nsp-optimum", z, information, atol=1e-6)
of_topic = torch.stack(
    [(of_A * (topic == c))[None] @ after / of_A[topic == c].sum() for c in (0, 1)]
)[:, 0]  # P(B | c)
same_topic = (of_topic[topic] / (of_A @ after)).log()
continues = (after / of_topic[topic]).log()
check("eq-bert-nsp-topic", same_topic + continues, information)
share = (true * same_topic).sum() / (true * information).sum()
glue("bert-topic-share", share.item())
topic_and_B = torch.stack([true[topic == c].sum(0) for c in (0, 1)])
check(
    "the mean of the first part is what the topic tells of B",
    (true * same_topic).sum(),
    entr(topic_and_B.sum(0)).sum()
    + entr(topic_and_B.sum(1)).sum()
    - entr(topic_and_B).sum(),
)

# %% [markdown]
# In this invented world the topic makes {glue:text}`bert-topic-share:.0%` of the information. How
# much it is in real text, the measurement below shows by way of a baseline.
#
# ### Step 9. What seeing both sides buys
#
# Let $l$ be what stands to the left of a hidden word, and $r$ what stands to the right. A model
# that reads from the left answers with a function of $l$, one that reads from the right with a
# function of $r$. Train them separately and add their logits, $f(l) + g(r)$. Move the left a
# little, then the right:
#
# $$
# \frac{\partial^2}{\partial l\, \partial r} \big(f(l) + g(r)\big) = 0 .
# $$ (eq-bert-mixed)
#
# What the left contributes does not depend on the right, ever. In one encoder that attends to
# both sides it does: a word's query meets keys of both sides in one softmax. The extreme case is
# a word that is *only* determined by both. Let $l$ and $r$ be fair coins, and the hidden word
# their sum modulo 2:
#
# $$
# \begin{gathered}
# H(X) = H(X \mid l) = H(X \mid r) = \ln 2, \\
# H(X \mid l, r) = 0 .
# \end{gathered}
# $$ (eq-bert-xor)
#
# Each one-way model is at a loss, and so is any sum of the two; a model that sees both is certain.
# Languages are not like that coin. But *it is the two together that count* is common: “the bank of
# the [MASK]” and “approved the loan”.

# %%
coins = torch.zeros(2, 2, 2, dtype=double)  # P(l, x, r)
for a, b in itertools.product(range(2), range(2)):
    coins[a, (a + b) % 2, b] = 0.25
entropies = [
    entr(coins.sum((0, 2))).sum(),
    entr(coins.sum(2)).sum() - entr(coins.sum((1, 2))).sum(),
    entr(coins.sum(0)).sum() - entr(coins.sum((0, 1))).sum(),
    entr(coins).sum() - entr(coins.sum(1)).sum(),
]
ln2 = math.log(2)
check("eq-bert-xor", entropies, [ln2, ln2, ln2, 0.0])

f, g = torch.randn(2, 3, generator=generator, dtype=double)
l = torch.randn(3, generator=generator, dtype=double, requires_grad=True)
r = torch.randn(3, generator=generator, dtype=double, requires_grad=True)


def mixed(function):
    """∂²/∂l∂r of a number, (3, 3)."""
    (by_left,) = torch.autograd.grad(function(l, r), l, create_graph=True)
    rows = [
        torch.autograd.grad(
            entry, r, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]
        for entry in by_left
    ]
    return torch.stack(rows)


check(
    "eq-bert-mixed",
    mixed(lambda l, r: (f @ l).tanh() + (g @ r).tanh()),
    torch.zeros(3, 3, dtype=double),
)
joined = mixed(lambda l, r: (f @ l + g @ r).tanh())
check("one function of both is another matter", bool(joined.abs().max() > 1e-3))

# %% [markdown]
# ## From scratch
#
# A pair of short texts: “it rains” and “take a coat”. Two tokens were chosen: “rains” became
# [MASK], and “coat” stayed as it is. Here is all that a model would answer, for a vocabulary of
# five words, and both losses in plain Python.

# %%
vocabulary = ["it", "rains", "take", "a", "coat"]
pair = ["[CLS]", "it", "rains", "[SEP]", "take", "a", "coat", "[SEP]"]
reads = [*pair]
reads[2] = "[MASK]"
segments, now = [], 0
for token in pair:  # the first [SEP] still belongs to the first text
    segments.append(now)
    now += token == "[SEP]"
answers = {  # the model's probabilities where there is a label
    2: [0.1, 0.6, 0.1, 0.1, 0.1],  # sees [MASK]
    6: [0.05, 0.05, 0.05, 0.05, 0.8],  # sees the word itself
}
z = [1.5, -0.5]  # “B follows A”, “it does not”
y = 0  # it does

mlm_terms = {
    t: -math.log(chances[vocabulary.index(pair[t])])
    for t, chances in answers.items()
}
mlm_by_hand = sum(mlm_terms.values()) / len(mlm_terms)
nsp_by_hand = -z[y] + math.log(sum(math.exp(number) for number in z))
print(f"{'token':8}{'reads':8}{'segment':>8}{'loss':>8}")
for t, (token, read, segment) in enumerate(
    zip(pair, reads, segments, strict=True)
):
    loss = f"{mlm_terms[t]:8.3f}" if t in mlm_terms else ""
    print(f"{token:8}{read:8}{segment:8d}{loss}")
print(f"L_MLM = (−ln .6 − ln .8)/2     = {mlm_by_hand:.4f}")
print(f"L_NSP = −1.5 + ln(e^1.5 + e^−.5) = {nsp_by_hand:.4f}")
print(f"L     = L_MLM + L_NSP          = {mlm_by_hand + nsp_by_hand:.4f}")

# %% [markdown]
# ## The library function
#
# Hiding, with the exact shares of step 5:
#
# ```{lib-source} lib.corruption.mask_tokens
# ```
#
# The second loss. It is the first one with two classes:
#
# ```{lib-source} lib.losses.next_sentence_loss
# ```
#
# And the model: the encoder of chapter 6 on top of the sum {eq}`def-bert-input`, with two heads.
# The words of the output are those of the input, one matrix $E$.
#
# ```{lib-source} lib.models.bert.Embeddings.forward
# ```
#
# ```{lib-source} lib.models.bert.BERT.forward
# ```
#
# It gives the numbers that we found by hand, and those of torch.

# %%
mlm_logits = torch.zeros(1, 8, 5, dtype=double)
labels = torch.full((1, 8), -100)
for t, chances in answers.items():
    mlm_logits[0, t] = torch.tensor(chances, dtype=double).log()
    labels[0, t] = vocabulary.index(pair[t])
nsp_logits = torch.tensor([z], dtype=double)
check(
    "by hand = the library: L_MLM",
    masked_lm_loss(mlm_logits, labels),
    mlm_by_hand,
)
check(
    "by hand = the library: L_NSP",
    next_sentence_loss(nsp_logits, torch.tensor([y])),
    nsp_by_hand,
)
check(
    "L_MLM = torch's cross-entropy",
    F.cross_entropy(mlm_logits.flatten(0, 1), labels.flatten()),
    mlm_by_hand,
)
ids = torch.randint(2, 10, (2, 8), generator=generator)
token_types = torch.tensor([segments, segments])
hidden = small.encode(ids, token_type_ids=token_types)
embed = small.encoder.embeddings
summed = (
    embed.word.weight[ids]
    + embed.position.weight[:8]
    + embed.segment.weight[token_types]
)
by_hand = embed.norm(summed)
for layer in small.encoder.layers:
    by_hand = layer(by_hand, None)
check("the sum of three vectors, and the layers on top", by_hand, hidden)
pooled = torch.tanh(hidden[:, 0] @ small.pooler.weight.T + small.pooler.bias)
by_hand = pooled @ small.next_sentence.weight.T + small.next_sentence.bias
check(
    "pairs are judged from [CLS] alone",
    by_hand,
    small(ids, token_type_ids=token_types)[1],
)

# %% [markdown]
# Is it *BERT*? The official implementation is the judge: a small model with random weights, saved
# as the official library does, and loaded by `BERT.from_pretrained`. Random weights matter here:
# with the default initial ones many mistakes would stay below any tolerance.


# %%
def official_and_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = transformers.BertConfig(
        vocab_size=47,
        hidden_size=21,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=29,
        max_position_embeddings=19,
    )
    reference = transformers.BertForPreTraining(config).double().eval()
    reference.config.dtype = double
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.copy_(0.4 * torch.randn(weight.shape, generator=g).double())
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        return reference, BERT.from_pretrained(folder)


reference, ours = official_and_ours()
ids = torch.randint(47, (3, 13), generator=generator)
mask = (torch.arange(13) < torch.tensor([[13], [9], [4]])).long()
token_types = (torch.arange(13) > 5).long().expand(3, 13)
with torch.no_grad():
    want = reference(ids, attention_mask=mask, token_type_ids=token_types)
    got = ours(ids, attention_mask=mask, token_type_ids=token_types)
check("official = ours: words", got[0], want.prediction_logits, atol=1e-9)
check(
    "official = ours: pairs",
    got[1],
    want.seq_relationship_logits,
    atol=1e-9,
)

# %% [markdown]
# On Colab the released weights load in the same way, and fill in a word. Elsewhere the cell says
# that it asks nobody.


# %%
def released(name):
    return BERT.from_pretrained(name), Tokenizer.from_pretrained(name)


loaded = official(released, "google-bert/bert-base-uncased")
if loaded is not None:
    bert_base, tokenizer = loaded
    batch = tokenizer(["The capital of France is [MASK]."])
    with torch.no_grad():
        logits, _ = bert_base(batch["input_ids"])
    place = batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    best = logits[0, place].softmax(-1).topk(5)
    for word, chance in zip(
        tokenizer.tokens(best.indices), best.values.tolist(), strict=True
    ):
        print(f"{word:12}{chance:.3f}")

# %% [markdown]
# ## On real data
#
# The text is the documentation inside Python's standard library, read character by character, as
# in chapter 13: with about sixty different tokens a tiny model gets somewhere in minutes. A *document*
# is a docstring, cut between words into pieces of up to 46 characters. A pair is [CLS] A [SEP] B
# [SEP].
#
# Pre-training has two parts, as BERT's had: nine tenths of its steps read short texts
# {cite}`devlin2019` (A.2). Short texts are cheap, and there are fewer places among which attention has
# to find the neighbours. How much our small model gains by it was not measured: all of its arms begin
# in this way.
#
# ### A small run
#
# We begin with short texts, on masked characters alone, for a few seconds.

# %% tags=["nbval-ignore-output"]
corpus = tasks.corpus()
config = tasks.config_for(corpus)
print(
    f"{len(corpus.train):,} documents to train on, {len(corpus.held_out)} held "
    f"out; {len(corpus.characters)} characters; sha256 {corpus.sha256[:12]}"
)
LIVE_STEPS = 600
model, losses = tasks.begin(
    corpus,
    config,
    steps=LIVE_STEPS,
    seed=0,
    device=device,
    progress=lambda steps: Progress(steps, label="masked characters"),
)

# %%
text = "".join("".join(pieces) for pieces in corpus.train)
counted = torch.bincount(torch.tensor(corpus.encode(text)))
frequencies = counted.double() / counted.sum()
unigram = entr(frequencies).sum().item()
smooth = np.convolve(losses, np.ones(20) / 20, mode="valid")
fig, ax = plt.subplots(figsize=(4.8, 3.0))
ax.plot(np.arange(len(smooth)) + 20, smooth, color=COLORS["query"], label="loss")
ax.axhline(math.log(config.vocab_size), color=COLORS["reference"], linestyle=":")
ax.axhline(unigram, color=COLORS["reference"], linestyle="--")
ax.text(LIVE_STEPS, math.log(config.vocab_size), "ln V ", ha="right", va="bottom")
ax.text(LIVE_STEPS, unigram, "frequencies ", ha="right", va="bottom")
ax.set(xlabel="step", ylabel="loss, nats a hidden character")
show_figure(
    fig,
    name="fig-bert-loss",
    caption="The loss of hidden characters in the small run, a mean over 20 "
    "steps. Dotted: $\\ln V$, a model that knows nothing. Dashed: one that "
    "knows how frequent each character is.",
    alt="A falling curve. It drops quickly from ln V to the dashed line of "
    "the frequencies, stays near it for a while, and then falls further, "
    "well below it.",
)
found = tasks.at_masks_and_elsewhere(model, corpus)
for name, value in found.items():
    print(f"{name:18}{value:.3f}")
glue("bert-live-loss", found["masked_loss"])
glue("bert-live-unigram", unigram)
check("it is below the frequencies", found["masked_loss"] < unigram - 0.05)

# %% [markdown]
# On held-out text a hidden character costs {glue:text}`bert-live-loss:.2f` nats, where
# frequencies alone cost {glue:text}`bert-live-unigram:.2f` ({numref}`fig-bert-loss`). The curve
# lies lower, since a tenth of the chosen characters is kept, and costs little. Look at one line
# of it. Choose *masked*, and a character; below it stands what the model thinks of. Some of the
# chosen are not hidden: they stand there as they were, or another one does.

# %%
line = next(
    pieces[0] for pieces in corpus.held_out if 24 <= len(pieces[0]) <= 30
)
row = torch.tensor([[tasks.CLS, *corpus.encode(line), tasks.SEP]])
corrupted, labels = mask_tokens(
    row,
    vocab_size=config.vocab_size,
    mask_token_id=tasks.MASK,
    special_token_ids=tasks.SPECIAL,
    share=0.3,
    parts=(0.6, 0.2, 0.2),
    rng=torch.Generator().manual_seed(3),
)
with torch.no_grad():
    chances = model(corrupted.to(device))[0][0].softmax(-1).cpu()
best = chances.topk(5)
chosen = labels[0] != -100
TokenStrip(
    corpus.decode(row[0].tolist()),
    masked=corpus.decode(corrupted[0].tolist()),
    selected=chosen,
    candidates={
        t: list(
            zip(
                corpus.decode(best.indices[t].tolist()),
                best.values[t].tolist(),
                strict=True,
            )
        )
        for t in chosen.nonzero().flatten().tolist()
    },
    mask_token=corpus.characters[tasks.MASK],
    label="A line of documentation with hidden characters (▢ = masked; "
    "more are chosen than in training, to show all three kinds)",
    name="bert-strip",
)

# %% [markdown]
# ### Fine-tuning: one new layer
#
# To use the model, put one linear map on top, and train all weights on, for few steps. What the map
# reads depends on the question:
#
# - **a label for the text** (*modules*: which module is this docstring from?) reads [CLS],
#   through the pooler;
# - **a label for each token** (*names*: is this word a parameter, a constant, an exception?)
#   reads every vector. This is the form of named entity recognition. The labels come from
#   Python's parser: a word is a parameter if the function's signature has it, which the model
#   does not see;
# - **a span of the text** (*dates*: “last year?” of two dates) reads every vector too, and gives
#   two numbers, a logit for “the answer begins here” and one for “it ends here”, as for questions
#   about a paragraph {cite}`devlin2019` (§4.2). Dates are random, written by Babel in two forms
#   of English, and the questions are made from a template: generated data, with a known answer.
#
# The head and its loss are a few lines:
#
# ```{lib-source} lib.teaching.bert_tasks.FineTuned
# ```
#
# We fine-tune for the third task, once from the model above, and once from fresh weights.

# %% tags=["nbval-ignore-output"]
dates = tasks.dates(corpus)
torch.manual_seed(0)
fresh = BERT(config).to(device)
start_local(fresh.encoder)
live = {}
for name, first in [("from scratch", fresh), ("pre-trained", model)]:
    tuned, live[name] = tasks.fine_tune(first, dates, steps=100, seed=0)
    print(f"{name:14}exact match {live[name]:.3f} of {len(dates.held_out_ids):,}")
print(f"{'baseline':14}            {dates.baseline:.3f} ({dates.says})")

# %%
with torch.no_grad():
    logits = tuned(
        dates.held_out_ids[:4].to(device), dates.held_out_segments[:4].to(device)
    )
for row, (i, j) in zip(
    dates.held_out_ids[:4].tolist(), tasks.spans(logits).tolist(), strict=True
):
    question, passage = [], []
    for token in row:
        (passage if tasks.SEP in question else question).append(token)
    letters = corpus.decode(row)
    asked = "".join(letters[1 : letters.index("[SEP]")])
    rest = "".join(letters[len(question) : row.index(tasks.PAD) - 1])
    print(f"{rest}\n   {asked:13} → {''.join(letters[i : j + 1])}")
glue("bert-live-scratch", live["from scratch"])
glue("bert-live-tuned", live["pre-trained"])
check("both beat a constant place", min(live.values()) > dates.baseline + 0.05)

# %% [markdown]
# From the pre-trained model {glue:text}`bert-live-tuned:.0%` of the answers are right to the
# character, from fresh weights {glue:text}`bert-live-scratch:.0%`. That is one seed; the recorded
# run has several.

# %% [markdown]
# ### A larger run, recorded
#
# The next run takes longer than a chapter may. It was made once, by a script in this repository,
# and its results are read from a file. Each seed begins with short texts, as above. From there
# three arms go on with the same number of pairs; the fourth is not pre-trained.
#
# - **scratch**: fresh weights;
# - **MLM**: masked characters alone, in pairs whose B always follows A;
# - **NSP, random**: both losses; half of the Bs are from another document;
# - **NSP, same**: both losses; half of the Bs are from A's own document, but not what follows A.
#
# Then each is fine-tuned for the three tasks, with the same steps and seeds. As a measure, each
# task has a rule without a network.

# %%
run = recorded("bert")
settings, results = run["settings"], run["results"]
runs = results["runs"]
TITLES = {
    "scratch": "scratch",
    "mlm": "MLM",
    "nsp-random": "NSP, random",
    "nsp-same": "NSP, same",
}
TASKS = {"modules": "accuracy", "names": "F1", "dates": "exact match"}


def scores(arm, task):
    return np.array([one["arms"][arm]["scores"][task] for one in runs])


def spread(values):
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


print(f"{'':13}" + "".join(f"{name:>17}" for name in TASKS))
for arm, title in TITLES.items():
    cells = [spread(scores(arm, task)) for task in TASKS]
    print(f"{title:13}" + "".join(f"{cell:>17}" for cell in cells))
    for task in TASKS:
        glue(f"bert-{task}-{arm}", scores(arm, task).mean())
rules = {task: results["tasks"][task]["baseline"] for task in TASKS}
print(f"{'a rule':13}" + "".join(f"{rules[task]:>17.3f}" for task in TASKS))
for task in TASKS:
    glue(f"bert-{task}-rule", rules[task])
    print(f"the rule for {task}: {results['tasks'][task]['says']}")
glue("bert-seeds", len(runs))
PRETRAINED = [arm for arm in TITLES if arm != "scratch"]
for arm in ("nsp-random", "nsp-same"):
    gain = [scores(arm, task) - scores("mlm", task) for task in TASKS]
    ahead = sum(int((one > 0).sum()) for one in gain)
    glue(f"bert-ahead-{arm}", ahead)
    widest = max(abs(one.mean()) for one in gain)
    glue(f"bert-widest-{arm}", widest)
glue("bert-comparisons", len(runs) * len(TASKS))
check(
    "on dates every pre-trained model is ahead of every fresh one",
    min(scores(arm, "dates").min() for arm in PRETRAINED)
    > scores("scratch", "dates").max(),
)
glue("bert-parameters", results["parameters"])
glue("bert-begin-steps", settings["begin_steps"])
glue("bert-pair-steps", settings["pair_steps"])

# %% tags=["hide-input"]
fig, axes = plt.subplots(3, 1, figsize=(4.8, 6.4))
for ax, (task, measure) in zip(axes, TASKS.items(), strict=True):
    for row, arm in enumerate(TITLES):
        values = scores(arm, task)
        ax.plot(
            values, [row] * len(values), "o", color=COLORS["output"], alpha=0.8
        )
        ax.plot(
            [values.mean()] * 2,
            [row - 0.3, row + 0.3],
            "-",
            color=COLORS["query"],
            linewidth=2.5,
        )
    ax.axvline(rules[task], color=COLORS["reference"], linestyle="--")
    ax.set_yticks(range(len(TITLES)), list(TITLES.values()))
    ax.invert_yaxis()
    ax.set_title(f"{task}: {measure}")
show_figure(
    fig,
    name="fig-bert-scores",
    caption="Three tasks after fine-tuning, on held-out texts. A dot is a "
    "seed, the bar their mean, the dashed line a rule without a network.",
    alt="Three dot plots of four arms, scratch, MLM, NSP random and NSP same, "
    "with a dashed line each. For dates the three pre-trained arms lie to the "
    "right of scratch.",
)

# %% [markdown]
# The models have {glue:text}`bert-parameters:,` parameters. They began with
# {glue:text}`bert-begin-steps:.0f` steps on short texts and went on with
# {glue:text}`bert-pair-steps:.0f` on pairs; there are {glue:text}`bert-seeds:.0f` seeds.
# {numref}`fig-bert-scores` shows the three tasks.
#
# **Pre-training pays where it can.** On *dates* {glue:text}`bert-dates-mlm:.3f` of the answers
# are right after masked language modelling, and {glue:text}`bert-dates-scratch:.3f` from scratch,
# with the same few steps. On *names* the F1 is {glue:text}`bert-names-mlm:.3f` against
# {glue:text}`bert-names-scratch:.3f`; but a rule that remembers what each word mostly was, and
# looks at no context, has {glue:text}`bert-names-rule:.3f`. On *modules* it is
# {glue:text}`bert-modules-mlm:.3f` against {glue:text}`bert-modules-scratch:.3f`, where always
# naming the most frequent module gets {glue:text}`bert-modules-rule:.3f`. So compare each number
# with its rule before you call it good. Chapter 13's linear probe reads the mean of all vectors
# of the same docstrings, and not [CLS] alone: how much lies in that choice, we did not measure.
#
# **Does NSP help?** Compare with the MLM arm, seed by seed: {glue:text}`bert-comparisons:.0f`
# comparisons over three tasks. With random negatives NSP is ahead in
# {glue:text}`bert-ahead-nsp-random:.0f` of them, and the largest mean difference on a task, of
# either sign, is {glue:text}`bert-widest-nsp-random:.3f`; with negatives of the same document it is
# ahead in {glue:text}`bert-ahead-nsp-same:.0f`, and the largest is
# {glue:text}`bert-widest-nsp-same:.3f`. A task that needs two *sentences*, for which the paper made
# NSP, is not among ours; *dates* is a pair in form only.
#
# ### Does B follow A?
#
# Now the second task by itself, on {glue:text}`bert-pairs-count:,` held-out pairs. Step 8 says
# what to compare it with: a rule that counts the words which A and B have in common, with the
# best threshold from training pairs, and reads nothing else.

# %%
pairs = {
    (arm, negatives): np.array(
        [one["arms"][arm]["nsp"][negatives] for one in runs]
    )
    for arm in ("nsp-random", "nsp-same")
    for negatives in tasks.NEGATIVES
}
print(f"{'trained on':13}{'random negatives':>20}{'same document':>20}")
for arm in ("nsp-random", "nsp-same"):
    cells = [spread(pairs[arm, negatives]) for negatives in tasks.NEGATIVES]
    print(f"{TITLES[arm]:13}" + "".join(f"{cell:>20}" for cell in cells))
overlap = results["overlap"]
cells = [f"{overlap[negatives]:.3f}" for negatives in tasks.NEGATIVES]
print(f"{'shared words':13}" + "".join(f"{cell:>20}" for cell in cells))
for negatives in tasks.NEGATIVES:
    glue(f"bert-overlap-{negatives}", overlap[negatives])
    for arm in ("nsp-random", "nsp-same"):
        glue(f"bert-pairs-{arm}-{negatives}", pairs[arm, negatives].mean())
glue("bert-pairs-count", settings["nsp_pairs"])
glue("bert-pairs-error", 5 * 0.5 / math.sqrt(settings["nsp_pairs"]))
check(
    "shared words tell more against random negatives",
    overlap["random"] > overlap["same"],
)


# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 2.9))
for column, negatives in enumerate(tasks.NEGATIVES):
    for shift, arm, color in [
        (-0.15, "nsp-random", "query"),
        (0.15, "nsp-same", "value"),
    ]:
        values = pairs[arm, negatives]
        ax.plot(
            [column + shift] * len(values),
            values,
            "o" if arm == "nsp-random" else "s",
            color=COLORS[color],
            label=TITLES[arm] if column == 0 else None,
        )
    ax.plot(
        [column - 0.35, column + 0.35],
        [overlap[negatives]] * 2,
        "-",
        color=COLORS["key"],
        linewidth=2.5,
        label="shared words" if column == 0 else None,
    )
ax.axhline(0.5, color=COLORS["reference"], linestyle=":")
ax.set_xticks(range(2), ["random negatives", "same document"])
ax.set(xlim=(-0.6, 1.6), ylim=(0.42, 0.8), ylabel="accuracy on held-out pairs")
ax.legend(loc="upper right")
show_figure(
    fig,
    name="fig-bert-pairs",
    caption="Does B follow A? A dot is a seed; the line is a rule that only "
    "counts the words which both texts have. Dotted: guessing.",
    alt="Accuracies for two kinds of negatives, on the left random ones, on the "
    "right those of the same document, as dots near one half. The line of the "
    "rule is higher on the left than on the right.",
)

# %% [markdown]
# {numref}`fig-bert-pairs` has the answer. Counting shared words gets
# {glue:text}`bert-overlap-random:.3f` on random negatives, and on negatives of the same document
# {glue:text}`bert-overlap-same:.3f`, as step 8 leads one to expect: what falls away there is the
# topic. The model that was trained on random negatives gets
# {glue:text}`bert-pairs-nsp-random-random:.3f` on them, and
# {glue:text}`bert-pairs-nsp-random-same:.3f` on those of the same document; the one trained on
# the latter {glue:text}`bert-pairs-nsp-same-random:.3f` and
# {glue:text}`bert-pairs-nsp-same-same:.3f`. Guessing is one half, and five standard errors of so
# many pairs are {glue:text}`bert-pairs-error:.3f`. A model of characters must learn to spell
# before it can share words, and pieces of 46 characters share few. So this run is a small one, in
# which the task is not learned well, if at all; it cannot say what NSP does for a model that has
# learned it.
#
# :::{admonition} The papers say
# :class: paper
# {cite:t}`devlin2019` (§5.1, Table 5) find that without NSP a model of BERT-base's size loses on
# QNLI, MNLI and SQuAD. {cite:t}`liu2019` (§4.2) train longer and with other inputs, whole blocks
# of text without the second loss, and match or slightly improve the results. {cite:t}`lan2020`
# (§3.1) name a reason: with random negatives the task mixes the topic with coherence, and the
# topic is the easier part. They predict the order of two texts instead.
# :::
#
# ### What the kept and the random tokens did
#
# The recorded run also trained the first part with masks alone, with the same seeds. Three
# numbers on held-out text: the loss at hidden characters; the loss of the original where a random
# character stands in its place, a *typo*; and how many characters of an untouched text the
# model names rightly, though each stands in its input.

# %%
parts = {
    name: {
        key: np.array([one["parts"][name][key] for one in runs])
        for key in ("masked_loss", "visible_accuracy", "typo_loss")
    }
    for name in ("80/10/10", "100/0/0")
}
print(f"{'':10}{'hidden':>17}{'typo':>17}{'names what it sees':>20}")
for name, found in parts.items():
    print(
        f"{name:10}{spread(found['masked_loss']):>17}"
        f"{spread(found['typo_loss']):>17}{spread(found['visible_accuracy']):>20}"
    )
    short = name.partition("/")[0]
    for key, values in found.items():
        # keys such as bert-parts-80-masked-loss
        glue(f"bert-parts-{short}-{key.replace('_', '-')}", values.mean())


check(
    "with masks alone a model names what it sees less often, in every seed",
    parts["100/0/0"]["visible_accuracy"].max()
    < parts["80/10/10"]["visible_accuracy"].min(),
)

# %% [markdown]
# The model that was trained with masks alone names
# {glue:text}`bert-parts-100-visible-accuracy:.1%` of the characters that it sees, the other
# {glue:text}`bert-parts-80-visible-accuracy:.1%`. At a typo the original costs the first
# {glue:text}`bert-parts-100-typo-loss:.2f` nats and the second
# {glue:text}`bert-parts-80-typo-loss:.2f`; at a hidden character, for which it is trained with
# all its labels, {glue:text}`bert-parts-100-masked-loss:.2f` and
# {glue:text}`bert-parts-80-masked-loss:.2f`. That is the mismatch of step 6 in numbers: where no
# mask stands, nothing was asked of the first. It does not say that fine-tuning suffers:
# fine-tuning trains those vectors too, and {cite:t}`devlin2019` (C.2) find small differences
# there.

# %% [markdown]
# ## Broken on purpose
#
# (The best-known mistake, a loss on *all* tokens instead of the hidden ones, is box D37 of
# chapter 13.)
#
# :::{admonition} Broken on purpose D27: two one-way language models
# :class: broken
# “BERT trains one model from left to right and one from right to left, and joins them.” That is
# ELMo. Each layer of either half sees one side; only the finished vectors meet. Then no word on the
# left can change what a word on the right contributes to the answer {eq}`eq-bert-mixed`.
# :::


# %%
class TwoOneWay(nn.Module):
    """Logits for the word at t: a model of what is before it, plus one behind."""

    def __init__(self, d, V):
        super().__init__()
        self.forth, self.back = (
            nn.ModuleList(EncoderLayer(d, 2, 2 * d) for _ in range(2))
            for _ in range(2)
        )
        self.read = nn.ModuleList(nn.Linear(d, V) for _ in range(2))

    def forward(self, x, t):
        n = x.shape[1]
        earlier = torch.ones(n, n, dtype=torch.bool).tril()
        before, after = x, x
        for one, other in zip(self.forth, self.back, strict=True):
            before, after = one(before, earlier), other(after, earlier.T)
        return self.read[0](before[:, t - 1]) + self.read[1](after[:, t + 1])


class BothSides(nn.Module):
    def __init__(self, d, V):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(d, 2, 2 * d) for _ in range(2))
        self.read = nn.Linear(d, V)

    def forward(self, x, t):
        for layer in self.layers:
            x = layer(x)
        return self.read(x[:, t])


def mixed_difference(make):
    """Move a word on the left, on the right, and both: what is not a sum?"""
    torch.manual_seed(0)
    model = make(16, 11).double().eval()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(1, 7, 16, generator=g, dtype=double)
    moved = torch.randn(2, 16, generator=g, dtype=double)

    def logits(left, right):
        here = x.clone()
        if left:
            here[0, 1] = moved[0]
        if right:
            here[0, 5] = moved[1]
        with torch.no_grad():
            return model(here, 3)

    alone = [(logits(*s) - logits(0, 0)).abs().max() for s in [(1, 0), (0, 1)]]
    assert min(alone) > 1e-3, "positive control: each side must be read"
    both = logits(1, 1) - logits(1, 0) - logits(0, 1) + logits(0, 0)
    return both.abs().max().item()


def the_two_sides_interact(make):
    change = mixed_difference(make)
    assert change > 1e-3, (
        f"left and right together change the logits by {change:.1e} more than "
        "each by itself"
    )


glue("bert-d27", mixed_difference(BothSides))
catches("D27", the_two_sides_interact, broken=TwoOneWay, fixed=BothSides)

# %% [markdown]
# In one encoder the joint effect is {glue:text}`bert-d27:.3f`. **Fix:** one encoder without a
# causal mask; the words to be guessed are hidden in the input instead.
#
# :::{admonition} Broken on purpose D48: the mean of microbatches' means
# :class: broken
# Gradients are accumulated over four microbatches, and each loss is divided by four. It is the
# usual recipe, and right for losses that average over equally many terms. Here one microbatch has
# long texts with many chosen tokens, and three have few.
# :::


# %%
def accumulation_changes_nothing(loss_of_parts):
    got = gradient(loss_of_parts)
    off = ((got - whole_batch).norm() / whole_batch.norm()).item()
    assert off < 1e-12, (
        f"four microbatches give a gradient that is off by {off:.0%} of the "
        "whole batch's"
    )


catches(
    "D48",
    accumulation_changes_nothing,
    broken=mean_of_means,
    fixed=sum_over_count,
)

# %% [markdown]
# **Fix:** `reduction="sum"`, divided by the count of the whole batch, as in
# {eq}`eq-bert-accumulate`; `lib.training.fit` does it with `accumulate=k`.
#
# :::{admonition} Broken on purpose D49: labels only where [MASK] stands
# :class: broken
# The labels are made *after* hiding, from the places where the mask is: `corrupted == mask_id`.
# It looks right and trains well. But the random and the kept tokens have lost their labels, and
# with them their purpose: a visible word is never asked about again, as if all chosen tokens were
# masked.
# :::


# %%
def labels_at_masks(ids, corrupted, labels):
    return ids.masked_fill(corrupted != 4, -100)


def labels_of_all_chosen(ids, corrupted, labels):
    return labels


def fifteen_per_cent_have_labels(make_labels):
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (100, 200), generator=g)
    corrupted, drawn = mask_tokens(
        ids, vocab_size=1000, mask_token_id=4, special_token_ids=(4,), rng=g
    )
    labels = make_labels(ids, corrupted, drawn)
    share = (labels != -100).double().mean().item()
    visible = ((labels != -100) & (corrupted != 4)).double().mean().item()
    assert abs(share - 0.15) < 1e-3 and abs(visible - 0.03) < 1e-3, (
        f"{share:.3f} of the tokens have a label, expected 0.150; of visible "
        f"ones {visible:.3f}, expected 0.030"
    )


catches(
    "D49",
    fifteen_per_cent_have_labels,
    broken=labels_at_masks,
    fixed=labels_of_all_chosen,
)

# %% [markdown]
# **Fix:** draw the positions first, take the labels from the original, then write over the input.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on inputs that you don't see.
#
# ```{exercise-start} Which text is this token from?
# :label: ex-bert-segments
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `segments(ids, sep, pad)`: for ids (B, n) of one text or two, 0 up to and with the first
# `sep`, 1 behind it up to and with the second, and 0 for padding, as integers (B, n).
#
# ```{dropdown} Hint
# `cumsum` counts the separators so far. The separator itself still belongs to what it closes.
# ```


# %% tags=["exercise-stub"]
def segments(ids, sep, pad):
    raise NotImplementedError


grade("ex-bert-segments", segments)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-bert-segments
# :class: dropdown
# ```


# %% tags=["solution"]
def segments(ids, sep, pad):
    closes = (ids == sep).long()
    before = closes.cumsum(-1) - closes  # separators strictly before
    return (before == 1).long().masked_fill(ids == pad, 0)


grade("ex-bert-segments", segments)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Eighty, ten, ten
# :label: ex-bert-corrupt
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `corrupt(ids, chosen, u, words, mask_id)`: of the chosen tokens, the share that
# {cite:t}`devlin2019` (§3.1) mask, with `u` below .8, becomes `mask_id`; those from .8 to below
# .9 become the word in `words`; all others stay. All tensors are (B, n); `u` is uniform on [0,
# 1). Return a new tensor.
#
# ```{dropdown} Hint
# One draw `u` for both decisions, not two. `torch.where` returns a new tensor.
# ```


# %% tags=["exercise-stub"]
def corrupt(ids, chosen, u, words, mask_id):
    raise NotImplementedError


grade("ex-bert-corrupt", corrupt)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-bert-corrupt
# :class: dropdown
# ```


# %% tags=["solution"]
def corrupt(ids, chosen, u, words, mask_id):
    out = torch.where(chosen & (u < 0.8), mask_id, ids)
    return torch.where(chosen & (u >= 0.8) & (u < 0.9), words, out)


grade("ex-bert-corrupt", corrupt)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} From microbatches to the batch
# :label: ex-bert-accumulate
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Each of $k$ microbatches reports the mean loss over its chosen tokens, and how many there were.
# Write `whole_loss(means, counts)`: the mean over all chosen tokens of the batch, for tensors
# (k,). A microbatch without any reports mean 0 and count 0; if none has any, the result is 0.
#
# ```{dropdown} Hint
# A mean times its count is a sum, {eq}`eq-bert-accumulate`. What may not be divided by?
# ```


# %% tags=["exercise-stub"]
def whole_loss(means, counts):
    raise NotImplementedError


grade("ex-bert-accumulate", whole_loss)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-bert-accumulate
# :class: dropdown
# ```


# %% tags=["solution"]
def whole_loss(means, counts):
    return (means * counts).sum() / counts.sum().clamp(min=1)


grade("ex-bert-accumulate", whole_loss)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} What independence costs
# :label: ex-bert-independent
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Two tokens are hidden, nothing else is in the text, and `joint`, (V, V), is their true
# distribution. Write `lost(joint)`: how many nats the best independent answers lose against it,
# on average.
#
# ```{dropdown} Hint
# {eq}`eq-bert-independent` with an empty context: two entropies less a joint one. Mind $0 \log 0$.
# ```


# %% tags=["exercise-stub"]
def lost(joint):
    raise NotImplementedError


grade("ex-bert-independent", lost)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-bert-independent
# :class: dropdown
# ```
#
# For the two cities it is $\ln 2$.


# %% tags=["solution"]
def lost(joint):
    entr = torch.special.entr  # −x log x, and 0 at 0
    return (
        entr(joint.sum(0)).sum() + entr(joint.sum(1)).sum() - entr(joint).sum()
    )


grade("ex-bert-independent", lost)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Believe what you see?
# :label: ex-bert-visible
# ```
# *Difficulty ●●○ · 10 minutes*
#
# Write `best_answer(p, v, kept, random)`: the best distribution, (V,), at a position that has a
# label and shows word `v`. `p`, (V,), is the word's distribution given the context; `kept` and
# `random` are the shares of chosen tokens that stay or become a random word.
#
# ```{dropdown} Hint
# {eq}`eq-bert-visible` has both shares equal, and they cancel there. Begin one step earlier.
# ```


# %% tags=["exercise-stub"]
def best_answer(p, v, kept, random):
    raise NotImplementedError


grade("ex-bert-visible", best_answer)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-bert-visible
# :class: dropdown
# ```


# %% tags=["solution"]
def best_answer(p, v, kept, random):
    both = random * p / len(p)
    both[v] += kept * p[v]
    return both / both.sum()


grade("ex-bert-visible", best_answer)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The best span
# :label: ex-bert-span
# ```
# *Difficulty ●●● · 15 minutes*
#
# Write `best_span(start, end, most)`: for logits (n,) of where an answer begins and of where it
# ends, the pair $(i, j)$ with the largest sum, $i \le j$, and at most `most` tokens in it, as two
# Python numbers.
#
# ```{dropdown} Hint
# All sums are a table (n, n). `torch.triu` keeps what is on or above a diagonal; a second one,
# moved, cuts off answers that are too long.
# ```


# %% tags=["exercise-stub"]
def best_span(start, end, most):
    raise NotImplementedError


grade("ex-bert-span", best_span)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-bert-span
# :class: dropdown
# ```


# %% tags=["solution"]
def best_span(start, end, most):
    n = len(start)
    sums = start[:, None] + end[None, :]
    allowed = torch.ones(n, n, dtype=torch.bool).triu().tril(most - 1)
    best = sums.masked_fill(~allowed, -math.inf).argmax().item()
    return best // n, best % n


grade("ex-bert-span", best_span)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - BERT is one encoder whose every layer sees both sides. It reads the sum of word, place and
#   segment {eq}`def-bert-input`, and is trained on hidden words {eq}`def-bert-mlm` and on pairs
#   {eq}`def-bert-nsp`, the two losses added {eq}`def-bert-joint`.
# - Hiding one word at a time is a pseudo-likelihood {eq}`eq-bert-pseudo`: lower than the
#   likelihood's loss {eq}`eq-bert-entropy`, and not comparable with it. Several hidden words are
#   guessed independently, at a cost that no training removes {eq}`eq-bert-independent`.
# - Of all tokens a few are masked, fewer random, and as few kept {eq}`eq-bert-shares`. Where a
#   visible word has a label, the best answer weighs how well it fits against one in $V$
#   {eq}`eq-bert-visible`: so the model has to know the context everywhere.
# - The loss is a mean over chosen tokens. Microbatches are to be added up as sums
#   {eq}`eq-bert-accumulate`.
# - The best answer to “does B follow A” is the mutual information of the two texts
#   {eq}`eq-bert-nsp-optimum`; with random negatives much of it can be topic
#   {eq}`eq-bert-nsp-topic`.
# - In two one-way models left and right never act together {eq}`eq-bert-mixed`.
# - In our small run pre-training makes the spans of dates much easier to learn. Whether NSP adds
#   anything there is counted above, seed by seed; it was hardly learned itself, and a rule that
#   counts shared words is the measure to beat.
#
# ## Sources
#
# - {cite:t}`devlin2019`, §1: the contrast to joined one-way models; §3 and §3.1: the model, the
#   input, both tasks; §4.2: spans; §5.1 and Table 5: without NSP; A.1 and A.2: the procedure,
#   GELU; C.2: other shares.
# - {cite:t}`taylor1953`: the cloze test, for measuring how readable a text is.
# - {cite:t}`besag1975`: pseudo-likelihood. {cite:t}`wangcho2019`: BERT's conditionals, and drawing
#   from them.
# - {cite:t}`peters2018`: ELMo. {cite:t}`yang2019`: XLNet. {cite:t}`lu2019`: ViLBERT.
# - {cite:t}`liu2019`, §4.2: pre-training without NSP. {cite:t}`lan2020`, §3.1: the order of two
#   sentences in place of NSP.
# - {cite:t}`ramachandran2017`: Swish.
