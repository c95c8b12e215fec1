"""The trainer: from arrays to a trained network, with checkpoints that resume bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from .arguments import as_int, as_number
from .backends import as_backend
from .backends.base import Backend
from .backends.exchange import on_host
from .batch_steps import EvaluationStep, TrainingStep
from .callbacks import Callback
from .checkpoint import json_path
from .data import Augmentation, Loader, Normalize, Split
from .epochs import run_epochs
from .feed import Feed
from .history import History
from .layers.base import inference_mode
from .losses import Loss
from .meter import Meter
from .metrics import Metric, named
from .network import Network
from .optimizers import LossScale, Optimizer
from .samples import Samples, as_samples, divide
from .step import SharedMemory
from .training_state import read_state, write_state


class Trainer:
    """Fit a network to data.

    Args:
        model: a network of one input and one output. One that is not built yet is built for the
            data, in float32 unless it has a dtype.
        loss: a name ("cross_entropy", "mse", "mae", "huber", "binary_cross_entropy") or a Loss.
        optimizer: a name ("sgd", "adam", "adamw", "muon") or an Optimizer, which holds the learning
            rate or its schedule, weight decay and gradient clipping.
        loss_scale: a LossScale, a number that it stays at, or None. "auto" is ``LossScale()`` for a
            model in float16, whose gradients need it, and None for others.
        metrics: names (see ``metrics.METRICS``) or functions; by default the loss's usual ones.
        callbacks: called in this order.
        backend: "numpy", "cuda" or a Backend; the model is moved to it. By default the chosen one,
            else CUDA where a GPU answers, else NumPy.
        seed: of shuffling, augmentation and the validation split. Initial weights and dropout have
            theirs from ``gpucnn.set_seed``, called before the model is made.
        record: whether steps are planned, recorded and replayed (see ``gpucnn.step``): quicker,
            with the same numbers, bit for bit. What cannot be recorded runs as it stands, and
            ``recording_failure`` says why.
        progress: show a bar on a terminal, or a line an epoch elsewhere; False shows nothing.

    The same seeds on the same backend give the same weights, bit for bit.

    Attributes:
        history: a record for each finished epoch.
        normalize, classes: what ``fit`` was given; checkpoints keep them.
        training_step, evaluation_step: what is done with a batch.
        stop_training: set to True by a callback, it ends ``fit`` after the epoch.

    Example:
        >>> trainer = Trainer(model, optimizer=SGD(0.1, momentum=0.9))           # doctest: +SKIP
        >>> history = trainer.fit(x, y, epochs=5, checkpoint_dir="runs/first")   # doctest: +SKIP
        >>> trainer.evaluate(x_test, y_test)                                     # doctest: +SKIP
        {'loss': 0.0713, 'accuracy': 0.9806}
    """

    def __init__(
        self,
        model: Network,
        loss: str | Loss = "cross_entropy",
        optimizer: str | Optimizer = "adam",
        *,
        loss_scale: str | float | LossScale | None = "auto",
        metrics: Iterable[str | Metric] | None = None,
        callbacks: Iterable[Callback] = (),
        backend: str | Backend | None = None,
        seed: int = 0,
        record: bool = True,
        progress: bool = True,
    ) -> None:
        if not isinstance(model, Network) or model.takes_many or model.gives_many:
            raise TypeError(
                "Trainer: model must be a network of one input and one output, a Sequential say."
                f" Received: {model!r}"
            )
        self.model = model
        self.loss = Loss.of(loss)
        self.optimizer = Optimizer.of(optimizer)
        self._auto_scale = loss_scale == "auto"
        self.loss_scale = None if self._auto_scale else LossScale.of(loss_scale)
        self.metrics = named(self.loss.metrics if metrics is None else metrics)
        self.callbacks = _checked(callbacks)
        self.backend = as_backend(backend)
        self.seed = as_int("Trainer", "seed", seed, minimum=0)
        self.record = record
        self.progress = progress
        self.history = History()
        self.normalize: Normalize | None = None
        self.classes: list[str] | None = None
        self.stop_training = False
        self._in_epoch = False
        memory = SharedMemory()
        self.training_step = TrainingStep(self, memory)
        self.evaluation_step = EvaluationStep(self, memory)

    @property
    def recording_failure(self) -> str | None:
        """Why training steps run as they stand, or None."""
        recordings = self.training_step.steps.recordings.values()
        return next((recorded.reason for recorded in recordings if recorded.reason), None)

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    # ---- training --------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int,
        batch_size: int = 64,
        validation: Split | Loader | tuple[Any, Any] | None = None,
        validation_split: float = 0.1,
        augment: Augmentation | Callable | None = None,
        normalize: Normalize | None = None,
        classes: Sequence[str] | None = None,
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
        prefetch: int = 2,
    ) -> History:
        """Train for so many more epochs and return the history.

        Args:
            x, y: arrays (N, ...) of as many samples, or a ``Split`` (no y), or a ``Loader`` (no y),
                which has its own batch size, seed, augmentation and normalisation.
            validation: (x, y), a Split or a Loader, evaluated after every epoch. Where it is None,
                the fraction ``validation_split`` of the samples is held out, each class by its
                share; 0 holds none out, and a Loader is never divided.
            augment: called as ``augment(images, rng)`` on training batches (see ``gpucnn.data``).
            normalize: applied to all images, later ones in ``evaluate`` and ``predict`` too.
            classes: the names of the labels, for checkpoints.
            checkpoint_dir: after every epoch a checkpoint ``last`` is written there.
            resume: continue from that checkpoint, if there is one; its epochs count towards
                ``epochs``, and the end is the same, bit for bit, as without the stop. The other
                arguments must be those of the first call.
            prefetch: batches made ahead by a thread.

        On a GPU, pictures that fit are kept and changed there: see ``gpucnn.data.DeviceLoader``.
        Losses and metrics stay on the device and are read about ten times a second.

        Raises:
            ValueError: x and y are of different lengths or empty, or do not fit the model, or a
                Loader comes with an augmentation or a normalisation besides its own, or one of the
                optimizer's ``rate_factors`` is for no parameter.
            TypeError: x is a whole Dataset, or normalize is no Normalize, or the loss takes no
                loss scale and there is one.
            FloatingPointError: the loss became NaN or infinite. The checkpoint on disk stays that
                of the last finished epoch.
            KeyboardInterrupt: after Ctrl-C, likewise; one line says so. ``history`` holds the
                finished epochs, while the model has got on: ``resume`` goes back to the checkpoint.
        """
        owner = "Trainer.fit"
        epochs = as_int(owner, "epochs", epochs)
        batch_size = as_int(owner, "batch_size", batch_size)
        as_number(owner, "validation_split", validation_split, least=0, below=1)
        if isinstance(x, Loader) and (augment, normalize) != (None, None):
            raise ValueError(
                f"{owner}: a Loader has an augmentation and a normalisation of its own."
                f" Received: augment={augment!r}, normalize={normalize!r}"
            )
        kept = x.normalize if isinstance(x, Loader) else normalize
        if not isinstance(kept, (Normalize, NoneType)):
            raise TypeError(
                f"{owner}: normalize must be a gpucnn.data.Normalize, which a checkpoint can keep."
                f" Received: {kept!r}"
            )
        if resume and checkpoint_dir is None:
            raise ValueError(f"{owner}: resume needs checkpoint_dir. Received: None")
        checkpoint = None if checkpoint_dir is None else Path(checkpoint_dir) / "last"
        train = as_samples(owner, x, y)
        held_out = None if validation is None else as_samples(owner, validation)
        for data in (train, held_out):
            if data is not None:
                self._prepare(data)
        layers = self.model.walk()
        self.optimizer.check([f"{path}/{key}" for path, layer in layers for key in layer.params])
        last = self.epoch + epochs
        if resume and json_path(checkpoint).is_file():
            read_state(checkpoint).restore(self)
            last = epochs
        if held_out is None and not isinstance(train, Loader):
            train, held_out = divide(train, validation_split, self.seed)
        self.normalize = normalize or self.normalize
        self.classes = self.classes if classes is None else list(classes)
        feed = self._feed(train, batch_size, augment=augment, prefetch=prefetch)
        self.normalize = feed.loader.normalize
        test = held_out and (self._feed(held_out, batch_size, shuffle=False), self._meter())
        with self.backend.running():
            run_epochs(self, (feed, self._meter()), test, last, checkpoint)
        return self.history

    # ---- using the model -------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any = None, *, batch_size: int = 256) -> dict[str, float]:
        """Return the loss and the metrics on data: arrays x and y, a Split or a Loader.

        Raises:
            ValueError: as ``fit``.
            FloatingPointError: the loss is NaN or infinite.
        """
        data = as_samples("Trainer.evaluate", x, y)
        self._prepare(data)
        return self._evaluate(
            self._feed(data, batch_size, shuffle=False), self._meter(), "evaluate"
        )

    def _evaluate(self, feed: Feed, meter: Meter, where: str) -> dict[str, float]:
        meter.begin(where)
        self.evaluation_step.begin(feed.loader, meter)
        with self.backend.running(), inference_mode(), np.errstate(all="ignore"):
            for size, batch in feed.epoch(0):
                self.evaluation_step(size, batch)
        return meter.read()

    def predict(self, x: Any, *, batch_size: int = 256) -> np.ndarray:
        """Return the model's outputs for x (N, ...), normalised as the training images were."""
        x = on_host("Trainer", "x", x)
        return self.model.predict(x if self.normalize is None else self.normalize(x), batch_size)

    # ---- checkpoints -----------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write a checkpoint to continue from (see ``gpucnn.checkpoint``); return its JSON file.

        It holds the model, the optimizer and its schedule, the loss, the seed, the history, the
        callbacks' state, the normalisation and the class names. ``gpucnn.load`` reads the model.

        Raises:
            RuntimeError: called within an epoch; a training continues between epochs.
        """
        if self._in_epoch:
            raise RuntimeError(
                "Trainer.save: a training continues between epochs; save in on_epoch_end, or save"
                " the model alone with gpucnn.save"
            )
        return write_state(self, path)

    @classmethod
    def resume(
        cls, path: str | Path, *, metrics: Iterable[str | Metric] | None = None,
        callbacks: Iterable[Callback] = (), backend: str | Backend | None = None,
        progress: bool = True,
    ) -> Trainer:  # fmt: skip
        """Return a trainer made of a checkpoint alone, that ``fit`` continues.

        Args:
            metrics: to be given again where they were functions; by default the checkpoint's.
            callbacks: to be given again; each continues from its state.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: it is damaged, or holds a model alone.

        Example:
            >>> trainer = Trainer.resume("runs/first")                           # doctest: +SKIP
            >>> trainer.fit(x, y, epochs=3)                                      # doctest: +SKIP
        """
        saved = read_state(path)
        trainer = cls(
            saved.model(),
            Loss.from_config(saved.training["loss"]),
            Optimizer.from_config(saved.training["optimizer"]),
            metrics=saved.training["metrics"] if metrics is None else metrics,
            loss_scale=saved.loss_scale(),
            callbacks=callbacks,
            backend=backend,
            progress=progress,
        )
        saved.restore(trainer)
        return trainer

    # ---- parts -----------------------------------------------------------------------------------

    def _prepare(self, data: Split | Samples | Loader) -> None:
        """Build the model for the data, on the backend, and check that the targets fit it."""
        samples = data.split if isinstance(data, Loader) else data
        shape = tuple(samples.images.shape[1:])
        if self.model.built:
            self.model.to(self.backend)
        else:
            self.model.build(shape, backend=self.backend)
        self.loss.check((len(samples), *self.model.output_shape(shape)), samples.labels)
        needs_scale = self.model.dtype == np.float16
        if self._auto_scale and needs_scale != (self.loss_scale is not None):
            self.loss_scale = LossScale() if needs_scale else None
        if self.loss_scale and "loss_scale" not in signature(self.loss).parameters:
            raise TypeError(
                f"Trainer: the loss must take a loss_scale, {self.loss_scale}, that multiplies"
                f" dprediction, unless the trainer's is None. Received: {self.loss!r}"
            )

    def _feed(self, data: Split | Samples | Loader, batch_size: int, **options: Any) -> Feed:
        options |= {"seed": self.seed, "normalize": self.normalize}
        return Feed.of(data, batch_size, self.model.dtype, self.backend, **options)

    def _meter(self) -> Meter:
        return Meter(("loss", *self.metrics), self.backend)

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            callback.trainer = self
            getattr(callback, event)(*arguments)


def _checked(callbacks: Iterable[Callback]) -> list[Callback]:
    listed = list(callbacks) if isinstance(callbacks, Iterable) else [None]
    if not all(isinstance(callback, Callback) for callback in listed):
        raise TypeError(f"Trainer: callbacks must be a list of them. Received: {callbacks!r}")
    return listed
