"""Dependent launches: a kernel's blocks get their places while the kernel before still runs.

CUDA calls it programmatic dependent launch; kernels/dependent_launch.cuh says why all stays in
order. It is for graphs alone: there no host is between two kernels, and there CUDA tells what a
launch will follow. Behind one kernel, whoever's, the graph gets a programmatic edge. Behind a copy,
a fill or several branches, and at a graph's beginning, a launch is an ordinary one, for such edges
join kernels only.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from .tensor_map import driver

FIRST_ARCHITECTURE = 90  # that has griddepcontrol; older kernels are compiled without a wait
_STREAM_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_CAPTURING = 1  # enum CUstreamCaptureStatus
_KERNEL_NODE = 0  # enum CUgraphNodeType


class Attribute(ctypes.Structure):
    """CUlaunchAttribute: 8 bytes of name, 64 of value."""

    _fields_ = (
        ("id", ctypes.c_int),
        ("padding", ctypes.c_char * 4),
        ("allowed", ctypes.c_int),
        ("rest", ctypes.c_char * 60),
    )


class Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("attribute_count", ctypes.c_uint),
    )


@cache
def is_supported() -> bool:
    """Return whether the driver knows programmatic edges; where it does not, warn, this once."""
    if hasattr(driver(), "cuStreamGetCaptureInfo_v3"):
        return True
    version = ctypes.c_int()
    _demand("cuDriverGetVersion", ctypes.byref(version))
    warnings.warn(
        "dependent launches (GPUCNN_DEPENDENT_LAUNCH=1) are off: they need a driver for CUDA 12.3"
        f" or newer. Received: one for {version.value // 1000}.{version.value % 1000 // 10}",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def follows_a_kernel(stream: int) -> bool:
    """Return whether a stream is being captured, and its next launch has one kernel before it.

    The default stream (0) cannot be captured, and an old driver cannot say.
    """
    if stream == 0 or not is_supported():
        return False
    status, capture, count = ctypes.c_int(), ctypes.c_uint64(), ctypes.c_size_t()
    graph, edges = ctypes.c_void_p(), ctypes.c_void_p()
    nodes = ctypes.POINTER(ctypes.c_void_p)()
    found = (status, capture, graph, nodes, edges, count)
    _demand("cuStreamGetCaptureInfo_v3", ctypes.c_void_p(stream), *map(ctypes.byref, found))
    if status.value != _CAPTURING or count.value != 1:
        return False
    kind = ctypes.c_int()
    _demand("cuGraphNodeGetType", ctypes.c_void_p(nodes[0]), ctypes.byref(kind))
    return kind.value == _KERNEL_NODE


def launch(
    function: int, grid: Sequence[int], block: Sequence[int], shared_bytes: int, stream: int,
    arguments: Sequence[Any],
) -> None:  # fmt: skip
    """Start a kernel, a CUfunction, that may begin before the one before it has ended.

    Args:
        arguments: arrays of the device and None, which are pointers; numbers of NumPy and
            structured arrays of one element, which go by value as they are.

    Raises:
        RuntimeError: the driver refuses.
    """
    values = [_value(argument) for argument in arguments]
    parameters = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
    attribute = Attribute(id=_STREAM_SERIALIZATION, allowed=1)
    config = Config(
        _three(grid), _three(block), shared_bytes, stream, ctypes.pointer(attribute), 1
    )  # fmt: skip
    _demand("cuLaunchKernelEx", ctypes.byref(config), ctypes.c_void_p(function), parameters, None)


def _value(argument: Any) -> np.ndarray:
    """Return an array whose bytes are the parameter's."""
    if argument is None:
        return np.zeros((), np.uintp)
    if isinstance(argument, (np.generic, np.ndarray)):
        return np.asarray(argument)
    return np.asarray(argument.data.ptr, np.uintp)


def _three(sizes: Sequence[int]) -> Any:
    return (ctypes.c_uint * 3)(*(*sizes, 1, 1)[:3])


def _demand(name: str, *arguments: Any) -> None:
    status = getattr(driver(), name)(*arguments)
    if status:
        raise RuntimeError(f"dependent launch: {name} failed. Received: CUresult {status}")
