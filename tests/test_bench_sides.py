"""The CPU benchmark's cases, their results in float64, and the three libraries that run them."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpucnn import layers, losses, models, optimizers, use_backend
from gpucnn.bench import cases, memory, networks, ours, reference, torch_network, worker
from gpucnn.bench.cases import Case
from gpucnn.shapes import NormShape

from . import reference as naive
from .tolerance import assert_close

# Sizes off every tile, strides that leave rows over, both kinds of groups.
CONV = Case("conv_fprop", "3x3", "tiny", 2, 4, 7, 6, 3, 2, 1, 1, 2)
SMALL = {
    "dense": CONV,
    "dilated": replace(CONV, size=8, stride=1, padding=2, dilation=2, groups=1),
    "depthwise": replace(CONV, filters=4, groups=4),
    "1x1": replace(CONV, kernel=1, padding=0, groups=1),
}
POOL = Case("max_pool", "max pool", "tiny", 2, 3, 7, kernel=3, stride=2, padding=1)
MAP = Case("activation_forward", "ReLU", "tiny", 3, 4, 5)
ALL_SMALL = [
    *(replace(case, op=op) for case in SMALL.values() for op in cases.CONVOLUTIONS),
    *(replace(POOL, op=op) for op in cases.POOLS),
    *(replace(MAP, op=op) for op in cases.ACTIVATIONS),
    *(replace(MAP, op=op, group="batch norm") for op in cases.NORMS),
]
every_small_case = pytest.mark.parametrize("case", ALL_SMALL, ids=lambda case: case.title)


@pytest.fixture(autouse=True)
def on_numpy():
    with use_backend("numpy"):
        yield


# ---- cases ---------------------------------------------------------------------------------------


def test_the_set_has_what_was_asked_for():
    found = cases.full()
    assert len({(c.op, c.group, c.layer, c.batch) for c in found}) == len(found)
    convolutions = [case for case in found if case.op in cases.CONVOLUTIONS]
    assert len(convolutions) == 3 * 21
    assert {case.group for case in convolutions} == {
        "3x3", "1x1", "few channels", "depthwise", "large",
    }  # fmt: skip
    for case in convolutions:
        assert case.group != "3x3" or (case.channels >= 64 and case.kernel == 3)
        assert (case.group == "depthwise") == (case.groups == case.channels > 1)
    steps = {(case.layer, case.op, case.batch) for case in found if case.op in cases.STEPS}
    assert steps == set(itertools.product(cases.NETWORKS, cases.STEPS, (1, 64, 128)))
    assert cases.NETWORKS[::2] == ("lenet5", "vgg_small", "resnet20")
    large = [case for case in found if case.group == "large"]
    assert {case.conv.x_shape for case in large} == {(32, 112, 112, 64)}
    assert {case.layer for case in found if case.measures_memory} == {
        "vgg_64_128_112", *cases.NETWORKS,
    }  # fmt: skip
    assert {case.op for case in found} == {*reference._RESULTS, *cases.STEPS}


def test_the_quick_set_is_a_part_and_begins_with_something_of_each():
    quick, found = cases.quick(), cases.full()
    assert set(quick) < set(found)
    groups = {case.group for case in quick}
    assert {case.group for case in quick[: len(quick) // 2]} == groups
    assert groups == {case.group for case in found} - {
        "large", "lenet5_plain", "vgg_small", "vgg_plain", "resnet20", "mobilenet_v2_small",
    }  # fmt: skip


def test_networks_are_of_the_zoo_or_without_batch_norm():
    for name in cases.NETWORKS:
        made = networks.make(name)
        assert made.name == name
        norms = sum(isinstance(layer, layers.BatchNorm) for _, layer in made.walk())
        assert bool(norms) == (name in models.MODELS) == (not name.endswith("_plain"))


# ---- float64 -------------------------------------------------------------------------------------


def naive_result(case: Case, given: dict[str, np.ndarray]) -> np.ndarray:
    """The naive loops of the other tests, which know nothing of gpucnn."""
    if case.op in cases.CONVOLUTIONS:
        x, w, dy = (given.get(name) for name in ("x", "w", "dy"))
        shape = case.conv
        return {
            "conv_fprop": lambda: naive.conv_fprop(x, w, None, shape),
            "conv_dgrad": lambda: naive.conv_dgrad(dy, w, None, shape),
            "conv_wgrad": lambda: naive.conv_wgrad(x, dy, shape),
        }[case.op]()
    if case.op in cases.POOLS:
        y, index = naive.pool_forward(given["x"], case.pool)
        return y if "dy" not in given else naive.pool_backward(given["dy"], index, case.pool)
    if case.op in cases.ACTIVATIONS:
        y = naive.activation_forward(given["x"], "relu", 0.0)
        return y if "dy" not in given else naive.activation_backward(given["dy"], y, "relu", 0.0)
    shape = NormShape.of(given["x"].shape)
    x, gamma, beta = given["x"], given["gamma"], given["beta"]
    y, mean, var = naive.batch_norm_train(x, gamma, beta, reference.EPSILON, shape)
    if "dy" not in given:
        return y
    epsilon = reference.EPSILON
    return naive.batch_norm_backward(given["dy"], x, gamma, mean, var, epsilon, True, shape)[0]


@every_small_case
def test_results_in_float64_are_right(case):
    given = reference.draw(case)
    expected = naive_result(case, given)
    assert_close(reference.expected(case, given), expected, reduction=200, magnitude=10.0)


def test_inputs_are_the_same_in_every_process():
    for case in (CONV, POOL, Case("training_step", "lenet5", "lenet5", 5)):
        first, second = reference.draw(case), reference.draw(case)
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
    assert reference.draw(replace(CONV, op="conv_wgrad"))["dy"].dtype == np.float32


def test_errors_are_the_largest_over_the_root_mean_square():
    expected = np.array([3.0, -4.0, 0.0, 0.0])  # of root mean square 2.5
    found = np.array([3.0, -3.5, 0.0, 0.0])
    assert reference.relative_error(found, expected) == pytest.approx(0.2)
    assert np.isnan(reference.relative_error(np.array([np.nan]), np.ones(1)))
    assert reference.relative_error(np.ones(2), np.zeros(2)) == 1.0


# ---- the sides -----------------------------------------------------------------------------------


def side(name: str):
    if name == "jax":
        pytest.importorskip("jax")
    return import_module(f"gpucnn.bench.{worker.SIDES[name]}")


@every_small_case
@pytest.mark.parametrize("name", worker.SIDES)
def test_every_side_runs_every_case(name, case):
    module = side(name)
    expected = reference.expected(case, reference.draw(case))
    for way in module.ways(case):
        with module.running(case):
            found = module.to_numpy(case, module.bind(case, way)())
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert reference.relative_error(found, expected) < 1e-5, way


def test_maps_lie_as_the_backend_leaves_them():
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3), np.float32)
    left = layers.Conv2D(3, 1).forward(x)
    arranged = ours._arranged(x)
    np.testing.assert_array_equal(arranged, x)
    assert arranged.strides == left.strides


def with_usual_padding(model):
    """Pad strided convolutions as PyTorch's users do, so that both sides mean the same."""
    for _, layer in model.walk():
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D) and layer.strides != (1, 1):
            layer.padding = tuple(((r - 1) // 2,) * 2 for r in layer.kernel_size)
    return model


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_networks_are_the_same_in_pytorch(name):
    case = Case("training_step", name, name, 6)
    given, model = reference.draw(case), networks.make(case.layer)
    translated = torch_network.translate(model)
    with_usual_padding(model)
    assert sum(p.numel() for p in translated.parameters()) == sum(
        array.size for _, layer in model.walk() for array in layer.params.values()
    )
    images = torch.from_numpy(given["x"]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = translated.eval()(images).numpy()
    expected = model.forward(given["x"])
    assert reference.relative_error(found, expected.astype(np.float64)) < 1e-4
    if name == "vgg_small":
        return  # its dropout draws other numbers
    translated.train()
    loss = torch.nn.functional.cross_entropy(translated(images), torch.from_numpy(given["labels"]))
    value, _ = losses.CrossEntropy()(model.forward(given["x"], training=True), given["labels"])
    assert float(value) == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("layer", [
    layers.Conv2D(4, 3, activation="relu"), layers.AveragePool2D(2),
    layers.Conv2D(4, 3, padding=((0, 1), (1, 1))),
])  # fmt: skip
def test_a_layer_that_is_in_no_network_of_ours_is_refused(layer):
    model = layers_only(layer)
    with pytest.raises(TypeError, match=f"translate: knows no such .*'{layer.name}'"):
        torch_network.translate(model)


def layers_only(layer):
    import gpucnn

    return gpucnn.Sequential([layer], input_shape=(6, 6, 2))


def test_training_steps_do_the_same_in_pytorch():
    """Three steps of SGD with momentum, by both: the losses go the same way."""
    case = Case("training_step", "lenet5", "lenet5", 8)
    torch_side = side("torch")
    for way in torch_side.ways(case):
        step, theirs = ours.bind(case, "gpucnn"), torch_side.bind(case, way)
        for _ in range(3):
            assert float(step()) == pytest.approx(theirs().item(), rel=2e-3)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_inference_is_the_same_in_pytorch_frozen_or_not(name):
    case, torch_side = Case("inference", name, name, 1), side("torch")
    with torch_side.running(case):
        answers = {way: torch_side.bind(case, way)() for way in torch_side.ways(case)}
    assert set(answers) == {"NCHW", "channels_last", "frozen NCHW", "frozen channels_last"}
    expected = answers["NCHW"]
    for found in answers.values():
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(abs(expected).max()))


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_networks_are_the_same_in_jax(name):
    jax = pytest.importorskip("jax")
    from gpucnn.bench import jax_network

    case = Case("inference", name, name, 4)
    given, model = reference.draw(case), networks.make(case.layer)
    found = np.asarray(jax_network.inference(model)(jax.numpy.asarray(given["x"])))
    expected = model.forward(given["x"]).astype(np.float64)
    assert reference.relative_error(found, expected) < 1e-4
    call = side("jax").bind(replace(case, op="training_step"), "jax")
    step = ours.bind(replace(case, op="training_step"), "gpucnn")
    if name != "vgg_small":
        for _ in range(2):
            assert float(call()) == pytest.approx(float(step()), rel=1e-3)


def test_a_training_step_of_ours_is_a_trainers():
    case = Case("training_step", "lenet5", "lenet5", 8)
    given, model = reference.draw(case), networks.make(case.layer)
    step, loss = ours.bind(case, "gpucnn"), losses.CrossEntropy()
    optimizer = optimizers.SGD(0.01, momentum=0.9)
    for _ in range(2):
        value, gradient = loss(model.forward(given["x"], training=True), given["labels"])
        model.backward(gradient)
        optimizer.step(model.parameters())
        assert float(step()) == float(value)


# ---- the worker ----------------------------------------------------------------------------------


class Clock:
    """Goes on by what a call is said to take."""

    def __init__(self, *takes: float) -> None:
        self.now, self.takes = 0.0, list(takes)

    def __call__(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += self.takes.pop(0) if len(self.takes) > 1 else self.takes[0]


def test_a_sample_is_the_median_of_the_calls_after_the_first():
    clock = Clock(9.0, 1.0, 5.0, 2.0)
    assert worker.sample(clock.call, 10.0, clock) == (2.0, 4)  # of 1, 5, 2, 2
    clock = Clock(0.5, 4.0)
    assert worker.sample(clock.call, 1.0, clock) == (4.0, worker.FEWEST_CALLS)


def test_a_call_that_fills_the_time_is_a_sample():
    clock = Clock(3.0)
    assert worker.sample(clock.call, 1.0, clock) == (3.0, 1)
    assert clock.now == 3.0


def fake_side(**replaced):
    def bind(case: Case, way: str):
        if way == "refuses":
            raise ValueError("no such layout\nmore")
        return lambda: reference.expected(case, reference.draw(case)).astype(np.float32)

    members = {
        "ways": lambda case: ("a", "b"), "about": lambda: {"version": "1"}, "bind": bind,
        "running": lambda case: nullcontext(), "to_numpy": lambda case, result: result,
    }  # fmt: skip
    return SimpleNamespace(**(members | replaced))


def answers_of(module, *requests: dict) -> list[dict]:
    written = io.StringIO()
    lines = io.StringIO("".join(json.dumps(request) + "\n" for request in requests))
    worker.Server(module).serve(lines, written)
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_worker_answers_each_request_with_a_line():
    prepare = {"do": "prepare", "case": asdict(CONV), "check": True}
    sample = {"do": "sample", "way": "b", "seconds": 0.0}
    about, first, timed, second = answers_of(
        fake_side(), {"do": "about"}, prepare, sample, {**prepare, "check": False}
    )
    assert about == {"version": "1"}
    assert first["errors"].keys() == {"a", "b"} and 0 < first["errors"]["a"] < 1e-6
    assert timed["seconds"] > 0 and timed["calls"] == 1
    assert second == {"errors": {"a": None, "b": None}}


def test_a_worker_says_what_its_library_refuses_and_goes_on():
    prepare = {"do": "prepare", "case": asdict(CONV), "check": False}
    failed, lost, about = answers_of(
        fake_side(ways=lambda case: ("refuses",)), prepare,
        {"do": "sample", "way": "a", "seconds": 1.0}, {"do": "about"},
    )  # fmt: skip
    assert failed == {"failed": "ValueError: no such layout"}
    assert lost["failed"].startswith("KeyError")
    assert about == {"version": "1"}


def test_the_largest_layer_is_not_worked_out_in_float64():
    large = next(case for case in cases.full() if case.group == "large")
    assert not large.checked and CONV.checked and POOL.checked


# ---- memory --------------------------------------------------------------------------------------


def in_a_process(*lines: str) -> list[int]:
    """Run a program that prints numbers, in a process that no other test has been in."""
    root = Path(memory.__file__).parents[2]
    command = [sys.executable, "-c", "\n".join(("import numpy as np", *lines))]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [int(float(number)) for number in done.stdout.split()]


def test_the_most_memory_is_seen_after_it_is_gone():
    before, most, again = in_a_process(
        "from gpucnn.bench import memory",
        "print(memory.start())",
        "array = np.ones(60_000_000, np.uint8)",
        "del array",
        "print(memory.peak())",
        "memory.start()",
        "print(memory.peak())",
    )
    assert 0.9 * 60e6 < most - before < 1.3 * 60e6
    if Path("/proc/self/clear_refs").exists():
        assert again < most - 0.9 * 60e6


def test_without_proc_the_system_is_asked(monkeypatch, tmp_path):
    found = memory.peak()
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    assert memory.peak() == pytest.approx(found, rel=0.5)


def test_a_layer_adds_what_is_neither_input_nor_result():
    layer, step, most = in_a_process(
        "from contextlib import nullcontext",
        "from types import SimpleNamespace",
        "from dataclasses import asdict",
        "from gpucnn.bench.cases import Case",
        "from gpucnn.bench.worker import Server",
        "def bind(case, way):",
        "    held = np.ones(50_000_000, np.uint8)  # an input",
        "    def call():",
        "        scratch = np.ones(30_000_000, np.uint8)",
        "        return held[:30_000_000] + scratch",
        "    return call",
        "side = SimpleNamespace(bind=bind, running=lambda case: nullcontext(),",
        "    to_numpy=lambda case, result: result)",
        "layer = Case('max_pool', 'max pool', 'x', 1)",
        "step = Case('training_step', 'lenet5', 'lenet5', 1)",
        "for case in (layer, step):",
        "    answer = Server(side).memory(asdict(case), 'way')",
        "    print(answer['added'])",
        "print(answer['peak'])",
    )
    assert 0.9 * 30e6 < layer < 1.2 * 30e6
    assert 0.9 * 110e6 < step < 1.2 * 110e6 and most > step
