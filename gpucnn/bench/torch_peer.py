"""Each case by PyTorch, in both layouts, as its functions and modules call it.

A network in inference is also traced, frozen and fused by TorchScript, PyTorch's own way to leave
out what only training needs.
Gradients of a layer are what autograd runs, one at a time; the maps have the layout already.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import STEPS, Case
from .networks import make
from .reference import EPSILON, Inputs, draw
from .torch_network import translate

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
aten = torch.ops.aten


def start(threads: int) -> None:
    torch.set_num_threads(threads)


def about() -> dict[str, Any]:
    return {"version": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}


def running(case: Case) -> AbstractContextManager[Any]:
    return nullcontext() if case.op == "training_step" else torch.inference_mode()


def ways(case: Case) -> tuple[str, ...]:
    """Return the ways to run a case: both layouts; in inference frozen by TorchScript, too."""
    frozen = (f"frozen {layout}" for layout in LAYOUTS) if case.op == "inference" else ()
    return (*LAYOUTS, *frozen)


def bind(case: Case, way: str) -> Callable[[], Any]:
    """Return a function that runs the case once."""
    *frozen, layout = way.split()
    inputs, layout = draw(case), LAYOUTS[layout]
    if case.op in STEPS:
        return _step(case, inputs, layout, bool(frozen))
    with running(case):
        tensors = {name: _tensor(array, layout) for name, array in inputs.items()}
        return _CALLS[case.op](case, **tensors)


def to_numpy(case: Case, result: Tensor) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W, C); (K, C, R, S) -> (K, R, S, C)"""
    return result.permute(0, 2, 3, 1).numpy()


def _tensor(array: np.ndarray, layout: torch.memory_format) -> Tensor:
    """Return maps (N, H, W, C), or filters (K, R, S, C), with channels second, in a layout."""
    tensor = torch.from_numpy(array)
    if tensor.ndim < 4:
        return tensor
    return tensor.permute(0, 3, 1, 2).contiguous(memory_format=layout)


def _fprop(case: Case, x: Tensor, w: Tensor) -> Callable[[], Any]:
    geometry = case.stride, case.padding, case.dilation, case.groups
    return lambda: F.conv2d(x, w, None, *geometry)


def _gradient(which: int) -> Callable[..., Callable[[], Any]]:
    """One gradient of a convolution: 0 is dx, 1 is dw."""
    mask = [which == 0, which == 1, False]

    def made(case: Case, x: Tensor, w: Tensor, dy: Tensor) -> Callable[[], Any]:
        both = [[length, length] for length in (case.stride, case.padding, case.dilation)]
        rest = (False, [0, 0], case.groups, mask)
        return lambda: aten.convolution_backward(dy, x, w, None, *both, *rest)[which]

    return made


def _window(case: Case) -> tuple[list[int], ...]:
    """Window, strides, padding and dilation of a pooling."""
    return tuple([length] * 2 for length in (case.kernel, case.stride, case.padding, 1))


def _max_pool_backward(case: Case, x: Tensor, dy: Tensor) -> Callable[[], Any]:
    window = _window(case)
    index = aten.max_pool2d_with_indices(x, *window)[1]
    return lambda: aten.max_pool2d_with_indices_backward(dy, x, *window, False, index)


def _max_pool(case: Case, x: Tensor) -> Callable[[], Any]:
    window = _window(case)
    return lambda: aten.max_pool2d_with_indices(x, *window)[0]


def _relu_backward(case: Case, x: Tensor, dy: Tensor) -> Callable[[], Any]:
    y = F.relu(x)
    return lambda: aten.threshold_backward(dy, y, 0)


def _batch_norm(case: Case, x: Tensor, gamma: Tensor, beta: Tensor) -> Callable[[], Any]:
    # no running statistics: as ours, which leaves them to its layer
    return lambda: aten.native_batch_norm(x, gamma, beta, None, None, True, 0.1, EPSILON)[0]


def _batch_norm_backward(
    case: Case, x: Tensor, gamma: Tensor, beta: Tensor, dy: Tensor
) -> Callable[[], Any]:
    _, mean, inverse = aten.native_batch_norm(x, gamma, beta, None, None, True, 0.1, EPSILON)
    saved = (None, None, mean, inverse, True, EPSILON, [True, True, True])
    return lambda: aten.native_batch_norm_backward(dy, x, gamma, *saved)[0]


_CALLS = {
    "conv_fprop": _fprop,
    "conv_dgrad": _gradient(0),
    "conv_wgrad": _gradient(1),
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "activation_forward": lambda case, x: lambda: F.relu(x),
    "activation_backward": _relu_backward,
    "batch_norm_train": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
}


def _frozen(model: torch.nn.Module, x: Tensor) -> torch.nn.Module:
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.freeze(torch.jit.trace(model, x.clone()))
        return torch.jit.optimize_for_inference(traced)


def _step(
    case: Case, inputs: Inputs, layout: torch.memory_format, frozen: bool
) -> Callable[[], Any]:
    model = translate(make(case.layer)).to(memory_format=layout)
    x, labels = _tensor(inputs["x"], layout), torch.from_numpy(inputs["labels"])
    if case.op == "inference":
        model.eval()
        if frozen:
            model = _frozen(model, x)
        return lambda: model(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
