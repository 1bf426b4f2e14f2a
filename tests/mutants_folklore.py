"""Mutants of folklore: the mistakes of the chapters' boxes, put into lib.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test). The
number of a box stands in brackets at the end of `why`. Mistakes that other lists make already are
not made here again: `by_number` finds them all, wherever they stand. Some mistakes are made in
using lib, not in lib; of these the nearest form that code can have is here, and `why` says so.

    python tests/mutants_folklore.py                       run every one of these, one line each
    python tests/mutants_folklore.py lib/attention.py      those of this module
"""

import re
import sys
from pathlib import Path

ATTENTION = "lib/attention.py"
COMPRESSION = "lib/compression.py"
GRADIENTS = "lib/interpret/gradients.py"
LAYERS = "lib/layers.py"
POSITIONS = "lib/positions.py"
BERT = "lib/models/bert.py"
ELECTRA = "lib/models/electra.py"
TRANSFORMER = "lib/models/transformer.py"
SEQUENCES = "lib/teaching/sequences.py"
MEASURE = "lib/teaching/measure.py"
MULTI_HEAD = "tests/test_multi_head.py::"
IN_SEQUENCES = "tests/teaching/test_sequences.py::"

FOLKLORE = [
    # positions
    (
        POSITIONS,
        "return pair.reshape(n, d_model).to(like)",
        "return pair.reshape(n, d_model)[:, :1].expand(n, d_model).to(like)",
        "one number a position, the same in every feature (D01)",
        "test_broken_one_number_for_a_position",
    ),
    (
        POSITIONS,
        "        return (x + encoding).to(x.dtype)\n",
        "        return (x + encoding.mean(dim=-1, keepdim=True)).to(x.dtype)\n",
        "one number a position, which the next LayerNorm takes away (D02)",
        IN_SEQUENCES + "test_attention_is_told_the_positions",
    ),
    (
        SEQUENCES,
        "        x = self.positions(x)\n",
        "",
        "attention without positions (D28)",
        IN_SEQUENCES + "test_attention_is_told_the_positions",
    ),
    (
        POSITIONS,
        "    return bucket + (r > 0) * (num_buckets // 2) if bidirectional else bucket\n",
        "    return r\n",
        "the offset itself as an index (D18)",
        "tests/test_relative_positions.py::test_equals_the_official_buckets_by_default",
    ),
    # attention
    (
        ATTENTION,
        "        self.query_projection = nn.Linear(d_model, width, bias=bias)\n",
        "        self.query_projection = nn.Linear(d_model, width, bias=bias)\n"
        "        first = self.first_projection = nn.Linear(d_model, d_model, bias=bias)\n"
        "        self.query_projection.register_forward_pre_hook(lambda _, x: (first(x[0]),))\n",
        "queries projected twice (D07)",
        MULTI_HEAD + "test_heads_change_no_parameter_count",
    ),
    (
        ATTENTION,
        "            heads = fast_attention(q, k, v, mask, causal=causal, dropout=dropout)\n",
        "            heads = q + k + v\n",
        "attention made of linear layers, in which no token meets another (D08)",
        "tests/models/test_bert.py::test_both_directions_are_read",
    ),
    (
        ATTENTION,
        "            weights = F.dropout(weights, dropout)\n",
        "            hidden = logits == -math.inf\n"
        "            scores = F.dropout(logits.masked_fill(hidden, 0.0), dropout)\n"
        "            weights = scores.masked_fill(hidden, -math.inf).softmax(dim=-1)\n",
        "dropped scores become ordinary ones, so weights lose their mean (D10b)",
        "test_dropout_comes_after_the_softmax_and_is_unbiased",
    ),
    (
        ATTENTION,
        "            weights = F.dropout(weights, dropout)\n",
        "            weights = F.dropout(weights, dropout)\n"
        "            weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-9)\n",
        "rows made to sum to one under dropout too, as a test that asks it of them wants (D41)",
        "test_dropout_comes_after_the_softmax_and_is_unbiased",
    ),
    (
        ATTENTION,
        "            heads = fast_attention(q, k, v, mask, causal=causal, dropout=dropout)\n",
        "            q, k, v = (x.transpose(0, 2) for x in (q, k, v))\n"
        "            heads = fast_attention(q, k, v).transpose(0, 2)\n",
        "samples attend to each other in place of tokens: no future leaks, so that a leak test "
        "without its partners passes (D40)",
        MULTI_HEAD + "test_no_output_depends_on_the_future",
    ),
    # layers and models
    (
        LAYERS,
        "            return norm(x + self._drop(sublayer(x)))\n",
        "            return (x + self._drop(sublayer(x))).softmax(dim=-1)\n",
        "softmax in the place of the norm (D06)",
        "test_encoder_layer_equals_torchs",
    ),
    (
        LAYERS,
        "        read = partial(self.cross_attention, key=memory, mask=memory_mask, cache=cache)\n",
        "        read = partial(self.cross_attention, key=memory[:, -1:], cache=cache)\n",
        "a decoder that reads the encoder's last state alone (D34)",
        "test_decoder_layer_equals_torchs",
    ),
    (
        TRANSFORMER,
        '            "num_decoder_layers": self.num_layers,\n',
        '            "num_decoder_layers": 6,\n',
        "as many decoder layers as nn.Transformer has where only the encoder's are named (D16)",
        "test_what_is_none_of_the_decoder_is_as_in_the_encoder",
    ),
    (
        TRANSFORMER,
        "            x = layer(x, mask)\n        return x\n",
        "            x = layer(x.transpose(0, 1)).transpose(0, 1)\n        return x\n",
        "layers that are given (B, n) for (n, B), and then mix samples (D16)",
        "test_no_output_depends_on_the_future",
    ),
    (
        TRANSFORMER,
        "        memory = self.encode(input_ids, attention_mask=attention_mask)\n",
        "        input_ids = torch.cat([input_ids, decoder_input_ids], dim=1)\n"
        "        if attention_mask is not None:\n"
        "            more = torch.ones_like(decoder_input_ids, dtype=attention_mask.dtype)\n"
        "            attention_mask = torch.cat([attention_mask, more], dim=1)\n"
        "        memory = self.encode(input_ids, attention_mask=attention_mask)\n",
        "an encoder that reads what the decoder is to write (D17)",
        "test_no_output_depends_on_the_future",
    ),
    (
        BERT,
        "        for layer in self.layers:\n            x = layer(x, mask)\n        return x\n",
        "        if attention_mask is not None:\n"
        "            x = x.masked_fill((attention_mask == 0).unsqueeze(-1), -torch.inf)\n"
        "        for layer in self.layers:\n            x = layer(x, mask)\n        return x\n",
        "−∞ written on the embeddings of padding (D15)",
        "test_padding_and_other_sequences_change_nothing",
    ),
    (
        BERT,
        "        for layer in self.layers:\n            x = layer(x, mask)\n        return x\n",
        "        ahead, back = x, x.flip(1)\n"
        "        other = None if mask is None else mask.flip(-1)\n"
        "        for layer in self.layers:\n"
        "            ahead = layer(ahead, mask, causal=True)\n"
        "            back = layer(back, other, causal=True)\n"
        "        return ahead + back.flip(1)\n",
        "two one-way models, added at the end (D27)",
        "test_the_two_sides_interact",
    ),
    (
        ELECTRA,
        "        is_replaced = replaced_tokens(input_ids, corrupted_ids)\n",
        "        is_replaced = replaced_tokens(input_ids, corrupted_ids)\n"
        "        is_replaced = is_replaced.any(dim=1, keepdim=True).expand_as(is_replaced)\n",
        "a discriminator trained on labels by copy (D24)",
        "test_a_step",
    ),
    # what is only measured: recurrence, and its cost
    (
        SEQUENCES,
        "                self.body.bias_ih_l0[width : 2 * width] = forget_bias\n",
        "                self.body.bias_ih_l0[width : 2 * width] = 0.0\n",
        "a recurrence whose gates begin half closed: gradients halve at every word (D31)",
        IN_SEQUENCES + "test_the_lstms_forget_gates_can_begin_open",
    ),
    (
        MEASURE,
        "    return sdpa_flop_count(query, key, value)\n",
        "    return sdpa_flop_count(query, key, value) // query[-2]\n",
        "a budget in proportion: attention counted as if it grew with n, not n² (D32)",
        "tests/teaching/test_measure.py::TestFlops::test_the_fused_kernel_counts_as_the_formula",
    ),
    # making smaller, looking inside
    (
        COMPRESSION,
        "    pruned = copy.deepcopy(module)\n    pruned.num_heads = len(kept)\n",
        "    pruned = copy.deepcopy(module)\n"
        "    gone = torch.ones(module.output_projection.in_features)\n"
        "    gone[rows] = 0\n"
        "    pruned.output_projection.weight.data[:, gone.bool()] = 0\n"
        "    return pruned\n",
        "heads that are set to zero and not removed: nothing gets smaller (D35)",
        "tests/test_compression.py::TestHeads::test_rows_and_columns_are_really_gone",
    ),
    (
        GRADIENTS,
        "points = start + alpha.view(-1, 1, *one) * (x - start)",
        "points = x.expand(len(alpha), *x.shape)",
        "the gradient at the input alone, which is 0 where a unit is saturated (D36)",
        "tests/interpret/test_gradients.py::TestIntegratedGradients::test_saturation",
    ),
]


def lists() -> list[tuple[str, ...]]:
    """The mutants of all lists, this one included, as (path, old, new, why, test)."""
    from dataclasses import astuple
    from importlib import import_module

    found: list[tuple[str, ...]] = []
    for file in sorted(Path(__file__).resolve().parent.glob("mutants*.py")):
        for value in vars(import_module(f"tests.{file.stem}")).values():
            if isinstance(value, list):
                rows = [astuple(m) if hasattr(m, "why") else m for m in value]
                found += [row for row in rows if isinstance(row, tuple) and len(row) == 5]
    return list(dict.fromkeys(found))  # a list of lists holds each of them again


def by_number() -> dict[str, list[tuple[str, ...]]]:
    """All mutants of every box, by its number: {"D09": [(path, old, new, why, test), …], …}."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in lists():
        for number in re.findall(r"\((D\d\d[a-z]?)\)", row[3]):
            found.setdefault(number, []).append(row)
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in FOLKLORE if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
