"""A training on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ..network import Sequential
from . import style
from .confusion import confusion_matrix
from .curves import learning_curve
from .maps import feature_maps

if TYPE_CHECKING:
    from ..history import History


def overview(
    history: History, matrix: np.ndarray, model: Sequential, image: np.ndarray, *,
    classes: Sequence[str] | None = None, picture: np.ndarray | None = None,
) -> Figure:  # fmt: skip
    """Draw the feature maps of an image over the learning curve and the confusion matrix.

    The arguments are those of ``feature_maps``, ``learning_curve`` and ``confusion_matrix``.
    """
    page = style.canvas(None, 10.0, 8.2)
    top, bottom = page.subfigures(2, 1, height_ratios=(1.0, 1.5), hspace=0.03)
    left, right = bottom.subfigures(1, 2, width_ratios=(1.0, 1.12), wspace=0.03)
    feature_maps(model, image, classes=classes, picture=picture, on=top)
    learning_curve(history, stacked=True, on=left)
    confusion_matrix(matrix, classes, on=right)
    return page
