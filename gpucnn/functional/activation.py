"""Activations by name, and PReLU, whose slopes are learned."""

from __future__ import annotations

from typing import NamedTuple

from ..arguments import as_choice, as_number
from ..backends.base import ACTIVATIONS, FROM_OUTPUT, Array, bend
from .checks import channel_shape, expect_shape, prepare
from .mask import Mask, has_mask, mask_backward
from .softmax import softmax_backward, softmax_forward

_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
_SOFTMAX = ("softmax", "log_softmax")
# By default: Keras's, and the ceiling of Hannun et al., "Deep Speech", 2014
ALPHA = {"leaky_relu": 0.2, "elu": 1.0, "clipped_relu": 20.0}

KINDS = ("linear", *sorted(ACTIVATIONS), *_SOFTMAX, *_ALIASES)


def check_activation(owner: str, kind: str | None) -> str:
    """Return the canonical name of an activation; None is "linear"."""
    kind = as_choice(owner, "activation", "linear" if kind is None else kind, KINDS)
    return _ALIASES.get(kind, kind)


def check_elementwise(owner: str, kind: str, alpha: float | None, x: Array) -> tuple[str, float]:
    """Return an activation that takes each number by itself, and alpha, as backends take them."""
    kinds = tuple(kind for kind in KINDS if kind not in _SOFTMAX)
    kind = check_activation(owner, as_choice(owner, "activation", kind, kinds))
    return kind, _checked_alpha(owner, kind, alpha, x)


def check_masked(owner: str, kind: str, alpha: float | None, x: Array) -> tuple[str, float]:
    """Return kind and alpha as backends take them; only what has a mask passes."""
    kind, number = check_elementwise(owner, kind, alpha, x)
    if not has_mask(kind, number):
        raise ValueError(
            f"{owner}: an activation with a mask is one of two slopes, relu, relu6, clipped_relu or"
            f" leaky_relu with an alpha above 0. Received: {kind!r}, alpha={alpha!r}"
        )
    return kind, number


def saves_output(kind: str) -> bool:
    """Return whether ``activation_backward`` wants the forward's output (else its input)."""
    return kind in FROM_OUTPUT or kind in _SOFTMAX


class FromActivation(NamedTuple):
    """An array that an activation gave, for the backward pass of the convolution that read it.

    That then returns the gradient of the activation's own input, which saves the activation its
    pass: see ``conv_backward``.

    Attributes:
        y: the activation's output.
        kind, alpha: as for ``activation_forward``; one of ``saves_output``, but softmax.

    Example:
        >>> x, w, dy = np.array([[-1.0, 2.0]]), np.array([[3.0, 4.0]]), np.ones((1, 1))
        >>> y = activation_forward(x, "relu")
        >>> dense_backward(dy, FromActivation(y, "relu"), w)[0]
        array([[0., 4.]])
    """

    y: Array
    kind: str = "relu"
    alpha: float | None = None


def from_activation(owner: str, x: Array | FromActivation) -> tuple[Array, str, float]:
    """Return an input, and the activation that gave it: "linear" where nothing is known of it.

    Raises:
        ValueError: the output does not tell the activation's derivative.
        TypeError: x is complex.
    """
    if not isinstance(x, FromActivation):
        return x, "linear", 0.0
    kind, alpha = check_elementwise(owner, x.kind, x.alpha, x.y)
    if kind != "linear" and not saves_output(kind):
        raise ValueError(
            f"{owner}: x must come from an activation whose output tells its derivative, such as"
            f" relu or tanh. Received: {kind!r}"
        )
    if x.y.dtype.kind == "c":
        raise TypeError(f"{owner}: an activation gives real numbers. Received: {x.y.dtype.name}")
    return x.y, kind, alpha


def activation_forward(
    x: Array,
    kind: str = "relu",
    *,
    alpha: float | None = None,
    axis: int = -1,
    owner: str = "activation",
) -> Array:
    """Return f(x), elementwise, for one of Keras's names.

    Args:
        x: any shape.
        kind: "linear" (x itself); "relu"; "relu6", min(max(x, 0), 6); "clipped_relu",
            min(max(x, 0), alpha) (alpha 20; Hannun et al. 2014); "leaky_relu", x or alpha * x
            (alpha 0.2); "elu", x or alpha * (exp(x) - 1) (alpha 1; Clevert et al. 2016); "selu"
            (Klambauer et al. 2017); "sigmoid"; "hard_sigmoid", relu6(x + 3) / 6; "tanh";
            "softplus", log(1 + exp(x)); "softsign", x / (1 + |x|); "gelu", x * Phi(x), and
            "gelu_tanh", its approximation (Hendrycks & Gimpel 2016); "silu" or "swish",
            x * sigmoid(x); "hard_silu" or "hard_swish", x * hard_sigmoid(x) (Howard et al. 2019);
            "mish", x * tanh(softplus(x)) (Misra 2020); "softmax" and "log_softmax" over ``axis``.
        alpha: the slope of leaky_relu, the scale of elu, the ceiling of clipped_relu, not negative:
            the derivative is read off the output, which must have the input's sign.

    Returns:
        y: as x.

    Raises:
        ValueError: no such activation, or alpha is negative.
        TypeError: x is not floating.

    Example:
        >>> activation_forward(np.array([-1.0, 2.0]), "relu")
        array([0., 2.])
    """
    kind = check_activation(owner, kind)
    if kind == "linear":
        return x
    if kind in _SOFTMAX:
        return softmax_forward(x, axis, log=kind == "log_softmax", owner=owner)
    backend, x = prepare(owner, x=x)
    return backend.activation_forward(x, kind, _checked_alpha(owner, kind, alpha, x))


def activation_forward_masked(
    x: Array,
    kind: str = "relu",
    *,
    alpha: float | None = None,
    residual: Array | None = None,
    owner: str = "activation",
) -> tuple[Array, Mask]:
    """Return y = f(x + residual) and the mask of it, which ``activation_backward`` takes for y.

    Args:
        kind, alpha: "relu", "relu6", "clipped_relu" or "leaky_relu" (with a slope above 0); as for
            ``activation_forward``.
        residual: as x.

    Raises:
        ValueError: another activation, or a residual of another shape.
        TypeError: x is not floating.

    Example:
        >>> y, mask = activation_forward_masked(np.array([-1.0, 2.0, 0.0, 5.0]))
        >>> mask.bits, activation_backward(np.ones(4), mask)
        (array([10], dtype=uint8), array([0., 1., 0., 1.]))
    """
    backend, x, residual = prepare(owner, x=x, residual=residual)
    expect_shape(owner, x.shape, residual=residual)
    kind, alpha = check_masked(owner, kind, alpha, x)
    y, bits = backend.activation_masked(x, kind, alpha, residual)
    return y, Mask.of(y, bits, bend(kind, alpha)[0])


def activation_mask(
    y: Array, kind: str = "relu", *, alpha: float | None = None, owner: str = "activation"
) -> Mask:
    """Return the mask of an output that is there: see ``activation_forward_masked``."""
    backend, y = prepare(owner, y=y)
    kind, alpha = check_masked(owner, kind, alpha, y)
    return Mask.of(y, backend.activation_mask(y, kind, alpha), bend(kind, alpha)[0])


def activation_backward(
    dy: Array,
    saved: Array | Mask,
    kind: str = "relu",
    *,
    alpha: float | None = None,
    axis: int = -1,
    owner: str = "activation",
) -> Array:
    """Return dx = dy * f'(x).

    ``saved`` is the forward's output where ``saves_output(kind)``, else its input: each kind keeps
    the one that its derivative is a function of, and the other can be freed. Or it is the mask of
    the output, which has the kind in itself; the numbers are the same.
    """
    if isinstance(saved, Mask):
        return mask_backward(dy, saved, owner=owner)
    kind = check_activation(owner, kind)
    if kind == "linear":
        return dy
    if kind in _SOFTMAX:
        return softmax_backward(dy, saved, axis, log=kind == "log_softmax", owner=owner)
    backend, dy, saved = prepare(owner, dy=dy, saved=saved)
    expect_shape(owner, saved.shape, dy=dy)
    return backend.activation_backward(dy, saved, kind, _checked_alpha(owner, kind, alpha, dy))


def _checked_alpha(owner: str, kind: str, alpha: float | None, x: Array) -> float:
    alpha = ALPHA.get(kind, 0.0) if alpha is None else as_number(owner, "alpha", alpha, least=0)
    # a ceiling that an output can reach: the derivative is 0 where it has
    return float(x.dtype.type(alpha)) if kind == "clipped_relu" else alpha


def prelu_forward(x: Array, slope: Array, *, axis: int = -1, owner: str = "prelu") -> Array:
    """Return x where x > 0, else slope * x, with a slope for each channel (He et al. 2015).

    Args:
        x: (N, ..., C), or (N, C, ...) with ``axis=1``.
        slope: (C,).

    Example:
        >>> prelu_forward(np.array([[-1.0, -1.0]]), np.array([0.5, 0.25]))
        array([[-0.5 , -0.25]])
    """
    backend, x, slope = prepare(owner, x=x, slope=slope)
    shape = channel_shape(owner, x, axis)
    expect_shape(owner, (shape.channels,), slope=slope)
    return backend.prelu_forward(x, slope, shape)


def prelu_backward(
    dy: Array, x: Array, slope: Array, *, axis: int = -1, owner: str = "prelu"
) -> tuple[Array, Array]:
    """Return dx (as x) and dslope (C,)."""
    backend, dy, x, slope = prepare(owner, dy=dy, x=x, slope=slope)
    shape = channel_shape(owner, x, axis)
    expect_shape(owner, (shape.channels,), slope=slope)
    expect_shape(owner, x.shape, dy=dy)
    return backend.prelu_backward(dy, x, slope, shape)
