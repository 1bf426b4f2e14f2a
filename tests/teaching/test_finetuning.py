"""lib.teaching.finetuning: rows, the two losses, and what training changes."""

import doctest
import math

import pytest
import torch
import torch.nn.functional as F

from lib.losses import causal_lm_loss
from lib.models.gpt2 import GPT2, GPT2Config
from lib.teaching import finetuning
from lib.teaching.finetuning import Classifier, accuracy, fine_tune, fine_tuning_loss, pack

V, START, EXTRACT = 11, 11, 12


def decoder(seed=0):
    torch.manual_seed(seed)
    config = GPT2Config(
        V + 2,
        d_model=14,
        num_layers=2,
        num_heads=2,
        max_length=9,
        embedding_dropout=0.0,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=0.3,
        eos_token_id=None,
    )
    return GPT2(config)


def examples(count=40, seed=0):
    """The label is 0 where a 3 stands in the text, 1 where a 4 does; nothing else is told."""
    rng = torch.Generator().manual_seed(seed)
    texts, labels = [], []
    for i in range(count):
        text = torch.randint(5, V, (int(torch.randint(2, 9, (1,), generator=rng)),), generator=rng)
        text[int(torch.randint(min(len(text), 7), (1,), generator=rng))] = 3 + i % 2
        texts.append(text)
        labels.append(i % 2)
    return pack(texts, labels, length=9, start=START, extract=EXTRACT)


def test_docstrings():
    assert doctest.testmod(finetuning).failed == 0


def test_rows():
    rows = pack(
        [torch.tensor([4, 5]), torch.tensor([1, 2, 3, 4, 5]), torch.tensor([], dtype=torch.long)],
        [2, 0, 1],
        length=5,
        start=8,
        extract=9,
    )
    assert rows.ids.tolist() == [[8, 4, 5, 9, 9], [8, 1, 2, 3, 9], [8, 9, 9, 9, 9]]
    assert rows.real.tolist() == [[True] * 4 + [False], [True] * 5, [True] * 2 + [False] * 3]
    assert rows.labels.tolist() == [2, 0, 1] and len(rows) == 3
    some = rows[torch.tensor([1, 0])]
    assert some.labels.tolist() == [0, 2] and some.ids[1].tolist() == rows.ids[0].tolist()
    assert some.real[1].tolist() == rows.real[0].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 2}, "length: expected at least 3, got 2"),
        ({"labels": [1, 2]}, "labels: expected 1, one a text, got 2"),
    ],
)
def test_refuses(changes, message):
    given = {"texts": [torch.tensor([1])], "labels": [1], "length": 5} | changes
    texts, labels = given.pop("texts"), given.pop("labels")
    with pytest.raises(ValueError, match=f"^{message}$"):
        pack(texts, labels, start=8, extract=9, **given)


def test_the_label_is_read_at_the_last_real_token():
    rows, model = examples(6), Classifier(decoder(), 2).eval()
    with torch.no_grad():
        got, tokens = model(rows.ids, rows.real)
        for i in range(6):
            alone = rows.ids[i : i + 1, : int(rows.real[i].sum())]
            hidden = model.decoder.encode(alone)[0]
            torch.testing.assert_close(got[i], model.head(hidden[-1]), rtol=0, atol=1e-5)
            want = model.decoder(alone)[0]
            torch.testing.assert_close(tokens[i, : len(want)], want, rtol=0, atol=1e-5)
        # what stands in the padding changes nothing
        other = rows.ids.where(rows.real, torch.tensor(7))
        torch.testing.assert_close(model(other, rows.real)[0], got, rtol=0, atol=1e-5)


def test_the_loss_is_the_sum_of_both():
    rows, model = examples(6), Classifier(decoder(), 2).eval()
    with torch.no_grad():
        labels, tokens = model(rows.ids, rows.real)
        first = F.cross_entropy(labels, rows.labels)
        second = causal_lm_loss(tokens, rows.ids.masked_fill(~rows.real, -100))
        for weight in (0.0, 0.5, 2.0):
            got = fine_tuning_loss(model, rows, weight)
            torch.testing.assert_close(got, first + weight * second)
        # a mean over real tokens, not over rows or places
        by_hand = [
            -tokens[i, t - 1].log_softmax(-1)[rows.ids[i, t]]
            for i in range(6)
            for t in range(1, int(rows.real[i].sum()))
        ]
        torch.testing.assert_close(second, torch.stack(by_hand).mean())


def test_training_learns_and_the_second_loss_keeps_the_language():
    train, held_out = examples(60), examples(40, seed=1)
    options = {"steps": 120, "batch": 16, "learning_rate": 1e-2, "seed": 0}
    language = {}
    for weight in (0.0, 0.5):
        model = fine_tune(decoder(), train, 2, weight=weight, **options)
        assert not model.training
        assert accuracy(model, train) > 0.9 and accuracy(model, held_out) > 0.75
        with torch.no_grad():
            tokens = held_out.ids.masked_fill(~held_out.real, -100)
            language[weight] = causal_lm_loss(model(held_out.ids, held_out.real)[1], tokens)
    assert language[0.5] < language[0.0] - 0.5


def test_a_seed_draws_head_batches_and_new_tokens():
    train = examples(20)
    options = {"weight": 0.5, "steps": 2, "batch": 3, "learning_rate": 1e-3}

    def run(seed, new_tokens=()):
        model = fine_tune(decoder(), train, 2, seed=seed, new_tokens=new_tokens, **options)
        return model.decoder.word.weight.detach(), model.head.weight.detach()

    one, same, other = run(0), run(0), run(1)
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not torch.equal(one[1], other[1])
    before = decoder().word.weight.detach()
    fresh = run(0, (START, EXTRACT))[0]
    moved = (fresh - before).norm(dim=1)
    assert (moved[:V] < 0.1).all() and (moved[V:] > 0.3).all()
    assert ((run(0)[0] - before).norm(dim=1) < 0.1).all()  # control


def test_accuracy_counts_in_parts():
    model = Classifier(decoder(), 2).eval()
    rows = examples(11)
    with torch.no_grad():
        want = (model(rows.ids, rows.real)[0].argmax(-1) == rows.labels).double().mean().item()
    for batch in (1, 4, 11, 50):
        assert math.isclose(accuracy(model, rows, batch=batch), want)
