"""The implicit GEMM's two ways to bring float32 slabs: through registers, and past them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Problem
from gpucnn.shapes import ConvShape
from tests.cases import random
from tests.emulator_launcher import EmulatorLauncher
from tests.operations.conftest import poisoned, same_bits

# K and C of whole vectors, a ragged last tile, padding on all sides, parity classes in dgrad
SHAPE = ConvShape.of((2, 9, 7, 24), (40, 3, 3, 24), strides=(2, 1), padding=((1, 0), (2, 1)))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_both_ways_give_the_same_bits(direction) -> None:
    gemm, results = ALGORITHMS["implicit_gemm"], []
    x, w, dy = (
        random(name, shape, np.float32)
        for name, shape in (("x", SHAPE.x_shape), ("w", SHAPE.w_shape), ("dy", SHAPE.y_shape))
    )
    b = random("b", (40,), np.float32)
    arrays = {"fprop": (x, w, b), "dgrad": (dy, w, None), "wgrad": (x, dy)}[direction]
    for architecture in (75, 90):
        backend = CudaBackend(np, EmulatorLauncher("fast", architecture=architecture))
        problem = Problem(direction, SHAPE, "float32", architecture=architecture)
        vectors = [plan for plan in gemm.plans(problem) if plan.settings.tile.vector_n > 1]
        assert len(vectors) >= 4
        with poisoned(np):
            results.append([gemm.run(backend, problem, plan, *arrays) for plan in vectors])
    by_registers, past_them = results
    assert all(same_bits(a, b) for a, b in zip(by_registers, past_them, strict=True))


def test_copies_past_the_registers_take_other_shared_memory() -> None:
    for direction in DIRECTIONS:
        problem = Problem(direction, SHAPE, "float32")
        old = replace(problem, architecture=75)
        for new, before in zip(
            *map(ALGORITHMS["implicit_gemm"].plans, (problem, old)), strict=True
        ):
            assert new.settings == before.settings and new.grid == before.grid
            wide = new.settings.tile.vector_n > 1
            assert (new.shared_bytes != before.shared_bytes) == wide
