"""The one harness that holds every family to its official implementation in `transformers`.

A test gives a reference model of tiny, odd sizes. `checkpoint` randomises all its parameters
(default initialisation hides a missing scale, an ignored bias, a wrong ε) and saves it the official
way; our class loads that folder; `assert_parity` feeds both the same batch, padded and with two
segments, and compares every output. Where they differ, `first_divergence` names the first layer
that does: the family's table of weights says which of our modules is which of theirs, so nothing
has to be written for a new family.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import tracing
from lib.checkpoints import Layout, Pretrained
from lib.tracing import compare_layers

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # relative to the largest logit


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter afresh, biases and norms included, so that nothing is 0 or 1.

    Embeddings are small, so that their sum has a small variance and ε in the norm shows; other
    matrices are large, so that attention is sharp and activations leave their linear range.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            words = re.search(r"embed(dings|_tokens)|\bwte|\bwpe|shared", name)
            if words and parameter.ndim == 2 and "project" not in name:
                value = 0.05 * noise
            elif parameter.ndim == 2:
                value = 1.5 * noise / parameter.shape[1] ** 0.5
            elif name.endswith("weight"):  # of a norm
                value = 1.0 + 0.3 * noise
            else:
                value = 0.3 * noise
            if "Attention.q." in name:  # of T5, which does not divide logits by √d
                value = value / 2
            parameter.copy_(value)
    return model


def checkpoint(
    reference: nn.Module, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0
) -> nn.Module:
    """Randomise a reference model and save it as `transformers` does; return it, for evaluation."""
    reference = randomise(reference, seed).to(dtype).eval()
    reference.config.dtype = dtype
    reference.save_pretrained(folder)
    return reference


def batch(
    vocab_size: int, n: int = 13, *, segments: bool = True, seed: int = 0
) -> dict[str, Tensor]:
    """Three sequences: one full, two padded; with two segments each, if the family has them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([n, n - 5, 3])
    inputs = {
        "input_ids": torch.randint(vocab_size, (3, n), generator=generator),
        "attention_mask": (torch.arange(n) < lengths[:, None]).long(),
    }
    if segments:
        inputs["token_type_ids"] = (torch.arange(n) >= lengths[:, None] // 2).long()
    return inputs


@dataclass(frozen=True)
class Parity:
    """The largest difference of each output, relative to its largest number."""

    errors: Mapping[str, float]

    @property
    def worst(self) -> float:
        return max(self.errors.values())


def measure(
    ours: nn.Module, reference: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...]
) -> Parity:
    """Feed both; `outputs` names the reference's logits in the order of ours."""
    with torch.no_grad():
        got = ours(**inputs)
        want = reference(**inputs)
    got = got if isinstance(got, tuple) else (got,)
    assert len(got) == len(outputs), f"expected outputs {outputs}, got {len(got)} of them"
    return Parity({name: _error(a, want[name]) for name, a in zip(outputs, got, strict=True)})


def assert_parity(
    ours: Pretrained,
    reference: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: tuple[str, ...] = ("logits",),
    tolerance: float | None = None,
) -> Parity:
    """Both models give the same logits; if not, say by how much and from which layer on."""
    dtype = next(reference.parameters()).dtype
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    parity = measure(ours, reference, inputs, outputs)
    # Written so that NaN fails.
    if not parity.worst <= tolerance:
        layer = first_divergence(ours, reference, inputs, ours.layout_of(ours.config), tolerance)
        raise AssertionError(
            f"differs by {parity.worst:.1e} of the largest logit (allowed {tolerance:.0e}); "
            f"first in {layer or 'the output alone'}"
        )
    return parity


def first_divergence(
    ours: nn.Module,
    reference: nn.Module,
    inputs: Mapping[str, Tensor],
    layout: Layout,
    tolerance: float,
) -> str | None:
    """Name our first layer, in the order of execution, whose output is not its counterpart's.

    Compared are the layers with weights that stand in the layout's table on both sides as modules
    of one input and one output: linear maps, norms, embeddings. A mistake between two of them (a
    scale in the attention, an activation) shows at the next: "output_projection", "contract".
    None if all of them agree, so that the mistake lies behind the last of them. Where the official
    code has its dimensions in another order (Longformer's queries), layers are passed over.
    """
    errors = compare_layers(ours, reference, inputs, layout, partial(_as_module, reference))
    layer = tracing.first_divergence(errors, tolerance)
    return None if layer is None else layer.ours


# What version 5 of transformers calls modules whose tensors keep their old names in the files.
_RENAMED = (
    (r"^vit\.encoder\.layer\.", "vit.layers."),
    (r"\.attention\.attention\.query$", ".attention.q_proj"),
    (r"\.attention\.attention\.key$", ".attention.k_proj"),
    (r"\.attention\.attention\.value$", ".attention.v_proj"),
    (r"\.attention\.output\.dense$", ".attention.o_proj"),
    (r"\.intermediate\.dense$", ".mlp.fc1"),
    (r"\.output\.dense$", ".mlp.fc2"),
)


def _as_module(model: nn.Module, name: str) -> str:
    """The module of this name in the files."""
    if name in dict(model.named_modules()):
        return name
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _error(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape, f"expected shape {tuple(want.shape)}, got {tuple(got.shape)}"
    assert got.dtype == want.dtype, f"expected {want.dtype}, got {got.dtype}"
    return ((got - want).abs().max() / want.abs().max()).item()


def transformers():
    """The library, without its progress bars and notes, and with its own warnings left alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        import transformers as library
    library.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def windows_of_longformer(window: int, heads: int, features: int):
    """What the official code does between its projections, for queries (B, h, n, d)."""
    library = transformers()
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = library.LongformerConfig(
        hidden_size=heads * features,
        num_attention_heads=heads,
        num_hidden_layers=1,
        attention_window=[window],
    )
    module = LongformerSelfAttention(config, 0)

    def attend(query, key, value):
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        query = query / math.sqrt(query.shape[-1])
        logits = module._sliding_chunks_query_key_matmul(query, key, window // 2)
        weights = F.softmax(logits, dim=-1, dtype=torch.float32)
        output = module._sliding_chunks_matmul_attn_probs_value(weights, value, window // 2)
        return output.transpose(1, 2)

    return attend
