"""CIFAR-10: both versions, folders and archives, damage, and a hostile pickle."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from gpucnn import data
from gpucnn.data import cifar

PER_FILE = 4
LOAD = {"images_per_file": PER_FILE}


def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The six batches as (n, 32, 32, 3) and (n,), in their order."""
    rng = np.random.default_rng(2)
    return {
        name: (
            rng.integers(0, 256, (PER_FILE, 32, 32, 3), np.uint8),
            rng.integers(0, 10, PER_FILE, np.uint8),
        )
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    }


def binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    out = b""
    for image, label in zip(images, labels, strict=True):
        out += bytes([label]) + b"".join(image[:, :, c].tobytes() for c in range(3))
    return out


def python2_pickle(images: np.ndarray, labels: np.ndarray) -> bytes:
    """The batch in the opcodes of Python 2, where all strings are bytes, as the real files are."""
    rows = np.stack([image.transpose(2, 0, 1).ravel() for image in images])

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    dtype = (
        b"cnumpy\ndtype\n(" + string(b"u1") + b"K\0K\1tR"
        b"(K\3" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0t" + string(b"b") + b"tR"
        b"(K\1(" + b"".join(b"M" + struct.pack("<H", n) for n in rows.shape) + b"t"
        + dtype + b"I00\nT" + struct.pack("<i", rows.size) + rows.tobytes() + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}(" + string(b"batch_label") + string(b"testing batch 1 of 1")
        + string(b"labels") + numbers + string(b"data") + array + b"u."
    )  # fmt: skip


def picture(images: np.ndarray) -> bytes:
    """A PNG with the 1024 pixels of one image in each row."""
    stream = io.BytesIO()
    Image.fromarray(images.reshape(len(images), -1, 3)).save(stream, "PNG")
    return stream.getvalue()


def files(version: str) -> dict[str, bytes]:
    if version == "bin":
        names = "\n".join(cifar.CLASSES) + "\n\n"
        return {f"{name}.bin": binary(*batch) for name, batch in batches().items()} | {
            "batches.meta.txt": names.encode(),
            "readme.html": b"<html>",
        }
    if version == "png":
        train = [int(n) for name, (_, y) in batches().items() if name != "test_batch" for n in y]
        test = [int(n) for n in batches()["test_batch"][1]]
        return {f"{name}.png": picture(x) for name, (x, _) in batches().items()} | {
            "train_lables.json": json.dumps(train).encode(),
            "test_lables.json": json.dumps(test).encode(),
            "package.json": b"{}",
        }
    return {name: python2_pickle(*batch) for name, batch in batches().items()} | {
        "batches.meta": b"not read"
    }


FOLDERS = {"bin": "cifar-10-batches-bin", "py": "cifar-10-batches-py", "png": "package"}
ARCHIVES = dict(zip(FOLDERS, cifar.ARCHIVES, strict=True))


def write_folder(folder, version):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(version).items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path, version):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files(version).items():
            member = tarfile.TarInfo(f"{FOLDERS[version]}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def check(loaded):
    expected = list(batches().values())
    assert np.array_equal(loaded.train.images, np.concatenate([x for x, _ in expected[:5]]))
    assert np.array_equal(loaded.train.labels, np.concatenate([y for _, y in expected[:5]]))
    assert np.array_equal(loaded.test.images, expected[5][0])
    assert np.array_equal(loaded.test.labels, expected[5][1])
    assert loaded.train.images.flags.c_contiguous
    assert loaded.classes[3] == "cat" and loaded.name == "cifar10"


@pytest.mark.parametrize("version", FOLDERS)
def test_folder_its_parent_and_archive_give_the_same(tmp_path, version):
    folder = write_folder(tmp_path / FOLDERS[version], version)
    check(data.load(folder, **LOAD))
    check(data.load(tmp_path, **LOAD))
    name = ARCHIVES[version]
    archive = write_archive(tmp_path / name, version)
    check(data.load(archive, **LOAD))
    (tmp_path / "alone").mkdir()
    archive.rename(tmp_path / "alone" / name)
    check(data.load(tmp_path / "alone", **LOAD))


def test_pickles_of_todays_numpy_are_read_too(tmp_path):
    for name, (x, y) in batches().items():
        rows = np.stack([image.transpose(2, 0, 1).ravel() for image in x])
        content = pickle.dumps({b"data": rows, b"labels": [int(label) for label in y]}, protocol=4)
        (tmp_path / name).write_bytes(content)
    check(data.load(tmp_path, **LOAD))


def test_class_names_come_from_the_binary_version(tmp_path):
    write_folder(tmp_path, "bin")
    names = [f"class{i}" for i in range(10)]
    (tmp_path / "batches.meta.txt").write_text("\n".join(names) + "\n")
    assert data.load(tmp_path, **LOAD).classes == tuple(names)
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"batches\.meta\.txt: expected 10 .* Received: 2"):
        data.load(tmp_path, **LOAD)


def test_a_missing_batch_is_named(tmp_path):
    write_folder(tmp_path, "bin")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"Missing: data_batch_3$"):
        data.load(tmp_path, **LOAD)
    with pytest.raises(FileNotFoundError, match="CIFAR-10 is six files"):
        cifar.load(tmp_path / "nowhere")


def test_files_must_hold_ten_thousand_images_unless_told_otherwise(tmp_path):
    write_folder(tmp_path, "bin")
    with pytest.raises(ValueError, match=r"expected 10000 images. Received: 4"):
        data.load(tmp_path)
    check(data.load(tmp_path, images_per_file=None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "multiple of 3073 bytes. Received: 0 bytes"),
        (bytes(3073 * 4 - 1), "Received: 12291 bytes"),
        (bytes(3073 * 3), "expected 4 images. Received: 3"),
        (bytes(3073 * 3) + b"\x0a" + bytes(3072), "must be 0 to 9. Received: 10 at index 3"),
    ],
)
def test_binary_damage_is_told_with_the_files_name(tmp_path, content, message):
    write_folder(tmp_path, "bin")
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        data.load(tmp_path, **LOAD)
    assert str(error.value).startswith(str(tmp_path / "data_batch_2.bin"))


ROWS = np.zeros((PER_FILE, 3072), np.uint8)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "Received: list, NoneType, NoneType"),
        ({b"data": ROWS}, "Received: dict, ndarray, NoneType"),
        ({b"data": ROWS, b"labels": [0] * 3}, r"Received: uint8 \(4, 3072\)"),
        ({b"data": ROWS[:, 1:], b"labels": [0] * 4}, r"Received: uint8 \(4, 3071\)"),
        ({b"data": ROWS * 1.0, b"labels": [0] * 4}, r"Received: float64 \(4, 3072\)"),
        ({b"data": ROWS, b"labels": [0, 1, 2, 10]}, "Received: 10 at index 3"),
        ({b"data": ROWS, b"labels": [0, 1, 2, "x"]}, "must be integers. Received:"),
        ({b"data": ROWS[:0], b"labels": []}, r"Received: uint8 \(0, 3072\)"),
    ],
)
def test_a_pickle_of_something_else_is_told_with_the_files_name(tmp_path, batch, message):
    write_folder(tmp_path, "py")
    (tmp_path / "data_batch_4").write_bytes(pickle.dumps(batch, protocol=4))
    with pytest.raises(ValueError, match=message) as error:
        data.load(tmp_path, **LOAD)
    assert str(error.value).startswith(str(tmp_path / "data_batch_4"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2.png", b"no picture", "data_batch_2.png: not a readable picture"),
        ("data_batch_2.png", picture(np.zeros((3, 32, 32, 3), np.uint8)), "expected 4 images"),
        ("test_lables.json", b"[1, 2", "test_lables.json: not a readable list"),
        ("test_lables.json", b"[1, 2, 3, 10]", "must be 0 to 9. Received: 10 at index 3"),
        ("test_lables.json", b"[1, 2, 3]", "test_lables.json must hold .* 4 images. Received: 3"),
    ],
)
def test_damaged_pictures_and_labels_are_told_with_the_files_name(tmp_path, name, content, message):
    write_folder(tmp_path, "png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path, **LOAD)


def test_pictures_of_another_shape_and_missing_labels_are_told(tmp_path):
    write_folder(tmp_path, "png")
    (tmp_path / "train_lables.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"Missing: train_lables\.json"):
        data.load(tmp_path, **LOAD)
    Image.new("L", (1024, 4)).save(tmp_path / "test_batch.png")
    with pytest.raises(ValueError, match=r"1024 pixels .* Received: uint8 \(4, 1024\)"):
        data.load(tmp_path, **LOAD)


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_pickle_that_calls_functions_is_refused_and_calls_nothing(tmp_path):
    write_folder(tmp_path, "py")
    target = tmp_path / "made-by-the-pickle"
    content = pickle.dumps({b"data": ROWS, b"labels": Hostile(str(target))}, protocol=4)
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match=r"data_batch_1: .*mkdir, which is refused"):
        data.load(tmp_path, **LOAD)
    assert not target.exists()


@pytest.mark.parametrize("cut", [0, 1, 30, 200, 5000, -1])
def test_a_cut_pickle_is_told_with_the_files_name(tmp_path, cut):
    write_folder(tmp_path, "py")
    file = tmp_path / "test_batch"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ValueError, match="test_batch: not a readable pickle"):
        data.load(tmp_path, **LOAD)


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    content = write_archive(tmp_path / "cifar-10-binary.tar.gz", "bin").read_bytes()
    file = tmp_path / "cut.tar.gz"
    for cut in (0, 5, 100, len(content) // 2, len(content) - 2000, len(content) - 1):
        file.write_bytes(content[:cut])
        with pytest.raises((ValueError, FileNotFoundError), match=r"cut\.tar\.gz"):
            data.load(file, **LOAD)


def test_an_archive_with_a_changed_byte_is_refused(tmp_path):
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz", "bin")
    plain = bytearray(gzip.decompress(archive.read_bytes()))
    whole = gzip.compress(bytes(plain))
    plain[3000] ^= 1  # in the pixels of the first batch: only the checksum can tell
    archive.write_bytes(gzip.compress(bytes(plain))[:-8] + whole[-8:])
    with pytest.raises(ValueError, match=r"damaged archive.*CRC"):
        data.load(archive, **LOAD)


def test_what_is_no_archive_is_refused(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("nothing of the kind")
    with pytest.raises(ValueError, match=r"notes\.txt: not a .tar.gz archive"):
        data.load(file)
