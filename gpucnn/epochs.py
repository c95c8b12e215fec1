"""The epochs of a training: its steps, what is shown and told meanwhile, and the checkpoints."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .checkpoint import json_path
from .feed import Feed
from .history import Record
from .meter import Meter
from .progress import Silent, choose

if TYPE_CHECKING:
    from .trainer import Trainer

READ_EVERY = 0.1  # seconds between two readings of values on the device

# Where batches come from, and where the values of their steps go.
Source = tuple[Feed, Meter]


def run_epochs(
    trainer: Trainer, train: Source, test: Source | None, last: int, checkpoint: Path | None
) -> None:
    """Train a trainer's model until ``last`` epochs are done in all, or somebody stops it.

    Args:
        test: what is evaluated after every epoch, if anything is.
        checkpoint: written after every epoch, if it is given.
    """
    trainer.stop_training = False
    trainer._tell("on_train_begin")
    display = choose(trainer.progress)
    asked, trainer.model.needs_input_gradient = trainer.model.needs_input_gradient, False
    try:
        while trainer.epoch < last and not trainer.stop_training:
            epoch = trainer.epoch + 1
            display.start(epoch, last, len(train[0]))
            trainer._tell("on_epoch_begin", epoch)
            record = _epoch(trainer, epoch, train, test, display)
            trainer.history.records.append(record)
            trainer._tell("on_epoch_end", epoch, record)
            display.finish(record)
            if checkpoint is not None:
                trainer.save(checkpoint)
        if trainer.stop_training:
            display.say(f"stopped after {trainer.epoch} of {last} epochs")
    except KeyboardInterrupt:
        display.say(f"interrupted after {trainer.epoch} of {last} epochs{_kept(checkpoint)}")
        raise
    finally:
        trainer._in_epoch = False
        trainer.model.needs_input_gradient = asked
        for _, layer in trainer.model.walk():
            layer.grads.clear()  # a model that is kept would keep the memory of its steps
        display.close()
    trainer._tell("on_train_end")


def _epoch(
    trainer: Trainer, epoch: int, train: Source, test: Source | None, display: Silent
) -> Record:
    """Train for an epoch, which counts from 1; return its record."""
    start = read = time.perf_counter()
    feed, meter = train
    meter.begin(f"epoch {epoch}")
    trainer._in_epoch = True
    trainer.training_step.begin(feed.loader, meter)
    with closing(feed.epoch(epoch - 1)) as batches:
        for batch, (size, arrays) in enumerate(batches, 1):
            # Overflow is silent on a device, and so it is here: the meter finds what it made.
            with np.errstate(all="ignore"):
                trainer.training_step(size, arrays)
            if any(callback.sees_batches for callback in trainer.callbacks):
                trainer._tell("on_batch_end", batch)
                # A callback may have changed anything.
                trainer.training_step.begin(feed.loader, meter)
            if time.perf_counter() - read >= READ_EVERY:
                values, asked, read = meter.glance(), read, time.perf_counter()
                if values:  # those up to the glance before
                    speed = {"images_per_second": meter.samples / (asked - start)}
                    display.update(batch, values | speed)
    record = {"epoch": epoch} | meter.read()
    seconds = time.perf_counter() - start
    trainer._in_epoch = False
    if epoch == 1 and (why := trainer.recording_failure):
        display.say(f"steps are not recorded but run one by one: {why}")
    if test is not None:
        values = trainer._evaluate(*test, f"validation of epoch {epoch}")
        record |= {f"val_{name}": value for name, value in values.items()}
    return record | {
        "learning_rate": trainer.optimizer.rate_of(trainer.optimizer.steps - 1),
        "images_per_second": meter.samples / seconds,
        "seconds": time.perf_counter() - start,
    }


def _kept(checkpoint: Path | None) -> str:
    """Say where a training that was interrupted can go on, if it can."""
    if checkpoint is None or not json_path(checkpoint).is_file():
        return ""
    return f"; resume=True continues from {json_path(checkpoint)}"
