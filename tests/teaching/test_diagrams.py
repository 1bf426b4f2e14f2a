"""Diagrams are to scale, and nothing overlaps what it must not."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

from lib.teaching.diagrams import Matrix, matrix_products, network, residual_block

LEFT = Matrix("A", "m", "k", 2.0, 1.0, "#0072B2")
RIGHT = Matrix("B", "k", "n", 1.0, 3.0, "#D55E00")
PRODUCT = Matrix("C", "m", "n", 2.0, 3.0, "#009E73")


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def boxes(ax):
    """One (x, y, width, height) a matrix, in drawing order: the outlines, not the tints."""
    found = [p for p in ax.patches if isinstance(p, Rectangle) and not p.get_fill()]
    return [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in found]


def test_boxes_have_the_lengths_given_on_one_scale(ax):
    matrix_products(ax, [[LEFT, ("×", 0.5), RIGHT], [PRODUCT]])
    assert [b[2:] for b in boxes(ax)] == [(1.0, 2.0), (3.0, 1.0), (3.0, 2.0)]
    assert ax.get_aspect() == 1.0


def test_boxes_do_not_overlap_and_lie_inside_the_axes(ax):
    matrix_products(ax, [[LEFT, ("×", 0.5), RIGHT, ("=", 0.5), PRODUCT], [PRODUCT, LEFT]])
    found = boxes(ax)
    for i, (x, y, w, h) in enumerate(found):
        assert ax.get_xlim()[0] <= x and x + w <= ax.get_xlim()[1]
        assert ax.get_ylim()[0] <= y and y + h <= ax.get_ylim()[1]
        for u, v, p, q in found[i + 1 :]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y


def test_every_name_and_dimension_is_written(ax):
    matrix_products(ax, [[LEFT, ("×", 0.5), RIGHT]])
    assert sorted(t.get_text() for t in ax.texts) == sorted("AmkBkn×")


def test_a_row_is_centred_on_one_line(ax):
    matrix_products(ax, [[LEFT, RIGHT, PRODUCT]])
    assert len({y + h / 2 for _, y, _, h in boxes(ax)}) == 1


def arrows(ax):
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def test_a_network_has_a_circle_and_a_name_for_each_node_and_an_arrow_for_each_edge(ax):
    rows = [["a", "b"], ["h_1", "h_2", "h_3"]]
    network(ax, rows, [((0, 0), (1, 0)), ((1, 0), (1, 2))], path=[(1, 0), (1, 2)], color="#D55E00")
    circles = [patch for patch in ax.patches if isinstance(patch, Circle)]
    assert [circle.center for circle in circles] == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1)]
    assert [text.get_text() for text in ax.texts] == ["a", "b", "h_1", "h_2", "h_3"]
    plain, marked = arrows(ax)
    assert marked.get_linewidth() > plain.get_linewidth()
    assert to_hex(marked.get_edgecolor()) == "#d55e00" != to_hex(plain.get_edgecolor())
    coloured = [to_hex(circle.get_edgecolor()) == "#d55e00" for circle in circles]
    assert coloured == [False, False, True, False, True]
    ends = [tuple(map(tuple, arrow._posA_posB)) for arrow in arrows(ax)]
    assert ends == [((0, 0), (0, 1)), ((0, 1), (2, 1))]


@pytest.mark.parametrize(
    ("edges", "path", "message"),
    [
        ([((0, 0), (1, 5))], [], r"edges: expected nodes of the rows, got \(1, 5\)"),
        ([((0, 0), (1, 0))], [(0, 0), (1, 1)], r"path: expected steps along edges, got \(0, 0\)"),
        ([((0, 0), (1, 0))], [(1, 0), (0, 0)], r"path: expected steps along edges, got \(1, 0\)"),
    ],
)
def test_a_network_draws_no_way_that_is_not_there(ax, edges, path, message):
    with pytest.raises(ValueError, match=message):
        network(ax, [["a", "b"], ["c", "d"]], edges, path=path)


def norms_and_sums(ax):
    """Of each LN: whether it is on the stream; the heights of norms, sublayers and sums."""
    norms = [t.get_position() for t in ax.texts if t.get_text() == "LN"]
    heights = {t.get_text(): t.get_position()[1] for t in ax.texts if t.get_text() != "LN"}
    sums = [t.get_position()[1] for t in ax.texts if t.get_text() == "+"]
    return norms, heights, sums


def test_post_norm_stands_on_the_stream_above_each_sum(ax):
    residual_block(ax, ["first", "second"], norm="post")
    norms, heights, sums = norms_and_sums(ax)
    assert [x for x, _ in norms] == [0, 0]
    assert heights["first"] < sums[0] < norms[0][1] < heights["second"] < sums[1] < norms[1][1]


def test_pre_norm_stands_in_the_branch_below_each_sublayer(ax):
    residual_block(ax, ["first", "second"], norm="pre")
    norms, heights, sums = norms_and_sums(ax)
    assert min(x for x, _ in norms) > 1
    assert norms[0][1] < heights["first"] < sums[0] < norms[1][1] < heights["second"] < sums[1]


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_boxes_of_a_block_do_not_overlap_and_no_line_crosses_one(ax, norm):
    residual_block(ax, ["a", "b", "c"], norm=norm)
    found = boxes(ax)
    assert len(found) == 6
    for i, (x, y, w, h) in enumerate(found):
        assert ax.get_xlim()[0] <= x and x + w <= ax.get_xlim()[1]
        assert ax.get_ylim()[0] <= y and y + h <= ax.get_ylim()[1]
        for u, v, p, q in found[i + 1 :]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y
        for line in ax.lines:
            xs, ys = line.get_data()
            inside_x = max(xs) > x + 1e-9 and min(xs) < x + w - 1e-9
            inside_y = max(ys) > y + 1e-9 and min(ys) < y + h - 1e-9
            assert not (inside_x and inside_y)


def test_a_norm_stands_before_or_after(ax):
    with pytest.raises(ValueError, match="expected 'post' or 'pre', got 'both'"):
        residual_block(ax, ["a"], norm="both")
