"""One short training loop, the loss on held-out text, and the seed.

Used from chapter 02_attention on.
"""

from __future__ import annotations

import math
import os
import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.distributed import Alone, together

__all__ = ["evaluate", "fit", "seed_everything", "warmup_cosine"]


def fit(
    model: nn.Module,
    batch_loss: Callable[..., Any],
    *,
    steps: int,
    learning_rate: float,
    warmup: float = 0.1,
    clip: float | None = 1.0,
    weight_decay: float = 0.0,
    accumulate: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 100,
    generators: Sequence[torch.Generator] = (),
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
    accumulate : k, the parts that a batch is cut into, where it does not fit into memory at once
        Then `batch_loss(step, part)` is called for each part from 0 to k − 1 and returns
        (sum, count): the *sum* of the losses in that part, and of how many. The loss of the step
        is Σ sums / Σ counts, and its gradient that of the whole batch, however uneven the counts,
        as in masked language modelling. A mean of the parts' means is another loss.
    checkpoint, every : a file for the run's state, written every so many steps and at the end
        Where it exists, the run goes on from there, and equals the uninterrupted one bit for bit
        (same machine, versions and threads). It is replaced at once or not at all, and names in its
        errors a checkpoint of another model or of other options.
    generators : what `batch_loss` draws from, saved and restored with the run, as torch's own are
        Not those of `random` and numpy, nor an iterator's place: draw by generator or by step.
    progress : called once with range(steps), or the rest of it; what it returns is iterated
        For instance `lib.teaching.Progress`. If that has a `note` method it is told the loss.

    A model that `lib.distributed.parallelize` returned is trained by all of its processes together:
    each calls `fit` with the same options, and its `batch_loss` counts the rows of its own share.
    The sums are then over the processes too, the norm that is cut is that of the whole gradient,
    the first process writes the checkpoint for all, and each goes on drawing where it was. In
    float64 two processes give the bits of one that has their shares as its two parts.

    Device and dtype are the model's: CPU or CUDA, float64 to bfloat16; AdamW's moments have the
    dtype of their parameter. For mixed precision, compute the loss within `torch.autocast` to
    bfloat16 and leave the parameters in float32: in pure bfloat16, with 8 significant bits, an
    update below 1/512 of a weight is lost. Float16 would need its loss scaled: not done here.

    Raises FloatingPointError, naming the step, if the loss or a gradient is NaN or infinite; the
    parameters are then those before that step. ValueError for a wrong option, for a loss that is
    not a scalar, for parts that count nothing, or for a checkpoint of another run; of several
    processes also without `accumulate`, as means of shares have no right mean.

    Source: AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2; clipping: Pascanu et
    al. 2013, arXiv:1211.5063, algorithm 1.
    Derived in a later chapter; first used in chapter 02_attention.
    """
    _validate(steps, learning_rate, warmup, clip)
    _validate_counts(accumulate, every)
    # Python's own numbers: numpy's would keep a checkpoint from being read without a pickle's risk.
    learning_rate, weight_decay, warmup = float(learning_rate), float(weight_decay), float(warmup)
    clip = None if clip is None else float(clip)
    team = together(model)
    if team.size > 1 and accumulate is None:
        raise ValueError(
            f"accumulate: expected at least 1 with {team.size} processes, so that batch_loss "
            "returns (sum, count), got None"
        )
    parameters = list(model.parameters())
    # One kernel for all parameters: the same update, and less time lost between small tensors. Not
    # in float64, where runs are compared bit for bit: the last elements of a tensor, fewer than
    # fill a register, are rounded otherwise there, and a part of a tensor has others.
    low = all(p.dtype != torch.float64 for p in parameters)
    fused = low and all(p.device.type in ("cpu", "cuda") for p in parameters)
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused
    )
    run = None
    losses: list[float] = []
    if checkpoint is not None:
        options = {"steps": steps, "learning_rate": learning_rate, "warmup": warmup, "clip": clip}
        options |= {"weight_decay": weight_decay, "accumulate": accumulate}
        run = _Run(Path(checkpoint), team, optimizer, tuple(generators), options)
        losses = run.resume()
    loop = range(len(losses), steps)
    loop = loop if progress is None else progress(loop)
    note = getattr(loop, "note", None)

    model.train()
    for step in loop:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warmup_cosine(step, steps, warmup)
        loss = _backward(batch_loss, step, accumulate, optimizer, team)
        _require_finite("loss", loss, step, steps)
        norm = team.norm(parameters)
        _require_finite("gradient norm", norm.item(), step, steps)
        if clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        optimizer.step()
        losses.append(loss)
        if note is not None:
            note(f"loss {loss:.3f}")
        if run is not None and ((step + 1) % every == 0 or step + 1 == steps):
            run.save(losses)
    return losses


def _backward(
    batch_loss: Callable[..., Any],
    step: int,
    accumulate: int | None,
    optimizer: torch.optim.Optimizer,
    team: Alone,
) -> float:
    """Leave the gradient of a step's loss in the parameters; return the loss, Σ sums / Σ counts.

    The sums are over the parts and over the processes.
    """
    total, count = 0.0, 0.0
    for part in range(accumulate or 1):
        # around the forward pass too: there DDP prepares what the backward pass will do
        with team.adds_up(last=part + 1 == (accumulate or 1)):
            loss, n = (batch_loss(step), 1) if accumulate is None else batch_loss(step, part)
            if loss.ndim != 0:
                raise ValueError(f"batch_loss: expected a scalar, got shape {tuple(loss.shape)}")
            if part == 0:
                optimizer.zero_grad()
            if not n >= 0:
                raise ValueError(f"batch_loss: expected a count of at least 0, got {n}")
            if team.size > 1 and not loss.requires_grad:
                raise ValueError(
                    "batch_loss: expected a loss that is computed from the model in all "
                    f"{team.size} processes, also where it counts nothing; got no gradient"
                )
            if n > 0 or team.size > 1:  # alone, a part may happen to select nothing
                loss.backward()
        total, count = total + loss.item(), count + float(n)
    total, count = team.sums(total, count)
    if not count > 0:
        raise ValueError(f"batch_loss: expected counts that sum to more than 0, got {count:g}")
    if accumulate is not None:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.div_(count)
    return total / count


class _Run:
    """Everything that decides how a run of `fit` goes on, in a file."""

    def __init__(
        self,
        path: Path,
        team: Alone,
        optimizer: torch.optim.Optimizer,
        generators: tuple[torch.Generator, ...],
        options: dict[str, Any],
    ) -> None:
        self.path, self.team = path, team
        self.optimizer, self.generators = optimizer, generators
        tensors = {n: [*t.shape, str(t.dtype)] for n, t in team.tensors().items()}
        counts = {"processes": team.size, "generators": len(generators)}
        self.identity = {**options, **counts, **tensors}

    def save(self, losses: list[float]) -> None:
        """Write beside the file, down to the disk, and only then put it in its place.

        Of several processes the first writes, for all; the others wait until it is there.
        """
        draws = {
            "generators": [generator.get_state() for generator in self.generators],
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        model, optimizer = self.team.state(self.optimizer)
        state = {
            "identity": self.identity,
            "model": model,
            "optimizer": optimizer,
            "losses": losses,
            "draws": self.team.gathered(draws),
        }
        if self.team.rank == 0:
            self._write(state)
        self.team.wait()

    def _write(self, state: dict[str, Any]) -> None:
        scratch = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with scratch.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, self.path)
        finally:
            scratch.unlink(missing_ok=True)

    def resume(self) -> list[float]:
        """Restore all if there is a file, once it is known to be of this run; return the losses."""
        if not self.path.exists():
            return []
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError):
            state = None
        if not isinstance(state, dict) or "identity" not in state:
            raise ValueError(f"{self.path}: expected a checkpoint that fit wrote, got another file")
        theirs = state["identity"]
        for name in {**self.identity, **theirs}:
            want, got = self.identity.get(name, "none"), theirs.get(name, "none")
            if got != want:
                raise ValueError(
                    f"{self.path}: expected a checkpoint of this run, with {name} {want}, got {got}"
                )
        self.team.restore(self.optimizer, state["model"], state["optimizer"])
        draws = state["draws"][self.team.rank]
        for generator, saved in zip(self.generators, draws["generators"], strict=True):
            generator.set_state(saved)
        torch.set_rng_state(draws["cpu"])
        if torch.cuda.is_available() and draws["cuda"]:
            torch.cuda.set_rng_state_all(draws["cuda"])
        return state["losses"]


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


def _validate_counts(accumulate: int | None, every: int) -> None:
    if accumulate is not None and (not isinstance(accumulate, int) or accumulate < 1):
        raise ValueError(
            f"accumulate: expected an integer of at least 1 or None, got {accumulate!r}"
        )
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every: expected an integer of at least 1, got {every!r}")
