"""lib.tokenization held to its contract, on real text; transformers' BERT tokenizer beside it."""

import doctest
import json

import pytest
import tokenizers
import torch

from lib import tokenization
from lib.checkpoints import CheckpointError
from lib.data import topics_paragraphs
from lib.models.bert import BERT, BERTConfig
from lib.tokenization import SPECIAL_TOKENS, Tokenizer, train_wordpiece
from tests.models import parity

TEXTS = topics_paragraphs()[:400]
PAD, UNK, CLS, SEP, MASK = range(5)


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece(TEXTS, 1500)


def vocabulary(tokenizer):
    return tokenizer.tokens(range(len(tokenizer)))


def test_docstrings():
    assert doctest.testmod(tokenization).failed == 0


# Training


def test_the_vocabulary(tokenizer):
    pieces = vocabulary(tokenizer)
    assert len(pieces) == len(set(pieces)) == len(tokenizer) == 1500
    assert tuple(pieces[:5]) == SPECIAL_TOKENS
    assert {"the", "##ing", "##s", "a", "##a"} <= set(pieces)
    assert all(piece == piece.lower() for piece in pieces[5:])
    assert tokenizer.special_token_ids == (PAD, UNK, CLS, SEP, MASK)
    assert tokenizer.mask_token_id == MASK == tokenizer.id("[MASK]")


def test_training_repeats(tokenizer):
    """Five times, as the library's own training differs nearly every time: see below."""
    want = tokenizer.backend.to_str()
    for _ in range(5):
        assert train_wordpiece(iter(TEXTS), 1500).backend.to_str() == want


def test_the_library_alone_does_not_repeat():
    """Why `train_wordpiece` numbers the characters. Once this fails, it need not any more."""

    def train():
        backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=1500, show_progress=False)
        backend.train_from_iterator(TEXTS, trainer)
        return json.dumps(backend.get_vocab(), sort_keys=True)

    assert len({train() for _ in range(8)}) > 1


def test_more_text_than_words(tokenizer):
    """The vocabulary may be smaller than asked for, where no pair is left."""
    small = train_wordpiece(["to be or not to be"], 1000)
    assert vocabulary(small)[:5] == list(SPECIAL_TOKENS)
    assert "to" in vocabulary(small) and "or" not in vocabulary(small)  # once is not enough
    assert "or" in vocabulary(train_wordpiece(["to be or not to be"], 1000, min_frequency=1))
    assert len(small) < 40


def test_case_and_accents():
    texts = ["Éloge de la Folie"] * 3
    lower, cased = train_wordpiece(texts, 60), train_wordpiece(texts, 60, lowercase=False)
    assert lower.decode(lower.encode("Éloge")) == "eloge"
    assert cased.decode(cased.encode("Éloge")) == "Éloge"


def test_a_vocabulary_without_room():
    with pytest.raises(ValueError, match=r"^vocab_size: expected an integer of at least 9, the sp"):
        train_wordpiece(["abab"], 8)
    assert vocabulary(train_wordpiece(["abab"], 9))[5:] == ["a", "b", "##a", "##b"]
    with pytest.raises(ValueError, match=r"^vocab_size: .*, got 9.0"):
        train_wordpiece(["abab"], 9.0)


# There and back


def test_words_come_back(tokenizer):
    for text in TEXTS[:50]:
        ids = tokenizer.encode(text)
        assert (ids[0], ids[-1]) == (CLS, SEP) and UNK not in ids
        got = "".join(tokenizer.decode(ids).split())
        assert got == "".join(text.lower().split())


def test_unknown_characters(tokenizer):
    assert tokenizer.tokens(tokenizer.encode("the ☃")) == ["[CLS]", "the", "[UNK]", "[SEP]"]
    assert tokenizer.decode(tokenizer.encode("the ☃")) == "the"


def test_special_tokens_in_a_text_are_special(tokenizer):
    ids = tokenizer.encode("the [MASK] is")
    assert ids[2] == MASK
    assert tokenizer.tokens(torch.tensor(ids)) == ["[CLS]", "the", "[MASK]", "is", "[SEP]"]


def test_pairs(tokenizer):
    a, b = tokenizer.encode("the name"), tokenizer.encode("a value")
    assert tokenizer.encode("the name", "a value") == a + b[1:]


def test_a_batch(tokenizer):
    batch = tokenizer(TEXTS[:3], TEXTS[3:6])
    n = max(len(tokenizer.encode(*pair)) for pair in zip(TEXTS[:3], TEXTS[3:6], strict=True))
    for row, (a, b) in enumerate(zip(TEXTS[:3], TEXTS[3:6], strict=True)):
        ids, first = tokenizer.encode(a, b), len(tokenizer.encode(a))
        padding = n - len(ids)
        assert batch["input_ids"][row].tolist() == ids + [PAD] * padding
        assert batch["attention_mask"][row].tolist() == [1] * len(ids) + [0] * padding
        types = [0] * first + [1] * (len(ids) - first) + [0] * padding
        assert batch["token_type_ids"][row].tolist() == types
    assert {name: x.dtype for name, x in batch.items()} == dict.fromkeys(batch, torch.int64)
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids"]


def test_a_batch_is_what_a_model_takes(tokenizer):
    config = BERTConfig(len(tokenizer), d_model=9, num_layers=1, num_heads=3, d_ff=5, max_length=16)
    mlm, nsp = BERT(config)(**tokenizer(TEXTS[:3], TEXTS[3:6], max_length=16))
    assert mlm.shape == (3, 16, 1500) and nsp.shape == (3, 2)


def test_cut_to_a_length(tokenizer):
    long, short = TEXTS[0], "the name"
    batch = tokenizer([long, short], max_length=7)
    assert batch["input_ids"].shape == (2, 7)
    assert batch["input_ids"][0].tolist() == [*tokenizer.encode(long)[:6], SEP]
    assert batch["input_ids"][1].tolist()[:4] == tokenizer.encode(short)
    pair = tokenizer([long], [short], max_length=10)["input_ids"][0].tolist()
    assert pair[-3:] == tokenizer.encode(short)[1:]  # the longer of the two is cut
    assert len(tokenizer.encode(long)) > 10  # and the cut is for that call alone
    assert tokenizer([long])["input_ids"].shape[1] == len(tokenizer.encode(long))


# Files


def test_what_is_saved_is_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "new")
    loaded = Tokenizer.from_pretrained(tmp_path / "new")
    assert loaded.backend.to_str() == tokenizer.backend.to_str()
    assert loaded.special_token_ids == tokenizer.special_token_ids
    tokenizer.save_pretrained(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tokenizer.json"]


def test_a_file_that_pads_and_cuts_does_neither_here(tokenizer, tmp_path):
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.enable_padding(length=50)
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_transformers_reads_it_and_cuts_alike(tokenizer, tmp_path):
    """Its BERT tokenizer, from our vocabulary alone, gives our ids."""
    library = parity.transformers()
    theirs = library.BertTokenizer(vocab=tokenizer.backend.get_vocab())
    for text in TEXTS[:50]:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
    got = theirs(TEXTS[:3], TEXTS[3:6], padding=True, max_length=40, truncation=True)
    want = tokenizer(TEXTS[:3], TEXTS[3:6], max_length=40)
    for name, values in want.items():
        assert got[name] == values.tolist(), name

    theirs.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


@pytest.mark.parametrize("content", ["", "{}", "[1]", "3"])
def test_files_that_are_no_tokenizer(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"^tokenizer.json: expected JSON with a \"model\""):
        Tokenizer.from_pretrained(tmp_path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a file tokenizer.json, found none"):
        Tokenizer.from_pretrained(tmp_path)


# Errors


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda t: t.decode([5, 1500]), "ids: expected integers from 0 to 1499, got 1500"),
        (lambda t: t.tokens([-1]), "ids: expected integers from 0 to 1499, got -1"),
        (lambda t: t.decode(torch.tensor([0.5])), "ids: expected integers from 0 to 1499, got 0.5"),
        (lambda t: t.id("zebra"), "token: expected one of the vocabulary, got 'zebra'"),
        (lambda t: t([]), r"texts: expected a sequence of at least one text, got \[\]"),
        (lambda t: t("a text"), "texts: expected a sequence of at least one text, got 'a text'"),
        (lambda t: t(["a", "b"], ["c"]), r"pairs: expected 2 texts, got \['c'\]"),
        (lambda t: t(["a"], max_length=2), "max_length: expected an integer of at least 3, got 2"),
        (lambda t: t(["a"], ["b"], max_length=4), "max_length: expected an integer of at least 5"),
    ],
)
def test_refuses(tokenizer, call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call(tokenizer)
