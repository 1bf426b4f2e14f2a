"""The repository as a clone would have it, for tests about its files and commands."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import jupytext
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]


@functools.cache  # jupytext takes a tenth of a second and more; nobody changes what it returns
def chapter_notebook(path: Path) -> NotebookNode:
    """A chapter's percent script, as the notebook that it is."""
    return jupytext.read(path, as_version=4)


def repository_files() -> list[Path]:
    """All files that git tracks or would track; without git, all but what is built."""
    if (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        paths = [ROOT / name for name in listing.split("\0") if name]
    else:
        built = {".venv", "_build", "__pycache__"}
        paths = [
            path
            for path in ROOT.rglob("*")
            if path.is_file()
            and not any(part in built or part.endswith("_cache") for part in path.parts)
        ]
    return [path for path in paths if path.exists()]


def copy_repository(target: Path) -> Path:
    """Copy these files, and nothing that was built, to an empty folder."""
    for path in repository_files():
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return target


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment of a new shell: nothing of the make or the pytest that run this test."""
    inherited = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHONPATH", "PYTHON"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in inherited and not name.startswith("PYTEST_")
    }
    return kept | changes
