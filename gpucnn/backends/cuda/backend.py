"""The CUDA backend: arrays of an array module, kernels started by a launcher.

Both are parameters. CuPy and ``CupyLauncher`` make the real backend; NumPy and the tests' emulator
run the very same code on a machine without a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import Array, Backend, T
from ..transfers import Transfers
from . import plans as estimated
from .activation import Activations
from .augment import Batches
from .change_layout import LayoutChange
from .conv import Convolutions
from .conv_pool import FusedPools
from .dropout import Dropout
from .graphs import Captured, Graphs, RecordedProgram
from .launch import Launcher, address_of
from .norm import Normalisations
from .norm_pool import NormPools
from .optimizer import Optimizers
from .plans import Planner
from .pool import Pools
from .softmax_loss import SoftmaxAndLosses
from .transfers import CupyTransfers

if TYPE_CHECKING:
    from ...network.program import Program
    from ...step.memory import Piece

_capturing = threading.RLock()


class _Thread(threading.local):
    captures = False


_thread = _Thread()


class CudaBackend(
    Convolutions, Pools, FusedPools, LayoutChange, Activations, SoftmaxAndLosses, Normalisations,
    NormPools, Dropout, Batches, Optimizers, Backend,
):  # fmt: skip
    """Raw kernels on the arrays of ``xp``.

    Args:
        xp: the array module, ``cupy`` (or ``numpy`` under an emulator).
        launcher: runs the kernels.
        plans: chooses how a convolution is computed.
        graphs: captures what is launched; by default nothing does.
    """

    name = "cuda"
    # What the pass reads the way back does not read any more, so that it costs a launch, some 2 us:
    # as long as it takes to read so many bytes at about 4 TB/s. Behind a norm's sum it would cost
    # two, and more traffic: the norm's own kernels read the output.
    least_masked = 2**23
    masks_norms = False

    def __init__(
        self, xp: ModuleType, launcher: Launcher, plans: Planner = estimated,
        graphs: Graphs | None = None,
    ) -> None:  # fmt: skip
        self.xp = xp
        self.launcher = launcher
        self.plans = plans
        self.graphs = graphs

    def owns(self, array: Any) -> bool:
        return isinstance(array, self.xp.ndarray)

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        if _thread.captures and not self.owns(array):  # a graph would read it there again and again
            raise RuntimeError("a capture cannot copy from the host's memory")
        return self.xp.asarray(array, dtype, order="C")

    def to_numpy(self, array: Array) -> np.ndarray:
        return array.get() if hasattr(array, "get") else np.array(array, order="C")

    def synchronize(self) -> None:
        if hasattr(self.xp, "cuda"):
            with _capturing:  # CUDA refuses to wait for a device while any thread captures on it
                self.xp.cuda.Device().synchronize()

    def free_memory(self) -> int:
        if not hasattr(self.xp, "cuda"):
            return super().free_memory()
        unused, _ = self.xp.cuda.runtime.memGetInfo()
        return unused + self.xp.get_default_memory_pool().free_bytes()

    def transfers(self) -> Transfers:
        return CupyTransfers(self.xp) if hasattr(self.xp, "cuda") else Transfers()

    @property
    def captures(self) -> bool:
        return self.graphs is not None

    def memory(self, size: int) -> tuple[int, Any]:
        if self.graphs is not None:
            return self.graphs.memory(size)
        owner = self.xp.empty(size, np.uint8)
        return address_of(owner), owner

    def allocating(self, allocate: Callable[[int], Piece]) -> AbstractContextManager[None]:
        return self.graphs.allocating(allocate) if self.graphs else nullcontext()

    def bind(
        self, program: Program, shapes: tuple[tuple[int, ...], ...], dtype: np.dtype,
        blas_threads: int = 1,
    ) -> Callable[[Sequence[Array]], list[Array]]:  # fmt: skip
        from ...network.joining import joined  # which imports the backends

        program = joined(program).cast(dtype)
        return RecordedProgram(program, self) if self.captures else program

    def capture(self, function: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        if self.graphs is None:
            return super().capture(function)
        with _capturing:  # one thread at a time
            self.held = held = []
            _thread.captures = True
            try:
                result, replay = self.graphs.capture(function)
            finally:
                self.held, _thread.captures = None, False
        return result, Captured(replay, held)

    def write(self, values: np.ndarray, target: Array) -> None:
        if isinstance(target, np.ndarray):
            target[...] = values
        else:  # of pageable memory, so few bytes are copied to the driver's before this returns
            target.data.copy_from_host_async(values.ctypes.data, values.nbytes)
