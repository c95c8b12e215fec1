"""Each case by gpucnn on NumPy arrays, through the calls that a user has.

The maps lie in memory as the backend's own operations leave them, as they do within a network.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np

from .. import functional as F
from ..backends import get_backend, use_backend
from ..backends.numpy.workers import thread_count
from . import networks
from .cases import STEPS, Case
from .reference import EPSILON, Inputs, draw


def start(threads: int) -> None:
    """Compute on NumPy; how many threads it takes the environment says."""
    use_backend("numpy")


def about() -> dict[str, Any]:
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))  # it is loaded
    libraries = [found for found in threadpool_info() if found["user_api"] == "blas"]
    blas = libraries[0] if libraries else {}
    return {
        "version": np.__version__,
        "blas": " ".join(filter(None, (blas.get("internal_api"), blas.get("version")))),
        "core": blas.get("architecture"),
    }


def running(case: Case) -> AbstractContextManager[Any]:
    """Return what a run of many steps is inside of, as in a trainer."""
    stack = ExitStack()
    if case.op in STEPS:
        stack.enter_context(np.errstate(all="ignore"))
    if case.op == "training_step":
        stack.enter_context(get_backend("numpy").running())
    return stack


def ways(case: Case) -> tuple[str, ...]:
    return ("gpucnn",)


def bind(case: Case, way: str) -> Callable[[], Any]:
    """Return a function that runs the case once."""
    inputs = draw(case)
    if case.op in STEPS:
        return _step(case, inputs)
    for name in {"x", "dy"} & set(inputs):
        inputs[name] = _arranged(inputs[name])
    return _CALLS[case.op](case, **inputs)


def to_numpy(case: Case, result: np.ndarray) -> np.ndarray:
    return result


def _arranged(x: np.ndarray) -> np.ndarray:
    """Return the map as a convolution gives it: by one that multiplies each channel by 1."""
    channels = x.shape[-1]
    return F.conv_forward(x, np.ones((channels, 1, 1, 1), x.dtype), groups=channels)


def _fprop(case: Case, x: np.ndarray, w: np.ndarray) -> Callable[[], Any]:
    shape = case.conv
    return lambda: F.conv_forward(x, w, shape=shape)


def _dgrad(case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Callable[[], Any]:
    # functional has both gradients in one call; peers are timed for one at a time
    backend, shape = get_backend("numpy"), case.conv
    return lambda: backend.conv_dgrad(dy, w, None, shape)


def _wgrad(case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Callable[[], Any]:
    shape = case.conv
    return lambda: F.conv_backward(dy, x, w, shape=shape, with_bias=False, needs_dx=False)[1]


def _max_pool(case: Case, x: np.ndarray) -> Callable[[], Any]:
    shape = case.pool
    return lambda: F.pool_forward(x, shape=shape)[0]


def _max_pool_backward(case: Case, x: np.ndarray, dy: np.ndarray) -> Callable[[], Any]:
    shape = case.pool
    index = F.pool_forward(x, shape=shape)[1]
    return lambda: F.pool_backward(dy, index, shape=shape)


def _batch_norm(
    case: Case, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray
) -> Callable[[], Any]:
    return lambda: F.batch_norm_train(x, gamma, beta, epsilon=EPSILON)[0]


def _batch_norm_backward(
    case: Case, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, dy: np.ndarray
) -> Callable[[], Any]:
    _, mean, var = F.batch_norm_train(x, gamma, beta, epsilon=EPSILON)
    return lambda: F.batch_norm_backward(dy, x, gamma, mean, var, epsilon=EPSILON)[0]


def _relu_backward(case: Case, x: np.ndarray, dy: np.ndarray) -> Callable[[], Any]:
    y = F.activation_forward(x, "relu")
    return lambda: F.activation_backward(dy, y, "relu")


_CALLS = {
    "conv_fprop": _fprop,
    "conv_dgrad": _dgrad,
    "conv_wgrad": _wgrad,
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "activation_forward": lambda case, x: lambda: F.activation_forward(x, "relu"),
    "activation_backward": _relu_backward,
    "batch_norm_train": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
}


def _step(case: Case, inputs: Inputs) -> Callable[[], Any]:
    from ..losses import CrossEntropy
    from ..optimizers import SGD

    model, x, labels = networks.make(case.layer), inputs["x"], inputs["labels"]
    if case.op == "inference":
        frozen = model.freeze(blas_threads=thread_count())
        return lambda: frozen(x)
    model.needs_input_gradient = False
    loss, optimizer = CrossEntropy(), SGD(0.01, momentum=0.9)

    def step() -> Any:
        value, gradient = loss(model.forward(x, training=True), labels)
        model.backward(gradient)
        optimizer.step(model.parameters())
        return value

    return step
