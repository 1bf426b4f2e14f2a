"""The environment of the kernels, a cache that knows lib, and a build that forgets no warning."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from myst_nb.core.execute.cache import NotebookClientCache
from myst_nb.ext import glue
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from . import ahead
from .book import CHAPTER, Repository
from .dependencies import chapter_state

logger = logging.getLogger(__name__)

GLUED = "glued"  # a cell's metadata of an executed notebook: what `keep_glued_outputs` keeps


def kernel_environment(root: Path) -> dict[str, str]:
    """What a chapter's kernel needs: lib on the path, one thread, no widgets in a page."""
    return {
        "PYTHONPATH": os.pathsep.join(
            dict.fromkeys([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
        ),
        "OMP_NUM_THREADS": "1",
        "EXECUTABLE_TRANSFORMER_STATIC": "1",
    }


def configure(app: Sphinx, config: Config) -> None:
    root = Path(app.srcdir)
    os.environ.update(kernel_environment(root))
    # What a chapter imports is not in jupyter-cache's key: `keep_cached_outputs` adds it.
    config.nb_execution_cache_path = str(root / "_build" / ".jupyter_cache")
    if not config.html_baseurl:
        config.html_baseurl = Repository.of(config).pages_url
    config.ogp_site_url = config.html_baseurl


def keep_cached_outputs() -> None:
    """Let the notebook that MyST-NB writes hold its outputs on a cache hit too, each once.

    On a hit the client merges the outputs into a copy, shows the copy, and MyST-NB then writes
    the original, without outputs, to `jupyter_execute`. The downloads and `make reproduce` are
    made from that file.

    And jupyter-cache keys on a notebook's own code, so a change of lib would leave stale outputs:
    each state of what a chapter depends on has a cache of its own.
    """
    start_client = NotebookClientCache.start_client

    def start(self: NotebookClientCache) -> None:
        folder = ahead.cache_folder(Path(self.nb_config.execution_cache_path).parents[1], self.path)
        self._nb_config = replace(self.nb_config, execution_cache_path=str(folder))
        ahead.running.wait(self.path)
        original = self._notebook
        start_client(self)
        if self._notebook is not original:
            original.cells = self._notebook.cells
            self._notebook = original
        for cell in original.cells:
            if cell.cell_type == "code":
                cell.outputs = join_streams(cell.outputs)

    if start_client.__name__ != start.__name__:  # a second build in one process patches once
        NotebookClientCache.start_client = start


def join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """What a cell prints as one output, whatever is displayed in between; nbval does the same.

    MyST-NB's `nb_merge_streams` joins them for the page, but in place: the notebook that it then
    writes would hold the joined text *and* the later parts.
    """
    joined: list[NotebookNode] = []
    streams: dict[str, NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            joined.append(output)
        elif output.name in streams:
            streams[output.name].text += output.text
        else:
            streams[output.name] = output
            joined.append(output)
    return joined


def keep_glued_outputs() -> None:
    """Let the notebook that MyST-NB writes remember the values that its prose prints.

    MyST-NB takes glued outputs out of a cell, to print them elsewhere, and writes the notebook
    without them; then `make reproduce` could not compare the numbers in the text. They are kept
    in the cell's metadata, as the kernel sent them.
    """
    extract = glue.extract_glue_data_cell

    def extract_and_keep(cell: NotebookNode) -> list[tuple[str, NotebookNode]]:
        quiet = [
            deepcopy(output)
            for output in cell.get("outputs", [])
            if output.get("metadata", {}).get("scrapbook", {}).get("mime_prefix")
        ]
        if quiet:
            cell.metadata[GLUED] = quiet
        return extract(cell)

    if extract.__name__ != extract_and_keep.__name__:
        glue.extract_glue_data_cell = extract_and_keep


def outdated(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """The chapters that depend on something in lib that has changed since they were read."""
    states = {
        docname: chapter_state(Path(app.srcdir), Path(env.doc2path(docname)).read_text("utf8"))
        for docname in env.found_docs
        if CHAPTER.fullmatch(docname)
    }
    before = getattr(env, "bookext_states", {})
    env.bookext_states = states
    return [name for name, state in states.items() if before.get(name) != state]


def forget_failed_build(app: Sphinx, exception: Exception | None) -> None:
    """After a build with warnings, read everything again next time.

    Sphinx warns about a file only when it reads it, so under -W a second build of the same
    files would pass in silence.
    """
    strict = app.warningiserror or app.keep_going  # --keep-going takes the place of the first
    if strict and (exception is not None or app._warncount):
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def setup(app: Sphinx) -> None:
    keep_cached_outputs()
    keep_glued_outputs()
    app.add_config_value("bookext_publish_branch", "gh-pages", "html", str)
    # Jupyter Book always sets this value, and only sphinx_comments, which we leave out, knows it.
    app.add_config_value("comments_config", {}, "", dict)
    app.connect("config-inited", configure)
    app.connect("env-get-outdated", outdated)
    app.connect("build-finished", forget_failed_build, priority=900)
