"""How a convolution of few channels is cut into parts, worked out once for a shape.

The planes of a part are (rows, C, phases, pixels of a phase, n): pixels and images lie together, as
opposed to pixel-major memory, with zeros where a window reaches beyond the map. With a stride of
two, phase 0 has the pixels 0, 2, 4, ... and phase 1 has 1, 3, 5, ...: so what a tap reads for a row
of outputs is one run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ....shapes import ConvShape
from ..blas_probe import SMALL, small_products_pay
from ..blocks import blocks, pieces
from .windows import Block

View = tuple[tuple[int, ...], tuple[int, ...], int]  # shape, strides and offset of ``view``

PARTS = 4  # more would copy, and multiply, more of the rows that neighbours share
PART_WORK = 8 << 20  # a part of less would not be worth its start
COPY_WORK = 16  # multiply-adds in the time that it takes to copy a column's element
COLUMN_BYTES = 1 << 21  # in the L2 cache of a core, or nearly
POOLED_BYTES = 1 << 22  # of outputs: with fewer, more rows would be copied for several parts
SHORT = 32  # rows, below which a small product wastes its kernel
GAP = 16  # elements between runs: a power of two would map them all to one set of the cache


@dataclass(frozen=True)
class Axis:
    """Height or width."""

    size: int
    count: int
    window: int
    stride: int
    pad: int

    def clipped(self, start: int, step: int, count: int) -> tuple[slice, slice]:
        """Of pixels start, start + step, ... return which are in the input, and their numbers."""
        first = min(count, max(0, -(start // step)))
        last = max(first, min(count, (self.size - 1 - start) // step + 1))
        begin = start + first * step
        return slice(begin, begin + (last - first) * step, step), slice(first, last)

    def windows(self, piece: slice) -> tuple[int, int]:
        """Return which outputs' windows reach a piece, were there outputs without end."""
        first = -((self.window - 1 - self.pad - piece.start) // self.stride)
        return first, (piece.stop - 1 + self.pad) // self.stride + 1

    def reaching(self, piece: slice) -> slice:
        """Return the outputs whose windows have a pixel in a piece of the input."""
        first, last = self.windows(piece)
        first = max(0, first)
        return slice(first, max(first, min(self.count, last)))


def extent(piece: slice) -> int:
    return piece.stop - piece.start


@lru_cache
def plane(shape: ConvShape) -> tuple[Axis, Axis]:
    """Return the axes of height and width; in one dimension the height is 1."""
    axes = [
        Axis(size, count, window, stride, pad)
        for size, count, window, stride, (pad, _) in zip(
            shape.input, shape.output, shape.kernel, shape.strides, shape.padding, strict=True
        )
    ]
    return (Axis(1, 1, 1, 1, 0), *axes)[-2:]


def work(shape: ConvShape) -> int:
    """Return the work at an output pixel of an image, in multiply-adds."""
    return shape.channels * shape.taps * (shape.filters + COPY_WORK)


def run_length(length: int, work: int) -> int:
    """Return the longest equal runs that small products can have; or the whole length."""
    if small_products_pay():
        for run in range(min(length, SMALL // work), SHORT - 1, -1):
            if length % run == 0:
                return run
    return length


@dataclass(frozen=True)
class Part:
    """Outputs whose columns fit the cache, and how these are made.

    Attributes:
        outputs: rows, pixels and images of y.
        planes: the shape of the planes that these outputs read.
        copies: what of x, (rows, pixels, n), goes where in the planes, for each phase.
        padded: whether that leaves some of them out.
        columns: the shape of the columns, (rows of x, C, S, pixels * images and a gap).
        taps: where in the columns goes which view of the planes, for each phase.
        matrices: the columns by runs, (rows, runs, R*C*S, run), as a view of them.
    """

    outputs: Block
    planes: tuple[int, ...]
    copies: tuple[tuple[Block, Block], ...]
    padded: bool
    columns: tuple[int, ...]
    taps: tuple[tuple[Block, View], ...]
    matrices: View

    @staticmethod
    def of(outputs: Block, shape: ConvShape) -> Part:
        height, width = plane(shape)
        rows, pixels, images = outputs
        channels, length = shape.channels, extent(pixels) * extent(images)
        tall = (extent(rows) - 1) * height.stride + height.window
        wide = extent(pixels) + (width.window - 1) // width.stride
        planes = (tall, channels, width.stride, wide, extent(images))
        row, channel, phase_size, pixel = (math.prod(planes[axis:]) for axis in range(1, 5))
        seen, near = height.clipped(rows.start * height.stride - height.pad, 1, tall)
        copies, taps = [], []
        for phase in range(width.stride):
            left = pixels.start * width.stride - width.pad + phase
            far, here = width.clipped(left, width.stride, wide)
            copies.append(((seen, far, images), (near, slice(None), phase, here)))
            count = len(range(phase, width.window, width.stride))
            target = slice(None), slice(None), slice(phase, None, width.stride), slice(length)
            reads = (tall, channels, count, length), (row, channel, pixel, 1), phase * phase_size
            taps.append((target, reads))
        whole = extent(near) == tall and all(extent(place[-1]) == wide for _, place in copies)
        depth, apart = channels * shape.taps, length + GAP
        run = run_length(length, depth * shape.filters)
        matrices = (
            (extent(rows), length // run, depth, run),
            (channels * width.window * apart * height.stride, run, apart, 1),
            0,
        )
        columns = (tall, channels, width.window, apart)
        return Part(
            outputs, planes, tuple(copies), not whole, columns, tuple(taps), matrices
        )  # fmt: skip


@lru_cache
def parts_of(shape: ConvShape, itemsize: int, multiple: int | None = None) -> list[Part]:
    """Cut the outputs (P, Q, N) into parts whose columns fit the cache.

    With ``multiple``, each begins at a multiple of so many rows, and waits there to be pooled. In
    fprop the number of rows tells in no bit.
    """
    height, width = plane(shape)
    pixel = shape.channels * width.window * itemsize  # its columns in one row of the input
    total = height.count * width.count * shape.batch
    share = max(-(-total // PARTS), PART_WORK // work(shape))
    most = max(1, min(share, COLUMN_BYTES // (pixel * height.window)))
    runs = list(blocks((width.count, shape.batch), most))
    longest = max((extent(pixels) * extent(images) for pixels, images in runs), default=1)
    tall = COLUMN_BYTES // (pixel * longest)
    # with fewer rows than a window has, most are copied more than once
    rows = max(share // longest, height.window)
    rows = min(rows, (tall - height.window) // height.stride + 1)
    if multiple:
        rows = min(rows, POOLED_BYTES // (shape.filters * itemsize * longest))
    step = multiple or 1
    bands = [
        slice(step * band.start, min(step * band.stop, height.count))
        for band in pieces(-(-height.count // step), -(-rows // step))
    ]
    return [Part.of((band, *rest), shape) for band in bands for rest in runs]


@dataclass(frozen=True)
class Region:
    """A piece of dx, made from all of dy that reaches it.

    Attributes:
        piece, across: its rows and pixels.
        rows, pixels: of dy.
        top, first: the row of dx, and the pixel of dy whose first tap, that the planes begin with.
        planes: their shape: they hold the region and all that the windows of these outputs reach.
        stores: what of the planes, (rows, C, phase, pixels), goes where in dx, for each phase.
    """

    piece: slice
    across: slice
    rows: slice
    pixels: slice
    top: int
    first: int
    planes: tuple[int, ...]
    stores: tuple[tuple[Block, Block], ...]

    @staticmethod
    def of(piece: slice, across: slice, shape: ConvShape) -> Region:
        height, width = plane(shape)
        rows, pixels = height.reaching(piece), width.reaching(across)
        top = min(piece.start, rows.start * height.stride - height.pad)
        first = min(pixels.start, (across.start + width.pad) // width.stride)
        left = first * width.stride - width.pad
        tall = max(piece.stop, rows.stop * height.stride - height.pad + height.window) - top
        wide = max(-(-(across.stop - left) // width.stride), pixels.stop - first + width.window)
        stores = []
        for phase in range(width.stride):
            skipped = max(0, -((left + phase - across.start) // width.stride))
            begin = left + phase + skipped * width.stride
            count = len(range(begin, across.stop, width.stride))
            here = slice(piece.start - top, piece.stop - top)
            stores.append(
                (
                    (here, slice(None), phase, slice(skipped, skipped + count)),
                    (piece, slice(begin, across.stop, width.stride)),
                )
            )
        planes = (tall, shape.channels, width.stride, wide, shape.batch)
        return Region(piece, across, rows, pixels, top, first, planes, tuple(stores))


@lru_cache
def regions_of(shape: ConvShape, itemsize: int) -> list[Region]:
    """Cut dx (H, W) into regions."""
    height, width = plane(shape)
    area = height.size * width.size
    total = shape.batch * math.prod(shape.output) * work(shape)
    share = max(-(-area // PARTS), PART_WORK * area // total, height.window * width.size)
    most = COLUMN_BYTES // (shape.channels * shape.batch * itemsize)
    cuts = blocks((height.size, width.size), max(1, min(share, most)))
    return [Region.of(*cut, shape) for cut in cuts]
