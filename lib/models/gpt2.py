"""GPT-2: a stack of masked self-attention that is asked, at every token, for the next one.

Source: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training" (GPT: the
objective, learned positions, GELU), and Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners" (GPT-2), section 2.3: the norm moved in front of each sublayer, one more norm
at the end, residual weights drawn smaller, 1024 tokens of context. What the papers leave open is as
in the released code and checkpoints: the tanh form of GELU, ε = 1e-5, output words tied to the
input words, initial weights N(0, .02).
Derived in chapter 10_gpt. The loss is `lib.losses.causal_lm_loss`; `lib.generation` lets it speak.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.cache import KVCache
from lib.checkpoints import Pretrained
from lib.layers import ACTIVATIONS, EncoderLayer, LayerNorm, initialise
from lib.models.layouts import GPT2_LAYOUT
from lib.positions import LearnedEncoding
from lib.stepper import Stepper
from lib.validation import require_choice, require_numbers, require_sizes, require_tokens


@dataclass(frozen=True)
class GPT2Config:
    """Sizes and options; the defaults are the smallest release. ValueError where none is a model.

    `eos_token_id` and `pad_token_id` are where `lib.generation` stops, and what it writes behind.
    """

    vocab_size: int = 50257
    d_model: int = 768
    num_layers: int = 12
    num_heads: int = 12
    d_ff: int | None = None  # None: 4 d_model
    max_length: int = 1024
    activation: str = "gelu_tanh"
    embedding_dropout: float = 0.1
    dropout: float = 0.1  # on each sublayer's output
    attention_dropout: float = 0.1
    eps: float = 1e-5
    init_std: float = 0.02
    eos_token_id: int | None = 50256
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "num_layers", "num_heads", "max_length")
        require_sizes(self, *sizes, *(("d_ff",) if self.d_ff is not None else ()))
        require_numbers(self, "embedding_dropout", "dropout", "attention_dropout", below=1.0)
        require_numbers(self, "eps", "init_std")
        require_choice(self, "activation", ACTIVATIONS)
        if self.d_model % self.num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of d_model = {self.d_model}, got {self.num_heads}"
            )


class GPT2(Pretrained):
    """Tokens to logits of the next token, by pre-norm blocks under a causal mask.

    Attributes: `config`, `word`, `position`, `layers` (each an `EncoderLayer`), `norm`. There is no
    head: the output words are `word.weight`.

    `GPT2.from_pretrained(folder_or_repo_id)` loads an official checkpoint; see `lib.checkpoints`.

    >>> model = GPT2(GPT2Config(vocab_size=50, d_model=12, num_layers=2, num_heads=3))
    >>> model(torch.randint(50, (2, 7))).shape
    torch.Size([2, 7, 50])
    """

    config_class, layout = GPT2Config, GPT2_LAYOUT

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.vocab_size, config.d_model)
        self.position = LearnedEncoding(config.max_length, config.d_model, std=config.init_std)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.d_model,
                config.num_heads,
                4 * config.d_model if config.d_ff is None else config.d_ff,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation=config.activation,
                norm="pre",
                eps=config.eps,
            )
            for _ in range(config.num_layers)
        )
        self.norm = LayerNorm(config.d_model, config.eps)
        initialise(self, config.init_std)
        # 2 L maps add to the residual stream; each is drawn 1/√(2L) as large, so that the variance
        # of their sum does not grow with the number of layers L.
        for layer in self.layers:
            for last in (layer.attention.output_projection, layer.feed_forward.contract):
                nn.init.normal_(last.weight, std=config.init_std / math.sqrt(2 * config.num_layers))

    def forward(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """(B, n) ids to logits (B, n, V); those at position t are for the token at t + 1.

        input_ids : (B, n), int64 or int32. With a cache, only those that it has not read.
        attention_mask : (B, n), boolean or integer, 0 = padding, which nobody attends to; with a
            cache of t tokens (B, t + n), for those too. A row's positions are counted from its
            first real token, so padding on the left changes nothing of what is real. Logits at
            padding mean nothing.
        cache : `KVCache`, which reads along; the whole, padding included, is at most max_length.

        ValueError for a wrong shape, dtype or device, or more than max_length tokens; TypeError for
        no tensor; an id that is not in its table is torch's IndexError.
        """
        hidden = self.encode(input_ids, attention_mask=attention_mask, cache=cache)
        return F.linear(hidden, self.word.weight)

    def stepper(self, capacity: int, attention_mask: Tensor | None = None) -> Stepper | None:
        """The same, faster, for tokens that come one by one; see `lib.stepper`."""
        return Stepper.of(self, capacity, attention_mask) if type(self) is GPT2 else None

    def encode(self, input_ids: Tensor, *, attention_mask=None, cache=None) -> Tensor:
        """The hidden vectors (B, n, d_model) behind the last norm; arguments as in `forward`."""
        start = 0 if cache is None else cache.length
        require_tokens(input_ids, past=start, attention_mask=attention_mask)
        end = start + input_ids.shape[1]
        if end > self.config.max_length:
            raise ValueError(
                f"input_ids: expected at most max_length = {self.config.max_length} tokens, "
                f"got {end}"
            )
        mask = positions = None
        if attention_mask is not None:
            real = attention_mask != 0  # (B, end)
            first = real.int().argmax(dim=1, keepdim=True)  # (B, 1): of 0 and 1, the first 1
            places = torch.arange(start, end, device=real.device)
            positions = (places - first).clamp(min=0)  # (B, n)
            mask = real.unsqueeze(1)  # (B, 1, end)
        x = self.position(self.word(input_ids), start, positions=positions)  # (B, n, d_model)
        x = F.dropout(x, self.config.embedding_dropout, self.training)
        for layer in self.layers:
            x = layer(x, mask, causal=True, cache=cache)
        return self.norm(x)
