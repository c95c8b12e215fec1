"""The pictures that commands leave in a run's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data import Dataset
from ..history import History
from ..network import Network, Sequential


def draw_network(
    folder: Path, model: Network, image: np.ndarray, picture: np.ndarray, classes: list[str]
) -> list[str]:
    """Draw the first filters, and the feature maps of an image (H, W, C) ready for the network.

    Returns the names of the files: fewer for a network that has no such filters or maps.
    """
    from .. import plots

    files = []
    kernel = plots.first_kernel(model)
    if kernel is not None:
        plots.filter_grid(kernel).savefig(folder / "filters.png")
        files.append("filters.png")
    if isinstance(model, Sequential):
        figure = plots.feature_maps(model, image, picture=picture, classes=classes)
        figure.savefig(folder / "feature_maps.png")
        files.append("feature_maps.png")
    return files


def draw_training(
    folder: Path, history: History, matrix: np.ndarray, model: Sequential, image: np.ndarray,
    dataset: Dataset,
) -> list[str]:  # fmt: skip
    """Draw all that ``gpucnn train`` shows; ``image`` is the first test image for the network.

    Returns the names of the files. Raises ModuleNotFoundError where matplotlib is missing.
    """
    from .. import plots

    picture, classes = dataset.test.images[0], list(dataset.classes)
    plots.learning_curve(history).savefig(folder / "learning_curve.png")
    plots.confusion_matrix(matrix, classes).savefig(folder / "confusion_matrix.png")
    page = plots.overview(history, matrix, model, image, picture=picture, classes=classes)
    page.savefig(folder / "overview.png")
    drawn = draw_network(folder, model, image, picture, classes)
    files = ["learning_curve.png", "confusion_matrix.png", *drawn, "overview.png"]
    if picture.shape[-1] in (1, 3):  # what a picture file can hold
        save_picture(folder / "example.png", picture, dataset.peak)
        files.append("example.png")
    return files


def save_picture(path: Path, image: np.ndarray, peak: float = 255.0) -> None:
    """Write an image (H, W, C) of 0..peak, one channel or three, as a picture file.

    Raises:
        ImportError: Pillow is missing.
        ValueError: the path's suffix is of no picture format.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('pictures need Pillow: pip install "gpucnn[plots]"') from error
    pixels = np.clip(np.rint(np.asarray(image, np.float64) * (255.0 / peak)), 0, 255)
    pixels = pixels.astype(np.uint8)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
