"""Depthwise convolution: a group for each channel, with m = K / C filters (Chollet, "Xception: deep
learning with depthwise separable convolutions", 2017).

A matrix product would have one column. But the images and channels of a pixel are one run, and
with the filters repeated for each image a tap is a product of two runs:

    y[p]   = sum over taps r of x[p * stride - pad + r] * w[r]
    dx[i]  = sum over taps r of dy[(i + pad - r) / stride] * w[r]       where the division is even
    dw[r]  = sum over p of x[p * stride - pad + r] * dy[p], and over the images

``np.einsum`` does all taps of a block of pixels in one call, its sums in the first-level cache.
Taps that read padding are left out: the pixels of an axis fall into segments that read the same
ones. Where the runs would be short, or each channel has several filters, ``.depthwise_rows``
computes with copies instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from ..blocks import blocks, pieces
from ..workers import run
from .base import Algorithm, Finish
from .depthwise_rows import DepthwiseRows, by_tap, letters
from .windows import Gather, backward, forward, view

RUN = 8192  # elements at most: the filters of all taps should stay in the second-level cache
SHORT = 512  # elements: shorter runs are better joined
STRIDED = 128  # elements: where a stride is between the pixels, which makes more copies
PARTS = 8
PART_WORK = 1 << 19  # multiply-adds: a part of less would not be worth its start


@dataclass(frozen=True)
class _Part:
    """Target pixels and images that are computed together."""

    target: tuple[slice, ...]  # of each axis, and of the images
    taps: tuple[slice, ...]  # that read no padding
    shape: tuple[int, ...]  # of what they read, (*counts, *taps, n * C)
    first: int  # element of the source
    steps: tuple[int, ...]  # in elements, along the shape


def _segments(axis: Gather) -> list[tuple[slice, slice]]:
    """Cut an axis into the longest segments of target pixels that read the same taps."""

    def taps(pixel: int) -> tuple[int, int]:
        start = pixel * axis.stride + axis.offset
        first = min(axis.taps, max(0, -(start // axis.dilation)))
        return first, max(first, min(axis.taps, (axis.size - 1 - start) // axis.dilation + 1))

    segments, begin = [], 0
    for read, pixels in itertools.groupby(range(axis.count), taps):
        end = begin + len(list(pixels))
        segments.append((slice(begin, end), slice(*read)))
        begin = end
    return segments


def _parts(axes: Sequence[Gather], images: int, channels: int) -> list[_Part]:
    """Cut the targets into regions that read the same taps, and the images into runs."""
    work = math.prod(axis.taps for axis in axes) * images * channels  # of a pixel
    share = -(-math.prod(axis.count for axis in axes) // PARTS)
    share = max(1, share, PART_WORK // max(1, work))
    lines = [
        math.prod(axis.size for axis in axes[number + 1 :]) * images * channels
        for number in range(len(axes))
    ]
    steps = (
        *(line * axis.stride for line, axis in zip(lines, axes, strict=True)),
        *(line * axis.dilation for line, axis in zip(lines, axes, strict=True)),
        1,
    )
    found = []
    for region in itertools.product(*map(_segments, axes)):
        segments, taps = zip(*region, strict=True)
        widths = tuple(some.stop - some.start for some in taps)
        for block in blocks([some.stop - some.start for some in segments], share):
            starts = [some.start + p.start for some, p in zip(segments, block, strict=True)]
            counts = tuple(p.stop - p.start for p in block)
            pixels = tuple(slice(s, s + n) for s, n in zip(starts, counts, strict=True))
            first = sum(
                line * (start * axis.stride + axis.offset + tap.start * axis.dilation)
                for line, start, axis, tap in zip(lines, starts, axes, taps, strict=True)
            )
            for group in pieces(images, max(1, RUN // channels)):
                shape = (*counts, *widths, (group.stop - group.start) * channels)
                place = first + group.start * channels
                found.append(_Part((*pixels, group), taps, shape, place, steps))
    return found


@lru_cache(maxsize=256)
def _plan(direction: str, shape: ConvShape) -> list[tuple[tuple[Gather, ...], list[_Part]]]:
    """Return the gathers that a direction consists of, and their parts."""
    gathers = backward(shape) if direction == "dgrad" else [forward(shape)]
    return [(axes, _parts(axes, shape.batch, shape.channels)) for axes in gathers]


def _view(source: np.ndarray, part: _Part) -> np.ndarray:
    """View what a part reads as (*counts, *taps, n * C)."""
    return view(source, part.shape, part.steps, part.first)


def _gather(
    source: np.ndarray,
    filters: np.ndarray,
    target: np.ndarray,
    parts: Sequence[_Part],
    finish: Finish,
) -> None:
    """Fill target (*counts, N, C) from source (*size, N, C) and filters (*taps, C)."""
    most = max((part.shape[-1] for part in parts), default=0) // filters.shape[-1]
    filters = np.tile(np.ascontiguousarray(filters), most)
    pixel, tap = letters(filters.ndim - 1)
    subscripts = f"{pixel}{tap}l,{tap}l->{pixel}l"

    def compute(number: int) -> None:
        part = parts[number]
        result = target[part.target]
        if 0 in part.shape:
            result[...] = 0
        else:
            weights = filters[(*part.taps, slice(part.shape[-1]))]
            # (*counts, *taps, n*C), (*taps, n*C) -> (*counts, n*C)
            out = result.reshape(*result.shape[:-2], -1)
            np.einsum(subscripts, _view(source, part), weights, out=out)
        finish(result, part.target)

    run(compute, len(parts))


class Depthwise(Algorithm):
    """Products of runs; for a group a channel."""

    name = "depthwise"
    rows = DepthwiseRows()

    def suits(self, direction: str, shape: ConvShape, dtype: np.dtype) -> bool:
        return self.rows.suits(direction, shape, dtype)

    def fprop(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        if _in_rows(shape):
            return self.rows.fprop(x, w, y, shape, finish)
        [(_, parts)] = _plan("fprop", shape)
        _gather(x, by_tap(w), y, parts, finish)

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        if _in_rows(shape):
            return self.rows.dgrad(dy, w, dx, shape, finish)
        filters = by_tap(w)
        for axes, parts in _plan("dgrad", shape):
            target = dx[tuple(axis.target for axis in axes)]
            taps = filters[tuple(axis.filter for axis in axes)]
            _gather(dy, taps, target, parts, finish)

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        if _in_rows(shape):
            return self.rows.wgrad(x, dy, shape)
        [(_, parts)] = _plan("fprop", shape)
        parts = [part for part in parts if 0 not in part.shape]
        shares = pieces(len(parts), -(-len(parts) // PARTS))
        partial = np.zeros((max(1, len(shares)), *shape.kernel, shape.filters), x.dtype)
        pixel, tap = letters(shape.rank)
        subscripts = f"{pixel}{tap}l,{pixel}l->{tap}l"

        def compute(number: int) -> None:
            for part in parts[shares[number]]:
                block = dy[part.target]
                block = block.reshape(*block.shape[:-2], -1)
                # (*counts, *taps, n*C), (*counts, n*C) -> (*taps, n*C)
                product = np.einsum(subscripts, _view(x, part), block)
                product = product.reshape(*product.shape[:-1], -1, shape.filters)
                # (n,) @ (*taps, n, C) -> (*taps, C)
                product = np.ones(product.shape[-2], x.dtype) @ product
                partial[(number, *part.taps)] += product

        run(compute, len(shares))
        for more in partial[1:]:
            partial[0] += more
        # (taps, C) -> (C, taps)
        return np.ascontiguousarray(partial[0].reshape(-1, shape.filters).T).reshape(shape.w_shape)


def _in_rows(shape: ConvShape) -> bool:
    """Return whether to compute with copies."""
    short = STRIDED if shape.strides[-1] > 1 else SHORT
    return shape.filters > shape.channels or shape.batch * shape.filters < short
