"""Read an .npz file of images and labels."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from .dataset import Dataset, Split, check_labels

# What a damaged archive can raise from zipfile, zlib and NumPy's header reader.
DAMAGE = (EOFError, MemoryError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
PARTS = ("x_train", "y_train", "x_test", "y_test")


def load(path: str | Path, *, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Read ``x_train, y_train, x_test, y_test`` (Keras's names), or ``images, labels``.

    Images are (N, H, W) or (N, H, W, C), uint8 or floating; labels are integers, (N,) or (N, 1).
    An array ``classes`` of strings, if there, names the labels; else they are "0", "1", ...

    Args:
        path: the file.
        test_fraction, seed: divide ``images, labels`` as ``Split.split`` does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds pickled objects, or its arrays do not fit; the text names
            it.

    Example:
        >>> data = load("flowers.npz")                                           # doctest: +SKIP
    """
    path = Path(path)
    arrays = _arrays(path)
    try:
        if all(name in arrays for name in PARTS):
            train, test = _split(arrays, *PARTS[:2]), _split(arrays, *PARTS[2:])
        elif "images" in arrays and "labels" in arrays:
            train, test = _split(arrays, "images", "labels").split(test_fraction, seed)
        else:
            raise ValueError(
                f"an .npz of images holds {', '.join(PARTS)}, or images and labels. "
                f"Received: {', '.join(sorted(arrays)) or 'no arrays'}"
            )
        count = 1 + int(max(train.labels.max(initial=0), test.labels.max(initial=0)))
        classes = tuple(str(name) for name in arrays.get("classes", range(count)))
        return Dataset(train, test, classes, path.stem, f"arrays of {path}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of an .npz file")
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array, as an .npy file does")
            return {name: file[name] for name in file.files}
    except DAMAGE as error:
        raise ValueError(f"{path}: not a readable .npz file of plain arrays. {error}") from error


def _split(arrays: dict[str, np.ndarray], images: str, labels: str) -> Split:
    x, y = arrays[images], arrays[labels]
    if x.ndim == 3:
        x = x[..., None]  # (N, H, W) -> (N, H, W, 1)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]  # (N, 1) -> (N,), as Keras stores CIFAR-10
    try:
        return Split(x, check_labels(y, None, labels))
    except ValueError as error:
        raise ValueError(f"{images}, {labels}: {error}") from error
