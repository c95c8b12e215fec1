"""Bugs in the convolutions on Hopper's own tensor-core instructions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Problem, wgmma_tiles, wgmma_wgrad
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import as_tf32
from tests.cases import random as draw
from tests.operations.conftest import poisoned
from tests.planted_bugs.common import Bug, epilogues, masks, quads, through
from tests.tolerance import assert_close as close


def on_hopper(
    backend: CudaBackend, direction: str, s: ConvShape, tile: wgmma_tiles.Tile, dtype=np.float16
) -> None:
    """Multiply by wgmma with this tile, one block or cluster, which has all; forward with ReLU."""
    forward = direction == "fprop"
    sizes = (s.x_shape, s.w_shape, (s.filters,)) if forward else (s.y_shape, s.w_shape, (72,))
    arrays = [draw(f"{i}", size, dtype) for i, size in enumerate(sizes)]
    if dtype == np.float32:  # whose products TF32 has whole
        arrays[:2] = [as_tf32(a) for a in arrays[:2]]
    solve = getattr(reference, f"conv_{direction}")
    algorithm = ALGORITHMS["wgmma" if forward or s.strides == (1, 1) else "wgmma_dgrad"]
    expected, terms = solve(*arrays, s), solve(*map(np.abs, arrays), s)
    activation = "relu" if forward else "linear"
    problem = Problem(direction, s, np.dtype(dtype).name, activation, math="tf32")
    plans = [plan for plan in algorithm.plans(problem) if plan.settings.tile == tile]
    assert plans
    for plan in plans:
        plan = replace(plan, grid=(tile.cluster, 1, 1))
        with poisoned(np):
            got = algorithm.run(backend, problem, plan, *arrays)
        want = np.maximum(expected, 0) if forward else expected
        close(got, want, dtype=dtype, reduction=649, magnitude=terms, what=str(plan))


def epilogue_by_tma(backend: CudaBackend) -> None:
    """Two tiles, each in two passes by turns in two buffers."""
    shape = ConvShape.of((1, 15, 14, 64), (72, 1, 1, 64))
    even = lambda plan: plan.settings.tile == wgmma_tiles.EVEN  # noqa: E731
    epilogues(backend, "wgmma", shape, np.float16, even)


def gathered_by_tma(backend: CudaBackend) -> None:
    """In whole sums and in splits."""
    shape = ConvShape.of(
        (1, 9, 10, 72), (72, 3, 2, 72), strides=(2, 1), padding=((2, 0), (1, 2)), dilation=(1, 2)
    )
    on_hopper(backend, "fprop", shape, wgmma_tiles.SMALL)


def gathered_in_turns(backend: CudaBackend) -> None:
    on_hopper(backend, "fprop", ConvShape.of((3, 13, 14, 264), (136, 1, 1, 264)), wgmma_tiles.TURNS)


def gathered_by_cluster(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 9, 11, 72), (72, 3, 2, 72), padding=((2, 0), (1, 2)))
    on_hopper(backend, "fprop", shape, wgmma_tiles.SOLO_CLUSTER)


def patches_by_cluster(backend: CudaBackend) -> None:
    """Three images, of which the second cluster has one; a residual, and moments."""
    shape = ConvShape.of((3, 7, 6, 64), (136, 3, 3, 64), padding=((1, 0), (1, 2)))
    low = lambda plan: plan.settings.tile == wgmma_tiles.LOW_CLUSTER  # noqa: E731
    epilogues(backend, "wgmma", shape, np.float16, low)


def dgrad_by_tma(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 7, 9, 72), (72, 2, 3, 72), padding=((1, 2), (0, 1)))
    on_hopper(backend, "dgrad", shape, wgmma_tiles.SMALL)


def dgrad_in_tf32(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 7, 9, 72), (72, 2, 3, 72), padding=((1, 2), (0, 1)))
    on_hopper(backend, "dgrad", shape, wgmma_tiles.SMALL, np.float32)


def strided_dgrad_by_tma(backend: CudaBackend) -> None:
    """In whole sums and in splits; classes of several sizes and numbers of taps."""
    shape = ConvShape.of(
        (1, 11, 13, 72), (72, 3, 4, 72), strides=(2, 3), padding=((2, 0), (1, 2)), dilation=(1, 2)
    )
    on_hopper(backend, "dgrad", shape, wgmma_tiles.SMALL)


def strided_dgrad_in_tf32(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 6, 7, 72), (72, 1, 1, 72), strides=2)
    on_hopper(backend, "dgrad", shape, wgmma_tiles.SMALL, np.float32)


def dgrad_through(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 7, 9, 72), (72, 2, 3, 72), padding=((1, 2), (0, 1)))
    small = lambda plan: plan.settings.tile == wgmma_tiles.SMALL and plan.settings.splits == 1  # noqa: E731
    through(backend, "wgmma", shape, np.float16, small)


def strided_dgrad_through(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 6, 7, 136), (72, 1, 1, 136), strides=2)
    small = lambda plan: plan.settings.tile == wgmma_tiles.SMALL and plan.settings.splits == 1  # noqa: E731
    through(backend, "wgmma_dgrad", shape, np.float16, small)


def patches_by_tma(backend: CudaBackend) -> None:
    shape = ConvShape.of((1, 30, 10, 136), (64, 2, 2, 136), padding=((1, 1), (1, 0)))
    on_hopper(backend, "fprop", shape, wgmma_tiles.FLAT)


def patches_of_two_images(backend: CudaBackend) -> None:
    shape = ConvShape.of((5, 6, 6, 64), (64, 3, 3, 64), padding=((1, 1), (1, 0)))
    on_hopper(backend, "fprop", shape, wgmma_tiles.PAIR)


def quads_by_tma(backend: CudaBackend) -> None:
    s = ConvShape.of((1, 32, 10, 64), (72, 3, 3, 64), padding=((1, 0), (1, 1)))
    quads(backend, "wgmma", s, wgmma_tiles.TWIN)


def quads_by_cluster(backend: CudaBackend) -> None:
    """One image, of which the cluster's second block has none."""
    s = ConvShape.of((1, 8, 8, 64), (72, 3, 3, 64), padding=1)
    quads(backend, "wgmma", s, wgmma_tiles.LOW_CLUSTER)


def masks_by_tma(backend: CudaBackend) -> None:
    """Two tiles, and splits; pixels and filters that end inside a tile."""
    s = ConvShape.of((1, 15, 14, 264), (72, 2, 1, 264), padding=((0, 1), (0, 0)))
    masks(backend, "wgmma", s, wgmma_tiles.SMALL)


def masks_of_patches(backend: CudaBackend) -> None:
    """Two tiles, each in seven passes that take one buffer."""
    s = ConvShape.of((1, 32, 10, 64), (72, 3, 3, 64), padding=((1, 0), (1, 1)))
    masks(backend, "wgmma", s, wgmma_tiles.TWIN)


def masks_of_two_images(backend: CudaBackend) -> None:
    s = ConvShape.of((3, 6, 6, 64), (64, 3, 3, 64), padding=((1, 1), (1, 0)))
    masks(backend, "wgmma", s, wgmma_tiles.PAIR)


def wgrad_on_hopper(backend: CudaBackend, s: ConvShape, tile: wgmma_wgrad.Tile) -> None:
    """Multiply float16 by wgmma with this tile: one split, whose stages go round, and several."""
    problem, algorithm = Problem("wgrad", s, "float16"), ALGORITHMS["wgmma_wgrad"]
    plans = [plan for plan in algorithm.plans(problem) if plan.settings.tile == tile]
    assert {plan.grid[2] > 1 for plan in plans} == {True, False}
    x, dy = (draw(n, size, np.float16) for n, size in (("x", s.x_shape), ("dy", s.y_shape)))
    dw, terms = (reference.conv_wgrad(*a, s) for a in ((x, dy), (np.abs(x), np.abs(dy))))
    count = s.batch * math.prod(s.output)
    for plan in plans:
        with poisoned(np):
            got = algorithm.run(backend, problem, plan, x, dy)
        close(got, dw, dtype=np.float16, reduction=count, magnitude=terms, what=str(plan))


def wgrad_gathered_by_tma(backend: CudaBackend) -> None:
    shape = ConvShape.of(
        (2, 27, 19, 136), (72, 1, 3, 136), strides=(1, 2), padding=((1, 0), (1, 2)),
        dilation=(1, 2),
    )  # fmt: skip
    wgrad_on_hopper(backend, shape, wgmma_wgrad.SMALL)


def wgrad_of_patches(backend: CudaBackend) -> None:
    shape = ConvShape.of((2, 15, 40, 72), (72, 3, 3, 72), padding=((1, 2), (2, 0)))
    wgrad_on_hopper(backend, shape, wgmma_wgrad.PATCH)


BUGS = [
    Bug("places by columns", quads_by_tma, "conv_wgmma_patch.cu", "+ place / 2) * COLUMNS",
        "+ place % 2) * COLUMNS"),
    Bug("the pass is overwritten while it is pooled", quads_by_tma, "wgmma.cuh",
        "sync();  // TMA has read", "// TMA has read"),
    Bug("the next residual over a pass that is read", masks_by_tma, "wgmma.cuh",
        "if (residual) sync();  // everyone has read", "// everyone has read"),
    Bug("bits of pixels beyond the last", masks_by_tma, "wgmma.cuh",
        " || !exists(of_pixels + pixel)", ""),
    Bug("bits of filters beyond the last", masks_by_tma, "wgmma.cuh", "own >= filters || ", ""),
    Bug("the chunks of a pixel as they lay before the swizzle", masks_by_tma, "wgmma.cuh",
        "% 8 ^ pixel % 8;", "% 8;"),
    Bug("bits of the first pass again", masks_of_patches, "wgmma.cuh",
        "number(of_pixels + pixel) *", "number(pixel) *"),
    Bug("bits of rows of the second image behind the first's", masks_of_two_images,
        "conv_wgmma_patch.cu", " - later * PATCH_ROWS, column",
        ", column"),
    Bug("bits of the first image again", masks_of_two_images, "conv_wgmma_patch.cu",
        "{image + later, row", "{image, row"),
    Bug("a stage is refilled before it has been read", gathered_by_tma, "wgmma_ring.cuh",
        "        mbarrier_wait(empty + stage, parity ^ 1);\n", ""),
    Bug("a stage is released while it is multiplied", gathered_by_tma, "wgmma.cuh",
        "before.release();\n        before.empty = ring.empty + ring.stage;",
        "before.empty = ring.empty + ring.stage;\n        before.release();"),
    Bug("a stage is multiplied before it is full", gathered_by_tma, "wgmma.cuh",
        "        ring.await();\n", ""),
    Bug("the first step adds to what registers held", gathered_by_tma, "wgmma.cuh",
        "int onto = 0;", "int onto = 1;"),
    Bug("the second quarter of the channels twice", gathered_by_tma, "wgmma.cuh",
        "further(pixels, k * 32)", "further(pixels, k / 2 * 64)"),
    Bug("TMA does not see what it stores", gathered_by_tma, "wgmma.cuh",
        "        fence_proxy_async();\n", ""),
    Bug("the residual of the pass before", epilogue_by_tma, "wgmma.cuh",
        "                parity ^= 1;\n", ""),
    Bug("the residual over what TMA stores", epilogue_by_tma, "wgmma.cuh",
        "        tma_store_wait<0>();\n        mbarrier", "        mbarrier"),
    Bug("what TMA stores is overwritten", gathered_by_tma, "wgmma.cuh",
        "if (pass == 0) tma_store_wait<0>();", ""),
    Bug("what TMA stores of the pass before the last is overwritten", patches_by_tma, "wgmma.cuh",
        "tma_store_wait<BUFFERS - 1>();", "tma_store_wait<BUFFERS>();"),
    Bug("an odd number of passes takes turns in two buffers", patches_by_tma, "wgmma.cuh",
        "pass == 0) tma_store_wait<0>();", "pass == 0) tma_store_wait<BUFFERS - 1>();"),
    Bug("others overwrite what TMA stores", gathered_by_tma, "wgmma.cuh",
        "            sync();  // TMA has read what was in the buffer,", "            // TMA has"),
    Bug("TMA stores before the pass is complete", gathered_by_tma, "wgmma.cuh",
        "            sync();  // the pass is complete\n", ""),
    Bug("the producer alone waits for the kernels before", gathered_by_tma, "conv_wgmma.cu",
        "    after_kernels_before();\n", "    if (is_producer()) after_kernels_before();\n"),
    Bug("the block ends before TMA has stored", gathered_by_tma, "conv_wgmma.cu",
        "        if (threadIdx.x % 128 == 0) tma_store_wait<0>();\n", ""),
    Bug("filters and pixels of the matrices swapped", gathered_by_tma, "wgmma.cuh",
        "lane % 8 + matrix / 2 * 8) * ROW_BYTES + ((2 * warp + matrix % 2)",
        "lane % 8 + matrix % 2 * 8) * ROW_BYTES + ((2 * warp + matrix / 2)"),
    Bug("the bias of filters beyond the last", gathered_by_tma, "wgmma.cuh",
        "bias && own < filters", "bias"),
    Bug("the dilations swapped", gathered_by_tma, "conv_wgmma.cu",
        "s * g.dilation[2], down = r * g.dilation[1]",
        "s * g.dilation[1], down = r * g.dilation[2]"),
    Bug("the taps of a column before those of a row", gathered_by_tma, "conv_wgmma.cu",
        "if (++s == g.kernel[2]) s = 0, ++r;", "if (++r == g.kernel[1]) r = 0, ++s;"),
    Bug("every split sums from the start", gathered_by_tma, "conv_wgmma.cu",
        "step = split * steps_per_split;", "step = 0;"),
    Bug("the sums of pixels beyond the last are stored", gathered_by_tma, "conv_wgmma.cu",
        "if (pixel < end && ", "if ("),
    Bug("the rows of a patch displaced as its columns", patches_by_tma, "conv_wgmma_patch.cu",
        "further(row, pitch)", "further(row, ROW_BYTES)"),
    Bug("the columns of a patch displaced as its rows", patches_by_tma, "conv_wgmma_patch.cu",
        "further(row, s * ROW_BYTES)", "further(row, s * pitch)"),
    Bug("rows of a patch as wide as the tile", patches_by_tma, "conv_wgmma_patch.cu",
        "COLUMNS * pitch, pitch)", "COLUMNS * pitch)"),
    Bug("a patch is never released", patches_by_tma, "conv_wgmma_patch.cu",
        "        patch_before.empty = patch_ring.empty + patch_ring.stage;\n", ""),
    Bug("a patch is released under its last tap", patches_by_tma, "conv_wgmma_patch.cu",
        "patch_before.empty = patch_ring.empty + patch_ring.stage;\n",
        "patch_before.empty = patch_ring.empty + patch_ring.stage, patch_before.release();\n"),
    Bug("the second warpgroup takes the first rows", patches_by_tma, "conv_wgmma_patch.cu",
        "patches + first_pixel() / COLUMNS * pitch", "patches"),
    Bug("the rows of the second image behind the first's", patches_of_two_images,
        "conv_wgmma_patch.cu", "i * PATCH_ROWS * COLUMNS", "i * ROWS * COLUMNS"),
    Bug("the next image alone", patches_of_two_images, "conv_wgmma_patch.cu",
        "place / across / down * IMAGES", "place / across / down"),
    Bug("an image that is not there is waited for", patches_of_two_images, "conv_wgmma_patch.cu",
        "(ROWS + g.kernel[1] - 1) * IMAGES * ROW_BYTES;", "(ROWS + g.kernel[1] - 1) * ROW_BYTES;"),
    Bug("both teams multiply at once", gathered_in_turns, "wgmma.cuh", "    turns.await();\n", ""),
    Bug("a team takes the stages of the other", gathered_in_turns, "wgmma.cuh",
        "if (is_others) ring.skip(stages);", ""),
    Bug("skipped stages are of this round", gathered_in_turns, "wgmma_ring.cuh",
        "        parity ^= stage / COUNT & 1;\n", ""),
    Bug("the first team waits for the second", gathered_in_turns, "wgmma.cuh",
        "parity(team() == 0)", "parity(0)"),
    Bug("the other block's readers are not waited for", gathered_by_cluster, "wgmma_ring.cuh",
        "mbarrier_arrive_cluster(cluster_map(empty, lane))", "mbarrier_arrive(empty)"),
    Bug("the other block's barriers may not be ready", gathered_by_cluster, "wgmma_ring.cuh",
        "    meet_cluster();   // everywhere\n", ""),
    Bug("a block ends before the other is done", gathered_by_cluster, "conv_wgmma.cu",
        "    meet_cluster();  // the others", "    // the others"),
    Bug("a block ends before the other is done", patches_by_cluster, "conv_wgmma_patch.cu",
        "    meet_cluster();  // the others", "    // the others"),
    Bug("a share comes to the first block alone", gathered_by_cluster, "wgmma_ring.cuh",
        "(1u << CLUSTER) - 1;", "1u;"),
    Bug("both blocks bring the first pixels", gathered_by_cluster, "conv_wgmma.cu",
        "split(tile.pixel + own,", "split(tile.pixel,"),
    Bug("one share of the filters over the other", patches_by_cluster, "wgmma.cuh",
        "to += own * ROW_BYTES, filter += own;", "filter += own;"),
    Bug("the blocks of a cluster have other filters", patches_by_cluster, "conv_wgmma_patch.cu",
        "number / CLUSTER % filters", "number % filters"),
    Bug("maxima of images beyond the last", quads_by_cluster, "conv_wgmma_patch.cu",
        "tile.image >= g.batch || ", ""),
    Bug("moments of images beyond the last", patches_by_cluster, "conv_wgmma_patch.cu",
        "(IMAGES * CLUSTER == 1 ||", "(IMAGES == 1 ||"),
    Bug("the taps of filters as they lie", dgrad_by_tma, "wgmma.cuh", "taps - 1 - tap", "tap"),
    Bug("filters as they lie are read along the sum", dgrad_by_tma, "wgmma.cuh",
        "const int NEXT_FILTERS = 2 * EIGHT_ROWS;", "const int NEXT_FILTERS = 32;"),
    Bug("the filters not turned", dgrad_in_tf32, "turn_filters.cu", "taps - 1 - tap", "tap"),
    Bug("no barrier before the filters are written", dgrad_in_tf32, "turn_filters.cu",
        "    __syncthreads();  // the tile is complete\n", ""),
    Bug("channels beyond the last are turned", dgrad_in_tf32, "turn_filters.cu",
        "c0 + i < channels && k0", "k0"),
    Bug("the second half of the filters over the first", dgrad_in_tf32, "wgmma.cuh",
        "filter / DEPTH * PASS + pixel", "pixel"),
    Bug("floats not swizzled", dgrad_in_tf32, "wgmma.cuh", "((filter % DEPTH / 4) ^ pixel) * 16",
        "filter % DEPTH / 4 * 16"),
    Bug("taps and places go opposite ways", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "own.last_tap[1] - j * classes.tap_step[1]", "j * classes.tap_step[1]"),
    Bug("every class begins in the corner", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "own.displacement[1] + j", "j"),
    Bug("places as far apart as taps", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "j * classes.place_step[1]", "j * classes.tap_step[1]"),
    Bug("pixels that a class has not", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        " || w >= tile.own.pixels[1]", ""),
    Bug("images beyond the last", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "n >= g.batch || ", ""),
    Bug("all splits sum the first's steps", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "step = min(split * each, steps);", "step = 0;"),
    Bug("all splits are the first", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "partial += (long long)tile.split * ", "partial += 0 * "),
    Bug("the pass is written before it is complete", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "        bar_sync(1 + warpgroup(), 128);  // the pass is complete\n", ""),
    Bug("the pass is overwritten before it has been read", strided_dgrad_by_tma,
        "conv_dgrad_wgmma.cu",
        "bar_sync(1 + warpgroup(), 128);  // what was in the", "// what was in the"),
    Bug("channels beyond the last are written", strided_dgrad_by_tma, "conv_dgrad_wgmma.cu",
        "if (own >= g.channels) continue;", ""),
    Bug("every piece by the derivatives of the first", strided_dgrad_through,
        "conv_dgrad_wgmma.cu", "epilogue.joined(values, to + own)", "epilogue.joined(values, to)"),
    Bug("the ReLU before added, not its derivative taken", dgrad_through, "wgmma.cuh",
        "        epilogue.joining(with);\n", "        epilogue.adding(with);\n"),
    Bug("another gradient multiplied by, not added", dgrad_through, "wgmma.cuh",
        "        epilogue.joining(with);\n", "        epilogue.multiplying(with);\n"),
    Bug("a class without taps is left as it was", strided_dgrad_in_tf32, "conv_dgrad_wgmma.cu",
        "Sums sums = {};", "Sums sums;\n            if (tile.steps_end == tile.step) return;"),
    Bug("the first half of a pixel's floats twice", strided_dgrad_in_tf32, "conv_dgrad_wgmma.cu",
        "(part * PASS + i) * ROW_BYTES", "i * ROW_BYTES"),
    Bug("a stage is multiplied before it is full", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "        ring.await();\n", ""),
    Bug("a stage is released while it is multiplied", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "before.release();\n        before.empty = ring.empty + ring.stage;",
        "before.empty = ring.empty + ring.stage;\n        before.release();"),
    Bug("the first step adds to what registers held", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "int onto = 0;", "int onto = 1;"),
    Bug("the first 16 pixels of x again", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "further(of_x, i * 2 * next_eight)", "of_x"),
    Bug("both warpgroups take the first filters", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "smem + filter_block() * BLOCK_BYTES", "smem"),
    Bug("filters beyond the last are stored", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        " && filter + 8 * half < g.filters", ""),
    Bug("channels beyond the last are stored", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "weight < at.count && ", ""),
    Bug("all splits store the first", wgrad_gathered_by_tma, "wgmma_wgrad.cuh",
        "partial + blockIdx.z * count", "partial"),
    Bug("the steps of a split overlap", wgrad_gathered_by_tma, "conv_wgrad_wgmma.cu",
        "min(step + steps_per_split, steps)", "min(step + steps_per_split + 1, steps)"),
    Bug("taps beyond the last are stored", wgrad_gathered_by_tma, "conv_wgrad_wgmma.cu",
        "tap < pixels(g.kernel) ? g.channels - c : 0", "g.channels - c"),
    Bug("the dilations of the gradient swapped", wgrad_gathered_by_tma, "conv_wgrad_wgmma.cu",
        "tap % g.kernel[2] * g.dilation[2]", "tap % g.kernel[2] * g.dilation[1]"),
    Bug("the stride of the gradient left out", wgrad_gathered_by_tma, "conv_wgrad_wgmma.cu",
        "corner.axis[2] * g.stride[2] - g.pad[2]", "corner.axis[2] - g.pad[2]"),
    Bug("the rows of the window one pixel apart", wgrad_of_patches, "conv_wgrad_wgmma_patch.cu",
        "DY_BYTES + r * PATCH_ROW", "DY_BYTES + r * ROW_BYTES"),
    Bug("taps of a row as far apart as rows", wgrad_of_patches, "conv_wgrad_wgmma_patch.cu",
        "r * PATCH_ROW, ROW_BYTES, PATCH_ROW)", "r * PATCH_ROW, PATCH_ROW, PATCH_ROW)"),
    Bug("rows of the patch as wide as the tile", wgrad_of_patches, "conv_wgrad_wgmma_patch.cu",
        "ROW_BYTES, PATCH_ROW)", "ROW_BYTES, EIGHT_ROWS)"),
    Bug("the next image one row too early", wgrad_of_patches, "conv_wgrad_wgmma_patch.cu",
        "n = step / across / down", "n = (step + across) / across / down"),
]  # fmt: skip
