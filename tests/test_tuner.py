"""The tuner with a pretended clock: what it compiles, times, keeps and finds again."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpucnn
from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.cuda import CudaBackend, CupyLauncher
from gpucnn.backends.cuda import plans as estimated
from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Plan, Problem
from gpucnn.backends.cuda.algorithms.winograd import BLOCKS, CONV, FILTERS
from gpucnn.backends.cuda.compiler import identity
from gpucnn.backends.cuda.dropout import DROPOUT
from gpucnn.backends.cuda.tuning import DryRun, Entry, GraphTimer, Store, TunedPlans, Tuner, timing
from gpucnn.backends.cuda.tuning.tuner import CANDIDATES
from gpucnn.shapes import ConvShape
from gpucnn.tuning import problems

from .cases import random
from .emulator_launcher import EmulatorLauncher
from .tuning import FakeLauncher, FakeTimer, fake_backend, fake_cubin, fake_tuner

# small, and with plans of more than one algorithm forward
CONV_SHAPE = ConvShape.of((1, 6, 5, 16), (16, 3, 3, 16), padding=1)
PROBLEM = Problem("fprop", CONV_SHAPE, "float32", "relu")


def slowest_estimate(problem: Problem = PROBLEM) -> Plan:
    return estimated.shortlist(problem, CANDIDATES)[-1]


def favouring(wanted: Plan) -> FakeTimer:
    return FakeTimer(lambda plan: 1.5 if plan == wanted else 7.0)


# ---- the fastest is found, kept and used ---------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_fastest_is_kept_and_found_by_another_process(tmp_path, direction):
    problem = Problem(direction, CONV_SHAPE, "float32")
    wanted, backend = slowest_estimate(problem), fake_backend(tmp_path)
    assert backend.plans.choose(problem) == estimated.choose(problem) != wanted
    entry = fake_tuner(backend, favouring(wanted)).tune(problem)
    assert entry.plan == wanted
    measured = estimated.shortlist(problem, CANDIDATES)
    assert entry.times == {plan: 1.5 if plan == wanted else 7.0 for plan in measured}
    assert backend.plans.choose(problem) == wanted

    later = FakeLauncher()
    assert fake_backend(tmp_path, later).plans.choose(problem) == wanted
    assert later.preloaded == entry.cubins
    dry = DryRun(backend)
    arrays = {"fprop": (0, 1, None), "dgrad": (2, 1, None), "wgrad": (0, 2)}[direction]
    shapes = CONV_SHAPE.x_shape, CONV_SHAPE.w_shape, CONV_SHAPE.y_shape
    arrays = [None if i is None else np.zeros(shapes[i], np.float32) for i in arrays]
    ALGORITHMS[wanted.algorithm].run(dry.backend, problem, wanted, *arrays)
    assert entry.cubins == {identity(k, "sm_90"): fake_cubin(k, "sm_90") for k in dry.kernels}


@pytest.mark.parametrize("direction", ["fprop", "wgrad"])
def test_a_norm_on_load_is_measured_beside_its_own_pass(tmp_path, direction):
    shape = ConvShape.of((4, 16, 16, 24), (16, 1, 1, 24))
    problem, backend = Problem(direction, shape, "bfloat16", prologue=True), fake_backend(tmp_path)
    for on_load in (True, False):
        timer = FakeTimer(
            lambda plan, wanted=on_load: (
                1.0 if ALGORITHMS[plan.algorithm].norms_on_load(problem, plan) == wanted else 7.0
            )
        )
        entry = fake_tuner(backend, timer).tune(problem, again=True)
        assert not entry.failures and set(entry.times.values()) == {1.0, 7.0}
        kernels = {name for name in map(bytes.decode, entry.cubins.values())}
        assert any("_norm " in name for name in kernels) == on_load
        assert any(name.startswith("batch_norm.cu") for name in kernels) != on_load


def test_every_plan_survives_the_disk_in_full(tmp_path):
    store, launcher = Store(tmp_path), FakeLauncher()
    shapes = (
        CONV_SHAPE,
        ConvShape.of((2, 9, 9, 32), (32, 3, 3, 1), strides=2, groups=32),
        ConvShape.of((2, 8, 12), (6, 3, 4), groups=2, channels_last=False),
    )
    for shape in shapes:
        for direction in DIRECTIONS:
            for dtype in ("float64", "bfloat16", "float32"):
                problem = Problem(direction, shape, dtype)
                plans = list(estimated.candidates(problem))
                times = {plan: float(i) for i, plan in enumerate(plans)}
                assert len(times) == len(plans)
                entry = Entry(plans[-1], times, {"a": b"b"}, {plans[0]: "why"})
                store.write(problem, launcher.environment(), entry)
                assert store.read(problem, launcher.environment()) == entry


def test_what_is_kept_is_not_measured_again(tmp_path):
    wanted = slowest_estimate()
    fake_tuner(fake_backend(tmp_path), favouring(wanted)).tune(PROBLEM)
    tuner = fake_tuner(fake_backend(tmp_path), favouring(estimated.choose(PROBLEM)))
    assert tuner.tune(PROBLEM).plan == wanted and not tuner.timer.timed
    assert tuner.tune(PROBLEM, again=True).plan == estimated.choose(PROBLEM)
    assert fake_backend(tmp_path).plans.choose(PROBLEM) == estimated.choose(PROBLEM)


@pytest.mark.parametrize("changed", ["gpu", "driver", "compiler", "kernels"])
def test_what_was_measured_elsewhere_is_not_found(tmp_path, changed):
    fake_tuner(fake_backend(tmp_path), favouring(slowest_estimate())).tune(PROBLEM)
    other = fake_backend(tmp_path, FakeLauncher(**{changed: "another"}))
    assert other.plans.choose(PROBLEM) == estimated.choose(PROBLEM)
    for problem in (
        replace(PROBLEM, activation="linear"), replace(PROBLEM, dtype="float16"),
        replace(PROBLEM, shape=replace(CONV_SHAPE, batch=2)), replace(PROBLEM, architecture=80),
    ):  # fmt: skip
        assert fake_backend(tmp_path).plans.choose(problem) == estimated.choose(problem)


def test_a_look_is_taken_once_and_costs_no_compiler(tmp_path, monkeypatch):
    backend = fake_backend(tmp_path)
    reads: list[Problem] = []
    read = backend.plans.store.read
    monkeypatch.setattr(
        backend.plans.store, "read", lambda problem, *_: reads.append(problem) or read(problem, *_)
    )
    x, w = np.zeros(CONV_SHAPE.x_shape, np.float32), np.zeros(CONV_SHAPE.w_shape, np.float32)
    for _ in range(3):
        backend.conv_fprop(x, w, None, CONV_SHAPE, "relu")
    assert reads == [PROBLEM]
    assert not list(tmp_path.iterdir())


def test_the_stored_plan_settles_the_bits(tmp_path):
    """End to end in the emulator: what the tuner kept runs, and its order of sums with it."""

    class Launcher(FakeLauncher, EmulatorLauncher):
        def __init__(self) -> None:
            FakeLauncher.__init__(self)
            EmulatorLauncher.__init__(self, "fast")

        def launch(self, *what: object) -> None:
            EmulatorLauncher.launch(self, *what)

    x = random("x", CONV_SHAPE.x_shape, np.float32)
    w = random("w", CONV_SHAPE.w_shape, np.float32)
    plain, results = CudaBackend(np, EmulatorLauncher("fast")), set()
    for name in ("implicit_gemm", "winograd"):
        algorithm = ALGORITHMS[name]
        plan = next(algorithm.plans(PROBLEM))
        fake_tuner(fake_backend(tmp_path, Launcher()), favouring(plan)).tune(PROBLEM, again=True)
        y = fake_backend(tmp_path, Launcher()).conv_fprop(x, w, None, CONV_SHAPE, "relu")
        np.testing.assert_array_equal(y, algorithm.run(plain, PROBLEM, plan, x, w, None))
        results.add(y.tobytes())
    assert len(results) == 2, "else this would not show which plan ran"


# ---- what is damaged is made anew ----------------------------------------------------------------


def entry_file(folder: Path) -> Path:
    (file,) = folder.glob("*.json")
    return file


def cubin_file(folder: Path) -> Path:
    return next(folder.glob("*.cubin"))


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(entry_file(folder).read_text())
    changed = change(content)
    entry_file(folder).write_text(json.dumps(content if changed is None else changed))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda f: entry_file(f).write_bytes(b""),
    "cut": lambda f: entry_file(f).write_bytes(entry_file(f).read_bytes()[:-40]),
    "no text": lambda f: entry_file(f).write_bytes(b"\xff\xfe\x00"),
    "a list": lambda f: rewrite(f, lambda c: [c]),
    "a number": lambda f: rewrite(f, lambda c: 3),
    "another problem's": lambda f: rewrite(f, lambda c: c["key"].update(driver="9")),
    "no plan": lambda f: rewrite(f, lambda c: c.pop("plan")),
    "an unknown algorithm": lambda f: rewrite(f, lambda c: c["plan"].update(algorithm="fft")),
    "other settings": lambda f: rewrite(f, lambda c: c["plan"].update(settings={"tile": 3})),
    "another grid": lambda f: rewrite(f, lambda c: c["plan"].update(grid=[7, 7, 7])),
    "no times": lambda f: rewrite(f, lambda c: c.update(times_us=None)),
    "a time that is none": lambda f: rewrite(f, lambda c: c["times_us"][0].__setitem__(1, "fast")),
    "no cubins": lambda f: rewrite(f, lambda c: c.update(cubins=[])),
    "a cubin's name that is none": lambda f: rewrite(f, lambda c: c.update(cubins={"a": 7})),
    "a missing cubin": lambda f: cubin_file(f).unlink(),
    "a cut cubin": lambda f: cubin_file(f).write_bytes(cubin_file(f).read_bytes()[:-1]),
    "a foreign cubin": lambda f: cubin_file(f).write_bytes(b"foreign"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_counts_as_none_and_is_made_anew(tmp_path, damage):
    wanted = slowest_estimate()
    fake_tuner(fake_backend(tmp_path), favouring(wanted)).tune(PROBLEM)
    damage(tmp_path)
    assert fake_backend(tmp_path).plans.choose(PROBLEM) == estimated.choose(PROBLEM)
    tuner = fake_tuner(fake_backend(tmp_path), favouring(wanted))
    assert tuner.tune(PROBLEM).plan == wanted and tuner.timer.timed
    assert fake_backend(tmp_path).plans.choose(PROBLEM) == wanted


def test_a_plan_that_is_no_candidate_any_more_is_not_used(tmp_path, monkeypatch):
    wanted = slowest_estimate()
    fake_tuner(fake_backend(tmp_path), favouring(wanted)).tune(PROBLEM)
    algorithm = ALGORITHMS[wanted.algorithm]
    left = [plan for plan in algorithm.plans(PROBLEM) if plan != wanted]
    monkeypatch.setattr(algorithm, "plans", lambda problem: iter(left), raising=False)
    assert fake_backend(tmp_path).plans.choose(PROBLEM) in estimated.candidates(PROBLEM)
    assert fake_backend(tmp_path).plans.read(PROBLEM) is None


def test_writers_and_readers_at_once_see_whole_entries(tmp_path):
    store, environment = Store(tmp_path), FakeLauncher().environment()
    plans = estimated.ranked(PROBLEM)
    entries = [Entry(p, {p: 1.0}, {"a": p.algorithm.encode() * 9999}) for p in plans]
    store.write(PROBLEM, environment, entries[0])

    def write(entry: Entry) -> None:
        for _ in range(10):
            Store(tmp_path).write(PROBLEM, environment, entry)

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, entry) for entry in entries]
        while not all(future.done() for future in writing):
            assert store.read(PROBLEM, environment) in entries
    for future in writing:
        future.result()
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))


# ---- candidates ----------------------------------------------------------------------------------


def test_at_most_twelve_are_measured(tmp_path, monkeypatch):
    gemm = ALGORITHMS["implicit_gemm"]
    (one, *_), asked = list(gemm.plans(PROBLEM)), []
    many = [replace(one, grid=(one.grid[0] + i, *one.grid[1:])) for i in range(30)]
    monkeypatch.setattr(gemm, "plans", lambda problem: asked.append(1) or iter(many), raising=False)
    tuner = fake_tuner(fake_backend(tmp_path), FakeTimer(lambda plan: 1.0))
    tuner.tune(PROBLEM)
    assert asked and len(tuner.timer.timed) == CANDIDATES == 12


def test_a_plan_that_fails_leaves_the_others_their_turn(tmp_path):
    plans = estimated.shortlist(PROBLEM, CANDIDATES)
    first, *others = [plan for plan in plans if plan.algorithm != "winograd"]

    def compile(kernel, architecture):
        if kernel.function.startswith("conv_winograd"):
            raise ValueError("no such\ninstruction")
        return fake_cubin(kernel, architecture)

    def microseconds(plan):
        if plan == first:
            raise MemoryError
        return 5.0

    backend = fake_backend(tmp_path)
    entry = fake_tuner(backend, FakeTimer(microseconds), compile).tune(PROBLEM)
    assert entry.failures.pop(first) == "MemoryError:"
    assert entry.plan in others
    assert set(entry.failures.values()) == {"ValueError: no such"}
    assert {plan.algorithm for plan in entry.failures} >= {"winograd"}


def test_where_nothing_runs_nothing_is_kept(tmp_path):
    def microseconds(plan):
        raise RuntimeError("the GPU is gone")

    with pytest.raises(RuntimeError, match=r"no plan runs: .*the GPU is gone.* Received: "):
        fake_tuner(fake_backend(tmp_path), FakeTimer(microseconds)).tune(PROBLEM)
    assert not list(tmp_path.iterdir())


def test_a_module_is_compiled_once_and_several_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    together, compiled = threading.Barrier(2, timeout=20), []

    def compile(kernel, architecture):
        compiled.append(identity(kernel, architecture))
        if len(compiled) <= 2:
            together.wait()  # for another one that is being compiled
        return fake_cubin(kernel, architecture)

    tuner = fake_tuner(fake_backend(tmp_path), FakeTimer(lambda plan: 1.0), compile)
    tuner.tune(PROBLEM)
    assert len(set(compiled)) == len(compiled) >= 4
    before = len(compiled)
    tuner.tune(replace(PROBLEM, shape=replace(CONV_SHAPE, batch=3)))
    assert len(compiled) == before, "the same kernels, for another shape"


def test_inputs_are_noise(tmp_path):
    class Timer(FakeTimer):
        def time(self, calls):
            x, w, b = calls[0].args[3:]
            assert x.shape == CONV_SHAPE.x_shape and w.shape == CONV_SHAPE.w_shape
            assert x.dtype.name == "bfloat16" and b.shape == (16,)
            assert 0.9 < x.astype(np.float32).std() < 1.1
            return super().time(calls)

    timer = Timer(lambda plan: 1.0)
    fake_tuner(fake_backend(tmp_path), timer).tune(replace(PROBLEM, dtype="bfloat16"))
    assert timer.timed


# ---- cubins --------------------------------------------------------------------------------------


def test_an_identity_is_of_all_that_a_cubin_is_made_of():
    blocks = list(BLOCKS)
    kernels = [make(True, "float32", block) for make in (CONV, FILTERS) for block in blocks]
    names = [identity(kernel, "sm_90") for kernel in kernels]
    assert names[: len(blocks)] == names[len(blocks) :], "one module has both kernels"
    assert len({*names, *(identity(kernel, "sm_80") for kernel in kernels)}) == 2 * len(blocks)
    macros = replace(kernels[0], macros=(*kernels[0].macros, ("EXTRA", "1")))
    assert identity(macros, "sm_90") not in names


def test_the_launcher_takes_a_cubin_in_place_of_the_compiler(monkeypatch):
    cupy = pytest.importorskip("cupy", reason="the launcher is CuPy's")
    kernel, other, started = DROPOUT("float32"), DROPOUT("float64"), []

    class Module:
        def load(self, cubin: bytes) -> None:
            self.cubin = cubin

        def get_function(self, symbol: str) -> Callable:
            return lambda *call, shared_mem: started.append((self.cubin, symbol))

    monkeypatch.setattr(cupy.cuda.function, "Module", Module)
    monkeypatch.setattr(
        cupy, "RawKernel",
        lambda source, symbol, options: lambda *call, shared_mem: started.append(symbol),
    )  # fmt: skip
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 0)
    launcher = CupyLauncher()
    launcher._architectures[0] = 90
    launcher.preload({identity(kernel, "sm_90"): b"cubin"})
    for wanted in (kernel, other, kernel):
        launcher.launch(wanted, (1,), (32,), ())
    assert started == [(b"cubin", "dropout_f32"), "dropout_f64", (b"cubin", "dropout_f32")]


# ---- the problems of a network -------------------------------------------------------------------


def small_network() -> gpucnn.Sequential:
    return gpucnn.Sequential(
        [
            gpucnn.Conv2D(4, 3, padding="same", activation="relu"), gpucnn.BatchNorm(),
            gpucnn.Conv2D(4, 3, padding="same"), gpucnn.Dropout(0.5), gpucnn.Flatten(),
            gpucnn.Dense(3),
        ]
    )  # fmt: skip


def test_the_problems_of_a_step(tmp_path):
    backend, model = fake_backend(tmp_path), small_network()
    x = np.zeros((2, 4, 5, 4), np.float16)
    found = [(p.direction, p.shape.x_shape, p.activation) for p in problems(backend, model, x)]
    conv, dense = (2, 4, 5, 4), (2, 1, 80)
    assert found == [
        ("fprop", conv, "relu"), ("fprop", conv, "linear"), ("fprop", dense, "linear"),
        ("dgrad", dense, "linear"), ("wgrad", dense, "linear"), ("dgrad", conv, "linear"),
        ("wgrad", conv, "linear"),
    ]  # fmt: skip
    forward = problems(backend, model, x, training=False)
    assert {p.direction for p in forward} == {"fprop"} and len(forward) == 3
    assert {p.dtype for p in forward} == {"float16"} and model.dtype == np.float16


def test_looking_for_problems_leaves_the_network_as_it_is(tmp_path):
    model, x = small_network(), random("x", (2, 4, 5, 4), np.float32)
    with use_backend("numpy"):
        model.forward(x, training=True)
        before, expected = model.state_dict(), model.forward(x)
        backend = fake_backend(tmp_path)
        problems(backend, model, x)
        assert model.backend is backend
        after = model.to("numpy").state_dict()
        np.testing.assert_array_equal(model.forward(x), expected)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_a_network_is_tuned_in_a_call(tmp_path, monkeypatch):
    backend, timer = fake_backend(tmp_path), FakeTimer(lambda plan: 2.0)
    monkeypatch.setattr("gpucnn.tuning.get_backend", lambda name: backend)
    monkeypatch.setattr("gpucnn.backends.cuda.tuning.GraphTimer", lambda: timer)
    monkeypatch.setattr("gpucnn.backends.cuda.tuning.Tuner", fake_tuner)
    x = np.zeros((2, 4, 5, 4), np.float32)
    tuned = gpucnn.tune(small_network(), x)
    assert len(tuned) == 7 == len(list(tmp_path.glob("*.json")))
    assert all(entry.times[entry.plan] == 2.0 for entry in tuned.values())
    count = len(timer.timed)
    assert gpucnn.tune(small_network(), x) == tuned and len(timer.timed) == count
    gpucnn.tune(small_network(), x, training=False, again=True)
    assert count < len(timer.timed) < 2 * count


# ---- the clock -----------------------------------------------------------------------------------


class FakeCuda:
    """CuPy's streams, events and graphs, as far as a timer uses them; a launch takes 3 ms."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, []
        self.mem_info, self.attributes = (2**30, 2**31), {"L2CacheSize": 2**20}

    def __enter__(self) -> FakeCuda:
        return self

    def __exit__(self, *_: object) -> None: ...

    def Stream(self, non_blocking: bool) -> FakeCuda:
        return self

    Device = using_allocator = lambda self, *_: self

    def MemoryPool(self) -> SimpleNamespace:
        return SimpleNamespace(malloc=None, free_all_blocks=lambda: None)

    def synchronize(self) -> None: ...

    def begin_capture(self) -> None:
        self.log.append("begin")

    def end_capture(self) -> FakeCuda:
        self.log.append("end")
        return self

    def launch(self, stream: FakeCuda) -> None:
        self.log.append("launch")
        self.now += 3.0

    def Event(self) -> None: ...

    def record(self, event: None) -> float:
        return self.now

    def get_elapsed_time(self, start: float, end: float) -> float:
        return end - start


def test_a_graph_is_timed_by_the_call(monkeypatch):
    cuda = FakeCuda()
    cupy = SimpleNamespace(cuda=cuda, get_default_memory_pool=cuda.MemoryPool)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    timer = GraphTimer()
    with timer.inputs(lambda: (1,), 2**19) as inputs:
        assert inputs == [(1,)] * 5
        calls = [lambda: cuda.log.append("call")] * 3
        assert timer.time(calls) == 1000.0
    assert cuda.log[:8] == ["call"] * 3 + ["begin"] + ["call"] * 3 + ["end"]
    assert cuda.log[8:] == ["launch"] * (3 + timing.SAMPLES)


@pytest.mark.gpu
def test_on_a_gpu_the_tuned_plan_runs_from_its_cubin(tmp_path, monkeypatch):
    try:
        real = get_backend("cuda")
    except RuntimeError as error:
        pytest.skip(str(error))
    xp = real.xp

    def backend() -> CudaBackend:
        launcher = CupyLauncher()
        return CudaBackend(xp, launcher, TunedPlans(launcher, Store(tmp_path)))

    problem = replace(PROBLEM, architecture=real.launcher.architecture)
    entry = Tuner(backend(), GraphTimer()).tune(problem)
    assert not entry.failures
    assert set(entry.times) == set(estimated.shortlist(problem, CANDIDATES))
    assert all(0 < us < 1e4 for us in entry.times.values())
    x = xp.asarray(random("x", CONV_SHAPE.x_shape, np.float32))
    w = xp.asarray(random("w", CONV_SHAPE.w_shape, np.float32))
    expected = ALGORITHMS[entry.plan.algorithm].run(real, problem, entry.plan, x, w, None)
    monkeypatch.delattr(xp, "RawKernel")  # nothing is left to compile
    y = backend().conv_fprop(x, w, None, CONV_SHAPE, "relu")
    np.testing.assert_array_equal(y.get(), expected.get())
