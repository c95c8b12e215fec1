"""How activations lie in memory: the backend's own matter, behind arrays of the usual shapes.

Pixel-major, the memory of an activation is (*spatial, N, C), whatever the data format: a pixel is
one run of N * C numbers. Padding, strides, dilation, the taps of a window and the windows of a
pooling are then views, rows of a matrix product are the images of neighbouring pixels, and an
operation along the channels or over the images has long inner loops. To the user the array is
still (N, *spatial, C) or (N, C, *spatial): only its strides tell.

Operations take C-contiguous arrays, too. Those that work on elements or channels keep the order of
what they are given; those that have windows, convolutions and poolings, return pixel-major memory.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from . import buffers


@cache
def pixel_axes(ndim: int, channels_last: bool) -> tuple[int, ...]:
    """Return the axes of an activation in the order of pixel-major memory; without pixels, as is.

    >>> pixel_axes(4, True), pixel_axes(4, False), pixel_axes(2, False), pixel_axes(1, True)
    ((1, 2, 0, 3), (2, 3, 0, 1), (0, 1), (0,))
    """
    if ndim < 3:
        return (*range(ndim),)
    if channels_last:
        return (*range(1, ndim - 1), 0, ndim - 1)
    return (*range(2, ndim), 0, 1)


def is_pixel_major(x: np.ndarray, channels_last: bool) -> bool:
    """Return whether an activation's memory is (*spatial, N, C)."""
    return x.ndim > 2 and x.transpose(pixel_axes(x.ndim, channels_last)).flags.c_contiguous


def pixel_major(x: np.ndarray, channels_last: bool) -> np.ndarray:
    """Return an activation as a C-contiguous (*spatial, N, C), a view if it lies like that."""
    return np.ascontiguousarray(x.transpose(pixel_axes(x.ndim, channels_last)))


def as_activation(memory: np.ndarray, channels_last: bool) -> np.ndarray:
    """View (*spatial, N, C) as the activation (N, *spatial, C) or (N, C, *spatial) that it is."""
    return memory.transpose(buffers.inverse(pixel_axes(memory.ndim, channels_last)))


def arranged(x: np.ndarray) -> np.ndarray:
    """Return the array, or a copy if it lies neither C-contiguous nor pixel-major.

    A part of a pixel-major array becomes pixel-major, any other view C-contiguous.
    """
    x = np.asarray(x)  # no matrix, no mask
    if x.flags.c_contiguous or is_pixel_major(x, True) or is_pixel_major(x, False):
        return x
    for channels_last in (True, False) if x.ndim > 2 else ():
        steps = [x.strides[axis] for axis in pixel_axes(x.ndim, channels_last) if x.shape[axis] > 1]
        if steps == sorted(steps, reverse=True):
            return as_activation(pixel_major(x, channels_last), channels_last)
    return np.ascontiguousarray(x)
