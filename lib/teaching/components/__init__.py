"""Interactive figures: one ES module each, inline in the book, a widget where a kernel runs."""

from __future__ import annotations

from lib.teaching.components.attention_rows import AttentionRows
from lib.teaching.components.base import Component
from lib.teaching.components.cost_calculator import CostCalculator
from lib.teaching.components.curve_explorer import CurveExplorer
from lib.teaching.components.mask_painter import MaskPainter
from lib.teaching.components.position_rotation import PositionRotation
from lib.teaching.components.sampling import Sampling
from lib.teaching.components.scale_planner import ScalePlanner
from lib.teaching.components.shapley_game import ShapleyGame
from lib.teaching.components.temperature_softmax import TemperatureSoftmax
from lib.teaching.components.tile_stepper import TileStepper
from lib.teaching.components.token_strip import TokenStrip

__all__ = [
    "AttentionRows",
    "Component",
    "CostCalculator",
    "CurveExplorer",
    "MaskPainter",
    "PositionRotation",
    "Sampling",
    "ScalePlanner",
    "ShapleyGame",
    "TemperatureSoftmax",
    "TileStepper",
    "TokenStrip",
]
