"""Channels last to channels first and back, on every backend: numbers move, and none is changed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.operations.conftest import inside_another

SHAPES = {
    "one_number": (1, 1, 1),
    "a_row": (3, 1, 37),
    "a_column": (1, 41, 1),
    "pixels_of_few_channels": (2, 1171, 3),
    "few_channels_of_pixels": (2, 3, 1171),
    "whole_units": (2, 96, 48),
    "units_along_rows_only": (1, 67, 80),
    "units_along_columns_only": (1, 80, 67),
    "several_tiles": (1, 131, 129),
    "wide": (2, 5, 300),
    "pictures": (3, 1456, 3),
    "planes": (3, 3, 1456),
    "three_by_three": (2, 3, 3),
    "no_picture": (0, 16, 3),
    "no_sample": (0, 4, 4),
}
DTYPES = ("uint8", "float16", "float32", "int64", "complex128")


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """All different, as far as the dtype has different bits."""
    count = np.dtype(dtype).itemsize * int(np.prod(shape))
    bits = np.random.default_rng(count).integers(0, 256, count, np.uint8)
    return bits.view(dtype).reshape(shape)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_arrives(run, shape, dtype):
    x = numbers(shape, dtype)
    y = run("change_layout", x)
    assert y.shape == (shape[0], shape[2], shape[1])
    assert y.tobytes() == x.transpose(0, 2, 1).tobytes()


@pytest.mark.parametrize("shape", [(2, 64, 32), (2, 64, 3), (2, 3, 64)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "complex128"])
def test_an_array_that_begins_inside_another(every_backend, dtype, shape):
    x = inside_another(every_backend, numbers(shape, dtype))
    y = every_backend.to_numpy(every_backend.change_layout(x))
    assert y.tobytes() == every_backend.to_numpy(x).transpose(0, 2, 1).tobytes()
