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
from . import buffers
from .blocks import keep, rounded, sample_blocks, share, wide
from .channels import Block, Lanes, along_channels, bias_grad, sample_sums
from .convolution.workspace import workspace


class _Normal:
    """Blocks of x, normalised: (x - mean) * scale + beta, with the bits of the forward pass.

    Without ``out`` a block is the thread's scratch memory, until the next one takes it over.
    """

    def __init__(
        self, lanes: Lanes, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray,
        var: np.ndarray, epsilon: float,
    ) -> None:  # fmt: skip
        self.view = lanes.view(x)
        self.mean, self.beta = lanes.along(mean), lanes.along(wide(beta))
        self.scale = lanes.along(wide(gamma) / np.sqrt(var + float(epsilon)))

    def centred(self, block: Block, out: np.ndarray | None = None) -> np.ndarray:
        part = self.view[block]
        if out is None or out.dtype != self.mean.dtype:
            out = workspace.take("norm", part.shape, self.mean.dtype)
        return np.subtract(part, self.mean, out=out)

    def __call__(self, block: Block, out: np.ndarray | None = None) -> np.ndarray:
        part = self.centred(block, out)
        part *= self.scale
        part += self.beta
        return part


class Normalisations:
    """``batch_norm_train``, ``_infer`` and ``_backward``; ``group_norm_forward``, ``_backward``."""

    def batch_norm_train(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, shape: NormShape,
        activation: str = "linear", residual: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        count, lanes = max(1, shape.batch * shape.length), Lanes(x, shape)
        mean = bias_grad(x, shape) / count
        normal = _Normal(lanes, x, gamma, beta, mean, mean, epsilon)

        def squares(block: Block) -> list[np.ndarray]:
            part = normal.centred(block)
            return [lanes.sums(np.square(part, out=part))]

        var = lanes.totals(squares, 1, mean.dtype)[0] / count
        y = self.batch_norm_infer(x, gamma, beta, mean, var, epsilon, shape, activation, residual)
        return y, mean, var

    def batch_norm_infer(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, shape: NormShape, activation: str = "linear",
        residual: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        lanes = Lanes(x, shape)
        y = lanes.empty(x.dtype)
        normal = _Normal(lanes, x, gamma, beta, mean, var, epsilon)
        target, zeros = lanes.view(y), lanes.along(np.zeros_like(mean))
        other = None if residual is None else lanes.view(residual)

        def fill(block: Block) -> None:
            out = target[block]
            part = normal(block, out)
            if other is not None:
                part += other[block]
            if activation == "relu":
                np.maximum(part, zeros, out=part)
            if part is not out:
                out[...] = part

        share(fill, lanes.blocks)
        return y

    def batch_norm_backward(
        self, dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, training: bool, shape: NormShape, activation: str = "linear",
        beta: np.ndarray | None = None, y: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
        lanes = Lanes(x, shape)
        dx = lanes.empty(dy.dtype)
        target, slopes = lanes.view(dx), lanes.view(dy)
        normal = _Normal(lanes, x, gamma, gamma if beta is None else beta, mean, var, epsilon)
        output = None if y is None else lanes.view(y)
        # What ReLU let through of dy: where nobody asks for it, dx is where it waits.
        dresidual = None if y is None else lanes.empty(dy.dtype)
        masked = slopes if activation == "linear" else lanes.view(dx if y is None else dresidual)

        def reduce(block: Block) -> list[np.ndarray]:
            if activation == "relu":
                out = normal(block).astype(x.dtype, copy=False) if y is None else output[block]
                keep(slopes[block], out > 0, out=masked[block])
            part = normal.centred(block)
            part *= masked[block]
            return [lanes.sums(wide(masked[block])), lanes.sums(part)]

        dbeta, dgamma = lanes.totals(reduce, 2, mean.dtype)
        inverse = 1 / np.sqrt(var + float(epsilon))
        dgamma *= inverse
        count = max(1, shape.batch * shape.length)
        slope, offset = lanes.along(inverse * dgamma / count), lanes.along(dbeta / count)

        def fill(block: Block) -> None:
            out, grad = target[block], masked[block]
            if training:
                part = normal.centred(block)
                part *= slope
                part += offset
                part = np.subtract(grad, part, out=part if out.dtype != part.dtype else out)
                part *= normal.scale
            else:
                part = grad * normal.scale
            if part is not out:
                out[...] = part

        share(fill, lanes.blocks)
        return dx, rounded(dgamma, gamma.dtype), rounded(dbeta, gamma.dtype), dresidual

    def group_norm_forward(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, shape: NormShape
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        source = x.reshape(shape.axes)
        target = buffers.empty_like(source)
        gamma, beta = wide(gamma), along_channels(wide(beta), shape)
        mean = np.empty((shape.batch, shape.groups), accumulator(x.dtype))
        var = np.empty_like(mean)

        def fill(samples: slice) -> None:
            part = _together(source[samples])
            mean[samples] = _group_means(part, shape)
            part = part - _spread(mean[samples], shape)
            var[samples] = _group_means(np.square(part), shape)
            inverse = 1 / np.sqrt(var[samples] + float(epsilon))
            part *= _spread(inverse, shape, gamma)
            part += beta
            target[samples] = part

        share(fill, sample_blocks(shape.axes))
        return target.reshape(x.shape), mean, var

    def group_norm_backward(
        self, dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, shape: NormShape,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        slopes, source = dy.reshape(shape.axes), x.reshape(shape.axes)
        target = buffers.empty_like(source)
        factor, inverse = along_channels(wide(gamma), shape), 1 / np.sqrt(var + float(epsilon))
        samples_of = sample_blocks(shape.axes)
        sums = np.empty((len(samples_of), 2, shape.channels), mean.dtype)

        def fill(place: int) -> None:
            samples = samples_of[place]
            normal = _together(source[samples]) - _spread(mean[samples], shape)
            normal *= _spread(inverse[samples], shape)
            part = _together(slopes[samples])
            for total, terms in zip(sums[place], (part * normal, part), strict=True):
                sample_sums(terms, shape.channels_last).sum(0, out=total)
            part = part * factor
            normal *= _spread(_group_means(part * normal, shape), shape)
            part -= _spread(_group_means(part, shape), shape)
            part -= normal
            part *= _spread(inverse[samples], shape)
            target[samples] = part

        share(fill, range(len(samples_of)))
        dgamma, dbeta = sums.sum(0, dtype=np.float64).astype(mean.dtype)
        dx = target.reshape(x.shape)
        return dx, rounded(dgamma, gamma.dtype), rounded(dbeta, gamma.dtype)


def _together(samples: np.ndarray) -> np.ndarray:
    """Return samples in the dtype of the sums and C-contiguous."""
    return np.ascontiguousarray(samples, accumulator(samples.dtype))


def _group_means(part: np.ndarray, shape: NormShape) -> np.ndarray:
    """Average a block of samples over positions and the channels of a group: -> (n, G)."""
    sums = sample_sums(part, shape.channels_last).reshape(len(part), shape.groups, -1).sum(2)
    return sums / (shape.length * (shape.channels // shape.groups))


def _spread(values: np.ndarray, shape: NormShape, gamma: np.ndarray | None = None) -> np.ndarray:
    """Repeat (n, G) for each channel of a group, times ``gamma`` (C,), to broadcast over axes."""
    values = np.repeat(values, shape.channels // shape.groups, axis=1)
    return along_channels(values if gamma is None else values * gamma, shape)
