"""Bugs in convolutions that are no implicit GEMM: Winograd, depthwise, grouped, few channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.shapes import ConvShape, PoolShape
from tests import reference
from tests.cases import in_layout
from tests.planted_bugs.common import Bug, assert_close, random

WINOGRAD = ConvShape.of((1, 7, 9, 18), (20, 3, 3, 18), padding=((2, 0), (0, 2)))
DEPTHWISE = ConvShape.of((2, 9, 18, 44), (44, 3, 3, 1), groups=44, padding=((1, 2), (1, 0)))
GROUPED = ConvShape.of(
    (2, 9, 10, 24), (30, 3, 3, 8), groups=3, padding=((1, 2), (1, 0))
)  # fmt: skip
STEM = ConvShape.of((3, 9, 13, 2), (36, 3, 3, 2), padding=1)
STEM_POOL = PoolShape.of((3, 9, 13, 36), 2, mode="max", rank=2, ceil_mode=True)


def winograd(backend: CudaBackend) -> None:
    problem = Problem("fprop", WINOGRAD, "float32", "relu")
    algorithm = ALGORITHMS["winograd"]
    plan, *_ = algorithm.plans(problem)  # the largest block
    x, w, b = random("x", WINOGRAD.x_shape), random("w", WINOGRAD.w_shape), random("b", (20,))
    y = np.maximum(reference.conv_fprop(x, w, b, WINOGRAD), 0)
    terms = reference.conv_fprop(*map(np.abs, (x, w, b)), WINOGRAD)
    got = algorithm.run(backend, problem, plan, x, w, b)
    assert_close(got, y, reduction=163, magnitude=terms)


def winograd_dgrad(backend: CudaBackend) -> None:
    problem = Problem("dgrad", replace(WINOGRAD, channels_last=False), "float32")
    algorithm = ALGORITHMS["winograd"]
    *_, plan = algorithm.plans(problem)  # the smallest
    dy, w = random("dy", WINOGRAD.y_shape), random("w", WINOGRAD.w_shape)
    dx, terms = (
        in_layout(reference.conv_dgrad(*a, None, WINOGRAD), False)
        for a in ((dy, w), (np.abs(dy), np.abs(w)))
    )
    got = algorithm.run(backend, problem, plan, in_layout(dy, False), w, None)
    assert_close(got, dx, reduction=180, magnitude=terms)


def winograd_wgrad(backend: CudaBackend) -> None:
    shape, algorithm = replace(WINOGRAD, batch=7), ALGORITHMS["winograd"]  # two splits
    problem = Problem("wgrad", shape, "float32")
    plan, *_ = algorithm.plans(problem)
    x, dy = random("x", shape.x_shape), random("dy", shape.y_shape)
    dw, terms = (reference.conv_wgrad(*a, shape) for a in ((x, dy), (np.abs(x), np.abs(dy))))
    assert_close(algorithm.run(backend, problem, plan, x, dy), dw, reduction=441, magnitude=terms)


def winograd4(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 7, 9, 257), (5, 3, 3, 257), padding=1)  # 6 tiles, and 2 empty ones
    problem, algorithm = Problem("fprop", shape, "float32"), ALGORITHMS["winograd4"]
    plan, *_ = algorithm.plans(problem)
    x, w = random("x", shape.x_shape), random("w", shape.w_shape)
    y, terms = (reference.conv_fprop(*a, None, shape) for a in ((x, w), (np.abs(x), np.abs(w))))
    got = algorithm.run(backend, problem, plan, x, w, None)
    assert_close(got, y, reduction=2313, magnitude=terms)


def depthwise(backend: CudaBackend) -> None:
    problem, algorithm = Problem("fprop", DEPTHWISE, "float32"), ALGORITHMS["depthwise"]
    plan, *_ = algorithm.plans(problem)
    x, w = random("x", DEPTHWISE.x_shape), random("w", DEPTHWISE.w_shape)
    y, terms = (reference.conv_fprop(*a, None, DEPTHWISE) for a in ((x, w), (np.abs(x), np.abs(w))))
    got = algorithm.run(backend, problem, plan, x, w, None)
    assert_close(got, y, reduction=9, magnitude=terms)


def depthwise_dgrad(backend: CudaBackend) -> None:
    algorithm = ALGORITHMS["depthwise"]
    for shape in (DEPTHWISE, replace(DEPTHWISE, strides=(2, 2))):
        problem = Problem("dgrad", shape, "float32")
        plan, *_ = algorithm.plans(problem)
        dy, w = random("dy", shape.y_shape), random("w", shape.w_shape)
        dx, terms = (
            reference.conv_dgrad(*a, None, shape) for a in ((dy, w), (np.abs(dy), np.abs(w)))
        )
        got = algorithm.run(backend, problem, plan, dy, w, None)
        assert_close(got, dx, reduction=9, magnitude=terms)


def depthwise_wgrad(backend: CudaBackend) -> None:
    shape, algorithm = replace(DEPTHWISE, batch=7), ALGORITHMS["depthwise"]  # several splits
    problem = Problem("wgrad", shape, "float32")
    plan, *_ = algorithm.plans(problem)
    x, dy = random("x", shape.x_shape), random("dy", shape.y_shape)
    dw, terms = (reference.conv_wgrad(*a, shape) for a in ((x, dy), (np.abs(x), np.abs(dy))))
    got = algorithm.run(backend, problem, plan, x, dy)
    assert_close(got, dw, reduction=1134, magnitude=terms)


def grouped(backend: CudaBackend) -> None:
    """The output and, in the other layout, the gradient of the input."""
    algorithm, x, w = (
        ALGORITHMS["grouped"],
        random("x", GROUPED.x_shape),
        random("w", GROUPED.w_shape),
    )
    problem = Problem("fprop", GROUPED, "float32")
    plan, *_ = algorithm.plans(problem)
    y, terms = (reference.conv_fprop(*a, None, GROUPED) for a in ((x, w), (np.abs(x), np.abs(w))))
    got = algorithm.run(backend, problem, plan, x, w, None)
    assert_close(got, y, reduction=72, magnitude=terms)

    problem = Problem("dgrad", replace(GROUPED, channels_last=False), "float32")
    plan, *_ = algorithm.plans(problem)
    dy = random("dy", GROUPED.y_shape)
    dx, terms = (
        in_layout(reference.conv_dgrad(*a, None, GROUPED), False)
        for a in ((dy, w), (np.abs(dy), np.abs(w)))
    )
    got = algorithm.run(backend, problem, plan, in_layout(dy, False), w, None)
    assert_close(got, dx, reduction=90, magnitude=terms)


def grouped_wgrad(backend: CudaBackend) -> None:
    algorithm, problem = ALGORITHMS["grouped"], Problem("wgrad", GROUPED, "float32")
    plan, *_ = algorithm.plans(problem)
    x, dy = random("x", GROUPED.x_shape), random("dy", GROUPED.y_shape)
    dw, terms = (reference.conv_wgrad(*a, GROUPED) for a in ((x, dy), (np.abs(x), np.abs(dy))))
    got = algorithm.run(backend, problem, plan, x, dy)
    assert_close(got, dw, reduction=180, magnitude=terms)


def two_tiles_a_block(plan: Plan) -> Plan:
    settings = replace(plan.settings, tiles_per_block=2)
    assert plan.settings.tiles_per_block == 1 and plan.grid[0] > 2
    return replace(plan, settings=settings, grid=(-(-plan.grid[0] // 2), *plan.grid[1:]))


def conv_pool(backend: CudaBackend) -> None:
    direct = ALGORITHMS["direct"]
    x, w, b = (np.round(1.4 * random(n, s)) for n, s in (("x", STEM.x_shape), ("w", STEM.w_shape),
                                                         ("b", (36,))))  # fmt: skip
    y, index = reference.pool_forward(np.maximum(reference.conv_fprop(x, w, b, STEM), 0), STEM_POOL)
    problem = Problem("fprop", STEM, "float32", "relu")
    plan = two_tiles_a_block(next(direct.pooled_plans(problem, STEM_POOL)))
    got, place = direct.forward(backend, problem, plan, STEM_POOL, x, w, b, True)
    assert_close(got, y, magnitude=0)
    assert (place == np.where(y > 0, index, 4)).all()


def conv_pool_wgrad(backend: CudaBackend) -> None:
    direct = ALGORITHMS["direct"]
    x, dy = np.round(3 * random("x", STEM.x_shape)), np.round(3 * random("dy", STEM_POOL.y_shape))
    index = np.round(random("index", dy.shape, low=0, high=4)).astype(np.uint8)
    index[:, -1] = index[:, :, -1] = 0  # a window that sticks out
    dz = reference.pool_backward(dy, index, STEM_POOL)
    problem = Problem("wgrad", STEM, "float32")
    plan = two_tiles_a_block(next(direct.pooled_plans(problem, STEM_POOL)))
    dw, db = direct.gradients(backend, problem, plan, STEM_POOL, x, dy, index)
    assert_close(dw, reference.conv_wgrad(x, dz, STEM), magnitude=0)
    assert_close(db, dz.sum((0, 1, 2)), magnitude=0)


BUGS = [
    Bug("no barrier between slabs", winograd, "conv_winograd.cu",
        "        __syncthreads();  // the next slab is complete, the present one read\n", ""),
    Bug("the slab being multiplied is overwritten", winograd, "conv_winograd.cu",
        "patch.put(shared.slabs[(slab + 1) % 2])", "patch.put(shared.slabs[slab % 2])"),
    Bug("accumulators read too early", winograd_dgrad, "winograd_gemm.cuh",
        "            __syncthreads();  // the lines of this pass are complete\n", ""),
    Bug("accumulators overwritten too early", winograd, "winograd_gemm.cuh",
        "            __syncthreads();  // everyone has read them\n", ""),
    Bug("rows read where they are not", winograd, "winograd_gemm.cuh", "lane ^ (by & lane_bits)",
        "lane"),
    Bug("channels beyond the last are read", winograd, "conv_winograd.cu",
        "if (channel >= g.group_channels) patch.inside = 0;", ""),
    Bug("the column beyond an odd row is stored", winograd, "conv_winograd.cu",
        "column + 1 < g.output[1]", "true"),
    Bug("the filters not turned", winograd_dgrad, "conv_winograd.cu", "turn ? 8 - tap : tap",
        "tap"),
    Bug("the last row of the transform negated", winograd_dgrad, "winograd.cuh",
        "w[3] = v[1] - v[3];", "w[3] = v[3] - v[1];"),
    Bug("no barrier between slabs", winograd_wgrad, "conv_winograd_wgrad.cu",
        "        __syncthreads();  // the next slab is complete, the present one read\n", ""),
    Bug("splits overlap", winograd_wgrad, "conv_winograd_wgrad.cu",
        "min(begin + tiles_per_split, g.tiles)", "g.tiles"),
    Bug("the column beyond an odd row is read", winograd_wgrad, "conv_winograd_wgrad.cu",
        "row_exists && two_columns", "row_exists"),
    Bug("columns read where they are not", winograd_wgrad, "conv_winograd_wgrad.cu",
        "Multiplier<true>", "Multiplier<false>"),
    Bug("a point taken for its opposite", winograd4, "winograd4.cuh", "fmaf(-point, odd, even)",
        "fmaf(point, odd, even)"),
    Bug("tiles of no image are read", winograd4, "conv_winograd4.cu", "!empty && ", ""),
    Bug("the patch begins where its tile does", winograd4, "conv_winograd4.cu",
        "TILE * column - g.pad[1]", "TILE * column"),
    Bug("the second split of the products is left out", winograd4, "conv_winograd4.cu",
        "part < parts; ++part, m +=", "part < 1; ++part, m +="),
    Bug("no barrier after copying the windows", depthwise, "conv_depthwise.cu",
        "    __syncthreads();  // the windows are complete\n", ""),
    Bug("the windows of channels beyond the last are read", depthwise, "conv_depthwise.cu",
        "min(width, depth - first_channel) * taps", "width * taps"),
    Bug("pixels outside the map are stored", depthwise, "conv_depthwise.cu",
        "if (!inside({{first.axis[0], first.axis[1] + j, first.axis[2] + q}}, to)) continue;", ""),
    Bug("rows above the map are read", depthwise, "depthwise.cuh",
        "(unsigned)input < (unsigned)g.input[a]", "input < g.input[a]"),
    Bug("the window not turned", depthwise_dgrad, "conv_depthwise.cu",
        "turned ? taps - 1 - tap : tap", "tap"),
    Bug("tiles begin at the wrong phase", depthwise_dgrad, "conv_depthwise.cu",
        "(TRANSPOSED && TAPS ? g.pad[2] % STRIDE : 0)", "0"),
    Bug("taps are summed too early", depthwise_wgrad, "conv_depthwise_wgrad.cu",
        "        __syncthreads();  // every slot is there\n", ""),
    Bug("taps are overwritten too early", depthwise_wgrad, "conv_depthwise_wgrad.cu",
        "        __syncthreads();  // the row before has been added up\n", ""),
    Bug("no barrier after copying the weights", grouped, "conv_grouped.cu",
        "        __syncthreads();  // the weights are complete\n", ""),
    Bug("no barrier before the next weights", grouped, "conv_grouped.cu",
        "        __syncthreads();  // everyone has read the weights before\n", ""),
    Bug("rows below the map are stored", grouped, "conv_grouped.cu",
        "if (tile.row + j >= g.output[0]) break;", ""),
    Bug("filters of the next group", grouped, "conv_grouped.cu",
        "if (slice.filter + k < g.group_filters) y[", "y["),
    Bug("the weights not turned", grouped, "conv_grouped.cu", "turned ? taps - 1 - tap : tap",
        "tap"),
    Bug("gradients below the map are counted", grouped_wgrad, "conv_grouped_wgrad.cu",
        "tile.row + j < g.output[0] && k < filters", "k < filters"),
    Bug("a channel is summed too early", grouped_wgrad, "conv_grouped_wgrad.cu",
        "            __syncthreads();  // the channel before has been added up\n", ""),
    Bug("the tree starts below its height", grouped_wgrad, "conv_grouped_wgrad.cu",
        "while (top < slots)", "while (2 * top < slots)"),
    Bug("no barrier before the parts are added", depthwise_wgrad, "split_sum.cu",
        "        __syncthreads();  // every part is there\n", ""),
    Bug("a split's last part left out", depthwise_wgrad, "split_sum.cu", "other < parts;",
        "other < parts - 1;"),
    Bug("the patch is read too early", conv_pool, "conv_direct.cu",
        "        __syncthreads();  // the patch and the weights are complete\n", ""),
    Bug("the patch is overwritten too early", conv_pool, "conv_direct.cu",
        "        __syncthreads();  // everyone has read the patch; it may be overwritten\n", ""),
    Bug("columns left of the map are read", conv_pool, "direct.cuh",
        "(unsigned)along < (unsigned)of_row", "along < of_row"),
    Bug("the weights of filters beyond the last are read", conv_pool, "conv_direct.cu",
        "first_filter + filter < g.filters ? widen(w[i]) : 0", "widen(w[i])"),
    Bug("outputs below the map count", conv_pool, "conv_direct.cu", "(i < 2 || below) && ", ""),
    Bug("the last of equal outputs is chosen", conv_pool, "conv_direct.cu", "value <= largest",
        "value < largest"),
    Bug("a gradient passes what ReLU has cut", conv_pool, "conv_direct.cu",
        "relu && !(largest > 0) ? 4 : chosen", "chosen"),
    Bug("the patch of a gradient is overwritten too early", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "        __syncthreads();  // everyone has read the patch; it may be overwritten\n", ""),
    Bug("slots are summed too early", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "        __syncthreads();  // every slot is there\n", ""),
    Bug("every channel is the first", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "patch + unit * CHANNELS * g.plane", "patch"),
    Bug("dy goes to the row above", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "place == row % 2 * 2 + 1", "place == 1"),
    Bug("the bias gets what nobody chose", conv_pool_wgrad, "conv_direct_wgrad.cu",
        " && place < 4) bias_sums", ") bias_sums"),
    Bug("the rows below the map are summed", conv_pool_wgrad, "conv_direct_wgrad.cu",
        "min(2 * g.quads[0], g.output[0] - 2 * tile.row)", "2 * g.quads[0] + 2"),
]  # fmt: skip
