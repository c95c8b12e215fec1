"""Numbers that change from step to step: a dropout's call, the learning rate.

A training step that is recorded once and replayed has every argument of its kernels fixed. What
must differ from one step to the next lies in device memory instead, and is asked for anew before
every replay:

    call = varying(self._next_call, np.int64)

With nobody recording that is ``np.int64(self._next_call())``, a number by value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

# Given the function and the dtype, returns where its number lies: a 0-d array on the device.
Keeper = Callable[[Callable[[], float], np.dtype], Any]

_keeper: ContextVar[Keeper | None] = ContextVar("gpucnn_varying", default=None)


def varying(number: Callable[[], float], dtype: Any) -> Any:
    """Return ``number()`` in a dtype; while a step is recorded, the 0-d array that will hold it.

    The function is called once for each step, recorded or not, and may count its calls.
    """
    keeper = _keeper.get()
    dtype = np.dtype(dtype)
    return dtype.type(number()) if keeper is None else keeper(number, dtype)


@contextmanager
def kept_by(keeper: Keeper) -> Iterator[None]:
    """Hand the numbers that are asked for in the body to a keeper."""
    token = _keeper.set(keeper)
    try:
        yield
    finally:
        _keeper.reset(token)
