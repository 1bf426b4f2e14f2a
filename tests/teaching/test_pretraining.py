"""Pre-training at equal compute: the count is the counter's, and measures mean what they say."""

import doctest
import json
import math
import runpy
from pathlib import Path

import pytest
import torch

from lib.corruption import draw_positions
from lib.losses import masked_lm_loss, replaced_token_loss
from lib.models.bert import BERTConfig, Encoder, MaskedLM
from lib.models.electra import ELECTRA, Discriminator
from lib.teaching import pretraining
from lib.teaching.measure import flops
from lib.teaching.pretraining import (
    ARMS,
    MASK,
    PAD,
    SPECIAL,
    Corpus,
    auc,
    character_corpus,
    classify,
    pooled,
    pretrain,
    start_local,
    step_flops,
    words_baseline,
)
from lib.teaching.recorded import recorded

ROOT = Path(__file__).resolve().parents[2]
CONFIG = BERTConfig(
    17, d_model=32, num_layers=2, num_heads=2, d_ff=64, max_length=11, num_segments=0,
    dropout=0.0, attention_dropout=0.0, init_std=0.2,
)  # fmt: skip


def small_corpus():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    ids = torch.randint(4, 10, (40, 2, 11), generator=generator) + 6 * labels[:, None, None]
    ids[:, 1, 5:] = PAD
    return Corpus(
        train=torch.randint(4, 17, (60, 11), generator=generator),
        validation=torch.randint(4, 17, (30, 11), generator=generator),
        documents=ids[:30],
        labels=labels[:30],
        held_out=ids[30:],
        held_out_labels=labels[30:],
        characters=tuple("·?¶▢abcdefghijklm"),
        names=("first", "second"),
        sha256="0",
    )


def test_docstrings():
    assert doctest.testmod(pretraining).failed == 0


# The count


@pytest.mark.parametrize("arm", ["mlm", "rtd", "unigram", "two-stage"])
def test_operations_are_those_that_the_counter_sees(arm):
    torch.manual_seed(0)
    ids = torch.randint(4, 17, (5, 11))
    is_masked = draw_positions(ids, None, 0.15, SPECIAL)
    model, judge = MaskedLM(CONFIG), Discriminator(CONFIG)
    electra = ELECTRA(CONFIG, mask_token_id=MASK, special_token_ids=SPECIAL)

    def guess():
        hidden = model.encode(ids.masked_fill(is_masked, MASK))[is_masked]
        return model.mlm_logits(hidden)

    def step():
        if arm == "mlm":
            masked_lm_loss(guess(), ids[is_masked]).backward()
        elif arm == "rtd":
            electra(ids, is_masked=is_masked).loss.backward()
        else:
            if arm == "two-stage":
                with torch.no_grad():
                    guess()
            replaced_token_loss(judge(ids), is_masked).backward()

    assert flops(step) == step_flops(arm, CONFIG, 5, recompute=True)
    assert 0.97 < step_flops(arm, CONFIG, 5) / flops(step) < 1


def test_no_training_costs_nothing():
    assert step_flops("none", CONFIG, 5) == 0


# Training


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_spends_its_budget_and_reports(arm):
    corpus, budget = small_corpus(), 20 * step_flops("mlm", CONFIG, 8)
    encoder, report = pretrain(arm, corpus, CONFIG, budget=budget, seed=0, batch=8)
    assert isinstance(encoder, Encoder) and not encoder.training
    assert all(p.requires_grad for p in encoder.parameters())
    if arm == "none":
        assert (report["steps"], report["flops"]) == (0, 0)
    else:
        assert budget - 2 * step_flops("mlm", CONFIG, 8) < report["flops"] <= budget
    assert ("mlm_loss" in report) == (arm in ("mlm", "rtd", "two-stage"))
    assert ("rtd_loss" in report) == ("auc" in report) == (arm not in ("none", "mlm"))
    for name in ("mlm_loss", "rtd_loss"):
        assert len(report.get(name, [0] * 10)) in range(5, 11)
    if "auc" in report:
        assert 0 <= report["recall"] <= 1 and 0 < report["replaced"] < 0.25
        assert 0 <= report["hit"] < 0.5


def test_two_stages_share_the_budget_by_halves():
    first, second = (step_flops(arm, CONFIG, 8) for arm in ("mlm", "two-stage"))
    budget = 20 * first
    _, report = pretrain("two-stage", small_corpus(), CONFIG, budget=budget, seed=0, batch=8)
    rest = 10 * first // second
    assert report["steps"] == 10 + rest and report["flops"] == 10 * first + rest * second


def test_a_report_holds_the_means_of_ten_parts():
    assert pretraining.tenths([float(k) for k in range(20)]) == [2 * k + 0.5 for k in range(10)]
    assert pretraining.tenths([1 / 3, 2.0]) == [0.3333, 2.0]


def test_the_judgement_of_known_logits():
    """The first half of the masked tokens is replaced, and every second of those is seen."""
    corpus, seen = small_corpus(), {}

    def corrupt(ids, is_masked, rng):
        places = is_masked.nonzero()
        places = places[: len(places) // 2]
        corrupted = ids.clone()
        corrupted[places[:, 0], places[:, 1]] = 4 + (ids[places[:, 0], places[:, 1]] - 3) % 13
        seen.update(ids=ids, masked=is_masked, places=places)
        return corrupted

    def judge(corrupted):
        logits = torch.full(corrupted.shape, -0.5)
        found = seen["places"][::2]
        logits[found[:, 0], found[:, 1]] = 0.5
        return logits

    got = pretraining._judged(judge, corrupt, corpus, 0.15, "cpu")
    replaced, masked = len(seen["places"]), int(seen["masked"].sum())
    recall = len(seen["places"][::2]) / replaced
    assert torch.equal(seen["ids"], corpus.validation)
    assert got["recall"] == pytest.approx(recall) and 0.5 <= recall < 0.6
    assert got["replaced"] == pytest.approx(replaced / corpus.validation.numel())
    assert got["hit"] == pytest.approx(1 - replaced / masked, abs=1e-6)
    assert got["auc"] == pytest.approx(recall + (1 - recall) / 2)


def test_the_same_seed_gives_the_same_encoder():
    corpus, budget = small_corpus(), 5 * step_flops("mlm", CONFIG, 8)

    def weights(seed):
        encoder, _ = pretrain("rtd", corpus, CONFIG, budget=budget, seed=seed, batch=8)
        return torch.cat([p.flatten() for p in encoder.parameters()])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_an_arm_that_is_none():
    with pytest.raises(ValueError, match=r"^arm: expected one of none, mlm, .*, got 'gan'$"):
        pretrain("gan", small_corpus(), CONFIG, budget=1, seed=0)


def test_unigram_replacements_follow_the_frequencies():
    corpus = small_corpus()
    counts = torch.bincount(corpus.train.flatten(), minlength=17).double()
    torch.testing.assert_close(corpus.frequencies, counts / counts.sum())
    corpus.train[0, 0] = MASK
    assert corpus.frequencies[list(SPECIAL)].sum() == 0
    assert corpus.frequencies.sum().item() == pytest.approx(1)


def test_attention_starts_local():
    torch.manual_seed(0)
    encoder = Encoder(CONFIG)
    start_local(encoder)
    for layer in encoder.layers:
        attention = layer.attention
        assert torch.equal(attention.query_projection.weight, attention.key_projection.weight)
    places = encoder.embeddings.position.weight
    torch.testing.assert_close(places.norm(dim=-1), torch.ones(11))  # a sinusoid has norm √(d/2)


# Measures


def test_auc_is_the_share_of_pairs_in_order():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(6, (40,), generator=generator)  # with ties
    positive = torch.rand(40, generator=generator) < 0.3
    pairs = scores[positive][:, None] - scores[~positive]
    want = (pairs > 0).double().mean() + 0.5 * (pairs == 0).double().mean()
    assert auc(scores, positive) == pytest.approx(want.item(), abs=1e-12)
    assert auc(torch.zeros(4), torch.tensor([1, 0, 1, 0])) == 0.5
    with pytest.raises(ValueError, match=r"^is_positive: expected both kinds, got 2 and 0$"):
        auc(torch.zeros(2), torch.ones(2))


def test_pooling_is_the_mean_over_real_characters():
    torch.manual_seed(0)
    encoder, corpus = Encoder(CONFIG).eval(), small_corpus()
    with torch.no_grad():
        got = pooled(encoder, corpus.documents[:3])
        for j in range(3):
            whole = encoder(corpus.documents[j, :1], None, None)[0]
            part = encoder(corpus.documents[j, 1:, :5], None, None)[0]
            torch.testing.assert_close(got[j], torch.cat([whole, part]).mean(0))


def test_a_classifier_learns_and_leaves_the_encoder_alone():
    torch.manual_seed(0)
    encoder, corpus = Encoder(CONFIG).eval(), small_corpus()
    before = [p.clone() for p in encoder.parameters()]
    found = classify(encoder, corpus, [8, 30], seed=0, steps=100)
    assert list(found) == [8, 30] and found[30] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))


def test_a_classifier_sees_features_without_their_offset_and_scale(monkeypatch):
    corpus = small_corpus()

    def features(encoder, documents):
        y = (documents[:, :1, 0] >= 10).float()  # the label, as small_corpus draws it
        return 1000 + torch.cat([0.01 * y, 10.0 * torch.randn(len(y), 1)], 1)

    torch.manual_seed(0)
    monkeypatch.setattr(pretraining, "pooled", features)
    assert classify(None, corpus, [30], seed=0, steps=60)[30] == 1.0


# Real text, and the script


def test_the_characters_of_docstrings():
    corpus = character_corpus(length=32, windows=4)
    assert corpus.train.shape[1] == corpus.validation.shape[1] == 32
    assert corpus.documents.shape[1:] == (4, 32)
    assert len(corpus.documents) == len(corpus.labels) > 3 * len(corpus.held_out)
    assert len(corpus.names) == 24 and set(corpus.labels.tolist()) == set(range(24))
    assert corpus.train.max() < len(corpus.characters) and (corpus.train != PAD).all()
    text = "".join(corpus.characters[i] for i in corpus.train[:40].flatten().tolist())
    assert text == text.lower() and " the " in text
    entropy = torch.special.entr(corpus.frequencies).sum()
    assert 2.5 < entropy < 3.3


def test_words_are_a_real_baseline():
    few, many = (words_baseline(count, seed=0) for count in (300, 2700))
    assert 0.4 < few < many < 0.95


def test_the_script_runs_end_to_end(tmp_path, monkeypatch, capsys):
    script = ROOT / "book" / "experiments" / "rtd_large.py"
    main = runpy.run_path(str(script))["main"]
    out = tmp_path / "tiny.json"
    given = ["--steps", "2", "--seeds", "0", "--d-model", "16", "--layers", "1"]
    given += ["--labels", "60", "120", "--out", str(out)]
    main(given)
    tiny = recorded("tiny", folder=tmp_path)
    large = json.loads(script.with_suffix(".json").read_text())
    assert list(tiny) == list(large)
    assert list(tiny["settings"]) == list(large["settings"])
    assert list(tiny["results"]) == list(large["results"])
    for arm in ARMS:
        assert list(tiny["results"]["arms"][arm][0]) == list(large["results"]["arms"][arm][0])
    assert capsys.readouterr().out.count("seed 0") == len(ARMS)
    budget = large["results"]["budget_flops"]
    for arm, runs in large["results"]["arms"].items():
        assert [run["seed"] for run in runs] == large["settings"]["seeds"]
        spent = [run["flops"] for run in runs]
        assert all(0.99 * budget < one <= budget for one in spent) or arm == "none"
        assert all(math.isfinite(value) for run in runs for value in run["accuracy"].values())
