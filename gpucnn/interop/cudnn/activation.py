"""Activations and softmax."""

from __future__ import annotations

from ... import functional
from ...arguments import as_choice
from ...backends.base import Array
from ...functional.checks import expect_shape
from .calls import checked, contiguous, entry
from .constants import (
    CUDNN_ACTIVATION_CLIPPED_RELU,
    CUDNN_ACTIVATION_ELU,
    CUDNN_ACTIVATION_RELU,
    CUDNN_ACTIVATION_SIGMOID,
    CUDNN_ACTIVATION_TANH,
    CUDNN_SOFTMAX_ACCURATE,
    CUDNN_SOFTMAX_FAST,
    CUDNN_SOFTMAX_LOG,
)

# Of all these the derivative is a function of the output.
_KINDS = {
    CUDNN_ACTIVATION_SIGMOID: "sigmoid",
    CUDNN_ACTIVATION_RELU: "relu",
    CUDNN_ACTIVATION_TANH: "tanh",
    CUDNN_ACTIVATION_CLIPPED_RELU: "clipped_relu",
    CUDNN_ACTIVATION_ELU: "elu",
}
_WITH_COEF = (CUDNN_ACTIVATION_CLIPPED_RELU, CUDNN_ACTIVATION_ELU)
_ALGORITHMS = (CUDNN_SOFTMAX_FAST, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_LOG)


@entry
def activation_forward(x: Array, mode: int, coef: float = 0.0) -> Array:
    """Return y = f(x), elementwise.

    Args:
        x: any shape and strides; float16, float32 or float64.
        mode: CUDNN_ACTIVATION_SIGMOID, _RELU, _TANH; _CLIPPED_RELU, min(max(x, 0), coef); or _ELU,
            x where it is positive, else coef * (exp(x) - 1).
        coef: not negative; the other modes do not read it.

    Raises:
        BadParameter: there is no such mode, or coef is negative.
        TypeError: the arguments are not these, or x has another dtype.

    Example:
        >>> from gpucnn.interop import cudnn
        >>> x = np.array([-1.0, 2.0, 9.0])
        >>> cudnn.activation_forward(x, cudnn.CUDNN_ACTIVATION_CLIPPED_RELU, 6.0)
        array([0., 2., 6.])
    """
    owner = "cudnn.activation_forward"
    backend, x = checked(owner, x=x)
    kind, alpha = _kind(owner, mode, coef)
    return contiguous(backend, functional.activation_forward(x, kind, alpha=alpha, owner=owner))


@entry
def activation_backward(x: Array, y: Array, gy: Array, mode: int, coef: float = 0.0) -> Array:
    """Return gx = gy * f'(x) for the output y of ``activation_forward``; only x's shape is read.

    Raises:
        BadParameter, TypeError: as there; x, y and gy differ in shape.
    """
    owner = "cudnn.activation_backward"
    backend, y, gy = checked(owner, y=y, gy=gy)
    kind, alpha = _kind(owner, mode, coef)
    expect_shape(owner, x.shape, y=y, gy=gy)
    gx = functional.activation_backward(gy, y, kind, alpha=alpha, owner=owner)
    return contiguous(backend, gx)


def _kind(owner: str, mode: int, coef: float) -> tuple[str, float | None]:
    kind = _KINDS[as_choice(owner, "mode", mode, tuple(_KINDS))]
    return kind, coef if mode in _WITH_COEF else None


@entry
def softmax_forward(x: Array, axis: int, algorithm: int) -> Array:
    """Return the softmax y of x over an axis.

    Args:
        x: any shape and strides; float16, float32 or float64.
        algorithm: CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_FAST, which is the same, and does not
            overflow either, or CUDNN_SOFTMAX_LOG, its logarithm.

    Raises:
        BadParameter: there is no such axis or algorithm.
        TypeError: the arguments are not these, or x has another dtype.

    Example:
        >>> from gpucnn.interop import cudnn
        >>> cudnn.softmax_forward(np.zeros((1, 4)), 1, cudnn.CUDNN_SOFTMAX_ACCURATE)
        array([[0.25, 0.25, 0.25, 0.25]])
    """
    owner = "cudnn.softmax_forward"
    backend, x = checked(owner, x=x)
    log = as_choice(owner, "algorithm", algorithm, _ALGORITHMS) == CUDNN_SOFTMAX_LOG
    return contiguous(backend, functional.softmax_forward(x, axis, log=log, owner=owner))


@entry
def softmax_backward(y: Array, gy: Array, axis: int, algorithm: int) -> Array:
    """Return the gradient gx of ``softmax_forward`` in x, for its output y and the gradient gy.

    Raises:
        BadParameter, TypeError: as there; y and gy differ in shape.
    """
    owner = "cudnn.softmax_backward"
    backend, y, gy = checked(owner, y=y, gy=gy)
    log = as_choice(owner, "algorithm", algorithm, _ALGORITHMS) == CUDNN_SOFTMAX_LOG
    return contiguous(backend, functional.softmax_backward(gy, y, axis, log=log, owner=owner))
