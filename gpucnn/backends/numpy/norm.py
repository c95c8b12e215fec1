"""Batch norm (Ioffe & Szegedy 2015), group norm (Wu & He 2018) and so layer norm (Ba et al. 2016).

With m values in a set of statistics, x' = (x - mean) / sqrt(var + epsilon) and y = gamma x' + beta:

    dbeta = sum dy    dgamma = sum dy x'    g = dy gamma
    dx = (g - mean(g) - x' mean(g x')) / sqrt(var + epsilon)

where the means are over the set. In batch norm gamma is one number in a set, so that mean(g) =
gamma dbeta / m and mean(g x') = gamma dgamma / m; with fixed statistics both vanish from dx. In
group norm a set is a sample's group: its sums are those of its channels, each over the positions.
"""

from __future__ import annotations

import numpy as np

from ...shapes import NormShape
from ..base import accumulator
from .blocks import keep, rounded, sample_blocks, wide
from .channels import (
    along_channels,
    bias_grad,
    by_channel,
    channel_blocks,
    channel_sums,
    sample_sums,
)


class Normalisations:
    """``batch_norm_train``, ``_infer`` and ``_backward``; ``group_norm_forward``, ``_backward``."""

    def batch_norm_train(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, shape: NormShape,
        activation: str = "linear", residual: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        count, last = max(1, shape.batch * shape.length), shape.channels_last
        mean = bias_grad(x, shape) / count
        var, view = np.zeros_like(mean), x.reshape(shape.axes)
        for block in channel_blocks(shape):
            part = np.empty(view[block].shape, mean.dtype)
            by_channel(np.subtract, view[block], mean, part, channels_last=last)
            var += channel_sums(np.square(part, out=part), last)
        var /= count
        y = self.batch_norm_infer(x, gamma, beta, mean, var, epsilon, shape, activation, residual)
        return y, mean, var

    def batch_norm_infer(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, shape: NormShape, activation: str = "linear",
        residual: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        y, view = np.empty(shape.axes, x.dtype), x.reshape(shape.axes)
        other = None if residual is None else residual.reshape(shape.axes)
        scale, beta = wide(gamma) / np.sqrt(var + float(epsilon)), wide(beta)
        for block in channel_blocks(shape):
            part = _normalised(view[block], mean, scale, beta, shape)
            if other is not None:
                part += other[block]
            if activation == "relu":
                np.maximum(part, 0, out=part)
            y[block] = part
        return y.reshape(x.shape)

    def batch_norm_backward(
        self, dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, training: bool, shape: NormShape, activation: str = "linear",
        beta: np.ndarray | None = None, y: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
        dx, last = np.empty(shape.axes, dy.dtype), shape.channels_last
        dy_view, x_view = dy.reshape(shape.axes), x.reshape(shape.axes)
        inverse = 1 / np.sqrt(var + float(epsilon))
        scale = wide(gamma) / np.sqrt(var + float(epsilon))  # the same bits as in the forward pass
        masked = None
        if activation == "relu":
            masked = np.empty_like(dy_view)
            for block in channel_blocks(shape):
                if y is not None:
                    out = y.reshape(shape.axes)[block]
                else:
                    out = _normalised(x_view[block], mean, scale, wide(beta), shape).astype(x.dtype)
                masked[block] = keep(np.ascontiguousarray(dy_view[block]), out > 0)
            dy_view = masked
        dbeta = bias_grad(dy_view, shape)
        dgamma = np.zeros_like(dbeta)
        for block in channel_blocks(shape):
            part = np.empty(x_view[block].shape, mean.dtype)
            by_channel(np.subtract, x_view[block], mean, part, channels_last=last)
            part *= dy_view[block]
            dgamma += channel_sums(part, last)
        dgamma *= inverse
        count = max(1, shape.batch * shape.length)
        slope = inverse * dgamma / count
        for block in channel_blocks(shape):
            part = np.empty(x_view[block].shape, mean.dtype)
            if training:
                by_channel(np.subtract, x_view[block], mean, part, channels_last=last)
                by_channel(np.multiply, part, slope, part, channels_last=last)
                np.subtract(dy_view[block], part, out=part)
                by_channel(np.subtract, part, dbeta / count, part, channels_last=last)
                by_channel(np.multiply, part, scale, part, channels_last=last)
            else:
                by_channel(np.multiply, dy_view[block], scale, part, channels_last=last)
            dx[block] = part
        return (
            dx.reshape(x.shape), rounded(dgamma, gamma.dtype), rounded(dbeta, gamma.dtype),
            None if y is None else masked.reshape(x.shape),
        )  # fmt: skip

    def group_norm_forward(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, shape: NormShape
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y = np.empty(shape.axes, x.dtype)
        view, gamma, beta = x.reshape(shape.axes), wide(gamma), wide(beta)
        mean = np.empty((shape.batch, shape.groups), accumulator(x.dtype))
        var = np.empty_like(mean)
        for samples in sample_blocks(shape.axes):
            part = wide(view[samples])
            mean[samples] = _group_means(part, shape)
            part = part - _spread(mean[samples], shape)
            var[samples] = _group_means(np.square(part), shape)
            inverse = 1 / np.sqrt(var[samples] + float(epsilon))
            part *= _spread(inverse, shape, gamma)
            part += along_channels(beta, shape)
            y[samples] = part
        return y.reshape(x.shape), mean, var

    def group_norm_backward(
        self, dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, shape: NormShape,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        dx = np.empty(shape.axes, dy.dtype)
        dy_view, x_view, factor = dy.reshape(shape.axes), x.reshape(shape.axes), wide(gamma)
        inverse = 1 / np.sqrt(var + float(epsilon))
        dgamma = np.zeros(shape.channels, mean.dtype)
        dbeta = np.zeros_like(dgamma)
        for samples in sample_blocks(shape.axes):
            normal = x_view[samples] - _spread(mean[samples], shape)
            normal *= _spread(inverse[samples], shape)
            part = wide(dy_view[samples])
            dbeta += channel_sums(part, shape.channels_last)
            dgamma += channel_sums(part * normal, shape.channels_last)
            part = part * along_channels(factor, shape)
            normal *= _spread(_group_means(part * normal, shape), shape)
            part -= _spread(_group_means(part, shape), shape)
            part -= normal
            part *= _spread(inverse[samples], shape)
            dx[samples] = part
        return dx.reshape(x.shape), rounded(dgamma, gamma.dtype), rounded(dbeta, gamma.dtype)


def _normalised(
    block: np.ndarray, mean: np.ndarray, scale: np.ndarray, beta: np.ndarray, shape: NormShape
) -> np.ndarray:
    """(x - mean) * scale + beta on a block of x, in the dtype of the sums."""
    part, last = np.empty(block.shape, mean.dtype), shape.channels_last
    by_channel(np.subtract, block, mean, part, channels_last=last)
    by_channel(np.multiply, part, scale, part, channels_last=last)
    return by_channel(np.add, part, beta, part, channels_last=last)


def _group_means(part: np.ndarray, shape: NormShape) -> np.ndarray:
    """Average a block of samples over positions and the channels of a group: -> (n, G)."""
    sums = sample_sums(part, shape.channels_last).reshape(len(part), shape.groups, -1).sum(2)
    return sums / (shape.length * (shape.channels // shape.groups))


def _spread(values: np.ndarray, shape: NormShape, gamma: np.ndarray | None = None) -> np.ndarray:
    """Repeat (n, G) for each channel of a group, times ``gamma`` (C,), to broadcast over axes."""
    values = np.repeat(values, shape.channels // shape.groups, axis=1)
    return along_channels(values if gamma is None else values * gamma, shape)
