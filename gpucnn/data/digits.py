"""The bundled default: 1,797 handwritten digits of 8x8 pixels, so that nothing need be fetched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from . import npz
from .dataset import Dataset

FILE = Path(__file__).parent / "files" / "digits.npz"
SOURCE = (
    "UCI Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
    "doi:10.24432/C50P49, CC BY 4.0"
)


def load() -> Dataset:
    """Return 1,437 training and 360 test images, (8, 8, 1) uint8 with values 0 to 16.

    The test images were drawn once, stratified by class, and are stored apart. The thirteen
    writers appear on both sides, so the test accuracy says how well new digits of known hands are
    read.

    Example:
        >>> load()
        Dataset(digits: 1437 train, 360 test, 8x8x1 uint8, 10 classes)
    """
    return replace(npz.load(FILE), source=SOURCE, peak=16.0)
