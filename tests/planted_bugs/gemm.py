"""Bugs in the implicit GEMM of ordinary multiply-adds, and of doubles on tensor cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.backends.cuda.algorithms.ladder import TILED
from gpucnn.backends.cuda.algorithms.tiles import NARROW, PLAIN, THIN
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import in_layout
from tests.cases import random as draw
from tests.planted_bugs.common import Bug, assert_close, epilogues, random, through
from tests.tolerance import assert_close as close

CONV = ConvShape.of(
    (2, 10, 9, 36), (34, 3, 2, 18), strides=(2, 1), padding=((1, 0), (1, 2)), dilation=(1, 2),
    groups=2,
)  # fmt: skip
VECTORS = ConvShape.of((2, 9, 7, 16), (24, 3, 3, 16), padding=((1, 0), (2, 1)))
NARROW_MAP = replace(CONV, channels_last=False)


def implicit_gemm(
    backend: CudaBackend, direction: str, shape: ConvShape, *arrays, splits: bool = False
) -> np.ndarray:
    """Run the implicit GEMM for any sizes, with the narrow tile, whole sums or split ones."""
    problem, gemm = Problem(direction, shape, "float32"), ALGORITHMS["implicit_gemm"]
    (plan,) = (
        plan for plan in gemm.plans(problem)
        if plan.settings.tile == NARROW and (plan.grid[2] > 1) == splits
    )  # fmt: skip
    return gemm.run(backend, problem, plan, *arrays)


def fprop(backend: CudaBackend) -> None:
    x, w, b = (random(n, s) for n, s in (("x", CONV.x_shape), ("w", CONV.w_shape), ("b", (34,))))
    y = reference.conv_fprop(x, w, b, CONV)
    terms = reference.conv_fprop(*map(np.abs, (x, w, b)), CONV)
    got = implicit_gemm(backend, "fprop", CONV, x, w, b)
    assert_close(got, y, reduction=109, magnitude=terms)


def fprop_nchw(backend: CudaBackend) -> None:
    x, w = random("x", CONV.x_shape), random("w", CONV.w_shape)
    y, terms = (
        in_layout(reference.conv_fprop(*a, None, CONV), False)
        for a in ((x, w), (np.abs(x), np.abs(w)))
    )
    got = implicit_gemm(backend, "fprop", NARROW_MAP, in_layout(x, False), w, None)
    assert_close(got, y, reduction=108, magnitude=terms)


def dgrad(backend: CudaBackend) -> None:
    dy, w = random("dy", CONV.y_shape), random("w", CONV.w_shape)
    dx = reference.conv_dgrad(dy, w, None, CONV)
    terms = reference.conv_dgrad(np.abs(dy), np.abs(w), None, CONV)
    got = implicit_gemm(backend, "dgrad", CONV, dy, w, None)
    assert_close(got, dx, reduction=102, magnitude=terms)


def wgrad(backend: CudaBackend) -> None:
    shape = replace(CONV, batch=20)
    x, dy = random("x", shape.x_shape), random("dy", shape.y_shape)
    dw = reference.conv_wgrad(x, dy, shape)
    terms = reference.conv_wgrad(np.abs(x), np.abs(dy), shape)
    got = implicit_gemm(backend, "wgrad", shape, x, dy, splits=True)
    assert_close(got, dw, reduction=1000, magnitude=terms)


def tiled(backend: CudaBackend) -> None:
    """The ladder's second rung."""
    s = replace(CONV, groups=1)
    x, w = random("x", s.x_shape), random("w", s.w_shape)
    y, terms = (reference.conv_fprop(*a, None, s) for a in ((x, w), (np.abs(x), np.abs(w))))
    problem = Problem("fprop", s, "float32")
    got = TILED.run(backend, problem, *TILED.plans(problem), x, w, None)
    assert_close(got, y, reduction=216, magnitude=terms)


def on_tensor_cores(backend: CudaBackend, direction: str, expected: np.ndarray, *arrays) -> None:
    problem = Problem(direction, CONV, "float64")
    for plan in ALGORITHMS["dmma"].plans(problem):
        got = ALGORITHMS["dmma"].run(backend, problem, plan, *arrays)
        close(got, expected, dtype=np.float64, reduction=108, magnitude=108 * np.ones(got.shape))


def fprop_f64(backend: CudaBackend) -> None:
    x, w = draw("x", CONV.x_shape, np.float64), draw("w", CONV.w_shape, np.float64)
    on_tensor_cores(backend, "fprop", reference.conv_fprop(x, w, None, CONV), x, w, None)


def wgrad_f64(backend: CudaBackend) -> None:
    x, dy = draw("x", CONV.x_shape, np.float64), draw("dy", CONV.y_shape, np.float64)
    on_tensor_cores(backend, "wgrad", reference.conv_wgrad(x, dy, CONV), x, dy)


def gathered(backend: CudaBackend, channels_last: bool, wanted: Callable[[Plan], bool]) -> None:
    """Run the plans of the implicit GEMM that are wanted, with a bias and ReLU."""
    shape, gemm = replace(VECTORS, channels_last=channels_last), ALGORITHMS["implicit_gemm"]
    x, w, b = random("x", VECTORS.x_shape), random("w", VECTORS.w_shape), random("b", (24,))
    y = np.maximum(reference.conv_fprop(x, w, b, VECTORS), 0)
    terms = reference.conv_fprop(*map(np.abs, (x, w, b)), VECTORS)
    x, y, terms = (in_layout(a, channels_last) for a in (x, y, terms))
    problem = Problem("fprop", shape, "float32", "relu")
    plans = [plan for plan in gemm.plans(problem) if wanted(plan)]
    assert plans
    for plan in plans:
        got = gemm.run(backend, problem, plan, x, w, b)
        assert_close(got, y, reduction=145, magnitude=terms)


def vectors(backend: CudaBackend) -> None:
    gathered(backend, True, lambda plan: plan.settings.tile.vector_n > 1 and plan.grid[2] == 1)


def thin(backend: CudaBackend) -> None:
    gathered(backend, True, lambda plan: plan.settings.tile == THIN and plan.grid[2] == 1)


def split_sums(backend: CudaBackend) -> None:
    gathered(backend, False, lambda plan: plan.settings.tile == PLAIN and plan.grid[2] > 1)


def epilogue(backend: CudaBackend) -> None:
    narrow = lambda plan: plan.settings.tile == NARROW and plan.grid[2] == 1  # noqa: E731
    epilogues(backend, "implicit_gemm", replace(CONV, batch=3), np.float32, narrow)


def dgrad_through(backend: CudaBackend) -> None:
    narrow = lambda plan: plan.settings.tile == NARROW and plan.grid[2] == 1  # noqa: E731
    through(backend, "implicit_gemm", CONV, np.float32, narrow)


SLAB_SYNC = "__syncthreads();  // the slab is complete, and everyone has read the one before\n"

BUGS = [
    Bug("no barrier after filling the slab", fprop, "tile_gemm.cuh", SLAB_SYNC, ""),
    Bug("the next slab takes the place of this one", fprop, "tile_gemm.cuh", "now ^= 1) {",
        "now ^= 0) {"),
    Bug("one step beyond the slab's half", fprop, "tile_fma.cuh", "k < END; ++k", "k <= END; ++k"),
    Bug("the last slab is not fetched", dgrad, "tile_gemm.cuh", "next = k0 + TILE_K",
        "next = k0 + 2 * TILE_K"),
    Bug("the second half of a vector between the columns", thin, "tile_gemm.cuh",
        "Slab<TILE>::column(e)", "e * (TILE + 4)"),
    Bug("a vector of one number", thin, "neighbours.cuh", "widen(loaded.at[e])",
        "widen(loaded.at[0])"),
    Bug("the runs of a thread's rows side by side", vectors, "tile_fma.cuh",
        "i / run * (TILE / SHARE * run)", "i / run * run"),
    Bug("a slab is read while it is on its way", vectors, "tile_gemm_async.cuh",
        "cp_async_wait<SLABS - 2>", "cp_async_wait<SLABS - 1>"),
    Bug("no barrier behind the copies", vectors, "tile_gemm_async.cuh",
        "__syncthreads();  // everyone's copies", "// everyone's copies"),
    Bug("the padding is copied", vectors, "tile_gemm_async.cuh", "source.exists ? 16 : 0",
        "16"),
    Bug("the places of a line not exchanged", vectors, "tile_gemm_async.cuh", "(first ^ quad)",
        "(first + quad)"),
    Bug("every tile copies the first rows", vectors, "tile_gemm_async.cuh", "row0 + i * STEP",
        "i * STEP"),
    Bug("the slab is filled while others read it", tiled, "ladder_tiled.cu",
        "                __syncthreads();  // everyone has read them\n", ""),
    Bug("every thread sums for the filter that it loaded", tiled, "ladder_tiled.cu",
        "w_slab[across][i]", "w_slab[down][i]"),
    Bug("every split sums from the start", split_sums, "conv_fprop.cu",
        "k_begin = blockIdx.z * k_per_split", "k_begin = 0"),
    Bug("the bias of the pixel, not of the channel", split_sums, "split_sum.cu",
        "divide(divide((unsigned)(i + e), by_inner), by_channels, channel)",
        "divide((unsigned)(i + e), by_channels, channel)"),
    Bug("ReLU forgotten behind the splits", split_sums, "split_sum.cu",
        "        epilogue.activate(sums);\n", ""),
    Bug("rows and columns of the corner swapped", wgrad, "tile_fma.cuh",
        "a_column[i] * b_column[j]", "a_column[j] * b_column[i % THREAD_N]"),
    Bug("columns of mma.sync apart, not in pairs", fprop_f64, "tile_mma_f64.cuh",
        "threadIdx.x % 4 * 2 + j % 2", "threadIdx.x % 4 + j % 2 * 4"),
    Bug("every warp takes the first rows", fprop_f64, "tile_mma_f64.cuh",
        "return warp_row() + i * 8", "return i * 8"),
    Bug("the steps along k of one operand only", wgrad_f64, "tile_mma_f64.cuh",
        "b.at(k + 4 * q + t,", "b.at(k + q + 4 * t,"),
    Bug("columns of the slab overlap", wgrad_f64, "tile_mma_f64.cuh", "k * (TILE + 4) + k / 4; }",
        "k * (TILE - 4) + k / 4; }"),
    Bug("bounds of the input off by one", fprop, "spatial.cuh",
        "(unsigned)at.axis[a] < (unsigned)size[a]", "(unsigned)at.axis[a] <= (unsigned)size[a]"),
    Bug("channels last taken for channels first", fprop_nchw, "conv_geometry.cuh",
        "channel * pixels + pixel", "pixel * depth + channel"),
    Bug("padding added, not subtracted", fprop, "conv_geometry.cuh", "* g.stride[a] - g.pad[a]",
        "* g.stride[a] + g.pad[a]"),
    Bug("the group's channels start at 0", fprop, "conv_geometry.cuh",
        "first_channel + channel", "channel"),
    Bug("pixels beyond the last are stored", fprop, "conv_fprop.cu",
        "if (m >= m_end) break;", ""),
    Bug("the bias of the wrong filter", fprop, "conv_fprop.cu", "widen(bias[k])",
        "widen(bias[local])"),
    Bug("the taps of a class begin at the window's first", dgrad, "conv_dgrad.cu",
        "residue.axis[a].first_tap + ", ""),
    Bug("the pixels of a class lie side by side", dgrad, "conv_dgrad.cu",
        "g.stride[a] * at.axis[a]", "at.axis[a]"),
    Bug("the smaller classes stored to their tile's end", dgrad, "conv_dgrad.cu",
        "if (m >= m_end) break;", ""),
    Bug("the residues of the wrong axis", dgrad, "residues.cuh", "first += g.stride[a];",
        "first += 1;"),
    Bug("the dilation forgotten", fprop, "conv_geometry.cuh",
        "tap.distance.axis[a] *= g.dilation[a];", ""),
    Bug("the tail of K read", fprop, "conv_fprop.cu", "k < k_end};", "true};"),
    Bug("splits overlap", wgrad, "conv_wgrad.cu", "min(k_begin + pixels_per_split, all_pixels)",
        "all_pixels"),
    Bug("a split left out of the sum", wgrad, "split_sum.cu", "z < splits", "z < splits - 1"),
    Bug("the tail of the sum unchecked", wgrad, "split_sum.cu", "    if (i >= count) return;\n",
        ""),
    Bug("the shift of the division dropped", fprop, "divisor.cuh", ") >> d.shift", ") >> 1"),
    Bug("the residual replaces the sum", epilogue, "epilogue.cuh", "return sum + other;",
        "return other;"),
    Bug("the ceiling of the ReLU before forgotten", dgrad_through, "epilogue.cuh",
        "y > 0 && !(y >= number) ? sum", "y > 0 ? sum"),
    Bug("the slope of the ReLU before forgotten", dgrad_through, "epilogue.cuh",
        "sum : number * sum", "sum : 0 * sum"),
    Bug("the derivative where another number lies", dgrad_through, "conv_dgrad.cu",
        "join_residual<WIDTH>(values.at, to)", "join_residual<WIDTH>(values.at, to / 2)"),
    Bug("only half of the sums go through the curve", epilogue, "epilogue.cuh", "done += RUN",
        "done += 2 * RUN"),
    Bug("moments about zero", epilogue, "epilogue.cuh",
        "        if (count == 0) pivot = stored;\n", ""),
    Bug("moments of rows beyond the last", epilogue, "conv_fprop.cu",
        "if (tile.row0 + thread_row(i) < m_end) of_thread", "of_thread"),
]  # fmt: skip
