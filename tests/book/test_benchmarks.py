"""The page of benchmarks, the files that it is drawn from, and the tools that write them."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
from sphinx.errors import ExtensionError

from book._ext.bookext import benchmarks, header, records
from book._ext.bookext.records import RecordError, Row, check_benchmarks, check_chapters
from book.tools import chapters_on_device, time_the_book
from tests.repository import clean_environment

ROOT = Path(__file__).parents[2]
ROWS = records.read_rows(ROOT / records.ROWS)
RECORDED = sorted(
    path for path in (ROOT / records.FOLDER).glob("*.json") if not path.stem.startswith("chapters_")
)

RESULT = {
    "ratio": 2.5,
    "quartiles": [2.2, 2.8],
    "ours": 0.012,
    "theirs": 0.03,
    "unit": "s",
    "rounds": 21,
    "target": 2.0,
    "sense": "at least",
    "met": True,
    "difference": 3e-7,
    "tolerance": 1e-5,
    "note": "",
    "commit": "0123456789ab",
    "dirty": False,
    "date": "2026-11-27",
}
SMALL = RESULT | {
    "ratio": 0.6,
    "quartiles": [],
    "target": 0.5,
    "sense": "at most",
    "met": False,
    "ours": 300,
    "theirs": 500,
    "unit": "MiB",
    "rounds": 1,
    "difference": None,
    "tolerance": None,
}
FILE = {
    "device": "cpu",
    "machine": {"name": "a CPU", "processor": "a CPU", "cores": 2, "threads": 1},
    "versions": {"python": "3.11", "torch": "2.13", "peer": "1.0"},
    "rows": {"fast": RESULT, "small": SMALL},
    "absent": {"gpu": "only on cuda"},
}
YAML = """\
fast: {work: "`f` < g", peer: "`peer.f`", how: equal outputs, quantity: speed, at_least: 2}
small:
  work: memory of `f`
  peer: "`peer.f`"
  how: peaks
  quantity: memory
  at_most: 0.5
  missed: {cpu: It keeps a copy., cuda: Another reason.}
gpu: {work: "`h`", peer: a kernel, how: none, quantity: speed, at_least: 1, devices: [cuda]}
"""


@pytest.fixture
def small(tmp_path):
    """A repository with three rows and one file of results."""
    (tmp_path / "tests" / "benchmarks").mkdir(parents=True)
    (tmp_path / records.ROWS).write_text(YAML)
    (tmp_path / records.FOLDER).mkdir(parents=True)
    write(tmp_path, FILE)
    return tmp_path


def write(root: Path, content, name: str = "cpu.json") -> None:
    (root / records.FOLDER / name).write_text(json.dumps(content))


def rows_of(root: Path) -> dict[str, Row]:
    return records.read_rows(root / records.ROWS)


# --- the files ------------------------------------------------------------------------------------


def test_every_row_says_what_is_compared():
    assert len(ROWS) > 15
    for row in ROWS.values():
        assert row.work and row.peer and len(row.how) > 30
        assert "|" not in row.work + row.peer
        assert not row.how.endswith(".")  # the page goes on with the figures


def test_every_row_is_measured_by_one_test():
    text = "\n".join(
        path.read_text("utf8") for path in (ROOT / "tests" / "benchmarks").glob("test_*.py")
    )
    patterns = {key: key for key in ROWS} | {
        # where a test is parametrized over the rest of the name
        key: re.escape(stem) + r"\{\w+\}"
        for key in ROWS
        for stem in ("sliding_window-", "flash_attention-", "gpt2-step-", "checkpoint-", "lime-")
        if key.startswith(stem) and f'"{key}"' not in text
    }
    unmeasured = [key for key, pattern in patterns.items() if not re.search(pattern, text)]
    assert unmeasured == ["whole-book"]  # by its own command
    assert (ROOT / ROWS["whole-book"].command.split()[1]).exists()


def test_something_is_recorded():
    assert "cpu" in [path.stem for path in RECORDED]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_file_is_whole_and_every_miss_explained(path):
    content = records.read_benchmarks(path, ROWS)
    device = content["device"]
    missed = [key for key, row in content["rows"].items() if not row["met"]]
    assert [key for key in missed if len(ROWS[key].missed.get(device, "")) < 40] == []
    assert {key for key in content["absent"] if device not in ROWS[key].devices} == {
        key for key, row in ROWS.items() if device not in row.devices
    }


def changed(**changes):
    content = copy.deepcopy(FILE)
    for path, value in changes.items():
        *folders, last = path.split("__")
        place = content
        for name in folders:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return content


WRONG = [
    ([], "cpu.json: expected a JSON object, got list"),
    (changed(device=None), "cpu.json: expected the field 'device', found none"),
    (changed(device="tpu"), "cpu.json: expected a device of cpu, cuda, got 'tpu'"),
    (changed(rows=[]), "cpu.json: expected 'rows' to be a dict, got []"),
    (changed(machine__cores=None), "cpu.json: expected machine.cores, found none"),
    (changed(versions__torch=None), "cpu.json: expected versions.torch, found none"),
    (
        changed(rows__other=RESULT),
        "cpu.json: expected no row 'other', as rows.yml has none; run make bench again",
    ),
    (
        changed(rows__fast=None),
        "cpu.json: expected a row 'fast', found none; run make bench again",
    ),
    (
        changed(rows__fast__ratio=None),
        "cpu.json: fast: expected the field 'ratio', found none",
    ),
    (
        changed(rows__fast__ratio="2.5"),
        "cpu.json: fast: expected 'ratio' to be a float, got '2.5'",
    ),
    (
        changed(rows__fast__rounds=True),
        "cpu.json: fast: expected 'rounds' to be a int, got True",
    ),
    (changed(rows__fast__ratio=-1), "cpu.json: fast: expected a ratio above 0, got -1"),
    (
        changed(rows__fast__quartiles=[1]),
        "cpu.json: fast: expected two quartiles or none, got [1]",
    ),
    (
        changed(rows__fast__target=1.5),
        "cpu.json: fast: expected the target 2.0 of rows.yml, got 1.5; run make bench again",
    ),
    (
        changed(rows__small__met=True),
        "cpu.json: small: expected met = False at a ratio of 0.6",
    ),
    (
        changed(rows__fast__difference=0.1),
        "cpu.json: fast: expected a difference of at most 1e-05, got 0.1",
    ),
    (
        changed(absent__gpu=""),
        "cpu.json: gpu: expected a reason for its absence, got none",
    ),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_file_that_is_stale_or_not_whole_gives_one_line(small, content, message):
    write(small, content)
    with pytest.raises(RecordError) as error:
        benchmarks.benchmarks_text(small)
    assert str(error.value) == message


def test_a_whole_file_passes(small):
    check_benchmarks("cpu.json", FILE, rows_of(small))
    assert records.read_benchmarks(small / records.FOLDER / "cpu.json", rows_of(small)) == FILE


def test_a_file_that_is_no_json_gives_one_line(small):
    (small / records.FOLDER / "cpu.json").write_text('{\n"device": }')
    with pytest.raises(RecordError, match=r"^cpu.json: expected JSON, got an error at line 2$"):
        benchmarks.benchmarks_text(small)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{work: a, peer: b, how: c, quantity: speed}", "x: expected either at_least or at_most"),
        (
            "{work: a, peer: b, how: c, quantity: charm, at_least: 1}",
            "x: expected a quantity of speed, time, memory, growth, minutes, got 'charm'",
        ),
        (
            "{work: a, peer: b, how: c, quantity: speed, at_least: 1, devices: [tpu]}",
            "x: expected devices of cpu, cuda, got tpu",
        ),
        ("{work: a, peer: b, how: c, quantity: speed, at_lest: 1}", "at_lest"),
    ],
)
def test_a_wrong_row_gives_one_line(tmp_path, row, message):
    (tmp_path / "rows.yml").write_text(f"x: {row}\n")
    with pytest.raises(RecordError) as error:
        records.read_rows(tmp_path / "rows.yml")
    assert message in str(error.value) and "\n" not in str(error.value)


# --- the page -------------------------------------------------------------------------------------


def cells(text: str, first: str) -> list[str]:
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    (found,) = [row for row in rows if row[0] == first]
    return found


def test_the_table(small):
    text = benchmarks.benchmarks_text(small)
    want = ["2.50 × speed", "2.20 to 2.80", "at least 2", "yes"]
    assert cells(text, "`f` < g, against `peer.f`")[1:] == want
    want = ["0.60 × memory", "–", "at most 0.5", "**no**"]
    assert cells(text, "memory of `f`, against `peer.f`")[1:] == want
    assert "1 of the 2 targets that were measured are met." in text
    assert "Measured 2026-11-27 from commit `0123456789ab`." in text
    assert (
        "Machine: a CPU, 2 cores, one thread. Versions: python 3.11, torch 2.13, peer 1.0" in text
    )


def test_a_reason_is_shown_where_a_target_is_missed(small):
    text = benchmarks.benchmarks_text(small)
    want = (
        "- **memory of `f`** against `peer.f`: 0.60 where at most 0.5 was to be reached. It keeps"
    )
    assert want in text and "Another reason" not in text
    write(small, changed(rows__small__ratio=0.4, rows__small__met=True))
    assert "It keeps a copy" not in benchmarks.benchmarks_text(small)
    assert "Missed, and why" not in benchmarks.benchmarks_text(small)


def test_what_was_not_measured_is_named_and_is_no_zero(small):
    text = benchmarks.benchmarks_text(small)
    assert "### Not measured here\n\n- `h` against a kernel: only on cuda" in text
    after = text.partition("## On a GPU")[2]
    assert "Not measured on CUDA yet: there is no `book/benchmarks/cuda.json`." in after
    assert "- `h` against a kernel: at least 1" in after
    gpu = changed(device="cuda", machine__name="NVIDIA X", rows__gpu=RESULT | {"target": 1.0})
    del gpu["absent"]["gpu"]
    write(small, gpu, "cuda.json")
    text = benchmarks.benchmarks_text(small)
    assert "Not measured on CUDA" not in text
    assert "## On a GPU: NVIDIA X" in text and "NVIDIA X beside a CPU" in text
    assert "Another reason" in text  # cuda's own


def test_without_any_file_the_page_says_so(small):
    (small / records.FOLDER / "cpu.json").unlink()
    text = benchmarks.benchmarks_text(small)
    assert "Not measured yet: there is no `book/benchmarks/cpu.json`." in text


def test_details():
    assert benchmarks.details(RESULT) == (
        "Ours 12 ms, theirs 30 ms; 21 rounds; difference 3.0e-07 (allowed 1e-05)."
    )
    assert benchmarks.details(SMALL | {"note": "one call"}) == (
        "Ours 300 MiB, theirs 500 MiB; one call."
    )
    assert benchmarks.details(RESULT | {"difference": 0, "ours": None}) == (
        "21 rounds; no difference."
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([RESULT], "Measured 2026-11-27 from commit `0123456789ab`."),
        (
            [RESULT, RESULT | {"commit": "b", "date": "2026-11-28"}],
            "Measured 2026-11-27 and 2026-11-28 from commits `0123456789ab`, `b`.",
        ),
        (
            [RESULT, RESULT | {"commit": "b", "dirty": True}],
            "Measured 2026-11-27 from commit `0123456789ab`, in part from code that was not "
            "committed, after `b`.",
        ),
        ([], "Nothing was measured yet."),
    ],
)
def test_where_figures_are_from(rows, words):
    assert benchmarks.origin(rows) == words


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0123, "s", "12.3 ms"),
        (2.5e-5, "s", "25 µs"),
        (3.14159, "s", "3.14 s"),
        (1234.5, "MiB", "1,234 MiB"),
        (9.5, "minutes", "9.5 minutes"),
    ],
)
def test_an_amount_in_words(value, unit, words):
    assert benchmarks.amount(value, unit) == words


def test_bars_begin_at_the_target_and_say_in_words_what_they_show(small):
    html = benchmarks.bars(FILE["rows"], rows_of(small), "cpu")
    bar = r'bench-bar bench-(\w+)" style="left:([\d.]+)%;width:([\d.]+)%'
    target = float(re.search(r'bench-target" style="left:([\d.]+)%', html)[1])
    (one, left, width), (other, left_2, width_2) = re.findall(bar, html)
    assert (one, other) == ("met", "missed")
    assert float(left) == target and float(width) > 0  # to the right
    assert float(left_2) < target
    assert float(left_2) + float(width_2) == pytest.approx(target, abs=0.2)
    said = unescape(" ".join(re.sub(r"<[^>]+>", " ", html).split()))
    assert "f < g against peer.f 1.25 × its target" in said
    assert "memory of f against peer.f 0.83 × its target, missed" in said
    assert html.count('aria-hidden="true"') == 2 and "<code>f</code> &lt; g" in html
    assert benchmarks.bars({}, rows_of(small), "cpu") == ""


def test_the_page_is_in_the_book():
    assert "      - file: book/benchmarks\n" in (ROOT / "book" / "_toc.yml").read_text("utf8")
    page = (ROOT / "book" / "benchmarks.md").read_text("utf8")
    assert "```{benchmarks}\n```" in page and "make bench DEVICE=cuda" in page


# --- chapters on a device -------------------------------------------------------------------------

CHAPTERS = {
    "device": "cuda",
    "machine": {"name": "NVIDIA X"},
    "versions": {"torch": "2.11"},
    "date": "2026-11-27",
    "commit": "0123456789ab",
    "chapters": {"02_attention": {"seconds": 150.0, "peak_bytes": 3 * 2**29}},
}


def test_a_header_says_what_a_chapter_takes_on_a_gpu(small):
    assert benchmarks.on_device(small, "chapters/02_attention") is None
    write(small, CHAPTERS, "chapters_cuda.json")
    assert benchmarks.on_device(small, "chapters/02_attention") == (
        "2.5 min and at most 1.5 GiB of its memory on one NVIDIA X, every assertion holding, "
        "2026-11-27"
    )
    assert benchmarks.on_device(small, "chapters/03_multi_head") is None
    assert benchmarks.memory(5 * 2**20) == "5 MiB"
    benchmarks.benchmarks_text(small)  # which leaves that file alone


def test_the_header_shows_it(small):
    name = "chapters/02_attention"
    book = {"question": "Why?", "goals": ["see"], "prerequisites": []}
    book |= {"hardware": "one core", "data": "none"}
    options = {"repository_url": "https://github.com/o/n", "repository_branch": "main"}
    app = SimpleNamespace(
        srcdir=small,
        env=SimpleNamespace(metadata={name: {"book": json.dumps(book)}}, found_docs=set()),
        config=SimpleNamespace(html_theme_options=options, bookext_publish_branch="pages"),
    )
    assert "On a GPU" not in header.header(app, name).astext()
    write(small, CHAPTERS, "chapters_cuda.json")
    said = header.header(app, name).astext()
    assert "On a GPU\n\n2.5 min and at most 1.5 GiB" in said
    write(small, CHAPTERS | {"date": 3}, "chapters_cuda.json")
    with pytest.raises(ExtensionError, match=r"^chapters_cuda.json: expected 'date' to be a str"):
        benchmarks.check_chapters_file(app)


def test_a_page_is_read_again_when_a_file_came_changed_or_went(small):
    documents = {"book/benchmarks", "book/map", "chapters/02_attention"}
    app, env = SimpleNamespace(srcdir=small), SimpleNamespace(found_docs=documents)

    def again():
        return benchmarks.outdated(app, env, set(), set(), set())

    assert again() == ["book/benchmarks"]
    assert again() == []
    write(small, FILE | {"device": "cuda"}, "cuda.json")
    assert again() == ["book/benchmarks"]
    write(small, CHAPTERS, "chapters_cuda.json")
    assert again() == ["book/benchmarks", "chapters/02_attention"]
    (small / records.ROWS).write_text(YAML + "# a comment\n")
    assert again() == ["book/benchmarks"]
    (small / records.FOLDER / "chapters_cuda.json").unlink()
    assert again() == ["book/benchmarks", "chapters/02_attention"]
    assert again() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"date": None}, "c: expected 'date' to be a str, got None"),
        ({"machine": {}}, "c: expected machine.name, found none"),
        (
            {"chapters": {"02_attention": {"seconds": 1.0}}},
            "c: 02_attention: expected the field 'peak_bytes', found none",
        ),
        (
            {"chapters": {"02_attention": {"seconds": 0.0, "peak_bytes": 1}}},
            "c: 02_attention: expected seconds above 0, got 0.0",
        ),
    ],
)
def test_a_record_of_chapters_that_is_not_whole_gives_one_line(change, message):
    with pytest.raises(RecordError) as error:
        check_chapters("c", CHAPTERS | change)
    assert str(error.value) == message


CHAPTER = """\
import torch
x = torch.ones(3_000_000, dtype=torch.float64)
assert x.sum() == 3_000_000, "the sum"
print("done")
"""


def on_device(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    tool = ROOT / "book" / "tools" / "chapters_on_device.py"
    command = [sys.executable, tool, "--folder", folder, "--output", folder / "out.json"]
    return subprocess.run(
        [str(part) for part in (*command, *arguments)],
        capture_output=True,
        text=True,
        env=clean_environment(),
    )


def test_chapters_are_run_and_recorded(tmp_path):
    (tmp_path / "01_one.py").write_text(CHAPTER)
    (tmp_path / "02_wrong.py").write_text(CHAPTER.replace("== 3", "== 4"))
    run = on_device(tmp_path, "--device", "cpu")
    assert run.returncode == 1, run.stderr
    one, wrong = run.stdout.splitlines()
    assert re.fullmatch(r"01_one: \d+ s, \d+ MiB", one)
    assert wrong == "02_wrong: failed: AssertionError: the sum"
    content = records.read_chapters(tmp_path / "out.json")
    assert content["device"] == "cpu" and content["versions"]["torch"]
    assert content["chapters"].keys() == {"01_one"}
    assert content["chapters"]["01_one"]["peak_bytes"] > 24_000_000


def test_a_gpu_that_is_not_there_and_a_chapter_that_is_not_give_one_line(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ["--folder", str(tmp_path), "--output", str(tmp_path / "out.json")]
    assert chapters_on_device.main(arguments) == 1
    with pytest.raises(ValueError, match=r"expected chapters of .*, got 09_none"):
        chapters_on_device.chapters(["09_none"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_peak_survives_a_chapter_that_resets_it(tmp_path, monkeypatch, capsys):
    """As a chapter that measures memory does; with a GPU made of four functions."""
    import torch

    peak = {"now": 0}
    fakes = {
        "init": lambda: None,
        "synchronize": lambda: None,
        "max_memory_allocated": lambda: peak["now"],
        "reset_peak_memory_stats": lambda: peak.update(now=0),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(sys, "_peak", peak, raising=False)
    chapter = tmp_path / "01_one.py"
    chapter.write_text(
        "import sys, torch\nsys._peak['now'] = 700\ntorch.cuda.reset_peak_memory_stats()\n"
        "sys._peak['now'] = 300\n"
    )
    chapters_on_device.run_here(chapter, "cuda")
    report = capsys.readouterr().out.removeprefix(chapters_on_device.MARK)
    assert json.loads(report)["peak_bytes"] == 700


# --- the whole book -------------------------------------------------------------------------------


def test_the_book_is_timed_from_clean(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for name in ("book/tools", ".venv/bin", "_build", "chapters"):
        (root / name).mkdir(parents=True)
    (root / "_build" / "old").touch()
    (root / "book" / "tools" / "build.sh").write_text(
        "[ -e chapters ] && [ -e .venv/bin ] && [ ! -e _build ] || exit 3\nsleep 0.3\n"
    )
    monkeypatch.setattr(time_the_book.os, "sched_setaffinity", lambda *_: None)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert 0.3 / 60 <= time_the_book.minutes_of_build(root, scratch) < 0.2
    (root / "book" / "tools" / "build.sh").write_text("exit 3\n")
    shutil.rmtree(scratch / "book")
    with pytest.raises(subprocess.CalledProcessError):
        time_the_book.minutes_of_build(root, scratch)
