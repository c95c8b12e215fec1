"""From files in kernels/ to functions on the GPU: NVRTC through ``cupy.RawKernel``, or a cubin.

The only file that touches RawKernel and Module. CuPy keeps what RawKernel compiled on disk, keyed
by source, options, architecture and compiler; its key does not see the headers that we include, so
their hash goes into the source. CuPy adds -ftz=true to the options: as in its own kernels, float32
numbers below 2^-126 count as 0.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import dependent_launch
from .kernel import Kernel
from .tensor_map import TensorMap

OPTIONS = ("-std=c++17",)


@cache
def kernel_folder() -> Path:
    """Return the folder of the CUDA sources, in an installed package or in a checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "kernels"
    return installed if installed.is_dir() else package.parent / "kernels"


@cache
def _hash_of(pattern: str) -> str:
    digest = hashlib.sha256()
    for file in sorted(kernel_folder().glob(pattern)):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def header_hash() -> str:
    """Return a hash over all headers of kernels/."""
    return _hash_of("*.cuh")


def options(kernel: Kernel) -> tuple[str, ...]:
    """Return NVRTC's options for a kernel, all but the architecture."""
    defines = (f"-D{name}={value}" for name, value in kernel.defines.items())
    return (*OPTIONS, f"-I{kernel_folder()}", *defines)


def _on_device(kernel: Kernel) -> tuple[str, ...]:
    """Return the options for CuPy, which adds -arch=sm_90 itself; the one before it prevails."""
    own = kernel.only_architecture
    return (*((f"-arch=sm_{own}a",) if own else ()), *options(kernel))


@cache
def source(file: str) -> str:
    """Return a kernel file's text as it is handed to NVRTC."""
    return f"// headers {header_hash()}\n{(kernel_folder() / file).read_text()}"


def identity(kernel: Kernel, architecture: str) -> str:
    """Return a hash over what a kernel's cubin is made of; those of one module have the same."""
    made_of = (source(kernel.file), OPTIONS, sorted(kernel.defines.items()), architecture)
    return hashlib.sha256(repr(made_of).encode()).hexdigest()


@cache
def _environment(device: int) -> dict[str, str]:
    from cupy.cuda import nvrtc, runtime

    return {
        "gpu": runtime.getDeviceProperties(device)["name"].decode(),
        "driver": str(runtime.driverGetVersion()),  # the CUDA that it is made for, 13000 say
        "compiler": ".".join(map(str, nvrtc.getVersion())),
        "kernels": _hash_of("*.cu*"),
    }


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
    own = "a" if kernel.only_architecture else ""  # sm_90a: what no other architecture has
    arguments = (f"-arch={architecture}{own}", "-ftz=true", "--ptxas-options=-v", *options(kernel))
    try:
        nvrtc.compileProgram(program, arguments)
        return nvrtc.getCUBIN(program), _resources(nvrtc.getProgramLog(program))
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise CompileException(log, kernel.file, kernel.symbol, arguments, "nvrtc") from error
    finally:
        nvrtc.destroyProgram(program)


def _handle(function: Any) -> int:
    """Return the CUfunction, which a RawKernel has and a Function is."""
    return getattr(function, "kernel", function).ptr


class CupyLauncher:
    """Launches kernels on the current device and CuPy's current stream.

    Args:
        dependent: whether a kernel in a captured graph may begin before the one in front of it has
            ended, from sm_90 and CUDA 12.3 on; the same bits either way. It can be changed at any
            time.
    """

    def __init__(self, dependent: bool = False) -> None:
        self.dependent = dependent
        self._functions: dict[tuple[Kernel, int], Any] = {}
        self._architectures: dict[int, int] = {}
        self._cubins: dict[str, bytes] = {}

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

    def environment(self) -> dict[str, str]:
        """Return what times on the current device depend on: GPU, driver, compiler, sources."""
        return _environment(self.device)

    def preload(self, cubins: Mapping[str, bytes]) -> None:
        """Take these cubins for the kernels of this ``identity`` that have not run yet."""
        self._cubins.update(cubins)

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
            RuntimeError: the driver refuses a dependent launch.
        """
        import cupy

        device = self.device
        mapped = [a.array for a in arguments if isinstance(a, TensorMap)]
        for array in (*arguments, *pointees, *mapped):
            if isinstance(array, cupy.ndarray) and array.data.device_id != device:
                raise ValueError(
                    f"{kernel.symbol}: all arrays must lie on the current device, {device}; choose"
                    f" theirs by `with array.device:`. Received: one on {array.data.device_id}"
                )
        function = self._functions.get((kernel, device))
        if function is None:
            function = self._functions[kernel, device] = self._load(kernel)
        if mapped:
            arguments = tuple(a.encode() if isinstance(a, TensorMap) else a for a in arguments)
        shared = kernel.dynamic_bytes
        if self.dependent and self.architecture >= dependent_launch.FIRST_ARCHITECTURE:
            stream = cupy.cuda.get_current_stream().ptr
            if dependent_launch.follows_a_kernel(stream):
                handle = _handle(function)
                dependent_launch.launch(handle, grid, block, shared, stream, arguments)
                return
        function(grid, block, arguments, shared_mem=shared)

    def _load(self, kernel: Kernel) -> Any:
        """Return the function for the current device; it may have what shared memory it needs."""
        function, shared = self._function(kernel), kernel.dynamic_bytes
        if shared:
            from cupy_backends.cuda.api import driver

            attribute = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            driver.funcSetAttribute(_handle(function), attribute, shared)
        return function

    def _function(self, kernel: Kernel) -> Any:
        import cupy

        cubin = self._cubins.get(identity(kernel, f"sm_{self.architecture}"))
        if cubin is None:  # CuPy compiles kernels of one file with the same macros together
            return cupy.RawKernel(source(kernel.file), kernel.symbol, _on_device(kernel))
        module = cupy.cuda.function.Module()
        module.load(cubin)
        return module.get_function(kernel.symbol)
