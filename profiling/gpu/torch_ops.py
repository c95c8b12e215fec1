"""Each operation of the benchmark as PyTorch's functions call it, bound to inputs.

A function takes a case, its inputs in gpucnn's axes and, for maps, the layout; what it does before
it returns the call is not timed. Backward passes are what autograd runs, one gradient at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ours
from .arrays import Inputs
from .cases import Case
from .layouts import Maps, Windows

aten = torch.ops.aten
Call = Callable[[], tuple[Tensor, ...]]


# ---- convolution --------------------------------------------------------------------------------


def _geometry(case: Case, windows: Windows) -> tuple[list[int], list[int], list[int]]:
    """Strides, padding and dilation."""
    shape = case.shape
    return (
        windows.per_axis(shape.strides, 1), windows.padding, windows.per_axis(shape.dilation, 1),
    )  # fmt: skip


def conv_fprop(case: Case, i: Inputs, windows: Windows) -> Call:
    x, w = windows.activation(i["x"]), windows.filters(i["w"])
    conv = F.conv3d if x.ndim == 5 else F.conv2d
    geometry, groups = _geometry(case, windows), case.shape.groups
    return lambda: (windows.back(conv(x, w, None, *geometry, groups)),)


def _backward(case: Case, windows: Windows, dy: Tensor, x: Tensor, w: Tensor, which: int) -> Tensor:
    """One gradient of a convolution: 0 is dx, 1 is dw."""
    mask = [which == 0, which == 1, False]
    strides, padding, dilation = _geometry(case, windows)
    return aten.convolution_backward(
        dy, x, w, None, strides, padding, dilation, False, [0] * len(strides), case.shape.groups,
        mask,
    )[which]  # fmt: skip


def conv_dgrad(case: Case, i: Inputs, windows: Windows) -> Call:
    dy, w = windows.activation(i["dy"]), windows.filters(i["w"])
    # of x only the shape and the layout are read
    x = windows.activation(torch.empty(case.shape.x_shape, dtype=dy.dtype, device=dy.device))
    return lambda: (windows.back(_backward(case, windows, dy, x, w, 0)),)


def conv_dgrad_relu(case: Case, i: Inputs, windows: Windows) -> Call:
    """The gradient of what went into the ReLU that gave x."""
    dy, w, x = windows.activation(i["dy"]), windows.filters(i["w"]), windows.activation(i["x"])
    threshold = aten.threshold_backward
    return lambda: (windows.back(threshold(_backward(case, windows, dy, x, w, 0), x, 0)),)


def conv_dgrad_add(case: Case, i: Inputs, windows: Windows) -> Call:
    """The gradient of an x that others read, too, whose gradients of it are known."""
    dy, w, others = (
        windows.activation(i["dy"]),
        windows.filters(i["w"]),
        windows.activation(i["dx"]),
    )
    # of x only the shape and the layout are read
    return lambda: (windows.back(_backward(case, windows, dy, others, w, 0).add_(others)),)


def conv_wgrad(case: Case, i: Inputs, windows: Windows) -> Call:
    dy, x = windows.activation(i["dy"]), windows.activation(i["x"])
    w = windows.filters(torch.empty(case.shape.w_shape, dtype=dy.dtype, device=dy.device))
    return lambda: (windows.filters_back(_backward(case, windows, dy, x, w, 1)),)


def _conv_relu(case: Case, i: Inputs, windows: Windows) -> Callable[[], Tensor]:
    x, w, b = windows.activation(i["x"]), windows.filters(i["w"]), i["b"]
    conv = F.conv3d if x.ndim == 5 else F.conv2d
    geometry, groups = _geometry(case, windows), case.shape.groups
    return lambda: conv(x, w, b, *geometry, groups).relu_()


def conv_bias_relu(case: Case, i: Inputs, windows: Windows) -> Call:
    run = _conv_relu(case, i, windows)
    return lambda: (windows.back(run()),)


def conv_bias_relu_pool(case: Case, i: Inputs, windows: Windows) -> Call:
    run, window = _conv_relu(case, i, windows), list(case.pool.window)
    return lambda: (windows.back(F.max_pool2d(run(), window)),)


def conv_bias_relu_pool_backward(case: Case, i: Inputs, windows: Windows) -> Call:
    """The gradients of the filters and the bias, as in the first layer of a network."""
    x, w, dy = windows.activation(i["x"]), windows.filters(i["w"]), windows.activation(i["dy"])
    z = _conv_relu(case, i, windows)()
    window = [*case.pool.window], [*case.pool.strides], [0, 0], [1, 1]
    _, index = aten.max_pool2d_with_indices(z, *window)
    strides, padding, dilation = _geometry(case, windows)

    def call() -> tuple[Tensor, ...]:
        dz = aten.max_pool2d_with_indices_backward(dy, z, *window, False, index)
        dz = aten.threshold_backward(dz, z, 0)
        _, dw, db = aten.convolution_backward(
            dz, x, w, [case.shape.filters], strides, padding, dilation, False,
            [0] * len(strides), case.shape.groups, [False, True, True],
        )  # fmt: skip
        return windows.filters_back(dw), db

    return call


def cudnn_conv_relu(case: Case, i: Inputs, windows: Windows) -> Call:
    """cuDNN's own fusion of convolution, bias and ReLU, which eager PyTorch does not choose."""
    x, w, b = windows.activation(i["x"]), windows.filters(i["w"]), i["b"]
    geometry, groups = _geometry(case, windows), case.shape.groups
    return lambda: (windows.back(torch.cudnn_convolution_relu(x, w, b, *geometry, groups)),)


def _normed(i: Inputs, windows: Windows) -> Callable[[], Tensor]:
    """PyTorch wants a norm's parameters in the dtype of its statistics."""
    x, mean = windows.activation(i["x"]), i["mean"]
    norm = mean, i["var"], i["gamma"].to(mean.dtype), i["beta"].to(mean.dtype)
    return lambda: F.hardtanh_(F.batch_norm(x, *norm, False, 0.0, ours.EPSILON), 0.0, 6.0)


def norm_conv(case: Case, i: Inputs, windows: Windows) -> Call:
    normed = _normed(i, windows)
    return lambda: conv_fprop(case, {**i, "x": windows.back(normed())}, windows)()


def norm_conv_wgrad(case: Case, i: Inputs, windows: Windows) -> Call:
    """Of the normalised map, which the forward pass has kept."""
    return conv_wgrad(case, {**i, "x": windows.back(_normed(i, windows)())}, windows)


def linear(case: Case, i: Inputs) -> Call:
    """A convolution of maps of one pixel as products of matrices."""
    flat = {name: i[name].flatten(1) for name in ("x", "w", "dy") if name in i}
    shape = case.shape
    if case.op == "conv_fprop":
        return lambda: (F.linear(flat["x"], flat["w"]).reshape(shape.y_shape),)
    if case.op == "conv_dgrad":
        return lambda: ((flat["dy"] @ flat["w"]).reshape(shape.x_shape),)
    return lambda: ((flat["dy"].T @ flat["x"]).reshape(shape.w_shape),)


# ---- pooling ------------------------------------------------------------------------------------


def _window(case: Case, windows: Windows) -> tuple[list[int], list[int], list[int]]:
    """Window, strides and padding."""
    shape = case.shape
    return windows.per_axis(shape.window, 1), windows.per_axis(shape.strides, 1), windows.padding


def _max_pool(case: Case, windows: Windows, x: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    pool = aten.max_pool3d_with_indices if x.ndim == 5 else aten.max_pool2d_with_indices
    geometry = (*_window(case, windows), windows.per_axis(case.shape.dilation, 1))
    return lambda: pool(x, *geometry, case.shape.ceil_mode)


def max_pool(case: Case, i: Inputs, windows: Windows) -> Call:
    run = _max_pool(case, windows, windows.activation(i["x"]))
    return lambda: tuple(map(windows.back, run()))


def max_pool_backward(case: Case, i: Inputs, windows: Windows) -> Call:
    x, dy = windows.activation(i["x"]), windows.activation(i["dy"])
    _, index = _max_pool(case, windows, x)()
    backward = (
        aten.max_pool3d_with_indices_backward if x.ndim == 5
        else aten.max_pool2d_with_indices_backward
    )  # fmt: skip
    geometry = (*_window(case, windows), windows.per_axis(case.shape.dilation, 1))
    return lambda: (windows.back(backward(dy, x, *geometry, case.shape.ceil_mode, index)),)


def average_pool(case: Case, i: Inputs, windows: Windows) -> Call:
    x = windows.activation(i["x"])
    pool = aten.avg_pool3d if x.ndim == 5 else aten.avg_pool2d
    how = (*_window(case, windows), case.shape.ceil_mode, case.shape.count_padding)
    return lambda: (windows.back(pool(x, *how)),)


def average_pool_backward(case: Case, i: Inputs, windows: Windows) -> Call:
    x, dy = windows.activation(i["x"]), windows.activation(i["dy"])
    backward = aten.avg_pool3d_backward if x.ndim == 5 else aten.avg_pool2d_backward
    how = (*_window(case, windows), case.shape.ceil_mode, case.shape.count_padding, None)
    return lambda: (windows.back(backward(dy, x, *how)),)


# ---- layout -------------------------------------------------------------------------------------


def change_layout(case: Case, i: Inputs, maps: Maps) -> Call:
    """What ``contiguous(memory_format=...)`` does to maps; here both layouts have a case each."""
    x = i["x"].transpose(1, 2)
    return lambda: (x.contiguous(),)


# ---- batch norm ---------------------------------------------------------------------------------


def _normalised(i: Inputs, x: Tensor) -> tuple[Tensor, ...]:
    """y, mean, and the inverse of the deviation."""
    how = (None, None, True, 0.1, ours.EPSILON)
    return aten.native_batch_norm(x, i["gamma"], i["beta"], *how)


def _behind(case: Case, i: Inputs, maps: Maps) -> Callable[[Tensor], Tensor]:
    """Return what follows the norm, in place: a residual's sum and ReLU."""
    residual = maps.maps(i["residual"]) if "add" in case.op else None

    def run(y: Tensor) -> Tensor:
        y = y if residual is None else y.add_(residual)
        return y.relu_() if "relu" in case.op else y

    return run


def _before(case: Case, y: Tensor, dy: Tensor) -> Tensor:
    """Return the gradient of what the norm gave: also that of the residual."""
    return aten.threshold_backward(dy, y, 0) if "relu" in case.op else dy


def _gradients(case: Case, maps: Maps, d: Tensor, dx: Tensor, *others: Tensor) -> tuple:
    return (maps.back(dx), *others[:2], *([maps.back(d)] if "add" in case.op else []))


def batch_norm_train(case: Case, i: Inputs, maps: Maps) -> Call:
    x, behind = maps.maps(i["x"]), _behind(case, i, maps)

    def call() -> tuple[Tensor, ...]:
        y, mean, _ = _normalised(i, x)
        return maps.back(behind(y)), mean

    return call


def batch_norm_backward(case: Case, i: Inputs, maps: Maps) -> Call:
    x, dy = maps.maps(i["x"]), maps.maps(i["dy"])
    y, *saved = _normalised(i, x)
    y = _behind(case, i, maps)(y)

    def call() -> tuple[Tensor, ...]:
        d = _before(case, y, dy)
        found = aten.native_batch_norm_backward(
            d, x, i["gamma"], None, None, *saved, True, ours.EPSILON, [True] * 3
        )
        return _gradients(case, maps, d, *found)

    return call


def _cudnn_normalised(i: Inputs, x: Tensor) -> tuple[Tensor, ...]:
    """y, mean, the inverse of the deviation, and what cuDNN keeps.

    It wants parameters in float32 for maps of 16 bits.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    parameters = i["gamma"].to(wide), i["beta"].to(wide)
    return aten.cudnn_batch_norm(x, *parameters, None, None, True, 0.1, ours.EPSILON)


def cudnn_batch_norm_train(case: Case, i: Inputs, maps: Maps) -> Call:
    x, behind = maps.maps(i["x"]), _behind(case, i, maps)

    def call() -> tuple[Tensor, ...]:
        y, mean, *_ = _cudnn_normalised(i, x)
        return maps.back(behind(y)), mean

    return call


def cudnn_batch_norm_backward(case: Case, i: Inputs, maps: Maps) -> Call:
    x, dy = maps.maps(i["x"]), maps.maps(i["dy"])
    y, mean, deviation, reserve = _cudnn_normalised(i, x)
    y, gamma = _behind(case, i, maps)(y), i["gamma"].to(mean.dtype)

    def call() -> tuple[Tensor, ...]:
        d = _before(case, y, dy)
        found = aten.cudnn_batch_norm_backward(
            x, d, gamma, None, None, mean, deviation, ours.EPSILON, reserve
        )
        return _gradients(case, maps, d, *found)

    return call


# ---- loss, activations, optimizers --------------------------------------------------------------


def softmax_cross_entropy(case: Case, i: Inputs) -> Call:
    """What autograd runs for cross_entropy, forward and backward, without its bookkeeping."""
    logits, labels = i["logits"], i["labels"]
    wide = logits.dtype if logits.dtype == torch.float64 else torch.float32
    ones = torch.ones(case.shape.rows, dtype=logits.dtype, device=logits.device)

    def call() -> tuple[Tensor, ...]:
        log_p = aten._log_softmax(logits, 1, False)
        losses, total = aten.nll_loss_forward(log_p, labels, None, 0, -100)
        dlog = aten.nll_loss_backward(ones, log_p, labels, None, 0, -100, total)
        return losses.to(wide), aten._log_softmax_backward_data(dlog, log_p, 1, logits.dtype)

    return call


_FORWARD = {"relu": torch.relu, "gelu": F.gelu}


def activation_forward(case: Case, i: Inputs) -> Call:
    return lambda: (_FORWARD[case.shape.kind](i["x"]),)


def activation_backward(case: Case, i: Inputs) -> Call:
    x, dy = i["x"], i["dy"]
    if case.shape.kind == "relu":
        y = torch.relu(x)
        return lambda: (aten.threshold_backward(dy, y, 0),)
    return lambda: (aten.gelu_backward(dy, x),)


def sgd_update(case: Case, i: Inputs) -> Call:
    """PyTorch's momentum leaves the learning rate out of the velocity: it gets v / -rate."""
    rate = ours.SGD["learning_rate"]
    velocities = [v.to(p.dtype) / -rate for v, p in zip(i["states"][0], i["params"], strict=True)]
    params = [p.clone() for p in i["params"]]

    def call() -> tuple[Tensor, ...]:
        torch._fused_sgd_(
            params, i["grads"], velocities, weight_decay=0.0, momentum=ours.SGD["momentum"],
            lr=rate, dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip
        return tuple(params)

    return call


def adam_update(case: Case, i: Inputs) -> Call:
    params = [p.clone() for p in i["params"]]
    m, v = ([t.clone() for t in states] for states in i["states"])
    device, settings = params[0].device, ours.ADAM
    # the call itself counts the steps up, from that of ours less one
    steps = [torch.tensor(ours.ADAM_STEP - 1.0, device=device) for _ in params]

    def call() -> tuple[Tensor, ...]:
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            params, i["grads"], m, v, [], steps, lr=settings["learning_rate"],
            beta1=settings["beta_1"], beta2=settings["beta_2"], eps=settings["epsilon"],
            weight_decay=ours.WEIGHT_DECAY, amsgrad=False, maximize=False,
        )  # fmt: skip
        return tuple(params)

    return call


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv_fprop": conv_fprop,
    "conv_dgrad": conv_dgrad,
    "conv_dgrad_relu": conv_dgrad_relu,
    "conv_dgrad_add": conv_dgrad_add,
    "conv_wgrad": conv_wgrad,
    "conv_bias_relu": conv_bias_relu,
    "conv_bias_relu_pool": conv_bias_relu_pool,
    "conv_bias_relu_pool_backward": conv_bias_relu_pool_backward,
    "norm_relu6_conv": norm_conv,
    "norm_relu6_then_conv": norm_conv,
    "norm_relu6_conv_wgrad": norm_conv_wgrad,
    "max_pool": max_pool,
    "max_pool_backward": max_pool_backward,
    "average_pool": average_pool,
    "average_pool_backward": average_pool_backward,
    "change_layout": change_layout,
    "batch_norm_train": batch_norm_train,
    "batch_norm_backward": batch_norm_backward,
    "batch_norm_relu_train": batch_norm_train,
    "batch_norm_relu_backward": batch_norm_backward,
    "batch_norm_add_relu_train": batch_norm_train,
    "batch_norm_add_relu_backward": batch_norm_backward,
    "softmax_cross_entropy": softmax_cross_entropy,
    "activation_forward": activation_forward,
    "activation_backward": activation_backward,
    "sgd_update": sgd_update,
    "adam_update": adam_update,
}
# cuDNN's own functions, where eager PyTorch has another or leaves the choice to a rule
CUDNN: dict[str, tuple[str, Callable[..., Any]]] = {
    "conv_bias_relu": ("cudnn_convolution_relu", cudnn_conv_relu),
    **{
        f"batch_norm{fused}_{direction}": ("cudnn_batch_norm", operation)
        for fused in ("", "_relu", "_add_relu")
        for direction, operation in (
            ("train", cudnn_batch_norm_train),
            ("backward", cudnn_batch_norm_backward),
        )
    },
}
