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

__all__ = [
    "ablate_heads",
    "attention_norms",
    "attention_rollout",
    "equal_output_weights",
    "kendall_tau",
    "permuted_weights",
    "replace_weights",
    "uniform_weights",
]
