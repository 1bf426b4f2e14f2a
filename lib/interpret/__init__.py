"""Which inputs does an answer rest on? Methods that ask a model, and what each of them proves.

All take a function `f` of a batch that returns one number a row, such as one class's logit.
"""

from lib.interpret.deletion import deletion_curve
from lib.interpret.gradients import (
    completeness_gap,
    gradient_times_input,
    integrated_gradients,
    quadrature,
)

__all__ = [
    "completeness_gap",
    "deletion_curve",
    "gradient_times_input",
    "integrated_gradients",
    "quadrature",
]
