"""The floor of an operation: no version runs faster than its arithmetic and its memory allow.

    floor = max(operations / peak rate, bytes / bandwidth)

This is the roofline (Williams et al. 2009). A multiply-add is two operations, and padding counts as
work, as everyone counts. Every array is read or written once. What that leaves out:

- A library may do with fewer operations: Winograd's algorithm F(4x4,3x3) has a quarter of the
  products. A 3x3 convolution can so be faster than its floor.
- What lies in a cache need not cross the memory bus. Small maps can so be faster than their floor.
- The statistics of a batch norm need a pass of their own over a map that fits no cache; pooling,
  activations and norms compute, too. Such layers have a floor of memory alone.
- What a call costs besides: Python, checks, the launch of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..backends.base import Backend, accumulator
from ..shapes import ConvShape
from .clocks import Clock, least_microseconds

COPIED = 2**27  # bytes, more than caches hold
SIZE = 512  # of the matrices of a thread of the host
DEVICE_SIZES = {2: 8192, 4: 4096, 8: 4096}  # of those of a GPU, by the bytes of a number
PARTS = 4  # of the copy and of the products for each thread of the host


@dataclass(frozen=True)
class Work:
    """What a call must do: operations (two a multiply-add) and bytes to read and to write."""

    operations: int = 0
    bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.bytes + other.bytes)


@dataclass(frozen=True)
class Peaks:
    """The most that a machine does: 10^9 operations a second, and 10^9 bytes a second.

    >>> peaks = Peaks(gflops=100.0, gbps=10.0)
    >>> peaks.floor_us(Work(operations=10**6, bytes=10**6)), peaks.bound(Work(10**6, 10**6))
    (100.0, 'memory')
    """

    gflops: float
    gbps: float

    def floor_us(self, work: Work) -> float:
        """Return the least microseconds that the work takes."""
        return max(work.operations / self.gflops, work.bytes / self.gbps) / 1e3

    def bound(self, work: Work) -> str | None:
        """Return what the floor is made of, "arithmetic" or "memory"; None where it is 0."""
        if not self.floor_us(work):
            return None
        arithmetic = work.operations / self.gflops > work.bytes / self.gbps
        return "arithmetic" if arithmetic else "memory"


def measure(backend: Backend, dtype: np.dtype, clock: Clock) -> Peaks:
    """Measure a machine's peaks: the rate of a matrix product, and of a large copy.

    On the CPU each of the backend's threads multiplies matrices of its own, of the dtype that sums
    have there: 16-bit numbers are converted. On a GPU CuPy multiplies in the dtype itself (float16
    for bfloat16, which runs at the same rate); a library's product leaves some of the rate unused,
    which shows in float32. Of a copy, bytes read and bytes written count.
    """
    real = np.dtype(np.empty(0, dtype).real.dtype) if dtype.kind == "c" else dtype
    with backend.running():
        return (_device if hasattr(backend.xp, "cuda") else _host)(backend, real, clock)


def _host(backend: Backend, dtype: np.dtype, clock: Clock) -> Peaks:
    from ..backends.numpy import workers

    size, parts = SIZE, PARTS * workers.thread_count()
    a = np.random.default_rng(0).random((size, size)).astype(accumulator(dtype))
    products = [np.empty_like(a) for _ in range(parts)]
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    pieces = list(zip(np.array_split(target, parts), np.array_split(source, parts), strict=True))
    product_us = least_microseconds(
        clock, lambda: workers.run(lambda part: np.matmul(a, a, out=products[part]), parts)
    )
    copy_us = least_microseconds(
        clock, lambda: workers.run(lambda part: np.copyto(*pieces[part]), parts)
    )
    return Peaks(parts * 2e-3 * size**3 / product_us, 2e-3 * source.nbytes / copy_us)


def _device(backend: Backend, dtype: np.dtype, clock: Clock) -> Peaks:
    xp = backend.xp
    size = DEVICE_SIZES[dtype.itemsize]
    # not of zeros, whose products take less power, so that the clock rises
    a = np.random.default_rng(0).random((size, size), np.float32)
    a = xp.asarray(a).astype(np.float16 if dtype.itemsize == 2 else dtype)
    source = xp.ones(COPIED, np.uint8)
    target = xp.empty_like(source)
    product_us = least_microseconds(clock, lambda: xp.matmul(a, a))
    copy_us = least_microseconds(clock, lambda: xp.copyto(target, source))
    return Peaks(2e-3 * size**3 / product_us, 2e-3 * source.nbytes / copy_us)


def elements_read(shape: ConvShape) -> int:
    """Return the elements of x under any window: a 1x1 window of stride 2 reads a quarter of a map.

    >>> elements_read(ConvShape.of((1, 8, 8, 3), (4, 1, 1, 3), strides=2))
    48
    """
    return shape.batch * shape.channels * prod(_under(shape, axis) for axis in range(shape.rank))


def _under(shape: ConvShape, axis: int) -> int:
    stride, dilation = shape.strides[axis], shape.dilation[axis]
    before = shape.padding[axis][0]
    under = {
        p * stride - before + r * dilation
        for p in range(shape.output[axis])
        for r in range(shape.kernel[axis])
    }
    return len(under & set(range(shape.input[axis])))
