"""What the finished build knows about labels, for the notebooks that are made from it."""

from __future__ import annotations

import json
import posixpath
from functools import cached_property
from pathlib import Path

from docutils import nodes
from myst_nb.core.variables import format_plain_text
from sphinx.application import Sphinx

from .book import Repository
from .citations import names, source_url
from .libsource import Source, read_source


class BookLookup:
    """Numbers, titles, citations and glued values, as seen from one document."""

    def __init__(self, app: Sphinx, docname: str) -> None:
        self.app, self.env, self.docname = app, app.env, docname
        self.repository = Repository.of(app.config)

    def equation(self, label: str) -> str | None:
        known = self.env.get_domain("math").equations.get(label)
        if known is None:
            return None
        numbers = self.env.toc_fignumbers.get(known[0], {}).get("displaymath", {})
        number = numbers.get(nodes.make_id(f"equation-{label}"))
        return ".".join(map(str, number)) if number else None

    def numbered(self, label: str) -> str | None:
        docname, anchor, _ = self._label(label)
        if docname is None:
            return None
        for kind, numbers in self.env.toc_fignumbers.get(docname, {}).items():
            if anchor in numbers and kind != "displaymath":
                shape = self.app.config.numfig_format.get(kind, f"{kind.capitalize()} %s")
                name = shape % ".".join(map(str, numbers[anchor]))
                return name[0].upper() + name[1:]
        return None

    def section(self, label: str) -> str | None:
        return self._label(label)[2] or None

    def _label(self, label: str) -> tuple[str | None, str, str]:
        standard = self.env.get_domain("std")
        if label in standard.labels:
            return standard.labels[label]
        if label in standard.anonlabels:
            return (*standard.anonlabels[label], "")
        proofs = getattr(self.env, "proof_list", {})
        if label in proofs:
            return proofs[label]["docname"], label, ""
        return None, "", ""

    def page(self, target: str) -> tuple[str, str] | None:
        path, _, anchor = target.partition("#")
        if path.startswith("/"):
            docname = path[1:]
        else:
            docname = posixpath.normpath(posixpath.join(posixpath.dirname(self.docname), path))
        for suffix in ("", ".md", ".py", ".ipynb"):
            name = docname.removesuffix(suffix)
            if name in self.env.found_docs:
                url = f"{self.repository.pages_url}{name}.html{'#' if anchor else ''}{anchor}"
                return self.env.titles[name].astext(), url
        return None

    def citation(self, key: str) -> tuple[str, str, str | None] | None:
        entries = self.env.get_domain("cite").bibdata.data.entries
        if key not in entries:
            return None
        entry = entries[key]
        return names(entry), entry.fields.get("year", "n.d."), source_url(entry)

    @cached_property
    def _glue(self) -> dict[str, dict]:
        path = executed_notebook(self.app, self.docname).with_suffix(".glue.json")
        return json.loads(path.read_text("utf8")) if path.exists() else {}

    def glued(self, name: str, spec: str) -> str | None:
        output = self._glue.get(name)
        return None if output is None else format_plain_text(output["data"]["text/plain"], spec)

    def source(self, dotted: str, *, docstring: bool) -> Source | None:
        try:
            return read_source(Path(self.app.srcdir), dotted, docstring=docstring)
        except ValueError:
            return None  # the directive itself has said so, with its line


def executed_notebook(app: Sphinx, docname: str) -> Path:
    """Where MyST-NB writes a chapter with its outputs."""
    return Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"
