"""Title here: the formula, readable. Derived in chapter NN_slug_here."""

from torch import Tensor

__all__ = ["variance"]


def variance(values: Tensor) -> Tensor:
    """Return the mean square deviation from the mean, along the last dimension.

    Formula: Var(x) = 1/n Σ (x_i − x̄)².
    Shapes: ``values`` (..., n); returns (...).
    Source: the definition, as in chapter NN_slug_here. Divides by n; torch.var by n − 1.
    Errors: ValueError if there is no last dimension or it is empty.
    """
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(
            f"values: expected a shape (..., n) with n of at least 1, got {tuple(values.shape)}"
        )
    deviations = values - values.mean(-1, keepdim=True)
    return (deviations**2).mean(-1)
