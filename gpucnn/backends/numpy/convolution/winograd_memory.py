"""How Winograd's components lie in scratch memory, and into what runs of it products are cut."""

from __future__ import annotations

import math

import numpy as np

from .workspace import workspace

GAP = 80  # elements between components, whose strides else are powers of two: cache conflicts


def components(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return scratch memory whose first axis, the components, is no power of two apart."""
    count, *rest = shape
    size = math.prod(rest)
    return workspace.take(name, (count, size + GAP), dtype)[:, :size].reshape(shape)


def equal_parts(count: int, limit: int) -> int:
    """Return into how many equal parts to cut so many things for at most ``limit`` in each.

    >>> equal_parts(12, 5), equal_parts(7, 5)
    (3, 7)
    """
    least = -(-count // max(1, limit))
    return next((parts for parts in range(max(1, least), count) if count % parts == 0), count)
