"""The tiles of Winograd's algorithm: which pixels they read and write, and how they are cut up.

A dilated convolution is an ordinary one on each of the interleaved sub-grids of its pixels. Along
an axis the tiles of a sub-grid are counted from 0; tile t reads a window from source pixel
start + step * t of the sub-grid on, and writes target pixels m * t, ..., m * t + m - 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ....shapes import ConvShape
from ..blocks import pieces
from .cook_toom import Bilinear, dense, plain, strided, strided_gradient, turned

COMPONENT_BYTES = 1_800_000  # of a block's transformed inputs or results: what a core's L2 is
ALONE = 1 << 22  # multiply-adds: in the time of so few another thread may not even wake
MIN_TILES = 32  # of a block: with fewer a product takes longer to read the filters than to compute
# Channels times filters from which on their components are better made, or summed, row by row.
MANY_FILTERS = {"fprop": 1 << 16, "dgrad": 1 << 17, "wgrad": 1 << 15}


# Terms that a product sums at a time, by m; their sums are added. Rounding errors grow with their
# number, and by the transforms more than in a direct sum.
TERMS = {2: 64, 4: 128}


def part_of(grid: range, first: int, stop: int) -> slice:
    """Return the pixels of a sub-grid from its ``first`` to before its ``stop``."""
    part = grid[first:stop]
    return slice(part.start, part.stop, part.step)


class Reading(NamedTuple):
    """How tiles read the pixels of a map along one axis."""

    matrix: np.ndarray  # (a, window)
    step: int
    start: int  # negative where tile 0 begins in the padding
    grid: range  # the pixels of the sub-grid


class Writing(NamedTuple):
    """How tiles write the pixels of a map along one axis."""

    matrix: np.ndarray  # (m, a)
    grid: range

    def pixels(self, tiles: slice) -> slice:
        """Return the pixels of some tiles."""
        height = len(self.matrix)
        return part_of(self.grid, height * tiles.start, height * tiles.stop)


class Block(NamedTuple):
    """Some rows and columns of a sub-grid's tiles, for some of the images."""

    reading: tuple[Reading, Reading]
    writing: tuple[Writing, Writing]
    gradient: tuple[Reading, Reading]  # how the transposed algorithm reads what this one writes
    rows: slice
    columns: slice
    images: slice

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many rows and columns of tiles there are, and how many images."""
        rows, columns, images = self.rows, self.columns, self.images
        return rows.stop - rows.start, columns.stop - columns.start, images.stop - images.start

    def each_row(self) -> list[slice]:
        """Return its rows of tiles, one by one."""
        return [slice(row, row + 1) for row in range(self.rows.start, self.rows.stop)]

    def pixels(self, rows: slice) -> tuple[slice, slice, slice]:
        """Return where some of its rows of tiles lie in the result."""
        down, across = self.writing
        return down.pixels(rows), across.pixels(self.columns), self.images


@dataclass(frozen=True, eq=False)
class Plan:
    """How a direction of a convolution is computed.

    Attributes:
        filters: the nested G, (a * a, r * r).
        points: a along each axis: how many rows and columns of components there are.
        outputs: m along each axis.
        terms: how many of them a product sums at a time.
        depths: the pieces of the sum over channels (or filters, in "dgrad").
        fold: A^T of the columns, (m, a * pieces), which also adds the pieces up.
        by_components: whether a part of the work is a row of components of all tiles, rather than
            all components of a block.
        blocks: the tiles that are computed at a time.
        tiles: how many each block has, times images.
    """

    filters: np.ndarray
    points: tuple[int, int]
    outputs: tuple[int, int]
    terms: int
    depths: list[slice]
    fold: np.ndarray
    by_components: bool
    blocks: tuple[Block, ...]
    tiles: tuple[int, ...]


def _axis(
    direction: str, m: int, size: int, count: int, stride: int, pad: int, dilation: int
) -> tuple[Bilinear, list[tuple[int, range, range]]]:
    """Return an axis's algorithm, and (start, source, target) of each of its sub-grids.

    ``size`` and ``count`` are the extents of x and of y.
    """
    if direction == "dgrad":
        size, count = count, size
        if stride == 2:
            algorithm = strided_gradient(m, odd=pad % 2 == 1)
            return algorithm, [((pad - 1) // 2, range(size), range(count))]
        pad = 2 * dilation - pad
    algorithm = strided(m) if stride == 2 else dense(m)
    grids = []
    for residue in range(min(dilation, count)):
        start, phase = divmod(residue - pad, dilation)
        grids.append((start, range(phase, size, dilation), range(residue, count, dilation)))
    return turned(algorithm) if direction == "dgrad" else algorithm, grids


def _cut(tiles: Sequence[int], images: int, target: int) -> tuple[list[slice], ...]:
    """Cut rows, columns and images so that blocks have about ``target`` tiles.

    All images if they fit, for long runs of memory, and whole rows of tiles.
    """
    rows, columns = tiles
    across = pieces(columns, target)
    width = math.ceil(columns / len(across))
    depth = pieces(images, target // width)
    down = pieces(rows, target // (width * math.ceil(images / len(depth))))
    return down, across, depth


def _best_target(
    grids: Sequence[Sequence[int]], images: int, channels: int, components: int, limit: int
) -> int:
    """Return into how large blocks to cut, at most the limit: an even number, of long runs."""

    def cost(target: int) -> float:
        cuts = [_cut(tiles, images, target) for tiles in grids]
        count = sum(math.prod(map(len, cut)) for cut in cuts)
        tiles = sum(math.prod(tiles) for tiles in grids) * images / count
        run = images * channels / len(cuts[0][2])
        # what equal parts cost on two threads and on four, against a work that divides
        uneven = sum(math.ceil(count / threads) * threads / count for threads in (2, 4)) / 2
        return uneven * (1 + 18000 / (tiles * channels * components)) * (1 + 32 / run)

    return min(range(limit, limit // 3, -1), key=cost)


@lru_cache(maxsize=512)
def plan(shape: ConvShape, direction: str, m: int, dtype: np.dtype) -> Plan:
    """Return the plan for "fprop", "dgrad" or "wgrad" by F(m x m, 3 x 3), or F(m, 3) in 1-D."""
    spatial = zip(
        shape.input, shape.output, shape.strides, shape.padding, shape.dilation, strict=True
    )
    axes = [
        _axis(direction, m, size, count, stride, pad, dilation)
        for size, count, stride, (pad, _), dilation in spatial
    ]
    if shape.rank == 1:
        axes.insert(0, (plain(1), [(0, range(1), range(1))]))
    algorithms = [algorithm for algorithm, _ in axes]

    areas, tiles = [], []
    for grids in itertools.product(*(grids for _, grids in axes)):
        reading, writing, gradient, counts = [], [], [], []
        for algorithm, (start, source, target) in zip(algorithms, grids, strict=True):
            inputs = np.ascontiguousarray(algorithm.inputs, dtype)
            outputs = np.ascontiguousarray(algorithm.outputs, dtype)
            reading.append(Reading(inputs, algorithm.step, start, source))
            writing.append(Writing(outputs, target))
            transposed = np.ascontiguousarray(outputs.T)
            gradient.append(Reading(transposed, len(outputs), 0, target))
            counts.append(math.ceil(len(target) / len(outputs)))
        areas.append((tuple(reading), tuple(writing), tuple(gradient)))
        tiles.append(counts)

    images, channels = shape.batch, max(shape.channels, shape.filters)
    points = tuple(len(algorithm.filters) for algorithm in algorithms)
    many = shape.channels * shape.filters >= MANY_FILTERS[direction]
    by_components = many and points[0] > 1
    components = points[1] if by_components else math.prod(points)
    limit = max(MIN_TILES, COMPONENT_BYTES // (components * channels * dtype.itemsize))
    target = limit
    work = math.prod(points) * sum(map(math.prod, tiles)) * images * shape.channels * shape.filters
    if not by_components and work > ALONE:
        target = _best_target(tiles, images, channels, components, limit)
    blocks = [
        Block(*area, *parts)
        for area, counts in zip(areas, tiles, strict=True)
        for parts in itertools.product(*_cut(counts, images, target))
    ]
    # The largest first: threads that take one after the other are done at much the same time.
    blocks.sort(key=lambda block: -math.prod(block.counts))
    depths = pieces(shape.filters if direction == "dgrad" else shape.channels, TERMS[m])
    fold = np.repeat(algorithms[1].outputs, len(depths), axis=1)
    return Plan(
        filters=np.kron(*(algorithm.filters for algorithm in algorithms)).astype(dtype),
        points=points,
        outputs=tuple(len(algorithm.outputs) for algorithm in algorithms),
        terms=TERMS[m],
        depths=depths,
        fold=np.ascontiguousarray(fold, dtype),
        by_components=by_components,
        blocks=tuple(blocks),
        tiles=tuple(math.prod(block.counts) for block in blocks),
    )
