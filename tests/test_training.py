"""Tests of lib.training: the loop against its definition, the schedule, evaluation, seeds."""

import math
import os
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


class MaskedModel(nn.Module):
    """Logits of masked tokens, with dropout if asked, and a buffer that changes."""

    def __init__(self, dropout=0.0, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Embedding(11, 7), nn.Linear(7, 13), nn.Tanh(), nn.Dropout(dropout), nn.Linear(13, 11)
        ).to(dtype)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, ids):
        self.calls += 1
        return self.body(ids)


IDS = torch.randint(11, (5, 6, 9), generator=torch.Generator().manual_seed(3))  # 5 steps, B = 6
CHOSEN = torch.zeros(5, 6, 9, dtype=torch.bool)
for row, number in enumerate((1, 9, 2, 5, 0, 0)):  # very uneven counts of masked tokens in a row
    CHOSEN[:, row, :number] = True


def masked_sum(model, step, rows):
    """(sum of the losses, number) of the masked tokens in some rows of a step's batch."""
    ids, chosen = IDS[step, rows], CHOSEN[step, rows]
    logits = model(ids.masked_fill(chosen, 0))[chosen]
    return F.cross_entropy(logits, ids[chosen], reduction="sum"), int(chosen.sum())


class TestAccumulation:
    def whole(self, **options):
        model = MaskedModel()

        def loss(step):
            total, count = masked_sum(model, step, slice(None))
            return total / count

        return model, fit(model, loss, steps=5, learning_rate=0.05, **options)

    @pytest.mark.parametrize("clip", [None, 0.1])
    @pytest.mark.parametrize("parts", [1, 2, 3, 6])
    def test_parts_equal_the_whole_batch_with_uneven_counts(self, parts, clip):
        want, losses = self.whole(clip=clip)
        model, size = MaskedModel(), 6 // parts
        got = fit(
            model,
            lambda step, part: masked_sum(model, step, slice(part * size, (part + 1) * size)),
            steps=5,
            learning_rate=0.05,
            clip=clip,
            accumulate=parts,
        )
        assert got == pytest.approx(losses, abs=1e-12)
        for p, q in zip(model.parameters(), want.parameters(), strict=True):
            assert torch.allclose(p, q, atol=1e-12, rtol=0)

    def test_a_mean_of_means_does_not(self):
        """The usual way, and the measure that the test above would catch it."""
        want, losses = self.whole()
        model = MaskedModel()

        def mean(step, part):
            total, count = masked_sum(model, step, slice(part * 2, part * 2 + 2))
            return total / max(count, 1), 1

        got = fit(model, mean, steps=5, learning_rate=0.05, accumulate=3)
        assert abs(got[0] - losses[0]) > 1e-2
        gap = (model.body[1].weight - want.body[1].weight).abs().max()
        assert gap > 1e-3

    def test_the_gradient_is_that_of_the_whole_batch(self):
        reference = MaskedModel()
        total, count = masked_sum(reference, 0, slice(None))
        (total / count).backward()
        model = MaskedModel()
        fit(model, lambda s, i: masked_sum(model, s, [i]), steps=1, learning_rate=1e-3, clip=None,
            accumulate=6)  # fmt: skip
        for p, q in zip(model.parameters(), reference.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, atol=1e-14, rtol=0)

    def test_parts_come_in_order_and_one_may_be_empty(self):
        model, seen = MaskedModel(), []

        def loss(step, part):
            seen.append((step, part))
            if part == 1:
                return torch.tensor(0.0), 0  # nothing selected, and no graph
            return masked_sum(model, step, slice(None))

        got = fit(model, loss, steps=2, learning_rate=0.05, accumulate=3)
        assert seen == [(s, p) for s in range(2) for p in range(3)]
        assert got == pytest.approx(self.whole()[1][:1] + got[1:], abs=1e-12)

    def test_a_count_may_be_a_tensor(self):
        def run(convert):
            model = MaskedModel()

            def loss(step, part):
                total, count = masked_sum(model, step, [part])
                return total, convert(count)

            return fit(model, loss, steps=3, learning_rate=0.05, accumulate=4)

        assert run(torch.tensor) == run(int)

    def test_refuses_counts_of_nothing(self):
        model = MaskedModel()
        before = model.body[1].weight.clone()
        with pytest.raises(ValueError, match="counts that sum to more than 0, got 0") as error:
            fit(model, lambda s, p: masked_sum(model, s, [4 + p]), steps=1, learning_rate=1,
                accumulate=2)  # fmt: skip
        one_line(error)
        assert torch.equal(model.body[1].weight, before)

    @pytest.mark.parametrize("count", [-1, math.nan])
    def test_refuses_a_count_below_zero(self, count):
        model = MaskedModel()
        with pytest.raises(ValueError, match="count of at least 0, got") as error:
            fit(model, lambda s, p: (masked_sum(model, s, [1])[0], 2 if p == 0 else count),
                steps=1, learning_rate=1, accumulate=2)  # fmt: skip
        one_line(error)

    def test_a_part_that_is_not_finite_is_named(self):
        model = MaskedModel()
        with pytest.raises(FloatingPointError, match=r"^loss is nan at step 0 of 2"):
            fit(model, lambda s, p: (masked_sum(model, s, [p])[0] * (math.nan if p else 1), 1),
                steps=2, learning_rate=1, accumulate=2)  # fmt: skip

    @pytest.mark.parametrize("name", ["accumulate", "every"])
    @pytest.mark.parametrize("value", [0, -1, 2.0])
    def test_refuses_a_wrong_option(self, name, value):
        model, batch_loss = problem()
        with pytest.raises(ValueError, match=f"^{name}: ") as error:
            fit(model, batch_loss, steps=2, learning_rate=0.1, **{name: value})
        assert one_line(error).endswith(f"got {value!r}")


class Interrupt(Exception):
    pass


class TestCheckpoint:
    steps = 7

    def run(self, path=None, stop=None, start_seed=5, every=1, **options):
        """A run with dropout and a generator; `stop` interrupts it in that step's loss."""
        model = MaskedModel(dropout=0.3)
        generator = torch.Generator().manual_seed(9)
        torch.manual_seed(start_seed)

        def loss(step):
            ids = torch.randint(11, (3, 4), generator=generator)
            value = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
            if step == stop:
                raise Interrupt
            return value

        options = {"steps": self.steps, "learning_rate": 0.05, "weight_decay": 0.1, **options}
        losses = fit(model, loss, checkpoint=path, every=every, generators=[generator], **options)
        return losses, model.state_dict(), generator.get_state(), torch.get_rng_state()

    def assert_same(self, one, other):
        assert one[0] == other[0]
        assert all(torch.equal(t, other[1][name]) for name, t in one[1].items())
        assert torch.equal(one[2], other[2]) and torch.equal(one[3], other[3])

    @pytest.mark.parametrize("every", [1, 3])
    @pytest.mark.parametrize("stop", range(7))
    def test_interrupted_anywhere_it_equals_the_uninterrupted_run(self, tmp_path, stop, every):
        want = self.run()
        with pytest.raises(Interrupt):
            self.run(tmp_path / "run", stop, every=every)
        assert (tmp_path / "run").exists() == (stop >= every)
        # another seed: all that counts comes from the file, unless there is none yet
        seed = 77 if stop >= every else 5
        self.assert_same(self.run(tmp_path / "run", start_seed=seed, every=every), want)
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_interrupted_again_and_again(self, tmp_path):
        for stop in (2, 2, 4, 6):
            with pytest.raises(Interrupt):
                self.run(tmp_path / "run", stop)
        self.assert_same(self.run(tmp_path / "run"), self.run())

    def test_a_finished_run_is_read(self, tmp_path):
        want = self.run(tmp_path / "run", every=100)  # so: at the end too
        self.assert_same(self.run(tmp_path / "run", stop=0, start_seed=1), want)

    def test_progress_has_the_rest(self, tmp_path):
        with pytest.raises(Interrupt):
            self.run(tmp_path / "run", 4)
        ranges = []
        self.run(tmp_path / "run", progress=lambda steps: (ranges.append(steps), steps)[1])
        assert ranges == [range(4, 7)]

    @pytest.mark.parametrize("fails", ["torch.save", "os.fsync", "os.replace"])
    def test_a_failure_while_writing_loses_nothing(self, tmp_path, monkeypatch, fails):
        path = tmp_path / "run"
        with pytest.raises(Interrupt):
            self.run(path, 3)
        before = path.read_bytes()

        def fail(*arguments):
            if fails == "torch.save":
                arguments[1].write(b"half of a checkpo")  # as a full disk would leave it
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(fails, fail)
            with pytest.raises(OSError, match="No space left"):
                self.run(path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["run"]
        self.assert_same(self.run(path), self.run())

    def test_what_a_killed_process_leaves_is_not_read(self, tmp_path):
        path = tmp_path / "run"
        with pytest.raises(Interrupt):
            self.run(path, 3)
        (tmp_path / "run.tmp").write_bytes(b"half of a checkpo")
        self.assert_same(self.run(path), self.run())
        assert [p.name for p in tmp_path.iterdir()] == ["run"]

    def test_is_on_the_disk_before_it_takes_its_place(self, tmp_path, monkeypatch):
        order, fsync, replace = [], os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", lambda f: (order.append("fsync"), fsync(f)))
        monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
        self.run(tmp_path / "run", every=100)
        assert order == ["fsync", "replace"]

    def test_options_may_be_numpy_s(self, tmp_path):
        self.run(tmp_path / "run", learning_rate=np.float64(0.05), clip=np.float32(1.0))
        self.assert_same(self.run(tmp_path / "run"), self.run())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"steps": 8}, "steps 8, got 7"),
            ({"learning_rate": 0.04}, "learning_rate 0.04, got 0.05"),
            ({"warmup": 0.2}, "warmup 0.2, got 0.1"),
            ({"clip": None}, "clip None, got 1.0"),
            ({"weight_decay": 0.0}, "weight_decay 0.0, got 0.1"),
            ({"accumulate": 2}, "accumulate 2, got None"),
        ],
    )
    def test_refuses_a_run_with_other_options(self, tmp_path, options, message):
        self.run(tmp_path / "run")
        with pytest.raises(ValueError, match="expected a checkpoint of this run") as error:
            self.run(tmp_path / "run", **options)
        assert one_line(error).endswith(message) and str(tmp_path / "run") in str(error.value)

    @pytest.mark.parametrize(
        ("other", "generators", "message"),
        [
            (
                nn.Linear(5, 2),
                0,
                r"weight \[2, 5, 'torch.float32'\], got \[3, 5, 'torch.float32'\]",
            ),
            (nn.Linear(5, 3, bias=False), 0, "bias none, got"),
            (nn.Linear(5, 3).double(), 0, r"weight \[3, 5, 'torch.float64'\], got"),
            (nn.Sequential(nn.Linear(5, 3)), 0, r"0\.weight \[3, 5, 'torch.f.*\], got none"),
            (nn.Linear(5, 3), 1, "generators 1, got 0"),
        ],
    )
    def test_refuses_another_model_and_leaves_it_alone(self, tmp_path, other, generators, message):
        def train(model, count):
            x = torch.ones(2, 5, dtype=next(model.parameters()).dtype)
            generators = [torch.Generator() for _ in range(count)]
            fit(model, lambda step: model(x).square().mean(), steps=2, learning_rate=0.1,
                checkpoint=tmp_path / "run", generators=generators)  # fmt: skip

        train(nn.Linear(5, 3), 0)
        before = {name: t.clone() for name, t in other.state_dict().items()}
        with pytest.raises(ValueError, match=message) as error:
            train(other, generators)
        one_line(error)
        assert all(torch.equal(t, before[name]) for name, t in other.state_dict().items())

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", "tensor", "object"])
    def test_refuses_a_file_that_is_no_checkpoint(self, tmp_path, content):
        if isinstance(content, bytes):
            (tmp_path / "run").write_bytes(content)
        else:  # the object is one that only an unrestricted unpickler would build
            wrong = torch.ones(2) if content == "tensor" else {"identity": Interrupt()}
            torch.save(wrong, tmp_path / "run")
        with pytest.raises(ValueError, match="expected a checkpoint that fit wrote") as error:
            self.run(tmp_path / "run")
        one_line(error)


class TestDeviceAndDtype:
    def losses(self, model, device="cpu", autocast=False, steps=40):
        ids = IDS[0].to(device)

        def loss(step):
            with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
                return F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())

        return fit(model, loss, steps=steps, learning_rate=0.03)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_every_dtype_learns_and_stays(self, dtype):
        model = MaskedModel(dtype=dtype)
        losses = self.losses(model)
        assert losses[-1] < losses[0] / 2
        assert {p.dtype for p in model.parameters()} == {dtype}

    def test_autocast_is_the_loss_s_own_business(self):
        model, exact = MaskedModel(dtype=torch.float32), MaskedModel(dtype=torch.float32)
        mixed, full = self.losses(model, autocast=True), self.losses(exact)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert mixed != full  # bfloat16 was at work
        assert mixed == pytest.approx(full, abs=0.05)

    def test_a_small_update_is_lost_in_pure_bfloat16_only(self):
        def moved(dtype):
            model = nn.Linear(1, 1, bias=False).to(dtype)
            model.weight.data.fill_(1.0)
            fit(model, lambda s: model.weight.sum(), steps=9, learning_rate=1e-3, warmup=0)
            return 1.0 - model.weight.item()

        assert moved(torch.bfloat16) == 0.0
        assert moved(torch.float32) > 1e-3

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_on_cuda(self, tmp_path):
        want = self.losses(MaskedModel())
        assert self.losses(MaskedModel().cuda(), "cuda") == pytest.approx(want, abs=1e-9)
        mixed = self.losses(MaskedModel(dtype=torch.float32).cuda(), "cuda", autocast=True)
        assert mixed == pytest.approx(want, abs=0.1)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_a_run_on_cuda_is_resumed_bit_for_bit(self, tmp_path):
        def run(path=None, stop=None, seed=5):
            model, ids = MaskedModel(dropout=0.3).cuda(), IDS[0].cuda()
            generator = torch.Generator("cuda").manual_seed(9)
            torch.manual_seed(seed)

            def loss(step):
                if step == stop:
                    raise Interrupt
                rows = torch.randint(6, (4,), generator=generator, device="cuda")
                return F.cross_entropy(model(ids[rows]).flatten(0, 1), ids[rows].flatten())

            losses = fit(model, loss, steps=6, learning_rate=0.03, checkpoint=path, every=1,
                         generators=[generator])  # fmt: skip
            return losses, [p.detach().cpu() for p in model.parameters()]

        want = run()
        with pytest.raises(Interrupt):
            run(tmp_path / "run", stop=3)
        got = run(tmp_path / "run", seed=77)
        assert got[0] == want[0]
        assert all(torch.equal(p, q) for p, q in zip(got[1], want[1], strict=True))


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
