"""lib.tracing held to its contract; tests/models/parity.py uses it on every family."""

import doctest
import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from lib import tracing
from lib.checkpoints import Layout, Part
from lib.models.bert import BERT, BERTConfig
from lib.tracing import LayerError, compare_layers, first_divergence, relative_error, trace


def test_docstrings():
    assert doctest.testmod(tracing).failed == 0


class Ours(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 4)  # registered first, runs last
        self.first = nn.Linear(2, 3)
        self.key = nn.Linear(3, 3)
        self.idle = nn.Linear(1, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.key(x) + x), None


class Theirs(nn.Module):
    def __init__(self, ours):
        super().__init__()
        self.a, self.z = deepcopy(ours.first), deepcopy(ours.last)
        self.fused = nn.Linear(3, 9)  # queries, keys, values
        self.fused.weight.data[3:6] = ours.key.weight.data
        self.fused.bias.data[3:6] = ours.key.bias.data
        self.idle = nn.Linear(1, 1)

    def forward(self, x):
        x = self.a(x)
        return self.z(self.fused(x)[..., 3:6] + x)


LAYOUT = Layout(
    model_type="none",
    architecture="None",
    options={},
    required=(),
    fixed={},
    weights={"first": "a", "key": Part("fused", 1, 3), "last": "old.z", "idle": "idle"},
)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    ours = Ours().double()
    return ours, Theirs(ours).double()


INPUTS = {"x": torch.randn(5, 2, generator=torch.Generator().manual_seed(1)).double()}


def compare(ours, theirs):
    return compare_layers(ours, theirs, INPUTS, LAYOUT, lambda name: name.removeprefix("old."))


def test_layers_come_in_the_order_in_which_they_run(pair):
    errors = compare(*pair)
    assert [(e.ours, e.theirs) for e in errors] == [
        ("first", "a"),
        ("key", "fused"),
        ("last", "z"),
    ]
    assert all(e.error == 0 for e in errors)
    assert first_divergence(errors, 0.0) is None


@pytest.mark.parametrize("wrong, size", [("first", 1), ("key", 3), ("last", 4)])
def test_the_first_layer_that_differs_is_named(pair, wrong, size):
    ours, theirs = pair
    with torch.no_grad():
        getattr(ours, wrong).bias += 0.5
    errors = compare(ours, theirs)
    assert first_divergence(errors, 1e-9).ours == wrong
    counterpart = {"first": theirs.a, "last": theirs.z}
    if wrong in counterpart:
        outputs = trace(theirs, INPUTS)
        largest = outputs["a" if wrong == "first" else "z"].abs().max().item()
        found = next(e for e in errors if e.ours == wrong)
        assert abs(found.error - 0.5 / largest) < 1e-12


def test_nan_is_a_difference_and_other_shapes_are_passed_over(pair):
    ours, theirs = pair
    theirs.a.register_forward_hook(lambda module, args, output: output[:, None])
    errors = compare_layers(
        ours, theirs, {"x": INPUTS["x"]}, LAYOUT, lambda name: name.removeprefix("old.")
    )
    assert errors[0].error is None
    assert first_divergence([LayerError("a", "b", math.nan)], 1.0).ours == "a"
    assert first_divergence([LayerError("a", "b", 1.0)], 1.0) is None


def test_a_model_is_compared_with_itself_by_its_own_layout():
    torch.manual_seed(0)
    config = BERTConfig(50, d_model=12, num_layers=2, num_heads=3, d_ff=20, max_length=9)
    model = BERT(config).eval()
    names = {theirs: ours for ours, theirs in model.layout.weights.items()}

    def same(name):  # the name in the file to our own
        parts = name.split(".")
        number = next((p for p in parts if p.isdigit()), "")
        pattern = ".".join("*" if p.isdigit() else p for p in parts)
        return names[pattern].replace("*", number)

    inputs = {"input_ids": torch.randint(50, (2, 7))}
    errors = compare_layers(model, deepcopy(model), inputs, rename=same)
    assert len(errors) == 1 + 1 + 2 * 8 + 2 + 2 and all(e.error == 0 for e in errors)
    other = deepcopy(model)
    other.encoder.layers[1].attention.num_heads = 4
    layer = first_divergence(compare_layers(model, other, inputs, rename=same), 1e-6)
    assert layer.ours == "encoder.layers.1.attention.output_projection"


def test_tracing_leaves_the_model_as_it_was(pair):
    ours, _ = pair
    outputs = trace(ours, INPUTS)
    assert list(outputs) == ["first", "key", "last"]  # "" returns no tensor, "idle" does not run
    assert not any(x.requires_grad for x in outputs.values())
    assert all(not m._forward_hooks for m in ours.modules())
    with pytest.raises(TypeError):
        trace(ours, {"y": INPUTS["x"]})
    assert all(not m._forward_hooks for m in ours.modules())


def test_errors_are_relative_to_the_second():
    assert relative_error(torch.tensor([3.0]), torch.tensor([2.0])) == 0.5
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0.0
    assert relative_error(torch.ones(2), torch.zeros(2)) == math.inf
    assert math.isnan(relative_error(torch.tensor([math.nan]), torch.tensor([2.0])))
    with pytest.raises(ValueError, match=r"^got: expected shape \(2,\), got \(3,\)$"):
        relative_error(torch.ones(3), torch.ones(2))
