"""lib.teaching.word_scores: each measure against its definition, on an untrained small model."""

import pytest
import torch

from lib.interpret import attention_norms, attention_rollout, kendall_tau, uniform_weights
from lib.teaching.word_classifier import MASK, SENTENCE, WordClassifier, train, words
from lib.teaching.word_scores import (
    MEASURES,
    agreement,
    long_texts,
    other_attention,
    word_scores,
)


@pytest.fixture(scope="module")
def data():
    return words()


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    return WordClassifier(data, 24, 2, 3).eval()


@pytest.fixture(scope="module")
def ids(data):
    return data.encode([SENTENCE])


def test_every_measure_is_there_and_not_negative(model, ids):
    scores = word_scores(model, ids)
    assert set(scores) == {*MEASURES, "leave-one-out"}
    for name, values in scores.items():
        assert values.shape == (ids.shape[1] - 1,) and (values >= 0).all(), name
        assert values.unique().numel() > 5 and not values.requires_grad, name


def test_weights_and_norms_are_the_last_layers_row_of_cls(model, ids):
    scores, weights = word_scores(model, ids), model.attention(ids)
    assert torch.allclose(scores["attention"], weights[1, 0, :, 0, 1:].mean(0))
    assert torch.allclose(scores["rollout"], attention_rollout(weights)[0, 0, 1:])
    first, last = model.bert.encoder.layers
    with torch.no_grad():
        x = first(model.bert.encoder.embeddings(ids))
        want = attention_norms(last.attention, x)[0, 0, 1:]
    assert torch.allclose(scores["norms"], want, atol=1e-6)


def test_the_last_layer_of_three(data, ids):
    torch.manual_seed(0)
    deep = WordClassifier(data, 24, 3, 3).eval()
    scores, weights = word_scores(deep, ids), deep.attention(ids)
    assert torch.allclose(scores["attention"], weights[2, 0, :, 0, 1:].mean(0))
    *below, last = deep.bert.encoder.layers
    with torch.no_grad():
        x = deep.bert.encoder.embeddings(ids)
        for layer in below:
            x = layer(x)
        want = attention_norms(last.attention, x)[0, 0, 1:]
    assert torch.allclose(scores["norms"], want, atol=1e-6)


def test_the_last_layer_is_not_watched_afterwards_whatever_happens(data, ids, monkeypatch):
    model = WordClassifier(data, 24, 2, 3).eval()
    last = model.bert.encoder.layers[-1].attention
    word_scores(model, ids)
    assert not last._forward_pre_hooks
    monkeypatch.setattr(model.bert, "pool", lambda hidden: hidden / "nothing")
    with pytest.raises(TypeError):
        word_scores(model, ids)
    assert not last._forward_pre_hooks


def test_leave_one_out_hides_one_word_of_the_named_class(model, ids):
    scores = word_scores(model, ids)["leave-one-out"]
    with torch.no_grad():
        f = model(ids)[0]
        for j in (0, 4, 10):
            hidden = ids.clone()
            hidden[0, 1 + j] = MASK
            want = (f.max() - model(hidden)[0, f.argmax()]).abs()
            assert torch.allclose(scores[j], want, atol=1e-6)


def test_gradient_is_the_slope_along_the_word_vector(model, ids):
    scores = word_scores(model, ids)["gradient"]
    vectors = model.word_vectors(ids).detach()
    named = int(model(ids).argmax())
    grown = vectors.clone()
    grown[0, 3] *= 1 + 1e-2
    shrunk = vectors.clone()
    shrunk[0, 3] *= 1 - 1e-2
    with torch.no_grad():
        up, down = (model.from_word_vectors(v, ids)[0, named] for v in (grown, shrunk))
    assert torch.allclose(scores[2], ((up - down) / 2e-2).abs(), rtol=0.05, atol=1e-4)


def test_chance_depends_on_the_seed(model, ids):
    first, again, other = (word_scores(model, ids, seed=s)["chance"] for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(word_scores(model, ids)["chance"], first)


def test_padding_and_batches_are_refused(model, ids):
    padded = torch.cat([ids, torch.zeros(1, 1, dtype=ids.dtype)], 1)
    for wrong in (padded, ids.expand(2, -1), ids[None]):
        with pytest.raises(ValueError, match="expected one text without padding"):
            word_scores(model, wrong)


def test_agreement_is_the_mean_tau(model, data):
    scores = [word_scores(model, ids) for ids in long_texts(data, 3)]
    found = agreement(scores)
    assert set(found) == set(MEASURES)
    taus = [float(kendall_tau(one["rollout"], one["leave-one-out"])) for one in scores]
    assert found["rollout"] == pytest.approx(sum(taus) / 3)
    assert "leave-one-out" in agreement(scores, "gradient")


def test_long_texts_are_held_out_and_long(data):
    found = long_texts(data, 5, least=20)
    assert len(found) == 5 and all(ids.shape[0] == 1 and ids.shape[1] >= 21 for ids in found)
    held_out = data.encode(data.data.validation)
    rows = [held_out[:, : ids.shape[1]].eq(ids).all(1).any() for ids in found]
    assert all(rows)


@pytest.mark.parametrize("options", [{"least": 20}, {}])
def test_long_texts_are_the_first_and_none_is_left_out(data, options):
    least = options.get("least", 10)
    want = [t for t in data.data.validation if len(data.split(t)) >= least][:40]
    found = long_texts(data, 40, **options)
    assert all(torch.equal(ids, data.encode([t])) for ids, t in zip(found, want, strict=True))
    assert min(ids.shape[1] for ids in found) == 1 + least  # some have just so many words


def test_other_attention_in_some_layers_and_only_inside(model, ids):
    with torch.no_grad():
        before = model(ids)
        with other_attention(model, uniform_weights, [1]):
            last, weights = model(ids), model.attention(ids)
        with other_attention(model, uniform_weights):
            both = model(ids)
        assert torch.equal(model(ids), before)
    n = ids.shape[1]
    assert torch.allclose(weights[1], torch.full((1, 3, n, n), 1 / n))
    assert (weights[0] - 1 / n).abs().max() > 0.01
    assert not torch.allclose(last, before) and not torch.allclose(last, both)


class TestTrainOptions:
    def test_heads(self, data):
        assert WordClassifier(data, 48, 1, 6).bert.config.num_heads == 6
        assert WordClassifier(data, 48, 1).bert.config.num_heads == 3
        model, _ = train(data, steps=1, d_model=24, num_layers=1, num_heads=2)
        assert model.bert.config.num_heads == 2

    def test_within_surrounds_training_and_judging(self, data):
        seen = []

        def keep(own):
            seen.append(own.shape[0])
            return own

        few = {"steps": 2, "d_model": 24, "num_layers": 1}
        train(data, within=lambda model: other_attention(model, keep), **few)
        assert seen[:2] == [32, 32] and len(seen) > 2  # two batches, then the held-out texts

    def test_loss_takes_the_place_of_cross_entropy(self, data):
        seen = []

        def loss(model, ids, labels):
            seen.append((ids.shape[0], labels.shape))
            return model(ids).square().mean()

        train(data, steps=2, d_model=24, num_layers=1, loss=loss)
        assert seen == [(32, (32,))] * 2
