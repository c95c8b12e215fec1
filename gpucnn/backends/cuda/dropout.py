"""Dropout on the GPU (kernels/dropout.cu)."""

from __future__ import annotations

import numpy as np

from ..base import Array, accumulator
from .kernel import DTYPE, KernelFamily
from .launch import KernelCaller

DROPOUT = KernelFamily("dropout.cu", "dropout", DTYPE)


class Dropout(KernelCaller):
    """``dropout``."""

    def dropout(self, x: Array, rate: float, seed: int, offset: int | Array) -> Array:
        y = self.xp.empty_like(x)
        offset = offset if self.owns(offset) else int(offset) % 2**64
        self.launch_packs(
            DROPOUT(x.dtype), x, x, y, np.uint32(int(rate * 2**32)),
            accumulator(x.dtype).type(1 / (1 - rate)), np.uint64(seed % 2**64),
            *self.varying(offset, np.uint64),
        )  # fmt: skip
        return y
