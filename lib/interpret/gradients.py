"""Integrated gradients: how a difference of two answers is shared out along the way between them.

Derived in chapter 16_integrated_gradients.

Shapes are written with B rows of a batch, and "..." for the dimensions of one input, such as
(n, d_model) for the n word vectors of a text.

* `integrated_gradients`: the method; `quadrature`: the nodes and weights of its integral;
* `gradient_times_input`: what it mends, the gradient at the input alone;
* `completeness_gap`: by how much attributions miss the difference that they share out.

They share one contract:

* `f` takes a batch (N, ...) of any size N and returns one number a row, (N,). Row i of the result
  depends on row i alone, so in a model with dropout or batch normalisation call `eval()` first.
  What `f` needs besides, such as a padding mask, it holds itself; it has to fit N rows.
* Inputs are floating point, as a gradient asks what a small step does. There is no small step from
  one token id to the next: attribute the word vectors, and sum over their features (mistake D53).
* Nothing of the model changes: no `.grad` is written, and it works under `torch.no_grad()`.
* Errors. ValueError, in one line with what was expected and what came, for a wrong shape, dtype or
  option, and for an `f` whose result does not hang on its input; TypeError for no tensor.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "RULES",
    "completeness_gap",
    "gradient_times_input",
    "integrated_gradients",
    "quadrature",
]

RULES = ("gauss", "midpoint", "trapezoid", "left", "right")


def quadrature(rule: str, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes α_k in [0, 1] and weights w_k, float64 (steps,) each: ∫₀¹ g(α) dα ≈ Σ_k w_k g(α_k).

    rule        nodes                  error for smooth g      with a jump of g
    "gauss"     zeros of Legendre's    falls geometrically     O(1/steps)
    "midpoint"  (k + ½)/steps          O(1/steps²)             O(1/steps)
    "trapezoid" k/(steps − 1)          O(1/steps²)             O(1/steps)
    "left"      k/steps                O(1/steps)              O(1/steps)
    "right"     (k + 1)/steps          O(1/steps)              O(1/steps)

    `steps` counts the nodes, which are what costs time, for every rule alike. All weights are
    positive and sum to 1; `gauss` is exact for polynomials up to degree 2·steps − 1.

    ValueError for an unknown rule, for steps that are no integer of at least 1 ("trapezoid": 2).

    Derived in chapter 16_integrated_gradients.

    >>> [x.tolist() for x in quadrature("trapezoid", 3)]
    [[0.0, 0.5, 1.0], [0.25, 0.5, 0.25]]
    """
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    least = 2 if rule == "trapezoid" else 1
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < least:
        raise ValueError(f"steps: expected an integer of at least {least}, got {steps!r}")
    if rule == "gauss":
        places, weights = np.polynomial.legendre.leggauss(steps)  # on [−1, 1]
        return torch.from_numpy((1 + places) / 2), torch.from_numpy(weights / 2)
    k = torch.arange(steps, dtype=torch.float64)
    if rule == "trapezoid":
        weights = torch.full((steps,), 1 / (steps - 1), dtype=torch.float64)
        weights[[0, -1]] /= 2
        return k / (steps - 1), weights
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return (k + shift) / steps, torch.full((steps,), 1 / steps, dtype=torch.float64)


def integrated_gradients(
    f: Callable[[Tensor], Tensor],
    inputs: Tensor,
    baseline: Tensor | float,
    *,
    steps: int = 64,
    rule: str = "gauss",
    max_rows: int = 256,
) -> Tensor:
    """What each entry of an input contributes to the answer, against a baseline.

        IG_i(x) = (x_i − x′_i) ∫₀¹ ∂f/∂x_i (x′ + α (x − x′)) dα

    Completeness: Σ_i IG_i = f(x) − f(x′), if f is absolutely continuous on the straight line from
    x′ to x; as computed, up to the error of the quadrature, which `completeness_gap` measures. A
    jump on the way is invisible to gradients, and the sum misses it.

    Parameters
    ----------
    f : (N, ...) → (N,)
        See the module's contract. For a class, return its logit.
    inputs : (B, ...), floating point
        Integers are refused: attribute embeddings, never ids.
    baseline : a tensor that broadcasts to the shape of `inputs`, of its dtype and device; a number
        The answer is a comparison with it: another baseline asks another question.
    steps, rule : see `quadrature`
    max_rows : int
        At most so many rows are given to one call of `f`. It bounds memory, and changes the result
        by rounding alone.

    Returns a tensor of the shape and dtype of `inputs`, without a graph. For word vectors
    (B, n, d_model) the share of a word is the sum over the last dimension.

    Raises ValueError and TypeError as the module says.

    Source: Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks", section 3.
    Deviations: there the sum over right ends, section 5; here Gauss's nodes by default.
    Derived in chapter 16_integrated_gradients.

    >>> f = lambda x: 1 - torch.relu(1 - x).sum(-1)
    >>> integrated_gradients(f, torch.tensor([[2.0]]), 0.0, rule="midpoint")
    tensor([[1.]])
    """
    baseline, inputs = _baseline(inputs, baseline), inputs.detach()
    if not isinstance(max_rows, int) or isinstance(max_rows, bool) or max_rows < 1:
        raise ValueError(f"max_rows: expected an integer of at least 1, got {max_rows!r}")
    nodes, weights = (x.to(inputs) for x in quadrature(rule, steps))
    one = (1,) * (inputs.ndim - 1)
    parts = []
    for x, start in zip(inputs.split(max_rows), baseline.split(max_rows), strict=True):
        total = torch.zeros_like(x)
        at_once = max(1, max_rows // len(x))
        for alpha, w in zip(nodes.split(at_once), weights.split(at_once), strict=True):
            points = start + alpha.view(-1, 1, *one) * (x - start)  # (steps at once, b, ...)
            slopes = _gradient(f, points.flatten(0, 1)).view_as(points)
            total += (w.view(-1, 1, *one) * slopes).sum(0)
        parts.append((x - start) * total)
    return torch.cat(parts)


def gradient_times_input(
    f: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor | float = 0.0
) -> Tensor:
    """The gradient at the input alone, times the way from the baseline: (x − x′) ∂f/∂x (x).

    It is integrated gradients with one node, at α = 1: exact for f that are linear on the way, and
    0 where f is flat at x, whatever f did before (mistake D36). Parameters, result and errors as in
    `integrated_gradients`.

    Derived in chapter 16_integrated_gradients.

    >>> f = lambda x: 1 - torch.relu(1 - x).sum(-1)
    >>> gradient_times_input(f, torch.tensor([[2.0], [0.5]])) == torch.tensor([[0.0], [0.5]])
    tensor([[True],
            [True]])
    """
    baseline = _baseline(inputs, baseline)
    return (inputs.detach() - baseline) * _gradient(f, inputs)


def completeness_gap(
    attributions: Tensor,
    f: Callable[[Tensor], Tensor],
    inputs: Tensor,
    baseline: Tensor | float,
) -> Tensor:
    """By how much the attributions of each row miss what they share out, (B,).

        gap = Σ_i a_i − (f(x) − f(x′))

    Small does not mean right: any attributions can be scaled so that their gap is 0. Large means
    wrong: too few steps, a jump on the way, or gradients of something else. Errors as in
    `integrated_gradients`; ValueError for attributions of another shape.

    Derived in chapter 16_integrated_gradients.
    """
    baseline = _baseline(inputs, baseline)
    if attributions.shape != inputs.shape:
        raise ValueError(
            f"attributions: expected shape {tuple(inputs.shape)}, got {tuple(attributions.shape)}"
        )
    with torch.no_grad():
        change = _one_a_row(f, inputs) - _one_a_row(f, baseline)
    return attributions.flatten(1).sum(1) - change


def _baseline(inputs: Tensor, baseline: Tensor | float) -> Tensor:
    """Check the inputs, and return the baseline with their shape."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs: expected a torch.Tensor, got {type(inputs).__name__}")
    if not inputs.is_floating_point():
        raise ValueError(
            f"inputs: expected floating point, got {inputs.dtype}: attribute embeddings, never ids"
        )
    if inputs.ndim < 2 or inputs.numel() == 0:
        raise ValueError(f"inputs: expected shape (B ≥ 1, ...), got {tuple(inputs.shape)}")
    if not isinstance(baseline, Tensor):
        return torch.full_like(inputs, baseline)
    if baseline.dtype != inputs.dtype or baseline.device != inputs.device:
        raise ValueError(
            f"baseline: expected {inputs.dtype} on {inputs.device}, "
            f"got {baseline.dtype} on {baseline.device}"
        )
    try:
        return baseline.detach().expand(inputs.shape)
    except RuntimeError:
        raise ValueError(
            f"baseline: expected a shape that broadcasts to {tuple(inputs.shape)}, "
            f"got {tuple(baseline.shape)}"
        ) from None


def _one_a_row(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    values = f(x)
    if not isinstance(values, Tensor):
        raise TypeError(f"f: expected it to return a torch.Tensor, got {type(values).__name__}")
    if values.shape != x.shape[:1]:
        raise ValueError(
            f"f: expected one number a row, shape {tuple(x.shape[:1])}, got {tuple(values.shape)}"
        )
    return values


def _gradient(f: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """∂f/∂x at each row of `points`; rows do not mix, so the gradient of the sum holds them all."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        values = _one_a_row(f, points)
        slopes = (
            torch.autograd.grad(values.sum(), points, allow_unused=True)[0]
            if values.requires_grad
            else None
        )
    if slopes is None:
        raise ValueError("f: expected a result that hangs on its input, got one without a gradient")
    return slopes
