"""Read a folder of pictures, with a folder for each class. Needs Pillow, of the extra "data"."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from ..arguments import as_choice, as_tuple
from .dataset import Dataset, Split

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB"}


def load(
    folder: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Read ``train/<class>/*.png`` and ``test/<class>/*.png`` in a folder, or ``<class>/*.png``.

    The second form is divided as ``Split.split`` does. Class names are the folders' in alphabetical
    order; hidden files and those that are not of ``SUFFIXES`` are passed over.

    Args:
        size: (H, W), or one number for both, that every picture is resized to; None keeps the
            pictures' own size, which must then be one.
        channels: 3 for red, green and blue; 1 for grey.
        test_fraction, seed: of the division.

    Raises:
        FileNotFoundError: there is no class folder.
        ImportError: Pillow is not installed.
        ValueError: a picture is broken or of another size, or a class has none; the text names it.

    Example:
        >>> load("flowers", size=64)                                             # doctest: +SKIP
        Dataset(flowers: 2936 train, 734 test, 64x64x3 uint8, 5 classes)
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give one that holds a folder a class")
    name, source = folder.resolve().name, f"pictures in {folder}"
    read = partial(_read_all, size=size, channels=channels)

    if _subfolders(folder / "train") and _subfolders(folder / "test"):
        classes = _subfolders(folder / "train")
        strange = sorted(set(_subfolders(folder / "test")) - set(classes))
        if strange:
            raise ValueError(
                f"{folder / 'test'}: every class must be in train too. Received: {strange}"
            )
        files, labels = _files(folder / "train", classes)
        count = len(files)
        test_files, test_labels = _files(folder / "test", classes)
        images, labels = read(files + test_files), np.array(labels + test_labels)
        train = Split(images[:count], labels[:count])
        return Dataset(train, Split(images[count:], labels[count:]), classes, name, source)

    classes = _subfolders(folder)
    if not classes:
        raise FileNotFoundError(f"{folder}: expected a folder a class, with pictures; found none")
    files, labels = _files(folder, classes)
    whole = Split(read(files), np.array(labels))
    return Dataset(*whole.split(test_fraction, seed), classes, name, source)


def read_picture(
    path: str | Path, *, size: int | tuple[int, int] | None = None, channels: int = 3
) -> np.ndarray:
    """Return a picture as (H, W, C) uint8, upright as its EXIF tag says.

    Resizing averages over the pixels it drops and stretches to the size asked for. Transparency
    is dropped; 16-bit grey keeps its upper 8 bits.

    Args:
        size: (H, W), or one number for both; None keeps the picture's own.
        channels: 3 for red, green and blue; 1 for grey.

    Raises:
        FileNotFoundError: there is no such picture.
        ImportError: Pillow is not installed.
        ValueError: it is broken; the text names it.

    Example:
        >>> read_picture("cat.jpg", size=(32, 48)).shape                         # doctest: +SKIP
        (32, 48, 3)
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError('pictures need Pillow: pip install "gpucnn[data]"') from error
    as_choice("read_picture", "channels", channels, tuple(MODES))
    if size is not None:
        height, width = as_tuple("read_picture", "size", size, 2)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such picture")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # Pillow would clip 16 bits at 255
                grey = np.asarray(picture, dtype=np.int64) >> 8
                picture = Image.fromarray(grey.astype(np.uint8))
            picture = picture.convert(MODES[channels])
            if size is not None:
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # each of Pillow's decoders fails in its own way
        raise ValueError(f"{path}: not a readable picture. {error}") from error
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _read_all(files: list[Path], size: int | tuple[int, int] | None, channels: int) -> np.ndarray:
    """Return (N, H, W, C) of ``files``, decoded in threads: Pillow works outside the GIL."""
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(partial(read_picture, size=size, channels=channels), files))
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise ValueError(
                f"{file}: pictures must have one size, or give size=(H, W) to resize them. "
                f"Received: {picture.shape[:2]}, and {pictures[0].shape[:2]} in {files[0]}"
            )
    return np.stack(pictures)


def _files(root: Path, classes: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    """Return the pictures of every class folder that ``root`` has, and their labels."""
    files, labels = [], []
    for label, name in enumerate(classes):
        if not (root / name).is_dir():
            continue  # a class may be absent from the test pictures
        found = sorted(
            path
            for path in (root / name).iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not found:
            raise ValueError(
                f"{root / name}: expected pictures ({', '.join(SUFFIXES)}). Received: none"
            )
        files += found
        labels += [label] * len(found)
    return files, labels


def _subfolders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
