"""Which inputs does an answer rest on? Methods that ask a model, and what each of them proves.

All take a function `f` of a batch that returns one number a row, such as one class's logit.
"""

from lib.interpret.attention import (
    ablate_heads,
    attention_norms,
    attention_rollout,
    equal_output_weights,
    kendall_tau,
    permuted_weights,
    replace_weights,
    uniform_weights,
)
from lib.interpret.deletion import deletion_curve
from lib.interpret.gradients import (
    completeness_gap,
    gradient_times_input,
    integrated_gradients,
    quadrature,
)
from lib.interpret.shapley import (
    coalitions,
    kernel_shap,
    permutation_shap,
    shapley_kernel,
    shapley_values,
)
from lib.interpret.surrogate import Surrogate, lime, weighted_least_squares

__all__ = [
    "Surrogate",
    "ablate_heads",
    "attention_norms",
    "attention_rollout",
    "coalitions",
    "completeness_gap",
    "deletion_curve",
    "equal_output_weights",
    "gradient_times_input",
    "integrated_gradients",
    "kendall_tau",
    "kernel_shap",
    "lime",
    "permutation_shap",
    "permuted_weights",
    "quadrature",
    "replace_weights",
    "shapley_kernel",
    "shapley_values",
    "uniform_weights",
    "weighted_least_squares",
]
