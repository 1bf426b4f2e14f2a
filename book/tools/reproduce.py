"""`make reproduce`: run the executed notebooks a second time and compare, cell by cell.

The build leaves each chapter below _build/jupyter_execute with the outputs that its page shows.
Here they are copied, run in fresh kernels, and every text output is compared with the first run's:
what the book prints must come out again. Cells tagged `nbval-ignore-output` are run, not compared;
tests/reproduce_sanitize.cfg says which parts of an output, such as timings, may differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip"}


class NothingToCompare(Exception):
    """A notebook without outputs: nbval would run it, compare nothing, and pass."""


def compared_cells(path: Path) -> int:
    """How many cells of an executed notebook nbval will compare."""
    notebook = nbformat.read(path, as_version=4)
    code = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        and cell.source.strip()
        and not NOT_COMPARED & set(cell.metadata.get("tags", ()))
    ]
    # nbval compares nothing where a cell has no count, as if it held no outputs either
    if unrun := [cell for cell in code if cell.execution_count is None]:
        raise NothingToCompare(f"{path.name}: {len(unrun)} of {len(code)} cells were never run")
    count = sum(bool(cell.outputs) for cell in code)
    if not count:
        raise NothingToCompare(f"{path.name}: no cell has an output to compare")
    return count


def with_glued(path: Path) -> nbformat.NotebookNode:
    """An executed notebook in which the values that the prose prints are outputs again.

    They wait in the metadata of their cells, where bookext keeps them.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs += cell.metadata.pop("glued", [])
    return notebook


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--executed", type=Path, default=ROOT / "_build" / "jupyter_execute" / "chapters",
        help="the folder with the executed notebooks",
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "_build" / "reproduce",
        help="the folder that is emptied and holds the copies, which run there",
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many notebooks run at a time")
    options = parser.parse_args(arguments)

    executed = sorted(options.executed.glob("*.ipynb"))
    if not executed:
        print(f"no executed notebook in {options.executed}: run make book first")
        return 1
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    try:
        for path in executed:
            print(f"{path.name}: comparing the outputs of {compared_cells(path)} cells", flush=True)
    except NothingToCompare as error:
        print(error)
        return 1
    copies = []
    for path in executed:
        copies.append(options.work / path.name)
        nbformat.write(with_glued(path), copies[-1])
    # Wherever the copies are, each has its own name among the tests: relative to the root.
    command = [
        sys.executable, "-m", "pytest", f"--rootdir={options.work}", "-c", ROOT / "pyproject.toml",
        "--nbval", "--nbval-sanitize-with", ROOT / "tests" / "reproduce_sanitize.cfg",
        "-p", "no:cacheprovider", "-n", options.jobs, *copies,
    ]
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        OMP_NUM_THREADS="1",
        EXECUTABLE_TRANSFORMER_STATIC="1",
    )
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
