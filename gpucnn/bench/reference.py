"""The inputs of a case, and what comes out of it in float64: the taps of a window one by one.

Shares nothing with the backend that is measured. Maps are (N, H, W, C), filters
(K, R, S, C/groups).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .cases import CONVOLUTIONS, STEPS, Case

EPSILON = 1e-3  # of batch normalisation
Inputs = dict[str, np.ndarray]


def draw(case: Case) -> Inputs:
    """Return the arrays that a case reads, the same in every process."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(scale)

    if case.op in STEPS:
        from .networks import CLASSES, image_shape  # which loads the layers

        images = rng.random((case.batch, *image_shape(case.layer)), np.float32)
        return {"x": images, "labels": rng.integers(0, CLASSES, case.batch)}
    inputs = {"x": normal(case.batch, case.size, case.size, case.channels)}
    output = inputs["x"].shape
    if case.op in CONVOLUTIONS:
        shape = case.conv
        fan_in = shape.kernel[0] * shape.kernel[1] * shape.channels // shape.groups
        inputs["w"], output = normal(*shape.w_shape, scale=fan_in**-0.5), shape.y_shape
    elif case.group == "max pool":
        output = case.pool.y_shape
    elif case.group == "batch norm":
        inputs |= {"gamma": normal(case.channels), "beta": normal(case.channels)}
    if not case.op.endswith(("fprop", "pool", "forward", "train")):
        inputs["dy"] = normal(*output)
    return inputs


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest deviation over the root mean square of what was expected.

    >>> relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0])) < 0.15
    True
    """
    scale = float(np.sqrt(np.mean(np.square(expected))))
    return float(np.max(np.abs(found.astype(np.float64) - expected))) / (scale or 1.0)


def expected(case: Case, inputs: Inputs) -> np.ndarray:
    """Return the result of a layer, worked out in float64."""
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    return _RESULTS[case.op](case, **wide)


def _views(case: Case, padded: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield for each tap (r, s) of the window what it reads: (N, P, Q, C) of the padded map."""
    reach = case.dilation * (case.kernel - 1) + 1
    count = (padded.shape[1] - reach) // case.stride + 1  # output positions along an axis
    for r in range(case.kernel):
        for s in range(case.kernel):
            top, left = r * case.dilation, s * case.dilation
            rows = slice(top, top + case.stride * (count - 1) + 1, case.stride)
            columns = slice(left, left + case.stride * (count - 1) + 1, case.stride)
            yield r, s, padded[:, rows, columns]


def _padded(case: Case, x: np.ndarray, value: float = 0.0) -> np.ndarray:
    sides = (case.padding, case.padding)
    return np.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=value)


def _inner(case: Case, padded: np.ndarray) -> np.ndarray:
    """Return the map without its padding."""
    inner = slice(case.padding, case.padding + case.size)
    return padded[:, inner, inner]


def _by_group(case: Case, maps: np.ndarray) -> np.ndarray:
    """(N, P, Q, channels) -> (groups, N*P*Q, channels / groups)"""
    grouped = maps.reshape(-1, case.groups, maps.shape[-1] // case.groups)
    return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def _filters(case: Case, w: np.ndarray, r: int, s: int) -> np.ndarray:
    """(K, R, S, C/groups) -> (groups, C/groups, K/groups) of one tap"""
    return w[:, r, s].reshape(case.groups, case.filters // case.groups, -1).transpose(0, 2, 1)


def _fprop(case: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    y = 0.0
    for r, s, view in _views(case, _padded(case, x)):
        y = y + _by_group(case, view) @ _filters(case, w, r, s)
    return y.transpose(1, 0, 2).reshape(case.conv.y_shape)  # (groups, N*P*Q, K/groups) -> y


def _dgrad(case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> np.ndarray:
    dx = _padded(case, np.zeros_like(x))
    dy = _by_group(case, dy)
    for r, s, view in _views(case, dx):
        products = dy @ _filters(case, w, r, s).transpose(0, 2, 1)  # (groups, N*P*Q, C/groups)
        view += products.transpose(1, 0, 2).reshape(view.shape)
    return _inner(case, dx)


def _wgrad(case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> np.ndarray:
    dw = np.empty_like(w)
    dy = _by_group(case, dy).transpose(0, 2, 1)  # (groups, K/groups, N*P*Q)
    for r, s, view in _views(case, _padded(case, x)):
        products = dy @ _by_group(case, view)  # (groups, K/groups, C/groups)
        dw[:, r, s] = products.reshape(case.filters, -1)
    return dw


def _max_pool(case: Case, x: np.ndarray) -> np.ndarray:
    return np.maximum.reduce([view for _, _, view in _views(case, _padded(case, x, -np.inf))])


def _max_pool_backward(case: Case, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    y, padded = _max_pool(case, x), _padded(case, x, -np.inf)
    dx, taken = np.zeros_like(padded), np.zeros(y.shape, bool)
    for (_, _, view), (_, _, gradient) in zip(_views(case, padded), _views(case, dx), strict=True):
        here = (view == y) & ~taken
        gradient += dy * here
        taken |= here
    return _inner(case, dx)


def _batch_norm(case: Case, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return gamma * _normalised(x) + beta


def _normalised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + EPSILON)


def _batch_norm_backward(
    case: Case, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, dy: np.ndarray
) -> np.ndarray:
    """dx = gamma / std * (dy - mean(dy) - x_hat * mean(dy * x_hat)): Ioffe & Szegedy 2015."""
    std, x_hat = np.sqrt(x.var((0, 1, 2)) + EPSILON), _normalised(x)
    along = (dy * x_hat).mean((0, 1, 2))
    return gamma / std * (dy - dy.mean((0, 1, 2)) - x_hat * along)


_RESULTS = {
    "conv_fprop": _fprop,
    "conv_dgrad": _dgrad,
    "conv_wgrad": _wgrad,
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "activation_forward": lambda case, x: np.maximum(x, 0.0),
    "activation_backward": lambda case, x, dy: dy * (x > 0),
    "batch_norm_train": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
}
