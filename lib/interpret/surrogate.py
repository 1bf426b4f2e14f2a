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
    scale : the standard deviation of the neighbours of a real x
    ridge : λ ≥ 0

    Returns a `Surrogate`. Look at its `r2` before its coefficients.

    Raises ValueError, in one line, for an argument out of range, for values of f that are not
    finite or not (m,), and where the samples do not determine the fit; TypeError for an x that is
    neither an integer nor a floating tensor.

    Source: Ribeiro, Singh & Guestrin 2016, "Why Should I Trust You?", sections 3.3 and 3.4.
    Deviations: x itself is a sample, as in their package; λ = 0 by default, where the package has
    1; all n coefficients are returned, and none is selected. The package's kernel for text is ours
    with "cosine" and σ = 0.25 · √2. Derived in chapter 18_lime.

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
    for name, option, options in (("distance", distance, DISTANCES), ("draw", draw, DRAWS)):
        if option not in options:
            raise ValueError(f"{name}: expected one of {', '.join(options)}, got {option!r}")
    if not (isinstance(scale, int | float) and 0 < scale < math.inf):
        raise ValueError(f"scale: expected a number above 0, got {scale!r}")
    generator = torch.Generator().manual_seed(seed)
    if _is_integer(x):
        if x < 1:
            raise ValueError(f"x: expected at least 1 word, got {x}")
        z = _word_neighbours(x, samples, draw, generator)
        absent = 1 - z.double().mean(1)
        far = absent if distance == "share" else 1 - (1 - absent).sqrt()
    elif isinstance(x, Tensor) and x.is_floating_point():
        if x.ndim != 1 or len(x) == 0:
            raise ValueError(f"x: expected shape (n ≥ 1,), got {tuple(x.shape)}")
        noise = torch.randn(samples, len(x), generator=generator, dtype=torch.float64)
        noise[0] = 0.0
        z = (x.detach().double().cpu() + scale * noise).to(x)
        far = noise.norm(dim=1)
    else:
        what = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x: expected a number of words or a floating tensor (n,), got {what}")
    values = _real("f", f(z))
    if values.shape != (samples,):
        raise ValueError(f"f: expected one value a row, ({samples},), got {tuple(values.shape)}")
    weights = torch.exp(-((far / kernel_width) ** 2))
    return weighted_least_squares(z, values, weights, ridge=ridge)


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
