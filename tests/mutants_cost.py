"""Mutants of lib.cost: each formula with one factor, one term or one condition wrong.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_cost.py     run every one of these, one line each
"""

import sys
from pathlib import Path

COST = "lib/cost.py"
TESTS = "tests/test_cost.py::"

COST_MUTANTS = [
    (
        COST,
        "product = 2 * tokens * inputs * outputs",
        "product = tokens * inputs * outputs",
        "a multiply-add is one operation",
        TESTS + "TestFamily::test_forward[bert, relu]",
    ),
    (
        COST,
        "(1 + input_gradient) * product",
        "2 * product",
        "the first map has a gradient of its input",
        TESTS + "TestFamily::test_backward[vit]",
    ),
    (
        COST,
        "inputs * outputs + bias * outputs",
        "inputs * outputs",
        "biases are forgotten",
        TESTS + "TestFamily::test_parameters[bert]",
    ),
    (
        COST,
        "(1 if rms else 2) * width",
        "2 * width",
        "an RMSNorm has a shift",
        TESTS + "TestFamily::test_parameters[t5]",
    ),
    (
        COST,
        "(2 * width + 1 + (not rms))",
        "(2 * width + 1)",
        "the mean of a LayerNorm is not kept",
        TESTS + "TestFamily::test_saved[torch.float32-0.0-gpt2]",
    ),
    (
        COST,
        "wide = max(4, _size(dtype))\n    return Cost(",
        "wide = _size(dtype)\n    return Cost(",
        "a norm keeps half precision",
        TESTS + "TestFamily::test_saved[torch.bfloat16-0.0-bert]",
    ),
    (
        COST,
        "Cost(0, 2 * product, 5 * product, size * inputs",
        "Cost(0, 2 * product, 4 * product, size * inputs",
        "a fused kernel computes nothing again",
        TESTS + "TestFamily::test_backward[distilbert]",
    ),
    (
        COST,
        "weights * (3 if dropout else 1)",
        "weights * (2 if dropout else 1)",
        "one of the three tables of dropout is forgotten",
        TESTS + "TestFamily::test_saved[torch.float32-0.1-bert]",
    ),
    (
        COST,
        "batch * width * (n_q + 2 * n_k)",
        "batch * width * (n_q + n_k)",
        "values are not kept",
        TESTS + "TestFamily::test_saved[torch.float32-0.0-distilbert]",
    ),
    (
        COST,
        'hidden = 1 if activation == "relu" else 2',
        "hidden = 2",
        "a ReLU keeps its input",
        TESTS + "TestFamily::test_saved[torch.float32-0.0-bert, relu]",
    ),
    (
        COST,
        "hidden = hidden + 2",
        "hidden = hidden + 1",
        "a gate keeps one factor",
        TESTS + "TestFamily::test_saved[torch.float32-0.0-t5 v1.1]",
    ),
    (
        COST,
        "return Cost(0, head.forward, head.backward, head.saved)",
        "return head",
        "tied words are counted twice",
        TESTS + "TestFamily::test_parameters[gpt2]",
    ),
    (
        COST,
        '"norm": (2 * layers + 1) * shape.norm(n, d),\n        "head": _tied',
        '"norm": 2 * layers * shape.norm(n, d),\n        "head": _tied',
        "the last norm is forgotten",
        TESTS + "TestFamily::test_parameters[gpt2, one sequence]",
    ),
    (
        COST,
        "block = min(max(half, 16), n)",
        "block = min(half, n)",
        "blocks of a window may be small",
        TESTS + "TestFamily::test_forward[longformer, whole blocks]",
    ),
    (
        COST,
        "if half > 0 and n >= 2 * half + block:",
        "if False:",
        "every sequence is padded",
        TESTS + "TestFamily::test_forward[longformer]",
    ),
    (
        COST,
        "block = block if shape.gradients else small",
        "pass",
        "blocks are as large without gradients",
        TESTS + "TestFamily::test_forward_without_gradients[0.1-longformer, large blocks]",
    ),
    (
        COST,
        "for b in (small, block)",
        "for b in (block, block)",
        "blocks are as large forward as backward",
        TESTS + "TestFamily::test_forward[longformer, large blocks]",
    ),
    (
        COST,
        "for b in (small, block)",
        "for b in (small, small)",
        "blocks are as small backward as forward",
        TESTS + "TestFamily::test_backward[longformer, large blocks]",
    ),
    (
        COST,
        "7 * backward, size * 3",
        "5 * backward, size * 3",
        "a window's blocks are not computed again",
        TESTS + "TestFamily::test_backward[longformer, whole blocks]",
    ),
    (
        COST,
        "7 * backward, size * 3",
        "7 * backward, size * 4",
        "the output of a window is kept twice",
        TESTS + "TestFamily::test_saved[torch.float32-0.0-longformer, whole blocks]",
    ),
    (
        COST,
        "rows = -(-n // block) * block if shape.batch == 1 else n",
        "rows = n",
        "the output of a padded window is copied in any case",
        TESTS + "TestFamily::test_saved[torch.float32-0.0-longformer, one sequence]",
    ),
    (
        COST,
        "rows = -(-n // block) * block if shape.batch == 1 else n",
        "rows = -(-n // block) * block",
        "the output of a padded window is never copied",
        TESTS + "TestFamily::test_saved[torch.float32-0.0-longformer]",
    ),
    (
        COST,
        "copies = count > 1 and shape.batch * heads > 1",
        "copies = True",
        "the values of one block are copied",
        TESTS + "TestFamily::test_saved[torch.float64-0.0-longformer, large blocks]",
    ),
    (
        COST,
        "rate, n_k=m) + written)",
        "rate) + written)",
        "cross-attention reads what is written",
        TESTS + "TestFamily::test_forward[marian]",
    ),
    (
        COST,
        'own = plain | {"fused": False}',
        "own = plain",
        "a bias that is trained is fused",
        TESTS + "TestFamily::test_backward[t5]",
    ),
    (
        COST,
        "Cost(saved=8 * m * m + 9 * n * n)",
        "Cost(saved=8 * m * m + 8 * n * n)",
        "the mask of the future is not kept",
        TESTS + "TestFamily::test_saved[torch.float32-0.0-t5]",
    ),
    (
        COST,
        "max(2 * d_ff, d_ff + d)",
        "d_ff + d",
        "one hidden layer is alive at a time",
        TESTS + "TestPeaks::test_inference[vit]",
    ),
    (
        COST,
        "copies = 2 if batch > 1 or dtype == torch.bfloat16 else 1",
        "copies = 1",
        "the copy of the logits is forgotten",
        TESTS + "TestPeaks::test_training_step[3-31-1511-torch.float32]",
    ),
    (
        COST,
        "return 2 * layers * batch * (length",
        "return layers * batch * (length",
        "keys are cached and values are not",
        TESTS + "TestCache::test_bytes[gpt2-torch.float32]",
    ),
    (
        COST,
        "if not 0 <= flops_per_second <= peak:",
        "if not 0 <= flops_per_second:",
        "a device may be busier than it can be",
        TESTS + "TestSpeed::test_more_than_the_peak_is_refused[324480000000000.0]",
    ),
    (
        COST,
        "121, 60, 30.3,",
        "242, 120, 30.3,",
        "the sparse figure of a data sheet",
        TESTS + "TestSpeed::test_dense_and_not_sparse",
    ),
    (
        COST,
        "if device_name not in DEVICES:",
        'if not str(device_name).startswith("NVIDIA"):',
        "any name of the maker will do",
        TESTS + "TestSpeed::test_an_unknown_device_is_refused[NVIDIA H100]",
    ),
    (
        COST,
        "return min(peak_flops, intensity * bandwidth)",
        "return intensity * bandwidth",
        "no roof",
        TESTS + "TestSpeed::test_roofline",
    ),
    (
        COST,
        "_size(dtype) * (m * k + k * n + m * n)",
        "_size(dtype) * (m * k + k * n)",
        "the product is not written",
        TESTS + "TestSpeed::test_intensity",
    ),
    (
        COST,
        '"mixed": (2, 2, 8, 4),',
        '"mixed": (2, 2, 8, 0),',
        "no copy in full precision",
        TESTS + "TestTraining::test_bytes_of_a_parameter",
    ),
]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in COST_MUTANTS if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
