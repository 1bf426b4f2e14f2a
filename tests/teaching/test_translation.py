"""Tests of lib.teaching.translation: batches, what is right to the letter, training, weights."""

import doctest

import pytest
import torch

from lib.data import TextPairs
from lib.generation import beam_search
from lib.losses import label_smoothing_loss, masked_lm_loss
from lib.models.transformer import Transformer, TransformerConfig
from lib.teaching import translation as module
from lib.teaching.translation import (
    OneVector,
    Translation,
    attention_weights,
    exact_match,
    nats,
    train_translator,
    translate,
)

PAIRS = [("abc", "cb"), ("b", "bcab"), ("ca", "a")]
DATA = TextPairs(train=PAIRS, validation=[("cab", "ba")], sha256="")


@pytest.fixture
def translation():
    return Translation(DATA)


def small(translation, model_class=Transformer, seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"d_model": 12, "num_layers": 2, "num_heads": 3, "d_ff": 16, "max_length": 50}
    config = TransformerConfig(**translation.tokens, **sizes, dropout=0.0, init_std=0.4, **options)
    return model_class(config).double().eval()


@pytest.fixture(scope="module")
def trained():
    """A model that knows three pairs by heart, so that it says different things of them."""
    translation = Translation(DATA)
    model = small(translation)
    train_translator(model, translation, PAIRS, steps=60, seed=0, batch_size=6, learning_rate=1e-2)
    return model


def test_doctests():
    assert doctest.testmod(module).failed == 0


class TestTranslation:
    def test_characters_of_both_sides_and_parts(self):
        data = TextPairs([("a", "b")], [("c", "d")], "")
        translation = Translation(data)
        assert translation.vocabulary.characters == "abcd"
        assert (translation.pad, translation.eos, len(translation)) == (4, 5, 6)
        assert translation.tokens == {"vocab_size": 6, "pad_token_id": 4, "eos_token_id": 5}

    def test_batch(self, translation):
        batch = translation.batch(PAIRS)
        pad, eos = 3, 4
        assert batch.input_ids.tolist() == [[0, 1, 2, eos], [1, eos, pad, pad], [2, 0, eos, pad]]
        assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
        assert batch.decoder_input_ids.tolist() == [
            [pad, 2, 1, eos, pad],
            [pad, 1, 2, 0, 1],
            [pad, 0, eos, pad, pad],
        ]
        assert batch.labels.tolist() == [
            [2, 1, eos, -100, -100],
            [1, 2, 0, 1, eos],
            [0, eos, -100, -100, -100],
        ]
        assert list(batch.inputs) == ["input_ids", "attention_mask", "decoder_input_ids"]
        assert all(batch.inputs[name] is getattr(batch, name) for name in batch.inputs)

    def test_an_unknown_character_is_named(self, translation):
        with pytest.raises(ValueError, match="'z'"):
            translation.read(["az"])

    @pytest.mark.parametrize(
        "ids, text",
        [([3, 0, 1, 4, 2, 2], "ab"), ([3, 0, 3, 1], "ab"), ([3, 4], ""), ([2, 2, 4, 4], "cc")],
    )
    def test_decode_stops_at_the_end(self, translation, ids, text):
        assert translation.decode(torch.tensor(ids)) == text


class TestTranslate:
    def test_batches_and_padding_change_nothing(self, translation, trained):
        model, texts = trained, [source for source, _ in PAIRS]
        alone = [translate(model, translation, [text], max_new_tokens=7)[0] for text in texts]
        assert len(set(alone)) > 1, "the model says the same of all: the test shows nothing"
        for batch_size in (1, 2, 3):
            got = translate(model, translation, texts, max_new_tokens=7, batch_size=batch_size)
            assert got == alone

    def test_at_most_so_many_tokens(self, translation):
        model = small(translation)
        model.config.__dict__["eos_token_id"] = None
        assert len(translate(model, translation, ["ab"], max_new_tokens=3)[0]) <= 3

    def test_another_way_to_write(self, translation):
        model = small(translation)
        read = translation.read(["abc"])
        want = beam_search(model, **read, max_new_tokens=6, num_beams=3, length_penalty=2.0)
        got = translate(
            model, translation, ["abc"], write=beam_search, max_new_tokens=6,
            num_beams=3, length_penalty=2.0,
        )  # fmt: skip
        assert got == [translation.decode(want[0])]

    def test_exact_match_counts_whole_texts(self, translation, trained):
        model, sources = trained, ["abc", "b", "ca", "cab"]
        written = translate(model, translation, sources)
        almost = written[1] + "a"  # all but the end is right
        targets = [written[0], almost, written[2], written[3][1:] + "cccc"]
        pairs = list(zip(sources, targets, strict=True))
        assert exact_match(model, translation, pairs) == 0.5


class TestNats:
    def test_is_the_mean_over_all_tokens(self, translation):
        model = small(translation)
        total, count = 0.0, 0
        for pair in PAIRS:
            batch = translation.batch([pair])
            loss = masked_lm_loss(model(**batch.inputs), batch.labels, reduction="sum")
            total, count = total + loss.item(), count + len(pair[1]) + 1
        assert nats(model, translation, PAIRS) == pytest.approx(total / count, abs=1e-12)


class TestTraining:
    def test_first_loss_is_that_of_the_drawn_rows(self, translation):
        model = small(translation)
        rows = torch.randint(3, (4,), generator=torch.Generator().manual_seed(5))
        batch = translation.batch([PAIRS[int(i)] for i in rows])
        want = label_smoothing_loss(model(**batch.inputs), batch.labels, 0.2).item()
        losses = train_translator(
            model, translation, PAIRS, steps=2, seed=5, batch_size=4, smoothing=0.2
        )
        assert losses[0] == pytest.approx(want, abs=1e-12)
        assert losses[1] != losses[0]
        assert not model.training

    def test_learns_three_pairs_by_heart(self, translation, trained):
        assert exact_match(small(translation), translation, PAIRS) < 1.0
        assert exact_match(trained, translation, PAIRS) == 1.0

    def test_a_seed_repeats_and_another_does_not(self, translation):
        def run(seed):
            return train_translator(
                small(translation), translation, PAIRS, steps=3, seed=seed, batch_size=2
            )

        assert run(1) == run(1) != run(2)


class TestAttentionWeights:
    def test_shapes_rows_and_masks(self, translation):
        model = small(translation)
        batch = translation.batch(PAIRS)
        found = attention_weights(model, **batch.inputs)
        m, n = batch.input_ids.shape[1], batch.labels.shape[1]
        shapes = {"encoder": (3, 3, m, m), "decoder": (3, 3, n, n), "cross": (3, 3, n, m)}
        for kind, shape in shapes.items():
            assert [tuple(w.shape) for w in found[kind]] == [shape, shape]  # two layers
            for w in found[kind]:
                assert torch.allclose(w.sum(-1), torch.ones(()).double())
        assert found["cross"][1][1, :, :, 2:].max() == 0  # padding of the second text
        assert found["encoder"][0][1, :, :, 2:].max() == 0
        assert found["decoder"][0].triu(1).max() == 0
        assert not torch.equal(found["cross"][0], found["cross"][1])

    def test_they_make_the_output(self, translation):
        """With the values of the memory, the weights give what cross-attention returns."""
        model = small(translation)
        batch = translation.batch(PAIRS[:1])
        layer, seen = model.decoder[1].cross_attention, []
        handle = layer.register_forward_hook(lambda m, args, out: seen.append(out))
        want = model(**batch.inputs)
        handle.remove()
        weights = attention_weights(model, **batch.inputs)["cross"][1]
        memory = model.encode(batch.input_ids, attention_mask=batch.attention_mask)
        values = layer.value_projection(memory).unflatten(-1, (3, 4)).transpose(1, 2)
        out = layer.output_projection((weights @ values).transpose(1, 2).flatten(-2))
        assert torch.allclose(out, seen[0], atol=1e-12)
        assert torch.equal(model(**batch.inputs), want)  # no hook is left
        assert all(not m._forward_pre_hooks for m in model.modules())


class TestOneVector:
    def test_the_memory_is_the_mean_of_real_states(self, translation):
        model = small(translation, OneVector)
        plain = small(translation)
        batch = translation.batch(PAIRS)
        memory = model.encode(batch.input_ids, attention_mask=batch.attention_mask)
        states = plain.encode(batch.input_ids, attention_mask=batch.attention_mask)
        want = torch.stack([states[i, :k].mean(0, keepdim=True) for i, k in enumerate((4, 2, 3))])
        assert torch.allclose(memory, want)
        whole = model.encode(batch.input_ids[:1])
        assert torch.allclose(whole, want[:1])

    def test_padding_changes_nothing(self, translation):
        model = small(translation, OneVector)
        batch = translation.batch(PAIRS)
        alone = translation.batch(PAIRS[2:])
        n = alone.labels.shape[1]
        together = model(**batch.inputs)[2, :n]
        assert torch.allclose(together, model(**alone.inputs)[0], atol=1e-12)

    def test_it_can_write_with_a_cache_and_without(self, translation):
        model, read = small(translation, OneVector), translation.read(["abc", "b"])
        texts = [
            beam_search(model, **read, max_new_tokens=6, num_beams=2, use_cache=use_cache)
            for use_cache in (True, False)
        ]
        assert torch.equal(*texts)
