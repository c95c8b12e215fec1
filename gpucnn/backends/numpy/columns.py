"""The columns of a convolution: the inputs under each output pixel's window, block by block.

A block of output pixels has a matrix with one row a pixel and one column a tap and channel
(Chellapilla et al., "High performance convolutional neural networks for document processing",
2006). The matrix of all pixels would be T times the input; here only a block of it exists at a
time, in a buffer of about ``COLUMN_BYTES``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...shapes import ConvShape
from ..base import accumulator
from .blocks import blocks

COLUMN_BYTES = 1 << 21
MIN_ROWS = 128  # with fewer a product would take longer to read the filters than to compute
SHORT_RUN = 8  # elements: where a window's rows are shorter, the columns are copied tap by tap

Block = tuple[slice, ...]


class _Scratch(threading.local):
    """A thread's buffer, kept from call to call: to touch fresh memory costs as much as to fill it.

    Whoever takes it has it until the next one does, so an operation takes it once at a time.
    """

    memory = np.empty(0, np.uint8)

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self.memory.size < size:
            self.memory = np.empty(size, np.uint8)
        return self.memory[:size].view(dtype).reshape(shape)


scratch = _Scratch()


def channels_last(array: np.ndarray, shape: ConvShape) -> np.ndarray:
    """View an activation as (N, *spatial, C)."""
    return array if shape.channels_last else np.moveaxis(array, 1, -1)


def spatial_axes(shape: ConvShape) -> Iterator[tuple]:
    """Yield the (input, window, stride, padding, dilation) of each spatial axis."""
    return zip(shape.input, shape.kernel, shape.strides, shape.padding, shape.dilation, strict=True)


def is_pointwise(shape: ConvShape) -> bool:
    """Whether output pixel i sees input pixel i and nothing else."""
    return shape.taps == 1 and set(shape.strides) == {1} and shape.input == shape.output


def rows_at_a_time(columns: int) -> int:
    """Return how many rows of so many columns fill the buffer."""
    return max(MIN_ROWS, COLUMN_BYTES // (4 * max(1, columns)))


def output_blocks(shape: ConvShape, columns: int) -> Iterator[Block]:
    """Cut the outputs (N, *spatial) into blocks whose rows of so many columns fill the buffer."""
    return blocks((shape.batch, *shape.output), rows_at_a_time(columns))


def input_patch(x: np.ndarray, block: Block, shape: ConvShape) -> np.ndarray:
    """Return the inputs (n, *spatial, C) under the windows of a block, zeros where padded.

    It is a view of ``x`` (channels last) if there is nothing to pad or to widen.
    """
    images, *outputs = block
    source, target, extents = [images], [slice(None)], []
    for output, axis in zip(outputs, spatial_axes(shape), strict=True):
        size, window, stride, (pad, _), dilation = axis
        start = output.start * stride - pad
        stop = (output.stop - 1) * stride - pad + dilation * (window - 1) + 1
        first = min(max(0, start), size)
        last = max(first, min(size, stop))
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
        extents.append(stop - start)
    view = x[tuple(source)]
    dtype = accumulator(x.dtype)
    if view.shape[1:-1] == tuple(extents) and x.dtype == dtype:
        return view
    # In the memory order of x: channels first stay so.
    patch = np.zeros_like(view, dtype, shape=(len(view), *extents, view.shape[-1]))
    patch[tuple(target)] = view
    return patch


def patch_windows(patch: np.ndarray, counts: tuple[int, ...], shape: ConvShape) -> np.ndarray:
    """View a block's patch as its windows: (G, n, *outputs, *kernel, C/G)."""
    image, *spatial, channel = patch.strides
    depth = shape.channels // shape.groups
    return as_strided(
        patch,
        (shape.groups, *counts, *shape.kernel, depth),
        (
            depth * channel,
            image,
            *(step * stride for step, stride in zip(spatial, shape.strides, strict=True)),
            *(step * dilation for step, dilation in zip(spatial, shape.dilation, strict=True)),
            channel,
        ),
        writeable=False,
    )


def column_blocks(x: np.ndarray, shape: ConvShape) -> Iterator[tuple[Block, np.ndarray]]:
    """Yield each block of outputs with its columns (G, rows, T * C/G); the next overwrites them.

    ``x`` is channels last. A pointwise convolution has x itself as its columns: one block, no copy.
    """
    dtype, groups = accumulator(x.dtype), shape.groups
    depth = shape.channels // groups
    if is_pointwise(shape) and x.dtype == dtype and x.flags.c_contiguous:
        # (N, *spatial, C) -> (rows, G, C/G) -> (G, rows, C/G)
        columns = x.reshape(-1, groups, depth).swapaxes(0, 1)
        yield tuple(slice(0, extent) for extent in (shape.batch, *shape.output)), columns
        return
    run = depth * (shape.kernel[-1] if shape.dilation[-1] == 1 and groups == 1 else 1)
    by_tap = not shape.channels_last or run < SHORT_RUN
    taps = shape.taps * depth
    for block in output_blocks(shape, groups * taps):
        counts = tuple(axis.stop - axis.start for axis in block)
        rows = math.prod(counts)
        windows = patch_windows(input_patch(x, block, shape), counts, shape)
        memory = scratch.take((windows.size,), dtype)
        if by_tap:  # memory (G, T*C/G, rows)
            pixels = range(1, 2 + shape.rank)
            np.copyto(
                memory.reshape(groups, *windows.shape[2 + shape.rank :], *counts),
                np.moveaxis(windows, pixels, range(-len(pixels), 0)),
            )
            yield block, memory.reshape(groups, taps, rows).swapaxes(1, 2)
        else:
            np.copyto(memory.reshape(windows.shape), windows)
            yield block, memory.reshape(groups, rows, taps)
