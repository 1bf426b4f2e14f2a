"""Two models side by side, layer by layer: where does the first difference come in?

Used from chapter 09_sliding_window on. A model that loads an official checkpoint and gives other
logits is wrong somewhere; the first layer whose output is not its counterpart's says where. What is
whose counterpart is known already: it is the family's table of weights, `lib.checkpoints.Layout`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.checkpoints import Layout

__all__ = ["LayerError", "compare_layers", "first_divergence", "relative_error", "trace"]

_KINDS = ("Linear", "Conv2d", "Embedding", "LayerNorm", "RMSNorm")


@dataclass(frozen=True)
class LayerError:
    """One of our layers, its counterpart, and how far apart their outputs are.

    error : the largest difference, relative to their largest number; NaN where one of them has NaN,
        and None where the shapes differ, so that there is nothing to compare.
    """

    ours: str
    theirs: str
    error: float | None


def trace(
    model: nn.Module, inputs: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """What the modules of a model return in one pass, in the order in which they do.

    inputs : arguments by name
    names : what to call a module → its name in the model; all modules by their own, if left out

    Outputs that are no tensor are left out, and so are modules that do not run. One that runs more
    than once is there with its last output, at the place of its first. Without gradients; the model
    stays as it was.

    >>> model = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    >>> [(name, tuple(x.shape)) for name, x in trace(model, {"input": torch.zeros(2, 3)}).items()]
    [('0', (2, 5)), ('1', (2, 5)), ('', (2, 5))]
    """
    if names is None:
        names = {name: name for name, _ in model.named_modules()}
    seen: dict[str, Tensor] = {}

    def remember(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            if isinstance(output, Tensor):
                seen[name] = output.detach().clone()

        return hook

    hooks = [
        model.get_submodule(theirs).register_forward_hook(remember(name))
        for name, theirs in names.items()
    ]
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def compare_layers(
    ours: nn.Module,
    theirs: nn.Module,
    inputs: Mapping[str, Any],
    layout: Layout | None = None,
    rename: Callable[[str], str] = str,
) -> list[LayerError]:
    """Feed both models the same and compare their layers, in the order in which ours run.

    Compared are layers of one input and one output that stand as modules on both sides: linear
    maps, convolutions, embeddings, norms. A mistake between two of them, in a scale or a mask,
    shows at the next.

    layout : of our model, if left out; where ours is a part of theirs, that part is compared
    rename : the name that a layer has in a file → the name of its module in `theirs`, where a
        library calls them otherwise
    """
    layout = ours.layout if layout is None else layout
    places = {}
    for name, module in ours.named_modules():
        if type(module).__name__ in _KINDS and isinstance(module.weight, Tensor):
            place = layout.place(f"{name}.weight")
            places[name] = place._replace(name=rename(place.name.removesuffix(".weight")))
    got = trace(ours, inputs, {name: name for name in places})
    want = trace(theirs, inputs, {place.name: place.name for place in places.values()})
    errors = []
    for name, output in got.items():
        place = places[name]
        if place.name in want:  # a tied module may run under another name there
            other = want[place.name].chunk(place.count, dim=-1)[place.index]
            same = output.shape == other.shape
            error = relative_error(output, other) if same else None
            errors.append(LayerError(name, place.name, error))
    return errors


def first_divergence(errors: list[LayerError], tolerance: float) -> LayerError | None:
    """The first layer that is off by more than the tolerance, or by NaN; None if there is none.

    None means that the mistake, if there is one, lies behind the last layer that was compared.

    >>> errors = [LayerError("a", "x", 1e-7), LayerError("b", "y", None), LayerError("c", "z", 0.3)]
    >>> first_divergence(errors, 1e-5).ours
    'c'
    """
    for layer in errors:
        if layer.error is not None and not layer.error <= tolerance:  # so that NaN is found
            return layer
    return None


def relative_error(got: Tensor, want: Tensor) -> float:
    """The largest difference of two tensors of one shape, relative to the second's largest number.

    0 / 0 is 0, anything else by 0 infinite. ValueError for other shapes.

    >>> round(relative_error(torch.tensor([1.0, 8.1]), torch.tensor([1.0, 8.0])), 4)
    0.0125
    """
    if got.shape != want.shape:
        raise ValueError(f"got: expected shape {tuple(want.shape)}, got {tuple(got.shape)}")
    difference, largest = (got - want).abs().max().item(), want.abs().max().item()
    if difference == 0.0:
        return 0.0
    return difference / largest if largest else math.inf
