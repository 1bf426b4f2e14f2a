"""What a benchmark is given, and where what it measured is written.

    make bench                measures on the CPU and writes book/benchmarks/cpu.json
    make bench DEVICE=cuda    on a GPU, book/benchmarks/cuda.json

A benchmark that fails, or whose peer is not installed, leaves its reason in the file; the others
are written all the same.
"""

from __future__ import annotations

import os

import pytest
import torch

from tests.benchmarks.harness import ROOT, Contest, records, save

ROWS = records.read_rows(ROOT / records.ROWS)
DEVICE = os.environ.get("BENCH_DEVICE") or "cpu"
FOUND, ABSENT = pytest.StashKey[dict](), pytest.StashKey[dict]()


@pytest.fixture
def device() -> str:
    if DEVICE not in records.DEVICES:
        pytest.fail(f"DEVICE: expected one of {', '.join(records.DEVICES)}, got {DEVICE!r}")
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.fail("DEVICE=cuda: torch finds no GPU here")
    return DEVICE


def _keys(item: pytest.Item) -> tuple[str, ...]:
    mark = item.get_closest_marker("rows")
    return mark.args if mark else ()


@pytest.fixture
def contest(request, benchmark, device):
    """The rows that `@pytest.mark.rows(…)` names, to be measured by this test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    entered = Contest(benchmark, device, ROWS)
    yield entered
    torch.set_num_threads(threads)
    request.config.stash.setdefault(FOUND, {}).update(entered.found)


def pytest_configure(config):
    config.addinivalue_line("markers", "rows(*keys): the rows of rows.yml that a test measures")


def pytest_collection_modifyitems(items):
    """What is for the other device is not there, rather than skipped."""
    items[:] = [
        item
        for item in items
        if not _keys(item) or any(DEVICE in ROWS[key].devices for key in _keys(item))
    ]
    for item in items:
        if _keys(item):  # where two results differ nothing is timed, and that is said once
            ignore = "ignore:Benchmark fixture was not used"
            item.add_marker(pytest.mark.filterwarnings(ignore))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if _keys(item) and (report.failed or report.skipped):
        said = call.excinfo.exconly().splitlines()[0] if call.excinfo else "it failed"
        why = report.longrepr[2] if report.skipped else f"the benchmark failed: {said}"
        absent = item.config.stash.setdefault(ABSENT, {})
        absent.update({key: why for key in _keys(item) if DEVICE in ROWS[key].devices})
    return report


def pytest_sessionfinish(session):
    found = session.config.stash.get(FOUND, {})
    if not found:
        return
    absent = session.config.stash.get(ABSENT, {})
    path = ROOT / records.FOLDER / f"{os.environ.get('BENCH_NAME') or DEVICE}.json"
    save(
        path,
        device=DEVICE,
        rows=ROWS,
        found={key: row for key, row in found.items() if key not in absent},
        absent=absent,
    )
    print(f"\n{len(found)} rows written to {path.relative_to(ROOT)}")
