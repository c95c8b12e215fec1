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
from .filters import filter_grid, first_kernel
from .maps import feature_maps

if TYPE_CHECKING:
    from ..history import History


def overview(
    history: History, matrix: np.ndarray, model: Sequential, image: np.ndarray, *,
    classes: Sequence[str] | None = None, picture: np.ndarray | None = None,
) -> Figure:  # fmt: skip
    """Draw the feature maps of an image over learning curve, first filters and confusion matrix.

    The arguments are those of ``feature_maps``, ``learning_curve`` and ``confusion_matrix``.
    """
    kernel = first_kernel(model)
    columns = 4 if kernel is not None and len(kernel) > 16 else 2
    page = style.canvas(None, 11.5, 8.4)
    top, bottom = page.subfigures(2, 1, height_ratios=(1.0, 1.35), hspace=0.03)
    feature_maps(model, image, classes=classes, picture=picture, rows=3, on=top)
    ratios = (1.0, 0.14 * columns, 1.2)
    left, middle, right = bottom.subfigures(1, 3, width_ratios=ratios, wspace=0.03)
    learning_curve(history, stacked=True, on=left)
    if kernel is not None:
        filter_grid(kernel, columns=columns, title="First filters", on=middle)
    confusion_matrix(matrix, classes, on=right)
    return page
