"""LIME: a straight line fitted to a model near one input, and its slopes read as an explanation.

Derived in chapter 18_lime.

`weighted_least_squares` is the fit; `lime` draws the neighbours, asks the model, weighs them by how
near they are, and fits. Both return a `Surrogate`. Everything is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Surrogate", "lime", "weighted_least_squares"]

DISTANCES = ("cosine", "share")
DRAWS = ("count", "coin")
SAMPLINGS = ("paper", "kernel", "pairs")


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The linear model g(z) = intercept + z · coefficients, and how well it fits."""

    coefficients: Tensor  # (n,)
    intercept: float
    r2: float  # share of the weighted variance of f that g explains
    effective_samples: float  # (Σπ)² / Σπ²: how many samples of equal weight say as much

    def predict(self, z: Tensor) -> Tensor:
        """g of each row of z (..., n), as (...); booleans are 0 and 1."""
        return self.intercept + z.to(self.coefficients) @ self.coefficients


def weighted_least_squares(
    z: Tensor, values: Tensor, weights: Tensor, *, ridge: float = 0.0
) -> Surrogate:
    """The linear model that is nearest to given values, where some samples count more than others.

        minimise  Σ_i π_i (y_i − b − z_i · β)² + λ ‖β‖²      over b and β

    With λ = 0 the minimum is unique exactly if the rows (1, z_i) of positive weight span n + 1
    dimensions. It is computed from the singular values of the rows √π_i (1, z_i), about the
    weighted mean, and not from their squares in the normal equations.

    Parameters
    ----------
    z : (m, n), boolean or floating
    values : (m,), y_i
    weights : (m,), π_i ≥ 0, not all 0
    ridge : λ ≥ 0. The intercept is not penalised.

    Returns a `Surrogate`. Its `r2` is 1 − Σπ(y − g)² / Σπ(y − ȳ)², with the weighted mean ȳ. Values
    that are all the same are explained whole: r2 = 1. The fit of λ = 0 has r2 from 0 to 1.

    Raises ValueError for shapes that do not belong together, numbers that are not finite, a weight
    or λ below 0, and for λ = 0 where the minimum is not unique; TypeError for no tensor.

    Source: Gauss 1809; as LIME's fit Ribeiro et al. 2016, section 3.4. Derived in chapter 18_lime.

    >>> z = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> line = weighted_least_squares(z, 3 + z @ torch.tensor([2.0, -1.0]), torch.ones(4))
    >>> [round(x, 9) for x in (line.intercept, *line.coefficients.tolist(), line.r2)]
    [3.0, 2.0, -1.0, 1.0]
    """
    z, values, weights = (
        _real(name, x) for name, x in (("z", z), ("values", values), ("weights", weights))
    )
    if z.ndim != 2 or z.numel() == 0:
        raise ValueError(f"z: expected shape (m ≥ 1, n ≥ 1), got {tuple(z.shape)}")
    for name, x in (("values", values), ("weights", weights)):
        if x.shape != z.shape[:1]:
            raise ValueError(f"{name}: expected shape {tuple(z.shape[:1])}, got {tuple(x.shape)}")
    if not (bool((weights >= 0).all()) and bool(weights.sum() > 0)):
        low, high = weights.min().item(), weights.max().item()
        raise ValueError(f"weights: expected none below 0 and one above, got {low:g} to {high:g}")
    if not (math.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"ridge: expected a number of at least 0, got {ridge!r}")
    n = z.shape[1]
    share = weights / weights.sum()
    z_mean, y_mean = share @ z, share @ values
    root = weights.sqrt()
    U, s, Vh = torch.linalg.svd(root[:, None] * (z - z_mean), full_matrices=False)
    if ridge == 0:
        rank = int((s > max(z.shape) * torch.finfo(s.dtype).eps * s[0]).sum())
        if rank < n:
            raise ValueError(
                f"z: expected rows that span {n} directions where weights are not 0, got {rank}: "
                "draw more samples, widen the kernel, or set ridge"
            )
    coefficients = Vh.T @ (s / (s * s + ridge) * (U.T @ (root * (values - y_mean))))
    intercept = y_mean - z_mean @ coefficients
    rest = weights @ (values - intercept - z @ coefficients) ** 2
    total = weights @ (values - y_mean) ** 2
    constant = total <= 1e-28 * (weights @ values**2)  # what rounding makes of equal values
    return Surrogate(
        coefficients=coefficients,
        intercept=intercept.item(),
        r2=1.0 if constant else (1 - rest / total).item(),
        effective_samples=(weights.sum() ** 2 / weights.square().sum()).item(),
    )


def lime(
    f: Callable[[Tensor], Tensor],
    x: int | Tensor,
    *,
    kernel_width: float,
    samples: int,
    seed: int,
    distance: str = "cosine",
    draw: str = "count",
    sampling: str = "paper",
    scale: float = 1.0,
    ridge: float = 0.0,
) -> Surrogate:
    """Explain f near x by the linear model that fits it best on weighted random neighbours.

        neighbours z_1 = x, z_2, …, z_m;   π_i = exp(−D(z_i)² / σ²);
        minimise Σ_i π_i (f(z_i) − b − z_i · β)² + λ ‖β‖²

    **Words** (x an integer n): z is boolean, True = the word stays, and x itself is all True. β_j
    is then what the presence of word j adds. D is the share of words that are absent ("share"), or
    the cosine distance between z and all ones, 1 − √(k/n) for k present words ("cosine").

    **Real features** (x a floating tensor (n,)): z = x + scale · ε with ε from N(0, I), and
    D = ‖ε‖. β estimates the gradient, and `intercept` is g(0), not g(x).

    Parameters
    ----------
    f : takes (m, n), boolean or of x's dtype and device, and returns one number a row, (m,)
    x : n ≥ 1, or a floating tensor (n,). Not token ids, which are names: give their number.
    kernel_width : σ > 0. It decides what "near" means, and so the answer; there is no right one.
    samples : m, x itself included. With λ = 0 at least n + 1, and more where draws repeat.
    seed : of the draws. The same seed gives the same answer, whatever was drawn before.
    distance : "cosine" or "share", for words
    draw : "count", how many words are absent is uniform from 1 to n, and then which; or "coin",
        every word is absent with probability ½. It weighs the sets as much as the kernel does.
    sampling : how draw and kernel are used; many samples have the same limit in all three ways.
        "paper": draw, and weigh by the kernel. "kernel", for words: draw sets in proportion to
        both, so that none is asked in vain and all weigh the same; their sizes are spread evenly,
        and x itself is no sample. "pairs": those sets; what pairs of words add together is
        estimated first, and the part of it that no line can say, which is known without a draw,
        taken out of the answers. For as small a spread it takes a fraction of the samples, if
        pairs are most of what the line leaves over. Its `r2` may be below 0 where they are few.
    scale : the standard deviation of the neighbours of a real x
    ridge : λ ≥ 0

    Returns a `Surrogate`. Look at its `r2` before its coefficients.

    Raises ValueError, in one line, for an argument out of range, for values of f that are not
    finite or not (m,), and where the samples do not determine the fit; TypeError for an x that is
    neither an integer nor a floating tensor.

    Source: Ribeiro, Singh & Guestrin 2016, "Why Should I Trust You?", sections 3.3 and 3.4.
    Deviations: x itself is a sample, as in their package; λ = 0 by default, where the package has
    1; all n coefficients are returned, and none is selected; "kernel" and "pairs" are ours. The
    package's kernel for text is ours with "cosine" and σ = 0.25 · √2. Derived in chapter 18_lime.

    >>> def both(z):  # 1 if the first two words are present
    ...     return (z[:, 0] & z[:, 1]).double()
    >>> line = lime(both, 4, kernel_width=0.1, samples=200, seed=0, distance="share")
    >>> [round(b, 2) + 0.0 for b in line.coefficients.tolist()]
    [1.0, 1.0, 0.0, 0.0]
    """
    if not (isinstance(kernel_width, int | float) and 0 < kernel_width < math.inf):
        raise ValueError(f"kernel_width: expected a number above 0, got {kernel_width!r}")
    if not _is_integer(samples) or samples < 2:
        raise ValueError(f"samples: expected an integer of at least 2, got {samples!r}")
    if not _is_integer(seed):
        raise ValueError(f"seed: expected an integer, got {seed!r}")
    for name, option, options in (
        ("distance", distance, DISTANCES),
        ("draw", draw, DRAWS),
        ("sampling", sampling, SAMPLINGS),
    ):
        if option not in options:
            raise ValueError(f"{name}: expected one of {', '.join(options)}, got {option!r}")
    if not (isinstance(scale, int | float) and 0 < scale < math.inf):
        raise ValueError(f"scale: expected a number above 0, got {scale!r}")
    generator = torch.Generator().manual_seed(seed)
    if _is_integer(x):
        if x < 1:
            raise ValueError(f"x: expected at least 1 word, got {x}")
        if sampling != "paper":
            mass = _mass_of_sizes(x, draw, distance, kernel_width)
            z = _even_neighbours(x, samples, mass, generator)
            weights = torch.full((samples,), mass.sum().item(), dtype=torch.float64)
            values = _answers(f, z)
            if sampling == "kernel":
                return weighted_least_squares(z, values, weights, ridge=ridge)
            return _without_pairs(z, values, weights, mass, ridge)
        z = _word_neighbours(x, samples, draw, generator)
        far = _distance(1 - z.double().mean(1), distance)
    elif isinstance(x, Tensor) and x.is_floating_point():
        if sampling != "paper":
            raise ValueError(f"sampling: expected 'paper' for a real x, got {sampling!r}")
        if x.ndim != 1 or len(x) == 0:
            raise ValueError(f"x: expected shape (n ≥ 1,), got {tuple(x.shape)}")
        noise = torch.randn(samples, len(x), generator=generator, dtype=torch.float64)
        noise[0] = 0.0
        z = (x.detach().double().cpu() + scale * noise).to(x)
        far = noise.norm(dim=1)
    else:
        what = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x: expected a number of words or a floating tensor (n,), got {what}")
    values = _answers(f, z)
    weights = torch.exp(-((far / kernel_width) ** 2))
    return weighted_least_squares(z, values, weights, ridge=ridge)


def _answers(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    values = _real("f", f(z))
    if values.shape != z.shape[:1]:
        raise ValueError(f"f: expected one value a row, ({len(z)},), got {tuple(values.shape)}")
    return values


def _distance(absent: Tensor, distance: str) -> Tensor:
    """D of sets of which this share is absent."""
    return absent if distance == "share" else 1 - (1 - absent).sqrt()


def _word_neighbours(n: int, samples: int, draw: str, generator: torch.Generator) -> Tensor:
    """Sets of present words, boolean (samples, n); the first is all of them."""
    order = torch.rand(samples, n, generator=generator, dtype=torch.float64)
    if draw == "coin":
        present = order < 0.5
    else:
        absent = torch.randint(1, n + 1, (samples, 1), generator=generator)
        present = order.argsort(dim=1).argsort(dim=1) >= absent
    present[0] = True
    return present


# Sampling in proportion to the kernel, and without what pairs add: chapter 18_lime, step 9.


def _mass_of_sizes(n: int, draw: str, distance: str, kernel_width: float) -> Tensor:
    """How likely it is that a words are absent, times the kernel there: (n + 1,), a from 0 to n."""
    absent = torch.arange(n + 1, dtype=torch.float64)
    kernel = torch.exp(-((_distance(absent / n, distance) / kernel_width) ** 2))
    if draw == "coin":
        chance = torch.tensor([math.comb(n, a) / 2**n for a in range(n + 1)], dtype=torch.float64)
    else:
        chance = (absent > 0) / n
    return kernel * chance


def _even_neighbours(n: int, samples: int, mass: Tensor, generator: torch.Generator) -> Tensor:
    """Sets of present words, boolean (samples, n): m p_a of each size, rounded up or down."""
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    share = (mass / mass.sum()).cumsum(0)
    at = (torch.arange(samples) + start) / samples
    absent = torch.searchsorted(share[:-1].contiguous(), at, right=True)  # (samples,)
    order = torch.rand(samples, n, generator=generator, dtype=torch.float64)
    return order.argsort(dim=1).argsort(dim=1) >= absent[:, None]


def _without_pairs(
    z: Tensor, values: Tensor, weights: Tensor, mass: Tensor, ridge: float
) -> Surrogate:
    """The line through f less the part of Q that is no line, of which all sets have none.

    Q(z) = Σ_{i<j} B_ij x_i x_j of the absent words x = 1 − z, its B fitted to the same samples.
    """
    m, n = z.shape
    absent = 1 - z.double()  # (m, n)
    B = _pairs_by_ridge(absent, values)  # (n, n), symmetric
    if not B.any():  # so at least two sizes are drawn, 0 or 1 and 2, and nothing below is 0/0
        return weighted_least_squares(z, values, weights, ridge=ridge)

    # The covariances of x_i with itself, x_j, x_i x_j, and x_j x_k, by how often 1, 2 and 3 given
    # words are absent together.
    size = mass / mass.sum()
    one, two, three = (_absent_together(size, k) for k in (1, 2, 3))
    variance, covariance = one - one**2, two - one**2
    inside, outside = two - one * two, three - one * two
    # The line through x_i x_j is own · (x_i + x_j) + every · Σ_k x_k and a constant.
    own = (inside - outside) / (variance - covariance)
    spread = variance + (n - 1) * covariance
    every = ((2 * inside + (n - 2) * outside) / spread - 2 * own) / n
    slope = own * B.sum(1) + every * B.sum() / 2  # of the absent words
    constant = two * B.sum() / 2 - one * slope.sum()
    bent = ((absent @ B) * absent).sum(1) / 2 - constant - absent @ slope  # Q less its line

    line = weighted_least_squares(z, values - bent, weights, ridge=ridge)
    rest = (values - line.predict(z)).square().sum()
    total = (values - values.mean()).square().sum()
    return Surrogate(line.coefficients, line.intercept, (1 - rest / total).item(), float(m))


def _pairs_by_ridge(absent: Tensor, values: Tensor) -> Tensor:
    """B (n, n) by a ridge on B_ij = g_i + g_j + e_ij, beside a free line.

    g_i is what word i has in all its pairs alike: more or less weight where more words are absent.
    How strong the ridge is, is what makes the answers most likely if g, e, and what is left over
    are normal numbers, with the line taken out. It is solved for one number a sample, α:
    e_ij = Σ_r α_r x_ri x_rj and g_i = τ Σ_r α_r x_ri a_r, with a_r absent words in sample r.
    """
    m, n = absent.shape
    nothing = torch.zeros(n, n, dtype=torch.float64)
    line = torch.cat([torch.ones(m, 1, dtype=torch.float64), absent], dim=1)
    free = torch.linalg.qr(line, mode="complete").Q[:, n + 1 :]  # (m, m − n − 1)
    rest = free.T @ values
    if rest.square().sum() <= 1e-24 * values.square().sum():  # a line, or too few samples
        return nothing
    number = absent.sum(1)  # (m,)
    common = absent @ absent.T  # how many words two samples both lack
    # Pairs of a word with itself are among these, but they are a line, and so taken out.
    pairs = common.square() / 2 + _ALIKE * torch.outer(number, number) * common
    kernel = free.T @ pairs @ free
    scale = kernel.diagonal().mean()
    if scale <= 1e-9 * pairs.diagonal().mean():  # on these samples pairs are a line too
        return nothing
    kernel, one = kernel / scale, torch.eye(len(rest), dtype=torch.float64)
    best = math.inf
    for ridge in _RIDGES:
        L = torch.linalg.cholesky(kernel + ridge * one)
        solved = torch.cholesky_solve(rest[:, None], L)[:, 0]
        unlikely = (len(rest) * (rest @ solved).log() + 2 * L.diagonal().log().sum()).item()
        if unlikely < best:
            best, alpha = unlikely, free @ solved / scale
    g = _ALIKE * (alpha * number) @ absent
    B = (absent.T * alpha) @ absent + g[:, None] + g
    return B.fill_diagonal_(0.0)


_ALIKE = 0.5  # τ, the variance of a g_i over that of an e_ij
_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)


def _absent_together(size: Tensor, k: int) -> float:
    """How likely k given words are all absent, where a are with probability size[a]."""
    n = len(size) - 1
    if k > n:
        return 0.0
    return sum(p * math.comb(a, k) for a, p in enumerate(size.tolist())) / math.comb(n, k)


def _real(name: str, x: Any) -> Tensor:
    """x in float64 on the CPU, without its graph; all finite."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if x.is_complex():
        raise ValueError(f"{name}: expected real numbers, got {x.dtype}")
    x = x.detach().to("cpu", torch.float64)
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name}: expected finite numbers, got {x[~x.isfinite()][0].item()}")
    return x


def _is_integer(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)
