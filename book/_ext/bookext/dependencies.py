"""What a chapter's outputs depend on beside its own text, read from its source."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

# What a chapter names without importing it: its exercises' checkers, the sources that it shows.
EXERCISE = re.compile(r"\bex-([a-z0-9_]+)-")
SHOWN = re.compile(r"\{lib-source\} +([\w.]+)")
PACKAGES = ("requirements.txt", "constraints.txt")
DATA = {".js", ".css", ".json"}
EXPERIMENTS = Path("book", "experiments")


def chapter_state(root: Path, text: str) -> str:
    """One short name for the state of all that a chapter with this text depends on."""
    digest = hashlib.sha256()
    for path in dependencies(root, text):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def dependencies(root: Path, text: str) -> list[Path]:
    """The files, in order: modules of lib that it uses, at whatever remove, with the data files in
    their folders; experiments that it imports, recorded results that it names; the requirements
    and their lock."""
    waiting = [*_imported(text), *SHOWN.findall(text)]
    waiting += [f"lib.teaching.exercises.{slug}" for slug in EXERCISE.findall(text)]
    found: set[Path] = set()
    while waiting:
        for path in _files(root, waiting.pop()):
            if path not in found:
                found.add(path)
                waiting += _imported(path.read_text("utf8"))
    for folder in {path.parent for path in found} - {root / EXPERIMENTS}:
        found |= {path for path in folder.iterdir() if path.suffix in DATA}
    found |= {
        path
        for path in (root / EXPERIMENTS).glob("*.json")
        if re.search(rf"[\"']{re.escape(path.stem)}[\"']", text)
    }
    found |= {root / name for name in PACKAGES if (root / name).exists()}
    return sorted(found)


def _files(root: Path, name: str) -> Iterator[Path]:
    """The modules that `import name` runs, or `from … import` of what may be a name in a module."""
    parts = name.split(".")
    if parts[0] != "lib":
        experiment = root / EXPERIMENTS / f"{parts[0]}.py"
        if experiment.is_file():
            yield experiment
        return
    for length in range(1, len(parts) + 1):
        module = root.joinpath(*parts[:length])
        for path in (module.with_suffix(".py"), module / "__init__.py"):
            if path.is_file():
                yield path


@lru_cache(maxsize=1024)
def _imported(text: str) -> tuple[str, ...]:
    """Every name that a module imports, wherever the import stands; the book imports absolutely."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)
