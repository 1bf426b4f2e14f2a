"""Mutants of lib.compression: zeros in the wrong place, rows for columns, a grid off by one.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_compression.py     run every one of these, one line each
"""

import sys
from pathlib import Path

PATH = "lib/compression.py"
MAGNITUDE = "tests/test_compression.py::TestMagnitude::"
HEADS = "tests/test_compression.py::TestHeads::"
NEURONS = "tests/test_compression.py::TestNeurons::"
QUANTIZE = "tests/test_compression.py::TestQuantize::"
STRAIGHT = "tests/test_compression.py::TestStraightThrough::"
INT8 = "tests/test_compression.py::TestInt8::"
PACKING = "tests/test_compression.py::TestPacking::"

_MUTANTS = [
    # magnitude
    (
        ".detach().abs().flatten()",
        ".detach().flatten()",
        "the most negative weights go",
        MAGNITUDE + "test_no_matrix_with_as_many_zeros_is_nearer",
    ),
    (
        "kept[magnitudes.argsort(stable=True)[: round(amount * len(kept))]] = False",
        "kept[magnitudes.argsort(stable=True)[round(amount * len(kept)) :]] = False",
        "the smallest stay",
        MAGNITUDE + "test_no_matrix_with_as_many_zeros_is_nearer",
    ),
    (
        "kept[magnitudes.argsort(stable=True)[: round(amount * len(kept))]] = False",
        "kept[magnitudes.argsort(stable=True)[: int(amount * len(kept))]] = False",
        "one weight too few goes",
        MAGNITUDE + "test_what_stays_is_unchanged_and_the_mask_says_what",
    ),
    (
        "kept[magnitudes.argsort(stable=True)[: round(amount * len(kept))]] = False",
        "kept &= magnitudes > magnitudes.sort()[0][max(round(amount * len(kept)) - 1, 0)]",
        "a threshold, and all that are equal go",
        MAGNITUDE + "test_the_number_of_zeros_is_exact_among_equals",
    ),
    (
        "argsort(stable=True)[:",
        "flip(0).argsort(stable=True).neg().add(len(kept) - 1)[:",
        "of equal weights the last go",
        MAGNITUDE + "test_of_equals_the_first_go",
    ),
    (
        'if scope == "all" else [[name] for name in weights]',
        'if scope == "each" else [[name] for name in weights]',
        "the scopes are swapped",
        MAGNITUDE + "test_all_together_share_one_threshold",
    ),
    (
        "    apply_masks(module, masks)\n    return masks",
        "    return masks",
        "only the masks are made",
        MAGNITUDE + "test_no_matrix_with_as_many_zeros_is_nearer",
    ),
    (
        "parameters[name].masked_fill_(~mask, 0.0)",
        "parameters[name].masked_fill_(mask, 0.0)",
        "the mask is read upside down",
        MAGNITUDE + "test_masks_keep_zeros_in_training",
    ),
    (
        "if name not in parameters or parameters[name].shape != mask.shape:",
        "if name not in parameters:",
        "masks broadcast in silence",
        MAGNITUDE + "test_bad_scope_module_and_masks",
    ),
    (
        "not 0 <= amount <= 1",
        "amount < 0",
        "more than all may go",
        MAGNITUDE + "test_bad_amount",
    ),
    (
        "(m for m in module.modules() if isinstance(m, nn.Linear | nn.Embedding))",
        "(m for m in module.modules() if isinstance(m, nn.Linear))",
        "tables are not pruned",
        MAGNITUDE + "test_what_stays_is_unchanged_and_the_mask_says_what",
    ),
    (
        "return {name: p for name, p in module.named_parameters() if id(p) in wanted}",
        "return {n: p for n, p in module.named_parameters(remove_duplicate=False)"
        " if id(p) in wanted}",
        "a shared weight counts twice",
        MAGNITUDE + "test_a_shared_weight_is_pruned_once",
    ),
    # heads and neurons
    (
        "(kept[:, None] * module.d_head + torch.arange(module.d_head)).flatten()",
        "(kept + module.num_heads * torch.arange(module.d_head)[:, None]).flatten()",
        "a head's rows are taken in strides",
        HEADS + "test_the_output_is_that_of_zeroed_columns",
    ),
    (
        "(kept[:, None] * module.d_head + torch.arange(module.d_head)).flatten()",
        "(kept[:, None] * (module.d_model // module.num_heads)"
        " + torch.arange(module.d_head)).flatten()",
        "heads are taken to be d_model / h wide",
        HEADS + "test_the_output_is_that_of_zeroed_columns",
    ),
    (
        "pruned.num_heads = len(kept)",
        "pass",
        "the rows that are left are split into as many heads as before",
        HEADS + "test_rows_and_columns_are_really_gone",
    ),
    (
        'for name in ("query_projection", "key_projection", "value_projection"):',
        'for name in ("query_projection", "key_projection"):',
        "values are not cut",
        HEADS + "test_the_output_is_that_of_zeroed_columns",
    ),
    (
        "_cut(module.output_projection, rows, dim=1)",
        "_cut(module.output_projection, rows.flip(0), dim=1)",
        "the output's columns in another order",
        HEADS + "test_the_output_is_that_of_zeroed_columns",
    ),
    (
        "    pruned = copy.deepcopy(module)\n    pruned.num_heads",
        "    pruned = module\n    pruned.num_heads",
        "the module given is cut",
        HEADS + "test_the_given_module_is_left_alone",
    ),
    (
        "for i in range(count) if i not in set(removed)",
        "for i in range(count) if i in set(removed)",
        "the heads named stay",
        HEADS + "test_the_output_is_that_of_zeroed_columns",
    ),
    (
        "requires_grad=parameter.requires_grad)",
        "requires_grad=True)",
        "what was frozen thaws",
        HEADS + "test_it_trains_on_as_the_given_one_would",
    ),
    (
        "cut.out_features, cut.in_features = cut.weight.shape",
        "pass",
        "a linear map tells its old sizes",
        HEADS + "test_rows_and_columns_are_really_gone",
    ),
    (
        "        cut.bias = part(linear.bias, 0)",
        "        pass",
        "biases are not cut",
        HEADS + "test_rows_and_columns_are_really_gone",
    ),
    (
        "if len(set(removed)) < len(removed):",
        "if False:",
        "a head may be named twice",
        HEADS + "test_bad_heads",
    ),
    (
        "or not 0 <= index < count",
        "or not index < count",
        "heads are counted from the end",
        HEADS + "test_bad_heads",
    ),
    (
        "if len(removed) == count:",
        "if False:",
        "no head need be left",
        HEADS + "test_bad_heads",
    ),
    (
        "    if module.gate is not None:\n        pruned.gate",
        "    if False:\n        pruned.gate",
        "the gate is not cut",
        NEURONS + "test_the_output_is_that_of_zeroed_columns",
    ),
    (
        "_cut(module.contract, kept, dim=1)",
        "_cut(module.contract, kept.flip(0), dim=1)",
        "neurons in another order behind the bend",
        NEURONS + "test_the_output_is_that_of_zeroed_columns",
    ),
    # the grid
    (
        "scale = torch.maximum(highest, -lowest) / high",
        "scale = highest / high",
        "the largest number sets the scale, whatever the smallest",
        QUANTIZE + "test_symmetric_by_hand",
    ),
    (
        "scale = torch.maximum(highest, -lowest) / high",
        "scale = torch.maximum(highest, -lowest) / (high + 1)",
        "one level too many: the largest is clipped",
        QUANTIZE + "test_symmetric_by_hand",
    ),
    (
        "scale = (highest - lowest) / (high - low)",
        "scale = (highest - lowest) / (high - low + 1)",
        "2^b levels taken for 2^b steps",
        QUANTIZE + "test_affine_by_hand",
    ),
    (
        "        low = -high\n",
        "",
        "symmetric reaches one further below: −2^(b−1)",
        QUANTIZE + "test_symmetric_stays_symmetric_in_bfloat16",
    ),
    (
        "highest, lowest = highest.clamp_min(0.0), lowest.clamp_max(0.0)",
        "pass",
        "the range need not hold 0",
        QUANTIZE + "test_a_range_far_from_zero_is_widened_to_hold_it",
    ),
    (
        "zero_point = low - (lowest / scale).round()",
        "zero_point = low - lowest / scale",
        "a zero point that is no integer",
        QUANTIZE + "test_no_number_is_off_by_more_than_half_a_step",
    ),
    (
        "zero_point = low - (lowest / scale).round()",
        "zero_point = low + (lowest / scale).round()",
        "the zero point's sign",
        QUANTIZE + "test_affine_by_hand",
    ),
    (
        "(x.detach() / scale).round() + zero_point",
        "(x.detach() / scale).floor() + zero_point",
        "rounded down",
        QUANTIZE + "test_no_number_is_off_by_more_than_half_a_step",
    ),
    (
        "(x.detach() / scale).round() + zero_point",
        "(x.detach() / scale + 0.5).floor() + zero_point",
        "halves go up",
        QUANTIZE + "test_halves_go_to_even",
    ),
    (
        "if axis is None or d != axis % x.ndim]",
        "if axis is None or d == axis % x.ndim]",
        "a scale for each input",
        QUANTIZE + "test_each_channel_has_the_grid_it_has_alone",
    ),
    (
        "if axis is None or d != axis % x.ndim]",
        "if axis is None or d != axis]",
        "a negative axis is no axis",
        QUANTIZE + "test_each_channel_has_the_grid_it_has_alone",
    ),
    (
        "if axis is None or d != axis % x.ndim]",
        "]",
        "one scale for all channels",
        QUANTIZE + "test_each_channel_has_the_grid_it_has_alone",
    ),
    (
        "scale = torch.where(scale > 0, scale, torch.ones_like(scale))",
        "pass",
        "0 / 0 for zeros",
        QUANTIZE + "test_zeros_have_scale_one",
    ),
    (
        "if not bool((highest.isfinite() & lowest.isfinite()).all()):",
        "if not bool(highest.isfinite().all()):",
        "minus infinity is let through",
        QUANTIZE + "test_bad_inputs",
    ),
    (
        "not 2 <= bits <= 8",
        "not 1 <= bits <= 8",
        "one bit, and no level but 0",
        QUANTIZE + "test_bad_inputs",
    ),
    (
        "not -x.ndim <= axis < x.ndim",
        "not axis < x.ndim",
        "an axis below the first",
        QUANTIZE + "test_bad_inputs",
    ),
    (
        "steps = quantized.integers.to(quantized.scale.dtype) - quantized.zero_point",
        "steps = quantized.integers.to(quantized.scale.dtype) + quantized.zero_point",
        "the zero point is added on the way back",
        QUANTIZE + "test_affine_by_hand",
    ),
    (
        "steps = quantized.integers.to(quantized.scale.dtype) - quantized.zero_point",
        "steps = quantized.integers - quantized.zero_point",
        "the difference of two bytes, in a byte: it wraps around",
        QUANTIZE + "test_no_number_is_off_by_more_than_half_a_step",
    ),
    # straight through
    (
        "return rounded + (x - x.detach())",
        "return rounded",
        "no gradient",
        STRAIGHT + "test_value_rounded_gradient_untouched",
    ),
    (
        "return rounded + (x - x.detach())",
        "return x",
        "nothing is rounded",
        STRAIGHT + "test_value_rounded_gradient_untouched",
    ),
    (
        "dequantize(quantize(x, bits, scheme=scheme, axis=axis))",
        "dequantize(quantize(x, bits, scheme=scheme))",
        "the axis is forgotten",
        STRAIGHT + "test_value_rounded_gradient_untouched",
    ),
    # int8 modules
    (
        "_hold(self, quantize(linear.weight, scheme=scheme, axis=0), scheme)",
        "_hold(self, quantize(linear.weight, scheme=scheme, axis=1), scheme)",
        "a scale for each input of a linear map",
        INT8 + "test_linear_computes_with_its_rounded_weight",
    ),
    (
        "_hold(self, quantize(embedding.weight, scheme=scheme, axis=0), scheme)",
        "_hold(self, quantize(embedding.weight, axis=0), scheme)",
        "tables are always symmetric",
        INT8 + "test_embedding_reads_its_rounded_rows",
    ),
    (
        'quantized.zero_point if scheme == "affine" else None',
        "None",
        "the zero point is dropped",
        INT8 + "test_linear_computes_with_its_rounded_weight",
    ),
    (
        "p = quantize(rows, axis=0)",
        "p = quantize(rows)",
        "one scale for all tokens",
        INT8 + "test_the_integer_product_is_that_of_rounded_rows_and_weights",
    ),
    (
        "products = products - sums * self.zero_point.T.to(torch.int32)",
        "products = products + sums * self.zero_point.T.to(torch.int32)",
        "the zero point's share is added",
        INT8 + "test_the_integer_product_is_that_of_rounded_rows_and_weights",
    ),
    (
        "sums * self.zero_point.T.to(torch.int32)",
        "(sums * self.zero_point.T.to(torch.int32)).to(torch.int8)",
        "a sum in a byte",
        INT8 + "test_the_integer_product_is_that_of_rounded_rows_and_weights",
    ),
    (
        "y = products.to(x.dtype) * p.scale * self.scale.T",
        "y = products.to(x.dtype) * self.scale.T",
        "the rows' scale is forgotten",
        INT8 + "test_the_integer_product_is_that_of_rounded_rows_and_weights",
    ),
    (
        "return (y if self.bias is None else y + self.bias).view",
        "return y.view",
        "no bias in the integer product",
        INT8 + "test_the_integer_product_is_that_of_rounded_rows_and_weights",
    ),
    (
        "        if not len(rows):\n            return",
        "        if False:\n            return",
        "no rows crash",
        INT8 + "test_no_rows",
    ),
    (
        "or x.dtype != self.scale.dtype:",
        "or False:",
        "another dtype is let through",
        INT8 + "test_bad_inputs",
    ),
    (
        "        return torch._int_mm(a, b)\n    (n, k)",
        "        return a.to(torch.int16) @ b.to(torch.int16)\n    (n, k)",
        "sums in sixteen bits",
        INT8 + "test_sums_do_not_saturate",
    ),
    (
        "steps = steps - F.embedding(ids, self.zero_point)",
        "steps = steps + F.embedding(ids, self.zero_point)",
        "a table's zero point is added",
        INT8 + "test_embedding_reads_its_rounded_rows",
    ),
    (
        "return Int8Linear(linear, scheme=scheme, activations=activations)",
        "return Int8Linear(linear, scheme=scheme)",
        "a module's activations stay floats",
        INT8 + "test_attention_works_with_int8_projections",
    ),
    (
        "return Int8Embedding(embedding, scheme=scheme)",
        "return Int8Embedding(embedding)",
        "a module's tables are always symmetric",
        INT8 + "test_there_and_back_is_the_rounded_module",
    ),
    (
        "    replaced = copy.deepcopy(module)\n",
        "    replaced = module\n",
        "the module given is changed",
        INT8 + "test_a_module_becomes_bytes",
    ),
    (
        "None if linear.bias is None else linear.bias.detach().clone()",
        "None if linear.bias is None else linear.bias.detach()",
        "the bias is shared with the module given",
        INT8 + "test_nothing_is_shared",
    ),
    (
        "linear.bias = nn.Parameter(module.bias.clone())",
        "linear.bias = nn.Parameter(module.bias)",
        "the bias is shared on the way back",
        INT8 + "test_nothing_is_shared",
    ),
    (
        "(module.weight, freeze=False)",
        "(module.weight)",
        "a table comes back frozen",
        INT8 + "test_there_and_back_is_the_rounded_module",
    ),
    (
        "return makers[type(module)](module).train(module.training)",
        "return makers[type(module)](module)",
        "a single linear map falls back to training",
        INT8 + "test_the_module_itself_may_be_the_linear_map",
    ),
    (
        "makers[type(child)](child).train(child.training)",
        "makers[type(child)](child)",
        "its parts fall back to training",
        INT8 + "test_there_and_back_is_the_rounded_module",
    ),
    # packing
    (
        "values[:, None] >> places & 1",
        "values[:, None] >> places.flip(0) & 1",
        "the highest bit first",
        PACKING + "test_by_hand",
    ),
    (
        "F.pad(stream, (0, -len(stream) % 8))",
        "stream[: len(stream) // 8 * 8]",
        "the last byte is lost",
        PACKING + "test_by_hand",
    ),
    (
        "value - (digits[:, -1].to(value.dtype) << bits)",
        "value",
        "the sign is lost",
        PACKING + "test_there_and_back",
    ),
    (
        "high >= 2 ** (bits - 1)",
        "high > 2 ** (bits - 1)",
        "one value too many is let through",
        PACKING + "test_bad_inputs",
    ),
]
COMPRESSION = [(PATH, *fields) for fields in _MUTANTS]

if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(root))
    from tests.mutants import Mutant, main

    sys.exit(main([Mutant(*fields) for fields in COMPRESSION], as_json=False) > 0)
