"""The theme mended: nothing from elsewhere, no dead link, and usable by everyone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

HERE = Path(__file__).parent

# What a page loads of MathJax: the one script that reads TeX, and its fonts.
MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2")

# What the theme brings along and no page loads: icons as scripts and fonts, source maps.
UNUSED = ("scripts/fontawesome.js*", "vendor/fontawesome", "scripts/*.map", "styles/*.map")


@dataclass(frozen=True)
class Mend:
    """A place in the theme's HTML, and what belongs there."""

    old: str
    new: str
    why: str
    everywhere: bool = True


EARLY_THEME = """\
<script>
    (data => {
      if (data.theme !== "light" && data.theme !== "dark")
        data.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    })(document.documentElement.dataset);
  </script>
  <!--
    this give us a css class"""

MENDS = (
    Mend(
        'data-theme="auto"',
        'data-theme="light"',
        "no colour is defined for `auto`: without JavaScript the page would have none",
    ),
    Mend(
        "<!--\n    this give us a css class",
        EARLY_THEME,
        "the theme's script comes late, and until then a dark page would be shown in no colour",
    ),
    Mend(
        '<div id="pst-primary-sidebar" ',
        '<div id="pst-primary-sidebar" role="complementary" aria-label="The book" ',
        "all content belongs to a landmark (axe: region)",
    ),
    Mend(
        '<dialog id="pst-primary-sidebar-modal">',
        '<dialog id="pst-primary-sidebar-modal" aria-label="The book">',
        "a dialog needs a name",
    ),
    Mend(
        '<dialog id="pst-secondary-sidebar-modal">',
        '<dialog id="pst-secondary-sidebar-modal" aria-label="On this page">',
        "a dialog needs a name",
        everywhere=False,
    ),
    Mend(
        '<dialog id="pst-search-dialog">',
        '<dialog id="pst-search-dialog" aria-label="Search">',
        "a dialog needs a name",
    ),
    Mend(
        'search-button-field search-button__button pst-js-only" title="Search" aria-label="Search"',
        'search-button-field search-button__button pst-js-only" title="Search"',
        "the name must contain the text shown, which names the keys too (label-content-name)",
    ),
    Mend(
        'title="Toggle primary sidebar"',
        'title="Show or hide the chapters" aria-label="Show or hide the chapters"',
        "say what the button does",
    ),
    Mend(
        'title="Toggle secondary sidebar"',
        'title="Show or hide the sections of this page" '
        'aria-label="Show or hide the sections of this page"',
        "say what the button does",
        everywhere=False,
    ),
    Mend(
        'role="doc-biblioentry"',
        'role="listitem"',
        "the entries of a list are its items (axe: aria-required-children)",
        everywhere=False,
    ),
    Mend(
        '<summary aria-label="Toggle hidden content">',
        "<summary>",
        "the name must contain the text shown (axe: label-content-name-mismatch)",
        everywhere=False,
    ),
)


def mend(html: str, page: str) -> str:
    """Apply every mend; a theme that changed so that one no longer fits stops the build."""
    for place in MENDS:
        if place.everywhere and place.old not in html:
            raise ExtensionError(f"{page}: the theme no longer has {place.old!r} ({place.why})")
        html = html.replace(place.old, place.new)
    return html


def mend_pages(app: Sphinx) -> None:
    """Mend what the templates render (Sphinx has no event for it)."""
    if app.builder.format != "html" or not hasattr(app.builder, "templates"):
        return
    render = app.builder.templates.render

    def render_mended(template: str, context: dict) -> str:
        html = render(template, context)
        # The theme also renders single components, to see which are empty.
        whole = html.lstrip().startswith("<!DOCTYPE html>")
        return mend(html, context["pagename"]) if whole else html

    app.builder.templates.render = render_mended


def mathjax_folder() -> Path:
    """Where sphinx-mathjax-offline keeps MathJax (its name is no Python identifier)."""
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise ExtensionError("sphinx-mathjax-offline is missing: pip install -r requirements.txt")
    return Path(spec.origin).parent / "static" / "mathjax"


def configure(app: Sphinx, config: Config) -> None:
    config.templates_path.insert(0, str(HERE / "templates"))
    config.mathjax_path = "mathjax/tex-chtml.js"


def tidy_static(app: Sphinx, exception: Exception | None) -> None:
    """Bring MathJax, and drop what the theme brought and no page loads."""
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    source, target = mathjax_folder(), static / "mathjax"
    for name in MATHJAX:
        if (target / name).exists():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        else:
            shutil.copyfile(source / name, target / name)
    for pattern in UNUSED:
        for path in static.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


ROOT_PAGE = """\
<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta http-equiv="refresh" content="0; url={target}" />
    <title>{title}</title>
    <link rel="icon" href="_static/favicon.svg" />
  </head>
  <body>
    <main><h1><a href="{target}">{title}</a></h1></main>
  </body>
</html>
"""


def write_root(app: Sphinx, exception: Exception | None) -> None:
    """`index.html` at the root leads to the landing page; `.nojekyll` lets Pages serve _static."""
    if exception is not None or app.builder.name != "html":
        return
    root = Path(app.outdir)
    page = ROOT_PAGE.format(
        target=f"{app.config.root_doc}.html", title=escape(app.config.html_title)
    )
    (root / "index.html").write_text(page, "utf8")
    (root / ".nojekyll").touch()


# Below each search result Sphinx quotes its page, which it fetches; from file:// it may not.
NO_QUOTES_FROM_FILES = """\
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;"""


def complete_sitemap(app: Sphinx, exception: Exception | None) -> None:
    """Give sphinx-sitemap every page: it knows only of those that this build wrote afresh."""
    if exception is not None or app.builder.format != "html":
        return
    links = app.sitemap_links
    pages = {"search.html", *(f"{document}.html" for document in app.env.all_docs)}
    while not links.empty():
        pages.add(links.get()[0])
    for page in sorted(pages):
        links.put((page, None))


def setup(app: Sphinx) -> None:
    app.add_js_file(None, body=NO_QUOTES_FROM_FILES)
    app.connect("config-inited", configure)
    app.connect("builder-inited", mend_pages)
    app.connect("build-finished", complete_sitemap, priority=100)  # before sphinx-sitemap's own
    app.connect("build-finished", tidy_static)
    app.connect("build-finished", write_root, priority=900)  # after sphinx_external_toc's redirect
