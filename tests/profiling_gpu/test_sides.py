"""Both sides of every operation, ours and PyTorch's, on the CPU."""

from __future__ import annotations

import shutil
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from gpucnn.backends import get_backend
from gpucnn.shapes import ConvShape, NormShape, PoolShape
from profiling.gpu import bench, cases, estimates, ours, report, sanitized, timing
from profiling.gpu.accuracy import LIMITS, relative_error
from profiling.gpu.cases import Case, ParameterShape, RowShape
from profiling.results import problems

from ..emulator.build import CXX
from ..tuning import FakeTimer, fake_backend, fake_tuner
from . import H200, SET


def shrunk(case: Case) -> Case:
    """The same case on a few numbers, off every tile."""
    s = case.shape
    if isinstance(s, ConvShape):
        groups = 1 if s.groups == 1 else 6 if s.groups == s.channels else 2
        size = (4, 5, 6)[: s.rank] if s.rank == 3 else (9, 11)[: s.rank]
        s = replace(
            s, batch=3, channels=min(s.channels, 6), filters=6, groups=groups,
            input=(1, 1) if prod(s.input) == 1 else size,
            kernel=tuple(min(k, 5) for k in s.kernel),
        )  # fmt: skip
        window = case.pool and PoolShape.of(
            s.y_shape, case.pool.window, mode="max", rank=s.rank, channels_last=s.channels_last
        )
        return replace(case, shape=s, pool=window)
    if isinstance(s, PoolShape):
        window = tuple(min(w, 3) for w in s.window)
        s = replace(s, batch=3, channels=5, input=(7, 8), window=window, strides=(2, 1))
    elif isinstance(s, NormShape):
        s = replace(s, batch=3, channels=19, length=12)
    elif isinstance(s, RowShape):
        s = RowShape(7, 11)
    elif isinstance(s, ParameterShape):
        s = ParameterShape((7, 130, 33))
    else:
        s = replace(s, size=1003)
    return replace(case, shape=s)


def some_of_each(dtypes: set[str]) -> dict[str, Case]:
    """A case for each operation, kind of convolution, layout and dtype."""
    found: dict[str, Case] = {}
    for case in SET:
        kind = cases.conv_kind(case.row()["shape"]) if case.op in report.CONVOLUTIONS else ""
        math = case.math if case.math in ("tf32", "fp32x3") else ""
        words = (case.op, kind, case.layout, case.dtype, math, getattr(case.shape, "kind", ""))
        if case.dtype in dtypes:
            found.setdefault(" ".join(filter(None, words)), shrunk(case))
    return found


def a_bench(backend) -> bench.Bench:
    return bench.Bench(
        backend, "cpu", timing.HostTimer(), H200, cache=2000, memory=2**30, seconds=0.001
    )


def test_a_row_can_be_tuned_before_it_is_measured(tmp_path):
    case = next(case for case in EVERY.values() if case.op == "conv_bias_relu")
    tuner = fake_tuner(fake_backend(tmp_path), FakeTimer(lambda plan: 1.0))
    bench.tune(tuner, case, bench.draw(case, a_bench(tuner.backend).generator))
    assert tuner.timer.timed and len(list(tmp_path.glob("*.json"))) == 1


def test_estimates_are_held_against_times(tmp_path):
    tuner = fake_tuner(
        fake_backend(tmp_path), FakeTimer(lambda plan: 3.0 if plan.algorithm == "winograd" else 2.0)
    )
    cases = [case for case in SET if case.set == "vgg16" and case.layer == "conv1_2"]
    found = dict((problem, case) for case, problem in estimates.problems(cases, 90))
    assert {problem.direction for problem in found} == {"fprop", "dgrad", "wgrad"}
    problem = next(p for p in found if p.direction == "fprop" and p.dtype == "float32")
    small = replace(problem, shape=replace(problem.shape, batch=1, input=(16, 16)))
    row = estimates.measure(tuner, found[problem], small)
    by_plan = {c["plan"]: c["us"] for c in row["candidates"]}
    assert by_plan[row["fastest"]] == 2.0
    assert row["loss"] == by_plan[row["chosen"]] / 2.0
    assert row["fastest"] in estimates.line(row)


def check_row(case: Case, row: dict, kernels: bool) -> None:
    complete = {**dict.fromkeys(("peer_us", "speedup")), **case.row(), **row}
    assert "error" not in row
    assert problems({**complete, "algorithm": row["algorithm"], "peer": row["peer"]}) == []
    limit = LIMITS[f"{case.dtype} {case.math}"]
    assert row["err_ours"] <= limit and row["err_peer"] <= limit
    assert row["speedup"] == pytest.approx(row["peer_us"] / row["ours_us"])
    assert all(isinstance(time, float) for time in row["peers"].values()), row["peers"]
    assert bool(row["algorithm"]) == kernels
    assert row["copies"] >= 2 and row["timing"] == "loop"


EVERY = some_of_each({"float32", "float64", "bfloat16", "float16"})


@pytest.mark.parametrize("name", EVERY)
def test_both_sides_agree_with_float64(name):
    """gpucnn and each of PyTorch's candidates, on NumPy arrays and the CPU's tensors."""
    check_row(EVERY[name], a_bench(get_backend("numpy")).measure(EVERY[name]), kernels=False)


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
@pytest.mark.parametrize("op", ours.OPERATIONS)
def test_the_kernels_that_ran_are_named(op):
    case = next(case for case in EVERY.values() if case.op == op)
    row = a_bench(sanitized.backend_named("emulated")).measure(case)
    check_row(case, row, kernels=True)
    tag = {"float32": "_f32", "bfloat16": "_bf16"}[case.dtype]
    assert ("_b32" if op == "change_layout" else tag) in row["algorithm"]


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
@pytest.mark.parametrize(
    ("op", "kernels"),
    [
        ("conv_bias_relu_pool", ["conv_direct"]),
        ("conv_bias_relu_pool_backward", ["conv_direct_wgrad", "split_sum"]),
    ],
)
def test_the_pooling_behind_a_stem_has_no_kernel_of_its_own(op, kernels):
    row = a_bench(sanitized.backend_named("emulated")).measure(EVERY[f"{op} stem NHWC float32"])
    ran = row["algorithm"].split(" + ")
    assert len(ran) == len(kernels) and all(map(str.startswith, ran, kernels))


class Wrong:
    """A backend whose fprop forgets its last filter."""

    def __init__(self) -> None:
        self.right = get_backend("numpy")

    def conv_fprop(self, x, w, b, shape):
        y = self.right.conv_fprop(x, w, b, shape)
        y[..., -1] = 0
        return y


def test_a_wrong_result_is_an_error_of_its_row():
    case = EVERY["conv_fprop plain NHWC float32"]
    row = a_bench(Wrong()).measure(case)
    assert row["error"].startswith("ours is wrong, by ")
    assert row["ours_us"] > 0  # and yet it was timed


def test_an_exception_is_an_error_of_its_row():
    case = EVERY["conv_dgrad plain NHWC float32"]
    row = a_bench(Wrong()).measure(case)
    assert row["error"] == "AttributeError: 'Wrong' object has no attribute 'conv_dgrad'"


def test_poisoned_memory_that_nobody_writes_shows(monkeypatch):
    assert relative_error(np.array([1.0, np.nan]), np.ones(2)) == np.inf
    array = np.ones(3, np.float32)
    bench.poison([array])
    assert np.isnan(array).all()
