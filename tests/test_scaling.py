"""lib.scaling held to counts of cut layers, and to clocks of schedules that are played through."""

import dataclasses
import heapq

import pytest
import torch

from lib import cost, scaling
from lib.layers import EncoderLayer
from lib.models.gpt2 import GPT2, GPT2Config
from lib.scaling import (
    Cluster,
    Plan,
    bubble,
    exposed_seconds,
    fits,
    limit,
    memory_each,
    parameters_each,
    pass_seconds,
    step_flops,
    step_seconds,
    traffic_each,
)
from lib.teaching import measure

SMALL = {"layers": 6, "heads": 4, "head_width": 5, "vocabulary": 29, "tokens": 11, "sequences": 24}
SLOW = Cluster(
    flops=7e6, used=0.5, memory=1e6, inside=3e5, between=1.1e5, latency=0.013, per_node=4
)


def plan(**options):
    return Plan(**SMALL | options)


def gpt2(of, **options):
    names = {"max_length": of.tokens, "dropout": 0.0, "attention_dropout": 0.0}
    names |= {"embedding_dropout": 0.0} | options
    return GPT2Config(of.vocabulary, of.width, of.layers, of.heads, **names)


class TestPlan:
    def test_what_follows(self):
        given = plan(gpus=24, tensor=2, pipeline=3, parts=3)
        assert (given.width, given.data, given.part_tokens) == (20, 4, 22)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layers": 0}, "layers: expected an integer of at least 1, got 0"),
            ({"tokens": 2.0}, "tokens: expected an integer of at least 1, got 2.0"),
            ({"parts": True}, "parts: expected an integer of at least 1, got True"),
            ({"stage": 4}, "stage: expected 0, 1, 2 or 3, got 4"),
            (
                {"gpus": 5, "tensor": 2},
                "gpus: expected a multiple of tensor · pipeline = 2, got 5",
            ),
            ({"gpus": 3, "tensor": 3}, "tensor: expected a divisor of 4 heads, got 3"),
            ({"gpus": 4, "pipeline": 4}, "pipeline: expected a divisor of 6 layers, got 4"),
            (
                {"gpus": 8, "parts": 4},
                "sequences: expected a multiple of data · parts = 32, got 24",
            ),
        ],
        ids=["layers", "tokens", "parts", "stage", "gpus", "tensor", "pipeline", "sequences"],
    )
    def test_refuses_what_does_not_divide(self, options, message):
        with pytest.raises(ValueError) as caught:
            plan(**options)
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"flops": 0}, "flops: expected a positive number, got 0"),
            ({"between": float("inf")}, "between: expected a positive number, got inf"),
            ({"memory": -1.0}, "memory: expected a positive number, got -1.0"),
            ({"used": 1.5}, "used: expected a share of at most 1, got 1.5"),
            ({"latency": -1e-9}, "latency: expected 0 or more seconds, got -1e-09"),
            ({"per_node": 0}, "per_node: expected an integer of at least 1, got 0"),
        ],
    )
    def test_refuses_such_machines(self, options, message):
        with pytest.raises(ValueError) as caught:
            Cluster(**options)
        assert str(caught.value) == message

    def test_groups_fill_nodes(self):
        fits(plan(gpus=3), SLOW)  # one node
        fits(plan(gpus=8, tensor=4), SLOW)
        with pytest.raises(ValueError, match=r"^tensor · data: expected a divisor .* got 6$"):
            fits(plan(gpus=6), SLOW)
        with pytest.raises(ValueError, match=r"^tensor: expected a divisor or a multiple of 3 "):
            fits(plan(gpus=6, tensor=2), dataclasses.replace(SLOW, per_node=3))
        with pytest.raises(ValueError, match=r"^tensor · data: "):
            step_seconds(plan(gpus=6), SLOW)

    def test_the_defaults_are_those_of_the_data_sheet(self):
        device = cost.DEVICES["NVIDIA H100 80GB HBM3"]
        assert Cluster().flops == device.flops[torch.bfloat16]


class TestCounts:
    def test_operations(self):
        for given in (plan(), plan(heads=2, head_width=13, layers=3, tokens=17, sequences=5)):
            counted = cost.parts(gpt2(given), given.sequences, given.tokens).values()
            assert step_flops(given) == 3 * sum(part.forward for part in counted)

    @pytest.mark.parametrize("tensor", [1, 2, 4])
    @pytest.mark.parametrize("pipeline", [1, 2, 3])
    def test_parameters_of_a_cut_model(self, tensor, pipeline):
        given = plan(gpus=6 * tensor, tensor=tensor, pipeline=pipeline)
        with torch.device("meta"):
            model = GPT2(gpt2(given))
            part = EncoderLayer(20, 4 // tensor, 80 // tensor, d_head=5, norm="pre")
        layers = given.layers // pipeline * sum(p.numel() for p in part.parameters())
        words = -(-29 // tensor) * 20
        first = words + sum(p.numel() for p in model.position.parameters()) + layers
        last = words + layers + sum(p.numel() for p in model.norm.parameters())
        if pipeline == 1:
            first += sum(p.numel() for p in model.norm.parameters())
            last = first
        assert parameters_each(given) == max(first, last)

    def test_official_size(self):
        assert parameters_each(Plan(12, 12, 64, 50257, 1024, 8)) == 124_439_808

    def test_bytes_that_stand(self):
        one = memory_each(plan(gpus=4))
        mixed = cost.training_bytes(gpt2(plan()), "mixed")
        assert one["weights"] == mixed["weights"]
        assert one["gradients"] == mixed["gradients"]
        assert one["optimizer"] == mixed["moments"] + mixed["copy"]
        psi = parameters_each(plan())
        for stage, want in ((1, 2 + 2 + 3), (2, 2 + 0.5 + 3), (3, 0.5 + 0.5 + 3)):
            kept = memory_each(plan(gpus=4, stage=stage))
            assert sum(kept[name] for name in ("weights", "gradients", "optimizer")) == want * psi

    @pytest.mark.parametrize("tensor", [1, 2, 4])
    def test_activations_of_a_cut_layer(self, tensor):
        part = EncoderLayer(20, 4 // tensor, 80 // tensor, d_head=5, norm="pre").bfloat16()
        x = torch.randn(3, 11, 20, dtype=torch.bfloat16, requires_grad=True)
        own = list(part.parameters())
        kept = measure.saved_tensors(part, x, without=own)
        given = plan(gpus=8 * tensor, tensor=tensor)  # three sequences each
        assert memory_each(given)["activations"] == 6 * sum(size for *_, size in kept)

    def test_activations_in_flight(self):
        def kept(**options):
            return memory_each(plan(gpus=6, pipeline=3, **options))["activations"]

        layer = memory_each(plan(layers=1))["activations"] / 24  # of one sequence
        assert kept(parts=1) == pytest.approx(2 * 12 * layer)
        assert kept(parts=2) == pytest.approx(2 * 2 * 6 * layer)
        assert kept(parts=6) == pytest.approx(3 * 2 * 2 * layer)  # three of six
        inputs = 2 * 20 * 11  # bytes of one sequence
        assert kept(parts=6, recompute=True) == pytest.approx(2 * (3 * 2 * inputs + layer))


def reductions(recompute):
    """The all-reduces of a layer cut in two: an edge that sums forward, one that sums backward."""
    seen = []

    class SumForward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(x.numel())
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    class SumBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.append(grad.numel())
            return grad

    part = EncoderLayer(20, 2, 40, d_head=5, norm="pre")
    for inner in (part.attention, part.feed_forward):
        whole = inner.forward
        inner.forward = lambda x, whole=whole, **kw: SumForward.apply(
            whole(SumBackward.apply(x), **{k: v for k, v in kw.items() if v})
        )
    x = torch.randn(3, 11, 20, requires_grad=True)
    if recompute:
        out = torch.utils.checkpoint.checkpoint(part, x, use_reentrant=False, early_stop=False)
    else:
        out = part(x)
    out.sum().backward()
    return seen


class TestTraffic:
    @pytest.mark.parametrize("recompute", [False, True])
    def test_all_reduces_of_a_cut_layer(self, recompute):
        seen = reductions(recompute)
        assert set(seen) == {3 * 11 * 20}
        given = plan(gpus=2, tensor=2, recompute=recompute, parts=4)
        a_ring_of_two = 2 * 1 / 2
        want = 2 * sum(seen) * 6 * 8 * a_ring_of_two  # bytes, layers, threes of sequences
        assert traffic_each(given)["tensor"] == want

    def test_nothing_is_sent_alone(self):
        assert traffic_each(plan()) == {"tensor": 0, "pipeline": 0, "data": 0}

    @pytest.mark.parametrize(("stages", "directions"), [(2, 1), (3, 2), (6, 2)])
    def test_stages_hand_on(self, stages, directions):
        sent = traffic_each(plan(gpus=2 * stages, pipeline=stages, parts=3))["pipeline"]
        assert sent == directions * 2 * 20 * 11 * 12

    @pytest.mark.parametrize(("stage", "passes"), [(0, 2), (1, 2), (2, 4), (3, 9)])
    def test_passes_over_the_copies(self, stage, passes):
        given = plan(gpus=4, stage=stage, parts=3)
        want = passes * 2 * parameters_each(given) * 3 / 4
        assert traffic_each(given)["data"] == pytest.approx(want)
        whole = traffic_each(plan(gpus=4, stage=stage))["data"] / traffic_each(plan(gpus=4))["data"]
        assert whole == pytest.approx(1.5 if stage == 3 else 1.0)


def play_ring(members, message, alpha, rate):
    """The clock of a reduce-scatter: each step waits for the slower of both neighbours."""
    clock = [0.0] * members
    for _ in range(members - 1):
        sent = [time + alpha + message / rate for time in clock]
        clock = [max(sent[r - 1], sent[r]) for r in range(members)]
    return max(clock)


def play_overlap(buckets, compute, send):
    """A backward pass and one wire, event by event; when the last bucket has arrived."""
    events = [(compute * (k + 1), k) for k in range(buckets)]
    heapq.heapify(events)
    free = 0.0
    while events:
        ready, _ = heapq.heappop(events)
        free = max(free, ready) + send
    return free


def play_pipeline(stages, parts):
    """Ticks of a forward pass: a stage works on a part when the stage before is done with it."""
    done = {}
    for s in range(stages):
        for part in range(parts):
            done[s, part] = 1 + max(done.get((s - 1, part), 0), done.get((s, part - 1), 0))
    return done[stages - 1, parts - 1]


class TestSeconds:
    @pytest.mark.parametrize(("inside", "nodes"), [(1, 1), (3, 1), (1, 5), (4, 7)])
    def test_two_levels_of_rings(self, inside, nodes):
        b = 5e4
        near = play_ring(inside, b / inside, SLOW.latency, SLOW.inside)
        far = play_ring(nodes, b / inside / nodes, SLOW.latency, SLOW.between)
        assert pass_seconds(b, inside, nodes, SLOW) == pytest.approx(near + far)

    @pytest.mark.parametrize("send", [0.0, 0.3, 1.0, 2.5])
    @pytest.mark.parametrize("buckets", [1, 2, 7])
    def test_what_shows_of_traffic(self, buckets, send):
        shown = exposed_seconds(buckets * 1.0, buckets * send, buckets)
        assert shown == pytest.approx(play_overlap(buckets, 1.0, send) - buckets)

    @pytest.mark.parametrize(("stages", "parts"), [(1, 3), (2, 5), (5, 2), (7, 7)])
    def test_idle_of_a_pipeline(self, stages, parts):
        assert bubble(stages, parts) == pytest.approx(play_pipeline(stages, parts) / parts - 1)

    def test_refuses_counts(self):
        with pytest.raises(ValueError, match=r"^buckets: expected an integer of at least 1, got 0"):
            exposed_seconds(1.0, 1.0, 0)
        with pytest.raises(ValueError, match=r"^parts: expected an integer of at least 1, got 0"):
            bubble(2, 0)

    def test_one_gpu_computes(self):
        seconds = step_seconds(plan(), SLOW)
        assert seconds["step"] == seconds["overlapped"] == seconds["compute"]
        assert seconds["compute"] == step_flops(plan()) / 3.5e6
        assert (seconds["efficiency"], seconds["mfu"]) == (1.0, 0.5)
        again = step_seconds(plan(recompute=True), SLOW)
        assert again["compute"] == pytest.approx(seconds["compute"] * 4 / 3)
        assert again["mfu"] == pytest.approx(0.5 * 3 / 4)

    def test_copies_in_two_levels(self):
        given = plan(gpus=8, tensor=2)  # two of a node's four are copies; two nodes
        layers = 6 * pass_seconds(2 * parameters_each(given) / 6, 2, 2, SLOW)
        seconds = step_seconds(given, SLOW)
        assert seconds["data"] == pytest.approx(2 * layers)
        backward = step_flops(given) / 8 / 3.5e6 * 2 / 3
        assert seconds["exposed"] == pytest.approx(exposed_seconds(backward, 2 * layers, 6))
        one_node = step_seconds(plan(gpus=4), SLOW)["data"]
        layers = 6 * pass_seconds(2 * parameters_each(plan()) / 6, 4, 1, SLOW)
        assert one_node == pytest.approx(2 * layers)

    @pytest.mark.parametrize(
        ("stage", "beside_backward", "beside_forward"),
        [(0, (1, 2), (1, 0)), (1, (1, 1), (1, 1)), (2, (3, 3), (1, 1)), (3, (3, 6), (3, 3))],
    )
    def test_windows(self, stage, beside_backward, beside_forward):
        given = plan(gpus=8, parts=3, stage=stage, recompute=True)
        one = 6 * pass_seconds(2 * parameters_each(given) / 6, 4, 2, SLOW)
        part = step_flops(given) / 8 / 3.5e6 / 3
        (windows, passes), (others, gathers) = beside_backward, beside_forward
        want = exposed_seconds(windows * part, passes * one, windows * 6)
        want += exposed_seconds(others * part / 3, gathers * one, others * 6)
        seconds = step_seconds(given, SLOW)
        assert seconds["exposed"] == pytest.approx(want)
        assert seconds["data"] == pytest.approx((passes + gathers) * one)

    @pytest.mark.parametrize(("tensor", "near", "far"), [(2, 2, 1), (4, 4, 1)])
    def test_matrices_in_parts(self, tensor, near, far):
        given = plan(gpus=8, tensor=tensor, parts=3)
        reduce = 2 * pass_seconds(2 * 20 * given.part_tokens, near, far, SLOW)
        assert step_seconds(given, SLOW)["tensor"] == pytest.approx(4 * 6 * 3 * reduce)

    def test_matrices_over_two_nodes(self):
        given = plan(gpus=4, tensor=4, recompute=True)
        reduce = 2 * pass_seconds(2 * 20 * 24 * 11, 2, 2, SLOW)
        cut = dataclasses.replace(SLOW, per_node=2)
        assert step_seconds(given, cut)["tensor"] == pytest.approx(6 * 6 * reduce)

    def test_stages(self):
        given = plan(gpus=12, pipeline=3, parts=2)
        seconds = step_seconds(given, SLOW)
        message = 2 * 20 * given.part_tokens
        assert seconds["pipeline"] == pytest.approx(2 * 2 * (0.013 + message / 1.1e5))
        busy = seconds["compute"] + seconds["tensor"] + seconds["pipeline"]
        assert seconds["bubble"] == pytest.approx(busy * 2 / 2)
        near = step_seconds(plan(gpus=3, pipeline=3, parts=2), SLOW)["pipeline"]
        assert near == pytest.approx(2 * 2 * (0.013 + 2 * 20 * 12 * 11 / 3e5))

    def test_the_sum(self):
        given = plan(gpus=24, tensor=2, pipeline=3, parts=3, stage=1, recompute=True)
        seconds = step_seconds(given, SLOW)
        waited = sum(seconds[name] for name in ("compute", "tensor", "pipeline", "bubble"))
        assert seconds["step"] == pytest.approx(waited + seconds["data"])
        assert seconds["overlapped"] == pytest.approx(waited + seconds["exposed"])
        ideal = step_flops(given) / 24 / 3.5e6
        assert seconds["efficiency"] == pytest.approx(ideal / seconds["overlapped"])
        assert seconds["mfu"] == pytest.approx(seconds["efficiency"] / 2)


class TestLimit:
    FAST = dataclasses.replace(SLOW, inside=1e12, between=1e12, latency=0.0, memory=1e9)

    @pytest.mark.parametrize(
        ("options", "machines", "want"),
        [
            ({}, {}, "compute"),
            ({}, {"memory": 1e5}, "memory"),
            ({"gpus": 4}, {"inside": 1e3}, "exposed"),
            ({"gpus": 4, "tensor": 4}, {"inside": 1e3}, "tensor"),
            ({"gpus": 3, "pipeline": 3, "parts": 6}, {"latency": 1e4}, "pipeline"),
            ({"gpus": 6, "pipeline": 6, "parts": 2}, {}, "bubble"),
        ],
    )
    def test_each(self, options, machines, want):
        assert limit(plan(**options), dataclasses.replace(self.FAST, **machines)) == want

    def test_memory_is_enough_to_the_byte(self):
        needs = sum(memory_each(plan()).values())
        assert limit(plan(), dataclasses.replace(self.FAST, memory=needs)) == "compute"
        assert limit(plan(), dataclasses.replace(self.FAST, memory=needs - 1)) == "memory"


def test_everything_public_is_tested():
    assert set(scaling.__all__) <= set(globals())
