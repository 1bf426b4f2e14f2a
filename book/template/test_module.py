"""lib.slug_here: closed forms, parity with torch, bad inputs."""

import pytest
import torch

from lib.slug_here import variance


def test_closed_form():
    values = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    torch.testing.assert_close(variance(values), torch.tensor(14 / 3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_torch(dtype):
    values = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.testing.assert_close(variance(values), values.var(-1, unbiased=False))


def test_survives_a_large_mean():
    values = torch.tensor([1.0, 2.0, 6.0]) + 10_000
    assert abs(variance(values).item() - 14 / 3) < 1e-3


def test_gradient():
    values = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(variance, values)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"expected a shape \(\.\.\., n\).*got"):
        variance(torch.zeros(shape))
