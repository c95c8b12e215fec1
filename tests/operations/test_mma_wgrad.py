"""The filters' gradient on tensor cores: where it applies, how it is split, and its banks."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda.algorithms import ALGORITHMS, Problem
from gpucnn.backends.cuda.algorithms.base import MULTIPROCESSORS
from gpucnn.backends.cuda.algorithms.mma_wgrad import LOOP_PIXELS, TILES, WGRAD
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import CONVS, DTYPES
from tests.conftest import make_backend
from tests.emulator.build import CXX
from tests.operations.conftest import inside_another, same_bits
from tests.operations.test_algorithms import reduction
from tests.operations.test_conv import problem as solved
from tests.tolerance import assert_close

MMA = ALGORITHMS["mma_wgrad"]
HALVES = ("float16", "bfloat16")
LARGE = ConvShape.of((32, 56, 56, 64), (64, 3, 3, 64), padding=1)
GROUPED = ConvShape.of((32, 28, 28, 256), (256, 3, 3, 32), groups=8, padding=1)
DEEP = ConvShape.of((32, 7, 7, 512), (512, 3, 3, 512), padding=1)

needs_emulator = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")


def applies(shape: ConvShape, dtype: str = "float16", architecture: int = 90) -> bool:
    return bool(list(MMA.plans(Problem("wgrad", shape, dtype, architecture=architecture))))


def test_only_16_bits_and_not_before_sm_80() -> None:
    for dtype in DTYPES:
        for architecture in (75, 80, 86, 89, 90, 100, 120):
            assert applies(LARGE, dtype, architecture) == (dtype in HALVES and architecture >= 80)
    for direction in ("fprop", "dgrad"):
        assert not list(MMA.plans(Problem(direction, LARGE, "float16")))


def test_only_whole_vectors_of_channels_and_filters() -> None:
    def shape(channels: int, filters: int, groups: int = 1) -> ConvShape:
        of_a_group = channels // groups
        return ConvShape.of((3, 9, 10, channels), (filters, 3, 3, of_a_group), groups=groups)

    assert applies(shape(24, 40)) and applies(shape(24, 48, 3))
    assert not applies(replace(shape(24, 40), channels_last=False))
    assert not applies(shape(12, 40)) and not applies(shape(24, 20))
    assert not applies(shape(24, 24, 6)) and not applies(shape(48, 24, 6))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [LARGE, DEEP, GROUPED], ids=str)
def test_chosen_where_it_applies(shape: ConvShape, dtype: str) -> None:
    for architecture in (75, 80, 90):
        chosen = choose(Problem("wgrad", shape, dtype, architecture=architecture))
        expected = "wgmma_wgrad" if architecture == 90 and shape.groups == 1 else MMA.name
        assert (chosen.algorithm == expected) == (architecture >= 80)


def test_splits_fill_whole_waves() -> None:
    chosen = choose(Problem("wgrad", LARGE, "float16", architecture=80))
    waves = math.prod(chosen.grid) / (MULTIPROCESSORS * chosen.settings.tile.blocks)
    assert chosen.grid[2] > 8 and 0.95 < waves / math.ceil(waves) <= 1


@pytest.mark.parametrize("shape", [LARGE, DEEP, *CONVS.values()], ids=str)
def test_splits_cover_every_pixel_once(shape: ConvShape) -> None:
    for plan in MMA.plans(Problem("wgrad", shape, "float16")):
        pixels, splits = plan.settings.pixels, plan.grid[2]
        assert pixels % LOOP_PIXELS == 0
        assert (splits - 1) * pixels < shape.batch * math.prod(shape.output) <= splits * pixels


@needs_emulator
def test_one_split_needs_no_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, p = make_backend("emulated"), solved("split_sums", "float16")
    launched = []
    launch = backend.launcher.launch
    monkeypatch.setattr(
        backend.launcher, "launch", lambda k, *rest: launched.append(k.file) or launch(k, *rest)
    )
    problem = Problem("wgrad", CONVS["split_sums"], "float16")
    (plan,) = (plan for plan in MMA.plans(problem) if plan.settings.tile == next(iter(TILES)))
    MMA.run(backend, problem, plan, p.x, p.dy)
    assert launched == ["conv_wgrad_mma.cu"]


@needs_emulator
def test_arrays_that_begin_inside_another_give_the_same_bits() -> None:
    backend, p = make_backend("checked"), solved("vectors", "float16")
    problem = Problem("wgrad", CONVS["vectors"], "float16")
    plan, *_ = MMA.plans(problem)
    got, expected = (
        MMA.run(backend, problem, plan, *arrays)
        for arrays in ((inside_another(backend, p.x), inside_another(backend, p.dy)), (p.x, p.dy))
    )
    assert same_bits(got, expected)


@needs_emulator
@pytest.mark.parametrize("dtype", HALVES)
def test_a_nan_and_an_infinity_reach_all_that_they_should_and_nothing_else(dtype: str) -> None:
    s = CONVS["vectors_dilated"]
    x, dy = (np.ones(size, DTYPES[dtype]) for size in (s.x_shape, s.y_shape))
    x[0, 0, 3, 1], x[0, 14, 11, 9] = np.nan, -np.inf
    expected = reference.conv_wgrad(x, dy, s)
    assert 0 < np.isnan(expected).sum() < np.isfinite(expected).sum() and np.isinf(expected).any()
    problem = Problem("wgrad", s, dtype)
    for plan in MMA.plans(problem):
        got = MMA.run(make_backend("emulated"), problem, plan, x, dy)
        assert_close(got, expected, dtype=x.dtype, reduction=reduction("wgrad", s))


@needs_emulator
@pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.m}x{tile.n}")
def test_fragments_meet_no_bank_twice(tile) -> None:
    backend, p = make_backend("checked"), solved("vectors_dilated", "float16")
    problem = Problem("wgrad", CONVS["vectors_dilated"], "float16")
    plan = next(plan for plan in MMA.plans(problem) if plan.settings.tile == tile)
    MMA.run(backend, problem, plan, p.x, p.dy)
    stats = backend.launcher._functions[WGRAD(2, "float16", tile)].stats
    assert stats["ldmatrix"] > 0 and stats["ldmatrix_conflicts"] == 0
