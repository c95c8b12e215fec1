"""16-bit numbers on Hopper's own tensor-core instructions (kernels/conv_wgmma*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ....shapes import ConvShape
from ...base import Array
from ..epilogue import Epilogue
from ..geometry import geometry_record
from ..kernel import Axis, KernelFamily
from ..launch import BLOCK_THREADS, KernelCaller, aligned_copy, ceil_div
from ..split_sum import NOTHING, split_sum
from ..tensor_map import Pixels, TensorMap, Tiles
from .base import BYTES, LAUNCH_US, MULTIPROCESSORS, FusingAlgorithm, Plan, Problem, dgrad_as_fprop
from .mma import CHUNK, ELEMENT, PARTIALS_16BIT

DEPTH, ROW_BYTES = 64, 128  # channels of a step, and their bytes
COLUMNS, MOST_TAPS = 8, 3  # of a patch's tile, and of its windows along an axis
SIDE = 32  # of a tile of turn_filters.cu
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
        pass_pixels: that a warpgroup stores at a time.
        buffers: of a warpgroup, for what it stores.
        stages: steps in shared memory; of filters alone where there are patches.
        patches: in shared memory, 0 where each step brings its own pixels.
        blocks: how many blocks a multiprocessor should hold.
    """

    filters: int
    pixels: int
    group_pixels: int
    pass_pixels: int
    buffers: int
    stages: int
    patches: int
    blocks: int

    @property
    def consumers(self) -> int:
        return self.filters // 64 * (self.pixels // self.group_pixels)

    @property
    def threads(self) -> int:
        return 128 * self.consumers + 32

    @property
    def rows(self) -> int:
        """Of an image, where there are patches."""
        return self.pixels // COLUMNS

    @property
    def dynamic_bytes(self) -> int:
        """Return the bytes of the stages, of what is stored, and of the barriers: two for a stage,
        and one for a warpgroup's residual."""
        stages = self.stages * self.filters * ROW_BYTES
        if self.patches:
            patch = (COLUMNS + MOST_TAPS - 1) * (self.rows + MOST_TAPS - 1) * ROW_BYTES
            stages += self.patches * ceil_div(patch, 1024) * 1024
        else:
            stages += self.stages * self.pixels * ROW_BYTES
        stored = self.consumers * self.buffers * self.pass_pixels * ROW_BYTES
        return stages + stored + 16 * (self.stages + self.patches) + 8 * self.consumers


WIDE = Tile(128, 256, 256, 64, buffers=2, stages=4, patches=0, blocks=1)
# where wider ones would leave most of the last wave of blocks idle
EVEN = Tile(128, 192, 192, 96, buffers=2, stages=4, patches=0, blocks=1)
SMALL = Tile(64, 128, 128, 128, buffers=1, stages=4, patches=0, blocks=2)
DEEP = Tile(128, 224, 224, 224, buffers=1, stages=4, patches=2, blocks=1)
FLAT = Tile(64, 448, 224, 32, buffers=2, stages=6, patches=2, blocks=1)
# one of two blocks stores while the other multiplies
TWIN = Tile(64, 224, 224, 32, buffers=1, stages=4, patches=2, blocks=2)
# for small maps
HALF = Tile(128, 112, 112, 112, buffers=1, stages=8, patches=2, blocks=1)
LOW = Tile(128, 64, 64, 64, buffers=1, stages=8, patches=2, blocks=1)
# For the cost model, in microseconds: a tile beside its steps, and a step, while as many blocks
# run; where two could and one runs alone, it takes ``ALONE`` of that. Fitted to times of an H200,
# within a tenth of most.
ALONE = 0.65
TIMES = {
    WIDE: (1.65, 0.72),
    SMALL: (1.2, 0.42),
    EVEN: (1.5, 0.54),
    DEEP: (2.35, 0.529),
    FLAT: (1.8, 0.545),
    TWIN: (1.1, 0.65),
    HALF: (1.8, 0.29),
    LOW: (2.0, 0.22),
}
TILES = tuple(TIMES)


def _axis(patches: bool) -> Axis:
    return {
        tile: (
            f"{tile.filters}x{tile.pixels}",
            {
                "FILTERS": tile.filters,
                "PIXELS": tile.pixels,
                "GROUP_PIXELS": tile.group_pixels,
                "PASS_PIXELS": tile.pass_pixels,
                "BUFFERS": tile.buffers,
                "STAGES": tile.stages,
                **({"PATCHES": tile.patches} if patches else {}),
                "BLOCKS": tile.blocks,
                "SHARED_BYTES": tile.dynamic_bytes,
            },
        )
        for tile in TILES
        if bool(tile.patches) == patches
    }


def wgmma_element() -> Axis:
    """Return the types of the elements; one dimension is two."""
    return {name: (tag, {**macros, "RANK": 2}) for name, (tag, macros) in ELEMENT.items()}


CONV = KernelFamily(
    "conv_wgmma.cu", "conv_wgmma", wgmma_element(), _axis(False), only_architecture=90
)
PATCH = KernelFamily(
    "conv_wgmma_patch.cu", "conv_wgmma_patch", wgmma_element(), _axis(True), only_architecture=90
)
TURN = KernelFamily("turn_filters.cu", "turn_filters", {2: ("b16", {})})  # by bytes


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


def pair(values: tuple, neutral: Any = 1) -> tuple:
    """Return a value for each of two axes; the first of one dimension is neutral."""
    return (neutral,) * (2 - len(values)) + values


def corners(s: ConvShape) -> list[tuple[int, int]]:
    """Return, for each axis, where first taps begin, and where they end beyond the last place."""
    axes = zip(s.kernel, s.padding, s.dilation, strict=True)
    return [(-before, after - (r - 1) * dilation) for r, (before, after), dilation in axes]


def tensor_maps_can_say(problem: Problem, s: ConvShape) -> bool:
    """Return whether the GPU is Hopper, and tensor maps can say what the convolution ``s`` reads,
    which has enough channels and filters."""
    if not (
        problem.architecture == 90
        and problem.dtype in ELEMENT
        and s.channels_last
        and s.groups == 1
        and s.rank <= 2
        and s.channels % CHUNK == s.filters % CHUNK == 0
        and min(s.channels, s.filters) >= LEAST
    ):
        return False
    reach = (d * (r - 1) for r, d in zip(s.kernel, s.dilation, strict=True))
    return (
        all(corner in CORNER for ends in corners(s) for corner in ends)
        and max(reach) <= FARTHEST_TAP
        and max(s.strides) <= STRIDE
        and s.batch * max(math.prod(s.input), math.prod(s.output)) < 2**30
    )


def applies(problem: Problem) -> bool:
    """Return whether what is computed is a convolution forward that tensor maps can say."""
    if problem.direction == "wgrad" or (
        problem.direction == "dgrad" and set(problem.shape.strides) != {1}
    ):
        return False
    return tensor_maps_can_say(problem, as_forward(problem))


def takes_patches(s: ConvShape) -> bool:
    """Return whether the pixels of a step are those of the next one, displaced."""
    return max(s.kernel) <= MOST_TAPS and s.taps > 1 and set(s.strides) == set(s.dilation) == {1}


def _steps(s: ConvShape) -> int:
    return s.taps * ceil_div(s.channels, DEPTH)


class Wgmma(FusingAlgorithm):
    """fprop, and dgrad with stride 1, of float16 and bfloat16 on sm_90, with channels last."""

    name = "wgmma"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        if not applies(problem):
            return
        s = as_forward(problem)
        for tile in TILES:
            across = ceil_div(s.filters, tile.filters)
            if tile.patches:
                if not takes_patches(s):
                    continue
                p, q = pair(s.output)
                down = s.batch * ceil_div(p, tile.rows) * ceil_div(q, COLUMNS)
            else:
                down = ceil_div(s.batch * math.prod(s.output), tile.pixels)
            for splits, steps in self._splits(s, tile, across * down):
                tiles = across * down * splits
                blocks = min(tiles, MULTIPROCESSORS * tile.blocks)
                settings = Settings(tile, tiles, splits, steps)
                yield Plan(self.name, settings, (blocks, 1, 1), tile.threads)

    @staticmethod
    def _splits(s: ConvShape, tile: Tile, tiles: int) -> Iterator[tuple[int, int]]:
        """Yield (splits, steps of each): the whole sum, and what one wave has room for."""
        steps = _steps(s)
        yield 1, steps
        most = min(
            steps // STEPS_PER_SPLIT, PARTIALS_16BIT // math.prod(s.y_shape),
            MULTIPROCESSORS * tile.blocks // tiles,
        )  # fmt: skip
        if not tile.patches and most > 1:
            each = ceil_div(steps, most)
            yield ceil_div(steps, each), each

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the busiest block takes, or memory, and the launches beside the kernel's."""
        s, settings, tile = as_forward(problem), plan.settings, plan.settings.tile
        waves = ceil_div(settings.tiles, MULTIPROCESSORS * tile.blocks)
        tile_us, step_us = TIMES[tile]
        if settings.tiles <= MULTIPROCESSORS and tile.blocks > 1:
            step_us *= ALONE
        sizes = sum(map(math.prod, (s.x_shape, s.y_shape, s.w_shape)))
        memory_us = sizes * problem.itemsize / BYTES
        total_us = LAUNCH_US + max(
            memory_us, waves * (tile_us + settings.steps_per_split * step_us)
        )
        if settings.splits > 1:
            numbers = settings.splits * math.prod(s.y_shape)
            total_us += LAUNCH_US + 2 * numbers * problem.accumulator_bytes / BYTES
        if problem.direction == "dgrad":
            total_us += LAUNCH_US + 2 * math.prod(s.w_shape) * problem.itemsize / BYTES
        return total_us

    def moment_parts(self, problem: Problem, plan: Plan) -> int:
        """A part is the pixels of a warpgroup."""
        settings, tile = plan.settings, plan.settings.tile
        down = settings.tiles // ceil_div(problem.shape.filters, tile.filters)
        return down * (tile.pixels // tile.group_pixels) if settings.splits == 1 else 0

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        s, splits = as_forward(problem), plan.settings.splits
        if problem.direction == "dgrad":
            w = self._turned(caller, w, s)
        x, w = map(aligned_copy, (source, w))
        if splits == 1:
            y = caller.xp.empty(s.y_shape, x.dtype)
            self._launch(caller, s, plan, x, w, epilogue, y, None)
            return y
        partial = caller.xp.empty((splits, *s.y_shape), "float32")
        self._launch(caller, s, plan, x, w, NOTHING, None, partial)
        return split_sum(caller, partial, x.dtype, epilogue)

    @staticmethod
    def _turned(caller: KernelCaller, w: Array, s: ConvShape) -> Array:
        """Return the filters (K, ..., C) as those of the convolution ``s`` of dy, (C, ..., K)."""
        turned = caller.xp.empty(s.w_shape, w.dtype)
        grid = (ceil_div(s.filters, SIDE), ceil_div(s.channels, SIDE), s.taps)
        caller.launch(TURN(w.dtype.itemsize), grid, BLOCK_THREADS, w, turned, s.channels, s.filters)
        return turned

    @staticmethod
    def _launch(
        caller: KernelCaller, s: ConvShape, plan: Plan, x: Array, w: Array, epilogue: Epilogue,
        y: Array | None, partial: Array | None,
    ) -> None:  # fmt: skip
        """Write the result into ``y``, or the splits' sums into ``partial``."""
        settings, tile = plan.settings, plan.settings.tile
        (height, width), (p, q) = pair(s.input), pair(s.output)
        image = (s.channels, width, height, s.batch)
        filters = TensorMap(w, (s.channels, s.taps, s.filters), Tiles((DEPTH, 1, tile.filters)))
        record, residual = geometry_record(s), aligned_copy(epilogue.residual)
        ending = (epilogue.b, *epilogue.function(x.dtype), epilogue.moments)

        def stored(dims: tuple[int, ...], box: Tiles) -> tuple[TensorMap, TensorMap, bool]:
            """Return the maps of y and of the residual, and whether there is one."""
            maps = (TensorMap(y if a is None else a, dims, box) for a in (None, residual))
            return *maps, residual is not None

        if tile.patches:
            high, wide = pair(s.kernel)
            box = (DEPTH, COLUMNS + wide - 1, tile.rows + high - 1, 1)
            result = Tiles((DEPTH, COLUMNS, tile.pass_pixels // COLUMNS, 1))
            caller.launch(
                PATCH(x.dtype, tile), plan.grid, plan.threads, TensorMap(x, image, Tiles(box)),
                filters, *stored((s.filters, q, p, s.batch), result), *ending, settings.tiles,
                record,
            )  # fmt: skip
            return
        (top, bottom), (left, right) = pair(tuple(corners(s)), (0, 0))
        down, across = pair(s.strides)
        run = Pixels((left, top), (right, bottom), DEPTH, tile.pixels, (across, down))
        pixels = TensorMap(x, image, run)
        results = (pixels, pixels, False)  # of no use to splits
        if y is not None:
            rows = s.batch * p * q
            results = stored((s.filters, rows), Tiles((DEPTH, tile.pass_pixels)))
        caller.launch(
            CONV(x.dtype, tile), plan.grid, plan.threads, pixels, filters, *results, *ending,
            partial, settings.steps_per_split, settings.tiles, record,
        )  # fmt: skip
