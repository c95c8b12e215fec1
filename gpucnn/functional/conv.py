"""Convolution in 1, 2 and 3 dimensions, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arguments import Padding, as_choice
from ..backends.base import MATH, Array, bend
from ..shapes import ConvShape
from .activation import FromActivation, check_elementwise, check_masked, from_activation
from .checks import as_out_dtype, expect_shape, is_channels_last, narrowed, prepare
from .directions import bias_grad, conjugate, fprop, input_grad, real_like, wgrad
from .mask import Mask
from .unapplied import Unapplied, prepare_on_load, taken_apart


def conv_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    owner: str = "conv",
) -> ConvShape:
    """Return the geometry of a convolution, to be computed once and passed as ``shape=``.

    Example:
        >>> conv_shape((1, 28, 28, 1), (32, 3, 3, 1)).y_shape
        (1, 26, 26, 32)
    """
    return ConvShape.of(
        x_shape,
        w_shape,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels_last=is_channels_last(owner, data_format),
        owner=owner,
    )


def conv_forward(
    x: Array | Unapplied,
    w: Array,
    b: Array | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    activation: str = "linear",
    alpha: float | None = None,
    residual: Array | None = None,
    math: str = "strict",
    out_dtype: Any = None,
    owner: str = "conv",
    shape: ConvShape | None = None,
) -> Array:
    """Convolve (cross-correlate: no flip) x with w and add the bias b.

    y[n, p, q, k] = f(residual[n, p, q, k] + b[k] + sum over r, s, c of
    x[n, p * stride - pad + r * dilation, q * stride - pad + s * dilation, c] * w[k, r, s, c])

    Args:
        x: (N, H, W, C), or (N, C, H, W) with ``data_format="channels_first"``; with one or three
            axes between them for 1-D and 3-D. Or an ``Unapplied`` that stands for such an array.
        w: (K, R, S, C / groups), whatever the data format.
        b: (K,), or None.
        strides: an int, or one for each axis; so is ``dilation``.
        padding: "valid", "same" (ceil(H / stride) outputs), "causal" (1-D), an int, one int an
            axis, or a (before, after) pair an axis.
        groups: how many separate convolutions the channels and filters are split into.
        activation, alpha: f, one of those of ``activation_forward`` but softmax, in the same pass
            over y where there is a kernel; its gradient is ``activation_backward``'s, taken before
            ``conv_backward``.
        residual: as y, or None.
        math: "strict", all products and sums in float32 (float64 for float64) by the quickest
            algorithm; "exact", by those alone that are no less exact than a matrix product over
            the windows' columns: no Winograd where it is not. "tf32" permits, for float32 on a GPU
            from sm_80 on, products of numbers rounded to TF32's 10 bits behind the point, summed
            in float32; "fp32x3", three such products in place of one, with errors as of float32,
            and NaN from infinities. Where "strict" is quicker, or these are not to be had, they
            are "strict".
        out_dtype: y's, "float32" for an x of 16 bits: sums, which are float32 in any case, are then
            not rounded. By default x's. ``conv_backward`` takes a dy of both.
        owner: opens each error message.
        shape: the geometry, if at hand (``conv_shape``); the keywords above are then not read.

    Returns:
        y: (N, P, Q, K), or (N, K, P, Q), with
        P = (H + pad_before + pad_after - dilation * (R - 1) - 1) // stride + 1.

    Raises:
        ValueError: a shape does not fit, or ``out_dtype``; the message says what would.
        TypeError: the arrays differ in dtype or device, or are not floating or complex.

    x and w may be complex, one of them or both (four real convolutions, or two).

    Example:
        >>> x = np.ones((1, 5, 5, 1), np.float32)
        >>> conv_forward(x, np.ones((1, 3, 3, 1), np.float32))[0, :, :, 0]
        array([[9., 9., 9.],
               [9., 9., 9.],
               [9., 9., 9.]], dtype=float32)
    """
    activation, alpha = check_elementwise(owner, activation, alpha, x)
    as_choice(owner, "math", math, MATH)
    x, on_load = taken_apart(x)
    # no order among complex numbers, no relu, and no batch norm
    complex_too = activation == "linear" and on_load is None
    backend, x, w, b, residual = prepare(
        owner, allow_complex=complex_too, x=x, w=w, b=b, residual=residual
    )
    shape = shape or conv_shape(
        x.shape,
        w.shape,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        owner=owner,
    )
    _expect_shapes(owner, shape, x, w, b, residual)
    out_dtype = as_out_dtype(owner, out_dtype, x)
    on_load = prepare_on_load(owner, x, on_load, shape)
    return fprop(backend, x, w, b, shape, activation, math, alpha, residual, out_dtype, on_load)


def conv_forward_masked(
    x: Array | Unapplied,
    w: Array,
    b: Array | None = None,
    *,
    activation: str = "relu",
    alpha: float | None = None,
    residual: Array | None = None,
    math: str = "strict",
    owner: str = "conv",
    shape: ConvShape | None = None,
    **geometry: Any,
) -> tuple[Array, Mask | None]:
    """Return ``conv_forward``'s y and the mask of it, which ``activation_backward`` takes for y.

    It is None where it would cost more time than it saves: y then tells the same.

    Args:
        activation, alpha: as for ``activation_forward_masked``.
        geometry: the keywords of ``conv_shape``, unless ``shape`` is given.

    Raises:
        ValueError, TypeError: as ``conv_forward`` and ``activation_forward_masked``.

    Example:
        >>> y, mask = conv_forward_masked(np.ones((1, 256, 256, 1)), np.ones((2, 1, 1, 1)))
        >>> y.shape, mask.bits.shape
        ((1, 256, 256, 2), (16384,))
    """
    activation, alpha = check_masked(owner, activation, alpha, x)
    as_choice(owner, "math", math, MATH)
    x, on_load = taken_apart(x)
    backend, x, w, b, residual = prepare(owner, x=x, w=w, b=b, residual=residual)
    shape = shape or conv_shape(x.shape, w.shape, owner=owner, **geometry)
    _expect_shapes(owner, shape, x, w, b, residual)
    on_load = prepare_on_load(owner, x, on_load, shape)
    y, bits = backend.conv_fprop_masked(x, w, b, shape, activation, math, alpha, residual, on_load)
    return y, None if bits is None else Mask.of(y, bits, bend(activation, alpha)[0])


def _expect_shapes(
    owner: str, shape: ConvShape, x: Array, w: Array, b: Array | None, residual: Array | None
) -> None:
    expect_shape(owner, shape.x_shape, x=x)
    expect_shape(owner, shape.w_shape, w=w)
    expect_shape(owner, (shape.filters,), b=b)
    expect_shape(owner, shape.y_shape, residual=residual)


def conv_backward(
    dy: Array,
    x: Array | FromActivation | Unapplied,
    w: Array | None,
    *,
    with_bias: bool = True,
    needs_dx: bool = True,
    residual: Array | None = None,
    math: str = "strict",
    owner: str = "conv",
    shape: ConvShape | None = None,
    **geometry: Any,
) -> tuple[Array | None, Array, Array | None]:
    """Return the gradients dx, dw and db of ``conv_forward`` for the gradient dy of its output.

    ``geometry`` takes the keywords of ``conv_forward``. dx is None without ``needs_dx`` (the first
    layer of a network), db without ``with_bias``. For complex arrays a gradient is
    dL/dRe + i dL/dIm of a real loss L, which is what a descent step subtracts (and PyTorch's
    convention); the gradient of a real operand is real. Where dx is not needed and ``shape`` is
    given, w may be None: dw is a function of dy and x.

    ``residual``, as x or None, is added to dx in the same pass, where there is a kernel: what other
    readers of x have given for its gradient.

    Where x is a ``FromActivation``, dx is the gradient of that activation's own input, dx * f'(x),
    in one pass for those of two slopes, where there is a kernel.

    Raises:
        ValueError, TypeError: as ``conv_forward``; dy is not of the output's shape, or the residual
            not of x's.

    Example:
        >>> x, w = np.ones((1, 2, 2, 1)), np.full((1, 1, 1, 1), 3.0)
        >>> conv_backward(x, x, w, residual=np.full_like(x, 0.5))[0].ravel()
        array([3.5, 3.5, 3.5, 3.5])
    """
    as_choice(owner, "math", math, MATH)
    if w is None and (needs_dx or shape is None):
        raise ValueError(f"{owner}: w must be given, but for dw alone of a shape. Received: w=None")
    x, *activation = from_activation(owner, x)
    x, on_load = taken_apart(x)
    dy = narrowed(owner, dy, x)
    backend, dy, x, w, residual = prepare(
        owner, allow_complex=on_load is None, dy=dy, x=x, w=w, residual=residual
    )
    shape = shape or conv_shape(x.shape, w.shape, owner=owner, **geometry)
    expect_shape(owner, shape.x_shape, x=x, residual=residual)
    expect_shape(owner, shape.w_shape, w=w)
    expect_shape(owner, shape.y_shape, dy=dy)
    on_load = prepare_on_load(owner, x, on_load, shape)
    dx = input_grad(backend, dy, w, x, shape, math, *activation, residual) if needs_dx else None
    dw = wgrad(backend, conjugate(x), dy, shape, math, on_load)
    dw = dw if w is None else real_like(dw, w)
    db = bias_grad(backend, dy, shape.channels_last) if with_bias else None
    return dx, dw, db
