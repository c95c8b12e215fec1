"""One case for each kind of layer, on odd shapes, with the same function written in PyTorch.

``torch`` takes the inputs and the parameters in our layout and returns y in our layout, so that
its autograd gives dx and each parameter's gradient as ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as T

from gpucnn import layers as L

Tensor = torch.Tensor


@dataclass(frozen=True)
class Case:
    layer: Callable[[], L.Layer]
    x_shape: tuple | list  # with the batch axis; a list of shapes for a merging layer
    torch: Callable[..., Tensor] | None = None
    training: bool = False


def first(x: Tensor) -> Tensor:
    """(N, ..., C) -> (N, C, ...); a kernel (K, R, S, C) -> (K, C, R, S)."""
    return x.movedim(-1, 1)


def last(y: Tensor) -> Tensor:
    return y.movedim(1, -1)


def _max(x: Tensor, pool: Callable, pads: tuple, *arguments: Any, **options: Any) -> Tensor:
    return last(pool(T.pad(first(x), pads, value=-torch.inf), *arguments, **options))


CONVS = {
    "Conv1D": Case(
        lambda: L.Conv1D(6, 3, strides=2, padding=((1, 3),), activation="tanh"),
        (2, 10, 5),
        lambda x, p: torch.tanh(
            last(T.conv1d(T.pad(first(x), (1, 3)), first(p["kernel"]), p["bias"], stride=2))
        ),
    ),
    "Conv1D_causal": Case(
        lambda: L.Conv1D(4, 3, padding="causal", dilation_rate=2),
        (3, 9, 3),
        lambda x, p: last(
            T.conv1d(T.pad(first(x), (4, 0)), first(p["kernel"]), p["bias"], dilation=2)
        ),
    ),
    "Conv2D": Case(
        lambda: L.Conv2D(7, (3, 2), activation="relu"),
        (2, 7, 5, 3),
        lambda x, p: torch.relu(last(T.conv2d(first(x), first(p["kernel"]), p["bias"]))),
    ),
    "Conv2D_same": Case(  # 9 -> 5 needs 1 + 1, 8 -> 4 needs 0 + 1
        lambda: L.Conv2D(4, 3, strides=2, padding="same", activation="silu"),
        (1, 9, 8, 3),
        lambda x, p: T.silu(
            last(T.conv2d(T.pad(first(x), (0, 1, 1, 1)), first(p["kernel"]), p["bias"], stride=2))
        ),
    ),
    "Conv2D_everything": Case(
        lambda: L.Conv2D(
            6,
            (3, 2),
            strides=(1, 3),
            padding=((2, 0), (1, 2)),
            data_format="channels_first",
            dilation_rate=(2, 1),
            groups=2,
            activation="softmax",
            use_bias=False,
        ),
        (2, 4, 7, 8),
        lambda x, p: torch.softmax(
            T.conv2d(T.pad(x, (1, 2, 2, 0)), first(p["kernel"]), None, (1, 3), 0, (2, 1), groups=2),
            1,
        ),
    ),
    "Conv3D": Case(
        lambda: L.Conv3D(4, (2, 3, 1), strides=(1, 2, 1), padding=1),
        (1, 3, 5, 4, 3),
        lambda x, p: last(T.conv3d(first(x), first(p["kernel"]), p["bias"], (1, 2, 1), 1)),
    ),
    "Conv1DTranspose": Case(
        lambda: L.Conv1DTranspose(3, 4, strides=3, padding=((1, 1),), output_padding=2),
        (2, 5, 4),
        lambda x, p: last(T.conv_transpose1d(first(x), first(p["kernel"]), p["bias"], 3, 1, 2)),
    ),
    "Conv2DTranspose": Case(
        lambda: L.Conv2DTranspose(6, (3, 2), strides=(2, 1), groups=2, activation="sigmoid"),
        (2, 3, 5, 4),
        lambda x, p: torch.sigmoid(
            last(T.conv_transpose2d(first(x), first(p["kernel"]), p["bias"], (2, 1), groups=2))
        ),
    ),
    "Conv2DTranspose_same": Case(  # reach 5 - stride 2 leaves 3 to cut, 1 in front; 3 - 3 none
        lambda: L.Conv2DTranspose(
            3, 3, strides=(2, 3), padding="same", dilation_rate=(2, 1), data_format="channels_first"
        ),
        (1, 5, 4, 3),
        lambda x, p: T.conv_transpose2d(x, first(p["kernel"]), p["bias"], (2, 3), dilation=(2, 1))[
            :, :, 1:9
        ],
    ),
    "Conv2DTranspose_gaps": Case(  # the stride is larger than the window: empty rows behind
        lambda: L.Conv2DTranspose(2, 2, strides=(4, 2)),
        (1, 3, 2, 3),
        lambda x, p: last(
            T.conv_transpose2d(
                first(x), first(p["kernel"]), p["bias"], (4, 2), output_padding=(2, 0)
            )
        ),
    ),
    "Conv3DTranspose": Case(
        lambda: L.Conv3DTranspose(2, (2, 1, 3), strides=2, padding=((0, 1), (0, 0), (2, 1))),
        (1, 3, 2, 4, 3),
        lambda x, p: last(
            T.conv_transpose3d(first(x), first(p["kernel"]), p["bias"], 2)[:, :, :-1, :, 2:-1]
        ),
    ),
    "DepthwiseConv1D": Case(
        lambda: L.DepthwiseConv1D(3, padding=1, use_bias=False),
        (2, 7, 5),
        lambda x, p: last(T.conv1d(first(x), first(p["kernel"]), None, 1, 1, groups=5)),
    ),
    "DepthwiseConv2D": Case(
        lambda: L.DepthwiseConv2D((3, 2), depth_multiplier=2, strides=2, activation="gelu"),
        (1, 8, 7, 3),
        lambda x, p: T.gelu(last(T.conv2d(first(x), first(p["kernel"]), p["bias"], 2, groups=3))),
    ),
    "DepthwiseConv3D": Case(
        lambda: L.DepthwiseConv3D(2, dilation_rate=(1, 2, 1)),
        (1, 3, 4, 3, 2),
        lambda x, p: last(
            T.conv3d(first(x), first(p["kernel"]), p["bias"], dilation=(1, 2, 1), groups=2)
        ),
    ),
    "SeparableConv1D": Case(
        lambda: L.SeparableConv1D(4, 3, depth_multiplier=2, activation="elu"),
        (2, 7, 3),
        lambda x, p: T.elu(
            last(
                T.conv1d(
                    T.conv1d(first(x), first(p["depthwise_kernel"]), groups=3),
                    first(p["pointwise_kernel"]),
                    p["bias"],
                )
            )
        ),
    ),
    "SeparableConv2D": Case(
        lambda: L.SeparableConv2D(5, (3, 2), strides=2, data_format="channels_first"),
        (1, 3, 7, 6),
        lambda x, p: T.conv2d(
            T.conv2d(x, first(p["depthwise_kernel"]), stride=2, groups=3),
            first(p["pointwise_kernel"]),
            p["bias"],
        ),
    ),
    "Dense": Case(
        lambda: L.Dense(5, activation="leaky_relu"),
        (3, 7),
        lambda x, p: T.leaky_relu(T.linear(x, p["kernel"], p["bias"]), 0.2),
    ),
    "Dense_maps": Case(
        lambda: L.Dense(4, activation="log_softmax", use_bias=False),
        (2, 3, 5),
        lambda x, p: torch.log_softmax(T.linear(x, p["kernel"]), -1),
    ),
}

POOLS = {
    "MaxPool1D": Case(
        lambda: L.MaxPool1D(3, strides=2, padding="same"),  # 8 -> 4 needs 0 + 1
        (2, 8, 3),
        lambda x, p: _max(x, T.max_pool1d, (0, 1), 3, 2),
    ),
    "MaxPool2D": Case(
        lambda: L.MaxPool2D((3, 2), strides=(2, 1), padding=((2, 1), (0, 1)), dilation_rate=(1, 2)),
        (2, 7, 5, 3),
        lambda x, p: _max(x, T.max_pool2d, (0, 1, 2, 1), (3, 2), (2, 1), dilation=(1, 2)),
    ),
    "MaxPool2D_first": Case(
        lambda: L.MaxPool2D(3, strides=2, ceil_mode=True, data_format="channels_first"),
        (2, 3, 8, 6),
        lambda x, p: T.max_pool2d(x, 3, 2, ceil_mode=True),
    ),
    "MaxPool3D": Case(
        lambda: L.MaxPool3D(2),
        (1, 4, 5, 3, 2),
        lambda x, p: last(T.max_pool3d(first(x), 2)),
    ),
    "MinPool1D": Case(
        lambda: L.MinPool1D(2), (2, 7, 3), lambda x, p: -last(T.max_pool1d(first(-x), 2))
    ),
    "MinPool2D": Case(
        lambda: L.MinPool2D(3, strides=1, padding=1),
        (1, 5, 4, 3),
        lambda x, p: -_max(-x, T.max_pool2d, (1, 1, 1, 1), 3, 1),
    ),
    "MinPool3D": Case(
        lambda: L.MinPool3D((1, 2, 3)),
        (1, 2, 4, 7, 2),
        lambda x, p: -last(T.max_pool3d(first(-x), (1, 2, 3))),
    ),
    "AveragePool1D": Case(
        lambda: L.AveragePool1D(4, strides=3),
        (2, 10, 3),
        lambda x, p: last(T.avg_pool1d(first(x), 4, 3)),
    ),
    "AveragePool2D": Case(
        lambda: L.AveragePool2D((2, 3), strides=2, padding=1),
        (2, 7, 5, 3),
        lambda x, p: last(T.avg_pool2d(first(x), (2, 3), 2, 1, count_include_pad=False)),
    ),
    "AveragePool2D_counting": Case(
        lambda: L.AveragePool2D(3, strides=2, padding=1, ceil_mode=True, count_padding=True),
        (1, 6, 8, 3),
        lambda x, p: last(T.avg_pool2d(first(x), 3, 2, 1, ceil_mode=True)),
    ),
    "AveragePool3D": Case(
        lambda: L.AveragePool3D(2, strides=1),
        (1, 3, 4, 3, 2),
        lambda x, p: last(T.avg_pool3d(first(x), 2, 1)),
    ),
    "SumPool1D": Case(
        lambda: L.SumPool1D(3), (2, 7, 3), lambda x, p: last(T.avg_pool1d(first(x), 3)) * 3
    ),
    "SumPool2D": Case(
        lambda: L.SumPool2D(2, padding=1),
        (1, 5, 6, 3),
        lambda x, p: last(T.avg_pool2d(first(x), 2, 2, 1, divisor_override=1)),
    ),
    "SumPool3D": Case(
        lambda: L.SumPool3D(2),
        (1, 2, 5, 4, 3),
        lambda x, p: last(T.avg_pool3d(first(x), 2, divisor_override=1)),
    ),
    "GlobalMaxPool1D": Case(lambda: L.GlobalMaxPool1D(), (2, 7, 3), lambda x, p: x.amax(1)),
    "GlobalMaxPool2D": Case(
        lambda: L.GlobalMaxPool2D(keepdims=True), (2, 5, 4, 3), lambda x, p: x.amax((1, 2), True)
    ),
    "GlobalMaxPool3D": Case(
        lambda: L.GlobalMaxPool3D(), (2, 3, 2, 4, 3), lambda x, p: x.amax((1, 2, 3))
    ),
    "GlobalMinPool1D": Case(lambda: L.GlobalMinPool1D(), (2, 7, 3), lambda x, p: x.amin(1)),
    "GlobalMinPool2D": Case(
        lambda: L.GlobalMinPool2D(data_format="channels_first"),
        (2, 3, 5, 4),
        lambda x, p: x.amin((2, 3)),
    ),
    "GlobalMinPool3D": Case(
        lambda: L.GlobalMinPool3D(), (1, 3, 2, 4, 3), lambda x, p: x.amin((1, 2, 3))
    ),
    "GlobalAveragePool1D": Case(
        lambda: L.GlobalAveragePool1D(keepdims=True), (2, 7, 3), lambda x, p: x.mean(1, True)
    ),
    "GlobalAveragePool2D": Case(
        lambda: L.GlobalAveragePool2D(data_format="channels_first", keepdims=True),
        (2, 3, 5, 4),
        lambda x, p: x.mean((2, 3), True),
    ),
    "GlobalAveragePool3D": Case(
        lambda: L.GlobalAveragePool3D(), (1, 3, 2, 4, 3), lambda x, p: x.mean((1, 2, 3))
    ),
    "GlobalSumPool1D": Case(lambda: L.GlobalSumPool1D(), (2, 7, 3), lambda x, p: x.sum(1)),
    "GlobalSumPool2D": Case(lambda: L.GlobalSumPool2D(), (2, 5, 4, 3), lambda x, p: x.sum((1, 2))),
    "GlobalSumPool3D": Case(
        lambda: L.GlobalSumPool3D(), (1, 3, 2, 4, 3), lambda x, p: x.sum((1, 2, 3))
    ),
}


def _norm(channels: int, training: bool) -> Callable[..., Tensor]:
    """Batch norm by the batch's statistics or, untrained, by the moving ones: 0 and 1."""

    def run(x: Tensor, p: dict[str, Tensor]) -> Tensor:
        moving = torch.zeros(channels, dtype=x.dtype), torch.ones(channels, dtype=x.dtype)
        return last(T.batch_norm(first(x), *moving, p["gamma"], p["beta"], training, 0.1, 1e-3))

    return run


NORMS = {
    "BatchNorm": Case(L.BatchNorm, (4, 3, 5, 3), _norm(3, True), training=True),
    "BatchNorm_relu": Case(
        lambda: L.BatchNorm(activation="relu"),
        (4, 3, 5, 3),
        lambda x, p: T.relu(_norm(3, True)(x, p)),
        training=True,
    ),
    "BatchNorm_softmax": Case(
        lambda: L.BatchNorm(activation="softmax", axis=1),
        (3, 4, 5),
        lambda x, p: T.softmax(
            T.batch_norm(x, None, None, p["gamma"], p["beta"], True, 0.0, 1e-3), 1
        ),
        training=True,
    ),
    "BatchNorm_inference": Case(L.BatchNorm, (2, 3, 5, 3), _norm(3, False)),
    "BatchNorm_first": Case(
        lambda: L.BatchNorm(axis=1, epsilon=0.1),
        (3, 4, 5),
        lambda x, p: T.batch_norm(x, None, None, p["gamma"], p["beta"], True, 0.0, 0.1),
        training=True,
    ),
    "BatchNorm_rows": Case(L.BatchNorm, (7, 5), _norm(5, True), training=True),
    "GroupNorm": Case(
        lambda: L.GroupNorm(2),
        (2, 3, 5, 6),
        lambda x, p: last(T.group_norm(first(x), 2, p["gamma"], p["beta"], 1e-3)),
    ),
    "GroupNorm_first": Case(
        lambda: L.GroupNorm(3, axis=1),
        (2, 6, 5),
        lambda x, p: T.group_norm(x, 3, p["gamma"], p["beta"], 1e-3),
    ),
    "InstanceNorm": Case(
        L.InstanceNorm,
        (2, 3, 5, 3),
        lambda x, p: last(T.instance_norm(first(x), weight=p["gamma"], bias=p["beta"], eps=1e-3)),
    ),
    "LayerNorm": Case(
        L.LayerNorm,
        (2, 3, 7),
        lambda x, p: T.layer_norm(x, (7,), p["gamma"], p["beta"], 1e-3),
    ),
    "LayerNorm_maps": Case(
        lambda: L.LayerNorm(axis=(-3, -2, -1), epsilon=1e-5),
        (3, 4, 3, 2),
        lambda x, p: T.layer_norm(x, (4, 3, 2), p["gamma"], p["beta"], 1e-5),
    ),
}

ACTIVATIONS = {
    "Activation": Case(lambda: L.Activation("swish"), (3, 5, 7), lambda x, p: T.silu(x)),
    "Activation_linear": Case(lambda: L.Activation("linear"), (3, 5), lambda x, p: x),
    "ReLU": Case(L.ReLU, (3, 5, 7), lambda x, p: torch.relu(x)),
    "ReLU6": Case(lambda: L.ReLU(6), (3, 5, 7), lambda x, p: T.relu6(x)),
    "LeakyReLU": Case(L.LeakyReLU, (3, 5, 7), lambda x, p: T.leaky_relu(x, 0.3)),
    "PReLU": Case(L.PReLU, (2, 5, 7), lambda x, p: last(T.prelu(first(x), p["alpha"]))),
    "PReLU_first": Case(lambda: L.PReLU(axis=1), (2, 5, 7), lambda x, p: T.prelu(x, p["alpha"])),
    "ELU": Case(lambda: L.ELU(0.7), (3, 5, 7), lambda x, p: T.elu(x, 0.7)),
    "SELU": Case(L.SELU, (3, 5, 7), lambda x, p: T.selu(x)),
    "Sigmoid": Case(L.Sigmoid, (3, 5, 7), lambda x, p: torch.sigmoid(x)),
    # hardsigmoid itself takes 1/6 in float32 for its gradient.
    "HardSigmoid": Case(L.HardSigmoid, (3, 5, 7), lambda x, p: T.relu6(x + 3) / 6),
    "Tanh": Case(L.Tanh, (3, 5, 7), lambda x, p: torch.tanh(x)),
    "Softplus": Case(L.Softplus, (3, 5, 7), lambda x, p: T.softplus(x)),
    "Softsign": Case(L.Softsign, (3, 5, 7), lambda x, p: T.softsign(x)),
    "GELU": Case(L.GELU, (3, 5, 7), lambda x, p: T.gelu(x)),
    "GELU_approximate": Case(
        lambda: L.GELU(approximate=True), (3, 5, 7), lambda x, p: T.gelu(x, approximate="tanh")
    ),
    "SiLU": Case(L.SiLU, (3, 5, 7), lambda x, p: T.silu(x)),
    "HardSiLU": Case(L.HardSiLU, (3, 5, 7), lambda x, p: T.hardswish(x)),
    "Mish": Case(L.Mish, (3, 5, 7), lambda x, p: T.mish(x)),
    "Softmax": Case(L.Softmax, (3, 5, 7), lambda x, p: torch.softmax(x, -1)),
    "LogSoftmax": Case(
        lambda: L.LogSoftmax(axis=1), (3, 5, 7), lambda x, p: torch.log_softmax(x, 1)
    ),
    "Clip": Case(lambda: L.Clip(-1.5, 2), (3, 5, 7), lambda x, p: torch.clip(x, -1.5, 2)),
    "Clip_below": Case(lambda: L.Clip(low=0.1), (3, 5, 7), lambda x, p: torch.clip(x, 0.1)),
    "Shrink": Case(
        lambda: L.Shrink(1.3, bias=0.4),
        (3, 5, 7),
        lambda x, p: T.hardshrink(x, 1.3) - 0.4 * x.sign() * (x.abs() > 1.3),
    ),
    "Shrink_positive": Case(
        lambda: L.Shrink(0.7, positive=True), (3, 5, 7), lambda x, p: T.threshold(x, 0.7, 0)
    ),
    "Softmax_axis": Case(lambda: L.Softmax(axis=1), (3, 5, 7), lambda x, p: torch.softmax(x, 1)),
}

OTHERS = {
    "Flatten": Case(L.Flatten, (2, 3, 5), lambda x, p: x.flatten(1)),
    "Reshape": Case(lambda: L.Reshape((5, -1)), (2, 3, 10), lambda x, p: x.reshape(2, 5, 6)),
    "Permute": Case(lambda: L.Permute((3, 1, 2)), (2, 3, 5, 7), lambda x, p: x.permute(0, 3, 1, 2)),
    "Permute_first_to_last": Case(
        lambda: L.Permute((2, 3, 1)), (2, 3, 5, 7), lambda x, p: x.permute(0, 2, 3, 1)
    ),
    "Permute_inside": Case(
        lambda: L.Permute((2, 1, 3)), (2, 3, 5, 7), lambda x, p: x.permute(0, 2, 1, 3)
    ),
    "Dropout": Case(lambda: L.Dropout(0.4, seed=3), (3, 5, 7), training=True),
    "Dropout_inference": Case(lambda: L.Dropout(0.4), (3, 5), lambda x, p: x),
    "Add": Case(L.Add, [(2, 3, 5)] * 3, lambda x, p: x[0] + x[1] + x[2]),
    "Multiply": Case(
        L.Multiply, [(2, 3, 5, 4), (2, 1, 1, 4), (2, 3, 5, 1)], lambda x, p: x[0] * x[1] * x[2]
    ),
    "Concatenate": Case(
        L.Concatenate, [(2, 3, 5), (2, 3, 2), (2, 3, 1)], lambda x, p: torch.cat(x, -1)
    ),
    "Concatenate_first": Case(
        lambda: L.Concatenate(axis=1), [(2, 3, 5), (2, 4, 5)], lambda x, p: torch.cat(x, 1)
    ),
}


def _operand(function: str, shape: tuple, compute: Callable[..., Tensor], **options: Any) -> Case:
    return Case(
        lambda: L.Arithmetic(function, shape, **options),
        (2, 3, 5, 4),
        lambda x, p: compute(x, p["operand"]),
    )


def _merged(kind: type, compute: Callable[..., Tensor]) -> Case:
    return Case(kind, [(2, 3, 1), (2, 3, 5)], lambda x, p: compute(*x))


def _upsampled(**options: Any) -> Callable[..., Tensor]:
    return lambda x, p: last(T.interpolate(first(x), **options))


# Functions whose domain is all of (-4, 4); the others are in ARITHMETIC behind one that fits.
_EVERYWHERE = {
    "abs": torch.abs, "asinh": torch.asinh, "atan": torch.atan, "ceil": torch.ceil,
    "cos": torch.cos, "cosh": torch.cosh, "erf": torch.erf, "exp": torch.exp,
    "floor": torch.floor, "negative": torch.neg, "reciprocal": torch.reciprocal,
    "round": torch.round, "sign": torch.sign, "sin": torch.sin, "sinh": torch.sinh,
    "square": torch.square, "tan": torch.tan,
}  # fmt: skip

ARITHMETIC = {
    **{
        f"Elementwise_{name}": Case(
            lambda name=name: L.Elementwise(name),
            (2, 3, 4) if name in ("ceil", "floor") else (2, 3, 5),  # no input at a step
            lambda x, p, run=run: run(x),
        )
        for name, run in _EVERYWHERE.items()
    },
    "Arithmetic": _operand("add", (5, 1), torch.add),
    "Arithmetic_multiply": _operand("multiply", (), torch.mul),
    "Arithmetic_subtract": _operand("subtract", (3, 1, 4), torch.sub),
    "Arithmetic_from": _operand("subtract", (4,), lambda x, o: o - x, reverse=True),
    "Arithmetic_divide": _operand("divide", (3, 1, 1), torch.div),
    "Arithmetic_over": _operand("divide", (4,), lambda x, o: o / x, reverse=True),
    "Arithmetic_maximum": _operand("maximum", (4,), torch.maximum),
    "Arithmetic_constant": Case(
        lambda: L.Arithmetic("maximum", (), learned=False),
        (2, 3, 5),
        lambda x, p: torch.clip(x, 1),
    ),
    "Constant": Case(lambda: L.Constant((4, 2)), (3, 5), lambda x, p: p["operand"].expand(3, 4, 2)),
    "Constant_fixed": Case(
        lambda: L.Constant((4,), learned=False),
        (3, 5),
        lambda x, p: torch.ones(3, 4) + 0 * x[:, :1],
    ),
    "Subtract": _merged(L.Subtract, torch.sub),
    "Divide": _merged(L.Divide, torch.div),
    "Maximum": _merged(L.Maximum, torch.maximum),
    "Minimum": _merged(L.Minimum, torch.minimum),
    "Average": Case(
        L.Average, [(2, 3, 5), (2, 3, 1), (2, 3, 5)], lambda x, p: (x[0] + x[1] + x[2]) / 3
    ),
    "Add_stretched": Case(
        L.Add, [(2, 1, 5), (2, 3, 1), (2, 3, 5)], lambda x, p: x[0] + x[1] + x[2]
    ),
    "MatMul": Case(L.MatMul, [(2, 3, 4, 5), (2, 1, 5, 2)], lambda x, p: x[0] @ x[1]),
    **{
        f"Reduce_{mode}": Case(
            lambda mode=mode: L.Reduce(mode, (1, 3)),
            (2, 3, 4, 5),
            lambda x, p, run=run: run(x, (1, 3)),
        )
        for mode, run in {
            "sum": torch.sum,
            "mean": torch.mean,
            "max": torch.amax,
            "min": torch.amin,
            "l1": lambda x, axes: x.abs().sum(axes),
            "l2": lambda x, axes: x.square().sum(axes).sqrt(),
            "log_sum_exp": torch.logsumexp,
            "sum_square": lambda x, axes: x.square().sum(axes),
        }.items()
    },
    "Reduce_prod": Case(
        lambda: L.Reduce("prod", -1, keepdims=True),
        (2, 3, 5),
        lambda x, p: x.prod(-1, keepdim=True),
    ),
}

ARRANGED = {
    "Pad": Case(
        lambda: L.Pad([(1, 2), (-1, 0), (0, 3)], value=0.5),
        (2, 3, 5, 4),
        lambda x, p: T.pad(x[:, :, 1:], (0, 3, 0, 0, 1, 2), value=0.5),
    ),
    "Pad_reflect": Case(
        lambda: L.Pad([(0, 0), (2, 1), (3, 2)], "reflect"),
        (2, 3, 5, 4),
        lambda x, p: T.pad(x, (3, 2, 2, 1), "reflect"),
    ),
    "Pad_edge": Case(
        lambda: L.Pad([(0, 0), (2, 0), (0, 3)], "edge"),
        (2, 3, 5, 4),
        lambda x, p: T.pad(x, (0, 3, 2, 0), "replicate"),
    ),
    "Pad_wrap": Case(
        lambda: L.Pad([(0, 0), (2, 1), (3, 2)], "wrap"),
        (2, 3, 5, 4),
        lambda x, p: T.pad(x, (3, 2, 2, 1), "circular"),
    ),
    "Slice": Case(
        lambda: L.Slice([(1, None, 2), (-1, None, -2), (None, -1, None)]),
        (2, 6, 5, 4),
        lambda x, p: x[:, 1::2].flip(2)[:, :, ::2, :-1],
    ),
    "Take": Case(
        lambda: L.Take([3, 0, 3, 1, 3], axis=1), (2, 4, 5), lambda x, p: x[:, [3, 0, 3, 1, 3]]
    ),
    "Tile": Case(lambda: L.Tile((2, 1, 3)), (2, 3, 5, 4), lambda x, p: x.repeat(1, 2, 1, 3)),
    "Resize": Case(
        lambda: L.Resize(scale=2), (2, 5, 4, 3), _upsampled(scale_factor=2, mode="nearest")
    ),
    "Resize_floor": Case(
        lambda: L.Resize((3, 9), coordinates="asymmetric", rounding="floor"),
        (2, 5, 4, 3),
        _upsampled(size=(3, 9), mode="nearest"),
    ),
    "Resize_linear": Case(
        lambda: L.Resize((7, 3), interpolation="linear"),
        (2, 5, 4, 3),
        _upsampled(size=(7, 3), mode="bilinear"),
    ),
    "Resize_corners": Case(
        lambda: L.Resize(8, interpolation="linear", coordinates="align_corners", axes=(1,)),
        (2, 5, 3),
        _upsampled(size=8, mode="linear", align_corners=True),
    ),
    "Resize_cubic": Case(
        lambda: L.Resize((7, 6), interpolation="cubic"),
        (2, 5, 4, 3),
        _upsampled(size=(7, 6), mode="bicubic"),
    ),
    "LocalResponseNorm": Case(
        lambda: L.LocalResponseNorm(3, alpha=0.3, beta=0.6, bias=1.2),
        (2, 4, 3, 7),
        lambda x, p: last(T.local_response_norm(first(x), 3, 0.3, 0.6, 1.2)),
    ),
    "LocalResponseNorm_first": Case(
        lambda: L.LocalResponseNorm(4, alpha=0.3, axis=1), (2, 7, 3), None
    ),
    **{
        f"MaxUnpool{rank}D": Case(
            lambda rank=rank: getattr(L, f"MaxUnpool{rank}D")(2, data_format="channels_first"),
            [(2, 3, *(2,) * rank), (2, 3, *(5,) * rank)],
            lambda x, p, rank=rank: getattr(T, f"max_unpool{rank}d")(
                x[0],
                getattr(T, f"max_pool{rank}d")(x[1], 2, return_indices=True)[1],
                2,
                output_size=(5,) * rank,
            ),
        )
        for rank in (1, 2, 3)
    },
}

# So steep near an edge of their domain that a difference says nothing there; torch says it all.
STEEP = {"Elementwise_tan", "Arithmetic_divide", "Arithmetic_over", "Divide"}
# Of no slope at all, and of one for positive numbers only: see test_arithmetic.
APART = {"ArgMax": L.ArgMax, "Power": L.Power}

CASES: dict[str, Case] = {
    **CONVS,
    **POOLS,
    **NORMS,
    **ACTIVATIONS,
    **OTHERS,
    **ARITHMETIC,
    **ARRANGED,
}
