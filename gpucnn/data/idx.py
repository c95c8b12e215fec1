"""Read IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped.

An IDX file is big-endian: two zero bytes, a type code, the number of dimensions, each dimension as
a 32-bit count, then the values in C order (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from .dataset import Dataset, Split, check_labels

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def read(path: str | Path) -> np.ndarray:
    """Return the array in an IDX file, in the machine's byte order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged gzip data, a wrong magic number, or more or fewer bytes than the
            dimensions ask for; the text names the file.

    Example:
        >>> read("train-images-idx3-ubyte.gz").shape                             # doctest: +SKIP
        (60000, 28, 28)
    """
    data = _unzipped(Path(path))
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES or data[3] == 0:
        raise ValueError(
            f"{path}: an IDX file begins 00 00, a type code of "
            f"{', '.join(f'{code:02x}' for code in DTYPES)}, and the number of dimensions. "
            f"Received: {data[:4].hex(' ') or 'an empty file'}"
        )
    dtype, ndim = np.dtype(DTYPES[data[2]]), data[3]
    header = 4 + 4 * ndim
    if len(data) < header:
        raise ValueError(
            f"{path}: the header of {ndim} dimensions takes {header} bytes. "
            f"Received: {len(data)} bytes"
        )
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", ndim, offset=4))
    expected = header + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(
            f"{path}: {dtype.name} values of shape {shape} take {expected} bytes with the header. "
            f"Received: {len(data)} bytes"
        )
    return np.frombuffer(data, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def load(
    folder: str | Path,
    *,
    classes: tuple[str, ...] | None = None,
    name: str | None = None,
    source: str | None = None,
) -> Dataset:
    """Read the four files of an MNIST-like set from ``folder``: see ``FILES``, each plain or .gz.

    Args:
        folder: where they lie; images are (N, H, W) or (N, H, W, C) in their files.
        classes: the names of the labels; None takes "0", "1", ... up to the greatest training one.
        name: of the set; by default the folder's.
        source: opens the line that tells the origin.

    Raises:
        FileNotFoundError: files are missing; the text names them.
        ValueError: a file is damaged; the text names it.
    """
    folder = Path(folder)
    paths = locate(folder)
    missing = [file for file in FILES if file not in paths]
    if missing:
        raise FileNotFoundError(
            f"{folder}: an IDX data set is {', '.join(FILES)}, each plain or .gz. "
            f"Missing: {', '.join(missing)}"
        )
    arrays = {file: read(path) for file, path in paths.items()}
    if classes is None:
        top = int(arrays[FILES[1]].max(initial=0))
        classes = tuple(str(label) for label in range(top + 1))
    splits = []
    for images_file, labels_file in (FILES[:2], FILES[2:]):
        images = arrays[images_file]
        labels = check_labels(arrays[labels_file], len(classes), paths[labels_file])
        if images.ndim == 3:
            images = images[..., None]  # (N, H, W) -> (N, H, W, 1)
        try:
            splits.append(Split(images, labels))
        except ValueError as error:
            raise ValueError(f"{paths[images_file]}, {paths[labels_file]}: {error}") from error
    source = f"{source or 'IDX files'}, in {folder}"
    return Dataset(*splits, classes, name or folder.resolve().name, source)


def complete(folder: Path) -> bool:
    """Return whether all of ``FILES`` lie in ``folder``."""
    return len(locate(folder)) == len(FILES)


def locate(folder: Path) -> dict[str, Path]:
    """Return the files of ``FILES`` that lie in ``folder``.

    Both names in use are known: "train-images-idx3-ubyte" and "train-images.idx3-ubyte".
    """
    found = {}
    for file in FILES:
        for spelling in (file, file.replace("-idx", ".idx")):
            for path in (folder / spelling, folder / f"{spelling}.gz"):
                if path.is_file():
                    found.setdefault(file, path)
    return found


def _unzipped(path: Path) -> bytes:
    """Return the file's bytes; gzip is told by its first two bytes, whatever the name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of an IDX file")
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip data. Received: {error}") from error
