"""Beside other libraries: their arrays in and out, models as they take them, calls as they make.

    as_array, as_torch, as_jax, like    one array, the same memory
    torch                               a model as a ``torch.nn.Module``
    dask                                predictions over a Dask array
    cudnn                               the functions of ``cupy.cudnn``, which CuPy 14 removed

A module is loaded on first use, and what needs another library imports it when it is called.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .arrays import as_array, as_jax, as_torch, like

_MODULES = ("cudnn", "dask", "torch")
__all__ = ["as_array", "as_jax", "as_torch", "like"]


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module 'gpucnn.interop' has no attribute {name!r}")
    return import_module(f".{name}", __name__)
