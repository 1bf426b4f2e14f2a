"""Exercises of 14_distillation: stub open, solution passes, each mistake has its own diagnosis."""

import pytest
import torch

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "14_distillation"


def _kl(student, teacher, T):
    log_p, log_q = (torch.log_softmax(x / T, -1) for x in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _plain(student, teacher, T):
    p, q = (torch.exp(x / T) / torch.exp(x / T).sum(-1, keepdim=True) for x in (teacher, student))
    return T**2 * (p * (p / q).log()).sum(-1).mean()


def _gap(student, teacher, T):
    return torch.softmax(student / T, -1) - torch.softmax(teacher / T, -1)


def _centred(x):
    return x - x.mean(-1, keepdim=True)


def _entropy(teacher, T):
    return torch.special.entr(torch.softmax(teacher / T, -1)).sum(-1)


WRONG = {
    "ex-distillation-loss": {
        "no T²": (lambda s, t, T: _kl(s, t, T).mean(), "carries the factor T²"),
        "T for T²": (lambda s, t, T: T * _kl(s, t, T).mean(), "the loss at T = 3"),
        "mean over classes": (
            lambda s, t, T: T**2 * _kl(s, t, T).mean() / s.shape[-1],
            "sums over classes and takes the mean over rows",
        ),
        "student and teacher swapped": (
            lambda s, t, T: T**2 * _kl(t, s, T).mean(),
            "the loss at T = 1",
        ),
        "cross-entropy": (
            lambda s, t, T: T**2 * (_kl(s, t, T) + _entropy(t, T)).mean(),
            "is zero for a perfect student",
        ),
        "one number a row": (lambda s, t, T: T**2 * _kl(s, t, T), "is one number"),
        "plain exponentials": (_plain, "survives logits in the thousands"),
    },
    "ex-distillation-gradient": {
        "1/T": (lambda s, t, T: _gap(s, t, T) / T / len(s), "carries T² · 1/T = T"),
        "sum over rows": (lambda s, t, T: T * _gap(s, t, T), "divides by the number of rows"),
        "sign turned": (
            lambda s, t, T: -T * _gap(s, t, T) / len(s),
            "pushes up what the student gives too little",
        ),
        "one label": (
            lambda s, t, T: torch.softmax(s / T, -1) - (t == t.amax(-1, keepdim=True)).double(),
            "is zero for a perfect student",
        ),
        "summed over rows": (lambda s, t, T: (T * _gap(s, t, T)).sum(0), "keeps the shape"),
    },
    "ex-distillation-floor": {
        "zero": (lambda t, T: torch.tensor(0.0), "is log N"),
        "temperature forgotten": (lambda t, T: _entropy(t, 1.0).mean(), "follows the temperature"),
        "sum over rows": (lambda t, T: _entropy(t, T).sum(), "is log N"),
        "log N": (
            lambda t, T: torch.tensor(float(t.shape[-1])).double().log(),
            "is the mean over rows of the entropy",
        ),
        "with T²": (lambda t, T: T**2 * _entropy(t, T).mean(), "is log N"),
        "one number a row": (lambda t, T: _entropy(t, T), "is one number"),
    },
    "ex-distillation-limit": {
        "not centred": (
            lambda s, t: ((s - t) ** 2).mean(-1).mean() / 2,
            "does not see a shift",
        ),
        "half forgotten": (
            lambda s, t: (_centred(s - t) ** 2).mean(-1).mean(),
            "is the squared norm over 2N",
        ),
        "not over N": (
            lambda s, t: (_centred(s - t) ** 2).sum(-1).mean() / 2,
            "is the squared norm over 2N",
        ),
        "not squared": (
            lambda s, t: _centred(s - t).norm(dim=-1).mean() / (2 * s.shape[-1]),
            "is the squared norm over 2N",
        ),
        "one number a row": (lambda s, t: (_centred(s - t) ** 2).mean(-1) / 2, "is one number"),
    },
    "ex-distillation-tokens": {
        "mask ignored": (lambda s, t, m, T: T**2 * _kl(s, t, T).mean(), "padding changes nothing"),
        "divided by all tokens": (
            lambda s, t, m, T: T**2 * (_kl(s, t, T) * m).mean(),
            "divides by the real tokens",
        ),
        "divided by sentences": (
            lambda s, t, m, T: T**2 * (_kl(s, t, T) * m).sum() / len(m),
            "without padding it is the mean over all tokens",
        ),
        "mean of the sentences' means": (
            lambda s, t, m, T: (T**2 * (_kl(s, t, T) * m).sum(-1) / m.sum(-1)).mean(),
            "divides by the real tokens",
        ),
        "mask upside down": (
            lambda s, t, m, T: T**2 * (_kl(s, t, T) * (1 - m)).sum() / (1 - m).sum().clamp(min=1),
            "without padding",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
