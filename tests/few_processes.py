"""A function in several processes at once, for tests: forked, so that torch is imported already.

torchrun starts a new Python, and torch is imported by each: seconds. A fork takes milliseconds
and has what the test has, a mutated module of lib too. The forks leave a GPU
alone.
"""

import os
import signal
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from unittest import mock

import torch
import torch._dynamo  # as the first optimiser does: here, once, and not in each fork
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict
import torch.distributed.fsdp


def in_processes(function, size=2, seconds=20.0):
    """Run function(rank) in `size` forked processes; return their results by rank.

    AssertionError with the traceback of the first that failed. In each of them the environment is
    as torchrun leaves it, and nothing has joined.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        children = []
        with warnings.catch_warnings():
            # Python ≥ 3.12 warns of forks among threads; these compute on one and leave by _exit
            warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
            for rank in range(size):
                child = os.fork()
                if child == 0:
                    _run(function, rank, size, folder)
                children.append(child)
        _wait(children, seconds)
        found = [torch.load(folder / str(rank), weights_only=False) for rank in range(size)]
    failed = [text for ok, text in found if not ok]
    # one that fails leaves the others waiting in vain: theirs are errors of the connection
    failed.sort(key=lambda text: "Connection" in text)
    assert not failed, failed[0]
    return [result for _, result in found]


def _run(function, rank, size, folder):
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)

    def meet(*args, **kwargs):
        meet.times += 1
        yield dist.PrefixStore(str(meet.times), store), rank, size

    meet.times = 0
    no_gpu = {"is_available": lambda: False, "device_count": lambda: 0}
    found = None
    try:
        with (
            mock.patch.multiple(torch.cuda, **no_gpu),
            mock.patch.object(dist, "rendezvous", meet),
        ):
            found = True, function(rank)
    finally:  # whatever it raised is told by the parent; a fork must not go on as pytest
        torch.save(found or (False, traceback.format_exc()), folder / f"{rank}.tmp")
        os.replace(folder / f"{rank}.tmp", folder / str(rank))
        os._exit(0)


def _wait(children, seconds):
    end = time.monotonic() + seconds
    left = set(children)
    while left and time.monotonic() < end:
        left -= {child for child in left if os.waitpid(child, os.WNOHANG)[0]}
        time.sleep(0.005)
    for child in left:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not left, f"{len(left)} of {len(children)} processes not done after {seconds} seconds"
