"""Batch and group normalisation, and the bias gradient: sums over a channel or a group."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def _nlc(x: np.ndarray, s: Any) -> np.ndarray:
    """An activation as (sample, position, channel), in float64."""
    x = np.asarray(x).astype(np.float64)
    if s.channels_last:
        return x.reshape(s.batch, s.length, s.channels)
    return np.moveaxis(x.reshape(s.batch, s.channels, s.length), 1, 2)


def _as_given(y: np.ndarray, like: np.ndarray, s: Any) -> np.ndarray:
    return (y if s.channels_last else np.moveaxis(y, 2, 1)).reshape(like.shape)


def _mean_and_variance(values: np.ndarray) -> tuple[float, float]:
    mean = values.sum() / values.size
    return mean, ((values - mean) ** 2).sum() / values.size


def bias_grad(dy: np.ndarray, s: Any) -> np.ndarray:
    """db[c] = sum of dy over samples and positions."""
    dy = _nlc(dy, s)
    return np.array([dy[:, :, c].sum() for c in range(s.channels)])


def batch_norm_train(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, s: Any,
    activation: str = "linear", residual: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Ioffe and Szegedy 2015, algorithm 1, over each channel of the batch."""
    rows = _nlc(x, s)
    statistics = [_mean_and_variance(rows[:, :, c]) for c in range(s.channels)]
    mean, var = (np.array(values) for values in zip(*statistics, strict=True))
    y = batch_norm_infer(x, gamma, beta, mean, var, epsilon, s, activation, residual)
    return y, mean, var


def batch_norm_infer(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray,
    epsilon: float, s: Any, activation: str = "linear", residual: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    rows = _nlc(x, s)
    y = np.zeros(rows.shape)
    for c in range(s.channels):
        normal = (rows[:, :, c] - float(mean[c])) / math.sqrt(float(var[c]) + epsilon)
        y[:, :, c] = float(gamma[c]) * normal + float(beta[c])
    if residual is not None:
        y = y + _nlc(residual, s)
    if activation != "linear":
        y[y <= 0] = 0.0
    if activation == "relu6":
        y[y >= 6] = 6.0
    return _as_given(y, x, s)


def _gradient_through(normal: np.ndarray, dnormal: np.ndarray, deviation: float) -> np.ndarray:
    """dx of normal = (x - mean(x)) / deviation(x), where dnormal is the gradient of ``normal``.

    The mean takes out the part of dnormal that moves all x alike, the deviation the part that
    stretches them: Ioffe and Szegedy 2015, section 3, with their three terms put together.
    """
    shift = dnormal.sum() / dnormal.size
    stretch = (dnormal * normal).sum() / dnormal.size
    return (dnormal - shift - normal * stretch) / deviation


def batch_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
    epsilon: float, training: bool, s: Any, activation: str = "linear",
    beta: np.ndarray | None = None, y: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
    """Of f(norm(x) + residual): what of dy f lets through is the gradient of both terms."""
    rows, gradients = _nlc(x, s), _nlc(dy, s)
    if activation != "linear":
        out = batch_norm_infer(x, gamma, beta, mean, var, epsilon, s) if y is None else y
        most = 6 if activation == "relu6" else math.inf
        passed = (_nlc(out, s) > 0) & (_nlc(out, s) < most)
        gradients = np.where(passed, gradients, 0.0)
    dx, dgamma, dbeta = np.zeros(rows.shape), np.zeros(s.channels), np.zeros(s.channels)
    for c in range(s.channels):
        g, deviation = gradients[:, :, c], math.sqrt(float(var[c]) + epsilon)
        normal = (rows[:, :, c] - float(mean[c])) / deviation
        dgamma[c], dbeta[c] = (g * normal).sum(), g.sum()
        dnormal = g * float(gamma[c])
        if training:
            dx[:, :, c] = _gradient_through(normal, dnormal, deviation)
        else:
            dx[:, :, c] = dnormal / deviation
    dresidual = None if y is None else _as_given(gradients, x, s)
    return _as_given(dx, x, s), dgamma, dbeta, dresidual


def _group(s: Any, g: int) -> slice:
    size = s.channels // s.groups
    return slice(g * size, g * size + size)


def group_norm_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float, s: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wu and He 2018: mean and variance over the positions and channels of a sample's group."""
    rows, gamma, beta = _nlc(x, s), gamma.astype(np.float64), beta.astype(np.float64)
    y = np.zeros(rows.shape)
    mean, var = np.zeros((s.batch, s.groups)), np.zeros((s.batch, s.groups))
    for n, g in np.ndindex(s.batch, s.groups):
        c = _group(s, g)
        mean[n, g], var[n, g] = _mean_and_variance(rows[n, :, c])
        normal = (rows[n, :, c] - mean[n, g]) / math.sqrt(var[n, g] + epsilon)
        y[n, :, c] = gamma[c] * normal + beta[c]
    return _as_given(y, x, s), mean, var


def group_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray,
    epsilon: float, s: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    rows, gradients, gamma = _nlc(x, s), _nlc(dy, s), gamma.astype(np.float64)
    dx, dgamma, dbeta = np.zeros(rows.shape), np.zeros(s.channels), np.zeros(s.channels)
    for n, g in np.ndindex(s.batch, s.groups):
        c, deviation = _group(s, g), math.sqrt(float(var[n, g]) + epsilon)
        normal = (rows[n, :, c] - float(mean[n, g])) / deviation
        dgamma[c] += (gradients[n, :, c] * normal).sum(axis=0)
        dbeta[c] += gradients[n, :, c].sum(axis=0)
        dx[n, :, c] = _gradient_through(normal, gradients[n, :, c] * gamma[c], deviation)
    return _as_given(dx, x, s), dgamma, dbeta
