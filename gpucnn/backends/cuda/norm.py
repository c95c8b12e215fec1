"""Normalisation on the GPU (kernels/{batch_norm,group_norm}.cu, on sums of channels.py)."""

from __future__ import annotations

from ...shapes import NormShape
from ..base import Array, accumulator
from .channels import ChannelSums, norm_record
from .kernel import CHANNELS_LAST, DTYPE, KernelFamily
from .launch import BLOCK_THREADS, batch_parts

_AXES = (CHANNELS_LAST, DTYPE)
BATCH_FORWARD = KernelFamily("batch_norm.cu", "batch_norm_forward", *_AXES)
BATCH_BACKWARD = KernelFamily("batch_norm.cu", "batch_norm_backward", *_AXES)
GROUP_FORWARD = KernelFamily("group_norm.cu", "group_norm_forward", *_AXES)
GROUP_BACKWARD = KernelFamily("group_norm.cu", "group_norm_backward", *_AXES)


class Normalisations(ChannelSums):
    """``batch_norm_train``, ``_infer`` and ``_backward``; ``group_norm_forward``, ``_backward``."""

    def batch_norm_train(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape
    ) -> tuple[Array, Array, Array]:
        scale = 1.0 / max(1, shape.batch * shape.length)
        (mean,), _ = self._channel_sums("sum", x, shape, scale=scale)
        (var,), _ = self._channel_sums("squared_deviation", x, shape, mean=mean, scale=scale)
        return self.batch_norm_infer(x, gamma, beta, mean, var, epsilon, shape), mean, var

    def batch_norm_infer(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, epsilon: float,
        shape: NormShape,
    ) -> Array:  # fmt: skip
        y = self.xp.empty_like(x)
        kernel = BATCH_FORWARD(shape.channels_last, x.dtype)
        epsilon = accumulator(x.dtype).type(epsilon)
        for part, y_part in batch_parts(shape.channels * shape.length, x, y):
            self.launch_elements(
                kernel, part.size, part, gamma, beta, mean, var, epsilon, y_part, part.size,
                norm_record(shape),
            )  # fmt: skip
        return y

    def batch_norm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, epsilon: float,
        training: bool, shape: NormShape,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        sums, (dbeta, dgamma) = self._channel_sums(
            "batch_gradient", dy, shape, x=x, mean=mean, var=var, epsilon=epsilon
        )
        dx = self.xp.empty_like(x)
        kernel = BATCH_BACKWARD(shape.channels_last, x.dtype)
        number = accumulator(x.dtype).type
        inverse_count = number(1.0 / max(1, shape.batch * shape.length) if training else 0.0)
        for dy_part, part, dx_part in batch_parts(shape.channels * shape.length, dy, x, dx):
            self.launch_elements(
                kernel, part.size, dy_part, part, gamma, mean, var, number(epsilon), sums,
                inverse_count, dx_part, part.size, norm_record(shape),
            )  # fmt: skip
        return dx, dgamma, dbeta

    def group_norm_forward(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape
    ) -> tuple[Array, Array, Array]:
        sums = accumulator(x.dtype)
        y = self.xp.empty_like(x)
        mean, var = (self.xp.empty((shape.batch, shape.groups), sums) for _ in range(2))
        self.launch(
            GROUP_FORWARD(shape.channels_last, x.dtype), shape.batch * shape.groups, BLOCK_THREADS,
            x, gamma, beta, sums.type(epsilon), y, mean, var, norm_record(shape),
        )  # fmt: skip
        return y, mean, var

    def group_norm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, epsilon: float,
        shape: NormShape,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        dx = self.xp.empty_like(x)
        self.launch(
            GROUP_BACKWARD(shape.channels_last, x.dtype), shape.batch * shape.groups, BLOCK_THREADS,
            dy, x, gamma, mean, var, accumulator(x.dtype).type(epsilon), dx, norm_record(shape),
        )  # fmt: skip
        _, (dbeta, dgamma) = self._channel_sums(
            "group_gradient", dy, shape, x=x, mean=mean, var=var, epsilon=epsilon
        )
        return dx, dgamma, dbeta
