"""`{component}`: a component of lib on a page that is not executed.

The content is Python. Its last line is an expression, the component; what it writes for a
published page is put in the directive's place. It asks no kernel and no network.

    ```{component}
    from lib.teaching.components import TemperatureSoftmax

    TemperatureSoftmax(name="temperature")
    ```
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .config import kernel_environment
from .dependencies import dependencies

# Runs in a process of its own, as a chapter's kernel does: it sees the lib of the book that is
# built, and torch does not stay in the memory of the build.
SHOW = """\
import json, sys
source = json.load(sys.stdin)
names = {"__name__": "component"}
exec(compile(source["first"], source["name"], "exec"), names)
json.dump(eval(compile(source["last"], source["name"], "eval"), names).html(), sys.stdout)
"""


def rendered(root: Path, code: str, name: str = "component") -> str:
    """The HTML of the component that this code makes.

    Raises ValueError, in one line, if the code does not run or makes something else.
    """
    try:
        body = ast.parse(code).body
    except SyntaxError as error:
        raise ValueError(f"{name}: {error}") from error
    if not body or not isinstance(body[-1], ast.Expr):
        raise ValueError(f"{name}: expected an expression as the last line, the component")
    last = ast.unparse(body.pop())
    first = "\n".join(ast.unparse(line) for line in body)
    run = subprocess.run(
        [sys.executable, "-c", SHOW],
        input=json.dumps({"first": first, "last": last, "name": name}),
        env={**os.environ, **kernel_environment(root)},
        cwd=root,
        text=True,
        capture_output=True,
    )
    if run.returncode:
        raise ValueError(f"{name}: {run.stderr.strip().splitlines()[-1]}")
    return json.loads(run.stdout)


class Component(SphinxDirective):
    """A component, from the code that makes it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.app.srcdir)
        code = "\n".join(self.content)
        try:
            html = rendered(root, code, f"{self.env.docname}, line {self.lineno}")
        except ValueError as error:
            raise self.error(f"component: {error}") from error
        for path in dependencies(root, code):
            self.env.note_dependency(path.relative_to(root).as_posix())
        return [nodes.container("", nodes.raw("", html, format="html"), classes=["live"])]


def setup(app: Sphinx) -> None:
    app.add_directive("component", Component)
