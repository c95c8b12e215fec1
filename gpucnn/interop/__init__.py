"""The library where other software expects something else. Each module is loaded on first use.

cudnn    the functions of ``cupy.cudnn``, which CuPy 14 removed
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["cudnn"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'gpucnn.interop' has no attribute {name!r}")
    return import_module(f".{name}", __name__)
