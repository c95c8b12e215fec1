"""Transposed convolution: the gradient of a convolution in its input, used forward.

It has no kernels of its own. The record is that of the underlying convolution, which leads from
this operation's output to its input, so forward is its dgrad, dx its fprop and dw its wgrad with
the roles of x and dy exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arguments import Padding, as_choice, as_int, as_tuple, check_padding
from ..backends.base import MATH, Array
from ..shapes import ConvShape, check_rank, kernel_rank, split_axes
from .checks import expect_shape, is_channels_last, prepare
from .directions import bias_grad, conjugate, dgrad, fprop, real_like, wgrad


def conv_transpose_shape(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    output_padding: int | Sequence[int] | None = None,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    owner: str = "conv_transpose",
) -> ConvShape:
    """Return the underlying convolution: ``y_shape`` is our input's, ``x_shape`` our output's.

    Example:
        >>> conv_transpose_shape((1, 7, 7, 16), (16, 3, 3, 8), strides=2, padding="same").x_shape
        (1, 14, 14, 8)
    """
    channels_last = is_channels_last(owner, data_format)
    rank = kernel_rank(owner, w_shape)
    check_rank(owner, x_shape, rank, channels_last)
    batch, channels, size = split_axes(x_shape, channels_last)
    if channels != w_shape[0]:
        raise ValueError(
            f"{owner}: the input must have {w_shape[0]} channels for a kernel of shape"
            f" {tuple(w_shape)}. Received: input of shape {tuple(x_shape)}"
        )
    groups = as_int(owner, "groups", groups)
    strides = as_tuple(owner, "strides", strides, rank)
    dilation = as_tuple(owner, "dilation_rate", dilation, rank)
    padding = check_padding(owner, padding, rank)
    if padding == "causal" or (padding == "same" and output_padding is not None):
        raise ValueError(
            f'{owner}: padding must be "valid", "same" (without output_padding) or explicit.'
            f" Received: padding={padding!r}, output_padding={output_padding}"
        )
    reach = [step * (taps - 1) + 1 for step, taps in zip(dilation, w_shape[1:-1], strict=True)]
    if padding == "same":
        output = [extent * stride for extent, stride in zip(size, strides, strict=True)]
    else:
        if padding == "valid" and output_padding is None:
            extra = [max(stride - taps, 0) for stride, taps in zip(strides, reach, strict=True)]
        else:
            extra = as_tuple(owner, "output_padding", output_padding or 0, rank, minimum=0)
            if any(more >= stride for more, stride in zip(extra, strides, strict=True)):
                raise ValueError(
                    f"{owner}: output_padding must be smaller than strides={strides}."
                    f" Received: output_padding={extra}"
                )
        padding = ((0, 0),) * rank if padding == "valid" else padding
        output = [
            (extent - 1) * stride + taps - before - after + more
            for extent, stride, taps, (before, after), more in zip(
                size, strides, reach, padding, extra, strict=True
            )
        ]
        if min(output) < 1:
            raise ValueError(
                f"{owner}: padding must leave at least one output; it leaves {tuple(output)} of an"
                f" input of shape {tuple(x_shape)}. Received: padding={padding}"
            )
    depth = w_shape[-1] * groups
    return ConvShape.of(
        (batch, *output, depth) if channels_last else (batch, depth, *output),
        w_shape,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels_last=channels_last,
        owner=owner,
    )


def conv_transpose_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    output_padding: int | Sequence[int] | None = None,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    math: str = "strict",
    owner: str = "conv_transpose",
    shape: ConvShape | None = None,
) -> Array:
    """Spread each input over a window of the output, weighted by w, and add the bias b.

    Args:
        x: (N, P, Q, K), or (N, K, P, Q) with ``data_format="channels_first"``.
        w: (K, R, S, C / groups): the filters of the convolution that this transposes.
        b: (C,), or None.
        padding: what is cut off the output's ends. "valid": nothing,
            H = P * stride + max(reach - stride, 0) with reach = dilation * (R - 1) + 1.
            "same": H = P * stride. Explicit (PyTorch's rule):
            H = (P - 1) * stride + reach - before - after + output_padding.
        output_padding: rows that only the bias reaches, behind; each smaller than the stride.
        math: as for ``conv_forward``.
        shape: the geometry, if at hand (``conv_transpose_shape``).

    Returns:
        y: (N, H, W, C), or (N, C, H, W).

    Raises:
        ValueError: a shape does not fit; the message says what would.
        TypeError: the arrays differ in dtype or device, or are not floating or complex.

    Source: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016.

    Example:
        >>> x = np.array([[[1], [2]]], np.float32)  # (1, 2, 1)
        >>> w = np.array([[[1], [10], [100]]], np.float32)  # (1, 3, 1)
        >>> conv_transpose_forward(x, w, strides=2).ravel()
        array([  1.,  10., 102.,  20., 200.], dtype=float32)
    """
    as_choice(owner, "math", math, MATH)
    backend, x, w, b = prepare(owner, allow_complex=True, x=x, w=w, b=b)
    shape = shape or conv_transpose_shape(
        x.shape,
        w.shape,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        owner=owner,
    )
    expect_shape(owner, shape.y_shape, x=x)
    expect_shape(owner, shape.w_shape, w=w)
    expect_shape(owner, (shape.channels,), b=b)
    return dgrad(backend, x, w, b, shape, math)


def conv_transpose_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    with_bias: bool = True,
    needs_dx: bool = True,
    residual: Array | None = None,
    math: str = "strict",
    owner: str = "conv_transpose",
    shape: ConvShape | None = None,
    **geometry: Any,
) -> tuple[Array | None, Array, Array | None]:
    """Return the gradients dx, dw and db of ``conv_transpose_forward``; as ``conv_backward``."""
    as_choice(owner, "math", math, MATH)
    backend, dy, x, w, residual = prepare(
        owner, allow_complex=True, dy=dy, x=x, w=w, residual=residual
    )
    shape = shape or conv_transpose_shape(x.shape, w.shape, owner=owner, **geometry)
    expect_shape(owner, shape.y_shape, x=x, residual=residual)
    expect_shape(owner, shape.w_shape, w=w)
    expect_shape(owner, shape.x_shape, dy=dy)
    dx = None
    if needs_dx:
        dx = fprop(backend, dy, conjugate(w), None, shape, math=math, residual=residual)
        dx = real_like(dx, x)
    dw = real_like(wgrad(backend, dy, conjugate(x), shape, math), w)
    db = bias_grad(backend, dy, shape.channels_last) if with_bias else None
    return dx, dw, db
