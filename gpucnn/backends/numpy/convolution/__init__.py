"""The algorithms for convolution, one a file, and the choice among them."""

from __future__ import annotations

from .base import Algorithm, Finish

__all__ = ["ALGORITHMS", "Algorithm", "Finish"]

ALGORITHMS: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in ()}
