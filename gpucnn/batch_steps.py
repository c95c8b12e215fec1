"""What a trainer does with a batch, on the device from end to end, so that it can be recorded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from operator import is_
from typing import TYPE_CHECKING, Any

from .backends.base import Array
from .data.device_loader import DeviceLoader
from .data.loader import Loader
from .data.streaming import StreamedLoader
from .meter import Meter
from .metrics import Metric
from .step import SharedMemory, Steps
from .tracing import traced
from .varying import is_recording

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
        self._loader: Loader | StreamedLoader | None = None
        self._meter: Meter | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: nothing of an epoch."""
        return vars(self) | {"_loader": None, "_meter": None}

    @abstractmethod
    def work(self, *batch: Array) -> list[Array]:
        """Return the loss and the metrics of images and labels, 0-d arrays on the device, first.

        Without arguments the batch is the loader's next, which lies on the device.
        """

    def begin(self, loader: Loader | StreamedLoader | None, meter: Meter) -> None:
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
        trainer = self.trainer
        settings = {**vars(trainer.optimizer), "learning_rate": None, "steps": None}
        held = [
            settings.pop("slots"),
            settings.pop("_skipped", None),
            trainer.loss_scale,
            trainer.loss,
        ]
        held += [trainer.model, *trainer.model.layers, *trainer.metrics.values()]
        layers = []
        for _, layer, trainable in trainer.model._walk():
            held += [layer, *layer.params.values(), *layer.state.values()]
            seed = layer.counters.get("seed")
            layers.append((trainable, layer.frozen, seed, _plain(layer)))
        model = trainer.model.fuses, trainer.model.dtype, layers
        return _These(held), model, repr(settings), _plain(trainer.loss), _plain(trainer.loss_scale)

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
        backend, values = self.trainer.backend, [value]
        for name, metric in self.trainer.metrics.items():
            found = known[metric] if metric in known else metric(prediction, labels)
            if is_recording() and not backend.owns(found):
                raise TypeError(f"metric {name!r} gives a number of the host, no array")
            values.append(backend.xp.asarray(found))
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


class _These:
    """Objects, equal to the very same ones alone.

    It holds them: an array that is gone could leave its id to another, at another address.
    """

    def __init__(self, objects: Iterable[Any]) -> None:
        self._objects = tuple(objects)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _These) or len(self._objects) != len(other._objects):
            return False
        return all(map(is_, self._objects, other._objects))


def _plain(owner: Any) -> dict[str, Any]:
    """Return the attributes that are a number or a text, a dropout's rate say."""
    return {k: v for k, v in getattr(owner, "__dict__", {}).items() if type(v) in _PLAIN}


_PLAIN = {bool, int, float, str}
