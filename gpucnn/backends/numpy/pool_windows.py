"""Where the taps of a pooling's windows fall, axis by axis and block by block: no arrays of data.

Arrays are pixel-major, (*spatial, lanes) with the N * C lanes of a pixel as one axis. Blocks are
cut along all of their axes, by the shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, product

import numpy as np

from ...shapes import PoolShape
from .blocks import ALONE, block_size, blocks, pieces, window_slices

Place = tuple[slice, ...]  # an index of an array (*spatial, lanes), up to the axis in question

LARGE = 1 << 19  # elements of the input in the largest block
RUN = 512  # elements: where the lanes are cut, they are not cut into shorter pieces
ROWS = 2  # outputs along the first axis, so that windows that overlap share most of their work


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a pooling, number ``place``."""

    place: int
    size: int
    output: int
    window: int
    stride: int
    pad: tuple[int, int]
    dilation: int

    def read(self, output: int, tap: int) -> int:
        """Where a tap of a window lies; padding is below 0."""
        return output * self.stride + tap * self.dilation - self.pad[0]

    @property
    def overlaps(self) -> bool:
        """Whether an input may be under two windows."""
        return self.stride < self.dilation * (self.window - 1) + 1

    def along(self, outputs: slice) -> Place:
        return (*(slice(None),) * self.place, outputs)

    def taps(self, output: int) -> range:
        """The taps of a window that fall on the input."""
        start = self.read(output, 0)
        first = max(0, -(start // self.dilation))
        return range(first, max(first, min(self.window, -((start - self.size) // self.dilation))))

    def counts(self, padded: bool) -> np.ndarray:
        """How many taps of each window fall on the input or, if ``padded``, also its padding."""
        reads = self.read(np.arange(self.output)[:, None], np.arange(self.window))
        before, after = self.pad if padded else (0, 0)
        return ((reads >= -before) & (reads < self.size + after)).sum(1)


@lru_cache
def axes_of(shape: PoolShape) -> tuple[Axis, ...]:
    """Return the spatial axes of a pooling."""
    numbers = zip(
        shape.input, shape.output, shape.window, shape.strides, shape.padding, shape.dilation,
        strict=True,
    )  # fmt: skip
    return tuple(Axis(place, *axis) for place, axis in enumerate(numbers))


class Fold:
    """How some outputs of an axis follow from its inputs.

    Attributes:
        outputs: the slice of the axis that is computed.
        inputs: that which its windows span.
        runs: for outputs whose windows have the same taps on the input, (outputs, [(tap, what each
            reads)], span), as indices that count from the first of ``outputs`` and ``inputs``. A
            window without any input has no taps; where one alone has some, span is all it reads.
    """

    def __init__(self, axis: Axis, outputs: slice) -> None:
        last = axis.read(outputs.stop - 1, axis.window - 1)
        start = min(max(0, axis.read(outputs.start, 0)), axis.size)
        self.outputs = outputs
        self.inputs = slice(start, max(start, min(axis.size, last + 1)))
        self.runs: list[tuple[Place, list[tuple[int, Place]], Place | None]] = []
        for taps, group in groupby(range(outputs.start, outputs.stop), axis.taps):
            served = list(group)
            reads = []
            for tap in taps:
                begin, end = axis.read(served[0], tap), axis.read(served[-1], tap)
                reads.append((tap, axis.along(slice(begin - start, end - start + 1, axis.stride))))
            place = slice(served[0] - outputs.start, served[-1] + 1 - outputs.start)
            span = None
            if len(served) == 1 and reads:
                read = slice(reads[0][1][-1].start, reads[-1][1][-1].stop, axis.dilation)
                span = axis.along(read)
            self.runs.append((axis.along(place), reads, span))


class Spread:
    """How some inputs of an axis follow from the outputs on the way back.

    Attributes:
        inputs: the slice of the axis that is computed.
        outputs: that whose windows reach them.
        steps: (tap, inputs, outputs that read them) as indices that count from the first.
        once: whether each input is read exactly once.
    """

    def __init__(self, axis: Axis, inputs: slice) -> None:
        length = inputs.stop - inputs.start
        taps = [
            window_slices(length, axis.stride, axis.read(0, tap) - inputs.start, 0, axis.output)
            for tap in range(axis.window)
        ]
        used = [(tap, *places) for tap, places in enumerate(taps) if places[0].stop]
        first = min((served.start for _, served, _ in used), default=0)
        last = max((served.stop for _, served, _ in used), default=0)
        reads = np.zeros(length, int)
        self.inputs, self.outputs, self.steps = inputs, slice(first, last), []
        for tap, served, read in used:
            place = slice(served.start - first, served.stop - first)
            self.steps.append((tap, axis.along(read), axis.along(place)))
            reads[read] += 1
        self.once = bool((reads == 1).all())


@lru_cache
def folds(shape: PoolShape) -> list[tuple[slice, tuple[Fold, ...]]]:
    """Cut a pooling into blocks of outputs: pieces of the lanes, and how each axis is folded."""
    axes = axes_of(shape)
    inputs = math.prod(min(axis.stride, axis.size) for axis in axes)  # of an output, nearly
    rows = ROWS if axes[0].overlaps else 1
    return [
        (lanes, tuple(map(Fold, axes, block)))
        for lanes, block in _blocks(shape, shape.output, inputs, rows)
    ]


def folds_within(
    shape: PoolShape, blocks: Sequence[Sequence[slice]]
) -> tuple[dict[tuple[int, int], Fold | None], ...] | None:
    """Return how each block of a grid is pooled by itself; None where a window crosses several.

    That is, of each axis, by the extents of its pieces, how the outputs whose windows are in a
    piece follow from it, or None if there are none.

    >>> halves = PoolShape.of((1, 9, 1), 2, mode="max", rank=1)
    >>> (pieces,) = folds_within(halves, [[slice(0, 4)], [slice(4, 8)], [slice(8, 9)]])
    >>> [fold and fold.outputs for fold in pieces.values()]
    [slice(0, 2, None), slice(2, 4, None), None]
    >>> folds_within(halves, [[slice(0, 5)], [slice(5, 9)]]) is None
    True
    """
    found = []
    for axis in axes_of(shape):
        cuts = [block[axis.place] for block in blocks]
        if any(cut.step not in (None, 1) for cut in cuts):
            return None
        windows = [
            [axis.read(output, tap) for tap in axis.taps(output)] for output in range(axis.output)
        ]
        pieces, served = {}, 0
        for begin, end in sorted({(cut.start, cut.stop) for cut in cuts}):
            inside = [
                output for output, reads in enumerate(windows)
                if reads and begin <= reads[0] and reads[-1] < end
            ]  # fmt: skip
            served += len(inside)
            pieces[begin, end] = Fold(axis, slice(inside[0], inside[-1] + 1)) if inside else None
        if served < axis.output:
            return None
        found.append(pieces)
    return tuple(found)


@lru_cache
def spreads(shape: PoolShape) -> list[tuple[slice, tuple[Spread, ...]]]:
    """Cut its way back into blocks of inputs."""
    axes = axes_of(shape)
    return [
        (lanes, tuple(map(Spread, axes, block)))
        for lanes, block in _blocks(shape, shape.input, 1, 2 * ROWS)
    ]


def _blocks(
    shape: PoolShape, extents: Sequence[int], inputs: int, rows: int
) -> list[tuple[slice, tuple[slice, ...]]]:
    """Cut (*extents, lanes), with so many inputs to a point, into blocks.

    The lanes are cut first, until ``rows`` of the first axis fit.
    """
    lanes = shape.batch * shape.channels
    size = lanes * math.prod(shape.input)
    block = size if size <= ALONE else block_size(size, LARGE)
    width = min(lanes, max(RUN, block // (inputs * rows * max(1, math.prod(extents[1:])))))
    points = block // max(1, inputs * width)
    return list(product(pieces(lanes, width), blocks(extents, points)))
