"""The functions of ``cupy.cudnn``, which CuPy 14 removed, with the signatures of CuPy 13.6.

A program that was written for them runs unchanged after one line:

>>> import gpucnn.interop.cudnn
>>> gpucnn.interop.cudnn.install()
True
>>> from cupy import cudnn
>>> x, W, y = np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)), np.empty((1, 3, 5, 5))
>>> cudnn.convolution_forward(
...     x, W, None, y, (1, 1), (1, 1), (1, 1), 1, auto_tune=True, tensor_core="auto"
... )
>>> y[0, 0, 0]
array([ 8., 12., 12., 12.,  8.])
>>> gpucnn.interop.cudnn.uninstall()

CuPy arrays are computed on their GPU, NumPy arrays on the CPU. docs/cupy-cudnn.md says what is here
and what is not.
"""

from __future__ import annotations

from typing import Any

from .activation import (
    activation_backward,
    activation_forward,
    softmax_backward,
    softmax_forward,
)
from .calls import BadParameter, CuDNNError
from .constants import *  # noqa: F403 - exactly constants.__all__
from .constants import __all__ as _constants
from .convolution import (
    convolution_backward_data,
    convolution_backward_filter,
    convolution_forward,
)
from .library import (
    available,
    get_build_version,
    get_handle,
    get_max_workspace_size,
    getVersion,
    is_tensor_core_available,
    set_max_workspace_size,
)
from .normalization import (
    batch_normalization_backward,
    batch_normalization_forward_inference,
    batch_normalization_forward_training,
    batch_normalization_forward_training_ex,
)
from .pooling import pooling_backward, pooling_forward
from .registration import install, uninstall

__all__ = [
    *_constants,
    "BadParameter",
    "CuDNNError",
    "activation_backward",
    "activation_forward",
    "available",
    "batch_normalization_backward",
    "batch_normalization_forward_inference",
    "batch_normalization_forward_training",
    "batch_normalization_forward_training_ex",
    "convolution_backward_data",
    "convolution_backward_filter",
    "convolution_forward",
    "getVersion",
    "get_build_version",
    "get_handle",
    "get_max_workspace_size",
    "install",
    "is_tensor_core_available",
    "pooling_backward",
    "pooling_forward",
    "set_max_workspace_size",
    "softmax_backward",
    "softmax_forward",
    "uninstall",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    raise AttributeError(
        "gpucnn.interop.cudnn has convolution, pooling, activation, softmax and batch"
        " normalisation; descriptors, cuDNN's own C functions, dropout states, RNN, CTC and fused"
        f" operations are not part of it. Received: cudnn.{name}"
    )
