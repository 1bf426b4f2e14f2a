"""lib.activations held to its contract.

Φ in decimal arithmetic (`normal_cdf`) says what is right, also where float64 has lost it; torch's
functions are the second opinion.
"""

import copy
import doctest
import math
from decimal import Decimal, getcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import activations
from lib.activations import GELU, ReLU, Swish, gelu, relu, swish

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
)
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])


def gelu_tanh(x):
    return gelu(x, approximate="tanh")


FUNCTIONS = {
    "relu": (relu, F.relu),
    "gelu": (gelu, F.gelu),
    "gelu_tanh": (gelu_tanh, lambda x: F.gelu(x, approximate="tanh")),
    "swish": (swish, F.silu),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def grid(limit, n=100_003, dtype=torch.float64):
    return torch.linspace(-limit, limit, n, dtype=torch.float64).to(dtype)


def assert_close(got, want, *, atol=1e-15, rtol=0.0):
    torch.testing.assert_close(got, want, atol=atol, rtol=rtol)


def derivative(function, x, order=1):
    x = x.detach().clone().requires_grad_()
    y = function(x)
    for _ in range(order):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.detach()


def normal_cdf(x):
    """Φ(x) in 60 digits: a series near 0, Laplace's continued fraction for erfc further out."""
    getcontext().prec = 60
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
    x = Decimal(x)
    z = abs(x) / Decimal(2).sqrt()
    if z < 2:
        term, total, n = z, z, 0
        while abs(term) > Decimal(10) ** -58:
            n += 1
            term *= -z * z / n
            total += term / (2 * n + 1)
        upper = 1 - 2 * total / pi.sqrt()
    else:
        fraction = z
        for k in range(400, 0, -1):
            fraction = z + Decimal(k) / 2 / fraction
        upper = (-z * z).exp() / fraction / pi.sqrt()  # erfc(z)
    return upper / 2 if x < 0 else 1 - upper / 2


def test_the_reference_itself():
    """Both branches, against digits from tables."""
    assert abs(normal_cdf(1.0) - Decimal("0.841344746068542948585232545632")) < Decimal("1e-29")
    assert abs(normal_cdf(-1.0) - Decimal("0.158655253931457051414767454368")) < Decimal("1e-29")
    assert abs(normal_cdf(-5.0) - Decimal("2.86651571879193911673752333e-7")) < Decimal("1e-32")


# ---------------------------------------------------------------- closed forms


@every_function
def test_zero_stays_zero(name):
    assert FUNCTIONS[name][0](torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_values_by_hand():
    x = torch.tensor([-3.0, -1.0, -0.5, 0.25, 1.0, 2.0], dtype=torch.float64)
    values = x.tolist()
    assert relu(x).tolist() == [0.0, 0.0, 0.0, 0.25, 1.0, 2.0]
    assert_close(gelu(x).tolist(), [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in values])
    root = math.sqrt(2 / math.pi)
    want = [0.5 * v * (1 + math.tanh(root * (v + 0.044715 * v**3))) for v in values]
    assert_close(gelu(x, "tanh").tolist(), want)
    assert_close(swish(x).tolist(), [v / (1 + math.exp(-v)) for v in values])
    assert_close(swish(x, 1.7).tolist(), [v / (1 + math.exp(-1.7 * v)) for v in values])


@every_function
@pytest.mark.parametrize("limit", [1, 7.9, 50], ids=str)
def test_equals_torch(name, limit):
    """To 1e-15, or to two units in the last place where one is more: beyond |x| = 4."""
    ours, theirs = FUNCTIONS[name]
    x = grid(limit)
    rtol = 0.0 if name.startswith(("relu", "gelu")) and limit < 8 else 2 * 2.0**-52
    assert_close(ours(x), theirs(x), rtol=rtol)


@every_function
def test_gradients_equal_torch(name):
    ours, theirs = FUNCTIONS[name]
    x = grid(20)
    assert_close(derivative(ours, x), derivative(theirs, x), atol=1e-14)
    if name != "relu":  # which is straight
        assert_close(derivative(ours, x, 2), derivative(theirs, x, 2), atol=1e-13)


def test_gelu_keeps_its_digits_in_the_tail():
    """1 + erf cancels: for x < 0 it has lost eight digits at −5.6 and all of them at −8.3."""
    x = torch.cat([-torch.logspace(-6, math.log10(37), 61).double(), grid(6, 31)])
    for v, got in zip(x.tolist(), gelu(x).tolist(), strict=True):
        want = Decimal(v) * normal_cdf(v)
        # Rounding x/√2 alone moves the tail by x² times that rounding.
        allowed = (4 + v * v) * 2.0**-52
        assert abs(Decimal(got) - want) <= Decimal(allowed) * abs(want)
    assert gelu(torch.tensor(-8.5).double()) < 0
    cancelled = 0.5 * (1 + torch.erf(torch.tensor(-8.5 / math.sqrt(2)).double()))
    assert cancelled == 0.0


def test_derivatives_by_formula():
    x = grid(9, 997)
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    cdf = torch.tensor([float(normal_cdf(v)) for v in x.tolist()], dtype=torch.float64)
    assert_close(derivative(gelu, x), cdf + x * density)
    assert_close(derivative(gelu, x, 2), (2 - x * x) * density)
    for beta in (0.3, 1.0, 4.0):
        f, gate = swish(x, beta), torch.sigmoid(beta * x)
        want = beta * f + gate * (1 - beta * f)
        assert_close(derivative(lambda x, beta=beta: swish(x, beta), x), want, atol=3e-15)


def test_gelu_is_the_mean_of_a_random_gate():
    """m ~ Bernoulli(Φ(x)), E[m x] = x Φ(x), within five standard errors."""
    generator = torch.Generator().manual_seed(0)
    n = 200_000
    for x in (-1.5, -0.3, 0.7, 2.0):
        gate = torch.randn(n, generator=generator, dtype=torch.float64) <= x
        p = float(normal_cdf(x))
        mean = x * gate.double().mean().item()
        assert abs(mean - gelu(torch.tensor(x).double()).item()) <= 5 * abs(x) * math.sqrt(
            p * (1 - p) / n
        )


def lowest(function):
    x = torch.linspace(-3, 0, 300_001, dtype=torch.float64)
    value, where = function(x).min(0)
    return value.item(), x[where].item()


def test_minima():
    value, where = lowest(gelu)
    assert abs(value + 0.169971) < 1e-6 and abs(where + 0.75179) < 2e-5
    value, where = lowest(swish)
    assert abs(value + 0.278465) < 1e-6 and abs(where + 1.278465) < 2e-5


def farthest(function, other):
    x = torch.linspace(0, 8, 800_001, dtype=torch.float64)
    gap, where = (function(x) - other(x)).abs().max(0)
    return gap.item(), x[where].item()


def test_broken_one_gelu_for_another():
    """D26: how far the approximations are from Φ, and where."""
    gap, where = farthest(gelu_tanh, gelu)
    assert abs(gap - 4.73e-4) < 1e-6 and abs(where - 2.699) < 1e-3
    gap, where = farthest(lambda x: swish(x, 1.702), gelu)
    assert abs(gap - 2.03e-2) < 1e-4 and abs(where - 2.270) < 1e-3
    gap, _ = farthest(swish, gelu)
    assert abs(gap - 0.193) < 1e-3
    taylor = (4 - math.pi) / (
        6 * math.pi
    )  # .04554 matches the third derivative at 0, and fits worse
    root = math.sqrt(2 / math.pi)
    gap, _ = farthest(lambda x: x * (1 + torch.tanh(root * (x + taylor * x**3))) / 2, gelu)
    assert gap > 5e-4


def test_swish_between_a_line_and_relu():
    x = grid(30)
    assert torch.equal(swish(x, 0.0), x / 2)
    for beta in (1.0, 5.0, 50.0, 1e4):
        gap = (swish(x, beta) - relu(x)).abs().max().item()
        assert gap <= 0.27847 / beta + 1e-15
    gap, _ = farthest(lambda x: swish(x, 50.0), relu)
    assert abs(gap - 0.00557) < 1e-5
    assert_close(swish(x, 1e300), relu(x))


# ---------------------------------------------------------------- properties

numbers = st.floats(-1e6, 1e6)
property_test = settings(deadline=None, max_examples=60)


def one(x):
    return torch.tensor(x, dtype=torch.float64)


@property_test
@given(numbers)
def test_the_two_sides_differ_by_x(x):
    """Φ(x) + Φ(−x) = 1 and σ(x) + σ(−x) = 1, so f(x) − f(−x) = x: for every gate of this kind."""
    for ours, _ in FUNCTIONS.values():
        assert_close(ours(one(x)) - ours(one(-x)), one(x), rtol=4e-16)


@property_test
@given(numbers)
def test_between_relu_and_a_little_less(x):
    for function, depth in ((gelu, 0.1700), (gelu_tanh, 0.1701), (swish, 0.2785)):
        gap = relu(one(x)) - function(one(x))
        assert -1e-15 * max(1, abs(x)) <= gap <= depth


@property_test
@given(st.floats(-20, 20), st.floats(0.01, 20))
def test_beta_is_a_scale(x, beta):
    assert_close(swish(one(x), beta), swish(one(beta * x)) / beta, rtol=1e-14)


@property_test
@given(st.lists(st.floats(-8, 8), min_size=1, max_size=5), st.integers(0, 4))
def test_element_by_element(values, i):
    i = i % len(values)
    changed = [*values[:i], values[i] + 1, *values[i + 1 :]]
    for ours, _ in FUNCTIONS.values():
        before, after = ours(one(values)), ours(one(changed))
        same = [j for j in range(len(values)) if j != i]
        assert torch.equal(before[same], after[same])


# ---------------------------------------------------------------- numbers of every size


@every_function
@every_dtype
@on_every_device
def test_finite_wherever_the_input_is(name, dtype, device):
    largest = torch.finfo(dtype).max
    sizes = [0.0, torch.finfo(dtype).tiny, 1e-3, 1.0, 9.0, 40.0, 99.0, 101.0, 1e4, largest]
    x = torch.tensor(sizes + [-s for s in sizes], dtype=torch.float64).to(device, dtype)
    y = FUNCTIONS[name][0](x)
    assert y.dtype == dtype and y.device == x.device
    assert y.isfinite().all()
    assert derivative(FUNCTIONS[name][0], x).isfinite().all()
    if name != "relu":  # which is straight
        within = x[x.abs() <= 1e4]
        assert derivative(FUNCTIONS[name][0], within, 2).isfinite().all()
    far = x.double().abs() >= 1e4
    want = x.double().clamp(min=0)[far]
    assert torch.equal(y.double()[far], want)
    assert torch.equal(derivative(FUNCTIONS[name][0], x)[far].double(), (want > 0).double())


@every_dtype
def test_swish_is_finite_for_every_beta(dtype):
    x = torch.tensor([-1e4, -3.0, 0.0, 3.0, 1e4], dtype=dtype)
    for beta in (-3.0, 0.0, 1e-3, 1.0, 50.0, 1e4):
        trained = torch.tensor(beta, dtype=torch.float32, requires_grad=True)
        leaf = x.clone().requires_grad_()
        y = swish(leaf, trained)
        grads = torch.autograd.grad(y.float().sum(), (leaf, trained))
        assert all(v.isfinite().all() for v in (y, swish(x, beta), *grads))
        rtol = torch.finfo(dtype).eps + 1e-6 * (abs(beta) == 1e-3)  # 1e-3 is rounded to float32
        assert_close(y, swish(x, beta), rtol=rtol)


@every_function
def test_nan_is_not_hidden(name):
    x = torch.tensor([1.0, math.nan, -1.0])
    assert FUNCTIONS[name][0](x).isnan().tolist() == [False, True, False]


@every_function
def test_infinity(name):
    y = FUNCTIONS[name][0](torch.tensor([math.inf, -math.inf]).double())
    assert y[0] == math.inf
    assert y[1] == 0.0 if name == "relu" else y[1].isnan()


def test_relu_at_its_corner():
    x = torch.tensor([-1.0, -0.0, 0.0, 1.0])
    assert derivative(relu, x).tolist() == [0.0, 0.0, 0.0, 1.0]
    assert derivative(F.relu, x).tolist() == [0.0, 0.0, 0.0, 1.0]


@every_function
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_other_dtypes_are_rounded_once(name, dtype):
    """Half a unit in the last place, and what float32 lost before."""
    ours, _ = FUNCTIONS[name]
    x = grid(12, 20_001, dtype)
    eps = torch.finfo(dtype).eps
    # float32 itself forms x/√2 or tanh before the end; its tail beyond −5 is absolute, below 1e-6.
    rtol, atol = (32 * eps, 1e-6) if dtype == torch.float32 else (0.51 * eps, 1e-6)
    assert_close(ours(x).double(), ours(x.double()), rtol=rtol, atol=atol)
    grads = derivative(ours, x).double()
    assert_close(grads, derivative(ours, x.double()), rtol=rtol, atol=2e-6)


# ---------------------------------------------------------------- derivatives


@every_function
def test_first_and_second_derivatives(name):
    x = torch.tensor([-9.0, -2.0, -0.1, 0.3, 1.7, 8.0], dtype=torch.float64, requires_grad=True)
    if name != "relu":  # which has no slope at 0
        x = torch.cat([x.detach(), torch.zeros(1).double()]).requires_grad_()
    assert torch.autograd.gradcheck(FUNCTIONS[name][0], x)
    assert torch.autograd.gradgradcheck(FUNCTIONS[name][0], x)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1), (3, 5)], ids=str)
def test_a_trained_beta(shape):
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    beta = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(swish, (x, beta))
    assert torch.autograd.gradgradcheck(swish, (x, beta))
    (grad,) = torch.autograd.grad(swish(x, beta).sum(), beta)
    gate = torch.sigmoid(beta * x)
    want = (x * x * gate * (1 - gate)).sum_to_size(shape)
    assert_close(grad, want.detach(), atol=1e-14)


# ---------------------------------------------------------------- shapes, transforms, modules


@every_function
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (2, 3, 5, 7)], ids=str)
def test_any_shape(name, shape):
    ours, theirs = FUNCTIONS[name]
    x = torch.randn(shape, dtype=torch.float64)
    assert ours(x).shape == shape
    assert_close(ours(x), theirs(x))
    if x.ndim > 1:
        assert torch.equal(ours(x.mT), ours(x).mT)


@every_function
def test_input_is_not_changed(name):
    x = torch.tensor([-1.0, 0.0, 2.0])
    FUNCTIONS[name][0](x)
    assert x.tolist() == [-1.0, 0.0, 2.0]


@every_function
@on_every_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_keeps_the_dtype(name, device, dtype):
    x = grid(5, 11, torch.float32).to(device)
    with torch.autocast(device, dtype=dtype):
        assert torch.equal(FUNCTIONS[name][0](x), FUNCTIONS[name][0](x))
        assert FUNCTIONS[name][0](x).dtype == torch.float32
        assert FUNCTIONS[name][0](x.to(dtype)).dtype == dtype


@every_function
def test_vmap_and_meta(name):
    ours, _ = FUNCTIONS[name]
    x = torch.randn(3, 5, dtype=torch.float64)
    assert_close(torch.vmap(ours)(x), ours(x))
    slopes = torch.vmap(torch.func.grad(ours))(x[0])
    assert_close(slopes, derivative(ours, x[0]))
    assert ours(x.to("meta")).shape == (3, 5)


@every_function
def test_compile_in_one_graph(name):
    torch._dynamo.reset()
    compiled = torch.compile(FUNCTIONS[name][0], fullgraph=True, backend="eager")
    x = grid(9, 101).requires_grad_()
    assert torch.equal(compiled(x), FUNCTIONS[name][0](x))
    assert torch.equal(derivative(compiled, x), derivative(FUNCTIONS[name][0], x))
    torch._dynamo.reset()


def test_compile_modules():
    torch._dynamo.reset()
    x = grid(9, 101, torch.float32)
    for module in (ReLU(), GELU(), GELU("tanh"), Swish(1.7), Swish(1.7, trainable=True)):
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x), module(x))
    torch._dynamo.reset()


MODULES = [
    (ReLU(), relu),
    (GELU(), gelu),
    (GELU("tanh"), gelu_tanh),
    (GELU(approximate="tanh"), gelu_tanh),
    (Swish(), swish),
    (Swish(1.7), lambda x: swish(x, 1.7)),
    (Swish(1, trainable=True), swish),
    (Swish(1.7, trainable=True), lambda x: swish(x, torch.tensor(1.7))),
]


def _name(value):
    """A module by what it is; its function by place, since a lambda's repr is its address."""
    return repr(value) if isinstance(value, torch.nn.Module) else ""


every_module = pytest.mark.parametrize("module, function", MODULES, ids=_name)


@every_module
@every_dtype
@on_every_device
def test_modules_equal_their_functions(module, function, dtype, device):
    x, module = grid(12, 10_001, dtype).to(device), copy.deepcopy(module).to(device)
    got, want = module(x), function(x)
    assert got.dtype == dtype
    eps = torch.finfo(dtype).eps
    fine = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    assert_close(got, want, atol=(4 if dtype == torch.float64 else 16) * fine, rtol=2 * eps)
    # In the tanh form 1 − tanh² cancels in both; in half precision torch's silu rounds on the way.
    atol = max(32 * fine, eps / 2 if dtype in DTYPES[2:] else 0.0)
    assert_close(derivative(module, x), derivative(function, x), atol=atol, rtol=2 * eps)
    far = torch.tensor([-1e4, 0.0, 1e4], dtype=dtype, device=device)
    assert torch.equal(module(far), relu(far))
    assert derivative(module, far).isfinite().all()


@pytest.mark.parametrize("module, function", MODULES[:6], ids=_name)
def test_modules_have_second_derivatives(module, function):
    x = grid(5, 7).requires_grad_()  # without 0 for relu: torch takes 0 as its slope
    x = x.detach() + 0.1
    x.requires_grad_()
    assert torch.autograd.gradcheck(module, x)
    assert torch.autograd.gradgradcheck(module, x)


def test_modules_have_no_state():
    stateless = [ReLU(), GELU(), GELU("tanh"), Swish(3.0)]
    assert not any(module.state_dict() for module in stateless)
    assert [repr(m) for m in stateless] == [
        "ReLU()",
        "GELU(approximate='none')",
        "GELU(approximate='tanh')",
        "Swish(beta=3.0)",
    ]
    assert repr(Swish(trainable=True)) == "Swish(beta trained)"


@pytest.mark.parametrize("module", [ReLU(), GELU(), GELU("tanh"), Swish(), Swish(2.0)], ids=repr)
def test_modules_refuse_what_their_functions_refuse(module):
    with pytest.raises(ValueError, match=r"^x: expected float64, .*, got torch.int64$"):
        module(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"^x: expected a torch.Tensor, got float$"):
        module(1.0)


def test_a_trained_beta_in_a_module():
    module = Swish(2, trainable=True)
    assert list(module.state_dict()) == ["beta"] and module.beta.shape == ()
    module(torch.tensor([1.0, -2.0])).sum().backward()
    assert module.beta.grad != 0
    half = Swish(2, trainable=True).to(torch.bfloat16)
    assert half(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_trained_beta_that_begins_at_one():
    """Where a fixed β goes through torch's kernel, which has no β to train."""
    module = Swish(trainable=True)
    module(torch.tensor([1.0, -2.0])).sum().backward()
    assert module.beta.grad is not None and module.beta.grad != 0


def test_examples_in_docstrings():
    result = doctest.testmod(activations)
    assert result.attempted > 3 and result.failed == 0


def test_every_public_name_has_a_contract():
    for name in activations.__all__:
        assert getattr(activations, name).__doc__.strip()


# ---------------------------------------------------------------- bad inputs

BAD_DTYPES = [torch.int64, torch.bool, torch.complex64, torch.uint8]


@every_function
def test_bad_inputs(name):
    function, _ = FUNCTIONS[name]
    for dtype in BAD_DTYPES:
        with pytest.raises(ValueError) as caught:
            function(torch.zeros(3, dtype=dtype))
        assert str(caught.value) == (
            f"x: expected float64, float32, bfloat16 or float16, got {dtype}"
        )
    with pytest.raises(TypeError, match=r"^x: expected a torch.Tensor, got float$"):
        function(1.0)


@pytest.mark.parametrize("approximate", ["erf", "Tanh", "", None, True])
def test_bad_approximate(approximate):
    message = f"approximate: expected 'none' or 'tanh', got {approximate!r}"
    for call in (lambda: gelu(torch.zeros(3), approximate), lambda: GELU(approximate)):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize("beta", [math.inf, -math.inf, math.nan, "1", None])
def test_bad_beta(beta):
    message = f"beta: expected a finite number (the limit is relu), got {beta!r}"
    for call in (
        lambda: swish(torch.zeros(3), beta),
        lambda: Swish(beta),
        lambda: Swish(beta, trainable=True),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "beta, message",
    [
        (torch.ones(3), "beta: expected a shape that broadcasts to (2, 5), got (3,)"),
        (torch.ones(2), "beta: expected a shape that broadcasts to (2, 5), got (2,)"),
        (torch.ones(1, 2, 5), "beta: expected a shape that broadcasts to (2, 5), got (1, 2, 5)"),
        (
            torch.ones(5, dtype=torch.int64),
            "beta: expected float64, float32, bfloat16 or float16, got torch.int64",
        ),
    ],
)
def test_bad_beta_tensors(beta, message):
    with pytest.raises(ValueError) as caught:
        swish(torch.zeros(2, 5), beta)
    assert str(caught.value) == message
