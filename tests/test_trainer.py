"""The trainer: it learns, repeats and resumes bit for bit, and refuses bad input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest

import gpucnn
from gpucnn import trainer as trainer_module
from gpucnn.backends import get_backend, use_backend
from gpucnn.callbacks import Callback, EarlyStopping, LambdaCallback
from gpucnn.data import Compose, Cutout, Loader, Normalize, Shift, Split
from gpucnn.losses import CrossEntropy
from gpucnn.optimizers import SGD, Adam, AdamW
from gpucnn.samples import Samples, divide
from gpucnn.schedules import Cosine, WarmUp
from gpucnn.trainer import Trainer

from .training import assert_same_arrays, measured, network, stripes

X, Y = stripes(120)
NORMALIZE = Normalize(100.0, 50.0)


@pytest.fixture(autouse=True)
def on_numpy() -> Iterator[None]:
    with use_backend("numpy"):
        yield


def make_trainer(**options) -> Trainer:
    model = options.pop("model", None) or network()
    return Trainer(model, **({"optimizer": Adam(0.01), "progress": False} | options))


def fit(trainer: Trainer, epochs: int = 2, **options) -> gpucnn.history.History:
    options = {"batch_size": 16, "normalize": NORMALIZE, "prefetch": 0} | options
    return trainer.fit(*options.pop("data", (X, Y)), epochs=epochs, **options)


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


def assert_same_training(actual: Trainer, expected: Trainer) -> None:
    assert_same_arrays(actual.model.state_dict(), expected.model.state_dict())
    assert measured(actual.history) == measured(expected.history)
    assert actual.optimizer.steps == expected.optimizer.steps
    for name, slots in expected.optimizer.slots.items():
        assert_same_arrays(actual.optimizer.slots[name], slots)


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
    """Two values, once after the training batches and once after the validation's."""
    reads = []
    backend = get_backend("numpy")
    to_numpy = type(backend).to_numpy
    monkeypatch.setattr(
        type(backend), "to_numpy", lambda self, array: reads.append(1) or to_numpy(self, array)
    )
    monkeypatch.setattr(trainer_module, "READ_EVERY", 1e9)
    fit(make_trainer(), 1, batch_size=8)
    assert len(reads) == 4
    reads.clear()
    monkeypatch.setattr(trainer_module, "READ_EVERY", 0.0)
    fit(make_trainer(), 1, batch_size=8)
    assert len(reads) == 2 * 14 + 2


def test_the_ranges_of_a_step_are_named(monkeypatch):
    names = []
    monkeypatch.setattr(
        trainer_module, "nvtx_range", lambda name: names.append(name) or nullcontext()
    )
    fit(make_trainer(), 1, batch_size=60, validation_split=0.0)
    assert names == ["data wait", "optimizer", "data wait", "optimizer", "data wait"]


def test_reading_often_changes_nothing(monkeypatch):
    seldom, often = make_trainer(), make_trainer()
    fit(seldom)
    monkeypatch.setattr(trainer_module, "READ_EVERY", 0.0)
    fit(often)
    assert_same_training(often, seldom)


# ---- data ----------------------------------------------------------------------------------------


def test_arrays_a_split_and_a_loader_are_one(tmp_path):
    held_out = stripes(30, seed=1)
    trainers = [make_trainer() for _ in range(3)]
    fit(trainers[0], validation=held_out)
    fit(trainers[1], data=(Split(X, Y),), validation=Split(*held_out))
    loader = Loader(Split(X, Y), 16, normalize=NORMALIZE)
    trainers[2].fit(loader, epochs=2, validation=Loader(Split(*held_out), 7, normalize=NORMALIZE))
    assert_same_arrays(trainers[1].model.state_dict(), trainers[0].model.state_dict())
    assert_same_arrays(trainers[2].model.state_dict(), trainers[0].model.state_dict())
    assert trainers[2].normalize == NORMALIZE
    np.testing.assert_array_equal(trainers[2].predict(X[:5]), trainers[0].predict(X[:5]))


def test_no_validation():
    trainer = make_trainer()
    fit(trainer, validation_split=0.0)
    assert not any(name.startswith("val_") for name in trainer.history.names)


def test_the_division_is_disjoint_complete_and_by_class():
    data = Samples(np.arange(90), np.repeat([0, 1, 2], 30))
    rest, part = divide(data, 0.2, seed=1)
    assert len(rest) == 72 and len(part) == 18
    assert sorted([*rest.images, *part.images]) == list(range(90))
    assert np.bincount(part.labels).tolist() == [6, 6, 6]
    again, other = divide(data, 0.2, seed=1)[1], divide(data, 0.2, seed=2)[1]
    np.testing.assert_array_equal(again.images, part.images)
    assert (other.images != part.images).any()


def test_targets_that_are_no_labels_are_divided_too():
    rest, part = divide(Samples(np.arange(50), np.linspace(0, 1, 50)), 0.3, seed=0)
    assert len(part) == 15 and sorted([*rest.images, *part.images]) == list(range(50))
    assert divide(Samples(np.arange(3), np.arange(3)), 0.1, seed=0)[1] is None


def test_evaluate_is_the_mean_over_the_samples():
    trainer = make_trainer()
    fit(trainer, 1)
    x, y = stripes(50, seed=2)
    logits = trainer.predict(x).astype(np.float64)
    loss = np.log(np.exp(logits).sum(-1)) - logits[np.arange(50), y]
    for batch_size in (50, 16, 7):
        values = trainer.evaluate(x, y, batch_size=batch_size)
        assert values["loss"] == pytest.approx(loss.mean(), rel=1e-5)
        assert values["accuracy"] == pytest.approx((logits.argmax(-1) == y).mean(), abs=1e-12)


def test_the_history_holds_means_over_the_epoch():
    """With a rate of zero nothing changes, and training and evaluation must agree."""
    model = gpucnn.Sequential([gpucnn.Flatten(input_shape=(8, 6, 1)), gpucnn.Dense(3)])
    trainer = make_trainer(model=model, optimizer=SGD(0.0))
    record = fit(trainer, 1, validation_split=0.0, batch_size=32).records[0]
    values = trainer.evaluate(X, Y)
    assert record["loss"] == pytest.approx(values["loss"], rel=1e-6)
    assert record["accuracy"] == pytest.approx(values["accuracy"], rel=1e-12)


def test_the_learning_rate_of_the_history_is_that_of_the_last_step():
    trainer = make_trainer(optimizer=SGD(Cosine(0.1, steps=14)))
    fit(trainer)  # 108 of 120 samples in batches of 16: 7 steps an epoch
    assert trainer.history["learning_rate"] == [Cosine(0.1, 14)(6), Cosine(0.1, 14)(13)]


def test_a_network_that_is_not_built_is_built_for_the_data():
    def train(**options) -> Trainer:
        gpucnn.set_seed(3)
        model = gpucnn.Sequential([gpucnn.Flatten(), gpucnn.Dense(3)], **options)
        trainer = make_trainer(model=model)
        fit(trainer, normalize=None, data=(X / 255, Y))  # float64
        return trainer

    assert_same_training(train(), train(input_shape=(8, 6, 1)))


def test_a_function_is_a_metric():
    def mean_logit(prediction, target):
        return prediction.mean()

    trainer = make_trainer(metrics=["accuracy", mean_logit])
    fit(trainer, 1)
    x, y = stripes(40, seed=1)
    expected = trainer.predict(x).mean()
    assert trainer.evaluate(x, y)["mean_logit"] == pytest.approx(expected, rel=1e-4)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((X, Y[:-1]), {}, r"Trainer.fit: x and y .*\(120, 8, 6, 1\), y of shape \(119,\)"),
        ((X[:0], Y[:0]), {}, r"at least one\. Received: x of shape \(0, 8, 6, 1\)"),
        ((X, None), {}, "Trainer.fit: y, the targets of x, must be given"),
        ((Split(X, Y), Y), {}, "Trainer.fit: a Split holds its labels"),
        ((Loader(Split(X, Y), 9),), {}, "Trainer.fit: a Loader has .* normalisation of its own"),
        ((X, Y + 1), {}, "CrossEntropy: labels must be 0 to 2, .* 3 classes .*label 3 at index 2"),
        ((X, Y[:, None]), {}, r"CrossEntropy: .*int64 of shape \(120, 1\)"),
        ((X[:, :7], Y), {}, r"\(7, 6, 1\)"),
        ((X, Y), {"epochs": 0}, "Trainer.fit: epochs must be .*Received: epochs=0"),
        ((X, Y), {"batch_size": 0}, "batch_size must be .*Received: batch_size=0"),
        ((X, Y), {"validation_split": 1.0}, "validation_split must be a number in .*1.0"),
        ((X, Y), {"resume": True}, "Trainer.fit: resume needs checkpoint_dir"),
        ((X, Y), {"validation": (X, Y[1:])}, r"x and y .*y of shape \(119,\)"),
        ((X, Y), {"validation": (X, Y + 1)}, "CrossEntropy: labels must be 0 to 2"),
    ],
)
def test_bad_input_is_named(data, options, message):
    with pytest.raises(ValueError, match=message):
        fit(make_trainer(), **({"data": data, "epochs": 1} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": gpucnn.Dense(3)}, r"Trainer: model must be a network .*Received: Dense\("),
        ({"loss": CrossEntropy}, "loss must be a name or an instance of Loss.*CrossEntropy"),
        ({"optimizer": Adam}, "optimizer must be a name or an instance of Optimizer"),
        ({"callbacks": Callback()}, "Trainer: callbacks must be a list"),
        ({"callbacks": [Callback]}, "Trainer: callbacks must be a list"),
    ],
)
def test_a_part_that_is_none_is_named(options, message):
    with pytest.raises(TypeError, match=message):
        make_trainer(**options)


def test_a_backend_is_a_name_or_an_object():
    with pytest.raises(ValueError, match=r'backend must be "numpy" or "cuda". Received: 3'):
        make_trainer(backend=3)


def test_the_name_of_one_metric():
    assert list(make_trainer(metrics="accuracy").metrics) == ["accuracy"]


def test_a_data_set_is_asked_for_one_of_its_splits():
    digits = gpucnn.data.load("digits")
    with pytest.raises(TypeError, match=r"Trainer\.evaluate: give one of its splits, \.train or"):
        make_trainer().evaluate(digits)


def test_targets_that_do_not_fit_leave_the_statistics_as_they_were():
    trainer = make_trainer()
    fit(trainer, 1)
    before = trainer.model.state_dict()
    assert any("moving_mean" in path for path in before)
    with pytest.raises(ValueError, match="CrossEntropy: the target must hold integer labels"):
        fit(trainer, data=(X, Y.astype(float)))
    after = trainer.model.state_dict()
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_a_normalisation_that_no_checkpoint_can_keep_is_refused():
    with pytest.raises(
        TypeError, match=r"Trainer\.fit: normalize must be a gpucnn\.data\.Normalize"
    ):
        fit(trainer := make_trainer(), normalize=lambda images: images / 255)
    assert trainer.normalize is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of 'cross_entropy'.*Received: 'hinge'"),
        ({"optimizer": "newton"}, "optimizer must be one of 'sgd'.*Received: 'newton'"),
        ({"metrics": ["beauty"]}, "metrics must be of accuracy.*Received: 'beauty'"),
        ({"seed": -1}, "Trainer: seed must be .*Received: seed=-1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)
