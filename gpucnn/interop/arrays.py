"""One array, several libraries: the same memory as the kind of array that each takes.

Layers take any of these kinds and return NumPy's or CuPy's; what they return comes back as its own
kind on request:

    >>> import torch
    >>> x = torch.ones(2, 3)
    >>> y = ReLU().forward(x)
    >>> type(y).__name__, type(like(y, x)).__name__
    ('ndarray', 'Tensor')

On a GPU the libraries settle the order of work through DLPack: what comes in is ready for CuPy's
current stream, what goes out for the current stream of the library that takes it.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ..backends import get_backend, name_of, package_of
from ..backends.base import Array
from ..backends.exchange import as_own
from ..extras import package


def as_array(x: Any) -> Array:
    """Return any library's array as NumPy's, or CuPy's where it lies on a GPU.

    Layers do this by themselves; losses, metrics and ``gpucnn.functional`` take its result.

    Args:
        x: what has ``__dlpack__``, ``__cuda_array_interface__`` or ``__array_interface__``.

    Returns:
        An array that shares x's memory, whatever its strides; read-only where x is, as JAX's are.

    Raises:
        TypeError: x is no array, requires a gradient, or lies where neither library can read.

    Example:
        >>> import torch
        >>> x = torch.zeros(2)
        >>> as_array(x)[0] = 5
        >>> x
        tensor([5., 0.])
    """
    return as_own("as_array", "x", x)


def as_torch(y: Any) -> Any:
    """Return an array as a PyTorch tensor, on the device that it lies on.

    The memory is shared but where PyTorch could not keep to it: what is read-only, for tensors
    never are, and what has negative strides is copied.

    Raises:
        ModuleNotFoundError: PyTorch is not installed.
        TypeError: y is no array.

    Example:
        >>> y = MaxPool1D(2).forward(np.arange(8.0).reshape(1, 8, 1))
        >>> as_torch(y).flatten()
        tensor([1., 3., 5., 7.], dtype=torch.float64)
    """
    torch = library("torch")
    y = as_own("as_torch", "y", y)
    writeable = not isinstance(y, np.ndarray) or y.flags.writeable
    if not writeable or any(step < 0 for step in y.strides):
        y = y.copy()
    if y.dtype.name == "bfloat16":  # whose bits travel as integers
        return torch.from_dlpack(y.view("int16")).view(torch.bfloat16)
    return torch.from_dlpack(y)


def as_jax(y: Any) -> Any:
    """Return an array as JAX's, on the device that it lies on.

    The memory is shared where JAX can: it begins at a multiple of 64 bytes, as larger results do,
    and has no gaps. Otherwise, and for dtypes that JAX is set to narrow, JAX copies. A shared array
    must not be changed any more, for JAX takes it that no array is.

    Raises:
        ModuleNotFoundError: JAX is not installed.
        TypeError: y is no array.

    Example:
        >>> type(as_jax(np.ones((2, 3), np.float32))).__name__
        'ArrayImpl'
    """
    jax = library("jax")
    y = as_own("as_jax", "y", y)
    if isinstance(y, np.ndarray):
        if y.flags.writeable and y.dtype.name != "bfloat16" and _is_dense(y):
            return jax.numpy.from_dlpack(y)
        return jax.device_put(y, jax.local_devices(backend="cpu")[0])  # shares what it can, too
    y = y if _is_dense(y) else y.copy()
    if y.dtype.name == "bfloat16":
        return jax.numpy.from_dlpack(y.view("uint16")).view("bfloat16")
    return jax.numpy.from_dlpack(y)


def like(y: Any, x: Any) -> Any:
    """Return ``y`` as the kind of array that ``x`` is, on x's device: what came in goes out.

    Args:
        y: an array of any library.
        x: a PyTorch tensor, a JAX array, or one of NumPy or CuPy.

    Returns:
        y's memory as x's kind where the two lie on one device, else a copy there.

    Raises:
        TypeError: y is no array, or x is of another library.

    Example:
        >>> x = np.ones((1, 4))
        >>> like(Dense(3).forward(x), x).shape
        (1, 3)
    """
    kind = package_of(type(x))
    if kind == "torch":
        return as_torch(y).to(x.device)
    if kind in ("jax", "jaxlib"):
        return library("jax").device_put(as_jax(y), x.sharding)
    if kind not in ("numpy", "cupy"):
        raise TypeError(
            f"like: x must be an array of NumPy, CuPy, PyTorch or JAX. Received: x={name_of(x)}"
        )
    backend = get_backend("numpy" if kind == "numpy" else "cuda")
    y = as_own("like", "y", y)
    return y if backend.owns(y) else backend.asarray(y)


def _is_dense(y: Array) -> bool:
    """Return whether an array's numbers fill its memory, in whatever order of the axes."""
    axes = sorted(range(y.ndim), key=lambda axis: -y.strides[axis])
    return y.transpose(axes).flags.c_contiguous


def library(name: str) -> ModuleType:
    """Import a library that an extra of the same name brings."""
    return package(name, name, "gpucnn.interop needs")
