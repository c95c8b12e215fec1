"""Batch norm (Ioffe & Szegedy 2015), group norm (Wu & He 2018) and so layer norm (Ba et al. 2016).

With m values in a set of statistics, x' = (x - mean) / sqrt(var + epsilon) and y = gamma x' + beta:

    dbeta = sum dy    dgamma = sum dy x'    g = dy gamma
    dx = (g - mean(g) - x' mean(g x')) / sqrt(var + epsilon)

where the means are over the set. In batch norm gamma is one number in a set, so that mean(g) =
gamma dbeta / m and mean(g x') = gamma dgamma / m; with fixed statistics both vanish from dx. Then

    y = a x + (beta - a mean)    dx = a dy + b x + c    a = gamma / sqrt(var + epsilon)
    b = -a dgamma / (m sqrt(var + epsilon))             c = -a dbeta / m - b mean

are two and four calls on a block. In group norm a set is a sample's group: its sums are those of
its channels, each over the positions.
"""

from __future__ import annotations

import numpy as np

from ...shapes import NormShape
from ..base import accumulator
from . import buffers
from .activation import relu
from .blocks import keep, rounded, sample_blocks, share, wide
from .channels import Block, Lanes, along_channels, sample_sums
from .convolution.workspace import workspace

NEAR = 16  # mean^2 / variance, up to which sums are of x itself, at a loss of four bits at most


class _Affine:
    """Blocks of x, normalised: x * scale + shift, with the bits of the forward pass.

    With shift = beta - mean * scale from float64, this is as exact as (x - mean) * scale + beta
    is: both are off by some u |mean| scale, u the unit roundoff, the latter since mean is rounded.
    """

    def __init__(
        self, lanes: Lanes, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray,
        mean: np.ndarray, inverse: np.ndarray,
    ) -> None:  # fmt: skip
        self.dtype = x.dtype
        self.view = lanes.view(x)
        self.scale, self.shift = lanes.along(_factors(gamma, beta, mean, inverse))

    def __call__(self, block: Block, out: np.ndarray) -> np.ndarray:
        np.multiply(self.view[block], self.scale, out=out)
        out += self.shift
        return out

    def passed(self, block: Block, activation: str) -> np.ndarray:
        """Return where a ReLU or ReLU6 lets the result, rounded to the dtype of x, through."""
        part = self.view[block]
        out = workspace.take("norm", part.shape, self.scale.dtype)
        if out.dtype != self.dtype or activation == "relu6":
            return _passed(self(block, out).astype(self.dtype, copy=False), activation)
        # a sum of two numbers is never rounded to 0
        return np.multiply(part, self.scale, out=out) > -self.shift


def _passed(y: np.ndarray, activation: str) -> np.ndarray:
    return (y > 0) & (y < 6) if activation == "relu6" else y > 0


def scale_and_shift(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the factor and the term of each channel, in the dtype of the statistics."""
    scale, shift = _factors(gamma, beta, mean, _inverse(var, epsilon))
    return scale, shift


def _factors(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, inverse: np.ndarray
) -> np.ndarray:
    both = np.empty((2, len(gamma)), mean.dtype)
    both[0] = gamma * inverse
    both[1] = beta - mean.astype(np.float64) * both[0]
    return both


def _inverse(var: np.ndarray, epsilon: float) -> np.ndarray:
    return 1 / np.sqrt(var.astype(np.float64) + float(epsilon))


class Normalisations:
    """``batch_norm_train``, ``_infer`` and ``_backward``; ``group_norm_forward``, ``_backward``."""

    def batch_norm_train(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, shape: NormShape,
        activation: str = "linear", residual: np.ndarray | None = None,
        moving: tuple[np.ndarray, np.ndarray] | None = None, momentum: float = 0.0,
        applies: bool = True,
    ) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:  # fmt: skip
        mean, var = (value.astype(accumulator(x.dtype)) for value in _statistics(x, shape))
        for old, new in zip(moving if moving and x.size else (), (mean, var), strict=False):
            way = np.subtract(new, old, out=workspace.take("moving", old.shape, old.dtype))
            way *= 1 - momentum
            old += way
        if not applies:
            return None, mean, var
        y = self.batch_norm_infer(x, gamma, beta, mean, var, epsilon, shape, activation, residual)
        return y, mean, var

    def batch_norm_infer(
        self, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, shape: NormShape, activation: str = "linear",
        residual: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        lanes = Lanes(x, shape)
        y = lanes.empty(x.dtype)
        affine = _Affine(lanes, x, gamma, beta, mean, _inverse(var, epsilon))
        target, other = lanes.view(y), None if residual is None else lanes.view(residual)

        def fill(block: Block) -> None:
            out = target[block]
            part = affine(block, _scratch_for(out))
            if other is not None:
                part += other[block]
            if activation != "linear":
                relu(part, out=part)
            if activation == "relu6":
                np.minimum(part, 6, out=part)
            if part is not out:
                out[...] = part

        share(fill, lanes.blocks, lanes.alone)
        return y

    def batch_norm_backward(
        self, dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
        epsilon: float, training: bool, shape: NormShape, activation: str = "linear",
        beta: np.ndarray | None = None, y: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
        lanes, inverse = Lanes(x, shape), _inverse(var, epsilon)
        dx = lanes.empty(dy.dtype)
        target, slopes, source = lanes.view(dx), lanes.view(dy), lanes.view(x)
        output = None if y is None else lanes.view(y)
        # What ReLU let through of dy: where nobody asks for it, dx is where it waits.
        dresidual = None if y is None else lanes.empty(dy.dtype)
        masked = slopes if activation == "linear" else lanes.view(dx if y is None else dresidual)
        affine = None if beta is None else _Affine(lanes, x, gamma, beta, mean, inverse)
        centre = None if _is_near(mean * inverse, np.ones_like(inverse)) else lanes.along(mean)

        def reduce(block: Block) -> list[np.ndarray]:
            if activation != "linear":
                if output is None:
                    passed = affine.passed(block, activation)
                else:
                    passed = _passed(output[block], activation)
                keep(slopes[block], passed, out=masked[block])
            grad, part = wide(masked[block]), wide(source[block])
            terms = workspace.take("norm", part.shape, part.dtype)
            if centre is not None:
                part = np.subtract(part, centre, out=terms)
            return [lanes.sums(grad), lanes.sums(np.multiply(part, grad, out=terms))]

        dbeta, dgamma = lanes.totals(reduce, 2)
        if centre is None:
            dgamma -= mean * dbeta
        dgamma *= inverse
        through = gamma * inverse / -max(1, shape.batch * shape.length)
        abc = np.empty((3, shape.channels), mean.dtype)
        abc[0] = gamma * inverse
        abc[1] = through * inverse * dgamma
        abc[2] = through * dbeta - mean * abc[1]
        a, b, c = lanes.along(abc)

        def fill(block: Block) -> None:
            out = target[block]
            part = np.multiply(masked[block], a, out=_scratch_for(out))
            if training:
                terms = workspace.take("norm", part.shape, part.dtype)
                part += np.multiply(source[block], b, out=terms)
                part += c
            if part is not out:
                out[...] = part

        share(fill, lanes.blocks, lanes.alone)
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


def _scratch_for(out: np.ndarray) -> np.ndarray:
    """Return where a block of a result is worked out: itself, if it has the dtype of the sums."""
    sums = accumulator(out.dtype)
    return out if out.dtype == sums else workspace.take("norm result", out.shape, sums)


def _is_near(mean: np.ndarray, var: np.ndarray) -> bool:
    """Return whether ``NEAR`` holds of all channels."""
    return bool(((np.square(mean) <= NEAR * var) & np.isfinite(var)).all())


def _statistics(x: np.ndarray, shape: NormShape) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and variance of each channel, in float64, in one pass over x if that will do.

    From the sums of d = x - s and of d^2: mean = s + mean(d), variance = mean(d^2) - mean(d)^2. The
    variance's relative error is that of the sums times 1 + (mean - s)^2 / variance (Chan, Golub &
    LeVeque, "Algorithms for computing the sample variance", 1983), so that s = 0 serves means near
    0, and for others a second pass has s = mean.
    """
    lanes, count, sums = Lanes(x, shape), max(1, shape.batch * shape.length), accumulator(x.dtype)
    view, centre, shift = lanes.view(x), None, np.zeros(shape.channels, sums)

    def moments(block: Block) -> list[np.ndarray]:
        part = wide(view[block])
        terms = workspace.take("norm", part.shape, sums)
        if centre is not None:
            part = np.subtract(part, centre, out=terms)
        return [lanes.sums(part), lanes.sums(np.square(part, out=terms))]

    for _ in range(2):
        first, second = lanes.totals(moments, 2) / count
        mean, var = shift + first, np.maximum(second - np.square(first), 0)
        if _is_near(first, var):
            break
        shift = np.where(np.isfinite(mean), mean, 0).astype(sums)
        centre = lanes.along(shift)
    return mean, var
