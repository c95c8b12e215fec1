"""Batch normalisation, in cuDNN's three modes.

SPATIAL and SPATIAL_PERSISTENT, which are one here, take their statistics over each channel,
PER_ACTIVATION over the batch alone. With ``is_for_conv2d`` x is (N, C, H, W), or (N, H, W, C)
with ``d_layout=CUDNN_TENSOR_NHWC``; without, x is taken as rows of its last axis, each place of
which is a channel. Parameters and statistics have one number a channel (PER_ACTIVATION: a place of
a sample), in any shape that holds as many.

For x in float16 parameters and statistics are float32, else of x's dtype; others are converted,
and the gradients of such parameters have x's dtype.
"""

from __future__ import annotations

from typing import Any

from ...arguments import as_choice, as_number
from ...backends.base import Array, Backend, accumulator
from ...functional import batch_norm_backward, batch_norm_infer, batch_norm_train
from ...functional.checks import expect_shape
from .calls import checked, contiguous, entry
from .constants import (
    CUDNN_BATCHNORM_PER_ACTIVATION,
    CUDNN_BATCHNORM_SPATIAL,
    CUDNN_BATCHNORM_SPATIAL_PERSISTENT,
    CUDNN_TENSOR_NCHW,
    CUDNN_TENSOR_NHWC,
)

_MODES = (
    CUDNN_BATCHNORM_PER_ACTIVATION,
    CUDNN_BATCHNORM_SPATIAL,
    CUDNN_BATCHNORM_SPATIAL_PERSISTENT,
)


@entry
def batch_normalization_forward_training(
    x: Array, gamma: Array, beta: Array, running_mean: Array | None, running_var: Array | None,
    mean: Array | None, inv_std: Array | None, eps: float, decay: float, is_for_conv2d: bool,
    cudnn_mode: int, debug: bool, d_layout: int = CUDNN_TENSOR_NCHW,
) -> Array | tuple[Array, Array, Array]:  # fmt: skip
    """Normalise by the batch's own statistics: y = gamma * (x - mean) * inv_std + beta.

    Args:
        x: float16, float32 or float64, any strides.
        gamma, beta: a number for each channel.
        running_mean, running_var: updated in place, running = decay * running + (1 - decay) * new,
            where the new variance is the unbiased one, m / (m - 1) times that of m values; or None.
        mean, inv_std: None; or arrays that are filled with the batch's mean and
            1 / sqrt(variance + eps).
        eps: not negative.
        is_for_conv2d, cudnn_mode, d_layout: which numbers share their statistics.
        debug: either; CuPy looked for an overflow in cuDNN's persistent mode.

    Returns:
        y as x; and mean and inv_std, of gamma's shape, where they were None.

    Raises:
        BadParameter: a shape or a value does not fit, or one of mean and inv_std is None.
        TypeError: the arguments are not these, the arrays lie on different devices, or x has
            another dtype.

    Example:
        >>> x, ones, zeros = np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1)
        >>> running_var = np.ones(1)
        >>> y, mean, inv_std = batch_normalization_forward_training(
        ...     x, ones, zeros, np.zeros(1), running_var, None, None, 0.0, 0.9, False, 0, False
        ... )
        >>> y.ravel(), mean, running_var
        (array([-1.,  1.]), array([2.]), array([1.1]))
    """
    owner = "cudnn.batch_normalization_forward_training"
    y, *statistics = _train(
        owner, x, gamma, beta, running_mean, running_var, mean, inv_std, eps, decay,
        is_for_conv2d, cudnn_mode, d_layout,
    )  # fmt: skip
    return y if mean is not None else (y, *statistics)


@entry
def batch_normalization_forward_training_ex(
    x: Array, gamma: Array, beta: Array, running_mean: Array | None, running_var: Array | None,
    mean: Array | None, inv_std: Array | None, eps: float, decay: float, is_for_conv2d: bool,
    cudnn_mode: int, debug: bool, d_layout: int = CUDNN_TENSOR_NCHW,
) -> tuple[Any, ...]:  # fmt: skip
    """As ``batch_normalization_forward_training``, with a reserve space in front of the results.

    It is what cuDNN wanted handed on to the backward pass. Here that needs none, and it is None.
    """
    owner = "cudnn.batch_normalization_forward_training_ex"
    y, *statistics = _train(
        owner, x, gamma, beta, running_mean, running_var, mean, inv_std, eps, decay,
        is_for_conv2d, cudnn_mode, d_layout,
    )  # fmt: skip
    return (None, y) if mean is not None else (None, y, *statistics)


def _train(
    owner: str, x: Array, gamma: Array, beta: Array, running_mean: Array | None,
    running_var: Array | None, mean: Array | None, inv_std: Array | None, eps: float,
    decay: float, is_for_conv2d: bool, cudnn_mode: int, d_layout: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return y, mean and inv_std, the last two those of the caller where given."""
    if (mean is None) != (inv_std is None):
        given = "inv_std" if mean is None else "mean"
        raise ValueError(f"{owner}: mean and inv_std are given both or none. Received: {given}")
    eps = as_number(owner, "eps", eps, least=0)
    statistics = {"running_mean": running_mean, "running_var": running_var}
    for name, array in {**statistics, "mean": mean, "inv_std": inv_std}.items():
        if array is not None and (array.size, array.dtype.kind) != (gamma.size, "f"):
            raise ValueError(
                f"{owner}: {name} must hold {gamma.size} floating numbers, as many as gamma."
                f" Received: {array.dtype} of shape {array.shape}"
            )
    backend, rows, axis = _rows(owner, x, is_for_conv2d, cudnn_mode, d_layout)
    rows, factor, term = _together(rows, gamma, beta)
    y, centre, var = batch_norm_train(rows, factor, term, epsilon=eps, axis=axis, owner=owner)
    count = rows.size // max(1, centre.size)
    unbiased = var * (count / max(count - 1, 1))
    for running, new in ((running_mean, centre), (running_var, unbiased)):
        if running is not None:
            running += (1 - float(decay)) * (new.reshape(running.shape) - running)
    y, inverse = _as_given(backend, y, x), (var + eps) ** -0.5
    if mean is None:
        return y, centre.reshape(gamma.shape), inverse.reshape(gamma.shape)
    mean[...], inv_std[...] = centre.reshape(mean.shape), inverse.reshape(inv_std.shape)
    return y, mean, inv_std


@entry
def batch_normalization_forward_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float,
    is_for_conv2d: bool, cudnn_mode: int, d_layout: int = CUDNN_TENSOR_NCHW,
) -> Array:  # fmt: skip
    """Normalise by given statistics: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    The arguments and errors are those of ``batch_normalization_forward_training``.
    """
    owner = "cudnn.batch_normalization_forward_inference"
    eps = as_number(owner, "eps", eps, least=0)
    backend, rows, axis = _rows(owner, x, is_for_conv2d, cudnn_mode, d_layout)
    rows, gamma, beta = _together(rows, gamma, beta)
    y = batch_norm_infer(
        rows, gamma, beta, *_statistics(x, mean, var), epsilon=eps, axis=axis, owner=owner
    )
    return _as_given(backend, y, x)


@entry
def batch_normalization_backward(
    x: Array, gamma: Array, gy: Array, mean: Array, inv_std: Array, eps: float,
    is_for_conv2d: bool, cudnn_mode: int, debug: bool, d_layout: int = CUDNN_TENSOR_NCHW,
    *, reserve_space: Any = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return the gradients gx (as x), ggamma and gbeta (as gamma) of a training's forward pass.

    mean and inv_std are those that it gave; eps is in inv_std already, and ``reserve_space`` is not
    read. The other arguments and the errors are those of ``batch_normalization_forward_training``.
    """
    owner = "cudnn.batch_normalization_backward"
    backend, rows, axis = _rows(owner, x, is_for_conv2d, cudnn_mode, d_layout)
    expect_shape(owner, x.shape, gy=gy)
    _, slopes, _ = _rows(owner, gy, is_for_conv2d, cudnn_mode, d_layout)
    rows, factor = _together(rows, gamma)
    mean, inv_std = _statistics(x, mean, inv_std)
    gx, ggamma, gbeta, _ = batch_norm_backward(
        slopes.astype(rows.dtype, copy=False),
        rows,
        factor,
        mean,
        1 / (inv_std * inv_std),  # variance + eps
        epsilon=0.0,
        axis=axis,
        owner=owner,
    )
    return _as_given(backend, gx, x), ggamma.reshape(gamma.shape), gbeta.reshape(gamma.shape)


def _rows(
    owner: str, x: Array, is_for_conv2d: bool, cudnn_mode: int, d_layout: int
) -> tuple[Backend, Array, int]:
    """Return x so that each place of one axis is a channel, and that axis."""
    as_choice(owner, "cudnn_mode", cudnn_mode, _MODES)
    as_choice(owner, "d_layout", d_layout, (CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC))
    backend, x = checked(owner, x=x)
    if not is_for_conv2d:
        if x.ndim < 1:
            raise ValueError(f"{owner}: x must have an axis. Received: x of shape {x.shape}")
        return backend, x.reshape(-1, x.shape[-1]), -1
    last = d_layout == CUDNN_TENSOR_NHWC
    if x.ndim not in ((4,) if last else (3, 4, 5)):
        raise ValueError(
            f"{owner}: x must have {'4 axes in NHWC' if last else '3 to 5 axes'} with"
            f" is_for_conv2d. Received: x of shape {x.shape}"
        )
    if cudnn_mode == CUDNN_BATCHNORM_PER_ACTIVATION:
        return backend, x.reshape(len(x), -1), -1
    return backend, x, -1 if last else 1


def _together(rows: Array, *parameters: Array) -> tuple[Array, ...]:
    """Return x and flat parameters in one dtype.

    float16 throughout is one; beside wider parameters x is widened, as their digits count.
    """
    narrow = all(parameter.dtype == rows.dtype for parameter in parameters)
    dtype = rows.dtype if narrow else accumulator(rows.dtype)
    flat = (parameter.reshape(-1).astype(dtype, copy=False) for parameter in parameters)
    return rows.astype(dtype, copy=False), *flat


def _statistics(x: Array, *statistics: Array) -> tuple[Array, ...]:
    """Return statistics flat, in the dtype in which they are kept."""
    dtype = accumulator(x.dtype)
    return tuple(value.reshape(-1).astype(dtype, copy=False) for value in statistics)


def _as_given(backend: Backend, result: Array, x: Array) -> Array:
    return contiguous(backend, result.reshape(x.shape).astype(x.dtype, copy=False))
