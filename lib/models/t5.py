"""T5: an encoder and a decoder that read and write text, whatever the task, and know distances.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", arXiv:1910.10683, section 2.1. What the paper leaves open, and version 1.1 (gated
feed-forward layers, a head of its own, no dropout in pre-training), are as in the released code and
checkpoints: RMSNorm (ε = 1e-6) in front of each sublayer, no biases, logits of attention that are
not divided by √d, one table of distances a stack, none in cross-attention. With tied words
(version 1.0) the output is scaled by d_model^(−1/2).
Derived in chapter 08_relative_positions; the decoder in 07_encoder_decoder. `lib.generation` lets
it speak.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import causal_mask
from lib.cache import KVCache
from lib.checkpoints import Layout, Pretrained
from lib.layers import DecoderLayer, EncoderLayer, RMSNorm
from lib.models.layouts import t5_layout
from lib.positions import RelativePositionBias
from lib.validation import require_choice, require_numbers, require_sizes, require_tokens

# feed_forward, as official files name it: the activation, and whether there is a gate
FEED_FORWARD = {"relu": ("relu", False), "gated-gelu": ("gelu_tanh", True)}


@dataclass(frozen=True)
class T5Config:
    """Sizes and options; the defaults are T5-small, v1.0. ValueError where they make no model.

    Version 1.1 is feed_forward="gated-gelu", tied=False.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_head: int = 64  # num_heads · d_head need not be d_model
    num_layers: int = 6
    num_decoder_layers: int | None = None  # None: as many as num_layers
    num_heads: int = 8
    d_ff: int = 2048
    num_buckets: int = 32
    max_distance: int = 128
    feed_forward: str = "relu"
    tied: bool = True  # output words are the input words, and the output is scaled
    dropout: float = 0.1  # everywhere: embeddings, weights, hidden units, sublayers, last norms
    eps: float = 1e-6
    eos_token_id: int | None = 1
    pad_token_id: int | None = 0
    start_token_id: int | None = 0  # what the decoder reads first: padding

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "d_head", "num_layers", "num_heads", "d_ff")
        own = ("num_decoder_layers",) if self.num_decoder_layers is not None else ()
        require_sizes(self, *sizes, *own)
        require_numbers(self, "dropout", below=1.0)
        require_numbers(self, "eps")
        require_choice(self, "feed_forward", FEED_FORWARD)
        if not isinstance(self.tied, bool):
            raise ValueError(f"tied: expected True or False, got {self.tied!r}")


class Stack(nn.Module):
    """Pre-norm layers that share one table of distances, and a norm behind the last."""

    def __init__(self, config: T5Config, layer: type[EncoderLayer], num_layers: int) -> None:
        super().__init__()
        self.dropout, self.is_decoder = config.dropout, layer is DecoderLayer
        activation, gated = FEED_FORWARD[config.feed_forward]
        self.bias = RelativePositionBias(
            config.num_heads,
            bidirectional=not self.is_decoder,
            num_buckets=config.num_buckets,
            max_distance=config.max_distance,
            std=config.d_model**-0.5,
        )
        self.layers = nn.ModuleList(
            layer(
                config.d_model,
                config.num_heads,
                config.d_ff,
                dropout=config.dropout,
                activation_dropout=config.dropout,
                activation=activation,
                norm="pre",
                eps=config.eps,
                norm_class=RMSNorm,
                d_head=config.d_head,
                scaled=False,
                bias=False,
                gated=gated,
            )
            for _ in range(num_layers)
        )
        self.norm = RMSNorm(config.d_model, config.eps)

    def forward(self, x: Tensor, real=None, memory=None, cache: KVCache | None = None) -> Tensor:
        """x (B, n, d_model) to the same shape; `real` (B, m) says what of the input is no padding.

        Of an encoder the input is x itself; of a decoder it is the memory (B, m, d_model).
        """
        n = x.shape[1]
        seen = n if cache is None else cache.length + n
        bias = self.bias(n, seen)  # (1, h, n, seen)
        real = None if real is None else (real != 0).unsqueeze(1)  # (B, 1, m)
        if self.is_decoder:
            bias = bias.masked_fill(~causal_mask(n, seen, device=x.device), -torch.inf)
            step = {"memory": memory, "memory_mask": real, "causal": False, "cache": cache}
        else:
            bias = bias if real is None else bias.masked_fill(~real.unsqueeze(1), -torch.inf)
            step = {}
        x = F.dropout(x, self.dropout, self.training)
        for layer in self.layers:
            x = layer(x, mask=bias, **step)
        return F.dropout(self.norm(x), self.dropout, self.training)


class T5(Pretrained):
    """Text in, and what has been written so far, to logits of what is written next.

    Attributes: `config`, `word` (of both stacks), `encoder`, `decoder` (`bias`, `layers`, `norm`),
    `head` (None, if tied).

    `T5.from_pretrained(folder_or_repo_id)` loads an official checkpoint, v1.0 or v1.1; see
    `lib.checkpoints`.

    >>> config = T5Config(vocab_size=50, d_model=12, d_head=5, num_layers=2, num_heads=3, d_ff=24)
    >>> T5(config)(torch.randint(50, (2, 7)), torch.randint(50, (2, 4))).shape
    torch.Size([2, 4, 50])
    """

    config_class, layout = T5Config, t5_layout("relu", True)

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.vocab_size, config.d_model)
        last = config.num_decoder_layers or config.num_layers
        self.encoder = Stack(config, EncoderLayer, config.num_layers)
        self.decoder = Stack(config, DecoderLayer, last)
        self.head = None
        if not config.tied:
            self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Words N(0, 1); maps N(0, 1/inputs), which keeps sizes; queries are 1/√d_head of that.

        So the division by √d_head that attention lacks is in the queries' first values.
        """
        nn.init.normal_(self.word.weight)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                if name.endswith("query_projection"):
                    std *= self.config.d_head**-0.5
                nn.init.normal_(module.weight, std=std)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor, *, attention_mask=None):
        """(B, m) and (B, n) ids to logits (B, n, V); those at position t are for the token t + 1.

        input_ids : (B, m), int64 or int32, what is read
        decoder_input_ids : (B, n), what was written: the start token, then the text without its
            last token. No mask: padding behind the text cannot be seen from it.
        attention_mask : (B, m), boolean or integer, 0 = padding of what is read, on either side

        ValueError for a wrong shape, dtype or device, TypeError for no tensor; an id that is not
        in its table is torch's IndexError.
        """
        memory = self.encode(input_ids, attention_mask=attention_mask)
        return self.decode(decoder_input_ids, memory, attention_mask=attention_mask)

    def encode(self, input_ids: Tensor, *, attention_mask: Tensor | None = None) -> Tensor:
        """What the decoder looks at: the memory (B, m, d_model)."""
        require_tokens(input_ids, attention_mask=attention_mask)
        return self.encoder(self.word(input_ids), attention_mask)

    def decode(self, decoder_input_ids, memory, *, attention_mask=None, cache=None) -> Tensor:
        """Logits (B, n, V); with a `KVCache` the ids are those that it has not read."""
        require_tokens(decoder_input_ids, name="decoder_input_ids")
        hidden = self.decoder(self.word(decoder_input_ids), attention_mask, memory, cache)
        if self.head is not None:
            return self.head(hidden)
        return F.linear(hidden * self.config.d_model**-0.5, self.word.weight)

    @classmethod
    def layout_of(cls, config: T5Config) -> Layout:
        return t5_layout(config.feed_forward, config.tied)

    @classmethod
    def _config_from(cls, theirs: Mapping[str, Any]) -> T5Config:
        # transformers 5 says of every T5 that it is tied, and of the scale in a key of its own.
        tied = theirs.get("scale_decoder_outputs", theirs.get("tie_word_embeddings", True))
        return super()._config_from({**theirs, "tie_word_embeddings": tied})
