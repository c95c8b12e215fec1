"""What the NumPy backend's choice of an algorithm gains over a plain product over columns.

    python -m profiling.cpu.choices

For every convolution of the benchmark, in each direction: the chosen algorithm's time over that of
``taps``, which copies the columns of a block and multiplies. Above 1 the choice is wrong. Times are
medians of calls in turns, in this process, with the BLAS that it has: OPENBLAS_CORETYPE=Haswell is
one without AVX-512.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from gpucnn.backends.numpy.convolution import Finish, choose
from gpucnn.backends.numpy.convolution.base import Algorithm
from gpucnn.backends.numpy.convolution.taps import Taps
from gpucnn.backends.numpy.settings import settled
from gpucnn.bench.cases import CONVOLUTIONS, Case, layers
from profiling.results import geomean

SECONDS = 0.15  # of each of the two
TURNS = 15


def bound(algorithm: Algorithm, case: Case) -> Callable[[], object]:
    """Return a call of one direction on pixel-major memory."""
    shape, direction = case.conv, case.op.removeprefix("conv_")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*shape.input, shape.batch, shape.channels), np.float32)
    y = rng.standard_normal((*shape.output, shape.batch, shape.filters), np.float32)
    w = rng.standard_normal(shape.w_shape, np.float32)
    finish = Finish(shape.batch)
    run = settled(getattr(algorithm, direction))
    arguments = {"fprop": (x, w, y), "dgrad": (y, w, x), "wgrad": (x, y)}[direction]
    return lambda: run(*arguments, shape, *([] if direction == "wgrad" else [finish]))


def ratio(case: Case, chosen: Algorithm) -> float:
    """Return the chosen algorithm's time over the plain one's, call by call in turns."""
    calls = bound(chosen, case), bound(Taps(), case)
    times: tuple[list[float], list[float]] = [], []
    begin = time.perf_counter()
    while len(times[0]) < TURNS or time.perf_counter() - begin < 2 * SECONDS:
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0][2:]) / statistics.median(times[1][2:])


def main() -> None:
    ratios = []
    for case in layers():
        if case.op not in CONVOLUTIONS:
            continue
        chosen = choose(case.op.removeprefix("conv_"), case.conv, np.dtype(np.float32))
        if not isinstance(chosen, Taps):
            ratios.append(ratio(case, chosen))
            print(f"{ratios[-1]:.2f}  {chosen.name:12} {case.title}", flush=True)
    worst = max(ratios)
    print(f"{len(ratios)} choices: {geomean(ratios):.2f} on average, {worst:.2f} at worst")
    sys.exit(worst > 1.1)


if __name__ == "__main__":
    main()
