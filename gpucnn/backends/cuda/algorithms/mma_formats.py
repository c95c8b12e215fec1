"""What the tensor cores of mma.sync multiply (kernels/tensor_cores.cuh): 16-bit numbers, and TF32.

"tf32" is a product of float32 numbers rounded to 10 bits behind the point, to nearest with ties
away from zero; "fp32x3" is three of them, of the numbers' large and small parts (Ootomo & Yokota
2022, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical
peak performance").

Errors, root mean square against float64 over that of the result, for normal data and 3x3 windows,
each sum in one split; "strict" is that of the implicit GEMM in float32, one term after the other:

    terms of a sum            144      576     1152     2304     4608
    fprop    strict       2.2e-07  3.9e-07  5.9e-07  8.3e-07  1.1e-06
             tf32         3.0e-04  2.9e-04  3.0e-04  2.9e-04  2.9e-04
             fp32x3       1.1e-07  1.7e-07  2.3e-07  3.1e-07  4.2e-07
    dgrad    strict       2.1e-07  4.1e-07  6.2e-07  8.0e-07  1.1e-06
             tf32         2.9e-04  2.9e-04  3.1e-04  2.9e-04  2.9e-04
             fp32x3       1.2e-07  1.7e-07  2.2e-07  3.0e-07  4.1e-07
    terms of a sum            144      288      576     1152     2304
    wgrad    strict       2.0e-07  2.9e-07  4.0e-07  5.9e-07  8.1e-07
             tf32         3.0e-04  2.9e-04  2.9e-04  3.0e-04  2.9e-04
             fp32x3       1.2e-07  1.4e-07  1.8e-07  2.3e-07  3.1e-07

Those of fprop and dgrad have 16, 64, 128, 256 and 512 channels or filters. All are from the tests'
emulator, where a step's 8 products are added as floats; tensor cores cut that sum instead. In
"fp32x3" a step starts from zero and rounds into the sums, so that what is cut does not add up.

An infinity, or what rounds to one, stays one in "tf32"; in "fp32x3" all that it reaches is NaN.
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
