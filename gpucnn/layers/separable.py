"""Depthwise convolutions, and separable ones: depthwise, then 1x1 across the channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from .. import functional as F
from ..arguments import as_int
from ..backends.base import Array
from ..shapes import ConvShape
from .base import Shape
from .conv import Conv, conv_shape

_WITHOUT_GROUPS = tuple(name for name in Conv.arguments if name != "groups")


class DepthwiseConv(Conv):
    """Convolution of each channel by itself, with ``depth_multiplier`` filters a channel.

    Output channel c * depth_multiplier + m is filter m over input channel c. The other arguments
    are those of ``Conv2D``, without filters and groups.

    Parameters: "kernel" (channels * depth_multiplier, *kernel_size, 1) and "bias".

    Example:
        >>> DepthwiseConv2D(3, depth_multiplier=2).output_shape((8, 8, 5))
        (6, 6, 10)
    """

    arguments = (*(name for name in _WITHOUT_GROUPS if name != "filters"), "depth_multiplier")

    def __init__(
        self, kernel_size: int | Sequence[int], *, depth_multiplier: int = 1, **options: Any
    ) -> None:
        super().__init__(1, kernel_size, groups=1, **options)
        self.depth_multiplier = as_int(self.label, "depth_multiplier", depth_multiplier)

    def _groups(self, channels: int) -> int:
        if self.built:
            return self.params["kernel"].shape[0] // self.depth_multiplier
        return channels

    def _filters(self, channels: int) -> int:
        return channels * self.depth_multiplier


class SeparableConv(Conv):
    """A depthwise convolution, then a 1x1 convolution to ``filters`` channels (Chollet 2017).

    Strides, padding and dilation belong to the depthwise part, bias and activation to the second;
    ``kernel_initializer`` draws both kernels. The arguments are those of ``Conv2D``, without
    groups.

    Parameters: "depthwise_kernel" (channels * depth_multiplier, *kernel_size, 1),
    "pointwise_kernel" (filters, 1, ..., channels * depth_multiplier) and "bias" (filters,).

    Example:
        >>> SeparableConv2D(16, 3, padding="same").output_shape((8, 8, 5))
        (8, 8, 16)
    """

    arguments = (*_WITHOUT_GROUPS, "depth_multiplier")

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        *,
        depth_multiplier: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(filters, kernel_size, groups=1, **options)
        self.depth_multiplier = as_int(self.label, "depth_multiplier", depth_multiplier)

    def output_shape(self, input_shape: Shape) -> Shape:
        return self._geometries((1, *input_shape))[1].y_shape[1:]

    def multiply_adds(self, input_shape: Shape) -> int:
        return sum(shape.multiply_adds for shape in self._geometries((1, *input_shape)))

    def _require(self, x_shape: Shape) -> None:
        self._geometries(x_shape)

    def _geometries(self, x_shape: Shape) -> tuple[ConvShape, ConvShape]:
        """Return the geometry of the depthwise and of the pointwise part."""
        channels = self._channels(x_shape)
        if self.built:
            channels = self.params["depthwise_kernel"].shape[0] // self.depth_multiplier
        middle = channels * self.depth_multiplier
        common = {"data_format": self.data_format, "owner": self.label}
        depthwise = conv_shape(
            tuple(x_shape),
            (middle, *self.kernel_size, 1),
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=channels,
            **common,
        )
        window = (1,) * self.rank
        return depthwise, conv_shape(depthwise.y_shape, (self.filters, *window, middle), **common)

    def _build(self, input_shape: Shape) -> None:
        depthwise, pointwise = self._geometries((1, *input_shape))
        taps = prod(self.kernel_size)
        fans = (taps, taps * self.depth_multiplier)
        self._add("depthwise_kernel", depthwise.w_shape, self.kernel_initializer, fans)
        fans = (pointwise.channels, self.filters)
        self._add("pointwise_kernel", pointwise.w_shape, self.kernel_initializer, fans)
        if self.use_bias:
            self._add("bias", (self.filters,), self.bias_initializer)

    def _forward(self, x: Array, training: bool, masked: bool = False) -> Array:
        depthwise, pointwise = self._geometries(x.shape)
        label, params = self.label, self.params
        middle = F.conv_forward(
            x, params["depthwise_kernel"], math=self.math, shape=depthwise, owner=label
        )
        kernel, bias = params["pointwise_kernel"], params.get("bias")
        y, kept = self._run_activated(
            F.conv_forward,
            middle,
            kernel,
            bias,
            shape=pointwise,
            math=self.math,
            activation=self.activation,
            masked=masked,
        )
        self._save(x, middle, kept)
        return y

    def _backward(self, dy: Array, x: Array, middle: Array, kept: Array | None) -> Array:
        depthwise, pointwise = self._geometries(x.shape)
        dmiddle, self.grads["pointwise_kernel"], db = F.conv_backward(
            self._deactivate(dy, kept, self.activation),
            middle,
            self.params["pointwise_kernel"],
            with_bias=self.use_bias,
            math=self.math,
            shape=pointwise,
            owner=self.label,
        )
        if self.use_bias:
            self.grads["bias"] = db
        dx, self.grads["depthwise_kernel"], _ = F.conv_backward(
            dmiddle,
            x,
            self.params["depthwise_kernel"],
            with_bias=False,
            needs_dx=self.needs_input_gradient,
            residual=self._take_others_gradient(),
            math=self.math,
            shape=depthwise,
            owner=self.label,
        )
        return dx


class DepthwiseConv1D(DepthwiseConv):
    rank = 1
    __doc__ = DepthwiseConv.__doc__


class DepthwiseConv2D(DepthwiseConv):
    rank = 2
    __doc__ = DepthwiseConv.__doc__


class DepthwiseConv3D(DepthwiseConv):
    rank = 3
    __doc__ = DepthwiseConv.__doc__


class SeparableConv1D(SeparableConv):
    rank = 1
    __doc__ = SeparableConv.__doc__


class SeparableConv2D(SeparableConv):
    rank = 2
    __doc__ = SeparableConv.__doc__
