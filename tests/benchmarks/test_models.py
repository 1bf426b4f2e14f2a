"""Models: a training step of GPT-2, generation with a cache, loading a checkpoint."""

from __future__ import annotations

import ctypes
import gc
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lib.generation import greedy
from lib.losses import causal_lm_loss
from lib.models.bert import BERT, BERTConfig
from lib.models.gpt2 import GPT2, GPT2Config
from tests.benchmarks.harness import relative_difference
from tests.memory_of_loading import memory_of_loading
from tests.models import parity

VOCABULARY = 65  # characters


def gpt2(*, layers: int, width: int, length: int, activation: str = "gelu_tanh") -> GPT2:
    """A GPT-2 without dropout, all parameters drawn at random, so that nothing is zero."""
    config = GPT2Config(
        VOCABULARY,
        d_model=width,
        num_layers=layers,
        num_heads=4,
        max_length=length,
        activation=activation,
        embedding_dropout=0.0,
        dropout=0.0,
        attention_dropout=0.0,
        eos_token_id=None,
    )
    model = GPT2(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            mean = 1.0 if parameter.ndim == 1 and parameter.min() == parameter.max() == 1 else 0.0
            parameter.copy_(mean + 0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def as_transformers(model: GPT2, folder: Path):
    """The same weights in the official class, with its defaults."""
    library = parity.transformers()
    model.save_pretrained(folder)
    theirs = library.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    for module in theirs.modules():  # the layout of the file has a place for these, GPT-2 none
        if isinstance(module, torch.nn.Dropout):
            assert module.p == 0.0
    return theirs


def as_x_transformers(model: GPT2):
    """The same weights in x-transformers; what it has no place for, biases, is zeroed in ours."""
    library = pytest.importorskip("x_transformers", reason="x-transformers is not installed")
    config = model.config
    theirs = library.TransformerWrapper(
        num_tokens=config.vocab_size,
        max_seq_len=config.max_length,
        tie_embedding=True,
        tie_embedding_scale=1.0,
        attn_layers=library.Decoder(
            dim=config.d_model,
            depth=config.num_layers,
            heads=config.num_heads,
            attn_dim_head=config.d_model // config.num_heads,
            attn_flash=True,
        ),
    )
    table = {
        "token_emb.emb.weight": model.word.weight,
        # it divides the places by √d
        "pos_emb.emb.weight": model.position.weight * math.sqrt(config.d_model),
        "attn_layers.final_norm.gamma": model.norm.weight - 1,  # it adds the 1
    }
    norms = [model.norm]
    for i, layer in enumerate(model.layers):
        attend, expand = f"attn_layers.layers.{2 * i}", f"attn_layers.layers.{2 * i + 1}"
        attention, feed_forward = layer.attention, layer.feed_forward
        table |= {
            f"{attend}.0.0.gamma": layer.attention_norm.weight - 1,
            f"{attend}.1.to_q.weight": attention.query_projection.weight,
            f"{attend}.1.to_k.weight": attention.key_projection.weight,
            f"{attend}.1.to_v.weight": attention.value_projection.weight,
            f"{attend}.1.to_out.weight": attention.output_projection.weight,
            f"{expand}.0.0.gamma": layer.feed_forward_norm.weight - 1,
            f"{expand}.1.ff.0.0.weight": feed_forward.expand.weight,
            f"{expand}.1.ff.0.0.bias": feed_forward.expand.bias,
            f"{expand}.1.ff.2.weight": feed_forward.contract.weight,
            f"{expand}.1.ff.2.bias": feed_forward.contract.bias,
        }
        norms += [layer.attention_norm, layer.feed_forward_norm]
        for projection in ("query", "key", "value", "output"):
            getattr(attention, f"{projection}_projection").bias = None
    for norm in norms:
        norm.bias = None
    theirs.load_state_dict({name: tensor.detach().clone() for name, tensor in table.items()})
    return theirs


def step(model, loss_of, ids):
    """One training step as a call; fused AdamW, as `lib.training.fit` has it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def call():
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        return loss

    return call


def our_loss(model, ids):
    return causal_lm_loss(model(ids), ids)


def official_loss(model, ids):
    return model(input_ids=ids, labels=ids).loss


def x_loss(model, ids):
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradients(loss, word, expand):
    """The loss, and its gradients for the words and the first feed-forward layer's first map."""
    return loss.detach(), *torch.autograd.grad(loss, [word, expand])


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(peer, marks=pytest.mark.rows(f"gpt2-step-{peer}"))
        for peer in ("transformers", "x-transformers")
    ],
)
def test_training_step(contest, tmp_path, peer):
    size = contest.sizes(layers=(4, 2), width=(128, 12), length=(128, 11))
    exact = "gelu" if peer == "x-transformers" else "gelu_tanh"
    ours = gpt2(**size, activation=exact)
    if peer == "transformers":
        theirs, their_loss = as_transformers(ours, tmp_path / "model"), official_loss
    else:
        theirs, their_loss = as_x_transformers(ours), x_loss
    ours, theirs = ours.to(contest.device).train(), theirs.to(contest.device).train()
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert counts[0] == counts[1]
    batch = 16 if contest.measures else 3
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(VOCABULARY, (batch, size["length"]), generator=generator)
    ids = ids.to(contest.device)
    found = gradients(
        our_loss(ours, ids), ours.word.weight, ours.layers[0].feed_forward.expand.weight
    )
    loss = their_loss(theirs, ids)
    if peer == "transformers":
        block = theirs.transformer.h[0]
        *want, turned = gradients(loss, theirs.transformer.wte.weight, block.mlp.c_fc.weight)
        want.append(turned.mT)
    else:
        expand = theirs.attn_layers.layers[1][1].ff[0][0].weight
        want = gradients(loss, theirs.token_emb.emb.weight, expand)
    difference = relative_difference(found, want)
    contest.check_and_time(
        f"gpt2-step-{peer}",
        step(ours, our_loss, ids),
        step(theirs, their_loss, ids),
        difference=difference,
        tolerance=1e-4,
        seconds=20,
        note=f"{counts[0]:,} parameters",
    )


@pytest.mark.rows("generation")
def test_generation(contest, tmp_path):
    size = contest.sizes(layers=(4, 2), width=(128, 12), length=(1024, 64))
    new = 1000 if contest.measures else 20
    ours = gpt2(**size).to(contest.device).eval()
    theirs = as_transformers(ours, tmp_path / "model").to(contest.device).eval()
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    generator = torch.Generator().manual_seed(7)
    prompt = torch.randint(VOCABULARY, (1, 24), generator=generator).to(contest.device)
    real = torch.ones_like(prompt)

    def write():
        return greedy(ours, prompt, max_new_tokens=new, eos_token_id=())

    def write_theirs():
        return theirs.generate(
            prompt, attention_mask=real, max_new_tokens=new, do_sample=False, use_cache=True
        )

    shortfall = 0.0
    with torch.no_grad():
        # What one wrote is, to within rounding, what the other finds most probable at each place.
        for text, judge in ((write(), lambda x: theirs(x).logits), (write_theirs(), ours)):
            assert text.shape == (1, 24 + new)
            logits = judge(text)[0, 23:-1]
            written = logits.gather(1, text[0, 24:, None])[:, 0]
            below = (logits.max(1).values - written).max() / logits.abs().max()
            shortfall = max(shortfall, below.item())
    contest.check_and_time(
        "generation", write, write_theirs, difference=shortfall, tolerance=1e-4, seconds=40
    )


# Checkpoints


@pytest.mark.parametrize(
    "family",
    [
        pytest.param("bert", marks=pytest.mark.rows("checkpoint-bert")),
        pytest.param("gpt2", marks=pytest.mark.rows("checkpoint-gpt2", "checkpoint-memory")),
    ],
)
def test_checkpoint(contest, tmp_path, family):
    small = {"vocab_size": 50, "d_model": 12, "num_layers": 2, "num_heads": 3}
    options = {} if contest.measures else small
    kind, config = {"bert": (BERT, BERTConfig), "gpt2": (GPT2, GPT2Config)}[family]
    model = filled(kind, config(**options))
    count = sum(p.numel() for p in model.parameters())
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    size = file.stat().st_size

    def read():
        memory = torch.empty(size, dtype=torch.uint8)
        with file.open("rb", buffering=0) as opened:
            assert opened.readinto(memory.numpy()) == size
        return memory

    loaded = kind.from_pretrained(folder)
    assert sum(p.numel() for p in loaded.parameters()) == count
    difference = relative_difference(dict(loaded.state_dict()), dict(model.state_dict()))
    del loaded, model
    gc.collect()
    contest.check_and_time(
        f"checkpoint-{family}",
        lambda: kind.from_pretrained(folder),
        read,
        difference=difference,
        tolerance=0.0,
        note=f"{count / 1e6:.0f} million parameters, {size / 2**20:.0f} MiB",
        before=give_back_memory,
    )
    if family == "gpt2" and contest.measures:  # at a small size tests/test_checkpoints.py has it
        peak, weights = memory_of_loading("gpt2", folder, tmp_path)
        contest.value(
            "checkpoint-memory",
            peak / weights,
            ours=peak / 2**20,
            theirs=weights / 2**20,
            unit="MiB",
        )


def give_back_memory():
    """Return what was freed to the system, so that the next turn, whosever it is, gets fresh pages.

    Otherwise tensors of some MiB would find pages of the turn before, and one large piece none.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


def filled(kind, config):
    """A large model in no time: not initialised, but each tensor of numbers of its own."""
    with torch.device("meta"):
        model = kind(config)
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            numbers = torch.arange(parameter.numel(), dtype=torch.float32) + i
            parameter.copy_((numbers % 977 / 977 - 0.5).view_as(parameter))
    return model.eval()
