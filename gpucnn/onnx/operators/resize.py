"""Resize, and Upsample before opset 10."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ... import functional as F
from ...backends.base import Array
from ...functional.resize import Interpolation, along_axis
from ...layers import Resize
from ...network import Node
from ..call import Call, Value
from .registry import operator


@operator("Upsample")
def upsample(call: Call, x: Value, scales: Array | None = None) -> Value:
    """The scales are an attribute before opset 9."""
    factors = call.get("scales") if scales is None else call.known(scales, "the scales").tolist()
    sizes = _scaled(call.sizes(x), factors)
    kind = "nearest" if call.get("mode", "nearest") == "nearest" else "linear"
    how = Interpolation(kind, "asymmetric", "floor")
    return _resized(call, x, range(len(sizes)), sizes, list(map(_meant, factors)), how)


@operator("Resize")
def resize(call: Call, x: Value, *inputs: Array | None) -> Value:
    """Scales come second before opset 11, third from then on, behind the region of interest."""
    region, scales, sizes = (None, *inputs, None)[:3] if call.opset < 11 else (*inputs, None)[:3]
    shape = call.sizes(x)
    axes = [axis % len(shape) for axis in call.get("axes", range(len(shape)))]
    old = [shape[axis] for axis in axes]
    if sizes is not None and np.size(sizes):
        new = call.integers(sizes, "the sizes")
        new, factors = _fitting(call, old, new)
    else:
        factors = [float(scale) for scale in call.known(scales, "the scales").ravel()]
        new, factors = _scaled(old, factors), list(map(_meant, factors))
    kind = call.get("mode", "nearest")
    if call.opset < 11:
        how = Interpolation(kind, "asymmetric", _old_rounding(call, factors))
    else:
        coordinates = call.get("coordinate_transformation_mode", "half_pixel")
        if coordinates == "tf_crop_and_resize":
            return _cropped(call, x, axes, new, call.known(region, "the region"))
        how = Interpolation(
            kind,
            coordinates,
            call.get("nearest_mode", "round_prefer_floor"),
            call.get("cubic_coeff_a", -0.75),
            bool(call.get("exclude_outside", 0)),
            bool(call.get("antialias", 0)),
        )
    return _resized(call, x, axes, new, factors, how)


def _old_rounding(call: Call, factors: Sequence[float]) -> str:
    """Return which neighbour is taken before opset 11, as onnxruntime does: no text says it."""
    if min(factors) < 1 < max(factors) and call.get("mode", "nearest") == "nearest":
        raise call.refuse("a map that grows along one axis and shrinks along another")
    return "ceil" if min(factors) < 1 else "floor"


def _scaled(sizes: Sequence[int], factors: Sequence[float]) -> list[int]:
    """Return sizes times scales rounded down; the product is float32, in which 10 * 0.7 is 7."""
    return np.floor(np.array(sizes, "float32") * np.array(factors, "float32")).astype(int).tolist()


def _meant(scale: float) -> float:
    """Return the simple fraction that a float32 was rounded from, if one was.

    With 0.60000002 for 0.6 an output would read place 1.9999999, and another neighbour than 2.
    """
    simple = float(Fraction(scale).limit_denominator(1000))
    return simple if np.float32(simple) == np.float32(scale) else scale


def _fitting(call: Call, old: list[int], new: list[int]) -> tuple[list[int], list[float]]:
    """Return sizes and scales; of one scale for all axes, where the aspect ratio is kept."""
    factors = [after / before for before, after in zip(old, new, strict=True)]
    policy = call.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return new, factors
    scale = min(factors) if policy == "not_larger" else max(factors)
    return [math.floor(n * scale + 0.5) for n in old], [scale] * len(old)


def _resized(
    call: Call, x: Value, axes: list[int], sizes: list[int], scales: list[float], how: Interpolation
) -> Value:
    changed = [
        (axis, size, float(scale))
        for axis, size, scale in zip(axes, sizes, scales, strict=True)
        if size != call.sizes(x)[axis] or scale != 1
    ]
    if not isinstance(x, Node):
        if how.kind != "nearest" and x.dtype.kind in "iu":
            raise call.refuse(f"{how.kind} interpolation of {x.dtype.name}")
        return F.resize_forward(x, changed, how, owner=call.label)
    if not changed:
        return x
    if changed[0][0] == 0:
        raise call.refuse("the batch would be resized")
    axes, sizes, scales = zip(*changed, strict=True)
    layer = Resize(
        sizes,
        scale=scales,
        interpolation=how.kind,
        coordinates=how.coordinates,
        rounding=how.rounding,
        cubic_a=how.cubic_a,
        exclude_outside=how.exclude_outside,
        antialias=how.antialias,
        axes=axes,
    )
    return call.apply(layer, x)


def _cropped(call: Call, x: Value, axes: list[int], sizes: list[int], region: np.ndarray) -> Value:
    """A region (starts, ends as shares of the size) resized; beyond the map a constant."""
    if isinstance(x, Node) or call.get("mode", "nearest") != "linear":
        raise call.refuse("tf_crop_and_resize but linear, of a value that is known at loading")
    how, beyond = Interpolation("linear"), call.xp.zeros((), bool)
    region = region.astype(np.float64).ravel()
    for place, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        n, start, end = x.shape[axis], region[place], region[place + len(axes)]
        step = (end - start) * (n - 1) / (size - 1) if size > 1 else 0.0
        first = start * (n - 1) if size > 1 else 0.5 * (start + end) * (n - 1)
        sources = first + np.arange(size) * step
        outside = (sources < 0) | (sources > n - 1)
        matrix = how.matrix(n, size, 1.0, np.clip(sources, 0, n - 1))
        x = along_axis(x, matrix, axis, owner=call.label)
        along = [1] * x.ndim
        along[axis] = size
        beyond = beyond | call.xp.asarray(outside).reshape(along)
    return call.xp.where(beyond, x.dtype.type(call.get("extrapolation_value", 0.0)), x)
