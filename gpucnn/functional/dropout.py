"""Dropout (Srivastava et al. 2014) from counter-based random numbers."""

from __future__ import annotations

import numpy as np

from ..arguments import as_int, as_number
from ..backends.base import Array
from .checks import prepare


def dropout_forward(
    x: Array, rate: float, *, seed: int, offset: int | Array = 0, owner: str = "dropout"
) -> Array:
    """Zero each element with probability ``rate`` and scale the others by 1 / (1 - rate).

    The mask is a function of (seed, offset, position) alone (Philox4x32-10, Salmon et al. 2011):
    it is not stored, and it is the same on every backend.

    Args:
        x: any shape.
        rate: in [0, 1).
        seed: 64 bits. offset: 64 bits; count it up at each call for fresh numbers. It may lie on
            the device, a 0-d array of int64, whose value counts when the mask is drawn.

    Returns:
        y: as x.
    """
    rate = as_number(owner, "rate", rate, least=0, below=1)
    seed = as_int(owner, "seed", seed, minimum=0)
    backend, x = prepare(owner, x=x)
    if not (backend.owns(offset) and offset.shape == () and offset.dtype == np.int64):
        offset = as_int(owner, "offset", offset, minimum=0)
    return backend.dropout(x, rate, seed, offset)


def dropout_backward(
    dy: Array, rate: float, *, seed: int, offset: int | Array = 0, owner: str = "dropout"
) -> Array:
    """Return dx: dy under the forward's mask and scale, drawn again from seed and offset."""
    return dropout_forward(dy, rate, seed=seed, offset=offset, owner=owner)
