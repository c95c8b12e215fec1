"""What can be counted of a rung without a GPU, and the rate that it cannot pass.

A multiply-add costs a multiprocessor four things: arithmetic, the issue of instructions, reads of
shared memory, and bytes from the second cache. Each has its pace; the slowest of them is the
rung's ceiling. The loop's instructions are read from the machine code, the rest follows from the
tile. Clocks are those of one multiprocessor of an H200.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.backends.cuda.algorithms import Plan
from gpucnn.backends.cuda.algorithms.base import MULTIPROCESSORS
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.kernel import Kernel
from gpucnn.backends.cuda.launch import ceil_div
from gpucnn.shapes import ConvShape
from profiling.sass import disassembler, listing, loops

from . import LAYERS, RUNGS, Rung

RESOURCES = Path(__file__).parents[1] / "results" / "resources.json"
ARCHITECTURE = "sm_90"
# Of a multiprocessor: registers, shared memory, threads; what a block takes of the second beside
# its own.
REGISTERS, SHARED, THREADS, RESERVED = 65536, 228 * 1024, 2048, 1024
# In a clock: multiply-adds of float32, of mma.sync and of wgmma; instructions issued; bytes from
# the second cache, 5,120 for all multiprocessors in NVIDIA's paper on the A100.
FMA, MMA, WGMMA = 128, 1024, 2048
ISSUED = 4
CACHE_BYTES = 5120 / MULTIPROCESSORS
GHZ = 1.98
ITEMSIZE = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Block:
    """What a block computes, and what it fetches for it.

    Attributes:
        pixels, filters: of a block.
        own_pixels, own_filters: of one of its threads, or warps or warpgroups on tensor cores.
        fetched: numbers from the second cache for a multiply-add of the direct sum.
        saved: multiply-adds of the direct sum for each that is made.
    """

    pixels: int
    filters: int
    own_pixels: int
    own_filters: int
    fetched: float
    saved: float = 1.0


def _gemm(m: int, n: int, own_m: int, own_n: int) -> Block:
    """A tile of a matrix product: m + n numbers for m * n multiply-adds."""
    return Block(m, n, own_m, own_n, (m + n) / (m * n))


def _winograd(settings: Any, s: ConvShape) -> Block:
    """Of 4 x 4 inputs and of 4 x 4 transformed weights come 2 x 2 outputs, 36 multiply-adds."""
    rows, columns, corner = settings.block.rows, settings.block.columns, settings.block.corner
    fetched = 16 * (rows + columns) / (36 * rows * columns)
    return Block(4 * rows, columns, 4 * corner, corner, fetched, saved=36 / 16)


def _wgmma(settings: Any, s: ConvShape) -> Block:
    tile = settings.tile
    block = _gemm(tile.pixels, tile.filters, tile.group_pixels, 64)
    if not tile.patches:
        fetched = tile.pixels / tile.cluster + tile.filters
        return replace(block, fetched=fetched / (tile.pixels * tile.filters))
    # 8 pixels wide; the windows reach over its edges
    high, wide = s.kernel
    patch = (8 + wide - 1) * (tile.pixels // 8 + high - 1)
    return replace(block, fetched=(patch / s.taps + tile.filters) / (tile.pixels * tile.filters))


_BLOCKS: dict[str, Callable[[Any, ConvShape], Block]] = {
    "naive": lambda t, s: _gemm(t.pixels, t.filters, 1, 1),
    "tiled": lambda t, s: _gemm(t.pixels, t.filters, 1, 1),
    "implicit_gemm": lambda t, s: _gemm(t.tile.m, t.tile.n, t.tile.thread_m, t.tile.thread_n),
    "winograd": _winograd,
    "mma": lambda t, s: _gemm(t.tile.m, t.tile.n, t.tile.warp_m, t.tile.warp_n),
    "wgmma": _wgmma,
}
COUNTED = [rung for rung in RUNGS if rung.algorithm in _BLOCKS]


class _Noting:
    """A launcher that launches nothing, and notes the kernels."""

    device, architecture = 0, 90

    def __init__(self) -> None:
        self.launched: list[tuple[Kernel, tuple[int, ...], int]] = []

    def launch(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], *_: Any
    ) -> None:
        self.launched.append((kernel, grid, block[0]))


def kernel_of(rung: Rung, plan: Plan, s: ConvShape) -> Kernel:
    """Return the kernel that a rung's plan is about. Nothing touches the arrays."""
    noting, problem = _Noting(), rung.problem(s)
    dtype = "float16" if rung.dtype == "bfloat16" else rung.dtype  # of the same size
    x, w = np.empty(s.x_shape, dtype), np.empty(s.w_shape, dtype)
    rung.run_by().run(CudaBackend(np, noting), problem, plan, x, w, None)
    (kernel,) = (
        k for k, grid, threads in noting.launched if (grid, threads) == (plan.grid, plan.threads)
    )
    return kernel


@cache
def _resources() -> dict[tuple[str, str, str], dict[str, Any]]:
    content = json.loads(RESOURCES.read_text("utf-8"))
    place = content["meta"]["architectures"].index(ARCHITECTURE)
    return {
        (row["file"], row["kernel"], row["variant"]): {
            name: value[place] if isinstance(value, list) else value for name, value in row.items()
        }
        for row in content["rows"]
    }


# ---- machine code -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loop:
    """The loop in which the multiply-adds stand closest, for one warp.

    Attributes:
        multiply_adds: of a warp, in all.
        instructions: that it issues for them.
        multiplying: those of them that multiply.
        reads: clocks that shared memory, or for want of it the first cache, is busy for it.
        clocks: that the arithmetic units of a multiprocessor are.
    """

    multiply_adds: int
    instructions: int
    multiplying: int
    reads: float
    clocks: float


def loop_of(code: str) -> Loop:
    """Return what a kernel's main loop does, from its machine code."""
    return max(map(_read, loops(code)), key=lambda loop: loop.multiply_adds / loop.instructions)


def _read(instructions: Sequence[str]) -> Loop:
    counts = Counter(instructions)
    shared = any(name.startswith("LDS") for name in counts)
    total = multiplying = 0
    reads = clocks = 0.0
    for name, count in counts.items():
        kind, *_ = name.split(".")
        if kind == "FFMA":
            made, busy = 32, 32 / FMA
        elif name.startswith("HMMA.16816"):
            made = 16 * 8 * 16
            busy = made / MMA
        elif shape := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", name):
            m, n, k = map(int, shape.groups())
            made = m * n * k // 4  # four warps issue it together
            busy = made / WGMMA
            reads += count * (m + n) * k * 2 / 128 / 4  # it reads both operands itself
        else:
            reads += count * _reading(name, shared)
            continue
        total, multiplying, clocks = (
            total + count * made,
            multiplying + count,
            clocks + count * busy,
        )
    return Loop(total, len(instructions), multiplying, reads, clocks)


def _reading(name: str, shared: bool) -> float:
    """Return the clocks of a load without bank conflicts. LDSM brings so many times 128 bytes; half
    a warp gets 16 bytes each in a clock, for pairs of lanes ask for the same."""
    if name.startswith("LDSM"):
        return int(name[-1])
    if name.startswith("LDS"):
        return 2 if name.endswith("128") else 1
    # of the two loads of a multiply-add one meets 32 lines, the other one
    return (32 + 1) / 2 if name.startswith("LDG") and not shared else 0


def bank_clocks(addresses: Sequence[int], width: int = 4) -> int:
    """Return the clocks that shared memory takes to read ``width`` bytes at each lane's address.

    32 banks of 4 bytes answer once a clock; lanes that ask for the same word are answered together.
    So many lanes as ask for 128 bytes are served at a time.

    >>> bank_clocks([4 * lane for lane in range(32)])
    1
    >>> bank_clocks([128 * lane for lane in range(32)]), bank_clocks([132 * i for i in range(32)])
    (32, 1)
    """
    lanes, clocks = 128 // width, 0
    for first in range(0, len(addresses), lanes):
        words = {a // 4 + i for a in addresses[first : first + lanes] for i in range(width // 4)}
        clocks += max(Counter(word % 32 for word in words).values())
    return clocks


# ---- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """A rung on a layer. Times are clocks of a multiprocessor for a multiply-add of the direct sum.

    Attributes:
        blocks: that a multiprocessor holds.
        registers, shared_bytes: of a thread, and of a block.
        times: by "arithmetic", "instructions", "shared memory" and "second cache".
    """

    rung: Rung
    block: Block
    threads: int
    registers: int
    shared_bytes: int
    loop: Loop
    bytes: float
    times: dict[str, float]

    @property
    def blocks(self) -> int:
        warps = ceil_div(self.threads, 32)
        registers = warps * ceil_div(32 * self.registers, 256) * 256
        shared = self.shared_bytes + RESERVED
        return min(THREADS // (32 * warps), REGISTERS // registers, SHARED // shared)

    @property
    def bound(self) -> str:
        return max(self.times, key=self.times.__getitem__)

    @property
    def ceiling(self) -> float:
        """TFLOP/s of the direct sum."""
        return 2 * MULTIPROCESSORS * GHZ / 1e3 / max(self.times.values())


@cache
def count(rung: Rung, layer: str = "3x3") -> Counts:
    """Count a rung on a layer.

    Raises:
        FileNotFoundError: there is no nvdisasm.
    """
    s = LAYERS[layer]
    plan = rung.plan(s)
    kernel, block = kernel_of(rung, plan, s), _BLOCKS[rung.algorithm](plan.settings, s)
    row = _resources()[kernel.file, kernel.function, kernel.suffix.removeprefix("_")]
    nvdisasm = disassembler()
    if nvdisasm is None:
        raise FileNotFoundError("nvdisasm is not there: pip install nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        loop = loop_of(listing(nvdisasm, Path(folder), kernel, ARCHITECTURE))
    made, fetched = loop.multiply_adds * block.saved, block.fetched * ITEMSIZE[rung.dtype]
    reads = "first cache" if row["shared_bytes"] + kernel.dynamic_bytes == 0 else "shared memory"
    times = {
        "arithmetic": loop.clocks / made,
        "instructions": loop.instructions / ISSUED / made,
        reads: loop.reads / made,
        "second cache": fetched / CACHE_BYTES,
    }
    shared = row["shared_bytes"] + kernel.dynamic_bytes
    return Counts(rung, block, plan.threads, row["registers"], shared, loop, fetched, times)
