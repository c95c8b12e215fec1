"""Pictures that lie on the device: the loader's order, the kernel's changes, the same bits."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucnn import feed
from gpucnn.backends import get_backend, use_backend
from gpucnn.changes import UNCHANGED, Changes
from gpucnn.data import (
    AlternatingFlip,
    Compose,
    Crop,
    Cutout,
    DeviceLoader,
    Flip,
    Loader,
    Normalize,
    Shift,
    Split,
)
from gpucnn.data.device_loader import SHARE, _divided, fits
from gpucnn.optimizers import SGD
from gpucnn.samples import Samples
from gpucnn.varying import kept_by

from .emulated_graphs import Device
from .emulator.build import CXX
from .training import NORMALIZE, X, Y, assert_same_training, make_trainer, measured, network

RNG = np.random.default_rng(5)
SPLIT = Split(RNG.integers(0, 256, (23, 6, 5, 3), np.uint8), RNG.integers(0, 9, 23))
AUGMENT = Compose([Crop(2), Flip(), Cutout(3, fill=9)])
COLOURS = Normalize((100, 110, 120), (50, 60, 70))


def batches(loader: Loader, epoch: int, start: int = 0, backend: Any = None) -> list:
    numpy = get_backend("numpy") if backend is None else backend
    return [[numpy.to_numpy(array) for array in batch] for batch in loader.epoch(epoch, start)]


def joined(loader: Loader, epoch: int, start: int = 0, backend: Any = None) -> list[np.ndarray]:
    return [np.concatenate(c) for c in zip(*batches(loader, epoch, start, backend), strict=True)]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def device_loader(batch_size: int = 5, **options: Any) -> DeviceLoader:
    options = {"seed": 3, "augment": AUGMENT, "normalize": COLOURS, "backend": "numpy"} | options
    return DeviceLoader(SPLIT, batch_size, **options)


# ---- the same batches ----------------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("normalize", [COLOURS, NORMALIZE])
def test_unchanged_pictures_are_the_loaders_bit_for_bit(backend, drop_last, normalize):
    options = {"seed": 3, "normalize": normalize, "drop_last": drop_last}
    plain = Loader(SPLIT, 5, **options)
    kept = DeviceLoader(SPLIT, 5, backend=backend, **options)
    assert len(kept) == len(plain)
    for epoch in (0, 4):
        assert same(batches(kept, epoch, backend=backend), list(plain.epoch(epoch)))


def test_flips_in_turns_are_those_of_a_loader():
    options = {"seed": 9, "augment": AlternatingFlip(), "normalize": NORMALIZE}
    for epoch in (0, 1):
        kept = DeviceLoader(SPLIT, 5, backend="numpy", **options)
        assert same(batches(kept, epoch), list(Loader(SPLIT, 5, **options).epoch(epoch)))


def test_every_backend_draws_the_same(backend):
    kept = device_loader(backend=backend)
    assert same(batches(kept, 2, backend=backend), batches(device_loader(), 2))


def test_the_batch_size_changes_nothing():
    whole = joined(device_loader(23), 1)
    for size in (1, 4, 99):
        assert same([joined(device_loader(size), 1)], [whole])


def test_a_resumed_epoch_goes_on_bit_for_bit():
    assert same(batches(device_loader(), 2)[3:], batches(device_loader(), 2, start=3))
    assert batches(device_loader(), 2, start=5) == []


def test_epochs_and_seeds_differ():
    still = {"shuffle": False}
    seen = [joined(device_loader(seed=s, **still), e)[0] for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len({images.tobytes() for images in seen}) == 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_images_come_in_the_models_dtype(dtype):
    images, _ = device_loader(dtype=dtype).epoch(0).__next__()
    narrow = device_loader().epoch(0).__next__()[0]
    assert images.dtype.name == dtype
    assert np.array_equal(images, narrow.astype(images.dtype))


@pytest.mark.parametrize(
    "step",
    [Shift(1, fill=77), Crop(1), Crop(1, mode="zero"), Flip(0.5), Cutout(2, fill=5), Cutout(3)],
)
def test_what_is_drawn_is_what_the_augmentation_draws(step):
    """Of a small picture every result there can be comes up, in both ways, and no other."""
    image = np.arange(1, 13, dtype=np.uint8).reshape(1, 3, 4, 1)
    many = np.repeat(image, 600, axis=0)
    expected = {picture.tobytes() for picture in step(many, np.random.default_rng(0))}
    split = Split(many, np.zeros(600, int))
    ((images, _),) = DeviceLoader(split, 600, augment=step, backend="numpy").epoch(0)
    assert {picture.tobytes() for picture in images.astype(np.uint8)} == expected
    assert len(expected) > 1


def test_a_recorded_step_reads_the_same_memory_in_every_epoch(backend):
    """Its kernel's arguments never change: the order and the place are where they were."""
    kept, recorded = device_loader(backend=backend), []

    def keep(number, dtype):
        recorded.append((number, backend.asarray(np.zeros((), dtype))))
        return recorded[-1][1]

    launches, gather = [], backend.gather_batch
    kept.begin(0)
    with pytest.MonkeyPatch.context() as patch, kept_by(keep):
        patch.setattr(backend, "gather_batch", lambda *given: launches.append(given))
        kept.batch()
    ((next_place, place),), (arguments,) = recorded, launches
    for epoch in (0, 1):
        kept.begin(epoch)
        for expected in batches(device_loader(), epoch)[:-1]:
            assert kept.upcoming == 5
            place[...] = next_place()
            got = [backend.to_numpy(array) for array in gather(*arguments)]
            assert same([got], [expected])
        assert kept.upcoming == 3


# ---- a trainer keeps pictures there --------------------------------------------------------------


def fit(trainer, epochs=2, **options):
    options = {"batch_size": 16, "normalize": NORMALIZE, "augment": Shift(1)} | options
    return trainer.fit(X, Y, epochs=epochs, **options)


def test_a_trainer_does_so_on_a_gpu_and_the_numbers_are_those_of_numpy(backend):
    if backend.name == "numpy":
        pytest.skip("there a trainer is asked to")
    trainer = make_trainer(optimizer=SGD(0.05, momentum=0.9))
    actual = measured(fit(trainer, validation_split=0.0))
    with use_backend("numpy"):
        kept = DeviceLoader(Split(X, Y), 16, augment=Shift(1), normalize=NORMALIZE)
        again = make_trainer(optimizer=SGD(0.05, momentum=0.9))
        expected = measured(again.fit(kept, epochs=2))
    for one, other in zip(actual, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.skipif(shutil.which(CXX) is None, reason="the emulator needs a C++ compiler")
def test_a_recorded_step_takes_its_batch_itself():
    """With the same bits as one that is not, and as after a stop; the last batch is smaller."""

    recorded = make_trainer(optimizer=SGD(0.05), backend=Device().backend)
    plain = make_trainer(optimizer=SGD(0.05), backend=Device().backend, record=False)
    stopped = make_trainer(optimizer=SGD(0.05), backend=Device().backend)
    for trainer, epochs in ((recorded, [2]), (plain, [2]), (stopped, [1, 1])):
        with use_backend(trainer.backend):
            for count in epochs:
                fit(trainer, count)
    assert recorded.recording_failure is None
    steps = recorded.training_step.steps.recordings
    # 108 images are 6 batches of 16 and one of 12, and no step is given any
    assert {key: step.recorded for key, step in steps.items()} == {(16,): True, (12,): False}
    assert_same_training(recorded, plain)
    assert_same_training(stopped, plain)


def loaders_of(monkeypatch, backend, **options) -> list[type]:
    """Return which loaders a trainer makes for its training and its validation."""
    made, streamed = [], feed.streamed
    monkeypatch.setattr(
        feed, "streamed", lambda *given: made.append(type(given[0])) or streamed(*given)
    )
    fit(make_trainer(backend=backend), 1, **options)
    return made


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [DeviceLoader, DeviceLoader]),
        ({"augment": lambda images, rng: images}, [Loader, DeviceLoader]),
        ({"augment": Shift(1, fill=0.5), "validation_split": 0.0}, None),
        ({"validation": (X / 255.0, Y)}, [DeviceLoader, Loader]),
    ],
)
def test_what_lies_on_a_gpu_and_what_streams_there(monkeypatch, backend, options, expected):
    if expected is None:
        with pytest.raises(ValueError, match=r"Shift: fill must be a whole number"):
            loaders_of(monkeypatch, backend, **options)
    else:
        made = loaders_of(monkeypatch, backend, **options)
        assert made == (expected if backend.name == "cuda" else [Loader, Loader])


def test_a_set_beyond_a_share_of_the_free_memory_streams(monkeypatch, backend):
    needed = SPLIT.images.nbytes + 12 * len(SPLIT)
    for free, answer in ((SHARE * needed, True), (SHARE * needed - 1, False)):
        assert fits(SPLIT, SimpleNamespace(free_memory=lambda free=free: free)) == answer
    monkeypatch.setattr(type(backend), "free_memory", lambda self: 0)
    assert loaders_of(monkeypatch, backend) == [Loader, Loader]


def test_memory_is_counted_in_bytes(backend):
    assert backend.free_memory() > 2**20


def test_a_resumed_training_is_the_same_bit_for_bit(tmp_path):
    def run(epochs, folder):
        with use_backend("numpy"):
            data = DeviceLoader(
                Split(X, Y), 16, seed=2, augment=Compose([Shift(1), Cutout(2)]), normalize=NORMALIZE
            )
            trainer = make_trainer(model=network())
            trainer.fit(data, epochs=epochs, checkpoint_dir=folder, resume=True)
        return trainer

    straight = run(3, tmp_path / "straight")
    run(1, tmp_path / "stopped")
    assert_same_training(run(3, tmp_path / "stopped"), straight)


# ---- what it takes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (None, UNCHANGED),
        (Shift(2, fill=7), Changes(shift=2, fill=7)),
        (Crop(2), Changes(shift=2, fill=None)),
        (Compose([Crop(3, mode="zero"), Flip(0.25)]), Changes(shift=3, flip=0.25)),
        (Compose([Flip(), Shift(1)]), Changes(shift=1, flip=0.5)),
        (Compose([AlternatingFlip(), Crop(2)]), Changes(shift=2, fill=None, alternating=True)),
        (Compose([AlternatingFlip(), Flip()]), None),
        (
            Compose([Compose([Flip()]), Cutout(4, fill=255.0)]),
            Changes(flip=0.5, cutout=4, cover=255),
        ),
        (Compose([Shift(1), NORMALIZE]), Changes(shift=1)),
        (Compose([Shift(1), Shift(1)]), None),
        (Compose([Cutout(2), Flip()]), None),
        (Compose([NORMALIZE, Shift(1)]), None),
        (Compose([Flip(), Shift(1), Flip()]), None),
        (Shift(2, fill=0.5), None),
        (Cutout(2, fill=256), None),
        (lambda images, rng: images, None),
    ],
)
def test_the_kernel_knows_these(steps, expected):
    found = _divided(steps, None)
    assert (found and found[0]) == expected


def test_one_normalisation_or_none():
    assert _divided(Compose([Flip(), NORMALIZE]), None) == (Changes(flip=0.5), NORMALIZE)
    assert _divided(Flip(), NORMALIZE) == (Changes(flip=0.5), NORMALIZE)
    assert _divided(NORMALIZE, NORMALIZE) is None
    assert _divided(None, lambda images: images) is None
    assert _divided(None, None) == (UNCHANGED, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": Split(np.zeros((4, 3, 3, 1)), np.arange(4))}, "uint8. Received: float64"),
        ({"split": Samples(X, np.eye(3)[Y])}, r"labels .*float64 \(120, 3\)"),
        ({"augment": Compose([Cutout(2), Flip()])}, "augment must be of .*Received: .*Cutout"),
        ({"normalize": np.sqrt}, "normalize a Normalize.*Received: .*sqrt"),
        ({"augment": Crop(6)}, "Crop must mirror less .*padding=6 for 8x6"),
        ({"dtype": "complex64"}, "dtype must be one of .*Received: complex64"),
    ],
)
def test_what_the_kernel_does_not_know_is_refused(change, message):
    arguments = {"split": Split(X, Y), "batch_size": 2, "backend": "numpy"} | change
    with pytest.raises(TypeError, match=f"DeviceLoader: .*{message}"):
        DeviceLoader(**arguments)


def test_other_arguments_are_checked_as_a_loaders():
    with pytest.raises(ValueError, match=r"Normalize: mean must be one number.*3 channels"):
        device_loader(normalize=Normalize((1, 2), 1))
    with pytest.raises(ValueError, match=r"DeviceLoader: batch_size must be .*batch_size=0"):
        device_loader(batch_size=0)
    with pytest.raises(ValueError, match=r"backend must be .*Received: 3"):
        device_loader(backend=3)
    with pytest.raises(ValueError, match=r"dtype must be one of .*Received: dtype='int8'"):
        device_loader(dtype="int8")
    with pytest.raises(ValueError, match=r"DeviceLoader: .*Received: epoch=-1, start=0"):
        device_loader().begin(-1)


def test_an_epoch_is_begun_and_ends():
    kept = device_loader()
    with pytest.raises(RuntimeError, match=r"no batch left; call begin\(epoch\) first"):
        kept.batch()
    kept.begin(0, start=4)
    assert kept.upcoming == 3 and len(kept.batch()[1]) == 3
    with pytest.raises(RuntimeError, match=r"no batch left"):
        kept.batch()


def test_there_is_one_epoch_at_a_time():
    kept = device_loader()
    first = kept.epoch(0)
    next(first)
    next(kept.epoch(1))
    with pytest.raises(RuntimeError, match=r"another was begun, .* before batch 1 of epoch 0"):
        next(first)
