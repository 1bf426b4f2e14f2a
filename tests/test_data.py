"""Tests of lib.data: the split, the vocabulary, the windows."""

import hashlib
import re

import pytest
import torch

from lib.data import (
    CharacterVocabulary,
    Text,
    consecutive_windows,
    random_windows,
    topics_paragraphs,
    topics_text,
)


@pytest.fixture
def invented_topics(monkeypatch):
    """Put known topics in the place of Python's."""

    def put(**topics):
        monkeypatch.setattr("pydoc_data.topics.topics", topics)

    return put


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert "expected" in message and "got" in message
    return message


class TestTopicsParagraphs:
    def test_folds_white_space_and_keeps_order(self, invented_topics):
        second = "A second paragraph, which stands on one line already."
        invented_topics(a=f"This  paragraph\n   has\ttwo lines and more spaces.\n \n{second}\n")
        assert topics_paragraphs() == [
            "This paragraph has two lines and more spaces.",
            second,
        ]

    def test_forty_characters_are_enough_and_thirty_nine_are_not(self, invented_topics):
        invented_topics(a="x" * 39 + "\n\n" + "y" * 40)
        assert topics_paragraphs() == ["y" * 40]

    def test_keeps_the_first_of_equal_paragraphs(self, invented_topics):
        first, twice, last = ("a" * 50, "b " * 25, "c" * 50)
        # equal once white space is folded, and in another topic
        invented_topics(a=f"{first}\n\n{twice}", b=f"{twice.replace(' ', '  ')}\n\n{last}")
        assert topics_paragraphs() == [first, twice.strip(), last]

    def test_of_this_python(self):
        paragraphs = topics_paragraphs()
        assert len(paragraphs) == len(set(paragraphs)) > 1_000
        assert sum(map(len, paragraphs)) > 250_000
        assert min(map(len, paragraphs)) >= 40
        assert not any(re.search(r"\s\s|[^\S ]", p) or p != p.strip() for p in paragraphs)
        assert any(p.startswith('The "with" statement is used to wrap') for p in paragraphs)


class TestTopicsText:
    def test_is_a_partition_in_the_original_order(self):
        text, paragraphs = topics_text(), topics_paragraphs()
        train, validation = text.train.split("\n"), text.validation.split("\n")
        assert not set(train) & set(validation)
        assert set(train) | set(validation) == set(paragraphs)
        assert len(train) + len(validation) == len(paragraphs)
        assert train == [p for p in paragraphs if p in set(train)]
        assert validation == [p for p in paragraphs if p in set(validation)]

    def test_share_is_roughly_what_was_asked(self):
        count = len(topics_paragraphs())
        for share in (0.1, 0.5):
            got = len(topics_text(validation=share).validation.split("\n")) / count
            assert abs(got - share) < 4 * (share * (1 - share) / count) ** 0.5  # binomial

    def test_hash_is_of_the_whole_text(self):
        want = hashlib.sha256("\n".join(topics_paragraphs()).encode()).hexdigest()
        assert topics_text(seed=0).sha256 == topics_text(seed=1).sha256 == want

    def test_seed_decides(self):
        assert topics_text(seed=3) == topics_text(seed=3)
        assert topics_text(seed=3) != topics_text(seed=4)

    def test_a_paragraph_keeps_its_side_when_others_change(self, invented_topics):
        old = [f"paragraph {i} of the old edition, which a new one keeps" for i in range(200)]
        new = [f"paragraph {i} that is only in the new edition of the text" for i in range(100)]
        invented_topics(a="\n\n".join(old))
        before = topics_text(validation=0.3)
        invented_topics(a="\n\n".join(new), b="\n\n".join(reversed(old)))
        after = topics_text(validation=0.3)
        assert 30 < len(before.validation.split("\n")) < 90
        assert set(before.validation.split("\n")) <= set(after.validation.split("\n"))
        assert set(before.train.split("\n")) <= set(after.train.split("\n"))

    def test_is_frozen(self):
        with pytest.raises(AttributeError):
            topics_text().train = ""
        assert Text("a", "b", "c") == Text("a", "b", "c")

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 10, float("nan")])
    def test_refuses_a_share_outside_zero_and_one(self, share):
        with pytest.raises(ValueError, match="validation") as error:
            topics_text(validation=share)
        assert repr(share) in one_line(error)

    def test_refuses_a_share_that_leaves_a_side_empty(self, invented_topics):
        invented_topics(a="only one paragraph, so one side has to be empty")
        with pytest.raises(ValueError, match="both sides") as error:
            topics_text()
        one_line(error)


class TestCharacterVocabulary:
    def test_ids_follow_code_points(self):
        vocabulary = CharacterVocabulary.from_text("zebra Zoë\n")
        assert vocabulary.characters == "\n Zabeorzë"
        assert len(vocabulary) == 10
        assert vocabulary.encode("Zoë\n").tolist() == [2, 6, 9, 0]
        assert vocabulary.encode("Zoë\n").dtype == torch.int64

    def test_keeps_an_order_that_is_given(self):
        assert CharacterVocabulary("cab").encode("abc").tolist() == [1, 2, 0]

    def test_round_trip_of_the_whole_text(self):
        text = topics_text()
        vocabulary = CharacterVocabulary.from_text(text.train + text.validation)
        for part in (text.train, text.validation):
            ids = vocabulary.encode(part)
            assert ids.shape == (len(part),)
            assert vocabulary.decode(ids) == part

    def test_decodes_tensors_lists_and_nothing(self):
        vocabulary = CharacterVocabulary("abc")
        assert vocabulary.decode(torch.tensor([2, 0], dtype=torch.int32)) == "ca"
        assert vocabulary.decode(iter([2, 0])) == "ca"
        assert vocabulary.decode([]) == "" and vocabulary.encode("").shape == (0,)

    def test_unknown_character_is_named(self):
        with pytest.raises(ValueError) as error:
            CharacterVocabulary("ab").encode("abé€")
        assert "'é' (U+00E9) at position 2" in one_line(error)

    @pytest.mark.parametrize("wrong", [3, -1, 1.0])
    def test_unknown_id_is_named(self, wrong):
        with pytest.raises(ValueError, match="from 0 to 2") as error:
            CharacterVocabulary("abc").decode([0, wrong])
        assert one_line(error).endswith(f"got {wrong}")

    @pytest.mark.parametrize("characters", ["", "aba"])
    def test_refuses_none_and_repeated_characters(self, characters):
        with pytest.raises(ValueError, match="characters") as error:
            CharacterVocabulary(characters)
        one_line(error)


class TestRandomWindows:
    def test_the_target_is_the_next_id(self):
        ids = torch.arange(100, 200)
        inputs, targets = random_windows(ids, 64, 7)
        assert inputs.shape == targets.shape == (64, 7)
        assert torch.equal(inputs, inputs[:, :1] + torch.arange(7))  # consecutive ids of the text
        assert torch.equal(targets, inputs + 1)

    def test_every_start_and_no_other_is_drawn(self):
        # 12 ids and windows of 5 + 1 have the 7 starts 0 … 6, each with probability 1/7
        generator = torch.Generator().manual_seed(0)
        inputs, targets = random_windows(torch.arange(12), 7_000, 5, generator)
        counts = torch.bincount(inputs[:, 0])
        assert len(counts) == 7
        assert (counts - 1_000).abs().max() < 5 * (7_000 * 6 / 49) ** 0.5
        assert targets.max() == 11

    def test_one_window_when_the_text_has_one(self):
        inputs, targets = random_windows(torch.tensor([5, 6, 7]), 3, 2)
        assert inputs.tolist() == [[5, 6]] * 3 and targets.tolist() == [[6, 7]] * 3

    def test_the_generator_decides(self):
        ids = torch.arange(1_000)

        def draw(seed):
            return random_windows(ids, 8, 4, torch.Generator().manual_seed(seed))[0]

        assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))

    def test_a_generator_leaves_the_global_one_alone(self):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        random_windows(torch.arange(50), 8, 4, torch.Generator().manual_seed(1))
        assert torch.equal(torch.get_rng_state(), before)
        random_windows(torch.arange(50), 8, 4)
        assert not torch.equal(torch.get_rng_state(), before)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_the_same_windows_on_cuda(self):
        ids = torch.arange(1_000)
        here, there = (
            random_windows(x, 8, 4, torch.Generator().manual_seed(1))[1] for x in (ids, ids.cuda())
        )
        assert there.is_cuda and torch.equal(there.cpu(), here)

    @pytest.mark.parametrize("batch_size", [0, -1, 2.0])
    def test_refuses_a_wrong_batch_size(self, batch_size):
        with pytest.raises(ValueError, match="batch_size") as error:
            random_windows(torch.arange(9), batch_size, 2)
        one_line(error)


class TestConsecutiveWindows:
    @pytest.mark.parametrize("count", range(4, 12))
    def test_every_position_once_and_in_order(self, count):
        ids = torch.arange(50, 50 + count)
        inputs, targets = consecutive_windows(ids, 3)
        k = (count - 1) // 3
        assert inputs.shape == targets.shape == (k, 3)
        assert torch.equal(targets.flatten(), ids[1 : 3 * k + 1])
        assert torch.equal(inputs.flatten(), ids[: 3 * k])
        assert count - 1 - targets.numel() < 3  # no window more would have fitted


@pytest.mark.parametrize("windows", [lambda i, n: random_windows(i, 2, n), consecutive_windows])
class TestWindowErrors:
    def test_refuses_a_text_that_is_too_short(self, windows):
        assert windows(torch.arange(6), 5)[0].shape[1] == 5  # just enough
        with pytest.raises(ValueError, match="more than length = 5") as error:
            windows(torch.arange(5), 5)
        assert one_line(error).endswith("got 5")

    @pytest.mark.parametrize("length", [0, -2, 1.5])
    def test_refuses_a_wrong_length(self, windows, length):
        with pytest.raises(ValueError, match=r"^length: ") as error:
            windows(torch.arange(5), length)
        one_line(error)

    def test_refuses_ids_with_two_dimensions(self, windows):
        with pytest.raises(ValueError, match=r"\(N,\)") as error:
            windows(torch.zeros(3, 4), 2)
        assert "(3, 4)" in one_line(error)
