"""The benchmark set: what is measured, and in which order.

The set is a list of lanes, each the cases of one operation on one network in one number format,
those that weigh most in the network first. The lanes are then merged by their weights, so that a
run that stops early has the most telling rows and some of every kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from gpucnn.shapes import ConvShape, NormShape, PoolShape

from . import networks
from .networks import Layer, convolutions, distinct, pools


@dataclass(frozen=True)
class RowShape:
    """A matrix (rows, classes) of logits."""

    rows: int
    classes: int


@dataclass(frozen=True)
class VectorShape:
    """An activation function on ``size`` numbers."""

    size: int
    kind: str


@dataclass(frozen=True)
class ParameterShape:
    """All parameters of a network, as an optimizer takes them."""

    sizes: tuple[int, ...]

    @property
    def parameters(self) -> int:
        return sum(self.sizes)


Shape = ConvShape | PoolShape | NormShape | RowShape | VectorShape | ParameterShape

# (dtype, math): products in the dtype itself, of TF32 once or thrice, or of 16-bit numbers summed
# in float32
FLOAT32, FLOAT64 = ("float32", "strict"), ("float64", "strict")
TF32, FP32X3 = ("float32", "tf32"), ("float32", "fp32x3")
BFLOAT16, FLOAT16 = ("bfloat16", "mixed"), ("float16", "mixed")
TORCH, ALONE = "torch", ""


@dataclass(frozen=True)
class Case:
    """One row to measure.

    Attributes:
        op: the operation, as in ``ours.OPERATIONS``.
        set, layer: where the shape comes from.
        shape: its geometry; of the convolution, where an operation fuses several.
        dtype, math: the number format, as above.
        pool: the pooling of ``conv_bias_relu_pool`` and its backward pass.
        against: "torch", "torch.compile", "jax", or "" for no peer.
        rung: of the ladder, whose kernel is to run; by default the one that is chosen.
    """

    op: str
    set: str
    layer: str
    shape: Shape
    dtype: str
    math: str
    pool: PoolShape | None = None
    against: str = TORCH
    rung: str = ""

    @property
    def layout(self) -> str:
        if not isinstance(self.shape, (ConvShape, PoolShape)):
            return "NC" if isinstance(self.shape, RowShape) else "N"
        axes = "DHW"[3 - self.shape.rank :]
        return f"N{axes}C" if self.shape.channels_last else f"NC{axes}"

    def row(self) -> dict[str, Any]:
        """Return what names this case in a results file."""
        if isinstance(self.shape, ParameterShape):
            shape = {"tensors": len(self.shape.sizes), "parameters": self.shape.parameters}
        else:
            shape = asdict(self.shape)
        if self.pool:
            shape["pool"] = list(self.pool.window)
        return {
            "op": self.op, "set": self.set, "layer": self.layer, "shape": shape,
            "dtype": self.dtype, "math": self.math, "layout": self.layout, "against": self.against,
        }  # fmt: skip


def key(row: dict[str, Any]) -> str:
    """Return what tells the row of one case from that of any other."""
    names = ("op", "set", "layer", "shape", "dtype", "math", "layout", "against")
    return json.dumps([row[name] for name in names])


@dataclass(frozen=True)
class Lane:
    """Cases that come in this order, ``weight`` of them in each round."""

    cases: tuple[Case, ...]
    weight: float = 1.0


def merge(lanes: Iterable[Lane]) -> list[Case]:
    """Merge lanes by their weights; in each round the earlier lanes come first.

    >>> [case for case in merge([Lane(("a", "b", "c"), 2), Lane(("x", "y"), 1)])]
    ['a', 'b', 'x', 'c', 'y']
    """
    placed = [
        (-(-(place + 1) // lane.weight), number, place, case)
        for number, lane in enumerate(lanes)
        for place, case in enumerate(lane.cases)
    ]
    return [case for *_, case in sorted(placed, key=lambda item: item[:3])]


Mode = tuple[str, str]
DIRECTIONS = ("conv_fprop", "conv_dgrad", "conv_wgrad")
POOLED = ("conv_bias_relu_pool", "conv_bias_relu_pool_backward")
# A batch norm and ReLU6 in front of a convolution: read through, and in a pass of its own.
NORMED = ("norm_relu6_conv", "norm_relu6_then_conv", "norm_relu6_conv_wgrad")
# Alone, with ReLU behind it, and as at the end of a residual block.
NORMS = tuple(
    f"batch_norm{fused}_{direction}"
    for fused in ("", "_relu", "_add_relu")
    for direction in ("train", "backward")
)


def heaviest_first(layers: Iterable[Layer], size: Callable[[Any], float]) -> list[Layer]:
    return sorted(distinct(layers), key=lambda layer: -layer.count * size(layer.shape))


def conv_lane(op: str, name: str, layers: Iterable[Layer], mode: Mode, weight: float = 1.0) -> Lane:
    """One lane of convolutions; without dgrad of those that see the picture itself."""
    kept = heaviest_first(convolutions(layers), lambda shape: shape.multiply_adds)
    if op.startswith("conv_dgrad"):
        kept = [layer for layer in kept if layer.shape.channels > 4]
    return Lane(tuple(_case(op, name, layer, mode) for layer in kept), weight)


def pooled_lane(op: str, name: str, layers: Iterable[Layer], mode: Mode) -> Lane:
    """The convolutions that are followed by a pooling, with bias, ReLU and pooling."""
    kept = heaviest_first(
        (layer for layer in convolutions(layers) if layer.pool), lambda shape: shape.multiply_adds
    )
    cases = (_case(op, name, layer, mode, pool=layer.pool) for layer in kept)
    return Lane(tuple(cases))


def pool_lane(op: str, name: str, layers: Iterable[Layer], mode: Mode) -> Lane:
    wanted = op.partition("_")[0]
    kept = [layer for layer in pools(layers) if layer.shape.mode == wanted]
    kept = heaviest_first(kept, lambda shape: prod(shape.x_shape))
    return Lane(tuple(_case(op, name, layer, mode) for layer in kept))


def norm_lane(op: str, name: str, layers: Iterable[Layer], mode: Mode) -> Lane:
    """The batch norms behind a network's convolutions."""
    shapes = {
        NormShape.of(layer.shape.y_shape): layer.name
        for layer in heaviest_first(convolutions(layers), lambda shape: prod(shape.y_shape))
    }
    return Lane(tuple(Case(op, name, layer, shape, *mode) for shape, layer in shapes.items()))


def _case(op: str, name: str, layer: Layer, mode: Mode, pool: PoolShape | None = None) -> Case:
    return Case(op, name, layer.name, layer.shape, *mode, pool)


def channels_first(lane: Lane) -> Lane:
    return Lane(
        tuple(replace(case, shape=replace(case.shape, channels_last=False)) for case in lane.cases),
        lane.weight,
    )


def _is(kind: str, layers: Iterable[Layer]) -> list[Layer]:
    """The depthwise, the grouped or the stem (few channels) convolutions among the layers."""
    return [layer for layer in convolutions(layers) if conv_kind(asdict(layer.shape)) == kind]


def conv_kind(shape: dict[str, Any]) -> str:
    """Name the family of a convolution that makes kernels good or bad at it."""
    if shape["groups"] > 1:
        return "depthwise" if shape["groups"] == shape["channels"] else "grouped"
    if len(shape["input"]) != 2:
        return f"{len(shape['input'])}-D"
    if prod(shape["input"]) == 1:
        return "fully connected"
    return "stem" if shape["channels"] <= 4 else "plain"


def stems(batch: int) -> list[Layer]:
    """First layers on one or three channels, each with the pooling behind it where it has one."""
    small = []
    for channels, size in ((1, 28), (3, 32)):
        walk = networks.Walk(batch, channels, size, size)
        walk.conv(f"{size}x{size}", 32, 3)
        walk.pool("pool", 2)
        small += walk.layers
    return [
        replace(layer, name=f"{name}.{layer.name}")
        for name, layers in (
            ("resnet50", networks.resnet50(batch)),
            ("vgg16", networks.vgg16(batch)),
            ("mobilenet_v2", networks.mobilenet_v2(batch)),
            ("cifar_vgg", networks.vgg16(batch, 32)),
            ("lenet", networks.lenet(batch)),
            ("small", small),
        )
        for layer in _is("stem", layers)
    ]


def fully_connected(batch: int) -> list[Layer]:
    """Dense layers as 1x1 convolutions of one pixel: ResNet-50's and VGG-16's."""
    layers = []
    for name, inputs, outputs in (("vgg16.fc6", 512 * 7 * 7, 4096), ("resnet50.fc", 2048, 1000)):
        walk = networks.Walk(batch, inputs, 1, 1)
        walk.conv(name, outputs, 1)
        layers += walk.layers
    return layers


def benchmark_set() -> list[Case]:
    """Return every case, the most telling first."""
    resnet, vgg = networks.resnet50(32), networks.vgg16(64)
    depthwise = _is("depthwise", networks.mobilenet_v2(32))
    projections = [layer for layer in networks.mobilenet_v2(128) if layer.name.endswith("project")]
    grouped = _is("grouped", networks.resnext50(32))
    sound, video = networks.m5(32), networks.c3d(8)
    lanes = [conv_lane(op, "resnet50", resnet, FLOAT32, 3) for op in DIRECTIONS]
    lanes += [conv_lane(op, "vgg16", vgg, FLOAT32, 2) for op in DIRECTIONS]
    lanes += [conv_lane(op, "mobilenet_v2", depthwise, FLOAT32) for op in DIRECTIONS]
    lanes += [conv_lane(op, "resnext50", grouped, FLOAT32) for op in DIRECTIONS]
    lanes += [pooled_lane(op, "stems", stems(128), FLOAT32) for op in POOLED]
    lanes += [conv_lane("conv_bias_relu", "stems", stems(128), FLOAT32)]
    lanes += [conv_lane("conv_wgrad", "stems", stems(128), FLOAT32)]
    lanes += [pooled_lane("conv_bias_relu_pool", "vgg16", vgg, FLOAT32)]
    lanes += [conv_lane("conv_bias_relu", "vgg16", vgg, FLOAT32)]
    lanes += [conv_lane("conv_bias_relu", "vgg16", vgg, BFLOAT16)]
    lanes += [conv_lane("conv_bias_relu", "resnet50", resnet, BFLOAT16)]
    lanes += [conv_lane(op, "mobilenet_v2", projections, BFLOAT16) for op in NORMED]
    for mode in (FLOAT32, BFLOAT16):
        lanes += [conv_lane("conv_dgrad_relu", "vgg16", vgg, mode)]
        lanes += [conv_lane("conv_dgrad_add", "resnet50", resnet, mode)]
    for op in ("max_pool", "max_pool_backward"):
        lanes += [pool_lane(op, "resnet50", resnet, FLOAT32), pool_lane(op, "vgg16", vgg, FLOAT32)]
    lanes += [norm_lane(op, "resnet50", resnet, FLOAT32) for op in NORMS]
    lanes += [_layouts(FLOAT32), _losses(FLOAT32), *_optimizers()]
    for op in DIRECTIONS:
        few = conv_lane(op, "resnet50", resnet, FLOAT64).cases[:4]
        lanes += [Lane(few), conv_lane(op, "resnet50", resnet, BFLOAT16)]
        lanes += [conv_lane(op, "vgg16", vgg, BFLOAT16)]
        lanes += [conv_lane(op, "m5", sound, FLOAT32), conv_lane(op, "c3d", video, FLOAT32)]
        lanes += [conv_lane(op, "dense", fully_connected(64), FLOAT32)]
    lanes += _activations(FLOAT32)
    for op in DIRECTIONS:
        lanes += [conv_lane(op, "resnet50", resnet, TF32), conv_lane(op, "vgg16", vgg, TF32)]
        lanes += [Lane(conv_lane(op, "resnet50", resnet, FP32X3).cases[:4])]
    return merge([*lanes, *_later_lanes()])


def _later_lanes() -> list[Lane]:
    """Other batches, layouts and number formats; one row of each in two rounds."""
    resnet, vgg = networks.resnet50(32), networks.vgg16(64)
    lanes = []
    for op in ("average_pool", "average_pool_backward"):
        lanes += [pool_lane(op, "resnet50", resnet, FLOAT32)]
    for op in ("max_pool", "max_pool_backward", "average_pool", "average_pool_backward"):
        lanes += [channels_first(pool_lane(op, "resnet50", resnet, FLOAT32))]
    for op in DIRECTIONS:
        lanes += [channels_first(conv_lane(op, "resnet50", resnet, FLOAT32))]
        lanes += [conv_lane(op, "resnet50", networks.resnet50(256), FLOAT32)]
        lanes += [conv_lane(op, "resnet50", networks.resnet50(256), BFLOAT16)]
        lanes += [conv_lane(op, "resnet50", networks.resnet50(1), FLOAT32)]
        lanes += [conv_lane(op, "vgg16", networks.vgg16(1), FLOAT32)]
        for batch in (128, 512):
            lanes += [conv_lane(op, "cifar_vgg", networks.vgg16(batch, 32), FLOAT32)]
            lanes += [conv_lane(op, "lenet", networks.lenet(batch), FLOAT32)]
        for mode in (BFLOAT16, FLOAT16, TF32):
            lanes += [conv_lane(op, "vgg16", vgg, mode)] if mode == FLOAT16 else []
            lanes += [
                conv_lane(op, "mobilenet_v2", _is("depthwise", networks.mobilenet_v2(32)), mode)
            ]
            lanes += [conv_lane(op, "resnext50", _is("grouped", networks.resnext50(32)), mode)]
        lanes += [conv_lane(op, "resnet50", resnet, FLOAT16)]
    for batch in (128, 512):
        cifar_vgg, lenet = networks.vgg16(batch, 32), networks.lenet(batch)
        lanes += [pooled_lane("conv_bias_relu_pool", "cifar_vgg", cifar_vgg, FLOAT32)]
        lanes += [pooled_lane("conv_bias_relu_pool", "lenet", lenet, FLOAT32)]
    for mode in (BFLOAT16, FLOAT16):
        lanes += [pooled_lane(op, "stems", stems(128), mode) for op in POOLED]
        lanes += [pooled_lane("conv_bias_relu_pool", "vgg16", vgg, mode)]
        lanes += [pool_lane("max_pool", "vgg16", vgg, mode)]
        lanes += [pool_lane("max_pool_backward", "vgg16", vgg, mode)]
        lanes += [norm_lane(op, "resnet50", resnet, mode) for op in NORMS]
        lanes += [_layouts(mode), _losses(mode), *_activations(mode)]
    return [replace(lane, weight=0.5) for lane in lanes]


def _layouts(mode: Mode) -> Lane:
    """Pictures and ResNet-50's largest maps at N = 32, channels last to first and back."""
    sizes = {
        "pictures": (256, 224, 224, 3), "conv2": (32, 56, 56, 256), "conv5": (32, 7, 7, 2048),
    }  # fmt: skip
    shapes = [
        (name, replace(NormShape.of(size), channels_last=last))
        for name, size in sizes.items()
        for last in (True, False)
    ]
    return Lane(tuple(Case("change_layout", "resnet50", *shape, *mode) for shape in shapes))


def _losses(mode: Mode) -> Lane:
    shapes = (("imagenet", 256, 1000), ("imagenet_large", 8192, 1000), ("cifar", 512, 10))
    return Lane(
        tuple(
            Case("softmax_cross_entropy", "loss", name, RowShape(rows, classes), *mode)
            for name, rows, classes in shapes
        )
    )


def _activations(mode: Mode) -> list[Lane]:
    """ReLU and GELU on the maps of ResNet-50's second stage at N = 32."""
    size = 32 * 56 * 56 * 256
    return [
        Lane(tuple(Case(op, "resnet50", k, VectorShape(size, k), *mode) for k in ("relu", "gelu")))
        for op in ("activation_forward", "activation_backward")
    ]


def _optimizers() -> list[Lane]:
    networks_ = {
        "resnet50": networks.resnet50_parameters(),
        "vgg16": networks.vgg16_parameters(),
    }
    return [
        Lane(
            tuple(
                Case(op, name, "parameters", ParameterShape(tuple(map(prod, shapes))), *FLOAT32)
                for name, shapes in networks_.items()
            )
        )
        for op in ("sgd_update", "adam_update")
    ]


def fused_against(peer: str, cases: Iterable[Case]) -> list[Case]:
    """Return the cases of fused operations once more, to be held against another peer."""
    fused = (case for case in cases if case.op in ("conv_bias_relu", "conv_bias_relu_pool"))
    return [replace(case, against=peer) for case in fused]
