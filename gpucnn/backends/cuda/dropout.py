"""Dropout on the GPU (kernels/dropout.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base import Array, accumulator
from .activation import bend_record
from .kernel import DTYPE, KernelFamily
from .launch import KernelCaller

DROPOUT = KernelFamily("dropout.cu", "dropout", DTYPE)
DROPOUT_MASKED = KernelFamily("dropout.cu", "dropout_masked", DTYPE)


class Dropout(KernelCaller):
    """``dropout`` and ``dropout_masked``."""

    def dropout(self, x: Array, rate: float, seed: int, offset: int | Array) -> Array:
        y = self.xp.empty_like(x)
        self.launch_packs(DROPOUT(x.dtype), x, x, y, *self._draws(x, rate, seed, offset))
        return y

    def dropout_masked(
        self, x: Array, kind: str, alpha: float, rate: float, seed: int, offset: int | Array
    ) -> tuple[Array, Array]:
        y, mask = self.xp.empty_like(x), self.empty_mask(x.size)
        _, ceiling = bend_record(kind, alpha, x.dtype)
        draws = self._draws(x, rate, seed, offset)
        self.launch_octets(DROPOUT_MASKED(x.dtype), x, x, ceiling, y, mask, *draws)
        return y, mask

    def _draws(self, x: Array, rate: float, seed: int, offset: int | Array) -> tuple[Any, ...]:
        offset = offset if self.owns(offset) else int(offset) % 2**64
        return (
            np.uint32(int(rate * 2**32)), accumulator(x.dtype).type(1 / (1 - rate)),
            np.uint64(seed % 2**64), *self.varying(offset, np.uint64),
        )  # fmt: skip
