"""Activations and sums on the GPU (kernels/{activation,mask,prelu,add}.cu)."""

from __future__ import annotations

import math

import numpy as np

from ...shapes import NormShape
from ..base import ACTIVATIONS, Array, accumulator, bend
from .channels import ChannelSums, norm_record
from .kernel import CHANNELS_LAST, DTYPE, Axis, KernelFamily
from .launch import batch_parts

# leaky_relu -> struct LeakyRelu of kernels/activations.cuh
_KIND: Axis = {
    kind: (kind, {"ACTIVATION": kind.title().replace("_", "")}) for kind in sorted(ACTIVATIONS)
}
FORWARD = KernelFamily("activation.cu", "activation_forward", _KIND, DTYPE)
BACKWARD = KernelFamily("activation.cu", "activation_backward", _KIND, DTYPE)
ADD = KernelFamily("add.cu", "add", DTYPE)
MASK_FORWARD = KernelFamily("mask.cu", "mask_forward", DTYPE)
MASK_OF = KernelFamily("mask.cu", "mask_of", DTYPE)
MASK_BACKWARD = KernelFamily("mask.cu", "mask_backward", DTYPE)
PRELU_FORWARD = KernelFamily("prelu.cu", "prelu_forward", CHANNELS_LAST, DTYPE)
PRELU_BACKWARD = KernelFamily("prelu.cu", "prelu_backward", CHANNELS_LAST, DTYPE)


class Activations(ChannelSums):
    """``activation_...``, ``mask_backward``, ``prelu_forward`` and ``_backward``, ``add``."""

    def activation_forward(self, x: Array, kind: str, alpha: float) -> Array:
        y = self.xp.empty_like(x)
        self.launch_packs(FORWARD(kind, x.dtype), x, x, y, accumulator(x.dtype).type(alpha))
        return y

    def activation_backward(self, dy: Array, saved: Array, kind: str, alpha: float) -> Array:
        dx = self.xp.empty_like(dy)
        self.launch_packs(
            BACKWARD(kind, dy.dtype), dy, dy, saved, dx, accumulator(dy.dtype).type(alpha)
        )
        return dx

    def activation_masked(
        self, x: Array, kind: str, alpha: float, residual: Array | None = None
    ) -> tuple[Array, Array]:
        y, mask = self.xp.empty_like(x), self.empty_mask(x.size)
        bends = bend_record(kind, alpha, x.dtype)
        self.launch_octets(MASK_FORWARD(x.dtype), x, x, residual, *bends, y, mask)
        return y, mask

    def activation_mask(self, y: Array, kind: str, alpha: float) -> Array:
        mask = self.empty_mask(y.size)
        _, ceiling = bend_record(kind, alpha, y.dtype)
        self.launch_octets(MASK_OF(y.dtype), y, y, ceiling, mask)
        return mask

    def mask_backward(
        self, dy: Array, mask: Array, axes: tuple[int, ...], slope: float, scale: float
    ) -> Array:
        dx, number = self.xp.empty_like(dy), accumulator(dy.dtype).type
        self.launch_octets(MASK_BACKWARD(dy.dtype), dy, dy, mask, number(slope), number(scale), dx)
        return dx

    def add(self, a: Array, b: Array, activation: str = "linear") -> Array:
        y = self.xp.empty_like(a)
        self.launch_packs(ADD(a.dtype), a, a, b, activation == "relu", y)
        return y

    def prelu_forward(self, x: Array, slope: Array, shape: NormShape) -> Array:
        y = self.xp.empty_like(x)
        kernel = PRELU_FORWARD(shape.channels_last, x.dtype)
        for part, y_part in batch_parts(shape.channels * shape.length, x, y):
            self.launch_elements(
                kernel, part.size, part, slope, y_part, part.size, norm_record(shape)
            )
        return y

    def prelu_backward(
        self, dy: Array, x: Array, slope: Array, shape: NormShape
    ) -> tuple[Array, Array]:
        dx = self.xp.empty_like(x)
        kernel = PRELU_BACKWARD(shape.channels_last, x.dtype)
        for dy_part, part, dx_part in batch_parts(shape.channels * shape.length, dy, x, dx):
            self.launch_elements(
                kernel, part.size, dy_part, part, slope, dx_part, part.size, norm_record(shape)
            )
        _, (dslope,) = self._channel_sums("slope", dy, shape, x=x)
        return dx, dslope


def bend_record(kind: str, alpha: float, dtype: np.dtype) -> tuple[np.generic, np.generic]:
    """Return slope and ceiling of ``bend`` as kernels take them, NaN for no ceiling."""
    slope, ceiling = bend(kind, alpha)
    number = accumulator(dtype).type
    return number(slope), number(math.nan if ceiling is None else ceiling)
