"""Maps of another size."""

from __future__ import annotations

from math import floor

import numpy as np

from ...layers.base import Shape
from ...layers.resize import Resize
from .builder import Builder, Value
from .registry import exports


def _other_scale(layer: Resize) -> str | None:
    if _measure(layer, layer.input_shape) is None:
        return "a Resize to another size than its scale gives"
    return None


def _measure(layer: Resize, shape: Shape) -> str | None:
    """Return which of ONNX's inputs says how an input of this shape is resized, if one does.

    From sizes a runtime computes the scales, from scales, which are float32, the sizes.
    """
    axes = [(shape[axis - 1], size, scale) for axis, size, scale in layer._axes(shape)]
    if all(scale in (None, size / old) for old, size, scale in axes):
        return "sizes"
    if all(scale and floor(old * np.float32(scale)) == size for old, size, scale in axes):
        return "scales"
    return None


@exports(Resize, unless=_other_scale)
def resize(builder: Builder, layer: Resize, x: Value) -> Value:
    """With the axes that are resized behind the others, as runtimes want them."""
    others = [axis for axis in range(x.rank) if axis not in layer.axes]
    x = builder.arranged(x, (*others, *layer.axes))
    if layer.coordinates == "half_pixel_symmetric":
        builder.opset = max(builder.opset, 19)
    if _measure(layer, x.shape) == "scales":
        factors = np.array([1.0] * len(others) + [*layer.scale], np.float32)
        sizes = [builder.constant("scales", factors)]
    else:
        front = builder.node("Shape", x.name, start=0, end=len(others))
        behind = builder.constant("size", np.array([size for _, size, _ in layer._axes(x.shape)]))
        sizes = ["", builder.node("Concat", front, behind, axis=0)]
    name = builder.node(
        "Resize",
        x.name,
        "",  # the region of interest
        *sizes,
        mode=layer.interpolation,
        coordinate_transformation_mode=layer.coordinates,
        nearest_mode=layer.rounding,
        cubic_coeff_a=layer.cubic_a,
        exclude_outside=int(layer.exclude_outside),
        antialias=int(layer.antialias),
    )
    return Value(name, layer.output_shape(x.shape), x.order)
