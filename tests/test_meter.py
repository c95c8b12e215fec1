"""The meter: exact means, without waiting, and the batch of a bad loss."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from gpucnn.backends import get_backend
from gpucnn.backends.transfers import Transfers
from gpucnn.meter import Meter
from gpucnn.varying import kept_by


def make(names, backend, **options) -> Meter:
    meter = Meter(names, backend, **options)
    meter.begin("epoch 1")
    return meter


def test_batches_weigh_by_their_samples(backend):
    meter = make(("loss", "accuracy"), backend)
    value = backend.xp.asarray
    meter.add(3, [value(np.float32(1.0)), value(0.5)])
    assert meter.read() == {"loss": 1.0, "accuracy": 0.5}
    meter.add(1, [value(np.float32(5.0)), value(1.0)])
    meter.add(4, [value(np.float32(0.0)), value(0.0)])
    assert meter.read() == {"loss": 1.0, "accuracy": 2.5 / 8}
    assert meter.read() == {"loss": 1.0, "accuracy": 2.5 / 8}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_batch_of_a_bad_loss_is_named(backend, bad):
    meter = Meter(("loss",), backend)
    meter.begin("epoch 7")
    meter.add(1, [backend.xp.asarray(1.0)])
    meter.read()
    for loss in (1.0, bad, 1.0):
        meter.add(1, [backend.xp.asarray(loss)])
    with pytest.raises(FloatingPointError, match=f"epoch 7, batch 3: the loss is {bad}"):
        meter.read()
    meter.begin("epoch 8")
    meter.add(2, [backend.xp.asarray(3.0)])
    assert meter.read() == {"loss": 3.0}


@pytest.mark.parametrize("steps", [1, 2, 5, 64])
@pytest.mark.parametrize("glances", [0, 1, 3])
def test_means_are_those_of_a_plain_sum_bit_for_bit(steps, glances):
    """However small the ring is, and however often somebody looks."""
    backend, rng = get_backend("numpy"), np.random.default_rng(steps)
    meter = make(("loss", "accuracy"), backend, steps=steps)
    for epoch in range(2):
        meter.begin(f"epoch {epoch}")
        totals, samples = [0.0, 0.0], 0
        for batch in range(23):
            count, loss, hit = int(rng.integers(1, 9)), np.float32(rng.random()), rng.random()
            meter.add(count, [np.asarray(loss), np.asarray(hit)])
            totals[0] += count * float(loss)
            totals[1] += count * hit
            samples += count
            if glances and batch % glances == 0:
                meter.glance()
        assert list(meter.read().values()) == [total / samples for total in totals]
        assert meter.samples == samples and meter.batches == 23


class LateTransfers(Transfers):
    """What was asked for arrives when the test says so, or when somebody waits."""

    def __init__(self) -> None:
        self.marks = []

    def download(self, device, host):
        self.marks.append(LateMark(partial(np.copyto, host, device.copy())))
        return self.marks[-1]


class LateMark:
    def __init__(self, arrive) -> None:
        self.done, self.waits, self._arrive = False, 0, arrive

    def arrive(self) -> None:
        self._arrive()
        self.done = True

    def synchronize(self) -> None:
        if not self.done:
            self.waits += 1
            self.arrive()


@pytest.fixture
def late(monkeypatch) -> LateTransfers:
    transfers = LateTransfers()
    monkeypatch.setattr(type(get_backend("numpy")), "transfers", lambda self: transfers)
    return transfers


def test_a_glance_never_waits_and_is_one_glance_late(late):
    meter = make(("loss",), get_backend("numpy"))
    meter.add(1, [np.array(1.0)])
    assert meter.glance() == {}
    meter.add(1, [np.array(2.0)])
    assert meter.glance() == {} and len(late.marks) == 1
    late.marks[0].arrive()
    assert meter.glance() == {"loss": 1.0} and len(late.marks) == 2
    assert meter.samples == meter.batches == 1
    meter.add(1, [np.array(6.0)])
    assert sum(mark.waits for mark in late.marks) == 0
    assert meter.read() == {"loss": 3.0}
    assert sum(mark.waits for mark in late.marks) == 2  # for the second, and for what came after


def test_no_value_is_lost_where_nobody_looks(late):
    meter = make(("loss",), get_backend("numpy"), steps=8)
    for step in range(50):
        meter.add(1, [np.array(float(step))])
    assert max(mark.waits for mark in late.marks) == 1 and len(late.marks) > 50 // 8
    assert meter.read() == {"loss": 24.5}


def test_what_an_interrupted_epoch_left_is_forgotten(late):
    meter = make(("loss",), get_backend("numpy"), steps=8)
    for _ in range(5):
        meter.add(1, [np.array(np.nan)])
    meter.begin("epoch 2")
    meter.add(2, [np.array(4.0)])
    assert meter.glance() == {}
    assert meter.read() == {"loss": 4.0}


def test_a_recorded_step_writes_where_the_host_says(backend):
    """The row lies in device memory; a replay finds the next one there."""
    rows, value = [], backend.asarray(np.array(0.0))

    def keep(number, dtype):
        rows.append((number, backend.asarray(np.zeros((), dtype))))
        return rows[-1][1]

    meter = make(("loss",), backend, steps=4)
    with kept_by(keep):
        meter.write([value])
    ((next_row, place),) = rows
    for step in range(6):  # six replays
        place[...], value[...] = next_row(), step + 1.0
        backend.collect([value], meter._ring, place)
        meter.count(1)
    assert meter.read() == {"loss": 3.5}
