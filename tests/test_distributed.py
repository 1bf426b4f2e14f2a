"""lib.distributed and what lib.training does with it: two processes give the numbers of one."""

import atexit
import functools
import os
import sys
import warnings
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from lib.distributed import World, launch, parallelize, processes, share, together
from lib.models.gpt2 import GPT2, GPT2Config
from lib.training import evaluate, fit
from tests.distributed_run import EVERY, KILLED, STEPS
from tests.few_processes import in_processes
from tests.repository import ROOT

CPU = torch.device("cpu")
ROWS, LENGTH, VOCABULARY = 6, 11, 13
SIZES = {"vocab_size": VOCABULARY, "d_model": 10, "num_layers": 2, "num_heads": 2, "d_ff": 17}
NO_DROPOUT = {"dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.0}


def gpt(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    config = GPT2Config(**SIZES, **NO_DROPOUT, max_length=LENGTH, eos_token_id=None)
    return GPT2(config).to(dtype)


def batch_sum(model, step, rows):
    """(sum of the losses, number) of some rows of a step's batch: rows count 1 to 11 tokens."""
    generator = torch.Generator().manual_seed(step % 2)
    ids = torch.randint(VOCABULARY, (ROWS, LENGTH + 1), generator=generator)[rows]
    counted = (torch.arange(LENGTH) < torch.tensor([1, 2, 4, 11, 9, 10])[:, None])[rows]
    losses = F.cross_entropy(model(ids[:, :-1])[counted], ids[:, 1:][counted], reduction="sum")
    return losses, int(counted.sum())


OPTIONS = {"steps": 4, "learning_rate": 0.02, "weight_decay": 0.1}


def alone(parts=2, dtype=torch.float64, **options):
    model, size = gpt(dtype=dtype), ROWS // parts

    def loss(step, part):
        return batch_sum(model, step, slice(part * size, (part + 1) * size))

    losses = fit(model, loss, accumulate=parts, **OPTIONS | options)
    return losses, model.state_dict()


def in_two(strategy, parts=1, dtype=torch.float64, size=2, options=None, **how):
    """The same run by `size` processes; each begins from other weights, which rank 0's replace."""

    def run(rank):
        # torch's compiler looks at what has no gradient
        warnings.filterwarnings("ignore", r"The \.grad attribute", UserWarning)
        with processes(backend="gloo", seconds=8) as world:
            parallel = parallelize(gpt(seed=rank, dtype=dtype), strategy, **how)
            mine = share(ROWS, world)
            each = (mine.stop - mine.start) // parts

            def loss(step, part):
                start = mine.start + part * each
                return batch_sum(parallel, step, slice(start, start + each))

            losses = fit(parallel, loss, accumulate=parts, **OPTIONS | (options or {}))
            tensors = together(parallel).tensors()
            whole = {n: getattr(t, "full_tensor", lambda t=t: t)() for n, t in tensors.items()}
            return losses, whole, sum(p.numel() for p in local(parallel))

    return in_processes(run, size)


def local(model):
    return [getattr(p, "to_local", lambda p=p: p)() for p in model.parameters()]


def assert_same_bits(got, want):
    assert got[0] == want[0]
    assert got[1].keys() == want[1].keys()
    assert all(torch.equal(got[1][name], t) for name, t in want[1].items())


class TestTwoEqualOne:
    @pytest.mark.parametrize("clip", [0.3, None])
    @pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
    def test_bit_for_bit(self, strategy, clip):
        want = alone(clip=clip)
        for got in in_two(strategy, options={"clip": clip}):
            assert_same_bits(got, want)

    @pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
    def test_with_checkpointed_activations(self, strategy):
        for got in in_two(strategy, activation_checkpointing=True, options={"steps": 2}):
            assert_same_bits(got, alone(steps=2))

    @pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
    def test_parts_in_each_process_within_rounding(self, strategy):
        want = alone(parts=6)
        for losses, weights, _ in in_two(strategy, parts=3):
            assert losses == pytest.approx(want[0], abs=1e-12)
            for name, tensor in want[1].items():
                assert torch.allclose(weights[name], tensor, atol=1e-10, rtol=0)

    def test_three_processes_within_rounding(self):
        want = alone(parts=3)
        for losses, _, _ in in_two("ddp", size=3):
            assert losses == pytest.approx(want[0], abs=1e-12)

    def test_the_norm_has_the_bits_of_one_process(self):
        def gradients(seed):
            generator = torch.Generator().manual_seed(seed)
            return [torch.randn(*shape, generator=generator, dtype=torch.float64)
                    for shape in ((101, 37), (101,))]  # fmt: skip

        def run(rank):
            from torch.distributed.tensor import distribute_tensor

            with processes(backend="gloo", seconds=8):
                model = parallelize(nn.Linear(37, 101).double(), "fsdp")
                parameters, norms = list(model.parameters()), []
                for seed in range(20):
                    for p, g in zip(parameters, gradients(seed), strict=True):
                        p.grad = distribute_tensor(g, p.device_mesh, p.placements)
                    norms.append(together(model).norm(parameters).item())
                return norms

        want = [nn.utils.get_total_norm(gradients(seed)).item() for seed in range(20)]
        assert in_processes(run) == [want, want]

    def test_the_cut_of_the_gradient_has_something_to_do(self):
        assert alone(clip=0.3)[0] != alone(clip=None)[0]

    def test_the_optimizer_too_is_split_in_two(self):
        whole = sum(p.numel() for p in gpt().parameters())
        kept = [number for _, _, number in in_two("fsdp", options={"steps": 1})]
        assert sum(kept) == whole and max(kept) < 0.6 * whole
        assert [number for _, _, number in in_two("ddp", options={"steps": 1})] == [whole, whole]


class TestSums:
    def test_gradients_cross_in_the_last_part_only(self):
        def run(rank):
            calls = []
            with processes(backend="gloo") as world:
                parallel = parallelize(gpt(seed=rank))
                reduce = dist.all_reduce
                dist.all_reduce = lambda *a, **k: (calls.append(a[0].numel()), reduce(*a, **k))[1]
                try:
                    fit(
                        parallel,
                        lambda s, p: batch_sum(parallel, s, share(ROWS, world)),
                        accumulate=3,
                        **OPTIONS | {"steps": 3},
                    )
                finally:
                    dist.all_reduce = reduce
            return calls

        whole = sum(p.numel() for p in gpt().parameters())
        # a step sums each gradient once, in buckets, and two numbers: the losses and their count
        for calls in in_processes(run):
            assert calls.count(2) == 3 and sum(calls) == 3 * (whole + 2)

    def test_a_process_may_count_nothing(self):
        def run(rank):
            with processes(backend="gloo", seconds=8):
                parallel = parallelize(gpt())

                def loss(step, part):
                    total, count = batch_sum(parallel, step, slice(rank, rank + 1))
                    return (total, count) if rank else (0.0 * total, 0)

                return fit(parallel, loss, accumulate=1, **OPTIONS)

        model = gpt()
        want = fit(model, lambda s, p: batch_sum(model, s, [1]), accumulate=1, **OPTIONS)
        assert in_processes(run) == [pytest.approx(want, abs=1e-12)] * 2

    def test_a_model_that_is_not_parallel_is_trained_alone(self):
        def run(rank):
            with processes(backend="gloo"):
                model = gpt(seed=rank)
                return fit(model, lambda s: batch_sum(model, s, [rank])[0], **OPTIONS)

        first, second = in_processes(run)
        assert first != second


LONGER = {"steps": 8, "learning_rate": 0.02, "weight_decay": 0.1}


class TestMixedPrecisionAndCompile:
    def held_out(self, strategy, **how):
        (losses, weights, _), other = in_two(strategy, dtype=torch.float32, options=LONGER, **how)
        assert losses == other[0]
        return losses, weights

    @pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
    def test_bfloat16_trains_as_float32_does(self, strategy):
        want, _ = alone(dtype=torch.float32, **LONGER)
        got, weights = self.held_out(strategy, mixed_precision=True)
        assert {t.dtype for t in weights.values()} == {torch.float32}  # the master weights
        assert got != want  # bfloat16 was at work
        assert got == pytest.approx(want, abs=0.02)
        assert want[-1] < want[0] - 0.1

    def test_results_are_float32(self):
        def run(rank):
            with processes(backend="gloo"):
                ids = torch.zeros(1, 3, dtype=torch.int64)
                kinds = []
                for strategy in ("ddp", "fsdp"):
                    model = parallelize(gpt(dtype=torch.float32), strategy, mixed_precision=True)
                    kinds.append(model(ids).dtype)
                return kinds

        assert in_processes(run) == [[torch.float32] * 2] * 2

    def test_compiled_blocks_within_rounding(self):
        def run(rank):
            warnings.filterwarnings("ignore", r"The \.grad attribute", UserWarning)
            graphs = []

            def backend(graph, inputs):  # C++ is not what is tested here, and takes seconds
                graphs.append(len(inputs))
                return graph.forward

            compiler = functools.partial(torch.compile, backend=backend)
            with (
                processes(backend="gloo", seconds=8),
                mock.patch.object(torch, "compile", compiler),
            ):
                torch.manual_seed(0)
                block, x = nn.Linear(5, 3), torch.ones(2, 5)
                model = nn.Sequential(block, nn.Tanh())
                want = model(x).tolist()
                parallel = parallelize(model, compile=True, blocks=[block])
                return want, parallel(x).tolist(), len(graphs)

        for want, got, graphs in in_processes(run):
            assert torch.allclose(torch.tensor(got), torch.tensor(want), atol=1e-6)
            assert graphs == 1

    def test_not_compiled_unless_asked_for(self):
        def run(rank):
            with processes(backend="gloo", seconds=8):
                block = nn.Linear(5, 3)
                parallelize(block, blocks=[block])
                return "forward" in vars(block)

        assert in_processes(run) == [False, False]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What torchrun found in two processes, of which it started both anew: see distributed_run."""
    folder = tmp_path_factory.mktemp("killed")
    torchrun = launch(ROOT / "tests" / "distributed_run.py", folder, size=2, restarts=3)
    said, _ = torchrun.communicate(timeout=200)
    assert torchrun.returncode == 0, said[-3000:]
    found = [torch.load(folder / f"found-{rank}", weights_only=True) for rank in range(2)]
    return found, sorted(path.name for path in folder.iterdir())


class TestKilled:
    @pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
    def test_the_run_ends_as_if_nothing_had_been(self, killed, strategy):
        for found in killed[0]:
            losses, weights, _ = found[strategy]
            assert len(losses) == STEPS and losses[-1] != losses[0]
            again = found[strategy, "killed"]
            assert again[0] == losses
            assert all(torch.equal(p, q) for p, q in zip(again[1], weights, strict=True))

    def test_steps_before_the_checkpoint_are_not_done_again(self, killed):
        for found in killed[0]:
            drawn, again = found["fsdp"][2], found["fsdp", "killed"][2]
            first = KILLED // EVERY * EVERY
            assert again == drawn[first:]  # the same draws, step by step
            assert found["ddp", "killed"][2] == []  # was done before the kill: is read

    def test_each_process_draws_what_is_its_own(self, killed):
        first, second = (found["ddp"][2] for found in killed[0])
        assert all(one != other for one, other in zip(first, second, strict=True))

    def test_one_file_for_a_run(self, killed):
        assert killed[1] == ["ddp", "found-0", "found-1", "fsdp"]


class TestCheckpoints:
    @pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
    def test_goes_on_bit_for_bit_and_the_first_writes_alone(self, tmp_path, strategy):
        def run(rank):
            written, replace = [], os.replace
            os.replace = lambda a, b: (written.append(rank), replace(a, b))
            with processes(backend="gloo", seconds=8) as world:

                def train(stop=None, seed=0):
                    parallel = parallelize(gpt(seed=seed), strategy)
                    generator = torch.Generator().manual_seed(seed + rank)

                    def loss(step, part):
                        if step == stop:
                            raise InterruptedError
                        moved = torch.rand((), generator=generator, dtype=torch.float64)
                        total, count = batch_sum(parallel, step, share(ROWS, world))
                        return total * moved, count

                    path = None if stop is None else tmp_path / "run"
                    losses = fit(parallel, loss, accumulate=1, checkpoint=path, every=1,
                                 generators=[generator], **OPTIONS)  # fmt: skip
                    return losses, [p.detach().clone() for p in local(parallel)]

                want = train()
                with pytest.raises(InterruptedError):
                    train(stop=2)
                return want, train(stop=-1, seed=7), written

        for rank, (want, got, written) in enumerate(in_processes(run)):
            assert got[0] == want[0]
            assert all(torch.equal(p, q) for p, q in zip(got[1], want[1], strict=True))
            assert written == [0] * (4 if rank == 0 else 0)

    def test_of_another_number_of_processes_is_refused(self, tmp_path):
        alone(checkpoint=tmp_path / "run")

        def run(rank):
            with processes(backend="gloo") as world:
                model = parallelize(gpt())
                with pytest.raises(ValueError, match="with processes 2, got 1") as error:
                    fit(model, lambda s, p: batch_sum(model, s, share(ROWS, world)), accumulate=2,
                        checkpoint=tmp_path / "run", **OPTIONS)  # fmt: skip
                return str(error.value)

        assert all("\n" not in message for message in in_processes(run))


def test_a_model_may_outlive_the_block():
    """Freed with the model, the group waits for its threads with the lock that they wait for."""

    def run(rank):
        with processes(backend="gloo", seconds=8):
            group = dist.group.WORLD
        with_the_one_kept = sys.getrefcount(group)
        atexit.unregister(id)
        return with_the_one_kept - sys.getrefcount(group)

    assert in_processes(run) == [1, 1]


class TestErrors:
    def test_not_under_torchrun(self, monkeypatch):
        monkeypatch.delenv("RANK", raising=False)
        with pytest.raises(ValueError, match=r"^processes: expected to be started by torchrun"):
            processes().__enter__()

    def test_not_joined(self):
        with pytest.raises(ValueError, match=r"^parallelize: expected a process that has joined"):
            parallelize(gpt())

    def test_no_such_strategy(self):
        with pytest.raises(ValueError, match=r"^strategy: expected one of ddp, fsdp, got 'zero'$"):
            parallelize(gpt(), "zero")

    def test_what_is_refused_in_processes(self):
        def run(rank):
            said = []

            def note(function):
                with pytest.raises(ValueError, match="expected") as error:
                    function()
                said.append(str(error.value))

            with processes(backend="gloo", seconds=8):
                note(lambda: processes(backend="mpi").__enter__())
                note(lambda: processes().__enter__())
                parallel = parallelize(gpt())
                note(lambda: parallelize(parallel, "fsdp"))
                note(lambda: parallelize(gpt(), mixed_precision=True))
                note(lambda: parallelize(nn.Linear(2, 3), activation_checkpointing=True))
                note(lambda: fit(parallel, lambda s: batch_sum(parallel, s, [0])[0], **OPTIONS))
                nothing = torch.tensor(0.0), 0
                note(lambda: fit(parallel, lambda s, p: nothing, accumulate=1, **OPTIONS))
            return said

        want = [
            "processes: expected to join once, got a process that has joined already",
            "processes: expected to join once, got a process that has joined already",
            "model: expected one on its own, got one in ddp already",
            "mixed_precision: expected float32 weights, got torch.float64 word.weight",
            "blocks: expected modules, got none in the model and none given",
            "accumulate: expected at least 1 with 2 processes, so that batch_loss returns "
            "(sum, count), got None",
            "batch_loss: expected a loss that is computed from the model in all 2 processes, also "
            "where it counts nothing; got no gradient",
        ]
        assert in_processes(run) == [want, want]

    def test_no_such_backend(self):
        def run(rank):
            with pytest.raises(ValueError, match=r"^backend: expected gloo, nccl or N"):
                processes(backend="mpi").__enter__()

        in_processes(run)


class TestShare:
    def test_the_shares_are_the_batch(self):
        parts = [share(12, World(rank, 3, CPU)) for rank in range(3)]
        assert [list(range(12))[part] for part in parts] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9, 10, 11],
        ]

    @pytest.mark.parametrize("rows", [0, 7, -3])
    def test_refuses_what_cannot_be_parted(self, rows):
        message = f"^rows: expected a positive multiple of 3, got {rows}$"
        with pytest.raises(ValueError, match=message):
            share(rows, World(0, 3, CPU))


def test_evaluation_is_the_same_in_every_process():
    def run(rank):
        with processes(backend="gloo", seconds=8):
            ids = torch.arange(24).view(2, 12) % VOCABULARY
            return [
                evaluate(parallelize(gpt(), strategy), ids[:, :-1], ids[:, 1:])
                for strategy in ("ddp", "fsdp")
            ]

    ids = torch.arange(24).view(2, 12) % VOCABULARY
    want = evaluate(gpt(), ids[:, :-1], ids[:, 1:])
    assert in_processes(run) == [[want, want]] * 2
