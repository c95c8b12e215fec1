"""Callbacks: code of one's own between the epochs and batches of ``Trainer.fit``.

    >>> class Enough(Callback):
    ...     def on_epoch_end(self, epoch, record):
    ...         if record["accuracy"] > 0.99:
    ...             self.trainer.stop_training = True

Epochs and batches count from 1. A callback stops the training with ``trainer.stop_training =
True``, which is looked at after every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import as_choice, as_int, as_number
from .history import Record

if TYPE_CHECKING:
    from .layers import Layer
    from .trainer import Trainer

EVENTS = ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")


class Callback:
    """Does nothing at each event; subclasses do something at some.

    Attributes:
        trainer: the trainer, from ``on_train_begin`` on; its ``model``, ``optimizer`` and
            ``history`` are there to be read, and the first two to be changed: a rate, a momentum,
            a dropout's rate.
    """

    trainer: Trainer

    @property
    def sees_batches(self) -> bool:
        """Whether ``on_batch_end`` does something: after it, a step is looked at for changes."""
        return getattr(self.on_batch_end, "__func__", None) is not Callback.on_batch_end

    def on_train_begin(self) -> None:
        """Called once by each ``fit``, when the model is built and a checkpoint restored."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before the first batch."""

    def on_batch_end(self, batch: int) -> None:
        """Called after each training step; reading a value of the device here slows it down."""

    def on_epoch_end(self, epoch: int, record: Record) -> None:
        """Called with the epoch's record (see ``History``), before its checkpoint is written."""

    def on_train_end(self) -> None:
        """Called when the last epoch is done, but not after an error or Ctrl-C."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint should keep: JSON values and arrays, by name."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""


class LambdaCallback(Callback):
    """Functions as a callback.

    Example:
        >>> callback = LambdaCallback(on_epoch_end=lambda epoch, record: print(record["loss"]))
    """

    def __init__(self, **functions: Callable) -> None:
        for name, function in functions.items():
            as_choice("LambdaCallback", "event", name, EVENTS)
            if not callable(function):
                raise TypeError(
                    f"LambdaCallback: {name} must be a function. Received: {function!r}"
                )
            setattr(self, name, function)


class CSVLogger(Callback):
    """Write the history to a CSV file after every epoch."""

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def on_epoch_end(self, epoch: int, record: Record) -> None:
        self.trainer.history.to_csv(self.path)


class Freeze(Callback):
    """Leave parameters alone after so many epochs.

    Args:
        pattern: of the parameters' paths, as "stem/*" or "*/bias".
        after: the number of epochs in which they are trained.

    Raises:
        ValueError: a training begins whose network has no such parameter.

    Example:
        >>> Freeze("stem/*", after=3).after
        3
    """

    def __init__(self, pattern: str, after: int) -> None:
        self.pattern = pattern
        self.after = as_int("Freeze", "after", after, minimum=0)

    def on_train_begin(self) -> None:
        if not any(own for _, own in self._matches()):
            raise ValueError(
                "Freeze: pattern must match the path of a parameter, such as 'conv2d/bias'."
                f" Received: pattern={self.pattern!r}"
            )

    def on_epoch_begin(self, epoch: int) -> None:
        if epoch > self.after:
            for layer, own in self._matches():
                layer.frozen = tuple(dict.fromkeys((*layer.frozen, *own)))

    def _matches(self) -> Iterator[tuple[Layer, list[str]]]:
        """Yield each layer with those of its parameters that the pattern matches."""
        for path, layer in self.trainer.model.walk():
            yield layer, [k for k in layer.params if fnmatchcase(f"{path}/{k}", self.pattern)]


class Best(Callback):
    """Follows a value of the record and knows when it was best; calls ``on_best`` then.

    Args:
        monitor: the name of the value, such as "val_loss" or "accuracy".
        mode: "min" or "max" is better; "auto" takes "max" for accuracies.
        min_delta: a smaller improvement is none.

    Raises:
        ValueError: an argument does not fit, or no record holds such a value.
    """

    def __init__(
        self, monitor: str = "val_loss", *, mode: str = "auto", min_delta: float = 0.0
    ) -> None:
        as_choice(type(self).__name__, "mode", mode, ("auto", "min", "max"))
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" or (mode == "auto" and "accuracy" in monitor) else -1.0
        self.min_delta = as_number(type(self).__name__, "min_delta", min_delta, least=0)
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.best = math.nan
        self.best_epoch = 0

    def on_best(self, epoch: int) -> None:
        """Called at the end of an epoch better than all before."""

    def on_epoch_end(self, epoch: int, record: Record) -> None:
        if self.monitor not in record:
            raise ValueError(
                f"{type(self).__name__}: monitor must be one of {', '.join(record)}; val_loss needs"
                f" validation data. Received: monitor={self.monitor!r}"
            )
        value = record[self.monitor]
        if math.isnan(self.best) or self.sign * (value - self.best) > self.min_delta:
            self.best, self.best_epoch = value, epoch
            self.on_best(epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]


class ModelCheckpoint(Best):
    """Save the trainer to ``path`` after every epoch that is better than all before.

    Where it stands last among the callbacks, the checkpoint holds the others' state of that epoch.
    """

    def __init__(self, path: str | Path, monitor: str = "val_loss", **options: Any) -> None:
        super().__init__(monitor, **options)
        self.path = path

    def on_best(self, epoch: int) -> None:
        self.trainer.save(self.path)


class EarlyStopping(Best):
    """Stop after ``patience`` epochs with no improvement.

    Args:
        monitor, mode, min_delta: as for ``Best``.
        restore_best: give the model back the weights of the best epoch when the training ends,
            early or not. Checkpoints hold them meanwhile, so that a resumed training has them too.
    """

    def __init__(
        self, monitor: str = "val_loss", *, patience: int = 5, restore_best: bool = True,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(monitor, **options)
        self.patience = as_int("EarlyStopping", "patience", patience)
        self.restore_best = restore_best

    def reset(self) -> None:
        super().reset()
        self.last_epoch = 0
        self.weights: dict[str, Any] = {}

    def on_train_begin(self) -> None:
        self._stop()  # a training that had stopped stays so when it is resumed

    def on_epoch_end(self, epoch: int, record: Record) -> None:
        super().on_epoch_end(epoch, record)
        self.last_epoch = epoch
        self._stop()

    def _stop(self) -> None:
        if self.last_epoch - self.best_epoch >= self.patience:
            self.trainer.stop_training = True

    def on_best(self, epoch: int) -> None:
        if self.restore_best:
            self.weights = self.trainer.model.state_dict()

    def on_train_end(self) -> None:
        if self.weights:
            self.trainer.model.load_state_dict(self.weights)
        self.reset()  # the next training starts anew

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"last_epoch": self.last_epoch} | self.weights

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.last_epoch = state["last_epoch"]
        self.weights = {name: value for name, value in state.items() if hasattr(value, "shape")}
