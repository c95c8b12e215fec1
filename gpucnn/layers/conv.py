"""Convolution layers in 1, 2 and 3 dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from .. import functional as F
from ..arguments import Padding, as_int, as_tuple, check_data_format, check_padding
from ..backends.base import Array
from ..functional.activation import check_activation
from ..initializers import Initializer, check_initializer
from ..math_mode import as_math
from ..shapes import ConvShape, check_rank
from .activation import Activated
from .base import Shape

# A network meets few shapes, each in every step: their geometry is computed once.
conv_shape = lru_cache(maxsize=4096)(F.conv_shape)


class Conv(Activated):
    """Convolution (cross-correlation: no flip), a bias and an activation.

    y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p * stride - pad + r * dilation, ..., c]
    * kernel[k, r, s, c])

    Args:
        filters: output channels.
        kernel_size: the window, an int or one for each axis.
        strides: an int or one for each axis; so is ``dilation_rate``.
        padding: "valid"; "same", ceil(size / stride) outputs; "causal" (1-D); an int; one int an
            axis; or a (before, after) pair an axis.
        data_format: "channels_last", (batch, *spatial, channels), or "channels_first".
        groups: how many separate convolutions the channels and filters are split into.
        activation: a name (see ``Activation``) or None.
        use_bias: whether there is a bias.
        math: "strict"; "exact" for algorithms no less exact than a matrix product; "tf32" or
            "fp32x3" to permit tensor cores for float32: see ``functional.conv_forward``. By default
            what ``set_math`` has set.
        kernel_initializer, bias_initializer: a name, or a function (shape, generator) -> array.
        name: opens the error messages; by default made of the class's.
        input_shape: shape of one input, without the batch axis, for a network's first layer.

    Parameters: "kernel" (filters, *kernel_size, channels / groups) and "bias" (filters,). Inputs
    may be complex.

    Example:
        >>> Conv2D(15, 3).forward(np.zeros((1, 5, 5, 1))).shape
        (1, 3, 3, 15)
    """

    rank: int
    arguments: tuple[str, ...] = (
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "data_format",
        "dilation_rate",
        "groups",
        "activation",
        "use_bias",
        "math",
        "kernel_initializer",
        "bias_initializer",
    )

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        *,
        strides: int | Sequence[int] = 1,
        padding: Padding = "valid",
        data_format: str = "channels_last",
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        activation: str | None = None,
        use_bias: bool = True,
        math: str | None = None,
        kernel_initializer: Initializer = "he_normal",
        bias_initializer: Initializer = "zeros",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        label = self.label
        self.filters = as_int(label, "filters", filters)
        self.kernel_size = as_tuple(label, "kernel_size", kernel_size, self.rank)
        self.strides = as_tuple(label, "strides", strides, self.rank)
        self.padding = check_padding(label, padding, self.rank)
        self.data_format = check_data_format(label, data_format)
        self.dilation_rate = as_tuple(label, "dilation_rate", dilation_rate, self.rank)
        self.groups = as_int(label, "groups", groups)
        if self.filters % self.groups:
            raise ValueError(
                f"{label}: filters must be a multiple of groups."
                f" Received: filters={filters}, groups={groups}"
            )
        self.activation = check_activation(label, activation)
        self.softmax_axis = -1 if data_format == "channels_last" else 1
        self.use_bias = bool(use_bias)
        self.math = as_math(label, math)
        self.kernel_initializer = check_initializer(label, "kernel_initializer", kernel_initializer)
        self.bias_initializer = check_initializer(label, "bias_initializer", bias_initializer)

    def output_shape(self, input_shape: Shape) -> Shape:
        return self._geometry((1, *input_shape)).y_shape[1:]

    def multiply_adds(self, input_shape: Shape) -> int:
        return self._geometry((1, *input_shape)).multiply_adds

    def _channels(self, x_shape: Shape) -> int:
        """Return the channels of an input, checked against the rank and the groups."""
        channels_last = self.data_format == "channels_last"
        check_rank(self.label, x_shape, self.rank, channels_last)
        channels = x_shape[-1 if channels_last else 1]
        if channels % self.groups or not channels:
            raise ValueError(
                f"{self.label}: the channels of the input must be a multiple of"
                f" groups={self.groups}. Received: input of shape {x_shape}"
            )
        return channels

    sums_gradients = True

    # What the kinds of convolution differ in:

    _run = staticmethod(F.conv_forward)
    _run_masked = staticmethod(F.conv_forward_masked)
    _run_backward = staticmethod(F.conv_backward)

    def _groups(self, channels: int) -> int:
        return self.groups

    def _filters(self, channels: int) -> int:
        """Return the output channels for an input of so many."""
        return self.filters

    def _kernel_shape(self, channels: int) -> Shape:
        into = channels // self._groups(channels)
        return (self._filters(channels), *self.kernel_size, into)

    def _geometry(self, x_shape: Shape) -> ConvShape:
        channels = self._channels(x_shape)
        return conv_shape(
            tuple(x_shape),
            self.params["kernel"].shape if self.built else self._kernel_shape(channels),
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=self._groups(channels),
            data_format=self.data_format,
            owner=self.label,
        )

    def _require(self, x_shape: Shape) -> None:
        self._geometry(x_shape)

    def _build(self, input_shape: Shape) -> None:
        channels = self._channels((1, *input_shape))
        filters, groups = self._filters(channels), self._groups(channels)
        taps = prod(self.kernel_size)
        fans = (taps * channels // groups, taps * filters // groups)
        self._add("kernel", self._kernel_shape(channels), self.kernel_initializer, fans)
        if self.use_bias:
            self._add("bias", (filters,), self.bias_initializer)

    def _forward(
        self, x: Array, training: bool, activation: str | None = None,
        residual: Array | None = None, masked: bool = False,
    ) -> Array:  # fmt: skip
        shape, activation = self._geometry(x.shape), activation or self.activation
        kernel, bias = self.params["kernel"], self.params.get("bias")
        options = {"shape": shape, "math": self.math, "activation": activation, "masked": masked}
        options |= {} if residual is None else {"residual": residual}
        y, kept = self._run_activated(self._run, x, kernel, bias, **options)
        self._save(x, kept, shape, activation, residual is not None)
        return y

    def _forward_normed(self, x: Array, *norm: Array, **options: Any) -> Array:
        """Run forward with a batch norm behind, for inference (``functional.conv_norm_infer``)."""
        kernel, bias = self.params["kernel"], self.params.get("bias")
        options |= {"math": self.math, "shape": self._geometry(x.shape), "owner": self.label}
        return F.conv_norm_infer(x, kernel, bias, *norm, **options)

    def _forward_before_norm(self, x: Array, *norm: Array, **options: Any) -> tuple[Array, ...]:
        """Run forward and a batch norm in training behind it (``functional.conv_norm_train``)."""
        shape, kernel, bias = (
            self._geometry(x.shape),
            self.params["kernel"],
            self.params.get("bias"),
        )
        self._save(x, None, shape, "linear", False)
        return F.conv_norm_train(x, kernel, bias, *norm, math=self.math, shape=shape, **options)

    def _backward(
        self, dy: Array, x: Array, kept: Array | F.Mask | None, shape: ConvShape, activation: str,
        with_residual: bool,
    ) -> Array | tuple[Array, Array]:  # fmt: skip
        """Return dx, and the gradient of the residual, if there was one."""
        dy = self._deactivate(dy, kept, activation)
        dx = self._gradients(self._run_backward, dy, x, self.params["kernel"], shape=shape)
        return (dx, dy) if with_residual else dx


class Conv1D(Conv):
    rank = 1
    __doc__ = Conv.__doc__


class Conv2D(Conv):
    rank = 2
    __doc__ = Conv.__doc__


class Conv3D(Conv):
    rank = 3
    __doc__ = Conv.__doc__
