"""Softmax and its logarithm over any axis."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from ..backends.base import Array
from .checks import expect_shape, prepare


def softmax_forward(
    x: Array, axis: int = -1, *, log: bool = False, owner: str = "softmax"
) -> Array:
    """Return exp(x) / sum(exp(x)) over ``axis``, or its logarithm, without overflow.

    Args:
        x: any shape of one axis or more.

    Returns:
        y: as x.

    Raises:
        ValueError: x has no such axis.
        TypeError: x is not floating.

    Example:
        >>> softmax_forward(np.array([0.0, 0.0]))
        array([0.5, 0.5])
    """
    backend, x = prepare(owner, x=x)
    _check_axis(owner, x, axis)
    rows, restore = _as_rows(backend.xp, x, axis)
    return restore(backend.softmax_forward(rows, log))


def softmax_backward(
    dy: Array, y: Array, axis: int = -1, *, log: bool = False, owner: str = "softmax"
) -> Array:
    """Return dx = y * (dy - sum(dy * y)); for the logarithm dx = dy - exp(y) * sum(dy).

    ``y`` is the forward's output.
    """
    backend, dy, y = prepare(owner, dy=dy, y=y)
    _check_axis(owner, y, axis)
    expect_shape(owner, y.shape, dy=dy)
    rows, restore = _as_rows(backend.xp, y, axis)
    return restore(backend.softmax_backward(_as_rows(backend.xp, dy, axis)[0], rows, log))


def _check_axis(owner: str, x: Array, axis: int) -> None:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{owner}: axis must be an axis of the input. Received: axis={axis} for an input of"
            f" shape {x.shape}"
        )


def _as_rows(xp: ModuleType, x: Array, axis: int) -> tuple[Array, Callable[[Array], Array]]:
    """Return x as (rows, classes), and the function that undoes it."""
    moved = xp.moveaxis(x, axis, -1)

    def restore(rows: Array) -> Array:
        return xp.ascontiguousarray(xp.moveaxis(rows.reshape(moved.shape), -1, axis))

    return xp.ascontiguousarray(moved).reshape(-1, x.shape[axis]), restore
