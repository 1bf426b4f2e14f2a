"""lib.teaching.recall: what the task asks, and that a window bounds what can be answered."""

import pytest
import torch

from lib.teaching import recall
from lib.teaching.recall import ASK, FIRST_VALUE, PAD, START, RecallTask

LENGTH, LONGEST, VALUES, ALPHABET = 13, 7, 3, 11


def make(seed=0, **sizes):
    text = torch.randint(ALPHABET, (500,), generator=torch.Generator().manual_seed(seed))
    sizes = {"length": LENGTH, "longest": LONGEST, "values": VALUES} | sizes
    return RecallTask(text, ALPHABET, **sizes)


def batch(task, count=2000, seed=0, distance=None):
    return task.batch(count, torch.Generator().manual_seed(seed), distance)


def places(ids):
    asked = (ids == ASK).long().argmax(1)
    told = ((ids >= FIRST_VALUE) & (ids < FIRST_VALUE + VALUES)).long().argmax(1)
    return told, asked


def test_one_value_and_one_question_in_real_text():
    task = make()
    ids, labels = batch(task)
    assert ids.shape == labels.shape == (2000, LENGTH)
    assert (ids[:, 0] == START).all() and not (ids == PAD).any()
    assert int(ids.max()) == task.vocab_size - 1 == FIRST_VALUE + VALUES + ALPHABET - 1
    is_value = (ids >= FIRST_VALUE) & (ids < FIRST_VALUE + VALUES)
    assert (is_value.sum(1) == 1).all() and ((ids == ASK).sum(1) == 1).all()
    told, asked = places(ids)
    row = torch.arange(2000)
    assert torch.equal(labels[row, asked], ids[row, told])
    assert ((labels >= 0).sum(1) == 1).all() and (labels[labels < 0] == -100).all()
    # what is left is a window of the text, in its order
    window = ids[0, 1:] - FIRST_VALUE - VALUES
    kept = [k for k in range(LENGTH - 1) if k + 1 not in (told[0], asked[0])]
    text = task.characters.unfold(0, LENGTH - 1, 1)
    assert (text[:, kept] == window[kept]).all(1).any()


def test_distances_are_drawn_evenly_and_both_ways():
    ids, labels = batch(make(), 7000)
    told, asked = places(ids)
    distance = (told - asked).abs()
    counts = torch.bincount(distance, minlength=LONGEST + 1)
    assert counts[0] == 0 and len(counts) == LONGEST + 1
    assert (counts[1:] - 1000).abs().max() < 150
    assert abs((told < asked).double().mean().item() - 0.5) < 0.03
    values = torch.bincount(labels[labels >= 0] - FIRST_VALUE, minlength=VALUES)
    assert (values / 7000 - 1 / VALUES).abs().max() < 0.03
    assert min(told.min(), asked.min()) == 1 and max(told.max(), asked.max()) == LENGTH - 1


@pytest.mark.parametrize("distance", [1, 4, 11])
def test_the_distance_can_be_given(distance):
    told, asked = places(batch(make(), distance=distance)[0])
    assert ((told - asked).abs() == distance).all()


def test_the_same_generator_draws_the_same():
    for one, other in zip(batch(make()), batch(make()), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(batch(make())[0], batch(make(), seed=1)[0])


@pytest.mark.parametrize("longest", [0, 12])
def test_refuses_a_distance_that_does_not_fit(longest):
    with pytest.raises(ValueError, match=f"longest: expected 1 to length - 2 = 11, got {longest}"):
        make(longest=longest)


def trained(steps=120, seed=0, **options):
    options = {"layers": 1, "window": 4, "start_is_global": False} | options
    sizes = {"batch_size": 32, "d_model": 16, "learning_rate": 1e-2}
    return recall.train_recall(make(), seed=seed, steps=steps, **sizes, **options)


def test_one_layer_answers_up_to_half_of_its_window():
    model = trained()
    assert not model.training and model.config.windows == (4,)
    shares = recall.accuracy_by_distance(model, make(seed=1), start_is_global=False, count=300)
    assert len(shares) == LONGEST
    assert min(shares[:2]) > 0.9 and max(shares[2:]) < 1 / VALUES + 0.15


def test_a_seed_is_a_seed():
    one, same, other = trained(3), trained(3), trained(3, seed=1)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    weight = "embeddings.word.weight"
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])


def test_a_global_start_is_seen_and_sees():
    """At a distance that no window spans, the answer depends on the value through the start."""
    task = make()
    model = trained(1, layers=2, start_is_global=True)
    ids, labels = batch(task, 4, distance=11)
    other = ids.clone()
    told, _ = places(ids)
    row = torch.arange(4)
    other[row, told] = FIRST_VALUE + (ids[row, told] - FIRST_VALUE + 1) % VALUES
    for start_is_global in (False, True):
        with torch.no_grad():
            first, second = (recall._answers(model, x, start_is_global) for x in (ids, other))
        moved = bool((first - second)[labels >= 0].abs().max() > 0)
        assert moved == start_is_global
