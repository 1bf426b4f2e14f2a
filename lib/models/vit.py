"""Vision Transformer: an image cut into patches, read as if they were words.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale", arXiv:2010.11929, section 3.1, equations 1 to 4, and Table 1 for the sizes. What the
paper leaves open is as in the official checkpoints: ε = 1e-12.
Derived in chapter 12_vision_transformer.

Deviations: the head is one linear map, as in fine-tuning (section 3.2); in pre-training the paper
has a hidden layer there. Images have the size that positions were trained for: the interpolation of
section 3.2 is left to the chapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.checkpoints import Pretrained
from lib.layers import ACTIVATIONS, EncoderLayer, LayerNorm, initialise
from lib.models.layouts import VIT_LAYOUT
from lib.validation import require_choice, require_numbers, require_sizes


@dataclass(frozen=True)
class ViTConfig:
    """Sizes and options; the defaults are ViT-B/16 on ImageNet. ValueError for what is no model."""

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    num_classes: int = 1000
    d_model: int = 768
    num_layers: int = 12
    num_heads: int = 12
    d_ff: int = 3072
    activation: str = "gelu"
    dropout: float = 0.0  # on the embeddings and on each sublayer's output
    attention_dropout: float = 0.0
    eps: float = 1e-12
    init_std: float = 0.02

    def __post_init__(self) -> None:
        require_sizes(self, "image_size", "patch_size", "num_channels", "num_classes")
        require_sizes(self, "d_model", "num_layers", "num_heads", "d_ff")
        require_numbers(self, "dropout", "attention_dropout", below=1.0)
        require_numbers(self, "eps", "init_std")
        require_choice(self, "activation", ACTIVATIONS)
        for name, whole in {"num_heads": "d_model", "patch_size": "image_size"}.items():
            if getattr(self, whole) % getattr(self, name):
                raise ValueError(
                    f"{name}: expected a divisor of {whole} = {getattr(self, whole)}, "
                    f"got {getattr(self, name)}"
                )

    @property
    def num_patches(self) -> int:
        """How many patches an image has, all of them in a square."""
        return (self.image_size // self.patch_size) ** 2


class PatchEmbeddings(nn.Module):
    """Patches to vectors, a class token in front, and the place of each added (equation 1).

    The map of a patch, flattened, is written as a convolution that steps from patch to patch: one
    matrix for all of them, and no pixel in two.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.dropout, self.init_std = config.dropout, config.init_std
        size = config.patch_size
        self.projection = nn.Conv2d(config.num_channels, config.d_model, size, stride=size)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.d_model))
        self.position = nn.Parameter(torch.empty(1, 1 + config.num_patches, config.d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in (self.projection.weight, self.class_token, self.position):
            nn.init.normal_(parameter, std=self.init_std)
        nn.init.zeros_(self.projection.bias)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.projection(pixel_values).flatten(2).mT  # (B, N, d_model), row by row
        first = self.class_token.expand(len(patches), -1, -1)
        x = torch.cat([first, patches], dim=1) + self.position  # (B, 1 + N, d_model)
        return F.dropout(x, self.dropout, self.training)


class ViT(Pretrained):
    """Pre-norm layers over a class token and patches; the class token's vector is classified.

    Attributes: `config`, `embeddings` (`projection`, `class_token`, `position`), `layers`, `norm`,
    `classifier`.

    `ViT.from_pretrained(folder_or_repo_id)` loads an official checkpoint for classification; see
    `lib.checkpoints`. What the classes are called stands in its `config.json` as `id2label`.

    >>> config = ViTConfig(8, 2, 1, num_classes=10, d_model=12, num_layers=2, num_heads=3, d_ff=48)
    >>> ViT(config)(torch.rand(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    config_class, layout = ViTConfig, VIT_LAYOUT

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = PatchEmbeddings(config)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.d_model,
                config.num_heads,
                config.d_ff,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation=config.activation,
                norm="pre",
                eps=config.eps,
            )
            for _ in range(config.num_layers)
        )
        self.norm = LayerNorm(config.d_model, config.eps)
        self.classifier = nn.Linear(config.d_model, config.num_classes)
        initialise(self, config.init_std)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, classes).

        pixel_values : floats of the model's dtype, H = W = image_size, and normalised as in
            training: official checkpoints expect pixels from 0 to 1, less .5, divided by .5

        ValueError for a wrong shape, dtype or device, TypeError for no tensor.
        """
        return self.classifier(self.encode(pixel_values)[:, 0])

    def encode(self, pixel_values: Tensor) -> Tensor:
        """The vectors (B, 1 + N, d_model) of class token and patches, after the last norm."""
        self._validate(pixel_values)
        x = self.embeddings(pixel_values)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def _validate(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"pixel_values: expected a torch.Tensor, got {type(x).__name__}")
        weight, size = self.classifier.weight, self.config.image_size
        shape = (self.config.num_channels, size, size)
        if x.ndim != 4 or tuple(x.shape[1:]) != shape:
            expected = f"(B, {', '.join(map(str, shape))})"
            raise ValueError(f"pixel_values: expected shape {expected}, got {tuple(x.shape)}")
        if x.device != weight.device:
            raise ValueError(f"pixel_values: expected device {weight.device}, got {x.device}")
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"pixel_values: expected {weight.dtype}, got {x.dtype}")

    @classmethod
    def _config_from(cls, theirs: Mapping[str, Any]) -> ViTConfig:
        """Official files count their classes by naming them; without names there are two."""
        names = theirs.get("id2label")
        count = theirs.get("num_labels", 2 if names is None else len(names))
        return super()._config_from({**theirs, "num_labels": count})
