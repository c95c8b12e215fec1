"""Convolution and pooling: a window slides over a padded input, in 1, 2 or 3 dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

Place = tuple[int, ...]


def slide(
    size: int, window: int, stride: int, pad: tuple[int, int], dilation: int, ceil: bool = False
) -> list[list[int]]:
    """Return the input coordinates under the taps of each window along one axis.

    Coordinates below 0 or from ``size`` on lie in the padding or beyond. With ``ceil`` the last
    window may stick out, if one a stride before left inputs over and it starts before the back
    padding.

    >>> slide(5, 2, 2, (1, 0), 2)
    [[-1, 1], [1, 3]]
    """
    windows: list[list[int]] = []
    end = size + pad[1]
    start = -pad[0]
    while True:
        taps = [start + dilation * r for r in range(window)]
        fits = taps[-1] < end
        if not fits and not (ceil and taps[-1] - stride < end - 1 and start < size):
            return windows
        windows.append(taps)
        start += stride


def conv_windows(s: Any) -> list[list[list[int]]]:
    axes = zip(s.input, s.kernel, s.strides, s.padding, s.dilation, strict=True)
    return [slide(*axis) for axis in axes]


def pool_windows(s: Any) -> list[list[list[int]]]:
    axes = zip(s.input, s.window, s.strides, s.padding, s.dilation, strict=True)
    return [slide(*axis, s.ceil_mode) for axis in axes]


def output_size(windows: list[list[list[int]]]) -> Place:
    return tuple(len(axis) for axis in windows)


def overlaps(windows: list[list[list[int]]], size: Place) -> Iterator[tuple[Place, Place, Place]]:
    """Yield (output, tap, input) places for every tap of every window that meets an input."""
    for out in np.ndindex(output_size(windows)):
        under = [axis[p] for axis, p in zip(windows, out, strict=True)]
        for tap in np.ndindex(*(len(axis) for axis in under)):
            place = tuple(axis[r] for axis, r in zip(under, tap, strict=True))
            if all(0 <= i < n for i, n in zip(place, size, strict=True)):
                yield out, tap, place


def _channels_last(x: np.ndarray, s: Any) -> np.ndarray:
    x = np.asarray(x).astype(np.float64)
    return x if s.channels_last else np.moveaxis(x, 1, -1)


def _as_given(y: np.ndarray, s: Any) -> np.ndarray:
    return y if s.channels_last else np.moveaxis(y, -1, 1)


def _groups(s: Any) -> list[tuple[slice, slice]]:
    """The filters and the channels of each group."""
    k, c = s.filters // s.groups, s.channels // s.groups
    return [(slice(g * k, g * k + k), slice(g * c, g * c + c)) for g in range(s.groups)]


# In the three convolutions an index of an activation is (all samples, *place, channels) and one of
# the filters is (filters, *tap, all channels of the group): the sums over k or c are the "@".


def conv_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, s: Any) -> np.ndarray:
    """y[n,p,k] = b[k] + sum over taps r, channels c of x[n, p*stride - pad + r*dil, c] w[k,r,c]."""
    x, w = _channels_last(x, s), w.astype(np.float64)
    windows = conv_windows(s)
    y = np.zeros((s.batch, *output_size(windows), s.filters))
    for out, tap, place in overlaps(windows, s.input):
        for k, c in _groups(s):
            y[(slice(None), *out, k)] += x[(slice(None), *place, c)] @ w[(k, *tap)].T
    if b is not None:
        y += b.astype(np.float64)
    return _as_given(y, s)


def conv_dgrad(dy: np.ndarray, w: np.ndarray, b: np.ndarray | None, s: Any) -> np.ndarray:
    """Each product x * w of fprop that went into y sends dy * w back to that x."""
    dy, w = _channels_last(dy, s), w.astype(np.float64)
    dx = np.zeros((s.batch, *s.input, s.channels))
    for out, tap, place in overlaps(conv_windows(s), s.input):
        for k, c in _groups(s):
            dx[(slice(None), *place, c)] += dy[(slice(None), *out, k)] @ w[(k, *tap)]
    if b is not None:
        dx += b.astype(np.float64)
    return _as_given(dx, s)


def conv_wgrad(x: np.ndarray, dy: np.ndarray, s: Any) -> np.ndarray:
    """Each product x * w of fprop that went into y sends dy * x back to that w."""
    x, dy = _channels_last(x, s), _channels_last(dy, s)
    dw = np.zeros((s.filters, *s.kernel, s.channels // s.groups))
    for out, tap, place in overlaps(conv_windows(s), s.input):
        for k, c in _groups(s):
            dw[(k, *tap)] += dy[(slice(None), *out, k)].T @ x[(slice(None), *place, c)]
    return dw


def _pool_taps(s: Any) -> dict[Place, tuple[dict[int, Place], int]]:
    """For each window: {flat place of a tap in the window: its input}, and taps for an average.

    An average that counts padding divides by the taps on the input or its padding, another only
    by those on the input.
    """
    windows = pool_windows(s)
    taps = {}
    for out in np.ndindex(output_size(windows)):
        under = [axis[p] for axis, p in zip(windows, out, strict=True)]
        inputs, padded = {}, 0
        for i, place in enumerate(product(*under)):
            ends = list(zip(place, s.input, s.padding, strict=True))
            if all(0 <= h < size for h, size, _ in ends):
                inputs[i] = place
            if all(-before <= h < size + after for h, size, (before, after) in ends):
                padded += 1
        taps[out] = (inputs, padded if s.count_padding else len(inputs))
    return taps


def _extreme(values: dict[int, float], mode: str, taps: int) -> tuple[float, int]:
    """The maximum or minimum and its tap: the first of several; a NaN wins; ``taps`` if none."""
    best, at = (-math.inf if mode == "max" else math.inf), taps
    for i, value in values.items():
        better = value > best if mode == "max" else value < best
        if at == taps or better or (math.isnan(value) and not math.isnan(best)):
            best, at = value, i
    return best, at


def pool_forward(x: np.ndarray, s: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return y and, for a maximum or minimum, the flat place in its window (int64; else zeros)."""
    x = _channels_last(x, s)
    windows = _pool_taps(s)
    y = np.zeros((s.batch, *output_size(pool_windows(s)), s.channels))
    index = np.zeros(y.shape, np.int64)
    for n, c in product(range(s.batch), range(s.channels)):
        for out, (inputs, divisor) in windows.items():
            values = {i: float(x[(n, *place, c)]) for i, place in inputs.items()}
            at = (n, *out, c)
            if s.mode in ("max", "min"):
                y[at], index[at] = _extreme(values, s.mode, math.prod(s.window))
            else:
                total = sum(values.values())
                y[at] = total / divisor if s.mode == "average" and values else total
    return _as_given(y, s), _as_given(index, s)


def pool_backward(dy: np.ndarray, index: np.ndarray | None, s: Any) -> np.ndarray:
    """Each window sends dy to its chosen input, or its share of dy to every input under it."""
    dy = _channels_last(dy, s)
    if index is not None and not s.channels_last:
        index = np.moveaxis(index, 1, -1)
    dx = np.zeros((s.batch, *s.input, s.channels))
    windows = _pool_taps(s)
    for n, c in product(range(s.batch), range(s.channels)):
        for out, (inputs, divisor) in windows.items():
            gradient = dy[(n, *out, c)]
            if s.mode in ("max", "min"):
                if (at := int(index[(n, *out, c)])) in inputs:
                    dx[(n, *inputs[at], c)] += gradient
                continue
            for place in inputs.values():
                dx[(n, *place, c)] += gradient / divisor if s.mode == "average" else gradient
    return _as_given(dx, s)
