"""Metrics, by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.metrics import accuracy, binary_accuracy, confusion_matrix, named, top_5_accuracy


def test_accuracy_counts_the_largest(backend):
    prediction = backend.asarray(np.array([[1.0, 2.0], [5.0, 4.0], [0.0, 1.0], [2.0, 1.0]]))
    labels = np.array([1, 0, 0, 0])
    assert float(accuracy(prediction, backend.asarray(labels))) == 0.75
    assert float(accuracy(prediction, backend.asarray(np.eye(2)[labels]))) == 0.75


@pytest.mark.parametrize("shape", [(40, 12), (5, 8, 12), (6, 3)])
def test_top_5_against_sorting(backend, shape):
    rng = np.random.default_rng(0)
    prediction = rng.standard_normal(shape).astype(np.float32)
    labels = rng.integers(0, shape[-1], shape[:-1])
    best = np.argsort(-prediction, axis=-1)[..., :5]
    expected = np.mean([label in row for label, row in zip(
        labels.ravel(), best.reshape(-1, best.shape[-1]), strict=True)])  # fmt: skip
    value = top_5_accuracy(backend.asarray(prediction), backend.asarray(labels))
    assert float(value) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, np.nan])
def test_a_network_that_says_the_same_of_all_gets_no_credit(constant):
    assert top_5_accuracy(np.full((10, 20), constant), np.arange(10)) == 0.0


def test_binary_accuracy_is_of_signs(backend):
    logits = backend.asarray(np.array([[0.3, -2.0], [1.5, -0.1]]))
    target = backend.asarray(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert float(binary_accuracy(logits, target)) == 0.75


def test_confusion_matrix_against_a_loop():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    expected = np.zeros((6, 6), int)
    for label, guess in zip(labels, predicted, strict=True):
        expected[label, guess] += 1
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 6), expected)
    np.testing.assert_array_equal(confusion_matrix(labels, predicted), expected[:4, :4])


@pytest.mark.parametrize(
    ("labels", "predicted", "classes", "message"),
    [
        ([0, 1], [0], None, r"equally many\. Received: int64 \(2,\) and int64 \(1,\)"),
        ([0.5], [1], None, "must be integers .*float64"),
        ([0, 3], [0, 1], 3, "must be 0 to 2. Received: 0 to 3"),
        ([0, -1], [0, 1], None, "Received: -1 to 1"),
    ],
)
def test_confusion_matrix_refuses(labels, predicted, classes, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(labels), np.array(predicted), classes)


def test_metrics_by_name():
    assert named(["accuracy", abs]) == {"accuracy": accuracy, "abs": abs}
    twice = [lambda prediction, target: 0.0] * 2
    with pytest.raises(ValueError, match=r"names of their own\. Received: '<lambda>' twice"):
        named(twice)
