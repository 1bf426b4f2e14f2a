"""Flash attention: `lib.attention`'s formula in tiles, forward and backward, as Triton kernels."""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from lib.attention import _validate

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr
except ImportError:  # flash_attention says so when it is called
    triton = None
_INTERPRETED = triton is not None and triton.knobs.runtime.interpret  # TRITON_INTERPRET=1
_GPU_TILES = [(128, 128, 8, 2), (128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 3), (64, 32, 4, 3)]
_TILES, _ALL = [(32, 16, 1, 1)] if _INTERPRETED else _GPU_TILES, 1 << 30  # shift: all keys seen
_jit = triton.jit if triton else lambda function: function
# fmt: off

def _kernel(function):
    """Compile. A GPU times the tiles (B, C, warps, stages), once for each SIZE, and keeps one."""
    tiles = triton and [triton.Config({"B": b, "C": c}, w, s) for b, c, w, s in _TILES]
    return triton.autotune(tiles, key=["D", "SIZE"])(_jit(function)) if triton else function

@_jit
def _at(x, base, start, n, B: constexpr, D: constexpr):
    """Where rows start to start + B lie in memory, (B, D), and which are there at all, (B, 1)."""
    row, column = tl.arange(0, B)[:, None], tl.arange(0, D)[None, :]
    return x + (base + start) * D + (row * D + column), start + row < n

@_jit
def _load(x, base, start, n, B: constexpr, D: constexpr, MASKED: constexpr = True):
    at, there = _at(x, base, start, n, B, D)
    return tl.load(at, mask=there, other=0.0) if MASKED else tl.load(at)

@_jit
def _scores(x, y, a, b, n_k, shift, MASKED: constexpr, KEYS: constexpr):
    """x·y of queries from a on and keys from b on, −∞ where none may look; KEYS: reversed."""
    s = tl.dot(x, tl.trans(y), input_precision="ieee")  # in float32, not TensorFloat-32
    if MASKED:
        a, b = a + tl.arange(0, x.shape[0])[:, None], b + tl.arange(0, y.shape[0])[None, :]
        i, j = (b, a) if KEYS else (a, b)
        s = tl.where((j < n_k) & (j <= i + shift), s, float("-inf"))
    return s

@_kernel
def _forward(Q, K, V, OUT, L, n_q, n_k, shift, scale, SIZE: constexpr, D: constexpr,
             B: constexpr, C: constexpr):
    """B rows of the output, and the base-2 logarithms L of the sums of their softmax."""
    head, i = tl.program_id(1).to(tl.int64), tl.program_id(0) * B
    q, acc = _load(Q, head * n_q, i, n_q, B, D), tl.full((B, D), 0.0, tl.float32)
    m, total = tl.full((B, 1), float("-inf"), tl.float32), tl.full((B, 1), 0.0, tl.float32)
    full = tl.minimum(tl.maximum(i + shift + 1, 0), n_k) // C * C  # whole tiles that all see
    last = tl.minimum(tl.maximum(i + shift + B, 0), n_k)  # keys that the last query sees
    for MASKED in tl.static_range(2):
        for j in range(full if MASKED else 0, last if MASKED else full, C):
            k = _load(K, head * n_k, j, n_k, C, D, MASKED)
            v = _load(V, head * n_k, j, n_k, C, D, MASKED)
            s = scale * _scores(q, k, i, j, n_k, shift, MASKED, False)
            new = tl.maximum(m, tl.reduce(s, 1, tl.standard._elementwise_max, keep_dims=True))
            safe = tl.where(new == float("-inf"), 0.0, new)  # nothing seen: 2^(−∞ − 0) = 0
            p, old, m = tl.exp2(s - safe), tl.exp2(m - safe), new
            total = total * old + tl.reduce(p, 1, tl.standard._sum_combine, keep_dims=True)
            acc = acc * old + tl.dot(p.to(v.dtype), v, input_precision="ieee")
    m, total = tl.where(total == 0, 0.0, m), tl.where(total == 0, 1.0, total)  # not 0 / 0
    at, there = _at(OUT, head * n_q, i, n_q, B, D)
    tl.store(at, acc / total, mask=there)
    tl.store(_at(L, head * n_q, i, n_q, B, 1)[0], m + tl.log2(total), mask=there)

@_kernel
def _backward(X, Y, Z, W, L, E, dX, dY, n, other, shift, scale, KEYS: constexpr, SIZE: constexpr,
              D: constexpr, B: constexpr, C: constexpr):
    """B rows of dQ, from X = Q, Y = dO, Z = K, W = V. KEYS: of dK and dV, from K, V, Q, dO."""
    head, a = tl.program_id(1).to(tl.int64), tl.program_id(0) * B
    x, y = _load(X, head * n, a, n, B, D), _load(Y, head * n, a, n, B, D)
    dx, dy = tl.full((B, D), 0.0, tl.float32), tl.full((B, D), 0.0, tl.float32)
    if KEYS:  # queries: the first that sees a key; from where on all see all
        first, last = tl.maximum(a - shift, 0) // C * C, other
        middle = tl.minimum((tl.maximum(a + B - 1 - shift, 0) + C - 1) // C * C, other)
    else:
        first, last = 0, tl.minimum(tl.maximum(a + shift + B, 0), other)
        middle = tl.minimum(tl.maximum(a + shift + 1, 0), other) // C * C
    for part in tl.static_range(2):
        for b in range(middle if part else first, last if part else middle, C):
            z = _load(Z, head * other, b, other, C, D)
            w = _load(W, head * other, b, other, C, D)
            base, row, rows = (head * other, b, other) if KEYS else (head * n, a, n)
            lse = _load(L, base, row, rows, C if KEYS else B, 1)
            e = _load(E, base, row, rows, C if KEYS else B, 1)
            lse, e = (tl.trans(lse), tl.trans(e)) if KEYS else (lse, e)
            s = _scores(x, z, a, b, n if KEYS else other, shift, part != KEYS, KEYS)
            p = tl.exp2(scale * s - lse)  # the weights again
            ds = p * (tl.dot(y, tl.trans(w), input_precision="ieee") - e)
            dx += tl.dot(ds.to(z.dtype), z, input_precision="ieee")
            dy = dy + tl.dot(p.to(w.dtype), w, input_precision="ieee") if KEYS else dy
    at, there = _at(dX, head * n, a, n, B, D)
    tl.store(at, dx * (scale * 0.6931471805599453), mask=there)  # ln 2, as scale is log₂e / √d
    if KEYS:
        tl.store(_at(dY, head * n, a, n, B, D)[0], dy, mask=there)

def _launch(kernel, shift, scale, *x, **options):
    (heads, n, d), other = x[0].shape, x[2].shape[1]
    kind = 2 * (shift < _ALL) + options.get("KEYS", False)
    options |= {"D": d, "SIZE": 4 * max(n, other).bit_length() + kind}
    with torch.cuda.device_of(x[0]):
        kernel[lambda t: (triton.cdiv(n, t["B"]), heads)](*x, n, other, shift, scale, **options)

class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, *constants):
        output, lse = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
        _launch(_forward, *constants, q, k, v, output, lse)
        ctx.save_for_backward(q, k, v, output, lse)
        ctx.constants = constants
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (q, k, v, output, lse), g = ctx.saved_tensors, g.contiguous()
        e, dq, dk, dv = (g.float() * output.float()).sum(-1), *map(torch.empty_like, (q, k, v))
        _launch(_backward, *ctx.constants, q, g, k, v, lse, e, dq, None, KEYS=False)
        _launch(_backward, *ctx.constants, k, v, q, g, lse, e, dk, dv, KEYS=True)
        return dq, dk, dv, None, None

def flash_attention(query, key, value, *, causal=False):
    """Compute `lib.attention.fast_attention` without a mask, by kernels that can be read.

    Shapes (..., n, d), zeros and errors are those of `lib.attention`, but: float32, bfloat16 or
    float16; d_v = d_k ≤ 128; 65,535 heads at most. On CUDA, or for tests on any device with
    TRITON_INTERPRET=1 at the first import. Weights are rounded to the inputs' dtype before they
    meet the values, sums are float32. Memory is O(n d), for gradients too; these are first only.
    Source: Dao et al. 2022, arXiv:2205.14135, algorithms 1, 2, 4; Dao 2023, arXiv:2307.08691.
    Derived in chapter 20_flash_attention.
    """
    dtype, (n, d), d_v = _validate(query, key, value, None, 0.0), query.shape[-2:], value.shape[-1]
    if dtype == torch.float64 or d > 128 or d_v != d:
        raise ValueError(f"query: expected ≤ 32 bits, d_k = d_v ≤ 128, got {dtype}, {d}, {d_v}")
    if triton is None or not (query.is_cuda or _INTERPRETED):
        got = f"{query.device} with{'' if triton else 'out'} the package triton"
        raise ValueError(f"query: expected CUDA and triton, or TRITON_INTERPRET=1, got {got}")
    exact = torch.float32 if _INTERPRETED and dtype == torch.bfloat16 else dtype  # it errs
    full = max(16, 1 << (d - 1).bit_length()) - d
    x = (pad(x.to(exact), (0, full))[None].flatten(0, -3).contiguous() for x in (query, key, value))
    shift = key.shape[-2] - n if causal else _ALL
    output = _FlashAttention.apply(*x, shift, 1.4426950408889634 / d**0.5)  # log₂e / √d
    return output[..., :d].to(dtype).reshape(query.shape)
