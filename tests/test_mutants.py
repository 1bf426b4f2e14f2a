"""Every hand-made mistake in lib is noticed by the test that is there to notice it."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant, Outcome

RUN = """
import json, sys
sys.path.insert(0, "tests")
import mutants
mutants.main([mutants.Mutant(**fields) for fields in json.load(sys.stdin)], as_json=True)
"""
# The harness itself: what it has to say of a mutant that is none, or that cannot be judged.
FIRST_LINE = '"""Scaled dot-product attention:'
SAME = Mutant("lib/attention.py", FIRST_LINE, '"""Attention:', "harmless", "test_bad_sizes")
BROKEN = Mutant(
    "lib/attention.py", "import math\n", "import maths\n", "no import", "test_bad_sizes"
)
MISSING = Mutant("lib/attention.py", FIRST_LINE, '"""', "no such test", "test_of_nothing")
ELSEWHERE = Mutant(
    "lib/attention.py",
    "return logits.masked_fill(~mask, -math.inf)",
    "return logits.masked_fill(mask, -math.inf)",
    "noticed in another file",
    "tests/test_attention.py::test_equals_the_loops",
)


def run(mutants):
    """In a process of its own, where torch has used no threads and nothing of lib is imported."""
    process = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([asdict(mutant) for mutant in mutants]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    return [Outcome(**json.loads(line)) for line in process.stdout.splitlines()]


@pytest.fixture(scope="module")
def outcomes():
    return {outcome.why: outcome for outcome in run(MUTANTS)}


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.path}: {mutant.why}")
def test_every_mutant_dies(outcomes, mutant):
    outcome = outcomes[mutant.why]
    assert outcome.exit_code == 1, f"{mutant.test_id()} does not notice: {outcome.failed}"
    assert outcome.failed.startswith(mutant.test_id())


@pytest.mark.mutants
@pytest.mark.parametrize("path", sorted({mutant.path for mutant in MUTANTS}))
def test_without_a_mistake_the_same_tests_pass(outcomes, path):
    outcome = outcomes[f"control: {path} as it is"]
    assert outcome.control
    assert outcome.exit_code == 0, outcome.failed


def test_mutants_are_told_apart():
    for names in ([m.why for m in MUTANTS], [(m.path, m.old, m.new) for m in MUTANTS]):
        assert len(set(names)) == len(names)


@pytest.mark.mutants
def test_the_harness_lets_a_harmless_mutant_live_and_judges_none_that_does_not_run():
    same, broken, missing, elsewhere, control = run([SAME, BROKEN, MISSING, ELSEWHERE])
    assert control.control and control.exit_code > 1  # a test that it needs is missing
    assert same.exit_code == 0
    assert broken.exit_code > 1 and "No module named 'maths'" in broken.failed
    assert missing.exit_code > 1
    assert elsewhere.exit_code == 1
    assert elsewhere.failed.startswith("tests/test_attention.py::test_equals_the_loops[")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("not in the module", "", "expected 'not in the module' once, found it 0 times"),
        ("import", "", r"expected 'import' once, found it \d\d? times"),
        (FIRST_LINE, FIRST_LINE, "is replaced by itself"),
    ],
)
def test_a_stale_mutant_is_an_error(old, new, message):
    mutant = Mutant("lib/attention.py", old, new, "stale", "test_bad_sizes")
    with pytest.raises(ValueError, match=message):
        mutant.source()


def test_where_a_module_is_tested():
    mutant = Mutant("lib/teaching/checks.py", "a", "b", "why", "test_name")
    assert mutant.test_id() == "tests/teaching/test_checks.py::test_name"
