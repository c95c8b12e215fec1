"""What planning a training step gains on NumPy: fused operations, and arrays in one arena.

    python -m profiling.cpu.steps [NETWORK ...]

For networks of the zoo, in batches of 64: the time of a planned and recorded step over that of the
same layers one after the other, each array in memory of its own (``fuses`` and ``record`` off).
Medians of steps in turns, in this process.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np

import gpucnn
from gpucnn import models
from gpucnn.optimizers import SGD
from gpucnn.trainer import Trainer

NETWORKS = ("lenet5", "vgg_small", "resnet20", "mobilenet_v2_small")
BATCH, TURNS, WARM_UP = 64, 12, 3


def trainer_of(name: str, planned: bool) -> Trainer:
    gpucnn.set_seed(0)
    model = models.make(name, 10, models.USUAL[name])
    model.fuses, model.needs_input_gradient = planned, False
    optimizer = SGD(0.01, momentum=0.9)
    return Trainer(model, optimizer=optimizer, backend="numpy", record=planned, progress=False)


def measure(name: str, batch: int = BATCH, turns: int = TURNS) -> float:
    """Return the planned step's time over the plain one's."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *models.USUAL[name]), np.float32)
    y = rng.integers(0, 10, batch)
    planned, plain = trainer_of(name, True), trainer_of(name, False)
    steps = (lambda: planned.training_step.steps(x, y), lambda: plain.training_step.work(x, y))
    ratios = []
    with planned.backend.running():
        for turn in range(WARM_UP + turns):
            taken = []
            for step in steps:
                start = time.perf_counter()
                step()
                taken.append(time.perf_counter() - start)
            if turn >= WARM_UP:
                ratios.append(taken[0] / taken[1])
    return statistics.median(ratios)


def main(names: Sequence[str] = ()) -> None:
    for name in names or NETWORKS:
        print(f"{measure(name):.2f}  {name}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
