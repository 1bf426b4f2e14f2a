"""`{model-card} gpt2`: what a family of models is, read from its code, its table of weights and the
recorded parity run; `{model-cards}`: all of them in one table.

What cannot be read there stands in book/cards.yml: the chapter, the papers, the ids of checkpoints.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CARDS = "book/cards.yml"
PARITY = "book/experiments/parity.json"
LAYOUTS = "lib/models/layouts.py"


@dataclass(frozen=True)
class Card:
    """One family of cards.yml."""

    family: str
    title: str
    model: str  # dotted name of the class
    chapter: str
    papers: list[str]
    size: str  # which release has the sizes that are counted
    checkpoints: list[str]
    config: dict[str, Any] = field(default_factory=dict)  # where they are not the defaults

    @property
    def path(self) -> str:
        """The file of the model, below the root."""
        return self.model.rpartition(".")[0].replace(".", "/") + ".py"

    @property
    def model_class(self) -> Any:
        module, _, name = self.model.rpartition(".")
        return getattr(importlib.import_module(module), name)


def read_cards(root: Path) -> dict[str, Card]:
    """The families of cards.yml, in its order."""
    content = yaml.safe_load((root / CARDS).read_text("utf8"))
    return {family: Card(family, **entries) for family, entries in content.items()}


def read_parity(root: Path) -> dict[str, Any]:
    """The recorded run: {"families": {family: [row]}} and where it is from."""
    return json.loads((root / PARITY).read_text("utf8"))


@cache
def count_parameters(card_model: str, options: tuple[tuple[str, Any], ...]) -> int:
    """How many numbers a model of this config trains, tied ones once; nothing is allocated."""
    import torch

    module, _, name = card_model.rpartition(".")
    model_class = getattr(importlib.import_module(module), name)
    with torch.device("meta"):
        model = model_class(model_class.config_class(**dict(options)))
    return sum(parameter.numel() for parameter in model.parameters())


def paragraphs(root: Path, path: str) -> Iterator[str]:
    """What the docstrings of a module say of its source and of how it deviates from it.

    All of the module's own but its first line and where it is derived, and of each class the
    paragraphs that begin with "Deviation".
    """
    tree = ast.parse((root / path).read_text("utf8"))
    own = (ast.get_docstring(tree) or "").split("\n")[1:]
    yield from (text for text in _joined(own) if text and not text.startswith("Derived"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                if paragraph.startswith("Deviation"):
                    yield f"`{node.name}`. " + " ".join(paragraph.split())


def _joined(lines: list[str]) -> Iterator[str]:
    """Lines as paragraphs, where one begins with Source, Deviation or Derived."""
    current: list[str] = []
    for line in lines:
        if re.match(r"(Source|Deviations?|Derived)\b", line) and current:
            yield " ".join(" ".join(current).split())
            current = []
        current.append(line)
    if current:
        yield " ".join(" ".join(current).split())


def error(value: float) -> str:
    """A relative error as $1.7 \\times 10^{-7}$."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"${mantissa} \times 10^{{{int(exponent)}}}$"


def chapter_link(card: Card, chapters: Collection[str]) -> str:
    """A link to the card's chapter, or its number alone where the book does not have it yet."""
    name = f"chapter {int(card.chapter[:2])}"
    if f"chapters/{card.chapter}" in chapters:
        return f"[{name}](/chapters/{card.chapter}.py)"
    return f"{name}, planned"


def card_text(root: Path, card: Card, chapters: Collection[str]) -> str:
    """The card as MyST, with a link to its chapter if that is one of the documents."""
    config_class = card.model_class.config_class
    official = card.model_class.layout.options
    count = count_parameters(card.model, tuple(card.config.items()))
    lines = (root / card.path).read_text("utf8").count("\n")
    parity = read_parity(root)
    rows = parity["results"]["families"][card.family]
    papers = ", ".join(f"{{cite:t}}`{key}`" for key in card.papers)
    text = [
        "## At a glance",  # what stood before the first heading would end up behind the last
        "",
        "| question | answer |",
        "|---|---|",
        f"| Where is it? | `{card.model}`, {lines} lines: `{card.path}` |",
        f"| Where is it derived? | {chapter_link(card, chapters)} |",
        f"| Whose is it? | {papers} |",
        f"| How many parameters? | {count:,} ({card.size}) |",
        f"| Which checkpoints? | {', '.join(f'`{name}`' for name in card.checkpoints)} |",
        f"| Loaded how? | `{card.model_class.__name__}.from_pretrained(folder_or_repo_id)` |",
        "",
        "## How close to the official implementation",
        "",
        "| official class | fp32 | fp64 |" + (" mended |" if "operation" in rows[0] else ""),
        "|---|---|---|" + ("---|" if "operation" in rows[0] else ""),
    ]
    for row in rows:
        cells = [f"`{row['reference'].partition(',')[0]}`{_version(row['reference'])}"]
        cells += [error(row["float32"]), error(row["float64"])]
        if "operation" in row:
            cells.append(error(row["float64, mended"]))
        text.append("| " + " | ".join(cells) + " |")
    text += [
        "",
        "The largest difference of any logit, relative to the largest logit: tiny models of odd "
        "sizes with all parameters drawn at random, padded batches, "
        f"{len(parity['settings']['seeds'])} draws of them. Measured {parity['date']} against "
        f"transformers {parity['settings']['transformers']} with torch {parity['torch']}, by "
        f"`{parity['command']}`.",
        "",
    ]
    if "operation" in rows[0]:
        text += [
            f"In fp64 the official class computes one thing in fp32: {rows[0]['operation']}. "
            "*Mended* is the same comparison with that, and nothing else, in fp64.",
            "",
        ]
    text += ["## From the paper to this code", ""]
    for paragraph in paragraphs(root, card.path):
        text += [paragraph, ""]
    text += [
        "## The configuration",
        "",
        f"`{config_class.__name__}`, and what the official `config.json` calls it.",
        "",
        "| field | default | official name |",
        "|---|---|---|",
    ]
    for entry in dataclasses.fields(config_class):
        default = "–" if entry.default is dataclasses.MISSING else f"`{entry.default!r}`"
        name = official.get(entry.name)
        text.append(f"| `{entry.name}` | {default} | {f'`{name}`' if name else '–'} |")
    return "\n".join(text) + "\n"


def _version(reference: str) -> str:
    version = reference.partition(",")[2]
    return f",{version}" if version else ""


def cards_text(root: Path, chapters: Collection[str]) -> str:
    """All families in one table, as MyST."""
    families = read_parity(root)["results"]["families"]
    text = [
        "| family | class | parameters | fp32 | fp64 | derived in |",
        "|---|---|---|---|---|---|",
    ]
    for card in read_cards(root).values():
        rows = families[card.family]
        exact = [row.get("float64, mended", row["float64"]) for row in rows]
        cells = [
            f"[{card.title}](/book/cards/{card.family}.md)",
            f"`{card.model_class.__name__}`",
            f"{count_parameters(card.model, tuple(card.config.items())) / 1e6:.0f} M",
            error(max(row["float32"] for row in rows)),
            error(max(exact)),
            chapter_link(card, chapters),
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def class_tables(app: Sphinx, doctree: nodes.document) -> None:
    """Give a card's tables a class; its sections are not among the nodes that it returns."""
    if doctree.get("model-card"):
        for table in doctree.findall(nodes.table):
            table["classes"].append("model-card")


class ModelCard(SphinxDirective):
    """One family."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.app.srcdir)
        cards = read_cards(root)
        family = self.arguments[0]
        if family not in cards:
            raise self.error(f"model-card: expected one of {', '.join(cards)}, got {family!r}")
        card = cards[family]
        for path in (CARDS, PARITY, LAYOUTS, card.path):
            self.env.note_dependency(path)
        self.state.document["model-card"] = True
        return self.parse_text_to_nodes(
            card_text(root, card, self.env.found_docs), allow_section_headings=True
        )


class ModelCards(SphinxDirective):
    """All families."""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.app.srcdir)
        for path in (CARDS, PARITY, *(card.path for card in read_cards(root).values())):
            self.env.note_dependency(path)
        parts = self.parse_text_to_nodes(cards_text(root, self.env.found_docs))
        for table in (table for part in parts for table in part.findall(nodes.table)):
            table["classes"].append("model-cards")
        return parts


def setup(app: Sphinx) -> None:
    app.add_directive("model-card", ModelCard)
    app.add_directive("model-cards", ModelCards)
    app.connect("doctree-read", class_tables)
