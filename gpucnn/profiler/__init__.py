"""Where the time of a step goes: each layer, forward and backward, and how far from its floor.

    found = gpucnn.profile(model, x)
    print(found)
    plots.timeline(found).savefig("profile.png")  # of gpucnn.plots

clocks      CUDA events or the host's clock; nothing is synchronised until the end
recording   observes the ranges of a step
work        what a call must compute, read and write
floors      the least time for that, by peaks measured here
summary     the medians of many steps
result      the profile: table and JSON
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import as_int
from ..backends import default_backend
from ..backends.base import Backend
from ..layers.base import inference_mode
from ..losses import CrossEntropy, Loss
from ..network import Network
from ..optimizers import Optimizer
from ..tracing import observing
from . import floors
from .clocks import clock_of
from .recording import Recorder, Survey
from .result import Pass, Profile, Row
from .summary import summarised

__all__ = ["Pass", "Profile", "Row", "profile"]


def profile(
    model: Network, x: Any, y: Any = None, *, loss: str | Loss = "cross_entropy",
    optimizer: str | Optimizer = "adam", training: bool = True, steps: int = 20, warm_up: int = 3,
) -> Profile:  # fmt: skip
    """Measure steps of a network layer by layer, where its weights lie.

    Layers that run as one operation are one row (see ``network.plan``). On a GPU a time is that
    between two events of the current stream: where the GPU waits for Python, it is Python's.

    Args:
        model: a network of one input and one output; without ``training`` any. It is left as it is:
            a copy is trained.
        x: a batch (N, ...) for the network. y: its targets, by default some that fit.
        loss, optimizer: as for ``Trainer``.
        training: steps of a training, forward, loss, backward, optimizer; else forward alone, as
            for an answer.
        steps: how many are measured, after ``warm_up`` others; each time is the median of them.

    Raises:
        ValueError: x or y does not fit the model, or steps or warm_up is less than 1.
        TypeError: training needs a network of one input and one output.
        RuntimeError: the steps ran through different layers.

    Example:
        >>> from gpucnn import Sequential
        >>> model = Sequential([Conv2D(4, 3, input_shape=(8, 8, 1)), ReLU(), Flatten(), Dense(3)])
        >>> found = profile(model, np.zeros((2, 8, 8, 1), np.float32), steps=3)
        >>> [(row.name, row.output_shape, row.multiply_adds) for row in found.rows]
        [('conv2d+re_lu', (2, 6, 6, 4), 2592), ('flatten', (2, 144), 0), ('dense', (2, 3), 864)]
    """
    if not isinstance(model, Network):
        raise TypeError(f"profile: model must be a network. Received: {model!r}")
    steps, warm_up = as_int("profile", "steps", steps), as_int("profile", "warm_up", warm_up)
    backend = model.backend if model.built else default_backend()
    model = copy.deepcopy(model)
    x = [backend.asarray(item) for item in x] if model.takes_many else backend.asarray(x)
    if training:
        step = _training_step(model, x, y, loss, optimizer, backend)
    else:
        step = _inference_step(model, x)
    clock = clock_of(backend)
    survey, recorder = Survey(), Recorder(clock)
    with backend.running(), np.errstate(all="ignore"):
        with observing(survey):
            step()
        for _ in range(warm_up):
            step()
        with observing(recorder):
            for _ in range(steps):
                recorder.step(step)
        measured = recorder.steps()
    peaks = floors.measure(backend, model.dtype, clock)
    return summarised(model, backend, survey, measured, peaks)


def _training_step(
    model: Network, x: Any, y: Any, loss: str | Loss, optimizer: str | Optimizer, backend: Backend
) -> Callable[[], Any]:
    from ..trainer import Trainer  # which loads a good deal

    trainer = Trainer(model, loss, optimizer, metrics=(), backend=backend, progress=False)
    with inference_mode():
        shape = tuple(model.forward(x).shape)
    if y is None:
        of_classes = isinstance(trainer.loss, CrossEntropy)
        y = (
            np.arange(np.prod(shape[:-1])) % shape[-1]
            if of_classes
            else np.zeros(shape, model.dtype)
        )
        y = y.reshape(shape[:-1] if of_classes else shape)
    y = np.asarray(y) if not hasattr(y, "dtype") else y
    trainer.loss.check(shape, y)
    y = backend.asarray(y)
    model.needs_input_gradient = False  # as in a training
    return lambda: trainer.training_step.work(x, y)


def _inference_step(model: Network, x: Any) -> Callable[[], Any]:
    def step() -> None:
        with inference_mode():
            model.forward(x)

    step()  # which builds the model
    return step
