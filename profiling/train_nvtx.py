"""A short training run for NVIDIA's profilers: every layer's forward and backward carries its name.

    python profiling/train_nvtx.py --backend cuda

A timeline of the steps after the warm-up, with the ranges of the domain "gpucnn" over the kernels:

    nsys profile --trace cuda,nvtx --capture-range cudaProfilerApi --capture-range-end stop \\
        --output train python profiling/train_nvtx.py --backend cuda
    nsys stats --report nvtx_sum,cuda_gpu_kern_sum train.nsys-rep

What one kernel is limited by; the second command looks into one layer's backward alone:

    ncu --set full --profile-from-start off --kernel-name regex:conv_ --launch-count 6 \\
        python profiling/train_nvtx.py --backend cuda --steps 1
    ncu --set full --profile-from-start off --nvtx --nvtx-include "gpucnn@conv2d_1.backward/" \\
        python profiling/train_nvtx.py --backend cuda --steps 1

Without a GPU the run and its ranges are the same, on the NumPy backend. Needs the extra "profile".
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from gpucnn import Trainer, models, tracing
from gpucnn.backends import default_backend, get_backend
from gpucnn.backends.base import Backend
from gpucnn.callbacks import Callback
from gpucnn.data import Split

CLASSES = 10


class Window(Callback):
    """Starts the profiler and the clock after the warm-up, in which kernels are compiled."""

    def __init__(self, backend: Backend, warm_up: int) -> None:
        self.backend, self.warm_up = backend, warm_up

    def on_batch_end(self, batch: int) -> None:
        if batch == self.warm_up:
            self.backend.synchronize()
            if self.backend.name == "cuda":
                self.backend.xp.cuda.profiler.start()
            self.start = time.perf_counter()

    def close(self) -> float:
        """Stop the profiler and return the seconds since the warm-up."""
        self.backend.synchronize()
        seconds = time.perf_counter() - self.start
        if self.backend.name == "cuda":
            self.backend.xp.cuda.profiler.stop()
        return seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=("numpy", "cuda"), help="by default the best here")
    parser.add_argument("--model", choices=tuple(models.MODELS), default="lenet5")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--warm-up", type=int, default=3, help="steps before the profile begins")
    parser.add_argument("--steps", type=int, default=10, help="steps in the profile")
    options = parser.parse_args(arguments)
    if min(options.batch_size, options.warm_up, options.steps) < 1:
        parser.error("--batch-size, --warm-up and --steps must be at least 1")

    tracing.enable()
    backend = get_backend(options.backend) if options.backend else default_backend()
    shape = models.USUAL[options.model]
    batches = options.warm_up + options.steps
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batches * options.batch_size, *shape), dtype=np.uint8)
    data = Split(images, rng.integers(0, CLASSES, len(images)))

    window = Window(backend, options.warm_up)
    model = models.make(options.model, CLASSES, shape)
    trainer = Trainer(
        model, optimizer="sgd", metrics=(), callbacks=[window], backend=backend, progress=False
    )
    trainer.fit(data, epochs=1, batch_size=options.batch_size, validation_split=0.0)
    seconds = window.close()
    print(
        f"{options.model} on {backend.name}: {options.steps} steps of {options.batch_size} images,"
        f" {1e3 * seconds / options.steps:.2f} ms a step,"
        f" {options.steps * options.batch_size / seconds:,.0f} images/s"
    )


if __name__ == "__main__":
    main()
