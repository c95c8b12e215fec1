"""Two ways to run tests/emulator/samples/ptx.cu: in the emulator, and on a GPU through CuPy.

Both take NumPy arrays and write the results back into them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.backends.cuda.compiler import header_hash, kernel_folder

from .emulator import Module, tensor_map

SOURCE = Path(__file__).parent / "emulator" / "samples" / "ptx.cu"
Architecture = tuple[int, int]


@dataclass(frozen=True)
class TensorMap:
    """A tensor map of a 16-bit array; the fields are those of ``emulator.tensor_map``."""

    array: np.ndarray
    dims: Sequence[int]
    strides: Sequence[int]
    box: Sequence[int] | None = None
    swizzle: int = 0
    lower: Sequence[int] = (0, 0)
    upper: Sequence[int] = (0, 0)
    channels: int = 0
    pixels: int = 0


class EmulatorRunner:
    """Runs kernels on the CPU; ``mode`` as of ``emulator.Module``."""

    architecture: Architecture = (9, 0)

    def __init__(self, mode: str = "check") -> None:
        self.mode = mode

    def __call__(self, name: str, threads: int, *arguments: Any, shared: int = 0) -> None:
        kernel = Module(SOURCE, [name], mode=self.mode).get_function(name)
        maps = [a for a in arguments if isinstance(a, TensorMap)]
        values = [self._map(a) if isinstance(a, TensorMap) else a for a in arguments]
        kernel((1,), (threads,), values, shared, extra=[m.array for m in maps])

    @staticmethod
    def _map(m: TensorMap) -> np.void:
        return tensor_map(
            m.array, m.dims, m.strides, m.box, swizzle=m.swizzle, lower=m.lower, upper=m.upper,
            channels=m.channels, pixels=m.pixels,
        )  # fmt: skip


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

    def __call__(self, name: str, threads: int, *arguments: Any, shared: int = 0) -> None:
        kernel = self.module.get_function(name)
        on_device: list[tuple[np.ndarray, Any]] = []

        def moved(array: np.ndarray) -> Any:
            on_device.append((array, self.cupy.asarray(array)))
            return on_device[-1][1]

        values = []
        for argument in arguments:
            if isinstance(argument, TensorMap):
                values.append(encode(argument, moved(argument.array).data.ptr))
            else:
                values.append(moved(argument) if isinstance(argument, np.ndarray) else argument)
        kernel((1,), (threads,), tuple(values), shared_mem=shared)
        self.cupy.cuda.Device().synchronize()
        for host, device in on_device:
            host[...] = device.get()


UINT16 = 1  # of enum CUtensorMapDataType
SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}  # of enum CUtensorMapSwizzle
MAP_BYTES, MAP_ALIGNMENT = 128, 64


def encode(m: TensorMap, address: int) -> np.ndarray:
    """Return the driver's CUtensorMap as an array of one element, to be passed by value.

    Raises:
        OSError: the driver's library is not there; RuntimeError: it refuses the map.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    rank = len(m.dims)
    room = np.zeros(MAP_BYTES + MAP_ALIGNMENT, np.uint8)
    start = -room.ctypes.data % MAP_ALIGNMENT
    encoded = room[start : start + MAP_BYTES]

    def array(kind: Any, values: Sequence[int]) -> Any:
        return (kind * len(values))(*values)

    general = (
        ctypes.c_void_p(encoded.ctypes.data), UINT16, ctypes.c_uint32(rank),
        ctypes.c_void_p(address), array(ctypes.c_uint64, m.dims),
        array(ctypes.c_uint64, m.strides),
    )  # fmt: skip
    steps = array(ctypes.c_uint32, [1] * rank)
    # interleave none, the swizzle, promotion to L2 none, zeros outside
    how = (0, SWIZZLES[m.swizzle], 0, 0)
    if m.box is not None:
        box = array(ctypes.c_uint32, m.box)
        status = driver.cuTensorMapEncodeTiled(*general, box, steps, *how)
    else:
        corners = (array(ctypes.c_int, c) for c in (m.lower, m.upper))
        counts = (ctypes.c_uint32(m.channels), ctypes.c_uint32(m.pixels))
        status = driver.cuTensorMapEncodeIm2col(*general, *corners, *counts, steps, *how)
    if status:
        raise RuntimeError(f"the driver refuses the tensor map: CUresult {status}")
    return encoded.view(f"V{MAP_BYTES}")
