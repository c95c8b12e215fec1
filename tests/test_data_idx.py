"""IDX files: every dtype, both spellings, plain and gzipped, and each way to be damaged."""

import gzip
import struct

import numpy as np
import pytest

from gpucnn import data
from gpucnn.data import idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    code = CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_set(folder, *, train=7, test=3, ending="", spelling="-idx"):
    """An MNIST-like set; returns its four arrays."""
    rng = np.random.default_rng(5)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (train, 5, 4), np.uint8),
        "train-labels-idx1-ubyte": (np.arange(train) % 3).astype(np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (test, 5, 4), np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(test) % 3).astype(np.uint8),
    }
    for name, array in arrays.items():
        content = idx_bytes(array)
        path = folder / (name.replace("-idx", spelling) + ending)
        path.write_bytes(gzip.compress(content) if ending == ".gz" else content)
    return tuple(arrays.values())


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 1, 5), (2, 3, 2, 2), (0, 4)])
@pytest.mark.parametrize("zipped", [False, True])
def test_read_gives_back_what_was_written(tmp_path, dtype, shape, zipped):
    array = (np.random.default_rng(1).random(shape) * 100).astype(dtype)
    content = idx_bytes(array)
    file = tmp_path / "file"
    file.write_bytes(gzip.compress(content) if zipped else content)
    result = idx.read(file)
    assert result.dtype == np.dtype(dtype) and result.dtype.isnative
    assert result.shape == shape and np.array_equal(result, array)
    assert result.flags.writeable


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
def test_a_folder_of_four_files(tmp_path, ending, spelling):
    x_train, y_train, x_test, y_test = write_set(tmp_path, ending=ending, spelling=spelling)
    loaded = data.load(tmp_path)
    assert np.array_equal(loaded.train.images, x_train[..., None])
    assert np.array_equal(loaded.test.images, x_test[..., None])
    assert np.array_equal(loaded.train.labels, y_train)
    assert np.array_equal(loaded.test.labels, y_test)
    assert loaded.classes == ("0", "1", "2") and loaded.name == tmp_path.name
    assert str(tmp_path) in loaded.source


def test_classes_can_be_named(tmp_path):
    write_set(tmp_path)
    assert data.load(tmp_path, classes=("cat", "dog", "emu")).classes == ("cat", "dog", "emu")


DAMAGE = {
    "empty": (b"", "an empty file"),
    "no magic number": (b"PK\x03\x04 and more", "Received: 50 4b 03 04"),
    "short magic number": (b"\0\0\x08", "Received: 00 00 08"),
    "unknown type": (b"\0\0\x0a\x01" + bytes(8), "Received: 00 00 0a 01"),
    "no dimensions": (b"\0\0\x08\x00" + bytes(8), "Received: 00 00 08 00"),
    "cut in the header": (b"\0\0\x08\x03" + bytes(9), "takes 16 bytes. Received: 13 bytes"),
    "cut data": (idx_bytes(np.zeros((3, 4), "i2"))[:-1], "take 36 bytes .* Received: 35 bytes"),
    "trailing data": (idx_bytes(np.zeros(3, "u1")) + b"x", "take 11 bytes .* Received: 12 bytes"),
    "huge dimensions": (b"\0\0\x0e\x03" + b"\xff" * 12, "float64 values of shape"),
    "cut gzip": (gzip.compress(idx_bytes(np.zeros(99, "u1")))[:-9], "damaged gzip data"),
    "gzip header alone": (gzip.compress(b"")[:6], "damaged gzip data"),
    "wrong gzip checksum": (gzip.compress(b"abc")[:-8] + bytes(8), "damaged gzip data.*CRC"),
    "wrong gzip data": (b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 20, "damaged gzip data"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_with_the_files_name(tmp_path, name):
    content, message = DAMAGE[name]
    file = tmp_path / "damaged-idx"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        idx.read(file)
    assert str(error.value).startswith(str(file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        idx.read(tmp_path / "nothing-here")
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"Missing: t10k-labels-idx1-ubyte$"):
        data.load(tmp_path)


def test_a_label_out_of_range_is_told_with_its_file(tmp_path):
    write_set(tmp_path)
    file = tmp_path / "t10k-labels-idx1-ubyte"
    file.write_bytes(idx_bytes(np.array([0, 9, 1], np.uint8)))
    with pytest.raises(ValueError, match=r"must be 0 to 2. Received: 9 at index 1") as error:
        data.load(tmp_path)
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((6, 5, 4), np.uint8), "Received: 6 images, 7 labels"),
        (np.zeros((7, 5), np.uint8), r"Received: shape \(7, 5\)"),
        (np.zeros((7, 5, 4), np.int16), "uint8 or floating. Received: int16"),
    ],
)
def test_images_that_do_not_fit_their_labels_are_told_with_both_files(tmp_path, array, message):
    write_set(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(array))
    with pytest.raises(ValueError, match=message) as error:
        data.load(tmp_path)
    assert "train-images-idx3-ubyte" in str(error.value)
    assert "train-labels-idx1-ubyte" in str(error.value)
