"""MaskPainter: which pairs of tokens meet under a window, and how many they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import traitlets

from lib.attention import causal_mask
from lib.sliding_window import count_pairs, window_mask
from lib.teaching.components.base import Component, escape, fixed
from lib.teaching.figures import COLORS

LEAST, MOST = 4, 32  # tokens
DILATIONS = (1, 2, 3, 4)
LAYERS = (1, 2, 3, 4)
STATIC_ROWS = 6

STATIC_STYLE = """<style>
.component .mp-static{border-collapse:collapse;font-size:.85rem;margin:0 0 .75rem}
.component .mp-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem}
.component .mp-static :is(th,td){padding:.15rem min(.5rem,1.4vw);text-align:right;font-weight:400}
.component .mp-static thead th{border-bottom:1px solid;vertical-align:bottom}
.component .mp-picture{display:block;box-sizing:border-box;width:100%;max-width:20rem;
border:1px solid;margin:0 0 .4rem}
</style>"""


class MaskPainter(Component):
    """Show the pairs of n tokens that meet under a window, and count them.

    The mask is that of ``lib.sliding_window.window_mask``, w/2 tokens on each side. The reader
    moves the window, the dilation and the number of layers, hides the future, and makes tokens
    global. After L layers a pair is joined where a path of L steps of the mask leads from the query
    to the key; that pairs which never meet can be joined is what deep windows live on.

    Args:
        n: how many tokens, 4 to 32.
        window: w, even, 2 to 2(n − 1), where all meet; half of it on each side.
        dilation: 1 to 4; 1 is no gap.
        causal: whether queries meet no later key.
        global_tokens: places that meet all, and that all meet.
        layers: L, 1 to 4.
        label: what the reader sees as the title.
        name: the id in the page; by default made from the content.

    Attributes:
        window, dilation, causal, global_tokens, layers: what is shown. Set them, observe them.

    Raises:
        ValueError: one line, with expected and got, if an argument is none of these.
    """

    MODULE = "mask_painter.js"
    STATE = ("window", "dilation", "causal", "global_tokens", "layers")

    window = traitlets.Any()
    dilation = traitlets.Any()
    causal = traitlets.Any()
    global_tokens = traitlets.Any()
    layers = traitlets.Any()

    def __init__(
        self,
        n: int = 24,
        *,
        window: int = 8,
        dilation: int = 1,
        causal: bool = False,
        global_tokens: Iterable[int] = (),
        layers: int = 1,
        label: str = "Which pairs meet",
        name: str | None = None,
    ) -> None:
        super().__init__()
        if type(n) is not int or not LEAST <= n <= MOST:
            raise ValueError(f"n: expected an integer in {LEAST} to {MOST}, got {n!r}")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        self.n, self.label = n, label
        self.window, self.dilation, self.causal = window, dilation, causal
        self.global_tokens, self.layers = global_tokens, layers
        data = {
            "label": label,
            "n": n,
            "widest": 2 * (n - 1),
            "dilations": DILATIONS[-1],
            "layers": LAYERS[-1],
        }
        self._ready(data, name)

    @traitlets.validate("window")
    def _valid_window(self, proposal: Any) -> int:
        value, widest = proposal["value"], 2 * (self.n - 1)
        if type(value) is not int or value % 2 or not 2 <= value <= widest:
            raise ValueError(f"window: expected an even integer in 2 to {widest}, got {value!r}")
        return value

    @traitlets.validate("dilation", "layers")
    def _valid_count(self, proposal: Any) -> int:
        value, name = proposal["value"], proposal["trait"].name
        most = {"dilation": DILATIONS, "layers": LAYERS}[name][-1]
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{name}: expected an integer in 1 to {most}, got {value!r}")
        return value

    @traitlets.validate("causal")
    def _valid_causal(self, proposal: Any) -> bool:
        if type(proposal["value"]) is not bool:
            raise ValueError(f"causal: expected True or False, got {proposal['value']!r}")
        return proposal["value"]

    @traitlets.validate("global_tokens")
    def _valid_tokens(self, proposal: Any) -> list[int]:
        given = proposal["value"]
        if not isinstance(given, Iterable):
            raise ValueError(f"global_tokens: expected a list of integers, got {given!r}")
        tokens = list(given)
        for token in tokens:
            if type(token) is not int or not 0 <= token < self.n:
                raise ValueError(
                    f"global_tokens: expected integers in 0 to {self.n - 1}, got {token!r}"
                )
        return sorted(set(tokens))

    def mask(
        self, window: int, dilation: int, causal: bool, global_tokens: Iterable[int]
    ) -> torch.Tensor:
        """Return lib's mask (n, n) for this state, True where query i meets key j."""
        is_global = torch.zeros(self.n, dtype=torch.bool)
        is_global[list(global_tokens)] = True
        mask = window_mask(self.n, window, dilation=dilation, global_mask=is_global)
        return mask & causal_mask(self.n) if causal else mask

    def readout(
        self,
        window: int,
        dilation: int = 1,
        causal: bool = False,
        global_tokens: Iterable[int] = (),
        layers: int = 1,
    ) -> dict[str, Any]:
        """Return what the component shows of one state.

        ``pairs`` that meet, ``window`` of them by the window alone and ``formula`` the same from
        ``lib.sliding_window.count_pairs``; ``added`` by global tokens; ``share`` of all n² pairs;
        ``joined`` pairs after these layers; ``sentence`` all in words.
        """
        tokens = sorted(global_tokens)
        mask = self.mask(window, dilation, causal, tokens)
        alone = self.mask(window, dilation, causal, [])
        formula = count_pairs(self.n, window, dilation=dilation)
        if causal:  # the band is symmetric, and all of its diagonal stays
            formula = (formula + self.n) // 2
        joined = mask
        for _ in range(layers - 1):
            joined = (joined.float() @ mask.float()) > 0
        read = {
            "pairs": int(mask.sum()),
            "window": int(alone.sum()),
            "formula": formula,
            "added": int(mask.sum() - alone.sum()),
            "share": f"{fixed(100 * int(mask.sum()) / self.n**2, 1)} %",
            "joined": int(joined.sum()),
        }
        side = "causal" if causal else "both sides"
        listed = f"global {', '.join(map(str, tokens))}" if tokens else "no global token"
        read["sentence"] = (
            f"{self.n} tokens, w = {window}, dilation {dilation}, {side}, {listed}: "
            f"{read['pairs']} of {self.n**2} pairs meet ({read['share']}), "
            f"{read['window']} in the window and {read['added']} more by global tokens; "
            f"after {_count(layers, 'layer')} {read['joined']} are joined."
        )
        return read

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.STATE}

    def summary(self) -> str:
        return f"{self.label}. {self.readout(**self._state())['sentence']}"

    def _fallback(self) -> str:
        """Return the picture of this state, and a table of some windows."""
        here, widest = self._state(), 2 * (self.n - 1)
        windows = {min(2 << k, widest) for k in range(STATIC_ROWS)} | {self.window}
        rows = []
        for window in sorted(windows):
            read = self.readout(**here | {"window": window})
            numbers = [read[name] for name in ("pairs", "share", "formula", "joined")]
            cells = "".join(f"<td>{number}</td>" for number in numbers)
            rows.append(f'<tr><th scope="row">{window}</th>{cells}</tr>')
        titles = ["w", "pairs", "of all", "formula", "joined"]
        head = "".join(f'<th scope="col">{title}</th>' for title in titles)
        return (
            f"{STATIC_STYLE}<p><strong>{escape(self.label)}</strong></p>{self._picture()}"
            "<p>Rows are queries, columns keys, and the first token is at the top left. "
            f"{escape(self.readout(**here)['sentence'])}</p>"
            '<table class="mp-static"><caption>Other windows; formula: without global tokens'
            "</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
            "<noscript><p>With JavaScript window, dilation, layers and global tokens can be "
            "changed.</p></noscript>"
        )

    def _picture(self) -> str:
        alone = self.mask(self.window, self.dilation, self.causal, [])
        mask = self.mask(self.window, self.dilation, self.causal, self.global_tokens)
        squares = "".join(f"M{j}.06 {i}.06h.88v.88h-.88z" for i, j in alone.nonzero().tolist())
        diamonds = "".join(
            f"M{j}.5 {i}.1l.4 .4l-.4 .4l-.4-.4z" for i, j in (mask & ~alone).nonzero().tolist()
        )
        return (
            f'<svg class="mp-picture" viewBox="0 0 {self.n} {self.n}" role="img" '
            f'aria-label="{escape(self.label)}: the mask of {self.n} by {self.n} pairs">'
            f'<path fill="{COLORS["weights"]}" d="{squares}"/>'
            f'<path fill="{COLORS["key"]}" d="{diamonds}"/></svg>'
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
