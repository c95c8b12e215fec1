"""Every function of kernels/ptx.cuh by itself: in the emulator, and on a GPU that has it."""

from __future__ import annotations

import re
import shutil

import pytest

from .emulator.build import CXX
from .ptx_cases import CASES, runs_on
from .ptx_runners import SOURCE, EmulatorRunner, GpuRunner, kernel_names
from .test_ptx import PTX, compile_cubin


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
@pytest.mark.parametrize("name", CASES)
def test_in_the_emulator(name):
    CASES[name][1](EmulatorRunner())


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name):
    try:
        run = GpuRunner()
    except RuntimeError as error:
        pytest.skip(str(error))
    if not runs_on(name, run.architecture):
        pytest.skip(f"not on {run.architecture}")
    CASES[name][1](run)


@pytest.mark.parametrize("architecture", ["75", "80", "90", "90a", "100", "120"])
def test_the_kernels_compile(architecture):
    assert compile_cubin(SOURCE.read_text(), SOURCE.name, f"-arch=sm_{architecture}")


def test_every_function_is_called():
    """A new function of ptx.cuh needs a kernel in samples/ptx.cu and a case in ptx_cases.py."""
    text = PTX.read_text()
    functions = set(re.findall(r"PTX_FUNCTION [\w*]+ (\w+)\(", text)) - {"NAME"}
    functions |= set(re.findall(r"^PTX_(?:W?G?MMA\w*|BOUND)\((\w+), ", text, re.MULTILINE))
    called = SOURCE.read_text()
    assert [name for name in sorted(functions) if not re.search(rf"\b{name}\b", called)] == []
    kernels, run = kernel_names(), (SOURCE.parents[2] / "ptx_cases.py").read_text()
    assert len(kernels) > 15
    assert [name for name in kernels if f'"{name}"' not in run] == []
