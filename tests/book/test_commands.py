"""Every command of the README works, and does what is said of it."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from book.tools.chapter_lints import Chapter
from book.tools.publish_branch import publish_branch
from tests.repository import ROOT, clean_environment, copy_repository, repository_files

DOCUMENTS = ("README.md", "CONTRIBUTING.md")
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
URL = CONFIG["repository"]["url"]  # written there alone; where it must be repeated, it agrees
OWNER, NAME = URL.rstrip("/").split("/")[-2:]
PAGES = f"https://{OWNER}.github.io/{NAME}/"
BRANCH = CONFIG["sphinx"]["config"]["bookext_publish_branch"]
SCRIPTS = [*sorted((ROOT / "book" / "tools").glob("*.sh")), ROOT / ".ci" / "run"]


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf8")


def commands(name: str) -> list[str]:
    """The lines of a document's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text_of(name), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(arguments, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def targets() -> set[str]:
    phony = re.search(r"^\.PHONY:(.*)$", text_of("Makefile"), re.MULTILINE)
    return set(phony[1].split())


def pytest_settings() -> dict:
    return tomllib.loads(text_of("pyproject.toml"))["tool"]["pytest"]["ini_options"]


def marks() -> set[str]:
    return {line.partition(":")[0] for line in pytest_settings()["markers"]}


# --- what the documents say -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "command"), [(name, line) for name in DOCUMENTS for line in commands(name)]
)
def test_command(document, command):
    words = shlex.split(command)
    if words[0] == "make":
        assert words[1] in targets()
        dry = run(["make", "--dry-run", *words[1:]])
        assert dry.returncode == 0, dry.stderr
        assert dry.stdout.strip()
    elif words[:3] == [".venv/bin/python", "-m", "pytest"]:
        options = argparse.ArgumentParser()
        options.add_argument("--nbval", action="store_true")
        options.add_argument("-n", type=int)
        options.add_argument("-m", dest="marks", default="")
        options.add_argument("paths", nargs="*")
        asked = options.parse_args(words[3:])
        assert set(re.findall(r"\w+", asked.marks)) - {"or", "not", "and"} <= marks()
        assert all(list(ROOT.glob(path)) for path in asked.paths)
    elif words[:2] == ["git", "clone"]:
        assert words[2:] == [f"{URL}.git"]
    else:
        assert words == ["cd", NAME], f"{document}: no test knows the command {command!r}"


def test_the_readme_has_the_two_commands():
    assert {"make book", "make test"} <= set(commands("README.md"))


def test_the_three_parts_of_make_test_leave_nothing_out():
    recipe = re.search(r"^test: .*\n((?:\t.*\n)+)", text_of("Makefile"), re.MULTILINE)[1]
    lines = [line.partition("||")[0] for line in recipe.splitlines()]
    calls = [shlex.split(line) for line in lines if " -m pytest " in line]
    # behind "-m pytest"; without a choice of its own a call has that of the settings
    asked = [call[call.index("pytest") :] for call in calls]
    (default,) = (o[3:] for o in pytest_settings()["addopts"] if o.startswith("-m="))
    parts = [call[call.index("-m") + 1] if "-m" in call else default for call in asked]
    names = sorted(marks() - {"bare"})  # which says something about a test of the book
    for has in itertools.product([False, True], repeat=len(names)):
        scope = dict(zip(names, has, strict=True))
        if not (scope["mutants"] and (scope["book"] or scope["browser"])):
            chosen = [part for part in parts if eval(part, {}, scope)]
            assert len(chosen) == 1, scope
    assert "--nbval" in asked[0] and parts[0] == default
    # Each part looks where its tests are.
    marked = [path for path in ROOT.glob("tests/**/test_*.py") if path != Path(__file__)]
    marked = [path for path in marked if re.search(r"mark\.mutants|mutant_suite", path.read_text())]
    assert asked[1][-1] == "tests/test_mutants*.py" and asked[2][-1] == "tests"
    assert sorted(marked) == sorted(ROOT.glob(asked[1][-1]))


def test_pytest_takes_the_options_of_make_bench():
    recipe = run(["make", "--dry-run", "bench", "ONLY=lime"]).stdout.replace("\\\n", " ")
    (call,) = (line for line in recipe.splitlines() if " -m pytest " in line)
    words = shlex.split(call[call.index("-m pytest") :])
    words = [word for word in words if not word.startswith("--benchmark-json")]  # nothing to write
    result = run([sys.executable, *words, "--collect-only", "-p", "no:cacheprovider"])
    assert result.returncode == 0, result.stderr
    assert "test_explanations.py" in result.stdout


def test_continuous_integration_calls_what_the_readme_calls():
    calls = [line for line in text_of(".ci/run").splitlines() if line.startswith("make ")]
    assert {"make book", "make test"} <= set(calls) <= set(commands("README.md"))
    assert calls[-1] == "make test"  # pytest's closing line is the last thing in the log


def test_every_target_is_explained():
    bare, helped = run(["make"]), run(["make", "help"])
    assert bare.stdout == helped.stdout
    explained = {line.split()[1] for line in helped.stdout.splitlines()}
    assert explained == targets()


@pytest.mark.parametrize("document", [*DOCUMENTS, "LICENSE-text.md", "CHANGELOG.md"])
def test_links_within_the_repository(document):
    links = re.findall(r"\]\(([^)]+)\)", text_of(document).partition("```text")[0])
    local = [link for link in links if not re.match(r"https?://|#", link)]
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_readmes_picture_is_light():
    (picture,) = re.findall(r"!\[[^\]]{40,250}\]\((.+\.png)\)", text_of("README.md"))
    assert (ROOT / picture).stat().st_size < 200_000


def test_the_repository_is_named_as_in_the_configuration():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["repository-code"] == URL
    assert citation["url"] == PAGES
    assert citation["title"] == CONFIG["title"]
    allowed = (
        f"{URL}.git",
        PAGES,
        f"https://colab.research.google.com/github/{OWNER}/{NAME}/blob/{BRANCH}/notebooks/",
    )
    for document in (*DOCUMENTS, "CHANGELOG.md", "LICENSE-text.md"):
        named = re.findall(rf"https?://[^\s)>]*{re.escape(OWNER)}[^\s)>]*", text_of(document))
        assert [url for url in named if not url.startswith(allowed)] == []


def test_the_chapters_that_the_readme_links_exist():
    linked = re.findall(r"/notebooks/(\w+)\.ipynb", text_of("README.md"))
    assert linked
    assert [name for name in linked if not (ROOT / "chapters" / f"{name}.py").exists()] == []


# --- the workflows --------------------------------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(path):
    text = path.read_text("utf8")
    jobs = yaml.safe_load(text)["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in [step.get("run") for step in steps]
    for step in steps:
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
    for name in (OWNER, NAME, BRANCH):
        assert not re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w.-])", text)


def test_workflows_try_the_versions_that_the_requirements_promise():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf8"))["jobs"]
    matrix = jobs["library"]["strategy"]["matrix"]
    oldest, newest = re.search(
        r"^torch>=2\.(\d+),<2\.(\d+)$", text_of("requirements.txt"), re.MULTILINE
    ).groups()
    assert matrix["torch"] == [f"2.{oldest}", f"2.{int(newest) - 1}"]
    assert matrix["python"][0] == "3.11"


def test_the_publish_branch_comes_from_the_configuration():
    assert publish_branch(CONFIG, f"{OWNER}/{NAME}") == BRANCH
    with pytest.raises(ValueError, match=r"names the repository .*, but this is someone/fork"):
        publish_branch(CONFIG, "someone/fork")


# --- the lock -------------------------------------------------------------------------------------


def locked() -> dict[str, str]:
    lines = [line for line in text_of("constraints.txt").splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][\w.!]*)", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[2] for pin in pins}


def test_the_lock_holds_every_requirement_exactly():
    required = re.findall(r"^([A-Za-z0-9._-]+)", text_of("requirements.txt"), re.MULTILINE)
    assert len(required) > 15
    assert [name for name in required if name.lower() not in locked()] == []


# --- the scripts behind make ----------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_sound(script):
    assert run(["bash", "-n", script]).returncode == 0
    assert "\nset -euo pipefail\n" in script.read_text("utf8")


def test_ci_can_be_executed():
    assert (ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR


def program(folder: Path, name: str, body: str) -> Path:
    """A small executable in `folder`, which a test puts on the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n", "utf8")
    path.chmod(0o755)
    return path


TOOLS = ("bash", "cat", "dirname", "env", "mkdir", "rm", "sha256sum", "touch")


@pytest.fixture
def bare(tmp_path):
    """A folder of programs that is a whole PATH: a few basic tools, and what the test adds."""
    folder = tmp_path / "bin"
    for name in TOOLS:
        program(folder, name, f'exec {shutil.which(name)} "$@"')
    return folder


REAL = f'exec {shlex.quote(sys.executable)} "$@"'
NO_VENV = '[[ "$*" == *ensurepip* ]] && exit 1\n' + REAL
OLD = '[[ "$*" == *version_info* ]] && exit 1\n' + REAL
SHIM = 'echo "python: command not found" >&2; exit 127'


def find_python(bare, **pythons):
    for name, body in pythons.items():
        program(bare, name.replace("_", "."), body)
    return run([bare / "bash", ROOT / "book/tools/find_python.sh"], PATH=str(bare))


@pytest.mark.parametrize(
    ("pythons", "found"),
    [
        ({"python3": REAL}, "python3"),
        ({"python3_13": SHIM, "python3_12": OLD, "python3_11": REAL}, "python3.11"),
        ({"python3_13": REAL, "python3_11": REAL}, "python3.13"),
        ({"python3_12": NO_VENV, "python3": REAL}, "python3"),
    ],
)
def test_a_python_that_fits_is_found(bare, pythons, found):
    result = find_python(bare, **pythons)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{found}\n", "")


@pytest.mark.parametrize(
    ("pythons", "message"),
    [
        ({}, "no Python 3.11 or newer found"),
        ({"python3": OLD}, "no Python 3.11 or newer found"),
        ({"python3": SHIM}, "apt-get install python3 python3-venv"),
        ({"python3": NO_VENV}, "python3 cannot make an environment: as root, apt-get install"),
    ],
)
def test_without_a_python_one_line_says_what_to_install(bare, pythons, message):
    result = find_python(bare, **pythons)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def user(bare: Path, number: int) -> None:
    program(bare, "id", f"echo {number}")


def browser(bare: Path):
    return run([bare / "bash", ROOT / "book/tools/browser.sh"], PATH=str(bare))


def test_chromium_that_is_there_is_left_alone(bare):
    program(bare, "chromium", "exit 1")
    program(bare, "apt-get", "exit 1")
    result = browser(bare)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_without_root_one_line_names_the_package(bare):
    user(bare, 1000)
    program(bare, "apt-get", "exit 1")
    result = browser(bare)
    assert result.returncode == 1
    assert result.stderr == "the browser tests need Chromium: as root, apt-get install chromium\n"


def test_root_installs_chromium(bare, tmp_path):
    user(bare, 0)
    program(bare, "apt-get", f'echo "$@" >> {tmp_path}/apt.log')
    result = browser(bare)
    assert result.returncode == 0, result.stderr
    update, install = (tmp_path / "apt.log").read_text().splitlines()
    assert update.startswith("update")
    assert install.startswith("install") and install.endswith(" chromium")
    assert "installing the Debian package chromium" in result.stdout


def test_root_without_a_network_gets_one_line(bare):
    user(bare, 0)
    program(bare, "apt-get", "exit 100")
    result = browser(bare)
    assert result.returncode == 1
    assert result.stderr == "the browser tests need Chromium: apt-get could not install chromium\n"


# A Python that makes environments of itself, and logs what pip is asked to do.
FAKE_PYTHON = f"""
echo "$*" >> "$LOG"
case "$*" in
  "-m venv"*) mkdir -p "${{@: -1}}/bin"; cat "$0" > "${{@: -1}}/bin/python"
              chmod +x "${{@: -1}}/bin/python" ;;
  "-m pip install"*) [ ! -e "$LOG.broken" ] ;;
  "-m pip check"*) ;;
  *) exec {shlex.quote(sys.executable)} "$@" ;;
esac"""


# A package index, as `lock.sh` sees it through pip: the CPU build of torch is installed, and the
# default build asks for an older Triton than the newest.
FAKE_INDEX = f"""
case "$*" in
  "-m venv"*) mkdir -p "${{@: -1}}/bin"; cat "$0" > "${{@: -1}}/bin/python"
              chmod +x "${{@: -1}}/bin/python" ;;
  "-m pip install"*" --report "*" torch===2.13.0") cat "$ASKED" > "${{@: -2:1}}" ;;
  "-m pip install"*requirements.txt) echo 3.9.0 > "$LOG" ;;
  "-m pip install"*" triton=="*) echo "${{@: -1}}" | sed 's/.*==//' > "$LOG" ;;
  "-m pip freeze --all") printf 'numpy==2.4.6\\npip==26.0\\ntorch==2.13.0+cpu\\n'
                         echo "triton==$(cat "$LOG")" ;;
  "-m pip"*) exit 2 ;;
  *) exec {shlex.quote(sys.executable)} "$@" ;;
esac"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the repository without an environment."""
    return copy_repository(tmp_path / "tree")


@pytest.mark.parametrize(
    ("asked", "triton"),
    [(["triton==3.7.1; platform_system == 'Linux'", "numpy"], "3.7.1"), (["numpy"], "3.9.0")],
)
def test_the_lock_fits_the_default_build_of_torch(tree, tmp_path, asked, triton):
    python, report = program(tmp_path / "fake", "python3", FAKE_INDEX), tmp_path / "asked"
    report.write_text(json.dumps({"install": [{"metadata": {"requires_dist": asked}}]}))
    settings = {"PYTHON": str(python), "LOG": str(tmp_path / "log"), "ASKED": str(report)}
    result = run(["make", "lock"], tree, **settings)
    assert result.returncode == 0, result.stderr
    written = (tree / "constraints.txt").read_text("utf8").splitlines()
    assert written[1:] == ["numpy==2.4.6", "torch==2.13.0", f"triton=={triton}"]


def test_the_environment_is_made_once_and_resumes(tree, tmp_path):
    python, log = program(tmp_path / "fake", "python3", FAKE_PYTHON), tmp_path / "log"
    stamp = tree / ".venv" / ".complete"

    def make_env():
        log.write_text("")
        result = run(["make", "env"], tree, PYTHON=str(python), LOG=str(log))
        lines = log.read_text().splitlines()
        made = [line for line in lines if line.startswith("-m venv")]
        installed = [line for line in lines if line.startswith("-m pip install")]
        return result.returncode, len(made), len(installed)

    interrupted = Path(f"{log}.broken")
    interrupted.touch()
    assert make_env() == (2, 1, 1)
    assert not stamp.exists()
    interrupted.unlink()
    assert make_env() == (0, 0, 1)  # the environment made before is used
    assert stamp.exists()
    assert make_env() == (0, 0, 0)  # nothing to do
    (tree / "constraints.txt").write_text("torch==2.12.0\n")
    assert make_env() == (0, 0, 1)
    (tree / ".venv" / "bin" / "python").unlink()
    assert make_env() == (0, 1, 1)


def test_an_interrupted_build_reads_every_page_again(tree, tmp_path):
    pickle = tree / "_build" / ".doctrees" / "environment.pickle"
    log = tmp_path / "log"
    fails = tmp_path / "fails"
    program(tree / ".venv" / "bin", "python", f'echo "$@" >> {log}; [ ! -e {fails} ]')
    build = ["bash", "book/tools/build.sh"]

    assert run(build, tree).returncode == 0
    (arguments,) = log.read_text().splitlines()
    assert {"build", "-W", "-n", "--keep-going"} <= set(arguments.split())
    pickle.parent.mkdir(parents=True)
    pickle.touch()
    assert run(build, tree).returncode == 0
    assert pickle.exists()  # after a whole build it is kept
    fails.touch()
    assert run(build, tree).returncode == 1
    fails.unlink()
    result = run(build, tree)
    assert result.returncode == 0
    assert not pickle.exists()
    assert result.stdout.splitlines()[-1] == f"the book: {tree}/_build/html/index.html"


def test_serve(tree):
    page = tree / "_build" / "html" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("the page", "utf8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dry = run(["make", "--dry-run", "serve", f"PORT={port}"], tree)
    command = dry.stdout.splitlines()[-1].replace(".venv/bin/python", sys.executable)
    with subprocess.Popen(shlex.split(command), cwd=tree, stderr=subprocess.DEVNULL) as server:
        try:
            assert fetch(f"http://127.0.0.1:{port}/index.html") == "the page"
        finally:
            server.terminate()


def fetch(url: str) -> str:
    """The page at `url`, from a server that is just starting."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_clean_keeps_the_sources_and_the_environment(tree):
    before = {path for path in tree.rglob("*") if path.is_file()}
    for built in ("_build/html/index.html", "lib/__pycache__/x.pyc", ".ruff_cache/x"):
        (tree / built).parent.mkdir(parents=True, exist_ok=True)
        (tree / built).touch()
    kept = tree / ".venv" / "lib" / "__pycache__" / "x.pyc"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert run(["make", "clean"], tree).returncode == 0
    assert {path for path in tree.rglob("*") if path.is_file()} == before | {kept}


# --- make chapter ---------------------------------------------------------------------------------


def make_chapter(tree: Path, name: str):
    return run(["make", "chapter", f"NAME={name}"], tree, PYTHON=sys.executable)


def test_a_new_chapter_is_whole(tree):
    before = {path.relative_to(tree) for path in tree.rglob("*")}
    toc = (tree / "book" / "_toc.yml").read_bytes()
    made = make_chapter(tree, "99_example_topic")
    assert made.returncode == 0, made.stderr
    new = {path.relative_to(tree) for path in tree.rglob("*") if path.is_file()} - before
    assert {path.as_posix() for path in new} == {
        "chapters/99_example_topic.py",
        "lib/example_topic.py",
        "lib/teaching/exercises/example_topic.py",
        "tests/test_example_topic.py",
        "tests/exercises/test_example_topic.py",
    }
    assert (tree / "book" / "_toc.yml").read_bytes() == toc
    left_over = re.compile(r"slug.here|title here|question here", re.IGNORECASE)
    assert [path for path in new if left_over.search((tree / path).read_text("utf8"))] == []

    chapter = "chapters/99_example_topic.py"
    linted = run([sys.executable, "book/tools/chapter_lints.py", chapter], tree)
    assert linted.returncode == 0, linted.stdout
    checked = run([sys.executable, "-m", "ruff", "check", *sorted(new)], tree)
    assert checked.returncode == 0, checked.stdout
    tested = run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--nbval",
            "-p",
            "no:cacheprovider",
            *(path for path in sorted(new) if path.parts[0] in ("chapters", "tests")),
        ],
        tree,
    )
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"\d\d passed", tested.stdout)


def test_a_planned_chapter_gets_its_title_and_question(tree):
    (tree / "book" / "plan.yml").write_text(
        "parts:\n  - title: A part\n    chapters:\n      - number: 24\n        slug: two_words\n"
        '        title: "Two words: a title"\n        question: Is it: a question?\n',
        "utf8",
    )
    assert make_chapter(tree, "24_two_words").returncode == 0
    text = (tree / "chapters" / "24_two_words.py").read_text("utf8")
    assert "# # Two words: a title\n" in text
    assert "eq-two-words-moments" in text and "ex-two_words-scores" in text
    assert Chapter.parse(text, "24_two_words").metadata["book"]["question"] == "Is it: a question?"


@pytest.mark.parametrize("name", ["", "attention", "3_head", "03_Multi", "03-multi", "../03_x"])
def test_a_chapter_needs_a_proper_name(tree, name):
    result = make_chapter(tree, name)
    assert result.returncode == 2
    assert result.stdout == (
        "say which: make chapter NAME=23_my_topic (two digits, then the module's name)\n"
    )


@pytest.mark.parametrize("name", ["02_other", "98_attention"])
def test_a_number_and_a_name_are_used_once(tree, name):
    result = make_chapter(tree, name)
    assert result.returncode == 2
    assert result.stdout == "nothing written, because there is chapters/02_attention.py\n"


def test_a_module_that_is_there_is_kept(tree):
    module = tree / "lib" / "example_topic.py"
    module.write_text("mine = 1\n", "utf8")
    result = make_chapter(tree, "99_example_topic")
    assert result.returncode == 0
    assert module.read_text("utf8") == "mine = 1\n"
    assert "kept  lib/example_topic.py\nwrote lib/teaching/" in result.stdout
    assert "change them to fit" in result.stdout


def test_what_make_needs_is_part_of_the_repository():
    names = {path.relative_to(ROOT).as_posix() for path in repository_files()}
    used = set(re.findall(r"\$\(tools\)/(\w+\.\w+)", text_of("Makefile")))
    assert used
    assert {f"book/tools/{name}" for name in used} <= names
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
