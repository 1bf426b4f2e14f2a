"""lib.losses held to its contract.

Loops in Python floats say what is right; torch's losses are the second opinion. Sizes are distinct
primes. "Broken" tests compute a known mistake beside the right loss and see that they differ.
"""

import doctest
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import losses
from lib.losses import (
    causal_lm_loss,
    cosine_loss,
    count_tokens,
    distilbert_loss,
    distillation_loss,
    label_smoothing_loss,
    masked_lm_loss,
    next_sentence_loss,
    replaced_token_loss,
    replaced_tokens,
)

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
)
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
leading_shapes = pytest.mark.parametrize("leading", [(), (5,), (3, 5), (2, 3, 5)], ids=str)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])

B, N, V, D = 3, 5, 11, 7


def randn(*shape, seed=0, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


def make_labels(leading=(B, N), *, seed=1, ignore_index=-100, share=0.4):
    """Labels of which at least one counts and at least one does not, if there are two."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, V, leading, generator=generator)  # 0 may be ignore_index
    hidden = torch.rand(leading, generator=generator) < share
    if labels.numel() > 1:
        hidden.view(-1)[0], hidden.view(-1)[1] = True, False
    return labels.masked_fill(~hidden, ignore_index)


def make_mask(leading=(B, N), *, seed=2):
    mask = torch.rand(leading, generator=torch.Generator().manual_seed(seed)) < 0.6
    if mask.numel() > 1:
        mask.view(-1)[0], mask.view(-1)[1] = True, False
    return mask


def assert_close(got, want, *, atol=1e-13, rtol=0.0):
    torch.testing.assert_close(got, want, atol=atol, rtol=rtol)


def reduced(values, counts, reduction):
    """The reduction by its definition."""
    values = torch.where(counts, values, torch.zeros_like(values))
    if reduction == "none":
        return values
    return values.sum() / (max(int(counts.sum()), 1) if reduction == "mean" else 1)


def log_softmax(row):
    largest = max(row)
    total = math.log(math.fsum(math.exp(v - largest) for v in row)) + largest
    return [v - total for v in row]


def rows_of(tensor):
    return tensor.reshape(-1, tensor.shape[-1]).tolist()


def case(name, *, leading=(B, N), dtype=torch.float64, device="cpu"):
    """(function of (student, reduction), student, teacher or None, which tokens count)."""
    mask = make_mask(leading).to(device)
    if name == "mlm":
        labels = make_labels(leading).to(device)
        student = randn(*leading, V, dtype=dtype, device=device)
        return lambda s, r: masked_lm_loss(s, labels, reduction=r), student, labels != -100
    if name == "rtd":
        replaced = make_mask(leading, seed=5).to(device)
        student = randn(*leading, dtype=dtype, device=device)
        return lambda s, r: replaced_token_loss(s, replaced, mask, reduction=r), student, mask
    size = V if name == "distillation" else D
    student = randn(*leading, size, dtype=dtype, device=device)
    teacher = 2 * randn(*leading, size, seed=3, dtype=dtype, device=device)
    if name == "distillation":
        return (
            lambda s, r: distillation_loss(s, teacher, 2.5, mask=mask, reduction=r),
            student,
            mask,
        )
    return lambda s, r: cosine_loss(s, teacher, mask=mask, reduction=r), student, mask


NAMES = ["mlm", "rtd", "distillation", "cosine"]
every_loss = pytest.mark.parametrize("name", NAMES)


# ---------------------------------------------------------------- the next token


@pytest.mark.parametrize("leading", [(1,), (2,), (5,), (3, 5), (2, 3, 5)], ids=str)
@every_reduction
@pytest.mark.parametrize("ignore_index", [-100, 0, -1])
def test_causal_lm_by_hand_and_by_torch(leading, reduction, ignore_index):
    """Each position is asked for the token behind it, one guess fewer than there are tokens."""
    logits = randn(*leading, V)
    labels = make_labels(leading, ignore_index=ignore_index, share=0.7)
    n = leading[-1]
    values = torch.zeros(*leading[:-1], n - 1, dtype=torch.float64)
    for place in itertools.product(*map(range, values.shape)):
        *sequence, t = place
        label = labels[(*sequence, t + 1)].item()
        if label != ignore_index:
            values[place] = -log_softmax(logits[place].tolist())[label]
    got = causal_lm_loss(logits, labels, ignore_index, reduction=reduction)
    assert_close(got, reduced(values, labels[..., 1:] != ignore_index, reduction))
    if (labels[..., 1:] != ignore_index).any():
        other = F.cross_entropy(
            logits[..., :-1, :].reshape(-1, V),
            labels[..., 1:].reshape(-1),
            ignore_index=ignore_index,
            reduction=reduction,
        )
        assert_close(got, other.reshape(got.shape))


def test_causal_lm_is_the_likelihood_by_the_chain_rule():
    """Over all 3⁴ continuations of a first token, exp(−sum) is a distribution: it adds up to 1."""
    table = randn(3, 3)  # logits of a bigram model of three words
    sequences = torch.tensor([[1, *rest] for rest in itertools.product(range(3), repeat=4)])
    nats = torch.stack([causal_lm_loss(table[ids], ids, reduction="sum") for ids in sequences])
    assert_close(torch.exp(-nats).sum().item(), 1.0)


def test_causal_lm_gradient_is_p_minus_onehot():
    logits, labels = randn(B, N, V).requires_grad_(), make_labels((B, N), share=0.7)
    (grad,) = torch.autograd.grad(causal_lm_loss(logits, labels), logits)
    selected = labels[:, 1:] != -100
    onehot = F.one_hot(labels[:, 1:].clamp(min=0), V)
    want = (logits[:, :-1].softmax(-1) - onehot) * selected[..., None] / selected.sum()
    assert_close(grad[:, :-1], want.detach(), atol=1e-16)
    assert (grad[:, -1] == 0).all()  # the guess of a token that is not there
    assert torch.autograd.gradgradcheck(lambda x: causal_lm_loss(x, labels), logits)


def test_broken_labels_not_shifted():
    """D39: unshifted labels stand in the input, so copying is free; the right loss sees it."""
    ids = torch.randint(V, (40, 50), generator=torch.Generator().manual_seed(0))
    copied = 20.0 * F.one_hot(ids, V).double()
    assert masked_lm_loss(copied, ids) < 1e-6
    right = causal_lm_loss(copied, ids)
    assert right > 20.0 * (1 - 2 / V)
    knows = 20.0 * F.one_hot(ids.roll(-1, dims=1), V).double()
    assert causal_lm_loss(knows, ids) < 1e-6
    twice = causal_lm_loss(knows, ids.roll(-1, dims=1))  # shifted by the caller as well
    assert twice > 20.0 * (1 - 2 / V)


@every_dtype
def test_causal_lm_in_every_dtype_and_compiled(dtype):
    labels = make_labels(share=0.7)
    leaf = randn(B, N, V, dtype=dtype).requires_grad_()
    got = causal_lm_loss(leaf, labels)
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    assert gradient(got, leaf).dtype == dtype
    assert_close(got.double(), causal_lm_loss(leaf.double(), labels), atol=1e-6)
    compiled = torch.compile(causal_lm_loss, fullgraph=True, backend="eager")
    assert_close(compiled(leaf, labels), got)
    torch._dynamo.reset()


def test_causal_lm_microbatches_and_nothing_to_guess():
    logits, labels = randn(B, N, V), make_labels(share=0.7)
    labels[1, 1:] = -100
    whole = count_tokens(labels[:, 1:] != -100)
    parts = sum(causal_lm_loss(logits[i], labels[i], reduction="sum") for i in range(B))
    assert_close(parts / whole, causal_lm_loss(logits, labels))
    leaf = logits[1].clone().requires_grad_()
    nothing = causal_lm_loss(leaf, labels[1])
    assert nothing == 0.0 and (gradient(nothing, leaf) == 0).all()


# ---------------------------------------------------------------- smoothed labels


@leading_shapes
@every_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_by_hand_and_by_torch(leading, reduction, smoothing):
    logits, labels = randn(*leading, V), make_labels(leading)
    if labels.numel() == 1:
        labels = torch.tensor(4)
    flat = []
    for row, y in zip(rows_of(logits), labels.reshape(-1).tolist(), strict=True):
        target = [smoothing / V + (1 - smoothing) * (v == y) for v in range(V)]
        log_p = log_softmax(row)
        flat.append(-math.fsum(q * x for q, x in zip(target, log_p, strict=True)))
    values = torch.tensor(flat, dtype=torch.float64).reshape(leading)
    got = label_smoothing_loss(logits, labels, smoothing, reduction=reduction)
    assert_close(got, reduced(values, labels != -100, reduction))
    other = F.cross_entropy(
        logits.reshape(-1, V), labels.reshape(-1), reduction=reduction, label_smoothing=smoothing
    )
    assert_close(got, other.reshape(got.shape))
    if smoothing == 0.0:
        assert torch.equal(got, masked_lm_loss(logits, labels, reduction=reduction))


def test_label_smoothing_is_least_at_the_smoothed_target():
    q = 0.9 * F.one_hot(torch.arange(V), V).double() + 0.1 / V
    leaf = q.log().requires_grad_()
    loss = label_smoothing_loss(leaf, torch.arange(V))
    assert_close(loss.detach(), -(q * q.log()).sum(-1).mean())
    assert gradient(loss, leaf).abs().max() < 1e-15
    surer = label_smoothing_loss(2 * leaf, torch.arange(V))
    assert surer > loss
    logits, labels = randn(B, N, V).requires_grad_(), make_labels(ignore_index=7)
    for smoothing in (0.0, 0.3):
        assert torch.autograd.gradgradcheck(
            lambda x, s=smoothing: label_smoothing_loss(x, labels, s, 7), logits
        )


def test_label_smoothing_microbatches_dtypes_and_nothing():
    """The bug of others that this rules out: a mean of means, or a loss over padding."""
    logits, labels = randn(B, N, V), make_labels()
    whole = count_tokens(labels != -100)
    parts = sum(label_smoothing_loss(logits[i], labels[i], reduction="sum") for i in range(B))
    assert_close(parts / whole, label_smoothing_loss(logits, labels))
    assert label_smoothing_loss(logits, torch.full((B, N), -100)) == 0.0
    half = label_smoothing_loss(logits.half(), labels)
    assert half.dtype == torch.float32
    assert_close(half.double(), label_smoothing_loss(logits.half().double(), labels), atol=1e-6)


# ---------------------------------------------------------------- masked tokens


@leading_shapes
@every_reduction
@pytest.mark.parametrize("ignore_index", [-100, 0, -1])
def test_masked_lm_by_hand_and_by_torch(leading, reduction, ignore_index):
    logits, labels = randn(*leading, V), make_labels(leading, ignore_index=ignore_index)
    if labels.numel() == 1:
        labels = torch.tensor(4)
    flat = [
        0.0 if y == ignore_index else -log_softmax(row)[y]
        for row, y in zip(rows_of(logits), labels.reshape(-1).tolist(), strict=True)
    ]
    values = torch.tensor(flat, dtype=torch.float64).reshape(leading)
    got = masked_lm_loss(logits, labels, ignore_index, reduction=reduction)
    assert_close(got, reduced(values, labels != ignore_index, reduction))
    other = F.cross_entropy(
        logits.reshape(-1, V), labels.reshape(-1), ignore_index=ignore_index, reduction=reduction
    )
    assert_close(got, other.reshape(got.shape))


def test_masked_lm_knows_nothing_at_ln_v():
    """A model with small logits starts at ln V, here BERT's: 10.326."""
    labels = torch.full((2, 3), -100)
    labels[:, 1] = torch.tensor([7, 30521])
    assert_close(masked_lm_loss(torch.zeros(2, 3, 30522).double(), labels).item(), math.log(30522))
    assert abs(math.log(30522) - 10.326) < 5e-4


def test_masked_lm_gradient_is_p_minus_onehot():
    logits, labels = randn(B, N, V).requires_grad_(), make_labels()
    (grad,) = torch.autograd.grad(masked_lm_loss(logits, labels), logits)
    selected = labels != -100
    onehot = F.one_hot(labels.clamp(min=0), V)
    want = (logits.softmax(-1) - onehot) * selected[..., None] / selected.sum()
    assert_close(grad, want.detach(), atol=1e-16)
    assert (grad[~selected] == 0).all()


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_labels_of_any_integer_type(dtype):
    logits, labels = randn(B, N, V), make_labels(ignore_index=99)
    got = masked_lm_loss(logits, labels.to(dtype), 99)
    assert torch.equal(got, masked_lm_loss(logits, labels, 99))


@pytest.mark.parametrize("label", [V, -1])
def test_a_label_outside_the_vocabulary_is_an_error(label):
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        masked_lm_loss(randn(2, V), torch.tensor([0, label]))


def test_broken_loss_on_all_tokens():
    """D37: a model that copies its input, at 20 nats of certainty, is cheap on visible tokens."""
    generator = torch.Generator().manual_seed(0)
    original = torch.randint(1, V, (40, 50), generator=generator)
    hidden = torch.rand(original.shape, generator=generator) < 0.15
    visible = original.masked_fill(hidden, 0)  # 0 is [MASK]
    copied = 20.0 * F.one_hot(visible, V).double()
    right = masked_lm_loss(copied, original.masked_fill(~hidden, -100))
    assert abs(right - 20) < 1e-6
    assert masked_lm_loss(copied, original) < 0.2 * right
    seen = masked_lm_loss(copied, original.masked_fill(hidden, -100))  # what it is diluted with
    assert seen < 1e-6


def test_broken_softmax_before_cross_entropy():
    """D29: with softmax applied twice, a perfect prediction of ten classes costs 1.461."""
    perfect = 1e3 * torch.eye(10, dtype=torch.float64)
    labels = torch.arange(10)
    assert masked_lm_loss(perfect, labels) == 0.0
    twice = masked_lm_loss(perfect.softmax(-1), labels)
    assert abs(twice - math.log(1 + 9 / math.e)) < 1e-12 and abs(twice - 1.461) < 1e-3


# ---------------------------------------------------------------- replaced tokens


@leading_shapes
@every_reduction
@pytest.mark.parametrize("masked", [False, True])
def test_replaced_token_by_hand_and_by_torch(leading, reduction, masked):
    logits, replaced = 3 * randn(*leading), make_mask(leading, seed=5)
    mask = make_mask(leading) if masked else None
    flat = [
        math.log1p(math.exp(-z if y else z))
        for z, y in zip(logits.reshape(-1).tolist(), replaced.reshape(-1).tolist(), strict=True)
    ]
    values = torch.tensor(flat, dtype=torch.float64).reshape(leading)
    counts = torch.ones(leading, dtype=torch.bool) if mask is None else mask
    got = replaced_token_loss(logits, replaced, mask, reduction=reduction)
    assert_close(got, reduced(values, counts, reduction))
    other = F.binary_cross_entropy_with_logits(logits, replaced.double(), reduction="none")
    assert_close(got, reduced(other, counts, reduction))


def test_positive_means_replaced():
    """The sign of the released checkpoints."""
    sure = torch.tensor([5.0, -5.0], dtype=torch.float64)
    right = replaced_token_loss(sure, torch.tensor([True, False]))
    wrong = replaced_token_loss(sure, torch.tensor([False, True]))
    assert right < 0.01 and abs(wrong - right - 5.0) < 1e-12
    labels = torch.tensor([True, False])
    assert replaced_token_loss(torch.zeros(2).double(), labels).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", [torch.bool, *INTEGERS, *DTYPES], ids=str)
def test_labels_and_masks_of_every_type(dtype):
    logits, replaced, mask = randn(B, N), make_mask(seed=5), make_mask()
    want = replaced_token_loss(logits, replaced, mask)
    assert torch.equal(replaced_token_loss(logits, replaced.to(dtype), mask), want)
    if not dtype.is_floating_point:
        assert torch.equal(replaced_token_loss(logits, replaced, mask.to(dtype)), want)


def test_replaced_token_gradient():
    logits, replaced, mask = randn(B, N).requires_grad_(), make_mask(seed=5), make_mask()
    (grad,) = torch.autograd.grad(replaced_token_loss(logits, replaced, mask), logits)
    want = (torch.sigmoid(logits) - replaced.double()) * mask / mask.sum()
    assert_close(grad, want.detach(), atol=1e-16)


def test_replaced_tokens_are_those_that_differ():
    """A position whose sample hit the original counts as original."""
    original = torch.tensor([[3, 1, 4, 1, 5]])
    corrupted = torch.tensor([[3, 2, 4, 1, 9]])
    assert replaced_tokens(original, corrupted).tolist() == [[False, True, False, False, True]]
    assert not replaced_tokens(original, original).any()
    assert torch.equal(replaced_tokens(original, corrupted.int()), original != corrupted)


def test_the_minimum_is_the_bayes_optimum():
    """Clark et al.'s game, counted out: token x occurs with p(x), is masked with m, drawn from q.

    P(x stands there and is original) = p ((1 − m) + m q),  and replaced: m q (1 − p). The logit of
    the posterior is where the expected loss has gradient 0, and it is the least.
    """
    m, p = 0.15, randn(V, seed=1).softmax(0)
    q = randn(V, seed=2).softmax(0)
    original, replaced = p * ((1 - m) + m * q), m * q * (1 - p)
    assert_close((original + replaced).sum().item(), 1.0)

    def expected(logits):
        zero, one = torch.zeros(V, dtype=torch.bool), torch.ones(V, dtype=torch.bool)
        each = [replaced_token_loss(logits, y, reduction="none") for y in (zero, one)]
        return (original * each[0] + replaced * each[1]).sum()

    best = (replaced / original).log().requires_grad_()
    (grad,) = torch.autograd.grad(expected(best), best)
    assert_close(grad, torch.zeros_like(grad), atol=1e-16)
    for seed in range(20):
        other = best.detach() + 0.1 * randn(V, seed=seed)
        assert expected(other) > expected(best.detach())


def test_broken_labels_by_copy():
    """D23: calling every token of a corrupted copy replaced; D24: what is learned from it.

    Most such labels are wrong, and the least loss of a constant logit says so: it answers with the
    share of labels, .5, where the share of replaced tokens is near .1.
    """
    generator = torch.Generator().manual_seed(0)
    original = torch.randint(V, (200, 40), generator=generator)
    masked = torch.rand(original.shape, generator=generator) < 0.15
    sample = torch.randint(V, original.shape, generator=generator)
    corrupted = torch.where(masked, sample, original)
    both = torch.cat([original, corrupted])
    by_token = replaced_tokens(torch.cat([original, original]), both)
    by_copy = torch.zeros_like(by_token)
    by_copy[len(original) :] = True
    assert (by_copy != by_token).double().mean() > 0.4
    assert (by_copy == by_token).double().mean() > 0.4  # the other polarity is no better
    by_position = torch.cat([torch.zeros_like(masked), masked])
    hits = (by_position & ~by_token).sum() / masked.sum()  # "replaced" by itself: 1 in V
    assert abs(hits - 1 / V) < 5 * math.sqrt(1 / V / masked.sum())

    for labels in (by_token, by_copy):
        share = labels.double().mean()
        best = torch.log(share / (1 - share)).requires_grad_()
        (grad,) = torch.autograd.grad(replaced_token_loss(best.expand(labels.shape), labels), best)
        assert abs(grad) < 1e-14
    assert by_token.double().mean() < 0.08 and by_copy.double().mean() == 0.5


# ---------------------------------------------------------------- distillation


@leading_shapes
@every_reduction
@pytest.mark.parametrize("temperature", [0.3, 1, 2.0, 20.0])
def test_distillation_by_hand_and_by_torch(leading, reduction, temperature):
    student, teacher = randn(*leading, V), 2 * randn(*leading, V, seed=3)
    mask = make_mask(leading)
    flat = []
    for z, v in zip(rows_of(student), rows_of(teacher), strict=True):
        log_q = log_softmax([a / temperature for a in z])
        log_p = log_softmax([a / temperature for a in v])
        terms = [math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True)]
        flat.append(temperature**2 * math.fsum(terms))
    values = torch.tensor(flat, dtype=torch.float64).reshape(leading)
    everything = torch.ones(leading, dtype=torch.bool)
    for m, counts in ((None, everything), (mask, mask)):
        got = distillation_loss(student, teacher, temperature, mask=m, reduction=reduction)
        assert_close(got, reduced(values, counts, reduction), atol=1e-12)
    log_q = F.log_softmax(student.reshape(-1, V) / temperature, -1)
    p = F.softmax(teacher.reshape(-1, V) / temperature, -1)
    other = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    assert_close(distillation_loss(student, teacher, temperature), other, atol=1e-12)


def test_the_mean_is_over_rows_not_over_the_batch():
    """torch's batchmean of (B, n, V) divides by B alone: n times as much."""
    student, teacher = randn(B, N, V), randn(B, N, V, seed=3)
    got = distillation_loss(student, teacher, 1.0)
    by_torch = F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean")
    assert_close(got * N, by_torch)
    assert_close(got, distillation_loss(student.flatten(0, 1), teacher.flatten(0, 1), 1.0))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 10.0])
def test_distillation_gradient(temperature):
    """dKL/dz = (q − p)/T, times T² and over n rows; none of it in the teacher."""
    student = randn(B, N, V).requires_grad_()
    teacher = (2 * randn(B, N, V, seed=3)).requires_grad_()
    loss = distillation_loss(student, teacher, temperature)
    grad, nothing = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert nothing is None
    q, p = ((x / temperature).softmax(-1).detach() for x in (student, teacher))
    assert_close(grad, temperature**2 * (q - p) / temperature / (B * N), atol=1e-15)


def test_distillation_at_high_temperature():
    """L → ‖z − v‖²/2V for logits of mean zero, its gradient → (z − v)/V; the error is O(1/T)."""
    student, teacher = (randn(1, V, seed=s) for s in (0, 3))
    z, v = (x - x.mean(-1, keepdim=True) for x in (student, teacher))
    limit = (z - v).square().sum() / (2 * V)
    errors = []
    for temperature in (8.0, 16.0, 32.0, 64.0):
        leaf = z.clone().requires_grad_()
        loss = distillation_loss(leaf, v, temperature)
        (grad,) = torch.autograd.grad(loss, leaf)
        errors.append([(loss - limit).abs().item(), (grad - (z - v) / V).abs().max().item()])
    for before, after in itertools.pairwise(errors):
        for e, f in zip(before, after, strict=True):
            assert 1.7 < e / f < 2.3
    at_1000 = distillation_loss(z, v, 1000.0)
    assert abs(at_1000 / limit - 1) < 2e-3
    # A constant added to either changes nothing: hence "of mean zero".
    assert_close(distillation_loss(student + 7, teacher - 3, 1000.0), at_1000, atol=1e-6)


def test_distillation_at_low_temperature():
    """T → 0: p and q are the argmaxima, and the gradient tells where they differ."""
    student = torch.tensor([[1.0, 3.0, 2.0], [0.0, 5.0, 1.0]]).double().requires_grad_()
    teacher = torch.tensor([[4.0, 1.0, 0.0], [1.0, 2.0, 0.0]]).double()
    temperature = 1e-3
    loss = distillation_loss(student, teacher, temperature, reduction="sum")
    (grad,) = torch.autograd.grad(loss, student)
    assert_close(grad / temperature, torch.tensor([[-1.0, 1, 0], [0, 0, 0]]).double())
    assert loss.isfinite()


def test_kl_and_cross_entropy_differ_by_the_entropy_of_the_teacher():
    temperature = 2.0
    student, teacher = randn(B * N, V).requires_grad_(), 2 * randn(B * N, V, seed=3)
    p = (teacher / temperature).softmax(-1)
    cross_entropy = -(p * (student / temperature).log_softmax(-1)).sum(-1).mean()
    entropy = -(p * p.log()).sum(-1).mean()
    loss = distillation_loss(student, teacher, temperature)
    assert_close(loss, temperature**2 * (cross_entropy - entropy))
    got = torch.autograd.grad(loss, student)[0]
    assert_close(got, temperature**2 * torch.autograd.grad(cross_entropy, student)[0])


def gradient(loss, leaf):
    return torch.autograd.grad(loss, leaf)[0]


def test_broken_a_distillation_without_a_teacher():
    """D25: if the teacher can be swapped and no gradient moves, nothing was distilled."""
    student, labels = randn(B * N, V).requires_grad_(), make_labels((B * N,), share=1.1)
    teachers = [randn(B * N, V, seed=s) for s in (3, 4)]

    def without_a_teacher(student, teacher):
        return F.cross_entropy(student / 2.0, labels, ignore_index=-100)

    moves = []
    for loss in (without_a_teacher, lambda s, t: distillation_loss(s, t, 2.0)):
        first, second = (gradient(loss(student, t), student) for t in teachers)
        moves.append((first - second).abs().max().item())
    assert moves[0] == 0.0 and moves[1] > 0.01


def test_broken_no_square_of_the_temperature():
    """D25b: without T² the gradient falls as 1/T², and the other losses win by default."""
    student, teacher = randn(B * N, V).requires_grad_(), randn(B * N, V, seed=3)

    def size(temperature, factor):
        loss = distillation_loss(student, teacher, temperature) * factor
        return gradient(loss, student).norm().item()

    with_it = [size(t, 1.0) for t in (1.0, 2.0, 4.0, 8.0)]
    without = [size(t, 1 / t**2) for t in (1.0, 2.0, 4.0, 8.0)]
    assert max(with_it) / min(with_it) < 1.6
    assert without[0] / without[-1] > 40


def test_broken_kl_reduced_over_classes():
    """D25c: torch's 'mean' divides by V as well."""
    student, teacher = randn(B * N, V), randn(B * N, V, seed=3)
    got = distillation_loss(student, teacher, 1.0)
    wrong = F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="none").mean()
    assert_close(got, V * wrong)


# ---------------------------------------------------------------- directions


@leading_shapes
@every_reduction
def test_cosine_by_hand_and_by_torch(leading, reduction):
    student, teacher, mask = randn(*leading, D), randn(*leading, D, seed=3), make_mask(leading)
    flat = []
    for s, t in zip(rows_of(student), rows_of(teacher), strict=True):
        product = math.fsum(a * b for a, b in zip(s, t, strict=True))
        flat.append(1 - product / (math.hypot(*s) * math.hypot(*t)))
    values = torch.tensor(flat, dtype=torch.float64).reshape(leading)
    everything = torch.ones(leading, dtype=torch.bool)
    for m, counts in ((None, everything), (mask, mask)):
        got = cosine_loss(student, teacher, mask=m, reduction=reduction)
        assert_close(got, reduced(values, counts, reduction))
    rows = [x.reshape(-1, D) for x in (student, teacher)]
    other = F.cosine_embedding_loss(*rows, torch.ones(len(rows[0])))
    assert_close(cosine_loss(student, teacher), other, atol=1e-11)  # torch adds 1e-12 to squares


def test_cosine_gradient_is_orthogonal_to_the_student():
    student = randn(B, N, D).requires_grad_()
    teacher = randn(B, N, D, seed=3).requires_grad_()
    loss = cosine_loss(student, teacher)
    grad, nothing = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert nothing is None
    assert (grad * student).sum(-1).abs().max() < 1e-16
    s, t = (F.normalize(x.detach(), dim=-1) for x in (student, teacher))
    tangent = t - (s * t).sum(-1, keepdim=True) * s
    length = student.detach().norm(dim=-1, keepdim=True)
    assert_close(grad, -tangent / length / (B * N), atol=1e-16)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_cosine_sees_directions_only(scale):
    student, teacher = randn(B, N, D), randn(B, N, D, seed=3)
    want = cosine_loss(student, teacher)
    assert_close(cosine_loss(scale * student, teacher), want)
    assert_close(cosine_loss(student, scale * teacher), want)
    assert_close(cosine_loss(student, scale * student).item(), 0.0)
    assert_close(cosine_loss(student, -scale * student).item(), 2.0)
    right_angle = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, scale]])
    assert cosine_loss(*right_angle) == 1.0


def test_cosine_of_a_vector_without_direction():
    student = torch.zeros(1, D, dtype=torch.float64, requires_grad=True)
    loss = cosine_loss(student, randn(1, D))
    assert loss == 1.0 and gradient(loss, student).isfinite().all()


# ---------------------------------------------------------------- the triple


def make_triple(*, dtype=torch.float64, device="cpu"):
    options = {"dtype": dtype, "device": device}
    return {
        "student_logits": randn(B, N, V, **options),
        "teacher_logits": 2 * randn(B, N, V, seed=3, **options),
        "student_hidden": randn(B, N, D, seed=4, **options),
        "teacher_hidden": randn(B, N, D, seed=5, **options),
        "labels": make_labels().to(device),
        "attention_mask": make_mask().to(device),
    }


def test_the_triple_is_what_the_released_code_computes():
    """Each part spelled out on selected rows, as DistilBERT's training script does it."""
    x, temperature = make_triple(), 2.0
    mask = x["attention_mask"]
    student, teacher = (x[f"{who}_logits"][mask] for who in ("student", "teacher"))
    ce = temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.softmax(teacher / temperature, -1),
        reduction="batchmean",
    )
    mlm = F.cross_entropy(x["student_logits"].view(-1, V), x["labels"].view(-1))
    hidden = [x[f"{who}_hidden"][mask] for who in ("student", "teacher")]
    cos = F.cosine_embedding_loss(*hidden, torch.ones(len(hidden[0])))
    assert_close(distilbert_loss(**x), 5 * ce + 2 * mlm + 1 * cos, atol=1e-11)
    loss, parts = distilbert_loss(**x, weights=(0.3, 0.5, 0.7), return_parts=True)
    assert_close(loss, 0.3 * ce + 0.5 * mlm + 0.7 * cos, atol=1e-11)
    assert list(parts) == ["ce", "mlm", "cos"]
    assert_close(torch.stack(list(parts.values())), torch.stack([ce, mlm, cos]), atol=1e-11)


def test_the_triple_passes_its_options_on():
    x = make_triple()
    _, parts = distilbert_loss(**x, temperature=7.0, return_parts=True)
    logits = x["student_logits"], x["teacher_logits"]
    assert_close(parts["ce"], distillation_loss(*logits, 7.0, mask=x["attention_mask"]))
    labels = x["labels"].masked_fill(x["labels"] == -100, 3)
    _, parts = distilbert_loss(**x | {"labels": labels}, ignore_index=3, return_parts=True)
    assert_close(parts["mlm"], masked_lm_loss(x["student_logits"], labels, 3))
    everything = distilbert_loss(**x | {"attention_mask": None})
    ones = torch.ones(B, N, dtype=torch.int64)
    assert torch.equal(everything, distilbert_loss(**x | {"attention_mask": ones}))
    assert not torch.equal(everything, distilbert_loss(**x))


def test_the_triple_teaches_the_student_alone():
    x = make_triple()
    leaves = [x[name].requires_grad_() for name in list(x)[:4]]
    loss, parts = distilbert_loss(**x, return_parts=True)
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert [grad is None for grad in grads] == [False, True, False, True]
    assert not any(part.requires_grad for part in parts.values())
    counts = x["attention_mask"] | (x["labels"] != -100)
    assert (grads[0][~counts] == 0).all() and (grads[2][~x["attention_mask"]] == 0).all()


# ---------------------------------------------------------------- what they share


@every_loss
def test_reductions_agree(name):
    loss, student, counts = case(name)
    each, total, mean = (loss(student, r) for r in ("none", "sum", "mean"))
    assert each.shape == (B, N) and total.shape == mean.shape == ()
    assert (each[~counts] == 0).all() and (each[counts] != 0).all()
    assert_close(each.sum(), total)
    assert_close(total / counts.sum(), mean)
    assert torch.equal(count_tokens(counts), counts.sum())


@every_loss
def test_microbatches_equal_the_large_batch(name):
    """And the trap: the mean of the microbatches' means is another number."""
    sizes = [1, 3, 2]
    leading = (sum(sizes), N)
    labels, mask, replaced = make_labels(leading), make_mask(leading), make_mask(leading, seed=5)
    labels[1:4, 1:] = -100
    mask[1:4, 1:] = False
    student = randn(*leading, *({"rtd": ()}.get(name, (V,)))).requires_grad_()
    teacher = randn(*leading, V, seed=3)

    def loss(rows, reduction):
        s, t = student[rows], teacher[rows]
        return {
            "mlm": lambda: masked_lm_loss(s, labels[rows], reduction=reduction),
            "rtd": lambda: replaced_token_loss(s, replaced[rows], mask[rows], reduction=reduction),
            "distillation": lambda: distillation_loss(
                s, t, 2.0, mask=mask[rows], reduction=reduction
            ),
            "cosine": lambda: cosine_loss(s, t, mask=mask[rows], reduction=reduction),
        }[name]()

    whole = count_tokens(labels != -100 if name == "mlm" else mask)
    ends = list(itertools.accumulate(sizes))
    batches = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    want = gradient(loss(slice(None), "mean"), student)
    accumulated = torch.zeros_like(want)
    for rows in batches:
        accumulated += gradient(loss(rows, "sum") / whole, student)
    assert_close(accumulated, want, atol=1e-15)
    naive = sum(gradient(loss(rows, "mean") / len(sizes), student) for rows in batches)
    assert (naive - want).abs().max() > 1e-3


def test_counting():
    """Everything but 0 is real, in a mask of any integer type."""
    mask = torch.tensor([[2, 0, 1], [0, -1, 0]])
    assert count_tokens(mask) == 3 and count_tokens(mask).dtype == torch.int64
    assert count_tokens(mask != 0) == 3
    logits, replaced = randn(2, 3), mask > 0
    assert torch.equal(
        replaced_token_loss(logits, replaced, mask),
        replaced_token_loss(logits, replaced, mask != 0),
    )


NOTHING = {
    "mlm": lambda s: masked_lm_loss(s, torch.full((B, N), -100)),
    "rtd": lambda s: replaced_token_loss(s[..., 0], make_mask(), torch.zeros(B, N).bool()),
    "distillation": lambda s: distillation_loss(s, s + 1, 2.0, mask=torch.zeros(B, N).bool()),
    "cosine": lambda s: cosine_loss(s, s.flip(-1), mask=torch.zeros(B, N, dtype=torch.int64)),
}


@every_loss
def test_the_mean_over_nothing_is_zero(name):
    student = randn(B, N, V).requires_grad_()
    loss = NOTHING[name](student)
    assert loss == 0.0
    assert torch.equal(gradient(loss, student), torch.zeros(B, N, V).double())


@every_loss
def test_no_tokens_at_all(name):
    loss, student, _ = case(name, leading=(0, N))
    assert loss(student, "mean") == 0.0 and loss(student, "none").shape == (0, N)


@every_loss
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**16), st.sampled_from([1.0, 1e3, 1e30]))
def test_what_does_not_count_has_no_influence(name, seed, size):
    loss, student, counts = case(name)
    junk = size * randn(*student.shape, seed=seed)
    where = counts if name == "rtd" else counts[..., None]
    leaf = torch.where(where, student, junk).requires_grad_()
    got = loss(leaf, "mean")
    assert torch.equal(got, loss(student, "mean"))
    grad = gradient(got, leaf)
    assert (grad[~counts] == 0).all() and (grad[counts] != 0).any()


@every_loss
def test_nan_counts_where_the_token_counts(name):
    loss, student, counts = case(name)
    for token, hidden in ((counts, False), (~counts, True)):
        broken = student.clone()
        broken[tuple(token.nonzero()[0])] = math.nan
        assert loss(broken, "mean").isnan() != hidden


@every_loss
@settings(deadline=None, max_examples=25)
@given(st.randoms(use_true_random=False))
def test_the_order_of_tokens_is_nothing(name, random):
    order = random.sample(range(B * N), B * N)
    student, teacher = randn(B * N, V), randn(B * N, V, seed=3)
    labels, mask, replaced = (f((B * N,)) for f in (make_labels, make_mask, make_mask))

    def run(order):
        return {
            "mlm": lambda: masked_lm_loss(student[order], labels[order]),
            "rtd": lambda: replaced_token_loss(student[order, 0], replaced[order], mask[order]),
            "distillation": lambda: distillation_loss(
                student[order], teacher[order], 2.0, mask=mask[order]
            ),
            "cosine": lambda: cosine_loss(student[order], teacher[order], mask=mask[order]),
        }[name]()

    assert_close(run(order), run(list(range(B * N))))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16), st.floats(-50, 50), st.floats(0.2, 20), st.integers(1, 20))
def test_shifts_of_logits_are_not_seen(seed, shift, temperature, v):
    student, teacher = randn(N, v, seed=seed), randn(N, v, seed=seed + 1)
    labels = torch.arange(N) % v
    want = masked_lm_loss(student, labels), distillation_loss(student, teacher, temperature)
    assert_close(masked_lm_loss(student + shift, labels), want[0], atol=1e-12)
    moved = distillation_loss(student + shift, teacher - shift, temperature)
    assert_close(moved, want[1], atol=1e-10)
    assert want[0] >= 0 and want[1] >= -1e-12
    same = distillation_loss(teacher + shift, teacher, temperature)
    assert_close(same.item(), 0.0, atol=1e-10)


@every_loss
def test_first_and_second_derivatives(name):
    loss, student, _ = case(name, leading=(2, 3))
    student.requires_grad_()
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(lambda s, r=reduction: loss(s, r), student)
    assert torch.autograd.gradgradcheck(lambda s: loss(s, "mean"), student)


def test_derivatives_of_the_triple():
    x = make_triple()
    leaves = [x[name].requires_grad_() for name in ("student_logits", "student_hidden")]

    def function(logits, hidden):
        return distilbert_loss(**x | {"student_logits": logits, "student_hidden": hidden})

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


# ---------------------------------------------------------------- precision, devices, transforms


@every_loss
@every_dtype
@on_every_device
def test_every_dtype(name, dtype, device):
    """The loss is float32 for half precision; the gradient has the logits' dtype."""
    loss, student, _ = case(name, dtype=dtype, device=device)
    exact = loss(student, "mean")
    wide = torch.promote_types(dtype, torch.float32)
    assert exact.dtype == wide and exact.device == student.device
    leaf = student.clone().requires_grad_()
    grad = gradient(loss(leaf, "mean"), leaf)
    assert grad.dtype == dtype and grad.isfinite().all()
    double, same, _ = case(name, dtype=torch.float64, device=device)
    atol = {torch.float64: 1e-13, torch.float32: 2e-6}.get(dtype, 0.02)  # of rounding the logits
    assert_close(exact.double(), double(same, "mean"), atol=atol)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_half_precision_is_exact_for_the_numbers_it_holds(dtype):
    x = make_triple(dtype=dtype)
    wide = {name: v.double() if v.is_floating_point() else v for name, v in x.items()}
    want = distilbert_loss(**wide, temperature=3.0)  # by which nothing divides exactly
    got = distilbert_loss(**x, temperature=3.0)
    assert got.dtype == torch.float32
    assert_close(got.double(), want, atol=2e-5)
    logits, replaced = 4 * randn(B, N, dtype=dtype), make_mask(seed=5)
    want = replaced_token_loss(logits.double(), replaced)
    assert_close(replaced_token_loss(logits, replaced).double(), want, atol=1e-6)


@every_dtype
def test_large_logits(dtype):
    """At ±1e4: exact where the answer is sure, and its price where it is wrong."""
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype).requires_grad_()
    size = logits[0, 0].item()
    right = masked_lm_loss(logits, torch.tensor([0, 1]))
    wrong = masked_lm_loss(logits, torch.tensor([1, 0]))
    assert right == 0.0 and wrong == 2 * size
    one = logits[:, 0]
    assert replaced_token_loss(one, torch.tensor([True, False])) == 0.0
    assert replaced_token_loss(one, torch.tensor([False, True])) == size
    far = distillation_loss(logits, logits.detach().flip(-1), 1.0)
    assert far == 2 * size
    assert distillation_loss(logits, logits, 0.01).item() == 0.0
    for loss in (right, wrong, far):
        assert gradient(loss, logits).isfinite().all()


def test_small_probabilities_keep_their_digits():
    """log(1 − σ(z)) as log σ(−z): at z = −40 the loss is e^−40, where 1 − σ would round to 1."""
    z = torch.tensor([-40.0, 40.0], dtype=torch.float64)
    got = replaced_token_loss(z, torch.tensor([False, True]), reduction="none")
    assert_close(got / math.exp(-40), torch.ones(2).double(), atol=1e-14)


def test_a_large_temperature_in_float32():
    """As the docstring says: the value loses digits to T², the gradient does not."""
    student, teacher = randn(4, V), randn(4, V, seed=3)
    for temperature in (20.0, 1000.0):
        exact, rough = student.clone().requires_grad_(), student.float().requires_grad_()
        want = distillation_loss(exact, teacher, temperature)
        got = distillation_loss(rough, teacher.float(), temperature)
        assert abs(got - want) < temperature**2 * 1e-6
        assert_close(gradient(got, rough).double(), gradient(want, exact), atol=5e-4)


def test_a_teacher_of_another_precision():
    student, teacher = randn(B, V).float(), randn(B, V, seed=3)
    got = distillation_loss(student, teacher.bfloat16(), 2.0)
    assert got.dtype == torch.float32
    assert torch.equal(got, distillation_loss(student, teacher.bfloat16().float(), 2.0))
    assert cosine_loss(student, teacher.half()).dtype == torch.float32


@every_loss
@on_every_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(name, device, dtype):
    loss, student, _ = case(name, dtype=torch.float32, device=device)
    want = loss(student, "mean")
    with torch.autocast(device, dtype=dtype):
        got = loss(student, "mean")
    assert got.dtype == torch.float32
    assert_close(got, want, atol=1e-6)


@every_loss
def test_shapes_without_numbers(name):
    """The meta device has shapes only: nothing may look at a value."""
    loss, student, _ = case(name, device="meta")
    assert loss(student, "mean").shape == () and loss(student, "none").shape == (B, N)
    assert loss(student, "mean").device.type == "meta"


@every_loss
def test_non_contiguous_inputs(name):
    loss, student, _ = case(name)
    scattered = student.mT.contiguous().mT
    assert not scattered.is_contiguous()
    assert_close(loss(scattered, "mean"), loss(student, "mean"))


@every_loss
@every_reduction
def test_compile_in_one_graph(name, reduction):
    torch._dynamo.reset()
    loss, student, _ = case(name)
    compiled = torch.compile(lambda s: loss(s, reduction), fullgraph=True, backend="eager")
    leaf = student.requires_grad_()
    assert_close(compiled(leaf), loss(leaf, reduction))
    grads = [gradient(f.sum(), leaf) for f in (compiled(leaf), loss(leaf, reduction))]
    assert_close(*grads)
    torch._dynamo.reset()


def test_compile_the_triple_and_the_labels():
    torch._dynamo.reset()
    x = make_triple()
    compiled = torch.compile(distilbert_loss, fullgraph=True, backend="eager")
    assert_close(compiled(**x), distilbert_loss(**x))
    compiled = torch.compile(replaced_tokens, fullgraph=True, backend="eager")
    a, b = make_labels(), make_labels(seed=9)
    assert torch.equal(compiled(a, b), replaced_tokens(a, b))
    torch._dynamo.reset()


def test_inputs_are_not_changed():
    x = make_triple()
    before = {name: value.clone() for name, value in x.items()}
    distilbert_loss(**x)
    replaced_token_loss(x["student_logits"][..., 0], x["attention_mask"], x["attention_mask"])
    assert all(torch.equal(x[name], before[name]) for name in x)


def test_examples_in_docstrings():
    result = doctest.testmod(losses)
    assert result.attempted > 3 and result.failed == 0


def test_every_public_name_has_a_contract():
    for name in losses.__all__:
        assert getattr(losses, name).__doc__.strip()


# ---------------------------------------------------------------- bad inputs


def t(*shape, dtype=torch.float64, device="cpu"):
    return torch.zeros(shape, dtype=dtype, device=device)


def ids(*shape, **options):
    return t(*shape, dtype=torch.int64, **options)


FLOATS = "expected float64, float32, bfloat16 or float16, got "
MASK = "expected a boolean or integer dtype, got "
ROWS = "expected shape (..., k) with k ≥ 1, got "
BAD = {
    # causal_lm_loss
    "causal list": (causal_lm_loss, ([1.0], ids(1)), "logits: expected a torch.Tensor, got list"),
    "causal dtype": (
        causal_lm_loss,
        (t(3, 11), t(3)),
        "labels: expected an integer dtype, got torch.float64",
    ),
    "causal 1-d": (
        causal_lm_loss,
        (t(11), ids()),
        "logits: expected shape (..., n ≥ 1, V), got (11,)",
    ),
    "causal n = 0": (
        causal_lm_loss,
        (t(2, 0, 11), ids(2, 0)),
        "logits: expected shape (..., n ≥ 1, V), got (2, 0, 11)",
    ),
    "causal shifted": (
        causal_lm_loss,
        (t(2, 4, 11), ids(2, 5)),
        "labels: expected shape (2, 4), got (2, 5)",
    ),
    "causal reduction": (
        lambda *x: causal_lm_loss(*x, reduction="batchmean"),
        (t(3, 11), ids(3)),
        "reduction: expected 'mean', 'sum' or 'none', got 'batchmean'",
    ),
    # label_smoothing_loss
    "smoothing 1": (
        label_smoothing_loss,
        (t(3, 11), ids(3), 1.0),
        "smoothing: expected a number in [0, 1), got 1.0",
    ),
    "smoothing labels": (
        label_smoothing_loss,
        (t(3, 11), ids(4)),
        "labels: expected shape (3,), got (4,)",
    ),
    # masked_lm_loss
    "mlm list": (masked_lm_loss, ([1.0], ids(1)), "logits: expected a torch.Tensor, got list"),
    "mlm labels list": (
        masked_lm_loss,
        (t(3, 11), [1, 2, 3]),
        "labels: expected a torch.Tensor, got list",
    ),
    "mlm dtype": (masked_lm_loss, (ids(3, 11), ids(3)), f"logits: {FLOATS}torch.int64"),
    "mlm labels dtype": (
        masked_lm_loss,
        (t(3, 11), t(3)),
        "labels: expected an integer dtype, got torch.float64",
    ),
    "mlm boolean labels": (
        masked_lm_loss,
        (t(3, 11), t(3, dtype=torch.bool)),
        "labels: expected an integer dtype, got torch.bool",
    ),
    "mlm shape": (
        masked_lm_loss,
        (t(3, 5, 11), ids(5, 3)),
        "labels: expected shape (3, 5), got (5, 3)",
    ),
    "mlm transposed": (
        masked_lm_loss,
        (t(3, 11, 5), ids(3, 5)),
        "labels: expected shape (3, 11), got (3, 5)",
    ),
    "mlm one-hot": (
        masked_lm_loss,
        (t(3, 5, 11), ids(3, 5, 11)),
        "labels: expected shape (3, 5), got (3, 5, 11)",
    ),
    "mlm 0-d": (masked_lm_loss, (t(), ids()), f"logits: {ROWS}()"),
    "mlm V = 0": (masked_lm_loss, (t(3, 0), ids(3)), f"logits: {ROWS}(3, 0)"),
    "mlm device": (
        masked_lm_loss,
        (t(3, 11), ids(3, device="meta")),
        "labels: expected device cpu, got meta",
    ),
    "mlm reduction": (
        lambda *x: masked_lm_loss(*x, reduction="batchmean"),
        (t(3, 11), ids(3)),
        "reduction: expected 'mean', 'sum' or 'none', got 'batchmean'",
    ),
    # replaced_token_loss
    "rtd list": (
        replaced_token_loss,
        ([1.0], ids(1)),
        "logits: expected a torch.Tensor, got list",
    ),
    "rtd labels None": (
        replaced_token_loss,
        (t(3), None),
        "is_replaced: expected a torch.Tensor, got NoneType",
    ),
    "rtd dtype": (replaced_token_loss, (ids(3), ids(3)), f"logits: {FLOATS}torch.int64"),
    "rtd complex": (
        replaced_token_loss,
        (t(3), t(3, dtype=torch.complex64)),
        "is_replaced: expected a boolean, integer or floating dtype, got torch.complex64",
    ),
    "rtd two classes": (
        replaced_token_loss,
        (t(3, 5, 2), ids(3, 5)),
        "is_replaced: expected shape (3, 5, 2), got (3, 5)",
    ),
    "rtd broadcast": (
        replaced_token_loss,
        (t(3, 5), ids(1, 5)),
        "is_replaced: expected shape (3, 5), got (1, 5)",
    ),
    "rtd mask shape": (
        replaced_token_loss,
        (t(3, 5), ids(3, 5), ids(3, 1)),
        "attention_mask: expected shape (3, 5), got (3, 1)",
    ),
    "rtd bias": (
        replaced_token_loss,
        (t(3, 5), ids(3, 5), t(3, 5)),
        f"attention_mask: {MASK}torch.float64",
    ),
    "rtd mask list": (
        replaced_token_loss,
        (t(3), ids(3), [1, 1, 0]),
        "attention_mask: expected a torch.Tensor, got list",
    ),
    "rtd device": (
        replaced_token_loss,
        (t(3), ids(3, device="meta")),
        "is_replaced: expected device cpu, got meta",
    ),
    "rtd mask device": (
        replaced_token_loss,
        (t(3), ids(3), ids(3, device="meta")),
        "attention_mask: expected device cpu, got meta",
    ),
    "rtd reduction": (
        lambda *x: replaced_token_loss(*x, reduction=None),
        (t(3), ids(3)),
        "reduction: expected 'mean', 'sum' or 'none', got None",
    ),
    # replaced_tokens
    "ids list": (replaced_tokens, ([1], ids(1)), "input_ids: expected a torch.Tensor, got list"),
    "ids dtype": (
        replaced_tokens,
        (ids(3), t(3)),
        "corrupted_ids: expected an integer dtype, got torch.float64",
    ),
    "ids shape": (
        replaced_tokens,
        (ids(3, 5), ids(5)),
        "corrupted_ids: expected shape (3, 5), got (5,)",
    ),
    "ids device": (
        replaced_tokens,
        (ids(3), ids(3, device="meta")),
        "corrupted_ids: expected device cpu, got meta",
    ),
    # distillation_loss
    "kd list": (
        distillation_loss,
        ([1.0], t(1), 1.0),
        "student_logits: expected a torch.Tensor, got list",
    ),
    "kd teacher list": (
        distillation_loss,
        (t(3, 11), [1.0], 1.0),
        "teacher_logits: expected a torch.Tensor, got list",
    ),
    "kd dtype": (
        distillation_loss,
        (t(3, 11), ids(3, 11), 1.0),
        f"teacher_logits: {FLOATS}torch.int64",
    ),
    "kd vocabulary": (
        distillation_loss,
        (t(3, 5, 11), t(3, 5, 13), 1.0),
        "teacher_logits: expected shape (3, 5, 11), got (3, 5, 13)",
    ),
    "kd broadcast": (
        distillation_loss,
        (t(3, 11), t(1, 11), 1.0),
        "teacher_logits: expected shape (3, 11), got (1, 11)",
    ),
    "kd 0-d": (distillation_loss, (t(), t(), 1.0), f"student_logits: {ROWS}()"),
    "kd device": (
        distillation_loss,
        (t(3, 11), t(3, 11, device="meta"), 1.0),
        "teacher_logits: expected device cpu, got meta",
    ),
    "kd mask": (
        lambda *x: distillation_loss(*x, mask=t(3)),
        (t(3, 11), t(3, 11), 1.0),
        f"mask: {MASK}torch.float64",
    ),
    "kd mask shape": (
        lambda *x: distillation_loss(*x, mask=ids(3, 11)),
        (t(3, 11), t(3, 11), 1.0),
        "mask: expected shape (3,), got (3, 11)",
    ),
    "kd reduction": (
        lambda *x: distillation_loss(*x, reduction="batchmean"),
        (t(3, 11), t(3, 11), 1.0),
        "reduction: expected 'mean', 'sum' or 'none', got 'batchmean'",
    ),
    # cosine_loss
    "cos shape": (
        cosine_loss,
        (t(3, 5, 7), t(3, 5, 11)),
        "teacher_hidden: expected shape (3, 5, 7), got (3, 5, 11)",
    ),
    "cos dtype": (cosine_loss, (ids(3, 7), t(3, 7)), f"student_hidden: {FLOATS}torch.int64"),
    "cos 0-d": (cosine_loss, (t(), t()), f"student_hidden: {ROWS}()"),
    "cos mask": (
        lambda *x: cosine_loss(*x, mask=t(3, dtype=torch.float16)),
        (t(3, 7), t(3, 7)),
        f"mask: {MASK}torch.float16",
    ),
    "cos reduction": (
        lambda *x: cosine_loss(*x, reduction=1),
        (t(3, 7), t(3, 7)),
        "reduction: expected 'mean', 'sum' or 'none', got 1",
    ),
    # count_tokens
    "count list": (count_tokens, ([1, 0],), "mask: expected a torch.Tensor, got list"),
    "count floats": (count_tokens, (t(3),), f"mask: {MASK}torch.float64"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs(name):
    function, arguments, message = BAD[name]
    error = TypeError if "torch.Tensor" in message else ValueError
    with pytest.raises(error) as caught:
        function(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.inf, math.nan, "2", None])
def test_bad_temperatures(temperature):
    message = f"temperature: expected a finite number above 0, got {temperature!r}"
    x = make_triple()
    for call in (
        lambda: distillation_loss(t(3, 11), t(3, 11), temperature),
        lambda: distilbert_loss(**x, temperature=temperature),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "weights", [(1.0, 2.0), (1, 2, 3, 4), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0), ("5", 2, 1)]
)
def test_bad_weights(weights):
    with pytest.raises(ValueError) as caught:
        distilbert_loss(**make_triple(), weights=weights)
    message = f"weights: expected three finite numbers of at least 0, got {weights!r}"
    assert str(caught.value) == message


# ---------------------------------------------------------------- does B follow A


@every_reduction
def test_next_sentence_by_hand_and_by_torch(reduction):
    logits, labels = randn(7, 2), torch.tensor([0, 1, 1, 0, -100, 0, 1])
    got = next_sentence_loss(logits, labels, reduction=reduction)
    want = F.cross_entropy(logits, labels, reduction=reduction)
    assert_close(got, want)
    pairs = zip(logits.tolist(), labels.tolist(), strict=True)
    flat = [0.0 if y == -100 else -log_softmax(row)[y] for row, y in pairs]
    assert_close(got, reduced(torch.tensor(flat, dtype=torch.float64), labels != -100, reduction))


def test_next_sentence_column_0_says_that_b_follows():
    sure = torch.tensor([[20.0, -20.0]])
    assert next_sentence_loss(sure, torch.tensor([0])) < 1e-6
    assert next_sentence_loss(sure, torch.tensor([1])) == 40.0
    assert_close(next_sentence_loss(torch.zeros(3, 2).double(), ids(3)).item(), math.log(2))


def test_next_sentence_refuses():
    with pytest.raises(ValueError, match=r"^logits: expected shape \(\.\.\., 2\), got \(3, 1\)$"):
        next_sentence_loss(t(3, 1), ids(3))
    with pytest.raises(ValueError, match=r"^labels: expected an integer dtype, got torch.bool$"):
        next_sentence_loss(t(3, 2), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^labels: expected shape \(3,\), got \(2,\)$"):
        next_sentence_loss(t(3, 2), ids(2))
    with pytest.raises(ValueError, match=r"^logits: expected shape \(\.\.\., k\) with k ≥ 1, got"):
        next_sentence_loss(t(), ids())
    with pytest.raises(TypeError, match=r"^logits: expected a torch.Tensor, got list$"):
        next_sentence_loss([[0.0, 1.0]], ids(1))
