"""Pictures: the curves, axes, legends and images that a reader sees, by matplotlib's own objects."""

import struct

import numpy as np
import pytest
from matplotlib.text import Text

import minidl
from minidl.history import Epoch
from minidl.view import plots
from minidl.view.plots import Panel, line_plot


@pytest.fixture
def drawn(monkeypatch):
    """Keep each figure that is saved."""
    figures, save = [], plots.save

    def keep(picture, path, description):
        save(picture, path, description)
        figures.append(picture)

    monkeypatch.setattr(plots, "save", keep)
    return figures


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def texts(items):
    return [item.get_text() for item in items]


# ---------------------------------------------------------------- curves


def test_curves_of_two_panels(tmp_path, drawn):
    left = Panel({"a": ([0, 1, 2], [3, 1, 2])}, "epoch", "loss (nats)", "the left one")
    right = Panel({"a": ([0, 1], [5, 6]), "b": ([0, 1], [6, 5])}, "epoch", "accuracy", dashed=["b"])
    line_plot(tmp_path / "two.png", left, right, title="both")
    assert png_size(tmp_path / "two.png") == (1560, 615)  # 10.4 by 3.8 inches at 150 dots
    (figure,) = drawn
    first, second = figure.axes
    assert first.get_position().x1 <= second.get_position().x0  # side by side
    assert figure.get_suptitle() == "both"
    assert (first.get_xlabel(), first.get_ylabel(), first.get_title()) == (
        "epoch",
        "loss (nats)",
        "the left one",
    )
    (line,) = first.lines
    np.testing.assert_array_equal(line.get_xydata(), [[0, 3], [1, 1], [2, 2]])
    assert [line.get_linestyle() for line in second.lines] == ["-", "--"]
    assert second.lines[0].get_color() != second.lines[1].get_color()
    assert first.get_legend() is None  # one curve needs none
    assert texts(second.get_legend().get_texts()) == ["a", "b"]
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
        assert all(line.get_marker() == "None" for line in axes.lines)
        assert all(grid.get_visible() for grid in axes.get_xgridlines() + axes.get_ygridlines())
        assert all(0 < grid.get_alpha() < 0.5 for grid in axes.get_ygridlines())


@pytest.mark.parametrize(
    "curves",
    [{"a": [1, 2, 3]}, {"a": (1, 2)}, {"a": 1}, {"a": ([0, 1], [1])}, [([0, 1], [1, 2])], None],
)
def test_curves_are_pairs_by_label(curves):
    with pytest.raises(TypeError, match=r"Panel: expected curves as \{label: \(x, y\)\}"):
        Panel(curves, "epoch", "loss")


def test_no_title_where_none_is_given(tmp_path, drawn):
    line_plot(tmp_path / "a.png", Panel({"a": ([0, 1], [1, 2])}, "x", "y"))
    assert drawn[0].get_suptitle() == ""
    assert drawn[0].axes[0].get_title() == ""


@pytest.mark.parametrize(("xlabel", "whole"), [("epoch", True), ("width", False)])
def test_epochs_have_whole_ticks(tmp_path, drawn, xlabel, whole):
    line_plot(tmp_path / "a.png", Panel({"a": ([0, 1, 2], [1, 2, 3])}, xlabel, "y"))
    ticks = drawn[0].axes[0].get_xticks()
    assert (ticks == np.round(ticks)).all() == whole


def test_a_logarithmic_x_axis_has_the_given_ticks_alone(tmp_path, drawn):
    widths = [16, 32, 256]
    line_plot(tmp_path / "a.png", Panel({"a": (widths, [1, 2, 3])}, "width", "y", xticks=widths))
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_yscale() == "linear"
    assert axes.get_xticks().tolist() == widths
    assert texts(axes.get_xticklabels()) == ["16", "32", "256"]
    assert len(axes.get_xticks(minor=True)) == 0
    assert axes.lines[0].get_marker() == "o"
    assert 3 < axes.lines[0].get_markersize() < 6


def test_depths_have_a_linear_axis(tmp_path, drawn):
    for ticks in ([1, 3, 5, 7, 9], [1, 2, 3, 4, 5], [0, 100]):
        line_plot(tmp_path / "a.png", Panel({"a": (ticks, ticks)}, "depth", "y", xticks=ticks))
        axes = drawn[-1].axes[0]
        assert axes.get_xscale() == "linear"
        assert axes.get_xticks().tolist() == ticks


def test_titles_touch_no_edge(tmp_path, drawn):
    title = "letters (generated, not EMNIST): width 256, learning rate 0.001, dropout 0, l2 0.0001"
    line_plot(tmp_path / "a.png", Panel({"a": ([0, 1], [1, 2])}, "x", "y", title), title=title)
    (figure,) = drawn
    for text in (figure._suptitle, figure.axes[0].title):
        box = text.get_window_extent()
        assert 0 < box.x0 < box.x1 < figure.bbox.x1
        assert text.get_text().replace("\n", " ") == title


@pytest.mark.parametrize(("values", "said"), [([0.7, 0.8], True), ([0.4, 0.9], False)])
def test_the_start_of_an_axis_is_said_where_it_matters(tmp_path, drawn, values, said):
    line_plot(tmp_path / "a.png", Panel({"a": ([0, 1], values)}, "x", "accuracy"))
    assert ("axis from" in drawn[0].axes[0].get_ylabel()) is said


def test_a_logarithmic_y_axis_leaves_out_what_is_not_positive(tmp_path, drawn):
    line_plot(tmp_path / "a.png", Panel({"a": ([0, 1, 2], [1.0, 0.0, 1e-3])}, "x", "y", ylog=True))
    axes = drawn[0].axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_xscale() == "linear"
    values = axes.yaxis.get_transform().transform(np.array([1.0, 0.0, 1e-3]))
    assert np.isfinite(values).tolist() == [True, False, True]
    assert axes.get_ylim()[0] > 1e-4


def test_many_curves_have_their_legend_beside_the_axes(tmp_path, drawn):
    for n in (4, 5, 12):
        curves = {f"curve {i}": ([0, 1], [i, i]) for i in range(n)}
        line_plot(tmp_path / "a.png", Panel(curves, "x", "y"))
    few, five, many = (figure.axes[0] for figure in drawn)
    assert few.get_legend().get_window_extent().y1 < few.get_window_extent().y0  # below
    assert few.get_legend().get_window_extent().y0 >= 0
    for axes in (five, many):
        assert axes.get_legend().get_window_extent().x0 > axes.get_window_extent().x1
        assert len(axes.get_legend().get_texts()) == len(axes.lines)
        frame = axes.figure.bbox  # nothing is cut off
        assert axes.get_legend().get_window_extent().x1 <= frame.x1 + 1
        assert axes.get_window_extent().width > 0.9 * few.get_window_extent().width
    colours = [line.get_color() for line in many.lines]
    assert len(set(colours)) == 10
    assert colours[10:] == colours[:2]


def test_pairs_of_curves_share_a_colour(tmp_path, drawn):
    curves = {f"curve {i}": ([0, 1], [i, i]) for i in range(4)}
    panel = Panel(curves, "x", "y", dashed=["curve 1", "curve 3"], pairs=True)
    line_plot(tmp_path / "a.png", panel)
    a, b, c, d = (line.get_color() for line in drawn[0].axes[0].lines)
    assert a == b != c == d


def test_one_legend_below_panels_with_equal_labels(tmp_path, drawn):
    panels = [Panel({"a": ([0, 1], [1, 2]), "b": ([0, 1], [2, 1])}, "x", "y")] * 3
    line_plot(tmp_path / "a.png", *panels)
    (figure,) = drawn
    assert [axes.get_legend() for axes in figure.axes] == [None] * 3
    (legend,) = figure.legends
    assert texts(legend.get_texts()) == ["a", "b"]
    box = legend.get_window_extent()
    assert box.y1 < min(axes.get_window_extent().y0 for axes in figure.axes)
    assert box.y0 >= 0
    one, two = (text.get_window_extent() for text in legend.get_texts())
    assert one.y0 == two.y0  # in one row
    assert figure.get_size_inches().tolist() == pytest.approx([15.6, 4.1])


def test_a_marked_place_is_a_dotted_line_with_a_label(tmp_path, drawn):
    line_plot(tmp_path / "a.png", Panel({"a": ([0, 1, 2], [1, 2, 3])}, "epoch", "y", mark=0))
    axes = drawn[0].axes[0]
    curve, line = axes.lines
    assert set(line.get_xdata()) == {0}
    assert line.get_linestyle() == ":"
    assert line.get_color() not in (curve.get_color(), "C0", "black")
    assert texts(axes.get_legend().get_texts()) == ["a", "best epoch (0)"]


# ---------------------------------------------------------------- histories


def history(train_accuracy=0.5, valid_loss=0.7, valid_accuracy=0.4, epochs=3):
    result = minidl.History()
    for i in range(epochs):
        figures = {
            "train_loss": 1 / (i + 1),
            "train_accuracy": train_accuracy,
            "valid_loss": valid_loss,
            "valid_accuracy": valid_accuracy,
        }
        measured = {name: figure for name, figure in figures.items() if figure is not None}
        result.append(Epoch(i, 0.1, 0.01, measured), minidl.Linear(1, 1, rng=0))
    return result


def test_the_test_part_of_a_history_has_a_curve(tmp_path, drawn):
    some = minidl.History()
    for i in range(3):
        some.append(Epoch(i, 0.1, 0.01, {"train_loss": 1.0, "test_loss": 2.0}), minidl.Linear(1, 1, rng=0))  # fmt: skip
    some.plot(tmp_path / "curves.png")
    assert [line.get_label() for line in drawn[0].axes[0].lines[:2]] == ["training (during the epoch)", "test"]  # fmt: skip


def test_a_history_is_drawn_as_loss_and_accuracy(tmp_path, drawn):
    history().plot(tmp_path / "curves.png", title="a run")
    loss, accuracy = drawn[0].axes
    assert drawn[0].get_suptitle() == "a run"
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss (nats)")
    assert accuracy.get_xlabel() == "epoch"
    low = accuracy.get_ylim()[0]  # the axis is cut, and says so
    assert accuracy.get_ylabel() == f"accuracy (share of examples)\n(axis from {low:.2g})"
    for axes, moment in ((loss, "during"), (accuracy, "after")):
        labels = [
            f"training ({moment} the epoch)",
            "validation",
            "best epoch (1)",
        ]  # the first of equals among those trained
        assert texts(axes.get_legend().get_texts()) == labels
        assert list(axes.lines[2].get_xdata()) == [1, 1]
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[0, 1], [1, 1 / 2], [2, 1 / 3]])
    np.testing.assert_allclose(loss.lines[1].get_ydata(), [0.7] * 3)
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [0.5] * 3)
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [0.4] * 3)


@pytest.mark.parametrize(
    ("figures", "unit", "label"),
    [
        ((0.5, 0.7, 0.4), None, "loss (nats)"),
        ((0.5, 0.7, 0.4), "lead of the largest logit", "loss (lead of the largest logit)"),
        ((0.5, 0.7, 0.4), "", "loss"),
        ((None, 0.7, None), None, "loss"),  # a regression
        ((None, 0.7, None), "squared dollars", "loss (squared dollars)"),
    ],
)
def test_the_unit_of_the_loss(tmp_path, drawn, figures, unit, label, monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    history(*figures).plot(tmp_path / "curves.png", loss_unit=unit)
    assert drawn[0].axes[0].get_ylabel() == label
    assert len(drawn[0].axes) == (1 if figures[0] is None else 2)  # a regression has no accuracy


def test_figures_that_were_not_measured_are_not_drawn(tmp_path, drawn):
    history(valid_loss=None, valid_accuracy=None).plot(tmp_path / "curves.png")
    # Without validation figures the training loss is monitored, which is best in the last epoch.
    assert [[line.get_label() for line in axes.lines] for axes in drawn[0].axes] == [
        ["training (during the epoch)", "best epoch (2)"],
        ["training (after the epoch)", "best epoch (2)"],
    ]
    # fit(parts=("valid",)) measures the training accuracy before training alone
    some = history()
    for i in (1, 2):
        figures = {"train_loss": 0.5, "valid_loss": 0.7, "valid_accuracy": 0.4}
        some.records[i] = Epoch(i, 0.1, 0.01, figures)
    some.plot(tmp_path / "curves.png")
    loss, accuracy = drawn[1].axes
    assert [line.get_label() for line in loss.lines] == [
        "training (during the epoch)",
        "validation",
        "best epoch (1)",
    ]
    assert [line.get_label() for line in accuracy.lines] == ["validation", "best epoch (1)"]
    assert loss.get_ylabel() == "loss (nats)"
    with pytest.raises(ValueError, match="no epoch is recorded"):
        minidl.History().plot(tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()


def test_a_log_axis_of_one_height_is_linear(tmp_path):
    """Two losses that differ in the last bit have no range on a log axis."""
    value = 1.7890486816565194
    for other in (value, np.nextafter(value, 2)):
        panel = Panel({"a": ([0, 1], [value, other])}, "epoch", "loss", ylog=True)
        line_plot(tmp_path / "one.png", panel)
    assert (tmp_path / "one.png").exists()


def test_dollars_are_no_formula(tmp_path, drawn):
    """A name such as ``p$5_$6.npz`` is drawn as it is, and powers on a log axis are powers."""
    name = "p$5_$6 $ \\frac{$"
    curves = {name: ([1, 2], [1.0, 1000.0]), "b": ([1, 2], [1.0, 10.0])}
    panel = Panel(curves, name, name, name, ylog=True, mark=1)
    line_plot(tmp_path / "a.svg", panel, panel, title=name)
    shown = [t._preprocess_math(t.get_text()) for one in drawn for t in one.findobj(Text)]
    assert shown.count((name, False)) == 8
    assert not any(is_math for text, is_math in shown if "5_" in text)
    assert "$\\mathdefault{10^{3}}$" in texts(drawn[0].axes[0].get_yticklabels())
