"""Maps of another size."""

from __future__ import annotations

import numpy as np

from ...layers.arrange import Resize
from .builder import Builder, Value
from .registry import exports


def _has_two_scales(layer: Resize) -> str | None:
    if layer.size is not None and layer.scale is not None:
        return "a Resize to a size with a scale of its own"
    return None


@exports(Resize, unless=_has_two_scales)
def resize(builder: Builder, layer: Resize, x: Value) -> Value:
    """With the axes that are resized behind the others, as runtimes want them."""
    others = [axis for axis in range(x.rank) if axis not in layer.axes]
    x = builder.arranged(x, (*others, *layer.axes))
    if layer.coordinates == "half_pixel_symmetric":
        builder.opset = max(builder.opset, 19)
    if layer.size is None:
        factors = np.array([1.0] * len(others) + [*layer.scale], np.float32)
        sizes = [builder.constant("scales", factors)]
    else:
        front = builder.node("Shape", x.name, start=0, end=len(others))
        behind = builder.constant("size", np.array(layer.size))
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
