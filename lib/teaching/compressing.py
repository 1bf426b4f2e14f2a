"""Make the word classifier smaller, and weigh its file: what chapter 15 measures.

A file holds what a classifier needs, without BERT's pre-training heads, as safetensors: a header
and the bytes of the tensors, so that its size is theirs. `rounded`, `cut` and `tune` make models;
`whole`, `sparse` and `packed` say what of a model is written, and `file_bytes` how much that is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from lib.compression import (
    apply_masks,
    dequantize,
    fake_quantize,
    pack_bits,
    quantize,
    structured_prune_heads,
    structured_prune_neurons,
)
from lib.losses import distillation_loss
from lib.teaching.word_classifier import MASK, PAD, WordClassifier, Words
from lib.training import fit

__all__ = [
    "accuracy",
    "cut",
    "file_bytes",
    "head_costs",
    "neuron_scores",
    "packed",
    "rounded",
    "sparse",
    "tune",
    "whole",
]

_UNUSED = ("bert.head.", "bert.next_sentence.")  # BERT's pre-training heads


def accuracy(model: nn.Module, words: Words) -> float:
    """The share of the held-out docstrings whose module the model names."""
    rows = words.encode(words.data.validation).split(256)
    labels = torch.tensor(words.data.validation_labels)
    with torch.no_grad():
        said = torch.cat([model(x).argmax(-1) for x in rows])
    return (said == labels).double().mean().item()


def whole(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """All tensors of a classifier's file, floats in this dtype or their own."""
    state = {n: t for n, t in model.state_dict().items() if not n.startswith(_UNUSED)}
    if dtype is None:
        return state
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}


def sparse(model: nn.Module) -> dict[str, Tensor]:
    """For each matrix a bit an entry that says where it is not 0, and the entries that are not."""
    tensors = {}
    for name, tensor in whole(model).items():
        if tensor.ndim == 2:
            tensors[f"{name}.where"] = pack_bits(tensor != 0, 1)
            tensors[f"{name}.values"] = tensor[tensor != 0]
        else:
            tensors[name] = tensor
    return tensors


def packed(model: nn.Module, bits: int) -> dict[str, Tensor]:
    """For each matrix its integers without gaps, and a scale a row; all else as it is."""
    tensors = {}
    for name, tensor in whole(model).items():
        if tensor.ndim == 2:
            q = quantize(tensor, bits, axis=0)
            tensors[f"{name}.integers"] = pack_bits(q.integers, bits)
            tensors[f"{name}.scale"] = q.scale
        else:
            tensors[name] = tensor
    return tensors


def file_bytes(tensors: Mapping[str, Tensor]) -> int:
    """The size of a safetensors file that holds these."""
    return len(save({name: t.contiguous() for name, t in tensors.items()}))


def rounded(model: nn.Module, bits: int) -> nn.Module:
    """A copy that computes with what `packed` stores."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for p in copied.parameters():
            if p.ndim == 2:
                p.copy_(dequantize(quantize(p, bits, axis=0)))
    return copied


def head_costs(model: WordClassifier, ids: Tensor, labels: Tensor) -> list[Tensor]:
    """For each layer, how much the loss on these texts rises with each of its heads taken out."""
    with torch.no_grad():
        base = F.cross_entropy(model(ids), labels)
        costs = []
        for layer in model.bert.encoder.layers:
            attention, rises = layer.attention, []
            for head in range(attention.num_heads):
                layer.attention = structured_prune_heads(attention, [head])
                rises.append(F.cross_entropy(model(ids), labels) - base)
            layer.attention = attention
            costs.append(torch.stack(rises))
    return costs


def neuron_scores(model: WordClassifier, ids: Tensor) -> list[Tensor]:
    """For each layer, the root mean square, over real tokens, of what each neuron adds."""
    layers = model.bert.encoder.layers
    seen: list[Tensor] = []
    handles = [
        layer.feed_forward.contract.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        for layer in layers
    ]
    try:
        with torch.no_grad():
            model(ids)
    finally:
        for handle in handles:
            handle.remove()
    real = ids != PAD
    with torch.no_grad():
        return [
            hidden[real].square().mean(0).sqrt() * layer.feed_forward.contract.weight.norm(dim=0)
            for hidden, layer in zip(seen, layers, strict=True)
        ]


def cut(
    model: WordClassifier, ids: Tensor, labels: Tensor, *, heads: int, neurons: int
) -> WordClassifier:
    """A copy with so many heads and neurons left in each layer: those these texts need most."""
    costs, scores = head_costs(model, ids, labels), neuron_scores(model, ids)
    smaller = copy.deepcopy(model)
    for layer, cost, score in zip(smaller.bert.encoder.layers, costs, scores, strict=True):
        gone = cost.argsort(stable=True)[: len(cost) - heads].tolist()
        layer.attention = structured_prune_heads(layer.attention, gone)
        gone = score.argsort(stable=True)[: len(score) - neurons].tolist()
        layer.feed_forward = structured_prune_neurons(layer.feed_forward, gone)
    return smaller


def tune(
    model: WordClassifier,
    words: Words,
    *,
    seed: int,
    steps: int,
    learning_rate: float,
    masks: Mapping[str, Tensor] | None = None,
    bits: int | None = None,
    teacher: WordClassifier | None = None,
    temperature: float = 2.0,
    batch: int = 32,
    hidden: float = 0.5,
) -> WordClassifier:
    """Train a copy on the labels; batches are drawn and hidden as `word_classifier.train` does.

    With `masks`, weights that are pruned stay so. With `bits`, every matrix is rounded in the
    forward pass and the gradient passes straight through; the floats behind it are returned. With a
    teacher, half of the loss is to match it at this temperature, on the same texts.
    """
    model = copy.deepcopy(model)
    rng = torch.Generator().manual_seed(seed)
    ids, labels = words.encode(words.data.train), torch.tensor(words.data.train_labels)
    matrices = {n: p for n, p in model.named_parameters() if p.ndim == 2}

    def batch_loss(step: int) -> Tensor:
        rows = torch.randint(len(ids), (batch,), generator=rng)
        x = ids[rows][:, : int((ids[rows] != PAD).sum(1).max())]
        share = hidden * torch.rand((), generator=rng)
        away = (torch.rand(x.shape, generator=rng) < share) & (x > MASK)
        x = torch.where(away, MASK, x)
        if masks is not None:
            apply_masks(model, masks)  # the step before has moved the zeros
        if bits is None:
            logits = model(x)
        else:
            grid = {n: fake_quantize(p, bits, axis=0) for n, p in matrices.items()}
            logits = torch.func.functional_call(model, grid, (x,))
        loss = F.cross_entropy(logits, labels[rows])
        if teacher is None:
            return loss
        with torch.no_grad():
            taught = teacher(x)
        return (loss + distillation_loss(logits, taught, temperature=temperature)) / 2

    fit(model, batch_loss, steps=steps, learning_rate=learning_rate)
    if masks is not None:
        apply_masks(model, masks)
    return model.eval()
