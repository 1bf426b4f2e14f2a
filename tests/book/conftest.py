"""The scripts of book/experiments, for the tests of their recorded runs."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch


@pytest.fixture
def run(request, monkeypatch):
    """The script that the test file calls SCRIPT, loaded afresh; it may set threads."""
    path = request.module.SCRIPT
    spec = importlib.util.spec_from_file_location(f"{path.stem}_run", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for their module
    threads = torch.get_num_threads()
    spec.loader.exec_module(module)
    yield module
    torch.set_num_threads(threads)
