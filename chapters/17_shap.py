# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: >-
#       Three people earn a sum together. Which share is each one's own? Under four demands that are
#       hard to refuse there is one answer, and it can be given for the words of a sentence too.
#       What do those demands prove, what does the answer cost, and what do they leave open?
#     goals:
#       - compute a Shapley value by orders of arrival and by coalitions, and prove the two the same
#       - derive the value from four axioms, and say what becomes possible without each
#       - derive KernelSHAP's weights, and why no others give the Shapley value
#       - tell an interventional from a conditional explanation, and show that they differ
#       - measure how sampling converges, and what the way of leaving a word out does to the answer
#     prerequisites:
#       - sums over subsets, binomial coefficients, and least squares
#       - BERT as an encoder that can be asked questions (chapter 11)
#     data: Docstrings of Python's own library, eight modules; no download.
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
# # Shapley values

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
from fractions import Fraction
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import torch

from lib.interpret import (
    coalitions,
    kernel_shap,
    permutation_shap,
    shapley_kernel,
    shapley_values,
)
from lib.teaching import (
    Progress,
    ShapleyGame,
    catches,
    check,
    glue,
    grade,
    show_figure,
    start,
)
from lib.teaching.figures import COLORS, heatmap
from lib.teaching.missing_words import background, sentence_game
from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import SENTENCE, train, words

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# One person has a left glove, two others have a right one each. A pair sells for twelve, a single
# glove for nothing. All three go to the market and come home with twelve. Which share is each
# one's own?
#
# A *game* says what every group would have earned by itself. There are $n$ *players*, the set of
# all is $N$, a *coalition* $S$ is a subset of them, and $v(S)$ is a number, its *worth*:
#
# $$
# v : \{ S : S \subseteq N \} \to \mathbb{R} .
# $$ (def-shap-game)
#
# With player 0's left glove, $v = 12$ for $\{0,1\}$, $\{0,2\}$ and $\{0,1,2\}$, and 0 for all
# others. What player $i$ adds to a coalition without him is his *marginal contribution*
#
# $$
# \Delta_i(S) = v(S \cup \{i\}) - v(S) , \qquad i \notin S ,
# $$ (def-shap-marginal)
#
# and his *Shapley value* is a mean of them, over all coalitions that he can join:
#
# $$
# \varphi_i(v) = \sum_{S \subseteq N \setminus \{i\}} \frac{|S|!\,(n - |S| - 1)!}{n!}\; \Delta_i(S) .
# $$ (def-shap-value)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $n$, $N$ | a number, a set | how many players there are, and all of them |
# | $S$, $s = \lvert S \rvert$ | a row of $n$ booleans, a number | who is present, and how many they are |
# | $v(S)$ | a number; $2^n$ of them in all | what those present earn together |
# | $\Delta_i(S)$ | a number | what $i$ adds when he joins $S$ |
# | $\varphi(v)$ | $n$ | one share for each player |
#
# To explain a prediction, let the players be the inputs, such as the words of a sentence, and let
# $v(S)$ be the model's output when only the words in $S$ are there. Nothing in the formula says what
# “not there” means. We shall derive everything that can be derived without knowing, and come to the
# question then.
#
# Where do the weights come from? Try it with three players before we prove anything. The table has
# a row for each of the six orders in which they may arrive; its entries are what each adds at his
# arrival, and the last row is the mean of each column. Change a worth, and watch which entries
# move. Try *gloves*, then *a dummy*: C adds nothing to anybody. What does he get?

# %%
ShapleyGame(name="shapley-game", label="Three players, six orders of arrival")

# %% [markdown]
# ## Derivation
#
# Eight steps. The first five are about games and are exact: orders, four properties, a basis,
# uniqueness, and what is lost without each property. The sixth turns a prediction into a game, and
# that takes a decision. The last two are about cost: a least-squares problem with the same answer,
# and sampling.
#
# ### Step 1. Orders of arrival
#
# Let the players arrive one by one, in an order $\sigma$, and let $P_i^\sigma$ be those who came
# before $i$. Give each what he adds when he comes, and let no order be preferred to another:
#
# $$
# \varphi_i(v) = \frac{1}{n!} \sum_{\sigma} \Delta_i(P_i^\sigma) .
# $$ (eq-shap-orders)
#
# Why is this {eq}`def-shap-value`? Different orders put the same coalition before $i$. How many
# have exactly $S$ before him? Those in $S$ come first, in any of $|S|!$ orders; then $i$; then the
# others, in any of $(n - |S| - 1)!$ orders:
#
# $$
# \#\{\sigma : P_i^\sigma = S\} = |S|!\,(n - |S| - 1)! .
# $$ (eq-shap-count)
#
# Divide by all $n!$ orders, and the weight is there: it is the probability that $i$ finds exactly
# $S$ when he comes. There is a third way to read it. Write $s$ for $|S|$. There are $\binom{n-1}{s}$
# coalitions of size $s$ without $i$, and
#
# $$
# \frac{s!\,(n-s-1)!}{n!} = \frac{1}{n} \cdot \frac{1}{\binom{n-1}{s}} .
# $$ (eq-shap-weight)
#
# So the value is a mean of means. First over all coalitions of one size, then over the $n$ sizes
# $0, \dots, n-1$, all sizes alike. It is *not* the mean over all coalitions: there are many more of
# middling size than of small and large, and such a mean would hardly hear those. The box D55 makes
# that mistake.
#
# Below we need games with random worths. A game is a function of a batch of coalitions, each a row
# of booleans, and `coalitions(n)` has all $2^n$ as rows, in the order of binary numbers.


# %%
def game_of(worth):
    """The game whose 2^n worths, in the order of coalitions(n), are given."""
    n = len(worth).bit_length() - 1
    bits = 2 ** torch.arange(n)
    return lambda present: worth[(present * bits).sum(1)]


def random_worth(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2**n, generator=generator, dtype=double)


def by_orders(worth):
    """Mean marginal contribution over all n! orders, and how often S comes first."""
    n = len(worth).bit_length() - 1
    total, seen = torch.zeros(n, dtype=double), {}
    for order in permutations(range(n)):
        present = 0  # a coalition as the bits of a number
        for i in order:
            seen[i, present] = seen.get((i, present), 0) + 1
            total[i] += worth[present | 1 << i] - worth[present]
            present |= 1 << i
    return total / math.factorial(n), seen


n = 5
worth = random_worth(n, seed=1)
phi = shapley_values(game_of(worth), n)
mean, seen = by_orders(worth)
check("eq-shap-orders", mean, phi)
for (i, present), count in seen.items():
    s = present.bit_count()
    assert count == math.factorial(s) * math.factorial(n - s - 1), (i, present)
check("eq-shap-count", len(seen), n * 2 ** (n - 1))
sizes = torch.arange(n)
weight = [
    math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n)
    for s in range(n)
]
check("eq-shap-weight", weight, [1 / (n * math.comb(n - 1, s)) for s in range(n)])
print("weights of one coalition of size 0 … 4:", np.round(weight, 3))
print("of all coalitions of that size:        ", end=" ")
print(np.round([math.comb(n - 1, s) * weight[s] for s in range(n)], 3))

# %% [markdown]
# ### Step 2. Four properties
#
# What should a fair rule do? A *rule* $\psi$ gives every game $n$ numbers. Four demands:
#
# - **efficiency**: what is earned is shared out, all of it and no more;
# - **symmetry**: two players who add the same to every coalition that has neither get the same;
# - **dummy**: a player who adds 0 to every coalition gets 0;
# - **linearity**: when two games are played, each player gets the sum of what he gets in each.
#
# The Shapley value does all four. *Efficiency.* In one order the contributions telescope. Let
# $\sigma_1, \dots, \sigma_n$ be the players as they come. Every worth but the first and the last
# occurs once with a plus and once with a minus:
#
# $$
# \sum_{k=1}^{n} \big( v(\{\sigma_1, \dots, \sigma_k\}) - v(\{\sigma_1, \dots, \sigma_{k-1}\}) \big)
# = v(N) - v(\emptyset) .
# $$ (eq-shap-telescope)
#
# That holds for every order, so it holds for the mean of all:
#
# $$
# \sum_{i \in N} \varphi_i(v) = v(N) - v(\emptyset) .
# $$ (eq-shap-efficiency)
#
# *Symmetry.* Let $\Delta_i(S) = \Delta_j(S)$ for every $S$ that holds neither. In the order
# $\sigma$ exchange $i$ and $j$, and call the result $\sigma'$. Exchanging pairs up all orders, so
# it is enough that $\Delta_i(P_i^{\sigma}) = \Delta_j(P_j^{\sigma'})$. If $i$ comes before $j$ in
# $\sigma$, then both find the same $S$ without either, and this is what we assumed. If $i$ comes
# after $j$, then $i$ finds $S \cup \{j\}$ in $\sigma$, and $j$ finds $S \cup \{i\}$ in $\sigma'$.
# Now $v(S \cup \{i\}) = v(S \cup \{j\})$, by the assumption, so what each adds to reach $S \cup
# \{i, j\}$ is the same again. Therefore
#
# $$
# \Delta_i(S) = \Delta_j(S) \;\text{ for all } S \not\ni i, j
# \quad\Longrightarrow\quad \varphi_i(v) = \varphi_j(v) .
# $$ (eq-shap-symmetry)
#
# *Dummy.* A mean of zeros is zero:
#
# $$
# \Delta_i(S) = 0 \;\text{ for all } S \quad\Longrightarrow\quad \varphi_i(v) = 0 .
# $$ (eq-shap-dummy)
#
# *Linearity.* Worths enter {eq}`def-shap-value` only as sums with fixed weights, so
#
# $$
# \varphi(a\,v + b\,w) = a\,\varphi(v) + b\,\varphi(w) .
# $$ (eq-shap-linearity)

# %%
size = coalitions(n).sum(1)
order = [3, 0, 4, 1, 2]
arrived = [0, *np.cumsum([1 << i for i in order]).tolist()]
check("eq-shap-telescope", worth[arrived].diff().sum(), worth[-1] - worth[0])
check("eq-shap-efficiency", phi.sum(), worth[-1] - worth[0])

# players 1 and 3 made alike: the mean of the game and of the game with them exchanged
swap = [0, 3, 2, 1, 4]
present = coalitions(n)
exchanged = game_of(worth)(present[:, swap])
alike = (worth + exchanged) / 2
phi_alike = shapley_values(game_of(alike), n)
check("eq-shap-symmetry", phi_alike[1], phi_alike[3])
check("in the game itself they are not alike", abs(phi[1] - phi[3]) > 0.1)

# player 2 made a dummy: the game as if he were never there
without = present.clone()
without[:, 2] = False
blind = game_of(worth)(without)
check("eq-shap-dummy", shapley_values(game_of(blind), n)[2], 0.0, atol=0)

other = random_worth(n, seed=2)
check(
    "eq-shap-linearity",
    shapley_values(game_of(3 * worth - 2 * other), n),
    3 * phi - 2 * shapley_values(game_of(other), n),
)

# %% [markdown]
# ### Step 3. Every game is a sum of very simple ones
#
# Do other rules have the four properties too? To see that none does, take games apart. For a
# coalition $T$ that is not empty, the *unanimity game* $u_T$ pays 1 when all of $T$ are there, and
# nothing otherwise:
#
# $$
# u_T(S) = \begin{cases} 1 & T \subseteq S \\ 0 & \text{otherwise.} \end{cases}
# $$ (def-shap-unanimity)
#
# Here it is plain who should get what. The claim of this step is that every game is a sum of these
# and of a constant,
#
# $$
# v(S) = v(\emptyset) + \sum_{\emptyset \neq T \subseteq N} d_T\, u_T(S) ,
# $$ (eq-shap-basis)
#
# with one and only one choice of numbers $d_T$, the *dividends* of the game:
#
# $$
# d_T = \sum_{R \subseteq T} (-1)^{|T| - |R|}\, v(R) .
# $$ (eq-shap-dividends)
#
# *There is such a choice.* At $S$ the sum in {eq}`eq-shap-basis` runs over the $T$ inside $S$. Put
# in the dividends, with $d_\emptyset = v(\emptyset)$, and ask how often each $v(R)$ occurs:
#
# $$
# \sum_{T \subseteq S} d_T = \sum_{R \subseteq S} v(R) \sum_{T :\, R \subseteq T \subseteq S}
# (-1)^{|T| - |R|} .
# $$
#
# A $T$ between $R$ and $S$ is $R$ and some of the $m = |S| - |R|$ players that are left. There are
# $\binom{m}{k}$ with $k$ of them, and by the binomial theorem
#
# $$
# \sum_{T :\, R \subseteq T \subseteq S} (-1)^{|T| - |R|}
# = \sum_{k=0}^{m} \binom{m}{k} (-1)^k = (1 - 1)^m = \begin{cases} 1 & R = S \\ 0 & R \neq S . \end{cases}
# $$ (eq-shap-alternating)
#
# Only $v(S)$ is left. *There is no other choice.* {eq}`eq-shap-basis` is a system of $2^n - 1$
# linear equations, one for each $S$ that is not empty, in as many unknowns $d_T$. We have just
# solved it for every right-hand side; a square system that can always be solved has one solution
# only.
#
# A dividend is what a coalition earns beyond all that its parts earn. For two players, $d_{\{1,2\}}
# = v(\{1,2\}) - v(\{1\}) - v(\{2\}) + v(\emptyset)$: what they have from *meeting*.

# %%
subset = (present[:, None] <= present[None]).all(-1)  # [R, T]: is R inside T?
sign = (-1.0) ** (size[None] - size[:, None])  # (−1)^(|T| − |R|)
between = subset.double() * sign  # [R, T]
check("eq-shap-alternating", between @ subset.double(), torch.eye(2**n).double())

d = between.T @ worth  # dividends; d[0] is v(∅)
check("eq-shap-dividends", d[0b00110], worth[[6, 0]].sum() - worth[[2, 4]].sum())
check("eq-shap-basis", subset.double().T @ d, worth)
rank = torch.linalg.matrix_rank(subset[1:, 1:].double())
check("the unanimity games are independent", int(rank), 2**n - 1)

# %% [markdown]
# ### Step 4. There is no other rule
#
# Let $\psi$ be any rule with the four properties. What must it do with $d\,u_T$, for a number $d$?
#
# 1. A player outside $T$ adds 0 to every coalition: whether all of $T$ are there does not depend on
#    him. By *dummy* he gets 0.
# 2. Two players of $T$ are alike: a coalition that lacks both cannot be completed by either, so
#    both add 0 to it. By *symmetry* all of $T$ get the same.
# 3. By *efficiency* what they get sums to $d\,u_T(N) - d\,u_T(\emptyset) = d$. So each gets $d/|T|$.
#
# $$
# \psi_i(d\,u_T) = \begin{cases} d/|T| & i \in T \\ 0 & i \notin T . \end{cases}
# $$ (eq-shap-unanimity-shares)
#
# 4. A constant game has dummies only: everybody gets 0. And by *linearity* we may add up over
#    {eq}`eq-shap-basis`:
#
# $$
# \psi_i(v) = \sum_{T \ni i} \frac{d_T}{|T|} .
# $$ (eq-shap-shares)
#
# On the right nothing is left to choose. Two rules with the four properties are therefore the same
# rule; and the Shapley value is one, by step 2. **It is the only one.** And we have a second formula
# for it: every dividend is shared out evenly among those who earned it by meeting.

# %%
for T in (0b00001, 0b01101, 0b11111):
    members = present[T]
    got = shapley_values(game_of(2.5 * subset[T].double()), n)
    want = 2.5 * members.double() / members.sum()
    check("eq-shap-unanimity-shares", got, want)
shared = (present[1:].double() * (d / size)[1:, None]).sum(0)
check("eq-shap-shares", shared, phi)

# %% [markdown]
# ### Step 5. Without each of the four
#
# Is one of the demands idle? Drop one, and look for another rule that meets the other three. If
# there is one, that demand was needed.
#
# - **Without efficiency**: the mean of $\Delta_i(S)$ over all $2^{n-1}$ coalitions, each alike, the
#   *Banzhaf value*. It is symmetric, gives dummies 0, and is linear; it does not sum to anything in
#   particular.
# - **Without symmetry**: one fixed order, and each gets what he adds. The sum telescopes; who comes
#   late may gain by that alone.
# - **Without dummy**: equal shares for all, whoever they are.
# - **Without linearity**: equal shares for all who are not dummies.
#
# We hold all five rules to all four demands, each as a number: the largest violation that we find
# in two games of four players with worths from 0 to 9, a symmetric one and one with a dummy.


# %%
def gains(worth, i):
    """What player i adds to each coalition without him."""
    k = torch.arange(len(worth))
    k = k[(k >> i) & 1 == 0]
    return worth[k | 1 << i] - worth[k]


def players_of(worth):
    return range(len(worth).bit_length() - 1)


def banzhaf(worth):
    return torch.stack([gains(worth, i).mean() for i in players_of(worth)])


def first_come(worth):
    before = [2**i - 1 for i in players_of(worth)]
    return torch.stack(
        [worth[b + 2**i] - worth[b] for i, b in enumerate(before)]
    )


def equal_shares(worth):
    m = len(players_of(worth))
    return (worth[-1] - worth[0]).expand(m) / m


def equal_for_the_useful(worth):
    useful = torch.tensor(
        [bool((gains(worth, i) != 0).any()) for i in players_of(worth)]
    )
    return (worth[-1] - worth[0]) * useful / max(int(useful.sum()), 1)


def shapley(worth):
    return shapley_values(game_of(worth), len(players_of(worth)))


rules = {
    "Shapley": shapley,
    "Banzhaf": banzhaf,
    "one order": first_come,
    "equal shares": equal_shares,
    "equal, no dummies": equal_for_the_useful,
}

m = 4
generator = torch.Generator().manual_seed(3)
any_game = torch.randint(0, 10, (16,), generator=generator).double()
here = coalitions(m)
symmetric = any_game + game_of(any_game)(here[:, [0, 3, 2, 1]])  # 1 and 3 alike
no_two = here.clone()
no_two[:, 2] = False
with_dummy = game_of(any_game)(no_two)  # player 2 adds nothing


def violations(rule):
    """Efficiency, symmetry, dummy, linearity: the largest violation of each."""
    a, b, c = (rule(v) for v in (any_game, symmetric, with_dummy))
    both = rule(any_game + with_dummy)
    earned = [v[-1] - v[0] for v in (any_game, symmetric, with_dummy)]
    return [
        max(abs(x.sum() - y).item() for x, y in zip((a, b, c), earned, strict=True)),
        abs(b[1] - b[3]).item(),
        abs(c[2]).item(),
        (both - a - c).abs().max().item(),
    ]


demands = ["efficiency", "symmetry", "dummy", "linearity"]
found = {name: violations(rule) for name, rule in rules.items()}
print(f"{'largest violation':18}" + "".join(f"{x:>12}" for x in demands))
for name, row in found.items():
    print(f"{name:18}" + "".join(f"{x:12.2f}" for x in row))
for k, name in enumerate(rules):
    broken = [x > 0.1 for x in found[name]]
    check(f"{name}: what is broken", broken, [k == j + 1 for j in range(4)])

# %% [markdown]
# Each rule but the first breaks exactly one demand, so none of the four follows from the other
# three. {numref}`fig-shap-rules` shows the five on the gloves.

# %% tags=["hide-input"]
gloves = torch.tensor([0.0, 0, 0, 12, 0, 12, 0, 12], dtype=double)
fig, ax = plt.subplots(figsize=(5.0, 3.0))
kinds = ["output", "query", "key", "value", "reference"]
hatches = ["", "//", "..", "xx", "\\\\"]
for k, (name, rule) in enumerate(rules.items()):
    ax.bar(
        np.arange(3) + 0.16 * (k - 2),
        rule(gloves),
        0.15,
        label=name,
        color=COLORS[kinds[k]],
        hatch=hatches[k],
        edgecolor="white",
        linewidth=0,
    )
ax.set_xticks(range(3), ["0: left glove", "1: right glove", "2: right glove"])
ax.set_ylabel("share")
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-shap-rules",
    caption="Five rules on the game of gloves, where a pair is worth 12. The Shapley "
    "value gives the rare glove 8 and the others 2 each. The Banzhaf value shares out "
    "more than there is; one fixed order gives all to the second to come.",
    alt="Bars for three players under five rules. The left glove gets 8 by Shapley, 9 by "
    "Banzhaf, 0 in one order, 4 by equal shares; the right gloves get 2 each by Shapley, 3 "
    "each by Banzhaf, and 12 and 0 in one order.",
)
check("gloves", shapley(gloves), [8.0, 2.0, 2.0])
check("Banzhaf shares out more than was earned", banzhaf(gloves), [9.0, 3.0, 3.0])
check("the second to come gets all", first_come(gloves), [0.0, 12.0, 0.0])
