"""lib.teaching.figures: colours that everybody sees, and SVG that can stand in any page."""

import base64
import itertools
import re
import struct
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from lib.teaching import figures
from lib.teaching.figures import (
    BACKGROUNDS,
    COLORS,
    INK,
    contrast,
    figure_svg,
    heatmap,
    new_figure,
    show_figure,
    use_style,
)

ALT = "A straight line that rises from one to three."
SVG = "{http://www.w3.org/2000/svg}"

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        mpl.use("agg")
        use_style()
        yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(figures, "publish", bundles.append)
    return bundles


def line_figure():
    fig, ax = new_figure()
    ax.plot([1, 2, 3], label="a line")
    ax.set(xlabel=r"scale $\sqrt{d}$", ylabel="value", title="Title")
    ax.legend()
    return fig


def lab(colour, vision):
    """Return CIELAB coordinates of a colour as somebody with this vision sees it."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    t = np.array(to_xyz) @ seen / [0.9505, 1.0, 1.089]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the known near miss
    assert contrast("#808080", "#808080") == 1


@pytest.mark.parametrize("background", [*BACKGROUNDS.values(), "#121212"])
@pytest.mark.parametrize("name", COLORS)
def test_every_colour_is_seen_on_light_and_on_dark(name, background):
    assert contrast(COLORS[name], background) >= 3


@pytest.mark.parametrize("vision", VISION)
def test_no_two_colours_are_alike_for_any_colour_vision(vision):
    pairs = itertools.combinations(COLORS, 2)
    distance = {
        pair: np.linalg.norm(lab(COLORS[pair[0]], vision) - lab(COLORS[pair[1]], vision))
        for pair in pairs
    }
    closest = min(distance, key=distance.get)
    assert distance[closest] >= 9, closest  # 2.3 is a just noticeable difference


def test_the_tensors_keep_okabe_and_itos_colours():
    tensors = {name: COLORS[name] for name in ("query", "key", "value", "output")}
    assert tensors == {
        "query": "#0072B2",
        "key": "#D55E00",
        "value": "#009E73",
        "output": "#CC79A7",
    }


def test_curves_differ_in_line_style_too():
    cycle = list(mpl.rcParams["axes.prop_cycle"])
    assert len({str(entry["linestyle"]) for entry in cycle}) == len(cycle) == 6
    assert [entry["color"] for entry in cycle][:3] == [
        COLORS[name] for name in ("query", "key", "value")
    ]


def test_ink_is_no_colour_that_anything_else_uses():
    used = {mpl.colors.to_hex(colour) for colour in [*COLORS.values(), "black", "white"]}
    used |= {mpl.colors.to_hex(colour) for colour in mpl.colormaps["cividis"](np.arange(256))}
    assert mpl.colors.to_hex(INK) == INK
    assert INK not in used


def test_the_output_has_its_form(shown):
    show_figure(line_figure(), "fig-a-line", "A < B & $y < x$.", 'A "line", rising' + "." * 30)
    (bundle,) = shown
    assert bundle["text/plain"] == 'Figure fig-a-line: A "line", rising' + "." * 30
    match = re.fullmatch(
        r'<figure class="book-figure" id="fig-a-line"><div class="book-figure-image" role="img" '
        r'aria-label="A &quot;line&quot;, rising\.{30}">(<svg .*</svg>)</div>'
        r"<figcaption>A &lt; B &amp; \$y &lt; x\$\.</figcaption></figure>",
        bundle["text/html"],
        re.DOTALL,
    )
    assert match
    root = ET.fromstring(match[1])
    assert root.get("width") == "100%"
    assert root.get("height") is None
    assert root.get("viewBox") == "0 0 374.4 216"
    assert root.get("style").startswith("max-width: 499px; height: auto;")
    assert (root.get("aria-hidden"), root.get("focusable")) == ("true", "false")


def test_it_closes_the_figure(shown):
    fig = line_figure()
    assert plt.get_fignums()
    show_figure(fig, "fig-a-line", "A line.", ALT)
    assert plt.get_fignums() == []


def test_it_prints_the_alternative_in_plain_python(capsys):
    show_figure(line_figure(), "fig-a-line", "A line.", ALT)
    assert capsys.readouterr().out == f"Figure fig-a-line: {ALT}\n"


def test_text_and_axes_follow_the_page(shown):
    svg = figure_svg(line_figure(), "fig-a-line")
    assert INK not in svg
    assert "#000000" not in svg
    assert "fill: currentColor" in svg  # text
    assert "stroke: currentColor" in svg  # axes
    assert COLORS["query"].lower() in svg


def test_the_background_is_transparent():
    root = ET.fromstring(figure_svg(line_figure(), "fig-a-line"))
    filled = [e.get("style") for e in root.iter() if "#ffffff" in (e.get("style") or "")]
    assert filled == []


def test_the_same_figure_gives_the_same_bytes():
    assert figure_svg(line_figure(), "fig-a-line") == figure_svg(line_figure(), "fig-a-line")


class Ids(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.references, self.tags = [], set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("href", "xlink:href") and value.startswith("#"):
                self.references.add(value[1:])
            self.references.update(re.findall(r"url\(#([^)]*)\)", value or ""))


def test_two_figures_share_no_id_and_every_reference_arrives(shown):
    for name in ("fig-one", "fig-two"):
        fig, axes = new_figure(2, 1)
        axes[0].plot([1, 2, 3], marker="o")
        heatmap(axes[1], np.full((3, 3), -np.inf))  # hatched
        show_figure(fig, name, "A line.", ALT)
    page = Ids("".join(bundle["text/html"] for bundle in shown))
    assert len(page.ids) == len(set(page.ids))
    assert page.references == set(page.ids) - {"fig-one", "fig-two"}
    assert len(page.references) > 20
    assert all(name.startswith(("fig-one", "fig-two")) for name in page.ids)


def test_nothing_in_the_svg_reaches_out_of_it():
    svg = figure_svg(line_figure(), "fig-a-line")
    assert Ids(svg).tags <= {"svg", "g", "path", "defs", "use", "clippath", "rect", "image"}
    assert "xlink" not in svg
    assert "<!--" not in svg
    assert "ns0" not in svg
    assert "<?xml" not in svg and "<!DOCTYPE" not in svg
    assert re.findall(r"https?://[^\s\"']+", svg) == ["http://www.w3.org/2000/svg"]


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", text)]


def test_rounding_moves_nothing_by_more_than_half_a_hundredth(monkeypatch):
    def paths(svg):
        root = ET.fromstring(svg)
        return [n for e in root.iter(SVG + "path") for n in numbers(e.get("d", ""))]

    rounded = paths(figure_svg(line_figure(), "fig-a-line"))
    monkeypatch.setattr(figures, "_rounded", lambda match: match.group())
    exact = paths(figure_svg(line_figure(), "fig-a-line"))
    assert rounded != exact
    np.testing.assert_allclose(rounded, exact, atol=0.0051, rtol=0)


def test_letters_keep_their_scale():
    svg = figure_svg(line_figure(), "fig-a-line")
    assert 'transform="scale(0.015625)"' in svg
    assert "scale(0.1 -0.1)" in svg


def test_a_figure_is_light():
    svg = figure_svg(line_figure(), "fig-a-line")
    assert len(svg) < 20_000
    # what draws nothing is left out
    assert all(len(group) for group in ET.fromstring(svg).iter(SVG + "g"))
    assert '<path style="fill: none"' not in svg
    assert 'style="fill: none" />' not in svg


@pytest.mark.parametrize("name", ["attention", "fig-", "fig-A", "fig_a", "fig-a b", 'fig-"a'])
def test_a_name_is_a_label(name, shown):
    with pytest.raises(ValueError, match="expected a name like fig-attention-scale"):
        show_figure(line_figure(), name, "A line.", ALT)
    assert shown == []


@pytest.mark.parametrize("length, fits", [(39, False), (40, True), (250, True), (251, False)])
def test_an_alternative_has_40_to_250_characters(length, fits, shown):
    if fits:
        show_figure(line_figure(), "fig-a", "A line.", "x" * length)
        assert len(shown) == 1
    else:
        with pytest.raises(ValueError, match=f"fig-a: expected an alt of 40 to 250.*got {length}"):
            show_figure(line_figure(), "fig-a", "A line.", "x" * length)


@pytest.mark.parametrize("alt", [" " * 60, "x" * 50 + " ", "x" * 30 + "\n" + "x" * 30])
def test_an_alternative_is_one_line_of_text(alt):
    with pytest.raises(ValueError, match="in one line"):
        show_figure(line_figure(), "fig-a", "A line.", alt)


@pytest.mark.parametrize("caption", ["", " ", "a single $ sign"])
def test_a_caption_is_needed_and_its_math_is_closed(caption):
    with pytest.raises(ValueError, match="fig-a: expected a caption"):
        show_figure(line_figure(), "fig-a", caption, ALT)


def test_a_wide_figure_is_an_error():
    fig, _ = new_figure(size=(5.3, 3.0))
    with pytest.raises(ValueError, match=r"fig-a: 5\.3 in is wider than 5\.2 in; stack"):
        show_figure(fig, "fig-a", "A line.", ALT)


@pytest.mark.parametrize(
    "tiny",
    [
        lambda fig, ax: ax.set_xlabel("tiny", fontsize=8.9),
        lambda fig, ax: ax.tick_params(labelsize=8),
        lambda fig, ax: ax.text(0.5, 0.5, "tiny", fontsize=6),
        lambda fig, ax: ax.legend(["tiny"], fontsize=8),
        lambda fig, ax: fig.suptitle("tiny", fontsize=5),
    ],
)
def test_small_text_is_an_error(tiny):
    fig, ax = new_figure()
    ax.plot([1, 2, 3])
    tiny(fig, ax)
    with pytest.raises(ValueError, match=r"fig-a: text '.+' has \d\.\d pt, expected 9 or more"):
        show_figure(fig, "fig-a", "A line.", ALT)


def test_small_text_that_is_not_drawn_is_no_error(shown):
    fig, axes = new_figure(2, 1)
    axes[0].plot([1, 2, 3])
    axes[0].text(0.5, 0.5, " ", fontsize=5)
    axes[0].text(0.5, 0.5, "tiny", fontsize=5, visible=False)
    axes[1].set_xlabel("tiny", fontsize=5)
    axes[1].axis("off")
    show_figure(fig, "fig-a", "A line.", ALT)
    assert len(shown) == 1


def test_text_in_a_colour_of_its_own_is_an_error():
    fig, ax = new_figure()
    ax.set_title("blue", color=COLORS["query"])
    with pytest.raises(ValueError, match="fig-a: text 'blue' is #0072b2, not ink"):
        show_figure(fig, "fig-a", "A line.", ALT)


def test_a_figure_in_matplotlibs_own_style_is_an_error():
    with mpl.style.context("default"):
        fig, ax = plt.subplots(figsize=(5, 3))
        ax.plot([1, 2, 3])
        with pytest.raises(ValueError, match="not ink: call start"):
            show_figure(fig, "fig-a", "A line.", ALT)


def test_text_beyond_the_edge_is_an_error():
    fig, _ax = new_figure()
    fig.text(0.9, 0.5, "a long remark that leaves the figure")
    with pytest.raises(ValueError, match=r"text 'a long remark.*' is cut off"):
        show_figure(fig, "fig-a", "A line.", ALT)


def test_texts_that_overlap_are_an_error():
    fig, ax = new_figure()
    ax.set_xticks([0, 0.1, 1], ["a long label", "another", "far away"])
    with pytest.raises(ValueError, match="fig-a: texts 'a long label' and 'another' overlap"):
        show_figure(fig, "fig-a", "A line.", ALT)


def test_numbers_too_wide_for_their_cells_are_an_error():
    fig, ax = new_figure()
    heatmap(ax, np.random.default_rng(0).random((12, 12)), annotate=True)
    with pytest.raises(ValueError, match=r"fig-a: texts '0\.\d\d' and '0\.\d\d' overlap"):
        show_figure(fig, "fig-a", "A map.", ALT)


def test_ticks_beyond_the_limits_are_no_error(shown):
    fig, ax = new_figure()
    ax.plot([1, 2, 3])
    ax.set_xticks([0, 1, 50])
    ax.set_xlim(0, 2)
    show_figure(fig, "fig-a", "A line.", ALT)
    assert len(shown) == 1


@pytest.mark.parametrize("colour", ["yellow", "black", "#101010", "white", "navy"])
def test_a_line_that_one_theme_hides_is_an_error(colour):
    fig, ax = new_figure()
    ax.plot([1, 2, 3], color=colour)
    with pytest.raises(ValueError, match=r"fig-a: a line in #\w{6} has contrast [12]\.\d"):
        show_figure(fig, "fig-a", "A line.", ALT)


def test_a_line_in_ink_is_fine(shown):
    fig, ax = new_figure()
    ax.plot([1, 2, 3], color=INK)
    show_figure(fig, "fig-a", "A line.", ALT)
    assert "stroke: currentColor; stroke-width: 1.8" in shown[0]["text/html"]


def test_subplots_grow_with_their_rows():
    fig, axes = new_figure(3, 2, sharex=True)
    assert axes.shape == (3, 2)
    assert tuple(fig.get_size_inches()) == (5.2, pytest.approx(3.0 * 2.6))


def test_a_heat_map_has_row_0_on_top_and_labels_at_the_cells():
    fig, ax = new_figure()
    mesh = heatmap(ax, torch.arange(6.0).reshape(2, 3), ["a", "b", "c"], ["x", "y"])
    fig.canvas.draw()
    assert ax.get_ylim() == (1.5, -0.5)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x", "y"]
    assert list(ax.get_xticks()) == [0, 1, 2]
    assert mesh.get_array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 5)
    assert mesh.cmap.name == "cividis"


def test_long_labels_stand_upright():
    _fig, (short, long) = new_figure(1, 2)
    heatmap(short, np.eye(2), ["a", "of"])
    heatmap(long, np.eye(2), ["a", "the"])
    assert {t.get_rotation() for t in short.get_xticklabels()} == {0}
    assert {t.get_rotation() for t in long.get_xticklabels()} == {90}


def test_rows_without_labels_have_whole_numbers():
    for size in (2, 3, 6, 30):
        _fig, ax = new_figure()
        heatmap(ax, np.eye(size))
        assert all(float(tick).is_integer() for tick in [*ax.get_xticks(), *ax.get_yticks()])


@pytest.mark.parametrize("cmap", ["cividis", "RdBu", "gray"])
def test_cell_text_is_readable_on_its_cell(cmap):
    _fig, ax = new_figure()
    values = np.linspace(-1, 1, 40).reshape(5, 8)
    mesh = heatmap(ax, values, annotate=True, cmap=cmap)
    assert len(ax.texts) == 40
    for text, value in zip(ax.texts, values.flat, strict=True):
        assert text.get_color() in ("#000000", "#ffffff")
        assert contrast(text.get_color(), mesh.cmap(mesh.norm(value))) >= 4.5


def test_cell_text_keeps_its_colour_in_the_page():
    fig, ax = new_figure()
    heatmap(ax, [[0.0, 1.0]], annotate=True)
    svg = figure_svg(fig, "fig-a")
    assert "fill: #ffffff" in svg  # on dark blue
    # black is SVG's default, which matplotlib leaves out; ink is written out
    assert INK not in svg
    root = ET.fromstring(svg)
    assert root.find(f".//{SVG}use") is not None


def test_cell_text_has_the_format_asked_for():
    _fig, axes = new_figure(2, 1)
    heatmap(axes[0], [[-1.25, -0.001, 0.5]], annotate=".1f")
    heatmap(axes[1], [[np.nan, -np.inf, np.inf]], annotate=True)
    assert [text.get_text() for text in axes[0].texts] == ["−1.2", "0.0", "0.5"]
    assert [text.get_text() for text in axes[1].texts] == ["", "−∞", "∞"]
    assert {text.get_color() for text in axes[1].texts} == {INK}


def test_masked_cells_stay_empty_and_are_hatched():
    _fig, (whole, masked, annotated) = new_figure(3, 1)
    heatmap(whole, [[1.0, 2.0]])
    mesh = heatmap(masked, [[1.0, -np.inf]])
    heatmap(annotated, [[1.0, -np.inf]], annotate=True)
    assert mesh.get_array().mask.tolist() == [[False, True]]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (1, 2)
    assert masked.patch.get_hatch()
    assert whole.patch.get_hatch() is None
    assert annotated.patch.get_hatch() is None


def test_a_large_matrix_is_an_image_of_one_pixel_a_cell():
    fig, ax = new_figure()
    heatmap(ax, np.random.default_rng(0).random((20, 21)))
    svg = figure_svg(fig, "fig-a")
    (image,) = ET.fromstring(svg).iter(SVG + "image")
    assert "image-rendering:pixelated" in image.get("style")
    assert image.get("transform").startswith("matrix(")
    png = base64.b64decode(image.get("href").partition(",")[2])
    assert struct.unpack(">II", png[16:24]) == (21, 20)  # width, height in the header
    assert len(png) < 3_000


def test_a_small_matrix_is_drawn_as_vectors():
    fig, ax = new_figure()
    heatmap(ax, np.random.default_rng(0).random((20, 20)))
    assert "<image" not in figure_svg(fig, "fig-a")


@pytest.mark.parametrize(
    "matrix, labels, message",
    [
        (np.zeros(3), {}, r"expected a matrix, got shape \(3,\)"),
        (np.zeros((0, 3)), {}, r"expected a matrix, got shape \(0, 3\)"),
        (np.zeros((2, 3)), {"xlabels": ["a", "b"]}, "expected 3 xlabels, got 2"),
        (np.zeros((2, 3)), {"ylabels": ["a"]}, "expected 2 ylabels, got 1"),
    ],
)
def test_a_heat_map_of_something_else_is_an_error(matrix, labels, message):
    _fig, ax = new_figure()
    with pytest.raises(ValueError, match=f"^heatmap: {message}$"):
        heatmap(ax, matrix, **labels)


def test_a_constant_matrix_has_a_scale():
    _fig, ax = new_figure()
    mesh = heatmap(ax, np.full((2, 2), 0.5))
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0.5, 1.5)
    mesh = heatmap(ax, np.full((2, 2), -np.inf))
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0.0, 1.0)


def test_the_style_asks_for_no_font_that_matplotlib_lacks():
    assert mpl.rcParams["font.sans-serif"] == ["DejaVu Sans"]
    assert mpl.font_manager.findfont("DejaVu Sans", fallback_to_default=False)
