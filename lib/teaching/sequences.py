"""Four ways to let a position know what came before it, in one frame, at equal parameters.

Chapter 01_from_recurrence trains them small, book/experiments/from_recurrence.py for longer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.layers import EncoderLayer, LayerNorm
from lib.positions import SinusoidalEncoding

__all__ = ["KINDS", "CausalConvolutions", "SequenceModel", "count", "recall_batch", "width_for"]

KINDS = ("rnn", "lstm", "convolution", "attention")


class CausalConvolutions(nn.Module):
    """Residual convolutions, each looking at twice the distance of the one below.

        x ← x + GELU(conv(LayerNorm(x))), with kernel k and dilation 1, 2, 4, …

    The padding is on the left alone, so that no output sees what comes after it. With L layers an
    output sees 1 + (k − 1)(2^L − 1) positions, itself included (`receptive_field`).

    Source: van den Oord et al. 2016, "WaveNet", arXiv:1609.03499, section 2.1; here without its
    gates and skip connections.
    """

    def __init__(self, d: int, num_layers: int = 4, kernel: int = 3) -> None:
        super().__init__()
        self.kernel, self.dilations = kernel, [2**i for i in range(num_layers)]
        self.norms = nn.ModuleList(LayerNorm(d) for _ in self.dilations)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(d, d, kernel, dilation=dilation) for dilation in self.dilations
        )

    @property
    def receptive_field(self) -> int:
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, d) to the same shape."""
        for norm, convolve, dilation in zip(
            self.norms, self.convolutions, self.dilations, strict=True
        ):
            y = F.pad(norm(x).mT, ((self.kernel - 1) * dilation, 0))  # (B, d, n + (k−1)·dilation)
            x = x + F.gelu(convolve(y)).mT
        return x


class SequenceModel(nn.Module):
    """Ids (B, n) to logits (B, n, V): an embedding, one way to look back, a linear map.

    kind : "rnn" (one layer of nn.RNN, tanh), "lstm" (one of nn.LSTM), "convolution" (four of
        `CausalConvolutions`), "attention" (two pre-norm Transformer layers of four heads, causal,
        with sinusoidal positions)
    width : the length of every hidden vector
    forget_bias : what the LSTM's forget gates begin with; None: torch's small random numbers

    No output depends on a later input. The last layer begins small, so that the first loss is
    about ln V.
    """

    def __init__(
        self, kind: str, vocab_size: int, width: int, *, forget_bias: float | None = None
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        if forget_bias is not None and kind != "lstm":
            raise ValueError(f"forget_bias: expected None for {kind}, got {forget_bias!r}")
        self.kind = kind
        self.embed = nn.Embedding(vocab_size, width)
        if kind == "rnn":
            self.body = nn.RNN(width, width, batch_first=True)
        elif kind == "lstm":
            self.body = nn.LSTM(width, width, batch_first=True)
        elif kind == "convolution":
            self.body = CausalConvolutions(width)
        else:
            self.positions = SinusoidalEncoding(width)
            self.body = nn.ModuleList(
                EncoderLayer(width, 4, 4 * width, norm="pre") for _ in range(2)
            )
        if kind in ("convolution", "attention"):
            self.norm = LayerNorm(width)
        self.read = nn.Linear(width, vocab_size)
        with torch.no_grad():
            self.read.weight.mul_(0.1)
            self.read.bias.zero_()
            if forget_bias is not None:  # torch adds two biases; gates: input, forget, cell, output
                self.body.bias_ih_l0[width : 2 * width] = forget_bias
                self.body.bias_hh_l0[width : 2 * width] = 0.0

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)  # (B, n, d)
        if self.kind in ("rnn", "lstm"):
            return self.read(self.body(x)[0])
        if self.kind == "convolution":
            return self.read(self.norm(self.body(x)))
        x = self.positions(x)
        for layer in self.body:
            x = layer(x, causal=True)
        return self.read(self.norm(x))


def count(model: nn.Module) -> int:
    """Return the number of a model's parameters."""
    return sum(p.numel() for p in model.parameters())


def width_for(kind: str, vocab_size: int, parameters: int) -> int:
    """Return the width with which a `SequenceModel` comes nearest to a number of parameters.

    For attention only multiples of four are widths, one for each head. ValueError if even the
    nearest is more than 3 % off.
    """
    step = 4 if kind == "attention" else 1
    found = {}
    width = step
    with torch.device("meta"):  # shapes alone: nothing is allocated
        while not found or max(found.values()) < parameters:
            found[width] = count(SequenceModel(kind, vocab_size, width))
            width += step
    best = min(found, key=lambda width: abs(found[width] - parameters))
    if abs(found[best] - parameters) > 0.03 * parameters:
        raise ValueError(
            f"parameters: expected a number within 3 % of what a width gives {kind}, as "
            f"{found[best]}, got {parameters}"
        )
    return best


def recall_batch(
    batch_size: int,
    distance: int,
    generator: torch.Generator | None = None,
    *,
    letters: int = 8,
) -> tuple[Tensor, Tensor]:
    """Draw sequences (B, distance + 1) and the letters to be recalled at their ends (B,).

    The first id is a letter, 0 … letters − 1. Then come distance − 1 fillers, drawn from as many
    other ids, letters … 2·letters − 1, and last a question mark, 2·letters. What is asked for is
    the letter, `distance` positions back; the fillers say nothing of it. The vocabulary has
    2·letters + 1 ids. ValueError if the distance is below one.

    >>> recall_batch(2, 3, torch.Generator().manual_seed(0))
    (tensor([[ 4, 15, 13, 16],
            [ 3, 11, 11, 16]]), tensor([4, 3]))
    """
    if not isinstance(distance, int) or distance < 1:
        raise ValueError(f"distance: expected an integer of at least 1, got {distance!r}")
    ids = torch.randint(letters, (batch_size, distance + 1), generator=generator)
    answers = ids[:, 0].clone()
    ids[:, 1:-1] += letters
    ids[:, -1] = 2 * letters
    return ids, answers
