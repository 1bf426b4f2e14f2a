"""A test for attributions of any kind: take the most important away, and see what is left.

Derived in chapter 16_integrated_gradients.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["deletion_curve"]


def deletion_curve(f: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    """The answer as players leave one after the other, the highest score first.

        curve[k] = f(all but the k players with the highest scores),      k = 0, …, n

    Parameters
    ----------
    f : boolean (N, n) → (N,)
        True = present, as in `shapley_values`. Called once, with n + 1 rows.
    scores : (n,), one for each player
        Of equal scores the earlier player leaves first. Those that speak against leave last.

    Returns (n + 1,): curve[0] is the whole, curve[n] what is left without players. A faithful
    ranking falls early. The mean of the curve sums it up: compare it with that of random scores,
    and remember that *how* a player is taken away is part of the question.

    Raises ValueError for scores or results of another shape.

    Derived in chapter 16_integrated_gradients.

    >>> f = lambda present: (present * torch.tensor([1.0, 5.0, 2.0])).sum(-1)
    >>> deletion_curve(f, torch.tensor([0.1, 0.9, 0.5]))
    tensor([8., 3., 1., 0.])
    """
    if scores.ndim != 1 or scores.numel() == 0:
        raise ValueError(f"scores: expected shape (n ≥ 1,), got {tuple(scores.shape)}")
    n = scores.numel()
    leaves_at = torch.empty(n, dtype=torch.long, device=scores.device)
    leaves_at[scores.argsort(descending=True, stable=True)] = torch.arange(n, device=scores.device)
    gone = torch.arange(n + 1, device=scores.device)[:, None]
    values = f(leaves_at >= gone)
    if values.shape != (n + 1,):
        raise ValueError(f"f: expected one number a row, shape {(n + 1,)}, got {values.shape}")
    return values
