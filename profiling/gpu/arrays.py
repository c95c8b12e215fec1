"""The inputs of a case: drawn once with PyTorch, shared with gpucnn's backend without a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gpucnn.backends.base import Array, Backend, accumulator
from gpucnn.shapes import ConvShape

from .cases import Case

Inputs = dict[str, Any]  # tensors, or lists of them, in gpucnn's layouts


def torch_dtype(dtype: Any) -> torch.dtype:
    return getattr(torch, dtype if isinstance(dtype, str) else np.dtype(dtype).name)


def draw(case: Case, generator: torch.Generator) -> Inputs:
    """Return new random inputs on the generator's device: normal numbers, weights scaled down.

    x, dy and w have gpucnn's shapes, (N, *size, C) and (K, *window, C / groups).
    """
    dtype, shape = torch_dtype(case.dtype), case.shape
    sums = torch_dtype(accumulator(case.dtype))

    def normal(*size: int, scale: float = 1.0, kind: torch.dtype = dtype) -> torch.Tensor:
        wide = torch.float64 if kind == torch.float64 else torch.float32
        numbers = torch.randn(size, generator=generator, device=generator.device, dtype=wide)
        return numbers.mul_(scale).to(kind)

    if isinstance(shape, ConvShape):
        terms = shape.taps * (shape.channels // shape.groups)
        drawn = {
            "x": lambda: normal(*shape.x_shape),
            "w": lambda: normal(*shape.w_shape, scale=terms**-0.5),
            "dy": lambda: normal(*(case.pool or shape).y_shape),
            "dx": lambda: normal(*shape.x_shape),
            "b": lambda: normal(shape.filters),
            **{name: lambda: normal(shape.channels) for name in ("gamma", "beta")},
            "mean": lambda: normal(shape.channels, kind=sums),
            "var": lambda: normal(shape.channels, kind=sums).square_(),
        }
        if case.op == "conv_dgrad_relu":
            drawn["x"] = lambda: normal(*shape.x_shape).relu_()
        if case.op == "conv_bias_relu_pool_backward":
            # whole numbers, whose sums are exact: else float64 would find other maxima
            drawn["w"] = lambda: normal(*shape.w_shape)
            return {name: drawn[name]().round_() for name in CONV_INPUTS[case.op]}
        return {name: drawn[name]() for name in CONV_INPUTS[case.op]}
    if case.op.startswith(("max_pool", "average_pool")):
        backward = case.op.endswith("backward")
        return {
            "x": normal(*shape.x_shape),
            **({"dy": normal(*shape.y_shape)} if backward else {}),
        }
    if case.op == "change_layout":
        return {"x": normal(*shape.axes)}
    if case.op.startswith("batch_norm"):
        return _norm_inputs(case, normal)
    if case.op == "softmax_cross_entropy":
        labels = torch.randint(
            shape.classes, (shape.rows,), generator=generator, device=generator.device
        )
        return {"logits": normal(shape.rows, shape.classes), "labels": labels}
    if case.op.startswith("activation"):
        backward = case.op.endswith("backward")
        return {"x": normal(shape.size), **({"dy": normal(shape.size)} if backward else {})}
    states = 2 if case.op == "adam_update" else 1
    return {
        "params": [normal(size) for size in shape.sizes],
        "grads": [normal(size) for size in shape.sizes],
        "states": [[normal(size, kind=sums).abs_() for size in shape.sizes] for _ in range(states)],
    }


def _norm_inputs(case: Case, normal: Callable[..., torch.Tensor]) -> Inputs:
    """Those of a batch norm, and of what is fused into it."""
    shape = case.shape
    drawn = {"x": normal(*shape.axes)}
    drawn |= {name: normal(shape.channels) for name in ("gamma", "beta")}
    if "add" in case.op:
        drawn["residual"] = normal(*shape.axes)
    if case.op.endswith("backward"):
        drawn["dy"] = normal(*shape.axes)
        if "relu" in case.op:  # a sum near zero may round to either side of it
            over = (0, 1) if shape.channels_last else (0, 2)
            gamma, beta = (
                drawn[name] if shape.channels_last else drawn[name][:, None]
                for name in ("gamma", "beta")
            )
            var, mean = torch.var_mean(drawn["x"], over, keepdim=True)
            before = (drawn["x"] - mean) * (gamma / var.sqrt()) + beta
            before += drawn.get("residual", 0)
            drawn["dy"][before.abs() < TIE] = 0
    return drawn


TIE = 1 / 32  # what bfloat16 may move a sum by

CONV_INPUTS = {
    "conv_fprop": ("x", "w"),
    "conv_dgrad": ("dy", "w"),
    "conv_wgrad": ("x", "dy"),
    "conv_dgrad_relu": ("dy", "w", "x"),
    "conv_dgrad_add": ("dy", "w", "dx"),
    "conv_bias_relu": ("x", "w", "b"),
    "conv_bias_relu_pool": ("x", "w", "b"),
    "conv_bias_relu_pool_backward": ("x", "w", "b", "dy"),
    **dict.fromkeys(
        ("norm_relu6_conv", "norm_relu6_then_conv"), ("x", "w", "gamma", "beta", "mean", "var")
    ),
    "norm_relu6_conv_wgrad": ("x", "dy", "gamma", "beta", "mean", "var"),
}


def tensors(inputs: Any) -> list[torch.Tensor]:
    """Return all tensors among inputs or results, in order."""
    if isinstance(inputs, torch.Tensor):
        return [inputs]
    values = inputs.values() if isinstance(inputs, dict) else inputs
    return [tensor for value in values for tensor in tensors(value)]


def size_in_bytes(inputs: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors(inputs))


def to_backend(backend: Backend, value: Any) -> Any:
    """Return tensors, lists and dicts of them as the backend's arrays over the same memory."""
    if isinstance(value, dict):
        return {name: to_backend(backend, item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_backend(backend, item) for item in value]
    if value.is_cuda:
        return backend.xp.from_dlpack(value)
    if value.dtype == torch.bfloat16:  # NumPy has it from ml_dtypes alone
        import ml_dtypes

        return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return value.numpy()


def to_torch(array: Array) -> torch.Tensor:
    """Return a backend's array as a tensor over the same memory."""
    if not isinstance(array, np.ndarray):
        return torch.from_dlpack(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
