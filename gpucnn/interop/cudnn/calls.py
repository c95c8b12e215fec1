"""What all functions of the drop-in have in common: their arrays, and how they refuse a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ...backends.base import Array, Backend
from ...functional.checks import prepare

Sizes = int | Sequence[int]

DTYPES = ("float16", "float32", "float64")

# cudnnStatus_t of cuDNN 8, in the order of its numbers
_STATUS = (
    "SUCCESS", "NOT_INITIALIZED", "ALLOC_FAILED", "BAD_PARAM", "INTERNAL_ERROR", "INVALID_VALUE",
    "ARCH_MISMATCH", "MAPPING_ERROR", "EXECUTION_FAILED", "NOT_SUPPORTED", "LICENSE_ERROR",
    "RUNTIME_PREREQUISITE_MISSING", "RUNTIME_IN_PROGRESS", "RUNTIME_FP_OVERFLOW",
    "VERSION_MISMATCH",
)  # fmt: skip
_BAD_PARAM = _STATUS.index("BAD_PARAM")


class CuDNNError(RuntimeError):
    """A call that cuDNN refused.

    Args:
        status: a number of cuDNN's, kept as the attribute of this name.

    Example:
        >>> print(CuDNNError(3))
        cuDNN Error: CUDNN_STATUS_BAD_PARAM
    """

    def __init__(self, status: int) -> None:
        self.status = status
        name = _STATUS[status] if 0 <= status < len(_STATUS) else f"{status}, which is unknown"
        super().__init__(f"cuDNN Error: CUDNN_STATUS_{name}")
        self._infos: list[str] = []

    def add_info(self, info: str) -> None:
        self._infos.append(info)

    def add_infos(self, infos: list[str]) -> None:
        self._infos.extend(infos)

    def __str__(self) -> str:
        return "\n  ".join((super().__str__(), *self._infos))

    def __reduce__(self) -> tuple[type, tuple[int], dict[str, Any]]:
        return CuDNNError, (self.status,), self.__dict__


class BadParameter(CuDNNError, ValueError):
    """A shape or a value that does not fit: CUDNN_STATUS_BAD_PARAM, and lines that say what would.

    A program for CuPy catches it as ``CuDNNError``, everybody else as ``ValueError``.
    """

    def __init__(self, *infos: str) -> None:
        super().__init__(_BAD_PARAM)
        self.add_infos(list(infos))

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return BadParameter, tuple(self._infos)


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of the drop-in out of one that raises what ``gpucnn.functional`` does.

    A ValueError becomes a ``BadParameter``. A call whose arguments are not those of the signature
    (programs that were written after cuDNN's C functions, say) ends in a TypeError that quotes it.
    """
    signature = inspect.signature(function)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    order = f"{function.__name__}{inspect.Signature(plain)}"

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except ValueError as error:
            given = signature.bind(*arguments, **keywords).arguments.items()
            arrays = [f"{name} {a.dtype} {a.shape}" for name, a in given if hasattr(a, "dtype")]
            raise BadParameter(", ".join(arrays), str(error)) from error
        except (AttributeError, TypeError) as error:
            misfit = _misfit(signature, arguments, keywords)
            if misfit is None:
                raise
            raise TypeError(f"cudnn.{order} is how it is called. Received: {misfit}") from error

    return call


def _misfit(signature: inspect.Signature, arguments: tuple, keywords: dict) -> str | None:
    """Return what is wrong with a call's arguments, whatever their dtypes and shapes."""
    try:
        bound = signature.bind(*arguments, **keywords)
    except TypeError as error:
        return f"{len(arguments)} positional arguments and {sorted(keywords)}; {error}"
    for name, value in bound.arguments.items():
        optional = "None" in signature.parameters[name].annotation
        wanted = signature.parameters[name].annotation.startswith("Array")
        if wanted and not hasattr(value, "dtype") and not (optional and value is None):
            return f"{name}={value!r}, which is no array"
    return None


def checked(owner: str, **arrays: Array | None) -> tuple[Any, ...]:
    """Return (backend, *arrays) as ``prepare`` does, of arrays in a dtype that cuDNN took."""
    given = next(array for array in arrays.values() if array is not None)
    if given.dtype.name not in DTYPES:
        raise TypeError(
            f"{owner}: the arrays must be one of {', '.join(DTYPES)}. Received: {given.dtype}"
        )
    return prepare(owner, **arrays)


def check_output(owner: str, **outputs: Array) -> None:
    """Raise a ValueError unless the arrays that a call fills are C-contiguous, as CuPy wants it."""
    for name, array in outputs.items():
        if not array.flags.c_contiguous:
            raise ValueError(
                f"{owner}: {name}, which is written to, must be C-contiguous. Received: shape"
                f" {array.shape}, strides {array.strides}"
            )


def contiguous(backend: Backend, array: Array) -> Array:
    """Return a result C-contiguous: a program may hand its address to a kernel of its own."""
    return array if array.flags.c_contiguous else backend.xp.ascontiguousarray(array)
