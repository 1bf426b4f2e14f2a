"""Facts about the book that several modules need: its root, chapters, plan and repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import yaml
from sphinx.config import Config

CHAPTER = re.compile(r"chapters/(?P<number>\d\d)_(?P<slug>\w+)")


def chapter_number(docname: str) -> int | None:
    """The number in a chapter's file name: `chapters/02_attention` -> 2."""
    match = CHAPTER.fullmatch(docname)
    return int(match["number"]) if match else None


@dataclass(frozen=True)
class Planned:
    """One chapter of the plan, whole or not."""

    number: int
    slug: str
    title: str
    question: str
    part: str
    module: str | None = None  # of lib, where it has another name than the chapter

    @property
    def docname(self) -> str:
        return f"chapters/{self.number:02d}_{self.slug}"


def read_plan(path: Path) -> list[Planned]:
    """The chapters that plan.yml lists, in its order."""
    parts = yaml.safe_load(path.read_text("utf8"))["parts"]
    return [
        Planned(part=part["title"], **chapter) for part in parts for chapter in part["chapters"]
    ]


@dataclass(frozen=True)
class Repository:
    """Where the sources and the published pages live; all of it read from `_config.yml`."""

    url: str
    branch: str
    publish_branch: str

    @classmethod
    def of(cls, config: Config) -> Repository:
        options = config.html_theme_options
        return cls(
            url=options["repository_url"].rstrip("/").removesuffix(".git"),
            branch=options["repository_branch"],
            publish_branch=config.bookext_publish_branch,
        )

    @property
    def path(self) -> str:
        """`owner/name`."""
        return urlparse(self.url).path.strip("/")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def clone_url(self) -> str:
        return f"{self.url}.git"

    @property
    def pages_url(self) -> str:
        """Where GitHub Pages serves the publish branch."""
        owner, _, name = self.path.partition("/")
        return f"https://{owner.lower()}.github.io/{name}/"

    def colab_url(self, notebook: str) -> str:
        return (
            f"https://colab.research.google.com/github/{self.path}/blob/"
            f"{self.publish_branch}/{notebook}"
        )


def minutes(seconds: float) -> str:
    """A duration as a reader would say it."""
    if seconds < 100:
        return f"{round(seconds)} s"
    return f"{seconds / 60:.1f} min"


def notebook_path(docname: str) -> str:
    """Where a chapter's downloadable notebook lies below the HTML root."""
    return f"notebooks/{docname.rpartition('/')[2]}.ipynb"
