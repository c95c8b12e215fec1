"""The tiles of the convolutions over pixels on Hopper's wgmma (kernels/wgmma.cuh), and what tensor
maps can say of a convolution."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ....shapes import ConvShape
from ..kernel import DTYPE, Axis
from ..launch import ceil_div
from .base import MULTIPROCESSORS, Problem
from .mma import PARTIALS_16BIT

ROW_BYTES = 128  # of what a step brings: 64 channels of 16 bits, or 32 floats
COLUMNS, MOST_TAPS = 8, 3  # of a patch's tile, and of its windows along an axis
LEAST = 64  # channels and filters: with fewer, most of a step would be zeros
STEPS_PER_SPLIT = 4  # at least; with less, adding the splits up costs more
# What a tensor map can say of the corners of an image, of taps and of strides.
CORNER, FARTHEST_TAP, STRIDE = range(-128, 128), 255, 8


@dataclass(frozen=True)
class Tile:
    """A block's tile, and how its warpgroups share it.

    Attributes:
        filters: of a block; a warpgroup has 64.
        pixels: of a block.
        group_pixels: of a warpgroup.
        pass_pixels: that a warpgroup stores at a time, of floats half of them.
        buffers: of a warpgroup, for what it stores.
        stages: steps in shared memory; of filters alone where there are patches.
        patches: in shared memory, 0 where each step brings its own pixels.
        blocks: how many blocks a multiprocessor should hold.
        images: that a patch is of.
        teams: of consumers, which take tiles in turn.
        cluster: blocks of a cluster, which bring what they have in common once: pixels, or filters
            where there are patches.
    """

    filters: int
    pixels: int
    group_pixels: int
    pass_pixels: int
    buffers: int
    stages: int
    patches: int
    blocks: int
    images: int = 1
    teams: int = 1
    cluster: int = 1

    @property
    def name(self) -> str:
        special = "_pair" * (self.images > 1) + "_turns" * (self.teams > 1)
        special += "_cluster" * (self.cluster > 1)
        return f"{self.filters}x{self.pixels}{special}"

    @property
    def consumers(self) -> int:
        return self.teams * (self.filters // 64) * (self.pixels // self.group_pixels)

    @property
    def threads(self) -> int:
        return 128 * self.consumers + 32

    @property
    def rows(self) -> int:
        """Of each image, where there are patches; between two images, as many are lost as windows
        reach beyond their own."""
        return (self.pixels // COLUMNS + MOST_TAPS - 1) // self.images - (MOST_TAPS - 1)

    @property
    def dynamic_bytes(self) -> int:
        """Return the bytes of the stages, of what is stored, and of the barriers: two for a stage,
        one for a warpgroup's residual, and one for each of several teams."""
        stages = self.stages * self.filters * ROW_BYTES
        if self.patches:
            rows = self.images * (self.rows + MOST_TAPS - 1)
            patch = (COLUMNS + MOST_TAPS - 1) * rows * ROW_BYTES
            stages += self.patches * ceil_div(patch, 1024) * 1024
        else:
            stages += self.stages * self.pixels * ROW_BYTES
        stored = self.consumers * self.buffers * self.pass_pixels * ROW_BYTES
        turns = 8 * self.teams if self.teams > 1 else 0
        return stages + stored + 16 * (self.stages + self.patches) + turns + 8 * self.consumers


WIDE = Tile(128, 256, 256, 64, buffers=2, stages=4, patches=0, blocks=1)
# where wider ones would leave most of the last wave of blocks idle
EVEN = Tile(128, 192, 192, 96, buffers=2, stages=4, patches=0, blocks=1)
SMALL = Tile(64, 128, 128, 128, buffers=1, stages=4, patches=0, blocks=2)
# 32 maps of 7x7 or 14x14 are whole tiles of 112; the stages are what hides the way from the L2
SHORT = Tile(128, 112, 112, 112, buffers=1, stages=6, patches=0, blocks=1)
SOLO = Tile(64, 112, 112, 112, buffers=1, stages=9, patches=0, blocks=1)
# one team stores while the other multiplies, which matters where a tile has few steps
TURNS = Tile(64, 256, 256, 64, buffers=1, stages=5, patches=0, blocks=1, teams=2)
DEEP = Tile(128, 224, 224, 224, buffers=1, stages=4, patches=2, blocks=1)
FLAT = Tile(64, 448, 224, 32, buffers=2, stages=6, patches=2, blocks=1)
# one of two blocks stores while the other multiplies
TWIN = Tile(64, 224, 224, 32, buffers=1, stages=4, patches=2, blocks=2)
# for small maps
HALF = Tile(128, 112, 112, 112, buffers=1, stages=8, patches=2, blocks=1)
LOW = Tile(128, 64, 64, 64, buffers=1, stages=8, patches=2, blocks=1)
# two maps of 7x7 at once: 98 pixels of 128, with one of them 49 of 64
PAIR = Tile(64, 128, 128, 128, buffers=1, stages=10, patches=4, blocks=1, images=2)
# Two blocks with the same pixels or, of patches, the same filters, bring half of those each. Four
# would leave multiprocessors idle: in some of a GPU's groups their number is no multiple of four.
WIDE_CLUSTER, SOLO_CLUSTER, LOW_CLUSTER = (replace(tile, cluster=2) for tile in (WIDE, SOLO, LOW))
# For the cost model, in microseconds: a tile beside its steps, and a step, while as many blocks
# run; where two could and one runs alone, it takes ``ALONE`` of that. Fitted to times of an H200,
# within a tenth of most; those of SHORT, SOLO, TURNS, PAIR and the clusters are estimates: a step
# takes what multiplying takes at 0.85 of the peak, or bringing it from the L2 at 108 GB/s a
# multiprocessor, a cluster's common part once for all its blocks.
# TF32 multiplies half as many channels in a step, at half the speed: it is given the same times.
ALONE = 0.65
TIMES = {
    WIDE: (1.65, 0.72),
    SMALL: (1.2, 0.42),
    EVEN: (1.5, 0.54),
    SHORT: (1.7, 0.3),
    SOLO: (1.5, 0.21),
    TURNS: (1.65, 0.38),
    DEEP: (2.35, 0.529),
    FLAT: (1.8, 0.545),
    TWIN: (1.1, 0.65),
    HALF: (1.8, 0.29),
    LOW: (2.0, 0.22),
    PAIR: (1.9, 0.18),
    WIDE_CLUSTER: (1.7, 0.69),
    SOLO_CLUSTER: (1.55, 0.15),
    LOW_CLUSTER: (2.05, 0.18),
}
TILES = tuple(TIMES)


def tile_us(tile: Tile, steps: int, tiles: int) -> float:
    """Return the estimate of a tile of so many steps, as many tiles being under way.

    Of two teams one stores, or waits for its turn to multiply, while the other multiplies.
    """
    own_us, step_us = TIMES[tile]
    if tiles <= MULTIPROCESSORS and tile.blocks > 1:
        step_us *= ALONE
    if tile.teams > 1 and tiles > MULTIPROCESSORS:
        return max(steps * step_us, (own_us + steps * step_us) / tile.teams)
    return own_us + steps * step_us


def last_us(tile: Tile, tiles: int) -> float:
    """Return what the last tile takes that no other one hides."""
    return TIMES[tile][0] if tile.teams > 1 and tiles > MULTIPROCESSORS else 0.0


def tile_axis(tiles: Iterable[Tile]) -> Axis:
    return {
        tile: (
            tile.name,
            {
                "TEAMS": tile.teams,
                "FILTERS": tile.filters,
                "PIXELS": tile.pixels,
                "GROUP_PIXELS": tile.group_pixels,
                "PASS_PIXELS": tile.pass_pixels,
                "BUFFERS": tile.buffers,
                "STAGES": tile.stages,
                **({"PATCHES": tile.patches, "IMAGES": tile.images} if tile.patches else {}),
                **({"CLUSTER": tile.cluster} if tile.cluster > 1 else {}),
                "BLOCKS": tile.blocks,
                "SHARED_BYTES": tile.dynamic_bytes,
            },
        )
        for tile in tiles
    }


# The types of the elements, channels last; one dimension is two.
ELEMENT: Axis = {
    name: (tag, {**macros, "RANK": 2, "CHANNELS_LAST": 1})
    for name, (tag, macros) in DTYPE.items()
    if name != "float64"
}
# And whether w is read with its filters for channels.
OPERANDS: Axis = {
    (name, turned): (tag + "_turned" * turned, {**macros, "TURNED": int(turned)})
    for turned in (False, True)
    for name, (tag, macros) in ELEMENT.items()
    if not turned or name != "float32"
}


def depth(itemsize: int) -> int:
    """Return the channels of a step."""
    return ROW_BYTES // itemsize


def pass_pixels(tile: Tile, itemsize: int) -> int:
    """Return the pixels that a warpgroup stores at a time: of floats half as many."""
    return tile.pass_pixels * depth(itemsize) // 64


def pools(tile: Tile, itemsize: int) -> bool:
    """Return whether what a warpgroup stores at a time are whole windows of 2x2 pixels."""
    return tile.patches > 0 and tile.images == 1 and not pass_pixels(tile, itemsize) % (2 * COLUMNS)


def pair(values: tuple, neutral: Any = 1) -> tuple:
    """Return a value for each of two axes; the first of one dimension is neutral."""
    return (neutral,) * (2 - len(values)) + values


def corners(s: ConvShape) -> list[tuple[int, int]]:
    """Return, for each axis, where first taps begin, and where they end beyond the last place."""
    axes = zip(s.kernel, s.padding, s.dilation, strict=True)
    return [(-before, after - (r - 1) * dilation) for r, (before, after), dilation in axes]


def is_for_wgmma(problem: Problem) -> bool:
    """Return whether the GPU is Hopper, wgmma has the arithmetic, and there are enough channels and
    filters, whose rows TMA can bring."""
    s = problem.shape
    permitted = problem.dtype in ELEMENT and (problem.dtype != "float32" or problem.math == "tf32")
    return (
        problem.architecture == 90
        and permitted
        and s.channels_last
        and s.groups == 1
        and s.rank <= 2
        and s.channels * problem.itemsize % 16 == s.filters * problem.itemsize % 16 == 0
        and min(s.channels, s.filters) >= LEAST
        and s.batch * max(math.prod(s.input), math.prod(s.output)) < 2**30
    )


def tensor_maps_can_say(s: ConvShape) -> bool:
    """Return whether tensor maps can say what the convolution ``s`` reads."""
    reach = (d * (r - 1) for r, d in zip(s.kernel, s.dilation, strict=True))
    return (
        all(corner in CORNER for ends in corners(s) for corner in ends)
        and max(reach) <= FARTHEST_TAP
        and max(s.strides) <= STRIDE
    )


def splits(steps: int, results: int, tile: Tile, tiles: int) -> Iterator[tuple[int, int]]:
    """Yield (splits, steps of each): the whole sum, and what one wave has room for."""
    yield 1, steps
    room = MULTIPROCESSORS * tile.blocks // tiles
    most = min(steps // STEPS_PER_SPLIT, PARTIALS_16BIT // results, room)
    if not tile.patches and most > 1:
        each = ceil_div(steps, most)
        yield ceil_div(steps, each), each
