"""What a trainer takes: data in each of its forms; bad input is named."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import gpucnn
from gpucnn.backends import use_backend
from gpucnn.callbacks import Callback
from gpucnn.data import Loader, Split
from gpucnn.losses import CrossEntropy
from gpucnn.optimizers import SGD, Adam
from gpucnn.samples import Samples, divide
from gpucnn.schedules import Cosine
from gpucnn.trainer import Trainer

from .training import (
    NORMALIZE,
    X,
    Y,
    assert_same_arrays,
    assert_same_training,
    fit,
    make_trainer,
    stripes,
)


@pytest.fixture(autouse=True)
def on_numpy() -> Iterator[None]:
    with use_backend("numpy"):
        yield


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


class OnGpu:
    """An array as CuPy's are: NumPy may not convert it, and ``get`` copies it to the host."""

    __cuda_array_interface__ = None

    def __init__(self, array):
        self.array = array

    def get(self):
        return self.array.copy()

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


OnGpu.__module__, OnGpu.__name__ = "cupy", "ndarray"


def test_arrays_on_a_gpu_are_copied_to_the_host():
    ours, expected = make_trainer(), make_trainer()
    for trainer, as_given in ((ours, OnGpu), (expected, np.asarray)):
        trainer.fit(as_given(X), as_given(Y), epochs=1, batch_size=16)
        trainer.scores = trainer.evaluate((as_given(X), as_given(Y)))
        trainer.predicted = trainer.predict(as_given(X[:3]))
    assert_same_training(ours, expected)
    assert ours.scores == expected.scores
    np.testing.assert_array_equal(ours.predicted, expected.predicted)


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


def test_a_metric_of_more_than_one_number_is_named():
    def means(prediction, target):
        return prediction.mean(axis=0)

    with pytest.raises(ValueError, match=r"the metric 'means' must give one number.*Received: "):
        fit(make_trainer(metrics=[means]))


def test_a_rate_factor_for_no_parameter_is_named():
    with pytest.raises(ValueError, match=r"SGD: each pattern of rate_factors .*'\*/gama'"):
        fit(make_trainer(optimizer=SGD(0.1, rate_factors={"*/gama": 2.0})))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of 'cross_entropy'.*Received: 'hinge'"),
        ({"optimizer": "newton"}, "optimizer must be one of 'adam'.*Received: 'newton'"),
        ({"metrics": ["beauty"]}, "metrics must be of accuracy.*Received: 'beauty'"),
        ({"seed": -1}, "Trainer: seed must be .*Received: seed=-1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)
