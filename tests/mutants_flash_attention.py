"""Mutants of the flash attention kernels, and of the teaching code that counts what moves.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    TRITON_INTERPRET=1 python tests/mutants_flash_attention.py    run every one, one line each
"""

import sys
from pathlib import Path

FLASH = "lib/flash_attention.py"
TILES = "lib/teaching/tiles.py"
EQUALS = "tests/test_flash_attention.py::test_equals_the_formula"
FULL, CAUSAL = f"{EQUALS}[37-53-False]", f"{EQUALS}[37-53-True]"
NOTHING = "tests/test_flash_attention.py::test_a_query_that_sees_nothing_gets_zeros"
WIDTHS = "tests/test_flash_attention.py::test_any_width_up_to_128[1-False]"
BELOW = "tests/test_flash_attention.py::test_scores_far_below_zero_are_told_from_padding"
LARGE = "tests/test_flash_attention.py::test_scores_in_the_thousands_do_not_overflow"
HALF = "tests/test_flash_attention.py::test_in_sixteen_bits[False-dtype1]"
HEADS = "tests/test_flash_attention.py::test_heads_do_not_meet"
STRIDES = "tests/test_flash_attention.py::test_any_strides"
REFUSES = "tests/test_flash_attention.py::test_what_it_refuses"
COUNTS = "tests/teaching/test_tiles.py::"

FLASH_MUTANTS = [
    (FLASH, "+ (row * D + column)", "+ (row * D)", "a row's first feature only", FULL),
    (FLASH, "(base + start) * D +", "start * D +", "all heads read the first", HEADS),
    (FLASH, "mask=there, other=0.0", "mask=there, other=1.0", "padding is not zero", FULL),
    (FLASH, "tl.load(at, mask=there, other=0.0) if MASKED else", "", "no row is masked", BELOW),
    (FLASH, "(j < n_k) & (j <= i + shift)", "j <= i + shift", "padded keys count", BELOW),
    (FLASH, "(j < n_k) & (j <= i + shift)", "j < n_k", "the future is seen", CAUSAL),
    (FLASH, "(j <= i + shift)", "(j < i + shift)", "a query does not see itself", CAUSAL),
    (FLASH, "i, j = (b, a) if KEYS else (a, b)", "i, j = (a, b)", "mask not turned", CAUSAL),
    (
        FLASH,
        "i + shift + 1, 0), n_k)",
        "i + shift + 2, 0), n_k)",
        "full one too far",
        f"{EQUALS}[39-53-True]",
    ),
    (FLASH, "n_k) // C * C  # whole", "n_k)  # whole", "full not in whole tiles", FULL),
    (FLASH, "i + shift + B, 0), n_k)", "i + shift + 1, 0), n_k)", "last too early", CAUSAL),
    (FLASH, "s = scale * _scores", "s = _scores", "no root", FULL),
    (FLASH, "new = tl.maximum(m, tl", "new = tl.maximum(0.0, tl", "maximum at least 0", LARGE),
    (FLASH, 'tl.where(new == float("-inf"), 0.0, new)', "new", "−∞ − (−∞)", NOTHING),
    (FLASH, "total = total * old +", "total = total +", "sum not rescaled", FULL),
    (FLASH, "acc = acc * old +", "acc = acc +", "values not rescaled", FULL),
    (FLASH, "tl.where(total == 0, 1.0, total)", "total", "0 / 0", NOTHING),
    (FLASH, "acc / total", "acc", "not divided", FULL),
    (FLASH, "m + tl.log2(total)", "m", "L without the sum", FULL),
    (FLASH, "tl.maximum(a - shift, 0)", "tl.maximum(a + B - shift, 0)", "first too late", CAUSAL),
    (FLASH, "a + B - 1 - shift, 0) + C - 1", "a - shift, 0) + C - 1", "full too early", CAUSAL),
    (FLASH, "+ C - 1) // C * C, other)", ") // C * C, other)", "rounded down", CAUSAL),
    (FLASH, "tl.maximum(a + shift + B, 0)", "tl.maximum(a + shift, 0)", "dQ: last", CAUSAL),
    (
        FLASH,
        "tl.maximum(a + shift + 1, 0)",
        "tl.maximum(a + shift + 2, 0)",
        "dQ: full",
        f"{EQUALS}[39-53-True]",
    ),
    (FLASH, "n if KEYS else other, shift", "other, shift", "n_k of the wrong side", CAUSAL),
    (FLASH, "part != KEYS, KEYS)", "part == KEYS, KEYS)", "the wrong tiles masked", CAUSAL),
    (FLASH, "tl.exp2(scale * s - lse)", "tl.exp2(scale * s)", "weights not normalised", FULL),
    (FLASH, 'input_precision="ieee") - e)', 'input_precision="ieee"))', "without D", FULL),
    (FLASH, "ds = p * (tl.dot", "ds = (tl.dot", "not weighted", FULL),
    (FLASH, "dx * (scale * 0.6931471805599453)", "dx * scale", "without ln 2", FULL),
    (FLASH, "dx * (scale * 0.6931471805599453)", "dx", "gradients without the root", FULL),
    (FLASH, "k, v, q, g, lse, e, dk, dv", "v, k, q, g, lse, e, dk, dv", "K for V", FULL),
    (FLASH, "/ d**0.5", "/ (d + full) ** 0.5", "the root of the padded width", WIDTHS),
    (FLASH, "key.shape[-2] - n if causal", "0 if causal", "aligned at the upper left", CAUSAL),
    (FLASH, "[None].flatten(0, -3).contiguous()", "[None].flatten(0, -3)", "strides", STRIDES),
    (FLASH, "d > 128 or d_v", "d > 256 or d_v", "wider than it fits", REFUSES),
    (FLASH, "dtype == torch.float64 or", "", "float64 is rounded in silence", REFUSES),
    (FLASH, "exact = torch.float32 if _INTERPRETED", "exact = dtype if True", "bfloat16", HALF),
]

TILE_MUTANTS = [
    (TILES, "self.read += part.numel()", "self.read += 1", "reads by call", COUNTS + "test_memory"),
    (TILES, "self.written += part.numel()", "pass", "no writes", COUNTS + "test_memory"),
    (TILES, "[rows].clone()", "[rows]", "a view is lent", COUNTS + "test_memory"),
    (TILES, "min(queries.stop + shift, n_k)", "n_k", "no tile skipped", COUNTS + "test_skips"),
    (
        TILES,
        "masked = not bool(seen.all())",
        "masked = bool(seen.any())",
        "masked",
        COUNTS + "test_skips",
    ),
    (TILES, "total == 0, 1.0, total", "total < 0, 1.0, total", "0 / 0", COUNTS + "test_exact"),
    (
        TILES,
        'memory.store("L", maximum + share.log()',
        'memory.store("L", maximum',
        "L",
        COUNTS + "test_exact",
    ),
    (TILES, "old * total + weights", "total + weights", "not rescaled", COUNTS + "test_exact"),
    (TILES, 'scores = memory.load("S")', "pass", "S not read again", COUNTS + "test_standard"),
    (TILES, ".nan_to_num(0.0)", "", "0 / 0 in the table", COUNTS + "test_standard"),
    (
        TILES,
        '"whole" if end <= i + shift',
        '"whole" if end <= last + shift',
        "whole",
        COUNTS + "test_skips",
    ),
]

ALL = [*FLASH_MUTANTS, *TILE_MUTANTS]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in ALL if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
