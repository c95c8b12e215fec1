"""Activations on the GPU (kernels/activation.cu, kernels/prelu.cu)."""

from __future__ import annotations

from ...shapes import NormShape
from ..base import ACTIVATIONS, Array, accumulator
from .kernel import CHANNELS_LAST, DTYPE, Axis, KernelFamily
from .launch import batch_parts
from .norm import NormOps, norm_record

# leaky_relu -> struct LeakyRelu of kernels/activations.cuh
_KIND: Axis = {
    kind: (kind, {"ACTIVATION": kind.title().replace("_", "")}) for kind in sorted(ACTIVATIONS)
}
FORWARD = KernelFamily("activation.cu", "activation_forward", _KIND, DTYPE)
BACKWARD = KernelFamily("activation.cu", "activation_backward", _KIND, DTYPE)
PRELU_FORWARD = KernelFamily("prelu.cu", "prelu_forward", CHANNELS_LAST, DTYPE)
PRELU_BACKWARD = KernelFamily("prelu.cu", "prelu_backward", CHANNELS_LAST, DTYPE)


class ActivationOps(NormOps):
    """The activations of ``Backend``."""

    def activation_forward(self, x: Array, kind: str, alpha: float) -> Array:
        y = self.xp.empty_like(x)
        self.launch_packs(FORWARD(kind, x.dtype.name), x, x, y, accumulator(x.dtype).type(alpha))
        return y

    def activation_backward(self, dy: Array, saved: Array, kind: str, alpha: float) -> Array:
        dx = self.xp.empty_like(dy)
        self.launch_packs(
            BACKWARD(kind, dy.dtype.name), dy, dy, saved, dx, accumulator(dy.dtype).type(alpha)
        )
        return dx

    def prelu_forward(self, x: Array, slope: Array, shape: NormShape) -> Array:
        y = self.xp.empty_like(x)
        kernel = PRELU_FORWARD(shape.channels_last, x.dtype.name)
        for part in batch_parts(shape.batch, shape.channels * shape.length):
            self.launch_elements(
                kernel, x[part].size, x[part], slope, y[part], x[part].size, norm_record(shape)
            )
        return y

    def prelu_backward(
        self, dy: Array, x: Array, slope: Array, shape: NormShape
    ) -> tuple[Array, Array]:
        dx = self.xp.empty_like(x)
        kernel = PRELU_BACKWARD(shape.channels_last, x.dtype.name)
        for part in batch_parts(shape.batch, shape.channels * shape.length):
            self.launch_elements(
                kernel, x[part].size, dy[part], x[part], slope, dx[part], x[part].size,
                norm_record(shape),
            )  # fmt: skip
        dslope = self._channel_sums("slope", dy, shape, x=x)[0]
        return dx, dslope.astype(slope.dtype, copy=False)
