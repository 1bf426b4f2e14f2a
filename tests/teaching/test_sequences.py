"""The frame of chapter 1's comparison: no leak, equal sizes, the receptive field it says."""

import doctest
import math

import pytest
import torch
from torch import nn

from lib.teaching import sequences
from lib.teaching.sequences import (
    KINDS,
    CausalConvolutions,
    SequenceModel,
    count,
    recall_batch,
    width_for,
)


def test_docstrings():
    assert doctest.testmod(sequences).failed == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_future_is_hidden_and_the_past_is_not(kind):
    torch.manual_seed(0)
    model = SequenceModel(kind, 11, 12).eval()
    ids = torch.randint(11, (3, 13))
    moved = ids.clone()
    moved[1, 5] = (moved[1, 5] + 1) % 11
    with torch.no_grad():
        change = (model(moved) - model(ids)).abs().amax(-1)
    assert model(ids).shape == (3, 13, 11)
    assert change[[0, 2]].max() < 1e-6  # other sentences
    assert change[1, :5].max() < 1e-6
    assert change[1, 5:9].min() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_loss_is_that_of_guessing(kind):
    torch.manual_seed(0)
    model = SequenceModel(kind, 17, 24)
    ids, targets = torch.randint(17, (2, 8, 9))
    loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
    assert abs(loss.item() - math.log(17)) < 0.15


@pytest.mark.parametrize(("layers", "kernel"), [(1, 2), (2, 3), (3, 2), (2, 5)])
def test_the_receptive_field_is_what_autograd_finds(layers, kernel):
    torch.manual_seed(0)
    stack = CausalConvolutions(3, layers, kernel).double()
    x = torch.randn(1, 17, 3, dtype=torch.double, requires_grad=True)
    (grad,) = torch.autograd.grad(stack(x)[0, -1].sum(), x)
    seen = (grad[0].abs().amax(-1) > 0).nonzero().flatten()
    assert len(seen) == stack.receptive_field == 1 + (kernel - 1) * (2**layers - 1)
    assert seen.tolist() == list(range(17 - len(seen), 17))


def test_a_convolution_keeps_its_input_beside_what_it_adds():
    torch.manual_seed(0)
    stack = CausalConvolutions(3, 2)
    x = torch.randn(2, 7, 3)
    with torch.no_grad():
        for convolve in stack.convolutions:
            convolve.weight.zero_()
            convolve.bias.zero_()
    assert torch.equal(stack(x), x)


@pytest.mark.parametrize("kind", KINDS)
def test_widths_for_equal_parameters(kind):
    wanted = count(SequenceModel("attention", 17, 32))
    width = width_for(kind, 17, wanted)
    found = count(SequenceModel(kind, 17, width))
    assert abs(found / wanted - 1) < 0.03
    step = 4 if kind == "attention" else 1
    for other in (width - step, width + step):
        beside = count(SequenceModel(kind, 17, other))
        assert abs(beside - wanted) >= abs(found - wanted)


def test_a_number_of_parameters_between_two_widths_is_refused():
    low, high = (count(SequenceModel("attention", 17, width)) for width in (8, 12))
    with pytest.raises(ValueError, match=r"within 3 % of what a width gives attention, as \d+"):
        width_for("attention", 17, (low + high) // 2)


def test_the_lstms_forget_gates_can_begin_open():
    torch.manual_seed(0)
    body = SequenceModel("lstm", 5, 7, forget_bias=4.0).body
    biases = (body.bias_ih_l0 + body.bias_hh_l0).detach().view(4, 7)
    assert torch.equal(biases[1], torch.full((7,), 4.0))  # input, forget, cell, output
    assert biases[[0, 2, 3]].abs().max() < 1
    with pytest.raises(ValueError, match=r"forget_bias: expected None for rnn, got 4\.0"):
        SequenceModel("rnn", 5, 7, forget_bias=4.0)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="expected one of rnn, lstm, convolution, attention, got"):
        SequenceModel("gru", 5, 7)


def test_the_model_computes_what_its_parts_do():
    torch.manual_seed(0)
    model = SequenceModel("lstm", 5, 7)
    ids = torch.randint(5, (2, 6))
    states = model.body(model.embed(ids))[0]
    assert torch.equal(model(ids), model.read(states))


def test_recall_asks_for_the_letter_at_that_distance():
    ids, answers = recall_batch(4000, 7, torch.Generator().manual_seed(1), letters=5)
    assert ids.shape == (4000, 8)
    assert torch.equal(ids[:, -1 - 7], answers)
    assert set(answers.tolist()) == set(range(5))
    assert set(ids[:, 1:-1].flatten().tolist()) == set(range(5, 10))
    assert set(ids[:, -1].tolist()) == {10}
    # the fillers say nothing of the answer
    table = torch.zeros(5, 5)
    table.index_put_((answers, ids[:, 1] - 5), torch.ones(4000), accumulate=True)
    assert (table / 4000 - 1 / 25).abs().max() < 0.02


def test_recall_of_the_letter_just_before():
    ids, answers = recall_batch(3, 1, torch.Generator().manual_seed(1))
    assert ids.shape == (3, 2) and torch.equal(ids[:, 0], answers)


@pytest.mark.parametrize("distance", [0, -1, 2.0])
def test_recall_refuses_no_distance(distance):
    with pytest.raises(ValueError, match="distance: expected an integer of at least 1, got"):
        recall_batch(2, distance)


def test_attention_is_told_the_positions():
    torch.manual_seed(0)
    model = SequenceModel("attention", 5, 8).eval()
    with torch.no_grad():
        same = model(torch.zeros(1, 9, dtype=torch.long))[0]  # without places all are alike
    assert (same[1:] - same[0]).abs().amax(-1).min() > 1e-4
