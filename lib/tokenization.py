"""Text to ids and back, in pieces of words: trained on any text, or read from a checkpoint.

Used from chapter 11_bert on. The work is done by Hugging Face's `tokenizers`; this is the little
around it: training that gives the same vocabulary every time, and batches as our models take them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from lib.checkpoints import CheckpointError, find_file

__all__ = ["SPECIAL_TOKENS", "Tokenizer", "train_wordpiece"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # their ids are 0 … 4


class Tokenizer:
    """A vocabulary, with the rules that cut a text into pieces of it.

    `train_wordpiece(texts, vocab_size)` makes one; `Tokenizer.from_pretrained(folder_or_repo_id)`
    reads `tokenizer.json`, BERT's or that of any other family.

    Attributes: `backend`, the library's own object; `special_token_ids`, a tuple.

    >>> tokenizer = train_wordpiece(["the cat sat", "the cat ran"] * 2, vocab_size=40)
    >>> tokenizer.tokens(tokenizer.encode("the cats"))
    ['[CLS]', 'the', 'cat', '##s', '[SEP]']
    >>> batch = tokenizer(["the cat", "cat"], ["ran", "sat"])
    >>> batch["token_type_ids"]
    tensor([[0, 0, 0, 0, 1, 1],
            [0, 0, 0, 1, 1, 0]])
    >>> tokenizer.decode(batch["input_ids"][0])
    'the cat ran'
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_padding()  # a file may ask for either; here the call says
        backend.no_truncation()
        self.backend = backend
        added = backend.get_added_tokens_decoder()
        self.special_token_ids = tuple(sorted(i for i, token in added.items() if token.special))

    def __len__(self) -> int:
        """V, the number of ids."""
        return self.backend.get_vocab_size()

    @property
    def mask_token_id(self) -> int:
        """The id of [MASK]. ValueError if there is none."""
        return self.id("[MASK]")

    def id(self, token: str) -> int:
        """The id of a token. ValueError for one that is not in the vocabulary."""
        found = self.backend.token_to_id(token)
        if found is None:
            raise ValueError(f"token: expected one of the vocabulary, got {token!r}")
        return found

    def encode(self, text: str, pair: str | None = None) -> list[int]:
        """Ids of [CLS] text [SEP], or of [CLS] text [SEP] pair [SEP]; as the file says, if read."""
        return self.backend.encode(text, pair).ids

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """The text of ids (n,) without special tokens; spaces and case are not what they were.

        ValueError for an id that is not in the vocabulary.
        """
        return self.backend.decode(self._checked(ids))

    def tokens(self, ids: Tensor | Iterable[int]) -> list[str]:
        """The pieces that ids (n,) stand for, special tokens among them; "##" continues a word."""
        return [self.backend.id_to_token(i) for i in self._checked(ids)]

    def __call__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """Encode a batch, padded to its longest: `model(**tokenizer(texts))`.

        max_length : ids in a row at most; of a pair the longer text is cut first

        Returns input_ids, attention_mask (0 = padding) and token_type_ids (0 = text and padding,
        1 = pair), each (B, n) int64. DistilBERT takes no token_type_ids.

        ValueError for no texts, for as many pairs as texts not given, or for a `max_length` that
        leaves no room for text.
        """
        if isinstance(texts, str) or len(texts) == 0:
            raise ValueError(f"texts: expected a sequence of at least one text, got {texts!r}")
        if pairs is not None and (isinstance(pairs, str) or len(pairs) != len(texts)):
            raise ValueError(f"pairs: expected {len(texts)} texts, got {pairs!r}")
        if max_length is not None:
            least = self.backend.num_special_tokens_to_add(pairs is not None) + 1 + bool(pairs)
            if not isinstance(max_length, int) or max_length < least:
                raise ValueError(
                    f"max_length: expected an integer of at least {least}, got {max_length!r}"
                )
            self.backend.enable_truncation(max_length)
        try:
            inputs = texts if pairs is None else zip(texts, pairs, strict=True)
            rows = self.backend.encode_batch(list(inputs))
        finally:
            self.backend.no_truncation()

        n = max(len(row.ids) for row in rows)
        pad = self.backend.token_to_id("[PAD]") or 0
        columns = {
            "input_ids": [row.ids + [pad] * (n - len(row.ids)) for row in rows],
            "attention_mask": [[1] * len(row.ids) + [0] * (n - len(row.ids)) for row in rows],
            "token_type_ids": [row.type_ids + [0] * (n - len(row.ids)) for row in rows],
        }
        return {name: torch.tensor(values) for name, values in columns.items()}

    @classmethod
    def from_pretrained(
        cls, folder_or_repo_id: str | os.PathLike, revision: str | None = None
    ) -> Tokenizer:
        """Read `tokenizer.json` from a folder or the Hub; errors as in `lib.checkpoints`."""
        text = find_file(folder_or_repo_id, "tokenizer.json", revision).read_text(encoding="utf-8")
        try:
            has_model = "model" in json.loads(text)
        except (json.JSONDecodeError, TypeError):
            has_model = False
        if not has_model:
            raise CheckpointError('tokenizer.json: expected JSON with a "model", found none')
        return cls(tokenizers.Tokenizer.from_str(text))

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `tokenizer.json` into a folder, at once or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch) / "tokenizer.json"
            path.write_text(self.backend.to_str(pretty=True), encoding="utf-8")
            path.replace(folder / "tokenizer.json")

    def _checked(self, ids: Tensor | Iterable[int]) -> list[int]:
        numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        for number in numbers:
            if not isinstance(number, int) or not 0 <= number < len(self):
                raise ValueError(f"ids: expected integers from 0 to {len(self) - 1}, got {number}")
        return numbers


def train_wordpiece(
    texts: Iterable[str], vocab_size: int, *, lowercase: bool = True, min_frequency: int = 2
) -> Tokenizer:
    """Learn a vocabulary of pieces of words from texts, as BERT has it.

    It begins with the special tokens and every character of the texts, as the beginning of a word
    and as its continuation, and grows by joining the two pieces that stand side by side most often,
    until it has `vocab_size` or no pair is left that occurs `min_frequency` times. A word is then
    cut greedily: the longest piece that begins it, and so on. A word with a character that is not
    in the texts is one [UNK].

    The same texts give the same vocabulary, id for id, in every run. The library's own training
    does not: it numbers characters in the order of a hash table, and breaks ties by number.

    ValueError if `vocab_size` has no room for the special tokens and the characters.

    Source: Schuster & Nakajima 2012, "Japanese and Korean Voice Search"; Wu et al. 2016,
    arXiv:1609.08144, section 4.1; the joining is that of Sennrich et al. 2016, arXiv:1508.07909,
    section 3.2. Deviation, the library's: pairs are joined by their count, where the first two
    papers join what makes the text most likely.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    splitter = pre_tokenizers.BertPreTokenizer()
    texts = list(texts)
    alphabet = sorted(
        {
            character
            for text in texts
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
            for character in word
        }
    )
    characters = [*alphabet, *(f"##{character}" for character in alphabet)]
    least = len(SPECIAL_TOKENS) + len(characters)
    if not isinstance(vocab_size, int) or vocab_size < least:
        raise ValueError(
            f"vocab_size: expected an integer of at least {least}, the special tokens and the "
            f"characters of the texts, got {vocab_size!r}"
        )
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, splitter
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *characters],  # they are numbered first, in this order
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)

    # The characters were special for the trainer only; the tokenizer is made afresh.
    backend = tokenizers.Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    backend.decoder = decoders.WordPiece()
    return Tokenizer(backend)
