"""Drawings of matrix products: boxes to scale, named and coloured as in the whole book."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lib.teaching.figures import INK


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
