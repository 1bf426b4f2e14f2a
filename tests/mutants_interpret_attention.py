"""Mutants of what attention weights can say of an answer: rollout, norms, ablation, other weights.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_interpret_attention.py     run every one of these, one line each
"""

import sys
from pathlib import Path

PATH = "lib/interpret/attention.py"
FILE = "tests/interpret/test_attention.py::"
PRODUCT = FILE + "TestRollout::test_is_the_product_in_plain_python"
WRONG = FILE + "TestRollout::test_wrong_weights"
NORMS = FILE + "TestNorms::test_are_those_of_the_summands"
SUMMAND = FILE + "TestAblation::test_removes_one_summand"
HEADS = FILE + "TestAblation::test_wrong_heads"
OWN = FILE + "TestReplacement::test_its_own_weights_change_nothing"
MEMORY = FILE + "TestReplacement::test_mixes_the_values_of_the_memory"
ALLOWED = FILE + "TestPermuted::test_is_a_permutation_of_the_allowed"
STAYS = FILE + "TestEqualOutput::test_the_output_stays_and_the_wish_gains"
SCIPY = FILE + "TestKendall::test_is_scipys"

_CHANGES = [
    ("(1 - residual) * weights.mean(2)", "weights.mean(2)", "rows sum to more than one", PRODUCT),
    ("(1 - residual) * weights.mean(2)", "(1 - residual) * weights.sum(2)", "heads add", PRODUCT),
    ("(1 - residual) * weights.mean(2)", "(1 - residual) * weights.mean(1)", "samples", PRODUCT),
    ("mixed + residual * torch.eye(", "mixed + 0.5 * torch.eye(", "residual is half", PRODUCT),
    ("residual: float = 0.5)", "residual: float = 0.0)", "no residual by default",
     FILE + "TestRollout::test_half_is_the_default"),
    ("rolled = layer @ rolled", "rolled = rolled @ layer", "from the top down", PRODUCT),
    ("for layer in mixed[1:]:", "for layer in mixed:", "the first layer twice", PRODUCT),
    ("for layer in mixed[1:]:", "for layer in mixed[2:]:", "a layer is left out", PRODUCT),
    ("if weights.shape[-1] != weights.shape[-2]:", "if False:", "oblong weights pass", WRONG),
    ("not 0 <= residual <= 1:", "not 0 <= residual:", "a share above one",
     FILE + "TestRollout::test_wrong_residual"),
    ("not 0 <= residual <= 1:", "not residual <= 1:", "a share below zero",
     FILE + "TestRollout::test_wrong_residual"),
    ("attention(query, key, mask=mask, return_weights=True)",
     "attention(query, key, return_weights=True)", "norms without the mask", NORMS),
    ("memory = query if key is None else key", "memory = query", "values of the query", NORMS),
    ("memory = query if key is None else key", "memory = key", "no self-attention",
     FILE + "TestNorms::test_one_input_is_self_attention"),
    ('"bhjc,dhc->bhjd", value, columns', '"bhjc,dhc->bhjd", value, columns.flip(1)',
     "another head's columns", NORMS),
    ("return weights * moved.norm(dim=-1).unsqueeze(2)",
     "return moved.norm(dim=-1).unsqueeze(2).expand_as(weights)", "norms without weights", NORMS),
    ('"bhij,bhjd->bijd", weights, moved).norm(dim=-1)',
     '"bhij,bhj->bij", weights, moved.norm(dim=-1))', "norms are summed over heads", NORMS),
    ("if not isinstance(head, int) or isinstance(head, bool):", "if not isinstance(head, int):",
     "True is a head", HEADS),
    ("if not 0 <= head < attention.num_heads:", "if not head < attention.num_heads:",
     "a head below zero", HEADS),
    ("if not 0 <= head < attention.num_heads:", "if not 0 <= head <= attention.num_heads:",
     "one head too many", HEADS),
    ("before = weight.detach().clone()", "before = weight.detach()", "nothing is kept", SUMMAND),
    ("weight[:, head * attention.d_head : (head + 1) * attention.d_head] = 0.0",
     "weight[head * attention.d_head : (head + 1) * attention.d_head] = 0.0",
     "rows for columns", SUMMAND),
    ("weight[:, head * attention.d_head : (head + 1) * attention.d_head] = 0.0",
     "weight[:, head * attention.d_head : head * attention.d_head + 1] = 0.0",
     "one column", SUMMAND),
    ("            weight.copy_(before)", "            pass", "not put back", SUMMAND),
    ('if options.get("cache") is not None:', "if False:", "a cache passes",
     FILE + "TestReplacement::test_a_cache_is_refused"),
    ("new = change(weights)", "new = weights", "its own weights stay", MEMORY),
    ("new = change(weights)", "new = change(change(weights))", "changed twice",
     FILE + "TestReplacement::test_is_called_once_with_the_modules_own_weights"),
    ("new = change(weights)", "new = change(weights).detach()", "no gradient",
     FILE + "TestReplacement::test_gradients_go_through_the_weights"),
    ("if new.shape != weights.shape:", "if False:", "another shape passes",
     FILE + "TestReplacement::test_wrong_shape"),
    ("key = query if key is None else key\n", "key = query\n", "keys are ignored", MEMORY),
    ("value = key if value is None else value\n", "value = key\n", "values are ignored", MEMORY),
    ("original(query, key, value, mask, return_weights=True",
     "original(query, key, value, return_weights=True", "the mask is ignored", OWN),
    ("return (output, new) if", "return (output, weights) if", "old weights returned",
     FILE + "test_doctests"),
    ("return (output, new) if return_weights else output", "return output", "no weights returned",
     OWN),
    ("        del attention.forward  #",
     "        attention.forward = original  #", "a bound method stays behind",
     FILE + "TestReplacement::test_ends_with_the_block_by_an_error_too"),
    ("        if outer:\n", "        if False:\n", "the inner block ends the outer one",
     FILE + "TestReplacement::test_nested_blocks_change_one_after_the_other"),
    ("allowed = (weights > 0).to(weights.dtype)", "allowed = torch.ones_like(weights)",
     "forbidden keys get a share", FILE + "TestUniform::test_leaves_forbidden_keys_out"),
    ("allowed.sum(-1, keepdim=True).clamp(min=1)", "allowed.sum(-1, keepdim=True)",
     "0/0 in a row of zeros", FILE + "TestUniform::test_leaves_forbidden_keys_out"),
    ("generator=generator, device", "device", "the generator is ignored",
     FILE + "TestPermuted::test_the_seed_decides"),
    ("torch.rand(weights.shape, generator", "torch.rand(weights.shape[-1:], generator",
     "one order for all", FILE + "TestPermuted::test_rows_and_heads_move_by_themselves"),
    ("noise.masked_fill(forbidden, 2.0)", "noise", "forbidden weights are drawn", ALLOWED),
    ("forbidden.to(torch.uint8).argsort(dim=-1, stable=True)",
     "torch.arange(weights.shape[-1]).expand_as(weights)", "forbidden keys get weight", ALLOWED),
    ("weights.gather(-1, drawn)", "weights", "not permuted", ALLOWED),
    ("values / values.norm().clamp(min=1e-300)", "values", "large values hide the sum",
     FILE + "TestEqualOutput::test_size_of_the_values_does_not_matter"),
    ("torch.ones_like(weights)[:, None]], 1", "torch.zeros_like(weights)[:, None]], 1",
     "the sum may change", STAYS),
    ("sizes[0]).sum()) :]", "sizes[0]).sum()) - 1 :]", "one direction too many", STAYS),
    ("sizes[0]).sum()) :]", "sizes[0]).sum()) + 1 :]", "one direction too few", STAYS),
    ("(free @ (free.T @ wish)).masked_fill", "(-free @ (free.T @ wish)).masked_fill",
     "away from the wish", STAYS),
    ("wall = int(reach.argmin())", "wall = int(reach.nan_to_num(posinf=-1.0).argmax())",
     "past the first wall", STAYS),
    ("moved[wall], fixed[wall] = 0.0, True", "break", "one step only", STAYS),
    ("if values.ndim != 2 or len(values) != n:", "if values.ndim != 2:", "values of another n",
     FILE + "TestEqualOutput::test_wrong"),
    ("if wish.shape != weights.shape:", "if False:", "a short wish",
     FILE + "TestEqualOutput::test_wrong"),
    ("if x.dtype != torch.float64:", "if False:", "single precision passes",
     FILE + "TestEqualOutput::test_wrong"),
    ("if weights.ndim != 1 or len(weights) < 1:", "if len(weights) < 1:", "rows of weights pass",
     FILE + "TestEqualOutput::test_wrong"),
    ("x[..., None, :]).sign().double()", "x[..., None, :]).double()", "sizes count", SCIPY),
    ("((s, t), (s, s), (t, t))", "((s, t), (s, s), (s, s))", "ties of the first alone", SCIPY),
    ("return both / (one * other).sqrt()", "return both / one", "not the geometric mean", SCIPY),
    ("if first.shape != second.shape:", "if False:", "two lengths",
     FILE + "TestKendall::test_wrong"),
    ("if x.ndim < 1 or x.shape[-1] < 2:", "if x.ndim < 1:", "a list of one",
     FILE + "TestKendall::test_wrong"),
    ("if not weights.is_floating_point():", "if False:", "integers pass", WRONG),
    ("if not fits or weights.shape[0] < 1 or weights.shape[-1] < 1:", "if not fits:",
     "no layer passes", WRONG),
    ("fits = weights.ndim >= ndim if more else weights.ndim == ndim", "fits = True",
     "any number of dimensions", WRONG),
    ("if not isinstance(attention, MultiHeadAttention):", "if False:", "any module passes",
     FILE + "TestAblation::test_no_module"),
]  # fmt: skip

INTERPRET_ATTENTION = [(PATH, *change) for change in _CHANGES]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [mutants.Mutant(*m) for m in INTERPRET_ATTENTION]
    sys.exit(mutants.main(chosen, as_json=False) > 0)
