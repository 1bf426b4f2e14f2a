"""lib.teaching.compressing: what a file weighs, what is cut, and what training keeps."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lib.compression import dequantize, magnitude_prune, quantize, unpack_bits
from lib.losses import distillation_loss
from lib.teaching import compressing
from lib.teaching.compressing import (
    accuracy,
    cut,
    file_bytes,
    head_costs,
    neuron_scores,
    packed,
    rounded,
    sparse,
    tune,
    whole,
)
from lib.teaching.word_classifier import PAD, WordClassifier, train
from tests.few_words import few_words

TABLE = "bert.encoder.embeddings.word.weight"


@pytest.fixture(scope="module")
def texts():
    return few_words()


@pytest.fixture
def model(texts):
    torch.manual_seed(0)
    return WordClassifier(texts, d_model=48, num_layers=2).eval()


@pytest.fixture
def batch(texts):
    return texts.encode(texts.data.train), torch.tensor(texts.data.train_labels)


def test_accuracy_counts_the_held_out_texts(model, texts):
    with torch.no_grad():
        said = model(texts.encode(texts.data.validation)).argmax(-1)
    right = (said == torch.tensor(texts.data.validation_labels)).sum().item()
    found = accuracy(model, texts)
    assert 0 < right < 20 and found == right / 20 and isinstance(found, float)


def test_a_file_holds_what_the_classifier_needs(model):
    state = model.state_dict()
    tensors = whole(model)
    gone = state.keys() - tensors.keys()
    assert gone == {n for n in state if n.startswith(("bert.head.", "bert.next_sentence."))}
    assert len(gone) > 3 and all(tensors[n] is not None for n in tensors)
    bare = sum(t.nbytes for t in tensors.values())
    assert bare < file_bytes(tensors) < bare + 200 * len(tensors)
    table = tensors[TABLE]
    assert file_bytes({"turned": table.T}) == file_bytes({"turned": table.T.contiguous()})
    half = whole(model, torch.float16)
    assert sum(t.nbytes for t in half.values()) == bare / 2
    model.register_buffer("seen", torch.tensor([3]))
    assert whole(model, torch.float16)["seen"].dtype == torch.int64


def test_sparse_says_where_and_what(model):
    magnitude_prune(model, 0.75)
    tensors = sparse(model)
    table = whole(model)[TABLE]
    where = unpack_bits(tensors[f"{TABLE}.where"], 1, table.shape)
    again = torch.zeros_like(table)
    again[where] = tensors[f"{TABLE}.values"]
    assert torch.equal(again, table)
    assert len(tensors[f"{TABLE}.values"]) == table.numel() - round(0.75 * table.numel())
    assert file_bytes(tensors) < 0.45 * file_bytes(whole(model))
    vectors = {n: t for n, t in whole(model).items() if t.ndim == 1}
    assert len(vectors) > 3 and all(torch.equal(tensors[n], t) for n, t in vectors.items())


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_packed_is_what_rounded_computes_with(model, bits):
    before = copy.deepcopy(model.state_dict())
    tensors, copied = packed(model, bits), rounded(model, bits)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert tensors.keys().isdisjoint({TABLE})
    for name, tensor in whole(model).items():
        got = copied.state_dict()[name]
        if tensor.ndim == 2:
            integers = unpack_bits(tensors[f"{name}.integers"], bits, tensor.shape)
            torch.testing.assert_close(got, integers * tensors[f"{name}.scale"])
            assert torch.equal(got, dequantize(quantize(tensor, bits, axis=0)))
        else:
            assert torch.equal(tensors[name], tensor) and torch.equal(got, tensor)


def test_costs_of_heads_are_rises_of_the_loss(model, batch):
    ids, labels = batch
    before = copy.deepcopy(model.state_dict())
    costs = head_costs(model, ids, labels)
    assert [len(c) for c in costs] == [3, 3] and not costs[0].requires_grad
    layer = model.bert.encoder.layers[1]
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    with torch.no_grad():
        base = F.cross_entropy(model(ids), labels)
        layer.attention.output_projection.weight[:, 16:32] = 0
        rise = F.cross_entropy(model(ids), labels) - base
    torch.testing.assert_close(costs[1][1], rise, atol=1e-6, rtol=0)


def test_the_score_of_a_neuron_is_what_it_adds_to_real_tokens(model, batch):
    ids = batch[0]
    scores = neuron_scores(model, ids)
    layer = model.bert.encoder.layers[0]
    seen = []
    handle = layer.feed_forward.expand.register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        model(ids)
    handle.remove()
    active = F.gelu(seen[0])[ids != 0]  # (tokens, neurons)
    column = layer.feed_forward.contract.weight[:, 5]
    adds = (active[:, 5, None] * column).square().sum(-1).mean().sqrt()
    torch.testing.assert_close(scores[0][5], adds.detach(), atol=1e-5, rtol=1e-4)
    assert (ids == 0).any()  # so that padding could have counted
    assert not scores[0].requires_grad


def test_neurons_are_not_watched_afterwards_whatever_happens(model, batch):
    neuron_scores(model, batch[0])
    with pytest.raises(IndexError):
        neuron_scores(model, batch[0] + 10**6)
    layers = model.bert.encoder.layers
    assert not any(layer.feed_forward.contract._forward_pre_hooks for layer in layers)


def test_what_is_needed_least_is_cut(model, batch):
    costs, scores = head_costs(model, *batch), neuron_scores(model, batch[0])
    smaller = cut(model, *batch, heads=2, neurons=50)
    for i, layer in enumerate(smaller.bert.encoder.layers):
        old = model.bert.encoder.layers[i]
        gone = int(costs[i].argmin())
        rows = [r for r in range(48) if r // 16 != gone]
        assert torch.equal(
            layer.attention.query_projection.weight, old.attention.query_projection.weight[rows]
        )
        best = scores[i].topk(50).indices.sort().values
        assert torch.equal(layer.feed_forward.expand.weight, old.feed_forward.expand.weight[best])
    assert model.bert.encoder.layers[0].attention.num_heads == 3


def test_of_neurons_that_add_nothing_the_first_are_cut(model, batch):
    for layer in model.bert.encoder.layers:
        layer.feed_forward.contract.weight.data[:, :150] = 0
    smaller = cut(model, *batch, heads=3, neurons=60)  # 150 of 192 equal: any machine, one model
    for layer, old in zip(smaller.bert.encoder.layers, model.bert.encoder.layers, strict=True):
        kept = old.feed_forward.expand.weight[132:]
        assert torch.equal(layer.feed_forward.expand.weight, kept)


def _tuned(model, texts, **options):
    return tune(model, texts, seed=1, **{"steps": 3, "learning_rate": 1e-2, **options})


def test_training_moves_a_copy(model, texts):
    before = copy.deepcopy(model.state_dict())
    again, same = _tuned(model, texts), _tuned(model, texts)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert not torch.equal(again.head.weight, model.head.weight) and not again.training
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in same.state_dict().items())
    other = tune(model, texts, seed=2, steps=3, learning_rate=1e-2)
    assert not torch.equal(again.head.weight, other.head.weight)


def test_training_lowers_the_loss(model, texts, batch):
    ids, labels = batch
    after = _tuned(model, texts, steps=30, learning_rate=3e-3)
    with torch.no_grad():
        assert F.cross_entropy(after(ids), labels) < F.cross_entropy(model(ids), labels) - 0.1


def _batches_of_train(texts, steps):
    """What `word_classifier.train` reads with this seed: (ids, labels) of each step."""
    seen = []

    def loss(model, ids, labels):
        seen.append((ids, labels))
        return model(ids).square().mean()

    train(texts, seed=1, steps=steps, d_model=16, num_layers=1, loss=loss)
    return seen


def test_batches_are_those_of_the_classifiers_own_training(model, texts):
    read = []
    model.register_forward_pre_hook(lambda module, args: read.append(args[0]))  # its copy has it
    _tuned(model, texts, steps=4)
    own = [ids for ids, _ in _batches_of_train(texts, 4)]
    assert len(read) == 4 and all(torch.equal(a, b) for a, b in zip(read, own, strict=True))
    read.clear()
    _tuned(model, texts, batch=7, hidden=0.0)
    assert [len(ids) for ids in read] == [7, 7, 7]
    rows = {tuple(row) for row in texts.encode(texts.data.train).tolist()}
    padded = [F.pad(ids, (0, texts.length - ids.shape[1])) for ids in read]
    assert {tuple(row) for ids in padded for row in ids.tolist()} <= rows
    read.clear()
    _tuned(model, texts, batch=1, steps=20)
    assert all((ids != PAD).all() for ids in read)  # as wide as the longest
    assert len({ids.shape[1] for ids in read}) > 1


@pytest.mark.parametrize(
    "options", [{}, {"bits": 2}, {"teacher": 2.0}, {"teacher": 2.0, "bits": 3}, {"teacher": 5.0}]
)
def test_the_loss_of_the_first_step(model, texts, monkeypatch, options):
    losses, fit, options = [], compressing.fit, dict(options)
    monkeypatch.setattr(compressing, "fit", lambda *a, **k: losses.extend(fit(*a, **k)))
    ((ids, labels),) = _batches_of_train(texts, 1)
    with torch.no_grad():
        bits = options.get("bits")
        logits = (model if bits is None else rounded(model, bits))(ids)
        want = F.cross_entropy(logits, labels)
        if temperature := options.get("teacher"):
            torch.manual_seed(5)
            options["teacher"] = WordClassifier(texts, d_model=16, num_layers=1).eval()
            options["teacher"].head.weight.mul_(20)
            if temperature != 2.0:  # the default
                options["temperature"] = temperature
            taught = options["teacher"](ids)
            want = (want + distillation_loss(logits, taught, temperature)) / 2
    _tuned(model, texts, steps=1, **options)
    assert losses == [pytest.approx(want.item(), abs=1e-5)]


def test_pruned_weights_stay_zero(model, texts):
    masks, zeros = magnitude_prune(model, 0.5), []

    def watch(module, args):
        kept = [module.get_parameter(name)[~mask] for name, mask in masks.items()]
        zeros.append(all((weights == 0).all() for weights in kept))

    model.register_forward_pre_hook(watch)
    again = _tuned(model, texts, masks=masks)
    for name, mask in masks.items():
        assert (again.get_parameter(name)[~mask] == 0).all()
    assert zeros == [True] * 3  # in every pass, not at the end alone
    assert not torch.equal(again.head.weight, model.head.weight)


def test_bits_are_felt_in_training(model, texts):
    plain, coarse = _tuned(model, texts), _tuned(model, texts, bits=2)
    assert not torch.equal(plain.head.weight, coarse.head.weight)
    assert len(coarse.head.weight.unique()) > 3 * len(coarse.head.weight)  # floats behind the grid


def test_a_teacher_is_matched(model, texts, batch):
    torch.manual_seed(5)
    teacher = WordClassifier(texts, d_model=48, num_layers=2).eval()
    teacher.head.weight.data *= 20

    def gap(student):
        with torch.no_grad():
            return (student(batch[0]).softmax(-1) - teacher(batch[0]).softmax(-1)).abs().mean()

    longer = {"steps": 30, "learning_rate": 3e-3}
    taught = _tuned(model, texts, teacher=teacher, **longer)
    assert gap(taught) < gap(_tuned(model, texts, **longer))
    warmer = _tuned(model, texts, teacher=teacher, temperature=9.0, **longer)
    assert not torch.equal(warmer.head.weight, taught.head.weight)
