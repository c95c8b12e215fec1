"""Which backend runs a call: by the arrays' type, unless a person chose one.

1. ``use_backend("cuda")`` (or ``"numpy"``, or a ``Backend`` object), for good or in a ``with``
   block; it holds in the current thread and async task.
2. The environment variable ``GPUCNN_BACKEND``, read once, at the first call.
3. The type of the arrays: NumPy arrays run on the CPU, CuPy arrays on their GPU.

Where no array says it (a model that is built from an input shape, a trainer that moves its
batches), the default is the chosen backend, else CUDA where a GPU answers, else NumPy.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cache
from types import NoneType, TracebackType

import numpy as np

from .base import Array, Backend

NAMES = ("numpy", "cuda")
_ON_HOST = {np.ndarray, NoneType}

_chosen: ContextVar[Backend | None] = ContextVar("gpucnn_backend", default=None)


@cache
def get_backend(name: str) -> Backend:
    """Return the backend called ``name``, "numpy" or "cuda".

    Raises:
        ValueError: no such backend.
        RuntimeError: CUDA was asked for, and CuPy or a GPU is missing; the text says which.
    """
    if name == "numpy":
        from .numpy import NumpyBackend

        return NumpyBackend()
    if name == "cuda":
        from .cuda import cupy_backend

        return cupy_backend()
    raise ValueError(f'backend must be "numpy" or "cuda". Received: {name!r}')


class use_backend(AbstractContextManager):  # reads as a verb: with use_backend(...)
    """Choose the backend from here on, or until the end of a ``with`` block.

    Example:
        >>> with use_backend("numpy") as backend:
        ...     backend.name
        'numpy'
    """

    def __init__(self, backend: str | Backend) -> None:
        self.backend = backend if isinstance(backend, Backend) else get_backend(backend)
        self._token = _chosen.set(self.backend)

    def __enter__(self) -> Backend:
        return self.backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        _chosen.reset(self._token)


def chosen_backend() -> Backend | None:
    """Return what ``use_backend`` or ``GPUCNN_BACKEND`` says, or None."""
    return _chosen.get() or _backend_of_environment()


@cache  # every call asks; os.environ takes longer to answer than some calls to compute
def _backend_of_environment() -> Backend | None:
    name = os.environ.get("GPUCNN_BACKEND")
    if not name:
        return None
    if name.lower() not in NAMES:
        raise ValueError(f'GPUCNN_BACKEND must be "numpy" or "cuda". Received: {name!r}')
    return get_backend(name.lower())


@cache
def _best_backend() -> Backend:
    try:
        return get_backend("cuda")
    except RuntimeError:
        return get_backend("numpy")


def default_backend() -> Backend:
    """Return the backend for new arrays: the chosen one, else CUDA if a GPU answers, else NumPy."""
    return chosen_backend() or _best_backend()


def as_backend(backend: str | Backend | None) -> Backend:
    """Return a backend that is given by its name or as an object, else the default one.

    Raises:
        ValueError, RuntimeError: as ``get_backend``.
    """
    if backend is None:
        return default_backend()
    return backend if isinstance(backend, Backend) else get_backend(backend)


@cache
def package_of(kind: type) -> str:
    """Return "numpy" for numpy.ndarray and its subclasses within NumPy (memmap), and so on."""
    return kind.__module__.partition(".")[0]


def name_of(array: object) -> str:
    """Return an array's kind as errors name it: "torch.Tensor"."""
    return "None" if array is None else f"{package_of(type(array))}.{type(array).__name__}"


def _received(arrays: dict[str, Array]) -> str:
    return ", ".join(f"{name}: {name_of(array)}" for name, array in arrays.items())


def backend_of(owner: str, **arrays: Array | None) -> Backend:
    """Return the backend that runs a call on these named arrays (None entries are left out).

    Raises:
        TypeError: the arrays are of different kinds, or not of the chosen backend's kind; the
            message opens with ``owner`` and names the arrays.
    """
    backend = chosen_backend()
    if {*map(type, arrays.values())} <= _ON_HOST and (backend is None or backend.name == "numpy"):
        return backend or get_backend("numpy")  # at once: beside a small array all the rest counts
    given = {name: array for name, array in arrays.items() if array is not None}
    packages = {package_of(type(array)) for array in given.values()}
    if len(packages) > 1:
        raise TypeError(
            f"{owner}: all arrays of a call must lie on one device; move a model with"
            f' model.to("cuda") or model.to("numpy") and an array with cupy.asarray(x) or'
            f" cupy.asnumpy(x). Received: {_received(given)}"
        )
    if backend is None:
        backend = get_backend("cuda" if "cupy" in packages else "numpy")
    if not all(map(backend.owns, given.values())):
        raise TypeError(
            f"{owner}: the {backend.name} backend takes {backend.xp.__name__} arrays."
            f" Received: {_received(given)}"
        )
    return backend
