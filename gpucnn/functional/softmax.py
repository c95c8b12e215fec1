"""Softmax and its logarithm over any axis."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..backends.base import Array, Backend
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
    rows, restore = _as_rows(backend, x, axis)
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
    rows, restore = _as_rows(backend, y, axis)
    return restore(backend.softmax_backward(_as_rows(backend, dy, axis)[0], rows, log))


def _check_axis(owner: str, x: Array, axis: int) -> None:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{owner}: axis must be an axis of the input. Received: axis={axis} for an input of"
            f" shape {x.shape}"
        )


def _as_rows(backend: Backend, x: Array, axis: int) -> tuple[Array, Callable[[Array], Array]]:
    """Return x as (rows, classes), and the function that undoes it."""
    axis %= x.ndim
    before, classes, after = x.shape[:axis], x.shape[axis], math.prod(x.shape[axis + 1 :])
    if after == 1:
        return x.reshape(-1, classes), lambda rows: rows.reshape(x.shape)
    rows = backend.change_layout(x.reshape(math.prod(before), classes, after))

    def restore(y: Array) -> Array:  # (B, A, classes) -> (B, classes, A)
        return backend.change_layout(y.reshape(rows.shape)).reshape(x.shape)

    return rows.reshape(-1, classes), restore
