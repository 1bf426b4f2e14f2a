"""Longformer: an encoder for long documents, in which a token sees a window and a few see all.

Source: Beltagy, Peters & Cohan 2020, "Longformer: The Long-Document Transformer",
arXiv:2004.05150, sections 3.1 (attention) and 5 (pre-training, from RoBERTa's weights).
Derived in chapter 09_sliding_window.

Deviations: attention looks at each block's neighbours as it is, where the official code pads the
sequence to a multiple of the window and cuts it again, which changes no logit; dilation, which the
paper's encoder does without and official checkpoints cannot say, is not an option. As in the
official code: positions are counted from the padding id on, over the tokens that are no padding
token, and a padding token has the vector of the padding id; all tokens are of segment 0; the head
has GELU always.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.checkpoints import Pretrained
from lib.layers import EncoderLayer, initialise
from lib.models.bert import BERTConfig, Embeddings, MaskedLMHead
from lib.models.layouts import LONGFORMER_LAYOUT
from lib.sliding_window import SlidingWindowAttention
from lib.validation import require_sizes, require_tokens


@dataclass(frozen=True)
class LongformerConfig(BERTConfig):
    """Sizes and options; the defaults are longformer-base-4096. ValueError as in `BERTConfig`.

    window : even int ≥ 2, or one for each layer
        w, of which half is on each side.
    pad_token_id : int ≥ 0
        The token of padding; max_length counts it and all below, so that the longest sequence has
        max_length − pad_token_id − 1 tokens.
    """

    vocab_size: int = 50265
    max_length: int = 4098
    num_segments: int = 1
    eps: float = 1e-5
    window: int | tuple[int, ...] = 512
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(self, "num_segments")
        require_sizes(self, "pad_token_id", least=0)
        if isinstance(self.window, list):  # as JSON has it
            object.__setattr__(self, "window", tuple(self.window))
        if len(self.windows) != self.num_layers:
            raise ValueError(
                f"window: expected one, or {self.num_layers} of them, got {self.window!r}"
            )
        for window in self.windows:
            if not isinstance(window, int) or isinstance(window, bool) or window < 2 or window % 2:
                raise ValueError(f"window: expected even integers of at least 2, got {window!r}")
        if self.longest < 1:
            raise ValueError(
                f"max_length: expected more than pad_token_id + 1 = {self.pad_token_id + 1}, "
                f"got {self.max_length}"
            )

    @property
    def windows(self) -> tuple[int, ...]:
        """The window of each layer."""
        return self.window if isinstance(self.window, tuple) else (self.window,) * self.num_layers

    @property
    def longest(self) -> int:
        """How many tokens a sequence may have."""
        return self.max_length - self.pad_token_id - 1


class LongformerEmbeddings(Embeddings):
    """As BERT's, with the place of a token counted over those that are no padding."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__(config)
        self.pad_token_id = config.pad_token_id

    def forward(self, input_ids: Tensor) -> Tensor:
        real = (input_ids != self.pad_token_id).long()
        place = self.pad_token_id + real * real.cumsum(dim=1)  # (B, n): padding has its own id
        x = self.word(input_ids) + F.embedding(place, self.position.weight)
        x = self.norm(x + self.segment.weight[0])
        return F.dropout(x, self.dropout, self.training)


class Longformer(Pretrained):
    """An encoder with windows, and the head that names hidden words.

    Attributes: `config`, `embeddings`, `layers`, `head`. A layer is `lib.layers.EncoderLayer` with
    another `attention`, a `SlidingWindowAttention`.

    `Longformer.from_pretrained(folder_or_repo_id)` loads an official checkpoint; see
    `lib.checkpoints`.

    >>> config = LongformerConfig(
    ...     vocab_size=50, d_model=12, num_layers=2, num_heads=3, d_ff=48, max_length=70, window=4
    ... )
    >>> Longformer(config)(torch.randint(50, (2, 61))).shape
    torch.Size([2, 61, 50])
    """

    config_class, layout = LongformerConfig, LONGFORMER_LAYOUT

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = LongformerEmbeddings(config)
        self.layers = torch.nn.ModuleList()
        for window in config.windows:
            layer = EncoderLayer(
                config.d_model,
                config.num_heads,
                config.d_ff,
                dropout=config.dropout,
                activation=config.activation,
                eps=config.eps,
            )
            layer.attention = SlidingWindowAttention(
                config.d_model, config.num_heads, window, dropout=config.attention_dropout
            )
            self.layers.append(layer)
        self.head = MaskedLMHead(config, "gelu")
        initialise(self, config.init_std)
        for layer in self.layers:
            layer.attention.copy_to_global()

    def forward(
        self, input_ids: Tensor, *, attention_mask=None, global_attention_mask=None
    ) -> Tensor:
        """(B, n) ids to logits (B, n, V).

        input_ids : (B, n), int64 or int32, n ≤ max_length − pad_token_id − 1
        attention_mask : (B, n), boolean or integer, 0 = padding, which nobody attends to
        global_attention_mask : (B, n), boolean or integer, 0 = a window, else = a global token

        A token that is padding is never global. Time and memory are O(n · (w + g)) for g global
        tokens; their number is read from the device in each layer.

        ValueError for a wrong shape, dtype or device, TypeError for no tensor; an id that is not
        in its table is torch's IndexError.
        """
        hidden = self.encode(
            input_ids, attention_mask=attention_mask, global_attention_mask=global_attention_mask
        )
        return self.mlm_logits(hidden)

    def encode(
        self, input_ids: Tensor, *, attention_mask=None, global_attention_mask=None
    ) -> Tensor:
        """The hidden vectors (B, n, d_model) of the last layer; arguments as in `forward`."""
        require_tokens(
            input_ids, attention_mask=attention_mask, global_attention_mask=global_attention_mask
        )
        if input_ids.shape[1] > self.config.longest:
            raise ValueError(
                f"input_ids: expected at most max_length - pad_token_id - 1 = "
                f"{self.config.longest} tokens, got {input_ids.shape[1]}"
            )
        mask = None if attention_mask is None else attention_mask != 0
        if global_attention_mask is not None:
            mask = torch.ones_like(input_ids) if mask is None else mask.long()
            mask = mask * (1 + (global_attention_mask != 0).long())  # 0 padding, 1 window, 2 global
        x = self.embeddings(input_ids)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def mlm_logits(self, hidden: Tensor) -> Tensor:
        """Hidden vectors (..., d_model), all or some, to logits (..., V)."""
        return self.head(hidden, self.embeddings.word.weight)
