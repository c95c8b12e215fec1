"""The product of two arrays of matrices, neither of them a parameter."""

from __future__ import annotations

import numpy as np

from ..backends import backend_of
from ..backends.base import Array, accumulator
from .checks import expect_shape
from .directions import conjugate
from .elementwise import summed_to


def matmul_forward(a: Array, b: Array, *, owner: str = "matmul") -> Array:
    """Return a @ b over the last two axes, the others broadcast as NumPy's ``matmul`` does.

    Args:
        a: (..., M, K), or (K,).
        b: (..., K, N), or (K,).

    Returns:
        y: (..., M, N), in the dtype of a and b; 16-bit sums are carried in float32.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> matmul_forward(np.ones((2, 3)), np.ones((3, 1)))
        array([[3.],
               [3.]])
    """
    xp = backend_of(owner, a=a, b=b).xp
    if a.dtype.kind in "iub":
        return xp.matmul(a, b)
    wide = accumulator(a.dtype)
    return xp.matmul(a.astype(wide, copy=False), b.astype(wide, copy=False)).astype(
        a.dtype, copy=False
    )


def matmul_backward(dy: Array, a: Array, b: Array, *, owner: str = "matmul") -> tuple[Array, Array]:
    """Return da = dy @ b^H and db = a^H @ dy, for a and b of two axes or more."""
    xp = backend_of(owner, dy=dy, a=a, b=b).xp
    front = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    expect_shape(owner, (*front, a.shape[-2], b.shape[-1]), dy=dy)
    da = matmul_forward(dy, xp.swapaxes(conjugate(b), -1, -2), owner=owner)
    db = matmul_forward(xp.swapaxes(conjugate(a), -1, -2), dy, owner=owner)
    return summed_to(a.shape, da), summed_to(b.shape, db)
