"""Several processes that train one model: who is there, how it is split, what they add up.

`torchrun` starts the processes and starts them anew if one dies; torch.distributed is the engine.
`processes` joins them, `share` says which rows of a batch are whose, `parallelize` prepares a model
so that `lib.training.fit` trains it in all of them together.
Derived in chapter 22_scaling_out.
"""

import atexit
import functools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

__all__ = ["Alone", "World", "launch", "parallelize", "processes", "share", "together"]

STRATEGIES = ("ddp", "fsdp")
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class World:
    """Where a process stands: its rank from 0 to size − 1, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device


@contextmanager
def processes(*, backend: str | None = None, seconds: float = 600.0) -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end of the block.

    backend : "gloo" for CPUs, "nccl" for one GPU a process; None: nccl where this machine has a GPU
        for each of its processes, else gloo.
    seconds : how long a process waits for another before it gives up

    ValueError if torchrun did not start this process, or if it has joined already.
    """
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        if name not in os.environ:
            raise ValueError(f"processes: expected to be started by torchrun, got no {name}")
    if dist.is_initialized():
        raise ValueError("processes: expected to join once, got a process that has joined already")
    if backend not in (None, "gloo", "nccl"):
        raise ValueError(f"backend: expected gloo, nccl or None, got {backend!r}")
    if backend is None:
        enough = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
        backend = "nccl" if enough else "gloo"
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    _join(backend, timedelta(seconds=seconds))
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        # Kept to the end of the process. Else a model in DDP that outlives the block frees the
        # group, and waits for its threads with the very lock that they may wait for:
        # https://github.com/pytorch/pytorch/issues/56297
        atexit.register(id, dist.group.WORLD)
        dist.destroy_process_group()


def _join(backend: str, limit: timedelta) -> None:
    """Meet in a room of this start's own.

    torchrun keeps one store for all its starts; what a process that died has left there, its
    address for one, would be taken for its successor's.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=limit))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = dist.PrefixStore(f"start {start}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=limit)


def share(rows: int, world: World) -> slice:
    """Return which rows of a batch are this process's: rank r has the r-th of `size` equal parts.

    ValueError if the rows cannot be parted equally.

    >>> share(12, World(rank=1, size=3, device=torch.device("cpu")))
    slice(4, 8, None)
    """
    if rows < 1 or rows % world.size:
        raise ValueError(f"rows: expected a positive multiple of {world.size}, got {rows}")
    each = rows // world.size
    return slice(world.rank * each, (world.rank + 1) * each)


_PARALLEL: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # and the strategy


def parallelize(
    model: nn.Module,
    strategy: str = "ddp",
    *,
    mixed_precision: bool = False,
    activation_checkpointing: bool = False,
    compile: bool = False,
    blocks: Sequence[nn.Module] | None = None,
) -> nn.Module:
    """Return a model that all processes train together, from rank 0's weights; to be given to fit.

    model : changed in place; on the device of its process. Call only what is returned.
    strategy : "ddp", each process holds the whole model and its optimizer, and gradients are
        all-reduced; "fsdp" (FSDP2), each holds 1/size of weights, gradients and optimizer, and
        the weights of a block are gathered while it computes.
    mixed_precision : compute in bfloat16, from float32 weights; outputs are float32. "ddp": under
        `torch.autocast`, which leaves norms and softmax in float32. "fsdp": weights are gathered
        in bfloat16, and gradients summed in float32.
    activation_checkpointing : keep a block's input alone, and compute the block again in backward
    compile : each block by torch.compile
    blocks : the units of the last three; by default the members of every `nn.ModuleList` of the
        model that lies in no other. Each is split by itself, the rest of the model as one.

    Gradients are *sums* over the processes, not means: `lib.training.fit` divides by the count of
    the whole batch. Sums of two are the same in either order, so that two processes give one
    process's bits; of more, within rounding.

    ValueError outside of `processes`, for a strategy that is not there, a model that is parallel
    already or has no blocks where they are needed, or mixed precision of weights in another dtype.

    Source: DDP: Li et al. 2020, arXiv:2006.15704; FSDP: Zhao et al. 2023, arXiv:2304.11277, after
    ZeRO-3 of Rajbhandari et al. 2020, arXiv:1910.02054; activation checkpointing: Chen et al.
    2016, arXiv:1604.06174; mixed precision: Micikevicius et al. 2018, arXiv:1710.03740.
    Derived in chapter 22_scaling_out.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if not dist.is_initialized():
        raise ValueError("parallelize: expected a process that has joined others, got one alone")
    if model in _PARALLEL:
        raise ValueError(f"model: expected one on its own, got one in {_PARALLEL[model]} already")
    blocks = _blocks(model) if blocks is None else list(blocks)
    if not blocks and (activation_checkpointing or compile):
        raise ValueError("blocks: expected modules, got none in the model and none given")
    if mixed_precision:
        for name, p in model.named_parameters():
            if p.dtype != torch.float32:
                raise ValueError(f"mixed_precision: expected float32 weights, got {p.dtype} {name}")
    for tensor in [*model.parameters(), *model.buffers()]:
        dist.broadcast(tensor.detach(), src=0)

    for block in blocks:
        if activation_checkpointing:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        if compile:
            block.forward = torch.compile(block.forward)
    if strategy == "ddp":
        if mixed_precision:
            model.forward = _in_bfloat16(model.forward, next(model.parameters()).device.type)
        parallel: nn.Module = nn.parallel.DistributedDataParallel(model)
        parallel.register_comm_hook(None, _sum)
    else:
        parallel = _sharded(model, blocks, mixed_precision)
    _PARALLEL[parallel] = strategy
    return parallel


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The members of the outermost module lists, in order."""
    if isinstance(model, nn.ModuleList):
        return list(model)
    return [block for child in model.children() for block in _blocks(child)]


def _in_bfloat16(forward: Any, device: str) -> Any:
    """A forward pass under autocast, whose results are float32."""

    def single(x: Any) -> Any:
        return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x

    @functools.wraps(forward)
    def within(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            results = forward(*args, **kwargs)
        return tree_map(single, results)

    return within


def _sum(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Add up a bucket of gradients over the processes; DDP by itself takes the mean."""
    reduced = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return reduced.then(lambda future: future.value()[0])


def _sharded(model: nn.Module, blocks: Sequence[nn.Module], mixed_precision: bool) -> nn.Module:
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    policy, inner = MixedPrecisionPolicy(), MixedPrecisionPolicy()
    if mixed_precision:
        low = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32}
        inner = MixedPrecisionPolicy(**low)
        policy = MixedPrecisionPolicy(**low, output_dtype=torch.float32)
    for block in blocks:
        fully_shard(block, mp_policy=inner)
    fully_shard(model, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model


class Alone:
    """What a training loop asks of the processes that train a model, where there is one."""

    rank, size = 0, 1

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def adds_up(self, last: bool) -> AbstractContextManager:
        """A block whose forward and backward pass add up gradients over processes if `last`."""
        return nullcontext()

    def sums(self, *numbers: float) -> list[float]:
        """Each number summed over the processes, in float64."""
        return list(numbers)

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The norm of the whole gradient, the same in all processes."""
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def gathered(self, own: Any) -> list[Any]:
        """What each process has, by rank, in all of them."""
        return [own]

    def wait(self) -> None:
        """Go on when all have come here."""

    def tensors(self) -> dict[str, Tensor]:
        """The whole model's tensors by name; those of a split model say their shape as a whole."""
        return self.model.state_dict()

    def state(self, optimizer: torch.optim.Optimizer) -> tuple[dict, dict]:
        """The whole model's and the optimizer's state, in rank 0 at least."""
        return self.tensors(), optimizer.state_dict()

    def restore(self, optimizer: torch.optim.Optimizer, model_state: dict, state: dict) -> None:
        """Take over what `state` returned."""
        self.model.load_state_dict(model_state)
        optimizer.load_state_dict(state)


class _Replicated(Alone):
    """Each process holds the whole model: DDP."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = next(model.parameters()).device

    def adds_up(self, last: bool) -> AbstractContextManager:
        return nullcontext() if last else self.model.no_sync()

    def sums(self, *numbers: float) -> list[float]:
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def gathered(self, own: Any) -> list[Any]:
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, own)
        return everyone

    def wait(self) -> None:
        dist.barrier()

    def tensors(self) -> dict[str, Tensor]:
        return self.model.module.state_dict()

    def restore(self, optimizer: torch.optim.Optimizer, model_state: dict, state: dict) -> None:
        self.model.module.load_state_dict(model_state)
        optimizer.load_state_dict(state)


class _Sharded(_Replicated):
    """Each process holds a part of every tensor: FSDP2."""

    @contextmanager
    def adds_up(self, last: bool) -> Iterator[None]:
        self.model.set_requires_gradient_sync(last)
        yield

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if all(g.dtype == torch.float64 for g in gradients):
            # For comparing runs bit for bit: in the order of one process, tensor by tensor.
            norms = [torch.linalg.vector_norm(g.full_tensor()) for g in gradients]
            return torch.linalg.vector_norm(torch.stack(norms))
        return nn.utils.get_total_norm(gradients).full_tensor()

    def tensors(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def state(self, optimizer: torch.optim.Optimizer) -> tuple[dict, dict]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_state_dict(self.model, optimizer, options=whole)

    def restore(self, optimizer: torch.optim.Optimizer, model_state: dict, state: dict) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        set_state_dict(
            self.model,
            optimizer,
            model_state_dict=model_state,
            optim_state_dict=state,
            options=StateDictOptions(full_state_dict=True),
        )


def together(model: nn.Module) -> Alone:
    """Return what `lib.training.fit` asks of the processes that train a model.

    A model that `parallelize` returned is trained by all; any other by this process alone.
    """
    kinds = {None: Alone, "ddp": _Replicated, "fsdp": _Sharded}
    return kinds[_PARALLEL.get(model)](model)


def launch(
    script: str | os.PathLike,
    *args: Any,
    size: int = 2,
    restarts: int = 0,
    seconds: float = 240.0,
) -> subprocess.Popen:
    """Start a script in `size` processes of this machine under torchrun; return torchrun's process.

    restarts : how often torchrun starts all of them anew when one dies
    seconds : for `finish`

    They meet on the loopback interface at a port that is free, and have one thread each. What they
    write to stdout and stderr is in the returned process's `stdout`.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "--local-addr=127.0.0.1", f"--nproc-per-node={size}"]
    command += [f"--max-restarts={restarts}", str(script), *map(str, args)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.Popen(
        command,
        env=os.environ | loopback,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
