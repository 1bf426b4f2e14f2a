"""ScalePlanner: its numbers are lib.scaling's, and a browser shows the same."""

from __future__ import annotations

import json
import random

import pytest

from lib import scaling
from lib.teaching.components import ScalePlanner
from lib.teaching.components.scale_planner import (
    FIELDS,
    H100,
    MEMORY,
    PRESETS,
    SAID,
    SECONDS,
    TITLES,
    timed,
)
from tests.browser import sticking_out
from tests.teaching.test_components import SURFACES, Parts

START = PRESETS["7B on 64"]
UNEVEN = [*START[:7], 3, *START[8:]]  # 64 GPUs in threes
LARGEST = [most for _, _, most in FIELDS]


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
    assert set(shown.shown().values()) == {"–"}
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


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([1] * 18, r"expected 19 integers"),
        ("1" * 19, r"expected 19 integers"),
        ([1.0, *START[1:]], r"expected 19 integers"),
        ([0, *START[1:]], r"expected layers from 1 to 256, got 0"),
        ([*START[:10], 4, *START[11:]], r"expected ZeRO stage from 0 to 3, got 4"),
    ],
)
def test_refuses_sizes_out_of_range(sizes, message):
    shown = planner()
    with pytest.raises(ValueError, match=f"^sizes: {message}"):
        shown.sizes = sizes
    assert shown.sizes == START
    with pytest.raises(ValueError, match=f"^presets\\['x'\\]: {message}"):
        planner(presets={"x": sizes})


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"^label: expected a text, got ' '$"):
        planner(label=" ")
    with pytest.raises(ValueError, match=r"^presets: expected one or more, got none$"):
        planner(presets={})


def test_fallback_is_a_table_of_all_numbers():
    shown = planner(label="<u>")
    parts = Parts(shown.html())
    assert "u" not in parts.tags and parts.tags.count("tr") == len(TITLES)
    assert set(shown.shown()) == set(TITLES)
    assert all(text in parts.text for text in shown.shown().values())
    assert shown._sentence() in parts.text and "GPUs 64" in parts.text
    data = json.loads(parts.scripts[0][1])["data"]
    assert data["presets"] == [[what, of] for what, of in PRESETS.items()]


# --- in a browser ---------------------------------------------------------------------------


def state_of(page):
    return page.evaluate("document.getElementById('planner').model.get('sizes')")


@pytest.mark.browser
def test_every_number_shown_is_libs(show):
    cases = [*PRESETS.values(), UNEVEN, LARGEST, *drawn(300, seed=1)]
    shown = planner()
    page = show(shown)
    read = page.evaluate(
        """(sizes) => {
          const host = document.getElementById("planner");
          const inputs = host.querySelectorAll("input");
          return sizes.map((given) => {
            given.forEach((size, k) => {
              inputs[k].value = size;
              inputs[k].dispatchEvent(new Event("change"));
            });
            return {
              state: host.model.get("sizes"),
              rows: [...host.querySelectorAll("[data-row]")].map((n) =>
                [n.dataset.row, n.querySelector("span").textContent]),
              widths: Object.fromEntries([...host.querySelectorAll(".sp-bar")]
                .filter((n) => !n.hidden)
                .map((n) => [n.parentNode.dataset.row, n.style.width])),
              sentence: host.querySelector(".sp-say").textContent,
            };
          });
        }""",
        cases,
    )
    possible = 0
    for given, got in zip(cases, read, strict=True):
        shown.sizes = given
        assert got["state"] == given
        assert dict(got["rows"]) == shown.shown()
        assert got["sentence"] == shown._sentence()
        if shown.problem() is not None:
            assert got["widths"] == {}
            continue
        possible += 1
        counts = shown.readout()
        bars = {name: counts["memory"][name] / sum(counts["memory"].values()) for name in MEMORY}
        seconds = counts["seconds"]
        bars |= {f"time: {name}": seconds[name] / seconds["overlapped"] for name in SECONDS}
        widths = {row: float(width.removesuffix("%")) for row, width in got["widths"].items()}
        want = {row: 100 * share for row, share in bars.items()}
        assert widths == pytest.approx(want, rel=1e-3, abs=1e-3)
    assert 100 < possible < len(cases)


@pytest.mark.browser
def test_by_keyboard_and_buttons(show):
    page = show(planner(), width=360)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    assert state_of(page)[0] == 33
    layers = page.get_by_role("spinbutton", name="layers", exact=True)
    layers.fill("1000")
    layers.press("Enter")
    assert state_of(page)[0] == 256 and layers.input_value() == "256"
    layers.fill("")
    layers.press("Tab")
    assert state_of(page)[0] == 256
    for name, sizes in PRESETS.items():
        page.get_by_role("button", name=name, exact=True).click()
        assert state_of(page) == sizes
    page.get_by_role("button", name="reset").click()
    assert state_of(page) == START
    assert page.get_by_role("group", name="how it is cut").get_by_role("spinbutton").count() == 6


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows_and_fingers_fit(show, width, script):
    page = show(planner(sizes=LARGEST, label="L" * 60), width=width, java_script_enabled=script)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if script:
        sizes = page.evaluate(
            "() => [...document.querySelectorAll('button, input')]"
            ".map(n => n.getBoundingClientRect()).map(r => [r.width, r.height])"
        )
        assert len(sizes) == 19 + 5 and min(map(min, sizes)) >= 24


@pytest.mark.browser
@pytest.mark.parametrize("mode", list(SURFACES))
def test_accessible(show, mode):
    from axe_playwright_python.sync_playwright import Axe

    page = show(planner(), mode=mode)
    page.wait_for_function(f"document.querySelector('.sp').dataset.mode === '{mode}'")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.browser
def test_state_from_behind_and_cleaned_up(show):
    shown = planner()
    page = show(shown)
    shown.sizes = PRESETS["GPT-2 on 8"]
    page.evaluate(
        "sizes => document.getElementById('planner').model.set('sizes', sizes)", shown.sizes
    )
    assert page.locator("#planner .sp-say").text_content() == shown._sentence()
    left = page.evaluate(
        "sizes => { const host = document.getElementById('planner'); host.dispose();"
        "host.model.set('sizes', sizes);"
        "return host.querySelectorAll('.sp').length }",
        START,
    )
    assert left == 0


@pytest.mark.browser
def test_readable_without_javascript(show):
    page = show(planner(), java_script_enabled=False)
    text = page.locator("#planner").inner_text()
    assert "With JavaScript" in text and planner()._sentence() in text
