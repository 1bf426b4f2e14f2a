"""Tests of lib.models.attention_only: its formula, its four ways of mixing, causality, learning."""

import math

import pytest
import torch
import torch.nn.functional as F

from lib.data import (
    CharacterVocabulary,
    consecutive_windows,
    random_windows,
    topics_text,
)
from lib.models.attention_only import MIXINGS, AttentionOnly
from lib.training import evaluate, fit, seed_everything

V, D, H, N, B = 13, 15, 3, 11, 5  # d_k = 5


def model_and_ids(mixing="attention", heads=H, dtype=torch.float64):
    torch.manual_seed(0)
    model = AttentionOnly(V, D, heads, N, mixing=mixing).to(dtype)
    for parameter in model.parameters():  # far from the initial values, so that nothing hides
        torch.nn.init.normal_(parameter, std=0.5)
    return model, torch.randint(V, (B, N))


def written_out(model, ids, factor, causal=True):
    """The logits one sequence, one head and one query at a time: (B, n, V)."""
    rows = []
    d_k = model.embed.embedding_dim // model.num_heads
    for sequence in ids:
        x = model.embed.weight[sequence]  # (n, d)
        placed = x + model.position.weight[: len(x)]
        for i in range(len(x)):
            heads = []
            for h in range(model.num_heads):
                part = slice(h * d_k, (h + 1) * d_k)
                seen = slice(0, i + 1 if causal else None)
                query = model.query.weight[part] @ placed[i]
                keys = placed[seen] @ model.key.weight[part].T
                weights = (factor * keys @ query).softmax(0)
                heads.append(weights @ (x[seen] @ model.value.weight[part].T))
            mixed = model.output.weight @ torch.cat(heads)
            rows.append(model.unembed.weight @ (x[i] + mixed))
    return torch.stack(rows).view(*ids.shape, -1)


@pytest.mark.parametrize(
    ("mixing", "factor"), [("attention", 1 / math.sqrt(5)), ("unscaled", 1.0), ("average", 0.0)]
)
@pytest.mark.parametrize("mask", ["causal", "none"])
def test_the_formula_written_out(mixing, factor, mask):
    model, ids = model_and_ids(mixing)
    want = written_out(model, ids, factor, causal=mask == "causal")
    assert torch.allclose(model(ids, mask=mask), want, atol=1e-12, rtol=0)


@pytest.mark.parametrize("mixing", ["attention", "unscaled", "average"])
@pytest.mark.parametrize("mask", ["causal", "none"])
def test_the_weights_are_those_that_the_fast_path_uses(mixing, mask):
    model, ids = model_and_ids(mixing)
    weights = model.attention_weights(ids, mask)
    assert weights.shape == (B, H, N, N)
    x = model.embed(ids)
    values = model.value(x).view(B, N, H, D // H).transpose(1, 2)
    mixed = (weights @ values).transpose(1, 2).reshape(B, N, D)
    want = model.unembed(x + model.output(mixed))
    assert torch.allclose(model(ids, mask=mask), want, atol=1e-12, rtol=0)
    assert torch.allclose(weights.sum(-1), torch.ones(B, H, N).double(), atol=1e-14, rtol=0)
    assert bool((weights.triu(1) == 0.0).all()) is (mask == "causal")


def test_causal_is_the_default_of_both():
    model, ids = model_and_ids()
    assert torch.equal(model(ids), model(ids, mask="causal"))
    assert torch.equal(model.attention_weights(ids), model.attention_weights(ids, "causal"))
    assert not torch.equal(model(ids), model(ids, mask="none"))


class TestCausality:
    """A change at t reaches the logits at t and later, of its own sequence, and nothing else."""

    t, b = 6, 2

    def changed(self, mixing, mask="causal"):
        model, ids = model_and_ids(mixing)
        other = ids.clone()
        other[self.b, self.t] = (other[self.b, self.t] + 1) % V
        return (model(ids, mask=mask) - model(other, mask=mask)).abs().amax(-1) > 1e-9  # (B, n)

    @pytest.mark.parametrize("mixing", ["attention", "unscaled", "average"])
    def test_the_past_stays_and_the_future_moves(self, mixing):
        want = torch.zeros(B, N, dtype=torch.bool)
        want[self.b, self.t :] = True  # the positive control is in the same comparison
        assert torch.equal(self.changed(mixing), want)

    @pytest.mark.parametrize("mixing", ["attention", "unscaled", "average"])
    def test_without_a_mask_the_past_moves_but_no_other_sequence(self, mixing):
        want = torch.zeros(B, N, dtype=torch.bool)
        want[self.b] = True
        assert torch.equal(self.changed(mixing, mask="none"), want)

    def test_none_ignores_context(self):
        want = torch.zeros(B, N, dtype=torch.bool)
        want[self.b, self.t] = True
        assert torch.equal(self.changed("none"), want)

    def test_a_prefix_has_the_logits_it_has_in_the_whole(self):
        model, ids = model_and_ids()
        for n in range(1, N + 1):
            assert torch.allclose(model(ids[:, :n]), model(ids)[:, :n], atol=1e-12, rtol=0)


class TestMixing:
    def test_none_is_a_bigram_table(self):
        model, ids = model_and_ids("none")
        table = model.embed.weight @ model.unembed.weight.T  # (V, V)
        assert torch.allclose(model(ids), table[ids], atol=1e-12, rtol=0)
        assert torch.equal(model(ids), model(ids, mask="none"))

    def test_average_is_the_running_mean(self):
        model, ids = model_and_ids("average")
        x = model.embed(ids)
        counts = torch.arange(1, N + 1, dtype=torch.float64)[:, None]
        mean = x.cumsum(1) / counts  # of the embeddings: no position, no query, no key in it
        want = model.unembed(x + model.output(model.value(mean)))
        assert torch.allclose(model(ids), want, atol=1e-12, rtol=0)

    def test_average_weights_are_one_over_the_count(self):
        model, ids = model_and_ids("average")
        want = torch.ones(N, N, dtype=torch.float64).tril() / torch.arange(1, N + 1)[:, None]
        assert torch.allclose(model.attention_weights(ids), want.expand(B, H, N, N), atol=1e-15)

    def test_unscaled_equals_scaled_for_one_feature_a_head_only(self):
        for heads, equal in ((D, True), (H, False)):  # d_k = 1 and 5
            scaled, ids = model_and_ids("attention", heads)
            unscaled, _ = model_and_ids("unscaled", heads)
            assert torch.equal(scaled(ids), unscaled(ids)) is equal

    def test_unscaled_weights_are_the_scaled_ones_to_the_power_root_d_k(self):
        scaled, ids = model_and_ids("attention")
        unscaled, _ = model_and_ids("unscaled")
        power = scaled.attention_weights(ids) ** math.sqrt(D // H)
        want = power / power.sum(-1, keepdim=True)
        assert torch.allclose(unscaled.attention_weights(ids), want, atol=1e-12, rtol=0)

    def test_all_start_from_the_same_values(self):
        starts = []
        for mixing in MIXINGS:
            torch.manual_seed(3)
            starts.append(AttentionOnly(V, D, H, N, mixing=mixing).state_dict())
        for other in starts[1:]:
            assert other.keys() == starts[0].keys()
            assert all(torch.equal(other[name], x) for name, x in starts[0].items())

    def test_positions_move_the_weights_and_nothing_else(self):
        model, ids = model_and_ids()
        same = torch.zeros_like(ids)  # one token repeated: only positions tell the keys apart
        weights = model.attention_weights(same)
        assert (weights[0, 0, -1] - 1 / N).abs().max() > 0.01
        # the values are equal, so whatever the weights, the logits are the same everywhere
        assert torch.allclose(model(same), model(same)[:, :1].expand(B, N, V), atol=1e-12)
        model.position.weight.data.zero_()
        uniform = torch.ones(N, N).tril() / torch.arange(1, N + 1)[:, None]
        got = model.attention_weights(same)
        assert torch.allclose(got, uniform.double().expand_as(got), atol=1e-12)


def test_parameters_are_counted_by_hand():
    model = AttentionOnly(V, D, H, N)
    assert sum(p.numel() for p in model.parameters()) == 2 * V * D + N * D + 4 * D * D
    assert [name for name, _ in model.named_parameters() if "bias" in name] == []


def test_gradients_reach_every_parameter():
    model, ids = model_and_ids()
    model(ids).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_float32_is_the_same_model():
    double, ids = model_and_ids()
    single = AttentionOnly(V, D, H, N)
    single.load_state_dict(double.state_dict())
    assert torch.allclose(single(ids).double(), double(ids), atol=1e-4, rtol=0)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"num_heads": 4}, "num_heads: expected a divisor of d_model 15, got 4"),
            ({"num_heads": 0}, "sizes: expected integers of at least 1, got (13, 15, 0, 11)"),
            ({"d_model": 1.5}, "sizes: expected integers of at least 1, got (13, 1.5, 3, 11)"),
            (
                {"mixing": "mean"},
                "mixing: expected one of attention, unscaled, average, none, got 'mean'",
            ),
        ],
    )
    def test_construction(self, arguments, message):
        sizes = {"vocab_size": V, "d_model": D, "num_heads": H, "max_length": N}
        with pytest.raises(ValueError) as error:
            AttentionOnly(**(sizes | arguments))
        assert str(error.value) == message

    @pytest.mark.parametrize("shape", [(N,), (B, N + 1), (B, 0), (B, N, 1)])
    @pytest.mark.parametrize("call", ["forward", "attention_weights"])
    def test_shape_of_the_input(self, shape, call):
        model, _ = model_and_ids()
        with pytest.raises(ValueError) as error:
            getattr(model, call)(torch.zeros(shape, dtype=torch.long))
        assert str(error.value) == f"input_ids: expected shape (B, n), 1 ≤ n ≤ 11, got {shape}"

    def test_name_of_the_mask(self):
        model, ids = model_and_ids()
        for call in (model, model.attention_weights):
            with pytest.raises(ValueError) as error:
                call(ids, mask="future")
            assert str(error.value) == """mask: expected "causal" or "none", got 'future'"""

    def test_no_weights_without_attention(self):
        model, ids = model_and_ids("none")
        with pytest.raises(ValueError, match=r'^mixing: expected one with weights, got "none"$'):
            model.attention_weights(ids)


class TestLearning:
    def test_copies_what_only_attention_can_see(self):
        """Ids of a period of 3 drawn anew: the next is the one two back, no bigram helps."""

        def losses(mixing):
            seed_everything(0)
            model = AttentionOnly(8, 32, 2, 9, mixing=mixing)

            def batch_loss(step):
                ids = torch.randint(8, (32, 3)).repeat(1, 4)[:, :10]
                logits = model(ids[:, :-1])[:, 2:]  # from the third on it can be known
                return F.cross_entropy(logits.flatten(0, 1), ids[:, 3:].flatten())

            return fit(model, batch_loss, steps=250, learning_rate=0.02)

        chance = math.log(8)
        assert losses("attention")[-1] < 0.1
        assert losses("none")[-1] > 0.9 * chance

    def test_real_text_below_every_bigram(self):
        text = topics_text()
        vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
        train, validation = vocabulary.encode(text.train), vocabulary.encode(text.validation)
        held_out = consecutive_windows(validation, 24)

        def trained(mixing):
            seed_everything(0)
            model = AttentionOnly(len(vocabulary), 48, 4, 24, mixing=mixing)

            def batch_loss(step):
                inputs, targets = random_windows(train, 16, 24)
                return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

            losses = fit(model, batch_loss, steps=400, learning_rate=0.015)
            return losses, evaluate(model, *held_out)

        pairs = train[:-1] * len(vocabulary) + train[1:]
        counts = torch.bincount(pairs, minlength=len(vocabulary) ** 2).view(len(vocabulary), -1)
        smoothed = (counts + 1) / (counts + 1).sum(-1, keepdim=True)
        bigram = -smoothed[held_out[0], held_out[1]].log().mean().item()

        losses, attention = trained("attention")
        assert losses[0] > 0.9 * math.log(len(vocabulary))
        assert sum(losses[-20:]) / 20 < bigram - 0.1
        assert attention < bigram - 0.1
        # the table that is trained does about what the table that is counted does
        assert abs(trained("none")[1] - bigram) < 0.1

    def test_the_seed_decides(self):
        def run(seed):
            seed_everything(seed)
            model = AttentionOnly(V, 8, 2, N)
            ids = torch.arange(40) % V

            def batch_loss(step):
                inputs, targets = random_windows(ids, 4, N)
                return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

            return fit(model, batch_loss, steps=5, learning_rate=0.01)

        assert run(1) == run(1) != run(2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("mixing", MIXINGS)
def test_cuda_is_the_same_model(mixing):
    model, ids = model_and_ids(mixing)
    want = model(ids)
    assert torch.allclose(model.cuda()(ids.cuda()).cpu(), want, atol=1e-10, rtol=0)
