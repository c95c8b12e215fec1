"""The algorithms for convolution, one a file; ``gpucnn.backends.cuda.plans`` chooses among them."""

from __future__ import annotations

from .base import DIRECTIONS, Algorithm, Plan, Problem
from .depthwise import Depthwise
from .dmma import Dmma
from .implicit_gemm import ImplicitGemm
from .winograd import Winograd

__all__ = ["ALGORITHMS", "DIRECTIONS", "Algorithm", "Plan", "Problem"]

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        ImplicitGemm(),
        Dmma(),
        Depthwise(),
        Winograd(),
    )
}  # fmt: skip
