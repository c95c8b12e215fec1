"""The three directions of a convolution, and its bias, on real or complex arrays.

The backends know real numbers. Each direction is bilinear, so a complex one is four real ones:
(a + ib) * (c + id) = (ac - bd) + i(ad + bc), and two where one side is real.
"""

from __future__ import annotations

from collections.abc import Callable

from ..backends.base import Array, Backend, NormOnLoad
from ..shapes import ConvShape, split_axes
from .checks import channel_shape


def is_complex(array: Array) -> bool:
    return array.dtype.kind == "c"


def conjugate(array: Array) -> Array:
    """Return the conjugate; a real array is its own."""
    return array.conj() if is_complex(array) else array


def real_like(array: Array, operand: Array) -> Array:
    """Return ``array``, a gradient, as real as its operand: a real operand has no imaginary one."""
    if is_complex(array) and not is_complex(operand):
        return array.real.copy()
    return array


def fprop(
    backend: Backend, x: Array, w: Array, b: Array | None, shape: ConvShape,
    activation: str = "linear", math: str = "strict", alpha: float = 0.0,
    residual: Array | None = None, out_dtype: str | None = None, on_load: NormOnLoad | None = None,
) -> Array:  # fmt: skip
    """x (x_shape), w (w_shape), b (filters,) -> y (y_shape); complex numbers have no relu."""
    if not any(map(is_complex, _given(x, w, b, residual))):
        return backend.conv_fprop(
            x, w, b, shape, activation, math, alpha, residual, out_dtype, on_load
        )
    y = _bilinear(backend, lambda x, w: backend.conv_fprop(x, w, None, shape, math=math), x, w)
    y = _add_bias(y, b, shape.channels_last)
    return y if residual is None else y + residual


def dgrad(
    backend: Backend, dy: Array, w: Array, b: Array | None, shape: ConvShape, math: str = "strict"
) -> Array:
    """dy (y_shape), w (w_shape), b (channels,) -> dx (x_shape), with no conjugation."""
    if not any(map(is_complex, _given(dy, w, b))):
        return backend.conv_dgrad(dy, w, b, shape, math)
    dx = _bilinear(backend, lambda dy, w: backend.conv_dgrad(dy, w, None, shape, math), dy, w)
    return _add_bias(dx, b, shape.channels_last)


def input_grad(
    backend: Backend, dy: Array, w: Array, x: Array, shape: ConvShape, math: str,
    kind: str = "linear", alpha: float = 0.0, residual: Array | None = None,
) -> Array:  # fmt: skip
    """dy (y_shape), w (w_shape), x (x_shape) -> the gradient of x, as real as x is.

    With a residual (x_shape), added to it. Or of what went into the activation that gave x.
    """
    if any(map(is_complex, _given(dy, w, x, residual))):
        dx = dgrad(backend, dy, conjugate(w), None, shape, math)
        dx = real_like(dx if residual is None else dx + residual, x)
    elif kind != "linear" and residual is None:
        return backend.conv_dgrad_through(dy, w, shape, x, kind, alpha, math)
    else:
        dx = backend.conv_dgrad(dy, w, None, shape, math, residual)
    return dx if kind == "linear" else backend.activation_backward(dx, x, kind, alpha)


def wgrad(
    backend: Backend, x: Array, dy: Array, shape: ConvShape, math: str = "strict",
    on_load: NormOnLoad | None = None,
) -> Array:  # fmt: skip
    """x (x_shape), dy (y_shape) -> dw (w_shape), with no conjugation; real where ``on_load``."""
    return _bilinear(backend, lambda x, dy: backend.conv_wgrad(x, dy, shape, math, on_load), x, dy)


def bias_grad(backend: Backend, dy: Array, channels_last: bool) -> Array:
    """dy (N, ..., C) or (N, C, ...) -> db (C,)."""
    shape = channel_shape("conv", dy, -1 if channels_last else 1)
    real, imaginary = (
        None if part is None else backend.bias_grad(part, shape) for part in _parts(backend, dy)
    )
    return _join(backend, real, imaginary)


def _given(*arrays: Array | None) -> list[Array]:
    return [array for array in arrays if array is not None]


def _parts(backend: Backend, array: Array) -> tuple[Array, Array | None]:
    if not is_complex(array):
        return array, None
    return backend.arranged(array.real), backend.arranged(array.imag)


def _join(backend: Backend, real: Array, imaginary: Array | None) -> Array:
    if imaginary is None:
        return real
    dtype = "complex64" if real.dtype == "float32" else "complex128"
    whole = backend.xp.empty(real.shape, dtype)
    whole.real, whole.imag = real, imaginary
    return whole


def _bilinear(
    backend: Backend, operation: Callable[[Array, Array], Array], left: Array, right: Array
) -> Array:
    (a, b), (c, d) = _parts(backend, left), _parts(backend, right)
    real = operation(a, c)
    if b is None and d is None:
        return real
    if b is None:
        return _join(backend, real, operation(a, d))
    if d is None:
        return _join(backend, real, operation(b, c))
    return _join(backend, real - operation(b, d), operation(a, d) + operation(b, c))


def _add_bias(y: Array, b: Array | None, channels_last: bool) -> Array:
    if b is None:
        return y
    _, channels, spatial = split_axes(y.shape, channels_last)
    return y + b.reshape(channels, *((1,) * (0 if channels_last else len(spatial))))
