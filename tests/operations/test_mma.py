"""float16 and bfloat16 on tensor cores: where that applies, and how it reads shared memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem, mma, mma_padded
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests.cases import CONVS, DTYPES
from tests.conftest import make_backend
from tests.emulator_launcher import EmulatorLauncher
from tests.operations.conftest import inside_another, same_bits
from tests.operations.test_conv import problem as solved

MMA = ALGORITHMS["mma"]
LARGE = ConvShape.of((32, 56, 56, 64), (64, 3, 3, 64), padding=1)


def plans(direction: str, shape: ConvShape, dtype: str = "float16", **given) -> list[Plan]:
    return list(MMA.plans(Problem(direction, shape, dtype, **given)))


@pytest.mark.parametrize("direction", mma.KERNELS)
def test_16_bit_numbers_from_sm_80_on_channels_last(direction: str) -> None:
    for dtype in DTYPES:
        for architecture in (75, 80, 86, 89, 90, 100, 120):
            applies = dtype in ("float16", "bfloat16") and architecture >= 80
            assert bool(plans(direction, LARGE, dtype, architecture=architecture)) == applies
    assert not plans(direction, replace(LARGE, channels_last=False))


def test_whole_chunks_of_what_is_gathered() -> None:
    odd = {name: replace(LARGE, **{name: 68}) for name in ("channels", "filters")}
    found = {(d, name) for d in mma.KERNELS for name, shape in odd.items() if plans(d, shape)}
    assert found == {("fprop", "filters")}


def test_windows_that_the_tables_hold() -> None:
    for window, fits in (((15, 15), True), ((16, 15), False), ((29, 1), True), ((30, 1), False)):
        shape = ConvShape.of((1, 40, 40, 8), (8, *window, 8))
        assert bool(plans("fprop", shape)) == fits, window
    for depth, fits in ((6, True), (7, False)):  # 216 and 343 taps
        assert bool(plans("fprop", ConvShape.of((1, 8, 8, 8, 8), (8, *3 * (depth,), 8)))) == fits


@pytest.mark.parametrize("direction", mma.KERNELS)
def test_other_channels_are_padded(direction: str) -> None:
    padded = ALGORITHMS["mma_padded"]
    assert not list(padded.plans(Problem(direction, LARGE, "float16")))
    assert not list(padded.plans(Problem(direction, replace(LARGE, channels=60), "float32")))
    for groups, channels in ((1, 60), (2, 66)):
        shape = replace(LARGE, channels=channels, groups=groups)
        problem = Problem(direction, shape, "float16", architecture=80)
        whole = mma_padded.padded(problem)
        assert whole.shape.channels == {60: 64, 66: 80}[channels]
        (plan,) = padded.plans(problem)
        assert choose(problem) == plan and plan.settings == choose(whole).settings
        assert padded.cost(problem, plan) > MMA.cost(whole, plan)
    few = ConvShape.of((8, 9, 9, 5), (7, 3, 3, 5))
    assert choose(Problem(direction, few, "float16")).algorithm != "mma_padded"


@pytest.mark.parametrize("direction", mma.KERNELS)
@pytest.mark.parametrize("math", ["strict", "exact"])
def test_chosen_for_many_channels(direction: str, math: str) -> None:
    for architecture, name in ((75, "implicit_gemm"), (80, "mma"), (90, "wgmma"), (120, "mma")):
        problem = Problem(direction, LARGE, "bfloat16", architecture=architecture, math=math)
        assert choose(problem).algorithm == name


@pytest.mark.parametrize("architecture", [80, 86, 90, 120])
def test_a_block_asks_for_what_it_may_have(architecture: int) -> None:
    for direction in mma.KERNELS:
        for plan in plans(direction, LARGE, architecture=architecture):
            kernel = mma.KERNELS[direction]("float16", plan.settings.tile)
            most = 1024 * mma.MOST_SHARED[architecture]
            assert kernel.dynamic_bytes + plan.shared_bytes <= most
    assert len({plan.settings.tile for plan in plans("fprop", LARGE)}) == len(mma.TILES)


def arrays(direction: str, name: str) -> tuple[np.ndarray, ...]:
    p = solved(name, "float16")
    return {"fprop": (p.x, p.w, p.b), "dgrad": (p.dy, p.w, p.b_dx)}[direction]


@pytest.mark.parametrize("direction", mma.KERNELS)
def test_no_bank_is_asked_twice(direction: str) -> None:
    """As the emulator counts: by the 8 rows that one of the matrices of ldmatrix has."""
    launcher = EmulatorLauncher("fast")
    backend, shape = CudaBackend(np, launcher), CONVS["vectors"]
    problem = Problem(direction, shape, "float16")
    for plan in MMA.plans(problem):
        MMA.run(backend, problem, plan, *arrays(direction, "vectors"))
    stats = [
        function.stats for kernel, function in launcher._functions.items() if "mma" in kernel.symbol
    ]
    assert len(stats) == len(mma.TILES)
    for each in stats:
        assert each["ldmatrix"] > 0 and each["mma"] > 0 and each["ldmatrix_conflicts"] == 0


@pytest.mark.parametrize("direction", mma.KERNELS)
def test_arrays_that_begin_inside_another(direction: str) -> None:
    backend = make_backend("checked")
    problem, given = Problem(direction, CONVS["vectors"], "float16"), arrays(direction, "vectors")
    plan = choose(problem)
    inside = tuple(inside_another(backend, array) for array in given)
    got, expected = (MMA.run(backend, problem, plan, *a) for a in (inside, given))
    assert plan.algorithm == "mma" and same_bits(got, expected)
