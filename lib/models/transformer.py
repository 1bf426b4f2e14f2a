"""The Transformer: an encoder reads, a decoder writes, and looks at what was read at every word.

Source: Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, sections 3 and 5.4.
Deviations: biases in attention, and what official Marian checkpoints (Junczys-Dowmunt et al. 2018,
"Marian: Fast Neural Machine Translation in C++", arXiv:1804.00344) have else: sines and cosines
one behind the other and not in turn, Swish for ReLU, a bias of the output words. The defaults are
the paper's base model with these biases; its layout of sines is the same up to a permutation of
features, which training cannot tell apart.
Derived in chapter 07_encoder_decoder. The loss is `lib.losses.label_smoothing_loss`;
`lib.generation` lets it speak.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.cache import KVCache
from lib.checkpoints import CheckpointError, Pretrained
from lib.layers import ACTIVATIONS, DecoderLayer, EncoderLayer
from lib.models.layouts import MARIAN_LAYOUT
from lib.positions import SinusoidalEncoding
from lib.validation import require_choice, require_numbers, require_sizes, require_tokens


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and options; the defaults are the paper's base model. ValueError where none is a model.

    What is None of the decoder is as in the encoder. Token ids are what `lib.generation` needs: the
    decoder first reads `start_token_id`, in Marian the padding token; None: pad_token_id.
    """

    vocab_size: int = 37000
    d_model: int = 512
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    num_decoder_heads: int | None = None
    d_ff: int = 2048
    d_decoder_ff: int | None = None
    max_length: int = 1024
    activation: str = "relu"
    scale_embedding: bool = True  # words times √d_model, before positions are added
    dropout: float = 0.1  # on each sublayer's output and on the sum of word and position
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float | None = None  # None: d_model^(−1/2) for words, Glorot's for maps
    eos_token_id: int | None = 0
    pad_token_id: int | None = 1
    start_token_id: int | None = None
    banned_token_ids: tuple[int, ...] = ()  # never written; of official checkpoints, padding

    def __post_init__(self) -> None:
        for ours, other in {
            "num_decoder_layers": self.num_layers,
            "num_decoder_heads": self.num_heads,
            "d_decoder_ff": self.d_ff,
            "start_token_id": self.pad_token_id,
        }.items():
            if getattr(self, ours) is None:
                object.__setattr__(self, ours, other)
        sizes = ("vocab_size", "d_model", "num_layers", "num_heads", "d_ff", "max_length")
        require_sizes(self, *sizes, "num_decoder_layers", "num_decoder_heads", "d_decoder_ff")
        require_numbers(self, "dropout", "attention_dropout", "activation_dropout", below=1.0)
        require_choice(self, "activation", ACTIVATIONS)
        if self.init_std is not None:
            require_numbers(self, "init_std")
        for name in ("num_heads", "num_decoder_heads"):
            if self.d_model % getattr(self, name):
                raise ValueError(
                    f"{name}: expected a divisor of d_model = {self.d_model}, "
                    f"got {getattr(self, name)}"
                )


class Transformer(Pretrained):
    """What is read, and what has been written so far, to logits of what is written next.

    Attributes: `config`, `word` (of both stacks, and of the output), `position`, `encoder` and
    `decoder` (lists of post-norm layers), `output_bias` (1, V), a buffer that is not trained.

    `Transformer.from_pretrained(folder_or_repo_id)` loads an official Marian checkpoint, such as
    "Helsinki-NLP/opus-mt-en-zh"; see `lib.checkpoints`.

    >>> config = TransformerConfig(vocab_size=50, d_model=12, num_layers=2, num_heads=3, d_ff=24)
    >>> Transformer(config)(torch.randint(50, (2, 7)), torch.randint(50, (2, 4))).shape
    torch.Size([2, 4, 50])
    """

    config_class, layout = TransformerConfig, MARIAN_LAYOUT

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.vocab_size, config.d_model)
        self.position = SinusoidalEncoding(config.d_model, config.max_length, layout="concatenated")
        options = {
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "activation_dropout": config.activation_dropout,
            "activation": config.activation,
        }
        self.encoder = nn.ModuleList(
            EncoderLayer(config.d_model, config.num_heads, config.d_ff, **options)
            for _ in range(config.num_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(config.d_model, config.num_decoder_heads, config.d_decoder_ff, **options)
            for _ in range(config.num_decoder_layers)
        )
        self.register_buffer("output_bias", torch.zeros(1, config.vocab_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Words N(0, 1/d_model), which times √d_model have size 1 and as output words too."""
        std = self.config.init_std
        nn.init.normal_(self.word.weight, std=self.config.d_model**-0.5 if std is None else std)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if std is None:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, m) and (B, n) ids to logits (B, n, V); those at position t are for the token t + 1.

        input_ids : (B, m), int64 or int32, what is read
        decoder_input_ids : (B, n), what was written: the start token, then the text without its
            last token. No mask: padding behind the text cannot be seen from it.
        attention_mask : (B, m), boolean or integer, 0 = padding of what is read

        ValueError for a wrong shape, dtype or device, TypeError for no tensor; an id that is not
        in its table is torch's IndexError. Longer texts than max_length are possible, as positions
        are computed.
        """
        memory = self.encode(input_ids, attention_mask=attention_mask)
        return self.decode(decoder_input_ids, memory, attention_mask=attention_mask)

    def encode(self, input_ids: Tensor, *, attention_mask: Tensor | None = None) -> Tensor:
        """What the decoder looks at: the memory (B, m, d_model)."""
        require_tokens(input_ids, attention_mask=attention_mask)
        x, mask = self._embed(input_ids, 0), _mask_of_keys(attention_mask)
        for layer in self.encoder:
            x = layer(x, mask)
        return x

    def decode(
        self,
        decoder_input_ids: Tensor,
        memory: Tensor,
        *,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits (B, n, V); with a `KVCache` the ids are those that it has not read."""
        require_tokens(decoder_input_ids, name="decoder_input_ids")
        x = self._embed(decoder_input_ids, 0 if cache is None else cache.length)
        for layer in self.decoder:
            x = layer(x, memory, memory_mask=_mask_of_keys(attention_mask), cache=cache)
        return F.linear(x, self.word.weight, self.output_bias.squeeze(0))

    def _config_to(self, dtype: torch.dtype) -> dict[str, Any]:
        theirs = super()._config_to(dtype)
        theirs["bad_words_ids"] = [[token] for token in self.config.banned_token_ids]
        return {k: v for k, v in theirs.items() if v or k not in ("bad_words_ids", "init_std")}

    @classmethod
    def _config_from(cls, theirs: Mapping[str, Any]) -> TransformerConfig:
        words = theirs.get("bad_words_ids") or []
        if any(len(word) != 1 for word in words):
            raise CheckpointError(f"config.json: bad_words_ids = {words} is not supported")
        return super()._config_from({**theirs, "bad_words_ids": tuple(word for [word] in words)})

    def _embed(self, ids: Tensor, start: int) -> Tensor:
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        x = self.position(self.word(ids) * scale, start)  # (B, n, d_model)
        return F.dropout(x, self.config.dropout, self.training)


def _mask_of_keys(attention_mask: Tensor | None) -> Tensor | None:
    """(B, 1, m): no query of a sequence may attend to padding of what is read."""
    return None if attention_mask is None else (attention_mask != 0).unsqueeze(1)
