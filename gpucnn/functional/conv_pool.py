"""A convolution, its activation and the pooling behind it as one operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arguments import Padding, as_choice
from ..backends.base import FUSED, MATH, Array, pool_activates
from ..shapes import ConvShape, PoolShape
from .activation import FromActivation, from_activation
from .checks import expect_shape, prepare
from .conv import conv_shape
from .directions import bias_grad, input_grad, wgrad
from .pool import checked_index, pool_shape

Shapes = tuple[ConvShape, PoolShape]


def conv_pool_shapes(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    pool_size: int | Sequence[int] = 2,
    *,
    mode: str = "max",
    pool_strides: int | Sequence[int] | None = None,
    pool_padding: Padding = "valid",
    ceil_mode: bool = False,
    data_format: str = "channels_last",
    owner: str = "conv_pool",
    **geometry: Any,
) -> Shapes:
    """Return both geometries, to be computed once and passed as ``shapes=``.

    ``geometry`` takes the other keywords of ``conv_shape``.

    Example:
        >>> conv, pool = conv_pool_shapes((1, 28, 28, 1), (32, 3, 3, 1))
        >>> conv.y_shape, pool.y_shape
        ((1, 26, 26, 32), (1, 13, 13, 32))
    """
    conv = conv_shape(x_shape, w_shape, data_format=data_format, owner=owner, **geometry)
    pool = pool_shape(
        conv.y_shape,
        pool_size,
        mode=mode,
        strides=pool_strides,
        padding=pool_padding,
        ceil_mode=ceil_mode,
        data_format=data_format,
        owner=owner,
    )
    return conv, pool


def conv_pool_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    pool_size: int | Sequence[int] = 2,
    *,
    activation: str = "linear",
    with_index: bool = True,
    math: str = "strict",
    owner: str = "conv_pool",
    shapes: Shapes | None = None,
    **geometry: Any,
) -> tuple[Array, Array | None]:
    """Return ``pool_forward(conv_forward(x, w, b, activation=...))``, in one pass where that pays.

    On a GPU that is the maximum of each 2x2 outputs: of the first layer of a network, with at most
    4 channels and a window of 3x3, 5x5 or 7x7, and with channels last wherever the convolution runs
    on tensor cores. What the convolution gives is then never written. With NumPy arrays nor is it
    where a large map's windows do not overlap: for less than 16 channels, and for 3x3 windows if no
    index is wanted.

    Args:
        x, w, b: as for ``conv_forward``, but real.
        pool_size: the window of the pooling, an int or one for each axis.
        activation, math: as for ``conv_forward``.
        with_index: return the index that ``conv_pool_backward`` needs for a maximum or minimum.
        shapes: the geometries, if at hand (``conv_pool_shapes``); ``geometry`` is then not read.
        geometry: ``strides``, ``padding``, ``dilation``, ``groups`` and ``data_format`` as for
            ``conv_forward``; ``mode``, ``ceil_mode``, ``pool_strides`` and ``pool_padding`` as for
            ``pool_forward``.

    Returns:
        y: (N, P, Q, K) or (N, K, P, Q), and the index, for ``conv_pool_backward`` alone, or None.

    Raises:
        ValueError: a shape does not fit; the message says what would.
        TypeError: the arrays differ in dtype or device, or are not floating.

    Example:
        >>> x, w, b = np.arange(16.0).reshape(1, 4, 4, 1), np.ones((1, 1, 1, 1)), np.array([-9.0])
        >>> y, index = conv_pool_forward(x, w, b, activation="relu")
        >>> y[0, :, :, 0]
        array([[0., 0.],
               [4., 6.]])
    """
    as_choice(owner, "activation", activation, FUSED)
    as_choice(owner, "math", math, MATH)
    backend, x, w, b = prepare(owner, x=x, w=w, b=b)
    conv, pool = shapes or conv_pool_shapes(x.shape, w.shape, pool_size, owner=owner, **geometry)
    expect_shape(owner, conv.x_shape, x=x)
    expect_shape(owner, conv.w_shape, w=w)
    expect_shape(owner, (conv.filters,), b=b)
    return backend.conv_pool_forward(x, w, b, conv, pool, activation, with_index, math)


def conv_pool_backward(
    dy: Array,
    y: Array,
    index: Array | None,
    x: Array | FromActivation,
    w: Array,
    pool_size: int | Sequence[int] = 2,
    *,
    activation: str = "linear",
    with_bias: bool = True,
    needs_dx: bool = True,
    residual: Array | None = None,
    math: str = "strict",
    owner: str = "conv_pool",
    shapes: Shapes | None = None,
    **geometry: Any,
) -> tuple[Array | None, Array, Array | None]:
    """Return the gradients dx, dw and db of ``conv_pool_forward`` for the gradient dy of its y.

    ``y`` and ``index`` are what the forward returned, x and w what it was given, ``geometry`` its
    keywords. dx is None without ``needs_dx``, db without ``with_bias``. Without dx, in the first
    layer of a network, the gradients too are found in one pass where the forward was. x may be a
    ``FromActivation``, and a residual added to dx, as in ``conv_backward``.

    Raises:
        ValueError, TypeError: as ``conv_pool_forward``; dy, y or index is not of the output's
            shape, or a maximum has no index.
    """
    as_choice(owner, "activation", activation, FUSED)
    as_choice(owner, "math", math, MATH)
    x, *before = from_activation(owner, x)
    backend, dy, y, x, w, residual = prepare(owner, dy=dy, y=y, x=x, w=w, residual=residual)
    conv, pool = shapes or conv_pool_shapes(x.shape, w.shape, pool_size, owner=owner, **geometry)
    expect_shape(owner, conv.x_shape, x=x, residual=residual)
    expect_shape(owner, conv.w_shape, w=w)
    expect_shape(owner, pool.y_shape, dy=dy, y=y)
    index = checked_index(owner, dy, index, pool)
    if not needs_dx:
        dw, db = backend.conv_pool_backward(dy, y, index, x, conv, pool, activation, math)
        return None, dw, db if with_bias else None
    if activation != "linear" and not pool_activates(pool):
        dy = backend.activation_backward(dy, y, activation, 0.0)
    dz = backend.pool_backward(dy, index, pool)
    dx = input_grad(backend, dz, w, x, conv, math, *before, residual)
    db = bias_grad(backend, dz, conv.channels_last) if with_bias else None
    return dx, wgrad(backend, x, dz, conv, math), db
