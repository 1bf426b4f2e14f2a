"""TileStepper: attention in tiles, one tile at a time, with what is held and what has moved."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import traitlets

from lib.teaching.components.base import Component, escape, fixed, one_of
from lib.teaching.figures import COLORS
from lib.teaching.tiles import Tile, in_tiles, memory_of, standard

STATIC_STYLE = """<style>
.component .tl-static{border-collapse:collapse;font-size:.85rem;margin:0 0 .75rem}
.component .tl-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem}
.component .tl-static :is(th,td){padding:.15rem min(.5rem,1.4vw);text-align:right;font-weight:400}
.component .tl-static thead th{border-bottom:1px solid;vertical-align:bottom}
</style>"""


class TileStepper(Component):
    """Step through the tiles of attention over n random queries and keys, n from 2 to 24.

    The reader chooses the tile of queries and of keys, and whether the future is hidden. Each step
    loads one tile. Shown are the tile, m and ℓ of each of its queries after it, and the elements
    moved so far, beside what the formula moves with its table. All is computed before, by
    ``lib.teaching.tiles``.

    Args:
        n, d: how many queries and keys, and their width.
        sizes: sizes of tiles to choose from, ascending, each from 1 to n.
        block_q, block_k, causal, step: where to begin; sizes are members of ``sizes``.
        seed: of the random numbers.
        label: what the reader sees as the title.
        name: the id in the page; by default made from the content.

    Attributes:
        block_q, block_k, causal, step: what is shown. Set them, observe them. A step that is past
            the last one of new sizes becomes the last.

    Raises:
        ValueError: one line, with expected and got, if an argument does not fit the others.
    """

    MODULE = "tile_stepper.js"
    STATE = ("block_q", "block_k", "causal", "step")

    block_q = traitlets.Any()
    block_k = traitlets.Any()
    causal = traitlets.Any()
    step = traitlets.Any()

    def __init__(
        self,
        n: int = 12,
        d: int = 4,
        sizes: Sequence[int] = (2, 3, 4, 6),
        *,
        block_q: int | None = None,
        block_k: int | None = None,
        causal: bool = True,
        step: int = 0,
        seed: int = 0,
        label: str = "Attention, one tile at a time",
        name: str | None = None,
    ) -> None:
        super().__init__()
        for what, number, most in (("n", n, 24), ("d", d, 256)):
            low = 2 if what == "n" else 1
            if type(number) is not int or not low <= number <= most:
                raise ValueError(f"{what}: expected an integer in {low} to {most}, got {number!r}")
        self.sizes = list(sizes)
        if (
            not self.sizes
            or any(type(size) is not int or not 1 <= size <= n for size in self.sizes)
            or self.sizes != sorted(set(self.sizes))
        ):
            raise ValueError(f"sizes: expected ascending integers in 1 to {n}, got {sizes!r}")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        self.n, self.d, self.label = n, d, label
        generator = torch.Generator().manual_seed(seed)
        query, key, value = (
            2 * torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(3)
        )
        self.runs: dict[tuple[int, int, bool], list[Tile]] = {
            (q, k, causal): list(in_tiles(memory_of(query, key, value), q, k, causal=causal))
            for q, k, causal in itertools.product(self.sizes, self.sizes, (False, True))
        }
        memory = memory_of(query, key, value)
        standard(memory)
        self.table = memory.moved
        middle = self.sizes[len(self.sizes) // 2]
        self.set_trait("block_q", middle if block_q is None else block_q)
        self.set_trait("block_k", middle if block_k is None else block_k)
        self.causal = causal
        self.step = step
        self._ready(self._page_data(), name)

    @traitlets.validate("block_q", "block_k")
    def _valid_size(self, proposal: Any) -> int:
        return one_of(proposal["trait"].name, proposal["value"], self.sizes)

    @traitlets.validate("causal")
    def _valid_causal(self, proposal: Any) -> bool:
        if type(proposal["value"]) is not bool:
            raise ValueError(f"causal: expected True or False, got {proposal['value']!r}")
        return proposal["value"]

    @traitlets.validate("step")
    def _valid_step(self, proposal: Any) -> int:
        return one_of("step", proposal["value"], range(len(self._run())))

    @traitlets.observe("block_q", "block_k", "causal")
    def _stay_inside(self, change: Any) -> None:
        if None not in (self.block_q, self.block_k, self.causal, self.step):
            self.step = min(self.step, len(self._run()) - 1)

    def _run(self) -> list[Tile]:
        return self.runs[self.block_q, self.block_k, self.causal]

    def readout(self, block_q: int, block_k: int, causal: bool, step: int) -> dict[str, Any]:
        """Return what is shown after a step: the tile, m and ℓ as texts, moved, and a sentence."""
        run = self.runs[
            one_of("block_q", block_q, self.sizes), one_of("block_k", block_k, self.sizes), causal
        ]
        tile = run[one_of("step", step, range(len(run)))]
        rows = [
            (i, *(shown(x) for x in (m, total)))
            for i, m, total in zip(
                range(tile.queries.start, tile.queries.stop),
                tile.maximum.tolist(),
                tile.total.tolist(),
                strict=True,
            )
        ]
        ends = {"queries": tile.queries, "keys": tile.keys}
        names = [f"{what} {part.start} to {part.stop - 1}" for what, part in ends.items()]
        kind = "with the mask" if tile.masked else "no mask needed"
        return {
            "tile": tile,
            "rows": rows,
            "moved": tile.moved,
            "sentence": f"Tile {step + 1} of {len(run)}: {' meet '.join(names)}, {kind}; "
            f"{tile.moved} elements moved so far, {self.table} with the table.",
        }

    def summary(self) -> str:
        read = self.readout(self.block_q, self.block_k, self.causal, self.step)
        return f"{self.label}. {read['sentence']}"

    def _page_data(self) -> dict[str, Any]:
        runs = {}
        for (q, k, causal), run in self.runs.items():
            runs[f"{q},{k},{int(causal)}"] = [
                {
                    "at": [t.queries.start, t.queries.stop, t.keys.start, t.keys.stop],
                    "masked": t.masked,
                    "moved": t.moved,
                    "m": [shown(x) for x in t.maximum.tolist()],
                    "l": [shown(x) for x in t.total.tolist()],
                }
                for t in run
            ]
        colors = {name: COLORS[name] for name in ("weights", "query", "key", "reference")}
        return {
            "label": self.label,
            "n": self.n,
            "sizes": self.sizes,
            "table": self.table,
            "colors": colors,
            "runs": runs,
        }

    def _fallback(self) -> str:
        read = self.readout(self.block_q, self.block_k, self.causal, self.step)
        rows = "".join(
            f'<tr><th scope="row">{i}</th><td>{m}</td><td>{total}</td></tr>'
            for i, m, total in read["rows"]
        )
        totals = "".join(
            f'<tr><th scope="row">{q}</th><td>{k}</td><td>{len(run)}</td>'
            f"<td>{run[-1].moved}</td></tr>"
            for (q, k, causal), run in self.runs.items()
            if causal == self.causal
        )
        hidden = "with" if self.causal else "without"
        return (
            f"{STATIC_STYLE}<p><strong>{escape(self.label)}</strong></p>"
            f"<p>{escape(read['sentence'])}</p>"
            '<table class="tl-static"><caption>After this tile:</caption><thead><tr>'
            '<th scope="col">query</th><th scope="col">m</th><th scope="col">ℓ</th></tr></thead>'
            f"<tbody>{rows}</tbody></table>"
            f'<table class="tl-static"><caption>All choices, {hidden} a causal mask, when the last '
            'tile of keys was met:</caption><thead><tr><th scope="col">queries in a tile</th>'
            '<th scope="col">keys in a tile</th><th scope="col">tiles loaded</th>'
            '<th scope="col">moved</th></tr></thead>'
            f"<tbody>{totals}</tbody></table>"
            "<noscript><p>With JavaScript the tiles can be stepped through.</p></noscript>"
        )


def shown(number: float) -> str:
    """Format m or ℓ: two decimals, and −∞ where nothing was seen."""
    return "−∞" if number == -float("inf") else fixed(number + 0.0, 2)
