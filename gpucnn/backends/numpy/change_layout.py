"""Channels last to channels first and back."""

from __future__ import annotations

import numpy as np


class LayoutChange:
    """``change_layout``."""

    def change_layout(self, x: np.ndarray) -> np.ndarray:
        return x.transpose(0, 2, 1).copy()  # in C order
