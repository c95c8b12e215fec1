"""What an algorithm for convolution is: where it applies, its plans, their cost, and its launch.

The planning half is pure functions of a ``Problem``, tested without a GPU; the running half gets
arrays. ``gpucnn.backends.cuda.plans`` chooses among all algorithms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from ....shapes import ConvShape
from ...base import FUSED, Array
from ..epilogue import ACTIVATIONS, Epilogue

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
        activation: applied to fprop's output with the bias and the residual, "linear" or of
            ``ACTIVATIONS``.
        architecture: the GPU's, 90 for sm_90.
        math: as in ``backends.base``; "tf32" and "fp32x3" are "strict" but for float32.
        residual: whether an array of the result's shape is added, in fprop before the activation.
        moments: whether the moments of fprop's output are wanted, for the batch norm behind it.
        pooled: whether the maxima of 2x2 places of fprop's output, of even size, are wanted in its
            place.
        wide: whether fprop's output is wanted in float32 where the elements have 16 bits.
        masked: whether fprop's output is wanted with its mask, behind an activation of
            ``MASKABLE``.
        through: whether dgrad's output is multiplied by the derivative of the activation that gave
            x, one of ``MASKABLE``.
        prologue: whether x, in fprop and wgrad, is to be read through a batch norm.
    """

    direction: str
    shape: ConvShape
    dtype: str
    activation: str = "linear"
    architecture: int = 90
    math: str = "strict"
    residual: bool = False
    moments: bool = False
    pooled: bool = False
    wide: bool = False
    masked: bool = False
    through: bool = False
    prologue: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether every algorithm does all that is asked for behind the sums."""
        asked = (self.residual, self.moments, self.pooled, self.wide, self.masked, self.through)
        return self.activation in FUSED and not any(asked)

    @property
    def plain(self) -> Problem:
        """The same sums with no more than a bias."""
        asked = ("residual", "moments", "pooled", "masked", "through")
        return replace(self, activation="linear", **dict.fromkeys(asked, False))

    @property
    def norm_us(self) -> float:
        """Estimate a pass that normalises x."""
        return LAUNCH_US + 2 * prod(self.shape.x_shape) * self.itemsize / BYTES

    @property
    def apart_us(self) -> float:
        """Estimate what is asked for behind the plain problem, in launches of its own."""
        passes = [3] * (self.residual or self.through) + [1.25] * self.pooled
        passes += [1] * (self.moments + self.masked)
        if self.activation not in FUSED:
            passes.append(2)
        result = self.shape.x_shape if self.direction == "dgrad" else self.shape.y_shape
        pass_us = prod(result) * self.itemsize / BYTES
        return sum(LAUNCH_US + each * pass_us for each in passes)

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

    def is_tried(self, plan: Plan) -> bool:
        """Return whether the plan's kernel has run on a GPU; until then it is the tuner's alone."""
        return True

    def fuses(self, problem: Problem, plan: Plan) -> bool:
        """Return whether ``run`` does what is asked for beside sums, a bias and ReLU."""
        return problem.is_plain

    def norms_on_load(self, problem: Problem, plan: Plan) -> bool:
        """Return whether ``run`` reads x through a norm; else somebody else makes that a pass."""
        return False

    @abstractmethod
    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        """Run a plan.

        arrays: x, w, b for fprop; dy, w, b for dgrad; x, dy for wgrad; b may be None. x is a
        ``Normed`` where the problem has a prologue and the plan ``norms_on_load``.
        """


class FusingAlgorithm(Algorithm):
    """One whose fprop, or dgrad, ends by kernels/epilogue.cuh."""

    def fuses(self, problem: Problem, plan: Plan) -> bool:
        if problem.moments:
            return self.moment_parts(problem, plan) > 0
        if problem.pooled and not self.pools(problem, plan):
            return False
        if problem.wide and not self.widens(problem, plan):
            return False
        if problem.masked and not self.masks(problem, plan):
            return False
        return problem.activation in ACTIVATIONS

    def pools(self, problem: Problem, plan: Plan) -> bool:
        """Return whether fprop can store the maxima of 2x2 outputs in their place."""
        return False

    def moment_parts(self, problem: Problem, plan: Plan) -> int:
        """Return into how many parts fprop's pixels fall whose moments are stored; 0 for none."""
        return 0

    def widens(self, problem: Problem, plan: Plan) -> bool:
        """Return whether fprop of 16-bit elements can store float32."""
        return False

    def masks(self, problem: Problem, plan: Plan) -> bool:
        """Return whether fprop can store the mask of its outputs, too."""
        return False

    @abstractmethod
    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        """Run a plan for fprop of x or dgrad of dy, and an epilogue."""

    def run_wgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array
    ) -> Array:
        """Run a plan for wgrad, where there is one."""
        raise NotImplementedError

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        if problem.direction == "wgrad":
            return self.run_wgrad(caller, problem, plan, *arrays)
        source, w, b = arrays
        epilogue = Epilogue(b, problem.activation)
        return self.run_fused(caller, problem, plan, source, w, epilogue)
