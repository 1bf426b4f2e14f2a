"""lib.validation held to its contract."""

import math
from types import SimpleNamespace

import pytest
import torch

from lib.validation import require_choice, require_numbers, require_sizes, require_tokens

CONFIG = SimpleNamespace(
    one=1, zero=0, minus=-1, half=0.5, yes=True, text="1", nan=math.nan, inf=math.inf, none=None
)


def refused(function, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def test_sizes():
    require_sizes(CONFIG, "one")
    require_sizes(CONFIG, "one", "zero", least=0)
    for name in ("zero", "minus", "half", "yes", "text", "none"):
        got = getattr(CONFIG, name)
        want = f"{name}: expected an integer of at least 1, got {got!r}"
        assert refused(require_sizes, CONFIG, "one", name) == want


def test_numbers():
    require_numbers(CONFIG, "one", "zero", "half")
    require_numbers(CONFIG, "zero", "half", below=1.0)
    for name in ("minus", "text", "nan", "inf", "none"):
        want = f"{name}: expected a number in [0, inf), got {getattr(CONFIG, name)!r}"
        assert refused(require_numbers, CONFIG, "half", name) == want
    want = "one: expected a number in [0, 1), got 1"
    assert refused(require_numbers, CONFIG, "one", below=1.0) == want


def test_choices():
    require_choice(CONFIG, "text", {"1": 1})
    assert refused(require_choice, CONFIG, "text", ("a", "b")) == (
        "text: expected one of a, b, got '1'"
    )


IDS = torch.zeros(2, 5, dtype=torch.int64)


def test_tokens():
    assert require_tokens(IDS) is None
    masks = {"attention_mask": IDS.bool(), "is_masked": IDS.bool(), "token_type_ids": None}
    assert require_tokens(IDS.int(), **masks) is None


@pytest.mark.parametrize(
    "ids, others, message",
    [
        (IDS[0], {}, "input_ids: expected shape (B, n ≥ 1), got (5,)"),
        (IDS[:, :0], {}, "input_ids: expected shape (B, n ≥ 1), got (2, 0)"),
        (IDS.bool(), {}, "input_ids: expected torch.int64 or torch.int32, got torch.bool"),
        (IDS, {"types": IDS.bool()}, "types: expected torch.int64 or torch.int32, got torch.bool"),
        (
            IDS,
            {"mask": IDS.double()},
            "mask: expected torch.int64 or torch.int32 or torch.bool, got torch.float64",
        ),
        (IDS, {"mask": IDS[:1]}, "mask: expected shape (2, 5), got (1, 5)"),
        (IDS, {"mask": IDS.to("meta")}, "mask: expected device cpu, got meta"),
    ],
)
def test_tokens_refused(ids, others, message):
    assert refused(require_tokens, ids, **others) == message


def test_tokens_behind_others():
    """With three tokens in a cache, a mask is of those too; other inputs are of the new ones."""
    long = torch.zeros(2, 8, dtype=torch.int64)
    assert require_tokens(IDS, past=3, attention_mask=long, types=IDS) is None
    wrong = {"attention_mask": IDS}, {"types": long}
    assert [refused(require_tokens, IDS, past=3, **others) for others in wrong] == [
        "attention_mask: expected shape (2, 8), got (2, 5)",
        "types: expected shape (2, 5), got (2, 8)",
    ]


def test_tokens_by_another_name():
    message = "decoder_input_ids: expected shape (B, n ≥ 1), got (5,)"
    assert refused(require_tokens, IDS[0], name="decoder_input_ids") == message


@pytest.mark.parametrize("inputs", [(None,), ([[1, 2]],)])
def test_no_tensors(inputs):
    with pytest.raises(TypeError, match=r"^input_ids: expected a torch.Tensor, got "):
        require_tokens(*inputs)
