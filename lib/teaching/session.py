"""The first line of every chapter: seeds, threads, figure style, and the versions in use."""

from __future__ import annotations

import platform
import random
from importlib import metadata

import numpy as np
import torch

from lib.teaching.figures import use_style


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
    print(" · ".join([*versions, place, f"seed {seed}"]))
    return device


def _version(package: str) -> str:
    """Return a version without its build suffix: 2.13.0+cpu is 2.13.0."""
    return metadata.version(package).split("+")[0]
