"""The one way from the backend to a kernel: every argument checked and given its exact width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from .graphs import Graphs
from .kernel import Kernel
from .tensor_map import TensorMap

MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_COUNT = 2**31 - 1  # elements of a launch that numbers them in 32 bits
BLOCK_THREADS = 256  # as in kernels/common.cuh; a convolution's follow from its tile


class Launcher(Protocol):
    """Runs a kernel on arrays: ``CupyLauncher`` on a GPU, the tests' emulator on the CPU."""

    @property
    def device(self) -> int:
        """The number of the device that is current."""
        ...

    @property
    def architecture(self) -> int:
        """The device's, 90 for sm_90: what plans may count on."""
        ...

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


def even(count: int, limit: int) -> int:
    """Return the size of the parts, none above ``limit``, that ``count`` falls into evenly."""
    return ceil_div(count, ceil_div(count, limit))


def whole_warps(threads: int) -> int:
    return 32 * ceil_div(threads, 32)


def pack_size(array: Any) -> int:
    """Return the elements of a pack: PACK of kernels/pack.cuh."""
    return 8 if array.dtype.itemsize == 2 else 4


def address_of(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def aligned(*arrays: Any, to: int = 16) -> bool:
    """Return whether arrays begin at multiples of ``to`` bytes: a view can lie anywhere."""
    return all(address_of(a) % to == 0 for a in arrays if a is not None)


def aligned_copy(array: Any) -> Any:
    """Return an array, or a copy, that begins as kernels want it: a copy does. None stays None."""
    return array if aligned(array) else array.copy()


def batch_parts(sample: int, *arrays: Any) -> Iterator[tuple[Any, ...]]:
    """Cut arrays along the batch, so that a launch over a part counts at most ``MAX_COUNT``.

    Kernels that split an element's index then do so in 32 bits. ``sample`` is how many elements a
    sample of the largest array has; None stays None. What fits is handed on uncut: a slice of a
    CuPy array takes as long to make as a launch.
    """
    batch, step = len(arrays[0]), max(1, MAX_COUNT // max(1, sample))
    if batch <= step:
        yield arrays
        return
    for first in range(0, batch, step):
        yield tuple(None if a is None else a[first : first + step] for a in arrays)


class KernelCaller:
    """What every operation family of the CUDA backend builds on: ``xp`` and ``launch``."""

    xp: ModuleType
    launcher: Launcher
    graphs: Graphs | None = None
    held: list[Any] | None = None  # tables that a graph reads which is being captured

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
        Python int or a bool becomes int32 and a Python float float32, since a raw kernel would be
        handed eight bytes (or one); other parameters are passed as ``numpy.int64``,
        ``numpy.float64`` and so on; a structured array of one element is a struct by value, and so
        is a ``TensorMap``.

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

    def constant(self, make: Callable[[Any], np.ndarray], key: Any) -> Any:
        """Return ``make(key)`` on the device, a small table that is made once and kept."""
        place = (make, key, self.launcher.device)
        if place not in self._constants:
            self._constants[place] = self.lasting(make(key))
            self.transfers().mark().synchronize()  # another stream may be the next to read it
        return self._constants[place]

    def lasting(self, table: np.ndarray) -> Any:
        """Bring a table to the device, to memory that no step takes over."""
        with self.graphs.allocating(None) if self.graphs else nullcontext():
            return self.asarray(table)

    @cached_property
    def _constants(self) -> dict[tuple, Any]:
        return {}

    def varying(self, number: Any, dtype: Any = np.float64) -> tuple[np.generic, Any]:
        """Return a kernel's two parameters for a number: it, and an address that prevails.

        That is null unless the number lies on the device, where the next replay finds another.
        """
        if isinstance(number, self.xp.ndarray):
            return dtype(0), number
        return dtype(number), None

    def launch_elements(self, kernel: Kernel, count: int, *arguments: Any) -> None:
        """Launch one thread for each of ``count`` elements."""
        self.launch(kernel, ceil_div(count, BLOCK_THREADS), BLOCK_THREADS, *arguments)

    def launch_packs(self, kernel: Kernel, array: Any, *arguments: Any) -> None:
        """Launch one thread for each pack of elements of ``array`` (kernels/pack.cuh)."""
        packs = ceil_div(array.size, pack_size(array))
        self.launch_elements(kernel, packs, *arguments, np.int64(array.size))

    def empty_mask(self, size: int) -> Any:
        """Return memory for a mask of one bit for each of so many elements (kernels/mask.cuh)."""
        return self.xp.empty(ceil_div(size, 8), np.uint8)

    def launch_octets(self, kernel: Kernel, array: Any, *arguments: Any) -> None:
        """Launch one thread for each byte of a mask of ``array``."""
        octets = ceil_div(array.size, 8)
        self.launch_elements(kernel, octets, *arguments, np.int64(array.size))

    def _convert(self, kernel: Kernel, argument: Any) -> Any:
        if isinstance(argument, TensorMap):
            self._convert(kernel, argument.array)
            return argument
        if isinstance(argument, (bool, np.bool_)):
            return np.int32(argument)
        if isinstance(argument, np.generic):  # before float, for numpy.float64 is one
            return argument
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
