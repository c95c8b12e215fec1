"""The three directions of a convolution, into arrays that the caller has allocated.

CuPy's letters: x and y are input and output, W the filters, a g in front says gradient. Filters are
(K, C / groups, R, S), in NHWC (K, R, S, C / groups). ``auto_tune`` and ``deterministic`` are
accepted and change nothing: every result is deterministic, and its plan is chosen by estimate or by
``gpucnn tune``. Neither does ``tensor_core``: products of float16 are exact and are summed in
float32, on tensor cores or not.
"""

from __future__ import annotations

from ...arguments import as_choice, as_tuple
from ...backends.base import Array
from ...functional import (
    channels_last,
    conv_backward,
    conv_forward,
    conv_shape,
    conv_transpose_forward,
)
from ...functional.checks import expect_shape
from ...shapes import ConvShape
from .calls import Sizes, check_output, checked, entry
from .constants import CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC


@entry
def convolution_forward(
    x: Array, W: Array, b: Array | None, y: Array, pad: Sizes, stride: Sizes,
    dilation: Sizes | None, groups: int, *, auto_tune: bool, tensor_core: str,
    d_layout: int = CUDNN_TENSOR_NCHW, w_layout: int = CUDNN_TENSOR_NCHW,
) -> None:  # fmt: skip
    """Fill y with the cross-correlation of x and W, plus the bias b.

    Args:
        x: (N, C, H, W), or with ``d_layout=CUDNN_TENSOR_NHWC`` (N, H, W, C); (N, C, D, H, W) in
            three dimensions, (N, C, L) in one. float16, float32 or float64, any strides.
        W: (K, C / groups, R, S), or with ``w_layout=CUDNN_TENSOR_NHWC`` (K, R, S, C / groups).
        b: K numbers, or None.
        y: (N, K, P, Q), in NHWC (N, P, Q, K), with
            P = (H + 2 pad - dilation (R - 1) - 1) // stride + 1. C-contiguous.
        pad, stride, dilation: a number for each axis.
        groups: how many separate convolutions the channels and filters are split into.
        auto_tune: either; there is nothing to tune here.
        tensor_core: "auto", "always" or "never".

    Raises:
        BadParameter: a shape or a value does not fit, or y is not C-contiguous.
        TypeError: the arguments are not these, or the arrays differ in dtype or device, or theirs
            is another dtype.

    Example:
        >>> x, W = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
        >>> y = np.empty((1, 1, 2, 2))
        >>> convolution_forward(
        ...     x, W, None, y, (0, 0), (1, 1), (1, 1), 1, auto_tune=True, tensor_core="auto"
        ... )
        >>> y[0, 0]
        array([[9., 9.],
               [9., 9.]])
    """
    owner = "cudnn.convolution_forward"
    check_output(owner, y=y)
    _, x, W, b, y = checked(owner, x=x, W=W, b=b, y=y)
    shape = _shape(owner, x, W, pad, stride, dilation, groups, tensor_core, d_layout, w_layout, y=y)
    b = None if b is None else b.reshape(-1)
    y[...] = conv_forward(x, _krsc(W, w_layout), b, owner=owner, shape=shape)


@entry
def convolution_backward_filter(
    x: Array, gy: Array, gW: Array, pad: Sizes, stride: Sizes, dilation: Sizes | None,
    groups: int, *, deterministic: bool, auto_tune: bool, tensor_core: str,
    d_layout: int = CUDNN_TENSOR_NCHW, w_layout: int = CUDNN_TENSOR_NCHW,
) -> None:  # fmt: skip
    """Fill gW with the gradient of ``convolution_forward`` in W, for the gradient gy of y.

    The arguments are as there, and so are the errors; gW is C-contiguous.
    """
    owner = "cudnn.convolution_backward_filter"
    check_output(owner, gW=gW)
    backend, x, gy, gW = checked(owner, x=x, gy=gy, gW=gW)
    shape = _shape(
        owner, x, gW, pad, stride, dilation, groups, tensor_core, d_layout, w_layout, gy=gy
    )
    _, gw, _ = conv_backward(gy, x, None, needs_dx=False, with_bias=False, owner=owner, shape=shape)
    # (K, *window, C / groups) -> (K, C / groups, *window)
    gW[...] = gw if w_layout == CUDNN_TENSOR_NHWC else backend.xp.moveaxis(gw, -1, 1)


@entry
def convolution_backward_data(
    W: Array, x: Array, b: Array | None, y: Array, pad: Sizes, stride: Sizes,
    dilation: Sizes | None, groups: int, *, deterministic: bool, auto_tune: bool,
    tensor_core: str, d_layout: int = CUDNN_TENSOR_NCHW, w_layout: int = CUDNN_TENSOR_NCHW,
) -> None:  # fmt: skip
    """Fill y with the gradient of ``convolution_forward`` in its x, for the gradient x of its y.

    It is a transposed convolution, and so the names are those of a forward pass, and b, C numbers
    or None, is added. The other arguments are as there, and so are the errors; y is C-contiguous,
    and its size chooses among those that the convolution brings to the size of x.
    """
    owner = "cudnn.convolution_backward_data"
    check_output(owner, y=y)
    _, W, x, b, y = checked(owner, W=W, x=x, b=b, y=y)
    shape = _shape(owner, y, W, pad, stride, dilation, groups, tensor_core, d_layout, w_layout, x=x)
    b = None if b is None else b.reshape(-1)
    y[...] = conv_transpose_forward(x, _krsc(W, w_layout), b, owner=owner, shape=shape)


def _krsc(w: Array, layout: int) -> Array:
    """Return filters with their channels last, as they are kept here."""
    return w if layout == CUDNN_TENSOR_NHWC else channels_last(w)


def _shape(
    owner: str, data: Array, w: Array, pad: Sizes, stride: Sizes, dilation: Sizes | None,
    groups: int, tensor_core: str, d_layout: int, w_layout: int, **output: Array,
) -> ConvShape:  # fmt: skip
    """Return the geometry of a convolution from ``data`` to the one array of ``output``."""
    as_choice(owner, "tensor_core", tensor_core, ("always", "auto", "never"))
    as_choice(owner, "d_layout", d_layout, (CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC))
    as_choice(owner, "w_layout", w_layout, (CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC))
    last = CUDNN_TENSOR_NHWC in (d_layout, w_layout)
    if w.ndim not in ((4,) if last else (3, 4, 5)):
        raise ValueError(
            f"{owner}: W must have {'4 axes, where a layout is NHWC' if last else '3 to 5 axes'}."
            f" Received: W of shape {w.shape}"
        )
    rank = w.ndim - 2
    filters, *others = w.shape
    krsc = others if w_layout == CUDNN_TENSOR_NHWC else (*others[1:], others[0])
    shape = conv_shape(
        data.shape,
        (filters, *krsc),
        strides=as_tuple(owner, "stride", stride, rank),
        padding=as_tuple(owner, "pad", pad, rank, minimum=0),
        dilation=1 if dilation is None else as_tuple(owner, "dilation", dilation, rank),
        groups=groups,
        data_format="channels_last" if d_layout == CUDNN_TENSOR_NHWC else "channels_first",
        owner=owner,
    )
    expect_shape(owner, shape.y_shape, **output)
    return shape
