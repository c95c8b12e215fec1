"""CIFAR-10 in parts: what is unpacked is what was packed, byte for byte."""

import numpy as np
import pytest

from gpucnn import data
from profiling import cifar_parts

RNG = np.random.default_rng(0)


def split(count):
    images = RNG.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return data.Split(images, RNG.integers(0, 10, count))


def test_parts_unpack_to_what_gpucnn_reads(tmp_path):
    train, test = split(25), split(4)
    names = tuple("abcdefghij")
    files = cifar_parts.write(data.Dataset(train, test, names, "cifar10", ""), tmp_path)
    assert len(files) == 2 and all(file.stat().st_size < 64 << 20 for file in files)
    cifar_parts.unpack(tmp_path, tmp_path / "home")
    loaded = data.load(tmp_path / "home", images_per_file=None)
    for ours, theirs in ((loaded.train, train), (loaded.test, test)):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_differences_of_smooth_images_are_small():
    ramp = np.add.outer(np.arange(32), 2 * np.arange(32)).astype(np.uint8)
    images = np.stack([ramp, ramp + 5, ramp + 9], axis=-1)[None]
    stored = cifar_parts.differences(images)
    assert np.count_nonzero(stored) <= 3 + 31 + 31  # the first row and column, and the channels
    np.testing.assert_array_equal(cifar_parts.pixels(stored), images)


def test_a_part_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_parts, "LIMIT", 1000)
    made = data.Dataset(split(10), split(2), tuple("abcdefghij"), "cifar10", "")
    with pytest.raises(ValueError, match=r"part-1\.npz: a part must be below 1000 bytes"):
        cifar_parts.write(made, tmp_path)
