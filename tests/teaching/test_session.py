"""lib.teaching.session: one quiet line, and a session that repeats itself."""

import random
import re
import sys
import types

import matplotlib as mpl
import numpy as np
import pytest
import torch

from lib.teaching import session
from lib.teaching.figures import INK
from lib.teaching.session import official, start


@pytest.fixture(autouse=True)
def restored():
    threads = torch.get_num_threads()
    backend = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    with mpl.rc_context(), torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = backend


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_it_prints_versions_and_below_them_device_and_seed(capsys, no_cuda):
    assert start(seed=7) == torch.device("cpu")
    assert re.fullmatch(
        r"python 3\.\d+\.\d+ · torch \d+\.\d+\.\d+ · numpy \d+\.\d+\.\d+ · "
        r"matplotlib \d+\.\d+\.\d+\ncpu, 1 thread · seed 7\n",
        capsys.readouterr().out,
    )


def test_the_same_seed_gives_the_same_numbers(no_cuda):
    def draw(seed):
        start(seed)
        return random.random(), np.random.rand(), torch.rand(()).item()

    first, other = draw(0), draw(1)
    assert draw(0) == first
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_a_cpu_gets_one_thread_and_the_style(no_cuda):
    torch.set_num_threads(2)
    start()
    assert torch.get_num_threads() == 1
    assert mpl.rcParams["text.color"] == INK


def test_a_gpu_is_named_and_keeps_its_cpu_threads(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Model X on {device}")
    # no driver here: seeding the CPU is enough for this test
    monkeypatch.setattr(torch, "manual_seed", torch.random.default_generator.manual_seed)
    torch.set_num_threads(2)
    assert start() == torch.device("cuda")
    assert torch.get_num_threads() == 2
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.deterministic
    assert capsys.readouterr().out.endswith("\nModel X on cuda · seed 0\n")


def test_a_build_suffix_is_not_printed(monkeypatch):
    monkeypatch.setattr(session.metadata, "version", lambda package: "2.13.0+cpu")
    assert session._version("torch") == "2.13.0"


def test_official_weights_are_not_asked_for_outside_colab(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.delenv("EXECUTABLE_TRANSFORMER_HUB", raising=False)
    asked = []
    assert official(asked.append, "owner/name") is None
    assert asked == []
    assert capsys.readouterr().out == "owner/name: not fetched here; on Colab this cell loads it\n"


@pytest.mark.parametrize("where", ["colab", "asked for"])
def test_official_weights_are_loaded_on_colab_or_where_asked_for(where, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.delenv("EXECUTABLE_TRANSFORMER_HUB", raising=False)
    if where == "colab":
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    else:
        monkeypatch.setenv("EXECUTABLE_TRANSFORMER_HUB", "1")
    assert official(str.upper, "owner/name") == "OWNER/NAME"
    assert capsys.readouterr().out == ""


def test_official_weights_without_a_network_are_one_line(monkeypatch, capsys):
    monkeypatch.setenv("EXECUTABLE_TRANSFORMER_HUB", "1")

    def unreachable(repo_id):
        raise ConnectionError("the Hub cannot be reached")

    assert official(unreachable, "owner/name") is None
    assert capsys.readouterr().out == "owner/name: not fetched, the Hub cannot be reached\n"
    with pytest.raises(ValueError, match="a defect"):
        official(lambda repo_id: (_ for _ in ()).throw(ValueError("a defect")), "owner/name")
