"""A fully connected layer: a 1x1 convolution of a map of one pixel."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

from ..backends.base import Array
from ..shapes import ConvShape
from .activation import FromActivation, activation_backward, from_activation
from .checks import expect_shape
from .conv import conv_backward, conv_forward, conv_forward_masked
from .conv_norm import conv_norm_infer, conv_norm_train
from .mask import Mask
from .unapplied import Unapplied


def dense_forward(
    x: Array | Unapplied,
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
        x: (..., C), two axes or more; or an ``Unapplied`` that stands for such an array.
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
    options |= _with_residual(owner, size, residual)
    return conv_forward(_pixels(x), w[:, None, :], b, shape=_geometry(x, w), **options).reshape(
        size
    )


def dense_forward_masked(
    x: Array | Unapplied,
    w: Array,
    b: Array | None = None,
    *,
    residual: Array | None = None,
    owner: str = "dense",
    **options: Any,
) -> tuple[Array, Mask | None]:
    """Return ``dense_forward``'s y and the mask of it; as ``conv_forward_masked``."""
    _check(owner, x, w)
    size = (*x.shape[:-1], w.shape[0])
    options |= {"shape": _geometry(x, w), "owner": owner, **_with_residual(owner, size, residual)}
    y, mask = conv_forward_masked(_pixels(x), w[:, None, :], b, **options)
    y = y.reshape(size)
    return y, mask and Mask.of(y, mask.bits, mask.slope)


def dense_norm_infer(
    x: Array, w: Array, b: Array | None, *norm: Array, owner: str = "dense_norm", **options: Any
) -> Array:
    """Return ``batch_norm_infer(dense_forward(x, w, b), ...)``; as ``conv_norm_infer``."""
    _check(owner, x, w)
    options |= {"shape": _geometry(x, w), "owner": owner}
    y = conv_norm_infer(_pixels(x), w[:, None, :], b, *norm, **options)
    return y.reshape(*x.shape[:-1], w.shape[0])


def dense_norm_train(
    x: Array | Unapplied, w: Array, b: Array | None, *norm: Array, residual: Array | None = None,
    owner: str = "dense_norm", **options: Any,
) -> tuple[Array, Array | Unapplied, Array, Array]:  # fmt: skip
    """Return ``dense_forward(x, w, b)`` and the norm of it; as ``conv_norm_train``."""
    _check(owner, x, w)
    size = (*x.shape[:-1], w.shape[0])
    options |= {"shape": _geometry(x, w), "owner": owner, **_with_residual(owner, size, residual)}
    y, z, mean, var = conv_norm_train(_pixels(x), w[:, None, :], b, *norm, **options)
    return y.reshape(size), z.reshape(size), mean, var


def dense_backward(
    dy: Array,
    x: Array | FromActivation | Unapplied,
    w: Array,
    *,
    with_bias: bool = True,
    needs_dx: bool = True,
    residual: Array | None = None,
    math: str = "strict",
    owner: str = "dense",
) -> tuple[Array | None, Array, Array | None]:
    """Return dx (..., C), dw (units, C), db (units,) for dy (..., units); as ``conv_backward``."""
    given = x if isinstance(x, FromActivation) else FromActivation(x, "linear")
    x, kind, _ = from_activation(owner, x)
    _check(owner, x, w)
    expect_shape(owner, (*x.shape[:-1], w.shape[0]), dy=dy)
    expect_shape(owner, x.shape, residual=residual)
    # Of another order in memory, dx is to be what the activation makes of it by itself: sums over
    # it, a bias's gradient, would be rounded in another way.
    together = kind != "linear" and x.flags.c_contiguous
    dx, dw, db = conv_backward(
        _pixels(dy),
        given._replace(y=_pixels(x)) if together else _pixels(x),
        w[:, None, :],
        with_bias=with_bias,
        needs_dx=needs_dx,
        residual=None if residual is None else _pixels(residual),
        math=math,
        shape=_geometry(x, w),
        owner=owner,
    )
    dx = None if dx is None else dx.reshape(x.shape)
    if kind != "linear" and not together and needs_dx:
        dx = activation_backward(dx, x, kind, alpha=given.alpha, owner=owner)
    return dx, dw.reshape(w.shape), db


def _check(owner: str, x: Array | Unapplied, w: Array) -> None:
    if x.ndim < 2 or w.ndim != 2 or x.shape[-1] != w.shape[1]:
        raise ValueError(
            f"{owner}: expects an input (batch, ..., {w.shape[-1]}) for a kernel (units, features)"
            f" of shape {w.shape}. Received: input of shape {x.shape}"
        )


def _with_residual(owner: str, size: tuple[int, ...], residual: Array | None) -> dict[str, Array]:
    if residual is None:
        return {}
    expect_shape(owner, size, residual=residual)
    return {"residual": _pixels(residual)}


def _geometry(x: Array | Unapplied, w: Array) -> ConvShape:
    return _shape(prod(x.shape[:-1]), *w.shape)


@lru_cache(maxsize=4096)
def _shape(rows: int, units: int, features: int) -> ConvShape:
    return ConvShape.of((rows, 1, features), (units, 1, features))


def _pixels(x: Array | Unapplied) -> Array | Unapplied:
    return x.reshape(prod(x.shape[:-1]), 1, x.shape[-1])  # (..., C) -> (rows, 1, C)
