"""From files in kernels/ to functions on the GPU: NVRTC through ``cupy.RawKernel``.

The only file that touches RawKernel. CuPy keeps the cubin on disk, keyed by source, options,
architecture and compiler; its key does not see the headers that we include, so their hash goes
into the source. CuPy adds -ftz=true to the options: as in its own kernels, float32 numbers below
2^-126 count as 0.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .kernel import Kernel

OPTIONS = ("-std=c++17",)


@cache
def kernel_folder() -> Path:
    """Return the folder of the CUDA sources, in an installed package or in a checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "kernels"
    return installed if installed.is_dir() else package.parent / "kernels"


@cache
def header_hash() -> str:
    """Return a hash over all headers of kernels/."""
    digest = hashlib.sha256()
    for header in sorted(kernel_folder().glob("*.cuh")):
        digest.update(header.name.encode() + b"\0" + header.read_bytes())
    return digest.hexdigest()[:16]


def options(kernel: Kernel) -> tuple[str, ...]:
    """Return NVRTC's options for a kernel, all but the architecture."""
    defines = (f"-D{name}={value}" for name, value in kernel.defines.items())
    return (*OPTIONS, f"-I{kernel_folder()}", *defines)


@cache
def source(file: str) -> str:
    """Return a kernel file's text as it is handed to NVRTC."""
    return f"// headers {header_hash()}\n{(kernel_folder() / file).read_text()}"


@dataclass(frozen=True)
class Resources:
    """What ptxas says that a kernel takes: registers a thread, bytes a block, bytes spilled."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


# "Compiling entry function 'NAME' ... N bytes stack frame, N bytes spill stores, ..." of ptxas -v
_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores,"
    r" (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def _resources(log: str) -> dict[str, Resources]:
    found = {}
    for entry in _ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        found[entry["name"]] = Resources(
            registers=int(entry["registers"]),
            shared_bytes=int(shared[1]) if shared else 0,
            stack_bytes=int(entry["stack"]),
            spill_bytes=int(entry["stores"]) + int(entry["loads"]),
        )
    return found


def compile_cubin(kernel: Kernel, architecture: str) -> tuple[bytes, dict[str, Resources]]:
    """Compile a kernel's module for "sm_90" or another architecture; needs NVRTC but no GPU.

    Returns:
        The cubin, and the resources of each kernel in it by symbol.

    Raises:
        cupy.cuda.compiler.CompileException: with the compiler's log.
    """
    from cupy.cuda import nvrtc
    from cupy.cuda.compiler import CompileException

    program = nvrtc.createProgram(source(kernel.file), kernel.file, (), ())
    # with CuPy's own option, so that the cubin is the one that runs
    arguments = (f"-arch={architecture}", "-ftz=true", "--ptxas-options=-v", *options(kernel))
    try:
        nvrtc.compileProgram(program, arguments)
        return nvrtc.getCUBIN(program), _resources(nvrtc.getProgramLog(program))
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise CompileException(log, kernel.file, kernel.symbol, arguments, "nvrtc") from error
    finally:
        nvrtc.destroyProgram(program)


class CupyLauncher:
    """Launches kernels on the current device and CuPy's current stream."""

    def __init__(self) -> None:
        self._functions: dict[Kernel, Any] = {}
        self._architectures: dict[int, int] = {}

    @property
    def device(self) -> int:
        """Return the number of the current device."""
        import cupy

        return cupy.cuda.runtime.getDevice()

    @property
    def architecture(self) -> int:
        """Return the current device's, 90 for sm_90."""
        import cupy

        device = self.device
        if device not in self._architectures:
            self._architectures[device] = int(cupy.cuda.Device(device).compute_capability)
        return self._architectures[device]

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple,
        pointees: Sequence[Any] = (),
    ) -> None:
        """Start a kernel; ``pointees`` are arrays reached through a table of addresses.

        Raises:
            ValueError: an array lies on another device than the current one.
        """
        import cupy

        device = self.device
        for array in (*arguments, *pointees):
            if isinstance(array, cupy.ndarray) and array.data.device_id != device:
                raise ValueError(
                    f"{kernel.symbol}: all arrays must lie on the current device, {device}; choose"
                    f" theirs by `with array.device:`. Received: one on {array.data.device_id}"
                )
        function = self._functions.get(kernel)
        if function is None:
            # CuPy compiles it for each device that it runs on, and kernels of one file with the
            # same macros together.
            function = cupy.RawKernel(source(kernel.file), kernel.symbol, options(kernel))
            self._functions[kernel] = function
        function(grid, block, arguments)
