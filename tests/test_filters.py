"""Classical picture filters: their sums, their borders, their dtypes."""

import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.filters import FILTERS, apply_filter


def by_loops(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    height, width = image.shape
    reach = kernel.shape[0] // 2
    y = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            for r in range(-reach, reach + 1):
                for s in range(-reach, reach + 1):
                    near = image[
                        min(max(row + r, 0), height - 1), min(max(column + s, 0), width - 1)
                    ]
                    y[row, column] += near * kernel[r + reach, s + reach]
    return y


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_against_loops(name: str) -> None:
    image = np.random.default_rng(1).standard_normal((6, 5, 3))
    y = apply_filter(image, name)
    expected = np.stack([by_loops(image[..., c], FILTERS[name]) for c in range(3)], axis=-1)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(apply_filter(image[..., 1], name), y[..., 1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", FILTERS)
def test_an_even_picture_stays_even(name: str) -> None:
    y = apply_filter(np.full((4, 7), 3.0), name)
    brightness = 0 if name in ("sobel_x", "sobel_y", "laplacian", "edge") else 3
    np.testing.assert_allclose(y, brightness, atol=1e-14)


def test_every_backend_gives_the_same(backend: Backend) -> None:
    image = np.random.default_rng(2).standard_normal((6, 5, 3))
    expected = np.stack([by_loops(image[..., c], FILTERS["blur"]) for c in range(3)], axis=-1)
    np.testing.assert_allclose(apply_filter(image, "blur"), expected, rtol=1e-12, atol=1e-13)


def test_integer_pictures_are_rounded_and_cut_off() -> None:
    image = np.array([[0, 0, 250], [0, 10, 250], [0, 0, 250]], np.uint8)
    y = apply_filter(image, "sharpen")
    assert y.dtype == np.uint8
    np.testing.assert_array_equal(y[1], [0, 0, 255])  # of -10, -200 and 490
    assert apply_filter(image, "box_blur")[1, 1] == 84  # (3 * 250 + 10) / 9 = 84.4
    assert apply_filter(image.astype(np.float32), "edge").dtype == np.float32


def test_what_apply_filter_refuses() -> None:
    with pytest.raises(ValueError, match=r"name must be one of 'sobel_x', .* Received: name='x'"):
        apply_filter(np.zeros((3, 3)), "x")
    with pytest.raises(ValueError, match=r"must have 2 axes.* Received: image of shape \(3,\)"):
        apply_filter(np.zeros(3), "blur")
    with pytest.raises(ValueError, match=r"none empty. Received: image of shape \(0, 3\)"):
        apply_filter(np.zeros((0, 3)), "blur")
