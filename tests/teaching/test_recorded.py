"""Recorded results: what is written comes back, and what is missing is named in one line."""

import datetime
import json
import platform
import re

import pytest
import torch

from lib.teaching import recorded as module
from lib.teaching.recorded import FIELDS, FOLDER, RecordError, earlier, record, recorded

RUN = {
    "command": "python book/experiments/some.py --steps 3",
    "hardware": "2 CPU cores, one thread used",
    "seconds": 150.56,
    "settings": {"steps": 3},
    "results": {"loss": [1.5, 1.25]},
}


def written(folder, **changes):
    record(folder / "some.json", **{**RUN, **changes})
    return folder / "some.json"


def test_what_is_recorded_comes_back(tmp_path):
    written(tmp_path)
    got = recorded("some", folder=tmp_path)
    assert list(got) == list(FIELDS)
    assert {k: got[k] for k in ("command", "hardware", "settings", "results")} == {
        k: RUN[k] for k in ("command", "hardware", "settings", "results")
    }
    assert got["seconds"] == 150.6
    assert got["date"] == datetime.date.today().isoformat()
    assert (got["python"], got["torch"]) == (platform.python_version(), torch.__version__)


def test_two_lines_say_where_it_is_from(tmp_path, capsys):
    path = written(tmp_path)
    path.write_text(path.read_text().replace(datetime.date.today().isoformat(), "2026-11-25"))
    recorded("some", folder=tmp_path)
    assert capsys.readouterr().out == (
        "recorded 2026-11-25, in 3 minutes, on 2 CPU cores, one thread used,\n"
        f"torch {torch.__version__}, by `python book/experiments/some.py --steps 3`\n"
    )


def test_the_folder_is_the_books(monkeypatch, tmp_path):
    assert FOLDER.parts[-2:] == ("book", "experiments") and FOLDER.is_dir()
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    written(tmp_path)
    assert recorded("some")["results"] == RUN["results"]


def test_written_at_once_or_not_at_all(tmp_path, monkeypatch):
    path = written(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        written(tmp_path, results={"loss": float("nan")})

    def fails(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(module.os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        written(tmp_path, results={"loss": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["some.json"]


def test_a_folder_is_made(tmp_path):
    record(tmp_path / "new" / "er" / "some.json", **RUN)
    assert recorded("some", folder=tmp_path / "new" / "er")["results"] == RUN["results"]


def test_a_line_to_a_field_so_that_a_change_is_read_as_one(tmp_path):
    lines = written(tmp_path).read_text().splitlines()
    assert lines[0] == "{" and lines[1] == f' "command": "{RUN["command"]}",'


def expect_failure(folder, message):
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$"):
        recorded("some", folder=folder)


def test_a_missing_file_names_its_script(tmp_path):
    expect_failure(tmp_path, "some.json: expected a recorded result, found none; run some.py")


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(tmp_path, field):
    path = written(tmp_path)
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(content))
    expect_failure(tmp_path, f"some.json: expected the field {field!r}, found none")


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("command", "", "str"),
        ("date", 20261125, "str"),
        ("seconds", "125", "float"),
        ("seconds", True, "float"),
        ("settings", [], "dict"),
        ("results", {}, "dict"),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path, field, value, kind):
    path = written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    expect_failure(
        tmp_path, f"some.json: expected {field!r} to be a {kind}, not empty, got {value!r}"
    )


def test_whole_seconds_are_seconds(tmp_path):
    path = written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 0}))
    assert recorded("some", folder=tmp_path)["seconds"] == 0


def test_what_is_no_record(tmp_path):
    (tmp_path / "some.json").write_text("{\n  1}")
    expect_failure(tmp_path, "some.json: expected JSON, got an error at line 2")
    (tmp_path / "some.json").write_text("[1]")
    expect_failure(tmp_path, "some.json: expected a JSON object, got list")


# Going on where a run was stopped


def test_without_a_file_there_is_nothing_to_go_on_from(tmp_path):
    assert earlier(tmp_path / "some.json", {"steps": 3}) is None


def test_what_a_stopped_run_has_written_comes_back_without_a_word(tmp_path, capsys):
    path = written(tmp_path, settings={"sizes": [2, 3], "seeds": [0]})
    got = earlier(path, {"sizes": (2, 3), "seeds": [0, 1]}, but=["seeds"], loss=(1.5, 1.25))
    assert got["results"] == RUN["results"] and got["seconds"] == 150.6
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "same", "message"),
    [
        ({"steps": 4}, {}, "steps = 4, got those of 3"),
        ({}, {}, "steps = None, got those of 3"),
        ({"steps": 3, "rate": 0.1}, {}, "rate = 0.1, got those of None"),
        ({"steps": 3}, {"loss": [1.5]}, "loss = [1.5], got those of [1.5, 1.25]"),
        ({"steps": 3}, {"text": "0f"}, "text = '0f', got those of None"),
    ],
)
def test_results_of_another_run_are_refused(tmp_path, settings, same, message):
    path = written(tmp_path)
    kept = path.read_bytes()
    with pytest.raises(RecordError) as caught:
        earlier(path, settings, **same)
    assert str(caught.value) == (
        f"some.json: expected results of {message}; remove the file to begin anew"
    )
    assert path.read_bytes() == kept


def test_a_file_that_is_not_whole_is_no_earlier_run(tmp_path):
    path = tmp_path / "some.json"
    path.write_text("{}")
    with pytest.raises(RecordError, match=r"some\.json: expected the field 'command', found none"):
        earlier(path, {})
