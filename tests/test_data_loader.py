"""The loader: order, purity, prefetch, errors, threads."""

import threading
import time
import traceback

import numpy as np
import pytest

from gpucnn.data import Compose, Flip, Loader, Normalize, Shift, Split
from gpucnn.data.loader import ahead

COUNT = 23
RNG = np.random.default_rng(8)
SPLIT = Split(RNG.integers(0, 256, (COUNT, 6, 5, 2), np.uint8), np.arange(COUNT))
AUGMENT = Compose([Shift(2), Flip()])


@pytest.fixture(autouse=True)
def no_thread_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def labels(loader, epoch=0):
    return np.concatenate([y for _, y in loader.epoch(epoch)]).tolist()


def same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second) > 0
    for (x, y), (x2, y2) in zip(first, second, strict=True):
        assert np.array_equal(x, x2) and np.array_equal(y, y2)
        assert x.dtype == x2.dtype


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"),
    [(5, False, [5, 5, 5, 5, 3]), (5, True, [5] * 4), (23, True, [23]), (99, False, [23])],
)
def test_batch_sizes_and_their_number(batch_size, drop_last, sizes):
    loader = Loader(SPLIT, batch_size, drop_last=drop_last)
    assert [len(y) for _, y in loader.epoch(0)] == sizes
    assert len(loader) == len(sizes)


def test_every_image_comes_once_an_epoch_with_its_label():
    for x, y in Loader(SPLIT, 4).epoch(3):
        assert np.array_equal(x, SPLIT.images[y])
    assert sorted(labels(Loader(SPLIT, 4), 3)) == list(range(COUNT))


def test_without_shuffle_the_order_is_the_splits():
    assert labels(Loader(SPLIT, 4, shuffle=False), 7) == list(range(COUNT))


def test_shuffling_is_a_pure_function_of_seed_and_epoch():
    loader = Loader(SPLIT, 4, seed=1)
    orders = [labels(loader, epoch) for epoch in range(3)]
    assert [labels(Loader(SPLIT, 9, seed=1), epoch) for epoch in (2, 0, 1)] == [
        orders[2],
        orders[0],
        orders[1],
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert labels(Loader(SPLIT, 4, seed=2)) != orders[0]
    assert loader.order(1).tolist() == orders[1]


def test_prefetch_does_not_change_a_bit():
    plain = Loader(SPLIT, 4, augment=AUGMENT, normalize=Normalize(100, 50), prefetch=0)
    for depth in (1, 2, 50):
        ahead_of_time = Loader(
            SPLIT, 4, augment=AUGMENT, normalize=Normalize(100, 50), prefetch=depth
        )
        same(plain.epoch(1), ahead_of_time.epoch(1))


def test_a_resumed_epoch_goes_on_bit_for_bit():
    loader = Loader(SPLIT, 4, augment=AUGMENT)
    same(list(loader.epoch(2))[3:], Loader(SPLIT, 4, augment=AUGMENT).epoch(2, start=3))
    assert list(loader.epoch(2, start=len(loader))) == []


def test_augmentation_differs_by_epoch_and_batch_and_seed():
    one = Split(np.broadcast_to(SPLIT.images[:1], (8, 6, 5, 2)), np.zeros(8, int))

    def first(seed, epoch, batch):
        loader = Loader(one, 4, shuffle=False, seed=seed, augment=Shift(2))
        return next(loader.epoch(epoch, start=batch))[0].tobytes()

    drawn = [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1)]
    assert len(set(drawn)) == 4
    assert first(0, 0, 0) == drawn[0]


def test_the_split_is_never_handed_out_itself():
    split = Split(SPLIT.images.copy(), SPLIT.labels.copy())
    for x, y in Loader(split, 4, shuffle=False).epoch(0):
        x[:] = 0
        y[:] = 0
    assert np.array_equal(split.images, SPLIT.images)
    assert np.array_equal(split.labels, SPLIT.labels)


def test_normalize_comes_after_augment():
    loader = Loader(SPLIT, 4, augment=lambda x, rng: x // 2, normalize=Normalize(10, 2))
    x, y = next(loader.epoch(0))
    assert np.array_equal(x, (SPLIT.images[y] // 2 - np.float32(10)) / np.float32(2))
    assert x.dtype == np.float32


def test_transfer_runs_in_the_consumers_thread():
    threads = []

    def transfer(array):
        threads.append(threading.current_thread())
        return memoryview(array)

    x, y = next(Loader(SPLIT, 4, transfer=transfer).epoch(0))
    assert isinstance(x, memoryview) and isinstance(y, memoryview)
    assert threads == [threading.main_thread()] * 2


def test_augment_runs_in_one_other_thread():
    threads = set()

    def augment(x, rng):
        threads.add(threading.current_thread())
        return x

    list(Loader(SPLIT, 4, augment=augment).epoch(0))
    assert len(threads) == 1 and threading.main_thread() not in threads


def broken(x, rng):
    raise ArithmeticError("a bad augmentation")


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_error_reaches_the_consumer_with_its_traceback(prefetch):
    with pytest.raises(ArithmeticError, match="a bad augmentation") as error:
        list(Loader(SPLIT, 4, augment=broken, prefetch=prefetch).epoch(0))
    frames = [frame.name for frame in traceback.extract_tb(error.value.__traceback__)]
    assert "broken" in frames and frames[0].startswith("test_an_error")


def test_an_error_comes_after_the_batches_before_it():
    def third_fails(index):
        if index == 2:
            raise KeyError(index)
        return index

    got = []
    with pytest.raises(KeyError):
        for item in ahead(third_fails, range(9), 4):
            got.append(item)
    assert got == [0, 1]


def test_no_more_than_depth_are_made_ahead():
    made = []
    items = ahead(lambda i: made.append(i) or i, range(20), 3)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [0, 1, 2, 3]  # the one taken, and three ahead
    items.close()


def test_leaving_early_ends_the_thread():
    for x, y in Loader(SPLIT, 2).epoch(0):  # noqa: B007
        break
    batches = Loader(SPLIT, 2).epoch(0)
    next(batches)
    batches.close()
    Loader(SPLIT, 2).epoch(0)  # never begun
    with pytest.raises(ZeroDivisionError):
        for _ in Loader(SPLIT, 2).epoch(0):
            _ = 1 // 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1. Received: batch_size=0"),
        ({"batch_size": 2.5}, "batch_size .* Received: batch_size=2.5"),
        ({"seed": -1}, "seed .* Received: seed=-1"),
        ({"prefetch": -1}, "prefetch .* Received: prefetch=-1"),
        ({"batch_size": 24, "drop_last": True}, "Received: 23 images, batch_size=24"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"Loader: .*{message}"):
        Loader(SPLIT, **{"batch_size": 4} | arguments)


def test_parts_of_another_kind_are_refused():
    with pytest.raises(TypeError, match=r"Loader: split must be a gpucnn.data.Split.* ndarray"):
        Loader(SPLIT.images, 4)
    with pytest.raises(TypeError, match=r"Loader: augment must be a function.* augment='flip'"):
        Loader(SPLIT, 4, augment="flip")


def test_bad_epochs_are_refused_before_the_loop():
    loader = Loader(SPLIT, 4)
    with pytest.raises(ValueError, match="Received: epoch=-1, start=0"):
        loader.epoch(-1)
    with pytest.raises(ValueError, match=r"start from 0 to 6. Received: epoch=0, start=7"):
        loader.epoch(0, start=7)
