"""Two ways to run tests/emulator/samples/ptx.cu: in the emulator, and on a GPU through CuPy.

Both take NumPy arrays and write the results back into them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.backends.cuda.compiler import header_hash, kernel_folder
from gpucnn.backends.cuda.tensor_map import TensorMap

from .emulator import Module, tensor_map

SOURCE = Path(__file__).parent / "emulator" / "samples" / "ptx.cu"
Architecture = tuple[int, int]


def kernel_names() -> list[str]:
    """Return the kernels of the file, those that its macros make among them."""
    text = SOURCE.read_text("utf-8")
    names = re.findall(r"KERNEL (?:__\w+__\([\d, ]+\) )?(\w+)\(", text)
    makers = "BOUNDS|COPY|MMA_16_BIT|LOAD|STORE|GEMM_WGMMA|TURNED_WGMMA"
    names += re.findall(rf"^(?:{makers})\((\w+), ", text, re.MULTILINE)
    return [name for name in names if name != "NAME"]


@cache
def emulated(mode: str) -> Module:
    return Module(SOURCE, kernel_names(), mode=mode)


class EmulatorRunner:
    """Runs kernels on the CPU; ``mode`` as of ``emulator.Module``."""

    architecture: Architecture = (9, 0)

    def __init__(self, mode: str = "check") -> None:
        self.mode = mode

    def __call__(
        self, name: str, threads: int, *arguments: Any, shared: int = 0, blocks: int = 1
    ) -> None:
        kernel = emulated(self.mode).get_function(name)
        maps = [a for a in arguments if isinstance(a, TensorMap)]
        values = [tensor_map(a) if isinstance(a, TensorMap) else a for a in arguments]
        kernel((blocks,), (threads,), values, shared, extra=[m.array for m in maps])


class GpuRunner:
    """Runs kernels on the current GPU.

    Raises:
        RuntimeError: CuPy or a GPU is missing.
    """

    def __init__(self) -> None:
        from gpucnn.backends import get_backend

        self.cupy = get_backend("cuda").xp

    @cached_property
    def architecture(self) -> Architecture:
        capability = self.cupy.cuda.Device().compute_capability
        return int(capability[:-1]), int(capability[-1])

    @cached_property
    def module(self) -> Any:
        options = ["-std=c++17", f"-I{kernel_folder()}"]
        if self.architecture == (9, 0):
            options.append("-arch=sm_90a")  # beside CuPy's own -arch=sm_90
        # CuPy keeps cubins by source and options: an edited header must change the source
        text = f"// headers {header_hash()}\n{SOURCE.read_text('utf-8')}"
        return self.cupy.RawModule(code=text, options=tuple(options))

    def __call__(
        self, name: str, threads: int, *arguments: Any, shared: int = 0, blocks: int = 1
    ) -> None:
        kernel = self.module.get_function(name)
        on_device: list[tuple[np.ndarray, Any]] = []

        def moved(array: np.ndarray) -> Any:
            on_device.append((array, self.cupy.asarray(array)))
            return on_device[-1][1]

        values = []
        for argument in arguments:
            if isinstance(argument, TensorMap):
                values.append(replace(argument, array=moved(argument.array)).encode())
            else:
                values.append(moved(argument) if isinstance(argument, np.ndarray) else argument)
        kernel((blocks,), (threads,), tuple(values), shared_mem=shared)
        self.cupy.cuda.Device().synchronize()
        for host, device in on_device:
            host[...] = device.get()
