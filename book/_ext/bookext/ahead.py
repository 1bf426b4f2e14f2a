"""Chapters run ahead of Sphinx, several at a time.

Sphinx reads one page after the other, and MyST-NB runs a chapter when Sphinx reads it. Here the
chapters that are about to be read run in threads, in the order of reading, each in a kernel
of its own. What they put out is in the cache when Sphinx comes to them. A chapter that fails leaves
nothing there: it fails once more when it is read, and MyST-NB says so in its own words.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import create_nb_reader
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from .book import CHAPTER
from .dependencies import chapter_state

logger = logging.getLogger(__name__)


class Ahead:
    """Does jobs in their order, so many at a time, each in a thread of its own.

    An error of a job is printed and keeps nobody: who waits for it finds that nothing was done.
    """

    def __init__(self, jobs: dict[Hashable, Callable[[], None]], threads: int) -> None:
        self._jobs = iter(jobs.items())
        self._lock = threading.Lock()
        self._done = {name: threading.Event() for name in jobs}
        for _ in range(threads):
            self._begin()

    def _begin(self) -> None:
        with self._lock:
            name, job = next(self._jobs, (None, None))
        if job is not None:  # a daemon, so that an interrupted build ends
            threading.Thread(target=self._work, args=(name, job), daemon=True).start()

    def _work(self, name: Hashable, job: Callable[[], None]) -> None:
        try:
            job()
        finally:
            self._done[name].set()
            self._begin()

    def wait(self, name: Hashable) -> None:
        """Return when this job has ended, or at once if there is none of this name."""
        if name in self._done:
            self._done[name].wait()


running = Ahead({}, 0)


def cache_folder(root: Path, path: Path) -> Path:
    """The cache of a chapter in the present state of what it depends on."""
    state = chapter_state(root, path.read_text("utf8"))
    return root / "_build" / ".jupyter_cache" / state


def execute(cache: JupyterCacheAbstract, path: Path, notebook: NotebookNode, timeout: int) -> None:
    """Run a chapter as MyST-NB does, and cache what it puts out if it comes to its end."""
    result = single_nb_execution(
        notebook, cwd=str(path.parent), allow_errors=False, timeout=timeout
    )
    if result.err is None:
        cache.cache_notebook_bundle(
            CacheBundleIn(notebook, str(path), data={"execution_seconds": result.time}),
            check_validity=False,
            overwrite=True,
        )


def start(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Begin with the chapters that Sphinx is about to read and whose outputs are not cached."""
    jobs = {}
    for docname in filter(CHAPTER.fullmatch, docnames):
        path = Path(env.doc2path(docname))
        text = path.read_text("utf8")
        notebook = create_nb_reader(str(path), env.myst_config, env.mystnb_config, text).read(text)
        cache = get_cache(str(cache_folder(Path(app.srcdir), path)))
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            timeout = env.mystnb_config.execution_timeout
            jobs[path] = partial(execute, cache, path, notebook, timeout)
            logger.info(f"{docname}: Executing notebook ahead of reading it")
    global running
    running = Ahead(jobs, int(os.environ.get("JOBS", 2)))


def setup(app: Sphinx) -> None:
    app.connect("env-before-read-docs", start, priority=900)
