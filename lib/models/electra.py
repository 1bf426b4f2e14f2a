"""ELECTRA: a small generator replaces words, and the model proper tells which ones.

Source: Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
Generators", arXiv:2003.10555, sections 2, 3.1 and 3.2.
Derived in chapter 13_replaced_token_detection. The encoder is in lib.models.bert, the losses in
lib.losses, the random draws in lib.corruption.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from lib.checkpoints import Pretrained, load_parts
from lib.corruption import draw_positions, draw_words
from lib.layers import ACTIVATIONS, initialise
from lib.losses import masked_lm_loss, replaced_token_loss, replaced_tokens
from lib.models.bert import BERTConfig, Encoder, MaskedLM
from lib.models.layouts import DISCRIMINATOR_LAYOUT, GENERATOR_LAYOUT
from lib.validation import require_numbers, require_tokens


class Generator(MaskedLM):
    """A masked language model; its head's activation is GELU always, as in the official code."""

    layout = GENERATOR_LAYOUT

    def __init__(self, config: BERTConfig) -> None:
        super().__init__(replace(config, d_embedding=config.width))  # official files name it
        self.head.activation = "gelu"


class Discriminator(Pretrained):
    """An encoder with one number for each token; positive = replaced, as in official checkpoints.

    Deviation from the paper, whose D is the probability that a token is *original*: σ(−logit).
    """

    config_class, layout = BERTConfig, DISCRIMINATOR_LAYOUT

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = replace(config, d_embedding=config.width)
        self.encoder = Encoder(config)
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.output = nn.Linear(config.d_model, 1)
        initialise(self, config.init_std)

    def forward(self, input_ids: Tensor, *, attention_mask=None, token_type_ids=None) -> Tensor:
        """(B, n) ids to logits (B, n); arguments and errors as in `BERT.forward`."""
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        hidden = ACTIVATIONS[self.config.activation](self.transform(hidden))
        return self.output(hidden).squeeze(-1)

    def encode(self, input_ids: Tensor, *, attention_mask=None, token_type_ids=None) -> Tensor:
        """The hidden vectors (B, n, d_model) of the last layer: what fine-tuning builds on."""
        return self.encoder(input_ids, attention_mask, token_type_ids)


@dataclass(frozen=True)
class ELECTRAOutput:
    """One step of training; the losses and the logits have gradients."""

    loss: Tensor  # mlm_loss + weight · rtd_loss
    mlm_loss: Tensor  # of the generator, over the masked tokens
    rtd_loss: Tensor  # of the discriminator, over every real token
    is_masked: Tensor  # (B, n) boolean: what the generator had to guess
    corrupted_ids: Tensor  # (B, n): what the discriminator read
    is_replaced: Tensor  # (B, n) boolean, its labels: False where the guess was right
    mlm_logits: Tensor  # (M, V) for the M masked tokens, in the order of is_masked.nonzero()
    rtd_logits: Tensor  # (B, n), positive = replaced


class ELECTRA(nn.Module):
    """Both parts, and the objective that trains them together: L_MLM + λ L_Disc.

    Parameters
    ----------
    config : BERTConfig of the discriminator
    generator_config : BERTConfig; left out, `smaller(config, 1/4)`
    mask_token_id, special_token_ids : an id, and the ids that are never masked; BERT's, if left out
    mask_share : of a sequence's n real tokens, ⌈share · n⌉ are masked
    weight : λ
    sampling : "gumbel" or "multinomial", see `lib.corruption.draw_words`
    tie_embeddings : bool
        Both parts have one `encoder.embeddings` (words, positions, segments, norm), as in the
        authors' code; section 3.2 names words and positions. There the gradients of both losses
        add up, and nowhere else.

    Attributes: `generator`, `discriminator`. After `from_pretrained` of one alone the other is
    None, and `forward` is refused.

    Deviations: masked positions are drawn without replacement, where section 2 may draw one twice;
    all become [MASK], as in the paper, where the authors' code leaves 15 % as they are.
    """

    def __init__(
        self,
        config: BERTConfig,
        generator_config: BERTConfig | None = None,
        *,
        mask_token_id: int = 103,
        special_token_ids: tuple[int, ...] = (0, 101, 102),
        mask_share: float = 0.15,
        weight: float = 50.0,
        sampling: str = "gumbel",
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__()
        self.mask_token_id, self.special_token_ids = mask_token_id, tuple(special_token_ids)
        self.mask_share, self.weight, self.sampling = mask_share, weight, sampling
        require_numbers(self, "weight")
        generator_config = smaller(config, 1 / 4) if generator_config is None else generator_config
        for name in ("vocab_size", *("width", "max_length", "num_segments") * tie_embeddings):
            ours, theirs = getattr(generator_config, name), getattr(config, name)
            if ours != theirs:
                raise ValueError(f"generator_config: expected {name} = {theirs}, got {ours}")
        self.generator, self.discriminator = Generator(generator_config), Discriminator(config)
        if tie_embeddings:
            self.generator.encoder.embeddings = self.discriminator.encoder.embeddings

    def forward(
        self, input_ids, *, attention_mask=None, token_type_ids=None, is_masked=None, rng=None
    ) -> ELECTRAOutput:
        """Mask, guess, replace, tell: the losses of a batch of original text, as in `BERT.forward`.

        is_masked : (B, n) boolean, the real tokens to mask; drawn afresh, if left out
        rng : torch.Generator that positions and words are drawn from; torch's own, if left out

        No gradient passes through the drawn words: the generator learns from its own loss alone,
        by likelihood, and is no adversary of the discriminator (section 2).
        """
        if self.generator is None or self.discriminator is None:
            raise ValueError("ELECTRA: expected both parts for training, got one alone")
        masks = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        require_tokens(input_ids, **masks, is_masked=is_masked)
        require_numbers(self, "mask_token_id", below=self.generator.config.vocab_size)
        if is_masked is None:
            is_masked = draw_positions(
                input_ids, attention_mask, self.mask_share, self.special_token_ids, rng
            )
        masked_ids = input_ids.masked_fill(is_masked, self.mask_token_id)
        hidden = self.generator.encoder(masked_ids, *masks.values())
        mlm_logits = self.generator.mlm_logits(hidden[is_masked])  # (M, V): no others are needed
        drawn = draw_words(mlm_logits, self.sampling, rng)  # (M,), without gradient
        corrupted_ids = input_ids.masked_scatter(is_masked, drawn.to(input_ids.dtype))
        is_replaced = replaced_tokens(input_ids, corrupted_ids)
        rtd_logits = self.discriminator(corrupted_ids, **masks)

        mlm_loss = masked_lm_loss(mlm_logits, input_ids[is_masked])
        rtd_loss = replaced_token_loss(rtd_logits, is_replaced, attention_mask)
        losses = (mlm_loss + self.weight * rtd_loss, mlm_loss, rtd_loss)
        tokens = (is_masked, corrupted_ids, is_replaced)
        return ELECTRAOutput(*losses, *tokens, mlm_logits, rtd_logits)

    @classmethod
    def from_pretrained(
        cls, folder_or_repo_id, generator=None, *, dtype=None, revision=None, **options
    ) -> Self:
        """Load both parts, or one, in evaluation mode; errors as in `lib.checkpoints`.

        folder_or_repo_id : the discriminator, with the generator beside it; or a folder with both,
            as `discriminator` and `generator`; or either part alone, and the other is None
        options : the constructor's but `tie_embeddings`: embeddings of the same numbers are tied
        """
        parts = {"discriminator": Discriminator, "generator": Generator}
        sources = dict(zip(parts, (folder_or_repo_id, generator), strict=True))
        loaded = load_parts(parts, sources, dtype=dtype, revision=revision)
        config = next(iter(loaded.values())).config
        with torch.device("meta"):  # the frame alone
            model = cls(config, config, tie_embeddings=False, **options)
        model.discriminator, model.generator = map(loaded.get, parts)
        if len(loaded) == 2:
            ours, theirs = (part.encoder.embeddings.state_dict() for part in loaded.values())
            if ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours):
                model.generator.encoder.embeddings = model.discriminator.encoder.embeddings
        return model.eval()

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `discriminator` and `generator`, each a checkpoint of its own, in a folder."""
        for name, part in self.named_children():
            part.save_pretrained(Path(folder) / name)


def smaller(config: BERTConfig, share: float) -> BERTConfig:
    """A generator's config: `share` of the heads, d_model and d_ff, with heads of the same size.

    Layers and embeddings stay. Section 3.2 finds a quarter to a half best.
    """
    heads = max(1, round(config.num_heads * share))
    return replace(
        config,
        num_heads=heads,
        d_model=heads * (config.d_model // config.num_heads),
        d_ff=max(1, round(config.d_ff * share)),
        d_embedding=config.width,
    )
