"""Local response normalisation, of AlexNet and its time."""

from __future__ import annotations

from ..arguments import as_int
from ..backends import backend_of
from ..backends.base import Array, accumulator
from .checks import expect_shape


def local_response_norm_forward(
    x: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0,
    axis: int = -1, owner: str = "local_response_norm",
) -> tuple[Array, Array]:  # fmt: skip
    """Divide each number by a power of the squares of its neighbours in other channels.

    y = x / d^beta, d[c] = bias + alpha / size * sum of x[k]^2 over the ``size`` channels k from
    c - (size - 1) // 2 on.

    Args:
        x: (N, ..., C), or (N, C, ...) with ``axis=1``.

    Returns:
        y: as x, and d in the accumulator's dtype, for the way back.

    Source: Krizhevsky et al. 2012, section 3.3, in the form of PyTorch and ONNX.

    Example:
        >>> local_response_norm_forward(np.ones((1, 3)), 3, alpha=3.0, beta=1.0)[0]
        array([[0.33333333, 0.25      , 0.33333333]])
    """
    size = as_int(owner, "size", size)
    backend_of(owner, x=x)
    wide = x.astype(accumulator(x.dtype), copy=False)
    d = bias + alpha / size * _windows(wide * wide, size, (size - 1) // 2, axis)
    return (wide * d**-beta).astype(x.dtype, copy=False), d


def local_response_norm_backward(
    dy: Array, x: Array, d: Array, size: int, *, alpha: float = 1e-4, beta: float = 0.75,
    axis: int = -1, owner: str = "local_response_norm",
) -> Array:  # fmt: skip
    """Return dx = dy d^-beta - 2 alpha beta / size * x * sum of dy x d^(-beta - 1) over windows."""
    backend_of(owner, dy=dy, x=x, d=d)
    expect_shape(owner, x.shape, dy=dy, d=d)
    wide_dy, wide_x = dy.astype(d.dtype, copy=False), x.astype(d.dtype, copy=False)
    shares = wide_dy * wide_x * d ** (-beta - 1)
    # Channel k is in the windows of the channels from k - size // 2 on: the mirrored window.
    others = _windows(shares, size, size // 2, axis)
    dx = wide_dy * d**-beta - 2 * alpha * beta / size * wide_x * others
    return dx.astype(x.dtype, copy=False)


def _windows(x: Array, size: int, before: int, axis: int) -> Array:
    """Sum over ``size`` channels from ``before`` in front of each one on."""
    channels, axis = x.shape[axis], axis % x.ndim
    total = x.copy()
    head = (slice(None),) * axis
    for step in range(-before, size - before):
        if step and abs(step) < channels:
            here = slice(max(-step, 0), channels - max(step, 0))
            there = slice(max(step, 0), channels + min(step, 0))
            total[(*head, here)] += x[(*head, there)]
    return total
