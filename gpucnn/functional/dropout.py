"""Dropout (Srivastava et al. 2014) from counter-based random numbers."""

from __future__ import annotations

import numpy as np

from ..arguments import as_int, as_number
from ..backends.base import Array, Backend
from .activation import check_elementwise
from .checks import prepare
from .mask import Mask, has_mask


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
    backend, x = prepare(owner, x=x)
    return backend.dropout(x, *_draws(owner, backend, rate, seed, offset))


def dropout_forward_masked(
    x: Array, kind: str, rate: float, *, alpha: float | None = None, seed: int,
    offset: int | Array = 0, owner: str = "dropout",
) -> tuple[Array, Mask]:  # fmt: skip
    """Return y = ``dropout_forward`` of an activation's output x, and one mask for both.

    ``activation_backward`` of dy and the mask is the way back through both: nothing is drawn again,
    and x need not be kept.

    Args:
        kind, alpha: of the activation that made x, "relu", "relu6" or "clipped_relu".

    Raises:
        ValueError: another activation.

    Example:
        >>> x = np.array([0.0, 1.0, 2.0, 3.0])
        >>> y, mask = dropout_forward_masked(x, "relu", 0.5, seed=1)
        >>> np.array_equal(activation_backward(np.ones(4), mask), 2 * (y > 0))
        True
    """
    backend, x = prepare(owner, x=x)
    kind, number = check_elementwise(owner, kind, alpha, x)
    if not drops_with_mask(kind):
        raise ValueError(
            f"{owner}: what has one mask with a dropout is relu, relu6 or clipped_relu."
            f" Received: {kind!r}"
        )
    rate, seed, offset = _draws(owner, backend, rate, seed, offset)
    y, bits = backend.dropout_masked(x, kind, number, rate, seed, offset)
    return y, Mask.of(y, bits, 0.0, 1 / (1 - rate))


def drops_with_mask(kind: str) -> bool:
    """Return whether an activation and the dropout behind it can have one mask.

    Its slope below zero must be the dropout's factor of what falls: zero.
    """
    return has_mask(kind) and kind != "leaky_relu"


def _draws(
    owner: str, backend: Backend, rate: float, seed: int, offset: int | Array
) -> tuple[float, int, int | Array]:
    rate = as_number(owner, "rate", rate, least=0, below=1)
    seed = as_int(owner, "seed", seed, minimum=0)
    if not (backend.owns(offset) and offset.shape == () and offset.dtype == np.int64):
        offset = as_int(owner, "offset", offset, minimum=0)
    return rate, seed, offset


def dropout_backward(
    dy: Array, rate: float, *, seed: int, offset: int | Array = 0, owner: str = "dropout"
) -> Array:
    """Return dx: dy under the forward's mask and scale, drawn again from seed and offset."""
    return dropout_forward(dy, rate, seed=seed, offset=offset, owner=owner)
