"""Sums, means, maxima and norms over chosen axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..arguments import as_choice
from ..backends import backend_of
from ..backends.base import Array, accumulator
from .checks import expect_shape
from .directions import conjugate
from .elementwise import quiet

MODES = (
    "sum", "mean", "max", "min", "prod", "l1", "l2", "log_sum", "log_sum_exp", "sum_square",
)  # fmt: skip
_COMPLEX = ("sum", "mean", "prod")


def reduce_forward(
    x: Array,
    mode: str,
    axes: Sequence[int],
    *,
    keepdims: bool = False,
    owner: str = "reduce",
) -> Array:
    """Reduce x over ``axes``.

    Args:
        x: any shape; of any dtype for sums, products, maxima and minima.
        mode: "sum", "mean", "max", "min", "prod"; "l1", sum |x|; "l2", sqrt(sum x^2); "log_sum",
            log(sum x); "log_sum_exp", log(sum exp(x)), without overflow; "sum_square", sum x^2.
        axes: which, negative ones from behind; with none x comes back as its own single terms.
        keepdims: leave axes of size 1 in their place.

    Returns:
        y: of x's dtype; a float16 or bfloat16 sum is carried in float32.

    Raises:
        ValueError: no such mode or axis.
        TypeError: complex numbers, and another mode than "sum", "mean" or "prod".

    Example:
        >>> reduce_forward(np.array([[3.0, 4.0], [6.0, 8.0]]), "l2", [1])
        array([ 5., 10.])
    """
    as_choice(owner, "mode", mode, MODES)
    if x.dtype.kind == "c" and mode not in _COMPLEX:
        raise TypeError(
            f"{owner}: of complex numbers mode must be one of {_COMPLEX}. Received: mode={mode!r}"
        )
    xp = backend_of(owner, x=x).xp
    axes = checked_axes(owner, axes, x.ndim)
    options = {"axis": axes, "keepdims": keepdims}
    if mode in ("max", "min"):
        return _extreme(xp, x, mode, options)
    integers = x.dtype.kind in "iub"
    if integers and mode in ("sum", "prod"):
        return getattr(xp, mode)(x, dtype=x.dtype, **options)
    # float64 holds integers up to 2^53 as they are.
    wide = x.astype("float64" if integers else accumulator(x.dtype), copy=False)
    with quiet():
        return _floating(xp, wide, mode, options).astype(x.dtype, copy=False)


def _extreme(xp: Any, x: Array, mode: str, options: dict[str, Any]) -> Array:
    if x.dtype.kind == "b":
        return (xp.any if mode == "max" else xp.all)(x, **options)
    if 0 in (x.shape[axis] for axis in options["axis"]):  # of nothing: the neutral element
        if x.dtype.kind == "f":
            least, most = -math.inf, math.inf
        else:
            least, most = xp.iinfo(x.dtype).min, xp.iinfo(x.dtype).max
        options = options | {"initial": least if mode == "max" else most}
    return (xp.max if mode == "max" else xp.min)(x, **options)


def _floating(xp: Any, x: Array, mode: str, options: dict[str, Any]) -> Array:
    if mode in ("sum", "prod"):
        return getattr(xp, mode)(x, **options)
    if mode == "mean":
        return xp.sum(x, **options) / math.prod(x.shape[axis] for axis in options["axis"])
    if mode == "l1":
        return xp.sum(xp.abs(x), **options)
    if mode in ("l2", "sum_square"):
        total = xp.sum(x * x, **options)
        return xp.sqrt(total) if mode == "l2" else total
    if mode == "log_sum":
        return xp.log(xp.sum(x, **options))
    top = _extreme(xp, x, "max", options | {"keepdims": True})
    top = xp.where(xp.isfinite(top), top, xp.zeros((), x.dtype))
    total = xp.log(xp.sum(xp.exp(x - top), **options))
    return total + (top if options["keepdims"] else top.reshape(total.shape))


def reduce_backward(
    dy: Array, x: Array, y: Array, mode: str, axes: Sequence[int], *, owner: str = "reduce"
) -> Array:
    """Return dx for the forward's input x and output y, with its axes kept or not.

    Equal maxima, or minima, share the gradient.
    """
    as_choice(owner, "mode", mode, MODES)
    xp = backend_of(owner, dy=dy, x=x, y=y).xp
    expect_shape(owner, y.shape, dy=dy)
    axes = checked_axes(owner, axes, x.ndim)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    wide = accumulator(x.dtype)
    dy, y, x_wide = dy.reshape(kept).astype(wide), y.reshape(kept).astype(wide), x.astype(wide)
    with quiet():
        return (dy * conjugate(_slope(xp, x_wide, y, mode, axes))).astype(x.dtype)


def _slope(xp: Any, x: Array, y: Array, mode: str, axes: tuple[int, ...]) -> Array:
    if mode in ("max", "min"):
        equal = (x == y).astype(x.dtype)
        return equal / equal.sum(axis=axes, keepdims=True)
    if mode == "prod":  # the product of the others
        zero = x == 0
        zeros = zero.sum(axis=axes, keepdims=True)
        others = xp.where(zero, xp.ones((), x.dtype), x).prod(axis=axes, keepdims=True)
        alone = xp.where(zero & (zeros == 1), others, xp.zeros((), x.dtype))
        return xp.where(zeros == 0, y / x, alone)
    if mode in ("l1", "sum_square"):
        return xp.sign(x) if mode == "l1" else 2 * x
    if mode == "l2":
        return xp.where(y == 0, xp.zeros((), x.dtype), x / y)
    if mode == "log_sum_exp":
        return xp.exp(x - y)
    ones = xp.ones(x.shape, x.dtype)
    if mode == "log_sum":
        return ones * xp.exp(-y)
    return ones / math.prod(x.shape[axis] for axis in axes) if mode == "mean" else ones


def checked_axes(owner: str, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return the axes counted from the front, in order.

    Raises:
        ValueError: there is no such axis, or one is named twice.
    """
    places = sorted(int(axis) + rank * (axis < 0) for axis in axes)
    if len(set(places)) < len(places) or (places and not 0 <= places[0] <= places[-1] < rank):
        raise ValueError(
            f"{owner}: axes must be different axes of an input of {rank}. Received: axes={axes}"
        )
    return tuple(places)
