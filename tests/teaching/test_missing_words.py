"""Four ways to leave a word out: what the model is asked, row by row."""

import pytest
import torch

from lib.teaching.missing_words import WAYS, background, sentence_game
from lib.teaching.word_classifier import CLS, MASK, PAD, WordClassifier, words


class Heard(torch.nn.Module):
    """Says two logits that tell the ids, and keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, ids):
        self.asked.append(ids.clone())
        number = (ids * 10.0 ** torch.arange(ids.shape[1])).sum(1)
        return torch.stack([number, -number], dim=1)


IDS = torch.tensor([[CLS, 5, 6, 7]])
PRESENT = torch.tensor([[True, True, True], [False, True, False], [True, False, True], [False] * 3])


@pytest.mark.parametrize(
    ("way", "rows"),
    [
        ("mask", [[5, 6, 7], [MASK, 6, MASK], [5, MASK, 7], [MASK] * 3]),
        ("pad", [[5, 6, 7], [PAD, 6, PAD], [5, PAD, 7], [PAD] * 3]),
        ("delete", [[5, 6, 7], [6, PAD, PAD], [5, 7, PAD], [PAD] * 3]),
    ],
)
def test_what_is_asked(way, rows):
    model = Heard()
    got = sentence_game(model, IDS, 1, way)(PRESENT)
    want = torch.cat([torch.full((4, 1), CLS), torch.tensor(rows)], dim=1)
    assert len(model.asked) == 1 and torch.equal(model.asked[0], want)
    assert got.dtype == torch.float64
    assert torch.equal(got, -(want * 10.0 ** torch.arange(4)).sum(1).double())


def test_random_words_are_averaged_and_the_same_for_all():
    model, others = Heard(), torch.tensor([[8, 9, 10], [11, 12, 13]])
    got = sentence_game(model, IDS, 0, "random", others=others)(PRESENT)
    want = [
        torch.cat([torch.full((4, 1), CLS), torch.where(PRESENT, IDS[:, 1:], row)], dim=1)
        for row in others
    ]
    assert len(model.asked) == 2
    assert all(torch.equal(a, b) for a, b in zip(model.asked, want, strict=True))
    means = sum((rows * 10.0 ** torch.arange(4)).sum(1) for rows in want) / 2
    assert torch.equal(got, means.double())


def test_one_draw_is_enough():
    model, others = Heard(), torch.tensor([[8, 9, 10]])
    sentence_game(model, IDS, 0, "random", others=others)(PRESENT)
    want = torch.where(PRESENT, IDS[:, 1:], others)
    assert len(model.asked) == 1 and torch.equal(model.asked[0][:, 1:], want)


def test_what_is_left_of_a_long_text_keeps_its_order():
    # torch.argsort keeps equal values in order by chance up to sixteen of them
    ids = torch.cat([torch.tensor([[CLS]]), torch.arange(3, 43)[None]], dim=1)
    present = torch.rand(5, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    model = Heard()
    sentence_game(model, ids, 0, "delete")(present)
    for row, there in zip(model.asked[0][:, 1:], present, strict=True):
        left = ids[0, 1:][there]
        assert torch.equal(row[: len(left)], left) and (row[len(left) :] == PAD).all()


def test_the_game_of_a_real_model():
    read = words()
    torch.manual_seed(0)
    model = WordClassifier(read, d_model=16, num_layers=1).eval()
    ids = read.encode(["Return a sorted list of the names."])
    n = ids.shape[1] - 1
    with torch.no_grad():
        whole = model(ids)[0, 3].double()
    ends = torch.tensor([[True] * n, [False] * n])
    others = background(read, n, 3)
    found = {
        w: sentence_game(model, ids, 3, w, others=others if w == "random" else None) for w in WAYS
    }
    found = {w: f(ends) for w, f in found.items()}
    for value in found.values():
        torch.testing.assert_close(value[0], whole, atol=1e-5, rtol=0)
        assert not value.requires_grad
    torch.testing.assert_close(found["delete"][1], found["pad"][1], atol=1e-5, rtol=0)
    assert abs(found["mask"][1] - found["pad"][1]) > 1e-4
    assert abs(found["random"][1] - found["mask"][1]) > 1e-4


def test_the_background():
    read = words()
    drawn = background(read, 5, 4000, seed=1)
    assert drawn.shape == (4000, 5) and drawn.min() > MASK and drawn.max() < len(read.vocabulary)
    assert torch.equal(drawn, background(read, 5, 4000, seed=1))
    assert not torch.equal(drawn, background(read, 5, 4000, seed=2))
    assert torch.equal(background(read, 5, 9), background(read, 5, 9, seed=0))
    ids = read.encode(read.data.train)
    the = read.vocabulary.index("the")
    share = (ids == the).sum() / (ids > MASK).sum()
    assert abs((drawn == the).double().mean() - share) < 0.01


@pytest.mark.parametrize(
    ("ids", "way", "others", "message"),
    [
        (IDS, "hide", None, r"way: expected one of mask, delete, pad, random, got 'hide'"),
        (IDS.expand(2, 4), "mask", None, r"input_ids: expected one row .*, got \(2, 4\)"),
        (IDS[0], "mask", None, r"input_ids: expected one row without padding, got \(4,\)"),
        (IDS[None], "mask", None, r"input_ids: expected one row .*, got \(1, 1, 4\)"),
        (torch.tensor([[CLS, 5, PAD]]), "mask", None, r"input_ids: expected one row without pad"),
        (IDS, "random", None, r"others: expected \(draws, 3\) ids for 'random', got None"),
        (IDS, "random", IDS, r"others: expected \(draws, 3\) ids for 'random', got \(1, 4\)"),
        (IDS, "random", IDS[:0, 1:], r"others: expected \(draws, 3\) ids for .*, got \(0, 3\)"),
        (IDS, "random", IDS[0, 1:], r"others: expected \(draws, 3\) ids for .*, got \(3,\)"),
        (IDS, "mask", IDS[:, 1:], r"others: expected none for 'mask', got \(1, 3\)"),
        (IDS, "mask", IDS, r"others: expected none for 'mask', got \(1, 4\)"),
    ],
)
def test_refuses_what_does_not_fit(ids, way, others, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        sentence_game(Heard(), ids, 0, way, others=others)
