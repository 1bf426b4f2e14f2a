"""TokenStrip: what it says of a token, what it refuses, and that a browser shows the same."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from lib.teaching.components import TokenStrip, base
from lib.teaching.components.token_strip import SAYS, STEPS
from tests.browser import sticking_out
from tests.teaching.test_components import SURFACES, Parts, contrast, rgb, strip

WORDS = ["the", "cat", "drank", "milk", "and", "slept"]
SOURCE = Path(base.__file__).with_name(TokenStrip.MODULE).read_text(encoding="utf-8")


def bert(**options):
    """The masked step alone, with all three things that BERT does to a selected token."""
    return TokenStrip(
        WORDS,
        masked=["the", "[MASK]", "drank", "tree", "and", "slept"],
        selected=[False, True, False, True, True, False],
        candidates={4: [("and", 0.6004), ("but", 0.25), ("then", 0.1), ("or", 0.01)]},
        name="bert",
        **options,
    )


def page_state(component):
    return json.loads(Parts(component.html()).scripts[0][1])


# --- what it says ---------------------------------------------------------------------------


def test_the_steps_are_those_that_there_are_numbers_for():
    assert TokenStrip(WORDS).steps == ("original",)
    assert bert().steps == ("original", "masked")
    assert TokenStrip(WORDS, masked=WORDS, sampled=WORDS).steps == STEPS[:3]
    assert strip().steps == STEPS


def test_it_begins_with_the_last_step_and_the_first_selected_token():
    assert (strip().step, strip().position, strip().state) == ("judged", 1, "replaced")
    assert (TokenStrip(WORDS).step, TokenStrip(WORDS).position) == ("original", 0)
    shown = strip(step="masked", position=3)
    assert (shown.step, shown.position, shown.state) == ("masked", 3, "masked")


@pytest.mark.parametrize(
    ("shown", "step", "states"),
    [
        (strip(), "original", ["plain"] * 4),
        (strip(), "masked", ["plain", "masked", "plain", "masked"]),
        (strip(), "sampled", ["plain", "replaced", "plain", "hit"]),
        (strip(), "judged", ["plain", "replaced", "plain", "hit"]),
        (bert(), "masked", ["plain", "masked", "plain", "random", "kept", "plain"]),
    ],
)
def test_states(shown, step, states):
    read = [shown.readout(step, j) for j in range(len(states))]
    assert [one["state"] for one in read] == states
    if step != "judged":
        assert [one["says"] for one in read] == [SAYS[state] for state in states]


def test_tokens_of_each_step():
    want = {
        "original": ["the", "cat", "drank", "it"],
        "masked": ["the", "[MASK]", "drank", "[MASK]"],
        "sampled": ["the", "dog", "drank", "it"],
        "judged": ["the", "dog", "drank", "it"],
    }
    for step, tokens in want.items():
        assert [strip().readout(step, j)["token"] for j in range(4)] == tokens


def test_another_mask_token():
    shown = TokenStrip(["a", "b"], masked=["_", "c"], mask_token="_")
    assert [shown.readout("masked", j)["state"] for j in (0, 1)] == ["masked", "random"]


def test_numbers_wait_for_their_step():
    for step, guesses, replaced in [
        ("original", [], None),
        ("masked", [("dog", 0.5), ("cat", 0.25)], None),
        ("sampled", [("dog", 0.5), ("cat", 0.25)], None),
        ("judged", [("dog", 0.5), ("cat", 0.25)], 0.75),
    ]:
        read = strip().readout(step, 1)
        assert (read["candidates"], read["replaced"]) == (guesses, replaced)
    assert [strip().readout("judged", j)["says"] for j in range(4)] == [
        "0.13",
        "0.75",
        "0.25",
        "0.00",
    ]


def test_sentences():
    say = {(step, j): strip().readout(step, j)["sentence"] for step in STEPS for j in range(4)}
    assert say["original", 1] == "“cat” at 1 stands as it was written."
    assert say["masked", 1] == (
        "“cat” at 1 is hidden, and has to be guessed. "
        "The generator thinks of “dog” (0.500) and “cat” (0.250)."
    )
    assert say["sampled", 3] == (
        "“it” at 3 was hidden; the generator drew the same again, so the label is “original”. "
        "The generator thinks of “it” (0.750)."
    )
    assert say["judged", 1] == (
        "“cat” at 1 was hidden; the generator drew “dog”: replaced. "
        "The generator thinks of “dog” (0.500) and “cat” (0.250). "
        "The discriminator gives “replaced” a probability of 0.750: right at the threshold one "
        "half."
    )
    assert say["judged", 0].endswith("of 0.125: right at the threshold one half.")
    assert bert().readout("masked", 3)["sentence"] == (
        "“milk” at 3 has to be guessed; a random “tree” stands in its place."
    )
    assert bert().readout("masked", 4)["sentence"] == (
        "“and” at 4 has to be guessed, though it stands there itself. "
        "The model thinks of “and” (0.600), “but” (0.250) and “then” (0.100)."
    )
    assert repr(bert(label="L", position=0)) == (
        "L (6 tokens, step masked): “the” at 0 stands as it was written."
    )


@pytest.mark.parametrize(
    ("token", "p", "verdict"),
    [("b", 0.51, "right"), ("b", 0.5, "wrong"), ("a", 0.5, "right"), ("a", 0.51, "wrong")],
)
def test_the_verdict(token, p, verdict):
    shown = TokenStrip(["a"], masked=["[MASK]"], sampled=[token], replaced=[p])
    assert f": {verdict} at the threshold" in shown.readout("judged", 0)["sentence"]


def test_setting_the_state_updates_the_result():
    shown = strip()
    heard = []
    shown.observe(lambda change: heard.append(change["new"]), "state")
    shown.position = 3
    shown.step = "masked"
    shown.step = "original"
    assert heard == ["hit", "masked", "plain"]
    with pytest.raises(Exception, match="read-only"):
        shown.state = "plain"


def test_tensors_are_taken():
    shown = TokenStrip(
        ["a", "b"],
        masked=["a", "[MASK]"],
        selected=torch.tensor([False, True]),
        sampled=["a", "c"],
        replaced=torch.tensor([0.25, 0.5]),
    )
    assert shown.replaced == [0.25, 0.5] and shown.selected == [False, True]


# --- what it refuses ------------------------------------------------------------------------

AB = {"masked": ["a", "[MASK]"], "sampled": ["a", "c"]}


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([], {}, r"tokens: expected a non-empty list of strings, got \[\]"),
        ("ab", {}, r"tokens: expected a non-empty list of strings, got 'ab'"),
        (["a", ""], {}, r"tokens\[1\]: expected a non-empty string, got ''"),
        (["a", 1], {}, r"tokens\[1\]: expected a non-empty string, got 1"),
        (["a", "b"], {"masked": ["a"]}, r"masked: expected 2 strings as in tokens, got 1"),
        (["a", "b"], {"sampled": ["a", "b"]}, r"sampled: expected `masked` beside it, got none"),
        (
            ["a", "b"],
            {"masked": ["a", "b"], "replaced": [0, 1]},
            r"replaced: expected `sampled` beside it, got none",
        ),
        (["a", "b"], {"selected": [True]}, r"selected: expected 2 booleans, got \[True\]"),
        (["a", "b"], {"selected": [1, 0]}, r"selected: expected 2 booleans, got \[1, 0\]"),
        (
            ["a", "b"],
            {**AB, "selected": [True, False]},
            r"masked\[1\]: expected 'b', as it is not selected, got '\[MASK\]'",
        ),
        (
            ["a", "b"],
            {**AB, "sampled": ["c", "b"]},
            r"sampled\[0\]: expected 'a', as it is not selected, got 'c'",
        ),
        (["a", "b"], {**AB, "candidates": []}, r"candidates: expected .*"),
        (
            ["a", "b"],
            {**AB, "candidates": [1]},
            r"candidates: expected a dict \{position: guesses\}, got \[1\]",
        ),
        (
            ["a", "b"],
            {**AB, "candidates": {0: [("a", 1.0)]}},
            r"candidates\[0\]: expected the position of a selected token",
        ),
        (
            ["a", "b"],
            {**AB, "candidates": {2: [("a", 1.0)]}},
            r"candidates\[2\]: expected the position of a selected token",
        ),
        (
            ["a", "b"],
            {**AB, "candidates": {True: [("a", 1.0)]}},
            r"candidates\[True\]: expected the position of a selected token",
        ),
        (
            ["a", "b"],
            {**AB, "candidates": {1: [("", 1.0)]}},
            r"candidates\[1\]: expected non-empty strings, got .*",
        ),
        (
            ["a", "b"],
            {**AB, "candidates": {1: []}},
            r"candidates\[1\]: expected probabilities that sum to 1 at most, got \[\]",
        ),
        (
            ["a", "b"],
            {**AB, "candidates": {1: [("a", 0.75), ("b", 0.5)]}},
            r"candidates\[1\]: expected probabilities that sum to 1 at most, got \[0.75, 0.5\]",
        ),
        (
            ["a", "b"],
            {**AB, "candidates": {1: [("a", -0.5)]}},
            r"candidates\[1\]: expected probabilities that sum to 1 at most, got \[-0.5\]",
        ),
        (
            ["a", "b"],
            {**AB, "candidates": {1: [("a", 0.25), ("b", 0.5)]}},
            r"candidates\[1\]: expected the likeliest first, got \[0.25, 0.5\]",
        ),
        (["a", "b"], {**AB, "replaced": [0.5]}, r"replaced: expected 2 probabilities, got 1"),
        (
            ["a", "b"],
            {**AB, "replaced": [0.5, 1.5]},
            r"replaced\[1\]: expected a number from 0 to 1, got 1.5",
        ),
        (
            ["a", "b"],
            {**AB, "replaced": [math.nan, 0.5]},
            r"replaced\[0\]: expected a number from 0 to 1, got nan",
        ),
        (["a"], {"mask_token": ""}, r"mask_token: expected a non-empty string, got ''"),
        (["a"], {"label": " "}, r"label: expected a text, got ' '"),
        (["a"], {"name": "A b"}, r"component name: expected .*, got 'A b'"),
        (["a"], {"step": "masked"}, r"step: expected one of 'original', got 'masked'"),
        (["a"], {"position": 1}, r"position: expected one of 0 to 0, got 1"),
    ],
)
def test_what_does_not_fit(tokens, options, message):
    if options.get("candidates") == []:  # no guesses at all are no mistake
        assert TokenStrip(tokens, **options).candidates == {}
        return
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        TokenStrip(tokens, **options)
    assert "\n" not in str(caught.value)


def test_chances_may_reach_the_ends_and_miss_one_by_rounding():
    guesses = [("a", 1.0), ("b", 9e-6), ("c", 0.0)]
    shown = TokenStrip(["a", "b"], masked=["a", "[MASK]"], candidates={1: guesses})
    assert shown.candidates == {1: guesses}
    with pytest.raises(ValueError, match="sum to 1 at most"):
        TokenStrip(["a", "b"], masked=["a", "[MASK]"], candidates={1: [("a", 1.0), ("b", 2e-5)]})


# --- the page -------------------------------------------------------------------------------


def test_what_the_page_holds():
    shown = strip(name="strip")
    page = page_state(shown)
    assert (page["step"], page["position"]) == ("judged", 1)
    data = page["data"]
    assert data["label"] == shown.label and list(data["steps"]) == list(STEPS)
    assert data["steps"]["masked"]["tokens"] == ["the", "[MASK]", "drank", "[MASK]"]
    assert data["candidates"] == {
        "1": [["dog", 0.5, "0.500"], ["cat", 0.25, "0.250"]],
        "3": [["it", 0.75, "0.750"]],
    }
    assert data["replaced"] == [0.125, 0.75, 0.25, 0.0]
    assert page_state(bert())["data"]["replaced"] == []


def test_white_space_is_seen():
    shown = TokenStrip([" ", "\n"], masked=[" ", "[MASK]"], candidates={1: [(" ", 1.0)]})
    data = page_state(shown)["data"]
    assert data["steps"]["original"]["tokens"] == ["␣", "↵"]
    assert data["candidates"]["1"][0][0] == "␣"
    assert "“↵” at 1" in repr(shown) and "“␣” (1.000)" in repr(shown)


def test_nasty_tokens_are_text():
    parts = Parts(TokenStrip(["</script><b>", "<i>"], label="<u>").html())
    assert len(parts.scripts) == 2 and not {"i", "u"} & set(parts.tags)
    assert "</script><b>" in parts.text and "<u>" in parts.text


# --- in a browser ---------------------------------------------------------------------------


def state_of(page, ident):
    return page.evaluate(
        "id => { const m = document.getElementById(id).model;"
        "return [m.get('step'), m.get('position')] }",
        ident,
    )


@pytest.mark.browser
@pytest.mark.parametrize("shown", [strip(name="strip"), bert()], ids=lambda shown: shown.name)
def test_every_step_and_token_says_what_python_says(show, shown):
    page = show(shown, reduced_motion="reduce")
    read = page.evaluate(
        """id => {
          const host = document.getElementById(id);
          const texts = (selector) => [...host.querySelectorAll(selector)].map(n => n.textContent);
          const read = [];
          for (const box of host.querySelectorAll("input[name=step]")) {
            box.click();
            for (const token of host.querySelectorAll("[role=option]")) {
              token.click();
              read.push({
                step: box.value, position: Number(token.dataset.index),
                sentence: texts(".tk-say")[0],
                guesses: texts(".tk-guesses > span:not(.tk-track)"),
                bars: [...host.querySelectorAll(".tk-guesses .tk-bar")]
                  .map(n => Number(n.style.getPropertyValue("--p"))),
                tokens: texts(".tk-tokens .tk-glyph"), says: texts(".tk-says"),
                states: [...host.querySelectorAll("[role=option]")].map(n => n.dataset.state),
                judged: [...host.querySelectorAll(".tk-tokens .tk-track")]
                  .map(n => getComputedStyle(n).visibility),
              });
            }
          }
          return read;
        }""",
        shown.name,
    )
    n = len(shown.tokens)
    assert [(one["step"], one["position"]) for one in read] == [
        (step, j) for step in shown.steps for j in range(n)
    ]
    for one in read:
        all_tokens = [shown.readout(one["step"], j) for j in range(n)]
        want = all_tokens[one["position"]]
        assert one["sentence"] == want["sentence"]
        assert one["guesses"] == [
            text for t, p in want["candidates"] for text in (t, base.fixed(p, 3))
        ]
        assert one["bars"] == [round(p, 3) for _, p in want["candidates"]]
        assert one["tokens"] == [each["token"] for each in all_tokens]
        assert one["says"] == [each["says"] for each in all_tokens]
        assert one["states"] == [each["state"] for each in all_tokens]
        visible = "visible" if one["step"] == "judged" else "hidden"
        assert one["judged"] == ([] if shown.replaced is None else [visible] * n)


@pytest.mark.browser
def test_by_keyboard(show):
    page = show(strip(name="strip"), width=360)
    option = page.locator("#strip [role=option]")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert state_of(page, "strip") == ["sampled", 1]
    page.keyboard.press("Tab")
    assert option.nth(1).evaluate("node => node === document.activeElement")
    for key, position in [
        ("ArrowRight", 2),
        ("End", 3),
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("Home", 0),
        ("ArrowLeft", 0),
    ]:
        page.keyboard.press(key)
        assert state_of(page, "strip") == ["sampled", position]
        assert option.nth(position).evaluate("node => node === document.activeElement")
    assert page.locator("#strip [role=option][tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # previous, around the end
    assert state_of(page, "strip") == ["sampled", 3]
    page.get_by_role("button", name="next →").focus()
    page.keyboard.press("Enter")
    assert state_of(page, "strip") == ["sampled", 0]
    page.get_by_role("button", name="reset").focus()
    page.keyboard.press("Space")
    assert state_of(page, "strip") == ["judged", 1]
    assert page.get_by_role("radio", name="judged").is_checked()


@pytest.mark.browser
def test_up_and_down_go_by_lines(show):
    words = [f"word{j}" for j in range(24)]
    page = show(TokenStrip(words, name="long"), width=360)
    option = page.locator("#long [role=option]")
    option.nth(0).focus()
    page.keyboard.press("ArrowDown")
    below = state_of(page, "long")[1]
    boxes = [option.nth(j).bounding_box() for j in (0, below)]
    assert boxes[0]["x"] == boxes[1]["x"] and 0 < boxes[1]["y"] - boxes[0]["y"] < 90
    page.keyboard.press("ArrowUp")
    assert state_of(page, "long")[1] == 0


@pytest.mark.browser
def test_the_mouse_previews_and_a_finger_chooses(show):
    shown = strip(name="strip")
    page = show(shown)
    say = page.locator("#strip .tk-say")
    page.locator("#strip [role=option]").nth(3).hover()
    assert say.text_content() == shown.readout("judged", 3)["sentence"]
    assert state_of(page, "strip") == ["judged", 1]
    page.get_by_role("button", name="reset").hover()
    assert say.text_content() == shown.readout("judged", 1)["sentence"]

    page = show(strip(name="strip"), width=360, has_touch=True)
    page.locator("#strip [role=option]").nth(3).tap()
    page.get_by_role("radio", name="masked").tap()
    assert state_of(page, "strip") == ["masked", 3]
    over = {"pointerType": "touch", "bubbles": True}
    page.locator("#strip [role=option]").nth(0).dispatch_event("pointerover", over)
    assert page.locator("#strip .tk-say").text_content() == shown.readout("masked", 3)["sentence"]


@pytest.mark.browser
def test_state_can_be_set_from_behind_and_cleaned_up(show):
    shown = strip(name="strip")
    page = show(shown)
    page.evaluate("document.getElementById('strip').model.set('position', 3)")
    page.evaluate("document.getElementById('strip').model.set('step', 'masked')")
    say = page.locator("#strip .tk-say").text_content()
    assert say == shown.readout("masked", 3)["sentence"]
    assert page.get_by_role("radio", name="masked").is_checked()
    left = page.evaluate(
        "() => { const host = document.getElementById('strip'); host.dispose();"
        "host.model.set('position', 0); document.documentElement.dataset.theme = 'dark';"
        "return host.querySelectorAll('.tk').length }"
    )
    assert left == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows(show, width, script):
    long = "antidisestablishmentarianism" * 2
    tokens = [f"word{j}" for j in range(40)] + [long]
    masked = [*tokens[:-1], "[MASK]"]
    shown = TokenStrip(
        tokens,
        masked=masked,
        sampled=[*tokens[:-1], long + "s"],
        candidates={40: [(long, 0.75), ("short", 0.25)]},
        replaced=[0.5] * 41,
        label="L" * 60,
        name="strip",
    )
    page = show(shown, width=width, java_script_enabled=script)
    assert page.locator(".component[data-live]").count() == int(script)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.browser
def test_targets_are_large_enough(show):
    page = show(strip(name="strip"), width=320)
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('button, input, [role=option]')]"
        ".map(n => [n.getBoundingClientRect().width, n.getBoundingClientRect().height])"
    )
    assert len(sizes) == 3 + 4 + 4
    assert [size for size in sizes if size[0] < 24 or size[1] < 40] == []


@pytest.mark.browser
def test_readable_without_javascript(show):
    shown = strip(name="strip")
    page = show(shown, java_script_enabled=False)
    text = page.locator("#strip").inner_text()
    assert shown.readout("judged", 1)["sentence"] in text
    assert page.locator("#strip li").count() == 4 * 4
    assert page.locator("#strip b.changed").all_inner_texts() == [
        "[MASK]",
        "[MASK]",
        "dog",
        "it",
        "dog",
        "it",
    ]
    assert "With JavaScript" in text


@pytest.mark.parametrize("mode", SURFACES)
def test_frames_and_bars_are_seen_on_both_grounds(mode):
    surface = rgb(SURFACES[mode][0])
    block = re.search(r"\.tk \{(.*?)\}", SOURCE, re.DOTALL)[1]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    assert set(colours) == {"focus", "gone", "same"}
    if mode == "dark":
        colours["focus"] = re.search(r"data-mode=dark\] \{ --focus: (#\w{6})", SOURCE)[1]
    bar = [int(c) / 255 for c in re.search(r"--bar: (\d+) (\d+) (\d+)", block).groups()]
    for colour in [*map(rgb, colours.values()), bar]:
        assert contrast(colour, surface) >= 3
