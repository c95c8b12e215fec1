"""The reference against PyTorch on the CPU, in float64: the very cases that the backends run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpucnn.shapes import PoolShape
from tests import reference
from tests.cases import CONVS, NORMS, POOLS, random
from tests.reference.elementwise import FORWARD, SLOPE

torch = pytest.importorskip("torch")
F = torch.nn.functional


def tensor(array: np.ndarray, channels_last: bool = False, grad: bool = True) -> Any:
    """A copy of an activation as (N, C, ...), or of anything else as it is."""
    array = np.moveaxis(array, -1, 1) if channels_last else array
    return torch.tensor(np.ascontiguousarray(array), requires_grad=grad)


def last(t: Any) -> np.ndarray:
    """An activation of (N, C, ...) with its channels last."""
    return np.moveaxis(t.detach().numpy(), 1, -1)


def flat_pairs(padding: Any) -> list[int]:
    """((before, after), ...) as ``F.pad`` wants it: the last axis first."""
    return [end for pair in reversed(padding) for end in pair]


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CONVS)
def test_convolution(name):
    s = CONVS[name]
    x, w = random("x", s.x_shape, np.float64), random("w", s.w_shape, np.float64)
    b = random("b", (s.filters,), np.float64)
    tx, tw, tb = tensor(x, True), tensor(w, True), tensor(b)
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[s.rank]
    padded = F.pad(tx, flat_pairs(s.padding))
    ty = conv(padded, tw, tb, s.strides, 0, s.dilation, s.groups)
    y = reference.conv_fprop(x, w, b, s)
    close(y, last(ty))
    dy = random("dy", y.shape, np.float64)
    ty.backward(tensor(dy, True, grad=False))
    close(reference.conv_dgrad(dy, w, None, s), last(tx.grad))
    close(reference.conv_wgrad(x, dy, s), last(tw.grad))


# PyTorch pads both ends alike, which ceil mode must know of, and refuses an empty window.
@pytest.mark.parametrize("name", [n for n in POOLS if n not in ("ceil_padded", "dilated_empty")])
def test_max_pool(name):
    s = POOLS[name]
    x = random("x", s.x_shape, np.float64)
    tx = tensor(x, True)
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[s.rank]
    padded = F.pad(tx, flat_pairs(s.padding), value=-np.inf)
    ty = pool(padded, s.window, s.strides, 0, s.dilation, s.ceil_mode)
    y, index = reference.pool_forward(x, s)
    close(y, last(ty))
    dy = random("dy", y.shape, np.float64)
    ty.backward(tensor(dy, True, grad=False))
    close(reference.pool_backward(dy, index, s), last(tx.grad))


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
def test_average_pool(count_padding, ceil_mode):
    s = PoolShape.of(
        (3, 9, 8, 2), (4, 3), strides=(3, 2), padding=((2, 2), (1, 1)), mode="average", rank=2,
        ceil_mode=ceil_mode, count_padding=count_padding,
    )  # fmt: skip
    x = random("x", s.x_shape, np.float64)
    tx = tensor(x, True)
    ty = F.avg_pool2d(tx, s.window, s.strides, (2, 1), ceil_mode, count_padding)
    y, _ = reference.pool_forward(x, s)
    close(y, last(ty))
    dy = random("dy", y.shape, np.float64)
    ty.backward(tensor(dy, True, grad=False))
    close(reference.pool_backward(dy, None, s), last(tx.grad))


def test_max_pool_with_ceil_mode_and_padding():
    s = POOLS["ceil_padded"]
    even = replace(s, padding=((1, 1), (1, 1)))
    x = random("x", even.x_shape, np.float64)
    ty = F.max_pool2d(tensor(x, True), even.window, even.strides, 1, 1, ceil_mode=True)
    close(reference.pool_forward(x, even)[0], last(ty))


TORCH_ACTIVATIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "clipped_relu": lambda x: F.hardtanh(x, 0, 0.3),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "elu": lambda x: F.elu(x, 0.3),
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda x: F.softplus(x, threshold=1e9),
    "softsign": F.softsign,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hard_sigmoid": lambda x: F.relu6(x + 3) / 6,  # F.hardsigmoid has a float32 1/6 in its slope
    "hard_silu": F.hardswish,
}


@pytest.mark.parametrize("kind", FORWARD)
def test_activation(kind):
    x, dy = random("x", (3, 50), np.float64, -8, 8), random("dy", (3, 50), np.float64)
    tx = tensor(x)
    ty = TORCH_ACTIVATIONS[kind](tx)
    ty.backward(tensor(dy, grad=False))
    y = reference.activation_forward(x, kind, 0.3)
    close(y, ty.detach())
    from_output = list(SLOPE).index(kind) < list(SLOPE).index("softplus")
    saved = y if from_output else x
    close(reference.activation_backward(dy, saved, kind, 0.3), tx.grad)


def test_prelu():
    s = NORMS["image"]
    x, dy = (random(name, (3, 5, 7, 12), np.float64) for name in ("x", "dy"))
    slope = random("slope", (12,), np.float64)
    tx, tslope = tensor(x, True), tensor(slope)
    ty = F.prelu(tx, tslope)
    ty.backward(tensor(dy, True, grad=False))
    close(reference.prelu_forward(x, slope, s), last(ty))
    dx, dslope = reference.prelu_backward(dy, x, slope, s)
    close(dx, last(tx.grad))
    close(dslope, tslope.grad)


@pytest.mark.parametrize("log", [False, True])
def test_softmax(log):
    x, dy = random("x", (4, 9), np.float64, -5, 5), random("dy", (4, 9), np.float64)
    tx = tensor(x)
    ty = (F.log_softmax if log else F.softmax)(tx, 1)
    ty.backward(tensor(dy, grad=False))
    y = reference.softmax_forward(x, log)
    close(y, ty.detach())
    close(reference.softmax_backward(dy, y, log), tx.grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("probabilities", [False, True])
def test_cross_entropy(smoothing, probabilities):
    x = random("x", (4, 9), np.float64, -5, 5)
    targets = reference.softmax_forward(-x) if probabilities else np.array([0, 8, 3, 3])
    tx = tensor(x)
    tloss = F.cross_entropy(tx, torch.tensor(targets), reduction="none", label_smoothing=smoothing)
    tloss.sum().backward()
    losses, dx = reference.softmax_cross_entropy(x, targets, smoothing, 0.5)
    close(losses, tloss.detach())
    close(dx, 0.5 * tx.grad)


@pytest.mark.parametrize("kind", ["mse", "mae", "huber", "bce_logits"])
def test_pointwise_loss(kind):
    z, t = random("z", (5, 7), np.float64, -3, 3), random("t", (5, 7), np.float64, 0, 1)
    tz = tensor(z)
    function = {
        "mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss,
        "bce_logits": F.binary_cross_entropy_with_logits,
    }[kind]  # fmt: skip
    tloss = function(tz, tensor(t, grad=False), reduction="none")
    tloss.sum().backward()
    losses, dz = reference.pointwise_loss(z, t, kind, 3.0)
    close(losses, tloss.detach())
    close(dz, 3 * tz.grad)


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training, with_residual, activation):
    s = NORMS["image"]
    x, dy, r = (random(name, (3, 5, 7, 12), np.float64) for name in ("x", "dy", "r"))
    gamma, beta, mean = (random(name, (12,), np.float64) for name in ("gamma", "beta", "mean"))
    var = random("var", (12,), np.float64, 0.5, 2)
    tx, tr, tgamma, tbeta = tensor(x, True), tensor(r, True), tensor(gamma), tensor(beta)
    ty = F.batch_norm(tx, torch.tensor(mean), torch.tensor(var), tgamma, tbeta, training, 0.1, 1e-3)
    ty = ty + tr if with_residual else ty
    ty = F.relu(ty) if activation == "relu" else ty
    ty.backward(tensor(dy, True, grad=False))
    fused = activation, r if with_residual else None
    if training:
        y, mean, var = reference.batch_norm_train(x, gamma, beta, 1e-3, s, *fused)
    else:
        y = reference.batch_norm_infer(x, gamma, beta, mean, var, 1e-3, s, *fused)
    close(y, last(ty))
    fused = activation, None if with_residual else beta, y if with_residual else None
    dx, dgamma, dbeta, dr = reference.batch_norm_backward(
        dy, x, gamma, mean, var, 1e-3, training, s, *fused
    )
    close(dx, last(tx.grad))
    close(dgamma, tgamma.grad)
    close(dbeta, tbeta.grad)
    if with_residual:
        close(dr, last(tr.grad))


def test_bias_grad():
    s, dy = NORMS["image"], random("dy", (3, 5, 7, 12), np.float64)
    close(reference.bias_grad(dy, s), dy.sum(axis=(0, 1, 2)))


@pytest.mark.parametrize("name", NORMS)
def test_group_norm(name):
    s = NORMS[name]
    shape = (s.batch, s.length, s.channels)
    x, dy = random("x", shape, np.float64), random("dy", shape, np.float64)
    gamma, beta = (random(n, (s.channels,), np.float64) for n in ("gamma", "beta"))
    tx, tgamma, tbeta = tensor(x, True), tensor(gamma), tensor(beta)
    ty = F.group_norm(tx, s.groups, tgamma, tbeta, 1e-3)
    ty.backward(tensor(dy, True, grad=False))
    y, mean, var = reference.group_norm_forward(x, gamma, beta, 1e-3, s)
    close(y, last(ty))
    dx, dgamma, dbeta = reference.group_norm_backward(dy, x, gamma, mean, var, 1e-3, s)
    close(dx, last(tx.grad))
    close(dgamma, tgamma.grad)
    close(dbeta, tbeta.grad)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov):
    p, v = random("p", (7,), np.float64), np.zeros(7)
    tp = tensor(p)
    optimizer = torch.optim.SGD([tp], 0.1, 0.9, nesterov=nesterov, weight_decay=0.01)
    for step in range(3):
        g = random(f"g{step}", (7,), np.float64)
        tp.grad = torch.tensor(g)
        optimizer.step()
        p, v = reference.sgd_update(
            p, g, v, 0.01, learning_rate=0.1, momentum=0.9, nesterov=nesterov, grad_scale=1.0
        )
        close(p, tp.detach())


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(decoupled):
    p, m, v = random("p", (7,), np.float64), np.zeros(7), np.zeros(7)
    tp = tensor(p)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([tp], 0.1, (0.8, 0.95), eps=1e-3, weight_decay=0.01)
    for step in range(3):
        g = random(f"g{step}", (7,), np.float64)
        tp.grad = torch.tensor(g)
        optimizer.step()
        p, m, v = reference.adam_update(
            p, g, m, v, 0.01, learning_rate=0.1, beta_1=0.8, beta_2=0.95, epsilon=1e-3,
            correction_1=1 - 0.8 ** (step + 1), correction_2=1 - 0.95 ** (step + 1),
            decoupled=decoupled, grad_scale=1.0,
        )  # fmt: skip
        close(p, tp.detach())
