"""Beside other libraries: their arrays in and out, models as they take them, calls as they make.

    as_array, as_torch, as_jax, like    one array, the same memory
    torch                               a model as a ``torch.nn.Module``
    dask                                predictions over a Dask array
    load_state_dict                     weights of PyTorch's networks, from files or arrays
    cudnn                               the functions of ``cupy.cudnn``, which CuPy 14 removed

A module is loaded on first use, and what needs another library imports it when it is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .arrays import as_array, as_jax, as_torch, like

_MODULES = ("cudnn", "dask", "torch", "weights")
__all__ = ["as_array", "as_jax", "as_torch", "like", "load_state_dict"]


def __getattr__(name: str) -> Any:
    if name == "load_state_dict":
        from .weights import load_state_dict

        return load_state_dict
    if name not in _MODULES:
        raise AttributeError(f"module 'gpucnn.interop' has no attribute {name!r}")
    return import_module(f".{name}", __name__)
