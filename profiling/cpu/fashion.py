"""Train the zoo's LeNet-5 on Fashion-MNIST here and in PyTorch, epoch by epoch in turn.

    python -m profiling.cpu.fashion [--epochs 5] [--batch 128] [--threads N] [--out FOLDER]

Both begin with the same weights and see the same batches, in processes of their own with as many
threads, PyTorch in its quicker layout for this network, channels last. The table has the wall time
of each epoch and the accuracy on the test set behind it; fashion-<date>-<commit>.json keeps it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from gpucnn.bench.processes import environment
from gpucnn.bench.runs import usable_cores
from profiling.gpu.machine import ROOT, describe
from profiling.results import Results

SIDES = ("gpucnn", "torch")
LEARNING_RATE = 1e-3
TEST_BATCH = 1000

Batches = Callable[[np.ndarray, np.ndarray], None]
Predict = Callable[[np.ndarray], np.ndarray]


# ---- in a process of its own ---------------------------------------------------------------------


def gpucnn_side() -> tuple[Batches, Predict]:
    from gpucnn import losses, optimizers
    from gpucnn.bench.networks import make

    model, loss, optimizer = make("lenet5"), losses.CrossEntropy(), optimizers.Adam(LEARNING_RATE)
    model.needs_input_gradient = False

    def learn(x: np.ndarray, labels: np.ndarray) -> None:
        _, gradient = loss(model.forward(x, training=True), labels)
        model.backward(gradient)
        optimizer.step(model.parameters())

    return learn, lambda x: model.predict(x, TEST_BATCH)


def torch_side(threads: int) -> tuple[Batches, Predict]:
    import torch

    from gpucnn.bench.networks import make
    from gpucnn.bench.torch_network import translate

    torch.set_num_threads(threads)
    model = translate(make("lenet5")).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, eps=1e-8, fused=True)

    def images(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x).permute(0, 3, 1, 2)  # (N, H, W, C) in memory

    def learn(x: np.ndarray, labels: np.ndarray) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(images(x)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()

    def predict(x: np.ndarray) -> np.ndarray:
        model.eval()
        with torch.inference_mode():
            parts = [
                model(images(x[i : i + TEST_BATCH])).numpy() for i in range(0, len(x), TEST_BATCH)
            ]
        model.train()
        return np.concatenate(parts)

    return learn, predict


def work(side: str, batch: int, threads: int, images: int | None) -> None:
    """Answer each line of input, an epoch's number, with its seconds and the accuracy behind it."""
    from gpucnn.data import load

    data = load("fashion-mnist")
    mean, deviation = np.float32(0.286), np.float32(0.353)  # of its pixels, as shares of 255
    x, x_test = (
        (split.images[:images] / np.float32(255) - mean) / deviation
        for split in (data.train, data.test)
    )
    labels, expected = data.train.labels.astype(np.int64), data.test.labels[:images]
    learn, predict = gpucnn_side() if side == "gpucnn" else torch_side(threads)
    print("ready", flush=True)
    for line in sys.stdin:
        order = np.random.default_rng(int(line)).permutation(len(x))
        begin = time.perf_counter()
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            learn(x[chosen], labels[chosen])
        seconds = time.perf_counter() - begin
        right = predict(x_test).argmax(1) == expected
        print(json.dumps([seconds, float(right.mean())]), flush=True)


# ---- in the one that compares --------------------------------------------------------------------


def start(side: str, options: argparse.Namespace) -> subprocess.Popen:
    command = [sys.executable, "-m", "profiling.cpu.fashion", "--side", side]
    command += ["--batch", str(options.batch), "--threads", str(options.threads)]
    command += ["--images", str(options.images)] if options.images else []
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=environment(options.threads, None),
    )  # fmt: skip


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Return a row of results."""
    workers = {side: start(side, options) for side in SIDES}
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    try:
        for worker in workers.values():
            if worker.stdout.readline() != "ready\n":
                raise RuntimeError("a side did not start; its message is above")
        print("epoch   " + "".join(f"{side:>10} s accuracy" for side in SIDES))
        for epoch in range(options.epochs):
            for side in SIDES if epoch % 2 == 0 else reversed(SIDES):
                print(epoch, file=workers[side].stdin, flush=True)
                found[side].append(tuple(json.loads(workers[side].stdout.readline())))
            last = "".join(f"{found[s][-1][0]:12.2f}{found[s][-1][1]:9.2%}" for s in SIDES)
            print(f"{epoch + 1:5}   {last}", flush=True)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()  # which closes its pipes
    ours, theirs = (median(seconds for seconds, _ in found[side]) for side in SIDES)
    print(f"median of an epoch: {ours:.2f} s, {ours / theirs:.2f} of PyTorch's {theirs:.2f} s")
    return {
        "op": "training_epoch", "set": "fashion-mnist", "layer": "lenet5", "dtype": "float32",
        "math": "strict", "layout": "NHWC", "peer": "torch channels_last",
        "shape": {"batch": options.batch, "input": [28, 28], "channels": 1},
        "ours_us": ours * 1e6, "peer_us": theirs * 1e6, "speedup": theirs / ours,
        "epochs": {side: [list(epoch) for epoch in found[side]] for side in SIDES},
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m profiling.cpu.fashion", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of each; one a core")
    parser.add_argument("--images", type=int, help="only so many of each part, for a trial")
    parser.add_argument("--out", type=Path, default=ROOT / "profiling" / "results")
    parser.add_argument("--commit", help="what to call the sources where there is no git")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.side:
        work(options.side, options.batch, options.threads, options.images)
        return
    row = compare(options)
    meta = describe(options.commit) | {"threads": options.threads}
    results = Results(options.out / f"fashion-{meta['date']}-{meta['commit']}.json", meta)
    results.begin({name: row[name] for name in ("op", "set", "layer", "shape")})
    results.end(**row)
    print(results.path)


if __name__ == "__main__":
    main()
