"""Launch the CUDA backend's kernels in the emulator: the backend's code stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpucnn.backends.cuda.compiler import kernel_folder
from gpucnn.backends.cuda.kernel import FAMILIES, Kernel
from gpucnn.backends.cuda.tensor_map import TensorMap

from .emulator import Module, tensor_map


class EmulatorLauncher:
    """A ``Launcher`` for ``CudaBackend(numpy, EmulatorLauncher("check"))``.

    Args:
        mode: "fast", or "check" for bounds, initialisation, alignment, races, and that every thread
            waits for the kernels before, as those of dependent launches must.
        folder: where the kernel files lie; a test of planted bugs gives a damaged copy.
        architecture: whose path through a kernel runs, where there are several.
    """

    device = 0

    def __init__(self, mode: str, folder: Path | None = None, architecture: int = 90) -> None:
        self.mode = mode
        self.architecture = architecture
        self.folder = folder or kernel_folder()
        self._functions: dict[Kernel, Any] = {}

    def launch(
        self,
        kernel: Kernel,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple,
        pointees: Sequence[Any] = (),
    ) -> None:
        if kernel not in self._functions:
            self._build(kernel)
        extra = [*pointees, *(a.array for a in arguments if isinstance(a, TensorMap))]
        values = [tensor_map(a) if isinstance(a, TensorMap) else a for a in arguments]
        self._functions[kernel](
            grid, block, values, kernel.dynamic_bytes, extra=extra,
            dependent=self.architecture >= 90,
        )  # fmt: skip

    def _build(self, kernel: Kernel) -> None:
        """Build the kernel's file once for all its kernels of the same macros."""
        kernels = [
            other
            for family in FAMILIES
            if family.file == kernel.file
            for other in family.all()
            if other.defines == kernel.defines
        ]
        names = [other.symbol for other in kernels]
        defines = kernel.defines
        if self.architecture != 90:  # the emulator's own
            defines = {**defines, "__CUDA_ARCH__": 10 * self.architecture}
        module = Module(self.folder / kernel.file, names, defines, self.mode)
        for other in kernels:
            self._functions[other] = module.get_function(other.symbol)
