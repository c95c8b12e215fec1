"""A small problem and a small network for the tests of training: which way do the stripes run?"""

from __future__ import annotations

from typing import Any

import numpy as np

import gpucnn
from gpucnn.data import Normalize
from gpucnn.history import History
from gpucnn.optimizers import Adam
from gpucnn.trainer import Trainer

CLASSES = ("rows", "columns", "neither")
TIMES = ("seconds", "images_per_second")


def stripes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images (N, 8, 6, 1) of uint8 and labels (N,): 0 rows, 1 columns, 2 none."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    row, column = np.indices((8, 6)) % 2
    patterns = np.stack([row, column, np.full((8, 6), 0.5)])  # (3, 8, 6)
    images = 150 * patterns[labels] + rng.uniform(0, 100, (count, 8, 6))
    return images[..., None].astype(np.uint8), labels


def network(dropout: float = 0.3, **options: Any) -> gpucnn.Sequential:
    """Return a network with all that a checkpoint has to keep: norm statistics, dropout's count."""
    gpucnn.set_seed(11)
    return gpucnn.Sequential(
        [
            gpucnn.Conv2D(4, 3, padding="same"),
            gpucnn.BatchNorm(),
            gpucnn.ReLU(),
            gpucnn.MaxPool2D(2),
            gpucnn.Flatten(),
            gpucnn.Dropout(dropout),
            gpucnn.Dense(3),
        ],
        **({"input_shape": (8, 6, 1)} | options),
    )


def measured(history: History) -> list[dict[str, float]]:
    """Return the records without their times, which differ from run to run."""
    return [
        {name: value for name, value in record.items() if name not in TIMES}
        for record in history.records
    ]


def assert_same_arrays(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Require the same names, dtypes and bits."""
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def assert_same_training(actual: Trainer, expected: Trainer) -> None:
    """Require the same weights, records and optimizer state, bit for bit."""
    assert_same_arrays(actual.model.state_dict(), expected.model.state_dict())
    assert measured(actual.history) == measured(expected.history)
    assert actual.optimizer.steps == expected.optimizer.steps
    for name, slots in expected.optimizer.slots.items():
        assert_same_arrays(actual.optimizer.slots[name], slots)


X, Y = stripes(120)
NORMALIZE = Normalize(100.0, 50.0)


def make_trainer(**options) -> Trainer:
    model = options.pop("model", None) or network()
    return Trainer(model, **({"optimizer": Adam(0.01), "progress": False} | options))


def fit(trainer: Trainer, epochs: int = 2, **options) -> History:
    options = {"batch_size": 16, "normalize": NORMALIZE, "prefetch": 0} | options
    return trainer.fit(*options.pop("data", (X, Y)), epochs=epochs, **options)
