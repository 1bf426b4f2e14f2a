"""Mutants of lib/interpret/surrogate.py.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_surrogate.py
"""

import sys
from pathlib import Path

PATH = "lib/interpret/surrogate.py"
FILE = "tests/interpret/test_surrogate.py::"
FIT = FILE + "TestWeightedLeastSquares::"
WORDS = FILE + "TestWords::"
REAL = FILE + "TestRealFeatures::"
SEEDS = FILE + "TestSeeds::"
ERRORS = FILE + "test_errors"
DRAWN = WORDS + "test_how_neighbours_are_drawn"
SAMPLING = FILE + "TestSampling::"
LIMIT = SAMPLING + "test_the_limit_is_the_same"
RIDGE = LIMIT + "[0.2-kernel-cosine-count]"
PAIRED = LIMIT + "[0.0-pairs-cosine-count]"
SPREAD = SAMPLING + "test_the_spread_is_smaller"
PROPORTION = SAMPLING + "test_sets_are_drawn_in_proportion_to_draw_and_kernel"
PAIRS = SAMPLING + "test_pairs_are_found_exactly_where_there_is_nothing_else"
FEW = SAMPLING + "test_fewer_samples_than_words_need_ridge"
SKLEARN = FIT + "test_it_is_what_scikit_learn_finds"
KERNEL = WORDS + "test_the_kernel"

SURROGATE_MUTANTS = [
    (PATH, old, new, why, test)
    for old, new, why, test in [
        (
            "return self.intercept + z.to(self.coefficients) @ self.coefficients",
            "return z.to(self.coefficients) @ self.coefficients",
            "a prediction without the intercept",
            SKLEARN,
        ),
        (
            "z.to(self.coefficients) @",
            "z @",
            "booleans cannot be predicted",
            FIT + "test_dtypes",
        ),
        (
            "if z.ndim != 2 or z.numel() == 0:",
            "if z.ndim != 2:",
            "no column is accepted",
            FIT + "test_errors",
        ),
        (
            "if z.ndim != 2 or z.numel() == 0:",
            "if z.numel() == 0:",
            "a vector is accepted",
            FIT + "test_errors",
        ),
        (
            "if x.shape != z.shape[:1]:",
            "if len(x) != len(z):",
            "a column is accepted for a row",
            FIT + "test_errors",
        ),
        (
            '(("values", values), ("weights", weights)):\n        if',
            '(("values", values),):\n        if',
            "any number of weights is accepted",
            FIT + "test_errors",
        ),
        (
            "bool((weights >= 0).all()) and bool(weights.sum() > 0)",
            "bool(weights.sum() > 0)",
            "negative weights are accepted",
            FIT + "test_errors",
        ),
        (
            "bool((weights >= 0).all()) and bool(weights.sum() > 0)",
            "bool((weights >= 0).all())",
            "weights that are all 0 are accepted",
            FIT + "test_errors",
        ),
        (
            "if not (math.isfinite(ridge) and ridge >= 0):",
            "if not ridge >= 0:",
            "an infinite ridge is accepted",
            FIT + "test_errors",
        ),
        (
            "if not (math.isfinite(ridge) and ridge >= 0):",
            "if not math.isfinite(ridge):",
            "a negative ridge is accepted",
            FIT + "test_errors",
        ),
        (
            "share = weights / weights.sum()",
            "share = torch.full_like(weights, 1 / len(weights))",
            "centred about the plain mean",
            SKLEARN,
        ),
        ("root = weights.sqrt()", "root = weights", "weights enter squared", SKLEARN),
        (
            "root[:, None] * (z - z_mean)",
            "root[:, None] * z",
            "a fit without an intercept",
            SKLEARN,
        ),
        (
            "if ridge == 0:",
            "if ridge != 0:",
            "an answer where none is unique",
            FIT + "test_without_a_unique_minimum_it_says_so",
        ),
        (
            "if rank < n:",
            "if rank < n - 1:",
            "one missing direction is let pass",
            FIT + "test_without_a_unique_minimum_it_says_so",
        ),
        (
            "max(z.shape) * torch.finfo(s.dtype).eps * s[0]",
            "1e-7 * s[0] + 1e-7",
            "narrow kernels are called dependent",
            FIT + "test_narrow_weights_do_not_lose_digits",
        ),
        ("s / (s * s + ridge)", "s / (s * s + ridge**2)", "λ squared", SKLEARN),
        ("s / (s * s + ridge)", "1 / (s + ridge)", "λ added to s and not to s²", SKLEARN),
        (
            "(U.T @ (root * (values - y_mean)))",
            "(U.T @ (values - y_mean))",
            "values are not weighted",
            SKLEARN,
        ),
        (
            "intercept = y_mean - z_mean @ coefficients",
            "intercept = y_mean",
            "the intercept is the mean",
            SKLEARN,
        ),
        (
            "rest = weights @ (values - intercept - z @ coefficients) ** 2",
            "rest = (values - intercept - z @ coefficients).square().sum()",
            "r2 of unweighted residuals",
            SKLEARN,
        ),
        (
            "total = weights @ (values - y_mean) ** 2",
            "total = weights @ values**2",
            "r2 about 0 and not about the mean",
            SKLEARN,
        ),
        (
            "r2=1.0 if constant else (1 - rest / total).item()",
            "r2=(1 - rest / total).item()",
            "r2 of a constant is 0/0",
            FIT + "test_a_constant_is_explained_whole",
        ),
        (
            "constant = total <= 1e-28 * (weights @ values**2)",
            "constant = total == 0",
            "a constant is known by an exact 0 only",
            FIT + "test_a_constant_is_explained_whole",
        ),
        (
            "(weights.sum() ** 2 / weights.square().sum()).item()",
            "(weights > 0).sum().item()",
            "every weight above 0 counts whole",
            FIT + "test_effective_samples",
        ),
        (
            "isinstance(kernel_width, int | float) and 0 < kernel_width < math.inf",
            "isinstance(kernel_width, int | float) and 0 <= kernel_width < math.inf",
            "a kernel of width 0",
            ERRORS,
        ),
        (
            "isinstance(kernel_width, int | float) and 0 < kernel_width < math.inf",
            "isinstance(kernel_width, int | float) and 0 < kernel_width",
            "a kernel of infinite width",
            ERRORS,
        ),
        (
            "isinstance(kernel_width, int | float) and 0 < kernel_width < math.inf",
            "0 < kernel_width < math.inf",
            "a width in words is TypeError",
            ERRORS,
        ),
        (
            "if not _is_integer(samples) or samples < 2:",
            "if not _is_integer(samples) or samples < 1:",
            "one sample",
            ERRORS,
        ),
        (
            "if not _is_integer(samples) or samples < 2:",
            "if samples < 2:",
            "half a sample",
            ERRORS,
        ),
        ("if not _is_integer(seed):", "if False:", "no seed", ERRORS),
        ("if option not in options:", "if False:", "an unknown option is silent", ERRORS),
        (
            "isinstance(scale, int | float) and 0 < scale < math.inf",
            "isinstance(scale, int | float) and 0 <= scale < math.inf",
            "neighbours that are all x",
            ERRORS,
        ),
        (
            "isinstance(scale, int | float) and 0 < scale < math.inf",
            "isinstance(scale, int | float) and 0 < scale",
            "an infinite scale",
            ERRORS,
        ),
        (
            "generator = torch.Generator().manual_seed(seed)",
            "generator = torch.Generator()\n    generator.seed()",
            "another answer at every run",
            SEEDS + "test_the_same_seed_gives_the_same_answer",
        ),
        (
            "generator = torch.Generator().manual_seed(seed)",
            "generator = torch.manual_seed(seed)",
            "everybody's generator is set",
            SEEDS + "test_the_same_seed_gives_the_same_answer",
        ),
        (
            "generator = torch.Generator().manual_seed(seed)",
            "generator = torch.Generator().manual_seed(0)",
            "the seed is ignored",
            SEEDS + "test_the_same_seed_gives_the_same_answer",
        ),
        ("if x < 1:", "if x < 0:", "no word", ERRORS),
        (
            "_distance(1 - z.double().mean(1), distance)",
            "_distance((~z).double().sum(1), distance)",
            "distance on raw counts",
            KERNEL,
        ),
        (
            'absent if distance == "share" else',
            'absent if distance == "cosine" else',
            "distances swapped",
            KERNEL,
        ),
        ("1 - (1 - absent).sqrt()", "1 - (1 - absent)", "a cosine without its root", KERNEL),
        (
            "if x.ndim != 1 or len(x) == 0:",
            "if x.ndim != 1:",
            "no feature is accepted",
            ERRORS,
        ),
        (
            "if x.ndim != 1 or len(x) == 0:",
            "if len(x) == 0:",
            "a matrix is accepted",
            ERRORS,
        ),
        (
            "        noise[0] = 0.0\n",
            "",
            "x itself is no sample",
            REAL + "test_what_f_is_asked",
        ),
        (
            "x.detach().double().cpu() + scale * noise",
            "x.detach().double().cpu() + noise",
            "the scale is ignored",
            REAL + "test_what_f_is_asked",
        ),
        (
            "(x.detach().double().cpu() + scale * noise).to(x)",
            "(scale * noise).to(x)",
            "neighbours of 0 and not of x",
            REAL + "test_what_f_is_asked",
        ),
        (
            "(x.detach().double().cpu() + scale * noise).to(x)",
            "(x.detach().double().cpu() + scale * noise)",
            "f is given another dtype than x's",
            REAL + "test_what_f_is_asked",
        ),
        (
            "far = noise.norm(dim=1)",
            "far = (scale * noise).norm(dim=1)",
            "distance in the units of x",
            REAL + "test_the_kernel_counts_in_standard_deviations",
        ),
        (
            "far = noise.norm(dim=1)",
            "far = noise.abs().sum(1)",
            "distance along the axes",
            REAL + "test_the_kernel_counts_in_standard_deviations",
        ),
        ('raise TypeError(f"x: expected', 'raise ValueError(f"x: expected', "ids", ERRORS),
        ("if values.shape != z.shape[:1]:", "if False:", "any shape of values", ERRORS),
        (
            "torch.exp(-((far / kernel_width) ** 2))",
            "torch.exp(-((far / kernel_width) ** 2) / 2)",
            "half the exponent",
            KERNEL,
        ),
        (
            "torch.exp(-((far / kernel_width) ** 2))",
            "torch.exp(-(far / kernel_width))",
            "the distance is not squared",
            KERNEL,
        ),
        (
            "torch.exp(-((far / kernel_width) ** 2))",
            "torch.ones_like(far)",
            "no kernel",
            KERNEL,
        ),
        (
            "** 2))\n    return weighted_least_squares(z, values, weights, ridge=ridge)",
            "** 2))\n    return weighted_least_squares(z, values, weights)",
            "ridge is ignored",
            WORDS + "test_ridge_shrinks",
        ),
        ("present = order < 0.5", "present = order < 0.7", "a loaded coin", DRAWN),
        (
            "torch.randint(1, n + 1, (samples, 1)",
            "torch.randint(1, n + 1, (samples, n)",
            "a number of absent words for each word",
            DRAWN,
        ),
        ("torch.randint(1, n + 1,", "torch.randint(0, n + 1,", "nothing may be absent", DRAWN),
        ("torch.randint(1, n + 1,", "torch.randint(1, n,", "everything is never absent", DRAWN),
        (
            "order.argsort(dim=1).argsort(dim=1) >= absent\n",
            "order.argsort(dim=1).argsort(dim=1) > absent\n",
            "one more absent than drawn",
            DRAWN,
        ),
        (
            "order.argsort(dim=1).argsort(dim=1) >= absent\n",
            "torch.arange(n) >= absent\n",
            "the first words are absent first",
            DRAWN,
        ),
        (
            "    present[0] = True\n",
            "",
            "the whole text is no sample",
            WORDS + "test_what_f_is_asked",
        ),
        (
            "torch.full((samples,), mass.sum().item(), dtype=torch.float64)",
            "torch.ones(samples, dtype=torch.float64)",
            "ridge against weights of one",
            RIDGE,
        ),
        (
            "                return weighted_least_squares(z, values, weights, ridge=ridge)\n"
            "            return",
            "                return weighted_least_squares(z, values, weights)\n            return",
            "the kernel's sampling forgets ridge",
            RIDGE,
        ),
        (
            '        if sampling != "paper":\n            raise',
            "        if False:\n            raise",
            "sampling of a real x is ignored",
            ERRORS,
        ),
        ("return kernel * chance", "return chance", "drawn without the kernel", PROPORTION),
        ("return kernel * chance", "return kernel", "drawn by the kernel alone", PROPORTION),
        ("chance = (absent > 0) / n", "chance = (absent >= 0) / n", "x is drawn", PROPORTION),
        (
            "math.comb(n, a) / 2**n for a in range(n + 1)",
            "1 / 2**n for a in range(n + 1)",
            "coins: each size as likely",
            PROPORTION,
        ),
        (
            "at = (torch.arange(samples) + start) / samples",
            "at = torch.rand(samples, generator=generator, dtype=torch.float64)",
            "sizes by chance and not spread evenly",
            PROPORTION,
        ),
        (
            "at = (torch.arange(samples) + start) / samples",
            "at = (torch.arange(samples) + 0.5) / samples",
            "a rare size is never drawn",
            SAMPLING + "test_sizes_begin_at_a_place_that_is_drawn",
        ),
        (
            ">= absent[:, None]",
            "> absent[:, None]",
            "the kernel's sets have one more absent",
            PROPORTION,
        ),
        ("values - bent, weights", "values, weights", "Q is not taken out", PAIRS),
        (
            "values - bent, weights",
            "values - bent - absent @ slope, weights",
            "Q has a line",
            PAIRS,
        ),
        ("* absent).sum(1) / 2 - constant", "* absent).sum(1) - constant", "a pair twice", PAIRS),
        (" - constant - absent @ slope", " - absent @ slope", "Q has a mean", PAIRS),
        (" - constant - absent @ slope", " - constant", "Q is taken out with its line", PAIRS),
        ("return B.fill_diagonal_(0.0)", "return B", "a word as a pair with itself", PAIRS),
        (
            "constant = two * B.sum() / 2 - one * slope.sum()",
            "constant = two * B.sum() / 2",
            "the mean of Q is taken for the constant of its line",
            PAIRS,
        ),
        (
            "slope = own * B.sum(1) + every * B.sum() / 2",
            "slope = own * B.sum(1)",
            "what a pair says of the number of words is lost",
            PAIRS,
        ),
        (
            "/ spread - 2 * own) / n",
            "/ spread) / n",
            "what a pair's own words say counts twice",
            PAIRS,
        ),
        ("    if not B.any():", "    if False:", "0/0 for sets of one size", FEW),
        ("(1, 2, 3))", "(1, 2, 2))", "three words are absent as often as two", PAIRS),
        (
            "for a, p in enumerate(size.tolist())) / math.comb(n, k)",
            "for a, p in enumerate(size.tolist()))",
            "any k words for k given ones",
            PAIRS,
        ),
        (
            "    if k > n:\n        return 0.0\n",
            "",
            "three of two words",
            SAMPLING + "test_pairs_of_two_words",
        ),
        (
            "(1 - rest / total).item(), float(m)",
            "line.r2, float(m)",
            "r2 of the answers without the pairs",
            PAIRED,
        ),
        (
            "if rest.square().sum() <= 1e-24 * values.square().sum():",
            "if False:",
            "the most likely ridge of nothing",
            FEW,
        ),
        (
            " + _ALIKE * torch.outer(number, number) * common",
            "",
            "what a word has in all its pairs is put in and not fitted",
            PAIRS,
        ),
        (
            "g = _ALIKE * (alpha * number) @ absent",
            "g = _ALIKE * alpha @ absent",
            "what a word has in all its pairs, not by how many they are",
            PAIRS,
        ),
        ("if unlikely < best:", "if unlikely > best:", "the least likely ridge", SPREAD),
        (
            "best, alpha = unlikely, free @ solved / scale",
            "best, alpha = unlikely, free @ solved",
            "pairs are scaled twice",
            SPREAD,
        ),
        (
            "if not isinstance(x, Tensor):\n        raise",
            "if False:\n        raise",
            "no tensor is no TypeError",
            FIT + "test_errors",
        ),
        ("if x.is_complex():", "if False:", "imaginary parts are dropped", FIT + "test_errors"),
        (
            'x = x.detach().to("cpu", torch.float64)',
            'x = x.to("cpu", torch.float64)',
            "the graph is kept",
            FIT + "test_dtypes",
        ),
        (
            'x = x.detach().to("cpu", torch.float64)',
            'x = x.detach().to("cpu", torch.float32)',
            "computed in single precision",
            SKLEARN,
        ),
        ("if not bool(x.isfinite().all()):", "if False:", "NaN goes on", ERRORS),
        (
            "return isinstance(x, int) and not isinstance(x, bool)",
            "return isinstance(x, int)",
            "True is a number",
            ERRORS,
        ),
    ]
]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    sys.exit(mutants.main([mutants.Mutant(*m) for m in SURROGATE_MUTANTS], as_json=False) > 0)
