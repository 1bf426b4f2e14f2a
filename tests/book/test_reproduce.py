"""`make reproduce` passes when a second run prints the same, and fails when it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "book" / "tools" / "reproduce.py"
CELLS = (
    "print('loss', 2 * 0.5)",
    "import time\nprint(f'took {time.perf_counter():.3f} s')",
    """from IPython.display import HTML
HTML('<p data-error="6.7e-16">holds: max error 6.7e-16 (allowed 1e-09)</p>')""",
    """from IPython.display import display  # as lib.teaching.glue, without the seconds of torch
prefix = "application/papermill.record/"
def glue(name, value):
    metadata = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    display({f"{prefix}text/plain": repr(value)}, metadata=metadata, raw=True)
print('before'); glue('gap', 0.25); print('after'); glue('gap-2', 0.5)""",
    "print('nothing alike:', time.perf_counter_ns())",
)


@pytest.fixture(scope="module")
def executed():
    """A small notebook with the outputs of its first run."""
    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS])
    notebook.cells[-1].metadata["tags"] = ["nbval-ignore-output"]
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    keep_glued_outputs(notebook)
    return notebook


def keep_glued_outputs(notebook):
    """Take the glued outputs away as the build does, into the metadata."""
    (cell,) = [cell for cell in notebook.cells if "glue" in cell.source]
    cell.metadata["glued"] = [o for o in cell.outputs if o.output_type == "display_data"]
    cell.outputs = [o for o in cell.outputs if o.output_type == "stream"]
    assert (len(cell.metadata["glued"]), len(cell.outputs)) == (2, 2)


def reproduce(tmp_path: Path, **notebooks: nbformat.NotebookNode):
    folder = tmp_path / "executed"
    folder.mkdir()
    for name, notebook in notebooks.items():
        nbformat.write(notebook, folder / f"99_{name}.ipynb")
    jobs = str(min(2, max(1, len(notebooks))))
    return subprocess.run(
        [sys.executable, TOOL, "--executed", folder, "--work", tmp_path / "work", "--jobs", jobs],
        capture_output=True,
        text=True,
    )


def altered(notebook: nbformat.NotebookNode, change) -> nbformat.NotebookNode:
    copy = nbformat.from_dict(notebook)
    change(copy.cells)
    return copy


def with_error(error, text):
    """A check whose error is another one."""

    def change(cells):
        html = f'<p data-error="{error}">holds: {text} (allowed 1e-09)</p>'
        cells[2].outputs[0].data["text/html"] = html

    return change


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory, executed):
    """One run of the notebook as it was, and with errors of rounding alone."""
    small = altered(executed, with_error("1.6e-15", "max error 1.6e-15"))
    none = altered(executed, with_error("0", "exact"))
    return reproduce(tmp_path_factory.mktemp("same"), same=executed, small=small, none=none)


@pytest.mark.parametrize("name", ["same", "small", "none"])
def test_the_same_outputs_pass_and_an_error_of_rounding_alone_may_differ(unchanged, name):
    assert unchanged.returncode == 0, unchanged.stdout + unchanged.stderr
    assert f"99_{name}.ipynb: comparing the outputs of 4 cells" in unchanged.stdout
    assert f"{3 * len(CELLS)} passed" in unchanged.stdout


def other_text(cells):
    cells[0].outputs[0].text = "loss 1.1\n"


def other_glued(cells):
    cells[3].metadata["glued"][1].data["application/papermill.record/text/plain"] = "0.75"


def other_second_print(cells):
    cells[3].outputs[1].text = "later\n"


# name of the notebook: the change, and the cell that it is in
CHANGES = {
    "text": (other_text, 0),
    "glued": (other_glued, 3),
    "print": (other_second_print, 3),
    "html": (with_error("2.0e-10", "max error 2.0e-10"), 2),
}


@pytest.fixture(scope="module")
def changed(tmp_path_factory, executed):
    """One run of all of them, and of one that is as it was."""
    notebooks = {name: altered(executed, change) for name, (change, _) in CHANGES.items()}
    return reproduce(tmp_path_factory.mktemp("changed"), same=executed, **notebooks)


def test_other_outputs_fail_and_no_cell_beside_them(changed):
    assert changed.returncode == 1
    count = len(CELLS) * (len(CHANGES) + 1)
    assert f"{len(CHANGES)} failed, {count - len(CHANGES)} passed" in changed.stdout


@pytest.mark.parametrize("what", CHANGES)
def test_another_output_fails(changed, what):
    failed = re.findall(rf"^FAILED \S*99_{what}\.ipynb::Cell (\d+)", changed.stdout, re.MULTILINE)
    assert failed == [str(CHANGES[what][1])], changed.stdout


def test_a_notebook_that_was_never_run_fails(tmp_path, executed):
    def change(cells):
        cells[0].execution_count = None

    run = reproduce(tmp_path, small=altered(executed, change))
    assert run.returncode == 1
    assert "99_small.ipynb: 1 of 4 cells were never run" in run.stdout


def test_a_notebook_without_outputs_fails(tmp_path, executed):
    def change(cells):
        for cell in cells:
            cell.outputs = []

    run = reproduce(tmp_path, small=altered(executed, change))
    assert run.returncode == 1
    assert "99_small.ipynb: no cell has an output to compare" in run.stdout


def test_an_empty_folder_fails(tmp_path):
    run = reproduce(tmp_path)
    assert run.returncode == 1
    assert "run make book first" in run.stdout
