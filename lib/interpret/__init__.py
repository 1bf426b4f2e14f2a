"""Which inputs does an answer rest on? Methods that ask a model, and what each of them proves.

All take a function `f` of a batch that returns one number a row, such as one class's logit.
"""

from lib.interpret.surrogate import Surrogate, lime, weighted_least_squares

__all__ = ["Surrogate", "lime", "weighted_least_squares"]
