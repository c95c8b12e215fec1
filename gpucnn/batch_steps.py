"""What a trainer does with a batch, on the device from end to end, so that it can be recorded."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from .backends.base import Array
from .data.device_loader import DeviceLoader
from .data.loader import Loader
from .meter import Meter
from .metrics import Metric
from .step import SharedMemory, Steps
from .tracing import traced

if TYPE_CHECKING:
    from .trainer import Trainer


class BatchStep(ABC):
    """The work on a batch, recorded (see ``gpucnn.step``) unless the trainer's ``record`` is off.

    Args:
        trainer: whose model, loss, optimizer and metrics it works with.
        memory: that a trainer's steps share.

    Attributes:
        steps: the recordings.
    """

    def __init__(self, trainer: Trainer, memory: SharedMemory) -> None:
        self.trainer = trainer
        self.steps = Steps(self.work, trainer.backend, memory)
        self._loader: Loader | None = None
        self._meter: Meter | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: nothing of an epoch."""
        return vars(self) | {"_loader": None, "_meter": None}

    @abstractmethod
    def work(self, *batch: Array) -> list[Array]:
        """Return the loss and the metrics of images and labels, 0-d arrays on the device, first.

        Without arguments the batch is the loader's next, which lies on the device.
        """

    def begin(self, loader: Loader | None, meter: Meter) -> None:
        """Take batches of a loader from here on, if asked to fetch them, and fill a meter.

        To be called again where something that the work depends on may have changed.
        """
        self._loader, self._meter = loader, meter
        self.steps.under((self._circumstances(), loader, meter))

    def __call__(self, size: int, batch: tuple[Array, ...]) -> list[Array]:
        """Do the work on a batch of so many samples, which leaves its values in the meter."""
        results = self.steps(*batch, size=size) if self.trainer.record else self.work(*batch)
        self._meter.count(size)
        return results

    def _circumstances(self) -> tuple:
        """Return what the work depends on, the batch and what varies apart."""
        trainer, optimizer = self.trainer, self.trainer.optimizer
        apart = ("learning_rate", "steps", "slots", "_skipped")
        settings = {name: value for name, value in vars(optimizer).items() if name not in apart}
        things: list[Any] = [optimizer, optimizer.slots, optimizer._skipped]
        things += [trainer.loss, trainer.loss_scale]
        layers = []
        for _, layer, trainable in trainer.model._walk():
            arguments = [getattr(layer, name) for name in layer.arguments]
            layers.append((trainable, layer.trainable, layer.frozen, repr(arguments)))
            things += [layer, *layer.params.values(), *layer.state.values()]
        model = trainer.model.fuses, trainer.model.dtype
        metrics = [*trainer.metrics.values()]
        texts = repr((settings, trainer.loss, trainer.loss_scale))
        return model, layers, texts, metrics, _Same(things)

    def _given(self, batch: tuple[Array, ...]) -> tuple[Array, Array]:
        """Return images and labels: to fetch a DeviceLoader's batch is part of the work."""
        if batch:
            return batch
        assert isinstance(self._loader, DeviceLoader)
        return traced(None, "batch", self._loader.batch)

    def _measured(
        self, value: Array, prediction: Array, labels: Array, known: dict[Metric, Array]
    ) -> list[Array]:
        """Return the loss and the metrics, of which some are known; the meter takes them down."""
        asarray = self.trainer.backend.asarray
        values = [value]
        for name, metric in self.trainer.metrics.items():
            mean = asarray(known[metric] if metric in known else metric(prediction, labels))
            if mean.ndim or mean.dtype.kind not in "fiub":
                raise ValueError(
                    f"Trainer: the metric {name!r} must give one number, the mean over a batch."
                    f" Received: {mean.dtype.name} of shape {mean.shape}"
                )
            values.append(mean)
        if self._meter is not None:
            self._meter.write(values)
        return values


class TrainingStep(BatchStep):
    """Forward, loss, backward and the optimizer's update; the gradients stay in the layers."""

    def __call__(self, size: int, batch: tuple[Array, ...]) -> list[Array]:
        before = self.steps.replayed
        results = super().__call__(size, batch)
        if self.steps.replayed not in (None, before):  # it has gradients of its own
            parameters = list(self.trainer.model.parameters())
            gradients = results[len(results) - len(parameters) :]
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.layer.grads[parameter.key] = gradient
        return results

    def work(self, *batch: Array) -> list[Array]:
        trainer = self.trainer
        images, labels = self._given(batch)
        scale = () if trainer.loss_scale is None else (trainer.loss_scale,)
        prediction = trainer.model.forward(images, training=True)
        value, dprediction, known = traced(
            None, "loss", trainer.loss.measure, prediction, labels, *scale
        )
        trainer.model.backward(dprediction)
        traced(None, "optimizer", trainer.optimizer.step, trainer.model.parameters(), *scale)
        gradients = [parameter.gradient for parameter in trainer.model.parameters()]
        return [*self._measured(value, prediction, labels, known), *gradients]


class EvaluationStep(BatchStep):
    """Forward and loss; to be called in inference mode."""

    def work(self, *batch: Array) -> list[Array]:
        images, labels = self._given(batch)
        prediction = self.trainer.model.forward(images)
        value, _, known = self.trainer.loss.measure(prediction, labels)
        return self._measured(value, prediction, labels, known)


class _Same:
    """Objects, and equal to none but the very same; alive, so that no other takes their place."""

    def __init__(self, things: list[Any]) -> None:
        self.things = things

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Same)
            and len(self.things) == len(other.things)
            and all(map(operator.is_, self.things, other.things))
        )

    __hash__ = None
