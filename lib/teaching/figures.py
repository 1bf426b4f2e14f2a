"""One look for every figure of the book, in light and in dark, on a phone and on paper.

A tensor keeps its colour through the whole book (``COLORS``). What carries meaning in black, text
and axes, is drawn in ``INK``: in the page it becomes ``currentColor`` and follows the theme.

    fig, ax = new_figure()
    ax.plot(d, variance, color=COLORS["scores"])
    show_figure(fig, "fig-attention-variance", "A caption with $d_k$ in it.", "What it shows: …")
"""

from __future__ import annotations

import html
import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from lib.teaching.outputs import publish

# Okabe and Ito's palette, unchanged, for the four tensors. Their orange, sky blue and yellow fall
# below 3:1 on white, so scores and weights have colours of their own: of all that reach 3:1 on
# both backgrounds, these stay far from the others for every kind of colour vision (tested).
COLORS = {
    "query": "#0072B2",
    "key": "#D55E00",
    "value": "#009E73",
    "output": "#CC79A7",
    "scores": "#826834",
    "weights": "#9459E8",
    "reference": "#808080",
}
# The page's two backgrounds: whatever is drawn has to be seen on both.
BACKGROUNDS = {"light": "#ffffff", "dark": "#14181e"}
# Stands for the page's text colour until the SVG is written; not black, which a cell may use.
INK = "#0b0d0f"
GRID = (0.5, 0.5, 0.5, 0.3)  # half-transparent: quiet on both backgrounds
WIDTH, HEIGHT = 5.2, 3.0  # inches; a wider figure would be illegible at 360 px
SMALLEST_TEXT = 9.0  # points
VECTOR_CELLS = 400  # a matrix with more cells is drawn as an image: lighter than that many paths

_ALT_LENGTH = range(40, 251)
_NAME = re.compile(r"fig-[a-z0-9]+(?:-[a-z0-9]+)*")
_CELL = "cell"  # marks text that lies on a coloured cell, and so is not drawn in ink

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.formatter.use_mathtext": True,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.7,
    # line style as well as colour: colour is never the only thing that tells two curves apart
    "axes.prop_cycle": mpl.cycler(
        color=[COLORS[name] for name in ("query", "key", "value", "output", "scores", "weights")]
    )
    + mpl.cycler(linestyle=["-", "--", "-.", (0, (2.5, 1)), (0, (6, 1, 1, 1, 1, 1)), ":"]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "normal",
    "figure.constrained_layout.use": True,
    "figure.dpi": 96,
    "figure.edgecolor": "none",
    "figure.facecolor": "none",
    "figure.figsize": (WIDTH, HEIGHT),
    "figure.titlesize": 11,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "grid.color": GRID[:3],
    "grid.alpha": GRID[3],
    "grid.linewidth": 0.6,
    "hatch.color": "#808080",
    "hatch.linewidth": 0.7,
    "image.cmap": "cividis",
    "image.interpolation": "none",
    "legend.edgecolor": "none",
    "legend.fancybox": False,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "lines.solid_capstyle": "round",
    "mathtext.fontset": "dejavusans",
    "patch.edgecolor": "none",
    "savefig.facecolor": "none",
    "savefig.edgecolor": "none",
    "svg.fonttype": "path",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.direction": "out",
    "xtick.labelsize": 10,
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.7,
    "xtick.minor.size": 0.0,
    "ytick.color": INK,
    "ytick.direction": "out",
    "ytick.labelsize": 10,
    "ytick.major.size": 3.0,
    "ytick.major.width": 0.7,
    "ytick.minor.size": 0.0,
}


def use_style() -> None:
    """Make the book's look the default of matplotlib for this session."""
    # A notebook's backend loads with the first figure, and where it brings settings of its own,
    # as Colab's does, it would then overwrite these.
    plt.close(plt.figure())
    mpl.rcParams.update(_STYLE)


def new_figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **keywords: Any
) -> tuple[Figure, Any]:
    """Return ``plt.subplots`` in the book's size: 5.2 by 3 inches, less a little for each row."""
    size = size or (WIDTH, HEIGHT * (1 + 0.8 * (rows - 1)))
    return plt.subplots(rows, columns, figsize=size, **keywords)


def contrast(first: Any, second: Any) -> float:
    """Return the contrast ratio of WCAG 2 between two opaque colours, from 1 to 21."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def heatmap(
    ax: Axes,
    matrix: Any,
    xlabels: Sequence[str] | None = None,
    ylabels: Sequence[str] | None = None,
    *,
    annotate: bool | str = False,
    cmap: str = "cividis",
    vmin: float | None = None,
    vmax: float | None = None,
    norm: Normalize | None = None,
) -> QuadMesh | AxesImage:
    """Draw a matrix with row 0 on top, one square a cell; return what ``fig.colorbar`` takes.

    ``annotate`` writes each number into its cell (True: two decimals; or a format, ``".1f"``), in
    black or white, whichever reads better there. NaN and −inf, a masked score, stay empty, and are
    hatched unless they are annotated. A small matrix is drawn as vectors, a large one as a sharp
    image of one pixel a cell.
    """
    values = matrix.detach().cpu().double().numpy() if isinstance(matrix, torch.Tensor) else matrix
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"heatmap: expected a matrix, got shape {values.shape}")
    for name, labels, length in (("xlabels", xlabels, 1), ("ylabels", ylabels, 0)):
        if labels is not None and len(labels) != values.shape[length]:
            expected = values.shape[length]
            raise ValueError(f"heatmap: expected {expected} {name}, got {len(labels)}")
    rows, columns = values.shape
    shown = np.ma.masked_invalid(values)
    if norm is None:
        finite = shown.compressed() if shown.count() else np.zeros(1)
        low = float(finite.min()) if vmin is None else vmin
        high = float(finite.max()) if vmax is None else vmax
        norm = Normalize(low, high if high > low else low + 1.0)
    if shown.count() < values.size and not annotate:
        ax.patch.set(hatch="////", facecolor="none", edgecolor=GRID[:3], linewidth=0.0)
    if values.size <= VECTOR_CELLS:
        # edges in the cell's own colour close the hairlines that a viewer leaves between paths
        edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
        mesh = ax.pcolormesh(*edges, shown, cmap=cmap, norm=norm, edgecolors="face", linewidth=0.4)
        ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        ax.set_aspect("equal")
    else:
        mesh = ax.imshow(shown, cmap=cmap, norm=norm, interpolation="none", aspect="equal")
    ax.spines[:].set(visible=True, linewidth=0.5)  # dark cells would melt into a dark page
    ax.tick_params(length=0)
    for axis in (ax.xaxis, ax.yaxis):  # a row has a number, never 2.5
        axis.set_major_locator(MaxNLocator("auto", integer=True))
    if xlabels is not None:
        upright = max(len(str(label)) for label in xlabels) > 2
        ax.set_xticks(range(columns), xlabels, rotation=90 if upright else 0)
    if ylabels is not None:
        ax.set_yticks(range(rows), ylabels)
    if annotate:
        form = annotate if isinstance(annotate, str) else ".2f"
        for (row, column), value in np.ndenumerate(values):
            _annotate(ax, mesh, row, column, value, form)
    return mesh


def _annotate(ax: Axes, mesh: Any, row: int, column: int, value: float, form: str) -> None:
    if math.isfinite(value):
        cell = mesh.cmap(mesh.norm(value))
        black, white = contrast(cell, "#000000"), contrast(cell, "#ffffff")
        colour, gid = ("#000000" if black >= white else "#ffffff"), _CELL
        text = f"{value:{form}}"
        if not any(digit in text for digit in "123456789"):
            text = text.replace("-", "")  # a rounded zero has no sign
        text = text.replace("-", "−")
    else:  # an empty cell shows the page, so its text is ink
        colour, gid = INK, None
        text = "" if math.isnan(value) else "∞" if value > 0 else "−∞"
    ax.text(
        column, row, text, ha="center", va="center", color=colour, gid=gid, fontsize=SMALLEST_TEXT
    )


def show_figure(fig: Figure, name: str, caption: str, alt: str) -> None:
    """Show a figure as inline SVG with its caption and its text alternative, and close it.

    ``caption`` is text with ``$…$`` math (the book sets `` `code` `` and ``*emphasis*`` too);
    ``alt`` says in 40 to 250 characters what the figure shows. Raises ValueError for what a reader
    could not see: a figure wider than 5.2 inches, text below 9 pt, cut off, overlapping or not in
    ink, a line without contrast.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"show_figure: expected a name like fig-attention-scale, got {name!r}")
    if len(alt) not in _ALT_LENGTH or alt != alt.strip() or "\n" in alt:
        raise ValueError(
            f"{name}: expected an alt of 40 to 250 characters in one line, got {len(alt)}"
        )
    if not caption.strip() or caption.count("$") % 2:
        raise ValueError(f"{name}: expected a caption with its $ in pairs, got {caption!r}")
    _lint(fig, name)
    fig.set_layout_engine("none")  # what was looked at is what is shown; a second layout costs time
    svg = figure_svg(fig, name)
    plt.close(fig)
    publish(
        {
            "text/plain": f"Figure {name}: {alt}",
            "text/html": f'<figure class="book-figure" id="{name}">'
            f'<div class="book-figure-image" role="img" aria-label="{html.escape(alt)}">{svg}</div>'
            f"<figcaption>{html.escape(caption, quote=False)}</figcaption></figure>",
        }
    )


def _lint(fig: Figure, name: str) -> None:
    """Raise ValueError naming the first thing in ``fig`` that some reader could not see."""
    width = fig.get_size_inches()[0]
    if width > WIDTH + 1e-6:
        raise ValueError(
            f"{name}: {width:.1f} in is wider than {WIDTH} in; stack the panels instead"
        )
    fig.draw_without_rendering()  # lays the figure out, and gives the ticks their texts
    placed: list[tuple[str, Bbox]] = []
    for text in _drawn(fig, Text):
        words, size = repr(text.get_text()), text.get_fontsize()
        if not text.get_text().strip():
            continue
        if size < SMALLEST_TEXT - 1e-6:
            raise ValueError(f"{name}: text {words} has {size:.1f} pt, expected 9 or more")
        colour = to_hex(text.get_color())
        if colour != INK and text.get_gid() != _CELL:
            raise ValueError(
                f"{name}: text {words} is {colour}, not ink: call start() or use_style() before "
                "plotting, and leave the colour of text alone"
            )
        # one pixel of tolerance on each side: glyphs end between pixels
        box = text.get_window_extent().padded(-1)
        if not (fig.bbox.x0 <= box.x0 and box.x1 <= fig.bbox.x1) or not (
            fig.bbox.y0 <= box.y0 and box.y1 <= fig.bbox.y1
        ):
            raise ValueError(f"{name}: text {words} is cut off at the figure's edge")
        for other, taken in placed:
            if box.overlaps(taken) and text.get_rotation() % 90 == 0:
                raise ValueError(f"{name}: texts {other} and {words} overlap")
        placed.append((words, box))
    for ax in fig.axes:
        for line in ax.lines:
            colour = to_hex(line.get_color())
            seen = min(contrast(colour, background) for background in BACKGROUNDS.values())
            if line.get_visible() and colour != INK and seen < 3:
                raise ValueError(f"{name}: a line in {colour} has contrast {seen:.1f}, expected 3")


def _drawn(artist: Artist, kind: type) -> Iterator[Any]:
    """Yield the artists of one kind that are drawn: visible, and so is all that holds them."""
    if not artist.get_visible():
        return
    if isinstance(artist, kind):
        yield artist
    children = artist.get_children()
    if isinstance(artist, Axes) and not artist.axison:
        children = [child for child in children if not isinstance(child, Axis)]
    if isinstance(artist, Axis):  # matplotlib keeps ticks beyond the limits, and does not draw them
        low, high = sorted(artist.get_view_interval())
        slack = 1e-6 * (high - low)
        ticks = [*artist.get_major_ticks(), *artist.get_minor_ticks()]
        hidden = {id(t) for t in ticks if not low - slack <= t.get_loc() <= high + slack}
        children = [child for child in children if id(child) not in hidden]
    for child in children:
        yield from _drawn(child, kind)


_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_URL = re.compile(r"url\(#([^)]+)\)")
_LONG = re.compile(r"-?\d+\.\d{3,}(?:e[+-]?\d+)?")
_TRANSLATE = re.compile(r"translate\([^)]*\)")


def figure_svg(fig: Figure, name: str) -> str:
    """Return a figure as SVG that can stand inline on a page, next to others.

    Its ids carry ``name``; ink is ``currentColor``; the same figure gives the same bytes.
    """
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg")
    # The parser drops the comments, the prolog and the doctype. The date goes with the metadata,
    # and matplotlib's random ids go below.
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # the style sheet in there would reach every element of the page
            if child.tag in (_SVG + "metadata", _SVG + "style"):
                parent.remove(child)
    _prune(root)
    referred = {name for element in root.iter() for name in _references(element)}
    found = [e.get("id") for e in root.iter() if e.get("id") in referred]
    ids = {old: f"{name}-{number}" for number, old in enumerate(dict.fromkeys(found))}
    for element in root.iter():
        _rewrite(element, ids)
    width = fig.get_size_inches()[0] * 96  # CSS pixels
    root.attrib.pop("height", None)
    root.set("width", "100%")
    root.set(
        "style",
        f"max-width: {width:.0f}px; height: auto; stroke-linejoin: round; stroke-linecap: butt",
    )
    root.set("aria-hidden", "true")  # the frame around it speaks: role, label
    root.set("focusable", "false")
    text = ET.tostring(root, encoding="unicode", default_namespace=None)
    # written without a prefix, as HTML wants it
    text = text.replace("<ns0:", "<").replace("</ns0:", "</").replace("xmlns:ns0=", "xmlns=")
    return re.sub(r">\s+<", "><", text).strip()


def _prune(element: ET.Element) -> None:
    """Drop what draws nothing: empty groups, and shapes with neither fill nor stroke."""
    for child in list(element):
        _prune(child)
        empty = child.tag in (_SVG + "g", _SVG + "defs") and len(child) == 0
        if empty or (child.tag == _SVG + "path" and child.get("style") == "fill: none"):
            element.remove(child)


def _references(element: ET.Element) -> list[str]:
    """Return the ids that an element refers to."""
    links = [element.get(_HREF, ""), element.get("href", "")]
    return [
        *(link[1:] for link in links if link.startswith("#")),
        *_URL.findall(" ".join(element.attrib.values())),
    ]


def _rewrite(element: ET.Element, ids: dict[str, str]) -> None:
    """Give an element its new ids, the page's ink, and coordinates of two decimals."""
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        if key == "id":
            if value not in ids:
                continue
            value = ids[value]
        elif key in (_HREF, "href"):
            key = "href"
            value = f"#{ids[value[1:]]}" if value.startswith("#") else value
        elif key in ("style", "fill", "stroke"):
            value = value.replace(INK, "currentColor")
        elif key in ("d", "points", "x", "y", "width", "height", "cx", "cy", "r"):
            value = " ".join(_LONG.sub(_rounded, value).split())
        elif key == "transform":  # a rounded scale would bend the letters; a shift may be rounded
            value = _TRANSLATE.sub(lambda match: _LONG.sub(_rounded, match.group()), value)
        element.set(key, _URL.sub(lambda match: f"url(#{ids[match.group(1)]})", value))


def _rounded(match: re.Match[str]) -> str:
    """Return a coordinate with two decimals: a hundredth of a point is below any screen's pixel."""
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")
