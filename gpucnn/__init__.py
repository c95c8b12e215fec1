"""Convolutional networks for CuPy and NumPy arrays, on hand-written CUDA C kernels.

>>> import gpucnn, numpy as np
>>> model = gpucnn.Sequential([
...     gpucnn.Conv2D(32, (3, 3), activation="relu", input_shape=(28, 28, 1)),
...     gpucnn.MaxPool2D((2, 2)),
...     gpucnn.Flatten(),
...     gpucnn.Dense(10),
... ])
>>> model.forward(np.zeros((5, 28, 28, 1), "float32")).shape  # NumPy in, NumPy out; and CuPy
(5, 10)

The import is light: NumPy alone. What trains, reads data or writes files is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import functional, layers
from .backends import get_backend, use_backend
from .initializers import set_seed
from .layers import *  # noqa: F403 - exactly layers.__all__
from .math_mode import set_math
from .network import Graph, Input, Residual, Sequential

__version__ = "0.1.0"

# Loaded on first use: where each name lives. A module's own name is the module.
_LATER = {
    "LossScale": "optimizers",
    "Trainer": "trainer",
    "as_torch_module": "interop.torch",
    "load": "checkpoint",
    "save": "checkpoint",
    "callbacks": "callbacks",
    "data": "data",
    "filters": "filters",
    "interop": "interop",
    "losses": "losses",
    "metrics": "metrics",
    "models": "models",
    "onnx": "onnx",
    "optimizers": "optimizers",
    "profile": "profiler",
    "schedules": "schedules",
    "tune": "tuning",
}

__all__ = [
    *layers.__all__,
    *_LATER,
    "Graph",
    "Input",
    "Residual",
    "Sequential",
    "functional",
    "get_backend",
    "layers",
    "set_math",
    "set_seed",
    "use_backend",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'gpucnn' has no attribute {name!r}")
    module = import_module(f".{_LATER[name]}", __name__)
    value = module if name == _LATER[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
