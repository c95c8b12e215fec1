"""The tiles of the convolutions on mma.sync, forward and backward, and what one takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..kernel import Axis
from .mma_formats import PRODUCTS

TAPS, PLACES = 256, 31  # as in kernels/conv_mma.cuh: those of a table, and along all axes together
ROW_BYTES, TAP_BYTES = 12, 12
# Where x is read through a norm: the taps of a table, and the channels of the norm's own.
NORM_TAPS, NORM_CHANNELS, NORM_CHANNEL_BYTES = 8, 1024, 12

# For the cost model, of an H200: what a multiprocessor does in a microsecond, at 1.98 GHz. mma.sync
# multiplies 16-bit numbers 1024 times a clock, half of what wgmma does, and TF32 half as often
# again; shared memory moves 128 bytes; the second cache moves 7.5 TB/s for all of them.
CLOCKS = 1980.0
MULTIPLY_ADDS, SHARED = 1024 * CLOCKS, 128 * CLOCKS
CACHE = 7.5e6
CROWDED = 0.8  # some of that is asked for by two warps at once
BLOCK_US = 2.0  # until the first slab is there, and from the last one to the end
# What warps reach, by how many of them each quarter of a multiprocessor has; one waits by itself.
BUSY = {1: 0.65, 2: 0.9}
# Of the 128 instructions of a clock, what normalising a number takes: 4.5, of which a third go to
# units that do half as many.
NORM_CLOCKS = 6 / 128
# What rounding floats, or splitting them, leaves of that, by the products: an estimate.
PREPARED = {1: 0.9, 3: 0.75}


@dataclass(frozen=True)
class MmaTile:
    """A block's tile, and how its warps share it.

    Attributes:
        m, n: rows and columns of a block.
        warp_m, warp_n: those of a warp.
        blocks: how many blocks a multiprocessor should hold.
        k: terms of a slab.
        stages: slabs in shared memory.
        itemsize: bytes of an element.
        products: multiplications for one of two numbers.
        norms: whether x is read through a batch norm.
    """

    m: int
    n: int
    warp_m: int
    warp_n: int
    blocks: int
    k: int = 32
    stages: int = 4
    itemsize: int = 2
    products: int = 1
    norms: bool = False

    @property
    def warps(self) -> int:
        return (self.m // self.warp_m) * (self.n // self.warp_n)

    @property
    def threads(self) -> int:
        return 32 * self.warps

    @property
    def dynamic_bytes(self) -> int:
        """Return the slabs' bytes and those of the tables of rows and taps, and of a norm's."""
        slabs = self.stages * (self.m + self.n) * self.k * self.itemsize
        if self.norms:
            taps = NORM_TAPS * TAP_BYTES + NORM_CHANNELS * NORM_CHANNEL_BYTES
        else:
            taps = TAPS * TAP_BYTES
        return slabs + self.m * ROW_BYTES + taps

    @property
    def has_room(self) -> bool:
        """Whether the tile, as it is stored, finds room in the slabs, where it can be pooled."""
        return self.stages * (self.m + self.n) * self.k >= self.m * self.n

    @property
    def term_us(self) -> float:
        """Return the microseconds of a term: multiplied, or written to shared memory and read; and
        normalised."""
        rows = self.m + self.n + self.warps * (self.warp_m + self.warp_n)
        multiply_us = self.products * self.m * self.n * self.itemsize / 2 / MULTIPLY_ADDS
        if self.itemsize == 4:
            multiply_us /= PREPARED[self.products]
        term_us = max(multiply_us, CROWDED * self.itemsize * rows / SHARED)
        if self.norms:  # warps side by side have the same rows
            term_us += self.m * self.n // self.warp_n * NORM_CLOCKS / CLOCKS
        return term_us


WIDE = MmaTile(128, 256, 64, 64, blocks=1)
DEEP = MmaTile(256, 128, 64, 64, blocks=1)
SQUARE = MmaTile(128, 128, 64, 64, blocks=2)
TALL = MmaTile(256, 64, 64, 64, blocks=2)
HALF = MmaTile(128, 64, 64, 32, blocks=3)
SMALL = MmaTile(64, 64, 32, 32, blocks=4)
STRIP = MmaTile(128, 32, 32, 32, blocks=4)
TILES = (WIDE, DEEP, SQUARE, TALL, HALF, SMALL, STRIP)
NORM_TILES = tuple(replace(tile, norms=True) for tile in (SMALL, STRIP))
# As many bytes in a slab, and half as many terms.
TF32_TILES = tuple(
    replace(tile, k=tile.k // 2, itemsize=4) for tile in (DEEP, SQUARE, HALF, SMALL, STRIP)
)
# A warp has the parts of what it splits in registers, and room for fewer sums.
FP32X3_TILES = tuple(
    replace(tile, k=16, itemsize=4, products=PRODUCTS["fp32x3"])
    for tile in (
        MmaTile(192, 64, 48, 32, blocks=1),
        replace(SMALL, blocks=2),
        replace(STRIP, blocks=2),
    )
)


def tile_axis(tiles: tuple[MmaTile, ...]) -> Axis:
    return {
        tile: (
            f"{tile.m}x{tile.n}" + "_norm" * tile.norms,
            {
                **({"NORMS": 1} if tile.norms else {}),
                "TILE_M": tile.m,
                "TILE_N": tile.n,
                "WARP_M": tile.warp_m,
                "WARP_N": tile.warp_n,
                "TILE_K": tile.k,
                "STAGES": tile.stages,
                "BLOCKS": tile.blocks,
                "SHARED_BYTES": tile.dynamic_bytes,
            },
        )
        for tile in tiles
    }
