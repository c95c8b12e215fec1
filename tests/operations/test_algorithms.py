"""Every plan of every algorithm for convolution, whether or not it is the one that is chosen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda.algorithms import (
    ALGORITHMS,
    DIRECTIONS,
    LADDER,
    Algorithm,
    Plan,
    Problem,
)
from gpucnn.shapes import ConvShape
from tests.cases import CONVS, DTYPES, as_tf32, in_layout
from tests.conftest import make_backend
from tests.operations.conftest import inside_another, poisoned, same_bits
from tests.operations.test_conv import problem as solved
from tests.tolerance import assert_close


def reduction(direction: str, s: ConvShape) -> int:
    """Terms of each sum, the bias among them."""
    if direction == "fprop":
        return s.taps * (s.channels // s.groups) + 1
    if direction == "dgrad":
        return s.taps * (s.filters // s.groups) + 1
    return s.batch * math.prod(s.output)


# In "tf32" what is multiplied is float32 rounded to TF32, which is exact; "fp32x3" rounds the small
# parts of both numbers, 2^-23 of a number each at most, and leaves out 2^-22 of a product.
RELAXED = {"tf32": as_tf32, "fp32x3": np.asarray}
ROUNDINGS = {"fp32x3": 8}

# The emulator is slow, the checked one most of all, and what it finds hardly depends on the dtype:
# there an algorithm runs in those whose code differs. On a GPU all run.
CHECKED_DTYPES = {
    "implicit_gemm": ["float32"],
    "mma": ["float16", "tf32"],
    "mma_padded": ["float16"],
    "depthwise": ["float16", "float32"],
    "direct": ["float16", "float32"],
    "grouped": ["float32"],
    "mma_wgrad": ["bfloat16", "tf32"],
    "wgmma": ["float16"],
    **{name: ["float32"] for name in LADDER},
}
EMULATED_DTYPES = [dtype for dtype in DTYPES if dtype != "float16"]
EMULATED = {
    "checked": CHECKED_DTYPES,
    "emulated": {
        "implicit_gemm": ["float32", "bfloat16"],
        **{name: ["float32"] for name in LADDER},
    },
}
IN_TF32 = {"mma": tuple(RELAXED), "mma_wgrad": tuple(RELAXED), "mma_padded": ("tf32",)}
# Cases of more multiply-adds than this have more tiles of a kind that smaller ones have, too, and
# would take most of the time: they run in one dtype, and in the fast emulator. There, in turn, what
# the checked one computes in the same format is left out.
MOST_WORK = {"checked": 4e6, "emulated": 9e6}
# A tile that has run in so many cases goes on only where one has no other plans; on a GPU in all.
ENOUGH_CASES = {"checked": 3, "emulated": 5}


def formats(backend_name: str, algorithm: Algorithm) -> list[str]:
    """Return the number formats that an algorithm runs in."""
    if algorithm.name in EMULATED.get(backend_name, {}):
        return EMULATED[backend_name][algorithm.name]
    dtypes = list(DTYPES) if backend_name == "cuda" else EMULATED_DTYPES
    return [*dtypes, *IN_TF32.get(algorithm.name, ())]


RUNS = [
    pytest.param(name, algorithm, dtype, id=f"{name}-{algorithm.name}-{dtype}", marks=marks)
    for name, marks in (("emulated", ()), ("checked", ()), ("cuda", pytest.mark.gpu))
    for algorithm in (*ALGORITHMS.values(), *LADDER.values())
    for dtype in formats(name, algorithm)
]


def runs_case(
    backend_name: str, algorithm: Algorithm, number_format: str, multiply_adds: int
) -> bool:
    """Return whether a case of so many multiply-adds runs."""
    if backend_name == "cuda":
        return True
    # as large as those of 16 bits are
    tiles = 1 if number_format in RELAXED or algorithm.name == "dmma" else 4
    if backend_name == "emulated" and algorithm.name not in LADDER:
        first = {"dmma": "float64"}.get(algorithm.name, "float32")
        first = "bfloat16" if "mma" in algorithm.name and first == "float32" else first
        checked = number_format in CHECKED_DTYPES.get(algorithm.name, ())
        if checked and 4 * multiply_adds <= tiles * MOST_WORK["checked"]:
            return False
        if number_format == first:
            return True
    return 4 * multiply_adds <= tiles * MOST_WORK[backend_name]


def fewest_and_most_splits(plans: Iterable[Plan]) -> Iterator[Plan]:
    """Yield, of plans with the same tile, the first and the last: what lies between differs in the
    number of splits alone."""
    alike: dict[object, list[Plan]] = {}
    for plan in plans:
        alike.setdefault(tile_of(plan), []).append(plan)
    for group in alike.values():
        yield from dict.fromkeys((group[0], group[-1]))


def not_enough(plans: Iterable[Plan], cases: Counter[object], enough: float) -> Iterator[Plan]:
    """Yield the plans of a case whose tiles have had too few cases, and count it among theirs."""
    by_need = sorted(plans, key=lambda plan: cases[tile_of(plan)])
    wanted = [plan for plan in by_need if cases[tile_of(plan)] < enough]
    wanted = wanted or by_need[:1]
    cases.update(set(map(tile_of, wanted)))
    yield from wanted


def tile_of(plan: Plan) -> object:
    return getattr(plan.settings, "tile", plan.settings)


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("backend_name", "algorithm", "number_format"), RUNS)
def test_every_plan(backend_name, algorithm, number_format, direction, channels_last) -> None:
    try:
        cuda_backend = make_backend(backend_name)
    except RuntimeError as error:
        pytest.skip(str(error))
    with_relu = direction == "fprop" and backend_name != "checked"
    dtype, math_mode = number_format, "strict"
    if number_format in RELAXED:
        dtype, math_mode = "float32", number_format
    ran, cases = 0, {"linear": Counter(), "relu": Counter()}
    for name, case in CONVS.items():
        if not runs_case(backend_name, algorithm, number_format, case.multiply_adds):
            continue
        s = replace(case, channels_last=channels_last)
        p = solved(name, dtype, RELAXED.get(number_format, np.asarray))
        x, dy = (cuda_backend.asarray(in_layout(a, channels_last)) for a in (p.x, p.dy))
        w, b, b_dx = map(cuda_backend.asarray, (p.w, p.b, p.b_dx))
        arrays = {"fprop": (x, w, b), "dgrad": (dy, w, b_dx), "wgrad": (x, dy)}[direction]
        expected, terms = {
            "fprop": (p.y, p.y_terms), "dgrad": (p.dx, p.dx_terms), "wgrad": (p.dw, p.dw_terms),
        }[direction]  # fmt: skip
        if direction != "wgrad":
            expected, terms = (in_layout(a, channels_last) for a in (expected, terms))
        roundings = reduction(direction, s) * ROUNDINGS.get(number_format, 1)
        for activation in ("linear", "relu") if with_relu else ("linear",):
            question = Problem(direction, s, dtype, activation, math=math_mode)
            want = np.maximum(expected, 0) if activation == "relu" else expected
            plans = fewest_and_most_splits(algorithm.plans(question))
            for plan in not_enough(
                plans, cases[activation], ENOUGH_CASES.get(backend_name, math.inf)
            ):
                assert plan.is_legal(), plan
                with poisoned(cuda_backend.xp):
                    got = algorithm.run(cuda_backend, question, plan, *arrays)
                assert_close(
                    cuda_backend.to_numpy(got), want, dtype=DTYPES[dtype],
                    reduction=roundings, magnitude=terms, what=f"{name}: {plan}",
                )  # fmt: skip
                assert algorithm.cost(question, plan) > 0
                ran += 1
    if not ran:
        pytest.skip(f"{algorithm.name} has no plan for {direction} in {number_format} here")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_vectors_of_the_implicit_gemm_that_begin_inside_another(direction: str) -> None:
    """Loaded one by one, they give the same bits."""
    backend, gemm = make_backend("checked"), ALGORITHMS["implicit_gemm"]
    problem, p = Problem(direction, CONVS["vectors"], "float32"), solved("vectors", "float32")
    arrays = {"fprop": (p.x, p.w, p.b), "dgrad": (p.dy, p.w, p.b_dx), "wgrad": (p.x, p.dy)}
    whole = tuple(map(backend.asarray, arrays[direction]))
    inside = tuple(inside_another(backend, array) for array in arrays[direction])
    plans = [plan for plan in gemm.plans(problem) if plan.settings.tile.vector > 1]
    plans = {tile_of(plan): plan for plan in plans}
    assert plans
    for plan in plans.values():
        got, expected = (gemm.run(backend, problem, plan, *a) for a in (inside, whole))
        assert same_bits(*map(backend.to_numpy, (got, expected))), plan
