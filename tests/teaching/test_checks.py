"""lib.teaching.checks: what passes, what fails, and the one line that says so."""

import math

import numpy as np
import pytest
import torch

from lib.teaching import checks
from lib.teaching.checks import bound, check, compare, distinct, short

INF, NAN = math.inf, math.nan


@pytest.fixture
def bundles(monkeypatch):
    shown = []
    monkeypatch.setattr(checks, "publish", shown.append)
    return shown


def test_an_equation_shows_its_error_and_the_tolerance(bundles):
    check("eq-attention-scale", 1.0 + 2**-52, 1.0)
    assert bundles == [
        {
            "text/plain": "✓ eq-attention-scale holds: max error 2.2e-16 (allowed 1e-12)",
            "text/html": '<p class="check" data-label="eq-attention-scale" data-error="2.2e-16" '
            'data-allowed="1e-12">✓ <span class="check-label">eq-attention-scale</span> holds: '
            "max error 2.2e-16 (allowed 1e-12)</p>",
        }
    ]


def test_no_error_at_all_is_exact(bundles):
    check("eq-attention-mask", [0.5, 0.25], [0.5, 0.25], atol=0)
    assert bundles[0]["text/plain"] == "✓ eq-attention-mask holds: exact (allowed 0)"
    assert 'data-error="0" data-allowed="0"' in bundles[0]["text/html"]


def test_a_condition_has_no_error(bundles):
    check("eq-attention-hull", True)
    assert bundles == [
        {
            "text/plain": "✓ eq-attention-hull holds",
            "text/html": '<p class="check" data-label="eq-attention-hull">✓ '
            '<span class="check-label">eq-attention-hull</span> holds</p>',
        }
    ]


def test_a_claim_in_words_is_shown_as_it_is_and_escaped(bundles):
    check("every weight is < 1 & > 0", True)
    check("rows sum to one", np.ones(3), 1.0)
    assert bundles[0]["text/plain"] == "✓ every weight is < 1 & > 0"
    assert bundles[0]["text/html"] == (
        '<p class="check" data-label="every weight is &lt; 1 &amp; &gt; 0">✓ '
        '<span class="check-label">every weight is &lt; 1 &amp; &gt; 0</span></p>'
    )
    assert bundles[1]["text/plain"] == "✓ rows sum to one: exact (allowed 1e-12)"


def test_a_quote_in_a_claim_cannot_leave_its_attribute(bundles):
    check('"a" stays', True)
    assert 'data-label="&quot;a&quot; stays"' in bundles[0]["text/html"]


def test_plain_python_prints_the_text(capsys):
    assert check("eq-attention-scale", 1.0, 1.0) is None
    assert capsys.readouterr().out == "✓ eq-attention-scale holds: exact (allowed 1e-12)\n"


@pytest.mark.parametrize(
    "got, want",
    [
        (1, 1.0),
        (True, torch.tensor(True)),
        (np.float32(0.5), 0.5),
        (np.ones((2, 3)), torch.ones(2, 3)),
        (torch.ones(2, 3, dtype=torch.bfloat16), np.ones((2, 3), dtype=np.float16)),
        (torch.ones(2, requires_grad=True), [1, 1.0]),
        (torch.ones(2, 3, dtype=torch.bool), 1.0),
        (torch.zeros(2, dtype=torch.int64), [0, 0]),
        (torch.ones(5)[::2], (1, 1, 1)),
        (torch.conj(torch.tensor([1 + 2j], dtype=torch.complex128)).imag, [-2.0]),
        ([torch.ones(2), torch.ones(3)], [np.ones(2), [1.0, 1.0, 1.0]]),
        ([torch.ones(2), (torch.ones(3), torch.tensor(1.0))], 1.0),
        ((torch.ones(2), torch.ones(2)), torch.ones(2, 2)),
        (INF, INF),
        (torch.tensor([-INF, 1.0]), [-INF, 1.0]),
    ],
)
def test_what_holds(got, want, bundles):
    check("eq-attention-x", got, want, atol=0)
    assert "holds: exact" in bundles[0]["text/plain"]


@pytest.mark.parametrize(
    "got, want, message",
    [
        (0.5, 0.53, "eq-x fails: max error 3.0e-02, allowed 1e-12; got 0.5, want 0.53"),
        (
            torch.tensor([[1.0, 2], [3, 4], [0.5, 6]], dtype=torch.float64),
            np.array([[1.0, 2], [3, 4], [0.53125, 6]]),
            "eq-x fails: max error 3.1e-02 at index (2, 0), allowed 1e-12; got 0.5, want 0.53125",
        ),
        (NAN, 1.0, "eq-x fails: max error nan, allowed 1e-12; got nan, want 1"),
        (1.0, NAN, "eq-x fails: max error nan, allowed 1e-12; got 1, want nan"),
        (NAN, NAN, "eq-x fails: max error nan, allowed 1e-12; got nan, want nan"),
        (
            [9.0, NAN, 1.0],
            [1.0, 1.0, 1.0],
            "eq-x fails: max error nan at index (1,), allowed 1e-12; got nan, want 1",
        ),
        (
            [torch.tensor([5.0, 5.0]), torch.tensor([1.0, NAN, 1.0])],
            1.0,
            "eq-x fails: max error nan at index (1, 1), allowed 1e-12; got nan, want 1",
        ),
        (INF, -INF, "eq-x fails: max error inf, allowed 1e-12; got inf, want -inf"),
        (INF, 1e300, "eq-x fails: max error inf, allowed 1e-12; got inf, want 1e+300"),
        (
            1.0,
            1.0 + 2e-12,
            "eq-x fails: max error 2.0e-12, allowed 1e-12; got 1, want 1.000000000002",
        ),
        (
            torch.zeros(3, 2),
            torch.zeros(2, 3),
            "eq-x fails: got shape (3, 2), want shape (2, 3)",
        ),
        (torch.zeros(3), torch.zeros(1), "eq-x fails: got shape (3,), want shape (1,)"),
        (torch.zeros(3), torch.tensor(0.0), "eq-x fails: got shape (3,), want shape ()"),
        (torch.zeros(3), np.float64(0.0), "eq-x fails: got shape (3,), want shape ()"),
        (0.0, torch.zeros(3), "eq-x fails: got shape (), want shape (3,)"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], "eq-x fails: got shape (2,), want shape (3,)"),
        (
            [torch.ones(2), torch.ones(3)],
            torch.ones(2, 3),
            "eq-x fails: got 2 parts of unlike shapes, want shape (2, 3)",
        ),
        (
            torch.ones(2, 3),
            [torch.ones(2), torch.ones(3)],
            "eq-x fails: got shape (2, 3), want 2 parts of unlike shapes",
        ),
        (
            [torch.ones(2), torch.ones(3)],
            [torch.ones(2), torch.ones(3), torch.ones(4)],
            "eq-x fails: got 2 parts of unlike shapes, want 3 parts of unlike shapes",
        ),
    ],
)
def test_what_fails_says_where(got, want, message, bundles):
    with pytest.raises(AssertionError) as error:
        check("eq-x", got, want)
    assert str(error.value) == message
    assert bundles == []


def test_an_error_equal_to_the_tolerance_is_allowed_and_the_next_float_is_not(bundles):
    check("eq-x", 1.5, 1.0, atol=0.5)
    assert len(bundles) == 1
    with pytest.raises(AssertionError, match="allowed 5e-01"):
        check("eq-x", np.nextafter(1.5, 2), 1.0, atol=0.5)


def test_half_precision_is_compared_in_fp64():
    # 1 + 2**-12 rounds to 1 in bf16 and in fp16: a comparison in either would find no error
    for dtype in (torch.bfloat16, torch.float16):
        assert compare(torch.ones(1, dtype=dtype), [1 + 2**-12]).error == 2**-12


def test_double_precision_stays_double():
    step = torch.tensor([1.0, 1 + 2**-52], dtype=torch.float64)
    assert compare(step, torch.ones(2, dtype=torch.float64)).error == 2**-52


def test_the_largest_error_is_reported():
    worst = compare([[0.0, 3.0], [-5.0, 0.0]], 1.0)
    assert (worst.error, worst.index, worst.got, worst.want) == (6.0, (1, 0), -5.0, 1.0)


@pytest.mark.parametrize("condition", [True, np.True_, torch.tensor(True), np.array(True)])
def test_conditions_that_hold(condition, bundles):
    check("eq-x", condition)
    assert bundles[0]["text/plain"] == "✓ eq-x holds"


@pytest.mark.parametrize("condition", [False, np.False_, torch.tensor(False), np.array(False)])
def test_conditions_that_fail(condition):
    with pytest.raises(AssertionError, match=r"^every row is causal fails$"):
        check("every row is causal", condition)


@pytest.mark.parametrize(
    "condition, kind",
    [
        (0.3, "float"),
        (1, "int"),
        (None, "NoneType"),
        ("yes", "str"),
        (torch.tensor(1.0), r"Tensor of torch.float32, shape \(\)"),
        (torch.tensor([True, True]), r"Tensor of torch.bool, shape \(2,\)"),
        (np.array([True]), r"ndarray of bool, shape \(1,\)"),
    ],
)
def test_what_is_no_condition_is_an_error_and_not_a_pass(condition, kind):
    with pytest.raises(TypeError, match=f"check eq-x: expected one truth value.*got {kind}$"):
        check("eq-x", condition)


@pytest.mark.parametrize(
    "got, want, error, message",
    [
        (torch.ones(2, dtype=torch.complex64), 1.0, TypeError, "expected real numbers.*complex64"),
        (np.ones(2) * 1j, 1.0, TypeError, "expected real numbers, got an array of complex128"),
        ("a", "a", TypeError, "expected real numbers, got str"),
        (None, 1.0, TypeError, "expected real numbers, got NoneType"),
        (1.0, None, TypeError, "expected real numbers, got NoneType"),
        ([], [], ValueError, "nothing to compare: an empty list"),
        (torch.ones(0, 3), torch.ones(0, 3), ValueError, r"shape \(0, 3\) holds no number"),
    ],
)
def test_what_cannot_be_tested_is_an_error(got, want, error, message):
    with pytest.raises(error, match=message):
        check("eq-x", got, want)


@pytest.mark.parametrize("atol", [-1e-3, INF, NAN, None, "1e-3"])
def test_a_tolerance_that_would_pass_or_fail_everything_is_an_error(atol):
    with pytest.raises(ValueError, match="check eq-x: expected a finite atol >= 0"):
        check("eq-x", 1.0, 1.0, atol=atol)


@pytest.mark.parametrize("label", ["", "  ", "two\nlines", 3])
def test_a_label_is_one_line(label):
    with pytest.raises(ValueError, match="expected a label in one line"):
        check(label, True)


def test_numbers_are_printed_with_two_digits():
    numbers = [2.220446e-16, 1e-12, 0.031, 0.0, 1.0, 19.23, INF, NAN]
    printed = ["2.2e-16", "1.0e-12", "3.1e-02", "0", "1", "19", "inf", "nan"]
    assert [short(number) for number in numbers] == printed
    assert [bound(number) for number in (1e-12, 2.5e-3, 0.0)] == ["1e-12", "2.5e-03", "0"]


def test_two_numbers_get_the_digits_that_tell_them_apart():
    assert distinct(0.5, 0.53) == ("0.5", "0.53")
    assert distinct(1.0, 1.0 + 2**-52) == ("1", "1.0000000000000002")
    assert distinct(0.1, 0.1) == ("0.10000000000000001",) * 2
