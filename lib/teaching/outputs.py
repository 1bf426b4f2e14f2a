"""What a cell leaves behind: rich output in a notebook, plain text in a plain Python run.

Everything in ``lib.teaching`` that shows something goes through ``publish``, so that a chapter
runs unchanged as a notebook, under the book's build, and as ``python chapters/02_attention.py``.
"""

from __future__ import annotations

import math
import numbers
import re
import sys
from collections.abc import Mapping
from typing import Any

GLUE_PREFIX = "application/papermill.record/"
_GLUE_NAME = re.compile(r"[A-Za-z][\w.-]*")


def live_shell() -> Any | None:
    """Return the running IPython shell, or None in plain Python (IPython is not imported)."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def publish(bundle: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Display a mime bundle; without IPython print its ``text/plain`` part, if it has one."""
    if live_shell() is None:
        if "text/plain" in bundle:
            print(bundle["text/plain"])
        return
    from IPython.display import display

    display(dict(bundle), raw=True, metadata=dict(metadata or {}))


def glue(name: str, value: Any, *, display: bool = False) -> None:
    """Record a number or a text, for ``{glue:text}`` to print in the prose of the same chapter.

    The bundle and its metadata are those of ``myst_nb.glue``, which a reader need not install.
    A tensor or an array with one element becomes a Python number. ``display=True`` also shows the
    value under the cell; in plain Python it prints the line ``name = value``.

    Raises ValueError if the name cannot be written in a role, if the value is not finite, or if
    it is neither one number nor a text.
    """
    if not isinstance(name, str) or not _GLUE_NAME.fullmatch(name):
        raise ValueError(
            f"glue name: expected a letter, then letters, digits, '-', '_' or '.', got {name!r}"
        )
    value = _plain(name, value)
    if live_shell() is None:
        if display:
            print(f"{name} = {value!r}")
        return
    from IPython.core.formatters import format_display_data

    bundle, metadata = format_display_data(value)
    prefix = "" if display else GLUE_PREFIX
    metadata["scrapbook"] = {"name": name, "mime_prefix": prefix}
    publish({prefix + mime: data for mime, data in bundle.items()}, metadata)


def _plain(name: str, value: Any) -> bool | int | float | str:
    """Return ``value`` as a Python number or text."""
    if isinstance(value, str):
        return value
    if hasattr(value, "shape") and hasattr(value, "item"):  # a tensor, an array, a numpy scalar
        if math.prod(value.shape) != 1:
            raise ValueError(f"glue {name}: expected one number, got shape {tuple(value.shape)}")
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise ValueError(f"glue {name}: expected one number or a text, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"glue {name}: expected a finite number, got {value}")
    return value
