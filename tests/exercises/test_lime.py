"""Exercises of 18_lime: stub open, solution passes, each mistake has its own diagnosis."""

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "18_lime"


def _hidden(z):
    return (~z).double()


def _with_one(z):
    return torch.cat([torch.ones(len(z), 1, dtype=z.dtype), z], dim=1)


def _solve(A, y, w):
    return torch.linalg.solve(A.T @ (w[:, None] * A), A.T @ (w * y))


def _draw(n, m, seed, *, low=1, whole=True, fixed=False, shared=False):
    generator = torch.Generator().manual_seed(seed)
    if shared:
        generator = torch.manual_seed(seed)
    order = torch.rand(m, n, generator=generator).argsort(1).argsort(1)
    if fixed:
        order = torch.arange(n).expand(m, n)
    hidden = torch.randint(low, n + 1, (m, 1), generator=generator)
    present = order >= hidden
    if whole:
        present[0] = True
    return present


def _unseeded(n, m, seed):
    order = torch.rand(m, n).argsort(1).argsort(1)
    present = order >= torch.randint(1, n + 1, (m, 1))
    present[0] = True
    return present


def _coin(n, m, seed):
    present = torch.rand(m, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    present[0] = True
    return present


def _add_one(f, n):
    nothing = torch.zeros(1, n, dtype=torch.bool)
    return f(torch.eye(n, dtype=torch.bool)) - f(nothing)


def _leave_out(f, n):
    return f(torch.ones(1, n, dtype=torch.bool)) - f(~torch.eye(n, dtype=torch.bool))


def _word_by_word(f, n):
    found = []
    for j in range(n):
        everything = torch.ones(1, n, dtype=torch.bool)
        without = everything.clone()
        without[0, j] = False
        found.append(f(everything)[0] - f(without)[0])
    return torch.stack(found)


WRONG = {
    "ex-lime-kernel": {
        "raw counts": (
            lambda z, s: torch.exp(-((_hidden(z).sum(1) / s) ** 2)),
            "counts shares, and not words",
        ),
        "share of present words": (
            lambda z, s: torch.exp(-((z.double().mean(1) / s) ** 2)),
            "is 1 for the whole sentence",
        ),
        "not squared": (
            lambda z, s: torch.exp(-_hidden(z).mean(1) / s),
            "squares both distance and width",
        ),
        "halved": (
            lambda z, s: torch.exp(-((_hidden(z).mean(1) / s) ** 2) / 2),
            "squares both distance and width",
        ),
        "mean over words": (
            lambda z, s: torch.exp(-((_hidden(z) / s) ** 2)),
            "is one number a row",
        ),
    },
    "ex-lime-fit": {
        "no intercept": (lambda z, y, w: _solve(z, y, w), "the intercept and then"),
        "intercept last": (
            lambda z, y, w: _solve(_with_one(z), y, w).roll(-1),
            "finds a linear function, intercept first",
        ),
        "no weights": (
            lambda z, y, w: _solve(_with_one(z), y, torch.ones_like(w)),
            "a row of weight 2",
        ),
        "weights squared": (
            lambda z, y, w: _solve(_with_one(z), y, w**2),
            "a row of weight 2",
        ),
        "weights forgotten on the right": (
            lambda z, y, w: torch.linalg.solve(
                _with_one(z).T @ (w[:, None] * _with_one(z)), _with_one(z).T @ y
            ),
            "finds a linear function",
        ),
    },
    "ex-lime-r2": {
        "no weights": (
            lambda y, g, w: 1 - ((y - g) ** 2).sum() / ((y - y.mean()) ** 2).sum(),
            "is 0 for the weighted mean",
        ),
        "about zero": (
            lambda y, g, w: 1 - (w * (y - g) ** 2).sum() / (w * y**2).sum(),
            "is 0 for the weighted mean",
        ),
        "the plain mean": (
            lambda y, g, w: 1 - (w * (y - g) ** 2).sum() / (w * (y - y.mean()) ** 2).sum(),
            "is 0 for the weighted mean",
        ),
        "what is left": (
            lambda y, g, w: (w * (y - g) ** 2).sum(),
            "is 1 for a perfect fit",
        ),
        "one number a row": (lambda y, g, w: w * (y - g) ** 2, "is one number"),
    },
    "ex-lime-narrow": {
        "one added to nothing": (_add_one, "leaves one out of the whole"),
        "sign turned": (lambda f, n: -_leave_out(f, n), "leaves one out of the whole"),
        "floats": (
            lambda f, n: (
                f(torch.ones(1, n, dtype=torch.float64)) - f(1 - torch.eye(n, dtype=torch.float64))
            ),
            "asks f about booleans",
        ),
        "the whole again for each word": (_word_by_word, "needs n + 1 questions"),
        "one number": (lambda f, n: _leave_out(f, n).sum(), "is one number a word"),
    },
    "ex-lime-neighbours": {
        "zeros and ones": (lambda n, m, s: _draw(n, m, s).double(), "is a boolean"),
        "never the whole": (lambda n, m, s: _draw(n, m, s, whole=False), "begins with the whole"),
        "none hidden": (lambda n, m, s: _draw(n, m, s, low=0), "hides from 1 to n words"),
        "a coin for each word": (_coin, "hides from 1 to n words"),
        "from the left": (lambda n, m, s: _draw(n, m, s, fixed=True), "hides each word alike"),
        "no seed": (_unseeded, "the same seed gives the same questions"),
        "always seed 0": (lambda n, m, s: _draw(n, m, 0), "another seed gives others"),
        "everybody's generator": (
            lambda n, m, s: _draw(n, m, s, shared=True),
            "leaves everybody else's random numbers alone",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
