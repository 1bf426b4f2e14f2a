"""A training step on many GPUs, on paper: the bytes each keeps and sends, and the seconds.

A `Plan` is a GPT-2 of some size and how it is cut: into data-parallel copies, each of whose
layers lie in pipeline stages, each of whose matrices are cut by tensor parallelism. A `Cluster` is
what the reader says of the machines. Nothing here is measured: it is what follows from them.
Derived in chapter 22_scaling_out.
"""

import math
from dataclasses import dataclass, fields

__all__ = [
    "Cluster",
    "Plan",
    "bubble",
    "exposed_seconds",
    "fits",
    "limit",
    "memory_each",
    "parameters_each",
    "pass_seconds",
    "step_flops",
    "step_seconds",
    "traffic_each",
]

NUMBER = 2  # bytes of a weight, a gradient or an activation: half precision
OPTIMIZER = 12  # bytes of a float32 copy and AdamW's two moments


@dataclass(frozen=True)
class Cluster:
    """The machines, as their reader believes them to be.

    flops : the most operations a GPU does in a second
    used : the share of it that products reach while they run, over 0 to 1: an assumption always
    memory : bytes of a GPU
    inside, between : bytes a second that a GPU sends to one in its node, to one in another
    latency : seconds until a message begins to arrive, α: an assumption always
    per_node : GPUs in a node

    The defaults are of a DGX H100: 989.4e12 in bfloat16, dense, and 80e9 bytes, as in
    `lib.cost.DEVICES`; NVLink's 900e9 bytes a second are both directions, 450e9 is one; one
    network link of 400e9 bits a second for each GPU is 50e9 bytes (NVIDIA's data sheets of H100
    and of DGX H100). What a program reaches is less.

    ValueError for what is not positive; latency may be 0.
    """

    flops: float = 989.4e12
    used: float = 0.4
    memory: float = 80e9
    inside: float = 450e9
    between: float = 50e9
    latency: float = 10e-6
    per_node: int = 8

    def __post_init__(self) -> None:
        _require_count("per_node", self.per_node)
        for name in ("flops", "used", "memory", "inside", "between"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: expected a positive number, got {value!r}")
        if self.used > 1:
            raise ValueError(f"used: expected a share of at most 1, got {self.used!r}")
        if not (self.latency >= 0 and math.isfinite(self.latency)):
            raise ValueError(f"latency: expected 0 or more seconds, got {self.latency!r}")


@dataclass(frozen=True)
class Plan:
    """A GPT-2 of `layers` layers and `heads · head_width` features, and how a step is divided.

    vocabulary, tokens, sequences : words, the length of a sequence, and the sequences of a batch
    gpus : data · tensor · pipeline; how often the model is there, `data`, follows
    tensor : into how many each matrix is cut, by heads and by features of the feed-forward layer
    pipeline : into how many stages the layers are cut
    parts : micro-batches that one copy's share of the batch goes through in, one after the other
    stage : of ZeRO, over the copies: 0 nothing is sharded, 1 the optimizer, 2 gradients, 3 weights
    recompute : keep of a layer its input alone, and compute it again in the backward pass

    ValueError, in one line, where something does not divide.
    """

    layers: int
    heads: int
    head_width: int
    vocabulary: int
    tokens: int
    sequences: int
    gpus: int = 1
    tensor: int = 1
    pipeline: int = 1
    parts: int = 1
    stage: int = 0
    recompute: bool = False

    def __post_init__(self) -> None:
        for field in fields(self)[:-2]:
            _require_count(field.name, getattr(self, field.name))
        if self.stage not in (0, 1, 2, 3):
            raise ValueError(f"stage: expected 0, 1, 2 or 3, got {self.stage!r}")
        copy = self.tensor * self.pipeline
        if self.gpus % copy:
            raise ValueError(
                f"gpus: expected a multiple of tensor · pipeline = {copy}, got {self.gpus}"
            )
        if self.heads % self.tensor:
            raise ValueError(f"tensor: expected a divisor of {self.heads} heads, got {self.tensor}")
        if self.layers % self.pipeline:
            raise ValueError(
                f"pipeline: expected a divisor of {self.layers} layers, got {self.pipeline}"
            )
        if self.sequences % (self.data * self.parts):
            raise ValueError(
                f"sequences: expected a multiple of data · parts = {self.data * self.parts}, "
                f"got {self.sequences}"
            )

    @property
    def width(self) -> int:
        return self.heads * self.head_width

    @property
    def data(self) -> int:
        return self.gpus // (self.tensor * self.pipeline)

    @property
    def part_tokens(self) -> int:
        """The tokens of one micro-batch."""
        return self.sequences // (self.data * self.parts) * self.tokens


def fits(plan: Plan, cluster: Cluster) -> None:
    """Raise ValueError, in one line, if the plan's groups cannot be laid into nodes evenly.

    GPUs are numbered so that the parts of a matrix are neighbours, then the copies, then the
    stages. In more than one node, a group of neighbours fills whole nodes, or divides one.
    """
    if plan.gpus <= cluster.per_node:
        return
    for name, size in {"tensor": plan.tensor, "tensor · data": plan.tensor * plan.data}.items():
        if size % cluster.per_node and cluster.per_node % size:
            raise ValueError(
                f"{name}: expected a divisor or a multiple of {cluster.per_node} GPUs a node, "
                f"got {size}"
            )


def step_flops(plan: Plan) -> int:
    """Return the operations of a training step that the model needs.

        B n (6 (12 L d² + V d) + 12 L n d)

    Those of chapter 21, with the whole table of attention, and without what is computed again.

    >>> step_flops(Plan(12, 12, 64, 50257, 1024, 8))
    6999559372800
    """
    L, d, V, n = plan.layers, plan.width, plan.vocabulary, plan.tokens
    return plan.sequences * n * (6 * (12 * L * d * d + V * d) + 12 * L * n * d)


def parameters_each(plan: Plan) -> int:
    """Return the parameters in the fullest GPU, the first, before ZeRO.

        ⌈V/t⌉ d + n d + (L/p) (12 d²/t + 7 d/t + 6 d), and 2 d of the last norm where p = 1

    t parts of each matrix, of the table of words, and of the biases of cut features; whole in each
    are the table of places, the norms, and the biases behind an all-reduce. The last of p stages
    has the words once more, in place of the places.

    Derived in chapter 22_scaling_out.

    >>> parameters_each(Plan(12, 12, 64, 50257, 1024, 8))
    124439808
    """
    d, t = plan.width, plan.tensor
    layer = 12 * d * d // t + 7 * d // t + 6 * d
    ends = -(-plan.vocabulary // t) * d + plan.tokens * d + (2 * d if plan.pipeline == 1 else 0)
    return ends + plan.layers // plan.pipeline * layer


def memory_each(plan: Plan) -> dict[str, float]:
    """Return the bytes that the fullest GPU keeps, by purpose.

    weights, gradients, optimizer : 2, 2 and 12 a parameter, each over the copies where sharded
    activations : what the layers keep of the micro-batches in flight, min(parts, pipeline) under
        the schedule that turns back as soon as it can (1F1B). A layer keeps of each token

            20 d + 16 + (24 d + 4 h) / t bytes

        in bfloat16, without dropout and with fused attention; if it is computed again, its input,
        2 d bytes, and of one layer all. Logits, and buffers of messages, come on top.

    Source: Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1 (16 bytes) and 5 (the stages);
    Narayanan et al. 2021, arXiv:2104.04473, section 2.2.1 (1F1B).
    Derived in chapter 22_scaling_out; the bytes of a layer with t = 1 in 21_counting_cost.
    """
    psi, copies, stage = parameters_each(plan), plan.data, plan.stage
    d, t = plan.width, plan.tensor
    full = 20 * d + 16 + (24 * d + 4 * plan.heads) / t
    alive = min(plan.parts, plan.pipeline) * (plan.layers // plan.pipeline)
    kept = NUMBER * d * alive + full if plan.recompute else full * alive
    return {
        "weights": NUMBER * psi / (copies if stage >= 3 else 1),
        "gradients": NUMBER * psi / (copies if stage >= 2 else 1),
        "optimizer": OPTIMIZER * psi / (copies if stage >= 1 else 1),
        "activations": kept * plan.part_tokens,
    }


def _tensor_reductions(plan: Plan) -> int:
    """All-reduces of a layer and a micro-batch: two forward, two backward, two if again."""
    return 6 if plan.recompute else 4


def _data_passes(plan: Plan) -> tuple[int, int]:
    """Passes over the copies in a step: beside the backward passes, and beside the forward."""
    return {
        0: (2, 0),  # an all-reduce of gradients
        1: (1, 1),  # gradients scattered, weights gathered
        2: (plan.parts, 1),  # gradients are scattered part by part, or they would be whole
        3: (2 * plan.parts, plan.parts),  # and weights are gathered for every pass
    }[plan.stage]


def traffic_each(plan: Plan) -> dict[str, float]:
    """Return the bytes that a GPU sends in a step, by the kind of parallelism.

    tensor : r (L/p) (B n / D) 2 d · 2 (t − 1)/t, with r = 4 all-reduces a layer, 6 if it is
        computed again
    pipeline : min(p − 1, 2) (B n / D) 2 d: activations to the next stage, gradients to the last
    data : k · 2 Ψ (D − 1)/D, with k = 2, 2, m + 1 and 3 m passes at stages 0 to 3 and m parts

    D copies, t parts of a matrix, p stages; Ψ are `parameters_each`. Left out is what the table of
    words adds: one all-reduce behind it and the sums of the loss, not one for each layer.

    Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3; Rajbhandari et al. 2020,
    arXiv:1910.02054, section 7. Derived in chapter 22_scaling_out.
    """
    t, p, copies = plan.tensor, plan.pipeline, plan.data
    message = NUMBER * plan.width * plan.part_tokens
    reductions = _tensor_reductions(plan) * (plan.layers // p) * plan.parts
    return {
        "tensor": reductions * message * (2 * (t - 1) / t),
        "pipeline": min(p - 1, 2) * plan.parts * message,
        "data": sum(_data_passes(plan)) * NUMBER * parameters_each(plan) * ((copies - 1) / copies),
    }


def pass_seconds(size: float, inside: int, nodes: int, cluster: Cluster) -> float:
    """Return the seconds of a reduce-scatter, or of an all-gather, in two levels.

        (q − 1) (α + b / (q W)) + (k − 1) (α + b / (q k w))

    size : bytes b of the whole vector
    inside, nodes : q members in each of k nodes. First each node's q, over rings of bandwidth W,
        so that a member has a q-th; then each with its likes in the other nodes, over w.

    An all-reduce is two of them. With k = 1 or q = 1 it is one ring.

    Source: Patarasuk & Yuan 2009 (the ring); Thakur et al. 2005 (α and β).
    Derived in chapter 22_scaling_out.

    >>> pass_seconds(800.0, 4, 1, Cluster(inside=100.0, latency=0.5))
    7.5
    """
    near = (inside - 1) * (cluster.latency + size / inside / cluster.inside)
    far = (nodes - 1) * (cluster.latency + size / (inside * nodes) / cluster.between)
    return near + far


def bubble(pipeline: int, parts: int) -> float:
    """Return the idle time of a pipeline as a share of the time in which it works, (p − 1) / m.

    Source: Narayanan et al. 2021, arXiv:2104.04473, section 2.2.1.
    Derived in chapter 22_scaling_out.

    >>> bubble(4, 12)
    0.25
    """
    _require_count("pipeline", pipeline)
    _require_count("parts", parts)
    return (pipeline - 1) / parts


def exposed_seconds(window: float, traffic: float, buckets: int) -> float:
    """Return how much longer a backward pass takes for traffic that travels beside it.

        s + (K − 1) max(0, s − c),   c = window / K,  s = traffic / K

    K buckets are computed in c seconds each, and each is sent in s on one wire, as soon as it is
    there and the wire is free. The last one always shows.

    Source: Li et al. 2020, arXiv:2006.15704, section 3.2 (buckets, and their overlap).
    Derived in chapter 22_scaling_out.

    >>> exposed_seconds(8.0, 4.0, 4), exposed_seconds(8.0, 16.0, 4)
    (1.0, 10.0)
    """
    _require_count("buckets", buckets)
    each = traffic / buckets
    return each + (buckets - 1) * max(0.0, each - window / buckets)


def step_seconds(plan: Plan, cluster: Cluster) -> dict[str, float]:
    """Return the seconds of a training step, and what they are spent on.

    compute : the operations, with those that are done again, at flops · used in every GPU
    tensor, pipeline : the all-reduces of activations, the messages between stages; computation
        waits for both
    bubble : (compute + tensor + pipeline) (p − 1) / m
    data : gradients and weights over the copies, one bucket a layer
    exposed : what of it still shows if it travels beside computation: gradients beside the backward
        passes whose parts they are sent after, weights beside the forward passes
    step, overlapped : compute + tensor + pipeline + bubble, with data, or with exposed
    efficiency : the time that the model's own operations take at that rate / overlapped
    mfu : efficiency · used

    Update and reading of data are left out. ValueError as in `fits`.

    Derived in chapter 22_scaling_out.
    """
    fits(plan, cluster)
    stages, m, copies, node = plan.pipeline, plan.parts, plan.data, cluster.per_node
    layers = plan.layers // stages
    needed = step_flops(plan) / plan.gpus / (cluster.flops * cluster.used)
    again = 1 if plan.recompute else 0  # forward passes that are done once more
    compute = needed * (3 + again) / 3

    message = NUMBER * plan.width * plan.part_tokens
    near = min(plan.tensor, node)
    reduce = 2 * pass_seconds(message, near, plan.tensor // near, cluster)
    tensor = _tensor_reductions(plan) * layers * m * reduce
    wire = cluster.inside if plan.gpus <= node else cluster.between
    pipeline = min(stages - 1, 2) * m * (cluster.latency + message / wire)
    idle = (compute + tensor + pipeline) * bubble(stages, m)

    bucket = NUMBER * parameters_each(plan) / layers
    near = copies if plan.gpus <= node else min(copies, max(1, node // plan.tensor))
    one = layers * pass_seconds(bucket, near, copies // near, cluster)
    beside_backward, beside_forward = _data_passes(plan)
    forward, backward = needed / 3 / m, needed * (2 + again) / 3 / m  # of one part
    parts_backward = m if plan.stage >= 2 else 1  # whose passes gradients travel beside
    parts_forward = m if plan.stage == 3 else 1
    exposed = exposed_seconds(
        parts_backward * backward, beside_backward * one, parts_backward * layers
    ) + exposed_seconds(parts_forward * forward, beside_forward * one, parts_forward * layers)
    data = (beside_backward + beside_forward) * one

    waited = compute + tensor + pipeline + idle
    overlapped = waited + exposed
    return {
        "compute": compute,
        "tensor": tensor,
        "pipeline": pipeline,
        "bubble": idle,
        "data": data,
        "exposed": exposed,
        "step": waited + data,
        "overlapped": overlapped,
        "efficiency": needed / overlapped,
        "mfu": needed / overlapped * cluster.used,
    }


def limit(plan: Plan, cluster: Cluster) -> str:
    """Return what limits the plan: "memory" if it does not fit, else what takes longest.

    One of "compute", "tensor", "pipeline", "bubble" and "exposed", as in `step_seconds`.
    """
    if sum(memory_each(plan).values()) > cluster.memory:
        return "memory"
    seconds = step_seconds(plan, cluster)
    return max(("compute", "tensor", "pipeline", "bubble", "exposed"), key=seconds.__getitem__)


def _require_count(name: str, size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")
