"""Pooling, one axis after the other.

The maximum (or sum) over a window is that over its rows of each row's own: R + S steps instead of
R * S, most of them on data that the last axis has already made smaller. Taking the last axis
first and, along each, the first of equal maxima keeps the first in C order of the whole window:
the smallest row that has the maximum, and in it the smallest column.

Backward, a maximum gives dy to the input whose tap is its index, tap by tap in C order; a sum
spreads dy axis by axis. The loops are over taps; pixels are slices of whole arrays, in blocks of
samples that stay in the cache.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ...shapes import PoolShape
from .blocks import keep, sample_blocks, wide, window_slices

Slices = tuple[slice, ...]

MANY_TAPS = 64  # beyond so many, a pass over all of dy for each tap is the slower way back


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a pooling; ``place`` says which axis of the array it is."""

    place: int
    size: int
    output: int
    window: int
    stride: int
    pad: tuple[int, int]
    dilation: int

    @cached_property
    def slices(self) -> list[tuple[slice, slice]]:
        """For each tap the outputs that it serves and the inputs that it reads."""
        offsets = [tap * self.dilation - self.pad[0] for tap in range(self.window)]
        return [window_slices(self.size, self.stride, at, 0, self.output) for at in offsets]

    @cached_property
    def taps(self) -> list[tuple[Slices, Slices]]:
        """The same as indices of the array."""
        before = (slice(None),) * self.place
        return [((*before, served), (*before, read)) for served, read in self.slices]

    @cached_property
    def starts(self) -> np.ndarray:
        """The input at which each window begins; padding is below 0."""
        return np.arange(self.output) * self.stride - self.pad[0]

    @cached_property
    def first_taps(self) -> np.ndarray:
        """The first tap of each window that is not before the input."""
        return np.maximum(0, -(self.starts // self.dilation))

    @cached_property
    def first_inputs(self) -> np.ndarray:
        return np.minimum(self.starts + self.first_taps * self.dilation, self.size - 1)

    def counts(self, padded: bool) -> np.ndarray:
        """How many taps of each window fall on the input or, if ``padded``, also its padding."""
        reads = self.starts[:, None] + np.arange(self.window) * self.dilation
        before, after = self.pad if padded else (0, 0)
        return ((reads >= -before) & (reads < self.size + after)).sum(1)

    def add(self, part: np.ndarray, size: int, taps: list[tuple[Slices, Slices]]) -> np.ndarray:
        """Add up ``part[read]`` in ``[served]`` of an array that has ``size`` along this axis."""
        total = np.zeros(
            (*part.shape[: self.place], size, *part.shape[self.place + 1 :]), part.dtype
        )
        for served, read in taps:
            total[served] += part[read]
        return total

    def gather(self, part: np.ndarray) -> np.ndarray:
        """Sum over each window."""
        return self.add(part, self.output, self.taps)

    def spread(self, part: np.ndarray) -> np.ndarray:
        """Give each input the sum of the windows over it."""
        return self.add(part, self.size, [(read, served) for served, read in self.taps])


@lru_cache
def _axes(shape: PoolShape) -> tuple[_Axis, ...]:
    numbers = zip(
        shape.input, shape.output, shape.window, shape.strides, shape.padding, shape.dilation,
        strict=True,
    )  # fmt: skip
    first = 1 if shape.channels_last else 2
    return tuple(_Axis(first + i, *axis) for i, axis in enumerate(numbers))


def _along(vector: np.ndarray, place: int, ndim: int) -> np.ndarray:
    """Shape a vector to lie along one axis of ``ndim``."""
    return vector.reshape(-1, *(1,) * (ndim - 1 - place))


def _extremes(
    x: np.ndarray, shape: PoolShape, with_index: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the maxima (minima) of a block and the flat place of each in its window."""
    is_max = shape.mode == "max"
    better, extreme = (np.greater, np.maximum) if is_max else (np.less, np.minimum)
    number = np.dtype(shape.index_dtype).type
    index = np.zeros(x.shape, number) if with_index else None
    taps = 1  # of a window along the axes done so far
    for axis in reversed(_axes(shape)):
        # Each window begins with its first input, and so has an index even if all are -inf.
        y = x.take(axis.first_inputs, axis.place)
        if with_index:
            best = index.take(axis.first_inputs, axis.place)
            best += _along((axis.first_taps * taps).astype(number), axis.place, x.ndim)
        for tap, (served, read) in enumerate(axis.taps[1:], 1):
            if with_index:
                # Indices rise from tap to tap, so that a maximum lets the winner's pass.
                won = better(x[read], y[served]).view(np.uint8)
                won = (index[read] + number(tap * taps)) * won
                np.maximum(best[served], won, out=best[served])
            extreme(y[served], x[read], out=y[served])
        if with_index:
            if np.isnan(y).any():  # every comparison with it was False; the first one wins
                for tap, (served, read) in reversed(list(enumerate(axis.taps))):
                    candidate = index[read] + number(tap * taps)
                    np.copyto(best[served], candidate, where=np.isnan(x[read]))
            index = best
        x, taps = y, taps * axis.window
    for axis in _axes(shape):
        empty = axis.counts(padded=False) == 0
        if empty.any():
            windows = (*(slice(None),) * axis.place, empty)
            x[windows] = -np.inf if is_max else np.inf
            if with_index:
                index[windows] = shape.taps
    return x, index


@lru_cache
def _divisors(shape: PoolShape) -> np.ndarray | float:
    """Return what each window's sum is divided by, to broadcast over y."""
    if shape.mode == "sum":
        return 1.0
    areas = 1
    for axis in _axes(shape):
        counts = axis.counts(shape.count_padding)
        areas = areas * _along(counts, axis.place, shape.rank + 2)
    areas = np.maximum(areas, 1)  # an empty window has sum 0 and average 0
    same = areas.min() == areas.max()
    return float(areas.flat[0]) if same else areas.astype(np.float32)


def _to_winners(dy: np.ndarray, index: np.ndarray, shape: PoolShape) -> np.ndarray:
    """Return dx of a block: each dy goes to the input that its window's index names."""
    axes = _axes(shape)
    extents = list(dy.shape)
    for axis in axes:
        extents[axis.place] = axis.size
    if shape.taps > MANY_TAPS:
        return _to_places(dy, index, extents, shape)
    dx = np.zeros(extents, dy.dtype)
    around = (slice(None),) * axes[0].place
    for tap, place in enumerate(itertools.product(*(axis.slices for axis in axes))):
        served, read = zip(*place, strict=True)
        served, read = (*around, *served), (*around, *read)
        dx[read] += keep(dy[served], index[served] == tap)
    return dx


def _to_places(
    dy: np.ndarray, index: np.ndarray, extents: list[int], shape: PoolShape
) -> np.ndarray:
    """The same for large windows: add one dy after the other, in C order and in float64."""
    places, taps = list(np.indices(dy.shape, sparse=True)), index.astype(np.int64)
    for axis in reversed(_axes(shape)):
        taps, tap = np.divmod(taps, axis.window)
        places[axis.place] = _along(axis.starts, axis.place, dy.ndim) + tap * axis.dilation
    flat = np.ravel_multi_index(tuple(places), extents, mode="clip")  # empty windows: anywhere
    given = keep(dy, index < shape.taps)
    dx = np.bincount(flat.reshape(-1), given.reshape(-1), math.prod(extents))
    return dx.reshape(extents)


class Pools:
    """``pool_forward`` and ``pool_backward``."""

    def pool_forward(
        self, x: np.ndarray, shape: PoolShape, with_index: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None]:
        y = np.empty(shape.y_shape, x.dtype)
        extremes = shape.mode in ("max", "min")
        index = np.empty(shape.y_shape, shape.index_dtype) if extremes and with_index else None
        for samples in sample_blocks(x.shape):
            part = wide(x[samples])
            if extremes:
                part, places = _extremes(part, shape, with_index)
                if with_index:
                    index[samples] = places
            else:
                for axis in reversed(_axes(shape)):
                    part = axis.gather(part)
                if shape.mode == "average":
                    part /= _divisors(shape)
            y[samples] = part
        return y, index

    def pool_backward(
        self, dy: np.ndarray, index: np.ndarray | None, shape: PoolShape
    ) -> np.ndarray:
        dx = np.zeros(shape.x_shape, dy.dtype)
        for samples in sample_blocks(dx.shape):
            part = wide(dy[samples])
            if index is not None:
                dx[samples] = _to_winners(part, index[samples], shape)
                continue
            if shape.mode == "average":
                part = part / _divisors(shape)
            for axis in _axes(shape):
                part = axis.spread(part)
            dx[samples] = part
        return dx
