"""Models for the tests of the import: of single nodes, and of PyTorch's own exporter."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as T
from onnx import helper, numpy_helper
from torch import nn


def made(
    nodes: list[onnx.NodeProto],
    shape: tuple,
    weights: dict[str, np.ndarray] | None = None,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a model of the input "x" and weights by name."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), output.split(), **attributes)


def exported(model: nn.Module, x: torch.Tensor, **options: Any) -> bytes:
    """Return PyTorch's export of a model whose batch is free; its batch norms stay as they are."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age
        torch.onnx.export(
            model,
            (x,),
            file,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            **options,
        )
    return file.getvalue()


class SmallResNet(nn.Module):
    """Convolutions with batch norm, a residual, a depthwise block, a gate, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.SiLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid()
        )
        self.activation = nn.PReLU(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(8 * 2 * 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.block(x)
        x = self.activation(x + y * self.gate(y))
        x = self.pool(x)
        return self.head(x.view(x.size(0), -1))


class UNet(nn.Module):
    """Maps joined across scales: transposed convolution, bilinear upsampling, group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self.pair(3, 8), self.pair(8, 16), self.pair(16, 32)])
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.stretch = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.middle, self.last = self.pair(32, 16), self.pair(24, 8)
        self.head = nn.Conv2d(8, 2, 1)

    @staticmethod
    def pair(channels: int, filters: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, filters, 3, 1, 1), nn.BatchNorm2d(filters), nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1), nn.GroupNorm(2, filters), nn.LeakyReLU(0.1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = self.down[0](x)
        small = self.down[1](T.max_pool2d(large, 2))
        y = self.up(self.down[2](T.avg_pool2d(small, 2)))
        y = self.stretch(self.middle(torch.cat([y, small], 1)))
        return torch.softmax(self.head(self.last(torch.cat([y, large], 1))), 1)


class Style(nn.Module):
    """Borders of all kinds, instance norm, pixel shuffle and interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(2), nn.Conv2d(3, 4, 5), nn.InstanceNorm2d(4, affine=True), nn.ELU(),
            nn.ReplicationPad2d(1), nn.Conv2d(4, 9, 3), nn.InstanceNorm2d(9), nn.PixelShuffle(3),
            nn.Upsample(scale_factor=2), nn.ZeroPad2d((1, 0, 2, 0)), nn.Hardswish(),
            nn.ConvTranspose2d(1, 3, 3, 2, 1, 1), nn.Softplus(), nn.PixelUnshuffle(2),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return T.interpolate(self.layers(x), size=(11, 20), mode="bicubic")


class Written(nn.Module):
    """Arithmetic written by hand, which comes out as nodes of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.linspace(-1, 2, 8).reshape(1, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = T.normalize(self.conv(x), dim=1) * self.scale
        y = T.gelu(y) + T.mish(y) + T.hardsigmoid(y) + T.selu(y) + T.celu(y, 0.7) + T.softsign(y)
        a, b = self.norm(y.permute(0, 2, 3, 1)).chunk(2, -1)
        y = torch.cat([a * b, a - b, a / (b.abs() + 1), b.clamp(-0.5, 0.5)], -1)
        parts = (
            y.std((1, 2)),
            torch.logsumexp(y, (1, 2)),
            y.flatten(1, 2).amax(1),
            y.norm(dim=(1, 2)),
        )
        return torch.cat(parts, 1) - T.local_response_norm(y, 3).mean((1, 2)).repeat(1, 4)


def randomise(model: nn.Module) -> None:
    """Give the batch norms statistics and parameters that are not 0 and 1."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5, generator=generator)
