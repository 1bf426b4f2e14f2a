"""A component on a page that is not executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from book._ext.bookext.component import rendered

ROOT = Path(__file__).parents[2]
CODE = """\
class Box:
    def html(self):
        return f"<p>{text}</p>"


text = "é"
"""


def test_the_last_line_is_the_component():
    assert rendered(ROOT, f"{CODE}Box()  # shown\n") == "<p>é</p>"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "index: expected an expression as the last line"),
        ("x = 1", "index: expected an expression as the last line"),
        ("x = (", "index: .*never closed"),
        (f"{CODE}box()", "index: NameError: name 'box' is not defined"),
        ("1 + 1", "index: AttributeError: 'int' object has no attribute 'html'"),
    ],
)
def test_what_is_no_component_is_refused_in_a_line(code, message):
    with pytest.raises(ValueError, match=message) as error:
        rendered(ROOT, code, "index")
    assert "\n" not in str(error.value)


def test_it_sees_the_lib_of_the_book_that_is_built(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").touch()
    (tmp_path / "lib" / "box.py").write_text(
        "class Box:\n    def html(self):\n        return '!'\n"
    )
    assert rendered(tmp_path, "from lib.box import Box\n\nBox()") == "!"
