"""Convolution: arrays brought to pixel-major memory, and the algorithm that is chosen run on it."""

from __future__ import annotations

import numpy as np

from ...shapes import ConvShape, NormShape
from ..base import FUSED, NormOnLoad
from . import buffers
from .blocks import rounded, wide
from .channels import bias_grad
from .convolution import Finish, choose
from .memory import as_activation, pixel_major


class Convolutions:
    """``conv_fprop``, ``conv_dgrad``, ``conv_wgrad`` and ``bias_grad``."""

    def conv_fprop(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, shape: ConvShape,
        activation: str = "linear", math: str = "strict", alpha: float = 0.0,
        residual: np.ndarray | None = None, out_dtype: str | None = None,
        on_load: NormOnLoad | None = None,
    ) -> np.ndarray:  # fmt: skip
        x = self._read(x, on_load, shape)
        bias, last = None if b is None else wide(b), "linear"
        if residual is not None or activation not in FUSED:
            activation, last = "linear", activation
        y = self._fprop(x, w, shape, Finish(shape.batch, bias, activation), math, out_dtype)
        if residual is not None:
            last, with_sum = ("linear", last) if last in FUSED else (last, "linear")
            y = self.add(y, rounded(residual, y.dtype), with_sum)
        return y if last == "linear" else self.activation_forward(y, last, alpha)

    def _fprop(
        self, x: np.ndarray, w: np.ndarray, shape: ConvShape, finish: Finish, math: str,
        out_dtype: str | None = None,
    ) -> np.ndarray:  # fmt: skip
        source, last = wide(pixel_major(x, shape.channels_last)), shape.channels_last
        y = buffers.empty((*shape.output, shape.batch, shape.filters), source.dtype)
        if y.size:
            choose("fprop", shape, y.dtype, math).fprop(source, wide(w), y, shape, finish)
        return as_activation(rounded(y, out_dtype or x.dtype), last)

    def conv_dgrad(
        self, dy: np.ndarray, w: np.ndarray, b: np.ndarray | None, shape: ConvShape,
        math: str = "strict", residual: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        source, last = wide(pixel_major(dy, shape.channels_last)), shape.channels_last
        dx = buffers.empty((*shape.input, shape.batch, shape.channels), source.dtype)
        if dx.size:
            finish = Finish(shape.batch, None if b is None else wide(b))
            choose("dgrad", shape, dx.dtype, math).dgrad(source, wide(w), dx, shape, finish)
        dx = as_activation(rounded(dx, dy.dtype), last)
        return dx if residual is None else self.add(dx, residual)

    def conv_wgrad(
        self, x: np.ndarray, dy: np.ndarray, shape: ConvShape, math: str = "strict",
        on_load: NormOnLoad | None = None,
    ) -> np.ndarray:  # fmt: skip
        if shape.batch == 0:
            return np.zeros(shape.w_shape, x.dtype)
        x = self._read(x, on_load, shape)
        source, gradient = (wide(pixel_major(a, shape.channels_last)) for a in (x, dy))
        dw = choose("wgrad", shape, source.dtype, math).wgrad(source, gradient, shape)
        return np.ascontiguousarray(rounded(dw, x.dtype))

    def rounded(self, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return rounded(x, dtype)

    def bias_grad(self, dy: np.ndarray, shape: NormShape) -> np.ndarray:
        return rounded(bias_grad(dy, shape), dy.dtype)
