"""Hold the results of a case against float64, on a part of it that is cheap to compute so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from . import peers
from .accuracy import relative_error
from .arrays import Inputs
from .cases import Case

Results = Sequence[Tensor]
PART = 16  # filters or channels that are computed in float64 where the whole batch enters a sum
CHUNK_BYTES = 2**30


class Check:
    """A part of a case in float64, and what of the results is to be held against it.

    Made before the case runs, for some operations work in place.
    """

    def __init__(self, case: Case, inputs: Inputs) -> None:
        parts, self.select = _part(case, inputs)
        self.expected: list[Tensor] = []
        for part, values in parts:  # what sums over the batch comes in several parts
            results = peers.reference(part, _to_float64(values))
            self.expected = (
                [a + b for a, b in zip(self.expected, results, strict=True)]
                if self.expected
                else [result.clone() for result in results]
            )

    def error(self, results: Results) -> float:
        """Return the largest relative error over the results that the reference has."""
        selected = self.select(results)
        return max(
            relative_error(result.double(), expected)
            for result, expected in zip(selected, self.expected, strict=False)
            if result.dtype.is_floating_point
        )


def _to_float64(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {name: _to_float64(value) for name, value in inputs.items()}
    if isinstance(inputs, list):
        return [_to_float64(value) for value in inputs]
    return inputs.double() if inputs.is_floating_point() else inputs


Parts = Iterable[tuple[Case, Inputs]]
Select = Callable[[Results], Results]


def _part(case: Case, i: Inputs) -> tuple[Parts, Select]:
    if case.op in ("conv_wgrad", "conv_bias_relu_pool_backward", "norm_relu6_conv_wgrad"):
        return _filters(case, i)
    if case.op.startswith(("conv", "norm", "max_pool", "average_pool", "change_layout")):
        return _images(case, i)
    if case.op.startswith("batch_norm"):
        return _channels(case, i)
    if case.op == "softmax_cross_entropy":
        rows = slice(-min(case.shape.rows, 64), None)
        part = replace(case, shape=replace(case.shape, rows=len(i["labels"][rows])))
        cut = {name: t[rows] for name, t in i.items()}
        return [(part, cut)], lambda results: [r[rows] for r in results]
    last = slice(-(2**16), None)
    if case.op.startswith("activation"):
        return [(case, {n: t[last] for n, t in i.items()})], lambda results: [results[0][last]]
    few = slice(-1000, None)
    cut = {
        "params": [t[few] for t in i["params"]],
        "grads": [t[few] for t in i["grads"]],
        "states": [[t[few] for t in states] for states in i["states"]],
    }
    return [(case, cut)], lambda results: [r[few] for r in results]


def _images(case: Case, i: Inputs) -> tuple[Parts, Select]:
    """The first and the last image of the batch."""
    batch = case.shape.batch
    chosen = [0] if batch == 1 else [0, batch - 1]
    part = replace(
        case,
        shape=replace(case.shape, batch=len(chosen)),
        pool=case.pool and replace(case.pool, batch=len(chosen)),
    )
    cut = {name: t[chosen] if name in ("x", "dy", "dx") else t for name, t in i.items()}
    return [(part, cut)], lambda results: [results[0][chosen]]


def _filters(case: Case, i: Inputs) -> tuple[Parts, Select]:
    """The last filters, or the last groups of them, over the whole batch, some images at a time."""
    s = case.shape
    group_filters, group_channels = s.filters // s.groups, s.channels // s.groups
    if s.groups == 1:
        filters, channels, groups = min(s.filters, PART), s.channels, 1
    else:
        groups = min(s.groups, max(1, PART // group_filters))
        filters, channels = groups * group_filters, groups * group_channels
    axis = -1 if s.channels_last else 1
    x = i["x"].narrow(axis, s.channels - channels, channels)
    dy = i["dy"].narrow(axis, s.filters - filters, filters)
    images = max(1, min(s.batch, CHUNK_BYTES // (8 * max(x[0].numel(), dy[0].numel()))))

    def parts() -> Parts:
        for first in range(0, s.batch, images):
            shape = replace(
                s, batch=min(images, s.batch - first), channels=channels, filters=filters,
                groups=groups,
            )  # fmt: skip
            pool = case.pool and replace(case.pool, batch=shape.batch, channels=filters)
            chunk = slice(first, first + images)
            parameters = {name: i[name][-filters:] for name in ("w", "b") if name in i}
            norm = {name: i[name] for name in ("gamma", "beta", "mean", "var") if name in i}
            yield (
                replace(case, shape=shape, pool=pool),
                {"x": x[chunk], "dy": dy[chunk], **parameters, **norm},
            )

    return parts(), lambda results: [result[-filters:] for result in results]


def _channels(case: Case, i: Inputs) -> tuple[Parts, Select]:
    """The last channels, over the whole batch."""
    count = min(case.shape.channels, PART)
    axis = 2 if case.shape.channels_last else 1

    def cut(t: Tensor) -> Tensor:
        along = axis if t.ndim == 3 else 0
        return t.narrow(along, case.shape.channels - count, count)

    part = replace(case, shape=replace(case.shape, channels=count))
    return [(part, {name: cut(t) for name, t in i.items()})], lambda results: list(
        map(cut, results)
    )
