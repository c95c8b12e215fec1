"""Where the channels lie: last, (N, H, W, C), or first, (N, C, H, W)."""

from __future__ import annotations

import math

from ..backends import backend_of
from ..backends.base import Array


def channels_first(x: Array, *, owner: str = "channels_first") -> Array:
    """Copy x from (N, *spatial, C) to (N, C, *spatial): for one of PyTorch's, ONNX's, models.

    Args:
        x: a batch with its channels last, of two axes or more and any dtype of 1 to 16 bytes.

    Returns:
        A new C-contiguous array; numbers are moved and none is changed.

    Raises:
        ValueError: x has fewer than two axes.
        TypeError: x holds no numbers.

    Example:
        >>> channels_first(np.zeros((1, 28, 32, 3), np.uint8)).shape
        (1, 3, 28, 32)
    """
    return _moved(owner, x, len(x.shape) - 1)


def channels_last(x: Array, *, owner: str = "channels_last") -> Array:
    """Copy x from (N, C, *spatial) to (N, *spatial, C), as the layers take it by default.

    The inverse of ``channels_first``, and its gradient.

    Example:
        >>> channels_last(np.zeros((1, 3, 28, 32), np.uint8)).shape
        (1, 28, 32, 3)
    """
    return _moved(owner, x, 2)


def _moved(owner: str, x: Array, start: int) -> Array:
    """Bring the axes from ``start`` on to the front, behind the batch: (N, A, B) -> (N, B, A)."""
    backend = backend_of(owner, x=x)
    if x.ndim < 2:
        raise ValueError(
            f"{owner}: x needs a batch axis and a channel axis. Received: shape {x.shape}"
        )
    if x.dtype.itemsize not in (1, 2, 4, 8, 16):
        raise TypeError(f"{owner}: x must hold numbers. Received: {x.dtype}")
    batch, *sample = x.shape
    front, back = sample[: start - 1], sample[start - 1 :]
    rows = backend.arranged(x).reshape(batch, math.prod(front), math.prod(back))
    return backend.change_layout(rows).reshape(batch, *back, *front)
