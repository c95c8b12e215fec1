"""``gpucnn bench``, with workers that only say that they work."""

import re
from functools import partial
from types import SimpleNamespace

import pytest

from gpucnn.bench.cases import Case
from gpucnn.bench.processes import Refused
from gpucnn.bench.runs import Benchmark

from . import run


class FakeWorker:
    """Answers as a worker of the benchmark does: ours takes half of PyTorch's 4 ms."""

    pid = None

    def __init__(self, side: str, threads: int, core: str | None = None) -> None:
        self.side, self.core = side, core or "Zen"

    def ask(self, do: str, **arguments):
        if do == "about":
            return {
                "version": "2.4",
                "blas": "openblas 0.3",
                "core": self.core,
                "capability": "AVX2",
            }
        if do == "prepare":
            if self.side == "torch" and arguments["case"]["group"] == "1x1":
                raise Refused("RuntimeError: could not create a primitive")
            whole_step = "channels" not in Case(**arguments["case"]).shape
            return {"errors": {"way": None if whole_step else 3e-6}}
        return {"seconds": 0.002 if self.side == "gpucnn" else 0.004, "calls": 3}

    def close(self) -> None:
        pass


def fake_load(share: float) -> SimpleNamespace:
    return SimpleNamespace(
        known=True, rest=lambda: None, mark=lambda: None, foreign=lambda: share
    )  # fmt: skip


@pytest.fixture
def fake_bench(monkeypatch) -> None:
    """A benchmark on no processes, undisturbed, beside PyTorch."""
    load = fake_load(0.0)
    options = {
        "make_worker": FakeWorker, "make_load": lambda pids: load, "sleep": lambda seconds: None,
    }  # fmt: skip
    monkeypatch.setattr("gpucnn.bench.runs.Benchmark", partial(Benchmark, **options))
    monkeypatch.setattr("gpucnn.bench.runs.peers_here", lambda: ("torch", "jax"))


def test_the_benchmark_beside_pytorch(fake_bench):
    output = run("bench", "--threads", 3)
    row = r"cifar_64_64 +conv_dgrad +N32 C64 32x32, K64 3x3 +2.000 +3e-06 +4.000 +3e-06 +0.50"
    assert re.search(row, output)
    assert re.search(r"lenet5 +inference +N1 +2.000 +4.000 +0.50", output)
    assert re.search(r"resnet50_256_64 +conv_fprop .* 2.000 +3e-06 *$", output, re.MULTILINE)
    assert re.search(r"threads +3", output)
    assert re.search(r"gpucnn +NumPy 2.4, openblas 0.3, its core by own choice: Zen", output)
    assert re.search(r"PyTorch +2.4, AVX2, in its better layout", output)
    assert re.search(r"ratio +lenet5 0.50, .*3x3 0.50", output)
    assert "JAX" not in output and "disturbed" not in output and "left out" not in output


def test_the_benchmark_without_pytorch(fake_bench, monkeypatch):
    monkeypatch.setattr("gpucnn.bench.runs.peers_here", lambda: ())
    output = run("bench")
    assert re.search(r"cifar_64_64 +conv_dgrad +N32 C64 32x32, K64 3x3 +2.000 +3e-06", output)
    assert "PyTorch" not in output and not re.search(r"\bratio\b", output)


def test_the_whole_benchmark(fake_bench):
    output = run("bench", "--full")
    assert re.search(r"mobilenet_v2_small +training_step +N128 +own choice", output)
    assert re.search(r"JAX +2.4", output)


def test_the_benchmark_says_what_was_disturbed_and_left_out(fake_bench, monkeypatch):
    load = fake_load(0.9)
    options = {
        "make_worker": FakeWorker, "make_load": lambda pids: load, "sleep": lambda seconds: None,
        "clock": iter(range(0, 10_000, 10)).__next__,
    }  # fmt: skip
    monkeypatch.setattr("gpucnn.bench.runs.Benchmark", partial(Benchmark, **options))
    monkeypatch.setattr("gpucnn.bench.runs.peers_here", lambda: ())  # whose ratio has no place
    output = run("bench")
    assert re.search(r"2.000 \? ", output)
    assert re.search(r"disturbed +3 rows, marked \?", output)
    assert re.search(r"left out +\d+ cases, for want of time", output)
