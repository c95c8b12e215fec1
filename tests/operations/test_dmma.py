"""float64 on tensor cores: where it applies, when it pays, and the instructions of sm_80."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Problem
from gpucnn.backends.cuda.algorithms.dmma import SLIM, SQUARE
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests.cases import CONVS, DTYPES
from tests.emulator.build import CXX
from tests.emulator_launcher import EmulatorLauncher
from tests.operations.test_algorithms import reduction
from tests.operations.test_conv import problem as solved
from tests.tolerance import assert_close

DMMA = ALGORITHMS["dmma"]
LARGE = ConvShape.of((32, 56, 56, 64), (64, 3, 3, 64), padding=1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_only_float64_and_not_before_sm_80(direction: str) -> None:
    for dtype in DTYPES:
        for architecture in (75, 80, 86, 89, 90, 100, 120):
            problem = Problem(direction, LARGE, dtype, architecture=architecture)
            applies = dtype == "float64" and architecture >= 80
            assert bool(list(DMMA.plans(problem))) == applies, problem


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_chosen_where_doubles_are_fast(direction: str) -> None:
    chosen = {
        architecture: choose(
            Problem(direction, LARGE, "float64", architecture=architecture)
        ).algorithm
        for architecture in (75, 80, 86, 89, 90, 120)
    }
    assert {a for a, name in chosen.items() if name == "dmma"} == {80, 90}


def test_few_filters_take_the_slim_tile() -> None:
    slim = replace(LARGE, filters=10)
    tiles = [choose(Problem("fprop", shape, "float64")).settings.tile for shape in (LARGE, slim)]
    assert tiles == [SQUARE, SLIM]


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["many_tiles", "everything"])
def test_instructions_of_sm_80(name: str, direction: str) -> None:
    backend = CudaBackend(np, EmulatorLauncher("check", architecture=80))
    s, p = CONVS[name], solved(name, "float64")
    arrays, expected, terms = {
        "fprop": ((p.x, p.w, p.b), p.y, p.y_terms),
        "dgrad": ((p.dy, p.w, p.b_dx), p.dx, p.dx_terms),
        "wgrad": ((p.x, p.dy), p.dw, p.dw_terms),
    }[direction]
    problem = Problem(direction, s, "float64", architecture=80)
    for plan in DMMA.plans(problem):
        assert_close(
            DMMA.run(backend, problem, plan, *arrays), expected, dtype=np.float64,
            reduction=reduction(direction, s), magnitude=terms, what=str(plan),
        )  # fmt: skip
