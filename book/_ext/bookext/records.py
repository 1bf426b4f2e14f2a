"""What `make bench` and `chapters_on_device.py` measured: the files of book/benchmarks.

Needs neither Sphinx nor torch, as the machine with the GPU may have no more than the second.

tests/benchmarks/rows.yml says what is compared, with whom, and what is to be reached; NAME.json
what was found on one machine, a row for each that was measured and a reason for each that was not.
`chapters_NAME.json` holds seconds and peak memory of each chapter on one device.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = "book/benchmarks"
ROWS = "tests/benchmarks/rows.yml"
DEVICES = ("cpu", "cuda")
QUANTITIES = {  # what a ratio of each kind says
    "speed": "× speed",
    "time": "× time",
    "memory": "× memory",
    "growth": "",
    "minutes": "minutes",
}


class RecordError(ValueError):
    """A file lacks what it must say, or says it of something else. The message is one line."""


@dataclass(frozen=True)
class Row:
    """One comparison of rows.yml."""

    key: str
    work: str
    peer: str
    how: str  # sizes, and what was found equal before anything was timed
    quantity: str
    at_least: float | Mapping[str, float] | None = None
    at_most: float | Mapping[str, float] | None = None
    devices: tuple[str, ...] = DEVICES
    command: str = "make bench"  # what measures it
    missed: Mapping[str, str] = field(default_factory=dict)  # device: why its target is missed

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", tuple(self.devices))
        if (self.at_least is None) == (self.at_most is None):
            raise RecordError(f"rows.yml: {self.key}: expected either at_least or at_most")
        if self.quantity not in QUANTITIES:
            raise RecordError(
                f"rows.yml: {self.key}: expected a quantity of {', '.join(QUANTITIES)}, "
                f"got {self.quantity!r}"
            )
        if unknown := {*self.devices, *self.missed} - set(DEVICES):
            raise RecordError(
                f"rows.yml: {self.key}: expected devices of {', '.join(DEVICES)}, "
                f"got {', '.join(sorted(unknown))}"
            )

    @property
    def sense(self) -> str:
        return "at most" if self.at_least is None else "at least"

    def target(self, device: str) -> float:
        """What is to be reached on this device."""
        wanted = self.at_most if self.at_least is None else self.at_least
        return float(wanted[device] if isinstance(wanted, Mapping) else wanted)

    def met(self, ratio: float, device: str) -> bool:
        """Whether it is."""
        target = self.target(device)
        return ratio <= target if self.sense == "at most" else ratio >= target


# What every row of NAME.json says, and of what type.
MEASURED: dict[str, type | tuple[type, ...]] = {
    "ratio": float,
    "quartiles": list,  # of the ratios of single rounds; empty where there was one round
    "ours": (float, type(None)),  # median, in `unit`
    "theirs": (float, type(None)),
    "unit": str,
    "rounds": int,
    "target": float,
    "sense": str,
    "met": bool,
    "difference": (float, type(None)),  # between what the two computed; None: nothing to compare
    "tolerance": (float, type(None)),
    "note": str,
    "commit": str,
    "dirty": bool,  # whether what was measured differed from the commit
    "date": str,
}
WHOLE: dict[str, type] = {
    "device": str, "machine": dict, "versions": dict, "rows": dict, "absent": dict,
}  # fmt: skip
MACHINE = ("name", "processor", "cores", "threads")
CHAPTERS: dict[str, type] = {
    "device": str, "machine": dict, "versions": dict, "date": str, "commit": str, "chapters": dict,
}  # fmt: skip
CHAPTER: dict[str, type] = {"seconds": float, "peak_bytes": int}


def read_rows(path: Path) -> dict[str, Row]:
    """The comparisons of rows.yml, in its order."""
    content = yaml.safe_load(path.read_text("utf8"))
    try:
        return {key: Row(key, **entries) for key, entries in content.items()}
    except TypeError as error:
        raise RecordError(f"{path.name}: {error}") from None


def read_benchmarks(path: Path, rows: Mapping[str, Row]) -> dict[str, Any]:
    """NAME.json, after `check_benchmarks`."""
    content = _read(path)
    check_benchmarks(path.name, content, rows)
    return content


def check_benchmarks(name: str, content: Any, rows: Mapping[str, Row]) -> None:
    """RecordError unless it is whole, and measured what rows.yml asks for today."""
    _require(name, content, WHOLE)
    device = content["device"]
    if device not in DEVICES:
        raise RecordError(f"{name}: expected a device of {', '.join(DEVICES)}, got {device!r}")
    for entry in MACHINE:
        if not content["machine"].get(entry):
            raise RecordError(f"{name}: expected machine.{entry}, found none")
    if not content["versions"].get("torch"):
        raise RecordError(f"{name}: expected versions.torch, found none")
    found = content["rows"].keys() | content["absent"].keys()
    for key in found - rows.keys():
        raise RecordError(f"{name}: expected no row {key!r}, as rows.yml has none; {AGAIN}")
    for key in rows:
        if key not in found:
            raise RecordError(f"{name}: expected a row {key!r}, found none; {AGAIN}")
        if key in content["rows"]:
            _check_row(f"{name}: {key}", content["rows"][key], rows[key], device)
        elif not isinstance(content["absent"][key], str) or not content["absent"][key]:
            raise RecordError(f"{name}: {key}: expected a reason for its absence, got none")


AGAIN = "run make bench again"


def _check_row(name: str, row: Any, spec: Row, device: str) -> None:
    _require(name, row, MEASURED)
    if not math.isfinite(row["ratio"]) or row["ratio"] <= 0:
        raise RecordError(f"{name}: expected a ratio above 0, got {row['ratio']!r}")
    if len(row["quartiles"]) not in (0, 2):
        raise RecordError(f"{name}: expected two quartiles or none, got {row['quartiles']!r}")
    for entry, want in {"target": spec.target(device), "sense": spec.sense}.items():
        if row[entry] != want:
            raise RecordError(
                f"{name}: expected the {entry} {want!r} of rows.yml, got {row[entry]!r}; {AGAIN}"
            )
    if row["met"] != spec.met(row["ratio"], device):
        raise RecordError(f"{name}: expected met = {not row['met']} at a ratio of {row['ratio']}")
    if row["difference"] is not None and not row["difference"] <= (row["tolerance"] or 0):
        raise RecordError(
            f"{name}: expected a difference of at most {row['tolerance']}, got {row['difference']}"
        )


def read_chapters(path: Path) -> dict[str, Any]:
    """chapters_NAME.json; RecordError, in one line, if it is not whole."""
    content = _read(path)
    check_chapters(path.name, content)
    return content


def check_chapters(name: str, content: Any) -> None:
    _require(name, content, CHAPTERS)
    if not content["machine"].get("name"):
        raise RecordError(f"{name}: expected machine.name, found none")
    for chapter, measured in content["chapters"].items():
        _require(f"{name}: {chapter}", measured, CHAPTER)
        for entry in CHAPTER:
            if not measured[entry] > 0:
                raise RecordError(
                    f"{name}: {chapter}: expected {entry} above 0, got {measured[entry]}"
                )


def write(path: Path, content: Mapping[str, Any], check: Callable[[str, Any], None]) -> None:
    """Write a file that `check` (name, content) lets pass, at once or not at all."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    check(path.name, json.loads(text))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        partial = Path(scratch) / path.name
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RecordError(
            f"{path.name}: expected JSON, got an error at line {error.lineno}"
        ) from None


def _require(name: str, content: Any, fields: Mapping[str, Any]) -> None:
    """RecordError unless `content` is an object with these fields, of these types."""
    if not isinstance(content, dict):
        raise RecordError(f"{name}: expected a JSON object, got {type(content).__name__}")
    for entry, kind in fields.items():
        if entry not in content:
            raise RecordError(f"{name}: expected the field {entry!r}, found none")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        value = content[entry]
        fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
        if not fits or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
            raise RecordError(f"{name}: expected {entry!r} to be a {wanted}, got {value!r}")
