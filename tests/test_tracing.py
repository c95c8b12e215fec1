"""NVTX ranges, seen by a recorder in place of the package nvtx."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpucnn
from gpucnn import tracing
from gpucnn.backends import use_backend
from gpucnn.backends.numpy import NumpyBackend

SCRIPT = Path(__file__).parents[1] / "profiling" / "train_nvtx.py"


class Recorder:
    """Notes each range's name, domain and depth when it opens."""

    def __init__(self) -> None:
        self.ranges: list[tuple[str, str, int]] = []
        self.open: list[str] = []

    def annotate(self, name: str, domain: str) -> "Recorder":
        self.ranges.append((name, domain, len(self.open)))
        self.open.append(name)
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.open.pop()

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.ranges]


@pytest.fixture
def recorder(monkeypatch) -> Iterator[Recorder]:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "nvtx", SimpleNamespace(annotate=recorder.annotate))
    tracing.enable()
    yield recorder
    tracing.enable(False)
    assert recorder.open == []


def small_network() -> gpucnn.Sequential:
    return gpucnn.Sequential(
        [
            gpucnn.Residual([gpucnn.Conv2D(1, 3, padding="same", name="inner")], name="block"),
            gpucnn.Flatten(),
            gpucnn.Dense(3, name="head"),
        ],
        input_shape=(4, 4, 1),
        name="net",
    )


def test_a_training_step_is_marked_layer_by_layer(recorder):
    images = np.zeros((8, 4, 4, 1), np.float32)
    trainer = gpucnn.Trainer(small_network(), backend="numpy", progress=False)
    trainer.fit(images, np.zeros(8, np.int64), epochs=1, batch_size=8, validation_split=0)
    assert recorder.ranges == [
        ("data wait", "gpucnn", 0),
        ("net.forward", "gpucnn", 0),
        ("block.forward", "gpucnn", 1),
        ("inner.forward", "gpucnn", 2),
        ("flatten.forward", "gpucnn", 1),
        ("head.forward", "gpucnn", 1),
        ("loss", "gpucnn", 0),
        ("net.backward", "gpucnn", 0),
        ("head.backward", "gpucnn", 1),
        ("flatten.backward", "gpucnn", 1),
        ("block.backward", "gpucnn", 1),
        ("inner.backward", "gpucnn", 2),
        ("optimizer", "gpucnn", 0),
        ("data wait", "gpucnn", 0),
    ]


def test_ranges_close_when_a_layer_fails(recorder):
    class Broken(NumpyBackend):
        def conv_fprop(self, *_: object) -> np.ndarray:
            raise FloatingPointError

    with use_backend(Broken()), pytest.raises(FloatingPointError):
        small_network().forward(np.zeros((1, 4, 4, 1), np.float32))
    assert recorder.names == ["net.forward", "block.forward", "inner.forward"]


def test_with_nobody_looking_on_a_function_is_called_as_it_is():
    seen = []
    assert tracing.traced(None, "sum", lambda *numbers: seen.append(numbers) or 3, 1, 2) == 3
    assert seen == [(1, 2)]


def test_an_observer_takes_the_place_of_nvtx_for_a_while(recorder):
    seen = []

    def observer(subject, what, function, arguments):
        seen.append((subject and subject.name, what))
        return function(*arguments)

    layer = gpucnn.ReLU(name="positive")
    with pytest.raises(ZeroDivisionError), tracing.observing(observer):
        assert layer.forward(np.array([-1.0, 2.0])).tolist() == [0.0, 2.0]
        tracing.traced(None, "division", lambda: 1 / 0)
    layer.forward(np.ones(3))
    assert seen == [("positive", "forward"), (None, "division")]
    assert recorder.names == ["positive.forward"]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \"gpucnn\[profile\]\""):
        tracing.enable()


def test_the_run_for_profilers(recorder, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    main(["--backend", "numpy", "--batch-size", "4", "--warm-up", "1", "--steps", "2"])
    assert recorder.names.count("optimizer") == 3
    assert recorder.names.count("conv2d_1.backward") == 3  # the layer that its docstring names
    assert "lenet5 on numpy: 2 steps of 4 images" in capsys.readouterr().out
