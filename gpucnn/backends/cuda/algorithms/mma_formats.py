"""What the tensor cores of mma.sync multiply (kernels/tensor_cores.cuh): 16-bit numbers, and TF32.

"tf32" is a product of float32 numbers rounded to 10 bits behind the point, to nearest with ties
away from zero; "fp32x3" is three of them, of the numbers' large and small parts.
"""

from __future__ import annotations

from ..kernel import DTYPE, Axis
from .base import Problem

FORMAT: Axis = {
    "float16": DTYPE["float16"],
    "bfloat16": DTYPE["bfloat16"],
    "tf32": ("tf32", {"ELEMENT": "F32", "PRODUCTS": 1}),
    "fp32x3": ("fp32x3", {"ELEMENT": "F32", "PRODUCTS": 3}),
}
HALVES = ("float16", "bfloat16")
PRODUCTS = {"fp32x3": 3}  # else 1

# GPUs for computing, which multiply half as many numbers in TF32 as in 16 bits; the others, by
# their datasheets, an eighth of what these do, no more than they do in float32.
FAST = (80, 90, 100, 103)
SLOWDOWN = 4


def format_of(problem: Problem) -> str | None:
    """Return what a problem's numbers may be multiplied as, None for what has no such kernels."""
    if problem.architecture < 80:
        return None
    if problem.dtype == "float32":
        return problem.math if problem.math in FORMAT else None
    return problem.dtype if problem.dtype in HALVES else None


def axis(*names: str, **macros: int) -> Axis:
    """Return the axis of kernels for these formats, all with these macros."""
    return {name: (FORMAT[name][0], {**FORMAT[name][1], **macros}) for name in names}


def chunk(problem: Problem) -> int:
    """Return the elements of 16 bytes, which the kernels move together."""
    return 16 // problem.itemsize
