"""Results of runs too long for a chapter: read from a file in the repository, with their origin.

A script in `book/experiments/` writes `NAME.json` beside itself, by `record`, and where it was
stopped goes on by `earlier`; a chapter reads the file by `recorded("NAME")`, which prints when, on
what and by which command it was made.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["FIELDS", "RecordError", "earlier", "record", "recorded"]

FOLDER = Path(__file__).resolve().parents[2] / "book" / "experiments"
# What every file says, and of what type; what was found stands in `results`.
FIELDS = {
    "command": str,  # that makes the file again, from the root of the repository
    "date": str,  # of the run's end, as 2026-11-25
    "python": str,
    "torch": str,
    "hardware": str,
    "seconds": float,
    "settings": dict,
    "results": dict,
}


class RecordError(ValueError):
    """A recorded file is missing, or lacks what it must say. The message is one line."""


def record(
    path: Path, *, command: str, hardware: str, seconds: float, settings: Mapping, results: Mapping
) -> None:
    """Write a result file, at once or not at all; date and versions are filled in.

    `settings` and `results` are what JSON can hold, without NaN and infinity (ValueError).
    """
    content = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hardware": hardware,
        "seconds": round(float(seconds), 1),
        "settings": dict(settings),
        "results": dict(results),
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        partial = Path(scratch) / path.name
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)


def recorded(name: str, *, folder: Path | None = None) -> dict[str, Any]:
    """Read `book/experiments/NAME.json`, print in a few lines where it is from, return it.

    They are the same in every run. RecordError, in one line, if the file is missing, is no JSON
    object, or a field of `FIELDS` is missing, of another type, or empty.
    """
    content = _read((FOLDER if folder is None else folder) / f"{name}.json")
    minutes = content["seconds"] / 60
    where = f"recorded {content['date']}, in {minutes:.0f} minutes, on {content['hardware']},"
    print(textwrap.fill(where, 80))  # as wide as the code of a page
    print(f"torch {content['torch']}, by `{content['command']}`")
    return content


def earlier(
    path: Path, settings: Mapping, *, but: Sequence[str] = (), **same: Any
) -> dict[str, Any] | None:
    """Return what a run that was stopped has written to `path`, to go on from; None without a file.

    RecordError, in one line, if its settings are not these (those named in `but` may differ), or if
    its results have another value of an entry of `same`: nothing is mixed, nothing overwritten.
    """
    if not path.exists():
        return None
    content = _read(path)
    wanted = json.loads(json.dumps({"settings": dict(settings), "results": same}))
    for place, want in wanted.items():
        found = content[place]
        names = (want.keys() | found.keys()) - set(but) if place == "settings" else want.keys()
        for name in sorted(names):
            if found.get(name) != want.get(name):
                raise RecordError(
                    f"{path.name}: expected results of {name} = {want.get(name)!r}, got those of "
                    f"{found.get(name)!r}; remove the file to begin anew"
                )
    return content


def _read(path: Path) -> dict[str, Any]:
    """The content of a file, with every field of `FIELDS`; RecordError as in `recorded`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        script = path.with_suffix(".py").name
        raise RecordError(
            f"{path.name}: expected a recorded result, found none; run {script}"
        ) from None
    except json.JSONDecodeError as error:
        raise RecordError(
            f"{path.name}: expected JSON, got an error at line {error.lineno}"
        ) from None
    if not isinstance(content, dict):
        raise RecordError(f"{path.name}: expected a JSON object, got {type(content).__name__}")
    for field, kind in FIELDS.items():
        if field not in content:
            raise RecordError(f"{path.name}: expected the field {field!r}, found none")
        value = content[field]
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or isinstance(value, bool) or (kind is not float and not value):
            raise RecordError(
                f"{path.name}: expected {field!r} to be a {kind.__name__}, not empty, got {value!r}"
            )
    return content
