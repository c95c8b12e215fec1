"""Plans that were measured: the tuner, what it keeps on disk, and how the backend finds it.

plans   the tuned plan of a problem, or a shipped one, or the estimate's: what the backend asks
store   what is kept on disk
shipped what comes with the package, by the GPU's name
dry     which problems a network has and which kernels a plan needs, with nothing launched
timing  candidates timed in CUDA graphs
tuner   candidates, compiled, timed and kept

A plan fixes the order of every sum. A problem that was tuned may therefore differ in its last bits
from the same problem before, and from one that was tuned on another machine; the same stored plan
gives the same bits, always.
"""

from __future__ import annotations

from .dry import DryRun
from .plans import TunedPlans
from .store import Entry, Store
from .timing import GraphTimer, Timer
from .tuner import Tuner

__all__ = ["DryRun", "Entry", "GraphTimer", "Store", "Timer", "TunedPlans", "Tuner"]
