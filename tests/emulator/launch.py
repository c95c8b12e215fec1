"""Load compiled kernels and launch them on NumPy arrays, like cupy.RawModule and RawKernel."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .arguments import Buffer, Parameter, pack, reachable
from .build import MAX_DYNAMIC_SHARED, build_kernels, build_runtime
from .symbols import explain, guards

_EXTERN_C = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\((?![^()]*\)\s*\()'
)
_ORDERS = ("forward", "reverse", "random")


class KernelError(RuntimeError):
    """A kernel did something that is wrong on a GPU too; the message names the source line."""


class Module:
    """The kernels of one file, compiled for the CPU.

    Args:
        path: the kernel file; headers beside it and those of kernels/ are found.
        names: the kernels wanted, as the preprocessed source names them (`"copy<float, 4>"` for
            a template). May be left out if every kernel is a plain `extern "C" __global__ void
            name(`, with no template and no macro around its name.
        defines: macros, a mapping (`{"TILE": 16}`) or a sequence (`["TILE=16", "RELU"]`).
        mode: "fast", "check" or "asan", see the package's docstring.
        text: the source to use instead of the file's (the file still gives the line names).

    Raises CompileError, with the compiler's text, if the file does not compile.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        names: Sequence[str] | None = None,
        defines: Mapping[str, object] | Sequence[str] = (),
        mode: str = "check",
        text: str | None = None,
    ) -> None:
        self.path, self.mode = Path(path).resolve(), mode
        text = self.path.read_text() if text is None else text
        names = _kernel_names(self.path, text) if names is None else list(names)
        if isinstance(defines, Mapping):
            defines = [f"{name}={value}" for name, value in defines.items()]
        self.library_path, dynamic = build_kernels(self.path, text, names, list(defines), mode)
        self.max_dynamic_shared = MAX_DYNAMIC_SHARED if dynamic else 0
        if mode == "asan" and "libasan" not in Path("/proc/self/maps").read_text():
            raise RuntimeError("mode 'asan' needs Python started with LD_PRELOAD=libasan.so")
        self.runtime = ctypes.CDLL(str(build_runtime(mode)))
        self.library = ctypes.CDLL(str(self.library_path))
        self.guards = np.array(guards(self.library_path) if mode == "check" else [], np.uint64)
        self._exports = {name: f"k{i}" for i, name in enumerate(names)}

    def get_function(self, name: str) -> Kernel:
        """The kernel called `name`, one of the names the module was built with."""
        if name not in self._exports:
            raise ValueError(
                f"{self.path.name} was built with the kernels {', '.join(self._exports)}. "
                f"Received: {name!r}"
            )
        return Kernel(self, name, self._exports[name])


class Kernel:
    """One kernel of a module; `stats` holds the counters of its last launch."""

    def __init__(self, module: Module, name: str, export: str) -> None:
        self.module, self.name, self.stats = module, name, {}
        signature = getattr(module.library, f"emu_signature_{export}")
        signature.restype = ctypes.c_char_p
        self.parameters = [Parameter(p[0], int(p[1:])) for p in signature().decode().split()]
        try:
            self.cluster = (ctypes.c_uint32 * 3).in_dll(module.library, f"emu_cluster_{name}")
        except ValueError:  # it has no __cluster_dims__
            self.cluster = (ctypes.c_uint32 * 3)(1, 1, 1)
        self._run = ctypes.cast(getattr(module.library, f"emu_run_{export}"), ctypes.c_void_p)

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[object],
        shared_mem: int = 0,
        *,
        order: str = "forward",
        seed: int = 0,
        threads: int | None = None,
        extra: Sequence[np.ndarray] = (),
        block_races: bool = True,
        dependent: bool = False,
        time_limit: float = 120.0,
    ) -> None:
        """Run the grid to its end.

        Args:
            grid, block: one to three sizes.
            args: a C-contiguous array or None for a pointer, a NumPy scalar of the parameter's
                very kind and size for a number, a structured scalar for a struct by value.
            shared_mem: bytes of dynamic shared memory.
            order: in which order threads and blocks get their turn: "forward", "reverse" or
                "random" (from `seed`).
            threads: blocks at a time in `fast` (default GPUCNN_EMULATOR_THREADS, else 1).
            extra: arrays that the kernel reaches through addresses in memory or tensor maps;
                the kernel may write to them unless NumPy says that they are read-only.
            block_races: in `check`, report blocks that touch the same memory without atomics
                (turn off for protocols with __threadfence).
            dependent: in `check`, report a thread that touches global memory, or ends, before it
                has waited for the kernels before (griddepcontrol.wait), as a dependent launch must.
            time_limit: CPU seconds after which the kernel is taken to run for ever.

        Raises KernelError if the kernel misbehaves, TypeError or ValueError for bad arguments.
        """
        values = pack(self.name, self.parameters, args)
        pointers = (ctypes.c_void_p * max(1, len(values)))(*map(ctypes.addressof, values))
        buffers = reachable(self.name, self.parameters, args, extra)
        buffer_array = (Buffer * max(1, len(buffers)))(*buffers)
        error = ctypes.create_string_buffer(4096)
        library = self.module.library
        if order not in _ORDERS:
            raise ValueError(f"order must be one of {', '.join(_ORDERS)}. Received: {order!r}")
        if threads is None:
            threads = int(os.environ.get("GPUCNN_EMULATOR_THREADS", "1"))
        launch = _Launch(
            kernel=self._run,
            args=ctypes.addressof(pointers),
            dynamic_shared=ctypes.cast(library.emu_dynamic_shared, ctypes.c_void_p),
            touch_shared=ctypes.cast(library.emu_touch_shared, ctypes.c_void_p),
            grid=_three(grid),
            block=_three(block),
            dynamic_bytes=shared_mem,
            dynamic_capacity=self.module.max_dynamic_shared,
            seed=seed,
            order=_ORDERS.index(order),
            check=self.module.mode == "check",
            block_races=block_races,
            threads=threads,
            dependent=dependent and self.module.mode == "check",
            cluster=self.cluster,
            time_limit=time_limit,
            buffers=buffer_array,
            buffer_count=len(buffers),
            guards=self.module.guards.ctypes.data,
            guard_count=self.module.guards.size,
            error=ctypes.cast(error, ctypes.c_char_p),
            error_capacity=len(error),
        )
        failed = self.module.runtime.emu_launch(ctypes.byref(launch))
        self.stats = dict(zip(_STATS, launch.stats, strict=False))
        if failed:
            message = explain(error.value.decode(), self.module.library_path)
            raise KernelError(f"{self.name}: {message}")


class _Launch(ctypes.Structure):
    """EmuLaunch of runtime/state.h."""

    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("args", ctypes.c_void_p),
        ("dynamic_shared", ctypes.c_void_p),
        ("touch_shared", ctypes.c_void_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_bytes", ctypes.c_uint64),
        ("dynamic_capacity", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("order", ctypes.c_uint32),
        ("check", ctypes.c_uint32),
        ("block_races", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("dependent", ctypes.c_uint32),
        ("cluster", ctypes.c_uint32 * 3),
        ("time_limit", ctypes.c_double),
        ("buffers", ctypes.POINTER(Buffer)),
        ("buffer_count", ctypes.c_uint64),
        ("guards", ctypes.c_void_p),
        ("guard_count", ctypes.c_uint64),
        ("error", ctypes.c_char_p),
        ("error_capacity", ctypes.c_uint64),
        ("stats", ctypes.c_uint64 * 8),
    )


_STATS = ("waits", "accesses", "barriers", "ldmatrix", "ldmatrix_conflicts", "mma", "wgmma")


def _kernel_names(path: Path, text: str) -> list[str]:
    names = _EXTERN_C.findall(text)
    if not names or len(names) != len(re.findall(r"\b__global__\b", text)):
        raise ValueError(f"{path.name}: name the kernels to build. Received: names=None")
    return names


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
