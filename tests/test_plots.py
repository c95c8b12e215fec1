"""The pictures show the numbers that they were given."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

import gpucnn
from gpucnn import models, plots
from gpucnn.backends import use_backend
from gpucnn.history import History
from gpucnn.layers.base import inference_mode
from gpucnn.plots import style

RECORDS = [
    {"epoch": e, "loss": 2 / e, "accuracy": e / 5, "val_loss": 1 / e, "val_accuracy": e / 4,
     "learning_rate": 0.1, "images_per_second": 9.0, "seconds": 1.0}
    for e in (1, 2, 3)
]  # fmt: skip


def pixels(figure: Figure) -> np.ndarray:
    """Return the picture (H, W, 4) that is saved."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return imread(buffer)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def images(figure: Figure) -> list[np.ndarray]:
    """Return what each panel shows, in the order of drawing."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


@pytest.fixture
def model():
    gpucnn.set_seed(3)
    with use_backend("numpy"):
        yield gpucnn.Sequential(
            [
                gpucnn.Conv2D(3, (3, 2), padding="same"),
                gpucnn.BatchNorm(),
                gpucnn.ReLU(),
                gpucnn.MaxPool2D(2),
                gpucnn.Conv2D(12, 3),
                gpucnn.Flatten(),
                gpucnn.Dense(4),
            ],
            input_shape=(10, 8, 1),
        )


def test_the_learning_curve_holds_the_history():
    figure = plots.learning_curve(History(RECORDS))
    drawn = {
        (axes.get_title(loc="left"), line.get_label()): line.get_ydata()
        for axes in figure.axes
        for line in axes.lines
    }
    assert list(drawn) == [
        ("loss", "validation"), ("loss", "training"),
        ("accuracy", "validation"), ("accuracy", "training"),
    ]  # fmt: skip
    np.testing.assert_allclose(drawn["loss", "training"], [2, 1, 2 / 3])
    np.testing.assert_allclose(drawn["accuracy", "validation"], [0.25, 0.5, 0.75])
    assert "training 60.0%" in texts(figure)
    assert "validation 0.333" in texts(figure)
    assert np.std(pixels(figure)) > 0.01


def test_a_curve_of_one_epoch_without_validation():
    figure = plots.learning_curve(History([{"epoch": 1, "loss": 0.5}]))
    assert len(figure.axes) == 1
    assert texts(figure) == ["training 0.500"]
    assert np.std(pixels(figure)) > 0.01


def test_the_confusion_matrix_counts():
    matrix = np.array([[8, 2, 0], [0, 1200, 0], [0, 0, 0]])
    figure = plots.confusion_matrix(matrix, ["cat", "dog", "a long name"])
    assert figure.get_suptitle() == "1,208 of 1,210 right: 99.8%"
    assert texts(figure) == ["8", "2", "1,200", "right", "80%", "100%", "none"]
    (colours,) = images(figure)
    np.testing.assert_allclose(colours[1, 1, :3], to_rgb(style.BLUE), atol=1e-6)
    np.testing.assert_allclose(colours[0, 1, :3], to_rgb(style.RED), atol=1e-6)
    np.testing.assert_array_equal(colours[1, 0, :3], 1.0)
    assert np.std(pixels(figure)) > 0.01


def test_many_classes_are_drawn_without_counts():
    figure = plots.confusion_matrix(np.eye(100, dtype=int))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["0", "4", "8"]
    assert texts(figure) == ["right", *["100%"] * 25]


@pytest.mark.parametrize(
    ("shape", "panels", "kind"),
    [
        ((10, 5, 3, 1), 10, "blue below 0, red above"),
        ((70, 3, 3, 3), 64, "in colour"),
        ((5, 3, 3, 6), 30, "a row each, by channel"),
    ],
)
def test_filters_are_drawn_on_one_scale(shape, panels, kind):
    kernel = np.random.default_rng(0).standard_normal(shape)
    figure = plots.filter_grid(kernel)
    drawn = images(figure)
    assert len(drawn) == panels
    assert figure.get_suptitle() == f"{shape[0]} filters of {shape[1]}x{shape[2]}, {kind}"
    peak = np.abs(kernel).max()
    if shape[-1] == 3:
        np.testing.assert_allclose(drawn[7], 0.5 + kernel[7] / (2 * peak))
    else:
        number, channel = divmod(7, shape[-1])
        np.testing.assert_allclose(drawn[7], kernel[number, :, :, channel])
        scales = {axes.images[0].get_clim() for axes in figure.axes if axes.images}
        assert scales == {(-peak, peak)}
    assert np.std(pixels(figure)) > 0.01


def test_the_first_kernel_is_that_of_the_first_convolution(model):
    np.testing.assert_array_equal(plots.first_kernel(model), model.layers[0].params["kernel"])
    assert plots.first_kernel(gpucnn.Sequential([gpucnn.Dense(2)], input_shape=(3,))) is None


def test_feature_maps_are_those_of_the_layers(model):
    image = np.random.default_rng(2).standard_normal((10, 8, 1)).astype(np.float32)
    figure = plots.feature_maps(model, image, classes=["a", "b", "c", "d"])
    with inference_mode():
        x = image[None]
        stages = []
        for layer in model.layers:
            x = layer.forward(x)
            stages.append(x)
        activated, pooled, last = stages[2], stages[3], stages[4]
    shown = images(figure)
    assert len(shown) == 1 + 3 + 3 + 8  # the picture, and at most eight maps a layer
    np.testing.assert_allclose(shown[0], style.as_picture(image))
    np.testing.assert_allclose(np.stack(shown[1:4], axis=-1), activated[0], rtol=1e-6)
    np.testing.assert_allclose(np.stack(shown[4:7], axis=-1), pooled[0], rtol=1e-6)
    dullest = np.argsort(last[0].var(axis=(0, 1)))[:4]
    lively = np.delete(last[0], dullest, axis=-1)
    np.testing.assert_allclose(np.stack(shown[7:], axis=-1), lively, rtol=1e-6)

    bars = [bar.get_width() for axes in figure.axes for bar in axes.patches]
    probabilities = models.probabilities(stages[-1])[0]
    np.testing.assert_allclose(bars, probabilities, rtol=1e-6)
    named = "abcd"[probabilities.argmax()]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "input 10x8x1", "Conv2D + BatchNorm + ReLU: 3 maps of 10x8", "MaxPool2D: 3 maps of 5x4",
        "Conv2D: 12 maps of 3x2", f"answer: {named}",
    ]  # fmt: skip
    assert np.std(pixels(figure)) > 0.01


def test_of_many_classes_the_most_probable_are_shown():
    with use_backend("numpy"):
        model = models.make("lenet5", 30, (28, 28, 1))
        figure = plots.feature_maps(model, np.ones((28, 28, 1), np.float32))
    assert sum(len(axes.patches) for axes in figure.axes) == 10


def test_long_names_and_dollars_leave_room_for_the_drawing(model):
    names = ["a name that is rather long 1", "a name that is rather long 2", "$x", "x$y$z_"]
    for figure in (
        plots.confusion_matrix(np.eye(4, dtype=int), names),
        plots.feature_maps(model, np.ones((10, 8, 1), np.float32), classes=names),
    ):
        assert np.std(pixels(figure)) > 0.01  # and no warning that axes collapsed
        labels = {label.get_text() for axes in figure.axes for label in axes.get_yticklabels()}
        assert labels >= {"a name…long 1", "a name…long 2", r"\$x", r"x\$y\$z_"}


def test_the_overview_has_all_parts(model):
    image = np.ones((10, 8, 1), np.float32)
    page = plots.overview(History(RECORDS), np.eye(4, dtype=int), model, image)
    titles = [part.get_suptitle() for half in page.subfigs for part in (half, *half.subfigs)]
    assert {"Learning curve", "First filters", "4 of 4 right: 100.0%"} <= set(titles)
    assert np.std(pixels(page)) > 0.01


def test_a_comparison_shows_both_pictures():
    before = np.random.default_rng(0).integers(0, 256, (6, 9, 3))
    figure = plots.filter_comparison(before, 255 - before, "inverse")
    left, right = images(figure)
    np.testing.assert_allclose(left + right, 1.0)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["picture", "inverse"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.learning_curve(History()), "an empty history"),
        (lambda: plots.confusion_matrix(np.ones((2, 3))), r"shape \(2, 3\)"),
        (lambda: plots.confusion_matrix(np.zeros((2, 2))), "a count above 0"),
        (lambda: plots.confusion_matrix(np.eye(2), ["a"]), "1 classes"),
        (lambda: plots.filter_grid(np.ones((2, 3, 3))), r"shape \(2, 3, 3\)"),
        (lambda: plots.feature_maps(gpucnn.Dense(3), np.ones((4, 4, 1))), "must be a Sequential"),
        (
            lambda: plots.feature_maps(
                gpucnn.Sequential([gpucnn.Flatten(), gpucnn.Dense(3)], input_shape=(4, 4, 1)),
                np.ones((4, 4, 1), np.float32),
            ),
            "must give maps",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with use_backend("numpy"), pytest.raises(ValueError, match=message):
        call()


def test_pyplot_is_left_alone():
    code = "import sys, gpucnn.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
