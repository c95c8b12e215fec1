"""Batch norm (Ioffe & Szegedy 2015), group norm (Wu & He 2018) and so layer norm (Ba et al. 2016).

With m values in a set of statistics, x' = (x - mean) / sqrt(var + epsilon) and y = gamma x' + beta:

    dbeta = sum dy    dgamma = sum dy x'    g = dy gamma
    dx = (g - mean(g) - x' mean(g x')) / sqrt(var + epsilon)

where the means are over the set. In batch norm gamma is one number in a set, so that mean(g) =
gamma dbeta / m and mean(g x') = gamma dgamma / m. With fixed statistics both vanish from dx.
"""

from __future__ import annotations

import numpy as np

from ...shapes import NormShape
from ..base import accumulator
from .blocks import rounded, sample_blocks, store, wide
from .channels import bias_grad, channel_blocks, channel_sums, per_channel


def _in_groups(x: np.ndarray, shape: NormShape) -> np.ndarray:
    """View an activation as (N, L, G, C/G), or (N, G, C/G, L) with channels first."""
    depth = shape.channels // shape.groups
    if shape.channels_last:
        return x.reshape(shape.batch, shape.length, shape.groups, depth)
    return x.reshape(shape.batch, shape.groups, depth, shape.length)


def _per_group_channel(vector: np.ndarray, shape: NormShape) -> np.ndarray:
    """Shape a vector (C,) to broadcast over ``_in_groups``."""
    vector = wide(vector).reshape(shape.groups, -1)
    return vector if shape.channels_last else vector[..., None]


def _set_axes(shape: NormShape) -> tuple[int, int]:
    """The axes of ``_in_groups`` over which a sample's group is summed."""
    return (1, 3) if shape.channels_last else (2, 3)


class Normalisations:
    """``batch_norm_train``, ``_infer`` and ``_backward``; ``group_norm_forward``, ``_backward``."""

    def batch_norm_train(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, shape: NormShape
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = max(1, shape.batch * shape.length)
        mean = bias_grad(x, shape) / count
        centre, view = per_channel(mean, shape), x.reshape(shape.axes)
        var = np.zeros_like(mean)
        for block in channel_blocks(shape):
            part = view[block] - centre
            var += channel_sums(np.square(part, out=part), shape)
        var /= count
        return self.batch_norm_infer(x, gamma, beta, mean, var, epsilon, shape), mean, var

    def batch_norm_infer(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, shape: NormShape,
    ) -> np.ndarray:  # fmt: skip
        y = np.empty(shape.axes, x.dtype)
        view, centre, shift = (
            x.reshape(shape.axes),
            per_channel(mean, shape),
            per_channel(beta, shape),
        )
        scale = per_channel(wide(gamma) / np.sqrt(var + float(epsilon)), shape)
        for block in channel_blocks(shape):
            part = view[block] - centre
            part *= scale
            part += shift
            store(y[block], part)
        return y.reshape(x.shape)

    def batch_norm_backward(
        self, dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, training: bool, shape: NormShape,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        dx = np.empty(shape.axes, dy.dtype)
        dy_view, x_view, centre = (
            dy.reshape(shape.axes),
            x.reshape(shape.axes),
            per_channel(mean, shape),
        )
        inverse = 1 / np.sqrt(var + float(epsilon))
        dbeta = bias_grad(dy, shape)
        dgamma = np.zeros_like(dbeta)
        for block in channel_blocks(shape):
            part = x_view[block] - centre
            part *= dy_view[block]
            dgamma += channel_sums(part, shape)
        dgamma *= inverse
        count = max(1, shape.batch * shape.length)
        scale = per_channel(wide(gamma) * inverse, shape)
        mean_g = per_channel(dbeta / count, shape)
        slope = per_channel(inverse * dgamma / count, shape)
        for block in channel_blocks(shape):
            if training:
                part = x_view[block] - centre
                part *= slope
                np.subtract(dy_view[block], part, out=part)
                part -= mean_g
                part *= scale
            else:
                part = dy_view[block] * scale
            store(dx[block], part)
        return dx.reshape(x.shape), rounded(dgamma, gamma.dtype), rounded(dbeta, gamma.dtype)

    def group_norm_forward(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, shape: NormShape
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y = np.empty(x.shape, x.dtype)
        view, target, axes = _in_groups(x, shape), _in_groups(y, shape), _set_axes(shape)
        mean = np.empty((shape.batch, shape.groups), accumulator(x.dtype))
        var = np.empty_like(mean)
        scale, shift = _per_group_channel(gamma, shape), _per_group_channel(beta, shape)
        for samples in sample_blocks(view.shape):
            part = wide(view[samples])
            centre = part.mean(axes, keepdims=True)
            part = part - centre
            spread = np.square(part).mean(axes, keepdims=True)
            part *= 1 / np.sqrt(spread + float(epsilon))
            part *= scale
            part += shift
            store(target[samples], part)
            mean[samples], var[samples] = centre.squeeze(axes), spread.squeeze(axes)
        return y, mean, var

    def group_norm_backward(
        self, dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, shape: NormShape,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        dx = np.empty(x.shape, dy.dtype)
        dy_view, x_view, target = (_in_groups(array, shape) for array in (dy, x, dx))
        axes, scale = _set_axes(shape), _per_group_channel(gamma, shape)
        over = (0, 1) if shape.channels_last else (0, 3)  # samples and positions
        inverse = np.expand_dims(1 / np.sqrt(var + float(epsilon)), axes)
        centre = np.expand_dims(mean, axes)
        dgamma = np.zeros((shape.groups, shape.channels // shape.groups), mean.dtype)
        dbeta = np.zeros_like(dgamma)
        for samples in sample_blocks(x_view.shape):
            normal = x_view[samples] - centre[samples]
            normal *= inverse[samples]
            part = wide(dy_view[samples])
            dbeta += part.sum(over)
            dgamma += (part * normal).sum(over)
            part = part * scale
            along = (part * normal).mean(axes, keepdims=True)
            part -= part.mean(axes, keepdims=True)
            normal *= along
            part -= normal
            part *= inverse[samples]
            store(target[samples], part)
        return (
            dx,
            rounded(dgamma.reshape(-1), gamma.dtype),
            rounded(dbeta.reshape(-1), gamma.dtype),
        )
