"""Whole steps beside PyTorch and JAX, as far as a machine without a GPU can show them: all sides on
the CPU, small; what a wrong side looks like; the order, the time limits, page and picture."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpucnn import layers
from gpucnn.backends import get_backend, use_backend
from profiling.gpu import report
from profiling.gpu.jobs import ROOT, Deadline
from profiling.gpu.steps import __main__ as program
from profiling.gpu.steps import cases, cold, compare, networks, ours, page, sides, torch_side
from profiling.gpu.steps import training as to_accuracy
from profiling.gpu.steps.cases import DEPENDENT, INFERENCE, TRAINING, Comparison, StepCase
from profiling.gpu.steps.compare import CHECKED_STEPS, Scale
from profiling.gpu.timing import Spread
from profiling.results import Results, problems

from .emulated_graphs import Device

MODULES = ("cases", "compare", "page")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"profiling.gpu.steps.{name}")
    assert doctest.testmod(module).failed == 0


def cpu(backend=None) -> sides.Machine:
    return sides.Machine(backend or get_backend("numpy"), "cpu", compiler="eager")


def small(network: str) -> Scale:
    shape = (28, 28, 1) if network == "lenet5" else (12, 12, 3)
    return Scale(shape, batches=2, seconds=0.001)


def compared(case: StepCase, *peers: str, backend=None) -> list[dict]:
    found = compare.compare(Comparison(case, peers), cpu(backend), scale=small(case.network))
    rows = [
        {**dict.fromkeys(("speedup",)), **case.row(peer), **row}
        for peer, row in zip(peers, found, strict=True)
    ]
    return rows


# ---- what is compared ----------------------------------------------------------------------------


def test_what_was_asked_for_is_compared():
    rows = [row for comparison in cases.comparisons() for row in comparison.rows()]
    names = [json.dumps(row) for row in rows]
    assert len(set(names)) == len(names)
    found = {
        (r["op"], r["set"], r["shape"]["batch"], r["dtype"], r["against"]) for r in rows
    }  # fmt: skip
    for dtype in ("float32", "bfloat16"):
        for peer in ("torch", "torch.compile", "gpucnn"):
            for network in cases.SMALL:
                for batch in (64, 512, 2000):
                    assert (TRAINING, network, batch, dtype, peer) in found
            for batch in (32, 256):
                assert (TRAINING, "resnet50", batch, dtype, peer) in found
            for network in cases.NETWORKS:
                for batch in (1, 256):
                    assert (INFERENCE, network, batch, dtype, peer) in found
    assert (TRAINING, "lenet5", 512, "float32", "jax") in found


def test_the_first_rows_are_those_that_something_is_aimed_at():
    first = [row for c in cases.comparisons()[:16] for row in c.rows()]
    aimed = {
        (r["op"], r["set"], r["against"], cases.goal(r)) for r in first if cases.goal(r)
    }  # fmt: skip
    assert aimed >= {
        (TRAINING, "lenet5", "torch", 5.0), (TRAINING, "lenet5", "torch.compile", 2.0),
        (TRAINING, "vgg_small", "torch.compile", 1.5), (TRAINING, "resnet50", "torch.compile", 1.2),
        (INFERENCE, "resnet50", "torch.compile", 2.0),
    }  # fmt: skip
    assert cases.goal(StepCase(TRAINING, "resnet50", 32).row("torch.compile")) is None
    assert cases.MOST_MICROSECONDS["lenet5"] == 60


@pytest.mark.parametrize("network", cases.NETWORKS)
def test_networks_are_the_zoos_but_for_dropout(network):
    model = networks.make(StepCase(TRAINING, network, 1))
    found = [layer for _, layer in model.walk()]
    assert not any(isinstance(layer, layers.Dropout) for layer in found)
    counts = {"lenet5": 61_932, "vgg_small": 288_746, "resnet20": 272_474, "resnet50": 25_557_032}
    assert sum(a.size for layer in found for a in layer.params.values()) == counts[network]


# ---- all sides, on the CPU -----------------------------------------------------------------------


@pytest.mark.parametrize("network", cases.SMALL)
@pytest.mark.parametrize("kind", [TRAINING, INFERENCE])
def test_all_sides_find_the_same(network, kind):
    case = StepCase(kind, network, 6)
    eager = Comparison(case, cases.EAGER).without(DEPENDENT).peers  # which is for GPUs alone
    peers = eager + cases.COMPILED if network == "lenet5" else ("torch", "gpucnn")
    for row in compared(case, *peers):
        assert "error" not in row, row["against"]
        assert problems({**dict.fromkeys(("tflops", "gbps", "floor_us", "err_peer")), **row}) == []
        assert row["err_ours"] <= (0 if row["against"] == "gpucnn" else 2e-4)
        assert row["speedup"] == pytest.approx(row["peer_us"] / row["ours_us"])
        assert row["images_per_second"] == pytest.approx(6e6 / row["ours_us"])
        assert len(row["first"][0]) == CHECKED_STEPS and row["samples"] >= 5
        assert row["goal"] == cases.goal(row)


@pytest.mark.parametrize("kind", [TRAINING, INFERENCE])
def test_resnet50s_sides_find_the_same(kind):
    case, scale = StepCase(kind, "resnet50", 4), Scale((48, 48, 3), batches=2)
    batches = networks.draw(case, scale.shape, scale.batches)
    mine, peer = (
        compare.prepare(case, cpu(), name, batches, scale).results for name in ("recorded", "torch")
    )
    assert compare.deviation(mine, peer) < 2e-4


@pytest.mark.parametrize("kind", [TRAINING, INFERENCE])
def test_in_16_bits_they_differ_by_rounding(kind):
    rows = compared(StepCase(kind, "lenet5", 16, "bfloat16"), "torch", "torch.compile")
    for row in rows:
        assert "error" not in row and row["err_ours"] > 1e-6


def test_jax_does_the_same_in_a_process_without_pytorch(tmp_path):
    program = """
import json, sys
from gpucnn.backends import get_backend, use_backend
from profiling.gpu.steps import __main__, compare, sides
from profiling.gpu.steps.cases import Comparison, StepCase
machine, found = sides.Machine(get_backend("numpy"), "cpu"), []
for kind, dtype in (("training_step", "bfloat16"), ("inference", "float32")):
    case = Comparison(StepCase(kind, "lenet5", 6, dtype), ("jax",))
    found += compare.compare(case, machine, scale=compare.Scale(None, 2, 0.001))
    compare.forget(machine)
assert "torch" not in sys.modules
print(json.dumps([[row.get("error"), row["err_ours"]] for row in found]))
"""
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rounded, exact = json.loads(done.stdout)
    assert rounded[0] is None and rounded[1] > 1e-6
    assert exact[0] is None and exact[1] < 1e-5


def without_a_relu(model, optimizer):
    place = next(i for i, m in enumerate(model) if isinstance(m, torch.nn.ReLU))
    model[place] = torch.nn.Identity()


def with_other_statistics(model, optimizer):
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eps = 1e-1


def without_momentum(model, optimizer):
    optimizer.param_groups[0]["momentum"] = 0


def with_another_rate(model, optimizer):
    optimizer.param_groups[0]["lr"] *= 0.9


def with_a_forgotten_gradient(model, optimizer):
    next(model.parameters()).requires_grad_(False)


@pytest.mark.parametrize(
    "damage",
    [without_a_relu, with_other_statistics, without_momentum, with_another_rate,
     with_a_forgotten_gradient],
)  # fmt: skip
def test_a_wrong_side_fails(damage, monkeypatch):
    """Held against a peer that is damaged, gpucnn's row has an error, and is timed all the same."""
    made, translated = torch.optim.SGD, []

    def translate(model):
        translated.append(torch_translate(model))
        return translated[-1]

    def optimizer(parameters, **options):
        one = made(parameters, **options)
        damage(translated[-1], one)
        return one

    torch_translate = torch_side.translate
    monkeypatch.setattr(torch_side, "translate", translate)
    monkeypatch.setattr(torch.optim, "SGD", optimizer)
    (row,) = compared(StepCase(TRAINING, "resnet20", 6), "torch")
    assert row["error"].startswith("the first results differ by ")
    assert row["ours_us"] > 0 and row["peer_us"] > 0


def test_a_wrong_side_fails_in_16_bits(monkeypatch):
    translate = torch_side.translate

    def damaged(model):
        made = translate(model)
        without_a_relu(made, None)
        return made

    monkeypatch.setattr(torch_side, "translate", damaged)
    (row,) = compared(StepCase(TRAINING, "lenet5", 16, "bfloat16"), "torch")
    assert row["error"].startswith("the first results differ by ")


def test_folded_norms_of_other_statistics_fail(monkeypatch):
    right = torch_side.inference

    def wrong(case, module, machine, name):
        for child in module.modules():
            if isinstance(child, torch.nn.BatchNorm2d):
                child.reset_running_stats()
        return right(case, module, machine, name)

    monkeypatch.setattr(torch_side, "inference", wrong)
    (row,) = compared(StepCase(INFERENCE, "lenet5", 2), "torch")
    assert "differ" in row["error"]


def test_a_peer_that_fails_or_takes_too_long_leaves_its_text(monkeypatch):
    def side(case, model, batches, machine, name):
        if name == "torch":
            raise ValueError("no\nmore")
        while True:  # a compiler that catches every Exception
            with suppress(Exception):
                time.sleep(10)

    monkeypatch.setattr(torch_side, "side", side)
    comparison = Comparison(StepCase(TRAINING, "lenet5", 2), ("torch", "torch.compile", "gpucnn"))
    failed, late, good = compare.compare(comparison, cpu(), 0.2, small("lenet5"))
    assert failed == {"error": "ValueError: no"}
    assert late == {"error": "TimeoutError: it was not ready within 0 s"}
    assert good["err_ours"] == 0 and "error" not in good


def test_results_that_are_no_numbers_never_agree():
    nan, one = np.array(np.nan), np.array(1.0)
    assert compare.deviation([one, nan], [one, one]) == np.inf
    assert compare.deviation([one], [np.array(0.0)]) == np.inf


# ---- recordings ----------------------------------------------------------------------------------


def test_a_recorded_side_says_what_its_graph_launches():
    """On the emulated GPU, whose graphs are replayed: the losses are those of PyTorch."""
    device = Device()
    case, scale = StepCase(TRAINING, "lenet5", 8), Scale((28, 28, 1), batches=2, seconds=0.001)
    batches = networks.draw(case, scale.shape, scale.batches)
    with use_backend(device.backend):
        mine = compare.prepare(case, cpu(device.backend), "recorded", batches, scale)
        columns = mine.side.columns()
    peer = compare.prepare(case, cpu(), "torch", batches, scale)
    assert compare.deviation(mine.results, peer.results) < 1e-4
    assert columns["not_recorded"] is None and columns["nodes"] is None
    assert sum(columns["kernels"].values()) > 20
    assert any(name.startswith("softmax_cross_entropy") for name in columns["kernels"])


def test_dependent_launches_are_held_against_ordinary_ones(monkeypatch):
    device = Device()
    asked, launch = [], device.launcher.launch
    monkeypatch.setattr(device.launcher, "dependent", False, raising=False)

    def launched(*call):
        captured = device.thread.written is not None
        asked.append((captured, device.launcher.dependent))
        launch(*call)

    monkeypatch.setattr(device.launcher, "launch", launched)
    case = StepCase(INFERENCE, "lenet5", 2)
    with use_backend(device.backend):
        (row,) = compared(case, DEPENDENT, backend=device.backend)
    assert "error" not in row and row["err_ours"] == 0
    assert Counter(asked)[True, True] == Counter(asked)[True, False] > 5
    assert not device.launcher.dependent
    # only where a GPU and its driver have them
    monkeypatch.setattr("profiling.gpu.steps.ours.is_supported", lambda: True)
    machines = (cpu(device.backend), cpu())
    found = [program._comparison(m, Comparison(case, cases.EAGER)).rows for m in machines]
    assert [rows[-1]["against"] for rows in found] == [DEPENDENT, "gpucnn"]


def test_a_peer_of_our_own_that_was_not_recorded_has_failed():
    case, results = StepCase(TRAINING, "lenet5", 2), [np.array(1.0)]
    mine, peer = (
        compare.Ready(sides.Side(name, None, None, None, columns=found.copy), results, 1.0, None)
        for name, found in (("recorded", {}), (DEPENDENT, {"not_recorded": "the driver is old"}))
    )
    row = compare.peer_columns(case, DEPENDENT, mine, peer, Spread.of([1.0, 2.0]), 1.0)
    assert row["error"] == "it is not recorded: the driver is old"


class Graph:
    """CuPy's, as far as its text goes."""

    def launch(self):
        pass

    def debug_dot_str(self):
        return (
            'digraph dot {\nsubgraph cluster_1 {\nlabel="graph_1" graph[style="dashed"];\n'
            '"graph_1_node_0"[style="solid" shape="rectangle" label="0\nMEMCPY"];\n'
            '"graph_1_node_1"[style="bold" shape="octagon" label="1\nconv"];\n'
            '"graph_1_node_0" -> "graph_1_node_1";\n}\n}\n'
        )


def test_nodes_of_a_graph_are_counted():
    recorded = SimpleNamespace(replay=SimpleNamespace(replay=Graph().launch))
    assert ours._nodes(recorded) == 2
    assert ours._nodes(SimpleNamespace(replay=None)) is None


def test_a_step_that_could_not_be_recorded_says_why():
    backend = SimpleNamespace(captures=True)
    failed = SimpleNamespace(recorded=False, reason="RuntimeError: it waits", backend=backend)
    assert ours._why_not(failed) == "RuntimeError: it waits"
    assert ours._why_not(SimpleNamespace(recorded=True, reason=None, backend=backend)) is None


class FakeCuda:
    """PyTorch's streams, events and graphs, as far as a side and a clock need them.

    What is called under a capture is kept, and done by replays alone.
    """

    def __init__(self) -> None:
        self.now, self.capturing, self.waits = 0.0, None, 0

    def Stream(self):
        return SimpleNamespace(wait_stream=lambda other: None, cuda_stream=7)

    current_stream = Stream

    def Event(self, enable_timing):
        event = SimpleNamespace(time=0.0, synchronize=lambda: None)
        event.record = lambda stream: setattr(event, "time", self.now)
        event.elapsed_time = lambda other: other.time - event.time
        return event

    def CUDAGraph(self):
        made = SimpleNamespace(work=[])
        made.replay = lambda: [work() for work in made.work]
        return made

    @contextmanager
    def graph(self, graph, capture_error_mode):
        self.capturing = graph.work
        yield
        self.capturing = None

    def stream(self, stream):
        return nullcontext()

    def synchronize(self):
        self.waits += 1


def test_a_step_in_one_graph_makes_a_step_a_call(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(torch_side.torch, "cuda", fake)
    total = torch.zeros(1)

    def step(x):
        def work():
            total.add_(x)

        work() if fake.capturing is None else fake.capturing.append(work)
        return total

    graphed = torch_side.Graphed(step)
    found = [float(graphed(torch.full((1,), float(value)))) for value in range(1, 8)]
    assert found == [1, 3, 6, 10, 15, 21, 28]  # four of them replayed, each on its own input
    assert graphed.graph is not None


def test_events_time_what_lies_between_them():
    fake = FakeCuda()
    clock = object.__new__(sides.EventClock)
    clock.torch, clock.stream = SimpleNamespace(cuda=fake), fake.Stream()

    def step():
        fake.now += 3.0  # milliseconds

    side = sides.Side("some", step, None, fake.synchronize)
    assert clock(side, 5) == pytest.approx(0.015) and fake.waits == 2


# ---- time ----------------------------------------------------------------------------------------


def test_sides_have_turns_of_the_same_length():
    done: list[tuple[str, int]] = []

    def clock(side, steps):
        done.append((side.name, steps))
        return steps * {"quick": 1e-4, "slow": 0.02}[side.name]

    both = [sides.Side(name, None, None, None) for name in ("quick", "slow")]
    quick, slow = sides.in_turn(both, 1.0, clock)
    assert (quick.median, slow.median) == pytest.approx((100, 20_000))
    assert done[-4:] == [("quick", 500), ("slow", 2)] * 2 or done[-2:] == [
        ("quick", 500),
        ("slow", 2),
    ]
    assert quick.samples == slow.samples == 11  # of 0.09 s each


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_task(clock, name, seconds, *peers, kind=None, error=None) -> program.Task:
    rows = [StepCase(TRAINING, name, 8).row(peer) for peer in peers]

    def measure(limit):
        if seconds > limit:
            clock.now += limit
            return [{"error": "TimeoutError: late"} for _ in rows]
        clock.now += seconds
        if error:
            raise error
        return [{"ours_us": 1.0, "peer_us": 2.0, "speedup": 2.0, "err_ours": 0.0} for _ in rows]

    return program.Task(kind or name, 5.0, rows, measure)


def test_a_run_ends_in_time_says_what_is_left_out_and_goes_on(tmp_path):
    clock, path = Clock(), tmp_path / "r.json"
    todo = [
        a_task(clock, "lenet5", 10, "torch", "gpucnn"),
        a_task(clock, "resnet50", 80, "torch.compile"),  # is begun, and does not come to its end
        a_task(clock, "vgg_small", 10, "torch"),
        a_task(clock, "resnet20", 10, "torch", error=ValueError("no")),
    ]
    left = program.run(todo, Results(path), Deadline(60, clock), lambda: True)
    assert left == [program.name(task) for task in todo[1:]]
    assert left[0] == "training_step resnet50 N8 float32 against torch.compile"
    found = Results(path)
    assert [row["against"] for row in found.rows] == ["torch", "gpucnn"]
    assert found.meta["left_out_steps"] == left and clock.now == 65 - 10
    clock.now = 0
    assert program.run(todo, found, Deadline(400, clock), lambda: True) == []
    assert [row["set"] for row in found.rows] == [
        "lenet5", "lenet5", "resnet50", "vgg_small", "resnet20",
    ]  # fmt: skip
    assert found.rows[-1]["error"] == "ValueError: no" and found.meta["left_out_steps"] == []


def test_a_task_of_a_kind_that_took_long_is_not_begun(tmp_path):
    clock = Clock()
    todo = [
        a_task(clock, "lenet5", 30, "torch", kind="a"), a_task(clock, "vgg_small", 30, "torch",
        kind="a"), a_task(clock, "resnet20", 5, "torch"),
    ]  # fmt: skip
    left = program.run(todo, Results(tmp_path / "r.json"), Deadline(60, clock), lambda: True)
    assert left == [program.name(todo[1])] and clock.now == 35


def test_a_lost_gpu_ends_the_process(tmp_path):
    clock, path = Clock(), tmp_path / "r.json"
    todo = [a_task(clock, "lenet5", 1, "torch")]
    with pytest.raises(SystemExit) as stop:
        program.run(todo, Results(path), Deadline(60, clock), lambda: False)
    assert stop.value.code == program.DEVICE_LOST
    assert Results(path).rows[0]["error"] == f"measured; {program.LOST}"


def chosen(**given) -> list[program.Task]:
    options = program.parser().parse_args(["--file", "r", "--seconds", "1"])
    vars(options).update(given)
    return program.tasks(cpu(), options)


def test_the_options_choose():
    rows = [row for task in chosen() for row in task.rows]
    assert {row["op"] for row in rows} == set(page.KINDS)
    assert "jax" not in {row["against"] for row in rows}
    kinds = [task.rows[0]["op"] for task in chosen()]
    assert kinds.index("cold_start") == len(cases.FIRST)
    assert {task.rows[0]["against"] for task in chosen(jax=True)} == {"jax"}
    assert {task.rows[0]["set"] for task in chosen(network=["resnet20"])} == {"resnet20"}
    assert [t.rows[0]["against"] for t in chosen(kind=["cold_start"])] == ["torch", "torch.compile"]
    trained = chosen(kind=["time_to_accuracy"], data="fashion-mnist")
    assert [task.rows[0]["set"] for task in trained] == ["fashion-mnist"]


# ---- cold starts, and time to an accuracy --------------------------------------------------------


def test_starts_are_timed_in_processes_of_their_own():
    empty, full = cold.ColdStart("torch", batch=4, warm_starts=1).measure("cpu")
    for row in (empty, full):
        assert row["speedup"] == pytest.approx(row["peer_us"] / row["ours_us"])
        for side in ("gpucnn", "torch"):
            assert list(row["seconds"][side]) == ["import", "build", "first step"]
        assert sum(row["seconds"]["gpucnn"].values()) < row["ours_us"] / 1e6
    with pytest.raises(RuntimeError, match=r"torch: ValueError: .*'four'"):
        cold.launch("torch", "cpu", "four", ROOT / "none")


def test_a_starts_lenet5_is_ours():
    twin, model = cold.lenet5(torch.nn), networks.make(StepCase(TRAINING, "lenet5", 1))
    translated = torch_side.translate(model)
    assert [p.shape for p in twin.parameters()] == [p.shape for p in translated.parameters()]
    twin.load_state_dict(translated.state_dict())
    for module in twin:
        module.eps = 1e-3  # of norms, gpucnn's; PyTorch's is 1e-5
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(twin.eval()(x), translated.eval()(x))


def test_both_sides_come_to_an_accuracy(monkeypatch):
    monkeypatch.setitem(to_accuracy.GOALS, "digits", 0.8)
    what = to_accuracy.TimeToAccuracy(seeds=2, most_epochs=6)
    (row,) = what.measure(cpu())
    assert "error" not in row and row["accuracy"] == 0.8
    for runs in row["runs"].values():
        assert all(run["accuracy"] >= 0.8 and 1 <= run["epochs"] <= 6 for run in runs)
        assert [run["seconds"] > 0 for run in runs] == [True, True]
    monkeypatch.setitem(to_accuracy.GOALS, "digits", 1.1)
    (row,) = replace(what, seeds=1, most_epochs=1).measure(cpu())
    assert re.fullmatch(r"torch came to \d\d\.\d\d% in 1 epochs", row["error"])


# ---- the page ------------------------------------------------------------------------------------


def measured(case: StepCase, against: str, **given) -> dict:
    return case.row(against) | {
        "ours_us": 50.0, "ours_iqr_us": 1.0, "peer_us": 300.0, "peer_iqr_us": 2.0, "speedup": 6.0,
        "images_per_second": 1e7, "peer_images_per_second": 1.7e6, "memory_bytes": 20e6,
        "peer_memory_bytes": 40e6, "setup_seconds": 1.0, "peer_setup_seconds": 31.0, "nodes": 30,
        "kernels": {"conv": 20, "sum": 4}, "err_ours": 1e-6, "goal": cases.goal(case.row(against)),
    } | given  # fmt: skip


def results(path) -> Results:
    found = Results(path, {"gpu": "NVIDIA H200", "date": "2026-01-31", "commit": "1a2b3c4"})
    found.meta["left_out_steps"] = ["training_step resnet50 N256 float32 against torch.compile"]
    lenet = StepCase(TRAINING, "lenet5", 512)
    rows = [
        measured(lenet, "torch"),
        measured(lenet, "torch.compile", speedup=1.5),
        measured(StepCase(INFERENCE, "resnet50", 1, "bfloat16"), "torch", error="wrong"),
    ]
    (start, _) = cold.ColdStart("torch").rows()
    parts = {"import": 0.2, "build": 0.1, "first step": 0.7}
    rows.append(
        start | {"ours_us": 1e6, "peer_us": 6e6, "speedup": 6.0, "goal": 3.0,
                 "seconds": {"gpucnn": parts, "torch": parts}}
    )  # fmt: skip
    (trained,) = to_accuracy.TimeToAccuracy().rows()
    run = {"seconds": 0.5, "accuracy": 0.99, "epochs": 4}
    rows.append(
        trained | {"ours_us": 5e5, "ours_iqr_us": 1e3, "peer_us": 2e6, "peer_iqr_us": 1e3,
                   "speedup": 4.0, "accuracy": 0.98, "runs": {"gpucnn": [run], "torch": [run]}}
    )  # fmt: skip
    found.rows += rows
    found.save()
    return found


def test_the_page_says_what_was_reached_and_what_was_left_out(tmp_path):
    path = tmp_path / "r.json"
    results(path)
    assert [file.name for file in report.write(path)] == ["r.json", "r.md", "r-steps.png"]
    text = (tmp_path / "r.md").read_text()
    assert "| training_step lenet5 N512 float32 against torch | 6.00 | 5 | reached |" in text
    assert "against torch.compile | 1.50 | 2 | missed |" in text
    assert "| inference resnet50 N1 bfloat16 against torch | 6.00 | 2 | failed |" in text
    assert "| lenet5 N512 float32: us a step | 50.0 | 60 | reached |" in text
    assert "10,000,000 | 1,700,000 | 20 | 40 | 1.0 | 31.0 | 1e-06 |" in text
    assert "| training_step lenet5 N512 float32 | 30 | 24 | 6 | 20 conv, 4 sum |" in text
    assert "| torch | cold | 1.00 | 0.20, 0.10, 0.70 | 6.00 |" in text
    assert "| lenet5 | digits | 64 | 98% | 0.500 | 0.001 | 4 | 2.000 | 0.001 | 4 | 4.00 |" in text
    assert "- training_step resnet50 N256 float32 against torch.compile" in text
    tables = [
        [line.count("|") for line in block.splitlines()]
        for block in text.split("\n\n")
        if block.startswith("|")
    ]
    assert len(tables) == 7 and all(len(set(widths)) == 1 for widths in tables)


def test_a_file_of_single_operations_has_no_such_part(tmp_path):
    found = Results(tmp_path / "r.json", {"gpu": "NVIDIA H200"})
    assert page.markdown(found.rows, found.meta) == []
