"""The input's gradient under strides on Hopper's own tensor-core instructions
(kernels/conv_dgrad_wgmma.cu)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from ...base import Array
from ..epilogue import Epilogue
from ..geometry import RESIDUE, geometry_record, residue_table
from ..kernel import KernelFamily
from ..launch import KernelCaller, aligned_copy, ceil_div
from ..spatial import DIVISOR, divisor
from ..split_sum import in_splits
from ..tensor_map import Pixels, TensorMap
from .base import BYTES, LAUNCH_US, MULTIPROCESSORS, FusingAlgorithm, Plan, Problem, dgrad_as_fprop
from .wgmma import filters_map, turn_filters
from .wgmma_tiles import (
    CORNER,
    EVEN,
    FARTHEST_TAP,
    OPERANDS,
    SHORT,
    SMALL,
    TURNS,
    Tile,
    depth,
    is_for_wgmma,
    last_us,
    pair,
    splits,
    tile_axis,
    tile_us,
)  # fmt: skip

TILES = (EVEN, SMALL, SHORT, TURNS)
MOST_CLASSES = 16  # as in the kernel
# Of 16 bits, w is read as it lies; floats have been turned.
READ = {key: axis for key, axis in OPERANDS.items() if key[1] == (key[0] != "float32")}
CLASSES = KernelFamily(
    "conv_dgrad_wgmma.cu", "conv_dgrad_wgmma", READ, tile_axis(TILES), only_architecture=90
)
# struct PixelClass and struct PixelClasses of the kernel
_CLASS = np.dtype(
    [
        (name, "i4", 2)
        for name in ("first_pixel", "pixels", "last_tap", "taps", "displacement")
    ]
)  # fmt: skip
_RECORD = np.dtype(
    [(name, "i4", 2) for name in ("corner", "tap_step", "place_step")]
    + [("by_box", DIVISOR, 2), ("of", _CLASS, MOST_CLASSES)]
)


@dataclass(frozen=True)
class Settings:
    """The block's tile, how many tiles there are, and into how many splits each class falls."""

    tile: Tile
    tiles: int
    splits: int
    steps_per_split: int  # of the class with the most


@dataclass(frozen=True)
class Classes:
    """The classes of pixels, those with the most taps first.

    Attributes:
        taps: of each.
        box: places of dy that a class goes through, along each axis: those of the largest.
        corner: of the first place.
        farthest: the largest displacement of a tap.
    """

    taps: tuple[int, ...]
    box: tuple[int, int]
    corner: tuple[int, int]
    farthest: int


@lru_cache(maxsize=1024)
def class_record(s: ConvShape) -> tuple[np.ndarray, Classes]:
    """Return struct PixelClasses of the kernel, and what plans and tensor maps need of it.

    Place i of a class's axis meets its j-th tap from the last at i + displacement + place_step * j
    in dy, counted from the corner: see ``residue_table``.
    """
    strides = pair(s.strides)
    table = residue_table(s).view(RESIDUE)
    axes = [
        [dict(zip(RESIDUE.names, row.tolist(), strict=True)) for row in rows]
        for rows in (table[: strides[0]], table[strides[0] :])
    ]
    record = np.zeros(1, _RECORD)
    whole = record[0]
    for a, rows in enumerate(axes):
        for row in rows:
            row["first_place"] = row["first_output"] - row["output_step"] * (row["taps"] - 1)
            row["last_tap"] = row["first_tap"] + row["tap_step"] * (row["taps"] - 1)
        corner = min(row["first_place"] for row in rows if row["taps"])
        for row in rows:
            row["displacement"] = row["first_place"] - corner if row["taps"] else 0
        whole["corner"][a] = corner
        whole["tap_step"][a], whole["place_step"][a] = rows[0]["tap_step"], rows[0]["output_step"]
        whole["by_box"][a] = divisor(max(row["pixels"] for row in rows))
    found = [both for both in itertools.product(*axes) if all(row["pixels"] for row in both)]
    found.sort(key=lambda both: -both[0]["taps"] * both[1]["taps"])
    for own, both in zip(whole["of"], found, strict=False):
        for name in _CLASS.names:
            own[name] = [row[name] for row in both]
    farthest = max(
        row["displacement"] + row["output_step"] * max(0, row["taps"] - 1)
        for rows in axes
        for row in rows
    )
    taps = tuple(both[0]["taps"] * both[1]["taps"] for both in found)
    box = tuple(int(n) for n in whole["by_box"]["value"])
    return record, Classes(taps, box, tuple(map(int, whole["corner"])), farthest)


def _ends(s: ConvShape, classes: Classes) -> tuple[int, ...]:
    """Return where the box of dy ends beyond the last place of each axis."""
    axes = zip(classes.corner, classes.box, pair(s.output), strict=True)
    return tuple(corner + places - size for corner, places, size in axes)


def applies(problem: Problem) -> bool:
    """Return whether there are strides, and tensor maps can say what the classes read."""
    s = problem.shape
    if problem.direction != "dgrad" or not 1 < math.prod(s.strides) <= MOST_CLASSES:
        return False
    if not is_for_wgmma(problem):
        return False
    _, classes = class_record(s)
    limits = (*classes.corner, *_ends(s, classes))
    return all(limit in CORNER for limit in limits) and classes.farthest <= FARTHEST_TAP


class WgmmaDgrad(FusingAlgorithm):
    """dgrad under strides, on sm_90, with channels last: float16, bfloat16, and float32 where TF32
    is permitted."""

    name = "wgmma_dgrad"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        if not applies(problem):
            return
        s = problem.shape
        _, classes = class_record(s)
        depth_steps = ceil_div(s.filters, depth(problem.itemsize))
        for tile in TILES:
            of_class = ceil_div(s.channels, tile.filters)
            of_class *= ceil_div(s.batch * math.prod(classes.box), tile.pixels)
            one_split = len(classes.taps) * of_class
            steps = classes.taps[0] * depth_steps
            for count, each in splits(steps, math.prod(s.x_shape), tile, one_split):
                blocks = min(one_split * count, MULTIPROCESSORS * tile.blocks)
                settings = Settings(tile, one_split * count, count, each)
                yield Plan(self.name, settings, (blocks, 1, 1), tile.threads)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the first block takes, whose tiles have the most steps, or memory, and the launches
        beside the kernel's."""
        s, settings = problem.shape, plan.settings
        _, classes = class_record(s)
        depth_steps = ceil_div(s.filters, depth(problem.itemsize))
        own_us = [
            tile_us(settings.tile, ceil_div(taps * depth_steps, settings.splits), settings.tiles)
            for taps in classes.taps
        ]
        of_class = settings.tiles // len(own_us)
        compute_us = sum(own_us[n // of_class] for n in range(0, settings.tiles, plan.grid[0]))
        compute_us += last_us(settings.tile, settings.tiles)
        sizes = sum(map(math.prod, (s.x_shape, s.y_shape, s.w_shape)))
        total_us = LAUNCH_US + max(sizes * problem.itemsize / BYTES, compute_us)
        if settings.splits > 1:
            numbers = settings.splits * math.prod(s.x_shape)
            total_us += LAUNCH_US + 2 * numbers * problem.accumulator_bytes / BYTES
        if problem.dtype == "float32":
            total_us += LAUNCH_US + 2 * math.prod(s.w_shape) * problem.itemsize / BYTES
        return total_us

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        s, settings, tile = problem.shape, plan.settings, plan.settings.tile
        turned = problem.dtype != "float32"
        if not turned:
            w = turn_filters(caller, w, s)
        dy, w = map(aligned_copy, (source, w))
        record, classes = class_record(s)
        (p, q), corner, ends = pair(s.output), classes.corner, _ends(s, classes)
        run = Pixels(corner[::-1], ends[::-1], depth(dy.dtype.itemsize), tile.pixels)
        maps = (
            TensorMap(dy, (s.filters, q, p, s.batch), run),
            filters_map(w, dgrad_as_fprop(s), tile, turned),
        )

        def launch(epilogue: Epilogue, dx: Array | None, partial: Array | None) -> None:
            ending = epilogue.b, aligned_copy(epilogue.residual), *epilogue.function(dy.dtype)
            caller.launch(
                CLASSES((problem.dtype, turned), tile), plan.grid, plan.threads, *maps, *ending,
                dx, partial, settings.splits, settings.tiles, record, geometry_record(s),
            )  # fmt: skip

        return in_splits(caller, settings.splits, s.x_shape, dy.dtype, launch, epilogue)
