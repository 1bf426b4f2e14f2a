"""Real text and images without a network, data sets of the Hub, characters, windows of them.

Used from chapter 02_attention on.
"""

from __future__ import annotations

import ast
import datetime
import functools
import gc
import hashlib
import os
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

__all__ = [
    "CharacterVocabulary",
    "LabelledImages",
    "LabelledTexts",
    "Text",
    "TextPairs",
    "consecutive_windows",
    "date_pairs",
    "digits",
    "docstrings",
    "draw_by_hash",
    "hub_classification",
    "hub_text",
    "random_windows",
    "standard_library_sources",
    "topics_paragraphs",
    "topics_text",
]


# Text


def topics_paragraphs() -> list[str]:
    """Return the paragraphs of Python's own language reference, `pydoc_data.topics`, in order.

    White space is folded, so that a paragraph is one line; those under 40 characters are left out.
    A fifth of this text stands there twice or more, under several topics: only the first copy of a
    paragraph is kept, or the same sentence would stand on both sides of a split.
    The text comes with CPython and differs by its version.
    """
    from pydoc_data.topics import topics

    blocks = (block for topic in topics.values() for block in re.split(r"\n\s*\n", topic))
    paragraphs = (" ".join(block.split()) for block in blocks)
    return list(dict.fromkeys(p for p in paragraphs if len(p) >= 40))  # a dict keeps its order


@dataclass(frozen=True)
class Text:
    """A text in two parts, and the SHA-256 of the whole, to be printed beside any result."""

    train: str
    validation: str
    sha256: str


def topics_text(seed: int = 0, validation: float = 0.1) -> Text:
    """Split `topics_paragraphs` into a training and a validation part, one line a paragraph.

    A paragraph's side is drawn from the hash of the seed and the paragraph itself, so it is the
    same in every version of Python that has the paragraph. `validation` is the probability of that
    side, hence its share of the paragraphs only roughly: 162 of 1,625 in CPython 3.11.

    No paragraph stands on both sides. Phrases do, for it is reference prose: in CPython 3.11, 12 %
    of the validation text lies in runs of 40 or more characters that the training text has too.
    Compare numbers within this text only, and only for one `sha256`.
    ValueError if a side would be empty.
    """
    paragraphs = topics_paragraphs()
    sides: tuple[list[str], list[str]] = ([], [])
    for paragraph in paragraphs:
        sides[draw_by_hash(seed, paragraph) < validation].append(paragraph)
    if not all(sides):
        raise ValueError(
            "validation: expected a share between 0 and 1 that leaves paragraphs on both sides, "
            f"got {validation!r}"
        )
    whole = hashlib.sha256("\n".join(paragraphs).encode()).hexdigest()
    return Text(train="\n".join(sides[0]), validation="\n".join(sides[1]), sha256=whole)


def draw_by_hash(seed: int, example: str) -> float:
    """A number from 0 to 1, uniform over seeds and examples, the same on every machine.

    What is on a side by this draw stays there when other examples come or go.
    """
    digest = hashlib.sha256(f"{seed}\n{example}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


# Texts with a label


@dataclass(frozen=True)
class LabelledTexts:
    """Texts to classify, in two parts, and the SHA-256 of the whole.

    `names[label]` is what a label means; labels are 0 … len(names) − 1.
    """

    train: list[str]
    train_labels: list[int]
    validation: list[str]
    validation_labels: list[int]
    names: tuple[str, ...]
    sha256: str


# No library but applications and tests, and two packages that newer versions of Python leave out.
_NOT_LABELS = {"idlelib", "turtledemo", "test", "distutils", "lib2to3"}
_TESTS = {"test", "tests", "idle_test"}
_FEWEST = 20  # docstrings without which a module is no label


def docstrings(
    seed: int = 0, validation: float = 0.2, *, num_labels: int = 12, min_length: int = 40
) -> LabelledTexts:
    """Which module of Python's standard library is this docstring from?

    Every docstring of a module, class or function in the sources that this Python comes with; they
    are parsed, and nothing is imported. Its label is the top-level module or package. The
    `num_labels` public ones with the most docstrings are kept, and `names` lists them from A to Z.

    White space is folded, so that a docstring is one line; those under `min_length` characters are
    left out. Of equal ones the first is kept, and none at all where they stand in several modules,
    for then no answer is right.

    Wherever a text has the name of a label in it, in any case and within words too, stands "…"
    ("An … server" in http), so that no answer can be read off. It is the names of all labels that
    go, not only a text's own: else a name that is left would say what the label is *not*. It makes
    the task cleaner, not harder: in CPython 3.11 one docstring in seven names its module, and
    logistic regression on the words gets 91 % right with the names and 91 % without.

    A docstring's side is drawn from the hash of the seed and its text as it stands here, so it is
    the same in every version of Python that has it. Labels are not balanced over the sides, as that
    would tie the docstrings to each other. `validation` is the probability of that side. Both sides
    are in the order of the hash, which mixes the labels. They are as uneven as the library: in
    CPython 3.11 a quarter of the texts is tkinter's, so compare an accuracy with the share of the
    most frequent label. Docstrings of one module resemble each other, over both sides too.

    What there is differs by Python's version, and by what the system installs of it (Debian's
    python3 comes without tkinter). Compare numbers for one `sha256` only; it is that of all kept
    docstrings and labels, whatever the seed.

    ValueError if fewer than `num_labels` modules have 20 such docstrings, or if a label would be
    missing from a side.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    found = [(text, name) for text, name in _standard_library(folder) if len(text) >= min_length]
    found = _without_ambiguous(found)
    counts = sorted(Counter(name for _, name in found).items(), key=lambda item: (-item[1], item))
    most = sum(count >= _FEWEST for _, count in counts)
    if not isinstance(num_labels, int) or not 2 <= num_labels <= most:
        raise ValueError(
            f"num_labels: expected an integer of at least 2, and at most {most}, the modules with "
            f"{_FEWEST} docstrings of {min_length} characters in {folder} "
            f"(is all of the standard library installed?), got {num_labels!r}"
        )
    names = tuple(sorted(name for name, _ in counts[:num_labels]))
    mask = re.compile("|".join(sorted(names, key=len, reverse=True)), re.IGNORECASE)
    kept = _without_ambiguous([(mask.sub("…", t), name) for t, name in found if name in names])

    whole = "\n".join(f"{name}\t{text}" for text, name in kept)
    sides: tuple[list, list] = ([], [])
    for draw, text, name in sorted((draw_by_hash(seed, text), text, name) for text, name in kept):
        sides[draw < validation].append((text, names.index(name)))
    if any({label for _, label in side} != set(range(num_labels)) for side in sides):
        raise ValueError(
            "validation: expected a share between 0 and 1 that leaves docstrings of every label "
            f"on both sides, got {validation!r}"
        )
    (train, train_labels), (held_out, held_out_labels) = (zip(*side, strict=True) for side in sides)
    return LabelledTexts(
        train=list(train),
        train_labels=list(train_labels),
        validation=list(held_out),
        validation_labels=list(held_out_labels),
        names=names,
        sha256=hashlib.sha256(whole.encode()).hexdigest(),
    )


@functools.cache  # seconds, for eleven megabytes of source
def _standard_library(folder: Path) -> tuple[tuple[str, str], ...]:
    """(docstring, top-level module) for the public modules in a folder, in order of their path."""
    found = []
    collects = gc.isenabled()
    gc.disable()  # it would look at millions of nodes again and again, for half of the time
    try:
        for path, name in standard_library_sources(folder):
            if not name.startswith("_"):
                found += [(text, name) for text in _docstrings_of(ast.parse(path.read_bytes()))]
    finally:
        if collects:
            gc.enable()
    return tuple(found)


def standard_library_sources(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, top-level module) of the standard library's modules in a folder, in order of path.

    Tests are left out, and what is an application or no longer there in newer versions.
    """
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        name = parts[0].removesuffix(".py")
        known = name in sys.stdlib_module_names and name not in _NOT_LABELS
        if known and _TESTS.isdisjoint(parts):
            yield path, name


def _docstrings_of(node: ast.AST) -> Iterator[str]:
    """The docstrings in a piece of source, each on one line, in order."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield " ".join(text.split())
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):  # definitions stand in no expression
            yield from _docstrings_of(child)


def _without_ambiguous(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first of equal (text, label) pairs, and none of a text that has several labels."""
    labels: dict[str, set[str]] = {}
    for text, label in pairs:
        labels.setdefault(text, set()).add(label)
    return [(text, *found) for text, found in labels.items() if len(found) == 1]


# Texts and their translations


@dataclass(frozen=True)
class TextPairs:
    """Texts and what each of them becomes, in two parts, and the SHA-256 of the whole."""

    train: list[tuple[str, str]]
    validation: list[tuple[str, str]]
    sha256: str


DATE_FORMS = (("de", "full"), ("es", "long"), ("fr", "short"))


def date_pairs(
    seed: int = 0,
    validation: float = 0.1,
    *,
    sources: Sequence[tuple[str, str]] = DATE_FORMS,
    target: tuple[str, str] = ("en", "long"),
    num_days: int | None = 5000,
    first: int = 1900,
    last: int = 2100,
) -> TextPairs:
    """Days as several languages write them, each with the same day in another language.

    With the defaults "Donnerstag, 5. März 1987", "5 de marzo de 1987" and "05/03/1987" all become
    "March 5, 1987". The words, their order and their punctuation are those of Unicode's CLDR, as
    the package `babel` brings it; it needs no network.

    Parameters
    ----------
    seed, validation : a *day's* side is drawn from the hash of the seed and the day, with this
        probability of being held out: all texts of a day are on one side
    sources, target : (locale, format), as `babel.dates.format_date` takes them
        A format is "full", "long", "medium" or "short", or a pattern such as "d/M/y".
    num_days : how many days are kept, those with the smallest hashes; None: all of them
    first, last : the years, both included; 1900 to 2100 are 73,414 days

    A text that means two days of these years is left out, whether or not the other day is kept, for
    then no answer is right: "10/11/1987" where both "d/M/y" and "M/d/y" are sources, or everything
    in a form that writes 1987 as 87. One that two forms write alike stands once.

    Both parts are in the order of the hash, which mixes the years, and a day's texts in that of the
    sources. CLDR changes a little from version to version: compare numbers for one `sha256` only;
    it is that of all kept pairs, in alphabetical order.

    ImportError without babel. ValueError for a wrong number, for a form that babel does not know,
    or if a side would be empty.
    """
    if not isinstance(first, int) or not isinstance(last, int) or not 1 <= first <= last <= 9999:
        raise ValueError(f"first, last: expected years in order, from 1, got {first!r}, {last!r}")
    begin, end = datetime.date(first, 1, 1), datetime.date(last, 12, 31)
    days = [begin + datetime.timedelta(k) for k in range((end - begin).days + 1)]
    if num_days is not None and (not isinstance(num_days, int) or not 1 <= num_days <= len(days)):
        raise ValueError(
            f"num_days: expected None or an integer from 1 to {len(days)}, got {num_days!r}"
        )
    write = _date_writer(target)
    meaning: dict[str, int] = {}  # the day of a text, −1 if there are two
    texts = []  # of each source, by day
    for form in sources:
        texts.append([_date_writer(form)(day) for day in days])
        for k, text in enumerate(texts[-1]):
            if meaning.setdefault(text, k) != k:
                meaning[text] = -1

    order = sorted((draw_by_hash(seed, day.isoformat()), k) for k, day in enumerate(days))
    sides: tuple[list, list] = ([], [])
    for _, k in order[:num_days]:
        side = sides[draw_by_hash(seed, f"side of {days[k].isoformat()}") < validation]
        for text in dict.fromkeys(of_form[k] for of_form in texts):
            if meaning[text] == k:
                side.append((text, write(days[k])))
    if not all(sides):
        raise ValueError(
            "sources, validation: expected texts that mean one day, on both sides, "
            f"got {len(sides[0])} and {len(sides[1])} of them"
        )
    whole = "\n".join(sorted("\t".join(pair) for side in sides for pair in side))
    return TextPairs(*sides, sha256=hashlib.sha256(whole.encode()).hexdigest())


def _date_writer(form: tuple[str, str]) -> Callable[[datetime.date], str]:
    """From a day to its text in a form (locale, format), as `babel.dates.format_date` has it."""
    try:
        import babel
        from babel.dates import get_date_format, parse_pattern
    except ImportError:
        raise ImportError("date_pairs needs `pip install babel`") from None
    try:
        name, pattern = form
        locale = babel.Locale.parse(name)
        named = pattern in ("full", "long", "medium", "short")
        rule = get_date_format(pattern, locale=locale) if named else parse_pattern(pattern)
    except (babel.UnknownLocaleError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"sources, target: expected pairs (locale, format) that babel knows, got {form!r}"
        ) from error
    # CLDR writes other kinds of space too.
    return lambda day: " ".join(rule.apply(day, locale).split())


# Images with a label


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images to classify, in two parts, and the SHA-256 of the whole.

    train, validation : (N, channels, height, width) float32, from 0 to 1
    train_labels, validation_labels : (N,) int64
    """

    train: Tensor
    train_labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    sha256: str


def digits(seed: int = 0, validation: float = 0.2) -> LabelledImages:
    """1,797 handwritten digits of 8 × 8 pixels, which come with scikit-learn; no two are equal.

    A pixel counts the dark ones among 4 × 4 of the scan, 0 to 16; here it is that over 16.

    The split is stratified: of each digit's n images, the round(validation · n) with the smallest
    hashes of seed and pixels are held out (in `validation=0.2`, 359). Both sides keep the data's
    order, in which the digits are mixed. The digits are 13 people's, and who wrote which is
    not recorded: a person's hand is on both sides, so this measures new digits, not new writers.

    ImportError without scikit-learn. ValueError if a digit would be missing from a side.

    Source: Alpaydin & Kaynak 1998, "Cascading Classifiers", Kybernetika 34(4); the test part of
    the UCI repository's "Optical Recognition of Handwritten Digits".
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("digits needs `pip install scikit-learn`") from None
    data = load_digits()
    pixels = data.images.astype("uint8")  # (N, 8, 8), whole numbers as they are
    labels = torch.from_numpy(data.target).long()
    draws = torch.tensor(
        [draw_by_hash(seed, image.tobytes().hex()) for image in pixels], dtype=torch.float64
    )

    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        (members,) = torch.nonzero(labels == digit, as_tuple=True)
        count = round(validation * len(members)) if 0 < validation < 1 else 0
        if not 0 < count < len(members):
            raise ValueError(
                "validation: expected a share between 0 and 1 that leaves every digit "
                f"on both sides, got {validation!r}"
            )
        held_out[members[draws[members].argsort()[:count]]] = True
    images = torch.from_numpy(pixels).unsqueeze(1).float() / 16
    return LabelledImages(
        train=images[~held_out],
        train_labels=labels[~held_out],
        validation=images[held_out],
        validation_labels=labels[held_out],
        sha256=hashlib.sha256(pixels.tobytes() + bytes(labels.tolist())).hexdigest(),
    )


# Data sets of the Hugging Face Hub


def hub_text(
    repo_id: str | os.PathLike,
    name: str | None = None,
    *,
    column: str = "text",
    train: str = "train",
    validation: str | float = "validation",
    seed: int = 0,
    revision: str | None = None,
) -> Text:
    """A text from the Hugging Face Hub, or from a folder of files as they lie there.

    Parameters
    ----------
    repo_id, name : "owner/name" on the Hub or a folder; its configuration, if it has several
        A folder holds train.parquet and validation.parquet, or the like in csv, jsonl or txt.
    column : where the text is
        Each row is a line: white space around it goes, and so do rows without text.
    train, validation : the splits
        A number for `validation` is a share of `train`, whose rows are then drawn by their hash
        with `seed`, as in `topics_text`: equal rows stand on one side. Splits that the data set
        brings are taken as they are, with whatever they have in common.
    revision : branch, tag or commit on the Hub

    The library `datasets` downloads it once and reads it from its cache then, without a network
    too. It comes whole or not at all. Errors, each in one line that begins with `repo_id`:

    - ImportError without `datasets`. ConnectionError if the Hub cannot be reached and the data set
      is not in the cache. FileNotFoundError for what is neither a folder with data nor public.
    - ValueError for a configuration, split or column that is not there, and it names those that
      are; for files that cannot be read; for a row that is no text; for a side without rows.
    """
    _, sides, sha256 = _hub_rows(
        repo_id, name, (column,), train=train, validation=validation, seed=seed, revision=revision
    )
    texts = ("\n".join(text.strip() for (text,) in side if text.strip()) for side in sides)
    return Text(*texts, sha256=sha256)


def hub_classification(
    repo_id: str | os.PathLike,
    name: str | None = None,
    *,
    column: str = "text",
    label: str = "label",
    train: str = "train",
    validation: str | float = "validation",
    seed: int = 0,
    revision: str | None = None,
) -> LabelledTexts:
    """Texts with a label, from the Hub or a folder, in the form of `docstrings`.

    Parameters and errors as in `hub_text`, and

    label : the column of labels
        Where the data set names its labels (`ClassLabel`), ids and names are its own. Else the
        values, all integers or all strings, are sorted, and `names` has them as strings.

    Rows are taken as they are, in their order; many data sets are sorted by label, so shuffle them.
    ValueError also for a row without a label (−1 in many test splits).
    """
    features, sides, sha256 = _hub_rows(
        repo_id,
        name,
        (column, label),
        train=train,
        validation=validation,
        seed=seed,
        revision=revision,
    )
    values = [value for side in sides for _, value in side]
    given = getattr(features[label], "names", None)  # of a ClassLabel
    wrong = [v for v in values if type(v) not in (int, str) or type(v) is not type(values[0])]
    wrong += [v for v in values if given and v not in range(len(given))]
    if wrong:
        raise ValueError(
            f"{repo_id}: expected in column {label!r} a label in every row, all integers or all "
            f"strings, got {wrong[0]!r} (test splits often come without labels)"
        )
    distinct = range(len(given)) if given else sorted(set(values))
    ids = {value: i for i, value in enumerate(distinct)}
    return LabelledTexts(
        train=[text for text, _ in sides[0]],
        train_labels=[ids[value] for _, value in sides[0]],
        validation=[text for text, _ in sides[1]],
        validation_labels=[ids[value] for _, value in sides[1]],
        names=tuple(given or map(str, distinct)),
        sha256=sha256,
    )


def _hub_rows(
    repo_id: str | os.PathLike,
    name: str | None,
    columns: tuple[str, ...],
    *,
    train: str,
    validation: str | float,
    seed: int,
    revision: str | None,
) -> tuple[Mapping, tuple[list[tuple], list[tuple]], str]:
    """The columns' features, the rows of both sides, and the SHA-256 of all rows."""
    repo_id = os.fspath(repo_id)
    data = _load_hub(repo_id, name, revision)
    names = (train, validation) if isinstance(validation, str) else (train,)
    rows: dict[str, list[tuple]] = {}
    for split in names:
        if split not in data:
            raise ValueError(f"{repo_id}: expected a split {split!r}, got {', '.join(data)}")
        features = data[split].features
        for column in columns:
            if column not in features:
                raise ValueError(
                    f"{repo_id}: expected a column {column!r} in {split}, got {', '.join(features)}"
                )
        rows[split] = list(zip(*(data[split][column] for column in columns), strict=True))
        for i, (text, *_) in enumerate(rows[split]):
            if not isinstance(text, str):
                raise ValueError(
                    f"{repo_id}: expected text in column {columns[0]!r}, got {text!r} in row {i} "
                    f"of {split}"
                )
    sides: tuple[list, list] = ([], [])
    if isinstance(validation, str):
        sides = (rows[train], rows[validation])
    else:
        for row in rows[train]:
            sides[draw_by_hash(seed, row[0].strip()) < validation].append(row)
    if not all(any(row[0].strip() for row in side) for side in sides):
        raise ValueError(
            f"{repo_id}: expected text on both sides, got train = {train!r} and "
            f"validation = {validation!r} with {len(sides[0])} and {len(sides[1])} rows"
        )
    whole = "\n".join("\t".join(map(str, row)) for split in names for row in rows[split])
    return data[train].features, sides, hashlib.sha256(whole.encode()).hexdigest()


def _load_hub(repo_id: str, name: str | None, revision: str | None) -> Mapping:
    """Its splits by name; errors in one line."""
    try:
        import datasets
        from datasets.exceptions import DatasetsError
        from huggingface_hub import errors
    except ImportError:
        raise ImportError(f"{repo_id}: data sets of the Hub need `pip install datasets`") from None
    # "csv" alone would be taken for the format, and all the files around here for the data.
    if not (repo_id and Path(repo_id).is_dir()) and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise FileNotFoundError(f"{repo_id}: expected a folder or a Hub id owner/name")
    where = f"{repo_id} at {revision}" if revision else repo_id
    nowhere = f"{where}: expected a folder with data files or a public data set, found neither"
    try:
        return datasets.load_dataset(repo_id, name, revision=revision)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise FileNotFoundError(nowhere) from None
    except (ConnectionError, TimeoutError, errors.LocalEntryNotFoundError, errors.HTTPError) as e:
        raise ConnectionError(
            f"{where}: no such folder, the data set is not in the cache, and the Hub cannot be "
            f"reached ({type(e).__name__})"
        ) from None
    except FileNotFoundError:  # among them the library's, for a data set that is not there
        raise FileNotFoundError(nowhere) from None
    except (ValueError, DatasetsError) as error:
        names = datasets.get_dataset_config_names(repo_id, revision=revision)
        if name not in names and (name is not None or len(names) > 1):
            raise ValueError(
                f"{where}: expected a configuration {' or '.join(names)} as name, got {name!r}"
            ) from None
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ValueError(f"{where}: expected files that datasets can read, got: {reason}") from None


# Characters as ids


class CharacterVocabulary:
    """Characters and their ids 0, 1, 2, …, in the order of `characters`.

    There is no id for an unknown character: make the vocabulary from all the text there is
    (`from_text(text.train + text.validation)`). That tells the model which characters exist and
    nothing about how often; an untrained "unknown" would only spoil the validation loss.

    >>> vocabulary = CharacterVocabulary.from_text("abba, b")
    >>> vocabulary.characters
    ' ,ab'
    >>> vocabulary.encode("bab")
    tensor([3, 2, 3])
    >>> vocabulary.decode([3, 2, 3])
    'bab'
    """

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters)}
        if not characters or len(self._ids) != len(characters):
            raise ValueError(
                f"characters: expected at least one, each once, got {len(characters)} "
                f"of which {len(self._ids)} differ"
            )

    @classmethod
    def from_text(cls, text: str) -> CharacterVocabulary:
        """The characters of a text, sorted by code point."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Tensor:
        """Return the ids (n,), int64. ValueError names the first unknown character."""
        try:
            return torch.tensor([self._ids[character] for character in text], dtype=torch.long)
        except KeyError as error:
            unknown = error.args[0]
            raise ValueError(
                f"text: expected characters of the vocabulary ({len(self)} of them), "
                f"got {unknown!r} (U+{ord(unknown):04X}) at position {text.index(unknown)}"
            ) from None

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids (n,). ValueError names the first unknown id."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        for number in numbers:
            if not isinstance(number, int) or not 0 <= number < len(self):  # -1 would be the last
                raise ValueError(f"ids: expected integers from 0 to {len(self) - 1}, got {number}")
        return "".join(self.characters[number] for number in numbers)


# Windows


def random_windows(
    ids: Tensor, batch_size: int, length: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw windows of a text for a language model: (input, target), both (batch_size, length).

    target[b, t] is the id that follows input[b, t] in the text. Every start is equally likely.
    The starts are drawn on the generator's device: one on the CPU, the default, draws the same
    windows wherever `ids` lies. ValueError if `ids` (N,) has no N > length.
    """
    _validate_windows(ids, length)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
    device = "cpu" if generator is None else generator.device
    starts = torch.randint(len(ids) - length, (batch_size,), generator=generator, device=device)
    windows = ids.unfold(0, length + 1, 1)[starts.to(ids.device)]  # (batch_size, length + 1)
    return windows[:, :-1], windows[:, 1:]


def consecutive_windows(ids: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cut a text into windows side by side, for evaluation: (input, target), both (k, length).

    Read in order, the targets are ids[1 : k · length + 1], each once; k = ⌊(N − 1) / length⌋, and
    the fewer than `length` ids behind them are dropped. The first target of a window is predicted
    from one character, the last from `length`. ValueError if `ids` (N,) has no N > length.

    >>> for part in consecutive_windows(torch.arange(8), 3): print(part)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    tensor([[1, 2, 3],
            [4, 5, 6]])
    """
    _validate_windows(ids, length)
    used = (len(ids) - 1) // length * length
    return ids[:used].view(-1, length), ids[1 : used + 1].view(-1, length)


def _validate_windows(ids: Tensor, length: int) -> None:
    if ids.ndim != 1:
        raise ValueError(f"ids: expected shape (N,), got {tuple(ids.shape)}")
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"length: expected an integer of at least 1, got {length!r}")
    if len(ids) <= length:
        raise ValueError(f"ids: expected more than length = {length} of them, got {len(ids)}")
