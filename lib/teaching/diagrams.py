"""Drawings of matrix products, to scale, networks and residual blocks, in the book's colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

from lib.teaching.figures import COLORS, INK

Node = tuple[int, int]  # row, from the bottom, and place in it, from the left


@dataclass(frozen=True)
class Matrix:
    """One matrix: its name, the labels of its two dimensions, their lengths, and its colour."""

    name: str
    rows: str
    columns: str
    height: float
    width: float
    color: str


def matrix_products(
    ax: Axes, products: Sequence[Sequence[Matrix | tuple[str, float]]], *, gap: float = 0.4
) -> None:
    """Draw rows of matrices and operators, such as Q × Kᵀ = S, all on one scale.

    products: one sequence a row. A Matrix is drawn as a box with its dimensions written at the
        left and above; a pair (text, width) is an operator with the room that it takes. Equal
        dimensions are drawn equally long, within a row and across rows.
    """
    top, widest = 0.0, 0.0
    for row in products:
        tallest = max(item.height for item in row if isinstance(item, Matrix))
        middle, x = top - tallest / 2, 0.0
        for item in row:
            if isinstance(item, Matrix):
                x += gap  # room for the label of the rows
                _draw(ax, item, x, middle)
                x += item.width
            else:
                text, width = item
                ax.text(x + width / 2 + 0.1, middle, text, ha="center", va="center", color=INK)
                x += width
        widest = max(widest, x)
        top -= tallest + 1.0
    ax.set(xlim=(-0.05, widest + 0.1), ylim=(top + 0.9, 0.5))
    ax.set_aspect("equal")
    ax.axis("off")


def _draw(ax: Axes, matrix: Matrix, x: float, middle: float) -> None:
    corner, size = (x, middle - matrix.height / 2), (matrix.width, matrix.height)
    ax.add_patch(Rectangle(corner, *size, facecolor=matrix.color, alpha=0.25, linewidth=0))
    ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=matrix.color, linewidth=2))
    center = x + matrix.width / 2
    style = {"color": INK, "fontsize": 10}
    ax.text(center, middle, matrix.name, ha="center", va="center", color=INK, fontsize=13)
    ax.text(x - 0.08, middle, matrix.rows, ha="right", va="center", **style)
    ax.text(center, middle + matrix.height / 2 + 0.1, matrix.columns, ha="center", **style)


def network(
    ax: Axes,
    rows: Sequence[Sequence[str]],
    edges: Sequence[tuple[Node, Node]],
    *,
    path: Sequence[Node] = (),
    color: str = COLORS["query"],
) -> None:
    """Draw named nodes in rows, the first at the bottom, with arrows between them.

    edges: pairs (from, to) of nodes (row, place).
    path: nodes that follow each other along edges; it is drawn thick and in `color`.

    ValueError for an edge to a node that is not there, and for a step of the path that no edge
    makes: a drawing must not show a way that does not exist.
    """
    there = {(r, c) for r, row in enumerate(rows) for c in range(len(row))}
    for start, end in edges:
        for node in (start, end):
            if node not in there:
                raise ValueError(f"edges: expected nodes of the rows, got {node}")
    steps = list(pairwise(path))
    for step in steps:
        if step not in edges:
            raise ValueError(f"path: expected steps along edges, got {step[0]} to {step[1]}")
    for start, end in edges:
        marked = (start, end) in steps
        arrow = FancyArrowPatch(
            (start[1], start[0]),
            (end[1], end[0]),
            arrowstyle="-|>",
            mutation_scale=11 if marked else 7,
            shrinkA=11,
            shrinkB=11,
            linewidth=2.4 if marked else 0.8,
            color=color if marked else COLORS["reference"],
            zorder=2 if marked else 1,
        )
        ax.add_patch(arrow)
    for r, row in enumerate(rows):
        for c, name in enumerate(row):
            edge = color if (r, c) in path else COLORS["reference"]
            ax.add_patch(Circle((c, r), 0.25, facecolor="none", edgecolor=edge, linewidth=1.5))
            ax.text(c, r, name, ha="center", va="center", color=INK, fontsize=9.5)
    widest = max(len(row) for row in rows)
    ax.set(xlim=(-0.4, widest - 0.6), ylim=(-0.4, len(rows) - 0.6))
    ax.set_aspect("equal")
    ax.axis("off")


def residual_block(ax: Axes, sublayers: Sequence[str], *, norm: str) -> None:
    """Draw a Transformer block from bottom to top: a stream, and one branch a sublayer.

    norm: "post" puts a box LN on the stream, above each sum; "pre" puts it into the branch, below
        the sublayer, and leaves the stream free.
    """
    if norm not in ("post", "pre"):
        raise ValueError(f"norm: expected 'post' or 'pre', got {norm!r}")
    stream, branch, rise = 0.0, 2.4, 3.0
    top = rise * len(sublayers) + 0.5
    start = -0.2
    for number, name in enumerate(sublayers):
        low = rise * number
        boxes = {"post": [(0.95, name)], "pre": [(0.85, "LN"), (1.85, name)]}[norm]
        join = low + {"post": 1.75, "pre": 2.65}[norm]
        at = low + 0.15
        _line(ax, (stream, at), (branch, at))
        for height, text in boxes:
            _line(ax, (branch, at), (branch, low + height - 0.3))
            _box(ax, branch, low + height, text)
            at = low + height + 0.3
        _line(ax, (branch, at), (branch, join))
        _line(ax, (branch, join), (stream + 0.22, join))
        _line(ax, (stream, start), (stream, join - 0.22))
        ax.plot(stream, join, "o", markersize=14, fillstyle="none", color=COLORS["reference"])
        ax.text(stream, join, "+", ha="center", va="center", fontsize=12, color=INK)
        start = join + 0.22
        if norm == "post":
            _line(ax, (stream, start), (stream, low + 2.2))
            _box(ax, stream, low + 2.5, "LN")
            start = low + 2.8
    ax.annotate("", (stream, top), (stream, start), arrowprops={"arrowstyle": "->", "color": INK})
    ax.text(stream, -0.5, "x", ha="center", va="center", color=INK, fontsize=11)
    ax.set(xlim=(-1.0, branch + 1.5), ylim=(-0.9, top + 0.1))
    ax.axis("off")


def _line(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"color": INK, "linestyle": "-", "linewidth": 1.5, "solid_capstyle": "projecting"}
    ax.plot(*zip(start, end, strict=True), **style)


def _box(ax: Axes, x: float, y: float, text: str) -> None:
    width, color = (1.1, COLORS["value"]) if text == "LN" else (2.6, COLORS["query"])
    corner, size = (x - width / 2, y - 0.3), (width, 0.6)
    ax.add_patch(Rectangle(corner, *size, facecolor=color, alpha=0.25, linewidth=0))
    ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=2))
    ax.text(x, y, text, ha="center", va="center", color=INK, fontsize=10)
