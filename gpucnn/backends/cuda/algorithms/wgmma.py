"""16-bit numbers, and floats as TF32, on Hopper's own tensor-core instructions
(kernels/conv_wgmma*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ....shapes import ConvShape
from ...base import Array
from ..epilogue import Epilogue
from ..geometry import geometry_record
from ..kernel import KernelFamily
from ..launch import BLOCK_THREADS, KernelCaller, aligned_copy, ceil_div
from ..split_sum import in_splits
from ..tensor_map import Pixels, TensorMap, Tiles
from .base import BYTES, LAUNCH_US, MULTIPROCESSORS, FusingAlgorithm, Plan, Problem, dgrad_as_fprop
from .wgmma_tiles import (
    COLUMNS,
    MOST_TAPS,
    OPERANDS,
    TILES,
    Tile,
    corners,
    depth,
    is_for_wgmma,
    last_us,
    pair,
    pass_pixels,
    pools,
    splits,
    tensor_maps_can_say,
    tile_axis,
    tile_us,
)  # fmt: skip

SIDE = 32  # of a tile of turn_filters.cu

CONV = KernelFamily(
    "conv_wgmma.cu", "conv_wgmma", OPERANDS, tile_axis(t for t in TILES if not t.patches),
    only_architecture=90,
)  # fmt: skip
PATCH = KernelFamily(
    "conv_wgmma_patch.cu", "conv_wgmma_patch", OPERANDS, tile_axis(t for t in TILES if t.patches),
    only_architecture=90,
)  # fmt: skip
TURN = KernelFamily("turn_filters.cu", "turn_filters", minimum_architecture=80)


@dataclass(frozen=True)
class Settings:
    """The block's tile, how many tiles there are, and how many steps one split sums."""

    tile: Tile
    tiles: int
    splits: int
    steps_per_split: int


def as_forward(problem: Problem) -> ConvShape:
    """Return the convolution that is computed: for dgrad, that of dy which gives dx."""
    return dgrad_as_fprop(problem.shape) if problem.direction == "dgrad" else problem.shape


def applies(problem: Problem) -> bool:
    """Return whether what is computed is a convolution forward that tensor maps can say."""
    if problem.direction == "wgrad" or not is_for_wgmma(problem):
        return False
    if problem.direction == "dgrad" and set(problem.shape.strides) != {1}:
        return False
    return tensor_maps_can_say(as_forward(problem))


def takes_patches(s: ConvShape, tile: Tile) -> bool:
    """Return whether the pixels of a step are those of the next one, displaced.

    Those of several images lie as windows of ``MOST_TAPS`` would have them.
    """
    return (
        max(s.kernel) <= MOST_TAPS
        and s.taps > 1
        and set(s.strides) == set(s.dilation) == {1}
        and (tile.images == 1 or pair(s.kernel)[0] == MOST_TAPS)
    )


def turn_filters(caller: KernelCaller, w: Array, shape: ConvShape) -> Array:
    """Return the float filters (K, ..., C) of a convolution as (C, ..., K), turned, in TF32."""
    k, c = shape.filters, shape.channels
    turned = caller.xp.empty((c, *shape.kernel, k), w.dtype)
    grid = (ceil_div(c, SIDE), ceil_div(k, SIDE), shape.taps)
    caller.launch(TURN(), grid, BLOCK_THREADS, w, turned, k, c)
    return turned


def filters_map(w: Array, s: ConvShape, tile: Tile, turned: bool) -> TensorMap:
    """Return the map of the filters of the convolution ``s``; ``turned``: those of which it is the
    gradient."""
    channels = depth(w.dtype.itemsize)
    if turned:
        return TensorMap(w, (s.filters, s.taps, s.channels), Tiles((64, 1, channels)))
    filters = tile.filters // tile.cluster if tile.patches else tile.filters
    return TensorMap(w, (s.channels, s.taps, s.filters), Tiles((channels, 1, filters)))


class Wgmma(FusingAlgorithm):
    """fprop, and dgrad with stride 1, on sm_90, with channels last: float16, bfloat16, and float32
    where TF32 is permitted."""

    name = "wgmma"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        if not applies(problem):
            return
        s = as_forward(problem)
        sum_steps = s.taps * ceil_div(s.channels, depth(problem.itemsize))
        for tile in TILES:
            across = ceil_div(s.filters, tile.filters)
            if tile.patches:
                if not takes_patches(s, tile):
                    continue
                p, q = pair(s.output)
                down = ceil_div(s.batch, tile.images) * ceil_div(p, tile.rows)
                down *= ceil_div(q, COLUMNS)
                down = ceil_div(down, tile.cluster) * tile.cluster
            elif across % tile.cluster:
                continue  # a cluster would have other pixels, too
            else:
                down = ceil_div(s.batch * math.prod(s.output), tile.pixels)
            for count, steps in splits(sum_steps, math.prod(s.y_shape), tile, across * down):
                tiles = across * down * count
                blocks = min(tiles, MULTIPROCESSORS * tile.blocks)
                settings = Settings(tile, tiles, count, steps)
                yield Plan(self.name, settings, (blocks, 1, 1), tile.threads)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the busiest block takes, or memory, and the launches beside the kernel's."""
        s, settings, tile = as_forward(problem), plan.settings, plan.settings.tile
        waves = ceil_div(settings.tiles, MULTIPROCESSORS * tile.blocks)
        sizes = sum(map(math.prod, (s.x_shape, s.y_shape, s.w_shape)))
        memory_us = sizes * problem.itemsize / BYTES
        compute_us = waves * tile_us(tile, settings.steps_per_split, settings.tiles)
        compute_us += last_us(tile, settings.tiles)
        total_us = LAUNCH_US + max(memory_us, compute_us)
        if settings.splits > 1 or problem.wide:
            numbers = settings.splits * math.prod(s.y_shape)
            total_us += LAUNCH_US + 2 * numbers * problem.accumulator_bytes / BYTES
        if problem.direction == "dgrad" and problem.dtype == "float32":
            total_us += LAUNCH_US + 2 * math.prod(s.w_shape) * problem.itemsize / BYTES
        return total_us

    def is_tried(self, plan: Plan) -> bool:
        return plan.settings.tile.cluster == 1

    def moment_parts(self, problem: Problem, plan: Plan) -> int:
        """A part is the pixels of a warpgroup."""
        settings, tile = plan.settings, plan.settings.tile
        down = settings.tiles // ceil_div(problem.shape.filters, tile.filters)
        return down * (tile.pixels // tile.group_pixels) if settings.splits == 1 else 0

    def pools(self, problem: Problem, plan: Plan) -> bool:
        return problem.shape.rank == 2 and pools(plan.settings.tile, problem.itemsize)

    def widens(self, problem: Problem, plan: Plan) -> bool:
        return not plan.settings.tile.patches

    def masks(self, problem: Problem, plan: Plan) -> bool:
        return problem.shape.filters % 8 == 0

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        s, turned = as_forward(problem), problem.direction == "dgrad"
        if turned and problem.dtype == "float32":  # as the convolution's own from now on
            w, turned = turn_filters(caller, w, problem.shape), False
        x, w = map(aligned_copy, (source, w))
        return in_splits(
            caller, plan.settings.splits, s.y_shape, x.dtype,
            lambda *ends: self._launch(caller, s, plan, turned, x, w, *ends), epilogue,
            wide=problem.wide,
        )  # fmt: skip

    @staticmethod
    def _launch(
        caller: KernelCaller, s: ConvShape, plan: Plan, turned: bool, x: Array, w: Array,
        epilogue: Epilogue, y: Array | None, partial: Array | None,
    ) -> None:  # fmt: skip
        """Write the result into ``y``, or the splits' sums into ``partial``."""
        settings, tile = plan.settings, plan.settings.tile
        (height, width), (p, q) = pair(s.input), pair(s.output)
        image = (s.channels, width, height, s.batch)
        channels = depth(x.dtype.itemsize)
        in_pass = pass_pixels(tile, x.dtype.itemsize)
        filters, operands = filters_map(w, s, tile, turned), (x.dtype.name, turned)
        record, residual = geometry_record(s), aligned_copy(epilogue.residual)
        ending = (epilogue.b, *epilogue.function(x.dtype), epilogue.moments)

        def stored(dims: tuple[int, ...], box: Tiles) -> tuple[TensorMap, TensorMap, bool]:
            """Return the maps of y and of the residual, and whether there is one."""
            maps = (TensorMap(y if a is None else a, dims, box) for a in (None, residual))
            return *maps, residual is not None

        if tile.patches:
            high, wide = pair(s.kernel)
            box = (channels, COLUMNS + wide - 1, tile.rows + high - 1, tile.images)
            rows = in_pass // COLUMNS if tile.images == 1 else tile.rows
            pixels, pooled = TensorMap(x, image, Tiles(box)), epilogue.pooled and epilogue.pooled.y
            results = (pixels, pixels, False)
            if pooled is None:
                results = stored((s.filters, q, p, s.batch), Tiles((channels, COLUMNS, rows, 1)))
            caller.launch(
                PATCH(operands, tile), plan.grid, plan.threads, pixels, filters, *results, *ending,
                pooled, epilogue.kept, settings.tiles, record,
            )  # fmt: skip
            return
        (top, bottom), (left, right) = pair(tuple(corners(s)), (0, 0))
        down, across = pair(s.strides)
        share = tile.pixels // tile.cluster
        run = Pixels((left, top), (right, bottom), channels, share, (across, down))
        pixels = TensorMap(x, image, run)
        results = (pixels, pixels, False)  # of no use to splits
        if y is not None:
            results = stored((s.filters, s.batch * p * q), Tiles((channels, in_pass)))
        caller.launch(
            CONV(operands, tile), plan.grid, plan.threads, pixels, filters, *results, *ending,
            epilogue.mask, partial, settings.steps_per_split, settings.tiles, record,
        )  # fmt: skip
