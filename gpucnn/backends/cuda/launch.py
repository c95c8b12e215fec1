"""The one way from the backend to a kernel: every argument checked and given its exact width."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from .kernel import Kernel

MAX_GRID = (2**31 - 1, 65535, 65535)
BLOCK = 256  # threads of a block that works on elements independently


class Launcher(Protocol):
    """Runs a kernel on arrays: ``CupyLauncher`` on a GPU, the tests' emulator on the CPU."""

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple,
        pointees: Sequence[Any] = (),
    ) -> None: ...


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def batch_parts(batch: int, sample: int) -> list[slice]:
    """Cut a batch so that a launch over a part, ``sample`` elements each, counts below 2^31.

    Kernels that split an element's index then do so in 32 bits.

    >>> batch_parts(3, 2**30)
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    step = max(1, (2**31 - 1) // max(1, sample))
    return [slice(first, min(first + step, batch)) for first in range(0, batch, step)]


class KernelCaller:
    """What every operation family of the CUDA backend builds on: ``xp`` and ``launch``."""

    xp: ModuleType
    launcher: Launcher

    def launch(
        self,
        kernel: Kernel,
        grid: int | tuple[int, ...],
        block: int,
        *arguments: Any,
        pointees: Sequence[Any] = (),
    ) -> None:
        """Check and convert the arguments, then launch.

        Arrays must be C-contiguous (a kernel sees only their address); None is a null pointer; a
        Python int becomes int32 and a Python float float32, since a raw kernel would read eight
        bytes of either; wider parameters are passed as ``numpy.int64`` or ``numpy.float64``; a
        structured array of one element is a struct passed by value.

        Raises:
            ValueError: a grid that the device cannot run, an array that is not contiguous, or a
                Python int that does not fit 32 bits.
        """
        grid = (grid,) if isinstance(grid, int) else grid
        if 0 in grid:
            return
        if any(size > limit for size, limit in zip(grid, MAX_GRID, strict=False)):
            raise ValueError(
                f"{kernel.symbol}: the tensor is too large for one launch."
                f" Received: a grid of {grid} blocks"
            )
        converted = tuple(self._convert(kernel, argument) for argument in arguments)
        self.launcher.launch(kernel, grid, (block,), converted, pointees)

    def launch_elements(self, kernel: Kernel, count: int, *arguments: Any) -> None:
        """Launch one thread for each of ``count`` elements."""
        self.launch(kernel, ceil_div(count, BLOCK), BLOCK, *arguments)

    def launch_packs(self, kernel: Kernel, array: Any, *arguments: Any) -> None:
        """Launch one thread for each pack of elements of ``array`` (kernels/pack.cuh)."""
        pack = 8 if array.dtype.itemsize == 2 else 4
        self.launch_elements(kernel, ceil_div(array.size, pack), *arguments, np.int64(array.size))

    def _convert(self, kernel: Kernel, argument: Any) -> Any:
        if isinstance(argument, np.generic):  # first, for numpy.float64 is a Python float too
            return argument
        if isinstance(argument, bool):
            return np.int32(argument)
        if isinstance(argument, int):
            if not -(2**31) <= argument < 2**31:
                raise ValueError(
                    f"{kernel.symbol}: a size passes 2^31, more than this kernel counts to."
                    f" Received: {argument}"
                )
            return np.int32(argument)
        if isinstance(argument, float):
            return np.float32(argument)
        flags = getattr(argument, "flags", None)
        if flags is not None and not flags.c_contiguous:
            raise ValueError(
                f"{kernel.symbol}: arrays must be C-contiguous."
                f" Received: shape {argument.shape}, strides {argument.strides}"
            )
        return argument
