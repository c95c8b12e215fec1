"""PyTorch's way to each operation of the benchmark: every candidate that may be its fastest.

A candidate binds inputs, given in gpucnn's layouts, to a call. It may copy them to its own layout
first, for a program in PyTorch would hold them so; channels last is a view. Results come back as
views in gpucnn's axes. All of it runs on any device, so that a machine without a GPU can check the
arguments; and in float64 it is the reference that both sides are held against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpucnn.shapes import ConvShape, PoolShape

from . import ours
from .arrays import Inputs
from .cases import Case

aten = torch.ops.aten
Call = Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Peer:
    """A way to run a case: its name in the results, and what binds inputs to a call."""

    label: str
    bind: Callable[[Case, Inputs], Call]


def candidates(case: Case, device: str) -> list[Peer]:
    """Return PyTorch's ways to run a case on "cuda" or "cpu"; the first needs no copies."""
    windows = isinstance(case.shape, (ConvShape, PoolShape))
    layouts = ("channels_last", "contiguous") if windows else ("",)
    found = [Peer(f"torch {layout}".strip(), _binder(layout)) for layout in layouts]
    if isinstance(case.shape, ConvShape) and set(case.shape.input) == {1}:
        found.append(Peer("torch linear", _linear))
    if device == "cuda" and case.op == "conv_bias_relu":
        found += [
            Peer(f"torch cudnn_convolution_relu {layout}", _binder(layout, cudnn_conv_relu))
            for layout in layouts
        ]
    if device == "cuda" and case.op.startswith("batch_norm"):
        found.append(Peer("torch cudnn", _cudnn_batch_norm))
    if case.op in ours.UPDATES_IN_PLACE:
        found = [Peer("torch fused", _binder(""))]
    return found


def compiled(case: Case, device: str) -> list[Peer]:
    """Return the operation through torch.compile, without its own CUDA graphs: ours hold it.

    It chooses layouts itself, so it is given the one that needs no copies.
    """
    eager = _binder("channels_last")
    run = torch.compile(
        lambda inputs: eager(case, inputs)(), mode="max-autotune-no-cudagraphs", dynamic=False
    )
    return [Peer("torch.compile", lambda case, inputs: lambda: run(inputs))]


def reference(case: Case, inputs: Inputs) -> tuple[Tensor, ...]:
    """Run a case on float64 inputs, without cuDNN."""
    with torch.backends.cudnn.flags(enabled=False):
        return _binder("contiguous")(case, inputs)()


# ---- layouts ------------------------------------------------------------------------------------


class Windows:
    """Brings activations and filters of a convolution or pooling to PyTorch's axes and back.

    PyTorch knows channels last in two and three dimensions, so a case in one becomes one in two of
    height 1, as PyTorch itself does it.
    """

    def __init__(self, shape: ConvShape | PoolShape, layout: str) -> None:
        self.shape, self.layout = shape, layout
        self.flat = shape.rank == 1

    def per_axis(self, values: tuple[int, ...], neutral: int) -> list[int]:
        return [neutral, *values] if self.flat else list(values)

    @property
    def padding(self) -> list[int]:
        """Raises ValueError where the two ends differ, which PyTorch has no argument for."""
        if any(before != after for before, after in self.shape.padding):
            raise ValueError(f"PyTorch pads both ends alike. Received: {self.shape.padding}")
        return self.per_axis(tuple(before for before, _ in self.shape.padding), 0)

    def activation(self, x: Tensor) -> Tensor:
        """(N, *size, C) or (N, C, *size) -> (N, C, *size) with this layout's strides."""
        return self._laid_out(x.movedim(-1, 1) if self.shape.channels_last else x)

    def filters(self, w: Tensor) -> Tensor:
        """(K, *window, C / groups) -> (K, C / groups, *window) with this layout's strides."""
        return self._laid_out(w.movedim(-1, 1))

    def back(self, y: Tensor) -> Tensor:
        """An activation's view in gpucnn's axes."""
        y = y.squeeze(2) if self.flat else y
        return y.movedim(1, -1) if self.shape.channels_last else y

    def filters_back(self, dw: Tensor) -> Tensor:
        dw = dw.squeeze(2) if self.flat else dw
        return dw.movedim(1, -1)

    def _laid_out(self, t: Tensor) -> Tensor:
        t = t.unsqueeze(2) if self.flat else t
        if self.layout == "contiguous":
            return t.contiguous()
        last = torch.channels_last_3d if t.ndim == 5 else torch.channels_last
        return t.contiguous(memory_format=last)


def _binder(layout: str, operation: Callable | None = None) -> Callable[[Case, Inputs], Call]:
    """Return what binds inputs to the operation of a case's name, in a layout."""

    def bind(case: Case, inputs: Inputs) -> Call:
        chosen = operation or OPERATIONS[case.op]
        if isinstance(case.shape, (ConvShape, PoolShape)):
            return chosen(case, inputs, Windows(case.shape, layout))
        return chosen(case, inputs)

    return bind


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


def cudnn_conv_relu(case: Case, i: Inputs, windows: Windows) -> Call:
    """cuDNN's own fusion of convolution, bias and ReLU, which eager PyTorch does not choose."""
    x, w, b = windows.activation(i["x"]), windows.filters(i["w"]), i["b"]
    geometry, groups = _geometry(case, windows), case.shape.groups
    return lambda: (windows.back(torch.cudnn_convolution_relu(x, w, b, *geometry, groups)),)


def _linear(case: Case, i: Inputs) -> Call:
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


# ---- batch norm, loss, activations, optimizers --------------------------------------------------


def _channels_second(case: Case, t: Tensor) -> Tensor:
    return t.movedim(2, 1) if case.shape.channels_last else t


def _channels_back(case: Case, t: Tensor) -> Tensor:
    return t.movedim(1, 2) if case.shape.channels_last else t


def batch_norm_train(case: Case, i: Inputs) -> Call:
    x, gamma, beta = _channels_second(case, i["x"]), i["gamma"], i["beta"]

    def call() -> tuple[Tensor, ...]:
        y, mean, _ = aten.native_batch_norm(x, gamma, beta, None, None, True, 0.1, ours.EPSILON)
        return _channels_back(case, y), mean

    return call


def batch_norm_backward(case: Case, i: Inputs) -> Call:
    x, dy = (_channels_second(case, i[name]) for name in ("x", "dy"))
    gamma, beta = i["gamma"], i["beta"]
    saved = aten.native_batch_norm(x, gamma, beta, None, None, True, 0.1, ours.EPSILON)[1:]

    def call() -> tuple[Tensor, ...]:
        dx, *others = aten.native_batch_norm_backward(
            dy, x, gamma, None, None, *saved, True, ours.EPSILON, [True] * 3
        )
        return (_channels_back(case, dx), *others)

    return call


def _cudnn_batch_norm(case: Case, i: Inputs) -> Call:
    """cuDNN's batch norm, which wants four axes and float32 parameters for 16-bit maps."""
    x = _channels_second(case, i["x"]).unsqueeze(2)
    last = {"memory_format": torch.channels_last} if case.shape.channels_last else {}
    x = x.contiguous(**last)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    gamma, beta = i["gamma"].to(wide), i["beta"].to(wide)

    def forward() -> tuple[Tensor, ...]:
        return aten.cudnn_batch_norm(x, gamma, beta, None, None, True, 0.1, ours.EPSILON)

    if case.op == "batch_norm_train":

        def call() -> tuple[Tensor, ...]:
            y, mean, *_ = forward()
            return _channels_back(case, y.squeeze(2)), mean

        return call
    _, mean, deviation, reserve = forward()
    dy = _channels_second(case, i["dy"]).unsqueeze(2).contiguous(**last)

    def call_backward() -> tuple[Tensor, ...]:
        dx, *others = aten.cudnn_batch_norm_backward(
            x, dy, gamma, None, None, mean, deviation, ours.EPSILON, reserve
        )
        return (_channels_back(case, dx.squeeze(2)), *others)

    return call_backward


def softmax_cross_entropy(case: Case, i: Inputs) -> Call:
    """What autograd runs for cross_entropy, forward and backward, without its bookkeeping."""
    logits, labels = i["logits"], i["labels"]
    wide = logits.dtype if logits.dtype == torch.float64 else torch.float32
    one = torch.ones((), dtype=logits.dtype, device=logits.device).expand(case.shape.rows)

    def call() -> tuple[Tensor, ...]:
        log_p = aten._log_softmax(logits, 1, False)
        losses, total = aten.nll_loss_forward(log_p, labels, None, 0, -100)
        dlog = aten.nll_loss_backward(one, log_p, labels, None, 0, -100, total)
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
    """PyTorch's momentum leaves the learning rate out of the velocity, so it gets v / -rate."""
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
    steps = [torch.tensor(settings["step"] - 1.0, device=device) for _ in params]

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
    "conv_wgrad": conv_wgrad,
    "conv_bias_relu": conv_bias_relu,
    "conv_bias_relu_pool": conv_bias_relu_pool,
    "max_pool": max_pool,
    "max_pool_backward": max_pool_backward,
    "average_pool": average_pool,
    "average_pool_backward": average_pool_backward,
    "batch_norm_train": batch_norm_train,
    "batch_norm_backward": batch_norm_backward,
    "softmax_cross_entropy": softmax_cross_entropy,
    "activation_forward": activation_forward,
    "activation_backward": activation_backward,
    "sgd_update": sgd_update,
    "adam_update": adam_update,
}
