"""Load compiled kernels and launch them on NumPy arrays, like cupy.RawModule and RawKernel."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .build import MAX_DYNAMIC_SHARED, build_kernels, build_runtime
from .symbols import explain, guards

_EXTERN_C = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\((?!\w+\)\s*\()'
)
_ORDERS = ("forward", "reverse", "random")
# Parameter kinds, as reported by the compiled kernel, and the NumPy dtype kinds that fit.
_KINDS = {"i": "iu", "u": "iu", "f": "f", "b": "b", "s": "V"}


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
        # [(kind, bytes)]; kinds: P pointer, p pointer to const, i u f b numbers, s struct
        self.parameters = [(p[0], int(p[1:])) for p in signature().decode().split()]
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
            time_limit: CPU seconds after which the kernel is taken to run for ever.

        Raises KernelError if the kernel misbehaves, TypeError or ValueError for bad arguments.
        """
        values = self._pack(args)
        pointers = (ctypes.c_void_p * max(1, len(values)))(*map(ctypes.addressof, values))
        buffers = self._buffers(args, extra)
        buffer_array = (_Buffer * max(1, len(buffers)))(*buffers)
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

    def _pack(self, args: Sequence[object]) -> list:
        """The bytes of every argument, checked against the kernel's parameters."""
        if len(args) != len(self.parameters):
            raise TypeError(
                f"{self.name} has {len(self.parameters)} parameters. Received: {len(args)}"
            )
        return [self._pack_one(i, arg) for i, arg in enumerate(args)]

    def _pack_one(self, i: int, arg: object) -> object:
        kind, size = self.parameters[i]
        what = f"{self.name}: argument {i}"
        if kind in "Pp":
            if arg is None:
                return ctypes.c_uint64(0)
            if not isinstance(arg, np.ndarray):
                raise TypeError(
                    f"{what}: a pointer takes an array or None. Received: {type(arg).__name__}"
                )
            _demand_contiguous(arg, what)
            if kind == "P" and not arg.flags.writeable:
                raise ValueError(f"{what} is written to. Received: a read-only array")
            return ctypes.c_uint64(arg.ctypes.data)
        is_struct = isinstance(arg, np.ndarray) and arg.size == 1 and kind == "s"
        if not (isinstance(arg, np.generic) or is_struct):
            raise TypeError(
                f"{what}: the parameter is {_describe(kind, size)}, pass a NumPy scalar. "
                f"Received: {type(arg).__name__}"
            )
        if arg.dtype.kind not in _KINDS[kind] or arg.nbytes != size:
            raise TypeError(
                f"{what}: the parameter is {_describe(kind, size)}. "
                f"Received: {arg.dtype} of {arg.nbytes} bytes"
            )
        return (ctypes.c_char * size).from_buffer_copy(arg.tobytes())

    def _buffers(self, args: Sequence[object], extra: Sequence[np.ndarray]) -> list[_Buffer]:
        """The memory that the kernel may touch; arrays that overlap become one buffer."""
        arrays = [
            (arg, kind == "p", f"argument {i}")
            for i, (arg, (kind, _)) in enumerate(zip(args, self.parameters, strict=True))
            if kind in "Pp" and arg is not None
        ]
        for i, a in enumerate(extra):
            _demand_contiguous(a, f"{self.name}: extra array {i}")
            arrays.append((a, not a.flags.writeable, f"extra array {i}"))
        merged: list[list] = []  # [start, end, itemsize, read-only, name]
        for a, read_only, name in sorted(arrays, key=lambda item: item[0].ctypes.data):
            start, end = a.ctypes.data, a.ctypes.data + a.nbytes
            if merged and start < merged[-1][1]:
                last = merged[-1]
                last[1:] = (
                    max(end, last[1]),
                    min(a.itemsize, last[2]),
                    read_only and last[3],
                    f"{last[4]} and {name}",
                )
            elif a.nbytes:
                merged.append([start, end, a.itemsize, read_only, name])
        return [
            _Buffer(start, end - start, itemsize, read_only, name.encode())
            for start, end, itemsize, read_only, name in merged
        ]


class _Buffer(ctypes.Structure):
    """EmuBuffer of runtime/state.h."""

    _fields_ = (
        ("start", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("itemsize", ctypes.c_uint32),
        ("read_only", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
    )


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
        ("time_limit", ctypes.c_double),
        ("buffers", ctypes.POINTER(_Buffer)),
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


def _demand_contiguous(array: np.ndarray, what: str) -> None:
    if not array.flags.c_contiguous:
        raise ValueError(f"{what} must be C-contiguous. Received: strides {array.strides}")


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z


def _describe(kind: str, size: int) -> str:
    names = {"i": "int", "u": "unsigned", "f": "float", "b": "bool", "s": "struct"}
    return f"{names[kind]} of {size} bytes"
