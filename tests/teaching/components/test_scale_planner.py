"""ScalePlanner: its numbers are lib.scaling's, and a browser shows the same."""

from __future__ import annotations

import random

import pytest

from lib import scaling
from lib.teaching.components import ScalePlanner
from lib.teaching.components.base import EXPORT
from lib.teaching.components.scale_planner import H100, MEMORY, SAID, SECONDS, TITLES, timed
from tests.teaching.components.test_number_form import least_and_most, typed

PRESETS = ScalePlanner.PRESETS
START = PRESETS["7B on 64"]
UNEVEN = [*START[:7], 3, *START[8:]]  # 64 GPUs in threes
LARGEST = least_and_most(ScalePlanner)[1]


def planner(**options):
    return ScalePlanner(**{"name": "planner"} | options)


def drawn(count, seed=0):
    """Plans that divide, of all kinds, and some that do not."""
    rng = random.Random(seed)
    found = []
    while len(found) < count:
        node = rng.choice([1, 2, 4, 8, 8])
        tensor, stages = rng.choice([1, 1, 2, 4, 8, 16]), rng.choice([1, 1, 2, 3, 8])
        copies, parts = rng.choice([1, 2, 4, 16, 64]), rng.choice([1, 2, 6])
        sizes = [
            *(stages * rng.randint(1, 9), tensor * rng.randint(1, 5), rng.randint(1, 128)),
            *(rng.randint(2, 60000), rng.randint(2, 5000), copies * parts * rng.randint(1, 3)),
            *(tensor * stages * copies, tensor, stages, parts),
            *(rng.randint(0, 3), rng.randint(0, 1), node),
            *(rng.randint(low, high) for low, high in [(10, 2000), (1, 100), (1, 200)]),
            *(rng.randint(1, 900), rng.randint(1, 400), rng.choice([0, 3, 50, 2000])),
        ]
        found.append(sizes)
    return found


def test_the_machines_begin_as_libs():
    _, cluster = planner()._parsed(None)
    default = scaling.Cluster()
    assert cluster == scaling.Cluster(flops=989e12, latency=cluster.latency)
    assert cluster.latency == pytest.approx(default.latency)
    assert round(default.flops / 1e12) == H100[1]


def test_presets_can_be_cut_so_and_fit():
    for of in PRESETS.values():
        shown = planner(sizes=of)
        assert shown.problem() is None
        assert shown.readout()["limit"] != "memory"


def test_the_numbers_are_libs():
    shown = planner(sizes=PRESETS["1T on 3,072 A100"])
    plan = scaling.Plan(128, 160, 160, 51200, 2048, 3072, 3072, 8, 64, 512, 0, True)
    cluster = scaling.Cluster(312e12, 0.6, 80e9, 300e9, 25e9)
    read = shown.readout()
    assert read["copies"] == 6 and read["parameters"] == scaling.parameters_each(plan)
    assert read["memory"] == scaling.memory_each(plan)
    assert read["sent"] == scaling.traffic_each(plan)
    assert read["seconds"] == pytest.approx(scaling.step_seconds(plan, cluster))
    assert read["limit"] == scaling.limit(plan, cluster)


def test_every_limit_has_its_sentence():
    assert set(SAID) == {"memory", *SECONDS}
    said = {planner(sizes=of).readout()["limit"] for of in drawn(300) if not planner().problem(of)}
    assert said == set(SAID)


def test_what_does_not_divide_is_shown():
    shown = planner(sizes=UNEVEN)
    assert shown.problem() == "gpus: expected a multiple of tensor · pipeline = 3, got 64"
    assert shown.shown() == dict.fromkeys(TITLES, "–")
    assert list(planner().shown()) == list(TITLES)
    assert shown.summary().endswith("It cannot be cut so. " + shown.problem() + ".")
    with pytest.raises(ValueError, match=r"^gpus: expected a multiple"):
        shown.readout()


def test_times_are_readable():
    assert [timed(s) for s in (0.0, 0.0421, 1.0, 12.3456)] == [
        "0.000 ms",
        "42.100 ms",
        "1.000 s",
        "12.346 s",
    ]


# --- in a browser ---------------------------------------------------------------------------


@pytest.mark.browser
def test_a_page_writes_times_as_python_does(show):
    seconds = [0.0, 0.0421, 0.9999, 1.0, 1.0001, 12.3456]
    texts = show().evaluate(
        "([source, seconds]) => Function('all', `${source}; return all.map(timed)`)(seconds)",
        [planner().source().removesuffix(EXPORT), seconds],
    )
    assert texts == [timed(s) for s in seconds]


@pytest.mark.browser
def test_every_number_shown_is_libs(show):
    cases = [*PRESETS.values(), UNEVEN, LARGEST, *drawn(300, seed=1)]
    shown = planner()
    possible = 0
    for given, got in typed(show(shown), cases):
        shown.sizes = given
        assert got["state"] == given
        assert got["texts"] == shown.shown()
        assert got["sentence"] == shown._sentence()
        if shown.problem() is not None:
            assert got["bars"] == {}
            continue
        possible += 1
        read = shown.readout()
        memory, seconds = read["memory"], read["seconds"]
        bars = {name: 100 * memory[name] / sum(memory.values()) for name in MEMORY}
        bars |= {f"time: {name}": 100 * seconds[name] / seconds["overlapped"] for name in SECONDS}
        assert got["bars"] == pytest.approx(bars, rel=1e-3, abs=1e-3)
    assert 100 < possible < len(cases)
