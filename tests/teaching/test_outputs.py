"""lib.teaching.outputs, and what each part of lib.teaching leaves in a real notebook."""

import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from lib.teaching.outputs import glue, live_shell, publish

ROOT = Path(__file__).parents[2]

CELLS = {
    # Colab brings settings of its own, which arrive late: with the first figure
    "colab": '%config InlineBackend.rc = {"figure.figsize": (6.0, 4.0), "text.color": "red"}',
    "start": """
from lib.teaching import Progress, check, glue, grade, show_figure, start
device = start(seed=3)""",
    "check": 'check("eq-attention-scale", [1.0, 2.0], [1.0, 2.0])',
    "failed check": """
try:
    check("eq-attention-scale", 1.0, 2.0)
except AssertionError as error:
    print(error)""",
    "glue": """
import torch
glue("gap", torch.tensor(0.125), display=True)
glue("name", "H100", display=True); glue("n", 37, display=True)""",
    "quiet glue": 'glue("quiet", 0.125)',
    "myst": """
import myst_nb
myst_nb.glue("gap", 0.125); myst_nb.glue("name", "H100"); myst_nb.glue("n", 37)""",
    "quiet myst": 'myst_nb.glue("quiet", 0.125, display=False)',
    "figure": """
import matplotlib.pyplot as plt
fig, ax = plt.subplots()
ax.plot([1, 2, 3])
show_figure(fig, "fig-a-line", "A line, $y = x$.", "A straight line that rises from one to three.")
len(plt.get_fignums())""",
    "progress": """
for step in (bar := Progress(range(800), label="training")):
    bar.note(f"loss {step}")""",
    "progress again": """
for step in bar:
    pass""",
    "stopped": """
for step in Progress(range(10), label="search"):
    if step == 3:
        break""",
    "grade": """
from lib.teaching.exercises import checker, expect_close
@checker("ex-toy-double")
def double(answer):
    yield "doubles"
    expect_close(answer(2.0), 4.0, "twice 2")
grade("ex-toy-double", lambda x: 2 * x)
grade("ex-toy-double", lambda x: x)""",
}


@pytest.fixture(scope="module")
def outputs():
    """The outputs of each cell above, from one kernel."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.values()]
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def test_start_prints_its_line(outputs):
    (line,) = outputs["start"]
    assert line.name == "stdout"
    assert line.text.startswith("python 3.")
    assert line.text.endswith("seed 3\n")


def test_check_shows_text_and_html(outputs):
    (shown,) = outputs["check"]
    assert shown.output_type == "display_data"
    assert shown.data == {
        "text/plain": "✓ eq-attention-scale holds: exact (allowed 1e-12)",
        "text/html": '<p class="check" data-label="eq-attention-scale" data-error="0" '
        'data-allowed="1e-12">✓ <span class="check-label">eq-attention-scale</span> holds: exact '
        "(allowed 1e-12)</p>",
    }
    (message,) = outputs["failed check"]
    assert message.text.startswith("eq-attention-scale fails: max error 1, allowed 1e-12")


def test_glue_leaves_what_myst_nb_leaves(outputs):
    assert outputs["glue"] == outputs["myst"]
    assert outputs["quiet glue"] == outputs["quiet myst"]
    # and that is something
    assert [output.data["text/plain"] for output in outputs["glue"]] == ["0.125", "'H100'", "37"]
    assert outputs["glue"][0].metadata == {"scrapbook": {"name": "gap", "mime_prefix": ""}}


def test_a_figure_is_shown_once_and_closed(outputs):
    shown, count = outputs["figure"]  # and in the book's style: it would be too wide, in red
    assert shown.data["text/plain"] == (
        "Figure fig-a-line: A straight line that rises from one to three."
    )
    assert shown.data["text/html"].startswith('<figure class="book-figure" id="fig-a-line">')
    assert count.data["text/plain"] == "0"


def test_a_progress_bar_is_one_output_in_its_final_state(outputs):
    (bar,) = outputs["progress"]
    assert bar.data["text/plain"].startswith("training: 800 of 800, done in ")
    assert bar.data["text/plain"].endswith(" s, loss 799")
    assert (
        '<progress max="800" value="800" aria-label="training"></progress>'
        in (bar.data["text/html"])
    )


def test_a_second_loop_has_a_bar_of_its_own(outputs):
    assert len(outputs["progress again"]) == 1
    assert outputs["progress again"][0].data["text/plain"].startswith("training: 800 of 800")


def test_a_loop_that_stops_leaves_an_honest_bar(outputs):
    (bar,) = outputs["stopped"]
    assert bar.data["text/plain"].startswith("search: 3 of 10, stopped after ")
    assert 'max="10" value="3"' in bar.data["text/html"]


def test_grades_are_shown(outputs):
    assert [output.data["text/plain"] for output in outputs["grade"]] == [
        "✓ ex-toy-double: the property holds: doubles",
        "✗ ex-toy-double: doubles: twice 2: got 2, want 4",
    ]


def test_plain_python_neither_imports_ipython_nor_shows_html():
    script = (
        "import sys\n"
        "from lib.teaching.outputs import glue, publish\n"
        "publish({'text/plain': 'words', 'text/html': '<p>words</p>'})\n"
        "publish({'text/html': '<p>only HTML</p>'})\n"
        "glue('gap', 0.125, display=True)\n"
        "glue('quiet', 0.125)\n"
        "print('IPython' in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.splitlines() == ["words", "gap = 0.125", "False"]


def test_no_shell_here():
    assert live_shell() is None


def test_publish_prints_here(capsys):
    publish({"text/plain": "words"}, {"some": "metadata"})
    assert capsys.readouterr().out == "words\n"


@pytest.mark.parametrize(
    "value, printed",
    [
        (0.5, "0.5"),
        (3, "3"),
        (True, "True"),
        ("H100", "'H100'"),
        (torch.tensor(0.5), "0.5"),
        (torch.tensor([[3]]), "3"),
        (torch.tensor(0.5, requires_grad=True), "0.5"),
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.array([0.5]), "0.5"),
        (np.bool_(True), "True"),
    ],
)
def test_one_number_or_a_text_can_be_glued(value, printed, capsys):
    glue("attention-gap", value, display=True)
    assert capsys.readouterr().out == f"attention-gap = {printed}\n"


@pytest.mark.parametrize(
    "value, message",
    [
        (float("nan"), "glue gap: expected a finite number, got nan"),
        (torch.tensor(float("inf")), "glue gap: expected a finite number, got inf"),
        (np.float32("-inf"), "glue gap: expected a finite number, got -inf"),
        (torch.zeros(2), r"glue gap: expected one number, got shape \(2,\)"),
        (np.zeros(0), r"glue gap: expected one number, got shape \(0,\)"),
        (None, "glue gap: expected one number or a text, got NoneType"),
        ([1.0], "glue gap: expected one number or a text, got list"),
        (1j, "glue gap: expected one number or a text, got complex"),
        (torch.tensor(1j), "glue gap: expected one number or a text, got complex"),
    ],
)
def test_what_prose_cannot_print_is_an_error(value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        glue("gap", value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "1a", "a`b", None])
def test_a_name_that_a_role_cannot_hold_is_an_error(name):
    with pytest.raises(ValueError, match=r"^glue name: expected a letter"):
        glue(name, 1.0)
