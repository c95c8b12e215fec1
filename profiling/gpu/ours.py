"""Each operation of the benchmark as calls of gpucnn's backend, the kernels that it runs included.

``bind`` does what comes before the operation (a backward pass needs what the forward pass kept) and
returns the call to be timed. A kernel that fuses several operations is put to use here, in place of
their sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpucnn.backends.base import Array, Backend, NormOnLoad
from gpucnn.shapes import NormShape
from profiling.ladder import BY_NAME

from . import ladder
from .arrays import to_backend
from .cases import Case

Call = Callable[[], tuple[Array, ...]]
Arrays = dict[str, Any]

EPSILON = 1e-3
SGD = {"learning_rate": 1e-4, "momentum": 0.9, "nesterov": False}
ADAM_STEP = 10
ADAM = {
    "learning_rate": 1e-4, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8,
    "correction_1": 1 - 0.9**ADAM_STEP, "correction_2": 1 - 0.999**ADAM_STEP, "decoupled": True,
}  # fmt: skip
WEIGHT_DECAY = 0.01


def bind(backend: Backend, case: Case, inputs: dict[str, Any]) -> Call:
    """Return the operation on these tensors, which the backend sees as its own arrays."""
    return OPERATIONS[case.op](backend, case, to_backend(backend, inputs))


def _math(case: Case) -> dict[str, str]:
    return {"math": case.math} if case.math in ("tf32", "fp32x3") else {}


def conv_fprop(backend: Backend, case: Case, a: Arrays) -> Call:
    if case.rung:
        return lambda: (ladder.run(backend, BY_NAME[case.rung], case.shape, a["x"], a["w"]),)
    return lambda: (backend.conv_fprop(a["x"], a["w"], None, case.shape, **_math(case)),)


def conv_dgrad(backend: Backend, case: Case, a: Arrays) -> Call:
    return lambda: (backend.conv_dgrad(a["dy"], a["w"], None, case.shape, **_math(case)),)


def conv_wgrad(backend: Backend, case: Case, a: Arrays) -> Call:
    return lambda: (backend.conv_wgrad(a["x"], a["dy"], case.shape, **_math(case)),)


def conv_dgrad_relu(backend: Backend, case: Case, a: Arrays) -> Call:
    """The gradient of what went into the ReLU that gave x."""
    given = a["dy"], a["w"], case.shape, a["x"], "relu", 0.0
    return lambda: (backend.conv_dgrad_through(*given, **_math(case)),)


def conv_dgrad_add(backend: Backend, case: Case, a: Arrays) -> Call:
    """The gradient of an x that others read, too, whose gradients of it are known."""
    given = a["dy"], a["w"], None, case.shape
    return lambda: (backend.conv_dgrad(*given, residual=a["dx"], **_math(case)),)


def conv_bias_relu(backend: Backend, case: Case, a: Arrays) -> Call:
    return lambda: (backend.conv_fprop(a["x"], a["w"], a["b"], case.shape, "relu", **_math(case)),)


def conv_bias_relu_pool(backend: Backend, case: Case, a: Arrays) -> Call:
    given = a["x"], a["w"], a["b"], case.shape, case.pool, "relu"
    return lambda: backend.conv_pool_forward(*given, with_index=False, **_math(case))[:1]


def conv_bias_relu_pool_backward(backend: Backend, case: Case, a: Arrays) -> Call:
    """The gradients of the filters and the bias, as in the first layer of a network."""
    shapes = case.shape, case.pool, "relu"
    y, index = backend.conv_pool_forward(a["x"], a["w"], a["b"], *shapes, **_math(case))
    given = a["dy"], y, index, a["x"], *shapes
    return lambda: backend.conv_pool_backward(*given, **_math(case))


def _norm(a: Arrays) -> NormOnLoad:
    return NormOnLoad(a["gamma"], a["beta"], a["mean"], a["var"], EPSILON, "relu6")


def norm_conv(backend: Backend, case: Case, a: Arrays) -> Call:
    """A norm whose statistics are known, ReLU6, and a convolution, which reads x through both."""
    on_load = {"on_load": _norm(a), **_math(case)}
    return lambda: (backend.conv_fprop(a["x"], a["w"], None, case.shape, **on_load),)


def norm_then_conv(backend: Backend, case: Case, a: Arrays) -> Call:
    """The same in two passes, with the normalised map in memory."""
    *norm, activation = _norm(a)
    shape = NormShape.of(case.shape.x_shape, channels_last=case.shape.channels_last)

    def call() -> tuple[Array, ...]:
        z = backend.batch_norm_infer(a["x"], *norm, shape, activation)
        return (backend.conv_fprop(z, a["w"], None, case.shape, **_math(case)),)

    return call


def norm_conv_wgrad(backend: Backend, case: Case, a: Arrays) -> Call:
    """The filters' gradient from what is kept: x here, and in PyTorch what the norm made of it."""
    on_load = {"on_load": _norm(a), **_math(case)}
    return lambda: (backend.conv_wgrad(a["x"], a["dy"], case.shape, **on_load),)


def pool(backend: Backend, case: Case, a: Arrays) -> Call:
    """y and, of a maximum, the index, as in training."""
    return lambda: backend.pool_forward(a["x"], case.shape)


def pool_backward(backend: Backend, case: Case, a: Arrays) -> Call:
    _, index = backend.pool_forward(a["x"], case.shape)
    return lambda: (backend.pool_backward(a["dy"], index, case.shape),)


def change_layout(backend: Backend, case: Case, a: Arrays) -> Call:
    return lambda: (backend.change_layout(a["x"]),)


def batch_norm_train(backend: Backend, case: Case, a: Arrays) -> Call:
    fused = "relu" if "relu" in case.op else "linear", a.get("residual")
    parameters = a["gamma"], a["beta"], EPSILON, case.shape
    return lambda: backend.batch_norm_train(a["x"], *parameters, *fused)


def batch_norm_backward(backend: Backend, case: Case, a: Arrays) -> Call:
    y, mean, var = batch_norm_train(backend, case, a)()
    given = a["dy"], a["x"], a["gamma"], mean, var, EPSILON, True, case.shape
    if "add" in case.op:
        return lambda: backend.batch_norm_backward(*given, "relu", None, y)
    fused = ("relu", a["beta"]) if "relu" in case.op else ()
    return lambda: backend.batch_norm_backward(*given, *fused)[:3]


def softmax_cross_entropy(backend: Backend, case: Case, a: Arrays) -> Call:
    """The gradient is that of the sum, so that its numbers are of the size of 1."""
    return lambda: backend.softmax_cross_entropy(a["logits"], a["labels"], 0.0, 1.0)


def activation_forward(backend: Backend, case: Case, a: Arrays) -> Call:
    return lambda: (backend.activation_forward(a["x"], case.shape.kind, 0.0),)


def activation_backward(backend: Backend, case: Case, a: Arrays) -> Call:
    kind, saved = case.shape.kind, a["x"]
    if kind == "relu":  # its derivative is a function of the output
        saved = backend.activation_forward(saved, kind, 0.0)
    return lambda: (backend.activation_backward(a["dy"], saved, kind, 0.0),)


def sgd_update(backend: Backend, case: Case, a: Arrays) -> Call:
    def call() -> tuple[Array, ...]:
        decays = [0.0] * len(a["params"])
        backend.sgd_update(a["params"], a["grads"], *a["states"], decays, grad_scale=None, **SGD)
        return tuple(a["params"])

    return call


def adam_update(backend: Backend, case: Case, a: Arrays) -> Call:
    def call() -> tuple[Array, ...]:
        decays = [WEIGHT_DECAY] * len(a["params"])
        backend.adam_update(a["params"], a["grads"], *a["states"], decays, grad_scale=None, **ADAM)
        return tuple(a["params"])

    return call


OPERATIONS: dict[str, Callable[[Backend, Case, Arrays], Call]] = {
    "conv_fprop": conv_fprop,
    "conv_dgrad": conv_dgrad,
    "conv_dgrad_relu": conv_dgrad_relu,
    "conv_dgrad_add": conv_dgrad_add,
    "conv_wgrad": conv_wgrad,
    "conv_bias_relu": conv_bias_relu,
    "conv_bias_relu_pool": conv_bias_relu_pool,
    "conv_bias_relu_pool_backward": conv_bias_relu_pool_backward,
    "norm_relu6_conv": norm_conv,
    "norm_relu6_then_conv": norm_then_conv,
    "norm_relu6_conv_wgrad": norm_conv_wgrad,
    "max_pool": pool,
    "max_pool_backward": pool_backward,
    "average_pool": pool,
    "average_pool_backward": pool_backward,
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
UPDATES_IN_PLACE = frozenset({"sgd_update", "adam_update"})
