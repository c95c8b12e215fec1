"""The filters' gradient in 16 bits on Hopper's own tensor-core instructions
(kernels/conv_wgrad_wgmma*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...base import Array
from ..epilogue import Epilogue
from ..geometry import geometry_record
from ..kernel import Axis, KernelFamily
from ..launch import KernelCaller, aligned_copy, ceil_div
from ..split_sum import in_splits
from ..tensor_map import Pixels, TensorMap, Tiles
from .base import MULTIPROCESSORS, Algorithm, Plan, Problem
from .mma import PARTIALS_16BIT
from .mma_wgrad import WAVES, whole_us
from .wgmma_tiles import (
    COLUMNS,
    ELEMENT,
    ROW_BYTES,
    corners,
    is_for_wgmma,
    pair,
    tensor_maps_can_say,
)  # fmt: skip

DEPTH = 64  # filters, or channels under one tap, of a block

TAPS = 3  # of the windows along an axis, where there are patches
STEPS_PER_SPLIT = 3  # at least; with less, adding the splits up costs more


@dataclass(frozen=True)
class Tile:
    """A block's tile, and how its warpgroups share it.

    Attributes:
        filters: of a block; a warpgroup has 64.
        weights: of a filter, of a block: blocks of 64 channels under one tap.
        group_weights: of a warpgroup.
        pixels: that a step sums.
        stages: steps in shared memory.
        patches: whether x comes as patches, once for all taps.
        share: of ``PEAK``, what it reached on an H200.
    """

    filters: int
    weights: int
    group_weights: int
    pixels: int
    stages: int
    patches: bool
    share: float

    @property
    def threads(self) -> int:
        return 128 * (self.filters // 64) * (self.weights // self.group_weights) + 32

    @property
    def rows(self) -> int:
        """Of an image, where there are patches."""
        return self.pixels // COLUMNS

    @property
    def dynamic_bytes(self) -> int:
        """Return the bytes of the stages, and of two barriers for each."""
        if self.patches:
            patch = (COLUMNS + TAPS - 1) * (self.rows + TAPS - 1) * ROW_BYTES
            x_bytes = ceil_div(patch, 1024) * 1024
        else:
            x_bytes = self.weights // DEPTH * self.pixels * ROW_BYTES
        dy_bytes = self.filters // 64 * self.pixels * ROW_BYTES
        return self.stages * (dy_bytes + x_bytes + 16)


PATCH = Tile(64, 576, 192, 64, stages=10, patches=True, share=0.9)
WIDE = Tile(128, 256, 256, 64, stages=4, patches=False, share=0.9)
SMALL = Tile(128, 128, 128, 64, stages=6, patches=False, share=0.7)
TILES = (PATCH, WIDE, SMALL)


def _axis(patches: bool) -> Axis:
    return {
        tile: (
            f"{tile.filters}x{tile.weights}",
            {
                "FILTERS": tile.filters, "WEIGHTS": tile.weights,
                "GROUP_WEIGHTS": tile.group_weights, "PIXELS": tile.pixels,
                "STAGES": tile.stages, "SHARED_BYTES": tile.dynamic_bytes,
            },
        )
        for tile in TILES
        if tile.patches == patches
    }  # fmt: skip


HALVES = {name: macros for name, macros in ELEMENT.items() if name != "float32"}
GATHERED = KernelFamily(
    "conv_wgrad_wgmma.cu", "conv_wgrad_wgmma", HALVES, _axis(False), only_architecture=90
)
PATCHES = KernelFamily(
    "conv_wgrad_wgmma_patch.cu", "conv_wgrad_wgmma_patch", HALVES, _axis(True),
    only_architecture=90,
)  # fmt: skip

# For the cost estimate: the multiply-adds of a multiprocessor in a microsecond, 2048 a clock at
# 1.7 GHz, and what a block takes beside its steps.
PEAK = 2048 * 1700.0
BLOCK_US = 2.0


@dataclass(frozen=True)
class Settings:
    """The block's tile, and how many steps one split sums."""

    tile: Tile
    steps_per_split: int


def takes_patches(problem: Problem, tile: Tile) -> bool:
    """Return whether the window is 3x3, moves by one, and the maps of dy are whole patches.

    What lies beyond the map would have to be multiplied by zero, and a NaN would show.
    """
    s = problem.shape
    return (
        s.kernel == (TAPS, TAPS)
        and set(s.strides) == set(s.dilation) == {1}
        and s.output[0] % tile.rows == s.output[1] % COLUMNS == 0
    )


class WgmmaWgrad(Algorithm):
    """For float16 and bfloat16, channels last, on sm_90."""

    name = "wgmma_wgrad"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s = problem.shape
        if problem.direction != "wgrad" or not s.batch or problem.dtype not in HALVES:
            return
        if not (is_for_wgmma(problem) and tensor_maps_can_say(s)):
            return
        pixels = s.batch * math.prod(s.output)
        for tile in TILES:
            blocks = ceil_div(s.channels, DEPTH)
            if tile.patches:
                if not takes_patches(problem, tile):
                    continue
            else:
                blocks = ceil_div(s.taps * blocks, tile.weights // DEPTH)
            blocks *= ceil_div(s.filters, tile.filters)
            steps = ceil_div(pixels, tile.pixels)
            most = max(1, min(steps // STEPS_PER_SPLIT, PARTIALS_16BIT // math.prod(s.w_shape)))
            wanted = {max(1, min(most, waves * MULTIPROCESSORS // blocks)) for waves in (0, *WAVES)}
            for each in sorted({ceil_div(steps, splits) for splits in wanted}, reverse=True):
                grid = (blocks, 1, ceil_div(steps, each))
                yield Plan(self.name, Settings(tile, each), grid, tile.threads)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the busiest multiprocessor's blocks take, or what memory takes, and the splits'."""
        tile, (blocks, _, splits) = plan.settings.tile, plan.grid
        products = tile.filters * tile.weights * tile.pixels * plan.settings.steps_per_split
        waves = ceil_div(blocks * splits, MULTIPROCESSORS)
        compute_us = waves * (BLOCK_US + products / (PEAK * tile.share))
        return whole_us(problem, compute_us, splits)

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array) -> Array:
        s, tile = problem.shape, plan.settings.tile
        # what begins inside another array may lie at any address; a copy begins at a good one
        x, dy = map(aligned_copy, (x, dy))
        (height, width), (p, q) = pair(s.input), pair(s.output)
        image = (s.channels, width, height, s.batch)
        if tile.patches:
            family, box = PATCHES, (DEPTH, COLUMNS + TAPS - 1, tile.rows + TAPS - 1, 1)
            pixels = TensorMap(x, image, Tiles(box))
            gradient = TensorMap(
                dy, (s.filters, q, p, s.batch), Tiles((DEPTH, COLUMNS, tile.rows, 1))
            )
        else:
            (top, bottom), (left, right) = pair(tuple(corners(s)), (0, 0))
            down, across = pair(s.strides)
            run = Pixels((left, top), (right, bottom), DEPTH, tile.pixels, (across, down))
            family, pixels = GATHERED, TensorMap(x, image, run)
            gradient = TensorMap(dy, (s.filters, s.batch * p * q), Tiles((DEPTH, tile.pixels)))

        def launch(_: Epilogue, dw: Array | None, partial: Array | None) -> None:
            caller.launch(
                family(x.dtype, tile), plan.grid, plan.threads, pixels, gradient, dw, partial,
                plan.settings.steps_per_split, geometry_record(s),
            )  # fmt: skip

        return in_splits(caller, plan.grid[2], s.w_shape, x.dtype, launch)
