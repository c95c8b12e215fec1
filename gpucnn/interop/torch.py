"""Models for PyTorch. The import is light: PyTorch itself waits for the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layers.base import Layer
from .arrays import library

if TYPE_CHECKING:
    from .autograd import TorchModule


def as_torch_module(model: Layer) -> TorchModule:
    """Return a ``torch.nn.Module`` whose forward and backward are the model's.

    Its parameters and buffers are the model's arrays, in the same memory, under their paths
    ("conv2d/kernel"); kernels stay as gpucnn lays them out. See ``TorchModule``.

    Args:
        model: a network or a layer that is built, on the CPU or on a GPU.

    Raises:
        ValueError: the model is not built.
        TypeError: it is no model.
        ModuleNotFoundError: PyTorch is not installed.

    Example:
        >>> import torch
        >>> layer = Dense(2)
        >>> layer.build((3,))
        >>> module = as_torch_module(layer)
        >>> module(torch.ones(5, 3)).sum().backward()
        >>> module.get_parameter("dense/bias").grad
        tensor([5., 5.])
    """
    library("torch")
    from .autograd import TorchModule

    return TorchModule(model)
