"""ShapleyGame: what three players are worth together, who adds what in which order, and means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import traitlets

from lib.teaching.components.base import Component, escape, fixed

# Entry k − 1 of `worths` is of the players i where bit i of k is 1.
COALITIONS = tuple(tuple(i for i in range(3) if k >> i & 1) for k in range(1, 8))
ORDERS = tuple(permutations(range(3)))
MOST = 12
EXAMPLES = {
    "gloves": [0, 0, 12, 0, 12, 0, 12],
    "majority": [0, 0, 12, 0, 12, 12, 12],
    "additive": [2, 4, 6, 6, 8, 10, 12],
    "a dummy": [3, 3, 12, 0, 3, 3, 12],
}

STATIC_STYLE = """<style>
.component .sg-static{border-collapse:collapse;font-size:.9rem;margin:0 0 .75rem}
.component .sg-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem;
overflow-wrap:anywhere}
.component .sg-static :is(th,td){padding:.15rem min(.6rem,1.4vw);text-align:right;font-weight:400;
overflow-wrap:anywhere}
.component .sg-static thead th{border-bottom:1px solid}
.component .sg-static tfoot :is(th,td){border-top:1px solid;font-weight:600}
</style>"""


class ShapleyGame(Component):
    """Show the six orders in which three players may arrive, what each adds, and the means.

    The reader sets what each of the seven coalitions is worth, from 0 to 12; nobody is worth 0. The
    table has a row for each order of arrival; its entries are marginal contributions, and the mean
    of each column is that player's Shapley value.

    Args:
        players: the names of three players.
        examples: for each name of a game its seven worths, as buttons.
        worths: where to begin, seven integers from 0 to 12, in the order of ``COALITIONS``: A, B,
            AB, C, AC, BC, ABC; by default the first example.
        label: what the reader sees as the title.
        name: the id in the page; by default made from the content.

    Attributes:
        worths: what is shown, a list of seven. Set it, observe it.

    Raises:
        ValueError: one line, with expected and got, if an argument is out of its range.
    """

    MODULE = "shapley_game.js"
    STATE = ("worths",)

    worths = traitlets.Any()

    def __init__(
        self,
        players: Sequence[str] = ("A", "B", "C"),
        *,
        examples: Mapping[str, Sequence[int]] | None = None,
        worths: Sequence[int] | None = None,
        label: str = "Three players, six orders of arrival",
        name: str | None = None,
    ) -> None:
        super().__init__()
        if len(players) != 3 or not all(isinstance(p, str) and p.strip() for p in players):
            raise ValueError(f"players: expected three names, got {players!r}")
        if len(set(players)) != 3:
            raise ValueError(f"players: expected three different names, got {players!r}")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        self.players, self.label = list(players), label
        given = EXAMPLES if examples is None else examples
        self.examples = {what: _worths(f"examples[{what!r}]", of) for what, of in given.items()}
        if not self.examples:
            raise ValueError("examples: expected one game or more, got none")
        self.worths = next(iter(self.examples.values())) if worths is None else worths
        self._ready(self._page_data(), name)

    @traitlets.validate("worths")
    def _valid_worths(self, proposal: Any) -> list[int]:
        return _worths("worths", proposal["value"])

    def readout(self, worths: Sequence[int] | None = None) -> dict[str, Any]:
        """Return what is shown of a game, by default of this one: ``gains``, ``values``.

        ``gains`` has a row for each of ``ORDERS`` and a column for each player, ``values`` the mean
        of each column.
        """
        worth = [0, *(self.worths if worths is None else _worths("worths", worths))]
        gains = []
        for order in ORDERS:
            row, present = [0, 0, 0], 0
            for i in order:
                row[i] = worth[present | 1 << i] - worth[present]
                present |= 1 << i
            gains.append(row)
        return {"gains": gains, "values": [sum(column) / 6 for column in zip(*gains, strict=True)]}

    def summary(self) -> str:
        return f"{self.label}: {self._sentence()}"

    def _sentence(self) -> str:
        values = self.readout()["values"]
        listed = ", ".join(
            f"{player} {fixed(value, 2)}"
            for player, value in zip(self.players, values, strict=True)
        )
        return f"Shapley values: {listed}. They sum to {self.worths[-1]}, the worth of all three."

    def _page_data(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "players": self.players,
            "most": MOST,
            "coalitions": [list(one) for one in COALITIONS],
            "orders": [list(one) for one in ORDERS],
            "examples": [[what, of] for what, of in self.examples.items()],
        }

    def _fallback(self) -> str:
        read = self.readout()
        names = [escape(player) for player in self.players]
        head = "".join(f'<th scope="col">{text}</th>' for text in ("order of arrival", *names))
        rows = "".join(
            f'<tr><th scope="row">{", ".join(names[i] for i in order)}</th>'
            + "".join(f"<td>{fixed(gain, 0)}</td>" for gain in row)
            + "</tr>"
            for order, row in zip(ORDERS, read["gains"], strict=True)
        )
        means = "".join(f"<td>{fixed(value, 2)}</td>" for value in read["values"])
        worth = "; ".join(
            f"{' and '.join(names[i] for i in one)} {number}"
            for one, number in zip(COALITIONS, self.worths, strict=True)
        )
        return (
            f'{STATIC_STYLE}<table class="sg-static"><caption><strong>{escape(self.label)}'
            f"</strong>: who adds how much. Worths: {worth}.</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
            f'<tfoot><tr><th scope="row">mean</th>{means}</tr></tfoot></table>'
            f"<p>{escape(self._sentence())}</p>"
            "<noscript><p>With JavaScript every worth can be changed.</p></noscript>"
        )


def _worths(what: str, given: Any) -> list[int]:
    fits = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 7
    if not fits or any(type(x) is not int or not 0 <= x <= MOST for x in given):
        raise ValueError(f"{what}: expected seven integers from 0 to {MOST}, got {given!r}")
    return list(given)
