"""BERT: an encoder that reads a text whole, trained to fill in hidden words.

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv:1810.04805, sections 3 and A.2. What the paper leaves open is as in the
released code and checkpoints: ε = 1e-12, a transform before the output words, output words tied to
the input words, initial weights N(0, .02) (there cut off at two standard deviations).
Derived in chapter 11_bert. ELECTRA (13_replaced_token_detection) and DistilBERT (14_distillation)
are made of these parts; where they differ from BERT, an option of `BERTConfig` says how.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.checkpoints import Pretrained
from lib.layers import ACTIVATIONS, EncoderLayer, LayerNorm, initialise
from lib.models.layouts import BERT_LAYOUT
from lib.positions import LearnedEncoding
from lib.validation import require_choice, require_numbers, require_sizes, require_tokens


@dataclass(frozen=True)
class BERTConfig:
    """Sizes and options; the defaults are BERT-base. ValueError for values that make no model."""

    vocab_size: int = 30522
    d_model: int = 768
    num_layers: int = 12
    num_heads: int = 12
    d_ff: int = 3072
    max_length: int = 512
    num_segments: int = 2  # 0: no segments, as in DistilBERT
    d_embedding: int | None = None  # features of the word vectors, as in ELECTRA; None: d_model
    activation: str = "gelu"
    dropout: float = 0.1  # on the embeddings and on each sublayer's output
    attention_dropout: float = 0.1
    eps: float = 1e-12
    init_std: float = 0.02

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "num_layers", "num_heads", "d_ff", "max_length")
        require_sizes(self, *sizes, *(("d_embedding",) if self.d_embedding is not None else ()))
        require_sizes(self, "num_segments", least=0)
        require_numbers(self, "dropout", "attention_dropout", below=1.0)
        require_numbers(self, "eps", "init_std")
        require_choice(self, "activation", ACTIVATIONS)
        if self.d_model % self.num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of d_model = {self.d_model}, got {self.num_heads}"
            )

    @property
    def width(self) -> int:
        """Features of the embeddings: d_embedding, or d_model where that is None."""
        return self.d_model if self.d_embedding is None else self.d_embedding


class Embeddings(nn.Module):
    """Sum what a token is by itself (its word, its place, its segment), then normalise."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.word = nn.Embedding(config.vocab_size, config.width)
        self.position = LearnedEncoding(config.max_length, config.width, std=config.init_std)
        self.segment = None
        if config.num_segments:
            self.segment = nn.Embedding(config.num_segments, config.width)
        self.norm = LayerNorm(config.width, config.eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        x = self.position(self.word(input_ids))  # (B, n, width)
        if self.segment is not None:
            first = self.segment.weight[0]  # where nothing is said, all is the first segment
            x = x + (first if token_type_ids is None else self.segment(token_type_ids))
        elif token_type_ids is not None:
            raise ValueError("token_type_ids: expected None, as this model has no segments")
        return F.dropout(self.norm(x), self.dropout, self.training)


class Encoder(nn.Module):
    """Embeddings, then a stack of post-norm layers: (B, n) ids to hidden (B, n, d_model)."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.projection = None
        if config.width != config.d_model:
            self.projection = nn.Linear(config.width, config.d_model)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.d_model,
                config.num_heads,
                config.d_ff,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation=config.activation,
                eps=config.eps,
            )
            for _ in range(config.num_layers)
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
    ) -> Tensor:
        require_tokens(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        x = self.embeddings(input_ids, token_type_ids)
        if self.projection is not None:
            x = self.projection(x)  # (B, n, d_model)
        # (B, 1, n): no query of a sequence may attend to its padding.
        mask = None if attention_mask is None else (attention_mask != 0).unsqueeze(1)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class MaskedLMHead(nn.Module):
    """Hidden vectors (..., d_model) to logits (..., V): a transform, then each word's vector."""

    def __init__(self, config: BERTConfig, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.transform = nn.Linear(config.d_model, config.width)
        self.norm = LayerNorm(config.width, config.eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        hidden = self.norm(ACTIVATIONS[self.activation](self.transform(hidden)))  # (..., width)
        return F.linear(hidden, words, self.bias)  # words (V, width): those of the embeddings


class MaskedLM(Pretrained):
    """An encoder with the head that names hidden words: BERT without what it adds below."""

    config_class = BERTConfig

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head = MaskedLMHead(config, config.activation)
        initialise(self, config.init_std)

    def forward(self, input_ids: Tensor, *, attention_mask=None, token_type_ids=None):
        """(B, n) ids to logits (B, n, V); arguments and errors as in `BERT.forward`."""
        return self.mlm_logits(self.encoder(input_ids, attention_mask, token_type_ids))

    def encode(self, input_ids: Tensor, *, attention_mask=None, token_type_ids=None) -> Tensor:
        """The hidden vectors (B, n, d_model) of the last layer; arguments as in `forward`."""
        return self.encoder(input_ids, attention_mask, token_type_ids)

    def mlm_logits(self, hidden: Tensor) -> Tensor:
        """Hidden vectors (..., d_model), all or some, to logits (..., V)."""
        return self.head(hidden, self.encoder.embeddings.word.weight)


class BERT(MaskedLM):
    """An encoder with two heads: hidden words (MLM), and does B follow A (NSP).

    Attributes: `config`, `encoder` (`embeddings`, `layers`), `head`, `pooler`, `next_sentence`.

    `BERT.from_pretrained(folder_or_repo_id)` loads an official checkpoint with both heads; see
    `lib.checkpoints`.

    >>> config = BERTConfig(vocab_size=50, d_model=12, num_layers=2, num_heads=3, d_ff=48)
    >>> mlm_logits, nsp_logits = BERT(config)(torch.randint(50, (2, 7)))
    >>> mlm_logits.shape, nsp_logits.shape
    (torch.Size([2, 7, 50]), torch.Size([2, 2]))
    """

    layout = BERT_LAYOUT

    def __init__(self, config: BERTConfig) -> None:
        super().__init__(config)
        self.pooler = nn.Linear(config.d_model, config.d_model)
        self.next_sentence = nn.Linear(config.d_model, 2)
        for linear in (self.pooler, self.next_sentence):
            initialise(linear, config.init_std)

    def forward(
        self, input_ids: Tensor, *, attention_mask=None, token_type_ids=None
    ) -> tuple[Tensor, Tensor]:
        """Return (mlm logits (B, n, V), nsp logits (B, 2)); of the latter, column 0 = B follows A.

        input_ids : (B, n), int64 or int32, n ≤ max_length
        attention_mask : (B, n), boolean or integer, 0 = padding, which nobody attends to
        token_type_ids : (B, n), 0 = first segment, 1 = second; all 0 if left out

        ValueError for a wrong shape, dtype or device, TypeError for no tensor; an id that is not
        in its table is torch's IndexError.
        """
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        return self.mlm_logits(hidden), self.next_sentence(self.pool(hidden))

    def pool(self, hidden: Tensor) -> Tensor:
        """One vector (B, d_model) for each sequence: tanh of a linear map of its first token."""
        return torch.tanh(self.pooler(hidden[:, 0]))
