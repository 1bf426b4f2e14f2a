"""Sampling: what it keeps is lib.generation's, and a browser shows the same."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lib.generation import keep_top_k, keep_top_p
from lib.teaching.components import Sampling, base
from lib.teaching.components.sampling import TEMPERATURES, TOP_PS
from tests.browser import sticking_out
from tests.teaching.test_components import SURFACES, Parts

WORDS = ["the", "a", " cat", "dog", "\n", "ran", "slept", "milk", "sat", "and", "of", "so", "it"]


def logits(seed=0, n=13):
    return 2 * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sampling(**options):
    return Sampling(WORDS, logits(), **{"name": "sampling"} | options)


# --- in Python ------------------------------------------------------------------------------


def test_tokens_descend():
    shown = sampling()
    order = logits().argsort(descending=True).tolist()
    assert shown.tokens == [WORDS[i] for i in order]
    assert shown.logits == pytest.approx(logits()[order].tolist(), abs=1e-10)
    equal = Sampling(["a", "b", "c"], [0, 1, 1])
    assert equal.tokens == ["b", "c", "a"]


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [1, 4, 13])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_readout_is_libs(temperature, top_k, top_p):
    shown = sampling()
    read = shown.readout(temperature, top_k, top_p, 30)
    scaled = torch.tensor(shown.logits, dtype=torch.float64) / temperature
    left = keep_top_p(keep_top_k(scaled, top_k), top_p)
    want = left.softmax(0)
    assert read["probabilities"] == pytest.approx(scaled.softmax(0).tolist(), abs=1e-15)
    assert read["renormalised"] == pytest.approx(want.tolist(), abs=1e-15)
    assert read["kept"] == int(left.isfinite().sum()) <= top_k
    assert read["mass"] == pytest.approx(scaled.softmax(0)[: read["kept"]].sum().item())
    assert read["entropy"] == pytest.approx(
        torch.distributions.Categorical(want).entropy().item(), abs=1e-6
    )
    assert sum(read["counts"]) == len(read["drawn"]) == 30
    assert max(read["drawn"]) < read["kept"]


def test_draws_follow_the_probabilities():
    shown = sampling(stream=1000)
    read = shown.readout(1.0, 13, 1.0, 1000)
    for count, p in zip(read["counts"], read["renormalised"], strict=True):
        assert abs(count - 1000 * p) < 5 * math.sqrt(1000 * p * (1 - p)) + 1
    # the number u falls where the cumulative probability first exceeds it
    reached = 0.0
    first = shown.readout(1.0, 13, 1.0, 1)["drawn"][0]
    for j, p in enumerate(read["renormalised"]):
        reached += p
        if j == first:
            assert reached - p <= shown.stream[0] < reached


def test_the_stream_is_seeded_and_stays_when_a_setting_moves():
    shown = sampling()
    assert shown.stream == sampling().stream != sampling(seed=1).stream
    assert len(shown.stream) == len(set(shown.stream)) == 100
    assert shown.readout(1.0, 13, 1.0, 7)["drawn"] == shown.readout(1.0, 13, 1.0, 9)["drawn"][:7]
    assert shown.readout(1.0, 1, 1.0, 9)["drawn"] == [0] * 9


def test_sentence():
    shown = Sampling(["b", " a", "c"], [math.log(2), math.log(6), 0.0], top_p=0.7, label="L")
    assert repr(shown) == (
        "L: T = 1, top-k = 3, top-p = 0.7: 2 of 3 tokens kept, which had 0.889 of the probability; "
        "entropy 0.562 nats. None drawn yet."
    )
    shown.top_k, shown.temperature, shown.draws = 1, 0.5, 3
    assert shown.summary() == (
        "L: T = 0.5, top-k = 1, top-p = 0.7: 1 of 3 tokens kept, which had 0.878 of the "
        "probability; entropy 0.000 nats. 3 drawn, the last is “␣a”."
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", 0.0, r"temperature: expected one of 0.1, .*, 3.0, got 0.0"),
        ("top_k", 14, r"top_k: expected one of .*, got 14"),
        ("top_k", 0, r"top_k: expected one of .*, got 0"),
        ("top_p", 0.0, r"top_p: expected one of 0.05, .*, 1.0, got 0.0"),
        ("draws", 101, r"draws: expected one of 0 to 100, got 101"),
    ],
)
def test_refuses_a_state_that_is_not_there(name, value, message):
    shown = sampling()
    with pytest.raises(ValueError, match=f"^{message}$"):
        setattr(shown, name, value)
    assert (shown.temperature, shown.top_k, shown.top_p, shown.draws) == (1.0, 13, 1.0, 0)
    with pytest.raises(ValueError, match=f"^{message}$"):
        sampling(**{name: value})


@pytest.mark.parametrize(
    ("tokens", "given", "options", "message"),
    [
        (["a"], [1], {}, r"tokens: expected 2 to 24 different ones, got 1 of which 1 differ"),
        (["a", "a"], [1, 2], {}, r"tokens: expected 2 to 24 different ones, got 2 of which 1"),
        (list("abcdefghijklmnopqrstuvwxy"), range(25), {}, r"tokens: expected 2 to 24 .*, got 25"),
        (["a", ""], [1, 2], {}, r"tokens: expected texts that are not empty, got ''"),
        (["a", 1], [1, 2], {}, r"tokens: expected texts that are not empty, got 1"),
        (["a", "b"], [1], {}, r"logits: expected 2 finite numbers, got shape \(1,\)"),
        (["a", "b"], [1, -math.inf], {}, r"logits: expected 2 finite numbers, got shape \(2,\)"),
        (["a", "b"], [1, 2], {"stream": 0}, r"stream: expected an integer in 1 to 1000, got 0"),
        (["a", "b"], [1, 2], {"label": " "}, r"label: expected a text, got ' '"),
    ],
)
def test_refuses_what_does_not_fit(tokens, given, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Sampling(tokens, given, **options)


def test_fallback_says_what_is_kept():
    shown = Sampling(["b", "</script><i>", "c"], [2.0, 1.0, 0.0], top_k=2, label="<u>")
    parts = Parts(shown.html())
    assert not {"i", "u"} & set(parts.tags) and len(parts.scripts) == 2
    assert shown._sentence() in parts.text
    assert parts.text.count("cut") == 1 and parts.tags.count("tr") == 4
    assert "0.731" in parts.text and "0.665" in parts.text
    data = json.loads(parts.scripts[0][1])["data"]
    assert data["temperatures"] == list(TEMPERATURES) and data["top_ps"] == list(TOP_PS)


# --- in a browser ---------------------------------------------------------------------------


def state_of(page):
    return page.evaluate(
        "() => ['temperature', 'top_k', 'top_p', 'draws']"
        ".map(k => document.getElementById('sampling').model.get(k))"
    )


@pytest.mark.browser
@pytest.mark.parametrize("seed", [0, 1])
def test_every_number_shown_is_libs(show, seed):
    given = logits(seed)
    if seed:
        given[3] = given[7]  # equal logits: the k-th has a twin
    shown = Sampling(WORDS, given, name="sampling")
    grid = [
        (t, k, p, d)
        for t in (0, 4, 9, 29)
        for k in range(1, 14)
        for p in (0, 6, 13, 18, 19)
        for d in (0, 1, 100)
    ]
    page = show(shown)
    read = page.evaluate(
        """(grid) => {
          const host = document.getElementById("sampling");
          const inputs = host.querySelectorAll("input");
          const put = (node, to) => { node.value = to; node.dispatchEvent(new Event("input")); };
          const texts = (what) => [...host.querySelectorAll(what)].map((n) => n.textContent);
          return grid.map(([t, k, p, draws]) => {
            put(inputs[0], t); put(inputs[1], k - 1); put(inputs[2], p);
            host.model.set("draws", draws);
            return {
              p: texts(".sm-p"), q: texts(".sm-q"), counts: texts(".sm-count"),
              outputs: texts("output"), sentence: texts(".sm-say")[0], drawn: texts(".sm-text")[0],
              after: [...host.querySelectorAll(".sm-after")].map((n) => n.style.width),
              cut: [...host.querySelectorAll("tbody tr")].map((n) => "cut" in n.dataset),
            };
          });
        }""",
        grid,
    )
    glyphs = [t.replace(" ", "␣").replace("\n", "↵") for t in shown.tokens]
    for (t, k, p, draws), got in zip(grid, read, strict=True):
        state = (TEMPERATURES[t], k, TOP_PS[p], draws)
        want = shown.readout(*state)
        shown.temperature, shown.top_k, shown.top_p, shown.draws = state
        q = want["renormalised"]
        assert got["p"] == [base.fixed(x, 3) for x in want["probabilities"]]
        assert got["q"] == [base.fixed(x, 3) if x else "cut" for x in q]
        assert got["cut"] == [x == 0 for x in q] and sum(got["cut"]) == 13 - want["kept"]
        assert got["counts"] == [str(count) for count in want["counts"]]
        assert got["outputs"] == [f"{TEMPERATURES[t]:g}", str(k), f"{TOP_PS[p]:g}"]
        assert got["sentence"] == shown._sentence()
        listed = " ".join(glyphs[j] for j in want["drawn"])
        assert got["drawn"] == (f"Drawn: {listed}" if draws else "")
        top = max(*want["probabilities"], *q)
        for width, x in zip(got["after"], q, strict=True):
            assert float(width.removesuffix("%")) == pytest.approx(100 * x / top, abs=1e-3)


@pytest.mark.browser
def test_by_keyboard_and_buttons(show):
    page = show(sampling(top_p=0.9, draws=2), width=360)
    for _ in range(2):
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowLeft")
    assert state_of(page) == [0.9, 12, 0.9, 2]
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert state_of(page) == [0.9, 12, 1, 2]
    assert page.get_by_role("slider", name="top-p").get_attribute("aria-valuetext") == "top-p 1"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert state_of(page)[3] == 3
    assert page.locator("#sampling tr[data-now]").count() == 1
    for drawn in (*range(13, 100, 10), 100):
        page.get_by_role("button", name="draw 10").click()
        assert state_of(page)[3] == drawn
    page.get_by_role("button", name="draw", exact=True).click()
    assert state_of(page)[3] == 100  # the stream has an end
    page.get_by_role("button", name="reset").click()
    assert state_of(page) == [1, 13, 0.9, 2]


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows_and_fingers_fit(show, width, script):
    words = ["antidisestablishmentarianism" * 2, *WORDS]
    shown = Sampling(words, logits(n=14), draws=100, label="L" * 60, name="sampling")
    page = show(shown, width=width, java_script_enabled=script)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if script:
        sizes = page.evaluate(
            "() => [...document.querySelectorAll('button, input')]"
            ".map(n => n.getBoundingClientRect()).map(r => [r.width, r.height])"
        )
        assert len(sizes) == 6 and min(map(min, sizes)) >= 24


@pytest.mark.browser
@pytest.mark.parametrize("mode", list(SURFACES))
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_accessible(show, mode, script):
    from axe_playwright_python.sync_playwright import Axe

    page = show(sampling(top_p=0.7, draws=5), mode=mode, java_script_enabled=script)
    if not script:
        assert "With JavaScript" in page.locator("#sampling").inner_text()
        return
    page.wait_for_function(f"document.querySelector('.sm').dataset.mode === '{mode}'")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.browser
def test_state_from_behind_and_cleaned_up(show):
    shown = sampling()
    page = show(shown)
    page.evaluate("document.getElementById('sampling').model.set('top_k', 3)")
    shown.top_k = 3
    assert page.locator("#sampling .sm-say").text_content() == shown._sentence()
    left = page.evaluate(
        "() => { const host = document.getElementById('sampling'); host.dispose();"
        "host.model.set('top_k', 1); return host.querySelectorAll('.sm').length }"
    )
    assert left == 0
