"""What is measured: single layers, by group, and whole steps of small networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..shapes import ConvShape, PoolShape

CONVOLUTIONS = ("conv_fprop", "conv_dgrad", "conv_wgrad")
POOLS = ("max_pool", "max_pool_backward")
ACTIVATIONS = ("activation_forward", "activation_backward")  # ReLU
NORMS = ("batch_norm_train", "batch_norm_backward")
STEPS = ("training_step", "inference")
NETWORKS = (
    "lenet5", "lenet5_plain", "vgg_small", "vgg_plain", "resnet20", "mobilenet_v2_small",
)  # fmt: skip
BATCHES = (1, 64, 128)
MOST_CHECKED = 10**10  # multiply-adds, above which a result is not worked out in float64, too


@dataclass(frozen=True)
class Case:
    """One row to measure, in float32 with channels last; maps and windows are square.

    Attributes:
        op: one of the names above.
        group: what its ratio is averaged with.
        layer: its name, or its network's.
        batch: images.
        channels, size: of the input.
        filters, kernel, stride, padding, dilation, groups: of a convolution, or a pooling's window.
    """

    op: str
    group: str
    layer: str
    batch: int
    channels: int = 0
    size: int = 0
    filters: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def conv(self) -> ConvShape:
        """The geometry of a convolution.

        >>> case_named("conv_fprop", "stride2_128_56").conv.y_shape
        (8, 28, 28, 128)
        """
        return ConvShape.of(
            (self.batch, self.size, self.size, self.channels),
            (self.filters, self.kernel, self.kernel, self.channels // self.groups),
            strides=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    @property
    def pool(self) -> PoolShape:
        """The geometry of a max pooling."""
        return PoolShape.of(
            (self.batch, self.size, self.size, self.channels), self.kernel, mode="max", rank=2,
            strides=self.stride, padding=self.padding,
        )  # fmt: skip

    @property
    def checked(self) -> bool:
        """Whether the result is held against float64: every layer's but that of the largest."""
        if self.op in STEPS:
            return False
        return self.op not in CONVOLUTIONS or self.conv.multiply_adds <= MOST_CHECKED

    @property
    def measures_memory(self) -> bool:
        """Whether the peak of its memory is of interest, too."""
        return self.op == "training_step" or self.group == "large"

    @property
    def shape(self) -> dict[str, Any]:
        """The geometry as a row of results has it."""
        if self.op in STEPS:
            return {"batch": self.batch, "network": self.layer}
        shape = {"batch": self.batch, "channels": self.channels, "input": [self.size] * 2}
        if self.op in CONVOLUTIONS:
            shape |= {"filters": self.filters, "kernel": [self.kernel] * 2}
        if self.op in POOLS:
            shape |= {"window": [self.kernel] * 2}
        if self.op in (*CONVOLUTIONS, *POOLS):
            shape |= {"strides": [self.stride] * 2, "padding": [self.padding] * 2}
        if self.op in CONVOLUTIONS:
            shape |= {"dilation": [self.dilation] * 2, "groups": self.groups}
        return shape

    @property
    def title(self) -> str:
        """
        >>> case_named("conv_dgrad", "stride2_128_56").title
        'stride2_128_56 conv_dgrad, N8 C128 56x56, K128 3x3/2'
        """
        return f"{self.layer} {self.op}, {geometry(self.shape)}"


def geometry(shape: dict[str, Any]) -> str:
    """Return a row's shape in short.

    >>> geometry(case_named("conv_fprop", "dilated_64_56").shape)
    'N8 C64 56x56, K64 3x3 dilated 2'
    >>> geometry({"batch": 64, "network": "lenet5"})
    'N64'
    """
    text = f"N{shape['batch']}"
    if "channels" not in shape:
        return text
    text += f" C{shape['channels']} {_times(shape['input'])}"
    window = shape.get("kernel") or shape.get("window")
    if not window:
        return text
    text += ", " + (f"K{shape['filters']} " if "filters" in shape else "") + _times(window)
    stride, dilation = shape["strides"][0], shape.get("dilation", [1])[0]
    text += f"/{stride}" if stride > 1 else ""
    text += f" dilated {dilation}" if dilation > 1 else ""
    return text + (f" g{shape['groups']}" if shape.get("groups", 1) > 1 else "")


def _times(sizes: list[int]) -> str:
    return "x".join(map(str, sizes))


# group, name, batch, channels, size, filters, kernel, stride, padding, dilation, groups
_LAYERS = (
    ("few channels", "lenet_conv1", 32, 1, 28, 6, 5, 1, 2, 1, 1),
    ("few channels", "lenet_conv2", 32, 6, 14, 16, 5, 1, 0, 1, 1),
    ("few channels", "cifar_3_64", 32, 3, 32, 64, 3, 1, 1, 1, 1),
    ("few channels", "resnet50_stem", 8, 3, 224, 64, 7, 2, 3, 1, 1),
    ("3x3", "cifar_64_64", 32, 64, 32, 64, 3, 1, 1, 1, 1),
    ("3x3", "cifar_64_128", 32, 64, 16, 128, 3, 1, 1, 1, 1),
    ("3x3", "cifar_128_256", 32, 128, 8, 256, 3, 1, 1, 1, 1),
    ("3x3", "resnet50_64_56", 8, 64, 56, 64, 3, 1, 1, 1, 1),
    ("3x3", "resnet50_128_28", 16, 128, 28, 128, 3, 1, 1, 1, 1),
    ("3x3", "resnet50_256_14", 16, 256, 14, 256, 3, 1, 1, 1, 1),
    ("3x3", "resnet50_512_7", 32, 512, 7, 512, 3, 1, 1, 1, 1),
    ("3x3", "vgg_64_128_112", 8, 64, 112, 128, 3, 1, 1, 1, 1),
    ("3x3", "stride2_128_56", 8, 128, 56, 128, 3, 2, 1, 1, 1),
    ("3x3", "dilated_64_56", 8, 64, 56, 64, 3, 1, 2, 2, 1),
    ("1x1", "resnet50_64_256", 8, 64, 56, 256, 1, 1, 0, 1, 1),
    ("1x1", "resnet50_256_64", 8, 256, 56, 64, 1, 1, 0, 1, 1),
    ("1x1", "resnet50_shortcut", 8, 256, 56, 512, 1, 2, 0, 1, 1),
    ("depthwise", "depthwise_128_56", 8, 128, 56, 128, 3, 1, 1, 1, 128),
    ("depthwise", "depthwise_512_14", 16, 512, 14, 512, 3, 1, 1, 1, 512),
    ("depthwise", "depthwise_128_56_s2", 8, 128, 56, 128, 3, 2, 1, 1, 128),
    ("large", "vgg_64_128_112", 32, 64, 112, 128, 3, 1, 1, 1, 1),
)  # fmt: skip

# name, batch, channels, size
_MAPS = (
    ("lenet", 64, 6, 28), ("cifar", 32, 64, 32), ("resnet50_stem", 8, 64, 112),
    ("resnet50_256_56", 8, 256, 56),
)  # fmt: skip


def layers() -> list[Case]:
    """Return the convolutions, each in its three directions, then what stands between them."""
    found = [Case(op, *layer) for layer in _LAYERS for op in CONVOLUTIONS]
    for name, *sizes in _MAPS:
        window = {"kernel": 3, "stride": 2, "padding": 1} if name == "resnet50_stem" else None
        found += [
            Case(op, "max pool", name, *sizes, **(window or {"kernel": 2, "stride": 2}))
            for op in POOLS
        ]
        found += [Case(op, "ReLU", name, *sizes) for op in ACTIVATIONS]
        found += [Case(op, "batch norm", name, *sizes) for op in NORMS]
    return found


def networks() -> list[Case]:
    """Return the training and the inference steps of every network at every batch size."""
    return [
        Case(op, name, name, batch) for name in NETWORKS for batch in BATCHES for op in STEPS
    ]  # fmt: skip


def full() -> list[Case]:
    return [*layers(), *networks()]


def quick() -> list[Case]:
    """Return a step of one network and a few layers of each group, a minute's work at most."""
    chosen = (
        "cifar_3_64", "cifar_64_64", "resnet50_128_28", "resnet50_256_64", "depthwise_512_14",
        "cifar",
    )  # fmt: skip
    wanted = (("lenet5", "training_step", 64), ("lenet5", "inference", 1))
    steps = [case for case in networks() if (case.layer, case.op, case.batch) in wanted]
    few = [case for case in layers() if case.layer in chosen]
    # forward passes come first: a run that ends early has something of every group
    return steps + sorted(few, key=lambda case: case.op.endswith(("dgrad", "wgrad", "backward")))


def case_named(op: str, layer: str) -> Case:
    """Return the first case of an operation on a layer."""
    return next(case for case in full() if (case.op, case.layer) == (op, layer))
