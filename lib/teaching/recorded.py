"""Results of runs too long for a chapter: read from a file in the repository, with their origin.

A script in `book/experiments/` writes `NAME.json` beside itself, by `record`; a chapter reads it by
`recorded("NAME")`, which prints when, on what and by which command it was made.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["FIELDS", "RecordError", "record", "recorded"]

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
    """Read `book/experiments/NAME.json`, print one line that says where it is from, return it.

    The line is the same in every run. RecordError, in one line, if the file is missing, is no JSON
    object, or a field of `FIELDS` is missing, of another type, or empty.
    """
    path = (FOLDER if folder is None else folder) / f"{name}.json"
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
    minutes = content["seconds"] / 60
    print(
        f"recorded {content['date']} on {content['hardware']}, torch {content['torch']}, "
        f"in {minutes:.0f} minutes, by `{content['command']}`"
    )
    return content
