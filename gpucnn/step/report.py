"""What a training step keeps in memory: for the way back, and in all."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Array
from ..functional import Mask
from ..losses import Loss
from ..network import Network
from ..optimizers import Optimizer
from ..tracing import observing
from .arena import Arena


@dataclass(frozen=True)
class Kept:
    """What a layer, or layers that run as one, keep from forward to backward.

    Attributes:
        name: theirs, "conv2d+re_lu+max_pool2d".
        arrays: each as text, "float32 64x28x28x6", "uint8 64x14x14x6"; a mask of one bit a number
            as "bits 64x8x8x256".
        bytes: of those that no stage before it keeps, too.
        shared: how many of the arrays another stage keeps, too.
    """

    name: str
    arrays: tuple[str, ...]
    bytes: int
    shared: int


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training step, its parameters and the optimizer's slots apart.

    Attributes:
        kept: of each stage, in the order in which they run.
        arena: of all arrays of a step; ``arena.size`` bytes serve for ``arena.naive``.
    """

    kept: tuple[Kept, ...]
    arena: Arena

    @property
    def kept_bytes(self) -> int:
        return sum(row.bytes for row in self.kept)


def step_memory(
    model: Network, x: Array, y: Array, loss: str | Loss = "cross_entropy",
    optimizer: str | Optimizer = "sgd",
) -> StepMemory:  # fmt: skip
    """Plan the memory of training steps on batches like (x, y), with a copy of the model.

    Raises:
        ValueError: x or y does not fit the model or the loss.

    Example:
        >>> from gpucnn import Conv2D, Dense, Flatten, MaxPool2D, Sequential
        >>> layers = [Conv2D(8, 3, activation="relu"), MaxPool2D(2), Flatten(), Dense(10)]
        >>> model = Sequential(layers, input_shape=(30, 30, 1))
        >>> x, y = np.zeros((64, 30, 30, 1), np.float32), np.zeros(64, np.int64)
        >>> for row in step_memory(model, x, y).kept:
        ...     print(row.name, *row.arrays, row.bytes, sep=", ")
        conv2d+max_pool2d, float32 64x30x30x1, float32 64x14x14x8, uint8 64x14x14x8, 732160
        flatten, 0
        dense, float32 64x1568, 401408
    """
    from ..trainer import Trainer  # which imports this package

    trainer = Trainer(
        copy.deepcopy(model), loss, copy.deepcopy(optimizer), metrics=(), backend=model.backend,
        progress=False,
    )  # fmt: skip
    backend, survey = trainer.backend, _Survey(trainer.model)
    trainer.model.needs_input_gradient = False
    batch = backend.asarray(x), backend.asarray(y)
    trainer.loss.check((len(x), *trainer.model.output_shape(tuple(x.shape[1:]))), np.asarray(y))
    with backend.running(), np.errstate(all="ignore"):
        with observing(survey):
            trainer.training_step.work(*batch)
        for _ in range(2):
            trainer.training_step.steps(*batch)
    (step,) = trainer.training_step.steps.recordings.values()
    return StepMemory(tuple(survey.kept()), step.arena)


class _Survey:
    """Looks at what each layer has saved when its forward is over."""

    def __init__(self, model: Network) -> None:
        self._model = model
        self._saved: list[tuple[str, list[Array | Mask]]] = []

    def __call__(self, subject: Any, what: str, function: Any, arguments: tuple) -> Any:
        result = function(*arguments)
        layer = getattr(subject, "lead", subject)
        if what == "forward" and not isinstance(subject, Network):
            self._saved.append((subject.name, list(_kept(layer._saved))))
        return result

    def kept(self) -> Iterator[Kept]:
        seen: dict[int, Any] = {}
        parameters = {id(a) for _, layer in self._model.walk() for a in layer.params.values()}
        for name, saved in self._saved:
            arrays = [array for array in saved if id(array) not in parameters]
            memory = [a.bits if isinstance(a, Mask) else a for a in arrays]
            owners = {id(owner): (owner, a.nbytes) for a in memory for owner in [_owner(a)]}
            fresh = {key: nbytes for key, (_, nbytes) in owners.items() if key not in seen}
            seen.update(owners)
            texts, shared = tuple(map(_text, arrays)), len(owners) - len(fresh)
            yield Kept(name, texts, sum(fresh.values()), shared)


def _kept(saved: Any) -> Iterator[Array | Mask]:
    if isinstance(saved, Mask) or (hasattr(saved, "nbytes") and not isinstance(saved, np.generic)):
        yield saved
    elif isinstance(saved, (tuple, list)):
        for item in saved:
            yield from _kept(item)


def _text(kept: Array | Mask) -> str:
    kind = "bits" if isinstance(kept, Mask) else kept.dtype.name
    return f"{kind} {'x'.join(map(str, kept.shape))}"


def _owner(array: Array) -> Any:
    """Return what stands for the memory of an array and of all views of it."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array
