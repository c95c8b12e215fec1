"""Operators that pick, join, repeat and pad."""

from __future__ import annotations

import numpy as np
import onnx

from ... import functional as F
from ...backends.base import Array
from ...layers import Concatenate, Pad, Slice, Take, Tile
from ...network import Node
from ..call import Call, Value
from .registry import operator


@operator("Concat")
def concat(call: Call, *values: Value) -> Value:
    axis = call.axis(next((v for v in values if isinstance(v, Node)), values[0]), call.get("axis"))
    nodes = [value for value in values if isinstance(value, Node)]
    if not nodes:
        return call.xp.concatenate(values, axis=axis)
    values = [v if isinstance(v, Node) else call.as_node(v, nodes[0]) for v in values]
    return nodes[0] if len(values) == 1 else call.apply(Concatenate(axis), *values)


@operator("Split")
def split(call: Call, x: Value, sizes: Array | None = None) -> tuple:
    """The sizes are an attribute before opset 13; else parts of one size, the last the smallest."""
    axis = call.axis(x, call.get("axis", 0))
    total = call.sizes(x)[axis]
    given = call.get("split") if sizes is None else call.integers(sizes, "the sizes")
    if given is None:
        count = call.get("num_outputs", len(call.outputs))
        each = -(-total // count)
        given = [max(min(each, total - place * each), 0) for place in range(count)]
    if sum(given) != total:
        raise call.refuse(f"parts of {list(given)} of {total}")
    ends = np.cumsum(given).tolist()
    return tuple(
        _sliced(call, x, {axis: (end - n, end, 1)}) for n, end in zip(given, ends, strict=True)
    )


@operator("Slice")
def slice_(call: Call, x: Value, *inputs: Array | None) -> Value:
    """Starts, ends, axes and steps are attributes before opset 10."""
    if call.opset < 10:
        starts, ends, axes, steps = call.get("starts"), call.get("ends"), call.get("axes"), None
    else:
        starts, ends, axes, steps = (
            None if value is None else call.integers(value, "a slice")
            for value in (*inputs, None, None)[:4]
        )
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    cuts, sizes = {}, call.sizes(x)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = axis % len(sizes)
        whole = range(sizes[place])[_clamped(start, end, step, sizes[place])]
        if isinstance(x, Node) and place == 0 and whole == range(sizes[0]):
            continue  # the whole batch
        cuts[call.axis(x, axis)] = (whole.start, whole.stop, whole.step)
    return _sliced(call, x, cuts)


def _clamped(start: int, end: int, step: int, size: int) -> slice:
    """ONNX's slice as Python's: backwards, a start or an end before the first number differ."""
    if step < 0:
        start, end = max(start, -size), None if end < -size else end
    return slice(start, end, step)


def _sliced(call: Call, x: Value, cuts: dict[int, tuple[int, int, int]]) -> Value:
    """Return x with (start, stop, step) of a range along some axes."""
    sizes = call.sizes(x)
    cuts = {axis: cut for axis, cut in cuts.items() if cut != (0, sizes[axis], 1)}
    if not isinstance(x, Node):
        slices = [slice(None)] * len(sizes)
        for axis, (start, stop, step) in cuts.items():
            slices[axis] = slice(start, None if stop < 0 else stop, step)
        return x[tuple(slices)]
    if not cuts:
        return x
    whole = (None, None, None)
    ends = {axis: (a, None if b < 0 else b, step) for axis, (a, b, step) in cuts.items()}
    return call.apply(Slice([ends.get(axis, whole) for axis in range(1, len(sizes))]), x)


@operator("Pad")
def pad(
    call: Call, x: Value, pads: Array | None = None, value: Array | None = None,
    axes: Array | None = None,
) -> Value:  # fmt: skip
    """Pads and value are attributes before opset 11; the axes came in 18."""
    sizes, mode = call.sizes(x), call.get("mode", "constant")
    ends = call.get("pads", call.get("paddings")) if pads is None else call.integers(pads, "pads")
    fill = call.get("value", 0.0) if value is None else call.known(value, "the value").item()
    places = range(len(sizes)) if axes is None else call.integers(axes, "the axes")
    pairs = [(0, 0)] * len(sizes)
    half = len(ends) // 2
    for place, pair in zip(places, zip(ends[:half], ends[half:], strict=True), strict=True):
        pairs[place] = pair
    if not isinstance(x, Node):
        if x.dtype.kind == "b":
            return F.pad_forward(x.astype("uint8"), pairs, mode, fill).astype(bool)
        return F.pad_forward(x, pairs, mode, fill, owner=call.label)
    if pairs[0] != (0, 0):
        raise call.refuse("the batch would be padded")
    return call.apply(Pad(pairs[1:], mode, float(fill)), x) if any(map(any, pairs)) else x


@operator("Gather")
def gather(call: Call, x: Value, indices: Array) -> Value:
    axis = call.axis(x, call.get("axis", 0))
    places, sizes = call.known(indices, "the indices"), call.sizes(x)
    if ((places < -sizes[axis]) | (places >= sizes[axis])).any():
        raise call.refuse(f"indices from {places.min()} to {places.max()} of {sizes[axis]}")
    if not isinstance(x, Node):
        return call.xp.take(x, call.xp.asarray(places), axis=axis)
    flat = np.where(places < 0, places + sizes[axis], places).ravel().tolist()
    if len(flat) == 1:
        taken = _sliced(call, x, {axis: (flat[0], flat[0] + 1, 1)})
    else:
        taken = call.apply(Take(flat, axis), x)
    return call.reshape(taken, (*sizes[:axis], *places.shape, *sizes[axis + 1 :]))


@operator("GatherElements", known=True)
def gather_elements(call: Call, x: Array, indices: Array) -> Array:
    axis = call.get("axis", 0)
    places = call.xp.where(indices < 0, indices + x.shape[axis], indices)
    return call.xp.take_along_axis(x, places, axis=axis)


@operator("GatherND", known=True)
def gather_nd(call: Call, x: Array, indices: Array) -> Array:
    """Each last row of the indices is a place in x, behind ``batch_dims`` common axes."""
    shared = call.get("batch_dims", 0)
    xp, depth = call.xp, indices.shape[-1]
    common = tuple(
        xp.arange(n).reshape((1,) * axis + (n,) + (1,) * (indices.ndim - 2 - axis))
        for axis, n in enumerate(x.shape[:shared])
    )
    return x[(*common, *(indices[..., place] for place in range(depth)))]


@operator("ScatterND", known=True)
def scatter_nd(call: Call, x: Array, indices: Array, updates: Array) -> Array:
    """Set places of x, or add to them and so on; on the host, whose order is settled."""
    y, indices, updates = (call.known(value, "a value").copy() for value in (x, indices, updates))
    places = tuple(indices[..., place] for place in range(indices.shape[-1]))
    _scattered(call, y, places, updates)
    return call.context.backend.asarray(y)


@operator("Scatter", "ScatterElements", known=True)
def scatter_elements(call: Call, x: Array, indices: Array, updates: Array) -> Array:
    """As ScatterND, of places along one axis."""
    y, indices, updates = (call.known(value, "a value").copy() for value in (x, indices, updates))
    axis = call.get("axis", 0) % y.ndim
    places = list(np.indices(indices.shape))
    places[axis] = np.where(indices < 0, indices + y.shape[axis], indices)
    _scattered(call, y, tuple(places), updates)
    return call.context.backend.asarray(y)


def _scattered(
    call: Call, y: np.ndarray, places: tuple[np.ndarray, ...], updates: np.ndarray
) -> None:
    reduction = call.get("reduction", "none")
    if reduction == "none":
        y[places] = updates
        return
    run = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction]
    run.at(y, places, updates)


@operator("Compress", known=True)
def compress(call: Call, x: Array, condition: Array) -> Array:
    axis = call.get("axis")
    chosen = np.flatnonzero(call.known(condition, "the condition"))
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    return call.xp.take(x, call.context.backend.asarray(chosen), axis=axis)


@operator("Expand")
def expand(call: Call, x: Value, target: Array) -> Value:
    """Sizes of 1 are stretched; the target may have fewer axes, and sizes of 1 of its own."""
    sizes = call.sizes(x)
    wanted = call.integers(target, "the shape")
    if not isinstance(x, Node):
        return call.xp.broadcast_to(x, np.broadcast_shapes(sizes, tuple(wanted))).copy()
    if len(wanted) > len(sizes):
        raise call.refuse("the samples of a batch would no longer lie first")
    wanted = [1] * (len(sizes) - len(wanted)) + wanted
    if wanted[0] not in (1, sizes[0]):
        raise call.refuse(f"a batch of {wanted[0]} samples")
    repeats = [new if n == 1 else 1 for n, new in zip(sizes[1:], wanted[1:], strict=True)]
    return call.apply(Tile(repeats), x) if any(n > 1 for n in repeats) else x


@operator("Tile")
def tile(call: Call, x: Value, repeats: Array, axis: Array | None = None) -> Value:
    """Before opset 6 how often, and along which axis."""
    times = call.integers(repeats, "the repeats")
    if axis is not None:
        (place,), (count,) = call.integers(axis, "the axis"), times
        times = [count if at == place else 1 for at in range(len(call.sizes(x)))]
    if not isinstance(x, Node):
        return call.xp.tile(x, times)
    if times[0] != 1:
        raise call.refuse("the batch would be repeated")
    return call.apply(Tile(times[1:]), x) if any(n > 1 for n in times) else x


@operator("Range", known=True)
def range_(call: Call, start: Array, limit: Array, delta: Array) -> Array:
    ends = [call.known(value, "an end").item() for value in (start, limit, delta)]
    return call.xp.arange(*ends, dtype=start.dtype)


@operator("OneHot", known=True)
def one_hot(call: Call, indices: Array, depth: Array, values: Array) -> Array:
    (depth,) = call.integers(depth, "the depth")
    axis = call.get("axis", -1)
    places = call.xp.where(indices < 0, indices + depth, indices).astype("int64")
    hot = call.xp.expand_dims(places, -1) == call.xp.arange(depth)
    y = call.xp.where(hot, values[1], values[0]).astype(values.dtype)
    return call.xp.moveaxis(y, -1, axis)


@operator("EyeLike", known=True)
def eye_like(call: Call, x: Array) -> Array:
    kind = call.get("dtype")
    dtype = x.dtype if kind is None else onnx.helper.tensor_dtype_to_np_dtype(kind)
    return call.xp.eye(*x.shape, k=call.get("k", 0)).astype(dtype)


@operator("Trilu", known=True)
def trilu(call: Call, x: Array, k: Array | None = None) -> Array:
    (diagonal,) = (0,) if k is None else call.integers(k, "the diagonal")
    cut = call.xp.triu if call.get("upper", 1) else call.xp.tril
    return cut(x, diagonal).astype(x.dtype)


@operator("TopK", known=True)
def top_k(call: Call, x: Array, k: Array | None = None) -> tuple:
    """k is an attribute before opset 10; of equal numbers the first come first."""
    (count,) = (call.get("k"),) if k is None else call.integers(k, "k")
    axis = call.get("axis", -1)
    rows = call.xp.moveaxis(x, axis, -1)
    if call.get("largest", 1):  # from behind, so that a stable sort leaves equal ones in order
        back = call.xp.argsort(rows[..., ::-1], axis=-1, kind="stable")[..., ::-1]
        order = rows.shape[-1] - 1 - back
    else:
        order = call.xp.argsort(rows, axis=-1, kind="stable")
    places = order[..., :count].astype("int64")
    values = call.xp.take_along_axis(rows, places, axis=-1)
    return tuple(call.xp.moveaxis(part, -1, axis) for part in (values, places))


@operator("NonZero", known=True)
def non_zero(call: Call, x: Array) -> Array:
    return call.xp.stack(call.xp.nonzero(x)).astype("int64")
