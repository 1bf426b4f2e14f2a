"""Tests of lib.training: the loop against its definition, the schedule, evaluation, seeds."""

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.training import evaluate, fit, seed_everything, warmup_cosine


def problem(dtype=torch.float64):
    """A linear regression, its parameters and a loss that draws the same batches every time."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3).to(dtype)
    x, y = torch.randn(40, 7, 5, dtype=dtype), torch.randn(40, 7, 3, dtype=dtype)
    return model, lambda step: F.mse_loss(model(x[step]), y[step])


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert "expected" in message
    return message


class TestFit:
    @pytest.mark.parametrize("clip", [None, 0.5])
    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    def test_is_adamw_written_out(self, clip, weight_decay):
        model, batch_loss = problem()
        start = [p.detach().clone() for p in model.parameters()]
        losses = fit(
            model,
            batch_loss,
            steps=12,
            learning_rate=0.03,
            warmup=0.25,
            clip=clip,
            weight_decay=weight_decay,
        )

        reference, reference_loss = problem()
        parameters = list(reference.parameters())
        assert all(torch.equal(p, q) for p, q in zip(parameters, start, strict=True))
        first = [torch.zeros_like(p) for p in parameters]
        second = [torch.zeros_like(p) for p in parameters]
        norms = []
        for step in range(12):
            loss = reference_loss(step)
            gradients = torch.autograd.grad(loss, parameters)
            norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
            norms.append(norm)
            shrink = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
            if step < 3:
                rate = 0.03 * (step + 1) / 3
            else:
                rate = 0.03 * (1 + math.cos(math.pi * (step - 3) / 9)) / 2
            with torch.no_grad():
                for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                    m.mul_(0.9).add_(0.1 * shrink * g)
                    v.mul_(0.999).add_(0.001 * (shrink * g) ** 2)
                    mean, square = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
                    p.mul_(1 - rate * weight_decay)
                    p.sub_(rate * mean / (square.sqrt() + 1e-8))
            assert losses[step] == pytest.approx(loss.item(), abs=1e-12)
        for p, q in zip(model.parameters(), parameters, strict=True):
            assert torch.allclose(p, q, atol=1e-12, rtol=0)
        assert any(norm > 0.5 for norm in norms)  # so that clipping had something to do

    def test_losses_are_those_before_each_update(self):
        model, batch_loss = problem()
        first = batch_loss(0).item()
        assert fit(model, batch_loss, steps=1, learning_rate=1.0) == [first]

    def test_the_loss_falls(self):
        model, _ = problem()
        x = torch.randn(64, 5, dtype=torch.float64)
        y = x @ torch.randn(5, 3, dtype=torch.float64) + 1.0
        losses = fit(model, lambda step: F.mse_loss(model(x), y), steps=300, learning_rate=0.05)
        assert losses[0] > 1.0 and losses[-1] < 1e-4

    def test_the_steps_are_handed_on_in_order(self):
        model, batch_loss = problem()
        seen = []
        fit(model, lambda s: (seen.append(s), batch_loss(s))[1], steps=9, learning_rate=0.1)
        assert seen == list(range(9))

    def test_the_seed_decides(self):
        def run(seed):
            seed_everything(seed)
            model = nn.Linear(4, 1)
            fit(model, lambda s: model(torch.randn(3, 4)).square().mean(), steps=5, learning_rate=1)
            return model.weight.detach()

        assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))

    def test_frozen_parameters_stay(self):
        model, batch_loss = problem()
        model.bias.requires_grad_(False)
        bias, weight = model.bias.clone(), model.weight.detach().clone()
        fit(model, batch_loss, steps=3, learning_rate=0.1, weight_decay=0.5)
        assert torch.equal(model.bias, bias) and not torch.equal(model.weight, weight)

    def test_a_parameter_without_gradient_stays(self):
        model, batch_loss = problem()
        model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
        fit(model, batch_loss, steps=3, learning_rate=0.1)
        assert model.unused.tolist() == [1.0, 1.0]

    def test_trains_in_training_mode(self):
        model, batch_loss = problem()
        model.eval()
        modes = []
        fit(model, lambda s: (modes.append(model.training), batch_loss(s))[1], steps=2,
            learning_rate=0.1)  # fmt: skip
        assert modes == [True, True] and model.training

    def test_gradients_of_one_step_do_not_leak_into_the_next(self):
        # the gradient of a sum is 1: were it to accumulate, Adam's second step would be longer
        model = nn.Linear(1, 1, bias=False)
        sizes = []

        def loss(step):
            sizes.append(model.weight.grad.item() if step else 1.0)
            return model.weight.sum()

        fit(model, loss, steps=4, learning_rate=0.1, clip=None)
        assert sizes == [1.0] * 4

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_loss_that_is_not_finite_is_named_with_its_step(self, value):
        model, batch_loss = problem()
        kept = {}

        def loss(step):
            if step == 3:
                kept.update({k: v.clone() for k, v in model.state_dict().items()})
                return batch_loss(step) + value
            return batch_loss(step)

        with pytest.raises(FloatingPointError, match=f"^loss is {value} at step 3 of 7") as error:
            fit(model, loss, steps=7, learning_rate=0.1)
        one_line(error)
        assert all(torch.equal(model.state_dict()[k], v) for k, v in kept.items())

    @pytest.mark.parametrize("clip", [None, 1.0])
    def test_a_gradient_that_is_not_finite_is_named_with_its_step(self, clip):
        model, batch_loss = problem()
        model.weight.data[0, 0] = 0.0

        def loss(step):
            # √ at 0 is 0 with gradient inf
            corner = model.weight[0, 0].abs().sqrt() if step == 2 else 0.0
            return batch_loss(step) + corner

        before = None

        def remember(steps):
            nonlocal before
            for step in steps:
                model.weight.data[0, 0] = 0.0
                before = model.bias.detach().clone()
                yield step

        with pytest.raises(FloatingPointError, match=r"^gradient norm is (nan|inf) at step 2 of 5"):
            fit(model, loss, steps=5, learning_rate=0.1, clip=clip, warmup=0, progress=remember)
        assert torch.equal(model.bias, before)

    def test_a_loss_for_each_example_is_refused(self):
        model, _ = problem()
        with pytest.raises(ValueError, match="scalar") as error:
            fit(model, lambda s: model.weight.sum(0), steps=1, learning_rate=0.1)
        assert "got shape (5,)" in one_line(error)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("steps", 0),
            ("steps", 1.0),
            ("learning_rate", 0.0),
            ("learning_rate", math.inf),
            ("learning_rate", math.nan),
            ("warmup", -0.1),
            ("warmup", 1.1),
            ("clip", 0.0),
            ("clip", math.nan),
        ],
    )
    def test_refuses_a_wrong_option(self, name, value):
        model, batch_loss = problem()
        with pytest.raises(ValueError, match=f"^{name}: ") as error:
            fit(model, batch_loss, **{"steps": 2, "learning_rate": 0.1, name: value})
        assert one_line(error).endswith(f"got {value!r}")


class TestProgress:
    def test_any_wrapper_of_the_steps_will_do(self):
        model, batch_loss = problem()
        plain = fit(model, batch_loss, steps=4, learning_rate=0.1)
        model, batch_loss = problem()
        wrapped = fit(model, batch_loss, steps=4, learning_rate=0.1, progress=iter)
        assert wrapped == plain

    def test_is_told_the_loss_if_it_listens(self):
        class Listener:
            def __init__(self, steps):
                self.steps, self.notes = steps, []
                listeners.append(self)

            def __iter__(self):
                return iter(self.steps)

            def note(self, text):
                self.notes.append(text)

        listeners = []
        model, batch_loss = problem()
        losses = fit(model, batch_loss, steps=4, learning_rate=0.1, progress=Listener)
        (listener,) = listeners
        assert listener.steps == range(4)
        assert listener.notes == [f"loss {loss:.3f}" for loss in losses]


class TestWarmupCosine:
    def test_by_hand(self):
        got = [warmup_cosine(step, 8, 0.5) for step in range(8)]
        half = math.sqrt(0.5)
        want = [0.25, 0.5, 0.75, 1.0, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2]
        assert got == pytest.approx(want, abs=1e-15)

    @pytest.mark.parametrize("steps", [1, 2, 7, 700])
    @pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
    def test_rises_to_one_and_falls_but_never_to_zero(self, steps, warmup):
        factors = [warmup_cosine(step, steps, warmup) for step in range(steps)]
        top = factors.index(max(factors))
        assert max(factors) == 1.0 and min(factors) > 0.0
        assert factors[: top + 1] == sorted(factors[: top + 1])
        assert factors[top:] == sorted(factors[top:], reverse=True)


class Table(nn.Module):
    """Logits that depend on the id alone, with dropout that must be off in an evaluation."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.logits = nn.Embedding(4, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, ids):
        self.with_gradient = torch.is_grad_enabled()
        return self.dropout(self.logits(ids))


class TestEvaluate:
    inputs = torch.tensor([[0, 1, 2], [3, 3, 1], [2, 0, 0], [1, 2, 3], [0, 0, 3]])
    targets = torch.tensor([[1, 2, 3], [3, 1, 2], [0, 0, 1], [2, 3, 0], [0, 3, 3]])

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 64])
    def test_is_the_mean_over_positions_for_any_batch_size(self, batch_size):
        model = Table()
        p = model.logits.weight.detach().double().softmax(-1)
        pairs = zip(self.inputs.flatten().tolist(), self.targets.flatten().tolist(), strict=True)
        want = -sum(math.log(p[i, j]) for i, j in pairs) / 15
        got = evaluate(model, self.inputs, self.targets, batch_size=batch_size)
        assert got == pytest.approx(want, abs=1e-6)

    @pytest.mark.parametrize("training", [True, False])
    def test_restores_the_mode_also_after_an_error(self, training):
        model = Table().train(training)
        evaluate(model, self.inputs, self.targets)
        assert model.training is training
        with pytest.raises(IndexError):
            evaluate(model, self.inputs + 9, self.targets)
        assert model.training is training

    def test_keeps_nothing_for_a_gradient(self):
        model = Table()
        evaluate(model, self.inputs, self.targets)
        assert model.with_gradient is False
        assert torch.is_grad_enabled()

    @pytest.mark.parametrize(
        ("inputs", "targets"),
        [
            (torch.zeros(2, 3), torch.zeros(2, 4)),
            (torch.zeros(6), torch.zeros(6)),
            (torch.zeros(0, 3), torch.zeros(0, 3)),
        ],
    )
    def test_refuses_wrong_shapes(self, inputs, targets):
        with pytest.raises(ValueError, match="inputs, targets") as error:
            evaluate(Table(), inputs.long(), targets.long())
        assert str(tuple(targets.shape)) in one_line(error)


class TestSeedEverything:
    def test_seeds_all_three(self):
        def draw():
            return random.random(), np.random.rand(), torch.rand(1).item()

        seed_everything(5)
        first = draw()
        assert all(a != b for a, b in zip(first, draw(), strict=True))
        seed_everything(5)
        assert draw() == first
        seed_everything(6)
        assert all(a != b for a, b in zip(first, draw(), strict=True))

    @pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "0"])
    def test_refuses_what_numpy_would_refuse(self, seed):
        with pytest.raises(ValueError, match=r"^seed: ") as error:
            seed_everything(seed)
        assert one_line(error).endswith(f"got {seed!r}")
        seed_everything(2**32 - 1)
