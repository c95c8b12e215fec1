"""Read CIFAR-10: the binary version or the Python version, from a folder or its .tar.gz.

The binary files hold records of a label byte and 3072 pixel bytes; the Python files are pickles of
a dictionary with the same rows. Pixels run channel, row, column
(https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
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
FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
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
        path: their folder, the folder that holds ``cifar-10-batches-bin`` or
            ``cifar-10-batches-py``, or a .tar.gz of either, which is read without unpacking. ".bin"
            files are preferred.
        images_per_file: what each file must hold; None takes any number.

    Raises:
        FileNotFoundError: files are missing; the text names them.
        ValueError: a file is damaged; the text names it.

    Example:
        >>> load("cifar-10-binary.tar.gz")                                       # doctest: +SKIP
        Dataset(cifar10: 50000 train, 10000 test, 32x32x3 uint8, 10 classes)
    """
    path = Path(path)
    place = locate(path)
    if place is None:
        raise FileNotFoundError(
            f"{path}: CIFAR-10 is six files, {', '.join(BATCHES)}, each with .bin or without, "
            f"or one of {', '.join(ARCHIVES)}; none found"
        )
    splits, classes = {}, CLASSES
    for name, where, data in _files(place):
        if name == "batches.meta.txt":
            classes = _class_names(data, where)
        else:
            rows, labels = (_binary if name.endswith(".bin") else _pickled)(data, where)
            if images_per_file not in (None, len(rows)):
                raise ValueError(
                    f"{where}: expected {images_per_file} images. Received: {len(rows)}"
                )
            # (n, 3072) -> (n, 3, 32, 32) -> (n, 32, 32, 3)
            images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            splits[name] = Split(images, check_labels(labels, len(CLASSES), where))
    for suffix in (".bin", ""):
        parts = [splits[name + suffix] for name in BATCHES if name + suffix in splits]
        if len(parts) == len(BATCHES):
            train = Split(
                np.concatenate([part.images for part in parts[:-1]]),
                np.concatenate([part.labels for part in parts[:-1]]),
            )
            return Dataset(train, parts[-1], classes, "cifar10", f"{SOURCE}, in {place}")
    missing = [name for name in BATCHES if name not in splits and f"{name}.bin" not in splits]
    raise FileNotFoundError(f"{place}: CIFAR-10 is six files. Missing: {', '.join(missing)}")


def locate(path: Path) -> Path | None:
    """Return the archive or the folder under ``path`` that holds batches, or None."""
    if path.is_file():
        return path
    for folder in (path / sub for sub in FOLDERS):
        if any(
            (folder / f"{name}{suffix}").is_file() for name in BATCHES for suffix in (".bin", "")
        ):
            return folder
    return next((path / name for name in ARCHIVES if (path / name).is_file()), None)


def _files(place: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, what to call it in an error, content) of each file of CIFAR-10 in ``place``."""
    wanted = {f"{name}.bin" for name in BATCHES} | {"batches.meta.txt"}
    if place.is_dir():
        if not any((place / f"{name}.bin").is_file() for name in BATCHES):
            wanted = set(BATCHES)
        for path in sorted(place / name for name in wanted):
            if path.is_file():
                yield path.name, str(path), path.read_bytes()
        return
    try:
        # "r|" reads forwards only: a gzip stream cannot seek back cheaply.
        with gzip.open(place) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in wanted | set(BATCHES):
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
