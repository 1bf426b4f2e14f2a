"""Make `pytest --nbval` run every chapter as a test, straight from its `.py` source."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
from nbval import plugin

ROOT = Path(__file__).parent
CHAPTERS = ROOT / "chapters"

# The kernels that run chapters, and any Python started by a test, find `lib` and stay on one
# thread: two threads on toys are slower than one. Browser components render without a kernel.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("EXECUTABLE_TRANSFORMER_STATIC", "1")
# Triton reads this where a kernel is defined: without a GPU, lib.flash_attention is interpreted.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# What takes longest, first: a file goes whole to one worker, and a long one that begins last leaves
# the others idle. (With --no-loadscope-reorder: else pytest-xdist begins with the most tests.)
LONGEST = ("chapters/", "tests/test_mutants", "tests/book/", "tests/")


class ChapterFile(plugin.IPyNbFile):
    """A chapter's percent script, read as the notebook that it is."""

    def collect(self):
        from tests.repository import chapter_notebook  # the tests of exercises read it too

        def read(path, as_version):
            assert as_version == 4
            return chapter_notebook(Path(path))

        with mock.patch.object(plugin.nbformat, "read", read):
            return list(super().collect())


def _is_chapter(path: Path) -> bool:
    return path.suffix == ".py" and path.parent == CHAPTERS


class _NoTests(pytest.Module):
    """A chapter without `--nbval`: nothing to collect, and above all not imported."""

    def collect(self):
        return []


def pytest_collect_file(file_path: Path, parent):
    if _is_chapter(file_path) and parent.config.option.nbval:
        return ChapterFile.from_parent(parent, path=file_path)
    return None


def pytest_pycollect_makemodule(module_path: Path, parent):
    if _is_chapter(module_path):
        return _NoTests.from_parent(parent, path=module_path)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else ""
        return next((i for i, start in enumerate(LONGEST) if path.startswith(start)), len(LONGEST))

    items.sort(key=place)
