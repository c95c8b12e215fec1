"""Winograd's F(4x4, 3x3) for 3x3 windows of stride 1: transforms around matrix products.

The 36 products are a 1x1 convolution in as many groups, which the implicit GEMM computes; the
transforms (kernels/conv_winograd4.cu) move the data that it takes and gives through memory. So it
pays with many channels and filters, where arithmetic outweighs that traffic; Winograd's
F(2x2, 3x3), which keeps all in a block, is for the others.

Its error in float32, root mean square against float64, as a multiple of that of the direct sum in
one piece, with normal data and no padding:

    channels                        16    64   128   256
    points 0, +-1, +-2 and inf    4.58  3.56  3.74  3.84
    points 0, +-5/8, +-3/2, inf   2.23  1.80  1.71  1.67

It promises to stay within twice the direct sum's, so it has the second points, and sums in
``SPLITS``, and no fewer than ``MIN_DEPTH`` channels. With 256 of them the multiples are then, in
fprop of normal x and after ReLU, and in dgrad of a dy that ReLU has set to zero by half:

    map               14x14, no padding    14x14    8x8    7x7    6x6    5x5
    normal                         1.21     1.27   1.35   1.28   1.39   1.29
    after ReLU                     1.51     1.56   1.74   1.60   1.65   1.51
    half of it zero                1.70     1.82   1.93   1.81   1.97   1.81

and less with more channels. Terms that are zero cost the direct sum no error, but cost the
transforms theirs: that is why it is offered only up to ``MAX_BORDER`` of padding (4x4 maps would
have 1.64, 1.91 and 2.21), and why data with more zeros have larger multiples.

The gradient of the filters sums over tiles. It keeps the promise against a direct kernel in as many
splits as fill a GPU once, where each of them sums at least ``MIN_PIXELS``, and one of its own half
as many: 1.09 for padded maps of 8x8 and 1280 pixels, 1.79 with x after ReLU and half of dy zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from ...base import Array
from ..epilogue import Epilogue
from ..kernel import CHANNELS_LAST, DTYPE, Kernel, KernelFamily
from ..launch import KernelCaller, ceil_div
from ..spatial import DIVISOR, divisor
from .base import BYTES, LAUNCH_US, MULTIPROCESSORS, FusingAlgorithm, Plan, Problem
from .implicit_gemm import ImplicitGemm
from .tiles import TALL, TILE_K, matrix_of
from .winograd import as_forward

TILE, POINTS = 4, 36  # as in kernels/winograd4.cuh
PACK = 4  # floats in 16 bytes
SPLITS = 2  # that a sum falls into which is one of the direct kernel's
MIN_DEPTH = 256  # channels that fprop sums over, filters that dgrad does
MIN_PIXELS = 1280  # that a split of the direct wgrad sums
MAX_BORDER = 0.15  # of the taps along an axis, those that lie in padding
# Elements of the transformed maps at a time: 256 MB. A larger batch goes in parts.
WORKSPACE = 2**26
# For the cost estimate: what memory is asked for by its pace, for much of it is still in the cache.
MEMORY_SHARE = 1.3

_AXES = (CHANNELS_LAST, {"float32": DTYPE["float32"]})
PATCHES = KernelFamily("conv_winograd4.cu", "winograd4_patches", *_AXES)
TILES = KernelFamily("conv_winograd4.cu", "winograd4_tiles", *_AXES)
OUTPUTS = KernelFamily("conv_winograd4.cu", "winograd4_outputs", *_AXES)
FILTERS = KernelFamily("conv_winograd4.cu", "winograd4_filters", *_AXES)
FILTER_GRADIENT = KernelFamily("conv_winograd4.cu", "winograd4_filter_gradient", *_AXES)

GEMM = ImplicitGemm()

# struct TileGeometry of kernels/conv_winograd4.cu
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("batch", "depth", "tiles")]
    + [(name, "i4", 2) for name in ("size", "pad")]
    + [("by_tiles", DIVISOR, 2), ("by_fast", DIVISOR)]
)


@dataclass(frozen=True)
class Settings:
    """How many images go at a time, and the plan of their matrix products."""

    images: int
    gemm: Plan


def _tiles(s: ConvShape) -> tuple[int, int]:
    """Tiles of an image, down and across."""
    return ceil_div(s.output[0], TILE), ceil_div(s.output[1], TILE)


def _border(s: ConvShape) -> float:
    """Return the share of the taps that lie in padding, along the axis that has more of them."""
    axes = zip(s.padding, s.output, strict=True)
    return max(sum(n * (n + 1) // 2 for n in pads) / (3 * size) for pads, size in axes)


def _numbers(s: ConvShape) -> dict[str, int]:
    """Return how many each direction computes."""
    sizes = {"fprop": s.y_shape, "dgrad": s.x_shape, "wgrad": s.w_shape}
    return {direction: math.prod(size) for direction, size in sizes.items()}


def _padded_tiles(s: ConvShape, images: int) -> int:
    """Tiles of so many images, in whole packs, that the GEMM may load 16 bytes of each row."""
    return ceil_div(images * math.prod(_tiles(s)), PACK) * PACK


@lru_cache(maxsize=4096)
def products(problem: Problem, images: int) -> Problem:
    """Return the matrix products of so many images, a 1x1 convolution over their tiles."""
    s = problem.shape
    tiles = _padded_tiles(as_forward(problem), images)
    shape = ConvShape.of(
        (1, tiles, POINTS * s.channels), (POINTS * s.filters, 1, s.channels), groups=POINTS
    )
    return replace(
        problem, shape=replace(shape, channels_last=s.channels_last), activation="linear"
    )


@lru_cache(maxsize=4096)
def _gemm_plan(problem: Problem, images: int) -> Plan:
    """Return the plan of the products of so many images: the GEMM's best in splits short enough."""
    inner = products(problem, images)
    length = matrix_of(inner).k
    if problem.direction == "wgrad":
        splits = ceil_div(length, _direct_terms(problem) // SPLITS // TILE**2 // TILE_K * TILE_K)
    else:
        splits = SPLITS
    most = ceil_div(ceil_div(length, splits), TILE_K) * TILE_K  # splits alike, of whole slabs

    def shortened(plan: Plan) -> Plan:
        terms = min(most, plan.settings.terms)
        grid = (*plan.grid[:2], ceil_div(length, terms))
        return replace(plan, settings=replace(plan.settings, terms=terms), grid=grid)

    return min(map(shortened, GEMM.plans(inner)), key=lambda plan: GEMM.cost(inner, plan))


def _direct_terms(problem: Problem) -> int:
    """Return how many terms a split of the direct kernel sums, whose blocks fill a GPU once."""
    matrix = matrix_of(problem)
    room = max(1, MULTIPROCESSORS * TALL.blocks // matrix.blocks(TALL))
    return min(terms for splits, terms in matrix.splits(TALL) if splits <= room)


@lru_cache(maxsize=1024)
def _record(s: ConvShape, images: int, patches: bool) -> np.ndarray:
    """Return struct TileGeometry for the map that is cut into patches, or for that of the tiles."""
    record = np.zeros(1, _GEOMETRY)
    record["batch"] = images
    record["tiles"] = _padded_tiles(s, images)
    record["depth"] = s.channels if patches else s.filters
    record["size"] = s.input if patches else s.output
    if patches:
        record["pad"] = [before for before, _ in s.padding]
    record["by_tiles"] = list(map(divisor, _tiles(s)))
    record["by_fast"] = divisor(int(record["depth" if s.channels_last else "tiles"][0]))
    return record


class Winograd4(FusingAlgorithm):
    """fprop, dgrad and wgrad in float32. An infinity or NaN also reaches the rest of its tile."""

    name = "winograd4"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s = problem.shape
        depth = {"fprop": s.channels, "dgrad": s.filters}.get(problem.direction, MIN_DEPTH)
        if not (
            problem.dtype == "float32"
            and problem.math != "exact"
            and s.kernel == (3, 3)
            and s.strides == s.dilation == (1, 1)
            and s.groups == 1
            and depth >= MIN_DEPTH
            # no sum has less than a ninth of its terms: it would be small beside its tile's error
            and max(map(max, s.padding)) <= 2
            and _border(as_forward(problem)) <= MAX_BORDER
        ):
            return
        if problem.direction == "wgrad" and _direct_terms(problem) < MIN_PIXELS:
            return
        forward, copies = as_forward(problem), 1 if problem.direction == "wgrad" else SPLITS
        image = POINTS * math.prod(_tiles(forward)) * (forward.channels + copies * forward.filters)
        images = max(1, min(s.batch, WORKSPACE // image))
        inner = products(problem, images).shape
        if max(math.prod(inner.x_shape), math.prod(inner.y_shape)) >= 2**31:
            return  # the GEMM counts the elements of its maps in 32 bits
        gemm = _gemm_plan(problem, images)
        yield Plan(self.name, Settings(images, gemm), gemm.grid, gemm.threads, gemm.shared_bytes)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """Each part's products and launches, and what the transforms read and write."""
        moved = sum(_numbers(problem.shape).values())
        microseconds = LAUNCH_US
        for images, gemm in self._parts(problem, plan):
            inner = products(problem, images)
            microseconds += GEMM.arithmetic_us(inner, gemm) + 3 * LAUNCH_US
            numbers = _numbers(inner.shape)
            moved += 2 * sum(numbers.values())
            moved += 2 * (gemm.grid[2] - 1) * numbers[problem.direction]
        return microseconds + 4 * moved / (BYTES * MEMORY_SHARE)

    def _parts(self, problem: Problem, plan: Plan) -> Iterator[tuple[int, Plan]]:
        """Yield the images of each part of the batch, and the plan of its products."""
        batch, images = problem.shape.batch, plan.settings.images
        for first in range(0, batch, images):
            part = min(images, batch - first)
            yield part, plan.settings.gemm if part == images else _gemm_plan(problem, part)

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        s = as_forward(problem)
        turned, residual = problem.direction == "dgrad", epilogue.residual
        choice, count = (s.channels_last, source.dtype), s.channels * s.filters
        u = caller.xp.empty((POINTS * len(w), 1, w.shape[-1]), source.dtype)
        caller.launch_elements(FILTERS(*choice), count, w, u, turned, count, _by_channels(w))
        y, first = caller.xp.empty(s.y_shape, source.dtype), 0
        for images, gemm in self._parts(problem, plan):
            part = slice(first, first := first + images)
            v = _transform(caller, PATCHES(*choice), source[part], _record(s, images, True))
            record, splits = _record(s, images, False), gemm.grid[2]
            outputs = int(record["tiles"][0]) * s.filters
            m = caller.xp.empty((splits, POINTS * outputs), source.dtype)
            GEMM.partial_sums(caller, products(problem, images), gemm, v, u, m)
            of_part = None if residual is None else residual[part]
            caller.launch_elements(
                OUTPUTS(*choice), outputs, m, epilogue.b, of_part, *epilogue.function(w.dtype),
                y[part], splits, record,
            )  # fmt: skip
        return y

    def run_wgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array
    ) -> Array:
        s, parts = problem.shape, list(self._parts(problem, plan))
        choice, count = (s.channels_last, x.dtype), s.channels * s.filters
        splits = sum(gemm.grid[2] for _, gemm in parts)
        du = caller.xp.empty((splits, POINTS, s.filters, s.channels), x.dtype)
        first, split = 0, 0
        for images, gemm in parts:
            part = slice(first, first := first + images)
            v = _transform(caller, PATCHES(*choice), x[part], _record(s, images, True))
            w = _transform(caller, TILES(*choice), dy[part], _record(s, images, False))
            partial = du[split : (split := split + gemm.grid[2])]
            GEMM.partial_sums(caller, products(problem, images), gemm, v, w, partial)
        dw = caller.xp.empty(s.w_shape, x.dtype)
        caller.launch_elements(
            FILTER_GRADIENT(*choice), count, du, dw, splits, count, _by_channels(dw)
        )
        return dw


def _transform(caller: KernelCaller, kernel: Kernel, pixels: Array, record: np.ndarray) -> Array:
    """Return the points of a map's patches or tiles."""
    elements = int(record["tiles"][0]) * int(record["depth"][0])
    points = caller.xp.empty(POINTS * elements, pixels.dtype)
    caller.launch_elements(kernel, elements, pixels, points, record)
    return points


def _by_channels(w: Array) -> np.ndarray:
    """Return the divisor by the channels of filters (K, 3, 3, C), a struct to launch with."""
    return np.array([divisor(w.shape[-1])], DIVISOR)
