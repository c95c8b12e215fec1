"""NVTX ranges for Nsight Systems, named by layer; free when off.

On when a program runs under ``nsys`` (which sets ``NVTX_INJECTION64_PATH``), when ``GPUCNN_NVTX``
is 1, or after ``enable()``. Needs the package ``nvtx`` (extra "profile"); the ranges appear in the
domain "gpucnn".
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_OFF = nullcontext()
_annotate: Any = None


def enable(on: bool = True) -> None:
    """Switch the ranges on or off.

    Raises:
        ModuleNotFoundError: the package nvtx is not installed.
    """
    global _annotate
    if not on:
        _annotate = None
        return
    try:
        import nvtx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'NVTX ranges need the package nvtx: pip install "gpucnn[profile]"'
        ) from error
    _annotate = nvtx.annotate


def nvtx_range(*names: str) -> AbstractContextManager:
    """Return a context manager that marks a range called by the names, joined by dots."""
    if _annotate is None:
        return _OFF
    return _annotate(".".join(names), domain="gpucnn")


if os.environ.get("GPUCNN_NVTX", "0") == "1" or "NVTX_INJECTION64_PATH" in os.environ:
    enable()
