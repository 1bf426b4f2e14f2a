"""`{benchmarks}`: what `make bench` measured, and whether it is what was to be reached.

Drawn from the files of book/benchmarks, one a machine, and from tests/benchmarks/rows.yml, which
says what is compared. The header of a chapter takes from `chapters_cuda.json` what it needs on a
GPU. See `records` for what a file must say; one that doesn't ends the build with one line.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from .book import CHAPTER, minutes
from .inline import parse_inline
from .records import (
    FOLDER,
    QUANTITIES,
    ROWS,
    RecordError,
    Row,
    read_benchmarks,
    read_chapters,
    read_rows,
)

PAGE = "book/benchmarks"
CHAPTERS_FILE = "chapters_cuda.json"
TITLES = {"cpu": "On a CPU", "cuda": "On a GPU"}


def files(root: Path) -> list[Path]:
    """What the page is drawn from, rows.yml first."""
    return [root / ROWS, *sorted((root / FOLDER).glob("*.json"))]


def benchmarks_text(root: Path) -> str:
    """The page below its introduction, as MyST."""
    rows = read_rows(root / ROWS)
    text: list[str] = []
    measured = set()
    for path in files(root)[1:]:
        if not path.name.startswith("chapters_"):
            content = read_benchmarks(path, rows)
            measured.add(content["device"])
            text += section(content, rows)
    for device, title in TITLES.items():
        if device not in measured:
            option = "" if device == "cpu" else f" DEVICE={device}"
            text += [
                f"## {title}",
                "",
                f"Not measured {'yet' if device == 'cpu' else 'on CUDA yet'}: there is no "
                f"`{FOLDER}/{device}.json`. `make bench{option}` writes it, on a machine that has "
                f"what it takes. What would be measured there:",
                "",
            ]
            for row in rows.values():
                if device in row.devices:
                    target = f"{row.sense} {row.target(device):g}"
                    text.append(f"- {row.work} against {row.peer}: {target}")
            text.append("")
    return "\n".join(text) + "\n"


def section(content: Mapping[str, Any], rows: Mapping[str, Row]) -> list[str]:
    """One machine's part of the page."""
    device, found = content["device"], content["rows"]
    machine = content["machine"]
    met = sum(row["met"] for row in found.values())
    title = TITLES[device] + (f": {machine['name']}" if device == "cuda" else "")
    where = machine["name"]
    if machine["processor"] != where:
        where += f" beside {machine['processor']}"
    packages = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    text = [
        f"## {title}",
        "",
        f"{met} of the {len(found)} targets that were measured are met. {origin(found.values())} "
        f"Machine: {where}, {machine['cores']} cores, {threads}. Versions: {packages}.",
        "",
        "```{raw} html",
        bars(found, rows, device),
        "```",
        "",
        "```{table}",
        ":class: benchmarks",
        "",
        "| work, against whom | ratio | middle half | target | met |",
        "|---|---|---|---|---|",
    ]
    for key, row in rows.items():
        if key in found:
            result = found[key]
            low, high = result["quartiles"] or (None, None)
            spread = "–" if low is None else f"{number(low)} to {number(high)}"
            verdict = "yes" if result["met"] else "**no**"
            cells = [
                f"{row.work}, against {row.peer}",
                f"{number(result['ratio'])} {QUANTITIES[row.quantity]}".strip(),
                spread,
                f"{row.sense} {result['target']:g}",
                verdict,
            ]
            text.append("| " + " | ".join(cells) + " |")
    text += ["```", "", *_missed(found, rows, device), "### How each was measured", ""]
    for key, row in rows.items():
        if key in found:
            text.append(f"- **{row.work}** against {row.peer}: {row.how}. {details(found[key])}")
    text.append("")
    if content["absent"]:
        text += ["### Not measured here", ""]
        for key in rows:
            if key in content["absent"]:
                row = rows[key]
                text.append(f"- {row.work} against {row.peer}: {content['absent'][key]}")
        text.append("")
    return text


def _missed(found: Mapping[str, Any], rows: Mapping[str, Row], device: str) -> Iterator[str]:
    missed = [key for key in rows if key in found and not found[key]["met"]]
    if not missed:
        return
    yield from ("### Missed, and why", "")
    for key in missed:
        row, result = rows[key], found[key]
        reason = row.missed.get(device, "No reason is written yet.")
        yield (
            f"- **{row.work}** against {row.peer}: {number(result['ratio'])} where "
            f"{row.sense} {result['target']:g} was to be reached. {reason}"
        )
    yield ""


def origin(found: Any) -> str:
    """When, and from which commit; several where the run was made in parts."""
    dates = sorted({row["date"] for row in found})
    commits = sorted({row["commit"] for row in found if not row["dirty"]})
    dirty = sorted({row["commit"] for row in found if row["dirty"]})
    if not dates:
        return "Nothing was measured yet."
    text = f"Measured {' and '.join(dates)}"
    if commits:
        many = "commits" if len(commits) > 1 else "commit"
        text += f" from {many} {', '.join(f'`{commit}`' for commit in commits)}"
    if dirty:
        more = ", in part" if commits else ""
        text += f"{more} from code that was not committed, after {', '.join(map(code, dirty))}"
    return text + "."


def code(text: str) -> str:
    return f"`{text}`"


def details(result: Mapping[str, Any]) -> str:
    """The medians, the rounds, and what was found equal."""
    parts = []
    if result["ours"] is not None:
        ours = amount(result["ours"], result["unit"])
        theirs = result["theirs"]
        parts.append(
            f"ours {ours}"
            + ("" if theirs is None else f", theirs {amount(theirs, result['unit'])}")
        )
    if result["rounds"] > 1:
        parts.append(f"{result['rounds']} rounds")
    if result["difference"] is not None:
        parts.append(
            f"difference {result['difference']:.1e} (allowed {result['tolerance']:.0e})"
            if result["difference"]
            else "no difference"
        )
    if result["note"]:
        parts.append(result["note"])
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def amount(value: float, unit: str) -> str:
    """A median as a reader would say it."""
    if unit == "s" and value < 1:
        return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"
    if unit == "MiB":
        return f"{value:,.0f} MiB" if value >= 10 else f"{value:.2g} MiB"
    return f"{value:.3g} {unit}".strip()


def number(value: float) -> str:
    """A ratio with about three digits."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


# Bars


def score(row: Row, ratio: float, device: str) -> float:
    """How far beyond its target, as a factor: 1 is the target, more is better."""
    target = row.target(device)
    return target / ratio if row.sense == "at most" else ratio / target


def bars(found: Mapping[str, Any], rows: Mapping[str, Row], device: str) -> str:
    """Every result relative to its target, on a logarithmic scale; in words too."""
    entries = [(row, found[key]) for key, row in rows.items() if key in found]
    if not entries:
        return ""
    scores = [score(row, result["ratio"], device) for row, result in entries]
    low = min(0.5, *scores) / 1.05
    high = max(2.0, *scores) * 1.05

    def place(x: float) -> float:
        share = (math.log(x) - math.log(low)) / (math.log(high) - math.log(low))
        return 100 * min(1.0, max(0.0, share))

    line = place(1.0)
    lines = ['<figure class="bench-bars"><ul>']
    for (row, result), x in zip(entries, scores, strict=True):
        start, end = sorted((line, place(x)))
        words = (
            f"{number(x)} × its target" if result["met"] else f"{number(x)} × its target, missed"
        )
        whiskers = ""
        if result["quartiles"]:
            left, right = sorted(place(score(row, q, device)) for q in result["quartiles"])
            whiskers = (
                f'<span class="bench-spread" style="left:{left:.1f}%;'
                f'width:{max(right - left, 0.3):.1f}%"></span>'
            )
        kind = "met" if result["met"] else "missed"
        lines.append(
            f'<li><span class="bench-work">{plain(row.work)} <span class="bench-peer">against '
            f'{plain(row.peer)}</span></span> <span class="bench-score">{words}</span>'
            f'<span class="bench-track" aria-hidden="true">'
            f'<span class="bench-bar bench-{kind}" style="left:{start:.1f}%;'
            f'width:{max(end - start, 0.5):.1f}%"></span>{whiskers}'
            f'<span class="bench-target" style="left:{line:.1f}%"></span></span></li>'
        )
    lines.append(
        "</ul><figcaption>How far each result is beyond its target, on a logarithmic scale. The "
        "upright line is the target; a bar to its right reaches it, a striped one to its left "
        "misses it. The thin line across a bar’s end is the middle half of the rounds."
        "</figcaption></figure>"
    )
    return "\n".join(lines)


def plain(text: str) -> str:
    """Short Markdown as HTML."""
    return "".join(
        f"<code>{escape(node.astext())}</code>"
        if isinstance(node, nodes.literal)
        else escape(node.astext())
        for node in parse_inline(text)
    )


# On a GPU, in a chapter's header


def on_device(root: Path, docname: str) -> str | None:
    """What a chapter took on CUDA; None where that was not measured."""
    path = root / FOLDER / CHAPTERS_FILE
    if not path.exists():
        return None
    content = read_chapters(path)
    measured = content["chapters"].get(docname.rpartition("/")[2])
    if measured is None:
        return None
    return (
        f"{minutes(measured['seconds'])} and at most {memory(measured['peak_bytes'])} of its memory"
        f" on one {content['machine']['name']}, every assertion holding, {content['date']}"
    )


def memory(count: int) -> str:
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{max(1, round(count / 2**20))} MiB"


class Benchmarks(SphinxDirective):
    """Every machine's results."""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.app.srcdir)
        for path in files(root):
            self.env.note_dependency(str(path.relative_to(root)))
        try:
            text = benchmarks_text(root)
        except RecordError as error:
            raise self.error(f"benchmarks: {error}") from None
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def outdated(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """The page, and the chapters' headers, where a file has come, gone or changed."""
    root = Path(app.srcdir)
    state = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files(root)
        if path.exists()
    }
    before = getattr(env, "bookext_benchmarks", {})
    env.bookext_benchmarks = state
    if state == before:
        return []
    again = {PAGE} & env.found_docs
    if state.get(CHAPTERS_FILE) != before.get(CHAPTERS_FILE):
        again |= {name for name in env.found_docs if CHAPTER.fullmatch(name)}
    return sorted(again)


def check_chapters_file(app: Sphinx) -> None:
    """One line instead of a traceback from the first chapter's header."""
    path = Path(app.srcdir) / FOLDER / CHAPTERS_FILE
    if path.exists():
        try:
            read_chapters(path)
        except RecordError as error:
            raise ExtensionError(str(error)) from None


def setup(app: Sphinx) -> None:
    app.add_directive("benchmarks", Benchmarks)
    app.connect("builder-inited", check_chapters_file)
    app.connect("env-get-outdated", outdated)
