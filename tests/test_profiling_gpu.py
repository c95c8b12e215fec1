"""The one command for a GPU, as far as a machine without one can show it: the set, both sides of
every operation on the CPU, the floors, the time limits, the results file and its report."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpucnn.backends import get_backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, LADDER
from gpucnn.shapes import ConvShape, NormShape, PoolShape
from profiling.gpu import __main__ as command
from profiling.gpu import (
    bench,
    cases,
    estimates,
    figures,
    floors,
    jobs,
    machine,
    networks,
    ours,
    parts,
    report,
    sanitized,
    shard,
    timing,
)
from profiling.gpu.accuracy import LIMITS, relative_error
from profiling.gpu.cases import BFLOAT16, FLOAT32, FLOAT64, Case, ParameterShape, RowShape
from profiling.gpu.jobs import Deadline, Job, run_all
from profiling.gpu.options import parser
from profiling.results import Results, problems

from .cases import DTYPES
from .emulator.build import CXX
from .tuning import FakeTimer, fake_backend, fake_tuner

H200 = floors.Ceilings.of("NVIDIA H200")
SET = cases.benchmark_set()
MODULES = ("accuracy", "cases", "figures", "floors", "jobs", "machine", "networks", "report")


@pytest.mark.parametrize("name", [*(f"gpu.{m}" for m in MODULES), "gpu.timing", "results"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"profiling.{name}")).failed == 0


# ---- the benchmark set --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network, convolutions, distinct, pools, giga",
    [
        (networks.resnet50, 53, 23, 2, 4.087),
        (networks.resnext50, 53, 24, 2, 4.228),
        (networks.vgg16, 13, 9, 5, 15.347),
        (networks.mobilenet_v2, 52, 30, 0, 0.2995),
        (networks.lenet, 2, 2, 2, 0.000358),
        (networks.m5, 4, 4, 3, 0.13696),
        (networks.c3d, 8, 7, 4, 38.50),
    ],
)
def test_networks_are_as_published(network, convolutions, distinct, pools, giga):
    """Layers and multiply-adds of one sample (ResNet-50 has 4.09 G with its dense layer)."""
    layers = network(1)
    found = networks.convolutions(layers)
    assert len(found) == convolutions
    assert len(networks.distinct(found)) == distinct
    assert len(networks.pools(layers)) == pools
    assert sum(layer.count for layer in networks.distinct(found)) == convolutions
    assert sum(layer.shape.multiply_adds for layer in found) / 1e9 == pytest.approx(giga, rel=2e-3)


def test_last_maps_and_special_layers():
    assert networks.resnet50(2)[-1].shape.x_shape == (2, 7, 7, 2048)
    assert networks.vgg16(2)[-1].shape.y_shape == (2, 7, 7, 512)
    depthwise = [
        layer.shape
        for layer in networks.convolutions(networks.mobilenet_v2(1))
        if layer.shape.groups > 1
    ]
    assert len(depthwise) == 17
    assert all(shape.groups == shape.channels == shape.filters for shape in depthwise)
    grouped = [layer for layer in networks.resnext50(1) if "3x3" in layer.name]
    assert {layer.shape.groups for layer in grouped} == {32} and len(grouped) == 16


def test_the_set_has_what_was_asked_for():
    rows = [case.row() for case in SET]
    assert len({cases.key(row) for row in rows}) == len(rows)
    assert {row["op"] for row in rows} == set(ours.OPERATIONS)
    assert {row["op"] for row in rows} == set(report.OPERATIONS)
    for name, batches in (
        ("resnet50", {1, 32, 256}), ("vgg16", {1, 64}), ("cifar_vgg", {128, 512}),
        ("lenet", {128, 512}),
    ):  # fmt: skip
        plain = [r for r in rows if r["set"] == name and r["op"] == "conv_fprop"]
        assert {row["shape"]["batch"] for row in plain} == batches
    forward = [r for r in rows if r["op"] == "conv_fprop" and r["dtype"] == "float32"]
    resnet = [r for r in forward if r["set"] == "resnet50" and r["layout"] == "NHWC"]
    assert sum(row["shape"]["batch"] == 256 for row in resnet) == 23
    assert {row["math"] for row in rows} == {"strict", "mixed", "tf32", "fp32x3"}
    no_picture = [r for r in rows if r["op"] == "conv_dgrad" and r["shape"]["channels"] <= 4]
    assert no_picture == []


def test_a_short_run_has_some_of_everything():
    early = [case.row() for case in SET[:64]]
    assert {row["op"] for row in early} >= set(ours.OPERATIONS) - {
        "average_pool", "average_pool_backward",
    }  # fmt: skip
    assert {row["dtype"] for row in early} == {"float32", "float64", "bfloat16"}
    kinds = {cases.conv_kind(row["shape"]) for row in early if row["op"].startswith("conv")}
    assert kinds == set(report.KINDS)
    assert [case.set for case in SET[:9]] == ["resnet50"] * 9


def options(**given):
    names = ("set", "op", "dtype", "quick", "compile", "jax")
    return SimpleNamespace(**dict.fromkeys(names) | given)


def test_the_options_choose():
    only = bench.chosen(options(set=["vgg16"], op=["conv_wgrad"], dtype=["bfloat16"]))
    assert only and all((c.set, c.op, c.dtype) == ("vgg16", "conv_wgrad", "bfloat16") for c in only)
    quick = bench.chosen(options(quick=True))
    assert sorted(case.op for case in quick) == sorted(ours.OPERATIONS)
    peers = bench.chosen(options(compile=True, jax=True, set=["stems"]))
    assert {case.against for case in peers} == {"torch", "torch.compile", "jax"}
    assert all("bias" in case.op for case in peers if case.against != "torch")
    in_tf32 = bench.chosen(options(dtype=["tf32"]))
    assert {case.op for case in in_tf32} == set(cases.DIRECTIONS)
    assert {(case.dtype, case.math) for case in in_tf32} == {("float32", "tf32")}


# ---- floors -------------------------------------------------------------------------------------


def case_of(op, shape, mode=FLOAT32, **given):
    return Case(op, "some", "layer", shape, *mode, **given)


def test_a_floor_of_arithmetic_by_hand():
    """VGG-16's conv1_2 at N = 64: 64 * 224 * 224 * 64 * 64 * 9 multiply-adds at 67 TFLOP/s."""
    shape = ConvShape.of((64, 224, 224, 64), (64, 3, 3, 64), padding=1)
    case = case_of("conv_fprop", shape)
    assert floors.flops(case) == 236_760_072_192
    assert H200.floor_us(case) == pytest.approx(3533.7, rel=1e-4)
    half = floors.Ceilings.of("NVIDIA H200", {"bfloat16 mixed": 780.0, "bandwidth": 4300.0})
    # at 780 TFLOP/s it would take 304 us, less than 822 MB at 4.3 TB/s
    assert floors.fewest_bytes(case_of("conv_fprop", shape, BFLOAT16)) == 822_157_312
    assert half.floor_us(case_of("conv_fprop", shape, BFLOAT16)) == pytest.approx(303.5, rel=1e-3)


def test_a_floor_of_memory_by_hand():
    """A 1x1 window of stride 2 on 8x8 maps reads 16 of 64 pixels; all of dx is written."""
    shape = ConvShape.of((1, 8, 8, 32), (16, 1, 1, 32), strides=2)
    assert floors.fewest_bytes(case_of("conv_fprop", shape)) == 4 * (16 * 32 + 512 + 16 * 16)
    assert floors.fewest_bytes(case_of("conv_dgrad", shape)) == 4 * (64 * 32 + 512 + 16 * 16)
    pool = PoolShape.of((2, 8, 8, 3), 2, mode="max", rank=2)
    # x, y, and an index of one byte
    assert floors.fewest_bytes(case_of("max_pool", pool)) == 4 * 384 + 96 * (4 + 1)
    vector = case_of("activation_forward", cases.VectorShape(4800, "relu"))
    assert H200.floor_us(vector) == pytest.approx(8 * 4800 / 4.8e6)
    adam = case_of("adam_update", ParameterShape((1000, 24)))
    assert floors.fewest_bytes(adam) == 7 * 4 * 1024


def test_ceilings():
    measured = {"float32 strict": 51.0, "float64 strict": 60.0, "bandwidth": 4300.0}
    known = floors.Ceilings.of("NVIDIA H200", measured)
    assert known.tflops["float32 strict"] == 67 and known.tflops["float64 strict"] == 60
    assert known.bandwidth == 4300
    unknown = floors.Ceilings.of("NVIDIA Later", measured)
    assert unknown.tflops["float32 strict"] == 51
    nothing = floors.Ceilings.of("NVIDIA Later")
    assert nothing.floor_us(case_of("max_pool", PoolShape.of((1, 4, 4, 1), 2, mode="max", rank=2)))\
        is None  # fmt: skip


# ---- both sides of every operation, on the CPU --------------------------------------------------


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
    assert ("_b32" if op == "change_layout" else "_f32") in row["algorithm"]


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


# ---- time ---------------------------------------------------------------------------------------


class Clock:
    """Stands still but for ``tick``."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowBench:
    """Takes ten seconds a row, one for a pool; the third fails, the fourth loses the GPU."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.rows = clock, 0

    def measure(self, case: Case) -> dict:
        self.clock.now += 1 if case.op == "max_pool" else 10
        self.rows += 1
        good = {"ours_us": 1.0, "tflops": 1.0, "gbps": 1.0, "speedup": 2.0, "err_ours": 0.0}
        return {"error": "ValueError: no"} if self.rows == 3 else good

    def healthy(self) -> bool:
        return self.rows != 4


def test_short_rows_fill_the_time_that_a_long_one_does_not_fit(tmp_path):
    clock, results = Clock(), Results(tmp_path / "r.json", {"gpu": "none"})
    pools = [case for case in SET if (case.op, case.set) == ("max_pool", "vgg16")]
    convs = [case for case in SET if case.op == "conv_fprop"]
    in_order = [pools[0], convs[0], convs[1], pools[1]]
    assert bench.run(SlowBench(clock), in_order, results, Deadline(16, clock)) == 1
    assert [row["op"] for row in results.rows] == ["max_pool", "conv_fprop", "max_pool"]


def test_a_benchmark_ends_before_its_time(tmp_path):
    clock = Clock()
    results = Results(tmp_path / "r.json", {"gpu": "none"})
    left = bench.run(SlowBench(clock), SET[:10], results, Deadline(35, clock))
    assert (left, clock.now) == (7, 30)  # for a fourth row there were only 5 s
    rows = Results(tmp_path / "r.json").rows
    assert Results(tmp_path / "r.json").meta == {"gpu": "none", "left_out_rows": 7}
    assert [row.get("error") for row in rows] == [None, None, "ValueError: no"]
    assert all(problems(row) == [] for row in rows)


def test_a_benchmark_goes_on_where_another_lost_the_gpu(tmp_path):
    clock = Clock()
    results = Results(tmp_path / "r.json")
    slow = SlowBench(clock)
    with pytest.raises(SystemExit) as stop:
        bench.run(slow, SET[:10], results, Deadline(1000, clock))
    assert stop.value.code == bench.DEVICE_LOST
    results = Results(tmp_path / "r.json")
    assert results.rows[-1]["error"] == f"measured; {bench.LOST}"
    results.begin(SET[4].row())  # a process that died in this row
    again = Results(tmp_path / "r.json")
    assert again.rows[-1]["error"].startswith("the process ended")
    # both were dgrads, which are given up now: the third is left out
    assert [case.op for case in SET[3:6]] == ["conv_dgrad"] * 3
    assert bench.run(slow, SET[:10], again, Deadline(1000, clock)) == 1
    ran = [case for case in SET[:10] if case is not SET[5]]
    assert [cases.key(row) for row in again.rows] == [cases.key(case.row()) for case in ran]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_jobs_end_by_themselves_or_are_ended(tmp_path):
    good = Job("good", python("print('all well')"), 20)
    bad = Job("bad", python("import sys; sys.exit(5)"), 20)
    slow = Job(
        "slow",
        python(
            "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('kept', flush=True)"
        ),
        1.0,
    )
    missing = Job("missing", ["no-such-program-anywhere"], 20)
    run_all([slow, good, bad, missing], tmp_path, 4, Deadline(60))
    assert (good.code, good.tail(), good.stopped) == (0, "all well", "")
    assert bad.code == 5
    assert slow.stopped == "its time was up after 1 s" and "kept" in slow.tail()
    assert missing.code == 127 and "cannot be started" in missing.stopped


def test_a_job_that_writes_nothing_hangs(tmp_path):
    progress = tmp_path / "progress"
    progress.touch()
    job = Job("hangs", python("import time; time.sleep(60)"), 60, progress, idle=0.5)
    run_all([job], tmp_path, 1, Deadline(60))
    assert job.stopped == "nothing happened for 0 s" and job.took < 20


def test_a_deadline_starts_nothing_when_it_is_over(tmp_path):
    job = Job("late", python("print('here')"), 20)
    run_all([job], tmp_path, 1, Deadline(0.5))
    assert job.code is None and "no time left" in job.stopped


# ---- graphs -------------------------------------------------------------------------------------


class FakeStream:
    """Takes note of what is done on it; a capture fails if it is told so."""

    def __init__(self, fails: bool) -> None:
        self.fails, self.done, self.now = fails, [], 0.0

    def begin_capture(self):
        self.done.append("begin")

    def end_capture(self):
        self.done.append("end")
        if self.fails:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated: why\nmore")
        return SimpleNamespace(launch=lambda stream: self.pass_(6.0))

    def pass_(self, milliseconds):
        self.done.append("pass")
        self.now += milliseconds

    def synchronize(self):
        pass

    def record(self, event):
        event.time = self.now
        return event


def fake_timer(fails: bool) -> timing.CudaTimer:
    timer = object.__new__(timing.CudaTimer)
    timer.stream = FakeStream(fails)
    timer.cupy = SimpleNamespace(
        cuda=SimpleNamespace(
            Event=lambda: SimpleNamespace(time=0.0),
            get_elapsed_time=lambda a, b: b.time - a.time,
        )
    )
    return timer


def test_sides_are_replayed_in_turn():
    timer = fake_timer(fails=False)
    calls = [lambda: "result"] * 3
    side = timer.ours(calls)
    assert (side.how, side.calls) == ("graph", 3)
    assert side.kept[0] is calls and side.kept[1][1] == ["result"] * 3
    other = timing.Side(lambda: timer.stream.pass_(9.0), 3, "graph", lambda: None)
    mine, theirs = timer.compare([side, other], seconds=100)
    assert (mine.median, theirs.median) == (2000.0, 3000.0)  # us of one of three calls
    assert mine.samples == timing.SAMPLES
    assert timer.compare([side], seconds=1e-9)[0].samples == timing.FEWEST_SAMPLES


def test_what_pytorchs_calls_read_lives_as_long_as_their_graph():
    """Their inputs may be copies of their own, whose memory a graph reads without holding it."""
    timer = fake_timer(fails=False)
    graph = SimpleNamespace(replay=lambda: None)
    timer.torch = SimpleNamespace(
        cuda=SimpleNamespace(
            synchronize=lambda: None, CUDAGraph=lambda: graph, graph=lambda *a, **k: nullcontext()
        )
    )
    calls = [lambda: "result"] * 2
    side = timer.peer(calls)
    assert (side.how, side.launch) == ("graph", graph.replay)
    assert side.kept[0] is calls and side.kept[1:] == (graph, ["result"] * 2)


def test_a_capture_that_fails_becomes_a_loop():
    timer = fake_timer(fails=True)
    called = []
    side = timer.ours([lambda: called.append(1)] * 2)
    assert side.how == "loop"
    assert side.why == "RuntimeError: cudaErrorStreamCaptureInvalidated: why"
    called.clear()
    side.launch()
    assert called == [1, 1]


# ---- results and report -------------------------------------------------------------------------


def synthetic(path: Path) -> Results:
    """A results file with groups, a slow row, a failed one and one that a peer lacks."""
    meta = {
        "gpu": "NVIDIA H200", "date": "2026-01-31", "commit": "1a2b3c4", "torch": "2.11",
        "measured": {"bandwidth": 4300.0, "bfloat16 mixed": 780.0, "float32 strict": 51.0},
        "tests": {
            "passed": 9, "failed": 1, "errors": 0, "skipped": 0, "stopped": [],
            "failures": ["tests.x::y: dx"],
        },
        "ptx": {"mma": "passed", "tma": "left out: no libcuda"},
        "sanitizer": {"memcheck": {"passed": True, "said": "ERROR SUMMARY: 0 errors", "ran": "9"}},
        "left_out": {"sanitize": "not installed"}, "left_out_rows": 7,
    }  # fmt: skip
    results = Results(path, meta)
    wanted = [case for case in SET[:90] if case.dtype != "float64"]
    for place, case in enumerate(wanted):
        floor = H200.floor_us(case)
        us = 2 * floor
        row = {
            "algorithm": "kernel", "peer": "torch channels_last", "ours_us": us, "ours_iqr_us": 0.1,
            "peer_us": us * (4.0 if place % 2 else 1.0), "peer_iqr_us": 0.1,
            "speedup": 4.0 if place % 2 else 1.0, "tflops": floors.flops(case) / us / 1e6,
            "gbps": floors.fewest_bytes(case) / us / 1e3, "floor_us": floor, "err_ours": 1e-6,
            "err_peer": 2e-6, "timing": "graph",
        }  # fmt: skip
        results.begin(case.row())
        if place == 3:
            results.end(error="ValueError: no")
        elif place == 4:
            results.end(**{**row, "speedup": 0.5})
        else:
            results.end(**row)
    return results


def test_rows_have_the_form_of_a_results_file(tmp_path):
    results = synthetic(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert set(content) == {"meta", "rows"} and len(content["rows"]) == len(results.rows)
    assert all(problems(row) == [] for row in content["rows"])
    assert not list(tmp_path.glob("*.partial"))
    for name in ("op", "set", "shape", "dtype", "math", "layout", "algorithm", "ours_us"):
        assert name in content["rows"][0]
    broken = {**content["rows"][0], "ours_us": "fast", "shape": None}
    del broken["peer"]
    assert problems(broken) == [
        "peer is missing", "ours_us is no number", "shape is no object",
    ]  # fmt: skip


def test_a_group_has_one_kind_one_operation_one_format(tmp_path):
    results = synthetic(tmp_path / "r.json")
    grouped = report.groups(results.rows)
    assert sum(map(len, grouped.values())) == len(results.rows)
    assert ("float32 strict", "depthwise", "conv_fprop", "torch") in grouped
    assert next(iter(grouped)) == ("float32 strict", "plain", "conv_fprop", "torch")
    assert len(report.counted(results.rows)) == len(results.rows) - 1


def test_the_page_says_what_the_file_holds(tmp_path):
    path = tmp_path / "r.json"
    results = synthetic(path)
    assert [file.name for file in report.write(path)] == [
        "r.json", "r.md", "r-roofline.png", "r-ratios.png",
    ]  # fmt: skip
    page = (tmp_path / "r.md").read_text()
    assert page.startswith("# NVIDIA H200, 2026-01-31, commit 1a2b3c4")
    assert "![](r-roofline.png)" in page
    failed, slow = results.rows[3], results.rows[4]
    assert f"- {report.title(failed)}: ValueError: no" in page
    assert f"| 0.50 | {report.title(slow)} | torch channels_last |" in page
    assert "## Below 0.9x: 1 of " in page
    assert "7 rows of the benchmark set" in page and "- sanitize: not installed" in page
    assert "9 passed, 1 failed" in page and "tests.x::y: dx" in page
    assert "tma: left out: no libcuda" in page and "1 of 2 cases passed" in page
    # rows at 1x and 4x: their geometric mean; twice the floor's time
    speedups = [row["speedup"] for row in results.rows if row["op"] == "max_pool"]
    assert set(speedups) == {1.0, 4.0}
    mean = prod(speedups) ** (1 / len(speedups))
    line = f"| max_pool, float32 strict | {len(speedups)} | {mean:.2f} | 1.00 | 4.00 |  | 50% |"
    assert line in page
    widths = {
        len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")
    }
    assert widths == {4, 8, 14}


def test_pictures_are_the_same_for_the_same_file(tmp_path):
    results = synthetic(tmp_path / "r.json")
    pictures = [
        [file.read_bytes() for file in figures.write(results, tmp_path / name)]
        for name in ("a.json", "b.json")
    ]
    assert pictures[0] == pictures[1] and all(len(p) > 10_000 for p in pictures[0])
    (tmp_path / "empty").mkdir()
    assert figures.write(Results(tmp_path / "none.json", results.meta), tmp_path / "empty/e") == []


def test_a_page_of_nothing(tmp_path):
    meta = {"gpu": "NVIDIA H200", "date": "2026-01-31", "commit": "1", "left_out": {"bench": "no"}}
    results = Results(tmp_path / "r.json", meta)
    results.save()
    report.write(tmp_path / "r.json")
    assert "- bench: no" in (tmp_path / "r.md").read_text()
    assert "0 rows, 0 failed" in command.closing(results)


# ---- the parts and the command ------------------------------------------------------------------

REPORT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="1" failures="1"
skipped="2" tests="9"><testcase classname="tests.a" name="good"/><testcase classname="tests.a"
name="bad[x]"><failure message="AssertionError: dx&#10;more">long</failure></testcase><testcase
classname="" name="tests.b"><error message="collection failure">long</error></testcase>
</testsuite></testsuites>"""


def test_shares_are_added_up(tmp_path):
    share = parts.report_of(tmp_path, 0)
    share.write_text(REPORT)
    found = parts.tests_summary([Job("tests-0", [], 1, code=1), Job("tests-1", [], 1)], tmp_path)
    assert {k: found[k] for k in ("passed", "failed", "errors", "skipped")} == {
        "passed": 5, "failed": 1, "errors": 1, "skipped": 2,
    }  # fmt: skip
    assert found["stopped"] == ["tests-1: exit status None"]
    assert found["failures"] == [
        "tests.a::bad[x]: AssertionError: dx", "::tests.b: collection failure",
    ]  # fmt: skip
    assert not parts.clean({"tests": found})


def job_that_said(folder: Path, name: str, text: str, code: int) -> Job:
    log = folder / f"{name}.log"
    log.write_text(text)
    return Job(name, [], 1, code=code, log=log)


def test_sanitizers_are_understood(tmp_path):
    said = "========= COMPUTE-SANITIZER\n{}\n========= {}\n"
    good = said.format("497 calls, 0 failed; float32", "ERROR SUMMARY: 0 errors")
    race = said.format(
        "========= Error: Race reported between Write access at x.cu:7", "RACECHECK SUMMARY: 1"
    )
    other = "========= COMPUTE-SANITIZER\n========= Error: Device not supported.\n"
    found = parts.sanitize_summary(
        [
            job_that_said(tmp_path, "sanitizer-memcheck", good, 0),
            job_that_said(tmp_path, "sanitizer-racecheck", race, parts.FOUND),
            job_that_said(tmp_path, "sanitizer-initcheck", other, 1),
        ]
    )
    assert found["memcheck"] == {
        "passed": True, "said": "ERROR SUMMARY: 0 errors", "ran": "497 calls, 0 failed; float32",
    }  # fmt: skip
    assert found["racecheck"]["passed"] is False and "x.cu:7" in found["racecheck"]["first"]
    assert found["initcheck"]["said"].startswith("left out")
    assert not parts.clean({"sanitizer": found})
    del found["racecheck"]
    assert parts.clean({"sanitizer": found})


def test_ptx_cases_are_understood(tmp_path):
    found = parts.ptx_summary(
        [
            job_that_said(tmp_path, "ptx-a", "passed\n", 0),
            job_that_said(tmp_path, "ptx-b", "warning\nthis GPU has no such\n", parts.LEFT_OUT),
            job_that_said(tmp_path, "ptx-c", "AssertionError: off by 3\n", 1),
        ]
    )
    assert found == {
        "a": "passed", "b": "left out: this GPU has no such", "c": "AssertionError: off by 3",
    }  # fmt: skip
    assert not parts.clean({"ptx": found})


def test_shares_are_all_the_tests_and_no_test_twice():
    items = [SimpleNamespace(nodeid=f"test_{i}") for i in range(23)]
    shares, left = [], []
    for which in range(4):
        mine = list(items)
        config = SimpleNamespace(
            getoption=lambda name, which=which: f"{which}/4",
            hook=SimpleNamespace(pytest_deselected=lambda items: left.append(len(items))),
        )
        shard.pytest_collection_modifyitems(config, mine)
        shares.append({item.nodeid for item in mine})
    assert set.union(*shares) == {item.nodeid for item in items}
    assert sum(map(len, shares)) == 23 and left == [23 - len(share) for share in shares]


def test_every_operation_against_the_reference(capsys):
    assert sanitized.main(["--backend", "numpy", "--compare"]) == 0
    done = re.search(r"(\d+) calls, 0 failed", capsys.readouterr().out)
    assert int(done[1]) > 400
    names = {call.operation for call in sanitized.calls("float32")}
    abstract = type(get_backend("numpy")).__mro__[1:]
    wanted = {name for base in abstract for name in getattr(base, "__abstractmethods__", ())}
    wanted |= {"batch_norm_pool_train", "conv_pool_forward", "conv_pool_backward"}
    assert names == wanted - {"owns", "asarray", "to_numpy", "synchronize", "memory"}
    forced = {c.algorithm.name for d in DTYPES for c in sanitized.calls(d, 90) if c.algorithm}
    assert forced == {*ALGORITHMS, *LADDER}


def test_a_wrong_operation_does_not_pass(monkeypatch, capsys):
    backend = get_backend("numpy")
    right = backend.conv_wgrad
    monkeypatch.setattr(backend, "conv_wgrad", lambda *given: right(*given) * 1.01)
    assert sanitized.main(["--backend", "numpy", "--compare", "--dtype", "float32"]) == 1
    assert "conv_wgrad in float32: result 0 is off by" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
@pytest.mark.slow
def test_without_a_gpu_the_command_says_what_it_left_out(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(machine, "gpu", lambda: (None, "no driver"))
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    assert "no GPU here: no driver" in said
    assert re.search(
        r"operations, in the emulator: \d+ calls, 0 failed; (stopped in )?float32", said
    )
    assert re.search(r"(\d+) of \1 cases passed", said)
    for what in (*command.WITHOUT_GPU.values(), "the tests marked gpu"):
        assert f"left out: {what}" in said
    assert not list(tmp_path.glob("*.json"))


GPU = {"gpu": "NVIDIA H200", "driver": "580", "cuda": "13.0"}


def test_what_fails_on_a_gpu_is_left_out_and_the_rest_is_kept(tmp_path, monkeypatch, capfd):
    """A machine that says it has a GPU and has not: the benchmark's process fails at its start."""
    monkeypatch.setattr(machine, "gpu", lambda: (dict(GPU), ""))
    monkeypatch.setattr(machine, "compute_sanitizer", lambda: None)
    given = ["bench", "steps", "sanitize", "report", "--out", str(tmp_path), "--commit", "1a2b3c4"]
    assert command.main(given) == 0
    (path,) = tmp_path.glob("h200-*-1a2b3c4.json")
    meta = Results(path).meta
    assert meta["left_out"]["sanitize"] == "compute-sanitizer is not installed"
    assert "the CUDA backend needs" in meta["left_out"]["bench"]
    assert "the CUDA backend needs" in meta["left_out"]["steps"]
    assert path.with_suffix(".md").exists()
    said = capfd.readouterr().out
    assert "left out bench: " in said
    with pytest.raises(SystemExit, match="holds rows of commit 1a2b3c4"):
        command.main(["bench", "--file", str(path), "--commit", "other"])


def test_a_part_that_fails_in_itself_costs_no_other(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(machine, "gpu", lambda: (dict(GPU), ""))
    monkeypatch.setattr(parts, "ptx_jobs", lambda: 1 / 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "has", lambda module: module != "torch")
    monkeypatch.setattr(machine, "compute_sanitizer", lambda: None)
    monkeypatch.setattr(report, "write", lambda path: 1 / 0)
    assert command.main(["ptx", "bench", "report", "--out", "here", "--commit", "1"]) == 0
    (path,) = (tmp_path / "here").glob("*.json")
    left_out = Results(path).meta["left_out"]
    assert left_out["ptx"] == "ZeroDivisionError: division by zero"
    assert left_out["bench"] == "PyTorch is not installed"
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_missing_pytest_or_torch_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "has", lambda module: False)
    (job,) = parts.test_jobs(tmp_path, quick=False)
    assert "profiling.gpu.sanitized" in job.command and "--compare" in job.command
    ended = job_that_said(tmp_path, "tests", "497 calls, 0 failed", 0)
    assert parts.tests_summary([ended], tmp_path)["passed"] is True
    run = object.__new__(command.Run)
    run.left_out, run.options = {}, parser("", 1.0).parse_args([])
    run.ladder(alone=True)
    run.bench()
    run.steps()
    assert run.left_out == {
        **dict.fromkeys(("ladder", "bench", "steps"), "PyTorch is not installed"),
        "steps against JAX": "JAX is not installed",
    }


def test_measuring_parts_share_the_time_and_get_their_options(tmp_path, monkeypatch):
    """Each program ends when its time is up; the steps' process against JAX comes last."""
    clock, ran = Clock(), []

    def run_all(jobs, logs, at_once, deadline):
        for job in jobs:
            ran.append((job.name, deadline.left(), job.command[2:]))
            clock.now += deadline.left()
            job.code = 0

    monkeypatch.setattr(command, "run_all", run_all)
    monkeypatch.setattr(command, "Deadline", lambda seconds: Deadline(seconds, clock))
    monkeypatch.setattr(machine, "has", lambda module: True)
    run = object.__new__(command.Run)
    given = ["--dtype", "bfloat16", "--network", "lenet5", "--op", "conv_fprop", "--quick"]
    run.options = parser("", 1.0).parse_args([*given, "--cifar", "here"])
    run.results = SimpleNamespace(meta={"commit": "1a2b3c4"})
    run.left_out, run.path, run.logs = {}, tmp_path / "r.json", tmp_path
    run.deadline = Deadline(580, clock)
    run.ladder(alone=False)
    run.bench(command.STEPS_SHARE)
    run.steps()
    names, seconds, commands = zip(*ran, strict=True)
    assert names == ("ladder-0", "bench-0", "steps-0", "airbench", "steps-jax-0")
    assert seconds == pytest.approx((60, 200, 144, 120, 36))
    ladder, *commands = commands
    assert ladder[:4] == ["profiling.gpu.bench", "--ladder", "--file", str(run.path)]
    assert commands[0][:6] == [
        "profiling.gpu.bench", "--quick", "--op", "conv_fprop", "--dtype", "bfloat16",
    ]  # fmt: skip
    steps = ["profiling.gpu.steps", "--network", "lenet5", "--dtype", "bfloat16"]
    assert commands[1][:7] == [*steps, "--file", str(run.path)]
    assert commands[2][:3] == ["profiling.gpu.airbench", "--data", "here"]
    assert commands[3][:6] == [*steps, "--jax"]
    assert clock.now == pytest.approx(560) and run.left_out == {}


def test_the_command_refuses_what_is_no_part(capsys):
    with pytest.raises(SystemExit):
        command.main(["banch"])
    assert "Received: banch" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["report"])


def test_sources_have_a_name_without_git(monkeypatch):
    monkeypatch.setattr(machine, "_output", lambda *command: "")
    name = machine.describe(None)["commit"]
    assert re.fullmatch(r"tree-[0-9a-f]{8}", name)
    assert machine.describe("1a2b3c4")["commit"] == "1a2b3c4"
    assert Path(__file__).parents[1] == jobs.ROOT and FLOAT64 == ("float64", "strict")
