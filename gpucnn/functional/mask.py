"""What an activation of two slopes needs on its way back: one bit of each output."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..backends import backend_of
from ..backends.base import MASKABLE, Array
from .checks import expect_shape


class Mask(NamedTuple):
    """Which of two slopes each number of an array got.

    It stands for the output in ``activation_backward``, at a 32nd of the memory for float32.

    Attributes:
        bits: uint8 (ceil(size / 8),); bit i of byte j is that of element 8j + i in memory.
        shape, dtype: the array's.
        axes: in the order in which they lie in memory, the outermost first.
        slope, scale: of a number whose bit is clear, and set.
    """

    bits: Array
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[int, ...]
    slope: float
    scale: float = 1.0

    @classmethod
    def of(cls, y: Array, bits: Array, slope: float, scale: float = 1.0) -> Mask:
        """Return the mask of an array as it lies in memory."""
        axes = sorted(range(y.ndim), key=lambda axis: -y.strides[axis])
        return cls(bits, tuple(y.shape), y.dtype, tuple(axes), slope, scale)


def has_mask(kind: str, alpha: float | None = None) -> bool:
    """Return whether a bit of the output tells all that an activation's derivative depends on.

    So it is for two slopes; those of leaky_relu must be apart from 0, whose sign a mask forgets.
    """
    return kind in MASKABLE and not (kind == "leaky_relu" and alpha == 0)


def mask_backward(dy: Array, mask: Mask, *, owner: str = "mask") -> Array:
    """Return dx, scale * dy where the mask's bit is set and slope * dy elsewhere.

    Raises:
        ValueError, TypeError: dy is not of the shape, the dtype or the device of the output.
    """
    backend = backend_of(owner, dy=dy, mask=mask.bits)
    expect_shape(owner, mask.shape, dy=dy)
    if dy.dtype != mask.dtype:
        raise TypeError(
            f"{owner}: dy must be of the output's dtype, {mask.dtype.name}; convert with astype."
            f" Received: {dy.dtype.name}"
        )
    dy = backend.arranged(dy)
    return backend.mask_backward(dy, mask.bits, mask.axes, mask.slope, mask.scale)
