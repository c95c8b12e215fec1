"""A convolution and the batch norm behind it as one operation."""

from __future__ import annotations

from typing import Any

from ..arguments import as_choice
from ..backends.base import MATH, NORM_FUSED, Array, NormOnLoad
from ..shapes import ConvShape, PoolShape
from .checks import expect_shape, prepare, prepare_moving, prepare_statistics
from .conv import conv_shape
from .unapplied import Unapplied, check_applies, prepare_on_load, taken_apart


def conv_norm_infer(
    x: Array,
    w: Array,
    b: Array | None,
    gamma: Array,
    beta: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-3,
    activation: str = "linear",
    math: str = "strict",
    owner: str = "conv_norm",
    shape: ConvShape | None = None,
    pool: PoolShape | None = None,
    **geometry: Any,
) -> Array:
    """Return ``batch_norm_infer(conv_forward(x, w, b), ...)``, in one pass where that pays.

    With ``pool``, the maxima or other pooling of that.

    Args:
        x, w, b, math, shape: as for ``conv_forward``, but real; so is ``geometry``.
        gamma, beta, mean, var, epsilon: as for ``batch_norm_infer``; (K,).
        activation: "linear", "relu" or "relu6".
        pool: the geometry of a pooling behind all of that (``pool_shape``).

    Raises:
        ValueError: a shape does not fit; the message says what would.
        TypeError: the arrays differ in dtype or device, or are not floating.

    Example:
        >>> x, w, one = np.full((1, 2, 1), 7.0), np.ones((1, 1, 1)), np.ones(1)
        >>> conv_norm_infer(x, w, None, one, one, one, 4 * one, epsilon=0).ravel()  # (7-1) / 2 + 1
        array([4., 4.])
    """
    as_choice(owner, "activation", activation, NORM_FUSED)
    as_choice(owner, "math", math, MATH)
    backend, x, w, b, gamma, beta = prepare(owner, x=x, w=w, b=b, gamma=gamma, beta=beta)
    mean, var = prepare_statistics(owner, x, mean=mean, var=var)
    shape = shape or conv_shape(x.shape, w.shape, owner=owner, **geometry)
    if pool is not None and pool.x_shape != shape.y_shape:
        raise ValueError(
            f"{owner}: pool must be of an input of shape {shape.y_shape}."
            f" Received: one of shape {pool.x_shape}"
        )
    expect_shape(owner, shape.x_shape, x=x)
    expect_shape(owner, shape.w_shape, w=w)
    expect_shape(owner, (shape.filters,), b=b, gamma=gamma, beta=beta, mean=mean, var=var)
    return backend.conv_norm_infer(
        x, w, b, shape, gamma, beta, mean, var, epsilon, activation, math, pool
    )


def conv_norm_train(
    x: Array | Unapplied,
    w: Array,
    b: Array | None,
    gamma: Array,
    beta: Array,
    *,
    epsilon: float = 1e-3,
    activation: str = "linear",
    residual: Array | None = None,
    moving: tuple[Array, Array] | None = None,
    momentum: float = 0.99,
    applies: bool = True,
    math: str = "strict",
    owner: str = "conv_norm",
    shape: ConvShape | None = None,
    **geometry: Any,
) -> tuple[Array, Array | Unapplied, Array, Array]:
    """Return y = ``conv_forward(x, w, b)``, and z, mean, var = ``batch_norm_train(y, ...)``.

    The convolution may leave what mean and variance are made of, so that y is read once less.

    Args:
        x, w, b, math, shape: as for ``conv_forward``, but real; so is ``geometry``.
        gamma, beta, epsilon, activation, residual, moving, momentum, applies: as for
            ``batch_norm_train``.

    Returns:
        y, z: (N, P, Q, K), or (N, K, P, Q); mean (K,) and the biased variance (K,).

    Raises:
        ValueError: a shape does not fit; the message says what would.
        TypeError: the arrays differ in dtype or device, or are not floating.

    Example:
        >>> x, w, one = np.array([[[1.0], [3.0]]]), np.ones((1, 1, 1)), np.ones(1)
        >>> y, z, mean, var = conv_norm_train(x, w, None, one, 0 * one, epsilon=0)
        >>> z.ravel(), mean, var
        (array([-1.,  1.]), array([2.]), array([1.]))
    """
    as_choice(owner, "activation", activation, NORM_FUSED)
    as_choice(owner, "math", math, MATH)
    check_applies(owner, applies, residual)
    x, on_load = taken_apart(x)
    backend, x, w, b, gamma, beta, residual = prepare(
        owner, x=x, w=w, b=b, gamma=gamma, beta=beta, residual=residual
    )
    shape = shape or conv_shape(x.shape, w.shape, owner=owner, **geometry)
    expect_shape(owner, shape.x_shape, x=x)
    expect_shape(owner, shape.w_shape, w=w)
    expect_shape(owner, (shape.filters,), b=b, gamma=gamma, beta=beta)
    expect_shape(owner, shape.y_shape, residual=residual)
    moving = prepare_moving(owner, x, shape.filters, moving)
    on_load = prepare_on_load(owner, x, on_load, shape)
    y, z, mean, var = backend.conv_norm_train(
        x, w, b, shape, gamma, beta, epsilon, activation, residual, moving, momentum, math,
        on_load, applies,
    )  # fmt: skip
    if not applies:
        z = Unapplied(y, NormOnLoad(gamma, beta, mean, var, epsilon, activation))
    return y, z, mean, var
