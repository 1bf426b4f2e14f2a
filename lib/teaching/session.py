"""The first line of every chapter: seeds, threads, figure style, and the versions in use; and
official checkpoints where there is a network to fetch them."""

from __future__ import annotations

import os
import platform
import random
import sys
from collections.abc import Callable
from importlib import metadata
from typing import TypeVar

import numpy as np
import torch

from lib.teaching.figures import use_style

Loaded = TypeVar("Loaded")


def start(seed: int = 0) -> torch.device:
    """Make a chapter repeatable, print the versions it runs with, and return its device.

    Seeds ``random``, numpy and torch; sets the book's figure style; on a CPU sets one thread,
    because trained figures shift with the number of threads. Returns ``cuda`` where there is one.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # CUDA too
    use_style()
    if torch.cuda.is_available():
        device = torch.device("cuda")
        # the two settings that cost nothing at the sizes of this book
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        place = torch.cuda.get_device_name(device)
    else:
        device = torch.device("cpu")
        torch.set_num_threads(1)
        place = "cpu, 1 thread"
    versions = [f"python {platform.python_version()}"]
    versions += [f"{name} {_version(name)}" for name in ("torch", "numpy", "matplotlib")]
    print(" · ".join(versions))
    print(f"{place} · seed {seed}")
    return device


def official(load: Callable[[str], Loaded], repo_id: str) -> Loaded | None:
    """Return ``load(repo_id)`` on Colab; elsewhere None, and one line that says so.

    A build of the book asks nobody, so weights of a hundred megabytes are fetched on Colab alone,
    or where ``EXECUTABLE_TRANSFORMER_HUB=1`` is set. Where the Hub cannot be reached (the loaders
    of ``lib`` raise ConnectionError then) the answer is None too; other errors are the caller's.
    """
    if "google.colab" not in sys.modules and os.environ.get("EXECUTABLE_TRANSFORMER_HUB") != "1":
        print(f"{repo_id}: not fetched here; on Colab this cell loads it")
        return None
    try:
        return load(repo_id)
    except ConnectionError as error:
        print(f"{repo_id}: not fetched, {error}")
        return None


def _version(package: str) -> str:
    """Return a version without its build suffix: 2.13.0+cpu is 2.13.0."""
    return metadata.version(package).split("+")[0]
