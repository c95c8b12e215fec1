"""Who looks on while a network runs: NVTX for Nsight Systems, or ``gpucnn.profile``; mostly nobody.

Every layer, or stage of a plan, runs through ``traced``, and so does what else a training step
consists of. With nobody looking on that is one more call.

NVTX ranges are on when a program runs under ``nsys`` (which sets ``NVTX_INJECTION64_PATH``), when
``GPUCNN_NVTX`` is 1, or after ``enable()``. They need the package ``nvtx`` (extra "profile") and
appear in the domain "gpucnn".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .extras import package

# Called with what ``traced`` was given, calls the function with the arguments, returns its result.
Observer = Callable[[Any, str, Callable[..., Any], tuple], Any]

_observer: Observer | None = None


def traced(subject: Any, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, run under the eyes of the observer, if there is one.

    Args:
        subject: the layer or the plan's stage that runs; None for another part of a step.
        what: "forward" or "backward"; the part's name where there is no subject.
    """
    if _observer is None:
        return function(*arguments)
    return _observer(subject, what, function, arguments)


def is_observed() -> bool:
    return _observer is not None


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let an observer look on inside the body, in place of NVTX."""
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


def enable(on: bool = True) -> None:
    """Switch the NVTX ranges on or off.

    Raises:
        ModuleNotFoundError: the package nvtx is not installed.
    """
    global _observer
    if not on:
        _observer = None
        return
    annotate = package("nvtx", "profile", "NVTX ranges need").annotate

    def annotated(subject: Any, what: str, function: Callable[..., Any], arguments: tuple) -> Any:
        name = what if subject is None else f"{subject.name}.{what}"
        with annotate(name, domain="gpucnn"):
            return function(*arguments)

    _observer = annotated


if os.environ.get("GPUCNN_NVTX", "0") == "1" or "NVTX_INJECTION64_PATH" in os.environ:
    enable()
