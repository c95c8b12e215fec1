"""Arrays of other libraries: seen as NumPy's or CuPy's, in the same memory.

DLPack comes first, for it settles the order of work on a GPU: CuPy hands its current stream to the
library that the array comes from, which lets that stream wait for what its own has still to do.
An object without it may have ``__cuda_array_interface__``, whose stream CuPy waits for, or NumPy's
``__array_interface__``.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from . import get_backend, name_of, package_of
from .base import Array, bfloat16

# The numbers that DLPack has for devices whose memory the host, or a CUDA kernel, can read.
_HOST = (1, 3)  # kDLCPU, kDLCUDAHost
_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged

_PROTOCOLS = ("__dlpack_device__", "__cuda_array_interface__", "__array_interface__")


def as_own(owner: str, name: str, array: Any) -> Array:
    """Return the array as NumPy's or CuPy's own, without a copy; theirs pass as they are.

    It holds on to what it was given, so that the memory stays, and is read-only where that is.

    Raises:
        TypeError: it is no array, or cannot be shared, as one on a GPU where CuPy is missing; the
            message opens with ``owner``, calls it ``name`` and says why.
    """
    if _is_own(type(array)):
        return array
    if getattr(array, "requires_grad", False):
        raise TypeError(
            f"{owner}: {name} requires a gradient, of which PyTorch would see nothing here; give"
            " its detach(), or let gpucnn.as_torch_module(model) take part in autograd."
            f" Received: {name_of(array)}"
        )
    protocol = next((name for name in _PROTOCOLS if hasattr(array, name)), None)
    if protocol is None:
        raise TypeError(f"{owner}: {name} must be an array. Received: {name_of(array)}")
    try:
        if protocol == "__dlpack_device__":
            return _through_dlpack(array)
        if protocol == "__cuda_array_interface__":
            return get_backend("cuda").xp.asarray(array)
        return np.asarray(array)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"{owner}: {name} cannot be shared: {error}. Received: {name_of(array)}"
        ) from error


def on_host(owner: str, name: str, values: Any) -> np.ndarray:
    """Return an array, or nested lists, as NumPy's array; what lies on a GPU is copied.

    Raises:
        TypeError: as ``as_own``.
    """
    if not hasattr(values, "__cuda_array_interface__"):
        return np.asarray(values)
    return as_own(owner, name, values).get()


@cache
def _is_own(kind: type) -> bool:
    return issubclass(kind, np.ndarray) or package_of(kind) in ("numpy", "cupy")


def _through_dlpack(array: Any) -> Array:
    kind, _ = array.__dlpack_device__()
    if kind not in (*_HOST, *_CUDA):
        raise TypeError(f"it lies on a device of DLPack's kind {int(kind)}, no CPU and no CUDA GPU")
    xp = np if kind in _HOST else get_backend("cuda").xp
    if not _is_bfloat16(array):
        return xp.from_dlpack(array)
    # Neither NumPy nor CuPy takes a bfloat16: its bits travel as integers.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return xp.from_dlpack(array.view(torch.int16)).view(bfloat16())
    if xp is np:
        return np.asarray(array)  # JAX's share their memory like this, and know ml_dtypes
    return xp.from_dlpack(array.view("uint16")).view(bfloat16())


def _is_bfloat16(array: Any) -> bool:
    return str(getattr(array, "dtype", "")) in ("bfloat16", "torch.bfloat16")
