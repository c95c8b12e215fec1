"""What a step of the CUDA backend starts on a GPU: its kernels, and the array module's.

The launcher writes kernels down and runs none, and the arrays write down what CuPy would start a
kernel or a copy for, so that a network of full size is listed in a second:

    python -m tests.step_launches lenet5 --batch 512
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from gpucnn import models
from gpucnn.backends import use_backend
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.kernel import Kernel
from gpucnn.backends.cuda.launch import Launcher
from gpucnn.layers.base import as_dtype
from gpucnn.trainer import Trainer

# Of the array module, those that start nothing: they make views, or memory that nobody has written.
_FREE = {
    "arange", "array_split", "broadcast_to", "empty", "empty_like", "expand_dims", "moveaxis",
    "ndarray", "split", "swapaxes",
}  # fmt: skip


class Listing:
    """A ``Launcher`` that lists kernels, and runs them where another one is given.

    Attributes:
        kernels: the symbols of what was launched, in order.
        arithmetic: what the arrays of ``listed_module`` were asked for besides: a kernel each.
        copies: how often they were brought from the host.
    """

    device = 0
    architecture = 90

    def __init__(self, inner: Launcher | None = None) -> None:
        self.inner = inner
        self.clear()

    def clear(self) -> None:
        self.kernels: list[str] = []
        self.arithmetic: list[str] = []
        self.copies = 0

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple,
        pointees: Sequence[Any] = (),
    ) -> None:
        self.kernels.append(kernel.symbol)
        if self.inner is not None:
            self.inner.launch(kernel, grid, block, arguments, pointees)


def listed_module(listing: Listing) -> ModuleType:
    """Return NumPy with arrays that note in ``listing.arithmetic`` what would run on the device."""

    def note(name: str) -> None:
        listing.arithmetic.append(name)

    class DeviceArray(np.ndarray):
        __module__ = "numpy"

        def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any):
            note(ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}")
            if options.get("out"):
                options["out"] = tuple(_plain(out) for out in options["out"])
                getattr(ufunc, method)(*map(_plain, inputs), **options)
                return self
            return own(getattr(ufunc, method)(*map(_plain, inputs), **options))

        def __array_function__(self, function: Callable, _: Any, arguments: Any, options: Any):
            if function.__name__ not in _FREE:
                note(function.__name__)
            options = {key: _plain(value) for key, value in options.items() if key != "like"}
            return own(function(*map(_plain, arguments), **options))

        def astype(self, dtype: Any, *_: Any, copy: bool = True, **__: Any):
            if not copy and self.dtype == dtype:
                return self
            note("astype")
            return own(_plain(self).astype(dtype))

        def reshape(self, *shape: Any, **options: Any):
            result = super().reshape(*shape, **options)
            if not np.may_share_memory(_plain(result), _plain(self)):
                note("reshape")
            return result

        def __getitem__(self, item: Any) -> Any:
            return own(super().__getitem__(item))

        def __setitem__(self, *item: Any) -> None:
            note("setitem")
            super().__setitem__(*item)

        @property
        def data(self) -> SimpleNamespace:
            return SimpleNamespace(ptr=self.ctypes.data)  # as CuPy's

        def __float__(self) -> float:
            raise AssertionError("a step must not wait for the device: float(array)")

        def __bool__(self) -> bool:
            raise AssertionError("a step must not wait for the device: bool(array)")

    for name in ("argmax", "copy", "fill", "ravel", "sort", "take"):

        def method(self: np.ndarray, *arguments: Any, name: str = name, **options: Any) -> Any:
            result = getattr(_plain(self), name)(*map(_plain, arguments), **options)
            if name != "ravel" or not np.may_share_memory(result, _plain(self)):
                note(name)
            return own(result)

        setattr(DeviceArray, name, method)

    def own(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(own, value))
        if isinstance(value, np.generic):  # a GPU's arrays have no numbers, only 0-d arrays
            value = np.asarray(value)
        return value.view(DeviceArray) if isinstance(value, np.ndarray) else value

    class Module(ModuleType):
        """NumPy's functions; of those that make arrays, the ones that write to them are noted."""

        ndarray = DeviceArray

        def __getattr__(self, name: str) -> Any:
            found = getattr(np, name)
            if not callable(found) or isinstance(found, type):
                return found

            def function(*arguments: Any, **options: Any) -> Any:
                on_device = any(isinstance(item, DeviceArray) for item in _flat(arguments))
                if on_device and name in ("asarray", "ascontiguousarray"):
                    result = found(_plain(arguments[0]), *arguments[1:], **options)
                    if not np.may_share_memory(result, _plain(arguments[0])):
                        note(name)
                    return own(result)
                if not on_device and name in ("array", "asarray"):
                    listing.copies += 1
                elif not on_device and name not in _FREE:
                    note(name)
                return own(found(*arguments, **options))

            return function

    return Module("numpy")


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value.view(np.ndarray) if isinstance(value, np.ndarray) else value


def _flat(values: Any) -> list[Any]:
    nested = isinstance(values, (list, tuple))
    return [leaf for value in values for leaf in _flat(value)] if nested else [values]


def step_of(name: str, batch: int = 8, **options: Any) -> Listing:
    """Return what the second training step of a network of ``gpucnn.models`` starts.

    The first one makes what is kept: plans, tables, slots. ``options`` are the trainer's.
    """
    input_shape = models.USUAL[name]
    listing = Listing()
    backend = CudaBackend(listed_module(listing), listing)
    with use_backend(backend), np.errstate(all="ignore"):
        model = models.make(name, 10, input_shape)
        model.needs_input_gradient = False
        trainer = Trainer(model, backend=backend, progress=False, **options)
        images = backend.xp.zeros((batch, *input_shape), np.float32)
        labels = backend.xp.zeros(batch, np.int64)
        for _ in range(2):
            listing.clear()
            trainer._step(images, labels)
    return listing


def frozen_of(name: str, batch: int = 8, dtype: str = "float32") -> Listing:
    """Return what a frozen network of ``gpucnn.models`` starts for a batch that lies there."""
    input_shape = models.USUAL[name]
    listing = Listing()
    backend = CudaBackend(listed_module(listing), listing)
    with use_backend(backend), np.errstate(all="ignore"):
        model = models.make(name, 10, input_shape).astype(dtype)
        images = backend.xp.zeros((batch, *input_shape), as_dtype("step", dtype))
        answer = model.freeze()
        for _ in range(2):
            listing.clear()
            answer(images)
    return listing


def main() -> None:
    parser = argparse.ArgumentParser(description="List what a training step starts on a GPU.")
    parser.add_argument("network")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frozen", action="store_true", help="an answer in place of a step")
    parser.add_argument("--dtype", default="float32", help="of a frozen network")
    parser.add_argument("--in-order", action="store_true", help="one line a launch")
    options = parser.parse_args()
    if options.frozen:
        listing = frozen_of(options.network, options.batch, options.dtype)
    else:
        listing = step_of(options.network, options.batch)
    for title, names in (("kernels", listing.kernels), ("array module's", listing.arithmetic)):
        print(f"{title}: {len(names)}")
        counted = (
            [(name, 1) for name in names] if options.in_order else Counter(names).most_common()
        )
        for name, count in counted:
            print(f"  {count:4d}  {name}")
    print(f"copies from the host: {listing.copies}")


if __name__ == "__main__":
    main()
