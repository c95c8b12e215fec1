"""Channels last to channels first and back, on the GPU (kernels/{change,picture}_layout.cu)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..base import Array
from .kernel import Axis, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, aligned
from .spatial import DIVISOR, check_sizes, divisor

_BYTES: Axis = {size: (f"b{8 * size}", {"BYTES": size}) for size in (1, 2, 4, 8, 16)}
CHANGE_LAYOUT = KernelFamily("change_layout.cu", "change_layout", _BYTES)
_PICTURE_BYTES: Axis = {size: _BYTES[size] for size in (1, 2, 4)}
# by whether the channels come last in what is read
PICTURES = {
    True: KernelFamily("picture_layout.cu", "planes_from_pictures", _PICTURE_BYTES),
    False: KernelFamily("picture_layout.cu", "pictures_from_planes", _PICTURE_BYTES),
}

TILE_BYTES = 16 * 1024  # as in the kernel
LEAST_SHIFT = 2  # a tile has 4 rows and 4 columns at least

# struct Tiling of kernels/change_layout.cu
_NUMBERS = ("rows", "columns", "row_shift", "column_shift", "whole_rows", "whole_columns")
_TILING = np.dtype(
    [(name, "i4") for name in _NUMBERS]
    + [(f"by_{name}", DIVISOR) for name in ("row_tiles", "column_tiles")]
)


def tile_shifts(rows: int, columns: int, itemsize: int) -> tuple[int, int]:
    """Return the logarithms of a tile's rows and columns: square, or long where a matrix is.

    >>> tile_shifts(56 * 56, 64, 4), tile_shifts(224 * 224, 3, 4)
    ((6, 6), (10, 2))
    """
    numbers = (TILE_BYTES // itemsize).bit_length() - 1
    fewest = [max(LEAST_SHIFT, (size - 1).bit_length()) for size in (rows, columns)]
    half = numbers // 2
    if fewest[0] < half:
        return fewest[0], numbers - fewest[0]
    columns_shift = min(half, fewest[1])
    return numbers - columns_shift, columns_shift


def is_pictures(rows: int, columns: int, itemsize: int) -> bool:
    """Return whether matrices are pictures of three channels, and their planes whole words.

    >>> is_pictures(224 * 224, 3, 4), is_pictures(3, 225, 4), is_pictures(224, 3, 8)
    (True, False, False)
    """
    pixels = rows if columns == 3 else columns
    return 3 in (rows, columns) and itemsize in _PICTURE_BYTES and pixels % (16 // itemsize) == 0


class LayoutChange(KernelCaller):
    """``change_layout``."""

    def change_layout(self, x: Array) -> Array:
        batch, rows, columns = x.shape
        y = self.xp.empty((batch, columns, rows), x.dtype)
        if is_pictures(rows, columns, x.dtype.itemsize) and aligned(x):
            units, by_units = _units_of_pictures(batch, rows * columns // 3, x.dtype.itemsize)
            kernel = PICTURES[columns == 3](x.dtype.itemsize)
            self.launch_elements(kernel, units, x, y, units, by_units)
            return y
        kernel = CHANGE_LAYOUT(x.dtype.itemsize)
        blocks, record = _tiling(batch, rows, columns, x.dtype.itemsize, aligned(x))
        self.launch(kernel, blocks, BLOCK_THREADS, x, y, record)
        return y


@lru_cache(maxsize=1024)
def _units_of_pictures(batch: int, pixels: int, itemsize: int) -> tuple[int, np.ndarray]:
    """Return how many threads move pictures, and struct Divisor by those of one."""
    units = pixels // (16 // itemsize)
    check_sizes("change_layout", ("the pixels of the batch", batch * units, 31))
    return batch * units, np.array([divisor(max(1, units))], DIVISOR)


@lru_cache(maxsize=1024)
def _tiling(
    batch: int, rows: int, columns: int, itemsize: int, at_once: bool
) -> tuple[int, np.ndarray]:
    """Return the number of blocks and struct Tiling."""
    check_sizes("change_layout", ("rows", rows, 30), ("columns", columns, 30))
    shifts = tile_shifts(rows, columns, itemsize)
    tiles = [-(-size >> shift) for size, shift in zip((rows, columns), shifts, strict=True)]
    unit = 16 // itemsize
    whole_rows, whole_columns = at_once and columns % unit == 0, rows % unit == 0
    numbers = (rows, columns, *shifts, whole_rows, whole_columns)
    record = np.array([(*numbers, *(divisor(max(1, tile)) for tile in tiles))], _TILING)
    return batch * tiles[0] * tiles[1], record
