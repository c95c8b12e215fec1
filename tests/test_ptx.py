"""kernels/ptx.cuh: one home for inline PTX, one host function for each of its functions."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.emulator import Module
from tests.ptx_cases import bfloat16_from_float

ROOT = Path(__file__).resolve().parents[1]
PTX = ROOT / "kernels" / "ptx.cuh"
HOST = ROOT / "tests" / "emulator" / "runtime" / "include" / "emu_ptx.h"
SAMPLES = ROOT / "tests" / "emulator" / "samples"

# What a kernel may use on each architecture, beside what the older ones have.
BASE = """
#include "ptx.cuh"
extern "C" __global__ void probe(uint32_t* y, const void* p) {
    __shared__ uint4 s[32];
    uint32_t four[4], two[2];
    bar_sync(1, 32);
    p = in_register(in_global(p));
    ldmatrix_x4(four, s);
    ldmatrix_x4_trans(four, s);
    ldmatrix_x2(two, s);
    y[0] = four[0] + two[1] + smem_u32(s) + half_from_float(float_from_half(two[0]));
    y[4] = in_register(4);
#ifdef AMPERE
    float d[4] = {};
    cp_async_16(s, p);
    cp_async_4(s, p, 0);
    cp_async_commit();
    cp_async_wait<0>();
    mma_m16n8k16_f16(d, four, two);
    mma_m16n8k16_bf16(d, four, two);
    mma_m16n8k8_tf32(d, four, two);
    y[1] = cvt_tf32(d[3]) + bfloat16_from_float(d[2]);
    y[1] += cvt_f16x2(d[0], d[1]) + cvt_bf16x2(d[1], d[2]);
    y[1] += max_nan_f16x2(y[5], y[6]) + min_nan_f16x2(y[5], y[6]);
    y[1] += max_nan_bf16x2(y[5], y[6]) + min_nan_bf16x2(y[5], y[6]);
    double e[2] = {};
    mma_m8n8k4_f64(e, e[0], e[1]);
    y[2] = e[0] < e[1];
#endif
#ifdef HOPPER
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    double f[4] = {}, eight[8] = {};
    mma_m16n8k16_f64(f, eight, f);
    y[3] = f[0] < f[3];
#endif
}
"""


def compile_cubin(text: str, name: str, *options: str) -> bytes:
    nvrtc = pytest.importorskip("cupy", reason="compiling needs CuPy's NVRTC").cuda.nvrtc
    program = nvrtc.createProgram(text, name, (), ())
    try:
        nvrtc.compileProgram(program, ("-std=c++17", f"-I{PTX.parent}", *options))
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("architecture", [75, 80, 86, 89, 90, 100, 120])
def test_header_compiles_for_every_architecture(architecture):
    generations = {80: "AMPERE", 90: "HOPPER"}
    options = [f"-D{name}" for first, name in generations.items() if architecture >= first]
    assert compile_cubin(BASE, "probe.cu", f"-arch=sm_{architecture}", *options)


@pytest.mark.parametrize(
    "file, architecture",
    [
        ("conv_mma.cu", "sm_80"),
        ("conv_mma.cu", "sm_120"),
        ("mma_f64.cu", "sm_90"),
        ("wgmma.cu", "sm_90a"),
    ],
)
def test_samples_compile(file, architecture):
    headers = Path(os.environ.get("CUDA_PATH", "/usr/local/cuda")) / "include"
    if not (headers / "cuda_fp16.h").is_file():
        pytest.skip("cuda_fp16.h needs a CUDA toolkit")
    text = (SAMPLES / file).read_text()
    assert compile_cubin(text, file, f"-arch={architecture}", f"-I{headers}")


def test_the_emulator_has_the_same_functions():
    def functions(text: str, keyword: str) -> set[str]:
        macro = r"^(?:PTX|EMU)_(?:W?G?MMA\w*|BOUND)\((\w+), "
        made_by_macro = set(re.findall(macro, text, re.MULTILINE))
        return made_by_macro | set(re.findall(rf"{keyword} [\w*]+ (\w+)\(", text)) - {"NAME"}

    device, host = (
        functions(PTX.read_text(), "PTX_FUNCTION"),
        functions(HOST.read_text(), "EMU_INLINE"),
    )
    assert len(device) > 20
    assert device == host


NARROWING = """
#include "half.cuh"
extern "C" __global__ void narrowed(const float* x, unsigned short* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = narrow_to_bfloat16(x[i]).bits;
}
"""


def test_bfloat16_without_its_instruction(tmp_path):
    """What kernels/half.cuh does on sm_75 does as the instruction does from sm_80 on."""
    file = tmp_path / "narrowed.cu"
    file.write_text(NARROWING)

    def run(name: str, threads: int, x: np.ndarray, y: np.ndarray, n: np.int32) -> None:
        module = Module(file, ["narrowed"], {"__CUDA_ARCH__": 750}, mode="fast")
        module.get_function("narrowed")((1,), (threads,), (x, y, n))

    bfloat16_from_float(run)


def test_inline_ptx_lives_in_one_file():
    files = [p for p in PTX.parent.iterdir() if p.suffix in {".cu", ".cuh"} and p != PTX]
    assert files
    for file in files:
        code = re.sub(r"//[^\n]*|/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
        assert not re.search(r"\basm\b", code), f"{file.name} holds inline PTX"
