"""Normalisation on the GPU (kernels/{batch_norm,group_norm}.cu, on sums of channels.py).

Batch norm of few numbers a channel is column_norm.cu's.
"""

from __future__ import annotations

import math

import numpy as np

from ...shapes import NormShape
from ..base import Array, accumulator
from . import columns
from .channels import ChannelSums, norm_record
from .kernel import CHANNELS_LAST, DTYPE, KernelFamily
from .launch import BLOCK_THREADS, ceil_div, pack_size
from .spatial import check_sizes

_AXES = (CHANNELS_LAST, DTYPE)
BATCH_FORWARD = KernelFamily("batch_norm.cu", "batch_norm_forward", *_AXES)
BATCH_BACKWARD = KernelFamily("batch_norm.cu", "batch_norm_backward", *_AXES)
GROUP_FORWARD = KernelFamily("group_norm.cu", "group_norm_forward", *_AXES)
GROUP_BACKWARD = KernelFamily("group_norm.cu", "group_norm_backward", *_AXES)


# Of batch norm's elementwise halves: as many as an H100 holds at once, so that a thread takes many
# packs, and its channels' constants cost little.
THREADS_WANTED = 132 * 3 * BLOCK_THREADS


class Normalisations(ChannelSums):
    """``batch_norm_train``, ``_infer`` and ``_backward``; ``group_norm_forward``, ``_backward``."""

    def batch_norm_train(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape,
        activation: str = "linear", residual: Array | None = None,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0, applies: bool = True,
    ) -> tuple[Array | None, Array, Array]:  # fmt: skip
        if columns.are_few(shape):
            y, mean, var = columns.norm_train(
                self, x, gamma, beta, epsilon, shape, activation, residual, moving, momentum
            )
            return y if applies else None, mean, var
        (mean, var), _ = self._channel_sums("moments", x, shape, moving=moving, momentum=momentum)
        if not applies:
            return None, mean, var
        y = self.batch_norm_infer(x, gamma, beta, mean, var, epsilon, shape, activation, residual)
        return y, mean, var

    def batch_norm_infer(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, epsilon: float,
        shape: NormShape, activation: str = "linear", residual: Array | None = None,
    ) -> Array:  # fmt: skip
        y = self.xp.empty_like(x)
        self._launch_strided(
            BATCH_FORWARD, shape, x, residual, gamma, beta, mean, var,
            accumulator(x.dtype).type(epsilon), activation != "linear",
            columns.ceiling(activation, x), y,
        )  # fmt: skip
        return y

    def batch_norm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, epsilon: float,
        training: bool, shape: NormShape, activation: str = "linear", beta: Array | None = None,
        y: Array | None = None,
    ) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
        # the mask of a ReLU follows from x, or from y, where a residual was added
        beta = beta if activation != "linear" and y is None else None
        if columns.are_few(shape):
            return columns.norm_backward(
                self, dy, x, gamma, mean, var, epsilon, training, shape, activation, beta, y
            )
        above = columns.ceiling(activation, x)
        masked = None if y is None else self.xp.empty_like(dy)
        sums, (dbeta, dgamma) = self._channel_sums(
            "batch_gradient", dy, shape, x=x, y=y, gamma=gamma, beta=beta, mean=mean, var=var,
            epsilon=epsilon, above=above, masked=masked,
        )  # fmt: skip
        dx = self.xp.empty_like(x)
        number = accumulator(x.dtype).type
        inverse_count = number(1.0 / max(1, shape.batch * shape.length) if training else 0.0)
        self._launch_strided(
            BATCH_BACKWARD, shape, dy if masked is None else masked, x, gamma, beta, mean, var,
            number(epsilon), above, sums, inverse_count, dx,
        )  # fmt: skip
        return dx, dgamma, dbeta, masked

    def _launch_strided(
        self, family: KernelFamily, shape: NormShape, *arguments: Array | float
    ) -> None:
        """Launch threads that take every ``stride``-th element of the first array, in packs.

        Raises:
            ValueError: the stride would pass the 2^31 that kernels count to.
        """
        first, pack = arguments[0], pack_size(arguments[0])
        if first.size == 0:
            return
        period = shape.channels if shape.channels_last else shape.channels * shape.length
        period = math.lcm(period, pack)  # after which the channels repeat
        periods = max(1, min(THREADS_WANTED * pack // period, ceil_div(first.size, period)))
        stride = period * periods
        check_sizes("batch norm", ("one sample, in whole packs", stride, 31))
        self.launch_elements(
            family(shape.channels_last, first.dtype), stride // pack, *arguments,
            np.int64(first.size), stride, norm_record(shape),
        )  # fmt: skip

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
