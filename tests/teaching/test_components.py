"""The interactive components: the page they make, their state, and what a browser shows."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from lib.attention import causal_mask, scaled_dot_product_attention
from lib.teaching import components
from lib.teaching.components import (
    AttentionRows,
    Component,
    CostCalculator,
    CurveExplorer,
    MaskPainter,
    PositionRotation,
    Sampling,
    ScalePlanner,
    ShapleyGame,
    TemperatureSoftmax,
    TileStepper,
    TokenStrip,
    base,
)
from lib.teaching.components.temperature_softmax import (
    MEASURES,
    TEMPERATURES,
    measure,
    show_small,
    show_temperature,
)
from lib.teaching.figures import COLORS
from tests.browser import component_page, offline_page, sticking_out

FOLDER = Path(base.__file__).parent
ROWS = FOLDER / AttentionRows.MODULE
TEXT = 'The "for" statement is used to iterate over <the> elements & so\n'  # 64 characters
NASTY = ["</script><b>", '"', "&", "🙂", "\n", "<!--", "'", "\\u003c", " the", "\t"]
WIDGET = "application/vnd.jupyter.widget-view+json"

# The surfaces and inks that the book's theme uses, to be legible on.
SURFACES = {"light": ("#ffffff", "#222832"), "dark": ("#121212", "#ced6dd")}


def attention(n, heads=2, seed=0):
    """Weights of lib under two masks, as a chapter computes them."""
    generator = torch.Generator().manual_seed(seed)
    query, key = (
        2 * torch.randn(heads, n, 8, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return {
        "causal": scaled_dot_product_attention(
            query, key, key, causal_mask(n), return_weights=True
        )[1],
        "none": scaled_dot_product_attention(query, key, key, return_weights=True)[1],
    }


def rows(n=7, heads=2, **options):
    tokens = [chr(ord("a") + j % 26) for j in range(n)]
    return AttentionRows(tokens, attention(n, heads), **options)


def strip(**options):
    return TokenStrip(
        ["the", "cat", "drank", "it"],
        masked=["the", "[MASK]", "drank", "[MASK]"],
        sampled=["the", "dog", "drank", "it"],
        candidates={1: [("dog", 0.5), ("cat", 0.25)], 3: [("it", 0.75)]},
        replaced=[0.125, 0.75, 0.25, 0.0],
        **options,
    )


def every():
    """One of each component."""
    return [
        rows(name="rows"),
        CostCalculator(name="costs"),
        CurveExplorer([0, 1, 2], [1, 2], {"c": [[0, 1, 4], [0, 2, 8]]}, name="curves"),
        MaskPainter(8, window=4, name="painter"),
        PositionRotation(name="rotation"),
        Sampling(["the", " a", "\n"], [2.0, 1.0, 0.0], name="sampling"),
        ScalePlanner(name="planner"),
        ShapleyGame(name="shares"),
        TemperatureSoftmax(samples=4, name="softmax"),
        TileStepper(4, 2, (2, 3), name="tiles"),
        strip(name="strip"),
    ]


class Parts(HTMLParser):
    """The scripts of a piece of HTML, the ids, the tags, and the text a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.ids, self.tags, self.text = [], [], [], ""
        self._inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        self._inside = tag
        if tag == "script":
            self.scripts.append((attrs.get("type"), ""))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        elif self._inside != "style":
            self.text += data


EVERY = pytest.mark.parametrize("component", every(), ids=lambda component: component.name)


def page_state(component):
    return json.loads(Parts(component.html()).scripts[0][1])


# --- the modules ----------------------------------------------------------------------------


def test_each_component_is_one_module():
    modules = [shown.MODULE for shown in every()]
    shared = {name for shown in every() for name in shown.SHARED}
    assert sorted([*modules, *shared]) == sorted(path.name for path in FOLDER.glob("*.js"))
    assert {type(shown).__name__ for shown in every()} == set(components.__all__) - {"Component"}


@EVERY
def test_what_modules_share_stands_before_each(component):
    assert component.SHARED[0] == Component.SHARED[0] == "common.js"
    files = [(FOLDER / name).read_text("utf-8") for name in (*component.SHARED, component.MODULE)]
    assert component.source() == "\n".join(files)
    names = re.findall(r"^(?:function|const) (\w+)", component.source(), re.M)
    assert len(names) == len(set(names)) and {"make", "followTheme", "render"} <= set(names)


@EVERY
def test_module_is_small_and_self_contained(component):
    source = component.source()
    assert len(source.encode()) <= 20_000
    assert source.endswith("\nexport default { render };\n")
    code = re.sub(r"^\s*//.*$", "", source, flags=re.M)
    assert not re.search(r"\bimport\b|\bfetch\b|https?:|innerHTML|outerHTML|\beval\b", code)
    # Either would end or confuse the inline script that carries the module.
    assert "</script" not in source.lower() and "<!--" not in source


@EVERY
@pytest.mark.skipif(
    shutil.which("node") is None, reason="no node; the browser tests parse the modules as well"
)
def test_module_parses_in_node(component, tmp_path):
    copy = tmp_path / f"{component.name}.mjs"  # node takes a .js file for CommonJS
    copy.write_text(component.source(), encoding="utf-8")
    done = subprocess.run(["node", "--check", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@EVERY
def test_colours_are_those_of_the_figures(component):
    source = component.source().lower()
    # beside the book's own: the sky blue that the focus ring and the query have in dark mode
    known = {colour.lower() for colour in COLORS.values()} | {"#56b4e9"}
    assert set(re.findall(r"#[0-9a-f]{6}\b", source)) <= known
    channels = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in known}
    named = re.findall(r"^.*--\w+: (\d+) (\d+) (\d+);", source, re.M)
    assert {tuple(map(int, one)) for one in named} <= channels


# --- the page -------------------------------------------------------------------------------


@EVERY
def test_html_holds_fallback_data_and_module(component):
    text = component.html()
    kind = type(component).__name__
    assert text.startswith(f'<div class="component" data-component="{kind}" id="{component.name}">')
    parts = Parts(text)
    assert [kind for kind, _ in parts.scripts] == ["application/json", "module"]
    state = json.loads(parts.scripts[0][1])
    assert set(state) == {"data", *component.STATE}
    assert {name: state[name] for name in component.STATE} == {
        name: getattr(component, name) for name in component.STATE
    }
    assert "export" not in re.sub(r"//.*", "", parts.scripts[1][1])
    assert component.label in parts.text


def test_json_cannot_close_its_script():
    n = len(NASTY)
    weights = torch.eye(n, dtype=torch.float64)[None]
    shown = AttentionRows(NASTY, {"</script><i>": weights}, label="</script> & <b>", name="nasty")
    parts = Parts(shown.html())
    assert len(parts.scripts) == 2 and not set("<>&") & set(parts.scripts[0][1])
    assert not {"b>", "i"} & set(parts.tags)
    data = json.loads(parts.scripts[0][1])["data"]
    assert data["tokens"] == [
        t.replace("\n", "↵").replace(" ", "␣").replace("\t", "⇥") for t in NASTY
    ]
    assert data["label"] == "</script> & <b>"
    assert parts.text.count("</script><b>") == 1


def test_json_is_compact():
    n, heads = 64, 4
    text = AttentionRows(list(TEXT), attention(n, heads), name="rows").html()
    assert len(text.encode()) < 110_000
    assert ": " not in base.to_json({"a": [1, 2.5]}) and base.to_json([1, 2]) == "[1,2]"
    with pytest.raises(ValueError, match="JSON"):
        base.to_json(math.nan)


def test_html_is_reproducible_and_ids_are_unique():
    assert rows(name="one").html() == rows(name="one").html()
    assert rows().name == rows().name != rows(row=2).name
    assert TemperatureSoftmax(samples=2).html() == TemperatureSoftmax(samples=2).html()
    shown = rows(name="one")
    assert Parts(shown.html() + shown.html() + shown.html()).ids == ["one", "one-2", "one-3"]


def test_text_plain_is_one_sentence(monkeypatch):
    monkeypatch.setenv("EXECUTABLE_TRANSFORMER_STATIC", "1")
    for component in every():
        bundle = component._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/html"}
        assert bundle["text/plain"] == repr(component)
        assert "\n" not in bundle["text/plain"] and bundle["text/plain"].endswith(".")


# --- AttentionRows --------------------------------------------------------------------------


def test_readout_is_the_row_of_lib():
    weights = attention(7)
    shown = AttentionRows(list("abcdefg"), weights)
    for mask in weights:
        for head in range(2):
            for row in range(7):
                p = weights[mask][head, row]
                read = shown.readout(row, head, mask)
                entropy = -sum(w * math.log(w) for w in p.tolist() if w > 0)
                assert read["entropy"] == pytest.approx(entropy, abs=1e-12)
                best, value = read["top"][0]
                assert (best, value) == (p.argmax().item(), p.max().item())
                keys = row + 1 if mask == "causal" else 7
                assert read["shown"] == [math.floor(1000 * w + 0.5) for w in p[:keys].tolist()] + (
                    [-1] * (7 - keys)
                )


def test_sentence():
    weights = torch.tensor([[[0.7, 0.2, 0.1], [0, 1, 0], [0, 0, 0]]], dtype=torch.float64)
    masks = {"m": torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]], dtype=torch.bool)}
    shown = AttentionRows(["a", " ", "\n"], {"m": weights}, masks=masks, label="L")
    assert shown.readout(0, 0, "m")["sentence"] == (
        "“a” at 0 attends most to “a” at 0 (0.700), “␣” at 1 (0.200) and “↵” at 2 (0.100); "
        "entropy 0.802 nats, at most ln 3 = 1.099."
    )
    assert shown.readout(1, 0, "m")["sentence"] == (
        "“␣” at 1 attends most to “␣” at 1 (1.000); entropy 0.000 nats, at most ln 2 = 0.693."
    )
    nothing = "“↵” at 2 may attend to nothing: its output is zero."
    assert shown.readout(2, 0, "m")["sentence"] == nothing
    assert (shown.strongest, shown.max_weight, shown.entropy) == (-1, 0.0, 0.0)
    assert repr(shown) == f"L (3 tokens, head 0 of 1, mask m): {nothing}"


def test_equal_weights_rank_in_the_order_of_the_text():
    shown = AttentionRows(list("abcd"), {"none": torch.full((1, 4, 4), 0.25)})
    assert [j for j, _ in shown.readout(3, 0, "none")["top"]] == [0, 1, 2]


def test_masked_means_masked_in_every_head():
    weights = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]])
    shown = AttentionRows(["a", "b"], {"m": weights})
    assert shown.readout(0, 0, "m")["shown"] == [1000, -1]
    assert shown.readout(1, 1, "m")["shown"] == [1000, 0]
    assert page_state(shown)["data"]["weights"]["m"] == [[[1000], [500, 500]], [[1000], [1000, 0]]]
    everything = torch.ones(2, 2, dtype=torch.bool)
    shown = AttentionRows(["a", "b"], {"m": weights}, masks={"m": everything})
    assert shown.readout(0, 0, "m")["shown"] == [1000, 0]
    assert page_state(shown)["data"]["weights"]["m"][0] == [[1000, 0], [500, 500]]


def test_setting_the_state_updates_the_results():
    shown = rows(row=0)
    heard = []
    shown.observe(lambda change: heard.append((change["name"], change["new"])), "entropy")
    assert shown.entropy == 0.0 and shown.strongest == 0
    shown.row = 3
    first = shown.readout(3, 0, "causal")
    assert shown.entropy == first["entropy"] and heard == [("entropy", first["entropy"])]
    shown.head, shown.mask_name = 1, "none"
    read = shown.readout(3, 1, "none")
    assert (shown.strongest, shown.max_weight) == read["top"][0] and shown.entropy == read[
        "entropy"
    ]
    assert shown.summary().endswith(read["sentence"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("row", 7, r"row: expected one of 0 to 6, got 7"),
        ("row", -1, r"row: expected one of 0 to 6, got -1"),
        ("row", "x", r"row: expected one of 0 to 6, got 'x'"),
        ("row", True, r"row: expected one of 0 to 6, got True"),
        ("head", 2, r"head: expected one of 0 to 1, got 2"),
        ("mask_name", "all", r"mask_name: expected one of 'causal', 'none', got 'all'"),
    ],
)
def test_rows_refuse_a_state_that_is_not_there(name, value, message):
    shown = rows(row=2)
    with pytest.raises(ValueError, match=f"^{message}$"):
        setattr(shown, name, value)
    assert (shown.row, shown.head, shown.mask_name) == (2, 0, "causal")
    with pytest.raises(ValueError, match=f"^{message}$"):
        rows(**{name: value})


def test_results_are_read_only():
    with pytest.raises(Exception, match="read-only"):
        rows().entropy = 1.0


UNIFORM = torch.full((2, 3, 3), 1 / 3)


@pytest.mark.parametrize(
    ("tokens", "weights", "options", "message"),
    [
        ([], {"m": UNIFORM}, {}, r"tokens: expected a non-empty list of strings, got \[\]"),
        (["a", "", "c"], {"m": UNIFORM}, {}, r"tokens\[1\]: expected a non-empty string, got ''"),
        (["a", 1, "c"], {"m": UNIFORM}, {}, r"tokens\[1\]: expected a non-empty string, got 1"),
        ("abc", UNIFORM, {}, r"weights: expected a dict .*, got Tensor"),
        ("abc", {}, {}, r"weights: expected a dict .*, got an empty one"),
        ("abc", {0: UNIFORM}, {}, r"weights: expected a mask's name as key, got 0"),
        ("abc", {"m": UNIFORM[0]}, {}, r".*expected shape \(h, 3, 3\) for 3 tokens, got \(3, 3\)"),
        ("abcd", {"m": UNIFORM}, {}, r".*expected shape \(h, 4, 4\) for 4 tokens, got \(2, 3, 3\)"),
        ("abc", {"m": UNIFORM[:0]}, {}, r".*expected shape \(h, 3, 3\).*, got \(0, 3, 3\)"),
        ("abc", {"m": UNIFORM, "n": UNIFORM[:1]}, {}, r"weights\['n'\]: expected 2 heads.*, got 1"),
        ("abc", {"m": UNIFORM.long()}, {}, r".*expected floating point numbers, got torch.int64"),
        ("abc", {"m": -UNIFORM}, {}, r".*expected weights in \[0, 1\], got -0.3333 to -0.3333"),
        ("abc", {"m": UNIFORM / 0}, {}, r".*expected weights in \[0, 1\], got inf to inf"),
        ("abc", {"m": UNIFORM * math.nan}, {}, r".*expected weights in \[0, 1\], got nan to nan"),
        ("abc", {"m": UNIFORM / 2}, {}, r"weights\['m'\]\[0, 0\]: .*got a sum of 0.5"),
        ("abc", {"m": UNIFORM}, {"masks": 1}, r"masks: expected a dict .*, got 1"),
        (
            "abc",
            {"m": UNIFORM},
            {"masks": {"x": 1}},
            r"masks: expected names from \['m'\], got 'x'",
        ),
        (
            "abc",
            {"m": UNIFORM},
            {"masks": {"m": torch.ones(3, 3)}},
            r"masks\['m'\]: expected torch.bool \(3, 3\), got torch.float32 \(3, 3\)",
        ),
        (
            "abc",
            {"m": UNIFORM},
            {"masks": {"m": causal_mask(3)}},
            r"masks\['m'\]: expected weight 0 where it forbids, got 0.3333 from query 0 to key 1",
        ),
        ("abc", {"m": UNIFORM}, {"label": " "}, r"label: expected a text, got ' '"),
        ("abc", {"m": UNIFORM}, {"choice": ""}, r"choice: expected a text, got ''"),
        ("abc", {"m": UNIFORM}, {"name": "A b"}, r"component name: expected .*, got 'A b'"),
    ],
)
def test_rows_refuse_what_does_not_fit(tokens, weights, options, message):
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        AttentionRows(tokens, weights, **options)
    assert "\n" not in str(caught.value)


def test_rows_name_the_choice_as_they_are_told():
    shown = AttentionRows("abc", {"layer 1": UNIFORM, "layer 2": UNIFORM}, choice="Shown")
    assert "head 0 of 2, shown layer 1" in shown.summary()
    assert "(head 0, shown layer 1)" in shown.html()
    assert '"choice":"Shown"' in shown.html() and "choices(choice," in shown.source()
    assert "every token, head and shown can" in shown.html()
    assert "mask none" in rows(mask_name="none").summary()


def test_rows_take_what_models_give():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        given = torch.softmax(torch.randn(2, 5, 5), -1).to(dtype).requires_grad_()
        assert AttentionRows("abcde", {"none": given}).weights["none"].dtype == torch.float64
    given = torch.softmax(torch.randn(2, 5, 5), -1).numpy()
    assert AttentionRows(tuple("abcde"), {"none": given}).tokens == list("abcde")


# --- TemperatureSoftmax ---------------------------------------------------------------------


def test_readout_is_softmax_of_the_scores():
    shown = TemperatureSoftmax(samples=3, seed=5)
    for d in shown.dimensions:
        for scaled in (True, False):
            for temperature in (0.125, 1.0, 8.0):
                read = shown.readout(d, scaled, temperature, 1)
                logits = (shown.key[1, :, :d] * shown.query[1, :, :d]).sum(-1)
                scores = logits / ((math.sqrt(d) if scaled else 1) * temperature)
                p = torch.softmax(scores, 0)
                # The square of the norm in closed form, an independent way to the same number.
                square = (p**2).sum() - 2 * (p**3).sum() + (p**2).sum() ** 2
                entropy = torch.distributions.Categorical(p).entropy().item()
                assert read["scores"] == pytest.approx(scores.tolist(), rel=1e-12, abs=1e-12)
                assert read["weights"] == pytest.approx(p.tolist(), rel=1e-9, abs=1e-12)
                assert read["entropy"] == pytest.approx(entropy, abs=1e-9)
                assert read["entropy_fraction"] == pytest.approx(entropy / math.log(12), abs=1e-9)
                assert read["max_weight"] == pytest.approx(p.max().item(), abs=1e-12)
                assert read["jacobian_norm"] == pytest.approx(
                    square.clamp_min(0).sqrt().item(), abs=1e-7
                )


def test_the_jacobian_is_that_of_autograd():
    p = torch.softmax(torch.randn(9, dtype=torch.float64), 0)
    true = torch.autograd.functional.jacobian(lambda x: torch.softmax(x, 0), p.log())
    assert measure(p)["jacobian_norm"] == pytest.approx(true.norm().item(), abs=1e-15)


def test_a_temperature_of_root_d_is_the_scaling():
    shown = TemperatureSoftmax(samples=2)
    for d in shown.dimensions:
        assert math.sqrt(d) in TEMPERATURES
        scaled = shown.readout(d, True, 1.0, 0)
        heated = shown.readout(d, False, math.sqrt(d), 0)
        assert scaled["weights"] == pytest.approx(heated["weights"], abs=1e-13)
        assert scaled["mean"] == pytest.approx(heated["mean"], abs=1e-12)


def test_scaling_keeps_the_entropy_and_its_absence_loses_it():
    shown = TemperatureSoftmax()
    scaled = [shown.readout(d, True, 1.0, 0)["mean"] for d in shown.dimensions]
    raw = [shown.readout(d, False, 1.0, 0)["mean"] for d in shown.dimensions]
    fractions = [mean["entropy_fraction"] for mean in raw]
    assert fractions == sorted(fractions, reverse=True) and fractions[-1] < 0.1
    assert all(0.75 < mean["entropy_fraction"] < 0.9 for mean in scaled)
    assert all(mean["jacobian_norm"] > 0.25 for mean in scaled)


def test_setting_the_controls_updates_the_results():
    shown = TemperatureSoftmax(samples=3)
    shown.dimension, shown.scaled, shown.temperature, shown.sample = 256, False, 2, 1
    read = shown.readout(256, False, 2.0, 1)
    assert [getattr(shown, name) for name in MEASURES] == [read[name] for name in MEASURES]
    shown.temperature = 0.33  # not on the slider, and allowed
    assert shown.entropy == shown.readout(256, False, 0.33, 1)["entropy"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dimension", 65, r"dimension: expected one of 4, 16, 64, 256, 1024, got 65"),
        ("scaled", 1, r"scaled: expected True or False, got 1"),
        ("temperature", 0, r"temperature: expected a finite number above 0, got 0"),
        ("temperature", -1.0, r"temperature: expected a finite number above 0, got -1.0"),
        ("temperature", math.inf, r"temperature: expected a finite number above 0, got inf"),
        ("temperature", math.nan, r"temperature: expected a finite number above 0, got nan"),
        ("temperature", "1", r"temperature: expected a finite number above 0, got '1'"),
        ("sample", 24, r"sample: expected one of 0 to 23, got 24"),
    ],
)
def test_softmax_refuses_a_state_that_is_not_there(name, value, message):
    shown = TemperatureSoftmax()
    with pytest.raises(ValueError, match=f"^{message}$"):
        setattr(shown, name, value)
    assert (shown.dimension, shown.scaled, shown.temperature, shown.sample) == (64, True, 1.0, 0)
    with pytest.raises(ValueError, match=f"^{message}$"):
        TemperatureSoftmax(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": ()}, r"dimensions: expected positive integers, got \(\)"),
        ({"dimensions": (0, 4)}, r"dimensions: expected positive integers, got \(0, 4\)"),
        ({"dimensions": (16, 4)}, r"dimensions: expected ascending integers, got \(16, 4\)"),
        ({"keys": 1}, r"keys: expected an integer in 2 to 16, got 1"),
        ({"samples": 0}, r"samples: expected an integer in 1 to 32, got 0"),
        ({"label": ""}, r"label: expected a text, got ''"),
    ],
)
def test_softmax_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TemperatureSoftmax(**options)


def test_numbers_are_written_as_javascript_writes_them():
    assert [base.fixed(x, 3) for x in (0.0625, 0.0005, 2, -0.0625, -1e-9)] == [
        "0.063",
        "0.001",
        "2.000",
        "−0.063",
        "−0.000",
    ]
    assert [show_small(x) for x in (0.25, 0.0005, 0.00049, 4.12e-7, 2e-10, 0.0)] == [
        "0.250",
        "0.001",
        "4.9e-4",
        "4.1e-7",
        "<1e-9",
        "<1e-9",
    ]
    assert [show_temperature(x) for x in (1.0, 0.125, 32.0)] == ["1", "0.125", "32"]
    with pytest.raises(ValueError, match="expected a finite one, got nan"):
        base.fixed(math.nan, 3)


# --- with and without a widget --------------------------------------------------------------


def test_a_live_notebook_gets_a_widget_and_html(monkeypatch):
    monkeypatch.delenv("EXECUTABLE_TRANSFORMER_STATIC", raising=False)
    for component in every():
        bundle = component._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/html", WIDGET}
        assert bundle[WIDGET]["model_id"] == component.widget().model_id
        assert component._repr_mimebundle_()[WIDGET] == bundle[WIDGET]


def test_widget_and_traits_follow_each_other():
    shown = rows()
    widget = shown.widget()
    state = widget.get_state()
    assert {name: state[name] for name in shown.STATE} == {
        "row": 6,
        "head": 0,
        "mask_name": "causal",
    }
    assert state["data"] == page_state(shown)["data"]
    assert state["_esm"].endswith("export default { render };\n")
    shown.row = 3
    assert widget.row == 3
    widget.set_state({"row": 2, "mask_name": "none"})  # as a message from the page does
    assert (shown.row, shown.mask_name) == (2, "none")
    assert shown.entropy == shown.readout(2, 0, "none")["entropy"]


def test_static_and_bare_get_html_only(monkeypatch):
    monkeypatch.setenv("EXECUTABLE_TRANSFORMER_STATIC", "1")
    assert WIDGET not in rows()._repr_mimebundle_()
    monkeypatch.delenv("EXECUTABLE_TRANSFORMER_STATIC")
    find_spec = base.importlib.util.find_spec
    monkeypatch.setattr(
        base.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "anywidget" else find_spec(name, *rest),
    )
    shown = rows()
    assert WIDGET not in shown._repr_mimebundle_()
    shown.row = 3
    assert shown.entropy == shown.readout(3, 0, "causal")["entropy"]


def test_nothing_imports_anywidget_before_a_widget_is_asked_for():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "from lib.teaching.components import TemperatureSoftmax\n"
        "w = TemperatureSoftmax(samples=2); w.temperature = 2.0; print(len(w.html()) > 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_component_has_to_say_what_it_shows():
    with pytest.raises(NotImplementedError, match="Component writes no summary"):
        Component().summary()
    with pytest.raises(NotImplementedError, match="Component writes no fallback"):
        Component()._fallback()


# --- legible --------------------------------------------------------------------------------


def luminance(channels):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_contrast_formula():
    assert contrast([0, 0, 0], [1, 1, 1]) == pytest.approx(21)


@pytest.mark.parametrize("mode", SURFACES)
def test_a_token_is_legible_at_every_weight(mode):
    surface, ink = map(rgb, SURFACES[mode])
    weights = rgb(COLORS["weights"])
    strength = float(re.search(r"calc\((\.\d+) \* var\(--tint", ROWS.read_text())[1])
    for step in range(101):
        alpha = strength * step / 100
        tinted = [alpha * c + (1 - alpha) * s for c, s in zip(weights, surface, strict=True)]
        assert contrast(ink, tinted) >= 4.5
    assert contrast(weights, surface) >= 3
    query = "#0072b2" if mode == "light" else "#56b4e9"
    assert f"--query: {query}" in ROWS.read_text()
    assert contrast(rgb(query), surface) >= 3


# --- in a browser ---------------------------------------------------------------------------


def state_of(page, ident):
    return page.evaluate(
        "id => { const m = document.getElementById(id).model;"
        "return ['row', 'head', 'mask_name', 'dimension', 'scaled', 'temperature', 'sample']"
        ".filter(k => m.get(k) !== undefined).map(k => m.get(k)) }",
        ident,
    )


@pytest.mark.browser
@EVERY
def test_module_keeps_the_contract_of_anywidget(browser, component):
    with offline_page(browser) as (page, seen):
        exported, heard, inside, after, left = page.evaluate(
            """async ([source, state]) => {
              const blob = new Blob([source], { type: "text/javascript" });
              const module = await import(URL.createObjectURL(blob));
              const heard = [];
              let saved = 0;
              const model = {
                get: (name) => state[name],
                set: (name, value) => { state[name] = value; },
                save_changes: () => { saved += 1; },
                on: (event, listener) => heard.push([event, listener]),
                off: (event, listener) => {
                  const at = heard.findIndex(([e, l]) => e === event && l === listener);
                  heard.splice(at, at < 0 ? 0 : 1);
                },
              };
              const el = document.body.appendChild(document.createElement("div"));
              const done = module.default.render({ model, el });
              const events = heard.map(([event]) => event);
              el.querySelector("button").click();
              const inside = [el.childElementCount, saved];
              const root = el.firstElementChild;
              await done();
              root.dataset.mode = "left alone";
              document.documentElement.dataset.theme = "dark";
              await new Promise(requestAnimationFrame);
              if (root.dataset.mode !== "left alone") throw Error("still follows the theme");
              const exported = [Object.keys(module), Object.keys(module.default)];
              return [exported, events, inside, heard.length, el.childElementCount];
            }""",
            [component.source(), page_state(component)],
        )
    assert exported == [["default"], ["render"]]
    assert heard == [f"change:{name}" for name in component.STATE]
    assert inside == [1, 1]
    assert (after, left) == (0, 0)
    assert seen.clean()


@pytest.mark.browser
def test_every_weight_shown_is_libs(show):
    weights = attention(64, 3)
    shown = AttentionRows(list(TEXT), weights, name="rows")
    page = show(shown, reduced_motion="reduce")
    read = page.evaluate(
        """() => {
          const host = document.getElementById("rows");
          const read = {};
          for (const mask of ["causal", "none"]) for (const head of [0, 1, 2]) {
            host.querySelector(`input[name=mask_name][value=${mask}]`).click();
            host.querySelector(`input[name=head][value="${head}"]`).click();
            for (const [row, token] of host.querySelectorAll("[role=option]").entries()) {
              token.click();
              read[`${mask} ${head} ${row}`] = [
                [...host.querySelectorAll(".ar-token .ar-number")].map(n => n.textContent),
                [...host.querySelectorAll("[role=option]")].map(t => t.ariaLabel),
                [...host.querySelectorAll(".ar-tokens .ar-bar")]
                  .map(b => b.getBoundingClientRect().width),
                host.querySelector(".ar-say").textContent,
              ];
            }
          }
          return read;
        }"""
    )
    assert len(read) == 2 * 3 * 64
    for mask, stack in weights.items():
        for head in range(3):
            for row in range(64):
                numbers, names, widths, sentence = read[f"{mask} {head} {row}"]
                assert sentence == shown.readout(row, head, mask)["sentence"]
                for j, weight in enumerate(stack[head, row].tolist()):
                    masked = mask == "causal" and j > row
                    text = "–" if masked else base.fixed(weight, 3).removeprefix("0")
                    assert numbers[j] == text
                    end = ", masked" if masked else ""
                    assert names[j].endswith(f" {text}, position {j}{end}")
                    assert widths[j] == pytest.approx(32 * weight, abs=0.05)


@pytest.mark.browser
def test_every_number_of_the_softmax_is_libs(show):
    shown = TemperatureSoftmax(samples=4, name="softmax")
    page = show(shown)
    grid = [
        (d, scaled, temperature, sample)
        for d in shown.dimensions
        for scaled in (True, False)
        for temperature in range(len(TEMPERATURES))
        for sample in range(4)
    ]
    read = page.evaluate(
        """grid => {
          const host = document.getElementById("softmax");
          const one = (selector) => host.querySelector(selector);
          const fire = (node, kind) => node.dispatchEvent(new Event(kind, { bubbles: true }));
          const texts = (selector) => [...host.querySelectorAll(selector)].map(n => n.textContent);
          const step = one(".ts-steps button");
          return grid.map(([d, scaled, temperature, sample]) => {
            one("select").value = d; fire(one("select"), "change");
            if (one("[type=checkbox]").checked !== scaled) one("[type=checkbox]").click();
            one("[type=range]").value = temperature; fire(one("[type=range]"), "input");
            while (host.model.get("sample") !== sample) step.click();
            return {
              scores: texts(".ts-body > :first-child tbody td:nth-child(2)"),
              weights: texts(".ts-weight"),
              now: texts("[data-value]"), mean: texts("[data-mean]"),
              temperature: texts("output")[0], which: texts(".ts-steps span")[0],
              sentence: texts(".ts-say")[0],
              widths: [...host.querySelectorAll(".ts-bar")].map(b => b.style.width),
            };
          });
        }""",
        grid,
    )
    assert len(read) == 5 * 2 * 33 * 4
    for (d, scaled, index, sample), got in zip(grid, read, strict=True):
        temperature = TEMPERATURES[index]
        want = shown.readout(d, scaled, temperature, sample)

        def three(measures):
            return [base.fixed(measures[m], 3) for m in MEASURES[:3]] + [
                show_small(measures["jacobian_norm"])
            ]

        assert got["scores"] == [base.fixed(s, 2) for s in want["scores"]]
        assert got["weights"] == [base.fixed(p, 3) for p in want["weights"]]
        assert [float(w.removesuffix("%")) for w in got["widths"]] == pytest.approx(
            [100 * p for p in want["weights"]], abs=1e-3
        )
        assert got["now"] == three(want)
        assert got["mean"] == three(want["mean"])
        assert got["temperature"] == show_temperature(temperature)
        assert got["which"] == f"{sample + 1} of 4"
        shown.dimension, shown.scaled = d, scaled
        shown.temperature, shown.sample = temperature, sample
        assert got["sentence"] == shown._sentence()


@pytest.mark.browser
def test_rows_by_keyboard(show):
    page = show(rows(64, 3, name="rows", row=5), width=360)
    option = page.locator("#rows [role=option]")
    for _ in range(3):  # head, mask, then the list of tokens
        page.keyboard.press("Tab")
    assert option.nth(5).evaluate("node => node === document.activeElement")
    for key, row in [
        ("ArrowRight", 6),
        ("ArrowLeft", 5),
        ("End", 63),
        ("ArrowRight", 63),
        ("Home", 0),
        ("ArrowLeft", 0),
    ]:
        page.keyboard.press(key)
        assert state_of(page, "rows") == [row, 0, "causal"]
        assert option.nth(row).evaluate("node => node === document.activeElement")
    page.keyboard.press("ArrowDown")
    below = state_of(page, "rows")[0]
    boxes = [option.nth(j).bounding_box() for j in (0, below)]
    assert boxes[0]["x"] == boxes[1]["x"] and 0 < boxes[1]["y"] - boxes[0]["y"] < 90
    page.keyboard.press("ArrowUp")
    assert state_of(page, "rows")[0] == 0
    assert option.nth(0).get_attribute("aria-selected") == "true"
    assert page.locator("#rows [role=option][tabindex='0']").count() == 1

    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    assert state_of(page, "rows") == [0, 1, "none"]
    for name, row in [("next →", 1), ("next →", 2), ("← previous", 1), ("← previous", 0)]:
        page.get_by_role("button", name=name).focus()
        page.keyboard.press("Enter")
        assert state_of(page, "rows")[0] == row
    page.keyboard.press("Enter")
    assert state_of(page, "rows")[0] == 63
    page.get_by_role("button", name="reset").focus()
    page.keyboard.press("Space")
    assert state_of(page, "rows") == [5, 0, "causal"]
    assert page.get_by_role("radio", name="causal").is_checked()


@pytest.mark.browser
def test_softmax_by_keyboard(show):
    shown = TemperatureSoftmax(samples=3, name="softmax")
    page = show(shown)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert state_of(page, "softmax") == [64, False, 1, 0]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert state_of(page, "softmax") == [256, False, 1, 0]
    page.keyboard.press("Tab")
    for _ in range(16):
        page.keyboard.press("ArrowRight")
    assert state_of(page, "softmax") == [256, False, 16, 0]
    assert page.get_by_role("slider", name="temperature T").get_attribute("aria-valuetext") == (
        "temperature 16"
    )
    page.keyboard.press("Home")
    assert state_of(page, "softmax")[2] == 0.125
    page.keyboard.press("Tab")
    for sample in (1, 2, 0):
        page.keyboard.press("Enter")
        assert state_of(page, "softmax")[3] == sample
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert state_of(page, "softmax") == [64, True, 1, 0]
    assert page.get_by_role("checkbox", name="scale by 1/√d").is_checked()
    assert page.get_by_role("combobox", name="dimension d").input_value() == "64"


@pytest.mark.browser
def test_mouse_previews_and_leaves_the_choice(show):
    shown = rows(name="rows", row=1)
    page = show(shown)
    say = page.locator("#rows .ar-say")
    page.locator("#rows [role=option]").nth(4).hover()
    assert say.text_content() == shown.readout(4, 0, "causal")["sentence"]
    assert state_of(page, "rows")[0] == 1
    page.get_by_role("button", name="reset").hover()
    assert say.text_content() == shown.readout(1, 0, "causal")["sentence"]
    page.locator("#rows [role=option]").nth(4).click()
    page.locator("#rows [role=option]").nth(2).hover()
    page.keyboard.press("ArrowRight")  # a key is a choice, wherever the mouse rests
    assert say.text_content() == shown.readout(5, 0, "causal")["sentence"]
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="reset").hover()
    assert say.text_content() == shown.readout(4, 0, "causal")["sentence"]
    box = page.locator("#rows canvas").bounding_box()
    page.locator("#rows canvas").click(position={"x": 9, "y": box["height"] * 2.5 / 7})
    page.get_by_role("button", name="reset").hover()
    assert state_of(page, "rows")[0] == 2


@pytest.mark.browser
def test_touch(show):
    shown = rows(64, name="rows")
    page = show(shown, TemperatureSoftmax(samples=2, name="softmax"), width=360, has_touch=True)
    page.locator("#rows [role=option]").nth(9).tap()
    page.get_by_role("radio", name="none").tap()
    assert state_of(page, "rows") == [9, 0, "none"]
    assert page.locator("#rows .ar-say").text_content() == shown.readout(9, 0, "none")["sentence"]
    # A finger that only passes, to scroll, chooses nothing.
    over = {"pointerType": "touch", "bubbles": True}
    page.locator("#rows [role=option]").nth(3).dispatch_event("pointerover", over)
    assert page.locator("#rows .ar-say").text_content() == shown.readout(9, 0, "none")["sentence"]
    page.get_by_role("checkbox", name="scale by 1/√d").tap()
    page.get_by_role("button", name="new sample").tap()
    assert state_of(page, "softmax") == [64, False, 1, 1]


@pytest.mark.browser
def test_targets_are_large_enough(show):
    page = show(rows(64, 8, name="rows"), TemperatureSoftmax(name="softmax"), width=320)
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('button, input, select, [role=option]')]"
        ".map(n => [n.getBoundingClientRect(), n.tagName]).map(([r, t]) => [t, r.width, r.height])"
    )
    assert len(sizes) == 64 + 8 + 2 + 3 + 3 + 2
    assert [size for size in sizes if min(size[1:]) < 24] == []
    # Everything but the checkbox, whose label is larger, is made for a finger.
    assert [size for size in sizes if size[0] != "INPUT" and size[2] < 40] == []


@pytest.mark.browser
def test_several_on_one_page_do_not_meddle(show):
    one = rows(name="one", row=0)
    again, other = one.html() + one.html(), rows(name="other", row=2)
    softmax = TemperatureSoftmax(samples=2, name="softmax")
    page = show(again, other, softmax, softmax)
    assert page.locator(".component[data-live]").count() == 5
    assert page.locator(".component-view .ar, .component-view .ts").count() == 5
    assert page.locator(".ar-static, .ts-static").count() == 0  # the fallback has made way
    page.locator("#one-2 [role=option]").nth(5).click()
    page.locator("#one-2 input[value=none]").check()
    page.locator("#softmax-2 input[type=checkbox]").uncheck()
    assert [state_of(page, ident) for ident in ("one", "one-2", "other")] == [
        [0, 0, "causal"],
        [5, 0, "none"],
        [2, 0, "causal"],
    ]
    assert page.locator("#one input[value=causal]").is_checked()
    assert [state_of(page, ident)[1] for ident in ("softmax", "softmax-2")] == [True, False]


@pytest.mark.browser
def test_state_can_be_set_from_behind_and_cleaned_up(show):
    shown = rows(name="rows")
    page = show(shown)
    say = page.locator("#rows .ar-say")
    page.evaluate("document.getElementById('rows').model.set('row', 3)")
    assert say.text_content() == shown.readout(3, 0, "causal")["sentence"]
    page.evaluate("document.getElementById('rows').model.set('head', 1)")
    assert say.text_content() == shown.readout(3, 1, "causal")["sentence"]
    assert page.get_by_role("radio", name="1").is_checked()
    left = page.evaluate(
        "() => { const host = document.getElementById('rows'); host.dispose();"
        "host.model.set('row', 1); document.documentElement.dataset.theme = 'dark';"
        "return host.querySelectorAll('.ar').length }"
    )
    assert left == 0


@pytest.mark.browser
def test_a_temperature_between_the_steps_of_the_slider(show):
    shown = TemperatureSoftmax(samples=2, temperature=0.33, name="softmax")
    page = show(shown)
    assert page.locator("#softmax output").text_content() == "0.33"
    assert page.locator("#softmax .ts-say").text_content() == shown._sentence()
    assert TEMPERATURES[int(page.locator("#softmax input[type=range]").input_value())] == 0.354


@pytest.mark.browser
def test_scores_that_would_overflow_an_exponential(show):
    shown = TemperatureSoftmax(
        samples=2, dimension=1024, scaled=False, temperature=0.01, name="softmax"
    )
    assert max(shown.readout(1024, False, 0.01, 0)["scores"]) > 710
    page = show(shown)
    assert page.locator("#softmax .ts-say").text_content() == shown._sentence()
    assert "largest weight 1.000, Jacobian norm <1e-9" in shown._sentence()


@pytest.mark.browser
def test_nasty_tokens_are_text(show):
    n = len(NASTY)
    page = show(
        AttentionRows(NASTY, {"<i>none</i>": torch.eye(n)[None]}, label="<b>&amp;", name="nasty")
    )
    glyphs = page.locator("#nasty .ar-tokens .ar-glyph").all_text_contents()
    assert glyphs == [t.replace("\n", "↵").replace(" ", "␣").replace("\t", "⇥") for t in NASTY]
    assert page.locator("#nasty b, #nasty i").count() == 0
    assert page.locator("#nasty .ar-label").text_content() == "<b>&amp;"
    assert page.get_by_role("radio", name="<i>none</i>").is_checked()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 1280])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_nothing_overflows(show, width, script):
    words = ["antidisestablishmentarianism" * 2, " of", " the", "\n"]
    page = show(
        AttentionRows(list(TEXT), attention(64, 8), label="L" * 60, name="rows"),
        AttentionRows(words, attention(4), name="words"),
        TemperatureSoftmax(
            keys=16, dimension=1024, scaled=False, temperature=0.125, name="softmax"
        ),
        width=width,
        java_script_enabled=script,
    )
    assert page.locator(".component[data-live]").count() == (3 if script else 0)
    assert sticking_out(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.browser
def test_readable_without_javascript(show):
    shown = AttentionRows(list(TEXT), attention(64), name="rows", row=40)
    softmax = TemperatureSoftmax(name="softmax")
    page = show(shown, softmax, java_script_enabled=False)
    text = page.locator("#rows").inner_text()
    assert shown.readout(40, 0, "causal")["sentence"] in text
    assert page.locator("#rows li").count() == 64
    assert page.locator("#rows b.query").inner_text() == TEXT[40].replace(" ", "␣")
    cells = page.locator("#softmax tbody tr").all_inner_texts()
    assert len(cells) == 10
    mean = softmax.readout(64, False, 1.0, 0)["mean"]
    assert cells[4].split() == [
        "64",
        "1",
        base.fixed(mean["entropy_fraction"], 3),
        base.fixed(mean["max_weight"], 3),
        show_small(mean["jacobian_norm"]),
    ]
    assert "With JavaScript" in page.locator("#softmax").inner_text()


@pytest.mark.browser
def test_a_module_that_throws_leaves_the_fallback(browser, tmp_path):
    shown = rows(name="rows")
    path = tmp_path / "page.html"
    broken = shown.html().replace("function render({ model, el }) {", "$& throw Error('x');", 1)
    broken = broken.replace("$& ", "function render({ model, el }) {")
    path.write_text(component_page(broken), encoding="utf-8")
    with offline_page(browser) as (page, seen):
        page.goto(path.as_uri())
        assert shown.readout(6, 0, "causal")["sentence"] in page.locator("#rows").inner_text()
    assert seen.errors == ["x"]


@pytest.mark.browser
def test_follows_the_theme(show):
    page = show(*every(), mode="dark", color_scheme="light")
    modes = "[...document.querySelectorAll('.ar, .tk, .ts')].map(n => n.dataset.mode)"
    page.wait_for_function(f"{modes}.join() === 'dark,dark,dark'")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_function(f"{modes}.join() === 'light,light,light'")
    assert page.evaluate(modes) == ["light"] * 3


@pytest.mark.browser
def test_motion_only_for_those_who_want_it(show):
    def moves(motion):
        page = show(*every(), reduced_motion=motion)
        return page.evaluate(
            "() => [...document.querySelectorAll('.component *')]"
            ".filter(n => getComputedStyle(n).transitionDuration !== '0s').length"
        )

    assert moves("no-preference") > 0
    assert moves("reduce") == 0


@pytest.mark.browser
def test_roles_and_names(show):
    page = show(*every())
    group = page.get_by_role("group", name="Attention, one query at a time")
    assert group.get_by_role("listbox").get_by_role("option").count() == 7
    assert group.get_by_role("option", name=", position 2").count() == 1
    assert group.get_by_role("group", name="Head").get_by_role("radio").count() == 2
    assert group.get_by_role("img", name="All weights of head 0").count() == 1
    for ident in ("rows", "softmax", "strip"):
        live = page.locator(f"#{ident} [aria-live=polite]")
        assert live.count() == 1 and live.text_content().endswith(".")
