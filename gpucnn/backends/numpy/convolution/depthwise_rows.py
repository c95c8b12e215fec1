"""Depthwise convolution of few images and channels: rows of pixels as one run (see ``.depthwise``).

Where a pixel has few numbers, loops over them are short. So the pixels of the last axis are joined.
In a copy with zeros for the padding, a view has what each tap reads as one run,

    row[i, s, q] = x[i, q * stride - pad + s]

and with the filters repeated for each pixel of a row, a tap is a product of two long runs:

    y[p, q]   = sum over r, s of row[p * stride - pad + r, s, q] * w[r, s]
    dw[r, s]  = sum over p, q of row[p * stride - pad + r, s, q] * dy[p, q], and over the images

p and r stand for the pixels and taps of all other axes. One call of ``np.einsum`` computes a block
of rows; a small convolution is one block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from ..blocks import blocks, pieces
from ..workers import run
from .base import Algorithm, Finish
from .windows import Gather, backward, forward, view
from .workspace import workspace

RUN = 4096  # elements at most: the filters of all taps, repeated, stay in the second-level cache
PATCH = 1 << 17  # elements of the copies of a block: they stay there, too


@dataclass(frozen=True)
class _Block:
    """Target pixels that are computed together, and the copies of what they read."""

    target: tuple[slice, ...]  # of each axis, and of the images
    counts: tuple[int, ...]  # of target pixels
    extents: tuple[int, ...]  # of the copies, in pixels
    taps: tuple[int, ...]
    steps: tuple[int, ...]  # in pixels of the copies, from one of the counts or taps to the next
    copies: tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]  # places, and their sources
    padded: bool  # whether there is more than the copies


def _reads(start: int, reach: int, step: int, size: int) -> tuple[slice, slice, int]:
    """Return the place in a copy, the source and the size of pixels start, ..., start + reach.

    Of every ``step``-th there is a copy, but only those of an axis of ``size`` have a source.
    """
    count = reach // step + 1
    low = min(count, max(0, -(start // step)))
    high = max(low, min(count, (size - 1 - start) // step + 1))
    return slice(low, high), slice(start + low * step, start + high * step, step), count


def _block(axes: Sequence[Gather], target: tuple[slice, ...], images: slice) -> _Block:
    """Work out how a block of targets is computed."""
    counts = tuple(piece.stop - piece.start for piece in target)
    starts = [p.start * axis.stride + axis.offset for axis, p in zip(axes, target, strict=True)]
    reaches = [(n - 1) * axis.stride for axis, n in zip(axes, counts, strict=True)]
    spans = [axis.dilation * (axis.taps - 1) for axis in axes]
    *reads, joined = (
        _reads(start, reach + span, 1, axis.size)
        for axis, start, reach, span in zip(axes, starts, reaches, spans, strict=True)
    )
    last = axes[-1]
    if last.stride == 1:
        apart, extent, pixels = last.dilation, joined[2], [joined[:2]]
    else:  # what the taps read does not overlap, nor is it a run: each has its copy
        apart, extent, pixels = counts[-1], counts[-1] * last.taps, []
        for tap in range(last.taps):
            start = starts[-1] + tap * last.dilation
            place, source, _ = _reads(start, reaches[-1], last.stride, last.size)
            pixels.append((slice(tap * apart + place.start, tap * apart + place.stop), source))
    extents = (*(count for *_, count in reads), extent)
    copies = tuple(
        (
            (*(place for place, *_ in reads), place),
            (*(source for _, source, _ in reads), source, images),
        )
        for place, source in pixels
    )
    copied = sum(math.prod(some.stop - some.start for some in place) for place, _ in copies)
    lines = [math.prod(extents[axis + 1 :]) for axis in range(len(axes) - 1)]
    steps = (
        *(line * axis.stride for line, axis in zip(lines, axes, strict=False)),
        *(line * axis.dilation for line, axis in zip(lines, axes, strict=False)),
        apart,
    )
    taps = tuple(axis.taps for axis in axes)
    return _Block(
        (*target, images), counts, extents, taps, steps, copies, copied < math.prod(extents)
    )


def _blocks(axes: Sequence[Gather], images: int, width: int) -> list[_Block]:
    """Cut the targets into blocks; ``width`` is the size of a pixel of an image."""
    if not all(axis.taps for axis in axes):
        return []
    *others, last = axes
    groups = pieces(images, RUN // width)
    lanes = width * -(-images // max(1, len(groups)))
    # Of some images, only those of one pixel are a run
    columns = pieces(last.count, RUN // max(1, lanes) if len(groups) < 2 else 1)
    row = lanes * (-(-last.count // len(columns)) + last.dilation * (last.taps - 1))
    row *= (1 if last.stride == 1 else last.taps) * math.prod(axis.stride for axis in others)
    row *= math.prod(axis.taps for axis in others[:-1])
    rows = blocks([axis.count for axis in others], max(1, PATCH // max(1, row)))
    cuts = itertools.product(rows, columns, groups)
    return [_block(axes, (*some, piece), group) for some, piece, group in cuts]


@lru_cache(maxsize=256)
def _plan(direction: str, shape: ConvShape) -> list[tuple[tuple[Gather, ...], list[_Block]]]:
    """Return the gathers that a direction consists of, and their blocks."""
    gathers = backward(shape) if direction == "dgrad" else [forward(shape)]
    return [(axes, _blocks(axes, shape.batch, shape.filters)) for axes in gathers]


def _rows(source: np.ndarray, block: _Block, times: int) -> np.ndarray:
    """View copies of what a block reads as (*others' counts, *others' taps, S, Q * N * C * times).

    Each channel comes so many times.
    """
    images = block.target[-1]
    shape = (*block.extents, images.stop - images.start, source.shape[-1])
    patch = workspace.take("patch", (*shape, times) if times > 1 else shape, source.dtype)
    if block.padded:
        patch[...] = 0
    for place, read in block.copies:
        patch[place] = source[read][..., None] if times > 1 else source[read]
    pixel = shape[-2] * shape[-1] * times
    extents = (*block.counts[:-1], *block.taps, block.counts[-1] * pixel)
    return view(patch, extents, [*(step * pixel for step in block.steps), 1])


def by_tap(w: np.ndarray) -> np.ndarray:
    """View (K, *kernel, 1) as (*kernel, K)."""
    return w.transpose(*range(1, w.ndim), 0)[..., 0, :]


def _share(compute: Callable[[int], object], parts: int) -> None:
    """Hand parts to the threads; a single one, a few microseconds of work, is done at once."""
    if parts == 1:
        compute(0)
    else:
        run(compute, parts)


def letters(count: int) -> tuple[str, str]:
    """Name so many axes of target pixels, and as many of taps, for ``np.einsum``."""
    return "abc"[:count], "ijk"[:count]


def _gather(
    source: np.ndarray, filters: np.ndarray, target: np.ndarray, axes: Sequence[Gather],
    plan: list[_Block], finish: Finish, times: int,
) -> None:  # fmt: skip
    """Fill target (*counts, N, K) from source (*size, N, C) and filters (*taps, C * times).

    K is C * times, each channel's results side by side, or C / m, the sums of m neighbours.
    """
    width = filters.shape[-1]
    longest = max(
        (b.counts[-1] * (b.target[-1].stop - b.target[-1].start) for b in plan), default=0
    )
    repeated = np.empty((*filters.shape[:-1], longest, width), filters.dtype)
    repeated[...] = np.ascontiguousarray(filters)[..., None, :]
    repeated = repeated.reshape(*filters.shape[:-1], -1)  # (*taps, Q*N*K)
    pixel, tap = letters(len(axes) - 1)
    subscripts = f"{pixel}{tap}sl,{tap}sl->{pixel}l"
    in_place = axes[-1].target.step in (None, 1) and target.shape[-1] == width

    def compute(part: int) -> None:
        block = plan[part]
        result = target[block.target]
        out = result
        if not in_place:
            out = workspace.take("result", (*result.shape[:-1], width), result.dtype)
        view = _rows(source, block, times)
        # (*counts, *taps, S, Q*N*K), (*taps, S, Q*N*K) -> (*counts, Q*N*K)
        np.einsum(
            subscripts, view, repeated[..., : view.shape[-1]],
            out=out.reshape(*block.counts[:-1], -1),
        )  # fmt: skip
        if not in_place:
            # (*counts, N, K * m) -> (*counts, N, K, m) -> (*counts, N, K)
            terms = out.reshape(*result.shape, -1)
            result[...] = terms[..., 0]
            for number in range(1, terms.shape[-1]):  # NumPy is slow to sum so few at a time
                result += terms[..., number]
        finish(result, block.target)

    _share(compute, len(plan))


class DepthwiseRows(Algorithm):
    """Products of rows; for a group a channel."""

    name = "depthwise_rows"

    def suits(self, direction: str, shape: ConvShape, dtype: np.dtype) -> bool:
        return shape.groups == shape.channels > 1

    def fprop(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        times = shape.filters // shape.channels
        [(axes, plan)] = _plan("fprop", shape)
        _gather(x, by_tap(w), y, axes, plan, finish, times)

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        filters = by_tap(w)
        for axes, plan in _plan("dgrad", shape):
            target = dx[tuple(axis.target for axis in axes)]
            if not plan:  # nothing is read
                target[...] = 0
                finish(target)
                continue
            taps = filters[tuple(axis.filter for axis in axes)]
            _gather(dy, taps, target, axes, plan, finish, 1)

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        [(_, plan)] = _plan("fprop", shape)
        times = shape.filters // shape.channels
        pixel, _ = letters(shape.rank - 1)
        subscripts = f"{pixel}sl,{pixel}l->sl"
        partial = np.empty((len(plan), *shape.kernel, shape.filters), x.dtype)

        def compute(part: int) -> None:
            block = plan[part]
            view = _rows(x, block, times)
            product = workspace.take("product", view.shape[shape.rank - 1 :], x.dtype)
            block_dy = dy[block.target].reshape(*block.counts[:-1], -1)
            # An outer tap at a time: the sums of all of them would not stay in the cache
            for tap in itertools.product(*map(range, block.taps[:-1])):
                read = view[(*(slice(None) for _ in tap), *tap)]
                # (*counts, S, Q*N*K), (*counts, Q*N*K) -> (S, Q*N*K)
                np.einsum(subscripts, read, block_dy, out=product[tap])
            product = product.reshape(*shape.kernel, -1, shape.filters)
            # (Q*N,) @ (*taps, S, Q*N, K) -> (*taps, S, K)
            partial[part] = np.ones(product.shape[-2], x.dtype) @ product

        _share(compute, len(plan))
        dw = partial.sum(0).reshape(-1, shape.filters)
        return np.ascontiguousarray(dw.T).reshape(shape.w_shape)
