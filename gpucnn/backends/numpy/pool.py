"""Pooling on pixel-major memory, one axis after the other.

The maximum (or sum) over a window is that over its rows of each row's own: R + S steps instead of
R * S, most of them on data that the last axis has already made smaller. Taking the last axis
first and, along each, the first of equal maxima keeps the first in C order of the whole window:
the smallest row that has the maximum, and in it the smallest column.

Backward, a maximum gives dy to the input whose tap is its index, tap by tap in C order; a sum
spreads dy axis by axis. The loops are over taps: what one tap of all windows of a block reads is a
view of the input.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ...shapes import PoolShape
from . import buffers
from .blocks import ALONE, keep, share, wide
from .convolution.workspace import workspace
from .memory import as_activation, pixel_major
from .pool_windows import Fold, Place, Spread, axes_of, folds, spreads

SHORT = 2048  # elements of an inner loop that starts slowly in comparison with a copy
MANY_TAPS = 64  # beyond so many, a pass over all of dy for each tap is the slower way back

# mode -> how two inputs are joined, what makes the second one the better, that of no inputs
JOINED = {
    "max": (np.maximum, np.greater, -np.inf),
    "min": (np.minimum, np.less, np.inf),
    "sum": (np.add, None, 0),
    "average": (np.add, None, 0),
}


class Pools:
    """``pool_forward`` and ``pool_backward``."""

    def pool_forward(
        self, x: np.ndarray, shape: PoolShape, with_index: bool = True, activation: str = "linear"
    ) -> tuple[np.ndarray, np.ndarray | None]:
        source = _lanes(x, shape)
        y = buffers.empty((*shape.output, source.shape[-1]), x.dtype)
        extremes = shape.mode in ("max", "min")
        index = buffers.empty(y.shape, shape.index_dtype) if extremes and with_index else None

        def fill(item: tuple[slice, tuple[Fold, ...]]) -> None:
            lanes, block = item
            part = wide(source[(*(fold.inputs for fold in block), lanes)])
            place = (*(fold.outputs for fold in block), lanes)
            best = None if index is None else index[place]
            out = y[place] if y.dtype == part.dtype else np.empty(y[place].shape, part.dtype)
            fold(part, block, shape, out, best)
            if shape.mode == "average":
                divisors = _divisors(shape)
                out /= divisors if isinstance(divisors, float) else divisors[place[:-1]]
            if activation == "relu":
                if best is not None:
                    np.copyto(best, shape.taps, where=~(out > 0))
                np.maximum(out, 0, out=out)
            if out.dtype != y.dtype:
                y[place] = out

        share(fill, folds(shape), alone=x.size <= 2 * ALONE)  # fewer come out
        return _activation(y, shape), None if index is None else _activation(index, shape)

    def pool_backward(
        self, dy: np.ndarray, index: np.ndarray | None, shape: PoolShape
    ) -> np.ndarray:
        slopes = _lanes(dy, shape)
        dx = buffers.empty((*shape.input, slopes.shape[-1]), dy.dtype)
        winners = None if index is None else _lanes(index, shape)
        if index is not None and shape.taps > MANY_TAPS:
            _to_places(slopes, winners, dx, shape)
            return _activation(dx, shape)

        def fill(item: tuple[slice, tuple[Spread, ...]]) -> None:
            lanes, block = item
            read = (*(spread.outputs for spread in block), lanes)
            place = (*(spread.inputs for spread in block), lanes)
            part = wide(slopes[read])
            in_place = dx.dtype == part.dtype
            out = dx[place] if in_place else np.empty(dx[place].shape, part.dtype)
            if winners is not None:
                _to_winners(part, winners[read], block, shape, out)
            else:
                if shape.mode == "average":
                    divisors = _divisors(shape)
                    part = part / (divisors if isinstance(divisors, float) else divisors[read[:-1]])
                _spread(part, block, out)
            if not in_place:
                dx[place] = out

        share(fill, spreads(shape))
        return _activation(dx, shape)


def _lanes(array: np.ndarray, shape: PoolShape) -> np.ndarray:
    """View an activation as pixel-major (*spatial, N * C); a copy, if it does not lie like that."""
    memory = pixel_major(array, shape.channels_last)
    return memory.reshape(*memory.shape[:-2], shape.batch * shape.channels)


def _activation(memory: np.ndarray, shape: PoolShape) -> np.ndarray:
    """The inverse: (*spatial, N * C) -> an activation in the data format of ``shape``."""
    memory = memory.reshape(*memory.shape[:-1], shape.batch, shape.channels)
    return as_activation(memory, shape.channels_last)


@lru_cache
def _divisors(shape: PoolShape) -> np.ndarray | float:
    """Return what each window's sum is divided by, to broadcast over (*output, lanes)."""
    areas = np.ones((1,) * (shape.rank + 1), int)
    for axis in axes_of(shape):
        counts = axis.counts(shape.count_padding)
        areas = areas * counts.reshape(-1, *(1,) * (shape.rank - axis.place))
    areas = np.maximum(areas, 1)  # an empty window has sum 0 and average 0
    return float(areas.flat[0]) if areas.min() == areas.max() else areas.astype(np.float32)


def fold(
    x: np.ndarray, block: tuple[Fold, ...], shape: PoolShape, y: np.ndarray, best: np.ndarray | None
) -> None:
    """Fill y with the maxima, minima or sums of a block's windows, and best with their taps.

    x has the inputs that the windows span, (*spatial, lanes).
    """
    _fold(x, block, shape, y, best)
    if best is not None and np.isnan(y.max(initial=0)):
        _fold(x, block, shape, y, best, with_nan=True)


def _fold(
    x: np.ndarray, block: tuple[Fold, ...], shape: PoolShape, y: np.ndarray,
    best: np.ndarray | None, with_nan: bool = False,
) -> None:  # fmt: skip
    """The same; in a comparison a NaN loses unless ``with_nan``."""
    index, taps = None, 1  # taps: of a window along the axes that are done
    operation, _, nothing = JOINED[shape.mode]
    for place in reversed(range(len(block))):
        out, ranks = y, best
        if place:  # more axes are to come
            extents = (*x.shape[:place], *y.shape[place:])
            out = workspace.take(f"pool {place}", extents, y.dtype)
            if best is not None:
                ranks = workspace.take(f"pool index {place}", extents, best.dtype)
        selected = _selection(x, place, shape)
        for outputs, reads, span in block[place].runs:
            if span and best is None:
                operation.reduce(x[span], axis=place, keepdims=True, out=out[outputs])
            elif reads:
                rank = None if best is None else ranks[outputs]
                terms = [
                    (selected(read), tap * taps, None if index is None else index[read])
                    for tap, read in reads
                ]
                _join(terms, shape.mode, out[outputs], rank, with_nan)
            else:
                out[outputs] = nothing
        x, index, taps = out, ranks, taps * shape.window[place]
    for fold in block:
        for outputs, reads, _ in fold.runs:
            if not reads:
                y[outputs] = nothing
                if best is not None:
                    best[outputs] = shape.taps


def _selection(x: np.ndarray, place: int, shape: PoolShape) -> Callable[[Place], np.ndarray]:
    """Return x[read] as a function of read, the strided places of a tap along an axis.

    Where windows overlap along the last axis and a pixel is short, the inputs between which strides
    lie are first copied next to each other: a tap of a whole row is then one run.
    """
    stride = shape.strides[place]
    last, overlapping = place == shape.rank - 1, 1 < stride < shape.window[place]
    if not (last and overlapping and x.shape[-1] < SHORT):
        return x.__getitem__
    apart = []
    for first in range(stride):
        part = x[..., first::stride, :]
        apart.append(workspace.take(f"pool apart {first}", part.shape, x.dtype))
        np.copyto(apart[-1], part)

    def selected(read: Place) -> np.ndarray:
        skip, first = divmod(read[-1].start, stride)
        return apart[first][(*read[:-1], slice(skip, (read[-1].stop - 1) // stride + 1))]

    return selected


def _join(
    terms: list[tuple[np.ndarray, int, np.ndarray | None]], mode: str, y: np.ndarray,
    best: np.ndarray | None, with_nan: bool,
) -> None:  # fmt: skip
    """Join (values, tap, index of the values within the tap or None) -> y, best.

    In a comparison a NaN loses; ``with_nan`` gives the index to the first one nevertheless.
    """
    operation, better, _ = JOINED[mode]
    first, tap, index = terms[0]
    rank = None if best is None else _rank(tap, index, best.dtype)
    if len(terms) == 1:
        y[...] = first
        if best is not None:
            best[...] = rank
    for value, tap, index in terms[1:]:
        if best is not None:
            second = _rank(tap, index, best.dtype)
            if np.ndim(rank) == 0 and (rank, tap, index) == (0, 1, None) and best.itemsize == 1:
                better(value, first, out=best.view(bool))
            else:
                # Ranks rise from tap to tap, so that a maximum lets the winner's pass.
                won = workspace.take("pool won", y.shape, bool)
                won = better(value, first, out=won).view(np.uint8)
                won = np.multiply(won, second, out=won if best.itemsize == 1 else None)
                np.maximum(rank, won, out=best)
            rank = best
        operation(first, value, out=y)
        first = y
    if with_nan:
        for value, tap, index in reversed(terms):
            np.copyto(best, _rank(tap, index, best.dtype), where=np.isnan(value))


def _rank(tap: int, index: np.ndarray | None, dtype: np.dtype) -> np.ndarray | np.generic:
    """Return the flat place in the window of a tap, or of what ``index`` names within it."""
    if index is None:
        return dtype.type(tap)
    return np.add(index, dtype.type(tap)) if tap else index


def _to_winners(
    dy: np.ndarray, index: np.ndarray, block: tuple[Spread, ...], shape: PoolShape, dx: np.ndarray
) -> None:
    """Fill dx of a block: each dy goes to the input that its window's index names.

    What a tap reaches lies a stride apart. Several taps' are added up without gaps between.
    """
    reaching: dict[Place, list[tuple[int, Place, Place]]] = {}
    for steps in itertools.product(*(spread.steps for spread in block)):
        taps, inputs, outputs = zip(*steps, strict=True)
        reads, served = (tuple(place[-1] for place in places) for places in (inputs, outputs))
        tap = 0
        for number, window in zip(taps, shape.window, strict=True):
            tap = tap * window + number
        first = tuple(read.start % read.step for read in reads)
        among = tuple(slice(r.start // r.step, (r.stop - 1) // r.step + 1) for r in reads)
        reaching.setdefault(first, []).append((tap, among, served))
    for first in itertools.product(*map(range, shape.strides)):
        apart = dx[tuple(map(slice, first, dx.shape, shape.strides))]
        some = reaching.get(first, [])
        total = apart if len(some) < 2 else workspace.take("pool sum", apart.shape, dx.dtype)
        started = False  # whether every input has a value
        for tap, among, served in some:
            part, mask, target = dy[served], index[served] == tap, total[among]
            if not started and target.shape == total.shape:
                keep(part, mask, out=target)
            else:
                if not started:
                    total[...] = 0
                target += keep(part, mask, out=workspace.take("pool", part.shape, part.dtype))
            started = True
        if not started:
            total[...] = 0
        if total is not apart:
            apart[...] = total


def _to_places(dy: np.ndarray, index: np.ndarray, dx: np.ndarray, shape: PoolShape) -> None:
    """The same for large windows: add one dy after the other, in C order."""
    axes = axes_of(shape)
    places, taps = list(np.indices(dy.shape, sparse=True)), index.astype(np.int64)
    for axis in reversed(axes):
        taps, tap = np.divmod(taps, axis.window)
        places[axis.place] = places[axis.place] * axis.stride - axis.pad[0] + tap * axis.dilation
    flat = np.ravel_multi_index(tuple(places), dx.shape, mode="clip")  # empty windows: anywhere
    given = keep(wide(dy), index < shape.taps)
    total = dx if dx.dtype == given.dtype else np.empty(dx.shape, given.dtype)
    total[...] = 0
    np.add.at(total.reshape(-1), flat.reshape(-1), given.reshape(-1))
    if total is not dx:
        dx[...] = total


def _spread(dy: np.ndarray, block: tuple[Spread, ...], dx: np.ndarray) -> None:
    """Fill dx of a block: each input gets the sum of the windows over it."""
    for place, spread in enumerate(block):
        out = dx
        if place + 1 < len(block):  # more axes are to come
            extents = (*dx.shape[: place + 1], *dy.shape[place + 1 :])
            out = workspace.take(f"pool {place}", extents, dx.dtype)
        if not spread.once:
            out[...] = 0
        for _, inputs, outputs in spread.steps:
            if spread.once:
                out[inputs] = dy[outputs]
            else:
                out[inputs] += dy[outputs]
        dy = out
