"""The small classifier that chapters 15 to 19 look into."""

from __future__ import annotations

import re

import pytest
import torch

from lib.teaching import word_classifier
from lib.teaching.word_classifier import CLS, MASK, PAD, SENTENCE, WordClassifier, train


@pytest.fixture(scope="module")
def words():
    return word_classifier.words()


@pytest.fixture(scope="module")
def model(words):
    torch.manual_seed(0)
    return WordClassifier(words, d_model=32, num_layers=3).double().eval()


@pytest.fixture(scope="module")
def ids(words):
    return words.encode(["Return a list.", SENTENCE])


class TestWords:
    def test_signs_are_words_and_capitals_are_not_kept(self, words):
        assert words.split("Return a… _private list, x2.") == [
            *["return", "a", "…", "_private", "list", ",", "x2", "."]
        ]

    def test_every_id_stands_for_its_word(self, words, ids):
        assert [words.vocabulary[i] for i in ids[1]] == ["[CLS]", *words.split(SENTENCE)]
        assert [words.vocabulary[i] for i in ids[0]] == (
            ["[CLS]", "return", "a", "list", "."] + 7 * ["[PAD]"]
        )

    def test_what_is_rare_reads_as_hidden(self, words):
        assert "zyzzyva" not in words.vocabulary
        assert words.encode(["zyzzyva list"])[0, :2].tolist() == [CLS, MASK]

    def test_a_word_seen_often_enough_has_an_id_and_no_rarer_one(self, words):
        text = " ".join(words.data.train).lower()
        counts = {word: 0 for word in words.vocabulary[3:]}
        for word in word_classifier._WORDS.findall(text):
            if word in counts:
                counts[word] += 1
        assert min(counts.values()) == 5
        assert len(set(words.vocabulary)) == len(words.vocabulary)

    def test_long_texts_are_cut(self, words):
        assert words.encode(["word " * 100, "a"]).shape == (2, 32)
        assert len(words.split("word " * 100)) == 31

    def test_no_text_is_refused(self, words):
        with pytest.raises(ValueError, match="texts: expected at least one, got none"):
            words.encode([])

    def test_the_sentence_is_held_out_and_has_no_unknown_word(self, words, ids):
        assert SENTENCE in words.data.validation
        assert SENTENCE not in words.data.train
        assert MASK not in ids[1]
        assert len(ids[1]) == 12


class TestModel:
    def test_padding_changes_nothing(self, model, ids):
        together, alone = model(ids)[:1], model(ids[:1, :5])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)

    def test_a_words_own_vectors_give_its_own_logits(self, model, ids):
        vectors = model.word_vectors(ids)
        assert torch.equal(model.from_word_vectors(vectors, ids), model(ids))
        other = model.from_word_vectors(vectors.roll(1, dims=1), ids)
        assert (other - model(ids)).abs().max() > 1e-3

    def test_other_vectors_are_those_of_the_words_they_belong_to(self, model, ids):
        hidden = ids.clone()
        hidden[1, 3] = MASK
        vectors = model.word_vectors(ids).clone()
        vectors[1, 3] = model.word_vectors(torch.tensor([[MASK]]))[0, 0]
        torch.testing.assert_close(model.from_word_vectors(vectors, ids), model(hidden))

    def test_gradients_reach_the_vectors(self, model, ids):
        vectors = model.word_vectors(ids).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.from_word_vectors(vectors, ids).sum(), vectors)
        assert gradient[ids != PAD].abs().min() > 0
        assert gradient[ids == PAD].abs().max() == 0

    def test_afterwards_the_table_is_read_again_whatever_happens(self, model, ids):
        before = model(ids)
        with pytest.raises(ValueError, match="input_ids"):
            model.from_word_vectors(torch.zeros(*ids.shape, 32), ids.double())
        assert torch.equal(model(ids), before)

    def test_vectors_of_another_shape_are_refused(self, model, ids):
        for got in ((2, 11, 32), (2, 12, 5)):
            message = re.escape(f"vectors: expected (2, 12, 32), got {got}")
            with pytest.raises(ValueError, match=message):
                model.from_word_vectors(torch.zeros(got), ids)

    def test_absent_words_are_hidden_and_nothing_else(self, model, ids):
        present = torch.ones(3, 11, dtype=torch.bool)
        present[1, 0] = present[2, 10] = False
        hidden = model.hide(ids[1:], present)
        assert torch.equal(hidden[0], ids[1])
        assert (hidden != ids[1]).nonzero().tolist() == [[1, 1], [2, 11]]
        assert hidden[1, 1] == hidden[2, 11] == MASK

    @pytest.mark.parametrize(
        ("rows", "present", "message"),
        [
            (2, torch.ones(3, 11, dtype=torch.bool), "expected one row and a boolean matrix"),
            (1, torch.ones(3, 11), "expected one row and a boolean matrix"),
            (1, torch.ones(11, dtype=torch.bool), "expected one row and a boolean matrix"),
            (1, torch.ones(3, 12, dtype=torch.bool), "expected 11 columns, got 12"),
        ],
    )
    def test_what_cannot_be_hidden_is_refused(self, model, ids, rows, present, message):
        with pytest.raises(ValueError, match=message):
            model.hide(ids[-rows:], present)

    def test_the_weights_are_those_that_each_layer_used(self, model, ids):
        weights = model.attention(ids)
        assert weights.shape == (3, 2, 2, 12, 12)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        assert weights[:, 0, :, :, 5:].abs().max() == 0  # the first text's padding
        x, mask = model.bert.encoder.embeddings(ids), (ids != PAD).unsqueeze(1)
        for layer, expected in zip(model.bert.encoder.layers, weights, strict=True):
            _, found = layer.attention(x, mask=mask, return_weights=True)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
            x = layer(x, mask)
        assert not any(layer._forward_pre_hooks for layer in model.bert.encoder.layers)


class TestTrain:
    def test_it_learns_the_same_twice_and_another_with_another_seed(self, words):
        few = {"steps": 12, "d_model": 16, "num_layers": 1}
        (first, accuracy), (again, same), (other, _) = (
            train(words, seed=seed, **few) for seed in (1, 1, 2)
        )
        x = words.encode([SENTENCE])
        assert torch.equal(first(x), again(x))
        assert accuracy == same
        assert not torch.equal(first(x), other(x))
        assert not first.training

    def test_after_some_steps_it_knows_more_than_the_most_frequent_label(self, words):
        model, accuracy = train(words, steps=120)
        labels = torch.tensor(words.data.validation_labels)
        assert accuracy > labels.bincount().max() / len(labels) + 0.15
        said = model(words.encode(words.data.validation)).argmax(-1)
        assert accuracy == pytest.approx((said == labels).double().mean().item(), abs=1e-3)

    def test_words_are_hidden_up_to_the_share(self, words, monkeypatch):
        shares = []
        forward = WordClassifier.forward

        def watched(self, ids):
            if self.training:
                real = ids > PAD
                shares.append(((ids == MASK).sum() / real.sum()).item())
            return forward(self, ids)

        monkeypatch.setattr(WordClassifier, "forward", watched)
        few = {"steps": 40, "d_model": 16, "num_layers": 1}
        train(words, hidden=0.0, **few)
        unknown, shares[:] = max(shares), []
        train(words, hidden=0.5, **few)
        assert unknown < 0.35
        assert min(shares) < 0.25
        assert 0.45 < max(shares) < 0.75
