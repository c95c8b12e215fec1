"""Tensor maps: what Hopper's TMA must know of an array to copy boxes of it (CUtensorMap).

An algorithm passes a ``TensorMap`` among a launch's arguments; ``CupyLauncher`` has the driver make
the 128 bytes that the kernel gets by value, once for each place in memory and layout.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

# enum CUtensorMapDataType: bits are copied, so numbers of a size are alike
_DATA_TYPES = {2: 1, 4: 2}
_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}  # enum CUtensorMapSwizzle
_PROMOTION = 2  # enum CUtensorMapL2promotion: the L2 fetches 128 bytes
_BYTES, _ALIGNMENT = 128, 64


@dataclass(frozen=True)
class Tiles:
    """Copies are boxes, of so many elements along each axis, the innermost first."""

    box: tuple[int, ...]


@dataclass(frozen=True)
class Pixels:
    """Copies are runs of ``count`` pixels of (C, W, H, N), of ``channels`` each, of each image
    those from ``lower`` (w, h) to ``upper`` beyond its last, ``steps`` apart."""

    lower: tuple[int, int]
    upper: tuple[int, int]
    channels: int
    count: int
    steps: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class TensorMap:
    """A C-contiguous array, seen as a tensor of ``dims``, the innermost first.

    Attributes:
        array: of a NumPy-like module, 16-byte aligned.
        dims: sizes; all but the last of a multiple of 16 bytes in all.
        copies: what one copy takes.
        swizzle: width in bytes of the pattern in shared memory, 0, 32, 64 or 128.
    """

    array: Any
    dims: tuple[int, ...]
    copies: Tiles | Pixels
    swizzle: int = 128

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes between neighbours along dims[1:]."""
        steps = [self.array.dtype.itemsize]
        for size in self.dims[:-1]:
            steps.append(steps[-1] * size)
        return tuple(steps[1:])

    def encode(self) -> np.ndarray:
        """Return the driver's CUtensorMap as an array of one element, to be passed by value.

        Raises:
            OSError: the driver's library is not there; RuntimeError: it refuses the map.
        """
        address, itemsize = self.array.data.ptr, self.array.dtype.itemsize
        return _encode(address, itemsize, self.dims, self.strides, self.copies, self.swizzle)


@cache
def driver() -> ctypes.CDLL:
    """Return the driver's library, for what CuPy has no function for."""
    return ctypes.CDLL("libcuda.so.1")


@lru_cache(maxsize=4096)
def _encode(
    address: int, itemsize: int, dims: tuple[int, ...], strides: tuple[int, ...],
    copies: Tiles | Pixels, swizzle: int,
) -> np.ndarray:  # fmt: skip
    room = np.zeros(_BYTES + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    encoded = room[start : start + _BYTES]
    tensor = (
        ctypes.c_void_p(encoded.ctypes.data), _DATA_TYPES[itemsize], ctypes.c_uint32(len(dims)),
        ctypes.c_void_p(address), _array(ctypes.c_uint64, dims), _array(ctypes.c_uint64, strides),
    )  # fmt: skip
    # no interleaving; zeros outside
    steps = (1, *copies.steps, 1) if isinstance(copies, Pixels) else (1,) * len(dims)
    how = (_array(ctypes.c_uint32, steps), 0, _SWIZZLES[swizzle], _PROMOTION, 0)
    if isinstance(copies, Tiles):
        box = _array(ctypes.c_uint32, copies.box)
        status = driver().cuTensorMapEncodeTiled(*tensor, box, *how)
    else:
        corners = (_array(ctypes.c_int, corner) for corner in (copies.lower, copies.upper))
        counts = (ctypes.c_uint32(copies.channels), ctypes.c_uint32(copies.count))
        status = driver().cuTensorMapEncodeIm2col(*tensor, *corners, *counts, *how)
    if status:
        raise RuntimeError(f"the driver refuses a tensor map: CUresult {status}. Received: {dims}")
    return encoded.view(f"V{_BYTES}")


def _array(kind: Any, values: Sequence[int]) -> Any:
    return (kind * len(values))(*values)
