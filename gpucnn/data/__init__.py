"""Images to train on: read them, divide them, change them at random, and cut them into batches.

>>> data = load("digits")
>>> data
Dataset(digits: 1437 train, 360 test, 8x8x1 uint8, 10 classes)
>>> train, validation = data.train.split(0.1, seed=0)
>>> loader = Loader(train, 64, augment=Shift(1), normalize=Normalize.of(train.images))
>>> images, labels = next(loader.epoch(0))
>>> images.shape, images.dtype, labels.shape
((64, 8, 8, 1), dtype('float32'), (64,))
"""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .augment import (
    AlternatingFlip,
    Augmentation,
    Compose,
    Crop,
    Cutout,
    Flip,
    Normalize,
    Shift,
)
from .dataset import Dataset, Split
from .device_loader import DeviceLoader
from .loader import Loader

__all__ = [
    "AlternatingFlip",
    "Augmentation",
    "Compose",
    "Crop",
    "Cutout",
    "Dataset",
    "DeviceLoader",
    "Flip",
    "Loader",
    "Normalize",
    "Shift",
    "Split",
    "available",
    "load",
    "read_picture",
]

NAMES = {
    "digits": "1,797 handwritten digits, 8x8x1, 10 classes; bundled",
    "fashion-mnist": "70,000 articles of clothing, 28x28x1, 10 classes; 29 MiB",
    "mnist": "70,000 handwritten digits, 28x28x1, 10 classes; 11 MiB",
    "cifar10": "60,000 photographs of animals and vehicles, 32x32x3, 10 classes; 163 MiB",
}


def available() -> dict[str, str]:
    """Return the names that ``load`` knows, with a line about each."""
    return dict(NAMES)


def load(name_or_path: str | Path = "digits", **options: Any) -> Dataset:
    """Read a data set, by its name or from a path.

    Args:
        name_or_path: one of ``available()``; an .npz file; a folder of pictures with a folder a
            class; a folder with the IDX files of MNIST; a folder or archive with the files of
            CIFAR-10. A folder that is called like a name is reached as "./digits".
        options: those of the reader: ``folder, download`` for the public sets; ``size, channels,
            test_fraction, seed`` for pictures; ``test_fraction, seed`` for .npz; ``classes`` for
            IDX.

    Raises:
        FileNotFoundError: there is no such data set; the text says what to do.
        ValueError: a file is damaged; the text names it.
        TypeError: the reader does not take such an option.

    Example:
        >>> load("digits")
        Dataset(digits: 1437 train, 360 test, 8x8x1 uint8, 10 classes)
    """
    read, arguments = _reader(name_or_path)
    try:
        inspect.signature(read).bind(*arguments, **options)
    except TypeError as error:
        raise TypeError(f"load({str(name_or_path)!r}): {error}. Received: {options}") from None
    return read(*arguments, **options)


def _reader(name_or_path: str | Path) -> tuple[Any, tuple[Any, ...]]:
    """Return the function that reads it, and its positional arguments."""
    # The readers are imported here, and Pillow and pooch within them: most programs need one.
    if name_or_path == "digits":
        from . import digits

        return digits.load, ()
    if name_or_path in NAMES:
        from . import public

        return public.load, (name_or_path,)
    path = Path(name_or_path)
    if not path.exists():
        close = get_close_matches(str(name_or_path), NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise FileNotFoundError(
            f"name_or_path must be one of {', '.join(NAMES)}, or the path of an .npz file, of an "
            f"archive of CIFAR-10, or of a folder with pictures, IDX files or CIFAR-10. "
            f"Received: {str(name_or_path)!r}, which does not exist{hint}"
        )
    from . import cifar, idx, npz, pictures

    if path.suffix == ".npz":
        return npz.load, (path,)
    if path.is_dir() and idx.locate(path):
        return idx.load, (path,)
    if cifar.locate(path):
        return cifar.load, (path,)
    return pictures.load, (path,)


def __getattr__(name: str) -> Any:
    if name == "read_picture":
        from .pictures import read_picture

        return read_picture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
