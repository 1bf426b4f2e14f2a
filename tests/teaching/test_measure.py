"""Tests of lib.teaching.measure: memory to the byte, operations to the unit, times in order."""

import time

import pytest
import torch

from lib.attention import (
    fast_attention,
    online_softmax_attention,
    scaled_dot_product_attention,
)
from lib.teaching.measure import flops, median_seconds, peak_bytes, saved_tensors

N, D = 257, 31


def square(n=N, d=D, dtype=torch.float32):
    return torch.ones(n, d, dtype=dtype), torch.ones(d, n, dtype=dtype)


class TestPeakBytes:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_one_product(self, dtype):
        assert peak_bytes(torch.matmul, *square(dtype=dtype)) == dtype.itemsize * N * N

    def test_nothing(self):
        assert peak_bytes(lambda: None) == 0
        assert peak_bytes(lambda x: x.mT, torch.ones(3, 5)) == 0  # a view

    def test_arguments_and_what_stood_before_are_not_counted(self):
        before = torch.ones(100_000)
        assert peak_bytes(lambda: before.mul_(2.0).numel()) <= 16  # the number 2 as a tensor

    def test_a_peak_is_not_a_sum(self):
        def one_after_the_other():
            for _ in range(5):
                torch.empty(1_000, dtype=torch.uint8)

        def all_at_once():
            return [torch.empty(1_000, dtype=torch.uint8) for _ in range(5)]

        assert peak_bytes(one_after_the_other) == 1_000
        assert peak_bytes(all_at_once) == 5_000

    def test_a_peak_is_not_the_end(self):
        def up_and_down():
            first = torch.empty(700, dtype=torch.uint8)
            torch.empty(300, dtype=torch.uint8)  # released at once
            return first, torch.empty(200, dtype=torch.uint8)

        assert peak_bytes(up_and_down) == 1_000

    def test_in_place_and_out_of_place(self):
        x = torch.ones(1_000)
        assert peak_bytes(torch.exp, x) == 4_000
        assert peak_bytes(torch.exp_, x) == 0

    def test_the_backward_pass_is_seen(self):
        x = torch.ones(1_000, requires_grad=True)

        def forward_and_backward():
            x.exp().sum().backward()  # exp's output is kept for its gradient

        # the output, its gradient (a view of one number), the product of the two, and two scalars
        assert 8_000 <= peak_bytes(forward_and_backward) <= 8_000 + 64
        assert x.grad.shape == (1_000,)

    def test_the_scratch_memory_of_a_fused_kernel_is_seen(self):
        query = torch.randn(1, 4, 512, 16)
        output_and_log_sums = 4 * query.numel() + 4 * 4 * 512
        with torch.no_grad():
            got = peak_bytes(fast_attention, query, query, query)
        assert got > output_and_log_sums

    def test_what_the_chapter_claims(self):
        """Double n: the formula's peak grows fourfold, the two others' less than threefold."""
        peaks = {}
        for n in (1024, 2048):
            query = torch.randn(1, n, 64)
            with torch.no_grad():
                for function in (
                    scaled_dot_product_attention,
                    fast_attention,
                    online_softmax_attention,
                ):
                    peaks[function, n] = peak_bytes(function, query, query, query)
        growth = {f: peaks[f, 2048] / peaks[f, 1024] for f, _ in peaks}
        assert 3.5 < growth[scaled_dot_product_attention] < 4.1
        assert growth[fast_attention] < 3.0
        assert growth[online_softmax_attention] < 3.0

    def test_repeats_to_the_byte(self):
        arguments = square()
        assert len({peak_bytes(torch.matmul, *arguments) for _ in range(5)}) == 1

    def test_an_error_comes_through_and_the_next_call_is_right(self):
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            peak_bytes(torch.mm, torch.ones(2, 3), torch.ones(2, 3))
        assert peak_bytes(torch.matmul, *square()) == 4 * N * N

    def test_is_silent(self, capfd):
        peak_bytes(torch.matmul, *square())
        assert capfd.readouterr() == ("", "")

    def test_refuses_another_device(self):
        with pytest.raises(ValueError) as error:
            peak_bytes(lambda: None, device="meta")
        assert str(error.value) == "device: expected cpu or cuda, got 'meta'"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_cuda(self):
        a, b = (x.cuda() for x in square())
        assert peak_bytes(torch.matmul, a, b) == 4 * N * N
        assert peak_bytes(lambda: a @ b, device="cuda") == 4 * N * N
        assert peak_bytes(lambda: [a + i for i in range(3)], device="cuda") == 3 * 4 * N * D


class TestFlops:
    def test_one_product(self):
        assert flops(torch.matmul, *square()) == 2 * N * N * D

    def test_element_by_element_is_not_counted(self):
        assert flops(lambda: torch.ones(9, 9).exp().sum()) == 0

    def test_attention_is_two_products(self):
        query, key, value = (
            torch.ones(2, 3, 7, 5),
            torch.ones(2, 3, 11, 5),
            torch.ones(2, 3, 11, 13),
        )
        want = 2 * 3 * (2 * 7 * 11 * 5 + 2 * 7 * 11 * 13)
        assert flops(scaled_dot_product_attention, query, key, value) == want

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("causal", [False, True])
    def test_the_fused_kernel_counts_as_the_formula(self, dtype, causal):
        x = torch.ones(2, 3, 64, 16, dtype=dtype)
        want = flops(scaled_dot_product_attention, x, x, x)
        assert want == 2 * 2 * (2 * 3 * 64 * 64 * 16)
        assert flops(lambda: fast_attention(x, x, x, causal=causal)) == want

    def test_backward_is_twice_the_formula_and_the_fused_kernel_does_one_product_again(self):
        x = torch.ones(1, 1, 64, 16, requires_grad=True)
        forward = 2 * 2 * 64 * 64 * 16

        def with_backward(function):
            return flops(lambda: function(x, x, x).sum().backward())

        assert with_backward(scaled_dot_product_attention) == 3 * forward
        assert with_backward(fast_attention) == 3.5 * forward


class TestSavedTensors:
    def test_what_a_product_keeps(self):
        x, w = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7, requires_grad=True)
        kept = [((3, 5), torch.float32, 60), ((5, 7), torch.float32, 140)]
        got = saved_tensors(torch.matmul, x, w)
        assert sorted(got, key=lambda held: held[0]) == kept  # torch is free to keep either first
        assert saved_tensors(torch.matmul, x, w, without=[w]) == kept[:1]

    def test_views_of_one_storage_count_once_and_whole(self):
        x = torch.ones(11, requires_grad=True)
        kept = saved_tensors(lambda: (x[:3] * x[:3]).sum() + (x[3:] * x[3:]).sum())
        assert [size for *_, size in kept] == [44]

    def test_what_the_result_does_not_need_is_not_counted(self):
        x = torch.ones(5, requires_grad=True)
        assert saved_tensors(lambda: (x.exp().exp() > 0, x + 1)) == []
        assert [size for *_, size in saved_tensors(lambda: x.exp().exp())] == [20, 20]

    def test_without_gradients_nothing(self):
        assert saved_tensors(torch.matmul, *square()) == []


class TestMedianSeconds:
    def test_the_median_of_each_in_turn(self, monkeypatch):
        calls, clock = [], [0.0]
        monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

        def taking(name, durations):
            rest = iter(durations)

            def call():
                calls.append(name)
                clock[0] += next(rest)

            return call

        a = taking("a", [50, 1, 2, 30])  # the first is the warm-up
        b = taking("b", [90, 7, 8, 4])
        assert median_seconds(a, b, repeats=3) == [2.0, 7.0]
        assert calls == ["a", "b"] + ["a", "b"] * 3

    def test_real_time(self):
        (seconds,) = median_seconds(lambda: time.sleep(0.01), repeats=3)
        assert 0.009 < seconds < 1.0

    def test_refuses_nothing_and_no_repeats(self):
        with pytest.raises(ValueError, match=r"^functions: expected at least one, got none$"):
            median_seconds()
        with pytest.raises(ValueError, match=r"^repeats: expected .* at least 1, got 0$"):
            median_seconds(lambda: None, repeats=0)
