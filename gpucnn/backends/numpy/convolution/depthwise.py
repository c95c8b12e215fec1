"""Depthwise convolution: a group for each channel, with m = K / C filters (Chollet, "Xception: deep
learning with depthwise separable convolutions", 2017).

A matrix product would have one column. But the images and channels of a pixel are one run, and
with the filters repeated for each image a tap is a product of two runs:

    y[p]   = sum over taps r of x[p * stride - pad + r] * w[r]
    dx[i]  = sum over taps r of dy[(i + pad - r) / stride] * w[r]       where the division is even
    dw[r]  = sum over p of x[p * stride - pad + r] * dy[p], and over the images

``np.einsum`` does all taps of a block of pixels in one call, its sums in the first-level cache.
Taps that read padding are left out: the pixels of an axis fall into segments that read the same
ones. Of m filters, each channel comes m times; what dx gets from them is added up. Where the runs
would be short, ``.depthwise_rows`` joins the pixels of a row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ....shapes import ConvShape
from ..blocks import blocks, pieces
from ..workers import run
from .base import Algorithm, Finish
from .depthwise_rows import DepthwiseRows, by_tap
from .windows import Gather, backward, forward
from .workspace import workspace

RUN = 8192  # elements at most: the filters of all taps should stay in the second-level cache
SHORT = 1024  # elements: where a pixel has fewer, rows of pixels pay
PARTS = 8
PART_WORK = 1 << 19  # multiply-adds: a part of less would not be worth its start

# Of each axis some target pixels, and the taps that they read.
Region = tuple[tuple[slice, slice], ...]


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


def _parts(
    axes: Sequence[Gather], images: int, channels: int, share: int
) -> list[tuple[Region, slice]]:
    """Cut the targets into regions of about so many pixels, and the images into runs."""
    groups = pieces(images, max(1, RUN // channels))
    parts = []
    for region in itertools.product(*map(_segments, axes)):
        counts = [pixels.stop - pixels.start for pixels, _ in region]
        for block in blocks(counts, max(1, share)):
            cut = tuple(
                (slice(pixels.start + piece.start, pixels.start + piece.stop), taps)
                for (pixels, taps), piece in zip(region, block, strict=True)
            )
            parts += [(cut, group) for group in groups]
    return parts


def _view(
    source: np.ndarray, axes: Sequence[Gather], region: Region, images: slice, times: int
) -> np.ndarray:
    """View what a region reads as (*counts, *taps, n * C * times), each channel so many times."""
    reads = []
    for axis, (pixels, taps) in zip(axes, region, strict=True):
        start = pixels.start * axis.stride + axis.offset + taps.start * axis.dilation
        reach = (pixels.stop - 1 - pixels.start) * axis.stride
        reads.append(slice(start, start + reach + (taps.stop - 1 - taps.start) * axis.dilation + 1))
    patch = source[(*reads, images)]
    if times > 1:
        repeated = workspace.take("patch", (*patch.shape, times), patch.dtype)
        repeated[...] = patch[..., None]
        patch = repeated
    counts = [pixels.stop - pixels.start for pixels, _ in region]
    taps = [some.stop - some.start for _, some in region]
    steps = patch.strides[: len(axes)]
    return as_strided(
        patch,
        (*counts, *taps, math.prod(patch.shape[len(axes) :])),
        (
            *(step * axis.stride for step, axis in zip(steps, axes, strict=True)),
            *(step * axis.dilation for step, axis in zip(steps, axes, strict=True)),
            patch.itemsize,
        ),
        writeable=False,
    )


def _gather(
    source: np.ndarray,
    filters: np.ndarray,
    target: np.ndarray,
    axes: Sequence[Gather],
    finish: Finish,
    times: int,
) -> None:
    """Fill target (*counts, N, K) from source (*size, N, C) and filters (*taps, C * times).

    K is C * times, each channel's results side by side, or C / m, the sums of m neighbours.
    """
    rank, width = len(axes), filters.shape[-1]
    work = math.prod(filters.shape[:-1]) * width * target.shape[-2]  # of a pixel
    share = max(-(-math.prod(target.shape[:-2]) // PARTS), PART_WORK // max(1, work))
    parts = _parts(axes, target.shape[-2], width, share)
    most = max((images.stop - images.start for _, images in parts), default=0)
    filters = np.tile(filters, most)
    pixel, tap, run_axis = list(range(rank)), list(range(rank, 2 * rank)), [2 * rank]

    def compute(part: int) -> None:
        region, images = parts[part]
        result = target[(*(pixels for pixels, _ in region), images)]
        if any(taps.start == taps.stop for _, taps in region):
            result[...] = 0
        else:
            view = _view(source, axes, region, images, times)
            out = result
            if target.shape[-1] < width:
                out = workspace.take("result", (*result.shape[:-1], width), result.dtype)
            # (*counts, *taps, n*K), (*taps, n*K) -> (*counts, n*K)
            np.einsum(
                view, pixel + tap + run_axis,
                filters[(*(taps for _, taps in region), slice(view.shape[-1]))], tap + run_axis,
                pixel + run_axis, out=out.reshape(*out.shape[:-2], -1),
            )  # fmt: skip
            if out is not result:
                np.sum(out.reshape(*result.shape, -1), -1, out=result)
        finish(result, images)

    run(compute, len(parts))


def _short(shape: ConvShape) -> bool:
    return shape.batch * shape.filters < SHORT


class Depthwise(Algorithm):
    """Products of runs; for a group a channel."""

    name = "depthwise"
    rows = DepthwiseRows()

    def suits(self, direction: str, shape: ConvShape, dtype: np.dtype) -> bool:
        return shape.groups == shape.channels > 1

    def fprop(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        if _short(shape):
            return self.rows.fprop(x, w, y, shape, finish)
        times = shape.filters // shape.channels
        _gather(x, by_tap(w), y, forward(shape), finish, times)

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        if _short(shape):
            return self.rows.dgrad(dy, w, dx, shape, finish)
        filters = by_tap(w)
        for axes in backward(shape):
            target = dx[tuple(axis.target for axis in axes)]
            taps = filters[tuple(axis.filter for axis in axes)]
            _gather(dy, taps, target, axes, finish, 1)

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        if _short(shape):
            return self.rows.wgrad(x, dy, shape)
        axes, rank = forward(shape), shape.rank
        times = shape.filters // shape.channels
        pixels = math.prod(shape.output)
        work = shape.taps * shape.filters * max(1, shape.batch)
        share = max(-(-pixels // PARTS), PART_WORK // work)
        parts = _parts(axes, shape.batch, shape.filters, share)
        parts = [part for part in parts if all(taps.start < taps.stop for _, taps in part[0])]
        shares = pieces(len(parts), -(-len(parts) // PARTS))
        partial = np.zeros((max(1, len(shares)), *shape.kernel, shape.filters), x.dtype)
        pixel, tap, run_axis = list(range(rank)), list(range(rank, 2 * rank)), [2 * rank]

        def compute(number: int) -> None:
            for region, images in parts[shares[number]]:
                view = _view(x, axes, region, images, times)
                block = dy[(*(pixels for pixels, _ in region), images)]
                # (*counts, *taps, n*K), (*counts, n*K) -> (*taps, n*K)
                product = np.einsum(
                    view, pixel + tap + run_axis,
                    block.reshape(*block.shape[:-2], -1), pixel + run_axis, tap + run_axis,
                )  # fmt: skip
                # (*taps, n, K) -> (*taps, K)
                product = product.reshape(*product.shape[:-1], -1, shape.filters).sum(-2)
                partial[(number, *(taps for _, taps in region))] += product

        run(compute, len(shares))
        for more in partial[1:]:
            partial[0] += more
        return np.ascontiguousarray(np.moveaxis(partial[0], -1, 0)).reshape(shape.w_shape)
