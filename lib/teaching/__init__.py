"""The teaching apparatus: what the chapters use to check, to draw, and to grade.

It needs torch, numpy, matplotlib and IPython, which Colab has; nothing of the book's build.
The core of ``lib`` never imports it.
"""

from __future__ import annotations

from lib.teaching.broken import catches
from lib.teaching.checks import check
from lib.teaching.components import (
    AttentionRows,
    CostCalculator,
    CurveExplorer,
    MaskPainter,
    PositionRotation,
    Sampling,
    ScalePlanner,
    ShapleyGame,
    TemperatureSoftmax,
    TileStepper,
    TokenStrip,
)
from lib.teaching.exercises import diagnose, grade
from lib.teaching.figures import COLORS, INK, heatmap, new_figure, show_figure, use_style
from lib.teaching.outputs import glue
from lib.teaching.progress import Progress
from lib.teaching.session import official, start

__all__ = [
    "COLORS",
    "INK",
    "AttentionRows",
    "CostCalculator",
    "CurveExplorer",
    "MaskPainter",
    "PositionRotation",
    "Progress",
    "Sampling",
    "ScalePlanner",
    "ShapleyGame",
    "TemperatureSoftmax",
    "TileStepper",
    "TokenStrip",
    "catches",
    "check",
    "diagnose",
    "glue",
    "grade",
    "heatmap",
    "new_figure",
    "official",
    "show_figure",
    "start",
    "use_style",
]
