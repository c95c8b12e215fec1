"""A fully connected layer: a 1x1 convolution of a map of one pixel."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

from ..backends.base import Array
from ..shapes import ConvShape
from .checks import expect_shape
from .conv import conv_backward, conv_forward
from .conv_norm import conv_norm_infer, conv_norm_train


def dense_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    activation: str = "linear",
    alpha: float | None = None,
    residual: Array | None = None,
    math: str = "strict",
    out_dtype: Any = None,
    owner: str = "dense",
) -> Array:
    """Return f(x @ w.T + b + residual) over the last axis.

    Every row of x is an image of one pixel with C channels, every unit a 1x1 filter, so that the
    backends need no second matrix product.

    Args:
        x: (..., C), two axes or more.
        w: (units, C), the filters of that convolution.
        b: (units,), or None.
        activation, alpha, math, out_dtype: as in ``conv_forward``.
        residual: (..., units), or None.

    Returns:
        y: (..., units).

    Raises:
        ValueError: the last axes of x and w differ.
        TypeError: the arrays differ in dtype or device, or are not floating or complex.

    Example:
        >>> dense_forward(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
        array([[11.5]])
    """
    _check(owner, x, w)
    # (rows, 1, C) * (units, 1, C) -> (rows, 1, units)
    size = (*x.shape[:-1], w.shape[0])
    options = {"activation": activation, "alpha": alpha, "math": math, "owner": owner}
    options["out_dtype"] = out_dtype
    if residual is not None:
        expect_shape(owner, size, residual=residual)
        options["residual"] = _pixels(residual)
    return conv_forward(_pixels(x), w[:, None, :], b, shape=_geometry(x, w), **options).reshape(
        size
    )


def dense_norm_infer(
    x: Array, w: Array, b: Array | None, *norm: Array, owner: str = "dense_norm", **options: Any
) -> Array:
    """Return ``batch_norm_infer(dense_forward(x, w, b), ...)``; as ``conv_norm_infer``."""
    _check(owner, x, w)
    options |= {"shape": _geometry(x, w), "owner": owner}
    y = conv_norm_infer(_pixels(x), w[:, None, :], b, *norm, **options)
    return y.reshape(*x.shape[:-1], w.shape[0])


def dense_norm_train(
    x: Array, w: Array, b: Array | None, *norm: Array, residual: Array | None = None,
    owner: str = "dense_norm", **options: Any,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Return ``dense_forward(x, w, b)`` and the norm of it; as ``conv_norm_train``."""
    _check(owner, x, w)
    options |= {"shape": _geometry(x, w), "owner": owner}
    if residual is not None:
        options["residual"] = _pixels(residual)
    y, z, mean, var = conv_norm_train(_pixels(x), w[:, None, :], b, *norm, **options)
    size = (*x.shape[:-1], w.shape[0])
    return y.reshape(size), z.reshape(size), mean, var


def dense_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    with_bias: bool = True,
    needs_dx: bool = True,
    math: str = "strict",
    owner: str = "dense",
) -> tuple[Array | None, Array, Array | None]:
    """Return dx (..., C), dw (units, C), db (units,) for dy (..., units); as ``conv_backward``."""
    _check(owner, x, w)
    expect_shape(owner, (*x.shape[:-1], w.shape[0]), dy=dy)
    dx, dw, db = conv_backward(
        _pixels(dy),
        _pixels(x),
        w[:, None, :],
        with_bias=with_bias,
        needs_dx=needs_dx,
        math=math,
        shape=_geometry(x, w),
        owner=owner,
    )
    return None if dx is None else dx.reshape(x.shape), dw.reshape(w.shape), db


def _check(owner: str, x: Array, w: Array) -> None:
    if x.ndim < 2 or w.ndim != 2 or x.shape[-1] != w.shape[1]:
        raise ValueError(
            f"{owner}: expects an input (batch, ..., {w.shape[-1]}) for a kernel (units, features)"
            f" of shape {w.shape}. Received: input of shape {x.shape}"
        )


def _geometry(x: Array, w: Array) -> ConvShape:
    return _shape(prod(x.shape[:-1]), *w.shape)


@lru_cache(maxsize=4096)
def _shape(rows: int, units: int, features: int) -> ConvShape:
    return ConvShape.of((rows, 1, features), (units, 1, features))


def _pixels(x: Array) -> Array:
    return x.reshape(prod(x.shape[:-1]), 1, x.shape[-1])  # (..., C) -> (rows, 1, C)
