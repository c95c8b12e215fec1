"""Numbers moved and none computed: slices, padding, and taking along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..arguments import as_choice
from ..backends import backend_of
from ..backends.base import Array
from .checks import expect_shape

PAD_MODES = ("constant", "edge", "reflect", "wrap")


def take_forward(x: Array, places: Sequence[int], axis: int, *, owner: str = "take") -> Array:
    """Return x[..., places, ...] along ``axis``: y[j] = x[places[j]].

    Args:
        x: any shape and dtype.
        places: of the axis, in any order, some of them perhaps twice or never.

    Raises:
        ValueError: a place lies outside the axis.

    Example:
        >>> take_forward(np.array([[1.0, 2.0, 3.0]]), [2, 2, 0], 1)
        array([[3., 3., 1.]])
    """
    backend = backend_of(owner, x=x)
    places = np.asarray(places, np.int64)
    if places.size and not 0 <= places.min() <= places.max() < x.shape[axis]:
        raise ValueError(
            f"{owner}: places must lie in [0, {x.shape[axis]}). Received: from"
            f" {places.min()} to {places.max()}"
        )
    return backend.xp.take(x, backend.asarray(places), axis=axis)


def take_backward(
    dy: Array, places: Sequence[int], x_shape: Sequence[int], axis: int, *, owner: str = "take"
) -> Array:
    """Return dx (x_shape): what was taken several times gets the sum, in the order of the places.

    Each round adds one copy of every place at most, so that no two threads meet at one sum.
    """
    backend = backend_of(owner, dy=dy)
    xp, axis = backend.xp, axis % len(x_shape)
    places = tuple(map(int, places))
    expect_shape(owner, (*x_shape[:axis], len(places), *x_shape[axis + 1 :]), dy=dy)
    dx = xp.zeros(x_shape, dy.dtype)
    before = (slice(None),) * axis
    for to, of in _rounds(places):
        dx[(*before, backend.asarray(to))] += dy[(*before, backend.asarray(of))]
    return dx


@lru_cache(maxsize=256)
def _rounds(places: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (places, where they stand): the first copies of all, the second ones, and so on."""
    order = np.argsort(places, kind="stable")
    values = np.asarray(places, np.int64)[order]
    firsts = np.searchsorted(values, values)  # where the run of equal ones begins
    copy = np.arange(len(values)) - firsts
    return [(values[copy == n], order[copy == n]) for n in range(copy.max(initial=-1) + 1)]


def pad_forward(
    x: Array,
    padding: Sequence[tuple[int, int]],
    mode: str = "constant",
    value: float = 0.0,
    *,
    owner: str = "pad",
) -> Array:
    """Return x with (before, after) more numbers at the ends of each axis, or fewer.

    Args:
        x: any shape and dtype.
        padding: a pair for each axis; a negative number cuts off.
        mode: "constant", ``value``; "edge", the last number; "reflect", mirrored about it;
            "wrap", the other end's.

    Raises:
        ValueError: no such mode, an axis without its pair, or nothing to copy from.

    Example:
        >>> pad_forward(np.array([1.0, 2.0, 3.0]), [(1, 2)], "reflect")
        array([2., 1., 2., 3., 2., 1.])
    """
    backend = backend_of(owner, x=x)
    check_padding(owner, x.shape, padding, mode)
    if mode == "constant":
        y = backend.xp.full(_padded(x.shape, padding), value, x.dtype)
        outer, inner = _overlap(x.shape, padding)
        y[outer] = x[inner]
        return y
    for axis, pair in enumerate(padding):
        if tuple(pair) != (0, 0):
            x = take_forward(x, pad_places(x.shape[axis], tuple(pair), mode), axis, owner=owner)
    return x


def pad_backward(
    dy: Array,
    x_shape: Sequence[int],
    padding: Sequence[tuple[int, int]],
    mode: str = "constant",
    *,
    owner: str = "pad",
) -> Array:
    """Return dx (x_shape) for the gradient dy of ``pad_forward``'s output."""
    backend = backend_of(owner, dy=dy)
    check_padding(owner, x_shape, padding, mode)
    expect_shape(owner, _padded(x_shape, padding), dy=dy)
    if mode == "constant":
        dx = backend.xp.zeros(x_shape, dy.dtype)
        outer, inner = _overlap(x_shape, padding)
        dx[inner] = dy[outer]
        return dx
    for axis, pair in enumerate(padding):
        if tuple(pair) != (0, 0):
            shape = (*dy.shape[:axis], x_shape[axis], *dy.shape[axis + 1 :])
            places = pad_places(x_shape[axis], tuple(pair), mode)
            dy = take_backward(dy, places, shape, axis, owner=owner)
    return dy


@lru_cache(maxsize=256)
def pad_places(size: int, pair: tuple[int, int], mode: str) -> tuple[int, ...]:
    """Return which of ``size`` numbers stands at each place of the padded axis.

    >>> pad_places(3, (4, -1), "wrap")
    (2, 0, 1, 2, 0, 1)
    """
    before, after = (max(end, 0) for end in pair)
    places = np.pad(np.arange(size), (before, after), mode)
    return tuple(places[max(-pair[0], 0) : len(places) - max(-pair[1], 0)].tolist())


def slice_backward(
    dy: Array, x_shape: Sequence[int], slices: Sequence[slice], *, owner: str = "slice"
) -> Array:
    """Return dx (x_shape) for y = x[slices]: dy where it was taken from, 0 elsewhere."""
    dx = backend_of(owner, dy=dy).xp.zeros(x_shape, dy.dtype)
    expect_shape(owner, dx[tuple(slices)].shape, dy=dy)
    dx[tuple(slices)] = dy
    return dx


def check_padding(
    owner: str, shape: Sequence[int], padding: Sequence[tuple[int, int]], mode: str
) -> None:
    """Raise a ValueError unless ``pad_forward`` can pad an array of this shape so."""
    as_choice(owner, "mode", mode, PAD_MODES)
    least = 0 if mode == "constant" else 1
    if len(padding) != len(shape) or any(
        size + min(before, 0) + min(after, 0) < (least if before > 0 or after > 0 else 0)
        for size, (before, after) in zip(shape, padding, strict=True)
    ):
        raise ValueError(
            f"{owner}: padding must be a (before, after) pair for each axis, and leave numbers of"
            f" an input of shape {tuple(shape)}. Received: padding={list(padding)}"
        )


def _padded(shape: Sequence[int], padding: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(n + before + after for n, (before, after) in zip(shape, padding, strict=True))


def _overlap(
    shape: Sequence[int], padding: Sequence[tuple[int, int]]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where the numbers that stay lie: in the padded array, and in the given one."""
    outer, inner = [], []
    for size, (before, after) in zip(shape, padding, strict=True):
        first, last = max(-before, 0), size - max(-after, 0)
        inner.append(slice(first, last))
        outer.append(slice(first + before, last + before))
    return tuple(outer), tuple(inner)
