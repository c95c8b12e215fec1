"""``gpucnn tune``, on a GPU that is none."""

import re
from collections.abc import Iterator

import pytest

from gpucnn.backends import get_backend

from ..tuning import FakeTimer, fake_backend, fake_tuner
from . import run


class SlowEstimates(FakeTimer):
    """The first plan of a problem, which is the estimate's choice, is slower than the others."""

    def inputs(self, *what):
        self.first = True
        return super().inputs(*what)

    def time(self, calls):
        first, self.first = self.first, False
        return super().time(calls) + first


@pytest.fixture
def tuned_gpu(monkeypatch, folder) -> Iterator[FakeTimer]:
    """A GPU that is none."""
    timer = SlowEstimates(lambda plan: 2.0)
    monkeypatch.setattr("gpucnn.backends.cuda.cupy_backend", lambda: fake_backend(folder / "tuned"))
    monkeypatch.setattr("gpucnn.backends.cuda.tuning.GraphTimer", lambda: timer)
    monkeypatch.setattr("gpucnn.backends.cuda.tuning.Tuner", fake_tuner)
    get_backend.cache_clear()
    yield timer
    get_backend.cache_clear()


def test_tuning_a_named_network(tuned_gpu, folder):
    output = run("tune", "resnet20", "--batch-size", 2, "--input", "16,16,3")
    row = r"fprop 2x16x16x16 by 16x3x3x16 +\w+ \w+=.* \w+ \w+=.* 3.0 +2.0 +1.50x"
    assert re.search(row, output)
    assert re.search(r"dgrad 2x16x16x16 by 32x3x3x16 strides 2x2 ", output)
    assert re.search(r"network +resnet20, input 2x16x16x3 float32", output)
    assert re.search(r"gpu +Fake H1", output)
    found = re.search(r"result +(\d+) convolutions, (\d+) with another plan", output)
    files = list((folder / "tuned").glob("*.json"))
    assert len(files) == int(found[1]) == 29 and 0 < int(found[2]) <= 29
    assert re.search(rf"kept in +{folder / 'tuned'}", output)
    count = len(tuned_gpu.timed)
    assert found[0] in run("tune", "resnet20", "--batch-size", 2, "--input", "16,16,3")
    assert len(tuned_gpu.timed) == count
    run("tune", "resnet20", "--batch-size", 2, "--input", "16,16,3", "--inference", "--again")
    assert count < len(tuned_gpu.timed) < 2 * count


def test_tuning_for_data_and_in_a_dtype(tuned_gpu):
    output = run("tune", "digits_cnn", "--data", "digits", "--dtype", "float16")
    assert "digits_cnn, input 32x8x8x1 float16" in output


def test_tuning_a_trained_network(tuned_gpu, newest):
    assert "digits_cnn, input 64x8x8x1 float32" in run("tune")
    assert "digits_cnn, input 5x8x8x1 bfloat16" in run(
        "tune", newest, "--batch-size", 5, "--dtype", "bfloat16"
    )
    message = run("tune", newest, "--input", "9,9,1", code=2)
    assert "--data and --input are for a named network" in message


def test_tuning_tells_which_plans_do_not_run(tuned_gpu):
    tuned_gpu.microseconds = lambda plan: 1.0 if plan.algorithm == "implicit_gemm" else 1 / 0
    output = run("tune", "vgg_small", "--batch-size", 1)
    assert re.search(r"did not run +\d+ plans, the first: ZeroDivisionError", output)
