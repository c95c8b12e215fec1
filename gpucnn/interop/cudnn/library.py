"""What a program asks of cuDNN as a library: its version, a handle, memory, tensor cores."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...arguments import as_int
from ...backends import default_backend

available = True

# That of CuPy 13.6's own wheels, 8.8.1: programs choose by it what they call, and then call what
# they called there.
_VERSION = 8801

_max_workspace_size = 8 * 1024 * 1024


def getVersion() -> int:
    """Return 8801, the version of cuDNN whose behaviour is followed: that of CuPy 13.6.

    Example:
        >>> getVersion() >= 7000  # as programs ask before they use groups
        True
    """
    return _VERSION


def get_build_version() -> int:
    """Return what ``getVersion`` does."""
    return _VERSION


def get_handle() -> int:
    """Return a number that is not 0 and stands for nothing: there is no state to be handled."""
    return 1


def get_max_workspace_size() -> int:
    """Return what ``set_max_workspace_size`` was given last, at first 8 MiB."""
    return _max_workspace_size


def set_max_workspace_size(size: int) -> None:
    """Keep a size in bytes for ``get_max_workspace_size``; it limits nothing.

    Raises:
        ValueError: it is no integer, or negative.
    """
    global _max_workspace_size
    _max_workspace_size = as_int("cudnn.set_max_workspace_size", "size", size, minimum=0)


def is_tensor_core_available(dtype: Any) -> bool:
    """Return whether convolutions of this dtype can run on tensor cores: float16, from sm_80 on.

    Asked of the GPU that is current; without one the answer is no.
    """
    if np.dtype(dtype) != np.float16:
        return False
    backend = default_backend()
    return backend.name == "cuda" and backend.launcher.architecture >= 80
