"""How the direct convolution cuts a map into tiles of quads: pure functions of the shapes.

A quad is 2x2 neighbouring outputs of the convolution, what a pooling window covers (see
kernels/direct.cuh). Among the tiles that fit, the one that costs the fewest instructions is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ....shapes import ConvShape, PoolShape
from ..launch import ceil_div, even, whole_warps
from .base import MULTIPROCESSORS, PARTIAL_ELEMENTS

# As in kernels/direct.cuh and kernels/conv_direct_wgrad.cu.
MAX_CHANNELS = 4
SLICE = 32
WGRAD_SLICE = 64
PATCH = 4096
THREADS = 128  # of a block at most
OUTPUTS = 32  # of a thread of fprop

# (taps, stride) of the windows that there are kernels for
WINDOWS = ((3, 1), (5, 1), (3, 2), (7, 2))

# Threads of fprop that are left where one computes several tiles: enough that it matters little how
# many of them run last. And how many tiles at most: the weights weigh little then.
THREADS_LEFT = 2560 * MULTIPROCESSORS
MOST_TILES = 8
# Threads of wgrad that a multiprocessor holds at least: it is split into so many.
WGRAD_HELD = 384

# Instructions of a thread, as the machine code has them, beside the multiply-adds.
PATCH_COPY = 30  # for each input of a tile
WEIGHT_COPY = 27  # for each weight of a slice
OUTPUT = 6  # for each output of a tile
CHUNK, CHUNK_ROW = 60, 3  # for each chunk of gradients, and each row of the window over it
TILE = 400  # for each tile, waiting counted as if it were instructions


@dataclass(frozen=True)
class Settings:
    """A block of one of the two kernels.

    Attributes:
        quads: rows and columns of quads of a tile.
        lanes: threads along the filters.
        columns: of fprop, threads along a row of the tile.
        slots: of fprop, threads on the tile; of wgrad, threads that share its outputs.
        tiles_per_block: computed one after the other: the weights are copied once; of wgrad, those
            of a split.
    """

    quads: tuple[int, int]
    lanes: int
    columns: int
    slots: int
    tiles_per_block: int


def suits(s: ConvShape, dtype: str) -> bool:
    """Return whether there are kernels for a convolution."""
    taps, stride = s.kernel[-1], s.strides[-1]
    return (
        s.rank == 2
        and s.groups == 1
        and s.channels <= MAX_CHANNELS
        and dtype != "float64"
        and (taps, stride) in WINDOWS
        and s.kernel == (taps, taps)
        and s.strides == (stride, stride)
        and s.dilation == (1, 1)
    )


def pools_quads(conv: ConvShape, pool: PoolShape) -> bool:
    """Return whether a pooling takes the maximum of each quad of a convolution's output.

    Its windows may stick out of the output at the end, but must begin in it.
    """
    return (
        pool.mode == "max"
        and pool.window == pool.strides == (2, 2)
        and pool.dilation == (1, 1)
        and all(before == 0 for before, _ in pool.padding)
        and pool.x_shape == conv.y_shape
    )


def quads_of(conv: ConvShape, pool: PoolShape | None) -> tuple[int, int]:
    """Return the rows and columns of quads that are computed of an image."""
    rows, columns = pool.output if pool else (ceil_div(size, 2) for size in conv.output)
    return rows, columns


def patch_of(s: ConvShape, quads: tuple[int, int]) -> tuple[int, int]:
    """Return the elements of a row of a tile's patch, and of one of its channels."""
    rows, columns = ((2 * n - 1) * s.strides[0] + s.kernel[0] for n in quads)
    pitch = 4 * ceil_div(columns, 4)  # rows are read 16 bytes at a time
    return pitch, rows * pitch


def tiles_of(conv: ConvShape, pool: PoolShape | None, quads: tuple[int, int]) -> tuple[int, int]:
    """Return how many tiles of so many quads there are down an image and across it."""
    down, across = map(ceil_div, quads_of(conv, pool), quads)
    return down, across


def count_tiles(conv: ConvShape, pool: PoolShape | None, quads: tuple[int, int]) -> int:
    return conv.batch * math.prod(tiles_of(conv, pool, quads))


# ---- forward ------------------------------------------------------------------------------------


def fprop_slices(s: ConvShape) -> int:
    return ceil_div(s.filters, SLICE)


def fprop_threads(settings: Settings) -> int:
    return whole_warps(settings.lanes * settings.slots)


def fprop_settings(conv: ConvShape, pool: PoolShape | None, dtype: str) -> Iterator[Settings]:
    """Yield the tiles of fprop that fit."""
    filters = 4 if dtype == "float32" else 8  # 16 bytes
    lanes, quads = ceil_div(min(conv.filters, SLICE), filters), OUTPUTS // 4 // filters
    rows, columns = quads_of(conv, pool)
    across, places = ceil_div(columns, quads), THREADS // lanes
    for limit in (4, 8, 16, 32, 64):
        width = even(across, min(limit, places))
        for height in {even(rows, n) for n in (1, 2, 4, 8, 16) if n * width <= places}:
            tile = (height, width * quads)
            if conv.channels * patch_of(conv, tile)[1] <= PATCH:
                threads = (
                    count_tiles(conv, pool, tile) * fprop_slices(conv) * lanes * width * height
                )
                per_block = min(MOST_TILES, max(1, threads // THREADS_LEFT))
                yield Settings(tile, lanes, width, width * height, per_block)


def fprop_work(conv: ConvShape, pool: PoolShape | None, settings: Settings) -> float:
    """Return the instructions of all threads of a forward pass, threads without work counted."""
    weights = conv.taps * conv.channels
    _, plane = patch_of(conv, settings.quads)
    block = fprop_threads(settings) * OUTPUTS * (weights + OUTPUT)
    block += conv.channels * plane * PATCH_COPY
    block += SLICE * weights * WEIGHT_COPY / settings.tiles_per_block
    return count_tiles(conv, pool, settings.quads) * fprop_slices(conv) * block


# ---- gradient of the filters --------------------------------------------------------------------


def wgrad_filters(taps: int) -> int:
    """Return how many filters a thread sums."""
    return 4 if taps == 3 else 2


def wgrad_channels(s: ConvShape) -> int:
    """Return how many channels a thread sums: those of colours, if its registers have room."""
    return 3 if s.channels == 3 and s.kernel[0] == 3 else 1


def wgrad_slices(s: ConvShape) -> int:
    return ceil_div(s.filters, WGRAD_SLICE)


def wgrad_threads(conv: ConvShape, settings: Settings) -> int:
    return whole_warps(settings.lanes * conv.channels // wgrad_channels(conv) * settings.slots)


def wgrad_settings(conv: ConvShape, pool: PoolShape | None) -> Iterator[Settings]:
    """Yield the tiles of wgrad that fit: an even number of quads across, whole chunks of 4."""
    taps = conv.kernel[0]
    lanes = ceil_div(min(conv.filters, WGRAD_SLICE), wgrad_filters(taps))
    rows, columns = quads_of(conv, pool)
    units = lanes * conv.channels // wgrad_channels(conv)
    most = THREADS // units
    for limit in (2, 4, 8, 16, 32, 64):
        width = 2 * ceil_div(even(columns, limit), 2)
        for height in {even(rows, n) for n in (1, 2, 4, 8, 16, 32)}:
            if conv.channels * patch_of(conv, (height, width))[1] > PATCH:
                continue
            slots = even(width * height, most)  # as many chunks as quads
            threads = whole_warps(units * slots)
            tiles = count_tiles(conv, pool, (height, width))
            splits = min(
                MULTIPROCESSORS * (WGRAD_HELD // threads) // wgrad_slices(conv) or 1,
                tiles,
                max(1, PARTIAL_ELEMENTS // (math.prod(conv.w_shape) + conv.filters)),
            )
            yield Settings((height, width), lanes, 0, slots, ceil_div(tiles, splits))


def wgrad_work(conv: ConvShape, pool: PoolShape | None, settings: Settings) -> float:
    """Return the instructions of all threads of a gradient, threads without work counted."""
    taps = conv.kernel[0]
    _, plane = patch_of(conv, settings.quads)
    chunks = ceil_div(math.prod(settings.quads), settings.slots)  # of a thread
    rows = taps * wgrad_channels(conv)
    chunk = rows * (4 * taps * wgrad_filters(taps) + CHUNK_ROW) + CHUNK
    block = wgrad_threads(conv, settings) * (chunks * chunk + TILE)
    block += conv.channels * plane * PATCH_COPY
    return count_tiles(conv, pool, settings.quads) * wgrad_slices(conv) * block
