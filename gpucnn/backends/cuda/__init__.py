"""The CUDA backend. CuPy is imported only by ``cupy_backend``, when a GPU is asked for."""

from __future__ import annotations

import os

from .backend import CudaBackend
from .compiler import CupyLauncher
from .graphs import CupyGraphs
from .launch import Launcher
from .tuning import TunedPlans

__all__ = ["CudaBackend", "CupyLauncher", "Launcher", "cupy_backend"]


def cupy_backend() -> CudaBackend:
    """Return the backend on CuPy arrays.

    Raises:
        RuntimeError: CuPy is not installed or broken, or no GPU answers; the text says which.
    """
    try:
        import cupy
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "the CUDA backend needs CuPy, which is not installed:"
            ' pip install "gpucnn[cuda13]" (or [cuda12])'
        ) from error
    except ImportError as error:  # it is there, but its own libraries are not
        raise RuntimeError(f"the CUDA backend needs CuPy, which says: {error}") from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"the CUDA backend needs a GPU, but CUDA says: {error}") from error
    if not devices:
        raise RuntimeError("the CUDA backend needs a GPU, and CUDA finds none")
    launcher = CupyLauncher(os.environ.get("GPUCNN_DEPENDENT_LAUNCH") == "1")
    return CudaBackend(cupy, launcher, TunedPlans(launcher), CupyGraphs())
