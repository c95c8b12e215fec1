"""The CUDA backend: arrays of an array module, kernels started by a launcher.

Both are parameters. CuPy and ``CupyLauncher`` make the real backend; NumPy and the tests' emulator
run the very same code on a machine without a GPU.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ..base import Array, Backend
from ..transfers import Transfers
from . import plans as estimated
from .activation import Activations
from .augment import Batches
from .change_layout import LayoutChange
from .conv import Convolutions
from .conv_pool import FusedPools
from .dropout import Dropout
from .launch import Launcher
from .norm import Normalisations
from .optimizer import Optimizers
from .plans import Planner
from .pool import Pools
from .softmax_loss import SoftmaxAndLosses
from .transfers import CupyTransfers


class CudaBackend(
    Convolutions, Pools, FusedPools, LayoutChange, Activations, SoftmaxAndLosses, Normalisations,
    Dropout, Batches, Optimizers, Backend,
):  # fmt: skip
    """Raw kernels on the arrays of ``xp``.

    Args:
        xp: the array module, ``cupy`` (or ``numpy`` under an emulator).
        launcher: runs the kernels.
        plans: chooses how a convolution is computed.
    """

    name = "cuda"

    def __init__(self, xp: ModuleType, launcher: Launcher, plans: Planner = estimated) -> None:
        self.xp = xp
        self.launcher = launcher
        self.plans = plans

    def owns(self, array: Any) -> bool:
        return isinstance(array, self.xp.ndarray)

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        return self.xp.asarray(array, dtype, order="C")

    def to_numpy(self, array: Array) -> np.ndarray:
        return array.get() if hasattr(array, "get") else np.array(array, order="C")

    def synchronize(self) -> None:
        if self.xp is not np:
            self.xp.cuda.Device().synchronize()

    def free_memory(self) -> int:
        if self.xp is np:
            return super().free_memory()
        unused, _ = self.xp.cuda.runtime.memGetInfo()
        return unused + self.xp.get_default_memory_pool().free_bytes()

    def transfers(self) -> Transfers:
        return Transfers() if self.xp is np else CupyTransfers(self.xp)
