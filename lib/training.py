"""One short training loop, the loss on held-out text, and the seed.

Used from chapter 02_attention on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["evaluate", "fit", "seed_everything", "warmup_cosine"]


def fit(
    model: nn.Module,
    batch_loss: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    warmup: float = 0.1,
    clip: float | None = 1.0,
    weight_decay: float = 0.0,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> list[float]:
    """Train a model with AdamW, linear warm-up and a cosine; return the loss of every step.

    Parameters
    ----------
    model : trained in place and left in training mode; frozen parameters stay as they are
    batch_loss : called once a step with the step's number, from 0
        Draws a fresh batch and returns its loss, a scalar. What to draw, from which generator, on
        which device and in which dtype is its business: the loop knows of models and losses only.
    steps, learning_rate : how many updates, and the peak of the schedule (`warmup_cosine`)
    warmup : share of the steps, from 0 to 1, in which the learning rate rises
    clip : the gradient's norm, over all parameters together, is cut to this; None: never
    weight_decay : decoupled, on all parameters alike
    progress : called once with range(steps); what it returns is iterated
        For instance `lib.teaching.Progress`. If that has a `note` method it is told the loss.

    Raises FloatingPointError, naming the step, if the loss or a gradient is NaN or infinite; the
    parameters are then those before that step. ValueError for a wrong option or a loss that is
    not a scalar.

    Source: AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2; clipping: Pascanu et
    al. 2013, arXiv:1211.5063, algorithm 1.
    Derived in a later chapter; first used in chapter 02_attention.
    """
    _validate(steps, learning_rate, warmup, clip)
    parameters = list(model.parameters())
    # One kernel for all parameters: the same update, and less time lost between small tensors.
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused
    )
    loop = range(steps) if progress is None else progress(range(steps))
    note = getattr(loop, "note", None)

    losses: list[float] = []
    model.train()
    for step in loop:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warmup_cosine(step, steps, warmup)
        loss = batch_loss(step)
        if loss.ndim != 0:
            raise ValueError(f"batch_loss: expected a scalar, got shape {tuple(loss.shape)}")
        losses.append(loss.item())
        _require_finite("loss", losses[-1], step, steps)

        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
        _require_finite("gradient norm", norm.item(), step, steps)
        optimizer.step()
        if note is not None:
            note(f"loss {losses[-1]:.3f}")
    return losses


def warmup_cosine(step: int, steps: int, warmup: float = 0.1) -> float:
    """Return the factor on the learning rate at a step of 0 … steps − 1.

    With w = round(warmup · steps) it is (step + 1)/w while step < w, then
    (1 + cos(π (step − w)/(steps − w)))/2: it reaches 1 at the end of the warm-up and stays above 0.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, one period, without restarts;
    the linear rise: Goyal et al. 2017, arXiv:1706.02677, section 2.2.

    >>> [round(warmup_cosine(step, 6, 1 / 3), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / (steps - rising)))


@torch.no_grad()
def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor, *, batch_size: int = 64) -> float:
    """Return the mean cross-entropy, in nats per position, of a model in evaluation mode.

    inputs, targets : (N, n) ids, as from `lib.data.consecutive_windows`
    model : maps inputs (b, n) to logits (b, n, V); its training mode is restored afterwards

    The mean is over all positions, summed in float64, so `batch_size` changes nothing but memory.
    ValueError if the shapes differ or there is nothing to average.
    """
    if inputs.shape != targets.shape or inputs.ndim != 2 or inputs.numel() == 0:
        raise ValueError(
            "inputs, targets: expected one shape (N, n), not empty, "
            f"got {tuple(inputs.shape)} and {tuple(targets.shape)}"
        )
    was_training = model.training
    model.eval()
    try:
        total = 0.0
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            logits = model(x)  # (b, n, V)
            losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
            total += losses.double().sum().item()
    finally:
        model.train(was_training)
    return total / targets.numel()


def seed_everything(seed: int) -> None:
    """Seed `random`, numpy and torch, on the CPU and every GPU, from 0 to 2³² − 1 (numpy's range).

    It makes a run repeatable on one machine with one number of threads, not across machines.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected an integer from 0 to {2**32 - 1}, got {seed!r}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _require_finite(what: str, value: float, step: int, steps: int) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"{what} is {value} at step {step} of {steps}: expected a finite number "
            "(a lower learning rate or a longer warm-up often helps)"
        )


def _validate(steps: int, learning_rate: float, warmup: float, clip: float | None) -> None:
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected an integer of at least 1, got {steps!r}")
    if not (learning_rate > 0.0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate: expected a positive number, got {learning_rate!r}")
    if not 0.0 <= warmup <= 1.0:
        raise ValueError(f"warmup: expected a share from 0 to 1, got {warmup!r}")
    if clip is not None and not clip > 0.0:
        raise ValueError(f"clip: expected a positive number or None, got {clip!r}")
