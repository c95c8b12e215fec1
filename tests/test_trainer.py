"""The trainer: it learns, repeats, resumes bit for bit, and waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import gpucnn
from gpucnn import epochs, tracing
from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.transfers import Transfers
from gpucnn.callbacks import Callback, EarlyStopping, LambdaCallback
from gpucnn.data import Compose, Cutout, Shift
from gpucnn.losses import CrossEntropy
from gpucnn.optimizers import SGD, AdamW
from gpucnn.schedules import Cosine, WarmUp
from gpucnn.trainer import Trainer

from .training import (
    NORMALIZE,
    X,
    Y,
    assert_same_arrays,
    assert_same_training,
    fit,
    make_trainer,
    measured,
    network,
    stripes,
)


@pytest.fixture(autouse=True)
def on_numpy() -> Iterator[None]:
    with use_backend("numpy"):
        yield


# ---- it learns -----------------------------------------------------------------------------------


def test_it_learns():
    trainer = make_trainer()
    history = fit(trainer, 15)
    assert len(history) == trainer.epoch == 15
    assert history["loss"][-1] < history["loss"][0] / 2
    assert history["val_accuracy"][-1] == 1.0
    new_x, new_y = stripes(60, seed=1)
    assert trainer.evaluate(new_x, new_y)["accuracy"] == 1.0
    np.testing.assert_array_equal(trainer.predict(new_x).argmax(axis=-1), new_y)


def test_every_backend_trains_to_the_same_numbers(backend):
    with use_backend("numpy"):
        expected = measured(fit(make_trainer(optimizer=SGD(0.05, momentum=0.9, clip_norm=1.0))))
    with use_backend(backend):
        trainer = make_trainer(optimizer=SGD(0.05, momentum=0.9, clip_norm=1.0))
        actual = measured(fit(trainer))
    assert len(actual) == len(expected) == 2
    for one, other in zip(actual, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_regression():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5)).astype(np.float32)
    y = x @ rng.standard_normal((5, 2)) + 0.5
    model = gpucnn.Sequential([gpucnn.Dense(2, input_shape=(5,))])
    trainer = make_trainer(model=model, loss="mse", optimizer=SGD(0.1, momentum=0.9))
    history = trainer.fit(x, y, epochs=30, batch_size=20)
    assert "accuracy" not in history.names
    assert history["val_loss"][-1] < 1e-6


def test_signals_and_targets_of_many_positions():
    """A label for every position of (N, L, C): is the signal above zero?"""
    x = np.random.default_rng(0).standard_normal((60, 7, 1)).astype(np.float32)
    model = gpucnn.Sequential([gpucnn.Conv1D(2, 1, input_shape=(7, 1))])
    trainer = make_trainer(model=model, optimizer=SGD(1.0, momentum=0.9))
    trainer.fit(x, (x[..., 0] > 0).astype(int), epochs=20, batch_size=10)
    assert trainer.history["val_accuracy"][-1] > 0.97


def test_probability_rows_are_targets_like_labels():
    labels, rows = make_trainer(model=network(0.0)), make_trainer(model=network(0.0))
    validation = stripes(30, seed=1)
    fit(labels, validation=validation)
    fit(rows, data=(X, np.eye(3)[Y]), validation=(validation[0], np.eye(3)[validation[1]]))
    for one, other in zip(measured(labels.history), measured(rows.history), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_train(dtype):
    trainer = make_trainer(model=network(dtype=dtype))
    fit(trainer, 8)
    assert trainer.model.layers[0].params["kernel"].dtype.name == dtype
    assert trainer.history["val_accuracy"][-1] > 0.9


def test_a_layer_that_is_not_trainable_keeps_its_weights():
    model = network()
    model.layers[0].trainable = False
    before = model.state_dict()
    fit(make_trainer(model=model))
    after = model.state_dict()
    np.testing.assert_array_equal(after["conv2d/kernel"], before["conv2d/kernel"])
    assert (after["dense/kernel"] != before["dense/kernel"]).any()


# ---- it repeats itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_same_seed_gives_the_same_weights(prefetch):
    runs = [make_trainer(seed=3), make_trainer(seed=3)]
    fit(runs[0], augment=Shift(1))
    fit(runs[1], augment=Shift(1), prefetch=prefetch)
    assert_same_arrays(runs[1].model.state_dict(), runs[0].model.state_dict())
    assert measured(runs[1].history) == measured(runs[0].history)


def test_another_seed_gives_other_weights():
    one, other = make_trainer(seed=3), make_trainer(seed=4)
    fit(one)
    fit(other)
    kernels = [t.model.state_dict()["dense/kernel"] for t in (one, other)]
    assert (kernels[0] != kernels[1]).any()


class Script:
    """One and the same program, run anew after every stop."""

    def __init__(self, optimizer, folder, **options) -> None:
        # Twelve steps a epoch: the schedule is in full swing at every stop.
        self.trainer = make_trainer(
            model=network(),
            loss=CrossEntropy(label_smoothing=0.1),
            optimizer=optimizer(),
            callbacks=[EarlyStopping(patience=9), *options.pop("callbacks", ())],
            seed=5,
        )
        self.options = options | {
            "augment": Compose([Shift(1), Cutout(2)]),
            "checkpoint_dir": folder,
            "resume": True,
        }

    def run(self, epochs: int) -> Trainer:
        fit(self.trainer, epochs, **self.options)
        return self.trainer


SCHEDULE = WarmUp(Cosine(0.05, steps=30), steps=10)
OPTIMIZERS = [
    lambda: SGD(SCHEDULE, momentum=0.9, nesterov=True, weight_decay=1e-3, clip_norm=1.0),
    lambda: AdamW(SCHEDULE, clip_norm=1.0),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
def test_a_resumed_training_is_the_same_bit_for_bit(optimizer, tmp_path):
    straight = Script(optimizer, tmp_path / "straight").run(5)
    Script(optimizer, tmp_path / "stopped").run(2)
    resumed = Script(optimizer, tmp_path / "stopped").run(5)
    assert_same_training(resumed, straight)


def test_a_trainer_made_of_the_checkpoint_alone_continues_bit_for_bit(tmp_path):
    straight = Script(OPTIMIZERS[0], tmp_path / "straight").run(5)
    Script(OPTIMIZERS[0], tmp_path / "stopped").run(2)
    trainer = Trainer.resume(
        tmp_path / "stopped", callbacks=[EarlyStopping(patience=9)], progress=False
    )
    assert trainer.epoch == 2 and trainer.normalize == NORMALIZE
    trainer.fit(X, Y, epochs=3, batch_size=16, augment=Compose([Shift(1), Cutout(2)]))
    assert_same_training(trainer, straight)


def test_the_restored_weights_of_the_best_epoch_survive_a_stop(tmp_path):
    """Early stopping gives back epoch 1's weights, though it was restarted after epoch 2."""

    def spoil(epoch, record):
        record["score"] = -epoch

    def script() -> Trainer:
        trainer = make_trainer(
            callbacks=[
                LambdaCallback(on_epoch_end=spoil),
                EarlyStopping("score", mode="max", patience=3),
            ]
        )
        return trainer

    first = script()
    fit(first, 1)
    best = first.model.state_dict()
    fit(script(), 2, checkpoint_dir=tmp_path)
    resumed = script()
    fit(resumed, 20, checkpoint_dir=tmp_path, resume=True)
    assert resumed.epoch == 4
    assert_same_arrays(resumed.model.state_dict(), best)


def test_a_stopped_training_stays_stopped(tmp_path):
    def script() -> Trainer:
        callback = EarlyStopping("loss", patience=1, min_delta=100.0)
        return make_trainer(callbacks=[callback])

    fit(script(), 9, checkpoint_dir=tmp_path)
    again = script()
    fit(again, 9, checkpoint_dir=tmp_path, resume=True)
    assert again.epoch == 2


def test_fit_goes_on_where_it_was():
    straight, twice = make_trainer(), make_trainer()
    fit(straight, 3)
    fit(twice, 1)
    fit(twice, 2)
    assert twice.history["epoch"] == [1, 2, 3]
    assert_same_training(twice, straight)


def test_resume_with_no_checkpoint_starts_anew(tmp_path):
    one, other = make_trainer(), make_trainer()
    fit(one)
    fit(other, checkpoint_dir=tmp_path / "new", resume=True)
    assert_same_training(other, one)
    assert (tmp_path / "new" / "last.json").is_file()


# ---- it is stopped -------------------------------------------------------------------------------


class StopsAt(Callback):
    """Raises in the second batch of an epoch, as Ctrl-C does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_batch_end(self, batch: int) -> None:
        if self.trainer.epoch + 1 == self.epoch and batch == 2:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_last_checkpoint(tmp_path, capsys):
    straight = Script(OPTIMIZERS[0], tmp_path / "straight").run(4)
    script = Script(OPTIMIZERS[0], tmp_path / "stopped", callbacks=[StopsAt(3)])
    script.trainer.progress = True
    with pytest.raises(KeyboardInterrupt):
        script.run(4)
    assert script.trainer.epoch == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[-1].startswith("interrupted after 2 of 4 epochs; resume=True ")
    assert str(tmp_path / "stopped" / "last.json") in lines[-1]
    assert script.trainer.model.needs_input_gradient
    assert_same_training(Script(OPTIMIZERS[0], tmp_path / "stopped").run(4), straight)


def test_the_same_trainer_resumes_after_ctrl_c(tmp_path):
    straight = Script(OPTIMIZERS[1], tmp_path / "straight").run(4)
    script = Script(OPTIMIZERS[1], tmp_path / "stopped", callbacks=[StopsAt(3)])
    with pytest.raises(KeyboardInterrupt):
        script.run(4)
    script.trainer.callbacks.pop()
    assert_same_training(script.run(4), straight)


def test_a_loss_that_is_nan_is_an_error_that_names_its_batch(tmp_path):
    class Explode(Callback):
        def on_batch_end(self, batch: int) -> None:
            if self.trainer.epoch == 1 and batch == 3:
                self.trainer.optimizer.learning_rate = 1e38

    trainer = make_trainer(optimizer=SGD(0.01), callbacks=[Explode()])
    with pytest.raises(FloatingPointError, match=r"epoch 2, batch [56]: the loss is (nan|inf)"):
        fit(trainer, 5, checkpoint_dir=tmp_path)
    assert trainer.epoch == 1
    kept = gpucnn.load(tmp_path)
    assert all(np.isfinite(value).all() for value in kept.state_dict().values())


def test_a_target_that_is_nan_is_found_in_validation():
    trainer = make_trainer(model=gpucnn.Sequential([gpucnn.Dense(1, input_shape=(2,))]), loss="mse")
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1))
    with pytest.raises(FloatingPointError, match="validation of epoch 1, batch 1: the loss is nan"):
        trainer.fit(x, y, epochs=1, validation=(x, y * np.nan))


def test_stop_training_ends_after_the_epoch():
    class Stop(Callback):
        def on_epoch_end(self, epoch, record):
            self.trainer.stop_training = epoch == 2

    trainer = make_trainer(callbacks=[Stop()])
    fit(trainer, 5)
    assert trainer.epoch == 2


# ---- it does not wait for the device -------------------------------------------------------------


def test_values_are_read_at_the_end_of_an_epoch_and_seldom_before(monkeypatch):
    """All at once, after the training batches and after the validation's; nothing else is read."""
    reads = []
    download = Transfers.download
    monkeypatch.setattr(
        Transfers, "download", lambda *arguments: reads.append(1) or download(*arguments)
    )
    monkeypatch.setattr(type(get_backend("numpy")), "to_numpy", None)
    monkeypatch.setattr(epochs, "READ_EVERY", 1e9)
    fit(make_trainer(), 1, batch_size=8)
    assert len(reads) == 2
    reads.clear()
    monkeypatch.setattr(epochs, "READ_EVERY", 0.0)
    fit(make_trainer(), 1, batch_size=8)
    assert len(reads) == 14 + 1


def test_the_ranges_of_a_step_are_named():
    names = []

    def observer(subject, what, function, arguments):
        if subject is None:
            names.append(what)
        return function(*arguments)

    with tracing.observing(observer):
        fit(make_trainer(), 1, batch_size=60, validation_split=0.0)
    step = ["data wait", "loss", "optimizer"]
    assert names == [*step, *step, "data wait"]


def test_reading_often_changes_nothing(monkeypatch):
    seldom, often = make_trainer(), make_trainer()
    fit(seldom)
    monkeypatch.setattr(epochs, "READ_EVERY", 0.0)
    fit(often)
    assert_same_training(often, seldom)
