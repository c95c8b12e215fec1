"""The bundled digits, splits, .npz files, and how `load` finds its reader."""

import subprocess
import sys

import numpy as np
import pytest

from gpucnn import data
from gpucnn.data import Dataset, Split, dataset


def images(count: int, dtype=np.uint8) -> np.ndarray:
    """Images that all differ: each pixel of image i is i."""
    return np.broadcast_to(np.arange(count, dtype=dtype)[:, None, None, None], (count, 3, 4, 2))


def test_the_digits_are_the_1797_that_uci_published():
    digits = data.load()
    assert repr(digits) == "Dataset(digits: 1437 train, 360 test, 8x8x1 uint8, 10 classes)"
    assert digits.classes == tuple("0123456789")
    assert digits.image_shape == (8, 8, 1)
    assert "CC BY 4.0" in digits.source and "Alpaydin" in digits.source
    both = np.concatenate([digits.train.images, digits.test.images])
    assert (both.min(), both.max(), digits.peak) == (0, 16, 16.0)
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    # the class counts of optdigits.tes in UCI's description
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(np.unique(both.reshape(1797, 64), axis=0)) == 1797


def test_the_digits_test_classes_are_balanced_as_the_whole():
    digits = data.load("digits")
    train, test = np.bincount(digits.train.labels), np.bincount(digits.test.labels)
    assert np.all(np.abs(test - (train + test) * 360 / 1797) < 1)


def test_the_first_digit_is_a_zero_as_printed_in_the_file():
    first = data.load().train
    at = int(np.flatnonzero(first.labels == 0)[0])
    rows = [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]]
    assert first.images[at, :2, :, 0].tolist() == rows


def test_take_keeps_images_and_labels_together_and_copies():
    split = Split(images(6), np.arange(6))
    taken = split.take(np.array([4, 1]))
    assert taken.images[:, 0, 0, 0].tolist() == taken.labels.tolist() == [4, 1]
    assert taken.images.flags.writeable and taken.labels.dtype == np.int64


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.77])
def test_split_is_stratified_disjoint_and_complete(fraction):
    labels = np.repeat(np.arange(5), [40, 7, 1, 23, 60])
    split = Split(images(131), labels)
    rest, part = split.split(fraction, seed=3)
    assert len(part) == round(fraction * 131)
    seen = np.concatenate([rest.images[:, 0, 0, 0], part.images[:, 0, 0, 0]])
    assert np.array_equal(np.sort(seen), np.arange(131))
    assert np.all(np.diff(rest.images[:, 0, 0, 0].astype(int)) > 0)
    share = np.bincount(labels) * len(part) / 131
    assert np.all(np.abs(np.bincount(part.labels, minlength=5) - share) < 1)
    assert np.array_equal(rest.labels, labels[rest.images[:, 0, 0, 0]])


def test_split_follows_its_seed():
    split = Split(images(100), np.arange(100) % 4)
    first, again, other = (split.split(0.2, seed)[1].images[:, 0, 0, 0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 0.001])
def test_split_refuses_an_empty_side(fraction):
    with pytest.raises(ValueError, match=rf"Split: fraction .*Received: fraction={fraction}"):
        Split(images(20), np.arange(20)).split(fraction)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 3, 4), np.uint8), [0, 1], r"\(N, H, W, C\)\. Received: shape \(2, 3, 4\)"),
        (np.zeros((2, 3, 4, 0), np.uint8), [0, 1], r"Received: shape \(2, 3, 4, 0\)"),
        (images(2, np.int16), [0, 1], "uint8 or floating. Received: int16"),
        (images(2), [0, 1, 2], "Received: 2 images, 3 labels"),
        (images(2), [0.0, 1.0], r"integers in one dimension. Received: float64 \(2,\)"),
        (images(2), [[0, 1], [1, 0]], "one dimension. Received: int64"),
        (images(2), [0, -1], "labels must be 0 or more. Received: -1 at index 1"),
    ],
)
def test_split_refuses_arrays_that_do_not_fit(x, y, message):
    with pytest.raises(ValueError, match=message):
        Split(x, np.array(y))


def test_dataset_refuses_splits_that_do_not_fit():
    train = Split(images(4), np.arange(4))
    with pytest.raises(ValueError, match=r"pets: labels must be 0 to 2. Received: 3 at index 3"):
        Dataset(train, train, ("a", "b", "c"), "pets", "made here")
    other = Split(np.zeros((1, 3, 3, 2), np.uint8), np.zeros(1, int))
    with pytest.raises(ValueError, match=r"one shape. Received: \(3, 4, 2\) and \(3, 3, 2\)"):
        Dataset(train, other, tuple("abcd"), "pets", "made here")


def test_labels_of_any_integer_type_become_int64():
    for dtype in (np.uint8, np.int16, np.uint64):
        labels = dataset.check_labels(np.array([0, 9], dtype), 10, "here")
        assert labels.dtype == np.int64 and labels.tolist() == [0, 9]


# .npz files


def test_npz_with_keras_names(tmp_path):
    file = tmp_path / "flowers.npz"
    x = np.random.default_rng(0).random((6, 3, 4), np.float32)
    np.savez(file, x_train=x, y_train=np.arange(6)[:, None], x_test=x[:2], y_test=[5, 0])
    flowers = data.load(file)
    assert flowers.name == "flowers" and str(file) in flowers.source
    assert flowers.classes == tuple("012345") and flowers.peak == x.max()
    assert np.array_equal(flowers.train.images, x[..., None])
    assert flowers.train.labels.tolist() == list(range(6))
    assert flowers.test.labels.tolist() == [5, 0]


def test_npz_of_images_and_labels_is_divided_by_the_seed(tmp_path):
    file = tmp_path / "all.npz"
    np.savez_compressed(file, images=images(50), labels=np.arange(50) % 2, classes=["cat", "dog"])
    loaded = data.load(str(file), test_fraction=0.3, seed=4)
    _, test = Split(images(50), np.arange(50) % 2).split(0.3, 4)
    assert loaded.classes == ("cat", "dog") and len(loaded.train) == 35
    assert np.array_equal(loaded.test.images, test.images)
    assert loaded.peak == 255.0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": images(2)}, "Received: x_train"),
        ({}, "Received: no arrays"),
        ({"images": images(2), "labels": np.arange(3)}, "Received: 2 images, 3 labels"),
        ({"images": images(2), "labels": np.array([0.5, 1])}, "Received: float64"),
        ({"images": images(2), "labels": np.array([None, 1])}, "not a readable .npz"),
        (
            {"images": images(9), "labels": np.arange(9), "classes": ["a", "b"]},
            "labels must be 0 to 1. Received: 2",
        ),
    ],
)
def test_npz_names_the_file_and_what_does_not_fit(tmp_path, arrays, message):
    file = tmp_path / "bad.npz"
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        data.load(file)
    assert str(error.value).startswith(str(file))


def test_npz_cut_anywhere_or_overwritten_is_refused(tmp_path):
    whole, file = tmp_path / "whole.npz", tmp_path / "bad.npz"
    np.savez_compressed(whole, images=images(40), labels=np.arange(40))
    content = whole.read_bytes()
    for cut in range(0, len(content), 13):
        file.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"bad\.npz: not a readable \.npz"):
            data.load(file)
    file.write_bytes(content[:60] + bytes(20) + content[80:])
    with pytest.raises(ValueError, match=r"bad\.npz"):
        data.load(file)


def test_npy_under_the_name_npz_is_refused(tmp_path):
    file = tmp_path / "array.npz"
    with file.open("wb") as stream:
        np.save(stream, images(2))
    with pytest.raises(ValueError, match=r"a single array, as an .npy file"):
        data.load(file)


# load and its readers


def test_available_names_have_a_line_each():
    names = data.available()
    assert list(names) == ["digits", "fashion-mnist", "mnist", "cifar10"]
    names.clear()  # a copy: the caller's own
    assert data.available()


def test_load_of_nothing_there_says_what_it_takes():
    with pytest.raises(FileNotFoundError, match="did you mean 'fashion-mnist'") as error:
        data.load("fashion_mnist")
    assert "folder with pictures" in str(error.value)
    with pytest.raises(FileNotFoundError, match="Received: 'nowhere/at/all'"):
        data.load("nowhere/at/all")


def test_load_refuses_an_option_of_another_reader():
    with pytest.raises(TypeError, match=r"load\('digits'\): .*'size'.*Received: {'size': 3}"):
        data.load("digits", size=3)


def test_import_loads_nothing_heavy():
    heavy = "PIL pooch requests tarfile gzip pickle cupy torch matplotlib"
    code = (
        f"import sys, numpy; before = set(sys.modules); import gpucnn.data; "
        f"print(*((set(sys.modules) - before) & set({heavy.split()})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert callable(data.read_picture)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = data.nothing
