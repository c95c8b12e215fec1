"""How the emulator builds a kernel file: names, macros, errors, the cache, AddressSanitizer."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.emulator import CompileError, Module
from tests.emulator.build import CXX, build_runtime

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "tests" / "emulator" / "selftest.cu"
pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_names_and_values_from_macros(mode):
    defines = {"SUFFIX": "_f64", "TYPE": "double", "VALUE": "(1.0 / 3)"}
    y = np.zeros(32)
    module = Module(SOURCE, ["fill_f64"], defines, mode)
    module.get_function("fill_f64")((1,), (32,), (y,))
    np.testing.assert_array_equal(y, 1 / 3)
    with pytest.raises(ValueError, match="built with the kernels fill_f64"):
        module.get_function("fill")


def test_names_of_plain_kernels_are_found(tmp_path):
    file = tmp_path / "plain.cu"
    file.write_text('extern "C" __global__ void __launch_bounds__(32) one(int* y) { *y = 1; }\n')
    y = np.zeros(1, np.int32)
    Module(file, mode="fast").get_function("one")((1,), (1,), (y,))
    assert y[0] == 1


@pytest.mark.parametrize(
    "kernel",
    [
        'extern "C" __global__ void NAME(one)(int* y) { *y = 1; }',
        'extern "C" __global__ void PASTE(one, _f32)(int* y) { *y = 1; }',
        "template <int N> __global__ void one(int* y) { *y = N; }",
    ],
)
def test_other_names_must_be_given(kernel):
    plain = 'extern "C" __global__ void plain(int* y) { *y = 1; }'
    with pytest.raises(ValueError, match=r"selftest\.cu: name the kernels to build"):
        Module(SOURCE, text=f"{plain}\n{kernel}\n")


def test_compile_errors_name_the_line():
    text = "\n\n__global__ void f(int* y) { *y = undeclared; }\n"
    with pytest.raises(CompileError, match=r"selftest\.cu:3:\d+: error: .undeclared. was not"):
        Module(SOURCE, ["f"], text=text, mode="fast")
    text = "__device__ int g();\n__global__ void f(int* y) { *y = g(); }\n"
    with pytest.raises(CompileError, match="undefined reference to `g"):
        Module(SOURCE, ["f"], text=text, mode="fast")
    with pytest.raises(ValueError, match="mode must be one of fast, check, asan"):
        Module(SOURCE, ["copy"], mode="slow")


def build_in_process(file: Path) -> None:
    y = np.zeros(1, np.int32)
    Module(file, ["one"], mode="fast").get_function("one")((1,), (1,), (y,))
    assert y[0] == 1


def test_several_processes_build_one_library(tmp_path, monkeypatch):
    runtime, cache = build_runtime("fast"), tmp_path / "cache"
    monkeypatch.setenv("GPUCNN_EMULATOR_CACHE", str(cache))
    file = tmp_path / "one.cu"
    file.write_text('extern "C" __global__ void one(int* y) { *y = 1; }\n')
    cache.mkdir()
    shutil.copy(runtime, cache)
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=build_in_process, args=(file,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    left = sorted(path.name.split("-")[0] + path.suffix for path in cache.iterdir())
    assert left == ["header", "header.lock", "one.lock", "one.so", "runtime.so"]


def test_headers_are_part_of_the_key(tmp_path):
    (tmp_path / "inner.cuh").write_text("#define VALUE 1\n")
    (tmp_path / "outer.cuh").write_text('#include "inner.cuh"\n')
    file = tmp_path / "one.cu"
    file.write_text('#include "outer.cuh"\nextern "C" __global__ void f(int* y) { *y = VALUE; }\n')
    y = np.zeros(1, np.int32)
    for value in (1, 2):
        (tmp_path / "inner.cuh").write_text(f"#define VALUE {value}\n")
        Module(file, mode="fast").get_function("f")((1,), (1,), (y,))
        assert y[0] == value


ASAN_KERNEL = """extern "C" __global__ void store(float* y, int i) {
    __syncthreads();
    y[i + threadIdx.x] = threadIdx.x;
}
"""
ASAN_SCRIPT = """
import sys
import numpy as np
from tests.emulator import Module
kernel = Module(sys.argv[1], mode="asan").get_function("store")
y = np.zeros(64, np.float32)
kernel((1,), (64,), (y, np.int32(0)))
print("stored", (y == np.arange(64)).all(), flush=True)
kernel((1,), (64,), (y, np.int32(1)))
"""


def test_asan_build(tmp_path):
    find = [CXX, "-print-file-name=libasan.so"]
    library = subprocess.run(find, capture_output=True, text=True).stdout.strip()
    if "/" not in library:
        pytest.skip(f"{CXX} has no libasan")
    file = tmp_path / "store.cu"
    file.write_text(ASAN_KERNEL)
    with pytest.raises(RuntimeError, match=r"LD_PRELOAD=libasan\.so"):  # this process has none
        Module(file, mode="asan")
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", ASAN_SCRIPT, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "stored True" in result.stdout, result.stderr
    assert "heap-buffer-overflow" in result.stderr
    assert "store.cu:3" in result.stderr
