# ---
# jupyter:
#   accelerator: GPU
#   book:
#     question: Question here?
#     goals:
#       - say in one line what a reader can do after this chapter
#       - and one line more for each further goal
#     prerequisites:
#       - 02_attention
#     data: Where the real data comes from. Here, the language reference that ships with Python.
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
# # Title here

# %% tags=["setup", "remove-cell"]
import sys
from pathlib import Path

here = Path.cwd()
root = next(p for p in (here, *here.parents) if (p / "lib" / "teaching").is_dir())
sys.path.insert(0, str(root))

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch
from pydoc_data.topics import topics

from lib.slug_here import variance
from lib.teaching import catches, check, glue, grade, show_figure, start
from lib.teaching.figures import COLORS

device = start(seed=0)
double = torch.float64

# %% [markdown]
# ## The formula
#
# State the formula with the shape of everything in it. As a stand-in, the variance of $n$ numbers
# with mean $\bar x$:
#
# $$
# \operatorname{Var}(x) = \frac{1}{n} \sum_{i=1}^{n} (x_i - \bar x)^2 .
# $$ (def-slug-here-variance)
#
# | symbol | shape | meaning |
# |---|---|---|
# | $x$ | $n$ | the numbers |
# | $\bar x$ | a number | their mean |
#
# A definition carries a `def-` label. Whatever is claimed carries an `eq-` label, and is checked.

# %% [markdown]
# ## Derivation
#
# Skip no step, and give each a reason. Expand the square, and use that the deviations sum to zero:
#
# $$
# \operatorname{Var}(x) = \frac{1}{n} \sum_{i=1}^{n} x_i^2 - \bar x^2 .
# $$ (eq-slug-here-moments)

# %%
x = torch.randn(7, dtype=double)
check("eq-slug-here-moments", (x**2).mean() - x.mean() ** 2, variance(x))

# %% [markdown]
# ## From scratch
#
# The same in plain Python, on an input that can be followed by hand: the numbers one, two and six.

# %%
numbers = [1, 2, 6]
mean = sum(numbers) / len(numbers)
squares = [(number - mean) ** 2 for number in numbers]
print("mean", mean, " squared deviations", squares)
by_hand = sum(squares) / len(squares)
found = variance(torch.tensor(numbers, dtype=double))
check("by hand = the library", found, by_hand)

# %% [markdown]
# ## The library function
#
# ```{lib-source} lib.slug_here.variance
# ```

# %%
x = torch.randn(3, 5, 7, dtype=double)
check("the library = torch", variance(x), x.var(-1, unbiased=False))

# %% [markdown]
# ## On real data
#
# Use data that ships with Python, or that the library makes. Here, the lengths of all words in the
# language reference.

# %%
words = " ".join(topics.values()).split()
lengths = torch.tensor([len(word) for word in words], device=device, dtype=double)
glue("slug-here-spread", variance(lengths).sqrt())
check("words differ in length", bool(variance(lengths) > 0))

# %% [markdown]
# A number that was measured is never typed: the standard deviation of a word's length is
# {glue:text}`slug-here-spread:.1f` characters.

# %% [markdown]
# ## Broken on purpose
#
# Make a mistake that others make, show its symptom as a number, and run the test that catches it.
#
# :::{admonition} Broken on purpose D00: the difference of two large numbers
# :class: broken
# {eq}`eq-slug-here-moments` is true, and still no way to compute a variance: in single
# precision both terms are large, and their difference is mostly rounding.
# :::

# %%
def by_moments(values):
    return (values**2).mean(-1) - values.mean(-1) ** 2


def survives_a_large_mean(function):
    values = torch.tensor([1.0, 2.0, 6.0]) + 10_000
    got = function(values).item()
    assert abs(got - by_hand) < 1e-3, f"the variance far from zero is {got:.3f}"


catches("D00", survives_a_large_mean, broken=by_moments, fixed=variance)

# %%
means = torch.logspace(0, 5, 21)
values = torch.tensor([1.0, 2.0, 6.0]) + means[:, None]  # (mean, number)
fig, ax = plt.subplots(figsize=(5.0, 2.8))
for name, function, color, style in [
    ("difference of moments", by_moments, "key", "--"),
    ("mean square deviation", variance, "query", "-"),
]:
    error = (function(values) - by_hand).abs().clamp_min(1e-8)
    ax.plot(means, error, style, color=COLORS[color], label=name)
ax.set(xscale="log", yscale="log", xlabel="mean of the numbers", ylabel="error")
ax.legend()
show_figure(
    fig,
    name="fig-slug-here-cancellation",
    caption="The error of two ways to compute one variance, in single "
    "precision.",
    alt="Two curves of error over the mean of the numbers, on logarithmic "
    "axes. That of the difference of moments climbs steadily; that of the "
    "mean square stays low.",
)

# %% [markdown]
# **Fix:** subtract the mean first. {numref}`fig-slug-here-cancellation` shows both ways.

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Standard scores
# :label: ex-slug_here-scores
# ```
# *Difficulty ●○○ · 5 minutes*
#
# Write `scores(values)`: shift and scale the numbers along the last dimension so that their mean is
# zero and their variance {eq}`def-slug-here-variance` is one.
#
# ```{dropdown} Hint
# By which power of the variance do numbers have to be divided?
# ```

# %% tags=["exercise-stub"]
def scores(values):
    raise NotImplementedError


grade("ex-slug_here-scores", scores)

# %% [markdown]
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-slug_here-scores
# :class: dropdown
# ```

# %% tags=["solution"]
def scores(values):
    centred = values - values.mean(-1, keepdim=True)
    return centred / (centred**2).mean(-1, keepdim=True).sqrt()


grade("ex-slug_here-scores", scores)

# %% [markdown]
# ```{solution-end}
# ```

# %% [markdown]
# ## Summary
#
# - What to remember, with the equation that says it: {eq}`eq-slug-here-moments`.
#
# ## Sources
#
# - {cite}`vaswani2017`, §3.2.1: name the section that was read, so that a reader finds it.
