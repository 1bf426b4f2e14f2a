"""What a computation costs: peak memory, kept tensors, floating-point operations, time.

The first call of ``peak_bytes`` on a CPU takes a second or two: torch starts its profiler.
"""

from __future__ import annotations

import os
import statistics
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

# Read when torch's profiler starts: without it every use prints two lines to stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def peak_bytes(function: Callable[..., Any], *args: Any, device: str | None = None) -> int:
    """Return the most bytes that were allocated at one time inside ``function(*args)``.

    What was there before the call is not counted, its result is. ``device`` is "cpu" or "cuda",
    by default that of the first tensor among ``args``, or the CPU.

    CPU: every allocation and release that torch's allocator reports to the profiler, in order, so
    the scratch memory inside a fused kernel counts too; a library's own (oneDNN's, say) does not.
    CUDA: the allocator's peak of bytes asked for, so without its rounding; the function is called
    once before, as the first call of cuBLAS keeps a workspace for good.
    """
    if device is None:
        devices = [x.device.type for x in tree_leaves(args) if isinstance(x, Tensor)]
        device = devices[0] if devices else "cpu"
    if device == "cuda":
        return _peak_bytes_cuda(function, *args)
    if device == "cpu":
        return _peak_bytes_cpu(function, *args)
    raise ValueError(f"device: expected cpu or cuda, got {device!r}")


def _peak_bytes_cpu(function: Callable[..., Any], *args: Any) -> int:
    cpu = [torch.profiler.ProfilerActivity.CPU]
    # acc_events: torch 2.11 warns without it, of cycles that come later; here is only one
    with torch.profiler.profile(activities=cpu, profile_memory=True, acc_events=True) as profile:
        function(*args)
    events = profile.profiler.kineto_results.events()
    memory = [event for event in events if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(memory, key=lambda event: event.start_ns()):
        live += event.nbytes()  # negative for a release
        peak = max(peak, live)
    return peak


def _peak_bytes_cuda(function: Callable[..., Any], *args: Any) -> int:
    function(*args)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    function(*args)
    torch.cuda.synchronize()
    return torch.cuda.memory_stats()["requested_bytes.all.peak"] - before


def flops(function: Callable[..., Any], *args: Any) -> int:
    """Return the floating-point operations of the matrix products in ``function(*args)``.

    A multiply-add counts as two. Sums, exponentials and whatever else is done element by element
    are not counted. A fused attention kernel counts as if it computed every logit, causal or not.
    torch's counter knows the fused kernels for CUDA but not the one for CPUs, which it silently
    counts as 0: here it counts like the others.
    """
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        function(*args)
    return counter.get_total_flops()


def _cpu_attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _cpu_attention_backward(
    grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
}


class _Held:
    """What a hook hands to autograd in place of a tensor: alive as long as the graph needs it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # an output would keep its own graph alive


def saved_tensors(
    function: Callable[..., Any], *args: Any, without: Iterable[Tensor] = ()
) -> list[tuple[tuple[int, ...], torch.dtype, int]]:
    """Return (shape, dtype, bytes) of each storage that autograd keeps of ``function(*args)``.

    In the order in which they were kept, each storage once, whatever views of it are kept; the
    bytes are those of the whole storage. Left out are the tensors in ``without``, such as a model's
    parameters, and what the graph of the result does not need. Inputs count, if they are kept.
    """
    held: list[weakref.ref[_Held]] = []

    def pack(tensor: Tensor) -> _Held:
        kept = _Held(tensor)
        held.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        result = function(*args)
    seen = {tensor.untyped_storage().data_ptr() for tensor in without}
    found = []
    for tensor in (kept.tensor for kept in (reference() for reference in held) if kept is not None):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            found.append((tuple(tensor.shape), tensor.dtype, storage.nbytes()))
    del result
    return found


def median_seconds(*functions: Callable[[], Any], repeats: int = 9) -> list[float]:
    """Return the median wall time of each function, for comparing them: meant for ratios.

    Each is called once to warm up; then they take turns, ``repeats`` times, so that a busy moment
    of the machine hits all of them alike.
    """
    if not functions:
        raise ValueError("functions: expected at least one, got none")
    if not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"repeats: expected an integer of at least 1, got {repeats!r}")
    for function in functions:
        function()
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, its_seconds in zip(functions, seconds, strict=True):
            _synchronize()  # the GPU works on after a call returns
            began = time.perf_counter()
            function()
            _synchronize()
            its_seconds.append(time.perf_counter() - began)
    return [statistics.median(its_seconds) for its_seconds in seconds]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
