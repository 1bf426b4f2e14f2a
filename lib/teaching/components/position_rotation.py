"""PositionRotation: a sinusoidal encoding as clocks, one a pair, and what a shift does to them."""

from __future__ import annotations

import math
from typing import Any

import torch
import traitlets

from lib.positions import sinusoidal_encoding
from lib.teaching.components.base import Component, escape, fixed, one_of

STATIC_OFFSETS = (1, 4, 16)

STATIC_STYLE = """<style>
.component .pr-static{border-collapse:collapse;font-size:.85rem;margin:0 0 .75rem}
.component .pr-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem;
overflow-wrap:anywhere}
.component .pr-static :is(th,td){padding:.15rem min(.5rem,1.4vw);text-align:right;font-weight:400}
.component .pr-static thead th{border-bottom:1px solid;vertical-align:bottom;overflow-wrap:anywhere}
.component .pr-static th:first-child{overflow-wrap:normal}
.component .pr-static tfoot :is(th,td){border-top:1px solid}
</style>"""


class PositionRotation(Component):
    """Show the pairs (sin, cos) of two positions, p and p + k, as the hands of d/2 clocks.

    The sine is the hand's way to the right, the cosine its way up, so position 0 is twelve o'clock
    and later positions are clockwise of it. From p to p + k the hand of pair i turns by k ω_i,
    wherever p is; the sum of the cosines of these turns is PE(p) · PE(p + k).

    Args:
        d_model: features of an encoding, an even number from 4 to 32: twice the number of clocks.
        base: as for `lib.positions.sinusoidal_encoding`.
        reach: the offset k runs from -reach to reach, 2 to 64.
        positions: how many positions p to choose from, 2 to 64; the first is ``reach``, so that
            p + k is never negative.
        position, offset: where to begin; ``position`` is by default the first.
        label: what the reader sees as the title.
        name: the id in the page; by default made from the content.

    Attributes:
        position, offset: p and k. Set them, observe them.
        product: PE(p) · PE(p + k). Read only.

    Raises:
        ValueError: one line, with expected and got, if an argument is out of its range.
    """

    MODULE = "position_rotation.js"
    STATE = ("position", "offset")

    position = traitlets.Any()
    offset = traitlets.Any()
    product = traitlets.Float(read_only=True)

    def __init__(
        self,
        *,
        d_model: int = 16,
        base: float = 10000.0,
        reach: int = 32,
        positions: int = 33,
        position: int | None = None,
        offset: int = 7,
        label: str = "Clocks that all turn by the same angle, wherever they stand",
        name: str | None = None,
    ) -> None:
        super().__init__()
        _require_integer("reach", reach, 2, 64)
        _require_integer("positions", positions, 2, 64)
        if type(d_model) is not int or d_model % 2 or not 4 <= d_model <= 32:
            raise ValueError(f"d_model: expected an even integer in 4 to 32, got {d_model!r}")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        self.reach, self.positions, self.label = reach, range(reach, reach + positions), label
        self.encoding = sinusoidal_encoding(
            positions + 2 * reach, d_model, base=base, dtype=torch.float64
        )  # (positions + 2 reach, d_model)
        # One step turns pair i by ω_i, at most 1, so the hand of position 1 shows it.
        self.frequency = torch.atan2(self.encoding[1, 0::2], self.encoding[1, 1::2])  # (d_model/2,)

        self.position = reach if position is None else position
        self.offset = offset
        self._measure()
        self.observe(lambda change: self._measure(), names=list(self.STATE))
        self._ready(self._page_data(), name)

    @traitlets.validate("position")
    def _valid_position(self, proposal: Any) -> int:
        return _one_of("position", proposal["value"], self.positions)

    @traitlets.validate("offset")
    def _valid_offset(self, proposal: Any) -> int:
        return _one_of("offset", proposal["value"], range(-self.reach, self.reach + 1))

    def readout(self, position: int, offset: int) -> dict[str, Any]:
        """Return what the component shows: ``turns`` in degrees, ``cosines`` and ``product``.

        The cosines are those of lib's two rows, pair by pair: sin·sin + cos·cos.
        """
        here, there = self.encoding[position], self.encoding[position + offset]  # (d_model,)
        cosines = (here * there).unflatten(-1, (-1, 2)).sum(-1)  # (d_model/2,)
        return {
            "turns": [offset * turn for turn in self._turn()],
            "cosines": cosines.tolist(),
            "product": cosines.sum().item(),
        }

    def summary(self) -> str:
        return f"{self.label}: {self._sentence()}"

    def _sentence(self) -> str:
        p, k = self.position, self.offset
        return (
            f"k = {_signed(k)}: PE({p}) · PE({p + k}) = {fixed(self.product, 3)}, the sum of the "
            f"{len(self.frequency)} cosines. It is the same at every position p, and the same "
            "for −k."
        )

    def _measure(self) -> None:
        self.set_trait("product", self.readout(self.position, self.offset)["product"])

    def _turn(self) -> list[float]:
        return [math.degrees(w) for w in self.frequency.tolist()]

    def _wavelength(self) -> list[str]:
        return [f"{2 * math.pi / w:,.{1 if w > 0.05 else 0}f}" for w in self.frequency.tolist()]

    def _page_data(self) -> dict[str, Any]:
        # Ten decimals: more than is shown, fewer than differ from one processor to another.
        return {
            "label": self.label,
            "reach": self.reach,
            "encoding": [[round(x, 10) for x in row] for row in self.encoding.tolist()],
            "turn": [round(turn, 10) for turn in self._turn()],
            "wavelength": self._wavelength(),
        }

    def _fallback(self) -> str:
        offsets = [k for k in STATIC_OFFSETS if k <= self.reach]
        read = [self.readout(self.position, k) for k in offsets]
        titles = ["pair", "wave\u00adlength", *(f"cosine, k\u00a0=\u00a0{k}" for k in offsets)]
        head = "".join(f'<th scope="col">{title}</th>' for title in titles)
        rows = "".join(
            f'<tr><th scope="row">{i}</th><td>{wavelength}</td>'
            + "".join(f"<td>{fixed(one['cosines'][i], 3)}</td>" for one in read)
            + "</tr>"
            for i, wavelength in enumerate(self._wavelength())
        )
        sums = "".join(f"<td>{fixed(one['product'], 3)}</td>" for one in read)
        return (
            f'{STATIC_STYLE}<table class="pr-static"><caption><strong>{escape(self.label)}'
            "</strong>: the cosine of each pair’s turn from position p to p + k. Their sum is "
            "PE(p) · PE(p + k).</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
            f'<tfoot><tr><th scope="row" colspan="2">sum</th>{sums}</tr></tfoot></table>'
            f"<p>{escape(self._sentence())}</p>"
            "<noscript><p>With JavaScript the position and the offset can be moved, and each pair "
            "is a clock.</p></noscript>"
        )


def _signed(number: int) -> str:
    return str(number).replace("-", "−")


def _one_of(what: str, value: Any, allowed: range) -> int:
    try:
        return one_of(what, value, allowed)
    except ValueError:
        first, last = allowed[0], allowed[-1]
        raise ValueError(
            f"{what}: expected an integer in {first} to {last}, got {value!r}"
        ) from None


def _require_integer(what: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what}: expected an integer in {least} to {most}, got {value!r}")
