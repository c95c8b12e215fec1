"""Time to an accuracy: LeNet-5 trained until it has it, by gpucnn's Trainer and by PyTorch.

Both begin with the same weights for a seed, take the same number of images a step and the same
optimizer, have the images on the device before the clock starts, and see them in an order of their
own. After every epoch the accuracy on the test images is taken, which is not counted; recording the
steps, which every training does anew, is. A short training of each side comes before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn import data, models, set_seed
from gpucnn.backends import use_backend
from gpucnn.callbacks import Callback
from gpucnn.data import Split
from gpucnn.network import Sequential
from gpucnn.optimizers import SGD
from gpucnn.trainer import Trainer

from ..timing import Spread
from .sides import Machine

NETWORK = "lenet5"
RATE, MOMENTUM = 0.05, 0.9
GOALS = {"digits": 0.98, "fashion-mnist": 0.9}  # of other data 0.9
MOST_EPOCHS = 30
Arrays = tuple[np.ndarray, np.ndarray]
Found = dict[str, float]
Train = Callable[[int, int], Found]  # with a seed, for so many epochs at most


@dataclass(frozen=True)
class TimeToAccuracy:
    """Trainings of both sides in turn, seed by seed: one row.

    Attributes:
        data: a data set's name or path, as ``gpucnn.data.load`` takes it.
    """

    data: str = "digits"
    batch: int = 64
    seeds: int = 3
    most_epochs: int = MOST_EPOCHS

    @property
    def goal(self) -> float:
        return GOALS.get(self.data, 0.9)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "op": "time_to_accuracy", "set": self.data, "layer": NETWORK, "dtype": "float32",
                "shape": {"batch": self.batch, "channels": 1, "input": [28, 28]},
                "math": "strict", "layout": "NHWC", "against": "torch",
            }
        ]  # fmt: skip

    def measure(self, machine: Machine) -> list[dict[str, Any]]:
        train, test = load(self.data)
        with machine.current():
            sides: dict[str, Train] = {
                "gpucnn": _Ours(self, train, test, machine),
                "torch": _torch(self, train, test, machine),
            }
            for side in sides.values():
                side(0, 1)
            found: dict[str, list[Found]] = {name: [] for name in sides}
            for seed in range(1, self.seeds + 1):
                for name in sides if seed % 2 else reversed(sides):
                    found[name].append(sides[name](seed, self.most_epochs))
        return [self._columns(found)]

    def _columns(self, found: dict[str, list[Found]]) -> dict[str, Any]:
        mine, theirs = (
            Spread.of([1e6 * run["seconds"] for run in found[name]]) for name in ("gpucnn", "torch")
        )
        row: dict[str, Any] = {
            "algorithm": "Trainer", "peer": "torch channels_last", "accuracy": self.goal,
            "ours_us": mine.median, "ours_iqr_us": mine.iqr, "samples": self.seeds,
            "peer_us": theirs.median, "peer_iqr_us": theirs.iqr,
            "speedup": theirs.median / mine.median, "runs": found,
        }  # fmt: skip
        for name, runs in found.items():
            missed = [run["accuracy"] for run in runs if run["accuracy"] < self.goal]
            if missed:
                row["error"] = f"{name} came to {min(missed):.2%} in {self.most_epochs} epochs"
        return row


def load(name: str) -> tuple[Arrays, Arrays]:
    """Return the training and the test set: images (N, 28, 28, 1) of mean 0, deviation 1, labels.

    Images of 8x8 are enlarged three times and get a border.
    """
    dataset = data.load(name)
    images = [_enlarged(split.images.astype(np.float32)) for split in (dataset.train, dataset.test)]
    mean, deviation = images[0].mean(), images[0].std()
    labels = [split.labels.astype(np.int64) for split in (dataset.train, dataset.test)]
    train, test = (((x - mean) / deviation, y) for x, y in zip(images, labels, strict=True))
    return train, test


def _enlarged(images: np.ndarray) -> np.ndarray:
    if images.shape[1:3] == (8, 8):
        images = images.repeat(3, 1).repeat(3, 2)
        images = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return images


def _model(seed: int) -> Sequential:
    set_seed(seed)
    with use_backend("numpy"):
        return models.make(NETWORK, 10, (28, 28, 1))


def accuracy_of(answers: np.ndarray, labels: np.ndarray) -> float:
    return float((answers.argmax(1) == labels).mean())


@dataclass(frozen=True)
class _Ours:
    what: TimeToAccuracy
    train: Arrays
    test: Arrays
    machine: Machine

    def __call__(self, seed: int, epochs: int) -> Found:
        backend = self.machine.backend
        until = _Until(self.what.goal, self.test)
        trainer = Trainer(
            _model(seed),
            optimizer=SGD(RATE, momentum=MOMENTUM),
            metrics=(),
            callbacks=[until],
            backend=backend,
            seed=seed,
            progress=False,
        )
        backend.synchronize()
        until.since = time.perf_counter()
        trainer.fit(
            Split(*self.train), epochs=epochs, batch_size=self.what.batch, validation_split=0.0
        )
        return {
            "seconds": until.seconds,
            "accuracy": until.accuracy,
            "epochs": len(trainer.history),
        }


class _Until(Callback):
    """Stops a training that has come to its goal; holds the clock meanwhile."""

    def __init__(self, goal: float, test: Arrays) -> None:
        self.goal, self.test = goal, test
        self.seconds = self.since = self.accuracy = 0.0

    def on_epoch_end(self, epoch: int, record: dict[str, Any]) -> None:
        self.trainer.backend.synchronize()
        self.seconds += time.perf_counter() - self.since
        images, labels = self.test
        self.accuracy = accuracy_of(self.trainer.model.predict(images), labels)
        self.trainer.stop_training = self.accuracy >= self.goal
        self.since = time.perf_counter()


def _torch(what: TimeToAccuracy, train: Arrays, test: Arrays, machine: Machine) -> Train:
    import torch

    from gpucnn.bench.torch_network import translate

    from .torch_side import use_the_best

    use_the_best()

    def on_device(arrays: Arrays) -> tuple[Any, Any]:
        images = torch.from_numpy(arrays[0]).to(machine.device).permute(0, 3, 1, 2)
        return images, torch.from_numpy(arrays[1]).to(machine.device)

    (x, labels), (x_test, _) = on_device(train), on_device(test)

    def run(seed: int, epochs: int) -> Found:
        module = translate(_model(seed)).to(machine.device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)
        torch.manual_seed(seed)
        seconds = accuracy = 0.0
        epoch = 0
        while epoch < epochs and accuracy < what.goal:
            epoch += 1
            machine.backend.synchronize()
            since = time.perf_counter()
            for chosen in torch.randperm(len(x), device=machine.device).split(what.batch):
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(module(x[chosen]), labels[chosen]).backward()
                optimizer.step()
            machine.backend.synchronize()
            seconds += time.perf_counter() - since
            with torch.inference_mode():
                answers = module.eval()(x_test).cpu().numpy()
            module.train()
            accuracy = accuracy_of(answers, test[1])
        return {"seconds": seconds, "accuracy": accuracy, "epochs": epoch}

    return run
