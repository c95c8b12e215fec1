"""Losses with their gradients, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.backends.base import POINTWISE_LOSSES, accumulator
from tests import reference
from tests.cases import DTYPES, random
from tests.operations.conftest import inside_another, same_bits
from tests.tolerance import assert_close

ROUNDINGS = 16


def check_cross_entropy(
    run, logits: np.ndarray, targets: np.ndarray, smoothing: float, scale: float
) -> None:
    classes = logits.shape[1]
    losses, dlogits, hits = run("softmax_cross_entropy", logits, targets, smoothing, scale)
    exact_losses, exact = reference.softmax_cross_entropy(logits, targets, smoothing, scale)
    labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
    assert hits.tolist() == (logits.argmax(axis=1) == labels).tolist()
    p, log_p = reference.softmax_forward(logits), reference.softmax_forward(logits, log=True)
    x = logits.astype(np.float64)
    exponent = np.abs(x) + np.abs(x.max(axis=1, keepdims=True)) + np.abs(log_p) + 1
    reduction = classes + ROUNDINGS
    # every term of the loss is a target, which are 1 together, times a logarithm
    assert_close(
        losses, exact_losses, dtype=accumulator(logits.dtype), reduction=reduction,
        magnitude=2 * exponent.max(axis=1), what="losses",
    )  # fmt: skip
    assert_close(
        dlogits, exact, dtype=logits.dtype, reduction=reduction,
        magnitude=abs(scale) * (p * exponent + 1), what="dlogits",
    )  # fmt: skip


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", ["int32", "int64", "probabilities"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(7, 10), (1, 3), (3, 1029), (11, 301), (3, 1024), (5, 1), (300, 2)]
)
def test_cross_entropy(run, shape, dtype, targets, smoothing):
    logits = random("logits", shape, DTYPES[dtype], -9, 9)
    if targets == "probabilities":
        chosen = reference.softmax_forward(random("targets", shape, np.float64, -3, 3))
        chosen = chosen.astype(DTYPES[dtype])
    else:
        chosen = random("labels", shape[:1], np.float64, 0, shape[1]).astype(targets)
        chosen[0], chosen[-1] = 0, shape[1] - 1
    check_cross_entropy(run, logits, chosen, smoothing, scale=1 / shape[0])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_logits_that_begin_inside_others_give_the_same_bits(every_backend, dtype):
    logits = random("logits", (5, 504), DTYPES[dtype], -9, 9)
    labels = every_backend.asarray(np.array([0, 503, 7, 8, 300], np.int64))
    got = [
        every_backend.softmax_cross_entropy(place, labels, 0.1, 1.0)
        for place in (every_backend.asarray(logits), inside_another(every_backend, logits))
    ]
    for whole, apart in zip(*got, strict=True):
        assert same_bits(*map(every_backend.to_numpy, (whole, apart)))


def test_many_rows(run):
    logits = random("logits", (135, 1001), np.float32, -9, 9)
    labels = random("labels", (135,), np.float64, 0, 1001).astype(np.int64)
    check_cross_entropy(run, logits, labels, 0.1, 1.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", ["int32", "int64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_label_out_of_range_makes_its_row_nan_and_no_other(run, dtype, labels, smoothing):
    logits = random("logits", (6, 5), DTYPES[dtype])
    far = np.iinfo(labels)
    targets = np.array([0, -1, 4, 5, far.min, far.max], labels)
    losses, dlogits, _ = run("softmax_cross_entropy", logits, targets, smoothing, 1.0)
    wrong = [False, True, False, True, True, True]
    assert np.isnan(losses).tolist() == wrong
    assert np.isnan(dlogits.astype(np.float64)).all(axis=1).tolist() == wrong
    check_cross_entropy(run, logits, targets, smoothing, 1.0)


def test_cross_entropy_of_large_logits(run):
    logits = np.array([[1e4, -1e4, 0], [3e4, 3e4, -3e4]], np.float32)
    for labels in ([0, 1], [1, 2]):
        check_cross_entropy(run, logits, np.array(labels, np.int32), 0.0, 1.0)


def test_a_masked_class_that_is_not_the_label_costs_nothing(run):
    logits = np.array([[-np.inf, 1, 2], [0.5, -np.inf, 3]], np.float32)
    targets = np.array([1, 2], np.int32)
    losses, dlogits, _ = run("softmax_cross_entropy", logits, targets, 0.0, 1.0)
    exact_losses, exact = reference.softmax_cross_entropy(logits, targets, 0.0, 1.0)
    assert_close(losses, exact_losses, dtype=np.float32, reduction=ROUNDINGS, magnitude=8)
    assert_close(dlogits, exact, dtype=np.float32, reduction=ROUNDINGS, magnitude=2)


def test_cross_entropy_of_no_rows(run):
    logits = np.zeros((0, 4), np.float16)
    losses, dlogits, hits = run("softmax_cross_entropy", logits, np.zeros(0, np.int64), 0.1, 1.0)
    assert_close(losses, np.zeros(0, np.float32))
    assert_close(dlogits, logits)
    assert hits.shape == (0,)


@pytest.mark.parametrize("targets", ["int64", "probabilities"])
@pytest.mark.parametrize("classes", [5, 40, 300, 1100])
def test_of_equal_logits_the_first_counts_and_a_nan_is_the_largest(run, classes, targets):
    logits = np.zeros((6, classes), np.float32)
    logits[1:, 3] = logits[1:, -1] = 2
    logits[3, 1] = logits[3, 4] = np.nan
    logits[4, -1], logits[5, 0] = np.inf, -np.inf
    labels = np.array([0, 3, classes - 1, 1, classes - 1, 3])
    chosen = labels
    if targets == "probabilities":
        chosen = np.zeros(logits.shape, np.float32)
        chosen[np.arange(6), labels] = chosen[:, -1] = 0.5  # two alike
    _, _, hits = run("softmax_cross_entropy", logits, chosen, 0.0, 1.0)
    assert hits.tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (7, 37), (8192,), (3, 11111)])
def test_means(run, shape, dtype):
    losses = random("losses", shape, dtype, 0, 3)
    hits = random("hits", shape, np.float64) > 0.4
    mean, share = run("loss_means", losses, hits)
    exact = losses.astype(np.float64)
    assert_close(mean, exact.mean().astype(dtype), reduction=losses.size, magnitude=exact.mean())
    assert (share.dtype, share.item()) == (np.float64, hits.mean())
    alone, nothing = run("loss_means", losses)
    assert same_bits(alone, mean)
    assert nothing is None


@pytest.mark.parametrize("kind", sorted(POINTWISE_LOSSES))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 3, 11), (1, 1), (7, 101), (135, 1001)])
def test_pointwise(run, kind, dtype, shape):
    z = random("z", shape, np.float64, -4, 4)
    t = random("t", shape, np.float64, 0, 1)
    z.ravel()[::5] = t.ravel()[::5]  # no difference: the slope of mae is 0
    z, t = z.astype(DTYPES[dtype]), t.astype(DTYPES[dtype])
    losses, dz = run("pointwise_loss", z, t, kind, 0.25)
    exact_losses, exact_dz = reference.pointwise_loss(z, t, kind, 0.25)
    size = np.abs(z.astype(np.float64)) + np.abs(t.astype(np.float64)) + 1
    assert_close(
        losses, exact_losses, dtype=accumulator(z.dtype), reduction=ROUNDINGS, magnitude=size**2
    )
    assert_close(dz, exact_dz, dtype=z.dtype, reduction=ROUNDINGS, magnitude=0.25 * 2 * size)


def test_bce_of_large_logits(run):
    z = np.array([100, -100, 1e4, -1e4, 1e4, -1e4], np.float32)
    t = np.array([0, 1, 0, 1, 1, 0], np.float32)
    losses, dz = run("pointwise_loss", z, t, "bce_logits", 1.0)
    assert losses.tolist() == [100, 100, 1e4, 1e4, 0, 0]
    assert dz.tolist() == [1, -1, 1, -1, 0, 0]


@pytest.mark.parametrize("kind", sorted(POINTWISE_LOSSES))
def test_pointwise_of_nothing(run, kind):
    empty = np.zeros((0, 3), np.float16)
    losses, dz = run("pointwise_loss", empty, empty, kind, 1.0)
    assert_close(losses, np.zeros((0, 3), np.float32))
    assert_close(dz, empty)
