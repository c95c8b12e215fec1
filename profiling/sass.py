"""What is in a kernel's machine code, by NVRTC and nvdisasm: no GPU is needed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from gpucnn.backends.cuda.compiler import compile_cubin
from gpucnn.backends.cuda.kernel import Kernel

# "        /*0120*/              @!P0 LDG.E R2, [R4.64] ;"
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][\w.]*)")


@cache
def disassembler() -> Path | None:
    """Return nvdisasm of the package nvidia-cuda-nvdisasm, or None where that is not there."""
    try:
        files = metadata.files("nvidia-cuda-nvdisasm") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()) for file in files if file.name == "nvdisasm"), None)


def listing(nvdisasm: Path, folder: Path, kernel: Kernel, architecture: str) -> str:
    """Return a kernel's machine code, as nvdisasm writes it; the folder is for its cubin."""
    cubin, _ = compile_cubin(kernel, architecture)
    file = folder / "kernel.cubin"
    file.write_bytes(cubin + b"\0")  # CuPy drops the last byte
    text = subprocess.run([nvdisasm, "-c", file], capture_output=True, text=True, check=True).stdout
    (code,) = (
        section for section in text.split(".section\t.text.")[1:]
        if section.startswith(f"{kernel.symbol},")
    )  # fmt: skip
    return code


def spans(code: str) -> Iterator[tuple[int, int]]:
    """Yield where each loop is among the instructions: from a label to a branch back to it."""
    labels, count = {}, 0
    for line in code.splitlines():
        if label := re.match(r"\.(L_x_\d+):", line):
            labels[label[1]] = count
        if INSTRUCTION.search(line):
            count += 1
            target = re.search(r"BRA.*?(L_x_\d+)", line)
            if target and target[1] in labels:
                yield labels[target[1]], count


def loops(code: str) -> Iterator[list[str]]:
    """Yield the instructions of each loop, "FFMA.FTZ", "LDS.128" and so on."""
    found = INSTRUCTION.findall(code)
    return (found[begin:end] for begin, end in spans(code))
