"""The rungs of docs/ladder.md in the benchmark: each on the same layers, by its own kernel.

``python -m profiling.gpu.ladder`` runs all of them in the emulator, on layers so small that it
takes seconds, and holds them against float64.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from gpucnn.backends.base import Array, Backend
from gpucnn.shapes import ConvShape
from profiling.ladder import BY_NAME, LAYERS, RUNGS, Rung
from profiling.ladder.rows import SET

from .accuracy import LIMITS, number_format, relative_error
from .cases import ALONE, TORCH, Case

# Off every tile, and yet what the rungs want at least: 64 filters, 256 channels, little border.
SMALL = {
    "3x3": ConvShape.of((1, 13, 15, 264), (72, 3, 3, 264), padding=1),
    "1x1": ConvShape.of((2, 5, 7, 72), (136, 1, 1, 72)),
}


def cases(architecture: int, layers: dict[str, ConvShape] = LAYERS) -> list[Case]:
    """Return a case for each rung on each layer where it applies.

    The last rung of each dtype is held against PyTorch, which stands for all of them.
    """
    found = []
    for layer, shape in layers.items():
        rungs = [rung for rung in RUNGS if rung.plan(shape, architecture)]
        last = {rung.dtype: rung for rung in rungs}
        for rung in rungs:
            _, math = number_format(rung.dtype).split()
            against = TORCH if rung is last[rung.dtype] else ALONE
            what = ("conv_fprop", SET, f"{layer} {rung.name}", shape, rung.dtype, math)
            found.append(Case(*what, against=against, rung=rung.name))
    return found


def run(backend: Any, rung: Rung, shape: ConvShape, x: Array, w: Array) -> Array:
    """Run a rung on a backend of kernels.

    Raises:
        ValueError: this GPU has no kernel for it.
    """
    architecture = backend.launcher.architecture
    plan = rung.plan(shape, architecture)
    if plan is None:
        raise ValueError(f"{rung.name} has no plan on sm_{architecture}. Received: {shape}")
    return rung.run_by().run(backend, rung.problem(shape, architecture), plan, x, w, None)


def check(backend: Backend, case: Case) -> float:
    """Return the relative error of a rung on random numbers."""
    from tests import reference
    from tests.cases import DTYPES, random

    dtype = DTYPES[case.dtype]
    x, w = random("x", case.shape.x_shape, dtype), random("w", case.shape.w_shape, dtype)
    y = run(backend, BY_NAME[case.rung], case.shape, backend.asarray(x), backend.asarray(w))
    expected = reference.conv_fprop(x, w, None, case.shape)
    return relative_error(backend.to_numpy(y).astype(np.float64), expected)


def main() -> int:
    """Run every rung in the emulator; return 1 if one of them is wrong, else 0."""
    from .sanitized import backend_named

    backend, wrong = backend_named("emulated"), 0
    every = cases(backend.launcher.architecture, SMALL)
    for case in every:
        error, limit = check(backend, case), LIMITS[f"{case.dtype} {case.math}"]
        wrong += not error <= limit
        print(f"{case.layer}: error {error:.1e}, limit {limit:.0e}", flush=True)
    print(f"{len(every)} rungs, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
