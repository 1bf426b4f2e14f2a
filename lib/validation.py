"""What configurations and models ask of their values: ValueError in one line, expected and got.

Used by the models from chapter 11_bert on.
Only metadata of tensors is looked at, never their values: no device synchronisation, and
`torch.compile(fullgraph=True)` works.
"""

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["require_choice", "require_numbers", "require_sizes", "require_tokens"]


def require_sizes(config: Any, *names: str, least: int = 1) -> None:
    """These attributes are integers of at least `least`."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")


def require_numbers(config: Any, *names: str, below: float = math.inf) -> None:
    """These attributes are numbers from 0 to below `below`."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int | float) or not 0.0 <= value < below:
            raise ValueError(f"{name}: expected a number in [0, {below:g}), got {value!r}")


def require_choice(config: Any, name: str, choices: Any) -> None:
    """This attribute is one of the choices."""
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def require_tokens(
    input_ids: Tensor, *, name: str = "input_ids", past: int = 0, **others: Tensor | None
) -> None:
    """`input_ids` is (B, n ≥ 1) of int64 or int32; each of `others`, or None, has its shape.

    One with "mask" in its name may also be boolean, and is (B, past + n), where `past` tokens were
    read before and are in a cache. Floats are refused everywhere: in an additive mask 0 means the
    opposite of what it means here. `name` is what messages call `input_ids`.
    """
    ids = name
    for name, x in {ids: input_ids, **others}.items():
        if x is None and name in others:
            continue
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
        kinds = (torch.int64, torch.int32) + (torch.bool,) * ("mask" in name)
        if x.dtype not in kinds:
            raise ValueError(f"{name}: expected {' or '.join(map(str, kinds))}, got {x.dtype}")
        shape = (*input_ids.shape[:1], input_ids.shape[-1] + past * ("mask" in name))
        if x.ndim != 2 or x.shape[1] < 1 or x.shape != (input_ids.shape if name == ids else shape):
            expected = "(B, n ≥ 1)" if name == ids else shape
            raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")
        if x.device != input_ids.device:
            raise ValueError(f"{name}: expected device {input_ids.device}, got {x.device}")
