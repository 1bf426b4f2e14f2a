"""lib.models.electra: both parts against the official implementation, and what trains them."""

import dataclasses
import doctest
import math

import pytest
import torch
from torch.nn import functional as F

from lib.checkpoints import CheckpointError
from lib.models import electra
from lib.models.bert import BERTConfig
from lib.models.electra import ELECTRA, Discriminator, Generator, smaller
from tests.models import parity

transformers = parity.transformers()

V = 47
OFFICIAL = {
    "vocab_size": V,
    "embedding_size": 11,
    "hidden_size": 21,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "max_position_embeddings": 19,
}
PARTS = {
    Discriminator: transformers.ElectraForPreTraining,
    Generator: transformers.ElectraForMaskedLM,
}
INPUTS = parity.batch(V)
MASK, PAD, CLS, SEP = 4, 0, 2, 3
SPECIAL = {"mask_token_id": MASK, "special_token_ids": (PAD, CLS, SEP)}
SMALL = BERTConfig(V, d_model=24, num_layers=2, num_heads=4, d_ff=29, max_length=40, d_embedding=11)

each_part = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)


def load(part, folder, dtype=torch.float64, **options):
    config = transformers.ElectraConfig(**OFFICIAL | options)
    reference = parity.checkpoint(PARTS[part](config), folder, dtype)
    return part.from_pretrained(folder), reference


# The official implementation


@each_part
@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("embedding_size", [11, 21])
@pytest.mark.parametrize("hidden_act", ["gelu", "relu"])
def test_equals_the_official_model(tmp_path, part, dtype, embedding_size, hidden_act):
    ours, reference = load(
        part, tmp_path, dtype, embedding_size=embedding_size, hidden_act=hidden_act
    )
    assert (ours.encoder.projection is None) == (embedding_size == 21)
    parity.assert_parity(ours, reference, INPUTS)
    parity.assert_parity(ours, reference, {"input_ids": INPUTS["input_ids"]})


@each_part
def test_the_official_model_reads_what_we_write(tmp_path, part):
    ours = parity.randomise(part(SMALL).double()).eval()
    ours.save_pretrained(tmp_path / "ours")
    reference, report = PARTS[part].from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    assert not any(report.values()), report
    parity.assert_parity(ours, reference.eval(), INPUTS)


def test_equal_sizes_are_written_out(tmp_path):
    """transformers would take 128 for an embedding size that a file does not name."""
    config = BERTConfig(V, d_model=21, num_layers=1, num_heads=3, d_ff=29, max_length=19)
    parity.randomise(Generator(config)).save_pretrained(tmp_path / "ours")
    reference = transformers.ElectraForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    assert reference.config.embedding_size == 21
    parity.assert_parity(Generator.from_pretrained(tmp_path / "ours"), reference, INPUTS)


def test_positive_means_replaced(tmp_path):
    """The sign is the checkpoint's: its own loss has 1 for a replaced token."""
    ours, reference = load(Discriminator, tmp_path)
    with torch.no_grad():
        reference.discriminator_predictions.dense_prediction.bias.fill_(100.0)
        loss = reference(**INPUTS, labels=torch.ones_like(INPUTS["input_ids"])).loss
        ours.output.bias.fill_(100.0)
        assert loss < 1e-3
        assert (ours(INPUTS["input_ids"]) > 0).all()


def forget_the_projections_bias(model):
    model.encoder.projection.bias.data.zero_()


def ignore_segments(model):
    embed = model.encoder.embeddings.forward
    model.encoder.embeddings.forward = lambda ids, segments: embed(ids, None)


def answer_that_it_is_original(model):
    model.output.weight.data.neg_()
    model.output.bias.data.neg_()


def approximate_the_activation(model):
    model.config = dataclasses.replace(model.config, activation="gelu_tanh")


def give_the_head_the_layers_activation(model):
    model.head.activation = "relu"


def forget_the_heads_own_bias(model):
    model.head.bias.data.zero_()


MISTAKES = [
    (Discriminator, forget_the_projections_bias, "encoder.projection"),
    (Discriminator, ignore_segments, "encoder.embeddings.norm"),
    (Discriminator, answer_that_it_is_original, "output"),
    (Discriminator, approximate_the_activation, "output"),
    (Generator, forget_the_projections_bias, "encoder.projection"),
    (Generator, give_the_head_the_layers_activation, "head.norm"),
    (Generator, forget_the_heads_own_bias, "the output alone"),
]


@pytest.mark.parametrize(
    "part, mistake, layer", MISTAKES, ids=[f"{p.__name__}-{m.__name__}" for p, m, _ in MISTAKES]
)
def test_the_harness_catches(tmp_path, part, mistake, layer):
    ours, reference = load(part, tmp_path, hidden_act="relu")
    parity.assert_parity(ours, reference, INPUTS)
    mistake(ours)
    with pytest.raises(AssertionError, match="differs by") as caught:
        parity.assert_parity(ours, reference, INPUTS)
    assert str(caught.value).endswith(f"first in {layer}")


# Both parts from files


@pytest.fixture
def folders(tmp_path):
    for seed, (part, official) in enumerate(PARTS.items()):
        config = transformers.ElectraConfig(**OFFICIAL)
        parity.checkpoint(official(config), tmp_path / part.__name__.lower(), seed=seed)
    return tmp_path


def test_loads_both_parts(folders):
    discriminator, generator = folders / "discriminator", folders / "generator"
    for model in (
        ELECTRA.from_pretrained(discriminator, generator),
        ELECTRA.from_pretrained(discriminator, generator=str(generator)),
        ELECTRA.from_pretrained(folders),
    ):
        for name, part in {"discriminator": Discriminator, "generator": Generator}.items():
            want = part.from_pretrained(folders / name)(**INPUTS)
            assert torch.equal(getattr(model, name)(**INPUTS), want)
        assert not any(module.training for module in model.modules())
        assert not any(p.is_meta for p in model.parameters())


@each_part
def test_loads_one_part_alone(folders, part):
    name = part.__name__.lower()
    model = ELECTRA.from_pretrained(folders / name)
    assert torch.equal(
        getattr(model, name)(**INPUTS), part.from_pretrained(folders / name)(**INPUTS)
    )
    other = {"generator": "discriminator", "discriminator": "generator"}[name]
    assert getattr(model, other) is None
    with pytest.raises(ValueError, match="expected both parts for training, got one alone"):
        model(INPUTS["input_ids"])


def test_parts_in_the_wrong_order_are_refused(folders):
    with pytest.raises(
        CheckpointError, match=r"^model.safetensors: missing tensor discriminator_predictions"
    ):
        ELECTRA.from_pretrained(folders / "generator", folders / "discriminator")


def test_embeddings_are_tied_where_the_files_agree(folders):
    separate = ELECTRA.from_pretrained(folders)
    assert separate.generator.encoder.embeddings is not separate.discriminator.encoder.embeddings

    together = ELECTRA(SMALL, **SPECIAL)
    together.save_pretrained(folders / "together")
    loaded = ELECTRA.from_pretrained(folders / "together", weight=7.0, **SPECIAL)
    assert loaded.generator.encoder.embeddings is loaded.discriminator.encoder.embeddings
    assert loaded.weight == 7.0
    for name, want in together.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], want), name


# The objective


def text(batch=6, n=20, seed=0):
    """[CLS] words [SEP] padding: ids and mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, V, (batch, n), generator=generator)
    lengths = torch.randint(5, n + 1, (batch,), generator=generator)
    lengths[0] = n
    ids[:, 0] = CLS
    ids[torch.arange(batch), lengths - 1] = SEP
    mask = (torch.arange(n) < lengths[:, None]).long()
    return ids * mask, mask


@pytest.fixture
def model():
    torch.manual_seed(0)
    return parity.randomise(ELECTRA(SMALL, **SPECIAL).double()).eval()


@pytest.mark.parametrize("sampling", ["gumbel", "multinomial"])
def test_a_step(model, sampling):
    model.sampling = sampling
    ids, mask = text()
    got = model(ids, attention_mask=mask, rng=torch.Generator().manual_seed(1))

    assert got.is_masked.sum(-1).tolist() == [math.ceil(0.15 * n) for n in mask.sum(-1).tolist()]
    assert not (got.is_masked & ((ids < 5) | (mask == 0))).any()
    assert torch.equal(got.corrupted_ids[~got.is_masked], ids[~got.is_masked])
    assert torch.equal(got.is_replaced, got.corrupted_ids != ids)
    assert got.is_replaced.any()

    masked_ids = torch.where(got.is_masked, MASK, ids)
    logits = model.generator(masked_ids, attention_mask=mask)
    torch.testing.assert_close(got.mlm_logits, logits[got.is_masked], rtol=0, atol=1e-12)
    want = F.cross_entropy(logits[got.is_masked], ids[got.is_masked])
    torch.testing.assert_close(got.mlm_loss, want, rtol=0, atol=1e-12)

    logits = model.discriminator(got.corrupted_ids, attention_mask=mask)
    torch.testing.assert_close(got.rtd_logits, logits, rtol=0, atol=1e-12)
    real = mask == 1
    want = F.binary_cross_entropy_with_logits(logits[real], got.is_replaced[real].double())
    torch.testing.assert_close(got.rtd_loss, want, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.loss, got.mlm_loss + 50 * got.rtd_loss, rtol=0, atol=1e-12)


def test_a_right_guess_is_labelled_original(model):
    """A generator that knows the answer leaves nothing to find."""
    ids, mask = text()
    is_masked = torch.zeros_like(mask, dtype=torch.bool)
    is_masked[:, 2] = True
    answer = 9
    ids[:, 2] = answer
    with torch.no_grad():
        model.generator.head.bias[answer] = 1e4
    got = model(ids, attention_mask=mask, is_masked=is_masked)
    assert torch.equal(got.is_masked, is_masked)
    assert torch.equal(got.corrupted_ids, ids)
    assert not got.is_replaced.any()


def test_no_gradient_passes_through_the_drawn_words(model):
    """Of the discriminator's loss the generator's own weights see nothing, and the other way."""
    ids, mask = text()
    shared = {id(p) for p in model.discriminator.encoder.embeddings.parameters()}
    for loss, other in (("rtd_loss", model.generator), ("mlm_loss", model.discriminator)):
        model.zero_grad()
        getattr(model(ids, attention_mask=mask), loss).backward()
        for name, parameter in other.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in shared), name


def test_embeddings_are_one(model):
    ids, mask = text()
    words = model.generator.encoder.embeddings.word.weight
    assert words is model.discriminator.encoder.embeddings.word.weight
    assert len({id(p) for p in model.parameters()}) == len(list(model.parameters()))

    def gradient(loss):
        model.zero_grad()
        output = model(ids, attention_mask=mask, rng=torch.Generator().manual_seed(0))
        getattr(output, loss).backward()
        return words.grad.clone()

    want = gradient("mlm_loss") + 50 * gradient("rtd_loss")
    torch.testing.assert_close(gradient("loss"), want, rtol=0, atol=1e-12)
    assert (gradient("mlm_loss").abs().sum(-1) > 0).all()  # through the head: every word
    assert not (gradient("rtd_loss").abs().sum(-1) > 0).all()  # only words that it read


def test_embeddings_can_be_two():
    model = ELECTRA(SMALL, tie_embeddings=False, **SPECIAL)
    assert model.generator.encoder.embeddings is not model.discriminator.encoder.embeddings


def test_steps_repeat_and_vary(model):
    ids, mask = text()

    def step(seed):
        return model(ids, attention_mask=mask, rng=torch.Generator().manual_seed(seed))

    first, same, other = step(0), step(0), step(1)
    assert torch.equal(first.corrupted_ids, same.corrupted_ids)
    assert not torch.equal(first.is_masked, other.is_masked)


def test_nothing_to_mask(model):
    ids = torch.tensor([[CLS, SEP, PAD]])
    got = model(ids, attention_mask=(ids != PAD).long())
    assert got.mlm_loss == 0 and not got.is_masked.any()
    assert got.loss == 50 * got.rtd_loss
    got.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_both_parts_learn():
    """On a text of one sentence the generator learns the words, the discriminator the places."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        SMALL, num_layers=1, dropout=0.0, attention_dropout=0.0, init_std=0.1
    )
    model = ELECTRA(config, smaller(config, 1 / 2), **SPECIAL)
    ids = torch.arange(5, 25).expand(8, 20).clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        output = model(ids)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append((output.mlm_loss.item(), output.rtd_loss.item()))
    assert losses[0][0] > 3.5 and losses[-1][0] < 1.5
    assert losses[0][1] > 0.5 and losses[-1][1] < 0.1


# Our own contract


def test_docstrings():
    assert doctest.testmod(electra).failed == 0


@pytest.mark.parametrize(
    "size, share, heads, d_model, d_ff",
    [
        ((256, 4, 1024), 1 / 4, 1, 64, 256),  # ELECTRA-small, as released
        ((768, 12, 3072), 1 / 3, 4, 256, 1024),  # ELECTRA-base, as released
    ],
)
def test_the_generators_size(size, share, heads, d_model, d_ff):
    d, h, ff = size
    got = smaller(BERTConfig(d_model=d, num_heads=h, d_ff=ff), share)
    assert (got.num_heads, got.d_model, got.d_ff, got.width) == (heads, d_model, d_ff, d)


def test_refuses(model):
    with pytest.raises(ValueError, match=r"^generator_config: expected vocab_size = 47, got 30522"):
        ELECTRA(SMALL, BERTConfig())
    with pytest.raises(ValueError, match=r"^generator_config: expected width = 11, got 24"):
        ELECTRA(SMALL, BERTConfig(V, d_model=24, num_heads=4))
    with pytest.raises(ValueError, match=r"^weight: expected a number in \[0, inf\), got -1"):
        ELECTRA(SMALL, weight=-1)
    ids, _ = text()
    with pytest.raises(ValueError, match=r"^is_masked: expected shape \(6, 20\), got \(6, 19\)"):
        model(ids, is_masked=ids[:, 1:] == 7)
    model.sampling = "argmax"
    with pytest.raises(ValueError, match=r"^sampling: expected 'gumbel' or 'multinomial', got"):
        model(ids)
    model.mask_token_id = 103
    with pytest.raises(
        ValueError, match=r"^mask_token_id: expected a number in \[0, 47\), got 103"
    ):
        model(ids)
