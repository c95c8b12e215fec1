"""Views of test images: each by hand."""

import numpy as np
import pytest

from gpucnn.views import averaged

IMAGES = np.random.default_rng(0).standard_normal((2, 4, 5, 3))


def corner(images):
    return images[:, 0, 0]  # (N, C)


def test_one_view_is_the_image():
    np.testing.assert_array_equal(averaged(corner, IMAGES, 1), IMAGES[:, 0, 0])


def test_two_views_are_the_image_and_its_mirror_image():
    np.testing.assert_allclose(averaged(corner, IMAGES), (IMAGES[:, 0, 0] + IMAGES[:, 0, -1]) / 2)


def test_six_views_are_moved_by_a_pixel_both_ways_with_mirrored_edges():
    # Up and left: what stood at (1, 1) comes in by reflection at (0, 0); down and right: (1, 1) is
    # the first pixel. From the right, the same.
    left = IMAGES[:, 0, 0] / 4 + 2 * IMAGES[:, 1, 1] / 8
    right = IMAGES[:, 0, -1] / 4 + 2 * IMAGES[:, 1, -2] / 8
    np.testing.assert_allclose(averaged(corner, IMAGES, 6), left + right)


def test_another_number_of_views_is_refused():
    with pytest.raises(ValueError, match=r"averaged: views must be one of 1, 2, 6. Received: .*3"):
        averaged(corner, IMAGES, 3)
