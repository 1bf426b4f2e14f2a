"""MaskPainter: its masks and counts are lib's, in Python and, state by state, in a browser."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from lib.attention import causal_mask
from lib.sliding_window import count_pairs, window_mask
from lib.teaching.components import MaskPainter, base
from lib.teaching.figures import COLORS
from tests.browser import sticking_out
from tests.teaching.test_components import Parts, page_state

N = 9
TOKENS = [[], [0], [3, 8]]
STATES = list(itertools.product(range(2, 17, 2), (1, 2, 3, 4), (False, True), TOKENS, (1, 2, 3)))


def expected_mask(n, window, dilation, causal, tokens):
    is_global = torch.zeros(n, dtype=torch.bool)
    is_global[tokens] = True
    mask = window_mask(n, window, dilation=dilation, global_mask=is_global)
    return mask & causal_mask(n) if causal else mask


# --- in Python ------------------------------------------------------------------------------


def test_numbers_are_libs():
    shown = MaskPainter(N)
    for window, dilation, causal, tokens, layers in STATES:
        read = shown.readout(window, dilation, causal, tokens, layers)
        mask = expected_mask(N, window, dilation, causal, tokens)
        alone = expected_mask(N, window, dilation, causal, [])
        assert torch.equal(shown.mask(window, dilation, causal, tokens), mask)
        assert read["pairs"] == mask.sum() and read["window"] == alone.sum()
        assert read["formula"] == read["window"] and read["added"] == mask.sum() - alone.sum()
        if not causal:
            assert read["formula"] == count_pairs(N, window, dilation=dilation)
        joined = torch.linalg.matrix_power(mask.double(), layers) > 0
        assert read["joined"] == joined.sum()
        assert read["share"] == f"{base.fixed(100 * mask.sum().item() / 81, 1)} %"


def test_the_numbers_of_the_chapter():
    shown = MaskPainter(32)
    assert shown.readout(8)["pairs"] == 32 * 9 - 4 * 5 == 268
    assert shown.readout(62)["share"] == "100.0 %"
    assert shown.readout(8, layers=4)["joined"] == count_pairs(32, 32)
    assert shown.readout(2, global_tokens=[5], layers=2)["joined"] == 32**2


def test_sentence():
    shown = MaskPainter(window=8, global_tokens=[4, 0], layers=2, label="L")
    assert repr(shown) == (
        "L. 24 tokens, w = 8, dilation 1, both sides, global 0, 4: 264 of 576 pairs meet "
        "(45.8 %), 196 in the window and 68 more by global tokens; "
        "after 2 layers 576 are joined."
    )
    assert MaskPainter(5, window=2, dilation=2, causal=True).readout(2, 2, True)["sentence"] == (
        "5 tokens, w = 2, dilation 2, causal, no global token: 8 of 25 pairs meet (32.0 %), "
        "8 in the window and 0 more by global tokens; after 1 layer 8 are joined."
    )


def test_state_can_be_set_and_observed():
    shown = MaskPainter(N, window=4)
    heard = []
    shown.observe(lambda change: heard.append((change["name"], change["new"])))
    shown.global_tokens = (7, 2, 7)
    shown.dilation, shown.causal, shown.layers, shown.window = 3, True, 4, 16
    assert heard == [
        ("global_tokens", [2, 7]),
        ("dilation", 3),
        ("causal", True),
        ("layers", 4),
        ("window", 16),
    ]
    assert shown.summary().endswith(shown.readout(16, 3, True, [2, 7], 4)["sentence"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("window", 7, "window: expected an even integer in 2 to 16, got 7"),
        ("window", 0, "window: expected an even integer in 2 to 16, got 0"),
        ("window", 18, "window: expected an even integer in 2 to 16, got 18"),
        ("window", 4.0, r"window: expected an even integer in 2 to 16, got 4\.0"),
        ("dilation", 0, "dilation: expected an integer in 1 to 4, got 0"),
        ("dilation", 5, "dilation: expected an integer in 1 to 4, got 5"),
        ("layers", 5, "layers: expected an integer in 1 to 4, got 5"),
        ("layers", True, "layers: expected an integer in 1 to 4, got True"),
        ("causal", 1, "causal: expected True or False, got 1"),
        ("global_tokens", [9], "global_tokens: expected integers in 0 to 8, got 9"),
        ("global_tokens", [-1], "global_tokens: expected integers in 0 to 8, got -1"),
        ("global_tokens", [True], "global_tokens: expected integers in 0 to 8, got True"),
        ("global_tokens", 3, "global_tokens: expected a list of integers, got 3"),
    ],
)
def test_refuses_a_state_that_is_not_there(name, value, message):
    shown = MaskPainter(N, window=4, global_tokens=[1])
    before = shown.summary()
    with pytest.raises(ValueError, match=f"^{message}$"):
        setattr(shown, name, value)
    assert shown.summary() == before
    with pytest.raises(ValueError, match=f"^{message}$"):
        MaskPainter(N, **{"window": 4, name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 3}, "n: expected an integer in 4 to 32, got 3"),
        ({"n": 33}, "n: expected an integer in 4 to 32, got 33"),
        ({"n": 8.0}, r"n: expected an integer in 4 to 32, got 8\.0"),
        ({"label": " "}, "label: expected a text, got ' '"),
    ],
)
def test_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        MaskPainter(**options)


def test_the_ends_are_allowed():
    for n in (4, 32):
        widest = 2 * (n - 1)
        shown = MaskPainter(n, window=widest, dilation=1, global_tokens=[n - 1], layers=4)
        assert shown.readout(widest)["pairs"] == n * n
        assert page_state(shown)["data"]["widest"] == widest
    assert MaskPainter(8, window=2, dilation=4).dilation == 4


def test_fallback_holds_a_picture_and_a_table():
    shown = MaskPainter(N, window=6, global_tokens=[0], causal=True, layers=2)
    text = shown.html()
    parts = Parts(text)
    assert shown.readout(6, 1, True, [0], 2)["sentence"] in parts.text
    near, far = re.findall(r'<path fill="(?:[^"]+)" d="([^"]*)"', text)
    cells = re.findall(r"M(\d+)\.06 (\d+)\.06h", near)
    alone = expected_mask(N, 6, 1, True, [])
    assert sorted((int(i), int(j)) for j, i in cells) == [
        tuple(p) for p in alone.nonzero().tolist()
    ]
    more = expected_mask(N, 6, 1, True, [0]) & ~alone
    cells = re.findall(r"M(\d+)\.5 (\d+)\.1l", far)
    assert sorted((int(i), int(j)) for j, i in cells) == [tuple(p) for p in more.nonzero().tolist()]
    assert COLORS["weights"] in text and COLORS["key"] in text
    rows = re.findall(r'<th scope="row">(\d+)</th>(.*?)</tr>', text)
    assert [int(w) for w, _ in rows] == [2, 4, 6, 8, 16]
    for window, got in rows:
        want = shown.readout(int(window), 1, True, [0], 2)
        assert re.findall("<td>(.*?)</td>", got) == [
            str(want[k]) for k in ("pairs", "share", "formula", "joined")
        ]


def test_the_page_is_small():
    assert len(MaskPainter(32, window=30, global_tokens=[0]).html().encode()) < 60_000


def test_names_are_text():
    parts = Parts(MaskPainter(label="</script> & <q>", name="nasty").html())
    assert len(parts.scripts) == 2 and "q" not in parts.tags


# --- in a browser ---------------------------------------------------------------------------


def painter(**options):
    return MaskPainter(N, **{"window": 4, "name": "painter"} | options)


def state_of(page):
    return page.evaluate(
        "() => { const m = document.getElementById('painter').model;"
        "return ['window', 'dilation', 'causal', 'global_tokens', 'layers'].map((x) => m.get(x)) }"
    )


@pytest.mark.browser
def test_every_cell_and_every_number_is_libs(show):
    shown = painter()
    page = show(shown)
    seen = page.evaluate(
        """(states) => {
          const host = document.getElementById("painter");
          const [window, dilation, layers] = host.querySelectorAll("[type=range]");
          const causal = host.querySelector("[type=checkbox]");
          const buttons = [...host.querySelectorAll(".mp-tokens button")];
          const put = (node, to) => { node.value = to; node.dispatchEvent(new Event("input")); };
          const texts = (what) => [...host.querySelectorAll(what)].map((n) => n.textContent);
          return states.map(([w, d, c, tokens, l]) => {
            put(window, w); put(dilation, d); put(layers, l);
            if (causal.checked !== c) causal.click();
            buttons.forEach((b, i) => {
              if ((b.getAttribute("aria-pressed") === "true") !== tokens.includes(i)) b.click();
            });
            return {
              read: Object.fromEntries([...host.querySelectorAll("[data-read]")]
                .map((n) => [n.dataset.read, n.textContent])),
              say: texts(".mp-say")[0], outputs: texts("output"),
              paths: ["near", "far", "joined"]
                .map((kind) => host.querySelector(`.mp-grid .mp-${kind}`).getAttribute("d")),
            };
          });
        }""",
        STATES,
    )
    assert len(seen) == len(STATES) == 8 * 4 * 2 * 3 * 3
    for state, got in zip(STATES, seen, strict=True):
        window, dilation, causal, tokens, layers = state
        want = shown.readout(*state)
        assert got["say"] == want.pop("sentence")
        assert got["read"] == {name: str(value) for name, value in want.items()}
        assert got["outputs"] == [str(window), str(dilation), str(layers)]
        mask = expected_mask(N, window, dilation, causal, tokens)
        alone = expected_mask(N, window, dilation, causal, [])
        joined = torch.linalg.matrix_power(mask.double(), layers) > 0
        for path, pairs in zip(got["paths"], (alone, mask & ~alone, joined & ~mask), strict=True):
            places = re.findall(r"M([\d.]+) ([\d.]+)", path)
            cells = [(int(float(y)), int(float(x))) for x, y in places]
            assert cells == [tuple(pair) for pair in pairs.nonzero().tolist()]


@pytest.mark.browser
def test_by_keyboard(show):
    page = show(painter(), width=360)
    press = page.keyboard.press
    press("Tab")
    press("ArrowRight")
    assert state_of(page) == [6, 1, False, [], 1]
    slider = page.get_by_role("slider", name="window w")
    assert slider.get_attribute("aria-valuetext") == "window w 6"
    press("End")
    assert state_of(page)[0] == 16
    press("Home")
    assert state_of(page)[0] == 2
    press("Tab")
    press("ArrowRight")
    press("Tab")
    press("End")
    press("Tab")
    press("Space")
    assert state_of(page) == [2, 2, True, [], 4]
    assert page.get_by_role("checkbox", name="causal: no later key").is_checked()
    press("Tab")  # reset
    press("Tab")
    for key, token in [
        ("ArrowLeft", 0),
        ("ArrowRight", 1),
        ("End", 8),
        ("ArrowRight", 8),
        ("ArrowLeft", 7),
        ("Home", 0),
    ]:
        press(key)
        assert page.evaluate("document.activeElement.textContent") == str(token)
    press("Enter")
    press("End")
    press("Space")
    assert state_of(page)[3] == [0, 8]
    button = page.get_by_role("button", name="token 8 is global")
    assert button.get_attribute("aria-pressed") == "true"
    press("Enter")
    assert state_of(page)[3] == [0]
    assert page.locator("#painter .mp-tokens [tabindex='0']").count() == 1
    press("Shift+Tab")
    press("Enter")
    assert state_of(page) == [4, 1, False, [], 1]
    press("Tab")  # the strip is one stop, where it was left
    assert page.evaluate("document.activeElement.textContent") == "8"


@pytest.mark.browser
def test_state_can_be_set_from_behind_and_cleaned_up(show):
    shown = painter()
    page = show(shown)
    for name, value in (("global_tokens", [2]), ("causal", True), ("window", 10), ("layers", 2)):
        page.evaluate(
            "([n, v]) => document.getElementById('painter').model.set(n, v)", [name, value]
        )
    say = page.locator("#painter .mp-say")
    assert say.text_content() == shown.readout(10, 1, True, [2], 2)["sentence"]
    assert page.get_by_role("slider", name="window w").input_value() == "10"
    assert page.get_by_role("button", pressed=True).count() == 1
    left = page.evaluate(
        "() => { const host = document.getElementById('painter'); host.dispose();"
        "host.model.set('window', 2); return host.querySelectorAll('.mp').length }"
    )
    assert left == 0


@pytest.mark.browser
def test_touch_targets(show):
    page = show(MaskPainter(32, name="painter"), width=320, has_touch=True)
    page.get_by_role("button", name="token 31 is global").tap()
    page.get_by_role("checkbox").tap()
    assert state_of(page) == [8, 1, True, [31], 1]
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('.mp button, .mp [type=range], .mp label')]"
        ".map(n => n.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len(sizes) == 32 + 1 + 3 + 4 and all(min(size) >= 40 for size in sizes)


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows(show, width, script):
    shown = MaskPainter(32, window=62, global_tokens=range(32), label="L" * 60, name="painter")
    page = show(shown, width=width, java_script_enabled=script)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if not script:
        assert "With JavaScript window" in page.locator("#painter").inner_text()


@pytest.mark.browser
def test_roles_theme_and_neighbours(show):
    shown = painter(label="Pairs")
    page = show(shown, shown, mode="dark", color_scheme="light")
    page.wait_for_function("document.querySelectorAll('.mp[data-mode=dark]').length === 2")
    group = page.locator("#painter").get_by_role("group", name="Pairs")
    assert group.get_by_role("slider").count() == 3
    assert group.get_by_role("toolbar", name="Global tokens").get_by_role("button").count() == N
    assert group.get_by_role("img", name="Pairs: the mask of 9 by 9 pairs").count() == 1
    assert group.get_by_role("rowheader").count() == 6
    assert page.locator("#painter .mp-static, #painter .mp-picture").count() == 0
    assert page.locator("#painter [aria-live=polite]").count() == 1
    page.locator("#painter-2 .mp-tokens button").first.click()
    assert state_of(page) == [4, 1, False, [], 1]
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_function("document.querySelectorAll('.mp[data-mode=light]').length === 2")
