"""Attention: the fused path, the sliding window, the kernel of chapter 20."""

from __future__ import annotations

import statistics

import pytest
import torch
import torch.nn.functional as F

from lib.attention import fast_attention
from lib.sliding_window import sliding_window_attention
from lib.teaching.measure import median_seconds, peak_bytes
from tests.benchmarks.harness import compare, growth, relative_difference, seconds_of
from tests.models import parity


def tensors(*shape: int, device: str, dtype=torch.float32) -> list[torch.Tensor]:
    """Queries, keys and values (B, h, n, d) as a model has them: (B, n, h, d) in memory."""
    B, h, n, d = shape
    return [
        torch.randn(B, n, h, d, generator=torch.Generator().manual_seed(i))
        .to(device, dtype)
        .transpose(1, 2)
        .requires_grad_()
        for i in range(3)
    ]


def forward(attend, inputs):
    """A call without gradients."""

    def call():
        with torch.no_grad():
            return attend(*inputs)

    return call


def both(attend, inputs):
    """A call with the backward pass; what it returns are the gradients, for any output gradient."""
    with torch.no_grad():
        output = attend(*inputs)
    direction = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float32
    ).to(output)

    def call():
        return torch.autograd.grad(attend(*inputs), inputs, direction)

    return call


@pytest.mark.rows("fast_attention-full")
def test_fast_attention(contest):
    size = contest.sizes(B=(4, 2), h=(8, 3), n=(1024, 37), d=(64, 5))
    inputs = tensors(*size.values(), device=contest.device)
    ours = forward(fast_attention, inputs)
    theirs = forward(F.scaled_dot_product_attention, inputs)
    contest.check_and_time("fast_attention-full", ours, theirs, tolerance=1e-6)


@pytest.mark.rows("fast_attention-causal")
def test_fast_attention_causal_with_gradients(contest):
    size = contest.sizes(B=(4, 2), h=(8, 3), n=(1024, 37), d=(64, 5))
    inputs = tensors(*size.values(), device=contest.device)
    ours = both(lambda *x: fast_attention(*x, causal=True), inputs)
    theirs = both(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), inputs)
    contest.check_and_time("fast_attention-causal", ours, theirs, tolerance=1e-5)


@pytest.mark.rows("fast_attention-short")
def test_fast_attention_on_short_sequences(contest):
    size = contest.sizes(B=(16, 2), h=(4, 3), n=(128, 7), d=(32, 5))
    inputs = tensors(*size.values(), device=contest.device)
    times = range(20 if contest.measures else 1)  # one call is over before a clock is sure

    def repeated(attend):
        call = forward(attend, inputs)
        return lambda: [call() for _ in times][-1]

    ours = repeated(lambda *x: fast_attention(*x, causal=True))
    theirs = repeated(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True))
    contest.check_and_time(
        "fast_attention-short", ours, theirs, tolerance=1e-6, note="20 calls are one round"
    )


# The sliding window


@pytest.mark.parametrize(
    ("kind", "memory"),
    [
        pytest.param(
            kind,
            memory,
            marks=pytest.mark.rows(f"sliding_window-{kind}", f"sliding_window-{memory}"),
            id=kind,
        )
        for kind, memory in (("forward", "memory"), ("both", "memory-both"))
    ],
)
def test_sliding_window(contest, kind, memory):
    size = contest.sizes(h=(4, 2), n=(16_384, 16), d=(64, 3))
    window = 256 if contest.measures else 4
    inputs = tensors(1, *size.values(), device=contest.device)
    official = parity.windows_of_longformer(window, size["h"], size["d"])
    call = {"forward": forward, "both": both}[kind]
    ours = call(lambda *x: sliding_window_attention(*x, window), inputs)
    theirs = call(official, inputs)
    contest.check_and_time(f"sliding_window-{kind}", ours, theirs, tolerance=1e-4, seconds=25)
    found, want = (peak_bytes(function, device=contest.device) for function in (ours, theirs))
    contest.value(
        f"sliding_window-{memory}",
        found / want,
        ours=found / 2**20,
        theirs=want / 2**20,
        unit="MiB",
    )


@pytest.mark.rows("sliding_window-growth")
def test_sliding_window_grows_with_the_length(contest):
    lengths = [2048, 4096, 8192, 16_384] if contest.measures else [16, 32]
    window = 256 if contest.measures else 4

    def run(n):
        return forward(
            lambda *x: sliding_window_attention(*x, window),
            tensors(1, 4, n, 64 if contest.measures else 3, device=contest.device),
        )

    calls = [run(n) for n in lengths]
    for n, call in zip(lengths, calls, strict=True):
        output = call()
        assert output.shape[2] == n and bool(output.isfinite().all())
    rounds = 15 if contest.measures else 2
    seconds = [[seconds_of(call) for call in calls] for _ in range(rounds)]
    exponents = [growth(lengths, row) for row in seconds]
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    contest.benchmark.pedantic(calls[-1])
    low, _, high = statistics.quantiles(exponents, n=4, method="inclusive")
    contest.value(
        "sliding_window-growth",
        growth(lengths, medians) if contest.measures else 1.0,
        [low, high],
        ours=medians[-1],
        unit="s",
        rounds=rounds,
        note=f"at {lengths[-1]:,} tokens",
    )


@pytest.mark.rows("sliding_window-flex")
def test_sliding_window_against_flex_attention(contest):
    flex = pytest.importorskip(
        "torch.nn.attention.flex_attention", reason="this torch has no FlexAttention"
    )
    size = contest.sizes(h=(4, 2), n=(16_384, 256), d=(64, 16))
    window = 256 if contest.measures else 32
    n = size["n"]
    inputs = tensors(1, *size.values(), device=contest.device, dtype=torch.bfloat16)

    def near(b, h, i, j):
        return (i - j).abs() <= window // 2

    mask = flex.create_block_mask(near, None, None, n, n, device=contest.device)
    compiled = torch.compile(flex.flex_attention)
    ours = forward(lambda *x: sliding_window_attention(*x, window), inputs)
    theirs = forward(lambda *x: compiled(*x, block_mask=mask), inputs)
    contest.check_and_time("sliding_window-flex", ours, theirs, tolerance=2e-2)


# The kernel of chapter 20


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.rows(f"flash_attention-{kind}"))
        for kind in ("forward", "both")
    ],
)
def test_flash_attention(contest, kind):
    module = pytest.importorskip(
        "lib.flash_attention", reason="lib.flash_attention is not there, or Triton is not"
    )
    from torch.nn.attention import SDPBackend, sdpa_kernel

    call = {"forward": forward, "both": both}[kind]
    backends = [
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
    ]
    ratios, worst = {}, None
    for n in (4096, 16_384):
        for d in (64, 128):
            for causal in (False, True):
                inputs = tensors(
                    65_536 // n, 2048 // d // 2, n, d, device="cuda", dtype=torch.bfloat16
                )
                ours = call(lambda *x, c=causal: module.flash_attention(*x, causal=c), inputs)

                def using(backend, inputs=inputs, causal=causal):
                    def attend(*x):
                        with sdpa_kernel(backend):
                            return F.scaled_dot_product_attention(*x, is_causal=causal)

                    return call(attend, inputs)

                candidates = {}
                for backend in backends:
                    try:
                        candidates[backend] = using(backend)
                        candidates[backend]()
                    except RuntimeError:  # this GPU, or this torch, does not have it
                        candidates.pop(backend, None)
                times = median_seconds(*candidates.values(), repeats=5)
                best = min(zip(times, candidates.values(), strict=True), key=lambda p: p[0])[1]
                difference = relative_difference(ours(), best())
                assert difference < 3e-2, (n, d, causal)
                rounds = [(seconds_of(ours), seconds_of(best)) for _ in range(11)]
                ratio, quartiles = compare(*zip(*rounds, strict=True), faster=True)
                ratios[f"n {n}, d {d}{', causal' if causal else ''}"] = round(ratio, 2)
                if worst is None or ratio < worst[0]:
                    worst = (ratio, quartiles, rounds, difference, ours)
    ratio, quartiles, rounds, difference, ours = worst
    contest.benchmark.pedantic(ours)
    contest.value(
        f"flash_attention-{kind}",
        ratio,
        quartiles,
        ours=statistics.median(row[0] for row in rounds),
        theirs=statistics.median(row[1] for row in rounds),
        unit="s",
        rounds=len(rounds),
        difference=difference,
        tolerance=3e-2,
        note="; ".join(f"{where}: {found}" for where, found in ratios.items()),
    )
