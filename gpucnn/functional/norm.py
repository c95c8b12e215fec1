"""Batch, group and layer normalisation, forward and backward.

Statistics (means and variances) are float32, for float64 inputs float64.
"""

from __future__ import annotations

import math

from ..arguments import as_choice
from ..backends.base import FUSED, NORM_FUSED, Array, NormOnLoad
from ..shapes import NormShape, PoolShape
from .checks import channel_shape, expect_shape, prepare, prepare_moving, prepare_statistics
from .unapplied import Unapplied, check_applies


def batch_norm_train(
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    epsilon: float = 1e-3,
    axis: int = -1,
    activation: str = "linear",
    residual: Array | None = None,
    moving: tuple[Array, Array] | None = None,
    momentum: float = 0.99,
    applies: bool = True,
    owner: str = "batch_norm",
) -> tuple[Array | Unapplied, Array, Array]:
    """Normalise each channel by the mean and variance of its own batch.

    y = f(gamma * (x - mean) / sqrt(var + epsilon) + beta + residual) (Ioffe & Szegedy 2015)

    Args:
        x: (N, ..., C), or (N, C, ...) with ``axis=1``.
        gamma, beta: (C,), of x's dtype.
        activation: f, "linear", "relu" or "relu6", in the same pass over y.
        residual: as x, added before f in the same pass, or None.
        moving: a mean and a variance (C,) that follow the batch's, changed in place: each keeps
            ``momentum`` of itself and takes 1 - momentum of the batch's. None for neither.
        applies: where False, y is not written, but an ``Unapplied``, for a convolution to read;
            there is then no residual.

    Returns:
        y: as x; mean (C,) and the biased variance (C,).

    Raises:
        ValueError: gamma, beta or a moving statistic is not (C,), residual not of x's shape, axis
            neither the last nor 1, the activation another one, a moving statistic not
            contiguous, or there is a residual where not ``applies``.
        TypeError: the arrays differ in dtype or device, or are not floating.

    Example:
        >>> x = np.array([[1.0], [3.0]])
        >>> y, mean, var = batch_norm_train(x, np.ones(1), np.zeros(1), epsilon=0.0)
        >>> y.ravel(), mean, var
        (array([-1.,  1.]), array([2.]), array([1.]))
    """
    as_choice(owner, "activation", activation, NORM_FUSED)
    check_applies(owner, applies, residual)
    backend, x, gamma, beta, residual = prepare(
        owner, x=x, gamma=gamma, beta=beta, residual=residual
    )
    shape = channel_shape(owner, x, axis)
    expect_shape(owner, (shape.channels,), gamma=gamma, beta=beta)
    expect_shape(owner, x.shape, residual=residual)
    moving = prepare_moving(owner, x, shape.channels, moving)
    y, mean, var = backend.batch_norm_train(
        x, gamma, beta, epsilon, shape, activation, residual, moving, momentum, applies
    )
    if not applies:
        y = Unapplied(x, NormOnLoad(gamma, beta, mean, var, epsilon, activation))
    return y, mean, var


def batch_norm_pool_train(
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    pool: PoolShape,
    epsilon: float = 1e-3,
    axis: int = -1,
    activation: str = "linear",
    with_index: bool = True,
    moving: tuple[Array, Array] | None = None,
    momentum: float = 0.99,
    owner: str = "batch_norm_pool",
) -> tuple[Array, Array | None, Array, Array]:
    """Return y and the index of ``pool_forward(batch_norm_train(x, ...))``, and mean and var.

    In one pass where there is a kernel for it: on a GPU with channels last. The gradient is that of
    ``pool_backward``, then ``batch_norm_backward``.

    Args:
        x, gamma, beta, epsilon, axis, moving, momentum: as for ``batch_norm_train``.
        pool: the geometry of a maximum (``pool_shape``).
        activation, with_index: as for ``pool_forward``.

    Raises:
        ValueError, TypeError: as both; the pooling is no maximum.
    """
    as_choice(owner, "pool.mode", pool.mode, ("max",))
    as_choice(owner, "activation", activation, FUSED)
    backend, x, gamma, beta = prepare(owner, x=x, gamma=gamma, beta=beta)
    shape = channel_shape(owner, x, axis)
    expect_shape(owner, pool.x_shape, x=x)
    expect_shape(owner, (shape.channels,), gamma=gamma, beta=beta)
    moving = prepare_moving(owner, x, shape.channels, moving)
    return backend.batch_norm_pool_train(
        x, gamma, beta, epsilon, shape, pool, activation, with_index, moving, momentum
    )


def batch_norm_infer(
    x: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-3,
    axis: int = -1,
    activation: str = "linear",
    residual: Array | None = None,
    owner: str = "batch_norm",
) -> Array:
    """Normalise by given statistics, as ``batch_norm_train`` by the batch's own; return y."""
    as_choice(owner, "activation", activation, NORM_FUSED)
    backend, x, gamma, beta, residual = prepare(
        owner, x=x, gamma=gamma, beta=beta, residual=residual
    )
    mean, var = prepare_statistics(owner, x, mean=mean, var=var)
    shape = channel_shape(owner, x, axis)
    expect_shape(owner, (shape.channels,), gamma=gamma, beta=beta, mean=mean, var=var)
    expect_shape(owner, x.shape, residual=residual)
    return backend.batch_norm_infer(x, gamma, beta, mean, var, epsilon, shape, activation, residual)


def batch_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-3,
    training: bool = True,
    axis: int = -1,
    activation: str = "linear",
    beta: Array | None = None,
    y: Array | None = None,
    owner: str = "batch_norm",
) -> tuple[Array, Array, Array, Array | None]:
    """Return dx, dgamma (C,), dbeta (C,) and the gradient of the residual, or None.

    With ``training`` mean and var are the batch's own, functions of x; otherwise constants.

    Args:
        dy, x, gamma, mean, var, epsilon, axis: those of the forward pass, and y's gradient.
        activation: the forward's; all but "linear" want one of ``beta`` and ``y``.
        beta: (C,), where there was no residual: what was let through is worked out again.
        y: the forward's output, where there was one: with it comes the residual's gradient. Behind
            "linear", where neither is read, that is dy itself, and the fourth result None.

    Raises:
        ValueError: an array does not have its shape, or both or neither of beta and y are given to
            a "relu" or "relu6".
        TypeError: the arrays differ in dtype or device, or are not floating.
    """
    as_choice(owner, "activation", activation, NORM_FUSED)
    given = [name for name, array in (("beta", beta), ("y", y)) if array is not None]
    if len(given) != (activation != "linear"):
        raise ValueError(
            f"{owner}: the gradient of relu needs beta or, behind a residual, y; that of linear"
            f" neither. Received: activation={activation!r}, {' and '.join(given) or 'neither'}"
        )
    backend, dy, x, gamma, beta, y = prepare(owner, dy=dy, x=x, gamma=gamma, beta=beta, y=y)
    mean, var = prepare_statistics(owner, x, mean=mean, var=var)
    shape = channel_shape(owner, x, axis)
    expect_shape(owner, x.shape, dy=dy, y=y)
    expect_shape(owner, (shape.channels,), gamma=gamma, beta=beta, mean=mean, var=var)
    return backend.batch_norm_backward(
        dy, x, gamma, mean, var, epsilon, training, shape, activation, beta, y
    )


def group_norm_forward(
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    groups: int = 32,
    epsilon: float = 1e-3,
    axis: int = -1,
    owner: str = "group_norm",
) -> tuple[Array, Array, Array]:
    """Normalise each sample over the positions and channels of each group (Wu & He 2018).

    Args:
        x: (N, ..., C), or (N, C, ...) with ``axis=1``.
        gamma, beta: (C,), of x's dtype.
        groups: a divisor of C; C itself is instance normalisation.

    Returns:
        y: as x; mean (N, groups) and the biased variance (N, groups).

    Raises:
        ValueError: groups does not divide C, gamma or beta is not (C,), or axis is neither the
            last nor 1.
        TypeError: the arrays differ in dtype or device, or are not floating.
    """
    backend, x, gamma, beta = prepare(owner, x=x, gamma=gamma, beta=beta)
    shape = channel_shape(owner, x, axis, groups)
    expect_shape(owner, (shape.channels,), gamma=gamma, beta=beta)
    return backend.group_norm_forward(x, gamma, beta, epsilon, shape)


def group_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    var: Array,
    *,
    groups: int = 32,
    epsilon: float = 1e-3,
    axis: int = -1,
    owner: str = "group_norm",
) -> tuple[Array, Array, Array]:
    """Return dx, dgamma (C,) and dbeta (C,); mean and var are those of the forward."""
    backend, dy, x, gamma = prepare(owner, dy=dy, x=x, gamma=gamma)
    mean, var = prepare_statistics(owner, x, mean=mean, var=var)
    shape = channel_shape(owner, x, axis, groups)
    expect_shape(owner, x.shape, dy=dy)
    expect_shape(owner, (shape.channels,), gamma=gamma)
    expect_shape(owner, (shape.batch, shape.groups), mean=mean, var=var)
    return backend.group_norm_backward(dy, x, gamma, mean, var, epsilon, shape)


def layer_norm_forward(
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    epsilon: float = 1e-3,
    owner: str = "layer_norm",
) -> tuple[Array, Array, Array]:
    """Normalise over the last axes, as many as gamma has (Ba et al. 2016).

    Args:
        x: (..., *gamma.shape).
        gamma, beta: of the shape of the axes that are normalised, and x's dtype.

    Returns:
        y: as x; mean (rows, 1) and the biased variance (rows, 1), one for each normalised row.

    Raises:
        ValueError: gamma and beta do not have the shape of x's last axes.
        TypeError: the arrays differ in dtype or device, or are not floating.

    Example:
        >>> x = np.array([[1.0, 3.0]])
        >>> layer_norm_forward(x, np.ones(2), np.zeros(2), epsilon=0.0)[0]
        array([[-1.,  1.]])
    """
    backend, x, gamma, beta = prepare(owner, x=x, gamma=gamma, beta=beta)
    shape = _row_shape(owner, x, gamma)
    expect_shape(owner, gamma.shape, beta=beta)
    # A row is a sample of one position with all its elements as channels: (rows, 1, C).
    y, mean, var = backend.group_norm_forward(
        x.reshape(shape.axes), gamma.ravel(), beta.ravel(), epsilon, shape
    )
    return y.reshape(x.shape), mean, var


def layer_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-3,
    owner: str = "layer_norm",
) -> tuple[Array, Array, Array]:
    """Return dx (as x), dgamma and dbeta (as gamma); mean and var are those of the forward."""
    backend, dy, x, gamma = prepare(owner, dy=dy, x=x, gamma=gamma)
    mean, var = prepare_statistics(owner, x, mean=mean, var=var)
    shape = _row_shape(owner, x, gamma)
    expect_shape(owner, x.shape, dy=dy)
    expect_shape(owner, (shape.batch, 1), mean=mean, var=var)
    dx, dgamma, dbeta = backend.group_norm_backward(
        dy.reshape(shape.axes), x.reshape(shape.axes), gamma.ravel(), mean, var, epsilon, shape
    )
    return dx.reshape(x.shape), dgamma.reshape(gamma.shape), dbeta.reshape(gamma.shape)


def _row_shape(owner: str, x: Array, gamma: Array) -> NormShape:
    first = x.ndim - gamma.ndim
    if gamma.ndim < 1 or first < 1 or x.shape[first:] != gamma.shape:
        raise ValueError(
            f"{owner}: gamma must have the shape of the last axes of the input, {x.shape}."
            f" Received: gamma of shape {gamma.shape}"
        )
    return NormShape.of((math.prod(x.shape[:first]), 1, gamma.size), owner=owner)
