"""The shape of the repository: who may import whom, and tests that can fail."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED_FOLDERS = {"_build", ".venv", "__pycache__"}


def sources(*folders: str) -> list[Path]:
    """Return the Python files in these folders (or files) of the repository."""
    paths = []
    for folder in folders:
        start = ROOT / folder
        paths += [start] if start.is_file() else sorted(start.rglob("*.py"))
    return [path for path in paths if not SKIPPED_FOLDERS & set(path.relative_to(ROOT).parts)]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def module_name(path: Path) -> str:
    """Return lib.teaching.checks for lib/teaching/checks.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, package: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield each imported name in full, wherever it stands, by whatever way it is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                yield node, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node, str(argument.value)


def called(node: ast.Call) -> str:
    """Return the last name of what is called: raises for pytest.raises(…)."""
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def package_of(path: Path) -> str:
    name = module_name(path)
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def is_teaching(name: str) -> bool:
    return name == "lib.teaching" or name.startswith("lib.teaching.")


def core() -> list[Path]:
    return [path for path in sources("lib") if not is_teaching(module_name(path))]


def imports_of_teaching(tree: ast.Module, package: str) -> list[ast.AST]:
    return [node for node, name in imports(tree, package) if is_teaching(name)]


def test_the_core_never_imports_the_teaching_apparatus():
    assert core()
    found = [
        where(path, node)
        for path in core()
        for node in imports_of_teaching(parse(path), package_of(path))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import lib.teaching",
        "import lib.teaching.checks as c",
        "from lib import teaching",
        "from lib.teaching import check",
        "from . import teaching",
        "from .teaching.checks import check",
        "def f():\n    from lib.teaching import check",
        "importlib.import_module('lib.teaching')",
        "__import__('lib.teaching.checks')",
    ],
)
def test_that_guard_sees_every_way_to_import(source):
    assert len(imports_of_teaching(ast.parse(source), "lib")) == 1


@pytest.mark.parametrize("source", ["import lib.attention", "from lib.data import teaching_text"])
def test_that_guard_lets_other_imports_pass(source):
    assert imports_of_teaching(ast.parse(source), "lib") == []


def import_graph(trees: dict[str, tuple[ast.Module, str]]) -> dict[str, set[str]]:
    """Return, for each module, the modules among these that it imports, at whatever time."""
    graph = {}
    for module, (tree, package) in trees.items():
        targets = set()
        for _, name in imports(tree, package):
            # from lib.teaching import checks: a module if there is one, else a name in lib.teaching
            found = name if name in trees else name.rpartition(".")[0]
            if found in trees and found != module:
                targets.add(found)
        graph[module] = targets
    return graph


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """Return the modules of one import cycle, or None."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for target in sorted(graph[module]):
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return None

    for module in sorted(graph):
        if found := visit(module, []):
            return found
    return None


def test_no_two_modules_import_each_other():
    trees = {module_name(path): (parse(path), package_of(path)) for path in sources("lib")}
    graph = import_graph(trees)
    assert "lib.teaching.outputs" in graph["lib.teaching.checks"]  # edges are found at all
    assert cycle(graph) is None


def test_that_guard_finds_a_cycle():
    trees = {
        "lib.a": (ast.parse("from lib.b import f"), "lib"),
        "lib.b": (ast.parse("def g():\n    from lib import c"), "lib"),
        "lib.c": (ast.parse("from .a import h"), "lib"),
        "lib.d": (ast.parse("import lib.a"), "lib"),
    }
    assert cycle(import_graph(trees)) == ["lib.a", "lib.b", "lib.c", "lib.a"]


def test_teaching_needs_nothing_of_the_books_build():
    script = """
        import sys
        blocked = {"anywidget", "myst_nb", "myst_parser", "sphinx", "jupytext", "jupyter_book",
                   "nbformat", "nbclient", "pytest"}

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in blocked:
                    raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

        sys.meta_path.insert(0, Blocker())
        try:
            import anywidget
        except ModuleNotFoundError:
            print("blocked")
        import lib.teaching
        for name in lib.teaching.__all__:
            getattr(lib.teaching, name)
        print(sorted(blocked & {name.partition(".")[0] for name in sys.modules}))
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["blocked", "[]"]


def functions_that_test(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the test functions of a module, those in classes too."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    ]


def can_fail(test: ast.AST) -> bool:
    """Whether a test asserts something that is not a constant, or calls what does."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            name = called(node)
            if name in ("raises", "warns", "expect"):
                return True
            if name.startswith(("assert_", "expect_", "check")):
                return True
    return False


def test_every_test_can_fail():
    collected = [path for path in sources("tests") if path.name.startswith("test_")]
    tests = [(path, test) for path in collected for test in functions_that_test(parse(path))]
    assert len(tests) > 50
    assert [f"{where(path, test)} {test.name}" for path, test in tests if not can_fail(test)] == []


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "compute()",
        "assert True",
        "assert 'words'",
        "x = 1 == 1",
        "print(assertion)",
        "prepare_check(1)",
    ],
)
def test_that_guard_finds_a_test_that_cannot_fail(body):
    (test,) = functions_that_test(ast.parse(f"class TestX:\n    def test_x(self):\n        {body}"))
    assert not can_fail(test)


@pytest.mark.parametrize(
    "body",
    [
        "assert f() == 1",
        "with pytest.raises(ValueError): f()",
        "torch.testing.assert_close(a, b)",
        "check('eq-x', a, b)",
        "expect(page).to_have_title('x')",
        "expect_close(a, b, 'x')",
    ],
)
def test_that_guard_lets_a_test_with_an_assertion_pass(body):
    (test,) = functions_that_test(ast.parse(f"async def test_x():\n    {body}"))
    assert can_fail(test)


def swallows(tree: ast.Module) -> list[ast.AST]:
    """Return the handlers that would hide any error: bare, Exception, BaseException, suppress."""
    broad = {"Exception", "BaseException"}

    def names(node: ast.AST | None) -> set[str]:
        if node is None:
            return set()
        parts = node.elts if isinstance(node, ast.Tuple) else [node]
        found = {part.id for part in parts if isinstance(part, ast.Name)}
        return found | {part.attr for part in parts if isinstance(part, ast.Attribute)}

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and (node.type is None or names(node.type) & broad):
            found.append(node)
        if (
            isinstance(node, ast.Call)
            and called(node) == "suppress"
            and broad & set().union(*(names(argument) for argument in node.args))
        ):
            found.append(node)
    return found


def dodges(tree: ast.Module) -> list[ast.AST]:
    """Return skips without a reason, and expected failures that are allowed to pass."""
    bare = {"skip", "skipif", "xfail"}
    found = []
    calls = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in calls:
            # @pytest.mark.skip without parentheses has no reason
            mark = node.attr in bare and isinstance(node.value, ast.Attribute)
            if mark and node.value.attr == "mark":
                found.append(node)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in (*bare, "importorskip"):
            continue  # before it is unparsed, which takes long
        holder = ast.unparse(node.func.value)
        if holder not in ("pytest", "pytest.mark"):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        name, marked = node.func.attr, holder == "pytest.mark"
        if name == "xfail":
            strict = keywords.get("strict")
            loose = isinstance(strict, ast.Constant) and strict.value is False
            if not marked or loose or "reason" not in keywords:  # pytest.xfail() is never strict
                found.append(node)
        elif name == "skip":
            reason = keywords.get("reason") or (node.args[0] if node.args else None)
            if reason is None or (isinstance(reason, ast.Constant) and not reason.value):
                found.append(node)
        elif name in ("skipif", "importorskip") and "reason" not in keywords:
            found.append(node)
    return found


EVERYWHERE = ("lib", "tests", "book", "chapters", "conftest.py")


def test_no_error_is_swallowed_and_no_test_dodged():
    assert len(sources(*EVERYWHERE)) > 20
    trees = ((path, parse(path)) for path in sources(*EVERYWHERE))
    found = [
        where(path, node)
        for path, tree in trees
        for guard in (swallows, dodges)
        for node in guard(tree)
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept (ValueError, BaseException) as e:\n    raise",
        "try:\n    f()\nexcept builtins.Exception:\n    pass",
        "with contextlib.suppress(Exception):\n    f()",
    ],
)
def test_that_guard_finds_what_swallows(source):
    assert len(swallows(ast.parse(source))) == 1


def test_that_guard_lets_named_errors_pass():
    source = "try:\n    f()\nexcept (ValueError, OSError):\n    pass\nraise Exception('x')"
    assert swallows(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.mark.skip\ndef test_x(): ...",
        "@pytest.mark.skip()\ndef test_x(): ...",
        "@pytest.mark.xfail\ndef test_x(): ...",
        "@pytest.mark.xfail(reason='x', strict=False)\ndef test_x(): ...",
        "@pytest.mark.xfail(strict=True)\ndef test_x(): ...",
        "@pytest.mark.skipif(True)\ndef test_x(): ...",
        "pytest.skip()",
        "pytest.skip('')",
        "pytest.xfail('later')",
        "pytest.importorskip('anywidget')",
    ],
)
def test_that_guard_finds_what_dodges(source):
    assert len(dodges(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.mark.skipif(not cuda, reason='needs a GPU')\ndef test_x(): ...",
        "@pytest.mark.xfail(reason='x', strict=True)\ndef test_x(): ...",
        "pytest.skip('needs chromium: apt-get install chromium')",
        "pytest.importorskip('anywidget', reason='optional')",
    ],
)
def test_that_guard_lets_a_reason_pass(source):
    assert dodges(ast.parse(source)) == []


def test_pytest_itself_is_strict():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["xfail_strict"] is True
    error, *ignored = options["filterwarnings"]
    assert error == "error"
    # every exception is one message of one package that we cannot mend
    assert ignored == [
        "ignore:`torch.jit.script:DeprecationWarning",
        "ignore:Conversion of an array with ndim > 0 to a scalar:DeprecationWarning:triton",
    ]


def without_chapter(tree: ast.Module) -> list[ast.AST]:
    """Return the public functions and classes whose docstring, and module, name no chapter."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    if "chapter" in (ast.get_docstring(tree) or "").lower():
        return []
    return [
        node
        for node in tree.body
        if isinstance(node, kinds)
        and not node.name.startswith("_")
        and "chapter" not in (ast.get_docstring(node) or "").lower()
    ]


def test_every_public_name_of_the_core_names_its_chapter():
    public = [
        node
        for path in core()
        for node in parse(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert len(public) >= 4
    found = [
        f"{where(path, node)} {node.name}"
        for path in core()
        for node in without_chapter(parse(path))
    ]
    assert found == []


def test_that_guard_finds_a_docstring_without_chapter():
    source = '''
        def no_docstring(): ...
        def other():
            """Return something."""
        def good():
            """Return something (chapter 2)."""
        class Good:
            """A thing of Chapter 3."""
        def _private(): ...
    '''
    found = without_chapter(ast.parse(textwrap.dedent(source)))
    assert [node.name for node in found] == ["no_docstring", "other"]
    whole = ast.parse('"""For chapter 02_attention."""\ndef no_docstring(): ...')
    assert without_chapter(whole) == []
