"""The machine code that NVRTC makes: the instructions that a kernel was written for are there."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS
from gpucnn.backends.cuda.channels import SUMS
from gpucnn.backends.cuda.compiler import compile_cubin
from gpucnn.backends.cuda.kernel import Kernel
from gpucnn.backends.cuda.norm import BATCH_BACKWARD, BATCH_FORWARD

pytest.importorskip("cupy", reason="NVRTC is reached through CuPy")


@pytest.fixture(scope="module")
def nvdisasm() -> Path:
    """The disassembler of the package nvidia-cuda-nvdisasm."""
    try:
        files = metadata.files("nvidia-cuda-nvdisasm") or []
    except metadata.PackageNotFoundError:
        pytest.skip("there is no nvidia-cuda-nvdisasm")
    return next(Path(file.locate()) for file in files if file.name == "nvdisasm")


def instructions(nvdisasm: Path, folder: Path, kernel: Kernel, architecture: str) -> set[str]:
    """Return the instructions that occur in a kernel, "DMMA.16x8x16", "LDG.E.64" ..."""
    cubin, _ = compile_cubin(kernel, architecture)
    file = folder / "kernel.cubin"
    file.write_bytes(cubin + b"\0")  # CuPy drops the last byte
    text = subprocess.run([nvdisasm, "-c", file], capture_output=True, text=True, check=True).stdout
    (code,) = (
        section for section in text.split(".section\t.text.")[1:]
        if section.startswith(f"{kernel.symbol},")
    )  # fmt: skip
    # "        /*0120*/              @!P0 LDG.E R2, [R4.64] ;"
    return set(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][\w.]*)", code))


# Local memory, and memory of which the compiler does not know that it is global: each such access
# waits for those to shared memory.
UNWANTED = {"LDL", "STL", "LD", "ST"}


def mnemonics(found: set[str]) -> set[str]:
    return {instruction.split(".")[0] for instruction in found}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("architecture, mma", [("sm_80", "DMMA.884"), ("sm_90", "DMMA.16x8x16")])
def test_doubles_are_multiplied_on_tensor_cores(
    nvdisasm: Path, tmp_path: Path, architecture: str, mma: str, direction: str
) -> None:
    dmma = ALGORITHMS["dmma"]
    kernel = dmma.kernels[direction](2, True, "float64", dmma.tiles[0])
    found = instructions(nvdisasm, tmp_path, kernel, architecture)
    assert mma in found
    assert "LDS.64" in found
    assert not mnemonics(found) & {"DFMA", *UNWANTED}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_float32_means_float32(nvdisasm: Path, tmp_path: Path, direction: str) -> None:
    implicit_gemm = ALGORITHMS["implicit_gemm"]
    kernel = implicit_gemm.kernels[direction](2, True, "float32", implicit_gemm.tiles[0])
    found = instructions(nvdisasm, tmp_path, kernel, "sm_90")
    assert "LDS.128" in found, "shared memory is read 16 bytes at a time"
    assert "FFMA" in mnemonics(found)
    assert not mnemonics(found) & {"HMMA", "DMMA", *UNWANTED}


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_norms_move_16_bytes_at_a_time(
    nvdisasm: Path, tmp_path: Path, dtype: str, channels_last: bool
) -> None:
    where = channels_last, dtype
    for kernel in (BATCH_FORWARD(*where), BATCH_BACKWARD(*where), SUMS("batch_gradient", *where)):
        found = instructions(nvdisasm, tmp_path, kernel, "sm_90")
        assert any(instruction.startswith("LDG.E.128") for instruction in found)
        assert "STG.E.128" in found
        assert not mnemonics(found) & UNWANTED
