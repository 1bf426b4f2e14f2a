"""TemperatureSoftmax: what the factor 1/√d and a temperature do to one row of attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import traitlets

from lib.attention import scaled_dot_product_attention
from lib.teaching.components.base import Component, escape, fixed, one_of

# Quarter octaves from 1/8 to 32: on this scale lies √d for every d of 4, 16, 64, 256 and 1024, so
# that a reader can find the temperature that does what the scaling does.
TEMPERATURES = tuple(float(f"{2 ** (k / 4):.3g}") for k in range(-12, 21))
MEASURES = ("entropy", "entropy_fraction", "max_weight", "jacobian_norm")

STATIC_STYLE = """<style>
.component .ts-static{border-collapse:collapse;font-size:.85rem;margin:0 0 .75rem}
.component .ts-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem}
.component .ts-static :is(th,td){padding:.15rem min(.5rem,1.4vw);text-align:right;font-weight:400}
.component .ts-static thead th{border-bottom:1px solid;vertical-align:bottom;overflow-wrap:anywhere}
</style>"""


class TemperatureSoftmax(Component):
    """Show softmax(q·k / (√d T)) for one random query and n random keys, and what it measures.

    The entries of q and k are independent standard normals, so that q·k has variance d. The
    reader turns the factor 1/√d on and off, chooses d and the temperature T, and steps through
    samples; for every sample the q and k of a smaller d are the first coordinates of the largest.

    Args:
        dimensions: the d to choose from, ascending.
        keys: n, the number of keys, 2 to 16.
        samples: how many samples to step through.
        seed: of the samples.
        dimension, scaled, temperature, sample: where to begin.
        label: what the reader sees as the title.
        name: the id in the page; by default made from the content.

    Attributes:
        dimension, scaled, temperature, sample: what is shown. Set them, observe them; the
            temperature may be any positive number, also one that the slider does not reach.
        entropy: of the weights, in nats. Read only, as are the next three.
        entropy_fraction: the same as a part of log n.
        max_weight: the largest weight.
        jacobian_norm: Frobenius norm of the softmax Jacobian diag(p) - ppᵀ.

    Raises:
        ValueError: one line, with expected and got, if an argument is out of its range.
    """

    MODULE = "temperature_softmax.js"
    STATE = ("dimension", "scaled", "temperature", "sample")

    dimension = traitlets.Any()
    scaled = traitlets.Any()
    temperature = traitlets.Any()
    sample = traitlets.Any()
    entropy = traitlets.Float(read_only=True)
    entropy_fraction = traitlets.Float(read_only=True)
    max_weight = traitlets.Float(read_only=True)
    jacobian_norm = traitlets.Float(read_only=True)

    def __init__(
        self,
        *,
        dimensions: Sequence[int] = (4, 16, 64, 256, 1024),
        keys: int = 12,
        samples: int = 24,
        seed: int = 0,
        dimension: int = 64,
        scaled: bool = True,
        temperature: float = 1.0,
        sample: int = 0,
        label: str = "Softmax, scaled or not, at any temperature",
        name: str | None = None,
    ) -> None:
        super().__init__()
        dimensions = tuple(dimensions)
        if not dimensions or any(type(d) is not int or d < 1 for d in dimensions):
            raise ValueError(f"dimensions: expected positive integers, got {dimensions!r}")
        if list(dimensions) != sorted(set(dimensions)):
            raise ValueError(f"dimensions: expected ascending integers, got {dimensions!r}")
        if type(keys) is not int or not 2 <= keys <= 16:
            raise ValueError(f"keys: expected an integer in 2 to 16, got {keys!r}")
        if type(samples) is not int or not 1 <= samples <= 32:
            raise ValueError(f"samples: expected an integer in 1 to 32, got {samples!r}")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        self.dimensions, self.label = dimensions, label

        generator = torch.Generator().manual_seed(seed)
        options = {"generator": generator, "dtype": torch.float64}
        self.query = torch.randn(samples, 1, dimensions[-1], **options)  # (samples, 1, d)
        self.key = torch.randn(samples, keys, dimensions[-1], **options)  # (samples, n, d)

        self.dimension = dimension
        self.scaled = scaled
        self.temperature = temperature
        self.sample = sample
        self._measure()
        self.observe(lambda change: self._measure(), names=list(self.STATE))
        self._ready(self._page_data(), name)

    @traitlets.validate("dimension")
    def _valid_dimension(self, proposal: Any) -> int:
        return one_of("dimension", proposal["value"], self.dimensions)

    @traitlets.validate("scaled")
    def _valid_scaled(self, proposal: Any) -> bool:
        value = proposal["value"]
        if type(value) is not bool:
            raise ValueError(f"scaled: expected True or False, got {value!r}")
        return value

    @traitlets.validate("temperature")
    def _valid_temperature(self, proposal: Any) -> float:
        value = proposal["value"]
        number = type(value) in (int, float)
        if not number or not math.isfinite(value) or value <= 0:
            raise ValueError(f"temperature: expected a finite number above 0, got {value!r}")
        return float(value)

    @traitlets.validate("sample")
    def _valid_sample(self, proposal: Any) -> int:
        return one_of("sample", proposal["value"], range(self.query.shape[0]))

    def weights(self, dimension: int, scaled: bool, temperature: float) -> torch.Tensor:
        """Return lib's attention weights of all samples, (samples, n)."""
        query = self.query[..., :dimension]
        key = self.key[..., :dimension]
        # lib divides by √d; what else there is to divide by, or not to, goes into the query.
        factor = (1.0 if scaled else math.sqrt(dimension)) / temperature
        _, weights = scaled_dot_product_attention(factor * query, key, key, return_weights=True)
        return weights.squeeze(-2)

    def readout(
        self, dimension: int, scaled: bool, temperature: float, sample: int
    ) -> dict[str, Any]:
        """Return what the component shows: ``scores``, ``weights``, and its four measures.

        ``mean`` holds the four measures averaged over all samples.
        """
        every = self.weights(dimension, scaled, temperature)
        divisor = (math.sqrt(dimension) if scaled else 1.0) * temperature
        measured = [measure(row) for row in every]
        return {
            "scores": (self._logits(dimension)[sample] / divisor).tolist(),
            "weights": every[sample].tolist(),
            **measured[sample],
            "mean": {m: math.fsum(one[m] for one in measured) / len(measured) for m in MEASURES},
        }

    def summary(self) -> str:
        return f"{self.label}: {self._sentence()}"

    def _sentence(self) -> str:
        return (
            f"d = {self.dimension}, {'scaled by 1/√d' if self.scaled else 'not scaled'}, "
            f"T = {show_temperature(self.temperature)}: "
            f"entropy {fixed(self.entropy, 3)} nats ({fixed(self.entropy_fraction, 3)} of "
            f"ln {self.key.shape[-2]}), largest weight {fixed(self.max_weight, 3)}, "
            f"Jacobian norm {show_small(self.jacobian_norm)}."
        )

    def _logits(self, dimension: int) -> torch.Tensor:
        query = self.query[..., :dimension]
        return (query @ self.key[..., :dimension].mT).squeeze(-2)  # (samples, n)

    def _measure(self) -> None:
        read = self.readout(self.dimension, self.scaled, self.temperature, self.sample)
        for name in MEASURES:
            self.set_trait(name, read[name])

    def _page_data(self) -> dict[str, Any]:
        # Ten decimals: more than is shown, fewer than differ from one processor to another.
        logits = {
            str(d): [[round(x, 10) for x in row] for row in self._logits(d).tolist()]
            for d in self.dimensions
        }
        return {
            "label": self.label,
            "dimensions": list(self.dimensions),
            "temperatures": list(TEMPERATURES),
            "logits": logits,
        }

    def _fallback(self) -> str:
        rows = []
        for d in self.dimensions:
            for scaled in (False, True):
                mean = self.readout(d, scaled, 1.0, 0)["mean"]
                cells = [
                    f"√{d}" if scaled else "1",
                    fixed(mean["entropy_fraction"], 3),
                    fixed(mean["max_weight"], 3),
                    show_small(mean["jacobian_norm"]),
                ]
                listed = "".join(f"<td>{cell}</td>" for cell in cells)
                rows.append(f'<tr><th scope="row">{d}</th>{listed}</tr>')
        titles = ("d", "q·k divided by", "entropy ÷ ln n", "largest weight", "‖diag(p) − ppᵀ‖")
        head = "".join(f'<th scope="col">{title}</th>' for title in titles)
        samples, n = self.key.shape[:2]
        return (
            f'{STATIC_STYLE}<table class="ts-static"><caption><strong>{escape(self.label)}'
            f"</strong>: means of {samples} samples with n = {n} keys, at T = 1.</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
            "<noscript><p>With JavaScript the dimension, the scaling, the temperature and the "
            "sample can be chosen.</p></noscript>"
        )


def measure(p: torch.Tensor) -> dict[str, float]:
    """Return the four measures of one row of weights."""
    entropy = -torch.xlogy(p, p).sum().item() + 0.0
    jacobian = torch.diag(p) - torch.outer(p, p)
    return {
        "entropy": entropy,
        "entropy_fraction": entropy / math.log(len(p)),
        "max_weight": p.max().item(),
        "jacobian_norm": torch.linalg.matrix_norm(jacobian).item(),
    }


def show_small(number: float) -> str:
    """Format a norm: a small one keeps two digits, so that small and gone look different."""
    if number < 1e-9:  # below, most of the digits of 1 - p are gone
        return "<1e-9"
    if number >= 0.0005:
        return fixed(number, 3)
    digits, exponent = f"{number:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def show_temperature(number: float) -> str:
    """Format as JavaScript prints a number: without a trailing zero."""
    return f"{number:g}"
