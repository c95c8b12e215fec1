"""Each case by JAX on the CPU: one jitted function a case, channels last.

JAX takes as many threads as the process has cores (see ``worker``). Where it is not installed the
module can be imported, and not used.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .cases import Case
from .jax_network import inference, training
from .networks import make
from .reference import EPSILON, draw

try:
    import jax
except ModuleNotFoundError:
    jax = None

MAPS = ("NHWC", "OHWI", "NHWC")  # maps, filters, result


def start(threads: int) -> None:
    jax.config.update("jax_platforms", "cpu")


def about() -> dict[str, Any]:
    return {"version": jax.__version__}


def running(case: Case) -> AbstractContextManager[Any]:
    return nullcontext()


def ways(case: Case) -> tuple[str, ...]:
    return ("jax",)


def bind(case: Case, way: str) -> Callable[[], Any]:
    """Return a function that runs the case once, compiled."""
    inputs = {name: jax.numpy.asarray(array) for name, array in draw(case).items()}
    if case.op == "inference":
        run = jax.jit(inference(make(case.layer)))
        return lambda: jax.block_until_ready(run(inputs["x"]))
    if case.op == "training_step":
        return _training(case, inputs)
    run = jax.jit(_CALLS[case.op](case, **inputs))
    given = [inputs[name] for name in _READ.get(case.op, tuple(inputs))]
    return lambda: jax.block_until_ready(run(*given))


def to_numpy(case: Case, result: Any) -> np.ndarray:
    return np.asarray(result[0] if isinstance(result, tuple) else result)


def _training(case: Case, inputs: dict[str, Any]) -> Callable[[], Any]:
    step, state = training(make(case.layer), rate=0.01, momentum=0.9)
    run = jax.jit(step, donate_argnums=0)

    def call() -> Any:
        nonlocal state
        state, loss = jax.block_until_ready(run(state, inputs["x"], inputs["labels"]))
        return loss

    return call


# What a direction reads, where it is less than what is drawn; the others take all, in order.
_READ = {
    "conv_dgrad": ("w", "dy"),
    "conv_wgrad": ("x", "dy"),
}


def _convolve(case: Case) -> Callable[[Any, Any], Any]:
    return lambda x, w: jax.lax.conv_general_dilated(
        x, w, [case.stride] * 2, [(case.padding,) * 2] * 2, rhs_dilation=[case.dilation] * 2,
        dimension_numbers=MAPS, feature_group_count=case.groups,
    )  # fmt: skip


def _fprop(case: Case, x: Any, w: Any) -> Callable[..., Any]:
    return _convolve(case)


def _dgrad(case: Case, x: Any, w: Any, dy: Any) -> Callable[..., Any]:
    convolve, like = _convolve(case), jax.ShapeDtypeStruct(x.shape, x.dtype)
    return lambda w, dy: jax.linear_transpose(lambda x: convolve(x, w), like)(dy)[0]


def _wgrad(case: Case, x: Any, w: Any, dy: Any) -> Callable[..., Any]:
    convolve, like = _convolve(case), jax.ShapeDtypeStruct(w.shape, w.dtype)
    return lambda x, dy: jax.linear_transpose(lambda w: convolve(x, w), like)(dy)[0]


def _max_pool(case: Case, x: Any) -> Callable[..., Any]:
    window, strides = (1, case.kernel, case.kernel, 1), (1, case.stride, case.stride, 1)
    sides = ((0, 0), (case.padding,) * 2, (case.padding,) * 2, (0, 0))
    return lambda x: jax.lax.reduce_window(
        x, -jax.numpy.inf, jax.lax.max, window, strides, sides
    )  # fmt: skip


def _max_pool_backward(case: Case, x: Any, dy: Any) -> Callable[..., Any]:
    pool = _max_pool(case, x)
    return lambda x, dy: jax.vjp(pool, x)[1](dy)[0]


def _normalise(x: Any, gamma: Any, beta: Any) -> Any:
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return gamma * (x - mean) * jax.lax.rsqrt(var + EPSILON) + beta


def _norm_backward(x: Any, gamma: Any, beta: Any, dy: Any) -> Any:
    return jax.vjp(_normalise, x, gamma, beta)[1](dy)


_CALLS = {
    "conv_fprop": _fprop,
    "conv_dgrad": _dgrad,
    "conv_wgrad": _wgrad,
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "activation_forward": lambda case, x: lambda x: jax.numpy.maximum(x, 0),
    "activation_backward": lambda case, x, dy: lambda x, dy: dy * (x > 0),
    "batch_norm_train": lambda case, x, gamma, beta: _normalise,
    "batch_norm_backward": lambda case, **arrays: _norm_backward,
}
