"""Pooling layers: over windows, and over the whole map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .. import functional as F
from ..arguments import Padding, as_tuple, check_data_format, check_padding
from ..backends.base import Array
from ..shapes import PoolShape, check_rank, split_axes
from .base import Layer, Shape

_pool_shape = lru_cache(maxsize=4096)(PoolShape.of)


class Pool(Layer):
    """The maximum, minimum, average or sum (as the name says) of each window of each channel.

    Args:
        pool_size: the window, an int or one for each axis.
        strides: an int or one for each axis; by default the window.
        padding: "valid", "same", an int, one int an axis, or a (before, after) pair an axis; it is
            smaller than the window. It never enters a maximum, a minimum or a sum.
        data_format: "channels_last", (batch, *spatial, channels), or "channels_first".
        ceil_mode: round the output's size up, so that the last window may stick out.
        count_padding: let an average count the padding under the window as zeros.
        dilation_rate: the step between the inputs of a window.

    Example:
        >>> MaxPool2D(2).output_shape((28, 28, 8))
        (14, 14, 8)
    """

    rank: int
    mode: str
    keeps_input = False
    arguments = (
        "pool_size",
        "strides",
        "padding",
        "data_format",
        "ceil_mode",
        "count_padding",
        "dilation_rate",
    )

    def __init__(
        self,
        pool_size: int | Sequence[int] = 2,
        *,
        strides: int | Sequence[int] | None = None,
        padding: Padding = "valid",
        data_format: str = "channels_last",
        ceil_mode: bool = False,
        count_padding: bool = False,
        dilation_rate: int | Sequence[int] = 1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        label = self.label
        self.pool_size = as_tuple(label, "pool_size", pool_size, self.rank)
        self.strides = (
            self.pool_size if strides is None else as_tuple(label, "strides", strides, self.rank)
        )
        self.padding = check_padding(label, padding, self.rank)
        self.data_format = check_data_format(label, data_format)
        self.ceil_mode = bool(ceil_mode)
        self.count_padding = bool(count_padding)
        if count_padding and self.mode != "average":
            raise ValueError(
                f"{label}: count_padding is for averages only. Received: count_padding=True"
            )
        self.dilation_rate = as_tuple(label, "dilation_rate", dilation_rate, self.rank)

    def output_shape(self, input_shape: Shape) -> Shape:
        return self._geometry((1, *input_shape)).y_shape[1:]

    def _require(self, x_shape: Shape) -> None:
        self._geometry(x_shape)

    def _geometry(self, x_shape: Shape) -> PoolShape:
        return _pool_shape(
            tuple(x_shape),
            self.pool_size,
            mode=self.mode,
            rank=self.rank,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            ceil_mode=self.ceil_mode,
            count_padding=self.count_padding,
            channels_last=self.data_format == "channels_last",
            owner=self.label,
        )

    def _forward(self, x: Array, training: bool, activation: str = "linear") -> Array:
        shape = self._geometry(x.shape)
        options = {"with_index": self._keeps, "activation": activation, "owner": self.label}
        y, index = F.pool_forward(x, shape=shape, **options)
        self._save(index, shape)
        return y

    def _backward(self, dy: Array, index: Array | None, shape: PoolShape) -> Array:
        return F.pool_backward(dy, index, shape=shape, owner=self.label)


class GlobalPool(Layer):
    """The maximum, minimum, average or sum of each channel's map: (N, H, W, C) -> (N, C).

    Args:
        keepdims: keep the axes, (N, 1, 1, C).
        data_format: "channels_last", (batch, *spatial, channels), or "channels_first".

    Example:
        >>> GlobalAveragePool2D().output_shape((7, 7, 64))
        (64,)
    """

    rank: int
    mode: str
    keeps_input = False
    arguments = ("keepdims", "data_format")

    def __init__(
        self,
        *,
        keepdims: bool = False,
        data_format: str = "channels_last",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.keepdims = bool(keepdims)
        self.data_format = check_data_format(self.label, data_format)

    def output_shape(self, input_shape: Shape) -> Shape:
        self._require((1, *input_shape))
        channels_last = self.data_format == "channels_last"
        _, channels, _ = split_axes((1, *input_shape), channels_last)
        ones = (1,) * self.rank if self.keepdims else ()
        return (*ones, channels) if channels_last else (channels, *ones)

    def _require(self, x_shape: Shape) -> None:
        check_rank(self.label, x_shape, self.rank, self.data_format == "channels_last")

    def _forward(self, x: Array, training: bool) -> Array:
        y, index = F.global_pool_forward(
            x,
            mode=self.mode,
            keepdims=self.keepdims,
            data_format=self.data_format,
            with_index=self._keeps,
            owner=self.label,
        )
        self._save(index, x.shape)
        return y

    def _backward(self, dy: Array, index: Array | None, x_shape: Shape) -> Array:
        return F.global_pool_backward(
            dy, index, x_shape, mode=self.mode, data_format=self.data_format, owner=self.label
        )


class MaxPool1D(Pool):
    rank, mode = 1, "max"
    __doc__ = Pool.__doc__


class MaxPool2D(Pool):
    rank, mode = 2, "max"
    __doc__ = Pool.__doc__


class MaxPool3D(Pool):
    rank, mode = 3, "max"
    __doc__ = Pool.__doc__


class MinPool1D(Pool):
    rank, mode = 1, "min"
    __doc__ = Pool.__doc__


class MinPool2D(Pool):
    rank, mode = 2, "min"
    __doc__ = Pool.__doc__


class MinPool3D(Pool):
    rank, mode = 3, "min"
    __doc__ = Pool.__doc__


class AveragePool1D(Pool):
    rank, mode = 1, "average"
    __doc__ = Pool.__doc__


class AveragePool2D(Pool):
    rank, mode = 2, "average"
    __doc__ = Pool.__doc__


class AveragePool3D(Pool):
    rank, mode = 3, "average"
    __doc__ = Pool.__doc__


class SumPool1D(Pool):
    rank, mode = 1, "sum"
    __doc__ = Pool.__doc__


class SumPool2D(Pool):
    rank, mode = 2, "sum"
    __doc__ = Pool.__doc__


class SumPool3D(Pool):
    rank, mode = 3, "sum"
    __doc__ = Pool.__doc__


class GlobalMaxPool1D(GlobalPool):
    rank, mode = 1, "max"
    __doc__ = GlobalPool.__doc__


class GlobalMaxPool2D(GlobalPool):
    rank, mode = 2, "max"
    __doc__ = GlobalPool.__doc__


class GlobalMaxPool3D(GlobalPool):
    rank, mode = 3, "max"
    __doc__ = GlobalPool.__doc__


class GlobalMinPool1D(GlobalPool):
    rank, mode = 1, "min"
    __doc__ = GlobalPool.__doc__


class GlobalMinPool2D(GlobalPool):
    rank, mode = 2, "min"
    __doc__ = GlobalPool.__doc__


class GlobalMinPool3D(GlobalPool):
    rank, mode = 3, "min"
    __doc__ = GlobalPool.__doc__


class GlobalAveragePool1D(GlobalPool):
    rank, mode = 1, "average"
    __doc__ = GlobalPool.__doc__


class GlobalAveragePool2D(GlobalPool):
    rank, mode = 2, "average"
    __doc__ = GlobalPool.__doc__


class GlobalAveragePool3D(GlobalPool):
    rank, mode = 3, "average"
    __doc__ = GlobalPool.__doc__


class GlobalSumPool1D(GlobalPool):
    rank, mode = 1, "sum"
    __doc__ = GlobalPool.__doc__


class GlobalSumPool2D(GlobalPool):
    rank, mode = 2, "sum"
    __doc__ = GlobalPool.__doc__


class GlobalSumPool3D(GlobalPool):
    rank, mode = 3, "sum"
    __doc__ = GlobalPool.__doc__


# Keras's long names.
MaxPooling1D, MaxPooling2D, MaxPooling3D = MaxPool1D, MaxPool2D, MaxPool3D
AveragePooling1D, AveragePooling2D, AveragePooling3D = (
    AveragePool1D, AveragePool2D, AveragePool3D,
)  # fmt: skip
GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D = (
    GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D,
)  # fmt: skip
GlobalAveragePooling1D, GlobalAveragePooling2D, GlobalAveragePooling3D = (
    GlobalAveragePool1D, GlobalAveragePool2D, GlobalAveragePool3D,
)  # fmt: skip
