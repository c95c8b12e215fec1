"""Winograd's transforms over pixel-major memory: every one a small matrix product.

A pixel is a run of N * C numbers, so a transform along an axis is a product of a matrix of a few
rows with one whose rows are such runs, or several of them one behind the other. The windows that
it reads are views of the map, overlapping and strided; nothing is gathered.
"""

from __future__ import annotations

import numpy as np

from .base import Finish
from .winograd_memory import GAP, equal_parts
from .winograd_tiles import Block, Reading, part_of
from .workspace import workspace

RUN = 8192  # elements: a longer run is cut, for products of so few rows to stay in the cache


def _inside(first: int, length: int, size: int) -> tuple[int, int]:
    """Return the part of a window from pixel ``first`` on that is on a map of this size."""
    begin = min(max(0, -first), length)
    return begin, max(begin, min(length, size - first))


def transform(
    source: np.ndarray, reading: tuple[Reading, Reading], block: Block, group: slice,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Fill the components of a block's tiles, (rows of the group * columns, T, C).

    First down the map, into strips as wide as the block, then across them. T counts the tiles, row
    by row, and within them the images.
    """
    down, across = reading
    rows, columns, images = block.counts
    run = images * source.shape[-1]
    heights, widths = group.stop - group.start, len(across.matrix)
    window = across.matrix.shape[1]

    width = across.step * (columns - 1) + window
    first = across.start + across.step * block.columns.start
    left, right = _inside(first, width, len(across.grid))
    strip = workspace.take("winograd strip", (heights, width * run + GAP), out.dtype)
    strip[:, : left * run] = 0
    strip[:, right * run : width * run] = 0
    at = part_of(across.grid, first + left, first + right)
    whole = across.grid.step == 1 and images == source.shape[2]
    cuts = max(1, equal_parts(right - left, RUN // run) if whole else right - left)
    middle = strip[:, left * run : right * run].reshape(heights, cuts, -1).swapaxes(0, 1)
    size = strip.itemsize
    windows = np.ndarray(  # (heights, columns, window, run)
        (heights, columns, window, run), out.dtype, strip, 0,
        (strip.strides[0], across.step * run * size, run * size, size),
    )  # fmt: skip

    # (rows, heights, columns, widths, run)
    points = out.reshape(heights, widths, rows, columns, run).transpose(2, 0, 3, 1, 4)
    for row in range(rows):
        first = down.start + down.step * (block.rows.start + row)
        above, below = _inside(first, down.matrix.shape[1], len(down.grid))
        pixels = source[part_of(down.grid, first + above, first + below), at, block.images]
        # (heights, window) @ (window, length) -> (heights, length), for each cut
        pixels = pixels.reshape(below - above, *middle.shape[::2]).swapaxes(0, 1)
        np.matmul(down.matrix[group, above:below], pixels, out=middle)
        # (widths, window) @ (window, run) -> (widths, run), for each component row and tile
        np.matmul(across.matrix, windows, out=points[row])


def fold_columns(products: np.ndarray, matrix: np.ndarray, out: np.ndarray) -> None:
    """Sum the columns of components, and the pieces of each: (h, a * pieces, T, K) -> (h, m, T, K).

    ``matrix`` is (m, a * pieces).
    """
    tiles, filters = products.shape[2:]
    cuts = equal_parts(tiles, RUN // filters)
    shape = (len(out), -1, cuts, tiles * filters // cuts)
    # (m, a * pieces) @ (a * pieces, run) -> (m, run)
    np.matmul(
        matrix,
        products.reshape(shape).swapaxes(1, 2),
        out=out.reshape(shape).swapaxes(1, 2),
    )


def fold_rows(folded: np.ndarray, rows: slice, y: np.ndarray, block: Block, finish: Finish) -> None:
    """Sum the rows of a block's components (a, m, T, K) into rows of its tiles, and finish them."""
    down, across = block.writing
    counts, top = block.counts, block.rows.start
    run = counts[-1] * y.shape[-1]
    height, width = len(down.matrix), len(across.matrix)
    folded = folded.reshape(*folded.shape[:2], *counts[:2], run)
    place = block.pixels(rows)
    pixels = finish.memory(y, place)
    count = pixels.shape[1]
    whole, rest = divmod(count, width)
    lines = pixels.reshape(-1, count, run)
    for row in range(rows.stop - rows.start):
        tiles = folded[:, :, rows.start - top + row]
        some = lines[height * row : height * (row + 1)]
        high = len(some)
        # (high, a) @ (a, run) -> (high, run), for each tile and each of its columns
        np.matmul(
            down.matrix[:high],
            tiles[:, :, :whole].transpose(2, 1, 0, 3),
            out=some[:, : whole * width].reshape(high, whole, width, run).transpose(1, 2, 0, 3),
        )
        if rest:
            np.matmul(
                down.matrix[:high],
                tiles[:, :rest, whole].swapaxes(0, 1),
                out=some[:, whole * width :].swapaxes(0, 1),
            )
    finish(pixels, place)
