"""What the book adds to Jupyter Book, one concern a module.

config      the environment of the kernels, the execution cache, MathJax without a CDN
ahead       the chapters run several at a time, ahead of Sphinx, which reads one after the other
numbering   a chapter's number is the number in its file's name
outputs     `check`, `show_figure` and `grade` outputs become links, figures and notes
ledger      the table of every numbered equation and the check that ran on it
folklore    `{folklore}`: every mistake made on purpose and every saying set right, by chapter
header      what every chapter says below its title: question, goals, minutes, buttons
libsource   `{lib-source}`: a function shown from its file, never retyped
chaptermap  `{chapter-map}`, from plan.yml
gathered    such pages are written anew when what they gather from chapters changed
modelcard   `{model-card}`: a family of models, from its code and the recorded parity run
notation    `{notation}`: every symbol of the chapters, and what the code calls it
glossary    `{terms}`: the glossary, from glossary.yml
generalindex  `{general-index}`: where the chapters speak of terms and functions
benchmarks  `{benchmarks}`: what `make bench` measured; what a chapter takes on a GPU
records     the files that hold it, read and written
component   `{component}`: a component of lib on a page that is not executed
citations   author-year labels, each source linked to its DOI or arXiv page
punctuation what touches a formula stays on its line
theme       the theme mended: icons, accessibility, no request to anyone else
export      the executed notebooks, in plain Markdown, for download and Colab
"""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from . import (
    ahead,
    benchmarks,
    chaptermap,
    citations,
    component,
    config,
    export,
    folklore,
    generalindex,
    glossary,
    header,
    ledger,
    libsource,
    modelcard,
    notation,
    numbering,
    outputs,
    punctuation,
    theme,
)

MODULES = (
    config,
    ahead,
    numbering,
    outputs,
    ledger,
    folklore,
    header,
    libsource,
    chaptermap,
    modelcard,
    notation,
    glossary,
    generalindex,
    benchmarks,
    component,
    citations,
    punctuation,
    theme,
    export,
)


def setup(app: Sphinx) -> ExtensionMetadata:
    for module in MODULES:
        module.setup(app)
    # Raise when the data that the extension keeps in Sphinx's environment changes its shape.
    return {"version": "1", "env_version": 2, "parallel_read_safe": True}
