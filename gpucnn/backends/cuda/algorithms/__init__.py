"""The algorithms for convolution, one a file; ``gpucnn.backends.cuda.plans`` chooses among them."""

from __future__ import annotations

from .base import DIRECTIONS, Algorithm, Plan, Problem
from .depthwise import Depthwise
from .direct import Direct
from .dmma import Dmma
from .grouped import Grouped
from .implicit_gemm import ImplicitGemm
from .ladder import NAIVE, TILED
from .mma import Mma
from .mma_padded import PaddedMma
from .mma_wgrad import MmaWgrad
from .wgmma import Wgmma
from .wgmma_wgrad import WgmmaWgrad
from .winograd import Winograd
from .winograd4 import Winograd4

__all__ = ["ALGORITHMS", "DIRECTIONS", "LADDER", "Algorithm", "Plan", "Problem"]

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        ImplicitGemm(),
        Dmma(),
        Mma(),
        MmaWgrad(),
        PaddedMma(),
        Wgmma(),
        WgmmaWgrad(),
        Depthwise(),
        Direct(),
        Grouped(),
        Winograd(),
        Winograd4(),
    )
}  # fmt: skip
# To learn from: no plan chooses them.
LADDER: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in (NAIVE, TILED)}
