"""The built files: pages, links, pictures, notebooks. No browser is needed to read them."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import nbformat
import pytest
import yaml

from tests.site.built import CHAPTERS, DOCUMENTS, PAGES, ROOT, Parsed, parsed

pytestmark = pytest.mark.book


def notebook_of(site: Path, chapter: str) -> Path:
    return site / "notebooks" / f"{chapter.rpartition('/')[2]}.ipynb"


def test_every_document_of_the_contents_is_a_page_and_there_is_no_other(site):
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    pages = [page for page in pages if not page.startswith("_static/")]
    assert pages == sorted([*PAGES, "index.html"])
    assert len(CHAPTERS) >= 1
    assert len(DOCUMENTS) == len(set(DOCUMENTS))


def broken_links(site: Path, page: str, links: list[str]) -> list[str]:
    """Links within the book whose page or whose place in it does not exist."""
    broken = []
    for link in links:
        address = urlparse(link)
        if address.scheme:
            continue
        folder = posixpath.dirname(page)
        target = posixpath.normpath(posixpath.join(folder, unquote(address.path)))
        target = page if not address.path else target
        if target.startswith("..") or not (site / target).is_file():
            broken.append(link)
        elif address.fragment and target.endswith(".html"):
            ids = parsed(target).ids
            if address.fragment != "" and unquote(address.fragment) not in ids:
                broken.append(link)
    return broken


@pytest.mark.parametrize("page", [*PAGES, "index.html"])
def test_every_link_within_the_book_leads_somewhere(site, page):
    links = [*parsed(page).links, *parsed(page).sources]
    assert len(links) >= 2
    assert broken_links(site, page, links) == []


def test_a_broken_link_would_be_found(site):
    links = ["ledger.html", "absent.html", "ledger.html#absent", "../../etc/passwd", "#absent"]
    assert broken_links(site, "book/map.html", links) == links[1:]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_out_of_the_book_is_secure(page, site):
    addresses = [urlparse(link) for link in parsed(page).links]
    out = [address for address in addresses if address.scheme]
    assert [a.geturl() for a in out if a.scheme != "https" or "." not in a.netloc] == []


@pytest.mark.parametrize("page", [*PAGES, "index.html"])
def test_a_page_takes_nothing_from_elsewhere(page, site):
    sources = parsed(page).sources
    assert sources
    assert [source for source in sources if urlparse(source).netloc] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_id_stands_twice_on_a_page(page, site):
    ids = parsed(page).ids
    assert sorted({name for name in ids if ids.count(name) > 1}) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_is_described(page, site):
    for picture in parsed(page).pictures:
        if picture["tag"] == "img":
            assert "alt" in picture, picture
        else:
            assert 40 <= len(picture["aria-label"]) <= 250, picture


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_pictures_whose_descriptions_differ(chapter, site):
    pictures = parsed(f"{chapter}.html").pictures
    labels = [picture["aria-label"] for picture in pictures if picture.get("role") == "img"]
    assert len(labels) >= 3
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("page", [*PAGES, "index.html"])
def test_a_page_names_its_language(page, site):
    assert parsed(page).language == "en"


def test_the_page_parser_sees_what_it_should():
    page = Parsed('<html lang="en"><a id="x" href="y"></a><img src="z"><div role="img"></div>')
    assert (page.language, page.ids, page.links, page.sources) == ("en", ["x"], ["y"], ["z"])
    assert [picture["tag"] for picture in page.pictures] == ["img", "div"]


def test_the_sitemap_lists_the_pages_under_their_published_address(site):
    tree = ElementTree.parse(site / "sitemap.xml")
    addresses = [element.text for element in tree.iter() if element.tag.endswith("loc")]
    owner, _, name = repository().partition("/")
    base = f"https://{owner.lower()}.github.io/{name}/"
    assert sorted(addresses) == sorted(f"{base}{page}" for page in PAGES)


def test_pages_say_what_they_are_when_they_are_shared(site):
    for chapter in CHAPTERS:
        text = (site / f"{chapter}.html").read_text("utf8")
        assert re.search(r'<meta property="og:url" content="https://[^"]+\.html" />', text)
        assert '<meta property="og:title" content="' in text
        descriptions = re.findall(r'<meta name="description" content="([^"]*)"', text)
        assert len(descriptions) == 1
        assert "\\" not in descriptions[0]


def test_what_the_theme_brings_and_no_page_loads_is_not_published(site):
    names = {path.name for path in (site / "_static").rglob("*")}
    assert "tex-chtml.js" in names
    assert not {name for name in names if name.startswith(("fontawesome", "fa-", "require"))}
    assert not {name for name in names if name.endswith(".map")}


def repository() -> str:
    """owner/name, from the one place where it is written."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    return urlparse(config["repository"]["url"]).path.strip("/")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_colab_button_opens_the_published_notebook(chapter, site):
    branch = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["sphinx"]["config"][
        "bookext_publish_branch"
    ]
    notebook = notebook_of(site, chapter)
    assert notebook.is_file()
    address = (
        f"https://colab.research.google.com/github/{repository()}/blob/{branch}/"
        f"{notebook.relative_to(site).as_posix()}"
    )
    assert parsed(f"{chapter}.html").links.count(address) == 1
    assert f"../notebooks/{notebook.name}" in parsed(f"{chapter}.html").links


# The notebooks


@pytest.fixture(scope="module", params=CHAPTERS)
def notebook(request, site) -> nbformat.NotebookNode:
    return nbformat.read(notebook_of(site, request.param), as_version=4)


def words(notebook: nbformat.NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_a_notebook_is_valid_and_was_executed(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert sum(bool(cell.outputs) for cell in code) > len(code) / 2
    assert notebook.metadata.accelerator == "GPU"
    assert notebook.metadata.kernelspec.name == "python3"
    assert "jupytext" not in notebook.metadata


def test_a_notebook_holds_nothing_that_only_the_book_can_read(notebook):
    outside_code = re.sub(
        r"^\s*```\w*\n.*?^\s*```$", "", words(notebook), flags=re.DOTALL | re.MULTILINE
    )
    patterns = (r"\{[\w:-]+\}`", r"^\s*:{3,}.*", r"^\s*`{3,}\{.*", r"^\(\S+\)=", r"\$\$\s*\(\w+-")
    assert re.findall("|".join(patterns), outside_code, re.MULTILINE) == []
    assert not re.search(r"\b(?:eq|def|fig|ex|sec)-[a-z]+-[a-z]", outside_code)


def test_a_notebook_begins_with_its_title_its_header_and_its_setup(notebook):
    title, setup = notebook.cells[0].source, notebook.cells[1].source
    assert re.match(r"# \d+\. \S", title)
    assert "| **After it you can** |" in title
    assert '"google.colab" in sys.modules' in setup
    assert f"https://github.com/{repository()}.git" in setup


def test_numbers_in_a_notebook_are_those_of_the_page(notebook, site):
    chapter = re.match(r"# (\d+)\.", notebook.cells[0].source)[1]
    page = next((site / "chapters").glob(f"{int(chapter):02d}_*.html")).read_text("utf8")
    tags = re.findall(r"\\tag\{([\d.]+)\}", words(notebook))
    assert len(tags) > 3
    assert tags == re.findall(r'<span class="eqno">\(([\d.]+)\)', page)
    figures = re.findall(r"<b>(Figure [\d.]+)\.</b>", json.dumps(notebook))
    assert figures == re.findall(r'<span class="caption-number">(Figure [\d.]+) </span>', page)


def test_solutions_are_folded_in_a_notebook(notebook):
    solutions = [cell for cell in notebook.cells if "solution" in cell.metadata.get("tags", [])]
    assert solutions
    for cell in solutions:
        assert cell.source.startswith("#@title Solution\n")
        assert cell.metadata.cellView == "form"
        assert cell.metadata.jupyter.source_hidden


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_executed_chapter_remembers_the_numbers_of_its_prose(site, chapter):
    source = (ROOT / f"{chapter}.py").read_text("utf8")
    printed = set(re.findall(r"\{glue:text\}`([\w.-]+)", source))
    executed = nbformat.read(ROOT / "_build" / "jupyter_execute" / f"{chapter}.ipynb", as_version=4)
    glued = [output for cell in executed.cells for output in cell.metadata.get("glued", [])]
    assert printed
    assert printed <= {output.metadata.scrapbook.name for output in glued}
    assert all("application/papermill.record/text/plain" in output.data for output in glued)
    published = nbformat.read(notebook_of(site, chapter), as_version=4)
    assert not any("glued" in cell.metadata for cell in published.cells)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_published_notebook_prints_nothing_twice(site, chapter):
    published = nbformat.read(notebook_of(site, chapter), as_version=4)
    printed = [
        [output.name for output in cell.outputs if output.output_type == "stream"]
        for cell in published.cells
        if cell.cell_type == "code"
    ]
    assert any(printed)
    assert all(len(names) == len(set(names)) for names in printed)
