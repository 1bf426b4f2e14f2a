"""lib.flash_attention held to its contract, in Triton's interpreter or on CUDA.

conftest.py sets TRITON_INTERPRET=1 on a machine without a GPU, before anything is imported: there a
kernel's tiles are 32 × 16 (Triton multiplies no fewer than 16 rows), so a few dozen queries meet
several. The oracle is the formula in float64, whose own tests are those of lib.attention.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib.attention import causal_mask, scaled_dot_product_attention
from lib.flash_attention import flash_attention

ROOT = Path(__file__).parent.parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = [(37, 53), (39, 53), (53, 37), (1, 19), (19, 1), (65, 65), (64, 32)]
FORWARD, BACKWARD = 2e-6, 4e-6  # relative to the size of a result, in float32


def make(leading=(1,), n_q=37, n_k=53, d=16, dtype=torch.float32, seed=0):
    """Q, K, V and a gradient of the output; values are those of the dtype."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n_q, d), (n_k, d), (n_k, d), (n_q, d)]
    return [
        torch.randn(*leading, *shape, generator=generator).to(dtype).to(DEVICE) for shape in shapes
    ]


def run(attend, query, key, value, gradient) -> list[Tensor]:
    """The output and the three gradients."""
    x = [y.detach().requires_grad_() for y in (query, key, value)]
    output = attend(*x)
    return [output.detach(), *torch.autograd.grad(output, x, gradient.to(output.dtype))]


def formula(causal):
    def attend(query, key, value):
        mask = causal_mask(query.shape[-2], key.shape[-2], device=key.device) if causal else None
        return scaled_dot_product_attention(query, key, value, mask)

    return attend


def exact(causal, *x):
    return run(formula(causal), *(y.double() for y in x))


def flash(causal):
    return lambda query, key, value: flash_attention(query, key, value, causal=causal)


def assert_near(got, want, forward=FORWARD, backward=BACKWARD):
    """Every result near the exact one, relative to the largest entry of it, or to 1."""
    names, limits = ("output", "dQ", "dK", "dV"), (forward, *[backward] * 3)
    for name, a, b, limit in zip(names, got, want, limits, strict=True):
        assert a.shape == b.shape
        error = ((a.double() - b).abs().max() / b.abs().max().clamp(min=1)).item()
        assert error < limit, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS)
def test_equals_the_formula(n_q, n_k, causal):
    x = make((), n_q, n_k)
    assert_near(run(flash(causal), *x), exact(causal, *x))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("d", [1, 20, 32, 40, 64, 128])
def test_any_width_up_to_128(d, causal):
    x = make((), 35, 41, d)
    assert_near(run(flash(causal), *x), exact(causal, *x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_in_sixteen_bits(dtype, causal):
    x = make((2,), 37, 53, 64, dtype)
    got = run(flash(causal), *x)
    assert [y.dtype for y in got] == [dtype] * 4
    unit = torch.finfo(dtype).eps
    assert_near(got, exact(causal, *x), forward=unit, backward=2 * unit)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 1, 3), (0, 2)])
def test_any_leading_dimensions(leading):
    x = make(leading, 17, 23)
    got, want = run(flash(True), *x), exact(True, *x)
    if 0 in leading:
        assert [y.shape for y in got] == [y.shape for y in want]
    else:
        assert_near(got, want)


def test_any_strides():
    def strided(y):
        return y.transpose(1, 2).contiguous().transpose(1, 2)[..., :16]

    query, key, value, gradient = (strided(y) for y in make((2, 3), 17, 23, 20))
    assert not query.is_contiguous()
    x = query, key, value, gradient
    assert_near(run(flash(True), *x), exact(True, *x))
    one = gradient[..., :1, :1].expand_as(gradient)  # what sum() sends back: strides of zero
    x = query, key, value, one
    assert_near(run(flash(True), *x), exact(True, *x))
    x = [y.mT.contiguous().mT for y in make((), 17, 23)]  # a feature's values side by side
    assert_near(run(flash(True), *x), exact(True, *x))


def test_scores_in_the_thousands_do_not_overflow():
    query, key, value, gradient = make((), 37, 53)
    x = 100 * query, 30 * key, value, gradient
    got = run(flash(False), *x)
    assert_near(got, exact(False, *x), forward=1e-3, backward=0.1)
    assert torch.isfinite(torch.cat([y.flatten() for y in got])).all()


def test_scores_far_below_zero_are_told_from_padding():
    query, key, value, gradient = make((), 33, 53)
    query, key = query.abs() + 3, -key.abs() - 3  # all scores below −30: padding's 0 would win
    x = query, key, value, gradient
    assert_near(run(flash(False), *x), exact(False, *x), 1e-5, 2e-5)


def test_a_query_that_sees_nothing_gets_zeros():
    query, key, value, gradient = make((), 53, 5)
    output, dq, dk, dv = run(flash(True), query, key, value, gradient)
    assert output[:48].abs().max() == 0 and dq[:48].abs().max() == 0
    assert output[48:].abs().amax(-1).min() > 0
    *_, dk_late, dv_late = run(flash(True), query[48:], key, value, gradient[48:])
    torch.testing.assert_close(dk, dk_late, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(dv, dv_late, atol=1e-6, rtol=1e-5)


def test_the_future_is_hidden_and_the_past_is_not():
    query, key, value, _ = make((), 37, 53)
    before = flash_attention(query, key, value, causal=True)
    for changed in (19, 47):  # key 19 is seen from query 3 on, key 47 from query 31 on
        moved = [y.clone() for y in (key, value)]
        for y in moved:
            y[changed] += 5
        change = (flash_attention(query, *moved, causal=True) - before).abs().amax(-1)
        first = changed - (53 - 37)
        assert change[:first].max() == 0
        assert change[first:].min() > 1e-4


def test_heads_do_not_meet():
    x = make((2, 3), 17, 23)
    before = run(flash(False), *x)
    moved = [y.clone() for y in x]
    for y in moved:
        y[1, 1] += 1
    after = run(flash(False), *moved)
    for a, b in zip(before, after, strict=True):
        change = (a - b).abs().amax((-1, -2))
        assert change[1, 1] > 1e-3
        change[1, 1] = 0
        assert change.max() == 0


def test_one_gradient_alone():
    query, key, value, gradient = make((), 17, 23)
    key.requires_grad_()
    (dk,) = torch.autograd.grad(flash_attention(query, key, value), key, gradient)
    want = exact(False, query, key.detach(), value, gradient)[2]
    torch.testing.assert_close(dk.double(), want, atol=1e-5, rtol=1e-5)


def test_there_is_no_second_derivative():
    query, key, value, _ = make((), 5, 7)
    query.requires_grad_()
    loss = flash_attention(query, key, value).square().sum()
    (dq,) = torch.autograd.grad(loss, query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dq.sum().backward()


def test_inputs_are_left_alone():
    x = make((), 17, 23)
    kept = [y.clone() for y in x]
    run(flash(True), *x)
    assert all(torch.equal(a, b) for a, b in zip(x, kept, strict=True))


def test_nothing_of_size_n_squared_is_kept():
    query, key, value, _ = (y.requires_grad_() for y in make((3,), 61, 53, 32))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda y: kept.append(y) or y, lambda y: y):
        flash_attention(query, key, value)
    numbers = sum({y.data_ptr(): y.numel() for y in kept}.values())
    assert numbers == 3 * (2 * 61 * 32 + 2 * 53 * 32 + 61)


def test_under_autocast_it_has_autocasts_dtype():
    query, key, value, _ = make((), 17, 23)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        got = flash_attention(query, key.bfloat16(), value)
    assert got.dtype == torch.bfloat16
    want = formula(False)(*(y.bfloat16().double() for y in (query, key, value)))
    assert (got.double() - want).abs().max() < 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": torch.float64}, "≤ 32 bits, d_k = d_v ≤ 128, got torch.float64, 16, 16"),
        ({"d": 129}, "d_k = d_v ≤ 128, got torch.float32, 129, 129"),
    ],
)
def test_what_it_refuses(changes, message):
    query, key, value, _ = make((), **changes)
    with pytest.raises(ValueError, match=message):
        flash_attention(query, key, value)


def test_it_refuses_what_attention_refuses():
    query, key, value, _ = make((), 5, 7)
    with pytest.raises(ValueError, match=r"d_k = d_v ≤ 128, got torch.float32, 16, 15"):
        flash_attention(query, key, value[:, :15])
    with pytest.raises(ValueError, match=r"key: expected query's d_k = 16, got 15"):
        flash_attention(query, key[:, :15], value)
    with pytest.raises(TypeError, match=r"query: expected a torch\.Tensor"):
        flash_attention(None, key, value)


def elsewhere(code: str, **environment: str):
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        text=True,
        capture_output=True,
    )


CALL = """
import torch
from lib.flash_attention import flash_attention
x = torch.ones(3, 4)
print(flash_attention(x, x, x).sum().item())
"""
WITHOUT_TRITON = f"import sys\nsys.modules['triton'] = None\n{CALL}"


@pytest.mark.parametrize(
    ("code", "got"),
    [(CALL, "cpu with the package triton"), (WITHOUT_TRITON, "cpu without the package triton")],
)
def test_where_it_cannot_run_it_says_so_when_called(code, got):
    result = elsewhere(code)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        f"ValueError: query: expected CUDA and triton, or TRITON_INTERPRET=1, got {got}"
    )


def test_the_interpreter_works_where_triton_was_imported_before_it_was_asked_for():
    code = f"import os, triton\nos.environ['TRITON_INTERPRET'] = '1'\n{CALL}"
    result = elsewhere(code)
    assert result.stdout.strip() == "12.0", result.stderr


def test_the_module_is_short():
    lines = (ROOT / "lib/flash_attention.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
