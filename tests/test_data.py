"""Tests of lib.data: the splits, the vocabulary, the windows."""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter

import datasets
import huggingface_hub
import pandas
import pytest
import torch
from huggingface_hub import errors

from lib.data import (
    DATE_FORMS,
    CharacterVocabulary,
    LabelledTexts,
    Text,
    TextPairs,
    _standard_library,
    consecutive_windows,
    date_pairs,
    digits,
    docstrings,
    hub_classification,
    hub_text,
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


@pytest.fixture
def invented_library(tmp_path, monkeypatch):
    """Put known sources in the place of the standard library's."""
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    monkeypatch.setattr("lib.data._standard_library", _standard_library.__wrapped__)  # no cache

    def put(**modules):
        """module or package__file = its docstrings: the first on top, the others on functions."""
        for name, (first, *others) in modules.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            functions = (f"def f{i}():\n    {text!r}\n" for i, text in enumerate(others))
            path.write_text(f"{first!r}\n{''.join(functions)}", encoding="utf-8")
        return tmp_path

    return put


def sentences(about, count=30):
    return [f"The {about} that is told apart from others by its number {i}" for i in range(count)]


def all_of(data):
    return data.train + data.validation


class TestDocstrings:
    def test_keeps_the_modules_with_most_docstrings(self, invented_library):
        invented_library(
            json=sentences("first", 40),
            ast=sentences("second", 30),
            csv=sentences("third", 35),
            re=sentences("fourth", 19),
        )
        got = docstrings(num_labels=2)
        assert got.names == ("csv", "json")
        assert Counter(got.train_labels + got.validation_labels) == {1: 40, 0: 35}
        for texts, labels in [
            (got.train, got.train_labels),
            (got.validation, got.validation_labels),
        ]:
            assert len(texts) == len(labels) > 0
            for text, label in zip(texts, labels, strict=True):
                assert ("first" if label else "third") in text
        assert docstrings(num_labels=3).names == ("ast", "csv", "json")

    def test_of_equal_counts_the_first_name_is_kept(self, invented_library):
        invented_library(re=sentences("one"), ast=sentences("two"), csv=sentences("three"))
        assert docstrings(num_labels=2).names == ("ast", "csv")

    def test_modules_classes_and_functions_wherever_they_are(self, invented_library):
        root = invented_library(csv=sentences("other"), json__parser=sentences("number"))
        (root / "json" / "__init__.py").write_text(
            "'''The docstring  of\n\n\tthe module, over three lines.  '''\n"
            "text = '''Not a docstring, though it is a long enough string.'''\n"
            "class A:\n"
            "    '''The docstring of a class, which is long enough.'''\n"
            "    async def f(self):\n"
            "        '''The docstring of a coroutine that is a method.'''\n"
            "        def g():\n"
            "            '''The docstring of a function in a function.'''\n"
            "if text:\n"
            "    try: pass\n"
            "    except OSError:\n"
            "        def h():\n"
            "            '''The docstring of a function in a handler of errors.'''\n"
            "raise RuntimeError('was imported')\n",
            encoding="utf-8",
        )
        got = docstrings(num_labels=2)
        assert {text for text in all_of(got) if "docstring" in text} == {
            "The docstring of the module, over three lines.",
            "The docstring of a class, which is long enough.",
            "The docstring of a coroutine that is a method.",
            "The docstring of a function in a function.",
            "The docstring of a function in a handler of errors.",
        }

    @pytest.mark.parametrize(
        "path",
        [
            "_json",
            "numpy",
            "site-packages/json",
            "test/json",
            "idlelib/x",
            "distutils/x",
            "json/tests/x",
            "json/test/x",
        ],
    )
    def test_other_files_are_left_out(self, invented_library, path):
        root = invented_library(json=sentences("first"), ast=sentences("second"))
        file = root / f"{path}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        texts = sentences("file that must not be read", 50)
        file.write_text("\n".join(f"def f{i}(): {t!r}" for i, t in enumerate(texts)))
        got = docstrings(num_labels=2)
        assert got.names == ("ast", "json")
        assert not [text for text in all_of(got) if "must not" in text]

    def test_characters_are_counted_once_white_space_is_folded(self, invented_library):
        short, enough, spaces = "x" * 39, "y" * 40, "z" + " " * 60 + "z"
        invented_library(json=[*sentences("first"), short, enough, spaces], ast=sentences("second"))
        found = all_of(docstrings(num_labels=2))
        assert enough in found and short not in found
        assert not [text for text in found if "z" in text]  # 62 characters before, 3 after
        assert short in all_of(docstrings(num_labels=2, min_length=39))

    def test_no_copies_and_no_text_that_two_modules_have(self, invented_library):
        twice, shared = "x" * 50, "y" * 50
        invented_library(
            json=[*sentences("first"), twice, shared, twice], ast=[*sentences("second"), shared]
        )
        found = all_of(docstrings(num_labels=2))
        assert Counter(found)[twice] == 1 and shared not in found

    def test_a_module_that_is_not_kept_makes_a_text_ambiguous_too(self, invented_library):
        shared = "y" * 50
        invented_library(json=[*sentences("first"), shared], ast=sentences("second"), abc=[shared])
        assert shared not in all_of(docstrings(num_labels=2))

    def test_names_of_all_labels_are_masked_in_all_texts(self, invented_library):
        text = "JSONDecoder differs from AST, says json; neither ast.literal nor Csv is masked"
        invented_library(json=[*sentences("first"), text], ast=sentences("second"))
        want = "…Decoder differs from …, says …; neither ….literal nor Csv is masked"
        assert want in all_of(docstrings(num_labels=2))

    def test_the_longer_of_two_names_is_masked(self, invented_library):
        text = "The server of the module xmlrpc is not that of xml, nor is its client"
        invented_library(xml=[*sentences("first"), text], xmlrpc=sentences("second"))
        want = "The server of the module … is not that of …, nor is its client"
        assert want in all_of(docstrings(num_labels=2))

    def test_texts_that_are_equal_once_masked_are_not_kept(self, invented_library):
        invented_library(
            json=[*sentences("first"), "A server that speaks json and answers every request"],
            ast=[*sentences("second"), "A server that speaks AST and answers every request"],
        )
        assert not [text for text in all_of(docstrings(num_labels=2)) if "server" in text]

    def test_hash_is_of_all_texts_and_labels(self, invented_library):
        texts = {"ast": sentences("second"), "json": sentences("first")}
        invented_library(**texts)
        whole = "\n".join(f"{name}\t{text}" for name, own in texts.items() for text in own)
        want = hashlib.sha256(whole.encode()).hexdigest()
        assert docstrings(0, num_labels=2).sha256 == docstrings(1, num_labels=2).sha256 == want

    def test_the_seed_decides(self, invented_library):
        invented_library(json=sentences("first"), ast=sentences("second"))
        one, again, other = (docstrings(seed, num_labels=2) for seed in (3, 3, 4))
        assert one == again
        assert set(one.train) != set(other.train)
        assert set(all_of(one)) == set(all_of(other))

    def test_a_docstring_keeps_its_side_when_others_change(self, invented_library):
        invented_library(json=sentences("first", 100), csv=sentences("second", 100))
        before = docstrings(validation=0.3, num_labels=2)
        invented_library(json__more=sentences("third", 50), abc=sentences("fourth", 120))
        after = docstrings(validation=0.3, num_labels=3)
        assert 30 < len(before.validation) < 90
        assert set(before.validation) < set(after.validation)
        assert set(before.train) < set(after.train)

    def test_of_this_python(self):
        got = docstrings()
        texts, labels = all_of(got), got.train_labels + got.validation_labels
        assert len(texts) == len(labels) == len(set(texts)) > 1_500  # so: none on both sides
        assert len(got.names) == 12 and got.names == tuple(sorted(got.names))
        assert {"asyncio", "email", "logging", "xml"} <= set(got.names)
        for side in (got.train_labels, got.validation_labels):
            assert set(side) == set(range(12))
        share = len(got.validation) / len(texts)
        assert abs(share - 0.2) < 4 * (0.2 * 0.8 / len(texts)) ** 0.5  # binomial
        assert not any(re.search(r"\s\s|[^\S ]", text) or text != text.strip() for text in texts)
        assert not any(name in text.lower() for name in got.names for text in texts)
        labelled = dict(zip(texts, labels, strict=True))
        known = "Return a suite of all test cases contained in testCaseClass"
        assert got.names[labelled[known]] == "unittest"

    def test_the_labels_are_mixed(self):
        got = docstrings()
        for labels in (got.train_labels, got.validation_labels):
            changes = sum(a != b for a, b in itertools.pairwise(labels))
            assert changes > 0.7 * len(labels)

    def test_what_is_said_of_names_and_words(self):
        """In the docstring: one in seven names its module; words without names give 91 %."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        got = docstrings()
        vectors, classifier = TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=30)
        classifier.fit(vectors.fit_transform(got.train), got.train_labels)
        accuracy = classifier.score(vectors.transform(got.validation), got.validation_labels)
        assert 0.86 < accuracy < 0.95
        named = sum("…" in text for text in got.train) / len(got.train)
        assert 0.08 < named < 0.25

    @pytest.mark.parametrize("num_labels", [1, 3, 2.0, 100])
    def test_refuses_more_labels_than_there_are(self, invented_library, num_labels):
        folder = invented_library(json=sentences("a"), ast=sentences("b"), csv=sentences("c", 19))
        with pytest.raises(ValueError, match=r"^num_labels: .* at most 2, ") as error:
            docstrings(num_labels=num_labels)
        message = one_line(error)
        assert str(folder) in message and message.endswith(f"got {num_labels!r}")

    def test_says_where_it_looked_if_there_are_no_sources(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path / "nowhere")}.get)
        with pytest.raises(ValueError, match=r"at most 0, .*nowhere \(is all of the") as error:
            docstrings()
        one_line(error)

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 10, float("nan"), 0.001])
    def test_refuses_a_share_that_leaves_a_label_without_texts(self, share):
        with pytest.raises(ValueError, match=r"^validation: ") as error:
            docstrings(validation=share)
        assert one_line(error).endswith(f"got {share!r}")

    def test_refuses_a_side_that_has_texts_but_not_of_every_label(self, invented_library):
        invented_library(json=sentences("first", 300), ast=sentences("second", 20))
        assert docstrings(validation=0.5, num_labels=2).names == ("ast", "json")
        with pytest.raises(ValueError, match=r"^validation: .* every label on both") as error:
            docstrings(validation=0.01, num_labels=2)  # about 3 of json's
        one_line(error)

    def test_labels_are_mixed_whatever_the_library(self, invented_library):
        invented_library(json=sentences("first", 100), ast=sentences("second", 100))
        got = docstrings(validation=0.5, num_labels=2)
        for labels in (got.train_labels, got.validation_labels):
            changes = sum(a != b for a, b in itertools.pairwise(labels))
            assert changes > 0.3 * len(labels)  # of two equal labels, a half

    def test_is_frozen(self):
        with pytest.raises(AttributeError):
            LabelledTexts([], [], [], [], (), "").train = []


class TestDatePairs:
    def test_texts_and_what_they_mean(self):
        data = date_pairs(num_days=None, first=1987, last=1987)
        assert isinstance(data, TextPairs)
        pairs = dict(data.train + data.validation)
        assert len(pairs) == len(data.train) + len(data.validation) == 3 * 365
        for text in ("Donnerstag, 5. März 1987", "5 de marzo de 1987", "05/03/1987"):
            assert pairs[text] == "March 5, 1987"
        assert len(set(pairs.values())) == 365

    def test_other_forms(self):
        data = date_pairs(
            sources=[("en_GB", "full")],
            target=("fr", "d/M/y"),
            num_days=None,
            first=2000,
            last=2000,
        )
        assert dict(data.train + data.validation)["Tuesday, 29 February 2000"] == "29/2/2000"

    def test_a_text_that_means_two_days_is_left_out(self):
        sources = [("en", "d/M/y"), ("en", "M/d/y")]
        data = date_pairs(sources=sources, num_days=None, first=1999, last=1999)
        pairs = data.train + data.validation
        texts = [text for text, _ in pairs]
        assert len(texts) == len(set(texts))
        assert "10/11/1999" not in texts and "2/1/1999" not in texts
        assert ("10/10/1999", "October 10, 1999") in pairs  # both forms, one day
        assert ("13/1/1999", "January 13, 1999") in pairs
        assert ("1/13/1999", "January 13, 1999") in pairs
        # 12 days are alike in both forms; of the others with a day up to 12 nothing is left
        assert len(pairs) == 12 + 2 * (365 - 144)

    def test_also_where_the_other_day_is_not_kept(self):
        options = {"sources": [("en", "d/M/y"), ("en", "M/d/y")], "first": 1999, "last": 1999}
        few, all_days = (date_pairs(num_days=n, **options) for n in (40, None))
        found, clear = few.train + few.validation, all_days.train + all_days.validation
        assert set(found) <= set(clear)
        assert 20 < len(found) < 80
        with pytest.raises(ValueError, match="got 0 and 0"):
            date_pairs(sources=[("en", "dd MMM")], num_days=9, first=1999, last=2002)

    def test_of_another_century_only_if_it_is_there(self):
        data = date_pairs(sources=[("en", "short")], num_days=None, first=1990, last=2010)
        assert len(data.train) + len(data.validation) == 21 * 365 + 5

    def test_held_out_are_days(self):
        data = date_pairs(num_days=400, first=1980, last=1999)
        train = {meaning for _, meaning in data.train}
        held_out = {meaning for _, meaning in data.validation}
        assert not train & held_out
        assert len(train | held_out) == 400
        assert len(data.validation) == len(DATE_FORMS) * len(held_out)
        texts = [text for text, _ in data.train + data.validation]
        assert len(set(texts)) == len(texts) == 3 * 400

    def test_a_day_has_one_side_however_many_are_kept(self):
        few, many = (date_pairs(num_days=n, first=1950, last=1960) for n in (100, 900))
        assert set(few.validation) <= set(many.validation)
        assert set(few.train) <= set(many.train)

    @pytest.mark.parametrize("share", [0.1, 0.5])
    def test_the_share(self, share):
        data = date_pairs(validation=share, num_days=None, first=1900, last=1909)
        count = len(data.validation) / len(DATE_FORMS)
        days = 3652  # 1900 was no leap year, 1904 and 1908 were
        assert abs(count / days - share) < 5 * (share * (1 - share) / days) ** 0.5

    def test_seeds(self):
        first, again, other = (
            date_pairs(seed, num_days=100, first=1980, last=1989) for seed in (0, 0, 1)
        )
        assert first == again
        assert set(first.validation) != set(other.validation)
        everything = [
            date_pairs(seed, num_days=None, first=1980, last=1980).sha256 for seed in (0, 1)
        ]
        assert everything[0] == everything[1] != first.sha256

    def test_years_are_mixed(self):
        data = date_pairs(num_days=300, first=1950, last=1999)
        years = [int(meaning[-4:]) for _, meaning in data.train]
        assert len(set(years[:60])) > 10
        assert min(years) >= 1950 and max(years) <= 1999

    def test_only_one_kind_of_space(self):
        data = date_pairs(
            sources=[("en", "d\u202fMMMM\u00a0\u00a0y")], num_days=None, first=1987, last=1987
        )
        assert ("5 March 1987", "March 5, 1987") in data.train + data.validation

    @pytest.mark.parametrize(
        "options",
        [
            {"first": 2000, "last": 1999},
            {"first": 0},
            {"first": 2000.0},
            {"num_days": 0},
            {"num_days": 366, "first": 2001, "last": 2001},
            {"sources": [("xx", "long")]},
            {"target": ("en", 3)},
            {"sources": ["en"]},
            {"validation": 0.0, "last": 1900, "num_days": 5},
            {"validation": 1.0, "last": 1900, "num_days": 5},
        ],
    )
    def test_errors(self, options):
        with pytest.raises(ValueError) as error:
            date_pairs(**options)
        one_line(error)


class TestDigits:
    def test_every_image_once_and_as_scikit_learn_has_it(self):
        from sklearn.datasets import load_digits

        data = load_digits()
        want = {x.tobytes(): int(n) for x, n in zip(data.data, data.target, strict=True)}
        assert len(want) == 1_797  # no two images are equal, so none can be on both sides
        got = digits()
        images = torch.cat((got.train, got.validation))
        labels = torch.cat((got.train_labels, got.validation_labels))
        assert images.shape == (1_797, 1, 8, 8) and images.dtype == torch.float32
        assert labels.shape == (1_797,) and labels.dtype == torch.int64
        assert images.min() == 0.0 and images.max() == 1.0
        pixels = (images.double() * 16).flatten(1).numpy()
        assert {p.tobytes(): int(n) for p, n in zip(pixels, labels, strict=True)} == want

    @pytest.mark.parametrize("share", [0.2, 0.5])
    def test_every_digit_has_its_share(self, share):
        got = digits(validation=share)
        here = torch.bincount(got.validation_labels)
        rest = torch.bincount(got.train_labels)
        assert here.tolist() == [round(share * n) for n in (here + rest).tolist()]
        assert len(got.validation) == {0.2: 359, 0.5: 898}[share]

    def test_sides_keep_the_order_of_the_data(self):
        from sklearn.datasets import load_digits

        place = {image.tobytes(): i for i, image in enumerate(load_digits().data)}
        got = digits()
        for side in (got.train, got.validation):
            places = [place[p.tobytes()] for p in (side.double() * 16).flatten(1).numpy()]
            assert places == sorted(places)

    def test_the_seed_decides_and_the_hash_is_of_the_whole(self):
        from sklearn.datasets import load_digits

        one, again, other = (digits(seed) for seed in (3, 3, 4))
        assert torch.equal(one.validation, again.validation)
        common = {x.numpy().tobytes() for x in one.validation} & {
            x.numpy().tobytes() for x in other.validation
        }
        assert 40 < len(common) < 110  # of two fifths drawn apart: a fifth of 359, 72
        pixels, labels = load_digits(return_X_y=True)
        whole = bytes(pixels.astype(int).flatten().tolist()) + bytes(labels.tolist())
        assert one.sha256 == other.sha256 == hashlib.sha256(whole).hexdigest()

    def test_more_held_out_is_held_out_in_addition(self):
        few, many = (
            {x.numpy().tobytes() for x in digits(validation=share).validation}
            for share in (0.1, 0.3)
        )
        assert few < many

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 10, float("nan"), 0.001, 0.999])
    def test_refuses_a_share_that_leaves_a_side_without_a_digit(self, share):
        with pytest.raises(ValueError, match=r"^validation: ") as error:
            digits(validation=share)
        assert one_line(error).endswith(f"got {share!r}")

    def test_without_scikit_learn(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(ImportError, match=r"^digits needs `pip install scikit-learn`$"):
            digits()


# In a fresh process: what importing lib.data imports; then, in forks, what it says without the Hub:
# told to be offline, and with a proxy at which nobody answers. They share the import of torch.
CLOSED = {
    "told": {"HF_HUB_OFFLINE": "1"},
    "nobody answers": {"HTTPS_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"},
}
FRESH = """
import json, os, sys, time
import lib.data
print(json.dumps(["imported", sorted({"sklearn", "datasets"} & set(sys.modules))]), flush=True)
import pandas, pyarrow.parquet
assert "huggingface_hub" not in sys.modules  # which reads the environment
time.sleep = lambda seconds: None  # between retries
for name, environment in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        os.environ.update(environment)
        try:
            lib.data.hub_text("owner/name")
        except ConnectionError as error:
            print(json.dumps([name, str(error)]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    environment = {**os.environ, "HF_HOME": str(tmp_path_factory.mktemp("home")), "NO_PROXY": ""}
    process = subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(CLOSED)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    return dict(map(json.loads, process.stdout.splitlines()))


def test_what_is_not_always_installed_is_imported_when_it_is_asked_for(fresh):
    assert fresh["imported"] == []


@pytest.mark.parametrize("closed", CLOSED)
def test_offline_for_real(fresh, closed):
    message = fresh[closed]
    assert message.startswith("owner/name: no such folder, the data set is not in the cache")
    assert "\n" not in message


def write_rows(path, rows):
    """Rows as parquet, csv or jsonl, by another library than the one that reads them."""
    table = pandas.DataFrame(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache, and no way to the Hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def hub_folder(tmp_path, hub_cache):
    return tmp_path / "a folder"


ROWS = [
    {"text": "one line", "label": 3, "title": "a"},
    {"text": "two\nlines, and a comma", "label": 1, "title": "b"},
    {"text": "  Zoë says “hello”  ", "label": 1, "title": "c"},
    {"text": "   ", "label": 7, "title": "d"},
]
HELD_OUT = [{"text": "held out", "label": 7, "title": "e"}]
FORMATS = pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])


class TestHub:
    @FORMATS
    def test_text(self, hub_folder, suffix):
        write_rows(hub_folder / f"train.{suffix}", ROWS)
        write_rows(hub_folder / f"validation.{suffix}", HELD_OUT)
        got = hub_text(hub_folder)
        assert got.train == "one line\ntwo\nlines, and a comma\nZoë says “hello”"
        assert got.validation == "held out"
        whole = "\n".join(row["text"] for row in ROWS + HELD_OUT)
        assert got.sha256 == hashlib.sha256(whole.encode()).hexdigest()
        assert hub_text(str(hub_folder), column="title").train == "a\nb\nc\nd"

    @FORMATS
    def test_classification(self, hub_folder, suffix):
        write_rows(hub_folder / f"train.{suffix}", ROWS)
        write_rows(hub_folder / f"test.{suffix}", HELD_OUT)
        got = hub_classification(hub_folder, validation="test")
        assert got.train == [row["text"] for row in ROWS]
        assert got.train_labels == [1, 0, 0, 2]
        assert (got.validation, got.validation_labels) == (["held out"], [2])
        assert got.names == ("1", "3", "7")
        whole = "\n".join(f"{row['text']}\t{row['label']}" for row in ROWS + HELD_OUT)
        assert got.sha256 == hashlib.sha256(whole.encode()).hexdigest()
        titles = hub_classification(hub_folder, column="title", label="text", validation="test")
        assert titles.names == tuple(sorted(row["text"] for row in ROWS + HELD_OUT))
        assert titles.names[titles.train_labels[0]] == "one line"

    def test_integers_are_sorted_as_numbers(self, hub_folder):
        rows = [{"text": f"text {i}", "label": i} for i in (10, 9, 100, 9)]
        write_rows(hub_folder / "train.jsonl", rows)
        write_rows(hub_folder / "validation.jsonl", rows[:1])
        got = hub_classification(hub_folder)
        assert got.names == ("9", "10", "100") and got.train_labels == [1, 0, 2, 0]

    def test_names_that_the_data_set_brings(self, hub_folder):
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "a", "b"])}
        )
        for split in ("train", "validation"):
            data = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [2, 1]}, features)
            hub_folder.mkdir(exist_ok=True)
            data.to_parquet(hub_folder / f"{split}.parquet")
        got = hub_classification(hub_folder)
        assert got.names == ("no", "a", "b") and got.train_labels == [2, 1]
        data = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, -1]}, features)
        data.to_parquet(hub_folder / "validation.parquet")
        with pytest.raises(ValueError, match=r"got -1 \(test splits often") as error:
            hub_classification(hub_folder)
        one_line(error)

    def test_a_share_is_drawn_by_hash(self, hub_folder):
        rows = [{"text": f"text number {i % 150}", "label": i % 2} for i in range(200)]
        write_rows(hub_folder / "data.csv", rows)  # one file is the split "train"
        got = hub_classification(hub_folder, validation=0.3)
        assert sorted(got.train + got.validation) == sorted(row["text"] for row in rows)
        assert not set(got.train) & set(got.validation)
        assert 30 < len(got.validation) < 90
        for text, label in zip(got.train, got.train_labels, strict=True):
            assert label == int(text.split()[-1]) % 2
        text = hub_text(hub_folder, validation=0.3)
        assert text.train.split("\n") == got.train
        assert text.validation.split("\n") == got.validation
        other = hub_classification(hub_folder, validation=0.3, seed=1)
        assert other.validation != got.validation and other.sha256 == got.sha256

    def test_a_configuration_is_chosen_by_name(self, hub_folder):
        for name in ("one", "two"):
            write_rows(hub_folder / name / "train.jsonl", [{"text": f"{name} to train on"}])
            write_rows(hub_folder / name / "validation.jsonl", [{"text": f"{name} held out"}])
        (hub_folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: one\n  data_dir: one\n"
            "- config_name: two\n  data_dir: two\n---\n"
        )
        assert hub_text(hub_folder, "two").validation == "two held out"
        for wrong in (None, "three"):
            with pytest.raises(ValueError, match="a configuration one or two as name") as error:
                hub_text(hub_folder, wrong)
            assert one_line(error).endswith(f"got {wrong!r}")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train": "all"}, "expected a split 'all', got train, test"),
            ({}, "expected a split 'validation', got train, test"),
            ({"column": "sentence"}, "expected a column 'sentence' in train, got text, label, tit"),
            ({"label": "class"}, "expected a column 'class' in train, got text, label, title"),
            ({"column": "label"}, "expected text in column 'label', got 3 in row 0 of train"),
            ({"validation": 0.0}, r"expected text on both sides, got .* with 4 and 0 rows"),
            ({"validation": 2.0}, r"expected text on both sides, got .* with 0 and 4 rows"),
        ],
    )
    def test_what_is_missing_is_named_with_what_there_is(self, hub_folder, options, message):
        write_rows(hub_folder / "train.jsonl", ROWS)
        write_rows(hub_folder / "test.jsonl", HELD_OUT)
        loaders = [hub_classification] if "label" in options else [hub_classification, hub_text]
        for load in loaders:
            with pytest.raises(ValueError, match=message) as error:
                load(hub_folder, **options)
            assert one_line(error).startswith(f"{hub_folder}: ")

    @pytest.mark.parametrize("wrong", [None, 0.5, [1]])
    def test_labels_of_another_kind(self, hub_folder, wrong):
        data = [{"text": "a", "label": wrong}, {"text": "b", "label": wrong}]
        (hub_folder).mkdir()
        for split in ("train", "validation"):
            (hub_folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, data)))
        with pytest.raises(ValueError, match="expected in column 'label' a label in") as error:
            hub_classification(hub_folder)
        assert f"got {wrong!r}" in one_line(error)

    def test_a_row_without_a_label_among_others(self, hub_folder):
        data = [{"text": "a", "label": "x"}, {"text": "b", "label": None}]
        (hub_folder).mkdir()
        (hub_folder / "train.jsonl").write_text("\n".join(map(json.dumps, data)))
        (hub_folder / "validation.jsonl").write_text(json.dumps(data[0]))
        with pytest.raises(ValueError, match="got None") as error:
            hub_classification(hub_folder)
        one_line(error)

    def test_of_a_file_that_is_broken_nothing_is_kept(self, hub_folder):
        write_rows(hub_folder / "train.jsonl", ROWS)
        whole = (hub_folder / "train.jsonl").read_text(encoding="utf-8")
        (hub_folder / "train.jsonl").write_text(whole + '{"text": [broken\n', encoding="utf-8")
        write_rows(hub_folder / "validation.jsonl", HELD_OUT)
        with pytest.raises(ValueError, match="expected files that datasets can read") as error:
            hub_text(hub_folder)
        one_line(error)
        (hub_folder / "train.jsonl").write_text(whole, encoding="utf-8")
        assert hub_text(hub_folder).train.endswith("Zoë says “hello”")

    def test_files_whose_columns_differ(self, hub_folder):
        write_rows(hub_folder / "train.csv", ROWS)
        write_rows(hub_folder / "validation.csv", [{"text": "a", "other": 1}])
        with pytest.raises(ValueError, match="expected files that datasets can read") as error:
            hub_text(hub_folder)
        one_line(error)

    @pytest.mark.parametrize("files", [[], ["photo.xyz"]])
    def test_a_folder_without_data(self, hub_folder, files):
        hub_folder.mkdir()
        for name in files:
            (hub_folder / name).touch()
        with pytest.raises(FileNotFoundError, match="a folder with data files or a") as error:
            hub_text(hub_folder)
        assert str(error.value).startswith(f"{hub_folder}: ") and "\n" not in str(error.value)

    @pytest.mark.parametrize("wrong", ["csv", "no/such/folder", "a b/c", ""])
    def test_what_is_neither_a_folder_nor_an_id(self, hub_cache, tmp_path, monkeypatch, wrong):
        write_rows(tmp_path / "around" / "lies.csv", ROWS)
        monkeypatch.chdir(tmp_path / "around")  # not the root: a glob there walks all of .venv
        with pytest.raises(FileNotFoundError, match="expected a folder or a Hub id") as error:
            hub_text(wrong)
        assert str(error.value).startswith(f"{wrong}: ")

    def test_offline(self, hub_cache):
        for load in (hub_text, hub_classification):
            with pytest.raises(ConnectionError) as error:
                load("owner/name", revision="v1")
            assert str(error.value) == (
                "owner/name at v1: no such folder, the data set is not in the cache, and the Hub "
                "cannot be reached (ConnectionError)"
            )
        assert not hub_cache.exists() or not list(hub_cache.rglob("*.arrow"))

    def test_from_the_cache_without_a_network(self, hub_folder, hub_cache):
        write_rows(hub_folder / "train.jsonl", ROWS)
        write_rows(hub_folder / "validation.jsonl", HELD_OUT)
        want = hub_classification(hub_folder)
        # as `datasets` keeps a data set of the Hub: owner___name / configuration / version / commit
        (info,) = hub_cache.rglob("dataset_info.json")
        kept = hub_cache / "owner___name" / "default" / "0.0.0" / ("0123456789" * 4)
        shutil.copytree(info.parent, kept)
        for path in kept.glob("*.arrow"):
            path.rename(path.with_name(f"name-{path.name.split('-')[-1]}"))
        assert hub_classification("owner/name") == want
        assert hub_text("owner/name") == hub_text(hub_folder)

    @pytest.mark.parametrize(
        ("cls", "kind", "message"),
        [
            (errors.LocalEntryNotFoundError, ConnectionError, "the Hub cannot be reached"),
            (errors.OfflineModeIsEnabled, ConnectionError, "the Hub cannot be reached"),
            (errors.HfHubHTTPError, ConnectionError, "the Hub cannot be reached"),
            (TimeoutError, ConnectionError, "the Hub cannot be reached"),
            (errors.RepositoryNotFoundError, FileNotFoundError, "or a public data set"),
            (errors.GatedRepoError, FileNotFoundError, "or a public data set"),
            (errors.RevisionNotFoundError, FileNotFoundError, "or a public data set"),
            (errors.HFValidationError, FileNotFoundError, "or a public data set"),
            (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, "or a public data set"),
        ],
    )
    def test_what_the_hub_refuses_is_one_line(self, hub_cache, monkeypatch, cls, kind, message):
        def load_dataset(*_, **__):
            error = cls.__new__(cls)  # without the request that it usually carries
            Exception.__init__(error, "many\nlines\nof advice")
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(kind, match=message) as caught:
            hub_text("owner/name", revision="v1")
        assert "\n" not in str(caught.value) and str(caught.value).startswith("owner/name at v1: ")

    def test_any_other_error_is_not_hidden(self, hub_cache, monkeypatch):
        def load_dataset(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(OSError, match="No space left"):
            hub_text("owner/name")

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ImportError, match=r"^owner/name: .* need `pip install datasets`$"):
            hub_text("owner/name")


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
