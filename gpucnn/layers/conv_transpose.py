"""Transposed convolution layers: from a small map to a larger one, with learned filters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .. import functional as F
from ..arguments import as_tuple
from ..shapes import ConvShape
from .base import Shape
from .conv import Conv

_conv_transpose_shape = lru_cache(maxsize=4096)(F.conv_transpose_shape)


class ConvTranspose(Conv):
    """Transposed convolution: each input spreads over a window of the output.

    Args:
        filters: output channels.
        kernel_size, strides, and all others: as for ``Conv2D``.
        padding: what is cut off the output's ends. With reach = dilation_rate * (kernel_size - 1)
            + 1 the output's size is: "valid", size * stride + max(reach - stride, 0); "same",
            size * stride; explicit, (size - 1) * stride + reach - before - after + output_padding.
        output_padding: rows added behind, each smaller than the stride; for "valid" they take the
            place of its own, for "same" they must be None.

    Parameters: "kernel" (channels, *kernel_size, filters / groups), the filters of the convolution
    that this transposes, and "bias" (filters,).

    Example:
        >>> Conv2DTranspose(8, 3, strides=2, padding="same").output_shape((7, 7, 16))
        (14, 14, 8)
    """

    arguments = (*Conv.arguments, "output_padding")

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        *,
        output_padding: int | Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **options)
        self.output_padding = (
            None
            if output_padding is None
            else as_tuple(self.label, "output_padding", output_padding, self.rank, minimum=0)
        )

    fused = frozenset()
    _run = staticmethod(F.conv_transpose_forward)
    _run_masked = None
    _run_backward = staticmethod(F.conv_transpose_backward)

    def output_shape(self, input_shape: Shape) -> Shape:
        return self._geometry((1, *input_shape)).x_shape[1:]

    def _kernel_shape(self, channels: int) -> Shape:
        return (channels, *self.kernel_size, self.filters // self.groups)

    def _geometry(self, x_shape: Shape) -> ConvShape:
        channels = self._channels(x_shape)
        return _conv_transpose_shape(
            tuple(x_shape),
            self.params["kernel"].shape if self.built else self._kernel_shape(channels),
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
            owner=self.label,
        )


class Conv1DTranspose(ConvTranspose):
    rank = 1
    __doc__ = ConvTranspose.__doc__


class Conv2DTranspose(ConvTranspose):
    rank = 2
    __doc__ = ConvTranspose.__doc__


class Conv3DTranspose(ConvTranspose):
    rank = 3
    __doc__ = ConvTranspose.__doc__
