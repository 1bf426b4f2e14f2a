"""``catches`` must itself be able to fail: on a blind test, a wrong fix, a mute symptom."""

import pytest

from lib.teaching.broken import catches


def is_positive(number):
    if number <= 0:  # not `assert`: pytest adds its own words to a failed one
        raise AssertionError(f"got {number},\n want a positive number")


def test_shows_the_symptom_and_the_name_of_the_test(capsys):
    catches("D00", is_positive, broken=-3, fixed=3)
    assert capsys.readouterr().out == (
        "✗ D00, broken: got -3, want a positive number\n"
        "✓ is_positive catches it, and passes once fixed\n"
    )


def test_a_test_that_passes_on_the_broken_version_is_a_defect():
    with pytest.raises(AssertionError, match="D00: is_positive passes on the broken version"):
        catches("D00", is_positive, broken=1, fixed=3)


def test_a_test_that_fails_on_the_correct_version_is_a_defect():
    with pytest.raises(AssertionError, match=r"fails on the correct version: got -1"):
        catches("D00", is_positive, broken=-3, fixed=-1)


def test_a_crash_is_not_a_diagnosis():
    with pytest.raises(TypeError):
        catches("D00", is_positive, broken=None, fixed=3)


def test_a_symptom_must_be_named():
    def mute(number):
        if number <= 0:
            raise AssertionError

    with pytest.raises(AssertionError, match="without naming the symptom"):
        catches("D00", mute, broken=-3, fixed=3)


def test_the_html_is_escaped(monkeypatch):
    shown = []
    monkeypatch.setattr("lib.teaching.broken.publish", shown.append)

    def small(number):
        if number >= 1:
            raise AssertionError("want <b>small</b>")

    catches("D00", small, broken=2, fixed=0)
    assert "&lt;b&gt;small&lt;/b&gt;" in shown[0]["text/html"]
