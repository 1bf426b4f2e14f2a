"""The published notebook where Colab would run it: elsewhere, with only what Colab has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from tests.site.built import CHAPTERS, ROOT

# Colab has more; these are what a chapter may count on, by themselves or through lib.
PACKAGES = (
    "torch",
    "numpy",
    "matplotlib",
    "ipywidgets",
    "ipykernel",
    "babel",
    "scikit-learn",
    "huggingface_hub",
    "safetensors",
    "tokenizers",
    "transformers",
    "triton",
)
MODULES = tuple("sklearn" if name == "scikit-learn" else name for name in PACKAGES)
ABSENT = ("anywidget", "myst_nb", "jupytext", "sphinx", "pytest")
BARE = ROOT / "_build" / "bare-env"
IGNORED = shutil.ignore_patterns(
    ".venv", "_build", ".git", "__pycache__", ".*_cache", ".hypothesis"
)

pytestmark = [pytest.mark.book, pytest.mark.bare]


@pytest.fixture(scope="session")
def bare_python() -> Path:
    """A Python of its own with PACKAGES only, in the versions of this one; kept below _build."""
    wanted = [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES]
    python, stamp = BARE / "bin" / "python", BARE / ".complete"
    if not (stamp.exists() and stamp.read_text() == repr(wanted) and python.exists()):
        subprocess.run([sys.executable, "-m", "venv", "--clear", BARE], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted], check=True)
        stamp.write_text(repr(wanted))
    return python


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Path:
    """The working tree as the repository that the configured address would give."""
    folder = tmp_path_factory.mktemp("origin") / "repository"
    shutil.copytree(ROOT, folder, ignore=IGNORED)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (
        ["init", "--quiet", "-b", "main"],
        ["add", "-A"],
        ["commit", "--quiet", "-m", "x"],
    ):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def elsewhere(tmp_path, clone, site) -> dict[str, str]:
    """The environment of a machine that knows of the book only by its address."""
    modules = tmp_path / "modules" / "google" / "colab"
    modules.mkdir(parents=True)
    (modules / "__init__.py").touch()
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "HOME": str(tmp_path),
        "PYTHONPATH": str(tmp_path / "modules"),
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{clone.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address_of(site),
        # Whoever tries to leave this machine meets a closed door.
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }


def published(site: Path, chapter: str) -> nbformat.NotebookNode:
    return nbformat.read(site / "notebooks" / f"{Path(chapter).name}.ipynb", as_version=4)


def setup_cell(site: Path) -> str:
    cells = published(site, CHAPTERS[0]).cells
    return next(cell.source for cell in cells if "setup" in cell.metadata.get("tags", []))


def address_of(site: Path) -> str:
    """The address that the setup cell clones."""
    return re.search(r'"(https://[^"]+\.git)"', setup_cell(site))[1]


def cloned(folder: Path, site: Path) -> Path:
    """Where the setup cell puts its clone."""
    return folder / Path(address_of(site)).stem


def kernel(folder: Path, python: Path) -> KernelManager:
    """A kernel of the bare Python which, as on Colab, has imported google.colab."""
    start = "import google.colab; from ipykernel import kernelapp; kernelapp.launch_new_instance()"
    spec = {
        "argv": [str(python), "-c", start, "-f", "{connection_file}"],
        "display_name": "bare",
        "language": "python",
    }
    (folder / "kernels" / "bare").mkdir(parents=True)
    (folder / "kernels" / "bare" / "kernel.json").write_text(json.dumps(spec))
    manager = KernelSpecManager(kernel_dirs=[str(folder / "kernels")], ensure_native_kernel=False)
    return KernelManager(kernel_name="bare", kernel_spec_manager=manager)


def run(python: Path, code: str, folder: Path, environment: dict[str, str]):
    return subprocess.run(
        [python, "-c", code], cwd=folder, env=environment, text=True, capture_output=True
    )


def test_the_bare_environment_is_bare(bare_python):
    code = "import importlib.util as u, sys; print([u.find_spec(n) is None for n in sys.argv[1:]])"
    names = [*MODULES, *ABSENT]
    found = subprocess.run(
        [bare_python, "-c", code, *names], check=True, text=True, capture_output=True
    )
    assert found.stdout.strip() == str([False] * len(PACKAGES) + [True] * len(ABSENT))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_runs_whole_where_colab_would_run_it(
    chapter, site, bare_python, elsewhere, tmp_path, monkeypatch
):
    folder = tmp_path / "content"
    folder.mkdir()
    notebook = published(site, chapter)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        notebook,
        timeout=600,
        resources={"metadata": {"path": str(folder)}},
        km=kernel(tmp_path, bare_python),
    )
    client.owns_km = True  # it ends the kernel and closes its sockets
    client.execute(env=elsewhere)
    assert (cloned(folder, site) / "lib" / "attention.py").is_file()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if cell.execution_count is None and cell.source] == []
    shown = json.dumps([cell.outputs for cell in code], ensure_ascii=False)
    checks = shown.count('class=\\"check\\"')
    assert checks == (site / f"{chapter}.html").read_text("utf8").count('class="check"')
    assert checks > 20


def test_a_second_run_of_the_setup_keeps_the_clone(site, bare_python, elsewhere, tmp_path):
    cell = setup_cell(site)
    code = f"import google.colab\nfor turn in range(2):\n{textwrap.indent(cell, '    ')}"
    code += "\nimport lib.attention\nprint(lib.attention.__file__)"
    result = run(bare_python, code, tmp_path, elsewhere)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(cloned(tmp_path, site) / "lib" / "attention.py")


def test_in_a_clone_the_setup_finds_the_root_and_fetches_nothing(
    site, bare_python, elsewhere, clone
):
    folder = clone / "chapters"
    code = f"{setup_cell(site)}\nimport lib.attention\nprint(lib.attention.__file__)"
    result = run(bare_python, code, folder, elsewhere)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(clone / "lib" / "attention.py")
    assert not cloned(folder, site).exists()


def test_without_the_code_the_setup_says_where_to_get_it(site, bare_python, elsewhere, tmp_path):
    result = run(bare_python, setup_cell(site), tmp_path, elsewhere)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("FileNotFoundError: this notebook needs the book's code around it: git ")


def test_when_the_clone_fails_the_setup_says_so(site, bare_python, elsewhere, tmp_path):
    environment = {**elsewhere, "GIT_CONFIG_COUNT": "0"}
    code = f"import google.colab\n{setup_cell(site)}"
    result = run(bare_python, code, tmp_path, environment)
    assert result.returncode == 1
    assert "CalledProcessError" in result.stderr
    assert not cloned(tmp_path, site).exists()
