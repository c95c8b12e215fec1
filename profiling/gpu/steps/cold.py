"""Cold start: a fresh process, its imports, LeNet-5, and one training step to a loss on the host.

    python -m profiling.gpu.steps.cold gpucnn|torch|torch.compile cuda|cpu BATCH

Each library is used as its own user would, with nothing of another imported. Caches of compiled
kernels begin empty ("cold") and are there in later processes ("warm"); the files of the packages
are in the page cache both times, since others have just read them. The time counts from the start
of the process, as its parent sees it. While the process waits, its whole device memory is read:
context and libraries too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHES = {
    "CUPY_CACHE_DIR": "cupy", "GPUCNN_CACHE_DIR": "gpucnn", "CUDA_CACHE_PATH": "cuda",
    "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton",
}  # fmt: skip
NETWORK, BATCH = "lenet5", 512
Report = dict[str, Any]


# ---- in the fresh process: nothing but the standard library is imported so far -------------------


def gpucnn_start(device: str, batch: int, lap: Callable[[str], None]) -> float:
    import numpy as np

    import gpucnn

    lap("import")
    backend = gpucnn.backends.get_backend("cuda" if device == "cuda" else "numpy")
    model = gpucnn.models.make(NETWORK, 10, (28, 28, 1))
    model.to(backend)
    optimizer, loss = gpucnn.optimizers.SGD(0.003, momentum=0.9), gpucnn.losses.CrossEntropy()
    lap("build")
    rng = np.random.default_rng(0)
    x = backend.asarray(rng.standard_normal((batch, 28, 28, 1), np.float32))
    labels = backend.asarray(rng.integers(0, 10, batch))
    value, gradient = loss(model.forward(x, training=True), labels)
    model.backward(gradient)
    optimizer.step(model.parameters())
    return float(value)


def torch_start(device: str, batch: int, lap: Callable[[str], None], compiled: bool) -> float:
    import torch

    lap("import")
    model = lenet5(torch.nn).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9, fused=True)
    run = torch.compile(model, mode="max-autotune", dynamic=False) if compiled else model
    lap("build")
    x = torch.randn(batch, 1, 28, 28).to(device, memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,)).to(device)
    loss = torch.nn.functional.cross_entropy(run(x), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def lenet5(nn: Any) -> Any:
    """Return gpucnn's LeNet-5 in PyTorch's own words."""

    def norm_relu(layer: Any, norm: Any) -> list[Any]:
        return [layer, norm, nn.ReLU(inplace=True)]

    return nn.Sequential(
        *norm_relu(nn.Conv2d(1, 6, 5, padding=2, bias=False), nn.BatchNorm2d(6)),
        nn.MaxPool2d(2),
        *norm_relu(nn.Conv2d(6, 16, 5, bias=False), nn.BatchNorm2d(16)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *norm_relu(nn.Linear(400, 120, bias=False), nn.BatchNorm1d(120)),
        *norm_relu(nn.Linear(120, 84, bias=False), nn.BatchNorm1d(84)),
        nn.Linear(84, 10),
    )


def start(side: str, device: str, batch: int) -> Report:
    """Return the seconds of each part and the loss."""
    seconds: dict[str, float] = {}
    since = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal since
        now = time.perf_counter()
        seconds[name], since = now - since, now

    if side == "gpucnn":
        loss = gpucnn_start(device, batch, lap)
    else:
        loss = torch_start(device, batch, lap, compiled=side == "torch.compile")
    lap("first step")
    return {"seconds": seconds, "loss": loss}


# ---- in the one that measures --------------------------------------------------------------------


@dataclass(frozen=True)
class ColdStart:
    """Starts of gpucnn and of a peer in turn: a row for empty caches, and one for full ones."""

    against: str
    batch: int = BATCH
    warm_starts: int = 3

    def rows(self) -> list[Report]:
        return [
            {
                "op": "cold_start", "set": NETWORK, "layer": caches, "dtype": "float32",
                "shape": {"batch": self.batch, "channels": 1, "input": [28, 28]},
                "math": "strict", "layout": "NHWC", "against": self.against,
            }
            for caches in ("cold", "warm")
        ]  # fmt: skip

    def measure(self, device: str) -> list[Report]:
        """Return what the rows are completed with.

        Raises:
            RuntimeError: a process failed; the text is its last words.
        """
        sides = "gpucnn", self.against
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            first = {side: launch(side, device, self.batch, Path(folder) / side) for side in sides}
            later: dict[str, list[Report]] = {side: [] for side in sides}
            for _ in range(self.warm_starts):
                for side in sides:
                    later[side].append(launch(side, device, self.batch, Path(folder) / side))
        middle = {
            side: sorted(reports, key=lambda report: report["wall"])[len(reports) // 2]
            for side, reports in later.items()
        }
        return [_columns(self.against, first), _columns(self.against, middle)]


def _columns(against: str, reports: dict[str, Report]) -> Report:
    mine, theirs = reports["gpucnn"], reports[against]
    return {
        "algorithm": "process", "peer": against,
        "ours_us": 1e6 * mine["wall"], "peer_us": 1e6 * theirs["wall"],
        "speedup": theirs["wall"] / mine["wall"], "goal": 3.0 if against == "torch" else None,
        "memory_bytes": mine["memory"], "peer_memory_bytes": theirs["memory"],
        "seconds": {side: report["seconds"] for side, report in reports.items()},
    }  # fmt: skip


def launch(side: str, device: str, batch: int, caches: Path) -> Report:
    """Start a process, and return its report with "wall", its seconds, and "memory", in bytes."""
    from .. import machine  # not among what a start imports

    environment = {**os.environ, **{name: str(caches / sub) for name, sub in CACHES.items()}}
    before = machine.memory_used()
    command = [sys.executable, "-m", "profiling.gpu.steps.cold", side, device, str(batch)]
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=errors, cwd=Path(__file__).resolve().parents[3],
    ) as process:  # fmt: skip
        try:
            line = next((line for line in process.stdout if line.startswith("{")), "")
            wall = time.perf_counter() - begin
            after = machine.memory_used()
        except BaseException:
            process.kill()
            raise
        process.stdin.close()  # it may end
        if not line:
            process.wait()
            errors.seek(0)
            said = errors.read().strip().splitlines() or [f"exit status {process.returncode}"]
            raise RuntimeError(f"{side}: {said[-1]}")
    memory = None if None in (before, after) else after - before
    return {**json.loads(line), "wall": wall, "memory": memory}


def main() -> None:
    side, device, batch = sys.argv[1:]
    print(json.dumps(start(side, device, int(batch))), flush=True)
    sys.stdin.read()  # until its parent has read the memory


if __name__ == "__main__":
    main()
