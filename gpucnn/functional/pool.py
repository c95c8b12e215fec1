"""Pooling in 1, 2 and 3 dimensions, by windows or over the whole map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arguments import Padding, as_choice
from ..backends import backend_of
from ..backends.base import FUSED, Array
from ..shapes import PoolShape, split_axes
from .checks import expect_shape, is_channels_last, prepare


def pool_shape(
    x_shape: Sequence[int],
    pool_size: int | Sequence[int] = 2,
    *,
    mode: str = "max",
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_padding: bool = False,
    data_format: str = "channels_last",
    owner: str = "pool",
) -> PoolShape:
    """Return the geometry of a pooling over x (N, *spatial, C) or (N, C, *spatial).

    Example:
        >>> pool_shape((1, 28, 28, 8), 3, strides=2).y_shape
        (1, 13, 13, 8)
    """
    rank = len(x_shape) - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"{owner}: expects an input of 3, 4 or 5 axes. Received: input of shape {x_shape}"
        )
    return PoolShape.of(
        x_shape,
        pool_size,
        mode=mode,
        rank=rank,
        strides=strides,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        count_padding=count_padding,
        channels_last=is_channels_last(owner, data_format),
        owner=owner,
    )


def pool_forward(
    x: Array,
    pool_size: int | Sequence[int] = 2,
    *,
    mode: str = "max",
    strides: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_padding: bool = False,
    data_format: str = "channels_last",
    with_index: bool = True,
    activation: str = "linear",
    owner: str = "pool",
    shape: PoolShape | None = None,
) -> tuple[Array, Array | None]:
    """Reduce each window of x to its "max", "min", "average" or "sum".

    Args:
        x: (N, H, W, C), or (N, C, H, W) with ``data_format="channels_first"``; with one or three
            axes between them for 1-D and 3-D.
        pool_size: the window, an int or one for each axis; strides default to it.
        mode: what is kept of a window.
        dilation: the step between the inputs of a window.
        padding: as in ``conv_forward``, and smaller than the window. It never enters a maximum, a
            minimum or a sum.
        ceil_mode: round the output's size up, so that the last window may stick out.
        count_padding: let an average count the padding under the window as zeros.
        with_index: return the index that ``pool_backward`` needs for a maximum or minimum.
        activation: "linear", or "relu" for max(y, 0) in the same pass, behind a maximum or minimum;
            ``pool_backward`` is then its gradient, too, for the index leaves out what it has cut.
        shape: the geometry, if at hand (``pool_shape``); the others but the last two are then not
            read.

    Returns:
        y: (N, P, Q, C) or (N, C, P, Q), and the index: where in its window each maximum or minimum
        lies (the first of equal ones; a NaN wins), an unsigned integer of y's shape, or None.

    Raises:
        ValueError: the window does not fit into the input, the padding is as large as it, or a
            "relu" follows an average or a sum.
        TypeError: x is not floating.

    Example:
        >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
        >>> pool_forward(x)[0][0, :, :, 0]
        array([[ 5.,  7.],
               [13., 15.]])
    """
    backend, x = prepare(owner, x=x)
    shape = shape or pool_shape(
        x.shape,
        pool_size,
        mode=mode,
        strides=strides,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        count_padding=count_padding,
        data_format=data_format,
        owner=owner,
    )
    expect_shape(owner, shape.x_shape, x=x)
    of_extremes = FUSED if shape.mode in ("max", "min") else ("linear",)
    as_choice(owner, "activation", activation, of_extremes)
    return backend.pool_forward(x, shape, with_index, activation)


def pool_backward(
    dy: Array,
    index: Array | None,
    x_shape: Sequence[int] | None = None,
    pool_size: int | Sequence[int] = 2,
    *,
    owner: str = "pool",
    shape: PoolShape | None = None,
    **geometry: Any,
) -> Array:
    """Return dx for the gradient dy of ``pool_forward``'s output; overlapping windows add up.

    ``index`` is the one that the forward returned, ``x_shape`` its input's shape, ``geometry`` its
    keywords; or ``shape`` stands for the last two.

    Raises:
        ValueError: dy or index is not of the output's shape, or a maximum has no index.
        TypeError: dy and index lie on different devices, or index has another dtype.
    """
    backend, dy = prepare(owner, dy=dy)
    if shape is None:
        if x_shape is None:
            raise ValueError(f"{owner}: x_shape or shape must be given. Received: neither")
        shape = pool_shape(x_shape, pool_size, owner=owner, **geometry)
    expect_shape(owner, shape.y_shape, dy=dy)
    return backend.pool_backward(dy, checked_index(owner, dy, index, shape), shape)


def checked_index(owner: str, dy: Array, index: Array | None, shape: PoolShape) -> Array | None:
    """Return what a forward gave as its index, arranged; None for an average or a sum.

    Raises:
        ValueError: it is not of the output's shape, or a maximum has none.
        TypeError: it lies on another device than dy, or has another dtype.
    """
    if index is None:
        if shape.mode in ("max", "min"):
            raise ValueError(
                f"{owner}: the index of the forward must be given for mode {shape.mode!r}."
                f" Received: index=None"
            )
        return None
    expect_shape(owner, shape.y_shape, index=index)
    backend = backend_of(owner, dy=dy, index=index)
    if index.dtype != shape.index_dtype:
        raise TypeError(f"{owner}: index must be {shape.index_dtype}. Received: {index.dtype.name}")
    return backend.arranged(index)


def global_pool_forward(
    x: Array,
    *,
    mode: str = "average",
    keepdims: bool = False,
    data_format: str = "channels_last",
    with_index: bool = True,
    owner: str = "global_pool",
) -> tuple[Array, Array | None]:
    """Reduce each channel's whole map: x (N, H, W, C) -> y (N, C), or (N, 1, 1, C) with keepdims.

    Args:
        x, mode, data_format, with_index: as for ``pool_forward``.

    Returns:
        y, and the index for ``global_pool_backward`` (of y's shape with keepdims).

    Raises:
        ValueError: x has no three to five axes, or a map is empty.
        TypeError: x is not floating.

    Example:
        >>> global_pool_forward(np.arange(8.0).reshape(1, 2, 2, 2))[0]
        array([[3., 4.]])
    """
    shape = global_pool_shape(x.shape, mode, data_format, owner)
    y, index = pool_forward(x, with_index=with_index, owner=owner, shape=shape)
    return (y if keepdims else y.reshape(shape.batch, shape.channels)), index


def global_pool_backward(
    dy: Array,
    index: Array | None,
    x_shape: Sequence[int],
    *,
    mode: str = "average",
    data_format: str = "channels_last",
    owner: str = "global_pool",
) -> Array:
    """Return dx (x_shape) for dy (N, C), with its ones between them or not."""
    shape = global_pool_shape(x_shape, mode, data_format, owner)
    if dy.shape != shape.y_shape:
        expect_shape(owner, (shape.batch, shape.channels), dy=dy)
    return pool_backward(dy.reshape(shape.y_shape), index, owner=owner, shape=shape)


def global_pool_shape(
    x_shape: Sequence[int],
    mode: str = "average",
    data_format: str = "channels_last",
    owner: str = "global_pool",
) -> PoolShape:
    """Return the geometry of a pooling over whole maps: its window is the map."""
    _, _, spatial = split_axes(x_shape, is_channels_last(owner, data_format))
    if 0 in spatial:
        raise ValueError(f"{owner}: the maps are empty. Received: input of shape {x_shape}")
    return pool_shape(x_shape, spatial, mode=mode, data_format=data_format, owner=owner)
