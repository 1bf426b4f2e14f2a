"""Mutants of integrated gradients and of the deletion test, in the form of tests/mutants.py.

python tests/mutants_gradients.py                               run every one of these
python tests/mutants_gradients.py lib/interpret/deletion.py     those of this module
"""

import sys
from pathlib import Path

GRADIENTS = "lib/interpret/gradients.py"
DELETION = "lib/interpret/deletion.py"
TESTS = "tests/interpret/test_gradients.py::"
NODES = TESTS + "TestQuadrature::"
IG = TESTS + "TestIntegratedGradients::"
GRADIENT = TESTS + "TestGradientTimesInput::"
GAP = TESTS + "TestCompletenessGap::"
LEAVING = "tests/interpret/test_deletion.py::"
BAD_INPUTS = IG + "test_bad_inputs"

MUTANTS_OF_GRADIENTS = [
    # quadrature
    (
        GRADIENTS,
        "    if rule not in RULES:\n",
        "    if not rule:\n",
        "an unknown rule is another error",
        NODES + "test_bad_rule",
    ),
    (
        GRADIENTS,
        'least = 2 if rule == "trapezoid" else 1',
        "least = 1",
        "a trapezoid of one node",
        NODES + "test_one_node_is_enough_but_for_the_trapezoid",
    ),
    (
        GRADIENTS,
        "isinstance(steps, bool) or steps < least:",
        "isinstance(steps, bool):",
        "no step at all",
        NODES + "test_bad_steps",
    ),
    (
        GRADIENTS,
        "return torch.from_numpy((1 + places) / 2), torch.from_numpy(weights / 2)",
        "return torch.from_numpy((1 + places) / 2), torch.from_numpy(weights)",
        "Gauss's weights still sum to 2",
        NODES + "test_is_a_mean_over_the_way",
    ),
    (
        GRADIENTS,
        "return torch.from_numpy((1 + places) / 2), torch.from_numpy(weights / 2)",
        "return torch.from_numpy(places), torch.from_numpy(weights / 2)",
        "Gauss's nodes still on [-1, 1]",
        NODES + "test_is_a_mean_over_the_way",
    ),
    (
        GRADIENTS,
        "weights = torch.full((steps,), 1 / (steps - 1), dtype=torch.float64)",
        "weights = torch.full((steps,), 1 / steps, dtype=torch.float64)",
        "the trapezoid's weights sum to less than 1",
        NODES + "test_is_a_mean_over_the_way",
    ),
    (
        GRADIENTS,
        "        weights[[0, -1]] /= 2\n",
        "",
        "the trapezoid's ends count in full",
        NODES + "test_nodes_by_hand",
    ),
    (
        GRADIENTS,
        "return k / (steps - 1), weights",
        "return k / steps, weights",
        "the trapezoid stops before the input",
        NODES + "test_nodes_by_hand",
    ),
    (
        GRADIENTS,
        '"midpoint": 0.5,',
        '"midpoint": 0.4,',
        "not in the middle",
        NODES + "test_exact_up_to_its_degree_and_no_further",
    ),
    (
        GRADIENTS,
        '{"left": 0.0, "midpoint": 0.5, "right": 1.0}',
        '{"left": 1.0, "midpoint": 0.5, "right": 0.0}',
        "left and right swapped",
        NODES + "test_nodes_by_hand",
    ),
    (
        GRADIENTS,
        "return (k + shift) / steps, torch.full((steps,), 1 / steps, dtype=torch.float64)",
        "return (k + shift) / steps, torch.full((steps,), 1 / (steps + 1), dtype=torch.float64)",
        "equal weights that sum to less than 1",
        NODES + "test_is_a_mean_over_the_way",
    ),
    # integrated gradients
    (
        GRADIENTS,
        "isinstance(max_rows, bool) or max_rows < 1:",
        "isinstance(max_rows, bool):",
        "batches of no row",
        IG + "test_bad_max_rows",
    ),
    (
        GRADIENTS,
        "(x.to(inputs) for x in quadrature(rule, steps))",
        "quadrature(rule, steps)",
        "nodes of another dtype",
        IG + "test_keeps_the_dtype",
    ),
    (
        GRADIENTS,
        "for x, start in zip(inputs.split(max_rows), baseline.split(max_rows), strict=True):",
        "for x, start in [(inputs, baseline)]:",
        "more rows than allowed, where the batch is large",
        IG + "test_never_more_rows_than_allowed",
    ),
    (
        GRADIENTS,
        "at_once = max(1, max_rows // len(x))",
        "at_once = max_rows",
        "all steps times all rows at once",
        IG + "test_never_more_rows_than_allowed",
    ),
    (
        GRADIENTS,
        "at_once = max(1, max_rows // len(x))",
        "at_once = 1",
        "one step at a time",
        IG + "test_never_more_rows_than_allowed",
    ),
    (
        GRADIENTS,
        "points = start + alpha.view(-1, 1, *one) * (x - start)",
        "points = alpha.view(-1, 1, *one) * x",
        "the way begins at 0, whatever the baseline",
        IG + "test_equals_the_loop",
    ),
    (
        GRADIENTS,
        "points = start + alpha.view(-1, 1, *one) * (x - start)",
        "points = x + alpha.view(-1, 1, *one) * (start - x)",
        "the way is walked backwards",
        IG + "test_equals_the_loop",
    ),
    (
        GRADIENTS,
        "total += (w.view(-1, 1, *one) * slopes).sum(0)",
        "total = (w.view(-1, 1, *one) * slopes).sum(0)",
        "only the last batch of steps counts",
        IG + "test_never_more_rows_than_allowed",
    ),
    (
        GRADIENTS,
        "total += (w.view(-1, 1, *one) * slopes).sum(0)",
        "total += slopes.mean(0)",
        "all nodes weigh the same",
        IG + "test_equals_the_loop",
    ),
    (
        GRADIENTS,
        "parts.append((x - start) * total)",
        "parts.append(total)",
        "a mean gradient, and not its share",
        IG + "test_by_hand",
    ),
    (
        GRADIENTS,
        "parts.append((x - start) * total)",
        "parts.append(x * total)",
        "times the input, whatever the baseline",
        IG + "test_equals_captum_at_equal_nodes",
    ),
    (
        GRADIENTS,
        "    return torch.cat(parts)\n",
        "    return parts[-1]\n",
        "the last rows only",
        IG + "test_never_more_rows_than_allowed",
    ),
    (
        GRADIENTS,
        "_baseline(inputs, baseline), inputs.detach()",
        "_baseline(inputs, baseline), inputs",
        "the input's graph is kept",
        IG + "test_changes_nothing",
    ),
    # gradient × input
    (
        GRADIENTS,
        "return (inputs.detach() - baseline) * _gradient(f, inputs)",
        "return inputs.detach() * _gradient(f, inputs)",
        "the baseline is forgotten",
        GRADIENT + "test_is_one_node_at_the_end",
    ),
    (
        GRADIENTS,
        "return (inputs.detach() - baseline) * _gradient(f, inputs)",
        "return (inputs - baseline) * _gradient(f, inputs)",
        "a graph is left",
        GRADIENT + "test_has_no_graph",
    ),
    (
        GRADIENTS,
        "return (inputs.detach() - baseline) * _gradient(f, inputs)",
        "return (inputs.detach() - baseline) * _gradient(f, baseline)",
        "the gradient at the baseline",
        GRADIENT + "test_against_finite_differences",
    ),
    # the gap
    (
        GRADIENTS,
        "    if attributions.shape != inputs.shape:\n",
        "    if attributions.shape[:1] != inputs.shape[:1]:\n",
        "attributions of another shape",
        GAP + "test_refuses_another_shape",
    ),
    (
        GRADIENTS,
        "change = _one_a_row(f, inputs) - _one_a_row(f, baseline)",
        "change = _one_a_row(f, inputs)",
        "the answer and not the difference",
        GAP + "test_by_hand",
    ),
    (
        GRADIENTS,
        "return attributions.flatten(1).sum(1) - change",
        "return change - attributions.flatten(1).sum(1)",
        "the other sign",
        GAP + "test_by_hand",
    ),
    (
        GRADIENTS,
        "    with torch.no_grad():\n        change",
        "    with torch.enable_grad():\n        change",
        "the gap has a graph",
        IG + "test_changes_nothing",
    ),
    # what is asked of arguments and of f
    (
        GRADIENTS,
        "    if not isinstance(inputs, Tensor):\n",
        "    if inputs is None:\n",
        "a list is another error",
        BAD_INPUTS,
    ),
    (
        GRADIENTS,
        "    if not inputs.is_floating_point():\n",
        "    if inputs.dtype == torch.int64:\n",
        "only int64 is refused (D53)",
        IG + "test_refuses_ids",
    ),
    (
        GRADIENTS,
        "    if inputs.ndim < 2 or inputs.numel() == 0:\n",
        "    if inputs.ndim < 1 or inputs.numel() == 0:\n",
        "an input without a batch",
        BAD_INPUTS,
    ),
    (
        GRADIENTS,
        "    if inputs.ndim < 2 or inputs.numel() == 0:\n",
        "    if inputs.ndim < 2:\n",
        "an empty batch",
        BAD_INPUTS,
    ),
    (
        GRADIENTS,
        "return torch.full_like(inputs, baseline)",
        "return torch.zeros_like(inputs)",
        "a number as baseline is taken for 0",
        IG + "test_a_number_is_a_baseline",
    ),
    (
        GRADIENTS,
        "if baseline.dtype != inputs.dtype or baseline.device != inputs.device:",
        "if baseline.device != inputs.device:",
        "a baseline of another dtype",
        BAD_INPUTS,
    ),
    (
        GRADIENTS,
        "if baseline.dtype != inputs.dtype or baseline.device != inputs.device:",
        "if baseline.dtype != inputs.dtype:",
        "a baseline on another device",
        BAD_INPUTS,
    ),
    (
        GRADIENTS,
        "    except RuntimeError:\n",
        "    except TypeError:\n",
        "a baseline of another shape is torch's error",
        BAD_INPUTS,
    ),
    (
        GRADIENTS,
        "return baseline.detach().expand(inputs.shape)",
        "return baseline.expand(inputs.shape)",
        "the baseline's graph is kept",
        IG + "test_changes_nothing",
    ),
    (
        GRADIENTS,
        "    if not isinstance(values, Tensor):\n",
        "    if values is None:\n",
        "f returns a list",
        IG + "test_refuses_what_is_no_number_a_row",
    ),
    (
        GRADIENTS,
        "    if values.shape != x.shape[:1]:\n",
        "    if values.ndim == 0:\n",
        "f returns many numbers a row",
        IG + "test_refuses_what_is_no_number_a_row",
    ),
    (
        GRADIENTS,
        "    with torch.enable_grad():\n        points",
        "    if True:\n        points",
        "no gradient under no_grad",
        IG + "test_changes_nothing",
    ),
    (
        GRADIENTS,
        "points = points.detach().requires_grad_()",
        "points = points.requires_grad_()",
        "the caller's tensor asks for a gradient",
        GRADIENT + "test_has_no_graph",
    ),
    (
        GRADIENTS,
        "torch.autograd.grad(values.sum(), points, allow_unused=True)[0]",
        "torch.autograd.grad(values.mean(), points, allow_unused=True)[0]",
        "gradients shrink with the batch",
        IG + "test_equals_the_loop",
    ),
    (
        GRADIENTS,
        "torch.autograd.grad(values.sum(), points, allow_unused=True)[0]",
        "torch.autograd.grad(values.sum(), points)[0]",
        "what is cut off from its input is torch's error",
        IG + "test_refuses_what_has_no_gradient",
    ),
    (
        GRADIENTS,
        "            if values.requires_grad\n",
        "            if True\n",
        "a constant is torch's error",
        IG + "test_refuses_what_has_no_gradient",
    ),
    (
        GRADIENTS,
        "    if slopes is None:\n        raise ValueError(",
        "    if slopes is None:\n        return torch.zeros_like(points)\n    if slopes is None:\n"
        "        raise ValueError(",
        "a cut graph reads as no influence",
        IG + "test_refuses_what_has_no_gradient",
    ),
]

MUTANTS_OF_DELETION = [
    (
        DELETION,
        "    if scores.ndim != 1 or scores.numel() == 0:\n",
        "    if scores.numel() == 0:\n",
        "scores of another shape",
        LEAVING + "test_refuses_scores_of_another_shape",
    ),
    (
        DELETION,
        "scores.argsort(descending=True, stable=True)",
        "scores.argsort(stable=True)",
        "the lowest leaves first",
        LEAVING + "test_the_highest_leaves_first",
    ),
    (
        DELETION,
        "leaves_at[scores.argsort(descending=True, stable=True)] = torch.arange(n, "
        "device=scores.device)",
        "leaves_at[:] = scores.argsort(descending=True, stable=True)",
        "a permutation for its inverse",
        LEAVING + "test_the_highest_leaves_first",
    ),
    (
        DELETION,
        "values = f(leaves_at >= gone)",
        "values = f(leaves_at > gone)",
        "one too many is gone",
        LEAVING + "test_one_call",
    ),
    (
        DELETION,
        "gone = torch.arange(n + 1, device=scores.device)[:, None]",
        "gone = torch.arange(1, n + 2, device=scores.device)[:, None]",
        "the whole is not asked",
        LEAVING + "test_the_highest_leaves_first",
    ),
    (
        DELETION,
        "    if values.shape != (n + 1,):\n",
        "    if len(values) != n + 1:\n",
        "f returns many numbers a row",
        LEAVING + "test_refuses_results_of_another_shape",
    ),
]

GRADIENTS_AND_DELETION = MUTANTS_OF_GRADIENTS + MUTANTS_OF_DELETION


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in GRADIENTS_AND_DELETION if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
