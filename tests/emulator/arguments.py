"""A launch's arguments: checked against the kernel's parameters, as bytes and as known memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The dtype kinds that fit a parameter's kind, and the kind in words.
_FITTING = {"i": "iu", "u": "iu", "f": "f", "b": "b", "s": "V"}
_WORDS = {"i": "int", "u": "unsigned", "f": "float", "b": "bool", "s": "struct"}


class Parameter(NamedTuple):
    """What the compiled kernel tells of a parameter."""

    kind: str  # P pointer, p pointer to const, i u f b number, s struct
    bytes: int

    def __str__(self) -> str:
        return f"{_WORDS[self.kind]} of {self.bytes} bytes"

    @property
    def is_pointer(self) -> bool:
        return self.kind in "Pp"


class Buffer(ctypes.Structure):
    """EmuBuffer of runtime/state.h: memory that a kernel may touch."""

    _fields_ = (
        ("start", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("itemsize", ctypes.c_uint32),
        ("read_only", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
    )


def pack(kernel: str, parameters: Sequence[Parameter], args: Sequence[object]) -> list:
    """The bytes of each argument.

    Raises TypeError or ValueError for an argument that does not fit its parameter.
    """
    if len(args) != len(parameters):
        raise TypeError(f"{kernel} has {len(parameters)} parameters. Received: {len(args)}")
    return [
        (_pointer if parameter.is_pointer else _value)(f"{kernel}: argument {i}", parameter, arg)
        for i, (parameter, arg) in enumerate(zip(parameters, args, strict=True))
    ]


def reachable(
    kernel: str,
    parameters: Sequence[Parameter],
    args: Sequence[object],
    extra: Sequence[np.ndarray],
) -> list[Buffer]:
    """The memory behind the pointers and the extra arrays; what overlaps is one buffer."""
    arrays = [
        (arg, parameter.kind == "p", f"argument {i}")
        for i, (parameter, arg) in enumerate(zip(parameters, args, strict=True))
        if parameter.is_pointer and arg is not None
    ]
    for i, array in enumerate(extra):
        _demand_contiguous(f"{kernel}: extra array {i}", array)
        arrays.append((array, not array.flags.writeable, f"extra array {i}"))

    merged: list[Buffer] = []
    for array, read_only, name in sorted(arrays, key=lambda item: item[0].ctypes.data):
        start, end = array.ctypes.data, array.ctypes.data + array.nbytes
        last = merged[-1] if merged else None
        if last and start < last.start + last.bytes:
            last.bytes = max(end, last.start + last.bytes) - last.start
            last.itemsize = min(array.itemsize, last.itemsize)
            last.read_only = read_only and last.read_only
            last.name = last.name + b" and " + name.encode()
        elif array.nbytes:
            merged.append(Buffer(start, array.nbytes, array.itemsize, read_only, name.encode()))
    return merged


def _pointer(what: str, parameter: Parameter, arg: object) -> ctypes.c_uint64:
    if arg is None:
        return ctypes.c_uint64(0)
    if not isinstance(arg, np.ndarray):
        raise TypeError(f"{what}: a pointer takes an array or None. Received: {type(arg).__name__}")
    _demand_contiguous(what, arg)
    if parameter.kind == "P" and not arg.flags.writeable:
        raise ValueError(f"{what} is written to. Received: a read-only array")
    return ctypes.c_uint64(arg.ctypes.data)


def _value(what: str, parameter: Parameter, arg: object) -> ctypes.Array:
    is_struct = parameter.kind == "s" and isinstance(arg, np.ndarray) and arg.size == 1
    if not (isinstance(arg, np.generic) or is_struct):
        raise TypeError(
            f"{what}: the parameter is {parameter}, pass a NumPy scalar. "
            f"Received: {type(arg).__name__}"
        )
    if arg.dtype.kind not in _FITTING[parameter.kind] or arg.nbytes != parameter.bytes:
        raise TypeError(
            f"{what}: the parameter is {parameter}. Received: {arg.dtype} of {arg.nbytes} bytes"
        )
    return (ctypes.c_char * parameter.bytes).from_buffer_copy(arg.tobytes())


def _demand_contiguous(what: str, array: np.ndarray) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"{what} must be C-contiguous. Received: strides {array.strides}")
