"""Batches of pictures, and a step's values: the same bits on every backend."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from gpucnn import functional as F
from gpucnn.changes import UNCHANGED, Changes
from gpucnn.data import Normalize
from tests import reference
from tests.cases import DTYPES

from .conftest import inside_another, same_bits

CHANGES = {
    "none": UNCHANGED,
    "shift": Changes(shift=2, fill=200),
    "shift_beyond": Changes(shift=9),
    "mirrored": Changes(shift=3, fill=None),
    "mirrored_whole": Changes(shift=5, fill=None),
    "flip": Changes(flip=0.5),
    "always_flip": Changes(flip=1.0),
    "alternating": Changes(alternating=True),
    "cutout": Changes(cutout=4, cover=99),
    "cutout_odd": Changes(cutout=3),
    "all": Changes(shift=2, fill=None, flip=0.5, cutout=3, cover=7),
    "all_filled": Changes(shift=1, fill=31, flip=0.25, cutout=2, cover=255),
}
SEED, EPOCH = 2**33 + 5, 3


def picture_set(shape: tuple[int, ...], dtype: str = "float32") -> tuple[np.ndarray, ...]:
    """Return images, labels, an order and a table; every byte of a picture tells where it was."""
    rng = np.random.default_rng(sum(shape))
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, 2**40, shape[0])
    order = rng.permutation(shape[0]).astype(np.int32)
    channels = shape[3]
    normalize = Normalize(rng.uniform(90, 140, channels), rng.uniform(40, 80, channels))
    values = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, channels))
    table = normalize(values).astype(DTYPES[dtype])
    return images, labels, order, table


def place(epoch: int, first: int) -> int:
    return epoch * 2**32 + first


def check(run, shape, name, dtype="float32", first=1, count=3):
    images, labels, order, table = picture_set(shape, dtype)
    changes = CHANGES[name]
    got = run(
        "gather_batch", images, labels, order, place(EPOCH, first), count, table, changes, SEED
    )
    expected = reference.gather_batch(
        images, labels, order, EPOCH, first, count, table, SEED, **asdict(changes)
    )
    assert all(map(same_bits, got, expected))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("shape", [(5, 7, 10, 3), (4, 8, 6, 1)])
def test_every_change_has_the_bits_of_the_reference(run, shape, name):
    check(run, shape, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_every_dtype_and_number_of_channels(run, channels, dtype):
    check(run, (4, 5, 9, channels), "all", dtype)


@pytest.mark.parametrize("shape", [(4, 1, 1, 1), (4, 1, 5, 3), (4, 3, 1, 4), (5, 41, 37, 3)])
def test_sizes_of_one_and_of_several_blocks(run, shape):
    check(run, shape, "all_filled")


def test_a_batch_of_one_and_of_all(run):
    check(run, (5, 4, 6, 3), "all", first=4, count=1)
    check(run, (5, 4, 6, 3), "all", first=0, count=5)


def test_normalised_as_the_loader_does(run):
    images, labels, order, table = picture_set((6, 5, 4, 3))
    x, _ = run("gather_batch", images, labels, order, place(0, 0), 6, table, UNCHANGED, 0)
    assert same_bits(x, table[images[order], np.arange(3)])


def batches(backend, sizes, changes=CHANGES["all"], epoch=EPOCH, seed=SEED):
    """Cut one epoch into batches of these sizes, and return all of it."""
    images, labels, order, table = map(backend.asarray, picture_set((12, 6, 5, 3)))
    parts, first = [], 0
    for size in sizes:
        at = place(epoch, first)
        x, y = F.gather_batch(images, labels, order, at, size, table, changes, seed=seed)
        parts.append((backend.to_numpy(x), backend.to_numpy(y)))
        first += size
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def test_the_batch_size_changes_nothing(backend):
    whole = batches(backend, [12])
    for sizes in ([1] * 12, [5, 5, 2], [11, 1]):
        assert all(map(same_bits, batches(backend, sizes), whole))


def test_the_epoch_and_the_seed_do(backend):
    drawn = {
        batches(backend, [12], epoch=epoch, seed=seed)[0].tobytes()
        for epoch, seed in ((0, 0), (1, 0), (0, 1), (0, 2**32), (2**31 - 1, 0))
    }
    assert len(drawn) == 5


def test_pictures_are_mirrored_in_turns(backend):
    images, labels, order, table = picture_set((64, 4, 6, 1))
    seen = []
    for epoch in range(3):
        arrays = map(backend.asarray, (images, labels, order))
        x, _ = F.gather_batch(
            *arrays, place(epoch, 0), 64, backend.asarray(table), Changes(alternating=True), seed=4
        )
        plain = table[images[order], np.arange(1)]
        x = backend.to_numpy(x)
        mirrored = (x == plain[:, :, ::-1]).all(axis=(1, 2, 3))
        assert np.array_equal(x[~mirrored], plain[~mirrored])
        seen.append(mirrored)
    assert 16 < seen[0].sum() < 48  # four deviations of sqrt(64 / 4)
    assert np.array_equal(seen[1], ~seen[0]) and np.array_equal(seen[2], seen[0])


def test_a_place_in_memory_is_as_good_as_a_number(backend):
    images, labels, order, table = map(backend.asarray, picture_set((6, 5, 4, 3)))
    at = backend.asarray(np.array(place(4, 2)))
    both = [
        F.gather_batch(images, labels, order, where, 3, table, CHANGES["all"], seed=1)
        for where in (at, place(4, 2))
    ]
    for one, other in zip(*both, strict=True):
        assert same_bits(backend.to_numpy(one), backend.to_numpy(other))


def test_a_set_that_begins_inside_another_array(every_backend):
    images, labels, order, table = picture_set((4, 5, 6, 3))
    moved = [inside_another(every_backend, array) for array in (images, labels, order, table)]
    x, y = F.gather_batch(*moved[:3], place(EPOCH, 0), 4, moved[3], CHANGES["all"], seed=SEED)
    expected = reference.gather_batch(
        images, labels, order, EPOCH, 0, 4, table, SEED, **asdict(CHANGES["all"])
    )
    assert same_bits(every_backend.to_numpy(x), expected[0])
    assert same_bits(every_backend.to_numpy(y), expected[1])


# ---- the draws are as often as they should be ----------------------------------------------------


def chi_square(counts: np.ndarray) -> float:
    """Return by how many standard deviations counts of one likelihood are off."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def one_pixel(backend, changes: Changes, size: int, count: int) -> np.ndarray:
    """Return where the middle pixel of (count) black pictures goes: (count, size, size) boolean."""
    image = np.zeros((1, size, size, 1), np.uint8)
    image[0, size // 2, size // 2] = 1
    table = np.arange(256, dtype=np.float32)[:, None]
    arrays = image, np.zeros(1, np.int64), np.zeros(count, np.int32)
    images, labels, order = map(backend.asarray, arrays)
    x, _ = F.gather_batch(
        images, labels, order, place(1, 0), count, backend.asarray(table), changes, seed=11
    )
    return backend.to_numpy(x)[..., 0] != 0


def test_every_shift_is_equally_likely(backend):
    seen = one_pixel(backend, Changes(shift=2), 5, 10000)
    assert (seen.sum(axis=(1, 2)) == 1).all()
    assert abs(chi_square(seen.sum(axis=0).ravel())) < 4  # all 25 places, of both axes at once


def test_every_centre_is_equally_likely(backend):
    seen = one_pixel(backend, Changes(cutout=1, cover=9), 5, 10000)
    seen[:, 2, 2] &= seen.sum(axis=(1, 2)) == 1  # shows itself unless another place is covered
    assert abs(chi_square(seen.sum(axis=0).ravel())) < 4


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_as_many_are_flipped_as_should_be_whatever_their_shift(backend, p):
    count = 10000
    row = np.arange(1, 8, dtype=np.uint8)[:, None]  # (W, C)
    image = np.broadcast_to(row, (1, 7, 7, 1)).copy()
    table = np.arange(256, dtype=np.float32)[:, None]
    arrays = image, np.zeros(1, np.int64), np.zeros(count, np.int32)
    images, labels, order = map(backend.asarray, arrays)
    x, _ = F.gather_batch(
        images, labels, order, 0, count, backend.asarray(table), Changes(shift=1, flip=p), seed=2
    )
    row = backend.to_numpy(x)[:, 3, :, 0]
    flipped = row[:, 3] < row[:, 2]
    right = row[:, 3] - 4
    for move in (-1, 0, 1):
        own = flipped[right == move]
        error = np.sqrt(p * (1 - p) / own.size)
        assert abs(own.mean() - p) < 4 * error


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": np.zeros((3, 2, 2, 1))}, TypeError, "images must be uint8. Received: float64"),
        ({"labels": np.zeros(3, np.int32)}, TypeError, "labels must be int64. Received: int32"),
        ({"order": np.arange(3)}, TypeError, "order must be int32. Received: int64"),
        ({"table": np.zeros((256, 1), int)}, TypeError, "table must be one of float16.*int64"),
        ({"table": np.zeros((256, 2))}, ValueError, r"table \(256, C\).*table \(256, 2\)"),
        ({"labels": np.zeros(2, np.int64)}, ValueError, r"labels \(M,\).*labels \(2,\)"),
        ({"place": 2}, ValueError, "within the order of 3.*Received: place=2.*count=2"),
        ({"place": -1}, ValueError, "Received: place=-1"),
        ({"count": 0}, ValueError, "count must be an integer of at least 1"),
        ({"changes": Changes(shift=2, fill=None)}, ValueError, "mirrored by less.*of 2x2"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {
        "images": np.zeros((3, 2, 2, 1), np.uint8), "labels": np.zeros(3, np.int64),
        "order": np.arange(3, dtype=np.int32), "place": 0, "count": 2,
        "table": np.zeros((256, 1), np.float32),
    } | change  # fmt: skip
    with pytest.raises(error, match=f"gather_batch: .*{message}"):
        F.gather_batch(**arguments)


# ---- a step's values -----------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 3, 8, 11])
def test_values_go_into_their_row(every_backend, columns):
    backend = every_backend
    values = [np.float32(0.1), np.float64(0.1), np.float16(0.1), np.mean([True, False, True])]
    values = [np.array(values[i % 4] + i) for i in range(columns)]
    ring = backend.asarray(np.full((3, columns), -1.0))
    F.collect([backend.asarray(value) for value in values], ring, 1)
    row = backend.asarray(np.array(2))
    F.collect([backend.asarray(value) for value in reversed(values)], ring, row)
    exact = [float(value) for value in values]
    assert backend.to_numpy(ring).tolist() == [[-1.0] * columns, exact, exact[::-1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [np.zeros(1), np.array(1.0)]}, r"values must be 0-d.*Received: shapes \[\(1,"),
        (
            {"values": [np.array(1.0)]},
            r"values must be 0-d, .* 2 columns. Received: shapes \[\(\)\]",
        ),
        ({"ring": np.zeros((3, 2), np.float32)}, r"ring must be .*Received: float32 \(3, 2\)"),
        ({"row": 3}, r"row must be in \[0, 3\). Received: row=3"),
    ],
)
def test_values_that_do_not_fit_are_named(change, message):
    arguments = {"values": [np.array(1.0)] * 2, "ring": np.zeros((3, 2)), "row": 0} | change
    with pytest.raises(ValueError, match=f"collect: {message}"):
        F.collect(**arguments)
