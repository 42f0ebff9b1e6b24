"""Sheets of images and of weights, by matplotlib's own objects."""

from types import SimpleNamespace

import numpy as np
import pytest
from homework import online
from homework.online import weight_sheet
from matplotlib.image import imread
from matplotlib.text import Text

import minidl
from minidl.data import __main__ as show
from minidl.data.__main__ import contact_sheet
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
    monkeypatch.setattr(show, "save", keep)
    monkeypatch.setattr(online, "save", keep)
    return figures


def texts(items):
    return [item.get_text() for item in items]


def test_titles_and_captions_are_smaller_than_those_of_curves(tmp_path, drawn):
    """They stand above small images, often many of them."""
    line_plot(tmp_path / "a.png", Panel({"a": ([0], [0])}, "x", "y"), title="t")
    contact_sheet(tmp_path / "b.png", {"A": np.zeros((1, 2, 2), np.uint8)}, title="t")
    weight_sheet(tmp_path / "d.png", np.ones((1, 2, 2)), ["0"], title="t")
    usual = drawn[0]._suptitle.get_fontsize()
    contact, weights = drawn[1:]
    sizes = [
        contact.axes[0].title.get_fontsize(),
        weights._suptitle.get_fontsize(),
        weights.axes[0].title.get_fontsize(),
    ]
    assert max(sizes) < usual
    assert min(sizes) >= 7


def test_a_contact_sheet_has_a_row_for_each_label(tmp_path, drawn):
    rows = {
        "A": np.arange(1, 13, dtype=np.uint8).reshape(3, 2, 2),
        "B": np.array([[[50, 60], [70, 255]]], np.uint8),
    }
    contact_sheet(tmp_path / "sheet.png", rows, title="some letters")
    axes = drawn[0].axes[0]
    (image,) = axes.images
    expected = [
        [1, 2, 0, 5, 6, 0, 9, 10, 0],
        [3, 4, 0, 7, 8, 0, 11, 12, 0],
        [0] * 9,
        [50, 60, 0, 0, 0, 0, 0, 0, 0],
        [70, 255, 0, 0, 0, 0, 0, 0, 0],
        [0] * 9,
    ]
    np.testing.assert_array_equal(image.get_array(), expected)
    dark, light = image.cmap(image.norm(255)), image.cmap(image.norm(0))
    assert dark[:3] == (0, 0, 0)
    assert light[:3] == (1, 1, 1)
    assert axes.get_title() == "some letters"
    assert texts(axes.get_yticklabels()) == ["A", "B"]
    assert axes.get_yticks().tolist() == [1.5, 4.5]  # at the middle of each row
    assert len(axes.get_xticks()) == 0
    assert image.get_interpolation() == "nearest"
    width, height = drawn[0].get_size_inches()
    assert (width, height) == pytest.approx((0.6 + 3 * 0.45, 0.5 + 2 * 0.45))


@pytest.mark.parametrize("label", ["a", "200 components, 0.983", 4 * "a long name "])
def test_the_labels_of_a_contact_sheet_are_whole(tmp_path, label):
    """Cut labels touch the left edge of the picture."""
    contact_sheet(
        tmp_path / "sheet.png", {f"{label} {i}": np.zeros((12, 28, 28)) for i in range(6)}
    )
    pixels = imread(tmp_path / "sheet.png")[:, :, :3]
    assert (pixels[:, :2] == 1).all()
    assert (pixels < 1).any()


def test_a_contact_sheet_of_colour_images_keeps_their_colours(tmp_path, drawn):
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 200
    contact_sheet(tmp_path / "sheet.png", {"0": red})
    shown = drawn[0].axes[0].images[0].get_array()
    assert shown.shape == (5, 5, 3)
    np.testing.assert_array_equal(shown[:4, :4], red[0])


def test_dollars_in_the_labels_of_a_contact_sheet_are_no_formula(tmp_path, drawn):
    contact_sheet(tmp_path / "b.png", {"$_$": np.zeros((9, 2, 2), np.uint8)}, title="p$5_$6")
    found = [text._preprocess_math(text.get_text()) for text in drawn[0].findobj(Text)]
    assert {("$_$", False), ("p$5_$6", False)} <= set(found)


@pytest.mark.parametrize("least", [-4.0, -0.5])
def test_weights_have_colours_that_are_symmetric_about_0(tmp_path, drawn, least):
    weights = np.array([[[0.0, 2.0], [1.0, 0.0]], [[least, 0.0], [0.0, 0.0]], np.eye(2)])
    weight_sheet(tmp_path / "weights.png", weights, ["a", "b", "c"], title="the weights")
    (figure,) = drawn
    *grid, bar = figure.axes
    pictures = [picture for axes in grid for picture in axes.images]
    assert len(pictures) == 3
    limit = max(2.0, -least)
    for picture, image in zip(pictures, weights, strict=True):
        np.testing.assert_array_equal(picture.get_array(), image)
        assert picture.get_clim() == (-limit, limit)
        red, _, blue, _ = picture.cmap(picture.norm(limit))
        assert red > blue
        red, _, blue, _ = picture.cmap(picture.norm(-limit))
        assert red < blue
        assert np.min(picture.cmap(picture.norm(0.0))) > 0.95  # white
    assert texts(axes.title for axes in grid) == ["a", "b", "c"]
    assert not any(axes.axison for axes in grid)
    assert bar.get_ylabel() == "weight"
    assert figure.get_suptitle() == "the weights"


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 2)), (2, (1, 2)), (3, (1, 3)), (26, (4, 7)), (100, (8, 13))])  # fmt: skip
def test_weights_are_in_a_grid_that_is_wider_than_high(tmp_path, monkeypatch, n, shape):
    drawn = []  # a hundred axes take seconds to draw
    monkeypatch.setattr(online, "save", lambda picture, *_: drawn.append(picture))
    weight_sheet(tmp_path / "weights.png", np.zeros((n, 2, 2)), [str(i) for i in range(n)])
    (figure,) = drawn
    *grid, _ = figure.axes
    assert grid[0].get_gridspec().get_geometry() == shape
    assert sum(len(axes.images) for axes in grid) == n
    assert not any(axes.axison for axes in grid)
    down, across = shape
    assert figure.get_size_inches().tolist() == pytest.approx(
        [0.9 * across + 1.2, 1.05 * down + 0.6]
    )
    assert figure.get_suptitle() == ""


# ---------------------------------------------------------------- the weights of Question 1


@pytest.fixture
def sheet(monkeypatch):
    """Keep what Question 1 hands to ``weight_sheet``."""
    kept = SimpleNamespace(images=None)

    def keep(path, images, labels, *, title):
        vars(kept).update(images=images, labels=labels, title=title)

    monkeypatch.setattr(online, "weight_sheet", keep)
    return kept


def pixel_data(classes, features, transposed=False):
    x = np.random.default_rng(0).integers(0, 256, (40, features), dtype=np.uint8)
    y = np.resize(np.arange(classes), 40)
    return minidl.Dataset((x, y), name="some", classes=classes, transposed=transposed)


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_stand_upright(sheet, tmp_path, transposed):
    """EMNIST stores images column by column."""
    model = minidl.Linear(9, 2, rng=0)
    model.weight.value[:] = np.arange(18).reshape(2, 9).T
    online.draw_weights(tmp_path / "w.png", model, pixel_data(2, 9, transposed), "a title")
    rows = [[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[9, 10, 11], [12, 13, 14], [15, 16, 17]]]
    columns = [[[0, 3, 6], [1, 4, 7], [2, 5, 8]], [[9, 12, 15], [10, 13, 16], [11, 14, 17]]]
    assert sheet.images.tolist() == (columns if transposed else rows)
    assert sheet.labels == ["0", "1"]
    assert sheet.title == "a title: one image a class"


@pytest.mark.parametrize("course_file", [False, True])
def test_the_course_s_file_stands_column_by_column(monkeypatch, course_file):
    monkeypatch.setattr(online, "is_course_file", lambda source: course_file)
    monkeypatch.setattr(online, "load_data", lambda source, full: pixel_data(2, 9))
    args = SimpleNamespace(data="course.npz", full=True, epochs=1)
    assert online.load(args).transposed == course_file


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_of_components_are_drawn_as_weights_of_pixels(sheet, tmp_path, transposed):
    """The logits change with a pixel as its entry in the image says."""
    data = pixel_data(3, 16, transposed)
    pca = minidl.PCA(5).fit(data)
    model = minidl.Linear(5, 3, rng=0, dtype="float64")
    online.draw_weights(tmp_path / "w.png", model, data, "a title", pca)
    assert sheet.images.shape == (3, 4, 4)
    at_zero = model(pca.apply(np.zeros((1, 16))))
    slopes = (model(pca.apply(np.eye(16))) - at_zero).T.reshape(3, 4, 4)
    images = sheet.images.transpose(0, 2, 1) if transposed else sheet.images
    np.testing.assert_allclose(images, slopes, atol=1e-12)


def test_labels_of_weights(sheet, tmp_path):
    letters = minidl.Linear(9, 26, rng=0)
    online.draw_weights(tmp_path / "w.png", letters, pixel_data(26, 9), "t")
    assert "".join(sheet.labels) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    hidden = minidl.Sequential(minidl.Linear(9, 26), minidl.ReLU(), minidl.Linear(26, 26), rng=0)
    online.draw_weights(tmp_path / "w.png", hidden, pixel_data(26, 9), "t")
    assert sheet.labels == [str(i) for i in range(26)]
    assert sheet.title == "t: one image a hidden unit"
    np.testing.assert_array_equal(sheet.images[4].ravel(), hidden[0].weight.value[:, 4])


def test_weights_of_features_that_are_no_square_image_are_not_drawn(sheet, tmp_path):
    model = minidl.Linear(10, 2, rng=0)
    online.draw_weights(tmp_path / "w.png", model, pixel_data(2, 10), "a title")
    assert sheet.images is None
