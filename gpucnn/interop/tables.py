"""How modules of PyTorch's networks are called here: regular expressions and layer paths.

The first pattern that fits the whole name of a module says the path of its layer. The rest
follows from the layer's class: a convolution's weight is its "kernel", a batch norm's "gamma".
A pattern may fit the whole name of an array, too; then it says the path of the parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..layers.activation import PReLU
from ..layers.base import Layer
from ..layers.conv import Conv
from ..layers.dense import Dense
from ..layers.norm import BatchNorm, GroupNorm, LayerNorm

Table = Sequence[tuple[str, str]]

TABLES: dict[str, Table] = {
    # the networks of gpucnn.models.imagenet
    "torchvision": (
        # ResNet: layer1.0.conv1, layer2.0.downsample.0
        (r"(conv1|bn1|fc)", r"\1"),
        (r"layer(\d)\.(\d+)\.(conv\d|bn\d)", r"layer\1_\2/\3"),
        (r"layer(\d)\.(\d+)\.downsample\.0", r"layer\1_\2/shortcut"),
        (r"layer(\d)\.(\d+)\.downsample\.1", r"layer\1_\2/shortcut_bn"),
        # MobileNetV2: features.0.0, features.1.conv.1, features.2.conv.0.0
        (r"features\.0\.0", r"stem"),
        (r"features\.0\.1", r"stem_bn"),
        (r"features\.1\.conv\.0\.0", r"block_1/depthwise"),  # which widens nothing
        (r"features\.1\.conv\.0\.1", r"block_1/depthwise_bn"),
        (r"features\.1\.conv\.1", r"block_1/project"),
        (r"features\.1\.conv\.2", r"block_1/project_bn"),
        (r"features\.(\d+)\.conv\.0\.0", r"block_\1/expand"),
        (r"features\.(\d+)\.conv\.0\.1", r"block_\1/expand_bn"),
        (r"features\.(\d+)\.conv\.1\.0", r"block_\1/depthwise"),
        (r"features\.(\d+)\.conv\.1\.1", r"block_\1/depthwise_bn"),
        (r"features\.(\d+)\.conv\.2", r"block_\1/project"),
        (r"features\.(\d+)\.conv\.3", r"block_\1/project_bn"),
        (r"features\.18\.0", r"head"),
        (r"features\.18\.1", r"head_bn"),
        # VGG: features.0, classifier.6; and MobileNetV2's classifier.1
        (r"(features|classifier)\.(\d+)", r"\1_\2"),
    ),
}

_SCALED = {"weight": "gamma", "bias": "beta"}
_MOVING = {"running_mean": "moving_mean", "running_var": "moving_variance"}

# PyTorch's names of a module's arrays, and ours
PARAMETERS: dict[type[Layer], dict[str, str]] = {
    Conv: {"weight": "kernel", "bias": "bias"},
    Dense: {"weight": "kernel", "bias": "bias"},
    BatchNorm: _SCALED | _MOVING,
    GroupNorm: _SCALED,
    LayerNorm: _SCALED,
    PReLU: {"weight": "alpha"},
}

# Arrays that no layer here has: a count of batches, for PyTorch's momentum=None
IGNORED = ("num_batches_tracked",)
