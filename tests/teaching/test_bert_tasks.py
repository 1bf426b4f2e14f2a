"""lib.teaching.bert_tasks: pairs, masks, tasks and their scores, on values known beforehand."""

import doctest
import random
from collections import Counter

import pytest
import torch

from lib.models.bert import BERT
from lib.teaching import bert_tasks as tasks

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DOCUMENTS = [[f"{name}{i}" for i in range(5)] for name in "abc"] + [["d0", "d1"] * 10]


def small_corpus(length=24):
    letters = tuple("abcdefghijklmnopqrstuvwxyz0123456789 ?,-")
    pieces = [["ab cd", "ef gh", "ab ij", "kl mn"], ["op qr", "st uv", "wx op", "yz ab"]]
    return tasks.Corpus(pieces, pieces, (*tasks.GLYPHS, *letters), length, "none")


def small_model(corpus):
    torch.manual_seed(0)
    return BERT(tasks.config_for(corpus, 16, 1)).eval()


def test_docstrings():
    # date_question's depends on the generator alone
    assert doctest.testmod(tasks).failed == 0


def test_pieces_are_whole_words_in_order():
    text = "the cat drank the milk antidisestablishmentarianism"
    pieces = tasks.chunks(text, 10)
    assert " ".join(pieces) == "the cat drank the milk antidisest"
    assert max(map(len, pieces)) <= 10
    with pytest.raises(ValueError, match=r"^most: expected at least 1, got 0"):
        tasks.chunks(text, 0)


def test_a_pair_is_packed_with_its_segments():
    corpus = small_corpus(12)
    ids, segments = tasks.pack(corpus, ["ab", "abcdefghijklmnop"], ["cd", "xyz"])
    shown = ["".join(corpus.decode(row)) for row in ids.tolist()]
    assert shown[0] == "[CLS]ab[SEP]cd[SEP]·····"
    assert segments[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert shown[1] == "[CLS]abcdefghi[SEP][SEP]"  # cut, and still closed
    ids, segments = tasks.pack(corpus, ["ab"])
    assert "".join(corpus.decode(ids[0].tolist())) == "[CLS]ab[SEP]········"
    assert segments.sum() == 0


@pytest.mark.parametrize("negatives", [None, "random", "same"])
def test_labels_of_pairs_say_what_b_is(negatives):
    documents = DOCUMENTS[:3]
    count = 2000
    a, b, labels = tasks.draw_pairs(documents, count, negatives, random.Random(0))
    for one, two, label in zip(a, b, labels, strict=True):
        follows = one[0] == two[0] and int(two[1]) == int(one[1]) + 1
        if label == 0:
            assert follows
        elif negatives == "random":
            assert one[0] != two[0]
        else:
            assert one[0] == two[0] and one != two and not follows
    share = sum(labels) / count
    assert share == 0 if negatives is None else abs(share - 0.5) < 5 * 0.5 / count**0.5
    assert len(set(a)) == 12  # every piece with a successor


def test_a_random_b_comes_from_documents_by_their_length():
    _, b, labels = tasks.draw_pairs(DOCUMENTS, 4000, "random", random.Random(0))
    for label, want in [
        (0, 19 / 31),  # of 31 pieces with a successor 19 are in the long document
        (1, 12 / 31 * 19 / 27),  # A is not in it, and B is, among the other 27
    ]:
        drawn = [text[0] == "d" for text, given in zip(b, labels, strict=True) if given == label]
        error = (want * (1 - want) / len(drawn)) ** 0.5
        assert abs(sum(drawn) / len(drawn) - want) < 5 * error


def test_unknown_names_are_refused():
    corpus = small_corpus()
    with pytest.raises(ValueError, match=r"^negatives: expected None or one of"):
        tasks.draw_pairs(DOCUMENTS, 1, "other", random.Random(0))
    with pytest.raises(ValueError, match=r"^arm: expected one of mlm, nsp-random, nsp-same, got"):
        tasks.pretrain(small_model(corpus), "scratch", corpus, steps=1, seed=0)
    with pytest.raises(ValueError, match=r"^kind: expected 'text', 'token' or 'span', got 'x'"):
        tasks.FineTuned(small_model(corpus), "x", 2)


def test_overlap_finds_shared_words_and_nothing_else():
    shared = [[f"w{d} x{d}{i}" for i in range(4)] for d in range(20)]
    corpus = tasks.Corpus(shared, shared, tasks.GLYPHS, 24, "none")
    assert tasks.overlap_accuracy(corpus, "random", count=400) == 1.0
    assert abs(tasks.overlap_accuracy(corpus, "same", count=400) - 0.5) < 0.13


def test_pretraining_learns_and_leaves_the_first_model_alone():
    corpus = small_corpus()
    config = tasks.config_for(corpus, 16, 1)
    model, losses = tasks.begin(corpus, config, steps=30, seed=0, batch=8, length=12)
    assert len(losses) == 30 and sum(losses[-5:]) < sum(losses[:5])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    again, _ = tasks.begin(corpus, config, steps=30, seed=0, batch=8, length=12)
    assert all(torch.equal(again.state_dict()[n], v) for n, v in before.items())
    for arm in tasks.ARMS[1:]:
        trained, report = tasks.pretrain(model, arm, corpus, steps=3, seed=0, batch=4)
        assert set(report) == {"mlm_loss"} | ({"nsp_loss"} if arm != "mlm" else set())
        moved = not torch.equal(trained.pooler.weight, model.pooler.weight)
        assert moved == (arm != "mlm")  # nothing but NSP trains the pooler
        assert not trained.training
    assert all(torch.equal(model.state_dict()[n], v) for n, v in before.items())
    assert 0 <= tasks.nsp_accuracy(model, corpus, "random", count=20) <= 1


def test_nsp_accuracy_counts_right_answers(monkeypatch):
    corpus = small_corpus()
    model = small_model(corpus)
    _, _, labels = tasks.draw_pairs(corpus.held_out, 40, "random", random.Random(1))
    with torch.no_grad():
        model.next_sentence.weight.zero_()
        model.next_sentence.bias.copy_(torch.tensor([1.0, 0.0]))  # always “follows”
    assert tasks.nsp_accuracy(model, corpus, "random", count=40) == labels.count(0) / 40


def test_what_is_said_of_visible_characters():
    corpus = small_corpus()

    class Copies(BERT):
        def forward(self, ids, **masks):
            shown = torch.nn.functional.one_hot(ids, self.config.vocab_size) * 20.0
            return shown, None

    model = Copies(tasks.config_for(corpus, 16, 1))
    found = tasks.at_masks_and_elsewhere(model, corpus, length=12, count=50)
    assert found["visible_accuracy"] == 1.0
    assert found["masked_loss"] == pytest.approx(20.0, abs=1e-3)  # it says “mask”
    assert found["typo_loss"] == pytest.approx(20.0, abs=1e-3)


def test_every_date_answers_its_question():
    rng = random.Random(0)
    seen = Counter()
    for _ in range(500):
        question, text, (begin, end) = tasks.date_question(rng)
        which, part = question.rstrip("?").split()
        answer = text[begin:end]
        joint = next(j for j in (" to ", " until ", " - ") if j in text)
        assert (end <= text.index(joint)) == (which == "first")
        if part == "year":
            assert len(answer) == 4 and answer.isdigit()
        elif part == "day":
            assert 1 <= int(answer) <= 31
        else:
            assert answer[:3] in MONTHS
        seen[question] += 1
    assert len(seen) == 6 and min(seen.values()) > 50


def test_dates_as_a_task():
    corpus = small_corpus(96)
    task = tasks.dates(corpus, count=30, held_out=50)
    assert task.ids.shape == (30, 96) and task.held_out_labels.shape == (50, 2)
    for row, segments, (i, j) in zip(
        task.ids.tolist(), task.segments.tolist(), task.labels.tolist(), strict=True
    ):
        assert i <= j and segments[i] == segments[j] == 1
        question = "".join(corpus.decode(row[1 : row.index(tasks.SEP)]))
        answer = "".join(corpus.decode(row[i : j + 1]))
        assert answer.isdigit() == ("month" not in question)
        assert (len(answer) == 4 and answer.isdigit()) == ("year" in question)
    assert 0 < task.baseline < 0.5
    assert not torch.equal(task.ids, task.held_out_ids[:30])


def test_f1_and_spans():
    assert tasks.f1(torch.tensor([0, 0]), torch.tensor([0, 1])) == 0.0
    assert tasks.f1(torch.tensor([1, 2]), torch.tensor([1, 2])) == 1.0
    assert tasks.f1(torch.tensor([1, 0]), torch.tensor([1, 1])) == pytest.approx(2 / 3)
    logits = torch.tensor([[[0.0, 9.0], [1.0, 0.0], [5.0, 0.0], [0.0, 3.0]]])
    assert tasks.spans(logits).tolist() == [[0, 0]]  # 9 beats 5 + 3


@pytest.mark.parametrize("kind", ["text", "token", "span"])
def test_each_head_learns_its_task(kind):
    """The model overfits eight texts; a span stays within the second one."""
    corpus = small_corpus(16)
    ids, segments = tasks.pack(corpus, list("abcdefgh"), ["xy12", "34uv", "9z", "qrst"] * 2)
    if kind == "text":
        labels = torch.arange(8) % 2
    elif kind == "token":
        labels = torch.where(ids > tasks.MASK, ids % 3, -100)
    else:
        labels = torch.tensor([[3, 4], [4, 5], [3, 3], [5, 6]] * 2)
    task = tasks.Task(
        kind, 3 if kind == "token" else 2, ids, segments, labels, ids, segments, labels, 0.0, "none"
    )
    model = small_model(corpus)
    before = model.pooler.weight.clone()
    _, found = tasks.fine_tune(model, task, steps=80, seed=0, batch=8, learning_rate=2e-2)
    assert found == 1.0
    assert torch.equal(model.pooler.weight, before)
    if kind == "span":
        fresh = tasks.FineTuned(model, kind, 2)(ids, segments)
        inside = (segments == 1) & (ids != tasks.SEP)
        assert (fresh[~inside] < -1e8).all() and (fresh[inside].abs() < 1e3).all()


def test_tags_prefer_the_signature():
    found = tasks.tags("none is x, valueerror is not", {"x", "none"})
    assert [tag for *_, tag in found] == ["parameter", "O", "parameter", "exception", "O", "O"]


def test_functions_are_read_from_sources(tmp_path):
    (tmp_path / "json.py").write_text(
        'def load(fp, *, cls=None):\n    """Read a JSON text from the open file FP,\n'
        '    or raise ValueError."""\n'
        'def short(x):\n    """Too short."""\n'
        'class C:\n    def m(self):\n        """No parameters, so nothing is here to be named."""\n'
    )
    (tmp_path / "other.py").write_text('def f(x):\n    """' + 50 * "x" + '"""\n')
    text = "read a json text from the open file fp, or raise valueerror."
    assert tasks._functions(tmp_path) == ((text, frozenset({"fp"}), "json"),)


def test_names_as_a_task(monkeypatch):
    corpus = small_corpus(40)
    found = [
        ("give x back, or none", frozenset({"x"}), "known"),
        ("x is x as it was before", frozenset({"x"}), "known"),
        ("x is here the letter alone, y is not", frozenset({"y"}), "other"),
        ("nothing that has a name", frozenset({"z"}), "other"),
    ]
    monkeypatch.setattr(tasks, "_functions", lambda folder: found)
    known = type("Data", (), {"names": ("known",)})
    monkeypatch.setattr(tasks, "docstrings", lambda num_labels: known)
    task = tasks.names(corpus)
    assert task.ids.shape == (2, 40) and task.held_out_ids.shape == (1, 40)
    assert "".join(corpus.decode(task.held_out_ids[0].tolist()))[5:7] == "x "
    said = {
        "".join(corpus.decode([row[t]])): tasks.TAGS[label]
        for row, labels in zip(task.ids.tolist(), task.labels.tolist(), strict=True)
        for t, label in enumerate(labels)
        if label > 0
    }
    assert said == {"x": "parameter", "n": "constant"}
    # held out, memory says “parameter” of x, which is none here, and nothing of y
    assert task.baseline == 0.0
    text = "x is here the letter alone, y is not"
    words = sum(c == " " for c in text) + 1
    assert (task.held_out_labels != -100).sum() == words
    assert task.held_out_labels[0, 1 + text.index("y")] == tasks.TAGS.index("parameter")


def test_modules_as_a_task(monkeypatch):
    corpus = small_corpus(40)
    data = type(
        "Data",
        (),
        {
            "train": ["ab", "cd", "ef"],
            "train_labels": [1, 1, 0],
            "validation": ["gh", "ij", "kl", "mn"],
            "validation_labels": [1, 0, 0, 0],
        },
    )
    monkeypatch.setattr(tasks, "docstrings", lambda num_labels: data)
    task = tasks.modules(corpus, num_labels=2)
    assert task.labels.tolist() == [1, 1, 0] and task.held_out_ids.shape == (4, 40)
    assert task.baseline == 0.25  # the label that is most frequent in training
