"""Masks of one bit a number: what a ReLU let through, in an eighth of a byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .blocks import ALONE, LARGE, block_size, pieces, share


def byte_count(size: int) -> int:
    """Return how many bytes hold so many bits."""
    return -(-size // 8)


def each_byte(function: Callable[[slice, slice], object], size: int) -> None:
    """Call ``function(octets, piece)`` with the blocks of a mask and of the vector that it is of.

    None shares a byte with its neighbour.
    """

    def fill(octets: slice) -> None:
        function(octets, slice(8 * octets.start, min(8 * octets.stop, size)))

    alone = size <= ALONE
    most = LARGE if alone else block_size(size, LARGE)
    share(fill, pieces(byte_count(size), most // 8), alone)


def passed(y: np.ndarray, ceiling: float | None = None) -> np.ndarray:
    """Return where 0 < y < ceiling; not at a NaN.

    NumPy compares numbers of 16 bits one by one. As integers the positive ones are in order, then
    infinity, then NaNs and all that are negative: one comparison, at many times the speed.
    """
    if y.itemsize == 2:
        above = y.dtype.type(np.inf if ceiling is None else ceiling).view(np.uint16).item()
        above += ceiling is None
        return y.view(np.uint16) - np.uint16(1) < np.uint16(max(above, 1) - 1)
    return y > 0 if ceiling is None else (y > 0) & (y < ceiling)


def packed(mask: np.ndarray) -> np.ndarray:
    """Return a boolean vector as bytes, the first of eight in the lowest bit.

    >>> packed(np.array([True, False, True] + [False] * 6 + [True]))
    array([5, 2], dtype=uint8)
    """
    return np.packbits(mask, bitorder="little")


def unpacked(octets: np.ndarray, count: int) -> np.ndarray:
    """Return the first ``count`` bits of bytes as a boolean vector."""
    return np.unpackbits(octets, count=count, bitorder="little").view(np.bool_)
