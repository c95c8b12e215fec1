"""CuPy and its stream capture, as far as a training step needs them, on the CPU.

``Device`` stands for the module ``cupy``: its arrays are NumPy's, but what makes or changes one is
work on a device, and under capture it is written down, not done. ``Graph`` runs what was written
down, and fills with NaN whatever memory nothing may read: a piece before it is written for the
first time, and after its array is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.kernel import Kernel
from gpucnn.backends.cuda.tensor_map import TensorMap
from gpucnn.step.memory import Piece
from tests.emulator_launcher import EmulatorLauncher

POISON = 0xFF  # of which floats are NaN, and integers -1 or far out of range

Work = Callable[[], Any]


class Device:
    """Memory, and the work on it: the launcher, the array module and the graphs of a backend.

    Args:
        mode: of the emulator.
        waits: what the host does that a capture does not allow, by name; for tests.
    """

    def __init__(self, mode: str = "fast") -> None:
        self.launcher = Launcher(self, mode)
        self.xp = ArrayModule(self)
        self.backend = CudaBackend(self.xp, self.launcher, graphs=self)
        self.written: list[tuple[str, Work]] | None = None
        self.allocate: Callable[[int], Piece] | None = None

    def do(self, name: str, work: Work) -> None:
        """Do a piece of work, or write it down."""
        if self.written is None:
            work()
        else:
            self.written.append((name, work))

    # ---- Graphs ----------------------------------------------------------------------------------

    def memory(self, size: int) -> tuple[int, np.ndarray]:
        owner = np.full(size + 512, POISON, np.uint8)
        return owner.ctypes.data + -owner.ctypes.data % 512, owner

    @contextmanager
    def allocating(self, allocate: Callable[[int], Piece]) -> Iterator[None]:
        before, self.allocate = self.allocate, allocate
        try:
            yield
        finally:
            self.allocate = before

    def capture(self, function: Callable[[], Any]) -> tuple[Any, Graph]:
        self.written = []
        try:
            result = function()
            return result, Graph(self.written)
        finally:
            self.written = None

    # ---- arrays ----------------------------------------------------------------------------------

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if self.allocate is None or size == 0:
            array = np.empty(shape, dtype).view(DeviceArray)
        else:
            piece = self.allocate(size)
            self._watch(piece)
            array = np.asarray(piece).view(dtype).reshape(shape).view(DeviceArray)
        array.device = self
        return array

    def _watch(self, piece: Piece) -> None:
        """Write down that the piece's contents begin, and end with it."""
        if self.written is None:
            return
        written, leave = self.written, piece.leave
        memory = np.asarray(Piece(piece.address, piece.size, piece.owner))

        def left() -> None:
            written.append(("leave", lambda: memory.fill(POISON)))
            if leave is not None:
                leave()

        written.append(("take", lambda: memory.fill(POISON)))
        piece.leave = left

    def result(self, name: str, function: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        """Make a new array by NumPy's function, as a device would, in its turn."""
        inputs = [_plain(item) for item in inputs]
        with np.errstate(all="ignore"):
            shown = np.asarray(function(*inputs))
        y = self.empty(shown.shape, shown.dtype)
        target = _plain(y)

        def work() -> None:
            target[...] = function(*inputs)

        self.do(name, work)
        return y


class Graph:
    """What was written down, to be run again and again."""

    def __init__(self, work: list[tuple[str, Work]]) -> None:
        self.work = list(work)

    def names(self) -> list[str]:
        """Return the names of the kernels and of the array functions, in order."""
        return [name for name, _ in self.work if name not in ("take", "leave")]

    def __call__(self) -> None:
        with np.errstate(all="ignore"):
            for _, work in self.work:
                work()


class Launcher(EmulatorLauncher):
    """An emulator whose launches are work on a device."""

    def __init__(self, device: Device, mode: str) -> None:
        super().__init__(mode)
        self.on = device

    def launch(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple,
        pointees: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        plain = tuple(_plain(a) for a in arguments)
        pointees = [_plain(a) for a in pointees]
        launch = super().launch
        self.on.do(kernel.symbol, lambda: launch(kernel, grid, block, plain, pointees))


class DeviceArray(np.ndarray):
    """An array whose arithmetic is the device's work."""

    device: Device | None = None

    def __array_finalize__(self, source: Any) -> None:
        self.device = getattr(source, "device", None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        device = next(a.device for a in (*inputs, *options.get("out", ())) if _is_device(a))
        (out,) = options.pop("out", None) or (None,)
        function = getattr(ufunc, method)
        if out is None:
            return device.result(ufunc.__name__, lambda *xs: function(*xs, **options), inputs)
        plain, target = [_plain(item) for item in inputs], _plain(out)
        device.do(ufunc.__name__, lambda: function(*plain, out=target, **options))
        return out

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        device = self.device
        if function in (np.shape, np.ndim, np.size):
            return function(_plain(self))

        def call(*arrays: Any) -> Any:
            return function(*_replaced(args, iter(arrays)), **options)

        return device.result(function.__name__, call, _arrays(args))

    def __setitem__(self, key: Any, value: Any) -> None:
        target, value = _plain(self), _plain(value)
        self.device.do("copy", lambda: target.__setitem__(key, value))

    def astype(self, dtype: Any, copy: bool = True, **options: Any) -> DeviceArray:
        if not copy and self.dtype == dtype:
            return self
        return self.device.result("astype", lambda x: x.astype(dtype, **options), [self])

    def copy(self, order: str = "C") -> DeviceArray:
        return self.device.result("copy", lambda x: x.copy(order), [self])

    def mean(self, *args: Any, **options: Any) -> DeviceArray:
        return self.device.result("mean", lambda x: x.mean(*args, **options), [self])

    def sum(self, *args: Any, **options: Any) -> DeviceArray:
        return self.device.result("sum", lambda x: x.sum(*args, **options), [self])

    def argmax(self, *args: Any, **options: Any) -> DeviceArray:
        return self.device.result("argmax", lambda x: x.argmax(*args, **options), [self])

    def get(self) -> np.ndarray:
        """Return a copy on the host, for which it waits."""
        if self.device.written is not None:
            raise RuntimeError("a capture cannot wait for the device")
        return np.array(_plain(self))

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def tolist(self) -> Any:
        return self.get().tolist()


class ArrayModule:
    """``numpy`` with arrays that lie on a device."""

    ndarray = DeviceArray

    def __init__(self, device: Device) -> None:
        self._device = device
        self.__name__ = "emulated"

    def empty(self, shape: Any, dtype: Any = np.float64) -> DeviceArray:
        return self._device.empty(shape, dtype)

    def empty_like(self, array: Any, dtype: Any = None) -> DeviceArray:
        return self._device.empty(array.shape, dtype or array.dtype)

    def full(self, shape: Any, value: Any, dtype: Any = None) -> DeviceArray:
        array = self._device.empty(shape, dtype or np.asarray(value).dtype)
        array[...] = value
        return array

    def zeros(self, shape: Any, dtype: Any = np.float64) -> DeviceArray:
        return self.full(shape, 0, dtype)

    def ones(self, shape: Any, dtype: Any = np.float64) -> DeviceArray:
        return self.full(shape, 1, dtype)

    def zeros_like(self, array: Any, dtype: Any = None) -> DeviceArray:
        return self.full(array.shape, 0, dtype or array.dtype)

    def ones_like(self, array: Any, dtype: Any = None) -> DeviceArray:
        return self.full(array.shape, 1, dtype or array.dtype)

    def asarray(self, array: Any, dtype: Any = None, order: str | None = None) -> DeviceArray:
        if isinstance(array, DeviceArray):
            if dtype is None or array.dtype == dtype:
                return array
            return array.astype(dtype)
        source = np.asarray(array, dtype, order="C")
        if source.ndim == 0:  # as CuPy does: a kernel, or a memset, that is given the number
            return self.full((), source[()], source.dtype)
        if self._device.written is not None:
            raise RuntimeError("a capture cannot copy from the host's memory")
        copy = self._device.empty(source.shape, source.dtype)
        copy[...] = source
        return copy

    array = asarray

    def ascontiguousarray(self, array: DeviceArray) -> DeviceArray:
        if array.flags.c_contiguous:
            return array
        return self._device.result("copy", np.ascontiguousarray, [array])

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def emulated_backend(mode: str = "fast") -> CudaBackend:
    """Return a CUDA backend on emulated arrays that can be captured."""
    return Device(mode).backend


def _is_device(item: Any) -> bool:
    return isinstance(item, DeviceArray) and item.device is not None


def _plain(item: Any) -> Any:
    """Return the NumPy array in the same memory; as an address would, it keeps no piece in use."""
    if isinstance(item, TensorMap):
        return replace(item, array=_plain(item.array))
    if not isinstance(item, DeviceArray):
        return item
    base = item
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if not isinstance(base, Piece):
        return item.view(np.ndarray)
    return np.asarray(_Address(item, base.owner)).view(item.dtype)


class _Address:
    """An array's place in memory."""

    def __init__(self, array: np.ndarray, owner: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "shape": array.shape,
            "strides": array.strides,
            "typestr": f"<u{array.itemsize}",
            "data": (array.ctypes.data, False),
            "version": 3,
        }


def _arrays(item: Any) -> list[DeviceArray]:
    if isinstance(item, DeviceArray):
        return [item]
    return [a for part in item for a in _arrays(part)] if isinstance(item, (list, tuple)) else []


def _replaced(item: Any, arrays: Iterator[Any]) -> Any:
    if isinstance(item, DeviceArray):
        return next(arrays)
    return (
        type(item)(_replaced(part, arrays) for part in item)
        if isinstance(item, (list, tuple))
        else item
    )
