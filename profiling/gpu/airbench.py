"""Time to 94 % on CIFAR-10: gpucnn's recipe "airbench94" and airbench94 in PyTorch, in turn.

    python -m profiling.gpu.airbench [--runs 5] [--data cifar10] [--compile] [--out FOLDER]

Each side warms up with an epoch that does not count, or with a whole training where it is compiled;
then they train in turn, run by run.
A row is a run: the seconds of the training, with the whitening and no evaluation in it, and the
accuracy on the test images by six views and by one. airbench-<date>-<commit>.json keeps them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from gpucnn import data, models, set_seed
from gpucnn.backends import default_backend
from gpucnn.callbacks import LambdaCallback
from gpucnn.data import Dataset, Normalize, Split
from gpucnn.models.airbench import WIDTHS, airbench94
from gpucnn.recipes import Recipe, recipe_for
from gpucnn.trainer import Trainer
from gpucnn.views import averaged
from profiling.gpu.machine import ROOT, describe, gpu
from profiling.results import Results

GOAL = 0.94
SIDES = ("gpucnn", "torch")

Run = Callable[[int], dict[str, Any]]


def train(
    train: Split, test: Split, recipe: Recipe, widths: tuple[int, ...], dtype: str, seed: int
) -> dict[str, Any]:
    """Train by the recipe once, on the default backend, and return what came out."""
    backend = default_backend()
    set_seed(seed)
    model = airbench94(10, train.images.shape[1:], dtype, widths)
    model.to(backend)
    normalize = Normalize.of(train.images)
    losses: list[float] = []
    noted = LambdaCallback(on_epoch_end=lambda epoch, record: losses.append(record["loss"]))
    trainer = Trainer(
        model,
        recipe.make_loss(),
        recipe.make_optimizer(len(train)),
        callbacks=[*recipe.make_callbacks(), noted],
        backend=backend,
        seed=seed,
        progress=False,
    )
    backend.synchronize()
    start = time.perf_counter()
    models.whiten(model, normalize(train.images[:5000]))
    trainer.fit(
        train,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        validation_split=0.0,
        augment=recipe.augment,
        normalize=normalize,
    )
    backend.synchronize()
    seconds = time.perf_counter() - start
    accuracy = {
        views: float(
            (averaged(trainer.predict, test.images, views).argmax(1) == test.labels).mean()
        )
        for views in (recipe.views, 1)
    }
    return {
        "seconds": seconds,
        "steps": trainer.optimizer.steps,
        "accuracy": accuracy[recipe.views],
        "accuracy_one_view": accuracy[1],
        "losses": losses,
    }


def sides(options: argparse.Namespace, dataset: Dataset, epochs: int | None) -> dict[str, Run]:
    """Return how each side trains with a seed; ``epochs`` shortens the training."""
    shorter = {} if epochs is None else {"epochs": epochs}
    smaller = {} if options.batch_size is None else {"batch_size": options.batch_size}
    widths, found = tuple(options.widths), {}
    if "gpucnn" in options.sides:
        recipe = replace(recipe_for("airbench94", "cifar10"), **shorter, **smaller)
        found["gpucnn"] = partial(train, dataset.train, dataset.test, recipe, widths, options.dtype)
    if "torch" in options.sides:
        import torch

        from profiling.gpu import airbench_torch

        settings = airbench_torch.Settings(
            widths=widths,
            device="cuda" if torch.cuda.is_available() else "cpu",
            dtype=getattr(torch, options.peer_dtype),
            compiled=options.compile,
            **shorter,
            **smaller,
        )
        found["torch"] = partial(airbench_torch.train, dataset.train, dataset.test, settings)
    return found


def measure(options: argparse.Namespace, dataset: Dataset, results: Results) -> None:
    for warm in sides(options, dataset, options.epochs if options.compile else 1).values():
        warm(0)
    runs = sides(options, dataset, options.epochs)
    for seed in range(1, options.runs + 1):
        for side in runs if seed % 2 else reversed(runs):
            dtype = options.dtype if side == "gpucnn" else options.peer_dtype
            results.begin(
                {
                    "op": "train", "set": "cifar10", "layer": "airbench94", "dtype": dtype,
                    "math": "strict", "layout": "NHWC", "peer": side,
                    "shape": {"images": len(dataset.train), "widths": list(options.widths)},
                }
            )  # fmt: skip
            found = runs[side](seed)
            results.end(run=seed, ours_us=found["seconds"] * 1e6, **found)
            print(
                f"{side:>8} run {seed}: {found['seconds']:8.3f} s, {found['steps']} steps,"
                f" {found['accuracy']:.2%} by six views, {found['accuracy_one_view']:.2%} by one",
                flush=True,
            )
    for side in runs:
        own = [row for row in results.rows if row["peer"] == side]
        times, right = ([row[key] for row in own] for key in ("seconds", "accuracy"))
        reached = "reached" if mean(right) >= GOAL else "not reached"
        print(f"{side:>8}: {mean(times):.3f} s, {mean(right):.2%}: {GOAL:.0%} {reached}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m profiling.gpu.airbench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--data", default="cifar10", help="its name or path")
    parser.add_argument("--dtype", default="float16", help="gpucnn's")
    parser.add_argument("--peer-dtype", default="half", help="PyTorch's")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--epochs", type=int, help="in place of ten, and of PyTorch's 9.9")
    parser.add_argument("--batch-size", type=int, help="in place of 1000, and of PyTorch's 1024")
    parser.add_argument("--widths", type=int, nargs=3, default=list(WIDTHS), help="of the blocks")
    parser.add_argument("--out", type=Path, default=ROOT / "profiling" / "results")
    parser.add_argument("--commit", help="what to call the sources where there is no git")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    device, _ = gpu()
    meta = describe(options.commit) | (device or {"gpu": None})
    results = Results(options.out / f"airbench-{meta['date']}-{meta['commit']}.json", meta)
    measure(options, data.load(options.data), results)
    print(results.path)


if __name__ == "__main__":
    main()
