"""The plan, the table of contents and the chapters on disk say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from book._ext.bookext.book import read_plan
from book._ext.bookext.chaptermap import builds_on

ROOT = Path(__file__).parents[2]
TOC = ROOT / "book" / "_toc.yml"


def listed(toc: str) -> list[str]:
    """The documents that a table of contents builds, in order."""
    content = yaml.safe_load(toc)
    return [chapter["file"] for part in content["parts"] for chapter in part["chapters"]]


def planned(toc: str) -> list[tuple[str, str]]:
    """All chapters of a table of contents with their part, those in comments too."""
    found, part = [], ""
    for line in toc.splitlines():
        if match := re.fullmatch(r"\s*(?:# )?- caption: (.*)", line):
            part = match[1]
        elif match := re.fullmatch(r"\s*(?:# )?- file: (chapters/\S+)", line):
            found.append((part, match[1]))
    return found


def whole() -> list[str]:
    """The chapters that exist."""
    return sorted(f"chapters/{path.stem}" for path in (ROOT / "chapters").glob("*.py"))


def test_the_contents_list_every_chapter_that_exists_and_no_other():
    chapters = [name for name in listed(TOC.read_text("utf8")) if name.startswith("chapters/")]
    assert chapters == whole()
    assert "chapters/02_attention" in chapters


def test_the_contents_show_the_whole_plan_in_its_order():
    plan = read_plan(ROOT / "book" / "plan.yml")
    assert planned(TOC.read_text("utf8")) == [(chapter.part, chapter.docname) for chapter in plan]


def test_the_plan_numbers_its_chapters_one_by_one():
    plan = read_plan(ROOT / "book" / "plan.yml")
    assert [chapter.number for chapter in plan] == list(range(1, 23))
    assert len({chapter.slug for chapter in plan}) == len(plan)
    assert all(chapter.question.endswith("?") for chapter in plan)


def test_parts_and_their_chapters_are_numbered_as_deep_as_sections():
    content = yaml.safe_load(TOC.read_text("utf8"))
    for part in content["parts"]:
        numbered = any(chapter["file"].startswith("chapters/") for chapter in part["chapters"])
        assert part.get("numbered") == (2 if numbered else None), part["caption"]


def test_front_and_back_matter_exist():
    content = yaml.safe_load(TOC.read_text("utf8"))
    pages = [content["root"], *listed(TOC.read_text("utf8"))]
    matter = [page for page in pages if page.startswith("book/")]
    assert "book/ledger" in matter
    assert [page for page in matter if not (ROOT / f"{page}.md").exists()] == []


def title_of(chapter: str) -> str:
    """The first heading of a chapter's source."""
    return re.search(r"^# # (.+)$", (ROOT / f"{chapter}.py").read_text("utf8"), re.MULTILINE)[1]


@pytest.mark.parametrize("chapter", whole())
def test_a_chapter_has_the_title_that_the_plan_promises(chapter):
    plan = {entry.docname: entry.title for entry in read_plan(ROOT / "book" / "plan.yml")}
    assert title_of(chapter) == plan[chapter]


def test_these_guards_see_a_chapter_that_is_missing_from_the_plan():
    toc = TOC.read_text("utf8").replace("chapters/03_multi_head", "chapters/03_many_heads")
    plan = read_plan(ROOT / "book" / "plan.yml")
    assert planned(toc) != [(chapter.part, chapter.docname) for chapter in plan]


@pytest.mark.parametrize(
    ("prerequisites", "chapters"),
    [
        ([], ""),
        (["matrices", "no other chapter"], ""),
        (["02_attention", "patience"], "2"),
        (["chapters/07_encoder_decoder", "norms (chapter 6), heads (chapter 3)"], "3, 6 and 7"),
        (["positions (chapter 4)", "again (chapter 4, step 2)", "GPT (chapter 10)"], "4 and 10"),
        (["the 12_000 pages of a book", "step 3"], ""),
    ],
)
def test_the_map_finds_the_chapters_that_a_header_asks_for(prerequisites, chapters):
    assert builds_on(prerequisites) == chapters
