"""Pre-train a small BERT on pairs of real text, and fine-tune it for three tasks.

Chapter 11_bert runs it small; book/experiments/bert.py runs it larger. Text is read character by
character, in lower case, as in `lib.teaching.pretraining`. Three tasks, one an input format:

* `modules`: which module is a docstring from? One label a text, read from [CLS].
* `names`: which words of a docstring are parameters, constants, exceptions? One label a token. They
  come from Python's parser: a word is a parameter if the signature says so, which is not shown.
* `dates`: the day, month or year of one of two dates. A span of the text. Texts and questions are
  generated, with Babel's formats.
"""

from __future__ import annotations

import ast
import builtins
import calendar
import datetime
import functools
import math
import random
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.corruption import mask_tokens
from lib.data import docstrings, draw_by_hash, standard_library_sources
from lib.losses import masked_lm_loss, next_sentence_loss
from lib.models.bert import BERT, BERTConfig
from lib.teaching.pretraining import frequent_characters, small_config, start_local, tenths
from lib.training import fit, seed_everything

__all__ = [
    "ARMS",
    "Corpus",
    "Task",
    "at_masks_and_elsewhere",
    "begin",
    "chunks",
    "config_for",
    "corpus",
    "dates",
    "draw_pairs",
    "fine_tune",
    "modules",
    "names",
    "nsp_accuracy",
    "overlap_accuracy",
    "pack",
    "pretrain",
]

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
SPECIAL = (PAD, UNKNOWN, CLS, SEP, MASK)
GLYPHS = ("·", "?", "[CLS]", "[SEP]", "▢")
# What B is when it does not follow A: text of another document, or of the same one.
NEGATIVES = ("random", "same")
ARMS = ("scratch", "mlm", "nsp-random", "nsp-same")
TAGS = ("O", "parameter", "constant", "exception")


# Text


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents, each a list of pieces of text, and the ids of their characters."""

    train: list[list[str]]
    held_out: list[list[str]]
    characters: tuple[str, ...]  # what each id stands for
    length: int  # of a pair, with [CLS] and both [SEP]
    sha256: str

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.characters) if i >= len(SPECIAL)}

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(c, UNKNOWN) for c in text.lower()]

    def decode(self, ids: Iterable[int]) -> list[str]:
        return [self.characters[i] for i in ids]


def chunks(text: str, most: int) -> list[str]:
    """Cut a text between words into pieces of at most `most` characters; longer words are cut.

    A piece ends where the next word would not fit, so no piece begins within a word: else the
    spelling would say that two pieces belong together.

    >>> chunks("the cat drank the milk", 9)
    ['the cat', 'drank the', 'milk']
    """
    if most < 1:
        raise ValueError(f"most: expected at least 1, got {most}")
    pieces: list[str] = []
    for word in text.split():
        word = word[:most]
        if pieces and len(pieces[-1]) + 1 + len(word) <= most:
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    return pieces


def corpus(length: int = 96, *, num_labels: int = 24, rarest: int = 100) -> Corpus:
    """Docstrings of the standard library as documents of at least four pieces.

    Four are needed for a negative of the same document that is neither A nor what follows it,
    whichever piece A is. Held out are those that `lib.data.docstrings` holds out. Characters that
    occur fewer than `rarest` times in the training text are one id.
    """
    data = docstrings(num_labels=num_labels)
    most = (length - 3) // 2

    def documents(texts: Sequence[str]) -> list[list[str]]:
        cut = (chunks(text.lower(), most) for text in texts)
        return [pieces for pieces in cut if len(pieces) >= 4]

    return Corpus(
        train=documents(data.train),
        held_out=documents(data.validation),
        characters=(*GLYPHS, *frequent_characters(data.train, rarest)),
        length=length,
        sha256=data.sha256,
    )


def pack(
    corpus: Corpus, first: Sequence[str], second: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Ids and segments (B, n) of [CLS] first [SEP], or of [CLS] first [SEP] second [SEP].

    The last [SEP] and what it closes are segment 1; padding is segment 0. A text that is too long
    is cut at its end, the second one before the first.
    """
    n = corpus.length
    ids = torch.full((len(first), n), PAD)
    segments = torch.zeros_like(ids)
    for row, text in enumerate(first):
        one = [CLS, *corpus.encode(text)[: n - 2 - (second is not None)], SEP]
        two = []
        if second is not None:
            two = [*corpus.encode(second[row])[: n - len(one) - 1], SEP]
        ids[row, : len(one) + len(two)] = torch.tensor(one + two)
        segments[row, len(one) : len(one) + len(two)] = 1
    return ids, segments


def draw_pairs(
    documents: Sequence[Sequence[str]],
    count: int,
    negatives: str | None,
    rng: random.Random,
) -> tuple[list[str], list[str], list[int]]:
    """Draw `count` pairs: texts A, texts B, and labels, 0 = B follows A, 1 = it does not.

    negatives : None, "random" or "same"
        None: every B follows its A. Else half of the labels are 1 on average, and B is then any
        piece of another document, or a piece of A's own that is neither A nor its successor.

    Every A that has a successor is equally likely; a random B comes from such pieces' documents
    with the same weights, so that long documents are hardly a sign of either label: only A's own
    is left out, which matters where one document is a large part of all.
    """
    if negatives is not None and negatives not in NEGATIVES:
        raise ValueError(f"negatives: expected None or one of {NEGATIVES}, got {negatives!r}")
    weights = [len(pieces) - 1 for pieces in documents]
    places = rng.choices(range(len(documents)), weights, k=count)
    a, b, labels = [], [], []
    for place in places:
        pieces = documents[place]
        i = rng.randrange(len(pieces) - 1)
        label = 0 if negatives is None else rng.randrange(2)
        if not label:
            other = pieces[i + 1]
        elif negatives == "same":
            other = pieces[rng.choice([j for j in range(len(pieces)) if j not in (i, i + 1)])]
        else:
            far = place
            while far == place:
                (far,) = rng.choices(range(len(documents)), weights)
            other = documents[far][rng.randrange(1, len(documents[far]))]
        a.append(pieces[i])
        b.append(other)
        labels.append(label)
    return a, b, labels


def overlap_accuracy(corpus: Corpus, negatives: str, *, count: int = 2000, seed: int = 0) -> float:
    """How often a rule is right that only counts the words which A and B share.

    "B follows A" from so many shared words on; the threshold is the best one on training pairs,
    and the accuracy is that on held-out pairs.
    """

    def shared(documents: Sequence[Sequence[str]], seed: int) -> tuple[Tensor, Tensor]:
        a, b, labels = draw_pairs(documents, count, negatives, random.Random(seed))
        common = [len(set(x.split()) & set(y.split())) for x, y in zip(a, b, strict=True)]
        return torch.tensor(common), torch.tensor(labels)

    common, labels = shared(corpus.train, seed)
    best = max(range(10), key=lambda t: ((common < t).long() == labels).sum().item())
    common, labels = shared(corpus.held_out, seed + 1)
    return ((common < best).long() == labels).double().mean().item()


# Pre-training


def config_for(corpus: Corpus, d_model: int = 48, num_layers: int = 2) -> BERTConfig:
    """A `small_config` for pairs of this corpus, of two segments."""
    return small_config(len(corpus.characters), corpus.length, d_model, num_layers, 2)


def begin(
    corpus: Corpus,
    config: BERTConfig,
    *,
    steps: int,
    seed: int,
    batch: int = 64,
    length: int = 32,
    learning_rate: float = 3e-3,
    parts: tuple[float, float, float] = (0.8, 0.1, 0.1),
    device: torch.device | str = "cpu",
    progress: Callable[[range], Iterable[int]] | None = None,
) -> tuple[BERT, list[float]]:
    """The first part of pre-training: hidden characters in short single texts, no pairs.

    Returns the model and the losses of all steps. There are fewer places among which attention has
    to find the neighbours. BERT does the like: nine tenths of its steps read 128 tokens, and only
    the rest 512 (Devlin et al. 2019, A.2).
    """
    seed_everything(seed)
    rng = torch.Generator().manual_seed(seed)
    model = BERT(config).to(device)
    start_local(model.encoder)
    flat = [i for pieces in corpus.train for i in corpus.encode(" ".join(pieces))]
    text = torch.tensor(flat)

    def masked(step: int) -> Tensor:
        at = torch.randint(len(text) - length, (batch, 1), generator=rng)
        ids = text[at + torch.arange(length)]
        ids[:, 0], ids[:, -1] = CLS, SEP
        return _masked_loss(model, ids, torch.zeros_like(ids), rng, device, parts)[0]

    losses = fit(model, masked, steps=steps, learning_rate=learning_rate, progress=progress)
    return model.eval(), losses


def _masked_loss(
    model: BERT,
    ids: Tensor,
    segments: Tensor,
    rng: torch.Generator,
    device: torch.device | str,
    parts: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> tuple[Tensor, Tensor]:
    """The loss of hidden characters, and the hidden vectors (B, n, d_model)."""
    corrupted, labels = mask_tokens(
        ids,
        ids != PAD,
        vocab_size=model.config.vocab_size,
        mask_token_id=MASK,
        special_token_ids=SPECIAL,
        parts=parts,
        rng=rng,
    )
    chosen = labels != -100
    hidden = model.encode(
        corrupted.to(device),
        attention_mask=(ids != PAD).to(device),
        token_type_ids=segments.to(device),
    )
    # Logits of the chosen characters alone: the others have no label.
    logits = model.mlm_logits(hidden[chosen.to(device)])
    return masked_lm_loss(logits, labels[chosen].to(device)), hidden


def pretrain(
    model: BERT,
    arm: str,
    corpus: Corpus,
    *,
    steps: int,
    seed: int,
    batch: int = 32,
    learning_rate: float = 2e-3,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> tuple[BERT, dict[str, list[float]]]:
    """The second part, on pairs: train a copy of the model, return it and its losses.

    "mlm" guesses hidden characters, in pairs whose B always follows A; "nsp-random" and "nsp-same"
    add next-sentence prediction with these `NEGATIVES`. All see equally many pairs. The losses are
    means over ten parts of the run: `mlm_loss` and, with NSP, `nsp_loss`. ValueError for another
    arm.
    """
    if arm not in ARMS[1:]:
        raise ValueError(f"arm: expected one of {', '.join(ARMS[1:])}, got {arm!r}")
    seed_everything(seed)
    pairs, rng = random.Random(seed), torch.Generator().manual_seed(seed)
    model = _copy(model)
    device = model.pooler.weight.device
    negatives = None if arm == "mlm" else arm.removeprefix("nsp-")
    parts: list[tuple[float, ...]] = []

    def joint(step: int) -> Tensor:
        a, b, follows = draw_pairs(corpus.train, batch, negatives, pairs)
        ids, segments = pack(corpus, a, b)
        loss, hidden = _masked_loss(model, ids, segments, rng, device)
        losses = [loss]
        if negatives is not None:
            answers = model.next_sentence(model.pool(hidden))
            losses.append(next_sentence_loss(answers, torch.tensor(follows, device=device)))
        parts.append(tuple(loss.item() for loss in losses))
        return sum(losses)

    fit(model, joint, steps=steps, learning_rate=learning_rate, progress=progress)
    columns = zip(("mlm_loss", "nsp_loss"), zip(*parts, strict=True), strict=False)
    return model.eval(), {name: tenths(losses) for name, losses in columns}


@torch.no_grad()
def at_masks_and_elsewhere(
    model: BERT, corpus: Corpus, *, length: int = 32, count: int = 1000
) -> dict[str, float]:
    """Of held-out text: the loss of characters that are hidden, and what is said of all others.

    `masked_loss`: 15 % hidden, each by the mask, in nats. `visible_accuracy`: of characters that
    stand in an untouched text, as a task will show it, how many does the model name? `typo_loss`:
    of characters in whose place a random other one stands, 15 % of all, how many nats does the
    original cost?
    """
    rng = torch.Generator().manual_seed(0)
    text = torch.tensor([i for pieces in corpus.held_out for i in corpus.encode(" ".join(pieces))])
    at = torch.randint(len(text) - length, (count, 1), generator=rng)
    ids = text[at + torch.arange(length)]
    ids[:, 0], ids[:, -1] = CLS, SEP
    device = model.pooler.weight.device
    found = {}
    for name, parts in (("masked_loss", (1.0, 0.0, 0.0)), ("typo_loss", (0.0, 1.0, 0.0))):
        options = {"vocab_size": model.config.vocab_size, "mask_token_id": MASK}
        corrupted, labels = mask_tokens(
            ids, special_token_ids=SPECIAL, parts=parts, rng=rng, **options
        )
        labels = labels.masked_fill(corrupted == ids, -100)  # a random character may be the same
        logits, _ = model(corrupted.to(device))
        found[name] = masked_lm_loss(logits, labels.to(device)).item()
    logits, _ = model(ids.to(device))
    ordinary = ids > MASK
    found["visible_accuracy"] = (logits.argmax(-1).cpu() == ids)[ordinary].double().mean().item()
    return found


def _copy(model: BERT) -> BERT:
    copy = BERT(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(model.pooler.weight.device)


@torch.no_grad()
def nsp_accuracy(
    model: BERT, corpus: Corpus, negatives: str, *, count: int = 2000, seed: int = 1
) -> float:
    """The share of held-out pairs whose label the model gives, with nothing hidden."""
    a, b, labels = draw_pairs(corpus.held_out, count, negatives, random.Random(seed))
    ids, segments = pack(corpus, a, b)
    device = model.pooler.weight.device
    right = 0
    for x, s, y in zip(
        ids.split(250), segments.split(250), torch.tensor(labels).split(250), strict=True
    ):
        x, s = x.to(device), s.to(device)
        hidden = model.encode(x, attention_mask=x != PAD, token_type_ids=s)
        found = model.next_sentence(model.pool(hidden)).argmax(-1).cpu()
        right += int((found == y).sum())
    return right / count


# Tasks


@dataclass(frozen=True, eq=False)
class Task:
    """Texts as ids, and what is to be said of them.

    ids, segments : (N, n)
    labels : (N,) classes for "text"; (N, n) classes, -100 = nothing to say, for "token"; (N, 2)
        first and last position for "span"
    kind : "text", "token" or "span"
    baseline : the score of a rule without a network, held out
    """

    kind: str
    classes: int
    ids: Tensor
    segments: Tensor
    labels: Tensor
    held_out_ids: Tensor
    held_out_segments: Tensor
    held_out_labels: Tensor
    baseline: float
    says: str  # what the baseline does


def modules(corpus: Corpus, *, num_labels: int = 24) -> Task:
    """[CLS] docstring [SEP] → the module that it is from. Score: accuracy."""
    data = docstrings(num_labels=num_labels)
    ids, segments = pack(corpus, data.train)
    held_out_ids, held_out_segments = pack(corpus, data.validation)
    counts = Counter(data.validation_labels)
    (most, _), *_ = Counter(data.train_labels).most_common()
    return Task(
        "text",
        num_labels,
        ids,
        segments,
        torch.tensor(data.train_labels),
        held_out_ids,
        held_out_segments,
        torch.tensor(data.validation_labels),
        counts[most] / len(data.validation_labels),
        "the most frequent module",
    )


@functools.cache
def _functions(folder: Path) -> tuple[tuple[str, frozenset[str], str], ...]:
    """(docstring on one line, its function's parameters, module) of a library's functions."""
    found: dict[str, tuple[str, frozenset[str], str]] = {}
    for path, name in standard_library_sources(folder):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            text = " ".join((ast.get_docstring(node) or "").lower().split())
            given = node.args
            listed = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            parameters = {a.arg.lower() for a in listed} - {"self", "cls"}
            if len(text) >= 40 and parameters:
                found.setdefault(text, (text, frozenset(parameters), name))
    return tuple(found.values())


WORD = re.compile(r"[a-z_][a-z_0-9]*")
CONSTANTS = {"true", "false", "none"}
EXCEPTIONS = {
    name.lower()
    for name in dir(builtins)
    if isinstance(getattr(builtins, name), type)
    and issubclass(getattr(builtins, name), BaseException)
}


def tags(text: str, parameters: Iterable[str]) -> list[tuple[int, int, str]]:
    """(begin, end, tag) of every word in a text in lower case.

    >>> tags("raise typeerror if x is none", {"x"})[1:4]
    [(6, 15, 'exception'), (16, 18, 'O'), (19, 20, 'parameter')]
    """
    found = []
    for match in WORD.finditer(text):
        word = match[0]
        tag = "O"
        if word in parameters:
            tag = "parameter"
        elif word in CONSTANTS:
            tag = "constant"
        elif word in EXCEPTIONS:
            tag = "exception"
        found.append((*match.span(), tag))
    return found


def names(corpus: Corpus, *, num_labels: int = 24, count: int = 1500) -> Task:
    """[CLS] docstring [SEP] → a tag for each word. Score: F1 of the tagged words.

    A word's label stands at its first character. Training texts are from the modules of
    `modules`, held-out texts from all others, so that pre-training has seen none of them; texts
    without a tagged word that fits are left out. At most `count` of each, chosen by their hash.
    """
    known = set(docstrings(num_labels=num_labels).names)
    folder = Path(sysconfig.get_path("stdlib"))
    sides: tuple[list, list] = ([], [])
    for text, parameters, module in sorted(_functions(folder), key=lambda x: draw_by_hash(0, x[0])):
        spans = [s for s in tags(text, parameters) if s[1] <= corpus.length - 2]
        if any(tag != "O" for *_, tag in spans):
            sides[module not in known].append((text, spans))
    both = []
    for side in sides:
        chosen = side[:count]
        ids, segments = pack(corpus, [text for text, _ in chosen])
        labels = torch.full_like(ids, -100)
        for row, (_, spans) in enumerate(chosen):
            for begin, _, tag in spans:
                labels[row, begin + 1] = TAGS.index(tag)  # [CLS] stands before the text
        both += [ids, segments, labels]
    # The baseline remembers what each word mostly was.
    memory: dict[str, Counter] = {}
    for text, spans in sides[0][:count]:
        for begin, end, tag in spans:
            memory.setdefault(text[begin:end], Counter())[tag] += 1
    said, true = [], []
    for text, spans in sides[1][:count]:
        for begin, end, tag in spans:
            seen = memory.get(text[begin:end])
            said.append(TAGS.index(seen.most_common(1)[0][0]) if seen else 0)
            true.append(TAGS.index(tag))
    score = f1(torch.tensor(said), torch.tensor(true))
    return Task("token", len(TAGS), *both, score, "the tag that the word mostly has in training")


def f1(said: Tensor, true: Tensor) -> float:
    """2 PR/(P + R) of the labels that are not 0, with precision P and recall R; 0 if none hits.

    >>> f1(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2]))  # P = 2/3, R = 2/3
    0.6666666666666666
    """
    hits = ((said == true) & (true != 0)).sum().item()
    return 2 * hits / max(1, ((said != 0).sum() + (true != 0).sum()).item())


PARTS = ("day", "month", "year")
LOCALES = ("en_US", "en_GB")
FORMATS = ("full", "long", "medium")


def date_question(rng: random.Random) -> tuple[str, str, tuple[int, int]]:
    """A question, a text with two dates, and (begin, end) of the answer in the text.

    >>> question, text, (begin, end) = date_question(random.Random(0))
    >>> print(question, text, text[begin:end], sep=" | ")
    last month? | 19 august 1983 until 31 january 1985 | january
    """
    from babel.dates import format_date

    locale, form = rng.choice(LOCALES), rng.choice(FORMATS)
    first = datetime.date(1980, 1, 1) + datetime.timedelta(rng.randrange(20_000))
    both = (first, first + datetime.timedelta(rng.randrange(1, 2000)))
    which, part = rng.randrange(2), rng.choice(PARTS)
    shown = [format_date(day, form, locale=locale).lower() for day in both]
    joint = rng.choice((" to ", " until ", " - "))
    text = shown[0] + joint + shown[1]
    begin = 0 if which == 0 else len(shown[0] + joint)
    # Where in the date the part stands: the month is the word that is no weekday.
    pattern = {"day": r"\b\d{1,2}\b", "month": MONTHS, "year": r"\b\d{4}\b"}[part]
    match = re.search(pattern, shown[which])
    question = f"{('first', 'last')[which]} {part}?"
    return question, text, (begin + match.start(), begin + match.end())


MONTHS = r"\b(" + "|".join(m.lower() for m in calendar.month_name[1:]) + r"|[a-z]{3,4})\b"


def dates(corpus: Corpus, *, count: int = 1000, held_out: int = 1000, seed: int = 0) -> Task:
    """[CLS] question [SEP] two dates [SEP] → where the answer begins and ends. Score: exact match.

    Training and held-out texts are different draws; a pair of dates that stands on both sides would
    be a coincidence of one in ten million.
    """
    rng = random.Random(seed)
    both = []
    for size in (count, held_out):
        drawn = [date_question(rng) for _ in range(size)]
        questions, texts, spans = zip(*drawn, strict=True)
        ids, segments = pack(corpus, questions, texts)
        start = torch.tensor([len(q) + 2 for q in questions])  # behind [CLS], question, [SEP]
        span = torch.tensor(spans) + start.unsqueeze(1)
        span[:, 1] -= 1  # the last position, not the one behind it
        both += [ids, segments, span]
    constant = Counter(map(tuple, both[2].tolist()))
    (best, _), *_ = constant.most_common()
    score = (both[5] == torch.tensor(best)).all(-1).double().mean().item()
    return Task("span", 2, *both, score, "the most frequent place of the answer")


# Fine-tuning


class FineTuned(nn.Module):
    """A pre-trained encoder and one new linear map, trained together.

    "text": pooled [CLS] to (B, classes); "token": every hidden vector to (B, n, classes); "span":
    every hidden vector to two numbers, (B, n, 2), which compete along n, within the second segment.
    """

    def __init__(self, bert: BERT, kind: str, classes: int) -> None:
        super().__init__()
        if kind not in ("text", "token", "span"):
            raise ValueError(f"kind: expected 'text', 'token' or 'span', got {kind!r}")
        self.bert, self.kind = bert, kind
        self.head = nn.Linear(bert.config.d_model, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        hidden = self.bert.encode(ids, attention_mask=ids != PAD, token_type_ids=segments)
        if self.kind == "text":
            return self.head(self.bert.pool(hidden))
        logits = self.head(hidden)
        if self.kind == "span":
            inside = (segments == 1) & (ids != SEP)
            logits = logits.masked_fill(~inside.unsqueeze(-1), -1e9)
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy; of a span, the mean of those of its first and its last position."""
        if self.kind == "span":
            return F.cross_entropy(logits, labels)  # classes are positions: (B, n, 2), (B, 2)
        return masked_lm_loss(logits, labels)


def fine_tune(
    model: BERT,
    task: Task,
    *,
    steps: int,
    seed: int,
    batch: int = 32,
    learning_rate: float = 2e-3,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> tuple[FineTuned, float]:
    """Train a copy of the model and a new head on a task; return it and its held-out score."""
    seed_everything(seed)
    rng = torch.Generator().manual_seed(seed)
    device = model.pooler.weight.device
    tuned = FineTuned(_copy(model), task.kind, task.classes).to(device)

    def batch_loss(step: int) -> Tensor:
        rows = torch.randint(len(task.ids), (batch,), generator=rng)
        logits = tuned(task.ids[rows].to(device), task.segments[rows].to(device))
        return tuned.loss(logits, task.labels[rows].to(device))

    fit(tuned, batch_loss, steps=steps, learning_rate=learning_rate, progress=progress)
    return tuned.eval(), score(tuned, task)


@torch.no_grad()
def score(tuned: FineTuned, task: Task) -> float:
    """Held-out accuracy ("text"), F1 of tagged words ("token"), exact match ("span")."""
    device = next(tuned.parameters()).device
    parts = zip(task.held_out_ids.split(250), task.held_out_segments.split(250), strict=True)
    logits = torch.cat([tuned(x.to(device), s.to(device)).cpu() for x, s in parts])
    labels = task.held_out_labels
    if task.kind == "token":
        chosen = labels != -100
        return f1(logits.argmax(-1)[chosen], labels[chosen])
    if task.kind == "span":
        return (spans(logits) == labels).all(-1).double().mean().item()
    return (logits.argmax(-1) == labels).double().mean().item()


def spans(logits: Tensor) -> Tensor:
    """The best first and last position, with first ≤ last: (B, n, 2) to (B, 2).

    The sum of the two logits is largest there among all pairs in order.

    >>> spans(torch.tensor([[[0.0, 9.0], [5.0, 0.0], [0.0, 6.0]]]))
    tensor([[1, 2]])
    """
    sums = logits[..., 0].unsqueeze(2) + logits[..., 1].unsqueeze(1)  # (B, first, last)
    n = logits.shape[1]
    allowed = torch.ones(n, n, dtype=torch.bool, device=logits.device).triu()
    best = sums.masked_fill(~allowed, -math.inf).flatten(1).argmax(-1)
    return torch.stack([best // n, best % n], dim=-1)
