"""Mutants: hand-made mistakes in lib, each of which a test must notice.

A mutant replaces one fragment of a module's source by a wrong one, and names the test that is there
to notice. It dies if that test fails. A line that can be wrong while all tests pass has no test.

    python tests/mutants.py                     run every mutant, one line each
    python tests/mutants.py lib/attention.py    those of this module

To add one, append `Mutant(path, old, new, why, test)` to MUTANTS; tests/test_mutants.py then
demands its death. `old` has to occur exactly once in the module and `test` has to exist, so a
mutant of what has since changed is an error, not a mutant that "dies".

How it runs. One process imports torch, pytest and what the tests import of other packages, but
nothing of lib. It forks for each module; there the modules of lib that do not import the mutated
one are imported, and a fork for each mutant puts the mutated module into `sys.modules` (no file
changes) and runs the test, up to its first failure. As a control what failed is also run on the
source as it is, with the same parameters, and has to pass: where everything fails, everything would
"die".
"""

import ast
import contextlib
import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import io
import json
import linecache
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import hypothesis
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
FORK = multiprocessing.get_context("fork")
OWN = ("lib", "tests", "conftest")
# What is imported late, by the first model or picture: once before the forks, not again in each.
FAMILIES = ("bert", "distilbert", "electra", "gpt2", "longformer", "marian", "t5", "vit")
HEAVY = {  # what imports it
    "tests/models/": [f"transformers.models.{name}.modeling_{name}" for name in FAMILIES],
    "tests/test_data.py": ["sklearn.datasets"],
    "tests/test_attention.py": ["torch._dynamo"],
    "tests/test_compression.py": ["torch._dynamo"],
    "lib/teaching/": ["IPython.display", "matplotlib.pyplot"],
    "lib/training.py": ["torch._dynamo"],  # by the first optimiser, or graph
    "tests/test_distributed.py": ["torch.distributed.fsdp"],
}

# The plugins of pytest that the settings and the tests need; the others take time to start.
PLUGINS = ("_hypothesis_pytestplugin", "pytest_timeout")
OPTIONS = [
    *("-x", "--assert=plain", "--tb=line", "-p", "no:cacheprovider"),
    *("-o", "addopts=--import-mode=importlib --strict-markers --strict-config"),
]


@dataclass(frozen=True)
class Mutant:
    path: str  # of the module, from the root: lib/attention.py
    old: str
    new: str
    why: str  # the mistake, in words
    test: str  # test_name in the module's test file, or tests/test_other.py::test_name

    def source(self) -> str:
        """The mutated source. ValueError if this is no longer a mutant."""
        text = (ROOT / self.path).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.path}: expected {self.old!r} once, found it {count} times")
        if self.new == self.old:
            raise ValueError(f"{self.path}: {self.old!r} is replaced by itself")
        return text.replace(self.old, self.new)

    def test_id(self) -> str:
        """tests mirrors lib: lib/teaching/checks.py is tested by tests/teaching/test_checks.py."""
        if "::" in self.test:
            return self.test
        folder, name = Path(self.path).parent, Path(self.path).name
        return f"{Path('tests', *folder.parts[1:], f'test_{name}').as_posix()}::{self.test}"


@dataclass(frozen=True)
class Outcome:
    path: str
    why: str
    control: bool
    exit_code: int  # pytest's: 0 all passed, 1 some failed; more: it did not run as it should
    failed: str  # the first test that failed, or the reason why none ran
    seconds: float

    @property
    def right(self) -> bool:
        return self.exit_code == (0 if self.control else 1)


ATTENTION = "lib/attention.py"
MUTANTS = [
    # the formula, line by line
    Mutant(
        ATTENTION,
        "logits = query @ key.mT / math.sqrt(query.shape[-1])  # (..., n_q, n_k)",
        "logits = query @ key.mT  # (..., n_q, n_k)",
        "no scale (D09)",
        "test_two_keys_give_the_logistic_function",
    ),
    Mutant(
        ATTENTION,
        "logits = query @ key.mT / math.sqrt(query.shape[-1])  # (..., n_q, n_k)",
        "logits = query @ key.mT / query.shape[-1]",
        "scale by d_k instead of its root",
        "test_two_keys_give_the_logistic_function",
    ),
    Mutant(
        ATTENTION,
        "logits = query @ key.mT / math.sqrt(query.shape[-1])  # (..., n_q, n_k)",
        "logits = query @ key.mT / math.sqrt(value.shape[-1])",
        "scale by √d_v",
        "test_two_keys_give_the_logistic_function",
    ),
    Mutant(
        ATTENTION,
        "logits = query @ key.mT / math.sqrt(query.shape[-1])  # (..., n_q, n_k)",
        "logits = query @ key.mT / math.sqrt(key.shape[-2])",
        "scale by √n_k",
        "test_two_keys_give_the_logistic_function",
    ),
    Mutant(
        ATTENTION,
        "            weights = logits.softmax(dim=-1)\n",
        "            weights = logits.softmax(dim=-2)\n",
        "softmax over the queries",
        "test_equal_keys_give_the_mean",
    ),
    Mutant(
        ATTENTION,
        "weights = logits.softmax(dim=-1).masked_fill(empty, 0.0)",
        "weights = logits.softmax(dim=-2).masked_fill(empty, 0.0)",
        "softmax over the queries, with a mask",
        "test_a_forbidden_key_weighs_exactly_nothing",
    ),
    Mutant(
        ATTENTION,
        "_apply_mask(logits, mask).masked_fill(empty, 0.0)",
        "_apply_mask(logits, mask)",
        "no guard before the softmax: 0/0 in a row without keys (D22)",
        "test_an_empty_row_is_zero_in_value_and_gradient",
    ),
    Mutant(
        ATTENTION,
        "weights = logits.softmax(dim=-1).masked_fill(empty, 0.0)",
        "weights = logits.softmax(dim=-1)",
        "a row without keys attends to all of them (D22)",
        "test_the_weights_of_an_empty_row_are_zero",
    ),
    Mutant(
        ATTENTION,
        "_apply_mask(logits, mask).masked_fill(empty, 0.0)",
        "logits.masked_fill(empty, 0.0)",
        "the mask is ignored",
        "test_a_forbidden_key_weighs_exactly_nothing",
    ),
    Mutant(
        ATTENTION,
        "            weights = F.dropout(weights, dropout)",
        "            weights = F.dropout(logits, dropout).softmax(dim=-1)",
        "dropout before the softmax (D10)",
        "test_dropout_comes_after_the_softmax_and_is_unbiased",
    ),
    Mutant(
        ATTENTION,
        "weights = F.dropout(weights, dropout)",
        "weights = weights * (torch.rand_like(weights) >= dropout)",
        "dropout that does not rescale",
        "test_dropout_comes_after_the_softmax_and_is_unbiased",
    ),
    Mutant(
        ATTENTION,
        "weights = F.dropout(weights, dropout)",
        "weights = F.dropout(weights, 1 - dropout)",
        "dropout as the probability to keep",
        "test_dropout_comes_after_the_softmax_and_is_unbiased",
    ),
    Mutant(
        ATTENTION,
        "weights = F.dropout(weights, dropout)",
        "weights = F.dropout(weights, dropout, training=False)",
        "dropout never applied",
        "test_dropout_follows_the_seed",
    ),
    Mutant(
        ATTENTION,
        "            weights = F.dropout(weights, dropout)\n        output = weights @ value",
        "            value = F.dropout(value, dropout)\n        output = weights @ value",
        "dropout on the values instead of the weights",
        "test_gradient_through_dropout",
    ),
    Mutant(
        ATTENTION,
        "    return (output, weights.to(dtype)) if return_weights else output",
        "    return (output, logits.to(dtype)) if return_weights else output",
        "logits returned as weights",
        "test_the_weights_are_those_that_mixed_the_values",
    ),
    Mutant(
        ATTENTION,
        "    output = output.to(dtype)\n",
        "",
        "half precision comes back as float32",
        "test_equals_torch",
    ),
    # masks
    Mutant(
        ATTENTION,
        "return logits.masked_fill(~mask, -math.inf)",
        "return logits.masked_fill(mask, -math.inf)",
        "polarity: True hides (D38)",
        "test_a_forbidden_key_weighs_exactly_nothing",
    ),
    Mutant(
        ATTENTION,
        "return logits.masked_fill(~mask, -math.inf)",
        "return logits.masked_fill(~mask, -1e9)",
        "−1e9 instead of −inf (D22)",
        "test_what_is_masked_stays_masked_below_any_constant",
    ),
    Mutant(
        ATTENTION,
        "return logits.masked_fill(~mask, -math.inf)",
        "return logits.masked_fill(~mask, 0.0)",
        "forbidden logits set to 0, which has weight",
        "test_a_forbidden_key_weighs_exactly_nothing",
    ),
    Mutant(
        ATTENTION,
        "return logits + mask",
        "return logits * mask",
        "bias multiplied",
        "test_equals_the_loops",
    ),
    Mutant(
        ATTENTION,
        "return logits + mask",
        "return logits - mask",
        "bias subtracted",
        "test_equals_the_loops",
    ),
    Mutant(
        ATTENTION,
        "return ~mask.any(dim=-1, keepdim=True)",
        "return ~mask.all(dim=-1, keepdim=True)",
        "a row with one forbidden key counts as empty",
        "test_a_forbidden_key_weighs_exactly_nothing",
    ),
    Mutant(
        ATTENTION,
        "return ~mask.any(dim=-1, keepdim=True)",
        "return ~mask.any(dim=-2, keepdim=True)",
        "empty columns instead of empty rows",
        "test_equals_the_loops",
    ),
    Mutant(
        ATTENTION,
        "return mask.amax(dim=-1, keepdim=True) == -math.inf",
        "return mask.amin(dim=-1, keepdim=True) == -math.inf",
        "a bias with one −inf counts as empty",
        "test_equals_the_loops",
    ),
    Mutant(
        ATTENTION,
        "return mask.amax(dim=-1, keepdim=True) == -math.inf",
        "return mask.amax(dim=-1, keepdim=True) < 0",
        "a bias of negative numbers counts as empty",
        "test_equals_the_loops",
    ),
    Mutant(
        ATTENTION,
        ".tril(diagonal=n_k - n_q)",
        ".tril()",
        "causal mask aligned top left: wrong with a cache",
        "test_decoding_with_a_cache",
    ),
    Mutant(
        ATTENTION,
        ".tril(diagonal=n_k - n_q)",
        ".tril(diagonal=n_k - n_q + 1)",
        "causal mask off by one: sees the next token (D14)",
        "test_no_output_depends_on_the_future",
    ),
    Mutant(
        ATTENTION,
        ".tril(diagonal=n_k - n_q)",
        ".tril(diagonal=n_k - n_q - 1)",
        "causal mask off by one: cannot see itself",
        "test_the_causal_jacobian_is_lower_triangular",
    ),
    Mutant(
        ATTENTION,
        ".tril(diagonal=n_k - n_q)",
        ".triu(diagonal=n_k - n_q)",
        "causal mask that hides the past",
        "test_no_output_depends_on_the_future",
    ),
    Mutant(
        ATTENTION,
        "torch.ones(n_q, n_k, dtype=torch.bool, device=device)",
        "torch.ones(n_q, n_k, dtype=torch.bool)",
        "causal mask on the wrong device",
        "test_masks_are_made_on_the_device",
    ),
    Mutant(
        ATTENTION,
        "torch.arange(n, device=lengths.device) < lengths[:, None]",
        "torch.arange(n, device=lengths.device) <= lengths[:, None]",
        "padding mask off by one: a pad is real",
        "test_padding_has_no_influence",
    ),
    Mutant(
        ATTENTION,
        "torch.arange(n, device=lengths.device) < lengths[:, None]",
        "torch.arange(1, n + 1, device=lengths.device) < lengths[:, None]",
        "padding mask off by one: the last token is a pad",
        "test_padding_mask_by_definition",
    ),
    Mutant(
        ATTENTION,
        "torch.arange(n, device=lengths.device) < lengths[:, None]",
        "torch.arange(n, device=lengths.device) >= lengths[:, None]",
        "padding mask with True = pad (D38)",
        "test_padding_has_no_influence",
    ),
    Mutant(
        ATTENTION,
        "torch.arange(n, device=lengths.device) < lengths[:, None]",
        "torch.arange(n, device=lengths.device) >= n - lengths[:, None]",
        "padding on the left",
        "test_padding_mask_by_definition",
    ),
    # the fused version
    Mutant(
        ATTENTION,
        "    is_causal = causal and mask is None and n_q > 1",
        "    is_causal = False",
        "fast: is_causal dropped",
        "test_fast_causal_is_the_causal_mask",
    ),
    Mutant(
        ATTENTION,
        "    if causal and mask is None and n_q > 1 and n_q != n_k:\n",
        "    if False:\n",
        "fast: torch's top-left is_causal where n_q ≠ n_k",
        "test_fast_causal_is_the_causal_mask",
    ),
    Mutant(
        ATTENTION,
        "    is_causal = causal and mask is None and n_q > 1",
        "    is_causal = causal and mask is None",
        "fast: top-left is_causal for one query, which then sees one key",
        "test_decoding_with_a_cache",
    ),
    Mutant(
        ATTENTION,
        "    if causal and mask is None and n_q > 1 and n_q != n_k:\n",
        "    if causal and mask is None:\n",
        "fast: a mask made where none is needed (slow, not wrong)",
        "test_fast_attention_never_makes_weights_or_mask",
    ),
    Mutant(
        ATTENTION,
        "        mask = _apply_causal(mask, n_q, n_k)\n",
        "        pass\n",
        "fast: causal forgotten when a mask is given",
        "test_fast_causal_and_a_mask",
    ),
    Mutant(
        ATTENTION,
        "return mask & past if mask.dtype == torch.bool",
        "return mask | past if mask.dtype == torch.bool",
        "fast: masks combined by or",
        "test_fast_causal_and_a_mask",
    ),
    Mutant(
        ATTENTION,
        "else mask.masked_fill(~past, -math.inf)",
        "else mask.masked_fill(past, -math.inf)",
        "fast: causal polarity in a bias",
        "test_fast_causal_keeps_a_finite_bias",
    ),
    Mutant(
        ATTENTION,
        "mask = mask | empty if mask.dtype == torch.bool else mask.masked_fill(empty, 0.0)",
        "pass",
        "fast: a kernel gets to see a row without keys",
        "test_no_kernel_gets_to_see_an_empty_row",
    ),
    Mutant(
        ATTENTION,
        "return output if empty is None else output.masked_fill(empty, 0.0)",
        "return output",
        "fast: a row without keys attends to all of them (D22)",
        "test_all_rows_empty",
    ),
    Mutant(
        ATTENTION,
        "query, key, value, dropout_p=dropout, is_causal",
        "query, key, value, is_causal",
        "fast: dropout dropped",
        "test_dropout_follows_the_seed",
    ),
    Mutant(
        ATTENTION,
        "    if _under_a_transform() or x.dtype == torch.float64:\n",
        "    if _under_a_transform():\n",
        "fast: float64 through a kernel without a second derivative",
        "test_derivatives_where_there_is_a_fused_kernel",
    ),
    Mutant(
        ATTENTION,
        "    if _under_a_transform() or x.dtype == torch.float64:\n",
        "    if x.dtype == torch.float64:\n",
        "fast: vmap through a kernel without a rule for it",
        "test_vmap_over_masks",
    ),
    Mutant(
        ATTENTION,
        "_under_a_transform._dynamo_marked_constant = True",
        "",
        "fast: no fused kernel under torch.compile",
        "test_compile_keeps_the_fused_kernel",
    ),
    Mutant(
        ATTENTION,
        "two = (math.prod(leading[:-1]), leading[-1]) if leading else (1, 1)",
        "two = (math.prod(leading[:-1]), leading[-1]) if leading else (1,)",
        "fast: two dimensions miss the fused kernels",
        "test_fast_attention_never_makes_weights_or_mask",
    ),
    Mutant(
        ATTENTION,
        "two = (math.prod(leading[:-1]), leading[-1]) if leading else (1, 1)",
        "two = (leading[0], math.prod(leading[1:])) if leading else (1, 1)",
        "fast: leading dimensions folded away from the mask's",
        "test_in_float32_as_in_float64",
    ),
    # the tiled version
    Mutant(
        ATTENTION,
        "logits = query @ key[..., block, :].mT / math.sqrt(query.shape[-1])",
        "logits = query @ key[..., block, :].mT",
        "online: no scale",
        "test_the_block_size_changes_nothing",
    ),
    Mutant(
        ATTENTION,
        "normaliser = rescale * normaliser + terms",
        "normaliser = normaliser + terms",
        "online: normaliser not rescaled",
        "test_the_maximum_may_come_first_last_or_between",
    ),
    Mutant(
        ATTENTION,
        "accumulator = rescale * accumulator + terms",
        "accumulator = accumulator + terms",
        "online: accumulator not rescaled",
        "test_the_maximum_may_come_first_last_or_between",
    ),
    Mutant(
        ATTENTION,
        "torch.maximum(maximum, logits.amax(dim=-1, keepdim=True)).detach()",
        "torch.zeros_like(maximum)",
        "online: no maximum, exp overflows",
        "test_logits_at_300_sigma",
    ),
    Mutant(
        ATTENTION,
        "torch.maximum(maximum, logits.amax(dim=-1, keepdim=True)).detach()",
        "logits.amax(dim=-1, keepdim=True).detach()",
        "online: the maximum of this block only",
        "test_logits_at_300_sigma",
    ),
    Mutant(
        ATTENTION,
        "            maximum = new_maximum\n",
        "",
        "online: the maximum not carried over",
        "test_the_maximum_may_come_first_last_or_between",
    ),
    Mutant(
        ATTENTION,
        "rescale = torch.exp(maximum - shift)",
        "rescale = torch.exp(shift - maximum)",
        "online: rescaled the wrong way",
        "test_the_maximum_may_come_first_last_or_between",
    ),
    Mutant(
        ATTENTION,
        "shift = new_maximum.masked_fill(new_maximum == -math.inf, 0.0)",
        "shift = new_maximum",
        "online: −inf − (−inf) in a block without an allowed key",
        "test_padding_has_no_influence",
    ),
    Mutant(
        ATTENTION,
        "                logits = _apply_mask(logits, mask[..., block])\n",
        "                logits = _apply_mask(logits, mask[..., : logits.shape[-1]])\n",
        "online: the first block's mask for all blocks",
        "test_a_forbidden_key_weighs_exactly_nothing",
    ),
    Mutant(
        ATTENTION,
        "block = slice(start, start + block_size)",
        "block = slice(start, start + block_size - 1)",
        "online: the last key of each block lost",
        "test_equal_keys_give_the_mean",
    ),
    Mutant(
        ATTENTION,
        "for start in range(0, n_k, block_size):",
        "for start in range(0, n_k - n_k % block_size, block_size):",
        "online: the last, shorter block lost",
        "test_equal_keys_give_the_mean",
    ),
    Mutant(
        ATTENTION,
        "for start in range(0, n_k, block_size):",
        "for start in range(0, n_k, n_k):\n            block_size = n_k",
        "online: one block, so the weights are made after all",
        "test_online_softmax_never_makes_the_weights",
    ),
    Mutant(
        ATTENTION,
        "return (accumulator / normaliser).to(dtype)",
        "return accumulator.to(dtype)",
        "online: not normalised",
        "test_equal_keys_give_the_mean",
    ),
    Mutant(
        ATTENTION,
        "normaliser = normaliser.masked_fill(empty, 1.0)",
        "pass",
        "online: 0/0 in a row without keys",
        "test_all_rows_empty",
    ),
    Mutant(
        ATTENTION,
        "accumulator = accumulator.masked_fill(empty, 0.0)",
        "pass",
        "online: NaN from the query of a row without keys",
        "test_an_empty_row_is_zero_whatever_its_query",
    ),
    Mutant(
        ATTENTION,
        "mask = mask.expand(*mask.shape[:-1], n_k)",
        "pass",
        "online: a mask that broadcasts along the keys cannot be cut",
        "test_equals_the_loops",
    ),
    # precision
    Mutant(
        ATTENTION,
        "return x.to(torch.promote_types(x.dtype, torch.float32))",
        "return x",
        "float16 and bfloat16 arithmetic",
        "test_float16_products_do_not_overflow",
    ),
    Mutant(
        ATTENTION,
        "return x.to(torch.promote_types(x.dtype, torch.float32))",
        "return x.to(torch.float32)",
        "float64 rounded to float32",
        "test_two_keys_give_the_logistic_function",
    ),
    Mutant(
        ATTENTION,
        "return torch.autocast(x.device.type, enabled=False)",
        "return nullcontext()",
        "autocast rounds the logits",
        "test_autocast",
    ),
    Mutant(
        ATTENTION,
        "    return torch.get_autocast_dtype(device)\n",
        "    return x.dtype\n",
        "autocast's dtype ignored",
        "test_autocast",
    ),
    Mutant(
        ATTENTION,
        'if x.dtype == torch.float64 or device == "meta"',
        'if device == "meta"',
        "float64 treated as subject to autocast",
        "test_autocast_does_not_mix_float64",
    ),
    # validation
    Mutant(
        ATTENTION,
        "if x.shape[:-2] != query.shape[:-2]:",
        "if x.ndim != query.ndim:",
        "leading dimensions broadcast in silence",
        "test_bad_inputs",
    ),
    Mutant(
        ATTENTION,
        "if x.shape[-2] < 1 or x.shape[-1] < 1:",
        "if x.shape[-1] < 1:",
        "length 0 let through",
        "test_bad_inputs",
    ),
    Mutant(
        ATTENTION,
        "if mask.ndim > len(logits_shape) or any(",
        "if any(",
        "a mask with too many dimensions enlarges the output",
        "test_bad_inputs",
    ),
    Mutant(
        ATTENTION,
        "size not in (1, full) for size",
        "size > full for size",
        "a mask too small let through",
        "test_bad_inputs",
    ),
    Mutant(
        ATTENTION,
        "or not 0.0 <= dropout < 1.0:",
        "or not 0.0 <= dropout <= 1.0:",
        "dropout of 1 let through",
        "test_bad_dropout",
    ),
    Mutant(
        ATTENTION,
        "if x.device != query.device:",
        "if False:",
        "devices not compared",
        "test_bad_inputs",
    ),
    Mutant(
        ATTENTION,
        "not isinstance(size, int) or size < 1",
        "not isinstance(size, int) or size < 0",
        "sizes of 0 let through",
        "test_bad_sizes",
    ),
]


class _Selection:
    """A pytest plugin: collects only these tests, and remembers which failed first."""

    def __init__(self, tests: list[str]) -> None:
        self.names = {name for test in tests for name in test.partition("[")[0].split("::")[1:]}
        self.failed = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, name):
        if name.lower().startswith("test") and name not in self.names:
            return []  # not looked at: a file's many parameters would be made in every fork
        return None

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.failed:
            self.failed = report.nodeid


class _Mutated(importlib.machinery.SourceFileLoader):
    """Loads a module from a source that no file holds, and is asked for it before all others."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, str(ROOT / path))
        self.source = source

    def find_spec(self, name: str, path=None, target=None):
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_code(self, fullname: str):
        return compile(self.source, self.path, "exec")


def _install(path: str, source: str) -> None:
    """Make importing the module of this path give this source, whoever imports it."""
    name = path.removesuffix(".py").replace("/", ".")
    if name in sys.modules:
        raise RuntimeError(f"{path} was imported before its mutant")
    # Triton reads a kernel's source again, from its file: it too gets this one. No time, no check.
    file = str(ROOT / path)
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    sys.meta_path.insert(0, _Mutated(name, path, source))
    importlib.import_module(name)


@functools.cache
def _imports(path: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """What a file imports: (module, name or "") of other packages at its top; our own files."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            found += [(alias.name, "", top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module, alias.name, top) for alias in node.names]
    ours = [(module, name) for module, name, _ in found if module.split(".")[0] in OWN]
    others = [(module, name) for module, name, top in found if top and (module, name) not in ours]
    ours.append((path.removesuffix(".py").replace("/", "."), ""))  # its own packages run before it
    files = set()
    for module, name in ours:
        parts = [*module.split("."), *filter(None, [name])]
        for length in range(1, len(parts) + 1):
            stem = "/".join(parts[:length])
            files |= {f"{stem}/__init__.py", f"{stem}.py"}
    return tuple(others), tuple(sorted(file for file in files if (ROOT / file).is_file()))


@functools.cache
def _reached(path: str) -> frozenset[str]:
    """This file and all of ours that it imports, at whatever remove, wherever the import stands."""
    found, waiting = {path}, [path]
    while waiting:
        new = set(_imports(waiting.pop())[1]) - found
        found |= new
        waiting += new
    return frozenset(found)


def _test_files(mutants: list[Mutant]) -> list[str]:
    return sorted({mutant.test_id().partition("::")[0] for mutant in mutants})


def _import_packages(mutants: list[Mutant]) -> None:
    """What the tests import of other packages."""
    files = sorted({file for test in _test_files(mutants) for file in _reached(test)})
    names = {found: None for file in files for found in _imports(file)[0]}
    for prefix, heavy in HEAVY.items():
        if any(file.startswith(prefix) for file in files):
            names |= {(module, ""): None for module in heavy}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a package warns of at its import is its own affair
        for module, name in names:
            getattr(importlib.import_module(module), name or "__name__", None)  # some are lazy
    if any(file.startswith("tests/models/") for file in files):
        _save_one_of_transformers()


def _save_one_of_transformers() -> None:
    """The first model that is saved makes tables for all kinds: once, not again in each fork."""
    import transformers

    config = transformers.GPT2Config(n_embd=2, n_layer=1, n_head=1, vocab_size=3)
    with tempfile.TemporaryDirectory() as folder:
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def _import_independent(path: str, mutants: list[Mutant]) -> None:
    """The modules of ours that the tests import and that do not import this one."""
    for file in sorted({file for test in _test_files(mutants) for file in _reached(test)}):
        if path not in _reached(file) and not file.startswith("tests/test_"):
            module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            importlib.import_module(module)


def _pytest(arguments: list[str], *plugins) -> int:
    plugins = [*map(importlib.import_module, PLUGINS), *plugins]
    return int(pytest.main([*arguments, *OPTIONS], plugins=plugins))


def _run_tests(path: str, source: str, tests: list[str], answer, log: Path) -> None:
    """In the fork: run the tests on this source. Nothing of it survives the fork."""
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    # An example that fails has done its work: no shrinking, no database, the same every time.
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, database=None, phases=[hypothesis.Phase.generate]
    )
    hypothesis.settings.load_profile("mutants")
    _install(path, source)
    selection = _Selection(tests)
    # Folders of its own: those that pytest numbers are cleaned up by all sessions at once, and one
    # that loses the race ends in an error.
    folder = f"--basetemp={log.with_name('tests')}"
    answer.send((_pytest([*tests, folder], selection), selection.failed))


def _in_a_fork(path: str, source: str, tests: list[str], log: Path) -> tuple[int, str]:
    receive, send = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_run_tests, args=(path, source, tests, send, log))
    child.start()
    send.close()
    try:
        exit_code, failed = receive.recv()
    except EOFError:  # it raised before pytest began, or crashed the interpreter
        exit_code, failed = 3, ""
    child.join()
    return exit_code, failed or " ".join(log.read_text(errors="replace").split()[-40:])


def _run_module(path: str, mutants: list[Mutant], answer, log: Path) -> None:
    """In the fork of one module: its mutants and then the control, an Outcome each."""
    _import_independent(path, mutants)
    gc.freeze()

    def run_one(why: str, source: str, tests: list[str], control: bool = False) -> Outcome:
        began = time.perf_counter()
        exit_code, failed = _in_a_fork(path, source, tests, log)
        seconds = round(time.perf_counter() - began, 2)
        answer.send(outcome := Outcome(path, why, control, exit_code, failed, seconds))
        return outcome

    noticed = []
    for mutant in mutants:
        outcome = run_one(mutant.why, mutant.source(), [mutant.test_id()])
        noticed.append(outcome.failed if outcome.exit_code == 1 else mutant.test_id())
    source = (ROOT / path).read_text(encoding="utf-8")
    run_one(f"control: {path} as it is", source, list(dict.fromkeys(noticed)), control=True)


def run(mutants: list[Mutant]):
    """For each module its mutants and then the control: an Outcome each, as they come."""
    for mutant in mutants:
        mutant.source()  # raises now if one is stale
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    # What pytest and torch import at first use, and the garbage collector would visit, once and not
    # in each fork.
    one = torch.ones(1)
    torch.testing.assert_close(torch.vmap(torch.neg)(one), -one)
    _install("conftest.py", (ROOT / "conftest.py").read_text(encoding="utf-8"))
    with contextlib.redirect_stdout(io.StringIO()):
        _pytest(["--version"])
    _import_packages(mutants)
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        for path in dict.fromkeys(mutant.path for mutant in mutants):
            mine = [mutant for mutant in mutants if mutant.path == path]
            receive, send = FORK.Pipe(duplex=False)
            child = FORK.Process(target=_run_module, args=(path, mine, send, Path(folder) / "log"))
            child.start()
            send.close()
            for _ in range(1 + len(mine)):
                yield receive.recv()
            child.join()


def main(mutants: list[Mutant], *, as_json: bool) -> int:
    """Print an outcome a line, and return how many are not as they should be."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CUDA does not survive a fork
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    wrong = 0
    for outcome in run(mutants):
        wrong += not outcome.right
        verdict = {0: "lives", 1: "dies"}.get(outcome.exit_code, "ERROR")
        if outcome.control:
            verdict = "passes" if outcome.right else "FAILS"
        about = outcome.failed if outcome.exit_code else ""
        line = f"{verdict:6} {outcome.seconds:5.1f} s  {outcome.why}  {about}"
        print(json.dumps(asdict(outcome)) if as_json else line, flush=True)
    return wrong


if __name__ == "__main__":
    paths = sys.argv[1:]
    chosen = [mutant for mutant in MUTANTS if not paths or mutant.path in paths]
    sys.exit(main(chosen, as_json=False) > 0)
