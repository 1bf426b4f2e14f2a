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
#     hardware: One CPU core. The model is too small to gain from a GPU.
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
from lib.teaching.figures import COLORS
from lib.teaching.missing_words import background, sentence_game
from lib.teaching.recorded import recorded
from lib.teaching.word_classifier import SENTENCE, train, words

start(seed=0)
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
# others. What player $i$ adds to a coalition by joining it is the *marginal contribution*
#
# $$
# \Delta_i(S) = v(S \cup \{i\}) - v(S) , \qquad i \notin S ,
# $$ (def-shap-marginal)
#
# and the *Shapley value* of $i$ is a mean of them, over all coalitions that $i$ can join:
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
# | $\Delta_i(S)$ | a number | what $i$ adds on joining $S$ |
# | $\varphi(v)$ | $n$ | one share for each player |
#
# To explain a prediction, let the players be the inputs, such as the words of a sentence, and let
# $v(S)$ be the model's output when only the words in $S$ are there. Nothing in the formula says what
# “not there” means. We shall derive everything that can be derived without knowing, and come to the
# question then.
#
# Where do the weights come from? Try it with three players before we prove anything. The table has
# a row for each of the six orders in which they may arrive; its entries are what each adds on
# arrival, and the last row is the mean of each column. Change a worth, and watch which entries
# move. Try *gloves*, then *a dummy*: C adds nothing to anybody. What does C get?

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
# before $i$. Give each what their arrival adds, and let no order be preferred to another:
#
# $$
# \varphi_i(v) = \frac{1}{n!} \sum_{\sigma} \Delta_i(P_i^\sigma) .
# $$ (eq-shap-orders)
#
# Why is this {eq}`def-shap-value`? Different orders put the same coalition before $i$. How many
# have exactly $S$ before $i$? Those in $S$ come first, in any of $|S|!$ orders; then $i$; then the
# others, in any of $(n - |S| - 1)!$ orders:
#
# $$
# \#\{\sigma : P_i^\sigma = S\} = |S|!\,(n - |S| - 1)! .
# $$ (eq-shap-count)
#
# Divide by all $n!$ orders, and the weight is there: it is the probability that $i$, on
# arrival, finds exactly $S$. There is a third way to read it. Write $s$ for $|S|$. There are $\binom{n-1}{s}$
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
    """Mean contributions over all n! orders; how often S comes first."""
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
check(
    "eq-shap-weight", weight, [1 / (n * math.comb(n - 1, s)) for s in range(n)]
)
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
# - **linearity**: when two games are played, each player gets the sum of both shares.
#
# The Shapley value does all four. *Efficiency.* In one order the contributions telescope. Let
# $\sigma_1, \dots, \sigma_n$ be the players as they come. Every worth but the first and the last
# occurs once with a plus and once with a minus:
#
# $$
# \begin{aligned}
# & \sum_{k=1}^{n} \big( v(\{\sigma_1, \dots, \sigma_k\}) - v(\{\sigma_1, \dots,
# \sigma_{k-1}\}) \big) \\
# & \quad = v(N) - v(\emptyset) .
# \end{aligned}
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
# \begin{gathered}
# \Delta_i(S) = \Delta_j(S) \;\text{ for all } S \not\ni i, j \\
# \Longrightarrow\quad \varphi_i(v) = \varphi_j(v) .
# \end{gathered}
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

# players 1 and 3 made alike: the mean of the game and of it exchanged
swap = [0, 3, 2, 1, 4]
present = coalitions(n)
exchanged = game_of(worth)(present[:, swap])
alike = (worth + exchanged) / 2
phi_alike = shapley_values(game_of(alike), n)
check("eq-shap-symmetry", phi_alike[1], phi_alike[3])
check("in the game itself they are not alike", abs(phi[1] - phi[3]) > 0.1)

# player 2 made a dummy: as if that player were never there
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
# \begin{aligned}
# \sum_{T :\, R \subseteq T \subseteq S} (-1)^{|T| - |R|}
# &= \sum_{k=0}^{m} \binom{m}{k} (-1)^k = (1 - 1)^m \\
# &= \begin{cases} 1 & R = S \\ 0 & R \neq S . \end{cases}
# \end{aligned}
# $$ (eq-shap-alternating)
#
# Only $v(S)$ is left. *There is no other choice.* {eq}`eq-shap-basis` is a system of $2^n - 1$
# linear equations, one for each $S$ that is not empty, in as many unknowns $d_T$. We have just
# solved it for every right-hand side; a square system that can always be solved has one solution
# only.
#
# A dividend is what a coalition earns beyond all that its parts earn. For two players,
# $d_{\{1,2\}}$ is $v(\{1,2\}) - v(\{1\})$ less $v(\{2\}) - v(\emptyset)$: what they have from
# *meeting*.

# %%
subset = (present[:, None] <= present[None]).all(-1)  # [R, T]: is R inside T?
sign = (-1.0) ** (size[None] - size[:, None])  # (−1)^(|T| − |R|)
between = subset.double() * sign  # [R, T]
check(
    "eq-shap-alternating", between @ subset.double(), torch.eye(2**n).double()
)

d = between.T @ worth  # dividends; d[0] is v(∅)
check(
    "eq-shap-dividends", d[0b00110], worth[[6, 0]].sum() - worth[[2, 4]].sum()
)
check("eq-shap-basis", subset.double().T @ d, worth)
rank = torch.linalg.matrix_rank(subset[1:, 1:].double())
check("the unanimity games are independent", int(rank), 2**n - 1)

# %% [markdown]
# ### Step 4. There is no other rule
#
# Let $\psi$ be any rule with the four properties. What must it do with $d\,u_T$, for a number $d$?
#
# 1. A player outside $T$ adds 0 to every coalition: whether all of $T$ are there does not depend on
#    that player. By *dummy* the share is 0.
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
# - **Without symmetry**: one fixed order, and each gets what they add. The sum telescopes; who comes
#   late may gain by that alone.
# - **Without dummy**: equal shares for all, whoever they are.
# - **Without linearity**: equal shares for all who are not dummies.
#
# We hold all five rules to all four demands, each as a number: the largest violation that we find
# in two games of four players with worths from 0 to 9, a symmetric one and one with a dummy.


# %%
def gains(worth, i):
    """What player i adds to each coalition without i."""
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
        max(
            abs(x.sum() - y).item()
            for x, y in zip((a, b, c), earned, strict=True)
        ),
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
for k, (name, rule) in enumerate(rules.items()):
    ax.bar(
        np.arange(3) + 0.16 * (k - 2),
        rule(gloves),
        0.15,
        label=name,
        color=COLORS[kinds[k]],
    )
ax.set_xticks(range(3), ["0: left glove", "1: right glove", "2: right glove"])
ax.set_ylabel("share")
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-shap-rules",
    caption="Five rules on the game of gloves, where a pair is worth 12. The "
    "Shapley value gives the rare glove 8 and the others 2 each. The Banzhaf "
    "value shares out more than there is; one fixed order gives all to the "
    "second to come. Bars stand in the order of the legend.",
    alt="Bars for three players under five rules. The left glove gets 8 by "
    "Shapley, 9 by Banzhaf, 0 in one order, 4 by equal shares; the right "
    "gloves 2 each by Shapley, 3 by Banzhaf, and 12 and 0 in one order.",
)
check("gloves", shapley(gloves), [8.0, 2.0, 2.0])
check(
    "Banzhaf shares out more than was earned", banzhaf(gloves), [9.0, 3.0, 3.0]
)
check("the second to come gets all", first_come(gloves), [0.0, 12.0, 0.0])

# %% [markdown]
# ### Step 6. From a prediction to a game
#
# A model $f$ has read $x = (x_1, \dots, x_n)$ and said $f(x)$. Let the features be the players. Then
# $v(N) = f(x)$. But what is $f$ when only those in $S$ are known? A model takes all its inputs or
# none, so the others have to be *something*. Two answers are common. Either they are drawn as if
# they had nothing to do with the known ones,
#
# $$
# v_{\text{int}}(S) = \mathbb{E}\, f(x_S, X_{\bar S}) ,
# $$ (def-shap-interventional)
#
# which is called *interventional*: the known features are set by force, and the rest follow the
# data. Or they are drawn as they would be, given what is known,
#
# $$
# v_{\text{con}}(S) = \mathbb{E}\big[ f(X) \mid X_S = x_S \big] ,
# $$ (def-shap-conditional)
#
# the *conditional* game. If features are independent, both are the same. If not, they differ, and
# the smallest example shows how. Two standard normal features with correlation $\rho$, and a model
# that reads the first alone: $f(x) = x_1$.
#
# *Interventional.* Nothing known: $\mathbb{E} X_1 = 0$. The first known: $x_1$. The second known: it
# is never read, so the mean stays 0. Both: $x_1$. The second feature adds 0 twice, so
#
# $$
# \varphi^{\text{int}} = (x_1,\; 0) .
# $$ (eq-shap-interventional)
#
# *Conditional.* Only the third case changes: for normal variables of variance 1, $\mathbb{E}[X_1
# \mid X_2 = x_2] = \rho\, x_2$. The second feature adds $\rho x_2$ when it comes first, and $x_1 -
# x_1 = 0$ when it comes second:
#
# $$
# \varphi^{\text{con}} = \big( x_1 - \tfrac12 \rho\, x_2,\; \tfrac12 \rho\, x_2 \big) .
# $$ (eq-shap-conditional)
#
# A feature that the model never looks at is given a share, for what it lets us *guess* of another.
# The dummy axiom is not broken: in this *game* the second player does add something. The axioms
# speak of games, and which game a prediction is, is for us to say.


# %%
def two_normals(x, rho, conditional):
    """Worths of {}, {1}, {2}, {1, 2} for f(x) = x_1."""
    only_second = rho * x[1] if conditional else 0.0
    return torch.tensor([0.0, x[0], only_second, x[0]], dtype=double)


x = (1.0, 1.0)
shares = {}
for rho in (0.0, 0.5, 0.9, 1.0):
    for kind in (False, True):
        shares[rho, kind] = shapley(two_normals(x, rho, kind))
    check("eq-shap-interventional", shares[rho, False], [1.0, 0.0])
    want = [1 - rho / 2, rho / 2]
    check("eq-shap-conditional", shares[rho, True], want)
print("f(x) = x_1 at x = (1, 1), correlation .9")
print("interventional:", shares[0.9, False].tolist())
print("conditional:   ", np.round(shares[0.9, True].tolist(), 6).tolist())

# the conditional mean itself, from the definition: a fine grid for x_1
grid = torch.linspace(-9, 9, 4001, dtype=double)
for rho, x2 in ((0.5, 1.0), (0.9, -2.0)):
    density = torch.exp(
        -(grid**2 - 2 * rho * grid * x2 + x2**2) / (2 * (1 - rho**2))
    )
    mean = (grid * density).sum() / density.sum()
    check("E[X_1 given X_2 = x_2] is ρ x_2", mean, rho * x2, atol=1e-9)

# %% [markdown]
# Which is right? They answer two questions. The interventional one: *what does the model do with
# its inputs?* The conditional one: *what do its inputs tell about its output?* Let the two features
# always be equal, $\rho = 1$. Then $f(x) = x_1$ and $g(x) = x_2$ are the same function on all data
# that can occur. The conditional game cannot tell them apart: half of the share to each feature, for
# both models. The interventional one can: all to the first for $f$, all to the second for $g$.
#
# It has a price. To set one feature and draw the other without regard to it is to ask the model
# about inputs that do not occur, such as $(1, -1)$ where both are always equal. Whatever a model
# says there, and training never said what it should, enters the answer. We take a model that agrees
# with $f$ on every input that can occur and is wild elsewhere, on two bits that are always equal.

# %%
rows = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=double)  # all data there is


def tame(z):
    return z[:, 0]


def wild(z):
    return z[:, 0] + 10 * (z[:, 0] - z[:, 1]) ** 2 * z[:, 1]


def feature_game(f, x, conditional):
    """The game of two features, exactly, with the rows as all of the data."""
    worth = []
    for known in coalitions(2):
        z = torch.where(known, x, rows)  # unknown features from the data
        if conditional:
            fits = (rows == x)[:, known].all(1)  # rows that agree with x
            z = rows[fits]
        worth.append(f(z).mean())
    return torch.stack(worth)


x = torch.tensor([1.0, 1.0], dtype=double)
check("on the data the two models agree", tame(rows), wild(rows))
answers = {}
for name, f in (("tame", tame), ("wild", wild)):
    for kind in ("interventional", "conditional"):
        worth = feature_game(f, x, kind == "conditional")
        answers[name, kind] = shapley(worth)
        print(f"{name}, {kind:15}", answers[name, kind].tolist())
same = answers["tame", "conditional"]
check("conditional: the same for both", answers["wild", "conditional"], same)
check("conditional: half to each", same, [0.25, 0.25])
check(
    "interventional, tame: all to the first",
    answers["tame", "interventional"],
    [0.5, 0.0],
)
glue("shap-wild", answers["wild", "interventional"][1])
check(
    "interventional, wild: what never occurs decides",
    answers["wild", "interventional"],
    [-2.0, 2.5],
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.0))
rho = np.linspace(0, 1, 11)
con = torch.stack([shapley(two_normals((1.0, 1.0), r, True)) for r in rho])
int_ = torch.stack([shapley(two_normals((1.0, 1.0), r, False)) for r in rho])
for k, color in enumerate(("query", "key")):
    name = "read by the model" if k == 0 else "never read"
    ax.plot(
        rho,
        int_[:, k],
        "--",
        color=COLORS[color],
        label=f"interventional, {name}",
    )
    ax.plot(
        rho, con[:, k], "-", color=COLORS[color], label=f"conditional, {name}"
    )
ax.set(xlabel="correlation ρ of the two features", ylabel="Shapley value")
fig.legend(loc="outside upper center", ncols=1)
show_figure(
    fig,
    name="fig-shap-conditional",
    caption="Shares of two features in $f(x) = x_1$ at $x = (1, 1)$. In the "
    "interventional game (dashed) the correlation changes nothing. In the "
    "conditional one the feature that is never read gets up to one half.",
    alt="Four lines over correlation from 0 to 1. The two dashed ones are flat "
    "at 1 and 0. The two solid ones start there and meet at one half when the "
    "correlation is 1.",
)

# %% [markdown]
# The wild model's second feature, which matters nowhere on the data, gets
# {glue:text}`shap-wild:.1f`. {numref}`fig-shap-conditional` shows the first example for every
# $\rho$.
#
# :::{admonition} Two papers
# :class: paper
# {cite:t}`lundberg2017` define SHAP values by conditional expectations and then, to compute them,
# assume that features are independent, which makes the game interventional. {cite:t}`janzing2020`
# argue that what was meant as an approximation is the right notion: to drop a feature is to
# intervene, and the conditional expectation gives shares to features that have no influence on the
# output.
# :::
#
# :::{admonition} Our remark
# :class: remark
# For words neither game can be had as written. Nobody knows the distribution of the other words,
# given some. What is done is to put something in the place of a missing word, [MASK] or nothing or
# another word. Each of these is a game of its own. Step 6 says that they *may* differ; the part on
# real data measures how much they do.
# :::

# %% [markdown]
# ### Step 7. The same numbers by least squares
#
# $2^n$ worths and $n$ shares: fit the ones by the others. Let the model of the game be *additive*,
# $v(S) \approx v(\emptyset) + \sum_{i \in S} \varphi_i$. Demand that it be exact for the empty
# coalition, which it is, and for that of all players; and for the rest let it be as good as it can be, with a weight $\pi(s)$ for each
# coalition of size $s$:
#
# $$
# \begin{aligned}
# & \min_{\varphi}\; \sum_{\emptyset \neq S \neq N} \pi(|S|)\,
# \Big( v(S) - v(\emptyset) - \sum_{i \in S} \varphi_i \Big)^{\!2} \\
# & \quad\text{with}\quad \sum_{i \in N} \varphi_i = v(N) - v(\emptyset) =: \Delta .
# \end{aligned}
# $$ (def-shap-least-squares)
#
# Which weights make the solution the Shapley value? We solve for arbitrary ones. Let $n \geq 2$, and
# subtract $v(\emptyset)$ from all worths, so that it can be left out. With a Lagrange multiplier
# $\lambda$, which takes the factor 2 into itself, the derivative by $\varphi_i$ gives
#
# $$
# \sum_{S \ni i} \pi(|S|) \Big( v(S) - \sum_{j \in S} \varphi_j \Big) = \lambda , \qquad i = 1, \dots, n .
# $$ (eq-shap-normal)
#
# Call $b_i = \sum_{S \ni i} \pi(|S|)\, v(S)$. In the double sum $\varphi_j$ occurs once for each $S$
# that has both $i$ and $j$. The sum of weights over those is a number $\alpha$ when $j = i$, and
# another, $\beta$, for every $j \neq i$, since $\pi$ looks at sizes alone. So
#
# $$
# b_i - (\alpha - \beta)\, \varphi_i - \beta \sum_j \varphi_j = \lambda .
# $$
#
# Everything but the first two terms is the same for all $i$. Subtract the mean over $i$, with
# $\bar b = \frac1n \sum_i b_i$ and $\frac1n \sum_i \varphi_i = \Delta / n$:
#
# $$
# \varphi_i = \frac{\Delta}{n} + \frac{b_i - \bar b}{\alpha - \beta} .
# $$ (eq-shap-solution)
#
# An equal share, and more for those in whose company more is earned. Now count how often a worth
# $v(S)$ occurs in this, with $s = |S|$ from 1 to $n - 1$. It is in $b_i$ if $i \in S$, with weight
# $\pi(s)$; and $s$ of the $n$ numbers $b_j$ have it, so it is in $\bar b$ with weight $\pi(s)\,
# s/n$:
#
# $$
# \varphi_i = \frac{\Delta}{n} + \frac{1}{\alpha - \beta}
# \sum_{\emptyset \neq S \neq N} \pi(s) \Big( [i \in S] - \frac{s}{n} \Big)\, v(S) .
# $$ (eq-shap-coefficients)
#
# (Here one sees that it did no harm to leave out $v(\emptyset)$. Of the coalitions of size $s$ a
# share $s/n$ holds $i$, so the brackets sum to zero, and a constant added to all worths drops out.)
# In {eq}`def-shap-value` a worth with $i \in S$ comes with $\frac{(s-1)!\,(n-s)!}{n!} = \frac{1}{s
# \binom{n}{s}}$, namely as $i$ joins $S \setminus \{i\}$. For the two to be the same in every game,
# the numbers before $v(S)$ have to be the same:
#
# $$
# \begin{gathered}
# \frac{\pi(s)}{\alpha - \beta} \cdot \frac{n - s}{n} = \frac{1}{s \binom{n}{s}} \\
# \Longleftrightarrow\quad \pi(s) = (\alpha - \beta) \cdot \frac{n}{\binom{n}{s}\, s\,(n - s)} .
# \end{gathered}
# $$ (eq-shap-forced)
#
# **The weights are not chosen; they are forced**, up to a factor that changes no solution. And for $i
# \notin S$ nothing is left to be fixed: the same $\pi(s)$ gives
#
# $$
# -\frac{\pi(s)}{\alpha - \beta} \cdot \frac{s}{n} = -\frac{1}{(n - s) \binom{n}{s}}
# = -\frac{s!\,(n - s - 1)!}{n!} ,
# $$ (eq-shap-outside)
#
# which is the number before $-v(S)$ in {eq}`def-shap-value`. The two ends fit too: $v(N)$ stands
# there with $\frac{(n-1)!\,0!}{n!} = \frac1n$, as in $\Delta/n$. It remains to see that such an
# $\alpha - \beta$ exists. It is the sum of weights over coalitions that have $i$ and lack $j$, and of
# size $s$ there are $\binom{n-2}{s-1}$. With the factor $n - 1$ in place of $(\alpha-\beta)\,n$, as
# the paper has it,
#
# $$
# \begin{aligned}
# \pi(s) &= \frac{n - 1}{\binom{n}{s}\, s\, (n - s)} , \\
# \alpha - \beta &= \sum_{s=1}^{n-1} \binom{n-2}{s-1} \pi(s) = \sum_{s=1}^{n-1} \frac{1}{n}
# = \frac{n - 1}{n} ,
# \end{aligned}
# $$ (eq-shap-kernel)
#
# because $\binom{n-2}{s-1} = \binom{n}{s} \frac{s\,(n-s)}{n\,(n-1)}$. So $(\alpha - \beta)\,n = n -
# 1$, as it has to be. $\blacksquare$
#
# At $s = 0$ and $s = n$ the formula divides by zero. That is consistent: an infinite weight is a
# constraint, and those two coalitions are the ones that are met exactly.

# %%
pi = shapley_kernel(n)
worth = random_worth(n, seed=1)
v = worth - worth[0]
inner = slice(1, 2**n - 1)  # all coalitions but none and all
z, w = present[inner].double(), pi[size[inner]]
b = z.T @ (w * v[inner])
Delta = v[-1]
alpha, beta = (z.T @ (w[:, None] * z))[0, :2]
check("eq-shap-kernel", alpha - beta, (n - 1) / n)
solution = Delta / n + (b - b.mean()) / (alpha - beta)
left = z.T @ (w * (v[inner] - z @ solution))
check("eq-shap-normal", left - left.mean(), torch.zeros(n).double())
check("eq-shap-solution", solution, phi)

coefficient = w[:, None] * (z - size[inner, None].double() / n) / (alpha - beta)
check("eq-shap-coefficients", Delta / n + coefficient.T @ v[inner], phi)
inside = torch.tensor(
    [1 / (s * math.comb(n, s)) for s in range(1, n)], dtype=double
)
outside = torch.tensor(
    [1 / ((n - s) * math.comb(n, s)) for s in range(1, n)], dtype=double
)
s = size[inner, None] - 1
check("eq-shap-forced", coefficient[z > 0], inside[s].expand_as(z)[z > 0])
check("eq-shap-outside", coefficient[z == 0], -outside[s].expand_as(z)[z == 0])
check("a constant drops out", coefficient.sum(0), torch.zeros(n).double())
check("kernel_shap is this solution", kernel_shap(game_of(worth), n), phi)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(5.1, 2.9))
many = 11
kernel = shapley_kernel(many)[1:-1]
sizes = np.arange(1, many)
axes[0].semilogy(sizes, kernel, "o-", color=COLORS["weights"])
axes[0].set(title="one coalition", ylabel="weight π(s)")
together = [math.comb(many, k) * kernel[k - 1] for k in sizes]
axes[1].bar(sizes, together, color=COLORS["weights"])
axes[1].set(title="all of a size", ylabel="sum of their weights")
for ax in axes:
    ax.set(xlabel="size s", xticks=range(2, many, 2))
show_figure(
    fig,
    name="fig-shap-kernel",
    caption="The weights that make least squares give the Shapley value, for 11 "
    "players. Small and large coalitions weigh most, and even all coalitions of "
    "a middling size together weigh less than the few at the ends.",
    alt="Left, on a logarithmic scale, the weight of one coalition falls from "
    "size 1 to 5 by more than a hundred times and rises again to size 10. Right, "
    "bars of sums: tallest at sizes 1 and 10, lowest in the middle.",
)

# %% [markdown]
# {numref}`fig-shap-kernel` shows the weights. They say where information is: one player alone, or
# all but one, tells of a single player; a middling coalition mixes many.
#
# ### Step 8. Sampling
#
# $2^n$ evaluations are too many for thirty words. {eq}`eq-shap-orders` is a mean over orders, and a
# mean can be estimated. Draw $m$ orders at random, and take the mean of what $i$ adds in each:
#
# $$
# \hat\varphi_i = \frac{1}{m} \sum_{k=1}^{m} \Delta_i\big(P_i^{\sigma_k}\big), \qquad
# \mathbb{E}\,\hat\varphi_i = \varphi_i .
# $$ (eq-shap-unbiased)
#
# One order costs $n - 1$ evaluations beside the two ends, and gives a contribution of *every*
# player. As it telescopes, the estimates sum to $v(N) - v(\emptyset)$ exactly, however few there
# are. With $\sigma_i^2$ the variance of $\Delta_i(P_i^\sigma)$ over orders, independent draws give
#
# $$
# \operatorname{Var}(\hat\varphi_i) = \frac{\sigma_i^2}{m} , \qquad
# \text{so the error falls as } \frac{1}{\sqrt m} .
# $$ (eq-shap-error)
#
# Ten times as exact is a hundred times as expensive, whatever the game. What can be had is a smaller
# $\sigma_i$. Let every other order be the one before it *backwards*. Who came early then comes late,
# so where one of the two contributions is large because few were there, the other often is small.
# The mean of a pair has the variance
#
# $$
# \operatorname{Var}\!\left( \frac{\Delta + \Delta'}{2} \right)
# = \frac{\sigma_i^2}{2}\, (1 + r_i) ,
# $$ (eq-shap-antithetic)
#
# with $r_i$ the correlation of the two. Below zero, pairs gain over independent orders; above, they
# lose. For a game in which only pairs of players meet, $d_T = 0$ for $|T| > 2$, they are exact: in
# one of the two orders $j$ stands before $i$, in the other behind, so $i$ gets half of $d_{\{i,j\}}$
# each time, and that is {eq}`eq-shap-shares`.

# %%
n = 7
bits = 2 ** torch.arange(n)
worth = random_worth(n, seed=4)
f, exact = game_of(worth), shapley(worth)
contribution, mirrored = [], []
for order in permutations(range(n)):  # all of them, to know the truth
    for o, found in ((order, contribution), (order[::-1], mirrored)):
        k = torch.tensor([0, *o]) * 0
        k[1:] = bits[list(o)].cumsum(0)
        row = torch.empty(n, dtype=double)
        row[list(o)] = worth[k].diff()
        found.append(row)
contribution, mirrored = torch.stack(contribution), torch.stack(mirrored)
check("eq-shap-unbiased", contribution.mean(0), exact)
variance = contribution.var(0, correction=0)
r = ((contribution - exact) * (mirrored - exact)).mean(0) / variance
pairs = (contribution + mirrored) / 2
check("eq-shap-antithetic", pairs.var(0, correction=0), variance / 2 * (1 + r))

ms = [2**k for k in range(2, 11)]
seeds = range(40)
errors = {"orders": [], "pairs of orders": []}
for m in ms:
    for name, antithetic in (("orders", False), ("pairs of orders", True)):
        runs = torch.stack(
            [
                permutation_shap(
                    f, n, permutations=m, seed=k, antithetic=antithetic
                )
                for k in seeds
            ]
        )
        errors[name].append((runs - exact).square().mean(1).sqrt())
errors = {
    name: torch.stack(rows) for name, rows in errors.items()
}  # (ms, seeds)
for k, m in enumerate(ms):
    total = (errors["orders"][k] ** 2).mean()
    ratio = (total / (variance.mean() / m)).item()
    check("eq-shap-error", 0.7 < ratio < 1.4)
slopes = {}
for name, rows in errors.items():
    rms = rows.square().mean(1).sqrt()
    slopes[name] = np.polyfit(np.log(ms), rms.log().numpy(), 1)[0]
    print(f"{name:16} slope {slopes[name]:.3f}, mean r_i {r.mean():.2f}")
    check(f"{name}: the slope is −1/2", abs(slopes[name] + 0.5) < 0.06)
glue("shap-slope", slopes["orders"])
glue("shap-slope-pairs", slopes["pairs of orders"])
glue("shap-seeds", len(seeds))

quadratic = torch.randn(n, n, generator=generator, dtype=double)


def only_pairs(present):
    s = present.double()
    return ((s @ quadratic) * s).sum(1)


check(
    "where only pairs meet, one pair of orders is exact",
    permutation_shap(only_pairs, n, permutations=2, seed=0, antithetic=True),
    shapley_values(only_pairs, n),
)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.6, 3.3))
styles = {"orders": ("-", "query"), "pairs of orders": ("--", "key")}
for name, rows in errors.items():
    style, color = styles[name]
    ax.loglog(ms, rows.mean(1), style, color=COLORS[color], label=name)
    low, high = np.quantile(rows.numpy(), [0.1, 0.9], axis=1)
    ax.fill_between(ms, low, high, color=COLORS[color], alpha=0.2, linewidth=0)
ax.loglog(
    ms,
    [math.sqrt(variance.mean() / m) for m in ms],
    ":",
    color=COLORS["reference"],
    label="$\\sigma/\\sqrt{m}$",
)
ax.set(xlabel="orders drawn, $m$", ylabel="root mean squared error")
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-shap-convergence",
    caption=f"The error of sampled Shapley values in a random game of {n} "
    f"players, against the number of orders; bands hold eight of ten of "
    f"{len(seeds)} seeds. Both fall along a line of slope −1/2.",
    alt="Log-log plot: two falling straight bands and a dotted line of slope "
    "minus one half that lies on the upper one. The dashed band of pairs runs "
    "parallel to it and slightly below.",
)

# %% [markdown]
# Over {glue:text}`shap-seeds:.0f` seeds the fitted slope is {glue:text}`shap-slope:.2f` for
# independent orders, {glue:text}`shap-slope-pairs:.2f` for pairs ({numref}`fig-shap-convergence`).
# Pairs change the constant and not the rate.
#
# The least-squares problem of step 7 can be sampled as well. Draw coalitions with probability
# proportional to $\pi$, and solve the problem of those alone; that is what is called KernelSHAP. Its
# matrix is then random too, so the estimate is not unbiased, and {cite:t}`covert2021` find the bias
# negligible beside the variance. They also pair each coalition with its complement, which is the
# same idea as orders backwards. `kernel_shap` does both.

# %% [markdown]
# ## From scratch
#
# The gloves once more, with nothing but Python, and with fractions so that there is no rounding to
# hide behind. First the six orders:


# %%
def pays(present):
    left, right = 0 in present, 1 in present or 2 in present
    return 12 if left and right else 0


total = [Fraction(0)] * 3
print("order      0    1    2")
for order in permutations(range(3)):
    row, present = [0, 0, 0], set()
    for i in order:
        row[i] = pays(present | {i}) - pays(present)
        present.add(i)
    print(*order, "  ", "".join(f"{x:5}" for x in row))
    total = [t + x for t, x in zip(total, row, strict=True)]
by_hand = [t / 6 for t in total]
print("mean    ", "".join(f"{x!s:>5}" for x in by_hand))

# %% [markdown]
# Now the four coalitions that player 0 can join, with the weights of {eq}`eq-shap-weight`: one third
# for size 0, one sixth for each of the two of size 1, one third for size 2.

# %%
others = [set(), {1}, {2}, {1, 2}]
share = Fraction(0)
for S in others:
    weight = Fraction(1, 3 * math.comb(2, len(S)))
    adds = pays(S | {0}) - pays(S)
    print(f"{sorted(S)!s:8} weight {weight}, adds {adds:2}")
    share += weight * adds
print("player 0:", share)
check("orders and coalitions agree", share == by_hand[0])

# %% [markdown]
# And least squares. For three players $\pi(1) = \pi(2) = \frac{2}{3 \cdot 1 \cdot 2} = \frac13$: all
# six coalitions weigh alike. By {eq}`eq-shap-solution` each gets $\Delta/n$, and $\frac{n}{n-1} =
# \frac32$ times what $b_i$ has beyond the mean.

# %%
singles_and_pairs = [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}]
b = [
    sum(Fraction(1, 3) * pays(S) for S in singles_and_pairs if i in S)
    for i in range(3)
]
by_squares = [Fraction(12, 3) + Fraction(3, 2) * (x - sum(b) / 3) for x in b]
print("b =", *b, "  shares", *by_squares)
check("least squares agrees, without rounding", by_squares == by_hand)
check("and lib", shapley(gloves), [float(x) for x in by_hand])

# %% [markdown]
# ## The library function
#
# `shapley_values` asks for all $2^n$ worths once, and combines them as {eq}`def-shap-value` says.
#
# ```{lib-source} lib.interpret.shapley.shapley_values
# ```
#
# Four decisions deserve a word.
#
# **Batches, and no guessing.** A network is fastest when asked in batches, so `f` gets a matrix of
# coalitions and returns one number a row. A plain function of one coalition is welcome with
# `batched=False`. Whatever comes back in another shape is refused, with what was expected.
#
# **A dummy gets zero exactly.** The difference is taken first and weighed then. To add up all worths
# with their coefficients would be the same in exact arithmetic, and leave a rest in this one.
#
# **Twenty players, and no more.** Each further one doubles the work. The error says what to use.
#
# **Standard errors.** `permutation_shap` tells how exact it is. For the three estimates to be worth
# anything, the exact values should be within a few errors, which we look at over many seeds.


# %%
def pair_sells(present):  # one coalition, (3,)
    left, right1, right2 = present.tolist()
    return 12 * (left and (right1 or right2))


check("one at a time", shapley_values(pair_sells, 3, batched=False), [8, 2, 2])
for n_players, function in ((3, lambda s: s.double()), (30, pair_sells)):
    try:
        shapley_values(function, n_players)
    except ValueError as error:
        text = str(error)
        print(text if len(text) < 72 else text[:72].rsplit(" ", 1)[0] + " …")

inside = []
for k in range(200):
    value, error = permutation_shap(
        f, n, permutations=64, seed=k, return_errors=True
    )
    inside.append(((value - exact).abs() < 2 * error).double().mean())
covered = torch.stack(inside).mean().item()
print(f"within two standard errors: {covered:.3f} of the estimates")
check("as often as two standard errors should", 0.92 < covered < 0.98)

sampled = kernel_shap(f, n, samples=2000, seed=0)
check("sampled least squares is near", sampled, exact, atol=0.2)
check("and sums exactly", sampled.sum(), worth[-1] - worth[0])

# %% [markdown]
# The library's tests hold these functions to sums over all orders, and to the `shap` package: its
# exact and its kernel explainer give the same numbers, its permutation explainer the same within the
# error. (It is not imported here, so that the chapter runs without it.)

# %% [markdown]
# ## On real data
#
# A small BERT reads the first sentence of a docstring, word by word, and names the module of
# Python's library that it is from, one of eight. In training a share of the words, up to half, was
# hidden behind [MASK], so a text with holes is nothing new to it. We ask which words its answer
# rests on, for one sentence that it has never seen.

# %% tags=["nbval-ignore-output"]
read = words()
model, accuracy = train(
    read,
    seed=0,
    progress=lambda steps: Progress(steps, label="training a small BERT"),
)

# %%
check("the model has learned something", accuracy > 0.75)
ids = read.encode([SENTENCE])
tokens = read.split(SENTENCE)
n = len(tokens)
with torch.no_grad():
    logits = model(ids)[0]
label = int(logits.argmax())
print(SENTENCE)
for k in logits.argsort(descending=True)[:3].tolist():
    print(f"  {read.names[k]:16} logit {logits[k]:6.2f}")
index = read.data.validation.index(SENTENCE)
check("the answer is right", label == read.data.validation_labels[index])
glue("shap-n", n)
glue("shap-coalitions", 2**n)

# %% [markdown]
# The game is the logit of that module. A logit and not a probability: sums of games are sums of
# logits, and a probability that has reached one cannot tell the reasons apart any more. The
# {glue:text}`shap-n:.0f` words are the players, and there are {glue:text}`shap-coalitions:.0f`
# coalitions: few enough to ask the model about every one. What stands where a word is missing? We
# take four answers that are all in use:
#
# - **mask**: [MASK] stands there, as in the model's training;
# - **delete**: nothing stands there, and the rest closes up;
# - **pad**: the place is kept, and nobody may attend to it;
# - **random**: another word stands there, drawn as often as it occurs in the training texts,
#   whatever its neighbours; the mean of eight draws. This is the interventional game, but for words
#   drawn one by one. We take it twice, with other draws, to see what the drawing alone does.

# %%
ways = ["mask", "delete", "pad", "random", "random, again"]
games, values, left_out = {}, {}, {}
for way in ways:
    drawn = None
    if way.startswith("random"):
        drawn = background(read, n, 8, seed=int("again" in way))
    f = sentence_game(model, ids, label, way.split(",")[0], others=drawn)
    table = f(coalitions(n))  # all 2^n worths, asked for once
    games[way] = game_of(table)
    values[way] = shapley_values(games[way], n)
    left_out[way] = table[-1] - table[len(table) - 1 - 2 ** torch.arange(n)]
    check(
        f"{way}: the values sum to what the words earn",
        values[way].sum(),
        table[-1] - table[0],
        atol=1e-9,
    )
ends = {way: games[way](coalitions(n)[[0, -1]]) for way in ways}
print(f"{'word':14}" + "".join(f"{way.split()[-1]:>11}" for way in ways))
for i, word in enumerate(tokens):
    print(f"{word:14}" + "".join(f"{values[way][i]:11.2f}" for way in ways))
print(f"{'no words':14}" + "".join(f"{ends[way][0]:11.2f}" for way in ways))
print(f"{'all words':14}" + "".join(f"{ends[way][1]:11.2f}" for way in ways))
for way in ways:
    check(
        f"{way}: the whole sentence is the same",
        ends[way][1],
        logits[label].item(),
        atol=1e-4,
    )

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.0, 5.2))
kinds = ["query", "key", "value", "output", "weights"]
for k, way in enumerate(ways):
    ax.barh(
        np.arange(n) + 0.16 * (k - 2),
        values[way],
        0.15,
        label=way,
        color=COLORS[kinds[k]],
    )
ax.axvline(0, color=COLORS["reference"], linewidth=1)
ax.set_yticks(range(n), tokens)
ax.invert_yaxis()
ax.set_xlabel(f"Shapley value, in the logit of {read.names[label]}")
fig.legend(loc="outside upper center", ncols=3)
show_figure(
    fig,
    name="fig-shap-words",
    caption="Exact Shapley values of the words of one sentence, for four ways to "
    "leave a word out, in the order of the legend; the random words are drawn "
    "twice. Model, sentence and answer are the same. The shares are not.",
    alt="Eleven groups of five horizontal bars, one group a word. Within most "
    "groups the bars have one direction and clearly different lengths; in some "
    "the directions differ too.",
)

# %%
gap = max(
    (values[a] - values[b]).abs().max().item()
    for k, a in enumerate(ways[:4])
    for b in ways[:k]
)
glue("shap-gap", gap)
glue("shap-logit", ends["mask"][1])
for way in ways[:4]:
    glue(f"shap-none-{way}", ends[way][0])
    glue(f"shap-last-{way}", values[way][-1])
together = torch.corrcoef(torch.stack([values[way] for way in ways]))
glue("shap-lowest-correlation", together[:4, :4].min())
glue("shap-redraw-correlation", together[3, 4])
check("the way to leave out a word changes shares", gap > 0.3)

# %% [markdown]
# One model, one sentence, one answer: {glue:text}`shap-logit:.2f` with all words there. And four
# explanations, all exact, all with every axiom ({numref}`fig-shap-words`). The same word's share
# differs by up to {glue:text}`shap-gap:.2f` from one way to another. The last word, for one, gets
# {glue:text}`shap-last-mask:.2f` where [MASK] stands for the missing,
# {glue:text}`shap-last-delete:.2f` where they are deleted, and {glue:text}`shap-last-random:.2f`
# where other words stand there.
#
# Even what there is to share is not the same. Without any word the model says
# {glue:text}`shap-none-mask:.2f` to a row of [MASK]s, {glue:text}`shap-none-delete:.2f` to an empty
# text, and {glue:text}`shap-none-random:.2f`, in the mean, to random words. (To delete all words and
# to hide all places from attention is one and the same; for some words it is not, since deleting
# moves the rest.) “The Shapley value is unique” is a theorem about a game. It does not choose the
# game.
#
# Is the disagreement large? Over the eleven words the four ways correlate with
# {glue:text}`shap-lowest-correlation:.2f` at the least, and the two draws of random words with
# {glue:text}`shap-redraw-correlation:.2f` among themselves. One sentence says little. Before we take
# many, see what sampling would have given.

# %%
f, exact = games["mask"], values["mask"]
print("with [MASK]; error: root mean square over words, mean of 20 seeds")
print("orders  coalitions  orders, error   pairs, error   sampled kernel")
for m in (10, 40, 160):
    samples = m * (n - 1)
    found = {"orders": [], "pairs": [], "kernel": []}
    for k in range(20):
        for name, antithetic in (("orders", False), ("pairs", True)):
            found[name].append(
                permutation_shap(
                    f, n, permutations=m, seed=k, antithetic=antithetic
                )
            )
        found["kernel"].append(kernel_shap(f, n, samples=samples, seed=k))
    rms = {
        name: (torch.stack(rows) - exact).square().mean(1).sqrt().mean().item()
        for name, rows in found.items()
    }
    print(
        f"{m:6}{samples:12}{rms['orders']:15.3f}{rms['pairs']:15.3f}"
        f"{rms['kernel']:17.3f}"
    )
    glue(f"shap-rms-{m}", rms["orders"])
check("kernel_shap with all coalitions is exact", kernel_shap(f, n), exact)
size_of_values = exact.square().mean().sqrt()
glue("shap-rms-exact", size_of_values)
check(
    "160 orders are far better than 10", rms["orders"] < 0.25 * size_of_values
)

# %% [markdown]
# The values themselves have a root mean square of {glue:text}`shap-rms-exact:.2f`. With ten orders
# the error is {glue:text}`shap-rms-10:.2f`, with sixteen times as many it is
# {glue:text}`shap-rms-160:.2f`, about a quarter, as {eq}`eq-shap-error` has it. For eleven words all
# coalitions cost little more than that; for thirty there are a thousand million of them, and to
# sample is the only way.
#
# And the drop when *one* word is left out? That costs eleven evaluations, and is often shown.

# %%
for way in ("mask", "delete"):
    drops, earned = left_out[way].sum(), ends[way][1] - ends[way][0]
    print(
        f"{way:7} drops sum to {drops:6.2f}, to explain there is {earned:5.2f}"
    )
    glue(f"shap-drops-{way}", drops)
    glue(f"shap-earned-{way}", earned)
off = [
    abs(left_out[way].sum() - values[way].sum()) for way in ("mask", "delete")
]
check("drops are no shares of the whole", max(off) > 0.5)

# %% [markdown]
# With [MASK] the drops sum to {glue:text}`shap-drops-mask:.2f`, where there is
# {glue:text}`shap-earned-mask:.2f` to explain; with deletion, which moves all later words to other
# places, to {glue:text}`shap-drops-delete:.2f` of {glue:text}`shap-earned-delete:.2f`.
#
# ### Many sentences, several models
#
# A recorded run took apart {glue:text}`shap-many:.0f` sentences, the held-out ones of eight to ten
# words and signs that the vocabulary knows in full, under {glue:text}`shap-models:.0f` models that
# differ in their seed alone. All values are exact. For each sentence we ask how the values of its words correlate: between two ways, between two draws
# of random words, between two models, and with what *leaving out one word* says.

# %%
record = recorded("shap")
settings, record = record["settings"], record["results"]
count = len(settings["seeds"])
print(f"docstrings {record['text_sha256'][:16]}")
print(f"{len(record['texts'])} sentences, {count} models, accuracy", end=" ")
right = record["accuracy"]
print(f"{np.mean(right):.3f} ± {np.std(right, ddof=1):.3f}")
glue("shap-many", len(record["texts"]))
glue("shap-models", count)

rows = {
    "[MASK] and deleted": ("mask | delete", "mask-delete"),
    "[MASK] and padded": ("mask | pad", "mask-pad"),
    "[MASK] and random": ("mask | random", "mask-random"),
    "deleted and random": ("delete | random", "delete-random"),
    "random, drawn twice": ("random | random again", "redraw"),
}
compared = {}
for name, (pair, key) in rows.items():
    compared[name] = (
        key,
        np.array(record["correlation"][pair]),
        record["same_top"][pair],
    )
compared["[MASK], two models"] = (
    "models",
    np.array(record["models"]["correlation"]),
    record["models"]["same_top"],
)
compared["leave one out, [MASK]"] = (
    "left",
    np.array(record["left_out"]["correlation"]),
    record["left_out"]["same_top"],
)
print(
    f"{'mean ± deviation over models':32}{'correlation':>15}{'same top word':>17}"
)
for name, (key, each, top) in compared.items():
    mean = each.mean(1)  # over sentences; one number a model, or a pair of them
    print(
        f"{name:32}{mean.mean():8.3f} ± {mean.std(ddof=1):.3f}"
        f"{np.mean(top):10.2f} ± {np.std(top, ddof=1):.2f}"
    )
    glue(f"shap-r-{key}", mean.mean())
    glue(f"shap-top-{key}", np.mean(top))
share = record["left_out"]["sum"]
glue("shap-left-sum", np.mean(share))
glue("shap-left-sum-sd", np.std(share, ddof=1))
print("what is left out one by one sums to", end=" ")
print(f"{np.mean(share):.2f} ± {np.std(share, ddof=1):.2f} of what there is")

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.1, 3.4))
data = [each.ravel() for _, each, _ in compared.values()]
ax.boxplot(
    data,
    orientation="horizontal",
    widths=0.6,
    showfliers=False,
    medianprops={"color": COLORS["query"], "linewidth": 2},
    boxprops={"color": COLORS["reference"]},
    whiskerprops={"color": COLORS["reference"]},
    capprops={"color": COLORS["reference"]},
)
ax.set_yticks(range(1, len(data) + 1), list(compared))
ax.invert_yaxis()
ax.set_xlabel("correlation over the words of a sentence")
show_figure(
    fig,
    name="fig-shap-agreement",
    caption=f"How far two explanations of one sentence agree: "
    f"{len(record['texts'])} sentences, {count} models. Boxes hold the middle "
    "half, lines the median. Another way to leave words out matters about "
    "as much as another draw of random words, another model matters more.",
    alt="Seven horizontal boxes. Five pairs of ways have narrow boxes with "
    "medians near 0.9 or above. Two models, and leaving out one word against "
    "the Shapley value, have medians near 0.8 and long whiskers to the left.",
)

# %%
print("error ÷ root mean square of the values, [MASK], mean ± deviation")
print(f"{'orders':>8}" + "".join(f"{name:>18}" for name in record["errors"]))
for k, m in enumerate(settings["permutations"]):
    line = f"{m:8}"
    for name, found in record["errors"].items():
        column = np.array(found)[:, k]
        line += f"{column.mean():10.3f} ± {column.std(ddof=1):.3f}"
        glue(f"shap-error-{name}-{m}", column.mean())
    print(line)

# %% [markdown]
# **Ways.** Two ways to leave words out agree well, and not fully: the correlation over a sentence's
# words is {glue:text}`shap-r-mask-delete:.2f` between [MASK] and deletion,
# {glue:text}`shap-r-mask-random:.2f` between [MASK] and random words. Is that another game, or noise?
# Random words drawn a second time agree with the first by {glue:text}`shap-r-redraw:.2f`. So with
# eight draws a part of the difference to “random” is the drawing; [MASK], deletion and padding draw
# nothing, and all of theirs is the game. The top word is the same in
# {glue:text}`shap-top-mask-delete:.0%` of the sentences for [MASK] and deletion, and in
# {glue:text}`shap-top-delete-random:.0%` for deletion and random words. In the rest, who asks “which
# word was it?” gets another answer for another way of asking. These models were trained to read
# [MASK]s; for one that was not, we would expect less agreement, and did not measure it. Compare the
# single sentence above, where two ways had {glue:text}`shap-lowest-correlation:.2f`: one sentence is
# little evidence, in either direction.
#
# **Models.** Two models that differ in their seed agree by {glue:text}`shap-r-models:.2f`, less
# than the ways above do for one model, and name the same top word in
# {glue:text}`shap-top-models:.0%` of the sentences ({numref}`fig-shap-agreement`). A Shapley value explains *a* model, and not the data.
#
# **Leaving one out.** The drop when a single word is hidden correlates with the Shapley value by
# {glue:text}`shap-r-left:.2f`, and all drops together are {glue:text}`shap-left-sum:.2f` ±
# {glue:text}`shap-left-sum-sd:.2f` of what there is to explain. A likely reason is that sentences say
# things twice: where either of two words would do, hiding one changes little. The box D54 has that in
# its purest form.
#
# **Sampling.** Pairs of orders have little more than half of the error of independent ones:
# {glue:text}`shap-error-antithetic-32:.2f` against {glue:text}`shap-error-orders-32:.2f` of the
# values' size, at 32 orders. Sampled least squares, given as many coalitions, is at
# {glue:text}`shap-error-kernel-32:.2f`.

# %% [markdown]
# ## Folklore, set right
#
# | Said | True | Source |
# |---|---|---|
# | “SHAP values are *the* fair explanation: they are unique.” | Unique for a game. One model and one input make many games, each with its own values. | {cite}`sundararajan2020`; {numref}`fig-shap-words` |
# | “A feature that the model ignores gets 0.” | In the interventional game. In the conditional one it may get a share, in our example up to half {eq}`eq-shap-conditional`. | {cite}`janzing2020` |
# | “It tells what happens if I change the feature.” | It tells what the feature adds, on average over who is there already. For a change, evaluate the model at the change. | {eq}`eq-shap-orders` |
# | “KernelSHAP weights coalitions by how near they are to the input.” | Its weights are the same for a coalition and for those it leaves out, and they are forced. A kernel of nearness is LIME's (chapter 18). | {eq}`eq-shap-forced` |
# | “Left-out drops are approximate Shapley values.” | They are one term of the sum, and need not sum to anything: D54. | {eq}`def-shap-value` |

# %% [markdown]
# ## Broken on purpose
#
# :::{admonition} Broken on purpose D54: leave one out, called a Shapley value
# :class: broken
# Hide each feature once, take the drop, call it the feature's value. That is $\Delta_i$ for one
# coalition of $2^{n-1}$, the largest. Two synonyms, each of which would do: hide either, and nothing
# happens. Both get nothing, and the answer has no reason at all. To take the *gain of the first word
# alone*, the smallest coalition, fails the other way round: both get everything.
# :::


# %%
def either(present):  # two synonyms and an idle word
    return (present[:, 0] | present[:, 1]).double()


def leave_one_out(f, n):
    all_but = ~torch.eye(n, dtype=torch.bool)
    return f(torch.ones(1, n, dtype=torch.bool)) - f(all_but)


def first_alone(f, n):
    alone = torch.eye(n, dtype=torch.bool)
    return f(alone) - f(torch.zeros(1, n, dtype=torch.bool))


def everything_is_shared_out(method):
    shares = method(either, 3)
    total = shares.sum().item()
    assert abs(total - 1) < 1e-9, (
        f"shares {shares.tolist()} sum to {total:g}, want 1, what there is"
    )


catches(
    "D54", everything_is_shared_out, broken=leave_one_out, fixed=shapley_values
)
catches(
    "D54, the first alone",
    everything_is_shared_out,
    broken=first_alone,
    fixed=shapley_values,
)

# %% [markdown]
# **Fix:** the mean over all orders: one half to each synonym, nothing to the idle word. Efficiency is
# the test to run on anything that is called a Shapley value; it costs two evaluations.
#
# :::{admonition} Broken on purpose D55: the wrong mean over coalitions
# :class: broken
# Least squares on random coalitions with *uniform* weights looks like KernelSHAP, sums to the right
# total thanks to its constraint, and is exact for additive games. It is not the Shapley value. Nor is
# the mean of marginal contributions over all coalitions alike, where it should be over sizes first;
# nor are kernel weights without the binomial, which give each coalition the weight of its whole
# size. None of them raises an error.
# :::


# %%
def least_squares(weight_of_size):
    """The constrained problem, with one weight for each size."""

    def method(f, n):
        z = coalitions(n)
        v = f(z) - f(z)[0]
        s = z.sum(1)
        w = torch.tensor([0.0, *map(weight_of_size, range(1, n)), 0.0])[s]
        w, z = w.double(), z.double()
        system = torch.zeros(n + 1, n + 1, dtype=double)
        system[:n, :n] = z.T @ (w[:, None] * z)
        system[n, :n] = system[:n, n] = 1
        right = torch.cat([z.T @ (w * v), v[-1:]])
        return torch.linalg.solve(system, right)[:n]

    return method


players = 6
uniform = least_squares(lambda s: 1.0)
no_binomial = least_squares(lambda s: (players - 1) / (s * (players - s)))
with_binomial = least_squares(
    lambda s: (players - 1) / (math.comb(players, s) * s * (players - s))
)


def mean_of_all(f, n):
    return banzhaf(f(coalitions(n)))


def is_the_mean_over_orders(method):
    worth = random_worth(players, seed=5)
    worst = (method(game_of(worth), players) - by_orders(worth)[0]).abs().max()
    assert worst < 1e-6, (
        f"a share is off by {worst:.3f} from the mean over all "
        f"{math.factorial(players)} orders"
    )


for name, method in (
    ("D55", uniform),
    ("D55, no binomial", no_binomial),
    ("D55, all coalitions alike", mean_of_all),
):
    catches(name, is_the_mean_over_orders, broken=method, fixed=with_binomial)
slope = torch.arange(1.0, players + 1, dtype=double)
check(
    "an additive game does not notice",
    uniform(lambda s: s.double() @ slope, players),
    slope,
)

# %% [markdown]
# **Fix:** the weights of {eq}`eq-shap-kernel`. And test on a game in which players *meet*: on an
# additive one, as the last check shows, every weight is right.

# %% [markdown]
# ## Exercises
#
# Replace the line that raises `NotImplementedError`, run the cell, and read the verdict: it names
# the property that fails. The checkers try your function on games that you don't see. A game is
# given by its $2^n$ worths, a tensor; entry $k$ is of those players $i$ where bit $i$ of $k$ is 1.
#
# ```{exercise-start} Who adds what
# :label: ex-shap-order
# ```
# *Difficulty ●○○ · 10 minutes*
#
# Write `contributions(worth, order)`: what each player adds when they arrive in this order, a tensor
# (n,) with entry $i$ for player $i$. `order` is a list of the players 0 … n − 1.
#
# ```{dropdown} Hint
# Keep the coalition as a number, and set one bit at a time: `present | 1 << i`. Player $i$'s gain goes
# to entry $i$, and not to the place in the order.
# ```


# %% tags=["exercise-stub"]
def contributions(worth, order):
    raise NotImplementedError


grade("ex-shap-order", contributions)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-shap-order
# :class: dropdown
# ```


# %% tags=["solution"]
def contributions(worth, order):
    gain, present = torch.zeros(len(order), dtype=worth.dtype), 0
    for i in order:
        gain[i] = worth[present | 1 << i] - worth[present]
        present |= 1 << i
    return gain


grade("ex-shap-order", contributions)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The value by coalitions
# :label: ex-shap-value
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `value(worth)`: all n Shapley values of a game, exactly, without running through orders.
#
# ```{dropdown} Hint
# {eq}`def-shap-value` with the weight of {eq}`eq-shap-weight`. For player $i$ run through the numbers
# $k$ whose bit $i$ is 0; `k.bit_count()` is the size of that coalition.
# ```


# %% tags=["exercise-stub"]
def value(worth):
    raise NotImplementedError


grade("ex-shap-value", value)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-shap-value
# :class: dropdown
# ```


# %% tags=["solution"]
def value(worth):
    n = len(worth).bit_length() - 1
    share = torch.zeros(n, dtype=worth.dtype)
    for i in range(n):
        for k in range(2**n):
            if not k >> i & 1:
                weight = 1 / (n * math.comb(n - 1, k.bit_count()))
                share[i] += weight * (worth[k | 1 << i] - worth[k])
    return share


grade("ex-shap-value", value)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Dividends
# :label: ex-shap-dividends
# ```
# *Difficulty ●●○ · 15 minutes*
#
# Write `dividends(worth)`: the numbers $d_T$ of {eq}`eq-shap-dividends`, a tensor $(2^n,)$ in the order
# of the worths. Entry 0 is the worth of nobody.
#
# ```{dropdown} Hint
# `k & t == k` asks whether the coalition $k$ is inside $t$. Or, faster: for each player once, subtract
# from every worth with the player the one without.
# ```


# %% tags=["exercise-stub"]
def dividends(worth):
    raise NotImplementedError


grade("ex-shap-dividends", dividends)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-shap-dividends
# :class: dropdown
# ```
#
# The faster way: $n\,2^{n-1}$ subtractions, where the formula has $3^n$ terms.


# %% tags=["solution"]
def dividends(worth):
    d = worth.clone()
    k = torch.arange(len(d))
    for i in range(len(d).bit_length() - 1):
        having = k[(k >> i) & 1 == 1]
        d[having] -= d[having - (1 << i)]
    return d


grade("ex-shap-dividends", dividends)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} The kernel
# :label: ex-shap-kernel
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `share_of_size(n, s)`: with which probability does a coalition have size $s$, when coalitions
# are drawn with probability proportional to KernelSHAP's $\pi$? $s$ runs from 1 to $n - 1$.
#
# ```{dropdown} Hint
# There are $\binom{n}{s}$ coalitions of size $s$, so the binomial cancels. Divide by the sum over all
# sizes.
# ```


# %% tags=["exercise-stub"]
def share_of_size(n, s):
    raise NotImplementedError


grade("ex-shap-kernel", share_of_size)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-shap-kernel
# :class: dropdown
# ```


# %% tags=["solution"]
def share_of_size(n, s):
    total = sum(1 / (k * (n - k)) for k in range(1, n))
    return 1 / (s * (n - s)) / total


grade("ex-shap-kernel", share_of_size)

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Two features that go together
# :label: ex-shap-conditional
# ```
# *Difficulty ●●● · 20 minutes*
#
# Two standard normal features have correlation `rho`, and the model is $f(x) = a_1 x_1 + a_2 x_2$.
# Write `conditional(a, x, rho)`: both Shapley values of the *conditional* game, as a pair of floats.
# `a` and `x` are pairs.
#
# ```{dropdown} Hint
# By linearity two models of one feature each are enough, and {eq}`eq-shap-conditional` has one of them.
# Exchange the features for the other.
# ```


# %% tags=["exercise-stub"]
def conditional(a, x, rho):
    raise NotImplementedError


grade("ex-shap-conditional", conditional)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-shap-conditional
# :class: dropdown
# ```
#
# With $\rho = 0$ it is $a_i x_i$, the interventional answer.


# %% tags=["solution"]
def conditional(a, x, rho):
    first = a[0] * (x[0] - rho * x[1] / 2) + a[1] * rho * x[0] / 2
    second = a[1] * (x[1] - rho * x[0] / 2) + a[0] * rho * x[1] / 2
    return first, second


grade("ex-shap-conditional", conditional)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - A game gives every coalition a worth {eq}`def-shap-game`. The Shapley value of a player is the mean
#   of what they add, over all orders of arrival {eq}`eq-shap-orders`, or over coalitions, size by size
#   {eq}`def-shap-value`, {eq}`eq-shap-weight`.
# - It is efficient {eq}`eq-shap-efficiency`, symmetric {eq}`eq-shap-symmetry`, gives dummies nothing
#   {eq}`eq-shap-dummy`, and is linear {eq}`eq-shap-linearity`. It is the only rule that is: every game
#   is a sum of unanimity games {eq}`eq-shap-basis`, and in those nothing is left to choose
#   {eq}`eq-shap-shares`. Drop any demand, and there is another rule.
# - To make a game of a prediction, say what a missing input is. Interventional and conditional games
#   differ as soon as features are dependent {eq}`eq-shap-interventional`, {eq}`eq-shap-conditional`; the
#   one asks about inputs that may never occur, the other gives shares to what the model never reads.
# - Weighted least squares has the Shapley value as its solution for one kernel, and up to a factor for
#   that alone {eq}`eq-shap-forced`, {eq}`eq-shap-kernel`.
# - Sampling orders is unbiased {eq}`eq-shap-unbiased`, and its error falls as $1/\sqrt m$
#   {eq}`eq-shap-error`. Orders and their reverses have a smaller constant where the two contributions
#   are opposed {eq}`eq-shap-antithetic`.
# - On a small BERT, ways to leave a word out agree in the main and not in full; another seed of the
#   model changes more than another way does; and leaving one word out accounts for a small part of what
#   there is to share.
#
# ## Sources
#
# - {cite:t}`shapley1953`: the value and its uniqueness. His axioms are three: symmetry, a law of
#   aggregation, and one on *carriers* that says efficiency and dummy at once.
# - {cite:t}`harsanyi1963`: dividends.
# - {cite:t}`strumbelj2014`: Shapley values of predictions, with sampled orders and features drawn
#   independently, before the name SHAP; {cite:t}`castro2009`: sampling orders, in general.
# - {cite:t}`lundberg2017`: SHAP, and Theorem 2 on the kernel.
# - {cite:t}`covert2021`: the constrained problem, its bias and variance, and pairs of coalitions.
# - {cite:t}`mitchell2022`: ways to sample orders, compared.
# - {cite:t}`janzing2020`: which distribution missing features should have;
#   {cite:t}`sundararajan2020`: how many Shapley values one prediction has.
