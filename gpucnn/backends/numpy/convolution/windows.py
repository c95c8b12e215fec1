"""The windows of a convolution over pixel-major memory, and the columns under a block of them.

Both fprop and dgrad gather: target pixel j of an axis reads source pixels

    j * stride + offset + dilation * t      t = 0, 1, ..., taps - 1

In fprop the target is y. In dgrad it is dx, by residues: a dx pixel i = stride * j + c gets
something through tap r where stride divides c + pad - dilation * r. Such r step by
stride / gcd(stride, dilation), and then the dy pixel that they read, j + (c + pad - dilation * r)
/ stride, steps by dilation / gcd: with the taps in reverse it is a gather of stride 1. So a
transposed convolution is as many plain ones as there are residues (Dumoulin and Visin, "A guide to
convolution arithmetic for deep learning", 2016, explain the same by inserted zeros).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ....shapes import ConvShape
from .workspace import workspace

Block = tuple[slice, ...]

SHORT_RUN = 8  # elements: where so few channels lie together, columns are copied channel by channel


@dataclass(frozen=True)
class Gather:
    """One axis: which target pixels there are, and which source pixels each of them reads."""

    target: slice  # in the target's axis
    count: int  # of target pixels
    size: int  # of the source's axis
    filter: slice  # the taps, in the order of their source pixels
    taps: int
    stride: int
    offset: int
    dilation: int


def forward(shape: ConvShape) -> tuple[Gather, ...]:
    """Return the axes over which y gathers x."""
    axes = zip(
        shape.output, shape.input, shape.kernel, shape.strides, shape.padding, shape.dilation,
        strict=True,
    )  # fmt: skip
    return tuple(
        Gather(slice(None), count, size, slice(None), window, stride, -pad, dilation)
        for count, size, window, stride, (pad, _), dilation in axes
    )


def residues(
    size: int, count: int, window: int, stride: int, pad: int, dilation: int
) -> Iterator[Gather]:
    """Yield how each residue of an axis of dx gathers dy."""
    step = stride // math.gcd(stride, dilation)
    for residue in range(min(stride, size)):
        reading = range(window)
        reading = [r for r in reading if (residue + pad - dilation * r) % stride == 0]
        target = slice(residue, None, stride)
        pixels = len(range(residue, size, stride))
        if not reading:
            yield Gather(target, pixels, count, slice(0), 0, 1, 0, 1)
            continue
        first, last = reading[0], reading[-1]
        # From the last tap, whose source comes first, back to the first.
        backwards = slice(last, first - 1 if first else None, -step)
        offset = (residue + pad - dilation * last) // stride
        apart = dilation * step // stride
        yield Gather(target, pixels, count, backwards, len(reading), 1, offset, apart)


def backward(shape: ConvShape) -> list[tuple[Gather, ...]]:
    """Return the axes over which dx gathers dy, for each combination of residues."""
    axes = zip(
        shape.input, shape.output, shape.kernel, shape.strides, shape.padding, shape.dilation,
        strict=True,
    )  # fmt: skip
    return list(
        itertools.product(
            *(
                residues(size, count, window, stride, pad, dilation)
                for size, count, window, stride, (pad, _), dilation in axes
            )
        )
    )


def view(
    memory: np.ndarray, shape: Sequence[int], strides: Sequence[int], offset: int = 0
) -> np.ndarray:
    """View memory without gaps; strides and offset count elements. ``as_strided`` takes longer."""
    size = memory.itemsize
    steps = [step * size for step in strides]
    return np.ndarray(shape, memory.dtype, memory, offset * size, steps)


def windows(source: np.ndarray, axes: tuple[Gather, ...], block: Block, groups: int) -> np.ndarray:
    """View the source pixels under a block of targets as (*counts, n, *taps, G, C / G).

    ``block`` has a slice for each axis and one for the images; ``source`` is (*size, N, C). Where a
    window reaches beyond the source, the view is of a copy with zeros around.
    """
    *pixels, images = block
    reads, places, extents = [], [], []
    for axis, piece in zip(axes, pixels, strict=True):
        start = piece.start * axis.stride + axis.offset
        reach = (piece.stop - 1 - piece.start) * axis.stride + axis.dilation * (axis.taps - 1) + 1
        first = min(max(0, start), axis.size)
        last = max(first, min(axis.size, start + reach))
        reads.append(slice(first, last))
        places.append(slice(first - start, last - start))
        extents.append(reach)
    patch = source[(*reads, images)]
    if patch.shape[:-2] != tuple(extents):
        inside = patch
        patch = workspace.take("patch", (*extents, *inside.shape[-2:]), inside.dtype)
        patch[...] = 0
        patch[tuple(places)] = inside
    *steps, image, channel = patch.strides
    depth = patch.shape[-1] // groups
    return as_strided(
        patch,
        (
            *(piece.stop - piece.start for piece in pixels), patch.shape[-2],
            *(axis.taps for axis in axes), groups, depth,
        ),
        (
            *(step * axis.stride for step, axis in zip(steps, axes, strict=True)), image,
            *(step * axis.dilation for step, axis in zip(steps, axes, strict=True)),
            depth * channel, channel,
        ),
        writeable=False,
    )  # fmt: skip


def columns(view: np.ndarray) -> np.ndarray:
    """Copy windows (*counts, n, *taps, G, C / G) into a matrix a group: (G, rows, T * C / G).

    The rows are the target pixels and images. They are the first axis in memory, too, unless there
    are few channels: copied a channel at a time, the runs are rows then.
    """
    rank = (view.ndim - 3) // 2
    rows, taps = view.shape[: rank + 1], view.shape[rank + 1 : -2]
    groups, depth = view.shape[-2:]
    row_axes, tap_axes = range(rank + 1), range(rank + 1, view.ndim - 2)
    height, width = math.prod(rows), math.prod(taps) * depth
    memory = workspace.take("columns", (view.size,), view.dtype)
    if depth < SHORT_RUN:
        out = memory.reshape(groups, *taps, depth, *rows)
        np.copyto(out, view.transpose(view.ndim - 2, *tap_axes, view.ndim - 1, *row_axes))
        return memory.reshape(groups, width, height).swapaxes(1, 2)
    out = memory.reshape(groups, *rows, *taps, depth)
    np.copyto(out, view.transpose(view.ndim - 2, *row_axes, *tap_axes, view.ndim - 1))
    return memory.reshape(groups, height, width)
