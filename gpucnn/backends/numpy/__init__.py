"""The backend for machines without a GPU: NumPy and its BLAS, nothing else.

One file a family of operations; each holds a class of methods whose meaning is that of
``gpucnn.backends.base`` and whose docstring gives the algorithm and its source.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import Array, Backend
from . import buffers, memory
from .activation import Activations
from .augment import Batches
from .change_layout import LayoutChange
from .conv_fused import FusedConvolutions
from .dropout import Dropout
from .norm import Normalisations
from .optimizer import Optimizers
from .pool import Pools
from .settings import settled
from .softmax_loss import SoftmaxAndLosses
from .tape import Tape
from .threads import one_blas_thread

if TYPE_CHECKING:
    from ...network.program import Program
    from ...step.memory import Piece

__all__ = ["NumpyBackend"]


class NumpyBackend(
    FusedConvolutions, Pools, LayoutChange, Activations, SoftmaxAndLosses, Normalisations, Dropout,
    Batches, Optimizers, Backend,
):  # fmt: skip
    """Every operation of the library on ``numpy.ndarray``.

    Example:
        >>> import numpy as np
        >>> NumpyBackend().activation_forward(np.array([-1.0, 2.0]), "relu", 0.0)
        array([0., 2.])
    """

    name = "numpy"
    xp = np
    # To read bits is quicker than to compare numbers, by about as much as it takes to write them;
    # below this the calls themselves count.
    least_masked = 2**16
    masks_norms = True

    def owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray)

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        if hasattr(array, "__cuda_array_interface__"):  # a CuPy array
            array = array.get()
        return np.asarray(array, dtype, order="C")

    def arranged(self, array: Array) -> Array:
        return memory.arranged(array)

    def to_numpy(self, array: Array) -> np.ndarray:
        return np.array(array, order="C")

    def synchronize(self) -> None:
        """Nothing to wait for: every call has done its work when it returns."""

    def running(self) -> AbstractContextManager[None]:
        return one_blas_thread()

    def memory(self, size: int) -> tuple[int, Any]:
        with buffers.taken_from(None):
            owner = buffers.empty((max(size, buffers.SMALL),), np.uint8)
        return owner.ctypes.data, owner

    def allocating(self, allocate: Callable[[int], Piece]) -> AbstractContextManager[None]:
        return buffers.taken_from(allocate)

    def bind(
        self, program: Program, shapes: tuple[tuple[int, ...], ...], dtype: np.dtype,
        blas_threads: int = 1,
    ) -> Callable[[Sequence[Array]], list[Array]]:  # fmt: skip
        return program if dtype.kind == "c" else Tape(program, shapes, dtype, blas_threads)


# Those that do not compute.
_NOT_OPERATIONS = {
    "owns", "asarray", "arranged", "to_numpy", "synchronize", "running", "memory", "allocating",
    "bind",
}  # fmt: skip
for _name, _method in inspect.getmembers(Backend, inspect.isfunction):
    _own = getattr(NumpyBackend, _name)
    if _own is not _method and not _name.startswith("_") and _name not in _NOT_OPERATIONS:
        setattr(NumpyBackend, _name, settled(_own))
