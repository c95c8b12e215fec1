"""What an algorithm for convolution is: where it applies, its plans, their cost, and its launch.

The planning half is pure functions of a ``Problem``, tested without a GPU; the running half gets
arrays. ``gpucnn.backends.cuda.plans`` chooses among all algorithms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ....shapes import ConvShape
from ...base import Array

if TYPE_CHECKING:
    from ..launch import KernelCaller

DIRECTIONS = ("fprop", "dgrad", "wgrad")
SHARED_BYTES = 48 * 1024  # of a block, without asking the driver for more
PARTIAL_ELEMENTS = 2**24  # of partial sums, at most, that a split product leaves to be added up

# The device that the cost estimates have in mind, an H200: its multiprocessors, the float32
# multiply-adds of one of them in a microsecond (128 a clock at 1.98 GHz), the bytes that its memory
# moves in one, and how long a launch takes at least. What the algorithms reach of it is fitted to
# their times there.
MULTIPROCESSORS = 132
MULTIPLY_ADDS = 128 * 1980.0
BYTES = 4.2e6
LAUNCH_US = 2.5


@dataclass(frozen=True)
class Problem:
    """All that a plan may depend on.

    Attributes:
        direction: "fprop", "dgrad" or "wgrad".
        shape: the convolution's geometry.
        dtype: "float16", "bfloat16", "float32" or "float64".
        activation: applied to fprop's output with the bias, "linear" or "relu".
        architecture: the GPU's, 90 for sm_90.
        math: as in ``backends.base``; "tf32" and "fp32x3" are "strict" but for float32.
    """

    direction: str
    shape: ConvShape
    dtype: str
    activation: str = "linear"
    architecture: int = 90
    math: str = "strict"

    def __post_init__(self) -> None:
        if self.math in ("tf32", "fp32x3") and self.dtype != "float32":
            object.__setattr__(self, "math", "strict")

    @property
    def itemsize(self) -> int:
        """Bytes of an element in memory."""
        return {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}[self.dtype]

    @property
    def accumulator_bytes(self) -> int:
        """Bytes of what its sums are carried in."""
        return max(4, self.itemsize)


@dataclass(frozen=True)
class Plan:
    """One way to run a problem. Its settings fix the order of every sum.

    Attributes:
        algorithm: the algorithm's name.
        settings: the algorithm's own frozen record: tile, vector width, splits ...
        grid: blocks along x, y and z.
        threads: threads of a block.
        shared_bytes: static shared memory of a block.
    """

    algorithm: str
    settings: Any
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int = 0

    def is_legal(self) -> bool:
        """Return whether a device can launch it."""
        x, y, z = self.grid
        return (
            0 < x < 2**31
            and 0 < y < 2**16
            and 0 < z < 2**16
            and self.threads % 32 == 0
            and 0 < self.threads <= 1024
            and self.shared_bytes <= SHARED_BYTES
        )


def dgrad_as_fprop(shape: ConvShape) -> ConvShape:
    """Return the convolution that the gradient of the input is, where the stride is 1.

    It convolves dy with the filters turned and their two channel axes swapped, and its padding is
    dilation * (R - 1) - pad, negative where the first outputs saw nothing but padding.
    """
    reach = [d * (r - 1) for r, d in zip(shape.kernel, shape.dilation, strict=True)]
    padding = tuple((n - a, n - b) for n, (a, b) in zip(reach, shape.padding, strict=True))
    return replace(
        shape, channels=shape.filters, filters=shape.channels, input=shape.output, padding=padding
    )


class Algorithm(ABC):
    """A way to compute one or more directions of a convolution."""

    name: str

    @abstractmethod
    def plans(self, problem: Problem) -> Iterator[Plan]:
        """Yield the plans worth considering, none where the algorithm does not apply."""

    @abstractmethod
    def cost(self, problem: Problem, plan: Plan) -> float:
        """Return an estimate of the microseconds on an H200, to rank plans of all algorithms."""

    @abstractmethod
    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        """Run a plan.

        arrays: x, w, b for fprop; dy, w, b for dgrad; x, dy for wgrad; b may be None.
        """
