"""Bugs in the convolutions on tensor cores by mma.sync."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpucnn.backends.base import NormOnLoad
from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Problem
from gpucnn.backends.cuda.algorithms.mma_tiles import SMALL
from gpucnn.shapes import ConvShape, NormShape
from tests import reference
from tests.cases import as_tf32
from tests.cases import random as draw
from tests.operations.conftest import poisoned
from tests.operations.test_algorithms import ROUNDINGS
from tests.planted_bugs.common import Bug, epilogues, masks, quads
from tests.tolerance import assert_close as close

HALVES = ConvShape.of(
    (1, 9, 10, 176), (44, 3, 2, 88), strides=(2, 1), padding=((1, 0), (1, 2)), dilation=(1, 2),
    groups=2,
)  # fmt: skip


def by_mma(
    backend: CudaBackend, direction: str, s: ConvShape, dtype: str = "float16",
    math_mode: str = "strict",
) -> None:  # fmt: skip
    """Multiply on tensor cores, in whole sums and in split ones; forward with ReLU."""
    forward = direction == "fprop"
    source, b = (
        draw(name, shape, dtype)
        for name, shape in zip(
            ("source", "b"), ((s.x_shape, (s.filters,)) if forward else (s.y_shape, (s.channels,))),
            strict=True,
        )
    )  # fmt: skip
    w, solve = draw("w", s.w_shape, dtype), getattr(reference, f"conv_{direction}")
    taken = [as_tf32(a) if math_mode == "tf32" else a for a in (source, w)] + [b]
    expected, terms = (solve(*a, s) for a in (taken, map(np.abs, taken)))
    problem = Problem(direction, s, dtype, "relu" if forward else "linear", math=math_mode)
    roundings = 529 * ROUNDINGS.get(math_mode, 1)
    for plan in ALGORITHMS["mma"].plans(problem):
        if (plan.settings.tile.m, plan.settings.tile.n) == (64, 64):
            with poisoned(np):
                got = ALGORITHMS["mma"].run(backend, problem, plan, source, w, b)
            want = np.maximum(expected, 0) if forward else expected
            close(got, want, dtype=dtype, reduction=roundings, magnitude=terms, what=str(plan))


def fprop_f16(backend: CudaBackend) -> None:
    by_mma(backend, "fprop", HALVES)
    by_mma(backend, "fprop", replace(HALVES, channels=128))  # slabs of one tap each


def dgrad_f16(backend: CudaBackend) -> None:
    by_mma(backend, "dgrad", replace(HALVES, channels=48, filters=176))


def fprop_tf32(backend: CudaBackend) -> None:
    by_mma(backend, "fprop", HALVES, "float32", "tf32")


def dgrad_tf32(backend: CudaBackend) -> None:
    shape = replace(HALVES, channels=96, filters=40)
    by_mma(backend, "dgrad", shape, "float32", "tf32")


def fprop_fp32x3(backend: CudaBackend) -> None:
    by_mma(backend, "fprop", HALVES, "float32", "fp32x3")


def padded_f16(backend: CudaBackend) -> None:
    """Channels and filters of a group that are no multiple of 8."""
    s, algorithm = replace(HALVES, channels=38), ALGORITHMS["mma_padded"]
    dy, w, b = (
        draw(name, shape, np.float16)
        for name, shape in (("dy", s.y_shape), ("w", s.w_shape), ("b", (38,)))
    )
    expected, terms = (reference.conv_dgrad(*a, s) for a in ((dy, w, b), map(np.abs, (dy, w, b))))
    problem = Problem("dgrad", s, "float16")
    (plan,) = algorithm.plans(problem)
    with poisoned(np):
        got = algorithm.run(backend, problem, plan, dy, w, b)
    close(got, expected, dtype=np.float16, reduction=133, magnitude=terms)


def epilogue_f16(backend: CudaBackend) -> None:
    small = lambda plan: plan.settings.tile == SMALL and plan.grid[2] == 1  # noqa: E731
    epilogues(backend, "mma", HALVES, np.float16, small)


def quads_f16(backend: CudaBackend) -> None:
    quads(backend, "mma", ConvShape.of((2, 11, 10, 16), (44, 3, 2, 8), padding=1, groups=2), SMALL)


def masks_f16(backend: CudaBackend) -> None:
    """Filters of a group and pixels that end inside a tile; in whole sums, and in splits."""
    masks(backend, "mma", replace(HALVES, filters=80), SMALL)


def mma_wgrad(backend: CudaBackend, dtype: str = "float16", math_mode: str = "strict") -> None:
    """Two groups whose weights and filters end inside a tile, in splits of several slabs."""
    shape = ConvShape.of(
        (3, 10, 11, 32), (48, 3, 2, 16), strides=(1, 2), padding=((1, 0), (1, 2)), dilation=(2, 1),
        groups=2,
    )  # fmt: skip
    problem, algorithm = Problem("wgrad", shape, dtype, math=math_mode), ALGORITHMS["mma_wgrad"]
    *_, plan = algorithm.plans(problem)  # the smallest tile
    assert plan.grid[2] > 1
    x, dy = (draw(n, s, dtype) for n, s in (("x", shape.x_shape), ("dy", shape.y_shape)))
    taken = [as_tf32(a) if math_mode == "tf32" else a for a in (x, dy)]
    dw, terms = (reference.conv_wgrad(*a, shape) for a in (taken, map(np.abs, taken)))
    with poisoned(np):
        got = algorithm.run(backend, problem, plan, x, dy)
    close(got, dw, dtype=dtype, reduction=147, magnitude=terms)


def wgrad_tf32(backend: CudaBackend) -> None:
    mma_wgrad(backend, "float32", "tf32")


def normed(backend: CudaBackend, direction: str, s: ConvShape) -> None:
    """Read x through a norm, in two splits; of zeros of channel 1 it would make infinities."""
    x, mean, var = (
        draw(name, size, np.float32, *ends)
        for name, size, ends in (("x", s.x_shape, (-2, 2)), ("mean", (s.channels,), (-1, 1)),
                                 ("var", (s.channels,), (0.1, 2)))
    )  # fmt: skip
    gamma, beta, w, dy = (
        draw(name, size, np.float16)
        for name, size in (("gamma", (s.channels,)), ("beta", (s.channels,)), ("w", s.w_shape),
                           ("dy", s.y_shape))
    )  # fmt: skip
    x[..., 1] += 128
    mean[1], var[1], gamma[1] = 128, 0, -100
    x, norm = x.astype(np.float16), NormOnLoad(gamma, beta, mean, var, 1e-3, "relu")
    z = backend.batch_norm_infer(x, *norm[:5], NormShape.of(s.x_shape), "relu")
    problem = Problem(direction, s, "float16", prologue=True)
    if direction == "fprop":
        name, arrays, given = "mma", (x, w, None), (z, w, np.zeros(s.filters))
    else:
        name, arrays, given = "mma_wgrad", (x, dy), (z, dy)
    algorithm, solve = ALGORITHMS[name], getattr(reference, f"conv_{direction}")
    want, terms = (solve(*each, s) for each in (given, map(np.abs, given)))
    *_, plan = (
        plan for plan in algorithm.plans(problem)
        if plan.settings.tile.norms and plan.settings.tile.m == 64
    )  # fmt: skip
    assert plan.grid[2] > 1
    with poisoned(np):
        got = backend.run_plan(problem, plan, *arrays, on_load=norm)
    close(got, want, dtype=np.float16, reduction=520, magnitude=terms)


def norm_fprop(backend: CudaBackend) -> None:
    normed(backend, "fprop", ConvShape.of((1, 5, 9, 520), (16, 1, 1, 520)))


def norm_wgrad(backend: CudaBackend) -> None:
    normed(backend, "wgrad", ConvShape.of((3, 7, 9, 24), (16, 1, 1, 24)))


NEXT_SYNC = (
    " " * 16 + "__syncthreads();  // the next slab is there, and everyone has read this one\n"
)

BUGS = [
    Bug("no barrier before the next slab is read", fprop_f16, "tile_mma.cuh", NEXT_SYNC, ""),
    Bug("a slab too many on its way", fprop_f16, "tile_mma.cuh", f"<STAGES - 2>();\n{NEXT_SYNC}",
        f"<STAGES - 1>();\n{NEXT_SYNC}"),
    Bug("the slab that is read is overwritten", fprop_f16, "tile_mma.cuh",
        "slab < STAGES - 1; ++slab", "slab < STAGES; ++slab"),
    Bug("the result overwrites a slab that is read", fprop_f16, "tile_mma.cuh",
        "    __syncthreads();  // everyone has read the last slab\n", ""),
    Bug("the quarters of A in the order of B", fprop_f16, "tile_mma.cuh",
        "8 * (FIRST ? quarter % 2 : quarter / 2)", "8 * (quarter / 2)"),
    Bug("the first half of the columns twice", dgrad_f16, "tensor_cores.cuh", "b[2 * half]",
        "b[0]"),
    Bug("floats are cut, not rounded", fprop_tf32, "tensor_cores.cuh", "= cvt_tf32(x);",
        "= loaded[q];"),
    Bug("a part of three left out", fprop_fp32x3, "tensor_cores.cuh",
        "    mma(sums, a.large, b.small, half);\n", ""),
    Bug("the small part of what is small", fprop_fp32x3, "tensor_cores.cuh",
        "x - __uint_as_float(factor.large[q])", "x"),
    Bug("the sums before a step forgotten", fprop_fp32x3, "tensor_cores.cuh", "d[e] += sums[e]",
        "d[e] = sums[e]"),
    Bug("words of the wrong half of the terms", dgrad_tf32, "tile_mma.cuh",
        "CHUNK * (FIRST ? q / 2 : q % 2)", "CHUNK * (q / 2)"),
    Bug("words of the same eight rows", dgrad_tf32, "tile_mma.cuh", "2 * i + (FIRST", "(FIRST"),
    Bug("words of another warp's rows", dgrad_tf32, "tile_mma.cuh",
        "first_row + 8 * i + lane / 4", "8 * i + lane / 4"),
    Bug("floats of pixels beyond the last", fprop_tf32, "conv_mma.cuh",
        "                if (target < 0) break;\n", ""),
    Bug("pixels of the wrong half of a step", wgrad_tf32, "conv_wgrad_mma.cu",
        "(pixel + q / 2 * CHUNK) * DY_ROW", "(pixel + q % 2 * CHUNK) * DY_ROW"),
    Bug("words beside their chunk", wgrad_tf32, "conv_wgrad_mma.cu", "lane / 4 % CHUNK * 4",
        "lane / 4 % CHUNK * 2"),
    Bug("the padding is read", fprop_f16, "conv_mma.cuh", "bits & tap.places ? 0 : 16", "16"),
    Bug("one bit for the taps of all axes", fprop_f16, "conv_mma.cuh", "first += counts(a);", ""),
    Bug("the terms of the next split", fprop_f16, "conv_fprop_mma.cu",
        "k < terms.end ? 16 : 0", "16"),
    Bug("the next channels skipped", fprop_f16, "conv_mma.cuh", "length - TILE_K;", "length;"),
    Bug("filters of the next group", fprop_f16, "conv_mma.cuh",
        "if (column + e < at.columns) to[e] = values.at[e];", "to[e] = values.at[e];"),
    Bug("the bias of the first group", fprop_f16, "conv_mma.cuh", "bias[first + 8 * j + e]",
        "bias[first - at.first + 8 * j + e]"),
    Bug("pixels beyond the last are stored", dgrad_f16, "conv_mma.cuh",
        "        if (target < 0) break;\n", ""),
    Bug("taps and outputs go the same way", dgrad_f16, "conv_dgrad_mma.cu",
        "-pixel(back, g.output)", "pixel(back, g.output)"),
    Bug("the weights of the class's tap number", dgrad_f16, "conv_dgrad_mma.cu",
        "along.first_tap + along.tap_step * back.axis[a]", "back.axis[a]"),
    Bug("the stride of a class forgotten", dgrad_f16, "conv_dgrad_mma.cu",
        "along.first_pixel + g.stride[a] * to.axis[a]", "along.first_pixel + to.axis[a]"),
    Bug("the padding of the next row", padded_f16, "pad_rows.cu",
        "if (chunk * CHUNK + e < width) values", "values"),
    Bug("the padding is not cut off", padded_f16, "pad_rows.cu",
        "if (chunk * CHUNK + e < width) y[", "y["),
    Bug("the last of equal outputs is chosen", quads_f16, "quads.cuh", "other <= value[e]",
        "other < value[e]"),
    Bug("a number behind a NaN wins", quads_f16, "quads.cuh", "value[e] == value[e] && ", ""),
    Bug("a gradient passes what ReLU has cut", quads_f16, "quads.cuh",
        "relu && !(value[e] > 0) ? PLACES : place[e]", "place[e]"),
    Bug("maxima of the next group", quads_f16, "quads.cuh", "if (e >= exist) break;\n", "\n"),
    Bug("a lane's bits are the first lane's", masks_f16, "conv_mma.cuh", "bits <<= 2 * own;", ""),
    Bug("half of the lanes' bits", masks_f16, "conv_mma.cuh",
        "            bits |= __shfl_xor_sync(~0u, bits, 2);\n", ""),
    Bug("the byte of the first eight columns", masks_f16, "conv_mma.cuh",
        "bits >> (own * OCTET)", "bits"),
    Bug("bits of pixels beyond the last", masks_f16, "conv_mma.cuh", "if (target >= 0 && ", "if ("),
    Bug("bits of filters of the next group", masks_f16, "conv_mma.cuh",
        "if (target >= 0 && column < at.columns)", "if (target >= 0)"),
    Bug("half a byte of split sums", masks_f16, "split_sum.cu",
        "        bits |= __shfl_xor_sync(3u << (threadIdx.x % 32 & ~1), bits, 1);\n", ""),
    Bug("windows of one row", quads_f16, "conv_fprop_mma.cu", "(rows + pair % 2)", "rows"),
    Bug("a slab is multiplied before it is there", mma_wgrad, "conv_wgrad_mma.cu",
        "cp_async_wait<STAGES - 2>", "cp_async_wait<STAGES - 1>"),
    Bug("no barrier between slabs", mma_wgrad, "conv_wgrad_mma.cu",
        "                __syncthreads();  // the next slab is complete, this one has been read\n",
        ""),
    Bug("no barrier before the first slab", mma_wgrad, "conv_wgrad_mma.cu",
        "    __syncthreads();  // the first slab is complete\n", ""),
    Bug("the slab that comes next is overwritten", mma_wgrad, "conv_wgrad_mma.cu",
        "copies.start(read)", "copies.start(stages + now)"),
    Bug("the part being multiplied is overwritten", mma_wgrad, "conv_wgrad_mma.cu",
        "parts[1 - i].load(", "parts[i].load("),
    Bug("splits overlap", mma_wgrad, "conv_wgrad_mma.cu",
        "min(k_begin + pixels_per_split, ", "max(k_begin + pixels_per_split, "),
    Bug("pixels beyond the split's last are summed", mma_wgrad, "conv_wgrad_mma.cu",
        "exists = k + j * STEP < k_end", "exists = true"),
    Bug("filters beyond the last are read", mma_wgrad, "conv_wgrad_mma.cu",
        "exists && filter_exists[i]", "exists"),
    Bug("filters beyond the last are stored", mma_wgrad, "conv_wgrad_mma.cu",
        "local < g.group_filters && m < m_end", "m < m_end"),
    Bug("weights beyond the last are stored", mma_wgrad, "conv_wgrad_mma.cu",
        "local < g.group_filters && m < m_end", "local < g.group_filters"),
    Bug("a neighbour's weights stored in the wrong place", mma_wgrad, "conv_wgrad_mma.cu",
        "(j + odd) * 8", "j * 8"),
    Bug("the padding is read", mma_wgrad, "conv_wgrad_mma.cu", "inside(at, g.input) ? 16 : 0",
        "16"),
    Bug("pixels and filters of the fragments swapped", mma_wgrad, "conv_wgrad_mma.cu",
        "lane / 16 * 8 + lane % 8, warp_filter() / 8 + 2 * i + lane / 8 % 2",
        "lane / 8 % 2 * 8 + lane % 8, warp_filter() / 8 + 2 * i + lane / 16"),
    Bug("every warp takes the first weights", mma_wgrad, "conv_wgrad_mma.cu",
        "return threadIdx.x / 32 % (TILE_M / WARP_M) * WARP_M;", "return 0;"),
    Bug("the first split's channels", norm_fprop, "conv_fprop_mma.cu",
        "begin + slab * TILE_K", "slab * TILE_K"),
    Bug("a neighbour's channels", norm_fprop, "conv_fprop_mma.cu", "of(q / 2 * 2 + 1)",
        "of(q / 2 * 2)"),
    Bug("what ReLU cuts is read", norm_wgrad, "pairs.cuh", "max_nan_f16x2(pair, lowest)", "pair"),
    Bug("pixels that do not exist are normalised", norm_wgrad, "conv_wgrad_mma.cu",
        " & (q % 2 ? far : near)", ""),
    Bug("channels eight further", norm_wgrad, "conv_wgrad_mma.cu", "of[2 * j + q / 2]",
        "of[2 * j + q % 2]"),
    Bug("moments of what was not stored", epilogue_f16, "epilogue.cuh", "widen(narrow(value))",
        "value"),
    Bug("moments of some of a warp's rows", epilogue_f16, "conv_mma.cuh", "<4 + 8 + 16>",
        "<4 + 8>"),
    Bug("the residual of the first column", epilogue_f16, "conv_mma.cuh",
        "+ first + 8 * j, exist", "+ first, exist"),
]  # fmt: skip
