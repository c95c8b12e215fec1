"""Functions of each number: arithmetic with NumPy's broadcasting, powers, logarithms, angles.

They run through the array module of the backend, NumPy or CuPy, which has each as one kernel.
Forward takes any dtype, so that integers (the shapes that a network computes with) go the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arguments import as_choice
from ..backends import backend_of
from ..backends.base import FLOATS, FUSED, Array, accumulator
from .activation import activation_backward
from .checks import expect_shape, prepare
from .directions import conjugate, is_complex, real_like


class _Function(NamedTuple):
    """y = run(xp, x), and dy/dx = slope(xp, x, y)."""

    run: Callable[..., Array]
    slope: Callable[..., Array]


def _named(name: str, slope: Callable[..., Array]) -> _Function:
    """Return a function of NumPy's, which an array's own type computes."""
    return _Function(lambda xp, x: getattr(xp, name)(x), slope)


def _flat(xp: Any, x: Array, y: Array) -> Array:
    return xp.zeros_like(x)


def _abs_slope(xp: Any, x: Array, y: Array) -> Array:
    """The sign; of a complex z, whose sign is another in NumPy 1 and CuPy, z* / |z|."""
    return xp.where(y == 0, y, x.conj() / y) if is_complex(x) else xp.sign(x)


def _erf(xp: Any, x: Array) -> Array:
    """2 Phi(sqrt(2) x) - 1; Phi(z) = gelu'(z) - z phi(z), and every backend has GELU's slope."""
    wide = xp.clip(x.astype(accumulator(x.dtype)), -6, 6)  # 1 beyond in any dtype; inf * 0 is NaN
    z = wide * math.sqrt(2)
    slope = activation_backward(xp.ones_like(z), z, "gelu")
    phi = xp.exp(-wide * wide) / math.sqrt(2 * math.pi)
    return (2 * (slope - z * phi) - 1).astype(x.dtype)


UNARY: dict[str, _Function] = {
    "abs": _named("abs", _abs_slope),
    "acos": _named("arccos", lambda xp, x, y: -1 / xp.sqrt(1 - x * x)),
    "acosh": _named("arccosh", lambda xp, x, y: 1 / xp.sqrt(x * x - 1)),
    "asin": _named("arcsin", lambda xp, x, y: 1 / xp.sqrt(1 - x * x)),
    "asinh": _named("arcsinh", lambda xp, x, y: 1 / xp.sqrt(x * x + 1)),
    "atan": _named("arctan", lambda xp, x, y: 1 / (1 + x * x)),
    "atanh": _named("arctanh", lambda xp, x, y: 1 / (1 - x * x)),
    "ceil": _named("ceil", _flat),
    "cos": _named("cos", lambda xp, x, y: -xp.sin(x)),
    "cosh": _named("cosh", lambda xp, x, y: xp.sinh(x)),
    "erf": _Function(_erf, lambda xp, x, y: 2 / math.sqrt(math.pi) * xp.exp(-x * x)),
    "exp": _named("exp", lambda xp, x, y: y),
    "floor": _named("floor", _flat),
    "log": _named("log", lambda xp, x, y: 1 / x),
    "negative": _named("negative", lambda xp, x, y: xp.full_like(x, -1)),
    "reciprocal": _Function(lambda xp, x: (1 / x).astype(x.dtype), lambda xp, x, y: -y * y),
    "round": _named("rint", _flat),
    "sign": _named("sign", _flat),
    "sin": _named("sin", lambda xp, x, y: xp.cos(x)),
    "sinh": _named("sinh", lambda xp, x, y: xp.cosh(x)),
    "sqrt": _named("sqrt", lambda xp, x, y: 0.5 / y),
    "square": _named("square", lambda xp, x, y: 2 * x),
    "tan": _named("tan", lambda xp, x, y: 1 + y * y),
}


def elementwise_forward(x: Array, function: str, *, owner: str = "elementwise") -> Array:
    """Return function(x), of x's shape and dtype.

    Args:
        x: any shape and dtype that the function takes.
        function: "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh",
            "erf", "exp", "floor", "log", "negative", "reciprocal", "round" (half to even), "sign",
            "sin", "sinh", "sqrt", "square" or "tan". Where it has no value, y is NaN or infinite.

    Raises:
        ValueError: no such function.

    Example:
        >>> elementwise_forward(np.array([1.0, 4.0]), "sqrt")
        array([1., 2.])
    """
    xp = backend_of(owner, x=x).xp
    with quiet():
        return _unary(owner, function).run(xp, x)


def elementwise_backward(
    dy: Array, x: Array, y: Array, function: str, *, owner: str = "elementwise"
) -> Array:
    """Return dx = dy * function'(x) for the forward's input x and output y; 0 at a step."""
    xp = backend_of(owner, dy=dy, x=x, y=y).xp
    expect_shape(owner, x.shape, dy=dy, y=y)
    with quiet():
        return (dy * conjugate(_unary(owner, function).slope(xp, x, y))).astype(x.dtype, copy=False)


def clip_forward(
    x: Array, low: float | None = None, high: float | None = None, *, owner: str = "clip"
) -> Array:
    """Return min(max(x, low), high); None leaves that side open.

    Example:
        >>> clip_forward(np.array([-3.0, 0.5, 3.0]), -1, 1)
        array([-1. ,  0.5,  1. ])
    """
    xp = backend_of(owner, x=x).xp
    for function, bound in ((xp.maximum, low), (xp.minimum, high)):
        x = x if bound is None else function(x, xp.asarray(bound, x.dtype))
    return x


def clip_backward(
    dy: Array, x: Array, low: float | None = None, high: float | None = None, *, owner: str = "clip"
) -> Array:
    """Return dy where x lies within the bounds, the bounds themselves too, else 0."""
    xp = backend_of(owner, dy=dy, x=x).xp
    expect_shape(owner, x.shape, dy=dy)
    inside = xp.ones(x.shape, bool)
    if low is not None:
        inside &= x >= low
    if high is not None:
        inside &= x <= high
    return xp.where(inside, dy, xp.zeros((), dy.dtype))


def shrink_forward(
    x: Array,
    threshold: float = 0.5,
    bias: float = 0.0,
    positive: bool = False,
    *,
    owner: str = "shrink",
) -> Array:
    """Return 0 where |x| <= threshold (where x is, with ``positive``), else x nearer to 0 by bias.

    Example:
        >>> shrink_forward(np.array([-3.0, 0.5, 2.0]), 1, bias=1)
        array([-2.,  0.,  1.])
    """
    xp = backend_of(owner, x=x).xp
    zero, shift = xp.zeros((), x.dtype), xp.asarray(bias, x.dtype)
    y = xp.where(x > threshold, x - shift, zero)
    return y if positive else xp.where(x < -threshold, x + shift, y)


def shrink_backward(
    dy: Array, x: Array, threshold: float = 0.5, positive: bool = False, *, owner: str = "shrink"
) -> Array:
    """Return dy where ``shrink_forward`` let x through, else 0."""
    xp = backend_of(owner, dy=dy, x=x).xp
    expect_shape(owner, x.shape, dy=dy)
    passed = x > threshold
    passed = passed if positive else passed | (x < -threshold)
    return xp.where(passed, dy, xp.zeros((), dy.dtype))


def _divide(xp: Any, a: Array, b: Array) -> Array:
    """Divide; integers as C does, towards 0."""
    if a.dtype.kind not in "iu":
        return a / b
    quotient = a // b
    return (quotient + ((quotient < 0) & (quotient * b != a))).astype(a.dtype)


def _power_slopes(xp: Any, a: Array, b: Array) -> tuple[Array, Array]:
    """b * a^(b - 1), 0 for b = 0; a^b log(a), 0 where the base has no logarithm."""
    has_one = a != 0 if is_complex(a) else a > 0
    safe = xp.where(has_one, a, xp.ones((), a.dtype))
    return xp.where(b == 0, xp.zeros((), a.dtype), b * a ** (b - 1)), a**b * xp.log(safe)


# y = run(xp, a, b), and the slopes of y in a and in b.
BINARY: dict[str, tuple[Callable[..., Array], Callable[..., tuple]]] = {
    "add": (lambda xp, a, b: a + b, lambda xp, a, b: (1, 1)),
    "divide": (_divide, lambda xp, a, b: (1 / b, -a / (b * b))),
    # Of equal ones the first takes all, as in pooling.
    "maximum": (lambda xp, a, b: xp.maximum(a, b), lambda xp, a, b: (a >= b, a < b)),
    "minimum": (lambda xp, a, b: xp.minimum(a, b), lambda xp, a, b: (a <= b, a > b)),
    "multiply": (lambda xp, a, b: a * b, lambda xp, a, b: (b, a)),
    "power": (lambda xp, a, b: (a**b).astype(a.dtype), _power_slopes),
    "subtract": (lambda xp, a, b: a - b, lambda xp, a, b: (1, -1)),
}


def arithmetic_forward(a: Array, b: Array, function: str, *, owner: str = "arithmetic") -> Array:
    """Return function(a, b) with NumPy's broadcasting.

    Args:
        a, b: of shapes that broadcast.
        function: "add", "subtract", "multiply", "divide" (integers towards 0), "power" (of a's
            dtype), "maximum" or "minimum".

    Raises:
        ValueError: no such function, or the shapes do not broadcast.

    Example:
        >>> arithmetic_forward(np.array([[1.0], [2.0]]), np.array([10.0, 20.0]), "add")
        array([[11., 21.],
               [12., 22.]])
    """
    xp = backend_of(owner, a=a, b=b).xp
    if function == "add" and (a.shape, a.dtype) == (b.shape, b.dtype):
        return add(a, b, owner=owner)
    with quiet():
        return _binary(owner, function)[0](xp, a, b)


def arithmetic_backward(
    dy: Array, a: Array, b: Array, function: str, *, owner: str = "arithmetic"
) -> tuple[Array, Array]:
    """Return da (as a) and db (as b); the axes along which one was stretched are summed over.

    The gradient of a power in its exponent is 0 where the base is not positive. Of complex numbers
    gradients are as ``conv_backward``'s.
    """
    xp = backend_of(owner, dy=dy, a=a, b=b).xp
    expect_shape(owner, np.broadcast_shapes(a.shape, b.shape), dy=dy)
    # 16-bit numbers have neither the range nor the digits for 1 / b^2 and its sums.
    wide_dy, wide_a, wide_b = (v.astype(accumulator(v.dtype), copy=False) for v in (dy, a, b))
    with quiet():
        slopes = _binary(owner, function)[1](xp, wide_a, wide_b)
        gradients = [
            wide_dy * conjugate(s) if hasattr(s, "dtype") else wide_dy if s == 1 else -wide_dy
            for s in slopes
        ]
    pairs = zip((a, b), gradients, strict=True)
    return tuple(
        real_like(summed_to(v.shape, dv), v).astype(v.dtype, copy=False) for v, dv in pairs
    )


def add(a: Array, b: Array, *, activation: str = "linear", owner: str = "add") -> Array:
    """Return f(a + b), in one pass, of two arrays of one shape and dtype.

    Args:
        activation: f, "linear", or "relu" for max(a + b, 0).

    Raises:
        ValueError: the shapes differ, or the activation is another one.
        TypeError: the dtypes differ, or numbers that are not floating have a relu.

    Example:
        >>> add(np.array([1.0, -3.0]), np.array([1.0, 1.0]), activation="relu")
        array([2., 0.])
    """
    as_choice(owner, "activation", activation, FUSED)
    expect_shape(owner, a.shape, b=b)
    if activation == "linear" and a.dtype == b.dtype and a.dtype.name not in FLOATS:
        return a + b  # complex numbers and integers
    backend, a, b = prepare(owner, a=a, b=b)
    return backend.add(a, b, activation)


def summed_to(shape: tuple[int, ...], array: Array) -> Array:
    """Sum the axes along which an array of ``shape`` was stretched to get ``array``'s.

    Example:
        >>> summed_to((3, 1), np.ones((2, 3, 4)))
        array([[8.],
               [8.],
               [8.]])
    """
    front = array.ndim - len(shape)
    axes = (*range(front), *(front + i for i, n in enumerate(shape) if n != array.shape[front + i]))
    if not axes:
        return array
    total = array.sum(axis=axes, keepdims=True, dtype=accumulator(array.dtype))
    return total.reshape(shape).astype(array.dtype, copy=False)


def _unary(owner: str, function: str) -> _Function:
    return UNARY[as_choice(owner, "function", function, tuple(UNARY))]


def _binary(owner: str, function: str) -> tuple:
    return BINARY[as_choice(owner, "function", function, tuple(BINARY))]


def quiet() -> np.errstate:
    """Return a context in which NumPy is as silent as a GPU about 1 / 0 and log(-1)."""
    return np.errstate(all="ignore")
