"""From files in kernels/ to functions on the GPU: NVRTC through ``cupy.RawModule``.

The only file that touches RawModule. CuPy keeps the cubin on disk, keyed by source, options,
architecture and compiler; its key does not see the headers that we include, so their hash goes
into the source.
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
    # CuPy adds -ftz=true at run time, so that is what a cubin here shows as well
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
        self._functions: dict[tuple[int, Kernel], Any] = {}
        self._modules: dict[tuple[int, str, tuple], Any] = {}

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple,
        pointees: Sequence[Any] = (),
    ) -> None:
        """Start a kernel; ``pointees`` are arrays reached through a table of addresses."""
        from cupy.cuda import Device

        key = (Device().id, kernel)
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = self._get(key[0], kernel)
        function(grid, block, arguments)

    def _get(self, device: int, kernel: Kernel) -> Any:
        import cupy

        key = (device, kernel.file, tuple(kernel.defines.items()))
        if key not in self._modules:
            self._modules[key] = cupy.RawModule(code=source(kernel.file), options=options(kernel))
        return self._modules[key].get_function(kernel.symbol)
