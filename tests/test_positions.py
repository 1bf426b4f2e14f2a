"""lib.positions held to its contract.

Sines in 50 decimal digits (`exact_encoding`) say what is right at every distance.
"""

import copy
import doctest
import math
import pickle
from decimal import Decimal, getcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import positions
from lib.positions import LearnedEncoding, SinusoidalEncoding, sinusoidal_encoding

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
)
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_layout = pytest.mark.parametrize("layout", ["interleaved", "concatenated"])


def encode64(n, d_model, **options):
    return sinusoidal_encoding(n, d_model, dtype=torch.float64, **options)


def assert_close(got, want, *, atol=1e-13, rtol=0.0):
    torch.testing.assert_close(got, want, atol=atol, rtol=rtol)


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640629")


def exact_sin(x):
    """Taylor's series after taking off whole turns; 70 digits carry an angle of 10^6."""
    x %= 2 * PI
    term, total, n = x, x, 1
    while abs(term) > Decimal(10) ** -55:
        n += 2
        term *= -x * x / (n * (n - 1))
        total += term
    return total


def exact_encoding(position, feature, d_model, base=10000):
    getcontext().prec = 70
    pair = feature // 2
    exponent = Decimal(2 * pair) / Decimal(d_model)
    angle = position / (Decimal(base).ln() * exponent).exp()
    return exact_sin(angle if feature % 2 == 0 else angle + PI / 2)


def test_the_reference_itself():
    getcontext().prec = 70
    assert abs(exact_sin(PI / 6) - Decimal("0.5")) < Decimal("1e-50")
    assert abs(
        exact_sin(Decimal(100_000)) - Decimal("0.0357487979720165093164705006958")
    ) < Decimal("1e-30")
    assert float(exact_sin(Decimal(3))) == math.sin(3)


# ---------------------------------------------------------------- the formula


@pytest.mark.parametrize("base", [10000.0, 100, 1.5])
@pytest.mark.parametrize("n, d_model, start", [(7, 10, 0), (1, 2, 0), (5, 6, 3), (3, 14, 1000)])
def test_by_definition(n, d_model, start, base):
    got = encode64(n, d_model, base=base, start=start)
    assert got.shape == (n, d_model)
    for row in range(n):
        for i in range(d_model // 2):
            angle = (start + row) / base ** (2 * i / d_model)
            assert abs(got[row, 2 * i].item() - math.sin(angle)) < 1e-12
            assert abs(got[row, 2 * i + 1].item() - math.cos(angle)) < 1e-12


def test_position_zero():
    assert sinusoidal_encoding(1, 6).tolist() == [[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]]
    assert sinusoidal_encoding(1, 6, layout="concatenated").tolist() == [[0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("d_model", [2, 6, 10])
def test_the_layouts_are_the_same_columns(d_model):
    interleaved = encode64(7, d_model, start=3)
    concatenated = encode64(7, d_model, start=3, layout="concatenated")
    assert torch.equal(concatenated[:, : d_model // 2], interleaved[:, 0::2])
    assert torch.equal(concatenated[:, d_model // 2 :], interleaved[:, 1::2])


@every_layout
def test_start_is_a_shift(layout):
    whole = encode64(50, 10, layout=layout)
    for start in (0, 1, 17, 49):
        rest = 50 - start
        assert torch.equal(encode64(rest, 10, layout=layout, start=start), whole[start:])


@pytest.mark.parametrize("position", [0, 1, 17, 511, 99_999, 100_000, 1_000_000])
def test_exact_at_any_position(position):
    """float32: the nearest number there is. float64: off by the rounding of the angle."""
    d_model = 14
    fine = encode64(1, d_model, start=position)[0]
    coarse = sinusoidal_encoding(1, d_model, start=position)[0]
    assert coarse.dtype == torch.float32
    for feature in range(d_model):
        want = exact_encoding(position, feature, d_model)
        assert abs(Decimal(fine[feature].item()) - want) <= Decimal(1e-16 + 3e-16 * position)
        nearest = torch.tensor(float(want), dtype=torch.float32)
        assert (coarse[feature] - nearest).abs() <= 1e-9 + 2.0**-24 * 1.001 * abs(float(want))


def test_broken_an_angle_in_float32():
    """What float32 throughout would give at position 10^5: wrong in the third digit."""
    position = torch.tensor(100_000.0)
    wavelength = 10000.0 ** (torch.arange(0, 512, 2) / 512)
    naive = (position / wavelength).sin().double()
    exact = encode64(1, 512, start=100_000)[0, 0::2]
    good = sinusoidal_encoding(1, 512, start=100_000)[0, 0::2].double()
    assert (naive - exact).abs().max() > 1e-3
    assert (good - exact).abs().max() < 4e-8


@every_dtype
@every_layout
@on_every_device
def test_every_dtype_is_rounded_once_and_every_device_alike(dtype, layout, device):
    got = sinusoidal_encoding(11, 6, layout=layout, start=900, dtype=dtype, device=device)
    assert got.dtype == dtype and got.device.type == device and not got.requires_grad
    assert torch.equal(got.cpu(), encode64(11, 6, layout=layout, start=900).to(dtype))


def test_defaults_of_torch_are_respected():
    assert sinusoidal_encoding(3, 4).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(sinusoidal_encoding(3, 4), encode64(3, 4))
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert sinusoidal_encoding(3, 4).device.type == "meta"
        assert SinusoidalEncoding(4).table.device.type == "meta"
    assert sinusoidal_encoding(3, 4, device="meta").shape == (3, 4)


# ---------------------------------------------------------------- what the chapter derives


def rotation(offset, d_model):
    """The block diagonal matrix that turns pair i by offset · ω_i."""
    blocks = []
    for i in range(d_model // 2):
        angle = offset / 10000 ** (2 * i / d_model)
        cos, sin = math.cos(angle), math.sin(angle)
        blocks.append(torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64))
    return torch.block_diag(*blocks)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 8))
def test_a_shift_is_a_rotation(position, offset, pairs):
    """One matrix takes PE(p) to PE(p + k), whatever p: and it is orthogonal."""
    d_model = 2 * pairs
    turn = rotation(offset, d_model)
    before, after = (encode64(1, d_model, start=p)[0] for p in (position, position + offset))
    assert_close(turn @ before, after, atol=1e-12)
    assert_close(turn @ turn.T, torch.eye(d_model, dtype=torch.float64))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 1000))
def test_the_gram_matrix_knows_distances_only(n, pairs, start):
    """PE_i · PE_j = Σ cos((i − j) ω): Toeplitz, even, with ‖PE‖² = d/2 on its diagonal."""
    d_model = 2 * pairs
    encoding = encode64(n, d_model, start=start)
    gram = encoding @ encoding.T
    frequencies = 10000 ** -(torch.arange(pairs).double() / pairs)
    distance = torch.arange(n)[:, None] - torch.arange(n)
    want = torch.cos(distance[..., None] * frequencies).sum(-1)
    assert_close(gram, want, atol=1e-11)
    assert_close(gram.diagonal(), torch.full((n,), d_model / 2).double(), atol=1e-12)
    assert_close(gram, gram.T)  # blind to direction


def test_broken_one_number_for_a_position():
    """D01: one sine a position collides; the vector does not."""
    n = d_model = 512
    encoding = encode64(n, d_model)

    def closest(table):
        distance = torch.cdist(table, table, compute_mode="donot_use_mm_for_euclid_dist")
        rms = distance / math.sqrt(table.shape[1])
        return rms[~torch.eye(n, dtype=torch.bool)]

    scalar = closest(encoding[:, :1] + encoding[:, 2:3])
    assert (scalar < 0.01).sum() / 2 > 500
    vector = closest(encoding)
    assert (vector < 0.01).sum() == 0 and vector.min() > 0.1


def test_broken_growing_frequencies():
    """D04: with ω = base^(+2i/d) most pairs are above Nyquist, and float32 loses them."""
    growing = 10000 ** (torch.arange(0, 512, 2).double() / 512)
    assert (growing > math.pi).double().mean() > 0.85
    with pytest.raises(ValueError, match="base: expected a finite number above 1"):
        sinusoidal_encoding(3, 4, base=1e-4)  # which is what would make them grow


@pytest.mark.parametrize("d_model, base", [(512, 10000.0), (6, 100.0)])
def test_wavelengths(d_model, base):
    """From 2π, geometrically, to just below base · 2π; and no angle moves by more than 1."""
    encoding = encode64(2, d_model, base=base)
    frequency = torch.asin(encoding[1, 0::2].clamp(max=1))  # of a step of one, at most 1 radian
    assert abs(frequency[0] - 1) < 1e-12 and (frequency.diff() < 0).all()
    ratio = frequency[1:] / frequency[:-1]
    assert_close(ratio, torch.full_like(ratio, base ** (-2 / d_model)), atol=1e-12)
    assert frequency[-1] > 1 / base


# ---------------------------------------------------------------- the sinusoidal module


def tokens(*shape, dtype=torch.float64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


@every_layout
def test_adds_the_encoding(layout):
    module, x = SinusoidalEncoding(10, layout=layout, base=50.0).double(), tokens(2, 7, 10)
    want = x + encode64(7, 10, layout=layout, base=50.0)
    assert torch.equal(module(x), want)
    assert torch.equal(module(x[0]), want[0])
    assert module(x[None, None])[0, 0].equal(want)
    assert module(x[:0]).shape == (0, 7, 10)


def test_no_state_and_nothing_to_train():
    module = SinusoidalEncoding(10)
    assert module.state_dict() == {} and list(module.parameters()) == []
    module.load_state_dict({}, strict=True)
    x = tokens(2, 3, 10, dtype=torch.float32).requires_grad_()
    module(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x)) and not module.table.requires_grad


@pytest.mark.parametrize("make", [lambda: SinusoidalEncoding(10), lambda: LearnedEncoding(20, 10)])
def test_broken_an_addition_in_place(make):
    """D05: the input stays, so a second call gives the same."""
    module, x = make(), tokens(2, 7, 10, dtype=torch.float32)
    before = x.clone()
    first, second = module(x), module(x)
    assert torch.equal(x, before) and torch.equal(first, second)


@pytest.mark.parametrize("max_length", [1, 4, 7, 8, 1024])
@pytest.mark.parametrize("start", [0, 1, 3, 5000])
def test_the_table_bounds_nothing(max_length, start):
    x = tokens(2, 7, 10)
    module = SinusoidalEncoding(10, max_length).double()
    assert module.table.shape == (max_length, 10)
    assert torch.equal(module(x, start), x + encode64(7, 10, start=start))
    assert torch.equal(module(x, start=start), module(x, start))


def test_the_table_is_used_as_far_as_it_goes(monkeypatch):
    module, x = SinusoidalEncoding(10, 8), torch.zeros(1, 4, 10)
    monkeypatch.setattr(positions, "sinusoidal_encoding", None)
    for start in range(5):
        assert torch.equal(module(x, start)[0], module.table[start : start + 4])
    with pytest.raises(TypeError):
        module(x, 5)


def test_decoding_with_a_cache():
    """Token by token, or prompt and then token by token: the same as all at once."""
    module, x = SinusoidalEncoding(10, 5), tokens(2, 9, 10, dtype=torch.float32)
    whole = module(x)
    assert torch.equal(torch.cat([module(x[:, t : t + 1], t) for t in range(9)], 1), whole)
    assert torch.equal(torch.cat([module(x[:, :4]), module(x[:, 4:], start=4)], 1), whole)


@every_dtype
@on_every_device
def test_moving_computes_the_table_again(dtype, device):
    """A cast of the float32 table to float64 would be off by 3e-8, and by .004 from bfloat16."""
    for through in DTYPES:
        module = SinusoidalEncoding(10, 2000).to(through).to(device, dtype)
        assert module.table.dtype == dtype and module.table.device.type == device
        assert torch.equal(module.table.cpu(), encode64(2000, 10).to(dtype))
    assert not module.state_dict()  # it is not persistent after moving either


def test_from_the_meta_device():
    """Where torch would leave the buffer with whatever was in memory."""
    with torch.device("meta"):
        module = SinusoidalEncoding(10)
    module.to_empty(device="cpu")
    assert torch.equal(module.table, sinusoidal_encoding(1024, 10))
    assert module(torch.zeros(1, 3, 10, device="cpu")).isfinite().all()
    assert SinusoidalEncoding(10).to("meta")(torch.zeros(2, 3, 10, device="meta")).shape == (
        2,
        3,
        10,
    )


def test_a_module_inside_another_is_moved_too():
    outer = torch.nn.Sequential(SinusoidalEncoding(10, 50)).double()
    assert torch.equal(outer[0].table, encode64(50, 10))
    for twin in (copy.deepcopy(outer), pickle.loads(pickle.dumps(outer))):
        x = tokens(2, 7, 10)
        assert torch.equal(twin(x), outer(x))


@every_dtype
@on_every_device
@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_dtype_of_the_sum(dtype, device, kind):
    """The tokens' dtype, rounded once: also where the table is wider, as under autocast."""
    module = SinusoidalEncoding(10) if kind == "sinusoidal" else LearnedEncoding(20, 10)
    module.to(device)
    x = tokens(2, 7, 10, dtype=dtype, device=device)
    table = module.table if kind == "sinusoidal" else module.weight
    got = module(x)
    assert got.dtype == dtype
    assert torch.equal(got, (x.double() + table[:7].double()).to(dtype)) or dtype == torch.float32
    assert_close(
        got.double(), x.double() + table[:7].double(), atol=1e-7, rtol=0.51 * torch.finfo(dtype).eps
    )
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(module(x), got)


# ---------------------------------------------------------------- the learned module


def test_adds_its_rows():
    module, x = LearnedEncoding(11, 5).double(), tokens(2, 7, 5)
    for start in (0, 3, 4):
        assert torch.equal(module(x, start), x + module.weight[start : start + 7])
    assert torch.equal(module(x[0], start=4), module(x, 4)[0])


def test_only_the_rows_that_were_used_learn():
    module, x = LearnedEncoding(11, 5), tokens(2, 3, 5, dtype=torch.float32).requires_grad_()
    module(x, start=4).sum().backward()
    want = torch.zeros(11, 5)
    want[4:7] = 2.0  # once for each sample
    assert torch.equal(module.weight.grad, want)
    assert torch.equal(x.grad, torch.ones_like(x))


def test_named_as_in_an_embedding():
    module, embedding = LearnedEncoding(11, 5), torch.nn.Embedding(11, 5)
    module.load_state_dict(embedding.state_dict())
    assert torch.equal(module(torch.zeros(7, 5)), embedding(torch.arange(7)))
    assert list(LearnedEncoding(3, 2).state_dict()) == ["weight"]


def test_first_values():
    torch.manual_seed(0)
    module = LearnedEncoding(500, 40)
    assert abs(module.weight.std() - 0.02) < 5 * 0.02 / math.sqrt(2 * 20_000)
    assert abs(module.weight.mean()) < 5 * 0.02 / math.sqrt(20_000)
    assert abs(LearnedEncoding(500, 40, std=1.0).weight.std() - 1) < 0.03
    assert torch.equal(LearnedEncoding(3, 2, std=0).weight, torch.zeros(3, 2))
    torch.manual_seed(0)
    again = LearnedEncoding(500, 40)
    assert torch.equal(again.weight, module.weight)
    again.reset_parameters()
    assert not torch.equal(again.weight, module.weight)


@pytest.mark.parametrize("n, start", [(12, 0), (1, 11), (5, 7), (1, 10**9)])
def test_broken_past_the_table(n, start):
    """D33: a clear error, where an index would fail or wrap; the sinusoids go on."""
    with pytest.raises(ValueError) as caught:
        LearnedEncoding(11, 4)(torch.zeros(2, n, 4), start)
    assert str(caught.value) == (
        f"x: expected positions below max_length = 11, got {start} to {start + n - 1}"
    )
    if start < 100:
        assert SinusoidalEncoding(4, 11)(torch.zeros(2, n, 4), start).isfinite().all()


def test_ten_thousand_positions_are_distinct():
    encoding = sinusoidal_encoding(10_000, 64)
    assert len(torch.unique(encoding, dim=0)) == 10_000


# ---------------------------------------------------------------- both


@pytest.mark.parametrize("make", [lambda: SinusoidalEncoding(6), lambda: LearnedEncoding(20, 6)])
def test_derivatives(make):
    module, x = make().double(), tokens(2, 3, 6).requires_grad_()
    names, parameters = [], []
    for name, parameter in module.named_parameters():
        names.append(name)
        parameters.append(parameter)

    def function(x, *parameters):
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, state, (x, 2))

    assert torch.autograd.gradcheck(function, (x, *parameters))


@pytest.mark.parametrize("make", [lambda: SinusoidalEncoding(6), lambda: LearnedEncoding(20, 6)])
def test_nan_is_not_hidden(make):
    x = torch.zeros(2, 3, 6)
    x[0, 1, 2] = math.nan
    assert make()(x).isnan().sum() == 1


@pytest.mark.parametrize("make", [lambda: SinusoidalEncoding(6), lambda: LearnedEncoding(20, 6)])
def test_compile_in_one_graph(make):
    torch._dynamo.reset()
    module = make()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for n, start in [(3, 0), (5, 2), (4, 7), (1, 8), (1, 9), (1, 10)]:
        x = tokens(2, n, 6, dtype=torch.float32)
        assert torch.equal(compiled(x, start), module(x, start))
    torch._dynamo.reset()


def test_compile_past_the_table_and_the_function():
    torch._dynamo.reset()
    module = SinusoidalEncoding(6, 4)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    x = tokens(2, 7, 6, dtype=torch.float32)
    assert_close(compiled(x, 3), module(x, 3), atol=1e-7)
    function = torch.compile(lambda: sinusoidal_encoding(5, 6), fullgraph=True, backend="eager")
    assert_close(function(), sinusoidal_encoding(5, 6), atol=1e-7)
    torch._dynamo.reset()


def test_repr():
    assert repr(SinusoidalEncoding(6)) == (
        "SinusoidalEncoding(6, max_length=1024, base=10000.0, interleaved)"
    )
    assert repr(LearnedEncoding(20, 6)) == "LearnedEncoding(20, 6)"


def test_examples_in_docstrings():
    result = doctest.testmod(positions)
    assert result.attempted > 3 and result.failed == 0


def test_every_public_name_has_a_contract():
    for name in positions.__all__:
        assert getattr(positions, name).__doc__.strip()


# ---------------------------------------------------------------- bad inputs

EVEN = "d_model: expected an even integer of at least 2, got "
BASE = "base: expected a finite number above 1, got "
BAD = [
    ((0, 4), {}, "n: expected an integer of at least 1, got 0"),
    ((-1, 4), {}, "n: expected an integer of at least 1, got -1"),
    ((3.0, 4), {}, "n: expected an integer of at least 1, got 3.0"),
    ((True, 4), {}, "n: expected an integer of at least 1, got True"),
    ((3, 5), {}, EVEN + "5"),
    ((3, 1), {}, EVEN + "1"),
    ((3, 0), {}, EVEN + "0"),
    ((3, -2), {}, EVEN + "-2"),
    ((3, 4.0), {}, EVEN + "4.0"),
    ((3, None), {}, EVEN + "None"),
    ((3, 4), {"base": 1.0}, BASE + "1.0"),
    ((3, 4), {"base": 0.5}, BASE + "0.5"),
    ((3, 4), {"base": -2}, BASE + "-2"),
    ((3, 4), {"base": math.inf}, BASE + "inf"),
    ((3, 4), {"base": math.nan}, BASE + "nan"),
    ((3, 4), {"base": "e"}, BASE + "'e'"),
    ((3, 4), {"layout": "sines"}, "layout: expected 'interleaved' or 'concatenated', got 'sines'"),
    ((3, 4), {"layout": None}, "layout: expected 'interleaved' or 'concatenated', got None"),
    ((3, 4), {"start": -1}, "start: expected an integer of at least 0, got -1"),
    ((3, 4), {"start": 0.5}, "start: expected an integer of at least 0, got 0.5"),
    (
        (3, 4),
        {"dtype": torch.int64},
        "dtype: expected float64, float32, bfloat16 or float16, got torch.int64",
    ),
]


@pytest.mark.parametrize("arguments, options, message", BAD, ids=lambda x: str(x)[:40])
def test_bad_encodings(arguments, options, message):
    with pytest.raises(ValueError) as caught:
        sinusoidal_encoding(*arguments, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SinusoidalEncoding(5), EVEN + "5"),
        (lambda: SinusoidalEncoding(4, base=1), BASE + "1"),
        (lambda: SinusoidalEncoding(4, 0), "max_length: expected an integer of at least 1, got 0"),
        (lambda: LearnedEncoding(0, 4), "max_length: expected an integer of at least 1, got 0"),
        (lambda: LearnedEncoding(4, 0), "d_model: expected an integer of at least 1, got 0"),
        (lambda: LearnedEncoding(4, 2.0), "d_model: expected an integer of at least 1, got 2.0"),
        (
            lambda: LearnedEncoding(4, 2, std=-1.0),
            "std: expected a finite number of at least 0, got -1.0",
        ),
        (
            lambda: LearnedEncoding(4, 2, std=math.nan),
            "std: expected a finite number of at least 0, got nan",
        ),
    ],
    ids=range(8),
)
def test_bad_modules(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [lambda: SinusoidalEncoding(6), lambda: LearnedEncoding(20, 6)])
@pytest.mark.parametrize(
    "x, start, error, message",
    [
        ([[1.0]], 0, TypeError, "x: expected a torch.Tensor, got list"),
        (torch.zeros(6), 0, ValueError, "x: expected shape (..., n ≥ 1, 6), got (6,)"),
        (torch.zeros(2, 0, 6), 0, ValueError, "x: expected shape (..., n ≥ 1, 6), got (2, 0, 6)"),
        (torch.zeros(2, 6, 5), 0, ValueError, "x: expected shape (..., n ≥ 1, 6), got (2, 6, 5)"),
        (torch.zeros(2, 6, 1), 0, ValueError, "x: expected shape (..., n ≥ 1, 6), got (2, 6, 1)"),
        (
            torch.zeros(2, 3, 6, dtype=torch.int64),
            0,
            ValueError,
            "x: expected float64, float32, bfloat16 or float16, got torch.int64",
        ),
        (
            torch.zeros(2, 3, 6, device="meta"),
            0,
            ValueError,
            "x: expected the module's device cpu, got meta",
        ),
        (torch.zeros(2, 3, 6), -1, ValueError, "start: expected an integer of at least 0, got -1"),
        (
            torch.zeros(2, 3, 6),
            1.0,
            ValueError,
            "start: expected an integer of at least 0, got 1.0",
        ),
    ],
    ids=range(9),
)
def test_bad_inputs(make, x, start, error, message):
    with pytest.raises(error) as caught:
        make()(x, start)
    assert str(caught.value) == message
