"""lib.models.distilbert: against the official implementation, and as a student of a BERT."""

import dataclasses
import doctest
import math

import pytest
import torch

from lib.models import distilbert
from lib.models.bert import BERT, BERTConfig
from lib.models.distilbert import DistilBERT, DistilBERTConfig
from tests.models import parity

transformers = parity.transformers()

V = 47
OFFICIAL = {
    "vocab_size": V,
    "dim": 21,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 29,
    "max_position_embeddings": 19,
}
TEACHER = BERTConfig(V, d_model=21, num_layers=5, num_heads=3, d_ff=29, max_length=19)
INPUTS = parity.batch(V, segments=False)


def load(folder, dtype=torch.float64, **options):
    config = transformers.DistilBertConfig(**OFFICIAL | options)
    reference = parity.checkpoint(transformers.DistilBertForMaskedLM(config), folder, dtype)
    return DistilBERT.from_pretrained(folder), reference


@pytest.fixture
def teacher():
    return parity.randomise(BERT(TEACHER).double()).eval()


# The official implementation


@pytest.mark.parametrize("dtype", parity.TOLERANCE, ids=str)
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_equals_the_official_model(tmp_path, dtype, activation):
    ours, reference = load(tmp_path, dtype, activation=activation)
    parity.assert_parity(ours, reference, INPUTS)
    parity.assert_parity(ours, reference, {"input_ids": INPUTS["input_ids"]})


def test_the_official_model_reads_what_we_write(tmp_path, teacher):
    ours = DistilBERT.from_teacher(teacher).eval()
    ours.save_pretrained(tmp_path / "ours")
    reference, report = transformers.DistilBertForMaskedLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype=torch.float64
    )
    assert not any(report.values()), report
    parity.assert_parity(ours, reference.eval(), INPUTS)


def test_hidden_vectors_equal_the_official_ones(tmp_path):
    ours, reference = load(tmp_path)
    with torch.no_grad():
        want = reference.distilbert(**INPUTS).last_hidden_state
        got = ours.encode(INPUTS["input_ids"], attention_mask=INPUTS["attention_mask"])
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def swap_the_projections(model):
    for layer in model.encoder.layers:
        attention = layer.attention
        attention.key_projection, attention.query_projection = (
            attention.query_projection,
            attention.key_projection,
        )


def exchange_the_norms(model):
    for layer in model.encoder.layers:
        layer.attention_norm, layer.feed_forward_norm = (
            layer.feed_forward_norm,
            layer.attention_norm,
        )


def drop_the_last_layer(model):
    del model.encoder.layers[-1]


def take_torchs_eps(model):
    model.head.norm.eps = 1e-5


def forget_the_head_norm(model):
    model.head.norm.forward = lambda x: x


def forget_the_scale(model):
    model.encoder.layers[1].attention.key_projection.register_forward_hook(
        lambda module, args, output: output * math.sqrt(7)
    )


MISTAKES = {
    swap_the_projections: "encoder.layers.0.attention.query_projection",
    exchange_the_norms: "encoder.layers.0.attention_norm",
    drop_the_last_layer: "head.transform",
    take_torchs_eps: "head.norm",
    forget_the_head_norm: "head.norm",
    forget_the_scale: "encoder.layers.1.attention.key_projection",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_the_harness_catches(tmp_path, mistake):
    ours, reference = load(tmp_path)
    parity.assert_parity(ours, reference, INPUTS)
    mistake(ours)
    with pytest.raises(AssertionError, match="differs by") as caught:
        parity.assert_parity(ours, reference, INPUTS)
    assert str(caught.value).endswith(f"first in {MISTAKES[mistake]}")


# From the teacher


def test_student_has_every_other_layer(teacher):
    student = DistilBERT.from_teacher(teacher)
    assert student.config == DistilBERTConfig(
        V, d_model=21, num_layers=3, num_heads=3, d_ff=29, max_length=19
    )
    theirs = teacher.state_dict()
    for name, ours in student.state_dict().items():
        for i in (2, 1, 0):
            name = name.replace(f"layers.{i}.", f"layers.{2 * i}.")
        assert torch.equal(ours, theirs[name]), name
        assert ours.data_ptr() != theirs[name].data_ptr()


def test_student_with_all_layers_is_the_teacher_without_segments(teacher):
    student = DistilBERT.from_teacher(teacher, layers=range(5)).eval()
    ids, mask = INPUTS["input_ids"], INPUTS["attention_mask"]
    with torch.no_grad():
        assert (student(ids) - teacher(ids)[0]).abs().max() > 1e-3
        teacher.encoder.embeddings.segment.weight.zero_()
        want = teacher(ids, attention_mask=mask)[0]
        torch.testing.assert_close(student(ids, attention_mask=mask), want, rtol=0, atol=1e-12)


def test_layers_can_be_named(teacher):
    student = DistilBERT.from_teacher(teacher, layers=[4, 1])
    for ours, theirs in ((0, 4), (1, 1)):
        got = student.encoder.layers[ours].feed_forward.expand.weight
        assert torch.equal(got, teacher.encoder.layers[theirs].feed_forward.expand.weight)


def test_a_factorised_teacher_hands_down_its_projection():
    teacher = parity.randomise(BERT(dataclasses.replace(TEACHER, d_embedding=10)))
    student = DistilBERT.from_teacher(teacher)
    assert torch.equal(student.encoder.projection.weight, teacher.encoder.projection.weight)


@pytest.mark.parametrize("layers", [[], [5], [-1], [0.0]])
def test_layers_that_are_not_there(teacher, layers):
    with pytest.raises(ValueError, match=r"^layers: expected some of 0 … 4, got "):
        DistilBERT.from_teacher(teacher, layers=layers)


def test_training_the_student_leaves_the_teacher(teacher):
    before = {name: p.clone() for name, p in teacher.state_dict().items()}
    student = DistilBERT.from_teacher(teacher)
    student(INPUTS["input_ids"]).square().mean().backward()
    torch.optim.SGD(student.parameters(), lr=0.1).step()
    assert all(torch.equal(p, before[name]) for name, p in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


# Our own contract


def test_docstrings():
    assert doctest.testmod(distilbert).failed == 0


def test_base_has_the_published_size():
    with torch.device("meta"):
        encoder = DistilBERT(DistilBERTConfig()).encoder
    assert sum(p.numel() for p in encoder.parameters()) == 66_362_880  # "66M" in Table 3


def test_segments_are_refused(teacher):
    student = DistilBERT.from_teacher(teacher)
    ids = INPUTS["input_ids"]
    with pytest.raises(ValueError, match=r"^token_type_ids: expected None, as this model has no"):
        student(ids, token_type_ids=torch.zeros_like(ids))
    with pytest.raises(ValueError, match=r"^num_segments: expected 0, got 2"):
        DistilBERTConfig(num_segments=2)


def test_an_eps_that_the_official_model_cannot_have_is_not_saved(tmp_path):
    teacher = BERT(dataclasses.replace(TEACHER, eps=1e-5))
    with pytest.raises(
        ValueError, match=r"^eps: expected 1e-12, as a distilbert checkpoint has no"
    ):
        DistilBERT.from_teacher(teacher).save_pretrained(tmp_path / "student")
