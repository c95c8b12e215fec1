"""Batches of pictures, and a step's values, on the GPU (kernels/{augment,collect}.cu)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...changes import Changes
from ..base import Array
from .kernel import DTYPE, Axis, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, ceil_div, pack_size
from .spatial import DIVISOR, check_sizes, divisor

_CHANNELS: Axis = {
    channels: (f"c{channels or ''}", {"CHANNELS": channels}) for channels in (1, 3, 4, 0)
}
GATHER = KernelFamily("augment.cu", "gather_batch", _CHANNELS, DTYPE)
COLLECT = KernelFamily("collect.cu", "collect")

PACKS_OF_A_THREAD = 4  # so many that to fill the table and to draw takes little beside them
VALUES_OF_A_LAUNCH = 8  # as in kernels/collect.cu

# struct PictureBatch of kernels/augment.cu
_BATCH = np.dtype(
    [(name, "u8") for name in ("seed", "flip_below")]
    + [(name, "i4") for name in ("height", "width", "channels", "shift", "fill", "cutout", "cover")]
    + [("alternating", "i4")]
    + [(name, DIVISOR) for name in ("by_width", "by_channels")],
    align=True,
)


@lru_cache(maxsize=64)
def _record(height: int, width: int, channels: int, changes: Changes, seed: int) -> np.ndarray:
    check_sizes("gather_batch", ("one picture", height * width * channels, 31))
    record = np.zeros(1, _BATCH)
    record["seed"], record["flip_below"] = seed % 2**64, changes.flip_threshold
    record["height"], record["width"], record["channels"] = height, width, channels
    record["shift"], record["fill"] = changes.shift, -1 if changes.fill is None else changes.fill
    record["cutout"], record["cover"] = changes.cutout, changes.cover
    record["alternating"] = changes.alternating
    record["by_width"], record["by_channels"] = divisor(width), divisor(channels)
    return record


class Batches(KernelCaller):
    """``gather_batch`` and ``collect``."""

    def gather_batch(
        self, images: Array, labels: Array, order: Array, place: Any, count: int, table: Array,
        changes: Changes, seed: int,
    ) -> tuple[Array, Array]:  # fmt: skip
        sizes = images.shape[1:]
        x = self.xp.empty((count, *sizes), table.dtype)
        y = self.xp.empty(count, labels.dtype)
        packs = ceil_div(math.prod(sizes), pack_size(x))
        parts = min(ceil_div(packs, PACKS_OF_A_THREAD * BLOCK_THREADS), 2**15)
        self.launch(
            GATHER(sizes[2] if sizes[2] in _CHANNELS else 0, x.dtype), (count, parts),
            BLOCK_THREADS, images, labels, order, table, x, y, _record(*sizes, changes, seed),
            *self.varying(place, np.int64),
        )  # fmt: skip
        return x, y

    def collect(self, values: Sequence[Array], ring: Array, row: Any) -> None:
        for column in range(0, len(values), VALUES_OF_A_LAUNCH):
            part = values[column : column + VALUES_OF_A_LAUNCH]
            doubles = sum(1 << j for j, value in enumerate(part) if value.dtype == np.float64)
            missing = [None] * (VALUES_OF_A_LAUNCH - len(part))
            self.launch(
                COLLECT(), 1, 1, *part, *missing, doubles, len(part), ring, ring.shape[1], column,
                *self.varying(row, np.int64),
            )  # fmt: skip
