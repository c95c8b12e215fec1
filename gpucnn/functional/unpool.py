"""The way back from a max-pool: each maximum to the place where it was found, zeros elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..backends import backend_of
from ..backends.base import Array
from ..shapes import PoolShape, split_axes
from .checks import expect_shape


def pool_places(index: Array, shape: PoolShape, *, owner: str = "pool") -> Array:
    """Turn the index of ``pool_forward`` into places in a map.

    Args:
        index: which of its window's inputs each maximum is, of y's shape.
        shape: the pooling's geometry.

    Returns:
        int64, of y's shape: the place in its channel's map, counted in row order; -1 for a window
        without any input.

    Example:
        >>> x = np.array([[[1.0], [3.0], [2.0], [0.0]]])
        >>> shape = pool_shape(x.shape, 2)
        >>> pool_places(pool_forward(x, shape=shape)[1], shape).ravel()
        array([1, 2])
    """
    backend = backend_of(owner, index=index)
    expect_shape(owner, shape.y_shape, index=index)
    xp, taps = backend.xp, index.astype("int64")
    place = xp.zeros(index.shape, "int64")
    first = 1 if shape.channels_last else 2
    left = shape.taps
    for axis in range(shape.rank):
        left //= shape.window[axis]
        along = [1] * index.ndim
        along[first + axis] = shape.output[axis]
        starts = np.arange(shape.output[axis]) * shape.strides[axis] - shape.padding[axis][0]
        tap = taps // left % shape.window[axis]
        here = backend.asarray(starts.reshape(along)) + tap * shape.dilation[axis]
        place = place * shape.input[axis] + here
    return xp.where(taps == shape.taps, -1, place)


def max_unpool_forward(
    x: Array,
    places: Array,
    y_shape: Sequence[int],
    *,
    channels_last: bool = True,
    owner: str = "max_unpool",
) -> Array:
    """Put each number of x at its place in a map of zeros.

    Args:
        x: (N, P, Q, C), or (N, C, P, Q).
        places: as x, integers: the place in the channel's map, counted in row order, or -1.
        y_shape: (N, H, W, C), or (N, C, H, W).

    Where two numbers have one place, as the maxima of windows that overlap may, one of them stays:
    in the pooling it was the same number.

    Returns:
        y: of y_shape.

    Source: Zeiler & Fergus 2014, section 2.1; the ONNX operator MaxUnpool.

    Example:
        >>> x, places = np.array([[[5.0], [7.0]]]), np.array([[[1], [2]]])
        >>> max_unpool_forward(x, places, (1, 4, 1)).ravel()
        array([0., 5., 7., 0.])
    """
    backend = backend_of(owner, x=x, places=places)
    expect_shape(owner, x.shape, places=places)
    flat, rows = _flat(backend.xp, places, y_shape, channels_last)
    size = split_axes(y_shape, channels_last)[2]
    y = backend.xp.zeros((*rows, math.prod(size) + 1), x.dtype)
    values = (backend.xp.moveaxis(x, -1, 1) if channels_last else x).reshape(flat.shape)
    backend.xp.put_along_axis(y, flat, values, axis=2)
    maps = y[:, :, :-1].reshape(*rows, *size)
    return backend.arranged(backend.xp.moveaxis(maps, 1, -1) if channels_last else maps)


def max_unpool_backward(
    dy: Array, places: Array, *, channels_last: bool = True, owner: str = "max_unpool"
) -> Array:
    """Return dx, of the shape of ``places``: dy at each number's place, 0 where it has none."""
    backend = backend_of(owner, dy=dy, places=places)
    xp = backend.xp
    flat, rows = _flat(xp, places, dy.shape, channels_last)
    maps = xp.moveaxis(dy, -1, 1) if channels_last else dy
    maps = maps.reshape(*rows, math.prod(maps.shape[2:]))
    maps = xp.concatenate([maps, xp.zeros((*rows, 1), dy.dtype)], axis=2)
    dx = xp.take_along_axis(maps, flat, axis=2)
    _, _, output = split_axes(places.shape, channels_last)
    dx = dx.reshape(*rows, *output)
    return backend.arranged(xp.moveaxis(dx, 1, -1) if channels_last else dx)


def _flat(
    xp: object, places: Array, y_shape: Sequence[int], channels_last: bool
) -> tuple[Array, tuple[int, int]]:
    """Return the places as (N, C, numbers), with one beyond the map for none, and (N, C)."""
    batch, channels, size = split_axes(y_shape, channels_last)
    flat = xp.moveaxis(places, -1, 1) if channels_last else places
    flat = flat.reshape(batch, channels, math.prod(flat.shape[2:]))
    return xp.where(flat < 0, math.prod(size), flat), (batch, channels)
