"""Pooling over (N, C, *spatial)."""

from __future__ import annotations

from ...arguments import as_choice, as_tuple
from ...backends.base import Array, Backend
from ...functional import pool_backward, pool_forward, pool_shape
from ...functional.checks import expect_shape
from ...shapes import PoolShape
from .calls import Sizes, check_output, checked, contiguous, entry
from .constants import (
    CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING,
    CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING,
    CUDNN_POOLING_MAX,
    CUDNN_POOLING_MAX_DETERMINISTIC,
)

# cuDNN's mode -> ours, and whether an average counts the padding
_MODES = {
    CUDNN_POOLING_MAX: ("max", False),
    CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING: ("average", True),
    CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING: ("average", False),
    CUDNN_POOLING_MAX_DETERMINISTIC: ("max", False),
}


@entry
def pooling_forward(
    x: Array, y: Array, ksize: Sizes, stride: Sizes, pad: Sizes, mode: int
) -> Array:
    """Fill y with the maxima or averages of the windows of x, and return it.

    Args:
        x: (N, C, H, W); one or three axes in place of H and W serve, too. float16, float32 or
            float64, any strides.
        y: (N, C, P, Q), with P = (H + 2 pad - ksize) // stride + 1, C-contiguous. P may be larger,
            as long as each window still meets the input: they stick out at the end, as those of
            Chainer's ``cover_all`` do, over what counts as padding.
        ksize, stride, pad: a number for each axis; pad is smaller than ksize.
        mode: CUDNN_POOLING_MAX or CUDNN_POOLING_MAX_DETERMINISTIC, which are one here: padding
            never enters a maximum, nor does a NaN, and that of NaN alone is minus infinity;
            CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING, the sum over the size of the window; or
            CUDNN_POOLING_AVERAGE_COUNT_EXCLUDE_PADDING, that over the inputs under it.

    Raises:
        BadParameter: a shape or a value does not fit, or y is not C-contiguous.
        TypeError: the arguments are not these, or the arrays differ in dtype or device, or theirs
            is another dtype.

    Example:
        >>> x, y = np.arange(16.0).reshape(1, 1, 4, 4), np.empty((1, 1, 2, 2))
        >>> pooling_forward(x, y, (2, 2), (2, 2), (0, 0), CUDNN_POOLING_MAX)[0, 0]
        array([[ 5.,  7.],
               [13., 15.]])
    """
    owner = "cudnn.pooling_forward"
    check_output(owner, y=y)
    backend, x, filled = checked(owner, x=x, y=y)
    shape = _shape(owner, x, filled, ksize, stride, pad, mode)
    x = _without_nan(backend, x, shape)
    filled[...], _ = pool_forward(x, with_index=False, owner=owner, shape=shape)
    return y


@entry
def pooling_backward(
    x: Array, y: Array, gy: Array, ksize: Sizes, stride: Sizes, pad: Sizes, mode: int
) -> Array:
    """Return the gradient gx of ``pooling_forward`` in x, for the gradient gy of y.

    The arguments are as there, and so are the errors. Where several inputs are a window's maximum,
    the first gets its gradient. It is looked up once more in x: of y only the shape is read.
    """
    owner = "cudnn.pooling_backward"
    backend, x, gy = checked(owner, x=x, gy=gy)
    shape = _shape(owner, x, y, ksize, stride, pad, mode)
    index = None
    if shape.mode == "max":
        _, index = pool_forward(_without_nan(backend, x, shape), owner=owner, shape=shape)
    return contiguous(backend, pool_backward(gy, index, owner=owner, shape=shape))


def _shape(
    owner: str, x: Array, y: Array, ksize: Sizes, stride: Sizes, pad: Sizes, mode: int
) -> PoolShape:
    if x.ndim not in (3, 4, 5) or y.ndim != x.ndim:
        raise ValueError(
            f"{owner}: x and y must have 3 to 5 axes, and as many. Received: x of shape {x.shape},"
            f" y of shape {y.shape}"
        )
    rank = x.ndim - 2
    name, count_padding = _MODES[as_choice(owner, "mode", mode, tuple(_MODES))]
    window = as_tuple(owner, "ksize", ksize, rank)
    strides = as_tuple(owner, "stride", stride, rank)
    before = as_tuple(owner, "pad", pad, rank, minimum=0)
    axes = zip(x.shape[2:], y.shape[2:], window, strides, before, strict=True)
    # behind, as much as the last window of y needs
    after = [max(p, (out - 1) * s + r - p - size) for size, out, r, s, p in axes]
    shape = pool_shape(
        x.shape,
        window,
        mode=name,
        strides=strides,
        padding=tuple(zip(before, after, strict=True)),
        count_padding=count_padding,
        data_format="channels_first",
        owner=owner,
    )
    expect_shape(owner, shape.y_shape, y=y)
    return shape


def _without_nan(backend: Backend, x: Array, shape: PoolShape) -> Array:
    """Put minus infinity for NaN where maxima are asked for: CUDNN_NOT_PROPAGATE_NAN."""
    return backend.xp.fmax(x, x.dtype.type("-inf")) if shape.mode == "max" else x
