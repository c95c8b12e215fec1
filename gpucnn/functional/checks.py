"""What every function does first: find the backend, agree on a dtype, arrange the arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ..arguments import check_data_format
from ..backends import backend_of
from ..backends.base import FLOATS, Array, accumulator
from ..shapes import NormShape

_FLOATS = frozenset(FLOATS)
_HALVES = ("float16", "bfloat16")
# A complex array may meet a real one of the same precision: a complex image, a real filter.
_REAL_OF = {"complex64": "float32", "complex128": "float64"}


def prepare(owner: str, *, allow_complex: bool = False, **arrays: Array | None) -> tuple[Any, ...]:
    """Return (backend, *arrays), the arrays as the backend takes them; None stays None.

    A view of any strides, negative ones too, is copied here, once; an array that is C-contiguous,
    or lies as the backend lays activations out, passes through as it is.

    Raises:
        TypeError: the arrays lie on different devices, differ in dtype, or are not floating.
    """
    backend = backend_of(owner, **arrays)
    kinds = {_kind(a.dtype, allow_complex) for a in arrays.values() if a is not None}
    if len(kinds) > 1 or not kinds <= _FLOATS:
        given = {name: array for name, array in arrays.items() if array is not None}
        received = ", ".join(f"{name}: {array.dtype.name}" for name, array in given.items())
        if len(kinds) > 1:
            raise TypeError(
                f"{owner}: all arrays of a call must be of one dtype; convert with astype."
                f" Received: {received}"
            )
        known = ", ".join((*FLOATS, *_REAL_OF) if allow_complex else FLOATS)
        raise TypeError(f"{owner}: the arrays must be one of {known}. Received: {received}")
    arranged = backend.arranged
    return backend, *(None if array is None else arranged(array) for array in arrays.values())


@cache  # the name of a dtype takes NumPy longer to say than all other checks
def _kind(dtype: Any, allow_complex: bool) -> str:
    """Return a dtype's name; a complex one's is its parts', where complex arrays are allowed."""
    return _REAL_OF.get(dtype.name, dtype.name) if allow_complex else dtype.name


def as_out_dtype(owner: str, out_dtype: Any, x: Array) -> str | None:
    """Return an ``out_dtype`` by name; None for that of x.

    Raises:
        ValueError: it is neither, nor float32 for an x of 16 bits.
    """
    if out_dtype is None:
        return None
    name = out_dtype if isinstance(out_dtype, str) else getattr(np.dtype(out_dtype), "name", "")
    if name == x.dtype.name:
        return None
    if name != "float32" or x.dtype.name not in _HALVES:
        raise ValueError(
            f"{owner}: out_dtype must be None, the input's, or float32 for one of 16 bits."
            f" Received: out_dtype={name!r} for {x.dtype.name}"
        )
    return name


def narrowed(owner: str, dy: Array, x: Array) -> Array:
    """Return the gradient of an output in float32 in the dtype of an x of 16 bits."""
    if dy.dtype.name != "float32" or x.dtype.name not in _HALVES:
        return dy
    backend = backend_of(owner, dy=dy, x=x)
    return backend.rounded(backend.arranged(dy), x.dtype)


def prepare_statistics(owner: str, x: Array, **statistics: Array) -> tuple[Array, ...]:
    """Return a norm's means and variances arranged; their dtype is the accumulator's of ``x``.

    Raises:
        TypeError: they lie on another device than x or have another dtype.
    """
    backend = backend_of(owner, x=x, **statistics)
    dtype = accumulator(x.dtype)
    for name, array in statistics.items():
        if array.dtype != dtype:
            raise TypeError(
                f"{owner}: {name} must be {dtype.name} for an input of {x.dtype.name}."
                f" Received: {array.dtype.name}"
            )
    return tuple(map(backend.arranged, statistics.values()))


def expect_shape(owner: str, shape: Sequence[int], **arrays: Array | None) -> None:
    """Raise a ValueError unless each array (None entries are left out) has this shape."""
    for name, array in arrays.items():
        if array is not None and array.shape != tuple(shape):
            raise ValueError(
                f"{owner}: {name} must have the shape {tuple(shape)}. Received: {array.shape}"
            )


def prepare_moving(
    owner: str, x: Array, channels: int, moving: tuple[Array, Array] | None
) -> tuple[Array, ...] | None:
    """Return moving statistics as they are, once it is clear that they can be changed in place."""
    if moving is None:
        return None
    given = dict(zip(("moving_mean", "moving_var"), moving, strict=True))
    arranged = prepare_statistics(owner, x, **given)
    expect_shape(owner, (channels,), **given)
    for (name, array), same in zip(given.items(), arranged, strict=True):
        if same is not array:
            raise ValueError(
                f"{owner}: {name} is changed in place and must be C-contiguous."
                f" Received: strides {array.strides}"
            )
    return arranged


def is_channels_last(owner: str, data_format: str) -> bool:
    """Read a ``data_format`` argument."""
    return check_data_format(owner, data_format) == "channels_last"


@lru_cache(maxsize=4096)
def _norm_shape(shape: tuple[int, ...], groups: int, channels_last: bool, owner: str) -> NormShape:
    return NormShape.of(shape, groups=groups, channels_last=channels_last, owner=owner)


def channel_shape(owner: str, x: Array, axis: int, groups: int = 1) -> NormShape:
    """Return how a per-channel operation sees x with its channels on ``axis``, the last or 1."""
    if axis not in (1, -1, x.ndim - 1):
        raise ValueError(
            f"{owner}: axis, where the channels lie, must be -1 or 1."
            f" Received: axis={axis} for an input of shape {x.shape}"
        )
    last = axis in (-1, x.ndim - 1)
    return _norm_shape(x.shape, groups, last, owner)
